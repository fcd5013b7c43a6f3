import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def photos(tmp_path):
    """24 images in 3 class folders."""
    draw(tmp_path / "photos")
    return tmp_path / "photos"


def draw(root, count=24, side=32):
    rng = np.random.default_rng(0)
    for i in range(count):
        path = root / "abc"[i % 3] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def tmpfs(tmp_path):
    """A small file system of its own: tmpfs(bytes) is where it lies; skipped where it cannot be mounted."""
    mounted = []

    def of(size):
        place = tmp_path / "small"
        place.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)], capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted: {done.stderr.strip()}")
        mounted.append(place)
        return place

    yield of
    for place in mounted:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def bench():
    """bench(*words, **environment): `python -m bench` started in a process of its own."""
    started = []

    def start(*words, cwd=None, stderr=subprocess.PIPE, **environment):
        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment
        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *map(str, words)],
            env=os.environ | own,
            cwd=cwd,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stderr:
            process.stderr.close()
