import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretrain.methods import clsa


def model(variant=None, **changes) -> clsa.CLSA:
    torch.manual_seed(0)
    return clsa.CLSA(
        "resnet18", {**clsa.recipe(variant), "queue": 16, "dim": 8, "bn_group": 2, **changes}
    ).double()  # batch norm of two images magnifies rounding


def views(n=4, number=3):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 3, 32, 32, generator=generator, dtype=torch.float64) for _ in range(number)]


def softmax(x):
    return np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)


def divergence(weak, strong, temperature):
    """training/train.py, the DDM loss."""
    return -np.mean((np.log(softmax(strong / temperature)) * softmax(weak / temperature)).sum(axis=1))


def test_the_divergence_and_its_gradient_are_the_formula_and_the_weak_side_gets_none(slope):
    weak, strong = np.random.default_rng(0).normal(size=(2, 4, 7))
    x, y = torch.tensor(weak, requires_grad=True), torch.tensor(strong, requires_grad=True)
    loss = clsa.divergence(x, y, 0.2)
    loss.backward()
    assert loss.item() == pytest.approx(divergence(weak, strong, 0.2), abs=1e-10)
    np.testing.assert_allclose(y.grad.numpy(), slope(lambda a: divergence(weak, a, 0.2), strong), atol=1e-6)
    analytic = (softmax(strong / 0.2) - softmax(weak / 0.2)) / 0.2 / 4
    np.testing.assert_allclose(y.grad.numpy(), analytic, atol=1e-12)
    assert x.grad is None


def test_the_divergence_is_least_where_both_sides_agree_and_is_then_the_entropy():
    weak = torch.randn(3, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    p = F.softmax(weak / 0.2, dim=1)
    entropy = -(p * p.log()).sum(dim=1).mean()
    assert clsa.divergence(weak, weak, 0.2).item() == pytest.approx(entropy.item(), abs=1e-12)
    assert clsa.divergence(weak, weak + torch.randn(3, 9), 0.2) > entropy


@pytest.mark.parametrize(("variant", "number", "strong"), [("single", 3, 1), ("multi", 11, 5)])
def test_the_loss_adds_every_weak_query_and_every_pair_over_queue_and_batch(variant, number, strong):
    changes = {"divergence_weight": 0.5, "divergence_temperature": 0.3}
    net, twin, x = model(variant, **changes), model(variant, **changes), views(number=number)
    queue = net.queue.queue.double().numpy().copy()
    torch.manual_seed(5)
    loss = net(x)
    with torch.no_grad():
        unit = lambda out: F.normalize(out, dim=1).double().numpy()  # noqa: E731
        q = [unit(twin.head(torch.cat([twin.backbone(part) for part in v.split(2)]))) for v in x[1:]]
        torch.manual_seed(5)
        order = torch.randperm(4)
        k = torch.empty(4, 8, dtype=torch.float64)
        k[order] = torch.cat([twin.key_head(twin.key_backbone(part)) for part in x[0][order].split(2)])
    k = unit(k)
    cosines = [a @ np.concatenate([k.T, queue], axis=1) for a in q]  # the batch's keys, then the queue's
    weak, far = cosines[:-strong], cosines[-strong:]
    expected = sum(-np.log(softmax(c / 0.2))[np.arange(4), np.arange(4)].mean() for c in weak)
    expected += 0.5 * sum(divergence(c, d, 0.3) for c in weak for d in far)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(net.queue.queue[:, :4].numpy(), k.T, atol=1e-5)
    np.testing.assert_array_equal(net.queue.queue[:, 4:].numpy(), queue[:, 4:])


def test_the_divergence_moves_the_strong_branch_alone():
    torch.manual_seed(0)
    q, k = (F.normalize(torch.randn(4, 8, requires_grad=True), dim=1) for _ in range(2))
    q.retain_grad(), k.retain_grad()
    keys = F.normalize(torch.randn(8, 20), dim=0)
    clsa.divergence(q @ keys, k @ keys, 0.2).backward()
    assert q.grad is None
    assert k.grad.abs().max() > 0


def test_the_key_network_is_equal_at_step_0_and_follows_before_the_keys():
    net = model(ema=0.9)
    before = net.key_backbone.conv1.weight.clone()
    assert torch.equal(before, net.backbone.conv1.weight)
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net(views()).backward()
    assert all(p.grad is None for name, p in net.named_parameters() if name.startswith("key_"))
    assert all(p.grad is not None for name, p in net.named_parameters() if not name.startswith("key_"))
    optimiser.step()
    assert torch.equal(net.key_backbone.conv1.weight, before)
    net(views())
    torch.testing.assert_close(net.key_backbone.conv1.weight, 0.9 * before + 0.1 * net.backbone.conv1.weight)


def test_the_crops_are_the_readmes_commands():
    single, multi = clsa.recipe("single"), clsa.recipe("multi")
    assert clsa.recipe() == single
    assert (single["size"], single["strong"]) == ((224, 224, 96), (False, False, True))
    assert single["crop_area"] == ((0.2, 1.0), (0.2, 1.0), (0.086, 0.429))
    assert multi["size"] == (224, 224, 192, 160, 128, 96, 224, 192, 160, 128, 96)
    assert multi["strong"] == (False,) * 6 + (True,) * 5
    with pytest.raises(ValueError, match="single or multi"):
        clsa.recipe("five")
