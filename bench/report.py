"""`bench report`: a checkpoint's model card from what the file says, its forward proof and everything measured with it."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import journey, records
from results import card, groups, record

if TYPE_CHECKING:
    from bench import sources


def write(checkpoint: str, out: Path, results: Path, family: str | None, arch: str | None) -> list[Path]:
    """Writes card.md, card.html and plots/ into a folder; the paths. Raises ValueError for a file that is no backbone."""
    from bench import fetch, sources
    from downstream import weights

    model, source = journey.opened(checkpoint, arch, "paper", family, None)
    if source is None:
        raise ValueError("expected a checkpoint, found 'random': random weights have no card")
    proof = sources.prove(source) | weights.prove(source.tensors, source.arch, source.traits)
    trials = record.trials(records.folder(results))
    named = checkpoint if fetch.is_address(checkpoint) else str(journey.weights_file(checkpoint))
    commands = _commands(named, model, trials)
    content = card.card(model["name"], _facts(source, model, proof), model["sha256"], trials, commands)
    return [record.replaced(out / name, text) for name, text in card.files(content).items()]


def _facts(source: "sources.Backbone", model: dict[str, Any], proof: dict[str, float]) -> list[tuple[str, str]]:
    said = [(key, groups.said(model, key)) for key in ("method", "variant", "epochs", "pretrain_data", "address")]
    found = " or ".join([source.family, *source.equal])
    facts = [
        ("family", f"{found}: {'; '.join(source.evidence)}"),
        ("architecture", source.arch),
        ("sha256 of the weights", source.sha256),
        *said,
        ("tensors", f"{source.matched} matched, {len(source.dropped)} dropped, {len(source.missing)} missing"),
        ("input", ", ".join(f"{key} {value}" for key, value in source.traits.items())),
        (
            "forward proof",
            ", ".join(f"{name} {value:.2g}" for name, value in proof.items()) + " (largest relative difference)",
        ),
        ("licence", source.licence or "not known: ask whoever published the weights"),
    ]
    return [(key, str(value)) for key, value in facts if value not in (None, "")]


def _commands(checkpoint: str, model: dict[str, Any], trials: list[dict[str, Any]]) -> list[str]:
    """What was done with these weights, one command a task; inspect and convert in any case."""
    name = shlex.quote(checkpoint)
    mine = [trial for trial in trials if trial["model"]["sha256"] == model["sha256"]]
    tasks = dict.fromkeys((trial["task"], trial["scale"], tuple(trial["nonstandard"])) for trial in mine)
    commands = [
        f"bench inspect {name}",
        f"bench convert {name} {shlex.quote(Path(checkpoint).stem)}.pkl --to detectron2",
    ]
    for task, scale, changed in tasks:
        seeds = sorted(
            {t["seed"] for t in mine if (t["task"], t["scale"], tuple(t["nonstandard"])) == (task, scale, changed)}
        )
        more = f"  # with changed {', '.join(changed)}: see the record" if changed else ""
        commands += [
            f"bench transfer --task {task} --checkpoint {name} --scale {scale} --seed {seed}{more}" for seed in seeds
        ]
    return commands
