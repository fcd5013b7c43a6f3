"""Which ResNets there are here, by name: torchvision's, wide ones, deep stems; the network itself, and the name for a set of shapes.

resnet18, 34, 50, 101, 152      torchvision's
wide_resnet50_2, _101_2         torchvision's: the 3x3 convolutions of a block are twice as wide
resnet50x2, x4, x5 ...          every convolution is that many times wider (SimCLR, SwAV, VICReg)
resnet50c, resnet50d            three 3x3 convolutions in place of the 7x7 one; d also pools in front of a strided shortcut
                                (Bag of Tricks, arXiv 1812.01187, fig. 2; timm's and mmsegmentation's names for both)
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torchvision
    from torch import nn

BLOCKS = {
    18: (False, (2, 2, 2, 2)),
    34: (False, (3, 4, 6, 3)),
    50: (True, (3, 4, 6, 3)),
    101: (True, (3, 4, 23, 3)),
    152: (True, (3, 8, 36, 3)),
}
KNOWN = (*(f"resnet{depth}" for depth in BLOCKS), "wide_resnet50_2", "wide_resnet101_2", "resnet50x2", "resnet50d")


@dataclass(frozen=True)
class Arch:
    """A ResNet's plan."""

    depth: int
    width: int = 1  # of every convolution, in a plain ResNet's
    inner: int = 1  # of a bottleneck's 3x3 convolution alone
    deep: bool = False  # stem
    pooled: bool = False  # strided shortcuts

    @property
    def bottleneck(self) -> bool:
        return BLOCKS[self.depth][0]

    @property
    def blocks(self) -> tuple[int, int, int, int]:
        return BLOCKS[self.depth][1]

    @property
    def stem(self) -> str:
        """As the traits of a checkpoint say it."""
        return "3x3x3" if self.deep else "7x7"

    @property
    def channels(self) -> int:
        """Of the last stage's map."""
        return 512 * self.width * (4 if self.bottleneck else 1)

    def __str__(self) -> str:
        if self.inner > 1:
            return f"wide_resnet{self.depth}_{self.inner}"
        kind = "d" if self.pooled else "c" if self.deep else ""
        return f"resnet{self.depth}{kind}{f'x{self.width}' if self.width > 1 else ''}"


def arch(name: str) -> Arch:
    """The plan of that name. Raises ValueError where there is none."""
    if match := re.fullmatch(r"resnet(18|34|50|101|152)([cd]?)(?:x([2-8]))?", name):
        return Arch(int(match[1]), int(match[3] or 1), deep=bool(match[2]), pooled=match[2] == "d")
    if match := re.fullmatch(r"wide_resnet(50|101)_2", name):
        return Arch(int(match[1]), inner=2)
    import difflib

    near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(KNOWN)}."
    raise ValueError(f"expected the name of a ResNet, found {name!r}. {hint}")


def network(plan: Arch, stride_in_1x1: bool = False) -> "torchvision.models.ResNet":
    """torchvision's ResNet after a plan, without fc and without memory (on the meta device).

    stride_in_1x1: a bottleneck's first convolution strides, as in Caffe, not its second
    """
    import torch
    from torch import nn
    from torchvision.models import resnet

    kind = resnet.Bottleneck if plan.bottleneck else resnet.BasicBlock
    with torch.device("meta"):
        model = resnet.ResNet(kind, list(plan.blocks), width_per_group=64 * plan.inner)
        model.fc = nn.Identity()
        if plan.width > 1:
            width = model.inplanes = 64 * plan.width
            model.conv1, model.bn1 = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
            for stage, blocks in enumerate(plan.blocks):
                layer = model._make_layer(kind, width << stage, blocks, stride=1 if stage == 0 else 2)
                setattr(model, f"layer{stage + 1}", layer)
        if plan.deep:
            model.conv1 = _deep_stem(64 * plan.width)
        for block in model.modules():
            if not isinstance(block, kind):
                continue
            if plan.pooled and block.downsample is not None:
                block.downsample = _pooled(block.downsample)
            if stride_in_1x1 and plan.bottleneck:
                block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride
    return model.eval()


def _deep_stem(width: int) -> "nn.Sequential":
    """Three 3x3 convolutions with half, half and all of the channels; the network's own bn1 follows."""
    from torch import nn

    half = width // 2
    return nn.Sequential(
        nn.Conv2d(3, half, 3, 2, 1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(),
        nn.Conv2d(half, half, 3, 1, 1, bias=False),
        nn.BatchNorm2d(half),
        nn.ReLU(),
        nn.Conv2d(half, width, 3, 1, 1, bias=False),
    )


def _pooled(shortcut: "nn.Sequential") -> "nn.Sequential":
    """A shortcut that averages before it projects, under the names that timm and mmsegmentation give it."""
    from torch import nn

    conv, norm = shortcut
    pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False) if conv.stride[0] > 1 else nn.Identity()
    conv.stride = (1, 1)
    return nn.Sequential(pool, conv, norm)


@cache
def shapes(plan: Arch) -> Mapping[str, tuple[int, ...]]:
    """The shape of every tensor of the network without fc, by name; no memory is used for it."""
    return {name: tuple(t.shape) for name, t in network(plan).state_dict().items()}


def recognised(found: Mapping[str, tuple[int, ...]]) -> tuple[Arch, str | None]:
    """The plan of these shapes; the nearest one and what they are instead, in words, where none fits."""
    blocks = [0, 0, 0, 0]
    for name in found:
        if part := re.match(r"layer([1-4])\.(\d{1,3})\.", name):
            blocks[int(part[1]) - 1] = max(blocks[int(part[1]) - 1], int(part[2]) + 1)
    bottleneck = any(re.match(r"layer\d\.\d+\.conv3\.", name) for name in found)
    depth = next((depth for depth, plan in BLOCKS.items() if plan == (bottleneck, tuple(blocks))), None)
    nearest = depth or (50 if bottleneck else 18)
    deep = "conv1.0.weight" in found
    pooled = deep and any(name.endswith("downsample.2.weight") for name in found)
    stem = found.get("conv1.6.weight" if deep else "conv1.weight", ())
    first, inner = found.get("layer1.0.conv1.weight", ()), found.get("layer1.0.conv2.weight", ())
    plan = Arch(nearest, deep=deep, pooled=pooled)
    if len(stem) == 4:
        if what := _odd_stem(found["conv1.0.weight"] if deep and len(found["conv1.0.weight"]) == 4 else stem, deep):
            return plan, what
        if stem[0] % 64 or not 64 <= stem[0] <= 512:
            return plan, f"a stem of {stem[0]} channels, where plain and wide ResNets have 64 times a whole number"
        if deep and len(first) == 4 and first[0] < stem[0]:
            return (
                plan,
                f"a deep stem of {stem[0]} channels before stages that begin with {first[0]} (resnet50s and the like)",
            )
        plan = Arch(nearest, stem[0] // 64, deep=deep, pooled=pooled)
    if len(inner) == 4 and inner[1] < inner[0]:
        return plan, f"a ResNeXt: grouped 3x3 convolutions of {inner[0]} channels"
    if len(inner) == 4 and plan == Arch(nearest) and bottleneck and inner[0] == 128 and nearest in (50, 101):
        plan = Arch(nearest, inner=2)
    if depth is None:
        kind = "bottleneck" if bottleneck else "basic"
        return plan, f"{kind} blocks {'-'.join(map(str, blocks))}, where a ResNet-18, 34, 50, 101 or 152 has others"
    return plan, None


def _odd_stem(shape: tuple[int, ...], deep: bool) -> str | None:
    """What a first convolution says against an RGB network, in words."""
    _, channels, size, _ = shape
    if channels == 2:
        return "a stem with two input channels (Sobel-filtered images as DeepCluster's, or the ab channels of CMC)"
    if channels == 1:
        return "a stem with one input channel (grey or L images, as colorization)"
    if channels != 3:
        return f"a stem with {channels} input channels"
    if deep:
        return None if size == 3 else f"a deep stem of {size}x{size} convolutions"
    if size == 3:
        return "the 3x3 stem of CIFAR models"
    return None if size == 7 else f"a {size}x{size} stem"
