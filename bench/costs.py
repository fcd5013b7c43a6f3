"""What the MoCo and PixPro reports cost on 8, 64 and 512 GPUs, on paper: `bench costs`.

Counted from this project's own networks and protocols: trained parameters, channels of synchronised batch norm, gathered keys
and views, steps. Taken from others, and said so: seconds of a step on 8 V100 (`PUBLISHED`). Nothing here was measured on a GPU.

Volume, bytes that a GPU sends in a step among n GPUs:

    gradients       2 (n - 1) / n * 4 P                 ring all-reduce of P float32 parameters
    batch norm      (n - 1) * 4 (2C + L) + 2 (n - 1) / n * 4 * 2B       torch's SyncBatchNorm: mean, inverse deviation and count
                                                        gathered forward by L norms of C channels in all, two sums reduced
                                                        backward for B of them; each as often as it is passed in a step
    gathered        (n - 1) / n * G                     of views and keys, G bytes over all GPUs

Time of a step, where it is published for 8 GPUs (the exchange among those 8 is then within it):

    T(n) = T(8) * 8 / n + volume / bandwidth + 2 K latency log2 n       n > 8

with K collectives in a step: one for 25 MB of gradients (DistributedDataParallel's buckets), two for each synchronised norm and
pass, one for each gathering. Assumed: a batch that is split further takes proportionally less; nothing of the exchange is hidden
behind computation; latency grows as in a tree. So it is a bound from above for the exchange and from below for the computation.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bench import catalog, journey
from bench.preview import IMAGENET
from downstream import task as protocols

GPUS = (8, 64, 512)
BUCKET = 25e6  # bytes of gradients in a collective, torch's DistributedDataParallel bucket_cap_mb
TABLES = ("moco", "pixpro")
METHODS = ("moco", "pixpro")
ZOO = "facebookresearch/detectron2 MODEL_ZOO.md"

# Seconds of a step on 8 V100, and whose. detectron2's networks freeze batch norm and the first two stages where the protocols
# here train all and synchronise it, so its figures are bounds from below; MODEL_ZOO.md says 0.371 instead of 0.261 for the
# Mask R-CNN R50-FPN whose norms are synchronised (with four convolutions in its box head, as PixPro's).
PUBLISHED = {
    "voc_c4": (0.537, f"{ZOO}, R50-C4, VOC"),
    "coco_c4_1x": (0.584, f"{ZOO}, Mask R-CNN R50-C4 1x"),
    "coco_fpn_1x": (0.261, f"{ZOO}, Mask R-CNN R50-FPN 1x"),
    "coco_fpn_1x_pixpro": (0.371, f"{ZOO}, Mask R-CNN R50-FPN 3x, SyncBN"),
    "coco_keypoint_2x": (0.316, f"{ZOO}, Keypoint R-CNN R50-FPN 3x"),
    "coco_densepose": (
        0.307,
        "facebookresearch/detectron2 projects/DensePose/doc/DENSEPOSE_IUV.md, R_50_FPN_s1x_legacy",
    ),
    "lvis_v05_2x": (0.292, f"{ZOO}, LVIS Mask R-CNN R50-FPN 1x"),
    "cityscapes_instance": (0.240, f"{ZOO}, R50-FPN, Cityscapes"),
    # "53 hours" for 200 epochs of 5,004 steps
    "moco": (53 * 3600 / (200 * (IMAGENET // 256)), "facebookresearch/moco README.md, 53 hours for 200 epochs"),
}


@dataclass(frozen=True)
class Link:
    """Between GPUs of different machines, for each GPU; both are assumptions."""

    bandwidth: float = 12.5e9  # bytes a second: an adapter of 100 Gb/s for each GPU
    latency: float = 5e-6  # seconds


@dataclass(frozen=True)
class Work:
    """What one training does in a step.

    parameters: that are trained
    norms:      passes through synchronised norms
    channels:   of these in all
    backward:   channels of those that gradients come back through
    gathered:   bytes that all GPUs together give to each other, a number a collective
    """

    name: str
    batch: int
    views: int
    steps: int
    parameters: int
    norms: int
    channels: int
    backward: int
    gathered: tuple[int, ...]

    def volume(self, n: int) -> dict[str, float]:
        """Bytes that a GPU sends in a step."""
        ring = (n - 1) / n
        norms = (n - 1) * 4 * (2 * self.channels + self.norms) + 2 * ring * 4 * 2 * self.backward
        return {
            "gradients": 2 * ring * 4 * self.parameters,
            "batch_norm": norms,
            "gathered": ring * sum(self.gathered),
        }

    def seconds(self, n: int, link: Link) -> float | None:
        """Of a step on n GPUs; None where no figure for 8 is published or the batch does not fit n."""
        if self.name not in PUBLISHED or self.batch % n:
            return None
        published = PUBLISHED[self.name][0]
        if n == 8:
            return published
        collectives = math.ceil(4 * self.parameters / BUCKET) + 2 * self.norms + len(self.gathered)
        exchanged = sum(self.volume(n).values()) / link.bandwidth + 2 * collectives * link.latency * math.log2(n)
        return published * 8 / n + exchanged


def _norms(model: Any, passes: int) -> tuple[int, int, int]:
    """Passes through a network's trained norms, their channels, and channels with a gradient, in a step of `passes` views."""
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    backward = sum(m.num_features for m in norms if m.weight.requires_grad)
    return passes * len(norms), passes * sum(m.num_features for m in norms), passes * backward


def _trained(model: Any) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def transfer(name: str) -> Work:
    """A transfer of a ResNet-50 at the papers' scale, by its protocol."""
    task = journey.resolve(name, "paper", {})
    model = journey.engine(task).blank(task, "resnet50")
    synchronised = True
    if isinstance(task, protocols.Detection):
        synchronised = task.settings.get("MODEL.RESNETS.NORM", "FrozenBN") in journey.engine(task).SYNCHRONISED
    norms = _norms(model, 1) if synchronised else (0, 0, 0)
    steps, _ = protocols.iterations(task, IMAGENET)
    return Work(name, protocols.batch(task), 1, steps, _trained(model), *norms, ())


def pretraining(method: str) -> Work:
    """A pretraining of a ResNet-50 by its published recipe, on ImageNet."""
    import torch

    module = catalog.load("method", method)
    recipe = {"images": IMAGENET, "classes": 1000, **module.recipe(None)}
    with torch.device("meta"):
        model = module.METHOD("resnet50", recipe)
    batch, views = recipe["batch_size"], 2
    norms = _norms(model, views) if recipe.get("sync_bn") else (0, 0, 0)
    gathered: tuple[int, ...] = ()
    if recipe.get("queue"):  # shuffled batch norm gathers views and what the backbone makes of them; then the keys
        gathered = tuple(4 * batch * each for each in (3 * recipe["size"] ** 2, 2048, recipe["dim"]))
    steps = recipe["epochs"] * (IMAGENET // batch)
    return Work(method, batch, views, steps, _trained(model), *norms, gathered)


def tasks(table: str) -> list[str]:
    """The tasks of a report that this project has, in its order."""
    columns = [c.task for t in catalog.load("table", table).TABLES for c in t.columns]
    return [name for name in dict.fromkeys(columns) if name in catalog.names("task")]


def makespan(hours: Iterable[float], slots: int) -> float:
    """Until the last of some trials ends, the longest started first, as many at a time as there are slots."""
    ends = [0.0] * slots
    for each in sorted(hours, reverse=True):
        ends[ends.index(min(ends))] += each
    return max(ends)


def report(views: float | None = None, link: Link | None = None) -> dict[str, Any]:
    """{"transfers", "pretrainings", "tables"}: lists of plain values.

    views: of a pretraining that a core prepares in a second, as `bench speed views` measures; None leaves the cores out
    """
    link = link or Link()
    works = {name: transfer(name) for table in TABLES for name in tasks(table)}
    trials = {name: journey.resolve(name, "paper", {}).trials for name in works}
    rows = [_row(work, (8,), None, link) | {"trials": trials[name]} for name, work in works.items()]
    tables = []
    for table in TABLES:
        hours = {n: s * works[n].steps / 3600 for n in tasks(table) if (s := works[n].seconds(8, link)) is not None}
        each = [hours[name] for name in hours for _ in range(trials[name])]
        tables.append(
            {
                "table": table,
                "tasks": list(hours),
                "unknown": [name for name in tasks(table) if name not in hours],
                "trials": len(each),
                "gpu_hours": 8 * sum(each),
                # a trial's batch is shared by 8 GPUs, as in the papers; more of them run more trials at a time
                "hours": {n: makespan(each, n // 8) for n in GPUS},
            }
        )
    made = [_row(pretraining(name), GPUS, views, link) for name in METHODS]
    return {"transfers": rows, "pretrainings": made, "tables": tables}


def _row(work: Work, gpus: Sequence[int], views: float | None, link: Link) -> dict[str, Any]:
    on = {}
    for n in gpus:
        if work.batch % n:
            continue
        seconds = work.seconds(n, link)
        on[n] = {"bytes": work.volume(n), "seconds": seconds}
        if seconds is not None:
            each = work.batch * work.views / n / seconds  # views that a GPU takes in a second
            on[n] |= {"hours": seconds * work.steps / 3600, "gpu_hours": seconds * work.steps / 3600 * n}
            on[n] |= {"views_per_second": each} | ({"cores": each / views} if views else {})
    about = {"name": work.name, "batch": work.batch, "steps": work.steps, "parameters": work.parameters, "gpus": on}
    return about | {"source": PUBLISHED[work.name][1] if work.name in PUBLISHED else None}


def described(found: dict[str, Any]) -> str:
    """A report for a person."""
    lines = [
        "On paper: nothing of this was measured on a GPU. Steps of published seconds, on 8 V100, name their source.",
        "",
    ]
    heads = (
        "",
        "GPUs",
        "batch",
        "steps",
        "MB a step: gradients",
        "norm",
        "gathered",
        "s/step",
        "hours",
        "GPU-hours",
        "views/s",
    )
    rows: list[tuple[str, ...]] = [heads]
    for row in (*found["pretrainings"], *found["transfers"]):
        for n, on in row["gpus"].items():
            volume = (f"{on['bytes'][part] / 1e6:.1f}" for part in ("gradients", "batch_norm", "gathered"))
            time = [on.get(key) for key in ("seconds", "hours", "gpu_hours", "views_per_second")]
            numbers = ("unknown" if t is None else f"{t:.3g}" for t in time)
            cores = f" ({on['cores']:.1f} cores)" if "cores" in on else ""
            rows.append((row["name"], str(n), str(row["batch"]), str(row["steps"]), *volume, *numbers))
            rows[-1] = (*rows[-1][:-1], rows[-1][-1] + cores)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for cells in rows:
        lines.append(
            "  ".join(
                f"{c:<{w}}" if i == 0 else f"{c:>{w}}" for i, (c, w) in enumerate(zip(cells, widths, strict=True))
            )
        )
    lines.append("")
    for table in found["tables"]:
        hours = ", ".join(f"{value:.3g} h on {n}" for n, value in table["hours"].items())
        missing = (
            f"; without {', '.join(table['unknown'])}, for which nobody has published a time"
            if table["unknown"]
            else ""
        )
        lines.append(
            f"A row of table {table['table']} ({table['trials']} trials of {len(table['tasks'])} tasks): {table['gpu_hours']:.0f} "
            f"GPU-hours, {hours} GPUs, eight for each trial{missing}"
        )
    lines += ["", "Seconds of a step on 8 GPUs are published by:"]
    lines += [
        f"  {row['name']}: {row['source']}" for row in (*found["pretrainings"], *found["transfers"]) if row["source"]
    ]
    lines += [
        "detectron2's networks freeze batch norm, which most protocols here train: their seconds are bounds from below.",
        "A batch that so many GPUs cannot share, such as MoCo's 256 on 512, has no line; a transfer's 16 images stay on 8.",
        "More than 8 GPUs: T(n) = T(8) * 8 / n + bytes / bandwidth + 2 * collectives * latency * log2 n, nothing hidden.",
        "Bytes that a GPU sends: a ring's 2 (n - 1) / n of the gradients; bench/costs.py has all formulas.",
    ]
    return "\n".join(lines)
