"""What a run says: log.jsonl, the same numbers for TensorBoard, and a line or a bar of progress.

log.jsonl has a line every few steps (epoch, step, lr, loss, the method's statistics, images_per_second; loss and statistics are means
over these steps and over the processes) and one before the first step and after every epoch (epoch, step, feature_std, feature_rank,
output_std, output_rank and, with a monitor, knn).
"""

import contextlib
import errno
import json
import math
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

LINE_SECONDS = 10  # between two lines of progress where there is no terminal


class Log:
    """log.jsonl and TensorBoard's events in `out`; silent unless this is the chief.

    count: the lines that log.jsonl has; at the beginning the first `count` of those that are there, whole ones
    step:  TensorBoard forgets what it has seen after this one
    """

    def __init__(self, out: Path, step: int, count: int, chief: bool) -> None:
        self.path, self.chief, self.count = out / "log.jsonl", chief, 0
        if chief:
            out.mkdir(parents=True, exist_ok=True)
            self.count = cut(self.path, count)
            self.board: Board | None = None
            with self.board_or_none():
                self.board = Board(out / "tensorboard", step + 1 if step else 0)

    def line(self, values: Mapping[str, Any]) -> None:
        """A line of log.jsonl, on the disk when this returns; its numbers for TensorBoard. OSError: the disk is full."""
        if not self.chief:
            return
        text = json.dumps(values) + "\n"
        with room(self.path, len(text)), self.path.open("a", encoding="utf-8") as log:
            log.write(text)
            log.flush()
            os.fsync(log.fileno())
        self.count += 1
        if self.board:
            with self.board_or_none():
                self.board.add(values)

    @contextlib.contextmanager
    def board_or_none(self) -> Iterator[None]:
        """TensorBoard repeats what log.jsonl says: it ends no run, but where it cannot be written it ends."""
        try:
            yield
        except OSError as error:
            say(f"warning: TensorBoard is told nothing from here on ({error}); log.jsonl has it all")
            self.close()
            self.board = None

    def close(self) -> None:
        if self.chief and self.board:
            self.board.file.close()


class Board:
    """A file of TensorBoard's events, written at once. torch's SummaryWriter has a thread for it, which dies of a full disk."""

    def __init__(self, folder: Path, purge_step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"
        self.file = (folder / name).open("wb", buffering=0)
        self.write, self.event, self.summary = RecordWriter(self.file).write, event_pb2.Event, summary_pb2.Summary
        self.put(file_version="brain.Event:2")
        self.put(step=purge_step, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def put(self, **content: Any) -> None:
        self.write(self.event(wall_time=time.time(), **content).SerializeToString())

    def add(self, values: Mapping[str, Any]) -> None:
        """The numbers of a line."""
        numbers = {key: value for key, value in values.items() if key != "step" and not isinstance(value, str)}
        found = [self.summary.Value(tag=key, simple_value=value) for key, value in numbers.items()]
        self.put(step=int(values["step"]), summary=self.summary(value=found))


def lines(path: Path) -> list[dict[str, float]]:
    """The lines of a log, without one that was cut short."""
    if not path.is_file():
        raise FileNotFoundError(f"expected the log of a run, found no file {path}: name a log.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]


def first_and_last(path: Path, key: str) -> dict[str, float] | None:
    """A number's first and last value in a log; None where it never stands, or where somebody has removed the log."""
    found = [line[key] for line in lines(path) if key in line] if path.exists() else []
    return {"first": found[0], "last": found[-1]} if found else None


def cut(path: Path, count: int) -> int:
    """Keep the first `count` lines, of the steps that will not be done again; how many there were."""
    if not path.exists():
        return 0
    kept = lines(path)[:count]
    replace(path, lambda file: file.write("".join(json.dumps(line) + "\n" for line in kept).encode()))
    return len(kept)


def replace(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write beside `path`, onto the disk, then take its place in one move: what is there is the old file or the new one.

    Whatever ends the process; only the file beside it may be left, which the next writer takes for its own.
    """
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        settled(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def settled(folder: Path) -> None:
    """The names in a folder are on the disk too, on file systems that can say so."""
    opened = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(opened)
    finally:
        os.close(opened)


@contextlib.contextmanager
def room(path: Path, size: int) -> Iterator[None]:
    """Writing `size` bytes into `path`; OSError with what is needed and where, if the disk or a quota is full."""
    try:
        yield
    except (OSError, RuntimeError) as error:  # torch has a RuntimeError in place of the writer's OSError
        cause: BaseException | None = error
        while cause and getattr(cause, "errno", None) not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        free = shutil.disk_usage(path.parent).free
        raise OSError(
            f"expected {megabytes(size)} free for {path.name} in {path.parent}, found {megabytes(free)} ({cause}): make room "
            "there, then the same call with --resume goes on"
        ) from error


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e5 else f"{size:,} bytes"


@contextlib.contextmanager
def progress(title: str, batch: int, steps: int, step: int, chief: bool) -> Iterator[Callable[[int, Any, float], None]]:
    """A function of step, loss and images a second: a bar on a terminal that can show one, a line every LINE_SECONDS elsewhere.

    The loss may be a scalar on a device: only what is shown is waited for.
    """
    if not chief:
        yield lambda step, loss, speed: None
    elif sys.stderr.isatty() and not Console(stderr=True).is_dumb_terminal:
        # of a narrow terminal the end of the text is cut
        text = (
            "{task.description} {task.completed}/{task.total}  {task.fields[left]} left  loss {task.fields[loss]:.4f}  "
        )
        columns = TextColumn(text + "{task.fields[speed]:.0f} images/s"), BarColumn()
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task(title, total=steps, completed=step, left="?", loss=math.nan, speed=0.0)

            def show(step: int, loss: Any, speed: float) -> None:
                left = timedelta(seconds=round((steps - step) * batch / speed))
                bar.update(task, completed=step, left=left, loss=loss, speed=speed)

            yield show
    else:
        printed = [0.0]

        def line(step: int, loss: Any, speed: float) -> None:
            if time.monotonic() - printed[0] >= LINE_SECONDS or step == steps:
                printed[0] = time.monotonic()
                left = timedelta(seconds=round((steps - step) * batch / speed))
                say(f"{title}: step {step} of {steps}, loss {loss:.4f}, {speed:.0f} images/s, {left} left")

        yield line


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
