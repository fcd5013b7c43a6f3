"""What a checkpoint file is and what of it is the backbone: matched by evidence, every tensor accounted for, proven by running it.

A wrong prefix is no error in detectron2 or mmseg: the backbone stays random and still trains to a plausible number. So here a
file is read as exactly one family of bench.families, decided by keys that are printed; each of its tensors is the backbone's,
or a head's with a reason, or an error; and the backbone must be a whole ResNet: names, shapes, finite values, positive
variances. Families whose files are the same are named together. `prove` runs the network in the file's own layout, fed as its
publisher feeds it, against torchvision's with the tensors and the traits that came out.
"""

import fnmatch
import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import layouts
from bench.content import Digest, File, opened
from bench.families import FAMILIES
from bench.recognition import Found, Several, no_resnet, not_plain, on_trust, recognised
from downstream import resnets
from downstream.task import TRAITS

if TYPE_CHECKING:
    import numpy as np
    import torch

# arguments of timm's networks that leave the backbone's function as it is
NEUTRAL = {"num_classes", "in_chans", "global_pool", "drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last"}
VIEWS = 2**28  # bytes that a backbone's tensors may be views of one another for: a ResNet-152 in single precision
ABOUT = ("method", "variant", "epochs", "data", "scale", "seed", "licence")  # that travel into a converted file


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
    filled: int  # tensors that the family's files never have and that follow from the others
    digest: Digest  # `sha256`, while it is computed
    about: dict[str, Any]  # method, variant, epoch ... where the file or its sidecar says so
    licence: str | None
    notes: tuple[str, ...]  # what is unverified or differs from torchvision's network
    # an image's four maps, as the publisher runs the file
    published: "Callable[[np.ndarray], list[torch.Tensor]] | None"

    @property
    def sha256(self) -> str:
        """Of the whole file. Another core may still be at it: ask for it last."""
        return self.digest.result()


def backbone(
    path: Path | str, family: str | None = None, arch: str | None = None, allow_missing: Sequence[str] = ()
) -> Backbone:
    """The backbone in a checkpoint file. Nothing in the file is executed.

    family:        a name of `bench.families.listed()`; by default it is recognised
    arch:          a name of downstream.resnets that the file must agree with; by default it is read from the shapes
    allow_missing: patterns (as of a shell) of torchvision names that may be absent; never a whole stage

    Raises FileNotFoundError, or ValueError for a file that is not one whole ResNet of one known family.
    """
    try:
        with Digest(Path(path)) as digest:
            return _backbone(Path(path), digest, family, arch, allow_missing)
    except ValueError as error:
        if type(error) not in (ValueError, Several) or str(path) in str(error):
            raise
        raise type(error)(f"{error} (in {path})") from error


def _backbone(
    path: Path, digest: Digest, family: str | None, arch: str | None, allow_missing: Sequence[str]
) -> Backbone:
    file = opened(path, digest)
    found = recognised(file, family)
    plan, missing, _, problem = _compared(found, file, arch, allow_missing)
    if problem := _trusted(problem, found, file, family, arch) or _otherwise_run(found, file, plan):
        raise ValueError(problem)
    size = sum(part.stat().st_size for part in file.files)
    for what, entries, least in (("a detector", found.detector, 0), ("a backbone", found.entries, VIEWS)):
        told = sum(math.prod(e.shape) * e.dtype.itemsize for e in entries.values())
        if told > max(4 * size, least):
            raise ValueError(
                f"expected the tensors of {what} to lie in the file one by one, found {len(entries):,} of {told:,} bytes "
                f"together in a file of {size:,}: they are views of one another"
            )
    traits = _traits(found, file, plan)
    return Backbone(
        family=found.source.name,
        equal=found.equal,
        evidence=found.evidence,
        arch=str(plan),
        tensors=_values(found, plan, missing),
        detector={name: entry.read() for name, entry in found.detector.items()},
        traits=traits,
        matched=len(found.entries),
        dropped=found.dropped,
        missing=missing,
        filled=len(found.filled),
        digest=digest,
        about=_about(found, file),
        licence=_licence(found, file),
        notes=_notes(found, file),
        published=None if missing else _published(found, file, plan),
    )


def inspect(path: Path | str, family: str | None = None, allow_missing: Sequence[str] = ()) -> dict[str, Any]:
    """What a file is and why, JSON-able; `problem` is the sentence with which `backbone` would refuse it, or None.

    Only the file's index is read: names, shapes and types. No family is told by values, so whether they are finite is for
    `backbone` to say, which reads them all. A file of this project is the exception, since its .json is believed by its hash.
    Raises FileNotFoundError or ValueError if the file cannot be read or its family cannot be told.
    """
    file = opened(Path(path))
    found = recognised(file, family)
    plan, missing, unexpected, problem = _compared(found, file, None, allow_missing)
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
        "values": "not read",  # a backbone that diverged is told by what converts or trains it
        "problem": _trusted(problem, found, file, family, None) or _otherwise_run(found, file, plan),
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


def _planned(found: Found, asked: str | None) -> tuple[resnets.Arch, str | None]:
    """Architecture, and the sentence that refuses the file if it is none that is built here, or not the one asked for."""
    entries = found.entries | found.filled
    plan, what = resnets.recognised({name: entry.shape for name, entry in entries.items()})
    if found.source.refused:
        return plan, f"expected a ResNet for RGB images, found {found.source.refused}"
    problem = None
    if what:
        problem = f"expected a ResNet for RGB images with a 7x7 stem, found {what}: neither engine here is built for it"
        problem = no_resnet([*found.keys.values(), *found.dropped, *found.strangers]) or problem
    if found.stored and not entries and found.source.layout == "tensorflow":
        count = sum(key.endswith("/kernel") for key in found.stored)
        problem = (
            f"expected the convolutions of a ResNet-50, 101 or 152 (53, 104, 155), found {count}: a SimCLRv2 network with"
            " selective kernels (sk1) has more, and neither engine here is built for it"
        )
    if asked is None:
        return plan, problem
    wished = resnets.arch(asked)
    if problem is None and plan != wished:
        return plan, f"expected a {_spoken(wished)} (--arch {asked}), found a {_spoken(plan)}: pass --arch {plan}"
    if problem is None or (what and "blocks" in what):
        return wished, None
    return plan, problem


def _compared(
    found: Found, file: File, asked: str | None, allow_missing: Sequence[str]
) -> tuple[resnets.Arch, tuple[str, ...], tuple[str, ...], str | None]:
    """Architecture, missing and unexpected names, and the sentence that refuses the file, if it must be refused."""
    entries = found.entries | found.filled
    plan, problem = _planned(found, asked)
    if found.source.refused:
        return plan, (), (), problem
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
    statistics = [name for name in wanted if name.endswith((".running_mean", ".running_var"))]
    if problem is None and lost == statistics and not unexpected:
        problem = (
            f"expected a {_spoken(plan)} with BatchNorm, found norms without statistics (GroupNorm or LayerNorm): neither engine"
            " here is built for it"
        )
    if problem is None and (lost or unexpected):
        problem = no_resnet(unexpected) or (
            f"expected the {len(wanted)} tensors of a {_spoken(plan)} under {'/'.join(found.outer) or 'the file itself'!r} with prefix"
            f" {found.source.prefix!r}: {len(lost)} missing{_listed(lost)}, {len(unexpected)} unexpected{_listed(unexpected)}."
            f" Is this really a file of {found.source.name}?"
        )
        problem += not_plain(file.level(found.outer).objects, tuple(lost))
    wrong = [
        f"{name} {list(entries[name].shape)} instead of {list(shape)}"
        for name, shape in wanted.items()
        if name in entries and tuple(entries[name].shape) != shape
    ]
    if problem is None and wrong:
        problem = f"expected the shapes of a {_spoken(plan)}, found {len(wrong)} others{_listed(wrong)}"
    mistyped = [
        f"{found.keys.get(name, name)} {entry.dtype}"
        for name, entry in entries.items()
        if not (entry.dtype.is_floating_point or name.endswith(".num_batches_tracked"))
    ]
    if problem is None and mistyped:
        problem = f"expected floating-point numbers, found {len(mistyped)} tensors of others{_listed(mistyped)}"
    return plan, tuple(missing), tuple(unexpected), problem


def _trusted(problem: str | None, found: Found, file: File, family: str | None, arch: str | None) -> str | None:
    """The sentence that refuses a file of no family that was asked for, and that it can be read without one, where it can."""
    if problem is None or family is not None or found.source.refused:
        return problem
    whole = (other := on_trust(file)) and _compared(other, file, arch, ())[3] is None
    return f"{problem} --from generic reads it on trust" if whole else problem


def _otherwise_run(found: Found, file: File, plan: resnets.Arch) -> str | None:
    """The sentence that refuses a ResNet's tensors of which a configuration says that another network runs them."""
    timm, transformers = (file.sidecars.get(name, {}) for name in ("timm", "transformers"))
    if found.source.name == "timm" and (name := str(timm.get("architecture", plan))) not in (str(plan), f"tv_{plan}"):
        return (
            f"expected timm's {plan}, whose tensors these are, found that config.json says {name[:80]!r}: its pooling or"
            " strides may differ, and neither engine here is built for it"
        )
    arguments = timm.get("model_args")
    if found.source.name == "timm" and isinstance(arguments, dict) and (odd := sorted({*arguments} - NEUTRAL)):
        said = ", ".join(f"{key}={arguments[key]}" for key in odd)[:200]
        return (
            f"expected timm's plain {plan}, found model_args {said} in config.json: neither engine here is built for it"
        )
    # timm's train.py writes the arch, its releases are named so
    named = re.search(r"(?<![a-z])resnet(aa|blur)\d+\w*", file.words)
    if found.source.name in ("timm", "torchvision", "generic") and named:
        return (
            f"expected a {_spoken(plan)} that strides, found that the file says {named[0][:80]!r}, which averages in these places:"
            " neither engine here is built for it"
        )
    # of PixPro, PIC and SoCo, which write their arguments
    arguments = _about(found, file).get("arguments")
    arch = arguments.get("arch") if isinstance(arguments, dict) else None  # a note may say anything
    if isinstance(arch, str) and re.fullmatch(r"resnet\d+_16s", arch):
        return (
            f"expected a {_spoken(plan)} whose last stage strides, found that the file says {arch!r}, which dilates there:"
            " neither engine here is built for it"
        )
    if found.source.name == "transformers":
        for key, usual in {"hidden_act": "relu", "downsample_in_first_stage": False}.items():
            if transformers.get(key, usual) != usual:
                said = str(transformers[key])[:80]
                return f"expected {key} {usual} of a ResNet in config.json, found {said}: neither engine here is built for it"
    return None


def _listed(names: list[str]) -> str:
    if not names:
        return ""
    return f" ({', '.join(name[:120] for name in names[:3])}{', ...' if len(names) > 3 else ''})"


def _values(found: Found, plan: resnets.Arch, missing: Sequence[str]) -> dict[str, "torch.Tensor"]:
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

    if name.endswith(".num_batches_tracked"):  # floating-point where somebody averaged or halved every tensor
        if value.dtype == torch.float16:  # which counts no further than 65,504
            value = value.nan_to_num(nan=0.0, posinf=0.0)
        # of averaged checkpoints the mean of counts, which need not be whole and does not matter
        if value.is_complex() or not (value.to(torch.float64).abs() < 2**53).all():
            raise ValueError(
                f"expected a count of batches in {key!r}, found {value.flatten()[:1].tolist()} ({value.dtype})"
            )
        return value.to(torch.int64)
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
    numbers = value.numpy()  # torch would wait for threads on the core that computes the digest
    low, high = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 0.0)
    if not math.isfinite(low + high):
        raise ValueError(f"expected finite numbers, found NaN or infinity in {key!r}: this training diverged")
    return low, high


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


def _fed(found: Found, file: File) -> layouts.Input:
    """What the network was fed: by what stands beside the file, else by the family."""
    return _configured(found, file) or found.source.input


def _configured(found: Found, file: File) -> layouts.Input | None:
    """What a note of this project or a configuration (timm's, transformers', OpenMMLab's) says that the network was fed."""
    if said := file.sidecars.get("bench"):
        traits = said_traits(said["traits"])
        return layouts.Input(tuple(traits["mean"]), tuple(traits["std"]), traits["channel_order"], 1.0)
    if (text := _openmmlab(file)) and (normalised := _normalised(text)):
        return normalised
    mean, std, unit = None, None, 255.0
    if found.source.name == "timm" and "timm" in file.sidecars:
        config = file.sidecars["timm"]["pretrained_cfg"]
        mean, std = config.get("mean"), config.get("std")
    if found.source.name == "transformers" and "transformers" in file.sidecars:
        processor = file.sidecars["transformers"]["preprocessor"]
        mean, std = processor.get("image_mean"), processor.get("image_std")
        factor = 1 if processor.get("do_rescale") is False else processor.get("rescale_factor")
        if type(factor) in (int, float) and 1e-6 < factor < 1e6:
            unit = 1 / factor
        if processor.get("do_normalize") is False:
            mean, std = [0, 0, 0], [1, 1, 1]
    if isinstance(mean, list) and isinstance(std, list) and _three(mean) and _three(std) and min(std) > 0:
        return layouts.Input(tuple(mean), tuple(std), unit=unit)
    return None


def _openmmlab(file: File) -> str:
    """The configuration that OpenMMLab's runners write beside a state dict; its name depends on their age."""
    meta = file.content.get("meta")
    said = (meta.get("cfg"), meta.get("config")) if isinstance(meta, dict) else ()
    return next((text[: 2**20] for text in said if isinstance(text, str)), "")


def _normalised(text: str) -> layouts.Input | None:
    """The one mean, std and order of channels in the text of an OpenMMLab configuration; None where there are others."""

    def said(key: str) -> tuple[float, float, float] | None:
        lists = set(re.findall(rf"(?<!\w){key}\s*=\s*[\[(]([\d.,\s]*)[\])]", text))
        numbers = {tuple(map(float, re.findall(r"\d+(?:\.\d+)?", entry))) for entry in lists}
        found = numbers.pop() if len(numbers) == 1 else ()
        return (found[0], found[1], found[2]) if _three([*found]) else None

    mean, std = said("mean"), said("std")
    if mean is None or std is None or min(std) <= 0:
        return None
    orders = set(re.findall(r"(?<!\w)(?:bgr_)?to_rgb\s*=\s*(True|False)", text))
    unit = 255.0 if max(*mean, *std) <= 1 else 1.0  # behind torchvision's ToTensor, which follows PIL: RGB
    if orders and (*mean, *std) == (0, 0, 0, 1, 1, 1):  # OpenMMLab's own, which leaves pixels as they are
        unit = 1.0
    orders = orders or ({"True"} if unit > 1 else set())
    if len(orders) != 1:
        return None
    return layouts.Input(mean, std, "RGB" if orders == {"True"} else "BGR", unit)


def _strided(found: Found, file: File) -> bool:
    """Whether a bottleneck strides in its first convolution, by a note or a configuration, else by the layout."""
    if said := file.sidecars.get("bench"):
        return bool(said_traits(said["traits"])["stride_in_1x1"])
    if found.source.name == "transformers" and "transformers" in file.sidecars:
        return file.sidecars["transformers"].get("downsample_in_bottleneck") is True
    if re.search(r"(?<!\w)style\s*=\s*['\"]caffe['\"]", _openmmlab(file)):
        return True
    return found.source.stored.stride_in_1x1


def _traits(found: Found, file: File, plan: resnets.Arch) -> dict[str, Any]:
    """How images must be given to the backbone, and what in its plan the tensors do not say."""
    known = _fed(found, file).traits() | {"stem": plan.stem, "stride_in_1x1": _strided(found, file)}
    return {key: known[key] for key in TRAITS}


def said_traits(said: Any) -> dict[str, Any]:
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
            f" true or false beside the file, found {json.dumps(traits)[:300]}"
        )
    return traits


def _three(numbers: Any) -> bool:
    """Whether these are three numbers that pixels can have: no NaN, no infinity, none that a float does not hold."""
    known = isinstance(numbers, list) and len(numbers) == 3
    return known and all(type(x) in (int, float) and abs(x) < 1e6 for x in numbers)


def _published(found: Found, file: File, plan: resnets.Arch) -> "Callable[[np.ndarray], list[torch.Tensor]]":
    """Runs the tensors of the file as its publisher's code does: image [H, W, 3] uint8 RGB to the maps of four stages."""
    fed, strided = _fed(found, file), _strided(found, file)
    stored = {found.source.stored.plain(key): entry for key, entry in found.stored.items()}

    def run(image: "np.ndarray") -> list["torch.Tensor"]:
        def tensor(key: str) -> "torch.Tensor":
            if key not in stored:
                like = next(iter(found.stored), "nothing")
                raise ValueError(
                    f"expected {key!r} in a file of {found.source.name}, found none: its keys look like {like!r}"
                )
            return stored[key].read().float()

        return layouts.stages(found.source.stored, tensor, plan, fed.of(image), strided)

    return run


def _origin(file: File) -> Mapping[str, Any]:
    """What `bench convert` wrote about the file that a converted one was made from."""
    origin = file.sidecars.get("bench", {}).get("source")
    return origin if isinstance(origin, dict) else {}


def _licence(found: Found, file: File) -> str | None:
    """Of the repository that published the weights, as far as it is known."""
    if isinstance(said := _origin(file).get("licence"), str):
        return said[:200]
    families = (found.source.name, *found.equal)
    licences = {row.name: row.licence or "not known" for row in FAMILIES if row.name in families}
    if len(set(licences.values())) > 1:  # the same file, whoever published it
        return ", ".join(f"{licences[name]} ({name})" for name in families)
    return found.source.licence


def _notes(found: Found, file: File) -> tuple[str, ...]:
    said = _origin(file).get("notes")
    if isinstance(said, list):
        return tuple(str(note)[:300] for note in said[:10])
    notes = [f"unverified: {text}" for text in found.source.unverified]
    if _configured(found, file):
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


def _about(found: Found, file: File) -> dict[str, Any]:
    """Method, variant, epoch, arguments and the like: the sidecar's words, else what stands beside the state dict."""
    source = found.source
    if "bench" in file.sidecars:
        said = {k: v for k, v in file.sidecars["bench"].items() if k not in ("traits", "sha256", "format", "proof")}
        text = json.dumps(said, ensure_ascii=False).encode(errors="replace")  # half a character becomes a question mark
        return json.loads(text, parse_constant=str)  # and what is no number, which JSON does not have, its name
    about = _scalars(file.content)
    if source.method and not found.equal:
        about["method"] = source.method
    if source.counts and isinstance(file.content.get("epoch"), int):
        about["epochs"] = file.content["epoch"]
    for name in _ARGUMENTS:
        if arguments := _scalars(_held(file.content.get(name))):
            about["arguments"] = arguments
            break
    for pattern, variant in source.variants.items():
        if file.level(found.outer).has(pattern):
            about["variant"] = variant
    return about


def _held(value: Any) -> dict[Any, Any]:
    """What a training script kept its arguments in, as a dict: argparse's Namespace, Lightning's AttributeDict, OmegaConf."""
    if type(value).__name__ == "Inert":
        state = value.state if isinstance(value.state, dict) else {}
        items = [
            item for item in value.items if isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)
        ]
        inner = state.get("_content")  # of OmegaConf: a dict of nodes, each with its `_val`
        if not isinstance(inner, dict):
            return state | dict(items)
        return {k: n.state.get("_val") for k, n in inner.items() if isinstance(getattr(n, "state", None), dict)}
    return value if isinstance(value, dict) else {}


def _scalars(held: Mapping[Any, Any]) -> dict[str, Any]:
    """Texts, numbers and truth values of a dict as JSON can hold them, at most two hundred, texts cut."""
    plain = {k: v for k, v in held.items() if isinstance(k, str) and isinstance(v, str | int | float | bool)}
    return {_text(k)[:80]: _scalar(v) for k, v in list(plain.items())[:200]}


def _scalar(value: str | float) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) >= 1 << 63:  # Python does not write one of many digits
        return "an integer of more than 64 bits"
    return _text(value)[:200] if isinstance(value, str) else value


def _text(said: str) -> str:
    """A text that can be written: half of a character becomes a question mark."""
    return said.encode(errors="replace").decode()
