"""What is drawn for the views of every method, over thousands of draws, against its recipe: how often each operation is applied, in
which order, and how its parameters are distributed."""

import collections
import importlib
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from pretrain import randaugment, views

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "pretrain" / "methods").glob("*.py") if not path.name.startswith("_"))
RECIPES = {name: importlib.import_module(f"pretrain.methods.{name}").recipe() for name in NAMES}
COUNT = 2000
SINGLE = ("jitter_p", "gray_p", "blur_p", "solarize_p", "flip_p", "photometric_p", "randaugment", "strong")
RANGES = ("crop_area", "jitter", "blur_sigma")


def entry(recipe, v):
    """What a recipe says of its view number v."""
    said = {key: recipe.get(key) for key in SINGLE}
    said = {key: value[v] if isinstance(value, tuple) else value for key, value in said.items()}
    said |= {key: recipe[key][v] if isinstance(recipe[key][0], tuple) else recipe[key] for key in RANGES}
    return said | {"gray_first": recipe["gray_first"]}


# Methods share views: each kind of view once, under the name of the first that has it.
VIEWS = {}
for method, numbers in ((name, range(RECIPES[name]["views"])) for name in NAMES):
    for number in numbers:
        if number != RECIPES[method].get("jigsaw"):
            VIEWS.setdefault(repr(entry(RECIPES[method], number)), (method, number))
AREAS = sorted({entry(recipe, v)["crop_area"] for recipe in RECIPES.values() for v in range(recipe["views"])})


def distance(sample, low, high):
    """Kolmogorov and Smirnov's: the largest difference of the sample's distribution function from the uniform one's, times
    sqrt(n); above 1.95 once in a thousand."""
    x = np.sort((np.asarray(sample) - low) / (high - low))
    steps = np.arange(len(x) + 1) / len(x)
    return max(np.abs(x - steps[1:]).max(), np.abs(x - steps[:-1]).max()) * math.sqrt(len(x))


def as_likely(found, trials, p):
    """Within four and a half standard deviations of the share p, and exact where nothing is left to chance."""
    return abs(found / trials - p) <= 4.5 * math.sqrt(p * (1 - p) / trials)


@pytest.fixture
def record(monkeypatch):
    """(name of the operation, its arguments) of every operation that is applied, in order; no operation does anything."""
    calls = []

    def recorder(name):
        return lambda image, *arguments: (calls.append((name, arguments)), image)[1]

    def jittered(image, operations):
        calls.extend((name, (amount,)) for name, amount in operations)
        return image

    monkeypatch.setattr(views, "jittered", jittered)
    for name in ("gray", "blurred", "solarized"):
        monkeypatch.setattr(views, name, recorder(name))
    for name in ("augmented", "strengthened", "photometric"):
        monkeypatch.setattr(randaugment, name, recorder(name))
    return calls


COLOURS = ("brightness", "contrast", "saturation", "hue")


def test_vissls_pirl_greys_behind_the_photometric_step_and_mirrors_every_patch_alone(record):
    recipe = importlib.import_module("pretrain.methods.pirl").recipe("vissl") | {"size": 8}
    image = np.zeros((300, 300, 3), np.uint8)
    image[..., 0] = np.arange(300) * 255 // 299
    both, mirrored = 0, []
    for seed in range(COUNT // 8):
        record.clear()
        views.view(image, recipe, 0, np.random.default_rng((13, seed)))
        names = [operation for operation, _ in record]
        if {"gray", "photometric"} <= set(names):
            both += 1
            assert names.index("photometric") < names.index("gray")
        cut, _ = views.view(image, recipe, 1, np.random.default_rng((14, seed)))
        mirrored.append([int(patch[0, 0, 0]) > int(patch[0, -1, 0]) for patch in cut])
    assert as_likely(both, len(mirrored), 0.66 * 0.2)
    counts = [sum(row) for row in mirrored]
    assert as_likely(sum(counts), 9 * len(counts), 0.5) and len(set(counts)) > 4


@pytest.mark.parametrize(("name", "v"), VIEWS.values(), ids=["-".join(map(str, view)) for view in VIEWS.values()])
def test_operations_come_as_often_and_with_the_parameters_that_the_recipe_says(name, v, record):
    recipe = {**RECIPES[name], "size": 8}
    said = entry(recipe, v)
    image, found, parameters, orders, mirrored = (
        np.zeros((24, 24, 3), np.uint8),
        [],
        collections.defaultdict(list),
        [],
        0,
    )
    for seed in range(COUNT):
        record.clear()
        _, (x0, _, x1, _) = views.view(image, recipe, v, np.random.default_rng((11, seed)))
        mirrored += x0 > x1
        found.append([operation for operation, _ in record])
        for operation, arguments in record:
            parameters[operation].append(arguments)
        orders.append(tuple(operation for operation, _ in record if operation in COLOURS))

    assert as_likely(mirrored, COUNT, said["flip_p"])
    expected = {
        "gray": said["gray_p"],
        "blurred": said["blur_p"],
        "solarized": said["solarize_p"],
        "augmented": float(said["randaugment"] is not None),
        "strengthened": float(bool(said["strong"])),
        "photometric": said["photometric_p"] or 0.0,
    } | dict.fromkeys(COLOURS, said["jitter_p"])
    for operation, p in expected.items():
        assert as_likely(len(parameters[operation]), COUNT, p), operation
    assert parameters.keys() <= expected.keys()

    for operation, half in zip(COLOURS, said["jitter"], strict=True):
        drawn = [arguments[0] for arguments in parameters[operation]]
        middle = 0.0 if operation == "hue" else 1.0
        if drawn and half:
            assert distance(drawn, middle - half, middle + half) < 1.95, operation
        assert half or all(value == middle for value in drawn), operation
    if said["jitter_p"]:
        counts = collections.Counter(order for order in orders if order)
        assert all(as_likely(counts[order], sum(counts.values()), 1 / 24) for order in itertools.permutations(COLOURS))
    if said["blur_p"]:
        assert distance([arguments[0] for arguments in parameters["blurred"]], *said["blur_sigma"]) < 1.95
        assert {arguments[1] for arguments in parameters["blurred"]} == {recipe.get("blur_kernel")}
    assert set(parameters["augmented"]) <= {()} or {a[:3] for a in parameters["augmented"]} == {said["randaugment"]}

    colours = ["gray", *COLOURS] if said["gray_first"] else [*COLOURS, "gray"]
    order = [*colours, "blurred", "solarized", "photometric", "strengthened"]
    if said["randaugment"]:
        order = [*COLOURS, "blurred", "solarized", "augmented", "gray"]
    rank = {operation: 0 if operation in COLOURS else i - len(order) * (i == 0) for i, operation in enumerate(order)}
    for operations in found:
        ranks = [rank[operation] for operation in operations]
        assert ranks == sorted(ranks)


@pytest.mark.parametrize(
    ("name", "v"), [(name, recipe["jigsaw"]) for name, recipe in RECIPES.items() if "jigsaw" in recipe]
)
def test_a_jigsaw_draws_a_place_for_each_patch_and_colours_and_flip_by_its_recipe(name, v, record):
    cell, patch = 12, 8
    recipe = {**RECIPES[name], "jigsaw_size": 3 * cell, "jigsaw_patch": patch}
    said = entry(recipe, v)
    image = np.zeros((64, 64, 3), np.uint8)
    image[..., 0], image[..., 1] = 4 * np.arange(64), 4 * np.arange(64)[:, None]
    mirrored, count, places, areas = 0, COUNT // 4, [], []
    for seed in range(count):
        out, (x0, y0, x1, y1) = views.view(image, recipe, v, np.random.default_rng((12, seed)))
        assert out.shape == (9, patch, patch, 3)
        mirrored += x0 > x1
        areas.append((abs(x1 - x0) * 63 + 1) * ((y1 - y0) * 63 + 1) / 64**2)
        for n, part in enumerate(out.astype(float)):
            row, column = divmod(n, 3)
            # where in its cell the patch begins, by the coordinates in its middle
            x = (part[..., 0].mean() / 4 / 63 - x0) / (x1 - x0) * 3 * cell - column * cell - patch / 2
            y = (part[..., 1].mean() / 4 / 63 - y0) / (y1 - y0) * 3 * cell - row * cell - patch / 2
            places.append((x, y))
    assert as_likely(mirrored, count, said["flip_p"])
    share = recipe.get("jigsaw_side", 0) ** 2
    low, high = (share, share) if share else recipe["jigsaw_area"]
    assert low - 0.05 < min(areas) and max(areas) <= high + (0.05 if share else 1e-6)
    starts = np.round(places).astype(int)
    assert np.abs(starts - places).max() < 0.5
    for axis in (0, 1):
        counts = np.bincount(starts[:, axis], minlength=cell - patch + 1)
        assert len(counts) == cell - patch + 1  # 0 to the last place at which the patch still lies in its cell
        assert all(as_likely(n, len(places), 1 / len(counts)) for n in counts)
    counts = collections.Counter(operation for operation, _ in record)
    # of the whole, of every patch or of nothing
    times = 1 if share else 9 * recipe["jigsaw_colours"]
    assert times or not counts
    for operation, p in {
        "gray": said["gray_p"],
        "hue": said["jitter_p"],
        "photometric": said["photometric_p"] or 0.0,
    }.items():
        assert as_likely(counts[operation], max(times, 1) * count, p * bool(times)), operation


@pytest.mark.parametrize("area", AREAS, ids=str)
def test_crops_have_torchvisions_areas_aspects_and_places(area):
    height, width = 300, 400
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    ours = np.array([views.crop(height, width, area, rng) for _ in range(COUNT)], float)
    theirs = np.array([RandomResizedCrop.get_params(image, list(area), [3 / 4, 4 / 3]) for _ in range(COUNT)], float)

    def measures(crops):
        i, j, h, w = crops.T
        return [h * w, w / h, (i + h / 2) / height, (j + w / 2) / width]

    for mine, other in zip(measures(ours), measures(theirs), strict=True):
        both = np.sort(np.concatenate([mine, other]))
        apart = np.searchsorted(np.sort(mine), both, "right") - np.searchsorted(np.sort(other), both, "right")
        assert np.abs(apart).max() / COUNT * math.sqrt(COUNT / 2) < 1.95  # Kolmogorov and Smirnov's, of two samples


@pytest.mark.parametrize(
    ("pool", "draw", "per_view"),
    [
        ("RANDAUGMENT", lambda image, rng: randaugment.augmented(image, 2, 10, 0.5, rng), 2),
        ("STRONG", randaugment.strengthened, 5),
    ],
    ids=["randaugment", "clsa"],
)
def test_the_operations_of_a_pool_are_as_frequent_as_each_other_at_the_published_levels(
    pool, draw, per_view, monkeypatch
):
    operations, levels = getattr(randaugment, pool), []
    counts = collections.Counter()
    for name in operations:

        def recorded(image, level, rng, name=name):
            counts[name] += 1
            levels.append(level)
            return image

        monkeypatch.setitem(operations, name, recorded)
    image, rng = np.zeros((8, 8, 3), np.uint8), np.random.default_rng(0)
    for _ in range(COUNT):
        draw(image, rng)
    assert len(operations) == {"RANDAUGMENT": 15, "STRONG": 14}[pool]
    for name in operations:
        assert as_likely(counts[name], COUNT * per_view, 0.5 / len(operations)), name
    if pool == "STRONG":  # 1 to 9, as likely as each other
        assert all(as_likely(levels.count(level), len(levels), 1 / 9) for level in range(1, 10))
        assert set(levels) == set(range(1, 10))
    else:  # the normal of mean 10 and standard deviation 0.5, cut at 10: half of it lies there
        assert max(levels) == 10
        assert as_likely(levels.count(10), len(levels), 0.5)
        below = [level for level in levels if level < 10]
        assert np.mean(below) == pytest.approx(10 - 0.5 * math.sqrt(2 / math.pi), abs=0.05)
