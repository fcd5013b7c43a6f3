"""The star: `bench` knows the other packages; they know neither each other nor `bench`. Frameworks stay behind one door."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LEAVES = ("pretrain", "downstream", "results")
COMPARED = {"bench/speed/evaluation.py", "bench/speed/finetuning.py"}  # where they are what is compared with
DOORS = {
    "detectron2": {"downstream/detection.py", *COMPARED},
    "mmseg": {"downstream/segmentation.py", *COMPARED},
    "mmcv": {"downstream/segmentation.py"},
    "mmengine": {"downstream/segmentation.py", *COMPARED},
}


def imported(file: Path) -> set[str]:
    """The top-level names of everything a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("leaf", LEAVES)
def test_leaves_import_neither_each_other_nor_bench(leaf):
    others = {"bench", *LEAVES} - {leaf}
    for file in (ROOT / leaf).rglob("*.py"):
        assert not imported(file) & others, file


def test_results_import_no_torch():
    for file in (ROOT / "results").rglob("*.py"):
        assert not imported(file) & {"torch", "torchvision"}, file


@pytest.mark.parametrize("framework", DOORS)
def test_a_framework_is_imported_by_one_file(framework):
    files = (f for package in ("bench", *LEAVES) for f in (ROOT / package).rglob("*.py"))
    assert {str(f.relative_to(ROOT)) for f in files if framework in imported(f)} <= DOORS[framework]


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["list", "tasks"],
        ["list", "methods"],
        ["list", "sources"],
        ["list", "tables"],
        ["table", "moco"],
        ["table", "pixpro", "--format", "csv"],
    ],
)
def test_light_commands_start_without_a_framework(words):
    code = (
        "import sys\n"
        "from bench import cli\n"
        f"sys.argv = ['bench', *{words!r}]\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'torchvision', 'detectron2', 'mmseg', 'mmcv', 'mmengine'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_there_is_no_machine_path_in_the_project():
    folders = ("bench", "pretrain", "downstream", "results", "tests", ".ci")
    for file in (*ROOT.glob("*"), *(file for folder in folders for file in (ROOT / folder).rglob("*"))):
        if file.suffix in {".py", ".md", ".toml", ".yaml", ".json", ""} and file.is_file():
            text = file.read_text(errors="ignore")
            assert "/work" + "/" not in text and "/root" + "/" not in text, file
