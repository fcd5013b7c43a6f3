"""Cityscapes' objects are read as cityscapesscripts draws them and detectron2 wants them; what is wrong is said by name."""

import json

import numpy as np
import pytest
from detectron2.data.datasets.cityscapes import _cityscapes_files_to_dict, _get_cityscapes_files
from PIL import Image
from pycocotools import mask as mask_tools

from downstream import datasets
from downstream.synthetic import synthesize

pytest.importorskip("cityscapesscripts")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11

TRAIN = "cityscapes_fine_instance_seg_train"


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    root = tmp_path_factory.mktemp("streets")
    synthesize(root, voc=0, coco=0, cityscapes=8, imagenet=0)
    return root


def one(root, ids, size=None):
    """A training split of one image with these instance ids."""
    photographs, truth = (root / "cityscapes" / folder / "train" / "ulm" for folder in ("leftImg8bit", "gtFine"))
    for folder in (photographs, truth):
        folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size or ids.shape[::-1]).save(photographs / "ulm_000000_000019_leftImg8bit.png")
    file = truth / "ulm_000000_000019_gtFine_instanceIds.png"
    Image.fromarray(ids).save(file)
    return file


def test_objects_are_those_that_detectron2_finds(streets):
    ours = datasets.records(TRAIN, streets)
    base = streets / "cityscapes"
    files = _get_cityscapes_files(str(base / "leftImg8bit" / "train"), str(base / "gtFine" / "train"))
    theirs = [_cityscapes_files_to_dict(file, from_json=False, to_polygons=False) for file in files]
    theirs = {r["image_id"]: r for r in theirs}
    assert len(ours) == len(theirs) == 8 and [r["image_id"] for r in ours] == sorted(theirs, key=lambda n: n.split("_"))
    seen = 0
    for image in ours:
        other = theirs[image["image_id"]]
        assert all(image[key] == other[key] for key in ("file_name", "height", "width"))
        wide = [a for a in image["annotations"] if min(a["bbox"][2] - a["bbox"][0], a["bbox"][3] - a["bbox"][1]) > 1]
        assert len(wide) == len(other["annotations"])
        for a, b in zip(wide, other["annotations"], strict=True):
            label = list(datasets.CITYSCAPES_CLASSES)[a["category_id"]]
            assert (label, a["iscrowd"], a["bbox_mode"]) == (b["category_id"], b["iscrowd"], b["bbox_mode"])
            x1, y1, x2, y2 = b["bbox"]  # of pixels here; from polygons, detectron2's default, of their outer edges
            assert a["bbox"] == [x1, y1, x2 + 1, y2 + 1]
            seen += 1
    assert seen > 30


def test_outlines_are_the_pixels_that_cityscapesscripts_drew_from_the_polygons(tmp_path):
    from cityscapesscripts.helpers.annotation import Annotation
    from cityscapesscripts.preparation.json2instanceImg import createInstanceImage

    car, person, bus = (
        [[4, 5], [40, 5], [40, 30], [4, 30]],
        [[10, 8], [20, 2], [20, 36], [10, 36]],
        [[50, 9], [59, 9], [50, 30]],
    )
    objects = [("road", [[0, 0], [63, 0], [63, 39], [0, 39]]), ("car", car), ("person", person), ("busgroup", bus)]
    content = {"imgHeight": 40, "imgWidth": 64, "objects": [{"label": n, "polygon": p} for n, p in objects]}
    polygons = Annotation()
    polygons.fromJsonText(json.dumps(content))
    file = one(tmp_path, np.array(createInstanceImage(polygons, "ids")).astype(np.uint16))
    (image,) = datasets.records(TRAIN, tmp_path)
    found = {
        datasets.CITYSCAPES_CLASSES[list(datasets.CITYSCAPES_CLASSES)[a["category_id"]]]: a
        for a in image["annotations"]
    }
    # detectron2: a polygon's coordinates + 0.5, made wider by 0.5
    assert {n: (a["bbox"], a["iscrowd"]) for n, a in found.items()} == {
        "bus": ([50, 9, 60, 31], 1),
        "person": ([10, 2, 21, 37], 0),
        "car": ([4, 5, 41, 31], 0),
    }
    assert [len(found[name]["segmentation"]) for name in ("bus", "person", "car")] == [1, 1, 2]  # the car has two parts
    ids = datasets.instance_ids(file)
    for name, i in (("bus", 28), ("person", 24000), ("car", 26000)):
        drawn = mask_tools.merge(mask_tools.frPyObjects(found[name]["segmentation"], 40, 64))
        assert np.array_equal(mask_tools.decode(drawn), ids == i)


def test_outlines_of_drawn_streets_are_their_masks_with_holes_filled(streets):
    import cv2

    for image in datasets.records(TRAIN, streets):
        ids = datasets.instance_ids(image["instance_file_name"])
        singles = [i for i in np.unique(ids) if i >= 24000 or 24 <= i < 34]
        for i, annotation in zip(singles, image["annotations"], strict=True):
            outside, _ = cv2.findContours((ids == i).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            filled = cv2.drawContours(np.zeros(ids.shape, np.uint8), outside, -1, 1, cv2.FILLED)
            drawn = mask_tools.merge(mask_tools.frPyObjects(annotation["segmentation"], *ids.shape))
            assert np.array_equal(mask_tools.decode(drawn), filled)


def test_caravans_and_trailers_are_not_among_the_classes(tmp_path):
    ids = np.full((40, 64), 7, np.uint16)
    ids[:10, :10], ids[:10, 20:30], ids[20:, 20:30], ids[20:, :10] = 29000, 30, 33012, 31
    one(tmp_path, ids)
    (image,) = datasets.records(TRAIN, tmp_path)
    assert [(a["category_id"], a["iscrowd"]) for a in image["annotations"]] == [(5, 1), (7, 0)]


def test_a_test_split_has_an_object_that_the_evaluation_counts(tmp_path):
    ids = np.full((40, 64), 7, np.uint16)
    ids[:9, :11] = 26000  # 99 pixels
    one(tmp_path, ids)
    assert datasets.records(TRAIN, tmp_path)[0]["annotations"][0]["area"] == 99
    for folder in ("leftImg8bit", "gtFine"):
        (tmp_path / "cityscapes" / folder / "train").rename(tmp_path / "cityscapes" / folder / "val")
    with pytest.raises(ValueError, match=r"an object of at least 100 pixels to test on in .*gtFine/val, found none"):
        datasets.records(TRAIN.replace("train", "val"), tmp_path)


def test_what_is_wrong_is_said_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"leftImg8bit/train with a folder for each city, found no folder"):
        datasets.records(TRAIN, tmp_path)
    good = np.full((40, 64), 7, np.uint16)
    file = one(tmp_path, good, size=(64, 41))
    with pytest.raises(ValueError, match=r"instanceIds.png of the size of .*, \(64, 41\), found \(64, 40\)"):
        datasets.records(TRAIN, tmp_path)
    one(tmp_path, good.astype(np.uint8))
    with pytest.raises(ValueError, match=r"16 bits and one channel, found uint8"):
        datasets.records(TRAIN, tmp_path)
    one(tmp_path, good)
    photograph = next((tmp_path / "cityscapes" / "leftImg8bit").glob("*/*/*.png"))
    photograph.write_bytes(b"<html>not found</html>")
    with pytest.raises(ValueError, match=r"expected a photograph, found cannot identify image file .*leftImg8bit.png"):
        datasets.records(TRAIN, tmp_path)
    one(tmp_path, np.where(np.arange(64) < 5, 34000, good).astype(np.uint16))
    with pytest.raises(ValueError, match=r"label ids up to 33, found 34"):
        datasets.records(TRAIN, tmp_path)
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(ValueError, match=r"expected a PNG of 16 bits, found .* extract it again"):
        datasets.records(TRAIN, tmp_path)
    file.unlink()
    with pytest.raises(FileNotFoundError, match=r"gtFine_trainvaltest.zip has it"):
        datasets.records(TRAIN, tmp_path)
    with pytest.raises(ValueError, match="expected a dataset like"):
        datasets.records("cityscapes_fine_instance_seg_test", tmp_path)
