"""LVIS v1 instance segmentation, Mask R-CNN R50-FPN, 1x: no report's number, v1 being younger than MoCo's paper.

`lvis_v05_1x` on today's LVIS, 1,203 classes, by detectron2's LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml, whose 1x
is 180k iterations of 16 images because v1's training set is nearly twice as large, with MoCo's norms. Tests on lvis_v1_val.
"""

from downstream.task import Detection
from downstream.tasks import lvis_v05_1x

TASK = Detection(
    name="lvis_v1_1x",
    cite="detectron2 LVISv1-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml with MoCo's norms",
    metrics=lvis_v05_1x.TASK.metrics,
    unverified=(
        "nothing is expected: neither MoCo nor PixPro reports LVIS v1",
        "the norms are those of MoCo's FPN elsewhere, by mmselfsup's reading",
    ),
    settings=dict(lvis_v05_1x.TASK.settings)
    | {
        "DATASETS.TRAIN": ["lvis_v1_train"],
        "DATASETS.TEST": ["lvis_v1_val"],
        "MODEL.ROI_HEADS.NUM_CLASSES": 1203,
        "SOLVER.MAX_ITER": 180000,
        "SOLVER.STEPS": [120000, 160000],
    },
)
