"""A paper's table as data, filled with its published figures and with what was measured here.

`formats/NAME.py` holds `TABLES`: columns in the paper's order, rows with the paper's labels, the way it prints a
difference from the supervised row. `render(name, records, fmt)` prints each of them from the published figures, and then
the measured rows:

- beside the published ones where they were made under the paper's protocol: paper scale, nothing changed, the table's
  backbone, as many images as the paper's;
- otherwise in tables of their own. Rows that differ in protocol hash, data or backbone never share a table. A table over
  several tasks joins rows by model, and every task in it has one protocol, which the heading names.

A measured cell is the mean over trials ± their standard deviation; n counts the trials.
"""

import importlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from results import published, record, stats
from results.groups import Group, Record, grouped, joined, label, protocols, said
from results.html import html
from results.latex import latex
from results.sheet import NOISE, Cell, Column, Line, Sheet, comma_separated, markdown


@dataclass(frozen=True)
class Row:
    """A published row: how it is labelled, and how its figures are found. Without a method: a line between rows."""

    texts: tuple[str, ...]  # one for each of the table's leading columns
    method: str = ""
    data: str = "IN-1K"
    epochs: int | None = None
    arch: str | None = None  # as the source writes it; None: the source has one only
    source: str = ""  # where it is not the table's
    note: str = ""  # what the figure's note says, where the source has several


@dataclass(frozen=True)
class Table:
    """One printed table."""

    name: str
    title: str
    source: str  # of its figures in published/*.csv
    leads: tuple[str, ...]  # heads of the columns before the metrics: the label, then LEADS
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    delta: str = ""  # "sign": 55.9 (+2.4), "arrow": 38.5(↑0.3), "": the paper prints no difference
    baseline: str = "supervised"
    arch: str = "resnet50"
    notes: tuple[str, ...] = ()
    spread: Mapping[str, float] = field(default_factory=dict)  # published standard deviations over trials, by metric
    spread_source: str = ""


# Leading columns besides the label, and what a measured model says there.
LEADS = {"#. Epoch": "epochs", "Architecture": "arch"}

# A note of the tables with a column of `imagenet_linear`.
BEST_EPOCH = "ImageNet linear: MoCo's published figures are the best epoch's, chosen on the test images; measured rows are the last's."

WRITERS: dict[str, Callable[[Sequence[Sheet]], str]] = {
    "md": markdown,
    "csv": comma_separated,
    "latex": latex,
    "html": html,
}

RANDOM = "random_init"  # the published name of training from scratch


def formats() -> list[str]:
    """The names of all formats, sorted."""
    return sorted(p.stem for p in Path(__file__).with_name("formats").glob("*.py") if not p.stem.startswith("_"))


def tables(name: str) -> tuple[Table, ...]:
    """The tables of a format. Raises ValueError for a name that is none."""
    if name not in formats():
        raise ValueError(f"expected the name of a table ({', '.join(formats())}), found {name!r}")
    return importlib.import_module(f"results.formats.{name}").TABLES


def render(name: str, records: Sequence[Record] = (), fmt: str = "md", mixed: bool = False) -> str:
    """A format's tables as text: Markdown, one CSV with plain numbers, LaTeX or HTML, by a name of `WRITERS`.

    mixed: measured rows of other protocols, data or backbones stand in the printed table too, each with a footnote

    Raises ValueError for an unknown format or if two records are the same trial.
    """
    if fmt not in WRITERS:
        raise ValueError(f"expected a format to write ({', '.join(WRITERS)}), found {fmt!r}")
    groups = grouped(records)
    return WRITERS[fmt]([sheet for table in tables(name) for sheet in sheets(table, groups, mixed)])


def sheets(table: Table, groups: Sequence[Group] = (), mixed: bool = False) -> list[Sheet]:
    """The published table, with the measured rows that may stand in it, and then the others' own tables."""
    tasks = list(dict.fromkeys(column.task for column in table.columns))
    own = {column.recipe: column.task for column in table.columns if column.recipe}
    groups = [replace(group, task=own.get(group.task, group.task)) for group in groups]
    groups = [group for group in groups if group.task in tasks]
    claims = {task: [g for g in groups if g.task == task and g.papers(table.arch)] for task in tasks}
    claims = {task: [g for g in claiming if g.first["task"] in own] or claiming for task, claiming in claims.items()}
    beside = {task: claiming[0] for task, claiming in claims.items() if len(claiming) == 1}
    printed = _printed(table, beside)
    printed.notes += [
        f"{len(claiming)} measured groups (protocol, data) claim to be the paper's {task}: all stand apart."
        for task, claiming in claims.items()
        if len(claiming) > 1
    ]
    apart = joined([group for group in groups if group not in beside.values()], tasks)
    if mixed:
        for number, join in enumerate(apart, 1):
            _add_mixed(table, printed, join, number)
        return [printed]
    if apart:
        names = list(dict.fromkeys(protocols(join) for join in apart))
        printed.notes.append(f"Measured under other conditions, in tables of their own: {'; '.join(names)}.")
    return [printed, *(measured(table, join, f"Measured: {protocols(join)}") for join in apart)]


def _add_mixed(table: Table, printed: Sheet, join: Mapping[str, Group], number: int) -> None:
    """Rows that the table's own may not be compared with, each marked; they are never the best of a column."""
    mark = f"‡{number}"
    lines, _ = _lines(table, join, "", 2, {})
    for line in lines:
        line.texts = (f"{line.texts[0]} {mark}", *line.texts[1:])
    printed.lines += lines
    printed.tasks = tuple(dict.fromkeys((*printed.tasks, *join)))
    conditions = "; ".join(group.described() for group in join.values())
    printed.notes.append(f"{mark} not to be compared with the other rows: {conditions}.")


def _printed(table: Table, beside: Mapping[str, Group]) -> Sheet:
    figures = {index: _figures(table, row) for index, row in enumerate(table.rows)}
    baseline = next((figures[i] for i, row in enumerate(table.rows) if row.method == table.baseline), {})
    lines, notes = [], list(table.notes)
    for index, row in enumerate(table.rows):
        cells = {}
        for position, figure in figures[index].items():
            cell = Cell(float(figure.value), figure.value, -int(figure.value.as_tuple().exponent), style=table.delta)
            if table.delta and row.method not in (RANDOM, table.baseline) and position in baseline:
                cell.delta = float(figure.value - baseline[position].value)
            cells[position] = cell
        about = {"model": row.texts[0], "method": row.method, "pretrain_data": row.data, "epochs": row.epochs}
        archs = dict.fromkeys(figure.arch for figure in figures[index].values() if figure.arch)
        about |= {"arch": ", ".join(archs) or None, "source": row.source or table.source}
        lines.append(Line("published", row.texts, cells, "", about))
        notes += _elsewhere(table, row, figures[index])
    tasks = ", ".join(f"`{task}`" for task in dict.fromkeys(column.task for column in table.columns))
    intro = [f"Published figures ({table.source}), of {tasks}."]
    if beside:
        more, more_notes = _lines(table, beside, table.delta, 1, {p: float(f.value) for p, f in baseline.items()})
        lines += more
        notes += more_notes
        intro += [f"Measured: {group.described()}." for group in beside.values()]
    _mark_best(lines)
    return Sheet(table.name, table.leads, table.columns, table.title, intro, lines, notes, tuple(beside))


def _figures(table: Table, row: Row) -> dict[int, published.Figure]:
    if not row.method:
        return {}
    found = {}
    for position, column in enumerate(table.columns):
        for task in (column.task, column.also):
            fitting = [
                f
                for f in published.figures()
                if (f.method, f.data, f.epochs) == (row.method, row.data, row.epochs)
                and f.source == (row.source or table.source)
                and (f.task, f.metric) == (task, column.metric)
                and row.arch in (None, f.arch)
                and row.note in f.note
                and (row.arch or f.backbone == table.arch or not row.source)
            ]
            if len(fitting) > 1:
                raise ValueError(f"expected one figure of {row.texts[0]} for {column.head}, found {len(fitting)}")
            if fitting:
                found[position] = fitting[0]
                break
    if not found:
        raise ValueError(
            f"expected figures of {row.method}, {row.data}, epochs {row.epochs}, from {row.source or table.source!r} for the row "
            f"{' '.join(row.texts)} of {table.name}, found none in results/published/*.csv: add them there, or correct the row"
        )
    return found


def _elsewhere(table: Table, row: Row, figures: Mapping[int, published.Figure]) -> list[str]:
    """What other sources print for the same quantities, where they differ by more than rounding."""
    told: dict[str, list[str]] = {}
    for position, figure in figures.items():
        for other in published.disagreeing(figure):
            source = f"{other.source} ({other.note})" if other.note else other.source
            told.setdefault(source, []).append(f"{table.columns[position].head} {other.value}")
    who = " ".join(text for text in row.texts if text != "-")
    words = [f"{', '.join(values)} in {source}" for source, values in told.items()]
    return [f"{who}, elsewhere: {'; '.join(words)}."] if told else []


def measured(table: Table, join: Mapping[str, Group], title: str) -> Sheet:
    """A table of measured rows alone; it has the columns of the tasks that were measured."""
    missing = list(dict.fromkeys(column.task for column in table.columns if column.task not in join))
    lines, notes = _lines(table, join, "sign", 2, {})
    _mark_best(lines)
    notes += [f"Not measured under these conditions: {', '.join(missing)}."] if missing else []
    intro = [f"{group.described()}." for group in join.values()]
    return Sheet(table.name, table.leads, table.columns, title, intro, lines, notes, tuple(join), own=True)


def _lines(
    table: Table, join: Mapping[str, Group], style: str, digits: int, printed: Mapping[int, float]
) -> tuple[list[Line], list[str]]:
    """Measured rows of a table, and the note that names what they are compared with."""
    models: dict[tuple[str, str], Record] = {}
    for group in join.values():
        for key, trials in group.trials.items():
            models.setdefault(key, trials[0]["model"])
    order = sorted(models, key=lambda key: rank(models[key]))
    baseline = next((key for key in order if _method(models[key]) == table.baseline), None)
    if baseline is None and not printed:
        baseline = next((key for key in order if models[key]["sha256"] is None), None)
    lines, compared = [], []
    for key in order:
        cells = {}
        for position, column in enumerate(table.columns):
            if not (values := _values(join, key, column)):
                continue
            total = stats.summary(list(values.values()))
            printed_mean = round(Decimal(total.mean), digits)
            cell = Cell(total.mean, printed_mean, digits, total.std, total.n, total.low, total.high, style=style)
            cells[position] = cell
            if style and key != baseline and models[key]["sha256"]:
                against = _values(join, baseline, column) if baseline else {}
                published_value = printed.get(position) if baseline is None else None
                spread = table.spread.get(column.metric) if printed else None
                apart, cell.lent = _difference(values, against, published_value, spread)
                if apart:
                    cell.delta, cell.p = apart.mean, apart.p
                    cell.delta_low, cell.delta_high = apart.low, apart.high
                    compared.append(cell)
        if cells:
            lines.append(_line(table, join, key, models[key], cells))
    tested = [cell for cell in compared if cell.p is not None]
    for cell, real in zip(tested, stats.holm([cell.p for cell in tested if cell.p is not None]), strict=True):
        cell.noise = not real
    return lines, _compared(table, compared, models[baseline] if baseline else None, bool(printed))


def _difference(
    values: Mapping[int, float], against: Mapping[int, float], printed: float | None, spread: float | None
) -> tuple[stats.Difference | None, bool]:
    """From the measured baseline, or from the printed one; a published spread stands in where there are too few trials.

    And whether it did.
    """
    if not against and printed is None:
        return None, False
    if against:
        apart = stats.difference(values, against)
        if apart.p is not None or spread is None:
            return apart, False
    base = stats.summary(list(against.values())).mean if against else printed
    assert base is not None
    mean = stats.summary(list(values.values())).mean
    if spread is None:
        return stats.Difference(mean - base, None, None, None), False
    return stats.against(values, base, spread), True


def _compared(table: Table, cells: Sequence[Cell], baseline: Record | None, mixed: bool) -> list[str]:
    """Notes: what the measured rows are compared with, and what may be read from it. `mixed`: with published rows beside them."""
    if not cells:
        return []
    if baseline is None:
        notes = [f"Measured rows: difference from the published {table.baseline} row; none was measured."]
    else:
        whose = "Measured rows, in brackets" if mixed else "In brackets"
        notes = [f"{whose}: difference from {label(baseline)}, the mean of its trials."]
    tested = [cell for cell in cells if cell.p is not None]
    if any(cell.noise for cell in tested):
        over = f"by Holm's correction over {len(tested)} comparisons" if len(tested) > 1 else "of one comparison"
        notes.append(
            f"{NOISE} within noise: no difference at the 5 % level, {over}; trials with the same seeds are compared in pairs."
        )
    if len(tested) < len(cells):
        which = "from a published row of unknown spread" if baseline is None else "of or from a single trial"
        notes.append(f"A difference {which} is not tested, and bears no mark.")
    if any(cell.lent for cell in cells):
        notes.append(
            f"Where there is one trial or a published row, a published spread stands in for its own ({table.spread_source})."
        )
    return notes


def _line(table: Table, join: Mapping[str, Group], key: tuple[str, str], model: Record, cells: dict[int, Cell]) -> Line:
    counts = {table.columns[position].task: cell.n or 0 for position, cell in cells.items()}
    texts = (label(model), *(said(model, LEADS[head]) or "–" for head in table.leads[1:]))
    about = {key: said(model, key) for key in ("method", "variant", "pretrain_data", "epochs", "arch", "sha256")}
    own = [group.trials[key] for group in join.values() if key in group.trials]
    folders = [(record.place(trials[0]).rpartition("/")[0], trials) for trials in own]
    files = [f"{folder}/{trial['seed']}.json" for folder, trials in folders for trial in trials]
    about |= {"model": model["name"], "source": " ".join(files)}
    about |= {"protocol": " ".join(f"{g.first['protocol']['name']}#{g.hash[:12]}" for g in join.values())}
    about |= {"data": " ".join(f"{g.first['task']}#{g.digest[:8]}" for g in join.values())}
    return Line("measured", texts, cells, _counts(counts), about)


def _values(join: Mapping[str, Group], key: tuple[str, str], column: Column) -> dict[int, float]:
    """One model's trials of one metric, by seed."""
    trials = join[column.task].trials.get(key, []) if column.task in join else []
    return {t["seed"]: t["metrics"][column.metric] for t in trials if column.metric in t["metrics"]}


def _counts(counts: Mapping[str, int]) -> str:
    """The number of trials that most tasks of a row have, and in brackets the tasks that have another."""
    usual = statistics.mode(counts.values())
    others = ", ".join(f"{task} {n}" for task, n in counts.items() if n != usual)
    return f"{usual} ({others})" if others else str(usual)


def _method(model: Record) -> str:
    return str(model.get("method") or model["name"])


def rank(model: Record) -> tuple[Any, ...]:
    """What models are ordered by: from scratch first, then supervised, then by method and length of pretraining."""
    kind = 0 if model["sha256"] is None else 1 if _method(model) == "supervised" else 2
    length = model.get("epochs")
    length = length if isinstance(length, int | float) else 0
    return kind, _method(model), said(model, "variant"), length, model["name"], model["sha256"] or ""


def _mark_best(lines: Sequence[Line]) -> None:
    """Marks the highest printed value of every column, ties too; a column with one value has no best."""
    for position in {position for line in lines for position in line.cells}:
        cells = [line.cells[position] for line in lines if position in line.cells]
        best = max(cell.printed for cell in cells)
        for cell in cells:
            cell.best = len(cells) > 1 and cell.printed == best
