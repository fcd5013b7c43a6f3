"""A run's numbers before it starts: the published recipe, the rule of the mini scale, what was asked for, and what fits the data."""

import difflib
import math
import os
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from pretrain.data import Folder

IMAGENET = 1_281_167  # training images
# follow from the method and the data
GIVEN = ("variant", "views", "classes", "images", "jigsaw", "strong", "unverified")
# what the loop, the views and the optimisers read of every recipe
NEEDED = (
    "variant", "views", "size", "crop_area", "gray_first", "gray_p", "jitter", "jitter_p", "blur_p", "blur_sigma", "solarize_p",
    "flip_p", "epochs", "batch_size", "optimiser", "base_lr", "momentum", "weight_decay", "schedule", "schedule_unit",
    "milestones", "warmup_epochs", "warmup_start", "constant_lr", "sync_bn", "precision",
)  # fmt: skip
# what the numbers of a field may be, each of them where there are several
LIMITS: tuple[tuple[str, Callable[[float], bool], str], ...] = (
    (
        "at least 1",
        lambda x: x >= 1,
        "size dim hidden predictor_hidden layers large sets window jigsaw_patch iterations sinkhorn_iterations whitened",
    ),
    ("at least 2", lambda x: x >= 2, "prototypes"),
    (
        "above 0",
        lambda x: x > 0,
        "base_lr bias_lr lr temperature teacher_temperature divergence_temperature epsilon std clip positive_ratio",
    ),
    ("from 2 to the 362880 that there are", lambda x: 2 <= x <= 362_880, "permutations"),
    ("odd and at least 1", lambda x: x >= 1 and x % 2 == 1, "blur_kernel"),
    (
        "0 or more",
        lambda x: x >= 0,
        "blur_sigma negatives recent weight_decay flat_decay head_decay warmup_epochs warmup_start milestones end_lr end_factor "
        "freeze_epochs queue_epoch",
    ),
    ("above 0 and at most 1", lambda x: 0 < x <= 1, "crop_area jigsaw_area jigsaw_side"),
    (
        "from 0 to 1",
        lambda x: 0 <= x <= 1,
        "ema momentum bank_momentum center_momentum jitter jitter_p gray_p blur_p solarize_p photometric_p flip_p "
        "patch_weight dense_weight",
    ),
)
# the words of a field that is a word
WORDS = {
    "optimiser": ("sgd", "lars", "larc"),
    "precision": ("fp32", "bf16", "fp16"),
    "lr_rule": ("linear", "sqrt"),
    "schedule": ("cosine", "step"),
    "schedule_unit": ("epoch", "step"),
    "ema_schedule": ("cosine",),
    "interpolation": ("bilinear", "bicubic"),
    "form": ("nce", "softmax"),
    "bank_start": ("random", "images"),
}


def mini(recipe: Mapping[str, Any], images: int, batch_size: int | None) -> dict[str, Any]:
    """The mini scale, by one rule for every method; what is not named here stays as published.

    views     224 pixels a side become 64, other sides in proportion, made a multiple of 8 of at least 32; crop areas unchanged;
              blur in proportion; the jigsaw's patches are 24 pixels, from cells of 32
    batch     128, halved until an epoch has 8 steps, but not below 32; at most the folder
    length    10 epochs
    lr        SGD: base_lr doubled (the linear rule then gives twice the published rate at this batch); where there is a memory bank a
              fifth of it, because a row is as old as the last visit of its image, and a faster network leaves it behind. LARS and
              LARC, whose recipes are for thousands of images: the published rate times the root of the ratio of the batches.
              Linear warm-up over the first tenth of the epochs, cosine to the published end by the step
    networks  hidden and output channels of heads at most 2048
    BN        groups of a quarter of the batch (or the next smaller divisor) where the method has per-GPU batch norm
    memory    queues 4096, at most half the folder, a multiple of the batch, filled from the second epoch at the latest; negatives
              from a bank at most half the folder, and the bank begins with the images' embeddings, because a random beginning is
              not made good in a few epochs (contrast.Instances.begin); prototypes at most one for 64 images, Sinkhorn's epsilon at
              most 0.03, because small batches collapse at 0.05; a sliding window in proportion to the folder; at most the 100
              permutations of VISSL's smallest set for a jigsaw
    momentum  0.99 where it is more, because ten epochs of 20,000 images are 1,560 steps; as published where there is a queue: keys of
              a network that moves are told apart by their age, and nothing is learnt of the images
    numbers   bfloat16 autocast
    """
    batch_size = _fitting(images) if batch_size is None else batch_size
    small = {
        **recipe,
        "batch_size": batch_size,
        "epochs": 10,
        "base_lr": recipe["base_lr"] * _faster(recipe, batch_size),
        "warmup_epochs": 1.0,
        "warmup_start": 0.01,
        "schedule": "cosine",
        "schedule_unit": "step",
        "precision": "bf16",
    }
    if "bias_lr" in recipe:
        small["bias_lr"] = recipe["bias_lr"] * _faster(recipe, batch_size)
    if "bn_group" in recipe:
        quarter = max(2, batch_size // 4)
        small["bn_group"] = next((size for size in range(quarter, 1, -1) if batch_size % size == 0), batch_size)
    if recipe.get("ema", 0) > 0.99 and not recipe.get("queue"):
        small["ema"] = 0.99
    for key in ("hidden", "dim"):
        if key in recipe:
            small[key] = min(recipe[key], 2048)
    return small | _smaller_views(recipe) | _shorter_memory(recipe, images, batch_size)


def _fitting(images: int) -> int:
    """The mini scale's batch."""
    batch_size = 128
    while batch_size > 32 and images // batch_size < 8:
        batch_size //= 2
    while batch_size > max(images, 2):
        batch_size //= 2
    return batch_size


def _faster(recipe: Mapping[str, Any], batch_size: int) -> float:
    """What the mini scale multiplies base_lr by."""
    if recipe["optimiser"] == "sgd":
        return 0.2 if "bank_start" in recipe else 2.0
    # the linear rule divides the rate by the ratio of the batches, of which this gives the root back; the other rule is the root's
    return math.sqrt(recipe["batch_size"] / batch_size) if recipe.get("lr_rule", "linear") == "linear" else 1.0


def _smaller_views(recipe: Mapping[str, Any]) -> dict[str, Any]:
    sides = recipe["size"] if isinstance(recipe["size"], tuple) else (recipe["size"],)
    sizes = tuple(max(32, math.ceil(side * 64 / 224 / 8) * 8) for side in sides)
    small = {
        "size": sizes if isinstance(recipe["size"], tuple) else sizes[0],
        "blur_sigma": tuple(sigma * 64 / 224 for sigma in recipe["blur_sigma"]),
    }
    if "blur_kernel" in recipe:
        small["blur_kernel"] = round(recipe["blur_kernel"] * 64 / 224) | 1
    if "jigsaw" in recipe:
        small |= {"jigsaw_size": 96, "jigsaw_patch": 24}
    return small


def _shorter_memory(recipe: Mapping[str, Any], images: int, batch_size: int) -> dict[str, Any]:
    small: dict[str, Any] = {}
    if recipe.get("queue"):
        small["queue"] = max(1, min(recipe["queue"], 4096, images // 2) // batch_size) * batch_size
    if "queue_epoch" in recipe:
        small["queue_epoch"] = min(recipe["queue_epoch"], 1)
    if recipe.get("negatives"):
        small["negatives"] = max(1, min(recipe["negatives"], images // 2))
    if "bank_start" in recipe:
        small["bank_start"] = "images"
    if "prototypes" in recipe:
        small["prototypes"] = max(2, min(recipe["prototypes"], images // 64))
    if "permutations" in recipe:
        small["permutations"] = min(recipe["permutations"], 100)
    if "epsilon" in recipe:
        small["epsilon"] = min(recipe["epsilon"], 0.03)  # facebookresearch/swav README, "Common Issues"
    if "window" in recipe:
        size, stride = (round(part * images / IMAGENET / batch_size) * batch_size for part in recipe["window"])
        small["window"] = (max(size, batch_size), max(stride, batch_size // 8, 1))
    return small


def parsed(key: str, text: str, default: Any) -> Any:
    """The value of KEY=VALUE in the type of the recipe's own; commas separate the parts of a range, of every view's in turn."""
    try:
        return _like(text, default, key == "milestones")
    except (KeyError, ValueError):
        raise ValueError(f"expected {key} to look like {worded(default)}, found {text!r}") from None


def worded(value: Any) -> str:
    """A recipe's value as `parsed` reads it."""
    return ",".join(map(str, _flat(value))) if isinstance(value, tuple) else str(value)


def _flat(value: tuple[Any, ...]) -> list[Any]:
    return [part for outer in value for part in (outer if isinstance(outer, tuple) else (outer,))]


def _like(text: str, default: Any, any_length: bool) -> Any:
    if default is None:
        return {"none": None}[text.strip().lower()]
    if isinstance(default, bool):
        return {"true": True, "1": True, "false": False, "0": False}[text.lower()]
    if not isinstance(default, tuple):
        return type(default)(text)
    parts, flat = text.strip("()[] ").split(","), _flat(default)
    if any_length:
        return tuple(int(part) for part in parts) if parts != [""] else ()
    values = iter([_like(part, old, False) for part, old in zip(parts, flat, strict=True)])
    return tuple(tuple(next(values) for _ in old) if isinstance(old, tuple) else next(values) for old in default)


def resolved(
    method: ModuleType,
    folder: Folder,
    scale: str,
    variant: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    overrides: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Every number of the run: the published recipe, the mini rule, what was asked for, and the learning rate that follows."""
    if scale not in ("paper", "mini"):
        raise ValueError(f"expected scale paper or mini, found {scale!r}")
    asked = dict(overrides or {})
    recipe = method.recipe(variant)
    check_whole(method.__name__.rpartition(".")[2], recipe)
    for key in asked:
        if key not in recipe and key != "lr":
            near = difflib.get_close_matches(key, [*recipe, "lr"], 1, 0)[0]
            raise ValueError(
                f"expected a field of the recipe, found {key!r}: did you mean {near}? All: {' '.join(recipe)} lr"
            )
        if key in GIVEN:
            raise ValueError(
                f"expected a field that can be changed, found {key}: it follows from the method and the data"
            )
    if "batch_size" in asked:
        batch_size = parsed("batch_size", asked["batch_size"], 1)
    if "epochs" in asked:
        epochs = parsed("epochs", asked["epochs"], 1)
    if batch_size is not None and batch_size < 2:
        raise ValueError(
            f"expected a batch of at least 2 images (batch norm), found {batch_size}: a larger --batch-size"
        )
    if scale == "mini":
        recipe = mini(recipe, len(folder), batch_size)
    elif batch_size is not None:
        recipe["batch_size"] = batch_size
    if epochs is not None:
        # the milestones keep their place in the training, and so does a warm-up whose source is a share of the epochs; the mini
        # rule's keeps its tenth
        recipe["milestones"] = tuple(round(m * epochs / recipe["epochs"]) for m in recipe["milestones"])
        if scale == "mini":
            recipe["warmup_epochs"] = epochs / 10
        elif recipe["variant"] in getattr(method, "WARMUP_FOLLOWS", ()):
            recipe["warmup_epochs"] *= epochs / recipe["epochs"]
        recipe["epochs"] = epochs
    recipe.update({key: parsed(key, text, recipe[key]) for key, text in asked.items() if key != "lr"})
    recipe["lr"] = parsed("lr", asked["lr"], 0.1) if "lr" in asked else peak(recipe)
    if "classes" in recipe:
        recipe["classes"] = len(folder.classes)
    if "images" in recipe:
        recipe["images"] = len(folder)
    check_fields(recipe)
    check(recipe, folder)
    return recipe


def peak(recipe: Mapping[str, Any]) -> float:
    """The learning rate after the warm-up: base_lr a 256 images, or times the root of the batch (SimCLR, appendix B.1)."""
    batch = recipe["batch_size"]
    if recipe.get("lr_rule") == "sqrt":
        return recipe["base_lr"] * math.sqrt(batch)
    return recipe["base_lr"] * batch / 256


def check_whole(name: str, recipe: Mapping[str, Any]) -> None:
    """ValueError where a method's recipe does not say everything that is read of it."""
    missing = [key for key in NEEDED if key not in recipe]
    if ("end_lr" in recipe) == ("end_factor" in recipe):
        missing.append("either end_lr or end_factor")
    if missing:
        raise ValueError(
            f"expected the recipe of {name} to have every field that a run reads, found it without {', '.join(missing)}: "
            "build it over **augmentations.X and **optim.X, as pretrain/methods/moco.py does"
        )


def check_fields(recipe: Mapping[str, Any]) -> None:
    """ValueError where a number or a word is not one that its field can be, whatever the data."""
    for key, words in WORDS.items():
        if key in recipe and recipe[key] not in words:
            raise ValueError(f"expected {key} {' or '.join(words)}, found {recipe[key]!r}")
    numbers = {
        key: [x for x in _flat(value if isinstance(value, tuple) else (value,)) if isinstance(x, int | float)]
        for key, value in recipe.items()
    }
    for key, found in numbers.items():
        if not all(map(math.isfinite, found)):
            raise ValueError(f"expected {key} finite, found {recipe[key]}")
    for words, fits, keys in LIMITS:
        for key in keys.split():
            if not all(map(fits, numbers.get(key, ()))):
                raise ValueError(f"expected {key} {words}, found {recipe[key]}")
    for key in ("crop_area", "jigsaw_area", "blur_sigma"):
        found = numbers.get(key, [])
        if any(low > high for low, high in zip(found[::2], found[1::2], strict=True)):
            raise ValueError(f"expected {key} from the lower to the higher, found {recipe[key]}")
    if any(hue > 0.5 for hue in numbers["jitter"][3::4]):
        raise ValueError(f"expected the hue of jitter, its last number, at most 0.5, found {recipe['jitter']}")
    if "jigsaw" in recipe and recipe["jigsaw_patch"] > recipe["jigsaw_size"] // 3:
        raise ValueError(
            f"expected jigsaw_patch at most a third of jigsaw_size {recipe['jigsaw_size']}, found {recipe['jigsaw_patch']}: "
            f"a smaller one, or jigsaw_size={3 * recipe['jigsaw_patch']}"
        )


def check(recipe: Mapping[str, Any], folder: Folder) -> None:
    """ValueError where the recipe, the data and the number of processes do not fit."""
    batch, processes = recipe["batch_size"], int(os.environ.get("WORLD_SIZE", 1))
    if len(folder) < batch:
        fewer = f"--batch-size {len(folder)} or less, or --scale mini" if len(folder) > 1 else "more images"
        raise ValueError(
            f"expected at least one batch of {batch} images in {folder.root}, found {len(folder)}: {fewer}"
        )
    if batch % processes or batch < 2 * processes:
        fit = ", ".join(str(n) for n in range(1, batch // 2 + 1) if batch % n == 0)
        raise ValueError(
            f"expected a number of processes that share the batch of {batch} evenly, 2 images or more each ({fit}), found {processes}: "
            f"start one of these, or --batch-size {max(batch // processes, 2) * processes}, with which the learning rate follows by its "
            "rule"
        )
    if recipe["epochs"] < 1:
        raise ValueError(f"expected at least 1 epoch, found {recipe['epochs']}")
    if recipe["warmup_epochs"] >= recipe["epochs"]:
        raise ValueError(
            f"expected more epochs than the warm-up's {recipe['warmup_epochs']}, found {recipe['epochs']}: "
            f"more --epochs or warmup_epochs={recipe['epochs'] / 10}"
        )
    local = batch // processes
    if "bn_group" in recipe and (recipe["bn_group"] < 2 or local % min(recipe["bn_group"], local)):
        raise ValueError(
            f"expected bn_group of at least 2 to divide the {local} images of each process, found {recipe['bn_group']}: "
            "change bn_group or --batch-size"
        )
    if "bn_group" in recipe and recipe["sync_bn"]:
        raise ValueError(
            "expected sync_bn false with bn_group, batch norm by groups, found true: bn_group is what to change"
        )
    if "window" in recipe and not batch <= recipe["window"][0] <= len(folder):
        raise ValueError(
            f"expected a window of at least a batch and at most the {len(folder)} images, found {recipe['window'][0]}: "
            f"window={len(folder)},{max(1, len(folder) // 8)}"
        )
    least = 0 if "queue_epoch" in recipe else batch  # SwAV can do without
    if "queue" in recipe and (recipe["queue"] % batch or recipe["queue"] < least):
        raise ValueError(
            f"expected a queue that is a multiple of the batch {batch}, {least} or more, found {recipe['queue']}: "
            f"queue={max(1, recipe['queue'] // batch) * batch} or another --batch-size"
        )
    if "classes" in recipe and (recipe["classes"] < 2 or (folder.labels < 0).any()):
        raise ValueError(
            f"expected every image of {folder.root} in one of at least two class folders, found {recipe['classes']} class "
            f"folders and {int((folder.labels < 0).sum())} images outside: supervised pretraining needs labels"
        )
    splits = [name for name in folder.classes if re.fullmatch(r"(train|val|test)(20\d\d)?", name)]
    training = [name for name in splits if name.startswith("train")]
    if training and len(training) < len(splits):  # as ImageNet's and COCO's folders have them
        raise ValueError(
            f"expected training images in {folder.root}, found the splits {splits}, of which others are to test on: "
            f"--data {folder.root / training[0]}"
        )


def leak(recipe: Mapping[str, Any]) -> str | None:
    """Why shuffling hides nothing where a single process normalises its batch as one group (methods.md 0.1, trap 3)."""
    batch = recipe["batch_size"]
    if not recipe.get("queue") or int(os.environ.get("WORLD_SIZE", 1)) > 1 or recipe.get("bn_group", 0) < batch:
        return None
    smaller = next((size for size in range(batch // 4, 1, -1) if batch % size == 0), 0)
    return (
        f"warning: batch norm takes the {batch} images as one group (bn_group {recipe['bn_group']}): keys that share their queries' "
        f"statistics give themselves away; {f'bn_group={smaller}' if smaller else 'another --batch-size'} hides them"
    )


def check_parts(name: str, model: Any, recipe: Mapping[str, Any], parts: int) -> None:
    """ValueError where a step taken in so many parts (--accumulate) would not be the step of the whole batch, but for batch norm."""
    share = recipe["batch_size"] // int(os.environ.get("WORLD_SIZE", 1))
    if parts > 1 and not getattr(model, "mean_over_images", False):
        raise ValueError(
            f"expected no --accumulate for {name}, whose loss or memory takes the images of a batch together, found {parts}: parts "
            "would be another method; take a smaller --batch-size"
        )
    if share % parts or (parts > 1 and share // parts < 2):
        fit = ", ".join(str(n) for n in range(1, share // 2 + 1) if share % n == 0)
        raise ValueError(f"expected --accumulate to divide the {share} images of each process ({fit}), found {parts}")
