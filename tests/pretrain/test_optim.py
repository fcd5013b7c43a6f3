import math

import numpy as np
import pytest
import torch
from torch import nn

from pretrain import optim
from pretrain.methods import moco, pixpro, simsiam, supervised


def test_lars_is_the_formula_in_numpy():
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(4, 3))
    optimiser = optim.LARS([w], lr=0.5, momentum=0.9, weight_decay=0.01, trust=0.001)
    ours, velocity = w.detach().numpy().copy().astype(float), np.zeros((4, 3))
    for step in range(4):
        gradient = np.random.default_rng(step).normal(size=(4, 3))
        w.grad = torch.tensor(gradient, dtype=torch.float32)
        optimiser.step()
        g = gradient + 0.01 * ours
        g = 0.001 * np.linalg.norm(ours) / np.linalg.norm(g) * g
        velocity = 0.9 * velocity + g
        ours = ours - 0.5 * velocity
        np.testing.assert_allclose(w.detach().numpy(), ours, rtol=1e-5)


def test_lars_without_the_trust_ratio_is_torchs_sgd():
    torch.manual_seed(0)
    a, b = nn.Linear(5, 3), nn.Linear(5, 3)
    b.load_state_dict(a.state_dict())
    lars = optim.LARS(a.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01, adapt=False)
    sgd = torch.optim.SGD(b.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(5):
        x = torch.randn(8, 5)
        for net, optimiser in ((a, lars), (b, sgd)):
            optimiser.zero_grad()
            net(x).square().mean().backward()
            optimiser.step()
    torch.testing.assert_close(a.weight, b.weight)
    torch.testing.assert_close(a.bias, b.bias)


@pytest.mark.parametrize("zero", ["weights", "gradient"])
def test_lars_takes_a_plain_step_where_a_norm_is_zero(zero):
    w = nn.Parameter(torch.zeros(2, 2) if zero == "weights" else torch.ones(2, 2))
    w.grad = torch.ones(2, 2) if zero == "weights" else torch.zeros(2, 2)
    before = w.detach().clone()
    optim.LARS([w], lr=0.1).step()
    torch.testing.assert_close(w.detach(), before - 0.1 * w.grad)


def test_lars_leaves_biases_and_batch_norm_without_decay_and_trust_and_sgd_decays_them():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    lars = optim.optimiser(net, {**pixpro.recipe(), "lr": 1.0})
    plain = [p for group in lars.param_groups if not group["adapt"] for p in group["params"]]
    assert {id(p) for p in plain} == {id(net[0].bias), id(net[1].weight), id(net[1].bias)}
    assert [group["weight_decay"] for group in lars.param_groups if not group["adapt"]] == [0.0]
    sgd = optim.optimiser(net, {**moco.recipe(), "lr": 1.0})
    assert [group["weight_decay"] for group in sgd.param_groups] == [1e-4]


def test_the_learning_rates_of_the_published_recipes():
    def rates(method, variant=None):
        recipe = method.recipe(variant)
        recipe["lr"] = recipe["base_lr"] * recipe["batch_size"] / 256
        return lambda step, per_epoch=10: optim.learning_rate(step, per_epoch, recipe)

    v1, v2 = rates(moco, "v1"), rates(moco)
    assert [v1(e * 10) for e in (0, 119, 120, 159, 160, 199)] == pytest.approx(
        [0.03, 0.03, 0.003, 0.003, 0.0003, 0.0003]
    )
    assert v2(0) == v2(9) == 0.03  # constant within an epoch
    assert v2(1000) == pytest.approx(0.015)
    assert v2(1999) == pytest.approx(0.015 * (1 + math.cos(math.pi * 199 / 200)))
    assert rates(simsiam)(0) == pytest.approx(0.1)
    assert rates(simsiam)(509) == pytest.approx(0.05)
    assert [rates(supervised)(e * 10) for e in (0, 30, 60)] == pytest.approx([0.1, 0.01, 0.001])
    p = rates(pixpro)
    assert p(0) == pytest.approx(0.04)  # 4.0 / 100
    assert p(25) == pytest.approx(0.04 + 0.5 * 3.96)
    assert p(50) == pytest.approx(4.0)
    assert p(525) == pytest.approx(2.0, abs=1e-5)
    assert p(1000) == pytest.approx(1e-6)
    # the same numbers from torch's own scheduler
    torch_optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=4.0)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(torch_optimiser, T_max=950, eta_min=1e-6)
    for step in range(50, 80):
        assert p(step) == pytest.approx(cosine.get_last_lr()[0], rel=1e-6)
        torch_optimiser.step()
        cosine.step()


def test_simsiams_predictor_is_the_only_part_at_a_constant_rate():
    model = simsiam.SimSiam("resnet18", simsiam.recipe())
    optimiser = optim.optimiser(model, {**simsiam.recipe(), "lr": 0.1})
    constant = {id(p) for group in optimiser.param_groups if group["constant"] for p in group["params"]}
    assert constant == {id(p) for p in model.predictor.parameters()}
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(list(model.parameters()))
