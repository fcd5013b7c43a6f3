"""Numbers by citation: every line of `published/*.csv` is one printed figure with the document it was read in.

One file a group of sources. The same figure in two documents is two lines, and two that disagree both stand. "talk" is
Han Hu, Recent Progress on Self-Supervised Visual Representation Learning, November 2020, which reprints the papers' tables.

The files name tasks as their collector did; TASKS says which of this project's protocols, if any, a figure was made
under. What was made under another protocol keeps an id of its own, so that it meets no measured number. Only what every source
measures in its own way, as ImageNet linear classification, has one id for all, and `Figure.protocol` tells them apart.
"""

import csv
import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("published")
COLUMNS = ["method", "pretrain_data", "epochs", "arch", "task", "metric", "value", "source", "note"]

# (task in the files, what source or note must contain): this project's task. The first that fits counts.
TASKS: dict[tuple[str, str], str] = {
    # mmselfsup fine-tunes with mmdetection's and mmsegmentation's own configurations, DenseCL with mmsegmentation's
    ("voc_c4", "mmselfsup"): "voc_c4_mmdet",
    ("coco_fpn", "mmselfsup"): "coco_fpn_1x_mmdet",
    ("voc_sem", "mmselfsup"): "voc_semantic_fcn_d8",
    ("voc_sem", "DenseCL"): "voc_semantic_fcn_d8",
    # two box heads: MoCo's (2 FC) and PixPro's (4 conv, 1 FC, all normalised)
    ("coco_fpn", "protocol=moco_paper_fpn"): "coco_fpn_1x",
    ("coco_fpn", "protocol=fpn_4conv1fc_syncbn"): "coco_fpn_1x_pixpro",
    ("coco_fpn_2x", "protocol=fpn_4conv1fc_syncbn"): "coco_fpn_2x_pixpro",
    ("coco_fpn_6x", "protocol=fpn_4conv1fc_syncbn"): "coco_fpn_6x_pixpro",
    ("coco_c4", ""): "coco_c4_1x",
    ("coco_keypoint", ""): "coco_keypoint_2x",
    ("lvis_v05", ""): "lvis_v05_2x",
    ("cityscapes_inst", ""): "cityscapes_instance",
    ("cityscapes_sem", ""): "cityscapes_semantic",
    ("voc_sem", ""): "voc_semantic",
}

# One id for what every source measures in its own way: this project's protocol, if any, by what method, source and note contain.
RECIPES: dict[str, dict[str, str]] = {
    "imagenet_linear": {
        "facebookresearch/moco README": "imagenet_linear",
        "facebookresearch/simsiam README": "imagenet_linear_simsiam",
        "facebookresearch/swav README": "imagenet_linear_swav",
        "facebookresearch/barlowtwins README": "imagenet_linear_swav",
        "facebookresearch/moco-v3 README": "imagenet_linear_moco_v3",
        "facebookresearch/vicreg README": "imagenet_linear_vicreg",
        "HobbitLong/PyContrast README": "imagenet_linear_pycontrast",
    },
    "imagenet_knn": {},
    "imagenet_semi_1": {"simclr, talk: SimCLR Table 7": "imagenet_semi_1_simclr"},
    "imagenet_semi_10": {"simclr, talk: SimCLR Table 7": "imagenet_semi_10_simclr"},
    "voc07_svm": {"best layer feat5": "voc07_svm", "best layer feature5": "voc07_svm"},
}


@dataclass(frozen=True)
class Figure:
    """One printed figure."""

    method: str
    data: str  # of the pretraining: "IN-1K", "none", ...
    epochs: int | None  # of the pretraining; None: not stated, or not applicable
    arch: str  # as the source writes it
    task: str  # this project's name of the protocol, or of what is measured: `protocol`
    metric: str
    value: Decimal  # percent, with the digits that were printed
    source: str
    note: str

    @property
    def backbone(self) -> str:
        """One name for the ways to write ResNet-50 (R50-C4, RN50, ResNet50 (1x), ...); others as they are."""
        plain = re.fullmatch(r"(R50|RN50|ResNet-?50)(-C4|-FPN)?( ?\(?1[xX]\)?)?", self.arch)
        return "resnet50" if plain else self.arch

    @property
    def protocol(self) -> str | None:
        """The protocol of this project that the figure may be compared under; None: the source's own."""
        if self.task not in RECIPES:
            return self.task
        told = f"{self.method}, {self.source}; {self.note}"
        return next((task for part, task in RECIPES[self.task].items() if part in told), None)


@cache
def figures(folder: Path = FOLDER) -> tuple[Figure, ...]:
    """All printed figures, by file and line. Raises ValueError that names the line which is none."""
    found = []
    for file in sorted(folder.glob("*.csv")):
        with file.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            if reader.fieldnames != COLUMNS:
                raise ValueError(f"expected {file} to begin with {','.join(COLUMNS)}, found {reader.fieldnames}")
            for line in reader:
                try:
                    found.append(_figure(line))
                except (ValueError, InvalidOperation) as error:
                    raise ValueError(f"{file}, line {reader.line_num}: {error}") from error
    return tuple(found)


def _figure(line: dict[str, str]) -> Figure:
    value = Decimal(line["value"])
    if not value.is_finite() or not 0 <= value <= 100:
        raise ValueError(f"expected a percentage, found {line['value']!r}")
    if not line["source"]:
        raise ValueError("expected a source, found none: a number without one is not kept")
    return Figure(
        method=line["method"],
        data=line["pretrain_data"],
        epochs=int(line["epochs"]) if line["epochs"] else None,
        arch=line["arch"],
        task=_task(line["task"], f"{line['source']}; {line['note']}"),
        metric=line["metric"],
        value=value,
        source=line["source"],
        note=line["note"],
    )


def _task(name: str, evidence: str) -> str:
    return next((task for (told, part), task in TASKS.items() if told == name and part in evidence), name)


def disagreeing(figure: Figure) -> list[Figure]:
    """Figures of the same quantity that differ by more than rounding: same method, data, epochs, backbone, task, metric."""
    return [other for other in _by_quantity()[_quantity(figure)] if _differ(other.value, figure.value)]


def _quantity(figure: Figure) -> tuple[object, ...]:
    return figure.method, figure.data, figure.epochs, figure.backbone, figure.task, figure.metric


@cache
def _by_quantity() -> dict[tuple[object, ...], list[Figure]]:
    found: dict[tuple[object, ...], list[Figure]] = {}
    for figure in figures():
        found.setdefault(_quantity(figure), []).append(figure)
    return found


def _differ(a: Decimal, b: Decimal) -> bool:
    digits = min(-int(a.as_tuple().exponent), -int(b.as_tuple().exponent))
    return abs(a - b) > Decimal(5).scaleb(-digits - 1)
