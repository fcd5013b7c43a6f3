import hashlib
import importlib
import json

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from pretrain import loop
from pretrain.data import Folder
from pretrain.methods import moco, pixpro, simsiam, supervised

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
METHODS = [moco, pixpro, simsiam, supervised]
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
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert {"epoch", "step", "loss", "lr", "images_per_second"} <= set(lines[0])


@pytest.mark.parametrize("method", [moco, pixpro], ids=["moco", "pixpro"])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(method, photos, tmp_path, monkeypatch):
    run(method, photos, tmp_path / "whole")
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0)  # last.pth after every step
    replace, saves = loop._replace, []

    def killed(path, write):
        replace(path, write)
        saves.append(path.name)
        if saves.count("last.pth") == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_replace", killed)
    with pytest.raises(KeyboardInterrupt):
        run(method, photos, tmp_path / "parts")  # in the middle of the first epoch
    assert torch.load(tmp_path / "parts" / "last.pth", weights_only=True)["step"] == 2
    monkeypatch.setattr(loop, "_replace", replace)
    run(method, photos, tmp_path / "parts", resume=True)
    whole, parts = (torch.load(tmp_path / name / "last.pth", weights_only=True) for name in ("whole", "parts"))
    assert all(torch.equal(tensor, parts["model"][name]) for name, tensor in whole["model"].items())
    steps = [json.loads(line)["step"] for line in (tmp_path / "parts" / "log.jsonl").read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_finished_run_is_not_repeated_and_another_call_is_refused(photos, tmp_path):
    path = run(supervised, photos, tmp_path / "out", epochs=1)
    written = path.stat().st_mtime_ns
    assert run(supervised, photos, tmp_path / "out", epochs=1, resume=True) == path
    assert path.stat().st_mtime_ns == written
    with pytest.raises(ValueError, match="--resume"):
        run(supervised, photos, tmp_path / "out", epochs=1)
    with pytest.raises(ValueError, match="epochs 1 -> 3"):
        run(supervised, photos, tmp_path / "out", epochs=3, resume=True)
    (tmp_path / "out" / "last.pth").write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"last\.pth"):
        run(supervised, photos, tmp_path / "out", epochs=1, resume=True)


def test_a_loss_that_is_not_finite_ends_the_run_with_rate_batch_and_step(photos, tmp_path):
    with pytest.raises(FloatingPointError, match=r"finite loss.*lr .*batch 8, step"):
        run(supervised, photos, tmp_path / "out", epochs=20, overrides={**QUICK, "lr": "1e30", "warmup_epochs": "0"})
    assert not (tmp_path / "out" / "backbone.pth").exists()


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


def test_supervised_is_not_fooled_by_the_folders_of_the_splits(tmp_path, photos):
    photos.joinpath("a").rename(tmp_path / "photos" / "train")
    photos.joinpath("b").rename(tmp_path / "photos" / "val")
    for path in photos.joinpath("c").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="photos/train"):
        run(supervised, photos, tmp_path / "out", batch_size=4)


@pytest.mark.parametrize(
    ("method", "variant"), [(moco, "v1"), (moco, "v2"), (pixpro, None), (simsiam, None), (supervised, None)]
)
def test_the_mini_rule_changes_what_it_says_and_nothing_else(method, variant):
    published, small = method.recipe(variant), loop.mini(method.recipe(variant), 20_000, None)
    assert set(published) == set(small)
    changed = {key for key in published if published[key] != small[key]}
    assert changed <= {
        "size", "blur_sigma", "batch_size", "epochs", "base_lr", "warmup_epochs", "warmup_start", "schedule",
        "schedule_unit", "precision", "bn_group", "queue", "ema",
    }  # fmt: skip
    assert (small["size"], small["batch_size"], small["epochs"]) == (64, 128, 10)
    assert small["base_lr"] == 2 * published["base_lr"]
    assert small["blur_sigma"][1] == pytest.approx(2 * 64 / 224)
    if method is moco:
        assert (small["queue"], small["ema"], small["bn_group"]) == (4096, 0.99, 32)


@pytest.mark.parametrize("images", [2, 3, 5, 17, 100, 300, 1000, 20_000])
def test_the_mini_rule_fits_any_folder(images):
    small = loop.mini(moco.recipe(), images, None)
    assert 2 <= small["batch_size"] <= min(images, 128)
    assert small["queue"] % small["batch_size"] == 0
    assert small["batch_size"] % small["bn_group"] == 0


def test_milestones_keep_their_place_when_the_training_is_shorter(photos):
    recipe = loop.resolved(moco, Folder(photos), "paper", "v1", 100, 8, {"queue": "16", "bn_group": "4"})
    assert recipe["milestones"] == (60, 80)
    assert recipe["lr"] == 0.03 * 8 / 256


def test_the_paper_scale_is_the_published_recipe(photos, monkeypatch):
    for method in METHODS:
        folder = Folder(photos)
        monkeypatch.setattr(Folder, "__len__", lambda self: 1_281_167)
        recipe = loop.resolved(method, folder, "paper")
        monkeypatch.undo()
        published = method.recipe()
        assert {key for key in recipe if recipe[key] != published.get(key)} <= {"lr", "classes"}
        assert (
            recipe["lr"]
            == {"moco": 0.03, "simsiam": 0.1, "pixpro": 4.0, "supervised": 0.1}[method.__name__.rpartition(".")[2]]
        )


def test_every_method_file_has_a_recipe_and_one_class():
    for name in ("moco", "pixpro", "simsiam", "supervised"):
        module = importlib.import_module(f"pretrain.methods.{name}")
        assert module.__doc__
        assert issubclass(module.METHOD, torch.nn.Module)
        with pytest.raises(ValueError, match="variant"):
            module.recipe("nonsense")
