"""CLSA: MoCo v2, and views too strong to be positives, which must see the other images with the same likelihoods as a weak view.

Paper: arXiv 2104.07713; code: maple-research-lab/CLSA, the README's two commands without the symmetrical loss. "single" has one weak
query of 224 pixels and one strong one of 96; "multi" has a weak and a strong one at each of five sizes.
Expected, ResNet-50, ImageNet: linear top-1 69.4 (single) and 73.3 (multi) after 200 epochs, 72.2 and 76.2 after 800 (README; the
weights of the last are not public).

    bench pretrain clsa --data imagenet/train [--variant multi] [--epochs 800]

The negatives are the queue and the keys of the whole batch. Every weak query's loss is added, and every pair's of a weak and a strong
one: "multi" adds 5 cross-entropies and 25 divergences, as the code does.
Difference: the code flips a strong view before its operations, here after them: the same but for ShearY, which leaves the other side
in place.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, dist, heads, memory, momentum, optim

# ops/argparser.py: the sizes of the crops and their areas, --size_crops, --min_scale_crops, --max_scale_crops
SIZES = (224, 192, 160, 128, 96)
AREAS = ((0.2, 1.0), (0.172, 0.86), (0.143, 0.715), (0.114, 0.571), (0.086, 0.429))


def recipe(variant: str | None = None) -> dict:
    """The published recipe of single (default) or multi."""
    if variant not in (None, "single", "multi"):
        raise ValueError(f"expected variant single or multi of clsa, found {variant!r}")
    multi = variant == "multi"
    weak, strong = (range(5), range(5)) if multi else ((0,), (4,))  # --pick_weak, --pick_strong
    crops = (0, *weak, *strong)  # the key is a weak view of 224 pixels
    return {
        "variant": "multi" if multi else "single",
        # architecture: model/CLSA.py
        "dim": 128,
        "queue": 65536,
        "ema": 0.999,
        "temperature": 0.2,
        "divergence_temperature": 0.2,  # --clsa_t
        "divergence_weight": 1.0,  # --alpha
        "bn_group": 32,  # 256 images on 8 GPUs
        # views: data_processing/Multi_FixTransform.py: the key, the weak queries, the strong ones
        **augmentations.MOCO2,
        "views": len(crops),
        "size": tuple(SIZES[i] for i in crops),
        "crop_area": tuple(AREAS[i] for i in crops),
        "blur_p": (0.5,) * len(crops),
        "solarize_p": (0.0,) * len(crops),
        "strong": (False,) * (1 + len(weak)) + (True,) * len(strong),
        # optimisation: the README's commands
        **optim.MOCO,
    }


def divergence(weak: torch.Tensor, strong: torch.Tensor, temperature: float) -> torch.Tensor:
    """The cross-entropy of a strong view's likelihoods under a weak view's, a scalar; no gradient flows through the weak side.

    weak, strong: [N, K], cosines with the same keys
    """
    p = F.softmax(weak.detach() / temperature, dim=1)
    return -(p * F.log_softmax(strong / temperature, dim=1)).sum(dim=1).mean()


class CLSA(nn.Module):
    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.m, self.bn_group, self.strong = recipe["ema"], recipe["bn_group"], sum(recipe["strong"])
        self.temperature, self.divergence_temperature = recipe["temperature"], recipe["divergence_temperature"]
        self.divergence_weight = recipe["divergence_weight"]
        self.backbone, width = heads.backbone(arch)
        self.head = heads.mlp([width, width, recipe["dim"]], norm=False)
        self.key_backbone = momentum.follower(self.backbone)
        self.key_head = momentum.follower(self.head)
        self.queue = memory.Queue(recipe["dim"], recipe["queue"])
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The sum of the weak queries' InfoNCE and of the strong queries' divergences from them, a scalar.

        views: tensors [N, 3, S, S]: the key, the weak queries, the strong queries
        """
        q = [self.query(x) for x in views[1:]]
        with torch.no_grad():
            momentum.follow(self.key_backbone, self.backbone, self.m)  # before the key forward
            momentum.follow(self.key_head, self.head, self.m)
            k = F.normalize(self.key_head(momentum.shuffled(self.key_backbone, views[0], self.bn_group)).float(), dim=1)
            k = dist.gathered(k)  # [B, C], of all processes
        with heads.full_precision(q[0]):
            keys = torch.cat([k.T, self.queue.queue.to(k.dtype)], dim=1)  # [C, B + K]
            cosines = [F.normalize(x.float(), dim=1) @ keys for x in q]  # [N, B + K] each
            weak, strong = cosines[: -self.strong], cosines[-self.strong :]
            target = dist.own(torch.arange(len(k), device=k.device))  # a query's key stands at its place in the batch
            contrast = sum(F.cross_entropy(x / self.temperature, target) for x in weak)
            apart = sum(divergence(x, y, self.divergence_temperature) for x in weak for y in strong)
        self.queue.enqueue(k)
        self.statistics = {
            "accuracy": (weak[0].argmax(dim=1) == target).float().mean() * 100,
            "contrast": contrast.detach(),
            "divergence": apart.detach(),
        }
        return contrast + self.divergence_weight * apart

    def query(self, x: torch.Tensor) -> torch.Tensor:
        """[N, 3, S, S] -> [N, C]."""
        return self.head(heads.by_group(self.backbone, x, min(self.bn_group, len(x))))


METHOD = CLSA
