import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from pretrain import optim
from pretrain.methods import relative_loc


def model(**changes) -> relative_loc.RelativeLoc:
    torch.manual_seed(0)
    return relative_loc.RelativeLoc("resnet18", {**relative_loc.recipe(), "hidden": 16, **changes}).double()


def patches(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 9, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.double)


def test_the_loss_is_the_cross_entropy_of_eight_pairs_with_the_middle_patch():
    """As OpenSelfSup makes them: the pair's other patch first, its place in reading order the class."""
    net, x = model(), patches()
    torch.manual_seed(5)
    loss = net([x])
    torch.manual_seed(5)
    twin = model()
    others = [patch for patch in range(9) if patch != 4]
    with torch.no_grad():
        first = twin.backbone(torch.stack([x[n, patch] for n in range(4) for patch in others]))
        second = twin.backbone(torch.stack([x[n, 4] for n in range(4) for _ in others]))
        torch.manual_seed(5)
        logits = twin.head(torch.cat([first, second], dim=1)).numpy()
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -np.mean([logs[8 * n + place, place] for n in range(4) for place in range(8)])
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_a_guess_gives_ln_8():
    net = model()
    nn.init.zeros_(net.head[-1].weight)
    assert net([patches()]).item() == pytest.approx(math.log(8)) == pytest.approx(2.0794, abs=1e-4)


def test_the_head_is_openselfsups_neck_and_classifier():
    head = relative_loc.RelativeLoc("resnet50", relative_loc.recipe()).head
    assert [tuple(p.shape) for p in head.parameters()] == [(4096, 4096), (4096,), (4096,), (4096,), (8, 4096), (8,)]
    assert head[0].weight.std().item() == pytest.approx(0.005, rel=0.01) and (head[0].bias == 0.1).all()
    assert head[4].weight.std().item() == pytest.approx(0.005, rel=0.02) and not head[4].bias.any()
    assert head[1].momentum == 0.003


def test_half_is_dropped_and_the_rest_doubled_in_training_alone():
    drop, x = relative_loc.Dropout(), torch.rand(50, 40) + 1
    torch.manual_seed(0)
    out = drop(x)
    kept = out != 0
    assert abs(kept.float().mean().item() - 0.5) < 0.05
    torch.testing.assert_close(out[kept], 2 * x[kept])
    assert torch.equal(drop.eval()(x), x)


def test_neck_and_classifier_decay_five_times_as_much():
    net, recipe = model(), {**relative_loc.recipe(), "lr": 0.1}
    decays = {
        id(p): group["weight_decay"] for group in optim.optimiser(net, recipe).param_groups for p in group["params"]
    }
    for name, parameter in net.named_parameters():
        assert decays[id(parameter)] == (5e-4 if name.startswith("head.") else 1e-4), name


def test_the_recipe_is_openselfsups():
    recipe = SimpleNamespace(**relative_loc.recipe())
    assert (recipe.epochs, recipe.batch_size, recipe.milestones) == (70, 64 * 8, (30, 50))
    assert recipe.base_lr * recipe.batch_size / 256 == 0.2
    assert (recipe.warmup_epochs, recipe.warmup_start, recipe.schedule) == (5, 0.1, "step")
    assert (recipe.gray_p, recipe.flip_p, recipe.jigsaw_patch, recipe.jigsaw_size) == (0.66, 0, 85 - 21, 255)
    assert recipe.jigsaw_side * 292 == pytest.approx(255)
