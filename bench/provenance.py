"""Where a number comes from: the code's commit, the versions, the machine. Plain values for the record."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from bench import catalog

PACKAGES = ("torch", "torchvision", "detectron2", "mmsegmentation", "mmcv", "mmcv-lite", "numpy", "pycocotools")
# The detectron2 that `make setup` installs comes under another distribution's name.
ALSO = {"detectron2": "sal-detectron2"}

# What changes a run; a variable whose name speaks of a secret is not written down.
VARIABLES = (
    *("BENCH_", "CUDA_", "DETECTRON2_", "LANG", "LC_", "LOCAL_", "MKL_", "NCCL_", "OMP_", "PYTHON", "RANK", "SLURM_"),
    *("TORCH", "TZ", "WORLD_SIZE"),
)
SECRET = ("TOKEN", "KEY", "SECRET", "PASS", "JWT")


def version(distribution: str) -> str | None:
    """The installed version of a distribution, None where it is not installed."""
    for name in (distribution, ALSO.get(distribution)):
        try:
            return importlib.metadata.version(name) if name else None
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def versions() -> dict[str, str]:
    """Python's version and that of every package a number depends on."""
    found = {package: version(package) for package in PACKAGES}
    return {"python": platform.python_version()} | {package: v for package, v in found.items() if v}


def commit() -> str:
    """The commit of this code, with `+changes` where files other than results differ from it; `unknown` outside a git checkout."""

    elsewhere = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")  # set in a hook of another repository
    ours = {name: value for name, value in os.environ.items() if name not in elsewhere}

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(catalog.ROOT), *words], capture_output=True, text=True, check=True, env=ours
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != catalog.ROOT.resolve():
            return "unknown"  # installed somewhere in another project's checkout
        return git("rev-parse", "HEAD") + (
            "+changes" if git("status", "--porcelain", "-uno", "--", ".", ":!results/measured") else ""
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> dict[str, Any]:
    """Operating system, processor with its vector instructions, cores and accelerators. No host name and no user."""
    import torch

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    usable = torch.cuda.is_available()  # a driver tells of GPUs, too, that this torch is too new for
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if usable else []
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": models[0] if models else platform.processor(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "gpus": gpus,
    }


def environment() -> dict[str, str]:
    """The variables of the environment that change a run, by name."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(VARIABLES) and not any(word in name for word in SECRET)
    }


def now(what: str) -> dict[str, Any]:
    """Versions, machine, commit and, under `what`, the time in UTC."""
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"versions": versions(), "machine": machine(), "commit": commit(), what: moment}
