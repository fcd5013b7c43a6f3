"""Everything README says is true: its commands parse, its tree is the tree, its numbers are records."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import typer

from bench import catalog, cli, journey, rates, track
from bench.speed import kept, precision
from results import table

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = sorted(
    {
        line.partition("  #")[0].strip()
        for language, block in BLOCKS
        if language == "sh"
        for line in block.replace("\\\n", " ").splitlines()
        if line.strip() and not line.startswith("#")
    }
)


def block(name: str) -> str:
    """What stands between <!-- name --> and <!-- /name -->."""
    return README.partition(f"<!-- {name} -->\n")[2].partition(f"\n<!-- /{name} -->")[0]


def test_there_are_commands():
    assert {"make demo", "make test"} <= set(COMMANDS)
    assert sum(command.startswith("bench ") for command in COMMANDS) >= 10


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_parses(command):
    words = shlex.split(command)
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
        return
    if words[0] == "torchrun":
        words = words[words.index("bench") :]
    if words[0] != "bench":
        assert words[0] in {"git", "cd", ".venv/bin/bench", ".venv/bin/pre-commit"}, command
        return
    command_object = typer.main.get_command(cli.app)
    context = command_object.make_context("bench", words[1:], resilient_parsing=True)
    rest = words[1:]
    while hasattr(command_object, "commands"):
        name, command_object, rest = command_object.resolve_command(context, rest)
        assert command_object is not None, name
        if not hasattr(command_object, "commands"):
            parsed = command_object.make_context(name, list(rest), parent=context)
            for kind, key in (("task", "task"), ("method", "method"), ("table", "format")):
                if isinstance(parsed.params.get(key), str) and name != "list":
                    assert parsed.params[key] in catalog.names(kind), command


def test_the_file_tree_is_the_tree():
    tree = next(text for language, text in BLOCKS if language == "text")
    listed, folder = set(), ""
    for line in tree.splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split(", ")
        if not line.startswith(" "):
            folder = names[0] if names[0].endswith("/") else ""
        listed |= {(folder if line.startswith(" ") else "") + name for name in names}
    for name in listed:
        assert list(ROOT.glob(name)), f"README lists {name}, which is not there"
    files = (f for package in ("bench", "pretrain", "downstream", "results") for f in (ROOT / package).rglob("*.py"))
    here = {f.relative_to(ROOT).as_posix() for f in files if not f.name.startswith("__")}
    assert here <= listed, f"README's tree lacks {here - listed}"


def test_the_measured_tables_are_what_the_records_say():
    measured = journey.measured(ROOT / "results" / "measured")
    assert measured
    printed = table.render("moco", measured, "md")
    for part in block("bench table moco").split("\n\n"):
        assert part in printed, part


def test_the_tables_of_speed_are_what_was_kept():
    assert block("bench speed") == kept.table()
    assert block("bench speed --json") == kept.missed()
    assert block("bench speed --scaling") == kept.scaling_table()
    machines = {(row["machine"]["cpu"], row["machine"]["cores"], row["date"]) for row in kept.rows()}
    for cpu, cores, date in machines:
        assert cores == 2
        assert f"{cpu} with" in README and date in README


def test_the_pretrainings_of_the_mini_track_are_their_records():
    assert block("python -m bench.track") == track.table()
    assert block("python -m bench.rates") == rates.table()


def test_what_the_pretrainings_are_worth_is_their_records():
    assert block("bench.track.transfers()") == track.transfers().strip()
    assert "12 epochs" in track.transfers()


def test_the_sentences_on_precision_are_what_was_measured():
    trials = journey.measured(ROOT / "results" / "measured")
    assert block("python -m bench.speed.precision") == f"- {precision.compared()}\n- {precision.transferred(trials)}"


def test_the_random_weights_whose_blocks_begin_at_zero_are_made_so(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = README.partition("```python\n")[2].partition("```")[0]
    exec(compile(code, "README.md", "exec"), {})
    made = torch.load("random_zero_gamma.pth", weights_only=True)
    for name, tensor in made.items():
        if name.endswith("bn2.weight"):
            assert not tensor.any()
        elif name.endswith(("conv1.weight", "bn1.weight")):
            assert tensor.any()
    assert sum(name.endswith("bn2.weight") for name in made) == 8
