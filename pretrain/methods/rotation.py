"""Rotation: by which quarter turn was the image turned?

Paper: arXiv 1803.07728; of ResNet-50: open-mmlab/OpenSelfSup, configs/selfsup/rotation_pred/r50.py. All four turns of an image stand in
the batch; crop and mirroring come first, so that a turn leaves no other trace.
Expected, ResNet-50, ImageNet, 70 epochs: linear top-1 47.01, VOC07+12 C4 AP 55.52 (OpenSelfSup's model zoo).

    bench pretrain rotation --data imagenet/train

Differences: the backbone's convolutions start with torchvision's variance (fan-out), the code's with fan-in; an epoch's incomplete
batch is dropped.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, heads, optim

TURNS = 4


def recipe(variant: str | None = None) -> dict:
    """OpenSelfSup's recipe; there are no variants."""
    if variant is not None:
        raise ValueError(f"expected no variant of rotation, found {variant!r}")
    return {
        "variant": None,
        # views: train_pipeline
        **augmentations.PLAIN,
        # optimisation: optimizer, lr_config, total_epochs; 16 images on 8 GPUs, each four times
        **optim.MOCO,
        "epochs": 70,
        "batch_size": 128,
        "base_lr": 0.4,  # a 256 images
        "schedule": "step",
        "schedule_unit": "step",
        "milestones": (30, 50),
        "warmup_epochs": 5.0,
        "warmup_start": 0.1,
        "sync_bn": True,
    }


def turned(x: torch.Tensor) -> torch.Tensor:
    """[N, 3, S, S] -> [4 * N, 3, S, S]: every image by 0, 90, 180 and 270 degrees, counter-clockwise."""
    return torch.stack([torch.rot90(x, turn, (2, 3)) for turn in range(TURNS)], dim=1).flatten(0, 1)


class Rotation(nn.Module):
    mean_over_images = True  # of the loss, so that a step can be taken in parts (--accumulate)
    classifies = True  # the head embeds nothing that could collapse

    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.backbone, width = heads.backbone(arch)
        self.head = nn.Linear(width, TURNS)
        nn.init.kaiming_normal_(self.head.weight, nonlinearity="relu")  # ClsHead.init_weights("kaiming")
        nn.init.zeros_(self.head.bias)
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """Cross-entropy of the turn, a scalar; ln 4 = 1.386 for a guess.

        views: one tensor [N, 3, S, S]
        """
        x = turned(views[0]).contiguous(memory_format=torch.channels_last)
        logits = self.head(self.backbone(x))  # [4 * N, 4]
        turns = torch.arange(TURNS, device=x.device).repeat(len(views[0]))
        with heads.full_precision(logits):
            loss = F.cross_entropy(logits.float(), turns)
        self.statistics = {"accuracy": (logits.argmax(dim=1) == turns).float().mean() * 100}
        return loss


METHOD = Rotation
