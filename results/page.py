"""The leaderboard as one page that stands alone: `index.html` sorts, filters, compares, and opens the trials behind a number.

A row is a model of one source: a measured one under one protocol a task, or a published one in one document. A cell knows its
class, within which differences may be taken: protocol, data and backbone of a measured number, document and backbone of a
published one.
The page asks nothing from any network; style, script, data and plots stand in it.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from results import published, record, stats, table
from results.groups import HEADLINES, Group, Record, grouped, headline, joined, said

Row = dict[str, Any]


def html(records: Sequence[Record], plots: Sequence[tuple[str, str]] = ()) -> str:
    """The page. plots: titles with SVG text."""
    import jinja2

    groups = grouped(records)
    rows = [*_measured(groups), *_published()]
    here = Path(__file__).parent
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(here), autoescape=True, undefined=jinja2.StrictUndefined
    )
    text = json.dumps(
        {"columns": _columns(rows), "rows": rows, "base": _baseline(groups), "overview": _overview(groups)},
        ensure_ascii=False,
        separators=(",", ":"),
        allow_nan=False,
    )
    return environment.get_template("page.html.j2").render(
        data=text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029"),
        style=(here / "page.css").read_text(encoding="utf-8"),
        script=(here / "page.js").read_text(encoding="utf-8"),
        plots=plots,
        measured=sum(row["kind"] == "measured" for row in rows),
        published=sum(row["kind"] == "published" for row in rows),
    )


def _columns(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Every task and metric that a row has. "main": shown at first, the headline of a task of ours or of a measured one."""
    found = dict.fromkeys(name for row in rows for name in row["cells"])
    tasks = list(dict.fromkeys([*HEADLINES, *(name.partition(".")[0] for name in found)]))
    order = sorted(found, key=lambda name: (tasks.index(name.partition(".")[0]), name))
    split = [(name, *name.split(".", 1)) for name in order]
    first = {task: next((m for _, t, m in split if t == task and m == HEADLINES.get(t)), None) for task in tasks}
    first |= {task: next(m for _, t, m in split if t == task) for _, task, _ in split if first[task] is None}
    main = {
        f"{task}.{metric}"
        for task, metric in first.items()
        if task in HEADLINES or any(row["kind"] == "measured" and f"{task}.{metric}" in row["cells"] for row in rows)
    }
    return [{"id": name, "task": task, "metric": metric, "main": name in main} for name, task, metric in split]


def _joins(groups: Sequence[Group]) -> list[dict[str, Group]]:
    """All groups side by side, the tasks in the order of HEADLINES and then of their names."""
    return joined(groups, [*HEADLINES, *sorted({group.task for group in groups} - set(HEADLINES))])


def _baseline(groups: Sequence[Group]) -> str:
    """What differences are taken from at first, as tables do: the first supervised model, else random weights.

    Name and weights of a measured one; where none of both is measured, the published "supervised".
    """
    models = [[t[0]["model"] for g in join.values() for t in g.trials.values()] for join in _joins(groups)]
    for kind in (1, 0):
        for join in models:
            if having := [model for model in join if table.rank(model)[0] == kind]:
                first = min(having, key=table.rank)
                return " ".join(filter(None, (first["name"], (first["sha256"] or "")[:8])))
    return "supervised"


def _measured(groups: Sequence[Group]) -> Iterable[Row]:
    for number, join in enumerate(_joins(groups), 1):
        models = dict.fromkeys(key for group in join.values() for key in group.trials)
        for key in models:
            trials = {group: group.trials[key] for group in join.values() if key in group.trials}
            model = next(iter(trials.values()))[0]["model"]
            cells: dict[str, Any] = {}
            for group, own in trials.items():
                cells |= _cells(group, own)
            yield {
                "kind": "measured",
                **_about(model),
                "source": f"measured here ({number})",
                "cells": cells,
                "trials": [_trial(trial) for own in trials.values() for trial in own],
            }


def _about(model: Record) -> Row:
    return {
        "model": model["name"],
        "method": said(model, "method") or model["name"],
        "data": said(model, "pretrain_data"),
        "epochs": said(model, "epochs"),
        "arch": model["arch"],
        "backbone": model["arch"],
        "sha256": model["sha256"] or "",
    }


def _cells(group: Group, trials: Sequence[Record]) -> dict[str, Any]:
    cells = {}
    for metric in dict.fromkeys(m for trial in trials for m in trial["metrics"]):
        total = stats.summary([trial["metrics"][metric] for trial in trials if metric in trial["metrics"]])
        numbers = {"v": total.mean, "sd": total.std, "n": total.n, "low": total.low, "high": total.high}
        marks = sorted({mark for trial in trials for mark in [*trial["marks"], *trial["nonstandard"]]})
        cells[f"{group.task}.{metric}"] = {
            **{name: round(value, 6) for name, value in numbers.items() if value is not None},
            "class": f"{group.hash[:12]}-{group.digest[:8]}-{group.arch}",
            "note": " ".join([group.first["protocol"]["name"], *marks]),
        }
    return cells


def _trial(trial: Record) -> Row:
    kept = ("task", "seed", "metrics", "protocol", "data", "marks", "nonstandard", "commit", "seconds", "finished")
    return {"file": record.place(trial), **{key: trial[key] for key in kept if key in trial}}


def _published() -> Iterable[Row]:
    """A row for every model of a document; two rows where it prints a number twice under different notes."""
    rows: dict[tuple[Any, ...], Row] = {}
    seen: dict[tuple[Any, ...], set[str]] = {}
    for figure in published.figures():
        key = figure.source, figure.method, figure.data, figure.epochs, figure.arch
        seen.setdefault((*key, figure.task, figure.metric), set()).add(figure.note)
    twice = {key[:5] for key, notes in seen.items() if len(notes) > 1}
    for figure in published.figures():
        key = figure.source, figure.method, figure.data, figure.epochs, figure.arch
        row = rows.setdefault(
            (*key, figure.note if key in twice else ""),
            {
                "kind": "published",
                "model": figure.method,
                "method": figure.method,
                "data": figure.data,
                "epochs": "" if figure.epochs is None else str(figure.epochs),
                "arch": figure.arch,
                "backbone": figure.backbone,
                "sha256": "",
                "source": figure.source,
                "cells": {},
                "trials": [],
            },
        )
        cell = {"v": float(figure.value), "text": str(figure.value), "note": figure.note}
        cell["class"] = f"{figure.source}, {figure.backbone}"
        row["cells"].setdefault(f"{figure.task}.{figure.metric}", cell)
    return rows.values()


def _overview(groups: Sequence[Group]) -> list[Row]:
    """Ranks over the tasks that models were measured on together, with their uncertainty; no score is made up."""
    found = []
    for join in _joins(groups):
        scores = {}
        for task, group in join.items():
            metric = headline(group)
            scores[f"{task} {metric}"] = {
                f"{key[0]} {key[1][:8]}".strip(): [t["metrics"][metric] for t in trials if metric in t["metrics"]]
                for key, trials in group.trials.items()
                if any(metric in t["metrics"] for t in trials)
            }
        ranks = stats.ranks({task: of for task, of in scores.items() if of})
        if len(ranks) > 1:
            rows = sorted(ranks.items(), key=lambda item: item[1].mean)
            found.append({
                "tasks": [*scores],
                "ranks": [{"model": m, "mean": round(r.mean, 3), "low": round(r.low, 3), "high": round(r.high, 3)} for m, r in rows],
            })  # fmt: skip
    return found
