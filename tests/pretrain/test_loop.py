import hashlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from pretrain import checkpoint, dist, log, loop, memory, optim
from pretrain.methods import moco, pixpro, simsiam, supervised

METHODS = [moco, pixpro, simsiam, supervised]
ROOT = Path(__file__).resolve().parents[2]
QUICK = {"size": "32"}


@pytest.fixture
def photos(tmp_path):
    """24 images in 3 class folders."""
    rng = np.random.default_rng(0)
    for i in range(24):
        path = tmp_path / "photos" / "abc"[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def run(method, photos, out, **changes):
    options = {"arch": "resnet18", "scale": "mini", "epochs": 2, "batch_size": 8, "overrides": QUICK, **changes}
    if method is pixpro:
        options["overrides"] = {**options["overrides"], "hidden": "16"}
    return loop.run(method, photos, out, **options)


@pytest.mark.parametrize("method", METHODS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_the_backbone_is_torchvisions_without_fc(method, photos, tmp_path):
    path = run(method, photos, tmp_path / "out", epochs=1)
    tensors = torch.load(path, weights_only=True)
    net = torchvision.models.resnet18()
    net.fc = torch.nn.Identity()
    net.load_state_dict(tensors, strict=True)
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32, torch.int64}
    about = json.loads((tmp_path / "out" / "backbone.json").read_text())
    assert about["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert about["images_seen"] == 24
    assert about["data"] == {"folder": "photos", "images": 24}
    assert about["recipe"]["lr"] == about["recipe"]["base_lr"] * 8 / 256
    assert str(tmp_path) not in json.dumps(about)
    lines = log.lines(tmp_path / "out" / "log.jsonl")
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 3]  # before, three steps, after the epoch
    assert {"epoch", "step", "loss", "lr", "images_per_second"} <= set(lines[1])
    assert about["loss"] == {"first": lines[1]["loss"], "last": lines[3]["loss"]}


class Remembering(moco.MoCo):
    """MoCo with every hook, each leaving a trace in a bank that the loss reads and in the weights."""

    def __init__(self, arch, recipe):
        super().__init__(arch, recipe)
        self.bank = memory.Bank(24, 128)
        self.register_buffer("centre", torch.zeros(3))

    def forward(self, views, boxes, labels, progress, indices):
        rows = self.bank.bank[self.bank.drawn(indices, 4)]  # [N, 5, C]
        self.bank.update(indices, rows.mean(dim=1) + progress, 0.5)
        return super().forward(views) + self.head(self.backbone(views[0])).float().mul(rows[:, 1]).mean()

    def before_epoch(self, epoch):
        self.bank.bank.mul_(1 + epoch * torch.rand(1))

    def survey(self, epoch, images):
        seen = [(views[0].mean(dim=(0, 2, 3)), indices) for views, indices in images]
        assert sorted(torch.cat([indices for _, indices in seen]).tolist()) == list(range(24))
        self.centre += torch.stack([mean for mean, _ in seen]).mean(dim=0)

    def before_update(self, step, per_epoch):
        self.head[0].weight.grad = None if step < 2 else self.head[0].weight.grad

    def after_update(self, progress):
        with torch.no_grad():
            self.head[0].bias.add_(self.centre.mean() + progress)


@pytest.fixture
def remembering(monkeypatch):
    monkeypatch.setattr(moco, "METHOD", Remembering)


def test_a_run_stopped_after_any_step_and_resumed_equals_an_uninterrupted_one(
    remembering, photos, tmp_path, monkeypatch
):
    run(moco, photos, tmp_path / "whole", labelled=photos)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0)  # last.pth after every step
    replace = log.replace

    def killed(path, write):
        replace(path, write)
        if path.name == "last.pth":
            raise KeyboardInterrupt

    monkeypatch.setattr(log, "replace", killed)
    for _ in range(5):  # once after each of the six steps
        with pytest.raises(KeyboardInterrupt):
            run(moco, photos, tmp_path / "parts", resume=True, labelled=photos)
    with pytest.raises(KeyboardInterrupt):
        run(moco, photos, tmp_path / "parts", resume=True, labelled=photos)
    monkeypatch.setattr(log, "replace", replace)
    run(moco, photos, tmp_path / "parts", resume=True, labelled=photos)
    whole, parts = (torch.load(tmp_path / name / "last.pth", weights_only=True) for name in ("whole", "parts"))
    assert all(torch.equal(tensor, parts["model"][name]) for name, tensor in whole["model"].items())
    assert (tmp_path / "whole" / "backbone.pth").read_bytes() == (tmp_path / "parts" / "backbone.pth").read_bytes()
    lines = [
        [{**line, "images_per_second": 0} for line in log.lines(tmp_path / name / "log.jsonl")]
        for name in ("whole", "parts")
    ]
    assert lines[0] == lines[1]
    assert [line["step"] for line in lines[0]] == [0, 1, 2, 3, 3, 4, 5, 6, 6]


def test_the_hooks_are_called_in_their_places(photos, tmp_path, monkeypatch):
    called = []

    class Calling(moco.MoCo):
        def forward(self, *arguments):
            called.append(("forward", arguments[4].tolist()))
            return super().forward(*arguments)

        def before_epoch(self, epoch):
            called.append(("before_epoch", epoch))

        def survey(self, epoch, images):
            called.append(("survey", epoch))

        def before_update(self, step, per_epoch):
            assert self.head[0].weight.grad is not None
            called.append(("before_update", step, per_epoch))

        def after_update(self, progress):
            called.append(("after_update", round(progress * 6)))

    monkeypatch.setattr(moco, "METHOD", Calling)
    run(moco, photos, tmp_path / "out")
    for epoch in (0, 1):
        expected = ["before_epoch", "survey"] + ["forward", "before_update", "after_update"] * 3
        mine = called[epoch * 11 : (epoch + 1) * 11]
        assert [call[0] for call in mine] == expected
        assert mine[0][1] == mine[1][1] == epoch
        assert [call[1:] for call in mine if call[0] == "before_update"] == [(3 * epoch + s, 3) for s in range(3)]
        assert [call[1] for call in mine if call[0] == "after_update"] == [3 * epoch + s for s in range(3)]
        assert sorted(i for call in mine if call[0] == "forward" for i in call[1]) == list(range(24))


def test_a_recipes_mean_and_std_reach_the_method_and_the_traits(photos, tmp_path, monkeypatch):
    published = moco.recipe()
    monkeypatch.setattr(moco, "recipe", lambda variant: {**published, "mean": (0.0, 0.0, 0.0), "std": (255.0,) * 3})

    class Bright(moco.MoCo):
        def forward(self, views, *rest):
            assert all(x.min() >= 0 and x.max() <= 1 for x in views)
            return super().forward(views, *rest)

    monkeypatch.setattr(moco, "METHOD", Bright)
    run(moco, photos, tmp_path / "out", epochs=1)
    traits = json.loads((tmp_path / "out" / "backbone.json").read_text())["traits"]
    assert (traits["mean"], traits["std"], traits["channel_order"]) == ([0.0] * 3, [255.0] * 3, "RGB")


SCRIPT = """
import sys, torch
from pathlib import Path
from pretrain import loop
from pretrain.methods import simsiam
torch.set_num_threads(1)
photos, out = map(Path, sys.argv[1:])
options = {"size": "32", "dim": "16", "predictor_hidden": "8", "precision": "fp32", "warmup_epochs": "0"}
loop.run(simsiam, photos, out, arch="resnet18", scale="mini", epochs=1, batch_size=12, overrides=options, labelled=photos)
"""


def test_two_processes_without_cuda_end_where_one_does(photos, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}

    def started(out, rank, size):
        own = {"PYTHONPATH": str(ROOT), "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
        return subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(photos), str(tmp_path / out)], env={**os.environ, **shared, **own}
        )

    assert [p.wait(200) for p in [started("two", 0, 2), started("two", 1, 2), started("one", 0, 1)]] == [0, 0, 0]
    one, two = (torch.load(tmp_path / name / "backbone.pth", weights_only=True) for name in ("one", "two"))
    for name, tensor in one.items():
        if tensor.is_floating_point():
            assert (tensor - two[name]).abs().max() <= 1e-3 * tensor.abs().max() + 1e-5, name
    lines = [log.lines(tmp_path / name / "log.jsonl") for name in ("one", "two")]
    assert [line["step"] for line in lines[1]] == [0, 1, 2, 2]
    for one_line, other in zip(*lines, strict=True):
        assert one_line.keys() == other.keys()
        assert one_line.get("knn") == other.get("knn")
        if "loss" in one_line:  # of all processes' images, as the statistics are
            assert other["loss"] == pytest.approx(one_line["loss"], abs=1e-3)


def test_features_are_looked_at_with_the_first_processs_statistics(photos, tmp_path, monkeypatch):
    order, features = [], loop.Training.features
    monkeypatch.setattr(dist, "as_first", lambda *tensors: order.append(len(tensors)))
    monkeypatch.setattr(loop.Training, "features", lambda self, x: order.append("look") or features(self, x))
    run(supervised, photos, tmp_path / "out", epochs=1)
    assert order[:21] == [3] * 20 + ["look"]  # a mean, a variance and a counter of each of 20 batch norms
    assert order.count(3) == 2 * 20  # before the training and after its epoch


def test_a_finished_run_is_not_repeated_and_another_call_is_refused(photos, tmp_path):
    path = run(supervised, photos, tmp_path / "out", epochs=1)
    written = path.stat().st_mtime_ns
    assert run(supervised, photos, tmp_path / "out", epochs=1, resume=True) == path
    assert path.stat().st_mtime_ns == written
    whole = path.read_bytes()
    for damage in (path.unlink, lambda: path.write_bytes(whole[:1000]), (tmp_path / "out" / "backbone.json").unlink):
        damage()
        assert run(supervised, photos, tmp_path / "out", epochs=1, resume=True).read_bytes() == whole
        assert (
            json.loads((tmp_path / "out" / "backbone.json").read_text())["sha256"] == hashlib.sha256(whole).hexdigest()
        )
    with pytest.raises(ValueError, match="--resume"):
        run(supervised, photos, tmp_path / "out", epochs=1)
    with pytest.raises(ValueError, match="epochs 1 -> 3"):
        run(supervised, photos, tmp_path / "out", epochs=3, resume=True)
    image = photos / "a" / "0.png"
    other = image.rename(photos / "a" / "00.png")
    with pytest.raises(ValueError, match=r"expected the images that began .*last.pth, found as many with other names"):
        run(supervised, photos, tmp_path / "out", epochs=1, resume=True)
    other.rename(tmp_path / "0.png")
    with pytest.raises(ValueError, match=r"found changes \(images 24 -> 23\): call as before, or choose"):
        run(supervised, photos, tmp_path / "out", epochs=1, resume=True)
    (tmp_path / "0.png").rename(image)
    changed = {**QUICK, "warmup_epochs": "0.5"}
    with pytest.raises(ValueError, match=r"call as before, or with warmup_epochs=0.1, or choose"):
        run(supervised, photos, tmp_path / "out", epochs=1, resume=True, overrides=changed)
    changed = {**QUICK, "milestones": "1,2", "schedule": "step"}
    with pytest.raises(ValueError, match=r"call as before, or with schedule=cosine milestones=3,6, or choose"):
        run(supervised, photos, tmp_path / "out", epochs=1, resume=True, overrides=changed)
    moved = photos.rename(tmp_path / "moved")
    assert run(supervised, moved, tmp_path / "out", epochs=1, resume=True) == path
    moved.rename(photos)
    (tmp_path / "out" / "last.pth").write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"last\.pth"):
        run(supervised, photos, tmp_path / "out", epochs=1, resume=True)


def test_processes_that_do_not_see_the_same_checkpoint_do_not_wait_for_one_another(monkeypatch, tmp_path):
    process = dist.Process(0, 2, torch.device("cpu"))
    monkeypatch.setattr(checkpoint.dist, "gathered", lambda step: torch.cat([step, torch.tensor([0])]))
    checkpoint.shared(tmp_path, None, process)
    with pytest.raises(ValueError, match="found step 7 by process 0, step none by process 1: --out must be a folder"):
        checkpoint.shared(tmp_path, {"step": 7}, process)


def test_a_loss_that_is_not_finite_ends_the_run_with_rate_batch_and_step(photos, tmp_path):
    with pytest.raises(FloatingPointError, match=r"finite loss.*lr .*batch 8, step"):
        run(supervised, photos, tmp_path / "out", epochs=20, overrides={**QUICK, "lr": "1e30", "warmup_epochs": "0"})
    assert not (tmp_path / "out" / "backbone.pth").exists()


def test_the_step_that_is_named_is_the_first_whose_loss_was_not_finite_and_nothing_is_saved_behind_it(
    photos, tmp_path, monkeypatch
):
    class Broken(moco.MoCo):
        steps = 0

        def forward(self, *arguments):
            self.steps += 1
            return super().forward(*arguments) * (float("inf") if self.steps >= 3 else 1)

    monkeypatch.setattr(moco, "METHOD", Broken)
    folder = loop.Folder(photos)
    recipe = loop.resolved(moco, folder, "mini", batch_size=8, overrides=QUICK)
    training = loop.Training(Broken("resnet18", recipe), folder, {"recipe": recipe, "seed": 0}, dist.process())
    for step in range(5):  # nothing waits for the loss
        training.update(*training.source.batch(step))
    message = rf"found inf at lr {optim.learning_rate(2, 3, recipe):.6g}, batch 8, step 3 of 30"
    for ending in (training.check, training.state):
        with pytest.raises(FloatingPointError, match=message):
            ending()
    with pytest.raises(FloatingPointError, match="step 3 of 30"):
        run(moco, photos, tmp_path / "out", epochs=10)
    assert not (tmp_path / "out" / "last.pth").exists()


def test_bfloat16_follows_the_loss_of_float32(photos, tmp_path):
    losses = {}
    for precision in ("fp32", "bf16"):
        out = tmp_path / precision
        run(supervised, photos, out, epochs=8, overrides={**QUICK, "precision": precision, "warmup_epochs": "1"})
        losses[precision] = np.array([line["loss"] for line in log.lines(out / "log.jsonl") if "loss" in line])
        assert json.loads((out / "backbone.json").read_text())["recipe"]["precision"] == precision
    assert np.abs(losses["bf16"][:2] - losses["fp32"][:2]).max() < 0.05  # before the paths part
    assert abs(losses["bf16"].mean() - losses["fp32"].mean()) < 0.2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overrides": {"temperatur": "0.1"}}, "did you mean temperature"),
        ({"overrides": {"temperature": "warm"}}, "temperature to look like"),
        ({"overrides": {"crop_area": "0.2"}}, "crop_area to look like"),
        ({"arch": "resnet19"}, "did you mean 'resnet1"),
        ({"scale": "tiny"}, "paper or mini"),
        ({"variant": "v9"}, "v1 or v2"),
        ({"scale": "paper", "batch_size": None}, "--batch-size 24"),
        ({"overrides": {"queue": "9"}}, "queue=8"),
        ({"overrides": {"warmup_epochs": "5"}}, "warmup_epochs=0.2"),
    ],
)
def test_a_wrong_call_says_the_way_out_and_writes_nothing(changes, message, photos, tmp_path):
    with pytest.raises(ValueError, match=message):
        run(moco, photos, tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA has half precision")
def test_half_precision_without_cuda_says_the_way_out(photos, tmp_path):
    with pytest.raises(ValueError, match="precision=bf16"):
        run(pixpro, photos, tmp_path / "out", scale="paper", epochs=6)
    assert not (tmp_path / "out").exists()


def test_supervised_wants_class_folders(tmp_path, photos):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in list(photos.rglob("*.png"))[:8]:
        path.rename(flat / path.name)
    with pytest.raises(ValueError, match="class folders"):
        run(supervised, flat, tmp_path / "out", batch_size=4)
    assert run(moco, flat, tmp_path / "out", batch_size=4, epochs=1).exists()  # the others do not


@pytest.mark.parametrize("method", [moco, supervised], ids=["moco", "supervised"])
@pytest.mark.parametrize("splits", [("train", "val"), ("train2017", "test2017")])
def test_test_images_are_not_pretrained_on_because_the_folder_above_the_splits_was_named(
    tmp_path, photos, method, splits
):
    for letter, split in zip("ab", splits, strict=True):
        (photos / letter).rename(tmp_path / letter)
        (photos / split).mkdir()
        (tmp_path / letter).rename(photos / split / "n0")
    with pytest.raises(ValueError, match=rf"found the splits .*: --data .*photos/{splits[0]}"):
        run(method, photos, tmp_path / "out", batch_size=4)
    assert not (tmp_path / "out").exists()
    # vehicles, not a split
    (photos / splits[1]).rename(photos / "aeroplane")
    assert run(moco, photos, tmp_path / "out", batch_size=4, epochs=1).exists()


def test_the_time_left_is_shown_by_a_narrow_terminal_and_in_lines_where_no_bar_can_be(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    for term, shown in (("xterm", "moco v2 500/1000  0:00:50 left  loss"), ("dumb", ", 0:00:50 left")):
        monkeypatch.setenv("TERM", term)
        with log.progress("moco v2", 100, 1000, 0, True) as show:
            show(500, torch.tensor(6.5), 1000.0)
        assert shown in capsys.readouterr().err
