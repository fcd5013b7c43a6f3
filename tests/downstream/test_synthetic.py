"""The embedded data: same seed, same bytes; layouts that others' readers accept; boxes, masks and label maps that agree."""

import hashlib
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO

from downstream import synthetic
from downstream.datasets import VOC_CLASSES
from downstream.drawing import sprite
from downstream.scenes import MOVERS
from downstream.shapes import SHAPES
from downstream.train_ids import LABELS

# pycocotools 2.0.11 does not know numpy 2's `copy` argument yet (_mask.pyx)
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SIZES = {"voc": 20, "coco": 82, "cityscapes": 16, "imagenet": 16, "side": 120}
TINY = {"voc": 2, "coco": 3, "cityscapes": 1, "imagenet": 1, "side": 96}

# Cityscapes' label table (cityscapesScripts, helpers/labels.py): trainId -> labelId
TRAIN_TO_LABEL = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("synthetic")
    counts = synthetic.synthesize(root, **SIZES)
    assert counts == {
        "VOC2007": {"train": 20, "val": 20, "test": 20},
        "VOC2012": {"train": 20, "val": 20},
        "coco": {"train2017": 82, "val2017": 82},
        "lvis": {"v0.5 train": 82, "v0.5 val": 82, "v1 train": 82, "v1 val": 82},
        "densepose": {"train2014": 15, "valminusminival2014": 14, "minival2014": 23},
        "cityscapes": {"train": 16, "val": 16},
        "imagenet": {"train": 320, "val": 80},
    }
    return root


def digests(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def voc_objects(path: Path) -> list[tuple[str, tuple[int, int, int, int], int]]:
    found = []
    for thing in ElementTree.parse(path).iter("object"):
        corners = tuple(int(thing.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax"))
        found.append((thing.findtext("name", ""), corners, int(thing.findtext("difficult", ""))))
    return found


def test_same_seed_gives_the_same_bytes_and_another_seed_other_pictures(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        synthetic.synthesize(tmp_path / name, seed, **TINY)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    pictures = [path for path in a if "JPEGImages" in path or "leftImg8bit" in path or path.endswith("JPEG")]
    assert len(pictures) == 10 + 2 + 40
    assert all(a[path] != c[path] for path in pictures)


def test_a_size_of_zero_leaves_the_data_set_out_and_nothing_is_overwritten(tmp_path: Path) -> None:
    assert synthetic.synthesize(tmp_path, voc=0, coco=0, cityscapes=1, imagenet=0, side=96).keys() == {"cityscapes"}
    assert [path.name for path in tmp_path.iterdir()] == ["cityscapes"]
    before = digests(tmp_path)
    with pytest.raises(ValueError, match="without cityscapes"):
        synthetic.synthesize(tmp_path, 1, **TINY)
    assert digests(tmp_path) == before
    with pytest.raises(ValueError, match="0 or more"):
        synthetic.synthesize(tmp_path / "other", voc=-1)


@pytest.mark.parametrize("year", ["VOC2007", "VOC2012"])
def test_voc_boxes_are_the_extents_of_the_masks_and_name_their_classes(data: Path, year: str) -> None:
    root, seen = data / year, set()
    lists = {path.stem: path.read_text().split() for path in (root / "ImageSets" / "Main").iterdir()}
    assert lists["trainval"] == lists["train"] + lists["val"]
    assert ("test" in lists) == (year == "VOC2007")  # VOC2012's test annotations are not public
    pictures = sorted(path.stem for path in (root / "JPEGImages").iterdir())
    assert pictures == sorted({picture for names in lists.values() for picture in names})
    for picture in pictures:
        image = cv2.imread(str(root / "JPEGImages" / f"{picture}.jpg"))
        classes = np.array(Image.open(root / "SegmentationClass" / f"{picture}.png"))
        objects = np.array(Image.open(root / "SegmentationObject" / f"{picture}.png"))
        assert image.shape[:2] == classes.shape == objects.shape
        annotated = voc_objects(root / "Annotations" / f"{picture}.xml")
        assert sorted(set(np.unique(objects)) - {0, 255}) == list(range(1, len(annotated) + 1))
        for index, (name, corners, _) in enumerate(annotated, 1):
            y, x = np.nonzero(objects == index)
            assert corners == (x.min() + 1, y.min() + 1, x.max() + 1, y.max() + 1)
            assert set(classes[objects == index]) == {VOC_CLASSES.index(name) + 1}
            seen.add(name)
    assert seen == set(VOC_CLASSES)


def test_voc_maps_have_the_devkit_palette_and_a_void_border(data: Path) -> None:
    for folder in ("SegmentationClass", "SegmentationClassAug", "SegmentationObject"):
        maps = sorted((data / "VOC2012" / folder).iterdir())
        assert len(maps) == 40
        picture = Image.open(maps[0])
        assert picture.mode == "P"
        colours = np.reshape(picture.getpalette(), (-1, 3)).tolist()
        # background, aeroplane, bicycle, person, tvmonitor, void in VOC's devkit
        assert [colours[i] for i in (0, 1, 2, 15, 20, 255)] == [
            [0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [0, 64, 128], [224, 224, 192],
        ]  # fmt: skip
        assert 255 in np.array(picture)
    lists = data / "VOC2012" / "ImageSets" / "Segmentation"
    assert (lists / "trainaug.txt").read_text() == (lists / "train.txt").read_text()


def test_some_voc_objects_are_difficult_and_people_are_the_most_frequent(data: Path) -> None:
    found = [
        thing
        for year in ("VOC2007", "VOC2012")
        for path in sorted((data / year / "Annotations").iterdir())
        for thing in voc_objects(path)
    ]
    assert 0 < sum(difficult for *_, difficult in found) < 0.25 * len(found)
    names = [name for name, *_ in found]
    assert max(set(names), key=names.count) == "person"
    sides = [max(x2 - x1, y2 - y1) / 90 for _, (x1, y1, x2, y2), _ in found]
    assert 0.3 < np.median(sides) < 0.75


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_coco_reads_with_pycocotools_and_masks_boxes_and_areas_agree(
    data: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    coco = COCO(str(data / "coco" / "annotations" / f"instances_{split}.json"))
    capsys.readouterr()
    assert len(coco.cats) == 80 and (coco.cats[1]["name"], coco.cats[90]["name"]) == ("person", "toothbrush")
    assert coco.cats[58] == {"supercategory": "food", "id": 58, "name": "hot dog"}
    assert {a["category_id"] for a in coco.anns.values()} == set(coco.cats)
    assert any(not coco.getAnnIds(image) for image in coco.imgs)
    crowds = [a for a in coco.anns.values() if a["iscrowd"]]
    assert crowds and all(isinstance(a["segmentation"], dict) for a in crowds)
    agreement = []
    for annotation in coco.anns.values():
        image = coco.imgs[annotation["image_id"]]
        mask = coco.annToMask(annotation)
        assert mask.shape == (image["height"], image["width"])
        agreement.append(abs(mask.sum() - annotation["area"]) / annotation["area"])
        y, x = np.nonzero(mask)
        box = [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
        assert np.abs(np.subtract(box, annotation["bbox"])).max() <= (0 if annotation["iscrowd"] else 1)
    assert max(agreement) < 0.2 and np.mean(agreement) < 0.01
    for image in coco.imgs.values():
        assert cv2.imread(str(data / "coco" / split / image["file_name"])).shape == (image["height"], image["width"], 3)


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_people_have_joints_on_themselves_hidden_by_others_or_none(
    data: Path, split: str, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations = data / "coco" / "annotations"
    coco = COCO(str(annotations / f"person_keypoints_{split}.json"))
    instances = COCO(str(annotations / f"instances_{split}.json"))
    capsys.readouterr()
    (person,) = coco.cats.values()
    assert (person["id"], person["name"], len(person["keypoints"]), len(person["skeleton"])) == (1, "person", 17, 19)
    assert coco.imgs == instances.imgs
    assert sorted(coco.anns) == sorted(instances.getAnnIds(catIds=[1]))
    seen = {0: 0, 1: 0, 2: 0}
    for number, annotation in coco.anns.items():
        assert {key: annotation[key] for key in instances.anns[number]} == instances.anns[number]
        joints = np.reshape(annotation["keypoints"], (17, 3))
        assert annotation["num_keypoints"] == (joints[:, 2] > 0).sum()
        assert (joints[joints[:, 2] == 0] == 0).all()
        if annotation["iscrowd"]:
            assert annotation["num_keypoints"] == 0
            continue
        near = cv2.dilate(coco.annToMask(annotation), np.ones((5, 5), np.uint8))
        for x, y, visibility in joints:
            seen[visibility] += 1
            assert visibility < 2 or near[y, x]
    assert seen[0] and seen[1] and seen[2] > seen[1]


def test_dense_pose_shows_the_images_of_2017_with_people_whose_surface_is_marked(data: Path) -> None:
    annotations = data / "coco" / "annotations"
    for split, parts in (("train2017", ("train", "valminusminival")), ("val2017", ("minival",))):
        people = json.loads((annotations / f"person_keypoints_{split}.json").read_text())
        sizes = {image["id"]: (image["width"], image["height"]) for image in people["images"]}
        joints = {person["id"]: person["keypoints"] for person in people["annotations"]}
        seen: set[int] = set()
        for part in parts:
            content = json.loads((annotations / f"densepose_{part}2014.json").read_text())
            ids = {image["id"] for image in content["images"]}
            assert not ids & seen and ids == {p["image_id"] for p in content["annotations"] if "dp_x" in p}
            assert all(sizes[image["id"]] == (image["width"], image["height"]) for image in content["images"])
            assert all(joints[person["id"]] == person["keypoints"] for person in content["annotations"])
            assert not [p for p in content["annotations"] if "dp_x" in p and (p["iscrowd"] or p["bbox"][3] < 20)]
            seen |= ids


def test_left_is_on_the_right_of_people_who_look_at_us() -> None:
    light = np.array([0.6, 0.8])
    sides = set()
    for seed in range(40):
        rgb, cover, joints = sprite("pedestrian", 90, light, np.random.default_rng(seed), tilt=0)
        assert sorted(joints) == list(range(17))
        sides |= {bool(joints[left][0] > joints[left + 1][0]) for left in (5, 11)}
        assert joints[0][1] < joints[5][1] < joints[11][1] < joints[15][1] < len(rgb)
        assert all(cover[int(y), int(x)] > 0 for x, y in (joints[0], joints[5], joints[6], joints[11]))
    assert sides == {True}


@pytest.mark.parametrize(("version", "classes"), [("v0.5", 1230), ("v1", 1203)])
def test_lvis_is_federated_over_cocos_pictures(data: Path, version: str, classes: int) -> None:
    for split in ("train", "val"):
        coco = json.loads((data / "coco" / "annotations" / f"instances_{split}2017.json").read_text())
        lvis = json.loads((data / "lvis" / f"lvis_{version}_{split}.json").read_text())
        assert [c["id"] for c in lvis["categories"]] == list(range(1, classes + 1))
        assert {c["frequency"] for c in lvis["categories"]} == {"r", "c", "f"}
        assert [i["coco_url"].split("/")[-2:] for i in lvis["images"]] == [
            [f"{split}2017", image["file_name"]] for image in coco["images"]
        ]
        plain = {a["id"]: a for a in coco["annotations"] if not a["iscrowd"]}
        assert sorted(plain) == sorted(a["id"] for a in lvis["annotations"])
        names = {c["id"]: c["name"] for c in lvis["categories"]}
        theirs = {c["id"]: c["name"].replace(" ", "_") for c in coco["categories"]}
        assert all(names[a["category_id"]] == theirs[plain[a["id"]]["category_id"]] for a in lvis["annotations"])
        assert any(image["not_exhaustive_category_ids"] for image in lvis["images"])
        for image in lvis["images"]:
            shown = {a["category_id"] for a in lvis["annotations"] if a["image_id"] == image["id"]}
            assert len(image["neg_category_ids"]) == 3 and not shown & set(image["neg_category_ids"])
        for category in lvis["categories"]:
            mine = [a["image_id"] for a in lvis["annotations"] if a["category_id"] == category["id"]]
            assert (category["instance_count"], category["image_count"]) == (len(mine), len(set(mine)))


def test_imagenets_subsets_give_every_class_its_share(data: Path) -> None:
    files = {path.name for path in (data / "imagenet" / "train").rglob("*.JPEG")}
    for percent, share in ((1, 1), (10, 2)):
        names = (data / "imagenet" / "subsets" / f"{percent}percent.txt").read_text().split()
        assert set(names) <= files and len(set(names)) == len(names) == 20 * share
        assert {sum(name.startswith(folder) for name in names) for folder in synthetic.IMAGENET} == {share}


def test_coco_polygons_keep_holes_and_crowds_keep_every_pixel() -> None:
    y, x = np.mgrid[:90, :120]
    ring = abs(np.hypot(x - 50, y - 45) - 30) < 6
    mask = ring | (abs(np.hypot(x - 50, y - 45) - 12) < 4) | ((x > 100) & (y > 70))
    for crowd in (False, True):
        written = synthetic._coco_mask(mask, crowd)["segmentation"]
        runs = rle.frPyObjects(written, 90, 120)
        decoded = rle.decode(runs if crowd else rle.merge(runs)).astype(bool)
        assert (decoded != mask).sum() <= (0 if crowd else 0.01 * mask.sum())


def test_cityscapes_label_maps_follow_the_label_table(data: Path) -> None:
    trained, movers = set(), set()
    for split in ("train", "val"):
        pictures = sorted((data / "cityscapes" / "leftImg8bit" / split).glob("*/*_leftImg8bit.png"))
        assert len(pictures) == SIZES["cityscapes"]
        for picture in pictures:
            stem = picture.name.removesuffix("_leftImg8bit.png")
            fine = data / "cityscapes" / "gtFine" / split / picture.parent.name
            maps = {
                kind: cv2.imread(str(fine / f"{stem}_gtFine_{kind}.png"), -1)
                for kind in ("labelIds", "labelTrainIds", "instanceIds")
            }
            assert all(values.shape == cv2.imread(str(picture)).shape[:2] == (100, 200) for values in maps.values())
            expected = np.full(256, 255)
            expected[TRAIN_TO_LABEL] = np.arange(19)
            assert (maps["labelTrainIds"] == expected[maps["labelIds"]]).all()
            trained |= set(np.unique(maps["labelTrainIds"]))
            instances = maps["instanceIds"].astype(int)
            assert maps["instanceIds"].dtype == np.uint16
            assert (np.where(instances >= 1000, instances // 1000, instances) == maps["labelIds"]).all()
            movers |= set(np.unique(instances[instances >= 1000] // 1000))
            outlines = json.loads((fine / f"{stem}_gtFine_polygons.json").read_text())
            repainted = np.full((100, 200), 23, np.uint8)
            for thing in outlines["objects"]:
                cv2.fillPoly(repainted, [np.array(thing["polygon"])], LABELS[thing["label"]])
            assert (repainted == maps["labelIds"]).mean() > 0.97
    assert trained - {255} == set(range(19))
    assert movers == {LABELS[name] for name in MOVERS} == {24, 25, 26, 27, 28, 31, 32, 33}


def test_imagenet_is_not_solved_by_mean_colour(data: Path) -> None:
    def features(split: str) -> tuple[np.ndarray, np.ndarray]:
        folders = sorted((data / "imagenet" / split).iterdir())
        assert [folder.name for folder in folders] == sorted(synthetic.IMAGENET)
        paths = [(path, label) for label, folder in enumerate(folders) for path in sorted(folder.iterdir())]
        pictures = np.stack([cv2.imread(str(path)) for path, _ in paths]).astype(float)
        colours = np.concatenate([pictures.mean((1, 2)), pictures.std((1, 2))], 1)
        return colours, np.array([label for _, label in paths])

    (train, labels), (val, truth) = features("train"), features("val")
    centroids = np.stack([train[labels == label].mean(0) for label in range(20)])
    nearest = ((val[:, None] - centroids) ** 2).sum(2).argmin(1)
    assert (nearest == truth).mean() < 0.3


def test_every_class_is_drawn_with_a_mask_of_some_size() -> None:
    light = np.array([0.6, 0.8])
    for name in SHAPES:
        for seed in range(3):
            rgb, cover, _ = sprite(name, 60, light, np.random.default_rng(seed))
            assert rgb.shape[:2] == cover.shape and 55 <= max(cover.shape) <= 66
            assert cover.mean() > 0.02 and cover.max() == 1
            assert np.isfinite(rgb).all()
    assert set(synthetic.KIND) | set(MOVERS) <= set(SHAPES)
