"""The whole journey, on fewer pictures and with fewer trials than `make demo` has."""

import csv

import pytest

from bench import catalog, demo
from results import record


def test_the_demo_goes_from_pictures_to_tables_and_does_nothing_twice(tmp_path, monkeypatch, capsys, request):
    monkeypatch.setattr(demo, "SIZES", {"voc": 2, "coco": 0, "cityscapes": 2, "imagenet": 2})
    monkeypatch.setattr(demo, "METHODS", ("moco",))
    monkeypatch.setattr(demo, "TRIALS", 1)
    said = []
    demo.run(tmp_path / "demo", 0, said.append)
    printed = capsys.readouterr().out
    records = record.load(tmp_path / "demo" / "transfer")
    assert {(r["task"], r["model"]["name"], r["seed"]) for r in records} == {
        (task, model, 0) for task in ("voc_c4", "cityscapes_semantic") for model in ("random", "moco_v2")
    }
    assert len({r["protocol"]["hash"] for r in records}) == 2
    for one in records:
        assert one["scale"] == "mini" and one["marks"] == ["mini", "reduced"]
        random = one["model"]["name"] == "random"
        assert one["loaded"]["matched"] == (0 if random else 120)
        assert set(one["proof"]) == (set() if random else {"source", "detectron2", "mmseg"})
        assert all(difference < 1e-4 for difference in one["proof"].values())
        assert one["effective"]["norm"].startswith("BN")
    assert "MoCo Table 2(b)" in printed and "voc_c4@mini" in printed and "Leaderboard" in printed
    with (tmp_path / "demo" / "leaderboard" / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {r["model"] for r in rows if r["kind"] == "measured"} >= {"random"}
    assert (tmp_path / "demo" / "leaderboard" / "leaderboard.md").is_file()

    request.getfixturevalue("here")
    demo.run(tmp_path / "demo", 0, said.append)
    assert capsys.readouterr().out.partition("Done in")[0] == printed.partition("Done in")[0]
    assert record.load(tmp_path / "demo" / "transfer") == records


def test_all_tasks_end_in_a_table_or_in_the_names_of_those_that_failed(tmp_path, monkeypatch, capsys, here):
    monkeypatch.setattr(demo, "ALL_SIZES", {"voc": 1, "coco": 0, "cityscapes": 0, "imagenet": 12, "side": 96})
    monkeypatch.setattr(catalog, "names", lambda kind: ["imagenet_knn", "voc07_svm"])
    said = []
    with pytest.raises(RuntimeError, match=r"found 1 that failed: voc07_svm; see .*log.txt"):
        demo.run_all(tmp_path, 0, said.append)
    assert any("voc07_svm failed: expected at least 3 images" in line for line in said)
    table = capsys.readouterr().out
    assert [line.split()[0] for line in table.splitlines()] == ["task", "imagenet_knn"]
    (one,) = record.load(tmp_path / "transfer")
    assert one["marks"] == ["mini", "reduced"] and "top1_k200 " in table

    monkeypatch.setattr(catalog, "names", lambda kind: ["imagenet_knn"])
    demo.run_all(tmp_path, 0, said.append)
    assert capsys.readouterr().out == table and said[-1].startswith("All 1 tasks ended")
    assert record.load(tmp_path / "transfer") == [one]


def test_a_folder_of_datasets_that_the_demo_did_not_draw_is_left_alone(tmp_path):
    mine = tmp_path / "data" / "coco" / "mine.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    for run in (demo.run, demo.run_all):
        with pytest.raises(
            ValueError, match=r"expected drawn datasets or nothing at .*data, found something else: take another --out"
        ):
            run(tmp_path, 0, print)
    assert mine.read_bytes() == b"mine"


def test_every_split_of_every_task_has_images_among_so_few(tmp_path):
    from downstream import synthetic

    counts = synthetic.synthesize(tmp_path, 0, **demo.ALL_SIZES | {"voc": 0, "cityscapes": 0, "imagenet": 0})
    assert set(counts) == {"coco", "lvis", "densepose"}
    assert all(images > 0 for splits in counts.values() for images in splits.values())
