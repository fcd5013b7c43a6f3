"""`bench sweep`: a grid of tasks, checkpoints and seeds as one job a trial, on this machine or through Slurm.

    bench sweep --tasks voc_c4,coco_fpn_1x --checkpoints moco.pth,supervised,random --trials 5 --data datasets
    bench sweep --watch     how it stands            bench sweep --cancel     ends it

A sweep is a folder, OUT/sweeps/NAME, that says all there is to know of it:

    sweep.json   the grid, and of every trial its command, its record's file, its folder and its multiply-accumulates
    jobs.json    Slurm's jobs, by trial
    pool.log     what the process said that keeps this machine busy
    cancelled    stands there after --cancel, until the sweep is started again

What is done is told by the records, what runs by locks (`bench.launch`) and by Slurm's queue. So nothing is lost with the
process that started a sweep, and the same call goes on with it: trials that have their record are skipped, others go on from
their last checkpoint.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Column, Table

from bench import journey, launch, preview
from downstream import task as protocols

# Multiply-accumulates a second of a V100 in training, where no GPU is here to be measured: detectron2's MODEL_ZOO.md, Mask
# R-CNN R50-FPN 1x: 0.261 s an iteration of 16 images on 8 GPUs, 636e9 each by `preview.macs`; R50-C4 1x, 0.584 s, gives 5.2e12.
V100 = 4.9e12

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"  # that a trial of several processes is told of

# done, running, waiting, failed, killed (a job that ended and left no word) or left (not started); and more in words
State = tuple[str, str]


# The grid


def trials(
    tasks: Mapping[str, protocols.Task],
    checkpoints: Sequence[str],
    seeds: Sequence[int] | int | None,
    data: Path,
    out: Path,
    arch: str | None,
    words: Sequence[str],
) -> list[dict[str, Any]]:
    """Every trial of a grid, with all that has to be known to run it and to find its record.

    tasks: by their names on the command line; seeds: these, or so many, or as many as each protocol says; words: more of
    `bench transfer`'s. Raises ValueError or FileNotFoundError for data and checkpoints that are missing or wrong.
    """
    from results import record

    rows, scale = [], next(iter(tasks.values())).scale
    models = {checkpoint: _opened(checkpoint, arch, scale) for checkpoint in checkpoints}
    for name, task in tasks.items():
        found = journey.engine(task).found(task, data)
        macs = {about["arch"]: preview.macs(task, about["arch"], found) for about in models.values()}
        total, _ = protocols.iterations(task, found["train"])
        for checkpoint, about in models.items():
            for seed in chosen(seeds, task):
                key = {"task": task.name.partition("@")[0], "model": about, "data": found, "seed": seed}
                file = record.path(out, key | {"protocol": {"hash": protocols.digest(task)}})
                journey.recorded(file, out, about)
                rows.append(
                    {
                        "task": task.name,
                        "model": about["name"],
                        "seed": seed,
                        "iterations": total,
                        "macs": macs[about["arch"]],
                        "precision": task.precision,
                        "record": str(file),
                        "folder": str(file.with_suffix("")),
                        "command": ["--task", name, "--checkpoint", checkpoint, "--seed", str(seed), *words],
                    }
                )
    files = [row["record"] for row in rows]
    if twice := [file for file in files if files.count(file) > 1]:
        raise ValueError(f"expected tasks, checkpoints and seeds that differ, found {twice[0]} twice: leave one out")
    return rows


def _opened(checkpoint: str, arch: str | None, scale: str) -> dict[str, Any]:
    from bench import recognition

    try:
        return journey.opened(checkpoint, arch, scale)[0]
    except recognition.Several as error:
        raise ValueError(
            f"{error}. A sweep has no --from: `bench convert {checkpoint} FILE --to torchvision --from FAMILY`, and sweep that FILE"
        ) from error


def chosen(seeds: Sequence[int] | int | None, task: protocols.Task) -> Sequence[int]:
    """The seeds of a task's trials."""
    return range(seeds or task.trials) if seeds is None or isinstance(seeds, int) else seeds


def plan(
    tasks: Sequence[str],
    checkpoints: Sequence[str],
    seeds: Sequence[int] | int | None,
    scale: str,
    changes: Mapping[str, str],
    data: Path | None,
    out: Path,
    *,
    arch: str | None = None,
    executor: str = "local",
    gpus: int | None = None,
    jobs: int | None = None,
    partition: str | None = None,
    minutes: int = 0,
    scale_batch: bool = False,
    name: str | None = None,
) -> dict[str, Any]:
    """What stands in sweep.json. Starts nothing. Raises ValueError or FileNotFoundError for what cannot run."""
    from downstream.trial import share

    devices = visible()
    gpus = gpus if gpus is not None else int(executor == "slurm" or bool(devices))
    resolved = {task: journey.resolve(task, scale, changes) for task in tasks}
    said: list[str] = []
    for task, protocol in resolved.items():
        if scale_batch:
            resolved[task], numbers = protocols.scaled(protocol, max(1, gpus))
            said += [f"{protocol.name}: {number}" for number in numbers]
        if protocols.trains(protocol):
            share(protocols.batch(resolved[task]), max(1, gpus))
    root, out = journey.datasets(data).absolute(), out.absolute()
    words = ["--scale", scale, "--data", str(root), "--out", str(out), "--resume"]
    words += (["--arch", arch] if arch else []) + (["--scale-batch"] if scale_batch else [])
    rows = trials(resolved, checkpoints, seeds, root, out, arch, [*words, *(f"{k}={v}" for k, v in changes.items())])
    many = [*torchrun(), "--nproc-per-node", str(gpus), "-m"] if gpus > 1 else []
    single = {task.name for task in resolved.values() if isinstance(task, protocols.LinearSVM)}  # refuse torchrun
    for row in rows:
        starter = [] if row["task"] in single else many
        row["command"] = [sys.executable, "-m", *starter, "bench", "transfer", *row["command"]]
    identity = hashlib.sha256("\n".join(row["record"] for row in rows).encode()).hexdigest()[:8]
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ValueError(f"expected letters, digits, '.', '_' and '-' as the name of a sweep, found {name!r}")
    beside = slots(gpus, jobs, devices) if executor == "local" else []
    return {
        "name": name or f"{'-'.join(resolved)[:60]}-{identity}",
        "id": identity,
        "executor": executor,
        "cwd": str(Path.cwd()),
        "gpus": gpus,
        "jobs": jobs or len(beside) or 256,
        "slots": beside,
        "partition": partition,
        "minutes": minutes,
        "scaled": said,
        "trials": rows,
    }


def torchrun() -> list[str]:
    """The module that starts a trial of several processes, and its options.

    Slurm's warnings must reach them, and end them no sooner than one process alone: torch has the options since 2.10 and 2.12.
    """
    from torch.distributed.run import get_args_parser

    wanted, known = {"--signals-to-handle": SIGNALS, "--shutdown-timeout": f"{launch.PATIENCE:.0f}"}, get_args_parser()
    offered = [word for pair in wanted.items() if pair[0] in known.format_help() for word in pair]
    return ["torch.distributed.run", "--standalone", *offered]


def visible() -> list[str]:
    """The GPUs of this machine that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    if not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


def slots(gpus: int, jobs: int | None, devices: Sequence[str]) -> list[dict[str, str]]:
    """The environment of each trial that may run beside the others here: its own GPUs, or its share of the cores."""
    cores = len(os.sched_getaffinity(0))
    if not gpus:
        jobs = jobs or cores
        return [{"OMP_NUM_THREADS": str(max(1, cores // jobs)), "CUDA_VISIBLE_DEVICES": ""} for _ in range(jobs)]
    room = len(devices) // gpus
    if room < (jobs or 1):
        raise ValueError(
            f"expected {gpus * (jobs or 1)} GPUs for {jobs or 1} trials at a time, found {len(devices)}: fewer --gpus or --jobs"
        )
    share = [",".join(devices[i * gpus : (i + 1) * gpus]) for i in range(jobs or room)]
    return [{"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": part} for part in share]


# What it costs


def seconds(plan: Mapping[str, Any]) -> list[float]:
    """The estimated time of every trial, on one GPU or on this machine's cores."""
    import torch

    elsewhere = plan["gpus"] and not torch.cuda.is_available()
    precisions = {row["precision"] for row in plan["trials"]}
    rates = {p: V100 if elsewhere else preview.macs_per_second(p) for p in precisions}
    return [row["macs"] / rates[row["precision"]] for row in plan["trials"]]


def described(plan: Mapping[str, Any]) -> tuple[list[list[str]], list[str]]:
    """A plan for a person: the lines of a table, its heading the first, and what else there is to say."""
    cost = seconds(plan)
    rows, open_ = [["task", "checkpoint", "seeds", "done", "a trial", "GPU-hours" if plan["gpus"] else "hours"]], 0.0
    for (task, model), members in grouped(plan["trials"]):
        done = [i for i in members if Path(plan["trials"][i]["record"]).is_file()]
        left = sum(cost[i] for i in members if i not in done)
        open_ += left
        seeds = ", ".join(str(plan["trials"][i]["seed"]) for i in members)
        each = preview.duration(cost[members[0]] / max(1, plan["gpus"]))
        rows.append([task, model, seeds, f"{len(done)}/{len(members)}", each, preview.amount(left / 3600, 2)])
    todo = sum(not Path(row["record"]).is_file() for row in plan["trials"])
    beside = min(plan["jobs"], max(1, todo)) * max(1, plan["gpus"]) if plan["gpus"] else 1
    lines = [
        *plan["scaled"],
        f"{todo} of {len(plan['trials'])} trials to run, {_place(plan)}: about {preview.duration(open_ / beside)}"
        + (f", {preview.amount(open_ / 3600, 2)} GPU-hours" if plan["gpus"] else "")
        + (" of a V100" if plan["gpus"] and not visible() else " by this machine's speed"),
    ]
    return rows, lines


def _place(plan: Mapping[str, Any]) -> str:
    each = f", {plan['gpus']} GPU{'s' * (plan['gpus'] > 1)} each" if plan["gpus"] else ""
    if plan["executor"] == "slurm":
        return f"up to {plan['jobs']} at a time by Slurm{each}"
    threads = f", {plan['slots'][0]['OMP_NUM_THREADS']} thread{'s' * (plan['slots'][0]['OMP_NUM_THREADS'] != '1')} each"
    return f"{len(plan['slots'])} at a time on this machine{each or threads}"


def grouped(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[tuple[str, str], list[int]]]:
    """The trials of each task and model, by their places."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i, row in enumerate(rows):
        # two files of one name are two models
        groups.setdefault((row["task"], str(Path(row["folder"]).parent)), []).append(i)
    for (task, _), members in groups.items():
        yield (task, rows[members[0]]["model"]), members


def table(rows: Sequence[Sequence[str]]) -> Table:
    """For a terminal; the first row is the heading."""
    shown = Table(*(Column(head, overflow="fold") for head in rows[0]))  # tasks may differ in their last letters alone
    for row in rows[1:]:
        shown.add_row(*map(escape, row))
    return shown


def show(rows: Sequence[Sequence[str]]) -> None:
    """On standard output: a table on a terminal, else a line a row."""
    if sys.stdout.isatty():
        Console().print(table(rows))
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


# How it stands


def folder(out: Path, name: str | None) -> Path:
    """The folder of a sweep: by name, or the one that was started last. Raises FileNotFoundError where there is none."""
    root = out.absolute() / "sweeps"
    known = sorted(root.glob("*/sweep.json"), key=lambda file: file.stat().st_mtime)
    if name is None and known:
        return known[-1].parent
    if name is not None and (root / name / "sweep.json").is_file():
        return root / name
    raise FileNotFoundError(
        f"expected a sweep{f' {name}' if name else ''} in {root}, found "
        f"{', '.join(file.parent.name for file in known) or 'none'}: --out says where, --name which"
    )


def states(sweep: Path) -> list[State]:
    """How every trial stands."""
    plan = launch.read(sweep / "sweep.json")
    if plan["executor"] == "slurm":
        return _states_in_queue(sweep, plan)
    at_work = launch.held(sweep) is not None
    return [_state(row, ("waiting", "") if at_work else ("left", "not started")) for row in plan["trials"]]


def _state(row: Mapping[str, Any], otherwise: State) -> State:
    # first the lock, then the record: a trial that ends in between has its record
    running = launch.held(Path(row["folder"]))
    if Path(row["record"]).is_file():
        return "done", ""
    if running is not None:
        return "running", _progress(row)
    if outcome := launch.read(Path(row["folder"]) / "outcome.json"):
        return "failed", outcome["line"]
    return otherwise


def _states_in_queue(sweep: Path, plan: Mapping[str, Any]) -> list[State]:
    jobs: dict[str, str] = {}
    for submission in launch.read(sweep / "jobs.json").get("submissions", []):
        jobs |= submission["jobs"]
    queued = launch.queue(sweep)
    found = []
    for i, row in enumerate(plan["trials"]):
        job, folder = jobs.get(str(i)), Path(row["folder"])
        if Path(row["record"]).is_file():
            found.append(("done", ""))
        elif queued is None or (job is None and queued):  # of a submission that was cut short
            found.append(("waiting", "Slurm does not answer" if queued is None else ""))
        elif job in queued:
            state = queued[job]
            running = state in ("RUNNING", "COMPLETING")
            found.append(("running", _progress(row)) if running else ("waiting", f"job {job} {state.lower()}"))
        elif outcome := launch.read(folder / "outcome.json"):
            found.append(("failed", outcome["line"]))
        elif job:
            found.append(
                ("killed", f"job {job} ended without a record; its log: {launch.last_line(folder / 'transfer.log')}")
            )
        else:
            found.append(("left", "not submitted"))
    return found


def _progress(row: Mapping[str, Any]) -> str:
    """How far a training is, by its log."""
    try:
        done = json.loads(launch.last_line(Path(row["folder"]) / "log.jsonl"))["iteration"]
    except (ValueError, KeyError):
        return "starting"
    return f"{100 * done / max(1, row['iterations']):.0f} %"


def standing(plan: Mapping[str, Any], found: Sequence[State]) -> list[list[str]]:
    """The lines of a table of how a sweep stands, its heading the first."""
    rows = [["task", "checkpoint", "done", "running", "waiting", "failed", "mean"]]
    for (task, model), members in grouped(plan["trials"]):
        kinds = {kind: [i for i in members if found[i][0] == kind] for kind in ("done", "running", "waiting", "failed")}
        kinds["failed"] += [i for i in members if found[i][0] == "killed"]
        running = ", ".join(found[i][1] for i in kinds["running"])
        records = [launch.read(Path(plan["trials"][i]["record"]))["metrics"] for i in kinds["done"]]
        metric = next(iter(records[0]), "") if records else ""  # the headline comes first
        mean = f"{metric} {sum(record[metric] for record in records) / len(records):.2f}" if metric else ""
        counts = [
            f"{len(kinds['done'])}/{len(members)}",
            *(str(len(kinds[k]) or "") for k in ("running", "waiting", "failed")),
        ]
        counts[1] += f" ({running})" if running else ""
        rows.append([task, model, *counts, mean])
    return rows


def ended(sweep: Path, found: Sequence[State]) -> bool:
    """Whether nothing runs and nothing waits."""
    return not any(kind in ("running", "waiting") for kind, _ in found) and launch.held(sweep) is None


# What is done with it


def begin(out: Path, plan: Mapping[str, Any], say: Callable[[str], None]) -> Path:
    """Starts what has no record and does not run or wait already; returns the sweep's folder.

    Raises ValueError where a sweep of that name has another grid, or runs by the other executor.
    """
    if plan["executor"] == "slurm" and shutil.which("sbatch") is None:
        raise ValueError(
            "expected Slurm's commands on PATH, found no sbatch: call from a login node, or --executor local"
        )
    sweep = out.absolute() / "sweeps" / plan["name"]
    with launch.locked(sweep / "start", patience=600) as lock:
        if lock is None:
            raise ValueError(
                f"expected {sweep} free to be started, found {launch.held(sweep / 'start')} at it: wait for it"
            )
        known = launch.read(sweep / "sweep.json")
        if known and known["id"] != plan["id"]:
            raise ValueError(
                f"expected the grid of {sweep}, found another: take another --name, or the name it gets without"
            )
        before = states(sweep) if known else [("left", "")] * len(plan["trials"])
        busy = known and not ended(sweep, before)
        if busy and known["executor"] != plan["executor"]:
            raise ValueError(
                f"expected --executor {known['executor']}, by which {plan['name']} runs, found {plan['executor']}: "
                "wait for its end, or bench sweep --cancel"
            )
        todo = [i for i, (kind, _) in enumerate(before) if kind in ("failed", "killed", "left")]
        slurm = plan["executor"] == "slurm"
        (sweep / "cancelled").unlink(missing_ok=True)
        if not busy:
            launch.write(sweep / "sweep.json", plan)
        if all(kind == "done" for kind, _ in before):
            say(f"{plan['name']} is complete")
        elif launch.held(sweep) is not None or (slurm and not todo):
            say(f"{plan['name']} runs already: watching it")
        else:
            for i in todo:
                (Path(plan["trials"][i]["folder"]) / "outcome.json").unlink(missing_ok=True)
            (launch.submit(sweep, todo) if slurm else launch.start(sweep))
            say(f"{len(todo)} trials {'submitted' if slurm else 'under way'} -> {sweep}")
    return sweep


def watch(sweep: Path, say: Callable[[str], None]) -> bool:
    """Follows a sweep to its end; whether every trial has its record. A live table on a terminal, else a line a change.

    A job of Slurm's that was killed is submitted again, up to `launch.RESTARTS` times.
    """
    plan = launch.read(sweep / "sweep.json")
    slurm, count = plan["executor"] == "slurm", len(plan["trials"])
    console = Console(stderr=True)
    shown = sys.stderr.isatty() and not console.is_dumb_terminal
    live = Live(console=console, auto_refresh=False, transient=True) if shown else None
    before, over, starts = [("left", "")] * count, 0, [0] * count
    if live:
        live.start()
    try:
        while over <= slurm:  # twice: a record may reach this machine later than the queue's news
            found = states(sweep)
            lost = [i for i in range(count) if found[i][0] == before[i][0] == "killed" and starts[i] < launch.RESTARTS]
            if lost and not (sweep / "cancelled").exists():
                again(sweep, lost, say)
                starts = [starts[i] + (i in lost) for i in range(count)]
                found = states(sweep)
            over = over + 1 if ended(sweep, found) else 0
            if live:
                live.update(table(standing(plan, found)), refresh=True)
            else:
                _tell(plan, before, found, say)
            before = found
            time.sleep(5.0 if slurm else 1.0 - over)
    finally:
        if live:
            live.stop()
    return _collected(sweep, plan, found, say)


def again(sweep: Path, indices: Sequence[int], say: Callable[[str], None]) -> None:
    """Submits those of the trials again that another process that watches has not."""
    with launch.locked(sweep / "start", patience=600) as lock:
        now = states(sweep)
        killed = [i for i in indices if now[i][0] == "killed"]
        if lock is not None and killed:
            launch.submit(sweep, killed)
            say(f"{len(killed)} killed trials submitted again")


def _tell(plan: Mapping[str, Any], before: Sequence[State], found: Sequence[State], say: Callable[[str], None]) -> None:
    done = sum(kind == "done" for kind, _ in found)
    for row, (was, _), (kind, words) in zip(plan["trials"], before, found, strict=True):
        if kind != was:
            metrics = launch.read(Path(row["record"])).get("metrics", {}) if kind == "done" else {}
            more = ", ".join(f"{name} {value:.2f}" for name, value in metrics.items()) or words
            about = f"{row['task']} of {row['model']}, seed {row['seed']}: {kind}"
            say(f"  {done}/{len(found)}  {about}{f', {more}' if more else ''}")


def _collected(sweep: Path, plan: Mapping[str, Any], found: Sequence[State], say: Callable[[str], None]) -> bool:
    show(standing(plan, found))
    missing = [(row, state) for row, state in zip(plan["trials"], found, strict=True) if state[0] != "done"]
    for row, (kind, words) in missing:
        say(f"{row['task']} of {row['model']}, seed {row['seed']} {kind}: {words}")
        if (log := Path(row["folder"]) / "transfer.log").exists():  # of one that was begun
            say(f"  {log}")
    if missing:
        say(f"{len(missing)} of {len(found)} trials have no record; the same call goes on with them")
    say(f"Next: bench leaderboard --results {shlex.quote(str(sweep.parent.parent))}")
    return not missing


def cancel(sweep: Path, say: Callable[[str], None]) -> None:
    """Ends a sweep's trials, with time for a checkpoint, and starts no more of them. Raises ValueError on another machine than theirs."""
    plan, here = launch.read(sweep / "sweep.json"), socket.gethostname()
    folders, slurm = [Path(row["folder"]) for row in plan["trials"]], plan["executor"] == "slurm"
    # another sweep may run some of them
    own = [about for folder in folders if (about := launch.held(folder) or {}).get("sweep") == str(sweep)]
    hosts = {about.get("host", here) for about in (launch.held(sweep) or {}, *own)}
    if not slurm and (elsewhere := sorted(hosts - {here})):
        raise ValueError(f"expected the machine on which {plan['name']} runs, found {here}: call it on {elsewhere[0]}")
    running = sum(kind == "running" for kind, _ in states(sweep)) if slurm else len(own)
    (sweep / "cancelled").touch()
    if slurm:
        launch.scancel(sweep)
    else:
        launch.kill(sweep, folders)
        while launch.held(sweep) is not None:  # it may have started one more meanwhile
            time.sleep(0.1)
            launch.kill(sweep, folders)
    done = sum(Path(row["record"]).is_file() for row in plan["trials"])
    say(f"{plan['name']}: {running} running trials ended, {done} of {len(plan['trials'])} have their records")
