"""COCO detection and instance segmentation, Mask R-CNN R50-FPN, 2x: MoCo (arXiv 1911.05722), Table 5.

`coco_fpn_1x` for twice as long: 180k iterations of 16 images, about 24 epochs. MoCo never released this configuration; the
nearest public one is open-mmlab/mmselfsup, configs/benchmarks/detectron2, coco_R_50_FPN_2x.yaml, which this equals. The 2x
FPN values of HobbitLong/PyContrast's README (supervised 41.6 APbb) belong to PixPro's heads, not to these.
"""

from downstream.task import Detection
from downstream.tasks import coco_fpn_1x

TASK = Detection(
    name="coco_fpn_2x",
    cite="MoCo Table 5 (FPN, 2x); open-mmlab/mmselfsup configs/benchmarks/detectron2 coco_R_50_FPN_2x.yaml",
    metrics=coco_fpn_1x.TASK.metrics,
    unverified=(
        "no published value for these heads and this schedule is at hand: nothing is expected",
        *coco_fpn_1x.TASK.unverified,
    ),
    settings=dict(coco_fpn_1x.TASK.settings) | {"SOLVER.MAX_ITER": 180000, "SOLVER.STEPS": [120000, 160000]},
)
