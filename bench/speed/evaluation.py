"""From detections in memory to the numbers of a table, against the code that everybody uses, which must find the same numbers.

coco      boxes and masks of 100 detections an image, against pycocotools' COCOeval: 8 times, equal to the bit. Both read
          the annotation file and both begin with the list in COCO's results format
voc       boxes of 4,952 images at 10 overlaps, against detectron2's evaluator: 20 times, equal to the bit. Annotations are
          read beforehand: detectron2 keeps its XML files parsed from the unmeasured call on
lvis      boxes and masks of 300 detections an image, against lvis-api, timed as coco is: 8 times, equal to the bit
miou      500 label maps of 1024x2048, against mmseg's IoUMetric: 3 times, the same number of pixels everywhere

The scenes are drawn here, the same each time: objects of 24 corners, detections near them and elsewhere, of which many have
equal scores. With 5,000 images, as many as COCO's test split has, the official code takes its time: `coco` about ten minutes in all,
`lvis` about twenty.
"""

import contextlib
import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.speed import Row, faster

COCO_IMAGES, COCO_CLASSES, COCO_DETECTIONS = 5_000, 80, 100
LVIS_IMAGES, LVIS_CLASSES, LVIS_DETECTIONS = 5_000, 1_203, 300
VOC_IMAGES, VOC_DETECTIONS = 4_952, 30
MAPS, CLASSES = 500, 19
WIDTH, HEIGHT, CORNERS = 640, 480, 24
KINDS = (("bbox", "boxes"), ("segm", "masks"))

Array = np.ndarray[Any, Any]
Metrics = Mapping[str, float]


def coco(folder: Path, images: int = COCO_IMAGES) -> list[Row]:
    """Boxes, then masks."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    from downstream.evaluation import coco as ours

    file = folder / "instances.json"
    content, detections = _scenes(images, COCO_CLASSES, COCO_DETECTIONS)
    file.write_text(json.dumps(content))

    def official(results: list[dict[str, Any]], kind: str) -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO(str(file))
            run = COCOeval(truth, truth.loadRes(results), kind)
            run.evaluate()
            run.accumulate()
            run.summarize()
        return [100 * value for value in run.stats[:3]]

    return [
        _compared("coco", f"pycocotools, {name} of {images:,} images", detections, kind, file, ours.evaluate, official)
        for kind, name in KINDS
    ]


def lvis(folder: Path, images: int = LVIS_IMAGES) -> list[Row]:
    """Boxes, then masks. Raises ModuleNotFoundError without the package lvis."""
    from downstream.evaluation import lvis as ours

    np.float = float  # type: ignore[attr-defined]  # lvis 0.5.3 was written for a numpy before 1.24
    try:
        api = importlib.import_module("lvis")
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(f"expected lvis-api, found no {missing.name}: pip install --no-deps lvis") from None

    logging.getLogger("lvis").setLevel(logging.ERROR)
    file = folder / "lvis.json"
    content, detections = _scenes(images, LVIS_CLASSES, LVIS_DETECTIONS, federated=True)
    file.write_text(json.dumps(content))

    def official(results: list[dict[str, Any]], kind: str) -> list[float]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            truth = api.LVIS(str(file))
            run = api.LVISEval(truth, api.LVISResults(truth, results), kind)
            run.run()
        names = ("AP", "AP50", "AP75") if kind == "bbox" else ("AP", "AP50", "AP75", "APr", "APc", "APf")
        return [100 * run.get_results()[name] for name in names]

    return [
        _compared("lvis", f"lvis-api, {name} of {images:,} images", detections, kind, file, ours.evaluate, official)
        for kind, name in KINDS
    ]


def _compared(
    part: str,
    against: str,
    detections: Sequence[dict[str, Any]],
    kind: str,
    file: Path,
    evaluate: Callable[[Sequence[dict[str, Any]], Path, str], Metrics],
    official: Callable[[list[dict[str, Any]], str], list[float]],
) -> Row:
    """A row of two evaluations of the same list, whose metrics must be the same to the bit."""
    found: dict[str, list[float]] = {}
    other = "segmentation" if kind == "bbox" else "bbox"  # the official code would take a mask's size from its box

    def ours() -> None:
        found["ours"] = list(evaluate(detections, file, kind).values())

    def theirs() -> None:
        results = [{key: value for key, value in d.items() if key != other} for d in detections]  # it writes into them
        found["theirs"] = official(results, kind)

    row = faster(part, against, 8, ours, theirs)
    if found["ours"] != found["theirs"]:
        raise ValueError(f"expected the metrics of {against} {found['theirs']}, found {found['ours']}")
    return row


def voc(folder: Path, images: int = VOC_IMAGES) -> list[Row]:
    """VOC2007's rules, through detectron2's text files."""
    import torch
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.structures import Boxes, Instances

    from downstream.datasets import VOC_CLASSES
    from downstream.evaluation import voc as ours

    records, predictions = _voc_scenes(images, len(VOC_CLASSES))
    _write_voc(records, VOC_CLASSES, folder)
    name = f"bench-speed-{folder.name}"
    MetadataCatalog.get(name).set(dirname=str(folder), split="test", year=2007, thing_classes=list(VOC_CLASSES))
    outputs = []
    for boxes, scores, labels in predictions.values():
        instances = Instances((HEIGHT, WIDTH))
        instances.pred_boxes, instances.scores = Boxes(torch.from_numpy(boxes)), torch.from_numpy(scores)
        instances.pred_classes = torch.from_numpy(labels)
        outputs.append({"instances": instances})
    inputs = [{"image_id": image_id} for image_id in predictions]
    evaluator, found = PascalVOCDetectionEvaluator(name), {}

    def official() -> None:
        evaluator.reset()
        for one, output in zip(inputs, outputs, strict=True):
            evaluator.process([one], [output])
        found["theirs"] = {key: float(value) for key, value in evaluator.evaluate()["bbox"].items()}

    def mine() -> None:
        found["ours"] = ours.evaluate(predictions, records, len(VOC_CLASSES), 2007)

    row = faster("voc", f"detectron2's evaluator, {images:,} images", 20, mine, official)
    MetadataCatalog.pop(name)
    if found["ours"] != found["theirs"]:
        raise ValueError(f"expected detectron2's {found['theirs']}, found {found['ours']}")
    return [row]


def miou(folder: Path, maps: int = MAPS) -> list[Row]:
    """Predictions of 64 bits, as argmax gives them, and label maps of 8; ten pairs in turn, so that they fit in memory."""
    import torch

    from downstream import segmentation  # noqa: F401  makes mmseg importable without mmcv's compiled operators
    from downstream.evaluation import miou as ours

    from mmseg.evaluation import IoUMetric  # isort: skip

    pairs = _label_maps(10)
    samples = [
        {"pred_sem_seg": {"data": torch.from_numpy(guess)[None]}, "gt_sem_seg": {"data": torch.from_numpy(truth)[None]}}
        for guess, truth in pairs
    ]
    found: dict[str, Array] = {}

    def official() -> None:
        metric = IoUMetric(prefix="")
        metric.dataset_meta = {"classes": [str(number) for number in range(CLASSES)]}
        for number in range(maps):
            metric.process({}, [samples[number % len(samples)]])
        areas = [torch.stack(part) for part in zip(*metric.results, strict=True)]
        metric.total_area_to_metrics(*(part.sum(0) for part in areas))
        found["theirs"] = np.stack([part.double().sum(0).numpy() for part in areas[:2]])

    def mine() -> None:
        counts = np.zeros((CLASSES, CLASSES), np.int64)
        for number in range(maps):
            counts += ours.confusion(*pairs[number % len(pairs)], CLASSES)
        ours.miou(counts)
        both = np.diag(counts)
        found["ours"] = np.stack([both, counts.sum(0) + counts.sum(1) - both])

    row = faster("miou", f"mmseg's IoUMetric, {maps:,} maps of 1024x2048", 3, mine, official)
    if not np.array_equal(found["ours"], found["theirs"]):
        raise ValueError(f"expected mmseg's intersections and unions {found['theirs']}, found {found['ours']}")
    return [row]


def _scenes(
    images: int, classes: int, detections: int, federated: bool = False
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A file of COCO's or LVIS' form, with 2 to 16 objects of up to 4 classes an image, and detections of boxes and masks."""
    rng = np.random.default_rng(0)
    count = rng.integers(2, 17, images)
    owner = np.repeat(np.arange(images), count)
    shown = (rng.random((images, 4)) ** 2 * classes).astype(int)  # some classes are frequent
    label = shown[owner, rng.integers(0, 4, len(owner))]
    size = np.exp(rng.uniform(np.log(16), np.log(300), (len(owner), 1)))
    middle = rng.uniform(0, 1, (len(owner), 2)) * [WIDTH, HEIGHT]
    shapes = _outline(rng, middle, size)

    first = np.cumsum(count) - count
    picture = np.repeat(np.arange(images), detections)
    near = first[picture] + (rng.random(len(picture)) * count[picture]).astype(int)
    loose = rng.random((len(picture), 1)) < 0.3
    guessed = middle[near] + size[near] * rng.normal(size=(len(picture), 2)) * rng.choice(
        [0.02, 0.1, 0.4], (len(picture), 1)
    )
    guessed = np.where(loose, rng.uniform(0, 1, guessed.shape) * [WIDTH, HEIGHT], guessed)
    found_shapes = _outline(rng, guessed, size[near] * rng.uniform(0.8, 1.25, (len(picture), 1)))
    among = shown[picture, rng.integers(0, 4, len(picture))]
    found_label = np.where(rng.random(len(picture)) < 0.7, label[near], among)
    strange = rng.random(len(picture)) < (0.5 if federated else 0.1)
    found_label[strange] = rng.integers(0, classes, strange.sum())
    scores = rng.integers(50, 1000, len(picture)) / 1000

    crowd = (rng.random(len(owner)) < 0.01) & (not federated)
    annotations = [
        entry | {"id": number, "iscrowd": int(alone), "segmentation": mask if alone else [outline]}
        for number, (entry, mask, outline, alone) in enumerate(
            zip(
                _entries(owner, label, shapes),
                _masks(shapes),
                shapes.reshape(len(owner), -1).tolist(),
                crowd,
                strict=True,
            ),
            1,
        )
    ]
    results = [
        entry | {"score": score, "segmentation": mask}
        for entry, score, mask in zip(
            _entries(picture, found_label, found_shapes), scores.tolist(), _masks(found_shapes), strict=True
        )
    ]
    for entry in results:
        del entry["area"]
    pictures: list[dict[str, Any]] = [
        {"id": number, "width": WIDTH, "height": HEIGHT} for number in range(1, images + 1)
    ]
    kinds = [
        {"id": number, "name": str(number), "frequency": "fcr"[number * 3 // (classes + 1)]}
        for number in range(1, classes + 1)
    ]
    if federated:
        for entry, mine in zip(pictures, shown, strict=True):
            others = np.setdiff1d(rng.integers(1, classes + 1, 10), mine + 1)
            entry |= {"neg_category_ids": others.tolist(), "not_exhaustive_category_ids": [int(mine[0]) + 1]}
    return {"images": pictures, "annotations": annotations, "categories": kinds, "info": {}}, results


def _outline(rng: np.random.Generator, middle: Array, size: Array) -> Array:
    """[N, CORNERS, 2] x, y in the picture: rough discs around points [N, 2], of these diameters [N, 1]."""
    turn = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    radius = size / 2 * rng.uniform(0.7, 1.0, (len(size), CORNERS))
    corners = middle[:, None] + radius[..., None] * np.stack([np.cos(turn), np.sin(turn)], 1)
    return np.clip(corners, 0, [WIDTH, HEIGHT]).round(1)


def _entries(owner: Array, label: Array, shapes: Array) -> list[dict[str, Any]]:
    """Ids from 1, box and size of each outline."""
    low, high = shapes.min(1), shapes.max(1)
    boxes = np.concatenate([low, high - low], 1)
    area = boxes[:, 2] * boxes[:, 3] * 0.7
    return [
        {"image_id": image, "category_id": kind, "bbox": box, "area": size}
        for image, kind, box, size in zip(
            (owner + 1).tolist(), (label + 1).tolist(), boxes.tolist(), area.tolist(), strict=True
        )
    ]


def _masks(shapes: Array) -> list[dict[str, Any]]:
    """COCO's run lengths of each outline."""
    from pycocotools import mask

    outlines = shapes.reshape(len(shapes), -1)
    found = []
    for start in range(0, len(outlines), 1_000):
        found += mask.frPyObjects(outlines[start : start + 1_000].tolist(), HEIGHT, WIDTH)
    return [m | {"counts": m["counts"].decode()} for m in found]


def _voc_scenes(images: int, classes: int) -> tuple[list[dict[str, Any]], dict[str, tuple[Array, Array, Array]]]:
    """Records as `downstream.datasets.records` has them, of 1 to 5 objects, and detections of each image."""
    rng = np.random.default_rng(0)
    records, predictions = [], {}
    for number in range(images):
        low = rng.integers(1, 200, (rng.integers(1, 6), 2))
        boxes = np.concatenate([low, low + rng.integers(10, 250, low.shape)], 1)
        labels = rng.integers(0, classes, len(boxes))
        near = rng.integers(0, len(boxes), VOC_DETECTIONS)
        spread = rng.choice([1, 5, 30, 100], (VOC_DETECTIONS, 1))
        guesses = np.sort((boxes[near] + rng.normal(size=(VOC_DETECTIONS, 4)) * spread).reshape(-1, 2, 2), 1).reshape(
            -1, 4
        )
        kinds = np.where(rng.random(VOC_DETECTIONS) < 0.7, labels[near], rng.integers(0, classes, VOC_DETECTIONS))
        scores = rng.uniform(0.05, 1, VOC_DETECTIONS)
        name = f"{number:06d}"
        objects = [
            {"category_id": label, "bbox": [float(x - 1), float(y - 1), float(right), float(bottom)], "difficult": hard}
            for label, (x, y, right, bottom), hard in zip(
                labels.tolist(), boxes.tolist(), (rng.random(len(boxes)) < 0.15).astype(int).tolist(), strict=True
            )
        ]
        records.append({"image_id": name, "annotations": objects})
        predictions[name] = guesses.astype(np.float32), scores.astype(np.float32), kinds
    return records, predictions


def _write_voc(records: Sequence[Mapping[str, Any]], names: Sequence[str], folder: Path) -> None:
    """The records as VOC's files."""
    (folder / "Annotations").mkdir()
    (folder / "ImageSets" / "Main").mkdir(parents=True)
    (folder / "ImageSets" / "Main" / "test.txt").write_text("\n".join(r["image_id"] for r in records))
    for r in records:
        objects = "".join(
            f"<object><name>{names[a['category_id']]}</name><pose>Left</pose><truncated>0</truncated>"
            f"<difficult>{a['difficult']}</difficult><bndbox><xmin>{x + 1:.0f}</xmin><ymin>{y + 1:.0f}</ymin>"
            f"<xmax>{right:.0f}</xmax><ymax>{bottom:.0f}</ymax></bndbox></object>"
            for a in r["annotations"]
            for x, y, right, bottom in [a["bbox"]]
        )
        (folder / "Annotations" / f"{r['image_id']}.xml").write_text(f"<annotation>{objects}</annotation>")


def _label_maps(count: int) -> list[tuple[Array, Array]]:
    """Predictions int64 and labels uint8, both [1024, 2048]: regions of 32 pixels, a twentieth ignored, a tenth wrong."""
    rng = np.random.default_rng(0)
    maps = []
    for _ in range(count):
        regions = rng.integers(0, CLASSES + 1, (32, 64), np.uint8)
        truth = regions.repeat(32, 0).repeat(32, 1)
        wrong = (truth == CLASSES) | (rng.random(truth.shape) < 0.1)
        guess = np.where(wrong, rng.integers(0, CLASSES, truth.shape), truth)
        truth[truth == CLASSES] = 255
        maps.append((guess, truth))
    return maps
