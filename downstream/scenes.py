"""Whole pictures, drawn: objects over clutter, and streets, with the owner of every pixel.

Later objects hide earlier ones, and a placement that would hide one almost completely is not made. All randomness comes
from the `numpy.random.Generator` passed in. Colours are RGB, 0..255.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.random import Generator

from downstream.drawing import CIRCLE, paint, palette, sprite


@dataclass
class Thing:
    """An object in a picture: where `owner == index` it is seen."""

    name: str
    index: int
    whole: int  # pixels inside and outside the picture, hidden or not
    truncated: bool  # part of it lies outside the picture
    crowd: bool = False
    joints: dict[int, tuple[float, float]] = field(default_factory=dict)  # COCO's keypoints, x and y, hidden or not


def paste(
    canvas: np.ndarray, owner: np.ndarray, rgb: np.ndarray, cover: np.ndarray, x: int, y: int, index: int
) -> None:
    """Put a sprite with its shadow at x, y (its top left, may lie outside) and claim its pixels in `owner`."""
    h, w = owner.shape
    x1, y1, x2, y2 = max(x, 0), max(y, 0), min(x + cover.shape[1], w), min(y + cover.shape[0], h)
    if x1 >= x2 or y1 >= y2:
        return
    part = np.s_[y1 - y : y2 - y, x1 - x : x2 - x]
    reach = max(3, cover.shape[0] // 6) | 1
    shadow = np.zeros((h, w), np.float32)
    shadow[y1:y2, x1:x2] = cover[part]
    shadow = cv2.blur(np.roll(shadow, (reach // 4, reach // 3), (0, 1)), (reach, reach))
    canvas *= 1 - 0.4 * shadow[..., None]
    alpha = cover[part][..., None]
    canvas[y1:y2, x1:x2] += alpha * (rgb[part] - canvas[y1:y2, x1:x2])
    owner[y1:y2, x1:x2][cover[part] >= 0.5] = index


def fill(
    canvas: np.ndarray,
    points: object,
    material: str,
    colour: str | np.ndarray,
    light: np.ndarray,
    rng: Generator,
    relief: bool = False,
) -> np.ndarray:
    """Paint a polygon of pixel coordinates; its mask."""
    mask = np.zeros(canvas.shape[:2], np.uint8)
    cv2.fillPoly(mask, [np.rint(np.reshape(points, (-1, 2))).astype(np.int32)], 255)
    paint(canvas, mask, material, palette(colour, rng) if isinstance(colour, str) else colour, light, rng, relief)
    return mask


def box(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def heaven(rng: Generator) -> np.ndarray:
    """The sky's colour: blue, overcast or low sun."""
    colours = np.float32([[95, 140, 200], [120, 165, 205], [150, 155, 162], [185, 150, 125]])
    return colours[rng.integers(4)] * rng.uniform(0.8, 1.1)


def hills(w: int, base: float, height: float, low: float, rng: Generator) -> np.ndarray:
    """A polygon from a wavy skyline down to `low`."""
    x = np.linspace(0, w, 40)
    y = base - height * (0.5 + sum(np.sin(x / w * f + rng.uniform(0, 7)) / f for f in (3, 7, 17, 31)))
    return np.concatenate([np.stack([x, y], 1), [[w, low], [0, low]]])


CLUTTER = (
    *("fabric", "striped", "plaid", "wool", "leather", "wood", "metal", "gloss", "plain", "text"),
    *("leaf", "fur", "brick", "crust", "hide", "grit"),
)
OUTSIDE = 0.2  # how often an object may leave the picture in part
AIRBORNE = {"airplane", "bird", "kite", "frisbee", "sports ball", "umbrella"}  # the others mostly stand on the ground


def backdrop(h: int, w: int, outdoors: bool, light: np.ndarray, rng: Generator) -> tuple[np.ndarray, float]:
    """A place without objects, and its horizon: sky, hills and ground, or a wall with its floor; then clutter."""
    canvas = np.zeros((h, w, 3), np.float32)
    horizon = h * rng.uniform(0.3, 0.75)
    if outdoors:
        fill(canvas, box(0, 0, w, h), "sky", heaven(rng), light, rng)
        for material, colour in (("leaf", "green"), ("grass", "green"), ("brick", "clay"), ("grit", "grey"))[
            : rng.integers(1, 4)
        ]:
            fill(
                canvas,
                hills(w, horizon, h * rng.uniform(0.05, 0.25), h, rng),
                material,
                palette(colour, rng) * 0.8,
                light,
                rng,
            )
        ground = (("grass", "green"), ("grit", "grey"), ("grit", "cream"), ("water", "blue"), ("grass", "brown"))
    else:
        wall = rng.choice(["plain", "fabric", "striped", "brick", "wood", "tiles"])
        fill(
            canvas, box(0, 0, w, h), wall, palette(rng.choice(["cream", "white", "grey", "clay", "A"]), rng), light, rng
        )
        for _ in range(rng.integers(0, 3)):
            x, y, s = rng.uniform(0, w), rng.uniform(0, horizon * 0.7), rng.uniform(0.1, 0.3) * h
            fill(canvas, box(x - s, y - s * 0.8, x + s, y + s * 0.8), "wood", "wood", light, rng, True)
            fill(canvas, box(x - s * 0.9, y - s * 0.7, x + s * 0.9, y + s * 0.7), "picture", "glass", light, rng)
        ground = (("wood", "wood"), ("tiles", "white"), ("fabric", "A"), ("plaid", "B"), ("wood", "brown"))
    material, colour = ground[rng.integers(len(ground))]
    slope = rng.uniform(-0.06, 0.06) * h
    mask = fill(canvas, [0, horizon - slope, w, horizon + slope, w, h, 0, h], material, colour, light, rng)
    depth = np.linspace(0.7, 1.15, h, dtype=np.float32)[:, None]
    canvas *= np.where(mask > 0, depth, 1.0)[..., None]
    for _ in range(rng.integers(3, 10)):
        centre, size = (
            rng.uniform([0, horizon if rng.random() < 0.7 else h * 0.1], [w, h]),
            rng.uniform(0.03, 0.16) * h * rng.uniform(0.4, 1, 2),
        )
        corners = CIRCLE[:: rng.choice([1, 4, 7])] * size * rng.uniform(0.6, 1.3, (1, 2))
        turn = rng.uniform(0, 3)
        spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        colour = rng.choice(["A", "wood", "grey", "green", "brown", "dark", "clay", "steel"])
        fill(canvas, corners @ spin + centre, rng.choice(CLUTTER), colour, light, rng, True)
    return canvas, horizon


def develop(canvas: np.ndarray, rng: Generator) -> np.ndarray:
    """The photograph: uneven light, white balance, gamma, blur, noise; uint8 RGB."""
    h, w = canvas.shape[:2]
    y, x = np.mgrid[:h, :w].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    ramp = 1 + rng.uniform(0, 0.35) * ((x / w - 0.5) * np.cos(angle) + (y / h - 0.5) * np.sin(angle))
    image = np.clip(canvas / 255 * ramp[..., None], 0, 1) ** np.float32(rng.uniform(0.75, 1.35))
    image *= np.float32(rng.uniform(0.8, 1.12) * rng.uniform(0.9, 1.1, 3) * 255)
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 0.8))
    image += rng.standard_normal((h, w, 1), np.float32) * np.float32(rng.uniform(1, 6))
    image += rng.standard_normal((h, w, 3), np.float32) * np.float32(rng.uniform(0.5, 3))
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def daylight(rng: Generator) -> np.ndarray:
    """A unit vector from the light to the scene: x to the right, y down."""
    angle = rng.uniform(0.2, 0.8) * np.pi
    return np.array([np.cos(angle), np.sin(angle)])


def scene(
    names: list[str],
    h: int,
    w: int,
    outdoors: bool,
    rng: Generator,
    scale: tuple[float, float] = (0.25, 0.75),
    crowd: str | None = None,
) -> tuple[np.ndarray, np.ndarray, list[Thing]]:
    """A picture of the named objects: uint8 RGB [H, W, 3], owner [H, W] (0: nobody) and the things, each of them visible.

    scale:   the objects' longer side as a fraction of the picture's shorter one
    crowd:   a dozen small ones of this class stand behind the rest and share one index
    """
    light = daylight(rng)
    (canvas, horizon), owner = backdrop(h, w, outdoors, light, rng), np.zeros((h, w), np.int32)
    things: list[Thing] = []
    if crowd:
        for i in range(12):
            rgb, cover, _ = sprite(crowd, h * rng.uniform(0.14, 0.2), light, rng)
            base = round(horizon + h * rng.uniform(0, 0.12))
            paste(canvas, owner, rgb, cover, int(w * (0.1 + 0.06 * i)), base - cover.shape[0], 1)
        things.append(Thing(crowd, 1, int((owner == 1).sum()), False, True))
    for name in names:
        index = len(things) + 1
        for attempt in range(12):
            if attempt % 4 == 0:
                small = 0.35 if rng.random() < 0.08 else 0.9 ** (attempt / 4)
                rgb, cover, joints = sprite(name, min(h, w) * rng.uniform(*scale) * small, light, rng)
            sh, sw = cover.shape
            margin = np.array([sw, sh]) * (0.35 if rng.random() < OUTSIDE else 0.0)
            x, y = np.rint(rng.uniform(-margin, np.maximum([w - sw, h - sh], 1) + margin)).astype(int)
            if name not in AIRBORNE and rng.random() < 0.8:
                y = max(y, round(rng.uniform(horizon, h)) - sh)
            claim = np.zeros((h, w), np.int32)
            y1, x1 = max(y, 0), max(x, 0)
            seen = cover[y1 - y : h - y, x1 - x : w - x] >= 0.5
            claim[y1 : y1 + seen.shape[0], x1 : x1 + seen.shape[1]] = seen
            left = np.bincount(np.where(claim, 0, owner).ravel(), minlength=index)
            if seen.sum() >= 24 and all(left[t.index] >= max(24, 0.4 * t.whole) for t in things):
                paste(canvas, owner, rgb, cover, int(x), int(y), index)
                whole = int((cover >= 0.5).sum())
                at = {number: (float(x + jx), float(y + jy)) for number, (jx, jy) in joints.items()}
                things.append(Thing(name, index, whole, bool(seen.sum() < whole), joints=at))
                break
    return develop(canvas, rng), owner, things


# --- streets

MOVERS = {  # longer side in units of a person's height, and how often, of what has instances
    "person": (1.0, 6), "car": (1.9, 8), "rider": (1.15, 2), "bicycle": (0.95, 2), "motorcycle": (1.1, 1), "truck": (2.6, 1),
    "bus": (3.0, 1), "train": (3.6, 1),
}  # fmt: skip


def street(h: int, w: int, first: str, rng: Generator) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """A street with one `first` mover at least: uint8 RGB [H, W, 3], owner [H, W] and what each index is, from far to near.

    Index 0 is the sky; a mover is an index of its own.
    """
    light = daylight(rng)
    canvas, owner = np.zeros((h, w, 3), np.float32), np.zeros((h, w), np.int32)
    labels = ["sky"]
    horizon, vanish = h * rng.uniform(0.34, 0.48), w * rng.uniform(0.35, 0.65)

    def put(label: str, points: object, material: str, colour: str | np.ndarray, relief: bool = False) -> None:
        mask = fill(canvas, points, material, colour, light, rng, relief)
        if label != labels[-1]:
            labels.append(label)
        owner[mask > 0] = len(labels) - 1

    def ground(side: int, spread: float, depth: float) -> tuple[float, float]:
        """A point on the ground: left or right (-1, 1) of the road's axis by `spread` road widths, near (1) or far (0)."""
        return vanish + side * spread * depth * w * 0.5, horizon + depth * (h - horizon)

    fill(canvas, box(0, 0, w, h), "sky", heaven(rng), light, rng)
    put("vegetation", hills(w, horizon + 4, h * 0.12, horizon + h * 0.1, rng), "leaf", "green")
    margin = "terrain" if rng.random() < 0.4 else "sidewalk"
    earth = {"terrain": ("grass", "green"), "sidewalk": ("tiles", "grey")}
    put(margin, box(-1, horizon, w, h), *earth[margin])
    for side in (-1, 1):
        shoulder = rng.uniform(1.7, 2.6)
        edge = 1.0
        while edge > 0.12:
            near, far = edge, edge * rng.uniform(0.5, 0.72)
            (x1, y1), (x2, y2) = ground(side, shoulder, near), ground(side, shoulder, far)
            rise = rng.uniform(1.3, 3.6) * (h - horizon)
            if rng.random() < 0.85:
                wall = palette(rng.choice(["cream", "clay", "grey", "white", "brown"]), rng) * rng.uniform(0.6, 1)
                material = rng.choice(["brick", "plain", "grit"])
                put("building", [x1, y1 - rise * near, x2, y2 - rise * far, x2, y2, x1, y1], material, wall)
                pane = palette(rng.choice(["glass", "dark"]), rng)
                for u in np.arange(0.12, 0.85, 0.25):
                    for v in np.arange(0.12, 0.95, 0.5 / rise * h * 0.4):
                        a, b = near + (far - near) * u, near + (far - near) * (u + 0.14)
                        (xa, ya), (xb, yb) = ground(side, shoulder, a), ground(side, shoulder, b)
                        low, top = rise * v, rise * min(v + 0.1, 0.97)
                        put(
                            "building",
                            [xa, ya - a * low, xb, yb - b * low, xb, yb - b * top, xa, ya - a * top],
                            "glass",
                            pane,
                        )
            edge = far
        if margin == "terrain":
            (x1, y1), (x2, y2) = ground(side, 1.45, 1.4), ground(side, 0.8, 1.4)
            put("sidewalk", [vanish, horizon, x1, y1, x2, y2], "tiles", "grey")
    road = palette("grey", rng) * rng.uniform(0.55, 0.85)
    (x1, y1), (x2, y2) = ground(-1, 1.0, 1.3), ground(1, 1.0, 1.3)
    put("road", [vanish - 2, horizon, vanish + 2, horizon, x2, y2, x1, y1], "grit", road)
    for depth in np.geomspace(0.08, 1, 7):
        for lane in (-0.34, 0.34):
            ends = [
                ground(1, lane + s, d)
                for d, s in ((depth, -0.02), (depth, 0.02), (depth * 1.2, 0.02), (depth * 1.2, -0.02))
            ]
            put("road", ends, "plain", "white")
    for side in (-1, 1):
        if rng.random() < 0.5:
            label, material, colour = (("wall", "brick", "clay"), ("wall", "grit", "grey"), ("fence", "wood", "wood"))[
                rng.integers(3)
            ]
            near, rise = rng.uniform(0.5, 1.0), 0.2 * (h - horizon)
            spread = rng.uniform(1.35, 1.6)
            if label == "wall":
                (x1, y1), (x2, y2) = ground(side, spread, near), ground(side, spread, near * 0.3)
                put("wall", [x1, y1 - rise * near * 1.5, x2, y2 - rise * near * 0.45, x2, y2, x1, y1], material, colour)
            else:
                ink = palette(rng.choice(["wood", "steel", "white"]), rng)
                for depth in np.geomspace(near * 0.3, near, 22):
                    (x, y), half = ground(side, spread, depth), max(0.8, 2.4 * depth)
                    put("fence", box(x - half, y - rise * depth * 1.6, x + half, y), material, ink, True)
    upright = [
        (rng.uniform(0.12, 0.85), rng.choice(["tree", "tree", "light", "sign", "lamp"]))
        for _ in range(rng.integers(3, 8))
    ]
    movers = [(0.35 if i == 0 else rng.uniform(0.1, 0.8), name) for i, name in enumerate([first, *_traffic(rng)])]
    for depth, name in sorted(upright + movers):
        side, unit = rng.choice([-1, 1]), 0.62 * depth * (h - horizon) + 2  # unit: a person's height there
        if name in MOVERS:
            spread = rng.uniform(1.0, 1.5) if name == "person" and rng.random() < 0.8 else rng.uniform(0.1, 0.9)
            x, y = ground(side, spread, depth)
            rgb, cover, _ = sprite(
                "pedestrian" if name == "person" else name, max(unit * MOVERS[name][0], 9), light, rng, tilt=1.5
            )
            labels.append(name)
            paste(canvas, owner, rgb, cover, round(x - cover.shape[1] / 2), round(y - cover.shape[0]), len(labels) - 1)
            continue
        x, y = ground(side, rng.uniform(1.08, 1.4), depth)
        if name == "tree":
            put("vegetation", box(x - unit * 0.09, y - unit * 1.6, x + unit * 0.09, y), "wood", "brown", True)
            leaves = palette("green", rng)
            for _ in range(6):
                centre = [x, y - unit * 2] + rng.normal(0, 0.35, 2) * unit
                put(
                    "vegetation",
                    CIRCLE * unit * rng.uniform(0.35, 0.65) + centre,
                    "leaf",
                    leaves * rng.uniform(0.7, 1.15),
                    True,
                )
            continue
        tall = unit * (1.9 if name == "light" else 1.5 if name == "sign" else 2.8)
        half = max(0.7, unit * 0.05)
        put("pole", box(x - half, y - tall, x + half, y), "metal", "grey", True)
        if name == "lamp":
            reach = unit * 0.7 * -side
            put("pole", box(min(x, x + reach), y - tall - half, max(x, x + reach), y - tall + half), "metal", "grey")
        else:
            label, keep, size = ("traffic light", 0.64, 1.3) if name == "light" else ("traffic sign", 0.5, 1.4)
            rgb, cover, _ = sprite(label, max(unit * size, 14), light, rng, tilt=2)
            top = int(cover.shape[0] * keep)  # without its own pole
            labels.append(label)
            at = round(x - cover.shape[1] / 2), round(y - tall - top * 0.5)
            paste(canvas, owner, rgb[:top], cover[:top], *at, len(labels) - 1)
    if rng.random() < 0.5:
        hood = CIRCLE * [w * 0.42, h * 0.12] + [w * rng.uniform(0.4, 0.6), h * 1.03]
        put("ego vehicle", hood, "gloss", "grey", True)
    return develop(canvas, rng), owner, labels


def _traffic(rng: Generator) -> list[str]:
    names, (_, often) = list(MOVERS), zip(*MOVERS.values(), strict=True)
    return list(rng.choice(names, rng.integers(3, 9), p=np.array(often) / sum(often)))
