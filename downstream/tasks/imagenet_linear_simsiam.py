"""ImageNet linear classification as SimSiam does it: facebookresearch/simsiam main_lincls.py with --lars.

Trains one linear layer on frozen, globally pooled features with apex's LARC (trust 0.001, clip off) round SGD, learning rate
0.1 x batch / 256 with a batch of 4096, 90 epochs, a cosine that moves with the epoch. The code reports the best epoch, chosen
on the test images; the record has the last (top1, top5) and the best (top1_best, top5_best). Released weights: 68.1 (batch 512)
and 68.3 (batch 256), both 100 epochs (README).
"""

from downstream.task import Classification

TASK = Classification(
    name="imagenet_linear_simsiam",
    cite="facebookresearch/simsiam main_lincls.py --lars and README.md",
    kind="linear",
    metrics=("top1", "top5", "top1_best", "top5_best"),
    batch=4096,
    epochs=90,
    lr=0.1 * 4096 / 256,
    optimiser="lars",
    schedule="cosine",
    expected={
        "simsiam (100 epochs)": {"top1_best": 68.1},
        "simsiam with batch 256 (100 epochs)": {"top1_best": 68.3},
    },
    unverified=(
        "top5 of the best epoch: SimSiam's code keeps only the best top1",
        "the number of trials behind the README's values is not stated",
    ),
)
