"""What a checkpoint file is and what of it is the backbone: matched by evidence, every tensor accounted for, proven by running it.

A wrong prefix is no error in detectron2 or mmseg: the backbone stays random and still trains to a plausible number. So here a
file is read as exactly one family of bench.families, decided by keys that are printed; each of its tensors is the backbone's,
or a head's with a reason, or an error; and the backbone must be a whole ResNet: names, shapes, finite values, positive
variances. Families whose files are the same are named together. `prove` runs the network in the file's own layout, fed as its
publisher feeds it, against torchvision's with the tensors and the traits that came out.
"""

import fnmatch
import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import catalog, layouts
from bench.families import FAMILIES, GENERIC, HEAD, KEY_ENCODER, Source, listed
from downstream import resnets
from downstream.task import TRAITS

if TYPE_CHECKING:
    import numpy as np
    import torch

    from bench.unpickle import Stored

__all__ = ["HEAD", "KEY_ENCODER", "TRAITS", "Backbone", "backbone", "inspect", "listed", "prove", "sha256"]

ABOUT = ("method", "variant", "epochs", "data", "scale", "seed", "licence")  # that travel into a converted file
DETECTOR = "detectron2/"  # downstream.weights.DETECTOR, which is not imported here: it costs torch
DETECTOR_PARTS = ("backbone.", "proposal_generator.", "roi_heads.", "sem_seg_head.")  # of detectron2's models


@dataclass(frozen=True)
class Backbone:
    """A backbone under torchvision's names (fp32, without fc) and everything that is known about the file it came from."""

    family: str
    equal: tuple[str, ...]  # other families that fit as well: their tensors and traits are the same
    evidence: tuple[str, ...]
    arch: str  # of downstream.resnets
    tensors: dict[str, "torch.Tensor"]
    detector: dict[str, "torch.Tensor"]  # of a neck or heads, under detectron2's names
    traits: dict[str, Any]
    matched: int
    dropped: dict[str, str]  # key in the file: reason
    missing: tuple[str, ...]  # that --allow-missing covers; they have a new network's values
    unexpected: tuple[str, ...]
    filled: int  # tensors that the family's files never have and that follow from the others
    sha256: str
    about: dict[str, Any]  # method, variant, epoch ... where the file or its sidecar says so
    licence: str | None
    notes: tuple[str, ...]  # what is unverified or differs from torchvision's network
    published: (
        "Callable[[np.ndarray], list[torch.Tensor]] | None"  # an image's four maps, as the publisher runs the file
    )


@dataclass(frozen=True)
class _File:
    """What is in a file, in the .json files beside it, and in its words."""

    path: Path
    files: list[Path]  # more than one for TensorFlow
    content: dict[Any, Any]
    sidecars: dict[str, dict[str, Any]]  # "bench", "timm", "transformers"
    words: str
    levels: dict[str, "_Level"] = field(default_factory=dict)  # those that were looked at

    def level(self, outer: str) -> "_Level":
        """The tensors of one level of the file."""
        if outer not in self.levels:
            self.levels[outer] = _Level.of(self.content, outer)
        return self.levels[outer]

    @property
    def orderless(self) -> bool:
        """Whether the format keeps neither the order of the keys nor anything beside them."""
        return "__metadata__" in self.content


WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and of torch.compile


@dataclass(frozen=True)
class _Level:
    """The tensors of one level of a file, without what wraps all of their keys."""

    tensors: dict[str, "Stored"]  # by key in the file
    wrapped: str  # in front of every key
    keys: dict[str, str]  # key without it: key in the file
    beginnings: frozenset[str]  # of these keys, up to and with each of the first dots and slashes

    @classmethod
    def of(cls, content: Mapping[Any, Any], outer: str) -> "_Level":
        from bench.unpickle import Stored

        level: Any = content
        for key in outer.split("/") if outer else ():
            level = level.get(key) if isinstance(level, dict) else None
        pairs = level.items() if isinstance(level, dict) else ()
        tensors = {key: entry for key, entry in pairs if isinstance(key, str) and isinstance(entry, Stored)}
        wrapped = ""
        for more in WRAPPERS * 2:
            if tensors and all(key.startswith(wrapped + more) for key in tensors):
                wrapped += more
        keys = {key[len(wrapped) :]: key for key in tensors}
        beginnings = {key[: m.end()] for key in keys for m in itertools.islice(re.finditer(r"[./]", key), 6)}
        return cls(tensors, wrapped, keys, frozenset(beginnings))

    def has(self, pattern: str) -> bool:
        if pattern.startswith("*"):
            return any(key.endswith(pattern[1:]) for key in self.keys)
        return pattern in (self.beginnings if pattern.endswith((".", "/")) else self.keys)


@dataclass(frozen=True)
class _Found:
    """One reading of a file as one family, before any value is read."""

    source: Source
    outer: str
    evidence: tuple[str, ...]
    entries: dict[str, "Stored"]  # torchvision name: tensor, as torchvision stores it
    keys: dict[str, str]  # torchvision name: key in the file
    stored: dict[str, "Stored"]  # key without prefix: tensor in the file
    filled: dict[str, "Stored"]
    detector: dict[str, "Stored"]
    dropped: dict[str, str]
    strangers: tuple[str, ...]  # keys of the file that are neither the backbone's nor a known head's
    equal: tuple[str, ...] = ()


def backbone(
    path: Path | str, family: str | None = None, arch: str | None = None, allow_missing: Sequence[str] = ()
) -> Backbone:
    """The backbone in a checkpoint file. Nothing in the file is executed.

    family:        a name of `listed()`; by default it is recognised
    arch:          a name of downstream.resnets that the file must agree with; by default it is read from the shapes
    allow_missing: patterns (as of a shell) of torchvision names that may be absent; never a whole stage

    Raises FileNotFoundError, or ValueError for a file that is not one whole ResNet of one known family.
    """
    file = _opened(Path(path), family)
    found = _recognised(file, family)
    plan, missing, unexpected, problem = _compared(found, arch, allow_missing)
    if problem := problem or _otherwise_run(found, file, plan):
        raise ValueError(f"{problem} (in {path})")
    traits = _traits(found, file, plan)
    with ThreadPoolExecutor(
        1
    ) as beside:  # on another core, since it reads the whole file and the tensors only their part
        digest = beside.submit(sha256, *file.files)
        tensors = _values(found, plan, missing)
    return Backbone(
        family=found.source.name,
        equal=found.equal,
        evidence=found.evidence,
        arch=str(plan),
        tensors=tensors,
        detector={name: entry.read() for name, entry in found.detector.items()},
        traits=traits,
        matched=len(found.entries),
        dropped=found.dropped,
        missing=missing,
        unexpected=unexpected,
        filled=len(found.filled),
        sha256=digest.result(),
        about=_about(found, file),
        licence=_licence(found, file),
        notes=_notes(found, file),
        published=None if missing else _published(found, file, plan),
    )


def inspect(path: Path | str, family: str | None = None, allow_missing: Sequence[str] = ()) -> dict[str, Any]:
    """What a file is and why, JSON-able; `problem` is the sentence with which `backbone` would refuse it, or None.

    Of the values only the backbone's are read, one tensor at a time, and only NaN and infinity are looked for; the rest of
    the file costs nothing. Raises FileNotFoundError or ValueError if the file cannot be read or its family cannot be told.
    """
    file = _opened(Path(path), family)
    found = _recognised(file, family)
    plan, missing, unexpected, problem = _compared(found, None, allow_missing)
    problem = problem or _otherwise_run(found, file, plan) or _diverged(found)
    return {
        "family": found.source.name,
        "equal": list(found.equal),
        "evidence": list(found.evidence),
        "arch": str(plan),
        "matched": len(found.entries) - sum(key in unexpected for key in found.keys.values()),
        "filled": len(found.filled),
        "dropped": found.dropped,
        "missing": list(missing),
        "unexpected": list(unexpected),
        "detector": sorted(found.detector),
        "traits": _traits(found, file, plan),
        "about": _about(found, file),
        "licence": _licence(found, file),
        "notes": list(_notes(found, file)),
        "problem": problem,
    }


def prove(found: Backbone) -> dict[str, float]:
    """The largest relative difference of a stage map from the network in the file's own layout: {"source": 1e-7}.

    A photograph is fed to that network as its publisher does, to torchvision's by the traits. Raises ValueError, naming the
    stage, if they differ by more than downstream.weights.TOLERANCE; empty where tensors are missing by permission.
    """
    from downstream import weights

    if found.published is None:
        return {}
    converted = weights.stages(weights.reference(found.tensors, found.arch, found.traits), weights.probe(found.traits))
    published = found.published(weights.photograph())
    where = f"in the layout of {found.family}, fed as its publisher does,"
    return {"source": weights.difference(where, converted, published)}


def record(found: Backbone) -> dict[str, Any]:
    """What a converted file says about the file that its weights came from, JSON-able."""
    return {
        "family": found.family,
        **({"equal": list(found.equal)} if found.equal else {}),
        "sha256": found.sha256,
        "matched": found.matched,
        "dropped": len(found.dropped),
        **({"allowed_missing": list(found.missing)} if found.missing else {}),
        **({"filled": found.filled} if found.filled else {}),
        "licence": found.licence,
        "notes": list(found.notes),
    }


def sha256(*paths: Path) -> str:
    """The hexadecimal digest of a file; of files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            if len(paths) == 1:
                return hashlib.file_digest(file, "sha256").hexdigest()
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


# --- the file


def _opened(path: Path, family: str | None) -> _File:
    """The file's outermost dict, and what stands beside it; the digest in this project's .json has been compared."""
    from bench import tensorbundle, unpickle

    known = [row["name"] for row in listed()]
    if family is not None and family not in known:
        raise ValueError(catalog.unknown("source", family, known))
    if index := tensorbundle.index_of(path):
        content: Any = tensorbundle.read(index)
        return _File(path, tensorbundle.files(index), content, {}, _words(path, content))
    content = unpickle.read(path)
    if not isinstance(content, dict):
        what = repr(content) if isinstance(content, unpickle.Inert) else type(content).__name__
        raise ValueError(f"expected a dict of tensors, found {what} in {path}: save the model's state_dict() instead")
    if isinstance(state := content.get("experiment_state"), unpickle.Inert):
        content = content | {"experiment_state": _fields(state)}
    sidecars = _configurations(path)
    if (sidecar := _sidecar(path) or _note(content)) is not None:
        sidecars["bench"] = sidecar
    return _File(path, [path], content, sidecars, _words(path, content))


_BYOL_FIELDS = ("online_params", "target_params", "online_state", "target_state", "opt_state")


def _fields(state: Any) -> dict[str, "Stored"]:
    """The tensors of BYOL's experiment state as FIELD/MODULE/LEAF; the fields are those of its NamedTuple, in order."""
    named = dict(zip(_BYOL_FIELDS, state.args, strict=False))
    if isinstance(state.state, dict):
        named |= state.state
    found: dict[str, Stored] = {}
    _gather(named, "", 0, found, [100_000])
    return found


def _gather(value: Any, prefix: str, depth: int, found: dict[str, "Stored"], left: list[int]) -> None:
    """Every tensor below a value, through dicts, lists and the objects that hold one (Haiku's frozendict and FlatMapping).

    left: how many more values may be looked at, since a pickle may hold itself
    """
    from bench.unpickle import Inert, Stored

    left[0] -= 1
    if left[0] < 0 or depth > 12:
        raise ValueError("expected an experiment state of BYOL, found more values in it than any network has")
    if isinstance(value, Stored):
        found[prefix] = value
        return
    inner: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list | tuple):
        inner = list(enumerate(value))
    elif isinstance(value, Inert):
        held = [*value.args, *(value.state.values() if isinstance(value.state, dict) else [value.state])]
        inner = [(number, part) for number, part in enumerate(held) if isinstance(part, dict | Inert)]
        if len(inner) == 1:  # the mapping itself
            _gather(inner[0][1], prefix, depth + 1, found, left)
            return
    for key, part in inner:
        if isinstance(part, dict | list | tuple | Stored | Inert):
            _gather(part, f"{prefix}/{key}"[-1000:] if prefix else str(key)[:1000], depth + 1, found, left)


def _words(path: Path, content: Mapping[Any, Any]) -> str:
    """What the file is called and what it says in words, in lower case: author, architecture, notes of a framework."""
    said = [path.name, path.parent.name if path.suffix == ".index" else ""]
    said += [value[:200] for value in content.values() if isinstance(value, str)]
    if isinstance(meta := content.get("meta"), dict):
        said += [word[:100_000] for pair in list(meta.items())[:100] for word in pair if isinstance(word, str)]
    return " ".join(said).lower()


def _sidecar(path: Path) -> dict[str, Any] | None:
    """The content of this project's .json beside a file, None where there is none or it is somebody else's."""
    files = [path.with_name(f"{path.name}.json"), path.with_suffix(".json")]  # bench convert's, bench pretrain's
    for file in files if path.suffix == ".pth" else files[:1]:
        content = _json(file)
        if content is not None and {"sha256", "traits"} <= content.keys():
            break
    else:
        return None
    actual = sha256(path)
    if content["sha256"] != actual:
        raise ValueError(
            f"expected the file that {file} describes (sha256 {str(content['sha256'])[:12]}...), found another"
            f" ({actual[:12]}...): one of the two was replaced; restore it, or remove {file.name} to use default traits"
        )
    return content


def _note(content: Mapping[Any, Any]) -> dict[str, Any] | None:
    """What `bench convert` wrote into a safetensors file."""
    note = content.get("__metadata__")
    if not isinstance(note, dict) or not isinstance(note.get("traits"), str):
        return None
    said: dict[str, Any] = {}
    for key, value in note.items():
        try:
            said[key] = json.loads(value)
        except (TypeError, ValueError, RecursionError):
            said[key] = value
    if not isinstance(said["traits"], dict):
        raise ValueError("expected the file's note on its traits to be JSON, found other text")
    return said


def _configurations(path: Path) -> dict[str, dict[str, Any]]:
    """timm's or transformers' configuration beside a file with the name that the Hugging Face hub gives to weights."""
    if path.name not in ("model.safetensors", "pytorch_model.bin"):
        return {}
    config = _json(path.with_name("config.json")) or {}
    if isinstance(config.get("pretrained_cfg"), dict):
        return {"timm": config}
    if config.get("model_type") == "resnet":
        return {"transformers": config | {"preprocessor": _json(path.with_name("preprocessor_config.json")) or {}}}
    return {}


def _json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


# --- which family


def _recognised(file: _File, family: str | None) -> _Found:
    """The one reading that fits, with the families that fit equally. Raises ValueError if none does, or several differ."""
    if family == GENERIC.name:
        return _generic(file)
    if family is not None:
        rows = [source for source in FAMILIES if source.name == family]
        readings = [_read(row, file, outer) for row in rows for outer in _outers(row) if file.level(outer).keys]
        best = max(
            readings,
            key=lambda reading: (len(reading.entries), _fits(reading.source, file, reading.outer)),
            default=None,
        )
        if best is None or not best.entries:
            raise ValueError(_nothing(rows[0], file))
        return best
    fitting = _fitting(file)
    if not fitting:
        if what := _no_resnet(file):
            raise ValueError(what)
        return _generic(file)
    return _settled(fitting, file)


def _fitting(file: _File) -> list[_Found]:
    """All readings whose signature is in the file; a .json of a family beside it leaves only that family."""
    rows = [(row, outer) for row in FAMILIES for outer in _outers(row) if not row.asked and _fits(row, file, outer)]
    if described := [(row, outer) for row, outer in rows if row.sidecar]:
        rows = described
    return [_read(row, file, outer) for row, outer in rows]


def _outers(row: Source) -> tuple[str, ...]:
    """Where a family's state dict may be; anybody may have saved it without what was around it."""
    return row.outer if "" in row.outer else (*row.outer, "")


def _fits(row: Source, file: _File, outer: str) -> bool:
    level = file.level(outer)
    if not level.keys or (row.sidecar is not None and row.sidecar not in file.sidecars):
        return False
    if any(key in file.content for key in row.alone):
        return False
    told = row.inner and file.orderless  # its keys must do, where nothing can stand beside them
    if not told and not all(key in file.content for key in row.beside):
        return False
    if not all(map(level.has, row.has)) or any(map(level.has, row.lacks)):
        return False
    if row.any and not any(map(level.has, row.any)):
        return False
    return row.order is None or _ordered(row.order, level.keys)


def _ordered(order: tuple[str, str], keys: Mapping[str, str]) -> bool:
    """Whether the first key stands before the second, or one of them is not there."""
    places = {key: number for number, key in enumerate(keys)}
    first, second = order
    if first not in places or second not in places:
        return order[0] < order[1]  # files without these keys have one order only
    return places[first] < places[second]


def _settled(fitting: list[_Found], file: _File) -> _Found:
    """One of several readings that fit: the one that the file's words name, else the first of those that are the same."""
    named = [found for found in fitting if any(_said(word, file.words) for word in found.source.words)]
    if len({found.source.name for found in named}) == 1 and len({found.source.name for found in fitting}) > 1:
        best = named[0]
        words = next(word for word in best.source.words if _said(word, file.words))
        others = sorted({found.source.name for found in fitting} - {best.source.name})
        return _with(best, (), f"the file's name or notes say {words!r}, which settles it against {', '.join(others)}")
    first = fitting[0]
    names = list(dict.fromkeys(found.source.name for found in fitting))
    if len(names) == 1:
        return max(fitting, key=lambda found: len(found.entries))
    if any(
        (f.outer, f.keys, f.source.traits()) != (first.outer, first.keys, first.source.traits()) for f in fitting[1:]
    ):
        raise ValueError(
            f"expected a file of one family, found that {', '.join(sorted(names))} fit equally: say which with --from"
        )
    others = [name for name in names if name != first.source.name]
    text = f"{' and '.join(others)} fit equally: the same tensors and traits, so both names stand; --from says which"
    return _with(first, tuple(others), text)


def _with(found: _Found, equal: tuple[str, ...], text: str) -> _Found:
    return replace(found, equal=equal, evidence=(*found.evidence, text))


def _said(word: str, words: str) -> bool:
    return re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z])", words) is not None


def _fits_pattern(key: str, pattern: str) -> bool:
    if pattern.startswith("*"):
        return key.endswith(pattern[1:])
    return key.startswith(pattern) if pattern.endswith((".", "/")) else key == pattern


def _read(source: Source, file: _File, outer: str, warning: str | None = None) -> _Found:
    """A level of the file, read as a family: each tensor is the backbone's, a detector's, dropped with a reason, or a stranger."""
    level = file.level(outer)
    tensors, keys = level.tensors, level.keys
    stored: dict[str, Stored] = {}
    dropped: dict[str, str] = {}
    detector: dict[str, Stored] = {}
    strangers = []
    for inner, key in keys.items():
        reason = next((why for pattern, why in source.heads.items() if _fits_pattern(inner, pattern)), None)
        if reason:
            dropped[key] = reason
        elif part := _of_detector(inner, source):
            detector[part] = tensors[key]
        elif inner.startswith(source.inner):
            stored[inner[len(source.inner) :]] = tensors[key]
        elif source.others:
            dropped[key] = source.others
        else:
            strangers.append(key)
    names = source.stored.names(list(stored))
    entries: dict[str, Stored] = {}
    places: dict[str, str] = {}
    for part, entry in stored.items():
        key, name = keys[source.inner + part], names.get(part)
        if name is None or name in entries:
            strangers.append(key)
        else:
            entries[name], places[name] = layouts.turned(source.stored, name, entry), key
    return _Found(
        source,
        outer,
        _evidence(source, file, outer, len(entries), len(dropped), warning),
        entries,
        places,
        stored,
        layouts.filled(source.stored, entries),
        detector,
        dropped,
        tuple(strangers),
    )


def _of_detector(key: str, source: Source) -> str | None:
    """detectron2's name of a tensor that is a detector's beside the backbone."""
    if key.startswith(DETECTOR):
        return key.removeprefix(DETECTOR)
    if source.layout == "detectron2" and key.startswith(DETECTOR_PARTS):
        return key
    return None


def _evidence(
    source: Source, file: _File, outer: str, found: int, dropped: int, warning: str | None
) -> tuple[str, ...]:
    level = file.level(outer)
    wrapped = level.wrapped

    def shown(pattern: str) -> str:
        return f"{wrapped}{pattern}{'*' if pattern.endswith(('.', '/')) else ''}"

    lines = [f"the state dict is {outer!r}" if outer else "the state dict is the file itself"]
    lines += [f"has {shown(pattern)}" for pattern in source.has]
    lines += [f"has {shown(pattern)}" for pattern in source.any if level.has(pattern)]
    lines += [f"has not {shown(pattern)}" for pattern in source.lacks if not level.has(pattern)]
    lines += [f"has {key!r} beside the state dict" for key in source.beside if key in file.content]
    if source.order and not file.orderless and all(key in level.keys for key in source.order):
        lines.append(f"{source.order[0]} stands before {source.order[1]}")
    if source.sidecar and source.sidecar in file.sidecars:
        lines.append(
            "has this project's .json beside it, with the same sha256"
            if source.sidecar == "bench" and file.path.suffix != ".safetensors"
            else f"has the notes of {source.sidecar} with it"
        )
    lines.append(f"{found} tensors with prefix {wrapped + source.inner!r}, {dropped} dropped by name")
    if foreign := sorted(f"{key}: {value!r}" for key, value in file.content.items() if type(value).__name__ == "Inert"):
        lines.append(f"objects of the training code, recorded and not run: {', '.join(foreign)}")
    unread = [
        str(key)
        for key, value in file.content.items()
        if isinstance(value, dict) and key not in ("", "__metadata__", outer.split("/")[0])
    ]
    if unread:
        lines.append(f"beside it and not read: {', '.join(sorted(unread))}")
    if warning:
        lines.append(f"warning: {warning}")
    return tuple(lines)


# --- files of no family


_COPIES = re.compile(r"(^|[._])(k|ema)($|[._])|key|momentum|target|teacher")
_PARTS = re.compile(r"(conv|bn|layer|stem|downsample|norm)\d*([._]|$)")


def _levels(file: _File) -> list[str]:
    return ["", *(key for key, value in file.content.items() if isinstance(key, str) and isinstance(value, dict))]


def _generic(file: _File) -> _Found:
    """The file's only prefix that holds a ResNet. Raises ValueError, with the candidates, if there is not exactly one."""
    candidates = []
    for outer in _levels(file):
        keys = file.level(outer).keys
        for key in keys:
            prefix = key.removesuffix("conv1.weight")
            if prefix == key or (prefix and not prefix.endswith(".")):
                continue
            if f"{prefix}bn1.running_mean" in keys and f"{prefix}layer4.0.conv1.weight" in keys:
                candidates.append((outer, prefix))
    live = [(outer, prefix) for outer, prefix in candidates if not _COPIES.search(outer) and not _COPIES.search(prefix)]
    if len(live) != 1:
        raise ValueError(_unknown(file, live or candidates))
    outer, prefix = live[0]
    heads = {}
    for key in file.level(outer).keys:
        if not key.startswith(prefix):
            heads[key] = f"outside {prefix!r}"
        elif not _PARTS.match(key[len(prefix) :]):
            heads[key] = "not part of a ResNet, taken for a head"
    warning = f"no known family; {prefix or 'no prefix'!r} is the only place that holds a ResNet, taken on trust"
    source = Source(
        GENERIC.name,
        GENERIC.summary,
        prefix,
        (outer,),
        (f"{prefix}conv1.weight",),
        heads=heads,
        unverified=GENERIC.unverified,
    )
    return _read(source, file, outer, warning)


NO_RESNETS = (  # part of a key, what it tells; the first that occurs is named
    (r"(^|\.)(patch_embed\.|cls_token$)|attn\.qkv\.|self_attention\.in_proj", "a vision transformer"),
    (
        r"(^|\.)encoder1\.conv1\.weight",
        "CMC's two networks for the L and the ab channels (PyContrast), each of half width",
    ),
    (r"attnpool\.", "CLIP's ResNet, which pools by attention"),
    (r"_feature_blocks\.conv1\.stem\.|trunk_output\.|\.f\.a\.", "a RegNet"),
    (r"(^|\.)_feature_blocks\.\d|(^|\.)features\.0\.weight|^conv1\.\d\.features", "an AlexNet or VGG"),
    (r"\.net\.2\.main_conv\.", "a SimCLRv2 network with selective kernels (sk1)"),
    (r"downsample_layers\.|(^|\.)stages\.\d+\.blocks\.\d+\.(conv_dw|dwconv)|stages\.\d\.\d\.gamma", "a ConvNeXt"),
    (r"conv_dw\.|_depthwise_conv\.", "a network of depthwise convolutions"),
    (
        r"\.ATTRIBUTES/VARIABLE_VALUE$",
        "a TensorFlow 2 checkpoint by objects; SimCLR's originals of TensorFlow 1 are read",
    ),
)


def _no_resnet(file: _File) -> str | None:
    """What a file is in place of a ResNet, in one sentence, if its keys tell."""
    keys = _examples(file)
    for pattern, what in NO_RESNETS:
        if any(re.search(pattern, key) for key in keys):
            return f"expected a ResNet, found {what}: the detectors and FCN here are built on ResNets"
    return None


def _examples(file: _File) -> list[str]:
    """The keys of the largest level that holds tensors, as they are in the file, the most telling first."""
    levels = [*_levels(file), *(outer for row in FAMILIES for outer in row.outer if "/" in outer)]
    keys: list[str] = max((list(file.level(outer).tensors) for outer in levels), key=len)
    return sorted(keys, key=lambda key: (not key.endswith("conv1.weight"), len(key), key))


def _unknown(file: _File, candidates: list[tuple[str, str]]) -> str:
    """Why no reading of a file was found, and the way out."""
    keys = _examples(file)
    if not keys:
        shown = ", ".join(repr(str(key)[:40]) for key in list(file.content)[:5]) or "nothing"
        return f"expected a checkpoint with tensors, found a dict without any (its keys: {shown})"
    if what := _no_resnet(file):
        return what
    if len(candidates) > 1:
        places = ", ".join(repr(f"{outer}: {prefix}" if outer else prefix) for outer, prefix in candidates[:6])
        return f"expected a file of a known family or one prefix that holds a ResNet, found several: {places}"
    shown = ", ".join(repr(key[:80]) for key in keys[:3])
    return f"expected a ResNet of a known family (bench list sources), found {len(keys)} tensors whose keys look like {shown}"


def _nothing(source: Source, file: _File) -> str:
    """Why a file holds nothing under the prefix of the family that was asked for, and which family it may be."""
    where = " or ".join(repr(outer) if outer else "the file itself" for outer in source.outer)
    shown = _examples(file)
    like = f"the file's keys look like {shown[0][:80]!r}" if shown else "the file holds no tensors"
    text = (
        f"expected the tensors of a ResNet (a ResNet-50 has 318) under {where} with prefix {source.prefix!r}:"
        f" all missing; {like}."
    )
    families = sorted({found.source.name for found in _fitting(file)} - {source.name})
    if not families:
        try:
            families = [_generic(file).source.name]
        except ValueError:
            return f"{text} `bench inspect` says what it is"
    return f"{text} Is this --from {' or '.join(families)}?"


# --- the backbone


def _spoken(plan: resnets.Arch) -> str:
    return str(plan).replace("wide_resnet", "wide ResNet-").replace("resnet", "ResNet-")


STAGES = ("conv1.", "bn1."), ("layer1.",), ("layer2.",), ("layer3.",), ("layer4.",)


def _allowed(wanted: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """The names that patterns let be absent. Raises ValueError for patterns that cover a stage."""
    names = list(wanted)
    allowed = {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)}
    for stage in STAGES:
        learned = [n for n in names if n.startswith(stage) and not n.endswith(".num_batches_tracked")]
        if allowed.issuperset(learned):
            place = "the stem" if stage == STAGES[0] else stage[0].rstrip(".")
            raise ValueError(
                f"expected --allow-missing to name single tensors, found that {', '.join(patterns)} covers {place}: a backbone"
                " without a whole stage is not this checkpoint's"
            )
    return allowed


def _compared(
    found: _Found, asked: str | None, allow_missing: Sequence[str]
) -> tuple[resnets.Arch, tuple[str, ...], tuple[str, ...], str | None]:
    """Architecture, missing and unexpected names, and the sentence that refuses the file, if it must be refused."""
    entries = found.entries | found.filled
    plan, what = resnets.recognised({name: entry.shape for name, entry in entries.items()})
    problem = None
    if what:
        problem = f"expected a ResNet for RGB images with a 7x7 stem, found {what}: neither engine here is built for it"
    if found.stored and not entries and found.source.layout == "tensorflow":
        count = sum(key.endswith("/kernel") for key in found.stored)
        problem = (
            f"expected the convolutions of a ResNet-50, 101 or 152 (53, 104, 155), found {count}: a SimCLRv2 network with"
            " selective kernels (sk1) has more, and neither engine here is built for it"
        )
    if asked is not None:
        wished = resnets.arch(asked)
        if problem is None and plan != wished:
            return (
                plan,
                (),
                (),
                f"expected a {_spoken(wished)} (--arch {asked}), found a {_spoken(plan)}: pass --arch {plan}",
            )
        if problem is None or (what and "blocks" in what):
            plan, problem = wished, None
    wanted = resnets.shapes(plan)
    allowed = _allowed(wanted, allow_missing)
    missing = [name for name in wanted if name not in entries]
    counters = [name for name in missing if name.endswith(".num_batches_tracked")]
    if len(counters) == sum(name.endswith(".num_batches_tracked") for name in wanted):
        missing = [name for name in missing if name not in counters]  # files written before torch 0.4.1 have none
    lost = [name for name in missing if name not in allowed]
    unexpected = [
        *(found.keys[name] for name in entries if name not in wanted and name in found.keys),
        *found.strangers,
    ]
    if problem is None and (lost or unexpected):
        problem = (
            f"expected the {len(wanted)} tensors of a {_spoken(plan)} under {found.outer or 'the file itself'!r} with prefix"
            f" {found.source.prefix!r}: {len(lost)} missing{_listed(lost)}, {len(unexpected)} unexpected{_listed(unexpected)}."
            f" Is this really a file of {found.source.name}?"
        )
    wrong = [
        f"{name} {list(entries[name].shape)} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in entries and tuple(entries[name].shape) != shape
    ]
    if problem is None and wrong:
        problem = f"expected the shapes of a {_spoken(plan)}, found {len(wrong)} others{_listed(wrong)}"
    return plan, tuple(missing), tuple(unexpected), problem


def _otherwise_run(found: _Found, file: _File, plan: resnets.Arch) -> str | None:
    """The sentence that refuses a ResNet's tensors of which a configuration says that another network runs them."""
    timm, transformers = (file.sidecars.get(name, {}) for name in ("timm", "transformers"))
    if found.source.name == "timm" and (name := str(timm.get("architecture", plan))) not in (str(plan), f"tv_{plan}"):
        return (
            f"expected timm's {plan}, whose tensors these are, found that config.json says {name[:80]!r}: its pooling or"
            " strides may differ, and neither engine here is built for it"
        )
    if found.source.name == "transformers":
        odd = {"hidden_act": "relu", "downsample_in_first_stage": False}
        for key, usual in odd.items():
            if transformers.get(key, usual) != usual:
                said = str(transformers[key])[:80]
                return f"expected {key} {usual} of a ResNet in config.json, found {said}: neither engine here is built for it"
    return None


def _listed(names: list[str]) -> str:
    if not names:
        return ""
    return f" ({', '.join(name[:120] for name in names[:3])}{', ...' if len(names) > 3 else ''})"


def _values(found: _Found, plan: resnets.Arch, missing: Sequence[str]) -> dict[str, "torch.Tensor"]:
    """The backbone's tensors in fp32 and torchvision's order. Raises ValueError for values no training leaves behind."""
    entries = found.entries | found.filled
    tensors = {}
    for name, shape in resnets.shapes(plan).items():
        if name in entries:
            tensors[name] = _value(name, found.keys.get(name, name), entries[name].read())
        elif name in missing:
            tensors[name] = _new(name, shape)
    return tensors


def _value(name: str, key: str, value: "torch.Tensor") -> "torch.Tensor":
    import torch

    if name.endswith(".num_batches_tracked"):
        if value.is_floating_point() or value.is_complex():
            raise ValueError(f"expected whole numbers in {key!r}, found {value.dtype}")
        return value.to(torch.int64)
    if not value.is_floating_point():
        raise ValueError(f"expected floating-point numbers in {key!r}, found {value.dtype}")
    half = value.dtype.itemsize < 4
    value = value.to(torch.float32)
    low, high = _range(key, value)
    if value.dim() == 4 and low == high == 0:
        raise ValueError(f"expected a trained or random convolution in {key!r}, found only zeros")
    if name.endswith(".running_var") and (low < 0 or (low == 0 and not half)):  # small ones underflow in fp16
        raise ValueError(f"expected positive variances in {key!r}, found {low:g}")
    return value.contiguous()


def _range(key: str, value: "torch.Tensor") -> tuple[float, float]:
    """The smallest and the largest value. Raises ValueError, naming the key, for NaN and infinity."""
    import torch

    low, high = (x.item() for x in torch.aminmax(value)) if value.numel() else (0.0, 0.0)
    if not math.isfinite(low + high):
        raise ValueError(f"expected finite numbers, found NaN or infinity in {key!r}: this training diverged")
    return low, high


def _diverged(found: _Found) -> str | None:
    """The sentence that refuses a backbone with NaN or infinity. Values that are not here cannot be looked at."""
    for name, entry in found.entries.items():
        try:
            value = entry.read()
        except FileNotFoundError:  # a TensorFlow index without its shards
            return None
        try:
            if value.is_floating_point():
                _range(found.keys.get(name, name), value.float())
        except ValueError as error:
            return str(error)
    return None


def _new(name: str, shape: tuple[int, ...]) -> "torch.Tensor":
    """What a new network has in this place: He's normal numbers, the same in every run, or a norm that changes nothing."""
    import torch

    if name.endswith(".num_batches_tracked"):
        return torch.zeros((), dtype=torch.int64)
    if len(shape) < 4:
        return torch.ones(shape) if name.endswith((".weight", ".running_var")) else torch.zeros(shape)
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    fan_out = shape[0] * shape[2] * shape[3]
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * (2 / fan_out) ** 0.5


# --- what is known about it


def _fed(found: _Found, file: _File) -> layouts.Input:
    """What the network was fed: by a note of this project, by the configuration of timm or transformers, else by the family."""
    if said := file.sidecars.get("bench"):
        traits = _said_traits(said["traits"])
        return layouts.Input(tuple(traits["mean"]), tuple(traits["std"]), traits["channel_order"], 1.0)
    config: Mapping[str, Any] = {}
    if found.source.name == "timm" and "timm" in file.sidecars:
        config = file.sidecars["timm"]["pretrained_cfg"]
    if found.source.name == "transformers" and "transformers" in file.sidecars:
        processor = file.sidecars["transformers"]["preprocessor"]
        config = {"mean": processor.get("image_mean"), "std": processor.get("image_std")}
    mean, std = config.get("mean"), config.get("std")
    if isinstance(mean, list) and isinstance(std, list) and _three(mean) and _three(std) and min(std) > 0:
        return layouts.Input(tuple(mean), tuple(std))
    return found.source.input


def _strided(found: _Found, file: _File) -> bool:
    """Whether a bottleneck strides in its first convolution, by a note or a configuration, else by the layout."""
    if said := file.sidecars.get("bench"):
        return bool(_said_traits(said["traits"])["stride_in_1x1"])
    if found.source.name == "transformers" and "transformers" in file.sidecars:
        return file.sidecars["transformers"].get("downsample_in_bottleneck") is True
    return found.source.stored.stride_in_1x1


def _traits(found: _Found, file: _File, plan: resnets.Arch) -> dict[str, Any]:
    """How images must be given to the backbone, and what in its plan the tensors do not say."""
    known = found.source.traits() | _fed(found, file).traits()
    known |= {"stem": plan.stem, "stride_in_1x1": _strided(found, file)}
    return {key: known[key] for key in TRAITS}


def _said_traits(said: Any) -> dict[str, Any]:
    """Traits that a file brings along. Raises ValueError for ones that are none."""
    if not isinstance(said, dict):
        raise ValueError(f"expected a table of traits beside the file, found {type(said).__name__}")
    traits = dict(TRAITS) | {key: value for key, value in said.items() if key in TRAITS}
    if (
        traits["channel_order"] not in ("RGB", "BGR")
        or not isinstance(traits["stride_in_1x1"], bool)
        or not (_three(traits["mean"]) and _three(traits["std"]))
        or min(traits["std"]) <= 0
    ):
        raise ValueError(
            "expected traits channel_order RGB or BGR, three mean, three positive std (0 to 255) and stride_in_1x1"
            f" true or false beside the file, found {json.dumps(traits)}"
        )
    return traits


def _three(numbers: Any) -> bool:
    return isinstance(numbers, list) and len(numbers) == 3 and all(type(x) in (int, float) for x in numbers)


def _published(found: _Found, file: _File, plan: resnets.Arch) -> "Callable[[np.ndarray], list[torch.Tensor]]":
    """Runs the tensors of the file as its publisher's code does: image [H, W, 3] uint8 RGB to the maps of four stages."""
    fed, strided = _fed(found, file), _strided(found, file)

    def run(image: "np.ndarray") -> list["torch.Tensor"]:
        def tensor(key: str) -> "torch.Tensor":
            return found.stored[key].read().float()

        return layouts.stages(found.source.stored, tensor, plan, fed.of(image), strided)

    return run


def _origin(file: _File) -> Mapping[str, Any]:
    """What `bench convert` wrote about the file that a converted one was made from."""
    origin = file.sidecars.get("bench", {}).get("source")
    return origin if isinstance(origin, dict) else {}


def _licence(found: _Found, file: _File) -> str | None:
    """Of the repository that published the weights, as far as it is known."""
    said = _origin(file).get("licence")
    return said[:80] if isinstance(said, str) else found.source.licence


def _notes(found: _Found, file: _File) -> tuple[str, ...]:
    said = _origin(file).get("notes")
    if isinstance(said, list):
        return tuple(str(note)[:300] for note in said[:10])
    notes = [f"unverified: {text}" for text in found.source.unverified]
    if file.sidecars:
        notes = [note for note in notes if "mean and std" not in note]
    if found.source.order and file.orderless and not file.sidecars and file.level(found.outer).has("fc."):
        notes.append(
            "unverified: safetensors keep no order of keys, by which SimCLR after tonylins' conversion would be told"
        )
    if found.source.stored.note:
        notes.append(found.source.stored.note)
    if found.filled:
        notes.append(
            "norms have a scale and a shift but no statistics: freeze them, or estimate statistics before training them"
        )
    return tuple(notes)


_ARGUMENTS = ("args", "opt", "options", "hyper_parameters", "hparams", "config", "meta", "cfg")


def _about(found: _Found, file: _File) -> dict[str, Any]:
    """Method, variant, epoch, arguments and the like: the sidecar's words, else what stands beside the state dict."""
    source = found.source
    if "bench" in file.sidecars:
        return {k: v for k, v in file.sidecars["bench"].items() if k not in ("traits", "sha256", "format", "proof")}
    about = _scalars(file.content)
    if source.method and not found.equal:
        about["method"] = source.method
    if source.counts and isinstance(file.content.get("epoch"), int):
        about["epochs"] = file.content["epoch"]
    for name in _ARGUMENTS:
        held: Any = file.content.get(name)
        held = held.state if type(held).__name__ == "Inert" else held
        if isinstance(held, dict) and (arguments := _scalars(held)):
            about["arguments"] = arguments
            break
    for pattern, variant in source.variants.items():
        if file.level(found.outer).has(pattern):
            about["variant"] = variant
    return about


def _scalars(held: Mapping[Any, Any]) -> dict[str, Any]:
    """Texts, numbers and truth values of a dict, at most two hundred, texts cut."""
    plain = {k: v for k, v in held.items() if isinstance(k, str) and isinstance(v, str | int | float | bool)}
    return {k[:80]: v[:200] if isinstance(v, str) else v for k, v in list(plain.items())[:200]}
