"""The colours of a batch of views, on the device: what pretrain/views.py does to one view after another, to all of them at once.

A loader's worker that leaves the colours for later (data.Steps with `later`) draws what is to be done to each view as it would to
do it, and hands that over beside the pixels. Training does so on GPUs, where the rest of a worker's time is decoding and cropping.
A view differs from the CPU's by about a level: PIL turns hues with 8 bits for hue and saturation, and the CPU's wider boxes are a
mixture of whole ones. tests/pretrain/test_colours.py compares the two on the CPU; on a GPU it was not run.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from pretrain.views import LUMA, OPERATIONS, SLOTS


@dataclass(frozen=True)
class Uncoloured:
    """Views without their colours.

    pixels: uint8 [N, S, S, 3]
    plan:   float32 [N, len(SLOTS), 2], what is to be done to each, see views.view
    said:   what the recipe says of these views, see views.own
    """

    pixels: torch.Tensor
    plan: torch.Tensor
    said: Mapping[str, Any]

    def __getitem__(self, part: slice) -> "Uncoloured":
        return Uncoloured(self.pixels[part], self.plan[part], self.said)

    def pin_memory(self) -> "Uncoloured":
        """As a loader pins what it does not know."""
        return Uncoloured(self.pixels.pin_memory(), self.plan, self.said)

    def on(self, device: torch.device) -> torch.Tensor:
        """float32 [N, 3, S, S], channels-last, whole numbers from 0 to 255: the views with their colours."""
        x = self.pixels.to(device, non_blocking=True).movedim(-1, -3).float()
        for slot in range(len(SLOTS)):
            numbers, amounts = self.plan[:, slot].unbind(1)
            for number in numbers.unique().int().tolist():
                if number:
                    rows = torch.nonzero(numbers == number).flatten()
                    amount = amounts[rows].view(-1, 1, 1, 1).to(device, non_blocking=True)
                    rows = rows.to(device, non_blocking=True)
                    x[rows] = DONE[OPERATIONS[number]](x[rows], amount, self.said)
        return x


def blended(x: torch.Tensor, other: torch.Tensor, f: torch.Tensor) -> torch.Tensor:
    """f x + (1 - f) other, cut to 0..255 and to whole numbers: what brightness, contrast and saturation are."""
    return torch.lerp(other, x, f).clamp_(0, 255).floor_()


def luma(x: torch.Tensor) -> torch.Tensor:
    """The grey of [N, 3, S, S] by PIL's weights, [N, 3, S, S]."""
    red, green, blue = (weight * plane for weight, plane in zip(LUMA, x.split(1, dim=1), strict=True))
    return (red + green + blue).round_().expand_as(x)


def hue(x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Hues turned by `shift` of a full circle, -0.5 to 0.5, in PIL's 256 steps; a pixel's highest and lowest value stay what they are.

    A channel of hue h, in sixths of the circle from its own colour, is V - (V - min) * clamp(min(k, 4 - k), 0, 1) with
    k = n + h mod 6, n = 5, 3, 1 for red, green and blue (the closed form of HSV to RGB).
    """
    value, index = x.max(1, keepdim=True)
    chroma = value - x.amin(1, keepdim=True)
    # from the lightest channel: the next less the one after it, over the chroma, and two sixths a channel
    after, last = x.gather(1, (index + 1) % 3), x.gather(1, (index + 2) % 3)
    sixths = 2 * index + (after - last) / chroma.clamp_min(1e-6) + 6 * (255 * shift).trunc() / 256
    k = (5 - 2 * torch.arange(3, device=x.device).view(3, 1, 1) + sixths) % 6
    return (value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1)).round_()


def blurred(x: torch.Tensor, sigma: torch.Tensor, said: Mapping[str, Any]) -> torch.Tensor:
    """A blur of its own for each image: a Gaussian cut at the recipe's kernel or, without one, PIL's; borders as views.blurred's."""
    kernel, largest = said.get("blur_kernel"), said["blur_sigma"][1]
    n, channels, *_ = x.shape
    if kernel is None:
        taps = boxes(sigma.view(-1, 1), largest)
    else:
        reach = min(math.ceil(3 * largest), kernel // 2)
        distances = torch.arange(-reach, reach + 1, device=x.device)
        taps = torch.exp(-(distances**2) / (2 * sigma.clamp_min(1e-3).view(-1, 1) ** 2))  # of 0: the image itself
        taps = taps / taps.sum(1, keepdim=True)
    reach = taps.shape[1] // 2
    taps = taps.repeat_interleave(channels, 0)[:, None]  # [3 N, 1, K]
    x = mirrored(x, reach) if kernel is None else F.pad(x, (reach,) * 4, "reflect")
    x = x.flatten(0, 1)[None]  # [1, 3 N, S, S]
    x = F.conv2d(F.conv2d(x, taps[..., None, :], groups=len(taps)), taps[..., None], groups=len(taps))
    return x[0].unflatten(0, (n, channels)).round_()


def mirrored(x: torch.Tensor, reach: int) -> torch.Tensor:
    """[..., H, W] with `reach` more pixels on every side, the border's own first: what PIL's boxes, each of which repeats the border's
    pixel, see together."""
    for dim in (-2, -1):
        side = x.shape[dim]
        places = torch.arange(-reach, side + reach, device=x.device)
        places = torch.where(places < 0, -1 - places, places)
        places = torch.where(places < side, places, 2 * side - 1 - places).clamp_min(0)
        x = x.index_select(dim, places)
    return x


def boxes(sigma: torch.Tensor, largest: float) -> torch.Tensor:
    """The taps [N, K] of PIL's Gaussian blur, three boxes whose outermost pixels count in part (BoxBlur.c, _gaussian_blur_radius).

    sigma: [N, 1], each up to `largest`
    """

    def radius(sigma: torch.Tensor) -> torch.Tensor:
        variance = sigma**2 / 3
        whole = (((12 * variance + 1).sqrt() - 1) / 2).floor()
        part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
        return whole + part

    reach = math.ceil(radius(torch.tensor(largest)))
    distances = torch.arange(-reach, reach + 1, device=sigma.device)
    box = (radius(sigma) + 1 - distances.abs()).clamp(0, 1)
    box = box / box.sum(1, keepdim=True)
    taps = box[None]
    for _ in range(2):
        taps = F.conv1d(taps, box[:, None], padding=2 * reach, groups=len(box))
    return taps[0]


DONE: dict[str, Callable[[torch.Tensor, torch.Tensor, Mapping[str, Any]], torch.Tensor]] = {
    "brightness": lambda x, f, _: blended(x, torch.zeros_like(x), f),
    "contrast": lambda x, f, _: blended(x, luma(x).mean((2, 3), keepdim=True).round_(), f),
    "saturation": lambda x, f, _: blended(x, luma(x), f),
    "hue": lambda x, f, _: hue(x, f),
    "gray": lambda x, f, _: luma(x),
    "blur": blurred,
    "solarize": lambda x, f, _: torch.minimum(x, 255 - x),
}
