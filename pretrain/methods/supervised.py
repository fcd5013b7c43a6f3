"""Supervised: the labels of the class folders and cross-entropy, the baseline every table compares with.

Recipe: torchvision's references/classification/train.py and README, which made its ImageNet1K_V1 weights.
Expected, ResNet-50, ImageNet, 90 epochs on 8 GPUs: top-1 76.1 (torchvision's model page); ResNet-18: 69.8. The published
transfer tables use MSRA's Caffe2 weights instead.

    bench pretrain supervised --data imagenet/train

Differences: batch norm takes a process's whole share of the batch, there the 32 images of a GPU: the same on 8 GPUs; an epoch's
incomplete batch is dropped, there it is a step.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, heads, optim


def recipe(variant: str | None = None) -> dict:
    """torchvision's published recipe; there are no variants."""
    if variant is not None:
        raise ValueError(f"expected no variant of supervised, found {variant!r}")
    return {
        "variant": None,
        "classes": 1000,  # becomes the number of class folders
        # views: references/classification/presets.py without its options: random resized crop and flip
        **augmentations.PLAIN,
        # optimisation: references/classification/README.md, "ResNet": 8 GPUs of 32 images, lr 0.1, x 0.1 every 30 epochs
        **optim.MOCO,
        "epochs": 90,
        "base_lr": 0.1,  # a 256 images
        "schedule": "step",
        "milestones": (30, 60),
    }


class Supervised(nn.Module):
    mean_over_images = True  # of the loss, so that a step can be taken in parts (--accumulate)
    classifies = True  # the head embeds nothing that could collapse

    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.backbone, width = heads.backbone(arch)
        self.head = nn.Linear(width, recipe["classes"])
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """Cross-entropy, a scalar; about ln(classes) at the start.

        views:  one tensor [N, 3, S, S]
        labels: [N], the number of each image's class folder
        """
        logits = self.head(self.backbone(views[0]))  # [N, classes]
        with heads.full_precision(logits):
            loss = F.cross_entropy(logits.float(), labels)
        self.statistics = {"accuracy": (logits.argmax(dim=1) == labels).float().mean() * 100}
        return loss


METHOD = Supervised
