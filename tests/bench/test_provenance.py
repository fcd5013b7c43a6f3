"""What a record says of the code that made it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import catalog, doctor, provenance


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """git without the user's settings, which may sign every commit or hook it."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)


def test_a_commit_is_marked_where_code_differs_and_not_where_results_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "ROOT", tmp_path)
    assert provenance.commit() == "unknown"
    (tmp_path / "results" / "measured").mkdir(parents=True)
    code, result = tmp_path / "code.py", tmp_path / "results" / "measured" / "speed.json"
    for file in (code, result):
        file.write_text("1")
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first"],
    ):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    clean = provenance.commit()
    assert len(clean) == 40
    result.write_text("2")
    assert provenance.commit() == clean
    code.write_text("2")
    assert provenance.commit() == clean + "+changes"


def test_code_installed_in_another_projects_checkout_does_not_take_its_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for words in (["init", "-q"], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "1", "--allow-empty"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))
    (installed := tmp_path / ".venv" / "site-packages").mkdir(parents=True)
    monkeypatch.setattr(catalog, "ROOT", installed)
    assert provenance.commit() == "unknown"
    monkeypatch.setattr(catalog, "ROOT", tmp_path.parent)
    assert provenance.commit() == "unknown"


def test_gpus_that_torch_cannot_use_are_said_by_doctor_and_are_none_of_the_machines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)  # as the driver says, whether it is too old or not
    assert not torch.cuda.is_available()
    assert provenance.machine()["gpus"] == []
    fine, line = doctor.accelerator()
    assert not fine and line.startswith(f"GPU: 8 that torch {torch.__version__} cannot use (")


def test_doctor_goes_on_where_torch_lacks_a_library(tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise OSError('libcudart.so.13: cannot open shared object file')")
    path = os.pathsep.join([str(tmp_path), str(catalog.ROOT)])
    words = [sys.executable, "-m", "bench", "doctor"]
    done = subprocess.run(words, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}, cwd=tmp_path)
    assert done.returncode == 1 and done.stderr == ""
    assert "MISS  torch: does not import (OSError: libcudart" in done.stdout
    assert "GPU: unknown without torch" in done.stdout and "GiB free here" in done.stdout
