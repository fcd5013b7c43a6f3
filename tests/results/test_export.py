"""The exported table holds every record's fields, in each of the three formats."""

import json

import pandas
import pytest

from results import export


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_an_exported_table_has_a_row_a_trial_and_a_column_a_field(trial, tmp_path, suffix):
    records = [
        trial("voc_c4", "moco_v2", {"AP": 1.25, "AP50": 2.5}),
        trial("voc_semantic", "random", {"mIoU": 30.0}, seed=4),
    ]
    records[1]["model"]["epochs"] = "200 or so"  # a checkpoint may say anything
    assert export.write(records, tmp_path / f"a/trials.{suffix}") == 2
    file = tmp_path / f"a/trials.{suffix}"
    table = {"csv": pandas.read_csv, "json": pandas.read_json, "parquet": pandas.read_parquet}[suffix](file)
    assert list(table["metrics.AP"].fillna(-1)) == [1.25, -1] and list(table["seed"]) == [0, 4]
    assert table["model.sha256"][0] == records[0]["model"]["sha256"] and table["model.epochs"][1] == "200 or so"
    assert json.loads(table["protocol.content"][0]) == records[0]["protocol"]["content"]
    assert [p.name for p in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_an_integer_beyond_64_bits_is_exported_too(trial, tmp_path, suffix):
    records = [trial("voc_c4", "moco_v2", {"AP": 1.25}, seed) for seed in (0, 1)]
    records[0]["model"]["epochs"] = 2**70
    assert export.write(records, tmp_path / f"trials.{suffix}") == 2
    assert str(2**70).encode() in (tmp_path / f"trials.{suffix}").read_bytes()


def test_numbers_are_exported_as_they_are(trial, tmp_path):
    one = trial("voc_c4", "moco_v2", {"AP": 12.345678901234567})
    one["proof"]["detectron2"], one["effective"]["lr"] = 1.2345678e-12, 1e-300
    export.write([one, trial("voc_semantic", "random", {"mIoU": 30.0})], tmp_path / "trials.json")
    first, second = json.loads((tmp_path / "trials.json").read_text())
    assert (first["metrics.AP"], first["proof.detectron2"]) == (12.345678901234567, 1.2345678e-12)
    assert (first["effective.lr"], first["seed"], second["metrics.AP"]) == (1e-300, 0, None) and list(first) == list(
        second
    )


def test_another_ending_is_refused(trial, tmp_path):
    with pytest.raises(ValueError, match=r"expected a file named \.csv, \.json, \.parquet, found 'x\.xls'"):
        export.write([], tmp_path / "x.xls")
