"""Relative location: on which of the eight sides of the middle patch does another patch of the image lie?

Paper: arXiv 1505.05192; of ResNet-50: open-mmlab/OpenSelfSup, configs/selfsup/relative_loc/r50.py. The patches are cut with a gap and
at a random place of their cell, so that no line goes on from one to the next, and two thirds of the images are grey, because the
paper found that colour fringes of the lens give the place away.
Expected, ResNet-50, ImageNet, 70 epochs: linear top-1 38.83, VOC07+12 C4 AP 55.13 (OpenSelfSup's model zoo).

    bench pretrain relative_loc --data imagenet/train

Differences: the square is cut from the image and then resized, there the image is resized first; the middle patch passes once, there
once for each of the others, which is the same but for the running variances; batch norm takes a process's whole share of the batch,
there the 64 images of a GPU, the same on 8 GPUs; the backbone's convolutions start with torchvision's variance (fan-out), the code's
with fan-in; an epoch's incomplete batch is dropped.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, dist, heads, jigsaw, optim

MIDDLE = jigsaw.PATCHES // 2
AROUND = [patch for patch in range(jigsaw.PATCHES) if patch != MIDDLE]  # a patch's place here is its class


def recipe(variant: str | None = None) -> dict:
    """OpenSelfSup's recipe; there are no variants."""
    if variant is not None:
        raise ValueError(f"expected no variant of relative_loc, found {variant!r}")
    return {
        "variant": None,
        # architecture: RelativeLocNeck
        "hidden": 4096,
        # views: train_pipeline and image_to_patches
        **augmentations.PLAIN,
        "gray_p": 0.66,
        "flip_p": 0.0,
        "jigsaw": 0,
        "jigsaw_size": 255,
        "jigsaw_side": 255 / 292,
        "jigsaw_patch": 64,
        # optimisation: optimizer, lr_config, total_epochs; 64 images on 8 GPUs
        **optim.MOCO,
        "epochs": 70,
        "batch_size": 512,
        "base_lr": 0.1,  # a 256 images
        "head_decay": 5e-4,  # paramwise_options, of neck and head
        "schedule": "step",
        "schedule_unit": "step",
        "milestones": (30, 50),
        "warmup_epochs": 5.0,
        "warmup_start": 0.1,
    }


class Dropout(nn.Module):
    """Dropout with one half, drawn for the whole batch alike in every process."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C] -> [N, C]"""
        if not self.training:
            return x
        kept = torch.rand(dist.world_size() * len(x), x.shape[1], device=x.device) < 0.5
        return x * dist.own(kept) * 2


class RelativeLoc(nn.Module):
    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.backbone, width = heads.backbone(arch)
        hidden = recipe["hidden"]
        first, last = nn.Linear(2 * width, hidden), nn.Linear(hidden, len(AROUND))
        for layer, bias in ((first, 0.1), (last, 0.0)):
            nn.init.normal_(layer.weight, std=0.005)
            nn.init.constant_(layer.bias, bias)
        self.head = nn.Sequential(first, nn.BatchNorm1d(hidden, momentum=0.003), nn.ReLU(inplace=True), Dropout(), last)
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """Cross-entropy of the place, a scalar; ln 8 = 2.079 for a guess.

        views: one tensor [N, 9, 3, P, P], the patches row by row
        """
        patches = views[0]
        around = self.backbone(patches[:, AROUND].flatten(0, 1))  # [8 * N, C]
        middle = self.backbone(patches[:, MIDDLE]).repeat_interleave(len(AROUND), dim=0)
        logits = self.head(torch.cat([around, middle], dim=1))  # [8 * N, 8]
        places = torch.arange(len(AROUND), device=logits.device).repeat(len(patches))
        with heads.full_precision(logits):
            loss = F.cross_entropy(logits.float(), places)
        self.statistics = {"accuracy": (logits.argmax(dim=1) == places).float().mean() * 100}
        return loss


METHOD = RelativeLoc
