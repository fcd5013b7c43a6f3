"""InstDisc (NPID): every image is a class of its own, and the class's weight is the image's last embedding in a memory bank.

Paper: arXiv 1805.01978; code: zhirongw/lemniscate.pytorch. The variants are the forms of the loss:
    softmax  cross-entropy over 65536 negatives, what the repository's updated weights were trained with (README)
    nce      noise-contrastive estimation with 4096 negatives (the paper; main.py's defaults); z is estimated once, from the first
             batch, and so depends on the seed
    full     cross-entropy over every image (--nce-k 0)
Expected, ResNet-50, ImageNet, 200 epochs: linear top-1 58.5 (softmax, README), 59.5 with PyContrast's crop_area=0.08,1.0
gray_first=false schedule=cosine end_lr=0.00003 (HobbitLong/PyContrast README and datasets/util.py, aug "A"); nearest neighbour 46.8
(nce, README); 54.0 in the paper (unverified).
VOC07+12 C4 AP 55.2 (PyContrast's weights).

    bench pretrain instdisc --data imagenet/train [--variant nce]

nce is for large data: the negatives push with their sum, not with their mean, and where the bank fills within a few hundred steps the
embeddings flee from what they were and do not scatter: on 3,000 images it learnt nothing at rates from 0.0003 to 0.03. On CIFAR the
authors, too, take the full softmax (README).
Differences: negatives come from a uniform draw where the code builds an alias table for the uniform distribution; an epoch's
incomplete batch is dropped, there it is a step.
"""

import torch

from pretrain import augmentations, contrast, heads, optim

# the form of the loss and the number of negatives; 0 is every other image
FORMS = {"softmax": ("softmax", 65536), "nce": ("nce", 4096), "full": ("softmax", 0)}


def recipe(variant: str | None = None) -> dict:
    """The published recipe of softmax (default), nce or full."""
    variant = variant or "softmax"
    if variant not in FORMS:
        raise ValueError(f"expected one of the variants {', '.join(FORMS)} of instdisc, found {variant!r}")
    form, negatives = FORMS[variant]
    return {
        "variant": variant,
        "images": 1281167,  # becomes the number of images in the folder
        # architecture: main.py, lib/NCEAverage.py
        "dim": 128,
        "form": form,
        "negatives": negatives,
        "bank_momentum": 0.5,
        "bank_start": "random",  # the mini scale's is the images
        "temperature": 0.07,
        "bn_group": 32,  # 256 images on 8 GPUs (PyContrast; lemniscate does not say how many GPUs)
        # views: main.py, one a step
        **augmentations.MOCO1,
        "views": 1,
        "blur_p": (0.0,),
        "solarize_p": (0.0,),
        # optimisation: main.py, adjust_learning_rate
        **optim.MOCO,
        "schedule": "step",
        "milestones": (120, 160),
    }


class InstDisc(contrast.Banked):
    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The loss of telling each image from the others, a scalar; about ln(K + 1) at the start of the softmax forms.

        views:   one tensor [N, 3, S, S]
        indices: [N], the number of each image in the folder
        """
        v = self.embedded(views[0])
        with heads.full_precision(v):
            loss, accuracy = self.instances(v, indices)
        self.seen = (indices, v.detach())
        self.statistics = {"accuracy": accuracy}
        if self.instances.form == "nce":
            self.statistics["z"] = self.instances.z
        return loss


METHOD = InstDisc
