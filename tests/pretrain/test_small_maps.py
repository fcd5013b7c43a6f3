"""A convolution of a small map is torch's, as a matrix product."""

import copy

import pytest
import torch
from torch import nn

from pretrain import heads
from pretrain.small_maps import Conv3x3, dense


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (2, 2), (3, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_output_and_gradients_are_those_of_a_convolution(size, layout):
    torch.manual_seed(0)
    plain = nn.Conv2d(5, 7, 3, padding=1, bias=False).double().to(memory_format=layout)
    ours = copy.deepcopy(plain)
    dense(ours)
    assert type(ours) is Conv3x3
    x = torch.randn(4, 5, *size, dtype=torch.double).contiguous(memory_format=layout)
    found = []
    for conv in (plain, ours):
        image = x.clone().requires_grad_()
        out = conv(image)
        (out * torch.arange(out.numel()).view(out.shape)).sum().backward()
        found.append((out, image.grad, conv.weight.grad))
    for theirs, mine in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-10)


def test_only_convolutions_of_that_kind_are_replaced_and_names_stay():
    net, _ = heads.backbone("resnet50")
    replaced = {name for name, module in net.named_modules() if type(module) is Conv3x3}
    stride = {f"layer{i}.0.conv2" for i in (2, 3, 4)}
    assert replaced == {name for name, _ in net.named_modules() if name.endswith("conv2")} - stride
    import torchvision

    assert list(net.state_dict()) == [k for k in torchvision.models.resnet50().state_dict() if not k.startswith("fc.")]


def test_a_network_at_64_pixels_computes_what_torchvisions_does():
    import torchvision

    torch.manual_seed(0)
    net, _ = heads.backbone("resnet18")
    theirs = torchvision.models.resnet18()
    theirs.fc = nn.Identity()
    theirs.load_state_dict(net.state_dict())
    x = torch.randn(8, 3, 64, 64)
    torch.testing.assert_close(net(x), theirs(x), rtol=1e-4, atol=1e-4)
