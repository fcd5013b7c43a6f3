"""A backbone's weights under the names of detectron2 and mmsegmentation, and the proof that they still are the same function.

Renaming can lose a tensor or swap two statistics without an error anywhere. So one image goes through torchvision's ResNet,
detectron2's and mmsegmentation's, and the maps of all four stages must agree before a run starts or a file is written.
"""

import importlib.util
import json
import os
import pickle
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from downstream import checkpoint, resnets

TOLERANCE = 1e-4  # of the largest value in the map, in fp32
DETECTOR = "detectron2/"  # before the names of tensors of a detector's neck and heads that come with a backbone
DETECTRON2_STAGES = {"layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"}


def to_detectron2(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under detectron2's names; those that already have one (DETECTOR in front) lose what is in front.

    Raises ValueError for a name that is not a torchvision ResNet's, or that detectron2's ResNet has no place for.
    """
    deep = "conv1.0.weight" in tensors
    return {_detectron2_name(name, deep): tensor for name, tensor in tensors.items()}


def separated(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The backbone's tensors under torchvision's names, and a detector's under detectron2's, without DETECTOR before them."""
    backbone = {name: tensor for name, tensor in tensors.items() if not name.startswith(DETECTOR)}
    detector = {name.removeprefix(DETECTOR): t for name, t in tensors.items() if name.startswith(DETECTOR)}
    return backbone, detector


def fitting(detector: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of those layers of `detector` that `own`, a network's state dict, has too, norm, bias and shapes included.

    A layer (`backbone.fpn_lateral5` with its `weight` and `norm.*`) fits whole or not at all: without its norm a convolution is
    another function.
    """

    def layer(name: str) -> str:
        return re.sub(r"(\.norm)?\.\w+$", "", name)

    def layers(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, tuple[int, ...]]]:
        found: dict[str, dict[str, tuple[int, ...]]] = {}
        for name, tensor in tensors.items():
            if not name.endswith("num_batches_tracked"):
                found.setdefault(layer(name), {})[name] = tuple(tensor.shape)
        return found

    places = layers(own)
    fits = {of for of, shapes in layers(detector).items() if places.get(of) == shapes}
    return {name: tensor for name, tensor in detector.items() if layer(name) in fits and name in own}


def to_mmseg(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names of mmsegmentation's ResNet, which are torchvision's but for a deep stem."""
    deep = "conv1.0.weight" in tensors
    return {_mmseg_name(name, deep): tensor for name, tensor in tensors.items()}


_BLOCK = re.compile(r"(layer[1-4])\.(\d+)\.(conv|bn|downsample\.)([0-3])\.(\w+)")
_STEM = re.compile(r"(conv1|bn1)\.(\w+)")
_DEEP_STEM = re.compile(r"conv1\.([01346])\.(\w+)")


def _detectron2_name(name: str, deep: bool = False) -> str:
    """`layer1.0.bn2.bias` is `res2.0.conv2.norm.bias`; `conv1` and `bn1` at the top are the stem's."""
    if name.startswith(DETECTOR):
        return name.removeprefix(DETECTOR)
    if match := _BLOCK.fullmatch(name):
        layer, block, kind, number, leaf = match.groups()
        place = f"{DETECTRON2_STAGES[layer]}.{block}."
        if kind == "downsample." and number == "2":
            raise ValueError(
                f"expected shortcuts that detectron2's ResNet has, found one with average pooling ({name!r}): convert to"
                " mmseg or torchvision instead"
            )
        if kind == "downsample.":
            return f"{place}shortcut.{leaf}" if number == "0" else f"{place}shortcut.norm.{leaf}"
        return f"{place}conv{number}.{leaf}" if kind == "conv" else f"{place}conv{number}.norm.{leaf}"
    if deep and (match := _DEEP_STEM.fullmatch(name)):  # projects/DeepLab: three convolutions, each with its norm
        number, norm = divmod(int(match[1]), 3)
        return f"stem.conv{number + 1}.{'norm.' if norm else ''}{match[2]}"
    if match := _STEM.fullmatch(name):
        norm = f"stem.conv{3 if deep else 1}.norm"
        return f"stem.conv1.{match[2]}" if match[1] == "conv1" else f"{norm}.{match[2]}"
    raise ValueError(f"expected the names of torchvision's ResNet without fc, found {name!r}: drop heads first")


def _mmseg_name(name: str, deep: bool) -> str:
    if deep and (match := _DEEP_STEM.fullmatch(name)):
        return f"stem.{match[1]}.{match[2]}"
    if match := _STEM.fullmatch(name):
        return f"stem.7.{match[2]}" if deep and match[1] == "bn1" else name
    if not _BLOCK.fullmatch(name):
        raise ValueError(f"expected the names of torchvision's ResNet without fc, found {name!r}: drop heads first")
    return name


def land(network: nn.Module, tensors: Mapping[str, Tensor], whose: str = "the backbone", assign: bool = False) -> int:
    """Puts tensors into a network and returns how many; counters of batches may be missing.

    Raises ValueError, before anything is changed, if a tensor is missing, has no place or another shape.
    """
    own = network.state_dict()
    missing = [n for n in own if n not in tensors and not n.endswith("num_batches_tracked")]
    misfits = [n for n in tensors if n not in own or own[n].shape != tensors[n].shape]
    if missing or misfits:
        raise ValueError(
            f"expected the {len(own)} tensors of {whose}, found {len(missing)} missing and {len(misfits)} that do not fit, the "
            f"first {(missing + misfits)[0]!r}: is this the right --arch?"
        )
    network.load_state_dict(dict(tensors), strict=False, assign=assign)
    return len(tensors)


def reference(tensors: Mapping[str, Tensor], arch: str, traits: Mapping[str, Any]) -> torchvision.models.ResNet:
    """torchvision's ResNet in evaluation with these weights, the stride where the traits say it is, and no fc.

    Raises ValueError if a tensor is missing, has no place or another shape.
    """
    model = resnets.network(resnets.arch(arch), traits["stride_in_1x1"])
    counters = {n: torch.zeros((), dtype=torch.int64) for n in model.state_dict() if n.endswith("num_batches_tracked")}
    land(model, {**counters, **tensors}, f"torchvision's {arch}", assign=True)
    return model.eval()


def stages(model: torchvision.models.ResNet, image: Tensor) -> list[Tensor]:
    """The maps after layer1 to layer4, [N, C, H/4, W/4] to [N, C, H/32, W/32]."""
    maps = []
    with torch.no_grad():
        x = model.maxpool(model.relu(model.bn1(model.conv1(image))))
        for layer in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = layer(x)
            maps.append(x)
    return maps


def photograph() -> np.ndarray:
    """A person before a flag, [97, 129, 3] uint8 RGB: the picture that every matplotlib has, made small.

    Its sides are 32 n + 1, so that every map that is strided over has odd sides: there TensorFlow's padding and torchvision's
    are the same, and everywhere else a padding or a stride that moved shows.
    """
    package = importlib.util.find_spec("matplotlib")
    assert package is not None and package.origin is not None  # a dependency
    path = Path(package.origin).with_name("mpl-data") / "sample_data" / "grace_hopper.jpg"
    with Image.open(path) as picture:
        small = picture.convert("RGB").resize((129, 97), Image.Resampling.BILINEAR, box=(0, 40, 512, 425))
    return np.array(small)


def probe(traits: Mapping[str, Any]) -> Tensor:
    """The photograph as the checkpoint asks for it: channel order, mean, std; [1, 3, 97, 129]."""
    image = photograph()
    ordered = image[:, :, ::-1] if traits["channel_order"] == "BGR" else image
    pixels = torch.from_numpy(ordered.astype(np.float32)).permute(2, 0, 1)
    mean, std = (torch.tensor(traits[key]).view(3, 1, 1) for key in ("mean", "std"))
    return ((pixels - mean) / std)[None]


def unbuildable(framework: str, arch: str) -> str | None:
    """Why a framework's ResNet cannot be of this kind, None if it can."""
    plan = resnets.arch(arch)
    if framework == "detectron2" and plan.pooled:
        return "detectron2 has no shortcut with average pooling"
    if framework == "detectron2" and plan.width > 1 and not plan.bottleneck:
        return "detectron2 widens bottlenecks only"
    if framework == "mmseg" and plan.inner > 1:
        return "mmsegmentation's ResNet widens every convolution or none"
    return None


def prove(tensors: Mapping[str, Tensor], arch: str, traits: Mapping[str, Any]) -> dict[str, float]:
    """The largest relative difference of a stage map from torchvision's: {"detectron2": 1e-7, "mmseg": 0.0}.

    A framework that cannot build the network is not in it. Raises ValueError, naming framework and stage, if a difference
    exceeds TOLERANCE or a map says nothing.
    """
    from downstream import detection, segmentation

    tensors, _ = separated(tensors)
    image = probe(traits)
    expected = stages(reference(tensors, arch, traits), image)
    frameworks: dict[str, Callable[[], list[Tensor]]] = {
        "detectron2": lambda: detection.features(tensors, arch, image, traits),
        "mmseg": lambda: segmentation.features(tensors, arch, image, traits),
    }
    return {
        name: difference(f"in {name}", expected, features())
        for name, features in frameworks.items()
        if unbuildable(name, arch) is None
    }


def difference(where: str, expected: list[Tensor], found: list[Tensor]) -> float:
    """The largest difference of four maps from torchvision's, as a fraction of the map's largest value.

    Raises ValueError if the shapes differ, it exceeds TOLERANCE or a map says nothing.
    """
    worst = 0.0
    for number, (a, b) in enumerate(zip(expected, found, strict=True), 1):
        if not torch.isfinite(a).all() or not a.any():
            kind = "zeros" if torch.isfinite(a).all() else "infinity or NaN"
            raise ValueError(
                f"expected activations in layer{number} of torchvision's network, found {kind}: the weights are broken"
            )
        if a.shape != b.shape:
            raise ValueError(
                f"expected layer{number} to be {list(a.shape)} as in torchvision, found {list(b.shape)} {where}: nothing"
                " was run with these weights"
            )
        off = ((a - b).abs().max() / a.abs().max()).item()
        if not off <= TOLERANCE:
            raise ValueError(
                f"expected the same activations {where} as in torchvision, found layer{number} off by {off:.2g} of"
                f" its largest value (allowed: {TOLERANCE:g}): nothing was run with these weights"
            )
        worst = max(worst, off)
    return worst


SUFFIXES = {"torchvision": (".pth", ".pt", ".safetensors"), "detectron2": (".pkl",), "mmseg": (".pth", ".pt")}


def save(
    tensors: Mapping[str, Tensor],
    arch: str,
    traits: Mapping[str, Any],
    out: Path,
    to: str,
    about: Mapping[str, Any] | None = None,
) -> dict[str, float]:
    """Writes a checkpoint for a framework after the proof, which is returned; OUT.json beside it holds arch, traits, proof, sha256.

    about: more to write there, such as where the weights are from; its own `proof` is joined

    A safetensors file carries all of it itself. Both appear whole or neither does. Raises ValueError for a suffix that
    the framework does not read, for weights that fail the proof and for a network that the framework cannot build.
    """
    if to not in SUFFIXES:
        raise ValueError(f"expected one of {', '.join(SUFFIXES)} to convert to, found {to!r}")
    if out.suffix not in SUFFIXES[to]:
        raise ValueError(
            f"expected a file for {to} to end in {' or '.join(SUFFIXES[to])}, found {out.name!r}: rename it"
        )
    for path in written(out):
        if path.is_dir():
            raise ValueError(f"expected a file to write, found that {path} is a directory: name another file")
    if why := unbuildable(to, arch):
        raise ValueError(
            f"expected a network that {to} can build, found a {arch}: {why}; convert --to another framework"
        )
    proof = {**(about or {}).get("proof", {}), **prove(tensors, arch, traits)}
    notes = {**(about or {}), "arch": arch, "format": to, "traits": dict(traits), "proof": proof}
    write(tensors, notes, out, to)
    return proof


def detectron2_size(plan: resnets.Arch) -> dict[str, int]:
    """detectron2's keys of a network's size."""
    return {
        "MODEL.RESNETS.DEPTH": plan.depth,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 64 * plan.width,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": (256 if plan.bottleneck else 64) * plan.width,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 64 * plan.width * plan.inner,
    }


def mmseg_backbone(plan: resnets.Arch, traits: Mapping[str, Any]) -> dict[str, Any]:
    """mmsegmentation's class of a ResNet, its size and its style, which says where the stride is."""
    return {
        "type": "ResNetV1d" if plan.pooled else "ResNetV1c" if plan.deep else "ResNet",
        "depth": plan.depth,
        "stem_channels": 64 * plan.width,
        "base_channels": 64 * plan.width,
        "style": "caffe" if traits["stride_in_1x1"] else "pytorch",
    }


# detectron2's own projects.deeplab has the stem of three convolutions; its networks dilate the last stage, torchvision's do not.
DEEP = {
    "MODEL.BACKBONE.NAME": "build_resnet_deeplab_backbone",
    "MODEL.RESNETS.STEM_TYPE": "deeplab",
    "MODEL.RESNETS.RES5_MULTI_GRID": [1, 1, 1],
}


def usage(traits: Mapping[str, Any], arch: str, to: str) -> str:
    """What a framework has to be told, in its own words, for converted weights to be the same function there.

    The depth always; a width where it is not a ResNet-50's.
    """
    order, inside, mean, std = (traits[key] for key in ("channel_order", "stride_in_1x1", "mean", "std"))
    mean, std, plan = list(mean), list(std), resnets.arch(arch)
    if to == "detectron2":
        pixels = {"INPUT.FORMAT": order, "MODEL.PIXEL_MEAN": mean, "MODEL.PIXEL_STD": std}
        usual = detectron2_size(resnets.arch("resnet50"))
        size = {k: v for k, v in detectron2_size(plan).items() if v != usual[k] or k.endswith("DEPTH")}
        keys = pixels | size | {"MODEL.RESNETS.STRIDE_IN_1X1": inside} | (DEEP if plan.deep else {})
        deep = "detectron2.projects.deeplab.add_deeplab_config(cfg), then " * plan.deep
        return deep + ", ".join(f"{key} {value}" for key, value in keys.items())
    if to == "mmseg":
        about = mmseg_backbone(plan, traits)
        size = {k: v for k, v in about.items() if v != 64 or not k.endswith("_channels")}
        keys = size | {"mean": mean, "std": std, "bgr_to_rgb": order == "RGB"}
        return ", ".join(f"{key}={value!r}" for key, value in keys.items())
    strides = "; its stages stride in the 1x1 convolution, where torchvision's own networks do in the 3x3" * inside
    return f"{order} pixels from 0 to 255 less {mean}, divided by {std}{strides}"


def written(out: Path) -> list[Path]:
    """What `write` makes: the notes' file, unless OUT carries them itself, and OUT."""
    return [out] if out.suffix == ".safetensors" else [out.with_name(f"{out.name}.json"), out]


def write(tensors: Mapping[str, Tensor], notes: Mapping[str, Any], out: Path, to: str) -> None:
    """Writes a checkpoint without a proof, and OUT.json beside it with `notes` and sha256; both whole or neither.

    Where the form has room, the notes but for their proof are in the checkpoint too, so that it may travel alone: as the text
    "bench", in JSON, which detectron2 and mmengine pass over. A plain state dict has none.

    Each is written beside its place first. The notes get their name before the weights, which without theirs would be taken for
    somebody else's.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    parts = {path: path.with_name(f".{path.name}.{os.getpid()}") for path in written(out)}
    *sidecar, part = parts.values()
    try:
        digest = _hashed(part, lambda: _write(plain, notes, part, out.suffix, to))
        for beside in sidecar:
            beside.write_text(json.dumps({**notes, "sha256": digest}, indent=2) + "\n")
        for path, whole in parts.items():
            whole.replace(path)
    except (OSError, RuntimeError) as error:
        if (cause := checkpoint.full(error)) is None:
            raise
        size = sum(tensor.nbytes for tensor in plain.values())
        raise OSError(
            f"expected room for {size / 1e6:,.0f} MB in {out.parent}, found none ({os.strerror(cause)}): make room there"
        ) from error
    finally:
        for rest in parts.values():
            rest.unlink(missing_ok=True)


def _write(tensors: dict[str, Tensor], notes: Mapping[str, Any], path: Path, suffix: str, to: str) -> None:
    kept = json.dumps({key: value for key, value in notes.items() if key != "proof"})
    # a file of Python's: its errors say what went wrong, those of torch's and safetensors' own do not
    with path.open("wb") as file:
        if to == "detectron2":
            arrays = {name: tensor.numpy() for name, tensor in to_detectron2(tensors).items()}
            pickle.dump(
                {"model": arrays, "__author__": "transfer-bench", "matching_heuristics": True, "bench": kept}, file
            )
        elif to == "mmseg":
            torch.save({"state_dict": to_mmseg(separated(tensors)[0]), "meta": {"bench": kept}}, file)
        elif suffix == ".safetensors":
            from safetensors.torch import save as serialised

            texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in notes.items()}
            texts = {"format": "pt"} | {key: value for key, value in texts.items() if key != "format"}
            file.write(serialised(tensors, metadata=texts))
        else:
            torch.save(tensors, file)


def _hashed(part: Path, write: Callable[[], None]) -> str:
    """The sha256 of a file that is written from its beginning to its end, which another core computes meanwhile."""
    finished = threading.Event()
    part.touch()
    with ThreadPoolExecutor(1) as beside:
        digest = beside.submit(_followed, part.open("rb", buffering=0), finished)
        try:
            write()
        finally:
            finished.set()
        return digest.result()


def _followed(file: BinaryIO, finished: threading.Event) -> str:
    """The sha256 of a file that grows until `finished`."""
    digest = sha256()
    with file:
        while True:
            last = finished.is_set()
            while block := file.read(1 << 20):
                digest.update(block)
            if last:
                return digest.hexdigest()
            finished.wait(0.002)
