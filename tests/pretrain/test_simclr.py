import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pretrain import optim
from pretrain.methods import simclr


def formula(z1, z2, temperature):
    """arXiv 2002.05709, equation 1 and Algorithm 1, view by view."""
    z = np.concatenate([z1, z2])
    z = z / np.linalg.norm(z, axis=1, keepdims=True)
    n, losses = len(z1), []
    for i in range(2 * n):
        e = np.exp(z @ z[i] / temperature)
        losses.append(-np.log(e[(i + n) % (2 * n)] / (e.sum() - e[i])))
    return np.mean(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_the_loss_and_its_gradient_are_the_papers_formula(temperature, slope):
    rng = np.random.default_rng(0)
    z1, z2 = rng.normal(size=(2, 5, 4))
    a, b = (torch.tensor(z, requires_grad=True) for z in (z1, z2))
    loss = simclr.nt_xent(F.normalize(a, dim=1), F.normalize(b, dim=1), temperature)
    loss.backward()
    assert loss.item() == pytest.approx(formula(z1, z2, temperature), abs=1e-10)
    np.testing.assert_allclose(a.grad.numpy(), slope(lambda z: formula(z, z2, temperature), z1), atol=1e-6)
    np.testing.assert_allclose(b.grad.numpy(), slope(lambda z: formula(z1, z, temperature), z2), atol=1e-6)


def test_equal_embeddings_give_ln_of_8191_and_orthogonal_images_their_closed_form():
    same = F.normalize(torch.ones(4096, 8), dim=1)
    assert simclr.nt_xent(same, same, 0.1).item() == pytest.approx(math.log(2 * 4096 - 1), abs=1e-4)
    assert math.log(2 * 4096 - 1) == pytest.approx(9.0108, abs=5e-5)
    eye = torch.eye(4, dtype=torch.float64)
    assert simclr.nt_xent(eye, eye, 0.5).item() == pytest.approx(0.594438, abs=1e-6)
    assert simclr.nt_xent(eye, eye, 0.1).item() == pytest.approx(0.000272, abs=1e-6)


def model(variant=None, **changes) -> simclr.SimCLR:
    torch.manual_seed(0)
    return simclr.SimCLR("resnet18", {**simclr.recipe(variant), **changes})


def test_the_method_adds_both_directions_of_one_batch_norm_over_both_views():
    net, x = model(), [torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(s)) for s in (1, 2)]
    loss = net(x)
    loss.backward()
    z = net.head(net.backbone(torch.cat(x))).detach().double().numpy()
    # objective.py: loss_a + loss_b, each a mean over N, where the paper divides the sum by 2N
    assert loss.item() == pytest.approx(2 * formula(z[:6], z[6:], 0.1), rel=1e-5)
    assert all(p.grad is not None for p in net.parameters() if p.requires_grad)


def test_the_heads_are_those_of_model_util():
    for variant, layers in (("v1", 2), ("v2", 3)):
        head = model(variant).head
        linear = [part for part in head if isinstance(part, nn.Linear)]
        norms = [part for part in head if isinstance(part, nn.BatchNorm1d)]
        assert [tuple(part.weight.shape) for part in linear] == [(512, 512)] * (layers - 1) + [(128, 512)]
        assert all(part.bias is None for part in linear)
        assert [part.bias.requires_grad for part in norms] == [True] * (layers - 1) + [False]
        assert not norms[-1].bias.any()
        assert isinstance(head[-1], nn.BatchNorm1d)
        assert [part.weight.std().item() for part in linear] == pytest.approx([0.01] * layers, rel=0.05)


def test_lars_leaves_out_every_tensor_of_one_dimension_and_nothing_else():
    net = model()
    groups = optim.optimiser(net, {**simclr.recipe(), "lr": 1.0}).param_groups
    adapted = {id(p) for group in groups if group["adapt"] for p in group["params"]}
    assert adapted == {id(p) for p in net.parameters() if p.ndim > 1}
    assert {group["weight_decay"] for group in groups if group["adapt"]} == {1e-4}
    assert {group["weight_decay"] for group in groups if not group["adapt"]} == {0.0}
    listed = {id(p) for group in groups for p in group["params"]}
    assert listed == {id(p) for p in net.parameters() if p.requires_grad}


def test_the_recipes_are_the_papers():
    v1, v2 = simclr.recipe("v1"), simclr.recipe()
    assert v1["base_lr"] * v1["batch_size"] / 256 == pytest.approx(4.8)
    assert v2["base_lr"] * math.sqrt(v2["batch_size"]) == pytest.approx(6.4)
    assert v2["warmup_epochs"] == 0.05 * v2["epochs"]
    assert (v1["weight_decay"], v2["weight_decay"]) == (1e-6, 1e-4)
    assert {key for key in v1 if v1[key] != v2[key]} == {
        "variant", "unverified", "layers", "lr_rule", "base_lr", "weight_decay", "epochs", "warmup_epochs",
    }  # fmt: skip
    assert (v2["mean"], v2["std"]) == ((0, 0, 0), (255, 255, 255))
    with pytest.raises(ValueError, match="v1 or v2"):
        simclr.recipe("v3")
