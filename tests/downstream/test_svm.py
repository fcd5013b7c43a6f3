"""Linear SVMs on VOC2007: labels, features, cost and average precision against torchvision, scikit-learn and first principles."""

import dataclasses
import json

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC
from torchvision.transforms import InterpolationMode, Resize

from downstream import svm, task
from downstream.datasets import VOC_CLASSES
from downstream.tasks.voc07_svm import TASK

TINY = dataclasses.replace(TASK, view=32, resize=40, costs=(1.0, 0.0625), batch=7, iterations=100)
OBJECT = """<object><name>{}</name><difficult>{}</difficult>
<bndbox><xmin>2</xmin><ymin>2</ymin><xmax>30</xmax><ymax>30</ymax></bndbox></object>"""


def write(root, split, images):
    """images: one list of (class number, difficult) an image."""
    base = root / "VOC2007"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(images))
    names = [f"{split}{i:03d}" for i in range(len(images))]
    (base / "ImageSets/Main" / f"{split}.txt").write_text("\n".join(reversed(names)))
    for name, objects in zip(names, images, strict=True):
        tint = rng.integers(0, 256, 3) if not objects else np.random.default_rng(objects[0][0]).integers(0, 256, 3)
        pixels = np.clip(tint + rng.normal(0, 40, (48, 64, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(base / "JPEGImages" / f"{name}.jpg")
        body = "".join(OBJECT.format(VOC_CLASSES[c], d) for c, d in objects)
        text = f"<annotation><size><width>64</width><height>48</height></size>{body}</annotation>"
        (base / "Annotations" / f"{name}.xml").write_text(text)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("voc")
    write(root, "trainval", [[(i % 20, 0), (i * 3 % 20, int(i % 7 == 0))] for i in range(80)])
    write(root, "test", [[(i % 20, 0), (i * 11 % 20, i % 2)] for i in range(40)])
    return root


def test_average_precision_is_the_area_under_the_best_precision_at_every_recall():
    rng = np.random.default_rng(0)
    for _ in range(300):
        count = int(rng.integers(1, 40))
        scores, positive = rng.permutation(count).astype(float), rng.random(count) < rng.random()
        positive[rng.integers(count)] = True
        ranked = positive[np.argsort(-scores)]
        points = [(ranked[:n].sum() / ranked.sum(), ranked[:n].mean()) for n in range(1, count + 1)]
        recalls = sorted({r for r, _ in points if r})
        area = sum(
            (r - before) * max(p for s, p in points if s >= r)
            for before, r in zip([0.0, *recalls[:-1]], recalls, strict=True)
        )
        assert svm.average_precision(scores, positive) == pytest.approx(area, abs=1e-12)


def test_an_image_with_difficult_objects_only_is_neither_present_nor_absent(tmp_path):
    write(tmp_path, "trainval", [[(3, 0), (3, 1)], [(3, 1)], []])
    found = svm.labels(svm.datasets.records("voc_2007_trainval", tmp_path)[::-1])
    assert found[:, 3].tolist() == [svm.PRESENT, svm.DIFFICULT, svm.ABSENT]
    assert (np.delete(found, 3, 1) == svm.ABSENT).all()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_difficult_images_train_as_negatives_and_are_left_out_of_the_test():
    rng = np.random.default_rng(1)
    # of images shown ten times, whose scores differ in the last bits by their place among the others
    x, x_test = rng.normal(size=(60, 13)), rng.normal(size=(9, 13)).repeat(10, 0)
    y, y_test = (rng.choice([svm.ABSENT, svm.DIFFICULT, svm.PRESENT], n, p=[0.5, 0.2, 0.3]) for n in (60, 90))
    cost, ap, _ = svm.fitted(TINY, x, y, x_test, y_test, 0)
    plain = LinearSVC(C=cost, class_weight={1: 2, -1: 1}, max_iter=100, random_state=0, dual=True)
    plain.fit(x, np.where(y == 1, 1, -1))
    kept = y_test != svm.DIFFICULT
    assert ap == svm.average_precision(plain.decision_function(x_test)[kept], y_test[kept] == 1)
    assert svm.fitted(TINY, x, np.where(y == 0, -1, y), x_test, y_test, 0) == svm.fitted(TINY, x, y, x_test, y_test, 0)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_cost_is_the_one_of_scikit_learns_own_cross_validation():
    rng = np.random.default_rng(2)
    chosen = set()
    for _ in range(6):
        x = rng.normal(size=(90, 8))
        y = np.where(x[:, 0] + rng.normal(0, 1, 90) > 0.7, 1, -1)
        costs = tuple(float(c) for c in rng.permutation([0.001, 0.1, 1.0, 30.0]))
        few = dataclasses.replace(TINY, costs=costs)
        means = [
            cross_val_score(
                LinearSVC(C=c, class_weight={1: 2, -1: 1}, random_state=3, max_iter=100, dual=True),
                x, y, cv=3, scoring="average_precision",
            ).mean()
            for c in costs
        ]  # fmt: skip
        assert svm.chosen_cost(few, x, y, 3) == costs[int(np.argmax(means))]
        chosen.add(svm.chosen_cost(few, x, y, 3))
    assert len(chosen) > 1


def test_the_view_is_torchvisions_two_resizings():
    rng = np.random.default_rng(3)
    for size in ((500, 375), (333, 500), (224, 224)):
        picture = Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
        theirs = Resize((224, 224), InterpolationMode.BILINEAR)(Resize(256, InterpolationMode.BILINEAR)(picture))
        assert (svm.squashed_view(picture, TASK) == np.asarray(theirs)).all()


def test_features_are_the_last_map_in_windows_of_6_by_6():
    torch.manual_seed(0)
    backbone = torchvision.models.resnet18().eval()
    model = svm.network(TASK, "resnet18")
    model.load_state_dict({k: v for k, v in backbone.state_dict().items() if not k.startswith("fc.")})
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        maps = torch.nn.Sequential(*list(backbone.children())[:-2])(images)
        found = model(images)
    assert maps.shape == (1, 512, 7, 7) and found.shape == (1, 2048)
    windows = torch.stack([maps[0, :, y : y + 6, x : x + 6].mean((1, 2)) for y in (0, 1) for x in (0, 1)], 1)
    torch.testing.assert_close(found[0], windows.flatten(), rtol=1e-4, atol=1e-5)


def test_a_trial_gives_the_same_numbers_in_one_process_and_in_two_and_they_are_those_of_its_features(
    data, tmp_path, monkeypatch
):
    torch.manual_seed(5)
    tensors = {k: v for k, v in torchvision.models.resnet18().state_dict().items() if not k.startswith("fc.")}
    results = []
    for processes in (1, 2):
        monkeypatch.setattr(svm, "cpus", lambda count=processes: count)
        results.append(svm.run(TINY, tensors, task.TRAITS, "resnet18", data, tmp_path / str(processes), 0))
    assert results[0]["metrics"] == results[1]["metrics"]
    assert results[0]["loaded"] == {"matched": len(tensors), "missing": [], "unused": []}
    model = svm.network(TINY, "resnet18")
    model.load_state_dict(tensors)
    splits = svm._splits(TINY, data)
    x, x_test = (svm.features(model, TINY, task.TRAITS, images, "") for images in splits)
    assert x.shape == (80, 512) and np.allclose(np.linalg.norm(x, axis=1), 1, atol=1e-3)
    classes = json.loads((tmp_path / "1/metrics.json").read_text())["classes"]
    y, y_test = map(svm.labels, splits)
    for c, name in enumerate(VOC_CLASSES):
        cost, ap, _ = svm.fitted(TINY, x, y[:, c], x_test, y_test[:, c], 0)
        assert classes[name]["cost"] == cost and classes[name]["AP"] == pytest.approx(100 * ap)
    assert results[0]["metrics"]["mAP"] == pytest.approx(np.mean([each["AP"] for each in classes.values()]))
    assert results[0]["metrics"]["mAP"] > 20  # chance is about 8: a class is one of 20 tints


def test_what_cannot_run_is_one_sentence(data, tmp_path, monkeypatch):
    assert svm.found(TINY, data) == svm.found(TASK, data)
    numbers = ({"costs": ()}, {"costs": (-1.0,)}, {"folds": 1}, {"tolerance_of_solver": 0})
    for wrong in (*numbers, {"interpolation": "nearest"}, {"precision": "fp8"}):
        with pytest.raises(ValueError, match="KEY VALUE"):
            svm.found(dataclasses.replace(TINY, **wrong), data)
    write(tmp_path, "trainval", [[(i % 20, 0)] for i in range(60)])
    write(tmp_path, "test", [[(i % 19, 0)] for i in range(20)])
    with pytest.raises(ValueError, match="none of tvmonitor"):
        svm.found(TINY, tmp_path)
    with pytest.raises(ValueError, match="folds 2"):
        svm.found(dataclasses.replace(TINY, folds=4), tmp_path)
    for split in ("trainval", "test"):
        write(tmp_path / "few", split, [[(i, 0)] for i in range(20)])
    with pytest.raises(ValueError, match=r"found 1 of 20 with aeroplane: add images$"):
        svm.found(dataclasses.replace(TINY, folds=2), tmp_path / "few")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="one process"):
        svm.run(TINY, None, task.TRAITS, "resnet18", data, tmp_path, 0)


def test_a_broken_training_image_is_left_out_where_that_is_allowed_and_a_broken_test_image_never(tmp_path):
    write(tmp_path, "trainval", [[(i % 20, 0), (i * 3 % 20, 0)] for i in range(80)])
    write(tmp_path, "test", [[(i % 20, 0)] for i in range(20)])
    trained, tested = (tmp_path / f"VOC2007/JPEGImages/{name}.jpg" for name in ("trainval007", "test003"))
    trained.write_bytes(trained.read_bytes()[:400])
    with pytest.raises(ValueError, match=r"broken or foreign file: .*trainval007"):
        svm.run(TINY, None, task.TRAITS, "resnet18", tmp_path, tmp_path / "out", 0)
    tolerant = task.tolerant(TINY, 1)
    result = svm.run(tolerant, None, task.TRAITS, "resnet18", tmp_path, tmp_path / "out", 0)
    assert len(result["effective"]["skipped"]) == 1
    assert str(trained) in result["effective"]["skipped"][0]
    tested.write_bytes(b"")
    with pytest.raises(ValueError, match=r"broken or foreign file: .*test003"):
        svm.run(tolerant, None, task.TRAITS, "resnet18", tmp_path, tmp_path / "out", 0)


def test_the_mini_protocol_is_the_papers_seen_smaller():
    mini = task.mini(TASK)
    assert (mini.view, mini.resize, mini.iterations, len(mini.costs)) == (64, 73, 50, 7)
    assert len(TASK.costs) == 19 and {1.0, 10.0, 100.0, 0.5**4, 0.5**19} <= set(TASK.costs)
    assert task.iterations(TASK, 5011) == (0, ())
    assert task.overridden(TASK, {"costs": "[1, 2]"}).costs == (1, 2)
