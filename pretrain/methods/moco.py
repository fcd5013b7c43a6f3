"""MoCo: momentum contrast. A query must find its key, from another view of the same image, among the keys of a long queue.

Papers: arXiv 1911.05722 (v1), arXiv 2003.04297 (v2); code: facebookresearch/moco. v2 is v1 with an MLP head, more
augmentation, temperature 0.2 and a cosine learning rate.
Expected, ResNet-50, ImageNet, 200 epochs on 8 GPUs: linear top-1 60.6 (v1), 67.7 (v2; 71.1 after 800 epochs);
VOC07+12 C4 AP 55.9 (v1), 57.0 (v2; 57.4 after 800).

    bench pretrain moco --data imagenet/train [--variant v1]

Shuffle-BN: with one BN statistic a GPU, keys are shuffled among the GPUs so that a query cannot recognise its key by the
statistics they share. Here a "GPU" is a group of `bn_group` images of one process; eight processes of 32 images are the paper's
setting, one process of 256 images normalises the same groups one after the other.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, contrast, dist, heads, memory, momentum, optim


def recipe(variant: str | None = None) -> dict:
    """The published recipe of "v1" or "v2" (default)."""
    if variant not in (None, "v1", "v2"):
        raise ValueError(f"expected variant v1 or v2 of moco, found {variant!r}")
    v1 = variant == "v1"
    return {
        "variant": "v1" if v1 else "v2",
        # architecture: moco/builder.py; v2 adds --mlp (README, "MoCo v2" command)
        "dim": 128,
        "mlp": not v1,
        "queue": 65536,
        "ema": 0.999,
        "temperature": 0.07 if v1 else 0.2,
        "bn_group": 32,  # 256 images on 8 GPUs without SyncBN, main_moco.py --batch-size and README
        # views: main_moco.py, `if args.aug_plus`
        **(augmentations.MOCO1 if v1 else augmentations.MOCO2),
        # optimisation: main_moco.py defaults; v2 adds --cos
        **optim.MOCO,
        "schedule": "step" if v1 else "cosine",
        "milestones": (120, 160),
    }


class MoCo(nn.Module):
    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.m, self.temperature, self.bn_group = recipe["ema"], recipe["temperature"], recipe["bn_group"]
        self.backbone, width = heads.backbone(arch)
        linear = nn.Linear(width, recipe["dim"])
        # v2's head has no batch norm
        self.head = nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), linear) if recipe["mlp"] else linear
        self.key_backbone = momentum.follower(self.backbone)
        self.key_head = momentum.follower(self.head)
        self.queue = memory.Queue(recipe["dim"], recipe["queue"])
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """InfoNCE of a query against its key and the queue, a scalar; about ln(K + 1) at the start.

        views: two tensors [N, 3, S, S], the query's and the key's
        """
        x_q, x_k = views
        q = self.head(heads.by_group(self.backbone, x_q, min(self.bn_group, len(x_q))))  # [N, C]
        with torch.no_grad():
            momentum.follow(self.key_backbone, self.backbone, self.m)  # before the key forward
            momentum.follow(self.key_head, self.head, self.m)
            k = F.normalize(self.key_head(momentum.shuffled(self.key_backbone, x_k, self.bn_group)).float(), dim=1)
        with heads.full_precision(q):
            # [N, 1 + K]
            logits = contrast.queue_logits(F.normalize(q.float(), dim=1), k, self.queue.queue, self.temperature)
            loss = contrast.softmax_loss(logits)
        self.queue.enqueue(dist.gathered(k))
        self.statistics = {"accuracy": contrast.accuracy(logits)}
        return loss


METHOD = MoCo
