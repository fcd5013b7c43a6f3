"""Networks that several methods share: torchvision's ResNet without its classifier, its last map, sub-batches, full precision."""

import difflib

import torch
import torchvision
from torch import nn


def backbone(arch: str, zero_init_residual: bool = False) -> tuple[nn.Module, int]:
    """torchvision's ResNet with nn.Identity in place of fc, and the number of channels of its last stage."""
    names = [name for name in torchvision.models.list_models(module=torchvision.models) if "resn" in name]
    if arch not in names:
        near = difflib.get_close_matches(arch, names, 1, 0)[0]
        raise ValueError(
            f"expected one of torchvision's ResNets as the architecture, found {arch!r}: did you mean {near!r}?"
        )
    net = torchvision.models.get_model(arch, zero_init_residual=zero_init_residual)
    width = net.fc.in_features
    net.fc = nn.Identity()
    return net, width


def last_map(net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """[N, 3, S, S] -> [N, C, S/32, S/32]: the C5 map, before pooling."""
    x = net.maxpool(net.relu(net.bn1(net.conv1(x))))
    return net.layer4(net.layer3(net.layer2(net.layer1(x))))


def by_group(net: nn.Module, x: torch.Tensor, size: int) -> torch.Tensor:
    """net(x), normalised `size` images at a time: what x.shape[0] / size GPUs without SyncBN would compute."""
    return torch.cat([net(part) for part in x.split(size)])


def full_precision(x: torch.Tensor) -> torch.autocast:
    """A context in which losses are computed in the precision of their inputs, whatever the surrounding autocast."""
    return torch.autocast(x.device.type, enabled=False)
