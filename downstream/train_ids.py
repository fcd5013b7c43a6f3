"""Cityscapes' labelTrainIds, which its archives lack, from its labelIds or its polygons: `bench data check --make-label-train-ids`.

Equal to cityscapesscripts' preparation/createTrainIdLabelImgs.py, by the table of its helpers/labels.py.
"""

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from downstream.datasets import turned

# label id -> train id; every other label is 255, which neither trains nor counts
TRAIN_IDS = dict(
    zip((7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33), range(19), strict=True)
)
IGNORE = 255
# fmt: off
LABELS = dict(zip((
    "unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road", "sidewalk",
    "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole", "polegroup",
    "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "caravan",
    "trailer", "train", "motorcycle", "bicycle",
), range(34), strict=True)) | {"license plate": -1}
# fmt: on


def make(root: Path) -> tuple[int, dict[Path, str]]:
    """Writes the missing label maps of train and val in `root`/gtFine: how many, and of the others what is wrong with which file: the
    source, or the map itself where its folder takes no file."""
    lookup = np.full(256, IGNORE, np.uint8)
    lookup[list(TRAIN_IDS)] = list(TRAIN_IDS.values())
    made, failed = 0, {}
    for split in ("train", "val"):
        for photograph in sorted((root / "leftImg8bit" / split).glob("[!.]*/[!.]*_leftImg8bit.png")):
            stem = root / "gtFine" / split / photograph.parent.name / photograph.name.removesuffix("_leftImg8bit.png")
            ids, polygons, target = (
                stem.with_name(f"{stem.name}_gtFine_{kind}")
                for kind in ("labelIds.png", "polygons.json", "labelTrainIds.png")
            )
            if target.exists() or not (ids.is_file() or polygons.is_file()):
                continue
            source = ids if ids.is_file() else polygons
            unfinished = target.with_name(f".{target.name}.part")
            try:
                label = lookup[_read(ids) if source is ids else drawn(polygons)]
                _fits(label, photograph)
                Image.fromarray(label).save(unfinished, "png")
                unfinished.replace(target)
                made += 1
            except ValueError as error:
                failed[source] = str(error)
            except OSError as error:
                failed[target] = error.strerror or str(error)
    return made, failed


def _fits(label: np.ndarray, photograph: Path) -> None:
    """Raises ValueError for a label map of another size than its photograph's, which a run would refuse."""
    try:
        with Image.open(photograph) as picture:
            width, height = turned(picture)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"no photograph {photograph.name} to compare it with: {error}") from None
    if label.shape != (height, width):
        raise ValueError(
            f"expected the {width}x{height} pixels of {photograph.name}, found {label.shape[1]}x{label.shape[0]}"
        )


def _read(file: Path) -> np.ndarray:
    """[H, W] uint8 label ids."""
    try:
        with Image.open(file) as picture:
            ids = np.asarray(picture)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"no label map: {error}") from None
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise ValueError(f"no label map: {ids.dtype} {ids.shape}, expected 8-bit label ids in one channel")
    return ids


def drawn(file: Path) -> np.ndarray:
    """[H, W] uint8 label ids of polygons, later ones over earlier ones, as cityscapesscripts draws them. Raises ValueError, with
    the reason, for a file that is broken."""
    where = ""
    try:
        content = json.loads(file.read_bytes())
        width, height = content["imgWidth"], content["imgHeight"]
        if not 0 < width * height <= 1 << 26:
            raise ValueError(f"a size of {width}x{height}")
        picture = Image.new("L", (width, height), LABELS["unlabeled"])
        pen = ImageDraw.Draw(picture)
        for number, thing in enumerate(content["objects"], 1):
            where = f" in object {number}"
            if thing.get("deleted"):
                continue
            name = thing["label"]
            label = LABELS[name if name in LABELS else name.removesuffix("group")]
            if label >= 0:
                pen.polygon([(x, y) for x, y in thing["polygon"]], fill=label)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"no Cityscapes polygons: {error!r}{where}") from None
    return np.asarray(picture)
