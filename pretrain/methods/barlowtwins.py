"""Barlow Twins: the outputs' cross-correlation over a batch, between two views, must become the identity matrix.

Paper: arXiv 2103.03230; code: facebookresearch/barlowtwins, main.py. Twin outputs then agree (diagonal) and do not repeat one
another (the rest); there are neither negatives nor a momentum encoder, and what cannot collapse is the decorrelation.
Expected, ResNet-50, ImageNet, 1000 epochs: linear top-1 73.5 (README and Table 1).

    bench pretrain barlowtwins --data imagenet/train

Difference: main.py sums the correlation over its processes outside the graph, so that a gradient there is that of the whole batch
divided by their number; here it is that of the whole batch. LARS cancels the factor for matrices, but not against their weight
decay, nor for biases and batch norm: weight_decay=1.6e-5 bias_lr=0.0003 is what the README's 16 GPUs amount to. The last, incomplete
batch of an epoch is dropped.
"""

import torch
from torch import nn

from pretrain import augmentations, dist, heads, optim


def recipe(variant: str | None = None) -> dict:
    """The published recipe of 1000 epochs; there are no variants."""
    if variant is not None:
        raise ValueError(f"expected no variant of barlowtwins, found {variant!r}")
    return {
        "variant": None,
        # architecture and loss: main.py, --projector and --lambd
        "hidden": 8192,
        "dim": 8192,
        "lambda": 0.0051,
        **augmentations.BYOL,
        # optimisation: main.py's defaults and adjust_learning_rate
        **optim.BARLOW,
        "bias_lr": 0.0048,  # a 256 images; of biases and batch norm
    }


def redundancy_loss(z1: torch.Tensor, z2: torch.Tensor, weight: float) -> tuple[torch.Tensor, torch.Tensor]:
    """sum_i (1 - c_ii)^2 + weight * sum_{i != j} c_ij^2, a scalar of 0 or more, and c, [C, C], z1's correlation with z2.

    z1, z2: [N, C], every column of mean 0 and variance 1 over the batch of all processes
    """
    c = dist.summed(z1.T @ z2 / (len(z1) * dist.world_size()))
    diagonal = c.diagonal()
    agreement = (1 - diagonal).square().sum()
    return agreement + weight * (c.square().sum() - diagonal.square().sum()), c


class BarlowTwins(nn.Module):
    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.weight = recipe["lambda"]
        hidden, dim = recipe["hidden"], recipe["dim"]
        self.backbone, width = heads.backbone(arch, zero_init_residual=True)
        self.projector = heads.mlp([width, hidden, hidden, dim], bias=False)
        self.normalised = nn.BatchNorm1d(dim, affine=False)
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The loss of the batch of all processes, a scalar of 0 or more, the same in each.

        views: two tensors [N, 3, S, S]
        """
        z1, z2 = (self.projector(self.backbone(x)) for x in views)  # [N, C] each
        with heads.full_precision(z1):
            loss, c = redundancy_loss(self.normalised(z1.float()), self.normalised(z2.float()), self.weight)
            # 1 where the views agree, in the mean over the outputs
            self.statistics = {"correlation": c.detach().diagonal().mean()}
        return loss


METHOD = BarlowTwins
