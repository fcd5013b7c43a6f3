"""COCO detection and instance segmentation, Mask R-CNN R50-FPN, 1x: MoCo (arXiv 1911.05722), Table 5(a).

Trains on train2017, tests on val2017: 90k iterations of 16 images, about 12 epochs. BN is trained and synchronised in the
backbone and the FPN; the box head is two fully connected layers, the mask head four convolutions, both without norm
(facebookresearch/moco#34). MoCo never released this configuration; the nearest public one is open-mmlab/mmselfsup,
configs/benchmarks/detectron2, coco_R_50_FPN_1x.yaml, which this equals. Not PixPro's FPN column: its heads carry SyncBN and
the box head is 4 convolutions and 1 fully connected layer; the supervised backbone has 39.7 APbb there and 38.9 here.
"""

from downstream.task import Detection

TASK = Detection(
    name="coco_fpn_1x",
    cite="MoCo Table 5(a); open-mmlab/mmselfsup configs/benchmarks/detectron2 coco_R_50_FPN_1x.yaml",
    metrics=("APbb", "APbb50", "APbb75", "APmk", "APmk50", "APmk75"),
    expected={
        "random": {"APbb": 31.0, "APbb50": 49.5, "APbb75": 33.2, "APmk": 28.5, "APmk50": 46.8, "APmk75": 30.4},
        "supervised": {"APbb": 38.9, "APbb50": 59.6, "APbb75": 42.7, "APmk": 35.4, "APmk50": 56.5, "APmk75": 38.1},
        "moco_v1 (200 epochs)": {
            "APbb": 38.5,
            "APbb50": 58.9,
            "APbb75": 42.0,
            "APmk": 35.1,
            "APmk50": 55.9,
            "APmk75": 37.7,
        },
    },
    unverified=(
        "MoCo did not release its FPN configuration: norms and heads are mmselfsup's reading and facebookresearch/moco#34",
        "the paper does not say how many trials a COCO number is",
    ),
    settings={
        "DATASETS.TRAIN": ["coco_2017_train"],
        "DATASETS.TEST": ["coco_2017_val"],
        "INPUT.MIN_SIZE_TRAIN": [640, 672, 704, 736, 768, 800],
        "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
        "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
        "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.FPN.NORM": "SyncBN",
        "MODEL.MASK_ON": True,
        "MODEL.RESNETS.NORM": "SyncBN",
        "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
        "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
        "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
        "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
        "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
        "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
        "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
        "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
        "SOLVER.BASE_LR": 0.02,
        "SOLVER.MAX_ITER": 90000,
        "SOLVER.STEPS": [60000, 80000],
        "TEST.PRECISE_BN.ENABLED": True,
    },
)
