"""The compared evaluators find the same numbers in the benchmark's scenes; nothing here is timed."""

import importlib

import numpy as np
import pytest

from bench import speed
from bench.speed import evaluation

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """Each side runs once."""
    monkeypatch.setattr(speed, "pairs", lambda ours, theirs: (theirs(), ours()) and (1.0, 1.0, None))


@pytest.mark.parametrize(
    ("part", "count", "rows"), [("coco", 12, 2), ("voc", 40, 1), ("miou", 2, 1)], ids=["coco", "voc", "miou"]
)
def test_both_sides_find_the_same(part, count, rows, tmp_path):
    found = getattr(evaluation, part)(tmp_path, count)
    assert [row.part for row in found] == [part] * rows


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")
def test_both_sides_find_the_same_of_lvis(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "float", float, raising=False)
    pytest.importorskip("lvis")
    assert len(evaluation.lvis(tmp_path, 5)) == 2


def test_other_numbers_are_an_error(tmp_path, monkeypatch):
    from downstream.evaluation import coco

    monkeypatch.setattr(coco, "evaluate", lambda *_: dict.fromkeys(("APbb", "APbb50", "APbb75"), 1.0))
    with pytest.raises(ValueError, match="expected the metrics of pycocotools"):
        evaluation.coco(tmp_path, 2)


def test_what_is_not_installed_is_left_out_with_a_sentence(monkeypatch):
    def imported(name):
        if name == "lvis":
            raise ModuleNotFoundError(name=name)
        return evaluation

    monkeypatch.setattr(importlib, "import_module", imported)
    said = []
    assert speed.run("lvis", said.append) == []
    assert said[-1] == "bench speed: lvis is left out: expected lvis-api, found no lvis: pip install --no-deps lvis"
