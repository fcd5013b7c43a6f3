"""What may befall a pretraining, one fault at a time: how it ends, what it says, and that --resume goes on to the same end."""

import errno
import fcntl
import hashlib
import json
import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pretrain import checkpoint, data, faults, log, loop
from pretrain.methods import byol, moco, simclr, simsiam, supervised

draw = runpy.run_path(str(Path(__file__).with_name("conftest.py")))["draw"]
ROOT = Path(__file__).resolve().parents[2]
WORDS = ("--arch", "resnet18", "--scale", "mini", "--batch-size", "8", "size=32")


def run(photos, out, method=supervised, **changes):
    options = {
        "arch": "resnet18",
        "scale": "mini",
        "epochs": 2,
        "batch_size": 8,
        "overrides": {"size": "32", "precision": "fp32"},
    }
    return loop.run(method, photos, out, **options | changes)


def written(out):
    """What must be equal: the weights, and the log without its speeds."""
    lines = [{**line, "images_per_second": 0} for line in log.lines(out / "log.jsonl")]
    return hashlib.sha256((out / "backbone.pth").read_bytes()).hexdigest(), lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an undisturbed run of two epochs of three steps writes."""
    place = tmp_path_factory.mktemp("whole")
    draw(place / "photos")
    run(place / "photos", place / "out")
    return written(place / "out")


class Dead(Exception):
    """In place of the end of a process."""


@pytest.fixture
def after(monkeypatch):
    """after(step, do): do it once the step is done."""
    update = loop.Training.update

    def arrange(step, do):
        def updated(self, *batch):
            values = update(self, *batch)
            if self.step == step:
                do()
            return values

        monkeypatch.setattr(loop.Training, "update", updated)

    yield arrange
    monkeypatch.setattr(loop.Training, "update", update)


def dead():
    raise Dead


# Checkpoints


def stopped(photos, out, after, monkeypatch, step=3):
    """A run that dies after a step's update, with a checkpoint of every step before it."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0)
    after(step, dead)
    with pytest.raises(Dead):
        run(photos, out)
    after(-1, dead)


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(damage, photos, tmp_path, whole, after, monkeypatch, capsys):
    out = tmp_path / "out"
    stopped(photos, out, after, monkeypatch)
    last = out / "last.pth"
    assert [checkpoint.content(out / name)["step"] for name in ("previous.pth", "last.pth")] == [1, 2]
    content = bytearray(last.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    last.write_bytes(b"" if damage == "empty" else content[: len(content) // 2] if damage == "truncate" else content)
    if damage == "remove":
        last.unlink()
    run(photos, out, resume=True)
    assert "going on from" in (said := capsys.readouterr().err)
    assert "previous.pth, step 1" in said
    assert written(out) == whole


def test_no_flipped_bit_of_a_checkpoint_changes_what_is_read(tmp_path):
    state = {"run": {}, "step": 3, "model": {"w": torch.randn(300), "n": torch.arange(5)}}
    checkpoint.save(tmp_path, state)
    content, rng, refused = (tmp_path / "last.pth").read_bytes(), np.random.default_rng(0), 0
    for place in rng.choice(len(content), 400, replace=False):
        flipped = bytearray(content)
        flipped[place] ^= 1 << rng.integers(8)
        (tmp_path / "flipped.pth").write_bytes(flipped)
        try:
            found = checkpoint.content(tmp_path / "flipped.pth")
        except Exception:
            refused += 1
            continue
        assert found["step"] == 3
        assert all(torch.equal(found["model"][name], tensor) for name, tensor in state["model"].items())
    assert refused > 200


def test_two_damaged_checkpoints_end_the_call_with_both_named(photos, tmp_path, after, monkeypatch):
    stopped(photos, tmp_path / "out", after, monkeypatch)
    for name in ("last.pth", "previous.pth"):
        (tmp_path / "out" / name).write_bytes(b"cut short")
    with pytest.raises(ValueError, match=r"last\.pth.*previous\.pth.*remove"):
        run(photos, tmp_path / "out", resume=True)


def test_a_checkpoint_of_a_newer_version_is_refused(photos, tmp_path, after, monkeypatch):
    stopped(photos, tmp_path / "out", after, monkeypatch)
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT - 1)
    with pytest.raises(ValueError, match=r"format 0, found 1.*version of this project that wrote it"):
        run(photos, tmp_path / "out", resume=True)


@pytest.mark.parametrize("moment", ["half", "moved", "log"])
def test_a_run_that_dies_in_the_middle_of_writing_goes_on_to_the_same_end(
    moment, photos, tmp_path, whole, after, monkeypatch
):
    out = tmp_path / "out"
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0)
    save, replace = torch.save, Path.replace
    after(4, lambda: monkeypatch.setattr(torch, "save", half) if moment == "half" else None)

    def half(content, file):
        save(content, file)
        file.truncate(file.tell() // 2)
        os.link(out / ".last.pth.part", out / "left")  # a killed process would leave it
        raise Dead

    def moved(path, target):
        replace(path, target)
        if Path(target).name == "previous.pth" and checkpoint.content(target)["step"] == 3:
            raise Dead

    def torn(self, values):
        if values["step"] == 4:
            with self.path.open("a") as file:
                file.write('{"epoch": 1.3, "step": 4, "lo')
            raise Dead
        line(self, values)

    line = log.Log.line
    if moment == "moved":
        monkeypatch.setattr(Path, "replace", moved)
    if moment == "log":
        monkeypatch.setattr(log.Log, "line", torn)
    with pytest.raises(Dead):
        run(photos, out)
    monkeypatch.setattr(torch, "save", save)
    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(log.Log, "line", line)
    after(-1, dead)
    if moment == "half":
        (out / "left").rename(out / ".last.pth.part")
    assert (out / "last.pth").exists() == (moment != "moved")
    run(photos, out, resume=True)
    assert written(out) == whole
    assert not list(out.glob("*.part"))


def test_a_checkpoint_between_two_lines_of_the_log_keeps_what_the_next_line_averages(tmp_path, after, monkeypatch):
    for i in range(84):  # a line of the log every second step
        path = tmp_path / "many" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(path)
    options = {"batch_size": 4, "epochs": 1, "overrides": {"size": "32", "precision": "fp32", "warmup_epochs": "0"}}
    run(tmp_path / "many", tmp_path / "whole", **options)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0)
    after(6, dead)
    with pytest.raises(Dead):
        run(tmp_path / "many", tmp_path / "out", **options)
    assert checkpoint.content(tmp_path / "out" / "last.pth")["counted"] == 1
    after(-1, dead)
    run(tmp_path / "many", tmp_path / "out", resume=True, **options)
    assert written(tmp_path / "out") == written(tmp_path / "whole")


# A full disk


@pytest.mark.parametrize(("file", "free"), [("last.pth", 2**20), ("log.jsonl", 10), ("backbone.pth", 2**20)])
def test_a_full_disk_says_what_is_needed_and_the_run_goes_on_when_there_is_room(
    file, free, photos, tmp_path, whole, after, tmpfs, capsys
):
    small = tmpfs("800m")
    out, ballast = small / "out", small / "ballast"

    def fill():
        room = os.statvfs(small)
        with ballast.open("wb", buffering=0) as filler:
            block = bytes(2**20)
            for _ in range(room.f_bavail * room.f_bsize // 2**20 - free // 2**20):
                filler.write(block)
            if free < 2**20:
                with (out / "log.jsonl").open("a") as file:
                    file.write("\n" * (4096 - file.tell() % 4096))  # no room is left in its page
                with pytest.raises(OSError, match="No space"):
                    while True:
                        filler.write(bytes(64))

    after(5, fill)
    if file == "backbone.pth":
        watched = loop.outputs.write_backbone

        def full(*arguments):
            fill()
            watched(*arguments)

        after(-1, fill)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(loop.outputs, "write_backbone", full)
            with pytest.raises(OSError, match=rf"MB free for {file} in .*small/out, found .*--resume"):
                run(photos, out)
    else:
        with pytest.raises(OSError, match=rf"(MB|bytes) free for {file} in .*small/out, found .*--resume"):
            run(photos, out)
    assert checkpoint.content(out / "last.pth")["step"] == (6 if file == "backbone.pth" else 3)
    assert not list(out.glob(".*.part"))
    after(-1, fill)
    ballast.unlink()
    run(photos, out, resume=True)
    assert written(out) == whole


def test_tensorboard_that_cannot_be_written_ends_with_a_warning_and_the_run_goes_on(
    photos, tmp_path, whole, monkeypatch, capsys
):
    def full(self, values):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log.Board, "add", full)
    run(photos, tmp_path / "out")
    assert capsys.readouterr().err.count("TensorBoard is told nothing from here on") == 1
    assert written(tmp_path / "out") == whole


def test_tensorboard_reads_the_numbers_of_the_log_and_forgets_what_was_done_again(photos, tmp_path, after, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stopped(photos, tmp_path / "out", after, monkeypatch, step=5)
    run(photos, tmp_path / "out", resume=True)
    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    events.Reload()
    seen = [(event.step, event.value) for event in events.Scalars("loss")]
    lines = [(line["step"], line["loss"]) for line in log.lines(tmp_path / "out" / "log.jsonl") if "loss" in line]
    assert [step for step, _ in seen] == [step for step, _ in lines] == [1, 2, 3, 4, 5, 6]
    assert np.allclose([value for _, value in seen], [value for _, value in lines], rtol=1e-6)


# Signals


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143), (signal.SIGUSR2, 143)],
)
def test_a_signal_ends_a_run_after_its_step_with_a_checkpoint(number, code, photos, tmp_path, whole, after, capsys):
    out = tmp_path / "out"
    after(4, lambda: os.kill(os.getpid(), number))
    handlers = [signal.getsignal(n) for n in checkpoint.SIGNALS]
    with pytest.raises(SystemExit) as ended:
        run(photos, out)
    assert ended.value.code == code
    assert handlers == [signal.getsignal(n) for n in checkpoint.SIGNALS]
    assert checkpoint.content(out / "last.pth")["step"] == 4
    name = signal.Signals(number).name
    assert f"ended by {name}; saved after step 4 of 6 in {out / 'last.pth'}: the same call with --resume goes on" in (
        capsys.readouterr().err
    )
    after(-1, dead)
    run(photos, out, resume=True)
    assert written(out) == whole


def test_a_signal_while_features_are_looked_at_ends_the_run_at_once(photos, tmp_path, whole, monkeypatch):
    features, calls = loop.Training.features, []

    def looked(self, pixels):
        calls.append(self.step)
        if self.step == 3:
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("it went on")
        return features(self, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "features", looked)
        with pytest.raises(SystemExit, match="143"):
            run(photos, tmp_path / "out")
    run(photos, tmp_path / "out", resume=True)
    assert written(tmp_path / "out") == whole


def test_a_signal_to_the_whole_group_of_the_command_leaves_a_checkpoint(photos, tmp_path):
    out = tmp_path / "out"
    words = [sys.executable, "-m", "bench", "pretrain", "supervised", "--data", str(photos), "--out", str(out), *WORDS]
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [*words, "--epochs", "5000"], env=os.environ | own, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    waited(lambda: (out / "last.pth").exists(), process)
    os.killpg(process.pid, signal.SIGTERM)  # as scancel does: its loader too
    _, said = process.communicate(timeout=200)
    assert process.returncode == 143, said
    assert re.search(r"ended by SIGTERM; (saved after step \d+ of|what was done is saved already)", said)
    assert checkpoint.content(out / "last.pth")["step"] > 0
    assert "Traceback" not in said
    about = json.loads((out / "run.json").read_text())
    assert about["recipe"]["lr"] == about["recipe"]["base_lr"] * 8 / 256
    (begun,) = about["starts"]
    assert f"pretrain supervised --data {photos}" in begun["command"]
    assert {"commit", "machine", "versions", "host", "at", "step"} <= set(begun)


def waited(what, process):
    until = time.monotonic() + 300
    while not what():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.05)


PAIR = """
import os, signal, sys, torch
from pathlib import Path
from pretrain import loop
from pretrain.methods import simsiam
torch.set_num_threads(1)
photos, out, rank = Path(sys.argv[1]), Path(sys.argv[2]), int(os.environ["RANK"])
update = loop.Training.update
def updated(self, *batch):
    values = update(self, *batch)
    if self.step == 2 and rank == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGTERM)
    return values
loop.Training.update = updated
options = {"size": "32", "dim": "16", "predictor_hidden": "8", "precision": "fp32", "warmup_epochs": "0"}
loop.run(simsiam, photos, out, arch="resnet18", scale="mini", epochs=2, batch_size=8, overrides=options, resume=True)
"""


def test_two_processes_end_after_the_same_step_when_one_hears_a_signal_and_go_on_to_the_same_end(photos, tmp_path):
    def both(out, listener):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "PYTHONPATH": str(ROOT)}
        shared |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
        started = [
            subprocess.Popen(
                [sys.executable, "-c", PAIR, str(photos), str(out), str(listener)],
                env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(2)
        ]
        return [process.wait(300) for process in started]

    assert both(tmp_path / "whole", -1) == [0, 0]
    assert both(tmp_path / "parts", 1) == [143, 143]
    assert checkpoint.content(tmp_path / "parts" / "last.pth")["step"] == 3  # all have heard of it a step later
    assert both(tmp_path / "parts", -1) == [0, 0]
    assert written(tmp_path / "parts") == written(tmp_path / "whole")


# A loss that is not finite


def test_a_loss_that_is_not_finite_names_step_rate_batch_and_the_losses_before(photos, tmp_path, monkeypatch):
    forward, calls = supervised.Supervised.forward, []

    def poisoned(self, *arguments):
        calls.append((loss := forward(self, *arguments)).item())
        return loss * (float("nan") if len(calls) == 5 else 1)

    monkeypatch.setattr(supervised.Supervised, "forward", poisoned)
    with pytest.raises(FloatingPointError) as ended:
        run(photos, tmp_path / "out")
    before = ", ".join(f"{loss:.6g}" for loss in calls[:4])
    assert f"batch 8, step 5 of 6 (the last finite losses: {before})" in str(ended.value)
    assert checkpoint.content(tmp_path / "out" / "last.pth")["step"] == 3
    assert not (tmp_path / "out" / "backbone.pth").exists()


def test_weights_that_are_not_finite_are_not_saved(photos, tmp_path, monkeypatch, after):
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0)
    update = loop.Training.update

    def burst(self, *batch):
        values = update(self, *batch)
        if self.step == 4:
            self.model.head.weight.data[0, 0] = float("inf")
        return values

    monkeypatch.setattr(loop.Training, "update", burst)
    with pytest.raises(FloatingPointError, match=r"finite weights, found others in head.weight at lr .* step 4 of 6"):
        run(photos, tmp_path / "out")
    assert checkpoint.content(tmp_path / "out" / "last.pth")["step"] == 3


# Images


def spoil(path):
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    return path


def test_bad_images_of_a_small_folder_are_all_named_before_the_run(photos, tmp_path):
    spoil(photos / "a" / "03.png")
    (photos / "b" / "01.png").write_bytes(b"")
    (photos / "c" / "99.png").symlink_to(tmp_path / "nowhere.png")
    named = (
        r"found 3 of 25: .*a/03.png \(.*truncated.*b/01.png \(an empty file\).*c/99.png .*No such file.*--skip-bad 3 "
    )
    with pytest.raises(ValueError, match=named):
        run(photos, tmp_path / "out")
    (photos / "b" / "01.png").unlink()
    (photos / "c" / "99.png").unlink()
    with pytest.raises(ValueError, match=r"found 1 of 23: .*a/03.png \(.*truncated.*--skip-bad 1"):
        run(photos, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_large_folder_is_looked_at_by_size_and_header_and_not_decoded(photos, monkeypatch):
    monkeypatch.setattr(data, "MEMORY", 0)
    monkeypatch.setattr(
        data.Folder, "keep", lambda folder: False
    )  # which decodes 64 of them to tell how large they are
    spoil(photos / "a" / "03.png")  # breaks off in the middle: only decoding would tell
    faults.preflight(data.Folder(photos), 0, True)
    (photos / "b" / "04.png").write_bytes(b"no image at all")
    with pytest.raises(ValueError, match=r"b/04.png \(cannot identify"):
        faults.preflight(data.Folder(photos), 0, True)
    monkeypatch.setattr(faults, "HEADERS", 2)
    faults.preflight(data.Folder(photos), 0, True)  # one in twelve has its header read
    (photos / "c" / "05.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"c/05.png \(an empty file\)"):
        faults.preflight(data.Folder(photos), 0, True)


def test_looking_at_many_images_takes_no_memory_for_each(photos, monkeypatch):
    folder = data.Folder(photos)
    folder.paths = list(folder.paths) * 500
    monkeypatch.setattr(faults, "fault", lambda path, header: "")
    monkeypatch.setattr(data.Folder, "keep", lambda folder: False)
    tracemalloc.start()
    faults.preflight(folder, 0, True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(folder) == 12_000 and peak < 12_000 * 50


def test_an_image_that_breaks_during_a_run_ends_it_by_name_and_it_goes_on_when_allowed(
    photos, tmp_path, monkeypatch, after
):
    monkeypatch.setattr(data, "MEMORY", 0)
    monkeypatch.setenv("BENCH_WORKERS", "0")  # nothing is read ahead
    image = photos / "a" / "03.png"
    good = image.read_bytes()
    after(3, lambda: spoil(image))
    run(photos, tmp_path / "whole", skip_bad=1)
    image.write_bytes(good)
    with pytest.raises(ValueError, match=r"a/03.png"):
        run(photos, tmp_path / "out")
    after(-1, dead)
    with pytest.raises(ValueError, match=r"a/03.png"):
        run(photos, tmp_path / "out", resume=True)
    run(photos, tmp_path / "out", resume=True, skip_bad=1)
    order = np.random.default_rng((0, 1)).permutation(
        24
    )  # of the second epoch; images are numbered along a/00, a/03, ...
    met = 3 + int(np.flatnonzero(order == 1)[0]) // 8
    (weights, lines), (others, also) = written(tmp_path / "out"), written(tmp_path / "whole")
    assert weights == others  # the features that are looked at are those of an image that has changed since
    assert [line for line in lines if "feature_std" not in line] == [line for line in also if "feature_std" not in line]
    skipped = [line for line in log.lines(tmp_path / "whole" / "log.jsonl") if "skipped" in line]
    assert [(line["step"], line["skipped"]) for line in skipped] == [(met + 1, "a/03.png")]
    about = json.loads((tmp_path / "whole" / "backbone.json").read_text())
    assert about["data"] == {"folder": "photos", "images": 24, "skipped": 1}


@pytest.mark.parametrize("memory", [0, 2**30])
def test_the_next_image_of_the_folder_takes_the_place_of_a_bad_one_with_its_own_label(photos, memory, monkeypatch):
    monkeypatch.setattr(data, "MEMORY", memory)
    recipe = {**supervised.recipe(), "size": 32, "batch_size": 24}
    spoil(photos / "a" / "21.png")  # the last of its class: the next image is of another
    spoil(photos / "c" / "23.png")  # the last of all: the next is the first
    folder = data.Folder(photos)
    faults.preflight(folder, 2, True)
    steps = data.Steps(folder, recipe, 0)
    _, _, labels, used = steps.batch(0)
    wanted = torch.from_numpy(steps.indices(0))
    assert faults.skipped(folder, wanted, used) == [7, 23]
    assert used[wanted == 7].tolist() == [8]
    assert used[wanted == 23].tolist() == [0]
    assert labels.tolist() == folder.labels[used].tolist()
    folder.allowed = 1
    least = "" if memory else "at least "  # of a large folder not every image was decoded
    with pytest.raises(ValueError, match=rf"found {least}2 of 24: .*a/21.png.*c/23.png"):
        folder.refuse([7, 23])


# Memory and workers


def test_a_killed_process_that_prepares_batches_ends_the_run_with_what_to_lower(
    photos, tmp_path, whole, after, monkeypatch
):
    import multiprocessing

    def kill():
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
            child.join(60)
        time.sleep(0.1)

    after(4, kill)
    with pytest.raises(RuntimeError, match=r"DataLoader worker.*BENCH_WORKERS, now 1.*--resume goes on"):
        run(photos, tmp_path / "out")
    after(-1, kill)
    run(photos, tmp_path / "out", resume=True)
    assert written(tmp_path / "out") == whole


@pytest.mark.parametrize(
    "error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
              RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
              OSError(errno.ENOMEM, "Cannot allocate memory")], ids=["python", "cuda", "cpu", "fork"],
)  # fmt: skip
def test_exhausted_memory_is_said_with_what_to_lower(error, photos):
    folder = data.Folder(photos)
    folder.keep()
    with (
        pytest.raises(RuntimeError, match=r"--batch-size \(now 8\).*BENCH_CACHE_BYTES, now 73,728 bytes"),
        faults.in_words(folder, 8, 1),
    ):
        raise error


def test_an_error_that_has_nothing_to_do_with_memory_stays_itself(photos):
    with pytest.raises(RuntimeError, match="shapes differ"), faults.in_words(data.Folder(photos), 8, 1):
        raise RuntimeError("shapes differ")


def test_without_processes_that_prepare_batches_the_result_is_the_same(photos, tmp_path, whole, monkeypatch):
    monkeypatch.setenv("BENCH_WORKERS", "0")
    run(photos, tmp_path / "out")
    assert written(tmp_path / "out") == whole


# Two runs in one folder

HOLDER = """
import sys, time
from pathlib import Path
from pretrain import checkpoint
with checkpoint.locked(Path(sys.argv[1]), True):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_second_run_in_a_folder_is_refused_and_a_dead_one_does_not_block(photos, tmp_path):
    out = tmp_path / "out"
    first = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(out)], env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    assert first.stdout.readline() == b"held\n"
    with pytest.raises(ValueError, match=rf"process {first.pid} on {socket.gethostname()} since"):
        run(photos, out)
    first.kill()
    first.wait()
    first.stdout.close()
    assert f'"pid": {first.pid}' in (out / "running").read_text()  # what it wrote is there, and does not count
    run(photos, out, epochs=1)
    assert (out / "running").read_text() == ""


def test_a_file_system_without_locks_is_warned_of(tmp_path, monkeypatch, capsys):
    def refused(file, kind):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", refused)
    with checkpoint.locked(tmp_path / "out", True):
        assert "without locks" in capsys.readouterr().err


# Where and when it runs

ODD = """
import sys, time
from pathlib import Path
from bench import bfloat16
from pretrain import loop
from pretrain.methods import supervised
bfloat16.make_fast()
clock, began = time.time, time.time()
time.time = lambda: began - 3600 * (clock() - began)  # the clock runs backwards, an hour a second
options = {"arch": "resnet18", "scale": "mini", "epochs": 2, "batch_size": 8, "overrides": {"size": "32", "precision": "fp32"}, "resume": True}
loop.run(supervised, Path(sys.argv[1]), Path(sys.argv[2]), **options)
"""


# The project is read-only in a mount namespace of the child's own, which ends with it: nothing is left that a clean-up could walk into.
READ_ONLY = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" || exit 77; exec "$@"'


def read_only():
    """What makes a command see the project read-only; nothing where that is not allowed."""
    words = ["unshare", "--mount", "sh", "-c", READ_ONLY, str(ROOT)]
    return (
        words
        if shutil.which("unshare") and not subprocess.run([*words, "true"], capture_output=True).returncode
        else []
    )


@pytest.mark.parametrize("umask", [0o022, 0o077])
@pytest.mark.parametrize(
    ("zone", "locale"), [("Pacific/Kiritimati", "C"), ("America/St_Johns", "tr_TR.ISO-8859-9")], ids=["east", "west"]
)
def test_umask_zone_locale_clock_odd_names_links_and_a_read_only_package_change_nothing(
    umask, zone, locale, photos, tmp_path, whole
):
    odd = tmp_path / "größe 大 n'1"
    odd.mkdir()
    photos.rename(odd / "photos")
    photos.symlink_to(odd / "photos")
    own = {"PYTHONPATH": str(ROOT), "TZ": zone, "LC_ALL": locale, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    words = [*read_only(), sys.executable, "-c", ODD, str(photos), str(odd / "out")]
    done = subprocess.run(words, env=os.environ | own, umask=umask, cwd=tmp_path, capture_output=True)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert written(odd / "out") == whole
    files = {path.name: path.stat().st_mode & 0o777 for path in (odd / "out").iterdir() if path.is_file()}
    assert set(files.values()) == {0o666 & ~umask}
    assert {"backbone.pth", "backbone.json", "run.json", "last.pth", "previous.pth", "log.jsonl"} <= set(files)


# A batch in parts


def frozen_norms(method, monkeypatch):
    """Batch norm in evaluation mode: what is left is a mean over the images."""

    class Frozen(method.METHOD):
        def train(self, mode=True):
            super().train(mode)
            for part in self.modules():
                if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                    part.training = False
            return self

    monkeypatch.setattr(method, "METHOD", Frozen)


@pytest.mark.parametrize("method", [supervised, simsiam, byol], ids=["supervised", "simsiam", "byol"])
def test_without_batch_norm_a_step_in_parts_is_the_step_of_the_whole_batch(method, photos, tmp_path, monkeypatch):
    frozen_norms(method, monkeypatch)
    found = {}
    for parts in (1, 4):
        recipe = loop.resolved(
            method, folder := data.Folder(photos), "mini", None, 1, 8, {"size": "32", "precision": "fp32"}
        )
        torch.manual_seed(0)
        run_of = {"method": "m", "arch": "resnet18", "recipe": recipe, "seed": 0, "accumulate": parts}
        training = loop.Training(method.METHOD("resnet18", recipe), folder, run_of, loop.dist.process())
        values = training.update(*training.source.batch(0))
        gradients = {name: p.grad for name, p in training.model.named_parameters() if p.grad is not None}
        found[parts] = float(values["loss"]), gradients
    assert found[1][0] == pytest.approx(found[4][0], rel=1e-5)
    for name, gradient in found[1][1].items():
        torch.testing.assert_close(
            found[4][1][name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item() + 1e-9
        )


def test_a_run_in_parts_is_marked_nonstandard_and_says_what_it_does_not_mend(photos, tmp_path, capsys):
    run(photos, tmp_path / "out", accumulate=2, epochs=1)
    about = json.loads((tmp_path / "out" / "backbone.json").read_text())
    assert about["nonstandard"] == {"accumulate": 2}
    assert "nonstandard, batch norm and negatives see a part at a time" in capsys.readouterr().err
    with pytest.raises(ValueError, match="accumulate 2 -> 1"):
        run(photos, tmp_path / "out", epochs=1, resume=True)


@pytest.mark.parametrize("method", [moco, simclr], ids=["moco", "simclr"])
def test_a_method_whose_loss_takes_a_batch_together_refuses_parts_by_name(method, photos, tmp_path):
    name = method.__name__.rpartition(".")[2]
    with pytest.raises(ValueError, match=f"no --accumulate for {name}, whose loss or memory"):
        run(photos, tmp_path / "out", method=method, accumulate=2)
    with pytest.raises(ValueError, match=r"divide the 8 images of each process \(1, 2, 4\), found 3"):
        run(photos, tmp_path / "out", accumulate=3)
