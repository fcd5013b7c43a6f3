import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture
def slope():
    """The gradient of a formula by central differences: slope(formula, x), in x's shape."""

    def of(formula, x, step=1e-6):
        gradient = np.empty_like(x)
        for place in np.ndindex(x.shape):
            up, down = x.copy(), x.copy()
            up[place] += step
            down[place] -= step
            gradient[place] = (formula(up) - formula(down)) / (2 * step)
        return gradient

    return of


@pytest.fixture
def two_processes(tmp_path):
    """two_processes(method, variant=None, batch=8, sides=(32, 32), steps=1, **recipe): in this process, and in each of two.

    The steps are alike, without an update between them. Each is a dict: loss (the mean over the processes), gradients and buffers by name.
    """
    place = Path(__file__).with_name("two_processes.py")
    harness = importlib.util.module_from_spec(importlib.util.spec_from_file_location("two_processes", place))
    harness.__spec__.loader.exec_module(harness)

    def run(method, variant=None, batch=8, sides=(32, 32), steps=1, **recipe):
        spec = {"method": method, "variant": variant, "batch": batch, "sides": sides, "steps": steps, "recipe": recipe}
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": ""}
        shared |= {"PYTHONPATH": str(place.parents[2]), "OMP_NUM_THREADS": "1"}
        started = [
            subprocess.Popen(
                [sys.executable, str(place), json.dumps(spec), str(tmp_path / f"{rank}.pth")],
                env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(2)
        ]
        try:
            one = harness.step(spec)
            assert [process.wait(120) for process in started] == [0, 0]
        finally:
            for process in started:
                process.kill()
                process.wait()
        return one, *(torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2))

    return run
