"""SimSiam: two views, one network, a predictor and a stop-gradient; no negatives, no momentum encoder.

Paper: arXiv 2011.10566; code: facebookresearch/simsiam.
Expected, ResNet-50, ImageNet, 100 epochs on 8 GPUs: linear top-1 68.1. VOC07+12 C4 AP 57.0 belongs to the paper's other recipe
(Table 5, "SimSiam, optimal": lr 0.5, weight decay 1e-5).

    bench pretrain simsiam --data imagenet/train
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, heads, optim


def recipe(variant: str | None = None) -> dict:
    """The published recipe of 100 epochs; there are no variants."""
    if variant is not None:
        raise ValueError(f"expected no variant of simsiam, found {variant!r}")
    return {
        "variant": None,
        # architecture: simsiam/builder.py
        "dim": 2048,
        "predictor_hidden": 512,
        # views: main_simsiam.py, MoCo v2's
        **augmentations.MOCO2,
        # optimisation: main_simsiam.py defaults and the README's --fix-pred-lr
        **optim.MOCO,
        "epochs": 100,
        "batch_size": 512,
        "base_lr": 0.05,  # a 256 images
        "constant_lr": "predictor",  # --fix-pred-lr
        "sync_bn": True,
    }


class SimSiam(nn.Module):
    mean_over_images = True  # of the loss, so that a step can be taken in parts (--accumulate)

    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        dim, hidden = recipe["dim"], recipe["predictor_hidden"]
        self.backbone, width = heads.backbone(arch, zero_init_residual=True)
        # no bias where batch norm follows; the output's batch norm has no affine part
        self.projector = heads.mlp([width, width, width, dim], bias=False).append(nn.BatchNorm1d(dim, affine=False))
        self.predictor = heads.mlp([dim, hidden, dim], bias=(False, True))
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """Minus the cosine of prediction and the other view's projection, both directions averaged, a scalar in [-1, 1].

        views: two tensors [N, 3, S, S]
        """
        z1, z2 = (self.projector(self.backbone(x)) for x in views)  # [N, dim] each
        p1, p2 = self.predictor(z1), self.predictor(z2)  # [N, dim] each
        with heads.full_precision(z1):
            z1, z2, p1, p2 = (x.float() for x in (z1.detach(), z2.detach(), p1, p2))
            loss = -(F.cosine_similarity(p1, z2).mean() + F.cosine_similarity(p2, z1).mean()) / 2
            # paper, section 4.1: 1 / sqrt(dim) while the outputs scatter, 0 when they have collapsed
            self.statistics = {"std": F.normalize(z1, dim=1).std(dim=0).mean()}
        return loss


METHOD = SimSiam
