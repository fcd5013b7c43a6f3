"""Operations on whole images drawn from a pool, by PIL: RandAugment (InfoMin), CLSA's stronger views, PIRL's photometric step.

Each follows the file that its function names. A pool is a dict from an operation's name to (image, level, rng) -> image, with a
level of 0 to 10. Shears, turns and shifts are not in a view's box.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

Operation = Callable[[Image.Image, float, np.random.Generator], Image.Image]

MEAN = (124, 116, 104)  # fills what a shift uncovers: ImageNet's mean
TOP = 10  # the highest level


def augmented(image: np.ndarray, n: int, m: float, mstd: float, rng: np.random.Generator) -> np.ndarray:
    """n operations drawn with replacement from RANDAUGMENT, each applied with probability 1/2 at a level N(m, mstd), 0 to 10.

    image: uint8 [H, W, 3], as the result. HobbitLong/PyContrast pycontrast/datasets/RandAugment.py (timm's of early 2020)
    """
    made = Image.fromarray(image)
    for name in rng.choice(list(RANDAUGMENT), n):
        if rng.random() < 0.5:
            made = RANDAUGMENT[name](made, float(np.clip(rng.normal(m, mstd), 0, TOP)), rng)
    return np.array(made)


def strengthened(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Five operations drawn with replacement from STRONG, each applied with probability 1/2 at a level 1 to 9.

    image: uint8 [H, W, 3], as the result. maple-research-lab/CLSA data_processing/RandAugment.py, whose range(1, 10) ends at 9
    """
    made = Image.fromarray(image)
    for name in rng.choice(list(STRONG), 5):
        level = rng.integers(1, TOP)
        if rng.random() < 0.5:
            made = STRONG[name](made, level, rng)
    return np.array(made)


def photometric(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """4 to 8 bits, a sharpness of 0.1 to 1.9, a solarisation above 0 to 256 and the whole scale used, one after the other.

    image: uint8 [H, W, 3], as the result. facebookresearch/vissl data/ssl_transforms/img_pil_random_photometric.py
    """
    made = ImageOps.posterize(Image.fromarray(image), int(rng.integers(4, 9)))
    made = ImageEnhance.Sharpness(made).enhance(rng.uniform(0.1, 1.9))
    return np.array(ImageOps.autocontrast(ImageOps.solarize(made, int(rng.integers(257)))))


def moved(image: Image.Image, matrix: tuple[float, ...], rng: np.random.Generator) -> Image.Image:
    """Out pixel x, y from a x + b y + c, d x + e y + f; bilinear or bicubic, by chance."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, _either(rng), fillcolor=MEAN)


def _either(rng: np.random.Generator) -> Image.Resampling:
    return (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)[rng.integers(2)]


def _signed(value: float, rng: np.random.Generator) -> float:
    return value if rng.random() < 0.5 else -value


def _solarize_add(image: Image.Image, amount: int) -> Image.Image:
    """The lower half of the scale raised by `amount`."""
    return image.point([min(255, i + amount) if i < 128 else i for i in range(256)] * 3)


def _enhanced(enhancer: Callable[[Image.Image], ImageEnhance._Enhance], scale: float, offset: float) -> Operation:
    """Brightness, contrast, colour or sharpness multiplied by offset (level 0) to offset + scale (level 10)."""
    return lambda image, level, rng: enhancer(image).enhance(level / TOP * scale + offset)


RANDAUGMENT: dict[str, Operation] = {
    "autocontrast": lambda x, level, rng: ImageOps.autocontrast(x),
    "equalize": lambda x, level, rng: ImageOps.equalize(x),
    "invert": lambda x, level, rng: ImageOps.invert(x),
    "rotate": lambda x, level, rng: x.rotate(_signed(level / TOP * 30, rng), _either(rng), fillcolor=MEAN),
    "posterize": lambda x, level, rng: ImageOps.posterize(x, max(1, int(level / TOP * 4))),
    "solarize": lambda x, level, rng: ImageOps.solarize(x, int(level / TOP * 256)),
    "solarize_add": lambda x, level, rng: _solarize_add(x, int(level / TOP * 110)),
    "color": _enhanced(ImageEnhance.Color, 1.8, 0.1),
    "contrast": _enhanced(ImageEnhance.Contrast, 1.8, 0.1),
    "brightness": _enhanced(ImageEnhance.Brightness, 1.8, 0.1),
    "sharpness": _enhanced(ImageEnhance.Sharpness, 1.8, 0.1),
    "shear_x": lambda x, level, rng: moved(x, (1, _signed(level / TOP * 0.3, rng), 0, 0, 1, 0), rng),
    "shear_y": lambda x, level, rng: moved(x, (1, 0, 0, _signed(level / TOP * 0.3, rng), 1, 0), rng),
    "translate_x": lambda x, level, rng: moved(x, (1, 0, _signed(level / TOP * 0.45, rng) * x.width, 0, 1, 0), rng),
    "translate_y": lambda x, level, rng: moved(x, (1, 0, 0, 0, 1, _signed(level / TOP * 0.45, rng) * x.height), rng),
}


def _plainly(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Moved to the nearest pixel, black where nothing was."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


STRONG: dict[str, Operation] = {
    "autocontrast": lambda x, level, rng: ImageOps.autocontrast(x),
    "brightness": _enhanced(ImageEnhance.Brightness, 0.9, 0.05),
    "color": _enhanced(ImageEnhance.Color, 0.9, 0.05),
    "contrast": _enhanced(ImageEnhance.Contrast, 0.9, 0.05),
    "equalize": lambda x, level, rng: ImageOps.equalize(x),
    "identity": lambda x, level, rng: x,
    "posterize": lambda x, level, rng: ImageOps.posterize(x, int(level * 4 / TOP) + 4),
    "rotate": lambda x, level, rng: x.rotate(_signed(int(level * 30 / TOP), rng)),
    "sharpness": _enhanced(ImageEnhance.Sharpness, 0.9, 0.05),
    "shear_x": lambda x, level, rng: _plainly(x, (1, _signed(level * 0.3 / TOP, rng), 0, 0, 1, 0)),
    "shear_y": lambda x, level, rng: _plainly(x, (1, 0, 0, _signed(level * 0.3 / TOP, rng), 1, 0)),
    "solarize": lambda x, level, rng: ImageOps.solarize(x, 256 - int(level * 256 / TOP)),
    "translate_x": lambda x, level, rng: _plainly(x, (1, 0, int(_signed(level * 0.3 / TOP, rng) * x.width), 0, 1, 0)),
    "translate_y": lambda x, level, rng: _plainly(x, (1, 0, 0, 0, 1, int(_signed(level * 0.3 / TOP, rng) * x.height))),
}
