import math

import numpy as np
import pytest
import torch
from torch import nn

from pretrain.methods import byol


def formula(p, z):
    p, z = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (p, z))
    return np.mean(np.sum((p - z) ** 2, axis=1))  # byol/utils/helpers.py, regression_loss


def model(**changes) -> byol.BYOL:
    torch.manual_seed(0)
    return byol.BYOL("resnet18", {**byol.recipe(), "hidden": 32, "dim": 16, **changes})


def images(n: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 3, 32, 32, generator=generator) for _ in range(2)]


def test_the_loss_and_its_gradient_are_the_formula_and_the_target_gets_none(slope):
    p, z = np.random.default_rng(0).normal(size=(2, 5, 4))
    a, b = (torch.tensor(x, requires_grad=True) for x in (p, z))
    loss = byol.regression_loss(a, b)
    loss.backward()
    assert loss.item() == pytest.approx(formula(p, z), abs=1e-10)
    np.testing.assert_allclose(a.grad.numpy(), slope(lambda x: formula(x, z), p), atol=1e-6)
    assert b.grad is None


def test_the_loss_lies_between_0_and_4_a_direction():
    x = torch.randn(3, 8)
    assert byol.regression_loss(x, 2 * x).item() == pytest.approx(0, abs=1e-6)
    assert byol.regression_loss(x, -x).item() == pytest.approx(4, abs=1e-6)


def test_the_method_sums_both_directions_and_trains_the_online_network_alone():
    net, x = model(), images()
    loss = net(x)
    loss.backward()
    with torch.no_grad():
        p = [net.predictor(net.projector(net.backbone(v))).numpy() for v in x]
        z = [net.target_projector(net.target_backbone(v)).numpy() for v in x]
    assert loss.item() == pytest.approx(formula(p[0], z[1]) + formula(p[1], z[0]), abs=1e-5)
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == name.startswith("target_"), name


def test_no_gradient_reaches_the_projector_but_through_the_predictor():
    net = model()
    nn.init.zeros_(net.predictor[-1].weight)
    net(images()).backward()
    assert not any(p.grad.any() for part in (net.backbone, net.projector) for p in part.parameters())


def test_the_target_is_a_copy_at_step_0_and_the_closed_form_after_n_updates():
    net = model(ema=0.9)
    for target, online in ((net.target_backbone, net.backbone), (net.target_projector, net.projector)):
        for a, b in zip(target.parameters(), online.parameters(), strict=True):
            assert torch.equal(a, b)
            assert a.data_ptr() != b.data_ptr()
    start = net.target_backbone.conv1.weight.double().clone()
    with torch.no_grad():
        net.backbone.conv1.weight.add_(1)
    steps = 5
    for step in range(steps):
        net.after_update(step / steps)
    # theta_n - online = (theta_0 - online) * the product of m(t) = 1 - (1 - m_0) (cos(pi t) + 1) / 2
    kept = math.prod(1 - 0.1 * (math.cos(math.pi * step / steps) + 1) / 2 for step in range(steps))
    online = net.backbone.conv1.weight.double()
    torch.testing.assert_close(net.target_backbone.conv1.weight.double(), online + kept * (start - online))


def test_the_target_keeps_to_its_own_batch_and_moves_after_the_update_only():
    net = model()
    before = net.target_backbone.conv1.weight.clone()
    running = net.target_backbone.bn1.running_mean.clone()
    net(images())
    assert torch.equal(net.target_backbone.conv1.weight, before)
    assert not torch.equal(net.target_backbone.bn1.running_mean, running)  # training mode
    net.after_update(1.0)
    assert torch.equal(net.target_backbone.conv1.weight, before)  # at the end the momentum is 1


def test_the_heads_are_those_of_networks_py():
    net = byol.BYOL("resnet18", byol.recipe())
    for head, width in ((net.projector, 512), (net.predictor, 256)):
        assert [type(part) for part in head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
        assert [tuple(part.weight.shape) for part in head if isinstance(part, nn.Linear)] == [
            (4096, width),
            (256, 4096),
        ]
        assert head[0].bias is not None
        assert head[3].bias is None


def test_the_presets_are_those_of_configs_byol_py():
    found = {v: [byol.recipe(v)[key] for key in ("epochs", "base_lr", "weight_decay", "ema")] for v in byol.PRESETS}
    assert found == {
        "40ep": [40, 0.45, 1e-6, 0.97],
        "100ep": [100, 0.45, 1e-6, 0.99],
        "300ep": [300, 0.3, 1e-6, 0.99],
        "1000ep": [1000, 0.2, 1.5e-6, 0.996],
    }
    assert byol.recipe() == byol.recipe("1000ep")
    with pytest.raises(ValueError, match="40ep, 100ep, 300ep, 1000ep"):
        byol.recipe("200ep")
