"""Cityscapes instance segmentation, Mask R-CNN R50-FPN: MoCo (arXiv 1911.05722), Table 6.

Trains on the 2,975 images of train_fine, tests on the 500 of val, 8 classes: 24k iterations of 8 images, about 65 passes.
AP and AP50 are cityscapesscripts' for instances. MoCo's paper has no section on this task and its repository no
configuration: the schedule is detectron2's (configs/Cityscapes/mask_rcnn_R_50_FPN.yaml), BN trained and synchronised in
backbone and FPN and PreciseBN are what MoCo does elsewhere, as in open-mmlab/mmselfsup, configs/benchmarks/detectron2,
Cityscapes/mask_rcnn_R_50_FPN_moco.yaml, which this equals. detectron2's own configuration starts from a network trained on COCO;
here nothing but the backbone is pretrained.
"""

from downstream.task import Detection
from downstream.tasks import coco_fpn_1x

TASK = Detection(
    name="cityscapes_instance",
    cite="MoCo Table 6; open-mmlab/mmselfsup configs/benchmarks/detectron2 (Cityscapes, R50-FPN)",
    metrics=("APmk", "APmk50"),
    expected={
        "random": {"APmk": 25.4, "APmk50": 51.1},
        "supervised": {"APmk": 32.9, "APmk50": 59.6},
        "moco_v1 (200 epochs)": {"APmk": 32.3, "APmk50": 59.3},
    },
    tolerance=1.0,
    unverified=(
        "MoCo's schedule, batch, learning rate and image sizes for Cityscapes are not published: they are detectron2's",
        "MoCo did not release this configuration: norms are mmselfsup's reading of what it does elsewhere",
        "the paper does not say how many trials a number of this task is",
    ),
    settings=dict(coco_fpn_1x.TASK.settings)
    | {
        "DATASETS.TRAIN": ["cityscapes_fine_instance_seg_train"],
        "DATASETS.TEST": ["cityscapes_fine_instance_seg_val"],
        "INPUT.MIN_SIZE_TRAIN": [800, 832, 864, 896, 928, 960, 992, 1024],
        "INPUT.MIN_SIZE_TEST": 1024,
        "INPUT.MAX_SIZE_TRAIN": 2048,
        "INPUT.MAX_SIZE_TEST": 2048,
        "MODEL.ROI_HEADS.NUM_CLASSES": 8,
        "SOLVER.IMS_PER_BATCH": 8,
        "SOLVER.BASE_LR": 0.01,
        "SOLVER.MAX_ITER": 24000,
        "SOLVER.STEPS": [18000],
    },
)
