"""Embedded data: pictures drawn from a seed, in the authentic layouts of PASCAL VOC, COCO, LVIS, Cityscapes and ImageNet.

`bench data synthesize DIR` calls `synthesize`. The objects stand in `shapes`, one is drawn by `drawing`, a picture by
`scenes`; this file writes the files and their annotations. Every picture has a random generator of its own, from the seed
and its file name: the same seed and sizes give the same bytes. Boxes and masks come from the raster that drew the object.

    VOC2007/ VOC2012/   Annotations, JPEGImages, ImageSets/Main, ImageSets/Segmentation, SegmentationClass (255 around
                        objects), SegmentationObject; VOC2012 also SegmentationClassAug and trainaug, and no test, as there
    coco/               annotations/instances_{train,val}2017.json (polygons, crowds as RLE), train2017, val2017, and
                        person_keypoints_{train,val}2017.json (a joint is seen, hidden or absent, as the raster has it) and
                        densepose_{train,valminusminival,minival}2014.json
    densepose/          a body's surface for these, in DensePose's files
    lvis/               lvis_{v0.5,v1}_{train,val}.json over coco's pictures, with all of a version's classes: federated, so an
                        image tells which classes are surely absent from it and which it does not mark exhaustively
    cityscapes/         leftImg8bit and gtFine: labelIds, labelTrainIds, instanceIds, and polygons, one for each visible part: what
                        reads objects from these and not from instanceIds, as detectron2 does, finds a part an object
    imagenet/           {train,val}/<WordNet id>/, one object a picture; subsets/{1,10}percent.txt, class-balanced
"""

import itertools
import json
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from PIL import Image

from downstream import bodies
from downstream.datasets import COCO_IDS, FREQUENCIES, KEYPOINTS, LVIS_CLASSES, VOC_CLASSES
from downstream.scenes import MOVERS, Thing, scene, street
from downstream.train_ids import LABELS, TRAIN_IDS
from downstream.trial import counted

AS_COCO = {  # VOC's classes that COCO calls otherwise
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "motorbike": "motorcycle",
    "pottedplant": "potted plant",
    "sofa": "couch",
    "tvmonitor": "tv",
}
COCO = {  # supercategory: categories, in the order of their ids
    "person": "person",
    "vehicle": "bicycle car motorcycle airplane bus train truck boat",
    "outdoor": "traffic_light fire_hydrant stop_sign parking_meter bench",
    "animal": "bird cat dog horse sheep cow elephant bear zebra giraffe",
    "accessory": "backpack umbrella handbag tie suitcase",
    "sports": "frisbee skis snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket",
    "kitchen": "bottle wine_glass cup fork knife spoon bowl",
    "food": "banana apple sandwich orange broccoli carrot hot_dog pizza donut cake",
    "furniture": "chair couch potted_plant bed dining_table toilet",
    "electronic": "tv laptop mouse remote keyboard cell_phone",
    "appliance": "microwave oven toaster sink refrigerator",
    "indoor": "book clock vase scissors teddy_bear hair_drier toothbrush",
}
KIND = {name.replace("_", " "): kind for kind, names in COCO.items() for name in names.split()}
CATEGORY_ID = dict(zip(KIND, COCO_IDS, strict=True))
IMAGENET = {
    "n01530575": "bird", "n02099712": "dog", "n02123045": "cat", "n02132136": "bear", "n02389026": "horse", "n02391049": "zebra",
    "n02403003": "cow", "n02412080": "sheep", "n02504458": "elephant", "n02690373": "airplane", "n03376595": "chair", "n03791053": "motorcycle",
    "n03792782": "bicycle", "n03991062": "potted plant", "n04146614": "bus", "n04147183": "boat", "n04285008": "car", "n04344873": "couch",
    "n04404412": "tv", "n04557648": "bottle",
}  # fmt: skip
# COCO's, between keypoints counted from 1
SKELETON = [
    [16, 14],
    [14, 12],
    [17, 15],
    [15, 13],
    [12, 13],
    [6, 12],
    [7, 13],
    [6, 7],
    [6, 8],
    [7, 9],
    [8, 10],
    [9, 11],
    [2, 3],
]
SKELETON += [[1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7]]
JOINTED = 20  # a person's visible height in pixels from which its joints are marked
LVIS_STEP = 15  # COCO's class number n is LVIS's class 1 + 15 n
CITIES = {"train": ("aachen", "bremen", "ulm"), "val": ("frankfurt", "lindau", "munster")}


def synthesize(
    out: Path,
    seed: int = 0,
    *,
    voc: int = 60,
    coco: int = 100,
    cityscapes: int = 40,
    imagenet: int = 32,
    side: int = 192,
) -> dict[str, dict[str, int]]:
    """Draw the data sets into `out`; the number of pictures written: data set -> split -> pictures.

    voc, coco, cityscapes: pictures in each split; 0 leaves a data set out
    imagenet:              training pictures in each of the 20 classes, and a quarter of that for validation
    side:                  longer side of a VOC or COCO picture; the others follow (Cityscapes 5/3 x 5/6, ImageNet 1/3)

    A data set appears in `out` only when it is complete. Raises ValueError where one is already there.
    """
    sizes = {
        "VOC2007": voc,
        "VOC2012": voc,
        "coco": coco,
        "lvis": coco,
        "densepose": coco,
        "cityscapes": cityscapes,
        "imagenet": imagenet,
    }
    if seed < 0 or min(sizes.values()) < 0 or side < 96:
        raise ValueError(
            f"expected a seed and sizes of 0 or more and a side of 96 or more, found {seed=}, {sizes}, {side=}"
        )
    wanted = {name: size for name, size in sizes.items() if size}
    there = [name for name in wanted if (out / name).exists()]
    if there:
        raise ValueError(
            f"expected a folder without {', '.join(there)}, found {out}: name another or remove them first"
        )
    writers = {"coco": _coco, "lvis": _lvis, "densepose": _densepose, "cityscapes": _cityscapes, "imagenet": _imagenet}
    counts = {}
    for name, size in wanted.items():
        draft = out / f".{name}.draft"
        shutil.rmtree(draft, ignore_errors=True)  # of a run that was stopped
        counts[name] = writers.get(name, _voc)(draft, name, seed, size, side)
        draft.rename(out / name)
    return counts


def _rng(seed: int, picture: str) -> Generator:
    return np.random.default_rng([seed, zlib.crc32(picture.encode())])


def _write(path: Path, image: np.ndarray, rng: Generator | None = None) -> None:
    """RGB as a JPEG of random quality, or one channel as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 96))] if rng else []
    ok, data = cv2.imencode(".jpg" if rng else ".png", image[..., ::-1] if rng else image, quality)
    assert ok
    path.write_bytes(data.tobytes())


def _outdoors(name: str, rng: Generator) -> bool:
    odds = {"person": 0.6, "vehicle": 0.95, "outdoor": 0.95, "animal": 0.85, "sports": 0.8, "accessory": 0.5}
    return bool(rng.random() < odds.get(KIND[name], 0.1))


def _cast(first: str, names: list[str], rng: Generator, people: float = 12) -> list[str]:
    """`first` and up to three more, people and cars far more often than the rest."""
    weight = np.array([{"person": people, "car": 5, "chair": 4, "bottle": 3}.get(name, 1) for name in names])
    return [first, *rng.choice(names, rng.choice(4, p=[0.4, 0.3, 0.2, 0.1]), p=weight / weight.sum())]


def _extent(mask: np.ndarray) -> tuple[int, int, int, int]:
    """x, y, width and height, in pixels, of what is set."""
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, width, height


def _shape(side: int, rng: Generator) -> tuple[int, int]:
    return (side * 3 // 4, side) if rng.random() < 0.7 else (side, side * 3 // 4)


# --- PASCAL VOC


def _voc(root: Path, year: str, seed: int, size: int, side: int) -> dict[str, int]:
    names = [AS_COCO.get(name, name) for name in VOC_CLASSES]
    splits = ("train", "val", "test") if year == "VOC2007" else ("train", "val")
    lists: dict[str, list[str]] = {split: [] for split in splits}
    for number in counted(range(size * len(splits)), f"drawing {year}"):
        picture = f"{number + 1:06d}" if year == "VOC2007" else f"2012_{number + 1:06d}"
        rng = _rng(seed, f"{year}/{picture}")
        first = names[number % len(names)]
        h, w = _shape(side, rng)
        image, owner, things = scene(_cast(first, names, rng), h, w, _outdoors(first, rng), rng)
        _write(root / "JPEGImages" / f"{picture}.jpg", image, rng)
        (root / "Annotations").mkdir(exist_ok=True)
        xml = _voc_xml(year, picture, owner, [(VOC_CLASSES[names.index(thing.name)], thing) for thing in things])
        (root / "Annotations" / f"{picture}.xml").write_text(xml)
        border = (cv2.dilate((owner > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0) & (owner == 0)
        lookup = np.array([0, *(names.index(thing.name) + 1 for thing in things)])
        for folder, values in (("SegmentationClass", lookup[owner]), ("SegmentationObject", owner)):
            _palette_png(root / folder / f"{picture}.png", np.where(border, 255, values))
            if year == "VOC2012" and folder == "SegmentationClass":
                _palette_png(root / "SegmentationClassAug" / f"{picture}.png", np.where(border, 255, values))
        lists[splits[number // size]].append(picture)
    lists["trainval"] = lists["train"] + lists["val"]
    augmented = {"trainaug": lists["train"]} if year == "VOC2012" else {}
    for task, named in (("Main", lists), ("Segmentation", lists | augmented)):
        (root / "ImageSets" / task).mkdir(parents=True)
        for split, pictures in named.items():
            (root / "ImageSets" / task / f"{split}.txt").write_text("".join(f"{picture}\n" for picture in pictures))
    return {split: len(lists[split]) for split in splits}


def _voc_xml(year: str, picture: str, owner: np.ndarray, things: list[tuple[str, Thing]]) -> str:
    """An annotation file. Boxes are 1-based and inclusive; difficult is what is tiny or mostly hidden."""
    h, w = owner.shape
    lines = ["<annotation>", f"\t<folder>{year}</folder>", f"\t<filename>{picture}.jpg</filename>"]
    lines += ["\t<source>", "\t\t<database>synthetic</database>", "\t</source>", "\t<size>", f"\t\t<width>{w}</width>"]
    lines += [f"\t\t<height>{h}</height>", "\t\t<depth>3</depth>", "\t</size>", "\t<segmented>1</segmented>"]
    for name, thing in things:
        seen = owner == thing.index
        x, y, width, height = _extent(seen)
        difficult = seen.sum() < 0.5 * thing.whole or max(width, height) < 0.16 * min(h, w)
        lines += ["\t<object>", f"\t\t<name>{name}</name>", "\t\t<pose>Unspecified</pose>"]
        lines += [f"\t\t<truncated>{thing.truncated:d}</truncated>", f"\t\t<difficult>{difficult:d}</difficult>"]
        lines += ["\t\t<bndbox>", f"\t\t\t<xmin>{x + 1}</xmin>", f"\t\t\t<ymin>{y + 1}</ymin>"]
        lines += [f"\t\t\t<xmax>{x + width}</xmax>", f"\t\t\t<ymax>{y + height}</ymax>", "\t\t</bndbox>", "\t</object>"]
    return "\n".join([*lines, "</annotation>", ""])


def _palette_png(path: Path, values: np.ndarray) -> None:
    """Indices with VOC's colours: the bits of an index, three at a time, are the high bits of red, green and blue."""
    index = np.arange(256)
    colours = [sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(8)) for channel in range(3)]
    path.parent.mkdir(exist_ok=True)
    picture = Image.fromarray(values.astype(np.uint8))
    picture.putpalette(np.stack(colours, 1).astype(np.uint8).tobytes())
    picture.save(path)


# --- COCO


def _coco(root: Path, name: str, seed: int, size: int, side: int) -> dict[str, int]:
    names = list(KIND)
    (root / "annotations").mkdir(parents=True)
    categories = [{"supercategory": KIND[c], "id": CATEGORY_ID[c], "name": c} for c in names]
    for split, start in (("train2017", 0), ("val2017", size)):
        images: list[dict[str, object]] = []
        annotations: list[dict[str, object]] = []
        people: list[dict[str, object]] = []
        surfaces: list[dict[str, object]] = []
        for number in counted(range(start + 1, start + size + 1), f"drawing {name}, {split}"):
            rng = _rng(seed, f"{name}/{number}")
            first, (h, w) = names[(number - number // 50) % len(names)], _shape(side, rng)
            cast = _cast(first, names, rng, people=60) if number % 50 else []  # a few pictures show nothing
            crowd = rng.choice(["person", "sheep", "car", "book", "banana"]) if number % 16 == 5 else None
            image, owner, things = scene(cast, h, w, _outdoors(first, rng), rng, crowd=crowd)
            _write(root / split / f"{number:012d}.jpg", image, rng)
            images.append({"id": number, "file_name": f"{number:012d}.jpg", "height": h, "width": w, "license": 1})
            for thing in things:
                keys = {"id": number * 100 + thing.index, "image_id": number, "category_id": CATEGORY_ID[thing.name]}
                annotations.append(keys | _coco_mask(owner == thing.index, thing.crowd))
                if thing.name == "person":
                    people.append(annotations[-1] | _joints(thing, owner))
                    surfaces.append(people[-1] | _marks(thing, owner, seed))
        content: dict[str, object] = {
            "info": {"description": f"synthetic, seed {seed}", "version": "1.0", "year": 2017},
            "licenses": [{"id": 1, "name": "drawn by transfer-bench", "url": ""}],
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
        person = categories[0] | {"keypoints": KEYPOINTS, "skeleton": SKELETON}
        content |= {"annotations": people, "categories": [person]}
        (root / "annotations" / f"person_keypoints_{split}.json").write_text(json.dumps(content))
        for part, marked in _splits_of_2014(split, images, surfaces).items():
            (root / "annotations" / f"densepose_{part}2014.json").write_text(json.dumps(content | marked))
    return {"train2017": size, "val2017": size}


def _splits_of_2014(split: str, images: list[dict], people: list[dict]) -> dict[str, dict[str, list[dict]]]:
    """Images, by the names that COCO 2014 gave them, and persons of DensePose's splits of one of COCO 2017; only the images with a
    person whose surface is marked."""
    marked = {person["image_id"] for person in people if "dp_x" in person}
    shown = [image for image in images if image["id"] in marked]
    shares = {"train": shown[::2], "valminusminival": shown[1::2]} if split == "train2017" else {"minival": shown}
    splits = {}
    for name, own in shares.items():
        ids, folder = {image["id"] for image in own}, "train" if name == "train" else "val"
        named = [image | {"file_name": f"COCO_{folder}2014_{image['file_name']}"} for image in own]
        splits[name] = {"images": named, "annotations": [person for person in people if person["image_id"] in ids]}
    return splits


def _marks(thing: Thing, owner: np.ndarray, seed: int) -> dict[str, object]:
    """What DensePose's annotators would mark of a person; nothing of a crowd or of somebody small."""
    mask = owner == thing.index
    if thing.crowd or _extent(mask)[3] < JOINTED:
        return {}
    return bodies.marks(thing.joints, mask, _rng(seed, f"densepose/{mask.sum()}/{_extent(mask)}"))


def _joints(thing: Thing, owner: np.ndarray) -> dict[str, object]:
    """Keypoints x, y, visibility (2 seen, 1 hidden, 0 absent), as COCO writes them; none of a crowd or of somebody small."""
    h, w = owner.shape
    points = [0] * (3 * len(KEYPOINTS))
    small = _extent(owner == thing.index)[3] < JOINTED
    for number, (x, y) in {} if thing.crowd or small else thing.joints.items():
        column, row = int(x), int(y)
        if 0 <= column < w and 0 <= row < h:
            seen = thing.index in owner[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2]
            points[3 * number : 3 * number + 3] = column, row, 1 + seen
    return {"keypoints": points, "num_keypoints": sum(v > 0 for v in points[2::3])}


def _coco_mask(mask: np.ndarray, crowd: bool) -> dict:
    """The part of an annotation that a mask decides."""
    box = [float(n) for n in _extent(mask)]
    if crowd:  # uncompressed RLE: run lengths down the columns, beginning with zeros
        flat = np.concatenate([[0], mask.ravel("F").astype(np.int8), [1 - int(mask[-1, -1])]])
        ends = np.flatnonzero(np.diff(flat))
        segmentation: object = {"counts": np.diff(ends, prepend=0).tolist(), "size": list(mask.shape)}
    else:
        segmentation = list(_polygons(mask))
    return {"iscrowd": int(crowd), "area": float(mask.sum()), "bbox": box, "segmentation": segmentation}


def _polygons(mask: np.ndarray) -> Iterator[list[float]]:
    """x, y, x, y, ... along the pixels' outer edges, one list a piece; a hole is joined to its outline by a cut of no width."""
    large = cv2.resize(mask.astype(np.uint8), None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    contours, tree = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    for outer, contour in enumerate(contours):
        if tree[0, outer, 3] >= 0:
            continue
        ring = contour[:, 0]
        for hole in (contours[i][:, 0] for i in np.flatnonzero(tree[0, :, 3] == outer).tolist()):
            a, b = np.unravel_index(((ring[:, None] - hole) ** 2).sum(2).argmin(), (len(ring), len(hole)))
            ring = np.concatenate([ring[: a + 1], hole[b:], hole[: b + 1], ring[a:]])
        yield ((ring + 0.5) / 4).round(2).ravel().tolist()


# --- LVIS


def _lvis(root: Path, name: str, seed: int, size: int, side: int) -> dict[str, int]:
    """LVIS over the pictures that `_coco` drew beside it."""
    root.mkdir(parents=True)
    counts = {}
    for version, classes in LVIS_CLASSES.items():
        for split in ("train", "val"):
            drawn = json.loads((root.parent / "coco" / "annotations" / f"instances_{split}2017.json").read_text())
            content = _federated(drawn, split, version, classes, _rng(seed, f"lvis/{version}/{split}"))
            (root / f"lvis_{version}_{split}.json").write_text(json.dumps(content))
            counts[f"{version} {split}"] = len(content["images"])
    return counts


def _federated(drawn: dict, split: str, version: str, classes: int, rng: Generator) -> dict:
    """COCO's annotation as LVIS's: classes with a frequency, three of which an image surely does not show; a crowd's class is
    not marked exhaustively there."""
    numbers = {i: 1 + LVIS_STEP * n for n, i in enumerate(COCO_IDS)}
    names = {numbers[i]: name.replace(" ", "_") for name, i in CATEGORY_ID.items()}
    images, annotations = [], []
    for image in drawn["images"]:
        objects = [a for a in drawn["annotations"] if a["image_id"] == image["id"]]
        shown = {numbers[a["category_id"]] for a in objects}
        absent = rng.choice(sorted(set(names) - shown), 3, replace=False).tolist()
        partly = sorted({numbers[a["category_id"]] for a in objects if a["iscrowd"]})
        file = f"COCO_{split}2014_{image['file_name']}" if version == "v0.5" else image["file_name"]
        about = {"coco_url": f"http://images.cocodataset.org/{split}2017/{image['file_name']}", "file_name": file}
        images.append(image | about | {"neg_category_ids": sorted(absent), "not_exhaustive_category_ids": partly})
        if version == "v1":
            del images[-1]["file_name"]  # as there
        for a in objects:
            if not a["iscrowd"]:
                kept = {key: a[key] for key in ("id", "image_id", "area", "bbox", "segmentation")}
                annotations.append(kept | {"category_id": numbers[a["category_id"]]})
    categories = []
    for i in range(1, classes + 1):
        mine = [a["image_id"] for a in annotations if a["category_id"] == i]
        title = names.get(i, f"undrawn_{i}")
        categories.append(
            {"id": i, "name": title, "synset": f"{title}.n.01", "synonyms": [title], "def": "drawn or not at all"}
            # a third of the drawn classes each; the real ones go by the number of training images
            | {
                "frequency": FREQUENCIES[(i // LVIS_STEP) % 3],
                "image_count": len(set(mine)),
                "instance_count": len(mine),
            }
        )
    return {key: drawn[key] for key in ("info", "licenses")} | {
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


# --- DensePose


def _densepose(root: Path, name: str, seed: int, size: int, side: int) -> dict[str, int]:
    """The body's files; the pictures that `_coco` drew and marked."""
    bodies.write(root)
    files = (root.parent / "coco" / "annotations").glob("densepose_*.json")
    return {file.stem.removeprefix("densepose_"): len(json.loads(file.read_text())["images"]) for file in sorted(files)}


# --- Cityscapes


def _cityscapes(root: Path, name: str, seed: int, size: int, side: int) -> dict[str, int]:
    h = side * 5 // 6
    for split, cities in CITIES.items():
        for number in counted(range(size), f"drawing {name}, {split}"):
            city = cities[number % len(cities)]
            picture = f"{city}_{number:06d}_000019"
            rng = _rng(seed, f"{name}/{picture}")
            image, owner, labels = street(h, 2 * h, list(MOVERS)[number % len(MOVERS)], rng)
            ids = np.array([LABELS[label] for label in labels])
            count = [labels[:i].count(label) for i, label in enumerate(labels)]
            instances = np.where([label in MOVERS for label in labels], ids * 1000 + count, ids)
            trained = np.array([TRAIN_IDS.get(i, 255) for i in ids])
            fine = root / "gtFine" / split / city
            _write(root / "leftImg8bit" / split / city / f"{picture}_leftImg8bit.png", image[..., ::-1])
            _write(fine / f"{picture}_gtFine_labelIds.png", ids[owner].astype(np.uint8))
            _write(fine / f"{picture}_gtFine_labelTrainIds.png", trained[owner].astype(np.uint8))
            _write(fine / f"{picture}_gtFine_instanceIds.png", instances[owner].astype(np.uint16))
            objects = []
            for index, label in enumerate(labels):
                region = (owner == index).astype(np.uint8)
                outlines, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
                objects += [{"label": label, "polygon": o[:, 0].tolist()} for o in outlines if len(o) > 2]
            about = {"imgHeight": h, "imgWidth": 2 * h, "objects": objects}
            (fine / f"{picture}_gtFine_polygons.json").write_text(json.dumps(about))
    return dict.fromkeys(CITIES, size)


# --- ImageNet


def _imagenet(root: Path, name: str, seed: int, size: int, side: int) -> dict[str, int]:
    counts = {"train": size, "val": -(-size // 4)}
    (root / "subsets").mkdir(parents=True)
    for percent in (1, 10):
        share = max(1, round(size * percent / 100))
        text = "".join(f"{folder}_{number}.JPEG\n" for folder in sorted(IMAGENET) for number in range(share))
        (root / "subsets" / f"{percent}percent.txt").write_text(text)
    for split, count in counts.items():
        for folder, number in counted([*itertools.product(IMAGENET, range(count))], f"drawing {name}, {split}"):
            picture, shown = f"{split}/{folder}/{folder}_{number}.JPEG", IMAGENET[folder]
            rng = _rng(seed, f"{name}/{picture}")
            image, *_ = scene([shown], side // 3, side // 3, _outdoors(shown, rng), rng, scale=(0.6, 1.0))
            _write(root / picture, image, rng)
    return {split: count * len(IMAGENET) for split, count in counts.items()}
