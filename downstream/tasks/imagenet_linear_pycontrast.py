"""ImageNet linear classification as PyContrast does it, InfoMin's figures among them: HobbitLong/PyContrast main_linear.py.

One linear layer, as torch draws it, on frozen, globally pooled features: SGD, learning rate 30, x 0.2 after 30, 40 and 50 of 60
epochs, no weight decay, batch 256; crops of a fifth of the image or more, and flips (options/test_options.py, datasets/util.py).
"""

from downstream.task import Classification

TASK = Classification(
    name="imagenet_linear_pycontrast",
    cite="HobbitLong/PyContrast main_linear.py, options/test_options.py and README.md",
    kind="linear",
    metrics=("top1", "top5", "top1_best", "top5_best"),
    area=(0.2, 1.0),
    batch=256,
    epochs=60,
    lr=30.0,
    steps=(30, 40, 50),
    gamma=0.2,
    head_std=None,
    expected={
        "infomin (100 epochs)": {"top1": 67.4},
        "infomin (200 epochs)": {"top1": 70.1},
        "infomin (800 epochs)": {"top1": 73.0},
        "moco_v2 (200 epochs)": {"top1": 67.5},
    },
    unverified=(
        "docs/RUN.md's command adds RandAugment (--aug_linear RA), which the defaults have not; which of them is behind the "
        "README's values is not said, nor the number of trials",
    ),
)
