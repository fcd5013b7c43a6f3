import copy

import pytest
import torch
import torchvision
from torch import nn

from pretrain import heads


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "resnet101", "wide_resnet50_2"])
def test_a_backbone_is_torchvisions_without_its_classifier(arch):
    with torch.device("meta"):
        net, width = heads.backbone(arch)
        reference = torchvision.models.get_model(arch)
    assert width == reference.fc.in_features
    shapes = {name: tensor.shape for name, tensor in reference.state_dict().items() if not name.startswith("fc.")}
    assert {name: tensor.shape for name, tensor in net.state_dict().items()} == shapes


def test_a_network_that_nothing_else_here_reads_is_refused():
    with pytest.raises(ValueError, match="found 'resnext50_32x4d'"):
        heads.backbone("resnext50_32x4d")


@pytest.mark.parametrize(("arch", "plain", "factor"), [("resnet50x2", "resnet50", 2), ("resnet18x4", "resnet18", 4)])
def test_a_wide_backbone_has_the_names_of_the_plain_one_and_every_channel_so_many_times(arch, plain, factor):
    with torch.device("meta"):
        net, width = heads.backbone(arch)
        reference, narrow = heads.backbone(plain)
    assert width == factor * narrow
    wide = net.state_dict()
    assert set(wide) == set(reference.state_dict())
    for name, tensor in reference.state_dict().items():
        expected = [
            side if i > 1 or (name == "conv1.weight" and i == 1) else factor * side
            for i, side in enumerate(tensor.shape)
        ]
        assert list(wide[name].shape) == expected, name


def test_resnet50x2_has_the_published_number_of_parameters():
    with torch.device("meta"):
        net, _ = heads.backbone("resnet50x2")
    assert round(sum(p.numel() for p in net.parameters()) / 1e6) == 94  # arXiv 2002.05709, Table 6


def test_the_wide_stem_is_drawn_like_the_narrow_one():
    torch.manual_seed(0)
    net, width = heads.backbone("resnet18x2", zero_init_residual=True)
    assert net.conv1.weight.std().item() == pytest.approx((2 / (128 * 49)) ** 0.5, rel=0.02)  # kaiming, fan out
    assert not net.layer1[0].bn2.weight.any()
    assert net(torch.randn(2, 3, 32, 32)).shape == (2, width)


def test_an_unknown_architecture_is_answered_with_the_nearest():
    for wrong in ("resnet19", "resnet50x9", "vit_b_16"):
        with pytest.raises(ValueError, match="did you mean"):
            heads.backbone(wrong)


def test_an_mlp_has_batch_norm_and_relu_behind_all_but_the_last_layer():
    kinds = [type(part) for part in heads.mlp([4, 3, 3, 2], bias=(True, False, False))]
    assert kinds == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert [part.bias is not None for part in heads.mlp([4, 3, 3, 2], bias=(True, False, False))[::3]] == [
        True,
        False,
        False,
    ]
    assert [type(part) for part in heads.mlp([4, 3, 2], norm=False)] == [nn.Linear, nn.ReLU, nn.Linear]


def test_crops_of_one_size_pass_together_and_come_back_in_order():
    passed = []

    def net(x):
        passed.append(tuple(x.shape))
        return x.mean(dim=(1, 2, 3))[:, None]

    views = [torch.full((2, 3, side, side), float(v)) for v, side in enumerate((8, 8, 4, 4, 4))]
    out = heads.multi_crop(net, views)
    assert passed == [(4, 3, 8, 8), (6, 3, 4, 4)]
    assert out[:, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_groups_give_the_outputs_gradients_and_statistics_of_one_group_after_the_other():
    torch.manual_seed(0)
    net = heads.backbone("resnet18")[0].double()
    x = torch.randn(12, 3, 32, 32, dtype=torch.double)
    found = {}
    for way in ("together", "in turn"):
        one = copy.deepcopy(net)
        out = heads.by_group(one, x, 4) if way == "together" else torch.cat([one(part) for part in x.split(4)])
        out.square().sum().backward()
        buffers = {name: b for name, b in one.named_buffers() if b.is_floating_point()}
        found[way] = (out, {name: p.grad for name, p in one.named_parameters()}, buffers)
    torch.testing.assert_close(found["together"], found["in turn"])
    assert (found["together"][0] - copy.deepcopy(net)(x)).abs().max() > 0.1


def test_what_follows_a_grouped_pass_is_normalised_as_a_whole():
    norm, x = nn.BatchNorm1d(2), torch.arange(8.0).view(4, 2)
    with pytest.raises(ZeroDivisionError):
        heads.by_group(lambda x: 1 // 0, x, 2)
    assert norm(x).mean(dim=0).abs().max() < 1e-6
    assert norm(x)[:2].mean(dim=0).abs().min() > 0.5
