import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pretrain import optim
from pretrain.methods import jigsaw


def model(**changes) -> jigsaw.Jigsaw:
    torch.manual_seed(0)
    return jigsaw.Jigsaw("resnet18", {**jigsaw.recipe(), "dim": 8, "permutations": 12, **changes}).double()


def patches(n: int = 4) -> torch.Tensor:
    return torch.randn(n, 9, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.double)


@pytest.mark.parametrize("first", [0, 17, 100])
def test_the_permutations_are_those_of_the_papers_algorithm(first):
    """One after the other the one with the largest mean Hamming distance to all that are chosen, the first of equals."""
    left = list(itertools.permutations(range(5)))
    chosen = [left.pop(first)]
    while len(chosen) < 30:
        distance = [sum(a != b for other in chosen for a, b in zip(one, other, strict=True)) for one in left]
        chosen.append(left.pop(distance.index(max(distance))))
    assert jigsaw.permutations(30, first, 5).tolist() == [list(one) for one in chosen]


def test_the_2000_permutations_of_nine_patches_differ_in_eight_places_on_average():
    found = jigsaw.permutations(2000, 1234).numpy()
    assert (np.sort(found) == np.arange(9)).all() and len(np.unique(found, axis=0)) == 2000
    common = sum((found[:, [place]] == found[:, place]).sum() for place in range(9)) - 9 * 2000
    assert 9 - common / (2000 * 1999) == pytest.approx(8.004, abs=5e-4)  # all 362,880 differ in 8 on average


def test_the_loss_is_the_cross_entropy_of_the_order():
    net, x = model(), patches()
    torch.manual_seed(5)
    loss = net([x])
    torch.manual_seed(5)
    numbers = torch.randint(12, (4,))
    twin = model()
    with torch.no_grad():  # the pixels in the drawn order, as VISSL has them
        shuffled = torch.stack([x[n, twin.permutations[numbers[n]]] for n in range(4)])
        logits = twin.head(twin.projector(twin.backbone(shuffled.flatten(0, 1))).reshape(4, -1)).numpy()
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert loss.item() == pytest.approx(-np.mean([logs[n, number] for n, number in enumerate(numbers)]), rel=1e-5)
    assert float(net.statistics["accuracy"]) == pytest.approx((logits.argmax(axis=1) == numbers.numpy()).mean() * 100)


def test_a_guess_gives_the_logarithm_of_their_number():
    assert math.log(2000) == pytest.approx(7.6009, abs=1e-4)
    net = model()
    for parameter in net.head.parameters():
        torch.nn.init.zeros_(parameter)
    assert net([patches()]).item() == pytest.approx(math.log(12))


def test_the_head_and_the_weight_decay_are_vissls():
    net = jigsaw.Jigsaw("resnet50", {**jigsaw.recipe(), "permutations": 100})
    assert [tuple(p.shape) for p in net.projector.parameters()] == [(1000, 2048), (1000,), (1000,), (1000,)]
    assert net.head.weight.shape == (100, 9000)
    for group in optim.optimiser(net, {**jigsaw.recipe(), "lr": 0.1}).param_groups:
        assert all(group["weight_decay"] == (0 if p.ndim == 1 else 1e-4) for p in group["params"])


def test_the_recipe_is_vissls():
    recipe = SimpleNamespace(**jigsaw.recipe())
    assert (recipe.epochs, recipe.batch_size, recipe.base_lr) == (105, 32 * 8, 0.1)
    assert (recipe.gray_p, recipe.flip_p, recipe.jigsaw_patch, recipe.jigsaw_size) == (0.66, 0.5, 85 - 21, 255)
    assert recipe.jigsaw_side * 256 == 255
    rates = [optim.learning_rate(epoch * 10 + 3, 10, {**jigsaw.recipe(), "lr": 0.1}) for epoch in range(105)]
    # by the epoch: from 0.025 in five to 0.1, then a tenth after 30, 60, 90 and 100
    expected = [0.025 + 0.075 * epoch / 5 for epoch in range(5)] + [0.1] * 25 + [0.01] * 30 + [1e-3] * 30
    assert rates == pytest.approx(expected + [1e-4] * 10 + [1e-5] * 5)
