import importlib
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from pretrain import augmentations, recipes
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
        "hidden", "dim", "negatives", "bank_start", "prototypes", "epsilon", "window", "permutations",
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


@pytest.mark.parametrize(
    ("name", "variant", "epochs", "warmup"),
    [
        ("simclr", "v2", 100, 5),
        ("simclr", "v2", 40, 2),
        ("simclr", "v1", 100, 10),  # the README's flag
        ("simclr_distill", None, 100, 5),
        ("pic", "multi", 400, 10),  # scripts/PIC.sh: epochs / 40
        ("pic", "single", 400, 5),
        ("byol", None, 300, 10),
    ],
)
def test_a_warm_up_that_is_a_share_of_the_epochs_in_the_source_follows_them(name, variant, epochs, warmup, imagenet):
    resolved = partial(recipes.resolved, MODULES[name], imagenet, "paper", variant)
    assert resolved(epochs)["warmup_epochs"] == pytest.approx(warmup)
    assert resolved(overrides={"epochs": str(epochs)})["warmup_epochs"] == pytest.approx(warmup)
    assert resolved(epochs, overrides={"warmup_epochs": "3"})["warmup_epochs"] == 3


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


@pytest.mark.parametrize("scale", ["paper", "mini"])
def test_a_recipe_that_lacks_fields_is_refused_by_their_names(scale, photos):
    method = SimpleNamespace(__name__="pretrain.methods.mine", recipe=lambda variant: dict(augmentations.MOCO2))
    message = "^expected the recipe of mine .* without variant, epochs, .*, either end_lr or end_factor: .*optim.X"
    with pytest.raises(ValueError, match=message):
        recipes.resolved(method, Folder(photos), scale, epochs=1)


def test_values_of_every_view_are_given_one_after_the_other():
    areas = ((0.14, 1.0), (0.05, 0.14))
    assert recipes.parsed("crop_area", "0.2,1,0.1,0.2", areas) == ((0.2, 1.0), (0.1, 0.2))
    assert recipes.parsed("size", "32, 16", (64, 32)) == (32, 16)
    assert recipes.parsed("strong", "true,0", (False, True)) == (True, False)
    published = MODULES["infomin"].recipe()["randaugment"]
    assert recipes.parsed("randaugment", "1,5,0.2,2,9,0.5,None", published) == ((1, 5, 0.2), (2, 9, 0.5), None)
    for key, text, default in (
        ("crop_area", "0.2,1,0.1", areas),
        ("size", "32", (64, 32)),
        ("strong", "x,0", (True, True)),
        ("randaugment", "1,5,0.2,2,9,0.5,3", published),
    ):
        with pytest.raises(ValueError, match=f"expected {key} to look like"):
            recipes.parsed(key, text, default)


def test_the_number_of_images_and_classes_follow_from_the_folder(photos):
    folder = Folder(photos)
    assert recipes.resolved(supervised, folder, "mini")["classes"] == 3
    assert recipes.resolved(swav, folder, "mini")["images"] == 24
    with pytest.raises(ValueError, match="follows from the method and the data"):
        recipes.resolved(swav, folder, "mini", overrides={"images": "9"})
    with pytest.raises(
        ValueError, match="found strong: it follows from the method"
    ):  # clsa.py takes the views by their place
        recipes.resolved(MODULES["clsa"], folder, "mini", overrides={"strong": "false,true,false"})


def test_a_window_larger_than_the_folder_says_the_way_out(photos):
    pic = MODULES["pic"]
    with pytest.raises(ValueError, match="window=24,3"):
        recipes.resolved(pic, Folder(photos), "paper", batch_size=8)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("moco", "crop_area=2,3", "crop_area above 0 and at most 1"),
        ("moco", "crop_area=0,0", "crop_area above 0 and at most 1"),
        ("moco", "crop_area=-1,1", "crop_area above 0 and at most 1"),
        ("moco", "crop_area=0.8,0.2", "crop_area from the lower to the higher"),
        ("swav", "crop_area=0.2,1,0.2,1" + ",0.2,0.1" * 6, "crop_area from the lower to the higher"),
        ("moco", "temperature=-0.2", "temperature above 0"),
        ("moco", "ema=2", "ema from 0 to 1"),
        ("moco", "dim=0", "dim at least 1"),
        ("moco", "jitter=0.4,0.4,0.4,0.9", "the hue of jitter, its last number, at most 0.5"),
        ("moco", "jitter=nan,0.4,0.4,0.1", "jitter finite"),
        ("moco", "jitter=1.5,0.4,0.4,0.1", "jitter from 0 to 1"),
        ("moco", "sync_bn=true", "sync_bn false with bn_group"),
        ("moco", "blur_sigma=nan,1", "blur_sigma finite"),
        ("moco", "warmup_epochs=nan", "warmup_epochs finite"),
        ("moco", "queue=0", "a queue that is a multiple of the batch 8, 8 or more, found 0: queue=8"),
        ("densecl", "queue=-8", "a queue that is a multiple of the batch 8, 8 or more, found -8: queue=8"),
        ("swav", "queue=-8", "a queue that is a multiple of the batch 8, 0 or more, found -8"),
        ("pic", "large=0", "large at least 1"),
        ("simclr", "layers=0", "layers at least 1"),
        ("swav", "prototypes=1", "prototypes at least 2"),
        ("swav", "sinkhorn_iterations=0", "sinkhorn_iterations at least 1"),
        ("deepcluster", "iterations=-1", "iterations at least 1"),
        ("deepcluster", "sets=0", "sets at least 1"),
        ("pixpro", "positive_ratio=0", "positive_ratio above 0"),
        ("infomin", "patch_weight=2", "patch_weight from 0 to 1"),
        ("moco", "weight_decay=-0.0001", "weight_decay 0 or more"),
        ("moco", "warmup_epochs=-1", "warmup_epochs 0 or more"),
        ("byol", "end_lr=-1", "end_lr 0 or more"),
        ("barlowtwins", "base_lr=0", "base_lr above 0"),
        ("moco", "lr=nan", "lr finite"),
        ("moco", "lr=-1", "lr above 0"),
        ("byol", "ema_schedule=constant", "ema_schedule cosine, found 'constant'"),
        ("byol", "schedule_unit=steps", "schedule_unit epoch or step, found 'steps'"),
        ("moco", "schedule=linear", "schedule cosine or step, found 'linear'"),
        ("byol", "interpolation=lanczos", "interpolation bilinear or bicubic, found 'lanczos'"),
        ("moco", "optimiser=adam", "optimiser sgd or lars or larc, found 'adam'"),
        ("moco", "precision=fp64", "precision fp32 or bf16 or fp16, found 'fp64'"),
        ("simclr", "lr_rule=log", "lr_rule linear or sqrt, found 'log'"),
        ("instdisc", "form=hinge", "form nce or softmax, found 'hinge'"),
        ("instdisc", "bank_start=zeros", "bank_start random or images, found 'zeros'"),
        ("simclr", "blur_kernel=22", "blur_kernel odd"),
        ("pirl", "jigsaw_patch=33", "jigsaw_patch at most a third of jigsaw_size 96, found 33: .* jigsaw_size=99"),
    ],
)
def test_a_number_that_its_field_cannot_be_is_refused_by_name(name, text, message, photos):
    key, value = text.split("=")
    with pytest.raises(ValueError, match=f"^expected {message}"):
        recipes.resolved(MODULES[name], Folder(photos), "mini", batch_size=8, overrides={key: value})


@pytest.mark.parametrize("scale", ["paper", "mini"])
def test_a_single_image_wants_more_and_no_smaller_batch(scale, tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"found 1: more images$"):
        recipes.resolved(moco, Folder(tmp_path), scale)


@pytest.mark.parametrize("scale", ["paper", "mini"])
@pytest.mark.parametrize(("method", "size"), [(moco, 0), (simclr, -4), (swav, 1)])
def test_a_batch_of_fewer_than_two_images_is_refused_before_anything_follows_from_it(method, size, scale, photos):
    with pytest.raises(
        ValueError, match=f"^expected a batch of at least 2 images .*found {size}: a larger --batch-size$"
    ):
        recipes.resolved(method, Folder(photos), scale, overrides={"batch_size": str(size)})


def test_swav_can_do_without_a_queue_and_the_ends_of_the_limits_are_allowed(photos):
    folder = Folder(photos)
    assert recipes.resolved(swav, folder, "mini", "400ep_bs256", batch_size=8, overrides={"queue": "0"})["queue"] == 0
    asked = {"crop_area": "1,1", "ema": "1", "jitter": "0,0,0,0.5", "blur_sigma": "0,0", "queue": "8"}
    assert recipes.resolved(moco, folder, "mini", batch_size=8, overrides=asked)["crop_area"] == (1, 1)
    patches = recipes.resolved(MODULES["pirl"], folder, "mini", overrides={"jigsaw_patch": "32"})
    assert patches["jigsaw_patch"] == 32


@pytest.mark.parametrize(("size", "fit"), [(8, "1, 2, 4"), (7, "1")])
def test_every_process_has_two_images_or_more(size, fit, photos, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    message = rf"2 images or more each \({fit}\), found 8: start one of these, or --batch-size 16, "
    with pytest.raises(ValueError, match=message):
        recipes.resolved(moco, Folder(photos), "mini", batch_size=size)
    assert recipes.resolved(moco, Folder(photos), "mini", batch_size=16)["batch_size"] == 16


def test_shuffled_batch_norm_in_one_group_is_warned_of(photos, monkeypatch):
    folder = Folder(photos)
    one = recipes.resolved(moco, folder, "paper", batch_size=8, overrides={"queue": "8"})
    assert "the 8 images as one group (bn_group 32)" in recipes.leak(one) and "; bn_group=2 hides" in recipes.leak(one)
    several = recipes.resolved(moco, folder, "paper", batch_size=8, overrides={"queue": "8", "bn_group": "4"})
    unshuffled = recipes.resolved(swav, folder, "mini", "400ep_bs256", batch_size=8)
    assert recipes.leak(several) is None and recipes.leak(unshuffled) is None
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert recipes.leak(one) is None
