"""What a run says: log.jsonl, the same numbers for TensorBoard, and a line or a bar of progress.

log.jsonl has a line every few steps (epoch, step, lr, loss, the method's statistics, images_per_second) and one before the first
step and after every epoch (epoch, step, feature_std, feature_rank, output_std, output_rank and, with a monitor, knn).
"""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10  # between two lines of progress where there is no terminal


class Log:
    """log.jsonl and TensorBoard's events in `out`, after `step` (0: from the beginning); silent unless this is the chief."""

    def __init__(self, out: Path, step: int, chief: bool) -> None:
        self.path, self.chief = out / "log.jsonl", chief
        if chief:
            from torch.utils.tensorboard import SummaryWriter

            out.mkdir(parents=True, exist_ok=True)
            cut(self.path, step or -1)
            self.events = SummaryWriter(out / "tensorboard", purge_step=step + 1 if step else 0)

    def line(self, values: Mapping[str, float]) -> None:
        if not self.chief:
            return
        with self.path.open("a") as log:
            log.write(json.dumps(values) + "\n")
        for key in values.keys() - {"step"}:
            self.events.add_scalar(key, values[key], int(values["step"]))

    def close(self) -> None:
        if self.chief:
            self.events.close()


def lines(path: Path) -> list[dict[str, float]]:
    """The lines of a log, without one that was cut short."""
    if not path.is_file():
        raise FileNotFoundError(f"expected the log of a run, found no file {path}: name a log.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def first_and_last(path: Path, key: str) -> dict[str, float] | None:
    """A number's first and last value in a log; None where it never stands, or where somebody has removed the log."""
    found = [line[key] for line in lines(path) if key in line] if path.exists() else []
    return {"first": found[0], "last": found[-1]} if found else None


def cut(path: Path, step: int) -> None:
    """Drop the lines of steps that will be done again."""
    if path.exists():
        kept = [line for line in lines(path) if line["step"] <= step]
        replace(path, lambda beside: beside.write_text("".join(json.dumps(line) + "\n" for line in kept)))


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside `path`, then take its place in one move: a killed process leaves the old file or the new one."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(beside)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def progress(title: str, batch: int, steps: int, step: int, chief: bool) -> Iterator[Callable[[int, Any, float], None]]:
    """A function of step, loss and images a second: a bar on a terminal, a line every LINE_SECONDS elsewhere.

    The loss may be a scalar on a device: only what is shown is waited for.
    """
    if not chief:
        yield lambda step, loss, speed: None
    elif sys.stderr.isatty():
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]:.0f} images/s"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=steps, completed=step, loss=math.nan, speed=0.0)
            yield lambda step, loss, speed: bar.update(task, completed=step, loss=loss, speed=speed)
    else:
        printed = [0.0]

        def line(step: int, loss: Any, speed: float) -> None:
            if time.monotonic() - printed[0] >= LINE_SECONDS or step == steps:
                printed[0] = time.monotonic()
                left = (steps - step) * batch / speed / 60
                say(f"{title}: step {step} of {steps}, loss {loss:.4f}, {speed:.0f} images/s, {left:.1f} minutes left")

        yield line


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
