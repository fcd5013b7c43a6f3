import math

import numpy as np
import pytest
import torch
from torch import nn

from pretrain import optim
from pretrain.methods import (
    barlowtwins,
    moco,
    moco_v3,
    pixpro,
    simclr,
    simclr_distill,
    simclr_finetune,
    simsiam,
    supervised,
)


@pytest.mark.parametrize("inside", [False, True])
def test_lars_is_the_formula_in_numpy_while_the_learning_rate_rises(inside):
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(4, 3))
    optimiser = optim.LARS([w], lr=0.5, momentum=0.9, weight_decay=0.01, trust=0.001, lr_in_momentum=inside)
    ours, velocity = w.detach().numpy().copy().astype(float), np.zeros((4, 3))
    for step in range(4):
        gradient = np.random.default_rng(step).normal(size=(4, 3))
        lr = optimiser.param_groups[0]["lr"] = 0.5 * (step + 1)
        w.grad = torch.tensor(gradient, dtype=torch.float32)
        optimiser.step()
        g = gradient + 0.01 * ours
        g = 0.001 * np.linalg.norm(ours) / np.linalg.norm(g) * g
        velocity = 0.9 * velocity + (lr * g if inside else g)
        ours = ours - (velocity if inside else lr * velocity)
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


@pytest.mark.parametrize(("method", "epsilon"), [(simclr, 0.0), (moco_v3, 0.0), (barlowtwins, 0.0), (pixpro, 1e-8)])
def test_a_gradient_that_is_weight_decay_alone_is_adapted_as_the_authors_do(method, epsilon):
    recipe = {**method.recipe(), "lr": 1.0, "crops": (2,)}
    net = method.METHOD("resnet18", recipe).double()
    weight = net.backbone.layer1[0].conv1.weight
    w = weight.detach().clone()
    weight.grad = torch.zeros_like(w)
    optim.optimiser(net, recipe).step()
    g = recipe["weight_decay"] * w
    torch.testing.assert_close(w - weight.detach(), 0.001 * w.norm() / (g.norm() + epsilon) * g, rtol=1e-9, atol=0.0)


def test_larc_is_apexs_formula_in_numpy_with_sgds_momentum():
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(4, 3))
    optimiser = optim.LARC([w], lr=0.5, momentum=0.9, weight_decay=0.1)
    ours, velocity = w.detach().numpy().copy().astype(float), np.zeros((4, 3))
    for step in range(4):
        gradient = np.random.default_rng(step).normal(size=(4, 3))
        w.grad = torch.tensor(gradient, dtype=torch.float32)
        optimiser.step()
        norm, g_norm = np.linalg.norm(ours), np.linalg.norm(gradient)
        velocity = 0.9 * velocity + 0.001 * norm / (g_norm + 0.1 * norm) * (gradient + 0.1 * ours)
        ours = ours - 0.5 * velocity
        np.testing.assert_allclose(w.detach().numpy(), ours, rtol=1e-5)
        np.testing.assert_allclose(w.grad.numpy(), gradient, rtol=1e-6)  # the gradient itself is left alone


@pytest.mark.parametrize("zero", ["weights", "gradient"])
def test_larc_neither_decays_nor_adapts_where_a_norm_is_zero(zero):
    w = nn.Parameter(torch.zeros(2, 2) if zero == "weights" else torch.ones(2, 2))
    w.grad = torch.ones(2, 2) if zero == "weights" else torch.zeros(2, 2)
    before = w.detach().clone()
    optim.LARC([w], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(w.detach(), before - 0.1 * w.grad)


def test_larc_takes_in_every_parameter_and_lars_leaves_out_those_with_one_dimension():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    larc = optim.optimiser(net, {**pixpro.recipe(), "optimiser": "larc", "lr": 1.0})
    assert isinstance(larc, optim.LARC)
    assert [(group["adapt"], group["weight_decay"], len(group["params"])) for group in larc.param_groups] == [
        (True, 1e-5, 4)
    ]


def test_biases_and_batch_norm_have_the_learning_rate_that_bias_lr_gives_them():
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    recipe = {**pixpro.recipe(), "base_lr": 0.2, "bias_lr": 0.0048, "lr": 1.6}
    lars = optim.optimiser(net, recipe)
    optim.set_learning_rate(lars, 0.8, 1.6)
    rates = {id(p): group["lr"] for group in lars.param_groups for p in group["params"]}
    assert rates[id(net[0].weight)] == 0.8
    for flat in (net[0].bias, net[1].weight, net[1].bias):
        assert rates[id(flat)] == pytest.approx(0.8 * 0.0048 / 0.2)  # half the way to 0.0048 * 2048 / 256


def test_the_end_may_be_a_fraction_of_the_peak():
    recipe = {**pixpro.recipe(), "lr": 2.0, "end_factor": 0.001}
    del recipe["end_lr"]
    assert optim.learning_rate(10**9, 10**7, recipe) == pytest.approx(0.002)
    assert optim.learning_rate(525, 10, recipe | {"end_factor": 0.5}) == pytest.approx(1.5)  # between 2 and 1


@pytest.mark.parametrize(("word", "kind"), [("sgd", torch.optim.SGD), ("lars", optim.LARS), ("larc", optim.LARC)])
def test_a_recipe_has_the_optimiser_that_it_names(word, kind):
    recipe = {**pixpro.recipe(), "optimiser": word, "momentum": 0.8, "no_momentum": "head", "lr": 1.0}
    net = nn.ModuleDict({"head": nn.Linear(2, 2), "body": nn.Linear(2, 2)})
    found = optim.optimiser(net, recipe)
    assert type(found) is kind
    rates = {id(p): group["momentum"] for group in found.param_groups for p in group["params"]}
    assert {name: rates[id(p)] for name, p in net.named_parameters()} == {
        "head.weight": 0.0,
        "head.bias": 0.0,
        "body.weight": 0.8,
        "body.bias": 0.8,
    }


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


@pytest.mark.parametrize("method", [simclr, simclr_distill, simclr_finetune, pixpro, barlowtwins])
def test_simclrs_learning_rate_enters_the_momentum_and_no_others(method):
    net = nn.ModuleDict({"classifier": nn.Linear(3, 2)})
    (group, *_) = optim.optimiser(net, {**method.recipe(), "lr": 1.0}).param_groups
    assert group["lr_in_momentum"] == method.__name__.rpartition(".")[2].startswith("simclr")


@pytest.mark.parametrize("key", ["constant_lr", "unadapted", "no_momentum"])
def test_a_part_that_the_network_does_not_have_is_refused_with_those_that_it_has(key):
    net = nn.ModuleDict({"predictor": nn.Linear(3, 2), "head": nn.Linear(2, 2)})
    recipe = {**simsiam.recipe(), "lr": 1.0}
    optim.optimiser(net, recipe | {key: "predictor"})
    with pytest.raises(ValueError, match=rf"expected {key} to name a part .*\(predictor, head\), found 'predicto'"):
        optim.optimiser(net, recipe | {key: "predicto"})


def test_a_checkpoint_of_lars_from_before_there_was_a_choice_goes_on_as_it_was():
    w = nn.Parameter(torch.ones(2, 2))
    state = optim.LARS([w], lr=0.1).state_dict()
    for key in ("lr_in_momentum", "epsilon"):
        del state["param_groups"][0][key]
    again = optim.LARS([w], lr=0.1, lr_in_momentum=True)
    again.load_state_dict(state)
    w.grad = torch.ones(2, 2)
    again.step()
    assert again.param_groups[0]["lr_in_momentum"] is False
    assert again.param_groups[0]["epsilon"] == 1e-8
