import contextlib
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


PLACE = Path(__file__).with_name("two_processes.py")


@pytest.fixture(scope="session")
def pair():
    """Two processes that wait for steps of tests/pretrain/two_processes.py."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "CUDA_VISIBLE_DEVICES": ""}
    shared |= {"PYTHONPATH": str(PLACE.parents[2]), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(
            [sys.executable, str(PLACE)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    yield started
    for process in started:
        with contextlib.suppress(BrokenPipeError):  # it has failed, and its test too
            process.stdin.close()
    for process in started:
        process.wait(60)
        process.stdout.close()


@pytest.fixture
def two_processes(pair, tmp_path):
    """two_processes(method, variant=None, batch=8, sides=(32, 32), steps=1, single=(), **recipe): here, and in each of two processes.

    Each is a dict: loss (the mean over the processes), gradients and buffers by name.
    """
    harness = importlib.util.module_from_spec(importlib.util.spec_from_file_location("two_processes", PLACE))
    harness.__spec__.loader.exec_module(harness)

    def run(method, variant=None, batch=8, sides=(32, 32), steps=1, single=(), **recipe):
        out = [str(tmp_path / f"{rank}.pth") for rank in range(2)]
        spec = {"method": method, "variant": variant, "batch": batch, "sides": sides, "steps": steps}
        spec |= {"single": single, "recipe": recipe, "out": out}
        for process in pair:
            process.stdin.write(json.dumps(spec) + "\n")
            process.stdin.flush()
        one = harness.step(spec)
        assert [process.stdout.readline() for process in pair] == ["done\n"] * 2
        return one, *(torch.load(path, weights_only=True) for path in out)

    return run
