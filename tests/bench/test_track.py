"""The mini track: which pretrainings it has, what it records of one, its table."""

import json

import pytest

from bench import catalog, journey, track
from downstream import synthetic


def test_every_method_that_begins_from_images_is_in_the_track_and_some_are_there_for_longer():
    names = track.names()
    assert {"supervised-3", "moco-3", "simclr-3", "pixpro-3", "swav-3", "instdisc-3"} <= set(names)
    assert {name for name in names if name.endswith("-12")} == {f"{name}-12" for name in track.LONGER}
    assert set(catalog.names("method")) - {name.rpartition("-")[0] for name in names} == set(track.STAGES)
    for stage in track.STAGES:
        assert "checkpoint" in catalog.load("method", stage).recipe()
    assert len(track.LONGER) >= 4


def test_an_unknown_pretraining_is_named_before_anything_starts(tmp_path):
    with pytest.raises(ValueError, match=r"pretraining.*simclr-5"):
        track.main(tmp_path, ["simclr-5"])
    assert not list(tmp_path.iterdir())


def test_a_pretraining_leaves_a_record_with_what_explains_it_and_its_row(tmp_path):
    data, runs, records = tmp_path / "data", tmp_path / "runs", tmp_path / "records"
    synthetic.synthesize(data, seed=0, voc=0, coco=0, cityscapes=0, imagenet=4)
    found = track.pretrained("simsiam-3", data, runs, records)
    written = json.loads((records / "pretraining" / "simsiam-3.json").read_text())
    assert written == found
    assert (written["method"], written["epochs"], written["seed"], written["arch"]) == ("simsiam", 3, 0, "resnet18")
    assert {"loss", "knn", "sha256", "recipe", "versions", "seconds"} <= written.keys()
    assert written["starts"][0]["machine"]["cores"] >= 1
    assert str(tmp_path) not in json.dumps(written)
    row = track.table(records).splitlines()[-1]
    assert f"simsiam {written['sha256'][:8]} | 3 |" in row
    assert f"| {written['knn']['last']:.2f} |" in row


def test_the_track_pretrains_and_sweeps_and_does_nothing_twice(tmp_path, capsys):
    data, runs, records = tmp_path / "data", tmp_path / "runs", tmp_path / "records"
    synthetic.synthesize(data, seed=0, voc=0, coco=0, cityscapes=0, imagenet=12, side=96)
    track.main(data, ["simsiam-3"], {"imagenet_knn": 1}, runs, records)
    found = json.loads((records / "pretraining" / "simsiam-3.json").read_text())
    trials = {trial["model"]["name"]: trial for trial in journey.measured(records)}
    assert set(trials) == {"random", "simsiam"}
    assert trials["simsiam"]["model"]["sha256"] == found["sha256"]
    assert trials["random"]["protocol"]["name"] == "imagenet_knn@mini"
    before = {file: file.stat().st_mtime_ns for file in records.rglob("*.json")}
    said = capsys.readouterr()
    assert "1/1  simsiam-3: kNN" in said.err
    assert f"simsiam {found['sha256'][:8]} | 3 |" in said.out
    track.main(data, ["simsiam-3"], {"imagenet_knn": 1}, runs, records)
    written = json.loads((records / "pretraining" / "simsiam-3.json").read_text())
    assert (written["sha256"], len(written["starts"])) == (found["sha256"], 1)
    trial = {file for file in before if "imagenet_knn" in str(file)}
    assert len(trial) == 2 and all(file.stat().st_mtime_ns == before[file] for file in trial)


def test_a_trial_without_a_record_is_told_at_the_end(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(track, "pretrain", lambda *told: None)
    monkeypatch.setattr(track, "transfer", lambda task, *told: task == "voc_c4")
    with pytest.raises(RuntimeError, match="some missing of imagenet_knn"):
        track.main(tmp_path / "data", ["simsiam-3"], {"imagenet_knn": 1, "voc_c4": 5}, tmp_path, tmp_path)
