"""The momentum encoder: a copy that follows by an exponential moving average, on parameters only.

Batch-norm statistics are never averaged (MoCo builder.py, PixPro.py): the key network stays in training mode and normalises
with the statistics of its own batch.
"""

import copy
import math

import torch
from torch import nn

from pretrain import dist, heads


def follower(module: nn.Module) -> nn.Module:
    """A copy that receives no gradient."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(key: nn.Module, query: nn.Module, m: float) -> None:
    """key <- m * key + (1 - m) * query, for every parameter and no buffer."""
    keys, queries = list(key.parameters()), list(query.parameters())
    assert len(keys) == len(queries)
    if keys:  # some parts learn nothing
        torch._foreach_lerp_(keys, queries, 1 - m)  # on CUDA a few kernels instead of one a tensor


def cosine(base: float, progress: float) -> float:
    """The momentum at `progress` (0..1) of the training: from `base` to 1 along half a cosine (BYOL, PixPro)."""
    return 1 - (1 - base) * (1 + math.cos(math.pi * progress)) / 2


@torch.no_grad()
def shuffled(net: nn.Module, x: torch.Tensor, group: int) -> torch.Tensor:
    """net(x), normalised `group` images at a time in groups drawn at random over all processes (MoCo's shuffle-BN).

    x: [N, ...] of this process -> [N, ...], in the order of x
    """
    x = dist.gathered(x)  # [world_size * N, ...]
    order = dist.permutation(len(x), x.device)
    part = dist.own(x[order])
    out = heads.by_group(net, part, min(group, len(part)))
    return dist.own(dist.gathered(out)[order.argsort()])
