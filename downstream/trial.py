"""What every engine's trial needs: its place among processes, progress for a person and a log for a program, JSON that is
written whole or not at all, the fingerprint by which a checkpoint knows the run it belongs to, and samples made ahead.
"""

import hashlib
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

# Between two checkpoints: a killed training loses at most this much.
SAVE_SECONDS = float(os.environ.get("BENCH_SAVE_SECONDS", "180"))
SPEAK_SECONDS = 15.0  # between two lines where standard error is not a terminal
LOG_ITERATIONS = 10  # to a line of log.jsonl


@dataclass(frozen=True)
class Place:
    """Where this process runs, among how many."""

    rank: int
    world: int
    device: torch.device


def place() -> Place:
    """One process, or one of torchrun's, whose process group it joins.

    The group stays for all trials of the process: its processes end a trial at different times, and one that made the group
    anew while another still took the old one apart would wait for ever.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    if world > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Place(rank, world, device)


def share(batch: int, processes: int) -> int:
    """Images of one process in an iteration. Raises ValueError that names the numbers of processes that fit the batch."""
    if batch % processes:
        fit = ", ".join(str(n) for n in range(1, batch + 1) if batch % n == 0)
        raise ValueError(
            f"expected a number of processes that share the protocol's batch of {batch} evenly ({fit}), found {processes}: "
            "start one of these, or change the batch by the linear rule, which is nonstandard, with --scale-batch"
        )
    return batch // processes


class Progress:
    """Iterations on standard error, a bar on a terminal and a line now and then elsewhere; and, with a log, in log.jsonl.

    name:  what is under way
    total: iterations in all; `start` of them were done before
    batch: images an iteration
    log:   a file of JSON lines, cut back to `start`; None writes none
    quiet: says and writes nothing (in the other processes of a group)
    """

    def __init__(
        self, name: str, total: int, batch: int = 1, start: int = 0, log: Path | None = None, quiet: bool = False
    ):
        self.name, self.total, self.batch, self.start, self.log, self.quiet = name, total, batch, start, log, quiet
        self.began = self.spoke = time.monotonic()
        self.bar: Bar | None = None
        if log and not quiet:
            earlier = log.read_text().splitlines() if start and log.is_file() else []
            log.write_text("".join(f"{line}\n" for line in earlier if json.loads(line)["iteration"] <= start))
        if not quiet and sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self.bar = Bar(*columns, console=Console(stderr=True))
            self.line = self.bar.add_task(name, total=total, completed=start)

    def __enter__(self) -> "Progress":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()

    def step(self, done: int, losses: Mapping[str, float] | None = None, lr: float | None = None) -> None:
        """`done` iterations are done; `losses` are the last one's, with their sum under "loss"."""
        if self.quiet or (done % LOG_ITERATIONS and done < self.total):
            return
        now = time.monotonic()
        pace = (done - self.start) / max(now - self.began, 1e-9)  # iterations a second
        text = f"{self.name} {done}/{self.total}"
        if losses:
            text += f"  loss {losses['loss']:.3f}  lr {lr:.4g}"
        text += f"  {pace * self.batch:.1f} images/s"
        if self.bar:
            self.bar.update(self.line, completed=done, description=text)
        elif now - self.spoke > SPEAK_SECONDS or done == self.total:
            self.spoke = now
            print(f"{text}  {(self.total - done) / pace:.0f} s left", file=sys.stderr, flush=True)
        if self.log:
            entry = {"iteration": done, "lr": lr, "images_per_second": round(pace * self.batch, 2)} | dict(losses or {})
            with self.log.open("a") as file:
                file.write(json.dumps(entry) + "\n")


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file at once: a reader sees the old one or the new one."""
    unfinished = file.with_name(file.name + ".part")
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    unfinished.replace(file)


def fingerprint(tensors: Mapping[str, torch.Tensor] | None) -> str:
    """sha256 of a backbone's tensors, names and values; of nothing for a random one."""
    sha = hashlib.sha256()
    for name, tensor in sorted((tensors or {}).items()):
        sha.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def earlier(last: Path, origin: Mapping[str, Any]) -> dict[str, Any]:
    """What a killed training left in last.pth. Raises ValueError if it was of another run than `origin` says."""
    state: dict[str, Any] = torch.load(last, map_location="cpu", weights_only=True)
    differing = [name for name in origin if state["origin"].get(name) != origin[name]]
    if differing:
        raise ValueError(
            f"expected {last} to be of this run, found another {' and '.join(differing)}: "
            "take another --out, or start anew without --resume"
        )
    return state


def cpus() -> int:
    """Threads that may make samples for this process."""
    return max(1, min(16, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def ahead(make: Callable[[Any], Any], wanted: Iterable[Any], depth: int) -> Generator[Any, None, None]:
    """make(item) of every wanted item, in order, `depth` of them in the making by threads."""
    with ThreadPoolExecutor(min(depth, cpus())) as pool:
        making: deque[Any] = deque()
        try:
            for item in wanted:
                making.append(pool.submit(make, item))
                if len(making) >= depth:
                    yield making.popleft().result()
            while making:
                yield making.popleft().result()
        finally:
            for future in making:
                future.cancel()
