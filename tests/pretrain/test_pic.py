import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pretrain.methods import pic


def model(variant=None, **changes) -> pic.PIC:
    torch.manual_seed(0)
    small = {"images": 12, "dim": 8, "hidden": 16, "bn_group": 2, "batch_size": 4}
    return pic.PIC("resnet18", {**pic.recipe(variant), **small, **changes})


def views(number=4, n=4):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 3, 32, 32, generator=generator) for _ in range(number)]


class Given(nn.Module):
    """A network whose outputs are known."""

    def __init__(self, out: torch.Tensor) -> None:
        super().__init__()
        self.out = nn.Parameter(out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out[: len(x)]


def cosine_softmax(f, w, labels, temperature):
    f, w = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (f, w))
    logits = f @ w.T / temperature
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(f)), labels])


def test_the_loss_and_both_gradients_are_the_formula(slope):
    f, w = np.random.default_rng(0).normal(size=(4, 6)), np.random.default_rng(1).normal(size=(9, 6))
    labels = np.array([8, 0, 3, 3])
    x, y = torch.tensor(f, requires_grad=True), torch.tensor(w, requires_grad=True)
    loss = pic.instance_loss(x, y, torch.tensor(labels), 0.2)
    loss.backward()
    assert loss.item() == pytest.approx(cosine_softmax(f, w, labels, 0.2), abs=1e-10)
    np.testing.assert_allclose(x.grad.numpy(), slope(lambda a: cosine_softmax(a, w, labels, 0.2), f), atol=1e-6)
    np.testing.assert_allclose(y.grad.numpy(), slope(lambda a: cosine_softmax(f, a, labels, 0.2), w), atol=1e-6)
    # rows are compared by direction: no gradient along them
    np.testing.assert_allclose((y.grad.numpy() * w).sum(axis=1), 0, atol=1e-12)


def test_the_loss_at_random_initialisation_is_ln_of_the_images():
    torch.manual_seed(0)
    # E[exp(cos / 0.2)] is exp(25 / 256) in 128 dimensions, and an image's own class is as random as the rest
    loss = pic.instance_loss(torch.randn(256, 128), torch.randn(20000, 128) * 0.01, torch.arange(256), 0.2)
    assert loss.item() == pytest.approx(math.log(20000) + 25 / 256, abs=0.1)


def test_small_crops_learn_from_the_classes_and_do_not_move_them():
    net, indices = model(), torch.tensor([3, 0, 11, 7])
    f, w = np.random.default_rng(0).normal(size=(4, 8)), net.w.detach().double().numpy()
    net.backbone, net.head = nn.Identity(), Given(torch.tensor(f))
    loss = net(views(4), indices=indices)
    loss.backward()
    one = cosine_softmax(f, w, indices.numpy(), 0.2)
    assert loss.item() == pytest.approx(one, abs=1e-5)  # the mean of four equal crops
    x, y = torch.tensor(f, requires_grad=True), torch.tensor(w, requires_grad=True)
    pic.instance_loss(x, y, indices, 0.2).backward()
    np.testing.assert_allclose(net.head.out.grad.numpy(), x.grad.numpy(), atol=1e-6)  # all four crops
    np.testing.assert_allclose(net.w.grad.numpy(), y.grad.numpy() / 4, atol=1e-4)  # the large one alone


@pytest.mark.parametrize("variant", ["multi", "single"])
def test_the_method_is_the_mean_over_the_crops_and_everything_learns(variant):
    net, twin, number = model(variant), model(variant), {"multi": 4, "single": 1}[variant]
    indices = torch.tensor([3, 0, 11, 7])
    loss = net(views(number), indices=indices)
    loss.backward()
    with torch.no_grad():
        f = [twin.head(torch.cat([twin.backbone(part) for part in x.split(2)])).double().numpy() for x in views(number)]
    expected = np.mean([cosine_softmax(x, twin.w.detach().double().numpy(), indices.numpy(), 0.2) for x in f])
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert all(p.grad is not None for p in net.parameters())
    assert [tuple(p.shape) for p in net.head.parameters()] == [(16, 512), (16,), (8, 16), (8,)]
    assert (net.backbone.layer4[1].bn2.weight == 0).all()


def test_recent_negatives_are_the_images_of_the_last_steps_and_no_others():
    net = model("single", recent=2, images=50)
    net.backbone, net.head = nn.Identity(), Given(torch.randn(4, 8, generator=torch.Generator().manual_seed(3)))
    f = net.head.out.detach().double().numpy()
    steps = [[3, 0, 11, 7], [40, 3, 12, 13], [20, 21, 22, 49]]
    w = net.w.detach().double().numpy()
    for t, indices in enumerate(steps):
        net.zero_grad()
        loss = net(views(1), indices=torch.tensor(indices))
        loss.backward()
        told_apart = sorted({i for step in steps[max(0, t - 1) : t + 1] for i in step})
        labels = [told_apart.index(i) for i in indices]
        assert loss.item() == pytest.approx(cosine_softmax(f, w[told_apart], labels, 0.2), abs=1e-5)
        assert net.w.grad.any(dim=1).nonzero().flatten().tolist() == told_apart
        assert net.statistics["classes"] == len(told_apart)


def test_a_class_out_of_sight_makes_the_momentum_and_decay_steps_that_the_correction_restores():
    net = model("single", recent=1, images=10)
    net.backbone, net.head = nn.Identity(), Given(torch.randn(4, 8))
    rate, decay, momentum = 0.3, 0.01, 0.9
    optimiser = torch.optim.SGD([net.w], lr=rate, momentum=momentum, weight_decay=decay)

    def step(indices):
        optimiser.zero_grad()
        net(views(1), indices=torch.tensor(indices)).backward()
        optimiser.step()

    step([0, 1, 2, 3])
    w, u = net.w[:4].detach().double().numpy(), optimiser.state[net.w]["momentum_buffer"][:4].double().numpy()
    for indices in ([4, 5, 6, 7], [6, 7, 8, 9], [4, 5, 8, 9], [5, 6, 7, 8], [4, 6, 7, 9]):
        step(indices)
    matrix = np.array([[1 - rate * decay, -rate * momentum], [decay, momentum]])
    expected = np.einsum("ij,jnc->inc", np.linalg.matrix_power(matrix, 5), np.stack([w, u]))
    np.testing.assert_allclose(net.w[:4].detach().numpy(), expected[0], atol=1e-6)
    np.testing.assert_allclose(optimiser.state[net.w]["momentum_buffer"][:4].numpy(), expected[1], rtol=1e-5)
    assert np.abs(expected[0] - w).max() > 1e-2  # and that is a long way


def test_the_images_of_the_last_steps_are_saved_with_the_weights():
    net = model("single", recent=2, images=50)
    net(views(1), indices=torch.tensor([3, 0, 11, 7]))
    twin = model("single", recent=2, images=50)
    twin.load_state_dict(net.state_dict())
    assert twin.recent.tolist() == [[-1] * 4, [3, 0, 11, 7]]


def test_the_recipes_are_the_release_script_and_the_readmes_command():
    multi, single = pic.recipe(), pic.recipe("single")
    assert multi["size"] == (160, 96, 96, 96)
    assert multi["crop_area"] == ((0.14, 1.0), (0.08, 0.14), (0.08, 0.14), (0.08, 0.14))
    assert (single["size"], single["crop_area"], single["views"]) == (224, (0.08, 1.0), 1)
    assert multi["window"] == (2**17, 2**14)
    assert multi["recent"] == 0  # unverified, hence off
    assert F.normalize(model().w.detach(), dim=1).shape == (12, 8)
    with pytest.raises(ValueError, match="multi or single"):
        pic.recipe("recent")
