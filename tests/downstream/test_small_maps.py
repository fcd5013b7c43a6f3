"""A convolution of a small map is detectron2's, as a matrix product, with its norm and its activation."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from downstream import detection, small_maps  # noqa: F401  detection is the door to detectron2


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_output_and_gradients_are_those_of_a_convolution(size):
    torch.manual_seed(0)
    x, weight = (torch.randn(shape, dtype=torch.double, requires_grad=True) for shape in ((4, 5, *size), (7, 5, 3, 3)))
    found = []
    for convolved in (F.conv2d(x, weight, padding=1), small_maps.conv3x3(x, weight)):
        out = (convolved * torch.arange(convolved.numel()).view(convolved.shape)).sum()
        found.append((convolved, *torch.autograd.grad(out, (x, weight))))
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("side", [2, 3])
def test_detectron2s_layer_keeps_its_norm_and_its_activation_and_larger_maps_are_its_own(side):
    from detectron2.layers import Conv2d

    torch.manual_seed(0)
    plain = Conv2d(6, 6, 3, padding=1, bias=False, norm=nn.BatchNorm2d(6), activation=F.relu)
    ours = copy.deepcopy(plain)
    small_maps.dense(ours)
    x = torch.randn(3, 6, side, side)
    assert (ours(x) >= 0).all()
    torch.testing.assert_close(ours(x), plain(x), rtol=1e-5, atol=1e-5)
    assert list(ours.state_dict()) == list(plain.state_dict())
    assert not torch.equal(ours.norm.running_mean, torch.zeros(6))


def test_strides_biases_and_other_kernels_stay_as_they_are():
    for layer in (nn.Conv2d(4, 4, 3, 2, 1, bias=False), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1, bias=False)):
        small_maps.dense(layer)
        assert "forward" not in vars(layer)


def test_under_autocast_the_product_is_in_bf16():
    x, weight = torch.randn(2, 3, 2, 2), torch.randn(4, 3, 3, 3)
    with torch.autocast("cpu", torch.bfloat16):
        out = small_maps.conv3x3(x, weight)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), F.conv2d(x, weight, padding=1), rtol=0.05, atol=0.1)


def test_no_map_at_all_is_what_an_image_without_proposals_gives():
    x, weight = (torch.randn(shape, requires_grad=True) for shape in ((0, 3, 2, 2), (4, 3, 3, 3)))
    out = small_maps.conv3x3(x, weight)
    out.sum().backward()
    assert out.shape == (0, 4, 2, 2)
    assert x.grad.shape == x.shape and not weight.grad.any()
