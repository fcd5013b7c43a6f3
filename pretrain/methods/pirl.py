"""PIRL: an image and its shuffled jigsaw patches must have the same embedding, the one the memory bank holds of the image.

Paper: arXiv 1912.01991. The variants are the two codes whose weights are published:
    vissl       facebookresearch/vissl, configs/config/pretrain/pirl/pirl_jigsaw_4node_resnet50.yaml, by the paper's author:
                noise-contrastive estimation with 32000 negatives, 800 epochs
    pycontrast  HobbitLong/PyContrast, --method PIRL --cosine: cross-entropy over 65536 negatives, no colours on the patches,
                200 epochs
Expected, ResNet-50, ImageNet: linear top-1 64.29 (vissl, 800 epochs; 62.9 after 200; projects/PIRL/README.md), 61.7 (pycontrast,
README); VOC07+12 C4 AP 55.5 (pycontrast).

    bench pretrain pirl --data imagenet/train [--variant pycontrast]

Differences: VISSL spares biases and batch norm the weight decay (regularize_bias, regularize_bn); PyContrast compares image and
patches with the same draw of negatives and counts epochs from 1 in its cosine. The patches are shuffled after their projection, as in
PyContrast, which VISSL does before: the same, because each patch is projected alone.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import contrast, heads, jigsaw


def recipe(variant: str | None = None) -> dict:
    """The published recipe of vissl (default) or pycontrast."""
    if variant not in (None, "vissl", "pycontrast"):
        raise ValueError(f"expected variant vissl or pycontrast of pirl, found {variant!r}")
    vissl = variant != "pycontrast"
    return {
        "variant": "vissl" if vissl else "pycontrast",
        "images": 1281167,  # becomes the number of images in the folder
        # architecture: MODEL.HEAD and LOSS of the configuration; options/base_options.py
        "dim": 128,
        "form": "nce" if vissl else "softmax",  # vissl/config/defaults.yaml, loss_type
        "negatives": 32000 if vissl else 65536,
        "bank_momentum": 0.5,
        "temperature": 0.07,
        "patch_weight": 0.5,  # loss_weights; --beta
        "bn_group": 32,  # a GPU: 1024 images on 32, 256 on 8
        # views: TRANSFORMS of the configuration; datasets/util.py, aug "A" for a memory bank
        "views": 2,
        "size": 224,
        "crop_area": (0.08, 1.0),
        "gray_first": False,
        "gray_p": 0.2,
        "jitter": (0.4, 0.4, 0.4, 0.2 if vissl else 0.4),
        "jitter_p": 1.0,
        "blur_p": (0.0, 0.0),
        "blur_sigma": (0.1, 2.0),
        "solarize_p": (0.0, 0.0),
        "flip_p": 0.5,
        "photometric_p": 0.66 if vissl else 0.0,
        "jigsaw": 1,
        "jigsaw_size": 255,
        "jigsaw_area": (0.6, 1.0),
        "jigsaw_patch": 64,
        "jigsaw_colours": vissl,
        # optimisation: OPTIMIZER of the configuration; options/
        "epochs": 800 if vissl else 200,
        "batch_size": 1024 if vissl else 256,
        "optimiser": "sgd",
        "base_lr": 0.03,  # a 256 images
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "schedule_unit": "epoch",
        "milestones": (),
        "warmup_epochs": 0.0,
        "warmup_start": 0.0,
        "end_factor": 1e-3,  # 0.12 to 1.2e-4; lr_decay_rate ** 3
        "constant_lr": "",
        "sync_bn": False,
        "precision": "fp32",
    }


class PIRL(nn.Module):
    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.bn_group, self.patch_weight = recipe["bn_group"], recipe["patch_weight"]
        self.backbone, width = heads.backbone(arch)
        self.head = nn.Linear(width, recipe["dim"])
        self.jigsaw = jigsaw.Jigsaw(nn.Linear(width, recipe["dim"]), recipe["dim"])
        self.instances = contrast.Instances(recipe)
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The weighted mean of the losses of patches and image against the bank, a scalar.

        views:   the image [N, 3, S, S] and its patches [N, 9, 3, P, P]
        indices: [N], the number of each image in the folder
        """
        image, patches = views
        v_patches = self.jigsaw(self.backbone, patches, self.bn_group)  # [N, C]
        v = self.head(heads.by_group(self.backbone, image, min(self.bn_group, len(image))))  # [N, C]
        with heads.full_precision(v):
            v = F.normalize(v.float(), dim=1)
            of_patches, accuracy_patches = self.instances(
                v_patches, indices
            )  # the first batch's patches give z, as in VISSL
            of_image, accuracy = self.instances(v, indices)
        self.seen = (indices, v.detach())
        self.statistics = {"accuracy": accuracy, "accuracy_patches": accuracy_patches}
        return self.patch_weight * of_patches + (1 - self.patch_weight) * of_image

    def after_update(self, progress: float) -> None:
        """Each image's place in the bank moves towards the embedding of the image, not of its patches."""
        self.instances.update(*self.seen)


METHOD = PIRL
