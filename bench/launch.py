"""Trials as processes: one that is watched over, many side by side on this machine, or Slurm's jobs.

    python -m bench.launch trial SWEEP INDEX    one trial of a sweep, gone on with where it was interrupted
    python -m bench.launch pool SWEEP           all of them, as many at a time as the sweep says

A trial leaves in its folder, beside what the engine writes: transfer.log (all that it said), running (locked while it
runs, with process and host), outcome.json (exit code and last line; only where it ended without a record). Whether
something runs is asked of the lock, never of a file's existence: a lock ends with its process, however that ends.
"""

import fcntl
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from bench import catalog
from results.record import replaced

RESTARTS = 3  # of a trial that was killed; one that ends with an error is not started again
TIMEOUTS = 1000  # that a Slurm job may go on after
CPUS = 4  # of a Slurm job for each GPU: detectron2's DATALOADER.NUM_WORKERS
POLL = 0.5  # seconds
PATIENCE = 60.0  # seconds that an interrupted trial has for its checkpoint
SIGNALLED = (128 + signal.SIGINT, 128 + signal.SIGTERM)
BUSY = 75  # exit code of a trial that another process runs


class Busy(RuntimeError):
    """Another process runs this trial."""


def write(file: Path, content: Mapping[str, Any]) -> None:
    """Writes a JSON file whole or not at all."""
    replaced(file, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read(file: Path) -> dict[str, Any]:
    """The content of a JSON file, {} where there is none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


@contextmanager
def locked(folder: Path, sweep: Path | None = None, patience: float = 2.0) -> Iterator[int | None]:
    """The open file `running` of a folder, locked; None where another process has it for longer than `patience` seconds.

    sweep: whose trial runs there
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / "running", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        until, taken = time.monotonic() + patience, False
        while not taken and time.monotonic() <= until:
            taken = _lock(file, fcntl.LOCK_EX)
            if not taken:
                time.sleep(0.1)  # whoever asks whether it is `held` has it for a moment
        if taken:
            about = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
            about |= {"sweep": str(sweep), "slot": os.environ.get("BENCH_SLOT")}
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(about).encode(), 0)
        yield file if taken else None
    finally:
        os.close(file)


def held(folder: Path) -> dict[str, Any] | None:
    """Process and host of what runs in a folder; None where nothing does."""
    try:
        file = os.open(folder / "running", os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        if _lock(file, fcntl.LOCK_SH):
            return None
        return json.loads(os.pread(file, 4096, 0) or b"{}")
    except ValueError:  # it is just being written
        return {}
    finally:
        os.close(file)


def _lock(file: int, kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks: nothing is known to run there
        return True
    return True


def last_line(log: Path) -> str:
    """The last line of a log that says something; of the last start's, `bench`'s own where torchrun's stand below it."""
    if (last := _last_start(log)) is None:
        return "it wrote no log"
    own = [line for line in last if line.startswith("bench: ")]
    return (own or last or ["it said nothing"])[-1]


def _last_start(log: Path) -> list[str] | None:
    """The lines of a log's end that say something, of the last start; None if there is no log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 16384))
            lines = file.read().decode(errors="replace").replace("\r", "\n").splitlines()
    except FileNotFoundError:
        return None
    last = [line.strip() for line in lines if line.strip()]
    return last[max((i for i, line in enumerate(last) if line.startswith("$ ")), default=-1) + 1 :]


def cause(code: int, log: Path) -> int:
    """How a start ended: its exit code, and for the 1 of torchrun's that of the process that it reports to have ended first.

    Below 0 for a signal, also for one that torchrun itself was sent.
    """
    text = "\n".join(_last_start(log) or ()) if code == 1 else ""
    if first := re.search(r"Root Cause .*?exitcode\s*: (-?\d+)", text, re.DOTALL):
        return int(first[1])
    sent = re.search(r"SignalException: Process \d+ got signal: (\d+)", text)
    return -int(sent[1]) if sent else code


class Trial:
    """One trial of a sweep. Calling it runs it to its record; submitit asks `checkpoint` before a job ends too early."""

    def __init__(self, sweep: Path, index: int):
        self.sweep, self.index = sweep, index
        self.child: subprocess.Popen[bytes] | None = None
        self.stopped = False

    def __call__(self) -> str:
        """The record's file. Raises RuntimeError with the last line of the log."""
        plan = read(self.sweep / "sweep.json")
        trial = plan["trials"][self.index]
        record, folder = Path(trial["record"]), Path(trial["folder"])
        with locked(folder, self.sweep) as lock:
            if lock is None:
                raise Busy(f"expected nobody at work in {folder}, found {held(folder)}: let it finish")
            if record.is_file():  # whoever was at work here has just ended
                return str(record)
            outcome = folder / "outcome.json"
            outcome.unlink(missing_ok=True)
            code = self._run(trial["command"], plan["cwd"], folder / "transfer.log", lock)
            if code == 0 and record.is_file():
                return str(record)
            line = last_line(folder / "transfer.log")
            if code == 0:
                line = (
                    f"it ended without its record {record}: have data or weights changed since the sweep was planned?"
                )
            elif code < 0:
                line = f"killed by signal {-code} after: {line}"
            write(outcome, {"code": code, "line": "cancelled" if self.stopped else line, "ended": time.time()})
            raise RuntimeError(line)

    def _run(self, command: Sequence[str], cwd: str, log: Path, lock: int) -> int:
        """The exit code of the last start; its processes hold the lock too."""
        code = 0
        for _ in range(1 + RESTARTS):
            with log.open("ab") as file:
                file.write(f"$ {' '.join(command)}\n".encode())
                file.flush()
                self.child = subprocess.Popen(
                    command,
                    cwd=cwd,
                    env=environment(BENCH_TRIAL=str(log.parent)),
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                    pass_fds=(lock,),
                )
            if self.stopped:  # before there was a child to tell
                self.child.terminate()
            code = cause(self.child.wait(), log)
            if self.stopped or not (code < 0 or code in SIGNALLED):
                break
        return code

    def stop(self, *_: Any) -> None:
        """Ends the trial, with time for a checkpoint."""
        self.stopped = True
        if self.child:
            self.child.terminate()

    def checkpoint(self) -> Any:
        """What submitit queues again: the same trial, which goes on from its last checkpoint."""
        from submitit.helpers import DelayedSubmission

        self.stop()
        until = time.monotonic() + PATIENCE
        while self.child and not _ended(self.child.pid):
            if time.monotonic() > until:
                self.child.kill()
            time.sleep(0.2)
        return DelayedSubmission(Trial(self.sweep, self.index))


def _ended(pid: int) -> bool:
    """Whether a child has ended; leaves it to the `wait` that a signal interrupted, which holds Popen's lock."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


def environment(**more: str) -> dict[str, str]:
    """This process's environment, in which Python finds this very code and nothing of the current folder."""
    path = os.pathsep.join(filter(None, (str(catalog.ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "PYTHONSAFEPATH": "1", "PYTHONUNBUFFERED": "1"} | more


# This machine


def start(sweep: Path) -> None:
    """Starts the process that keeps this machine busy with a sweep, apart from this one; returns when it is at work."""
    with (sweep / "pool.log").open("ab") as log, Path(os.devnull).open("rb") as nothing:
        streams = [(os.POSIX_SPAWN_DUP2, file.fileno(), to) for file, to in ((nothing, 0), (log, 1), (log, 2))]
        words = [sys.executable, "-m", "bench.launch", "pool", str(sweep)]
        process = os.posix_spawn(sys.executable, words, environment(), file_actions=streams, setsid=True)
    while held(sweep) is None and os.waitpid(process, os.WNOHANG) == (0, 0):
        time.sleep(0.05)


def pool(sweep: Path) -> None:
    """Runs the trials of a sweep that have no record, one in a slot; does nothing where another process does it already."""
    with locked(sweep) as lock:
        if lock is None:
            return
        plan = read(sweep / "sweep.json")
        trials, slots = plan["trials"], plan["slots"]
        waiting = [i for i, trial in enumerate(trials) if not Path(trial["record"]).is_file()]
        starts, busy = dict.fromkeys(waiting, 0), dict[int, tuple[int, subprocess.Popen[bytes]]]()
        while waiting or busy:
            for slot, (i, process) in list(busy.items()):
                if process.poll() is not None:
                    del busy[slot]
                    if _again(Path(trials[i]["folder"]), process.returncode, starts[i]):
                        waiting.append(i)
            if (sweep / "cancelled").exists():
                waiting.clear()
            waiting = [i for i in waiting if not Path(trials[i]["record"]).is_file()]
            others = {i: about for i in waiting if (about := held(Path(trials[i]["folder"]))) is not None}
            taken = {*busy, *(int(about.get("slot") or -1) for about in others.values())}
            free = [slot for slot in range(len(slots)) if slot not in taken]
            for slot, i in zip(free, [i for i in waiting if i not in others], strict=False):
                waiting.remove(i)
                starts[i] += 1
                busy[slot] = i, _watched(sweep, i, slots[slot] | {"BENCH_SLOT": str(slot)})
            time.sleep(POLL)


def _watched(sweep: Path, index: int, more: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.launch", "trial", str(sweep), str(index)],
        env=environment(**more), stdin=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def _again(folder: Path, code: int, starts: int) -> bool:
    """Whether a trial is to be started once more: it was killed, or another process had it. Else says what became of it."""
    if code == BUSY or (code < 0 and starts <= RESTARTS):
        return True
    if code and not (folder / "outcome.json").exists():
        line = f"killed by signal {-code}" if code < 0 else "it did not start: pool.log of the sweep says why"
        write(folder / "outcome.json", {"code": code, "line": line, "ended": time.time()})
    return False


def kill(sweep: Path, folders: Sequence[Path], patience: float = PATIENCE + 10) -> None:
    """Ends a sweep's trials in these folders on this machine: SIGTERM, and SIGKILL to what is left after `patience` seconds.

    torchrun ends its processes itself after PATIENCE; killed before it has, it would leave them behind, and no lock.
    """
    until, told = time.monotonic() + patience, set[int]()
    while running := [pid for folder in folders if (pid := _own(sweep, folder)) is not None]:
        late = time.monotonic() > until
        for pid in running:
            if late or pid not in told:
                _signal(pid, signal.SIGKILL if late else signal.SIGTERM)
        told |= set(running)
        time.sleep(0.2)


def _own(sweep: Path, folder: Path) -> int | None:
    """The process of a sweep's trial that runs in a folder on this machine."""
    about = held(folder) or {}
    return about["pid"] if about.get("sweep") == str(sweep) and about["host"] == socket.gethostname() else None


def _signal(pid: int, number: signal.Signals) -> None:
    """To a trial's process; to its group, which it leads, if it is gone and has left something behind, and for SIGKILL."""
    with suppress(ProcessLookupError):
        if number == signal.SIGTERM:
            os.kill(pid, number)
            return
    with suppress(ProcessLookupError):
        os.killpg(pid, number)


# Slurm


def submit(sweep: Path, indices: Sequence[int]) -> None:
    """Submits trials as one job array. Raises RuntimeError where Slurm refuses it; then nothing is submitted."""
    import submitit

    plan, file = read(sweep / "sweep.json"), sweep / "jobs.json"
    submissions = read(file).get("submissions", [])
    name = f"bench-{plan['name']}-{plan['id']}-{len(submissions)}"
    folder = sweep / "slurm" / str(len(submissions))
    # known by its name, should this process be killed
    write(file, {"submissions": [*submissions, {"name": name, "jobs": {}}]})
    try:
        executor = submitit.SlurmExecutor(folder, max_num_timeout=TIMEOUTS)
        executor.update_parameters(
            job_name=name[:200], array_parallelism=plan["jobs"], **_resources(plan), **_script(sweep)
        )
        jobs = executor.submit_array([Trial(sweep, i) for i in indices])
    except Exception as error:
        write(file, {"submissions": submissions})
        raise RuntimeError(f"expected Slurm to take {len(indices)} jobs, found: {error}") from error
    ids = {str(i): job.job_id for i, job in zip(indices, jobs, strict=True)}
    write(file, {"submissions": [*submissions, {"name": name, "jobs": ids}]})


def _resources(plan: Mapping[str, Any]) -> dict[str, Any]:
    wanted = {"partition": plan["partition"], "time": plan["minutes"], "cpus_per_task": CPUS * plan["gpus"] or 1}
    return {k: v for k, v in wanted.items() if v} | ({"gpus_per_node": plan["gpus"]} if plan["gpus"] else {})


def _script(sweep: Path) -> dict[str, list[str]]:
    """Lines before and after submitit's own. A job that was killed is queued again, up to RESTARTS times; one that has been
    cancelled, or ended with an error, is not. submitit queues again by itself before a time-out and on preemption.
    """
    path, cancelled = shlex.quote(environment()["PYTHONPATH"]), shlex.quote(str(sweep / "cancelled"))
    return {
        "setup": [
            f"export PYTHONPATH={path} PYTHONSAFEPATH=1 OMP_NUM_THREADS=1",
            "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK",  # since Slurm 22.05 srun does not take it from sbatch
        ],
        "teardown": [
            "code=$?",
            # of an array's last job the number alone is the whole array's
            "job=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}",
            "job=${job:-$SLURM_JOB_ID}",
            f"if [ $code -gt 128 ] && [ $code -lt 193 ] && [ ! -e {cancelled} ] &&",
            f'    [ ${{SLURM_RESTART_COUNT:-0}} -lt {RESTARTS} ] && [ "$(squeue -h -j $job -o %T)" = RUNNING ]; then',
            "    scontrol requeue $job",
            "fi",
            "exit $code",
        ],
    }


def queue(sweep: Path) -> dict[str, str] | None:
    """Slurm's state of every job of a sweep that has not ended, by its id; None where Slurm does not answer."""
    names = ",".join(entry["name"][:200] for entry in read(sweep / "jobs.json").get("submissions", []))
    if not names:
        return {}
    try:
        asked = subprocess.run(["squeue", "-h", "-r", "-n", names, "-o", "%i %T"], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return None if asked.returncode else dict(line.split() for line in asked.stdout.splitlines())


def scancel(sweep: Path) -> None:
    """Ends a sweep's jobs. Raises RuntimeError where Slurm refuses."""
    if ids := sorted(queue(sweep) or {}):
        done = subprocess.run(["scancel", *ids], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"expected scancel to end {len(ids)} jobs, found: {done.stderr.strip()}")


if __name__ == "__main__":
    if sys.argv[1] == "pool":
        pool(Path(sys.argv[2]))
    else:
        trial = Trial(Path(sys.argv[2]), int(sys.argv[3]))
        signal.signal(signal.SIGTERM, trial.stop)
        try:
            trial()
        except RuntimeError as error:
            print(f"trial {trial.index}: {error}", file=sys.stderr)
            sys.exit(BUSY if isinstance(error, Busy) else 1)
