"""Classification on ImageNet's layout: the papers' recipes, the data, and whole runs on a few drawn images."""

import dataclasses
import json
import math
import os
import shutil
import socket
import struct
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from downstream import classification, weights
from downstream.neighbours import vote
from downstream.synthetic import synthesize
from downstream.task import TRAITS, Classification, digest, iterations, mini, overridden, tolerant
from downstream.tasks import (
    imagenet_knn,
    imagenet_linear,
    imagenet_linear_moco_v3,
    imagenet_linear_pycontrast,
    imagenet_linear_simclr,
    imagenet_linear_simsiam,
    imagenet_linear_swav,
    imagenet_linear_vicreg,
    imagenet_semi_1,
    imagenet_semi_1_simclr,
    imagenet_semi_10,
    imagenet_semi_10_simclr,
)
from downstream.trial import Place

LINEAR, SIMSIAM, KNN = imagenet_linear.TASK, imagenet_linear_simsiam.TASK, imagenet_knn.TASK
SEMI_1, SEMI_10 = imagenet_semi_1.TASK, imagenet_semi_10.TASK
SWAV, MOCO_V3, VICREG = imagenet_linear_swav.TASK, imagenet_linear_moco_v3.TASK, imagenet_linear_vicreg.TASK
PYCONTRAST, SIMCLR = imagenet_linear_pycontrast.TASK, imagenet_linear_simclr.TASK
SIMCLR_1, SIMCLR_10 = imagenet_semi_1_simclr.TASK, imagenet_semi_10_simclr.TASK
TASKS = (LINEAR, SIMSIAM, SWAV, MOCO_V3, VICREG, PYCONTRAST, SIMCLR, KNN, SEMI_1, SEMI_10, SIMCLR_1, SIMCLR_10)
SMALL: dict[str, Any] = {"view": 32, "resize": 36, "batch": 16}
TINY = dataclasses.replace(LINEAR, name="tiny", **SMALL, epochs=2, lr=1.0, steps=(1,))
TINY_KNN = dataclasses.replace(KNN, name="tiny_knn", **SMALL, neighbours=(20, 5))
TINY_SEMI = dataclasses.replace(SEMI_10, name="tiny_semi", **SMALL, labels=50, epochs=2, steps=(1,))
TINY_SIMCLR = dataclasses.replace(SIMCLR_10, name="tiny_simclr", **SMALL, labels=50, epochs=2, lr=0.1)
ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("DETECTRON2_DATASETS") or ROOT.parent / "shared" / "data")


@pytest.fixture(scope="module")
def resnet18() -> dict[str, torch.Tensor]:
    """Weights under torchvision's names, with norms that are not the identity."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
    return {k: v for k, v in model.state_dict().items() if not k.startswith("fc.")}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 classes of 4 training images and one test image."""
    out = tmp_path_factory.mktemp("drawn")
    synthesize(out, voc=0, coco=0, cityscapes=0, imagenet=4, side=96)
    return out


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three classes of plain colours, 70x50 pixels, four training and two test images each."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        for number, colour in enumerate(((220, 40, 40), (40, 220, 40), (40, 40, 220))):
            folder = tmp_path / "data/imagenet" / split / f"n{number}"
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(np.array(colour) + draw.integers(-30, 30, (50, 70, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"n{number}_{i}.JPEG")
    return tmp_path / "data"


def run(task: Classification, tensors: Any, data: Path, out: Path, resume: bool = False) -> dict[str, Any]:
    return classification.run(task, tensors, TRAITS, "resnet18", data, out, 0, resume)


# Protocols


def test_linear_is_mocos_main_lincls() -> None:
    recipe = (LINEAR.lr, LINEAR.momentum, LINEAR.weight_decay, LINEAR.batch, LINEAR.epochs, LINEAR.steps, LINEAR.gamma)
    assert recipe == (30.0, 0.9, 0.0, 256, 100, (60, 80), 0.1)
    rates = [classification.learning_rate(LINEAR, epoch, LINEAR.lr) for epoch in (0, 59, 60, 79, 80, 99)]
    assert rates == pytest.approx([30, 30, 3, 3, 0.3, 0.3])
    assert iterations(LINEAR, 1_281_167) == (100 * 5005, (60 * 5005, 80 * 5005))
    torch.manual_seed(0)
    model = classification.network(LINEAR, "resnet50", 1000)
    assert model.head.weight.std().item() == pytest.approx(0.01, rel=0.01) and not model.head.bias.any()
    learning = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert learning == {"head.weight", "head.bias"}
    assert not any(module.training for module in model.train().backbone.modules())


def test_simsiam_is_a_cosine_over_90_epochs_from_a_tenth_of_the_batch() -> None:
    recipe = (SIMSIAM.lr, SIMSIAM.batch, SIMSIAM.optimiser, SIMSIAM.trust, SIMSIAM.weight_decay, SIMSIAM.head_std)
    assert recipe == (1.6, 4096, "lars", 0.001, 0, 0.01)
    rates = [classification.learning_rate(SIMSIAM, epoch, 1.6) for epoch in (0, 30, 45, 89)]
    assert rates == pytest.approx([1.6, 1.2, 0.8, 0.8 * (1 + math.cos(math.pi * 89 / 90))])


def test_swavs_linear_is_a_cosine_over_100_epochs_with_a_hundredth_of_mocos_rate() -> None:
    recipe = (SWAV.lr, SWAV.batch, SWAV.optimiser, SWAV.momentum, SWAV.weight_decay, SWAV.head_std)
    assert recipe == (0.3, 256, "sgd", 0.9, 1e-6, 0.01)
    rates = [classification.learning_rate(SWAV, epoch, 0.3) for epoch in (0, 25, 50, 99)]
    assert rates == pytest.approx([0.15 * (1 + math.cos(math.pi * epoch / 100)) for epoch in (0, 25, 50, 99)])
    changed = {key for key in vars(SWAV) if getattr(SWAV, key) != getattr(LINEAR, key)}
    about = {"name", "cite", "expected", "unverified", "trials"}
    assert changed - about == {"lr", "weight_decay", "schedule", "steps"}


def test_moco_v3s_linear_is_a_cosine_over_90_epochs_and_vicregs_is_swavs_at_another_rate() -> None:
    recipe = (MOCO_V3.lr, MOCO_V3.batch, MOCO_V3.epochs, MOCO_V3.optimiser, MOCO_V3.weight_decay, MOCO_V3.head_std)
    assert recipe == (0.4, 1024, 90, "sgd", 0, 0.01)
    rates = [classification.learning_rate(MOCO_V3, epoch, 0.4) for epoch in (0, 30, 89)]
    assert rates == pytest.approx([0.2 * (1 + math.cos(math.pi * epoch / 90)) for epoch in (0, 30, 89)])
    changed = {key for key in vars(VICREG) if getattr(VICREG, key) != getattr(SWAV, key)}
    assert changed - {"name", "cite", "expected", "unverified"} == {"lr"} and VICREG.lr == 0.02


def test_every_resnet_of_torchvisions_is_classified_and_another_refused() -> None:
    with torch.device("meta"):
        assert classification.pooled("wide_resnet50_2")[1] == 2048
    for arch in ("resnet50x2", "resnet50c"):
        with pytest.raises(ValueError, match=f"one of torchvision's own ResNets.*found {arch} "):
            classification.pooled(arch)


def test_semi_has_swavs_two_learning_rates() -> None:
    for task, percent, rates in ((SEMI_1, 1, (0.02, 5.0)), (SEMI_10, 10, (0.01, 0.2))):
        assert (task.labels, task.epochs, task.batch, task.steps, task.gamma) == (percent, 20, 256, (12, 16), 0.2)
        with torch.device("meta"):
            model = classification.network(task, "resnet18", 10)
        head, trunk = classification._optimiser(task, model).param_groups
        assert (trunk["peak"], head["peak"]) == rates and head["weight_decay"] == trunk["weight_decay"] == 0
        assert len(head["params"]) == 2 and len(head["params"]) + len(trunk["params"]) == len(list(model.parameters()))
        assert all(weight.requires_grad for weight in model.parameters())
        rates_of_the_head = [classification.learning_rate(task, epoch, rates[1]) for epoch in (11, 12, 16)]
        assert rates_of_the_head == pytest.approx([rates[1], rates[1] / 5, rates[1] / 25])


def test_pycontrasts_linear_takes_larger_crops_and_falls_three_times() -> None:
    changed = {
        key: getattr(PYCONTRAST, key) for key in vars(PYCONTRAST) if getattr(PYCONTRAST, key) != getattr(LINEAR, key)
    }
    about = {"name", "cite", "expected", "unverified", "trials"}
    assert {key: value for key, value in changed.items() if key not in about} == {
        "area": (0.2, 1.0), "epochs": 60, "steps": (30, 40, 50), "gamma": 0.2, "head_std": None
    }  # fmt: skip
    rates = [classification.learning_rate(PYCONTRAST, epoch, 30) for epoch in (29, 30, 40, 50)]
    assert rates == pytest.approx([30, 6, 1.2, 0.24])


@pytest.mark.parametrize(
    ("task", "labels", "rate", "epochs", "images", "total"),
    [
        (SIMCLR_1, 1, 0.8, 60, 12_811, 188),
        (SIMCLR_10, 10, 0.8, 30, 128_116, 939),
        (SIMCLR, 100, 1.6, 90, 1_281_167, 28_151),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_simclrs_schedule_is_a_cosine_over_batches_of_4096_that_run_on(
    task: Classification, labels: int, rate: float, epochs: int, images: int, total: int
) -> None:
    recipe = (task.labels, task.lr, task.epochs, task.batch, task.momentum, task.weight_decay, task.interpolation)
    assert recipe == (labels, rate, epochs, 4096, 0.9, 0, "bicubic") and task.head_lr is None
    assert iterations(task, images) == (total, ()) and total == images * epochs // 4096 + 1
    for iteration in (0, total // 3, total - 1):  # tf.train.cosine_decay of google-research/simclr model_util.py
        found = classification.learning_rate(task, task.epochs * iteration / total, rate)
        assert found == pytest.approx(rate * 0.5 * (1 + np.cos(np.pi * iteration / total)))
    with torch.device("meta"):
        model = classification.network(task, "resnet18", 10)
        groups = classification._optimiser(task, model).param_groups
    assert all(group["nesterov"] and group["momentum"] == 0.9 and group["weight_decay"] == 0 for group in groups)
    assert sum(len(group["params"]) for group in groups) == (
        2 if task.kind == "linear" else len(list(model.parameters()))
    )
    assert not classification.network(task, "resnet18", 10).head.weight.any()


def test_nesterov_takes_the_steps_of_tensorflows_momentum_written_out_in_numpy() -> None:
    draw = np.random.default_rng(0)
    model = classification.Network(nn.Identity(), nn.Linear(7, 5).double(), frozen=True)
    optimiser = classification._optimiser(SIMCLR, model)
    w, momentum = model.head.weight.detach().numpy().copy(), np.zeros((5, 7))
    for lr in (1.6, 1.2, 0.3):
        slope = draw.normal(size=(5, 7))
        model.head.weight.grad, optimiser.param_groups[0]["lr"] = torch.tensor(slope), lr
        optimiser.step()
        momentum = 0.9 * momentum + slope
        w -= lr * (slope + 0.9 * momentum)
    assert np.allclose(model.head.weight.detach().numpy(), w, rtol=1e-12)


def test_larc_and_sgd_take_the_steps_written_out_in_numpy() -> None:
    draw = np.random.default_rng(0)
    w = draw.normal(size=(5, 7))
    layer = nn.Parameter(torch.tensor(w))
    bias = nn.Parameter(torch.zeros(5, dtype=torch.float64))
    b, momenta = np.zeros(5), [np.zeros((5, 7)), np.zeros(5)]
    optimiser = torch.optim.SGD([layer, bias], lr=1.6, momentum=0.9)
    for _ in range(3):
        g, h = draw.normal(size=(5, 7)), draw.normal(size=5)
        layer.grad, bias.grad = torch.tensor(g), torch.tensor(h)
        classification.larc([layer, bias], trust=0.001, weight_decay=0.01)
        optimiser.step()
        for i, (value, slope) in enumerate(((w, g), (b, h))):
            norm, steep = np.sqrt((value**2).sum()), np.sqrt((slope**2).sum())
            scaled = (slope + 0.01 * value) * 0.001 * norm / (steep + 0.01 * norm + 1e-8) if norm else slope
            momenta[i] = 0.9 * momenta[i] + scaled
            value -= 1.6 * momenta[i]
    assert np.allclose(layer.detach().numpy(), w, rtol=1e-12) and np.allclose(bias.detach().numpy(), b, rtol=1e-12)


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_every_expected_value_names_a_metric_and_mini_is_another_protocol(task: Classification) -> None:
    for values in task.expected.values():
        assert values and set(values) <= set(task.metrics)
    small = mini(task)
    assert (small.name, small.scale, small.precision) == (f"{task.name}@mini", "mini", "bf16")
    assert digest(small) != digest(task) and not small.expected
    assert (small.view, small.resize) == (64, 73)
    classification._check(small)
    assert [step / small.epochs for step in small.steps] == [step / task.epochs for step in task.steps]


def test_mini_halves_the_batch_and_the_rate_and_lars_keeps_its_rate() -> None:
    small, lars, semi, large = mini(LINEAR), mini(SIMSIAM), mini(SEMI_1), mini(SIMCLR_1)
    assert (small.batch, small.lr, small.epochs, small.steps) == (128, 15.0, 5, (3, 4))
    assert (lars.batch, lars.lr, lars.epochs) == (128, 1.6, 4)
    assert (semi.batch, semi.lr, semi.head_lr, semi.epochs) == (128, 0.01, 2.5, 20)
    assert (large.batch, large.lr, large.epochs) == (128, 0.025, 60)  # 0.05 x 128 / 256


def test_a_changed_field_is_named_and_an_unknown_or_wrong_one_refused(data: Path) -> None:
    assert overridden(LINEAR, {"lr": "10.0", "batch": "256"}).nonstandard == ("lr",)
    with pytest.raises(ValueError, match="found 'lrr'"):
        overridden(LINEAR, {"lrr": "1"})
    wrong = {
        "batch": "0",
        "labels": "200",
        "optimiser": "adam",
        "lr": "fast",
        "epochs": "0",
        "interpolation": "area",
        "resize": "20",
    }
    for key, value in wrong.items():
        with pytest.raises(ValueError, match=rf"expected {key} .*found"):
            classification.found(overridden(TINY, {key: value}), data)
    with pytest.raises(ValueError, match="expected neighbours"):
        classification.found(overridden(TINY_KNN, {"neighbours": "20"}), data)
    with pytest.raises(ValueError, match="expected temperature to be a number from"):
        classification.found(overridden(TINY_KNN, {"temperature": "0.01"}), data)


@pytest.mark.parametrize(
    ("task", "pairs", "idle"),
    [
        (TINY, {"neighbours": "[5]"}, "neighbours"),
        (TINY, {"trust": "0.1"}, "trust"),
        (TINY, {"schedule": "cosine", "steps": "[0]", "gamma": "0.5"}, "gamma, steps"),
        (TINY_KNN, {"lr": "0.1", "epochs": "3"}, "epochs, lr"),
        (TINY_KNN, {"accumulate": "4"}, "accumulate"),
    ],
)
def test_a_changed_field_that_would_change_nothing_is_refused(data: Path, task, pairs, idle) -> None:
    with pytest.raises(ValueError, match=rf"^expected keys that .* reads .*, found {idle}, which would change nothing"):
        classification.found(overridden(task, pairs), data)
    for fine in ({"schedule": "cosine", "steps": "[]"}, {"optimiser": "lars", "trust": "0.1"}):
        classification.found(overridden(TINY, fine), data)


def test_the_votes_of_the_coldest_temperature_are_finite_and_colder_ones_are_not() -> None:
    cosines, voters = torch.ones(1, 1000), torch.zeros(1, 1000, dtype=torch.long)
    assert vote(cosines, voters, 1000, classification.COLDEST, 2)[0, 0].isfinite()
    assert not vote(cosines, voters, 1000, 0.01, 2)[0, 0].isfinite()


# Views


def test_the_middle_of_a_test_image_is_torchvisions() -> None:
    draw = np.random.default_rng(0)
    for width, height in ((64, 64), (61, 97), (300, 201), (33, 32), (256, 256)):
        picture = Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8))
        for task in (LINEAR, KNN, mini(LINEAR)):
            mode = torchvision.transforms.InterpolationMode(task.interpolation)
            resize, crop = (
                torchvision.transforms.Resize(task.resize, mode),
                torchvision.transforms.CenterCrop(task.view),
            )
            expected = np.asarray(crop(resize(picture)))
            assert np.array_equal(classification.central_view(picture, task), expected), (width, height, task.name)


def test_training_crops_are_distributed_as_torchvisions() -> None:
    torch.manual_seed(0)
    draw, area = np.random.default_rng(0), (0.08, 1.0)
    picture = torch.empty(3, 90, 200)
    ours = np.array([classification.crop_box(200, 90, area, draw) for _ in range(4000)])
    parameters = torchvision.transforms.RandomResizedCrop.get_params
    theirs = np.array([parameters(picture, list(area), [3 / 4, 4 / 3]) for _ in range(4000)])[:, [1, 0, 3, 2]]
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 2 and np.abs(ours.std(0) - theirs.std(0)).max() < 2
    assert (ours[:, 0] + ours[:, 2]).max() <= 200 and (ours[:, 1] + ours[:, 3]).max() <= 90
    # an image that no ratio fits: its middle, as torchvision has it
    for width, height in ((500, 20), (20, 500)):
        top, left, h, w = parameters(torch.empty(3, height, width), [1.0, 1.0], [3 / 4, 4 / 3])
        assert classification.crop_box(width, height, (1.0, 1.0), draw) == (left, top, w, h)


def test_a_batch_is_normalised_in_the_checkpoints_order() -> None:
    views = [np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3)]
    traits = dict(TRAITS) | {"channel_order": "BGR", "mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 2.0]}
    batch = classification._batch(views, traits, torch.device("cpu"))
    assert batch.shape == (1, 3, 2, 2) and batch.is_contiguous(memory_format=torch.channels_last)
    assert batch[0, :, 0, 1].tolist() == [5 - 1, 4 - 2, (3 - 3) / 2]


@pytest.mark.parametrize(("images", "batch", "world"), [(10, 4, 2), (9, 4, 2), (8, 4, 4), (3, 8, 4), (7, 7, 1)])
def test_processes_share_an_epoch_evenly(images: int, batch: int, world: int) -> None:
    task, each = dataclasses.replace(LINEAR, batch=batch), -(-images // batch)
    for epoch in (0, 3):
        seen: Counter[int] = Counter()
        for iteration in range(epoch * each, (epoch + 1) * each):
            parts = [classification.places(task, images, iteration, world, rank) for rank in range(world)]
            assert len({len(part) for part in parts}) == 1 and {e for part in parts for e, _ in part} == {epoch}
            assert classification.epoch_of(task, images, iteration) == epoch
            seen.update(place for part in parts for _, place in part)
        assert set(seen) >= set(range(images)) and sum(seen.values()) < images + world


@pytest.mark.parametrize(("images", "batch", "world"), [(10, 4, 2), (9, 4, 2), (8, 4, 4), (3, 8, 4), (7, 7, 1)])
def test_continuous_batches_are_whole_and_run_on_over_the_ends_of_epochs(images: int, batch: int, world: int) -> None:
    task = dataclasses.replace(SIMCLR_1, batch=batch, epochs=5)
    total, _ = iterations(task, images)
    seen: list[tuple[int, int]] = []
    for iteration in range(total):
        parts = [classification.places(task, images, iteration, world, rank) for rank in range(world)]
        assert {len(part) for part in parts} == {batch // world}
        begins = min(5 - 1, len(seen) // images)
        assert classification.epoch_of(task, images, iteration) == begins
        seen += [one for many in zip(*parts, strict=True) for one in many]
    assert seen == [(epoch, place) for epoch in range(5 + batch) for place in range(images)][: len(seen)]
    assert images * 5 < len(seen) <= images * 5 + batch


# Data


def test_found_counts_images_and_classes(data: Path) -> None:
    found = classification.found(TINY, data)
    assert (found["train"], found["test"], found["classes"]) == (12, 6, 3) and "labels" not in found
    assert classification.found(TINY, data) == found
    (data / "imagenet/train/n0/n0_3.JPEG").unlink()
    assert classification.found(TINY, data)["digest"] != found["digest"]


def test_data_that_is_not_imagenet_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"found no folder .*nowhere/imagenet/train"):
        classification.found(TINY, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"at least 20 training images .* found 12"):
        classification.found(TINY_KNN, data)
    val = data / "imagenet/val"
    broken = val / "n1/n1_0.JPEG"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:300])
    with pytest.raises(ValueError, match=r"broken or foreign file: .*n1_0.JPEG"):
        classification.found(TINY, data)
    broken.write_bytes(whole)
    (val / "n2").rename(val / "n3")
    with pytest.raises(ValueError, match=r"found 3 and 3, n2 in only one of them"):
        classification.found(TINY, data)
    for file in (val / "n3").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"expected images in .*val/n3, found none"):
        classification.found(TINY, data)
    val.rename(data / "validation")
    with pytest.raises(FileNotFoundError, match=r"imagenet/val"):
        classification.found(TINY, data)
    val.mkdir()
    (val / "ILSVRC2012_val_00000001.JPEG").write_bytes(whole)
    with pytest.raises(FileNotFoundError, match=r"images without one: sort them .*valprep.sh"):
        classification.found(TINY, data)


def test_the_images_are_those_of_torchvisions_image_folder(data: Path) -> None:
    train = data / "imagenet/train"
    with Image.open(train / "n0/n0_0.JPEG") as picture:
        for suffix in torchvision.datasets.folder.IMG_EXTENSIONS:
            grey = picture.convert("L") if suffix == ".pgm" else picture
            grey.save(train / f"n0/of{suffix[1:]}{suffix.upper() if len(suffix) % 2 else suffix}")
    (train / "n0/notes.txt").write_text("no image")
    theirs = torchvision.datasets.ImageFolder(str(train))
    assert len(theirs) == 12 + 9
    _, ours = classification._split(data / "imagenet", "train")
    assert sorted(zip(map(str, ours.files), ours.labels, strict=True)) == sorted(theirs.samples)
    (train / "n0/._n0_0.JPEG").write_bytes(b"what macOS leaves beside a file")
    assert classification._split(data / "imagenet", "train")[1] == ours
    assert all(np.asarray(classification._read(file)).shape == (50, 70, 3) for file in ours.files)


def test_names_that_are_no_utf8_are_names(data: Path) -> None:
    train = data / "imagenet/train"
    before = classification.found(TINY_SEMI, data)["digest"]
    (train / "n0/n0_0.JPEG").rename(train / "n0" / os.fsdecode(b"n0_\xe9 \n.JPEG"))
    for split in ("train", "val"):
        (data / "imagenet" / split / "n1").rename(data / "imagenet" / split / os.fsdecode(b"n\xff"))
    found = classification.found(TINY_SEMI, data)
    assert (found["train"], found["classes"]) == (6, 3) and found["digest"] != before


def test_a_link_that_leads_nowhere_and_a_pipe_are_named_and_not_waited_for(data: Path) -> None:
    image = data / "imagenet/train/n0/n0_0.JPEG"
    for made in (lambda: image.symlink_to("nowhere"), lambda: os.mkfifo(image)):
        image.unlink()
        made()
        with pytest.raises(ValueError, match=r"found .*n0_0.JPEG, a link that leads nowhere or no file"):
            classification.found(TINY, data)


def test_the_folders_of_the_published_archive_are_pointed_at(data: Path) -> None:
    inner = data / "imagenet/ILSVRC/Data/CLS-LOC"
    inner.mkdir(parents=True)
    for split in ("train", "val"):
        (data / "imagenet" / split).rename(inner / split)
    with pytest.raises(FileNotFoundError, match=r"found no folder .*imagenet/train but .*CLS-LOC/train, which belongs"):
        classification.found(TINY, data)


def test_neighbours_are_found_among_whole_images_where_broken_ones_are_allowed(drawn, tmp_path, resnet18):
    copied = tmp_path / "data"
    shutil.copytree(drawn, copied)
    broken = sorted(copied.glob("imagenet/train/*/*"))[5]
    broken.write_bytes(broken.read_bytes()[:100])
    with pytest.raises(ValueError, match=f"broken or foreign file: .*{broken.name}"):
        classification.run(TINY_KNN, resnet18, TRAITS, "resnet18", copied, tmp_path / "out", 0)
    result = classification.run(tolerant(TINY_KNN, 2), resnet18, TRAITS, "resnet18", copied, tmp_path / "out", 0)
    assert [str(broken) in reason for reason in result["effective"]["skipped"]] == [True]
    assert "skip_bad" in tolerant(TINY_KNN, 2).nonstandard
    assert digest(tolerant(TINY_KNN, 0)) == digest(TINY_KNN)


def test_without_a_list_every_class_gives_its_share_always_the_same(data: Path) -> None:
    about, train, _ = classification._splits(TINY_SEMI, data)
    assert Counter(train.labels) == {0: 2, 1: 2, 2: 2} and about["train"] == 6
    assert about["labels"] == "drawn, 50 percent of every class, seed 0"
    again = classification._splits(TINY_SEMI, data)
    assert again[1] == train and again[0] == about
    one = classification._splits(dataclasses.replace(TINY_SEMI, labels=1), data)[1]
    assert Counter(one.labels) == {0: 1, 1: 1, 2: 1}


@pytest.mark.parametrize("place", ["imagenet/subsets", "imagenet_subsets"])
def test_a_list_of_file_names_is_followed_and_named(data: Path, place: str) -> None:
    names = ["n2_1.JPEG", "a b.JPEG", "n0_0.JPEG"]
    (data / "imagenet/train/n0/n0_3.JPEG").rename(data / "imagenet/train/n0/a b.JPEG")
    file = data / place / "50percent.txt"
    file.parent.mkdir()
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(names).encode())
    about, train, _ = classification._splits(TINY_SEMI, data)
    assert [f.name for f in train.files] == names and train.labels == (2, 0, 0)
    assert about["labels"] == f"{place}/50percent.txt, not as SimCLR published it"
    assert len(about["labels_sha256"]) == 64
    file.write_text("n2_1.JPEG\nn9_1.JPEG")
    with pytest.raises(FileNotFoundError, match=r"found 1 missing such as n9_1.JPEG"):
        classification.found(TINY_SEMI, data)
    file.write_text("n2_1.JPEG\nn2_1.JPEG")
    with pytest.raises(ValueError, match="found 2 lines with 1 names"):
        classification.found(TINY_SEMI, data)
    shutil.copy(data / "imagenet/train/n0/n0_2.JPEG", data / "imagenet/train/n2")
    file.write_text("n2_1.JPEG\nn0_2.JPEG")
    with pytest.raises(ValueError, match=r"once in imagenet/train, found 2 images named n0_2.JPEG"):
        classification.found(TINY_SEMI, data)


def test_a_picture_of_16_bits_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    for name in ("16.png", "16.pgm"):
        Image.fromarray(np.full((5, 6), 256 * 77 + 3, np.uint16)).save(tmp_path / name)
        assert (np.asarray(classification._read(tmp_path / name)) == np.full((5, 6, 3), 77)).all()


def test_an_image_too_large_to_be_one_is_named_like_a_broken_one(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(header)) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk)
    with pytest.raises(ValueError, match=r"broken or foreign file: .*bomb.png"):
        classification._read(tmp_path / "bomb.png")


# Network


def test_pooled_features_are_torchvisions_before_its_classifier(resnet18: dict[str, torch.Tensor]) -> None:
    reference = torchvision.models.resnet18().eval()
    reference.load_state_dict(resnet18, strict=False)
    reference.fc = nn.Identity()
    model = classification.network(TINY, "resnet18", 5).eval()
    assert weights.land(model.backbone, resnet18) == len(resnet18)
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.backbone(image), reference(image))


def test_weights_that_do_not_fit_and_other_networks_are_refused(resnet18: dict[str, torch.Tensor]) -> None:
    model = classification.network(TINY, "resnet50", 5)
    with pytest.raises(ValueError, match="is this the right --arch"):
        weights.land(model.backbone, resnet18)
    with pytest.raises(ValueError, match="vgg16"):
        classification.network(TINY, "vgg16", 5)
    with pytest.raises(ValueError, match="3x3x3"):
        classification.network(TINY, "resnet50", 5, dict(TRAITS) | {"stem": "3x3x3"})


def test_macs_of_a_resnet_50_are_the_known_ones() -> None:
    assert classification.macs(LINEAR, "resnet50")["test"] / 1e9 == pytest.approx(4.09, abs=0.01)
    for task, factor in ((LINEAR, 1), (KNN, 1), (SEMI_1, 3)):
        counted = classification.macs(task, "resnet18")
        assert counted["train"] == factor * counted["test"]


# Nearest neighbours


def test_nearest_neighbours_tell_colours_apart(resnet18: dict[str, torch.Tensor], data: Path, tmp_path: Path) -> None:
    task = dataclasses.replace(TINY_KNN, neighbours=(4, 1))
    result = run(task, resnet18, data, tmp_path)
    assert result["metrics"] == {"top1_k4": 100.0, "top1_k1": 100.0}
    assert result["loaded"] == {"matched": len(resnet18), "missing": [], "unused": []}
    assert result["effective"]["iterations"] == 0 and result["effective"]["norm"] == "FrozenBN"


def test_any_number_of_processes_seeks_neighbours_if_each_has_an_image(data: Path, tmp_path: Path, monkeypatch) -> None:
    def decoding(*_: Any) -> None:
        raise InterruptedError("decoding")

    monkeypatch.setattr(classification.broken, "preflight", decoding)
    for processes, error, message in (
        (5, InterruptedError, "decoding"),
        (7, ValueError, "each process, found 6 for 7"),
    ):
        monkeypatch.setattr(classification, "place", lambda n=processes: Place(0, n, torch.device("cpu")))
        with pytest.raises(error, match=message):
            run(dataclasses.replace(TINY_KNN, neighbours=(4,)), None, data, tmp_path / "out")


def test_features_that_are_not_finite_end_it_at_the_first_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    job = SimpleNamespace(where=Place(0, 1, torch.device("cpu")))
    split = classification.Split((Path("a.png"),) * 6, (0,) * 6, (1,) * 6)
    x, parts = torch.randn(6, 3), [slice(0, 4), slice(4, 6)]
    monkeypatch.setattr(classification, "_outputs", lambda *_: ((x[part], part) for part in parts))
    assert torch.equal(classification._features(None, job, split, ""), torch.nn.functional.normalize(x, dim=1))

    def broken(*_: Any) -> Iterator[tuple[torch.Tensor, slice]]:
        yield x[:4] * math.inf, parts[0]
        raise AssertionError("the others were looked at, which of ImageNet takes an hour")

    monkeypatch.setattr(classification, "_outputs", broken)
    with pytest.raises(FloatingPointError, match="finite features"):
        classification._features(None, job, split, "")


# Whole runs


def test_a_linear_classifier_learns_on_a_backbone_that_does_not_move(
    resnet18: dict[str, torch.Tensor], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[classification.Network] = []
    network = classification.network
    monkeypatch.setattr(classification, "network", lambda *given: kept.append(network(*given)) or kept[-1])
    task = dataclasses.replace(TINY, batch=4, epochs=10, lr=0.001, steps=(6,))
    result = run(task, resnet18, data, tmp_path)
    assert result["metrics"]["top1"] == 100 and result["metrics"]["top5"] == 100
    after = kept[0].backbone.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in resnet18.items())
    assert result["loaded"] == {"matched": len(resnet18), "missing": ["head.weight", "head.bias"], "unused": []}
    written = json.loads((tmp_path / "metrics.json").read_text())
    assert len(written.pop("tests")) == 10 and len(written.pop("trained")) == 64 and written == result
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3


def test_last_and_best_are_told_apart(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tests = iter([{"top1": 40.0, "top5": 70.0}, {"top1": 30.0, "top5": 80.0}])
    monkeypatch.setattr(classification, "_test", lambda *_: next(tests))
    metrics = run(TINY, None, data, tmp_path)["metrics"]
    assert metrics == {"top1": 30.0, "top5": 80.0, "top1_best": 40.0, "top5_best": 70.0}
    assert tuple(metrics) == LINEAR.metrics


@pytest.mark.parametrize(
    "task", [TINY, dataclasses.replace(TINY_SEMI, precision="bf16"), TINY_SIMCLR], ids=lambda t: t.name
)
def test_an_interrupted_training_ends_as_an_uninterrupted_one(
    task: Classification, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(task, None, drawn, tmp_path / "whole")
    monkeypatch.setattr(classification, "SAVE_SECONDS", -1.0)  # after every iteration
    real, calls = classification._save, 0

    def stop(*given: Any) -> None:
        nonlocal calls
        calls += 1
        real(*given)
        if calls == 4:
            raise KeyboardInterrupt

    monkeypatch.setattr(classification, "_save", stop)
    with pytest.raises(KeyboardInterrupt):
        run(task, None, drawn, tmp_path / "parts")
    state = torch.load(tmp_path / "parts/last.pth", weights_only=True)
    assert state["iteration"] == 4
    resumed = run(task, None, drawn, tmp_path / "parts", resume=True)
    assert resumed["metrics"] == whole["metrics"]
    ends = [torch.load(tmp_path / name / "last.pth", weights_only=True) for name in ("whole", "parts")]
    assert ends[0]["tests"] == ends[1]["tests"] and [test["epoch"] for test in ends[0]["tests"]] == [1, 2]
    tested = json.loads((tmp_path / "whole/log.jsonl").read_text().splitlines()[-1])["iteration"]
    assert tested == whole["effective"]["iterations"] == ends[0]["iteration"]
    assert all(torch.equal(ends[0]["model"][name], ends[1]["model"][name]) for name in ends[0]["model"])
    with pytest.raises(ValueError, match="found another protocol"):
        run(dataclasses.replace(task, lr=2.0), None, drawn, tmp_path / "parts", resume=True)


def test_fine_tuning_moves_the_backbone_and_names_its_list(
    resnet18: dict[str, torch.Tensor], drawn: Path, tmp_path: Path
) -> None:
    result = run(TINY_SEMI, resnet18, drawn, tmp_path)
    assert result["effective"]["labels"] == "drawn, 50 percent of every class, seed 0"
    assert result["effective"]["norm"] == "BN" and result["effective"]["iterations"] == 2 * 3  # 40 images
    learned = torch.load(tmp_path / "last.pth", weights_only=True)["model"]
    assert not torch.equal(learned["backbone.conv1.weight"], resnet18["conv1.weight"])
    assert not torch.equal(learned["backbone.bn1.running_mean"], resnet18["bn1.running_mean"])


def test_a_loss_or_feature_that_is_not_finite_ends_the_run(
    resnet18: dict[str, torch.Tensor], drawn: Path, tmp_path: Path
) -> None:
    broken = resnet18 | {"conv1.weight": torch.full_like(resnet18["conv1.weight"], math.nan)}
    with pytest.raises(FloatingPointError, match="in iteration 0"):
        run(TINY, broken, drawn, tmp_path)
    with pytest.raises(FloatingPointError, match="finite features"):
        run(TINY_KNN, broken, drawn, tmp_path)


WORKER = """
import dataclasses, os, sys
from pathlib import Path
from downstream import classification
from downstream.task import TRAITS
from downstream.tasks import imagenet_knn, imagenet_linear, imagenet_semi_10
from downstream.trial import fingerprint
small = {"view": 32, "resize": 36, "batch": 16}
linear = dataclasses.replace(imagenet_linear.TASK, name="tiny", **small, epochs=2, lr=1.0, steps=(1,))
knn = dataclasses.replace(imagenet_knn.TASK, name="tiny_knn", **small, neighbours=(20, 5))
semi = dataclasses.replace(imagenet_semi_10.TASK, name="tiny_semi", **small, labels=50, epochs=2, steps=(1,))
test, networks = classification._test, []
def remembered(model, *rest):
    metrics = test(model, *rest)
    networks.append(fingerprint(model.state_dict()))
    return metrics
for task in (linear, knn, semi):
    classification._test = remembered if task is semi else test
    classification.run(task, None, TRAITS, "resnet18", Path(sys.argv[1]), Path(sys.argv[2]) / task.name, 0)
(Path(sys.argv[2]) / ("networks" + os.environ["RANK"])).write_text(" ".join(networks))
"""


def test_two_processes_measure_what_one_does(drawn: Path, tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    environment = os.environ | group | {"PYTHONPATH": str(ROOT)}
    called = [sys.executable, str(tmp_path / "worker.py"), str(drawn), str(tmp_path)]
    errors = [tmp_path / f"{rank}.err" for rank in range(2)]
    workers = []
    for rank, file in enumerate(errors):
        with file.open("w") as log:
            workers.append(subprocess.Popen(called, env=environment | {"RANK": str(rank)}, stderr=log))
    try:
        codes = [worker.wait(timeout=100) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert codes == [0, 0], [file.read_text() for file in errors]
    for task in (TINY, TINY_KNN):
        together = json.loads((tmp_path / task.name / "metrics.json").read_text())
        alone = run(task, None, drawn, tmp_path / f"{task.name}_alone")
        assert together["effective"]["world_size"] == 2
        assert together["metrics"] == pytest.approx(alone["metrics"])
    ends = [
        torch.load(tmp_path / name / "last.pth", weights_only=True)["model"]["weight"]
        for name in ("tiny", "tiny_alone")
    ]
    assert torch.allclose(*ends, rtol=1e-3, atol=1e-3 * ends[1].abs().max().item())
    tested = [(tmp_path / f"networks{rank}").read_text().split() for rank in range(2)]
    trained = json.loads((tmp_path / "tiny_semi/metrics.json").read_text())["trained"]
    assert tested[0] == tested[1] and len(tested[0]) == 2 and tested[0][1] == trained  # one network in both


def test_the_shared_images_are_found() -> None:
    if not (SHARED / "imagenet").is_dir():
        pytest.skip("needs the shared data beside the project, or $DETECTRON2_DATASETS with imagenet/")
    found = classification.found(LINEAR, SHARED)
    assert found["train"] > found["test"] > 0 and found["classes"] > 1
    few = classification.found(SEMI_1, SHARED)
    assert few["classes"] <= few["train"] < found["train"] and few["test"] == found["test"]
