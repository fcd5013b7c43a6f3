"""`bench report`: a checkpoint's model card from what the file says, its forward proof and everything measured with it."""

import json
import shlex
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import journey, records
from downstream import task as protocols
from results import card, groups, record

if TYPE_CHECKING:
    from bench import sources


def write(checkpoint: str, out: Path | None, results: Path, family: str | None, arch: str | None) -> list[Path]:
    """Writes card.md, card.html and plots/ into a folder, by default one of the weights' own; the paths.

    Raises ValueError for a file that is no backbone.
    """
    from bench import fetch, sources
    from downstream import weights

    if checkpoint == "random":
        raise ValueError("expected a checkpoint, found 'random': random weights have no card")
    named = checkpoint if fetch.is_address(checkpoint) else str(journey.weights_file(checkpoint, random=False))
    model, source = journey.opened(checkpoint, arch, "paper", family)
    proof = sources.prove(source) | weights.prove(source.tensors, source.arch, source.traits)
    root = records.folder(results)
    trials = record.trials(root)
    own = [record.path(root, trial) for trial in trials if trial["model"]["sha256"] == model["sha256"]]
    commands = _commands(named, model, [record.read(file, root) for file in own], family, arch)
    content = card.card(model["name"], _facts(source, model, proof), model["sha256"], trials, commands)
    out = out or Path("runs/report") / record.named(model)
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


def _commands(
    checkpoint: str, model: dict[str, Any], trials: list[dict[str, Any]], family: str | None, arch: str | None
) -> list[str]:
    """What was done with these weights, a command for each of their records; inspect and convert in any case.

    Where today's command would be another protocol a comment says so: one that is no longer offered, or has changed keys.
    """
    name = shlex.quote(checkpoint) + (f" --from {family}" if family else "")
    stated = f" --arch {arch}" if arch else ""
    commands = [
        f"bench inspect {name}",
        f"bench convert {name} {shlex.quote(Path(checkpoint).stem)}.pkl --to detectron2",
    ]
    for trial in trials:
        task, scale, seed, protocol = (trial[key] for key in ("task", "scale", "seed", "protocol"))
        if (options := _options(trial)) is not None:
            row = trial["model"]["name"]
            called = f" --name {shlex.quote(row)}" if row != model["name"] and row.isprintable() else ""
            commands.append(
                f"bench transfer --task {task} --checkpoint {name}{stated} --scale {scale} --seed {seed}{called}{options}"
            )
            continue
        changed = ", ".join(trial["nonstandard"])
        why = f"has changed {changed}: see the record" if changed else "is no longer offered"
        told = f"# {protocol['name']}, seed {seed}: protocol {protocol['hash'][:12]} {why}"
        commands.append(" ".join(told.split()))
    return [*dict.fromkeys(commands)]


def _options(trial: dict[str, Any]) -> str | None:
    """What a user changed of a trial's protocol, as the command line has it; None where it would mean another protocol today."""
    content = trial["protocol"]["content"]
    values = content | content.get("settings", {})
    changed = {key: values.get(key) for key in trial["nonstandard"]}
    flags = {key: changed.pop(key) for key in ("precision", "accumulate", "skip_bad") if key in changed}
    pairs = tuple((key, json.dumps(value)) for key, value in changed.items())
    words = [f"--{key.replace('_', '-')} {value}" for key, value in flags.items()]
    options = "".join(f" {word}" for word in [*words, *(shlex.quote(f"{key}={value}") for key, value in pairs)])
    try:
        same = _offered(trial["task"], trial["scale"], pairs, **flags) == trial["protocol"]["hash"]
    except (TypeError, ValueError):  # a task that is none, or a change
        same = False
    return options if same and options.isprintable() else None


@cache
def _offered(
    task: str,
    scale: str,
    pairs: tuple[tuple[str, str], ...],
    precision: str | None = None,
    accumulate: int = 1,
    skip_bad: int = 0,
) -> str:
    """The digest of the protocol that a command means today."""
    meant = journey.resolve(task, scale, dict(pairs), precision)
    meant = protocols.accumulated(meant, accumulate) if accumulate != 1 else meant
    return protocols.digest(protocols.tolerant(meant, skip_bad))
