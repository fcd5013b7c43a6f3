"""Each family from a file in its authentic form, and every way in which a file can be the wrong one."""

import argparse
import collections
import copy
import hashlib
import json
import pickle
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from bench import sources


def resnet(arch: str = "resnet18", seed: int = 0) -> nn.Module:
    """torchvision's ResNet with BatchNorm statistics that differ from channel to channel."""
    torch.manual_seed(seed)
    model = getattr(torchvision.models, arch)()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 2)
            module.num_batches_tracked.fill_(7)
    return model


class MoCo(nn.Module):
    """The parts of moco/builder.py that have tensors."""

    def __init__(self, encoder: nn.Module, mlp: bool) -> None:
        super().__init__()
        dim = encoder.fc.in_features
        encoder.fc = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, 128)) if mlp else nn.Linear(dim, 128)
        self.encoder_q = encoder
        self.encoder_k = copy.deepcopy(encoder)
        for p in self.encoder_k.parameters():
            p.data.mul_(0.5)
        self.register_buffer("queue", torch.randn(128, 512))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))


class Projector(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear1, self.bn1, self.linear2 = nn.Conv2d(dim, 64, 1), nn.BatchNorm2d(64), nn.Conv2d(64, 32, 1)


class PixPro(nn.Module):
    """The parts of contrast/models/PixPro.py that have tensors, with the instance branch."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        dim = encoder.fc.in_features
        del encoder.fc
        self.encoder = encoder
        self.projector = Projector(dim)
        self.encoder_k = copy.deepcopy(encoder)
        self.projector_k = Projector(dim)
        self.value_transform = nn.Conv2d(32, 32, 1)
        self.projector_instance, self.projector_instance_k, self.predictor = (
            Projector(dim),
            Projector(dim),
            Projector(32),
        )


class SimSiam(nn.Module):
    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        dim = encoder.fc.in_features
        encoder.fc = nn.Sequential(nn.Linear(dim, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU())
        self.encoder = encoder
        self.predictor = nn.Sequential(nn.Linear(dim, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, dim))


def wrapped(model: nn.Module) -> dict[str, torch.Tensor]:
    return nn.DataParallel(model).state_dict()


def optimizer_state(model: nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.SGD(model.parameters(), 0.03, momentum=0.9)
    return optimizer.state_dict() | {"state": {0: {"momentum_buffer": torch.randn(3)}}}


def published(family: str, arch: str = "resnet18") -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A file's content in the family's authentic form, and the backbone it holds."""
    encoder = resnet(arch)
    truth = {k: v.clone() for k, v in encoder.state_dict().items() if not k.startswith("fc.")}
    if family in ("moco-v1", "moco-v2"):
        model: nn.Module = MoCo(encoder, mlp=family == "moco-v2")
        content = {"epoch": 200, "arch": arch, "state_dict": wrapped(model), "optimizer": optimizer_state(model)}
    elif family == "pixpro":
        model = PixPro(encoder)
        schedule = {"last_epoch": 3, "after_scheduler": {"T_max": 9}}
        content = {
            "opt": argparse.Namespace(amp_opt_level="O1", output_dir="output"),
            "model": wrapped(model),
            "optimizer": optimizer_state(model),
            "scheduler": schedule,
            "epoch": 100,
            "amp": {"loss_scaler0": {"loss_scale": 65536.0, "unskipped": 3}},
        }
    elif family == "pixpro-finetuned":
        content = {
            "model": {f"module.base.{k}": v for k, v in truth.items()} | {"module.fc.weight": torch.randn(5, 512)}
        }
    elif family == "simsiam":
        model = SimSiam(encoder)
        content = {"epoch": 100, "arch": arch, "state_dict": wrapped(model), "optimizer": optimizer_state(model)}
    elif family == "torchvision":
        content = dict(encoder.state_dict())
    else:
        raise AssertionError(family)
    return content, truth


def same(found: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(truth) and all(torch.equal(found[k], truth[k]) for k in truth)


PUBLISHED = ["moco-v1", "moco-v2", "pixpro", "pixpro-finetuned", "simsiam", "torchvision"]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("family", PUBLISHED)
def test_a_published_file_gives_back_its_backbone(tmp_path: Path, family: str, zipped: bool) -> None:
    content, truth = published(family)
    file = tmp_path / "checkpoint.pth.tar"
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    found = sources.backbone(file)
    assert found.family == family.removesuffix("-v1").removesuffix("-v2") and found.arch == "resnet18"
    assert same(found.tensors, truth) and found.matched == len(truth) == 120
    assert (found.missing, found.unexpected, found.traits) == ((), (), sources.TRAITS)
    assert found.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    level = content.get("state_dict", content.get("model", content))
    assert found.matched + len(found.dropped) == len(level)
    report = sources.inspect(file)
    assert json.loads(json.dumps(report)) == report
    assert report["problem"] is None and report["matched"] == 120 and report["dropped"] == found.dropped


def test_moco_v2_resnet50_has_318_tensors_and_the_query_encoder_is_taken(tmp_path: Path) -> None:
    content, truth = published("moco-v2", "resnet50")
    torch.save(content, tmp_path / "moco_v2_800ep_pretrain.pth.tar", _use_new_zipfile_serialization=False)
    found = sources.backbone(tmp_path / "moco_v2_800ep_pretrain.pth.tar", arch="resnet50")
    assert found.matched == len(truth) == 318 and same(found.tensors, truth)
    assert found.about["variant"] == "v2" and found.about["epochs"] == 200 and found.about["method"] == "moco"
    # 318 of the key encoder, two heads of two layers with weight and bias, queue and its pointer
    assert len(found.dropped) == 318 + 4 + 4 + 2
    assert set(found.dropped.values()) == {sources.KEY_ENCODER, sources.HEAD, "queue of negatives"}


def test_objects_of_the_training_code_are_named_and_not_needed(tmp_path: Path) -> None:
    content, truth = published("pixpro")
    sys.modules["yacs_of_2020"] = types.ModuleType("yacs_of_2020")
    node = type("CfgNode", (dict,), {"__module__": "yacs_of_2020"})
    sys.modules["yacs_of_2020"].CfgNode = node  # type: ignore[attr-defined]
    try:
        torch.save(content | {"config": node(lr=1)}, tmp_path / "pixpro.pth")
    finally:
        del sys.modules["yacs_of_2020"]
    found = sources.backbone(tmp_path / "pixpro.pth")
    assert same(found.tensors, truth)
    assert "config: <yacs_of_2020.CfgNode>, opt: <argparse.Namespace>" in " ".join(found.evidence)


def test_a_file_of_this_project_takes_its_traits_from_the_sidecar(tmp_path: Path) -> None:
    truth = {k: v for k, v in resnet().state_dict().items() if not k.startswith("fc.")}
    file = tmp_path / "backbone.pth"
    torch.save(truth, file)
    traits = sources.TRAITS | {"channel_order": "BGR", "mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0]}
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    sidecar = {"method": "moco", "variant": "v2", "epochs": 10, "traits": traits, "sha256": digest}
    (tmp_path / "backbone.json").write_text(json.dumps(sidecar))
    found = sources.backbone(file)
    assert (found.family, found.traits) == ("bench", traits) and same(found.tensors, truth)
    assert found.about == {"method": "moco", "variant": "v2", "epochs": 10}

    (tmp_path / "backbone.json").write_text(json.dumps(sidecar | {"traits": traits | {"std": [0, 1, 1]}}))
    with pytest.raises(ValueError, match="three positive std"):
        sources.backbone(file)
    (tmp_path / "backbone.json").write_text(json.dumps(sidecar | {"sha256": "0" * 64}))
    for read in (sources.backbone, sources.inspect):
        with pytest.raises(ValueError, match=r"backbone\.json describes .* one of the two was replaced"):
            read(file)
    (tmp_path / "backbone.json").write_text('{"somebody": "else\'s"}')
    assert sources.backbone(file).family == "torchvision"


def test_without_counters_265_tensors_are_a_whole_resnet50(tmp_path: Path) -> None:
    truth = {k: v for k, v in resnet("resnet50").state_dict().items() if not k.endswith("num_batches_tracked")}
    torch.save(truth, tmp_path / "old.pth")
    assert sources.backbone(tmp_path / "old.pth").matched == 265
    truth["bn1.num_batches_tracked"] = torch.tensor(3)
    torch.save(truth, tmp_path / "odd.pth")
    with pytest.raises(ValueError, match="52 missing"):
        sources.backbone(tmp_path / "odd.pth")


def test_half_precision_and_transposed_storage_become_fp32(tmp_path: Path) -> None:
    truth = {k: v for k, v in resnet().state_dict().items() if not k.startswith("fc.")}
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


def test_detectron2_names_map_back(tmp_path: Path) -> None:
    def renamed(name: str) -> str:  # the loop of MoCo's detection/convert-pretrain.py, as every converter has it
        if "layer" not in name:
            name = "stem." + name
        for t in (1, 2, 3, 4):
            name = name.replace(f"layer{t}", f"res{t + 1}")
        for t in (1, 2, 3):
            name = name.replace(f"bn{t}", f"conv{t}.norm")
        return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")

    model = resnet("resnet50")
    arrays = {renamed(k): v.numpy() for k, v in model.state_dict().items()}
    converted = {"model": arrays, "__author__": "MOCO", "matching_heuristics": True}
    (tmp_path / "moco.pkl").write_bytes(pickle.dumps(converted))
    found = sources.backbone(tmp_path / "moco.pkl")
    assert found.family == "detectron2" and found.arch == "resnet50"
    assert same(found.tensors, {k: v for k, v in model.state_dict().items() if not k.startswith("fc.")})
    assert found.dropped.keys() == {"stem.fc.weight", "stem.fc.bias"}


# --- files of no known family


def prefixed(prefix: str, seed: int = 0) -> dict[str, torch.Tensor]:
    return {prefix + k: v for k, v in resnet(seed=seed).state_dict().items() if not k.startswith("fc.")}


def test_home_made_code_is_taken_with_a_warning_if_one_prefix_holds_a_resnet(tmp_path: Path) -> None:
    net = prefixed("net.trunk.") | prefixed("net.trunk_ema.", 1) | prefixed("target_net.", 2)
    torch.save({"weights": net | {"net.head.weight": torch.randn(2, 2)}, "step": 3}, tmp_path / "mine.pt")
    found = sources.backbone(tmp_path / "mine.pt")
    assert found.family == "generic" and found.matched == 120
    assert torch.equal(found.tensors["conv1.weight"], net["net.trunk.conv1.weight"])
    assert any(line.startswith("warning:") for line in found.evidence)
    assert len(found.dropped) == 241


def test_two_candidates_are_printed_and_none_is_taken(tmp_path: Path) -> None:
    torch.save({"state_dict": prefixed("student.") | prefixed("online.", 1)}, tmp_path / "two.pt")
    for read in (sources.backbone, sources.inspect):
        with pytest.raises(ValueError, match=r"found several: 'state_dict: student\.', 'state_dict: online\.'"):
            read(tmp_path / "two.pt")


def test_a_head_that_looks_like_a_backbone_is_not_dropped_silently(tmp_path: Path) -> None:
    torch.save(prefixed("net.") | {"net.layer5.0.conv1.weight": torch.randn(2, 2)}, tmp_path / "five.pt")
    with pytest.raises(ValueError, match=r"1 unexpected \(net\.layer5\.0\.conv1\.weight\)"):
        sources.backbone(tmp_path / "five.pt")
    assert sources.inspect(tmp_path / "five.pt")["unexpected"] == ["net.layer5.0.conv1.weight"]


def test_encoder_and_encoder_q_do_not_match_each_other(tmp_path: Path) -> None:
    content, _ = published("moco-v2")
    decoys = {k.replace("encoder_q.", "encoder."): torch.zeros_like(v) for k, v in content["state_dict"].items()}
    decoys = {k: v for k, v in decoys.items() if k.startswith("module.encoder.") and ".fc." not in k}
    content["state_dict"] = collections.OrderedDict(decoys | content["state_dict"])
    torch.save(content, tmp_path / "both.pth")
    with pytest.raises(ValueError, match=r"0 missing, 120 unexpected \(module\.encoder\."):
        sources.backbone(tmp_path / "both.pth")


def refusal(tmp_path: Path, content: Any, **options: Any) -> str:
    torch.save(content, tmp_path / "refused.pth")
    with pytest.raises(ValueError) as caught:
        sources.backbone(tmp_path / "refused.pth", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_wrong_family_is_answered_with_the_right_one(tmp_path: Path) -> None:
    content, _ = published("pixpro")
    assert refusal(tmp_path, content, family="moco") == (
        "expected the 318 tensors of a ResNet-50 under 'state_dict' with prefix 'module.encoder_q.': 318 missing; the file's"
        " keys look like 'module.encoder.conv1.weight'. Is this --from pixpro?"
    )
    home_made = {"state_dict": prefixed("backbone.")}
    assert refusal(tmp_path, home_made, family="moco").endswith("'backbone.conv1.weight'. Is this --from generic?")
    assert refusal(tmp_path, home_made, family="pixpr").endswith("found 'pixpr'. Did you mean 'pixpro'?")


def test_a_resnet18_is_not_a_resnet50(tmp_path: Path) -> None:
    content, _ = published("torchvision")
    message = refusal(tmp_path, content, arch="resnet50")
    assert "expected a ResNet-50 (--arch resnet50), found a ResNet-18" in message
    assert "Did you mean 'resnet50'?" in refusal(tmp_path, content, arch="resnet5")


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
        ({"bn1.running_var": torch.zeros(64)}, "expected positive variances in 'bn1.running_var', found 0"),
        ({"layer2.0.conv1.weight": torch.zeros(128, 64, 3, 3)}, "found only zeros"),
        ({"bn1.weight": torch.ones(64, dtype=torch.int32)}, "expected floating-point numbers in 'bn1.weight'"),
        ({"conv1.weight": torch.ones(64, 2, 7, 7)}, "Sobel"),
        ({"conv1.weight": torch.ones(64, 1, 7, 7)}, "one input channel"),
        ({"conv1.weight": torch.ones(64, 3, 3, 3)}, "3x3 stem of CIFAR"),
        ({"conv1.weight": torch.ones(128, 3, 7, 7)}, "wide network: 128 channels after the stem, 2 times"),
        ({"layer1.0.conv2.weight": torch.ones(128, 128, 3, 3)}, "wide network"),
        ({"layer4.2.conv1.weight": torch.ones(512, 512, 3, 3)}, "found basic blocks 2-2-2-3"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_backbone_that_is_not_whole_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    state = published("torchvision")[0] | change
    content = {k: v for k, v in state.items() if v is not None}
    assert message in refusal(tmp_path, content)
    report = sources.inspect(tmp_path / "refused.pth")
    values = ("NaN", "variances", "zeros", "floating")  # inspect reads names and shapes, not values
    assert (report["problem"] is None) == any(word in message for word in values)


def test_what_is_no_resnet_is_named(tmp_path: Path) -> None:
    vit = {"model": {"cls_token": torch.ones(1, 1, 8), "blocks.0.attn.qkv.weight": torch.ones(24, 8)}}
    assert "a vision transformer" in refusal(tmp_path, vit)
    deep = {"conv1.0.weight": torch.ones(32, 3, 3, 3), "bn1.running_mean": torch.ones(64)}
    assert "a deep stem" in refusal(tmp_path, deep)
    assert "keys look like 'a.weight'" in refusal(tmp_path, {"a.weight": torch.ones(1)})
    assert "without any (its keys: 'epoch')" in refusal(tmp_path, {"epoch": 3})
    assert "without any (its keys: nothing)" in refusal(tmp_path, {})
    assert "found list" in refusal(tmp_path, [1])
    assert "save the model's state_dict() instead" in refusal(tmp_path, nn.Linear(1, 1))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    for zipped in (True, False):
        torch.save(published("moco-v2")[0], tmp_path / "cut.pth", _use_new_zipfile_serialization=zipped)
        whole = (tmp_path / "cut.pth").read_bytes()
        for size in (len(whole) // 2, len(whole) - 1):
            (tmp_path / "cut.pth").write_bytes(whole[:size])
            with pytest.raises(ValueError, match="expected a whole"):
                sources.backbone(tmp_path / "cut.pth")


# --- the table


def test_every_family_has_a_row_and_a_fixture() -> None:
    names = [name for name, _ in sources.SOURCES]
    assert len(set(names)) == len(names)
    tested = {"moco", "detectron2", "bench", "generic"} | set(PUBLISHED)
    assert set(names) <= tested
    assert all(source.prefix == "" or source.prefix.endswith(".") for source in sources.FAMILIES)


def test_listing_families_imports_no_torch() -> None:
    code = "import sys; from bench import sources; print(len(sources.SOURCES), 'torch' in sys.modules, 'numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[1:] == ["False", "False"]
