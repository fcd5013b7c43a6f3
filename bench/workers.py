"""Worker processes of one thread each, that do not outlive the process that began them."""

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from bench import allocator, preview

AGAIN = 30  # seconds after which a worker without a parent is asked to end once more


@contextlib.contextmanager
def pool(log: Path, tasks: int | None = None) -> Iterator[ProcessPoolExecutor]:
    """As many workers as there are cores, each for so many tasks or for all; what they say goes to `log`.

    What has not begun when the block is left, by an error or by Ctrl-C, is not begun.
    """
    context = multiprocessing.get_context("spawn")
    found = ProcessPoolExecutor(len(os.sched_getaffinity(0)), context, _alone, (log,), max_tasks_per_child=tasks)
    try:
        yield found
    finally:
        found.shutdown(cancel_futures=True)


def followed(jobs: Mapping[Future[Any], str], told: Callable[[Any], str], say: Callable[[str], None]) -> dict[str, Any]:
    """The results by name, without those of jobs that failed; says of each job as it ends how, and what time is left."""
    results, began = {}, time.monotonic()
    for done, job in enumerate(as_completed(jobs), 1):
        left = preview.duration((time.monotonic() - began) / done * (len(jobs) - done))
        if error := job.exception():
            how = f" failed: {error}"
        else:
            results[jobs[job]] = job.result()
            how = f": {told(job.result())}"
        say(f"{done}/{len(jobs)}  {jobs[job]}{how}  ({left} left)")
    return results


def _alone(log: Path) -> None:
    """Prepares a worker: one thread, and a log file in place of the terminal that it shares with the others."""
    # first: torch takes seconds to import, in which Ctrl-C may come
    sys.stderr = log.open("a", buffering=1, errors="backslashreplace")
    import torch

    from bench import bfloat16

    torch.set_num_threads(1)
    allocator.keep()
    bfloat16.make_fast()
    threading.Thread(target=_follow, daemon=True).start()


def _follow() -> None:
    """Ends this process once its parent has ended, whatever ended that: as SIGTERM does, with a checkpoint of what is running."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    while True:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(AGAIN)
