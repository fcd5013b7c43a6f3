"""COCO detection and instance segmentation, Mask R-CNN R50-C4, 2x: MoCo's repository (arXiv 1911.05722, Table 5).

`coco_c4_1x` for twice as long, 180k iterations of 16 images, about 24 epochs, and with MoCo's naiveSyncBN where PixPro's 1x
file has SyncBN. Follows facebookresearch/moco, detection/configs, coco_R_50_C4_2x_moco.yaml: warm-up 1000, no limit on the
long side but detectron2's own (mmselfsup's copy adds MAX_SIZE_TRAIN 1200, which MoCo has not).
"""

from downstream.task import Detection
from downstream.tasks import coco_c4_1x

TASK = Detection(
    name="coco_c4_2x",
    cite="facebookresearch/moco detection/configs/coco_R_50_C4_2x_moco.yaml",
    metrics=coco_c4_1x.TASK.metrics,
    expected={
        "random": {"APbb": 35.6, "APbb50": 54.6, "APbb75": 38.2, "APmk": 31.4, "APmk50": 51.5, "APmk75": 33.5},
        "supervised": {"APbb": 40.0, "APbb50": 59.9, "APbb75": 43.1, "APmk": 34.7, "APmk50": 56.5, "APmk75": 36.9},
        "moco_v1 (200 epochs)": {"APbb": 40.7, "APmk": 35.6},
    },
    unverified=(
        "expected random and supervised values are as OpenSelfSup's model zoo prints them, not read in MoCo's paper",
        "moco_v1 is 40.7 APbb, 35.6 APmk in HobbitLong/PyContrast's README (expected here) and 40.9, 35.5 in OpenSelfSup's zoo",
        "the papers do not say how many trials a COCO number is",
    ),
    settings=dict(coco_c4_1x.TASK.settings)
    | {"MODEL.RESNETS.NORM": "naiveSyncBN", "SOLVER.MAX_ITER": 180000, "SOLVER.STEPS": [120000, 160000]},
)
