"""COCO detection and instance segmentation, Mask R-CNN R50-C4, 2x: the COCO protocol that MoCo's repository ships.

180k iterations of 16 images, x0.1 at 120k and 160k, naiveSyncBN. Follows facebookresearch/moco, detection/configs
coco_R_50_C4_2x_moco.yaml. Expected values: OpenSelfSup's model zoo, which ran this protocol.
"""

import dataclasses

from downstream.tasks import coco_c4_1x

TASK = dataclasses.replace(
    coco_c4_1x.TASK,
    name="coco_c4_2x",
    cite="facebookresearch/moco detection/configs/coco_R_50_C4_2x_moco.yaml",
    expected={
        "random": {"APbb": 35.6, "APbb50": 54.6, "APbb75": 38.2, "APmk": 31.4, "APmk50": 51.5, "APmk75": 33.5},
        "supervised": {"APbb": 40.0, "APbb50": 59.9, "APbb75": 43.1, "APmk": 34.7, "APmk50": 56.5, "APmk75": 36.9},
        "moco_v1": {"APbb": 40.9, "APbb50": 60.5, "APbb75": 44.2, "APmk": 35.5, "APmk50": 57.1, "APmk75": 37.7},
    },
    unverified=("no source says how many trials a COCO number is",),
    settings={
        **coco_c4_1x.TASK.settings,
        "MODEL.RESNETS.NORM": "naiveSyncBN",
        "SOLVER.MAX_ITER": 180000,
        "SOLVER.STEPS": [120000, 160000],
    },
)
