"""Which family a checkpoint file is of: by the keys it must and must not have, by what stands beside them, by its words.

Every tensor of the file's level is the backbone's, a detector's, dropped with a reason, or a stranger. Families that fit
equally and say the same of every tensor and of the input are named together; others are refused.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bench import catalog, layouts
from bench.content import COMPILED, File, Outer
from bench.families import FAMILIES, GENERIC, LIGHTNING, LIGHTNINGS, PLAIN_ORDER, Source, listed

if TYPE_CHECKING:
    from bench.unpickle import Stored

DETECTOR = "detectron2/"  # downstream.weights.DETECTOR, which is not imported here: it costs torch


@dataclass(frozen=True)
class Found:
    """One reading of a file as one family, before any value is read."""

    source: Source
    outer: Outer
    evidence: tuple[str, ...]
    entries: dict[str, "Stored"]  # torchvision name: tensor, as torchvision stores it
    keys: dict[str, str]  # torchvision name: key in the file
    stored: dict[str, "Stored"]  # key without prefix: tensor in the file
    filled: dict[str, "Stored"]
    detector: dict[str, "Stored"]
    dropped: dict[str, str]
    strangers: tuple[str, ...]  # keys of the file that are neither the backbone's nor a known head's
    equal: tuple[str, ...] = ()


class Several(ValueError):
    """A file that can be read in more than one way: --from says which is meant."""


def recognised(file: File, family: str | None) -> Found:
    """The one reading that fits, with the families that fit equally. Raises ValueError if none does, or several differ.

    family: a name of `listed()` that is taken for granted
    """
    known = [row["name"] for row in listed()]
    if family is not None and family not in known:
        raise ValueError(catalog.unknown("source", family, known))
    if family == GENERIC.name:
        return _generic(file)
    if family is not None:
        rows = [source for source in FAMILIES if source.name == family]
        readings = [_read(row, file, outer) for row in rows for outer in _outers(row) if file.level(outer).keys]
        best = max(
            readings,
            # what stands beside the state dict may be lost in a file whose family its user knows
            key=lambda reading: (
                len(reading.entries),
                _fits(replace(reading.source, beside=(), alone=()), file, reading.outer),
            ),
            default=None,
        )
        if best is None or not best.entries:
            raise ValueError(_nothing(rows[0], file))
        return best
    fitting = _fitting(file)
    if not fitting:
        if not _holding(file, "sequential") and (what := no_resnet(_examples(file))):
            raise ValueError(what)
        return _generic(file)
    return _settled(fitting, file)


def _fitting(file: File) -> list[Found]:
    """All readings whose signature is in the file; a .json of a family beside it leaves only that family."""
    rows = [(row, outer) for row in FAMILIES for outer in _outers(row) if not row.asked and _fits(row, file, outer)]
    if described := [(row, outer) for row, outer in rows if row.sidecar]:
        rows = described
    return [_read(row, file, outer) for row, outer in rows]


def _outers(row: Source) -> list[Outer]:
    """Where a family's state dict may be; anybody may have saved it without what was around it."""
    outers = [tuple(outer.split("/")) if outer else () for outer in row.outer]
    return outers if () in outers else [*outers, ()]


def _fits(row: Source, file: File, outer: Outer) -> bool:
    level = file.level(outer)
    if not level.keys or (row.sidecar is not None and row.sidecar not in file.sidecars):
        return False
    if any(key in file.content for key in row.alone):
        return False
    if row.said and not any(_said(word, file.words) for word in row.words):
        return False
    told = row.inner and file.orderless  # its keys must do, where nothing can stand beside them
    told = told and row.beside not in (("meta",), (LIGHTNING,))  # their keys alone may be anybody's
    if not told and not all(
        any(k in file.content for k in (LIGHTNINGS if key == LIGHTNING else (key,))) for key in row.beside
    ):
        return False
    if not all(map(level.has, row.has)) or any(map(level.has, row.lacks)):
        return False
    if row.any and not any(map(level.has, row.any)):
        return False
    return row.order is None or _ordered(row.order, {} if file.orderless else level.keys)


def _ordered(order: tuple[str, str], keys: Mapping[str, str]) -> bool:
    """Whether the first key stands before the second; where one of them is not there, or no order, as in most files."""
    places = {key: number for number, key in enumerate(keys)}
    first, second = order
    if first not in places or second not in places:
        return order == PLAIN_ORDER
    return places[first] < places[second]


def _settled(fitting: list[Found], file: File) -> Found:
    """One of several readings that fit: the one that the file's words name, else the first of those that are the same."""
    names = list(dict.fromkeys(found.source.name for found in fitting))
    if len(names) == 1:
        return max(fitting, key=lambda found: len(found.entries))
    named = [found for found in fitting if any(_said(word, file.words) for word in found.source.words)]
    if len({found.source.name for found in named}) == 1:
        best = named[0]
        words = next(word for word in best.source.words if _said(word, file.words))
        others = ", ".join(sorted({*names} - {best.source.name}))
        return _with(best, (), f"the file's name or notes say {words!r}, which settles it against {others}")
    first, *rest = fitting
    if any((f.outer, f.keys, f.source.traits()) != (first.outer, first.keys, first.source.traits()) for f in rest):
        raise Several(
            f"expected a file of one family, found that {', '.join(sorted(names))} fit equally: say which with --from"
        )
    text = f"{' and '.join(names[1:])} fit equally: the same tensors and traits, so both names stand; --from says which"
    return _with(first, tuple(names[1:]), text)


def _with(found: Found, equal: tuple[str, ...], text: str) -> Found:
    return replace(found, equal=equal, evidence=(*found.evidence, text))


def _said(word: str, words: str) -> bool:
    return re.search(rf"(?<![a-z]){re.escape(word)}(?![a-z])", words) is not None


def _fits_pattern(key: str, pattern: str) -> bool:
    if pattern.startswith("*"):
        return key.endswith(pattern[1:])
    return key.startswith(pattern) if pattern.endswith((".", "/")) else key == pattern


def _read(source: Source, file: File, outer: Outer) -> Found:
    """A level of the file, read as a family."""

    def reason(key: str) -> str | None:
        return next((why for pattern, why in source.heads.items() if _fits_pattern(key, pattern)), None)

    return _divided(source, file, outer, source.inner, reason)


def _divided(source: Source, file: File, outer: Outer, prefix: str, reason: Callable[[str], str | None]) -> Found:
    """A level's tensors: each is the backbone's, below the prefix, a detector's, dropped with a reason, or a stranger."""
    level = file.level(outer)
    tensors, keys = level.tensors, level.keys
    stored: dict[str, Stored] = {}
    dropped: dict[str, str] = {}
    detector: dict[str, Stored] = {}
    strangers = []
    for inner, key in keys.items():
        if why := reason(inner):
            dropped[key] = why
        elif (part := _of_detector(inner, source)) and part not in detector:
            detector[part] = tensors[key]
        elif inner.startswith(prefix):
            stored[inner[len(prefix) :]] = tensors[key]
        elif source.others:
            dropped[key] = source.others
        else:
            strangers.append(key)
    names = source.stored.names(list(stored))
    entries: dict[str, Stored] = {}
    places: dict[str, str] = {}
    for part, entry in stored.items():
        key, name = keys[prefix + part], names.get(part)
        if name is None and source.others and not prefix:
            dropped[key] = source.others
        elif name is None or name in entries:
            strangers.append(key)
        else:
            entries[name], places[name] = layouts.turned(source.stored, name, entry), key
    return Found(
        source,
        outer,
        _evidence(source, file, outer, prefix, len(entries), len(dropped)),
        entries,
        places,
        stored,
        layouts.filled(source.stored, entries),
        detector,
        dropped,
        tuple(strangers),
    )


# in a detector: a second backbone's tensors, which would take the places of the one that is proven
_TRUNK = re.compile(r"backbone\.(bottom_up\.)?(stem|res[2-5])\.|roi_heads\.res5\.\d")


def _of_detector(key: str, source: Source) -> str | None:
    """detectron2's name of a tensor that is a detector's beside the backbone."""
    starts = {DETECTOR: ""} | dict(source.detector)
    name = next((name + key[len(start) :] for start, name in starts.items() if key.startswith(start)), None)
    return None if name and _TRUNK.match(name) else name


def _evidence(source: Source, file: File, outer: Outer, prefix: str, found: int, dropped: int) -> tuple[str, ...]:
    level = file.level(outer)
    wrapped = level.wrapped

    def shown(pattern: str) -> str:
        return f"{wrapped}{pattern}{'*' if pattern.endswith(('.', '/')) else ''}"

    lines = [f"the state dict is {'/'.join(outer)!r}" if outer else "the state dict is the file itself"]
    lines += [f"has {shown(pattern)}" for pattern in source.has]
    lines += [f"has {shown(pattern)}" for pattern in source.any if level.has(pattern)]
    lines += [f"has not {shown(pattern)}" for pattern in source.lacks if not level.has(pattern)]
    beside = [*source.beside, *(LIGHTNINGS if LIGHTNING in source.beside else ())]
    lines += [f"has {key!r} beside the state dict" for key in dict.fromkeys(beside) if key in file.content]
    if source.order and not file.orderless and all(key in level.keys for key in source.order):
        lines.append(f"{source.order[0]} stands before {source.order[1]}")
    if source.sidecar and source.sidecar in file.sidecars:
        lines.append(
            "has this project's .json beside it, with the same sha256"
            if source.sidecar == "bench" and "sha256" in file.sidecars["bench"]
            else f"has the notes of {source.sidecar} with it"
        )
    lines.append(f"{found} tensors with prefix {wrapped + prefix!r}, {dropped} dropped by name")
    if compiled := sum(key.removeprefix(wrapped) != inner for inner, key in level.keys.items()):
        lines.append(f"read without the {COMPILED!r} that torch.compile put into {compiled:,} keys")
    if objects := file.level(()).objects | level.objects:
        told = _ten([*objects], lambda key: f"{key}: {objects[key]!r}")
        lines.append(f"objects of the training code, recorded and not run: {told}")
    if unread := _beside(file, outer):
        lines.append(f"beside it and not read: {_ten(unread)}")
    return tuple(lines)


def _beside(file: File, outer: Outer) -> list[str]:
    """Dicts on the way to a level, and tensors above it, that are not of it."""
    from bench.unpickle import Stored

    found, around = [], file.content
    for depth, step in enumerate((*outer, None)):
        for key, value in around.items():
            if key != step and (isinstance(value, dict) or (isinstance(value, Stored) and step is not None)):
                found.append("/".join((*outer[:depth], str(key))))
        around = around[step] if step is not None else around
    return found


def _ten(keys: list[Any], told: Callable[[Any], str] = str) -> str:
    """The first ten of them in words, each cut to 80 letters, and how many more there are."""
    more = [f"{len(keys) - 10:,} more"] if len(keys) > 10 else []
    return ", ".join(sorted(told(key)[:80] for key in keys[:10]) + more)


# --- files of no family


MODULES = 8  # that one network may be an attribute of; every further prefix is looked at in all keys
_COPIES = re.compile(r"(^|[._])(k|key|ema)($|[._])|momentum|target|teacher")
_HOLDS = {  # layout: three keys that tell it, and how the keys of its parts begin
    "torchvision": (
        ("conv1.weight", "bn1.running_mean", "layer4.0.conv1.weight"),
        r"(conv|bn|layer|stem|downsample|norm)\d*([._]|$)",
    ),
    "sequential": (("0.weight", "1.running_mean", "7.0.conv1.weight"), r"[0-7]\."),
}


def _levels(file: File) -> list[Outer]:
    """Where a file has tensors, down to two dicts deep; a dict with several names once, not by a copy's if it can be."""
    from bench.unpickle import Stored

    found: list[Outer] = []
    levels: list[tuple[Outer, dict[Any, Any]]] = [((), file.content)]
    seen = {id(file.content)}
    for outer, level in levels:  # which grows meanwhile
        if any(isinstance(value, Stored) for value in level.values()):
            found.append(outer)
        inner = [key for key, value in level.items() if isinstance(value, dict) and isinstance(key, str)]
        for key in sorted(inner, key=lambda key: bool(_COPIES.search(key))) if len(outer) < 2 else ():
            if id(level[key]) not in seen:
                seen.add(id(level[key]))
                levels.append(((*outer, key), level[key]))
    return found


def _holding(file: File, layout: str) -> list[tuple[Outer, str]]:
    """Where in a file there is a ResNet in this layout: levels and prefixes."""
    (first, *others), _ = _HOLDS[layout]
    found = []
    for outer in _levels(file):
        keys = file.level(outer).keys
        for key in keys:
            prefix = key.removesuffix(first)
            if (
                prefix != key
                and (not prefix or prefix.endswith("."))
                and all(prefix + other in keys for other in others)
            ):
                found.append((outer, prefix))
    return found


def _one(file: File, candidates: list[tuple[Outer, str]], layout: str) -> bool:
    """Whether these hold the same tensors: a network that is an attribute of two modules has two names."""

    def places(outer: Outer, prefix: str) -> dict[str, Any]:
        level, parts = file.level(outer), _HOLDS[layout][1]
        inner = {key[len(prefix) :]: level.tensors[name] for key, name in level.keys.items() if key.startswith(prefix)}
        return {key: tensor.place or tensor for key, tensor in inner.items() if re.match(parts, key)}

    return len({frozenset(places(*candidate).items()) for candidate in candidates}) == 1


def _generic(file: File) -> Found:
    """The file's only prefix that holds a ResNet. Raises ValueError, with the candidates, if there is not exactly one."""
    layout = "torchvision" if (candidates := _holding(file, "torchvision")) else "sequential"
    candidates = candidates or _holding(file, layout)
    copies = [(outer, prefix) for outer, prefix in candidates if any(map(_COPIES.search, (*outer, prefix)))]
    live = [place for place in candidates if place not in copies]
    live = [(outer, prefix) for outer, prefix in live if len(outer) < 2] or live or copies
    if len(live) != 1 and (len(live) > MODULES or not _one(file, live, layout)):
        raise _unknown(file, live)
    outer, prefix = live[0]
    (first, *_), parts = _HOLDS[layout]
    outside = f"outside {prefix[:80]!r}"

    def reason(key: str) -> str | None:
        if not key.startswith(prefix):
            return outside
        return None if re.match(parts, key[len(prefix) :]) else "not part of a ResNet, taken for a head"

    source = replace(GENERIC, prefix=prefix, has=(f"{prefix}{first}",), layout=layout)
    again = "".join(f", with the same tensors as {other[:80]!r}" for _, other in live[1:3])
    warning = f"no known family; prefix {prefix[:80]!r} is taken on trust, the only place that holds a ResNet{again}"
    if live == copies:
        warning += f" and by its name ({_places(live[:1])}) a copy of the trained network"
    elif copies:
        warning += f", but for {_places(copies)}, a copy by its name: where it is meant, save its state_dict() alone"
    return _with(_divided(source, file, outer, prefix, reason), (), f"warning: {warning}")


def on_trust(file: File) -> Found | None:
    """The reading of a file as one of no family; None where there is not exactly one place that holds a ResNet."""
    try:
        return _generic(file)
    except ValueError:
        return None


KEY = 300  # letters of a key that are looked at, which may take their square; a network's has fewer
NO_RESNETS = (  # part of a key, what it tells; the first that occurs is named
    (r"(^|\.)layer\d.*attn\.|(^|\.)stages\.\d.*self_attn\.", "a hybrid of convolutions and attention"),
    (r"(^|\.)(patch_embed\.|cls_token$)|attn\.qkv\.|self_attention\.in_proj", "a vision transformer"),
    (r"attnpool\.", "CLIP's ResNet, which pools by attention"),
    (r"_feature_blocks\.conv1\.stem\.|trunk_output\.|\.f\.a\.", "a RegNet"),
    (r"(^|\.)_feature_blocks\.\d|(^|\.)features\.(module\.)?0\.weight|^conv1\.\d\.features", "an AlexNet or VGG"),
    (r"\.(se|se_module|se_layer|eca)\.", "a network with attention over channels (SE, ECA)"),
    (r"\.net\.2\.main_conv\.", "a SimCLRv2 network with selective kernels (sk1)"),
    (r"downsample_layers\.|(^|\.)stages\.\d+\.blocks\.\d+\.(conv_dw|dwconv)|stages\.\d\.\d\.gamma", "a ConvNeXt"),
    (r"conv_dw\.|_depthwise_conv\.", "a network of depthwise convolutions"),
    (
        r"\.ATTRIBUTES/VARIABLE_VALUE$",
        "a TensorFlow 2 checkpoint whose variables have no names of their own",
    ),
)


def no_resnet(keys: list[str]) -> str | None:
    """What a file is in place of a ResNet, in one sentence, if its keys tell."""
    keys = [key[:KEY] for key in keys]
    for pattern, what in NO_RESNETS:
        if any(re.search(pattern, key) for key in keys):
            return f"expected a ResNet, found {what}: the detectors and FCN here are built on ResNets"
    return None


def _examples(file: File) -> list[str]:
    """The keys of the largest level that holds tensors, as they are in the file, the most telling first."""
    levels = [*_levels(file), *(outer for row in FAMILIES for outer in _outers(row) if len(outer) > 2)]
    keys: list[str] = max((list(file.level(outer).tensors) for outer in levels), key=len)
    return sorted(keys, key=lambda key: (not key.endswith("conv1.weight"), len(key), key))


def _places(candidates: list[tuple[Outer, str]]) -> str:
    """The first six candidates in words."""
    places = [f"{'/'.join(outer)}: {prefix}" if outer else prefix for outer, prefix in candidates[:6]]
    return ", ".join(repr(place[:80]) for place in places)


def _unknown(file: File, candidates: list[tuple[Outer, str]]) -> ValueError:
    """Why no reading of a file was found, and the way out."""
    keys = _examples(file)
    if not keys:
        objects = {key: f" {value!r:.80}" for key, value in file.content.items() if type(value).__name__ == "Inert"}
        shown = ", ".join(f"{str(key)[:40]!r}{objects.get(key, '')}" for key in list(file.content)[:5]) or "nothing"
        return ValueError(
            f"expected a checkpoint with tensors, found a dict without any (its keys: {shown}): save the model's state_dict(),"
            " alone or at most two dicts deep"
        )
    if not candidates and (what := no_resnet(keys)):
        return ValueError(what)
    if any(key.removeprefix("module.").startswith(("backbone.res2.", "backbone.bottom_up.res2.")) for key in keys):
        return ValueError(
            "expected a backbone, found a whole detector of detectron2, which says neither the order, mean and std of its pixels nor"
            " where its stride is: give the weights that it began from. Where these saw RGB with ImageNet's mean and std (MoCo's and"
            " PixPro's did), save the tensors under 'backbone.bottom_up.' without that prefix as {'model': tensors}; of a C4 model, those"
            " under 'backbone.' and 'roi_heads.res5.', so that they begin with stem, res2 to res5"
        )
    if len(candidates) > 1:
        return Several(
            f"expected a file of a known family or one prefix that holds a ResNet, found several: {_places(candidates)}; say"
            " which family it is with --from, or save the state_dict() of the one that is meant"
        )
    shown = ", ".join(repr(key[:80]) for key in keys[:3])
    text = f"expected a ResNet of a known family (bench list sources), found {len(keys)} tensors whose keys look like {shown}"
    objects = {key: value for outer in _levels(file) for key, value in file.level(outer).objects.items()}
    odd = not_plain(objects, (".weight",))
    return ValueError(f"{text}.{odd}" if odd else text)


def not_plain(objects: dict[str, Any], wanted: tuple[str, ...]) -> str:
    """A further sentence where keys of `objects` end as wanted ones: that these are no plain tensors; else nothing."""
    odd = [f"{key[:80]} {value!r:.80}" for key, value in objects.items() if key.endswith(wanted)]
    if not odd:
        return ""
    shown = ", ".join(odd[:3]) + ", ..." * (len(odd) > 3)
    return (
        f" What is no plain tensor there is not read ({shown}): save dense ones, whole (full_tensor()) and dequantised"
    )


def _nothing(source: Source, file: File) -> str:
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
        if on_trust(file) is None:
            return f"{text} `bench inspect` says what it is"
        families = [GENERIC.name]
    return f"{text} Is this --from {' or '.join(families)}?"
