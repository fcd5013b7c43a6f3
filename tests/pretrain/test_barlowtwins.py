import numpy as np
import pytest
import torch
from torch import nn

from pretrain import optim
from pretrain.methods import barlowtwins


def formula(z1, z2, weight):
    """arXiv 2103.03230, equations 1 and 2, with batch norm's epsilon as in main.py; entry by entry."""
    z1, z2 = ((z - z.mean(axis=0)) / np.sqrt(z.var(axis=0) + 1e-5) for z in (z1, z2))
    n, c = z1.shape
    loss = 0.0
    for i in range(c):
        for j in range(c):
            correlation = sum(z1[b, i] * z2[b, j] for b in range(n)) / n
            loss += (1 - correlation) ** 2 if i == j else weight * correlation**2
    return loss


def test_the_loss_and_its_gradient_are_the_papers_formula(slope):
    z1, z2 = np.random.default_rng(0).normal(size=(2, 6, 4))
    a, b = (torch.tensor(z, requires_grad=True) for z in (z1, z2))
    normalised = nn.BatchNorm1d(4, affine=False).double()
    loss, _ = barlowtwins.redundancy_loss(normalised(a), normalised(b), 0.0051)
    loss.backward()
    assert loss.item() == pytest.approx(formula(z1, z2, 0.0051), abs=1e-10)
    np.testing.assert_allclose(a.grad.numpy(), slope(lambda z: formula(z, z2, 0.0051), z1), atol=1e-6)
    np.testing.assert_allclose(b.grad.numpy(), slope(lambda z: formula(z1, z, 0.0051), z2), atol=1e-6)


def test_equal_outputs_that_do_not_correlate_cost_nothing_and_equal_columns_cost_the_weight():
    # four samples, three columns of +-1 that are orthogonal to one another and to the constant
    hadamard = torch.tensor([[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]], dtype=torch.float64)
    loss, c = barlowtwins.redundancy_loss(hadamard, hadamard, 0.0051)
    assert loss == 0
    assert torch.equal(c, torch.eye(3, dtype=torch.float64))
    same = hadamard[:, :1].expand(4, 3)
    assert barlowtwins.redundancy_loss(same, same, 0.0051)[0].item() == pytest.approx(6 * 0.0051)
    assert barlowtwins.redundancy_loss(hadamard, -hadamard, 0.0051)[0].item() == pytest.approx(3 * 4)


def test_the_method_is_the_formula_of_its_two_projections_and_trains_every_tensor():
    torch.manual_seed(0)
    net = barlowtwins.BarlowTwins("resnet18", {**barlowtwins.recipe(), "hidden": 16, "dim": 8})
    x = [torch.randn(6, 3, 32, 32) for _ in range(2)]
    loss = net(x)
    loss.backward()
    z1, z2 = (net.projector(net.backbone(v)).detach().double().numpy() for v in x)
    assert loss.item() == pytest.approx(formula(z1, z2, 0.0051), rel=1e-4)
    assert all(p.grad is not None for p in net.parameters())


def test_the_projector_is_main_pys():
    net = barlowtwins.BarlowTwins("resnet18", {**barlowtwins.recipe(), "hidden": 32, "dim": 24})
    assert [type(part) for part in net.projector] == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    linear = [part for part in net.projector if isinstance(part, nn.Linear)]
    assert [tuple(part.weight.shape) for part in linear] == [(32, 512), (32, 32), (24, 32)]
    assert all(part.bias is None for part in linear)
    assert not net.normalised.affine
    assert (net.backbone.layer1[0].bn2.weight == 0).all()
    recipe = barlowtwins.recipe()
    assert (recipe["hidden"], recipe["dim"], recipe["lambda"]) == (8192, 8192, 0.0051)


def test_biases_and_batch_norm_have_a_rate_of_their_own_and_neither_decay_nor_trust():
    net = barlowtwins.BarlowTwins("resnet18", {**barlowtwins.recipe(), "hidden": 16, "dim": 8})
    recipe = {**barlowtwins.recipe(), "lr": 1.6}
    groups = optim.optimiser(net, recipe).param_groups
    assert {(group["adapt"], group["weight_decay"]) for group in groups} == {(True, 1e-6), (False, 0.0)}
    plain = {id(p) for group in groups if not group["adapt"] for p in group["params"]}
    assert plain == {id(p) for p in net.parameters() if p.ndim == 1}


def test_there_are_no_variants():
    with pytest.raises(ValueError, match="no variant of barlowtwins"):
        barlowtwins.recipe("v2")
