"""Names against detectron2's and mmsegmentation's own models, the proof against weights that were tampered with."""

import ast
import hashlib
import json
import logging
import pickle
import re
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

from bench import sources
from downstream import detection, resnets, segmentation, weights

TRAITS: dict[str, Any] = {
    "channel_order": "RGB",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "stem": "7x7",
    "stride_in_1x1": False,
}


def backbone(arch: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = getattr(torchvision.models, arch)()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.2, 0.6)
            module.bias.data.normal_(std=0.1)
            module.num_batches_tracked.fill_(7)
    return {k: v for k, v in model.state_dict().items() if not k.startswith("fc.")}


@pytest.fixture(scope="module")
def resnet18() -> dict[str, torch.Tensor]:
    return backbone("resnet18")


@pytest.fixture(scope="module")
def resnet50() -> dict[str, torch.Tensor]:
    return backbone("resnet50")


def made(arch: str, **more: bool) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The traits and tensors of a network of torchvision's, or of one with the deep stem."""
    if arch == "resnet50c":
        return TRAITS | {"stem": "3x3x3", **more}, deepened(backbone("resnet50"))
    return TRAITS | more, backbone(arch)


@pytest.mark.parametrize("arch", ["resnet18", "resnet101", "wide_resnet50_2", "resnet50c"])
def test_detectron2_is_the_same_function_with_the_keys_that_convert_prints(arch: str, tmp_path: Path) -> None:
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.modeling import build_backbone
    from detectron2.projects.deeplab import add_deeplab_config

    traits, tensors = made(arch)
    weights.save(tensors, arch, traits, tmp_path / "x.pkl", "detectron2")
    said = weights.usage(traits, arch, "detectron2")
    cfg = get_cfg()
    if said.startswith("detectron2.projects.deeplab.add_deeplab_config(cfg), then "):
        add_deeplab_config(cfg)
    cfg.merge_from_list([word for pair in re.findall(r"([A-Z][A-Z0-9_.]+) (\[.*?\]|[^,]+)", said) for word in pair])
    cfg.MODEL.RESNETS.NORM, cfg.MODEL.RESNETS.OUT_FEATURES = "BN", ["res2", "res3", "res4", "res5"]
    network = build_backbone(cfg)
    DetectionCheckpointer(network).load(str(tmp_path / "x.pkl"))
    image = torch.randn(1, 3, 65, 97)
    expected = weights.stages(weights.reference(tensors, arch, traits), image)
    with torch.no_grad():
        found = list(network.eval()(image).values())
    assert all(torch.allclose(a, b, atol=1e-4 * a.abs().max().item()) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("arch", ["resnet18", "resnet101", "resnet50c"])
def test_mmsegmentation_is_the_same_function_with_the_words_that_convert_prints(
    arch: str, inside: bool, tmp_path: Path
) -> None:
    from mmengine.runner import load_checkpoint
    from mmseg.registry import MODELS

    traits, tensors = made(arch, stride_in_1x1=inside)
    weights.save(tensors, arch, traits, tmp_path / "x.pth", "mmseg")
    said = weights.usage(traits, arch, "mmseg").partition(", mean=")[0]
    words = {k: ast.literal_eval(v) for k, v in (word.split("=") for word in said.split(", "))}
    network = MODELS.build(words | {"norm_cfg": {"type": "BN"}})
    load_checkpoint(network, str(tmp_path / "x.pth"), strict=True)
    network.eval()  # which gives nothing back there
    image = torch.randn(1, 3, 65, 97)
    expected = weights.stages(weights.reference(tensors, arch, traits), image)
    with torch.no_grad():
        found = network(image)
    assert all(torch.allclose(a, b, atol=1e-4 * a.abs().max().item()) for a, b in zip(expected, found, strict=True))


def test_names_are_those_of_checkpoints_in_detectron2s_zoo(resnet50: dict[str, torch.Tensor]) -> None:
    names = dict(zip(resnet50, weights.to_detectron2(resnet50), strict=True))
    assert len(set(names.values())) == 318
    assert names["conv1.weight"] == "stem.conv1.weight"
    assert names["bn1.running_mean"] == "stem.conv1.norm.running_mean"
    assert names["layer1.0.downsample.0.weight"] == "res2.0.shortcut.weight"
    assert names["layer1.0.downsample.1.running_var"] == "res2.0.shortcut.norm.running_var"
    assert names["layer2.1.bn2.bias"] == "res3.1.conv2.norm.bias"
    assert names["layer4.2.conv3.weight"] == "res5.2.conv3.weight"


def test_a_deep_stems_names_are_those_of_deeplab_and_of_mmsegmentation() -> None:
    from detectron2.projects.deeplab.resnet import DeepLabStem

    plan = resnets.arch("resnet50c")
    tensors = dict(resnets.network(plan).state_dict())
    stem = {name for name in weights.to_detectron2(tensors) if name.startswith("stem.")}
    assert stem == {f"stem.{name}" for name in DeepLabStem(norm="BN").state_dict()}
    for kind, model in (("resnet50c", "ResNetV1c"), ("resnet50d", "ResNetV1d")):
        tensors = dict(resnets.network(resnets.arch(kind)).state_dict())
        with torch.device("meta"):
            theirs = getattr(segmentation._mmseg(), model)(depth=50, norm_cfg={"type": "BN"}).state_dict()
        ours = weights.to_mmseg(tensors)
        assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    with pytest.raises(ValueError, match="one with average pooling"):
        weights.to_detectron2(tensors)


def test_a_name_that_is_no_backbones_is_refused(resnet18: dict[str, torch.Tensor]) -> None:
    for name in (
        "fc.weight",
        "encoder.conv1.weight",
        "layer5.0.conv1.weight",
        "my_layer1.0.conv1.weight",
        "conv11.weight",
    ):
        for convert in (weights.to_detectron2, weights.to_mmseg):
            with pytest.raises(ValueError, match="drop heads first"):
                convert(resnet18 | {name: torch.ones(1)})


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_three_frameworks_agree(arch: str, request: pytest.FixtureRequest) -> None:
    proof = weights.prove(request.getfixturevalue(arch), arch, TRAITS)
    assert proof.keys() == {"detectron2", "mmseg"} and max(proof.values()) < 1e-5


def drawn(arch: str) -> dict[str, torch.Tensor]:
    model = resnets.network(resnets.arch(arch)).to_empty(device="cpu")
    torch.manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.dim() == 4:
            nn.init.kaiming_normal_(tensor)
        elif tensor.is_floating_point():
            tensor.uniform_(0.5, 1)
        else:
            tensor.zero_()
    return dict(model.state_dict())


@pytest.mark.parametrize(
    ("arch", "frameworks"),
    [
        ("resnet18c", {"detectron2", "mmseg"}),
        ("resnet50d", {"mmseg"}),
        ("wide_resnet50_2", {"detectron2"}),
        ("resnet50x2", {"detectron2", "mmseg"}),
    ],
)
def test_wide_and_deep_networks_agree_where_a_framework_has_them(
    tmp_path: Path, arch: str, frameworks: set[str]
) -> None:
    traits = TRAITS | {"stem": resnets.arch(arch).stem}
    tensors = drawn(arch)
    proof = weights.prove(tensors, arch, traits)
    assert proof.keys() == frameworks and max(proof.values()) < 1e-5
    suffixes = {"detectron2": ".pkl", "mmseg": ".pth"}
    for framework in suffixes.keys() - frameworks:
        with pytest.raises(ValueError, match=f"a network that {framework} can build, found a {arch}"):
            weights.save(tensors, arch, traits, tmp_path / f"a{suffixes[framework]}", to=framework)
    assert list(tmp_path.iterdir()) == []


def test_the_photograph_is_fed_by_the_traits() -> None:
    image = weights.photograph()
    assert image.shape == (97, 129, 3) and image.dtype == np.uint8 and len(np.unique(image)) > 200
    rgb = weights.probe(TRAITS)[0].numpy()
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert np.allclose(rgb, ((image / 255 - mean) / std).transpose(2, 0, 1), atol=1e-5)
    caffe = TRAITS | {"channel_order": "BGR", "mean": [103.53, 116.28, 123.675], "std": [1.0] * 3}
    bgr = weights.probe(caffe)[0].numpy()
    assert np.allclose(bgr, (image[:, :, ::-1] - [103.53, 116.28, 123.675]).transpose(2, 0, 1), atol=1e-4)


def test_three_frameworks_agree_on_caffe_strides_and_bgr(resnet50: dict[str, torch.Tensor]) -> None:
    caffe = TRAITS | {
        "channel_order": "BGR",
        "mean": [103.53, 116.28, 123.675],
        "std": [1.0] * 3,
        "stride_in_1x1": True,
    }
    assert max(weights.prove(resnet50, "resnet50", caffe).values()) < 1e-5


def test_torchvisions_stages_are_those_of_its_own_feature_extractor(resnet18: dict[str, torch.Tensor]) -> None:
    model = weights.reference(resnet18, "resnet18", TRAITS)
    nodes = {f"layer{n}": f"layer{n}" for n in (1, 2, 3, 4)}
    image = weights.probe(TRAITS)
    with torch.no_grad():
        expected = create_feature_extractor(model, nodes)(image)
    for a, b in zip(expected.values(), weights.stages(model, image), strict=True):
        assert torch.equal(a, b)


def swapped(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """BatchNorm's mean and bias exchanged, as detectron2 does to a pickle that it takes for Caffe2's."""
    found = dict(tensors)
    for name in tensors:
        if name.endswith("bn1.running_mean"):
            other = name.replace("running_mean", "bias")
            found[name], found[other] = tensors[other], tensors[name]
    return found


TAMPERED = {
    "swapped statistics": swapped,
    "a zeroed layer": lambda t: t | {"layer4.1.conv2.weight": torch.zeros_like(t["layer4.1.conv2.weight"])},
    "a stage of random weights": lambda t: (
        t | {k: torch.randn_like(v) for k, v in t.items() if k.startswith("layer3.0.conv")}
    ),
    "channels in the other order": lambda t: t | {"conv1.weight": t["conv1.weight"].flip(1)},
}


@pytest.mark.parametrize("damage", TAMPERED)
@pytest.mark.parametrize(("module", "framework"), [(detection, "detectron2"), (segmentation, "mmseg")])
def test_the_proof_fails_if_a_framework_has_other_weights(
    monkeypatch: pytest.MonkeyPatch, resnet18: dict[str, torch.Tensor], module: Any, framework: str, damage: str
) -> None:
    features = module.features
    monkeypatch.setattr(module, "features", lambda t, *rest: features(TAMPERED[damage](t), *rest))
    with pytest.raises(ValueError, match=rf"in {framework} as in torchvision, found layer\d off by"):
        weights.prove(resnet18, "resnet18", TRAITS)


@pytest.mark.parametrize(("module", "framework"), [(detection, "detectron2"), (segmentation, "mmseg")])
def test_the_proof_fails_if_a_framework_strides_elsewhere(
    monkeypatch: pytest.MonkeyPatch, resnet50: dict[str, torch.Tensor], module: Any, framework: str
) -> None:
    features = module.features
    monkeypatch.setattr(module, "features", lambda t, a, i, traits: features(t, a, i, traits | {"stride_in_1x1": True}))
    with pytest.raises(ValueError, match=f"in {framework} as in torchvision, found layer2 off by"):
        weights.prove(resnet50, "resnet50", TRAITS)


def test_weights_that_say_nothing_prove_nothing(resnet18: dict[str, torch.Tensor]) -> None:
    dead = {k: torch.zeros_like(v) if ".bn" in k or k.startswith("bn") else v for k, v in resnet18.items()}
    with pytest.raises(ValueError, match="found zeros"):
        weights.prove(dead, "resnet18", TRAITS)
    with pytest.raises(ValueError, match="found infinity or NaN"):
        weights.prove(resnet18 | {"bn1.bias": torch.full((64,), torch.inf)}, "resnet18", TRAITS)
    with pytest.raises(ValueError, match="1 missing and 0 that do not fit, the first 'bn1"):
        weights.prove({k: v for k, v in resnet18.items() if k != "bn1.bias"}, "resnet18", TRAITS)
    with pytest.raises(ValueError, match="is this the right --arch"):
        weights.prove(resnet18, "resnet34", TRAITS)


# --- files


@pytest.mark.parametrize("config", ["C4", "FPN"])
def test_detectron2s_own_loader_lands_every_tensor(
    tmp_path: Path, resnet50: dict[str, torch.Tensor], config: str, caplog: pytest.LogCaptureFixture
) -> None:
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    weights.save(resnet50, "resnet50", TRAITS, tmp_path / "moco.pkl", to="detectron2")
    cfg = get_cfg()  # its defaults are Faster R-CNN R50-C4
    cfg.MODEL.DEVICE, cfg.MODEL.RESNETS.NORM = "cpu", "BN"
    if config == "FPN":
        cfg.MODEL.BACKBONE.NAME, cfg.MODEL.ROI_HEADS.NAME = "build_resnet_fpn_backbone", "StandardROIHeads"
        cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.RPN.IN_FEATURES = cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
        cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 1
        cfg.MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION = 2
    model = build_model(cfg)
    with caplog.at_level(logging.WARNING):
        DetectionCheckpointer(model).load(str(tmp_path / "moco.pkl"))
    state = model.state_dict()
    landed = 0
    for name, tensor in weights.to_detectron2(resnet50).items():
        if config == "FPN":
            home = f"backbone.bottom_up.{name}"
        else:
            home = f"roi_heads.{name}" if name.startswith("res5.") else f"backbone.{name}"
        landed += torch.equal(state[home], tensor)
    assert landed == 318


def test_mmengines_own_loader_lands_every_tensor(tmp_path: Path, resnet50: dict[str, torch.Tensor]) -> None:
    weights.save(resnet50, "resnet50", TRAITS, tmp_path / "moco.pth", to="mmseg")
    from mmengine.runner.checkpoint import _load_checkpoint

    models = segmentation._mmseg()
    model = models.ResNet(depth=50, norm_cfg={"type": "BN"})
    content = _load_checkpoint(str(tmp_path / "moco.pth"), map_location="cpu")
    assert content.keys() == {"state_dict", "meta"}
    model.load_state_dict(content["state_dict"], strict=True)
    assert all(torch.equal(tensor, resnet50[name]) for name, tensor in model.state_dict().items())


def deepened(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same network behind a stem of three convolutions."""
    stem = {"conv1.0.weight": torch.randn(32, 3, 3, 3), "conv1.3.weight": torch.randn(32, 32, 3, 3) / 10}
    stem["conv1.6.weight"] = torch.randn(64, 32, 3, 3) / 10
    norms = {
        f"conv1.{n}.{k[4:]}": t[:32] if t.dim() else t for n in (1, 4) for k, t in tensors.items() if k[:4] == "bn1."
    }
    return stem | norms | {name: tensor for name, tensor in tensors.items() if name != "conv1.weight"}


@pytest.mark.parametrize(
    ("name", "to", "family"),
    [
        ("a.pth", "torchvision", "bench"),
        ("a.safetensors", "torchvision", "bench"),
        ("a.pkl", "detectron2", "detectron2"),
        ("b.pth", "mmseg", "bench"),
        ("deep.pkl", "detectron2", "detectron2"),
        ("deep.pth", "mmseg", "bench"),
    ],
)
def test_a_written_file_is_read_back_with_its_traits(
    tmp_path: Path, resnet18: dict[str, torch.Tensor], name: str, to: str, family: str
) -> None:
    deep = name.startswith("deep")
    arch, tensors = ("resnet18c", deepened(resnet18)) if deep else ("resnet18", resnet18)
    traits = TRAITS | {"channel_order": "BGR", "mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0]}
    traits |= {"stem": "3x3x3"} if deep else {}
    about = {"method": "moco", "source": {"family": "moco", "licence": "MIT", "notes": ["converted"]}}
    proof = weights.save(tensors, arch, traits, tmp_path / name, to=to, about=about)
    assert proof.keys() == {"detectron2", "mmseg"}
    found = sources.backbone(tmp_path / name)
    assert (found.family, found.arch, found.traits, found.dropped) == (family, arch, traits, {})
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[k], v) for k, v in tensors.items())
    if name != "a.pth":  # a plain state dict has no room for more
        (tmp_path / f"{name}.json").unlink(missing_ok=True)
        alone = sources.backbone(tmp_path / name)
        assert (alone.family, alone.traits, alone.about) == (family, traits, found.about)
        assert (alone.licence, alone.notes) == ("MIT", ("converted",))
        assert not any("sha256" in line for line in alone.evidence)


def test_the_forms_are_the_frameworks(tmp_path: Path, resnet18: dict[str, torch.Tensor]) -> None:
    weights.save(resnet18, "resnet18", TRAITS, tmp_path / "a.pkl", to="detectron2")
    content = pickle.loads((tmp_path / "a.pkl").read_bytes())
    assert content.keys() == {"model", "__author__", "matching_heuristics", "bench"}
    assert json.loads(content["bench"]) == {"arch": "resnet18", "format": "detectron2", "traits": TRAITS}
    assert (content["__author__"], content["matching_heuristics"]) == ("transfer-bench", True)
    assert all(isinstance(array, np.ndarray) for array in content["model"].values())
    weights.save(resnet18, "resnet18", TRAITS, tmp_path / "a.safetensors", to="torchvision")
    assert load_file(tmp_path / "a.safetensors").keys() == resnet18.keys()
    weights.save(resnet18, "resnet18", TRAITS, tmp_path / "a.pth", to="torchvision")
    model = torchvision.models.resnet18()
    missing, unexpected = model.load_state_dict(torch.load(tmp_path / "a.pth"), strict=False)
    assert (missing, unexpected) == (["fc.weight", "fc.bias"], [])
    said = json.loads((tmp_path / "a.pth.json").read_text())
    assert said["traits"] == TRAITS and said["proof"].keys() == {"detectron2", "mmseg"}


def test_nothing_is_written_without_a_proof(
    tmp_path: Path, resnet18: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    for out, to, message in [
        ("a.pth", "detectron2", r"for detectron2 to end in \.pkl"),
        ("a.pkl", "mmseg", r"for mmseg to end in \.pth"),
        ("a.pth", "caffe", "expected one of torchvision, detectron2, mmseg"),
        ("", "torchvision", "end in"),
    ]:
        with pytest.raises(ValueError, match=message):
            weights.save(resnet18, "resnet18", TRAITS, tmp_path / out, to=to)
    features = detection.features
    monkeypatch.setattr(detection, "features", lambda t, *rest: features(swapped(t), *rest))
    with pytest.raises(ValueError, match="in detectron2"):
        weights.save(resnet18, "resnet18", TRAITS, tmp_path / "new" / "a.pkl", to="detectron2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "to"),
    [("a.pth", "torchvision"), ("a.safetensors", "torchvision"), ("a.pkl", "detectron2"), ("a.pth", "mmseg")],
)
def test_a_file_that_has_no_room_is_said_and_leaves_the_old_one(
    tmp_path: Path, resnet18: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, name: str, to: str
) -> None:
    (tmp_path / name).write_text("old")
    monkeypatch.setattr(weights, "prove", lambda *_: {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000, hard))
    try:
        with pytest.raises(
            OSError, match=rf"expected room for 45 MB in {tmp_path}, found none \(.*\): make room there"
        ):
            weights.save(resnet18, "resnet18", TRAITS, tmp_path / name, to=to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "old"


def test_notes_that_cannot_be_written_leave_the_old_file(
    tmp_path: Path, resnet18: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.pth").write_text("old")
    (tmp_path / "a.pth.json").mkdir()
    monkeypatch.setattr(weights, "prove", lambda *_: {})
    with pytest.raises(ValueError, match=r"a\.pth\.json is a directory"):
        weights.save(resnet18, "resnet18", TRAITS, tmp_path / "a.pth", to="torchvision")
    with pytest.raises(IsADirectoryError):
        weights.write({}, {}, tmp_path / "a.pth", "torchvision")
    (tmp_path / "a.pth.json").rmdir()
    with pytest.raises(TypeError, match="not JSON serializable"):
        weights.write({}, {"about": object()}, tmp_path / "a.pth", "torchvision")
    assert [p.name for p in tmp_path.iterdir()] == ["a.pth"] and (tmp_path / "a.pth").read_text() == "old"


def test_the_hash_taken_while_a_file_is_written_is_the_files(tmp_path: Path) -> None:
    tensors = {"conv1.weight": torch.randn(64, 3, 7, 7), "layer4.0.conv1.weight": torch.randn(2048, 512, 3, 3)}
    for out, to in (
        (tmp_path / "a.pth", "torchvision"),
        (tmp_path / "b.pkl", "detectron2"),
        (tmp_path / "c.pth", "mmseg"),
    ):
        weights.write(tensors, {}, out, to)
        said = json.loads(out.with_name(f"{out.name}.json").read_text())["sha256"]
        assert said == hashlib.sha256(out.read_bytes()).hexdigest()
