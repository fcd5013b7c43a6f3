"""What stands in a folder of datasets against what a task wants: `bench data check TASK`.

Every listed image and label map is opened to its last byte, every annotation is read, and everything that is wrong is listed
with its file, the reason and the mend, `KEPT` times a kind with a count of the rest. A finding either makes a run fail or is
a notice: a box outside its image, which detectron2 clips, or counts other than the paper's, which mark a run as `reduced`.

Nothing in the data is trusted. A file is read only if it is a regular one and of a plausible size, an image is decoded only
if it is not absurdly large, XML has no document type, and what stands in JSON may be of any type. One annotation file and a
few images at a time are in memory.
"""

import contextlib
import errno
import json
import math
import os
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from downstream import datasets, surface, train_ids
from downstream.task import Classification, Detection, Segmentation, Task
from downstream.trial import Progress, cpus

KEPT = 20  # findings of a kind that are listed
LIST_BYTES, XML_BYTES = 64 << 20, 8 << 20  # of a split's list, of an annotation; ImageNet's longest list has 4 MB
PIXELS = 1 << 26  # of an image that is decoded: 8 times Cityscapes', 64 MB a channel
EXPECTED = {  # images of a split: the papers' and the datasets' own counts
    "voc_2007_trainval": 5011,
    "voc_2007_test": 4952,
    "voc_2012_trainval": 11540,
    "voc_train_aug": 10582,
    "voc_val": 1449,
    "coco_2017_train": 118287,
    "coco_2017_val": 5000,
    "keypoints_coco_2017_train": 118287,
    "keypoints_coco_2017_val": 5000,
    "densepose_coco_2014_train": 26437,  # this and the next two: detectron2, projects/DensePose/doc/DENSEPOSE_DATASETS.md
    "densepose_coco_2014_valminusminival": 5984,
    "densepose_coco_2014_minival": 1508,
    "lvis_v0.5_train": 57263,  # this and the next are recalled: unverified
    "lvis_v0.5_val": 5000,
    "lvis_v1_train": 100170,
    "lvis_v1_val": 19809,
    "cityscapes_fine_instance_seg_train": 2975,
    "cityscapes_fine_instance_seg_val": 500,
    "cityscapes_train": 2975,
    "cityscapes_val": 500,
    "imagenet_train": 1281167,
    "imagenet_val": 50000,
}
AGAIN = "extract the archive again"


class Picture(NamedTuple):
    """An image of a split: its file, the width and height that its annotation says, the label map that belongs to it."""

    file: str
    size: tuple[int, int] | None = None
    label: str | None = None


class Findings:
    """What is wrong, `KEPT` a kind, and how much there is of each kind."""

    def __init__(self, root: Path):
        self.root, self.kept, self.counts, self.failures = root, list[dict[str, str]](), Counter[str](), 0

    def add(self, kind: str, file: str | Path, reason: str, mend: str, notice: bool = False) -> None:
        """A finding; it makes a run fail unless it is a notice."""
        self.counts[kind] += 1
        self.failures += not notice
        if reason == os.strerror(errno.EACCES):
            mend = "let yourself read it: chmod u+rX"
        if self.counts[kind] <= KEPT:
            with contextlib.suppress(ValueError):
                file = Path(file).relative_to(self.root)
            level = "notice" if notice else "error"
            self.kept.append(
                {"kind": kind, "level": level, "file": plain(file), "reason": plain(reason), "mend": plain(mend)}
            )


def plain(text: object) -> str:
    """Text that any terminal and any JSON reader takes: what is not printable or no UTF-8 is escaped, a long one cut."""
    line = "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(text))
    return line if len(line) <= 400 else f"{line[:400]}..."


def check(
    task: Task, root: Path, found: Callable[[Any, Path], Any], make_label_train_ids: bool = False
) -> dict[str, Any]:
    """{"task", "data", "splits": {split: {"images", "expected"}}, "findings": [{"kind", "level", "file", "reason", "mend"}],
    "counts": findings by kind, "reduced", "runs": whether a run would start and end, "label_train_ids_made"}.

    make_label_train_ids: first writes those that Cityscapes lacks
    found: what the task's engine itself says of the data; asked last, when all else is in order
    """
    findings = Findings(root)
    splits: dict[str, dict[str, Any]] = {}
    made, failed = train_ids.make(datasets.own_folder(root, "cityscapes")) if make_label_train_ids else (0, {})
    for file, reason in failed.items():
        if file.name.endswith("_labelTrainIds.png"):
            findings.add(
                "label map",
                file,
                f"cannot be written: {reason}",
                "let yourself write there, or name a copy of the data",
            )
        else:
            findings.add("label map", file, reason, "extract gtFine_trainvaltest.zip again")
    if not (_is_folder(root) or datasets.elsewhere()):
        findings.add(
            "layout", root, "no such folder", "give --data a folder that exists, or: bench data synthesize DIR"
        )
    else:
        for name, pictures in _splits(task, root, findings):
            splits[name] = {"images": len(pictures), "expected": EXPECTED.get(name)}
            _open(pictures, task, name, findings)
    _counts(splits, findings)
    if not findings.failures:
        try:
            found(task, root)
        except Exception as error:  # whatever it is, a run would meet it
            findings.add("run", plain(root), str(error) or type(error).__name__, "as the sentence says")
    return {
        "task": task.name,
        "data": plain(root),
        "splits": splits,
        "findings": findings.kept,
        "counts": dict(findings.counts),
        "reduced": "reduced" in findings.counts,
        "runs": not findings.failures,
        "label_train_ids_made": made,
    }


def described(report: Mapping[str, Any]) -> str:
    """A report for a person."""
    lines = [f"{report['task']} in {report['data']}"]
    if made := report["label_train_ids_made"]:
        lines.append(f"  {made:,} labelTrainIds made")
    for name, split in report["splits"].items():
        wanted = "" if split["expected"] is None else f" of {split['expected']:,}"
        lines.append(f"  {name:<36} {split['images']:>9,}{wanted} images")
    for kind, count in report["counts"].items():
        for finding in (f for f in report["findings"] if f["kind"] == kind):
            lines.append(f"{finding['level']:<7} {kind}: {finding['file']}: {finding['reason']}; {finding['mend']}")
        if count > KEPT:
            lines.append(f"        {kind}: and {count - KEPT:,} more")
    if not report["runs"]:
        lines.append("A run would fail.")
    else:
        lines.append("A run would start." + (" It would be marked `reduced`." if report["reduced"] else ""))
    return "\n".join(lines)


def _counts(splits: Mapping[str, Mapping[str, Any]], findings: Findings) -> None:
    for name, split in splits.items():
        if split["images"] and split["expected"] not in (None, split["images"]):
            findings.add(
                "reduced",
                name,
                f"{split['images']:,} images where the paper has {split['expected']:,}",
                "complete the dataset; a run is possible, is marked `reduced` and stays out of the papers' tables",
                notice=True,
            )


def _splits(task: Task, root: Path, findings: Findings) -> Iterator[tuple[str, list[Picture]]]:
    """Every split that a task reads, with its images; what is wrong with lists and annotations is found on the way."""
    if isinstance(task, Segmentation) and task.dataset == "voc":
        yield from _voc_maps(root, findings)
    elif isinstance(task, Segmentation):
        for split in ("train", "val"):
            yield f"cityscapes_{split}", _cityscapes(root, split, "labelTrainIds", findings)
    elif isinstance(task, Classification):
        yield from _imagenet(task, root, findings)
    else:
        train, test, masks = ["voc_2007_trainval"], ["voc_2007_test"], False  # LinearSVM's
        if isinstance(task, Detection):
            train, test = list(task.settings["DATASETS.TRAIN"]), list(task.settings["DATASETS.TEST"])
            masks = bool(task.settings.get("MODEL.MASK_ON"))
            if task.settings.get("MODEL.DENSEPOSE_ON"):
                _surface(root, findings)
        seen: dict[str, str] = {}
        for name in (*train, *test):
            kind, _, rest = name.partition("_")
            if kind == "voc":
                pictures = _voc(*rest.split("_"), root, findings)
            elif kind == "cityscapes":
                pictures = _cityscapes(root, name.rpartition("_")[2], "instanceIds", findings)
            else:
                pictures = Coco(name, root, masks, findings).pictures()
            _leaks(seen, name, pictures, findings)
            yield name, pictures


def _leaks(seen: dict[str, str], name: str, pictures: Sequence[Picture], findings: Findings) -> None:
    """Images that an earlier split has too; `seen` maps files to splits and grows."""
    for picture in pictures:
        if seen.setdefault(picture.file, name) != name:
            findings.add(
                "leak", picture.file, f"in {seen[picture.file]} and in {name}", "take the datasets' own lists", True
            )


# Files


def _plausible(file: Path, limit: float = math.inf) -> Path:
    """The file. Raises ValueError, with the reason, for one that is no regular file, is empty or has more bytes than `limit`."""
    about = file.stat()
    if not stat.S_ISREG(about.st_mode):
        raise ValueError("not a regular file")
    if about.st_size == 0:
        raise ValueError("an empty file")
    if about.st_size > limit:
        raise ValueError(f"{about.st_size:,} bytes, which is too large to be one")
    return file


def _content(file: Path, limit: float = math.inf) -> bytes:
    """The bytes of a file. Raises ValueError, with the reason, for one that cannot be read or is not plausible."""
    try:
        return _plausible(file, limit).read_bytes()
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None


def _names(folder: Path, findings: Findings, mend: str = AGAIN) -> set[str]:
    """What is in a folder; a finding and nothing if it cannot be listed."""
    try:
        return {path.name for path in folder.iterdir()}
    except OSError as error:
        findings.add("layout", folder, error.strerror or str(error), mend)
        return set()


def _listed(file: Path, findings: Findings, mend: str = AGAIN, whole: bool = False) -> list[str]:
    """The first word of every line of a split's list, or the whole line, each once."""
    try:
        lines = datasets.rows(_content(file, LIST_BYTES))
        words = [line.strip() if whole else line.split()[0] for line in lines]
    except UnicodeDecodeError as error:
        findings.add("list", file, str(error), "save it as UTF-8")
        return []
    except ValueError as error:
        findings.add("list", file, str(error), mend)
        return []
    if not words:
        findings.add("list", file, "no image names", mend)
    for word, times in Counter(words).items():
        if times > 1:
            findings.add("list", file, f"{word!r} stands there {times} times", "remove what is repeated")
    return list(dict.fromkeys(words))


def _missing(kind: str, file: Path, names: Collection[str], reason: str, findings: Findings) -> None:
    """A finding of a file that is not there, with the one of these names that it may have instead."""
    other = datasets.like(file.name, names) if findings.counts[kind] < KEPT else None
    findings.add(
        kind,
        file,
        f"{reason}, {other} is there" if other else reason,
        "give it the name that is listed" if other else AGAIN,
    )


def _folder(root: Path, names: Sequence[str], findings: Findings, mend: str) -> Path | None:
    """The first of these folders that is there."""
    base = next((place for name in names if _is_folder(place := datasets.own_folder(root, name))), None)
    if base is None:
        findings.add("layout", root, f"no folder {' or '.join(names)}", mend)
    return base


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # one that may not be looked at
        return False


def _voc_folder(root: Path, year: str, findings: Findings) -> Path | None:
    mend = f"extract the VOC{year} archives there, or point --data at the folder that has them"
    return _folder(root, (f"VOC{year}", f"VOCdevkit/VOC{year}"), findings, mend)


# Images


def _open(pictures: Sequence[Picture], task: Task, name: str, findings: Findings) -> None:
    """Opens all of them, several at a time."""
    queue = iter(pictures)
    done = 0
    with (
        ThreadPoolExecutor(cpus()) as pool,
        Progress(f"{task.name}: opening {name}", len(pictures)) as progress,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # what is too large is not decoded
        while chunk := list(islice(queue, 256)):
            for wrong in pool.map(lambda one: _wrong(one, task), chunk):
                for kind, file, reason, mend in wrong:
                    findings.add(kind, file, reason, mend)
                done += 1
                progress.step(done)


def _wrong(picture: Picture, task: Task) -> list[tuple[str, str, str, str]]:
    """What is wrong with an image and its label map: kind, file, reason, mend."""
    try:
        _, size = opened(picture.file)
        if isinstance(task, Segmentation):
            size = _seen(picture.file)
    except ValueError as error:
        return [("broken image", picture.file, str(error), "fetch it again from its archive")]
    if picture.size and size != picture.size:
        reason = f"{size[0]}x{size[1]} pixels where its annotation says {picture.size[0]}x{picture.size[1]}"
        return [("size", picture.file, reason, "take image and annotation from one archive")]
    if picture.label is None:
        return []
    mend = "take the file from its archive, not a copy in colour or a recompressed one"
    try:
        inner, _ = opened(picture.label)
        if inner != size:
            raise ValueError(f"{inner[0]}x{inner[1]} pixels where its image has {size[0]}x{size[1]}")
        if isinstance(task, Segmentation):
            _classes(picture.label, task)
        else:
            datasets.instance_ids(picture.label)
    except ValueError as error:
        return [("label map", picture.label, str(error), mend)]
    return []


def opened(file: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height in the file, and as its EXIF orientation turns it, after decoding all of it. Raises ValueError, with the
    reason, for what is no whole image.
    """
    try:
        with Image.open(_plausible(Path(file))) as image:
            size = image.size
            if size[0] * size[1] > PIXELS:
                raise ValueError(f"{size[0]}x{size[1]} pixels: too large to be an image of this dataset")
            turned = datasets.turned(image)
            image.draft("RGB", (1, 1))  # a JPEG is read to its end and decoded at an eighth of its size
            image.load()
        return size, turned
    except ValueError:
        raise
    except Exception as error:  # PIL's decoders raise all sorts of things on damaged files
        text = getattr(error, "strerror", None) or str(error).replace(f" '{file}'", "")
        raise ValueError(text if isinstance(error, OSError) else f"{type(error).__name__}: {text}") from None


def _seen(file: str) -> tuple[int, int]:
    """Width and height as a segmentation reads the image, with OpenCV, which refuses some of what PIL takes: a PNG without its end,
    say. Raises ValueError, with the reason, for what it refuses."""
    from downstream import segmentation  # imports mmseg

    try:
        height, width, _ = segmentation._image(Path(file)).shape
    except ValueError:
        raise ValueError("not a whole image to OpenCV, which a segmentation reads it with") from None
    return width, height


def _classes(file: str, task: Segmentation) -> None:
    """Raises ValueError for a label map that a run would refuse."""
    from downstream import segmentation  # imports mmseg

    values = np.flatnonzero(np.bincount(segmentation._label(Path(file), task.dataset).ravel(), minlength=256))
    if wrong := [int(v) for v in values if v >= task.classes and v != segmentation.IGNORE]:
        raise ValueError(f"the class {wrong[0]}, expected 0 to {task.classes - 1} and {segmentation.IGNORE}")


# PASCAL VOC


def _voc(year: str, split: str, root: Path, findings: Findings) -> list[Picture]:
    base = _voc_folder(root, year, findings)
    if base is None:
        return []
    ids = _listed(
        base / "ImageSets" / "Main" / f"{split}.txt", findings, "VOC's archives have it, the test split's is its own"
    )
    photographs, annotations = (_names(base / folder, findings) for folder in ("JPEGImages", "Annotations"))
    pictures = []
    for image_id in ids:
        file = base / "Annotations" / f"{image_id}.xml"
        size = None
        if datasets.is_there(base / "Annotations", f"{image_id}.xml", annotations):
            size = _voc_annotation(file, findings)
        else:
            _missing("missing annotation", file, annotations, f"{split}.txt lists it", findings)
        image = base / "JPEGImages" / f"{image_id}.jpg"
        if datasets.is_there(base / "JPEGImages", f"{image_id}.jpg", photographs):
            pictures.append(Picture(str(image), size))
        else:
            _missing("missing image", image, photographs, f"{split}.txt lists it", findings)
    return pictures


def _voc_annotation(file: Path, findings: Findings) -> tuple[int, int] | None:
    """The image's width and height."""
    try:
        root = datasets.tree(_content(file, XML_BYTES))
        sides = [root.findtext(f"size/{side}", "nothing").strip() for side in ("width", "height")]
        try:
            width, height = map(int, sides)
        except ValueError:
            width = height = 0
        if width < 1 or height < 1:
            raise ValueError(f"a size of {' x '.join(sides)}, expected two whole numbers")
    except ValueError as error:
        findings.add("annotation", file, str(error), AGAIN)
        return None
    for number, thing in enumerate(root.findall("object"), 1):
        name = thing.findtext("name", "")
        if name not in datasets.VOC_CLASSES:
            findings.add("class", file, f"object {number} is {name!r}, none of VOC's 20", "correct its name")
        try:
            box = [float(thing.findtext(f"bndbox/{edge}", "")) for edge in ("xmin", "ymin", "xmax", "ymax")]
            int(thing.findtext("difficult", "0").strip() or 0)
        except ValueError as error:
            findings.add("box", file, f"object {number}: {error}", AGAIN)
            continue
        if not all(datasets.is_number(edge) for edge in box):
            findings.add("box", file, f"object {number}: {box} is not finite", AGAIN)
        else:
            x1, y1, x2, y2 = box
            _box(file, f"object {number}", (x1 - 1, y1 - 1, x2, y2), width, height, findings)
    return width, height


def _box(
    file: Path, whose: str, box: tuple[float, float, float, float], width: float, height: float, findings: Findings
) -> None:
    """Notices of a box x1, y1, x2, y2, in pixels, of no size or inside out, or outside its image."""
    x1, y1, x2, y2 = box
    if x2 <= x1 or y2 <= y1:
        turned = x2 != x1 and y2 != y1
        reason = f"{whose}: the box {[x1, y1, x2, y2]} {'is inside out' if turned else 'has no size'}"
        used = "detectron2 trains on the one between its corners" if turned else "detectron2 trains without it"
        findings.add("box of no size", file, reason, f"correct or remove it; {used}", True)
    elif x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        reason = f"{whose}: the box {[x1, y1, x2, y2]} leaves its image of {width}x{height}"
        findings.add("box outside", file, reason, "correct it; detectron2 clips it", True)


def _voc_maps(root: Path, findings: Findings) -> Iterator[tuple[str, list[Picture]]]:
    base = _voc_folder(root, "2012", findings)
    if base is None:
        return
    lists = base / "ImageSets" / "Segmentation"
    augmented = next(
        (f for n in ("trainaug", "train_aug") if (f := lists / f"{n}.txt").is_file()), lists / "trainaug.txt"
    )
    mend = (
        "VOC's archive does not have it: add the list of 10,582 names and SegmentationClassAug, or make both from SBD"
    )
    train = [datasets.segmented(name) for name in _listed(augmented, findings, mend)]
    own, val = (
        [datasets.segmented(n) for n in _listed(lists / f"{split}.txt", findings)] for split in ("train", "val")
    )
    if both := sorted(set(train) & set(val)):
        reason = f"{len(both)} images of val, such as {both[0]}"
        findings.add(
            "leak", augmented, reason, "take trainaug without val (10,582 names), not SBD's own split of 8,498"
        )
    official = {*own, *val}
    photographs = _names(base / "JPEGImages", findings)
    maps = {True: _names(base / "SegmentationClass", findings)}
    if set(train) - official:
        maps[False] = _names(base / "SegmentationClassAug", findings, "it is SBD's: extract it there")
    for name, ids in (("voc_train_aug", train), ("voc_val", val)):
        pictures = []
        for i in ids:
            image = base / "JPEGImages" / f"{i}.jpg"
            label = base / f"SegmentationClass{'' if i in official else 'Aug'}" / f"{i}.png"
            if image.name not in photographs:
                findings.add("missing image", image, f"the list of {name} has it", AGAIN)
            if label.name not in maps[i in official]:
                findings.add("missing label map", label, f"the list of {name} has it", AGAIN)
            elif image.name in photographs:
                pictures.append(Picture(str(image), None, str(label)))
        yield name, pictures


# Cityscapes


def _cityscapes(root: Path, split: str, kind: str, findings: Findings) -> list[Picture]:
    """The images of a split with their maps of that kind."""
    mend = (
        "extract leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip there, or point --data at cityscapes' parent"
    )
    base = _folder(root, ("cityscapes",), findings, mend)
    images = base and _folder(base, (f"leftImg8bit/{split}",), findings, mend)
    if not images:
        return []
    pictures, found = [], 0
    for city in sorted(_names(images, findings)):
        if not _is_folder(images / city) or city.startswith("."):
            continue
        names = [n for n in _names(images / city, findings) if n.endswith("_leftImg8bit.png") and not n.startswith(".")]
        labels = base / "gtFine" / split / city
        maps = _names(labels, findings, mend) if names else set()
        for name in sorted(names):
            found += 1
            stem = name.removesuffix("_leftImg8bit.png")
            label = labels / f"{stem}_gtFine_{kind}.png"
            if label.name in maps:
                pictures.append(Picture(str(images / city / name), None, str(label)))
            elif kind == "labelTrainIds" and {f"{stem}_gtFine_{e}" for e in ("labelIds.png", "polygons.json")} & maps:
                made = f"bench data check cityscapes_semantic --data {plain(root)} --make-label-train-ids makes it"
                findings.add("no labelTrainIds", label, f"{name} has no label map", made)
            else:
                findings.add("missing label map", label, f"{name} has none", "extract gtFine_trainvaltest.zip")
    if not found:
        findings.add("layout", images, "no <city>/*_leftImg8bit.png", mend)
    return pictures


# ImageNet


def _imagenet(task: Classification, root: Path, findings: Findings) -> Iterator[tuple[str, list[Picture]]]:
    base = _folder(
        root, ("imagenet",), findings, "give the parent of imagenet/ as --data, or: bench data synthesize DIR"
    )
    if base is None:
        return
    classes: dict[str, set[str]] = {}
    for split in ("train", "val"):
        classes[split], pictures = _class_folders(base / split, findings)
        if split == "train" and task.labels < 100:
            _subset(task.labels, root, {Path(p.file).name for p in pictures}, findings)
        yield f"imagenet_{split}", pictures
    for name in sorted(classes["train"] ^ classes["val"]) if classes["train"] and classes["val"] else ():
        where = "train" if name in classes["train"] else "val"
        findings.add(
            "class", base / where / name, f"a class of {where} only", "complete the other, or remove the class"
        )


def _class_folders(folder: Path, findings: Findings) -> tuple[set[str], list[Picture]]:
    entries = sorted(_names(folder, findings, "extract the images as imagenet/{train,val}/<class>/"))
    classes = {name for name in entries if _is_folder(folder / name) and not name.startswith(".")}
    if entries and not classes:
        findings.add(
            "layout", folder, "no folder a class", "sort the images into their classes (valprep.sh does it for val)"
        )
    pictures = []
    for name in sorted(classes):
        files = list(_images(folder / name, (), findings))
        if not files:
            findings.add("class", folder / name, "no images", "extract them again, or remove the class")
        pictures += [Picture(file) for file in files]
    return classes, pictures


def _images(folder: Path, above: tuple[tuple[int, int], ...], findings: Findings) -> Iterator[str]:
    """The image files in a folder and below it; `above` are the folders that it stands in."""
    try:
        about = folder.stat()
        if (key := (about.st_dev, about.st_ino)) in above:
            findings.add("layout", folder, "a link that leads back to a folder above it", "remove the link")
            return
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        findings.add("layout", folder, error.strerror or str(error), AGAIN)
        return
    for entry in entries:
        try:
            inner = entry.is_dir()
        except OSError:
            inner = False
        if inner:
            yield from _images(Path(entry.path), (*above, key), findings)
        elif entry.name.lower().endswith(datasets.SUFFIXES) and not entry.name.startswith("."):
            yield entry.path


def _subset(percent: int, root: Path, names: set[str], findings: Findings) -> None:
    """What is wrong with the list of the labelled images, if there is one."""
    places = (root / f"{folder}/{percent}percent.txt" for folder in ("imagenet/subsets", "imagenet_subsets"))
    file = next((place for place in places if place.is_file()), None)
    mend = "fetch it from google-research/simclr imagenet_subsets/ as imagenet/subsets/"
    if file is None:
        drawn = "no list of the labelled images: each class gives its share, drawn from a fixed seed, and the record says so"
        findings.add("list", root / f"imagenet/subsets/{percent}percent.txt", drawn, mend, notice=True)
        return
    for name in _listed(file, findings, mend, whole=True):
        if name not in names:
            findings.add("missing image", file, f"it lists {name}", "complete the training set, or remove the list")


# COCO's format


def _surface(root: Path, findings: Findings) -> None:
    """Which of the files of the body's surface are missing, and which are something else."""
    whole = True
    for name in (surface.SYMMETRY, *surface.EVALUATED):
        file = root / surface.FOLDER / name
        if not file.is_file():
            whole = False
            findings.add("layout", file, "no such file", f"fetch {surface.ADDRESS}{name} and put it there")
    for read in (surface.symmetries, surface.body) if whole else ():
        try:
            read(root)
        except ValueError as error:
            reason, _, mend = str(error).rpartition(": ")
            findings.add("layout", root / surface.FOLDER, reason, mend)


class Coco:
    """An annotation file of COCO, of its keypoints, of DensePose or of LVIS.

    masks: whether its masks are used, to train or to test
    """

    def __init__(self, name: str, root: Path, masks: bool, findings: Findings):
        self.name, self.root, self.masks, self.findings = name, root, masks, findings
        self.file = datasets.annotation_file(name, root)
        self.lvis = name.startswith("lvis")
        self.keypoints = name.startswith("keypoints")
        self.densepose = name.startswith("densepose")
        self.split = datasets.split_of_2017(name)
        self.evaluated = self.split == "val"
        self.folders: dict[str, set[str]] = {}
        self.ids: set[int] = set()

    def wrong(self, kind: str, reason: str, mend: str = "download the file again", notice: bool = False) -> None:
        self.findings.add(kind, self.file, reason, mend, notice)

    def pictures(self) -> list[Picture]:
        mend = "extract COCO 2017 there, or point --data at its parent"
        base = _folder(self.root, ("coco",), self.findings, mend)
        content = self.content() if base else None
        if content is None:
            return []
        categories = self.categories(content["categories"])
        sizes, pictures = self.images(content["images"])
        for number, annotation in enumerate(content["annotations"]):
            self.annotation(number, annotation, sizes, categories)
        return pictures

    def content(self) -> dict[str, list[Any]] | None:
        """Its lists of images, annotations and categories."""
        try:
            content = json.loads(_content(self.file))
        except (ValueError, RecursionError, MemoryError) as error:
            self.wrong("annotation", str(error) or type(error).__name__, "put the dataset's own file there")
            return None
        wanted = ("images", "annotations", "categories")
        lists = isinstance(content, dict) and all(isinstance(content.get(key), list) for key in wanted)
        if not lists or not content["images"]:
            self.wrong("annotation", "no JSON object with lists of images, annotations and categories")
            return None
        return content

    def categories(self, found: list[Any]) -> set[int]:
        """The ids, of which everything that the dataset has must be there under its own name."""
        known = {c["id"]: c for c in found if isinstance(c, dict) and datasets.is_id(c.get("id"))}
        if self.lvis:
            count = datasets.LVIS_CLASSES[self.name.split("_")[1]]
            wanted: dict[int, str | None] = dict.fromkeys(range(1, count + 1))
        elif self.keypoints or self.densepose:
            wanted = {1: "person"}
        else:
            wanted = dict(zip(datasets.COCO_IDS, datasets.COCO_CLASSES, strict=True))
        if len(found) != len(known) or sorted(known) != sorted(wanted):
            mend = "take this version's own file"
            self.wrong("class", f"{len(found):,} categories, expected {len(wanted):,} with ids to {max(wanted)}", mend)
        for i, name in wanted.items():
            category = known.get(i, {"name": name, "frequency": "r", "keypoints": datasets.KEYPOINTS})
            if not isinstance(category.get("name"), str) or name not in (None, category["name"]):
                self.wrong("class", f"category {i} is {category.get('name')!r}, expected {name or 'a name'!r}")
            if self.lvis and category.get("frequency") not in datasets.FREQUENCIES:
                self.wrong("class", f"category {i} has the frequency {category.get('frequency')!r}, expected r, c or f")
            if self.keypoints and category.get("keypoints") != datasets.KEYPOINTS:
                self.wrong("class", f"category {i} has other keypoints than COCO's 17")
        return set(wanted)

    def images(self, found: list[Any]) -> tuple[dict[int, tuple[int, int]], list[Picture]]:
        """Width and height by id, and the images that are there."""
        sizes: dict[int, tuple[int, int]] = {}
        pictures = []
        for number, image in enumerate(found):
            fine = isinstance(image, dict) and all(datasets.is_id(image.get(key)) for key in ("width", "height"))
            if not fine or not datasets.names_image(image.get("id")) or image["width"] < 1 or image["height"] < 1:
                self.wrong(
                    "annotation", f"image {number} in its list has no id, whole width and height: {image!r:.100}"
                )
                continue
            if image["id"] in sizes:
                self.wrong("annotation", f"two images with the id {image['id']}")
            sizes[image["id"]] = image["width"], image["height"]
            if (place := self.place(image)) is None:
                continue
            folder, name = place
            if folder not in self.folders:
                self.folders[folder] = _names(self.root / "coco" / folder, self.findings)
            file = self.root / "coco" / folder / name
            if datasets.is_there(self.root / "coco" / folder, name, self.folders[folder]):
                pictures.append(Picture(str(file), sizes[image["id"]]))
            else:
                _missing("missing image", file, self.folders[folder], f"{self.file.name} lists it", self.findings)
        if len({type(i) for i in sizes}) > 1:
            self.wrong("annotation", "ids of images that are numbers beside ids that are texts")
        return sizes, pictures

    def place(self, image: Mapping[str, Any]) -> tuple[str, str] | None:
        """Folder and name of an image's file."""
        for key in datasets.LVIS_LISTS if self.lvis else ():
            listed = image.get(key, None if self.evaluated else [])
            if not isinstance(listed, list) or not all(datasets.is_id(i) for i in listed):
                self.wrong("annotation", f"image {image['id']}: {key} is no list of ids: {listed!r:.100}")
        key = "coco_url" if self.lvis else "file_name"
        value = image.get(key)
        parts = value.split("/")[-2:] if self.lvis and isinstance(value, str) else [f"{self.split}2017", value]
        if len(parts) != 2 or parts[0] not in ("train2017", "val2017") or not isinstance(parts[1], str) or not parts[1]:
            self.wrong("annotation", f"image {image['id']}: no {key} that leads to an image: {value!r:.100}")
            return None
        return parts[0], datasets.photograph(parts[1]) if self.densepose else parts[1]

    def annotation(self, number: int, found: Any, sizes: Mapping[int, tuple[int, int]], categories: set[int]) -> None:
        if not isinstance(found, dict) or not datasets.names_image(found.get("image_id")):
            self.wrong("annotation", f"annotation {number} in its list has no image: {found!r:.100}")
            return
        whose = f"annotation {found.get('id')!r:.40}"
        if datasets.is_id(found.get("id")):
            if found["id"] in self.ids:
                # a few of its do
                self.wrong("annotation", f"two annotations with the id {found['id']}", notice=self.densepose)
            self.ids.add(found["id"])
        if self.evaluated and not (datasets.is_id(found.get("id")) and datasets.is_number(found.get("area"))):
            self.wrong(
                "annotation", f"{whose}: no whole id and finite area, which the evaluation needs: {found!r:.100}"
            )
        if not isinstance(found.get("iscrowd", 0), int):
            self.wrong("annotation", f"{whose}: iscrowd is {found['iscrowd']!r:.40}, expected 0 or 1")
        if found["image_id"] not in sizes:
            self.wrong("annotation of no image", f"{whose}: no image {found['image_id']}", "remove it", notice=True)
            return
        if not datasets.is_id(found.get("category_id")) or found["category_id"] not in categories:
            self.wrong("class", f"{whose}: no category {found.get('category_id')!r:.40}", "correct or remove it")
        if not self.lvis and found.get("ignore", 0) != 0:
            reason = f"{whose}: ignore is {found['ignore']!r:.40}, which neither detectron2 nor the evaluation obeys"
            self.wrong("annotation", reason, "make it a crowd (iscrowd 1) or remove it")
        box, (width, height) = found.get("bbox"), sizes[found["image_id"]]
        if not datasets.is_box(box):
            self.wrong("box", f"{whose}: bbox is {box!r:.100}, expected four finite numbers", "correct or remove it")
        else:
            x, y, w, h = box
            # COCO's boxes have hundredths of a pixel
            _box(self.file, whose, (x, y, x + w, y + h), width + 0.01, height + 0.01, self.findings)
        self.mask(whose, found, width, height)
        if self.keypoints:
            self.joints(whose, found, width, height)
        if self.densepose and "dp_x" in found and (wrong := datasets.unmarked(found)):
            self.wrong("densepose", f"{whose}: expected {wrong}", "correct or remove it")

    def mask(self, whose: str, found: Mapping[str, Any], width: int, height: int) -> None:
        shape = found.get("segmentation")
        # what is no list is not looked at where masks are not used
        fine = not isinstance(shape, list) or all(
            isinstance(ring, list) and {*map(type, ring)} <= {int, float} for ring in shape
        )
        trained = not self.evaluated and (self.lvis or not found.get("iscrowd"))
        flat = fine and isinstance(shape, list) and len(datasets.polygons(shape)) < len(shape)
        if flat and not self.lvis and not datasets.polygons(shape) and not (self.masks and self.evaluated):
            reason = f"{whose}: no polygon of three points: {shape!r:.80}"
            self.wrong("flat mask", reason, "correct or remove it; detectron2 leaves the object out", notice=True)
        elif not fine or (flat and self.lvis) or (self.masks and not datasets.is_mask(shape, height, width, trained)):
            expected = datasets.MASK.format(width, height)
            self.wrong("mask", f"{whose}: not {expected}: {shape!r:.80}", "correct or remove it")

    def joints(self, whose: str, found: Mapping[str, Any], width: int, height: int) -> None:
        points = found.get("keypoints") or [0] * 51
        if not isinstance(points, list) or len(points) != 51 or not all(datasets.is_number(p) for p in points):
            self.wrong("keypoints", f"{whose}: expected x, y and visibility of 17 keypoints, found {points!r:.100}")
            return
        for x, y, v in zip(points[0::3], points[1::3], points[2::3], strict=True):
            if v not in (0, 1, 2):
                reason = f"{whose}: the visibility {v}, expected 0, 1 or 2"
                self.wrong("keypoints", reason, "correct it; above 0 is seen, other is not", notice=True)
            elif v and not (0 <= x <= width and 0 <= y <= height):
                mend = "correct it"
                self.wrong(
                    "keypoint outside", f"{whose}: {x}, {y} is outside its image of {width}x{height}", mend, True
                )
