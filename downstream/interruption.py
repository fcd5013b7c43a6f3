"""A training is ended by a signal, by a loss that is not finite, by the machine: with a checkpoint, a sentence, an exit code.

SIGTERM, Slurm's warnings (USR1 and USR2) and Ctrl-C are noticed at the end of an iteration; a checkpoint is written and the
process ends with 143 or, for Ctrl-C, 130. Outside of a training, and at a second signal some time later, it ends at once.
"""

import contextlib
import math
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed

from downstream.checkpoint import LAST

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
SPOKEN = 5  # losses before one that is not finite
ECHO = 2.0  # seconds in which torchrun passes a signal on that its processes may have been sent as well, as Slurm does


def leave(number: int, after: str) -> None:
    """Ends this process as a signal asks. Raises SystemExit."""
    if os.environ.get("RANK", "0") == "0":
        name = signal.Signals(number).name
        print(f"bench: ended by {name} {after}; the same call with --resume goes on", file=sys.stderr, flush=True)
    raise SystemExit(128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM))


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], Any]) -> Iterator[None]:
    """Signals go to `handler` meanwhile; to whom they went before in a thread, which cannot say."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


def at_once(number: int, _: FrameType | None = None) -> None:
    """Ends this process; its last checkpoint stands."""
    with handled(lambda *_: None):  # one is enough
        leave(number, "outside of the training")


def deaf(worker: int) -> None:
    """For a process that loads data: a signal to all of a run's processes must not end it under the iteration that is finished.

    The loader's own SIGTERM, which comes from the parent, it obeys; where the system does not say who sent one, it obeys all.
    """
    for number in SIGNALS[1:]:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey, args=(os.getppid(),), daemon=True).start()


def _obey(parent: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)


class Watch:
    """Over a training, alike in all its processes: are losses finite, is a checkpoint due, has a signal come?

    folder:    of the checkpoints
    batch, total: images of an iteration, iterations
    every:     seconds between two checkpoints
    device:    of the losses
    """

    def __init__(self, folder: Path, batch: int, total: int, every: float, device: torch.device):
        self.folder, self.batch, self.total, self.every, self.device = folder, batch, total, every, device
        self.recent: deque[float] = deque(maxlen=SPOKEN)
        self.alone = not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1
        self.noted, self.first = 0, 0.0  # the signal that this process has got, and when
        self.signal, self.late, self.saved = 0, False, time.monotonic()  # what all agree on

    def __enter__(self) -> "Watch":
        self.handling = handled(self._noted)
        self.handling.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: Any) -> None:
        self.handling.__exit__(kind, *error)
        if self.noted and kind is None:
            at_once(self.noted)

    def _noted(self, number: int, _: FrameType | None) -> None:
        if self.noted and time.monotonic() - self.first > ECHO:
            at_once(number)
        if not self.noted:
            self.noted, self.first = number, time.monotonic()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Signals end the process at once meanwhile: right after a checkpoint."""
        with handled(at_once):
            if self.noted:
                at_once(self.noted)
            yield

    def look(self, loss: float, iteration: int, lr: float) -> None:
        """To be asked before a backward pass, with the mean loss of its images; the one place where the processes agree.

        Raises FloatingPointError in all processes if the loss of one is not finite.
        """
        finite, late = math.isfinite(loss), time.monotonic() - self.saved > self.every
        bad, self.signal, self.late = self._agreed(not finite, self.noted, late)
        if bad:
            raise self.diverged(str(loss) if not finite else "one that is not in another process", iteration, lr)
        self.recent.append(loss)

    def diverged(self, found: str, iteration: int, lr: float) -> FloatingPointError:
        """What says that the loss is not finite, and what to do; for a process that cannot meet the others in `look`, too."""
        losses = ", ".join(f"{value:.4g}" for value in self.recent) or "none"
        kept = f"{self.folder / LAST} is kept" if (self.folder / LAST).exists() else "there is no checkpoint yet"
        return FloatingPointError(
            f"expected a finite loss, found {found} in iteration {iteration} with learning rate {lr:g} and batch "
            f"{self.batch} (the last finite losses: {losses}): look at the checkpoint's weights, traits and norms, or lower "
            f"the learning rate (the run is then nonstandard); {kept}"
        )

    def _agreed(self, *flags: int) -> tuple[int, ...]:
        """The largest of each over the processes."""
        if self.alone:
            return flags
        shared = torch.tensor(flags, device=self.device)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
        return tuple(shared.tolist())

    def due(self, done: int) -> bool:
        """Whether to write a checkpoint now: every few minutes, at the end, and before a signal ends the run."""
        if self.alone:
            self.signal = self.noted
        if not (self.late or self.signal or done == self.total):
            return False
        self.saved, self.late = time.monotonic(), False
        return True

    def pass_on(self, done: int) -> None:
        """Ends the process if a signal has come in or before the iteration that was the last one; its checkpoint is written.

        No process ends before the first has written it: torchrun ends the others when one has.
        """
        if self.signal:
            if not self.alone:
                torch.distributed.barrier()
            leave(self.signal, f"after iteration {done} of {self.total}, with a checkpoint in {self.folder}")


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turns what a machine does to a trial into one sentence that says what to lower.

    Raises RuntimeError for memory that is used up and for a process that loads data and has died; an error from such a process
    as what it was there.
    """
    try:
        yield
    except MemoryError as error:
        raise RuntimeError(_memory(str(error))) from error
    except torch.OutOfMemoryError as error:
        raise RuntimeError(_memory(f"{error}".partition(".")[0])) from error
    except (RuntimeError, ValueError, OSError) as error:
        text = str(error)
        if "can't allocate memory" in text:  # torch's, on a CPU
            raise RuntimeError(_memory(text.rpartition("DefaultCPUAllocator: ")[2])) from error
        if "DataLoader worker" in text and ("exited unexpectedly" in text or "killed by signal" in text):
            raise RuntimeError(
                "expected the processes that load data to live, found one dead, most often for want of memory or of /dev/shm: "
                "ask for fewer (DATALOADER.NUM_WORKERS), or give the machine more; --resume goes on from the last checkpoint"
            ) from error
        if text.startswith("Caught ") and "in DataLoader worker process" in text:
            raise type(error)(text.strip().splitlines()[-1].partition(": ")[2]) from error
        raise


def _memory(found: str) -> str:
    return (
        f"expected enough memory, found too little ({' '.join(found.split()) or 'out of memory'}): run on more GPUs, which share "
        "the batch, or on one with more memory, end what else runs there, or lower the images' sizes (nonstandard); --resume "
        "goes on from the last checkpoint"
    )
