"""Tables of many records, and starting the program.

table     `bench table moco` over 100,000 records, after the first time: under 3 seconds
start     `bench --help` against `python -c pass` plus importing typer: at most 1.5 times; `bench table moco` under a second
"""

import dataclasses
import hashlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from bench import catalog
from bench.speed import PAIRS, Row, cost, costlier


def table(folder: Path) -> list[Row]:
    """100,000 records in an empty cache; the first reading is told, the later ones are judged."""
    _records(folder / "records", 100_000)
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    arguments = ["table", "moco", "--results", str(folder / "records")]
    seconds = [_seconds(["-m", "bench", *arguments], environment) for _ in range(PAIRS + 1)]
    later = statistics.median(seconds[1:])
    peaks = [_peak(arguments, os.environ | {"XDG_CACHE_HOME": str(folder / cache)}) for cache in ("cache", "empty")]
    return [
        cost("table", "3 seconds, 100,000 records, after the first time", later, 3.0, 1.0, peaks[0]),
        cost("table", "a minute, 100,000 records, the first time", seconds[0], 60.0, None, peaks[1]),
    ]


def start(folder: Path) -> list[Row]:
    """Starting the program, and printing the packaged records' table."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder)}
    printing = ["table", "moco", "--results", str(catalog.ROOT / "results" / "measured")]

    def ours() -> None:
        _seconds(["-m", "bench", "--help"], environment)

    def theirs() -> None:
        for code in ("pass", "import typer"):
            _seconds(["-c", code], environment)

    table_s = statistics.median(_seconds(["-m", "bench", *printing], environment) for _ in range(PAIRS + 1))
    helped = costlier("start", "python -c pass and importing typer: bench --help", 1.5, ours, theirs)
    return [
        dataclasses.replace(helped, memory=_peak(["--help"], environment)),
        cost("start", "a second: bench table moco", table_s, 1.0, 1.0, _peak(printing, environment)),
    ]


def _seconds(arguments: list[str], environment: Mapping[str, str]) -> float:
    """That this Python takes with these arguments."""
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environment, check=True, capture_output=True)
    return time.perf_counter() - began


def _peak(arguments: list[str], environment: Mapping[str, str]) -> int | None:
    """The most memory that `bench` held with these arguments, in bytes, which it says at its end."""
    code = (
        "import atexit, sys; from bench import cli, speed; "
        "atexit.register(lambda: print(speed.peak_memory(), file=sys.stderr)); cli.main()"
    )
    run = [sys.executable, "-c", code, *arguments]
    told = subprocess.run(run, env=environment, check=True, capture_output=True, text=True).stderr.split()[-1]
    return None if told == "None" else int(told)


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
