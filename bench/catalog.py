"""A name on the command line is a file name: `moco` is pretrain/methods/moco.py, `voc_c4` is downstream/tasks/voc_c4.py.

Listing reads the files' docstrings without importing them, so that it costs no framework.
"""

import ast
import difflib
import importlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {"method": "pretrain.methods", "task": "downstream.tasks", "table": "results.formats"}

# What people say for the 1x schedules.
ALIASES = {"coco_c4": "coco_c4_1x", "coco_fpn": "coco_fpn_1x"}


def names(kind: str) -> list[str]:
    """The names of all methods, tasks or tables, sorted."""
    folder = ROOT.joinpath(*PACKAGES[kind].split("."))
    return sorted(p.stem for p in folder.glob("*.py") if not p.stem.startswith("_"))


def summary(kind: str, name: str) -> str:
    """The first paragraph of the docstring of a method, task or table."""
    return next(paragraphs(kind, name), "")


def citation(method: str) -> str:
    """The paragraph of a method's docstring that names its paper, or whose recipe it is."""
    return next((text for text in paragraphs("method", method) if text.startswith(("Paper", "Recipe"))), "")


def paragraphs(kind: str, name: str) -> Iterator[str]:
    """The paragraphs of the docstring of a method, task or table, each as one line."""
    file = ROOT.joinpath(*PACKAGES[kind].split("."), f"{name}.py")
    text = ast.get_docstring(ast.parse(file.read_bytes(), file)) or ""
    return (" ".join(part.split()) for part in text.split("\n\n"))


def load(kind: str, name: str) -> ModuleType:
    """The module of a method, task or table. Raises ValueError, with the nearest name, where there is none."""
    name = ALIASES.get(name, name)
    known = names(kind)
    if name not in known:
        raise ValueError(unknown(kind, name, known))
    return importlib.import_module(f"{PACKAGES[kind]}.{name}")


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """One sentence for a name that does not exist, with the nearest that does."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
    return f"expected the name of a {kind}, found {name!r}. {hint}"
