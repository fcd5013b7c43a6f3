"""PixPro: pixel-to-propagation consistency. A pixel's feature, smoothed over the similar pixels of its own view, must agree with
the momentum feature of the pixel at the same place in the other view.

Paper: arXiv 2011.10043; code: zdaxie/PixPro, tools/pixpro_base_r50_100ep.sh, whose options (not the argparse defaults) are the
recipe. Expected, ResNet-50, ImageNet, 8 GPUs: VOC07+12 C4 AP 58.8 after 100 epochs, 60.2 after 400; COCO FPN 40.8 (100 epochs).

    bench pretrain pixpro --data imagenet/train [--epochs 400]

Difference: the instance branch (weight 0 in that script) is not here. At the mini scale a 64-pixel view has a 2x2 map.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import heads, momentum


def recipe(variant: str | None = None) -> dict:
    """The published 100-epoch recipe; there are no variants."""
    if variant is not None:
        raise ValueError(f"expected no variant of pixpro, found {variant!r}")
    return {
        "variant": None,
        # architecture: contrast/models/PixPro.py (the paper's text says 2048 hidden channels, the code and the weights have 4096)
        "hidden": 4096,
        "dim": 256,
        "gamma": 2.0,  # --pixpro-p 2
        "transform_layers": 1,  # --pixpro-transform-layer 1
        "positive_ratio": 0.7,  # --pixpro-pos-ratio 0.7
        "ema": 0.99,  # --pixpro-momentum 0.99, to 1 along a cosine
        # views: contrast/data/transform.py, aug_type "BYOL", --crop 0.08
        "views": 2,
        "size": 224,
        "crop_area": (0.08, 1.0),
        "gray_first": False,
        "gray_p": 0.2,
        "jitter": (0.4, 0.4, 0.2, 0.1),
        "jitter_p": 0.8,
        "blur_p": (1.0, 0.1),
        "blur_sigma": (0.1, 2.0),
        "solarize_p": (0.0, 0.2),
        "flip_p": 0.5,
        # optimisation: the script
        "epochs": 100,
        "batch_size": 1024,  # 8 GPUs of 128
        "optimiser": "lars",
        "base_lr": 1.0,  # a 256 images
        "momentum": 0.9,
        "weight_decay": 1e-5,
        "schedule": "cosine",
        "schedule_unit": "step",
        "milestones": (),
        "warmup_epochs": 5.0,
        "warmup_start": 0.01,  # contrast/lr_scheduler.py: base / 100
        "end_lr": 1e-6,
        "constant_lr": "",
        "sync_bn": True,
        "precision": "fp16",  # --amp-opt-level O1
    }


def propagated(x: torch.Tensor, value: nn.Module, gamma: float) -> torch.Tensor:
    """The pixel propagation module: every pixel replaced by the sum of its map's transformed pixels, weighted by similarity.

    x:   [N, C, H, W]
    out: [N, C, H, W], unit length along C
    """
    g = F.normalize(value(x).float(), dim=1).flatten(2)  # [N, C, HW]
    with heads.full_precision(x):
        u = F.normalize(x.float(), dim=1).flatten(2)
        s = (u.transpose(1, 2) @ u).clamp(min=0)  # [N, HW, HW], cosines of the untransformed pixels, j = i included
        if gamma < 1:
            s = s + 1e-6  # keeps the gradient of the power finite at 0
        y = g @ (s**gamma).transpose(1, 2)  # y_i = sum_j s_ij g_j: neither a softmax nor a mean
        return F.normalize(y.view_as(x), dim=1)


def positives(boxes_q: torch.Tensor, boxes_k: torch.Tensor, height: int, width: int, ratio: float) -> torch.Tensor:
    """[N, HW, HW] of 0 and 1: which pixels of two maps lie closer than `ratio` times the larger bin's diagonal.

    boxes_q, boxes_k: [N, 4] x0, y0, x1, y1 as fractions of the image; x0 > x1 in a mirrored view, whose bins are then negative
    """

    def centres(boxes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x0, y0, x1, y1 = boxes.unbind(dim=1)
        w, h = (x1 - x0) / width, (y1 - y0) / height  # [N], signed
        x = x0[:, None, None] + (torch.arange(width, device=boxes.device) + 0.5) * w[:, None, None]  # [N, 1, W]
        y = (
            y0[:, None, None] + (torch.arange(height, device=boxes.device)[:, None] + 0.5) * h[:, None, None]
        )  # [N, H, 1]
        shape = (-1, height, width)
        return torch.stack([x.expand(shape), y.expand(shape)], dim=-1).flatten(1, 2), (w**2 + h**2).sqrt()

    (centre_q, diagonal_q), (centre_k, diagonal_k) = centres(boxes_q), centres(boxes_k)  # [N, HW, 2], [N]
    apart = (centre_q[:, :, None] - centre_k[:, None]).square().sum(dim=-1).sqrt()  # [N, HW, HW]
    return (apart / torch.maximum(diagonal_q, diagonal_k)[:, None, None] < ratio).float()


def regression_loss(q, k, boxes_q, boxes_k, ratio=0.7) -> torch.Tensor:
    """Pixel-to-propagation loss of one direction, a scalar in [-2, 2], to be minimised.

    q, k:             [N, C, H, W], unit length along C; no gradient flows through k
    boxes_q, boxes_k: [N, 4] x0, y0, x1, y1 of each view in its source image, as fractions of that image
    ratio:            pixels closer than this many bin diagonals are positives; an image without any counts as 0
    """
    mask = positives(boxes_q, boxes_k, *q.shape[2:], ratio)
    cosine = q.flatten(2).transpose(1, 2) @ k.flatten(2)  # [N, HW, HW]
    return -2 * ((cosine * mask).sum(dim=(1, 2)) / (mask.sum(dim=(1, 2)) + 1e-6)).mean()


class PixPro(nn.Module):
    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.m, self.gamma, self.ratio = recipe["ema"], recipe["gamma"], recipe["positive_ratio"]
        dim = recipe["dim"]
        # contrast/resnet.py: the last batch norm of every residual block starts at 0
        self.backbone, width = heads.backbone(arch, zero_init_residual=True)
        self.projector = _convolutions(width, recipe["hidden"], dim)
        self.key_backbone = momentum.follower(self.backbone)
        self.key_projector = momentum.follower(self.projector)
        if recipe["transform_layers"] not in (0, 1, 2):
            raise ValueError(f"expected transform_layers 0, 1 or 2, found {recipe['transform_layers']}")
        # a single layer is a bare convolution in the code, without batch norm
        self.value = (nn.Identity(), nn.Conv2d(dim, dim, 1), _convolutions(dim, dim, dim))[recipe["transform_layers"]]
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes, labels=None, progress=0.0) -> torch.Tensor:
        """The loss of both directions, a scalar in [-4, 4].

        views:    two tensors [N, 3, S, S]
        boxes:    [2, N, 4]
        progress: the fraction of the training that is done, for the momentum
        """
        y = [propagated(self.projector(heads.last_map(self.backbone, x)), self.value, self.gamma) for x in views]
        with torch.no_grad():
            m = momentum.cosine(self.m, progress)
            momentum.follow(self.key_backbone, self.backbone, m)  # before the key forward
            momentum.follow(self.key_projector, self.projector, m)
            k = [F.normalize(self.key_projector(heads.last_map(self.key_backbone, x)).float(), dim=1) for x in views]
        with heads.full_precision(y[0]):
            loss = regression_loss(y[0], k[1], boxes[0], boxes[1], self.ratio)
            loss = loss + regression_loss(y[1], k[0], boxes[1], boxes[0], self.ratio)
            # mean_norm: the length of the mean pixel feature: 1 when everything has collapsed to one vector
            self.statistics = {"ema": m, "mean_norm": k[0].mean(dim=(0, 2, 3)).norm()}
        return loss


def _convolutions(width: int, hidden: int, dim: int) -> nn.Sequential:
    """A pixelwise MLP: [N, width, H, W] -> [N, dim, H, W]."""
    return nn.Sequential(
        nn.Conv2d(width, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True), nn.Conv2d(hidden, dim, 1)
    )


METHOD = PixPro
