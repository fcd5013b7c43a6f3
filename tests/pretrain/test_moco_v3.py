import math

import numpy as np
import pytest
import torch
from torch import nn

from pretrain.methods import moco_v3


def model(**changes) -> moco_v3.MoCoV3:
    torch.manual_seed(0)
    return moco_v3.MoCoV3("resnet18", {**moco_v3.recipe(), "hidden": 32, "dim": 16, **changes})


def images(n: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 3, 32, 32, generator=generator) for _ in range(2)]


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def formula(q, k, temperature):
    logits = q @ k.T / temperature  # moco/builder.py, contrastive_loss
    return 2 * temperature * np.mean(np.log(np.exp(logits).sum(axis=1)) - np.diag(logits))


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_the_loss_and_its_gradient_are_the_formula_and_the_keys_get_none(slope, temperature):
    q, k = (unit(x) for x in np.random.default_rng(0).normal(size=(2, 5, 4)))
    a, b = (torch.tensor(x, requires_grad=True) for x in (q, k))
    loss, found = moco_v3.contrastive_loss(a, b, temperature)
    loss.backward()
    assert loss.item() == pytest.approx(formula(q, k, temperature), abs=1e-10)
    np.testing.assert_allclose(a.grad.numpy(), slope(lambda x: formula(x, k, temperature), q), atol=1e-6)
    assert b.grad is None
    assert found.item() == pytest.approx(100 * np.mean((q @ k.T).argmax(axis=1) == np.arange(5)))


def test_a_collapsed_batch_costs_two_ln_n_a_direction_and_orthogonal_keys_less():
    same = torch.ones(8, 4) / 2
    assert moco_v3.contrastive_loss(same, same, 1.0)[0].item() == pytest.approx(2 * math.log(8), abs=1e-5)
    eye = torch.eye(8)
    told, accuracy = moco_v3.contrastive_loss(eye, eye, 1.0)
    assert told.item() == pytest.approx(2 * math.log(1 + 7 / math.e), abs=1e-5)
    assert accuracy == 100


def test_the_method_sums_both_directions_and_trains_the_query_networks_alone():
    net, x = model(), images()
    loss = net(x)
    loss.backward()
    with torch.no_grad():
        q = [unit(net.predictor(net.projector(net.backbone(v))).numpy()) for v in x]
        k = [unit(net.key_projector(net.key_backbone(v)).numpy()) for v in x]
    assert loss.item() == pytest.approx(formula(q[0], k[1], 1) + formula(q[1], k[0], 1), abs=1e-5)
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == name.startswith("key_"), name


def test_the_keys_follow_before_their_forward_pass_with_a_momentum_that_rises_to_1():
    net = model(ema=0.9)
    before = net.key_backbone.conv1.weight.clone()
    with torch.no_grad():
        net.backbone.conv1.weight.add_(1)
    net(images(), progress=1.0)
    assert torch.equal(net.key_backbone.conv1.weight, before)
    net(images(), progress=0.5)  # m = 1 - 0.1 / 2
    torch.testing.assert_close(net.key_backbone.conv1.weight, before + 0.05)
    assert net.statistics["ema"] == pytest.approx(0.95)


def test_the_networks_are_those_of_moco_resnet():
    net = moco_v3.MoCoV3("resnet50", moco_v3.recipe())
    shapes = {
        head: [tuple(m.weight.shape) for m in head if isinstance(m, nn.Linear)]
        for head in (net.projector, net.predictor)
    }
    assert list(shapes.values()) == [[(4096, 2048), (256, 4096)], [(4096, 256), (256, 4096)]]
    assert all(m.bias is None for head in shapes for m in head if isinstance(m, nn.Linear))
    assert not net.projector[-1].affine
    assert isinstance(net.predictor[-1], nn.Linear)
    assert not net.backbone.layer1[0].bn3.weight.any()


def test_the_presets_are_the_commands_of_config_md():
    found = {
        v: [moco_v3.recipe(v)[key] for key in ("epochs", "base_lr", "weight_decay", "ema")] for v in moco_v3.PRESETS
    }
    assert found == {
        "100ep": [100, 0.6, 1e-6, 0.99],
        "300ep": [300, 0.3, 1e-6, 0.99],
        "1000ep": [1000, 0.3, 1.5e-6, 0.996],
    }
    recipe = moco_v3.recipe()
    assert recipe == moco_v3.recipe("1000ep")
    same = (
        "optimiser",
        "batch_size",
        "temperature",
        "crop_area",
        "interpolation",
        "warmup_epochs",
        "end_factor",
        "momentum",
    )
    assert [recipe[key] for key in same] == ["lars", 4096, 1.0, (0.2, 1.0), "bilinear", 10, 0, 0.9]
