"""PixPro: pixel-to-propagation consistency. A pixel's feature, smoothed over the similar pixels of its own view, must agree with
the momentum feature of the pixel at the same place in the other view.

Paper: arXiv 2011.10043; code: zdaxie/PixPro, contrast/models/PixPro.py and tools/pixpro_base_r50_100ep.sh. Expected, ResNet-50,
ImageNet, 8 GPUs: VOC07+12 C4 AP 58.8 after 100 epochs, 60.2 after 400; COCO FPN 40.8 (100), with the instance branch 41.3 (100)
and 41.4 (400); FPN and head pretrained too: up to 1.2 AP more on COCO with FCOS (Table 5).

    bench pretrain pixpro --data imagenet/train [--epochs 400] [--variant instance|fpn]

"instance" adds BYOL's loss on the averaged map, by a projector and a predictor of its own. "fpn" aligns the pretraining with the
downstream network: the loss is taken on every level behind an FPN and the four convolutions of a detector's head, and
backbone.pth carries them under "detectron2/" for the FPN tasks. Unverified, because the authors published no code for it: levels 3
to 5, one head, projector and propagation for all levels, their mean as the loss, Mask R-CNN's names instead of FCOS's.
Differences: the instance branch averages the whole map, which at 224 is the code's 7x7; with transform_layers=2 the propagation's
batch norm takes the whole batch, there the images of a GPU. At the mini scale a map is 2x2.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import heads, momentum, pixels

# variant: the fields of its recipe that no source confirms
VARIANTS: dict[str | None, tuple[str, ...]] = {None: (), "instance": ("instance_weight",), "fpn": ("finest",)}


def recipe(variant: str | None = None) -> dict:
    """The published 100-epoch recipe, alone (default), with the "instance" branch or with "fpn" and head."""
    if variant not in VARIANTS:
        raise ValueError(f"expected variant instance or fpn of pixpro, or none, found {variant!r}")
    return {
        "variant": variant,
        "unverified": VARIANTS[variant],
        "gamma": 2.0,  # --pixpro-p 2
        "transform_layers": 1,  # --pixpro-transform-layer 1
        "instance_weight": 1.0 if variant == "instance" else 0.0,  # --pixpro-ins-loss-weight
        "finest": 3 if variant == "fpn" else 0,  # the FPN's lowest level, FCOS's; 0 for no FPN
        **pixels.RECIPE,
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


def regression_loss(q, k, boxes_q, boxes_k, ratio=0.7) -> torch.Tensor:
    """Pixel-to-propagation loss of one direction, a scalar in [-2, 2], to be minimised.

    q, k:             [N, C, H, W], unit length along C; no gradient flows through k
    boxes_q, boxes_k: [N, 4] x0, y0, x1, y1 of each view in its source image, as fractions of that image
    ratio:            pixels closer than this many bin diagonals are positives; an image without any counts as 0
    """
    mask = pixels.positives(boxes_q, boxes_k, *q.shape[2:], ratio)
    cosine = q.flatten(2).transpose(1, 2) @ k.flatten(2)  # [N, HW, HW]
    return -2 * ((cosine * mask).sum(dim=(1, 2)) / (mask.sum(dim=(1, 2)) + 1e-6)).mean()


def instance_loss(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    """-2 cos of the averaged maps q and k, [N, C, H, W]: a scalar in [-2, 2]; no gradient flows through k."""
    return -2 * F.cosine_similarity(q.float().mean(dim=(2, 3)), k.float().mean(dim=(2, 3))).mean()


class PixPro(nn.Module):
    trust_epsilon = 1e-8  # of LARS (contrast/lars.py); the other methods' authors have none

    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.m, self.gamma, self.ratio = recipe["ema"], recipe["gamma"], recipe["positive_ratio"]
        self.weight, hidden, dim = recipe["instance_weight"], recipe["hidden"], recipe["dim"]
        # contrast/resnet.py: the last batch norm of every residual block starts at 0
        self.backbone, width = heads.backbone(arch, zero_init_residual=True)
        self.pyramid = pixels.Pyramid(width, recipe["finest"]) if recipe["finest"] else pixels.Top()
        self.projector = pixels.convolutions(pixels.DIM if recipe["finest"] else width, hidden, dim)
        if recipe["transform_layers"] not in (0, 1, 2):
            raise ValueError(f"expected transform_layers 0, 1 or 2, found {recipe['transform_layers']}")
        # a single layer is a bare convolution in the code, without batch norm
        layers = (nn.Identity(), nn.Conv2d(dim, dim, 1), pixels.convolutions(dim, dim, dim))
        self.value = layers[recipe["transform_layers"]]
        if self.weight > 0:
            self.instance_projector = pixels.convolutions(width, hidden, dim)
            self.predictor = pixels.convolutions(dim, hidden, dim)
        self.followed = ["backbone", "pyramid", "projector"] + ["instance_projector"] * (self.weight > 0)
        for name in self.followed:
            self.add_module(f"key_{name}", momentum.follower(self.get_submodule(name)))
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The loss of both directions, a scalar in [-4, 4], and `instance_weight` times as much again with the instance branch.

        views:    two tensors [N, 3, S, S]
        boxes:    [2, N, 4]
        progress: the fraction of the training that is done, for the momentum
        """
        maps = [heads.stages(self.backbone, x) for x in views]  # C2 to C5 of each view
        x = [[self.projector(p) for p in self.pyramid(c)] for c in maps]
        y = [[propagated(p, self.value, self.gamma) for p in levels] for levels in x]
        with torch.no_grad():
            m = momentum.cosine(self.m, progress)
            for name in self.followed:  # before the key forward
                momentum.follow(self.get_submodule(f"key_{name}"), self.get_submodule(name), m)
            key_maps = [heads.stages(self.key_backbone, x) for x in views]
            k = [[F.normalize(self.key_projector(p).float(), dim=1) for p in self.key_pyramid(c)] for c in key_maps]
        with heads.full_precision(y[0][0]):
            loss = self.pixel_loss(y[0], k[1], boxes[0], boxes[1]) + self.pixel_loss(y[1], k[0], boxes[1], boxes[0])
        # mean_norm: the length of the mean pixel feature: 1 when everything has collapsed to one vector
        self.statistics = {"ema": m, "mean_norm": k[0][0].mean(dim=(0, 2, 3)).norm()}
        if self.weight > 0:
            instance = self.instance_loss(maps, key_maps)
            self.statistics["instance_loss"] = instance.detach()
            loss = loss + self.weight * instance
        return loss

    def pixel_loss(self, y, k, boxes_q, boxes_k) -> torch.Tensor:
        """regression_loss, the mean over the levels."""
        losses = [regression_loss(a, b, boxes_q, boxes_k, self.ratio) for a, b in zip(y, k, strict=True)]
        return torch.stack(losses).mean()

    def instance_loss(self, maps: list[list[torch.Tensor]], key_maps: list[list[torch.Tensor]]) -> torch.Tensor:
        """The instance branch's loss of both directions on the maps C5, a scalar in [-4, 4]."""
        q = [self.predictor(self.instance_projector(c[-1])) for c in maps]
        with torch.no_grad():
            k = [self.key_instance_projector(c[-1]) for c in key_maps]
        with heads.full_precision(q[0]):
            return instance_loss(q[0], k[1]) + instance_loss(q[1], k[0])

    def detector(self) -> dict[str, torch.Tensor]:
        """The FPN and the head under detectron2's names, empty without them."""
        return self.pyramid.detector() if isinstance(self.pyramid, pixels.Pyramid) else {}


METHOD = PixPro
