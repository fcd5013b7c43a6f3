"""The pools of operations against timm's, which InfoMin's code copies, and against PIL."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from pretrain import randaugment


def picture(side: int = 48) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    planes = [127 + 90 * np.sin(x / 9 + phase) * np.cos(y / 13 - phase) for phase in (0, 1, 2)]
    return np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)


class Fixed:
    """A source of random numbers that answers as it is told."""

    def __init__(self, uniform=0.0, integer=0):
        self.uniform_, self.integer = uniform, integer

    def random(self):
        return self.uniform_

    def integers(self, *_):
        return self.integer


TIMM = {
    "autocontrast": "AutoContrast", "equalize": "Equalize", "invert": "Invert", "rotate": "Rotate", "solarize": "Solarize",
    "solarize_add": "SolarizeAdd", "color": "Color", "contrast": "Contrast", "brightness": "Brightness",
    "sharpness": "Sharpness", "shear_x": "ShearX", "shear_y": "ShearY", "translate_x": "TranslateXRel",
    "translate_y": "TranslateYRel", "posterize": "Posterize",
}  # fmt: skip


@pytest.mark.parametrize("level", [1, 4.7, 9.3, 10])
@pytest.mark.parametrize("name", TIMM)
def test_an_operation_of_randaugment_is_timms_at_the_same_level(name, level, monkeypatch):
    timm = pytest.importorskip("timm.data.auto_augment")
    monkeypatch.setattr(timm, "_randomly_negate", lambda value: value)
    to_argument = timm.LEVEL_TO_ARG[TIMM[name]]
    arguments = to_argument(level, {}) if to_argument else ()
    if name == "posterize" and int(level / 10 * 4) == 0:
        pytest.skip("no bit would be left, which PIL refuses")
    given = {"fillcolor": randaugment.MEAN, "resample": Image.Resampling.BICUBIC}
    theirs = timm.NAME_TO_OP[TIMM[name]](Image.fromarray(picture()), *arguments, **given)
    ours = randaugment.RANDAUGMENT[name](Image.fromarray(picture()), level, Fixed(0.0, 1))
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))


def test_the_pools_have_the_published_operations():
    assert set(randaugment.RANDAUGMENT) == set(TIMM)
    assert len(randaugment.RANDAUGMENT) == 15
    assert len(randaugment.STRONG) == 14


@pytest.mark.parametrize(
    ("name", "level", "expected"),
    [
        ("brightness", 5, lambda x: ImageEnhance.Brightness(x).enhance(0.05 + 0.45)),
        ("color", 9, lambda x: ImageEnhance.Color(x).enhance(0.05 + 0.81)),
        ("contrast", 1, lambda x: ImageEnhance.Contrast(x).enhance(0.05 + 0.09)),
        ("sharpness", 9, lambda x: ImageEnhance.Sharpness(x).enhance(0.05 + 0.81)),
        ("posterize", 5, lambda x: ImageOps.posterize(x, 6)),  # 4 bits and 4 * 5 / 10 more
        ("solarize", 5, lambda x: ImageOps.solarize(x, 128)),
        ("rotate", 5, lambda x: x.rotate(15)),
        ("autocontrast", 5, ImageOps.autocontrast),
        ("equalize", 5, ImageOps.equalize),
        ("identity", 5, lambda x: x),
        ("shear_x", 5, lambda x: x.transform(x.size, Image.Transform.AFFINE, (1, 0.15, 0, 0, 1, 0))),
        ("shear_y", 5, lambda x: x.transform(x.size, Image.Transform.AFFINE, (1, 0, 0, 0.15, 1, 0))),
        ("translate_x", 5, lambda x: x.transform(x.size, Image.Transform.AFFINE, (1, 0, 7, 0, 1, 0))),  # 0.15 of 48
        ("translate_y", 5, lambda x: x.transform(x.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, 7))),
    ],
)
def test_a_strong_operation_is_pils_with_fixmatchs_parameters(name, level, expected):
    image = Image.fromarray(picture())
    ours = randaugment.STRONG[name](image, level, Fixed(0.0))
    assert np.array_equal(np.asarray(ours), np.asarray(expected(image)))


def counted(monkeypatch, pool, draw, times=3000):
    """The share of the operations that were applied, a draw; and the levels that they had."""
    done, levels = [], []
    for name in pool:
        monkeypatch.setitem(pool, name, lambda x, level, rng, name=name: done.append(name) or levels.append(level) or x)
    rng, image = np.random.default_rng(0), picture(8)
    for _ in range(times):
        draw(image, rng)
    return {name: done.count(name) / times for name in pool}, np.array(levels)


def test_two_draws_half_of_them_applied_at_levels_around_ten(monkeypatch):
    shares, levels = counted(
        monkeypatch, randaugment.RANDAUGMENT, lambda x, rng: randaugment.augmented(x, 2, 10, 0.5, rng)
    )
    assert all(abs(share - 2 / 15 / 2) < 0.02 for share in shares.values())  # four standard deviations
    assert np.mean(levels == 10) == pytest.approx(0.5, abs=0.05)  # what the normal distribution puts above is cut
    assert levels[levels < 10].mean() == pytest.approx(10 - 0.5 * (2 / np.pi) ** 0.5, abs=0.05)


def test_five_strong_draws_half_of_them_applied_at_whole_levels_of_one_to_nine(monkeypatch):
    shares, levels = counted(monkeypatch, randaugment.STRONG, lambda x, rng: randaugment.strengthened(x, rng))
    assert all(abs(share - 5 / 14 / 2) < 0.035 for share in shares.values())
    assert sorted(set(levels)) == list(range(1, 10))
    assert np.allclose(np.bincount(levels)[1:] / len(levels), 1 / 9, atol=0.02)


def test_signs_are_even():
    lefts = 0
    image = np.zeros((20, 20, 3), np.uint8)
    image[:, 10] = 255
    rng = np.random.default_rng(0)
    for _ in range(400):
        moved = np.asarray(randaugment.STRONG["translate_x"](Image.fromarray(image), 5, rng))
        lefts += int(moved[0, :, 0].argmax() < 10)
    assert lefts / 400 == pytest.approx(0.5, abs=0.1)


def test_the_photometric_step_posterises_sharpens_solarises_and_stretches(monkeypatch):
    seen = {"bits": [], "sharpness": [], "threshold": []}
    posterize, solarize, enhancer = ImageOps.posterize, ImageOps.solarize, ImageEnhance.Sharpness
    monkeypatch.setattr(ImageOps, "posterize", lambda x, bits: seen["bits"].append(bits) or posterize(x, bits))
    monkeypatch.setattr(ImageOps, "solarize", lambda x, least: seen["threshold"].append(least) or solarize(x, least))

    class Sharpness(enhancer):
        def enhance(self, factor):
            seen["sharpness"].append(factor)
            return super().enhance(factor)

    monkeypatch.setattr(ImageEnhance, "Sharpness", Sharpness)
    rng = np.random.default_rng(0)
    for _ in range(1000):
        out = randaugment.photometric(picture(8), rng)
    assert out.shape == (8, 8, 3)
    assert sorted(set(seen["bits"])) == [4, 5, 6, 7, 8]
    assert 0.1 <= min(seen["sharpness"]) < 0.15 and 1.85 < max(seen["sharpness"]) <= 1.9
    assert min(seen["threshold"]) < 5 and 250 < max(seen["threshold"]) <= 256
