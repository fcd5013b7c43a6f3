"""Convolutions of maps of at most 2 x 2 pixels as one matrix product, on a CPU: res5's on the RoIs of the mini C4 head.

oneDNN takes such a convolution's backward pass in one thread, at half the rate of a product. On so small a map every pixel of a 3x3
convolution sees every other, so that it is a dense layer.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


def dense(net: nn.Module) -> None:
    """Have the 3x3 convolutions with stride 1 of a detectron2 network computed so where their maps are that small, in place."""
    same = {"kernel_size": (3, 3), "stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1, "bias": None}
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d) and all(getattr(layer, key) == value for key, value in same.items()):
            layer.forward = functools.partial(_forward, layer, layer.forward)  # type: ignore[method-assign]


def _forward(layer: nn.Conv2d, inner: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """What detectron2's Conv2d makes of x: the convolution, then its norm and its activation; `inner` is its own."""
    if max(x.shape[2:]) > 2:
        return inner(x)
    x = conv3x3(x, layer.weight)
    for after in (getattr(layer, "norm", None), getattr(layer, "activation", None)):
        x = after(x) if after is not None else x
    return x


def conv3x3(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """[N, I, H, W] by [O, I, 3, 3], padding 1 -> [N, O, H, W]; H and W at most 2."""
    height, width = x.shape[2:]
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    taps = weight.to(dtype).permute(0, 2, 3, 1)  # [O, 3, 3, I]
    seen = [taps[:, 1 - y : 1 - y + height, 1 - x : 1 - x + width] for y in range(height) for x in range(width)]
    matrix = torch.cat([tap.flatten(1) for tap in seen])  # [H * W * O, H * W * I]
    pixels = F.linear(x.permute(0, 2, 3, 1).flatten(1), matrix)
    return pixels.view(len(x), height, width, len(weight)).permute(0, 3, 1, 2)
