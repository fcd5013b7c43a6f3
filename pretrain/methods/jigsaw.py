"""Jigsaw: in which of many orders are the nine patches of the image?

Paper: arXiv 1603.09246; of ResNet-50: facebookresearch/vissl, configs/config/pretrain/jigsaw/jigsaw_8gpu_resnet.yaml, which has 2000
orders; perm100.yaml and perm10K.yaml are permutations=100 and 10000. The patches are cut with a gap and at a random place of their
cell, so that no line goes on from one to the next, and two thirds of the images are grey.
Expected, ResNet-50, ImageNet, 105 epochs: linear top-1 48.57, 46.73 and 48.11 with 100, 2000 and 10000 orders (VISSL's MODEL_ZOO.md).

    bench pretrain jigsaw --data imagenet/train

Differences: the orders are drawn as VISSL's generate_jigsaw_permutations.py draws them, its own set being a file elsewhere; the weight
decay spares the heads' biases, which there decay, beside batch norm; VISSL begins its convolutions with torch's default (fan-in,
uniform); the square is cut from the image and then resized, there the image is resized first; a patch moves in its cell by one pixel
more; batch norm takes a process's whole share of the batch, there the 32 images of a GPU, the same on 8 GPUs; an epoch's incomplete
batch is dropped. The warm-up is the configuration's (methods.md 1.6.3), which VISSL's present code leaves out for one machine's 256
images (utils/hydra_config.py, resolve_linear_schedule): warmup_epochs=0.
"""

import itertools

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, dist, heads, jigsaw, optim

WARMUP_FOLLOWS = (None,)  # --epochs: lengths of param_schedulers.lr are shares of the training


def recipe(variant: str | None = None) -> dict:
    """VISSL's recipe; there are no variants."""
    if variant is not None:
        raise ValueError(f"expected no variant of jigsaw, found {variant!r}")
    return {
        "variant": None,
        # architecture: MODEL.HEAD
        "dim": 1000,  # of a patch
        "permutations": 2000,
        # views: TRANSFORMS
        **augmentations.PLAIN,
        "gray_p": 0.66,
        "jigsaw": 0,
        "jigsaw_size": 255,
        "jigsaw_side": 255 / 256,
        "jigsaw_patch": 64,
        # optimisation: OPTIMIZER
        **optim.MOCO,
        "epochs": 105,
        "base_lr": 0.1,  # a 256 images
        "flat_decay": 0.0,  # regularize_bn
        "schedule": "step",
        "milestones": (30, 60, 90, 100),
        "warmup_epochs": 5.0,
        "warmup_start": 0.25,
    }


def permutations(count: int, first: int, patches: int = jigsaw.PATCHES) -> torch.Tensor:
    """[count, patches]: orders that differ from one another in as many places as can be, on average.

    One after the other, from number `first` of all in lexicographic order, the one that has the fewest places in common with those
    that are chosen, the first of equals (arXiv 1603.09246, algorithm 1, by the mean as VISSL's max_avg).
    """
    every = np.array(list(itertools.permutations(range(patches))), np.int8)
    has = [[every[:, place] == patch for patch in range(patches)] for place in range(patches)]
    common = np.zeros(len(every), np.int32)
    chosen = [first]
    while len(chosen) < count:
        common[chosen[-1]] = np.iinfo(np.int32).max // 2  # never again
        for place, patch in enumerate(every[chosen[-1]]):
            common += has[place][patch]
        chosen.append(int(common.argmin()))
    return torch.from_numpy(every[chosen].astype(np.int64))


class Jigsaw(nn.Module):
    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.backbone, width = heads.backbone(arch)
        dim, count = recipe["dim"], recipe["permutations"]
        self.projector = nn.Sequential(nn.Linear(width, dim), nn.BatchNorm1d(dim), nn.ReLU(inplace=True))
        self.head = nn.Linear(jigsaw.PATCHES * dim, count)
        self.permutations: torch.Tensor
        self.register_buffer("permutations", permutations(count, int(torch.randint(362_880, ()))))
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """Cross-entropy of the order, a scalar; ln 2000 = 7.601 for a guess.

        views: one tensor [N, 9, 3, P, P], the patches row by row
        """
        patches = views[0]
        z = self.projector(self.backbone(patches.flatten(0, 1))).unflatten(0, (-1, jigsaw.PATCHES))  # [N, 9, C]
        drawn = torch.randint(len(self.permutations), (dist.world_size() * len(z),), device=z.device)
        numbers = dist.own(drawn)
        # shuffled here and not as pixels: every patch passes alone
        shuffled = z.gather(1, self.permutations[numbers][:, :, None].expand_as(z))
        logits = self.head(shuffled.flatten(1))  # [N, permutations]
        with heads.full_precision(logits):
            loss = F.cross_entropy(logits.float(), numbers)
        self.statistics = {"accuracy": (logits.argmax(dim=1) == numbers).float().mean() * 100}
        return loss


METHOD = Jigsaw
