"""The leaderboard: every model's numbers on every task, measured and published told apart, each with its source.

`index.html` is for looking (page.py), `leaderboard.md` for reading: one headline metric a task. `leaderboard.csv` has a line for
every model, task and metric.
There is no overall score: a mean over tasks of different scale and noise would be made up.
"""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from results import published, record, sheet, stats, table
from results.groups import HEADLINES, Record, grouped, headline, joined, protocols, said
from results.sheet import Column
from results.table import Table

# Of leaderboard.csv; the mean of a published figure is the figure.
COLUMNS = [
    *("kind", "model", "method", "variant", "pretrain_data", "epochs", "arch", "sha256"),
    *("task", "metric", "mean", "std", "n", "low", "high"),
    *("protocol", "hash", "data_digest", "train_images", "test_images", "scale", "marks", "source", "note"),
]


def write(records: Sequence[Record], out: Path, root: Path | None = None) -> list[Path]:
    """Writes leaderboard.md, leaderboard.csv, index.html and plots/*.{svg,png} into a folder, which is made; returns the paths.

    root: where the records stand, for the learning curves of those whose logs lie beside them
    """
    from results import page, plots

    figures = plots.every(records, root)
    drawn = {name: plots.svg(figure) for name, figure in figures.items()}
    titled = [(figures[name].axes[0].get_title(), svg) for name, svg in drawn.items()]
    files: dict[str, str | bytes] = {
        "leaderboard.md": markdown(records),
        "leaderboard.csv": comma_separated(records),
        "index.html": page.html(records, titled),
        **{f"plots/{name}.svg": svg for name, svg in drawn.items()},
        **{f"plots/{name}.png": plots.png(figure) for name, figure in figures.items()},
    }
    return [record.replaced(Path(out) / name, content) for name, content in files.items()]


def markdown(records: Sequence[Record] = ()) -> str:
    """The overview: what was measured here first, then what is published, with the numbers of its sources in brackets."""
    sources: dict[str, int] = {}
    dense = _published([task for task in HEADLINES if not task.startswith("imagenet")], sources)
    imagenet = _published([task for task in HEADLINES if task.startswith("imagenet")], sources)
    parts = [
        "# Leaderboard",
        "Every number is a percentage; best in bold. All metrics, backbones and sources: leaderboard.csv.",
        "## Measured",
        *_measured(records),
        "## Published, dense tasks (ResNet-50)",
        dense,
        "## Published, ImageNet (ResNet-50)",
        imagenet,
        "Sources:",
        "\n".join(f"- ({number}) {source}" for source, number in sources.items()),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _measured(records: Sequence[Record]) -> list[str]:
    groups = grouped(records)
    tasks = [*HEADLINES, *sorted({group.task for group in groups} - set(HEADLINES))]
    parts = []
    for join in joined(groups, tasks):
        columns = tuple(
            Column(f"{task} {metric}", task, metric) for task, group in join.items() for metric in [headline(group)]
        )
        title = protocols(join)
        filled = table.measured(Table("leaderboard", title, "", ("model",), columns, ()), join, title)
        filled.notes += [f"Records of {line.texts[0]}: {line.about['source']}" for line in filled.lines]
        parts.append(sheet.markdown([filled]))
    return parts or ["Nothing yet: `bench transfer` measures."]


def _published(tasks: Sequence[str], sources: dict[str, int]) -> str:
    """Models by tasks; every value with the numbers of its sources. Values that disagree stand side by side."""
    rows: dict[tuple[str, str, int], dict[str, dict[str, list[int]]]] = {}
    for figure in published.figures():
        if figure.task in tasks and figure.metric == HEADLINES[figure.task] and figure.backbone == "resnet50":
            number = sources.setdefault(figure.source, len(sources) + 1)
            row = rows.setdefault((figure.method, figure.data, figure.epochs or 0), {})
            numbers = row.setdefault(figure.task, {}).setdefault(str(figure.value), [])
            if number not in numbers:
                numbers.append(number)
    tasks = [task for task in tasks if any(task in row for row in rows.values())]
    best = {task: max((float(v) for row in rows.values() for v in row.get(task, ())), default=None) for task in tasks}

    def cell(task: str, values: dict[str, list[int]]) -> str:
        ordered = sorted(values.items(), key=lambda item: -float(item[0]))
        told = [(f"**{v}**" if float(v) == best[task] else v, ",".join(map(str, sorted(n)))) for v, n in ordered]
        return ", ".join(f"{value} ({numbers})" for value, numbers in told) or "–"

    ranks = {"random_init": 0, "supervised": 1}
    lines = [
        [method, data, str(epochs or "–"), *(cell(task, row.get(task, {})) for task in tasks)]
        for (method, data, epochs), row in sorted(rows.items(), key=lambda item: (ranks.get(item[0][0], 2), item[0]))
    ]
    return sheet.grid(["model", "data", "epochs", *(f"{t} {HEADLINES[t]}" for t in tasks)], lines, left=2)


def comma_separated(records: Sequence[Record] = ()) -> str:
    """One line for every model, task and metric: measured ones (mean over trials) first, then every published figure."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(_measured_lines(records))
    writer.writerows(_published_lines())
    return text.getvalue()


def _measured_lines(records: Sequence[Record]) -> Iterable[dict[str, Any]]:
    for group in grouped(records):
        marks = " ".join(group.union("marks") + group.union("nonstandard"))
        for trials in group.trials.values():
            model, data = trials[0]["model"], trials[0]["data"]
            for metric in dict.fromkeys(m for trial in trials for m in trial["metrics"]):
                having = [trial for trial in trials if metric in trial["metrics"]]
                total = stats.summary([trial["metrics"][metric] for trial in having])
                numbers = {k: getattr(total, k) for k in ("mean", "std", "low", "high")}
                yield {
                    "kind": "measured",
                    "model": model["name"],
                    **{k: said(model, k) for k in ("method", "variant", "pretrain_data", "epochs", "arch", "sha256")},
                    "task": group.task,
                    "metric": metric,
                    **{k: "" if v is None else f"{v:.6g}" for k, v in numbers.items()},
                    "n": total.n,
                    "protocol": trials[0]["protocol"]["name"],
                    "hash": group.hash,
                    "data_digest": group.digest,
                    "train_images": data["train"],
                    "test_images": data["test"],
                    "scale": trials[0]["scale"],
                    "marks": marks,
                    "source": " ".join(record.place(trial) for trial in having),
                }


def _published_lines() -> Iterable[dict[str, Any]]:
    for figure in published.figures():
        yield {
            "kind": "published",
            "model": figure.method,
            "method": figure.method,
            "pretrain_data": figure.data,
            "epochs": figure.epochs,
            "arch": figure.arch,
            "task": figure.task,
            "metric": figure.metric,
            "mean": figure.value,
            "source": figure.source,
            "note": figure.note,
        }
