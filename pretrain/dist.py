"""One or many processes: what torchrun tells us, and the few collectives that the methods need.

`torchrun --nproc-per-node 8 ...` sets RANK, WORLD_SIZE and LOCAL_RANK; without them this is one process and every function
below returns its input.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as distributed
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@dataclass(frozen=True)
class Process:
    """This process among its peers, and the device it computes on."""

    rank: int
    world_size: int
    device: torch.device


def process() -> Process:
    """Join the group that torchrun describes in the environment, if any (NCCL on CUDA, gloo on the CPU).

    ValueError: there are more processes than GPUs.
    """
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    cuda = torch.cuda.is_available()
    if cuda and local_rank >= (gpus := torch.cuda.device_count()):
        raise ValueError(
            f"expected a GPU for each process of this machine, found {gpus} for process {local_rank + 1}: "
            f"torchrun --nproc-per-node {gpus}"
        )
    if cuda:
        torch.cuda.set_device(local_rank)
    device = torch.device("cuda", local_rank) if cuda else torch.device("cpu")
    if world_size > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=30))
    return Process(distributed.get_rank() if world_size > 1 else 0, world_size, device)


def world_size() -> int:
    return distributed.get_world_size() if distributed.is_initialized() else 1


def gathered(x: torch.Tensor) -> torch.Tensor:
    """[N, ...] of every process, in rank order, as [world_size * N, ...]; carries no gradient."""
    if world_size() == 1:
        return x.detach()
    parts = [torch.empty_like(x, memory_format=torch.contiguous_format) for _ in range(world_size())]
    distributed.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        return gathered(x)

    @staticmethod
    def backward(ctx, g: torch.Tensor) -> torch.Tensor:
        return own(_reduced(g))


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: torch.Tensor) -> torch.Tensor:
        return _reduced(x)

    @staticmethod
    def backward(ctx, g: torch.Tensor) -> torch.Tensor:
        return _reduced(g)


def _reduced(x: torch.Tensor) -> torch.Tensor:
    x = x.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(x)
    return x


def gathered_with_gradient(x: torch.Tensor) -> torch.Tensor:
    """[N, ...] of every process, in rank order, as [world_size * N, ...].

    The gradient of x is that of the sum of all processes' losses; what DistributedDataParallel makes of it, the mean over the
    processes, is then the gradient of their mean loss, as if one process had the whole batch.
    """
    return x if world_size() == 1 else _Gathered.apply(x)


def summed(x: torch.Tensor) -> torch.Tensor:
    """The sum of x over the processes, the same in each, with a gradient in the sense of `gathered_with_gradient`."""
    return x if world_size() == 1 else _Summed.apply(x)


def mean(x: torch.Tensor) -> torch.Tensor:
    """The mean of x over the processes, the same in each; carries no gradient."""
    return x if world_size() == 1 else _reduced(x) / world_size()


def later(x: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Gives x on the CPU when it is called, and waits on a GPU for what was queued before now alone, not for what came after."""
    if x.device.type != "cuda":
        return lambda: x
    copy, copied = x.to("cpu", non_blocking=True), torch.cuda.Event()
    copied.record()

    def known() -> torch.Tensor:
        copied.synchronize()
        return copy

    return known


class SyncBatchNorm(_BatchNorm):
    """Batch norm over all processes' batches, on the CPU, where torch's own refuses to run."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[N, C, ...] -> the same shape, normalised as one process with all processes' images would; N is equal in each."""
        if not self.training or world_size() == 1:
            return super().forward(x)
        rest = [d for d in range(x.ndim) if d != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        y = x.to(torch.promote_types(x.dtype, torch.float32))
        count = y.numel() // y.shape[1] * world_size()
        y = y - (mean := summed(y.sum(rest)) / count).view(shape)
        variance = summed(y.square().sum(rest)) / count
        if self.track_running_stats:
            self._follow(mean.detach(), variance.detach() * count / (count - 1))
        y = y * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            y = y * self.weight.view(shape) + self.bias.view(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: torch.Tensor, variance: torch.Tensor) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)

    def _check_input_dim(self, x: torch.Tensor) -> None:
        """[N, C] and longer are all welcome."""


def synchronised(model: nn.Module, device: torch.device) -> nn.Module:
    """The model with every batch norm in it normalising over all processes."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    for part in model.modules():
        if isinstance(part, _BatchNorm):
            part.__class__ = SyncBatchNorm  # the same parameters and buffers
    return model


def share_statistics(model: nn.Module) -> None:
    """Give every process the running statistics of rank 0's batch norms, which are the ones that are kept."""
    for part in model.modules():
        if isinstance(part, _BatchNorm):
            as_first(*part.buffers(recurse=False))


def permutation(n: int, device: torch.device) -> torch.Tensor:
    """A random order of n, drawn on rank 0 and the same in every process."""
    order = torch.randperm(n, device=device)
    as_first(order)
    return order


def as_first(*tensors: torch.Tensor) -> None:
    """Overwrites tensors with rank 0's: what every process computed for itself may differ in the last bits on GPUs."""
    if world_size() > 1:
        for x in tensors:
            distributed.broadcast(x, src=0)


def own(x: torch.Tensor) -> torch.Tensor:
    """This process's slice of a tensor that is equal in every process: the inverse of `gathered`."""
    if world_size() == 1:
        return x
    return x.chunk(world_size())[distributed.get_rank()]


def leave() -> None:
    """Wait for the other processes and leave the group."""
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()
