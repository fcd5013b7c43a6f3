"""Freed memory stays with the process."""

import ctypes
import resource
import subprocess
import sys

import pytest

from bench import allocator

STEPS = """
import resource, sys
from bench import allocator
import numpy as np
if sys.argv[1] == "keep":
    allocator.keep()
faults = []
for step in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [np.ones(2**20 * number, np.uint8) for number in (8, 12, 16, 20)]
    del tensors
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(*faults)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_a_step_after_the_first_is_given_pages_that_it_had():
    pages = 56 * 2**20 // resource.getpagesize()
    kept, handed_back = (
        [int(n) for n in subprocess.check_output([sys.executable, "-c", STEPS, how], text=True).split()]
        for how in ("keep", "")
    )
    assert max(kept[1:]) < pages / 10 < min(handed_back[1:])


def test_another_c_library_is_left_alone(monkeypatch):
    monkeypatch.setattr(allocator.ctypes, "CDLL", lambda name: object())
    allocator.keep()
