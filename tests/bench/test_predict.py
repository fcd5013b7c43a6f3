"""A network that `bench transfer --keep` left says of the test images what its trial was scored by."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as mask_tools
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from bench import cli, journey, predict
from downstream import datasets, detection, synthetic
from downstream.evaluation import voc
from downstream.trial import fingerprint

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11

SMALL = {
    "SOLVER.MAX_ITER": "4",
    "SOLVER.STEPS": "[3]",
    "SOLVER.IMS_PER_BATCH": "2",
    "INPUT.MIN_SIZE_TRAIN": "[64]",
    "INPUT.MIN_SIZE_TEST": "64",
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": "16",
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": "0.0",
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": "50",
    "MODEL.RPN.POST_NMS_TOPK_TEST": "20",
    "TEST.PRECISE_BN.NUM_ITER": "2",
}
CHANGES = {
    "voc_c4": SMALL,
    "coco_fpn_1x": SMALL,
    "coco_keypoint_2x": SMALL,
    "cityscapes_semantic": {"iterations": "4", "crop": "64", "batch": "2", "resize": "[128, 64]"},
    "imagenet_linear": {"epochs": "1", "batch": "24", "view": "32", "resize": "36"},
    "imagenet_semi_10": {"epochs": "2", "steps": "[1]", "batch": "8", "view": "32", "resize": "36"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    synthetic.synthesize(folder, seed=0, voc=4, coco=4, cityscapes=4, imagenet=8, side=96)
    return folder


@pytest.fixture(scope="module")
def trial(data, tmp_path_factory):
    """Makes one kept trial of a task: its record and its network's file."""
    made = {}

    def run(task):
        if task not in made:
            out = tmp_path_factory.mktemp(task)
            resolved = journey.resolve(task, "mini", CHANGES[task])
            [record] = journey.transfer(
                journey.plan(resolved, "random", data), [0], out, False, lambda _: None, keep=True
            )
            [file] = out.glob(f"*/*/*/0/{predict.FILE}")
            made[task] = record, file
        return made[task]

    return run


def notes(file):
    """What stands in a network's file beside its tensors."""
    with safe_open(file, "pt") as reading:
        return reading.metadata()


def answers(file, images, out):
    """What the command writes about images, by their names."""
    written = predict.predict(file, images, out, print)
    return {Path(entry["image"]): entry for entry in json.loads(written.read_text())}


@pytest.mark.parametrize("task", CHANGES)
def test_the_file_is_the_trained_network_with_its_protocol(task, trial):
    record, file = trial(task)
    assert fingerprint(load_file(file)) == json.loads((file.parent / "metrics.json").read_text())["trained"]
    found, about, _ = predict.kept(file)
    assert journey.protocols.digest(found) == record["protocol"]["hash"]
    assert about["arch"] == record["model"]["arch"]


def test_boxes_are_those_that_the_record_was_scored_by(data, trial, tmp_path):
    record, file = trial("voc_c4")
    images = datasets.records("voc_2007_test", data)
    said = answers(file, [Path(image["file_name"]) for image in images], tmp_path)
    found = {}
    for image in images:
        entry = said[Path(image["file_name"])]
        assert entry["objects"]
        boxes = np.array([o["bbox"] for o in entry["objects"]], np.float32)
        boxes[:, 2:] += boxes[:, :2]
        labels = [datasets.VOC_CLASSES.index(o["class"]) for o in entry["objects"]]
        found[image["image_id"]] = boxes, np.array([o["score"] for o in entry["objects"]], np.float32), labels
        with Image.open(tmp_path / entry["picture"]) as picture:
            assert picture.size == (image["width"], image["height"])
    assert voc.evaluate(found, images, 20, 2007) == pytest.approx(record["metrics"], abs=1e-4)


def test_masks_and_keypoints_are_written_as_coco_writes_them(data, trial, tmp_path):
    [image] = datasets.records("coco_2017_val", data)[:1]
    file = Path(image["file_name"])
    masks = answers(trial("coco_fpn_1x")[1], [file], tmp_path / "masks")[file]["objects"]
    assert {mask_tools.decode(each["segmentation"]).shape for each in masks} == {(image["height"], image["width"])}
    persons = answers(trial("coco_keypoint_2x")[1], [file], tmp_path / "persons")[file]["objects"]
    assert {(each["class"], len(each["keypoints"])) for each in persons} == {("person", 3 * len(datasets.KEYPOINTS))}


def test_keypoints_are_where_the_evaluation_takes_them_for(data, trial, tmp_path, monkeypatch):
    points = np.random.default_rng(0).uniform(0, 90, (2, len(datasets.KEYPOINTS), 3)).astype(np.float32)
    found = np.array([[1, 2, 30, 40], [5, 5, 9, 9]], np.float32), np.array([0.9, 0.2]), np.zeros(2, int), None, points
    monkeypatch.setattr(detection, "_predictions", lambda *_: [(0, *found, None)])
    [image] = datasets.records("coco_2017_val", data)[:1]
    file = Path(image["file_name"])
    said = answers(trial("coco_keypoint_2x")[1], [file], tmp_path)[file]["objects"]
    evaluated = detection._coco_results("keypoints_coco_2017_val", 0, *found)
    assert [each["keypoints"] for each in said] == [each["keypoints"] for each in evaluated]


def test_maps_are_those_that_the_record_was_scored_by(data, trial, tmp_path):
    record, file = trial("cityscapes_semantic")
    images = sorted(data.glob("cityscapes/leftImg8bit/val/*/*.png"))
    said = answers(file, images, tmp_path)
    both, either = np.zeros(19), np.zeros(19)
    for image in images:
        label = str(image).replace("leftImg8bit/", "gtFine/").replace("_leftImg8bit", "_gtFine_labelTrainIds")
        truth, found = np.asarray(Image.open(label)), np.asarray(Image.open(tmp_path / said[image]["picture"]))
        assert sum(said[image]["percent"].values()) == pytest.approx(100)
        for c in range(19):
            both[c] += ((truth == c) & (found == c)).sum()
            either[c] += (((truth == c) | (found == c)) & (truth != 255)).sum()
    assert 100 * np.mean(both[either > 0] / either[either > 0]) == pytest.approx(record["metrics"]["mIoU"])


@pytest.mark.parametrize("task", ["imagenet_linear", "imagenet_semi_10"])
def test_classes_are_those_that_the_record_was_scored_by(task, data, trial, tmp_path):
    record, file = trial(task)
    images = sorted(data.glob("imagenet/val/*/*"))
    said = answers(file, images, tmp_path)
    first = [said[image]["classes"][0]["class"] == image.parent.name for image in images]
    five = [image.parent.name in [each["class"] for each in said[image]["classes"]] for image in images]
    assert 100 * np.mean(first) == pytest.approx(record["metrics"]["top1"])
    assert 100 * np.mean(five) == pytest.approx(record["metrics"]["top5"])
    assert all(0 <= each["probability"] <= 1 for entry in said.values() for each in entry["classes"])


def test_the_command_says_where_the_answer_is_and_what_is_wrong(data, trial, tmp_path, capsys, monkeypatch):
    _, file = trial("imagenet_linear")
    image = next(data.glob("imagenet/val/*/*"))

    def told(*words):
        monkeypatch.setattr("sys.argv", ["bench", "predict", *map(str, words), "--out", str(tmp_path / "out")])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out if ended.value.code == 0 else said.err.splitlines()[-1]

    assert told(file, image) == (0, f"{tmp_path / 'out/predictions.json'}\n")
    assert told(file, tmp_path / "none.jpg") == (2, f"bench: expected images, found no file {tmp_path / 'none.jpg'}")
    broken = tmp_path / "broken.jpg"
    broken.write_text("no image")
    code, line = told(file, image, broken)
    assert code == 2
    assert line.startswith(f"bench: expected a readable image, found a broken or foreign file: {broken}")


@pytest.mark.parametrize(
    "texts",
    [
        None,
        {"protocol": "{}"},
        {"protocol": '{"engine": "torch", "name": "x", "kind": "linear"}'},
        {"protocol": '{"engine": "none"}'},
        {"protocol": "[" * 100_000},
        {"classes": '"abc"'},
        {"traits": "3"},
        {"traits": '{"mean": 3}'},
    ],
)
def test_a_file_that_is_none_is_refused(texts, trial, tmp_path):
    _, kept = trial("imagenet_linear")
    file = tmp_path / "other.safetensors"
    save_file({"fc.weight": torch.zeros(2, 2)}, file, None if texts is None else {**notes(kept), **texts})
    with pytest.raises(ValueError, match=r"expected a fine-tuned network with its protocol, found none in .*other"):
        predict.kept(file)


def test_a_network_of_another_shape_is_refused(data, trial, tmp_path):
    _, kept = trial("imagenet_linear")
    file = tmp_path / "other.safetensors"
    save_file({"fc.weight": torch.zeros(2, 2)}, file, notes(kept))
    with pytest.raises(ValueError, match=r"tensors of the network, found \d+ missing and 1 that do not fit"):
        predict.predict(file, [next(data.glob("imagenet/val/*/*"))], tmp_path / "out", print)


def test_what_trains_no_network_keeps_none_and_a_trial_that_ended_without_is_named(data, trial):
    for task in ("imagenet_knn", "voc07_svm"):
        with pytest.raises(ValueError, match=rf"expected a task that trains a network to keep, found {task}"):
            predict.possible(journey.resolve(task, "paper", {}))
    _, kept = trial("imagenet_linear")
    plan = journey.plan(journey.resolve("imagenet_linear", "mini", CHANGES["imagenet_linear"]), "random", data)
    out = kept.parents[4]
    assert journey.transfer(plan, [0], out, False, print, keep=True)
    kept.rename(kept.with_suffix(".away"))
    with pytest.raises(ValueError, match="expected no trial that ended without its network"):
        journey.transfer(plan, [0], out, False, print, keep=True)
    kept.with_suffix(".away").rename(kept)
