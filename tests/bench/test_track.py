"""The mini track: which pretrainings it has, what it records of one, its table."""

import json

import pytest

from bench import catalog, journey, track
from downstream import synthetic
from downstream import task as protocols
from results import record


def test_every_method_that_begins_from_images_is_in_the_track_and_some_are_there_for_longer():
    names = track.names()
    assert {"supervised-3", "moco-3", "simclr-3", "pixpro-3", "swav-3", "instdisc-3"} <= set(names)
    assert {name for name in names if name.endswith("-12")} == {f"{name}-12" for name in track.LONGER}
    assert set(catalog.names("method")) - {name.rpartition("-")[0] for name in names} == set(track.STAGES)
    for stage in track.STAGES:
        assert "checkpoint" in catalog.load("method", stage).recipe()
    assert len(track.LONGER) >= 4


def test_a_task_is_for_every_method_of_the_first_budget_and_the_second_is_for_what_shows_growth(tmp_path, monkeypatch):
    swept = {}
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(track, "pretrain", lambda *told: None)
    monkeypatch.setattr(
        track,
        "transfer",
        lambda task, weights, least, *told: swept.setdefault(task, []).append((weights, least)) or True,
    )
    track.main(tmp_path / "data", runs=tmp_path, records=tmp_path)
    methods = {name.rpartition("-")[0] for name in track.names()}
    made = {
        task: {path.split("/")[-2] for weights, _ in sweeps[1:] for path in weights} for task, sweeps in swept.items()
    }
    assert {task: [least for _, least in sweeps] for task, sweeps in swept.items()} == {
        "imagenet_knn": [3, 1],
        "imagenet_linear": [3, 3],
        "imagenet_semi_10": [3, 3],
        "voc_semantic": [3, 3],
        "cityscapes_semantic": [3, 3],
        "voc_c4": [5, 5],
        "coco_fpn_1x": [3, 1],
    }
    assert all(sweeps[0][0] == ["random"] for sweeps in swept.values())
    assert made["imagenet_knn"] == made["imagenet_linear"] == set(track.names())
    assert made["voc_c4"] == {f"{method}-3" for method in methods} | {"supervised-12"}
    assert made["coco_fpn_1x"] == {"supervised-3", "supervised-12"}


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


def test_the_record_of_other_weights_of_the_same_name_stands(tmp_path, monkeypatch):
    ran = {"sha256": "a" * 64}
    monkeypatch.setattr(track, "run", lambda *args: ran)
    for letter in "aba":
        ran["sha256"] = letter * 64
        track.pretrained("simsiam-3", tmp_path, tmp_path, tmp_path)
    kept = {file.name: json.loads(file.read_text())["sha256"][0] for file in (tmp_path / "pretraining").iterdir()}
    assert kept == {"simsiam-3.json": "a", "simsiam-3-bbbbbbbb.json": "b"}


def test_the_track_pretrains_and_sweeps_and_does_nothing_twice(tmp_path, capsys, request):
    data, runs, records = tmp_path / "data", tmp_path / "runs", tmp_path / "records"
    synthetic.synthesize(data, seed=0, voc=0, coco=0, cityscapes=0, imagenet=12, side=96)
    track.main(data, ["simsiam-3"], {"imagenet_knn": 1}, runs, records)
    found = json.loads((records / "pretraining" / "simsiam-3.json").read_text())
    measured = journey.measured(records)
    trials = {trial["model"]["name"]: trial for trial in measured}
    assert sorted((t["model"]["name"], t["seed"]) for t in measured) == [
        ("random", 0),
        ("random", 1),
        ("random", 2),
        ("simsiam", 0),
    ]
    assert len({t["metrics"]["top1_k200"] for t in measured if t["model"]["name"] == "random"}) > 1
    assert trials["simsiam"]["model"]["sha256"] == found["sha256"]
    assert trials["random"]["protocol"]["name"] == "imagenet_knn@mini"
    before = {file: file.stat().st_mtime_ns for file in records.rglob("*.json")}
    said = capsys.readouterr()
    assert "1/1  simsiam-3: kNN" in said.err
    assert f"simsiam {found['sha256'][:8]} | 3 |" in said.out
    request.getfixturevalue("here")
    track.main(data, ["simsiam-3"], {"imagenet_knn": 1}, runs, records)
    written = json.loads((records / "pretraining" / "simsiam-3.json").read_text())
    assert (written["sha256"], len(written["starts"])) == (found["sha256"], 1)
    trial = {file for file in before if "imagenet_knn" in str(file)}
    assert len(trial) == 4 and all(file.stat().st_mtime_ns == before[file] for file in trial)


def test_a_pretraining_that_fails_is_named_after_the_others_have_ended(tmp_path, capsys, here):
    data, runs, records = tmp_path / "data", tmp_path / "runs", tmp_path / "records"
    synthetic.synthesize(data, seed=0, voc=0, coco=0, cityscapes=0, imagenet=4)
    runs.mkdir()
    (runs / "moco-3").touch()  # where its folder should be
    with pytest.raises(RuntimeError, match=r"some that failed: moco-3; see .*log\.txt"):
        track.main(data, ["moco-3", "simsiam-3"], {}, runs, records)
    assert "moco-3 failed: " in capsys.readouterr().err
    assert [file.stem for file in (records / "pretraining").iterdir()] == ["simsiam-3"]


PRETRAININGS = {
    "a": "supervised-3", "b": "moco-3", "c": "simclr-3", "8": "simclr-3-88888888", "f": "swav-12", "9": "supervised-10"
}  # fmt: skip


@pytest.fixture
def records(tmp_path):
    """Of six pretrainings, and trials of them, of random weights and of what is not the track's."""
    (tmp_path / "pretraining").mkdir()
    for sha, name in PRETRAININGS.items():
        (tmp_path / "pretraining" / f"{name}.json").write_text(json.dumps({"sha256": sha * 64}))
    like = next((track.RECORDS / "voc_c4").rglob("0.json"))

    def trial(task, sha, method, value, seed=0, **more):
        protocol = journey.resolve(task, "mini", {})
        about = {"name": protocol.name, "hash": protocols.digest(protocol), "content": protocols.protocol(protocol)}
        model = {
            "name": method,
            "sha256": sha and sha * 64,
            "arch": "resnet18",
            "method": method,
            "epochs": sha and int(PRETRAININGS.get(sha, "-3").split("-")[1]),
        }
        one = json.loads(like.read_text())
        one |= {"task": task, "protocol": about, "seed": seed, "metrics": dict.fromkeys(protocol.metrics, value)}
        one |= {"nonstandard": [], "marks": ["mini", "reduced"], "model": one["model"] | model}
        one["data"] = one["data"] | {"digest": more.get("data", "d") * 64}
        one["protocol"]["hash"] = more.get("hash", one["protocol"]["hash"])
        one["model"]["arch"] = more.get("arch", "resnet18")
        record.write(one, tmp_path)

    for seed in range(3):
        trial("imagenet_linear", None, "random", 5.0 + seed, seed)
        trial("imagenet_linear", "a", "supervised", 20.0 + seed, seed)
        trial("imagenet_linear", "b", "moco", 10.0 + seed, seed)
        trial("voc_c4", None, "random", 2.0 + seed, seed)
        trial("voc_c4", "a", "supervised", 4.0 + seed, seed)
    trial("imagenet_knn", "c", "simclr", 11.25)
    trial("imagenet_knn", "8", "simclr", 11.5)
    trial("imagenet_knn", "f", "swav", 12.25)
    trial("voc_c4", "9", "supervised", 89.0)
    trial("voc_c4", "e", "stranger", 90.0)
    trial("voc_c4", "b", "moco", 91.0, hash="f" * 64)
    trial("voc_c4", "b", "moco", 92.0, data="e")
    trial("voc_c4", None, "random", 93.0, arch="resnet50")
    return tmp_path


def test_each_budgets_table_has_mean_deviation_n_and_difference_of_the_tracks_own_trials_alone(records):
    three, twelve = (
        {
            line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
            for line in text.splitlines()
            if "|" in line
        }
        for text in track.transfers(records).split("#### 12 epochs")
    )
    assert three["pretraining"] == ["kNN", "linear", "VOC AP", "VOC AP50", "n"]
    assert three["random"][1:3] == ["6.00 ± 1.00", "3.00 ± 1.00"]
    assert three["supervised (3 epochs) aaaaaaaa"][1:3] == ["**21.00 ± 1.00**", "**5.00 ± 1.00**"]
    assert three["moco (3 epochs) bbbbbbbb"][1] == "11.00 ± 1.00 (−10.00)"
    assert three["simclr (3 epochs) cccccccc"][0] == "11.25"
    assert {row for row in set(three) - set(twelve) if "(" in row} == {
        f"{PRETRAININGS[sha].split('-')[0]} (3 epochs) {sha * 8}" for sha in "abc8"
    }
    assert twelve["swav (12 epochs) ffffffff"][0] == "12.25" and twelve["random"] == three["random"]
    assert not any(f"{stranger}.00" in track.transfers(records) for stranger in (89, 90, 91, 92, 93))


def test_the_plot_sets_linear_accuracy_against_voc_where_both_were_measured(records):
    track.plot(records)
    drawn = (records / "mini-track.svg").read_text()
    for text in ("VOC AP (%)", ">supervised (3 epochs) aaaaaaaa<", ">random<"):
        assert text in drawn
    assert "moco" not in drawn
    for file in (records / "voc_c4").rglob("*.json"):
        file.unlink()
    (records / "mini-track.svg").unlink()
    track.plot(records)
    assert not (records / "mini-track.svg").exists()


def test_a_trial_without_a_record_is_told_at_the_end(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(track, "pretrain", lambda *told: None)
    monkeypatch.setattr(track, "transfer", lambda task, *told: task == "voc_c4")
    with pytest.raises(RuntimeError, match="some missing of imagenet_knn"):
        track.main(tmp_path / "data", ["simsiam-3"], {"imagenet_knn": 1, "voc_c4": 5}, tmp_path, tmp_path)
