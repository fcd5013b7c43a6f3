"""Our Cityscapes AP against cityscapesscripts' own, which reads PNG files: on random scenes, drawn streets and at the edges."""

import argparse

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_tools

from downstream import datasets
from downstream.datasets import CITYSCAPES_CLASSES
from downstream.evaluation import cityscapes
from downstream.synthetic import synthesize

cityscapesscripts = pytest.importorskip("cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11

HEIGHT, WIDTH = 48, 64
STUFF = (0, 1, 3, 4, 7, 8, 11, 21, 23)  # of which road and those after it are not void
LABELS = (*CITYSCAPES_CLASSES, 29, 30)  # caravans and trailers have instances and are not evaluated


def rle(mask):
    return mask_tools.encode(np.asfortranarray(mask, np.uint8))


def rectangle(rng, shape):
    """A random box of around 100 pixels, the size at which an object begins to count."""
    mask = np.zeros(shape, bool)
    y, x = rng.integers(0, shape[0] - 8), rng.integers(0, shape[1] - 8)
    height, width = ((10, 10), (9, 11), (25, 4), (20, 10), tuple(rng.integers(1, 22, 2)))[rng.integers(5)]
    mask[y : y + height, x : x + width] = True
    return mask


def picture(rng):
    """Instance ids [H, W]: void or stuff, groups, single objects of any label, hiding one another."""
    ids = np.full((HEIGHT, WIDTH), rng.choice(STUFF))
    ids[rng.integers(HEIGHT) :] = rng.choice(STUFF)
    for number in range(rng.integers(0, 14)):
        label = rng.choice(LABELS, p=[0.25, 0.1, 0.2, *[0.1] * 3, *[0.03] * 3, 0.06])
        ids[rectangle(rng, ids.shape)] = label if rng.random() < 0.25 else label * 1000 + number
    return ids


def guesses(rng, ids):
    """Masks near, on and far from an image's objects; many scores are equal, some masks empty, some classes wrong."""
    masks, scores, classes = [], [], []
    objects = [i for i in np.unique(ids) if i >= 1000 or i in LABELS]
    for _ in range(rng.integers(0, 12)):
        mask, label = rectangle(rng, ids.shape), rng.integers(8)
        if objects and rng.random() < 0.8:
            target = int(rng.choice(objects))
            mask = ids == target
            kind = rng.integers(4)
            if kind == 1:  # exactly a half, 0.6, 0.75 ... of the pixels
                inside = np.flatnonzero(mask)
                keep = rng.choice([0.5, 0.55, 0.6, 0.65, 0.75, 0.8, 0.95])
                mask = np.isin(np.arange(mask.size), inside[: round(len(inside) * keep)]).reshape(mask.shape)
            elif kind == 2:
                mask = np.roll(mask, rng.integers(-2, 3, 2), (0, 1))
            elif kind == 3:
                mask = mask | rectangle(rng, ids.shape)
            if rng.random() < 0.9 and (wanted := target if target < 1000 else target // 1000) in CITYSCAPES_CLASSES:
                label = list(CITYSCAPES_CLASSES).index(wanted)
        masks.append(rle(mask if rng.random() < 0.95 else np.zeros_like(mask)))
        scores.append(rng.integers(0, 8) / 7)
        classes.append(label)
    return masks, np.array(scores, np.float32), np.array(classes, int)


def official(monkeypatch, folder, images, predictions):
    """AP [class, threshold] and its two means by cityscapesscripts; 0 where it stumbles over a list of no scores."""
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # numpy 2.4 has it no more
    args = argparse.Namespace(**vars(cityscapesscripts.args))
    args.quiet, args.predictionPath = True, str(folder)
    cityscapesscripts.setInstanceLabels(args)
    assert args.instLabels == list(CITYSCAPES_CLASSES.values())
    truth, listed = [], []
    for name, ids in images.items():
        truth.append(str(folder / f"{name}_gtFine_instanceIds.png"))
        Image.fromarray(ids.astype(np.uint16)).save(truth[-1])
        lines = []
        for number, (mask, score, label) in enumerate(zip(*predictions[name], strict=True)):
            Image.fromarray(mask_tools.decode(mask) * 255).save(folder / f"{name}_{number}.png", compress_level=0)
            lines.append(f"{name}_{number}.png {list(CITYSCAPES_CLASSES)[label]} {score}\n")
        listed.append(str(folder / f"{name}_pred.txt"))
        (folder / f"{name}_pred.txt").write_text("".join(lines))
    matches = cityscapesscripts.matchGtWithPreds(listed, truth, cityscapesscripts.instances2dict(truth), args)
    table = np.zeros((1, 8, 10))
    for number, label in enumerate(CITYSCAPES_CLASSES.values()):
        for step, threshold in enumerate(args.overlaps):
            one = argparse.Namespace(**vars(args) | {"instLabels": [label], "overlaps": [threshold]})
            try:
                table[0, number, step] = cityscapesscripts.evaluateMatches(matches, one)[0, 0, 0]
            except IndexError:
                table[0, number, step] = 0.0
    with np.errstate(invalid="ignore"):
        means = cityscapesscripts.computeAverages(table, args) if not np.isnan(table).all() else None
    return table[0], means


def ours(images, predictions):
    seen = [cityscapes.overlaps(ids, *predictions[name]) for name, ids in images.items()]
    classes = [[image[c] for image in seen] for c in range(8)]
    return classes, np.array([[cityscapes.average_precision(c, t) for t in cityscapes.THRESHOLDS] for c in classes])


def compared(monkeypatch, folder, images, predictions):
    """Our AP [class, threshold] and how far the farthest is from theirs; the same classes have none, the means are equal."""
    table, means = official(monkeypatch, folder, images, predictions)
    classes, found = ours(images, predictions)
    assert np.array_equal(np.isnan(table), np.isnan(found))
    if means:
        expected = {"APmk": 100 * means["allAp"], "APmk50": 100 * means["allAp50%"]}
        assert cityscapes.summary(classes) == pytest.approx(expected, abs=1e-10)
    return found, np.nanmax(abs(table - found), initial=0)


@pytest.mark.parametrize("part", range(4))
def test_random_scenes_are_equal_to_cityscapesscripts(part, monkeypatch, tmp_path):
    """4 x 100 scenes, 1,968 images with 10,962 objects (small ones and groups among them) and 10,811 predictions; 32,000 APs."""
    rng = np.random.default_rng(part)
    values, differences = [], []
    for case in range(100):
        images = {f"a_{case}_{i}": picture(rng) for i in range(rng.integers(1, 10))}
        predictions = {name: guesses(rng, ids) for name, ids in images.items()}
        folder = tmp_path / str(case)
        folder.mkdir()
        for kept, new in zip((values, differences), compared(monkeypatch, folder, images, predictions), strict=True):
            kept.append(new)
    assert max(differences) < 1e-12
    values = np.array(values)
    assert np.isnan(values).any() and (values == 0).any() and (values == 1).any()
    assert ((values > 0.01) & (values < 0.99)).sum() > 500


def test_drawn_streets_are_equal_to_cityscapesscripts_through_the_files(monkeypatch, tmp_path):
    synthesize(tmp_path, voc=0, coco=0, cityscapes=8, imagenet=0)
    records = datasets.records("cityscapes_fine_instance_seg_val", tmp_path)
    rng = np.random.default_rng(0)
    images, predictions = {}, {}
    for number, record in enumerate(records):
        ids = datasets.instance_ids(record["instance_file_name"])
        images[f"a_{number}_0"] = ids
        shifted = [(i, np.roll(ids == i, rng.integers(-2, 3, 2), (0, 1))) for i in np.unique(ids) if i >= 24000]
        predictions[f"a_{number}_0"] = (
            [rle(mask) for _, mask in shifted],
            rng.random(len(shifted)).astype(np.float32),
            np.array([list(CITYSCAPES_CLASSES).index(i // 1000) for i, _ in shifted], int),
        )
    (tmp_path / "official").mkdir()
    _, means = official(monkeypatch, tmp_path / "official", images, predictions)
    named = {r["image_id"]: p for r, p in zip(records, predictions.values(), strict=True)}
    expected = {"APmk": 100 * means["allAp"], "APmk50": 100 * means["allAp50%"]}
    assert cityscapes.evaluate(named, records) == pytest.approx(expected, abs=1e-10)
    assert 0 < expected["APmk"] < expected["APmk50"] < 100


def one(ids, *found):
    """AP50 of cars in one image. found: (mask, score)."""
    masks, scores = [rle(mask) for mask, _ in found], np.array([score for _, score in found])
    image = cityscapes.overlaps(ids, masks, scores, np.full(len(found), 2))[2]
    return cityscapes.average_precision([image], 0.5)


def test_a_match_is_above_the_threshold_and_a_second_one_is_wrong():
    ids = np.full((20, 40), 7)
    ids[:, :20] = 26000
    car = ids == 26000
    half = car & (np.arange(40) < 10)
    assert one(ids, (car, 0.5)) == 1.0
    assert one(ids, (half, 0.5)) == 0.0
    # one point of precision 1/2 and recall 1 beside the artificial one of 1 and 0: the mean
    assert one(ids, (car, 0.5), (car, 0.5)) == one(ids, (car, 0.9), (ids == 7, 0.9)) == 0.75
    assert one(ids) == 0.0 and np.isnan(one(np.full((20, 40), 7), (car, 0.5)))


def test_void_groups_and_small_objects_cost_nothing():
    ids = np.full((20, 60), 7)
    ids[:, :20], ids[:, 20:40], ids[:9, 40:51], ids[10:, 40:] = 26000, 26, 26001, 4
    assert (ids == 26001).sum() == 99
    car = (ids == 26000, 0.5)
    for free in (ids == 26, ids == 26001, ids == 4):
        assert one(ids, car, (free, 0.9)) == 1.0
    assert one(ids, car, (ids == 7, 0.9)) == 0.25
    single = ids.copy()
    single[ids == 4] = 29000  # a caravan that is not in a group is no void
    assert one(single, car, (single == 29000, 0.9)) == 0.25


def test_without_any_object_there_is_no_average():
    with pytest.raises(ValueError, match="at least 100 pixels to test on, found none"):
        cityscapes.summary([[image] for image in cityscapes.overlaps(np.full((20, 40), 7), [], [], [])])
