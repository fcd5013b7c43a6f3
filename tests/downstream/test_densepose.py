"""DensePose's head: losses and charts against their formulas in numpy, marks in a mirror, and a trial from end to end."""

import dataclasses
import json
import math
import struct

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from pycocotools import mask as mask_tools

from downstream import bodies, datasets, densepose, detection, surface
from downstream.evaluation import densepose as similarity
from downstream.synthetic import synthesize
from downstream.task import mini, overridden
from downstream.tasks import coco_densepose

CPU = torch.device("cpu")
TRAIN, TEST = "densepose_coco_2014_train", "densepose_coco_2014_minival"

pytestmark = [
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),  # detectron2's anchors
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # pycocotools 2.0.11
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    synthesize(root, voc=0, coco=40, cityscapes=0, imagenet=0, side=120)
    return root


def scene(rng, persons=3, side=8, larger=15):
    """Maps over boxes near persons' own, and these persons' points and parts."""
    truth = torch.tensor(rng.uniform(0, 40, (persons, 4)), dtype=torch.float32)
    truth[:, 2:] += truth[:, :2] + 20
    found = truth + torch.tensor(rng.normal(0, 3, (persons, 4)), dtype=torch.float32)
    maps = [torch.tensor(rng.normal(size=(persons, c, side, side)), dtype=torch.float32) for c in (larger, 25, 25, 25)]
    points = torch.tensor(rng.uniform(0, 256, (persons, 9, 5)), dtype=torch.float32)
    points[..., 2] = torch.tensor(rng.integers(1, 25, (persons, 9)))
    points[..., 3:] /= 256
    points[0, 5:] = 0  # fewer are marked on the first
    parts = torch.tensor(rng.integers(0, 15, (persons, 256, 256)), dtype=torch.uint8)
    return maps, found, truth, points, parts


def by_hand(maps, found, truth, points, parts):
    """The four losses without weights, a point and a cell at a time."""
    coarse, fine, u, v = (m.double().numpy() for m in maps)
    side = fine.shape[-1]
    total = {"U": 0.0, "V": 0.0, "I": [], "S": []}
    for n, (box, own) in enumerate(zip(found.double().numpy(), truth.double().numpy(), strict=True)):
        for x, y, part, at_u, at_v in points[n].double().numpy():
            place = own[:2] + np.array([x, y]) / 256 * (own[2:] - own[:2])
            if part == 0 or not ((box[:2] <= place) & (place < box[2:])).all():
                continue
            across, along = (place - box[:2]) / (box[2:] - box[:2]) * side
            left, top = int(across), int(along)
            right, low = min(left + 1, side - 1), min(top + 1, side - 1)
            wx, wy = min(across, right) - left, min(along, low) - top

            def read(m, n=n, left=left, right=right, top=top, low=low, wx=wx, wy=wy):
                upper = m[n, :, top, left] * (1 - wx) + m[n, :, top, right] * wx
                return upper * (1 - wy) + (m[n, :, low, left] * (1 - wx) + m[n, :, low, right] * wx) * wy

            for key, m, wanted in (("U", u, at_u), ("V", v, at_v)):
                away = abs(read(m)[int(part)] - wanted)
                total[key] += away**2 / 2 if away < 1 else away - 0.5
            scores = read(fine)
            total["I"].append(math.log(np.exp(scores).sum()) - scores[int(part)])
        for row in range(side):
            for column in range(side):
                place = box[:2] + np.array([column, row]) / side * (box[2:] - box[:2])
                x, y = np.rint((place - own[:2]) / (own[2:] - own[:2]) * 255).astype(int)
                label = int(parts[n, y, x]) if 0 <= x < 256 and 0 <= y < 256 else 0
                scores = coarse[n, :, row, column]
                label = label if len(scores) == 15 else min(label, 1)
                total["S"].append(math.log(np.exp(scores).sum()) - scores[label])
    return {f"loss_densepose_{k}": float(np.mean(v)) if isinstance(v, list) else v for k, v in total.items()}


@pytest.mark.parametrize("larger", [2, 15])
def test_losses_are_their_formulas(larger):
    for seed in range(4):
        maps, found, truth, points, parts = scene(np.random.default_rng(seed), larger=larger)
        ours = densepose.losses(maps, found, truth, list(points), parts, (1.0, 1.0, 1.0))
        assert {k: v.item() for k, v in ours.items()} == pytest.approx(by_hand(maps, found, truth, points, parts), 1e-5)
        weighted = densepose.losses(maps, found, truth, list(points), parts, (0.1, 0.3, 2.0))
        shares = dict(zip(("U", "V", "I", "S"), (0.1, 0.1, 0.3, 2.0), strict=True))
        assert all(weighted[k].item() == pytest.approx(v.item() * shares[k[-1]]) for k, v in ours.items())


def test_without_a_point_in_its_box_all_losses_are_nothing_and_everything_takes_part():
    maps, found, truth, points, parts = scene(np.random.default_rng(0))
    maps = [m.requires_grad_() for m in maps]
    losses = densepose.losses(maps, found + 500, truth, list(points), parts, (1.0, 1.0, 1.0))
    assert len(losses) == 4 and all(v.item() == 0 for v in losses.values())
    sum(losses.values()).backward()
    assert all(m.grad is not None and not m.grad.any() for m in maps)


def test_charts_are_the_maps_at_the_boxes_pixels():
    rng = np.random.default_rng(1)
    maps = torch.tensor(rng.normal(0.3, 1, (2, 90, 6, 6)), dtype=torch.float32)
    boxes = torch.tensor([[3.2, 4.7, 3.2 + 14.9, 4.7 + 9.1], [1, 2, 1.4, 8]])
    for number, (chart, size) in enumerate(zip(densepose.charts(maps, boxes, 15), [(9, 14), (6, 1)], strict=True)):
        assert chart.shape == (*size, 3) and chart.dtype == np.uint8
        places = [((np.arange(n) + 0.5) / n * 6 - 0.5).clip(0, 5) for n in size]
        weights = [(1 - abs(place[:, None] - np.arange(6))).clip(0) for place in places]
        sized = np.einsum("yr,crd,xd->cyx", weights[0], maps[number].double().numpy(), weights[1])
        part = sized[15:40].argmax(0) * (sized[:15].argmax(0) > 0)
        assert (chart[..., 0] == part).all() and (part > 0).any() and (number or not part.all())
        for channel, first in ((1, 40), (2, 65)):
            said = np.take_along_axis(sized[first : first + 25], part[None], 0)[0] * (part > 0) * 255
            assert abs(chart[..., channel] - said.clip(0, 255)).max() < 1.01


def test_left_is_right_in_a_mirror_and_twice_is_once(data):
    symmetry = surface.symmetries(data)
    people = [a for image in datasets.records(TEST, data) for a in image["annotations"] if "dp_x" in a]
    assert len(people) > 3
    drawn: set[int] = set()
    for person in people:
        points, parts = densepose.marks(person)
        turned, others = densepose.marks(person, symmetry)
        x, y, part, u, v = points.T
        assert torch.equal(turned[:, 0], 256 - x) and torch.equal(turned[:, 1], y)
        sides = {3: 4, 5: 6, 7: 8, 9: 10, 11: 12, 13: 14, 15: 16, 17: 18, 19: 20, 21: 22, 23: 24}
        mirror = {0: 0, 1: 1, 2: 2, **sides, **{b: a for a, b in sides.items()}}
        assert [mirror[p] for p in part.int().tolist()] == turned[:, 2].int().tolist()
        # the drawn body's: V counts from a limb's other side, in steps of 1/255
        assert (turned[:, 3] - u).abs().max() < 0.004 and (turned[:, 4] - (1 - v)).abs().max() < 0.004
        larger = {2: 3, 4: 5, 6: 7, 8: 9, 10: 11, 12: 13}
        mirror = {0: 0, 1: 1, 14: 14, **larger, **{b: a for a, b in larger.items()}}
        assert torch.equal(others, parts.flip(1).clone().apply_(lambda value, mirror=mirror: mirror[value]))
        drawn |= set(parts.unique().tolist())
    assert drawn == set(range(15))
    assert [t.shape for t in densepose.marks({}, symmetry)] == [(0, 5), (256, 256)]


def test_the_mapper_moves_marks_with_the_image(data):
    cfg = detection.configuration(mini(coco_densepose.TASK))
    mapper = detection.DensePoseMapper(cfg, surface.symmetries(data))
    image = next(r for r in datasets.records(TRAIN, data) if any("dp_x" in a for a in r["annotations"]))
    people = [a for a in image["annotations"] if not a["iscrowd"]]
    seen = []
    for seed in range(8):
        np.random.seed(seed)
        found = mapper(image)["instances"]
        assert found.gt_person.tolist() == list(range(len(people))) and len(found.points) == len(found.parts)
        plain, turned = ([densepose.marks(a, s) for a in people] for s in (None, mapper.symmetry))
        for kind, marks in (("plain", plain), ("turned", turned)):
            if all(
                torch.equal(found.points[i, : len(p)], p) and not found.points[i, len(p) :].any()
                for i, (p, _) in enumerate(marks)
            ):
                assert all(torch.equal(found.parts[i], parts) for i, (_, parts) in enumerate(marks))
                seen.append(kind)
    assert len(seen) == 8 and set(seen) == {"plain", "turned"}
    assert "annotations" in image and "dp_x" in max(people, key=len)  # the record is as it was


def inputs(marked=True):
    """Two images of noise with two persons each."""
    rng, images = np.random.default_rng(3), []
    for number in (1, 2):
        _, _, _, points, parts = scene(rng, persons=2)
        people = Instances((64, 96))
        people.gt_boxes = Boxes(torch.tensor([[5.0, 5, 40, 50], [30, 20, 90, 60]]))
        people.gt_classes = torch.zeros(2, dtype=torch.int64)
        people.gt_person = torch.arange(2)
        people.points, people.parts = points * marked, parts * marked
        image = torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
        images.append({"image": image, "instances": people, "height": 64, "width": 96})
    return images


def test_more_images_of_a_process_weigh_the_points_no_more():
    """On 8 processes with 2 images each the sums are the published ones."""
    cfg = detection.configuration(mini(coco_densepose.TASK), "resnet18")
    detection._trained_norm(cfg, 1, CPU)
    torch.manual_seed(0)
    heads = detection.network(cfg).roi_heads
    features = {f"p{level}": torch.randn(1, 128, 64 >> level, 96 >> level) for level in (2, 3, 4, 5)}
    target = inputs()[0]["instances"]
    near = Instances((64, 96))
    near.proposal_boxes = near.gt_boxes = target.gt_boxes
    near.gt_classes, near.gt_person = target.gt_classes, target.gt_person
    found = {}
    for images in (1, 2, 6):
        maps = {name: m.expand(images, -1, -1, -1) for name, m in features.items()}
        found[images] = heads._densepose(maps, [near] * images, [target] * images)
    for key, value in found[2].items():
        assert value.item() == pytest.approx(found[1][key].item(), 1e-4) == pytest.approx(found[6][key].item(), 1e-4)
    boxes, points = target.gt_boxes.tensor.repeat(2, 1), [*target.points, *target.points]
    maps = heads._maps({name: m.expand(2, -1, -1, -1) for name, m in features.items()}, [target.gt_boxes] * 2)
    sums = densepose.losses(maps, boxes, boxes, points, target.parts.repeat(2, 1, 1), heads.weights)
    assert {k: v.item() for k, v in sums.items()} == pytest.approx({k: v.item() for k, v in found[2].items()})


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_the_head_trains_all_of_its_parameters_in_bf16(arch, marked):
    cfg = detection.configuration(mini(coco_densepose.TASK), arch)
    detection._trained_norm(cfg, 1, CPU)
    torch.manual_seed(0)
    model = detection.network(cfg).train()
    detection._bf16(model, CPU)
    with EventStorage():
        values = model(inputs(marked))
    assert all(v.dtype == torch.float32 for v in values.values())
    assert [values[f"loss_densepose_{kind}"].item() > 0 for kind in "UVIS"] == [marked] * 4
    sum(values.values()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_the_head_has_the_official_tensors():
    model = detection.blank(coco_densepose.TASK, "resnet50")
    own = {
        k.removeprefix("roi_heads.densepose_"): list(v.shape) for k, v in model.state_dict().items() if "densepose" in k
    }
    convolutions = {f"head.body_conv_fcn{n}.weight": [512, 256 if n == 1 else 512, 3, 3] for n in range(1, 9)}
    lowres = {"ann_index": 15, "index_uv": 25, "u": 25, "v": 25}
    wanted = convolutions | {
        f"predictor.{name}_lowres.weight": [512, channels, 4, 4] for name, channels in lowres.items()
    }
    assert {k: v for k, v in own.items() if k.endswith("weight")} == wanted and len(own) == 2 * len(wanted)


def test_an_image_without_detections_has_no_charts():
    cfg = detection.configuration(mini(coco_densepose.TASK), "resnet18")
    detection._trained_norm(cfg, 1, CPU)
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 1.0
    model = detection.network(cfg).eval()
    with torch.no_grad():
        (output, *_) = model([{key: value for key, value in one.items() if key != "instances"} for one in inputs()])
    boxes, scores, *_, charts = detection._plain(output["instances"], cfg)
    assert boxes.shape == (0, 4) and len(scores) == 0 and charts == []


def test_dense_pose_is_measured_from_end_to_end(data, tmp_path):
    task = mini(coco_densepose.TASK)
    settings = dict(task.settings) | {"SOLVER.MAX_ITER": 2, "SOLVER.STEPS": [], "SOLVER.IMS_PER_BATCH": 2}
    # every box is a person, so that there are charts to measure
    settings |= {"TEST.PRECISE_BN.NUM_ITER": 1, "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0}
    task = dataclasses.replace(task, settings=settings, passes=None)
    found = detection.found(task, data)
    assert found["train"] == sum(found["splits"][name] for name in task.settings["DATASETS.TRAIN"]) > 3
    assert found["test"] == found["splits"][TEST] > 3
    result = detection.run(task, None, None, "resnet18", data, tmp_path / "out", seed=0)
    assert list(result["metrics"]) == ["APdp", "APdp50", "APdp75"]
    assert all(0 <= v <= 100 for v in result["metrics"].values())
    last = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[-1])
    assert last["loss_densepose_S"] > 0


def test_the_truth_as_a_prediction_is_100(data):
    """Every marked point's own pixel says what was marked there; a box's other pixels say nothing."""
    everything = []
    for image in datasets.records(TEST, data):
        people = [a for a in image["annotations"] if "dp_x" in a]
        charts = []
        for person in people:
            _, _, width, height = map(int, person["bbox"])
            chart = np.zeros((height, width, 3), np.uint8)
            for x, y, part, u, v in zip(*(person[key] for key in datasets.POINTS), strict=True):
                chart[int(y / 255 * height), int(x / 255 * width)] = part, round(u * 255), round(v * 255)
            charts.append(detection._png(chart))
        x, y, width, height = np.array([p["bbox"] for p in people], np.float32).T
        boxes = np.stack([x, y, x + width, y + height], 1)
        everything.append(
            (image["image_id"], boxes, np.ones(len(people)), np.zeros(len(people), int), None, None, charts)
        )
    cfg = detection.configuration(mini(coco_densepose.TASK))
    metrics = detection._evaluated(cfg, TEST, [], data, everything)
    # two points on one pixel can be told apart by nobody, and a box's last pixel is beyond it where x is 256
    assert metrics["APdp50"] == pytest.approx(100) and metrics["APdp"] > 95


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("MODEL.ROI_DENSEPOSE_HEAD.DECODER_ON", "true", "DECODER_ON False, found True"),
        (
            "MODEL.ROI_DENSEPOSE_HEAD.NAME",
            "DensePoseDeepLabHead",
            "NAME DensePoseV1ConvXHead, found 'DensePoseDeepLabHead'",
        ),
        ("MODEL.ROI_DENSEPOSE_HEAD.HEATMAP_SIZE", "112", "HEATMAP_SIZE 56, found 112"),
        ("MODEL.ROI_DENSEPOSE_HEAD.NUM_COARSE_SEGM_CHANNELS", "3", "NUM_COARSE_SEGM_CHANNELS 2 or 15, found 3"),
        ("MODEL.ROI_HEADS.NAME", "StandardROIHeads", "NAME DensePoseROIHeads, found 'StandardROIHeads'"),
        ("MODEL.DENSEPOSE_ON", "false", f"found {TRAIN} and MODEL.DENSEPOSE_ON False"),
    ],
)
def test_a_head_that_is_not_here_is_refused(key, value, words):
    with pytest.raises(ValueError, match=words):
        detection.configuration(overridden(coco_densepose.TASK, {key: value}))


def changed(data, tmp_path, split, change):
    """A copy of the data in which `change` is done to the first marked annotation of a split."""
    (tmp_path / "coco" / "annotations").mkdir(parents=True)
    for folder in ("densepose", "coco/train2017", "coco/val2017"):
        (tmp_path / folder).symlink_to(data / folder)
    for file in (data / "coco" / "annotations").glob("densepose_*"):
        content = json.loads(file.read_text())
        if split in file.stem:
            change(next(a for a in content["annotations"] if "dp_x" in a))
        (tmp_path / "coco" / "annotations" / file.name).write_text(json.dumps(content))
    return tmp_path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dp_U": None}, "lists dp_x, dp_y, dp_I, dp_U, dp_V of finite numbers"),
        ({"dp_V": [math.nan]}, "of finite numbers"),
        ({"dp_y": [1.0]}, "as many numbers in each of dp_x, dp_y, dp_I, dp_U, dp_V"),
        ({key: [25.0] for key in datasets.POINTS}, "dp_I from 1 to 24, found 25.0"),
        ({key: [1.5] for key in datasets.POINTS}, "dp_I from 1 to 24, found 1.5"),
        ({"dp_masks": None}, "a list dp_masks of up to 14 masks, found None"),
        ({"dp_masks": [[]] * 15}, "a list dp_masks of up to 14 masks"),
        (
            {"dp_masks": [{"size": [256, 256], "counts": "0"}]},
            "dp_masks that are empty or compressed run lengths that fill 256x256",
        ),
        ({"dp_masks": [{"size": [256, 256], "counts": [65536]}]}, "dp_masks that are empty or compressed run lengths"),
    ],
)
def test_wrong_marks_are_named(data, tmp_path, change, words):
    root = changed(data, tmp_path, "minival2014", lambda person: person.update(change))
    with pytest.raises(
        ValueError, match=rf"expected .*{words}.* of .*densepose_minival2014.json: correct or remove it"
    ):
        datasets.records(TEST, root)


def test_images_of_2014_lie_where_2017_has_them_and_two_annotations_may_have_one_id(data, tmp_path):
    for image in datasets.records(TEST, data):
        assert image["file_name"] == str(data / "coco" / "val2017" / f"{image['image_id']:012d}.jpg")
    first = json.loads((data / "coco" / "annotations" / "densepose_minival2014.json").read_text())["annotations"][0][
        "id"
    ]
    root = changed(data, tmp_path, "minival2014", lambda person: person.update(id=first))
    assert len(datasets.records(TEST, root)) == len(datasets.records(TEST, data))


def test_only_images_with_a_marked_person_are_trained_on():
    people = [{"iscrowd": 0}, {"iscrowd": 0, "dp_x": []}, {"iscrowd": 1, "dp_x": []}]
    images = [{"annotations": [person]} for person in people]
    assert datasets.trainable(images, surface=True) == images[1:2] and datasets.trainable(images) == images[:2]


def test_drawn_marks_are_where_the_person_is():
    rng = np.random.default_rng(0)
    mask = np.zeros((200, 120), bool)
    mask[10:190, 20:100] = True
    joints = {number: (60 + 90 * x, 180 - 100 * y) for number, (x, y) in bodies.STANDING.items()}
    found = bodies.marks(joints, mask, rng)
    assert datasets.unmarked(found) == "" and len(found["dp_x"]) == bodies.MARKED
    larger = np.zeros((256, 256), int)
    for number, code in enumerate(found["dp_masks"], 1):
        if code:
            larger[mask_tools.decode(code) > 0] = number
    assert (larger > 0).all()
    belongs = {1: {1, 2}, 2: {3}, 3: {4}, 4: {5}, 5: {6}, 6: {7, 9}, 7: {8, 10}, 8: {11, 13}, 9: {12, 14}}
    belongs |= {10: {15, 17}, 11: {16, 18}, 12: {19, 21}, 13: {20, 22}, 14: {23, 24}}
    agreed = [
        part in belongs[larger[int(y), int(x)]]
        for x, y, part in zip(*(found[k] for k in ("dp_x", "dp_y", "dp_I")), strict=True)
    ]
    assert np.mean(agreed) > 0.95 and len(set(found["dp_I"])) > 18
    # whoever faces us has the head on top, and the right hand on our left
    x, y, part = (np.array(found[k]) for k in ("dp_x", "dp_y", "dp_I"))
    assert y[part > 22].max() < y[np.isin(part, (5, 6))].min()
    assert x[np.isin(part, (16, 18, 20, 22))].mean() < x[np.isin(part, (15, 17, 19, 21))].mean()
    bust = bodies.marks({number: joints[number] for number in (0, 5, 6)}, mask, rng)
    assert set(bust["dp_I"]) == {23, 24} and [bool(code) for code in bust["dp_masks"]] == [False] * 13 + [True]
    assert bodies.marks({0: (1.0, 1.0)}, mask, rng) == {}


def test_broken_files_of_the_surface_are_named(data, tmp_path):
    body = surface.body(data)
    assert set(body.part) == set(range(1, 25)) and body.apart(np.array([0, 5]), np.array([0, -1])).tolist() == [
        0,
        np.inf,
    ]
    folder = tmp_path / "densepose"
    with pytest.raises(FileNotFoundError, match=r"expected .*SMPL_subdiv.mat, found none: fetch https://"):
        surface.body(tmp_path)
    folder.mkdir()
    for name in (surface.SYMMETRY, *surface.EVALUATED):
        (folder / name).write_bytes((data / "densepose" / name).read_bytes())
    whole = {name: (folder / name).read_bytes() for name in (surface.SYMMETRY, *surface.EVALUATED)}
    for name in whole:
        for content in (b"", b"no such thing", whole[name][: len(whole[name]) // 2]):
            (folder / name).write_bytes(content)
            with pytest.raises(ValueError, match=rf"expected .*{name}: fetch it again"):
                surface.symmetries(tmp_path) if name == surface.SYMMETRY else surface.body(tmp_path)
        (folder / name).write_bytes(whole[name])
    (folder / surface.VERTICES).write_bytes(whole[surface.CHARTS])
    with pytest.raises(ValueError, match="index"):
        surface.body(tmp_path)


def test_distances_are_read_as_python_2_wrote_them(tmp_path):
    def text(content):
        return b"T" + struct.pack("<i", len(content)) + content

    numbers = np.arange(6, dtype="<f4")
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    kind = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    state = b"(K\x01K\x06K\x01\x86" + kind + b"\x89" + text(numbers.tobytes()) + b"tb"
    (tmp_path / "old.pkl").write_bytes(b"\x80\x02}" + text(b"Pdist_matrix") + array + state + b"s.")
    assert surface._distances(tmp_path / "old.pkl").tolist() == numbers.tolist()


def test_nothing_in_the_distances_is_run(data, tmp_path):
    (tmp_path / "densepose").mkdir()
    for name in surface.EVALUATED:
        (tmp_path / "densepose" / name).write_bytes((data / "densepose" / name).read_bytes())
    (tmp_path / "densepose" / surface.DISTANCES).write_bytes(b"cposix\nsystem\n(S'touch run'\ntR.")
    with pytest.raises(ValueError, match=r"posix.system, which no array needs"):
        surface.body(tmp_path)


def test_the_task_names_what_the_evaluation_gives():
    assert coco_densepose.TASK.metrics == similarity.NAMES
