"""Losses that tell one positive from many negatives: their logits carry the positive in column 0.

The negatives come from a queue of keys (MoCo, InfoMin, DenseCL) or from a memory bank (InstDisc, PIRL).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import dist, heads, memory

EPSILON = 1e-7  # zhirongw/lemniscate.pytorch lib/NCECriterion.py


def queue_logits(q: torch.Tensor, k: torch.Tensor, queue: torch.Tensor, temperature: float) -> torch.Tensor:
    """[N, 1 + K]: the similarity of every query to its own key, then to the queue's; only q gets a gradient.

    q, k:  [N, C], unit length
    queue: [C, K], unit length along C; copied, because it moves on before the backward pass
    """
    positive = (q * k.detach()).sum(dim=1, keepdim=True)  # [N, 1]
    return torch.cat([positive, q @ queue.to(q.dtype, copy=True)], dim=1) / temperature


def softmax_loss(logits: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of column 0 of [N, 1 + K] (InfoNCE), a scalar; ln(K + 1) where all are equal."""
    return F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device))


def nce_loss(logits: torch.Tensor, z: torch.Tensor, images: int) -> torch.Tensor:
    """Noise-contrastive estimation: was a column drawn from the model or from uniform noise? A scalar above 0.

    P = exp(logits) / z,  h = P / (P + K / images);  the sum of -ln h(positive) and of every -ln(1 - h(negative)), a mean over N.
    z is a constant: no gradient flows through it.
    """
    p = logits.exp() / z.detach()
    noise = (logits.shape[1] - 1) / images  # K draws, each 1 / images likely
    positive = (p[:, 0] / (p[:, 0] + noise + EPSILON)).log()  # [N]
    negative = (noise / (p[:, 1:] + noise + EPSILON)).log()  # [N, K]
    return -(positive + negative.sum(dim=1)).mean()


def accuracy(logits: torch.Tensor) -> torch.Tensor:
    """Percent of the rows of [N, 1 + K] whose positive stands above every negative."""
    return (logits[:, :1] > logits[:, 1:]).all(dim=1).float().mean() * 100


class Instances(nn.Module):
    """Tells images apart by their embeddings in a memory bank, each image a class (lib/NCEAverage.py, lib/LinearAverage.py).

    recipe: images; dim; negatives, 0 for every other image; temperature; form, "nce" or "softmax"; bank_momentum; bank_start,
            "random" or "images", see `begin`
    z:      nce's normalisation constant: the mean of exp(logits) over the first batch, times the images; 0 before
    """

    def __init__(self, recipe: Mapping[str, Any]) -> None:
        super().__init__()
        self.form, self.negatives = recipe["form"], recipe["negatives"]
        self.temperature, self.weight = recipe["temperature"], recipe["bank_momentum"]
        self.start, self.bank = recipe["bank_start"], memory.Bank(recipe["images"], recipe["dim"])
        self.register_buffer("z", torch.zeros(()))

    def forward(self, v: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, a scalar, and the accuracy in percent.

        v: [N, C], unit length; indices: [N], the images' numbers
        """
        bank, columns = self.bank.bank.to(v.dtype), self.columns(indices)
        logits = (v @ bank.T / self.temperature).gather(1, columns)  # [N, 1 + K]
        again = columns == indices[:, None]  # a draw may hit the image's own row, above which its positive cannot stand
        again[:, 0] = False
        found = accuracy(logits.detach().masked_fill(again, -torch.inf))
        if self.form == "softmax":
            return softmax_loss(logits), found
        if self.z == 0:
            self.z.fill_(dist.gathered(logits.exp().mean()[None]).mean() * len(bank))
        return nce_loss(logits, self.z, len(bank)), found

    @torch.no_grad()
    def begin(
        self,
        embedded: Callable[[torch.Tensor], torch.Tensor],
        images: Iterable[tuple[list[torch.Tensor], torch.Tensor]],
    ) -> None:
        """With bank_start=images, every row becomes its image's embedding by the network that has not learnt yet.

        A random row says nothing of its image, and the rows that were seen have more in common with every image than one that was
        not: until each was seen a few times, the loss drives the network away from itself. Over hundreds of epochs that is nothing.

        embedded: [N, 3, S, S] -> [N, C], unit length; images: batches of views and indices of this process
        """
        if self.start == "images":
            for views, indices in images:
                self.bank.update(dist.gathered(indices), dist.gathered(embedded(views[0])), weight=0.0)

    def columns(self, indices: torch.Tensor) -> torch.Tensor:
        """[N, 1 + K], rows of the bank: each image's own, then its negatives."""
        if self.negatives:
            return self.bank.drawn(indices, self.negatives)
        images = len(self.bank.bank)
        return (indices[:, None] + torch.arange(images, device=indices.device)) % images

    def update(self, indices: torch.Tensor, v: torch.Tensor) -> None:
        """Move the bank's rows towards this step's embeddings, [N, C] of unit length, of all processes."""
        self.bank.update(dist.gathered(indices), dist.gathered(v), self.weight)


class Banked(nn.Module):
    """What the methods with a memory bank share: the embedding of an image, and the beginning and the update of its row.

    A method's forward leaves what it has seen, (indices [N], embeddings [N, C]), in `seen`.
    """

    survey_views = 1  # the random view that `survey` is given of every image

    def __init__(self, arch: str, recipe: Mapping[str, Any]) -> None:
        super().__init__()
        self.bn_group = recipe["bn_group"]
        self.backbone, self.width = heads.backbone(arch)
        self.head = nn.Linear(self.width, recipe["dim"])
        self.instances = Instances(recipe)
        self.statistics: dict[str, torch.Tensor | float] = {}

    def embedded(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C], unit length, of images [N, 3, S, S]."""
        v = self.head(heads.by_group(self.backbone, x, min(self.bn_group, len(x))))
        return F.normalize(v.float(), dim=1)

    def survey(self, epoch: int, images: Iterable[tuple[list[torch.Tensor], torch.Tensor]]) -> None:
        """Before the first step, the bank's beginning; images: batches of views and indices."""
        if epoch == 0:
            self.instances.begin(self.embedded, images)

    def after_update(self, progress: float) -> None:
        """Each image's place in the bank moves towards what was seen of it in this step."""
        self.instances.update(*self.seen)
