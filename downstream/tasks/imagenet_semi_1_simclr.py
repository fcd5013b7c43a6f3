"""ImageNet with 1 % of the labels, fine-tuned as SimCLR does it: arXiv 2002.05709, appendix B.5, behind its Table 7.

The whole network learns on the 12,811 images of SimCLR's list (`imagenet_semi_1` says where that is looked for), and a linear
classifier on the pooled features with it: SGD with Nesterov momentum 0.9, learning rate 0.8 (0.05 x 4096 / 256) without warm-up,
batch 4096, 60 epochs, no weight decay, random crops and flips; a test image is seen at 256, its middle 224. What the paper leaves
open is google-research/simclr's code: the cosine to 0 that moves with every batch, batches that run on over the ends of epochs
(model_util.py, data.py), bicubic resizing (data_util.py), synchronised BN and a classifier that begins at 0 (README.md).
"""

from downstream.task import Classification

TASK = Classification(
    name="imagenet_semi_1_simclr",
    cite="SimCLR (arXiv 2002.05709), appendix B.5, Tables 7 and B.4; google-research/simclr",
    kind="finetune",
    metrics=("top1", "top5", "top1_best", "top5_best"),
    labels=1,
    interpolation="bicubic",
    batch=4096,
    epochs=60,
    lr=0.05 * 4096 / 256,
    optimiser="nesterov",
    schedule="cosine",
    continuous=True,
    head_std=0.0,
    expected={"simclr (1000 epochs)": {"top1": 48.3, "top5": 75.5}},
    unverified=(
        "the cosine, the classifier that begins at 0 and the synchronised BN are the code's: the paper does not say",
        "TensorFlow's bicubic resizing does not smooth what it makes smaller, PIL's here does; its crops' sides have a uniform "
        "ratio, torchvision's here a log-uniform one",
        "the number of trials behind the paper's values is not stated",
    ),
)
