"""`bench sweep` on real Slurm: four trials, two killed in the middle and one preempted, equal to a run that nothing disturbed.

About two minutes of processor time; skipped where Slurm is not installed or does not start.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch

from bench import journey, launch, sweep

ROOT = Path(__file__).resolve().parents[2]
CHANGES = {"iterations": "40", "crop": "64", "batch": "2", "passes": "60"}
SEEDS = (0, 1, 2, 3)

spec = importlib.util.spec_from_file_location("cluster", Path(__file__).with_name("cluster.py"))
assert spec is not None
assert spec.loader is not None
cluster = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cluster)


@pytest.fixture(scope="module")
def slurm():
    """The environment of a running cluster. In a short path: that of munge's socket is bounded."""
    if missing := cluster.missing():
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install slurm-wlm munge)")
    folder = Path(tempfile.mkdtemp(prefix="slurm"))
    running = cluster.running(folder)
    try:
        environment = running.__enter__()
    except (RuntimeError, OSError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"Slurm does not start here: {error}")
    yield environment
    running.__exit__(None, None, None)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def data(tmp_path):
    from downstream import synthetic

    synthetic.synthesize(tmp_path / "data", seed=0, voc=0, coco=0, cityscapes=2, imagenet=0)
    return tmp_path / "data"


def table(results, **environment):
    words = [sys.executable, "-m", "bench", "table", "moco", "--results", str(results)]
    return subprocess.run(
        words, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=True
    ).stdout


def metrics(results):
    return {int(file.stem): json.loads(file.read_text())["metrics"] for file in results.glob("*/*/*/*.json")}


def until(ready, seconds=280):
    end = time.monotonic() + seconds
    while not (value := ready()):
        assert time.monotonic() < end
        time.sleep(0.2)
    return value


def silent(line):
    pass


def scripts(out, *words):
    """A sweep whose trials are shell scripts; {record} is the record's file."""
    rows = []
    for seed, script in enumerate(words):
        folder = out / "task" / "group" / "model" / str(seed)
        row = {"task": "task", "model": "model", "seed": seed, "iterations": 1, "macs": 1, "precision": "fp32"}
        row |= {
            "record": f"{folder}.json",
            "folder": str(folder),
            "command": ["sh", "-c", script.format(record=f"{folder}.json")],
        }
        rows.append(row)
    common = {"name": "scripts", "id": "0", "executor": "slurm", "host": "here", "cwd": str(ROOT), "gpus": 0}
    return common | {"jobs": 8, "partition": "here", "minutes": 5, "scaled": [], "slots": [], "trials": rows}


@pytest.fixture
def here(slurm, monkeypatch):
    """This process calls Slurm itself."""
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)


def test_an_error_is_named_and_not_queued_again_and_cancelling_ends_what_runs_and_what_waits(here, tmp_path):
    slow = "sleep 600; echo '{{}}' > {record}"
    folder = sweep.begin(tmp_path, scripts(tmp_path, "echo 'bench: expected luck'; exit 1", slow, slow, slow), silent)
    until(lambda: [kind for kind, _ in sweep.states(folder)] == ["failed", "running", "running", "waiting"])
    assert sweep.states(folder)[0] == ("failed", "bench: expected luck")
    assert len(launch.queue(folder)) == 3
    with pytest.raises(ValueError, match="expected --executor slurm"):
        sweep.begin(tmp_path, scripts(tmp_path, slow, slow, slow, slow) | {"executor": "local"}, silent)
    sweep.cancel(folder, silent)
    until(lambda: launch.queue(folder) == {})
    said: list[str] = []
    assert not sweep.watch(folder, said.append)  # and it submits nothing again
    assert launch.queue(folder) == {}
    assert len(json.loads((folder / "jobs.json").read_text())["submissions"]) == 1


def test_the_last_job_of_an_array_is_queued_again_and_it_alone(here, tmp_path):
    """Its number is the array's too: by that, the other job would be asked for, and queued again, with it."""
    wait = f"until test -e {tmp_path}/go; do sleep 0.1; done; "
    kill = "test -e {{record}}.{0} || {{{{ touch {{record}}.{0}; kill -9 $PPID; exit; }}}}; "
    last = kill.format("first") + wait + "sleep 9; " + kill.format("second") + "echo '{{}}' > {record}"
    folder = sweep.begin(tmp_path, scripts(tmp_path, wait + "exit 1", last), silent)
    logs = [tmp_path / f"task/group/model/{i}/transfer.log" for i in (0, 1)]
    until(lambda: logs[1].exists() and logs[1].read_text().count("$ sh") == 2, 60)  # while the other runs
    (tmp_path / "go").touch()
    until(lambda: [kind for kind, _ in sweep.states(folder)] == ["failed", "done"], 60)  # and after it has ended
    assert [log.read_text().count("$ sh") for log in logs] == [1, 3]


def test_what_slurm_refuses_is_one_sentence_and_leaves_nothing_behind(here, tmp_path):
    with pytest.raises(RuntimeError, match=r"expected Slurm to take 1 jobs, found: .*partition"):
        sweep.begin(tmp_path, scripts(tmp_path, "exit 0") | {"partition": "nowhere"}, silent)
    assert json.loads((tmp_path / "sweeps/scripts/jobs.json").read_text()) == {"submissions": []}


@pytest.mark.timeout(900)
def test_a_grid_survives_killed_and_preempted_jobs_and_equals_an_undisturbed_run(slurm, data, tmp_path):
    out = tmp_path / "disturbed"
    words = [sys.executable, "-m", "bench", "sweep", "--tasks", "cityscapes_semantic", "--checkpoints", "random"]
    words += ["--trials", "4", "--scale", "mini", "--executor", "slurm", "--partition", "here", "--gpus", "0"]
    words += ["--data", str(data), "--out", str(out), *(f"{key}={value}" for key, value in CHANGES.items())]
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = slurm | {"BENCH_SAVE_SECONDS": "0.5", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    with (tmp_path / "sweep.log").open("wb") as log:
        sweep = subprocess.Popen(words, cwd=tmp_path, env=environment, stdout=log, stderr=log)

    def in_the_middle():
        """Trials with a checkpoint after their tenth iteration, by their folders."""
        assert sweep.poll() is None, (tmp_path / "sweep.log").read_text()
        logs = [file for file in out.glob("*/*/*/*/log.jsonl") if len(file.read_text().splitlines()) >= 2]
        return [file.parent for file in logs if (file.parent / "last.pth").exists()]

    disturbed = {}
    # a whole job, which Slurm then takes for cancelled; a job's step alone; what submitit takes for preemption and time-out
    for signal, step in (("KILL", ""), ("KILL", ".0"), ("USR2", "")):
        folder = until(lambda: [f for f in in_the_middle() if f not in disturbed])[0]
        [file] = out.glob("sweeps/*/jobs.json")
        job = json.loads(file.read_text())["submissions"][0]["jobs"][folder.name]
        subprocess.run(["scancel", f"--signal={signal}", job + step], env=slurm, check=True)
        disturbed[folder] = (folder / "log.jsonl").read_text().splitlines()[0]
        assert not folder.with_suffix(".json").exists()
    assert sweep.wait(800) == 0, (tmp_path / "sweep.log").read_text()

    for folder, first in disturbed.items():
        assert (folder / "transfer.log").read_text().count("$ ") >= 2
        # that line has the images per second of the first start: it went on after it
        assert (folder / "log.jsonl").read_text().splitlines()[0] == first
    found = metrics(out)
    assert set(found) == set(SEEDS)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        task = journey.resolve("cityscapes_semantic", "mini", CHANGES)
        plan = journey.plan(task, "random", data)
        journey.transfer(plan, SEEDS, tmp_path / "undisturbed", False, lambda line: None)
    finally:
        torch.set_num_threads(threads)
    assert found == metrics(tmp_path / "undisturbed")
    printed = table(out)
    assert printed == table(tmp_path / "undisturbed")
    assert "cityscapes_semantic@mini.2" in printed
    assert "4 |" in printed
