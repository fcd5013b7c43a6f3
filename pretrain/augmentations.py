"""The random views that several methods share, as the part of a recipe that pretrain/views.py reads.

Each is what the authors' code does, at 224 pixels; a method adds to it or changes what its own paper changes.
"""

from typing import Any

# facebookresearch/moco main_moco.py with --aug-plus
MOCO2: dict[str, Any] = {
    "views": 2,
    "size": 224,
    "crop_area": (0.2, 1.0),
    "gray_first": False,
    "gray_p": 0.2,
    "jitter": (0.4, 0.4, 0.4, 0.1),
    "jitter_p": 0.8,
    "blur_p": (0.5, 0.5),
    "blur_sigma": (0.1, 2.0),
    "solarize_p": (0.0, 0.0),
    "flip_p": 0.5,
}

# the same without it, which is zhirongw/lemniscate.pytorch main.py
MOCO1: dict[str, Any] = {
    **MOCO2,
    "gray_first": True,
    "jitter": (0.4, 0.4, 0.4, 0.4),
    "jitter_p": 1.0,
    "blur_p": (0.0, 0.0),
}

# pytorch/vision references/classification/presets.py without its options: a crop, and a flip
PLAIN: dict[str, Any] = {
    "views": 1,
    "size": 224,
    "crop_area": (0.08, 1.0),
    "gray_first": False,
    "gray_p": 0.0,
    "jitter": (0.0, 0.0, 0.0, 0.0),
    "jitter_p": 0.0,
    "blur_p": (0.0,),
    "blur_sigma": (0.1, 2.0),
    "solarize_p": (0.0,),
    "flip_p": 0.5,
}

# google-research/simclr data_util.py: crop, flip, colours at strength 1 with every step cut to the scale, blur; no mean, no std
SIMCLR: dict[str, Any] = {
    "views": 2,
    "size": 224,
    "interpolation": "bicubic",
    "crop_area": (0.08, 1.0),
    "gray_first": False,
    "gray_p": 0.2,
    "jitter": (0.8, 0.8, 0.8, 0.2),
    "jitter_p": 0.8,
    "blur_p": (0.5, 0.5),
    "blur_sigma": (0.1, 2.0),
    "blur_kernel": 23,  # a tenth of the side, made odd
    "solarize_p": (0.0, 0.0),
    "flip_p": 0.5,
    "mean": (0.0, 0.0, 0.0),
    "std": (255.0, 255.0, 255.0),
}

# the stages of SimCLR v2 that follow pretraining: data_util.py without colours and blur (preprocess_fn_finetune)
SIMCLR_PLAIN: dict[str, Any] = {
    **SIMCLR,
    "views": 1,
    "gray_p": 0.0,
    "jitter_p": 0.0,
    "blur_p": (0.0,),
    "solarize_p": (0.0,),
}

# google-deepmind/deepmind-research byol/utils/augmentations.py: the two views differ in blur and solarisation
BYOL: dict[str, Any] = {
    "views": 2,
    "size": 224,
    "interpolation": "bicubic",
    "crop_area": (0.08, 1.0),
    "gray_first": False,
    "gray_p": 0.2,
    "jitter": (0.4, 0.4, 0.2, 0.1),
    "jitter_p": 0.8,
    "blur_p": (1.0, 0.1),
    "blur_sigma": (0.1, 2.0),
    "solarize_p": (0.0, 0.2),
    "flip_p": 0.5,
}


def multi_crop(sizes: tuple[int, ...], areas: tuple[tuple[float, float], ...]) -> dict[str, Any]:
    """facebookresearch/swav src/multicropdataset.py: SimCLR's colours on crops of several sizes, one entry a view."""
    return {
        "views": len(sizes),
        "size": sizes,
        "crop_area": areas,
        "gray_first": False,
        "gray_p": 0.2,
        "jitter": (0.8, 0.8, 0.8, 0.2),
        "jitter_p": 0.8,
        "blur_p": (0.5,) * len(sizes),
        "blur_sigma": (0.1, 2.0),
        "solarize_p": (0.0,) * len(sizes),
        "flip_p": 0.5,
        "mean": (123.675, 116.28, 103.53),
        "std": (58.14, 57.12, 57.375),  # 0.228, not 0.229, for red: the weights were trained so
    }
