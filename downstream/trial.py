"""What every engine's trial needs: its place among processes, progress for a person, a log for a program and for TensorBoard,
JSON that is written whole or not at all, the fingerprint by which a checkpoint knows its run, and samples made ahead.
"""

import contextlib
import hashlib
import json
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed
from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from downstream.checkpoint import room
from downstream.task import Task, batch

T = TypeVar("T")
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
    anew while another still took the old one apart would wait for ever. Raises ValueError for more processes than GPUs.
    """
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        local, gpus = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
        if local >= gpus:
            raise ValueError(
                f"expected a GPU for each process of this machine, found {gpus} for process {local + 1}: "
                f"torchrun --nproc-per-node {gpus}"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if world > 1 and not torch.distributed.is_initialized():
        # a process that decodes its share of the images may be that much later than another: NCCL's own ten minutes are too few
        half_an_hour = timedelta(minutes=30)
        torch.distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=half_an_hour)
    return Place(rank, world, device)


def agreed(file: Path, found: str) -> None:
    """ValueError where processes on several machines do not see the same of a file: they would train different trials together, or
    wait for one another."""
    if not torch.distributed.is_initialized():
        return
    seen: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(seen, found)
    if len({*seen}) > 1:
        each = ", ".join(f"{what} by process {rank}" for rank, what in enumerate(seen))
        raise ValueError(
            f"expected one {file.absolute()}, found {each}: --out must be a folder that all machines share"
        )


def share(batch: int, processes: int) -> int:
    """Images of one process in an iteration. Raises ValueError that names the numbers of processes that fit the batch."""
    if batch % processes:
        fit = ", ".join(str(n) for n in range(1, batch + 1) if batch % n == 0)
        raise ValueError(
            f"expected a number of processes that share the protocol's batch of {batch} evenly ({fit}), found {processes}: "
            "start one of these, or change the batch by the linear rule, which is nonstandard, with --scale-batch"
        )
    return batch // processes


def in_parts(samples: Sequence[Any], parts: int) -> list[Sequence[Any]]:
    """A process's share of a batch in as many parts, or one a sample where there are fewer."""
    edges = [len(samples) * i // parts for i in range(parts + 1)]
    return [samples[low:high] for low, high in pairwise(edges) if high > low]


def unsynchronised(network: torch.nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
    """Meanwhile the gradients of a part of a batch stay in this process; the last part's take them along to the others."""
    if last or not isinstance(network, torch.nn.parallel.DistributedDataParallel):
        return contextlib.nullcontext()
    return network.no_sync()


def share_statistics(network: torch.nn.Module, place: Place) -> None:
    """Give every process the running statistics of the first one's batch norms, which are the ones that a checkpoint keeps: where
    batch norm is not synchronised, on CPUs, each has its own, and a test would be one of several networks."""
    if place.world > 1:
        for statistic in network.buffers():
            torch.distributed.broadcast(statistic, 0)


class Progress:
    """Iterations on standard error, a bar on a terminal that can show one and a line now and then elsewhere; and, with a log, in
    log.jsonl and in tensorboard/ beside it.

    name:  what is under way
    total: iterations in all; `start` of them were done before
    batch: images an iteration
    unit:  what an iteration has `batch` of
    log:   a file of JSON lines, cut back to `start`; None writes none
    quiet: says and writes nothing (in the other processes of a group)
    """

    def __init__(
        self,
        name: str,
        total: int,
        batch: int = 1,
        start: int = 0,
        log: Path | None = None,
        quiet: bool = False,
        unit: str = "images",
    ):
        self.name, self.total, self.batch, self.unit = name, total, batch, unit
        self.start, self.log, self.quiet = start, log, quiet
        self.began = self.spoke = time.monotonic()
        self.bar: Bar | None = None
        self.events: Events | None = None
        if log and not quiet:
            kept = [line for line in lines(log) if line["iteration"] <= start] if start and log.is_file() else []
            replace(log, "".join(json.dumps(line) + "\n" for line in kept))
            self.events = Events(log.parent / "tensorboard", start)
        if not quiet and sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal:
            # of a narrow terminal the end of the text is cut
            self.bar = Bar(TextColumn("{task.description}"), BarColumn(), console=Console(stderr=True))
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
        text = f"{self.name} {done}/{self.total}  {timedelta(seconds=round((self.total - done) / pace))} left"
        if losses:
            text += f"  loss {losses['loss']:.3f}  lr {lr:.4g}"
        text += f"  {pace * self.batch:.1f} {self.unit}/s"
        if self.bar:
            self.bar.update(self.line, completed=done, description=text)
        elif now - self.spoke > SPEAK_SECONDS or done == self.total:
            self.spoke = now
            print(text, file=sys.stderr, flush=True)
        if self.log and self.events:
            entry = {"iteration": done, "lr": lr, "images_per_second": round(pace * self.batch, 2)} | dict(losses or {})
            line = json.dumps(entry) + "\n"
            with room(self.log, len(line)), self.log.open("a") as file:
                file.write(line)
            self.events.add(done, {name: value for name, value in entry.items() if name != "iteration"})


def counted(items: Sequence[T], name: str) -> Iterator[T]:
    """The items, and progress over them."""
    with Progress(name, len(items)) as progress:
        for done, item in enumerate(items):
            yield item
            progress.step(done + 1)


class Events:
    """TensorBoard's events in a folder, after `start` iterations: each written at once and by this thread, so that a full disk
    is an error here.
    """

    def __init__(self, folder: Path, start: int):
        folder.mkdir(parents=True, exist_ok=True)
        self.file = folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{start}"
        self._write(file_version="brain.Event:2")
        if start:  # what an interrupted run has done since its checkpoint does not count
            self._write(step=start + 1, session_log={"status": "START"})

    def add(self, step: int, values: Mapping[str, float | None]) -> None:
        known = [{"tag": name, "simple_value": value} for name, value in values.items() if value is not None]
        self._write(step=step, summary={"value": known})

    def _write(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.record_writer import RecordWriter

        event = Event(wall_time=time.time(), **content).SerializeToString()
        with room(self.file, len(event)), self.file.open("ab") as file:
            RecordWriter(file).write(event)


def lines(log: Path) -> list[dict[str, Any]]:
    """The entries of a log, without one that a full disk or a killed process has cut short."""
    found = []
    for line in log.read_text().splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def replace(file: Path, content: str | bytes) -> None:
    """Writes a file whole or not at all: a reader sees the old one or the new one."""
    unfinished = file.with_name(file.name + ".part")
    try:
        with room(file, len(content)), unfinished.open("wb") as writing:
            writing.write(content.encode() if isinstance(content, str) else content)
            writing.flush()
            os.fsync(writing.fileno())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file whole or not at all."""
    replace(file, json.dumps(content, indent=1) + "\n")


def effective(task: Task, lr: float, iterations: int, norm: str, world: int, skipped: Sequence[str]) -> dict[str, Any]:
    """How a trial really ran, as its record says it; skipped: what is wrong with the training images that were left out."""
    parts = getattr(task, "accumulate", 1)  # an SVM has no batches to take in parts
    return {
        "batch": batch(task),
        "lr": lr,
        "iterations": iterations,
        "norm": norm,
        "world_size": world,
        "precision": task.precision,
        **({"accumulate": parts} if parts > 1 else {}),
        **({"skipped": skipped} if skipped else {}),
    }


def fingerprint(tensors: Mapping[str, torch.Tensor] | None) -> str:
    """sha256 of a backbone's tensors, names and values; of nothing for a random one."""
    sha = hashlib.sha256()
    for name, tensor in sorted((tensors or {}).items()):
        sha.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def cpus() -> int:
    """Threads that may make samples for this process."""
    return max(1, min(16, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


@lru_cache(maxsize=4)
def order(seed: int, epoch: int, images: int) -> np.ndarray:
    """The order of an epoch, [images]: a permutation that is the same in every process and for whoever goes on."""
    return np.random.default_rng((0, seed, epoch)).permutation(images)


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
