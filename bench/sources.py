"""What a checkpoint file is and what of it is the backbone: one row a family, matched by evidence, every tensor accounted for.

A wrong prefix is no error in detectron2 or mmseg: the backbone stays random and still trains to a plausible number. So here a
file is read as exactly one family, decided by keys that are printed; each of its tensors is the backbone's, or a head's with
a reason, or an error; and the backbone must be a whole torchvision ResNet: names, shapes, finite values, positive variances.

To add a family, add a row to FAMILIES: where its state dict is, the prefix, keys that tell it from the others, what to drop.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import catalog
from downstream.task import TRAITS

if TYPE_CHECKING:
    import torch

    from bench.unpickle import Stored


def _same(name: str) -> str:
    return name


def _from_detectron2(name: str) -> str:
    """torchvision's name of a tensor of detectron2's ResNet."""
    name = re.sub(r"^stem\.conv1\.norm\.", "bn1.", name)
    name = re.sub(r"^stem\.", "", name)
    name = re.sub(r"^res([2-5])\.", lambda stage: f"layer{int(stage[1]) - 1}.", name)
    name = re.sub(r"(^|\.)conv([1-3])\.norm\.", r"\1bn\2.", name)
    return name.replace(".shortcut.norm.", ".downsample.1.").replace(".shortcut.weight", ".downsample.0.weight")


@dataclass(frozen=True)
class Source:
    """How one family writes a checkpoint.

    A key pattern is a whole key, or the beginning of one if it ends in a dot. DistributedDataParallel's `module.` in front of
    every key is taken off before keys are compared, and is optional everywhere.
    """

    name: str
    summary: str
    prefix: str  # of the backbone's keys as published, up to and with the last dot
    outer: tuple[str, ...]  # where the state dict is; "" is the file itself
    has: tuple[str, ...]  # patterns that must all occur
    lacks: tuple[str, ...] = ()  # patterns of which none may occur
    heads: Mapping[str, str] = field(default_factory=dict)  # pattern: the reason it is dropped
    rename: Callable[[str], str] = _same  # from the family's name, without prefix, to torchvision's
    traits: Mapping[str, Any] = field(default_factory=dict)  # where they differ from TRAITS
    sidecar: bool | None = None  # True, False: only with, only without this project's .json beside the file
    variants: Mapping[str, str] = field(default_factory=dict)  # pattern: the variant it tells

    @property
    def inner(self) -> str:
        return self.prefix.removeprefix("module.")


KEY_ENCODER = "momentum encoder: the query encoder is the one that was trained"
HEAD = "projection head"

FAMILIES = (
    Source(
        name="bench",
        summary="this project's backbone.pth and converted files, with their .json beside them",
        prefix="",
        outer=("", "state_dict"),
        has=("conv1.weight", "bn1.running_mean", "layer4."),
        sidecar=True,
    ),
    Source(
        name="torchvision",
        summary="plain torchvision names, with or without fc: supervised weights, and what many projects extract",
        prefix="",
        outer=("", "state_dict"),
        has=("conv1.weight", "bn1.running_mean", "layer4."),
        lacks=("projection_head.", "prototypes."),  # SwAV, DeepCluster-v2
        heads={"fc.": "classifier"},
        sidecar=False,
    ),
    Source(
        name="moco",
        summary="MoCo v1 and v2 as released (facebookresearch/moco); CLSA's files have the same keys",
        prefix="module.encoder_q.",
        outer=("state_dict",),
        has=("encoder_q.conv1.weight", "queue"),
        heads={
            "encoder_q.fc.": HEAD,
            "encoder_k.": KEY_ENCODER,
            "queue": "queue of negatives",
            "queue_ptr": "queue of negatives",
        },
        variants={"encoder_q.fc.weight": "v1", "encoder_q.fc.0.weight": "v2"},
    ),
    Source(
        name="pixpro",
        summary="PixPro as trained or published (zdaxie/PixPro)",
        prefix="module.encoder.",
        outer=("model",),
        has=("encoder.conv1.weight", "projector.linear1."),
        heads={
            "encoder_k.": KEY_ENCODER,
            "projector.": HEAD,
            "projector_k.": HEAD + " of the momentum encoder",
            "value_transform.": "pixel propagation module",
            "projector_instance.": "instance branch",
            "projector_instance_k.": "instance branch",
            "predictor.": "instance branch",
        },
    ),
    Source(
        name="pixpro-finetuned",
        summary="a PixPro backbone after fine-tuning (zdaxie/PixPro, main_linear.py)",
        prefix="module.base.",
        outer=("model",),
        has=("base.conv1.weight", "base.layer4."),
        heads={"fc.": "classifier", "base.fc.": "classifier", "classifier.": "classifier"},
    ),
    Source(
        name="simsiam",
        summary="SimSiam as released (facebookresearch/simsiam)",
        prefix="module.encoder.",
        outer=("state_dict",),
        has=("encoder.conv1.weight", "encoder.fc.0.weight", "predictor.0.weight"),
        lacks=("encoder_k.", "projector."),
        heads={"encoder.fc.": HEAD, "predictor.": "prediction head"},
    ),
    Source(
        name="detectron2",
        summary="a torchvision-style ResNet under detectron2's names: bench convert, MoCo's and PixPro's converters",
        prefix="",
        outer=("model",),
        has=("stem.conv1.weight", "stem.conv1.norm.running_mean", "res5."),
        heads={"stem.fc.": "classifier or projection head"},
        rename=_from_detectron2,
    ),
)

GENERIC = Source(
    name="generic",
    summary="home-made code: the only prefix in the file that holds a whole ResNet, taken with a warning",
    prefix="",
    outer=("",),
    has=(),
)

SOURCES = tuple((source.name, source.summary) for source in (*FAMILIES, GENERIC))


@dataclass(frozen=True)
class Backbone:
    """A backbone under torchvision's names (fp32, without fc) and everything that is known about the file it came from."""

    family: str
    evidence: tuple[str, ...]
    arch: str  # torchvision's constructor
    tensors: dict[str, "torch.Tensor"]
    traits: dict[str, Any]
    matched: int
    dropped: dict[str, str]  # key in the file: reason
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    sha256: str
    about: dict[str, Any]  # method, variant, epoch ... where the file or its sidecar says so


@dataclass(frozen=True)
class _Found:
    """One reading of a file as one family, before any value is read."""

    source: Source
    outer: str
    evidence: tuple[str, ...]
    entries: dict[str, "Stored"]  # torchvision name: tensor in the file
    keys: dict[str, str]  # torchvision name: key in the file
    dropped: dict[str, str]
    strangers: tuple[str, ...]  # keys of the file that are neither the backbone's nor a known head's


def backbone(path: Path | str, family: str | None = None, arch: str | None = None) -> Backbone:
    """The backbone in a checkpoint file. Nothing in the file is executed.

    family: a name of SOURCES; by default it is recognised
    arch:   a torchvision constructor the file must agree with; by default it is read from the shapes

    Raises FileNotFoundError, or ValueError for a file that is not one whole ResNet of one known family.
    """
    path = Path(path)
    content, sidecar = _opened(path, family)
    found = _recognised(content, sidecar, family)
    arch, missing, unexpected, problem = _compared(found, arch)
    if problem:
        raise ValueError(f"{problem} (in {path})")
    return Backbone(
        family=found.source.name,
        evidence=found.evidence,
        arch=arch,
        tensors=_values(found),
        traits=_traits(found, content, sidecar),
        matched=len(found.entries),
        dropped=found.dropped,
        missing=missing,
        unexpected=unexpected,
        sha256=sha256(path),
        about=_about(found, content, sidecar),
    )


def inspect(path: Path | str, family: str | None = None) -> dict[str, Any]:
    """What a file is and why, JSON-able; `problem` is the sentence with which `backbone` would refuse it, or None.

    Raises FileNotFoundError or ValueError if the file cannot be read or its family cannot be told.
    """
    path = Path(path)
    content, sidecar = _opened(path, family)
    found = _recognised(content, sidecar, family)
    arch, missing, unexpected, problem = _compared(found, None)
    return {
        "family": found.source.name,
        "evidence": list(found.evidence),
        "arch": arch,
        "matched": len(found.entries) - sum(key in unexpected for key in found.keys.values()),
        "dropped": found.dropped,
        "missing": list(missing),
        "unexpected": list(unexpected),
        "traits": _traits(found, content, sidecar),
        "about": _about(found, content, sidecar),
        "problem": problem,
        "sha256": sha256(path),
    }


def sha256(path: Path) -> str:
    """The hexadecimal digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _opened(path: Path, family: str | None) -> tuple[dict[Any, Any], dict[str, Any] | None]:
    """The file's outermost dict and its sidecar, whose digest has been compared."""
    from bench import unpickle

    known = [name for name, _ in SOURCES]
    if family is not None and family not in known:
        raise ValueError(catalog.unknown("source", family, known))
    content = unpickle.read(path)
    if not isinstance(content, dict):
        what = repr(content) if isinstance(content, unpickle.Inert) else type(content).__name__
        raise ValueError(f"expected a dict of tensors, found {what} in {path}: save the model's state_dict() instead")
    return content, _sidecar(path)


def _sidecar(path: Path) -> dict[str, Any] | None:
    """The content of this project's .json beside a file, None where there is none or it is somebody else's."""
    files = [path.with_name(f"{path.name}.json"), path.with_suffix(".json")]  # bench convert's, bench pretrain's
    for file in files if path.suffix == ".pth" else files[:1]:
        try:
            content = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(content, dict) and {"sha256", "traits"} <= content.keys():
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


def _recognised(content: dict[Any, Any], sidecar: dict[str, Any] | None, family: str | None) -> _Found:
    """The one reading that fits. Raises ValueError if none or several do."""
    if family == GENERIC.name:
        return _generic(content)
    if family is not None:
        (source,) = [source for source in FAMILIES if source.name == family]
        outers = [outer for outer in source.outer if _tensors(content, outer)]
        readings = [_read(source, content, outer) for outer in outers]
        best = max(readings, key=lambda reading: len(reading.entries), default=None)
        if best is None or not best.entries:
            raise ValueError(_nothing(source, content, sidecar))
        return best
    fitting = _fitting(content, sidecar)
    if len(fitting) > 1:
        names = ", ".join(sorted({found.source.name for found in fitting}))
        raise ValueError(f"expected a file of one family, found that {names} fit equally: say which with --from")
    return fitting[0] if fitting else _generic(content)


def _fitting(content: dict[Any, Any], sidecar: dict[str, Any] | None) -> list[_Found]:
    """All readings whose signature is in the file."""
    found = []
    for source in FAMILIES:
        if source.sidecar not in (None, sidecar is not None):
            continue
        for outer in source.outer:
            keys = _unwrapped(_tensors(content, outer))
            if all(_occurs(p, keys) for p in source.has) and not any(_occurs(p, keys) for p in source.lacks):
                found.append(_read(source, content, outer))
    return found


def _tensors(content: dict[Any, Any], outer: str) -> dict[str, "Stored"]:
    """The tensors of one level of the file, by key."""
    from bench.unpickle import Stored

    level = content.get(outer) if outer else content
    if not isinstance(level, dict):
        return {}
    return {key: entry for key, entry in level.items() if isinstance(key, str) and isinstance(entry, Stored)}


def _unwrapped(tensors: Mapping[str, "Stored"]) -> dict[str, str]:
    """Key without DistributedDataParallel's `module.`, if every key has it, to key in the file."""
    wrapped = all(key.startswith("module.") for key in tensors)
    return {key.removeprefix("module.") if wrapped else key: key for key in tensors}


def _occurs(pattern: str, keys: Mapping[str, str]) -> bool:
    return any(key.startswith(pattern) for key in keys) if pattern.endswith(".") else pattern in keys


def _matching(key: str, patterns: Mapping[str, str]) -> str | None:
    """The value of the first pattern that a key matches."""
    for pattern, value in patterns.items():
        if key.startswith(pattern) if pattern.endswith(".") else key == pattern:
            return value
    return None


def _read(source: Source, content: dict[Any, Any], outer: str, warning: str | None = None) -> _Found:
    """A level of the file, read as a family: each tensor is the backbone's, dropped with a reason, or a stranger."""
    tensors = _tensors(content, outer)
    keys = _unwrapped(tensors)
    entries: dict[str, Stored] = {}
    names: dict[str, str] = {}
    dropped: dict[str, str] = {}
    strangers = []
    for inner, key in keys.items():
        if reason := _matching(inner, source.heads):
            dropped[key] = reason
        elif inner.startswith(source.inner):
            name = source.rename(inner[len(source.inner) :])
            if name in entries:
                strangers.append(key)
            else:
                entries[name], names[name] = tensors[key], key
        else:
            strangers.append(key)
    wrapped = "module." if keys and all(key.startswith("module.") for key in tensors) else ""
    evidence = [f"the state dict is {outer!r}" if outer else "the state dict is the file itself"]
    evidence += [f"has {wrapped}{pattern}{'*' if pattern.endswith('.') else ''}" for pattern in source.has]
    if source.sidecar:
        evidence.append("has this project's .json beside it, with the same sha256")
    evidence.append(f"{len(entries)} tensors with prefix {wrapped + source.inner!r}, {len(dropped)} dropped by name")
    if foreign := sorted(f"{key}: {value!r}" for key, value in content.items() if type(value).__name__ == "Inert"):
        evidence.append(f"objects of the training code, recorded and not run: {', '.join(foreign)}")
    if warning:
        evidence.append(f"warning: {warning}")
    return _Found(source, outer, tuple(evidence), entries, names, dropped, tuple(strangers))


_COPIES = re.compile(r"(^|[._])(k|ema)($|[._])|key|momentum|target|teacher")
_PARTS = re.compile(r"(conv|bn|layer|stem|downsample|norm)\d*([._]|$)")


def _generic(content: dict[Any, Any]) -> _Found:
    """The file's only prefix that holds a ResNet. Raises ValueError, with the candidates, if there is not exactly one."""
    levels = ["", *(key for key, value in content.items() if isinstance(key, str) and isinstance(value, dict))]
    candidates = []
    for outer in levels:
        keys = _unwrapped(_tensors(content, outer))
        for key in keys:
            prefix = key.removesuffix("conv1.weight")
            if prefix == key or (prefix and not prefix.endswith(".")):
                continue
            if f"{prefix}bn1.running_mean" in keys and f"{prefix}layer4.0.conv1.weight" in keys:
                candidates.append((outer, prefix))
    live = [(outer, prefix) for outer, prefix in candidates if not _COPIES.search(outer) and not _COPIES.search(prefix)]
    if len(live) != 1:
        raise ValueError(_unknown(content, live or candidates))
    outer, prefix = live[0]
    keys = _unwrapped(_tensors(content, outer))
    heads = {}
    for key in keys:
        if not key.startswith(prefix):
            heads[key] = f"outside {prefix!r}"
        elif not _PARTS.match(key[len(prefix) :]):
            heads[key] = "not part of a ResNet, taken for a head"
    warning = f"no known family; {prefix or 'no prefix'!r} is the only place that holds a ResNet, taken on trust"
    source = Source(GENERIC.name, GENERIC.summary, prefix, (outer,), (f"{prefix}conv1.weight",), heads=heads)
    return _read(source, content, outer, warning)


def _examples(content: dict[Any, Any]) -> list[str]:
    """Some keys of the largest level that holds tensors, as they are in the file."""
    levels = ["", *(key for key, value in content.items() if isinstance(key, str) and isinstance(value, dict))]
    keys: list[str] = max((list(_tensors(content, outer)) for outer in levels), key=len)
    return sorted(keys, key=lambda key: (not key.endswith("conv1.weight"), len(key), key))


def _unknown(content: dict[Any, Any], candidates: list[tuple[str, str]]) -> str:
    """Why no reading of a file was found, and the way out."""
    keys = _examples(content)
    if not keys:
        shown = ", ".join(repr(str(key)[:40]) for key in list(content)[:5]) or "nothing"
        return f"expected a checkpoint with tensors, found a dict without any (its keys: {shown})"
    if any("patch_embed." in key or "attn.qkv." in key or key.endswith("cls_token") for key in keys):
        return "expected a ResNet, found a vision transformer: the detectors and FCN here are built on ResNets"
    if any(key.endswith(("conv1.0.weight", "stem.0.weight")) for key in keys):
        return (
            "expected a ResNet with one 7x7 convolution as stem, found a deep stem (ResNetV1c, timm's 'd' models):"
            " detectron2's ResNet has no such stem"
        )
    if len(candidates) > 1:
        places = ", ".join(repr(f"{outer}: {prefix}" if outer else prefix) for outer, prefix in candidates[:6])
        return f"expected a file of a known family or one prefix that holds a ResNet, found several: {places}"
    known = ", ".join(name for name, _ in SOURCES)
    shown = ", ".join(repr(key[:80]) for key in keys[:3])
    return f"expected a ResNet of a known family ({known}), found {len(keys)} tensors whose keys look like {shown}"


def _nothing(source: Source, content: dict[Any, Any], sidecar: dict[str, Any] | None, arch: str = "resnet50") -> str:
    """Why a file holds nothing under the prefix of the family that was asked for, and which family it may be."""
    total = len(shapes(arch))
    where = " or ".join(repr(outer) if outer else "the file itself" for outer in source.outer)
    shown = _examples(content)
    like = f"the file's keys look like {shown[0][:80]!r}" if shown else "the file holds no tensors"
    text = (
        f"expected the {total} tensors of a {_spoken(arch)} under {where} with prefix {source.prefix!r}:"
        f" {total} missing; {like}."
    )
    families = sorted({found.source.name for found in _fitting(content, sidecar)} - {source.name})
    if not families:
        try:
            families = [_generic(content).source.name]
        except ValueError:
            return f"{text} `bench inspect` says what it is"
    return f"{text} Is this --from {' or '.join(families)}?"


BLOCKS: dict[tuple[str, tuple[int, ...]], str] = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}


def _spoken(arch: str) -> str:
    return arch.replace("resnet", "ResNet-")


def shapes(arch: str) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of torchvision's ResNet without fc, by name; no memory is used for it."""
    import torch
    import torchvision

    if arch not in BLOCKS.values():
        raise ValueError(catalog.unknown("architecture", arch, sorted(BLOCKS.values())))
    with torch.device("meta"):
        model = getattr(torchvision.models, arch)()
    return {name: tuple(t.shape) for name, t in model.state_dict().items() if not name.startswith("fc.")}


def _compared(found: _Found, asked: str | None) -> tuple[str, tuple[str, ...], tuple[str, ...], str | None]:
    """Architecture, missing and unexpected names, and the sentence that refuses the file, if it must be refused."""
    entries = found.entries
    arch, problem = _architecture({name: entry.shape for name, entry in entries.items()})
    if asked is not None:
        wanted = shapes(asked)
        if problem is None and arch != asked:
            problem = f"expected a {_spoken(asked)} (--arch {asked}), found a {_spoken(arch)}: pass --arch {arch}"
            return arch, (), (), problem
        if problem is None or problem.startswith("expected the blocks"):
            arch, problem = asked, None
    else:
        wanted = shapes(arch)
    missing = [name for name in wanted if name not in entries]
    counters = [name for name in missing if name.endswith(".num_batches_tracked")]
    if len(counters) == sum(name.endswith(".num_batches_tracked") for name in wanted):
        missing = [name for name in missing if name not in counters]  # files written before torch 0.4.1 have none
    unexpected = [*(found.keys[name] for name in entries if name not in wanted), *found.strangers]
    if problem is None and (missing or unexpected):
        lost = f"{len(missing)} missing{_listed(missing)}"
        more = f"{len(unexpected)} unexpected{_listed(unexpected)}"
        problem = (
            f"expected the {len(wanted)} tensors of a {_spoken(arch)} under {found.outer or 'the file itself'!r} with prefix"
            f" {found.source.prefix!r}: {lost}, {more}. Is this really a file of {found.source.name}?"
        )
    wrong = [
        f"{name} {list(entries[name].shape)} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in entries and entries[name].shape != shape
    ]
    if problem is None and wrong:
        problem = f"expected the shapes of a {_spoken(arch)}, found {len(wrong)} others{_listed(wrong)}"
    return arch, tuple(missing), tuple(unexpected), problem


def _listed(names: list[str]) -> str:
    if not names:
        return ""
    return f" ({', '.join(name[:120] for name in names[:3])}{', ...' if len(names) > 3 else ''})"


def _architecture(found: Mapping[str, tuple[int, ...]]) -> tuple[str, str | None]:
    """torchvision's constructor for these shapes; the nearest one and a sentence for what is none of them."""
    blocks = [0, 0, 0, 0]
    for name in found:
        if part := re.match(r"layer([1-4])\.(\d{1,3})\.", name):
            blocks[int(part[1]) - 1] = max(blocks[int(part[1]) - 1], int(part[2]) + 1)
    kind = "bottleneck" if any(re.match(r"layer\d\.\d+\.conv3\.", name) for name in found) else "basic"
    exact = BLOCKS.get((kind, tuple(blocks)))
    arch = exact or ("resnet50" if kind == "bottleneck" else "resnet18")
    stem = found.get("conv1.weight", ())
    inner = found.get("layer1.0.conv2.weight", ())
    what = None
    if len(stem) == 4:
        width, channels, size, _ = stem
        if channels == 2:
            what = "a stem with two input channels (Sobel-filtered images, as DeepCluster)"
        elif channels == 1:
            what = "a stem with one input channel (grey or L images, as colorization)"
        elif channels != 3:
            what = f"a stem with {channels} input channels"
        elif size == 3:
            what = "the 3x3 stem of CIFAR models"
        elif size != 7:
            what = f"a {size}x{size} stem"
        elif width != 64:
            what = f"a wide network: {width} channels after the stem, {width / 64:g} times a plain ResNet's 64"
    if what is None and len(inner) == 4 and (inner[0] != 64 or inner[1] != 64):
        grouped = inner[1] < inner[0]
        what = f"a {'ResNeXt: grouped' if grouped else 'wide network: '} 3x3 convolutions of {inner[0]} channels"
    if what:
        return (
            arch,
            f"expected a plain ResNet (RGB, 7x7 stem, width 1), found {what}: neither engine here is built for it",
        )
    if exact is None:
        known = "18, 34, 50, 101 or 152"
        return arch, f"expected the blocks of a ResNet-{known}, found {kind} blocks {'-'.join(map(str, blocks))}"
    return arch, None


def _values(found: _Found) -> dict[str, "torch.Tensor"]:
    """The backbone's tensors in fp32 and torchvision's order. Raises ValueError for values no training leaves behind."""
    import torch

    arch, _ = _architecture({name: entry.shape for name, entry in found.entries.items()})
    tensors = {}
    for name in shapes(arch):
        if name not in found.entries:
            continue
        entry, key = found.entries[name], found.keys[name]
        value = entry.read()
        if name.endswith(".num_batches_tracked"):
            if value.is_floating_point() or value.is_complex():
                raise ValueError(f"expected whole numbers in {key!r}, found {value.dtype}")
            tensors[name] = value.to(torch.int64)
            continue
        if not value.is_floating_point():
            raise ValueError(f"expected floating-point numbers in {key!r}, found {value.dtype}")
        half = value.dtype.itemsize < 4
        value = value.to(torch.float32)
        if value.dim() == 4 and not value.any():
            raise ValueError(f"expected a trained or random convolution in {key!r}, found only zeros")
        if not torch.isfinite(value).all():
            raise ValueError(f"expected finite numbers, found NaN or infinity in {key!r}: this training diverged")
        if name.endswith(".running_var") and (value < 0 if half else value <= 0).any():  # small ones underflow in fp16
            raise ValueError(f"expected positive variances in {key!r}, found {value.min().item():g}")
        tensors[name] = value.contiguous()
    return tensors


def _traits(found: _Found, content: dict[Any, Any], sidecar: dict[str, Any] | None) -> dict[str, Any]:
    """How images must be given to the backbone: by the sidecar, else the file's own note, else the family."""
    said: Any = (sidecar or {}).get("traits")
    if said is None and isinstance(note := content.get("__metadata__"), dict) and isinstance(note.get("traits"), str):
        try:
            said = json.loads(note["traits"])
        except (ValueError, RecursionError) as error:
            raise ValueError("expected the file's note on its traits to be JSON, found other text") from error
    traits = dict(TRAITS) | dict(found.source.traits)
    if said is None:
        return traits
    if not isinstance(said, dict):
        raise ValueError(f"expected a table of traits beside the file, found {type(said).__name__}")
    traits |= {key: value for key, value in said.items() if key in TRAITS}
    numbers = [traits["mean"], traits["std"]]
    if (
        traits["channel_order"] not in ("RGB", "BGR")
        or not isinstance(traits["stride_in_1x1"], bool)
        or not all(isinstance(n, list) and len(n) == 3 and all(isinstance(x, int | float) for x in n) for n in numbers)
        or min(traits["std"]) <= 0
    ):
        raise ValueError(
            "expected traits channel_order RGB or BGR, three mean, three positive std (0 to 255) and stride_in_1x1"
            f" true or false beside the file, found {json.dumps(traits)}"
        )
    return traits


def _about(found: _Found, content: dict[Any, Any], sidecar: dict[str, Any] | None) -> dict[str, Any]:
    """Method, variant, epoch and the like: the sidecar's words, else what stands beside the state dict."""
    if sidecar is not None:
        return {key: value for key, value in sidecar.items() if key not in ("traits", "sha256")}
    scalars = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, str | int | float | bool)}
    about: dict[str, Any] = {key: value[:200] if isinstance(value, str) else value for key, value in scalars.items()}
    if found.source.name in ("moco", "pixpro", "simsiam"):
        about["method"] = found.source.name
        if isinstance(content.get("epoch"), int):  # all three write the number of finished epochs
            about["epochs"] = content["epoch"]
    keys = _unwrapped(_tensors(content, found.outer))
    for pattern, variant in found.source.variants.items():
        if _occurs(pattern, keys):
            about["variant"] = variant
    return about
