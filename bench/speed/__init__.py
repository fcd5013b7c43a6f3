"""How fast the work is against what people use today, side by side in one run on this machine: `bench speed [PART] [--json]`.

Each part is a function that returns rows. A row's ratio is of the medians of at least five pairs that alternate, so that a
machine that is busy or warms up slows both alike; what it is compared with is the plain public API, as a user would write it.
Both run on the CPU; a GPU, where there is one, is not looked at.

Each file of this package has the parts of one area and says what they compare; PARTS says which.
"""

import contextlib
import importlib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import catalog, preview

PAIRS = 5

# A part is the function of its name, of a scratch folder, in the module of this package.
PARTS: Mapping[str, str] = {
    "views": "loading",
    "step": "steps",
    "pretrain": "steps",
    "finetune": "finetuning",
    "segment": "finetuning",
    "infer": "finetuning",
    "coco": "evaluation",
    "voc": "evaluation",
    "lvis": "evaluation",
    "miou": "evaluation",
    "knn": "neighbours",
    "convert": "checkpoints",
    "inspect": "checkpoints",
    "start": "tables",
    "table": "tables",
}

# Why a target of the part is missed where it was missed; of a machine of two cores without a GPU.
WHY: Mapping[str, str] = {
    "views": "about half of the time is libjpeg's, and a crop of 224 pixels from a photograph of 500 x 375 allows no smaller "
    "scale of decoding",
    "step": "the machine bounds it: convolutions and matrix products, most of a step, gain what bfloat16 has over float32 (the "
    "last row of `step`), batch norm and pooling, which memory bounds, gain less; what a row has beyond that comes of "
    "channels-last and of memory that is kept",
    "pretrain": "step and loader share the cores, and the step, which takes all of them, is what there is to wait for",
}


@dataclass(frozen=True)
class Row:
    """One comparison."""

    part: str
    against: str
    ratio: float
    target: float | None  # None: told, not judged
    fast: bool  # whether a large ratio is good (times faster) or a small one (times the cost)
    ours: float  # seconds or bytes
    theirs: float
    memory: int | None = None  # bytes: the most that the process held in which ours ran (Linux)

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without a target."""
        if self.target is None:
            return None
        return self.ratio >= self.target if self.fast else self.ratio <= self.target

    @property
    def missed_by(self) -> float | None:
        """The share of the target, more than 0, that is lacking or too much; None where it is met or there is none."""
        return None if self.target is None or self.met else abs(self.ratio - self.target) / self.target

    def plain(self) -> dict[str, Any]:
        """JSON-able; with `missed_by` and `why`, None where nothing is known, where the target is missed."""
        missed = {} if self.missed_by is None else {"missed_by": self.missed_by, "why": WHY.get(self.part)}
        return asdict(self) | {"met": self.met} | missed


def run(part: str | None, say: Callable[[str], None]) -> list[Row]:
    """The rows of one part, or of all. Raises ValueError for a part that does not exist."""
    if part is not None and part not in PARTS:
        raise ValueError(catalog.unknown("part", part, PARTS))
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # what is compared with runs on the CPU
    rows, began = [], time.monotonic()
    for name in [part] if part else PARTS:
        since = "" if part else f" ({preview.duration(time.monotonic() - began)} so far)"
        say(f"bench speed: {name}{since}")
        module = importlib.import_module(f"bench.speed.{PARTS[name]}")
        with tempfile.TemporaryDirectory(prefix="bench-speed-") as folder:
            try:
                rows += getattr(module, name)(Path(folder))
            except ModuleNotFoundError as missing:  # what it is compared with is not installed
                say(f"bench speed: {name} is left out: {missing}")
    return rows


def described(row: Row) -> str:
    """A row for a person."""
    judged = {None: "", True: ", met", False: ", MISSED"}[row.met]
    wanted = "" if row.target is None else f" ({'at least' if row.fast else 'at most'} {row.target:g}{judged})"
    memory = "" if row.memory is None else f", {row.memory / 2**20:,.0f} MiB at most"
    return f"{row.part:<10} {row.ratio:6.2f} times {row.against}{wanted}{memory}"


def faster(part: str, against: str, target: float | None, ours: Callable[[], Any], theirs: Callable[[], Any]) -> Row:
    """A row that says how many times as fast `ours` is as `theirs`; at least the target."""
    ours_s, theirs_s, memory = pairs(ours, theirs)
    return Row(part, against, theirs_s / ours_s, target, True, ours_s, theirs_s, memory)


def costlier(part: str, against: str, target: float | None, ours: Callable[[], Any], theirs: Callable[[], Any]) -> Row:
    """A row that says how many times what `theirs` takes `ours` takes; at most the target."""
    ours_s, theirs_s, memory = pairs(ours, theirs)
    return cost(part, against, ours_s, theirs_s, target, memory)


def cost(part: str, against: str, ours: float, theirs: float, target: float | None, memory: int | None = None) -> Row:
    """A row whose ratio is a cost: ours over theirs, both in seconds or bytes; at most the target."""
    return Row(part, against, ours / theirs, target, False, ours, theirs, memory)


def pairs(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[float, float, int | None]:
    """Median seconds of both, run in turn `PAIRS` times after one unmeasured call each; who is first alternates.

    And the peak of this process's resident memory while ours ran, in bytes; None where the system does not tell.
    """
    taken: dict[Callable[[], Any], list[float]] = {ours: [], theirs: []}
    peak = None
    for number in range(PAIRS + 1):
        for call in (ours, theirs) if number % 2 else (theirs, ours):
            forget_peak()
            start = time.perf_counter()
            call()
            if number:
                taken[call].append(time.perf_counter() - start)
            if call is ours and (now := peak_memory()) is not None:
                peak = max(peak or 0, now)
    return statistics.median(taken[ours]), statistics.median(taken[theirs]), peak


@contextlib.contextmanager
def apart(build: Callable[..., Callable[[], Any]], *arguments: Any) -> Iterator[Callable[[], Any]]:
    """A call that is made in a process of its own, of what `build(*arguments)` gives there.

    What this process has done or is set to neither helps it nor hinders.
    """
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(_build, build, arguments).result()
        yield lambda: pool.submit(_call).result()


def _build(build: Callable[..., Callable[[], Any]], arguments: tuple[Any, ...]) -> None:
    global _built
    _built = build(*arguments)


def _call() -> Any:
    return _built()


def _built() -> Any:
    """Replaced by what is to be called in this process."""


def forget_peak() -> None:
    """Begin a new peak of resident memory (proc(5), clear_refs), where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int | None:
    """Bytes of resident memory that this process held at most since the last forget_peak()."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
