"""ImageNet linear classification as MoCo does it: facebookresearch/moco main_lincls.py.

Trains one linear layer on the frozen, globally pooled features of 1,281,167 images, tests on 50,000. MoCo's code reports the
best epoch, chosen on the test images; the record has the last (top1, top5) and the best (top1_best, top5_best). Five trials of
the released weights: v1 60.6, 60.6, 60.7, 60.9, 61.1, mean 60.8; v2 (200 epochs) mean 67.5, deviation 0.1 (README).
"""

from downstream.task import Classification

TASK = Classification(
    name="imagenet_linear",
    cite="facebookresearch/moco main_lincls.py and README.md",
    kind="linear",
    metrics=("top1", "top5", "top1_best", "top5_best"),
    batch=256,
    epochs=100,
    lr=30.0,
    steps=(60, 80),
    trials=5,
    expected={
        "moco_v1": {"top1_best": 60.8},
        "moco_v2 (200 epochs)": {"top1_best": 67.5},
        "moco_v2 (800 epochs)": {"top1_best": 71.1},
    },
    unverified=("top5 of the best epoch: MoCo's code keeps only the best top1",),
)
