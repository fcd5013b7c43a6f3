"""COCO detection and instance segmentation, Mask R-CNN R50-FPN, 2x: MoCo's FPN protocol with twice the iterations.

As coco_fpn_1x in everything but the schedule: 180k iterations, x0.1 at 120k and 160k. Follows open-mmlab/mmselfsup,
configs/benchmarks/detectron2, coco_R_50_FPN_2x.yaml. PyContrast's and PixPro's 2x numbers belong to other heads (SyncBN, 4
convolutions and 1 fully connected layer) and are not this protocol's.
"""

import dataclasses

from downstream.tasks import coco_fpn_1x

TASK = dataclasses.replace(
    coco_fpn_1x.TASK,
    name="coco_fpn_2x",
    cite="MoCo section 4.2 (2x); open-mmlab/mmselfsup configs/benchmarks/detectron2 coco_R_50_FPN_2x.yaml",
    expected={},
    unverified=(*coco_fpn_1x.TASK.unverified, "MoCo's 2x figures are not among the sources this project has read"),
    settings={**coco_fpn_1x.TASK.settings, "SOLVER.MAX_ITER": 180000, "SOLVER.STEPS": [120000, 160000]},
)
