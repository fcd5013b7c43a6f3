"""DensePose's head, its losses, and what becomes of the points and masks that were marked on a person.

A person's surface is 24 parts with a chart each, on which U and V in [0, 1] are the coordinates (arXiv 1802.00434). Beside the
boxes the network says of every cell of a grid over a box: which of 14 larger parts is there (or whether there is any, with 2
channels), which of the 24, and U and V on each of them. detectron2 has this in projects/DensePose, which its package leaves out;
names of keys and of tensors are those of that project, and so are the numbers: `DensePoseV1ConvXHead`, the chart predictor and
the chart loss without confidences. Its decoder (Panoptic FPN) is not here, for no report measures with it.

Deliberate differences: the losses of U and V, which are sums there over the points of the 2 images that each of 8 processes has,
are as large here for any number of images; and an image of a batch in which nobody is marked takes no part, where there the
pooling fails (an AssertionError: fewer lists of boxes than images).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as mask_tools
from torch import nn
from torch.nn import functional as F

from downstream.datasets import CHART, PARTS, POINTS

IMAGES = 2  # of a process: the published weights of U and V's losses are meant for sums over these
# Left and right change places: what a part, and a larger part, is in a mirror (0 is none).
MIRRORED = [0, 1, 2, *(part for pair in range(3, PARTS, 2) for part in (pair + 1, pair))]
MIRRORED_LARGER = [0, 1, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 14]

# MODEL.ROI_DENSEPOSE_HEAD's keys that this head has, with their defaults (densepose/config.py)
KEYS = {
    "NAME": "",
    "NUM_STACKED_CONVS": 8,
    "NUM_PATCHES": PARTS,
    "DECONV_KERNEL": 4,
    "CONV_HEAD_DIM": 512,
    "CONV_HEAD_KERNEL": 3,
    "UP_SCALE": 2,
    "HEATMAP_SIZE": 112,
    "POOLER_TYPE": "ROIAlignV2",
    "POOLER_RESOLUTION": 28,
    "POOLER_SAMPLING_RATIO": 2,
    "NUM_COARSE_SEGM_CHANNELS": 2,
    "FG_IOU_THRESHOLD": 0.7,
    "INDEX_WEIGHTS": 5.0,
    "PART_WEIGHTS": 1.0,
    "POINT_REGRESSION_WEIGHTS": 0.01,
    "DECODER_ON": True,
}


class Head(nn.Sequential):
    """Convolutions, each with a ReLU, by the numbers of `KEYS`."""

    def __init__(self, head: Any, channels: int):
        super().__init__()
        for number in range(1, head.NUM_STACKED_CONVS + 1):
            size = head.CONV_HEAD_KERNEL
            layer = nn.Conv2d(channels, head.CONV_HEAD_DIM, size, padding=size // 2)
            self.add_module(f"body_conv_fcn{number}", layer)
            channels = head.CONV_HEAD_DIM
        _initialise(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self:
            x = F.relu(layer(x))
        return x


class Predictor(nn.Module):
    """Larger parts, parts, U and V, each by a transposed convolution to twice the size and interpolated by UP_SCALE."""

    def __init__(self, head: Any):
        super().__init__()
        parts, size = head.NUM_PATCHES + 1, head.DECONV_KERNEL
        for name, channels in (
            ("ann_index", head.NUM_COARSE_SEGM_CHANNELS),
            ("index_uv", parts),
            ("u", parts),
            ("v", parts),
        ):
            layer = nn.ConvTranspose2d(head.CONV_HEAD_DIM, channels, size, stride=2, padding=size // 2 - 1)
            self.add_module(f"{name}_lowres", layer)
        self.scale = head.UP_SCALE
        _initialise(self)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """[N, channels, S, S] each."""
        return tuple(
            F.interpolate(layer(x), scale_factor=self.scale, mode="bilinear", align_corners=False)
            for layer in self.children()
        )


def _initialise(module: nn.Module) -> None:
    for name, parameter in module.named_parameters():
        if "bias" in name:
            nn.init.zeros_(parameter)
        else:
            nn.init.kaiming_normal_(parameter, mode="fan_out", nonlinearity="relu")


def losses(
    maps: Sequence[torch.Tensor],
    found: torch.Tensor,
    truth: torch.Tensor,
    points: Sequence[torch.Tensor],
    parts: torch.Tensor,
    weights: Sequence[float],
) -> dict[str, torch.Tensor]:
    """loss_densepose_U and _V: smooth L1 of the points' coordinates on their part, summed; _I: cross-entropy of the points' parts;
    _S: cross-entropy of the larger parts in every cell. All are 0 where no point lies in its person's box
    (detectron2, projects/DensePose/densepose/modeling/losses/chart.py and utils.py).

    maps:    larger parts [N, 2 or 15, S, S], parts [N, 25, S, S], U and V [N, 25, S, S]
    found:   [N, 4] x1, y1, x2, y2 of the boxes that the maps lie over
    truth:   [N, 4] of the persons' own boxes
    points:  [P, 5] of each person, x and y of 256 in the own box, part, U, V; part 0 is no point
    parts:   [N, 256, 256] larger part over the own box, 0 for none
    weights: of U and V, of the parts, of the larger parts
    """
    coarse, fine, u, v = maps
    owner = torch.repeat_interleave(
        torch.arange(len(points), device=found.device), torch.tensor([len(p) for p in points], device=found.device)
    )
    marks = torch.cat(list(points))
    own, box = (torch.cat([b[:, :2], b[:, 2:] - b[:, :2]], 1)[owner] for b in (truth, found))
    low, share, inside = _cells(marks[:, :2], own, box, fine.shape[-1])
    kept = inside & (marks[:, 2] > 0)
    if not kept.any():
        return nothing(maps)
    owner, (x, y), (right, down), marks = owner[kept], low[kept].unbind(1), share[kept].unbind(1), marks[kept]
    part, last = marks[:, 2].long(), fine.shape[-1] - 1
    further, lower = (x + 1).clamp(max=last), (y + 1).clamp(max=last)

    def at(values: torch.Tensor, channel: Any) -> torch.Tensor:
        across, along = (right[:, None], down[:, None]) if channel == slice(None) else (right, down)
        return (
            values[owner, channel, y, x] * ((1 - across) * (1 - along))
            + values[owner, channel, y, further] * (across * (1 - along))
            + values[owner, channel, lower, x] * ((1 - across) * along)
            + values[owner, channel, lower, further] * (across * along)
        )

    seen = _resampled(parts, truth, found, coarse.shape[-1])
    if coarse.shape[1] == 2:
        seen = seen > 0
    of_points, of_parts, of_larger = weights
    return {
        "loss_densepose_U": F.smooth_l1_loss(at(u, part), marks[:, 3], reduction="sum") * of_points,
        "loss_densepose_V": F.smooth_l1_loss(at(v, part), marks[:, 4], reduction="sum") * of_points,
        "loss_densepose_I": F.cross_entropy(at(fine, slice(None)), part) * of_parts,
        "loss_densepose_S": F.cross_entropy(coarse, seen.long()) * of_larger,
    }


def nothing(maps: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Losses of 0 that every parameter takes part in, so that all processes exchange the same gradients."""
    coarse, fine, u, v = (values.sum() * 0 for values in maps)
    return {"loss_densepose_U": u, "loss_densepose_V": v, "loss_densepose_I": fine, "loss_densepose_S": coarse}


def _cells(
    marks: torch.Tensor, own: torch.Tensor, box: torch.Tensor, side: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of points over their person's box, on a grid over another box: the cell [P, 2], how far it is to the next [P, 2], and
    whether the point lies in the other box [P].

    own, box: [P, 4] x, y, width, height
    """
    away = own[:, :2] + marks * own[:, 2:] / CHART - box[:, :2]
    inside = ((away >= 0) & (away < box[:, 2:])).all(1)
    place = away * side / box[:, 2:]
    low = place.floor().long().clamp(0, side - 1)
    return low, torch.minimum((low + 1).clamp(max=side - 1).float(), place) - low.float(), inside


def _resampled(parts: torch.Tensor, truth: torch.Tensor, found: torch.Tensor, side: int) -> torch.Tensor:
    """[N, side, side] of what lies over the own boxes, nearest, at the upper left corners of a grid's cells over other boxes."""
    size = truth[:, 2:] - truth[:, :2]
    low = 2 * (found[:, :2] - truth[:, :2]) / size - 1
    high = 2 * (found[:, 2:] - truth[:, :2]) / size - 1
    steps = torch.arange(side, device=found.device, dtype=torch.float32) / side
    x, y = (steps * (high - low)[:, axis, None] + low[:, axis, None] for axis in (0, 1))
    grid = torch.stack([x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], 3)
    values = parts[:, None].to(grid.dtype)
    return F.grid_sample(values, grid, mode="nearest", padding_mode="zeros", align_corners=True)[:, 0]


@torch.no_grad()
def charts(maps: torch.Tensor, boxes: torch.Tensor, larger: int) -> list[np.ndarray]:
    """Part, U and V (times 255) of every pixel of each box, [height, width, 3] uint8 each; part 0 is none.

    maps:   [K, channels of all four, S, S]
    boxes:  [K, 4] x1, y1, x2, y2 in pixels; the fractions of width and height are cut off
    larger: channels of the larger parts

    detectron2, projects/DensePose/densepose/converters/chart_output_to_chart_result.py.
    """
    pictures = []
    for own, (width, height) in zip(maps[:, None], (boxes[:, 2:] - boxes[:, :2]).long().tolist(), strict=True):
        size = max(height, 1), max(width, 1)
        sized = F.interpolate(own, size, mode="bilinear", align_corners=False)[0]
        coarse, fine, u, v = sized.split([larger, PARTS + 1, PARTS + 1, PARTS + 1])
        part = fine.argmax(0) * (coarse.argmax(0) > 0)
        on_chart = [(values.gather(0, part[None])[0] * (part > 0) * 255).clamp(0, 255) for values in (u, v)]
        pictures.append(torch.stack([part.byte(), *(values.byte() for values in on_chart)], 2).cpu().numpy())
    return pictures


def marks(person: Mapping[str, Any], symmetry: np.ndarray | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """A person's points [P, 5], float32 x, y, part, U, V, and larger parts [256, 256] uint8; none of a person nobody marked.

    symmetry: as `surface.symmetries` reads it, for a person in a mirror
    """
    points = np.array([person.get(key, ()) for key in POINTS], np.float32).T
    parts = np.zeros((CHART, CHART), np.uint8)
    for number, mask in enumerate(person.get("dp_masks", ()), 1):
        if mask:
            parts[mask_tools.decode(mask) > 0] = number
    if symmetry is not None:
        x, y, part, u, v = points.T
        label, column, row = part.astype(int), *((c * np.float32(255)).astype(int).clip(0, 255) for c in (u, v))
        u, v = symmetry[:, label - 1, row, column]
        points = np.stack([CHART - x, y, np.take(MIRRORED, label).astype(np.float32), u, v], 1)
        parts = np.take(np.array(MIRRORED_LARGER, np.uint8), parts[:, ::-1])
    return torch.from_numpy(points), torch.from_numpy(np.ascontiguousarray(parts))
