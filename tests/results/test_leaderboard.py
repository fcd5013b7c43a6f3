import csv

import pytest

from results import leaderboard, published
from results.groups import Group


@pytest.fixture
def records(trial):
    found = []
    for name, ap in (("random", 1.0), ("moco_v2", 6.5)):
        for seed in (0, 1):
            found.append(trial("voc_c4", name, {"AP": ap + seed, "AP50": 2 * ap}, seed))
            found.append(trial("cityscapes_semantic", name, {"mIoU": 20 + ap}, seed))
    found.append(trial("my_task", "moco_v2", {"score": 55.0}))
    return found


def read(file):
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def test_every_line_of_the_csv_has_a_source(records, tmp_path):
    rows = read(leaderboard.write(records, tmp_path)[1])
    assert list(rows[0]) == leaderboard.COLUMNS
    assert all(row["source"] for row in rows)
    assert len([r for r in rows if r["kind"] == "published"]) == len(published.figures())
    assert len([r for r in rows if r["kind"] == "measured"]) == 2 * 2 + 2 + 1


def test_a_measured_line_has_mean_deviation_interval_protocol_and_records(records, tmp_path):
    rows = read(leaderboard.write(records, tmp_path)[1])
    row = next(r for r in rows if (r["kind"], r["model"], r["metric"]) == ("measured", "moco_v2", "AP"))
    assert (float(row["mean"]), float(row["std"]), row["n"]) == (7.0, pytest.approx(0.707107, abs=1e-6), "2")
    assert float(row["high"]) - 7.0 == pytest.approx(12.7062 * 0.5, abs=1e-3)  # t(1) times the standard error
    assert (row["protocol"], row["scale"], row["marks"]) == ("voc_c4@mini", "mini", "mini")
    assert row["hash"] == records[0]["protocol"]["hash"]
    assert [path.rsplit("/", 1)[1] for path in row["source"].split()] == ["0.json", "1.json"]


def test_a_groups_marks_are_gathered_once_however_many_models_it_has(trial, monkeypatch):
    gathered = []
    monkeypatch.setattr(Group, "union", lambda _, key: gathered.append(key) or [])
    leaderboard.comma_separated([trial("voc_c4", f"moco_{number}", {"AP": 7.0, "AP50": 20.0}) for number in range(3)])
    assert gathered == ["marks", "nonstandard"]


def test_a_published_line_has_the_printed_figure_and_its_document(tmp_path):
    rows = read(leaderboard.write([], tmp_path)[1])
    same = [
        r for r in rows if (r["method"], r["epochs"], r["task"], r["metric"]) == ("pixpro", "100", "coco_c4_1x", "APbb")
    ]
    assert {(r["mean"], r["source"]) for r in same} == {
        ("39.6", "talk: PixPro Results table"),
        ("40.0", "zdaxie/PixPro README"),
    }


def test_the_overview_tells_measured_and_published_apart(records):
    text = leaderboard.markdown(records)
    measured, published_part = text.split("## Published", 1)
    assert "7.00 ± 0.71" in measured
    assert "moco_v2 (10 epochs)" in measured
    assert "my_task score" in measured
    assert "7.00 ± 0.71" not in published_part
    assert "55.9" not in measured
    assert "voc_c4/" in measured  # where the records stand


def test_values_that_disagree_stand_side_by_side_with_the_numbers_of_their_sources():
    text = leaderboard.markdown()
    sources = dict(line[3:].split(") ", 1) for line in text.splitlines() if line.startswith("- ("))
    cells = next(line for line in text.splitlines() if line.startswith("| pixpro ") and " 100 " in line).split("|")
    cell = next(c for c in cells if "39.6" in c)
    assert "40.0" in cell
    numbers = {v.strip().split(" (")[0]: v.split("(")[1] for v in cell.split("), ")}
    assert "zdaxie/PixPro README" in [sources[n] for n in numbers["40.0"].strip(" )").split(",")]
    assert "talk: PixPro Results table" in [sources[n] for n in numbers["39.6"].strip(" )").split(",")]


def test_without_records_the_overview_says_what_measures():
    assert "Nothing yet: `bench transfer` measures." in leaderboard.markdown()
