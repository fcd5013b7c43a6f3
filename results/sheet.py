"""A filled table, and two formats to write it in: Markdown for people, one CSV with plain numbers for programs."""

import csv
import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

NOISE = "≈"  # after a difference
# What Markdown takes for more than text; _ is text within a word, and & before a space.
MARKUP = r"[\\|`*<\[~]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w)"


@dataclass(frozen=True)
class Column:
    """One metric of one task."""

    head: str
    task: str  # this project's name of the protocol, or of what every source measures in its own way
    metric: str
    recipe: str = ""  # of the latter, the protocol that is the table's own; measured rows of `task` stand in for it
    also: str = ""  # the task under which the sources file this column's supervised figure


@dataclass
class Cell:
    """A number as it is printed, and as it is."""

    mean: float
    printed: Decimal
    digits: int
    std: float | None = None
    n: int | None = None
    low: float | None = None  # 95 % interval of the mean
    high: float | None = None
    delta: float | None = None
    delta_low: float | None = None  # 95 % interval of the difference
    delta_high: float | None = None
    p: float | None = None  # of no difference, before any correction
    noise: bool = False  # the difference may well be none
    lent: bool = False  # the test of it used a published spread
    style: str = "sign"
    best: bool = False


@dataclass
class Line:
    """A row of a sheet; without cells, a line between rows."""

    kind: str  # "published" or "measured"
    texts: tuple[str, ...]
    cells: dict[int, Cell] = field(default_factory=dict)  # by the column's position
    n: str = ""
    about: dict[str, Any] = field(default_factory=dict)  # for tables that are read by programs


@dataclass
class Sheet:
    """A table ready to be written in any format."""

    name: str
    leads: tuple[str, ...]  # heads of the columns before the metrics
    columns: tuple[Column, ...]
    heading: str
    intro: list[str]
    lines: list[Line]
    notes: list[str]
    tasks: tuple[str, ...]  # those measured
    own: bool = False  # of measured rows alone

    def grid(self) -> tuple[list[str], list[tuple[Line, list[str | Cell]]]]:
        """Heads, and every line with its texts and cells; a line without cells stands between rows and has its text alone."""
        columns = {i: c for i, c in enumerate(self.columns) if not self.own or c.task in self.tasks}
        heads = [*self.leads, *(column.head for column in columns.values())]
        heads += ["n"] * bool(self.tasks) + ["source"] * (bool(self.tasks) and not self.own)
        rows: list[tuple[Line, list[str | Cell]]] = []
        for line in self.lines:
            blank = "–" if line.kind == "measured" else "-"  # the papers print a hyphen
            cells = [line.cells.get(i) or blank for i in columns]
            rows.append((line, [*line.texts, *cells, line.n, line.kind][: len(heads)] if line.cells else [*line.texts]))
        return heads, rows


def shown(cell: Cell) -> str:
    """A cell in words: value, ± standard deviation of the trials, difference in brackets; without emphasis."""
    spread = f" ± {cell.std:.{cell.digits}f}" if cell.std is not None else ""
    return f"{cell.printed}{spread}{_delta(cell)}"


def _delta(cell: Cell) -> str:
    if cell.delta is None:
        return ""
    size = f"{abs(cell.delta):.{cell.digits}f}"
    zero, noise = not float(size), NOISE if cell.noise else ""
    if cell.style == "arrow":
        return f"({'' if zero else '↑' if cell.delta > 0 else '↓'}{size}{noise})"
    return f" ({'' if zero else '+' if cell.delta > 0 else '−'}{size}{noise})"


def markdown(sheets: Sequence[Sheet]) -> str:
    """Headings, tables and notes; columns are aligned, so that it reads well unrendered."""
    return "\n".join(_markdown(sheet) for sheet in sheets)


def _markdown(sheet: Sheet) -> str:
    heads, filled = sheet.grid()
    rows = []
    for line, texts in filled:
        leads = [text if line.kind == "published" else escaped(text) for text in line.texts]
        if not line.cells:
            rows.append([f"*{leads[0]}*", *[""] * (len(heads) - 1)])
            continue
        rest = [t if isinstance(t, str) else f"**{shown(t)}**" if t.best else shown(t) for t in texts[len(leads) :]]
        rows.append([*leads, *rest])
    level = "####" if sheet.own else "###"
    heading, *intro = (sentence(text) for text in (sheet.heading, *sheet.intro))
    parts = [f"{level} {heading}", "  \n".join(intro), grid([escaped(h) for h in heads], rows, len(sheet.leads))]
    parts += ["\n".join(f"- {escaped(note)}" for note in sheet.notes)] if sheet.notes else []
    return "\n\n".join(parts) + "\n"


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table with aligned columns; the first `left` ones are set left, the others right."""
    widths = [max(3, *(_width(row[i]) for row in [heads, *rows])) for i in range(len(heads))]

    def line(row: Sequence[str]) -> str:
        padded = [
            text + " " * (w - _width(text)) if i < left else " " * (w - _width(text)) + text
            for i, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = "|".join(f" {'-' * w} " if i < left else f" {'-' * (w - 1)}: " for i, w in enumerate(widths))
    return "\n".join([line(heads), f"|{rule}|", *(line(row) for row in rows)])


def _width(text: str) -> int:
    """Columns a terminal needs."""
    if max(text, default="") < "\u0300":  # nothing combines and nothing is wide before
        return len(text)
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else not unicodedata.combining(c) for c in text)


def escaped(text: str) -> str:
    """Text of unknown origin, harmless in Markdown and in a table's cell."""
    return re.sub(f"({MARKUP})", r"\\\1", " ".join(text.split()))


def sentence(text: str) -> str:
    """The same outside a table, where what stands between two single backticks stays code."""
    found = rf"(?<!`)`[^`]+`(?!`)|{MARKUP}"
    return re.sub(found, lambda part: part[0] if len(part[0]) > 1 else f"\\{part[0]}", " ".join(text.split()))


def comma_separated(sheets: Sequence[Sheet]) -> str:
    """One CSV for all tables: a line for every model of every table, plain numbers, one column a task, metric and value.

    It is for programs: a name stands as it is, so a spreadsheet may take one that begins with = for a formula.
    """
    abouts = ["model", "method", "variant", "pretrain_data", "epochs", "arch", "sha256", "protocol", "data", "source"]
    values = ("mean", "std", "n", "low", "high", "delta", "delta_low", "delta_high", "p")
    metrics = list(dict.fromkeys((c.task, c.metric) for sheet in sheets for c in sheet.columns))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "kind", *abouts, *(f"{task}.{metric}.{v}" for task, metric in metrics for v in values)])
    for sheet in sheets:
        for line in sheet.lines:
            if line.cells:
                cells = {(c.task, c.metric): line.cells.get(i) for i, c in enumerate(sheet.columns)}
                numbers = [_number(cells.get(key), v) for key in metrics for v in values]
                writer.writerow([sheet.name, line.kind, *(line.about.get(a) for a in abouts), *numbers])
    return text.getvalue()


def _number(cell: Cell | None, value: str) -> Any:
    if cell is None or (found := getattr(cell, value)) is None:
        return ""
    return found if isinstance(found, int) else f"{found:.6g}"
