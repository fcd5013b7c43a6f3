"""PIRL: an image and its shuffled jigsaw patches must have the same embedding, the one the memory bank holds of the image.

Paper: arXiv 1912.01991. The variants are the two codes whose weights are published:
    pycontrast  HobbitLong/PyContrast, --method PIRL --cosine: cross-entropy over 65536 negatives, no colours on the patches,
                200 epochs
    vissl       facebookresearch/vissl, configs/config/pretrain/pirl/pirl_jigsaw_4node_resnet50.yaml, by the paper's author:
                noise-contrastive estimation with 32000 negatives, 800 epochs; for large data alone, see instdisc.py on nce
Expected, ResNet-50, ImageNet: linear top-1 61.7 (pycontrast, README), 64.29 (vissl, 800 epochs; 62.9 after 200;
projects/PIRL/README.md); VOC07+12 C4 AP 55.5 (pycontrast).

    bench pretrain pirl --data imagenet/train [--variant vissl]

Differences: VISSL begins its convolutions with torch's default (fan-in, uniform) and moves a patch in its cell by one pixel less;
PyContrast compares image and patches with the same draw of
negatives, draws the bank's beginning from a Gaussian and counts epochs from 1 in its cosine. Both keep an epoch's incomplete batch.
The patches are shuffled after their projection, as in PyContrast, which VISSL does before: the same, because each patch is projected
alone.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, contrast, heads, jigsaw, optim


def recipe(variant: str | None = None) -> dict:
    """The published recipe of pycontrast (default) or vissl."""
    if variant not in (None, "pycontrast", "vissl"):
        raise ValueError(f"expected variant pycontrast or vissl of pirl, found {variant!r}")
    vissl = variant == "vissl"
    return {
        "variant": "vissl" if vissl else "pycontrast",
        "images": 1281167,  # becomes the number of images in the folder
        # architecture: MODEL.HEAD and LOSS of the configuration; options/base_options.py
        "dim": 128,
        "form": "nce" if vissl else "softmax",  # vissl/config/defaults.yaml, loss_type
        "negatives": 32000 if vissl else 65536,
        "bank_momentum": 0.5,
        "bank_start": "random",  # the mini scale's is the images
        "temperature": 0.07,
        "patch_weight": 0.5,  # loss_weights; --beta
        "bn_group": 32,  # a GPU: 1024 images on 32, 256 on 8
        # views: TRANSFORMS of the configuration; datasets/util.py, aug "A" for a memory bank
        **augmentations.MOCO1,
        "crop_area": (0.08, 1.0),
        "gray_first": False,
        "jitter": (0.4, 0.4, 0.4, 0.2 if vissl else 0.4),
        "photometric_p": 0.66 if vissl else 0.0,
        "jigsaw": 1,
        "jigsaw_size": 255,
        "jigsaw_area": (0.6, 1.0),
        "jigsaw_patch": 64,
        "jigsaw_colours": vissl,
        # optimisation: OPTIMIZER of the configuration; options/
        **optim.PYCONTRAST,
        "epochs": 800 if vissl else 200,
        "batch_size": 1024 if vissl else 256,
        **({"flat_decay": 0.0} if vissl else {}),  # regularize_bias, regularize_bn
    }


class PIRL(contrast.Banked):
    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__(arch, recipe)
        self.patch_weight = recipe["patch_weight"]
        # The running statistics of batch norm lean to what passes last: PyContrast, networks/build_backbone.py; VISSL, INPUT_KEY_NAMES.
        self.image_first = recipe["variant"] == "pycontrast"
        bank = self.instances.bank.bank
        bank.copy_(F.normalize(bank, dim=1))  # vissl/losses/nce_loss.py, norm_init; PyContrast, memory/mem_bank.py
        self.jigsaw = jigsaw.Jigsaw(nn.Linear(self.width, recipe["dim"]), recipe["dim"])

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The weighted mean of the losses of patches and image against the bank, a scalar; the bank remembers images, not patches.

        views:   the image [N, 3, S, S] and its patches [N, 9, 3, P, P]
        indices: [N], the number of each image in the folder
        """
        image, patches = views
        if self.image_first:
            v, v_patches = self.embedded(image), self.jigsaw(self.backbone, patches, self.bn_group)  # [N, C] both
        else:
            v_patches, v = self.jigsaw(self.backbone, patches, self.bn_group), self.embedded(image)
        with heads.full_precision(v):
            # the first batch's patches give z, as in VISSL
            of_patches, accuracy_patches = self.instances(v_patches, indices)
            of_image, accuracy = self.instances(v, indices)
        self.seen = (indices, v.detach())
        self.statistics = {"accuracy": accuracy, "accuracy_patches": accuracy_patches}
        return self.patch_weight * of_patches + (1 - self.patch_weight) * of_image


METHOD = PIRL
