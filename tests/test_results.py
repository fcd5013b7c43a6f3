"""Results are sacred: every packaged record is whole, stands where it says, and its protocol has not changed since."""

from pathlib import Path

import pytest

from bench import catalog
from downstream import task as protocols
from results import record as stored

MEASURED = Path(__file__).resolve().parent.parent / "results" / "measured"
RECORDS = stored.load(MEASURED)


def test_there_are_measured_results():
    assert RECORDS


@pytest.mark.parametrize("name", sorted({r["task"] for r in RECORDS}))
def test_a_protocol_with_results_is_never_changed(name):
    paper = catalog.load("task", name).TASK
    mini = protocols.mini(paper)
    today = {task.name: task for task in (paper, mini, protocols.second(mini))}
    for record in (r["protocol"] for r in RECORDS if r["task"] == name and not r["nonstandard"]):
        task = today[record["name"]]
        assert record["hash"] == protocols.digest(task), "give the changed protocol a new name"
        assert record["content"] == protocols.protocol(task)


def test_every_number_has_its_provenance():
    for record in RECORDS:
        assert len(record["protocol"]["hash"]) == 64
        assert (record["model"]["sha256"] is None) == (record["model"]["name"] == "random")
        assert record["versions"]["torch"] and record["machine"]["cpu"] and record["seconds"]["train"] > 0
        assert record["commit"] not in ("", "unknown") and not record["commit"].endswith("+changes")
