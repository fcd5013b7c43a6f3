"""One object, drawn: the parts of its class (`shapes`) with procedural textures, in a random pose, and its exact mask.

An object is rasterised at twice its size, part by part, each with a texture and with relief under the scene's light; the
same raster gives its mask. All randomness comes from the `numpy.random.Generator` passed in. Colours are RGB, 0..255.
"""

from functools import cache

import cv2
import numpy as np
from numpy.random import Generator

from downstream.shapes import COLOURS, SHAPES

TILE = 512  # side of a texture tile, in pixels


# --- textures


@cache
def texture(name: str) -> np.ndarray:
    """A [TILE, TILE, 3] float32 map of factors, around 1, that turns a flat colour into a material."""
    rng = np.random.default_rng(list(name.encode()))
    y, x = np.mgrid[:TILE, :TILE].astype(np.float32)

    def noise(rows: int, columns: int | None = None) -> np.ndarray:
        coarse = rng.standard_normal((rows, columns or rows)).astype(np.float32)
        return cv2.resize(coarse, (TILE, TILE), interpolation=cv2.INTER_CUBIC)

    def cells(count: int) -> tuple[np.ndarray, np.ndarray]:
        """Distance to the nearest of `count` random points, in mean radii, and which point that is."""
        sites = np.full((TILE, TILE), 255, np.uint8)
        sites[rng.integers(0, TILE, count), rng.integers(0, TILE, count)] = 0
        distance, label = cv2.distanceTransformWithLabels(sites, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
        return distance * np.sqrt(np.pi * count) / TILE, label

    def mix(amount: np.ndarray, low: list[float], high: list[float]) -> np.ndarray:
        return np.clip(amount, 0, 1)[..., None] * (np.float32(high) - np.float32(low)) + np.float32(low)

    def lines(of: np.ndarray, period: float, width: float) -> np.ndarray:
        return (of % period < width).astype(np.float32)

    wave = np.sin
    match name:
        case "fur" | "tabby":
            value = 1 + 0.2 * noise(40, 220) + 0.12 * noise(90, 300) + 0.1 * noise(7)
            if name == "tabby":
                value *= 1 - 0.5 * (wave(x / 7 + 1.5 * noise(8)) > 0.35)
        case "wool" | "floret":
            distance, _ = cells(1500 if name == "wool" else 2600)
            value = 1.2 - 0.38 * distance + 0.06 * noise(128)
        case "leaf":
            distance, label = cells(900)
            value = mix(
                0.8 - 0.4 * distance + 0.2 * wave(label * 1.7) + 0.1 * noise(200), [0.35, 0.45, 0.3], [1.35, 1.3, 1.0]
            )
        case "wood":
            value = 1 + 0.16 * wave(y / 3 + 4 * noise(5, 2)) + 0.1 * noise(200, 6) + 0.05 * noise(9)
        case "brick":
            row = y // 12
            mortar = np.maximum(lines(y, 12, 2), lines(x + 13 * (row % 2), 26, 2))
            tone = 0.15 * wave(row * 7.1 + ((x + 13 * (row % 2)) // 26) * 3.7) + 0.07 * noise(200)
            value = mix(mortar, [1, 1, 1], [1.5, 1.6, 1.6]) + tone[..., None]
        case "metal":
            value = 1 + 0.05 * noise(256, 3) + 0.22 * noise(6, 4) + 0.02 * noise(256)
        case "glass":
            streak = wave((x + y) / 23 + noise(4)) + 0.5 * wave((x + y) / 9)
            value = 1 + 0.28 * (streak > 1) + 0.12 * noise(6)
        case "fabric":
            value = 1 + 0.07 * wave(x * 2.1) * wave(y * 2.1) + 0.16 * noise(9, 14) + 0.04 * noise(256)
        case "striped":
            value = mix(lines(y + 6 * noise(4), 16, 7), [1, 1, 1], [0.45, 0.5, 0.6]) * (1 + 0.08 * noise(12))[..., None]
        case "plaid":
            value = (
                1.2 - 0.35 * lines(x, 24, 10) - 0.35 * lines(y, 24, 10) - 0.2 * lines(x + 5, 24, 2) + 0.06 * noise(64)
            )
        case "zebra":
            value = mix(0.5 + 3 * wave(x / 4.5 + y / 30 + 1.6 * noise(5)), [0.1, 0.1, 0.1], [1, 1, 1])
        case "giraffe":
            distance, label = cells(330)
            edge = np.zeros((TILE, TILE), np.uint8)
            edge[1:, 1:] = (label[1:, 1:] != label[1:, :-1]) | (label[1:, 1:] != label[:-1, 1:])
            net = cv2.dilate(edge, np.ones((4, 4), np.uint8)).astype(np.float32)
            value = mix(net, [0.62, 0.42, 0.25], [1.05, 1.05, 1]) * (1 + 0.07 * noise(90))[..., None]
        case "patched":
            value = (
                mix(0.5 + 9 * (noise(11) - 0.25), [1, 1, 1], [0.16, 0.13, 0.12])
                * (1 + 0.08 * noise(60, 200))[..., None]
            )
        case "hide" | "leather":
            distance, _ = cells(4000)
            value = 1.08 - 0.16 * distance + 0.1 * noise(6)
        case "peel":
            value = 1 + 0.09 * noise(230) + 0.05 * noise(90)
        case "crust":
            value = mix(0.6 + 0.25 * noise(14) + 0.2 * noise(60), [0.6, 0.5, 0.4], [1.12, 1.1, 1.05])
        case "text":
            words = lines(y, 7, 3) * (noise(TILE // 7, 90) > -0.5)
            value = 1 - 0.65 * words
        case "picture":
            value = mix(0.5 + 0.5 * noise(7), [0.25, 0.4, 0.6], [1.5, 1.2, 0.9]) + 0.25 * noise(24)[..., None]
        case "grass":
            value = mix(0.5 + 0.3 * noise(150, 300) + 0.2 * noise(8), [0.55, 0.6, 0.5], [1.4, 1.25, 0.9])
        case "water":
            value = 1 + 0.12 * wave(y / 3 + 3 * noise(30, 12)) + 0.12 * noise(90, 20)
        case "sky":
            cloud = 0.6 * noise(5, 3) + 0.35 * noise(12, 8) + 0.2 * noise(40, 24) + 0.08 * noise(120)
            value = mix(0.25 + 0.6 * cloud, [0.95, 0.98, 1.02], [1.6, 1.35, 1.1])
        case "tiles":
            value = (
                mix(np.maximum(lines(x, 28, 2), lines(y, 28, 2)), [1, 1, 1], [0.6, 0.6, 0.6])
                + 0.05 * noise(40)[..., None]
            )
        case "grit":
            value = 1 + 0.11 * noise(TILE) + 0.07 * noise(150) + 0.08 * noise(7)
        case _:  # plain, gloss, glow
            value = 1 + 0.05 * noise(5) + 0.025 * noise(TILE)
    value = np.float32(value)
    return np.ascontiguousarray(np.broadcast_to(value[..., None], (TILE, TILE, 3)) if value.ndim == 2 else value)


RELIEF = {
    "gloss": 0.75,
    "glow": 0.0,
    "glass": 0.35,
    "metal": 0.6,
    "wool": 0.7,
    "fur": 0.6,
    "text": 0.15,
    "picture": 0.1,
}


def paint(
    canvas: np.ndarray,
    mask: np.ndarray,
    material: str,
    colour: np.ndarray,
    light: np.ndarray,
    rng: Generator,
    relief: bool = True,
) -> None:
    """Lay a material on `canvas` (float32 RGB, 0..255) where `mask` (uint8, 0 or 255) is set."""
    x, y, w, h = cv2.boundingRect(mask)
    if not w:
        return
    across, down = rng.integers(0, TILE, 2)
    pattern = texture(material)
    if across + w > TILE or down + h > TILE:
        across, down = (0, 0) if max(w, h) <= TILE else (across, down)
        pattern = pattern[np.arange(down, down + h) % TILE][:, np.arange(across, across + w) % TILE]
    else:
        pattern = pattern[down : down + h, across : across + w]
    inside = mask[y : y + h, x : x + w]
    ink = pattern * np.float32(colour)
    if relief:
        reach = max(2, min(w, h) // 3)
        padded = cv2.copyMakeBorder(inside, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=0)
        soft = cv2.blur(cv2.blur(padded, (reach, reach)), (reach, reach)).astype(np.float32) / 255
        dx, dy = np.rint(light * reach / 2).astype(int)
        towards, away = (
            soft[reach + s * dy : reach + s * dy + h, reach + s * dx : reach + s * dx + w] for s in (1, -1)
        )
        strength = RELIEF.get(material, 0.45)
        shade = 1 + strength * (away - towards) - 0.35 * strength * (1 - soft[reach : reach + h, reach : reach + w])
        ink *= shade[..., None]
        if material == "gloss":
            ink += 90 * np.clip(away - towards - 0.25, 0, 1)[..., None]
    cv2.copyTo(ink, inside, canvas[y : y + h, x : x + w])


# --- objects


@cache
def parts(name: str) -> list[list[tuple[str, list[float], str, str]]]:
    """The variants of a class, each a list of (kind with its swing, numbers, texture, colour)."""
    variants = []
    for variant in SHAPES[name].split("|"):
        found = []
        for part in filter(None, (part.split() for part in variant.split(";"))):
            if part[0] == "w":
                x, y, r = map(float, part[1:])
                found += [("o", [x, y, r, r], "plain", "dark"), ("o", [x, y, r * 0.62, r * 0.62], "metal", "steel")]
                found += [("o", [x, y, r * 0.2, r * 0.2], "plain", "dark")]
            elif part[0][0] == "k":
                found.append((part[0], [float(n) for n in part[1:]], "", ""))
            else:
                found.append((part[0], [float(n) for n in part[1:-2]], part[-2], part[-1]))
        variants.append(found)
    return variants


def rounded(points: np.ndarray, closed: bool) -> np.ndarray:
    """Chaikin's corner cutting, twice."""
    for _ in range(2):
        after = np.roll(points, -1, 0)
        cut = np.stack([0.75 * points + 0.25 * after, 0.25 * points + 0.75 * after], 1).reshape(-1, 2)
        points = cut if closed else np.concatenate([points[:1], cut[1:-3], points[-1:]])
    return points


CIRCLE = np.stack([np.cos(np.arange(28) * np.pi / 14), np.sin(np.arange(28) * np.pi / 14)], 1)


def outlines(kind: str, n: list[float]) -> tuple[list[np.ndarray], float, bool]:
    """The polygons or lines of a part, [N, 2] in units of the class's frame; the line's width or 0; closed or not."""
    match kind:
        case "o" | "r":
            cx, cy, rx, ry = n[:4] if kind == "o" else n[1:5]
            turn = np.radians(n[4]) if kind == "o" and len(n) > 4 else 0.0
            spin = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
            return [(CIRCLE * [rx, ry]) @ spin + [cx, cy]], 0 if kind == "o" else n[0], True
        case "p" | "b":
            points = np.reshape(n, (-1, 2))
            return [rounded(points, True) if kind == "b" else points], 0, True
        case "l" | "c":
            points = np.reshape(n[1:], (-1, 2))
            return [rounded(points, False) if kind == "c" else points], n[0], False
        case "x":
            x1, y1, x2, y2, r = n
            corner = np.repeat([[x2 - r, y2 - r], [x1 + r, y2 - r], [x1 + r, y1 + r], [x2 - r, y1 + r]], 7, 0)
            return [corner + CIRCLE * r], 0, True
        case "k":
            return [np.reshape(n[1:], (1, 2))], 0, False
        case "g":
            rx, ry, columns, rows, x1, y1, x2, y2 = n
            grid = [(x, y) for x in np.linspace(x1, x2, int(columns)) for y in np.linspace(y1, y2, int(rows))]
            return [np.array([[-rx, -ry], [rx, -ry], [rx, ry], [-rx, ry]]) + at for at in grid], 0, True
        case "d":
            radius, count, *ends = n
            return [CIRCLE * radius + at for at in np.linspace(ends[:2], ends[2:], int(count))], 0, True
    raise AssertionError(kind)


FREE = {  # lie at any angle
    *(
        "skis",
        "snowboard",
        "surfboard",
        "frisbee",
        "kite",
        "baseball bat",
        "baseball glove",
        "tennis racket",
        "sports ball",
    ),
    *("fork", "knife", "spoon", "banana", "apple", "orange", "carrot", "pizza", "donut"),
    *("scissors", "toothbrush", "hair drier", "remote", "cell phone", "tie"),
}


def palette(name: str, rng: Generator) -> np.ndarray:
    """One colour of a named palette, or of all colours for a capital letter, RGB 0..255."""
    if name.isupper():
        hsv = np.uint8([[[rng.integers(180), 255 * rng.beta(2, 1.3), rng.integers(90, 240)]]])
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float32)
    code = rng.choice(COLOURS[name].split())
    return np.float32(list(bytes.fromhex(code))) * rng.uniform(0.85, 1.1)


MIRRORED = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)  # COCO's keypoints, left for right


def sprite(
    name: str, side: float, light: np.ndarray, rng: Generator, tilt: float = 5
) -> tuple[np.ndarray, np.ndarray, dict[int, np.ndarray]]:
    """An object whose longer side is about `side` pixels: float32 RGB [H, W, 3] and coverage [H, W] in 0..1, cropped, and the
    places x, y in it, in pixels, of the keypoints that it has, by COCO's number.

    tilt: standard deviation of its rotation, in degrees, unless it is of those that lie at any angle
    """
    variants = parts(name)
    chosen = variants[rng.integers(len(variants))]
    turn = np.radians(rng.uniform(-180, 180) if name in FREE else rng.normal(0, tilt))
    stretch = np.exp(rng.uniform(-0.16, 0.16))
    lean = rng.uniform(-0.14, 0.14)
    flip = rng.choice([-1, 1])
    form = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    form = form @ np.array([[flip * stretch, lean], [0, 1 / stretch]])
    bend, phase = rng.normal(0, 1.6, 2), rng.uniform(0, 7, 2)
    shapes, swing = [], np.eye(2)
    pivot = np.zeros(2)
    joints: dict[int, np.ndarray] = {}
    for kind, numbers, material, colour in chosen:
        lists, width, closed = outlines(kind[0], numbers)
        if "~" in kind:
            angle = np.radians(rng.uniform(-1, 1) * float(kind[2:]))
            swing = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            pivot = lists[0][0]
        if len(kind) > 1:
            lists = [(points - pivot) @ swing.T + pivot for points in lists]
        lists = [points + bend * np.sin(points[:, ::-1] / 22 + phase) for points in lists]
        lists = [(points - 50) @ form.T for points in lists]
        if kind[0] == "k":
            number = int(numbers[0])
            joints[MIRRORED[number] if flip < 0 else number] = lists[0][0]
        else:
            shapes.append((lists, width, closed, material, colour))
    low = np.min([points.min(0) - width / 2 for lists, width, *_ in shapes for points in lists], 0)
    high = np.max([points.max(0) + width / 2 for lists, width, *_ in shapes for points in lists], 0)
    zoom = 2 * side / (high - low).max()
    w, h = (np.ceil((high - low) * zoom / 2).astype(int) + 2) * 2
    canvas, cover = np.zeros((h, w, 3), np.float32), np.zeros((h, w), np.uint8)
    inks: dict[str, np.ndarray] = {}
    for lists, width, closed, material, colour in shapes:
        mask = np.zeros((h, w), np.uint8)
        pixels = [np.rint(((points - low) * zoom + 2) * 8).astype(np.int32) for points in lists]
        if width:
            cv2.polylines(mask, pixels, closed, 255, max(2, round(width * zoom)), shift=3)
        else:
            cv2.fillPoly(mask, pixels, 255, shift=3)
        base = colour.rstrip("+-")
        if base not in inks:
            inks[base] = palette(base, rng)
        tone = 0.7 if colour.endswith("-") else 1.25 if colour.endswith("+") else 1.0
        paint(canvas, mask, material, np.minimum(inks[base] * tone, 250), light, rng)
        cover |= mask
    half = (int(w) // 2, int(h) // 2)
    coverage = cv2.resize(np.float32(cover) / 255, half, interpolation=cv2.INTER_AREA)
    rgb = cv2.resize(canvas, half, interpolation=cv2.INTER_AREA) / np.maximum(coverage, 0.25)[..., None]
    return rgb, coverage, {number: ((at - low) * zoom + 2) / 2 for number, at in joints.items()}
