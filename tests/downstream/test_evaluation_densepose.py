"""DensePose's AP: similarities and rules worked out by hand, and the official evaluation's numbers on drawn detections."""

import json

import numpy as np
import pytest

from downstream.datasets import POINTS
from downstream.evaluation import densepose
from downstream.surface import Body

THRESHOLDS = np.linspace(0.5, 0.95, 10)


def body(points=6, seed=0):
    """24 parts with so many points each, each a vertex; the vertices lie anywhere in a cube of 80 cm."""
    rng = np.random.default_rng(seed)
    part = np.repeat(np.arange(1, 25), points)
    places = rng.uniform(0, 0.8, (len(part), 3))
    apart = np.linalg.norm(places[:, None] - places, axis=2)
    return Body(part, rng.uniform(0, 1, (2, len(part))), np.arange(len(part)), apart[np.tril_indices(len(part), -1)])


def person(number, image=1, box=(10, 20, 40, 60), points=(), **more):
    """points: x, y in 256 of the box, part, U, V; None for a person nobody marked"""
    marks = {} if points is None else {key: [point[i] for point in points] for i, key in enumerate(POINTS)}
    return (
        {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "bbox": list(box), "area": 1.0} | marks | more
    )


def measured(tmp_path, people, found, images=(1,), of=None):
    file = tmp_path / "densepose_minival2014.json"
    content = {
        "images": [{"id": i} for i in images],
        "annotations": people,
        "categories": [{"id": 1, "name": "person"}],
    }
    file.write_text(json.dumps(content))
    table = {}
    for image, box, score, chart in found:
        table.setdefault(image, []).append((box, score, chart))
    predictions = {
        image: (np.array([b for b, *_ in own], np.float32), np.array([s for _, s, _ in own]), [c for *_, c in own])
        for image, own in table.items()
    }
    return densepose.evaluate(predictions, file, of or body())


def charted(box, points):
    """A chart over a box that says at the points of a person with that box what was marked there."""
    chart = np.zeros((int(box[3]), int(box[2]), 3), np.uint8)
    for x, y, part, u, v in points:
        chart[int(y / 255 * box[3]), int(x / 255 * box[2])] = part, round(u * 255), round(v * 255)
    return chart


def exactly(surface, *vertices):
    """Marked points in the middle of a box's cells, each on a vertex."""
    return [(20.0 + 20 * n, 30.0 + 20 * n, float(surface.part[i]), *surface.uv[:, i]) for n, i in enumerate(vertices)]


BOX = (10, 20, 40, 60)


def test_a_similarity_is_the_mean_over_the_points_by_the_geodesic_distance(tmp_path):
    surface = body()
    marked, said = (0, 30, 50, 140, 1, 2), (0, 33, 50, 7, 1, 2)  # the second and the fourth are said elsewhere
    apart = [surface.distances[33 * 32 // 2 + 30], surface.distances[140 * 139 // 2 + 7]]
    # parts of the upper legs and of the head: DensePose's mean distances there
    assert surface.part[[30, 140]].tolist() == [6, 24] and surface.part[[33]].tolist() == [6]
    gps = np.mean([1, np.exp(-(apart[0] ** 2) / (2 * 0.126**2)), 1, np.exp(-(apart[1] ** 2) / (2 * 0.150**2)), 1, 1])
    points = exactly(surface, *marked)
    wrong = [(x, y, *at[2:]) for (x, y, *_), at in zip(points, exactly(surface, *said), strict=True)]
    table = densepose._similarities(np.array([BOX], float), [charted(BOX, wrong)], [person(1, points=points)], surface)
    assert table[0, 0] == pytest.approx(gps)
    found = measured(tmp_path, [person(1, points=points)], [(1, BOX, 0.9, charted(BOX, wrong))])
    assert 0.6 < gps < 0.9 and found["APdp50"] == pytest.approx(100)
    assert found["APdp"] == pytest.approx(100 * np.mean(gps >= THRESHOLDS))


def test_a_point_outside_the_box_or_on_no_part_is_wrong(tmp_path):
    surface = body()
    points = exactly(surface, 3, 60, 90, 120)
    half = charted(BOX, points[:2])  # the other two are on part 0
    table = densepose._similarities(np.array([BOX], float), [half], [person(1, points=points)], surface)
    assert table[0, 0] == 0.5
    small = (10, 20, 10, 15)  # the first two lie within
    chart = np.zeros((15, 10, 3), np.uint8)
    for x, y, part, u, v in points[:2]:
        chart[int(y / 255 * 60), int(x / 255 * 40)] = part, round(u * 255), round(v * 255)
    assert densepose._similarities(np.array([small], float), [chart], [person(1, points=points)], surface)[0, 0] == 0.5
    assert measured(tmp_path, [person(1, points=points)], [(1, (200, 20, 40, 60), 0.9, half)])["APdp50"] == 0


def test_who_finds_somebody_unmarked_is_not_wrong_and_who_finds_nobody_is(tmp_path):
    points = exactly(body(), 0, 30, 50)
    good, other, far = charted(BOX, points), (100, 20, 40, 60), (300, 300, 40, 60)
    blank = np.zeros((60, 40, 3), np.uint8)
    people = [person(1, points=points), person(2, box=other, points=None)]
    unmarked = [(1, other, 0.95, blank), (1, BOX, 0.9, good)]
    assert measured(tmp_path, people, unmarked)["APdp"] == pytest.approx(100)
    assert measured(tmp_path, people, [*unmarked, (1, far, 0.99, blank)])["APdp"] == pytest.approx(50)
    # a box that overlaps by less than 0.8 is about nobody
    for shift, value in ((5, 50), (4, 100)):  # 35 / 45 and 36 / 44
        aside = (100 + shift, 20, 40, 60)
        assert measured(tmp_path, people, [(1, aside, 0.95, blank), (1, BOX, 0.9, good)])["APdp"] == pytest.approx(
            value
        )
    # where nobody at all is marked, nothing is wrong
    alone = [*people, person(3, image=2, box=other, points=None)]
    assert measured(tmp_path, alone, [*unmarked, (2, far, 0.99, blank)], images=(1, 2))["APdp"] == pytest.approx(100)
    assert set(measured(tmp_path, people[1:], unmarked).values()) == {-100.0}
    assert set(measured(tmp_path, people, []).values()) == {0.0}


def test_only_the_best_twenty_of_an_image_count(tmp_path):
    points = exactly(body(), 0, 30, 50)
    blank = np.zeros((60, 40, 3), np.uint8)
    others = [(1, (300, 300, 40, 60), 0.9, blank)]
    found = [*others * 20, (1, BOX, 0.5, charted(BOX, points))]
    assert measured(tmp_path, [person(1, points=points)], found)["APdp"] == 0
    assert measured(tmp_path, [person(1, points=points)], found[1:])["APdp"] == pytest.approx(100 / 20)


def drawn(seed):
    """Images, persons and detections: unmarked ones, crowds, persons with one point or none, ids that two share, equal scores."""
    rng, surface = np.random.default_rng(seed), body(9, seed)
    people, found, images = [], [], list(range(1, 13))
    for image in images:
        own = []
        for _ in range(rng.integers(0, 5)):
            box = [*rng.uniform(0, 60, 2).round(2).tolist(), *rng.uniform(15, 80, 2).round(2).tolist()]
            count = int(rng.choice([0, 1, 4, 12, 20]))
            vertices = rng.integers(0, len(surface.part), count)
            places = rng.uniform(0, 256, (count, 2)).round(1)
            points = [
                (*p, float(surface.part[i]), *surface.uv[:, i])
                for p, i in zip(places.tolist(), vertices.tolist(), strict=True)
            ]
            crowd = int(rng.random() < 0.1)
            own.append(
                person(len(people) + len(own) + 1, image, box, None if rng.random() < 0.2 else points, iscrowd=crowd)
            )
        for _ in range(rng.integers(0, 26)):
            near = own[rng.integers(len(own))] if own and rng.random() < 0.85 else None
            box = np.array(near["bbox"] if near else rng.uniform(5, 70, 4))
            box = (box + rng.normal(0, rng.choice([0, 0.5, 5]), 4)).clip([0, 0, 2, 2], 120).astype(np.float32)
            chart = np.zeros((max(int(box[3]), 1), max(int(box[2]), 1), 3), np.uint8)
            noise = rng.choice([0, 0.1, 0.4])
            for x, y, part, u, v in zip(*(near.get(k, ()) if near else () for k in POINTS), strict=True):
                left, top, width, height = near["bbox"]
                row, column = int(y * height / 255 + top - box[1]), int(x * width / 255 + left - box[0])
                if 0 <= row < chart.shape[0] and 0 <= column < chart.shape[1]:
                    said = part if rng.random() > noise else rng.integers(0, 25)
                    chart[row, column] = said, *(np.clip(np.array([u, v]) + rng.normal(0, noise / 3, 2), 0, 1) * 255)
            found.append((image, box, float(rng.integers(1, 10)) / 10, chart))
        people += own
    people[2]["id"] = people[-1]["id"]
    return surface, people, found, images


# What facebookresearch/detectron2's DensePoseCocoEval (projects/DensePose at 02b5c4e2, mode GPS) gives for `drawn`.
OFFICIAL = {
    0: [29.461658258366114, 34.28045130094406, 31.690320734859856],
    1: [26.99846110043513, 37.24724585134568, 31.710689869573283],
    2: [21.20621572175824, 26.124565078991125, 20.308136849084207],
    3: [16.8106409961879, 22.362285464539656, 20.991163632492277],
}


@pytest.mark.parametrize("seed", OFFICIAL)
def test_numbers_are_the_official_ones(tmp_path, seed):
    surface, people, found, images = drawn(seed)
    ours = measured(tmp_path, people, found, images, surface)
    assert list(ours.values()) == pytest.approx(OFFICIAL[seed], abs=1e-9)
