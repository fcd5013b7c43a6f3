"""InfoMin: good views share what the task needs and nothing else, so the colours are stronger than MoCo's, and nine shuffled
patches of a third crop must find the same key as the query.

Paper: arXiv 2005.10243; code: HobbitLong/PyContrast, --method InfoMin --cosine.
Expected, ResNet-50, ImageNet, 100 / 200 / 800 epochs: linear top-1 67.4 / 70.1 / 73.0 (README). After 200 epochs VOC07+12 C4
AP 57.6, COCO FPN 40.6, COCO C4 39.0; after 800, 57.5 on VOC.

    bench pretrain infomin --data imagenet/train [--epochs 800]

Differences: PyContrast counts epochs from 1 in its cosine, keeps an epoch's incomplete batch, and flips before the colours and
RandAugment, here after them: the same but for ShearY, which leaves the other side in place; blurred pixels are cut to whole numbers
there and rounded here. A batch above 256 wants
warmup_epochs=5.0 (10.0 beyond 500 epochs) and warmup_start so that the first rate is 0.01 (options/train_options.py), where the code
warms up by the batch and does not shift the cosine.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, contrast, dist, heads, jigsaw, memory, momentum, optim


def recipe(variant: str | None = None) -> dict:
    """The published recipe of 200 epochs; there are no variants."""
    if variant is not None:
        raise ValueError(f"expected no variant of infomin, found {variant!r}")
    return {
        "variant": None,
        # architecture: options/base_options.py, override_dict["InfoMin"]
        "dim": 128,
        "queue": 65536,
        "ema": 0.999,  # --alpha
        "temperature": 0.15,
        "patch_weight": 0.5,  # --beta
        "bn_group": 32,  # 256 images on 8 GPUs
        # views: datasets/util.py, aug "D" without a memory bank, for query and key; the patches keep their colours
        **augmentations.MOCO2,
        "views": 3,
        "jitter": (0.8, 0.8, 0.8, 0.2),
        "blur_p": (0.5, 0.5, 0.0),
        "blur_kernel": 23,
        "solarize_p": (0.0, 0.0, 0.0),
        "randaugment": ((2, 10, 0.5), (2, 10, 0.5), None),
        "jigsaw": 2,
        "jigsaw_size": 255,
        "jigsaw_area": (0.6, 1.0),
        "jigsaw_patch": 64,
        "jigsaw_colours": False,
        # optimisation: options/base_options.py
        **optim.PYCONTRAST,
    }


class InfoMin(nn.Module):
    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.m, self.temperature, self.bn_group = recipe["ema"], recipe["temperature"], recipe["bn_group"]
        self.patch_weight = recipe["patch_weight"]
        self.backbone, width = heads.backbone(arch)
        self.head = heads.mlp([width, width, recipe["dim"]], norm=False)
        self.jigsaw = jigsaw.Jigsaw(heads.mlp([width, width, recipe["dim"]], norm=False), recipe["dim"])
        self.key_backbone = momentum.follower(self.backbone)
        self.key_head = momentum.follower(self.head)
        self.queue = memory.Queue(recipe["dim"], recipe["queue"])
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The weighted mean of the InfoNCE of the query and of its patches, a scalar; about ln(K + 1) at the start.

        views: query and key [N, 3, S, S], and patches [N, 9, 3, P, P]
        """
        x_q, x_k, patches = views
        q = self.head(heads.by_group(self.backbone, x_q, min(self.bn_group, len(x_q))))  # [N, C]
        q_patches = self.jigsaw(self.backbone, patches, self.bn_group)  # [N, C]
        with torch.no_grad():
            k = F.normalize(self.key_head(momentum.shuffled(self.key_backbone, x_k, self.bn_group)).float(), dim=1)
        with heads.full_precision(q):
            q = F.normalize(q.float(), dim=1)
            of_image, of_patches = (
                contrast.queue_logits(x, k, self.queue.queue, self.temperature) for x in (q, q_patches)
            )
            loss = contrast.softmax_loss(of_image) * (1 - self.patch_weight)
            loss = loss + contrast.softmax_loss(of_patches) * self.patch_weight
        self.queue.enqueue(dist.gathered(k))
        self.statistics = {
            "accuracy": contrast.accuracy(of_image),
            "accuracy_patches": contrast.accuracy(of_patches),
        }
        return loss

    def after_update(self, progress: float) -> None:
        """The key network follows after the optimiser's step (learning/contrast_trainer.py), not before the keys as in MoCo."""
        momentum.follow(self.key_backbone, self.backbone, self.m)
        momentum.follow(self.key_head, self.head, self.m)


METHOD = InfoMin
