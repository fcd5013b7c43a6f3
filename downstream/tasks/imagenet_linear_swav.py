"""ImageNet linear classification as SwAV does it: facebookresearch/swav eval_linear.py; Barlow Twins' evaluate.py does the same.

Trains one linear layer on frozen, globally pooled features: learning rate 0.3 for a batch of 256, weight decay 1e-6, 100 epochs,
a cosine that moves with the epoch. Both codes report the best epoch, chosen on the test images; the record has the last (top1,
top5) and the one with the best top1 (top1_best, top5_best). Released weights: SwAV 75.3 (800 epochs), DeepCluster-v2 75.2, Barlow
Twins 73.5 (READMEs). VICReg's README trains the same classifier with another learning rate: `imagenet_linear_vicreg`.

SwAV's images are divided by 0.228 in red: its checkpoints bring that, as their traits.
"""

from downstream.task import Classification

TASK = Classification(
    name="imagenet_linear_swav",
    cite="facebookresearch/swav eval_linear.py and README.md; facebookresearch/barlowtwins evaluate.py and README.md",
    kind="linear",
    metrics=("top1", "top5", "top1_best", "top5_best"),
    batch=256,
    epochs=100,
    lr=0.3,
    weight_decay=1e-6,
    schedule="cosine",
    expected={
        "swav (800 epochs)": {"top1_best": 75.3},
        "swav (400 epochs)": {"top1_best": 74.6},
        "swav (200 epochs)": {"top1_best": 73.9},
        "swav (100 epochs)": {"top1_best": 72.1},
        "deepcluster_v2 (800 epochs)": {"top1_best": 75.2},
        "barlowtwins (1000 epochs)": {"top1_best": 73.5, "top5_best": 91.0},
    },
    unverified=(
        "top5_best: of the epoch with the best top1; SwAV's code keeps no top5, Barlow Twins' the best of any epoch",
        "the number of trials behind the READMEs' values is not stated",
    ),
)
