import hashlib
import json
import runpy
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pretrain import data, dist, heads, log, loop, monitor, plot, recipes, views
from pretrain.methods import moco, rotation, simsiam, supervised


def draw(root, names):
    rng = np.random.default_rng(0)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return root


@pytest.fixture
def photos(tmp_path):
    """24 images in 3 class folders."""
    return draw(tmp_path / "photos", [f"{'abc'[i % 3]}/{i:02}.png" for i in range(24)])


def run(photos, out, method=moco, **changes):
    options = {"arch": "resnet18", "scale": "mini", "epochs": 2, "batch_size": 8, "overrides": {"size": "32"}}
    return loop.run(method, photos, out, **{**options, **changes})


@pytest.mark.parametrize("images", [30, 300])
def test_knn_is_scikit_learns_with_the_same_weights(images):
    torch.manual_seed(0)
    centres = F.normalize(torch.randn(4, 16), dim=1)
    labels, tested = torch.randint(4, (images,)), torch.randint(4, (600,))
    train, val = (F.normalize(centres[y] + 0.5 * torch.randn(len(y), 16), dim=1) for y in (labels, tested))
    reference = KNeighborsClassifier(
        min(200, images), metric="euclidean", algorithm="brute",
        # of unit vectors: cos = 1 - d^2 / 2
        weights=lambda d: np.exp((1 - d**2 / 2) / 0.07),
    ).fit(train.numpy(), labels.numpy())  # fmt: skip
    expected = 100 * np.mean(reference.predict(val.numpy()) == tested.numpy())
    assert 30 < expected < 99
    assert monitor.knn(train, labels, val, tested) == pytest.approx(expected, abs=0.2)


def test_features_in_all_directions_have_the_std_and_rank_of_their_dimension():
    torch.manual_seed(0)
    seen = monitor.scatter(F.normalize(torch.randn(4000, 16), dim=1), "feature")
    assert seen["feature_std"] == pytest.approx(1, abs=0.01)
    assert seen["feature_rank"] == pytest.approx(16, abs=0.1)
    assert not monitor.collapsed(seen)


def test_the_numbers_are_numpys():
    torch.manual_seed(0)
    z = F.normalize(torch.randn(50, 8) * torch.arange(1.0, 9.0) + 3, dim=1)
    seen, x = monitor.scatter(z, "output"), z.double().numpy()
    values = np.linalg.svd(x - x.mean(axis=0), compute_uv=False)
    p = values / values.sum()
    assert seen["output_std"] == pytest.approx(x.std(axis=0, ddof=1).mean() * np.sqrt(8))
    assert seen["output_rank"] == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_one_point_and_one_line_are_collapses():
    torch.manual_seed(0)
    one = F.normalize(torch.ones(100, 16) + 0.01 * torch.randn(100, 16), dim=1)
    assert "feature_std" in monitor.collapsed(monitor.scatter(one, "feature"))
    line = F.normalize(torch.linspace(-1, 1, 100)[:, None] * torch.randn(16) + torch.ones(16), dim=1)
    assert "feature_rank" in monitor.collapsed(monitor.scatter(line, "feature"))
    assert monitor.collapsed(monitor.scatter(torch.ones(10, 4) / 2, "feature"))


def test_a_watched_run_ends_in_the_same_weights_and_tensorboard_has_the_logs_numbers(photos, tmp_path):
    watched = run(photos, tmp_path / "watched", labelled=photos)
    plain = run(photos, tmp_path / "plain")
    states = [torch.load(path.with_name("last.pth"), weights_only=True)["model"] for path in (watched, plain)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    lines = log.lines(tmp_path / "watched" / "log.jsonl")
    assert [line["step"] for line in lines if "knn" in line] == [0, 3, 6]
    assert all(
        {"feature_std", "feature_rank", "output_std", "output_rank"} <= set(line) for line in lines if "knn" in line
    )
    assert "knn" not in log.lines(tmp_path / "plain" / "log.jsonl")[0]
    about = json.loads((tmp_path / "watched" / "backbone.json").read_text())
    assert about["knn"] == {"first": lines[0]["knn"], "last": lines[-1]["knn"]}
    assert json.loads((tmp_path / "plain" / "backbone.json").read_text())["knn"] is None
    events = EventAccumulator(str(tmp_path / "watched" / "tensorboard")).Reload()
    for key in ("loss", "knn", "feature_std"):
        expected = [(line["step"], pytest.approx(line[key])) for line in lines if key in line]
        assert [(event.step, event.value) for event in events.Scalars(key)] == expected


def test_the_accuracy_in_the_log_is_that_of_the_saved_backbone(photos, tmp_path):
    path = run(photos, tmp_path / "out", epochs=1, labelled=photos, overrides={"size": "32", "precision": "fp32"})
    net = heads.backbone("resnet18")[0].eval()
    net.load_state_dict(torch.load(path, weights_only=True))
    folder, train, val = monitor.split(photos)
    mean, std = (torch.tensor(loop.TRAITS[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        features = [
            F.normalize(
                torch.cat([
                    net((torch.from_numpy(views.centre(folder.image(i), 32).copy()).permute(2, 0, 1)[None] - mean) / std)
                    for i in part
                ]),
                dim=1,
            )
            for part in (train, val)
        ]  # fmt: skip
    labels = [torch.from_numpy(folder.labels[part]) for part in (train, val)]
    expected = monitor.knn(features[0], labels[0], features[1], labels[1])
    assert log.lines(tmp_path / "out" / "log.jsonl")[-1]["knn"] == pytest.approx(expected)


def test_what_is_looked_at_again_and_again_is_kept_outside_of_shared_memory(photos):
    recipe = {**moco.recipe(), "size": 32, "batch_size": 4}
    watch = monitor.Monitor(data.Folder(photos), photos, recipe, dist.Process(0, 1, torch.device("cpu")), 1)
    assert [len(pixels) for pixels in (watch.train, watch.val)] == [6, 1]
    assert not any(batch.is_shared() for batch in (*watch.train, *watch.val))


def test_features_beyond_the_range_of_half_precision_are_looked_at(photos):
    folder = data.Folder(photos)
    changes = {"size": "32", "precision": "fp16"}
    recipe = recipes.resolved(moco, folder, "mini", batch_size=8, overrides=changes)
    model = moco.METHOD("resnet18", recipe)
    torch.nn.init.constant_(model.backbone.layer4[1].bn2.weight, 1e6)
    training = loop.Training(model, folder, {"recipe": recipe, "seed": 0}, dist.Process(0, 1, torch.device("cpu")))
    seen = monitor.Monitor(folder, None, recipe, training.process, 1).look(training.features)
    assert np.isfinite([*seen.values()]).all()


def test_class_folders_are_split_one_in_five_and_train_and_val_are_taken_as_they_are(tmp_path):
    flat = draw(tmp_path / "flat", [f"{c}/{i}.png" for c in "ab" for i in range(6)])
    folder, train, val = monitor.split(flat)
    assert [str(folder.paths[i].relative_to(flat)) for i in val] == ["a/4.png", "b/4.png"]
    assert sorted([*train, *val]) == list(range(12))
    parts = draw(tmp_path / "parts", ["train/b/0.png", "train/a/x/1.png", "val/a/2.png", "val/b/3.png"])
    folder, train, val = monitor.split(parts)
    assert {folder.paths[i].name: int(folder.labels[i]) for i in train} == {"1.png": 0, "0.png": 1}
    assert {folder.paths[i].name: int(folder.labels[i]) for i in val} == {"2.png": 0, "3.png": 1}


@pytest.mark.parametrize(
    "names",
    [["0.png", "1.png"], ["a/0.png"], ["train/a/0.png", "train/b/0.png", "val/c/0.png"], ["a/0.png", "b/0.png"]],
)
def test_folders_without_labels_are_refused_before_the_run_begins(names, photos, tmp_path):
    draw(tmp_path / "wrong", names)
    with pytest.raises(ValueError, match="--monitor"):
        run(photos, tmp_path / "out", labelled=tmp_path / "wrong")
    assert not (tmp_path / "out").exists()


def test_an_absent_folder_is_named_with_the_option(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent: check --monitor"):
        monitor.split(tmp_path / "absent")


def test_a_sample_is_evenly_spaced():
    assert monitor.spaced(np.arange(100, 110), 4).tolist() == [100, 103, 106, 109]
    assert monitor.spaced(np.arange(3), 10).tolist() == [0, 1, 2]


class Constant(simsiam.SimSiam):
    """A method that makes every image look alike."""

    def forward(self, views, *rest):
        loss = super().forward(views, *rest)
        return loss * 0 + self.backbone.bn1.weight.square().sum()

    def after_update(self, progress):
        with torch.no_grad():
            self.backbone.layer4[1].bn2.weight.zero_()
            self.backbone.layer4[0].bn2.weight.zero_()
            self.backbone.layer4[0].downsample[1].weight.zero_()
            self.backbone.layer4[1].bn2.bias.fill_(1.0)


def test_a_collapse_is_warned_of(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(simsiam, "METHOD", Constant)
    monkeypatch.setattr(monitor, "MATURE", 3)
    run(photos, tmp_path / "out", method=simsiam, epochs=1)
    assert "collapsed after step 3: feature_std" in capsys.readouterr().err


def test_nothing_is_warned_of_before_batch_norm_has_seen_enough(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(simsiam, "METHOD", Constant)
    run(photos, tmp_path / "out", method=simsiam, epochs=1)
    assert "collapsed" not in capsys.readouterr().err


@pytest.mark.parametrize("method", [supervised, rotation])
def test_the_answers_of_a_classifier_are_no_outputs_that_could_collapse(method, photos, tmp_path):
    run(photos, tmp_path / "out", method, epochs=1)
    seen = log.lines(tmp_path / "out" / "log.jsonl")[0]
    assert "feature_rank" in seen and "output_rank" not in seen


def test_a_picture_comes_from_the_log_alone(tmp_path, monkeypatch):
    path = tmp_path / "log.jsonl"
    path.write_text(
        "".join(json.dumps({"epoch": e, "step": e, "loss": 3 - e}) + "\n" for e in range(3))
        + '{"epoch": 3, "knn": 20}\n{"ep'
    )
    with_knn = plot.draw(path, tmp_path / "one.png").read_bytes()
    with Image.open(tmp_path / "one.png") as picture:
        assert picture.size == (960, 720)
    path.write_text("".join(json.dumps({"epoch": e, "step": e, "loss": 3 - e}) + "\n" for e in range(3)))
    without = plot.draw(path, tmp_path / "two.png").read_bytes()
    assert hashlib.sha256(with_knn).digest() != hashlib.sha256(without).digest()
    path.write_text("")
    with pytest.raises(ValueError, match="has not begun"):
        plot.draw(path, tmp_path / "three.png")
    with pytest.raises(FileNotFoundError, match=r"log\.jsonl"):
        plot.draw(tmp_path / "absent.jsonl", tmp_path / "three.png")
    for name, sentence in (("log.jsonl", "has not begun"), ("absent.jsonl", "found no file")):
        monkeypatch.setattr(sys, "argv", ["plot", str(tmp_path / name)])
        with pytest.raises(SystemExit, match=sentence):
            runpy.run_path(plot.__file__, run_name="__main__")
