"""COCO detection and instance segmentation, Mask R-CNN R50-FPN, 1x: the FPN columns of PixPro's table (arXiv 2011.10043).

Not MoCo's FPN protocol: SyncBN also in the heads, and a box head of 4 convolutions and 1 fully connected layer. Supervised
weights have 39.7 APbb here and 38.9 there. Follows zdaxie/PixPro, transfer/detection/configs; the set-up comes from
PyContrast (InfoMin). PixPro's 41.3 and 41.4 are from weights pretrained with its instance branch; 40.8 without it.
"""

import dataclasses

from downstream.tasks import coco_fpn_1x

TASK = dataclasses.replace(
    coco_fpn_1x.TASK,
    name="coco_fpn_1x_pixpro",
    cite="PixPro's table, COCO (R50-FPN); zdaxie/PixPro transfer/detection/configs (COCO, R50-FPN, 1x)",
    expected={
        "random": {"APbb": 32.8, "APbb50": 51.0, "APbb75": 35.3, "APmk": 29.9},
        "supervised": {"APbb": 39.7, "APbb50": 59.5, "APbb75": 43.3, "APmk": 35.9},
        "moco_v1": {"APbb": 39.4, "APbb50": 59.1, "APbb75": 43.0, "APmk": 35.6},
    },
    unverified=("no source says how many trials a COCO number is",),
    settings={
        **coco_fpn_1x.TASK.settings,
        "MODEL.ROI_BOX_HEAD.NORM": "SyncBN",
        "MODEL.ROI_BOX_HEAD.NUM_CONV": 4,
        "MODEL.ROI_BOX_HEAD.NUM_FC": 1,
        "MODEL.ROI_MASK_HEAD.NORM": "SyncBN",
    },
)
