"""ImageNet with 10 % of the labels, fine-tuned as SwAV does it: facebookresearch/swav eval_semisup.py and README.md.

The whole network learns, BN statistics included, on the 128,116 images of SimCLR's list (128 or 129 a class): SGD, learning
rate 0.01 for the backbone and 0.2 for the classifier, both x 0.2 after 12 and 16 of 20 epochs, no weight decay, batch 256 (8 GPUs
x 32, synchronised BN). SimCLR's list is google-research/simclr imagenet_subsets/10percent.txt, looked for as
imagenet/subsets/10percent.txt and imagenet_subsets/10percent.txt; without it a class-balanced 10 % is drawn, and the record says
so. SwAV's code reports the best epoch, chosen on the test images; the record has the last and the best.
"""

from downstream.task import Classification

TASK = Classification(
    name="imagenet_semi_10",
    cite="facebookresearch/swav eval_semisup.py and README.md; google-research/simclr imagenet_subsets/10percent.txt",
    kind="finetune",
    metrics=("top1", "top5", "top1_best", "top5_best"),
    labels=10,
    batch=256,
    epochs=20,
    lr=0.01,
    head_lr=0.2,
    steps=(12, 16),
    gamma=0.2,
    head_std=None,
    expected={"swav (800 epochs)": {"top1_best": 70.2, "top5_best": 89.9}},
    unverified=(
        "the expected values are recalled from SwAV's paper and were not read again",
        "SimCLR's own fine-tuning, behind its Table 7, is imagenet_semi_10_simclr; mmselfsup's grid of learning rates is no task here",
        "SwAV normalises with std 0.228 for red, a slip for 0.229; here the checkpoint's std counts",
    ),
)
