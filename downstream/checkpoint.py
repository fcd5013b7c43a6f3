"""A training's checkpoints: written whole or not at all, checked before they are used, the last two of them kept.

    last.pth      the newest one
    previous.pth  the one before, for when the newest is damaged

A checkpoint is what `torch.save` writes and, behind it, the 32 bytes of its sha256; `torch.load` reads it as it is. It says
which version of this layout it has and of which run it is. One of the two is always whole, whenever the process is killed.
"""

import contextlib
import errno
import hashlib
import os
import pickle
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

VERSION = 1  # of the layout; a newer one is refused
DIGEST = 32  # bytes of a sha256
LAST, PREVIOUS = "last.pth", "previous.pth"
_PART, _OLD = "last.pth.part", "last.pth.old"


class Damaged(Exception):
    """A file that is not what was written."""


@contextlib.contextmanager
def room(file: Path, size: int) -> Iterator[None]:
    """Turns a full disk, or a used up quota, into an OSError of one sentence: for what `size` bytes are needed, and where."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if (cause := full(error)) is None:
            raise
        whole = "call again with --resume; what was written before is whole"
        if cause == errno.EFBIG:
            raise OSError(
                f"expected to write {megabytes(size)} to {file}, found the limit of a file's size reached: raise it (ulimit -f) "
                f"and {whole}"
            ) from None
        folder = next(parent for parent in file.absolute().parents if parent.is_dir())
        free = shutil.disk_usage(folder).free
        raise OSError(
            f"expected room for {megabytes(size)} in {folder} to write {file.name}, found the disk or the quota full with "
            f"{megabytes(free)} free: make room there and {whole}"
        ) from None


def full(error: BaseException | None) -> int | None:
    """The errno of a disk, a quota or a file's size that is used up, by which an error came; torch.save raises its own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return error.errno
        error = error.__cause__ or error.__context__
    return None


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 50_000 else f"{size} bytes"


def save(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes a checkpoint; the one before stays as previous.pth.

    content: plain values and tensors; "origin" says of which run, "model" has the weights
    Raises FloatingPointError for weights that are not finite and OSError for a full disk; both checkpoints then stay.
    """
    broken = [k for k, v in content["model"].items() if v.is_floating_point() and not v.isfinite().all()]
    if broken:
        raise FloatingPointError(
            f"expected finite weights after {content['iteration']} iterations, found infinity or NaN in {broken[0]}: the last "
            f"checkpoint in {folder} is kept; lower the learning rate (the run is then nonstandard), or look at the weights"
        )
    part, old, last, previous = folder / _PART, folder / _OLD, folder / LAST, folder / PREVIOUS
    try:
        with room(part, _bytes(content)), part.open("wb") as file:
            hashed = _Hashed(file)
            torch.save({"version": VERSION, **content}, hashed)
            file.write(hashed.sha.digest())
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    if last.exists():
        last.replace(old if previous.exists() else previous)
    part.replace(last)
    if old.exists():
        old.replace(previous)
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class _Hashed:
    """A file to write to, and the sha256 of what was written."""

    def __init__(self, file: BinaryIO):
        self.file, self.sha = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sha.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def _bytes(value: Any) -> int:
    """About what a checkpoint takes on the disk."""
    if isinstance(value, torch.Tensor):
        return value.nbytes + 256
    if isinstance(value, Mapping):
        return sum(map(_bytes, value.values())) + 1024
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 64


def load(folder: Path, origin: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a training left in a folder, from previous.pth where last.pth is damaged, which is said; None if it left nothing.

    Raises ValueError for a checkpoint of another run than `origin` says, of a newer version, or if all are damaged.
    """
    damaged = []
    for file in (folder / LAST, folder / PREVIOUS):
        if not file.is_file():
            continue
        try:
            state = _read(file)
        except Damaged as error:
            damaged.append(f"{file.name} ({error})")
            continue
        differing = [
            f"{k} ({state['origin'].get(k)}, not {v})" for k, v in origin.items() if state["origin"].get(k) != v
        ]
        if differing:
            raise ValueError(
                f"expected {file} to be of this run, found another {' and another '.join(differing)}: take another --out, or "
                "remove it to start anew"
            )
        if damaged and os.environ.get("RANK", "0") == "0":
            print(
                f"bench: {damaged[0]} in {folder} is damaged; going on from {file.name}, after iteration {state['iteration']}",
                file=sys.stderr,
            )
        return state
    if damaged:
        raise ValueError(
            f"expected a checkpoint to go on from in {folder}, found damage in {' and '.join(damaged)}: remove "
            "them to start anew"
        )
    return None


def _read(file: Path) -> dict[str, Any]:
    """A checkpoint's content. Raises Damaged, and ValueError for one of another version."""
    sha, left = hashlib.sha256(), file.stat().st_size - DIGEST
    with file.open("rb") as reading:
        while left > 0 and (block := reading.read(min(left, 1 << 20))):
            sha.update(block)
            left -= len(block)
        if left or reading.read() != sha.digest():
            raise Damaged("its sha256 is another")
    try:
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # it is whole, and has what no version up to this one writes
        state = {}
    version = state.get("version", "an unknown one")
    if version != VERSION:
        raise ValueError(
            f"expected {file} in version {VERSION} of its layout, found {version}: another version of this project wrote it, "
            "probably a newer one; go on with that one, or remove it to start anew"
        )
    return state


def remove(folder: Path) -> None:
    """Takes a folder's checkpoints away."""
    for name in (LAST, PREVIOUS, _PART, _OLD):
        (folder / name).unlink(missing_ok=True)
