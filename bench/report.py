"""`bench report`: a checkpoint's model card from what the file says, its forward proof and everything measured with it."""

import shlex
from pathlib import Path
from typing import Any

from bench import journey, records
from results import card, groups, leaderboard, record


def write(checkpoint: str, out: Path, results: Path, family: str | None, arch: str | None) -> list[Path]:
    """Writes card.md, card.html and plots/ into a folder; the paths. Raises ValueError for a file that is no backbone."""
    from bench import sources
    from downstream import weights

    path = journey.weights_file(checkpoint)
    found = sources.inspect(path, family=family)
    model, tensors = journey.model(checkpoint, arch, "paper", family, None)
    proof = weights.prove(tensors, model["arch"], model["traits"])
    trials = record.trials(records.folder(results))
    content = card.card(
        model["name"], _facts(found, model, proof), model["sha256"], trials, _commands(path, model, trials)
    )
    return [leaderboard.replaced(out / name, text) for name, text in card.files(content).items()]


def _facts(found: dict[str, Any], model: dict[str, Any], proof: dict[str, float]) -> list[tuple[str, str]]:
    said = [(key, groups.said(model, key)) for key in ("method", "variant", "epochs", "pretrain_data", "address")]
    dropped = found.get("dropped") or {}
    facts = [
        ("family", f"{found['family']}: {'; '.join(map(str, found['evidence']))}"),
        ("architecture", model["arch"]),
        ("sha256 of the weights", model["sha256"]),
        *said,
        ("tensors", f"{found['matched']} matched, {len(dropped)} dropped, {len(found['missing'])} missing"),
        ("input", ", ".join(f"{key} {value}" for key, value in model["traits"].items())),
        (
            "forward proof",
            ", ".join(f"{name} {value:.2g}" for name, value in proof.items()) + " (largest relative difference)",
        ),
        ("licence", found.get("licence") or "not known: ask whoever published the weights"),
    ]
    return [(key, str(value)) for key, value in facts if value not in (None, "")]


def _commands(path: Path, model: dict[str, Any], trials: list[dict[str, Any]]) -> list[str]:
    """What was done with these weights, one command a task; inspect and convert in any case."""
    name = shlex.quote(str(path))
    mine = [trial for trial in trials if trial["model"]["sha256"] == model["sha256"]]
    tasks = dict.fromkeys((trial["task"], trial["scale"], tuple(trial["nonstandard"])) for trial in mine)
    commands = [f"bench inspect {name}", f"bench convert {name} {shlex.quote(path.stem)}.pkl --to detectron2"]
    for task, scale, changed in tasks:
        seeds = sorted(
            {t["seed"] for t in mine if (t["task"], t["scale"], tuple(t["nonstandard"])) == (task, scale, changed)}
        )
        more = f"  # with changed {', '.join(changed)}: see the record" if changed else ""
        commands += [
            f"bench transfer --task {task} --checkpoint {name} --scale {scale} --seed {seed}{more}" for seed in seeds
        ]
    return commands
