"""COCO keypoints of persons, Mask R-CNN (keypoint version) R50-FPN, 2x: MoCo (arXiv 1911.05722), Table 6 and appendix A.2.

Trains on the images of train2017 with at least one visible keypoint, tests on val2017: 180k iterations of 16 images. AP is
over COCO's object keypoint similarity (OKS). BN is trained and synchronised in the backbone and the FPN, without which the
training diverges (facebookresearch/moco#23). MoCo never released this configuration; the nearest public one is
open-mmlab/mmselfsup, configs/benchmarks/detectron2, keypoint_rcnn_R_50_FPN_2x.yaml, which this equals.
"""

from downstream.task import Detection
from downstream.tasks import coco_fpn_2x

TASK = Detection(
    name="coco_keypoint_2x",
    cite="MoCo Table 6 and appendix A.2; open-mmlab/mmselfsup configs/benchmarks/detectron2 (keypoints, R50-FPN, 2x)",
    metrics=("APkp", "APkp50", "APkp75"),
    expected={
        "random": {"APkp": 65.9, "APkp50": 86.5, "APkp75": 71.7},
        "supervised": {"APkp": 65.8, "APkp50": 86.9, "APkp75": 71.9},
        "moco_v1 (200 epochs)": {"APkp": 66.8, "APkp50": 87.4, "APkp75": 72.5},
    },
    unverified=(
        "MoCo did not release its keypoint configuration: norms are mmselfsup's reading and facebookresearch/moco#23",
        "the paper does not say how many trials a keypoint number is",
    ),
    settings={key: value for key, value in coco_fpn_2x.TASK.settings.items() if key != "MODEL.MASK_ON"}
    | {
        "DATASETS.TRAIN": ["keypoints_coco_2017_train"],
        "DATASETS.TEST": ["keypoints_coco_2017_val"],
        "MODEL.KEYPOINT_ON": True,
        "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.5,
        "MODEL.ROI_HEADS.NUM_CLASSES": 1,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1500,
    },
)
