"""The detectron2 engine: the official network, the batches, the weights that land, and small trials from end to end."""

import copy
import dataclasses
import functools
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from detectron2.config import get_cfg
from detectron2.data import DatasetMapper, detection_utils
from detectron2.data.common import AspectRatioGroupedDataset
from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler
from detectron2.data.transforms import ResizeShortestEdge
from detectron2.engine import DefaultTrainer
from detectron2.layers import ROIAlign, get_norm
from detectron2.modeling.proposal_generator import rpn
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead
from detectron2.structures import Boxes, Instances, Keypoints, PolygonMasks
from detectron2.utils.events import EventStorage
from PIL import Image

from bench.speed import finetuning
from downstream import datasets, detection
from downstream.datasets import COCO_CLASSES, COCO_IDS, KEYPOINTS, VOC_CLASSES
from downstream.evaluation import cityscapes, coco
from downstream.synthetic import synthesize
from downstream.task import accumulated, mini, overridden
from downstream.tasks import (
    cityscapes_instance,
    coco_c4_1x,
    coco_fpn_1x,
    coco_fpn_1x_pixpro,
    coco_keypoint_2x,
    lvis_v05_1x,
    lvis_v1_1x,
    voc_c4,
)

CPU = torch.device("cpu")

pytestmark = [
    # detectron2's anchor generator calls meshgrid without the indexing that torch will require one day
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),
    # and makes its keypoints of a list of arrays
    pytest.mark.filterwarnings("ignore:Creating a tensor from a list of numpy.ndarrays"),
    # pycocotools 2.0.11 gives numpy 2 arrays that do not know `copy`
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


def weights(arch, seed=0):
    """A torchvision ResNet's tensors without fc, with statistics that are not the initial ones."""
    torch.manual_seed(seed)
    tensors = {k: v for k, v in getattr(torchvision.models, arch)().state_dict().items() if not k.startswith("fc.")}
    for name, tensor in tensors.items():
        if name.endswith(("running_mean", "running_var")):
            tensor += torch.rand_like(tensor) * 0.1
    return tensors


def configured(task, arch="resnet50"):
    cfg = detection.configuration(task, arch)
    detection._trained_norm(cfg, 1, CPU)
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 8
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 20
    return cfg


def batch():
    """Two images of noise with two objects each."""
    inputs = []
    for number in (1, 2):
        objects = Instances((64, 96))
        objects.gt_boxes = Boxes(torch.tensor([[5.0, 5, 40, 50], [30, 20, 90, 60]]))
        objects.gt_classes = torch.tensor([3, 7])
        image = torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        inputs.append({"image": image, "instances": objects, "height": 64, "width": 96})
    return inputs


def objects():
    """The two images of `batch`, and in each object a mask and a person's keypoints; everything is of class 0."""
    inputs = batch()
    for entry in inputs:
        instances = entry["instances"]
        x1, y1, x2, y2 = instances.gt_boxes.tensor.T
        instances.gt_masks = PolygonMasks(
            [[p] for p in torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], 1).double().numpy()]
        )
        points = torch.rand(2, 17, 3, generator=torch.Generator().manual_seed(5)) * 30 + 10
        points[..., 2] = 2
        instances.gt_keypoints = Keypoints(points)
        instances.gt_classes = torch.zeros(2, dtype=torch.int64)
    return inputs


GOLDEN = (
    Path(os.environ.get("DETECTRON2_DATASETS") or Path(__file__).resolve().parents[3] / "shared" / "data").parent
    / "golden"
)
OFFICIAL = {
    "moco_voc_c4": voc_c4.TASK,
    "pixpro_coco_c4_1x": coco_c4_1x.TASK,
    "pixpro_coco_fpn_1x": coco_fpn_1x_pixpro.TASK,
    "mmselfsup_keypoint_fpn_2x": coco_keypoint_2x.TASK,
    "mmselfsup_cityscapes_inst": cityscapes_instance.TASK,
}


def official(name):
    """detectron2's own trainer builds the network of an official configuration; MoCo's head is one more norm after res5."""
    file, cfg = GOLDEN / f"{name}.json", get_cfg()
    # where the files are not there, what tests/downstream/test_tasks.py finds equal to them
    settings = json.loads(file.read_text()) if file.is_file() else detection.resolved(OFFICIAL[name])
    for key, value in settings.items():
        cfg.merge_from_list([key, value])
    extra = cfg.MODEL.ROI_HEADS.NAME == "Res5ROIHeadsExtraNorm"
    if extra:
        cfg.MODEL.ROI_HEADS.NAME = "Res5ROIHeads"
    cfg.MODEL.DEVICE = "cpu"
    few_regions(cfg)
    model = DefaultTrainer.build_model(cfg)
    if extra:
        model.roi_heads.res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, 2048))
    return model


def few_regions(cfg):
    """For the sake of time; they are all predictions."""
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE, cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = 4, 8
    cfg.MODEL.RPN.POST_NMS_TOPK_TEST, cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 2, 0.0
    cfg.TEST.DETECTIONS_PER_IMAGE = 5


def ours(name):
    cfg = configured(OFFICIAL[name])
    few_regions(cfg)
    return detection.network(cfg)


@pytest.mark.parametrize("name", OFFICIAL)
def test_the_network_is_the_official_one_with_its_losses_gradients_and_predictions(name):
    """Same seed, same batch; the same bits, although the official norm is a synchronised one, of one process here."""
    found = []
    for build in (official, ours):
        torch.manual_seed(0)
        model = build(name).train()
        initial = {k: v.clone() for k, v in model.state_dict().items()}
        torch.manual_seed(1)
        with EventStorage():
            losses = model(objects())
        sum(losses.values()).backward()
        gradients = {k: p.grad for k, p in model.named_parameters()}
        with torch.no_grad():
            predicted = [p["instances"] for p in model.eval()(batch())]
        scores = {
            "scores": torch.cat([p.scores for p in predicted]),
            "boxes": torch.cat([p.pred_boxes.tensor for p in predicted]),
        }
        found.append((initial, losses, gradients, scores))
    for theirs, mine in zip(*found, strict=True):
        assert list(theirs) == list(mine)
        assert all(torch.equal(a, b) for a, b in zip(theirs.values(), mine.values(), strict=True))
    initial, losses, gradients, scores = found[0]
    assert all(g is not None and g.isfinite().all() for g in gradients.values()) and len(scores["scores"])
    assert ("roi_heads.res5.norm.weight" in initial) == ("c4" in name)
    assert len(losses) == 4 + (name != "moco_voc_c4")  # masks or keypoints


@pytest.mark.parametrize(("task", "channels"), [(coco_fpn_1x.TASK, 256), (coco_c4_1x.TASK, 2048)])
def test_an_objects_mask_is_detectron2s_of_its_class(task, channels):
    torch.manual_seed(0)
    head = detection.network(configured(task)).roi_heads.mask_head.eval()
    torch.nn.init.normal_(head.predictor.bias)
    official = copy.deepcopy(head)
    official.__class__ = MaskRCNNConvUpsampleHead
    pooled = torch.randn(6, channels, 14, 14)
    masks = []
    for one in (official, head):
        images = [
            Instances((9, 9), pred_classes=torch.tensor(classes).long()) for classes in ([3, 79, 0, 3], [], [5, 1])
        ]
        with torch.no_grad():
            assert one(pooled, images) is images
            nothing = one(pooled[:0], [Instances((9, 9), pred_classes=torch.zeros(0, dtype=torch.long))])
        assert [len(image.pred_masks) for image in images] == [4, 0, 2] and len(nothing[0].pred_masks) == 0
        masks.append(torch.cat([image.pred_masks for image in images]))
    assert masks[0].shape == (6, 1, 28, 28) and masks[0].std() > 1e-3
    assert torch.allclose(*masks, rtol=0, atol=1e-6)


def test_fpn_has_norms_where_moco_has_them():
    cfg = detection.configuration(coco_fpn_1x.TASK)
    names = detection.network(cfg).state_dict()
    assert "backbone.fpn_lateral2.norm.weight" in names and "backbone.bottom_up.res5.2.conv3.norm.weight" in names
    assert not [n for n in names if n.startswith("roi_heads") and "norm" in n]
    assert "roi_heads.box_head.fc2.weight" in names and "roi_heads.mask_head.mask_fcn4.weight" in names


def test_pixpros_fpn_has_norms_in_the_heads_too():
    names = detection.network(detection.configuration(coco_fpn_1x_pixpro.TASK)).state_dict()
    assert "roi_heads.box_head.conv4.norm.weight" in names and "roi_heads.mask_head.mask_fcn4.norm.weight" in names
    assert "roi_heads.box_head.fc1.weight" in names and "roi_heads.box_head.fc2.weight" not in names


@pytest.mark.parametrize(("scale", "samples", "bins"), [(1 / 16, 0, 4), (1 / 4, 0, 7), (1 / 4, 2, 14)])
def test_pooling_by_products_is_detectron2s(scale, samples, bins):
    torch.manual_seed(0)
    layer = ROIAlign((bins, bins), scale, samples, aligned=True)
    corners = torch.rand(40, 2) * torch.tensor([200.0, 150.0]) - 30
    rois = torch.cat([torch.randint(0, 3, (40, 1)).float(), corners, corners + torch.rand(40, 2) * 90], 1)
    rois[0, 3:] = rois[0, 1:3]  # an empty one, and some reach beyond the image
    rois[rois[:, 0] == 1, 0] = 0  # an image without any
    rois = rois[rois[:, 0].argsort()]
    found = []
    for pool in (layer.forward, functools.partial(detection.roi_align, layer, layer.forward)):
        torch.manual_seed(1)
        x = torch.randn(3, 5, int(160 * scale), int(210 * scale)).to(memory_format=torch.channels_last).requires_grad_()
        pooled = pool(x, rois)
        pooled.backward(torch.randn(pooled.shape))
        found.append((pooled.detach(), x.grad))
    for theirs, mine in zip(*found, strict=True):
        assert torch.allclose(theirs, mine, rtol=1e-4, atol=1e-4) and theirs.abs().max() > 0.5
    mixed = rois.flip(0)
    assert torch.equal(detection.roi_align(layer, layer.forward, x, mixed), layer(x, mixed))
    assert detection.roi_align(layer, layer.forward, x, rois[:0]).shape == (0, 5, bins, bins)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_a_keypoint_head_trains_all_of_its_parameters_in_bf16(arch):
    torch.manual_seed(0)
    model = detection.network(configured(mini(coco_keypoint_2x.TASK), arch)).train()
    detection._bf16(model, CPU)
    with EventStorage():
        values = model(objects())
    assert all(v.dtype == torch.float32 for v in values.values())
    sum(values.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_c4_head_of_resnet18_trains_all_of_its_parameters(precision):
    cfg = configured(mini(voc_c4.TASK), "resnet18")
    torch.manual_seed(0)
    model = detection.network(cfg).train()
    if precision == "bf16":
        detection._bf16(model, CPU)
    with EventStorage():
        values = model(batch())
    assert all(v.dtype == torch.float32 for v in values.values())
    sum(values.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    assert model.roi_heads.res5[1].conv2.weight.shape == (512, 512, 3, 3)


@pytest.mark.parametrize(
    ("task", "arch", "count"),
    [(voc_c4.TASK, "resnet18", 120), (voc_c4.TASK, "resnet50", 318), (coco_fpn_1x.TASK, "resnet50", 318)],
)
def test_every_tensor_of_the_backbone_lands(task, arch, count):
    model = detection.network(configured(task, arch))
    tensors = weights(arch)
    loaded = detection.load(model, tensors)
    assert (loaded["matched"], loaded["unused"]) == (count, [])
    own = model.state_dict()
    trunk, res5 = ("backbone.", "roi_heads.") if task is voc_c4.TASK else ("backbone.bottom_up.",) * 2
    assert torch.equal(own[f"{trunk}stem.conv1.norm.running_mean"], tensors["bn1.running_mean"])
    assert torch.equal(own[f"{res5}res5.1.conv2.weight"], tensors["layer4.1.conv2.weight"])
    assert torch.equal(own[f"{res5}res5.0.shortcut.norm.running_var"], tensors["layer4.0.downsample.1.running_var"])
    assert len(own) == loaded["matched"] + len(loaded["missing"])
    assert not [n for n in loaded["missing"] if "bottom_up" in n or ".res5.0" in n]


def test_a_backbone_that_does_not_fit_ends_the_run():
    model = detection.network(configured(voc_c4.TASK, "resnet18"))
    with pytest.raises(ValueError, match="--arch"):
        detection.load(model, weights("resnet50"))
    short = weights("resnet18")
    del short["layer3.0.bn1.running_var"]
    with pytest.raises(ValueError, match=r"found 1 without a tensor, backbone.res4.0.conv1.norm.running_var"):
        detection.load(model, short)
    with pytest.raises(ValueError):
        detection.load(detection.network(configured(voc_c4.TASK)), weights("resnet18"))


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_features_are_torchvisions(arch):
    tensors, image = weights(arch), torch.randn(1, 3, 64, 80)
    model = getattr(torchvision.models, arch)()
    model.load_state_dict(tensors, strict=False)
    model.eval()
    with torch.no_grad():
        x = model.maxpool(model.relu(model.bn1(model.conv1(image))))
        for stage, ours in zip(
            ("layer1", "layer2", "layer3", "layer4"), detection.features(tensors, arch, image), strict=True
        ):
            x = getattr(model, stage)(x)
            assert torch.allclose(x, ours, rtol=1e-4, atol=1e-4 * x.abs().max().item())


def test_batches_are_those_of_detectron2():
    rng = np.random.default_rng(0)
    images = [{"index": i, "width": int(w), "height": 50} for i, w in enumerate(rng.integers(30, 70, 37))]
    stream = (images[i] for i in TrainingSampler(len(images), seed=3))
    theirs = [[r["index"] for r in b] for b in itertools.islice(AspectRatioGroupedDataset(stream, 4), 40)]
    ours = [[i for _, i in b] for b in itertools.islice(detection.batches(images, 4, 3), 40)]
    assert ours == theirs


def test_images_of_rare_classes_come_back_as_detectron2_brings_them():
    rng = np.random.default_rng(0)
    images = [
        {"index": i, "width": int(w), "height": 50, "annotations": [{"category_id": 0 if i else 1}]}
        for i, w in enumerate(rng.integers(30, 70, 37))
    ]
    cfg = detection.configuration(lvis_v05_1x.TASK)
    cfg.DATALOADER.REPEAT_THRESHOLD = 0.3
    repeats = detection.repeat_factors(cfg, images)
    assert repeats[0].item() == pytest.approx((0.3 * 37) ** 0.5) and repeats[1:].tolist() == [1.0] * 36
    assert detection.repeat_factors(detection.configuration(voc_c4.TASK), images) is None
    stream = (images[i] for i in RepeatFactorTrainingSampler(repeats, seed=3))
    theirs = [[r["index"] for r in b] for b in itertools.islice(AspectRatioGroupedDataset(stream, 4), 40)]
    ours = [[i for _, i in b] for b in itertools.islice(detection.batches(images, 4, 3, repeats=repeats), 40)]
    assert ours == theirs
    assert sum(b.count(0) for b in ours) > 8


def test_synchronised_norms_are_told_apart_from_what_is_trained():
    for task, protocol in ((voc_c4.TASK, "naiveSyncBN"), (coco_fpn_1x.TASK, "SyncBN")):
        cfg = detection.configuration(task)
        assert detection._trained_norm(cfg, 1, CPU) == f"BN ({protocol} in one process)"
        assert "Sync" not in cfg.MODEL.RESNETS.NORM + cfg.MODEL.FPN.NORM
    cfg = detection.configuration(coco_c4_1x.TASK)
    assert detection._trained_norm(cfg, 8, torch.device("cuda")) == "SyncBN" == cfg.MODEL.RESNETS.NORM
    assert detection._trained_norm(cfg, 2, CPU) == "naiveSyncBN (SyncBN in CPU processes)"


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """Eight training and four test images, a bright or dark square each on noise, wide and tall."""
    root = tmp_path_factory.mktemp("data")
    base, rng = root / "VOC2007", np.random.default_rng(0)
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (base / folder).mkdir(parents=True)
    names = [f"{i:06d}" for i in range(12)]
    for number, name in enumerate(names):
        width, height = (96, 64) if number % 2 else (64, 96)
        x, y, side = rng.integers(1, 30, 3) + np.array([0, 0, 15])
        pixels = rng.integers(90, 160, (height, width, 3), dtype=np.uint8)
        pixels[y : y + side, x : x + side] = 250 if number % 3 else 5
        Image.fromarray(pixels).save(base / "JPEGImages" / f"{name}.jpg")
        (base / "Annotations" / f"{name}.xml").write_text(
            f"<annotation><size><width>{width}</width><height>{height}</height></size><object><name>"
            f"{VOC_CLASSES[number % 3]}</name><difficult>{int(number == 0)}</difficult><bndbox><xmin>{x + 1}</xmin><ymin>{y + 1}"
            f"</ymin><xmax>{x + side}</xmax><ymax>{y + side}</ymax></bndbox></object></annotation>"
        )
    (base / "ImageSets/Main/trainval.txt").write_text("\n".join(names[:8]))
    (base / "ImageSets/Main/test.txt").write_text("\n".join(names[8:]))
    return root


def tiny(**changes):
    """voc_c4@mini for six iterations of four images."""
    task = mini(voc_c4.TASK)
    settings = dict(task.settings) | {
        "DATASETS.TRAIN": ["voc_2007_trainval"],
        "INPUT.MIN_SIZE_TRAIN": [48, 64],
        "INPUT.MIN_SIZE_TEST": 64,
        "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 8,
        "SOLVER.IMS_PER_BATCH": 4,
        "SOLVER.MAX_ITER": 6,
        "SOLVER.STEPS": [4],
        "SOLVER.WARMUP_ITERS": 2,
        "TEST.PRECISE_BN.NUM_ITER": 2,
    }
    return dataclasses.replace(task, settings=settings | changes, passes=None, precision="fp32")


def logged(out):
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "images_per_second"} for line in lines]


def test_a_trial_from_end_to_end_and_again_after_a_kill(voc, tmp_path, monkeypatch):
    task, tensors = tiny(), weights("resnet18")
    assert {k: detection.found(task, voc)[k] for k in ("train", "test")} == {"train": 8, "test": 4}
    whole = detection.run(task, tensors, None, "resnet18", voc, tmp_path / "whole", seed=1)
    assert list(whole["metrics"]) == ["AP", "AP50", "AP75"]
    assert whole["loaded"]["matched"] == 120
    assert whole["effective"] == {
        "batch": 4,
        "lr": 0.01,
        "iterations": 6,
        "norm": "BN (naiveSyncBN in one process)",
        "world_size": 1,
        "precision": "fp32",
        "evaluation": {
            "voc_2007_test": {
                "precision": "mean at 11 recalls",
                "difficult": "neither right nor wrong",
                "boxes": "rounded to 0.1 pixel, with their last pixels",
                "scores": "rounded to 0.001",
            }
        },
    }
    written = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert written == whole | {"trained": written["trained"]}
    assert json.loads((tmp_path / "whole" / "loaded.json").read_text()) == whole["loaded"]

    class Killed(Exception):
        pass

    step = detection._Training._step

    def until_killed(self, inputs, iteration):
        if iteration == 4:
            raise Killed
        return step(self, inputs, iteration)

    with monkeypatch.context() as patch:
        patch.setattr(detection._Training, "_step", until_killed)
        patch.setattr(detection.Watch, "due", lambda self, done: done == 3)
        with pytest.raises(Killed):
            detection.run(task, tensors, None, "resnet18", voc, tmp_path / "killed", seed=1)
    with pytest.raises(ValueError, match="another seed"):
        detection.run(task, tensors, None, "resnet18", voc, tmp_path / "killed", seed=2, resume=True)
    resumed = detection.run(task, tensors, None, "resnet18", voc, tmp_path / "killed", seed=1, resume=True)
    assert resumed["metrics"] == whole["metrics"]
    assert json.loads((tmp_path / "killed" / "metrics.json").read_text())["trained"] == written["trained"]
    assert logged(tmp_path / "killed") == logged(tmp_path / "whole")


def test_fp32_training_is_default_trainers_to_the_bit(voc, tmp_path):
    """Losses and weights of two iterations; detectron2's trainer and hooks, its registry's networks and its own norms."""
    (tmp_path / "data").symlink_to(voc)
    training = finetuning._training(tiny(), "fp32", tmp_path, "resnet18")
    initial = [p.clone() for p in training.model.parameters()]
    with finetuning._default_trainer(tiny(), tmp_path, "resnet18") as trainer:
        finetuning._same_bits(training, trainer)
    assert not any(torch.equal(a, b) for a, b in zip(initial, training.model.parameters(), strict=True))


def test_images_of_one_size_are_tested_together_with_the_predictions_of_one_at_a_time(voc):
    torch.manual_seed(0)
    cfg = configured(tiny(**{"MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.04}), "resnet18")
    model, name = detection.network(cfg), "voc_2007_trainval"
    images = datasets.records(name, voc)
    assert [len(b) for b in detection._alike(images, 3)] == [3, 3, 1, 1]
    alone, together = (detection._predictions(cfg, model, name, images, pixels) for pixels in (0, 2**20))
    assert [found[0] for found in alone] == [found[0] for found in together] == [i["image_id"] for i in images]
    for one, other in zip(alone, together, strict=True):
        assert len(one[2]) and np.array_equal(one[3], other[3])
        assert np.allclose(one[1], other[1], atol=1e-2) and np.allclose(one[2], other[2], atol=1e-5)


def test_the_norms_statistics_too_are_those_of_parts_of_a_batch(voc, tmp_path, monkeypatch):
    seen, forward = [], detection.GeneralizedRCNN.forward

    def watched(self, inputs):
        seen.append([image["file_name"] for image in inputs])
        return forward(self, inputs)

    monkeypatch.setattr(detection.GeneralizedRCNN, "forward", watched)
    monkeypatch.setattr(detection, "_test", lambda *_: dict.fromkeys(("AP", "AP50", "AP75"), 0.0))
    images = []
    for parts, sizes in ((1, [4] * 3), (3, [1, 1, 2] * 3)):  # one iteration, two batches for the statistics
        task = accumulated(tiny(**{"SOLVER.MAX_ITER": 1, "SOLVER.STEPS": []}), parts)
        detection.run(task, None, None, "resnet18", voc, tmp_path / str(parts), seed=0)
        assert [len(names) for names in seen] == sizes
        images.append([*itertools.chain(*seen)])
        seen.clear()
    assert images[0] == images[1]


BROKEN = {
    "of absurdly many pixels": b"\x89PNG\r\n\x1a\n"
    + b"".join(
        len(content).to_bytes(4) + kind + content + zlib.crc32(kind + content).to_bytes(4)
        for kind, content in ((b"IHDR", (40_000).to_bytes(4) * 2 + bytes([8, 2, 0, 0, 0])), (b"IDAT", b""))
    ),
    "of no maximum": b"P3 96 64 99999999\n1 2 3",
    "of an unknown format": b"DDS " + (124).to_bytes(4, "little") + bytes(120),
    "text": b"<html>not found</html>",
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_image_is_named_whatever_pil_raises(voc, tmp_path, what):
    image = datasets.records("voc_2007_test", voc)[0] | {"file_name": str(tmp_path / "a.jpg")}
    (tmp_path / "a.jpg").write_bytes(BROKEN[what])
    mapper = DatasetMapper(configured(tiny()), is_train=True)
    for read in (functools.partial(detection.mapped, mapper), functools.partial(detection._decoded, "BGR")):
        with pytest.raises(ValueError, match=r"broken or foreign file: .*a\.jpg \(.+\); fetch it again"):
            read(image)


def test_a_damaged_png_is_named_although_detectron2_takes_it(tmp_path):
    file = tmp_path / "a.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)).save(file)
    content = bytearray(file.read_bytes())
    content[9_000] ^= 1
    file.write_bytes(content)
    assert detection_utils.read_image(str(file), "BGR").shape == (64, 96, 3)
    image = {"file_name": str(file), "height": 64, "width": 96, "annotations": []}
    mapper = DatasetMapper(configured(tiny()), is_train=True)
    for read in (functools.partial(detection.mapped, mapper), functools.partial(detection._decoded, "BGR")):
        with pytest.raises(ValueError, match=r"broken or foreign file: .*a\.png \(.+\); fetch it again"):
            read(image)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_images_keep_their_size_by_detectron2s_side_of_0(voc, tmp_path, precision):
    short = {"SOLVER.MAX_ITER": 1, "SOLVER.STEPS": [], "TEST.PRECISE_BN.NUM_ITER": 1}
    whole = tiny(**short, **{"INPUT.MIN_SIZE_TRAIN": [0], "INPUT.MIN_SIZE_TEST": 0})
    result = detection.run(
        dataclasses.replace(whole, precision=precision), None, None, "resnet18", voc, tmp_path, seed=0
    )
    assert list(result["metrics"]) == ["AP", "AP50", "AP75"]
    sized = {"INPUT.MIN_SIZE_TRAIN": [480], "INPUT.MIN_SIZE_TEST": 480}
    assert detection.macs(whole, "resnet18") == detection.macs(tiny(**sized), "resnet18")


def test_all_detections_of_an_image_by_detectron2s_minus_1_are_as_many_as_its_proposals():
    costs = [
        detection.macs(overridden(mini(coco_fpn_1x.TASK), {"TEST.DETECTIONS_PER_IMAGE": count}), "resnet18")
        for count in ("-1", "1000")
    ]
    assert costs[0] == costs[1]


def test_what_is_wrong_with_an_annotation_is_no_broken_image(voc):
    image = datasets.records("voc_2007_test", voc)[0]
    wrong = image | {"annotations": [image["annotations"][0] | {"bbox_mode": "nothing"}]}
    with pytest.raises(Exception) as raised:
        detection.mapped(DatasetMapper(configured(tiny()), is_train=True), wrong)
    assert "broken" not in str(raised.value)


def test_random_weights_train_in_bf16(voc, tmp_path):
    task = dataclasses.replace(tiny(**{"SOLVER.MAX_ITER": 2, "SOLVER.STEPS": []}), precision="bf16")
    result = detection.run(task, None, None, "resnet18", voc, tmp_path, seed=0)
    assert result["loaded"]["matched"] == 0 and result["effective"]["precision"] == "bf16"


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where(voc, tmp_path):
    task = tiny(**{"SOLVER.BASE_LR": 1e12, "SOLVER.WARMUP_ITERS": 0})
    with pytest.raises(
        FloatingPointError, match=r"finite loss, found .* in iteration \d with learning rate 1e\+12 and batch 4"
    ):
        detection.run(task, None, None, "resnet18", voc, tmp_path, seed=0)
    assert not (tmp_path / "metrics.json").exists()


def test_a_process_whose_rpn_diverges_ends_without_the_others(voc, tmp_path, monkeypatch):
    """They wait for it in the head's synchronised norm: asked whether it is so there too, all would wait for ever."""

    def diverged(*_):
        raise FloatingPointError

    monkeypatch.setattr(rpn, "find_top_rpn_proposals", diverged)
    monkeypatch.setattr(detection.Watch, "_agreed", lambda *_: pytest.fail("asked the others"))
    with pytest.raises(FloatingPointError, match=r"finite loss, found nan in iteration 0"):
        detection.run(tiny(), None, None, "resnet18", voc, tmp_path, seed=0)


def test_an_image_of_which_resizing_leaves_nothing_is_named_before_anything_trains(voc, tmp_path):
    for folder in ("JPEGImages", "Annotations", "ImageSets"):
        shutil.copytree(voc / "VOC2007" / folder, tmp_path / "VOC2007" / folder)
    file, longest = tmp_path / "VOC2007/Annotations/000009.xml", mini(voc_c4.TASK).settings["INPUT.MAX_SIZE_TEST"]
    size = file.read_text()
    for width, left in ((2 * longest, 1), (2 * longest + 1, 0)):
        assert ResizeShortestEdge.get_output_shape(1, width, 64, longest) == (left, longest)
        file.write_text(re.sub("<size>.*</size>", f"<size><width>{width}</width><height>1</height></size>", size))
        if left:
            detection.found(tiny(), tmp_path)
    with pytest.raises(
        ValueError, match=r"something is left at 266 pixels .*, found 533x1 in .*000009\.jpg: leave it out"
    ):
        detection.found(tiny(), tmp_path)


def test_data_without_objects_is_an_error(voc, tmp_path):
    base = tmp_path / "VOC2007"
    for folder in ("Annotations", "ImageSets/Main"):
        (base / folder).mkdir(parents=True)
    (base / "JPEGImages").symlink_to(voc / "VOC2007" / "JPEGImages")
    for split in ("trainval", "test"):
        (base / "ImageSets/Main" / f"{split}.txt").write_text("000000")
    empty = "<annotation><size><width>64</width><height>96</height></size></annotation>"
    (base / "Annotations" / "000000.xml").write_text(empty)
    with pytest.raises(ValueError, match="found none"):
        detection.found(tiny(), tmp_path)


@pytest.mark.parametrize(
    ("task", "key", "value", "words"),
    [
        (coco_fpn_1x.TASK, "MODEL.MASK_ON", False, "measures APmk, APmk50, APmk75, found .*MASK_ON False"),
        (coco_fpn_1x.TASK, "DATASETS.TEST", ["voc_2007_test"], "measures APbb, .*'voc_2007_test'"),
        (voc_c4.TASK, "DATASETS.TEST", ["coco_2017_val"], "measures AP, AP50, AP75"),
        (lvis_v05_1x.TASK, "MODEL.MASK_ON", False, "measures APmk, .*APr, APc, APf"),
        (lvis_v05_1x.TASK, "DATASETS.TRAIN", ["lvis_v2_train"], "expected a dataset like .*'lvis_v2_train'"),
        (coco_fpn_1x.TASK, "MODEL.ROI_HEADS.NUM_CLASSES", 81, "80 classes of coco_2017_train, found .* 81"),
        (voc_c4.TASK, "DATASETS.TRAIN", ["coco_2017_train"], "80 classes of coco_2017_train, found .* 20"),
        (lvis_v05_1x.TASK, "DATASETS.TRAIN", ["lvis_v1_train"], "1,203 classes of lvis_v1_train, found .* 1230"),
    ],
)
def test_what_could_not_be_evaluated_is_said_before_anything_trains(tmp_path, task, key, value, words):
    with pytest.raises(ValueError, match=words):
        detection.found(dataclasses.replace(task, settings=dict(task.settings) | {key: value}), tmp_path)


@pytest.mark.parametrize(
    ("module", "key", "value"),
    [
        (voc_c4, "MODEL.RESNETS.NORM", "Foo"),
        (voc_c4, "MODEL.ROI_HEADS.NAME", "Foo"),
        (voc_c4, "MODEL.RPN.IN_FEATURES", "['res9']"),
        (voc_c4, "MODEL.ANCHOR_GENERATOR.SIZES", "[]"),
        (coco_fpn_1x, "MODEL.BACKBONE.NAME", "Foo"),
        (coco_fpn_1x, "MODEL.FPN.NORM", "Foo"),
        (coco_fpn_1x, "MODEL.ROI_MASK_HEAD.NAME", "Foo"),
        (voc_c4, "INPUT.MIN_SIZE_TRAIN_SAMPLING", "foo"),
        (voc_c4, "SOLVER.LR_SCHEDULER_NAME", "Foo"),
        (voc_c4, "TEST.PRECISE_BN.NUM_ITER", "0"),
        (voc_c4, "INPUT.MIN_SIZE_TEST", "-1"),
        (voc_c4, "INPUT.MAX_SIZE_TEST", "0"),
    ],
)
def test_a_value_that_detectron2_does_not_know_is_one_sentence_before_anything_is_read(tmp_path, module, key, value):
    task = overridden(module.TASK, {key: value})
    for look in (lambda: detection.resolved(task, "resnet18"), lambda: detection.found(task, tmp_path)):
        with pytest.raises(ValueError, match=rf"expected .*{re.escape(key)}.*: correct the KEY VALUE pair"):
            look()


def test_values_that_detectron2_knows_are_built_and_the_protocols_own_mistakes_are_not_the_users():
    known = {"MODEL.RESNETS.NORM": "GN", "SOLVER.LR_SCHEDULER_NAME": "WarmupCosineLR", "SOLVER.MAX_ITER": "10"}
    assert detection.resolved(overridden(voc_c4.TASK, known))["MODEL.RESNETS.NORM"] == "GN"
    own = dataclasses.replace(voc_c4.TASK, settings=dict(voc_c4.TASK.settings) | {"MODEL.RESNETS.NORM": "Foo"})
    with pytest.raises(KeyError):
        detection.blank(own, "resnet50")


@pytest.mark.parametrize("task", [coco_c4_1x, coco_keypoint_2x, lvis_v05_1x, lvis_v1_1x, cityscapes_instance, voc_c4])
def test_every_protocol_can_be_evaluated(tmp_path, task):
    with pytest.raises(FileNotFoundError):
        detection.found(task.TASK, tmp_path)


@pytest.fixture
def shapes(tmp_path):
    """Four images of COCO's layout, the same for training and test, a square of class 90 or 1 in each."""
    images, annotations = [], []
    for split in ("train", "val"):
        (tmp_path / "coco" / f"{split}2017").mkdir(parents=True)
        for number in range(1, 5):
            pixels = np.full((64, 96, 3), 120, np.uint8)
            pixels[10:42, 20:60] = 250
            Image.fromarray(pixels).save(tmp_path / "coco" / f"{split}2017" / f"{number}.jpg")
    for number in range(1, 5):
        images.append({"id": number, "file_name": f"{number}.jpg", "height": 64, "width": 96})
        annotations.append(
            {
                "id": number,
                "image_id": number,
                "category_id": 90 if number % 2 else 1,
                "bbox": [20, 10, 40, 32],
                "area": 40 * 32,
                "iscrowd": 0,
                "segmentation": [[20, 10, 60, 10, 60, 42, 20, 42]],
            }
        )
    categories = [{"id": i, "name": n} for i, n in zip(COCO_IDS, COCO_CLASSES, strict=True)]
    content = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "coco" / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / "coco" / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize("module", [coco_fpn_1x, coco_fpn_1x_pixpro, coco_c4_1x])
def test_boxes_and_masks_are_measured_on_coco(module, shapes, tmp_path):
    task = mini(module.TASK)
    settings = dict(task.settings) | {"SOLVER.MAX_ITER": 2, "SOLVER.STEPS": [], "SOLVER.IMS_PER_BATCH": 2}
    task = dataclasses.replace(task, settings=settings | {"TEST.PRECISE_BN.NUM_ITER": 1}, passes=None)
    result = detection.run(task, None, None, "resnet18", shapes, tmp_path / "out", seed=0)
    assert list(result["metrics"]) == ["APbb", "APbb50", "APbb75", "APmk", "APmk50", "APmk75"]
    assert all(0 <= v <= 100 for v in result["metrics"].values())


def test_the_truth_as_a_prediction_is_100_on_coco(shapes):
    mask = np.zeros((1, 64, 96), bool)
    mask[0, 10:42, 20:60] = True
    box = np.array([[20, 10, 60, 42]], np.float32)
    detections = [
        entry
        for number in range(1, 5)
        for entry in detection._coco_results(
            "coco_2017_val",
            number,
            box,
            np.array([0.9], np.float32),
            np.array([79 if number % 2 else 0]),
            detection._encoded(mask),
        )
    ]
    for kind, name in (("bbox", "APbb"), ("segm", "APmk")):
        file = shapes / "coco" / "annotations" / "instances_val2017.json"
        assert coco.evaluate(detections, file, kind)[name] == pytest.approx(100.0)


@pytest.fixture
def people(shapes):
    """The four images, with a person in each: a nose, a left and a right eye."""
    points = [40, 15, 2, 50, 12, 2, 30, 12, 1, *[0] * 42]
    for split in ("train", "val"):
        content = json.loads((shapes / "coco" / "annotations" / f"instances_{split}2017.json").read_text())
        content["categories"] = [{"id": 1, "name": "person", "keypoints": KEYPOINTS}]
        for annotation in content["annotations"]:
            annotation |= {"category_id": 1, "num_keypoints": 3, "keypoints": points}
        (shapes / "coco" / "annotations" / f"person_keypoints_{split}2017.json").write_text(json.dumps(content))
    return shapes


def test_keypoints_are_measured_from_end_to_end(people, tmp_path):
    task = mini(coco_keypoint_2x.TASK)
    settings = dict(task.settings) | {"SOLVER.MAX_ITER": 2, "SOLVER.STEPS": [], "SOLVER.IMS_PER_BATCH": 2}
    task = dataclasses.replace(task, settings=settings | {"TEST.PRECISE_BN.NUM_ITER": 1}, passes=None)
    assert {k: detection.found(task, people)[k] for k in ("train", "test")} == {"train": 4, "test": 4}
    result = detection.run(task, weights("resnet18"), None, "resnet18", people, tmp_path / "out", seed=0)
    assert list(result["metrics"]) == ["APkp", "APkp50", "APkp75"] and result["loaded"]["matched"] == 120
    assert all(0 <= v <= 100 for v in result["metrics"].values())
    assert logged(tmp_path / "out")[-1]["loss_keypoint"] > 0


def test_a_flipped_person_has_its_left_on_the_right(people):
    (image, *_) = datasets.records("keypoints_coco_2017_train", people)
    cfg = detection.configuration(coco_keypoint_2x.TASK)
    cfg.INPUT.MIN_SIZE_TRAIN = (64,)
    mapper = DatasetMapper(cfg, is_train=True)
    poses = []
    for seed in range(6):
        np.random.seed(seed)
        poses.append(mapper(image)["instances"].gt_keypoints.tensor[0, :3].tolist())
    plain = [[40.5, 15.5, 2], [50.5, 12.5, 2], [30.5, 12.5, 1]]
    flipped = [[96 - 40.5, 15.5, 2], [96 - 30.5, 12.5, 1], [96 - 50.5, 12.5, 2]]
    assert plain in poses and flipped in poses and all(p in (plain, flipped) for p in poses)


def test_the_truth_as_a_prediction_is_100_in_keypoints(people):
    images = datasets.records("keypoints_coco_2017_val", people)
    detections = [
        entry
        for image in images
        for entry in detection._coco_results(
            "keypoints_coco_2017_val",
            image["image_id"],
            np.array([[20, 10, 60, 42]], np.float32),
            np.array([0.9], np.float32),
            np.array([0]),
            None,
            np.array(image["annotations"][0]["keypoints"], np.float32).reshape(1, 17, 3),
        )
    ]
    file = datasets.annotation_file("keypoints_coco_2017_val", people)
    assert coco.evaluate(detections, file, "keypoints") == pytest.approx(
        dict.fromkeys(("APkp", "APkp50", "APkp75"), 100.0)
    )


def test_persons_without_keypoints_are_nothing_to_test_on(people):
    file = people / "coco" / "annotations" / "person_keypoints_val2017.json"
    content = json.loads(file.read_text())
    for annotation in content["annotations"]:
        annotation |= {"num_keypoints": 0, "keypoints": [0] * 51}
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"objects to test on in keypoints_coco_2017_val of .*, found none"):
        detection.found(coco_keypoint_2x.TASK, people)


def test_lvis_is_measured_from_end_to_end(shapes, tmp_path):
    content = json.loads((shapes / "coco" / "annotations" / "instances_val2017.json").read_text())
    content["categories"] = [{"id": i, "name": str(i), "frequency": "rcf"[i % 3]} for i in range(1, 1231)]
    for number, annotation in enumerate(content["annotations"]):
        annotation["category_id"] = number + 1
    (shapes / "lvis").mkdir()
    for split in ("train", "val"):
        for image in content["images"]:
            url = f"http://images.cocodataset.org/{split}2017/{image['id']}.jpg"
            image |= {"coco_url": url, "file_name": f"COCO_train2014_{image['id']:012d}.jpg"}
            image |= {"neg_category_ids": [image["id"] + 10], "not_exhaustive_category_ids": []}
        (shapes / "lvis" / f"lvis_v0.5_{split}.json").write_text(json.dumps(content))
    task = mini(lvis_v05_1x.TASK)
    settings = dict(task.settings) | {"SOLVER.MAX_ITER": 2, "SOLVER.STEPS": [], "SOLVER.IMS_PER_BATCH": 2}
    # Untrained, all 1,230 classes of a box pass the threshold of 0.0001, and each detection gets 1,230 masks.
    settings |= {"MODEL.RPN.POST_NMS_TOPK_TEST": 4, "TEST.DETECTIONS_PER_IMAGE": 10}
    task = dataclasses.replace(task, settings=settings | {"TEST.PRECISE_BN.NUM_ITER": 1}, passes=None)
    result = detection.run(task, None, None, "resnet18", shapes, tmp_path / "out", seed=0)
    assert list(result["metrics"]) == ["APbb", "APmk", "APmk50", "APmk75", "APr", "APc", "APf"]
    assert all(0 <= v <= 100 for v in result["metrics"].values())


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    root = tmp_path_factory.mktemp("streets")
    synthesize(root, voc=0, coco=0, cityscapes=4, imagenet=0)
    return root


def test_cityscapes_instances_are_measured_from_end_to_end(streets, tmp_path):
    task = mini(cityscapes_instance.TASK)
    settings = dict(task.settings) | {"SOLVER.MAX_ITER": 2, "SOLVER.STEPS": [], "SOLVER.IMS_PER_BATCH": 2}
    task = dataclasses.replace(task, settings=settings | {"TEST.PRECISE_BN.NUM_ITER": 1}, passes=None)
    assert {k: detection.found(task, streets)[k] for k in ("train", "test")} == {"train": 4, "test": 4}
    result = detection.run(task, weights("resnet18"), None, "resnet18", streets, tmp_path / "out", seed=0)
    assert list(result["metrics"]) == ["APmk", "APmk50"] and result["loaded"]["matched"] == 120
    assert all(0 <= v <= 100 for v in result["metrics"].values())
    assert logged(tmp_path / "out")[-1]["loss_mask"] > 0


def test_a_box_of_cityscapes_keeps_its_fractions_when_its_image_is_resized(streets):
    cfg = detection.configuration(mini(cityscapes_instance.TASK))
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.RANDOM_FLIP = (100,), "none"
    for image in datasets.records("cityscapes_fine_instance_seg_train", streets):
        boxes = torch.tensor([a["bbox"] for a in image["annotations"] if not a["iscrowd"]])
        found = DatasetMapper(cfg, is_train=True)(image)["instances"].gt_boxes.tensor
        assert torch.allclose(found, boxes * 100 / image["height"], rtol=0, atol=1e-3)


def test_the_truth_as_a_prediction_is_100_on_cityscapes(streets):
    images = datasets.records("cityscapes_fine_instance_seg_val", streets)
    predictions = {}
    for image in images:
        ids = datasets.instance_ids(image["instance_file_name"])
        objects = [i for i in np.unique(ids) if i >= 24000]
        masks = detection._encoded(np.array([ids == i for i in objects]))
        labels = [list(datasets.CITYSCAPES_CLASSES).index(i // 1000) for i in objects]
        predictions[image["image_id"]] = (masks, np.full(len(objects), 0.9, np.float32), np.array(labels))
    assert cityscapes.evaluate(predictions, images) == pytest.approx({"APmk": 100.0, "APmk50": 100.0})


SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
sys.path.insert(0, sys.argv[1])
from test_detection_task import tasks
from downstream import detection

here, rank = Path(sys.argv[1]), os.environ["RANK"]
take = detection._Training._precise_bn


def watched(self):
    '''Keeps what every norm sees, batch by batch, and what it has in the end.'''
    layers = {n: m for n, m in self.model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    seen = {n: [] for n in layers}
    hooks = [
        m.register_forward_pre_hook(lambda _, x, n=n: seen[n].append(x[0].detach().double())) for n, m in layers.items()
    ]
    take(self)
    for hook in hooks:
        hook.remove()
    seen = {n: [(x.mean((0, 2, 3)), x.square().mean((0, 2, 3)), x[:, 0].numel()) for x in xs] for n, xs in seen.items()}
    kept = {n: (m.running_mean, m.running_var) for n, m in layers.items()}
    torch.save((seen, kept), here / f"norms_{self.name}_{rank}.pth")


evaluate = detection.voc.evaluate


def noted(*given, **more):
    (here / f"evaluated_{rank}").touch()
    return evaluate(*given, **more)


detection._Training._precise_bn, detection.voc.evaluate = watched, noted
for task in tasks:
    result = detection.run(task, None, None, "resnet18", Path(sys.argv[2]), here / task.name, seed=0)
    (here / f"{task.name}_{rank}.json").write_text(json.dumps([result["metrics"], result["effective"]]))
"""


@pytest.fixture(scope="module")
def two_processes(voc, tmp_path_factory):
    """What two processes of torchrun left behind: a trial with the protocol's norm, and one whose norm is not synchronised."""
    folder = tmp_path_factory.mktemp("two")
    short = {"SOLVER.MAX_ITER": 2, "SOLVER.STEPS": [], "TEST.PRECISE_BN.NUM_ITER": 3}
    tasks = [
        dataclasses.asdict(dataclasses.replace(tiny(**short, **changes), name=name))
        for name, changes in (("synchronised", {}), ("alone", {"MODEL.RESNETS.NORM": "BN"}))
    ]
    (folder / "test_detection_task.py").write_text(
        f"from downstream.task import Detection\ntasks = [Detection(**task) for task in {tasks!r}]\n"
    )
    (folder / "trial.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*torchrun, str(folder / "trial.py"), str(folder), str(voc)],
        cwd=Path(detection.__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(detection.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_two_processes_share_the_batch_and_agree(two_processes):
    for name, norm in (("synchronised", "naiveSyncBN"), ("alone", "BN")):
        results = [json.loads((two_processes / f"{name}_{rank}.json").read_text()) for rank in (0, 1)]
        assert results[0] == results[1]
        assert results[0][1] | {"world_size": 2, "norm": norm, "batch": 4} == results[0][1]
    # all detections of LVIS take gigabytes, which only one process is to have
    assert [file.name for file in two_processes.glob("evaluated_*")] == ["evaluated_0"]


def population(batches):
    """Mean and variance of all samples of batches, each its mean, mean square and number of samples (arXiv 2105.07576)."""
    means, squares, sizes = (np.stack([np.asarray(b[i]) for b in batches]) for i in range(3))
    mean, square = (np.average(values, axis=0, weights=sizes) for values in (means, squares))
    return mean, square - mean**2


def test_precise_bn_gives_both_processes_the_same_statistics_by_value(two_processes):
    """A norm on its own has the population of its process's samples, of which the mean over the processes is taken; in a
    synchronised one every process has the mean over the processes of each batch before (stats_mode "" of detectron2's)."""
    for name in ("synchronised", "alone"):
        (seen, kept), (others, same) = (
            torch.load(two_processes / f"norms_{name}_{rank}.pth", weights_only=True) for rank in (0, 1)
        )
        assert len(seen) == 21 and all(len(batches) == 3 for batches in seen.values())
        for layer, statistics in kept.items():
            assert all(torch.equal(a, b) for a, b in zip(statistics, same[layer], strict=True))
            processes = [seen[layer], others[layer]]
            if name == "synchronised":
                mean = [[(a[i] + b[i]) / 2 for i in (0, 1)] for a, b in zip(*processes, strict=True)]
                processes = [
                    # detectron2 keeps a batch's variance as it is, fvcore takes it for Bessel's and undoes that
                    [(m, m**2 + (q - m**2) * (n - 1) / n, n) for (m, q), (*_, n) in zip(mean, own, strict=True)]
                    for own in processes
                ]
            found = [population(batches) for batches in processes]
            if name == "alone":
                assert not np.allclose(
                    found[0][0], found[1][0], rtol=1e-3
                )  # each kept its own before (detectron2#5398)
            for ours, values in zip(statistics, zip(*found, strict=True), strict=True):
                expected = np.mean(values, axis=0)
                assert np.abs(ours.numpy() - expected).max() < 1e-4 * max(np.abs(expected).max(), 1e-3), layer
