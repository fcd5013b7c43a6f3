"""The comparisons that were measured before: results/measured/speed.json, what `bench speed --keep` writes and every run compares with.

Each row keeps its own date, commit and machine, because parts may be measured one at a time. A row that is measured again takes
the place of the one that is there.
"""

import datetime
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench import catalog
from bench.speed import Row
from results import record

FILE = catalog.ROOT / "results" / "measured" / "speed.json"
NOISE = 0.1  # a ratio that is worse than the kept one by more than this share is told


def rows(file: Path = FILE) -> list[dict[str, Any]]:
    """What was kept, in the order of the parts; nothing where there is no file."""
    return json.loads(file.read_text())["parts"] if file.exists() else []


def keep(measured: Iterable[Row], file: Path = FILE) -> None:
    """Write the rows down, with today's date, the commit, the machine and the versions."""
    from bench import provenance, speed

    machine = provenance.machine()
    about = {
        "date": datetime.date.today().isoformat(),
        "commit": provenance.commit(),
        "machine": {key: machine[key] for key in sorted(machine)},
        "versions": provenance.versions(),
    }
    found = {(row["part"], row["against"]): row for row in rows(file)}
    found |= {(row.part, row.against): row.plain() | about for row in measured}
    parts = [*speed.PARTS]
    ordered = sorted(found.values(), key=lambda row: parts.index(row["part"]) if row["part"] in parts else len(parts))
    record.replaced(file, json.dumps({"parts": ordered}, indent=1) + "\n")


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
