"""Networks that several methods share: torchvision's ResNet without its classifier, MLPs, sub-batches, full precision."""

import difflib
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

from pretrain.small_maps import dense

BLOCKS: dict[str, tuple[type[nn.Module], list[int]]] = {
    "resnet18": (BasicBlock, [2, 2, 2, 2]),
    "resnet34": (BasicBlock, [3, 4, 6, 3]),
    "resnet50": (Bottleneck, [3, 4, 6, 3]),
    "resnet101": (Bottleneck, [3, 4, 23, 3]),
    "resnet152": (Bottleneck, [3, 8, 36, 3]),
}


class Wide(ResNet):
    """torchvision's ResNet with `factor` times the channels everywhere, the stem too (google-research/simclr resnet.py).

    torchvision's own width argument widens the middle of a bottleneck alone.
    """

    def __init__(self, block: Any, layers: list[int], factor: int, **options: Any) -> None:
        self.factor = factor
        super().__init__(block, layers, **options)

    def _make_layer(self, block: Any, planes: int, blocks: int, stride: int = 1, dilate: bool = False) -> nn.Sequential:
        if planes == 64:  # the first layer: the stem stands, its weights are drawn at the end of torchvision's __init__
            self.inplanes = 64 * self.factor
            self.conv1 = nn.Conv2d(3, self.inplanes, 7, stride=2, padding=3, bias=False)
            self.bn1 = nn.BatchNorm2d(self.inplanes)
        return super()._make_layer(block, planes * self.factor, blocks, stride, dilate)


def backbone(arch: str, zero_init_residual: bool = False) -> tuple[nn.Module, int]:
    """torchvision's ResNet with nn.Identity in place of fc, and the number of channels of its last stage.

    arch: a name of torchvision's, or a plain one with x2, x3 or x4 behind it: resnet50x2 has twice the channels everywhere
    """
    plain, _, factor = arch.partition("x")
    if plain in BLOCKS and re.fullmatch("[2-4]", factor):
        net: nn.Module = Wide(*BLOCKS[plain], int(factor), zero_init_residual=zero_init_residual)
        width = net.inplanes
    else:
        names = [name for name in torchvision.models.list_models(module=torchvision.models) if "resnet" in name]
        if arch not in names:
            near = difflib.get_close_matches(arch, [*names, "resnet50x2", "resnet50x4"], 1, 0)[0]
            raise ValueError(
                f"expected one of torchvision's ResNets as the architecture, found {arch!r}: did you mean {near!r}?"
            )
        net = torchvision.models.get_model(arch, zero_init_residual=zero_init_residual)
        width = net.fc.in_features
    net.fc = nn.Identity()
    dense(net)
    return net, width


def stages(net: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """[N, 3, S, S] -> C2 to C5 of torchvision's ResNet, [N, C, S/4, S/4] to [N, C, S/32, S/32]."""
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    maps = []
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = layer(x)
        maps.append(x)
    return maps


def last_map(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """[N, 3, S, S] -> [N, C, S/32, S/32]: the C5 map, before pooling."""
    return stages(net, x)[-1]


def mlp(sizes: Sequence[int], bias: bool | Sequence[bool] = True, norm: bool = True) -> nn.Sequential:
    """[N, sizes[0]] -> [N, sizes[-1]]: linear layers with batch norm (norm=True) and ReLU behind all but the last.

    bias: of every layer, or one entry a layer
    """
    last = len(sizes) - 2
    biases = [bias] * (last + 1) if isinstance(bias, bool) else list(bias)
    net = nn.Sequential()
    for i, ((width, out), with_bias) in enumerate(zip(itertools.pairwise(sizes), biases, strict=True)):
        net.append(nn.Linear(width, out, bias=with_bias))
        if i < last:
            net.extend([nn.BatchNorm1d(out)] * norm + [nn.ReLU(inplace=True)])
    return net


def multi_crop(net: nn.Module, views: Sequence[torch.Tensor]) -> torch.Tensor:
    """V tensors [N, 3, S_v, S_v] -> [V * N, C], in order; neighbouring views of one size pass together (swav resnet50.py)."""
    sides = itertools.groupby(views, key=lambda x: x.shape[2:])
    return torch.cat([net(torch.cat(list(group))) for _, group in sides])


class _Groups(TorchFunctionMode):
    """Inside, batch norm sees its input, [N, ...], as `count` equal parts, one after the other; all else sees the whole."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if function is not F.batch_norm:
            return function(*args, **(kwargs or {}))
        x, *rest = args
        return torch.cat([function(part, *rest, **(kwargs or {})) for part in x.chunk(self.count)])


def by_group(net: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, size: int) -> torch.Tensor:
    """net(x), normalised `size` images at a time: what x.shape[0] / size GPUs without SyncBN would compute.

    Only batch norm sees the groups: convolutions of all images at once are faster than of a few. The running statistics move once
    a group, of which GPUs keep the first's: where a step passes several kinds of views, they lean more towards the last one's.
    """
    if len(x) == size:
        return net(x)
    assert len(x) % size == 0, "the recipe's check sees to it"
    with _Groups(len(x) // size):
        return net(x)


def full_precision(x: torch.Tensor) -> torch.autocast:
    """A context in which losses are computed in the precision of their inputs, whatever the surrounding autocast."""
    return torch.autocast(x.device.type, enabled=False)
