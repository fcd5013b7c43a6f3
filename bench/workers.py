"""Worker processes of one thread each, that do not outlive the process that began them."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from bench import allocator

AGAIN = 30  # seconds after which a worker without a parent is asked to end once more


@contextlib.contextmanager
def pool(log: Path, tasks: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """As many workers as there are cores, each for so many tasks or for all; what they say goes to `log`.

    What has not begun when the block is left, by an error or by Ctrl-C, is not begun.
    """
    context = multiprocessing.get_context("spawn")
    found = ProcessPoolExecutor(os.cpu_count(), context, _alone, (log,), max_tasks_per_child=tasks)
    try:
        yield found
    finally:
        found.shutdown(cancel_futures=True)


def _alone(log: Path) -> None:
    """Prepares a worker: one thread, and a log file in place of the terminal that it shares with the others."""
    import torch

    from bench import bfloat16

    torch.set_num_threads(1)
    allocator.keep()
    bfloat16.make_fast()
    sys.stderr = log.open("a", buffering=1)
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """Ends this process once its parent has ended, whatever ended that: as SIGTERM does, with a checkpoint of what is running."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(AGAIN)
