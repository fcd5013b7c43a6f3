"""SwAV: predict from one crop which prototypes another crop of the image was assigned to; assignments are shared out evenly.

Paper: arXiv 2006.09882; code: facebookresearch/swav, main_swav.py. The variants are its scripts/: 800ep (2 crops of 224 and 6 of
96 pixels, batch 4096), 400ep_2x224 (the large crops only) and 400ep_bs256 (small batch, with a queue).
Expected, ResNet-50, ImageNet: linear top-1 75.3 (800 epochs; 100, 200, 400: 72.1, 73.9, 74.6), 70.1 (400ep_2x224), 74.3
(400ep_bs256; 200 epochs: 72.7), from the README's table. A loss that stays at ln 3000 = 8.006 has collapsed:
the README's way out is epsilon=0.03, which the mini scale takes.

    bench pretrain swav --data imagenet/train [--variant 400ep_bs256]

Differences: at batch 4096 the scripts normalise in groups of 8 GPUs (512 images), here over the whole batch; the code's warm-up
ends a step earlier, at most 0.03 % of the peak.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, dist, heads

CROPS = augmentations.multi_crop((224,) * 2 + (96,) * 6, ((0.14, 1.0),) * 2 + ((0.05, 0.14),) * 6)
LARGE_CROPS = augmentations.multi_crop((224,) * 2, ((0.08, 1.0),) * 2)
VARIANTS: dict[str, dict[str, Any]] = {
    "800ep": {},
    "400ep_2x224": {**LARGE_CROPS, "epochs": 400},
    "400ep_bs256": {"epochs": 400, "batch_size": 256, "base_lr": 0.6, "warmup_epochs": 0.0, "queue": 3840},
}

# scripts/swav_800ep_pretrain.sh; DeepCluster-v2's is the same
OPTIMISATION: dict[str, Any] = {
    "epochs": 800,
    "batch_size": 4096,
    "optimiser": "larc",
    "base_lr": 0.3,  # a 256 images
    "momentum": 0.9,
    "weight_decay": 1e-6,
    "schedule": "cosine",
    "schedule_unit": "step",
    "milestones": (),
    "warmup_epochs": 10.0,
    "warmup_start": 0.0625,  # 0.3 of 4.8
    "end_factor": 0.001,
    "constant_lr": "",
    "sync_bn": True,
}


def recipe(variant: str | None = None) -> dict:
    """The script of 800ep (default), 400ep_2x224 or 400ep_bs256."""
    variant = variant or "800ep"
    if variant not in VARIANTS:
        raise ValueError(f"expected one of the variants {', '.join(VARIANTS)} of swav, found {variant!r}")
    return {
        "variant": variant,
        # architecture and loss: main_swav.py and src/resnet50.py
        "hidden": 2048,
        "dim": 128,
        "prototypes": 3000,
        "temperature": 0.1,
        "epsilon": 0.05,
        "sinkhorn_iterations": 3,
        "queue": 0,  # embeddings of earlier batches that are shared out too
        "queue_epoch": 15,  # the first epoch, from 0, that fills the queue
        "freeze_epochs": 1.0,  # --freeze_prototypes_niters: 313 steps of 4096 images, 5005 of 256
        "images": 1281167,  # becomes the number of images
        **CROPS,
        **OPTIMISATION,
        "precision": "fp16",
        **VARIANTS[variant],
    }


@torch.no_grad()
def sinkhorn(scores: torch.Tensor, epsilon: float, iterations: int) -> torch.Tensor:
    """Soft assignments, [B, K], every row of sum 1 and, after many iterations, every column of the same sum.

    scores: [B, K], cosines of this process's samples and the prototypes; the columns are balanced over all processes
    """
    q = (scores / epsilon).exp()
    k, b = q.shape[1], len(q) * dist.world_size()
    q = q / dist.summed(q.sum())
    for _ in range(iterations):
        q = q / dist.summed(q.sum(dim=0)) / k  # every prototype weighs 1 / K
        q = q / q.sum(dim=1, keepdim=True) / b  # every sample weighs 1 / B
    return q * b


def swapped_loss(scores: torch.Tensor, assignments: dict[int, torch.Tensor], temperature: float) -> torch.Tensor:
    """Cross-entropy of every crop's softmax with the assignment of another crop of its image, a scalar of 0 or more.

    scores:      [V, N, K], cosines
    assignments: [N, K], rows of sum 1, of the crops that have one, by the number of the crop
    """
    log_p = F.log_softmax(scores / temperature, dim=2)
    losses = [
        -(q * log_p[v]).sum(dim=1).mean() for crop, q in assignments.items() for v in range(len(scores)) if v != crop
    ]
    return torch.stack(losses).mean()


class SwAV(nn.Module):
    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.temperature, self.queue_epoch = recipe["temperature"], recipe["queue_epoch"]
        self.balance = (recipe["epsilon"], recipe["sinkhorn_iterations"])
        # 313 and 5005 at the published batches, where the last, incomplete batch counts
        self.frozen_steps = math.ceil(recipe["freeze_epochs"] * recipe["images"] / recipe["batch_size"])
        dim = recipe["dim"]
        self.backbone, width = heads.backbone(arch)
        self.head = heads.mlp([width, recipe["hidden"], dim], bias=True)
        self.prototypes = nn.Linear(dim, recipe["prototypes"], bias=False)
        # the newest first, of both large crops of all processes; zeros until it has been filled once
        self.register_buffer("queue", torch.zeros(2, recipe["queue"], dim))
        self.register_buffer("queue_starts", torch.zeros(1, dtype=torch.bool))
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The swapped prediction, a scalar; ln(prototypes) when everything has collapsed.

        views: V tensors [N, 3, S_v, S_v], of which the first two are given assignments
        """
        with torch.no_grad():
            self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))
        z = self.head(heads.multi_crop(self.backbone, views))  # [V * N, C]
        with heads.full_precision(z):
            z = F.normalize(z.to(self.prototypes.weight.dtype), dim=1)
            scores = self.prototypes(z).unflatten(0, (len(views), -1))  # [V, N, K]
            z = z.detach().unflatten(0, (len(views), -1))
            assignments = {crop: self.assigned(scores[crop].detach(), z[crop], crop) for crop in (0, 1)}
            loss = swapped_loss(scores, assignments, self.temperature)
            # how many prototypes are some image's first choice, of at most N
            chosen = torch.zeros_like(scores[0, 0]).index_fill(0, assignments[0].argmax(dim=1), 1)  # [K]
            self.statistics = {"prototypes": chosen.sum()}
        return loss

    @torch.no_grad()
    def assigned(self, scores: torch.Tensor, z: torch.Tensor, crop: int) -> torch.Tensor:
        """The assignments of a large crop, [N, K], balanced together with the queue, which then takes the crop in.

        scores: [N, K]; z: [N, C]
        """
        queue = self.queue[crop]
        n = len(scores)
        if len(queue) and queue[-1].any():  # it has been full once
            scores = torch.cat([self.prototypes(dist.own(queue)), scores])
        if len(queue) and self.queue_starts:
            self.queue[crop] = torch.cat([dist.gathered(z), queue])[: len(queue)]
        return sinkhorn(scores, *self.balance)[-n:]

    def before_epoch(self, epoch: int) -> None:
        self.queue_starts.fill_(epoch >= self.queue_epoch)

    def before_update(self, step: int, per_epoch: int) -> None:
        """The prototypes stay as they were drawn in the first steps."""
        if step < self.frozen_steps:
            self.prototypes.weight.grad = None


METHOD = SwAV
