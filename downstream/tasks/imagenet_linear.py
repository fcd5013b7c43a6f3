"""ImageNet linear classification as MoCo does it: facebookresearch/moco main_lincls.py.

Trains one linear layer on the frozen, globally pooled features of 1,281,167 images, tests on 50,000. MoCo's code reports the
best epoch, chosen on the test images; the record has the last (top1, top5) and the best (top1_best, top5_best). The released
weights have 60.6 (v1), 67.7 (v2, 200 epochs) and 71.1 (v2, 800). The README's five trials, 60.8 +- 0.2 and 67.5 +- 0.1, are five
pretrainings, each with a classifier of its own; five of one checkpoint scatter less.

A learning rate of 30 is for MoCo's features. Others train this classifier with other numbers: `imagenet_linear_swav` (Barlow
Twins' too), `imagenet_linear_simsiam`, `imagenet_linear_moco_v3`, `imagenet_linear_vicreg`,
`imagenet_linear_pycontrast` (InfoMin's), `imagenet_linear_simclr`.
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
        "moco_v1 (200 epochs)": {"top1_best": 60.6},
        "moco_v2 (200 epochs)": {"top1_best": 67.7},
        "moco_v2 (800 epochs)": {"top1_best": 71.1},
    },
    unverified=("top5 of the best epoch: MoCo's code keeps only the best top1",),
)
