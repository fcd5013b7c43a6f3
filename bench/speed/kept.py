"""The comparisons that were measured before: results/measured/speed.json, what `bench speed --keep` writes and every run compares with.

Each row keeps its own date, commit and machine, because parts may be measured one at a time. The rows of a part that is measured
again take the place of all that it has there.
"""

import datetime
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import catalog, speed
from bench.speed import Row
from bench.speed.scaling import Growth
from results import record

FILE = catalog.ROOT / "results" / "measured" / "speed.json"
NOISE = 0.1  # a ratio that is worse than the kept one by more than this share is told


def rows(file: Path = FILE) -> list[dict[str, Any]]:
    """What was kept, in the order of the parts; nothing where there is no file."""
    return _content(file)["parts"]


def keep(measured: Iterable[Row], file: Path = FILE) -> None:
    """Write the rows down, with today's date, the commit, the machine and the versions."""
    content, about = _content(file), _about()
    new = [row.plain() | about for row in measured]
    again = {row["part"] for row in new}
    found = [row for row in content["parts"] if row["part"] not in again] + new
    parts = [*speed.PARTS]
    ordered = sorted(found, key=lambda row: parts.index(row["part"]) if row["part"] in parts else len(parts))
    record.replaced(file, json.dumps(content | {"parts": ordered}, indent=1) + "\n")


def keep_scaling(grown: Iterable[Growth], file: Path = FILE) -> None:
    """Write down how the costs grow, with the same."""
    about = _about()
    content = _content(file) | {"scaling": [growth.plain() | about for growth in grown]}
    record.replaced(file, json.dumps(content, indent=1) + "\n")


def _content(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else {"parts": [], "scaling": []}


def _about() -> dict[str, Any]:
    from bench import provenance

    return {
        "date": datetime.date.today().isoformat(),
        "commit": provenance.commit(),
        "machine": dict(sorted(provenance.machine().items())),
        "versions": provenance.versions(),
    }


def since(row: Row, before: Iterable[dict[str, Any]]) -> str:
    """What a person wants to know of the kept ratio: nothing where none was kept."""
    old = next((kept for kept in before if (kept["part"], kept["against"]) == (row.part, row.against)), None)
    if old is None:
        return ""
    worse = row.ratio < old["ratio"] * (1 - NOISE) if row.fast else row.ratio > old["ratio"] * (1 + NOISE)
    return f"; {old['date']}: {old['ratio']:.2f}{', WORSE now' if worse else ''}"


def table(file: Path = FILE) -> str:
    """README's table: part, what it is compared with, ratio, target, whether it is met, peak memory."""
    lines = ["| part | against | ratio | target | met | peak memory, MiB |", "|---|---|--:|--:|---|--:|"]
    for row in rows(file):
        target = "" if row["target"] is None else f"{'≥' if row['fast'] else '≤'} {row['target']:g}"
        met = {None: "", True: "yes", False: "**no**"}[row["met"]]
        memory = "" if row["memory"] is None else f"{row['memory'] / 2**20:,.0f}"
        lines.append(f"| `{row['part']}` | {row['against']} | {row['ratio']:.2f} | {target} | {met} | {memory} |")
    return "\n".join(lines)


def missed(file: Path = FILE) -> str:
    """README's list of the parts that miss a target: their rows, by how much, and why."""
    found, lines = [row for row in rows(file) if row["met"] is False], []
    for part in speed.PARTS:
        if short := [row for row in found if row["part"] == part]:
            ratios = ", ".join(
                f"{row['ratio']:.2f} of {row['target']:g} ({row['against'].rpartition(': ')[2]})" for row in short
            )
            lines.append(f"- `{part}`: {ratios}: {speed.WHY.get(part, 'not known why')}.")
    return "\n".join(lines)


def scaling_table(file: Path = FILE) -> str:
    """README's second table: what a cost is at the fewest and the most images, and the exponent of its growth."""
    grown = _content(file)["scaling"]
    fewest, most = (f"{grown[0]['images'][end]:,} images" for end in (0, -1))
    lines = [f"| cost | {fewest} | {most} | grows as images to the |", "|---|--:|--:|--:|"]
    for growth in grown:
        first, last = (_amount(growth["values"][end], growth["unit"]) for end in (0, -1))
        lines.append(f"| {growth['what']} | {first} | {last} | {growth['exponent']:.2f} |")
    return "\n".join(lines)


def _amount(value: float, unit: str) -> str:
    return f"{value / 2**20:,.1f} MiB" if unit == "bytes" else f"{value * 1e3:,.2f} ms"
