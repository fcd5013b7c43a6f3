"""LVIS's average precision equals its published rules, written down again in numpy (lvis-dataset/lvis-api, lvis/eval.py)."""

import json

import numpy as np
import pytest
from pycocotools import mask as mask_tools

from downstream.evaluation import lvis

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CLASSES, HEIGHT, WIDTH = 12, 40, 50


def rle(x, y, w, h):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[int(y) : int(y + h), int(x) : int(x + w)] = 1
    encoded = mask_tools.encode(mask)
    return encoded | {"counts": encoded["counts"].decode()}


def scene(folder, seed, images=25, crowded=0):
    """A federated file and detections near and far from its objects, with tied scores; classes nobody shows or marks."""
    rng = np.random.default_rng(seed)
    pictures, annotations, detections = [], [], []
    for number in range(1, images + 1):
        shown = sorted(rng.choice(np.arange(1, CLASSES), rng.integers(0, 5), replace=False).tolist())
        rest = [c for c in range(1, CLASSES + 1) if c not in shown]
        negative = sorted(rng.choice(rest, 3, replace=False).tolist())
        loose = [c for c in shown if rng.random() < 0.3]
        pictures.append(
            {"id": number, "height": HEIGHT, "width": WIDTH}
            | {"neg_category_ids": negative, "not_exhaustive_category_ids": loose}
        )
        for label in shown:
            for _ in range(rng.integers(1, 4)):
                box = [float(v) for v in (*rng.integers(0, 20, 2), *rng.integers(4, 20, 2))]
                area = box[2] * box[3]
                keys = {"id": len(annotations) + 1, "image_id": number, "category_id": label, "area": area}
                x, y, w, h = box
                annotations.append(keys | {"bbox": box, "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]})
                for _ in range(rng.integers(0, 3)):
                    moved = [max(0.0, x + rng.integers(-3, 4)), max(0.0, y + rng.integers(-3, 4)), w, h]
                    detections.append((number, label, moved))
        for _ in range(rng.integers(0, 6) + crowded):
            box = [float(v) for v in (*rng.integers(0, 20, 2), *rng.integers(4, 20, 2))]
            detections.append((number, int(rng.integers(1, CLASSES + 1)), box))
    found = [
        {"image_id": i, "category_id": c, "bbox": b, "score": float(rng.integers(1, 30) / 30), "segmentation": rle(*b)}
        for i, c, b in detections
    ]
    categories = [{"id": i, "name": str(i), "frequency": "rcf"[i % 3]} for i in range(1, CLASSES + 1)]
    file = folder / "lvis_v1_val.json"
    content = {"images": pictures, "annotations": annotations, "categories": categories}
    file.write_text(json.dumps(content))
    return file, found, content


def overlap(kind, found, truth):
    if kind == "bbox":
        a, b = (np.array([o["bbox"] for o in objects], float) for objects in (found, truth))
        low = np.maximum(a[:, None, :2], b[None, :, :2])
        high = np.minimum(a[:, None, :2] + a[:, None, 2:], b[None, :, :2] + b[None, :, 2:])
        both = np.clip(high - low, 0, None).prod(2)
        return both / (a[:, None, 2:].prod(2) + b[None, :, 2:].prod(2) - both)
    masks = [mask_tools.decode(d["segmentation"]).ravel().astype(float) for d in found]
    shapes = [
        mask_tools.decode(mask_tools.merge(mask_tools.frPyObjects(t["segmentation"], HEIGHT, WIDTH))).ravel()
        for t in truth
    ]
    a, b = np.stack(masks), np.stack(shapes).astype(float)
    both = a @ b.T
    return both / (a.sum(1)[:, None] + b.sum(1)[None] - both)


def expected(content, detections, kind):
    """AP, AP50, AP75, APr, APc, APf by LVIS's rules, in percent."""
    thresholds = np.linspace(0.5, 0.95, 10)
    kept = {}
    for picture in content["images"]:
        mine = [d for d in detections if d["image_id"] == picture["id"]]
        kept[picture["id"]] = [mine[i] for i in np.argsort([-d["score"] for d in mine], kind="stable")[:300]]
    table = {}
    for category in content["categories"]:
        label, scores, hits, counted, total = category["id"], [], [], [], 0
        for picture in content["images"]:
            truth = [t for t in content["annotations"] if t["image_id"] == picture["id"] and t["category_id"] == label]
            if not truth and label not in picture["neg_category_ids"]:
                continue  # nobody looked for this class here
            found = [d for d in kept[picture["id"]] if d["category_id"] == label]
            total += len(truth)
            hit = np.zeros((10, len(found)), bool)
            if truth and found:
                ious = overlap(kind, found, truth)
                for row, threshold in enumerate(thresholds):
                    free = np.ones(len(truth), bool)
                    for column in range(len(found)):
                        best = np.where(free, ious[column], -1)
                        if best.max() >= min(threshold, 1 - 1e-10):
                            # of equal overlaps the last one is taken
                            free[len(best) - 1 - best[::-1].argmax()] = False
                            hit[row, column] = True
            scores += [d["score"] for d in found]
            hits.append(hit)
            counted.append(hit | (label not in picture["not_exhaustive_category_ids"]))
        if not total:
            continue
        order = np.argsort(-np.array(scores), kind="stable")
        precisions = np.zeros((10, 101))
        for row in range(10 if scores else 0):
            hit, counts = (np.concatenate(parts, 1)[row, order] for parts in (hits, counted))
            true, false = np.cumsum(hit), np.cumsum(~hit & counts)
            recall, precision = true / total, true / np.maximum(true + false, 1)
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            places = np.searchsorted(recall, np.linspace(0, 1, 101))
            precisions[row] = np.append(envelope, 0)[np.minimum(places, len(envelope))]
        table[label] = precisions
    every = np.stack(list(table.values()))
    groups = [[p for i, p in table.items() if "rcf"[i % 3] == f] for f in "rcf"]
    return [100 * v for v in (every.mean(), every[:, 0].mean(), every[:, 5].mean(), *map(np.mean, groups))]


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(20))
def test_average_precision_follows_lvis_rules(kind, seed, tmp_path):
    file, detections, content = scene(tmp_path, seed)
    ours = lvis.evaluate(detections, file, kind)
    theirs = expected(content, detections, kind)
    assert list(ours.values()) == pytest.approx(theirs[: len(ours)], abs=1e-9)
    assert 0 < theirs[0] < theirs[1] < 100


@pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated")
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_average_precision_is_that_of_lvis_own_api(kind, tmp_path, monkeypatch):
    """Where lvis-dataset/lvis-api is installed, or its folder in PYTHONPATH; its release 0.5.3 wants a numpy with np.float."""
    monkeypatch.setattr(np, "float", float, raising=False)
    api = pytest.importorskip("lvis")
    for seed in range(100, 110):
        file, detections, _ = scene(tmp_path, seed, images=10, crowded=700 * (seed == 107))
        results = [
            {k: v for k, v in d.items() if k != ("segmentation" if kind == "bbox" else "bbox")} for d in detections
        ]
        truth = api.LVIS(str(file))
        official = api.LVISEval(truth, api.LVISResults(truth, results), kind)
        official.run()
        theirs = [100 * official.get_results()[name] for name in ("AP", "AP50", "AP75", "APr", "APc", "APf")]
        ours = list(lvis.evaluate(detections, file, kind).values())
        assert ours == pytest.approx(theirs[: len(ours)], abs=1e-10)


def test_an_image_has_its_300_best_detections_and_no_more(tmp_path):
    file, detections, content = scene(tmp_path, 7, images=6, crowded=600)
    ours, theirs = lvis.evaluate(detections, file, "bbox"), expected(content, detections, "bbox")
    assert list(ours.values()) == pytest.approx(theirs[:3], abs=1e-9)


def test_a_class_nobody_looked_for_costs_nothing_and_one_that_is_absent_does(tmp_path):
    file, _, content = scene(tmp_path, 0)
    perfect = [
        {k: a[k] for k in ("image_id", "category_id", "bbox")} | {"score": 0.5, "segmentation": rle(*a["bbox"])}
        for a in content["annotations"]
    ]
    assert list(lvis.evaluate(perfect, file, "segm").values()) == pytest.approx([100.0] * 6)
    picture = content["images"][0]
    shown = {a["category_id"] for a in content["annotations"] if a["image_id"] == picture["id"]}
    silent = next(c for c in range(1, CLASSES) if c not in shown | set(picture["neg_category_ids"]))
    absent = next(c for c in picture["neg_category_ids"] if c < CLASSES)
    for label, cost in ((silent, False), (absent, True)):
        wrong = perfect[0] | {"image_id": picture["id"], "category_id": label, "score": 0.9}
        assert (lvis.evaluate([*perfect, wrong], file, "segm")["APmk"] < 99.9) == cost


def test_no_detections_are_0_not_an_error(tmp_path):
    file, _, _ = scene(tmp_path, 0)
    assert lvis.evaluate([], file, "segm") == dict.fromkeys(("APmk", "APmk50", "APmk75", "APr", "APc", "APf"), 0.0)
