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
