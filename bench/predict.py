"""What a fine-tuned network finds in pictures: `bench transfer --keep` leaves the network, `bench predict` asks it."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import journey
from downstream import task as protocols

FILE = "model.safetensors"
NOTES = {"protocol": dict, "arch": str, "traits": dict, "classes": list}  # which the file has as JSON


def possible(task: protocols.Task) -> None:
    """Raises ValueError for a task that trains no network."""
    if not protocols.trains(task):
        raise ValueError(f"expected a task that trains a network to keep, found {task.name}: leave --keep out")


def keep(plan: journey.Plan, network: Mapping[str, Any], file: Path) -> None:
    """Writes a trial's trained network, under the names of the framework that trained it, with what there is to know to use it."""
    from safetensors.torch import save

    from downstream import trial

    notes = {
        "protocol": protocols.protocol(plan.task),
        "arch": plan.model["arch"],
        "traits": plan.model["traits"],
        "classes": plan.engine.class_names(plan.task, plan.data),
    }
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in network.items()}
    trial.replace(file, save(plain, {"format": "pt"} | {key: json.dumps(value) for key, value in notes.items()}))


def kept(file: Path) -> tuple[protocols.Task, dict[str, Any], dict[str, Any]]:
    """The task, "arch", "traits" and "classes", and the tensors of a file that `keep` wrote. Raises ValueError for another."""
    from bench import sources, unpickle

    found = unpickle.read(file)
    try:
        notes = {key: json.loads(found.texts[key]) for key in NOTES}
        if not all(isinstance(notes[key], kind) for key, kind in NOTES.items()):
            raise ValueError
        notes["traits"] = sources.said_traits(notes["traits"])
        task = protocols.restored(notes.pop("protocol"))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise ValueError(
            f"expected a fine-tuned network with its protocol, found none in {file}: bench transfer --keep leaves one, "
            f"OUT/TASK/PROTOCOL/MODEL/SEED/{FILE}"
        ) from None
    return task, notes, {name: tensor.read() for name, tensor in found.items()}


def predict(file: Path, images: Sequence[Path], out: Path, say: Callable[[str], None]) -> Path:
    """Writes predictions.json, a list with an entry an image, and pictures of it, into `out`; returns the file.

    Raises FileNotFoundError for a missing file and ValueError for one that is no network, or no image.
    """
    from bench import bfloat16
    from downstream import trial

    bfloat16.make_fast()  # as the trial's test was
    task, notes, tensors = kept(file)
    if missing := [image for image in images if not image.is_file()]:
        raise FileNotFoundError(f"expected images, found no file {missing[0]}")
    say(f"bench predict: {notes['arch']} of {task.name}, {len(images)} images -> {out}")
    out.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, (entry, picture) in enumerate(journey.engine(task).predictions(task, notes, tensors, images)):
        entry = {"image": str(images[number]), **entry}
        if picture is not None:
            entry["picture"] = f"{number}-{images[number].stem}.png"
            picture.save(out / entry["picture"])
        entries.append(entry)
    written = out / "predictions.json"
    trial.replace(written, json.dumps(entries, indent=1) + "\n")
    return written
