"""What a run's folder says of it: run.json at every start, backbone.pth and backbone.json at the end."""

import hashlib
import json
import platform
import shlex
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy
import torch
import torchvision

from pretrain import checkpoint, dist, log


def title(run_of: Mapping[str, Any], process: dist.Process) -> str:
    """The run in a line."""
    recipe, images = run_of["recipe"], run_of["data"]["images"]
    names = " ".join(filter(None, (run_of["method"], recipe["variant"], run_of["arch"])))
    epochs = "1 epoch" if recipe["epochs"] == 1 else f"{recipe['epochs']} epochs"
    return (
        f"{names}, {run_of['scale']} scale: {images} images, {epochs} of {images // recipe['batch_size']} batches of "
        f"{recipe['batch_size']}, lr {recipe['lr']:.4g}, {recipe['precision']}, {process.world_size} x {process.device.type}"
        + (
            f", each batch in {run_of['accumulate']} parts: nonstandard, batch norm and negatives see a part at a time, and no "
            "accumulation mends that"
            if run_of["accumulate"] > 1
            else ""
        )
    )


def describe(
    out: Path,
    run_of: Mapping[str, Any],
    overrides: Mapping[str, str] | None,
    state: Mapping[str, Any] | None,
    about: Mapping[str, Any],
) -> None:
    """Write run.json: the run, and each of its starts with time, command, host, versions and `about`. It stays in this folder."""
    start = {
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "step": state["step"] if state else 0,
        "command": shlex.join(sys.argv),
        "host": socket.gethostname(),
        "processes": dist.world_size(),
        "versions": versions(),
        **about,
    }
    path = out / "run.json"
    earlier = starts(path) if state else []
    write_json(path, {**run_of, "overrides": dict(overrides or {}), "starts": [*earlier, start]})


def starts(path: Path) -> list[Any]:
    """What a run.json says of the starts so far, nothing if there is none. Raises ValueError for one that is damaged."""
    if not path.is_file():
        return []
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["starts"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f'expected in {path} what this run is and its "starts", found another text: '
            "delete it to go on without what it said of earlier starts"
        ) from error


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2) + "\n"
    with log.room(path, len(text)):
        log.replace(path, lambda file: file.write(text.encode()))


def versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": numpy.__version__,
        "opencv": cv2.__version__,
    }


def written(out: Path) -> bool:
    """Whether a run's backbone.pth is there, and the one that its backbone.json tells of."""
    try:
        said = json.loads((out / "backbone.json").read_text())["sha256"]
        return bool(said == hashlib.sha256((out / "backbone.pth").read_bytes()).hexdigest())
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def write_backbone(training: Any, overrides: dict[str, str], out: Path) -> None:
    """backbone.pth and backbone.json of a `loop.Training`; a detector's parts that were pretrained too stand under "detectron2/"."""
    model, run_of, recipe = training.model, training.run_of, dict(training.recipe)
    if "checkpoint" in recipe:  # the file's name, not where it lies on this machine
        recipe["checkpoint"] = Path(recipe["checkpoint"]).name
        overrides = overrides | {"checkpoint": recipe["checkpoint"]}
    found = training.part("backbone").state_dict()
    if hasattr(model, "detector"):
        found |= {f"detectron2/{key}": value for key, value in model.detector().items()}
    tensors = {
        key: (value.float() if value.is_floating_point() else value).detach().cpu().contiguous().clone()
        for key, value in found.items()
    }
    with log.room(out / "backbone.pth", checkpoint.size(tensors)):
        log.replace(out / "backbone.pth", lambda file: torch.save(tensors, file))
    about = {
        "method": run_of["method"],
        "variant": recipe.pop("variant"),
        "arch": run_of["arch"],
        "scale": run_of["scale"],
        "seed": run_of["seed"],
        "epochs": recipe["epochs"],
        "images_seen": training.steps * recipe["batch_size"],
        "seconds": round(training.seconds, 1),
        "data": run_of["data"] | ({"skipped": len(training.skipped)} if training.skipped else {}),
        "recipe": recipe,
        "overrides": overrides,
        "nonstandard": {"accumulate": training.parts} if training.parts > 1 else {},
        **({"origin": run_of["origin"]} if "origin" in run_of else {}),
        "traits": training.traits(),
        "loss": log.first_and_last(out / "log.jsonl", "loss"),
        "knn": log.first_and_last(out / "log.jsonl", "knn"),
        "sha256": hashlib.sha256((out / "backbone.pth").read_bytes()).hexdigest(),
        "versions": versions(),
    }
    write_json(out / "backbone.json", about)
