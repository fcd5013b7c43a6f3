import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain import recipes
from pretrain.data import Folder
from pretrain.methods import moco, pixpro, simclr, supervised, swav

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "pretrain" / "methods").glob("*.py") if not path.name.startswith("_"))
MODULES = {name: importlib.import_module(f"pretrain.methods.{name}") for name in NAMES}


@pytest.fixture
def photos(tmp_path):
    """24 images in 3 class folders."""
    for i in range(24):
        path = tmp_path / "photos" / "abc"[i % 3] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(path)
    return tmp_path / "photos"


@pytest.fixture
def imagenet(photos, monkeypatch):
    """The folder, as large as ImageNet."""
    folder = Folder(photos)
    monkeypatch.setattr(Folder, "__len__", lambda self: 1_281_167)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_the_mini_rule_changes_what_it_says_and_nothing_else(name):
    published, small = MODULES[name].recipe(), recipes.mini(MODULES[name].recipe(), 20_000, None)
    assert set(published) == set(small)
    changed = {key for key in published if published[key] != small[key]}
    assert changed <= {
        "size", "blur_sigma", "blur_kernel", "jigsaw_size", "jigsaw_patch", "batch_size", "epochs", "base_lr", "bias_lr",
        "warmup_epochs", "warmup_start", "schedule", "schedule_unit", "precision", "bn_group", "queue", "queue_epoch", "ema",
        "hidden", "dim", "negatives", "bank_start", "prototypes", "epsilon", "window",
    }  # fmt: skip
    assert (small["batch_size"], small["epochs"]) == (128, 10)
    assert small["blur_sigma"][1] == pytest.approx(published["blur_sigma"][1] * 64 / 224)
    # the learning rate: SGD's twice the linear rule's, with a bank a fifth, the others' by the root of the batch from the published one
    if published["optimiser"] == "sgd":
        assert recipes.peak(small) == pytest.approx(published["base_lr"] * (0.1 if "bank_start" in published else 1))
    else:
        assert recipes.peak(small) == pytest.approx(recipes.peak(published) * (128 / published["batch_size"]) ** 0.5)


def test_the_mini_rule_in_numbers():
    small = recipes.mini(moco.recipe(), 20_000, None)
    assert (small["size"], small["queue"], small["ema"], small["bn_group"]) == (64, 4096, 0.999, 32)
    small = recipes.mini(swav.recipe(), 20_000, None)
    assert (small["size"], small["prototypes"], small["queue"]) == ((64, 64, *(32,) * 6), 312, 0)
    small = recipes.mini(simclr.recipe("v1"), 20_000, None)
    assert small["blur_kernel"] == 7
    assert recipes.peak(small) == pytest.approx(4.8 * (128 / 4096) ** 0.5)
    window = recipes.mini({**moco.recipe(), "window": (131072, 16384)}, 20_000, None)["window"]
    assert window == (2048, 256)
    sides = recipes.mini({**moco.recipe(), "size": (224, 192, 160, 128, 96)}, 20_000, None)["size"]
    assert sides == (64, 56, 48, 40, 32)


@pytest.mark.parametrize("images", [2, 3, 5, 17, 100, 300, 1000, 20_000])
def test_the_mini_rule_fits_any_folder(images):
    small = recipes.mini({**moco.recipe(), "window": (131072, 16384), "negatives": 4096}, images, None)
    assert 2 <= small["batch_size"] <= min(images, 128)
    assert small["queue"] % small["batch_size"] == 0
    assert small["batch_size"] % small["bn_group"] == 0
    assert small["batch_size"] <= small["window"][0] <= images
    assert 1 <= small["negatives"] <= max(1, images // 2)


def test_milestones_keep_their_place_when_the_training_is_shorter(photos):
    recipe = recipes.resolved(moco, Folder(photos), "paper", "v1", 100, 8, {"queue": "16", "bn_group": "4"})
    assert recipe["milestones"] == (60, 80)
    assert recipe["lr"] == 0.03 * 8 / 256


@pytest.mark.parametrize("name", NAMES)
def test_the_paper_scale_is_the_published_recipe(name, imagenet):
    method = MODULES[name]
    recipe, published = recipes.resolved(method, imagenet, "paper"), method.recipe()
    assert {key for key in recipe if recipe[key] != published.get(key)} <= {"lr", "classes", "images"}


@pytest.mark.parametrize(
    ("method", "variant", "lr"),
    [(moco, None, 0.03), (pixpro, None, 4.0), (supervised, None, 0.1), (simclr, "v1", 4.8), (simclr, "v2", 6.4), (swav, None, 4.8)],
)  # fmt: skip
def test_the_published_learning_rates_follow_from_the_rules(method, variant, lr, imagenet):
    assert recipes.resolved(method, imagenet, "paper", variant)["lr"] == pytest.approx(lr)


def test_values_of_every_view_are_given_one_after_the_other():
    areas = ((0.14, 1.0), (0.05, 0.14))
    assert recipes.parsed("crop_area", "0.2,1,0.1,0.2", areas) == ((0.2, 1.0), (0.1, 0.2))
    assert recipes.parsed("size", "32, 16", (64, 32)) == (32, 16)
    assert recipes.parsed("strong", "true,0", (False, True)) == (True, False)
    for key, text, default in (
        ("crop_area", "0.2,1,0.1", areas),
        ("size", "32", (64, 32)),
        ("strong", "x,0", (True, True)),
    ):
        with pytest.raises(ValueError, match=f"expected {key} to look like"):
            recipes.parsed(key, text, default)


def test_the_number_of_images_and_classes_follow_from_the_folder(photos):
    folder = Folder(photos)
    assert recipes.resolved(supervised, folder, "mini")["classes"] == 3
    assert recipes.resolved(swav, folder, "mini")["images"] == 24
    with pytest.raises(ValueError, match="follows from the method and the data"):
        recipes.resolved(swav, folder, "mini", overrides={"images": "9"})


def test_a_window_larger_than_the_folder_says_the_way_out(photos):
    pic = MODULES["pic"]
    with pytest.raises(ValueError, match="window=24,3"):
        recipes.resolved(pic, Folder(photos), "paper", batch_size=8)
