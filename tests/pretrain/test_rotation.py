import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pretrain import optim
from pretrain.methods import rotation


def test_an_image_is_turned_as_the_paper_turns_it():
    """By 90 degrees: transposed, then upside down; by 180: upside down and mirrored; by 270: upside down, then transposed."""
    x = torch.rand(2, 3, 5, 5)
    turned = rotation.turned(x).unflatten(0, (2, 4)).numpy()
    for image, found in zip(x.numpy(), turned, strict=True):
        swapped = image.swapaxes(1, 2)
        for turn, expected in enumerate((image, swapped[:, ::-1], image[:, ::-1, ::-1], image[:, ::-1].swapaxes(1, 2))):
            np.testing.assert_array_equal(found[turn], expected)


def test_the_loss_is_the_cross_entropy_of_the_turn():
    torch.manual_seed(0)
    net = rotation.Rotation("resnet18", rotation.recipe())
    x = torch.randn(3, 3, 32, 32)
    loss = net([x])
    with torch.no_grad():
        logits = net.head(net.backbone(rotation.turned(x))).double().numpy()
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert loss.item() == pytest.approx(-np.mean([logs[4 * n + turn, turn] for n in range(3) for turn in range(4)]))
    right = (logits.reshape(3, 4, 4).argmax(axis=2) == np.arange(4)).mean() * 100
    assert float(net.statistics["accuracy"]) == pytest.approx(right)


def test_a_guess_gives_ln_4():
    net = rotation.Rotation("resnet18", rotation.recipe())
    torch.nn.init.zeros_(net.head.weight)
    assert net([torch.randn(2, 3, 32, 32)]).item() == pytest.approx(math.log(4)) == pytest.approx(1.3863, abs=1e-4)


def test_the_turn_can_be_learnt():
    torch.manual_seed(0)
    net = rotation.Rotation("resnet18", rotation.recipe())
    x = torch.rand(8, 3, 32, 32) + torch.linspace(2, 0, 32)[:, None]  # bright above
    optimiser = torch.optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
    for _ in range(12):
        optimiser.zero_grad()
        loss = net([x])
        loss.backward()
        optimiser.step()
    assert float(net.statistics["accuracy"]) == 100 and loss.item() < 0.2


def test_the_recipe_is_openselfsups():
    recipe = SimpleNamespace(**rotation.recipe())
    assert (recipe.epochs, recipe.batch_size, recipe.milestones) == (70, 16 * 8, (30, 50))
    assert (recipe.momentum, recipe.weight_decay, recipe.sync_bn) == (0.9, 1e-4, True)
    assert (recipe.crop_area, recipe.flip_p, recipe.jitter_p, recipe.gray_p) == ((0.08, 1.0), 0.5, 0, 0)
    said = {**rotation.recipe(), "lr": rotation.recipe()["base_lr"] / 2}
    rates = [optim.learning_rate(step, 10, said) for step in (0, 25, 50, 299, 300, 499, 500, 699)]
    # mmcv's linear warm-up from a tenth: regular * (1 - (1 - t / 5) * 0.9)
    assert rates == pytest.approx([0.02, 0.2 * (1 - 0.5 * 0.9), 0.2, 0.2, 0.02, 0.02, 0.002, 0.002])
