"""COCO detection and instance segmentation, Mask R-CNN R50-C4, 1x: MoCo (arXiv 1911.05722), Table 5(c), and PixPro's table.

Trains on train2017, tests on val2017: 90k iterations of 16 images, about 12 epochs. The head is res5 and one more norm after
it. Follows zdaxie/PixPro, transfer/detection/configs, with its SyncBN, which under its README's PyTorch 1.4 is detectron2's
naiveSyncBN; MoCo's repository has the 2x schedule alone, with naiveSyncBN since November 2020.
"""

from downstream.task import Detection

TASK = Detection(
    name="coco_c4_1x",
    cite="MoCo Table 5(c); zdaxie/PixPro transfer/detection/configs (COCO, R50-C4, 1x)",
    metrics=("APbb", "APbb50", "APbb75", "APmk", "APmk50", "APmk75"),
    expected={
        "random": {"APbb": 26.4, "APbb50": 44.0, "APbb75": 27.8, "APmk": 29.3, "APmk50": 46.9, "APmk75": 30.8},
        "supervised": {"APbb": 38.2, "APbb50": 58.2, "APbb75": 41.2, "APmk": 33.3, "APmk50": 54.7, "APmk75": 35.2},
        "moco_v1 (200 epochs)": {
            "APbb": 38.5,
            "APbb50": 58.3,
            "APbb75": 41.6,
            "APmk": 33.6,
            "APmk50": 54.8,
            "APmk75": 35.6,
        },
    },
    unverified=(
        "the papers do not say how many trials a COCO number is",
        "MoCo's 1x configuration is not released; its 2x one differs in schedule and norm (naiveSyncBN)",
        "random: APmk (29.3) above APbb (26.4) is as Table 5(c) prints it",
    ),
    settings={
        "DATASETS.TRAIN": ["coco_2017_train"],
        "DATASETS.TEST": ["coco_2017_val"],
        "INPUT.MIN_SIZE_TRAIN": [640, 672, 704, 736, 768, 800],
        "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.MASK_ON": True,
        "MODEL.RESNETS.NORM": "SyncBN",
        "MODEL.ROI_HEADS.NAME": "Res5ROIHeadsExtraNorm",
        "SOLVER.BASE_LR": 0.02,
        "SOLVER.MAX_ITER": 90000,
        "SOLVER.STEPS": [60000, 80000],
        "TEST.PRECISE_BN.ENABLED": True,
    },
)
