"""The search of learning rates: what it asks for, what it judges by, and what it takes."""

import json

import pytest
import torch

from bench import rates, track
from downstream import synthetic


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    synthetic.synthesize(root, seed=0, voc=0, coco=0, cityscapes=0, imagenet=5, side=96)
    return root


def fifth(train):
    """How many images are held out: every fifth of a class."""
    return sum(len(list(folder.iterdir())) // 5 for folder in train.iterdir())


def test_every_method_of_the_track_is_searched_at_the_same_factors_of_its_rule(data):
    assert {f"{method}-3" for method in track.methods()} == {name for name in track.names() if name.endswith("-3")}
    train = data / "imagenet" / "train"
    one, three = (rates.scaled("barlowtwins", train, factor) for factor in (1.0, 3.0))
    assert set(one) == {"base_lr", "bias_lr"}
    assert [float(three[key]) / float(one[key]) for key in one] == pytest.approx([3, 3])
    assert set(rates.scaled("simsiam", train, 3.0)) == {"base_lr"}


def test_a_search_pretrains_judges_on_training_images_and_does_nothing_twice(data, tmp_path, capsys, monkeypatch, here):
    monkeypatch.setattr(rates, "FACTORS", (1.0, 3.0))
    runs, records = tmp_path / "runs", tmp_path / "records"
    rates.main(data, ["supervised"], runs, records)
    found = rates.measured(records)["supervised"]
    assert set(found) == set(rates.FACTORS)
    lr = {factor: one["recipe"]["lr"] for factor, one in found.items()}
    assert lr[3.0] / lr[1.0] == pytest.approx(3)
    assert len({one["sha256"] for one in found.values()}) == 2
    assert found[3.0]["overrides"] == {"base_lr": repr(found[3.0]["recipe"]["base_lr"])}
    assert found[1.0]["sha256"] == json.loads((records / "pretraining" / "supervised-3.json").read_text())["sha256"]
    assert {one["held_out"]["images"] for one in found.values()} == {fifth(data / "imagenet" / "train")}
    assert str(tmp_path) not in json.dumps(found)
    assert "| supervised |" in capsys.readouterr().out
    before = {file: file.stat().st_mtime_ns for file in runs.rglob("backbone.pth")}
    rates.main(data, ["supervised"], runs, records)
    assert len(before) == 2 and all(file.stat().st_mtime_ns == at for file, at in before.items())
    with pytest.raises(ValueError, match=r"method.*simclr_"):
        rates.main(data, ["simclr_"], runs, records)


def test_the_judge_is_the_monitors_nearest_neighbours_of_the_saved_weights(data, tmp_path):
    out = tmp_path / "simsiam"
    train = data / "imagenet" / "train"
    found = track.run("simsiam", 3, out, train, train, {"precision": "fp32"})
    knn, images = rates.held_out(out / "backbone.pth", found, train)
    assert knn == found["knn"]["last"] and images == fifth(train)
    weights = torch.load(out / "backbone.pth", weights_only=True)
    torch.save({key: value * 0 for key, value in weights.items()}, out / "backbone.pth")
    assert rates.held_out(out / "backbone.pth", found, train)[0] != knn


def test_another_rate_is_taken_only_where_it_is_better_by_more_than_two_standard_errors(tmp_path):
    (tmp_path / "rates").mkdir()

    def write(method, factor, knn):
        found = {"held_out": {"knn": knn, "images": 2500}, "recipe": {"lr": 0.1 * factor}}
        (tmp_path / "rates" / f"{method}-x{factor:g}.json").write_text(json.dumps(found))

    # the standard error of a difference near 6 percent of 2,500: sqrt(2 * 6 * 94 / 2500) = 0.67
    for method, third, rule, triple in (("moco", 5, 6, 7.2), ("byol", 7.6, 6, 5), ("pic", 6, 6, 9)):
        for factor, knn in zip(rates.FACTORS, (third, rule, triple), strict=True):
            write(method, factor, knn)
    write("swav", 3.0, 50)  # nothing to compare with
    write("pirl", 1.0, 6)  # not ended
    write("pirl", 3.0, 9)
    found = rates.measured(tmp_path)
    assert {method: rates.taken(runs) for method, runs in found.items()} == {
        "moco": 1.0,
        "byol": 0.3,
        "pic": 3.0,
        "pirl": 3.0,
    }
    assert rates.table(tmp_path).splitlines()[2:] == [
        "| byol | 0.1 | 7.60 | 6.00 | 5.00 | 0.3 x |",
        "| moco | 0.1 | 5.00 | 6.00 | 7.20 | 1 x |",
        "| pic | 0.1 | 6.00 | 6.00 | 9.00 | 3 x |",
        "| pirl | 0.1 | – | 6.00 | 9.00 | – |",
    ]
