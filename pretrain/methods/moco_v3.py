"""MoCo v3: momentum contrast without a queue. Among the keys of a large batch, each image's query must find its own, both ways.

Paper: arXiv 2104.02057; code: facebookresearch/moco-v3. From v2 it drops the queue and the shuffled batch norm; from BYOL it takes
the predictor, the views and the momentum that rises to 1, from SimCLR the large batch. The variants are the three commands of CONFIG.md.
Expected, ResNet-50, ImageNet, batch 4096: linear top-1 68.9 (100 epochs), 72.8 (300), 74.6 (1000).

    bench pretrain moco_v3 --data imagenet/train [--variant 300ep]

The paper's vision transformers are not here: the tables compare convolutional backbones.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, dist, heads, momentum, optim

# CONFIG.md: learning rate a 256 images, weight decay, momentum of the key networks at the start
PRESETS = {
    "100ep": (0.6, 1e-6, 0.99),
    "300ep": (0.3, 1e-6, 0.99),
    "1000ep": (0.3, 1.5e-6, 0.996),
}


def recipe(variant: str | None = None) -> dict:
    """The published recipe of "100ep", "300ep" or "1000ep" (default)."""
    variant = variant or "1000ep"
    if variant not in PRESETS:
        raise ValueError(f"expected one of the variants {', '.join(PRESETS)} of moco_v3, found {variant!r}")
    lr, weight_decay, ema = PRESETS[variant]
    return {
        "variant": variant,
        # architecture: moco/builder.py, MoCo_ResNet
        "hidden": 4096,
        "dim": 256,
        "temperature": 1.0,
        "ema": ema,
        "ema_schedule": "cosine",  # --moco-m-cos
        **augmentations.BYOL,
        "interpolation": "bilinear",  # torchvision's
        "crop_area": (0.2, 1.0),  # --crop-min
        # optimisation: main_moco.py's defaults and adjust_learning_rate
        **optim.BARLOW,
        "epochs": int(variant.removesuffix("ep")),
        "batch_size": 4096,
        "base_lr": lr,  # a 256 images
        "weight_decay": weight_decay,
        "end_factor": 0.0,
    }


def contrastive_loss(q: torch.Tensor, k: torch.Tensor, temperature: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of each query's own key among all keys, times 2 * temperature, a scalar, and the percent that find it.

    q, k: [N, C], unit length, of this process; the other processes' keys are candidates too, and no gradient flows through keys
    """
    keys = dist.gathered(k)  # [world_size * N, C]
    own = dist.own(torch.arange(len(keys), device=q.device))  # [N]
    logits = q @ keys.T / temperature  # [N, world_size * N]
    found = (logits.argmax(dim=1) == own).float().mean() * 100
    return 2 * temperature * F.cross_entropy(logits, own), found


class MoCoV3(nn.Module):
    whole_epochs = True  # the momentum reaches 1 after the steps that are taken: adjust_moco_momentum

    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.m, self.temperature = recipe["ema"], recipe["temperature"]
        hidden, dim = recipe["hidden"], recipe["dim"]
        self.backbone, width = heads.backbone(arch, zero_init_residual=True)  # main_moco.py
        self.projector = heads.mlp([width, hidden, dim], bias=False)
        self.projector.append(nn.BatchNorm1d(dim, affine=False))
        self.predictor = heads.mlp([dim, hidden, dim], bias=False)
        self.key_backbone = momentum.follower(self.backbone)
        self.key_projector = momentum.follower(self.projector)
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The sum of both directions' losses, a scalar of 0 or more; about 4 ln(world_size * N) at the start.

        views:    two tensors [N, 3, S, S]
        progress: the fraction of the training that is done, for the momentum
        """
        q1, q2 = (self.predictor(self.projector(self.backbone(x))) for x in views)  # [N, C] each
        with torch.no_grad():
            m = momentum.cosine(self.m, progress)
            momentum.follow(self.key_backbone, self.backbone, m)  # before the key forward
            momentum.follow(self.key_projector, self.projector, m)
            k1, k2 = (self.key_projector(self.key_backbone(x)) for x in views)
        with heads.full_precision(q1):
            q1, q2, k1, k2 = (F.normalize(x.float(), dim=1) for x in (q1, q2, k1, k2))
            one, found = contrastive_loss(q1, k2, self.temperature)
            two, _ = contrastive_loss(q2, k1, self.temperature)
        self.statistics = {"accuracy": found, "ema": m}
        return one + two


METHOD = MoCoV3
