import subprocess

import numpy as np
import pytest
from PIL import Image


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
    """A small file system of its own: tmpfs("64k") is where one of 64 kB lies; skipped where it cannot be mounted."""
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
