"""The jigsaw branch: nine patches of an image, in random order, become one embedding (PIRL, InfoMin)."""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import dist, heads

PATCHES = 9


def shuffled(x: torch.Tensor) -> torch.Tensor:
    """[N, 9, C] -> [N, 9, C]: the patches of every image in an order of its own, drawn alike in every process."""
    order = torch.rand(dist.world_size() * len(x), PATCHES, device=x.device).argsort(dim=1)
    return x.gather(1, dist.own(order)[:, :, None].expand_as(x))


class Jigsaw(nn.Module):
    """A projection of each patch, then a linear layer over all nine (HobbitLong/PyContrast networks/util.py, JigsawHead).

    projection: [M, width] -> [M, dim]
    """

    def __init__(self, projection: nn.Module, dim: int) -> None:
        super().__init__()
        self.projection = projection
        self.together = nn.Linear(PATCHES * dim, dim)

    def forward(self, backbone: nn.Module, patches: torch.Tensor, group: int) -> torch.Tensor:
        """[N, 9, 3, P, P] -> [N, dim], unit length; batch norm sees the patches of `group` images at a time."""
        group = min(group, len(patches))
        features = heads.by_group(backbone, patches.flatten(0, 1), PATCHES * group)
        projected = self.projection(features).unflatten(0, (-1, PATCHES))  # [N, 9, dim]
        return F.normalize(self.together(shuffled(projected).flatten(1)).float(), dim=1)
