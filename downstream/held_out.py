"""A folder of datasets whose test images are held out from the training images of another: what mini protocols are tuned on.

    python -m downstream.held_out DATA OUT

The last quarter of the training images, by their names, becomes the test set and the rest the training set, in the same layout:
VOC2007's detection, VOC2012's segmentation, Cityscapes' semantic segmentation and every class of ImageNet. By their names, because
neighbouring frames of a drive are alike. Of VOC2012's segmentation it is the last quarter of VOC's own train, whose label maps
stand where those of val are sought; what SBD adds trains. Files are links; of DATA's own test images there are none.
"""

import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

SHARE = 4  # one of so many training images is tested


def hold_out(data: Path, out: Path) -> dict[str, tuple[int, int]]:
    """Makes `out` from what `data` has of these datasets: dataset -> training and test images.

    Raises FileExistsError where `out` is there; FileNotFoundError, and leaves no `out`, where data has none of them or a dataset
    lacks a list.
    """
    makers: dict[str, Callable[[Path, Path], tuple[int, int]]] = {
        "VOC2007": _voc07,
        "VOC2012": _voc12,
        "cityscapes": _cityscapes,
        "imagenet": _imagenet,
    }
    there = [name for name in makers if (data / name).is_dir()]
    if not there:
        raise FileNotFoundError(f"expected one of {', '.join(makers)} in {data}, found none")
    out.mkdir(parents=True)
    try:
        return {name: makers[name]((data / name).resolve(), out / name) for name in there}
    except BaseException:
        shutil.rmtree(out)
        raise


def _parted(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The training and the test images."""
    ordered = sorted(names)
    cut = len(ordered) - len(ordered) // SHARE
    return ordered[:cut], ordered[cut:]


def _voc07(data: Path, out: Path) -> tuple[int, int]:
    train, test = _parted((data / "ImageSets/Main/trainval.txt").read_text().split())
    _lists(out / "ImageSets/Main", {"trainval": train, "test": test})
    _link(data, out, ("Annotations", "JPEGImages"))
    return len(train), len(test)


def _voc12(data: Path, out: Path) -> tuple[int, int]:
    """Its detection images all train, as they do beside VOC2007's, and so do the images of trainaug that are not in train."""
    lists = data / "ImageSets/Segmentation"
    listed = (lists / "trainaug.txt").read_text().split()
    official = {*(lists / "train.txt").read_text().split()}
    own, test = _parted([name for name in listed if name in official])
    train = sorted({*listed} - {*test})
    _lists(out / "ImageSets/Segmentation", {"trainaug": train, "train": own, "val": test})
    _lists(out / "ImageSets/Main", {"trainval": (data / "ImageSets/Main/trainval.txt").read_text().split()})
    _link(data, out, ("Annotations", "JPEGImages", "SegmentationClass", "SegmentationClassAug"))
    return len(train), len(test)


def _lists(folder: Path, lists: dict[str, list[str]]) -> None:
    folder.mkdir(parents=True)
    for name, images in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(images) + "\n")


def _link(data: Path, out: Path, folders: Sequence[str]) -> None:
    for folder in folders:
        (out / folder).symlink_to(data / folder)


def _cityscapes(data: Path, out: Path) -> tuple[int, int]:
    photographs, end = data / "leftImg8bit/train", "_leftImg8bit.png"
    names = [str(file.relative_to(photographs)).removesuffix(end) for file in photographs.glob(f"*/*{end}")]
    parts = dict(zip(("train", "val"), _parted(names), strict=True))
    for split, images in parts.items():
        for name in images:
            for kind in ("leftImg8bit", "gtFine"):
                for file in (data / kind / "train").glob(f"{name}_*"):
                    link = out / kind / split / file.relative_to(data / kind / "train")
                    link.parent.mkdir(parents=True, exist_ok=True)
                    link.symlink_to(file)
    return len(parts["train"]), len(parts["val"])


def _imagenet(data: Path, out: Path) -> tuple[int, int]:
    counts = {"train": 0, "val": 0}
    for folder in sorted(place for place in (data / "train").iterdir() if place.is_dir()):
        for split, names in zip(counts, _parted([file.name for file in folder.iterdir()]), strict=True):
            (out / split / folder.name).mkdir(parents=True)
            for name in names:
                (out / split / folder.name / name).symlink_to(folder / name)
            counts[split] += len(names)
    return counts["train"], counts["val"]


if __name__ == "__main__":
    for dataset, (trained, tested) in hold_out(Path(sys.argv[1]), Path(sys.argv[2])).items():
        print(f"{dataset}: {trained} training and {tested} test images")
