"""MoCo's FCN on mmsegmentation: its structure, its weights, its data, and whole runs on a few drawn images."""

import dataclasses
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torchvision
from mmcv.transforms import LoadImageFromFile
from PIL import Image
from torch import nn

from bench import journey
from downstream import check, segmentation, weights
from downstream.synthetic import synthesize
from downstream.task import Segmentation, digest, iterations, mini, protocol, second
from downstream.tasks.cityscapes_semantic import TASK
from downstream.tasks.voc_semantic import TASK as VOC

TINY = dataclasses.replace(
    TASK, name="tiny", crop=48, iterations=6, batch=2, channels=16, resize=(96, 96), precision="bf16", lr=0.02
)
TINY_VOC = dataclasses.replace(TINY, name="tiny_voc", dataset="voc", classes=21, resize=(64, 64))


@pytest.fixture(scope="module")
def resnet18() -> dict[str, torch.Tensor]:
    """Weights under torchvision's names, with norms that are not the identity."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return {k: v for k, v in model.state_dict().items() if not k.startswith("fc.")}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four training and two test images of coloured halves, of 80x60 pixels."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 4), ("val", 2)):
        images, labels = (tmp_path / "data/cityscapes" / kind / split / "town" for kind in ("leftImg8bit", "gtFine"))
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for i in range(count):
            label = np.zeros((60, 80), np.uint8)
            label[:, : 20 + 10 * i] = 10
            label[:5] = 255
            image = np.where(label[..., None] == 10, (200, 120, 40), (60, 60, 60)) + draw.integers(0, 40, (60, 80, 3))
            cv2.imwrite(str(images / f"town_{i}_leftImg8bit.png"), image.astype(np.uint8))
            cv2.imwrite(str(labels / f"town_{i}_gtFine_labelTrainIds.png"), label)
    return tmp_path / "data"


def run(task: Segmentation, tensors: Any, data: Path, out: Path, resume: bool = False) -> dict[str, Any]:
    return segmentation.run(task, tensors, segmentation.TRAITS, "resnet18", data, out, 0, resume)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_the_network_is_mocos_fcn_16s(arch: str) -> None:
    with torch.device("meta"):
        model = segmentation.network(TASK, arch).eval()
    assert model(torch.empty(1, 3, 768, 768, device="meta")).shape == (1, 19, 48, 48)
    for name, conv in model.backbone.named_modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            dilation = (2, 2) if name.startswith("layer4.") else (1, 1)
            assert conv.dilation == conv.padding == dilation, name
            if name.startswith("layer4."):
                assert conv.stride == (1, 1), name
    head = [
        m for m in model.decode_head.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d | nn.ReLU | nn.Dropout2d)
    ]
    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]
    assert [type(m) for m in head] == [nn.Conv2d, *kinds, *kinds]
    classifier = head[0]
    assert (classifier.kernel_size, classifier.out_channels) == ((1, 1), 19)
    for conv in (head[1], head[4]):
        assert (conv.out_channels, conv.kernel_size, conv.dilation, conv.padding) == (256, (3, 3), (6, 6), (6, 6))
        assert conv.bias is None
    assert not model.with_auxiliary_head
    assert all(p.requires_grad for p in model.parameters())


def test_macs_of_a_resnet_50_are_the_known_ones() -> None:
    # conv1 to conv4 and the 1x1 convolutions of a ResNet-50 at 224 are known: 4.09 GMAC in all with conv5 at stride 32
    at_224 = dataclasses.replace(TASK, crop=224, resize=(224, 224))
    with torch.device("meta"):
        backbone = segmentation.models.ResNet(depth=50)
        model = nn.Sequential(backbone)
    assert segmentation._forward_macs(model, 224, 224) / 1e9 == pytest.approx(4.09, abs=0.01)
    counted = segmentation.macs(at_224, "resnet50")
    assert counted["train"] > 3 * 4.09e9
    assert counted["train"] == 3 * segmentation._forward_macs(
        segmentation.network(at_224, "resnet50").to("meta"), 224, 224
    )


def test_features_equal_torchvisions(resnet18: dict[str, torch.Tensor]) -> None:
    reference = torchvision.models.resnet18().eval()
    reference.load_state_dict(resnet18, strict=False)
    image = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(image))))
        for ours, stage in zip(segmentation.features(resnet18, "resnet18", image), range(1, 5), strict=True):
            x = getattr(reference, f"layer{stage}")(x)
            assert (ours - x).abs().max() / x.abs().max() < 1e-5


def test_dilation_leaves_the_pretrained_weights_as_they_are(resnet18: dict[str, torch.Tensor]) -> None:
    model = segmentation.network(TINY, "resnet18")
    assert weights.land(model.backbone, weights.to_mmseg(resnet18)) == len(resnet18)
    landed = model.backbone.state_dict()
    assert landed.keys() == resnet18.keys()
    assert all(torch.equal(landed[name], resnet18[name]) for name in resnet18)


def test_weights_that_do_not_land_end_the_run_before_training(resnet18: dict[str, torch.Tensor], data: Path) -> None:
    lacking = {k: v for k, v in resnet18.items() if k != "layer3.0.conv1.weight"}
    for tensors, found in (
        (lacking, "layer3.0.conv1.weight"),
        (resnet18 | {"layer9.weight": torch.zeros(1)}, "layer9.weight"),
        (resnet18 | {"conv1.weight": torch.zeros(64, 3, 3, 3)}, "conv1.weight"),
    ):
        with pytest.raises(ValueError, match=found):
            run(TINY, tensors, data, data / "out")
    assert not (data / "out/last.pth").exists()


def test_loss_is_the_mean_cross_entropy_of_the_labelled_pixels() -> None:
    logits = torch.randn(2, 5, 8, 6, dtype=torch.float32)
    labels = torch.randint(0, 5, (2, 8, 6), dtype=torch.uint8)
    labels[0, :3] = 255
    terms = [
        -(logits[n, int(labels[n, y, x]), y, x] - logits[n, :, y, x].logsumexp(0))
        for n, y, x in (labels != 255).nonzero().tolist()
    ]
    assert segmentation.loss_of(logits, labels).item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-5)
    assert segmentation.loss_of(logits, torch.full_like(labels, 255)).item() == 0


def test_learning_rate_falls_tenfold_at_70_and_90_percent() -> None:
    rates = [segmentation.learning_rate(TASK, (63_000, 81_000), i) for i in (0, 62_999, 63_000, 80_999, 81_000, 89_999)]
    assert rates == pytest.approx([0.01, 0.01, 0.001, 0.001, 0.0001, 0.0001])
    warm = dataclasses.replace(TASK, warmup=4)
    assert [segmentation.learning_rate(warm, (9,), i) for i in range(5)] == pytest.approx(
        [0.0025, 0.005, 0.0075, 0.01, 0.01]
    )


def test_a_crop_keeps_image_and_labels_together_and_fills_with_mean_and_255(data: Path) -> None:
    pairs = segmentation._pairs(TINY, data, "train")
    crops = segmentation.Crops(dataclasses.replace(TINY, crop=100), segmentation.TRAITS, pairs, seed=3)
    sizes, first = set(), []
    for number in range(24):
        image, labels = crops(number)
        assert (image.shape, labels.shape, labels.dtype) == ((3, 100, 100), (100, 100), torch.uint8)
        # the blue half is class 10, the grey one class 0: blue (BGR 200) against grey (60)
        blue = image[2] > 0
        inner = labels != 255
        assert ((labels == 10) == blue)[inner].float().mean() > 0.95
        rows, columns = inner.any(1).nonzero().flatten(), inner.any(0).nonzero().flatten()
        assert (image[:, rows.max() + 1 :] == 0).all()
        assert (image[:, :, columns.max() + 1 :] == 0).all()
        sizes.add((int(rows.max()), int(columns.max())))
        first.append(bool(labels[rows.max(), 0] == 10))
    assert len(sizes) > 10  # random scale
    assert 4 < sum(first) < 20  # random flip
    again = segmentation.Crops(dataclasses.replace(TINY, crop=100), segmentation.TRAITS, pairs, seed=3)(7)
    assert all(torch.equal(a, b) for a, b in zip(again, crops(7), strict=True))
    epochs = [sorted(segmentation.order(3, e, 4).tolist()) for e in range(3)]
    assert epochs == [[0, 1, 2, 3]] * 3


def test_channels_come_in_the_order_of_the_weights() -> None:
    pixel = np.array([[[10, 20, 30]]], np.uint8)  # BGR
    traits = {"mean": [1.0, 2.0, 3.0], "std": [1.0, 2.0, 4.0]}
    assert segmentation._normalised(pixel, traits | {"channel_order": "RGB"}).ravel().tolist() == [29, 9, 1.75]
    assert segmentation._normalised(pixel, traits | {"channel_order": "BGR"}).ravel().tolist() == [9, 9, 6.75]


def test_a_killed_training_goes_on_to_the_same_weights(
    resnet18: dict[str, torch.Tensor], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(TINY, resnet18, data, tmp_path / "whole")
    assert set(whole["metrics"]) == {"mIoU"}
    assert 0 <= whole["metrics"]["mIoU"] <= 100
    assert whole["loaded"]["matched"] == len(resnet18)
    assert whole["loaded"]["missing"]
    assert all(name.startswith("decode_head.") for name in whole["loaded"]["missing"])
    assert whole["effective"] == {
        "batch": 2, "lr": 0.02, "iterations": 6, "norm": "BN", "world_size": 1, "precision": "bf16"
    }  # fmt: skip
    written = json.loads((tmp_path / "whole/metrics.json").read_text())
    per_class = [v for v in written.pop("IoU").values() if v is not None]
    assert len(written.pop("trained")) == 64
    assert written == whole
    assert np.mean(per_class) == pytest.approx(whole["metrics"]["mIoU"])

    monkeypatch.setattr(segmentation, "SAVE_SECONDS", 0)
    rate = segmentation.learning_rate

    def killed(task: Segmentation, steps: Any, iteration: int) -> float:
        if iteration == 3:
            raise KeyboardInterrupt
        return rate(task, steps, iteration)

    monkeypatch.setattr(segmentation, "learning_rate", killed)
    with pytest.raises(KeyboardInterrupt):
        run(TINY, resnet18, data, tmp_path / "killed")
    monkeypatch.setattr(segmentation, "learning_rate", rate)
    other = dataclasses.replace(TINY, lr=0.5)
    with pytest.raises(ValueError, match="another protocol"):
        run(other, resnet18, data, tmp_path / "killed", resume=True)
    resumed = run(TINY, resnet18, data, tmp_path / "killed", resume=True)
    assert resumed["metrics"] == whole["metrics"]
    states = [torch.load(tmp_path / run / "last.pth", weights_only=True) for run in ("whole", "killed")]
    assert [s["iteration"] for s in states] == [6, 6]
    assert all(torch.equal(states[0]["model"][k], states[1]["model"][k]) for k in states[0]["model"])
    moved = sum(not torch.equal(states[0]["model"][f"backbone.{k}"], v) for k, v in resnet18.items())
    assert moved == len(resnet18)  # nothing is frozen, norms included


def test_a_loss_that_is_not_finite_stops_with_rate_batch_and_iteration(data: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FloatingPointError, match=r"found (nan|inf) in iteration \d with learning rate 1e\+30 and batch 2"
    ):
        run(dataclasses.replace(TINY, lr=1e30), None, data, tmp_path / "out")


def test_found_counts_images_and_names_the_classes(data: Path) -> None:
    found = segmentation.found(TINY, data)
    assert (found["train"], found["test"]) == (4, 2)
    assert found["classes_present"] == ["road", "sky"]
    assert segmentation.found(TINY, data)["digest"] == found["digest"]
    label = data / "cityscapes/gtFine/val/town/town_0_gtFine_labelTrainIds.png"
    cv2.imwrite(str(label), np.ones((60, 80), np.uint8))
    assert segmentation.found(TINY, data)["digest"] != found["digest"]


def test_data_that_is_not_cityscapes_is_refused_by_name(data: Path, tmp_path: Path) -> None:
    root = data / "cityscapes"
    label = root / "gtFine/train/town/town_1_gtFine_labelTrainIds.png"
    with pytest.raises(FileNotFoundError, match="found no folder"):
        segmentation.found(TINY, tmp_path / "nowhere")
    cv2.imwrite(str(label), np.full((60, 80), 33, np.uint8))
    with pytest.raises(ValueError, match=r"found 33 in .*town_1_gtFine_labelTrainIds"):
        segmentation.found(TINY, data)
    cv2.imwrite(str(label), np.zeros((60, 81), np.uint8))
    with pytest.raises(ValueError, match=r"80x60 .* found 81x60 in .*town_1"):
        segmentation.found(TINY, data)
    cv2.imwrite(str(label), np.zeros((60, 80, 3), np.uint8))
    with pytest.raises(ValueError, match=r"one 8-bit channel .*town_1"):
        segmentation.found(TINY, data)
    label.write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"broken or foreign file.*town_1"):
        segmentation.found(TINY, data)
    label.unlink()
    with pytest.raises(FileNotFoundError, match=r"expected .*town_1.* take both archives"):
        segmentation.found(TINY, data)
    label.with_name("town_1_gtFine_labelIds.png").touch()
    with pytest.raises(FileNotFoundError, match="csCreateTrainIdLabelImgs"):
        segmentation.found(TINY, data)
    cv2.imwrite(str(label), np.zeros((60, 80), np.uint8))
    image = root / "leftImg8bit/train/town/town_2_leftImg8bit.png"
    image.write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"broken or foreign file.*town_2"):
        segmentation.found(TINY, data)
    (root / "leftImg8bit/val").rename(root / "leftImg8bit/test")
    with pytest.raises(FileNotFoundError, match=r"leftImg8bit/val"):
        segmentation.found(TINY, data)


def test_what_macos_and_editors_leave_behind_is_no_image_and_any_name_is_one(data: Path) -> None:
    root = data / "cityscapes"
    before = segmentation.found(TINY, data)
    for file in (
        "leftImg8bit/train/town/._town_1_leftImg8bit.png",
        "gtFine/train/town/._town_1_gtFine_labelTrainIds.png",
        "leftImg8bit/train/.trash/town_9_leftImg8bit.png",
    ):
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).write_bytes(b"Mac OS X")
    assert segmentation.found(TINY, data) == before
    for file in [*root.glob("leftImg8bit/train/town/town_1_*"), *root.glob("gtFine/train/town/town_1_*")]:
        file.rename(file.with_name(file.name.replace("town_1", os.fsdecode(b"t\xf6wn \n_1"))))
    after = segmentation.found(TINY, data)
    assert after["train"] == before["train"] and after["digest"] != before["digest"]
    image = root / "leftImg8bit/train/town/town_2_leftImg8bit.png"
    image.unlink()
    image.symlink_to("nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"expected the image .*town_2.*, found a link that leads nowhere: mend"
    ):
        segmentation.found(TINY, data)


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(("wrong", "words"), [((60, 80), "found 33 in"), ((80, 60), "80x60 pixels .* found 60x80 in")])
def test_a_wrong_label_map_that_was_not_checked_before_ends_the_run_by_name_when_its_turn_comes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str, wrong: tuple[int, int], words: str
) -> None:
    monkeypatch.setattr(segmentation, "CHECKED_MAPS", 1)
    label = data / f"cityscapes/gtFine/{split}/town/town_1_gtFine_labelTrainIds.png"
    cv2.imwrite(str(label), np.full(wrong, 33 if wrong == (60, 80) else 0, np.uint8))
    task = dataclasses.replace(TINY, iterations=2, skip_bad=2)
    assert segmentation.found(task, data)["train"] == 4
    with pytest.raises(ValueError, match=f"{words} .*{split}/town/town_1_gtFine_labelTrainIds"):
        run(task, None, data, tmp_path / "out")


def test_an_image_is_turned_as_mmsegmentation_turns_it_and_its_label_map_has_that_size(
    voc: Path, tmp_path: Path
) -> None:
    name = names_of(voc, "val")[0]
    image, label = voc / f"JPEGImages/{name}.jpg", voc / f"SegmentationClass/{name}.png"
    exif = Image.Exif()
    exif[274] = 6
    with Image.open(image) as picture:
        picture.convert("RGB").save(image, exif=exif)
    with Image.open(label) as picture:
        original = picture.copy()
    loaded = LoadImageFromFile().transform({"img_path": str(image)})["img"]
    assert loaded.shape[:2] == original.size != original.size[::-1]
    np.testing.assert_array_equal(segmentation._image(image), loaded)
    refused = "expected a label map of {1}x{0} pixels like its image, found {0}x{1} in .*".format(*original.size)
    crops = segmentation.Crops(TINY_VOC, segmentation.TRAITS, [(image, label)], 0)
    for look in (lambda: segmentation.found(TINY_VOC, voc.parent), lambda: crops(0)):
        with pytest.raises(ValueError, match=refused + name):
            look()
    original.transpose(Image.Transpose.ROTATE_270).save(label)
    assert segmentation.found(TINY_VOC, voc.parent)["test"] == 4
    assert crops(0)[1].shape == (48, 48)


def test_a_photograph_of_absurdly_many_pixels_is_a_broken_one(data: Path) -> None:
    image = data / "cityscapes/leftImg8bit/train/town/town_2_leftImg8bit.png"
    image.write_bytes(pixels_without_end(image.read_bytes()))
    for look in (lambda: segmentation.found(TINY, data), lambda: segmentation._image(image)):
        with pytest.raises(ValueError, match=r"broken or foreign file.*town_2"):
            look()
    assert segmentation.found(dataclasses.replace(TINY, skip_bad=1), data)["train"] == 4


def pixels_without_end(png: bytes) -> bytes:
    """A PNG whose header says 40,000 x 40,000."""
    header = png[12:16] + struct.pack(">II", 40_000, 40_000) + png[24:29]
    return png[:12] + header + struct.pack(">I", zlib.crc32(header)) + png[33:]


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_jpeg_that_ends_too_soon_is_named_though_opencv_fills_it_up(kept, tmp_path):
    image, chance = tmp_path / "a.jpg", np.random.default_rng(0)
    cv2.imwrite(str(image), chance.integers(0, 256, (60, 80, 3), np.uint8))
    whole = image.read_bytes()
    np.testing.assert_array_equal(segmentation._image(image), cv2.imread(str(image)))
    image.write_bytes(whole + b"trailing")
    np.testing.assert_array_equal(segmentation._image(image), cv2.imdecode(np.frombuffer(whole, np.uint8), 1))
    image.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ValueError, match=r"broken or foreign file: .*a\.jpg"):
        segmentation._image(image)


def test_the_mini_protocol_is_the_paper_seen_through_a_smaller_lens() -> None:
    small = mini(TASK)
    assert (small.crop, small.batch, small.lr, small.resize) == (153, 8, 0.005, (409, 204))
    assert segmentation._bounded(2048, 1024, small.resize) == (408, 204)
    assert segmentation._bounded(100, 50, small.resize) == (100, 50)


@pytest.mark.parametrize(
    "task, lr, passes, images, steps", [(TASK, 0.02, 24, 90, (135, 270)), (VOC, 0.005, 48, 144, (216, 750))]
)
def test_on_the_command_line_a_tuned_protocol_succeeds_the_mini_rules(
    task: Segmentation, lr: float, passes: float, images: int, steps: tuple[int, int]
) -> None:
    first, tuned = mini(task), journey.resolve(task.name, "mini", {})
    assert tuned == second(first) and tuned.name == f"{task.name}@mini.2" and digest(tuned) != digest(first)
    changed = {key for key, value in protocol(tuned).items() if value != protocol(first)[key]}
    assert changed == {"name", *task.tuned} and (tuned.lr, tuned.passes) == (lr, passes)
    assert (iterations(first, images)[0], iterations(tuned, images)[0]) == steps


def test_an_unknown_arch_stem_and_dataset_are_refused() -> None:
    with pytest.raises(ValueError, match="vgg16"):
        segmentation.network(TASK, "vgg16")
    with pytest.raises(ValueError, match="3x3x3"):
        segmentation.network(TASK, "resnet50", dict(segmentation.TRAITS) | {"stem": "3x3x3"})
    with pytest.raises(
        ValueError, match="'cityscapes' or 'voc', found 'ade20k': another dataset first needs its size in IMAGE"
    ):
        dataclasses.replace(TASK, dataset="ade20k")


def test_another_number_of_classes_than_the_datasets_is_refused_before_a_training() -> None:
    for task, expected in ((TINY, "19 classes of cityscapes"), (TINY_VOC, "21 classes of voc")):
        with pytest.raises(ValueError, match=f"^expected the {expected}, found 20: leave classes"):
            segmentation.found(dataclasses.replace(task, classes=20), Path())


def test_a_precision_that_no_run_would_have_is_refused_before_a_training(data: Path) -> None:
    with pytest.raises(ValueError, match=r"expected precision fp32 or bf16 in .*, found 'fp16': correct"):
        segmentation.found(dataclasses.replace(TINY, precision="fp16"), data)


# PASCAL VOC


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("drawn")
    synthesize(out, voc=4, coco=0, cityscapes=0, imagenet=0, side=96)
    return out / "VOC2012"


@pytest.fixture
def voc(drawn: Path, tmp_path: Path) -> Path:
    """Four images of trainaug, of which VOC's train has three; the fourth has a map only in SegmentationClassAug."""
    root = tmp_path / "data/VOC2012"
    shutil.copytree(drawn, root)
    lists = root / "ImageSets/Segmentation"
    names = (lists / "trainaug.txt").read_text().split()
    assert len(names) == 4
    (lists / "train.txt").write_text("\n".join(names[:3]))
    (root / "SegmentationClass" / f"{names[3]}.png").unlink()
    return root


def names_of(root: Path, split: str) -> list[str]:
    return (root / f"ImageSets/Segmentation/{split}.txt").read_text().split()


def test_protocols_with_results_keep_their_digests() -> None:
    assert digest(second(mini(TASK)))[:12] == "6aab2a487e9e"
    assert digest(TASK) == "72ef05d41b876322f21e3c1fa2a18075811ded984ba8ad9763c70236aa71d118"
    assert digest(mini(TASK)) == "88db888675ed3a8d0cd9bd95b53f950019bef2324eae459ceb37a2417d2e7df9"


def test_voc_is_mocos_appendix_a5_and_mini_its_smaller_lens() -> None:
    paper = (VOC.classes, VOC.crop, VOC.batch, VOC.lr, VOC.weight_decay, VOC.ratio, VOC.channels, VOC.dilation)
    assert paper == (21, 513, 16, 0.003, 1e-4, (0.5, 2.0), 256, 6)
    assert VOC.resize is None and VOC.trials == 5  # tested in the original size
    assert iterations(VOC, 10_582) == (30_000, (21_000, 27_000))
    small = mini(VOC)
    assert (small.crop, small.batch, small.lr, small.resize) == (102, 8, 0.0015, (100, 100))
    assert segmentation._bounded(500, 375, small.resize) == (100, 75)
    assert len(segmentation.CLASSES["voc"]) == 21
    with torch.device("meta"):
        assert segmentation.network(VOC, "resnet50").decode_head.conv_seg.out_channels == 21


def test_voc_trains_on_trainaug_and_tests_on_val(voc: Path) -> None:
    found = segmentation.found(TINY_VOC, voc.parent)
    assert (found["train"], found["test"]) == (4, 4)
    seen: set[int] = set()
    for name in names_of(voc, "trainaug") + names_of(voc, "val"):
        seen |= set(np.unique(np.asarray(Image.open(voc / f"SegmentationClassAug/{name}.png"))).tolist())
    assert found["classes_present"] == [segmentation.CLASSES["voc"][c] for c in sorted(seen - {255})]
    (voc.parent / "VOCdevkit").mkdir()
    voc.rename(voc.parent / "VOCdevkit/VOC2012")
    assert segmentation.found(TINY_VOC, voc.parent) == found
    lists = voc.parent / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    paths = [
        f"/JPEGImages/{n}.jpg /SegmentationClassAug/{n}.png\n" for n in (lists / "trainaug.txt").read_text().split()
    ]
    (lists / "train_aug.txt").write_text("".join(paths))  # as DeepLab's list is
    (lists / "trainaug.txt").unlink()
    assert segmentation.found(TINY_VOC, voc.parent) == found
    (lists / "train_aug.txt").write_bytes(b"\xef\xbb\xbf" + "".join(paths).replace("\n", "\r\n").encode())
    assert segmentation.found(TINY_VOC, voc.parent) == found
    (lists / "train_aug.txt").write_bytes("".join(paths).encode("utf-16"))
    with pytest.raises(ValueError, match=r"a list in UTF-8, found .* in .*train_aug.txt"):
        segmentation.found(TINY_VOC, voc.parent)


def test_a_name_with_a_dot_is_whole(voc: Path) -> None:
    for name in {*names_of(voc, "trainaug"), *names_of(voc, "val")}:
        for file in voc.glob(f"*/{name}.*"):
            file.rename(file.with_name(f"drive.{file.name}"))
    for split in ("trainaug", "train", "val"):
        (voc / f"ImageSets/Segmentation/{split}.txt").write_text("\n".join(f"drive.{n}" for n in names_of(voc, split)))
    assert segmentation.found(TINY_VOC, voc.parent)["train"] == 4
    assert check.check(TINY_VOC, voc.parent, segmentation.found)["runs"]


def test_an_image_of_vocs_train_has_vocs_map_and_another_sbds(voc: Path) -> None:
    pairs = segmentation._pairs(TINY_VOC, voc.parent, "train")
    assert [image.stem for image, _ in pairs] == [label.stem for _, label in pairs] == names_of(voc, "trainaug")
    assert [label.parent.name for _, label in pairs] == ["SegmentationClass"] * 3 + ["SegmentationClassAug"]
    tested = segmentation._pairs(TINY_VOC, voc.parent, "val")
    assert {label.parent.name for _, label in tested} == {"SegmentationClass"}
    before = segmentation.found(TINY_VOC, voc.parent)
    for name in names_of(voc, "train") + names_of(voc, "val"):  # SBD's archive has not all of VOC's images
        (voc / f"SegmentationClassAug/{name}.png").unlink()
    assert segmentation.found(TINY_VOC, voc.parent) == before


def test_a_voc_map_is_its_indices_with_and_without_a_palette(voc: Path, tmp_path: Path) -> None:
    file = voc / f"SegmentationClass/{names_of(voc, 'val')[0]}.png"
    with Image.open(file) as picture:
        assert picture.mode == "P"
        indices = np.asarray(picture)
        colours = np.asarray(picture.convert("RGB"))
    assert np.array_equal(segmentation._label(file, "voc"), indices)
    assert segmentation._label(file, "voc").dtype == np.uint8
    found = segmentation.found(TINY_VOC, voc.parent)
    Image.fromarray(indices).save(file)  # plain
    assert np.array_equal(segmentation._label(file, "voc"), indices)
    assert segmentation.found(TINY_VOC, voc.parent) == found
    # the palette that a VOC colour is refused by, from the devkit's table: aeroplane, person, tvmonitor, border
    table = {1: (128, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}
    assert len(segmentation.VOC_COLOURS) == 21
    assert all(segmentation.VOC_COLOURS[rgb] == index for index, rgb in table.items())
    grey = Image.fromarray(indices)
    grey.putpalette([v for i in range(256) for v in (i, i, i)])
    grey.save(file)
    assert np.array_equal(segmentation._label(file, "voc"), indices)
    Image.fromarray(colours).save(file)
    with pytest.raises(ValueError, match=rf"class indices.* found mode RGB in .*{file.name}: take the file"):
        segmentation.found(TINY_VOC, voc.parent)
    Image.fromarray(colours).convert("P", palette=Image.Palette.ADAPTIVE).save(file)  # indices in order of frequency
    with pytest.raises(ValueError, match=rf"VOC's colour of class \d+, found \d+ in .*{file.name}"):
        segmentation.found(TINY_VOC, voc.parent)


def test_an_image_in_trainaug_and_val_is_refused_by_name(voc: Path) -> None:
    leaked = names_of(voc, "val")[1]
    with (voc / "ImageSets/Segmentation/trainaug.txt").open("a") as file:
        file.write(f"{leaked}\n")
    with pytest.raises(ValueError, match=rf"no image of val in trainaug, found 1 such as {leaked}"):
        segmentation.found(TINY_VOC, voc.parent)


def test_voc_data_that_lacks_something_is_refused_by_name(voc: Path, tmp_path: Path) -> None:
    def refused(error: type[Exception], match: str) -> None:
        with pytest.raises(error, match=match):
            segmentation.found(TINY_VOC, voc.parent)

    with pytest.raises(FileNotFoundError, match=r"VOC2012/ or VOCdevkit/VOC2012/ in .*nowhere"):
        segmentation.found(TINY_VOC, tmp_path / "nowhere")
    *_, sbd = names_of(voc, "trainaug")
    tested = names_of(voc, "val")[0]
    label = voc / f"SegmentationClass/{tested}.png"
    Image.fromarray(np.full((4, 4), 21, np.uint8)).save(label)
    refused(ValueError, rf"found 4x4 in .*{tested}")
    with Image.open(voc / f"JPEGImages/{tested}.jpg") as picture:
        size = picture.size
    Image.new("L", size, 21).save(label)
    refused(ValueError, rf"0\.\.20 and 255, found 21 in .*{tested}.* other classes than VOC's")
    label.write_bytes(b"not a picture")
    refused(ValueError, rf"broken or foreign file.*{tested}")
    whole = (voc / f"SegmentationClassAug/{tested}.png").read_bytes()
    label.write_bytes(whole[: len(whole) * 2 // 3])
    refused(ValueError, rf"broken or foreign file.*{tested}")
    label.unlink()  # though SegmentationClassAug has one
    refused(FileNotFoundError, rf"SegmentationClass/{tested}.png .* VOCtrainval_11-May-2012")
    (voc / f"SegmentationClassAug/{sbd}.png").rename(voc / f"SegmentationClass/{sbd}.png")
    refused(FileNotFoundError, rf"SegmentationClassAug/{sbd}.png .* it is SBD's")
    (voc / f"JPEGImages/{sbd}.jpg").unlink()
    refused(FileNotFoundError, rf"JPEGImages/{sbd}.jpg, which the split train lists")
    listed = voc / "ImageSets/Segmentation/trainaug.txt"
    listed.write_text(f"{sbd}\n{sbd}\n")
    refused(ValueError, rf"every image once in .*trainaug.txt, found {sbd} 2 times")
    listed.write_text("\n")
    refused(ValueError, r"trainaug.txt, found an empty list")
    listed.unlink()  # VOC's train alone is never taken for it
    refused(FileNotFoundError, r"trainaug.txt, found none: VOC's own archive does not have it")
    (voc / "ImageSets/Segmentation/train.txt").unlink()
    listed.write_text(sbd)
    refused(FileNotFoundError, r"train.txt, found none: extract")


def test_a_whole_voc_trial_counts_the_pixels_of_the_original_maps(
    resnet18: dict[str, torch.Tensor], voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []
    plain = segmentation.confusion

    def confusion(prediction: Any, truth: Any, *rest: Any) -> Any:
        counted.append((prediction.shape, truth))
        return plain(prediction, truth, *rest)

    monkeypatch.setattr(segmentation, "confusion", confusion)
    result = run(TINY_VOC, resnet18, voc.parent, tmp_path / "out")
    assert 0 <= result["metrics"]["mIoU"] <= 100
    assert result["loaded"]["matched"] == len(resnet18)
    assert set(json.loads((tmp_path / "out/metrics.json").read_text())["IoU"]) == set(segmentation.CLASSES["voc"])
    originals = [np.asarray(Image.open(voc / f"SegmentationClass/{name}.png")) for name in names_of(voc, "val")]
    assert [shape for shape, _ in counted] == [original.shape for original in originals]
    assert all(np.array_equal(truth, original) for (_, truth), original in zip(counted, originals, strict=True))


PROCESS = """
import json, os, sys
from pathlib import Path
from test_segmentation_task import task
from bench import journey
from downstream import segmentation
from downstream.task import TRAITS
from downstream.trial import fingerprint
data, out = map(Path, sys.argv[1:])
test, networks = segmentation._test, []
def remembered(model, *rest):
    counts = test(model, *rest)
    networks.append(fingerprint(model.state_dict()))
    return counts
segmentation._test = remembered
seen = [segmentation.run(task, None, TRAITS, "resnet18", data, out / str(s), s)["metrics"] for s in range(4)]
(out / ("rank" + os.environ["RANK"])).write_text(json.dumps([seen, networks]))
"""


def test_two_processes_run_several_trials_and_agree(data: Path, tmp_path: Path) -> None:
    # One group of processes for all trials: making it anew for each one left a process waiting in every second call.
    task = dataclasses.asdict(dataclasses.replace(TINY, iterations=1))
    (tmp_path / "test_segmentation_task.py").write_text(
        f"from downstream.task import Segmentation\ntask = Segmentation(**{task!r})\n"
    )
    (tmp_path / "trials.py").write_text(PROCESS)
    out = tmp_path / "out"
    root = str(Path(segmentation.__file__).parents[1])
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
            *(str(tmp_path / "trials.py"), str(data), str(out)),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{root}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = [json.loads((out / f"rank{rank}").read_text()) for rank in (0, 1)]
    metrics, networks = results[0]
    assert len(metrics) == 4
    assert results[0] == results[1]
    assert networks == [json.loads((out / str(s) / "metrics.json").read_text())["trained"] for s in range(4)]
