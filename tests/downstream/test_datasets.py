"""VOC and COCO are read as detectron2 reads them, and what is wrong with them is said by name."""

import json
import math
import os
import re
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import MetadataCatalog
from detectron2.data.build import filter_images_with_few_keypoints, filter_images_with_only_crowd_annotations
from detectron2.data.datasets.coco import load_coco_json
from detectron2.data.datasets.pascal_voc import load_voc_instances
from PIL import Image
from pycocotools import mask as mask_tools

from downstream import datasets
from downstream.datasets import COCO_CLASSES, COCO_IDS, KEYPOINTS, VOC_CLASSES
from downstream.evaluation import coco as evaluation

REAL = Path(os.environ.get("DETECTRON2_DATASETS") or Path(__file__).resolve().parents[3] / "shared" / "data")


def real(*places):
    """For a test of real data: skipped where one of these is not there."""
    return pytest.mark.skipif(not all((REAL / p).exists() for p in places), reason=f"needs {', '.join(places)}")


XML = """<annotation><size><width>64</width><height>48</height><depth>3</depth></size><object><name>{name}</name>
<difficult>0</difficult><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>64</xmax><ymax>48</ymax></bndbox></object></annotation>"""


@pytest.fixture
def voc(tmp_path):
    base = tmp_path / "VOC2007"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (base / folder).mkdir(parents=True)
    (base / "ImageSets/Main/test.txt").write_text("000001\n000002\n")
    for name in ("000001", "000002"):
        Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(base / "JPEGImages" / f"{name}.jpg")
        (base / "Annotations" / f"{name}.xml").write_text(XML.format(name="cat"))
    return tmp_path


def annotations(**changes):
    content = {
        "images": [{"id": 7, "file_name": "7.jpg", "height": 48, "width": 64}],
        "categories": [{"id": i, "name": n} for i, n in zip(COCO_IDS, COCO_CLASSES, strict=True)],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 2, 3, 4], "iscrowd": 0, "area": 12}],
    }
    return json.dumps(content | changes)


@pytest.fixture
def coco(tmp_path):
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    (tmp_path / "coco" / "val2017").mkdir()
    (tmp_path / "coco" / "val2017" / "7.jpg").touch()
    (tmp_path / "coco" / "annotations" / "instances_val2017.json").write_text(annotations())
    return tmp_path


@real("VOC2007/ImageSets/Main/test.txt")
def test_real_voc_reads_as_detectron2_reads_it():
    ours = datasets.records("voc_2007_test", REAL)
    theirs = load_voc_instances(str(REAL / "VOC2007"), "test", VOC_CLASSES)
    assert len(ours) == len(theirs) > 100
    for a, b in zip(ours, theirs, strict=True):
        for annotation in a["annotations"]:
            del annotation["difficult"]
        assert a == b


@real("coco/annotations/instances_val2017.json", "coco/val2017")
@pytest.mark.filterwarnings("ignore")
def test_real_coco_reads_as_detectron2_reads_it():
    ours = datasets.records("coco_2017_val", REAL)
    folder = REAL / "coco"
    theirs = load_coco_json(
        str(folder / "annotations" / "instances_val2017.json"), str(folder / "val2017"), "coco_test"
    )
    assert MetadataCatalog.get("coco_test").thing_classes == COCO_CLASSES
    for a, b in zip(ours, theirs, strict=True):
        for o in (*a["annotations"], *b["annotations"]):
            if o["iscrowd"]:
                del o["segmentation"]  # detectron2 compresses the run lengths that training drops
        assert a == b


@real("coco/annotations/person_keypoints_train2017.json", "coco/train2017")
@pytest.mark.filterwarnings("ignore")
def test_real_keypoints_read_as_detectron2_reads_them():
    ours = datasets.records("keypoints_coco_2017_train", REAL)
    folder = REAL / "coco"
    file = folder / "annotations" / "person_keypoints_train2017.json"
    theirs = load_coco_json(str(file), str(folder / "train2017"), "keypoints_test")
    assert sum(len(r["annotations"]) for r in ours) > 100
    for a, b in zip(ours, theirs, strict=True):
        for o in (*a["annotations"], *b["annotations"]):
            if o["iscrowd"]:
                del o["segmentation"]
        assert a == b
    few = filter_images_with_few_keypoints(filter_images_with_only_crowd_annotations(theirs), 1)
    assert datasets.trainable(ours, keypoints=1) == few and 0 < len(few) < len(ours)


def test_keypoints_have_the_order_that_detectron2_flips():
    assert list(MetadataCatalog.get("keypoints_coco_2017_train").keypoint_names) == KEYPOINTS


@real("voc_originals/VOC2012")
def test_real_voc_originals_with_floats_and_another_order(tmp_path):
    source = REAL / "voc_originals" / "VOC2012"
    (tmp_path / "VOC2012" / "ImageSets" / "Main").mkdir(parents=True)
    for folder in ("Annotations", "JPEGImages"):
        (tmp_path / "VOC2012" / folder).symlink_to(source / folder)
    names = sorted(p.stem for p in (source / "Annotations").iterdir())
    (tmp_path / "VOC2012" / "ImageSets" / "Main" / "val.txt").write_text("\n".join(names))
    for record, name in zip(datasets.records("voc_2012_val", tmp_path), names, strict=True):
        text = (source / "Annotations" / f"{name}.xml").read_text()
        assert record["annotations"]
        for annotation in record["annotations"]:
            x1, y1, x2, y2 = annotation["bbox"]
            assert 0 <= x1 < x2 <= record["width"] and 0 <= y1 < y2 <= record["height"]
            assert re.search(rf"<xmax>{x2:g}", text) or re.search(rf"<xmax>{int(x2)}\.", text)


def test_a_box_over_the_whole_image_starts_at_0(voc):
    (first, _) = datasets.records("voc_2007_test", voc)
    assert first["annotations"] == [
        {"category_id": VOC_CLASSES.index("cat"), "bbox": [0, 0, 64, 48], "bbox_mode": datasets.XYXY, "difficult": 0}
    ]


def test_vocdevkit_is_the_same_data(voc):
    plain = datasets.digest(datasets.records("voc_2007_test", voc))
    (voc / "VOCdevkit").mkdir()
    (voc / "VOC2007").rename(voc / "VOCdevkit" / "VOC2007")
    assert datasets.digest(datasets.records("voc_2007_test", voc)) == plain


def test_digest_knows_the_annotations_and_not_the_order(voc):
    records = datasets.records("voc_2007_test", voc)
    before = datasets.digest(records)
    assert datasets.digest(records[::-1]) == before
    records[0]["annotations"][0]["difficult"] = 1
    assert datasets.digest(records) != before


def test_images_without_objects_or_with_crowds_only_are_not_trained_on():
    images = [{"annotations": []}, {"annotations": [{"iscrowd": 1}]}, {"annotations": [{"iscrowd": 1}, {"iscrowd": 0}]}]
    assert datasets.trainable(images) == images[2:]


def test_missing_pieces_of_voc_are_named(voc, tmp_path):
    base = voc / "VOC2007"
    with pytest.raises(FileNotFoundError, match="--data"):
        datasets.records("voc_2007_test", tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"VOC2012/ or VOCdevkit/VOC2012/.*found VOC2007"):
        datasets.records("voc_2012_trainval", voc)
    with pytest.raises(FileNotFoundError, match=r"trainval.txt, found test.txt"):
        datasets.records("voc_2007_trainval", voc)
    (base / "JPEGImages" / "000002.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"JPEGImages/000002.jpg"):
        datasets.records("voc_2007_test", voc)
    (base / "JPEGImages" / "000002.jpg").touch()
    (base / "Annotations" / "000001.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"Annotations/000001.xml"):
        datasets.records("voc_2007_test", voc)
    (base / "ImageSets" / "Main" / "test.txt").write_text("\n")
    with pytest.raises(ValueError, match="empty"):
        datasets.records("voc_2007_test", voc)
    (base / "ImageSets" / "Main" / "test.txt").write_text("000001\n000002\n000001\n")
    with pytest.raises(ValueError, match=r"every image once in .*Main/test.txt, found 000001 2 times"):
        datasets.records("voc_2007_test", voc)


def test_wrong_annotations_of_voc_are_named(voc):
    file = voc / "VOC2007" / "Annotations" / "000002.xml"
    file.write_text(XML.format(name="unicorn"))
    with pytest.raises(ValueError, match=r"aeroplane, .*tvmonitor, found the class 'unicorn' in .*000002.xml"):
        datasets.records("voc_2007_test", voc)
    file.write_text(XML.format(name="cat")[:100])
    with pytest.raises(ValueError, match=r"000002.xml"):
        datasets.records("voc_2007_test", voc)
    file.write_text(XML.format(name="cat").replace("<xmin>1</xmin>", ""))
    with pytest.raises(ValueError, match=r"000002.xml"):
        datasets.records("voc_2007_test", voc)
    file.write_text(XML.format(name="cat").replace("<width>64", "<width>0"))
    with pytest.raises(ValueError, match=r"0x48"):
        datasets.records("voc_2007_test", voc)


def test_a_list_may_begin_with_a_mark_of_the_byte_order_and_is_named_if_it_is_no_utf8(voc):
    plain = datasets.records("voc_2007_test", voc)
    listed = voc / "VOC2007/ImageSets/Main/test.txt"
    listed.write_bytes(b"\xef\xbb\xbf000001 -1\r\n000002  1 \r\n")
    assert datasets.records("voc_2007_test", voc) == plain
    listed.write_bytes("000001\n".encode("utf-16"))
    with pytest.raises(ValueError, match=r"expected a list in UTF-8, found .* in .*Main/test.txt: save it as UTF-8"):
        datasets.records("voc_2007_test", voc)


def test_a_listed_image_may_lie_in_a_folder_below_and_never_outside(voc):
    base = voc / "VOC2007"
    for folder, suffix in (("JPEGImages", "jpg"), ("Annotations", "xml")):
        (base / folder / "more").mkdir()
        (base / folder / f"000002.{suffix}").rename(base / folder / "more" / f"000002.{suffix}")
    listed = base / "ImageSets/Main/test.txt"
    listed.write_text("000001\nmore/000002\n")
    ours = datasets.records("voc_2007_test", voc)
    theirs = load_voc_instances(str(base), "test", VOC_CLASSES)
    assert [(r["file_name"], r["image_id"]) for r in ours] == [(r["file_name"], r["image_id"]) for r in theirs]
    for name in ("../JPEGImages/000001", str(base / "JPEGImages.old/000001"), "x" * 300 + "/y", "more/000001"):
        listed.write_text(f"{name}\n")
        with pytest.raises(FileNotFoundError, match=r"000001.jpg, which .*test.txt|/y.jpg, which .*test.txt"):
            datasets.records("voc_2007_test", voc)


def test_a_name_in_other_letters_or_with_another_suffix_is_offered(voc):
    photographs = voc / "VOC2007" / "JPEGImages"
    (photographs / "000002.jpg").rename(photographs / "000002.JPG")
    with pytest.raises(FileNotFoundError, match=r"000002.jpg, which .* lists, found 000002.JPG: give it the name that"):
        datasets.records("voc_2007_test", voc)


def test_the_object_that_is_wrong_is_numbered_and_a_link_that_leads_nowhere_named(voc):
    file = voc / "VOC2007" / "Annotations" / "000002.xml"
    text = XML.format(name="cat")
    found = text[text.index("<object>") : text.index("</annotation>")]
    file.write_text(text.replace(found, found + found.replace("<difficult>0", "<difficult>Unspecified")))
    with pytest.raises(
        ValueError, match=r"0 or 1 in object/difficult, found .*'Unspecified' in object 2 of .*000002.xml"
    ):
        datasets.records("voc_2007_test", voc)
    file.unlink()
    file.symlink_to("nowhere")
    with pytest.raises(ValueError, match=r"found No such file or directory in .*000002.xml: extract"):
        datasets.records("voc_2007_test", voc)


def test_missing_and_wrong_pieces_of_coco_are_named(coco, tmp_path):
    file = coco / "coco" / "annotations" / "instances_val2017.json"
    assert datasets.records("coco_2017_val", coco)[0]["annotations"][0]["category_id"] == 79
    with pytest.raises(FileNotFoundError, match=r"instances_train2017.json, found instances_val2017.json"):
        datasets.records("coco_2017_train", coco)
    one = {"id": 1, "image_id": 7, "category_id": 12, "bbox": [1, 2, 3, 4], "area": 12}
    file.write_text(annotations(annotations=[one]))
    with pytest.raises(ValueError, match=r"category_id 12 in annotation 1 of .*instances_val2017.json"):
        datasets.records("coco_2017_val", coco)
    file.write_text(annotations(categories=[{"id": 1, "name": "unicorn"}]))
    with pytest.raises(ValueError, match=r"1: 'unicorn'"):
        datasets.records("coco_2017_val", coco)
    file.write_text(annotations(categories=[{"id": 1, "name": "person"}]))
    with pytest.raises(ValueError, match=r"2 \('bicycle'\) is missing"):
        datasets.records("coco_2017_val", coco)
    file.write_text(annotations(images=[]))
    with pytest.raises(ValueError, match="found none"):
        datasets.records("coco_2017_val", coco)
    file.write_text(annotations()[:200])
    with pytest.raises(ValueError, match=r"instances_val2017.json"):
        datasets.records("coco_2017_val", coco)
    file.write_text(annotations())
    (coco / "coco" / "val2017" / "7.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"val2017/7.jpg"):
        datasets.records("coco_2017_val", coco)


@pytest.mark.parametrize(
    ("of", "key", "value", "words"),
    [
        ("annotations", "area", None, "'area'"),
        ("annotations", "area", float("nan"), "area nan"),
        ("annotations", "id", None, "'id'"),
        ("annotations", "id", "1", "id '1'"),
        ("annotations", "category_id", None, "category_id None"),
        ("annotations", "category_id", [1], r"category_id \[1\]"),
        ("annotations", "segmentation", [1, 2], r"polygons .*segmentation \[1, 2\]"),
        ("annotations", "segmentation", [["a"] * 6], "polygons"),
        ("images", "height", None, "'height'"),
        ("images", "height", "10", "height '10'"),
        ("images", "width", 0, "width 0"),
        ("images", "file_name", None, "file_name"),
        ("images", "file_name", ["x"], "file_name"),
    ],
)
def test_what_the_evaluation_of_coco_would_stop_at_is_said_before_anything_trains(coco, of, key, value, words):
    file = coco / "coco" / "annotations" / "instances_val2017.json"
    content = json.loads(annotations())
    content[of][0][key] = value
    if value is None:
        del content[of][0][key]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"(?s){words}.*instances_val2017.json"):
        datasets.records("coco_2017_val", coco)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["7.jpg", "./7.jpg", "more/7.jpg", "more/./a b\n\u00e9.jpg"])
def test_an_image_of_coco_may_lie_in_a_folder_below_as_detectron2_has_it(coco, name):
    place = coco / "coco" / "val2017" / name
    place.parent.mkdir(exist_ok=True)
    (coco / "coco" / "val2017" / "7.jpg").rename(place)
    file = coco / "coco" / "annotations" / "instances_val2017.json"
    file.write_text(annotations(images=[{"id": 7, "file_name": name, "height": 48, "width": 64}]))
    (ours,) = datasets.records("coco_2017_val", coco)
    (theirs,) = load_coco_json(str(file), str(place.parents[len(Path(name).parts) - 1]), f"coco_below_{len(name)}")
    assert Path(ours["file_name"]) == Path(theirs["file_name"]) and place.samefile(ours["file_name"])
    assert ours["annotations"] == theirs["annotations"]
    for outside in (f"../val2017/{name}", f"/val2017/{name}", "more/..", "\ud800/x"):
        file.write_text(annotations(images=[{"id": 7, "file_name": outside, "height": 48, "width": 64}]))
        with pytest.raises(FileNotFoundError, match=r"which .*instances_val2017.json lists"):
            datasets.records("coco_2017_val", coco)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("ids", [(2**31, 2**31 + 1), (2**53 + 1, 2**53 + 2), (-(2**63), 2**63 - 1), ("b", "a\u00e9")])
def test_images_have_the_ids_that_they_have_in_detectron2(coco, ids):
    images = [{"id": i, "file_name": "7.jpg", "height": 48, "width": 64} for i in ids]
    (one,) = json.loads(annotations())["annotations"]
    objects = [one | {"id": 2**53 + n, "image_id": i, "category_id": n} for n, i in enumerate(ids, 1)]
    file = coco / "coco" / "annotations" / "instances_val2017.json"
    file.write_text(annotations(images=images, annotations=objects))
    theirs = load_coco_json(str(file), str(coco / "coco" / "val2017"), f"coco_ids_{ids[0]}")
    assert datasets.records("coco_2017_val", coco) == theirs
    assert len({datasets.digest([r]) for r in theirs}) == 2


@pytest.mark.parametrize(
    ("of", "changes", "words"),
    [
        ("images", {"id": 7.0}, r"id 7.0 in number 0 of its images"),
        ("images", {"id": 2**63}, r"id 9223372036854775808 in number 0"),
        ("images", {"id": True}, r"id True in number 0"),
        ("annotations", {"id": 2**63}, r"id 9223372036854775808 and area 12 in number 0 of its annotations"),
        ("annotations", {"image_id": 7.0}, r"image_id 7.0 in number 0"),
        ("annotations", {"iscrowd": "0"}, r"iscrowd '0' in number 0"),
        ("annotations", {"iscrowd": None}, r"iscrowd None in number 0"),
        ("annotations", {"ignore": 1}, r"found ignore 1 in annotation 1 of .*make it a crowd"),  # detectron2 asserts
        ("categories", {"id": 2}, r"two categories with the id 2"),
        ("categories", {"name": None}, r"id 1 and name None in number 0 of its categories"),
    ],
)
def test_what_would_be_taken_for_something_else_is_refused(coco, of, changes, words):
    content = json.loads(annotations())
    content[of][0] |= changes
    file = coco / "coco" / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"{words}.*|.*{words}.*instances_val2017.json"):
        datasets.records("coco_2017_val", coco)


def test_a_crowd_that_is_true_is_one_and_no_number_beside_texts_is_an_id(coco):
    file = coco / "coco" / "annotations" / "instances_val2017.json"
    (one,) = json.loads(annotations())["annotations"]
    file.write_text(annotations(annotations=[one | {"iscrowd": True}]))
    (truth,) = datasets.records("coco_2017_val", coco)
    file.write_text(annotations(annotations=[one | {"iscrowd": 1}]))
    assert datasets.digest([truth]) == datasets.digest(datasets.records("coco_2017_val", coco))
    images = [{"id": i, "file_name": "7.jpg", "height": 48, "width": 64} for i in (7, "7")]
    file.write_text(annotations(images=images))
    with pytest.raises(ValueError, match=r"instances_val2017.json"):
        datasets.records("coco_2017_val", coco)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("split", ["train", "val"])
def test_annotations_that_share_an_id_are_refused_as_detectron2_refuses_them(coco, split):
    (coco / "coco" / "train2017").symlink_to("val2017")
    (one,) = json.loads(annotations())["annotations"]
    file = coco / "coco" / "annotations" / f"instances_{split}2017.json"
    for ids, shared in (((1, 2, 3), 0), ((1, 2, 1), 1)):
        file.write_text(annotations(annotations=[one | {"id": i} for i in ids]))
        lvis(coco, "v1", split, 1203, annotations=[one | {"id": i, "category_id": c + 1} for c, i in enumerate(ids)])
        for name, where in ((f"coco_2017_{split}", file), (f"lvis_v1_{split}", coco / f"lvis/lvis_v1_{split}.json")):
            if not shared:
                assert len(load_coco_json(str(file), str(coco / "coco" / f"{split}2017"))[0]["annotations"]) == 3
                assert len(datasets.records(name, coco)[0]["annotations"]) == 3
                continue
            with pytest.raises(AssertionError, match="not unique"):
                load_coco_json(str(file), str(coco / "coco" / f"{split}2017"))
            with pytest.raises(ValueError, match=rf"found .*two annotations with the id 1.* in {where}"):
                datasets.records(name, coco)


SQUARE = [1, 2, 9, 2, 9, 8, 1, 8]
DISK = np.asfortranarray(np.hypot(*np.mgrid[-20:28, -30:34]) < 15).view(np.uint8)
TEXT = mask_tools.encode(DISK)["counts"].decode()
NO_MASKS = {
    "nothing": None,
    "no polygon": [],
    "two points": [[1, 2, 3, 4]],
    "an odd number": [[*SQUARE, 1]],
    "no point": [[]],
    "a NaN": [[*SQUARE[:7], math.nan]],
    "a NaN first": [[math.nan, *SQUARE[1:]]],
    "an infinity": [SQUARE, [*SQUARE[:7], -math.inf]],
    "far away": [[*SQUARE[:7], 1e8]],
    "a word": "mask",
    "no lengths": {"size": [48, 64]},
    "empty lengths": {"counts": [], "size": [48, 64]},
    "a negative length": {"counts": [-1, 48 * 64 + 1], "size": [48, 64]},
    "a huge length": {"counts": [2**40], "size": [48, 64]},
    "too few": {"counts": [10, 20], "size": [48, 64]},
    "fractions": {"counts": [1536.0, 1536.0], "size": [48, 64]},
    "a negative size": {"counts": [48 * 64], "size": [-48, -64]},
    "another size": {"counts": [48 * 64], "size": [64, 48]},
    "a size of fractions": {"counts": [48 * 64], "size": [48.0, 64]},
    "no size": {"counts": [48 * 64]},
    "a size of words": {"counts": [48 * 64], "size": "[48, 64]"},
    "a text cut": {"counts": TEXT[:-1], "size": [48, 64]},
    "a text that goes on": {"counts": TEXT + "o", "size": [48, 64]},
    "any text": {"counts": "abc", "size": [48, 64]},
    "no text of lengths": {"counts": "\x00\u2603", "size": [48, 64]},
    "an endless text": {"counts": "o" * 100_000, "size": [48, 64]},
}


@pytest.mark.parametrize("what", NO_MASKS)
def test_a_mask_that_the_evaluation_cannot_use_is_named_where_masks_are_used(coco, what):
    file = coco / "coco" / "annotations" / "instances_val2017.json"
    (good,) = json.loads(annotations())["annotations"]
    file.write_text(annotations(annotations=[good | {"segmentation": NO_MASKS[what], "iscrowd": 1}]))
    with pytest.raises(ValueError, match=r"run lengths that fill 64x48 pixels, found .*annotation 1 of .*val2017.json"):
        datasets.records("coco_2017_val", coco, masks=True)
    assert len(datasets.records("coco_2017_val", coco)) == 1


@pytest.mark.parametrize(
    "mask",
    [
        [SQUARE],
        [[1, 2, 3, 4], SQUARE],  # detectron2 leaves out what has no three points
        [[1, 1, 1.5, 1, 1, 1.5]],
        {"counts": [0, 48 * 64], "size": [48, 64]},
        {"counts": TEXT, "size": [48, 64]},
    ],
)
def test_polygons_and_run_lengths_of_an_image_are_masks_and_are_evaluated(coco, mask):
    file = coco / "coco" / "annotations" / "instances_val2017.json"
    (good,) = json.loads(annotations())["annotations"]
    file.write_text(annotations(annotations=[good | {"segmentation": mask}]))
    assert datasets.records("coco_2017_val", coco, masks=True) == datasets.records("coco_2017_val", coco)
    own = mask if isinstance(mask, dict) else [ring for ring in mask if len(ring) > 4]
    if not isinstance(own, dict) or isinstance(own["counts"], list):
        own = mask_tools.frPyObjects(own, 48, 64)
        own = own if isinstance(own, dict) else own[0]
    found = {"image_id": 7, "category_id": 90, "bbox": [1, 2, 3, 4], "score": 1.0, "segmentation": own}
    assert evaluation.evaluate([found], file, "segm")["APmk"] == pytest.approx(100 if mask_tools.area(own) else 0)


def test_training_wants_polygons_of_objects_and_run_lengths_of_crowds_only(coco):
    (coco / "coco" / "val2017").rename(coco / "coco" / "train2017")
    (good,) = json.loads(annotations())["annotations"]
    whole = {"counts": [0, 48 * 64], "size": [48, 64]}
    for crowd, mask, fine in ((0, [SQUARE], 1), (0, whole, 0), (1, whole, 1), (1, {**whole, "counts": [1]}, 0)):
        one = good | {"segmentation": mask, "iscrowd": crowd}
        (coco / "coco" / "annotations" / "instances_train2017.json").write_text(annotations(annotations=[one]))
        if fine:
            assert datasets.records("coco_2017_train", coco, masks=True)
        else:
            with pytest.raises(ValueError, match="a polygon of three points"):
                datasets.records("coco_2017_train", coco, masks=True)
    one = good | {"segmentation": [[1, 2, 3, 4]]}  # left out, as detectron2 leaves it out
    (coco / "coco" / "annotations" / "instances_train2017.json").write_text(annotations(annotations=[one]))
    assert datasets.records("coco_2017_train", coco, masks=True)[0]["annotations"] == []


def test_run_lengths_are_read_from_the_text_that_pycocotools_writes():
    rng = np.random.default_rng(0)
    for rows, columns in ((1, 1), (7, 300), (60, 50), (1000, 1000)):
        for drawn in (np.zeros((rows, columns)), np.ones((rows, columns)), rng.random((rows, columns)) < 0.5):
            mask = np.asfortranarray(drawn, np.uint8)
            edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel("F"), [1 - mask[-1, -1]]])))
            expected = np.diff(edges, prepend=0).tolist()
            assert datasets.run_lengths(mask_tools.encode(mask)["counts"].decode()) == expected


@pytest.mark.parametrize(
    "split",
    [
        pytest.param(split, marks=real(f"coco/annotations/instances_{split}2017.json", f"coco/{split}2017"))
        for split in ("train", "val")
    ],
)
def test_every_mask_of_real_coco_is_one(split):
    name = f"coco_2017_{split}"
    assert datasets.records(name, REAL, masks=True) == datasets.records(name, REAL)


@pytest.mark.parametrize("key", ["neg_category_ids", "not_exhaustive_category_ids"])
def test_lvis_tests_on_images_that_say_what_is_not_there(coco, key):
    images = lvis(coco, "v1", "val", 1203)["images"]
    del images[0][key]
    lvis(coco, "v1", "val", 1203, images=images)
    with pytest.raises(ValueError, match=rf"a list {key} of every image to test on, found none of image 7"):
        datasets.records("lvis_v1_val", coco)


@pytest.fixture
def people(coco):
    """A person with a visible nose, one that nobody marked, and a crowd without keypoints."""
    nose = [10, 20, 2, *[0] * 48]
    one = {"image_id": 7, "category_id": 1, "bbox": [1, 2, 30, 40], "area": 12}
    content = json.loads(annotations())
    content["categories"] = [{"id": 1, "name": "person", "keypoints": KEYPOINTS}]
    content["annotations"] = [
        one | {"id": 1, "iscrowd": 0, "num_keypoints": 1, "keypoints": nose},
        one | {"id": 2, "iscrowd": 0, "num_keypoints": 0, "keypoints": []},
        one | {"id": 3, "iscrowd": 1},
    ]
    (coco / "coco" / "annotations" / "person_keypoints_val2017.json").write_text(json.dumps(content))
    return coco


def test_a_keypoint_is_the_middle_of_its_pixel_and_a_crowd_needs_none(people):
    (image,) = datasets.records("keypoints_coco_2017_val", people)
    marked, unmarked, crowd = (a["keypoints"] for a in image["annotations"])
    assert marked == [10.5, 20.5, 2, *[0.5, 0.5, 0] * 16]
    assert unmarked == crowd == [0.5, 0.5, 0] * 17
    assert [a["category_id"] for a in image["annotations"]] == [0, 0, 0]
    assert datasets.trainable([image], 1) == [image] and datasets.trainable([image], 2) == []


def test_wrong_keypoints_are_named(people):
    file = people / "coco" / "annotations" / "person_keypoints_val2017.json"
    good = file.read_text()
    content = json.loads(good)
    content["annotations"][0]["keypoints"] = [1, 2, 2]
    file.write_text(json.dumps(content))
    with pytest.raises(
        ValueError, match=r"17 keypoints, found 3 numbers in annotation 1 of .*person_keypoints_val2017.json"
    ):
        datasets.records("keypoints_coco_2017_val", people)
    for points in ("nose", {"nose": 1}, 51, ["1"] * 51, [[0]] * 51, [math.nan] * 51):
        content["annotations"][0]["keypoints"] = points
        file.write_text(json.dumps(content))
        with pytest.raises(
            ValueError, match=r"17 keypoints, found no list of numbers in annotation 1 of .*val2017.json"
        ):
            datasets.records("keypoints_coco_2017_val", people)
    content = json.loads(good)
    content["categories"][0]["keypoints"] = KEYPOINTS[::-1]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"expected the keypoints nose, left_eye"):
        datasets.records("keypoints_coco_2017_val", people)
    file.write_text(annotations())
    with pytest.raises(ValueError, match=r"COCO's person"):
        datasets.records("keypoints_coco_2017_val", people)
    with pytest.raises(FileNotFoundError, match=r"person_keypoints_train2017.json"):
        datasets.records("keypoints_coco_2017_train", people)


def lvis(root, version, split, count, **changes):
    """LVIS on the one image of the fixture `coco`, under the name v0.5 gives it."""
    content = {
        "images": [
            {
                "id": 7,
                "file_name": "COCO_val2014_000000000007.jpg",
                "coco_url": "http://images.cocodataset.org/val2017/7.jpg",
                "height": 48,
                "width": 64,
                "neg_category_ids": [9],
                "not_exhaustive_category_ids": [2],
            }
        ],
        "categories": [{"id": i, "name": f"thing {i}", "frequency": "rcf"[i % 3]} for i in range(1, count + 1)],
        "annotations": [
            {
                "id": i,
                "image_id": 7,
                "category_id": i,
                "bbox": [1, 2, 3, 4],
                "area": 12,
                "segmentation": [[1, 2, 4, 2, 4, 6, 1, 6]],
            }
            for i in (1, 2, 3)
        ],
    }
    (root / "lvis").mkdir(exist_ok=True)
    (root / "lvis" / f"lvis_{version}_{split}.json").write_text(json.dumps(content | changes))
    return content


@pytest.mark.parametrize(("version", "count"), [("v0.5", 1230), ("v1", 1203)])
def test_lvis_finds_its_images_by_their_url(coco, version, count):
    lvis(coco, version, "val", count)
    (image,) = datasets.records(f"lvis_{version}_val", coco)
    assert image["file_name"] == str(coco / "coco" / "val2017" / "7.jpg")
    assert [a["category_id"] for a in image["annotations"]] == [0, 1, 2]
    assert (image["neg_category_ids"], image["not_exhaustive_category_ids"]) == ([9], [2])
    assert datasets.category_id(f"lvis_{version}_val", 0) == 1
    before = datasets.digest([image])
    assert datasets.digest([image | {"neg_category_ids": []}]) != before


def test_wrong_lvis_is_named(coco):
    content = lvis(coco, "v1", "val", 1230)
    with pytest.raises(ValueError, match=r"1,203 classes of LVIS v1 with the ids 1 to 1203, found 1,230"):
        datasets.records("lvis_v1_val", coco)
    content = lvis(coco, "v1", "val", 1203)
    lvis(coco, "v1", "val", 1203, annotations=content["annotations"][:2])
    with pytest.raises(ValueError, match=r"found none of frequency r in"):
        datasets.records("lvis_v1_val", coco)
    lvis(coco, "v1", "val", 1203, images=[content["images"][0] | {"coco_url": None}])
    with pytest.raises(ValueError, match=r"coco_url like .*, found None for image 7"):
        datasets.records("lvis_v1_val", coco)
    stranger = content["images"][0] | {"coco_url": "http://images.cocodataset.org/val2017/8.jpg"}
    lvis(coco, "v1", "val", 1203, images=[stranger])
    with pytest.raises(FileNotFoundError, match=r"val2017/8.jpg"):
        datasets.records("lvis_v1_val", coco)
    with pytest.raises(FileNotFoundError, match=r"lvis_v0.5_val.json, found lvis_v1_val.json"):
        datasets.records("lvis_v0.5_val", coco)


@pytest.mark.parametrize("split", ["train", "val"])
def test_lvis_has_neither_polygons_of_two_points_nor_crowds(coco, split):
    """detectron2's load_lvis_json asserts the one and does not read the other."""
    content = lvis(coco, "v1", split, 1203)
    first, *others = content["annotations"]
    for shape in ([[1, 2, 3, 4]], [[1, 2, 4, 2, 4, 6], [1, 2, 3, 4]]):
        lvis(coco, "v1", split, 1203, annotations=[first | {"segmentation": shape}, *others])
        for masks in (True, False):
            with pytest.raises(ValueError, match=rf"all that LVIS has, .* annotation 1 of .*lvis_v1_{split}.json"):
                datasets.records(f"lvis_v1_{split}", coco, masks)
    lvis(coco, "v1", split, 1203, annotations=[first | {"iscrowd": 1, "ignore": 1}, *others])
    (image,) = datasets.records(f"lvis_v1_{split}", coco, masks=True)
    assert [a["iscrowd"] for a in image["annotations"]] == [0, 0, 0]
    lvis(coco, "v1", split, 1203, images=[content["images"][0] | {"neg_category_ids": ["9"]}])
    with pytest.raises(ValueError, match=r"a list neg_category_ids .*found \['9'\] of image 7"):
        datasets.records(f"lvis_v1_{split}", coco)


def test_an_unknown_dataset_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="objects365"):
        datasets.records("objects365_train", tmp_path)
