"""A transfer, its table and an inspection where locale, time zone, umask, paths and the package's folder are unusual."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

from downstream import synthetic

ROOT = Path(__file__).resolve().parents[2]
CHANGES = ["epochs=1", "steps=[1]", "batch=40", "view=32", "resize=36"]
ODD = "Daten für ImageNet, größer & «neu»"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a checkpoint in it and a link to data, all with names of spaces and letters beyond ASCII."""
    folder = tmp_path_factory.mktemp("odd") / "İstanbul ılık çalışma"
    folder.mkdir()
    synthetic.synthesize(folder / ODD, seed=0, voc=0, coco=0, cityscapes=0, imagenet=4)
    (folder / "a link").symlink_to(folder / ODD, target_is_directory=True)
    torch.manual_seed(0)
    torch.save(torchvision.models.resnet18().state_dict(), folder / "modèle ß.pth")
    return folder


@pytest.fixture(scope="module")
def read_only(tmp_path_factory):
    """The packages on a file system that nobody can write to."""
    folder = tmp_path_factory.mktemp("package")
    for name in ("bench", "pretrain", "downstream", "results"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "measured"))
    mount = ["mount", "--bind", "-o", "ro", folder, folder]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no folder may be made read-only here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def bench(package, place, umask, environment, *words):
    """What the command prints on standard output; it succeeds, and says nothing that looks like an accident."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bench", *words],
        cwd=place,
        env=os.environ
        | {"PYTHONPATH": str(package), "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(place)}
        | environment,
        umask=umask,
        capture_output=True,
        text=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


WAYS = {
    "private": (0o077, {"LC_ALL": "C", "TZ": "Pacific/Kiritimati"}),
    "shared": (0o022, {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "TZ": "America/St_Johns"}),
}


def test_records_tables_and_reports_are_the_same_in_every_environment(place, read_only):
    with pytest.raises(OSError, match="Read-only"):
        (read_only / "bench" / "new").touch()
    found = {}
    for way, (umask, environment) in WAYS.items():
        out = f"Läufe {way}"
        transfer = ["transfer", "--task", "imagenet_linear", "--scale", "mini", "--data", "a link", "--out", out]
        bench(read_only, place, umask, environment, *transfer, "--seed", "0", "--checkpoint", "modèle ß.pth", *CHANGES)
        [file] = (place / out).glob("*/*/*/0.json")
        record = json.loads(file.read_text(encoding="utf-8"))
        assert file.stat().st_mode & 0o777 == 0o666 & ~umask
        assert record["model"]["name"] == "modèle ß"
        assert record["finished"].endswith("Z")
        table = bench(read_only, place, umask, environment, "table", "imagenet", "--results", out, "--allow-mixed")
        assert "modèle ß" in table
        found[way] = record["metrics"], record["model"]["sha256"], record["data"], table
    assert found["private"] == found["shared"]
    report = json.loads(bench(read_only, place, *WAYS["private"], "inspect", "modèle ß.pth", "--json"))
    assert report["matched"] == 120
