"""A detector's neck and heads that were pretrained with the backbone: what the FPN tasks take of them, and that it is the same
function there."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from downstream import detection, weights
from downstream.tasks import coco_fpn_1x, coco_fpn_1x_pixpro, voc_c4
from pretrain import heads, loop
from pretrain.methods import pixpro


@pytest.fixture(scope="module")
def pretrained():
    torch.manual_seed(0)
    net = pixpro.PixPro("resnet18", {**pixpro.recipe("fpn"), "hidden": 8})
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return net.eval()


@pytest.fixture(scope="module")
def checkpoint(pretrained):
    return pretrained.backbone.state_dict() | {
        weights.DETECTOR + name: tensor for name, tensor in pretrained.detector().items()
    }


def loaded(task, tensors):
    torch.manual_seed(1)
    model = detection.network(detection.configuration(task, "resnet18")).eval()
    return model, detection.load(model, tensors)


def test_pixpros_fpn_task_begins_with_the_pretrained_fpn_and_both_heads(pretrained, checkpoint):
    model, report = loaded(coco_fpn_1x_pixpro.TASK, checkpoint)
    assert report["unused"] == []
    # weight, four of the norm and its counter: 3 levels x 2 convolutions, 2 heads x 4
    assert report["matched"] == 120 + 6 * 6 + 8 * 6
    new = {name.split(".")[1] for name in report["missing"] if name.startswith("backbone.")}
    assert new == {"fpn_lateral2", "fpn_output2"}
    assert not [name for name in report["missing"] if "box_head.conv" in name or "mask_fcn" in name]
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = pretrained.pyramid(heads.stages(pretrained.backbone, x))
        maps = model.backbone(x)
        for level, map_of_level in zip(("p3", "p4", "p5"), expected, strict=True):
            box = maps[level]
            for i in range(1, 5):
                box = getattr(model.roi_heads.box_head, f"conv{i}")(box)
            torch.testing.assert_close(box, map_of_level, atol=1e-4, rtol=1e-4)
            mask = maps[level]
            for i in range(1, 5):
                mask = F.relu(getattr(model.roi_heads.mask_head, f"mask_fcn{i}")(mask))
            torch.testing.assert_close(mask, map_of_level, atol=1e-4, rtol=1e-4)


def test_a_runs_backbone_pth_brings_them(tmp_path):
    for i in range(4):
        pixel = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixel).save(tmp_path / f"{i}.png")
    asked = {"hidden": "8", "dim": "8", "precision": "fp32"}
    options = {"arch": "resnet18", "scale": "mini", "variant": "fpn", "epochs": 1, "batch_size": 4, "overrides": asked}
    tensors = torch.load(loop.run(pixpro, tmp_path, tmp_path / "run", **options), weights_only=True)
    assert len(weights.separated(tensors)[0]) == 120
    model, report = loaded(coco_fpn_1x_pixpro.TASK, tensors)
    assert report["matched"] == len(tensors) == 120 + 6 * 6 + 8 * 6
    name = "backbone.fpn_output4.norm.running_var"
    assert torch.equal(model.state_dict()[name], tensors[weights.DETECTOR + name])
    assert (tensors[weights.DETECTOR + name] != 1).all()  # it has seen images


def test_a_task_takes_only_the_layers_it_has_with_their_norms(checkpoint):
    model, report = loaded(
        coco_fpn_1x.TASK, checkpoint
    )  # FPN with norm, two fully connected layers, a mask head without norm
    assert report["matched"] == 120 + 6 * 6
    assert len(report["unused"]) == 8 * 6
    assert {name.split(".")[1] for name in report["unused"]} == {"box_head", "mask_head"}
    names = set(model.state_dict())
    assert "roi_heads.mask_head.mask_fcn1.weight" in names & set(report["missing"])


def test_a_detector_without_an_fpn_takes_the_backbone_alone(checkpoint):
    backbone, detector = weights.separated(checkpoint)
    model, report = loaded(voc_c4.TASK, checkpoint)
    alone, plain = loaded(voc_c4.TASK, backbone)
    assert report["matched"] == plain["matched"] == 120
    assert report["unused"] == sorted(detector)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, alone.state_dict()[name]), name


def test_a_layer_of_another_shape_stays_out_whole(checkpoint):
    wide = dict(checkpoint)
    wide[f"{weights.DETECTOR}backbone.fpn_lateral4.weight"] = torch.zeros(256, 1024, 1, 1)
    del wide[f"{weights.DETECTOR}backbone.fpn_output5.norm.bias"]
    _, report = loaded(coco_fpn_1x_pixpro.TASK, wide)
    assert {name.split(".")[1] for name in report["unused"]} == {"fpn_lateral4", "fpn_output5"}
    assert "backbone.fpn_output5.weight" in report["missing"]


@pytest.mark.timeout(60)
def test_ten_thousand_layers_that_a_network_has_not_take_seconds():
    own = {"proposal_generator.anchor_deltas.bias": torch.ones(3)}
    many = {f"backbone.fpn_lateral{number}.weight": torch.ones(1) for number in range(10_000)}
    assert weights.fitting(many | own, own) == own
