"""The plots people look for, as SVG and PNG: progress over the years, does linear accuracy agree with detection, error bars, curves.

A published point is the best figure that the sources print for a method (ResNet-50, ImageNet-1K), set at the month of the
method's first preprint. Measured bars are means over trials, their error bars the standard deviation.
"""

import io
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from results import published, record, stats
from results.groups import Group, Record, grouped, headline, joined, label, protocols

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The method's first preprint on arXiv, whose number begins with year and month.
PREPRINTS = {
    "relative_loc": "1505.05192",
    "jigsaw": "1603.09246",
    "rotation": "1803.07728",
    "instdis": "1805.01978",
    "deepcluster": "1807.05520",
    "moco_v1": "1911.05722",
    "pirl": "1912.01991",
    "simclr": "2002.05709",
    "moco_v2": "2003.04297",
    "infomin": "2005.10243",
    "byol": "2006.07733",
    "swav": "2006.09882",
    "deepcluster_v2": "2006.09882",
    "sela_v2": "2006.09882",
    "simclr_v2": "2006.10029",
    "pic": "2006.14618",
    "densecl": "2011.09157",
    "pixpro": "2011.10043",
    "simsiam": "2011.10566",
    "barlow_twins": "2103.03230",
    "moco_v3": "2104.02057",
    "clsa": "2104.07713",
    "dino": "2104.14294",
    "vicreg": "2105.04906",
}
SECOND_HAND = "second-hand"  # in a source: not read in the document itself, so not plotted
NAMED = 60  # models in one plot: as bars they are some twenty inches high


def month(method: str) -> float:
    """The month of a method's preprint in years, such as 2019.83 for November 2019."""
    number = PREPRINTS[method]
    return round(2000 + int(number[:2]) + (int(number[2:4]) - 1) / 12, 2)


def best(task: str, metric: str) -> dict[str, float]:
    """Every method's best published figure, ResNet-50 pretrained on ImageNet-1K."""
    found: dict[str, float] = {}
    for figure in published.figures():
        named = figure.method in PREPRINTS or figure.method == "supervised"
        wanted = (figure.backbone, figure.data, figure.task, figure.metric) == ("resnet50", "IN-1K", task, metric)
        if named and wanted and SECOND_HAND not in figure.source:
            found[figure.method] = max(found.get(figure.method, 0.0), float(figure.value))
    return found


def progress(task: str, metric: str, title: str, supervised: float) -> "Figure":
    """Figures over time, and the best so far as a line."""
    figure, axes = _axes(title, "", f"{metric} (%)")
    points = sorted(
        (month(method), value, method) for method, value in best(task, metric).items() if method in PREPRINTS
    )
    top, steps = 0.0, []
    axes.plot([p[0] for p in points], [p[1] for p in points], "o", color="C0", markersize=4)
    for when, value, _ in points:
        if value > top:
            top = value
            steps.append((when, value))
    axes.step([s[0] for s in steps], [s[1] for s in steps], where="post", color="C0", alpha=0.5, label="best so far")
    axes.axhline(supervised, color="C3", linestyle="--", label=f"supervised {supervised:g}")
    axes.legend(loc="lower right", fontsize=8)
    _labelled(axes, points)
    return figure


def agreement() -> "Figure":
    """Published linear accuracy against VOC AP: one point a method."""
    figure, axes = _axes(
        "Does linear accuracy agree with detection?", "ImageNet linear top-1 (%)", "VOC07+12 C4 AP (%)"
    )
    linear, voc = best("imagenet_linear", "top1"), best("voc_c4", "AP")
    both = sorted(set(linear) & set(voc))
    axes.plot([linear[m] for m in both], [voc[m] for m in both], "o", color="C0", markersize=4, label="published")
    axes.legend(loc="upper left", fontsize=8)
    _labelled(axes, [(linear[method], voc[method], method) for method in both])
    return figure


def measured_agreement(join: Mapping[str, Group]) -> "Figure":
    """The same of the models that were measured on both under one protocol each; the best `NAMED` in detection have their names."""
    group, other = join["imagenet_linear"], join["voc_c4"]
    names = protocols({task: join[task] for task in ("imagenet_linear", "voc_c4")})
    figure, axes = _axes(f"Linear accuracy against detection: {names}", "ImageNet linear top-1 (%)", "VOC AP (%)")
    accuracies, precisions = _means(group, "top1"), _means(other, "AP")
    keys = sorted(accuracies.keys() & precisions.keys(), key=lambda key: (precisions[key].mean, key))
    xs, ys = [accuracies[key] for key in keys], [precisions[key] for key in keys]
    xerr, yerr = [x.std or 0 for x in xs], [y.std or 0 for y in ys]
    axes.errorbar([x.mean for x in xs], [y.mean for y in ys], yerr, xerr, fmt="o", color="C0", markersize=4)
    words = [_short(label(group.trials[key][0]["model"])) for key in keys]
    _labelled(axes, [(x.mean, y.mean, name) for x, y, name in zip(xs, ys, words, strict=True)][-NAMED:])
    return figure


def _short(name: str) -> str:
    """A name that leaves room for the plot; its end, which tells the weights, stays."""
    return name if len(name) <= 60 else f"{name[:40]} ... {name[-15:]}"


def _means(group: Group, metric: str) -> dict[tuple[str, str], stats.Summary]:
    """Of the models that have trials with this metric."""
    values = {
        key: [trial["metrics"][metric] for trial in trials if metric in trial["metrics"]]
        for key, trials in group.trials.items()
    }
    return {key: stats.summary(found) for key, found in values.items() if found}


def bars(group: Group, metric: str, also: str | None = None) -> "Figure":
    """A task's models: mean and standard deviation over trials; the best `NAMED` where there are more, which the title says.

    also: the sha256 of weights that are among them in any case
    """
    having = _means(group, metric)
    order = sorted(having, key=lambda key: having[key].mean)
    order = [key for place, key in enumerate(order, NAMED - len(order)) if place >= 0 or key[1] == also]
    names = [_short(label(group.trials[key][0]["model"])) for key in order]
    spread = [having[key].std or 0.0 for key in order]
    title = f"{protocols({group.task: group})}, {group.arch}"
    title += f": the best {NAMED} of {len(having)} models" if len(having) > NAMED else ""
    figure, axes = _axes(title, f"{metric} (%)", "")
    axes.barh(range(len(order)), [having[key].mean for key in order], xerr=spread, color="C0", alpha=0.75, capsize=3)
    axes.set_yticks(range(len(order)), names, parse_math=False)
    for place, key in enumerate(order):
        axes.annotate(f" n={having[key].n}", (0, place), va="center", fontsize=7)
    figure.set_size_inches(6.4, 1.4 + 0.3 * len(order))
    return figure


def curves(root: Path, trials: Sequence[Record]) -> "Figure | None":
    """Training losses of the runs whose log.jsonl stands beside their record; None where none does.

    The first `NAMED` where there are more, which the title says.
    """
    logs = {
        f"{label(t['model'])}, seed {t['seed']}": (root / record.place(t)).with_suffix("") / "log.jsonl" for t in trials
    }
    files = {name: file for name, file in logs.items() if file.is_file()}
    lines = {name: _log(file) for name, file in [*files.items()][:NAMED]}
    if not any(lines.values()):
        return None
    title = f"Training loss on {trials[0]['protocol']['name']}"
    title += f": {NAMED} of {len(files)} runs" if len(files) > NAMED else ""
    figure, axes = _axes(title, "iteration", "loss")
    for name, points in lines.items():
        axes.plot([p[0] for p in points], [p[1] for p in points], label=name, linewidth=1)
    # beside the curves, for many names would cover them; handles are named, for without it _x has no entry
    legend = figure.legend(axes.get_lines(), map(_short, lines), loc="outside right upper", fontsize=7)
    for text in legend.get_texts():
        text.set_parse_math(False)
    figure.set_size_inches(9.6, max(4.2, 0.6 + 0.15 * len(lines)))
    return figure


def _log(file: Path) -> list[tuple[float, float]]:
    points = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            points.append((float(entry["iteration"]), float(entry["loss"])))
        except (ValueError, KeyError, TypeError):
            continue  # a line that a killed process left unfinished
    return points


def every(records: Sequence[Record], root: Path | None = None) -> dict[str, "Figure"]:
    """All plots by file name."""
    voc, linear = best("voc_c4", "AP")["supervised"], 76.1  # the talk's InfoMin table
    found = {
        "progress_imagenet_linear": progress(
            "imagenet_linear", "top1", "Progress on ImageNet linear classification", linear
        ),
        "progress_voc": progress("voc_c4", "AP", "Progress on PASCAL VOC detection, R50-C4", voc),
        "linear_against_voc": agreement(),
    }
    for number, join in enumerate(joined(grouped(records), ["imagenet_linear", "voc_c4"]), 1):
        if {"imagenet_linear", "voc_c4"} <= set(join):
            found[f"linear_against_voc_measured_{number}"] = measured_agreement(join)
    for group in grouped(records):
        found[f"bars_{group.named}"] = bars(group, headline(group))
        if root and (figure := curves(root, [trial for trials in group.trials.values() for trial in trials])):
            found[f"curves_{group.named}"] = figure
    return found


def _labelled(axes: "Axes", points: Sequence[tuple[float, float, str]]) -> None:
    """Names beside points, each at the first of a few places where it covers no other name."""
    axes.margins(x=0.12, y=0.08)
    axes.figure.draw_without_rendering()  # type: ignore[union-attr]  # the transform below needs the final limits
    taken: list[tuple[float, float, float, float]] = []
    scale = 72 / axes.figure.dpi  # pixels to points
    for x, y, name in sorted(points, key=lambda p: (-p[1], p[0])):
        at, width = axes.transData.transform((x, y)) * scale, 4.0 * len(name)
        places = [(dx, dy) for dy in (3, -8, 11, -16, 19, -24) for dx in (4, -width - 4)]
        boxes = [(at[0] + dx, at[1] + dy, at[0] + dx + width, at[1] + dy + 7) for dx, dy in places]
        free = [not any(_overlap(box, other) for other in taken) for box in boxes]
        chosen = free.index(True) if True in free else 0
        taken.append(boxes[chosen])
        axes.annotate(name, (x, y), places[chosen], textcoords="offset points", fontsize=7, parse_math=False)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def svg(figure: "Figure") -> str:
    """The figure as an <svg> element; the same figure gives the same text. A sign that XML cannot hold becomes a question mark."""
    text = _drawn(figure, "svg").decode()
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "?", text[text.index("<svg") :])


def png(figure: "Figure") -> bytes:
    return _drawn(figure, "png")


def _drawn(figure: "Figure", kind: str) -> bytes:
    import matplotlib

    file = io.BytesIO()
    salt = figure.axes[0].get_title()
    with matplotlib.rc_context({"svg.hashsalt": salt, "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a name's, which matplotlib's font has not
        figure.savefig(file, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {})
    return file.getvalue()


def _axes(title: str, x: str, y: str) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=10, parse_math=False)  # a name with two $ is no formula
    axes.set_xlabel(x, parse_math=False)
    axes.set_ylabel(y, parse_math=False)
    axes.grid(alpha=0.25)
    return figure, axes
