"""Images that cannot be decoded: named before the first iteration, or, of training images, left out where `--skip-bad N` allows it."""

import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch.distributed as dist

from downstream.trial import Place, Progress, ahead, cpus

T = TypeVar("T")
DECODED = 10_000  # of a split that are decoded before the first iteration, evenly spaced: of most splits, all


def preflight(
    train: Sequence[T], test: Sequence[T], decode: Callable[[T], Any], allowed: int, where: Place, name: str
) -> tuple[list[T], list[str]]:
    """The training images, in the place of each broken one the next that is not; and what is wrong with the broken ones.

    decode:  reads an image to its last pixel; ValueError, which names its file, for one that cannot be read
    allowed: so many training images may be broken, and then all of them are decoded; no test image may be

    The processes of a group look at a share each. Raises ValueError for more broken images. One that is none of the `DECODED`
    of its split is named when its turn comes.
    """
    faults = _faults(
        [*train, *test], _spaced(0, len(train), allowed) + _spaced(len(train), len(test)), decode, where, name
    )
    left_out = {index: reason for index, reason in faults.items() if allowed and index < len(train)}
    if left_out and (len(left_out) > allowed or len(left_out) == len(train)):
        raise ValueError(
            f"expected at most {allowed} broken images (--skip-bad), found {len(left_out)} of {len(train)}, such as: "
            f"{next(iter(left_out.values()))}"
        )
    if refused := [reason for index, reason in faults.items() if index not in left_out]:
        more = f" (and {len(refused) - 1} more: bench data check lists them)" if len(refused) > 1 else ""
        raise ValueError(refused[0] + more)
    reasons = list(left_out.values())
    if reasons and where.rank == 0:
        print(f"{name}: left out, {'; '.join(reasons)}", file=sys.stderr)
    return [train[_next(index, left_out, len(train))] for index in range(len(train))], reasons


def _spaced(start: int, images: int, every: int = 0) -> list[int]:
    """`DECODED` of so many images from `start` on, evenly spaced; or every one."""
    return list(range(start, start + images, 1 if every else max(1, math.ceil(images / DECODED))))


def _faults(
    items: Sequence[T], chosen: Sequence[int], decode: Callable[[T], Any], where: Place, name: str
) -> dict[int, str]:
    """What is wrong with the chosen items, by their place and in its order; the same in every process."""

    def fault(index: int) -> tuple[int, str]:
        try:
            decode(items[index])
        except ValueError as error:
            return index, str(error)
        return index, ""

    mine = chosen[where.rank :: where.world]
    found: dict[int, str] = {}
    with Progress(f"{name}, decoding images", len(mine), quiet=where.rank > 0) as progress:
        for done, (index, reason) in enumerate(ahead(fault, mine, depth=4 * cpus())):
            found |= {index: reason} if reason else {}
            progress.step(done + 1)
    if where.world > 1:
        shares: list[dict[int, str]] = [{}] * where.world
        dist.all_gather_object(shares, found)
        found = {index: reason for share in shares for index, reason in share.items()}
    return dict(sorted(found.items()))


def _next(index: int, faults: dict[int, str], images: int) -> int:
    """The first whole image from `index` on, round the end."""
    while index in faults:
        index = (index + 1) % images
    return index
