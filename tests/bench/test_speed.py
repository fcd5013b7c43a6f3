"""The benchmark's arithmetic; nothing here is timed."""

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench import cli, speed
from bench.speed import kept


def test_each_call_is_made_in_turn_and_the_first_is_not_counted() -> None:
    order: list[str] = []
    ours, theirs, memory = speed.pairs(lambda: order.append("ours"), lambda: order.append("theirs"))
    assert order[:6] == ["theirs", "ours", "ours", "theirs", "theirs", "ours"]
    assert order.count("ours") == order.count("theirs") == speed.PAIRS + 1 and ours >= 0 and theirs >= 0
    assert memory is None or memory > 2**20


@pytest.mark.parametrize(
    ("ratio", "target", "fast", "met"),
    [
        (1.4, 1.5, False, True),
        (1.6, 1.5, False, False),
        (1.6, 1.5, True, True),
        (1.4, 1.5, True, False),
        (9, None, False, None),
    ],
)
def test_a_target_is_a_least_speed_or_a_greatest_cost(
    ratio: float, target: float | None, fast: bool, met: bool | None
) -> None:
    row = speed.Row("part", "torch", ratio, target, fast, 1.0, 2.0)
    assert row.met is met
    plain = json.loads(json.dumps(row.plain()))
    assert {"part", "against", "ratio", "target", "met"} <= plain.keys() and plain["met"] is met
    assert ("MISSED" in speed.described(row)) == (met is False)
    assert ("missed_by" in plain) == ("why" in plain) == (met is False)


def test_a_row_that_misses_says_by_how_much_and_why() -> None:
    slow = speed.Row("pretrain", "PIL", 2.0, 2.5, True, 1.0, 2.0).plain()
    assert slow["missed_by"] == pytest.approx(0.2) and "share the cores" in slow["why"]
    dear = speed.Row("convert", "torch", 1.8, 1.5, False, 1.8, 1.0).plain()
    assert dear["missed_by"] == pytest.approx(0.2) and dear["why"] is None
    assert speed.WHY.keys() <= speed.PARTS.keys()
    for row in kept.rows():
        assert row["met"] is not False or row["part"] in speed.WHY, "a kept row misses its target, nobody says why"


def test_a_part_sees_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.speed import tables

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr(tables, "start", lambda folder: [os.environ["CUDA_VISIBLE_DEVICES"]])
    assert speed.run("start", lambda line: None) == [""]


def test_the_peak_of_a_command_is_that_of_its_own_process() -> None:
    from bench.speed import tables

    held = bytearray(2**28)  # by this one
    peak = tables._peak(["--help"], os.environ)
    assert peak is None or 2**23 < peak < len(held)


def test_an_unknown_part_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"found 'converts'\. Did you mean 'convert'"):
        speed.run("converts", print)
    assert {"views", "convert", "inspect"} <= speed.PARTS.keys()


def test_the_checkpoint_of_the_benchmark_is_mocos(tmp_path: Path) -> None:
    import torch

    from bench import sources
    from bench.speed import checkpoints

    torch.save(checkpoints._moco(64), tmp_path / "checkpoint.pth")
    found = sources.inspect(tmp_path / "checkpoint.pth")
    assert (found["family"], found["arch"], found["matched"], found["problem"]) == ("moco", "resnet50", 318, None)


def test_the_records_of_the_benchmark_are_records(tmp_path: Path) -> None:
    from bench.speed import tables
    from results import record, table

    tables._records(tmp_path, 60)
    assert len(record.load(tmp_path)) == 60
    assert "model2 " in table.render("moco", record.trials(tmp_path))


def test_plain_moco_begins_at_a_loss_like_ours() -> None:
    from bench.speed import steps

    training, batch = steps._ours("moco", "resnet18", 64, 16)
    assert training.recipe["precision"] == "bf16"
    theirs = steps.plain_moco("resnet18", training.recipe["queue"])(steps._floats(training, batch))
    assert theirs == pytest.approx(float(training.update(*batch)["loss"]), abs=1.5)  # another draw of the weights


@pytest.mark.parametrize("method", ["simclr", "byol", "swav", "pixpro"])
def test_the_plain_step_of_a_method_begins_at_the_methods_own_loss(method: str) -> None:
    from bench.speed import steps

    training, batch = steps._ours(method, "resnet18", 64, 16)
    assert training.recipe["precision"] == "bf16"
    training.recipe["precision"] = "fp32"
    theirs = getattr(steps, f"_plain_{method}")(training, batch)()
    ours = float(training.update(*batch)["loss"])
    # objective.py of SimCLR sums the two directions, a plain loop takes their mean
    assert theirs == pytest.approx(ours / (2 if method == "simclr" else 1), rel=0.01, abs=0.01)


def test_the_photographs_of_the_benchmark_are_as_large_as_vocs_and_the_same_every_time(tmp_path: Path) -> None:
    from PIL import Image

    from bench.speed import loading

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        loading.photographs(tmp_path / name, 2)
    file = tmp_path / "one" / "1.jpg"
    assert file.read_bytes() == (tmp_path / "two" / "1.jpg").read_bytes()
    assert 80_000 < file.stat().st_size < 120_000
    with Image.open(file) as image:
        assert image.size == (500, 375)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_fitted_growth_is_the_exponent(power: float) -> None:
    from bench.speed import scaling

    counts = (1_000, 10_000, 100_000)
    assert scaling.exponent(counts, [3e-6 * count**power for count in counts]) == pytest.approx(power)


def test_scaling_tells_every_cost_at_every_number_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.speed import scaling

    @contextlib.contextmanager
    def here(build: object, measure: object, root: Path) -> Iterator[Callable[[], tuple[float, ...]]]:
        yield lambda: (float(len(list(root.glob("*/*.jpg")))), 2.0, 3.0, 4.0, 5.0)

    monkeypatch.setattr(scaling, "apart", here)
    grown = scaling.run(tmp_path, lambda line: None, (10, 100))
    assert [growth.values for growth in grown] == [(10, 100), (2, 2), (3, 3), (4, 4), (5, 5)]
    assert [round(growth.exponent, 6) for growth in grown] == [1, 0, 0, 0, 0]
    assert "images ** 1.00" in scaling.described(grown[0]) and not list(tmp_path.glob("1*0"))


def test_a_kept_ratio_gives_way_to_a_new_one_and_says_when_it_was_better(tmp_path: Path) -> None:
    from bench.speed import kept

    file = tmp_path / "speed.json"
    assert kept.rows(file) == []
    slow, fast = (
        speed.Row("views", "PIL", 4.0, 5.0, True, 1.0, 4.0, 2**20),
        speed.Row("start", "pass", 1.2, 1.5, False, 1.2, 1),
    )
    kept.keep([fast, slow], file)
    assert [row["part"] for row in kept.rows(file)] == ["views", "start"]
    kept.keep([speed.Row("views", "PIL", 6.0, 5.0, True, 1.0, 6.0)], file)
    before = kept.rows(file)
    assert [row["ratio"] for row in before] == [6.0, 1.2]
    assert {"date", "commit", "machine", "versions"} <= before[0].keys()
    assert "WORSE" in kept.since(slow, before) and "6.00" in kept.since(slow, before)
    assert "1.20" in kept.since(fast, before) and "WORSE" not in kept.since(fast, before)
    assert kept.since(speed.Row("views", "cv2", 1.0, None, True, 1.0, 1.0), before) == ""
    assert "| `views` | PIL | 6.00 | ≥ 5 | yes |" in kept.table(file)
    kept.keep([speed.Row("views", "PIL, another name", 6.0, 5.0, True, 1.0, 6.0)], file)
    assert [row["against"] for row in kept.rows(file)] == ["PIL, another name", "pass"]


@pytest.mark.parametrize("json", [False, True])
def test_what_was_measured_is_said_where_it_cannot_be_kept(
    json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from bench.speed import scaling

    def refused(*_: object) -> None:
        raise PermissionError("read only")

    for name in ("keep", "keep_scaling"):
        monkeypatch.setattr(kept, name, refused)
    grown = scaling.Growth("listing", "seconds", (1_000, 100_000), (0.012, 1.2), 1.0)
    monkeypatch.setattr(scaling, "run", lambda *_: [grown])
    monkeypatch.setattr(speed, "run", lambda *_: [speed.Row("views", "PIL", 4.0, 5.0, True, 1.0, 4.0)])
    for growth in (False, True):
        with pytest.raises(PermissionError):
            cli.speed(None, growth, True, json)
    said = capsys.readouterr().out
    assert "PIL" in said and "listing" in said


def test_kept_growth_stands_beside_the_ratios_and_is_a_table(tmp_path: Path) -> None:
    from bench.speed import kept, scaling

    file = tmp_path / "speed.json"
    kept.keep([speed.Row("start", "pass", 1.2, 1.5, False, 1.2, 1)], file)
    seconds = scaling.Growth("listing", "seconds", (1_000, 100_000), (0.012, 1.2), 1.0)
    memory = scaling.Growth("a loader", "bytes", (1_000, 100_000), (2.0**28, 2.0**28), 0.0)
    kept.keep_scaling([seconds, memory], file)
    assert len(kept.rows(file)) == 1
    assert kept.scaling_table(file).splitlines() == [
        "| cost | 1,000 images | 100,000 images | grows as images to the |",
        "|---|--:|--:|--:|",
        "| listing | 12.00 ms | 1,200.00 ms | 1.00 |",
        "| a loader | 256.0 MiB | 256.0 MiB | 0.00 |",
    ]


def test_a_call_apart_is_made_in_a_process_of_its_own(tmp_path: Path) -> None:
    here = Path.cwd()
    with speed.apart(functools.partial, os.chdir, tmp_path) as call:
        call()
        call()
        assert Path.cwd() == here
    with speed.apart(functools.partial, os.mkdir, tmp_path / "made") as call:
        call()
        assert (tmp_path / "made").is_dir()
        with pytest.raises(FileExistsError):
            call()


def test_the_table_that_is_timed_is_that_of_the_packaged_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import catalog
    from bench.speed import tables

    calls: list[list[str]] = []
    for name in ("_seconds", "_peak"):
        monkeypatch.setattr(tables, name, lambda arguments, _: [calls.append(arguments), 1.0][1])
    tables.start(tmp_path)
    printed = [call for call in calls if "table" in call]
    packaged = str(catalog.ROOT / "results" / "measured")
    assert len(printed) == speed.PAIRS + 2 and all(call[-2:] == ["--results", packaged] for call in printed)
