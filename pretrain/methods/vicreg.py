"""VICReg: two views' outputs must be near (invariance), each output must vary (variance) and differ from the others (covariance).

Paper: arXiv 2105.04906; code: facebookresearch/vicreg, main_vicreg.py, whose weights 25, 25 and 1 belong to the halved variance
term below. No negatives, no momentum encoder, no normalised outputs: the variance term alone forbids a collapse.
Expected, ResNet-50, ImageNet, 1000 epochs: linear top-1 73.2 (README and Table 1).

    bench pretrain vicreg --data imagenet/train [--variant 100ep]

Difference: the last, incomplete batch of an epoch is dropped.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, dist, heads, optim


def recipe(variant: str | None = None) -> dict:
    """The published recipe of "1000ep" (default), or of the README's "100ep" on one machine."""
    if variant not in (None, "1000ep", "100ep"):
        raise ValueError(f"expected variant 1000ep or 100ep of vicreg, found {variant!r}")
    short = variant == "100ep"
    return {
        "variant": "100ep" if short else "1000ep",
        # architecture and loss: main_vicreg.py, --mlp and the three --*-coeff
        "hidden": 8192,
        "dim": 8192,
        "invariance": 25.0,
        "variance": 25.0,
        "covariance": 1.0,
        **augmentations.BYOL,
        # optimisation: README, "Training", and adjust_learning_rate
        **optim.BARLOW,
        "epochs": 100 if short else 1000,
        "batch_size": 512 if short else 2048,
        "base_lr": 0.3 if short else 0.2,  # a 256 images
    }


def variance_loss(z: torch.Tensor) -> torch.Tensor:
    """The mean over the outputs of max(0, 1 - standard deviation), 0 to 1.

    z: [N, C], the batch of all processes
    """
    return F.relu(1 - (z.var(dim=0) + 1e-4).sqrt()).mean()


def covariance_loss(z: torch.Tensor) -> torch.Tensor:
    """The sum of the squared covariances of different outputs, a C-th part of it, 0 or more.

    z: [N, C], the batch of all processes
    """
    z = z - z.mean(dim=0)
    c = z.T @ z / (len(z) - 1)  # [C, C]
    return (c.square().sum() - c.diagonal().square().sum()) / len(c)


class VICReg(nn.Module):
    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.weights = [recipe[term] for term in ("invariance", "variance", "covariance")]
        self.backbone, width = heads.backbone(arch, zero_init_residual=True)
        # hidden layers with a bias before batch norm, as in Projector; the last layer has none
        self.projector = heads.mlp([width, recipe["hidden"], recipe["hidden"], recipe["dim"]], bias=(True, True, False))
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The weighted sum of the three terms, a scalar of 0 or more; variance and covariance are those of all processes.

        views: two tensors [N, 3, S, S]
        """
        x, y = (self.projector(self.backbone(view)) for view in views)  # [N, C] each
        with heads.full_precision(x):
            x, y = x.float(), y.float()
            invariance = F.mse_loss(x, y)
            x, y = dist.gathered_with_gradient(x), dist.gathered_with_gradient(y)  # [world_size * N, C]
            variance = (variance_loss(x) + variance_loss(y)) / 2
            covariance = covariance_loss(x) + covariance_loss(y)
            terms = torch.stack([invariance, variance, covariance])
            self.statistics = dict(zip(("invariance", "variance", "covariance"), terms.detach(), strict=True))
            return terms @ terms.new_tensor(self.weights)


METHOD = VICReg
