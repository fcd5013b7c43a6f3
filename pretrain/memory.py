"""What methods remember of earlier batches: a queue of keys, or a bank with a row for every image.

Both are modules whose content is a buffer, so that it is saved with the weights and a resumed run goes on with it.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import dist


class Queue(nn.Module):
    """The newest K keys, first in, first out (MoCo, moco/builder.py).

    queue:   [C, K], unit length along C, random at the start
    pointer: [1], the column of the oldest key
    """

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.register_buffer("queue", F.normalize(torch.randn(dim, size), dim=0))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, k: torch.Tensor) -> None:
        """Replace the oldest keys by k, [N, C] of all processes; K is a multiple of N."""
        size = self.queue.shape[1]
        assert size % len(k) == 0, "recipes.check sees to it"
        # int(pointer) would wait for the device
        oldest = self.pointer + torch.arange(len(k), device=k.device)
        self.queue.index_copy_(1, oldest, k.T.to(self.queue.dtype))
        self.pointer.copy_((self.pointer + len(k)) % size)


class Bank(nn.Module):
    """A remembered embedding of every image (InstDisc, lib/NCEAverage.py).

    bank: [N, C], uniform in +-sqrt(3 / C) at the start, hence of about unit length; rows that were updated have unit length
    """

    def __init__(self, images: int, dim: int) -> None:
        super().__init__()
        self.register_buffer("bank", (2 * torch.rand(images, dim) - 1) / math.sqrt(dim / 3))

    @torch.no_grad()
    def update(self, indices: torch.Tensor, v: torch.Tensor, weight: float) -> None:
        """m_i <- weight * m_i + (1 - weight) * v_i, brought to unit length.

        indices: [N] of all processes; v: [N, C], unit length along C
        """
        mixed = weight * self.bank[indices] + (1 - weight) * v.to(self.bank.dtype)
        self.bank[indices] = F.normalize(mixed, dim=1)

    def drawn(self, indices: torch.Tensor, negatives: int) -> torch.Tensor:
        """[N, 1 + negatives], rows of the bank: the image's own, then uniform draws with replacement, which may hit it again.

        The draws come from the default generator of the bank's device, which stands alike in every process: for millions of them a
        step would wait for the CPU.
        """
        others = torch.randint(len(self.bank), (dist.world_size() * len(indices), negatives), device=indices.device)
        return torch.cat([indices[:, None], dist.own(others)], dim=1)
