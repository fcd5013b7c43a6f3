"""PASCAL VOC detection, Faster R-CNN R50-C4: MoCo (arXiv 1911.05722), Table 2b, and the first columns of PixPro's table.

Trains on trainval07+12, tests on test07. The head is res5 and one more norm after it. Follows facebookresearch/moco,
detection/configs/pascal_voc_R_50_C4_24k_moco.yaml. PixPro's file differs in its SyncBN alone, which under its README's PyTorch 1.4
is detectron2's naiveSyncBN too. Mean of 5 trials; their spread is 0.2 AP, 0.2 AP50, 0.4 AP75 (detection/README.md).
"""

from downstream.task import Detection

TASK = Detection(
    name="voc_c4",
    cite="MoCo Table 2b; facebookresearch/moco detection/configs/pascal_voc_R_50_C4_24k_moco.yaml",
    metrics=("AP", "AP50", "AP75"),
    trials=5,
    tolerance=0.6,
    expected={
        "random": {"AP": 33.8, "AP50": 60.2, "AP75": 33.1},
        "supervised": {"AP": 53.5, "AP50": 81.3, "AP75": 58.8},
        "moco_v1 (200 epochs)": {"AP": 55.9, "AP50": 81.5, "AP75": 62.6},
        "moco_v2 (800 epochs)": {"AP": 57.4, "AP50": 82.5, "AP75": 64.0},
        "pixpro (400 epochs)": {"AP": 60.2, "AP50": 83.8, "AP75": 67.7},
    },
    settings={
        "DATASETS.TRAIN": ["voc_2007_trainval", "voc_2012_trainval"],
        "DATASETS.TEST": ["voc_2007_test"],
        "INPUT.MIN_SIZE_TRAIN": [480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800],
        "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.RESNETS.NORM": "naiveSyncBN",
        "MODEL.ROI_HEADS.NAME": "Res5ROIHeadsExtraNorm",
        "MODEL.ROI_HEADS.NUM_CLASSES": 20,
        "SOLVER.BASE_LR": 0.02,
        "SOLVER.MAX_ITER": 24000,
        "SOLVER.STEPS": [18000, 22000],
        "SOLVER.WARMUP_ITERS": 100,
        "TEST.PRECISE_BN.ENABLED": True,
    },
)
