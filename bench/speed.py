"""How fast the work is against what people use today, side by side in one run on this machine: `bench speed [PART] [--json]`.

Each part is a function that returns rows. A row's ratio is of the medians of at least five pairs that alternate, so that a
machine that is busy or warms up slows both alike; what it is compared with is the plain public API, as a user would write it.

convert   reading, checking, hashing and writing a checkpoint against torch.load and torch.save of the same file: at most 1.5
          times. The proof by forward passes, whose cost depends on the network and not on the file, is a row without a target.
inspect   a file of 1 GB: peak memory against the backbone's size, at most 1.3 times; bytes read against the backbone's, at
          most 1.1 times (index and backbone, nothing else of the file)
table     `bench table moco` over 100,000 records, after the first time: under 3 seconds
start     `bench --help` against `python -c pass` plus importing typer: at most 1.5 times; `bench table moco` under a second
"""

import hashlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench import catalog

PAIRS = 5


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

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without a target."""
        if self.target is None:
            return None
        return self.ratio >= self.target if self.fast else self.ratio <= self.target

    def plain(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self) | {"met": self.met}


def run(part: str | None, say: Callable[[str], None]) -> list[Row]:
    """The rows of one part, or of all. Raises ValueError for a part that does not exist."""
    if part is not None and part not in PARTS:
        raise ValueError(catalog.unknown("part", part, PARTS))
    rows = []
    for name in [part] if part else PARTS:
        say(f"bench speed: {name}")
        with tempfile.TemporaryDirectory(prefix="bench-speed-") as folder:
            rows += PARTS[name](Path(folder))
    return rows


def described(row: Row) -> str:
    """A row for a person."""
    judged = {None: "", True: ", met", False: ", MISSED"}[row.met]
    wanted = "" if row.target is None else f" ({'at least' if row.fast else 'at most'} {row.target:g}{judged})"
    return f"{row.part:<10} {row.ratio:6.2f} times {row.against}{wanted}"


def pairs(ours: Callable[[], Any], theirs: Callable[[], Any], count: int = PAIRS) -> tuple[float, float]:
    """Median seconds of both, run in turn `count` times after one unmeasured call each; who is first alternates."""
    taken: dict[Callable[[], Any], list[float]] = {ours: [], theirs: []}
    for number in range(count + 1):
        for call in (ours, theirs) if number % 2 else (theirs, ours):
            start = time.perf_counter()
            call()
            if number:
                taken[call].append(time.perf_counter() - start)
    return statistics.median(taken[ours]), statistics.median(taken[theirs])


def convert(folder: Path) -> list[Row]:
    """A plain ResNet-50 and MoCo v2's file, each converted to torchvision's names."""
    import torch

    from bench import sources
    from downstream import weights

    rows = []
    for what, content in (("a plain ResNet-50", _plain()), ("MoCo v2's ResNet-50", _moco(65_536))):
        file, copy = folder / "checkpoint.pth", folder / "copy.pth"
        torch.save(content, file)

        def theirs(file: Path = file, copy: Path = copy) -> None:
            torch.save(torch.load(file, weights_only=True), copy)

        def ours(file: Path = file) -> None:
            found = sources.backbone(file)
            weights.write(
                found.tensors, {"arch": found.arch, "traits": found.traits}, folder / "out.pth", "torchvision"
            )

        def proof(file: Path = file) -> None:
            found = sources.backbone(file)
            sources.prove(found)
            weights.prove(found.tensors, found.arch, found.traits)

        ours_s, theirs_s = pairs(ours, theirs)
        rows.append(_cost("convert", f"torch.load and torch.save, {what}", ours_s, theirs_s, 1.5))
        proof_s, theirs_s = pairs(proof, theirs)
        rows.append(
            _cost("convert", f"torch.load and torch.save, {what}: reading and the proof alone", proof_s, theirs_s, None)
        )
    return rows


def inspect(folder: Path) -> list[Row]:
    """MoCo v2's file with a queue that makes it 1 GB, as torch's zip and as safetensors."""
    import torch
    from safetensors.torch import save_file

    content = _moco(1_400_000)
    size = sum(
        t.nbytes
        for name, t in content["state_dict"].items()
        if name.startswith("module.encoder_q.") and ".fc." not in name
    )
    zipped, safe = folder / "zip.pth", folder / "flat.safetensors"
    torch.save(content, zipped)
    save_file(content["state_dict"], safe)
    del content
    rows = []
    for file in (zipped, safe):
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as fresh:
            memory, read = fresh.submit(_inspected, file).result()
        what = f"the backbone's size, {file.stat().st_size / 1e9:.1f} GB of {file.suffix}"
        rows.append(_cost("inspect", f"{what}: peak memory", memory, size, 1.3))
        rows.append(_cost("inspect", f"{what}: bytes read", read, size, 1.1))
    return rows


def table(folder: Path) -> list[Row]:
    """100,000 records in an empty cache; the first reading is told, the later ones are judged."""
    _records(folder / "records", 100_000)
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "bench", "table", "moco", "--results", str(folder / "records")]
    seconds = [_seconds(command, environment) for _ in range(PAIRS + 1)]
    later = statistics.median(seconds[1:])
    return [
        _cost("table", "3 seconds, 100,000 records, after the first time", later, 3.0, 1.0),
        _cost("table", "a minute, 100,000 records, the first time", seconds[0], 60.0, None),
    ]


def start(folder: Path) -> list[Row]:
    """Starting the program, and printing the packaged records' table."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder)}

    def ours() -> None:
        _seconds([sys.executable, "-m", "bench", "--help"], environment)

    def theirs() -> None:
        for code in ("pass", "import typer"):
            _seconds([sys.executable, "-c", code], environment)

    table_s = statistics.median(
        _seconds([sys.executable, "-m", "bench", "table", "moco"], environment) for _ in range(PAIRS + 1)
    )
    return [
        _cost("start", "python -c pass and importing typer: bench --help", *pairs(ours, theirs), 1.5),
        _cost("start", "a second: bench table moco", table_s, 1.0, 1.0),
    ]


PARTS: Mapping[str, Callable[[Path], list[Row]]] = {
    "convert": convert,
    "inspect": inspect,
    "table": table,
    "start": start,
}


def _seconds(command: list[str], environment: Mapping[str, str] | None = None) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def _records(root: Path, count: int) -> None:
    """Records as `bench transfer` writes them: four tasks, five seeds, and as many models as that takes."""
    from results import record

    metrics = {
        "voc_c4": ("AP50", "AP", "AP75"),
        "coco_fpn_1x": ("APbb", "APmk"),
        "coco_c4_1x": ("APbb", "APmk"),
        "voc_semantic": ("mIoU",),
    }
    like = record.load(catalog.ROOT / "results" / "measured")[0]
    for number in range(count):
        model, (task, seed) = number // 20, divmod(number % 20, 5)
        name = [*metrics][task]
        one = like | {"task": name, "seed": seed, "metrics": dict.fromkeys(metrics[name], number * 37 % 5000 / 100)}
        one["protocol"] = like["protocol"] | {"name": f"{name}@mini", "hash": hashlib.sha256(name.encode()).hexdigest()}
        sha256 = hashlib.sha256(str(model).encode()).hexdigest()
        one["model"] = like["model"] | {"name": f"model{model}", "sha256": sha256}
        file = record.path(root, one)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(one, indent=1))


def _cost(part: str, against: str, ours: float, theirs: float, target: float | None) -> Row:
    return Row(part, against, ours / theirs, target, False, ours, theirs)


def _inspected(file: Path) -> tuple[int, int]:
    """Peak memory of inspecting a file, beyond what imports take, and the bytes that it read (proc(5))."""
    import torch  # noqa: F401

    from bench import sources
    from downstream import resnets

    resnets.shapes(resnets.arch("resnet50"))
    memory, read = _counters()
    sources.inspect(file)
    now = _counters()
    return now[0] - memory, now[1] - read


def _counters() -> tuple[int, int]:
    status, io = Path("/proc/self/status").read_text(), Path("/proc/self/io").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024, int(io.partition("rchar:")[2].split()[0])


def _plain() -> dict[str, Any]:
    import torchvision

    return dict(torchvision.models.resnet50().state_dict())


def _moco(negatives: int) -> dict[str, Any]:
    """What moco/main_moco.py saves: both encoders, the queue, the optimizer."""
    import torch

    state = {name: tensor for name, tensor in _plain().items() if not name.startswith("fc.")}
    heads = {"fc.0.weight": (2048, 2048), "fc.0.bias": (2048,), "fc.2.weight": (128, 2048), "fc.2.bias": (128,)}
    state |= {name: torch.randn(shape) for name, shape in heads.items()}
    both = {f"module.{net}.{name}": t.clone() for net in ("encoder_q", "encoder_k") for name, t in state.items()}
    both |= {"module.queue": torch.randn(128, negatives), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    momentum = {i: {"momentum_buffer": t.clone()} for i, t in enumerate(state.values()) if t.is_floating_point()}
    return {"epoch": 200, "arch": "resnet50", "state_dict": both, "optimizer": {"state": momentum}}
