"""PIC: plain classification in which every image is a class, whose weight is learnt like any other; one view of an image a step.

Paper: arXiv 2006.14618; code: bl0/PIC. "multi" is the release script (scripts/PIC.sh): one crop of 160 pixels and three of 96, which
do not move the classes' weights; "single" is the README's command: one crop of 224 (not what the released code makes of the command: it
draws two crops, which its PIC cannot read, contrast/data/dataset.py; so only its numbers are the README's).
Expected, ResNet-50, ImageNet, multi, 200 / 400 / 1600 epochs: linear top-1 68.6 / 70.3 / 70.8 (README, which reports losses that
become NaN at 1600).

    bench pretrain pic --data imagenet/train [--variant single] [--epochs 400]

The sliding window: all images are put in one random order, an "epoch" visits a window of it in random order, and the next window
begins one stride later, so that an image comes again soon after it was seen.
Differences: the order wraps at the number of images and is not drawn anew. The code takes a window's length for that number
(contrast/data/sampler.py, __len__): its single never leaves its first 131,072 images, and its multi (--shuffle-per-epoch) draws a new
order before seven windows of eight, which share no more with the last one than any two draws, a tenth, and repeats the eighth. It
rounds the epochs and the warm-up up to whole windows (1,000,960 and 25,088 steps), ours are 1,000,800 and 25,020.
Recent negatives (the paper's section on large data; not in the official code; unverified: its constants could not be read, so
recent=0 compares with every class): with recent=m the classes are the images of the last m steps. The paper's correction of the other
classes' weights, the steps of momentum and decay that they miss, needs no code here: the optimiser takes them for every class at every
step, and a class without a gradient moves by [w; u] <- [[1 - lr decay, -lr momentum], [decay, momentum]] [w; u].
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import dist, heads, optim

WARMUP_FOLLOWS = ("multi",)  # --epochs: scripts/PIC.sh, epochs / 40; the README's command has option.py's 5


def recipe(variant: str | None = None) -> dict:
    """The published recipe of multi (default) or single."""
    if variant not in (None, "multi", "single"):
        raise ValueError(f"expected variant multi or single of pic, found {variant!r}")
    multi = variant != "single"
    crops = 4 if multi else 1
    return {
        "variant": "multi" if multi else "single",
        "unverified": ("recent",),
        "images": 1281167,  # becomes the number of images in the folder
        # architecture: contrast/models/PIC.py, contrast/resnet.py
        "hidden": 2048,
        "dim": 128,
        "temperature": 0.2,
        "large": 1,  # this many views, the first, give the classes a gradient
        "recent": 0,  # steps whose images are the negatives; 0 compares with every class
        "window": (131072, 16384),  # --window-size, --window-stride
        "bn_group": 64,  # a GPU: 256 images on 4
        # views: contrast/data/transform.py, "MultiCrop" with --crop 0.08 --crop2 0.14, or "SimCLR"
        "views": crops,
        "size": (160, 96, 96, 96) if multi else 224,
        "crop_area": ((0.14, 1.0), *((0.08, 0.14),) * 3) if multi else (0.08, 1.0),
        "gray_first": False,
        "gray_p": 0.2,
        "jitter": (0.8, 0.8, 0.8, 0.2),
        "jitter_p": 0.8,
        "blur_p": (0.5,) * crops,
        "blur_sigma": (0.1, 2.0),
        "solarize_p": (0.0,) * crops,
        "flip_p": 0.5,
        # optimisation: contrast/option.py, contrast/lr_scheduler.py; epochs and warm-up in passes over all images
        **optim.MOCO,
        "schedule_unit": "step",
        "warmup_epochs": 5.0,
        "warmup_start": 0.01,
        "end_lr": 1e-6,
        "precision": "fp16",  # --amp-opt-level O1
    }


def instance_loss(f: torch.Tensor, w: torch.Tensor, labels: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cosine softmax cross-entropy, a scalar; about ln(classes) at the start.

    f: [N, C], w: [classes, C], of any length; labels: [N]
    """
    return F.cross_entropy(F.normalize(f, dim=1) @ F.normalize(w, dim=1).T / temperature, labels)


class PIC(nn.Module):
    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.temperature, self.large, self.bn_group = recipe["temperature"], recipe["large"], recipe["bn_group"]
        # contrast/resnet.py: the last batch norm of every residual block starts at 0
        self.backbone, width = heads.backbone(arch, zero_init_residual=True)
        self.head = heads.mlp([width, recipe["hidden"], recipe["dim"]], norm=False)
        self.w = nn.Parameter(torch.randn(recipe["images"], recipe["dim"]) * 0.01)  # one row an image
        # the images of the last steps, oldest first; -1 before there were any
        self.register_buffer("recent", torch.full((recipe["recent"], recipe["batch_size"]), -1))
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The mean of the crops' losses, a scalar; about ln(images) at the start.

        views:   tensors [N, 3, S, S], the large crops first
        indices: [N], the number of each image in the folder
        """
        f = [self.head(heads.by_group(self.backbone, x, min(self.bn_group, len(x)))) for x in views]  # [N, C] each
        w, target = self.classes(indices)
        with heads.full_precision(f[0]):
            w = w.float()
            losses = [
                instance_loss(x.float(), w if v < self.large else w.detach(), target, self.temperature)
                for v, x in enumerate(f)
            ]
        self.statistics = {"classes": float(len(w))}
        return torch.stack(losses).mean()

    def classes(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The weights of the classes that are told apart in this step, [M, C], and the place of each image's own among them, [N]."""
        if not len(self.recent):
            return self.w, indices
        self.recent.copy_(torch.cat([self.recent[1:], dist.gathered(indices)[None]]))
        kept = self.recent.unique()  # sorted
        kept = kept[kept >= 0]
        return self.w[kept], torch.searchsorted(kept, indices)


METHOD = PIC
