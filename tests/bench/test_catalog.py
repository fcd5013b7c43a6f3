import os
import subprocess
import sys

import pytest

from bench import catalog


def test_a_name_is_a_file_name():
    assert "moco" in catalog.names("method")
    assert catalog.load("task", "voc_c4").TASK.name == "voc_c4"


def test_the_1x_schedules_answer_to_their_short_names():
    assert catalog.load("task", "coco_c4").TASK.name == "coco_c4_1x"
    assert catalog.load("task", "coco_fpn").TASK.name == "coco_fpn_1x"


@pytest.mark.parametrize(
    ("kind", "wrong", "right"),
    [("task", "voc_c5", "voc_c4"), ("method", "mocco", "moco"), ("table", "pixpr", "pixpro")],
)
def test_an_unknown_name_is_answered_with_the_nearest(kind, wrong, right):
    with pytest.raises(ValueError, match=f"Did you mean '{right}'"):
        catalog.load(kind, wrong)


def test_a_file_that_is_no_python_is_named(tmp_path, monkeypatch):
    file = tmp_path / "pretrain" / "methods" / "mine.py"
    file.parent.mkdir(parents=True)
    file.write_text('"""Mine."""\ndef recipe(:\n')
    monkeypatch.setattr(catalog, "ROOT", tmp_path)
    with pytest.raises(SyntaxError, match=r"mine\.py, line 2"):
        catalog.summary("method", "mine")


def test_a_docstring_is_read_in_any_locale():
    plain = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    call = [sys.executable, "-c", "from bench import catalog; print(len(catalog.summary('task', 'voc_semantic')))"]
    assert (
        int(subprocess.run(call, env=os.environ | plain, cwd=catalog.ROOT, capture_output=True, check=True).stdout) > 20
    )


@pytest.mark.parametrize("kind", catalog.PACKAGES)
def test_every_name_has_a_one_line_summary(kind):
    for name in catalog.names(kind):
        assert len(catalog.summary(kind, name)) > 20, name
