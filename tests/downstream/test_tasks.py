"""The detectron2 protocols resolve to the official configurations, and the mini rule keeps them runnable."""

import importlib
import json
import math
import os
from pathlib import Path

import pytest

from downstream import detection, tasks
from downstream.task import Detection, digest, iterations, mini, overridden
from downstream.tasks import (
    cityscapes_instance,
    cityscapes_semantic,
    coco_c4_1x,
    coco_c4_2x,
    coco_densepose,
    coco_fpn_1x,
    coco_fpn_1x_pixpro,
    coco_fpn_2x,
    coco_keypoint_2x,
    imagenet_linear,
    lvis_v05_1x,
    lvis_v05_2x,
    lvis_v1_1x,
    voc07_svm,
    voc_c4,
    voc_semantic,
)

GOLDEN = {
    "moco_voc_c4": voc_c4.TASK,
    "pixpro_coco_c4_1x": coco_c4_1x.TASK,
    "mmselfsup_coco_fpn_1x": coco_fpn_1x.TASK,
    "moco_coco_c4_2x": coco_c4_2x.TASK,
    "mmselfsup_coco_fpn_2x": coco_fpn_2x.TASK,
    "pixpro_coco_fpn_1x": coco_fpn_1x_pixpro.TASK,
    "mmselfsup_keypoint_fpn_2x": coco_keypoint_2x.TASK,
    "mmselfsup_cityscapes_inst": cityscapes_instance.TASK,
}
# detectron2's own configurations, of which ours are those that every MoCo configuration makes of one. There is no other for
# LVIS, and the other two are also equal to mmselfsup's.
DERIVED = {
    "d2_lvis_v05_fpn_1x": lvis_v05_1x.TASK,
    "d2_lvis_v1_fpn_1x": lvis_v1_1x.TASK,
    "d2_cityscapes_inst": cityscapes_instance.TASK,
    "d2_keypoint_fpn_1x": coco_keypoint_2x.TASK,
}
MOCO = {
    "INPUT.FORMAT": "RGB",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.FPN.NORM": "SyncBN",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "MODEL.RESNETS.NORM": "SyncBN",
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "TEST.PRECISE_BN.ENABLED": True,
}
# lvis_v05_2x has no file: the test of 2x derives it from lvis_v05_1x, which has one. DensePose's is below.
TASKS = tuple(
    {t.name: t for t in (*GOLDEN.values(), *DERIVED.values(), lvis_v05_2x.TASK, coco_densepose.TASK)}.values()
)
# detectron2, projects/DensePose/configs: densepose_rcnn_R_50_FPN_s1x_legacy.yaml over Base-DensePose-RCNN-FPN.yaml
DENSEPOSE = {
    "DATASETS.TEST": ["densepose_coco_2014_minival"],
    "DATASETS.TRAIN": ["densepose_coco_2014_train", "densepose_coco_2014_valminusminival"],
    "INPUT.MIN_SIZE_TRAIN": [640, 672, 704, 736, 768, 800],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.DENSEPOSE_ON": True,
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_DENSEPOSE_HEAD.DECODER_ON": False,
    "MODEL.ROI_DENSEPOSE_HEAD.HEATMAP_SIZE": 56,
    "MODEL.ROI_DENSEPOSE_HEAD.INDEX_WEIGHTS": 2.0,
    "MODEL.ROI_DENSEPOSE_HEAD.NAME": "DensePoseV1ConvXHead",
    "MODEL.ROI_DENSEPOSE_HEAD.NUM_COARSE_SEGM_CHANNELS": 15,
    "MODEL.ROI_DENSEPOSE_HEAD.PART_WEIGHTS": 0.3,
    "MODEL.ROI_DENSEPOSE_HEAD.POINT_REGRESSION_WEIGHTS": 0.1,
    "MODEL.ROI_DENSEPOSE_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_DENSEPOSE_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_HEADS.NAME": "DensePoseROIHeads",
    "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "SOLVER.BASE_LR": 0.002,
    "SOLVER.MAX_ITER": 130000,
    "SOLVER.STEPS": [100000, 120000],
    "SOLVER.WARMUP_FACTOR": 0.1,
}
FOLDER = Path(os.environ.get("DETECTRON2_DATASETS") or Path(__file__).resolve().parents[3] / "shared" / "data").parent
# The only differences that are allowed from an official file, and why.
ALLOWED = {
    "*": {"MODEL.WEIGHTS": "the weights are an argument of a trial, not a line of its configuration"},
    "d2_cityscapes_inst": {"TEST.EVAL_PERIOD": "a trial tests once, at the end; detectron2 also on the way"},
    "d2_keypoint_fpn_1x": {
        "SOLVER.MAX_ITER": "MoCo trains twice as long (appendix A.2): the test of 2x has the numbers",
        "SOLVER.STEPS": "likewise",
    },
}
# Keys of detectron2's defaults that no official file sets and a protocol here may not either: they come with the checkpoint.
FROM_THE_CHECKPOINT = {"INPUT.FORMAT", "MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "MODEL.RESNETS.STRIDE_IN_1X1"}


def official(name):
    file = FOLDER / "golden" / f"{name}.json"
    if not file.is_file():
        pytest.skip("needs the official configurations, resolved, in golden/ beside the data")
    return json.loads(file.read_text())


def comparable(name, settings):
    """Settings without the keys in which they may differ from the official file of that name."""
    return {k: v for k, v in settings.items() if k not in ALLOWED["*"] | ALLOWED.get(name, {})}


@pytest.mark.parametrize("name", GOLDEN)
def test_protocol_is_the_official_configuration_key_by_key(name):
    assert detection.resolved(GOLDEN[name]) == comparable(name, official(name))


@pytest.mark.parametrize("name", DERIVED)
def test_protocol_is_detectron2s_configuration_with_mocos_norms(name):
    assert not MOCO.keys() & official(name).keys()
    assert comparable(name, detection.resolved(DERIVED[name])) == comparable(name, official(name)) | MOCO


def test_dense_pose_is_detectron2s_legacy_configuration_with_mocos_norms():
    assert detection.resolved(coco_densepose.TASK) == DENSEPOSE | MOCO


def test_pixpros_voc_is_mocos_with_another_norm():
    """One protocol for both columns: PixPro's file differs in the kind of synchronisation alone."""
    theirs = comparable("pixpro_voc_c4", official("pixpro_voc_c4"))
    assert detection.resolved(voc_c4.TASK) == theirs | {"MODEL.RESNETS.NORM": "naiveSyncBN"}


def test_every_detectron2_task_has_its_official_file():
    names = {file.stem for file in Path(tasks.__path__[0]).glob("*.py") if not file.stem.startswith("_")}
    modules = [importlib.import_module(f"downstream.tasks.{name}") for name in sorted(names)]
    assert {m.TASK.name for m in modules if m.TASK.engine == "detectron2"} == {t.name for t in TASKS}
    assert all(m.TASK.name == m.__name__.rpartition(".")[2] for m in modules)
    for task in TASKS:
        assert not FROM_THE_CHECKPOINT & task.settings.keys()


@pytest.mark.parametrize(
    ("twice", "once"), [(coco_fpn_2x, coco_fpn_1x), (coco_c4_2x, coco_c4_1x), (lvis_v05_2x, lvis_v05_1x)]
)
def test_2x_is_1x_for_twice_as_long(twice, once):
    before, after = detection.resolved(once.TASK), detection.resolved(twice.TASK)
    assert after["SOLVER.MAX_ITER"] == 2 * before["SOLVER.MAX_ITER"]
    assert after["SOLVER.STEPS"] == [120000, 160000]
    changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
    assert changed - {"MODEL.RESNETS.NORM"} == {"SOLVER.MAX_ITER", "SOLVER.STEPS"}


def test_protocols_with_results_keep_their_digests():
    digests = {
        t.name: digest(t)[:16] for task in (voc_c4.TASK, coco_fpn_1x.TASK, coco_c4_1x.TASK) for t in (task, mini(task))
    }
    assert digests == {
        "voc_c4": "73ac6ee68866cb84",
        "voc_c4@mini": "2f83ed2e263a9e6f",
        "coco_fpn_1x": "f107c4b6fda07d5f",
        "coco_fpn_1x@mini": "2f73a1f9ef785f48",
        "coco_c4_1x": "e90f4caba0c1a26b",
        "coco_c4_1x@mini": "7def2dc4da971b34",
    }


def test_a_mini_keypoint_head_is_half_as_wide_and_draws_maps_half_as_large():
    full, less = (
        detection.configuration(t).MODEL.ROI_KEYPOINT_HEAD for t in (coco_keypoint_2x.TASK, mini(coco_keypoint_2x.TASK))
    )
    assert (list(full.CONV_DIMS), full.POOLER_RESOLUTION) == ([512] * 8, 14)
    assert (list(less.CONV_DIMS), less.POOLER_RESOLUTION) == ([256] * 8, 7)


def test_a_mini_dense_pose_head_is_half_as_wide_and_draws_maps_half_as_large():
    less = detection.configuration(mini(coco_densepose.TASK)).MODEL.ROI_DENSEPOSE_HEAD
    assert (less.CONV_HEAD_DIM, less.POOLER_RESOLUTION, less.HEATMAP_SIZE) == (256, 7, 28)


def test_the_checkpoint_brings_its_colours_and_depth():
    msra = {"channel_order": "BGR", "mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "stride_in_1x1": True}
    changed = detection.resolved(voc_c4.TASK, "resnet50", msra)
    # exactly detectron2's defaults, so that none of these keys differs from them
    assert not [k for k in changed if k.startswith(("INPUT.FORMAT", "MODEL.PIXEL", "MODEL.RESNETS.STRIDE"))]
    assert detection.resolved(voc_c4.TASK, "resnet18")["MODEL.RESNETS.DEPTH"] == 18


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_every_expected_value_names_a_metric(task):
    for values in task.expected.values():
        assert values and set(values) <= set(task.metrics)
    assert max(task.settings["SOLVER.STEPS"]) < task.settings["SOLVER.MAX_ITER"]


@pytest.mark.parametrize("task", TASKS, ids=lambda t: t.name)
def test_mini_is_another_protocol_with_the_same_proportions(task):
    small = mini(task)
    assert (small.name, small.scale) == (f"{task.name}@mini", "mini") and digest(small) != digest(task)
    full, less = (detection.configuration(t) for t in (task, small))
    assert less.SOLVER.IMS_PER_BATCH / less.SOLVER.BASE_LR == full.SOLVER.IMS_PER_BATCH / full.SOLVER.BASE_LR
    assert less.INPUT.MIN_SIZE_TEST == full.INPUT.MIN_SIZE_TEST // 5
    ratio = [s / less.SOLVER.MAX_ITER for s in less.SOLVER.STEPS]
    assert ratio == pytest.approx([s / full.SOLVER.MAX_ITER for s in full.SOLVER.STEPS], abs=0.01)
    assert less.MODEL.RESNETS.NORM == full.MODEL.RESNETS.NORM


def test_few_images_shorten_the_mini_schedule():
    assert iterations(mini(voc_c4.TASK), 5000)[0] == 600
    short, steps = iterations(mini(voc_c4.TASK), 40)
    assert short == 60 and steps == (45, 55)
    assert iterations(voc_c4.TASK, 20) == (24000, (18000, 22000))


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_work_grows_with_the_scale(arch):
    paper, small = (detection.macs(t, arch) for t in (voc_c4.TASK, mini(voc_c4.TASK)))
    assert all(math.isfinite(v) and v > 1e9 for v in (*paper.values(), *small.values()))
    assert paper["train"] > 50 * small["train"] and paper["test"] > 50 * small["test"]


@pytest.mark.parametrize(
    ("task", "key", "value"),
    [
        *((voc_semantic, *pair) for pair in (("batch", "0"), ("steps", "3"), ("passes", "[1]"), ("crop", "abc"))),
        *((voc_semantic, *pair) for pair in (("resize", "7"), ("lr", "x"), ("ratio", "1"), ("iterations", "1.5"))),
        *(
            (voc_semantic, *pair)
            for pair in (("ratio", "[1, 2, 3]"), ("lr", ".nan"), ("momentum", "-1"), ("lr", "true"))
        ),
        *((imagenet_linear, *pair) for pair in (("steps", "5"), ("momentum", "x"), ("area", "3"), ("head_lr", "x"))),
        *((voc07_svm, *pair) for pair in (("costs", "3"), ("folds", "x"), ("folds", "0"), ("costs", "[a]"))),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(task, key, value):
    with pytest.raises(ValueError, match=rf"expected {key} to be a value like .*, found "):
        overridden(mini(task.TASK), {key: value})


@pytest.mark.parametrize("value", ["[0.7", "@x", "(60, [80)"])
def test_a_value_that_is_no_yaml_is_refused_by_name(value):
    for task, key in ((voc_semantic.TASK, "steps"), (voc_c4.TASK, "SOLVER.STEPS")):
        with pytest.raises(ValueError, match=rf"expected a value of {key} in YAML, found .*correct the KEY VALUE pair"):
            overridden(task, {key: value})


def test_a_list_may_be_written_as_detectron2_writes_it():
    assert overridden(voc_c4.TASK, {"SOLVER.STEPS": "(60, 80)"}).settings["SOLVER.STEPS"] == [60, 80]
    same = overridden(voc_c4.TASK, {"SOLVER.STEPS": "(18000,22000,)"})
    assert digest(same) == digest(voc_c4.TASK) and not same.nonstandard


def test_a_value_of_the_kind_is_taken():
    changed = overridden(
        voc_semantic.TASK, {"lr": "1", "passes": "2.5", "resize": "[80, 60]", "steps": "[0.5]", "momentum": "0"}
    )
    assert (changed.lr, changed.passes, changed.resize, changed.steps, changed.momentum) == (
        1,
        2.5,
        (80, 60),
        (0.5,),
        0,
    )
    assert overridden(imagenet_linear.TASK, {"head_lr": "0.5", "head_std": "null"}).head_std is None


@pytest.mark.parametrize("value", ["nan", ".nan", "1e999", "-inf", "[1, [.inf]]", "1" + "0" * 400])
@pytest.mark.parametrize("key", ["SOLVER.BASE_LR", "SOLVER.STEPS"])
def test_a_number_that_is_not_finite_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=rf"expected {key} in finite numbers, found .*correct the KEY VALUE pair"):
        overridden(voc_c4.TASK, {key: value})


def test_unknown_keys_and_values_are_answered():
    for key, value in {"SOLVER.IMS_PER_BATCH": "0", "SOLVER.MAX_ITER": "-1", "INPUT.MIN_SIZE_TRAIN": "[]"}.items():
        with pytest.raises(ValueError, match=key):
            detection.configuration(overridden(voc_c4.TASK, {key: value}))

    with pytest.raises(ValueError, match=r"perhaps SOLVER.BASE_LR"):
        detection.configuration(overridden(voc_c4.TASK, {"SOLVER.BASE_LT": "1"}))
    with pytest.raises(ValueError, match=r"SOLVER.MAX_ITER"):
        detection.configuration(overridden(voc_c4.TASK, {"SOLVER.MAX_ITER": "[1]"}))
    for key, value in {"INPUT.FORMAT": "BGR", "TEST.KEYPOINT_OKS_SIGMAS": "[0.1]", "CUDNN_BENCHMARK": "true"}.items():
        with pytest.raises(ValueError, match=rf"{key}, which would not be obeyed: the checkpoint's traits"):
            detection.configuration(overridden(voc_c4.TASK, {key: value}))
    with pytest.raises(ValueError, match="resnet51"):
        detection.configuration(voc_c4.TASK, "resnet51")
    with pytest.raises(ValueError, match=r"coco_2017_train and MODEL.KEYPOINT_ON True"):
        detection.configuration(overridden(coco_fpn_1x.TASK, {"MODEL.KEYPOINT_ON": "true"}))
    with pytest.raises(ValueError, match=r"found DATALOADER.SAMPLER_TRAIN 'RandomSubsetTrainingSampler'"):
        detection.configuration(overridden(voc_c4.TASK, {"DATALOADER.SAMPLER_TRAIN": "RandomSubsetTrainingSampler"}))


def test_a_whole_number_is_a_learning_rate_too():
    changed = overridden(voc_c4.TASK, {"SOLVER.BASE_LR": "1"})
    assert detection.configuration(changed).SOLVER.BASE_LR == 1.0 and changed.nonstandard == ("SOLVER.BASE_LR",)
    assert isinstance(changed, Detection)


def test_a_number_in_the_short_scientific_notation_is_a_number():
    task = overridden(cityscapes_semantic.TASK, {"lr": "1e-3"})
    assert task.lr == 0.001 and task.nonstandard == ("lr",)
    assert overridden(cityscapes_semantic.TASK, {"lr": "1e-2"}) == cityscapes_semantic.TASK
