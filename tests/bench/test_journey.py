"""What a transfer does around a trial, with an engine that only answers."""

import dataclasses
import json
from types import SimpleNamespace

import pytest

from bench import journey


@pytest.fixture
def planned(tmp_path):
    """Makes a plan of nearest neighbours with a user's changes and these results."""

    def make(changes, metrics):
        task = journey.resolve("imagenet_knn", "paper", changes)
        result = {"metrics": metrics, "loaded": {}, "effective": {}, "seconds": {}}
        engine = SimpleNamespace(run=lambda *given, **more: result)
        model, _ = journey.opened("random", "resnet50", "paper", None, "dino")
        return journey.Plan(task, engine, tmp_path, {"train": 2, "test": 1, "digest": "d"}, model, None, {})

    return make


def test_a_record_that_is_cut_or_not_the_trials_own_is_named_and_not_taken_for_done(planned, tmp_path):
    plan = planned({}, {"top1_k20": 67.5})
    journey.transfer(plan, [0], tmp_path, False, print)
    (file,) = tmp_path.glob("imagenet_knn/*/*/0.json")
    whole = file.read_text()
    assert journey.transfer(plan, [0], tmp_path, False, print)[0]["metrics"] == {"top1_k20": 67.5}
    for text in (whole[:100], "{}", "[1]"):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"0\.json is no record"):
            journey.transfer(plan, [0], tmp_path, False, print)
    file.write_text(whole.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ValueError, match=r"expected the record in .*0\.json to stand at .*1\.json"):
        journey.transfer(plan, [0], tmp_path, False, print)


def test_the_same_weights_shown_the_images_in_another_way_are_not_taken_for_done(planned, tmp_path):
    plan = planned({}, {"top1_k20": 67.5})
    journey.transfer(plan, [0], tmp_path, False, print)
    plan.model["traits"]["std"] = [1.0, 1.0, 1.0]
    with pytest.raises(
        ValueError, match=r"0\.json was begun with, found std \[.*\] there and \[1.0, 1.0, 1.0\] now: .*--out"
    ):
        journey.transfer(plan, [0], tmp_path, False, print)
    made = {"model": {"traits": {"stride_in_1x1": False}}}
    journey.describe(tmp_path, made, False)
    journey.describe(tmp_path, made, True)
    with pytest.raises(ValueError, match=r"found stride_in_1x1 False there and True now"):
        journey.describe(tmp_path, {"model": {"traits": {"stride_in_1x1": True}}}, True)


def test_a_damaged_run_json_is_named_with_the_way_out(tmp_path):
    file, made = tmp_path / "run.json", {"protocol": {}, "model": {"traits": {"mean": (0.0,)}}}
    for resume in (False, True, True):
        journey.describe(tmp_path, made, resume)
    assert len(json.loads(file.read_text())["starts"]) == 3
    for text in ("", "[]", "{}", file.read_text()[:100]):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"run\.json what this run is .* delete it to go on"):
            journey.describe(tmp_path, made, True)


def test_a_published_figure_of_a_metric_that_a_change_leaves_out_is_compared_with_nothing(planned, tmp_path):
    said = []
    (record,) = journey.transfer(planned({"neighbours": "[10]"}, {"top1_k10": 9.0}), [0], tmp_path, False, said.append)
    assert record["metrics"] == {"top1_k10": 9.0}
    assert not any("as published" in line for line in said)
    journey.transfer(planned({}, {"top1_k20": 9.0}), [0], tmp_path, False, said.append)
    assert "expected top1_k20 67.5" in said[-1] and "look at the data's counts" in said[-1]
    journey.transfer(planned({"temperature": "0.1"}, {"top1_k20": 9.0}), [0], tmp_path, False, said.append)
    assert "look at what was changed (temperature), the data's counts" in said[-1]


def test_a_published_figure_is_compared_with_a_resnet_50_of_as_many_epochs(planned):
    plan = planned({}, {"top1_k20": 9.0})
    task = dataclasses.replace(plan.task, expected={"moco_v2 (200 epochs)": {"top1_k20": 55.0}})
    for model, found in (
        ({"name": "moco_v2", "epochs": 200, "arch": "resnet50"}, {"top1_k20": 55.0}),
        ({"name": "moco_v2 (200 epochs)", "arch": "resnet50"}, {"top1_k20": 55.0}),
        ({"name": "moco_v2", "epochs": 200, "arch": "resnet18"}, {}),
        ({"name": "moco_v2", "epochs": 100, "arch": "resnet50"}, {}),
        ({"name": "moco_v2", "arch": "resnet50"}, {"top1_k20": 55.0}),
        ({"name": "moco", "arch": "resnet50"}, {}),
    ):
        assert journey._published(dataclasses.replace(plan, task=task, model=model))[1] == found


@pytest.mark.parametrize(
    ("task", "name", "about", "whose"),
    [
        ("imagenet_linear_swav", "barlowtwins", {"epochs": 1000}, "barlowtwins (1000 epochs)"),
        ("imagenet_linear_swav", "swav_800ep", {"epochs": 800}, "swav (800 epochs)"),
        ("imagenet_linear_swav", "swav", {"epochs": 200}, "swav (200 epochs)"),
        ("imagenet_linear_swav", "swav", {}, ""),  # several lengths were published
        ("imagenet_linear_swav", "swav_400ep_2x224", {"epochs": 400}, ""),
        ("imagenet_semi_10", "swav", {}, "swav (800 epochs)"),
        ("imagenet_linear_moco_v3", "moco_v3_100ep", {"epochs": 100}, "moco_v3 (100 epochs)"),
        ("imagenet_linear_vicreg", "vicreg_1000ep", {"epochs": 1000}, "vicreg (1000 epochs)"),
        ("imagenet_linear_simclr", "simclr_v1", {"epochs": 1000}, "simclr (1000 epochs)"),
        ("imagenet_linear_simclr", "simclr", {}, "simclr (1000 epochs)"),
        ("imagenet_linear_simclr", "simclr_v2", {}, ""),
        ("imagenet_linear_simsiam", "simsiam", {"epochs": 100}, "simsiam (100 epochs)"),
        ("imagenet_knn", "dino", {"epochs": 100}, ""),
        ("voc_c4", "moco_v1", {"epochs": 200}, "moco_v1 (200 epochs)"),
        ("voc_c4", "random", {}, "random"),
        ("voc_c4", "supervised", {}, "supervised"),
        ("voc_c4", "supervised", {"epochs": 90}, ""),  # the papers' is MSRA's
    ],
)
def test_a_model_meets_its_published_name(planned, task, name, about, whose):
    plan = dataclasses.replace(
        planned({}, {}), task=journey.resolve(task, "paper", {}), model={"name": name, "arch": "resnet50", **about}
    )
    assert journey._published(plan)[0] == whose
