"""A grid of trials: planned, run side by side, interrupted in every way, gone on with.

The first tests plan and run real trials; where processes are what is tested, a shell script stands for `bench transfer`.
"""

import argparse
import contextlib
import io
import json
import os
import pty
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import torchvision
from rich.console import Console

from bench import cli, journey, launch, preview, sweep

ROOT = Path(__file__).resolve().parents[2]
DONE = """echo '{{"metrics": {{"AP": {seed}}}}}' > {record}"""


def silent(line: str) -> None:
    pass


def planned(out, *scripts, slots=2, name="grid"):
    """A sweep whose trials are shell scripts; {record}, {folder}, {seed} and {out} are filled in."""
    rows = []
    for seed, script in enumerate(scripts):
        folder = out / "task" / "group" / "model" / str(seed)
        words = {"record": f"{folder}.json", "folder": folder, "out": out}
        words = {name: shlex.quote(str(path)) for name, path in words.items()} | {"seed": seed}
        row = {"task": "task", "model": "model", "seed": seed, "iterations": 10, "macs": 1e9}
        row |= {"precision": "fp32", "record": f"{folder}.json", "folder": str(folder)}
        rows.append(row | {"command": ["sh", "-c", script.format(**words)]})
    common = {"name": name, "id": f"{len(rows)}", "executor": "local", "host": "here", "cwd": str(out), "gpus": 0}
    common |= {
        "jobs": slots,
        "partition": None,
        "minutes": 1,
        "scaled": [],
        "slots": [{"OMP_NUM_THREADS": "1"}] * slots,
    }
    return common | {"trials": rows}


def until(ready, seconds=60):
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end
        time.sleep(0.05)


def run(out, plan, said=None):
    """Starts a sweep and follows it to its end; whether it is complete."""
    say = said.append if said is not None else silent
    return sweep.watch(sweep.begin(out, plan, say), say)


def command(*words):
    """A `bench` in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "bench", *map(str, words)], env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        # a shell's background jobs, and so their children, ignore Ctrl-C
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    from downstream import synthetic

    root = tmp_path_factory.mktemp("datasets") / "drawn"
    synthetic.synthesize(root, seed=0, voc=2, coco=0, cityscapes=2, imagenet=1)
    return root


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), file)
    return file


# --- Plans


def grid(data, out, **more):
    asked = {"tasks": ["imagenet_knn"], "checkpoints": ["random"], "seeds": 2, "scale": "mini"}
    asked |= {"changes": {"neighbours": "[5]"}, "data": data, "out": out, "jobs": 2, "minutes": 60}
    return sweep.plan(**(asked | more))


def test_real_trials_run_to_the_records_that_were_planned_and_are_skipped_then(data, resnet18, tmp_path, capsys):
    plan = grid(data, tmp_path, checkpoints=["random", str(resnet18)], seeds=1)
    assert sorted(r["model"] for r in plan["trials"]) == ["random", "weights"]
    assert not list(tmp_path.iterdir())  # planning starts nothing and writes nothing
    said: list[str] = []
    assert run(tmp_path, plan, said), said
    records = journey.measured(tmp_path)
    assert [(r["model"]["name"], r["seed"], r["nonstandard"]) for r in records] == [
        ("random", 0, ["neighbours"]),
        ("weights", 0, ["neighbours"]),
    ]
    assert capsys.readouterr().out.count("1/1") == 2
    before = [Path(r["record"]).stat().st_mtime_ns for r in plan["trials"]]
    rows, lines = sweep.described(plan)
    assert [row[3] for row in rows[1:]] == ["1/1", "1/1"]
    assert "0 of 2 trials to run" in lines[-1]
    said.clear()
    assert run(tmp_path, grid(data, tmp_path, checkpoints=["random", str(resnet18)], seeds=1), said)
    assert "is complete" in said[0]
    assert [Path(r["record"]).stat().st_mtime_ns for r in plan["trials"]] == before


def test_a_plan_has_every_task_with_every_seed(data, tmp_path):
    plan = grid(data, tmp_path, tasks=["voc_c4", "cityscapes_semantic"], seeds=[3, 5, 8], changes={})
    assert [(r["task"], r["seed"]) for r in plan["trials"]] == [
        (name, seed) for name in ("voc_c4@mini", "cityscapes_semantic@mini.2") for seed in (3, 5, 8)
    ]
    defaults = grid(data, tmp_path, tasks=["voc_c4", "cityscapes_semantic"], seeds=None, changes={})
    assert len(defaults["trials"]) == sum(
        journey.resolve(task, "mini", {}).trials for task in ("voc_c4", "cityscapes_semantic")
    )
    assert plan["name"] != defaults["name"]


def test_the_same_weights_twice_are_refused(data, resnet18, tmp_path):
    (tmp_path / "weights.pth").write_bytes(resnet18.read_bytes())
    with pytest.raises(ValueError, match="twice"):
        grid(data, tmp_path, checkpoints=[str(resnet18), str(tmp_path / "weights.pth")])


def test_a_checkpoint_that_needs_its_family_told_is_sent_through_convert(data, resnet18, tmp_path):
    tensors = torch.load(resnet18, weights_only=True)
    two = {f"{name}.{key}": tensor + (name == "b") for key, tensor in tensors.items() for name in "ab"}
    torch.save(two, tmp_path / "two.pth")
    told = f"found several: .* `bench convert {tmp_path / 'two.pth'} FILE --to torchvision --from FAMILY`, and sweep that FILE"
    with pytest.raises(ValueError, match=told):
        grid(data, tmp_path, checkpoints=[str(tmp_path / "two.pth")])


def test_a_v100_takes_as_long_as_detectron2_says_it_does():
    """MODEL_ZOO.md: Mask R-CNN 1x, R50-FPN 0.261 and R50-C4 0.584 seconds an iteration of 2 images on each GPU."""
    for name, published in (("coco_fpn_1x", 0.261), ("coco_c4_1x", 0.584)):
        task = journey.resolve(name, "paper", {})
        macs = journey.engine(task).macs(task, "resnet50")["train"]
        assert 2 * macs / sweep.V100 == pytest.approx(published, rel=0.1)


def test_gpu_hours_are_those_of_a_v100_where_there_is_no_gpu(data, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plan = grid(data, tmp_path, tasks=["voc_c4"], seeds=1, changes={}, executor="slurm", gpus=2, jobs=None)
    assert sweep.seconds(plan) == [plan["trials"][0]["macs"] / sweep.V100]
    rows, lines = sweep.described(plan)
    assert rows[0][-1] == "GPU-hours"
    assert "2 GPUs each" in lines[-1]
    assert "V100" in lines[-1]
    assert "torch.distributed.run" in plan["trials"][0]["command"]


def test_gpus_are_given_out_once():
    devices = ["0", "1", "2", "3", "GPU-5"]
    assert [slot["CUDA_VISIBLE_DEVICES"] for slot in sweep.slots(2, None, devices)] == ["0,1", "2,3"]
    with pytest.raises(ValueError, match="expected 6 GPUs for 3 trials at a time, found 5"):
        sweep.slots(2, 3, devices)


def test_cores_are_shared():
    cores = len(os.sched_getaffinity(0))
    assert [slot["OMP_NUM_THREADS"] for slot in sweep.slots(0, None, [])] == ["1"] * cores
    assert [slot["OMP_NUM_THREADS"] for slot in sweep.slots(0, 1, [])] == [str(cores)]


def test_an_uneven_split_and_a_scaled_batch_are_told_before_anything_starts(data, tmp_path):
    with pytest.raises(ValueError, match=r"batch of 8 evenly \(1, 2, 4, 8\), found 3"):
        grid(data, tmp_path, tasks=["voc_c4"], changes={}, executor="slurm", gpus=3)
    plan = grid(data, tmp_path, tasks=["voc_c4"], changes={}, executor="slurm", gpus=3, scale_batch=True)
    assert "voc_c4@mini: SOLVER.IMS_PER_BATCH 8 -> 3" in plan["scaled"]
    assert "--scale-batch" in plan["trials"][0]["command"]
    plain = grid(data, tmp_path, tasks=["voc_c4"], changes={}, executor="slurm", gpus=2)
    assert plan["trials"][0]["record"] != plain["trials"][0]["record"]
    assert grid(data, tmp_path, executor="slurm", gpus=3)["gpus"] == 3  # neighbours share no batch


def test_a_task_of_one_process_has_one_beside_those_of_several(data, tmp_path, monkeypatch):
    whole = {"train": 2, "test": 2, "digest": "0" * 64}
    monkeypatch.setattr(journey.engine(journey.resolve("voc07_svm", "mini", {})), "found", lambda *_: whole)
    tasks = ["voc07_svm", "voc_c4"]
    plan = grid(data, tmp_path, tasks=tasks, seeds=1, changes={}, executor="slurm", gpus=2)
    assert ["torch.distributed.run" in row["command"] for row in plan["trials"]] == [False, True]


def test_a_dry_run_prints_the_grid_and_starts_nothing(data, tmp_path, monkeypatch, capsys):
    words = ["sweep", "--tasks", "cityscapes_semantic", "--trials", "2", "--scale", "mini", "--data", data]
    monkeypatch.setattr(sys, "argv", ["bench", *map(str, words), "--out", str(tmp_path / "out"), "--dry-run"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    printed = capsys.readouterr().out
    assert "cityscapes_semantic@mini.2  random      0, 1   0/2" in printed
    assert "2 of 2 trials to run" in printed
    assert not (tmp_path / "out").exists()


WRONG = {
    "no task": ([], "--tasks"),
    "an unknown task": (["--tasks", "voc_c5"], "Did you mean 'voc_c4'"),
    "trials and seeds": (["--tasks", "voc_c4", "--trials", "2", "--seeds", "1"], "--seeds"),
    "seeds that are none": (["--tasks", "voc_c4", "--seeds", "a,b"], "a,b"),
    "a name that is a path": (["--tasks", "cityscapes_semantic", "--name", "../x", "--scale", "mini"], "../x"),
    "no sweep to watch": (["--watch"], "found none"),
    "no sweep to cancel": (["--cancel", "--name", "x"], "expected a sweep x"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_call_is_one_sentence(case, data, tmp_path, monkeypatch, capsys):
    words, expected = WRONG[case]
    monkeypatch.setattr(sys, "argv", ["bench", "sweep", *words, "--data", str(data), "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert expected in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# --- Processes


def test_a_trial_that_fails_is_named_with_its_last_line_and_the_others_go_on(tmp_path, capsys):
    plan = planned(tmp_path, DONE, "echo begun; echo 'bench: expected luck' >&2; exit 1", DONE, slots=1)
    said: list[str] = []
    assert not run(tmp_path, plan, said)
    assert [kind for kind, _ in sweep.states(tmp_path / "sweeps/grid")] == ["done", "failed", "done"]
    assert "task of model, seed 1 failed: bench: expected luck" in said
    assert [line for line in said if line.endswith("transfer.log")] == [f"  {tmp_path}/task/group/model/1/transfer.log"]
    assert "2/3" in capsys.readouterr().out
    assert (tmp_path / "task/group/model/1/transfer.log").read_text().splitlines().count(
        "begun"
    ) == 1  # an error is not tried again


def test_a_record_that_is_not_where_it_was_planned_is_a_failure(tmp_path):
    said: list[str] = []
    assert not run(tmp_path, planned(tmp_path, "exit 0"), said)
    assert any("without its record" in line for line in said)


def test_at_most_as_many_run_as_there_are_slots_each_in_its_own(tmp_path):
    script = (
        "echo $OMP_NUM_THREADS $BENCH_SLOT + >> {out}/steps; sleep 0.4; echo 1 $BENCH_SLOT - >> {out}/steps; " + DONE
    )
    assert run(tmp_path, planned(tmp_path, *[script] * 5, slots=2))
    busy: set[str] = set()
    for line in (tmp_path / "steps").read_text().splitlines():
        threads, slot, sign = line.split()
        assert threads == "1"
        assert (slot in busy) == (sign == "-")
        busy ^= {slot}
        assert busy <= {"0", "1"}


def test_a_killed_trial_is_started_again_but_not_for_ever(tmp_path):
    once = "test -e {folder}/mark || {{ touch {folder}/mark; kill -9 $$; }}; " + DONE
    said: list[str] = []
    assert not run(tmp_path, planned(tmp_path, once, "echo again >> {folder}/mark; kill -9 $$"), said)
    assert [kind for kind, _ in sweep.states(tmp_path / "sweeps/grid")] == ["done", "failed"]
    starts = (tmp_path / "task/group/model/1/mark").read_text().count("again")
    assert starts == 1 + launch.RESTARTS
    assert any("killed by signal 9" in line for line in said)


def test_a_trial_of_several_processes_is_started_again_when_one_of_them_is_killed(tmp_path):
    again = "test -e {folder}/mark && {{ " + DONE + "; exit 0; }}; "
    torchruns = "$$$$"  # which makes $ of $$
    plan = planned(tmp_path, again + f"test $RANK = 0 && sleep 60; touch {{folder}}/mark; kill -9 {torchruns}")
    trial = plan["trials"][0]
    group = [*sweep.torchrun(), "--nproc-per-node", "2", "--no-python"]
    trial["command"] = [sys.executable, "-m", *group, *trial["command"]]
    assert run(tmp_path, plan)
    assert (Path(trial["folder"]) / "transfer.log").read_text().count("$ ") == 2


def test_how_torchrun_ended_is_what_it_says_of_the_first_process_to_end(tmp_path):
    log = tmp_path / "transfer.log"
    row = "[{}]:\n  rank      : {} (local_rank: 0)\n  exitcode  : {} (pid: 7)  (SIGTERM)\n"
    log.write_text(
        "$ torchrun\nFailures:\n"
        + row.format(1, 0, -15)
        + "Root Cause (first observed failure):\n"
        + row.format(0, 1, -9)
    )
    assert [launch.cause(code, log) for code in (1, 0, 2, -6)] == [-9, 0, 2, -6]
    log.write_text(log.read_text() + "$ torchrun\ntorch.api.SignalException: Process 3695 got signal: 15\n")
    assert launch.cause(1, log) == -15
    log.write_text(log.read_text() + "$ torchrun\nbench: expected luck\n")
    assert launch.cause(1, log) == 1


def test_torchrun_is_called_with_no_option_that_this_torch_lacks(monkeypatch):
    assert sweep.torchrun()[2:] == ["--signals-to-handle", sweep.SIGNALS, "--shutdown-timeout", "60"]
    monkeypatch.setattr("torch.distributed.run.get_args_parser", argparse.ArgumentParser)  # as of torch 2.6
    assert sweep.torchrun() == ["torch.distributed.run", "--standalone"]


def test_slurms_warning_reaches_every_process_of_a_trial(tmp_path):
    told = "trap 'touch {folder}/told$RANK; exit 143' USR1; touch {folder}/up$RANK; while :; do sleep 0.1; done"
    folder = tmp_path / "task/group/model/0"
    folder.mkdir(parents=True)
    group = [*sweep.torchrun(), "--nproc-per-node", "2", "--no-python", "sh", "-c"]
    with (tmp_path / "log").open("wb") as log:
        words = [sys.executable, "-m", *group, told.replace("{folder}", str(folder))]
        torchrun = subprocess.Popen(words, stdout=log, stderr=log)
    until(lambda: all((folder / f"up{rank}").exists() for rank in (0, 1)))
    torchrun.send_signal(signal.SIGUSR1)
    assert launch.cause(torchrun.wait(timeout=60), tmp_path / "log") == -signal.SIGUSR1
    assert {file.name for file in folder.iterdir()} == {"up0", "up1", "told0", "told1"}


SLOW = "echo + >> {folder}/starts; until test -e {out}/go; do sleep 0.1; done; " + DONE


def starts(out, count):
    return [len((out / f"task/group/model/{i}/starts").read_text().splitlines()) for i in range(count)]


def running(out):
    return [kind for kind, _ in sweep.states(out / "sweeps/grid")].count("running")


def test_a_sweep_outlives_the_process_that_watches_it(tmp_path):
    sweep.begin(tmp_path, planned(tmp_path, SLOW, SLOW, SLOW), silent)
    watcher = command("sweep", "--watch", "--out", tmp_path)
    until(lambda: running(tmp_path) == 2)
    watcher.kill()
    watcher.communicate()
    (tmp_path / "go").touch()
    assert sweep.watch(sweep.folder(tmp_path, None), silent)
    assert starts(tmp_path, 3) == [1, 1, 1]


def test_a_sweep_whose_every_process_but_the_trials_was_killed_goes_on_without_repeating_them(tmp_path):
    plan = planned(tmp_path, SLOW, SLOW, SLOW)
    folder = sweep.begin(tmp_path, plan, silent)
    both = [Path(trial["folder"]) for trial in plan["trials"][:2]]
    until(lambda: all((each / "starts").is_file() for each in both))  # "running" is what its watcher is before it, too
    assert running(tmp_path) == 2
    os.kill(launch.held(folder)["pid"], signal.SIGKILL)
    for each in both:  # what watches over a trial; the trial itself is left
        os.kill(launch.held(each)["pid"], signal.SIGKILL)
    until(lambda: launch.held(folder) is None)
    assert running(tmp_path) == 2
    sweep.begin(tmp_path, plan, silent)
    (tmp_path / "go").touch()
    assert sweep.watch(folder, silent)
    assert starts(tmp_path, 3) == [1, 1, 1]


def test_interrupting_leaves_the_trials_running_and_says_how_to_come_back(tmp_path):
    sweep.begin(tmp_path, planned(tmp_path, SLOW), silent)
    watcher = command("sweep", "--watch", "--out", tmp_path)
    assert "seed 0" in watcher.stderr.readline()  # it watches
    watcher.send_signal(signal.SIGINT)
    _, said = watcher.communicate()
    assert watcher.returncode == 130
    assert f"bench sweep --watch --name grid --out {tmp_path}" in said
    assert f"bench sweep --cancel --name grid --out {tmp_path}" in said
    until(lambda: running(tmp_path) == 1)  # the first line may come before the trial
    (tmp_path / "go").touch()
    assert sweep.watch(sweep.folder(tmp_path, "grid"), silent)


def test_cancelling_gives_trials_time_for_a_checkpoint_starts_no_more_and_the_same_sweep_goes_on_later(tmp_path):
    script = "trap 'echo saved > {folder}/checkpoint; exit 143' TERM; " + SLOW
    plan = planned(tmp_path, script, script, script)
    folder = sweep.begin(tmp_path, plan, silent)
    until(lambda: all((tmp_path / f"task/group/model/{i}/starts").exists() for i in range(2)))
    done = command("sweep", "--cancel", "--out", tmp_path)
    assert "2 running trials ended, 0 of 3" in done.communicate()[1]
    assert done.returncode == 0
    assert launch.held(folder) is None
    assert [kind for kind, _ in sweep.states(folder)] == ["failed", "failed", "left"]
    assert all((tmp_path / f"task/group/model/{i}/checkpoint").exists() for i in range(2))
    (tmp_path / "go").touch()
    assert run(tmp_path, plan)
    assert starts(tmp_path, 3) == [2, 2, 1]


def test_cancelling_on_another_machine_names_the_one_to_call_it_on(tmp_path, monkeypatch):
    folder = sweep.begin(tmp_path, planned(tmp_path, SLOW), silent)
    until(lambda: running(tmp_path) == 1)
    here = socket.gethostname()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(sweep.socket, "gethostname", lambda: "elsewhere")
        with pytest.raises(ValueError, match=f"found elsewhere: call it on {here}$"):
            sweep.cancel(folder, silent)
    assert running(tmp_path) == 1 and not (folder / "cancelled").exists()
    sweep.cancel(folder, silent)
    assert running(tmp_path) == 0


def test_cancelling_tells_its_own_trials_from_those_that_another_sweep_runs(tmp_path):
    first = sweep.begin(tmp_path, planned(tmp_path, SLOW, name="first"), silent)
    second = sweep.begin(tmp_path, planned(tmp_path, SLOW, SLOW, name="second"), silent)
    until(lambda: [kind for kind, _ in sweep.states(second)] == ["running", "running"])
    said: list[str] = []
    sweep.cancel(second, said.append)
    assert said == ["second: 1 running trials ended, 0 of 2 have their records"]
    assert [kind for kind, _ in sweep.states(first)] == ["running"]
    (tmp_path / "go").touch()
    assert sweep.watch(first, silent)


def test_trials_whose_pool_was_killed_are_cancelled_on_their_own_machine(tmp_path, monkeypatch):
    folder = sweep.begin(tmp_path, planned(tmp_path, SLOW), silent)
    until(lambda: running(tmp_path) == 1)
    os.kill(launch.held(folder)["pid"], signal.SIGKILL)
    until(lambda: launch.held(folder) is None)
    here = socket.gethostname()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(sweep.socket, "gethostname", lambda: "elsewhere")
        with pytest.raises(ValueError, match=f"found elsewhere: call it on {here}$"):
            sweep.cancel(folder, silent)
    sweep.cancel(folder, silent)
    assert running(tmp_path) == 0


def test_a_trial_that_is_ended_while_it_begins_does_not_run_on(tmp_path):
    launch.write(tmp_path / "sweep.json", planned(tmp_path, "sleep 9; echo slept"))
    trial = launch.Trial(tmp_path, 0)
    trial.stop()
    with pytest.raises(RuntimeError, match=r"^killed by signal 15 after"):
        trial()


def test_cancelling_kills_what_does_not_end(tmp_path):
    plan = planned(tmp_path, "trap '' TERM; " + SLOW)
    folder = sweep.begin(tmp_path, plan, silent)
    until(lambda: (tmp_path / "task/group/model/0/starts").exists())
    (folder / "cancelled").touch()
    launch.kill(folder, [Path(plan["trials"][0]["folder"])], patience=0.5)
    assert launch.held(Path(plan["trials"][0]["folder"])) is None


def test_a_sweep_started_twice_at_once_runs_every_trial_once(tmp_path):
    plan = planned(tmp_path, *["echo + >> {folder}/starts; " + DONE] * 4)
    both = [threading.Thread(target=sweep.begin, args=(tmp_path, plan, silent)) for _ in range(2)]
    for each in both:
        each.start()
    for each in both:
        each.join()
    assert sweep.watch(tmp_path / "sweeps/grid", silent)
    assert starts(tmp_path, 4) == [1, 1, 1, 1]


def test_two_sweeps_that_share_trials_run_them_once(tmp_path):
    first = sweep.begin(tmp_path, planned(tmp_path, SLOW, name="first"), silent)
    second = sweep.begin(tmp_path, planned(tmp_path, SLOW, SLOW, name="second"), silent)
    until(lambda: [kind for kind, _ in sweep.states(second)] == ["running", "running"])
    (tmp_path / "go").touch()
    assert sweep.watch(first, silent)
    assert sweep.watch(second, silent)
    assert starts(tmp_path, 2) == [1, 1]


def test_a_name_belongs_to_one_grid(tmp_path):
    assert run(tmp_path, planned(tmp_path, DONE))
    with pytest.raises(ValueError, match="found another: take another --name"):
        sweep.begin(tmp_path, planned(tmp_path, DONE, DONE), silent)


def test_a_running_sweep_keeps_its_executor(tmp_path, monkeypatch):
    monkeypatch.setattr(sweep.shutil, "which", lambda name: f"/usr/bin/{name}")  # on this machine or not
    plan = planned(tmp_path, SLOW)
    folder = sweep.begin(tmp_path, plan, silent)
    with pytest.raises(ValueError, match="expected --executor local"):
        sweep.begin(tmp_path, plan | {"executor": "slurm"}, silent)
    (tmp_path / "go").touch()
    assert sweep.watch(folder, silent)


def test_a_terminal_gets_a_table_of_what_happens_and_one_of_what_came_of_it(tmp_path):
    sweep.begin(tmp_path, planned(tmp_path, DONE, "exit 1"), silent)
    terminal, other = pty.openpty()
    environment = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100", "TERM": "xterm"}
    words = [sys.executable, "-m", "bench", "sweep", "--watch", "--out", str(tmp_path)]
    watcher = subprocess.Popen(words, env=environment, stdout=other, stderr=other, stdin=other)
    os.close(other)
    shown = b""
    with contextlib.suppress(OSError):  # Linux's way to say that nobody writes there any more
        while part := os.read(terminal, 4096):
            shown += part
    os.close(terminal)
    assert watcher.wait() == 1
    assert "│ task │ model      │ 1/2  │" in shown.decode()
    assert "seed 1 failed: it said nothing" in shown.decode()


def test_a_narrow_terminal_tells_tasks_apart():
    console, names = Console(width=60, file=io.StringIO()), ("imagenet_linear_swav@mini", "imagenet_linear_vicreg@mini")
    heads = ("task", "checkpoint", "done", "running", "waiting", "failed", "mean")
    console.print(
        sweep.table([heads, *((name, "moco_v2", "0/3", "1 (iteration 3/25)", "2", "", "") for name in names)])
    )
    lines = [line.split("│")[1:-1] for line in console.file.getvalue().splitlines() if line.startswith("│")]
    columns = ["".join(cell.strip() for cell in column) for column in zip(*lines, strict=True)]
    assert columns[0] == "".join(names) and columns[3].replace(" ", "") == 2 * "1(iteration3/25)"


def test_progress_is_what_the_log_says(tmp_path):
    script = """echo '{{"iteration": 7}}' > {folder}/log.jsonl; """ + SLOW
    folder = sweep.begin(tmp_path, planned(tmp_path, script), silent)
    until(lambda: sweep.states(folder) == [("running", "70 %")])
    (tmp_path / "go").touch()
    assert sweep.watch(folder, silent)


def test_the_last_line_is_that_of_the_last_start_and_benchs_own_below_torchruns(tmp_path):
    log = tmp_path / "transfer.log"
    assert launch.last_line(log) == "it wrote no log"
    log.write_text("\n")
    assert launch.last_line(log) == "it said nothing"
    log.write_text("$ bench transfer\nbench: first\n$ bench transfer\n10 %\r20 %\r\n")
    assert launch.last_line(log) == "20 %"
    log.write_text(log.read_text() + "bench: expected luck\nE1124 torch/elastic failed (exitcode: 2)\n=====\n")
    assert launch.last_line(log) == "bench: expected luck"


def test_a_folder_with_odd_characters_is_no_matter(tmp_path):
    out = tmp_path / "größer 'als' $HOME"
    plan = planned(tmp_path, DONE)
    assert run(out, plan)
    assert json.loads((out / "sweeps/grid/sweep.json").read_text()) == plan
    assert str(out / "sweeps/grid/cancelled").replace("'", "'\"'\"'") in "\n".join(
        launch._script(out / "sweeps/grid")["teardown"]
    )


def test_the_help_has_an_example_and_costs_no_framework():
    words = [sys.executable, "-X", "importtime", "-m", "bench", "sweep", "--help"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert "Example" in done.stdout
    assert " torch\n" not in done.stderr


def test_many_hours_and_days_are_whole_numbers():
    assert [preview.amount(hours, 2) for hours in (0.351, 3.51, 780, 1234.4)] == ["0.35", "3.5", "780", "1,234"]
    assert [preview.duration(86400 * days) for days in (2.5, 40, 1234)] == ["2.5 days", "40 days", "1,234 days"]


def test_an_estimate_is_the_work_by_the_speed(data):
    task = journey.resolve("cityscapes_semantic", "mini", {"iterations": "10"})
    each = journey.engine(task).macs(task, "resnet18")
    found = {"train": 1000, "test": 3}
    assert preview.macs(task, "resnet18", found) == 10 * 8 * each["train"] + 3 * each["test"]
