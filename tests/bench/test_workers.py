"""Workers: one thread, a log in place of the terminal, gone with what began them."""

import os
import subprocess
import sys
import time

import pytest
import torch

from bench import cli, workers

PARENT = """
import os, signal, sys, time
from pathlib import Path
from bench import workers

folder = Path(sys.argv[1])

def save(number, frame):
    (folder / "saved").touch()
    raise SystemExit(143)

def work():
    signal.signal(signal.SIGTERM, save)
    (folder / "working").touch()
    time.sleep(600)

if __name__ == "__main__":
    with workers.pool(folder / "log.txt", tasks=1) as pool:
        pool.submit(work).result()
"""


def until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_worker_has_one_thread_and_says_what_it_has_to_say_in_the_log(tmp_path, capfd):
    with workers.pool(tmp_path / "log.txt") as pool:
        assert pool.submit(os.getpid).result() != os.getpid()
        assert pool.submit(torch.get_num_threads).result() == 1
        pool.submit(cli.say, "loss 4.2").result()
    assert (tmp_path / "log.txt").read_text() == "loss 4.2\n" and not capfd.readouterr().err


def test_what_a_worker_has_to_say_while_it_starts_is_in_the_log_too(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError):
        workers._alone(tmp_path / "log.txt")
    with sys.stderr as log:
        assert log.name == str(tmp_path / "log.txt")


def test_a_worker_saves_and_ends_when_the_process_that_began_it_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    # the worker holds the pipe open as long as it lives
    with subprocess.Popen([sys.executable, script, tmp_path], stdout=subprocess.PIPE) as parent:
        until((tmp_path / "working").exists)
        parent.kill()
        assert parent.communicate(timeout=workers.AGAIN + 120) == (b"", None)
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_has_not_begun_when_an_error_or_ctrl_c_leaves_is_not_begun(tmp_path, error, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})  # on many cores most would have begun
    with pytest.raises(error), workers.pool(tmp_path / "log.txt") as pool:
        jobs = [pool.submit(time.sleep, 0.2) for _ in range(200)]
        jobs[0].result()
        raise error
    assert sum(job.cancelled() for job in jobs) > 100 and jobs[0].result() is None
