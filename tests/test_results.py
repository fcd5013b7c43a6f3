"""Results are sacred: every packaged record is whole, stands where it says, and its protocol has not changed since."""

from pathlib import Path

import pytest

from bench import journey
from downstream import task as protocols
from results import record as stored

MEASURED = Path(__file__).resolve().parent.parent / "results" / "measured"
RECORDS = stored.load(MEASURED)


def test_there_are_measured_results():
    assert RECORDS


@pytest.mark.parametrize("name", sorted({(r["task"], r["scale"]) for r in RECORDS if not r["nonstandard"]}))
def test_a_protocol_with_results_is_never_changed(name):
    task, scale = name
    hashes = {r["protocol"]["hash"] for r in RECORDS if (r["task"], r["scale"]) == name and not r["nonstandard"]}
    resolved = journey.resolve(task, scale, {})
    assert hashes == {protocols.digest(resolved)}, "give the changed protocol a new name"
    for record in RECORDS:
        if record["protocol"]["hash"] in hashes:
            assert record["protocol"]["content"] == protocols.protocol(resolved)


def test_every_number_has_its_provenance():
    for record in RECORDS:
        assert len(record["protocol"]["hash"]) == 64
        assert (record["model"]["sha256"] is None) == (record["model"]["name"] == "random")
        assert record["versions"]["torch"] and record["machine"]["cpu"] and record["seconds"]["train"] > 0
        assert record["commit"] not in ("", "unknown") and not record["commit"].endswith("+changes")
