"""ImageNet linear classification as SimCLR does it: arXiv 2002.05709, appendix B.6.

As its fine-tuning (`imagenet_semi_1_simclr`) but for the backbone, which is frozen, and a learning rate of 1.6 (0.1 x 4096 / 256)
for 90 epochs, on all labels. google-research/simclr's README trains it with weight decay 1e-6 besides, which the paper excludes.
"""

import dataclasses

from downstream.tasks import imagenet_semi_1_simclr

TASK = dataclasses.replace(
    imagenet_semi_1_simclr.TASK,
    name="imagenet_linear_simclr",
    cite="SimCLR (arXiv 2002.05709), appendix B.6; google-research/simclr",
    kind="linear",
    labels=100,
    epochs=90,
    lr=0.1 * 4096 / 256,
    expected={"simclr (1000 epochs)": {"top1": 69.3}},
    unverified=(
        "the cosine and the classifier that begins at 0 are the code's: the paper does not say",
        *imagenet_semi_1_simclr.TASK.unverified[1:],
    ),
)
