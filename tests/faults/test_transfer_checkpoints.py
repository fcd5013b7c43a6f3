"""What stands in a folder of checkpoints after a kill, damage or a full disk: the newest or the one before, whole."""

import contextlib
import json
import os
import sys
from pathlib import Path

import pytest
import torch

from downstream import checkpoint
from downstream.trial import Events, Progress, write_json

ORIGIN = {"protocol": "a" * 64, "seed": 0}


def content(iteration, size=64):
    generator = torch.Generator().manual_seed(iteration)
    weights = {"w": torch.randn(size, generator=generator), "count": torch.tensor(iteration)}
    return {
        "origin": ORIGIN,
        "iteration": iteration,
        "model": weights,
        "optimiser": {"state": {0: {"m": torch.ones(3)}}},
    }


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def same(state, iteration, size=64):
    wanted = content(iteration, size)
    return state["iteration"] == iteration and all(
        torch.equal(state["model"][k], v) for k, v in wanted["model"].items()
    )


def fill(folder):
    """The file that takes all room there is."""
    ballast = folder / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return ballast


def test_a_checkpoint_comes_back_as_it_was_and_the_one_before_is_kept(tmp_path):
    assert checkpoint.load(tmp_path, ORIGIN) is None
    for iteration in (1, 2, 3):
        checkpoint.save(tmp_path, content(iteration))
    assert names(tmp_path) == ["last.pth", "previous.pth"]
    assert same(checkpoint.load(tmp_path, ORIGIN), 3)
    (tmp_path / "last.pth").unlink()  # killed between two moves of files
    assert same(checkpoint.load(tmp_path, ORIGIN), 2)
    checkpoint.remove(tmp_path)
    assert names(tmp_path) == []


def test_every_flipped_byte_is_noticed(tmp_path, capsys):
    checkpoint.save(tmp_path, content(1, size=8))
    checkpoint.save(tmp_path, content(2, size=8))
    last = tmp_path / "last.pth"
    whole = last.read_bytes()
    for place in range(0, len(whole), 3):
        last.write_bytes(whole[:place] + bytes([whole[place] ^ 0x5A]) + whole[place + 1 :])
        assert same(checkpoint.load(tmp_path, ORIGIN), 1, 8)
    said = capsys.readouterr().err
    assert said.startswith(
        f"bench: last.pth (its sha256 is another) in {tmp_path} is damaged; going on from previous.pth"
    )


def test_a_file_cut_short_anywhere_is_noticed(tmp_path):
    checkpoint.save(tmp_path, content(1, size=8))
    checkpoint.save(tmp_path, content(2, size=8))
    last = tmp_path / "last.pth"
    whole = last.read_bytes()
    for length in range(0, len(whole), 29):
        last.write_bytes(whole[:length])
        assert same(checkpoint.load(tmp_path, ORIGIN), 1, 8)


def test_two_damaged_checkpoints_are_refused_with_the_way_out(tmp_path):
    for iteration in (1, 2):
        checkpoint.save(tmp_path, content(iteration))
    for name in ("last.pth", "previous.pth"):
        (tmp_path / name).write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"damage in last\.pth .* and previous\.pth .*: remove them to start anew"):
        checkpoint.load(tmp_path, ORIGIN)


def test_a_checkpoint_of_a_newer_version_is_refused_and_the_one_before_is_not_taken(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, content(1))
    with monkeypatch.context() as newer:
        newer.setattr(checkpoint, "VERSION", checkpoint.VERSION + 1)
        checkpoint.save(tmp_path, content(2))
    with pytest.raises(
        ValueError, match=r"last\.pth in version 1 .* found 2: another version of this project wrote it"
    ):
        checkpoint.load(tmp_path, ORIGIN)


def test_an_archive_that_is_whole_and_not_understood_is_refused_as_of_another_version(tmp_path):
    checkpoint.save(tmp_path, content(1) | {"thing": Path("x")})
    with pytest.raises(ValueError, match="found an unknown one"):
        checkpoint.load(tmp_path, ORIGIN)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    checkpoint.save(tmp_path, content(1))
    with pytest.raises(ValueError, match=r"found another seed \(0, not 7\): take another --out"):
        checkpoint.load(tmp_path, ORIGIN | {"seed": 7})


@pytest.mark.parametrize("before", [1, 2])
@pytest.mark.parametrize("step", range(6))
def test_whenever_writing_is_cut_off_a_whole_checkpoint_is_found(step, before, tmp_path, monkeypatch):
    class Cut(BaseException):
        pass

    for iteration in range(1, before + 1):
        checkpoint.save(tmp_path, content(iteration))
    steps = 0

    def counted(real):
        def act(*given, **more):
            nonlocal steps
            steps += 1
            if steps > step:
                raise Cut
            return real(*given, **more)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.torch, "save", counted(torch.save))
        patch.setattr(os, "fsync", counted(os.fsync))
        patch.setattr(Path, "replace", counted(Path.replace))
        with contextlib.suppress(Cut):
            checkpoint.save(tmp_path, content(3))
    state = checkpoint.load(tmp_path, ORIGIN)
    assert same(state, 1) or same(state, 2) or same(state, 3)
    checkpoint.save(tmp_path, content(4))
    assert names(tmp_path) == ["last.pth", "previous.pth"]
    assert same(checkpoint.load(tmp_path, ORIGIN), 4)


def test_a_damaged_newest_checkpoint_does_not_push_out_the_good_one_before_the_next_is_written(tmp_path, monkeypatch):
    class Cut(BaseException):
        pass

    for iteration in (1, 2):
        checkpoint.save(tmp_path, content(iteration))
    (tmp_path / "last.pth").write_bytes(b"damaged")
    real = Path.replace
    for cut in range(3):
        left = cut

        def move(self, to):
            nonlocal left
            if left == 0:
                raise Cut
            left -= 1
            return real(self, to)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "replace", move)
            with contextlib.suppress(Cut):
                checkpoint.save(tmp_path, content(3))
        assert checkpoint.load(tmp_path, ORIGIN)["iteration"] in (1, 3)


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    checkpoint.save(tmp_path, content(1))
    broken = content(2)
    broken["model"]["w"][3] = float("nan")
    with pytest.raises(
        FloatingPointError, match=r"after 2 iterations, found infinity or NaN in w: the last checkpoint"
    ):
        checkpoint.save(tmp_path, broken)
    assert names(tmp_path) == ["last.pth"]
    assert same(checkpoint.load(tmp_path, ORIGIN), 1)


def test_a_full_disk_is_a_sentence_and_leaves_both_checkpoints(tmpfs):
    folder = tmpfs("1024k")
    for iteration in (1, 2):
        checkpoint.save(folder, content(iteration, 60_000))  # 240 kB each
    ballast = fill(folder)
    with pytest.raises(OSError, match=r"room for 0\.2 MB in \S+ to write last\.pth\.part, found .* full .*--resume"):
        checkpoint.save(folder, content(3, 60_000))
    assert names(folder) == ["ballast", "last.pth", "previous.pth"]
    assert same(checkpoint.load(folder, ORIGIN), 2, 60_000)
    ballast.unlink()
    checkpoint.save(folder, content(3, 60_000))
    assert same(checkpoint.load(folder, ORIGIN), 3, 60_000)


def test_a_log_on_a_full_disk_is_a_sentence_and_what_was_cut_short_is_dropped(tmpfs):
    folder = tmpfs("64k")
    log, losses = folder / "log.jsonl", {"loss": 1.0, "loss_" + "x" * 3000: 1.0}
    progress = Progress("tiny", 1000, log=log)
    with pytest.raises(OSError, match=r"room for \d+ bytes in \S+ to write (log\.jsonl|events\S+), found the disk"):
        for done in range(10, 1000, 10):
            progress.step(done, losses, 0.1)
    fill(folder)
    with contextlib.suppress(OSError), log.open("a") as file:
        file.write('{"iteration": 5')
    with pytest.raises(OSError, match=r"to write metrics\.json, found the disk"):
        write_json(folder / "metrics.json", {"x": "y" * 5000})
    assert not list(folder.glob("metrics*"))
    (folder / "ballast").unlink()
    for file in (folder / "tensorboard").iterdir():
        file.unlink()
    Progress("tiny", 1000, start=20, log=log).step(30, {"loss": 2.0}, 0.1)
    assert [json.loads(line)["iteration"] for line in log.read_text().splitlines()] == [10, 20, 30]


def test_tensorboard_reads_the_events_and_forgets_what_was_done_again(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = Events(tmp_path, 0)
    for step in (10, 20, 30):
        first.add(step, {"loss": step / 2, "lr": None})
    with first.file.open("ab") as file:
        file.write(b"\x18\x00")  # killed while writing
    second = Events(tmp_path, 20)
    second.add(30, {"loss": 7.0})
    read = EventAccumulator(str(tmp_path))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("loss")] == [(10, 5.0), (20, 10.0), (30, 7.0)]


def test_the_time_left_is_shown_by_a_narrow_terminal_and_in_lines_where_no_bar_can_be(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    for term in ("xterm", "dumb"):
        monkeypatch.setenv("TERM", term)
        with Progress("coco_fpn_1x_pixpro", 90_000, 16) as progress:
            progress.spoke -= 60
            progress.step(45_000, {"loss": 2.0}, 0.02)
        assert "coco_fpn_1x_pixpro 45000/90000  0:00:00 left  loss" in capsys.readouterr().err
    with Progress("voc07_svm", 20, unit="classes") as progress:
        progress.step(20)
    assert capsys.readouterr().err.endswith(" classes/s\n")
