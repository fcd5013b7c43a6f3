"""DeepCluster: cluster the images' features before every epoch and learn to tell the clusters, then cluster again.

Papers: arXiv 1807.05520 (v1), arXiv 2006.09882, appendix (v2); code: facebookresearch/deepcluster (v1), facebookresearch/swav,
main_deepclusterv2.py and scripts/deepclusterv2_*.sh (v2; v2_2x224 has the large crops only, 400 epochs).
Expected, ResNet-50, ImageNet: linear top-1 75.2 (v2, 800 epochs), 70.2 (v2_2x224), from swav's README; v1 was published with
AlexNet and VGG-16, a re-run with ResNet-50 gives 46.9 (OpenSelfSup's model zoo, 200 epochs).

    bench pretrain deepcluster --data imagenet/train [--variant v1]

v2 is SwAV's network with three sets of prototypes, which are the centroids of the embeddings seen in the epoch before. v1 looks at
the whole folder, whitens its features and draws a new classifier every time.
Differences: v1's fixed Sobel filters are left out, because their two channels fit no RGB backbone; v1 weighs an image by the
inverse of its cluster's size where the code draws clusters evenly (which the paper calls equivalent where it avoids trivial
solutions), drops an epoch's incomplete batch, there a step, and has no layers with dropout between the pooled features and the
classifier, of which the code clusters the last one's before its ReLU; in v2 an image that the last, incomplete batch leaves out of
an epoch keeps its embedding of the epoch before, batch norm takes the whole batch, not groups of 8 GPUs, the first embeddings pass
through it with both crops together, there with one, the centroids begin with embeddings of all processes, there of the first, and
the warm-up ends as swav.py says.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, clusters, dist, heads, optim
from pretrain.methods import swav

VIEWS = {"v2": swav.CROPS, "v2_2x224": swav.LARGE_CROPS}


def recipe(variant: str | None = None) -> dict:
    """The published recipe of v2 (default), v2_2x224 or v1."""
    variant = variant or "v2"
    if variant == "v1":
        return original()
    if variant not in VIEWS:
        raise ValueError(f"expected variant v1, v2 or v2_2x224 of deepcluster, found {variant!r}")
    return {
        "variant": variant,
        # architecture and loss: main_deepclusterv2.py and src/resnet50.py
        "hidden": 2048,
        "dim": 128,
        "prototypes": 3000,
        "sets": 3,
        "iterations": 10,
        "temperature": 0.1,
        "images": 1281167,  # becomes the number of images
        **VIEWS[variant],
        **swav.OPTIMISATION,
        "epochs": 400 if variant == "v2_2x224" else 800,
        "precision": "fp32",
    }


def original() -> dict[str, Any]:
    """The recipe of v1: main.py's defaults and main.sh, views of clustering.py, cluster_assign."""
    return {
        "variant": "v1",
        "prototypes": 10000,  # --k
        "whitened": 256,  # clustering.py, preprocess_features
        "iterations": 20,  # clustering.py, run_kmeans
        "images": 1281167,  # becomes the number of images
        **augmentations.PLAIN,
        **optim.MOCO,
        "base_lr": 0.05,  # a 256 images
        "weight_decay": 1e-5,
        "schedule": "step",
        "milestones": (),  # constant
        "no_momentum": "classifier",  # main.py, optimizer_tl
        "sync_bn": True,  # main.sh has one GPU
    }


class DeepClusterV2(nn.Module):
    survey_views = 2  # the random views that `survey` is given of every image

    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.temperature, self.iterations = recipe["temperature"], recipe["iterations"]
        images, sets, k, dim = (recipe[key] for key in ("images", "sets", "prototypes", "dim"))
        _check(k, images)
        self.backbone, width = heads.backbone(arch)
        self.head = heads.mlp([width, recipe["hidden"], dim], bias=True)
        # the last embedding of either large crop of every image, unit length along C
        self.register_buffer("memory", torch.zeros(2, images, dim))
        # set to the centroids and never trained (--freeze_prototypes_niters 300000 is more than 800 epochs have)
        self.register_buffer("prototypes", torch.zeros(sets, k, dim))
        self.register_buffer("clusters", torch.zeros(sets, images, dtype=torch.long))
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """Cross-entropy of every crop with its image's cluster, averaged over the sets, a scalar; at most about ln(prototypes).

        views:   V tensors [N, 3, S_v, S_v], of which the first two go into the memory
        indices: [N], the images' numbers
        """
        z = self.embedded(views)
        with heads.full_precision(z):
            scores = z @ self.prototypes.transpose(1, 2) / self.temperature  # [sets, V * N, K]
            targets = self.clusters[:, indices].repeat(1, len(views))  # [sets, V * N]
            loss = F.cross_entropy(scores.flatten(0, 1), targets.flatten())
        self.remember(z, indices)
        self.statistics = {"accuracy": (scores.argmax(dim=2) == targets).float().mean() * 100}
        return loss

    def embedded(self, views) -> torch.Tensor:
        """[V * N, C] of unit length."""
        return F.normalize(self.head(heads.multi_crop(self.backbone, views)).to(self.memory.dtype), dim=1)

    @torch.no_grad()
    def remember(self, z: torch.Tensor, indices: torch.Tensor) -> None:
        n = len(indices)
        everywhere = dist.gathered(indices)
        for crop in (0, 1):
            self.memory[crop, everywhere] = dist.gathered(z[crop * n : (crop + 1) * n])

    @torch.no_grad()
    def survey(self, epoch: int, images: Iterable[tuple[list[torch.Tensor], torch.Tensor]]) -> None:
        """Cluster the memory, which a look at every image fills before the first epoch (init_memory, cluster_memory)."""
        if epoch == 0:
            for views, indices in images:
                self.remember(self.embedded(views[:2]), indices)
        with heads.full_precision(self.memory):
            for s in range(len(self.prototypes)):
                x = self.memory[s % 2]  # the crops take turns
                first = dist.permutation(len(x), x.device)[: self.prototypes.shape[1]]
                self.prototypes[s], self.clusters[s] = clusters.spherical_kmeans(x, x[first], self.iterations)
        dist.as_first(self.prototypes, self.clusters)


class DeepClusterV1(nn.Module):
    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.whitened, self.iterations = recipe["whitened"], recipe["iterations"]
        images, k = recipe["images"], recipe["prototypes"]
        _check(k, images)
        self.backbone, width = heads.backbone(arch)
        self.classifier = nn.Linear(width, k)
        self.register_buffer("clusters", torch.zeros(images, dtype=torch.long))
        self.register_buffer("weights", torch.ones(images))
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """Cross-entropy with the clusters, every cluster weighing the same in the folder, a scalar.

        views:   one tensor [N, 3, S, S]
        indices: [N], the images' numbers
        """
        logits, targets = self.classifier(self.backbone(views[0])), self.clusters[indices]  # [N, K], [N]
        with heads.full_precision(logits):
            loss = (F.cross_entropy(logits.float(), targets, reduction="none") * self.weights[indices]).mean()
        self.statistics = {"accuracy": (logits.argmax(dim=1) == targets).float().mean() * 100}
        return loss

    @torch.no_grad()
    def survey(self, epoch: int, images: Iterable[tuple[list[torch.Tensor], torch.Tensor]]) -> None:
        """Cluster the features of the images' centres; begin a new classifier (main.py)."""
        features = torch.empty(len(self.clusters), self.classifier.in_features)  # on the CPU: 10 GB of ImageNet
        self.backbone.eval()
        for views, indices in images:
            found = dist.gathered(self.backbone(views[0]).float())
            features[dist.gathered(indices).cpu()] = found.cpu()
        self.backbone.train()
        k = self.classifier.out_features
        with heads.full_precision(features), heads.full_precision(self.weights):
            x = clusters.whitened(features, self.whitened, self.weights.device)
            first = dist.permutation(len(x), x.device)[:k]
            self.clusters.copy_(clusters.kmeans(x, x[first], self.iterations))
        dist.as_first(self.clusters)
        sizes = self.clusters.bincount(minlength=k)
        self.weights.copy_(len(x) / ((sizes > 0).sum() * sizes[self.clusters]))
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        dist.as_first(self.classifier.weight)


def _check(prototypes: int, images: int) -> None:
    if prototypes > images:
        raise ValueError(
            f"expected at least one image a cluster, found {prototypes} clusters for {images} images: "
            f"prototypes={max(2, images // 10)}"
        )


def METHOD(arch: str, recipe: dict) -> nn.Module:
    return (DeepClusterV1 if recipe["variant"] == "v1" else DeepClusterV2)(arch, recipe)
