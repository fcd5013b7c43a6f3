"""The boxes that come with views, on an image whose colours are its coordinates, and what is drawn for views, by the recipes."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from pretrain import views

ROOT = Path(__file__).resolve().parents[2]
NAMES = sorted(path.stem for path in (ROOT / "pretrain" / "methods").glob("*.py") if not path.name.startswith("_"))
RECIPES = {name: importlib.import_module(f"pretrain.methods.{name}").recipe() for name in NAMES}

HEIGHT, WIDTH = 27, 32
GREY = 8  # levels a pixel: red is 8 x column, green 8 x row


def coordinates() -> np.ndarray:
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[..., 0] = GREY * np.arange(WIDTH)
    image[..., 1] = GREY * np.arange(HEIGHT)[:, None]
    return image


def without_colours(recipe: dict) -> dict:
    """The recipe with its crops and flips alone, at an eighth of the side, which both enlarges and shrinks."""
    count, size = recipe["views"], recipe["size"]
    size = tuple(side // 8 for side in size) if isinstance(size, tuple) else size // 8
    plain = {"size": size, "gray_p": 0.0, "jitter_p": 0.0, "blur_p": (0.0,) * count, "solarize_p": (0.0,) * count}
    for key, nothing in (("randaugment", (None,) * count), ("strong", (False,) * count), ("photometric_p", 0.0)):
        if key in recipe:
            plain[key] = nothing
    return {**recipe, **plain}


def whole(recipe: dict) -> list[int]:
    """The numbers of the views that are one crop: a jigsaw's is nine."""
    return [v for v in range(recipe["views"]) if v != recipe.get("jigsaw")]


@pytest.mark.parametrize("name", [name for name in NAMES if whole(RECIPES[name])])
def test_a_box_maps_every_pixel_back_to_its_source_within_half_a_pixel(name):
    recipe, image, mirrored = without_colours(RECIPES[name]), coordinates(), set()
    for seed in range(30):
        rng = np.random.default_rng(seed)
        for v in whole(recipe):
            out, (x0, y0, x1, y1) = views.view(image, recipe, v, rng)
            side = out.shape[0]
            assert out.shape == (side, side, 3)
            place = (np.arange(side) + 0.5) / side
            column = (x0 + place * (x1 - x0)) * (WIDTH - 1)
            row = (y0 + place * (y1 - y0)) * (HEIGHT - 1)
            apart_x, apart_y = out[..., 0] / GREY - column, out[..., 1] / GREY - row[:, None]
            # half a pixel, and the rounding of the view to 8 bits in OpenCV's fixed-point arithmetic
            assert max(np.abs(apart_x).max(), np.abs(apart_y).max()) <= 0.5 + 0.75 / GREY
            assert abs(apart_x.mean()) < 0.1 and abs(apart_y.mean()) < 0.1
            mirrored.add(bool(x0 > x1))
            assert 0 <= min(x0, x1) <= max(x0, x1) <= 1 and 0 <= y0 <= y1 <= 1
    assert mirrored == ({True, False} if 0 < recipe["flip_p"] < 1 else {recipe["flip_p"] == 1})
