import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pretrain.methods import swav


def balanced(scores, epsilon=0.05, iterations=3):
    """main_swav.py, distributed_sinkhorn, in its own K x B layout and float64."""
    q = np.exp(scores.T / epsilon)
    k, b = q.shape
    q /= q.sum()
    for _ in range(iterations):
        q = q / q.sum(axis=1, keepdims=True) / k
        q = q / q.sum(axis=0, keepdims=True) / b
    return (q * b).T


def swapped(scores, assignments, temperature):
    """Paper, equations 2 and 6: every assigned crop against every other crop."""
    losses = []
    for crop, q in assignments.items():
        others = []
        for v in range(len(scores)):
            if v != crop:
                e = np.exp(scores[v] / temperature)
                others.append(-np.mean(np.sum(q * np.log(e / e.sum(axis=1, keepdims=True)), axis=1)))
        losses.append(np.mean(others))
    return np.mean(losses)


def model(**changes) -> swav.SwAV:
    torch.manual_seed(0)
    small = {"hidden": 16, "dim": 8, "prototypes": 12, "images": 64, "batch_size": 4}
    return swav.SwAV("resnet18", {**swav.recipe(), **small, **changes})


def crops(n: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 3, side, side, generator=generator) for side in (48, 48, 32, 32)]


def test_sinkhorn_gives_the_rows_of_the_authors_function():
    scores = torch.tensor([[1, 0, 0.5], [0.9, 0.1, 0.2], [0.2, 0.8, 0.1], [0, 0.3, 0.9]])
    expected = [[0.998481, 0.000001, 0.001518], [0.999944, 0.000028, 0.000028], [0, 1, 0], [0, 0.000045, 0.999955]]
    torch.testing.assert_close(swav.sinkhorn(scores, 0.05, 3), torch.tensor(expected), atol=1e-6, rtol=0)
    scores = np.random.default_rng(0).uniform(-1, 1, size=(10, 6))
    np.testing.assert_allclose(swav.sinkhorn(torch.tensor(scores), 0.05, 3).numpy(), balanced(scores), atol=1e-12)


def test_sinkhorns_rows_sum_to_1_and_its_columns_become_equal():
    scores = torch.tensor(np.random.default_rng(0).uniform(-1, 1, size=(12, 4)))
    for iterations in (1, 3, 200):
        torch.testing.assert_close(swav.sinkhorn(scores, 0.3, iterations).sum(dim=1), torch.ones(12).double())
    torch.testing.assert_close(swav.sinkhorn(scores, 0.3, 200).sum(dim=0), torch.full((4,), 3.0).double())


def test_sinkhorn_stays_finite_in_single_precision_at_the_extremes():
    q = swav.sinkhorn(torch.tensor([[1.0, -1.0], [1.0, -1.0], [1.0, -1.0]]).repeat(1000, 1500), 0.05, 3)
    assert q.isfinite().all()
    torch.testing.assert_close(q.sum(dim=1), torch.ones(3000))


def test_the_loss_and_its_gradient_are_the_papers_formula(slope):
    scores = np.random.default_rng(0).uniform(-1, 1, size=(4, 3, 5))
    assignments = {crop: balanced(scores[crop]) for crop in (0, 1)}
    x = torch.tensor(scores, requires_grad=True)
    loss = swav.swapped_loss(x, {crop: torch.tensor(q) for crop, q in assignments.items()}, 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(swapped(scores, assignments, 0.1), abs=1e-10)
    np.testing.assert_allclose(x.grad.numpy(), slope(lambda s: swapped(s, assignments, 0.1), scores), atol=1e-6)


def test_equal_scores_give_ln_of_3000():
    scores, even = torch.zeros(8, 2, 3000), torch.full((2, 3000), 1 / 3000)
    assert swav.swapped_loss(scores, {0: even, 1: even}, 0.1).item() == pytest.approx(math.log(3000), abs=1e-4)
    assert math.log(3000) == pytest.approx(8.0064, abs=5e-5)


def test_the_method_is_the_formula_on_its_own_embeddings_and_no_gradient_flows_through_the_assignments():
    net, twin = model(), model()
    loss = net(crops())
    loss.backward()
    w = F.normalize(twin.prototypes.weight.detach(), dim=1)
    out = torch.cat([twin.backbone(torch.cat(crops()[i : i + 2])) for i in (0, 2)])  # one batch norm a size
    scores = F.normalize(twin.head(out), dim=1) @ w.T
    scores = scores.view(4, 4, 12)
    q = {crop: torch.tensor(balanced(scores[crop].detach().double().numpy())).float() for crop in (0, 1)}
    expected = swav.swapped_loss(scores, q, 0.1)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(net.head[0].weight.grad, twin.head[0].weight.grad, atol=1e-5, rtol=1e-4)
    assert all(p.grad is not None for p in net.parameters())


def test_the_prototypes_have_unit_length_in_every_forward():
    net = model()
    with torch.no_grad():
        net.prototypes.weight.mul_(3)
    net(crops())
    torch.testing.assert_close(net.prototypes.weight.norm(dim=1), torch.ones(12))


def test_the_prototypes_are_frozen_for_313_steps_of_4096_images_and_5005_of_256():
    frozen = {}
    for variant in ("800ep", "400ep_bs256"):
        recipe = {**swav.recipe(variant), "prototypes": 4, "queue": 0}
        frozen[variant] = swav.SwAV("resnet18", recipe).frozen_steps
    assert frozen == {"800ep": 313, "400ep_bs256": 5005}
    net = model()  # 64 images in batches of 4: 16 steps
    for step, stays in ((0, True), (15, True), (16, False)):
        net(crops()).backward()
        net.before_update(step, 16)
        assert (net.prototypes.weight.grad is None) == stays
        net.zero_grad()


def test_the_queue_starts_at_its_epoch_is_used_once_it_is_full_and_keeps_the_newest_first():
    net = model(queue=8, queue_epoch=2)
    z = [F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(i)), dim=1) for i in range(4)]
    scores = [net.prototypes(x).detach() for x in z]
    alone = [swav.sinkhorn(s, 0.05, 3) for s in scores]
    net.before_epoch(1)
    assert torch.equal(net.assigned(scores[0], z[0], 0), alone[0])
    assert not net.queue.any()
    net.before_epoch(2)
    assert torch.equal(net.assigned(scores[0], z[0], 0), alone[0])
    assert torch.equal(net.assigned(scores[1], z[1], 0), alone[1])  # half full: not yet
    assert torch.equal(net.queue[0], torch.cat([z[1], z[0]]))
    assert not net.queue[1].any()  # the other crop has its own
    together = swav.sinkhorn(torch.cat([scores[1], scores[0], scores[2]]), 0.05, 3)[-4:]
    torch.testing.assert_close(net.assigned(scores[2], z[2], 0), together)
    assert (together - alone[2]).abs().max() > 1e-3
    assert torch.equal(net.queue[0], torch.cat([z[2], z[1]]))
    assert net.state_dict().keys() >= {"queue", "queue_starts"}  # both survive a resume


def test_two_processes_share_one_queue_and_balance_over_all_samples(two_processes):
    small = {"hidden": 16, "dim": 8, "prototypes": 6, "queue": 16, "queue_epoch": 0}
    one, *two = two_processes("swav", "400ep_bs256", sides=(48, 48, 32), steps=3, **small)
    assert one["buffers"]["queue"][:, -1].any()
    for found in two:
        torch.testing.assert_close(found["loss"], one["loss"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(found["buffers"]["queue"], one["buffers"]["queue"], rtol=1e-4, atol=1e-5)
        weight = one["gradients"]["prototypes.weight"]
        torch.testing.assert_close(found["gradients"]["prototypes.weight"], weight, rtol=1e-4, atol=1e-6)


def test_the_head_is_that_of_resnet50_py_and_the_recipes_are_the_scripts():
    net = model()
    assert [type(part) for part in net.head] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert net.head[0].bias is not None
    assert net.head[3].bias is not None
    assert net.prototypes.bias is None
    big, small, plain = (swav.recipe(variant) for variant in ("800ep", "400ep_bs256", "400ep_2x224"))
    assert [r["base_lr"] * r["batch_size"] / 256 for r in (big, small)] == pytest.approx([4.8, 0.6])
    assert big["warmup_start"] * 4.8 == pytest.approx(0.3)
    assert (big["queue"], small["queue"], small["queue_epoch"]) == (0, 3840, 15)
    assert big["size"] == (224, 224) + (96,) * 6
    assert big["crop_area"] == ((0.14, 1.0),) * 2 + ((0.05, 0.14),) * 6
    assert (plain["views"], plain["crop_area"]) == (2, ((0.08, 1.0),) * 2)
    assert big["std"][0] == pytest.approx(0.228 * 255)
    with pytest.raises(ValueError, match="800ep, 400ep_2x224, 400ep_bs256"):
        swav.recipe("v2")
