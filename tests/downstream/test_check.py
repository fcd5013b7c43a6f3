"""What is wrong with a dataset is listed with its file, never a traceback: missing, broken, hostile; by layout."""

import copy
import dataclasses
import errno
import hashlib
import json
import math
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.helpers.labels import labels as LABELS
from cityscapesscripts.preparation.json2labelImg import createLabelImage
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper
from detectron2.data.transforms import NoOpTransform
from PIL import Image

from bench import catalog, journey
from downstream import check, classification, datasets, segmentation, synthetic, train_ids
from results import groups

TASKS = {name: catalog.load("task", name).TASK for name in catalog.names("task")}
NUMBER = "000003"  # a picture of VOC2007's val
XML = f"VOC2007/Annotations/{NUMBER}.xml"
JPG = f"VOC2007/JPEGImages/{NUMBER}.jpg"
BOMB = '<!DOCTYPE b [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 20}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


def nothing(task, root):
    """In place of an engine's own look at the data."""


def records(task, root):
    """The part of an engine's look at the data that reads annotations."""
    for name in (*task.settings["DATASETS.TRAIN"], *task.settings["DATASETS.TEST"]):
        datasets.records(name, root, bool(task.settings.get("MODEL.MASK_ON")))


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("drawn")
    synthetic.synthesize(root, 2, voc=2, coco=12, cityscapes=2, imagenet=2, side=96)
    return root


@pytest.fixture
def data(drawn, tmp_path):
    """A copy to damage."""

    def copied(*names: str) -> Path:
        for name in names:
            shutil.copytree(drawn / name, tmp_path / "data" / name)
        return tmp_path / "data"

    return copied


def found(task: str, root: Path, engine=nothing) -> dict:
    report = check.check(TASKS[task], root, engine)
    json.dumps(report, allow_nan=False)
    check.described(report).encode()
    assert report["runs"] == all(f["level"] == "notice" for f in report["findings"])
    for finding in report["findings"]:
        assert finding["reason"] and finding["mend"]
    return report


def errors(report: dict) -> set[tuple[str, str]]:
    return {(f["kind"], f["file"]) for f in report["findings"] if f["level"] == "error"}


@pytest.mark.parametrize("task", TASKS)
def test_drawn_data_are_whole_and_reduced(drawn, task):
    report = found(task, drawn)
    assert report["runs"] and report["reduced"], check.described(report)
    assert set(report["counts"]) <= {"reduced", "box of no size", "keypoint outside"}
    assert all(0 < split["images"] < split["expected"] for split in report["splits"].values())


def test_expected_counts_are_those_that_keep_a_record_in_the_papers_tables():
    assert {name: check.EXPECTED[name] for name in groups.SPLITS} == groups.SPLITS
    sums = {"voc_c4": 5011 + 11540, "coco_fpn_1x": 118287, "voc07_svm": 5011, "voc_semantic": 10582}
    for task, images in sums.items():
        assert images in groups.IMAGES[task][0]
    for names, task in {
        ("voc_train_aug", "voc_val"): "voc_semantic",
        ("imagenet_train", "imagenet_val"): "imagenet_knn",
    }.items():
        assert groups.IMAGES[task] == ((check.EXPECTED[names[0]],), check.EXPECTED[names[1]])
    assert len(datasets.LVIS_CLASSES) == 2 and datasets.LVIS_CLASSES["v0.5"] == 1230


def test_whole_sets_are_not_reduced_and_others_are():
    voc = {"voc_2007_trainval": 5011, "voc_2012_trainval": 11540, "voc_2007_test": 4952}
    assert groups.whole("voc_c4", {"splits": voc, "train": 16551, "test": 4952})
    assert not groups.whole("voc_c4", {"splits": voc | {"voc_2007_test": 4951}, "train": 16551, "test": 4952})
    people = {"keypoints_coco_2017_train": 118287, "keypoints_coco_2017_val": 5000}
    assert groups.whole("coco_keypoint_2x", {"splits": people, "train": 56599, "test": 5000})
    surfaces = {"densepose_coco_2014_train": 26437, "densepose_coco_2014_valminusminival": 5984}
    surfaces |= {"densepose_coco_2014_minival": 1508}
    assert groups.whole("coco_densepose", {"splits": surfaces, "train": 32421, "test": 1508})
    assert groups.whole("imagenet_knn", {"train": 1281167, "test": 50000})
    assert not groups.whole("imagenet_knn", {"train": 1281166, "test": 50000})
    assert not groups.whole("a_task_of_ones_own", {"train": 1, "test": 1})


def test_of_the_lists_of_labelled_images_only_the_published_one_is_the_papers_data(tmp_path, monkeypatch):
    files = tuple(tmp_path / f"imagenet/train/n0/n0_{i}.JPEG" for i in range(200))
    split = classification.Split(files, (0,) * 200, (9,) * 200)

    def stands():
        about = classification._labelled(TASKS["imagenet_semi_1"], tmp_path, split, ["n0"])[1]
        return groups.whole("imagenet_semi_1", {"train": 12811, "test": 50000, **about})

    assert not stands()  # drawn
    (tmp_path / "imagenet_subsets").mkdir()
    (tmp_path / "imagenet_subsets/1percent.txt").write_text("n0_1.JPEG\n")
    assert not stands()
    monkeypatch.setitem(classification.SIMCLR, 1, hashlib.sha256(b"n0_1.JPEG\n").hexdigest())
    assert stands()
    assert not groups.whole("imagenet_semi_1", {"train": 12811, "test": 50000, "labels": None})


def truncated(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 2 // 3])


def fifo(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def loop(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.name)


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def huge(file: Path) -> None:
    """A PNG of 12,000 x 12,000 pixels in a few kilobytes."""
    Image.new("1", (12_000, 12_000)).save(file, "png")


def on_its_side(file: Path) -> None:
    """A JPEG with a second picture, whose EXIF orientation turns it."""
    exif = Image.Exif()
    exif[274] = 6
    with Image.open(file) as picture:
        whole = picture.convert("RGB")
    assert whole.width != whole.height
    whole.save(file, "MPO", save_all=True, append_images=[whole], exif=exif)


IMAGE_DAMAGE = {
    "gone": (Path.unlink, "missing image"),
    "truncated": (truncated, "broken image"),
    "empty": (lambda f: f.write_bytes(b""), "broken image"),
    "text": (lambda f: f.write_text("<html>not found</html>"), "broken image"),
    "a fifo": (fifo, "broken image"),
    "a link to itself": (loop, "broken image"),
    "a folder": (folder, "broken image"),
    "huge": (huge, "broken image"),
    "of another size": (lambda f: Image.new("RGB", (5, 7)).save(f), "size"),
    "on its side": (on_its_side, "size"),
}


@pytest.mark.parametrize("damage", IMAGE_DAMAGE)
def test_a_damaged_image_is_named(data, damage):
    root = data("VOC2007", "VOC2012")
    harm, kind = IMAGE_DAMAGE[damage]
    harm(root / JPG)
    assert errors(found("voc_c4", root)) == {(kind, JPG)}


ANNOTATION_DAMAGE = {
    "gone": (lambda f, t: f.unlink(), "missing annotation"),
    "truncated": (lambda f, t: f.write_text(t[: len(t) // 2]), "annotation"),
    "empty": (lambda f, t: f.write_text(""), "annotation"),
    "with entities": (lambda f, t: f.write_text(f"{BOMB}]><annotation>&i;</annotation>"), "annotation"),
    "with a file of the system": (
        lambda f, t: f.write_text('<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>'),
        "annotation",
    ),
    "in UTF-16 with entities": (lambda f, t: f.write_bytes(f"{BOMB}]><a>&i;</a>".encode("utf-16")), "annotation"),
    "in no encoding": (lambda f, t: f.write_text("<?xml version='1.0' encoding='klingon'?><a/>"), "annotation"),
    "deep": (lambda f, t: f.write_text("<a>" * 100_000), "annotation"),
    "bytes": (lambda f, t: f.write_bytes(bytes(range(256))), "annotation"),
    "without size": (lambda f, t: f.write_text(t.replace("size", "sighs")), "annotation"),
    "of no width": (lambda f, t: f.write_text(t.replace("<width>", "<width>0</width><width>")), "annotation"),
    "a fifo": (lambda f, t: fifo(f), "annotation"),
    "a link to itself": (lambda f, t: loop(f), "annotation"),
    "of a unicorn": (lambda f, t: f.write_text(t.replace("<name>", "<name>unicorn\x07</name><name>".replace("\x07", ""), 1)), "class"),
    "with a box of nan": (lambda f, t: f.write_text(t.replace("<xmin>", "<xmin>nan</xmin><xmin>", 1)), "box"),
    "with a box of words": (lambda f, t: f.write_text(t.replace("<xmin>", "<xmin>left</xmin><xmin>", 1)), "box"),
    "without a box": (lambda f, t: f.write_text(t.replace("bndbox", "box")), "box"),
    "difficult to say": (lambda f, t: f.write_text(t.replace("<difficult>", "<difficult>quite</difficult><difficult>", 1)), "box"),
}  # fmt: skip


@pytest.mark.parametrize("damage", ANNOTATION_DAMAGE)
def test_a_damaged_voc_annotation_is_named_and_a_run_refuses_it(data, damage):
    root = data("VOC2007", "VOC2012")
    harm, kind = ANNOTATION_DAMAGE[damage]
    file = root / XML
    harm(file, file.read_text())
    assert errors(found("voc_c4", root)) == {(kind, XML)}
    if damage != "a fifo":
        with pytest.raises((ValueError, OSError)):
            records(TASKS["voc_c4"], root)


def test_boxes_outside_and_of_no_size_are_notices(data):
    root = data("VOC2007", "VOC2012")
    file = root / XML
    text = file.read_text()
    file.write_text(text.replace("<xmin>", "<xmin>-5</xmin><xmin>", 1))
    report = found("voc_c4", root, records)
    assert report["runs"] and report["counts"]["box outside"] == 1
    box = "<xmin>4</xmin><xmax>2</xmax><ymin>4</ymin><ymax>9</ymax>"
    file.write_text(text.replace("<bndbox>", f"<bndbox>{box}", 1))
    report = found("voc_c4", root, records)
    assert report["runs"] and report["counts"]["box of no size"] == 1


def test_a_split_that_is_missing_empty_repeated_or_no_text_is_named(data):
    root = data("VOC2007", "VOC2012")
    name = "VOC2007/ImageSets/Main/test.txt"
    for content in (b"", b"\n\n", b"\xff\xfe\x00", b"000005\n000005\n000006\n"):
        (root / name).write_bytes(content)
        assert errors(found("voc_c4", root)) == {("list", name)}
    (root / name).unlink()
    assert errors(found("voc_c4", root)) == {("list", name)}
    shutil.rmtree(root / "VOC2007")
    assert {kind for kind, _ in errors(found("voc_c4", root))} == {"layout"}
    assert {kind for kind, _ in errors(found("voc_c4", root / "nowhere"))} == {"layout"}


def test_names_that_leave_the_folder_are_not_followed(data):
    root = data("VOC2007", "VOC2012")
    with (root / "VOC2007/ImageSets/Main/test.txt").open("a") as file:
        file.write("../JPEGImages/000001\n/etc/passwd\n")
    assert found("voc_c4", root)["counts"]["missing image"] == 2


def test_an_image_in_training_and_test_is_told(data):
    root = data("VOC2007", "VOC2012")
    lists = root / "VOC2007/ImageSets/Main"
    (lists / "test.txt").write_text((lists / "trainval.txt").read_text())
    assert found("voc_c4", root)["counts"]["leak"] == 4


def test_a_kind_is_listed_so_often_and_the_rest_counted(data):
    root = data("VOC2007", "VOC2012")
    with (root / "VOC2007/ImageSets/Main/test.txt").open("a") as file:
        file.writelines(f"9{i:05d}\n" for i in range(30))
    report = found("voc_c4", root)
    listed = [f for f in report["findings"] if f["kind"] == "missing image"]
    assert (len(listed), report["counts"]["missing image"]) == (check.KEPT, 30)
    assert "missing image: and 10 more" in check.described(report)


def test_a_name_that_is_no_utf8_can_be_printed(data):
    root = data("imagenet")
    name = os.fsdecode(b"n01530575_\xff\xfe\x1b[31m.JPEG")
    (root / "imagenet/train/n01530575" / name).write_bytes(b"no image")
    report = found("imagenet_linear", root)
    assert errors(report) == {("broken image", "imagenet/train/n01530575/n01530575_\\udcff\\udcfe\\x1b[31m.JPEG")}


def test_random_bytes_in_images_are_findings_or_nothing(data):
    root = data("imagenet")
    rng = np.random.default_rng(0)
    for file in sorted((root / "imagenet").rglob("*.JPEG")):
        content = bytearray(file.read_bytes())
        for place in rng.integers(0, len(content), 20):
            content[place] = rng.integers(256)
        file.write_bytes(content[: rng.integers(1, len(content))] if rng.random() < 0.5 else content)
    assert {kind for kind, _ in errors(found("imagenet_linear", root))} <= {"broken image"}


# COCO's format

HOSTILE = (None, [], {}, "x", True, -1, 0.5, math.nan, math.inf, 10**400, [[]], {"id": []}, "\ud800")
FILES = {
    "coco_fpn_1x": "coco/annotations/instances_val2017.json",
    "coco_keypoint_2x": "coco/annotations/person_keypoints_val2017.json",
    "coco_densepose": "coco/annotations/densepose_minival2014.json",
    "lvis_v05_1x": "lvis/lvis_v0.5_val.json",
}


def places(value, path=()):
    """Every place in a JSON value, in lists only the first two."""
    yield path
    for key in value if isinstance(value, dict) else range(min(2, len(value))) if isinstance(value, list) else ():
        yield from places(value[key], (*path, key))


@pytest.mark.parametrize("task", FILES)
def test_any_value_of_any_type_anywhere_is_a_finding_or_harmless(data, task):
    root = data("coco", "lvis", "densepose")
    file = root / FILES[task]
    whole = json.loads(file.read_text())
    whole["images"], kept = whole["images"][:2], whole["images"][2:]
    shown = {image["id"] for image in whole["images"]}
    if task != "lvis_v05_1x":
        whole["annotations"] = [a for a in whole["annotations"] if a["image_id"] in shown] or whole["annotations"][:2]
    del kept
    if task == "lvis_v05_1x":
        whole["images"] = json.loads(file.read_text())["images"]  # it wants rare, common and frequent objects
    file.write_text(json.dumps(whole))
    assert found(task, root, records)["runs"]
    tried = 0
    for path in places(whole):
        if any(key in path for key in ("info", "licenses", "supercategory", "skeleton")):
            continue
        step = 3 if task != "lvis_v05_1x" else 6  # its 1,230 classes take long to write and read
        for value in HOSTILE[tried % step :: step]:
            changed = copy.deepcopy(whole) if path else value
            inner = changed
            for key in path[:-1]:
                inner = inner[key]
            if path:
                inner[path[-1]] = value
            file.write_text(json.dumps(changed))
            report = check_only(task, root)
            assert "run" not in report["counts"], (path, value, check.described(report))
        tried += 1
    assert tried > 40


def test_files_of_the_surface_that_are_missing_are_named_with_their_address(data):
    root = data("coco")
    report = found("coco_densepose", root)
    names = ("UV_symmetry_transforms.mat", "SMPL_subdiv.mat", "SMPL_SUBDIV_TRANSFORM.mat", "Pdist_matrix.pkl")
    assert errors(report) == {("layout", f"densepose/{name}") for name in names}
    assert "fetch https://dl.fbaipublicfiles.com/densepose/data/Pdist_matrix.pkl" in check.described(report)


@pytest.mark.parametrize("name", ["UV_symmetry_transforms.mat", "Pdist_matrix.pkl"])
def test_a_file_of_the_surface_that_was_cut_short_is_named_before_a_run(data, name):
    root = data("coco", "densepose")
    assert not errors(found("coco_densepose", root))
    file = root / "densepose" / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    report = found("coco_densepose", root)
    assert errors(report) == {("layout", "densepose")}
    assert f"{file}; fetch it again" in check.described(report)


def test_two_of_dense_poses_annotations_may_share_an_id(data):
    root = data("coco", "densepose")
    file = root / FILES["coco_densepose"]
    content = json.loads(file.read_text())
    content["annotations"][1]["id"] = content["annotations"][0]["id"]
    file.write_text(json.dumps(content))
    report = found("coco_densepose", root, records)
    assert report["runs"] and "annotation" in report["counts"]


def check_only(task: str, root: Path) -> dict:
    """`found`, without opening the images."""
    findings = check.Findings(root)
    for _ in check._splits(TASKS[task], root, findings):
        pass
    if not findings.failures:
        try:
            records(TASKS[task], root)
        except Exception as error:
            findings.add("run", root, repr(error), "-")
    report = {
        "task": task,
        "data": "",
        "splits": {},
        "findings": findings.kept,
        "counts": findings.counts,
        "label_train_ids_made": 0,
    }
    return report | {"runs": not findings.failures, "reduced": False}


ODD = {  # of one annotation or one image; whether a run takes it, in a training split and in one to test on
    "iscrowd true": ("annotations", {"iscrowd": True}, None, None),
    "iscrowd in words": ("annotations", {"iscrowd": "1"}, False, False),
    "iscrowd null": ("annotations", {"iscrowd": None}, False, False),
    "iscrowd of no image": ("annotations", {"iscrowd": "1", "image_id": 10**7}, False, False),
    "ignored": ("annotations", {"ignore": 1}, None, None),
    "an id of fractions": ("annotations", {"image_id": 1.0}, False, False),
    "an id that numpy has not": ("annotations", {"id": 2**63}, True, False),
    "a large id": ("annotations", {"id": 2**53 + 1}, True, True),
    "of no image": ("annotations", {"image_id": "seven"}, True, True),
    "of a class in a list": ("annotations", {"category_id": [1]}, False, False),
    "of two points": ("annotations", {"segmentation": [[1, 1, 5, 5]]}, None, False),
    "one of two points": ("annotations", {"segmentation": [[1, 1, 5, 5], [1, 1, 9, 1, 9, 9]]}, None, None),
    "of no points": ("annotations", {"segmentation": []}, False, False),
    "an image of fractions": ("images", {"id": 7.5}, False, False),
    "an image's id that numpy has not": ("images", {"id": 2**63}, False, False),
    "an image's id in words": ("images", {"id": "seven"}, False, False),  # beside numbers
    "true as an image": ("images", {"id": True}, False, False),
    "outside": ("images", {"file_name": "../val2017/1.jpg", "coco_url": "../1.jpg"}, False, False),
}


@pytest.mark.parametrize("what", ODD)
@pytest.mark.parametrize("task", ["coco_fpn_1x", "lvis_v05_1x"])
def test_what_is_an_error_here_a_run_refuses_and_what_is_a_notice_it_takes(data, task, what):
    root = data("coco", "lvis")
    of, changes, *runs = ODD[what]
    lvis = task == "lvis_v05_1x"
    for split, taken in zip(("train", "val"), runs, strict=True):
        if taken is None:  # of COCO and LVIS
            taken = what in ("ignored",) if lvis else what != "ignored"
            taken |= what == "iscrowd true"
        file = root / FILES[task].replace("val", split)
        whole = file.read_text()
        content = json.loads(whole)
        if of == "annotations" and what != "iscrowd true":
            changes = {"iscrowd": 0} | changes
        content[of][0] |= changes
        file.write_text(json.dumps(content))
        report = check_only(task, root)
        refused = False
        try:
            records(TASKS[task], root)
        except (ValueError, FileNotFoundError):
            refused = True
        assert report["runs"] is taken and refused is not taken, check.described(report)
        assert "run" not in report["counts"]
        file.write_text(whole)


def test_what_detectron2_leaves_out_of_a_training_or_turns_is_said_so(data):
    root = data("coco")
    file = root / "coco/annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    before = sum(len(r["annotations"]) for r in datasets.records("coco_2017_train", root, masks=True))
    content["annotations"][0] |= {"segmentation": [[1, 1, 5, 5]], "iscrowd": 0}
    content["annotations"][1] |= {"bbox": [30, 30, -9, -9], "iscrowd": 0}
    file.write_text(json.dumps(content))
    report = found("coco_fpn_1x", root, records)
    said = {f["kind"]: f["mend"] for f in report["findings"]}
    assert report["runs"] and "leaves the object out" in said["flat mask"]
    assert "between its corners" in said["box of no size"]
    kept = datasets.records("coco_2017_train", root, masks=True)
    assert sum(len(r["annotations"]) for r in kept) == before - 1
    # what it does with a box that is inside out
    mapper = DatasetMapper(get_cfg(), is_train=True, augmentations=[NoOpTransform()], image_format="BGR")
    image = next(r for r in kept if any(a["bbox"][2] < 0 for a in r["annotations"]))
    image["annotations"] = [a for a in image["annotations"] if a["bbox"][2] < 0]
    assert mapper(image)["instances"].gt_boxes.tensor.tolist() == [[21, 21, 30, 30]]


def test_images_may_be_called_by_texts(data):
    root = data("coco")
    for file in (root / "coco/annotations").glob("*.json"):
        content = json.loads(file.read_text())
        for entry in content["images"]:
            entry["id"] = f"photo {entry['id']}"
        for entry in content["annotations"]:
            entry["image_id"] = f"photo {entry['image_id']}"
        file.write_text(json.dumps(content))
    for task in ("coco_fpn_1x", "coco_keypoint_2x"):
        assert found(task, root, records)["runs"]


def test_a_file_of_another_name_is_offered_and_one_in_a_folder_below_found(data):
    root = data("VOC2007", "VOC2012")
    (root / JPG).rename((root / JPG).with_suffix(".JPEG"))
    (finding,) = (f for f in found("voc_c4", root)["findings"] if f["level"] == "error")
    assert finding["file"] == JPG and finding["reason"] == f"trainval.txt lists it, {NUMBER}.JPEG is there"
    assert finding["mend"] == "give it the name that is listed"
    for file in ((root / JPG).with_suffix(".JPEG"), root / XML):
        (file.parent / "more").mkdir()
        file.rename(file.parent / "more" / f"{NUMBER}.{'xml' if file.suffix == '.xml' else 'jpg'}")
    listed = root / "VOC2007/ImageSets/Main/trainval.txt"
    listed.write_bytes(b"\xef\xbb\xbf" + listed.read_bytes().replace(NUMBER.encode(), f"more/{NUMBER}".encode()))
    report = found("voc_c4", root, records)
    assert report["runs"] and report["splits"]["voc_2007_trainval"]["images"] == 4


def test_what_macos_leaves_behind_and_an_empty_city_are_nothing(data):
    root = data("cityscapes")
    for kind in ("leftImg8bit", "gtFine"):
        for file in [*(root / "cityscapes" / kind).rglob("*.png")]:
            file.with_name(f"._{file.name}").write_bytes(b"Mac OS X")
    (root / "cityscapes/leftImg8bit/train/zurich").mkdir()
    for task in ("cityscapes_semantic", "cityscapes_instance"):
        report = found(task, root, lambda task, root: journey.engine(task).found(task, root))
        assert report["runs"] and set(report["counts"]) == {"reduced"}
    for file in (root / "cityscapes/gtFine").rglob("*_labelTrainIds.png"):
        file.unlink()
    assert train_ids.make(root / "cityscapes") == (4, {})


@pytest.mark.parametrize("task", FILES)
def test_a_json_file_that_is_cut_deep_or_empty_is_named(data, task):
    root = data("coco", "lvis", "densepose")
    file = root / FILES[task]
    text = file.read_text()
    for content in (text[:-9], "", "[" * 200_000, "null", "[]", '{"images": []}', '{"images": 1e999}', "\x00"):
        file.write_text(content)
        assert errors(found(task, root)) == {("annotation", FILES[task])}
    fifo(file)
    assert errors(found(task, root)) == {("annotation", FILES[task])}
    file.unlink()
    assert errors(found(task, root)) == {("annotation", FILES[task])}


def test_coco_images_and_objects_are_checked_one_by_one(data):
    root = data("coco")
    file = root / FILES["coco_fpn_1x"]
    whole = json.loads(file.read_text())
    training = root / "coco/annotations/instances_train2017.json"
    objects = json.loads(training.read_text())
    first = next(a for a in objects["annotations"] if not a["iscrowd"])
    objects["annotations"] += [
        first | {"id": 1, "bbox": [-4, 0, 5, 5]},
        first | {"id": 2, "bbox": [4, 4, 0, 5]},
        first | {"id": 3, "image_id": 10**6},
        first | {"id": 4, "segmentation": []},
        first | {"id": 5, "segmentation": {"counts": [1, 2], "size": [1, 3]}},
    ]
    training.write_text(json.dumps(objects))
    whole["images"][0]["width"] += 1
    (root / "coco/val2017" / whole["images"][1]["file_name"]).unlink()
    file.write_text(json.dumps(whole))
    report = found("coco_fpn_1x", root)
    counts = {
        "box outside": 1,
        "box of no size": 1,
        "annotation of no image": 1,
        "mask": 2,
        "size": 1,
        "missing image": 1,
    }
    assert report["counts"] == counts | {"reduced": 2}
    assert "mask" not in found("coco_fpn_1x", root)["counts"] or {k for k, _ in errors(report)} == {
        "mask",
        "size",
        "missing image",
    }


@pytest.mark.parametrize("task", sorted(FILES.keys() - {"coco_densepose"}))
def test_annotations_that_share_an_id_are_named(data, task):
    root = data("coco", "lvis")
    file = root / FILES[task]
    content = json.loads(file.read_text())
    content["annotations"][1]["id"] = content["annotations"][0]["id"]
    file.write_text(json.dumps(content))
    report = check_only(task, root)
    assert report["counts"]["annotation"] == 1 and errors(report) == {("annotation", FILES[task])}
    with pytest.raises(ValueError, match="two annotations with the id"):
        records(TASKS[task], root)


def test_another_versions_lvis_is_named(data):
    root = data("coco", "lvis")
    (root / "lvis/lvis_v1_val.json").rename(root / "lvis/lvis_v0.5_val.json")
    report = found("lvis_v05_1x", root)
    assert any("1,203 categories, expected 1,230" in f["reason"] for f in report["findings"])


# Segmentation


def test_voc_segmentation_names_missing_maps_and_a_leak(data):
    root = data("VOC2012")
    lists = root / "VOC2012/ImageSets/Segmentation"
    val = (lists / "val.txt").read_text().split()
    with (lists / "trainaug.txt").open("a") as file:
        file.write(f"{val[0]}\n2008_000001\n")
    shutil.copy(root / "VOC2012/JPEGImages" / f"{val[0]}.jpg", root / "VOC2012/JPEGImages/2008_000001.jpg")
    (root / "VOC2012/SegmentationClass" / f"{val[1]}.png").unlink()
    assert errors(found("voc_semantic", root)) == {
        ("leak", "VOC2012/ImageSets/Segmentation/trainaug.txt"),
        ("missing label map", "VOC2012/SegmentationClassAug/2008_000001.png"),
        ("missing label map", f"VOC2012/SegmentationClass/{val[1]}.png"),
    }


def test_a_label_map_of_other_classes_colours_or_size_is_named(data):
    root = data("VOC2012")
    name = f"VOC2012/SegmentationClass/{(root / 'VOC2012/ImageSets/Segmentation/val.txt').read_text().split()[0]}.png"
    with Image.open(root / name) as whole:
        size = whole.size
    for wrong in (Image.new("L", size, 21), Image.new("RGB", size), Image.new("L", (4, 4)), Image.new("I;16", size)):
        wrong.save(root / name)
        assert errors(found("voc_semantic", root)) == {("label map", name)}
    huge(root / name)
    assert errors(found("voc_semantic", root)) == {("label map", name)}


def test_a_label_map_has_the_size_that_the_image_is_turned_to(data):
    root = data("VOC2012")
    name = (root / "VOC2012/ImageSets/Segmentation/val.txt").read_text().split()[0]
    on_its_side(root / f"VOC2012/JPEGImages/{name}.jpg")
    label = root / f"VOC2012/SegmentationClass/{name}.png"
    assert errors(found("voc_semantic", root)) == {("label map", str(label.relative_to(root)))}
    with Image.open(label) as picture:
        whole = picture.transpose(Image.Transpose.ROTATE_270)
    whole.save(label)
    assert found("voc_semantic", root, segmentation.found)["runs"]


def test_a_photograph_that_opencv_does_not_take_is_named_where_a_segmentation_reads_it(data):
    root = data("cityscapes")
    file = sorted(root.glob("cityscapes/leftImg8bit/val/*/*.png"))[0]
    file.write_bytes(file.read_bytes()[:-20])  # of its end and of its pixels' checksum
    assert check.opened(str(file))
    assert errors(found("cityscapes_semantic", root)) == {("broken image", str(file.relative_to(root)))}


@pytest.mark.parametrize("kept", ["labelIds.png", "polygons.json"])
def test_label_train_ids_are_missed_offered_and_made_as_cityscapesscripts_makes_them(data, kept, capsys):
    root = data("cityscapes")
    maps = sorted((root / "cityscapes").rglob("*_labelTrainIds.png"))
    for file in maps:
        file.unlink()
    report = found("cityscapes_semantic", root)
    assert report["counts"]["no labelTrainIds"] == 4 and not report["runs"]
    assert "--make-label-train-ids" in report["findings"][0]["mend"]
    for file in (root / "cityscapes").rglob("*_gtFine_labelIds.png" if kept == "polygons.json" else "*_polygons.json"):
        file.unlink()
    assert train_ids.make(root / "cityscapes") == (4, {}) and len(maps) == 4
    assert train_ids.make(root / "cityscapes") == (0, {})
    assert found("cityscapes_semantic", root)["runs"]
    for file in maps:
        stem = str(file).removesuffix("labelTrainIds.png")
        if kept == "polygons.json":
            annotation = Annotation()
            annotation.fromJsonFile(f"{stem}polygons.json")
            assert (cv2.imread(str(file), -1) == np.array(createLabelImage(annotation, "trainIds"))).all()
        else:
            to = {label.id: label.trainId for label in LABELS}
            ids = cv2.imread(f"{stem}labelIds.png", -1)
            assert (cv2.imread(str(file), -1) == np.vectorize(to.get)(ids)).all()


def test_the_label_table_is_cityscapesscripts():
    assert {label.name: label.id for label in LABELS} == train_ids.LABELS
    assert {label.id: label.trainId for label in LABELS if label.trainId not in (255, -1)} == train_ids.TRAIN_IDS


def test_groups_deleted_objects_and_licence_plates_are_drawn_as_cityscapesscripts_draws_them(tmp_path):
    square = [[2, 2], [20, 2], [20, 20], [2, 20]]
    things = [
        ("cargroup", {}),
        ("license plate", {}),
        ("road", {"deleted": 1}),
        ("polegroup", {}),
        ("moon", {"deleted": 1}),
    ]
    objects = [
        {"label": n, "polygon": [[x + 5 * i, y] for x, y in square]} | more for i, (n, more) in enumerate(things)
    ]
    file = tmp_path / "a_polygons.json"
    file.write_text(json.dumps({"imgWidth": 60, "imgHeight": 30, "objects": objects}))
    annotation = Annotation()
    annotation.fromJsonFile(str(file))
    assert (train_ids.drawn(file) == np.array(createLabelImage(annotation, "ids"))).all()
    for wrong in ({"label": "moon", "polygon": square}, {"label": "road", "polygon": [[1, 1]]}, {"label": "road"}):
        file.write_text(json.dumps({"imgWidth": 60, "imgHeight": 30, "objects": [*objects, wrong]}))
        with pytest.raises(ValueError, match=r"no Cityscapes polygons: .* in object 6"):
            train_ids.drawn(file)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"imgWidth": 1e9, "imgHeight": 1e9, "objects": []}', '{"imgWidth": "a"}']
)
def test_broken_polygons_are_named_and_the_others_drawn(data, content):
    root = data("cityscapes")
    stem = next((root / "cityscapes/gtFine/val").rglob("*_polygons.json"))
    stem.with_name(stem.name.replace("polygons.json", "labelIds.png")).unlink()
    for file in (root / "cityscapes").rglob("*_labelTrainIds.png"):
        file.unlink()
    stem.write_text(content)
    report = check.check(TASKS["cityscapes_semantic"], root, nothing, make_label_train_ids=True)
    assert report["label_train_ids_made"] == 3
    assert ("label map", str(stem.relative_to(root))) in errors(report)


def test_a_folder_that_takes_no_file_is_named_and_what_is_in_it_not_blamed(data, monkeypatch):
    root = data("cityscapes")
    (file, *_) = (root / "cityscapes/gtFine/val").rglob("*_labelTrainIds.png")
    file.unlink()

    def refused(*_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(file))

    monkeypatch.setattr(Image.Image, "save", refused)
    report = check.check(TASKS["cityscapes_semantic"], root, nothing, make_label_train_ids=True)
    (wrong,) = (f for f in report["findings"] if f["kind"] == "label map")
    assert wrong["file"] == str(file.relative_to(root)) and "Read-only file system" in wrong["reason"]
    assert "write there" in wrong["mend"]


@pytest.mark.parametrize("kept", ["labelIds.png", "polygons.json"])
def test_no_label_map_of_another_size_than_its_photograph_is_made(data, kept):
    root = data("cityscapes")
    photograph = next((root / "cityscapes/leftImg8bit/val").rglob("*_leftImg8bit.png"))
    with Image.open(photograph) as picture:
        whole = picture.copy()
    whole.resize((64, 32)).save(photograph)
    for file in (root / "cityscapes").rglob("*.*"):
        if file.name.endswith("_labelTrainIds.png") or ("_gtFine_" in file.name and not file.name.endswith(kept)):
            file.unlink()
    report = check.check(TASKS["cityscapes_semantic"], root, nothing, make_label_train_ids=True)
    (wrong,) = (f for f in report["findings"] if f["kind"] == "label map")
    assert report["label_train_ids_made"] == 3 and wrong["file"].endswith(kept)
    assert wrong["reason"] == f"expected the 64x32 pixels of {photograph.name}, found {whole.width}x{whole.height}"
    whole.save(photograph)
    assert train_ids.make(root / "cityscapes") == (1, {})
    assert found("cityscapes_semantic", root)["runs"]


def test_an_instance_map_of_8_bits_is_named(data):
    root = data("cityscapes")
    file = next((root / "cityscapes/gtFine/val").rglob("*_instanceIds.png"))
    Image.fromarray(np.zeros((80, 160), np.uint8)).save(file)
    assert errors(found("cityscapes_instance", root)) == {("label map", str(file.relative_to(root)))}


# ImageNet


def test_imagenet_names_classes_of_one_split_empty_ones_loops_and_flat_folders(data):
    root = data("imagenet")
    shutil.rmtree(root / "imagenet/val/n01530575")
    for file in (root / "imagenet/train/n02099712").iterdir():
        file.unlink()
    (root / "imagenet/train/n02123045/again").symlink_to(".")
    assert errors(found("imagenet_linear", root)) == {
        ("class", "imagenet/train/n01530575"),
        ("class", "imagenet/train/n02099712"),
        ("layout", "imagenet/train/n02123045/again"),
    }
    shutil.rmtree(root / "imagenet/val")
    (root / "imagenet/val").mkdir()
    (root / "imagenet/val/a.JPEG").write_bytes(b"x")
    assert ("layout", "imagenet/val") in errors(found("imagenet_linear", root))


def test_a_list_of_labelled_images_that_are_not_there_is_named(data):
    root = data("imagenet")
    name = "imagenet/subsets/10percent.txt"
    with (root / name).open("a") as file:
        file.write("n01530575_99.JPEG\n")
    assert errors(found("imagenet_semi_10", root)) == {("missing image", name)}
    (root / name).unlink()
    report = found("imagenet_semi_10", root)
    assert report["runs"] and report["counts"]["list"] == 1


def test_what_only_the_engine_sees_is_a_finding_too(drawn):
    def engine(task, root):
        raise KeyError("something")

    report = found("voc_c4", drawn, engine)
    assert not report["runs"] and report["counts"]["run"] == 1


@pytest.mark.parametrize("key", ["area", "id"])
def test_what_only_the_evaluation_needs_is_missed_too(data, key):
    root = data("coco")
    file = root / "coco" / "annotations" / "instances_val2017.json"
    content = json.loads(file.read_text())
    del content["annotations"][0][key]
    file.write_text(json.dumps(content))
    report = check_only("coco_fpn_1x", root)
    assert not report["runs"] and set(report["counts"]) == {"annotation"}


def test_a_mask_that_the_evaluation_cannot_use_is_listed_where_masks_are_used(data):
    root = data("coco")
    file = root / FILES["coco_fpn_1x"]
    content = json.loads(file.read_text())
    first = content["annotations"][0]
    first["segmentation"] = {"counts": [10, 20], "size": [5, 6]}
    file.write_text(json.dumps(content))
    report = check_only("coco_fpn_1x", root)
    assert set(report["counts"]) - {"box of no size", "keypoint outside"} == {"mask"}
    assert f"annotation {first['id']}: not a polygon of three points or run lengths" in report["findings"][0]["reason"]
    with pytest.raises(ValueError, match="run lengths that fill"):
        records(TASKS["coco_fpn_1x"], root)
    boxes = dataclasses.replace(
        TASKS["coco_fpn_1x"], settings=dict(TASKS["coco_fpn_1x"].settings) | {"MODEL.MASK_ON": False}
    )
    assert check.check(boxes, root, records)["runs"]


@pytest.mark.parametrize(
    ("variable", "name", "task"),
    [
        ("CITYSCAPES_DATASET", "cityscapes", "cityscapes_semantic"),
        ("CITYSCAPES_DATASET", "cityscapes", "cityscapes_instance"),
        ("IMAGENET_DIR", "imagenet", "imagenet_linear"),
    ],
)
def test_a_dataset_may_stand_where_its_own_variable_says(variable, name, task, drawn, tmp_path, monkeypatch):
    alone, nowhere = tmp_path / f"of {name}", tmp_path / "nowhere"
    shutil.copytree(drawn / name, alone)
    engine = journey.engine(TASKS[task]).found
    assert not found(task, nowhere)["runs"]
    with pytest.raises(FileNotFoundError, match=variable):
        journey.datasets(nowhere)
    monkeypatch.setenv(variable, str(alone))
    assert journey.datasets(nowhere) == nowhere
    assert found(task, nowhere, engine)["runs"]
    assert not found("voc_c4", nowhere)["runs"]
    assert engine(TASKS[task], nowhere) == engine(TASKS[task], drawn)
    shutil.rmtree(alone)
    assert found(task, drawn, engine)["runs"]
    assert not found(task, nowhere)["runs"]
