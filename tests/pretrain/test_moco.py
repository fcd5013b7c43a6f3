import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pretrain import heads
from pretrain.methods import moco


def model(**changes) -> moco.MoCo:
    torch.manual_seed(0)
    return moco.MoCo("resnet18", {**moco.recipe(), "queue": 16, "bn_group": 4, **changes})


def images(n: int = 8, side: int = 32) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(n, 3, side, side, generator=generator) for _ in range(2)]


class Given(nn.Module):
    """A network whose outputs are known."""

    def __init__(self, out: torch.Tensor) -> None:
        super().__init__()
        self.out = out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out[: len(x)]


@pytest.mark.parametrize(("temperature", "expected"), [(0.07, 2e-6), (0.2, 0.026595)])
def test_a_perfect_positive_and_four_orthogonal_negatives(temperature, expected):
    net = model(queue=4, temperature=temperature, dim=8)
    net.backbone = net.key_backbone = Given(torch.eye(8)[:1])
    net.head = net.key_head = nn.Identity()
    net.queue.queue = torch.eye(8)[:, 1:5].clone()
    loss = net([torch.zeros(1, 3, 2, 2)] * 2)
    assert loss.item() == pytest.approx(expected, abs=6e-7)


def test_loss_is_ln_of_65537_at_random_initialisation():
    # random unit vectors in 128 dimensions: E[exp(cos / 0.2)] is exp(25 / 256), and the positive is as random as the rest
    torch.manual_seed(0)
    net = model(queue=65536)
    net.backbone, net.key_backbone = Given(torch.randn(256, 128)), Given(torch.randn(256, 128))
    net.head = net.key_head = nn.Identity()
    loss = net([torch.zeros(256, 3, 2, 2)] * 2).item()
    assert loss == pytest.approx(math.log(65537) + 25 / 256, abs=0.1)
    assert math.log(65537) == pytest.approx(11.0904, abs=5e-5)


def test_the_loss_is_the_formula_in_numpy():
    net = model()
    queue = net.queue.queue.numpy().copy()
    torch.manual_seed(5)
    loss = net(images()).item()
    net_again = model()
    with torch.no_grad():
        q = torch.cat([net_again.head(net_again.backbone(part)) for part in images()[0].split(4)])
        torch.manual_seed(5)
        order = torch.randperm(8)
        k = torch.empty(8, 128)
        shuffled = images()[1][order]
        k[order] = torch.cat([net_again.key_head(net_again.key_backbone(part)) for part in shuffled.split(4)])
    q, k = (F.normalize(x, dim=1).numpy().astype(float) for x in (q, k))
    logits = np.concatenate([(q * k).sum(axis=1, keepdims=True), q @ queue], axis=1) / 0.2
    expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[:, 0])
    assert loss == pytest.approx(expected, rel=1e-4)
    np.testing.assert_allclose(net.queue.queue[:, :8].numpy(), k.T, atol=1e-5)  # keys in the batch's order, un-shuffled
    np.testing.assert_array_equal(net.queue.queue[:, 8:].numpy(), queue[:, 8:])


def test_key_encoder_equals_query_encoder_at_step_0_and_follows_afterwards():
    net = model(ema=0.9)
    for key, query in zip(net.key_backbone.parameters(), net.backbone.parameters(), strict=True):
        assert torch.equal(key, query)
        assert key.data_ptr() != query.data_ptr()
    before = net.key_backbone.conv1.weight.clone()
    optimiser = torch.optim.SGD((p for p in net.parameters() if p.requires_grad), lr=0.1)
    net(images()).backward()
    assert all(p.grad is None for p in net.key_backbone.parameters())
    optimiser.step()
    assert torch.equal(net.key_backbone.conv1.weight, before)  # the update comes with the next forward, before the keys
    net(images())
    torch.testing.assert_close(net.key_backbone.conv1.weight, 0.9 * before + 0.1 * net.backbone.conv1.weight)


def test_the_keys_are_not_those_of_unshuffled_groups():
    net = model()
    torch.manual_seed(7)
    net(images())
    net_again = model()
    straight = F.normalize(net_again.key_head(heads.by_group(net_again.key_backbone, images()[1], 4)), dim=1)
    assert (net.queue.queue[:, :8].T - straight).abs().max() > 1e-3
    whole = F.normalize(net_again.key_head(net_again.key_backbone(images()[1])), dim=1)
    assert (net.queue.queue[:, :8].T - whole).abs().max() > 1e-3


def test_head_of_v1_is_linear_and_of_v2_an_mlp_without_batch_norm():
    v1 = moco.MoCo("resnet18", {**moco.recipe("v1"), "queue": 16})
    v2 = moco.MoCo("resnet18", {**moco.recipe("v2"), "queue": 16})
    assert [tuple(p.shape) for p in v1.head.parameters()] == [(128, 512), (128,)]
    assert [tuple(p.shape) for p in v2.head.parameters()] == [(512, 512), (512,), (128, 512), (128,)]


def test_the_recipes_differ_in_the_papers_four_switches():
    v1, v2 = moco.recipe("v1"), moco.recipe("v2")
    differ = {key for key in v1 if v1[key] != v2[key]}
    assert differ == {"variant", "mlp", "temperature", "gray_first", "jitter", "jitter_p", "blur_p", "schedule"}
    assert moco.recipe() == v2
    with pytest.raises(ValueError, match="v1 or v2"):
        moco.recipe("v3")
