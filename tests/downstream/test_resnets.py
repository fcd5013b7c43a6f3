"""The networks against torchvision's own and timm's, names against shapes."""

import pytest
import timm
import torch
import torchvision

from downstream import resnets

OURS = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2"]


@pytest.mark.parametrize("name", OURS)
def test_a_plan_has_the_tensors_of_torchvisions_constructor(name: str) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)().state_dict()
    wanted = {key: tuple(tensor.shape) for key, tensor in theirs.items() if not key.startswith("fc.")}
    assert resnets.shapes(resnets.arch(name)) == wanted
    assert resnets.recognised(wanted) == (resnets.arch(name), None)


@pytest.mark.parametrize("name", ["resnet18d", "resnet50d", "resnet50c"])
def test_a_deep_stem_is_timms_network(name: str) -> None:
    theirs = timm.create_model(name).eval()
    ours = resnets.network(resnets.arch(name)).to_empty(device="cpu")
    ours.load_state_dict({key: tensor for key, tensor in theirs.state_dict().items() if not key.startswith("fc.")})
    image = torch.randn(1, 3, 65, 97, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.forward_features(image)
        x = ours.maxpool(ours.relu(ours.bn1(ours.conv1(image))))
        found = ours.layer4(ours.layer3(ours.layer2(ours.layer1(x))))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * expected.abs().max().item())


@pytest.mark.parametrize("name", ["resnet50x2", "resnet50x4", "resnet50x5", "resnet152x3", "resnet18x2", "resnet50dx2"])
def test_a_wide_network_is_wider_in_every_convolution(name: str) -> None:
    plan = resnets.arch(name)
    assert str(plan) == name and resnets.recognised(resnets.shapes(plan)) == (plan, None)
    plain = resnets.shapes(resnets.arch(name[:-2]))
    for key, shape in resnets.shapes(plan).items():
        image = len(shape) == 4 and plain[key][1] == 3
        wide = [n if number == 1 and image else n * plan.width for number, n in enumerate(plain[key][:2])]
        assert list(shape[:2]) == wide and shape[2:] == plain[key][2:]


def test_a_stride_stands_where_it_is_asked_for() -> None:
    for stride_in_1x1 in (False, True):
        block = resnets.network(resnets.arch("resnet50"), stride_in_1x1).layer2[0]
        assert (block.conv1.stride, block.conv2.stride) == (((2, 2), (1, 1)) if stride_in_1x1 else ((1, 1), (2, 2)))


def test_a_name_that_is_none_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="Did you mean 'resnet50'"):
        resnets.arch("resnet51")
    with pytest.raises(ValueError, match="Known: resnet18"):
        resnets.arch("vit_small")
