"""PASCAL VOC and COCO on disk, read and checked into the list of dictionaries that detectron2 trains on.

A dataset has detectron2's name (`voc_2007_trainval`, `coco_2017_train`) and detectron2's place under one root:

    VOC2007/ or VOCdevkit/VOC2007/    Annotations/*.xml  JPEGImages/*.jpg  ImageSets/Main/{trainval,test,...}.txt
    coco/                             annotations/instances_{train,val}2017.json  {train,val}2017/*.jpg

What is wrong with the data is said before anything trains: a missing folder, split, image or annotation file, an annotation
that does not parse, a class nobody knows. Pure Python; detectron2's semantics follow its data/datasets/pascal_voc.py and
coco.py (a VOC box (1, 1, W, H) is the whole image and becomes (0, 0, W, H); "difficult" objects stay in; COCO polygons
need three points).
"""

import hashlib
import json
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# fmt: off
VOC_CLASSES = [
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
]
COCO_CLASSES = [
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
]
# fmt: on
# COCO's ids run from 1 to 90 and leave these out.
COCO_IDS = [i for i in range(1, 91) if i not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}]

# The values of detectron2.structures.BoxMode, which this module does not import.
XYXY, XYWH = 0, 1

Record = dict[str, Any]


def records(name: str, root: Path) -> list[Record]:
    """One dictionary an image: file_name, image_id, height, width, annotations (category_id from 0, bbox in pixels,
    bbox_mode, and difficult or iscrowd and segmentation). Annotations keep their file's order.

    Raises FileNotFoundError for what is not there and ValueError for what is there and wrong.
    """
    if not root.is_dir():
        raise FileNotFoundError(
            f"expected a folder of datasets, found nothing at {root}: give --data a folder that exists"
        )
    if match := re.fullmatch(r"voc_(2007|2012)_(\w+)", name):
        return _voc(root, match[1], match[2])
    if match := re.fullmatch(r"coco_2017_(train|val)", name):
        return _coco(root, match[1])
    raise ValueError(f"expected a dataset like voc_2007_trainval or coco_2017_train, found {name!r}")


def coco_annotations(name: str, root: Path) -> Path:
    """The annotation file of coco_2017_train or coco_2017_val."""
    return root / "coco" / "annotations" / f"instances_{name.split('_')[2]}2017.json"


def digest(*datasets: Sequence[Record]) -> str:
    """sha256 over the images' ids and sizes and their annotations, in order of id; where they lie does not matter."""
    sha = hashlib.sha256()
    for images in datasets:
        for r in sorted(images, key=lambda r: str(r["image_id"])):
            content = [r["image_id"], r["height"], r["width"], r["annotations"]]
            sha.update(json.dumps(content, sort_keys=True).encode())
        sha.update(b"\n")
    return sha.hexdigest()


def trainable(images: Sequence[Record]) -> list[Record]:
    """The images with at least one object that is not a crowd (detectron2's DATALOADER.FILTER_EMPTY_ANNOTATIONS)."""
    return [r for r in images if any(not a.get("iscrowd", 0) for a in r["annotations"])]


def _voc(root: Path, year: str, split: str) -> list[Record]:
    places = (root / f"VOC{year}", root / "VOCdevkit" / f"VOC{year}")
    base = next((p for p in places if p.is_dir()), None)
    if base is None:
        raise FileNotFoundError(
            f"expected VOC{year}/ or VOCdevkit/VOC{year}/ in {root}, found {_listing(root)}: "
            f"extract the VOC{year} archives there, or point --data at the folder that has them"
        )
    listed = base / "ImageSets" / "Main" / f"{split}.txt"
    if not listed.is_file():
        raise FileNotFoundError(
            f"expected the split {listed}, found {_listing(listed.parent)}: VOC's archives have it, the test split's is its own"
        )
    ids = [line.split()[0] for line in listed.read_text().splitlines() if line.strip()]
    if not ids:
        raise ValueError(f"expected image names in {listed}, found an empty file")
    photographs = _names(base / "JPEGImages")
    annotations = _names(base / "Annotations")
    for image_id in ids:
        if f"{image_id}.jpg" not in photographs:
            raise FileNotFoundError(
                f"expected the image {base / 'JPEGImages' / image_id}.jpg, which {listed} lists: extract the archive again"
            )
        if f"{image_id}.xml" not in annotations:
            raise FileNotFoundError(
                f"expected the annotation {base / 'Annotations' / image_id}.xml, which {listed} lists: "
                "extract the archive again"
            )
    return [_voc_image(base, image_id) for image_id in ids]


def _voc_image(base: Path, image_id: str) -> Record:
    file = base / "Annotations" / f"{image_id}.xml"
    try:
        tree = ET.parse(file).getroot()
        width, height = (int(tree.findtext(f"size/{side}", "")) for side in ("width", "height"))
        objects = []
        for found in tree.findall("object"):
            x1, y1, x2, y2 = (float(found.findtext(f"bndbox/{edge}", "")) for edge in ("xmin", "ymin", "xmax", "ymax"))
            objects.append(
                (
                    found.findtext("name", ""),
                    [x1 - 1, y1 - 1, x2, y2],
                    int(found.findtext("difficult", "0").strip() or 0),
                )
            )
    except (ET.ParseError, ValueError) as error:
        raise ValueError(
            f"expected VOC's XML with size/width, size/height and numbers in each object/bndbox, found {error} in {file}"
        ) from None
    if width < 1 or height < 1:
        raise ValueError(
            f"expected the image's size in {file}, found {width}x{height}: write the photograph's own size there"
        )
    if unknown := [name for name, _, _ in objects if name not in VOC_CLASSES]:
        raise ValueError(f"expected one of {', '.join(VOC_CLASSES)}, found the class {unknown[0]!r} in {file}")
    return {
        "file_name": str(base / "JPEGImages" / f"{image_id}.jpg"),
        "image_id": image_id,
        "height": height,
        "width": width,
        "annotations": [
            {"category_id": VOC_CLASSES.index(name), "bbox": box, "bbox_mode": XYXY, "difficult": difficult}
            for name, box, difficult in objects
        ],
    }


def _coco(root: Path, split: str) -> list[Record]:
    base, file = root / "coco", coco_annotations(f"coco_2017_{split}", root)
    if not base.is_dir():
        raise FileNotFoundError(
            f"expected coco/ in {root}, found {_listing(root)}: extract COCO 2017 there, or point --data at its parent"
        )
    if not file.is_file():
        raise FileNotFoundError(f"expected the annotations {file}, found {_listing(file.parent)}: extract them there")
    try:
        content = json.loads(file.read_bytes())
        images = sorted(content["images"], key=lambda image: image["id"])
        categories = {c["id"]: c["name"] for c in content["categories"]}
        objects = defaultdict(list)
        for annotation in content["annotations"]:
            objects[annotation["image_id"]].append(annotation)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"expected COCO's images, categories and annotations, found {error!r} in {file}: download it again"
        ) from None
    if not images:
        raise ValueError(f"expected images in {file}, found none")
    real = dict(zip(COCO_IDS, COCO_CLASSES, strict=True))
    if wrong := [f"{i}: {name!r}" for i, name in categories.items() if real.get(i) != name]:
        raise ValueError(f"expected COCO's 80 classes with their ids, found {wrong[0]} in {file}; they are {real}")
    if absent := sorted(real.keys() - categories.keys()):
        raise ValueError(
            f"expected COCO's 80 classes with their ids, found {len(categories)} of them in {file}; "
            f"{absent[0]} ({real[absent[0]]!r}) is missing"
        )
    photographs = _names(base / f"{split}2017")
    return [_coco_image(base / f"{split}2017", file, photographs, image, objects[image["id"]]) for image in images]


def _coco_image(folder: Path, file: Path, photographs: set[str], image: dict, objects: list[dict]) -> Record:
    if image["file_name"] not in photographs:
        raise FileNotFoundError(
            f"expected the image {folder / image['file_name']}, which {file} lists: extract it again"
        )
    annotations = []
    for o in objects:
        if o["category_id"] not in COCO_IDS:
            raise ValueError(
                f"expected a COCO class, found category_id {o['category_id']} in annotation {o.get('id')} of {file}; "
                f"the ids are {COCO_IDS}"
            )
        if len(o.get("bbox", ())) != 4:
            raise ValueError(
                f"expected bbox [x, y, width, height], found {o.get('bbox')} in annotation {o.get('id')} of {file}"
            )
        shape = o.get("segmentation")
        if isinstance(shape, list):
            shape = [polygon for polygon in shape if len(polygon) % 2 == 0 and len(polygon) >= 6]
            if o["segmentation"] and not shape:
                continue
        annotations.append(
            {
                "category_id": COCO_IDS.index(o["category_id"]),
                "bbox": o["bbox"],
                "bbox_mode": XYWH,
                "iscrowd": o.get("iscrowd", 0),
            }
            | ({"segmentation": shape} if shape else {})
        )
    return {
        "file_name": str(folder / image["file_name"]),
        "image_id": image["id"],
        "height": image["height"],
        "width": image["width"],
        "annotations": annotations,
    }


def _names(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"expected the folder {folder}, found {_listing(folder.parent)}: extract the archive again"
        )
    return {p.name for p in folder.iterdir()}


def _listing(folder: Path) -> str:
    if not folder.is_dir():
        return f"no folder {folder}"
    names = sorted(p.name for p in folder.iterdir())
    return (", ".join(names[:8]) + (", ..." if len(names) > 8 else "")) or "an empty folder"
