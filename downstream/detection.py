"""The detectron2 engine: a detection protocol, a backbone's tensors and a folder of data go in, metrics come out.

The network, the losses, the augmentation, the optimiser and the schedule are detectron2's own, built from the protocol's
keys. What this file adds is what the recipes of MoCo and PixPro add, and what running them anywhere needs:

- `Res5ROIHeadsExtraNorm`, one more norm after the C4 head's res5 (facebookresearch/moco, detection/train_net.py), which here
  also stands on basic blocks, so that a ResNet-18 has a C4 head;
- `DensePoseROIHeads`, which detectron2 has outside its package (projects/DensePose);
- `OneMaskHead`, detectron2's mask head that in the test draws the mask of one class an object;
- a C4 head's res5 gets the backbone's res5, and a tensor of the backbone that lands nowhere ends the run;
- batches as detectron2 makes them, but a function of the seed and the iteration alone, so that a killed run goes on exactly,
  and made while the network is at work on others;
- one process or `torchrun`, CUDA or CPU, fp32 or bf16 (bf16 in the convolutions of trunk and heads, fp32 where boxes, scores
  and losses are).

Deliberate differences from detectron2's DefaultTrainer: PreciseBN's statistics are averaged over the processes, which each
keep their own there (detectron2#5398); a single process trains BN where the protocol says SyncBN, the same computation
without the synchronisation, and says so; a non-finite loss ends the run at once.
"""

import dataclasses
import difflib
import functools
import itertools
import json
import logging
import math
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetMapper, MetadataCatalog, detection_utils
from detectron2.data.common import DatasetFromList
from detectron2.data.samplers import InferenceSampler, RepeatFactorTrainingSampler, TrainingSampler
from detectron2.data.transforms import HFlipTransform, TransformList
from detectron2.layers import NaiveSyncBatchNorm, ROIAlign, ShapeSpec, get_norm
from detectron2.modeling import GeneralizedRCNN, build_backbone, build_proposal_generator, build_roi_heads
from detectron2.modeling.backbone.resnet import BasicBlock, ResNet
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.roi_heads import Res5ROIHeads, StandardROIHeads, select_foreground_proposals
from detectron2.modeling.roi_heads.mask_head import MaskRCNNConvUpsampleHead, mask_rcnn_inference
from detectron2.solver import build_lr_scheduler, build_optimizer
from detectron2.structures import Boxes, ImageList, Instances
from detectron2.structures.boxes import matched_pairwise_iou
from detectron2.utils import comm
from detectron2.utils.env import seed_all_rng
from detectron2.utils.events import EventStorage
from detectron2.utils.visualizer import Visualizer
from fvcore.nn.precise_bn import get_bn_modules, update_bn_stats
from PIL import Image
from pycocotools import mask as mask_tools
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from downstream import broken, checkpoint, datasets, densepose, resnets, small_maps, surface
from downstream.evaluation import cityscapes, coco, lvis, voc
from downstream.evaluation import densepose as similarity
from downstream.interruption import Watch, deaf
from downstream.task import TRAITS, Detection, digest, iterations
from downstream.trial import (
    SAVE_SECONDS,
    Progress,
    agreed,
    ahead,
    effective,
    fingerprint,
    in_parts,
    place,
    share,
    unsynchronised,
    write_json,
)
from downstream.weights import detectron2_size, fitting, land, separated, to_detectron2

SYNCHRONISED = {"SyncBN", "naiveSyncBN", "nnSyncBN", "naiveSyncBN_N"}

# Pixels of small images that a bf16 network sees at a time in the test: six of 160 x 213. An fp32 network sees one image at a
# time, as detectron2's does: to the bit, but for the last ones of a mask.
TOGETHER = 2**18

DRAWN = 0.5  # the least score of an object that a picture of predictions shows
AS_IT_IS = 480  # the shorter side of most images of COCO: an estimate's where images keep their own
PRODUCTS = 2**25  # numbers between the two products of a pooling: 128 MB

Tensors = Mapping[str, torch.Tensor]


class Res5ROIHeadsExtraNorm(Res5ROIHeads):
    """The C4 head with one more norm after res5, on bottleneck blocks or, for ResNet-18 and 34, on basic blocks."""

    @classmethod
    def _build_res5_block(cls, cfg: CfgNode) -> tuple[nn.Sequential, int]:
        depth = cfg.MODEL.RESNETS.DEPTH
        if depth < 50:
            channels = cfg.MODEL.RESNETS.RES2_OUT_CHANNELS * 8
            count = {18: 2, 34: 3}[depth]
            blocks = ResNet.make_stage(
                BasicBlock,
                count,
                stride_per_block=[2] + [1] * (count - 1),
                in_channels=channels // 2,
                out_channels=channels,
                norm=cfg.MODEL.RESNETS.NORM,
            )
            res5 = nn.Sequential(*blocks)
        else:
            res5, channels = super()._build_res5_block(cfg)
        res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
        return res5, channels


class OneMaskHead(MaskRCNNConvUpsampleHead):
    """detectron2's mask head, which in the test draws an object's mask for its own class alone.

    detectron2's draws those of all classes and takes one: 1.1 GB an image of LVIS, and most of the test's time on a CPU.
    """

    def forward(self, x: torch.Tensor, instances: list[Instances]) -> Any:
        if self.training or self.predictor.out_channels == 1:
            return super().forward(x, instances)
        mask_rcnn_inference(self.layers(x, torch.cat([found.pred_classes for found in instances])), instances)
        return instances

    def layers(self, x: torch.Tensor, classes: torch.Tensor | None = None) -> torch.Tensor:
        """Logits of pooled objects [R, C, P, P]: [R, 1, 2P, 2P] of the class of each [R], or [R, K, 2P, 2P] of all classes."""
        if classes is None:
            return super().layers(x)
        for layer in list(self)[:-1]:
            x = layer(x)
        weight, bias = self.predictor.weight[classes].flatten(1), self.predictor.bias[classes]
        return torch.einsum("rchw,rc->rhw", x, weight)[:, None] + bias[:, None, None, None]


class DensePoseROIHeads(StandardROIHeads):
    """detectron2's heads with one more, for persons whose box is found well enough and whose surface is marked."""

    def __init__(self, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]):
        super().__init__(cfg, input_shape)
        head = cfg.MODEL.ROI_DENSEPOSE_HEAD
        self.densepose_pooler = ROIPooler(
            output_size=head.POOLER_RESOLUTION,
            scales=tuple(1.0 / input_shape[name].stride for name in self.in_features),
            sampling_ratio=head.POOLER_SAMPLING_RATIO,
            pooler_type=head.POOLER_TYPE,
        )
        self.densepose_head = densepose.Head(head, input_shape[self.in_features[0]].channels)
        self.densepose_predictor = densepose.Predictor(head)
        self.near = head.FG_IOU_THRESHOLD
        self.weights = head.POINT_REGRESSION_WEIGHTS, head.PART_WEIGHTS, head.INDEX_WEIGHTS

    def forward(
        self,
        images: ImageList,
        features: dict[str, torch.Tensor],
        proposals: list[Instances],
        targets: list[Instances] | None = None,
    ) -> tuple[list[Instances], dict[str, torch.Tensor]]:
        """As StandardROIHeads; of a person, targets have `gt_person`, its number in its image, and `points` and `parts`, as
        `DensePoseMapper` makes them."""
        instances, losses = super().forward(images, features, proposals, targets)
        if targets is not None and self.training:
            losses |= self._densepose(features, instances, targets)
        return instances, losses

    def forward_with_given_boxes(
        self, features: dict[str, torch.Tensor], instances: list[Instances]
    ) -> list[Instances]:
        """As StandardROIHeads; adds `pred_densepose`, the maps of each box, [K, channels of all four, S, S]."""
        instances = super().forward_with_given_boxes(features, instances)
        maps = torch.cat(self._maps(features, [found.pred_boxes for found in instances]), 1)
        for found, own in zip(instances, maps.split([len(found) for found in instances]), strict=True):
            found.pred_densepose = own
        return instances

    def _maps(self, features: Mapping[str, torch.Tensor], boxes: list[Boxes]) -> tuple[torch.Tensor, ...]:
        pooled = self.densepose_pooler([features[name] for name in self.in_features], boxes)
        return self.densepose_predictor(self.densepose_head(pooled))

    def _densepose(
        self, features: Mapping[str, torch.Tensor], proposals: list[Instances], targets: list[Instances]
    ) -> dict[str, torch.Tensor]:
        boxes, truths, points, parts = [], [], [], []
        for proposal, target in zip(proposals, targets, strict=True):
            if not len(target):  # then nothing says which objects the proposals are
                boxes.append(Boxes(proposal.proposal_boxes.tensor[:0]))
                continue
            (found,), _ = select_foreground_proposals([proposal], self.num_classes)
            found = found[matched_pairwise_iou(found.gt_boxes, found.proposal_boxes) > self.near]
            found = found[target.points[found.gt_person, :, 2].gt(0).any(1)]
            boxes.append(found.proposal_boxes)
            truths.append(found.gt_boxes.tensor)
            points += target.points[found.gt_person].unbind()
            parts.append(target.parts[found.gt_person])
        maps = self._maps(features, boxes)
        if not points:
            return densepose.nothing(maps)
        found, truth = torch.cat([own.tensor for own in boxes]), torch.cat(truths)
        of_points, *others = self.weights
        return densepose.losses(
            maps, found, truth, points, torch.cat(parts), (of_points * densepose.IMAGES / len(targets), *others)
        )


# The checkpoint, an option or this file decides these; a protocol that says otherwise would be believed and not obeyed.
DECIDED_ELSEWHERE = (
    "INPUT.FORMAT",
    "MODEL.PIXEL_",
    "MODEL.RESNETS.STRIDE_IN_1X1",
    *detectron2_size(resnets.arch("resnet50")),
    "MODEL.WEIGHTS",
    "MODEL.DEVICE",
    "MODEL.META_ARCHITECTURE",
    "MODEL.LOAD_PROPOSALS",
    "DATASETS.PROPOSAL_FILES_",
    "DATASETS.PRECOMPUTED_PROPOSAL_",
    "OUTPUT_DIR",
    "SEED",
    "VERSION",
    "VIS_PERIOD",
    "CUDNN_BENCHMARK",
    "GLOBAL.",
    "SOLVER.AMP.",
    "SOLVER.REFERENCE_WORLD_SIZE",
    "SOLVER.CHECKPOINT_PERIOD",
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS",
    "TEST.EVAL_PERIOD",
    "TEST.EXPECTED_RESULTS",
    "TEST.KEYPOINT_OKS_SIGMAS",
    "TEST.AUG.",
)


def configuration(task: Detection, arch: str = "resnet50", traits: Mapping[str, Any] | None = None) -> CfgNode:
    """detectron2's configuration of a protocol on a backbone. Raises ValueError for a key, a value or a backbone it has not."""
    traits = dict(TRAITS) | dict(traits or {})
    plan = resnets.arch(arch)
    if plan.deep or traits["stem"] != "7x7":
        raise ValueError(
            f"expected a ResNet with a 7x7 stem, found {arch} with {traits['stem']}: detectron2's has no other"
        )
    cfg = _defaults()
    default = dict(_flat(cfg))
    for key, value in task.settings.items():
        if key.startswith(DECIDED_ELSEWHERE):
            raise ValueError(
                f"expected keys of the protocol, found {key}, which would not be obeyed: the checkpoint's traits, an option of the "
                "command or the harness decide it"
            )
        if key not in default:
            near = "".join(f", perhaps {k}" for k in difflib.get_close_matches(key, default, 1))
            raise ValueError(f"expected a key of detectron2's configuration, found {key!r}{near}")
        if isinstance(default[key], float) and isinstance(value, int):
            value = float(value)
        try:
            cfg.merge_from_list([key, value])
        except ValueError:
            raise ValueError(
                f"expected for {key} a value like detectron2's {default[key]!r}, found {value!r}: give one of that type"
            ) from None
    for key, value, least in (
        ("SOLVER.IMS_PER_BATCH", cfg.SOLVER.IMS_PER_BATCH, 1),
        ("SOLVER.MAX_ITER", cfg.SOLVER.MAX_ITER, 1),
        ("TEST.PRECISE_BN.NUM_ITER", cfg.TEST.PRECISE_BN.NUM_ITER, 1),
        ("INPUT.MAX_SIZE_TRAIN", cfg.INPUT.MAX_SIZE_TRAIN, 1),
        ("INPUT.MAX_SIZE_TEST", cfg.INPUT.MAX_SIZE_TEST, 1),
        ("INPUT.MIN_SIZE_TEST", cfg.INPUT.MIN_SIZE_TEST, 0),  # 0 leaves the images as they are
    ):
        if value < least:
            raise ValueError(f"expected {key} from {least}, found {value}: correct the KEY VALUE pair")
    if not cfg.INPUT.MIN_SIZE_TRAIN:
        raise ValueError("expected a side in INPUT.MIN_SIZE_TRAIN, found none: correct the KEY VALUE pair")
    if cfg.DATALOADER.SAMPLER_TRAIN not in ("TrainingSampler", "RepeatFactorTrainingSampler"):
        raise ValueError(
            f"expected TrainingSampler or RepeatFactorTrainingSampler, found DATALOADER.SAMPLER_TRAIN "
            f"{cfg.DATALOADER.SAMPLER_TRAIN!r}: no protocol here draws its images otherwise"
        )
    for name, (what, key, on) in itertools.product(
        (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST),
        (("keypoints", "KEYPOINT_ON", cfg.MODEL.KEYPOINT_ON), ("densepose", "DENSEPOSE_ON", cfg.MODEL.DENSEPOSE_ON)),
    ):
        if name.startswith(f"{what}_") != on:
            raise ValueError(
                f"expected datasets with {what} for a network with such a head and others for others, found {name} and "
                f"MODEL.{key} {on}: change both, or take another task"
            )
    if cfg.MODEL.DENSEPOSE_ON:
        _whole(cfg)
    cfg.INPUT.FORMAT = traits["channel_order"]
    cfg.MODEL.PIXEL_MEAN = list(traits["mean"])
    cfg.MODEL.PIXEL_STD = list(traits["std"])
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = traits["stride_in_1x1"]
    cfg.merge_from_list([word for pair in detectron2_size(plan).items() for word in pair])
    if changed := [key for key in task.nonstandard if key in task.settings]:
        try:
            _build(cfg.clone(), task)
        except Exception as error:  # whatever detectron2 raises for a value that it does not know
            pairs, reason = ", ".join(f"{key} {task.settings[key]!r}" for key in changed), " ".join(str(error).split())
            raise ValueError(
                f"expected values that detectron2 can build from, found {pairs} ({type(error).__name__}: {reason:.200}): "
                "correct the KEY VALUE pair"
            ) from None
    return cfg


def _defaults() -> CfgNode:
    """detectron2's default configuration with DensePose's keys, of which there DENSEPOSE_ON is on."""
    cfg = get_cfg()
    cfg.MODEL.DENSEPOSE_ON = False
    cfg.MODEL.ROI_DENSEPOSE_HEAD = CfgNode(densepose.KEYS)
    return cfg


def _whole(cfg: CfgNode) -> None:
    """Raises ValueError for a head of DensePose that is not here, or whose numbers contradict one another."""
    head = cfg.MODEL.ROI_DENSEPOSE_HEAD
    grid = head.POOLER_RESOLUTION * 2 * head.UP_SCALE
    for key, found, expected in (
        ("MODEL.ROI_HEADS.NAME", cfg.MODEL.ROI_HEADS.NAME, ["DensePoseROIHeads"]),
        ("MODEL.ROI_DENSEPOSE_HEAD.NAME", head.NAME, ["DensePoseV1ConvXHead"]),
        ("MODEL.ROI_DENSEPOSE_HEAD.DECODER_ON", head.DECODER_ON, [False]),
        ("MODEL.ROI_DENSEPOSE_HEAD.NUM_PATCHES", head.NUM_PATCHES, [datasets.PARTS]),
        ("MODEL.ROI_DENSEPOSE_HEAD.NUM_COARSE_SEGM_CHANNELS", head.NUM_COARSE_SEGM_CHANNELS, [2, 15]),
        ("MODEL.ROI_DENSEPOSE_HEAD.HEATMAP_SIZE", head.HEATMAP_SIZE, [grid]),
    ):
        if found not in expected:
            raise ValueError(
                f"expected {key} {' or '.join(map(str, expected))}, found {found!r}: leave it as it is (no other head of DensePose is "
                "here, and its map has twice UP_SCALE cells a side for each of the pooled ones)"
            )


def _build(cfg: CfgNode, task: Detection) -> None:
    """Builds what a run builds, the network without numbers in its tensors; raises what detectron2 raises."""
    _schedule(cfg, task, 10**9)
    with torch.device("meta"):
        model = network(cfg)
    build_lr_scheduler(cfg, build_optimizer(cfg, model))
    for train in (True, False):
        DatasetMapper(cfg, train)  # which DensePose's is, too


def _schedule(cfg: CfgNode, task: Detection, images: int) -> None:
    """Puts the iterations and steps of a training on so many images into the configuration."""
    cfg.SOLVER.MAX_ITER, steps = iterations(task, images)
    cfg.SOLVER.STEPS = tuple(sorted({s for s in steps if s < cfg.SOLVER.MAX_ITER}))


def resolved(task: Detection, arch: str = "resnet50", traits: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every detectron2 key of the protocol on this backbone that differs from detectron2's default, flat."""
    default = dict(_flat(_defaults()))
    return {k: v for k, v in sorted(_flat(configuration(task, arch, traits))) if v != default[k]}


def _flat(cfg: CfgNode, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, json.loads(json.dumps(value))


def network(cfg: CfgNode) -> GeneralizedRCNN:
    """detectron2's R-CNN of a configuration, built without its registry, where the extra-norm head and DensePose's have no place."""
    backbone = build_backbone(cfg)
    maps = backbone.output_shape()
    proposals = build_proposal_generator(cfg, maps)
    own = {heads.__name__: heads for heads in (Res5ROIHeadsExtraNorm, DensePoseROIHeads)}
    heads = own.get(cfg.MODEL.ROI_HEADS.NAME, build_roi_heads)(cfg, maps)
    if cfg.MODEL.MASK_ON:
        heads.mask_head.__class__ = OneMaskHead  # of the same layers, drawn from the same seed
    return GeneralizedRCNN(
        backbone=backbone,
        proposal_generator=proposals,
        roi_heads=heads,
        input_format=cfg.INPUT.FORMAT,
        pixel_mean=cfg.MODEL.PIXEL_MEAN,
        pixel_std=cfg.MODEL.PIXEL_STD,
    )


def load(model: GeneralizedRCNN, tensors: Tensors | None) -> dict[str, Any]:
    """Puts a backbone's tensors (torchvision's names) into the network, and the layers of a neck or head that came with it and
    that the network has (weights.DETECTOR); None leaves it random.

    Returns matched: how many landed, missing: the network's tensors that stay new, unused: counters of batches that a frozen
    norm has no place for, and tensors of layers that this network has not or has otherwise. Raises ValueError if a tensor of the
    backbone has no place, or a place no tensor.
    """
    own = model.state_dict()
    if tensors is None:
        return {"matched": 0, "missing": sorted(own), "unused": []}
    trunk = "backbone.bottom_up." if any(k.startswith("backbone.bottom_up.") for k in own) else "backbone."
    backbone, detector = separated(tensors)
    landed, lost = {}, []
    for name, tensor in to_detectron2(backbone).items():
        place = trunk + name if trunk + name in own else "roi_heads." + name
        if place not in own:
            lost.append(name)
        elif own[place].shape != tensor.shape:
            raise ValueError(
                f"expected {place} of shape {tuple(own[place].shape)}, found {tuple(tensor.shape)}: is this the right --arch?"
            )
        else:
            landed[place] = tensor
    counters = [name for name in lost if name.endswith("num_batches_tracked")]
    if len(counters) < len(lost):
        raise ValueError(
            f"expected a place for every tensor of the backbone, found none for {len(lost)} of them, "
            f"{min(set(lost) - set(counters))} the first: is this the right --arch?"
        )
    landed |= fitting(detector, own)
    missing = sorted(own.keys() - landed.keys())
    backbones = (trunk + "stem.", trunk + "res", *(f"roi_heads.res5.{i}." for i in range(9)))
    if empty := [k for k in missing if k.startswith(backbones) and not k.endswith("num_batches_tracked")]:
        raise ValueError(
            f"expected every layer of the backbone in the checkpoint, found {len(empty)} without a tensor, {empty[0]} the first"
        )
    model.load_state_dict(landed, strict=False)
    return {
        "matched": len(landed),
        "missing": missing,
        "unused": sorted(counters) + sorted(detector.keys() - landed.keys()),
    }


def features(
    tensors: Tensors, arch: str, image: torch.Tensor, traits: Mapping[str, Any] | None = None
) -> list[torch.Tensor]:
    """The maps res2, res3, res4, res5 of detectron2's ResNet with these weights.

    image: [N, 3, H, W] float, normalised, in the checkpoint's channel order
    """
    plan = resnets.arch(arch)
    plain = str(dataclasses.replace(plan, deep=False))
    asked = {**(traits or {}), "stem": "7x7"}
    cfg = configuration(
        Detection(name="features", cite="", metrics=(), settings={"MODEL.BACKBONE.FREEZE_AT": 0}), plain, asked
    )
    stages = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.RESNETS.OUT_FEATURES = "BN", stages
    with torch.device("meta"):  # no random numbers for weights that are replaced at once
        backbone = build_backbone(cfg)
        if plan.deep:
            from detectron2.projects.deeplab.resnet import DeepLabStem

            backbone.stem = DeepLabStem(out_channels=64 * plan.width, norm="BN")
    backbone.to_empty(device="cpu").eval()
    land(backbone, to_detectron2(tensors), f"detectron2's {arch}")
    with torch.no_grad():
        maps = backbone(image)
    return [maps[stage] for stage in stages]


def found(task: Detection, data: Path) -> dict[str, Any]:
    """train: images to train on, test: images to test on, splits: images in each split, digest: sha256 of the annotations.

    Raises FileNotFoundError or ValueError for data that is missing or wrong.
    """
    cfg = configuration(task)
    _measurable(task, cfg)
    if cfg.MODEL.DENSEPOSE_ON:
        surface.symmetries(data)
        for name in surface.EVALUATED:
            surface.present(data, name)
    splits = {
        name: datasets.records(name, data, cfg.MODEL.MASK_ON) for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    }
    usable = {}
    for purpose, names, longest in (
        ("train", cfg.DATASETS.TRAIN, cfg.INPUT.MAX_SIZE_TRAIN),
        ("test", cfg.DATASETS.TEST, cfg.INPUT.MAX_SIZE_TEST),
    ):
        images = [r for name in names for r in splits[name]]
        usable[purpose] = len(_usable(cfg, images))
        if not usable[purpose]:
            raise ValueError(f"expected objects to {purpose} on in {', '.join(names)} of {data}, found none")
        _resizable(images, longest)
    return {
        "train": usable["train"],
        "test": sum(len(splits[name]) for name in cfg.DATASETS.TEST),
        "splits": {name: len(images) for name, images in splits.items()},
        "digest": datasets.digest(*splits.values()),
    }


def _resizable(images: Sequence[datasets.Record], longest: int) -> None:
    """Raises ValueError that names an image of whose shorter side nothing is left where the longer one has so many pixels."""
    for image in images:
        width, height = image["width"], image["height"]
        if max(width, height) > 2 * longest * min(width, height):
            raise ValueError(
                f"expected images of which something is left at {longest} pixels of the longer side, found {width}x{height} in "
                f"{image['file_name']}: leave it out"
            )


def _measurable(task: Detection, cfg: CfgNode) -> None:
    """Raises ValueError where the evaluation would not give the task's metrics, or the network has another number of classes."""
    given = {kind for name in cfg.DATASETS.TEST for kind in _kinds(cfg, name)}
    # APbb: boxes; APkp: keypoints; APdp: DensePose; APmk and LVIS's APr, APc and APf: masks; plain AP: VOC's boxes
    kinds = {"bb": "bbox", "kp": "keypoints", "dp": "densepose", "": "voc"}
    needed = {m: kinds.get(m[2:].rstrip("0123456789"), "segm") for m in task.metrics}
    if missing := [metric for metric, kind in needed.items() if kind not in given]:
        raise ValueError(
            f"expected a protocol that measures {', '.join(missing)}, found DATASETS.TEST {list(cfg.DATASETS.TEST)}, MODEL.MASK_ON "
            f"{cfg.MODEL.MASK_ON}, MODEL.KEYPOINT_ON {cfg.MODEL.KEYPOINT_ON} and MODEL.DENSEPOSE_ON {cfg.MODEL.DENSEPOSE_ON}, which do "
            "not: take another task"
        )
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        if datasets.classes(name) != cfg.MODEL.ROI_HEADS.NUM_CLASSES:
            raise ValueError(
                f"expected the {datasets.classes(name):,} classes of {name}, found MODEL.ROI_HEADS.NUM_CLASSES "
                f"{cfg.MODEL.ROI_HEADS.NUM_CLASSES}: leave it, or take another task"
            )


def _kinds(cfg: CfgNode, name: str) -> list[str]:
    """What is measured on a test split: "voc", "densepose", or some of "bbox", "segm" and "keypoints"."""
    if name.startswith(("voc", "densepose")):
        return [name.partition("_")[0]]
    boxes = not cfg.MODEL.KEYPOINT_ON and not name.startswith("cityscapes")
    kinds = {"bbox": boxes, "segm": cfg.MODEL.MASK_ON, "keypoints": cfg.MODEL.KEYPOINT_ON}
    return [kind for kind, wanted in kinds.items() if wanted]


def _usable(cfg: CfgNode, images: Sequence[datasets.Record]) -> list[datasets.Record]:
    """The images that detectron2 trains on."""
    keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
    return datasets.trainable(images, keypoints, cfg.MODEL.DENSEPOSE_ON)


def blank(task: Detection, arch: str) -> GeneralizedRCNN:
    """The network of a protocol without numbers in its tensors, its synchronised norms as plain ones."""
    cfg = configuration(task, arch)
    _trained_norm(cfg, 1, torch.device("cpu"))
    with torch.device("meta"):
        return network(cfg)


def macs(task: Detection, arch: str) -> dict[str, float]:
    """Multiply-accumulates per image: train (forward and backward, taken as three forwards) and test. Rough: convolutions and
    linear layers of trunk, RPN and heads for a 4:3 image with all its RoIs, a quarter of them (training) or 100 (test) with masks,
    keypoints or surfaces.
    """
    cfg = configuration(task, arch)
    model = blank(task, arch)
    sides = cfg.INPUT.MIN_SIZE_TRAIN
    rois = cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE
    tested = cfg.MODEL.RPN.POST_NMS_TOPK_TEST
    kept = cfg.TEST.DETECTIONS_PER_IMAGE
    masked = tested if kept < 0 else min(tested, kept)  # detectron2 keeps all by -1
    return {
        "train": 3.0 * _forward_macs(cfg, model.train(), sides[len(sides) // 2] or AS_IT_IS, rois, rois // 4),
        "test": float(_forward_macs(cfg, model.eval(), cfg.INPUT.MIN_SIZE_TEST or AS_IT_IS, tested, masked)),
    }


def _forward_macs(cfg: CfgNode, model: GeneralizedRCNN, side: int, rois: int, masks: int) -> int:
    heads = model.roi_heads
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        height, width = (math.ceil(n / 32) * 32 for n in (side, side * 4 / 3))
        maps = model.backbone(torch.empty(1, 3, height, width, device="meta"))
        model.proposal_generator.rpn_head([maps[name] for name in model.proposal_generator.in_features])
        channels = maps[cfg.MODEL.ROI_HEADS.IN_FEATURES[0]].shape[1]

        def pooled(count: int, grid: int) -> torch.Tensor:
            return torch.empty(count, channels, grid, grid, device="meta")

        grid = cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION
        if hasattr(heads, "res5"):
            hidden = heads.res5(pooled(rois, grid))
            heads.box_predictor(hidden.mean(dim=[2, 3]))
            masked = hidden[:masks]
        else:
            heads.box_predictor(heads.box_head(pooled(rois, grid)))
            masked = pooled(masks, cfg.MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION)
        if cfg.MODEL.MASK_ON:
            heads.mask_head.layers(masked, None if model.training else masked.new_zeros(len(masked), dtype=torch.long))
        if cfg.MODEL.KEYPOINT_ON:
            heads.keypoint_head.layers(pooled(masks, cfg.MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION))
        if cfg.MODEL.DENSEPOSE_ON:
            hidden = heads.densepose_head(pooled(masks, cfg.MODEL.ROI_DENSEPOSE_HEAD.POOLER_RESOLUTION))
            heads.densepose_predictor(hidden)
    return counter.get_total_flops() // 2


def run(
    task: Detection,
    tensors: Tensors | None,
    traits: Mapping[str, Any] | None,
    arch: str,
    data: Path,
    out: Path,
    seed: int,
    resume: bool = False,
    keep: bool = False,
) -> dict[str, Any]:
    """One trial: fine-tunes the backbone (random if None) by the protocol and tests it; with `keep`, returns the network's tensors too.

    Returns metrics (percent), loaded, effective (batch, lr, iterations, norm, world_size, precision) and seconds (train,
    test); writes loaded.json, log.jsonl, tensorboard/, metrics.json (and in it "trained", the fingerprint of the trained
    network) and last.pth into `out`, from which `resume` goes on. Under torchrun every process calls it and gets the same
    answer. Raises FloatingPointError if the loss is not finite.
    """
    _quiet()
    device = place().device
    world = comm.get_world_size()
    cfg = configuration(task, arch, traits)
    train = _usable(cfg, [r for name in cfg.DATASETS.TRAIN for r in datasets.records(name, data)])
    tests = {name: datasets.records(name, data) for name in cfg.DATASETS.TEST}
    _schedule(cfg, task, len(train))
    cfg.SEED = seed
    share(cfg.SOLVER.IMS_PER_BATCH, world)
    norm = _trained_norm(cfg, world, device)
    seed_all_rng(seed + comm.get_rank())
    # The network is drawn from the seed alone, so that every process starts from the same one.
    torch.manual_seed(seed)
    model = network(cfg)
    loaded = load(model, tensors)
    model.to(device)
    if task.precision == "bf16":
        _bf16(model, device)
    torch.manual_seed(seed + comm.get_rank())
    mapper = _mapper(cfg, data)
    main = comm.is_main_process()
    if main:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "loaded.json", loaded)
    identity = _identity(task, arch, seed, world, tensors, train)
    decode = functools.partial(_decoded, cfg.INPUT.FORMAT)
    tested = [*itertools.chain.from_iterable(tests.values())]
    train, skipped = broken.preflight(train, tested, decode, task.skip_bad, place(), task.name)
    trainer = _Training(cfg, model, train, mapper, out, device, identity, task.name, task.accumulate)
    seconds = {"train": trainer.run(resume)}
    start = time.monotonic()
    metrics: dict[str, float] = {}
    for name, images in tests.items():
        metrics |= _test(cfg, model, name, images, data, TOGETHER if task.precision == "bf16" else 0)
    seconds["test"] = time.monotonic() - start
    chosen = {name: voc.choices(_year(name)) for name in tests if name.startswith("voc")}
    result = {
        "metrics": {name: metrics[name] for name in task.metrics},
        "loaded": loaded,
        "effective": effective(task, cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_ITER, norm, world, skipped)
        | ({"evaluation": chosen} if chosen else {}),
        "seconds": {k: round(v, 1) for k, v in seconds.items()},
    }
    if main:
        write_json(out / "metrics.json", result | {"trained": fingerprint(model.state_dict())})
    comm.synchronize()
    return result | ({"network": model.state_dict()} if keep else {})


def class_names(task: Detection, data: Path) -> list[str]:
    """The names of the classes that the network tells apart, in its order."""
    name = configuration(task).DATASETS.TEST[0]
    if name.startswith("lvis"):
        return MetadataCatalog.get(name).thing_classes
    names = {
        "voc": datasets.VOC_CLASSES,
        "coco": datasets.COCO_CLASSES,
        "cityscapes": [*datasets.CITYSCAPES_CLASSES.values()],
    }
    return names.get(name.partition("_")[0], ["person"])


def predictions(
    task: Detection, about: Mapping[str, Any], tensors: Tensors, images: Sequence[Path]
) -> Iterator[tuple[dict[str, Any], Image.Image]]:
    """Of each image its objects as COCO writes them, "class" by name, and a picture with those of score `DRAWN` and more.

    about: "arch" and "traits"
    tensors: the trained network's

    Raises ValueError for tensors of another network and for a file that is no image.
    """
    _quiet()
    device = place().device
    cfg = configuration(task, about["arch"], about["traits"])
    _trained_norm(cfg, 1, device)
    model = network(cfg)
    land(model, tensors, "the network")
    model.to(device)
    if task.precision == "bf16":
        _bf16(model, device)
    records, names = [], dict(enumerate(class_names(task, Path())))
    for number, file in enumerate(images):
        height, width, _ = _decoded("RGB", {"file_name": str(file)}).shape
        records.append({"file_name": str(file), "image_id": number, "height": height, "width": width})
    _resizable(records, cfg.INPUT.MAX_SIZE_TEST)
    found = _predictions(cfg, model, "the photographs", records, TOGETHER if task.precision == "bf16" else 0)
    for number, boxes, scores, classes, masks, points, _ in found:
        objects = [
            {
                "class": names.get(int(label), str(label)),
                "score": float(score),
                "bbox": [float(v) for v in (x, y, x2 - x, y2 - y)],
            }
            for (x, y, x2, y2), score, label in zip(boxes, scores, classes, strict=True)
        ]
        if masks is not None:
            objects = [each | {"segmentation": mask} for each, mask in zip(objects, masks, strict=True)]
        if points is not None:
            objects = [each | {"keypoints": _pixels(own)} for each, own in zip(objects, points, strict=True)]
        clear = scores >= DRAWN
        drawn = Visualizer(_decoded("RGB", records[number])).overlay_instances(
            boxes=boxes[clear],
            labels=[f"{o['class']} {o['score']:.0%}" for o in objects if o["score"] >= DRAWN],
            masks=None if masks is None else [mask for mask, kept in zip(masks, clear, strict=True) if kept],
            keypoints=None if points is None else points[clear],
        )
        yield {"objects": objects}, Image.fromarray(drawn.get_image())


def _quiet() -> None:
    """Keeps detectron2's chatter, and torch's complaints about its code, off the terminal."""
    for name in ("detectron2", "fvcore", "torch.fx"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", message="torch.meshgrid")
    warnings.filterwarnings("ignore", message="Creating a tensor from a list of numpy.ndarrays")  # keypoints


def _trained_norm(cfg: CfgNode, world: int, device: torch.device) -> str:
    """Replaces the norms that this machine cannot run and returns the backbone's, in words.

    Synchronised BN of a single process is BN; torch's SyncBatchNorm has no CPU code, so detectron2's naiveSyncBN stands in.
    """
    protocol = cfg.MODEL.RESNETS.NORM
    if world > 1 and device.type != "cpu":
        return protocol
    for node in (cfg.MODEL.RESNETS, cfg.MODEL.FPN, cfg.MODEL.ROI_BOX_HEAD, cfg.MODEL.ROI_MASK_HEAD):
        if node.NORM in SYNCHRONISED:
            node.NORM = "BN" if world == 1 else "naiveSyncBN"
    trained = cfg.MODEL.RESNETS.NORM
    return (
        trained
        if trained == protocol
        else f"{trained} ({protocol} in {'one process' if world == 1 else 'CPU processes'})"
    )


def _bf16(model: GeneralizedRCNN, device: torch.device) -> None:
    """Runs the trunk and the heads' hidden layers in bf16. Predictions, boxes, pooling and losses stay fp32: bf16 has 8 bits,
    which is 1 pixel at 200, and makes ties of scores."""

    def narrow(owner: Any, name: str = "forward") -> None:
        inner = torch.autocast(device.type, dtype=torch.bfloat16)(getattr(owner, name))
        setattr(owner, name, lambda *args: _floats(inner(*args)))

    narrow(model.backbone)
    narrow(model.proposal_generator.rpn_head.conv)
    heads = model.roi_heads
    narrow(heads.res5 if hasattr(heads, "res5") else heads.box_head)
    if hasattr(heads, "mask_head"):
        narrow(heads.mask_head, "layers")
    # a keypoint is the peak of a map, a part of the body the largest of 25: the layers that draw them stay fp32
    for name in ("keypoint_head", "densepose_head"):
        for layer in getattr(heads, name, ()):
            if isinstance(layer, nn.Conv2d):
                narrow(layer)
    if hasattr(heads, "keypoint_head"):
        draw = heads.keypoint_head.layers
        heads.keypoint_head.layers = lambda x: draw(x).contiguous()  # detectron2 views it, which channels last forbids
    for module in model.modules():
        if isinstance(module, NaiveSyncBatchNorm):  # takes the variance as a difference of means
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    if device.type == "cpu":
        model.to(memory_format=torch.channels_last)
        small_maps.dense(model)
        for module in model.modules():
            if isinstance(module, ROIAlign):
                module.forward = functools.partial(roi_align, module, module.forward)


def roi_align(layer: ROIAlign, inner: Callable[..., torch.Tensor], x: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
    """What ROIAlign pools, [R, C, P, P], by products of matrices: torchvision's backward pass on the CPU has one thread.

    A bin is the mean of samples at crossings of rows and columns, and bilinear weights are a row's times a column's, so a RoI
    is rows [P, H] times map times columns [W, P]. Large maps, for which the products between would take much memory, and RoIs
    that are not in the order of their images are left to torchvision.

    x:     [N, C, H, W], channels last
    rois:  [R, 5] image, x1, y1, x2, y2 in the image
    inner: the layer's own forward
    """
    n, c, h, w = x.shape
    of = rois[:, 0].long()
    if not layer.aligned or len(rois) * layer.output_size[0] * w * c > PRODUCTS or (of[1:] < of[:-1]).any():
        return inner(x, rois)
    x1, y1, x2, y2 = (rois[:, 1:] * layer.spatial_scale - 0.5).T
    shares = of.bincount(minlength=n).tolist()
    rows = _bilinear(y1, y2, layer.output_size[0], layer.sampling_ratio, h).split(shares)
    columns = _bilinear(x1, x2, layer.output_size[1], layer.sampling_ratio, w).split(shares)
    pooled = [
        torch.einsum("rjw,riwc->rijc", by_column, torch.einsum("rih,hwc->riwc", by_row, image))
        for by_row, by_column, image in zip(rows, columns, x.permute(0, 2, 3, 1).unbind(), strict=True)
    ]
    return torch.cat(pooled).permute(0, 3, 1, 2)


def _bilinear(low: torch.Tensor, high: torch.Tensor, bins: int, samples: int, length: int) -> torch.Tensor:
    """The weight of each cell of an axis in each bin of a RoI, [R, bins, length].

    low, high: [R] where the RoI begins and ends; samples: of a bin, 0 for one a cell or more
    """
    size = (high - low)[:, None, None] / bins
    count = size.ceil() if samples == 0 else torch.full_like(size, samples)
    sample = torch.arange(max(1, int(count.max())) if len(low) else 1)
    at = low[:, None, None] + (torch.arange(bins)[:, None] + (sample + 0.5) / count.clamp(min=1)) * size
    counted = (sample < count) & (at >= -1) & (at <= length)
    near = (1 - (at.clamp(0, length - 1)[..., None] - torch.arange(length)).abs()).clamp(min=0)
    return (near * counted[..., None]).sum(2) / count.clamp(min=1)


def _floats(value: Any) -> Any:
    return {k: v.float() for k, v in value.items()} if isinstance(value, dict) else value.float()


def _identity(
    task: Detection, arch: str, seed: int, world: int, tensors: Tensors | None, train: Sequence
) -> dict[str, Any]:
    """What a checkpoint must have in common with the run that goes on from it."""
    return {
        "protocol": digest(task),
        "arch": arch,
        "seed": seed,
        "processes": world,
        "weights": fingerprint(tensors),
        "data": datasets.digest(train),
    }


class _Images(Dataset):
    """Training images by (position in the stream, index); the position decides how an image is augmented."""

    def __init__(self, cfg: CfgNode, images: list[datasets.Record], mapper: DatasetMapper):
        self.images = DatasetFromList(images, copy=False)
        self.mapper = mapper
        self.seed = [cfg.SEED, comm.get_rank()]

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        position, index = key
        with _DRAWING:
            np.random.seed([*self.seed, position])  # detectron2's augmentations draw from numpy's global generator
            return mapped(self.mapper, self.images[index])


class DensePoseMapper(DatasetMapper):
    """detectron2's mapper, which also gives each person `gt_person`, its number, `points` [P, 5] x, y, part, U, V and `parts`
    [256, 256]; the points and parts of a person nobody marked are 0, and a flip changes left and right."""

    def __init__(self, cfg: CfgNode, symmetry: np.ndarray):
        super().__init__(cfg, is_train=True)
        self.symmetry = symmetry

    def _transform_annotations(self, dataset_dict: dict, transforms: TransformList, image_shape: tuple) -> None:
        people = [person for person in dataset_dict.pop("annotations") if not person["iscrowd"]]
        flipped = sum(isinstance(step, HFlipTransform) for step in transforms.transforms) % 2 == 1
        marked = [densepose.marks(person, self.symmetry if flipped else None) for person in people]
        plain = [{key: person[key] for key in ("bbox", "bbox_mode", "category_id")} for person in people]
        moved = [detection_utils.transform_instance_annotations(one, transforms, image_shape) for one in plain]
        instances = detection_utils.annotations_to_instances(moved, image_shape)
        instances.points = nn.utils.rnn.pad_sequence([points for points, _ in marked], batch_first=True)
        instances.parts = torch.stack([parts for _, parts in marked])
        instances = detection_utils.filter_empty_instances(instances)
        instances.gt_person = torch.arange(len(instances))
        dataset_dict["instances"] = instances


def _mapper(cfg: CfgNode, data: Path) -> DatasetMapper:
    """What makes a training image of a record."""
    if cfg.MODEL.DENSEPOSE_ON:
        return DensePoseMapper(cfg, surface.symmetries(data))
    return DatasetMapper(cfg, is_train=True)


_DRAWING = threading.Lock()  # one image at a time has numpy's global generator


def mapped(mapper: DatasetMapper, image: datasets.Record) -> Any:
    """What detectron2's mapper makes of an image. Raises ValueError that names the file of a broken one."""
    try:
        _undamaged(image["file_name"])
        return mapper(image)
    except Exception:  # of the file, or of what is made of it
        _decoded(mapper.image_format, image)
        raise


def _undamaged(file: str) -> None:
    """Raises what PIL raises for a damaged PNG. detectron2 takes one: its look for EXIF reads the file and passes over the error,
    and what is decoded then is the part before the damage."""
    with Image.open(file) as picture:
        if picture.format == "PNG":
            picture.load()


def _decoded(channels: str, image: datasets.Record) -> np.ndarray:
    """[H, W, 3] uint8: an image as training reads it. Raises ValueError that names the file of a broken one."""
    try:
        _undamaged(image["file_name"])
        pixels = detection_utils.read_image(image["file_name"], channels)
        detection_utils.check_image_size(image, pixels)
        return pixels
    except MemoryError:
        raise
    except Exception as error:  # PIL's decoders raise all sorts of things, detectron2 for other sizes than annotated
        reason = " ".join(str(error).split())
        raise ValueError(
            f"expected a readable image, found a broken or foreign file: {image['file_name']} ({reason:.200}); fetch it again"
        ) from None


def batches(
    images: Sequence[datasets.Record], size: int, seed: int, grouped: bool = True, repeats: torch.Tensor | None = None
) -> Iterator[list[tuple[int, int]]]:
    """Endless batches of (position, index) for this process, as detectron2 composes them: shuffled passes over the images,
    wide and tall images in batches of their own if `grouped`; an image appears `repeats` times in a pass, on average."""
    buckets: tuple[list, list] = ([], [])
    sampler = TrainingSampler(len(images), seed=seed)
    if repeats is not None:
        sampler = RepeatFactorTrainingSampler(repeats, seed=seed)
    for position, index in enumerate(sampler):
        bucket = buckets[grouped and images[index]["width"] <= images[index]["height"]]
        bucket.append((position, index))
        if len(bucket) == size:
            yield bucket[:]
            bucket.clear()


def repeat_factors(cfg: CfgNode, images: list[datasets.Record]) -> torch.Tensor | None:
    """How often each image is seen in a pass, [images], so that rare classes are not (LVIS, arXiv 1908.03195, appendix B.2);
    None where every image is seen once."""
    loader = cfg.DATALOADER
    if loader.SAMPLER_TRAIN == "TrainingSampler":
        return None
    factors = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency
    return factors(images, loader.REPEAT_THRESHOLD, sqrt=loader.REPEAT_SQRT)


class _Training:
    """The training loop, its checkpoints and its log."""

    def __init__(
        self,
        cfg: CfgNode,
        model: GeneralizedRCNN,
        images: list[datasets.Record],
        mapper: DatasetMapper,
        out: Path,
        device: torch.device,
        identity: dict[str, Any],
        name: str,
        accumulate: int = 1,
    ):
        self.accumulate, self.mapper = accumulate, mapper
        self.name, self.cfg, self.model, self.images, self.out, self.identity = name, cfg, model, images, out, identity
        self.total, self.batch = cfg.SOLVER.MAX_ITER, cfg.SOLVER.IMS_PER_BATCH
        self.workers = 0 if device.type == "cpu" else cfg.DATALOADER.NUM_WORKERS
        self.parallel: nn.Module = model
        if comm.get_world_size() > 1:
            self.parallel = DistributedDataParallel(
                model, device_ids=[device.index] if device.type == "cuda" else None, broadcast_buffers=False
            )
        self.optimizer = build_optimizer(cfg, model)
        self.scheduler = build_lr_scheduler(cfg, self.optimizer)
        self.watch = Watch(out, self.batch, self.total, SAVE_SECONDS, device)

    def run(self, resume: bool) -> float:
        """Trains to the end, takes the norms' statistics, and returns the seconds that all of it took."""
        iteration, before = self._resumed() if resume else (0, 0.0)
        if resume:
            agreed(self.out / checkpoint.LAST, f"iteration {iteration}")
        elif comm.is_main_process():
            checkpoint.remove(self.out)
        start = time.monotonic()
        self.model.train()
        log, quiet = self.out / "log.jsonl", not comm.is_main_process()
        progress = Progress(self.name, self.total, self.batch, iteration, log, quiet)
        with progress, EventStorage(iteration) as storage, self.watch:
            for inputs in itertools.islice(self._loader(iteration), self.total - iteration):
                losses = self._step(inputs, iteration)
                iteration += 1
                storage.step()
                progress.step(iteration, losses, self.optimizer.param_groups[0]["lr"])
                self.scheduler.step()
                if self.watch.due(iteration):
                    self._save(iteration, before + time.monotonic() - start)
                self.watch.pass_on(iteration)
        if self.cfg.TEST.PRECISE_BN.ENABLED:
            self._precise_bn()
        return before + time.monotonic() - start

    def _step(self, inputs: list[dict], iteration: int) -> dict[str, float]:
        lr, parts = self.optimizer.param_groups[0]["lr"], in_parts(inputs, self.accumulate)
        values: dict[str, float] = {}
        self.optimizer.zero_grad()
        for part in parts:
            weight = len(part) / len(inputs)
            with unsynchronised(self.parallel, part is parts[-1]):
                try:
                    losses = {k: v * weight for k, v in self.parallel(part).items()}
                    total = sum(losses.values())
                    found = {"loss": float(total.detach())} | {k: float(v.detach()) for k, v in losses.items()}
                except FloatingPointError:  # of the RPN; others may wait for this one in a norm of the heads
                    raise self.watch.diverged(str(math.nan), iteration, lr) from None
                self.watch.look(found["loss"] / weight, iteration, lr)
                total.backward()
            values = {k: values.get(k, 0.0) + v for k, v in found.items()}
        self.optimizer.step()
        return values

    def _loader(self, skip: int = 0) -> Iterator[list[dict]]:
        size = self.batch // comm.get_world_size()
        grouped = self.cfg.DATALOADER.ASPECT_RATIO_GROUPING
        stream = batches(self.images, size, self.cfg.SEED, grouped, repeat_factors(self.cfg, self.images))
        images, wanted = _Images(self.cfg, self.images, self.mapper), itertools.islice(stream, skip, None)
        if not self.workers:
            return ahead(lambda keys: [images[key] for key in keys], wanted, depth=2)
        return iter(
            DataLoader(
                images,
                batch_sampler=wanted,
                num_workers=self.workers,
                collate_fn=list,
                worker_init_fn=deaf,
                generator=torch.Generator(),  # leaves the global one alone, which a checkpoint restores
            )
        )

    def _precise_bn(self) -> None:
        layers = get_bn_modules(self.model)
        if not layers:
            return
        parts = (part for inputs in self._loader() for part in in_parts(inputs, self.accumulate))
        each = min(self.accumulate, self.batch // comm.get_world_size())  # parts of a batch
        with EventStorage():
            update_bn_stats(self.parallel, parts, self.cfg.TEST.PRECISE_BN.NUM_ITER * each)
        if comm.get_world_size() > 1:
            for layer in layers:
                for statistic in (layer.running_mean, layer.running_var):
                    torch.distributed.all_reduce(statistic)
                    statistic /= comm.get_world_size()

    def _save(self, iteration: int, seconds: float) -> None:
        cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
        states = comm.gather({"cpu": torch.get_rng_state(), "cuda": cuda})
        if not comm.is_main_process():
            return
        content = {
            "origin": self.identity,
            "iteration": iteration,
            "seconds": seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "random": states,
        }
        checkpoint.save(self.out, content)

    def _resumed(self) -> tuple[int, float]:
        content = checkpoint.load(self.out, self.identity)
        if content is None:
            return 0, 0.0
        self.model.load_state_dict(content["model"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.scheduler.load_state_dict(content["scheduler"])
        state = content["random"][comm.get_rank()]
        torch.set_rng_state(state["cpu"])
        if state["cuda"] is not None:
            torch.cuda.set_rng_state(state["cuda"])
        return content["iteration"], content["seconds"]


def _test(
    cfg: CfgNode, model: GeneralizedRCNN, name: str, images: list[datasets.Record], data: Path, together: int = 0
) -> dict[str, float]:
    """Metrics of the network on a test split, in percent, the same in every process.

    together: pixels of images that are tested at a time where they are of one size; 0 tests one image at a time
    """
    kept = _predictions(cfg, model, name, [images[i] for i in InferenceSampler(len(images))], together)
    # one process gets them all and evaluates: those of LVIS take gigabytes in each
    everything = itertools.chain.from_iterable(comm.gather(kept))
    metrics = _evaluated(cfg, name, images, data, list(everything)) if comm.is_main_process() else {}
    return comm.all_gather(metrics)[0]


def _year(name: str) -> int:
    return int(name.split("_")[1])


def _evaluated(
    cfg: CfgNode, name: str, images: list[datasets.Record], data: Path, everything: list[tuple[Any, ...]]
) -> dict[str, float]:
    """Metrics of what was found in the images of a test split, as `_predictions` gives it."""
    if name.startswith("voc"):
        predictions = {image_id: (boxes, scores, classes) for image_id, boxes, scores, classes, *_ in everything}
        return voc.evaluate(predictions, images, cfg.MODEL.ROI_HEADS.NUM_CLASSES, _year(name))
    if name.startswith("cityscapes"):
        shapes = {image_id: (masks, scores, classes) for image_id, _, scores, classes, masks, *_ in everything}
        return cityscapes.evaluate(shapes, images)
    if name.startswith("densepose"):
        people = {
            image_id: (_corners(boxes), scores, list(map(_picture, charts)))
            for image_id, boxes, scores, *_, charts in everything
        }
        return similarity.evaluate(people, datasets.annotation_file(name, data), surface.body(data))
    detections = list(itertools.chain.from_iterable(_coco_results(name, *image) for image in everything))
    metrics: dict[str, float] = {}
    for kind in _kinds(cfg, name):
        evaluate = lvis.evaluate if name.startswith("lvis") else coco.evaluate
        metrics |= evaluate(detections, datasets.annotation_file(name, data), kind)
    return metrics


def _predictions(
    cfg: CfgNode, model: GeneralizedRCNN, name: str, images: list[datasets.Record], together: int
) -> list[tuple[Any, ...]]:
    """What the network finds in each image: image_id, boxes, scores, classes and, of each kind or None, encoded masks, keypoints and
    encoded charts."""
    mapper, found = DatasetMapper(cfg, is_train=False), {}
    pixels = cfg.INPUT.MIN_SIZE_TEST * cfg.INPUT.MAX_SIZE_TEST  # 0: of images as they are
    size = max(1, together // pixels) if pixels else 1
    inputs = ahead(lambda batch: [mapped(mapper, image) for image in batch], _alike(images, size), depth=2)
    model.eval()
    progress = Progress(f"testing on {name}", len(images), quiet=not comm.is_main_process())
    # Weights that autocast has narrowed are kept until the outermost autocast ends, which is this one.
    with torch.inference_mode(), torch.autocast(model.device.type, enabled=False), progress:
        for batch in inputs:
            for image, output in zip(batch, model(batch), strict=True):
                found[image["image_id"]] = _plain(output["instances"], cfg)
                progress.step(len(found))
    return [(image["image_id"], *found[image["image_id"]]) for image in images]


def _alike(images: list[datasets.Record], size: int) -> Iterator[list[datasets.Record]]:
    """All images, in batches of `size` or fewer that have one width and height."""
    buckets: dict[tuple[int, int], list[datasets.Record]] = {}
    for image in images:
        bucket = buckets.setdefault((image["width"], image["height"]), [])
        bucket.append(image)
        if len(bucket) == size:
            yield bucket[:]
            bucket.clear()
    yield from (bucket for bucket in buckets.values() if bucket)


def _plain(objects: Instances, cfg: CfgNode) -> tuple[Any, ...]:
    charts = None
    if objects.has("pred_densepose"):
        objects = objects[objects.scores.argsort(descending=True, stable=True)[: similarity.DETECTIONS]]
        larger = cfg.MODEL.ROI_DENSEPOSE_HEAD.NUM_COARSE_SEGM_CHANNELS
        charts = list(map(_png, densepose.charts(objects.pred_densepose, objects.pred_boxes.tensor, larger)))
        objects.remove("pred_densepose")
    objects = objects.to("cpu")
    masks = _encoded(objects.pred_masks.numpy()) if objects.has("pred_masks") else None
    points = objects.pred_keypoints.numpy() if objects.has("pred_keypoints") else None
    boxes, scores, classes = objects.pred_boxes.tensor, objects.scores, objects.pred_classes
    return boxes.numpy(), scores.numpy(), classes.numpy(), masks, points, charts


def _png(chart: np.ndarray) -> np.ndarray:
    """A picture [H, W, 3] in few bytes: a test split's are gigabytes as they are."""
    done, content = cv2.imencode(".png", chart)
    assert done
    return content


def _picture(png: np.ndarray) -> np.ndarray:
    return cv2.imdecode(png, cv2.IMREAD_COLOR)


def _encoded(masks: np.ndarray) -> list[dict[str, Any]]:
    """Masks [K, H, W] as COCO's run lengths."""
    return [
        m | {"counts": m["counts"].decode()}
        for m in mask_tools.encode(np.asfortranarray(masks.transpose(1, 2, 0), np.uint8))
    ]


def _coco_results(
    name: str, image_id: int, boxes: Any, scores: Any, classes: Any, masks: list | None, keypoints: Any = None, *_: Any
) -> Iterator[dict[str, Any]]:
    """One image's objects in COCO's results format, by the ids of the split `name`; keypoints: [K, 17, 3] x, y, score or None."""
    for i, box in enumerate(_corners(boxes).tolist()):
        entry = {
            "image_id": image_id,
            "category_id": datasets.category_id(name, int(classes[i])),
            "bbox": box,
            "score": float(scores[i]),
        }
        if masks:
            entry["segmentation"] = masks[i]
        if keypoints is not None:
            entry["keypoints"] = _pixels(keypoints[i])
        yield entry


def _pixels(keypoints: np.ndarray) -> list[float]:
    """x, y, score, ... of an object's keypoints [17, 3] as COCO has them: half a pixel goes from x and y, which count from a pixel's
    corner here."""
    found: list[float] = (keypoints - np.array([0.5, 0.5, 0], np.float32)).ravel().tolist()
    return found


def _corners(boxes: np.ndarray) -> np.ndarray:
    """[K, 4] x, y, width, height for x1, y1, x2, y2."""
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
