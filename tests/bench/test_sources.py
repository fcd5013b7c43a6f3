"""Each family from a file in its authentic form, and every way in which a file can be the wrong one."""

import argparse
import collections
import dataclasses
import functools
import hashlib
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from bench import families, journey, recognition, sources, tensorbundle
from bench.content import opened, sha256
from downstream import resnets, weights

Tensors = dict[str, torch.Tensor]


@functools.cache
def network(arch: str, seed: int = 0) -> nn.Module:
    """torchvision's ResNet with BatchNorm statistics that differ from channel to channel. Nobody changes it."""
    torch.manual_seed(seed)
    model = getattr(torchvision.models, arch)()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.2, 0.6)
            module.bias.data.normal_(std=0.1)
            module.num_batches_tracked.fill_(7)
    return model


def net(arch: str = "resnet18", seed: int = 0) -> Tensors:
    """The backbone's tensors under torchvision's names."""
    return {k: v for k, v in network(arch, seed).state_dict().items() if not k.startswith("fc.")}


def under(prefix: str, tensors: Tensors) -> Tensors:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def ddp(tensors: Tensors) -> Tensors:
    return collections.OrderedDict(under("module.", tensors))


def copied(tensors: Tensors) -> Tensors:
    """An average of the weights: the same names, other numbers."""
    return {k: v * 0.5 if v.is_floating_point() else v for k, v in tensors.items()}


def linear(name: str, bias: bool = True) -> Tensors:
    return {f"{name}.weight": torch.randn(8, 8)} | ({f"{name}.bias": torch.randn(8)} if bias else {})


def norm(name: str, affine: bool = True) -> Tensors:
    found = {f"{name}.running_mean": torch.randn(8), f"{name}.running_var": torch.rand(8) + 1}
    found[f"{name}.num_batches_tracked"] = torch.tensor(7)
    return ({f"{name}.weight": torch.randn(8), f"{name}.bias": torch.randn(8)} if affine else {}) | found


def conv(name: str) -> Tensors:
    return {f"{name}.weight": torch.randn(8, 8, 1, 1), f"{name}.bias": torch.randn(8)}


SGD = {"state": {0: {"momentum_buffer": torch.randn(3)}}, "param_groups": [{"lr": 0.03, "params": [0]}]}
AMP = {"loss_scaler0": {"loss_scale": 65536.0, "unskipped": 3}}
QUEUE = {"queue": torch.randn(8, 16), "queue_ptr": torch.zeros(1, dtype=torch.long)}


# --- the families, each as its authors' code writes it


def moco(arch: str, mlp: bool) -> dict[str, Any]:
    head = linear("fc.0") | linear("fc.2") if mlp else linear("fc")
    query = net(arch) | head
    state = under("encoder_q.", query) | under("encoder_k.", copied(query)) | QUEUE
    return {"epoch": 200, "arch": arch, "state_dict": ddp(state), "optimizer": SGD}


def mocov3(arch: str) -> dict[str, Any]:
    mlp = linear("fc.0", bias=False) | norm("fc.1") | linear("fc.3", bias=False) | norm("fc.4", affine=False)
    base = net(arch) | mlp
    head = linear("0", bias=False) | norm("1") | linear("3", bias=False)
    state = under("base_encoder.", base) | under("momentum_encoder.", copied(base)) | under("predictor.", head)
    return {"epoch": 300, "arch": arch, "state_dict": ddp(state), "optimizer": SGD, "scaler": {"scale": 1.0}}


def msf(arch: str) -> dict[str, Any]:
    mlp = linear("fc.0") | norm("fc.1") | linear("fc.3")
    query = net(arch) | mlp
    state = under("encoder_q.module.", query) | under("encoder_t.module.", copied(query))
    state |= under("predict_q.module.", linear("0") | norm("1") | linear("3")) | QUEUE
    state["labels"] = torch.full((8,), -1)
    return {"opt": argparse.Namespace(topk=10), "state_dict": state, "optimizer": SGD, "epoch": 200}


def pixpro(arch: str) -> dict[str, Any]:
    def projector(name: str) -> Tensors:
        return conv(f"{name}.linear1") | norm(f"{name}.bn1") | conv(f"{name}.linear2")

    state = under("encoder.", net(arch)) | under("encoder_k.", copied(net(arch)))
    for name in ("projector", "projector_k", "projector_instance", "projector_instance_k", "predictor"):
        state |= projector(name)
    return {
        "opt": argparse.Namespace(amp_opt_level="O1", output_dir="output", pixpro_p=2.0),
        "model": ddp(state | conv("value_transform")),
        "optimizer": SGD,
        "scheduler": {"last_epoch": 3, "after_scheduler": {"T_max": 9}},
        "epoch": 100,
        "amp": AMP,
    }


def soco(arch: str, fpn: bool) -> dict[str, Any]:
    state = under("encoder.", net(arch)) | under("encoder_k.", copied(net(arch)))
    for name in ("projector", "projector_k", "predictor"):
        state |= linear(f"{name}.linear1") | norm(f"{name}.bn1") | linear(f"{name}.linear2")
    if fpn:
        for of in ("", "_k"):
            for place in (f"neck{of}.{kind}_convs.{level}" for kind in ("lateral", "fpn") for level in range(4)):
                state |= {f"{place}.conv.weight": torch.randn(8, 8, 1, 1)} | norm(f"{place}.bn")
            for k in range(1, 5):
                state |= {f"head{of}.conv{k}.weight": torch.randn(8, 8, 3, 3)} | norm(f"head{of}.bn{k}")
            state |= linear(f"head{of}.fc1")
    opt = argparse.Namespace(model="SoCo_FPN" if fpn else "SoCo_C4", start_level=0)
    return {
        "opt": opt,
        "model": ddp(state | ({} if fpn else QUEUE)),
        "optimizer": SGD,
        "scheduler": {},
        "epoch": 100,
        "amp": AMP,
    }


def finetuned(arch: str) -> dict[str, Any]:
    return {"model": ddp(under("base.", net(arch)) | linear("fc")), "best_acc1": 60.0, "args": argparse.Namespace(lr=1)}


def pic(arch: str) -> dict[str, Any]:
    state = net(arch) | linear("fc1") | linear("fc2")
    return {
        "opt": argparse.Namespace(model="PIC"),
        "model": ddp(under("encoder.", state) | {"sim_matrix": torch.randn(64, 8)}),
        "optimizer": SGD,
        "scheduler": {},
        "sampler": {},
        "epoch": 200,
    }


def pycontrast(arch: str, jig: bool, mlp: bool, ema: bool) -> dict[str, Any]:
    state = under("encoder.", net(arch)) | linear("head.0") | (linear("head.2") if mlp else {})
    if jig:
        state |= (linear("head_jig.fc1.0") | linear("head_jig.fc1.2") if mlp else linear("head_jig.fc1")) | linear(
            "head_jig.fc2"
        )
    content = {"model": ddp(state), "contrast": {"memory": torch.randn(16, 8)}, "optimizer": SGD, "epoch": 200}
    return content | ({"model_ema": copied(state)} if ema else {})


def lemniscate(arch: str) -> dict[str, Any]:
    content = {
        "epoch": 200,
        "arch": arch,
        "state_dict": ddp(net(arch) | linear("fc")),
        "best_prec1": 54.0,
        "optimizer": SGD,
    }
    return content | {"lemniscate": nn.Linear(8, 8)}  # the object itself


def simsiam(arch: str) -> dict[str, Any]:
    head = linear("fc.0", bias=False) | norm("fc.1") | linear("fc.3", bias=False) | norm("fc.4")
    head |= linear("fc.6") | norm("fc.7", affine=False)
    predictor = linear("predictor.0", bias=False) | norm("predictor.1") | linear("predictor.3")
    state = under("encoder.", net(arch) | head) | predictor
    return {"epoch": 100, "arch": arch, "state_dict": ddp(state), "optimizer": SGD}


def swav(arch: str, prototypes: Tensors) -> Tensors:
    return (
        net(arch) | linear("projection_head.0") | norm("projection_head.1") | linear("projection_head.3") | prototypes
    )


CLUSTERS = linear("prototypes.prototypes0", bias=False) | linear("prototypes.prototypes1", bias=False)


def barlow(arch: str) -> dict[str, Any]:
    state = under("backbone.", net(arch)) | norm("bn", affine=False) | linear("projector.0", bias=False)
    state |= (
        norm("projector.1")
        | linear("projector.3", bias=False)
        | norm("projector.4")
        | linear("projector.6", bias=False)
    )
    return {"epoch": 1000, "model": ddp(state), "optimizer": SGD}


def vicreg(arch: str) -> dict[str, Any]:
    state = under("backbone.", net(arch)) | linear("projector.0") | norm("projector.1") | linear("projector.3")
    return {
        "epoch": 1000,
        "model": ddp(state | norm("projector.4") | linear("projector.6", bias=False)),
        "optimizer": SGD,
    }


def dino(arch: str) -> dict[str, Any]:
    head = linear("head.mlp.0") | linear("head.mlp.2") | linear("head.mlp.4")
    head |= {"head.last_layer.weight_g": torch.ones(8, 1), "head.last_layer.weight_v": torch.randn(8, 8)}
    teacher = under("backbone.", net(arch)) | head
    return {
        "student": ddp(copied(teacher)),
        "teacher": ddp(teacher),
        "optimizer": SGD,
        "epoch": 800,
        "args": argparse.Namespace(arch=arch, lr=0.3, use_fp16=False),
        "dino_loss": {"center": torch.randn(1, 8)},
    }


def obow(arch: str) -> Tensors:
    stem = {"conv1": "0.Conv", "bn1": "0.bn"}
    return {
        f"_feature_blocks.{stem.get(part := name.partition('.')[0], part[5:])}{name[len(part) :]}": tensor
        for name, tensor in net(arch).items()
    }


def tonylins(arch: str) -> dict[str, Any]:
    """tonylins/simclr-converter: a block registers its shortcut before its convolutions."""
    state = network(arch).state_dict()
    first = {}
    for name in state:
        block = re.match(r"layer\d\.\d+\.", name)
        if block and name not in first:
            first |= {k: state[k] for k in state if k.startswith(f"{block[0]}downsample")}
        first[name] = state[name]
    return {"state_dict": first}


def separius_name(name: str) -> str:
    """The names of Separius/SimCLRv2-Pytorch's resnet.py, from its Stem, Blocks, Projection and BottleneckBlock."""
    stem = {"conv1": "net.0.0", "bn1": "net.0.1.0"}
    inner = {"conv1": "0", "bn1": "1.0", "conv2": "2", "bn2": "3.0", "conv3": "4", "bn3": "5.0"}
    parts = name.split(".")
    if parts[0] in stem:
        return f"{stem[parts[0]]}.{parts[1]}"
    place = f"net.{parts[0][-1]}.blocks.{parts[1]}"
    if parts[2] == "downsample":
        return f"{place}.projection.{'shortcut' if parts[3] == '0' else 'bn.0'}.{parts[4]}"
    return f"{place}.net.{inner[parts[2]]}.{parts[3]}"


def separius(arch: str) -> dict[str, Any]:
    resnet = {separius_name(name): tensor for name, tensor in net(arch).items()} | linear("fc")
    return {"resnet": resnet, "head": linear("layers.0", bias=False) | norm("layers.1")}


def transformers_name(name: str) -> str:
    parts = name.split(".")
    kind = {"conv": "convolution", "bn": "normalization"}
    if len(parts) == 2:
        return f"embedder.embedder.{kind[parts[0][:-1]]}.{parts[1]}"
    place = f"encoder.stages.{int(parts[0][-1]) - 1}.layers.{parts[1]}"
    if parts[2] == "downsample":
        return f"{place}.shortcut.{'convolution' if parts[3] == '0' else 'normalization'}.{parts[4]}"
    return f"{place}.layer.{int(parts[2][-1]) - 1}.{kind[parts[2][:-1]]}.{parts[3]}"


def transformers(arch: str, prefix: str) -> Tensors:
    return {prefix + transformers_name(name): tensor for name, tensor in net(arch).items()} | (
        linear("classifier.1") if prefix else {}
    )


def detectron2_name(name: str) -> str:
    """The loop of MoCo's detection/convert-pretrain.py, as every converter has it."""
    if "layer" not in name:
        name = "stem." + name
    for t in (1, 2, 3, 4):
        name = name.replace(f"layer{t}", f"res{t + 1}")
    for t in (1, 2, 3):
        name = name.replace(f"bn{t}", f"conv{t}.norm")
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def detectron2(arch: str) -> dict[str, Any]:
    arrays = {detectron2_name(k): v.numpy() for k, v in network(arch).state_dict().items()}
    return {"model": arrays, "__author__": "MOCO", "matching_heuristics": True}


def caffe2_name(name: str) -> str | None:
    """Detectron's name of what torchvision calls so: branch1 is the shortcut, 2a to 2c the convolutions."""
    leaf = {"weight": "s", "bias": "b"}
    parts = name.split(".")
    if parts[-1] not in leaf:
        return None
    if len(parts) == 2:
        return "conv1_w" if parts[0] == "conv1" else f"res_conv1_bn_{leaf[parts[1]]}"
    shortcut = parts[2] == "downsample"
    branch = "1" if shortcut else "2" + "abc"[int(parts[2][-1]) - 1]
    is_conv = parts[3] == "0" if shortcut else parts[2].startswith("conv")
    return f"res{int(parts[0][-1]) + 1}_{parts[1]}_branch{branch}_{'w' if is_conv else 'bn_' + leaf[parts[-1]]}"


def msra(arch: str) -> dict[str, Any]:
    arrays = {caffe2: tensor.numpy() for name, tensor in net(arch).items() if (caffe2 := caffe2_name(name))}
    zeros = np.zeros(64, np.float32)
    return arrays | {"conv1_b": zeros, "fc1000_w": np.ones((8, 8), np.float32), "fc1000_b": np.ones(8, np.float32)}


def goyal19(arch: str, tower: str = "") -> dict[str, Any]:
    """FAIR's benchmark: Caffe2's blobs, with the tower's number in their names where the jigsaw's network was nine of them."""
    leaves = {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"}
    blobs: dict[str, Any] = {"model_iter": 5, "lr": np.float32(0.1), "fc_8_w": np.ones((8, 8), np.float32)}
    for name, tensor in counted(arch).items():
        place, leaf = name.rsplit(".", 1)
        kernel = caffe2_name(name) if name.endswith("weight") and tensor.ndim == 4 else None
        blob = kernel or f"{str(caffe2_name(f'{place}.weight')).removesuffix('_s')}_{leaves[leaf]}"
        stem, _, last = blob.rpartition("_")
        blobs[f"{stem}{tower}_{last}"] = tensor.numpy()
        if tower and not kernel:
            blobs |= {f"{stem}_s{n}_{last}": tensor.numpy() + n for n in range(1, 9)}
        blobs[f"{stem}{tower}_{last}_momentum"] = tensor.numpy() * 0
    return {"blobs": blobs}


def frozen(arch: str) -> Tensors:
    """What a file without statistics says: scale and shift, as BatchNorm with a mean of 0 and a variance of 1 - 1e-5."""
    found = {}
    for name, tensor in net(arch).items():
        if name.endswith("running_mean"):
            found[name] = torch.zeros_like(tensor)
        elif name.endswith("running_var"):
            found[name] = torch.full_like(tensor, 1 - 1e-5)
        elif not name.endswith("num_batches_tracked"):
            found[name] = tensor
    return found


def counted(arch: str) -> Tensors:
    return {name: tensor for name, tensor in net(arch).items() if not name.endswith("num_batches_tracked")}


def vissl(arch: str, around: str = "") -> dict[str, Any]:
    model = {"trunk": under(f"{around}_feature_blocks.", net(arch)), "heads": linear("0.clf.0")}
    state = {"base_model": {"model": model, "loss": {}, "meters": {}}, "optimizer": SGD, "phase_idx": 99}
    return {"classy_state_dict": state, "iteration": 5, "phase_idx": 99, "loss": {}, "type": "consolidated"}


def openselfsup(arch: str, extra: Tensors | None = None) -> dict[str, Any]:
    neck = linear("1.mlp.0") | linear("1.mlp.2")
    query = under("0.", net(arch)) | neck
    state = under("encoder_q.", query) | under("encoder_k.", copied(query)) | under("backbone.", net(arch)) | QUEUE
    return {"meta": {"epoch": 200, "iter": 3, "time": "Mon"}, "state_dict": state | (extra or {}), "optimizer": SGD}


def mmengine(arch: str, package: str) -> dict[str, Any]:
    state = under("backbone.", net(arch)) | linear("neck.fc0") | norm("neck.bn0")
    state |= under("encoder_k.module.0.", copied(net(arch))) | linear("encoder_k.module.1.fc0") | QUEUE
    meta = {"epoch": 200, "mmengine_version": "0.10.7", "cfg": f"custom_imports = ['{package}.models']\nlr = 0.03"}
    return {
        "meta": meta,
        "state_dict": state,
        "message_hub": {"log_scalars": {}},
        "optimizer": SGD,
        "param_schedulers": [],
    }


LIGHTNING = {
    "epoch": 399,
    "global_step": 80000,
    "pytorch-lightning_version": "1.5.10",
    "loops": {"fit_loop": {"state_dict": {}}},
    "callbacks": {},
    "optimizer_states": [SGD],
    "lr_schedulers": [{"last_epoch": 3}],
}


def solo(arch: str) -> dict[str, Any]:
    state = under("backbone.", net(arch)) | linear("classifier") | linear("projector.0") | norm("projector.1")
    state |= linear("predictor.0") | under("momentum_backbone.", copied(net(arch))) | linear("momentum_projector.0")
    return LIGHTNING | {"state_dict": state, "hyper_parameters": {"method": "byol", "max_epochs": 400}}


def lightly(arch: str, sequential: bool) -> dict[str, Any]:
    places = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}

    def form(tensors: Tensors) -> Tensors:
        if not sequential:
            return tensors
        return {f"{places[k.split('.')[0]]}.{k.partition('.')[2]}": v for k, v in tensors.items()}

    state = under("backbone.", form(net(arch))) | linear("projection_head.layers.0")
    state |= under("backbone_momentum.", form(copied(net(arch)))) | linear("projection_head_momentum.layers.0")
    state |= linear("online_classifier.classification_head")
    return LIGHTNING | {"state_dict": state, "hyper_parameters": {"batch_size_per_device": 256}}


def old_lightly(arch: str, sequential: bool, online: str) -> dict[str, Any]:
    """Before February 2024: `backbone` was the moving average of the network that was trained."""
    content = lightly(arch, sequential)
    state = {k: v for k, v in content["state_dict"].items() if "momentum" not in k and not k.startswith("backbone.")}
    trained = {k: v for k, v in content["state_dict"].items() if k.startswith("backbone.")}
    state |= {k: v * 0.5 if v.is_floating_point() else v for k, v in trained.items()}
    state |= under(f"{online}_", trained) | linear(f"{online}_projection_head.layers.0")
    state |= linear("student_prediction_head.layers.0") if online == "student" else {}
    return content | {"state_dict": state}


def lightlys_dino(arch: str, sequential: bool) -> dict[str, Any]:
    """examples/pytorch_lightning/dino.py: two networks of which neither is called `backbone`."""
    content = lightly(arch, sequential)
    trained = {k: v for k, v in content["state_dict"].items() if k.startswith("backbone.")}
    state = under("student_", copied(trained)) | linear("student_head.layers.0") | linear("student_head.last_layer")
    state |= under("teacher_", trained) | linear("teacher_head.layers.0") | linear("teacher_head.last_layer")
    return content | {"state_dict": state}


def haiku_keys(tensors: Tensors) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters and states of Haiku's ResNet: kernels HWIO, norms (1, 1, 1, C), running averages as `average`."""
    params: dict[str, Any] = {}
    states: dict[str, Any] = {}
    for name, tensor in tensors.items():
        *place, leaf = name.split(".")
        if len(place) == 1:
            module = f"res_net50/~/initial_{'conv' if place[0] == 'conv1' else 'batchnorm'}"
        else:
            group = f"res_net50/~/block_group_{int(place[0][-1]) - 1}/~/block_{place[1]}/~"
            if place[2] == "downsample":
                module = f"{group}/shortcut_{'conv' if place[3] == '0' else 'batchnorm'}"
            else:
                module = f"{group}/{'conv' if place[2][:-1] == 'conv' else 'batchnorm'}_{int(place[2][-1]) - 1}"
        if leaf == "num_batches_tracked":
            continue
        if tensor.dim() == 4:
            params[module] = {"w": tensor.permute(2, 3, 1, 0).contiguous().numpy()}
        elif leaf in ("weight", "bias"):
            values = tensor.numpy()[None, None, None]
            params.setdefault(module, {})["scale" if leaf == "weight" else "offset"] = values
        else:
            average = {"average": tensor.numpy()[None, None, None], "counter": np.array(7, np.int32)}
            states[f"{module}/~/{leaf.removeprefix('running_')}_ema"] = average | {"hidden": average["average"]}
    return params, states


class FlatMapping(dict):
    """Stands for haiku._src.data_structures.FlatMapping, which pickles as its class and a dict."""

    __module__ = "haiku._src.data_structures"

    def __reduce__(self) -> Any:
        return FlatMapping, (dict(self),)


class Frozen:
    """Stands for the same module's older frozendict, which pickles as its attributes."""

    __module__, __qualname__ = "haiku._src.data_structures", "frozendict"

    def __init__(self, mapping: dict[str, Any]) -> None:
        self._storage = dict(mapping)
        self._keys = tuple(sorted(mapping))
        self._hash = hash(self._keys)


State = collections.namedtuple(
    "_ByolExperimentState", "online_params target_params online_state target_state opt_state"
)
State.__module__ = "byol.byol_experiment"


def byol(arch: str) -> dict[str, Any]:
    params, states = haiku_keys(net(arch))
    heads = {"projector/linear": {"w": np.ones((8, 8), np.float32), "b": np.ones(8, np.float32)}}
    heads |= {"predictor/linear": heads["projector/linear"], "classifier": heads["projector/linear"]}
    wrapped = FlatMapping({k: FlatMapping(v) for k, v in (params | heads).items()})
    half = {k: FlatMapping({n: a if n == "w" else a / 2 for n, a in v.items()}) for k, v in (params | heads).items()}
    half = FlatMapping(half)  # kernels are the same objects, so that the file is no larger than it must be
    state = FlatMapping({k: FlatMapping(v) for k, v in states.items()})
    return {
        "experiment_state": State(wrapped, half, state, state, (half,)),
        "step": 300_000,
        "rng": np.array([0, 1], np.uint32),
    }


def _create_namedtuple(name: str, fields: tuple[str, ...], module: str) -> None: ...


def _create_array(function: Any, arguments: tuple[Any, ...], state: Any, attributes: Any) -> None: ...


_create_namedtuple.__module__ = _create_array.__module__ = "dill._dill"


class Dill(pickle.Pickler):
    """Writes named tuples and arrays as dill does, with which BYOL's code saves."""

    def reducer_override(self, value: Any) -> Any:
        if value is State:
            return _create_namedtuple, (State.__name__, State._fields, State.__module__)
        if isinstance(value, np.ndarray):
            return _create_array, (*value.__reduce__(), None)
        return NotImplemented


@pytest.fixture
def deepmind() -> Iterator[None]:
    """The modules that BYOL's pickle names exist while it is written, not while it is read."""
    made = {
        "haiku._src.data_structures": [FlatMapping],
        "byol.byol_experiment": [State],
        "dill._dill": [_create_namedtuple, _create_array],
    }
    for name, contents in made.items():
        module = types.ModuleType(name)
        for content in contents:
            setattr(module, content.__name__, content)
        for package in (name.split(".")[0], ".".join(name.split(".")[:2]), name):
            sys.modules.setdefault(package, types.ModuleType(package))
        sys.modules[name] = module
    yield
    forget()


def forget() -> None:
    for name in [name for name in sys.modules if name.split(".")[0] in ("haiku", "byol", "dill")]:
        del sys.modules[name]


def tensorflow(arch: str, contrastive: bool) -> dict[str, np.ndarray]:
    """The variables of google-research/simclr, in the order in which its code makes them: a block's shortcut first."""
    names = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
    order = ["conv1"]
    for stage, blocks in enumerate((3, 4, 6, 3), 1):
        for block in range(blocks):
            order += [f"layer{stage}.{block}.downsample.0"] if block == 0 else []
            order += [f"layer{stage}.{block}.conv{k}" for k in (1, 2, 3)]
    found = {}
    for number, place in enumerate(order):
        suffix = f"_{number}" if number else ""
        found[f"base_model/conv2d{suffix}/kernel"] = (
            net(arch)[f"{place}.weight"].permute(2, 3, 1, 0).contiguous().numpy()
        )
        partner = place.replace("downsample.0", "downsample.1").replace("conv", "bn")
        for leaf, name in names.items():
            found[f"base_model/batch_normalization{suffix}/{name}"] = net(arch)[f"{partner}.{leaf}"].numpy()
    found["head_supervised/linear_layer/dense/kernel"] = np.ones((8, 8), np.float32)
    found["head_supervised/linear_layer/dense/bias"] = np.ones(8, np.float32)
    found["global_step"] = np.array(225206, np.int64)
    if contrastive:
        for number in range(3):
            found[f"head_contrastive/nl_{number}/dense/kernel"] = np.ones((8, 8), np.float32)
            found[f"head_contrastive/nl_{number}/batch_normalization/gamma"] = np.ones(8, np.float32)
        found |= {
            f"{name}/Momentum": array for name, array in found.items() if name.endswith(("kernel", "gamma", "beta"))
        }
        found |= {f"ema_model/{name}": array for name, array in found.items() if name.startswith("base_model/")}
    return found


def tensorflow2(arch: str, contrastive: bool, models_before: int = 0) -> dict[str, np.ndarray]:
    """The same variables under the names of tf2/, whose layers are counted on from models that the process made before."""
    found: dict[str, np.ndarray] = {"save_counter": np.array(1, np.int64), "LARSOptimizer/iter": np.array(9, np.int64)}
    for name, array in tensorflow(arch, contrastive=False).items():
        if match := re.fullmatch(r"base_model/(conv2d|batch_normalization)(?:_(\d+))?(/\w+)", name):
            number = int(match[2] or 0) + 53 * models_before
            suffix = f"_{number}" if number else ""
            outer, kind = {"conv2d": ("conv2d_fixed_padding", "conv2d")}.get(
                match[1], ("batch_norm_relu", "sync_batch_normalization")
            )
            block = "" if match[2] is None else f"block_group/bottleneck_block_{number // 3}/"
            found[f"resnet/{block}{outer}{suffix}/{kind}{suffix}{match[3]}"] = array
        elif "/" in name:
            found[name.replace("dense", "dense_3")] = array
    if contrastive:
        number = 53 * (models_before + 1)
        found["projection_head/nl_0/dense/kernel"] = np.ones((8, 8), np.float32)
        found[f"projection_head/nl_0/batch_norm_relu_{number}/sync_batch_normalization_{number}/gamma"] = np.ones(
            8, np.float32
        )
        slots = [name for name in found if name.endswith(("kernel", "gamma", "beta"))]
        found |= {f"{name}/Momentum": found[name] for name in slots}
    return found


def by_objects(names: Iterable[str]) -> tuple[dict[str, str], bytes]:
    """Keys as TensorFlow 2 files variables, by name, and the TrackableObjectGraph that tells the names."""
    keys = {name: f"trainable_variables_list/{i}/.ATTRIBUTES/VARIABLE_VALUE" for i, name in enumerate(names)}
    graph = b""
    for name, key in keys.items():
        texts = ((1, b"VARIABLE_VALUE"), (2, name.encode()), (3, key.encode()))
        about = b"".join(bytes([number << 3 | 2]) + varint(len(text)) + text for number, text in texts)
        node = b"\x0a\x02\x08\x01" + b"\x12" + varint(len(about)) + about  # a child, and the attribute
        graph += b"\x0a" + varint(len(node)) + node
    return keys, graph


def varint(number: int) -> bytes:
    found = b""
    while number > 0x7F:
        found += bytes([number & 0x7F | 0x80])
        number >>= 7
    return found + bytes([number])


def bundle(index: Path, variables: dict[str, np.ndarray], graph: bytes = b"") -> None:
    """Writes a TensorFlow checkpoint: BundleEntryProtos in a table of LevelDB's format, keys cut where they repeat.

    graph: of TensorFlow 2, which comes first: no other key begins with an underscore or a capital
    """
    kinds = {np.dtype(np.float32): 1, np.dtype(np.int64): 9}
    entries = [(b"", b"\x08\x01\x1a\x02\x08\x01")]  # BundleHeaderProto: one shard, little-endian, version
    places: dict[int, tuple[int, int]] = {}
    with index.with_name(f"{index.stem}.data-00000-of-00001").open("wb") as data:
        if graph:
            length = struct.pack("<I", len(graph))
            begin = struct.pack("<I", tensorbundle.masked(tensorbundle.crc32c(length)))
            checksum = tensorbundle.masked(tensorbundle.crc32c(length + begin + graph))
            size = data.write(varint(len(graph)) + begin + graph)
            value = b"\x08\x07\x12\x00\x28" + varint(size) + b"\x35" + struct.pack("<I", checksum)
            entries.append((b"_CHECKPOINTABLE_OBJECT_GRAPH", value))
        for name, array in sorted(variables.items()):
            if id(array) not in places:  # a copy of the same numbers is not written twice
                places[id(array)] = data.tell(), tensorbundle.masked(tensorbundle.crc32c(array.tobytes()))
                data.write(array.tobytes())
            offset, checksum = places[id(array)]
            dims = b"".join(b"\x12" + varint(len(d)) + d for n in array.shape for d in [b"\x08" + varint(n)])
            value = b"\x08" + bytes([kinds[array.dtype]]) + b"\x12" + varint(len(dims)) + dims
            value += b"\x20" + varint(offset) + b"\x28" + varint(array.nbytes) + b"\x35" + struct.pack("<I", checksum)
            entries.append((name.encode(), value))
    table, blocks = b"", []

    def block(pairs: list[tuple[bytes, bytes]]) -> bytes:
        nonlocal table
        content, restarts, last = b"", [], b""
        for number, (key, value) in enumerate(pairs):
            shared = 0
            if number % 16:
                while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                    shared += 1
            else:
                restarts.append(len(content))
            content += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
            last = key
        content += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
        handle = varint(len(table)) + varint(len(content))
        table += content + b"\0" + struct.pack("<I", tensorbundle.masked(tensorbundle.crc32c(content + b"\0")))
        return handle

    for start in range(0, len(entries), 50):
        part = entries[start : start + 50]
        blocks.append((part[-1][0], block(part)))
    meta, top = block([]), block(blocks)
    footer = (meta + top).ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)
    index.write_bytes(table + footer)


# --- one case a form of a family's files


@dataclasses.dataclass(frozen=True)
class Case:
    family: str
    content: Callable[[str], Any]
    arch: str = "resnet18"
    equal: tuple[str, ...] = ()
    file: str = "checkpoint.pth"
    truth: Callable[[str], Tensors] = net
    traits: dict[str, Any] = dataclasses.field(default_factory=dict)
    level: str | None = None  # where the state dict is; None: the first of the usual keys


PLAIN = ("barlowtwins", "vicreg", "dino")
CAFFE = {"channel_order": "BGR", "mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "stride_in_1x1": True}
BGR = {"channel_order": "BGR", "mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395]}
SWAV = {"std": [58.14, 57.12, 57.375]}
UNIT = {"mean": [0.0, 0.0, 0.0], "std": [255.0, 255.0, 255.0]}

PUBLISHED = {
    "moco-v1": Case("moco", lambda a: moco(a, mlp=False), equal=("pcl",)),
    "moco-v2": Case("moco", lambda a: moco(a, mlp=True), "resnet50", file="moco_v2_800ep_pretrain.pth.tar"),
    "clsa": Case("clsa", lambda a: moco(a, mlp=True) | {"best_acc": 70.1}),
    "moco-or-clsa-or-pcl": Case("moco", lambda a: moco(a, mlp=True), equal=("clsa", "pcl")),
    "pcl": Case("pcl", lambda a: moco(a, mlp=True), file="PCL_v2_epoch200.pth.tar"),
    "msf": Case("msf", msf),
    "mocov3": Case("mocov3", mocov3, "resnet50"),
    "pixpro": Case("pixpro", pixpro),
    "pixpro-published": Case("pixpro", lambda a: {"model": pixpro(a)["model"]}, "resnet50"),
    "pixpro-finetuned": Case("pixpro-finetuned", finetuned),
    "soco-c4": Case("soco", lambda a: soco(a, fpn=False), "resnet50"),
    "soco-fpn": Case("soco", lambda a: soco(a, fpn=True)),
    "pic": Case("pic", pic),
    "bl0-instdisc": Case("bl0", lambda a: {"model": ddp(under("encoder.", net(a) | linear("fc")) | {"memory": torch.ones(9, 8)})}),
    "bl0-moco": Case(
        "bl0",
        lambda a: {"opt": argparse.Namespace(model="MoCo"), "model": ddp(under("encoder.", net(a) | linear("fc1") | linear("fc2")) | under("encoder_k.", copied(net(a)) | linear("fc1")) | QUEUE), "optimizer": SGD, "epoch": 200},
    ),
    "infomin": Case("infomin", lambda a: pycontrast(a, jig=True, mlp=True, ema=True)),
    "infomin-published": Case(
        "infomin", lambda a: {"model": pycontrast(a, True, True, False)["model"]}, equal=("pirl",)
    ),
    "pirl": Case("pirl", lambda a: pycontrast(a, jig=True, mlp=False, ema=False)),
    "instdis": Case("instdis", lambda a: pycontrast(a, jig=False, mlp=False, ema=False)),
    "pycontrast-moco": Case("pycontrast-moco", lambda a: pycontrast(a, jig=False, mlp=True, ema=True)),
    "lemniscate": Case("lemniscate", lemniscate),
    "simsiam": Case("simsiam", simsiam),
    "byol": Case("byol", byol, "resnet50", file="pretrain_res50x1.pkl", truth=counted),
    "swav": Case("swav", lambda a: ddp(swav(a, linear("prototypes", bias=False))), file="swav_800ep_pretrain.pth.tar", traits=SWAV),
    "swav-trained": Case(
        "swav",
        lambda a: {"epoch": 9, "state_dict": ddp(swav(a, linear("prototypes", bias=False))), "optimizer": SGD, "amp": AMP},
        equal=("sela-v2",),
        traits=SWAV,
    ),
    "swav-finetuned": Case(
        "swav-finetuned",
        lambda a: {"epoch": 20, "state_dict": ddp(net(a) | linear("projection_head")), "optimizer": SGD, "scheduler": {"last_epoch": 20}, "best_acc": (70.2, 89.9)},
        traits=SWAV,
    ),
    "deepcluster-v2": Case(
        "deepcluster-v2", lambda a: ddp(swav(a, CLUSTERS)), file="deepclusterv2_800ep_pretrain.pth.tar", traits=SWAV
    ),
    "sela-v2": Case("sela-v2", lambda a: ddp(swav(a, CLUSTERS)), file="selav2_400ep_pretrain.pth.tar", traits=SWAV),
    "barlowtwins": Case("barlowtwins", barlow),
    "barlowtwins-or-vicreg": Case("torchvision", net, "resnet50", equal=PLAIN, file="resnet50.pth"),
    "vicreg": Case("vicreg", vicreg),
    "vicregl": Case(
        "vicregl",
        lambda a: {"epoch": 99, "model": ddp(under("backbone.", net(a)) | linear("maps_projector.0") | norm("maps_projector.1") | linear("maps_projector.6", bias=False)
                                             | linear("projector.0") | norm("projector.1") | linear("projector.6", bias=False) | linear("classifier")), "optimizer": SGD},
    ),
    "dino": Case("dino", dino, "resnet50", level="teacher"),
    "dino-published": Case("dino", net, file="dino_resnet50_pretrain.pth"),
    "obow": Case(
        "obow",
        lambda a: {"epoch": 200, "network": under("feature_extractor.", obow(a)) | under("feature_extractor_teacher.", copied(obow(a)))
                   | linear("bow_predictor.layers_w.0.0") | linear("linear_classifier.layers.0"), "meters": None},
        level="network",
    ),
    "obow-student": Case("obow", lambda a: {"epoch": 200, "network": obow(a), "meters": None}, "resnet50", level="network"),
    "simclr": Case("simclr", lambda a: tensorflow(a, contrastive=False), "resnet50", file="model.ckpt-225206.index", truth=counted, traits=UNIT),
    "simclrv2": Case("simclrv2", lambda a: tensorflow(a, contrastive=True), "resnet50", file="model.ckpt-250228.index", truth=counted, traits=UNIT),
    "simclr-tf2": Case("simclr-tf2", lambda a: tensorflow2(a, contrastive=False, models_before=2), "resnet50", file="variables.index", truth=counted, traits=UNIT),
    "simclrv2-tf2": Case("simclrv2-tf2", lambda a: tensorflow2(a, contrastive=True), "resnet50", file="ckpt-250228.index", truth=counted, traits=UNIT),
    "simclr-pytorch": Case("simclr-pytorch", tonylins, "resnet50", file="resnet50-1x.pth", traits=UNIT),
    "spijkervet": Case(
        "spijkervet",
        lambda a: under("encoder.", net(a)) | linear("projector.0", bias=False) | linear("projector.2", bias=False),
        file="checkpoint_100.tar",
        traits=UNIT,
    ),
    "sthalles": Case(
        "sthalles",
        lambda a: {"epoch": 200, "arch": a, "state_dict": under("backbone.", net(a) | linear("fc.0") | linear("fc.2")), "optimizer": SGD},
        file="checkpoint_0200.pth.tar",
        traits=UNIT,
    ),
    "simclrv2-pytorch": Case("simclrv2-pytorch", separius, "resnet50", file="r50_1x_sk0.pth", traits=UNIT, level="resnet"),
    "densecl": Case("densecl", lambda a: openselfsup(a, linear("encoder_q.1.mlp2.0") | {"queue2": torch.ones(8, 4), "queue2_ptr": torch.zeros(1)})),
    "densecl-extracted": Case("densecl", lambda a: {"state_dict": net(a), "author": "DenseCL"}),
    "openselfsup": Case("openselfsup", openselfsup, equal=("mmselfsup",)),
    "openselfsup-byol": Case(
        "openselfsup",
        lambda a: {"meta": {}, "state_dict": under("online_net.0.", net(a)) | linear("online_net.1.fc0") | under("target_net.0.", copied(net(a))) | linear("head.predictor.fc0")},
        equal=("mmselfsup",),
    ),
    "openselfsup-extracted": Case("openselfsup", lambda a: {"state_dict": net(a), "author": "OpenSelfSup"}),
    "mmselfsup": Case("mmselfsup", lambda a: mmengine(a, "mmselfsup")),
    "mmpretrain": Case("mmpretrain", lambda a: mmengine(a, "mmpretrain")),
    "mm-engine": Case("mmselfsup", lambda a: mmengine(a, "mine"), equal=("mmpretrain", "openselfsup")),
    "mm-without-meta": Case("mmselfsup", lambda a: {"state_dict": under("backbone.", net(a)) | linear("head.fc")}, equal=("mmpretrain", "openselfsup")),
    "vissl": Case("vissl", vissl, level="classy_state_dict/base_model/model/trunk"),
    "vissl-features": Case("vissl", lambda a: vissl(a, "base_model."), level="classy_state_dict/base_model/model/trunk"),
    "vissl-converted": Case("vissl", lambda a: {"model_state_dict": under("_feature_blocks.", net(a))}, level="model_state_dict"),
    "solo-learn": Case("solo-learn", solo),
    "solo-learn-old": Case(
        "solo-learn",
        lambda a: LIGHTNING | {"state_dict": under("encoder.", net(a)) | linear("classifier") | linear("projector.0") | under("momentum_encoder.", copied(net(a)))},
    ),
    "lightly": Case("lightly", lambda a: lightly(a, sequential=False)),
    "lightly-sequential": Case("lightly", lambda a: lightly(a, sequential=True)),
    "lightly-moco-of-2023": Case("lightly", lambda a: old_lightly(a, False, "query")),
    "lightly-moco-of-2023-sequential": Case("lightly", lambda a: old_lightly(a, True, "query")),
    "lightly-byol-of-2023": Case("lightly", lambda a: old_lightly(a, False, "student")),
    "lightly-byol-of-2023-sequential": Case("lightly", lambda a: old_lightly(a, True, "student")),
    "lightly-dino-example": Case("lightly", lambda a: lightlys_dino(a, False)),
    "lightly-dino-example-sequential": Case("lightly", lambda a: lightlys_dino(a, True)),
    "torchvision": Case("torchvision", lambda a: dict(network(a).state_dict()), equal=("timm",), file="resnet18-f37072fd.pth"),
    "torchvision-example": Case(
        "torchvision",
        lambda a: {"epoch": 90, "arch": a, "state_dict": ddp(network(a).state_dict()), "best_acc1": torch.tensor(76.1), "optimizer": SGD},
        equal=("timm",),
        level="state_dict",
    ),
    "torchvision-reference": Case(
        "torchvision",
        lambda a: {"model": dict(network(a).state_dict()), "optimizer": SGD, "lr_scheduler": {}, "epoch": 89, "args": argparse.Namespace(lr=0.1),
                   "model_ema": under("module.", copied(network(a).state_dict())) | {"n_averaged": torch.tensor(3)}},
        equal=("timm",),
        level="model",
    ),
    "timm": Case("timm", lambda a: dict(network(a).state_dict()), file="timm_resnet18.pth"),
    "detectron2": Case("detectron2", detectron2, "resnet50", file="moco.pkl"),
    "msra": Case("msra", msra, "resnet50", file="R-50.pkl", truth=frozen, traits=CAFFE),
    "msra-openmmlab": Case("msra", lambda a: {"state_dict": net(a) | {"conv1.bias": torch.zeros(64)}}, "resnet50", file="resnet50_msra-5891d200.pth", traits=CAFFE),
    "openmmlab-caffe": Case("openmmlab-caffe", lambda a: {"state_dict": net(a)}, "resnet50", file="resnet50_caffe-788b5fa3.pth", traits=CAFFE | {"mean": [102.9801, 115.9465, 122.7717]}),
    "goyal19": Case("goyal19", goyal19, "resnet50", file="resnet50_in1k_supervised.pkl", truth=counted, traits=BGR, level="blobs"),
    "goyal19-towers": Case("goyal19", lambda a: goyal19(a, "_s0"), "resnet50", file="resnet50_jigsaw_in1k_pretext.pkl", truth=counted, traits=BGR, level="blobs"),
    "transformers": Case("transformers", lambda a: transformers(a, "resnet."), "resnet50", file="pytorch_model.bin"),
    "transformers-bare": Case("transformers", lambda a: transformers(a, ""), file="bare.bin"),
}  # fmt: skip


def write(case: Case, folder: Path, zipped: bool = True) -> Path:
    path = folder / case.file
    content = case.content(case.arch)
    if path.suffix == ".index" and "-tf2" in case.family:
        keys, graph = by_objects(content)
        bundle(path, {keys[name]: array for name, array in content.items()}, graph)
    elif path.suffix == ".index":
        bundle(path, content)
    elif case.family == "byol":
        with path.open("wb") as out:
            Dill(out, protocol=2).dump(content)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(content, protocol=4))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def tensors_in(case: Case) -> int:
    """How many tensors the level has that holds the state dict."""
    content = case.content(case.arch)
    if case.family == "byol":
        state = content["experiment_state"]
        return sum(
            len(leaves)
            for field in state
            for tree in (field if isinstance(field, tuple) and not hasattr(field, "keys") else [field])
            for leaves in tree.values()
        )
    for key in case.level.split("/") if case.level else ():
        content = content[key]
    if not case.level:
        content = content.get("state_dict", content.get("model", content))
    return sum(isinstance(value, torch.Tensor | np.ndarray) for value in content.values())  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_file_gives_back_its_backbone_and_is_proven(tmp_path: Path, name: str, deepmind: None) -> None:
    case = PUBLISHED[name]
    file, truth = write(case, tmp_path), case.truth(case.arch)
    forget()
    found = sources.backbone(file)
    assert (found.family, found.equal, found.arch) == (case.family, case.equal, case.arch)
    assert list(found.tensors) == list(truth) and all(torch.equal(found.tensors[k], truth[k]) for k in truth)
    assert (found.missing, found.traits) == ((), dict(sources.TRAITS) | case.traits)
    assert (
        found.matched + found.filled
        == len(truth)
        == {"resnet18": 120, "resnet50": 318}[case.arch] - (53 if case.truth is not net else 0)
    )
    assert found.matched + len(found.detector) + len(found.dropped) == tensors_in(case)
    proof = sources.prove(found)
    assert proof.keys() == {"source"} and proof["source"] < 1e-5
    report = sources.inspect(file)
    assert json.loads(json.dumps(report)) == report
    assert report["problem"] is None and report["dropped"] == found.dropped and report["equal"] == list(case.equal)
    for path in tmp_path.iterdir():
        path.unlink()


@pytest.mark.parametrize("name", ["moco-v2", "pixpro", "torchvision"])
def test_the_format_before_torch_1_6_is_the_same_file(tmp_path: Path, name: str) -> None:
    case = PUBLISHED[name]
    file = write(dataclasses.replace(case, arch="resnet18"), tmp_path, zipped=False)
    found = sources.backbone(file, arch="resnet18")
    assert found.family == case.family and all(torch.equal(found.tensors[k], v) for k, v in net().items())
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("name", "family"),
    [("moco-v1", "moco"), ("pixpro", "pixpro"), ("dino", "dino"), ("vissl-converted", "vissl"), ("simsiam", "simsiam"),
     ("simclrv2-pytorch", "simclrv2-pytorch"), ("detectron2", "detectron2"), ("mmpretrain", "mmselfsup")],
)  # fmt: skip
def test_a_state_dict_alone_in_safetensors_is_its_family(tmp_path: Path, name: str, family: str) -> None:
    case = PUBLISHED[name]
    arch = "resnet50" if name == "simclrv2-pytorch" else "resnet18"
    content = case.content(arch)
    for key in (case.level or ("model" if "model" in content else "state_dict")).split("/"):
        content = content[key]
    tensors = {k: torch.as_tensor(v).clone().contiguous() for k, v in content.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    found = sources.backbone(tmp_path / "model.safetensors")
    assert family in (found.family, *found.equal)
    assert all(torch.equal(found.tensors[k], v) for k, v in net(arch).items())


def test_what_wraps_every_key_is_taken_off(tmp_path: Path) -> None:
    state = under("module._orig_mod.", moco("resnet18", mlp=True)["state_dict"])
    torch.save(
        {"state_dict": {k.replace("_orig_mod.module.", "_orig_mod."): v for k, v in state.items()}}, tmp_path / "a.pth"
    )
    found = sources.backbone(tmp_path / "a.pth")
    assert found.family == "moco" and "has module._orig_mod.encoder_q.conv1.weight" in found.evidence


def test_a_part_that_was_compiled_is_read_as_if_it_had_not_been(tmp_path: Path) -> None:
    state = moco("resnet18", mlp=True)["state_dict"]
    compiled = {
        re.sub(r"(encoder_q\.|layer\d\.\d\.)(?=conv|bn|layer|downsample)", r"\1_orig_mod.", k): v
        for k, v in state.items()
    }
    assert "module.encoder_q._orig_mod.layer1.0._orig_mod.conv1.weight" in compiled
    torch.save({"state_dict": compiled}, tmp_path / "a.pth")
    found = sources.backbone(tmp_path / "a.pth")
    assert found.family == "moco" and "has module.encoder_q.conv1.weight" in found.evidence
    assert any(line.startswith("read without the '_orig_mod.' that torch.compile put into") for line in found.evidence)
    assert all(torch.equal(found.tensors[k], v) for k, v in net().items())
    torch.save({"net._orig_mod." + k: v for k, v in net().items()} | linear("head"), tmp_path / "b.pth")
    found = sources.backbone(tmp_path / "b.pth")
    assert (found.family, found.matched, list(found.dropped)) == ("generic", 120, ["head.weight", "head.bias"])


def test_keys_that_differ_in_what_was_compiled_alone_are_left_apart(tmp_path: Path) -> None:
    torch.save(prefixed("net.") | copied(prefixed("net._orig_mod.")), tmp_path / "two.pth")
    with pytest.raises(ValueError, match=r"net\._orig_mod\."):
        sources.backbone(tmp_path / "two.pth")


def test_the_order_that_safetensors_lose_is_said(tmp_path: Path) -> None:
    save_file({k: v.clone() for k, v in tonylins("resnet50")["state_dict"].items()}, tmp_path / "a.safetensors")
    report = sources.inspect(tmp_path / "a.safetensors")
    assert report["family"] == "torchvision" and "SimCLR after tonylins" in " ".join(report["notes"])
    assert sources.inspect(tmp_path / "a.safetensors", family="simclr-pytorch")["traits"]["std"] == [255.0] * 3


def test_the_order_in_the_header_of_safetensors_decides_nothing(tmp_path: Path) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in network("resnet18").state_dict().items()}
    files = [hollow(tmp_path / f"{turn}.safetensors", dict(sorted(shapes.items(), reverse=turn))) for turn in (0, 1)]
    reports = [sources.inspect(file) for file in files]
    assert [(report["family"], report["equal"]) for report in reports] == [("torchvision", ["timm"])] * 2
    assert reports[0]["evidence"] == reports[1]["evidence"] and reports[0]["traits"] == reports[1]["traits"]
    assert "safetensors keep no order" in " ".join(reports[1]["notes"])


def test_a_transfers_record_names_what_was_allowed_to_be_missing(tmp_path: Path) -> None:
    torch.save({k: v for k, v in net().items() if k != "layer4.1.bn2.bias"}, tmp_path / "hole.pth")
    about, source = journey.opened(str(tmp_path / "hole.pth"), None, "mini", allow_missing=["layer4.1.bn2.bias"])
    assert (about["allow_missing"], about["missing"]) == (["layer4.1.bn2.bias"], ["layer4.1.bn2.bias"])
    assert about["equal"] == list(PLAIN) and source.missing == ("layer4.1.bn2.bias",)
    with pytest.raises(ValueError, match="1 missing"):
        journey.opened(str(tmp_path / "hole.pth"), None, "mini")


def test_every_family_has_a_case() -> None:
    names = {row["name"] for row in families.listed()}
    assert {case.family for case in PUBLISHED.values()} <= names
    elsewhere = {"bench", "generic", "dino-student", "cmc", "mmseg"}
    assert names - {case.family for case in PUBLISHED.values()} == elsewhere


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="the system does not count bytes read")
def test_inspecting_reads_the_index_alone(tmp_path: Path) -> None:
    content = moco("resnet50", mlp=True)
    torch.save(content, tmp_path / "zip.pth")
    torch.save(content, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file({name: tensor.clone() for name, tensor in content["state_dict"].items()}, tmp_path / "flat.safetensors")

    def read() -> int:  # bytes, by read(2) and pread(2): proc(5), rchar
        return int(Path("/proc/self/io").read_text().partition("rchar:")[2].split()[0])

    for name in ("zip.pth", "old.pth", "flat.safetensors"):
        sources.inspect(tmp_path / name)
        before = read()
        assert sources.inspect(tmp_path / name)["matched"] == 318
        share = (read() - before) / (tmp_path / name).stat().st_size
        assert share < (0.04 if name == "old.pth" else 0.01), (name, share)


def test_moco_v2_says_its_variant_epochs_and_what_was_dropped(tmp_path: Path) -> None:
    found = sources.backbone(write(PUBLISHED["moco-v2"], tmp_path))
    assert (found.about["variant"], found.about["epochs"], found.about["method"]) == ("v2", 200, "moco")
    # 318 of the key encoder, two heads of two layers with weight and bias, queue and its pointer
    assert len(found.dropped) == 318 + 4 + 4 + 2
    assert set(found.dropped.values()) == {families.KEY_ENCODER, families.HEAD, "queue of negatives"}


def test_lightlys_dino_is_its_moving_average(tmp_path: Path) -> None:
    content = old_lightly("resnet18", sequential=False, online="student")
    state = {k: v for k, v in content["state_dict"].items() if "prediction_head" not in k}
    torch.save(content | {"state_dict": state}, tmp_path / "dino.ckpt")
    found = sources.backbone(tmp_path / "dino.ckpt")
    assert found.family == "lightly"
    assert torch.equal(found.tensors["conv1.weight"], state["backbone.conv1.weight"])


@pytest.mark.parametrize("contrast", [True, False])
@pytest.mark.parametrize(
    ("file", "jig", "family"),
    [
        ("MoCov2.pth", False, "pycontrast-moco"),
        ("moco_v2_200.pth", False, "pycontrast-moco"),
        ("InsDis.pth", False, "instdis"),
        ("InfoMin_800.pth", True, "infomin"),
        ("PIRL.pth", True, "pirl"),
    ],
)
def test_pycontrasts_files_without_a_momentum_encoder_are_what_their_name_says(
    tmp_path: Path, file: str, jig: bool, family: str, contrast: bool
) -> None:
    content = pycontrast("resnet18", jig=jig, mlp=family != "instdis", ema=False)
    torch.save(content if contrast else {"model": content["model"]}, tmp_path / file)
    report = sources.inspect(tmp_path / file)
    assert (report["family"], report["equal"], report["problem"]) == (family, [], None)
    assert report["about"].get("method") not in {"instdis", "pirl", "infomin"} - {family}


def test_an_ambiguous_file_names_no_method(tmp_path: Path) -> None:
    found = sources.backbone(write(PUBLISHED["moco-or-clsa-or-pcl"], tmp_path))
    assert "method" not in found.about
    assert any(line.startswith("clsa and pcl fit equally") for line in found.evidence)
    for name in ("pcl", "clsa", "moco"):
        said = sources.backbone(tmp_path / "checkpoint.pth", family=name)
        assert (said.family, said.equal, said.about["method"]) == (name, (), name)


def test_families_that_fit_equally_but_are_fed_differently_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = [row for row in families.FAMILIES if row.name == "simsiam"]
    rows = (*families.FAMILIES, dataclasses.replace(row, name="simsiam-of-caffe", input=families.CAFFE))
    monkeypatch.setattr(recognition, "FAMILIES", rows)
    file = write(PUBLISHED["simsiam"], tmp_path)
    for read in (sources.backbone, sources.inspect):
        with pytest.raises(ValueError, match="simsiam, simsiam-of-caffe fit equally: say which with --from"):
            read(file)
    assert sources.inspect(file, family="simsiam")["family"] == "simsiam"


def test_epoch_and_arguments_are_reported(tmp_path: Path) -> None:
    about = sources.inspect(write(PUBLISHED["pixpro"], tmp_path))["about"]
    assert about["epochs"] == 100
    assert about["arguments"] == {"amp_opt_level": "O1", "output_dir": "output", "pixpro_p": 2.0}
    torch.save(pic("resnet50") | {"epoch": 1955}, tmp_path / "pic.pth")
    about = sources.inspect(tmp_path / "pic.pth")["about"]  # of windows of 131,072 images: 200 epochs
    assert about["epoch"] == 1955 and "epochs" not in about
    about = sources.inspect(write(PUBLISHED["solo-learn"], tmp_path))["about"]
    assert about["epoch"] == 399 and about["arguments"] == {"method": "byol", "max_epochs": 400}


class AttributeDict(dict):
    """Stands for pytorch_lightning.utilities.parsing's, which pickles as a dict with a class."""


def test_arguments_are_read_from_what_lightning_and_omegaconf_keep_them_in(tmp_path: Path) -> None:
    omegaconf = pytest.importorskip("omegaconf", reason="omegaconf is not installed")
    said = {"method": "byol", "max_epochs": 400}
    for held in (AttributeDict(said), omegaconf.OmegaConf.create(said | {"optimizer": {"lr": 0.3}})):
        torch.save(solo("resnet18") | {"hyper_parameters": held}, tmp_path / "last.ckpt")
        report = sources.inspect(tmp_path / "last.ckpt")
        assert report["family"] == "solo-learn" and report["about"]["arguments"] == said


def test_dinos_student_is_there_for_who_asks(tmp_path: Path) -> None:
    case = dataclasses.replace(PUBLISHED["dino"], arch="resnet18")
    file = write(case, tmp_path)
    student = sources.backbone(file, family="dino-student").tensors
    assert torch.equal(student["layer1.0.conv1.weight"], net()["layer1.0.conv1.weight"] * 0.5)


def test_the_proof_fails_with_a_wrong_trait(tmp_path: Path) -> None:
    found = sources.backbone(write(PUBLISHED["msra"], tmp_path))
    wrong: list[dict[str, Any]] = [
        {"channel_order": "RGB"},
        {"mean": [0.0, 0.0, 0.0]},
        {"std": [58.395, 57.12, 57.375]},
        {"stride_in_1x1": False},
    ]
    for change in wrong:
        with pytest.raises(
            ValueError, match=r"in the layout of msra, fed as its publisher does, as in torchvision, found"
        ):
            sources.prove(dataclasses.replace(found, traits=found.traits | change))


def test_norms_folded_for_detectron_are_not_taken_for_msras_whose_stride_is_elsewhere(tmp_path: Path) -> None:
    """FAIR's benchmark writes them with the very names of MSRA's, and reads them with STRIDE_1X1: False."""
    folded = {key: value for key, value in msra("resnet50").items() if key not in ("conv1_b", "fc1000_w", "fc1000_b")}
    (tmp_path / "jigsaw.pkl").write_bytes(pickle.dumps({"blobs": folded}))
    with pytest.raises(ValueError, match="expected a ResNet of a known family"):
        sources.inspect(tmp_path / "jigsaw.pkl")


@pytest.mark.parametrize("name", ["simclrv2-pytorch", "transformers", "detectron2", "lightly-sequential"])
def test_the_proof_fails_if_two_tensors_are_exchanged(tmp_path: Path, name: str) -> None:
    found = sources.backbone(write(PUBLISHED[name], tmp_path))
    exchanged(found)
    for path in tmp_path.iterdir():
        path.unlink()


def exchanged(found: sources.Backbone) -> None:
    """The proof fails if two tensors of one shape have each other's place."""
    pairs = [("layer3.1.conv1.weight", "layer3.2.conv1.weight"), ("layer1.0.bn1.weight", "layer1.0.bn1.running_var")]
    for a, b in pairs if found.arch == "resnet50" else pairs[1:]:
        tensors = found.tensors | {a: found.tensors[b], b: found.tensors[a]}
        with pytest.raises(ValueError, match=r"found layer\d off by"):
            sources.prove(dataclasses.replace(found, tensors=tensors))


def test_byols_mapping_may_be_a_state_and_its_padding_is_torchvisions_at_odd_sides_alone(
    tmp_path: Path, deepmind: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "FlatMapping", Frozen)
    sys.modules["haiku._src.data_structures"].frozendict = Frozen  # type: ignore[attr-defined]
    (tmp_path / "byol.pkl").write_bytes(pickle.dumps(byol("resnet50"), protocol=4))
    found = sources.backbone(tmp_path / "byol.pkl")
    assert found.matched == 265 and torch.equal(found.tensors["conv1.weight"], net("resnet50")["conv1.weight"])
    exchanged(found)
    assert "TensorFlow's SAME" in " ".join(found.notes) and found.published is not None
    even = weights.photograph()[:96, :128]
    model = weights.reference(found.tensors, found.arch, found.traits)
    image = families.IMAGENET.of(np.ascontiguousarray(even))
    with pytest.raises(ValueError, match="layer1 off by"):
        weights.difference("at an even side", weights.stages(model, image), found.published(np.ascontiguousarray(even)))


@pytest.mark.parametrize(("outer", "number"), [("res_net50/~/", "_1"), ("byol/~/net/", ""), ("", "_1")])
def test_byols_network_is_proven_wherever_its_modules_are(
    tmp_path: Path, deepmind: None, monkeypatch: pytest.MonkeyPatch, outer: str, number: str
) -> None:
    def renamed(tensors: Tensors) -> tuple[dict[str, Any], dict[str, Any]]:
        stem = re.compile("(initial_conv|initial_batchnorm)")
        params, states = ({stem.sub(rf"\1{number}", k): v for k, v in part.items()} for part in keys(tensors))
        return tuple({k.replace("res_net50/~/", outer): v for k, v in part.items()} for part in (params, states))  # type: ignore[return-value]

    keys = haiku_keys
    monkeypatch.setattr(sys.modules[__name__], "haiku_keys", renamed)
    (tmp_path / "byol.pkl").write_bytes(pickle.dumps(byol("resnet50"), protocol=4))
    found = sources.backbone(tmp_path / "byol.pkl")
    assert found.matched == 265 and torch.equal(found.tensors["conv1.weight"], net("resnet50")["conv1.weight"])
    assert sources.prove(found)["source"] < 1e-4


def test_a_key_that_the_network_does_not_find_is_named(tmp_path: Path) -> None:
    index = tmp_path / "model.index"
    variables = tensorflow("resnet50", contrastive=False)
    bundle(index, {key.replace("/conv2d_1/", "/conv2d_01/"): value for key, value in variables.items()})
    with pytest.raises(ValueError, match=r"expected 'conv2d_1/kernel' in a file of simclr, found none"):
        sources.prove(sources.backbone(index))


def test_objects_of_the_training_code_are_named_and_not_needed(tmp_path: Path) -> None:
    sys.modules["yacs_of_2020"] = types.ModuleType("yacs_of_2020")
    node = type("CfgNode", (dict,), {"__module__": "yacs_of_2020"})
    sys.modules["yacs_of_2020"].CfgNode = node  # type: ignore[attr-defined]
    try:
        torch.save(pixpro("resnet18") | {"config": node(lr=1)}, tmp_path / "pixpro.pth")
    finally:
        del sys.modules["yacs_of_2020"]
    found = sources.backbone(tmp_path / "pixpro.pth")
    assert torch.equal(found.tensors["conv1.weight"], net()["conv1.weight"])
    assert "config: <yacs_of_2020.CfgNode>, opt: <argparse.Namespace>" in " ".join(found.evidence)


def test_of_many_objects_levels_and_texts_ten_are_named_and_the_others_counted(tmp_path: Path) -> None:
    many = {f"{number}{'x' * 500}": argparse.Namespace() for number in range(2000)}
    many |= {number: {} for number in range(2000)} | {f"text {number}": "y" * 500 for number in range(2000)}
    torch.save({"state_dict": net()} | many, tmp_path / "many.pth")
    evidence = sources.inspect(tmp_path / "many.pth")["evidence"]
    objects, levels = (line for line in evidence if line.endswith("1,990 more"))
    assert objects.count("x" * 70) == 10 and max(map(len, evidence)) < 1000
    assert levels.endswith(f": {', '.join(map(str, range(10)))}, 1,990 more")
    assert len(opened(tmp_path / "many.pth").words) < 30_000


# --- files with a .json beside them


def test_a_file_of_this_project_takes_its_traits_from_the_sidecar(tmp_path: Path) -> None:
    file = tmp_path / "backbone.pth"
    torch.save(net(), file)
    traits = dict(sources.TRAITS) | {"channel_order": "BGR", "mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0]}
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    sidecar = {"method": "moco", "variant": "v2", "epochs": 10, "traits": traits, "sha256": digest}
    (tmp_path / "backbone.json").write_text(json.dumps(sidecar))
    found = sources.backbone(file)
    assert (found.family, found.traits) == ("bench", traits) and sources.prove(found)["source"] < 1e-5
    assert found.about == {"method": "moco", "variant": "v2", "epochs": 10}
    assert found.licence is None

    origin = {"family": "msra", "licence": "CC-BY-SA-3.0", "notes": ["norms have no statistics"]}
    (tmp_path / "backbone.json").write_text(json.dumps(sidecar | {"source": origin}))
    found = sources.backbone(file)
    assert (found.licence, found.notes) == ("CC-BY-SA-3.0", ("norms have no statistics",))

    (tmp_path / "backbone.json").write_text(json.dumps(sidecar | {"traits": traits | {"std": [0, 1, 1]}}))
    with pytest.raises(ValueError, match="three positive std"):
        sources.backbone(file)
    (tmp_path / "backbone.json").write_text(json.dumps(sidecar | {"sha256": "0" * 64}))
    for read in (sources.backbone, sources.inspect):
        with pytest.raises(ValueError, match=r"backbone\.json describes .* one of the two was replaced"):
            read(file)
    (tmp_path / "backbone.json").write_text('{"somebody": "else\'s"}')
    assert sources.backbone(file).family == "torchvision"


@pytest.mark.parametrize(
    ("note", "message"),
    [
        ({"traits": [1]}, "expected the file's note on its traits to be JSON"),
        ({"traits": {"std": [0, 1, 1]}}, "three positive std"),
        ("[" * 100_000, None),
        ({"source": {"family": "msra"}}, None),
        ([1], None),
        (3, None),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_note_inside_a_file_is_checked_as_one_beside_it(tmp_path: Path, note: Any, message: str | None) -> None:
    text = json.dumps(note) if isinstance(note, dict | list) else note
    torch.save({"state_dict": net(), "meta": {"bench": text}}, tmp_path / "noted.pth")
    if message is None:
        assert sources.inspect(tmp_path / "noted.pth")["traits"] == dict(sources.TRAITS)
    else:
        with pytest.raises(ValueError, match=message):
            sources.inspect(tmp_path / "noted.pth")


@pytest.mark.parametrize("key", ["mean", "std"])
@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1" + "0" * 400, "1e6", "true"])
def test_traits_that_no_pixels_have_are_refused(tmp_path: Path, key: str, number: str) -> None:
    from safetensors.torch import save_file

    said = {"mean": "[1, 2, 3]", "std": "[1, 2, 3]"} | {key: f"[1, {number}, 3]"}
    traits = f'{{"mean": {said["mean"]}, "std": {said["std"]}}}'
    save_file(net(), tmp_path / "a.safetensors", {"traits": traits})
    for read in (sources.backbone, sources.inspect):
        with pytest.raises(ValueError, match=r"^expected traits .* three mean, three positive std .* found") as caught:
            read(tmp_path / "a.safetensors")
        assert len(str(caught.value)) < 600


def test_a_note_whose_arguments_are_a_number_is_inspected(tmp_path: Path) -> None:
    from safetensors.torch import save_file
    from typer.testing import CliRunner

    from bench import cli

    save_file(net(), tmp_path / "a.safetensors", {"traits": "{}", "arguments": "5"})
    result = CliRunner().invoke(cli.app, ["inspect", str(tmp_path / "a.safetensors")])
    assert result.exit_code == 0 and "arguments 5" in result.output, result.exception


def test_only_safetensors_carry_a_note(tmp_path: Path) -> None:
    note = {"traits": json.dumps(sources.TRAITS | {"channel_order": "BGR"}), "method": argparse.Namespace()}
    torch.save(net() | {"__metadata__": note}, tmp_path / "a.pth")
    found = sources.backbone(tmp_path / "a.pth")
    assert found.family == "torchvision" and found.traits["channel_order"] == "RGB"
    assert "beside it and not read: __metadata__" in found.evidence


def test_a_reports_json_has_neither_nan_nor_infinity(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from bench import cli

    said = {"best": float("nan"), "loss": float("inf"), "args": argparse.Namespace(margin=-float("inf"), lr=0.1)}
    torch.save({"state_dict": net(), **said}, tmp_path / "a.pth")
    result = CliRunner().invoke(cli.app, ["inspect", str(tmp_path / "a.pth"), "--json"])
    about = json.loads(result.stdout, parse_constant=lambda word: pytest.fail(word))["about"]
    assert (about["best"], about["loss"], about["arguments"]) == ("nan", "inf", {"margin": "-inf", "lr": 0.1})


def test_timms_and_transformers_configurations_tell_the_traits(tmp_path: Path) -> None:
    save_file({k: v.contiguous() for k, v in network("resnet18").state_dict().items()}, tmp_path / "model.safetensors")
    config = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.25, 0.5]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = sources.backbone(tmp_path / "model.safetensors")
    assert (found.family, found.equal) == ("timm", ()) and not any("mean and std" in note for note in found.notes)
    assert (found.traits["mean"], found.traits["std"]) == ([127.5] * 3, [127.5, 63.75, 127.5])
    (tmp_path / "config.json").write_text(json.dumps(config | {"architecture": "resnetaa18"}))
    assert "config.json says 'resnetaa18'" in sources.inspect(tmp_path / "model.safetensors")["problem"]

    save_file(
        {k: v.contiguous() for k, v in transformers("resnet50", "resnet.").items()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet", "downsample_in_bottleneck": True}))
    processor = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.25, 0.25, 0.25]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    found = sources.backbone(tmp_path / "model.safetensors")
    assert found.family == "transformers" and found.traits["stride_in_1x1"] and found.traits["std"] == [63.75] * 3
    assert sources.prove(found)["source"] < 1e-5
    for said, mean, std in (
        ({"do_rescale": False, "image_mean": [127.5] * 3, "image_std": [64] * 3}, [127.5] * 3, [64.0] * 3),
        ({"rescale_factor": 1 / 127.5, "image_mean": [1] * 3, "image_std": [1] * 3}, [127.5] * 3, [127.5] * 3),
        ({"rescale_factor": 1 / 255}, [123.675, 116.28, 103.53], [63.75] * 3),
        ({"rescale_factor": "1/255"}, [123.675, 116.28, 103.53], [63.75] * 3),
        ({"do_normalize": False}, [0.0] * 3, [255.0] * 3),
        ({"do_normalize": False, "do_rescale": False}, [0.0] * 3, [1.0] * 3),
    ):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor | said))
        found = sources.backbone(tmp_path / "model.safetensors")
        assert (found.traits["mean"], found.traits["std"]) == (mean, std)
    for nothing in ({}, {"image_mean": None, "image_std": [1, 1, 0]}):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(nothing))
        found = sources.backbone(tmp_path / "model.safetensors")
        assert found.traits["std"] == [58.395, 57.12, 57.375] and any("mean and std" in note for note in found.notes)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "resnet", "downsample_in_first_stage": True}))
    with pytest.raises(ValueError, match="expected downsample_in_first_stage False"):
        sources.backbone(tmp_path / "model.safetensors")


@pytest.mark.parametrize("arch", ["resnetaa50", "resnetblur18"])
def test_timms_antialiased_networks_which_have_the_same_tensors_are_refused_by_name(tmp_path: Path, arch: str) -> None:
    torch.save({"arch": arch, "state_dict": network("resnet18").state_dict(), "version": 2}, tmp_path / "last.pth.tar")
    assert f"the file says {arch!r}, which averages" in sources.inspect(tmp_path / "last.pth.tar")["problem"]
    with pytest.raises(ValueError, match=f"found that the file says '{arch}'"):
        sources.backbone(tmp_path / "last.pth.tar")


def test_pixpros_dilated_network_which_has_the_same_tensors_is_refused_by_name(tmp_path: Path) -> None:
    content = pixpro("resnet18")
    content["opt"].arch = "resnet18_16s"
    torch.save(content, tmp_path / "current.pth")
    assert "the file says 'resnet18_16s', which dilates" in sources.inspect(tmp_path / "current.pth")["problem"]


OPENMMLAB = {  # configurations as mmcv and mmengine write them into `meta`
    "config": "backbone = dict(style='caffe')\nimg_norm_cfg = dict(\n    mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0],"
    " to_rgb=False)\ncoder = dict(target_means=[0.0, 0.0, 0.0, 0.0])",
    "cfg": "model = dict(backbone=dict(style='caffe'), data_preprocessor=dict(\n    bgr_to_rgb=False,\n    mean=[\n        103.53,\n"
    "        116.28,\n        123.675,\n    ],\n    std=[\n        1.0,\n        1.0,\n        1.0,\n    ]))",
}


@pytest.mark.parametrize("key", OPENMMLAB)
def test_what_openmmlabs_configuration_says_of_pixels_and_strides_is_believed(tmp_path: Path, key: str) -> None:
    state = under("backbone.", net("resnet50")) | conv("neck.lateral_convs.0.conv") | conv("rpn_head.rpn_conv")
    torch.save({"meta": {"mmdet_version": "2.3.0", key: OPENMMLAB[key]}, "state_dict": state}, tmp_path / "caffe.pth")
    found = sources.backbone(tmp_path / "caffe.pth")
    assert found.traits == dict(sources.TRAITS) | CAFFE
    assert sources.prove(found)["source"] < 1e-5

    for text, traits in (
        (
            "img_norm_cfg = dict(mean=[0.5, 0.5, 0.5], std=[0.25, 0.25, 0.25])",
            {"mean": [127.5] * 3, "std": [63.75] * 3},
        ),
        ("a = dict(mean=[1.0, 2.0, 3.0], std=[1.0, 2.0, 3.0], to_rgb=True)\nb = dict(mean=[4.0, 5.0, 6.0])", {}),
        ("a = dict(mean=[1.0, 2.0, 3.0], std=[1.0, 2.0, 3.0])", {}),  # whose code says the order
        ("a = dict(mean=[1.0, 2.0], std=[...], to_rgb=True)", {}),
        (
            "a = dict(mean=[0, 0, 0], std=[1, 1, 1], to_rgb=False)",
            {"channel_order": "BGR", "mean": [0.0] * 3, "std": [1.0] * 3},
        ),
        ("a = dict(type='Normalize', mean=[0, 0, 0], std=[1, 1, 1])", {"mean": [0.0] * 3, "std": [255.0] * 3}),
    ):
        torch.save({"meta": {"cfg": text}, "state_dict": state}, tmp_path / "said.pth")
        assert sources.inspect(tmp_path / "said.pth")["traits"] == dict(sources.TRAITS) | traits, text


def test_what_stands_beside_the_weights_can_always_be_written(tmp_path: Path) -> None:
    odd = {"epochs": float("nan"), "method": "a\ud800", "seed": 2**70, "k\udfff": 1}
    torch.save({"state_dict": net(), **odd}, tmp_path / "odd.pth")
    about, _ = journey.opened(str(tmp_path / "odd.pth"), None, "mini")
    assert (about["epochs"], about["method"], about["seed"]) == ("nan", "a?", "an integer of more than 64 bits")
    json.dumps(about, ensure_ascii=False, allow_nan=False).encode()
    torch.save(net(), tmp_path / "noted.pth")
    digest = hashlib.sha256((tmp_path / "noted.pth").read_bytes()).hexdigest()
    traits = sources.backbone(tmp_path / "noted.pth").traits
    note = {"sha256": digest, "traits": traits, "epochs": float("inf"), "method": "\ud800", "data": [float("nan")]}
    (tmp_path / "noted.json").write_text(json.dumps(note))
    about, _ = journey.opened(str(tmp_path / "noted.pth"), None, "mini")
    assert (about["epochs"], about["method"], about["pretrain_data"]) == ("Infinity", "?", ["NaN"])
    json.dumps(about, ensure_ascii=False, allow_nan=False).encode()


def test_a_necks_and_heads_tensors_travel(tmp_path: Path) -> None:
    neck = {
        "backbone.fpn_lateral5.weight": torch.randn(4, 4, 1, 1),
        "proposal_generator.rpn_head.conv.bias": torch.ones(4),
    }
    torch.save(net() | under("detectron2/", neck), tmp_path / "aligned.pth")
    found = sources.backbone(tmp_path / "aligned.pth")
    assert found.matched == 120 and found.detector.keys() == neck.keys()
    assert all(torch.equal(found.detector[name], tensor) for name, tensor in neck.items())
    report = sources.inspect(tmp_path / "aligned.pth")
    assert report["detector"] == sorted(neck) and report["problem"] is None

    both = net() | under(weights.DETECTOR, found.detector)
    weights.save(both, "resnet18", found.traits, tmp_path / "aligned.pkl", to="detectron2")
    written = pickle.loads((tmp_path / "aligned.pkl").read_bytes())["model"]
    assert all(np.array_equal(written[name], tensor.numpy()) for name, tensor in neck.items())
    again = sources.backbone(tmp_path / "aligned.pkl")
    assert again.family == "detectron2" and all(torch.equal(again.detector[name], t) for name, t in neck.items())


def test_two_tensors_with_one_place_in_a_detector_are_refused(tmp_path: Path) -> None:
    content = {detectron2_name(k): v for k, v in net().items()}
    content |= {"fpn_lateral5.weight": torch.ones(4), "backbone.fpn_lateral5.weight": torch.zeros(4)}
    assert "1 unexpected (backbone.fpn_lateral5.weight)" in refusal(tmp_path, {"model": content})


@pytest.mark.parametrize("place", ["backbone.bottom_up.", "backbone.", "roi_heads."])
def test_a_second_backbone_is_no_part_of_a_detector(tmp_path: Path, place: str) -> None:
    first = {detectron2_name(k): v for k, v in net().items()}
    second = {place + k: v + 1 for k, v in first.items() if place != "roi_heads." or k.startswith("res5.")}
    assert f"{len(second)} unexpected ({next(iter(second))}, " in refusal(tmp_path, {"model": first | second})
    torch.save(net() | under("detectron2/", second), tmp_path / "ours.pth")
    assert f"{len(second)} unexpected" in str(sources.inspect(tmp_path / "ours.pth")["problem"])


def test_socos_neck_and_head_have_detectron2s_names_in_both_of_its_files(tmp_path: Path) -> None:
    state = soco("resnet18", fpn=True)["model"]
    torch.save({"model": state}, tmp_path / "soco.pth")
    found = sources.backbone(tmp_path / "soco.pth")
    for theirs, name in (
        ("neck.lateral_convs.0.conv.weight", "backbone.fpn_lateral2.weight"),
        ("neck.fpn_convs.3.bn.running_var", "backbone.fpn_output5.norm.running_var"),
        ("head.conv4.weight", "roi_heads.box_head.conv4.weight"),
        ("head.bn2.bias", "roi_heads.box_head.conv2.norm.bias"),
        ("head.fc1.bias", "roi_heads.box_head.fc1.bias"),
    ):
        assert torch.equal(found.detector[name], state[f"module.{theirs}"]), theirs
    assert len(found.detector) == 8 * 6 + 4 * 6 + 2

    short = {k.removeprefix("backbone.").removeprefix("roi_heads."): v for k, v in found.detector.items()}
    converted = {detectron2_name(k): v for k, v in net().items()} | short
    content = {"model": {k: v.numpy() for k, v in converted.items()}, "__author__": "Yue", "matching_heuristics": True}
    (tmp_path / "current_detectron2_Head.pkl").write_bytes(pickle.dumps(content))
    again = sources.backbone(tmp_path / "current_detectron2_Head.pkl")
    assert again.family == "detectron2" and again.detector.keys() == found.detector.keys()
    assert all(torch.equal(again.detector[name], tensor) for name, tensor in found.detector.items())


def test_a_detectors_tensors_that_are_views_of_one_another_are_not_multiplied_in_memory(tmp_path: Path) -> None:
    content = net()
    content |= {f"detectron2/x{i}": content["layer4.1.conv2.weight"] for i in range(30)}
    torch.save(content, tmp_path / "many.pth")
    with pytest.raises(ValueError, match=r"found 30 of 283,115,520 bytes together .* views of one another"):
        sources.backbone(tmp_path / "many.pth")


# --- coverage


def test_without_counters_265_tensors_are_a_whole_resnet50(tmp_path: Path) -> None:
    truth = counted("resnet50")
    torch.save(truth, tmp_path / "old.pth")
    assert sources.backbone(tmp_path / "old.pth").matched == 265
    truth["bn1.num_batches_tracked"] = torch.tensor(3)
    torch.save(truth, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="52 missing"):
        sources.backbone(tmp_path / "odd.pth")


def test_half_precision_and_transposed_storage_become_fp32(tmp_path: Path) -> None:
    truth = net()
    halves = {k: v.half() if v.is_floating_point() else v for k, v in truth.items()}
    halves["conv1.weight"] = halves["conv1.weight"].to(memory_format=torch.channels_last)
    save_file({k: v.contiguous() for k, v in halves.items()}, tmp_path / "half.safetensors")
    torch.save(halves, tmp_path / "half.pth")
    for name in ("half.pth", "half.safetensors"):
        found = sources.backbone(tmp_path / name).tensors
        assert all(
            found[k].dtype == (torch.float32 if v.is_floating_point() else torch.int64) for k, v in truth.items()
        )
        assert all(torch.equal(found[k], v.to(truth[k].dtype)) and found[k].is_contiguous() for k, v in halves.items())


def test_a_counter_that_fp16_could_not_hold_does_no_harm(tmp_path: Path) -> None:
    truth = net() | {"bn1.num_batches_tracked": torch.tensor(1_000_800)}
    torch.save({k: v.half() for k, v in truth.items()}, tmp_path / "half.pth")
    found = sources.backbone(tmp_path / "half.pth").tensors
    assert found["bn1.num_batches_tracked"] == 0 and torch.equal(found["bn1.bias"], truth["bn1.bias"].half().float())


def test_the_mean_of_several_checkpoints_is_a_network_though_its_counters_are_not_whole(tmp_path: Path) -> None:
    first, last = net(), net() | {"bn1.num_batches_tracked": torch.tensor(5006)}
    mean = {k: ((v.double() + last[k].double()) / 2).float() for k, v in first.items()}  # timm's avg_checkpoints.py
    torch.save(mean, tmp_path / "averaged.pth")
    assert mean["bn1.num_batches_tracked"] % 1 == 0.5
    assert sources.backbone(tmp_path / "averaged.pth").tensors["bn1.num_batches_tracked"] == 2506


def test_what_is_allowed_to_be_missing_is_named_and_new(tmp_path: Path) -> None:
    lost = ("layer4.1.bn2.bias", "layer4.1.conv2.weight")
    torch.save({k: v for k, v in net().items() if k not in lost}, tmp_path / "holes.pth")
    with pytest.raises(ValueError, match=r"2 missing \(layer4\.1\.conv2\.weight, layer4\.1\.bn2\.bias\)"):
        sources.backbone(tmp_path / "holes.pth")
    with pytest.raises(ValueError, match=r"1 missing \(layer4\.1\.bn2\.bias\)"):
        sources.backbone(tmp_path / "holes.pth", allow_missing=["*.conv2.weight"])
    found = sources.backbone(tmp_path / "holes.pth", allow_missing=["layer4.1.conv2.*", "layer4.1.bn2.bias"])
    assert found.missing == ("layer4.1.conv2.weight", "layer4.1.bn2.bias") and found.matched == 118
    assert sources.record(found)["allowed_missing"] == list(found.missing) and sources.prove(found) == {}
    assert not found.tensors["layer4.1.bn2.bias"].any()
    std = found.tensors["layer4.1.conv2.weight"].std().item()
    assert std == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)  # He et al., fan out
    report = sources.inspect(tmp_path / "holes.pth", allow_missing=["layer4.1.*2.*"])
    assert report["problem"] is None and report["missing"] == list(found.missing)


@pytest.mark.parametrize(
    "patterns", [["*"], ["layer4.*"], ["conv1.*", "bn1.*"], ["layer2.0.*", "layer2.1.*"], ["*.*.*.*"]]
)
def test_no_pattern_covers_a_stage(tmp_path: Path, patterns: list[str]) -> None:
    torch.save({k: v for k, v in net().items() if k != "layer4.1.bn2.bias"}, tmp_path / "hole.pth")
    for read in (sources.backbone, sources.inspect):
        with pytest.raises(ValueError, match="expected --allow-missing to name single tensors, found that"):
            read(tmp_path / "hole.pth", allow_missing=patterns)


# --- files of no known family


def prefixed(prefix: str, seed: int = 0) -> Tensors:
    return under(prefix, net(seed=seed))


def test_home_made_code_is_taken_with_a_warning_if_one_prefix_holds_a_resnet(tmp_path: Path) -> None:
    mine = prefixed("net.trunk.") | prefixed("net.trunk_ema.", 1) | prefixed("target_net.", 2)
    torch.save({"weights": mine | {"net.head.weight": torch.randn(2, 2)}, "step": 3}, tmp_path / "mine.pt")
    found = sources.backbone(tmp_path / "mine.pt")
    assert found.family == "generic" and found.matched == 120
    assert torch.equal(found.tensors["conv1.weight"], mine["net.trunk.conv1.weight"])
    assert any(line.startswith("warning:") for line in found.evidence)
    assert len(found.dropped) == 241


@pytest.mark.parametrize(
    ("outer", "prefix", "heads"),
    [
        ("state_dict", "encoder.", ("classifier",)),
        ("model", "backbone.", ("classifier",)),
        ("", "encoder.", ("projector.0", "projector.2")),
        ("", "backbone.", ("projector.0", "projector.2")),
        ("", "backbone.", ("projection_head.0",)),
        ("", "backbone.", ("head",)),
    ],
)
@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_home_made_names_that_frameworks_have_too_are_no_frameworks(
    tmp_path: Path, outer: str, prefix: str, heads: tuple[str, ...], form: str
) -> None:
    state = prefixed(prefix) | {k: v for head in heads for k, v in linear(head).items()}
    if form == "pth":
        torch.save({outer: state} if outer else state, tmp_path / "mine.pth")
    else:
        save_file({key: tensor.clone() for key, tensor in state.items()}, tmp_path / "mine.safetensors")
    report = sources.inspect(tmp_path / f"mine.{form}")
    assert (report["family"], report["matched"], report["problem"]) == ("generic", 120, None)
    assert any(line.startswith("warning:") for line in report["evidence"])


@pytest.mark.parametrize(
    ("first", "second", "head", "trained"),
    [
        ("query_backbone.", "backbone.", "projection_head", "query_backbone."),
        ("student_backbone.", "backbone.", "student_prediction_head", "student_backbone."),
        ("student_backbone.", "backbone.", "projection_head", "backbone."),
    ],
    ids=["MoCo", "BYOL", "DINO"],
)
def test_lightlys_file_without_lightnings_keys_is_read_right_where_it_is_asked_for(
    tmp_path: Path, first: str, second: str, head: str, trained: str
) -> None:
    state = prefixed(first) | prefixed(second, 1) | linear(f"{head}.layers.0")
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "old.ckpt")
    found = sources.backbone(tmp_path / "old.ckpt", family="lightly")
    assert found.matched == 120
    assert torch.equal(found.tensors["conv1.weight"], state[f"{trained}conv1.weight"])


@pytest.mark.parametrize("key", ["hyper_parameters", "callbacks"])
def test_any_key_of_lightnings_tells_a_framework_on_it(tmp_path: Path, key: str) -> None:
    state = prefixed("backbone.") | linear("projector.0") | linear("classifier")
    torch.save({"state_dict": state, "epoch": 1, key: {}}, tmp_path / "solo.ckpt")
    report = sources.inspect(tmp_path / "solo.ckpt")
    assert (report["family"], report["matched"]) == ("solo-learn", 120)
    assert f"has {key!r} beside the state dict" in report["evidence"]


@pytest.mark.parametrize("prefix", ["", "net."])
def test_the_children_of_a_home_made_resnet_in_a_sequential_are_taken_with_a_warning(
    tmp_path: Path, prefix: str
) -> None:
    state = {k: v for k, v in lightly("resnet18", True)["state_dict"].items() if k.startswith("backbone.")}
    children = {prefix + key.removeprefix("backbone."): tensor for key, tensor in state.items()}
    torch.save(children | linear(f"{prefix}9"), tmp_path / "children.pth")
    found = sources.backbone(tmp_path / "children.pth")
    assert (found.family, found.matched, len(found.dropped)) == ("generic", 120, 2)
    assert any(line.startswith("warning:") for line in found.evidence) and sources.prove(found)["source"] < 1e-5
    assert all(torch.equal(found.tensors[k], v) for k, v in net().items())


@pytest.mark.parametrize("prefix", ["module.", "module.net."])
def test_a_wrapped_network_beside_a_tensor_without_the_wrapper_is_generic(tmp_path: Path, prefix: str) -> None:
    averaged = prefixed(prefix) | {"n_averaged": torch.tensor(3)}  # torch.optim.swa_utils.AveragedModel
    torch.save({"state_dict": averaged}, tmp_path / "swa.pth")
    found = sources.backbone(tmp_path / "swa.pth")
    assert (found.family, found.matched, list(found.dropped)) == ("generic", 120, ["n_averaged"])
    assert f"120 tensors with prefix {prefix!r}, 1 dropped by name" in found.evidence
    assert all(torch.equal(found.tensors[k], v) for k, v in net().items())


def test_the_names_of_other_tensors_are_no_patterns(tmp_path: Path) -> None:
    others = {name: torch.ones(1) for name in ("*", "*.weight", "net.", "/")}
    torch.save(prefixed("net.") | others, tmp_path / "stars.pth")
    found = sources.backbone(tmp_path / "stars.pth")
    assert (found.family, found.matched, set(found.dropped)) == ("generic", 120, set(others))


def test_a_copy_beside_a_home_made_network_is_left_out_by_name(tmp_path: Path) -> None:
    torch.save({"net": under("student.", net()) | under("teacher.", copied(net())), "ema": net()}, tmp_path / "a.pth")
    report = sources.inspect(tmp_path / "a.pth")
    assert (report["family"], report["matched"]) == ("generic", 120)
    assert report["evidence"][-1].endswith(
        "prefix 'student.' is taken on trust, the only place that holds a ResNet, but for 'net: teacher.', 'ema: ', a copy by "
        "its name: where it is meant, save its state_dict() alone"
    )


@pytest.mark.parametrize("name", ["ema_model.", "net_k.", "target_encoder.", "model_ema/", "teacher/"])
def test_the_only_network_of_a_file_is_read_though_its_name_is_a_copys(tmp_path: Path, name: str) -> None:
    outer, _, prefix = name.rpartition("/")
    content = under(prefix, net())
    torch.save({outer: content} if outer else content, tmp_path / "a.pth")
    found = sources.backbone(tmp_path / "a.pth")
    assert (found.family, found.matched) == ("generic", 120)
    assert "by its name" in found.evidence[-1] and found.evidence[-1].endswith("a copy of the trained network")


def test_a_whole_pickled_network_in_a_dict_is_named(tmp_path: Path) -> None:
    assert "(its keys: 'net' <torch.nn.modules.linear.Linear>, 'epoch'): save the model's state_dict()" in refusal(
        tmp_path, {"net": torch.nn.Linear(2, 2), "epoch": 3}
    )


def test_a_keypoint_network_is_no_copy_by_its_name(tmp_path: Path) -> None:
    torch.save(prefixed("keypoint_net."), tmp_path / "a.pth")
    assert "copy" not in sources.backbone(tmp_path / "a.pth").evidence[-1]


@pytest.mark.parametrize("prefix", ["features.", "module.features."])
def test_a_resnet_as_a_sequence_called_features_is_no_alexnet(tmp_path: Path, prefix: str) -> None:
    names = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    whole = {
        f"{prefix}{names[key.partition('.')[0]]}.{key.partition('.')[2]}": v
        for key, v in net().items()
        if key[:2] != "fc"
    }
    torch.save(whole, tmp_path / "a.pth")
    found = sources.backbone(tmp_path / "a.pth")
    assert (found.family, found.matched) == ("generic", 120)
    assert all(torch.equal(found.tensors[key], value) for key, value in net().items() if key[:2] != "fc")


def test_a_file_that_its_family_does_not_fit_is_offered_to_be_read_without_one(tmp_path: Path) -> None:
    home_made = {"state_dict": under("encoder.0.", net() | {"fc.weight": torch.ones(3, 512), "fc.bias": torch.ones(3)})}
    assert refusal(tmp_path, home_made).endswith("of openselfsup? --from generic reads it on trust")
    assert sources.backbone(tmp_path / "refused.pth", family="generic").matched == 120
    assert "on trust" not in refusal(tmp_path, moco("resnet18", True), arch="resnet50")


@pytest.mark.timeout(60)
def test_forty_thousand_other_tensors_take_seconds(tmp_path: Path) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in prefixed("net.").items()}
    file = hollow(tmp_path / "many.safetensors", shapes | {f"h.{number}": (1,) for number in range(40_000)})
    report = sources.inspect(file)
    assert (report["family"], report["matched"], len(report["dropped"])) == ("generic", 120, 40_000)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", [".layer1", ".stages.1"])
def test_a_key_of_a_million_letters_takes_seconds(tmp_path: Path, part: str) -> None:
    file = hollow(tmp_path / "long.safetensors", {part * 130_000: (1,)})
    with pytest.raises(ValueError, match="expected a ResNet of a known family"):
        sources.inspect(file)


def test_ten_thousand_prefixes_that_look_like_networks_take_seconds(tmp_path: Path) -> None:
    one = torch.ones(1)
    parts = ("conv1.weight", "bn1.running_mean", "layer4.0.conv1.weight")
    told = refusal(tmp_path, {f"net{n}.{part}": one for n in range(10_000) for part in parts})
    assert "found several" in told


@pytest.mark.parametrize("keys", [("checkpoint", "model"), ("models/resnet",), ("", "a/b"), ("a/b",)])
def test_a_state_dict_two_deep_or_under_any_name_is_found(tmp_path: Path, keys: tuple[str, ...]) -> None:
    content: Any = net()
    for key in reversed(keys):
        content = {key: content, "epoch": 3}
    torch.save(content, tmp_path / "nested.pth")
    found = sources.backbone(tmp_path / "nested.pth")
    assert (found.family, found.matched) == ("generic", 120)
    assert f"the state dict is {'/'.join(keys)!r}" in found.evidence
    message = refusal(tmp_path, {"one": {"more": content}})
    assert message.endswith("(its keys: 'one'): save the model's state_dict(), alone or at most two dicts deep")


def test_a_copy_within_another_dict_or_of_another_name_is_no_candidate(tmp_path: Path) -> None:
    mine, other = prefixed("net."), prefixed("net.", 1)
    content = {"ema": mine, "weights": mine, "again": mine, "best": {"weights": other}}
    torch.save(content, tmp_path / "best.pth")
    found = sources.backbone(tmp_path / "best.pth")
    assert found.family == "generic" and torch.equal(found.tensors["conv1.weight"], mine["net.conv1.weight"])
    torch.save({"ema": {"weights": other}, "now": {"weights": mine}}, tmp_path / "best.pth")
    assert sources.inspect(tmp_path / "best.pth")["evidence"][0] == "the state dict is 'now/weights'"
    torch.save({"now": {"weights": mine}, "best": {"weights": other}}, tmp_path / "best.pth")
    with pytest.raises(ValueError, match=r"found several: 'now/weights: net\.', 'best/weights: net\.'"):
        sources.inspect(tmp_path / "best.pth")


def test_two_candidates_are_printed_and_none_is_taken(tmp_path: Path) -> None:
    torch.save({"state_dict": prefixed("student.") | prefixed("online.", 1)}, tmp_path / "two.pt")
    for read in (sources.backbone, sources.inspect):
        with pytest.raises(ValueError, match=r"found several: 'state_dict: student\.', 'state_dict: online\.'"):
            read(tmp_path / "two.pt")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("names", [("backbone.", "encoder.0."), ("net.", "online_encoder.net.")])
def test_a_network_that_a_file_names_twice_is_one(tmp_path: Path, names: tuple[str, str], zipped: bool) -> None:
    two = prefixed(names[0]) | prefixed(names[1]) | linear("projector.0") | linear("predictor.0")
    torch.save({"state_dict": two}, tmp_path / "twice.pt", _use_new_zipfile_serialization=zipped)
    found = sources.backbone(tmp_path / "twice.pt")
    assert found.family == "generic" and f"with the same tensors as {names[1]!r}" in found.evidence[-1]
    assert all(torch.equal(found.tensors[k], v) for k, v in net().items())
    two[f"{names[1]}layer4.1.bn2.weight"] = two[f"{names[1]}layer4.1.bn2.weight"].clone()
    torch.save({"state_dict": two}, tmp_path / "two.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match="found several"):
        sources.backbone(tmp_path / "two.pt")


def test_a_head_that_looks_like_a_backbone_is_not_dropped_silently(tmp_path: Path) -> None:
    torch.save(prefixed("net.") | {"net.layer5.0.conv1.weight": torch.randn(2, 2)}, tmp_path / "five.pt")
    with pytest.raises(ValueError, match=r"1 unexpected \(net\.layer5\.0\.conv1\.weight\)"):
        sources.backbone(tmp_path / "five.pt")
    assert sources.inspect(tmp_path / "five.pt")["unexpected"] == ["net.layer5.0.conv1.weight"]


def test_encoder_and_encoder_q_do_not_match_each_other(tmp_path: Path) -> None:
    content = moco("resnet18", mlp=True)
    decoys = under("module.encoder.", net())
    content["state_dict"] = collections.OrderedDict(decoys | content["state_dict"])
    torch.save(content, tmp_path / "both.pth")
    with pytest.raises(ValueError, match=r"0 missing, 120 unexpected \(module\.encoder\."):
        sources.backbone(tmp_path / "both.pth", family="moco")


def refusal(tmp_path: Path, content: Any, **options: Any) -> str:
    """The sentence, which ends with the file's name, without that."""
    file = tmp_path / "refused.pth"
    torch.save(content, file)
    with pytest.raises(ValueError) as caught:
        sources.backbone(file, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence and str(file) in sentence
    return sentence.removesuffix(f" (in {file})")


def test_a_wrong_family_is_answered_with_the_right_one(tmp_path: Path) -> None:
    assert refusal(tmp_path, pixpro("resnet18"), family="moco") == (
        "expected the tensors of a ResNet (a ResNet-50 has 318) under 'state_dict' with prefix 'module.encoder_q.': all"
        " missing; the file's keys look like 'module.encoder.conv1.weight'. Is this --from pixpro?"
    )
    home_made = {"state_dict": prefixed("backbone.")}
    assert refusal(tmp_path, home_made, family="moco").endswith("'backbone.conv1.weight'. Is this --from generic?")
    assert refusal(tmp_path, home_made, family="pixpr").endswith("found 'pixpr'. Did you mean 'pixpro'?")


def test_a_resnet18_is_not_a_resnet50(tmp_path: Path) -> None:
    message = refusal(tmp_path, net(), arch="resnet50")
    assert "expected a ResNet-50 (--arch resnet50), found a ResNet-18" in message
    assert "Did you mean 'resnet50'?" in refusal(tmp_path, net(), arch="resnet5")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer3.1.bn2.running_var": None}, "1 missing (layer3.1.bn2.running_var), 0 unexpected"),
        ({"layer1.0.extra.weight": torch.ones(1)}, "0 missing, 1 unexpected (layer1.0.extra.weight)"),
        (
            {"layer2.0.conv1.weight": torch.ones(128, 64, 1, 1)},
            "layer2.0.conv1.weight [128, 64, 1, 1] instead of [128, 64, 3, 3]",
        ),
        ({"bn1.bias": torch.full((64,), float("nan"))}, "found NaN or infinity in 'bn1.bias'"),
        ({"bn1.bias": torch.full((64,), float("-inf"))}, "found NaN or infinity in 'bn1.bias'"),
        ({"bn1.running_var": torch.zeros(64)}, "expected positive variances in 'bn1.running_var', found 0"),
        ({"layer2.0.conv1.weight": torch.zeros(128, 64, 3, 3)}, "found only zeros"),
        (
            {"bn1.weight": torch.ones(64, dtype=torch.int32)},
            "expected floating-point numbers, found 1 tensors of others (bn1.weight torch.int32)",
        ),
        ({"bn1.num_batches_tracked": torch.tensor(1e30)}, "expected a count of batches in 'bn1.num_batches_tracked'"),
        ({"conv1.weight": torch.ones(64, 2, 7, 7)}, "Sobel"),
        ({"conv1.weight": torch.ones(64, 1, 7, 7)}, "one input channel"),
        ({"conv1.weight": torch.ones(64, 3, 3, 3)}, "3x3 stem of CIFAR"),
        ({"conv1.weight": torch.ones(80, 3, 7, 7)}, "a stem of 80 channels"),
        (
            {
                "conv1.weight": None,
                "conv1.0.weight": torch.ones(64, 3, 3, 3),
                "conv1.6.weight": torch.ones(128, 64, 3, 3),
            },
            "a deep stem of 128 channels before stages that begin with 64",
        ),
        ({"conv1.weight": torch.ones(128, 3, 7, 7)}, "expected the shapes of a ResNet-18x2, found 99 others"),
        ({"layer1.0.conv2.weight": torch.ones(128, 4, 3, 3)}, "a ResNeXt: grouped"),
        ({"layer1.0.conv2.weight": torch.ones(128, 128, 3, 3)}, "instead of [64, 64, 3, 3]"),
        ({"layer4.2.conv1.weight": torch.ones(512, 512, 3, 3)}, "found basic blocks 2-2-2-3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_backbone_that_is_not_whole_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    content = {k: v for k, v in (network("resnet18").state_dict() | change).items() if v is not None}
    assert message in refusal(tmp_path, content)
    report = sources.inspect(tmp_path / "refused.pth")
    values = ("variances", "zeros", "NaN", "count of batches")  # inspect reads the index alone
    assert report["values"] == "not read"
    assert (report["problem"] is None) == any(word in message for word in values)


@pytest.mark.parametrize(("first", "second"), [("encoder1", "encoder2"), ("l_to_ab", "ab_to_l")])
def test_cmc_is_recognised_and_says_why_it_is_no_backbone(tmp_path: Path, first: str, second: str) -> None:
    one, two = ({**net(), "conv1.weight": torch.ones(64, channels, 7, 7)} for channels in (1, 2))
    state = ddp(under(f"{first}.", one) | under(f"{second}.", two) | linear("head1.0") | linear("head2.0"))
    content = {"model": state, "contrast": {"memory_1": torch.ones(3, 8)}, "optimizer": SGD, "epoch": 240}
    assert "found CMC's two networks, one for the L and one for the ab channels" in refusal(tmp_path, content)
    report = sources.inspect(tmp_path / "refused.pth")
    assert (report["family"], report["about"]["epochs"], report["traits"]["channel_order"]) == ("cmc", 240, "Lab")
    assert report["matched"] == 120 and len(report["dropped"]) == 124 and "neither sees RGB" in report["problem"]


def test_a_part_of_a_checkpoint_says_of_how_many(tmp_path: Path) -> None:
    for name in ("model-00002-of-00003.safetensors", "model-00001-of-00001.safetensors"):
        save_file({"fc.weight": torch.ones(1)}, tmp_path / name)
    with pytest.raises(ValueError, match=r"found part 2 of 3 in .*: save it in one file"):
        sources.inspect(tmp_path / "model-00002-of-00003.safetensors")
    with pytest.raises(ValueError, match="known family"):
        sources.inspect(tmp_path / "model-00001-of-00001.safetensors")


def test_a_whole_detector_of_detectron2_is_named_with_what_to_save_of_it(tmp_path: Path) -> None:
    prefix = "backbone.bottom_up."
    kept = {detectron2_name(key): tensor for key, tensor in net().items()}
    detector = {"model": under(prefix, kept) | conv("backbone.fpn_lateral2"), "iteration": 89999}
    told = refusal(tmp_path, detector)
    assert "found a whole detector of detectron2" in told and f"under '{prefix}' without that prefix" in told
    c4 = {f"{'roi_heads' if key.startswith('res5.') else 'backbone'}.{key}": tensor for key, tensor in kept.items()}
    assert refusal(tmp_path, {"model": c4 | conv("proposal_generator.rpn_head.conv")}) == told
    assert "of a C4 model, those under 'backbone.' and 'roi_heads.res5.'" in told
    torch.save({"model": kept}, tmp_path / "kept.pth")
    found = sources.backbone(tmp_path / "kept.pth")
    assert found.family == "detectron2" and all(torch.equal(found.tensors[k], v) for k, v in net().items())


def test_what_is_no_resnet_is_named(tmp_path: Path) -> None:
    one = torch.ones(1)
    vit = {"model": {"cls_token": torch.ones(1, 1, 8), "blocks.0.attn.qkv.weight": torch.ones(24, 8)}}
    assert "a vision transformer" in refusal(tmp_path, vit)
    mocov3_vit = {
        "state_dict": {"module.base_encoder.patch_embed.proj.weight": one, "module.momentum_encoder.norm.bias": one}
    }
    assert "a vision transformer" in refusal(tmp_path, mocov3_vit)
    botnet = {"stem.conv1.conv.weight": torch.ones(24, 3, 3, 3), "stages.3.1.self_attn.qkv.weight": one}
    assert "a hybrid of convolutions and attention" in refusal(tmp_path, botnet)
    rotnet = {"network": {"_feature_blocks.0.0.weight": torch.ones(64, 3, 11, 11), "_feature_blocks.8.1.weight": one}}
    assert "an AlexNet" in refusal(tmp_path, rotnet)
    deepcluster = {"state_dict": {"sobel.0.weight": one, "features.module.0.weight": torch.ones(96, 2, 11, 11)}}
    assert "an AlexNet or VGG" in refusal(tmp_path, deepcluster)
    selective = separius("resnet50") | {"head": {}}
    selective["resnet"] = {k: v for k, v in selective["resnet"].items() if ".net.2." not in k}
    selective["resnet"] |= {"net.1.blocks.0.net.2.main_conv.0.weight": torch.ones(128, 64, 3, 3)}
    assert "selective kernels (sk1)" in refusal(tmp_path, selective)
    bundle(
        tmp_path / "sk1.index",
        {f"base_model/conv2d{n}/kernel": np.ones((1, 1, 3, 3), np.float32) for n in ("", "_1")}
        | {
            "base_model/batch_normalization/gamma": np.ones(3, np.float32),
            "head_contrastive/nl_0/dense/kernel": np.ones(3, np.float32),
        },
    )
    assert "found 2: a SimCLRv2 network with selective kernels" in sources.inspect(tmp_path / "sk1.index")["problem"]
    clip = net("resnet50") | {f"conv{n}.weight": torch.ones(64, 64 if n > 1 else 3, 3, 3) for n in (1, 2, 3)}
    clip |= norm("bn2") | norm("bn3") | {"attnpool.positional_embedding": torch.ones(50, 8)}
    for prefix in ("", "visual."):  # alone, or beside the text's network
        assert "CLIP's ResNet, which pools by attention" in refusal(tmp_path, under(prefix, clip))
    groups = {k: v for k, v in net().items() if "running_" not in k and "tracked" not in k} | linear("fc")
    assert "found norms without statistics (GroupNorm" in refusal(tmp_path, groups)
    paddle = {k.replace("running_mean", "_mean").replace("running_var", "_variance"): v for k, v in net().items()}
    told = refusal(tmp_path, {k: v for k, v in paddle.items() if "tracked" not in k})
    assert "40 unexpected (bn1._mean, bn1._variance" in told and "GroupNorm" not in told
    assert "attention over channels (SE" in refusal(tmp_path, net() | linear("fc") | conv("layer1.0.se.fc1"))
    assert "keys look like 'a.weight'" in refusal(tmp_path, {"a.weight": one})
    assert "without any (its keys: 'epoch')" in refusal(tmp_path, {"epoch": 3})
    assert "without any (its keys: nothing)" in refusal(tmp_path, {})
    assert "found list" in refusal(tmp_path, [1])
    assert "save the model's state_dict() instead" in refusal(tmp_path, nn.Linear(1, 1))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    for zipped in (True, False):
        torch.save(moco("resnet18", mlp=True), tmp_path / "cut.pth", _use_new_zipfile_serialization=zipped)
        whole = (tmp_path / "cut.pth").read_bytes()
        for size in (len(whole) // 2, len(whole) - 1):
            (tmp_path / "cut.pth").write_bytes(whole[:size])
            with pytest.raises(ValueError, match="expected a whole"):
                sources.backbone(tmp_path / "cut.pth")


# --- wide and deep ones: names and shapes alone, in a file whose numbers are a hole


def hollow(path: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    """A safetensors file with these tensors, all zeros, that takes no room on the disk."""
    header, start = {}, 0
    for name, shape in shapes.items():
        size = 4 * int(np.prod(shape, dtype=np.int64))
        dtype = "I64" if name.endswith("num_batches_tracked") else "F32"
        size *= 2 if dtype == "I64" else 1
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, start + size]}
        start += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + start)
    return path


ARCHS = ["resnet34", "resnet101", "wide_resnet50_2", "resnet50x2", "resnet50c", "resnet50d", "resnet18d"]  # fmt: skip


@pytest.mark.parametrize("arch", ARCHS)
def test_wide_and_deep_ones_are_recognised_by_their_shapes(tmp_path: Path, arch: str) -> None:
    plan = resnets.arch(arch)
    head = {"projection_head.0.weight": (8, 8), "prototypes.weight": (8, 8)} if not plan.deep else {"fc.weight": (8, 8)}
    shapes = under("module.", {**resnets.shapes(plan), **head})  # type: ignore[arg-type]
    report = sources.inspect(hollow(tmp_path / "model.st.safetensors", shapes))
    assert report["problem"] is None and report["arch"] == arch
    assert report["traits"]["stem"] == ("3x3x3" if plan.deep else "7x7")
    assert report["family"] == ("timm" if plan.deep else "swav") and report["matched"] == len(resnets.shapes(plan))


def mmpretrain_name(name: str, pooled: bool) -> str:
    """Of a ConvModule in the stem; in V1d, of a shortcut without stride, which has no pooling before it."""
    stem = {"0": "0.conv", "1": "0.bn", "3": "1.conv", "4": "1.bn", "6": "2.conv"}
    if pooled and name.startswith("layer1.0.downsample."):
        return name.replace("downsample.1", "downsample.0").replace("downsample.2", "downsample.1")
    return re.sub(r"^conv1\.(\d)", lambda place: f"stem.{stem[place[1]]}", re.sub(r"^bn1\.", "stem.2.bn.", name))


def test_a_deep_stem_is_proven_in_all_of_its_layouts(tmp_path: Path) -> None:
    for arch in ("resnet18c", "resnet18d", "resnet50d"):
        model = resnets.network(resnets.arch(arch)).to_empty(device="cpu")
        torch.manual_seed(0)
        for name, tensor in model.state_dict().items():
            if tensor.dim() == 4:
                nn.init.kaiming_normal_(tensor)
            elif tensor.is_floating_point():
                tensor.uniform_(0.5, 1)
            else:
                tensor.zero_()
            assert name
        truth = dict(model.state_dict())
        openmmlab = {}
        for name, tensor in truth.items():
            stem = re.match(r"conv1\.(\d)\.", name)
            openmmlab[f"stem.{name.removeprefix('conv1.')}" if stem else re.sub(r"^bn1", "stem.7", name)] = tensor
        torch.save(truth, tmp_path / "timm.pth")
        torch.save({"state_dict": under("backbone.", openmmlab) | linear("head.fc"), "meta": {}}, tmp_path / "v1.pth")
        modules = {mmpretrain_name(name, arch == "resnet50d"): tensor for name, tensor in truth.items()}
        state = under("backbone.", modules) | linear("head.fc")
        torch.save({"state_dict": state, "meta": {"mmcls_version": "0.19.0"}}, tmp_path / "resnetv1d50_b32x8.pth")
        torch.save(modules | linear("head.fc"), tmp_path / "stripped.pth")  # as in open-mmlab/mmdetection issue 4050
        report = sources.inspect(tmp_path / "stripped.pth")
        assert (report["family"], report["arch"], report["problem"]) == ("mmpretrain", arch, None)
        for file, family in (("timm.pth", "timm"), ("v1.pth", "mmseg"), ("resnetv1d50_b32x8.pth", "mmpretrain")):
            found = sources.backbone(tmp_path / file)
            assert (found.family, found.arch, found.traits["stem"]) == (family, arch, "3x3x3")
            assert all(torch.equal(found.tensors[name], tensor) for name, tensor in truth.items())
            assert sources.prove(found)["source"] < 1e-5
        assert sources.backbone(tmp_path / "v1.pth", family="mmpretrain").arch == arch


# --- TensorFlow's checkpoints


def test_a_tensorflow_checkpoint_is_named_by_any_of_its_files_or_its_folder(tmp_path: Path) -> None:
    index = write(PUBLISHED["simclr"], tmp_path)
    shard = index.with_name(f"{index.stem}.data-00000-of-00001")
    digest = hashlib.sha256(index.read_bytes() + shard.read_bytes()).hexdigest()
    graph, prefix = index.with_suffix(".meta"), index.with_suffix("")
    graph.write_bytes(b"\n\4none")
    for named in (index, shard, graph, prefix, tmp_path):
        assert tensorbundle.index_of(named) == index and sources.inspect(named)["family"] == "simclr"
        assert journey.weights_file(str(named)) == index  # of transfer, sweep and report
    assert sha256(*tensorbundle.files(index)) == digest
    exchanged(sources.backbone(index))
    shard.rename(tmp_path / "elsewhere")
    assert sources.inspect(index)["matched"] == 265
    with pytest.raises(FileNotFoundError, match="data-00000-of-00001 beside the index"):
        sources.backbone(prefix)


def test_brackets_in_a_tensorflow_checkpoints_name_are_no_pattern(tmp_path: Path) -> None:
    index, shard = tmp_path / "model[1].index", tmp_path / "model[1].data-00000-of-00001"
    shard.touch()
    assert tensorbundle.files(index) == [index, shard]


def test_a_saved_model_is_named_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    index = write(PUBLISHED["simclr-tf2"], tmp_path / "variables")
    (tmp_path / "saved_model.pb").write_bytes(b"\x08\x01")
    for named in (tmp_path, tmp_path / "variables", index):
        assert tensorbundle.index_of(named) == index and sources.inspect(named)["family"] == "simclr-tf2"
    exchanged(sources.backbone(tmp_path))


def test_an_object_graph_that_is_damaged_too_large_or_ambiguous_takes_nothing_for_something_else(
    tmp_path: Path,
) -> None:
    index, shard = tmp_path / "a.index", tmp_path / "a.data-00000-of-00001"
    arrays = {name: np.full(2, i, np.float32) for i, name in enumerate(("b/conv2d_7/kernel", "b/conv2d_9/kernel", "c"))}
    keys, graph = by_objects(arrays)

    def read(graph: bytes) -> dict[str, list[float]]:
        bundle(index, {keys[name]: array for name, array in arrays.items()}, graph)
        return {name: entry.read().tolist() for name, entry in tensorbundle.read(index).items()}

    assert read(graph) == {"b/conv2d/kernel": [0, 0], "b/conv2d_1/kernel": [1, 1], "c": [2, 2]}
    bare = {keys[name]: array.tolist() for name, array in arrays.items()}
    twice = graph.replace(b"conv2d_9", b"conv2d_7")  # one name for two variables: neither has it
    assert read(twice) == {key: bare[key] for key in list(bare)[:2]} | {"c": [2, 2]}
    assert read(b"") == bare
    bundle(index, {}, graph)
    whole = shard.read_bytes()
    for place in range(0, len(whole), 3):
        shard.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"expected .*download it again$"):
            tensorbundle.read(index)
    shard.unlink()
    with pytest.raises(FileNotFoundError, match="beside the index"):
        tensorbundle.read(index)
    bundle(index, {}, bytes(tensorbundle.LARGEST_GRAPH))
    with pytest.raises(ValueError, match="bytes of object graph"):
        tensorbundle.read(index)
    bundle(index, {}, b"\x0a\xff")  # a message that goes on past the end
    with pytest.raises(ValueError, match="expected a whole index"):
        tensorbundle.read(index)


def test_an_index_that_is_no_file_is_none(tmp_path: Path) -> None:
    for name, made in {"pipe": os.mkfifo, "folder": os.mkdir}.items():
        (tmp_path / name).mkdir()
        made(tmp_path / name / "model.index")
        with pytest.raises(ValueError, match=rf"found that {tmp_path / name} is a directory: name the file inside it"):
            sources.inspect(tmp_path / name)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_a_distributed_checkpoint_of_torch_is_sent_through_torchs_own_converter(tmp_path: Path) -> None:
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint import format_utils

    folder, truth = tmp_path / "step-9", net()
    checkpoint.save({"model": truth}, checkpoint_id=folder)
    told = f"found a distributed one of torch in {folder}: .* {format_utils.__name__} dcp_to_torch {folder} FILE.pth"
    for named in (folder, *folder.glob("*.distcp")):
        with pytest.raises(ValueError, match=told):
            sources.inspect(named)
    format_utils.dcp_to_torch_save(folder, tmp_path / "FILE.pth")
    found = sources.backbone(tmp_path / "FILE.pth")
    assert all(torch.equal(found.tensors[k], truth[k]) for k in truth)


def test_damage_in_a_tensorflow_checkpoint_is_found(tmp_path: Path) -> None:
    index = tmp_path / "a.ckpt.index"
    bundle(index, {"v": np.arange(6, dtype=np.float32).reshape(2, 3), "w": np.arange(4096, dtype=np.int64)})
    found = tensorbundle.read(index)
    assert {name: entry.shape for name, entry in found.items()} == {"v": (2, 3), "w": (4096,)}
    assert found["v"].read().tolist() == [[0, 1, 2], [3, 4, 5]] and found["w"].read().tolist() == list(range(4096))
    whole = index.read_bytes()
    for place in range(len(whole)):
        index.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            tensors = tensorbundle.read(index)
        except ValueError as error:
            assert "\n" not in str(error)
        else:  # the padding of the footer, and the empty block of notes, carry nothing
            assert {name: entry.shape for name, entry in tensors.items()} == {"v": (2, 3), "w": (4096,)}
    for size in range(0, len(whole), 7):
        index.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="expected"):
            tensorbundle.read(index)
    index.write_bytes(whole)
    found = tensorbundle.read(index)
    shard = tmp_path / "a.ckpt.data-00000-of-00001"
    data = shard.read_bytes()
    shard.write_bytes(data[:30000] + bytes([data[30000] ^ 4]) + data[30001:])
    with pytest.raises(ValueError, match="'w' to match its checksum, found damage"):
        found["w"].read()
    shard.write_bytes(data[:30000])
    with pytest.raises(ValueError, match="the file ends before"):
        found["w"].read()


def table(index: Path, entries: list[tuple[bytes, int, bytes]], times: int = 1) -> Path:
    """A table of one block, named so many times; each entry a key, how much of it is the one's before, and a value."""

    def block(content: bytes) -> tuple[bytes, bytes]:
        content += struct.pack("<2I", 0, 1)
        crc = tensorbundle.masked(tensorbundle.crc32c(content + b"\0"))
        return content + b"\0" + struct.pack("<I", crc), varint(len(content))

    content = b"".join(
        varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        for key, shared, value in entries
    )
    data, size = block(content)
    handle = varint(0) + size
    top, length = block((b"\0\1" + varint(len(handle)) + b"z" + handle) * times)
    footer = (varint(0) + varint(0) + varint(len(data)) + length).ljust(40, b"\0")
    index.write_bytes(data + top + footer + struct.pack("<Q", tensorbundle.MAGIC))
    return index


HEADER = (b"", 0, b"\x08\x01")
VALUE = b"\x08\x01\x28\x04"  # float, four bytes
TABLES = {
    "a shape that is a number": ([HEADER, (b"v", 0, b"\x08\x01\x10" + varint(2**33))], 1),
    "an axis that is a number": ([HEADER, (b"v", 0, b"\x08\x01\x12\x06\x10" + varint(2**33))], 1),
    "an axis of bytes": ([HEADER, (b"v", 0, b"\x08\x01\x12\x05\x12\x03\x0a\x011")], 1),
    "a type that is bytes": ([HEADER, (b"v", 0, b"\x0a\x011")], 1),
    "a place that is bytes": ([HEADER, (b"v", 0, VALUE + b"\x22\x011")], 1),
    "a header of bytes": ([(b"", 0, b"\x0a\x011"), (b"v", 0, VALUE)], 1),
    "too many axes": ([HEADER, (b"v", 0, b"\x08\x01\x12" + varint(60_000) + b"\x12\x02\x08\x7f" * 15_000)], 1),
    "a long key": ([HEADER, (b"v" * 5000, 0, VALUE)], 1),
    "a long key that grows": ([HEADER, *((b"v" * n, n - 1, VALUE) for n in range(1, 5000))], 1),
    "many keys": ([HEADER, *((b"%06d" % n, 0, VALUE) for n in range(40_000))], 1),
    "a block named again and again": ([HEADER, (b"v", 0, VALUE)], 100_000),
}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", TABLES)
def test_an_index_that_lies_about_its_parts_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    read = tensorbundle.read(table(tmp_path / "a.index", [HEADER, (b"v", 0, VALUE), (b"vw", 1, VALUE)]))
    assert {name: entry.shape for name, entry in read.items()} == {"v": (), "vw": ()}
    index = table(tmp_path / "b.index", *TABLES[name])
    with pytest.raises(ValueError, match=r"^expected a whole index of a TensorFlow checkpoint, .* download it again$"):
        tensorbundle.read(index)


def test_the_checksum_is_rfc_3720s() -> None:
    assert tensorbundle.crc32c(b"123456789") == 0xE3069283  # the check value of CRC-32C
    for content, value in ((bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)):
        assert tensorbundle.crc32c(content) == value  # RFC 3720, B.4

    def bitwise(data: bytes) -> int:
        register = 0xFFFFFFFF
        for byte in data:
            register ^= byte
            for _ in range(8):
                register = (register >> 1) ^ (0x82F63B78 if register & 1 else 0)
        return register ^ 0xFFFFFFFF

    data = np.random.default_rng(0).bytes(20_000)
    for size in (0, 1, 64, 65, 4095, 4096, 4097, 9_999, 20_000):
        assert tensorbundle.crc32c(data[:size]) == bitwise(data[:size])


# --- the table


def test_the_list_has_every_family_once_with_its_traits() -> None:
    rows = families.listed()
    assert json.loads(json.dumps(rows)) == rows
    names = [row["name"] for row in rows]
    assert len(set(names)) == len(names)
    table = {row["name"]: row for row in rows}
    assert table["msra"]["traits"] == dict(sources.TRAITS) | CAFFE
    assert table["simclr"]["traits"] == dict(sources.TRAITS) | UNIT
    assert table["swav"]["traits"] == dict(sources.TRAITS) | SWAV
    assert table["moco"]["traits"] == dict(sources.TRAITS)
    assert all(form["prefix"] == "" or form["prefix"].endswith((".", "/")) for row in rows for form in row["forms"])


def test_listing_families_imports_no_torch() -> None:
    code = "import sys; from bench import families, sources; print(len(families.listed()), 'torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["False", "False"]


def test_a_lone_tensor_is_called_so(tmp_path: Path) -> None:
    torch.save(torch.ones(3), tmp_path / "to.pth")
    with pytest.raises(ValueError, match=r"expected a dict of tensors, found a single tensor in .*to\.pth"):
        sources.inspect(tmp_path / "to.pth")


def test_a_run_that_is_gone_on_with_is_no_file_of_weights(tmp_path: Path) -> None:
    run = {"method": "simclr", "recipe": {"mean": (0.0, 0.0, 0.0)}}
    torch.save({"run": run, "model": under("backbone.", net()), "optimiser": SGD}, tmp_path / "last.pth")
    with pytest.raises(ValueError, match=r"expected weights, found .*last\.pth.*: give backbone\.pth beside it"):
        sources.inspect(tmp_path / "last.pth")


@pytest.mark.parametrize("said", [{"act_layer": "silu"}, {"output_stride": 16, "num_classes": 10}])
def test_timms_arguments_that_make_another_network_are_refused(tmp_path: Path, said: dict[str, Any]) -> None:
    save_file({k: v.contiguous() for k, v in net().items()}, tmp_path / "model.safetensors")
    config = {"architecture": "resnet18", "pretrained_cfg": {}, "model_args": said}
    (tmp_path / "config.json").write_text(json.dumps(config))
    key, value = next(iter(said.items()))
    with pytest.raises(
        ValueError, match=f"expected timm's plain resnet18, found model_args {key}={value} in config.json"
    ):
        sources.backbone(tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_args": {"num_classes": 10, "in_chans": 3}}))
    assert sources.inspect(tmp_path / "model.safetensors")["problem"] is None


def test_timms_older_configuration_and_transformers_wrapper_of_timm_are_read(tmp_path: Path) -> None:
    fed = {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    file, config = tmp_path / "model.safetensors", tmp_path / "config.json"
    save_file({k: v.contiguous() for k, v in net().items()}, file)
    config.write_text(json.dumps({"architecture": "resnet18", "num_classes": 10, "first_conv": "conv1", **fed}))
    found = sources.inspect(file)
    assert (found["family"], found["traits"]["std"]) == ("timm", [63.75] * 3)
    config.write_text(json.dumps({"architecture": "resnetblur18", **fed}))
    assert "config.json says 'resnetblur18'" in sources.inspect(file)["problem"]

    save_file({f"timm_model.{k}": v.contiguous() for k, v in net().items()}, file)
    config.write_text(json.dumps({"model_type": "timm_wrapper", "architecture": "resnet18", "pretrained_cfg": fed}))
    backbone = sources.backbone(file)
    assert (backbone.family, backbone.traits["std"]) == ("timm", [63.75] * 3)
    assert sources.prove(backbone)["source"] < 1e-5


@pytest.mark.parametrize("name", ["resnetblur50-84f4748f.pth", "resnetaa50d_a1h-5a6d3d5c.pth"])
def test_timms_antialiased_networks_are_refused_by_the_names_of_their_files(tmp_path: Path, name: str) -> None:
    torch.save(net(), tmp_path / name)
    assert f"the file says '{name.partition('-')[0]}'" in sources.inspect(tmp_path / name)["problem"]


def test_home_made_files_are_of_no_family(tmp_path: Path) -> None:
    for name, content in {
        "mlp": under("encoder.", net()) | linear("head.0") | linear("head.2"),
        "epoch": {"model": under("encoder.", net()) | linear("head.0") | linear("head.2"), "epoch": 90},
        "base": under("base.", net()) | linear("fc"),
        "model": {"model": under("base.", net()) | linear("classifier"), "epoch": 3},
    }.items():
        torch.save(content, tmp_path / f"{name}.pth")
        found = sources.inspect(tmp_path / f"{name}.pth")
        assert (found["family"], found["licence"], found["problem"]) == ("generic", None, None), name
        assert "method" not in found["about"]


def test_the_licence_of_a_file_that_several_publish_is_each_publishers(tmp_path: Path) -> None:
    torch.save(net(), tmp_path / "resnet18.pth")
    found = sources.inspect(tmp_path / "resnet18.pth")
    assert found["licence"] == "BSD-3-Clause (torchvision), MIT (barlowtwins), MIT (vicreg), Apache-2.0 (dino)"


def test_the_order_of_keys_that_tells_simclr_is_said_to_be_all_that_does(tmp_path: Path) -> None:
    torch.save(tonylins("resnet18"), tmp_path / "a.pth")
    assert any("told by the order of the keys" in note for note in sources.inspect(tmp_path / "a.pth")["notes"])


@pytest.mark.parametrize("outer", [(), ("state_dict",)])
def test_a_tensor_that_is_no_plain_one_is_named(tmp_path: Path, outer: tuple[str, ...]) -> None:
    content: Any = dict(net()) | {"layer1.0.conv1.weight": net()["layer1.0.conv1.weight"].to_sparse()}
    torch.save({"state_dict": content, "epoch": 3} if outer else content, tmp_path / "a.pth")
    with pytest.raises(
        ValueError, match=r"no plain tensor there is not read \(layer1.0.conv1.weight <.*sparse.*dequantised"
    ):
        sources.backbone(tmp_path / "a.pth")


def test_where_no_weight_is_a_plain_tensor_that_is_said(tmp_path: Path) -> None:
    content = {k: v.to_sparse() if v.dim() else v for k, v in net().items()}  # as DTensors too, of FSDP2
    assert "no plain tensor there is not read (conv1.weight <" in refusal(tmp_path, content)


def test_what_stands_beside_a_state_dict_is_named(tmp_path: Path) -> None:
    trunk = {"trunk": under("_feature_blocks.", net()), "heads": linear("0.clf.0")}
    content = {"classy_state_dict": {"base_model": {"model": trunk, "loss": {}, "meters": {}}}, "iteration": 7}
    torch.save(content, tmp_path / "vissl.pth")
    (line,) = [line for line in sources.inspect(tmp_path / "vissl.pth")["evidence"] if "not read" in line]
    assert "classy_state_dict/base_model/model/heads" in line and "classy_state_dict/base_model/loss" in line
    torch.save({"state_dict": net(), "lost": torch.ones(3)}, tmp_path / "b.pth")
    assert "beside it and not read: lost" in sources.inspect(tmp_path / "b.pth")["evidence"]


def test_a_network_that_overflows_is_called_broken(tmp_path: Path) -> None:
    torch.save({k: v * 1e30 if v.dim() == 4 else v for k, v in net().items()}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="found infinity or NaN: the weights are broken"):
        sources.prove(sources.backbone(tmp_path / "a.pth"))


def test_a_backbone_of_views_of_one_small_tensor_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "VIEWS", 1000)
    one = torch.rand(512 * 512 * 9)
    tensors = {k: one[: v.numel()].view(v.shape) if v.dim() == 4 else v for k, v in net().items()}
    torch.save(tensors, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"expected the tensors of a backbone to lie in the file one by one"):
        sources.backbone(tmp_path / "a.pth")
