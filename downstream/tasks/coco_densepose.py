"""COCO dense pose of persons, DensePose R-CNN R50-FPN, s1x: MoCo (arXiv 1911.05722), Table 6 and appendix A.3.

Trains on DensePose's train2014 and valminusminival2014, tests on its minival2014: 130k iterations of 16 images. AP is over
geodesic point similarity. MoCo never released this configuration. Its appendix says "s1x", the schedule of arXiv 1802.00434,
which facebookresearch/detectron2 has as projects/DensePose/configs/densepose_rcnn_R_50_FPN_s1x_legacy.yaml (52.1 by its
DENSEPOSE_IUV.md, with frozen BN) and, with a decoder and five times the learning rate, as densepose_rcnn_R_50_FPN_s1x.yaml
(63.7). MoCo's supervised row has 48.3, so this is the former, with what MoCo changes everywhere: BN trained and synchronised in
backbone and FPN, PreciseBN, all layers trained.

Beside COCO, densepose/ has files of the body's surface (downstream/surface.py).
"""

from downstream.task import Detection
from downstream.tasks import coco_fpn_1x

TASK = Detection(
    name="coco_densepose",
    cite="MoCo Table 6 and appendix A.3; detectron2 projects/DensePose densepose_rcnn_R_50_FPN_s1x_legacy.yaml with MoCo's norms",
    metrics=("APdp", "APdp50", "APdp75"),
    expected={
        "random": {"APdp": 39.4, "APdp50": 78.5, "APdp75": 35.1},
        "supervised": {"APdp": 48.3, "APdp50": 85.6, "APdp75": 50.6},
        "moco_v1 (200 epochs)": {"APdp": 50.1, "APdp50": 86.8, "APdp75": 53.9},
    },
    unverified=(
        "MoCo did not release its DensePose configuration: that its s1x is detectron2's s1x_legacy is inferred from the numbers",
        "the norms are those of its FPN elsewhere, by mmselfsup's reading",
        "the paper does not say how many trials a DensePose number is",
    ),
    settings={
        key: value
        for key, value in coco_fpn_1x.TASK.settings.items()
        if key != "MODEL.MASK_ON" and "MASK_HEAD" not in key
    }
    | {
        "DATASETS.TRAIN": ["densepose_coco_2014_train", "densepose_coco_2014_valminusminival"],
        "DATASETS.TEST": ["densepose_coco_2014_minival"],
        "MODEL.DENSEPOSE_ON": True,
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
        "MODEL.ROI_HEADS.NAME": "DensePoseROIHeads",
        "MODEL.ROI_HEADS.NUM_CLASSES": 1,
        "SOLVER.BASE_LR": 0.002,
        "SOLVER.MAX_ITER": 130000,
        "SOLVER.STEPS": [100000, 120000],
        "SOLVER.WARMUP_FACTOR": 0.1,
    },
)
