"""Results are sacred: every packaged record is whole, stands where it says, and its protocol has not changed since."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench import catalog
from downstream import task as protocols
from pretrain import recipes
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


class Images(list):
    """As many as the folder of a pretraining has, of 100 classes."""

    root, classes, labels = Path(), [str(number) for number in range(100)], np.arange(100)


@pytest.mark.parametrize("kind", ["pretraining", "rates"])
def test_a_pretraining_with_results_would_have_the_same_recipe_today(kind):
    files = sorted((MEASURED / kind).glob("*.json"))
    assert files
    for file in files:
        found = json.loads(file.read_text())
        method, folder = catalog.load("method", found["method"]), Images(range(found["data"]["images"]))
        asked = found["variant"], found["epochs"], None, found["overrides"]
        today = recipes.resolved(method, folder, found["scale"], *asked)
        assert today.pop("variant") == found["variant"]
        assert json.loads(json.dumps(today)) == found["recipe"], file.stem
