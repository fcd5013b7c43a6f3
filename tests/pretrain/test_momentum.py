import pytest
import torch
from torch import nn

from pretrain import momentum


@pytest.mark.parametrize(
    ("progress", "expected"), [(0, 0.99), (0.25, 0.991464), (0.5, 0.995), (0.75, 0.998536), (1, 1.0)]
)
def test_the_cosine_from_099_to_1(progress, expected):
    assert momentum.cosine(0.99, progress) == pytest.approx(expected, abs=5e-7)


def test_the_average_moves_parameters_and_leaves_batch_norms_statistics():
    query = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    key = momentum.follower(query)
    assert not any(p.requires_grad for p in key.parameters())
    with torch.no_grad():
        query[0].weight.add_(1.0)
        query[1].running_mean.fill_(5.0)
    old = key[0].weight.clone()
    momentum.follow(key, query, 0.9)
    torch.testing.assert_close(key[0].weight, 0.9 * old + 0.1 * query[0].weight)
    assert (key[1].running_mean == 0).all()


@pytest.mark.parametrize("m", [0.5, 0.99])
def test_after_n_steps_the_average_is_its_closed_form(m):
    query = nn.Linear(3, 2)
    key = momentum.follower(query)
    start, seen = query.weight.detach().double().clone(), []
    for _ in range(5):
        with torch.no_grad():
            query.weight.add_(torch.randn(2, 3))
        seen.append(query.weight.detach().double().clone())
        momentum.follow(key, query, m)
    expected = m**5 * start + sum((1 - m) * m ** (4 - t) * q for t, q in enumerate(seen))
    torch.testing.assert_close(key.weight.double(), expected, atol=1e-6, rtol=1e-6)


def test_shuffled_gives_every_image_its_own_output_normalised_in_a_random_group():
    torch.manual_seed(0)
    x = torch.randn(8, 3)
    norm = nn.BatchNorm1d(3, affine=False)
    torch.manual_seed(4)
    order = torch.randperm(8)
    expected = torch.empty_like(x)
    for group in order.split(4):
        part = x[group]
        expected[group] = (part - part.mean(dim=0)) / (part.var(dim=0, unbiased=False) + 1e-5).sqrt()
    torch.manual_seed(4)
    torch.testing.assert_close(momentum.shuffled(norm, x, 4), expected)
