"""PixContrast: contrast of pixels. A pixel must tell the pixels at the same place in the other view, in the momentum encoder's
features, from all other pixels of that view.

Paper: arXiv 2011.10043, the first of its two tasks; zdaxie/PixPro is the code of the second, PixPro, and has none for this one. So
backbone, projector, momentum encoder, views and schedule are PixPro's. Expected, ResNet-50, ImageNet, 100 epochs (the paper's
ablation, unverified): VOC07+12 C4 AP 0.7 and COCO FPN AP 2.0 below PixPro's.

    bench pretrain pixcontrast --data imagenet/train

Unverified, for want of code: the temperature and the threshold of this task; that a pixel lies in both views if it has a positive;
that an image whose views share no pixel counts as 0, as in PixPro's code; that the two directions are averaged.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import heads, momentum, pixels


def recipe(variant: str | None = None) -> dict:
    """PixPro's published 100-epoch recipe with the contrast's temperature; there are no variants."""
    if variant is not None:
        raise ValueError(f"expected no variant of pixcontrast, found {variant!r}")
    return {
        "variant": None,
        "unverified": ("temperature", "positive_ratio"),
        "temperature": 0.3,  # arXiv 2011.10043, below equation 2
        **pixels.RECIPE,
    }


def contrast_loss(q, k, boxes_q, boxes_k, temperature=0.3, ratio=0.7) -> torch.Tensor:
    """The contrast of one direction (equation 2), a scalar of at least 0: -log(sum_pos e^(cos/t) / sum_all e^(cos/t)).

    q, k:             [N, C, H, W], unit length along C; no gradient flows through k
    boxes_q, boxes_k: [N, 4] x0, y0, x1, y1 of each view in its source image, as fractions of that image
    temperature:      t
    ratio:            pixels closer than this many bin diagonals are positives, all others of k's image are negatives

    Averaged over the pixels of q that have a positive, then over the images; an image without any counts as 0.
    """
    mask = pixels.positives(boxes_q, boxes_k, *q.shape[2:], ratio)  # [N, HW, HW]
    logits = q.flatten(2).transpose(1, 2) @ k.flatten(2) / temperature  # [N, HW, HW]
    shared = mask.any(dim=2)  # [N, HW]
    # a pixel without positives would give -inf; it is left out below and must not spoil the gradient
    positive = logits.masked_fill((mask == 0) & shared[:, :, None], -torch.inf).logsumexp(dim=2)
    loss = (logits.logsumexp(dim=2) - positive) * shared
    return (loss.sum(dim=1) / shared.sum(dim=1).clamp(min=1)).mean()


class PixContrast(nn.Module):
    trust_epsilon = 1e-8  # of LARS (contrast/lars.py); the other methods' authors have none

    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.m, self.temperature, self.ratio = recipe["ema"], recipe["temperature"], recipe["positive_ratio"]
        self.backbone, width = heads.backbone(arch, zero_init_residual=True)
        self.projector = pixels.convolutions(width, recipe["hidden"], recipe["dim"])
        self.key_backbone = momentum.follower(self.backbone)
        self.key_projector = momentum.follower(self.projector)
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The mean of the two directions' losses, a scalar; about ln(HW / positives) at the start.

        views: two tensors [N, 3, S, S]
        boxes: [2, N, 4]
        """
        q = [F.normalize(self.projector(heads.last_map(self.backbone, x)).float(), dim=1) for x in views]
        with torch.no_grad():
            m = momentum.cosine(self.m, progress)
            momentum.follow(self.key_backbone, self.backbone, m)  # before the key forward
            momentum.follow(self.key_projector, self.projector, m)
            k = [F.normalize(self.key_projector(heads.last_map(self.key_backbone, x)).float(), dim=1) for x in views]
        with heads.full_precision(q[0]):
            given = (self.temperature, self.ratio)
            loss = contrast_loss(q[0], k[1], boxes[0], boxes[1], *given)
            loss = (loss + contrast_loss(q[1], k[0], boxes[1], boxes[0], *given)) / 2
        self.statistics = {"ema": m, "mean_norm": k[0].mean(dim=(0, 2, 3)).norm()}
        return loss


METHOD = PixContrast
