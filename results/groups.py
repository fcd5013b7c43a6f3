"""Which measured trials may be compared: those of one protocol, one set of data and one backbone, and no others.

A group is such a set of trials, by model. A table over several tasks puts groups of different tasks side by side and joins
their rows by model.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from results.record import plain

Record = Mapping[str, Any]

# Images of the papers' own splits, by detectron2's names: what a file lists, with or without annotations.
SPLITS = {
    "voc_2007_trainval": 5011,
    "voc_2012_trainval": 11540,
    "voc_2007_test": 4952,
    "coco_2017_train": 118287,
    "coco_2017_val": 5000,
    "keypoints_coco_2017_train": 118287,
    "keypoints_coco_2017_val": 5000,
    "densepose_coco_2014_train": 26437,
    "densepose_coco_2014_valminusminival": 5984,
    "densepose_coco_2014_minival": 1508,
    "lvis_v0.5_train": 57263,  # this and the next are recalled: unverified
    "lvis_v0.5_val": 5000,
    "lvis_v1_train": 100170,
    "lvis_v1_val": 19809,
    "cityscapes_fine_instance_seg_train": 2975,
    "cityscapes_fine_instance_seg_val": 500,
}
# Training and test images for records that do not tell their splits' sizes.
# COCO's training set counts with or without the images that have no annotation.
IMAGES: dict[str, tuple[tuple[int, ...], int]] = {
    "voc_c4": ((16551,), 4952),
    **dict.fromkeys(
        ("coco_c4_1x", "coco_c4_2x", "coco_fpn_1x", "coco_fpn_2x", "coco_fpn_1x_pixpro"), ((118287, 117266), 5000)
    ),
    **dict.fromkeys(("cityscapes_semantic", "cityscapes_instance"), ((2975,), 500)),
    "voc_semantic": ((10582,), 1449),
    **dict.fromkeys(
        (
            "imagenet_linear",
            *(f"imagenet_linear_{of}" for of in ("simsiam", "swav", "moco_v3", "vicreg", "simclr", "pycontrast")),
            "imagenet_knn",
        ),
        ((1281167,), 50000),
    ),
    **dict.fromkeys(("imagenet_semi_1", "imagenet_semi_1_simclr"), ((12811,), 50000)),
    **dict.fromkeys(("imagenet_semi_10", "imagenet_semi_10_simclr"), ((128116,), 50000)),
    "voc07_svm": ((5011,), 4952),
}


def whole(task: str, data: Mapping[str, Any]) -> bool:
    """Whether a record's `data` is the papers' own set and not a reduced one, by the numbers of its images.

    A list of the labelled images counts only where it is the published one.
    """
    if "labels" in data and not str(data["labels"]).endswith(", as SimCLR published it"):
        return False
    if splits := data.get("splits"):
        return all(SPLITS.get(name) == images for name, images in splits.items())
    train, test = IMAGES.get(task, ((), 0))
    return data["train"] in train and data["test"] == test


# The metric a task is known by; a task that is not here is known by its record's first one.
HEADLINES = {
    "voc_c4": "AP",
    **dict.fromkeys(("coco_fpn_1x", "coco_fpn_2x", "coco_fpn_1x_pixpro", "coco_c4_1x", "coco_c4_2x"), "APbb"),
    "coco_keypoint_2x": "APkp",
    "coco_densepose": "APdp",
    **dict.fromkeys(("lvis_v05_1x", "lvis_v05_2x", "lvis_v1_1x", "cityscapes_instance"), "APmk"),
    "cityscapes_semantic": "mIoU",
    "voc_semantic": "mIoU",
    "imagenet_linear": "top1",
    "imagenet_knn": "top1",
    **dict.fromkeys(
        ("imagenet_semi_1", "imagenet_semi_10", "imagenet_semi_1_simclr", "imagenet_semi_10_simclr"), "top5"
    ),
    "voc07_svm": "mAP",
}


@dataclass(frozen=True)
class Group:
    """Trials of one task that may be compared: one protocol, one set of data, one backbone."""

    task: str
    hash: str
    digest: str
    arch: str
    trials: dict[tuple[str, str], list[Record]] = field(compare=False)  # by model

    @property
    def first(self) -> Record:
        return next(iter(self.trials.values()))[0]

    def union(self, key: str) -> list[str]:
        """What any of the trials has in a list, sorted."""
        return sorted({item for trials in self.trials.values() for trial in trials for item in trial[key]})

    @property
    def kind(self) -> tuple[str, bool, str]:
        return self.first["scale"], bool(self.union("nonstandard")), self.arch

    @property
    def named(self) -> str:
        """A name for files about the group."""
        return f"{self.task}_{self.hash[:8]}_{plain(self.digest[:8])}_{plain(self.arch)}"

    def papers(self, arch: str) -> bool:
        """Whether this is the paper's protocol on the paper's data."""
        return (
            self.kind == ("paper", False, arch)
            and not {"mini", "reduced", "nonstandard"} & set(self.union("marks"))
            and whole(self.task, self.first["data"])
        )

    def described(self) -> str:
        data, marks = self.first["data"], {*self.union("marks")} - {"nonstandard"}
        marks |= set() if whole(self.task, data) else {"reduced"}  # which the first records were not marked as
        changed = self.union("nonstandard")
        return (
            f"`{self.first['protocol']['name']}`, protocol {self.hash[:12]}, data {self.digest[:8]} "
            f"({data['train']} training and {data['test']} test images), {self.arch}"
            + (f", {', '.join(sorted(marks))}" if marks else "")
            + (f", nonstandard: {', '.join(changed)}" if changed else "")
        )


def identity(trial: Record) -> tuple[str, str]:
    """What tells one model from another: its name and its weights; random weights have none and share a row."""
    return trial["model"]["name"], trial["model"]["sha256"] or ""


def headline(group: Group) -> str:
    """The metric a group is known by."""
    metrics = group.first["metrics"]
    return next(m for m in (HEADLINES.get(group.task), *metrics) if m in metrics)


def said(model: Record, key: str) -> str:
    """What a checkpoint says about itself, as one line of text; nothing if it says nothing."""
    value = model.get(key)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def label(model: Record) -> str:
    """A measured model in words: name, what its name does not say, and the first eight digits of its weights' sha256."""
    more = [text for key in ("method", "variant") if (text := said(model, key)) and text not in model["name"]]
    more += [f"{said(model, 'epochs')} epochs"] if model.get("epochs") else []
    words = [model["name"], f"({', '.join(more)})" if more else "", (model["sha256"] or "")[:8]]
    return " ".join(word for word in words if word)


def grouped(records: Iterable[Record]) -> list[Group]:
    """The records in groups that may be compared, in a stable order. Raises ValueError if two are the same trial."""
    found: dict[tuple[str, str, str, str], Group] = {}
    seen: set[tuple[Any, ...]] = set()
    for trial in sorted(records, key=lambda r: (r["task"], r["protocol"]["hash"], r["data"]["digest"], r["seed"])):
        key = trial["task"], trial["protocol"]["hash"], trial["data"]["digest"], trial["model"]["arch"]
        if key not in found:
            found[key] = Group(*key, trials={})
        model = identity(trial)
        if (one := (key, model, trial["seed"])) in seen:
            raise ValueError(
                f"expected one record of seed {trial['seed']} of {trial['model']['name']} on "
                f"{trial['protocol']['name']}, found two: are the results of two runs in one folder?"
            )
        seen.add(one)
        found[key].trials.setdefault(model, []).append(trial)
    return list(found.values())


def joined(groups: Sequence[Group], tasks: Sequence[str]) -> list[dict[str, Group]]:
    """Groups of different tasks side by side, in the order of `tasks`: of one scale and backbone, with models in common.

    Each task has one group at most in every join, and each group stands in one join.
    """
    # of a task, what a table's own recipe measured before what another did, so that the own ones come together
    rest = sorted(groups, key=lambda g: (-len(g.trials), g.task, g.task == g.first["task"], g.hash, g.digest))
    joins = []
    while rest:
        seed = rest.pop(0)
        join, models = {seed.task: seed}, set(seed.trials)
        while fitting := [g for g in rest if g.task not in join and g.kind == seed.kind and models & set(g.trials)]:
            best = max(fitting, key=lambda g: len(models & set(g.trials)))
            rest.remove(best)
            join[best.task] = best
            models |= set(best.trials)
        joins.append({task: join[task] for task in tasks if task in join})
    return joins


def protocols(join: Mapping[str, Group]) -> str:
    """The names of a join's protocols."""
    return ", ".join(group.first["protocol"]["name"] for group in join.values())
