"""One or many processes: what torchrun tells us, and the few collectives that the methods need.

`torchrun --nproc-per-node 8 ...` sets RANK, WORLD_SIZE and LOCAL_RANK; without them this is one process and every function
below returns its input.
"""

import os
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as distributed


@dataclass(frozen=True)
class Process:
    """This process among its peers, and the device it computes on."""

    rank: int
    world_size: int
    device: torch.device


def process() -> Process:
    """Join the group that torchrun describes in the environment, if any (NCCL on CUDA, gloo on the CPU)."""
    world_size = int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    cuda = torch.cuda.is_available()
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


def permutation(n: int, device: torch.device) -> torch.Tensor:
    """A random order of n, drawn on rank 0 and the same in every process."""
    order = torch.randperm(n).to(device)
    if world_size() > 1:
        distributed.broadcast(order, src=0)
    return order


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
