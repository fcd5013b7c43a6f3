import hashlib
import json
import math
import multiprocessing
import os
import shutil
import sqlite3

import jsonschema
import pytest

from results import record

REQUIRED = [
    *("schema", "task", "scale", "protocol", "metrics", "model", "loaded", "data", "seed", "effective", "marks"),
    *("nonstandard", "versions", "machine", "seconds", "finished"),
]


@pytest.fixture
def one(trial):
    return trial("voc_c4", "moco_v2", {"AP": 1.25, "AP50": 3.5, "AP75": 0.0})


def test_a_written_record_is_read_back_unchanged(one, tmp_path):
    file = record.write(one, tmp_path)
    assert record.load(tmp_path) == [one]
    assert json.loads(file.read_text()) == one


def test_the_path_says_task_protocol_data_model_and_seed(one, tmp_path):
    file = record.write(one, tmp_path)
    protocol, data, weights = one["protocol"]["hash"][:12], one["data"]["digest"][:8], one["model"]["sha256"][:8]
    assert file == tmp_path / "voc_c4" / f"{protocol}-{data}" / f"moco_v2-{weights}" / "0.json"


def test_random_weights_stand_under_their_architecture(trial, tmp_path):
    file = record.write(trial("voc_c4", "random", {"AP": 1.0}, seed=3), tmp_path)
    assert file.parent.name == "random-resnet18"
    assert file.name == "3.json"


def test_a_name_cannot_leave_the_root(one, tmp_path):
    one["model"]["name"] = "../../../etc/\n|x"
    file = record.write(one, tmp_path / "root")
    assert file.resolve().is_relative_to(tmp_path / "root")
    assert len(file.relative_to(tmp_path / "root").parts) == 4


def test_two_names_never_share_a_file(one, tmp_path):
    places = []
    for name in ("my model", "my-model", "my_model", "\u6a21\u578b", "\u540d\u524d", "unnamed", "a" * 90, "a" * 91):
        one["model"]["name"] = name
        places.append(record.place(one))
    assert len({*places}) == len(places) and "/my-model-" in places[1]


def test_nothing_but_the_record_is_left_after_writing(one, tmp_path):
    file = record.write(one, tmp_path)
    record.write(one, tmp_path)
    assert [p.name for p in file.parent.iterdir()] == ["0.json"]


def test_a_failed_write_keeps_the_old_record_and_leaves_nothing_half_written(one, tmp_path, monkeypatch):
    file = record.write(one, tmp_path)
    before = file.read_text()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*0\.json"):
        record.write({**one, "metrics": {"AP": 99.0}}, tmp_path)
    assert file.read_text() == before
    assert [p.name for p in file.parent.iterdir()] == ["0.json"]


@pytest.mark.parametrize("field", REQUIRED)
def test_a_record_without_a_required_field_is_not_written(one, field, tmp_path):
    del one[field]
    with pytest.raises(ValueError, match=f"'{field}'"):
        record.write(one, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 100.5, True, "12.0", None])
def test_a_metric_is_a_finite_percentage(one, value, tmp_path):
    one["metrics"]["AP"] = value
    with pytest.raises(ValueError, match=r"metrics\.AP"):
        record.write(one, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("task",), "voc c4"),
        (("task",), "../voc"),
        (("scale",), "tiny"),
        (("schema",), 2),
        (("seed",), -1),
        (("seed",), 2**63),
        (("seed",), 1.5),
        (("seed",), True),
        (("protocol", "hash"), "abc"),
        (("model", "sha256"), "A" * 64),
        (("model", "name"), ""),
        (("data", "train"), -5),
        (("data", "splits"), ["voc_2007_test"]),
        (("data", "splits"), None),
        (("seconds", "train"), -1.0),
        (("seconds", "test"), "1.0"),
        (("finished",), "yesterday"),
        (("finished",), "2026-11-31"),
        (("finished",), "2026-13-01T00:00:00Z"),
        (("finished",), "2026-11-24T08:00:00+02:00"),
        (("data", "splits"), {"voc_2007_test": -1}),
        (("data", "splits"), {"voc_2007_test": "4952"}),
        (("marks",), "mini"),
        (("marks",), [1]),
        (("metrics",), {}),
        (("metrics",), [1.0]),
    ],
)
def test_a_field_of_the_wrong_kind_is_refused_by_name(one, place, value):
    *above, last = place
    inner = one
    for key in above:
        inner = inner[key]
    inner[last] = value
    with pytest.raises(ValueError, match=r"record\." + r"\.".join(place)):
        record.check(one)


def test_nan_outside_the_metrics_is_refused_too(one, tmp_path):
    one["effective"]["lr"] = math.nan
    with pytest.raises(ValueError, match="JSON compliant"):
        record.write(one, tmp_path)


def test_a_broken_file_is_an_error_that_names_it(one, tmp_path):
    file = record.write(one, tmp_path)
    whole = file.read_text()
    infinite, half = whole.replace("0.01", "1e999"), whole.replace("imagenet", "\\ud800")
    for text in (whole[:100], "", "[]", "null", "\x00", whole.replace("1.25", "NaN"), infinite, half):
        file.write_text(text)
        with pytest.raises(ValueError, match=r"moco_v2-[0-9a-f]{8}/0\.json is no record"):
            record.load(tmp_path)
    file.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ValueError, match=r"0\.json is no record"):
        record.load(tmp_path)


def test_a_file_without_a_required_field_is_an_error_that_names_file_and_field(one, tmp_path):
    file = record.write(one, tmp_path)
    del one["protocol"]["hash"]
    file.write_text(json.dumps(one))
    with pytest.raises(ValueError, match=r"0\.json is no record: .*record\.protocol.*'hash'"):
        record.load(tmp_path)


def test_a_protocol_that_was_altered_is_found_by_its_hash(one, tmp_path):
    content = one["protocol"]["content"] = {"lr": 0.02, "steps": [1, 2], "é": None}
    one["protocol"]["hash"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    file = record.write(one, tmp_path)
    assert record.verified(file, tmp_path) == one
    file.write_text(file.read_text().replace("0.02", "0.03"))
    with pytest.raises(ValueError, match=r"expected record\.protocol\.hash in .*0\.json to be the sha256"):
        record.verified(file, tmp_path)


@pytest.mark.parametrize(
    ("key", "value"), [("scale", "paper"), ("task", "voc_semantic"), ("protocol", {"name": "voc_c4"})]
)
def test_a_record_that_says_another_name_than_its_protocols_content_is_found(one, tmp_path, key, value):
    content = {"name": "voc_c4@mini"}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    one["protocol"] = {"name": "voc_c4@mini", "hash": digest, "content": content}
    assert record.verified(record.write(one, tmp_path), tmp_path) == one
    changed = one | {key: one[key] | value if isinstance(value, dict) else value}
    with pytest.raises(ValueError, match=rf"expected record\.{key}.* as record\.protocol\.content says"):
        record.verified(record.write(changed, tmp_path), tmp_path)


def test_a_copied_record_does_not_count_as_another_trial(one, tmp_path):
    file = record.write(one, tmp_path)
    file.with_name("1.json").write_text(file.read_text())
    with pytest.raises(ValueError, match=r"1\.json to stand at .*0\.json"):
        record.load(tmp_path)


def test_other_files_of_a_trial_are_not_records(one, tmp_path):
    file = record.write(one, tmp_path)
    (file.parent / "0").mkdir()
    (file.parent / "0" / "metrics.json").write_text("{}")
    (file.parent / "loaded.json").write_text("{}")
    assert record.load(tmp_path) == [one]


def test_records_are_read_in_the_order_of_their_seeds(trial, tmp_path):
    for seed in (10, 2, 0, 1):
        record.write(trial("voc_c4", "moco_v2", {"AP": 1.0}, seed=seed), tmp_path)
    assert [r["seed"] for r in record.load(tmp_path)] == [0, 1, 2, 10]


def test_a_missing_root_is_an_error_with_the_way_out(tmp_path):
    with pytest.raises(FileNotFoundError, match="bench transfer"):
        record.load(tmp_path / "nowhere")


def test_an_empty_root_has_no_records(tmp_path):
    assert record.load(tmp_path) == []


def _write_many(root, base):
    for seed in range(25):
        record.write({**base, "seed": seed}, root)


def test_processes_that_write_the_same_records_at_the_same_time_do_not_meet(one, tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_write_many, args=(tmp_path, one)) for _ in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 16
    assert [r["seed"] for r in record.load(tmp_path)] == list(range(25))
    [folder] = tmp_path.glob("*/*/*")
    assert {file.name for file in folder.iterdir()} == {f"{seed}.json" for seed in range(25)}


def test_the_schema_is_valid_and_an_independent_validator_agrees(one):
    assert record.schema()["required"] == REQUIRED
    jsonschema.Draft202012Validator.check_schema(record.schema())
    other = jsonschema.Draft202012Validator(record.schema())
    assert other.is_valid(one)
    for field in one:
        for value in (None, -3, "x", [], {}, [1], {"a": 1}, True):
            changed = {**one, field: value}
            try:
                record.check(changed)
                ours = True
            except ValueError:
                ours = False
            assert ours == other.is_valid(changed), (field, value)


def test_a_record_of_a_newer_schema_is_refused_as_such(one):
    with pytest.raises(ValueError, match="newer version of this project"):
        record.check({**one, "schema": record.VERSION + 1, "unheard": {}})


def test_a_file_of_a_newer_schema_is_to_be_kept_and_this_version_updated(one, tmp_path):
    file = record.write(one, tmp_path)
    file.write_text(json.dumps({**one, "schema": record.VERSION + 1, "unheard": {}}))
    for read in (record.load, record.trials):
        with pytest.raises(ValueError, match=r"0\.json cannot be read: .*newer version .* wrote it, update this one$"):
            read(tmp_path)


# --- what tables read


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """An empty cache, and a root of records."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "root"


def test_trials_are_the_records_without_what_tables_do_not_need(trial, cached):
    for seed, name in ((10, "b"), (2, "b"), (0, "a"), (1, "random")):
        record.write(trial("voc_c4", name, {"AP": 1.0 + seed}, seed=seed), cached)
    slim = []
    for whole in record.load(cached):
        for key in record.WITHOUT:
            del whole[key]
        del whole["protocol"]["content"], whole["model"]["traits"]
        slim.append(whole)
    assert record.trials(cached) == record.trials(cached) == slim


def test_only_what_changed_is_read_again(one, cached, monkeypatch):
    files = [record.write({**one, "seed": seed}, cached) for seed in range(3)]
    other = record.write({**one, "task": "voc_semantic"}, cached)
    for folder in (files[0].parent, other.parent):
        os.utime(folder, (1, 1))  # as if nothing had happened for long
    record.trials(cached)
    seen, real = [], record.read
    monkeypatch.setattr(record, "read", lambda file, root: (seen.append(file), real(file, root))[1])
    assert [t["seed"] for t in record.trials(cached)] == [0, 1, 2, 0] and not seen
    record.write({**one, "seed": 1, "metrics": {"AP": 44.0}}, cached)
    files[2].unlink()
    record.write({**one, "seed": 7}, cached)
    found = record.trials(cached)
    assert [(t["seed"], t["metrics"]["AP"]) for t in found] == [(0, 1.25), (1, 44.0), (7, 1.25), (0, 1.25)]
    assert {file.parent for file in seen} == {files[0].parent}
    shutil.rmtree(other.parent)
    assert len(record.trials(cached)) == 3


def test_a_folder_that_has_just_changed_is_read_again(one, cached):
    record.write(one, cached)
    record.trials(cached)
    record.write({**one, "seed": 1}, cached)  # perhaps within the same tick of the file system's clock
    assert len(record.trials(cached)) == 2


def test_a_damaged_record_is_an_error_each_time_and_a_damaged_cache_is_none(one, cached, tmp_path):
    file = record.write(one, cached)
    record.trials(cached)
    whole = file.read_text()
    file.write_text(whole[:100])
    for _ in range(2):
        with pytest.raises(ValueError, match=r"0\.json is no record"):
            record.trials(cached)
    file.write_text(whole)
    (kept,) = (tmp_path / "cache/bench/records").iterdir()
    kept.write_bytes(b"no data base" * 1000)
    assert len(record.trials(cached)) == 1
    assert record.trials(cached) and not list(cached.rglob("*.sqlite"))


def test_without_a_cache_that_can_be_written_trials_are_read_all_the_same(one, cached, tmp_path):
    record.write(one, cached)
    (tmp_path / "cache").write_text("a file where the folder should be")
    assert len(record.trials(cached)) == 1


def test_a_cache_that_can_only_be_read_or_not_even_that_keeps_no_trial_from_being_read(
    one, cached, tmp_path, monkeypatch
):
    record.write(one, cached)
    record.trials(cached)
    (kept,) = (tmp_path / "cache/bench/records").iterdir()
    record.write({**one, "seed": 1}, cached)
    for place in (f"file:{kept}?mode=ro", ":memory:"):  # in memory there is no table
        monkeypatch.setattr(record, "_kept", lambda root, place=place: sqlite3.connect(place, uri=True))
        assert [t["seed"] for t in record.trials(cached)] == [0, 1]


def test_records_below_a_folder_whose_name_is_no_utf8_are_read(one, cached):
    root = cached / os.fsdecode(b"caf\xe9")
    record.write(one, root)
    assert len(record.trials(root)) == len(record.trials(root)) == len(record.load(root)) == 1
