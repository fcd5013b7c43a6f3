"""kill -9 of a pretraining at random moments, also while a checkpoint is written; then --resume, to the same end, bit by bit.

    python tests/faults/test_pretrain_kills.py [MOMENTS] [SEED]     the long form

One process that has torch loaded forks a child for every start of the run, so that a start costs no import.
"""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

MOMENTS = int(os.environ.get("BENCH_KILLS", "12"))
TIMING = ("images_per_second",)


def start(photos, out, method="supervised", epochs=6):
    """A child process that runs a pretraining to its end; its id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a fork of a process with threads
        child = os.fork()
    if child:
        return child
    try:
        os.setsid()
        warnings.simplefilter("ignore")
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        import torch

        from pretrain import loop
        from pretrain.methods import moco, pixpro, supervised

        torch.set_num_threads(1)
        loop.SAVE_SECONDS = 0.3
        options = {"size": "32", "dim": "16"} | ({"hidden": "16"} if method == "pixpro" else {})
        methods = {"moco": moco, "pixpro": pixpro, "supervised": supervised}
        overrides = {key: value for key, value in options.items() if key in methods[method].recipe()}
        run = {"arch": "resnet18", "scale": "mini", "epochs": epochs, "batch_size": 4, "overrides": overrides}
        loop.run(methods[method], photos, out, **run, resume=True, labelled=photos)
        os._exit(0)
    except BaseException as error:
        (out.parent / "error.txt").write_text(repr(error))
        os._exit(1)


def finish(photos, out, **options):
    began = time.monotonic()
    _, status = os.waitpid(start(photos, out, **options), 0)
    assert status == 0, (out.parent / "error.txt").read_text()
    return time.monotonic() - began


def result(out):
    """sha256 of the weights, the log without what measures time, and the model and optimiser of last.pth."""
    import torch

    text = (out / "log.jsonl").read_text()
    assert text.endswith("\n")
    lines = [json.loads(line) for line in text.splitlines()]
    kept = [{key: value for key, value in line.items() if key not in TIMING} for line in lines]
    state = torch.load(out / "last.pth", weights_only=True)
    tensors = hashlib.sha256()
    for _, tensor in sorted(state["model"].items()):
        tensors.update(tensor.numpy().tobytes())
    momentum = state["optimiser"]["state"]
    for key in sorted(momentum):
        tensors.update(momentum[key]["momentum_buffer"].numpy().tobytes())
    return hashlib.sha256((out / "backbone.pth").read_bytes()).hexdigest(), tensors.hexdigest(), kept


def changed(path):
    """When a file was written last; None where there is none."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return None


def killed(photos, out, moments, seed=0):
    """Starts a run again and again and kills it, `moments` times in all; how many were before the first step, how many found a
    checkpoint half written, and how often the run had to begin anew because it had got to its end."""
    rng, done = random.Random(seed), {"moments": 0, "early": 0, "while a checkpoint was written": 0, "runs": 1}
    part, last = out / ".last.pth.part", out / "last.pth"
    while done["moments"] < moments:
        stale, before = changed(part), changed(last)
        child, until, aimed = start(photos, out), time.monotonic() + 60, rng.random() < 0.4
        moment = time.monotonic() + rng.uniform(0, 3)
        while time.monotonic() < until and os.waitpid(child, os.WNOHANG) == (0, 0):
            writing = changed(part) not in (None, stale)
            if (writing and changed(last) != before) if aimed else time.monotonic() > moment:
                break
            time.sleep(0.0005)
        else:
            done["runs"] += 1
            yield done
            continue
        try:
            os.killpg(child, signal.SIGKILL)
        except ProcessLookupError:  # it leads no group yet
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        done["moments"] += 1
        done["while a checkpoint was written"] += changed(part) not in (None, stale)
        done["early"] += not last.exists()
    yield done


def trial(photos, folder, moments, seed=0):
    """Raises AssertionError where a run that was killed so often does not end where an undisturbed one does."""
    finish(photos, folder / "whole")
    expected, counts = result(folder / "whole"), None
    for n, counts in enumerate(killed(photos, folder / "parts0", moments, seed)):
        del n
        finish(photos, folder / "parts0")
        assert result(folder / "parts0") == expected
        if counts["moments"] < moments:
            for path in sorted((folder / "parts0").rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    return counts


def test_a_run_killed_at_random_moments_and_resumed_ends_in_the_same_bits():
    own = {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    words = [sys.executable, __file__, str(MOMENTS)]
    done = subprocess.run(words, env=os.environ | own, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["moments"] == MOMENTS


if __name__ == "__main__":
    import torch  # for every child that is forked

    import pretrain.loop  # noqa: F401

    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from conftest import draw

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        draw(Path(folder) / "photos")
        words = sys.argv[1:]
        moments, seed = int(words[0]) if words else 50, int(words[1]) if words[1:] else 0
        print(json.dumps(trial(Path(folder) / "photos", Path(folder), moments, seed)))
