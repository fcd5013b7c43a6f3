"""PASCAL VOC, COCO, LVIS and Cityscapes on disk, read and checked into the list of dictionaries that detectron2 trains on.

A dataset has detectron2's name (`voc_2007_trainval`, `coco_2017_train`) and detectron2's place under one root:

    VOC2007/ or VOCdevkit/VOC2007/    Annotations/*.xml  JPEGImages/*.jpg  ImageSets/Main/{trainval,test,...}.txt
    coco/                             annotations/instances_{train,val}2017.json  {train,val}2017/*.jpg
                                      annotations/person_keypoints_{train,val}2017.json
                                      annotations/densepose_{train,valminusminival,minival}2014.json
    lvis/                             lvis_{v0.5,v1}_{train,val}.json, whose images are COCO's
    cityscapes/                       leftImg8bit/{train,val}/<city>/*_leftImg8bit.png
                                      gtFine/{train,val}/<city>/*_gtFine_instanceIds.png

What is wrong with the data is said before anything trains: a missing folder, split, image or annotation file, an annotation
that does not parse, a class nobody knows. detectron2's semantics follow its data/datasets/pascal_voc.py, coco.py, lvis.py and
cityscapes.py (a VOC box (1, 1, W, H) is the whole image and becomes (0, 0, W, H); "difficult" objects stay in; a listed image
may lie in a folder below; of COCO's polygons those with three points count, and an object without one is left out, while LVIS
has no other; COCO has no "ignore" and LVIS no crowds; a COCO keypoint is a pixel, whose centre is half a pixel further; an
LVIS image lies where its `coco_url` says, because v0.5's `file_name` is COCO 2014's; DensePose's images, which are COCO
2014's too, lie where COCO 2017 has the same ones; a Cityscapes object keeps the outlines of
its visible parts, holes filled). Deliberate difference: detectron2 cuts Cityscapes' polygons out of one another with shapely,
here the outlines are those of the pixels that cityscapesscripts drew from the same polygons, which are also what the
evaluation counts.
"""

import hashlib
import json
import math
import os
import re
import unicodedata
import xml.etree.ElementTree as ET
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from xml.parsers import expat

import cv2
import numpy as np
from PIL import Image

from downstream.task import ELSEWHERE

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
KEYPOINTS = [
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
]
# fmt: on
# COCO's ids run from 1 to 90 and leave these out.
COCO_IDS = [i for i in range(1, 91) if i not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}]
# DensePose's splits of COCO 2014, and that of COCO 2017 which has their images.
DENSEPOSE = {"train": "train", "valminusminival": "train", "minival": "val"}
# What its annotators marked of a person: points x, y of 256 x 256 over the box, the part of the body they lie on, U, V in [0, 1] on
# that part's chart; and masks of 256 x 256 of its larger parts (detectron2, projects/DensePose/doc/DENSEPOSE_DATASETS.md).
POINTS = ("dp_x", "dp_y", "dp_I", "dp_U", "dp_V")
PARTS, LARGER_PARTS, CHART = 24, 14, 256
LVIS_CLASSES = {"v0.5": 1230, "v1": 1203}  # their ids run from 1 without a gap
# of an image: classes that are not there, classes that are not all marked
LVIS_LISTS = ("neg_category_ids", "not_exhaustive_category_ids")
FREQUENCIES = ("r", "c", "f")  # rare, common, frequent: LVIS's groups of classes
# torchvision's, of class folders
SUFFIXES = (
    ".jpeg",
    ".jpg",
    ".png",
    ".bmp",
    ".webp",
    ".ppm",
    ".pgm",
    ".tif",
    ".tiff",
)
FAR = 1e5  # pixels; a JPEG's sides end at 65,535, and pycocotools walks along a polygon's sides
MASK = "a polygon of three points or run lengths that fill {}x{} pixels"
# Cityscapes' labels with instances that are evaluated, by their id (cityscapesscripts, helpers/labels.py); ids end at 33.
CITYSCAPES_CLASSES = {
    24: "person", 25: "rider", 26: "car", 27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
CITYSCAPES_LABELS = 34
CITYSCAPES_SMALLEST = 100  # pixels of an object that the evaluation counts

# The values of detectron2.structures.BoxMode, which this module does not import.
XYXY, XYWH = 0, 1

Record = dict[str, Any]


def records(name: str, root: Path, masks: bool = False) -> list[Record]:
    """One dictionary an image: file_name, image_id, height, width, annotations (category_id from 0, bbox in pixels,
    bbox_mode, and difficult or iscrowd, segmentation, keypoints x, y, visibility, ... and DensePose's points and masks).
    Annotations keep their file's order. LVIS's images also have neg_category_ids and not_exhaustive_category_ids, in the file's ids, and those of Cityscapes
    instance_file_name, the PNG of their objects.

    masks: whether COCO's and LVIS's masks are used, to train or to test, and one that cannot be is an error

    Raises FileNotFoundError for what is not there and ValueError for what is there and wrong.
    """
    if match := re.fullmatch(r"cityscapes_fine_instance_seg_(train|val)", name):
        return _cityscapes(own_folder(root, "cityscapes"), match[1])
    if not root.is_dir():
        raise FileNotFoundError(
            f"expected a folder of datasets, found nothing at {root}: give --data a folder that exists"
        )
    if match := re.fullmatch(r"voc_(2007|2012)_(\w+)", name):
        return _voc(root, match[1], match[2])
    if match := re.fullmatch(r"(keypoints_)?coco_2017_(train|val)", name):
        return _coco(root, match[2], annotation_file(name, root), "keypoints" if match[1] else "", masks)
    if name.removeprefix("densepose_coco_2014_") in DENSEPOSE:
        return _coco(root, split_of_2017(name), annotation_file(name, root), "densepose", masks)
    if match := re.fullmatch(r"lvis_(v0\.5|v1)_(train|val)", name):
        return _lvis(root, match[1], match[2], annotation_file(name, root), masks)
    raise _unknown(name)


def own_folder(root: Path, name: str) -> Path:
    """Where a dataset is: in the folder of the datasets or, if it has none of that name, where the variable says that names this
    one's folder alone."""
    inside, alone = root / name, os.environ.get(ELSEWHERE.get(name, ""))
    return Path(alone).expanduser() if alone and not inside.exists() else inside


def elsewhere() -> bool:
    """Whether a dataset has a variable of its own."""
    return any(os.environ.get(variable) for variable in ELSEWHERE.values())


def classes(name: str) -> int:
    """How many classes a dataset of `records` has. Raises ValueError for a name that is none."""
    sizes = {
        "voc": len(VOC_CLASSES),
        "coco": len(COCO_CLASSES),
        "keypoints": 1,
        "densepose": 1,
        "cityscapes": len(CITYSCAPES_CLASSES),
    }
    sizes |= {f"lvis_{version}": count for version, count in LVIS_CLASSES.items()}
    for family, size in sizes.items():
        if name.startswith(f"{family}_"):
            return size
    raise _unknown(name)


def _unknown(name: str) -> ValueError:
    return ValueError(f"expected a dataset like voc_2007_trainval or coco_2017_train, found {name!r}")


def annotation_file(name: str, root: Path) -> Path:
    """The annotation file of a split of COCO, of COCO's keypoints, of DensePose or of LVIS."""
    if name.startswith("lvis"):
        return root / "lvis" / f"{name}.json"
    if name.startswith("densepose"):
        return root / "coco" / "annotations" / f"densepose_{name.rpartition('_')[2]}2014.json"
    kind = "person_keypoints" if name.startswith("keypoints") else "instances"
    return root / "coco" / "annotations" / f"{kind}_{name.rpartition('_')[2]}2017.json"


def split_of_2017(name: str) -> str:
    """The split of COCO 2017, "train" or "val", that has the images of a split of COCO, of its keypoints or of DensePose."""
    split = name.rpartition("_")[2]
    return DENSEPOSE[split] if name.startswith("densepose") else split


def photograph(file_name: str) -> str:
    """The name that COCO 2017 gives the image that COCO 2014 calls so: 000000000009.jpg for COCO_train2014_000000000009.jpg."""
    return file_name.rpartition("_")[2]


def category_id(name: str, label: int) -> int:
    """The id that a class, counted from 0, has in the annotation file of COCO, of COCO's keypoints, of DensePose or of LVIS."""
    return COCO_IDS[label] if name.startswith("coco") else label + 1


def tree(content: bytes) -> ET.Element:
    """The root of an XML document. Raises ValueError for what does not parse, and for a document type: its entities may grow
    without bound, and no annotation needs one."""

    def refused(*_: object) -> None:
        raise ValueError("a document type, which annotations do not have")

    try:
        parser = expat.ParserCreate()
        parser.StartDoctypeDeclHandler = refused
        parser.Parse(content, True)
        return ET.fromstring(content)
    except (expat.ExpatError, ET.ParseError, LookupError) as error:  # LookupError: an encoding that nobody knows
        raise ValueError(str(error)) from None


def is_box(value: Any) -> bool:
    """Whether this is a list of four finite numbers."""
    return isinstance(value, list) and len(value) == 4 and all(is_number(v) for v in value)


def is_number(value: Any) -> bool:
    """Whether this is a finite number that a pixel coordinate may be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e9 < value < 1e9


def polygons(shape: Sequence[list[float]]) -> list[list[float]]:
    """Those of x, y, x, y, ... that have the three points of a polygon, which are all that detectron2 sees."""
    return [polygon for polygon in shape if len(polygon) % 2 == 0 and len(polygon) >= 6]


def is_mask(shape: Any, height: int, width: int, outlined: bool) -> bool:
    """Whether this is an object's mask: lists of numbers, some of them polygons within `FAR` of the image's corner, or the
    lengths of runs, plain or compressed, that fill the image.

    outlined: whether only polygons will do: detectron2 trains on nothing else
    """
    if isinstance(shape, list):
        # without a call a number: COCO has fifty million; the sum finds the NaN that the others pass over
        numbers = [min(p) > -FAR and max(p) < FAR and not math.isnan(sum(p)) for p in polygons(shape)]
        return bool(numbers) and all(numbers)
    if outlined or not isinstance(shape, dict):
        return False
    size, runs = shape.get("size"), shape.get("counts")
    runs = run_lengths(runs) if isinstance(runs, str) else runs
    if size != [height, width] or not isinstance(runs, list) or {*map(type, size + runs)} != {int}:
        return False
    return min(runs, default=-1) >= 0 and sum(runs) == height * width


def run_lengths(text: str) -> list[int]:
    """What COCO's compressed text says, lengths that may be negative or too large; none where it is no such text.

    Five bits a character and a sixth that says that more follow; from the fourth on, a length less the last but one
    (pycocotools, rleFrString, which trusts its text).
    """
    runs, value, bits = list[int](), 0, 0
    for character in text:
        digit = ord(character) - 48
        if not 0 <= digit < 64 or bits > 30:
            return []
        value |= (digit & 31) << bits
        bits += 5
        if not digit & 32:
            value -= (digit & 16) << bits - 4
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = bits = 0
    return [] if bits else runs


def digest(*datasets: Sequence[Record]) -> str:
    """sha256 over the images' ids and sizes and their annotations, in order of id; where they lie does not matter."""
    sha = hashlib.sha256()
    for images in datasets:
        for r in sorted(images, key=lambda r: str(r["image_id"])):
            content = [r["image_id"], r["height"], r["width"], r["annotations"]]
            content += [r[key] for key in LVIS_LISTS if key in r]
            sha.update(json.dumps(content, sort_keys=True).encode())
        sha.update(b"\n")
    return sha.hexdigest()


def trainable(images: Sequence[Record], keypoints: int = 0, surface: bool = False) -> list[Record]:
    """The images with at least one object that is not a crowd (detectron2's DATALOADER.FILTER_EMPTY_ANNOTATIONS), whose surface
    is marked if that is asked, and with that many visible keypoints in all (detectron2's MIN_KEYPOINTS_PER_IMAGE)."""
    return [
        r
        for r in images
        if any(not a.get("iscrowd", 0) and ("dp_x" in a or not surface) for a in r["annotations"])
        and sum(v > 0 for a in r["annotations"] for v in a.get("keypoints", ())[2::3]) >= keypoints
    ]


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
    ids = [line.split()[0] for line in lines(listed)]
    if not ids:
        raise ValueError(f"expected image names in {listed}, found an empty file")
    once(ids, listed)
    for what, folder, suffix in (("image", "JPEGImages", "jpg"), ("annotation", "Annotations", "xml")):
        names = _names(base / folder)
        for image_id in ids:
            if not is_there(base / folder, f"{image_id}.{suffix}", names):
                raise _missing(what, base / folder, f"{image_id}.{suffix}", names, listed)
    return [_voc_image(base, image_id) for image_id in ids]


def _voc_image(base: Path, image_id: str) -> Record:
    file = base / "Annotations" / f"{image_id}.xml"
    where = ""
    try:
        root = tree(file.read_bytes())
        width, height = (int(root.findtext(f"size/{side}", "")) for side in ("width", "height"))
        objects = []
        for number, found in enumerate(root.findall("object"), 1):
            where = f"object {number} of "
            x1, y1, x2, y2 = (float(found.findtext(f"bndbox/{edge}", "")) for edge in ("xmin", "ymin", "xmax", "ymax"))
            if not all(map(is_number, (x1, y1, x2, y2))):
                raise ValueError("a box that is not finite")
            objects.append(
                (
                    found.findtext("name", ""),
                    [x1 - 1, y1 - 1, x2, y2],
                    int(found.findtext("difficult", "0").strip() or 0),
                )
            )
    except (ValueError, FileNotFoundError) as error:  # FileNotFoundError: a link that leads nowhere
        raise ValueError(
            "expected VOC's XML with size/width, size/height, numbers in each object/bndbox and 0 or 1 in object/difficult, found "
            f"{getattr(error, 'strerror', None) or error} in {where}{file}: extract the archive again"
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


def _annotated(
    base: Path, file: Path, evaluated: bool, twice: bool = False
) -> tuple[list[dict], dict[int, dict], dict[int, list[dict]]]:
    """Images, sorted by id, categories by id and annotations by image of a file in COCO's format.

    evaluated: whether there must be what the evaluation needs, an id and an area of every annotation
    twice:     whether two annotations may have one id, as a few of DensePose's do
    """
    if not base.is_dir():
        raise FileNotFoundError(
            f"expected coco/ in {base.parent}, found {_listing(base.parent)}: extract COCO 2017 there, or point --data at its "
            "parent"
        )
    if not file.is_file():
        raise FileNotFoundError(f"expected the annotations {file}, found {_listing(file.parent)}: extract them there")
    try:
        content = json.loads(file.read_bytes())
        for what, fault in (("categories", _no_category), ("images", _no_image), ("annotations", _no_object)):
            for number, entry in enumerate(content[what]):
                try:
                    found = fault(entry, evaluated)
                except (KeyError, TypeError, AttributeError) as error:  # something is missing, or it is no object
                    found = repr(error)
                if found:
                    raise ValueError(f"{found} in number {number} of its {what}, {entry!r:.100},")
        categories = {c["id"]: {"frequency": None, **c} for c in content["categories"]}
        images = sorted(content["images"], key=lambda image: image["id"])  # TypeError: numbers beside texts
        objects = defaultdict(list)
        for annotation in content["annotations"]:
            objects[annotation["image_id"]].append(annotation)
        # with one id the evaluation would take one annotation for another; a training does without
        numbered = [
            annotation for annotation in content["annotations"] if type(annotation.get("id")) is int and not twice
        ]
        for what, entries in (("categories", content["categories"]), ("images", images), ("annotations", numbered)):
            if len(ids := Counter(entry["id"] for entry in entries)) < len(entries):
                raise ValueError(f"two {what} with the id {ids.most_common(1)[0][0]!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        said = error if type(error) is ValueError else repr(error)
        raise ValueError(
            f"expected COCO's images, categories and annotations, found {said} in {file}: download it again"
        ) from None
    if not images:
        raise ValueError(f"expected images in {file}, found none")
    return images, categories, objects


def is_id(value: Any) -> bool:
    """Whether this is a whole number that numpy has."""
    return type(value) is int and -(2**63) <= value < 2**63


def names_image(value: Any) -> bool:
    """Whether an image may have this id: a number or a text."""
    return is_id(value) or isinstance(value, str)


def _no_category(entry: Any, _: bool) -> str:
    if not is_id(entry["id"]) or not isinstance(entry["name"], str):
        return f"id {entry['id']!r} and name {entry['name']!r}"
    return ""


def _no_image(entry: Any, _: bool) -> str:
    if not names_image(entry["id"]):
        return f"id {entry['id']!r}"
    if not all(type(entry[side]) is int and entry[side] > 0 for side in ("height", "width")):
        return f"height {entry['height']!r} and width {entry['width']!r}"
    return ""


def _no_object(entry: Any, evaluated: bool) -> str:
    """evaluated: whether there must be what the evaluation needs, an id and an area"""
    if evaluated and not (is_id(entry["id"]) and is_number(entry["area"])):
        return f"id {entry['id']!r} and area {entry['area']!r}"
    if not names_image(entry["image_id"]):
        return f"image_id {entry['image_id']!r}"
    if not isinstance(entry.get("iscrowd", 0), int):
        return f"iscrowd {entry['iscrowd']!r}"
    return ""


def _coco(root: Path, split: str, file: Path, marks: str, masks: bool) -> list[Record]:
    """marks: what is marked of persons, "keypoints" or "densepose", or nothing"""
    base = root / "coco"
    images, categories, objects = _annotated(base, file, split == "val", twice=marks == "densepose")
    if marks:
        real = {1: "person"}
        what = "COCO's person, with id 1"
    else:
        real = dict(zip(COCO_IDS, COCO_CLASSES, strict=True))
        what = "COCO's 80 classes with their ids"
    if wrong := [f"{i}: {c['name']!r}" for i, c in categories.items() if real.get(i) != c["name"]]:
        raise ValueError(f"expected {what}, found {wrong[0]} in {file}; they are {real}")
    if absent := sorted(real.keys() - categories.keys()):
        raise ValueError(
            f"expected {what}, found {len(categories)} of them in {file}; {absent[0]} ({real[absent[0]]!r}) is missing"
        )
    if marks == "keypoints" and (named := categories[1].get("keypoints")) != KEYPOINTS:
        raise ValueError(f"expected the keypoints {', '.join(KEYPOINTS)}, found {named} in {file}: download it again")
    if unnamed := [image for image in images if not isinstance(image.get("file_name"), str)]:
        raise ValueError(
            f"expected a file_name of every image, found {unnamed[0].get('file_name')!r} of image {unnamed[0]['id']} in {file}: "
            "download it again"
        )
    labels = {i: label for label, i in enumerate(real)}
    photographs = _names(base / f"{split}2017")
    return [
        _coco_image(
            base / f"{split}2017",
            file,
            photographs,
            photograph(image["file_name"]) if marks == "densepose" else image["file_name"],
            image,
            objects[image["id"]],
            labels,
            marks,
            split if masks else None,
            False,
        )
        for image in images
    ]


def _lvis(root: Path, version: str, split: str, file: Path, masks: bool) -> list[Record]:
    base, count = root / "coco", LVIS_CLASSES[version]
    images, categories, objects = _annotated(base, file, split == "val")
    if sorted(categories) != list(range(1, count + 1)):
        raise ValueError(
            f"expected the {count:,} classes of LVIS {version} with the ids 1 to {count}, found {len(categories):,} in {file}: "
            "is it another version's?"
        )
    if unknown := [c for c in categories.values() if c.get("frequency") not in FREQUENCIES]:
        raise ValueError(
            f"expected the frequency r, c or f of each class, found {unknown[0].get('frequency')!r} for {unknown[0]['name']!r} "
            f"in {file}: download it again"
        )
    if split == "val":
        shown = {label for found in objects.values() for o in found if is_id(label := o.get("category_id"))}
        seen = {categories[label]["frequency"] for label in shown & categories.keys()}
        if absent := set(FREQUENCIES) - seen:
            raise ValueError(
                f"expected objects of rare, common and frequent classes to test on, found none of frequency "
                f"{', '.join(sorted(absent))} in {file}: APr, APc and APf need them"
            )
    labels = {i: i - 1 for i in categories}
    photographs: dict[str, set[str]] = {}
    found = []
    for image in images:
        place = str(image.get("coco_url", "")).split("/")[-2:]
        if len(place) != 2 or not re.fullmatch(r"(train|val)2017", place[0]):
            raise ValueError(
                f"expected a coco_url like http://images.cocodataset.org/train2017/000000000001.jpg, found "
                f"{image.get('coco_url')!r} for image {image['id']} in {file}: download it again"
            )
        if place[0] not in photographs:
            photographs[place[0]] = _names(base / place[0])
        record = _coco_image(
            base / place[0],
            file,
            photographs[place[0]],
            place[1],
            image,
            objects[image["id"]],
            labels,
            "",
            split if masks else None,
            True,
        )
        lists = {key: image.get(key, None if split == "val" else []) for key in LVIS_LISTS}
        for key, listed in lists.items():
            if not isinstance(listed, list) or not all(map(is_id, listed)):
                raise ValueError(
                    f"expected a list {key} of every image to test on, found {'none' if listed is None else f'{listed!r:.80}'} of image "
                    f"{image['id']} in {file}: is it COCO's?"
                )
        record |= lists
        found.append(record)
    return found


def _coco_image(
    folder: Path,
    file: Path,
    photographs: set[str],
    name: str,
    image: dict,
    objects: list[dict],
    labels: dict[int, int],
    marks: str,
    masked: str | None,  # the split, if its masks are used
    lvis: bool,  # which has no crowds, and no polygon that detectron2 leaves out
) -> Record:
    if not is_there(folder, name, photographs):
        raise _missing("image", folder, name, photographs, file)
    annotations = []
    for o in objects:
        label = o.get("category_id")
        if type(label) is not int or label not in labels:
            raise ValueError(
                f"expected a class of the file, found category_id {label} in annotation {o.get('id')} of {file}; "
                f"the ids are {list(labels)[:100]}"
            )
        if not is_box(o.get("bbox")):
            raise ValueError(
                f"expected bbox [x, y, width, height] in finite numbers, found {o.get('bbox')} in annotation {o.get('id')} of {file}"
            )
        if not lvis and o.get("ignore", 0) != 0:
            raise ValueError(
                f"expected objects that count, found ignore {o['ignore']!r} in annotation {o.get('id')} of {file}, which neither "
                "detectron2 nor COCO's evaluation obeys: make it a crowd (iscrowd 1) or remove it"
            )
        shape, crowd = o.get("segmentation"), 0 if lvis else int(o.get("iscrowd", 0))
        if isinstance(shape, list):
            if not all(isinstance(polygon, list) and {*map(type, polygon)} <= {int, float} for polygon in shape):
                raise ValueError(
                    f"expected polygons [x, y, x, y, ...], found segmentation {str(shape)[:80]} in annotation {o.get('id')} of {file}"
                )
            shape = polygons(shape)
            if lvis and len(shape) < len(o["segmentation"]):
                raise ValueError(
                    f"expected polygons of three points, which are all that LVIS has, found segmentation {str(o['segmentation'])[:80]} in "
                    f"annotation {o.get('id')} of {file}: correct it"
                )
            if (
                o["segmentation"] and not shape and masked != "val" and marks != "densepose"
            ):  # as detectron2 and DensePose do
                continue
        outlined = masked == "train" and not crowd
        if masked and not is_mask(shape, image["height"], image["width"], outlined):
            raise ValueError(
                f"expected a segmentation with {MASK.format(image['width'], image['height'])}, found "
                f"{str(o.get('segmentation'))[:80]} in annotation {o.get('id')} of {file}: correct or remove it"
            )
        annotations.append(
            {
                "category_id": labels[label],
                "bbox": o["bbox"],
                "bbox_mode": XYWH,
                "iscrowd": crowd,
            }
            | ({"segmentation": shape} if shape else {})
            | ({"keypoints": _keypoints(o, file)} if marks == "keypoints" else {})
            | (_surface(o, file) if marks == "densepose" else {})
        )
    return {
        "file_name": str(folder / name),
        "image_id": image["id"],
        "height": image["height"],
        "width": image["width"],
        "annotations": annotations,
    }


def _keypoints(annotation: dict, file: Path) -> list[float]:
    """x, y, visibility of each keypoint, centred in its pixel; a person nobody marked (a crowd, often) has invisible ones."""
    points = annotation.get("keypoints") or [0] * (3 * len(KEYPOINTS))
    numbers = len(points) if isinstance(points, list) and all(map(is_number, points)) else "no list of"
    if numbers != 3 * len(KEYPOINTS):
        raise ValueError(
            f"expected x, y and visibility of {len(KEYPOINTS)} keypoints, found {numbers} numbers in annotation "
            f"{annotation.get('id')} of {file}: correct it"
        )
    return [value if i % 3 == 2 else value + 0.5 for i, value in enumerate(points)]


def _surface(annotation: dict, file: Path) -> dict[str, Any]:
    """The points and masks of a person, if DensePose's annotators marked it."""
    if "dp_x" not in annotation:
        return {}
    if wrong := unmarked(annotation):
        raise ValueError(f"expected {wrong} in annotation {annotation.get('id')} of {file}: correct or remove it")
    return {key: annotation[key] for key in (*POINTS, "dp_masks")}


def unmarked(annotation: dict) -> str:
    """What was expected and found otherwise of what DensePose's annotators marked, or nothing."""
    points = [annotation.get(key) for key in POINTS]
    if not all(isinstance(values, list) and all(map(is_number, values)) for values in points):
        return f"lists {', '.join(POINTS)} of finite numbers, found {points!r:.100}"
    counts = {key: len(annotation[key]) for key in POINTS}
    if len({*counts.values()}) > 1:
        return f"as many numbers in each of {', '.join(POINTS)}, found {counts}"
    if strange := [part for part in annotation["dp_I"] if part not in range(1, PARTS + 1)]:
        return f"dp_I from 1 to {PARTS}, found {strange[0]}"
    masks = annotation.get("dp_masks")
    if not isinstance(masks, list) or len(masks) > LARGER_PARTS:
        return f"a list dp_masks of up to {LARGER_PARTS} masks, found {masks!r:.80}"
    for mask in filter(None, masks):
        compressed = isinstance(mask, dict) and isinstance(mask.get("counts"), str)
        if not compressed or not is_mask(mask, CHART, CHART, False):
            return f"dp_masks that are empty or compressed run lengths that fill {CHART}x{CHART} pixels, found {mask!r:.80}"
    return ""


def _cityscapes(base: Path, split: str) -> list[Record]:
    folder = base / "leftImg8bit" / split
    if not folder.is_dir():
        raise FileNotFoundError(
            f"expected the folder {folder} with a folder for each city, found {_listing(base)}: extract "
            "leftImg8bit_trainvaltest.zip there, or point --data at cityscapes' parent"
        )
    images = sorted(folder.glob("[!.]*/[!.]*_leftImg8bit.png"))  # macOS leaves a ._ beside each file
    if not images:
        raise FileNotFoundError(f"expected images {folder}/<city>/*_leftImg8bit.png, found none")
    files = []
    for image in images:
        name = image.name.removesuffix("_leftImg8bit.png") + "_gtFine_instanceIds.png"
        files.append(base / "gtFine" / split / image.parent.name / name)
        if not files[-1].is_file():
            raise FileNotFoundError(
                f"expected {files[-1]} with the objects of {image.name}, found none: gtFine_trainvaltest.zip has it; label maps "
                "alone do not tell objects apart"
            )
    with ThreadPoolExecutor() as threads:
        found = list(threads.map(_cityscapes_image, images, files))
    objects = (a for image in found for a in image["annotations"] if not a["iscrowd"])
    if split == "val" and not any(a["area"] >= CITYSCAPES_SMALLEST for a in objects):
        raise ValueError(
            f"expected an object of at least {CITYSCAPES_SMALLEST} pixels to test on in {base / 'gtFine' / split}, found none: "
            "Cityscapes' evaluation counts no smaller one"
        )
    return found


def _cityscapes_image(image: Path, file: Path) -> Record:
    ids = instance_ids(file)
    try:
        with Image.open(image) as photograph:
            size = turned(photograph)
    except MemoryError:
        raise
    except Exception as error:  # PIL's of all sorts
        raise ValueError(
            f"expected a photograph, found {error} in {image}: extract leftImg8bit_trainvaltest.zip again"
        ) from None
    if size != ids.shape[::-1]:
        raise ValueError(
            f"expected {file.name} of the size of {image}, {size}, found {ids.shape[::-1]}: extract both archives again"
        )
    annotations = []
    for i in np.flatnonzero(np.bincount(ids.ravel())).tolist():
        label = i if i < 1000 else i // 1000
        if label in CITYSCAPES_CLASSES:
            mask = (ids == i).astype(np.uint8)
            x, y, width, height = cv2.boundingRect(mask)
            annotations.append(
                {
                    "category_id": list(CITYSCAPES_CLASSES).index(label),
                    # detectron2 resizes a box in its own type: whole numbers would be cut off to whole pixels
                    "bbox": [float(edge) for edge in (x, y, x + width, y + height)],
                    "bbox_mode": XYXY,
                    "area": int(mask.sum()),
                    "iscrowd": int(i < 1000),  # a group in which nobody told objects apart
                    "segmentation": _outlines(mask[y : y + height, x : x + width], x, y),
                }
            )
    return {
        "file_name": str(image),
        "image_id": image.name,
        "height": ids.shape[0],
        "width": ids.shape[1],
        "annotations": annotations,
        "instance_file_name": str(file),
    }


def once(names: Sequence[str], file: Path) -> None:
    """Raises ValueError where a list of images, which is not empty, has one of them several times."""
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ValueError(f"expected every image once in {file}, found {name} {times} times: remove what is repeated")


def turned(picture: Image.Image) -> tuple[int, int]:
    """Width and height of a picture that was opened, as its EXIF orientation turns it."""
    if picture.format == "PNG" and "exif" not in picture.info:
        return picture.size  # PIL would read it to its end to look further
    try:
        orientation = picture.getexif().get(274)
    except Exception:  # EXIF that is damaged turns nothing, in detectron2 neither
        orientation = None
    return picture.size[::-1] if orientation in (5, 6, 7, 8) else picture.size


def instance_ids(file: Path | str) -> np.ndarray:
    """Cityscapes' objects, [H, W] int64: label id * 1000 + number for a pixel of one object, the label's id for any other.

    Raises ValueError for a file that is broken or something else.
    """
    try:
        with Image.open(file) as picture:
            ids = np.asarray(picture)
    except MemoryError:
        raise
    except Exception as error:  # PIL's of all sorts
        raise ValueError(f"expected a PNG of 16 bits, found {error} in {file}: extract it again") from None
    if ids.ndim != 2 or ids.itemsize < 2:
        raise ValueError(f"expected a PNG of 16 bits and one channel, found {ids.dtype} of shape {ids.shape} in {file}")
    labels = np.where(ids < 1000, ids, ids // 1000)
    if labels.max(initial=0) >= CITYSCAPES_LABELS:
        raise ValueError(
            f"expected label ids up to {CITYSCAPES_LABELS - 1}, found {labels.max()} in {file}: is it Cityscapes' instanceIds?"
        )
    return ids.astype(np.int64)


def _outlines(mask: np.ndarray, x: int, y: int) -> list[list[float]]:
    """x, y, x, y, ... of each part of a mask that begins at the pixel (x, y): the pixels' outer edges to a quarter of a pixel."""
    large = cv2.resize(mask, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(large, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outlines = [(cv2.approxPolyDP(c, 1, True)[:, 0] + 0.5) / 4 + [x, y] for c in contours]
    return [outline.ravel().tolist() for outline in outlines]


def rows(content: bytes) -> list[str]:
    """The lines of a list that are not blank; a mark of the byte order before them, as editors write it, is none of their signs.

    Raises UnicodeDecodeError for what is no text in UTF-8.
    """
    return [line for line in content.decode("utf-8-sig").splitlines() if line.strip()]


def lines(file: Path) -> list[str]:
    """The rows of a file. Raises ValueError for one that is no text in UTF-8."""
    try:
        return rows(file.read_bytes())
    except UnicodeDecodeError as error:
        raise ValueError(f"expected a list in UTF-8, found {error} in {file}: save it as UTF-8") from None


def segmented(line: str) -> str:
    """The image's name in a line of a segmentation's list: the first word, which is a name or, in DeepLab's lists, a path."""
    return line.split()[0].rpartition("/")[2].removesuffix(".jpg").removesuffix(".png")


def is_there(folder: Path, name: str, names: Collection[str]) -> bool:
    """Whether a folder, of which these are the names, has a file, itself or in a folder below. What leaves it is never there."""
    if "/" not in name:
        return name in names
    file = folder / name
    try:
        return ".." not in file.parts and file.is_relative_to(folder) and file.is_file()
    except OSError:  # too long a name
        return False


def like(name: str, names: Collection[str]) -> str | None:
    """A name that differs from one that is missing only in its suffix, in capitals or in how its accents are composed."""

    def stem(name: str) -> str:
        return unicodedata.normalize("NFC", Path(name).stem).casefold()

    return next((other for other in sorted(names) if stem(other) == stem(name)), None)


def _missing(what: str, folder: Path, name: str, names: Collection[str], lists: Path) -> FileNotFoundError:
    other = like(name, names)
    found, mend = (
        (f", found {other}", "give it the name that is listed") if other else ("", "extract the archive again")
    )
    return FileNotFoundError(f"expected the {what} {folder / name}, which {lists} lists{found}: {mend}")


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
