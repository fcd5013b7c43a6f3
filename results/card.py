"""A model card: what a checkpoint is, every measured task beside its neighbours, plots, and the commands that make it all again."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from results import plots, published, record, sheet, stats
from results.groups import Group, Record, grouped, headline, identity, label

NEIGHBOURS = 3  # published figures on either side of a measured one


@dataclass(frozen=True)
class Card:
    """The parts of a card, as plain text; `tables` are headings, heads and rows, and whether a row is this model's."""

    title: str
    facts: Sequence[tuple[str, str]]
    tables: Sequence[tuple[str, Sequence[str], Sequence[tuple[bool, Sequence[str]]]]]
    plots: Sequence[tuple[str, bytes]]  # file name and PNG
    commands: Sequence[str]
    notes: Sequence[str] = field(default_factory=tuple)


def card(
    title: str, facts: Sequence[tuple[str, str]], sha256: str, records: Sequence[Record], commands: Sequence[str]
) -> Card:
    """The card of the weights with this sha256. facts: what the file is, in words; records: everybody's, for comparison."""
    mine = [group for group in grouped(records) if any(key[1] == sha256 for key in group.trials)]
    files = [record.place(t) for g in mine for key, trials in g.trials.items() if key[1] == sha256 for t in trials]
    return Card(
        title,
        facts,
        [_table(group, sha256) for group in mine],
        [(f"{group.named}.png", plots.png(plots.bars(group, headline(group), sha256))) for group in mine],
        commands,
        [f"Record: {file}" for file in files] or ["No trial of these weights is on record: bench transfer measures."],
    )


def _table(group: Group, sha256: str) -> tuple[str, list[str], list[tuple[bool, list[str]]]]:
    """All models of a group, best first; with published neighbours where the protocol is the paper's."""
    metrics = list(group.first["metrics"])
    head = headline(group)
    head = best if (best := f"{head}_best") in metrics else head  # as the papers of the linear protocols have it
    rows: list[tuple[float, bool, list[str]]] = []
    for trials in group.trials.values():
        sums = {m: stats.summary(v) for m in metrics if (v := [t["metrics"][m] for t in trials if m in t["metrics"]])}
        texts = [_value(sums.get(metric)) for metric in metrics]
        lead = sums[head].mean if head in sums else 0.0
        own = identity(trials[0])[1] == sha256
        rows.append((lead, own, [label(trials[0]["model"]), *texts, str(len(trials)), "measured"]))
    if group.papers(group.arch):
        mine = next(value for value, own, _ in rows if own)
        rows += [(value, False, texts) for value, texts in _neighbours(group, head, metrics, mine)]
    rows.sort(key=lambda row: -row[0])
    return group.described(), ["model", *metrics, "n", "source"], [row[1:] for row in rows]


def _value(total: stats.Summary | None) -> str:
    if total is None:
        return "–"
    return f"{total.mean:.2f}" + (f" ± {total.std:.2f}" if total.std is not None else "")


def _neighbours(group: Group, head: str, metrics: Sequence[str], value: float) -> list[tuple[float, list[str]]]:
    """The published figures of the protocol that are nearest above and below, and the supervised one."""
    of: dict[tuple[Any, ...], dict[str, str]] = {}
    for figure in published.figures():
        if figure.protocol == group.task and figure.backbone == group.arch:
            key = figure.method, figure.data, figure.epochs, figure.source, figure.note
            metric = best if (best := f"{figure.metric}_best") in metrics else figure.metric
            of.setdefault(key, {}).setdefault(metric, str(figure.value))
    known = sorted(((float(values[head]), key) for key, values in of.items() if head in values), key=lambda one: one[0])
    above = [one for one in known if one[0] > value][:NEIGHBOURS]
    below = [one for one in known if one[0] <= value][-NEIGHBOURS:]
    supervised = [one for one in known if one[1][0] == "supervised"][:1]
    chosen = list(dict.fromkeys([*above, *below, *supervised]))

    def row(key: tuple[Any, ...]) -> list[str]:
        name = f"{key[0]}, {key[1]}" + (f", {key[2]} epochs" if key[2] else "")
        return [name, *(of[key].get(metric, "–") for metric in metrics), "", key[3]]

    return [(figure, row(key)) for figure, key in chosen]


def markdown(card: Card) -> str:
    """The card as Markdown, this model's rows in bold; its plots stand beside it in plots/."""
    parts = [
        f"# {sheet.escaped(card.title)}",
        sheet.grid(["fact", "value"], [[k, sheet.escaped(v)] for k, v in card.facts], left=2),
    ]
    for heading, heads, rows in card.tables:
        filled = [[f"**{sheet.escaped(t)}**" if own and t else sheet.escaped(t) for t in texts] for own, texts in rows]
        parts += [f"## {sheet.sentence(heading)}", sheet.grid([sheet.escaped(h) for h in heads], filled)]
    parts += [f"![{name}](plots/{name})" for name, _ in card.plots]
    parts += ["## To make it again", "```sh\n" + "\n".join(card.commands) + "\n```"]
    return "\n\n".join(parts) + "\n\n" + "\n".join(f"- {sheet.escaped(note)}" for note in card.notes) + "\n"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ card.title }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; display: block; overflow-x: auto; }
.own { font-weight: bold; } th, td { padding: .25rem .7rem; border-bottom: 1px solid color-mix(in srgb, CanvasText 20%, Canvas); text-align: left; overflow-wrap: anywhere; }
img { max-width: 100%; background: #fff; } pre { overflow: auto; padding: .7rem; border: 1px solid; }
</style></head><body>
<h1>{{ card.title }}</h1>
<table>{% for name, value in card.facts %}<tr><th scope="row">{{ name }}</th><td>{{ value }}</td></tr>{% endfor %}</table>
{% for heading, heads, rows in card.tables %}<h2>{{ heading.replace("`", "") }}</h2>
<table><thead><tr>{% for head in heads %}<th scope="col">{{ head }}</th>{% endfor %}</tr></thead><tbody>
{% for own, texts in rows %}<tr{% if own %} class="own"{% endif %}>{% for text in texts %}<td>{{ text }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>{% endfor %}
{% for name, data in images %}<p><img alt="{{ name }}" src="data:image/png;base64,{{ data }}"></p>{% endfor %}
<h2>To make it again</h2><pre>{{ card.commands | join("\n") }}</pre>
<ul>{% for note in card.notes %}<li>{{ note }}</li>{% endfor %}</ul>
</body></html>
"""


def html(card: Card) -> str:
    """The card as a page that stands alone."""
    import jinja2

    images = [(name, base64.b64encode(data).decode()) for name, data in card.plots]
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(PAGE).render(card=card, images=images) + "\n"


def files(card: Card) -> Mapping[str, str | bytes]:
    """What to write into a folder."""
    return {"card.md": markdown(card), "card.html": html(card), **{f"plots/{name}": png for name, png in card.plots}}
