"""Training images that cannot be decoded: left out before the first iteration where `--skip-bad N` allows it, and named."""

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch.distributed as dist

from downstream.trial import Place, Progress, ahead, cpus

T = TypeVar("T")


def spared(
    items: Sequence[T], decode: Callable[[T], Any], allowed: int, where: Place, name: str
) -> tuple[list[T], list[str]]:
    """The training images, in the place of each broken one the next that is not; and what is wrong with the broken ones.

    decode:  reads an image to its last pixel; ValueError, which names its file, for one that cannot be read
    allowed: so many may be broken; with 0 nothing is decoded, and a broken one is named when its turn comes

    The processes of a group look at a share each. Raises ValueError that names more than `allowed` broken ones.
    """
    if not allowed:
        return list(items), []

    def fault(index: int) -> tuple[int, str]:
        try:
            decode(items[index])
        except ValueError as error:
            return index, str(error)
        return index, ""

    mine = range(where.rank, len(items), where.world)
    faults: dict[int, str] = {}
    with Progress(f"{name}, decoding every image", len(mine), quiet=where.rank > 0) as progress:
        for done, (index, reason) in enumerate(ahead(fault, mine, depth=4 * cpus())):
            faults |= {index: reason} if reason else {}
            progress.step(done + 1)
    if where.world > 1:
        shares: list[dict[int, str]] = [{}] * where.world
        dist.all_gather_object(shares, faults)
        faults = {index: reason for share in shares for index, reason in share.items()}
    reasons = [faults[index] for index in sorted(faults)]
    if len(faults) > allowed or len(faults) == len(items):
        raise ValueError(
            f"expected at most {allowed} broken images (--skip-bad), found {len(faults)} of {len(items)}, such as: {reasons[0]}"
        )
    if reasons and where.rank == 0:
        print(f"{name}: left out, {'; '.join(reasons)}", file=sys.stderr)
    return [items[_next(index, faults, len(items))] for index in range(len(items))], reasons


def _next(index: int, faults: dict[int, str], images: int) -> int:
    """The first whole image from `index` on, round the end."""
    while index in faults:
        index = (index + 1) % images
    return index
