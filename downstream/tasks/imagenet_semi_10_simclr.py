"""ImageNet with 10 % of the labels, fine-tuned as SimCLR does it: arXiv 2002.05709, appendix B.5, behind its Table 7.

`imagenet_semi_1_simclr` on the 128,116 images of SimCLR's longer list, for 30 epochs instead of 60.
"""

import dataclasses

from downstream.tasks import imagenet_semi_1_simclr

TASK = dataclasses.replace(
    imagenet_semi_1_simclr.TASK,
    name="imagenet_semi_10_simclr",
    labels=10,
    epochs=30,
    expected={"simclr (1000 epochs)": {"top1": 65.6, "top5": 87.8}},
)
