"""How a publisher's code names and stores a ResNet's tensors, and how it runs them: one row a layout.

A layout says two things in two directions, so that one can prove the other. `names` goes from the file's keys to
torchvision's. `places` goes from a place in the network to the file's keys, and `stages` runs the network with it as its
publisher's code does: kernels in their order, strides, padding and normalisation where they were. If both are right, the
maps of all four stages equal torchvision's (bench.sources.prove).
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch

    from bench.unpickle import Stored
    from downstream.resnets import Arch

Names = dict[str, str]  # key in the file: torchvision's name
# stage 1 to 4, block, convolution 1 to 3 (0: the shortcut's); stage 0 is the stem, its number last
Place = tuple[int, int, int]
# kernel, scale, shift, mean and variance; no statistics: scale and shift only
Keys = tuple[str, str, str, str | None, str | None]


@dataclass(frozen=True)
class Input:
    """What a network was fed: ((pixels / unit) - mean) / std, in this order of channels."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    order: str = "RGB"
    unit: float = 255.0

    def traits(self) -> dict[str, Any]:
        """The same in the words of a checkpoint's traits, for pixels from 0 to 255."""
        return {
            "channel_order": self.order,
            "mean": [round(x * self.unit, 4) for x in self.mean],
            "std": [round(x * self.unit, 4) for x in self.std],
        }

    def of(self, image: "np.ndarray") -> "torch.Tensor":
        """[1, 3, H, W] for the network, from [H, W, 3] uint8 RGB."""
        import torch

        pixels = torch.from_numpy(image[:, :, ::-1].copy() if self.order == "BGR" else image).permute(2, 0, 1)[None]
        mean, std = (torch.tensor(x, dtype=torch.float64).view(3, 1, 1) for x in (self.mean, self.std))
        return ((pixels.double() / self.unit - mean) / std).float()


IMAGENET = Input((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SWAV = Input((0.485, 0.456, 0.406), (0.228, 0.224, 0.225))  # facebookresearch/swav src/multicropdataset.py has .228
UNIT = Input((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # google-research/simclr data_util.py: pixels in [0, 1], nothing else
BGR = Input((0.406, 0.456, 0.485), (0.225, 0.224, 0.229), "BGR")  # fair_self_supervision_benchmark data/data_input.py
CAFFE = Input((103.53, 116.28, 123.675), (1.0, 1.0, 1.0), "BGR", 1.0)  # detectron2 config/defaults.py PIXEL_MEAN
# MMDetection configs/fcos, resnet50_caffe
DETECTRON = Input((102.9801, 115.9465, 122.7717), (1.0, 1.0, 1.0), "BGR", 1.0)
# HobbitLong/CMC train_CMC.py, get_train_loader
LAB = Input((50.0, 6.025, -6.6895), (50.0, 92.208, 101.1675), "Lab", 1.0)


@dataclass(frozen=True)
class Layout:
    """A way to store a ResNet. The functions are explained in this module's docstring."""

    names: Callable[[Sequence[str]], Names]
    places: Callable[[Place, int, "Arch"], Keys]  # the place, how many convolutions have been run before it, the plan
    kernels: str = "OIHW"  # order of a convolution's axes
    stride_in_1x1: bool = False
    same_conv: bool = False  # a strided convolution pads as TensorFlow's SAME, which depends on the size of the map
    same_pool: bool = False  # the stem's pooling does
    note: str = ""
    plain: Callable[[str], str] = str  # a key of the file as `places` has it, without what differs from file to file


# --- torchvision's names, and those that differ by a rule


def _identity(keys: Sequence[str]) -> Names:
    return {key: key for key in keys}


def _by(rule: Callable[[str], str | None]) -> Callable[[Sequence[str]], Names]:
    """Names from a rule for one key; the keys for which it has none are left out."""
    return lambda keys: {key: name for key in keys if (name := rule(key)) is not None}


def _norm(name: str) -> tuple[str, str, str, str]:
    return f"{name}.weight", f"{name}.bias", f"{name}.running_mean", f"{name}.running_var"


def _torchvision(place: Place, index: int, plan: "Arch") -> Keys:
    stage, block, k = place
    if stage == 0:
        if not plan.deep:
            return "conv1.weight", *_norm("bn1")
        return f"conv1.{3 * k}.weight", *_norm(f"conv1.{3 * k + 1}" if k < 2 else "bn1")
    if k == 0:
        first = 1 if plan.pooled else 0
        return (
            f"layer{stage}.{block}.downsample.{first}.weight",
            *_norm(f"layer{stage}.{block}.downsample.{first + 1}"),
        )
    return f"layer{stage}.{block}.conv{k}.weight", *_norm(f"layer{stage}.{block}.bn{k}")


def _from_v1c(key: str) -> str:
    """mmsegmentation's and MMDetection's ResNetV1c and V1d: the stem is one Sequential with the last norm in it."""
    if match := re.fullmatch(r"stem\.([0-6])\.(\w+)", key):
        return f"conv1.{match[1]}.{match[2]}"
    return re.sub(r"^stem\.7\.", "bn1.", key)


def _v1c(place: Place, index: int, plan: "Arch") -> Keys:
    if place[0] == 0:
        return f"stem.{3 * place[2]}.weight", *_norm(f"stem.{3 * place[2] + 1}")
    return _torchvision(place, index, plan)


def _from_mmpretrain(keys: Sequence[str]) -> Names:
    """MMPretrain's ResNetV1c and V1d: the stem is three ConvModules; in V1d only a strided shortcut has its pooling."""
    pooled = any(".downsample.2." in key for key in keys)
    return {key: _of_mmpretrain(key, pooled) for key in keys}


def _of_mmpretrain(key: str, pooled: bool) -> str:
    if match := re.fullmatch(r"stem\.([0-2])\.(conv|bn)\.(\w+)", key):
        if match[2] == "bn" and match[1] == "2":
            return f"bn1.{match[3]}"
        return f"conv1.{3 * int(match[1]) + (1 if match[2] == 'bn' else 0)}.{match[3]}"
    if pooled and (match := re.fullmatch(r"layer1\.0\.downsample\.([01])\.(\w+)", key)):
        return f"layer1.0.downsample.{int(match[1]) + 1}.{match[2]}"
    return key


def _mmpretrain(place: Place, index: int, plan: "Arch") -> Keys:
    stage, _, k = place
    if stage == 0:
        return f"stem.{k}.conv.weight", *_norm(f"stem.{k}.bn")
    if stage == 1 and k == 0:
        return "layer1.0.downsample.0.weight", *_norm("layer1.0.downsample.1")
    return _torchvision(place, index, plan)


def _from_sequential(key: str) -> str | None:
    """The children of torchvision's ResNet in an nn.Sequential: 0 conv1, 1 bn1, 2 ReLU, 3 pooling, 4 to 7 the layers."""
    number, _, rest = key.partition(".")
    place = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}.get(number)
    return f"{place}.{rest}" if place else None


def _sequential(place: Place, index: int, plan: "Arch") -> Keys:
    stage, block, k = place
    return _block(f"{stage + 3}.{block}", k) if stage else ("0.weight", *_norm("1"))


def _from_obow(key: str) -> str | None:
    """valeoai/obow: a list of the stem, whose convolution is called Conv, and the four layers."""
    if match := re.fullmatch(r"0\.(Conv|bn)\.(\w+)", key):
        return f"{'conv1' if match[1] == 'Conv' else 'bn1'}.{match[2]}"
    return f"layer{key}" if key.startswith(("1.", "2.", "3.", "4.")) else None


def _obow(place: Place, index: int, plan: "Arch") -> Keys:
    stage, block, k = place
    return _block(f"{stage}.{block}", k) if stage else ("0.Conv.weight", *_norm("0.bn"))


def _block(part: str, k: int) -> Keys:
    """A convolution of torchvision's block, 0: of its shortcut, and its norm."""
    if k == 0:
        return f"{part}.downsample.0.weight", *_norm(f"{part}.downsample.1")
    return f"{part}.conv{k}.weight", *_norm(f"{part}.bn{k}")


# --- detectron2, and Caffe2 before it


def _from_detectron2(keys: Sequence[str]) -> Names:
    deep = "stem.conv2.weight" in keys  # of projects/DeepLab: three convolutions
    return {key: _of_detectron2(key, deep) for key in keys}


def _of_detectron2(key: str, deep: bool) -> str:
    if match := re.fullmatch(r"stem\.conv([1-3])\.(norm\.)?(\w+)", key):
        number, norm, leaf = int(match[1]), match[2], match[3]
        if deep and not (norm and number == 3):
            return f"conv1.{3 * (number - 1) + (1 if norm else 0)}.{leaf}"
        return f"bn1.{leaf}" if norm else f"conv{number}.{leaf}"
    key = re.sub(r"^res([2-5])\.", lambda stage: f"layer{int(stage[1]) - 1}.", key)
    key = re.sub(r"\.conv([1-3])\.norm\.", r".bn\1.", key)
    return key.replace(".shortcut.norm.", ".downsample.1.").replace(".shortcut.weight", ".downsample.0.weight")


def _detectron2(place: Place, index: int, plan: "Arch") -> Keys:
    stage, block, k = place
    part = f"stem.conv{k + 1}" if stage == 0 else f"res{stage + 1}.{block}.{f'conv{k}' if k else 'shortcut'}"
    return f"{part}.weight", *_norm(f"{part}.norm")


_LEAVES = {"w": "weight", "bn_s": "weight", "bn_b": "bias", "bn_rm": "running_mean", "bn_riv": "running_var"}


def _of_affine_caffe2(key: str) -> str | None:
    """Caffe2's names in a network whose norms have no statistics."""
    return None if key.endswith(("_rm", "_riv")) else _of_caffe2(key)


def _of_caffe2(key: str) -> str | None:
    """Caffe2's names: branch1 is the shortcut, branch2a to c the convolutions; _bn_s and _bn_b scale and shift.

    _bn_riv is the running variance, in spite of its name: extra_scripts/pickle_caffe2_detection.py of FAIR's benchmark divides
    by its root.
    """
    key = _plain_caffe2(key)
    if match := re.fullmatch(r"(?:conv1_(w)|res_conv1_(bn_(?:s|b|rm|riv)))", key):
        return "conv1.weight" if match[1] else f"bn1.{_LEAVES[match[2]]}"
    match = re.fullmatch(r"res([2-5])_(\d+)_branch(1|2[abc])_(w|bn_(?:s|b|rm|riv))", key)
    if not match:
        return None
    stage, block, branch, leaf = int(match[1]) - 1, match[2], match[3], match[4]
    if branch == "1":
        return f"layer{stage}.{block}.downsample.{0 if leaf == 'w' else 1}.{_LEAVES[leaf]}"
    return f"layer{stage}.{block}.{'conv' if leaf == 'w' else 'bn'}{'abc'.index(branch[1]) + 1}.{_LEAVES[leaf]}"


def _plain_caffe2(key: str) -> str:
    """Without the number of the first of a jigsaw's nine towers: they share kernels, and that one's norms are transferred."""
    return key.replace("_s0_", "_")


def _affine_caffe2(place: Place, index: int, plan: "Arch") -> Keys:
    return *_caffe2(place, index, plan)[:3], None, None


def _caffe2(place: Place, index: int, plan: "Arch") -> Keys:
    stage, block, k = place
    part = f"res{stage + 1}_{block}_branch{'1' if k == 0 else '2' + ' abc'[k]}" if stage else "conv1"
    norm = f"{part}_bn" if stage else "res_conv1_bn"
    return f"{part}_w", f"{norm}_s", f"{norm}_b", f"{norm}_rm", f"{norm}_riv"


# --- TensorFlow's layers, numbered in the order in which they were made: in a block the shortcut comes first

_TF_LEAVES = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}


def _from_tensorflow(keys: Sequence[str]) -> Names:
    from downstream.resnets import BLOCKS

    convolutions = sum(key.endswith("/kernel") for key in keys)
    order = next(
        (o for bottleneck, blocks in BLOCKS.values() if len(o := _creation(bottleneck, blocks)) == convolutions), None
    )
    names = {}
    for key in keys:
        match = re.fullmatch(r"(conv2d|batch_normalization)(?:_(\d+))?/(\w+)", _plain_tensorflow(key))
        if order is None or not match or int(match[2] or 0) >= len(order):
            continue
        conv, norm = order[int(match[2] or 0)]
        if match[1] == "conv2d" and match[3] == "kernel":
            names[key] = f"{conv}.weight"
        elif match[1] != "conv2d" and match[3] in _TF_LEAVES:
            names[key] = f"{norm}.{_TF_LEAVES[match[3]]}"
    return names


def _plain_tensorflow(key: str) -> str:
    """A key of TensorFlow 2 without its block's name, as TensorFlow 1 has it: conv2d_2/kernel, batch_normalization_2/gamma."""
    return "/".join(key.split("/")[-2:]).removeprefix("sync_")


def _creation(bottleneck: bool, blocks: Iterable[int]) -> list[tuple[str, str]]:
    """torchvision's names of convolution and norm in the order in which google-research/simclr's resnet.py makes them."""
    order = [("conv1", "bn1")]
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            place = f"layer{stage}.{block}"
            if block == 0:
                order.append((f"{place}.downsample.0", f"{place}.downsample.1"))
            order += [(f"{place}.conv{k}", f"{place}.bn{k}") for k in range(1, 4 if bottleneck else 3)]
    return order


def _tensorflow(place: Place, index: int, plan: "Arch") -> Keys:
    number = f"_{index}" if index else ""
    norm = f"batch_normalization{number}"
    return (
        f"conv2d{number}/kernel",
        f"{norm}/gamma",
        f"{norm}/beta",
        f"{norm}/moving_mean",
        f"{norm}/moving_variance",
    )


# --- Haiku, flattened to NAME/LEAF under the names of BYOL's fields


def _of_haiku(key: str) -> str | None:
    match = re.fullmatch(
        r"online_(?:params|state)/(?:.+/)?"
        r"(?:initial_(conv|batchnorm)(?:_1)?|block_group_([0-3])/~/block_(\d+)/~/(?:shortcut_(conv|batchnorm)|(conv|batchnorm)_([0-2])))"
        r"/(?:(w)|(scale)|(offset)|~/(mean|var)_ema/average)",
        key,
    )
    if not match:
        return None
    stem, group, block, shortcut, branch, number = match.groups()[:6]
    leaf = "weight" if match[7] or match[8] else "bias" if match[9] else f"running_{match[10]}"
    if stem:
        return f"{'conv1' if stem == 'conv' else 'bn1'}.{leaf}"
    place = f"layer{int(group) + 1}.{block}"
    if shortcut:
        return f"{place}.downsample.{0 if shortcut == 'conv' else 1}.{leaf}"
    return f"{place}.{'conv' if branch == 'conv' else 'bn'}{int(number) + 1}.{leaf}"


def _plain_haiku(key: str) -> str:
    """A key without the modules around the network, and without the number of a stem that was not the first of its name."""
    key = re.sub(r"^(online_\w+/)(?:.+/)?(?=initial_|block_group_)", r"\1", key)
    return re.sub(r"^(online_\w+/initial_(?:conv|batchnorm))_1/", r"\1/", key)


def _haiku(place: Place, index: int, plan: "Arch") -> Keys:
    stage, block, k = place
    if stage == 0:
        conv, norm = "initial_conv", "initial_batchnorm"
    else:
        part = f"block_group_{stage - 1}/~/block_{block}/~"
        conv = f"{part}/conv_{k - 1}" if k else f"{part}/shortcut_conv"
        norm = f"{part}/batchnorm_{k - 1}" if k else f"{part}/shortcut_batchnorm"
    mean, variance = (f"online_state/{norm}/~/{name}_ema/average" for name in ("mean", "var"))
    return f"online_params/{conv}/w", f"online_params/{norm}/scale", f"online_params/{norm}/offset", mean, variance


# --- PyTorch code with names of its own


def _of_transformers(key: str) -> str | None:
    """Hugging Face transformers' ResNet."""
    parts = {"convolution": ("conv", "downsample.0"), "normalization": ("bn", "downsample.1")}
    if match := re.fullmatch(r"embedder\.embedder\.(convolution|normalization)\.(\w+)", key):
        return f"{parts[match[1]][0]}1.{match[2]}"
    match = re.fullmatch(
        r"encoder\.stages\.([0-3])\.layers\.(\d+)\.(?:shortcut|layer\.([0-2]))\.(convolution|normalization)\.(\w+)", key
    )
    if not match:
        return None
    kind, shortcut = parts[match[4]]
    part = shortcut if match[3] is None else f"{kind}{int(match[3]) + 1}"
    return f"layer{int(match[1]) + 1}.{match[2]}.{part}.{match[5]}"


def _transformers(place: Place, index: int, plan: "Arch") -> Keys:
    stage, block, k = place
    if stage == 0:
        part = "embedder.embedder"
    else:
        part = f"encoder.stages.{stage - 1}.layers.{block}.{f'layer.{k - 1}' if k else 'shortcut'}"
    return f"{part}.convolution.weight", *_norm(f"{part}.normalization")


_SEPARIUS = {"0": "conv1", "1.0": "bn1", "2": "conv2", "3.0": "bn2", "4": "conv3", "5.0": "bn3"}


def _of_separius(key: str) -> str | None:
    """Separius/SimCLRv2-Pytorch: one Sequential of a stem and four groups; a norm is the first child of norm-and-ReLU."""
    if match := re.fullmatch(r"net\.0\.(0|1\.0)\.(\w+)", key):
        return f"{'conv1' if match[1] == '0' else 'bn1'}.{match[2]}"
    if match := re.fullmatch(r"net\.([1-4])\.blocks\.(\d+)\.net\.(0|1\.0|2|3\.0|4|5\.0)\.(\w+)", key):
        return f"layer{match[1]}.{match[2]}.{_SEPARIUS[match[3]]}.{match[4]}"
    if match := re.fullmatch(r"net\.([1-4])\.blocks\.(\d+)\.projection\.(shortcut|bn\.0)\.(\w+)", key):
        return f"layer{match[1]}.{match[2]}.downsample.{0 if match[3] == 'shortcut' else 1}.{match[4]}"
    return None


def _separius(place: Place, index: int, plan: "Arch") -> Keys:
    stage, block, k = place
    if stage == 0:
        return "net.0.0.weight", *_norm("net.0.1.0")
    part = f"net.{stage}.blocks.{block}"
    if k == 0:
        return f"{part}.projection.shortcut.weight", *_norm(f"{part}.projection.bn.0")
    return f"{part}.net.{2 * (k - 1)}.weight", *_norm(f"{part}.net.{2 * k - 1}.0")


TENSORFLOW_POOL = (
    "the stem's pooling pads as TensorFlow's SAME: equal to torchvision's where the map's side is odd, and one pixel to the"
    " right where it is even (such as for 224 px)"
)
HAIKU_PADDING = (
    "strided convolutions and the stem's pooling pad as TensorFlow's SAME: equal to torchvision's where a map's side is odd,"
    " one pixel to the right where it is even (such as for 224 px)"
)

LAYOUTS = {
    "torchvision": Layout(_identity, _torchvision),
    "torchvision_1x1": Layout(_identity, _torchvision, stride_in_1x1=True),
    "sequential": Layout(_by(_from_sequential), _sequential),
    "obow": Layout(_by(_from_obow), _obow),
    "resnetv1c": Layout(_by(_from_v1c), _v1c),
    "mmpretrain": Layout(_from_mmpretrain, _mmpretrain),
    "detectron2": Layout(_from_detectron2, _detectron2),
    "caffe2": Layout(_by(_of_caffe2), _caffe2, plain=_plain_caffe2),
    "caffe2_affine": Layout(_by(_of_affine_caffe2), _affine_caffe2, stride_in_1x1=True),
    "transformers": Layout(_by(_of_transformers), _transformers),
    "separius": Layout(_by(_of_separius), _separius),
    "tensorflow": Layout(
        _from_tensorflow, _tensorflow, kernels="HWIO", same_pool=True, note=TENSORFLOW_POOL, plain=_plain_tensorflow
    ),
    "haiku": Layout(
        _by(_of_haiku), _haiku, kernels="HWIO", same_conv=True, same_pool=True, note=HAIKU_PADDING, plain=_plain_haiku
    ),
}


def turned(layout: Layout, name: str, entry: "Stored") -> "Stored":
    """A tensor in the file as torchvision stores it: kernels' axes in order, BatchNorm's vectors without axes of length 1."""
    from bench.unpickle import Stored

    shape = entry.shape
    if layout.kernels == "OIHW" or not (len(shape) == 4 and (name.endswith(".weight") or shape[:3] == (1, 1, 1))):
        return entry
    if shape[:3] == (1, 1, 1) and "conv" not in name and "downsample.0" not in name:
        return Stored(shape[3:], entry.dtype, lambda: entry.read().reshape(-1))
    turned = (shape[3], shape[2], shape[0], shape[1])
    return Stored(turned, entry.dtype, lambda: entry.read().permute(3, 2, 0, 1).contiguous())


def filled(layout: Layout, entries: Mapping[str, "Stored"]) -> dict[str, "Stored"]:
    """The statistics of a layout whose norms have none: mean 0, and the variance with which BatchNorm divides by one."""
    if layout is not LAYOUTS["caffe2_affine"]:
        return {}
    made: dict[str, Stored] = {}
    for name, entry in entries.items():
        if name.endswith(".bias"):
            place = name.removesuffix(".bias")
            made[f"{place}.running_mean"] = _constant(entry.shape, 0.0)
            made[f"{place}.running_var"] = _constant(entry.shape, 1.0 - 1e-5)
    return made


def _constant(shape: tuple[int, ...], value: float) -> "Stored":
    import torch

    from bench.unpickle import Stored

    return Stored(shape, torch.float32, lambda: torch.full(shape, value))


# --- the network, run as its publisher's code does


def stages(
    layout: Layout, get: Callable[[str], "torch.Tensor"], plan: "Arch", image: "torch.Tensor", stride_in_1x1: bool
) -> list["torch.Tensor"]:
    """The maps after the four stages of the network in its own layout.

    get:   the tensor of a key in the file, fp32
    image: [N, 3, H, W] as `Input.of` gives it
    """
    import torch

    runner = _Runner(layout, get, plan)
    with torch.no_grad():
        x = image
        for k in range(3) if plan.deep else (0,):
            x = runner.conv((0, 0, k), x, 2 if k == 0 else 1).relu()
        x = runner.pool(x)
        maps = []
        for stage, blocks in enumerate(plan.blocks, 1):
            for block in range(blocks):
                x = runner.block(stage, block, x, 2 if stage > 1 and block == 0 else 1, stride_in_1x1)
            maps.append(x)
    return maps


class _Runner:
    """Convolutions with their norms, in the order in which they are run."""

    def __init__(self, layout: Layout, get: Callable[[str], "torch.Tensor"], plan: "Arch") -> None:
        self.layout, self.get, self.plan, self.count = layout, get, plan, 0

    def block(self, stage: int, block: int, x: "torch.Tensor", stride: int, stride_in_1x1: bool) -> "torch.Tensor":
        """relu(shortcut + branch), whose strided convolution is the first or, in bottlenecks, the one with a 3x3 kernel."""
        shortcut = x
        if block == 0 and (stage > 1 or self.plan.bottleneck):
            pooled = self.plan.pooled and stride > 1
            shortcut = _averaged(x) if pooled else x
            shortcut = self.conv((stage, block, 0), shortcut, 1 if pooled else stride)
        strided = 2 if self.plan.bottleneck and not stride_in_1x1 else 1
        last = 3 if self.plan.bottleneck else 2
        for k in range(1, last + 1):
            x = self.conv((stage, block, k), x, stride if k == strided else 1)
            x = x.relu() if k < last else x
        return (x + shortcut).relu()

    def conv(self, place: Place, x: "torch.Tensor", stride: int) -> "torch.Tensor":
        """A convolution and its norm."""
        kernel, scale, shift, mean, variance = self.layout.places(place, self.count, self.plan)
        self.count += 1
        weight = self.get(kernel)
        if self.layout.kernels == "OIHW":
            import torch.nn.functional as F

            x = F.conv2d(x, weight, stride=stride, padding=weight.shape[2] // 2)
        else:
            x = _channels_last(x, weight, stride, self.layout.same_conv)
        if mean is not None and variance is not None:
            x = (x - self.vector(mean)) / (self.vector(variance) + 1e-5).sqrt()
        return x * self.vector(scale) + self.vector(shift)

    def vector(self, key: str) -> "torch.Tensor":
        return self.get(key).reshape(-1, 1, 1)

    def pool(self, x: "torch.Tensor") -> "torch.Tensor":
        """The maximum of 3x3 pixels at every second one."""
        import torch.nn.functional as F

        edges = _edges(x, 3, 2) if self.layout.same_pool else (1, 1, 1, 1)
        return F.max_pool2d(F.pad(x, edges, value=-math.inf), 3, 2)


def _edges(x: "torch.Tensor", size: int, stride: int) -> tuple[int, int, int, int]:
    """Left, right, top and bottom of TensorFlow's SAME padding: the odd pixel goes to the right and to the bottom."""
    edges = []
    for side in (x.shape[3], x.shape[2]):
        total = max((math.ceil(side / stride) - 1) * stride + size - side, 0)
        edges += [total // 2, total - total // 2]
    return edges[0], edges[1], edges[2], edges[3]


def _channels_last(x: "torch.Tensor", kernel: "torch.Tensor", stride: int, same: bool) -> "torch.Tensor":
    """The convolution with a kernel [H, W, in, out], summed over the kernel's pixels: no axis is exchanged."""
    import torch
    import torch.nn.functional as F

    size = kernel.shape[0]
    x = F.pad(x, _edges(x, size, stride) if same else (size // 2,) * 4)
    height, width = ((side - size) // stride + 1 for side in x.shape[2:])
    rows, columns = (stride * (n - 1) + 1 for n in (height, width))
    total = torch.zeros(())
    for i in range(size):
        for j in range(size):
            pixels = x[:, :, i : i + rows : stride, j : j + columns : stride]
            total = total + torch.einsum("nihw,io->nohw", pixels, kernel[i, j])
    return total


def _averaged(x: "torch.Tensor") -> "torch.Tensor":
    """The mean of 2x2 pixels, of fewer at an odd edge."""
    import torch.nn.functional as F

    return F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
