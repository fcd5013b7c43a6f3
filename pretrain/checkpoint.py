"""What a run is gone on with, whatever ended it: its two last checkpoints, the lock on its folder, the signals that end it.

last.pth is written whole or not at all, and the one before it stays as previous.pth. Both are torch's zip files: every tensor in
them has a checksum (CRC-32), which is compared when they are read. A last.pth that is damaged gives way to previous.pth.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import torch

from pretrain import dist, log

FORMAT = 1  # of what stands in last.pth; one more wherever an older version of this project would misread it
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)  # the last two: Slurm's --signal, submitit


def save(out: Path, state: Mapping[str, Any]) -> None:
    """Write last.pth; what it was becomes previous.pth. OSError: the disk is full, and both are as they were."""
    last = out / "last.pth"

    def write(file: IO[bytes]) -> None:
        torch.save({**state, "format": FORMAT}, file)
        file.flush()
        os.fsync(file.fileno())
        if last.exists():
            last.replace(out / "previous.pth")

    with log.room(last, size(state)):
        log.replace(last, write)


def size(content: Any) -> int:
    """The bytes of what `save` writes, about."""
    if isinstance(content, torch.Tensor):
        return content.nbytes + 512
    parts = content.values() if isinstance(content, Mapping) else content if isinstance(content, list | tuple) else ()
    return 64 + sum(size(part) for part in parts)


def load(out: Path, run_of: Mapping[str, Any], resume: bool) -> dict[str, Any] | None:
    """What stands in last.pth, or if it is damaged in previous.pth; None if neither is there.

    ValueError: both are damaged, what is there belongs to another run or to another version of this project, or is not to be gone
    on with.
    """
    damaged = []
    found = [path for path in (out / "last.pth", out / "previous.pth") if path.exists()]
    if found and not resume:
        raise ValueError(
            f"expected no earlier run in {out}, found {found[0].name}: --resume goes on with it, or choose another --out"
        )
    for path in found:
        try:
            state = content(path)
        except Exception as error:
            damaged.append(f"{path} ({' '.join(str(error).split())[:200]})")
            continue
        check(path, state, run_of)
        if path.name == "previous.pth" and os.environ.get("RANK", "0") == "0":
            log.say(
                f"{', '.join(damaged) or 'last.pth'} is damaged or gone: going on from {path}, step {state['step']}"
            )
        return state
    if damaged:
        raise ValueError(f"expected a checkpoint of this project in {', '.join(damaged)}: remove it to start again")
    return None


def shared(out: Path, state: Mapping[str, Any] | None, process: dist.Process) -> None:
    """ValueError where processes on several machines do not see the same last.pth; without this they would wait for one another.

    One whose last.pth cannot be gone on with has ended before, which torchrun ends the others for.
    """
    steps = dist.gathered(torch.tensor([state["step"] if state else 0], device=process.device)).tolist()
    if len({*steps}) > 1:
        found = ", ".join(f"step {step or 'none'} by process {rank}" for rank, step in enumerate(steps))
        raise ValueError(
            f"expected one last.pth in {out.absolute()}, found {found}: --out must be a folder that all machines share"
        )


def content(path: Path) -> dict[str, Any]:
    """What `save` wrote, after a look at its checksums, which torch does not compare."""
    with zipfile.ZipFile(path) as archive:
        if part := archive.testzip():
            raise ValueError(f"{part} does not have its checksum")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state.get("run"), dict):
        raise ValueError("it is no checkpoint of a run")
    return state


def check(path: Path, state: Mapping[str, Any], run_of: Mapping[str, Any]) -> None:
    """ValueError where a checkpoint cannot be gone on with in this run by this version."""
    if state.get("format") != FORMAT:
        raise ValueError(
            f"expected {path} in this version's format {FORMAT}, found {state.get('format', 'an older one')}: go on with the "
            "version of this project that wrote it, or choose another --out"
        )
    old, new = ({**part, **part["recipe"], "images": part["data"]["images"]} for part in (state["run"], run_of))
    del old["data"], new["data"]  # the folder may have moved
    was, now = old.pop("names", new["names"]), new.pop("names")  # older checkpoints have neither these nor an origin
    if "origin" in new:
        old.setdefault("origin", new["origin"])
    if old != new:
        changed = [key for key in new if key != "recipe" and old.get(key) != new[key]]
        said = ", ".join(f"{key} {old.get(key)} -> {new[key]}" for key in changed)
        from pretrain import recipes  # which reads the images, whose reader reads this file

        known = [key for key in changed if key in run_of["recipe"] and key in old and key not in recipes.GIVEN]
        # what other images change of the recipe no field puts back
        fields = "".join(f" {key}={recipes.worded(old[key])}" for key in known if "images" not in changed)
        raise ValueError(
            f"expected the call that began {path}, found changes ({said}): call as before"
            f"{f', or with{fields}' if fields else ''}, or choose another --out"
        )
    if was != now:
        raise ValueError(
            f"expected the images that began {path}, found as many with other names: --data is another folder or was changed; "
            "put back what was there, or choose another --out"
        )


@contextlib.contextmanager
def locked(out: Path, chief: bool) -> Iterator[None]:
    """The folder is this process's alone; ValueError names the process and the host that have it.

    A lock of the kernel's on the file `running`: it goes with its process, however that ends, and no child has it. On NFS the
    server keeps it for all machines, and gives it free some time (NFSv4: 90 s) after one has crashed; mounted with `nolock`, or on
    a file system that has no locks at all, a second run on another machine is not noticed, which the latter is warned of.
    """
    if not chief:
        yield
        return
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    file = os.open(out / "running", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _lock(file, out)
        about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z")}
        with log.room(out / "running", 100):
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(about).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(file, 0)
            if new and [path.name for path in out.iterdir()] == ["running"]:  # a call that was wrong leaves nothing
                (out / "running").unlink()
                out.rmdir()
    finally:
        os.close(file)


def _lock(file: int, out: Path) -> None:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(file).st_nlink:
            raise ValueError(f"expected {out} to stay, found it just removed by another run that failed: call again")
    except (BlockingIOError, PermissionError):
        try:
            about = json.loads(os.pread(file, 4096, 0))
        except ValueError:  # it is just being written
            about = {"pid": "unknown", "host": "unknown", "since": "just now"}
        raise ValueError(
            f"expected {out} free, found another run in it, process {about['pid']} on {about['host']} since {about['since']}: "
            "let it end, or choose another --out"
        ) from None
    except OSError as error:
        log.say(f"warning: {out} is on a file system without locks ({error}): nothing keeps a second run out of it")


class Stop:
    """The signal that asks a run to end, 0 before one has come.

    While `patient` it is only noted, so that the step and its checkpoint are finished. Before and after, when there is nothing to
    save that is not saved already, the process ends at once; but not one of many that wait for one another.
    """

    def __init__(self, process: dist.Process) -> None:
        self.process, self.number, self.patient = process, 0, False
        self.said = dist.later(torch.zeros(()))

    def __call__(self, number: int, frame: Any = None) -> None:
        self.number = self.number or number
        if not self.patient:
            self.end("what was done is saved already")

    def asked(self) -> bool:
        """Whether a signal had come to one of the processes: all of them end after the same step.

        Of many processes it answers a step later, so that on GPUs no more than the step before is waited for.
        """
        if self.process.world_size == 1:
            return self.number > 0
        number = torch.full((), float(self.number > 0), device=self.process.device)
        said, self.said = self.said, dist.later(dist.summed(number))
        return bool(said())

    def hurry(self) -> None:
        """Be patient no longer."""
        self.patient = self.patient and self.process.world_size > 1
        if self.number and not self.patient:
            self.end("what was done is saved already")

    def end(self, how: str) -> None:
        """Leave the process: exit code 130 after Ctrl-C, else 143."""
        if self.process.rank == 0:
            name = signal.Signals(self.number).name if self.number else "a signal to another process"
            log.say(f"ended by {name}; {how}: the same call with --resume goes on")
        raise SystemExit(128 + (signal.SIGINT if self.number == signal.SIGINT else signal.SIGTERM))


@contextlib.contextmanager
def signals(process: dist.Process) -> Iterator[Stop]:
    """A Stop that hears SIGTERM, Ctrl-C and Slurm's warning; outside the main thread it hears nothing."""
    stop = Stop(process)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def deaf(worker: int) -> None:
    """For a process that prepares batches: a signal to all of a run's processes must not end it under the step that is finished.

    Its parent's SIGTERM, by which the loader ends it, it obeys; where the system does not say who sent one, it obeys all.
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
