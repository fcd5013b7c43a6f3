"""Loss curves in float32 and in bfloat16: what is trained, what is kept of it, what is said."""

import json

import numpy as np
import pytest
from PIL import Image

from bench.speed import precision


@pytest.fixture
def images(tmp_path):
    (tmp_path / "images").mkdir()
    draw = np.random.default_rng(0)
    for number in range(40):
        pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(tmp_path / "images" / f"{number}.jpg")
    return tmp_path / "images"


def test_a_curve_has_a_mean_for_every_tenth_of_the_epoch_and_goes_on_where_it_was(
    images, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(precision, "BATCH", 4)
    curve = precision.curve("bf16", 0, images, tmp_path / "runs", "resnet18")
    assert (curve["precision"], curve["steps"], len(curve["loss"])) == ("bf16", 10, 10)
    assert curve["data"]["images"] == 40 and len(curve["sha256"]) == 64 and curve["machine"]["cores"] >= 1
    assert str(tmp_path) not in json.dumps(curve)
    assert precision.curve("bf16", 0, images, tmp_path / "runs", "resnet18") == curve
    assert "warning: batch norm takes the 4 images as one group" in capsys.readouterr().err


def test_the_sentence_compares_with_float32_and_with_another_seed(tmp_path):
    curves = [{"steps": 200, "loss": loss} for loss in ([9.0, 8.0], [9.01, 7.97], [9.4, 7.77])]
    (tmp_path / "precision.json").write_text(json.dumps({"curves": curves}))
    said = precision.compared(tmp_path / "precision.json")
    assert "Over 200 steps" in said and "means of 20 steps, 9.00 at first, 8.00 at last" in said
    assert "float32 by 0.020 on average and 0.030 at most; between two seeds by 0.295 and 0.390" in said


def test_trials_are_compared_seed_by_seed_within_one_model():
    def trial(sha256, seed, ap, *nonstandard):
        return {
            "protocol": {"name": "voc_c4@mini"},
            "model": {"name": "supervised", "sha256": sha256},
            "nonstandard": list(nonstandard),
            "seed": seed,
            "metrics": {"AP": ap},
        }

    trials = [trial("b" * 64, seed, 9.0) for seed in range(3)]
    trials += [trial("a" * 64, seed, ap) for seed, ap in enumerate((4.0, 4.2, 4.4))]
    trials += [trial("a" * 64, seed, ap, "precision") for seed, ap in enumerate((3.9, 4.2, 4.2))]
    trials += [trial("a" * 64, 0, 0.0, "lr", "precision")]
    assert precision.transferred(trials) == (
        "`voc_c4@mini` from supervised aaaaaaaa gives an AP of 4.20 ± 0.20 in bfloat16 (3 trials) and 4.10 ± 0.17 in float32 (3); "
        "the difference is +0.10, its 95 % interval -0.15 to +0.35."
    )
