"""What pixel-level methods share: which pixels of two views lie at the same place, the maps they are read from, and a recipe.

Paper: arXiv 2011.10043 (PixPro, PixContrast); code: zdaxie/PixPro. There a "pixel" is a cell of the last map, 7 x 7 at 224.
`Pyramid` puts a detector's FPN and head behind the backbone, under detectron2's own names, so that they can be pretrained with it
and loaded into it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations

# zdaxie/PixPro, tools/pixpro_base_r50_100ep.sh, whose options (not the argparse defaults) are the recipe
RECIPE: dict[str, Any] = {
    "hidden": 4096,  # contrast/models/PixPro.py, MLP2d (the paper's text says 2048, the code and the weights have 4096)
    "dim": 256,
    "positive_ratio": 0.7,  # --pixpro-pos-ratio 0.7
    "ema": 0.99,  # --pixpro-momentum 0.99
    "ema_schedule": "cosine",  # to 1
    **augmentations.BYOL,  # --aug BYOL --crop 0.08
    "interpolation": "bilinear",  # contrast/data/transform_coord.py
    # optimisation
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


def convolutions(width: int, hidden: int, dim: int) -> nn.Sequential:
    """A pixelwise MLP: [N, width, H, W] -> [N, dim, H, W]."""
    return nn.Sequential(
        nn.Conv2d(width, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU(inplace=True), nn.Conv2d(hidden, dim, 1)
    )


def centres(boxes: torch.Tensor, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[N, HW, 2], x and y of the middle of every bin, row by row, and [N], the length of a bin's diagonal.

    boxes: [N, 4] x0, y0, x1, y1; x0 > x1 in a mirrored view, whose bins are then negative
    """
    x0, y0, x1, y1 = boxes.unbind(dim=1)
    w, h = (x1 - x0) / width, (y1 - y0) / height  # [N], signed
    x = x0[:, None] + (torch.arange(width, device=boxes.device) + 0.5) * w[:, None]  # [N, W]
    y = y0[:, None] + (torch.arange(height, device=boxes.device) + 0.5) * h[:, None]  # [N, H]
    shape = (-1, height, width)
    return torch.stack([x[:, None].expand(shape), y[:, :, None].expand(shape)], dim=-1).flatten(1, 2), torch.hypot(w, h)


def positives(boxes_q: torch.Tensor, boxes_k: torch.Tensor, height: int, width: int, ratio: float) -> torch.Tensor:
    """[N, HW, HW] of 0 and 1: which pixels of two maps lie closer than `ratio` times the larger bin's diagonal.

    boxes_q, boxes_k: [N, 4] x0, y0, x1, y1 as fractions of the image; x0 > x1 in a mirrored view
    """
    (centre_q, diagonal_q), (centre_k, diagonal_k) = (centres(boxes, height, width) for boxes in (boxes_q, boxes_k))
    apart = (centre_q[:, :, None] - centre_k[:, None]).square().sum(dim=-1).sqrt()  # [N, HW, HW]
    return (apart / torch.maximum(diagonal_q, diagonal_k)[:, None, None] < ratio).float()


class Top(nn.Module):
    """The last of the maps C2 to C5, as the only level."""

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        return maps[-1:]


class Convolution(nn.Conv2d):
    """A convolution with batch norm in place of a bias, under detectron2's names: weight, norm.weight, norm.running_mean ..."""

    def __init__(self, width: int, dim: int, side: int) -> None:
        super().__init__(width, dim, side, padding=side // 2, bias=False)
        self.norm = nn.BatchNorm2d(dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(super().forward(x))


DIM = 256  # channels of a Pyramid: detectron2's MODEL.FPN.OUT_CHANNELS


class Pyramid(nn.Module):
    """An FPN from level `finest` (stride 2**finest) to 5 and four convolutions on every level, a detector's head.

    C2 to C5, the last of `width` channels -> [N, 256, S/2**level, S/2**level] for every level, finest first; the levels share the
    head's weights, but each is normalised by its own statistics.
    """

    def __init__(self, width: int, finest: int) -> None:
        super().__init__()
        if finest not in (2, 3, 4, 5):
            raise ValueError(f"expected the finest level of the FPN to be 2, 3, 4 or 5, found {finest}: finest=3")
        self.levels = range(finest, 6)
        self.fpn = nn.ModuleDict()
        for level in self.levels:
            self.fpn[f"fpn_lateral{level}"] = Convolution(width // 2 ** (5 - level), DIM, 1)
            self.fpn[f"fpn_output{level}"] = Convolution(DIM, DIM, 3)
        self.head = nn.ModuleDict({f"conv{i}": Convolution(DIM, DIM, 3) for i in range(1, 5)})
        for convolution in self.fpn.values():
            nn.init.kaiming_uniform_(convolution.weight, a=1)  # detectron2 modeling/backbone/fpn.py, c2_xavier_fill
        for convolution in self.head.values():  # modeling/roi_heads/box_head.py, c2_msra_fill
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        merged = None
        levels = []
        for level in reversed(self.levels):
            lateral = self.fpn[f"fpn_lateral{level}"](maps[level - 2])
            merged = lateral if merged is None else lateral + F.interpolate(merged, lateral.shape[2:], mode="nearest")
            x = self.fpn[f"fpn_output{level}"](merged)
            for convolution in self.head.values():
                x = F.relu(convolution(x))
            levels.insert(0, x)
        return levels

    def detector(self) -> dict[str, torch.Tensor]:
        """The tensors under detectron2's names for a Mask R-CNN with FPN; its box head and its mask head both begin as `head`."""
        tensors = {f"backbone.{name}": tensor for name, tensor in self.fpn.state_dict().items()}
        for name, tensor in self.head.state_dict().items():
            tensors[f"roi_heads.box_head.{name}"] = tensor
            tensors[f"roi_heads.mask_head.{name.replace('conv', 'mask_fcn')}"] = tensor
        return tensors
