import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pretrain import momentum, pixels
from pretrain.methods import pixpro


# Counts computed with the official regression_loss (contrast/models/PixPro.py) and with an independent formula.
@pytest.mark.parametrize(
    ("box_q", "box_k", "count"),
    [
        ((0, 0, 1, 1), (0, 0, 1, 1), 49),
        ((0, 0, 1, 1), (1, 0, 0, 1), 49),
        ((0, 0, 1, 0.5), (0, 0, 1, 0.5), 133),
        ((0, 0, 1, 1), (0.25, 0.25, 0.75, 0.75), 121),
        ((0, 0, 1, 1), (0, 0, 0.25, 0.25), 123),
        ((0, 0, 1, 1), (1 / 7, 0, 8 / 7, 1), 42),
        ((0, 0, 0.5, 1), (0.5, 0, 1, 1), 7),
        ((0, 0, 0.25, 0.25), (0.75, 0.75, 1, 1), 0),
        ((0, 0, 0.6, 0.6), (0.4, 0.4, 1, 1), 25),
    ],
)
def test_the_number_of_positive_pairs(box_q, box_k, count):
    q, k = torch.tensor([box_q], dtype=torch.float32), torch.tensor([box_k], dtype=torch.float32)
    mask = pixels.positives(q, k, 7, 7, 0.7)
    assert mask.shape == (1, 49, 49)
    assert mask.sum() == count
    assert torch.equal(pixels.positives(k, q, 7, 7, 0.7), mask.transpose(1, 2))  # the other direction is the transpose


def test_a_mirrored_view_pairs_each_pixel_with_its_mirror_image():
    mask = pixels.positives(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 0, 1]]), 7, 7, 0.7)[0]
    for pixel in range(49):
        row, column = divmod(pixel, 7)
        assert mask[pixel].nonzero().flatten().tolist() == [row * 7 + 6 - column]


# No overlap, far and touching; a little; one inside the other; each plain, and with either or both views mirrored.
@pytest.mark.parametrize(
    ("box_q", "box_k"),
    [
        ((0.0, 0.1, 0.3, 0.4), (0.6, 0.5, 0.97, 1.0)),
        ((0.1, 0.2, 0.5, 0.8), (0.5, 0.2, 0.9, 0.8)),
        ((0.05, 0.0, 0.62, 0.71), (0.43, 0.37, 1.0, 0.93)),
        ((0.0, 0.0, 1.0, 0.98), (0.21, 0.33, 0.52, 0.61)),
    ],
)
@pytest.mark.parametrize("mirrored", [(False, False), (True, False), (False, True), (True, True)])
def test_the_mask_is_what_brute_force_over_the_pixels_of_both_views_finds(box_q, box_k, mirrored):
    side, cells = 56, 7  # every bin is a block of 8 x 8 pixels

    def places(box, mirror):
        """[side, side, 2]: where each pixel of the resized view came from, read off as an image would be."""
        x = box[0] + (np.arange(side) + 0.5) / side * (box[2] - box[0])
        y = box[1] + (np.arange(side) + 0.5) / side * (box[3] - box[1])
        image = np.stack(np.meshgrid(x, y), axis=-1)
        return image[:, ::-1] if mirror else image

    def blocks(image):
        return image.reshape(cells, side // cells, cells, side // cells, 2).transpose(0, 2, 1, 3, 4).reshape(49, 64, 2)

    bins = [blocks(places(box, mirror)) for box, mirror in zip((box_q, box_k), mirrored, strict=True)]
    pixel = [np.hypot((box[2] - box[0]) / side, (box[3] - box[1]) / side) for box in (box_q, box_k)]
    # the farthest two pixels of a bin, centre to centre, and half a pixel at either end
    diagonal = max(np.hypot(*np.ptp(b[0], axis=0)) + p for b, p in zip(bins, pixel, strict=True))
    expected = np.zeros((49, 49))
    for i, j in np.ndindex(49, 49):
        expected[i, j] = np.hypot(*(bins[0][i].mean(axis=0) - bins[1][j].mean(axis=0))) / diagonal < 0.7
    boxes = [
        (x1, y0, x0, y1) if mirror else (x0, y0, x1, y1)
        for (x0, y0, x1, y1), mirror in zip((box_q, box_k), mirrored, strict=True)
    ]
    mask = pixels.positives(*(torch.tensor([box]) for box in boxes), cells, cells, 0.7)
    np.testing.assert_array_equal(mask[0].numpy(), expected)


def test_each_image_of_a_batch_has_its_own_mask():
    q = torch.tensor([[0.0, 0, 1, 1], [0.0, 0, 0.25, 0.25], [0.0, 0, 1, 1]])
    k = torch.tensor([[0.25, 0.25, 0.75, 0.75], [0.75, 0.75, 1, 1], [1.0, 0, 0, 1]])
    assert pixels.positives(q, k, 7, 7, 0.7).sum(dim=(1, 2)).tolist() == [121, 0, 49]


def test_the_mask_of_a_map_that_is_not_square_is_the_formula_in_numpy():
    q, k = np.array([0.1, 0.2, 0.9, 0.8]), np.array([0.7, 0.1, 0.2, 0.9])
    height, width = 3, 5

    def centre(box, i, j):
        return box[0] + (j + 0.5) * (box[2] - box[0]) / width, box[1] + (i + 0.5) * (box[3] - box[1]) / height

    diagonal = max(np.hypot((box[2] - box[0]) / width, (box[3] - box[1]) / height) for box in (q, k))
    cells = [(i, j) for i in range(height) for j in range(width)]
    expected = [[np.hypot(*np.subtract(centre(q, *a), centre(k, *b))) / diagonal < 0.7 for b in cells] for a in cells]
    mask = pixels.positives(torch.tensor(q[None]).float(), torch.tensor(k[None]).float(), height, width, 0.7)
    np.testing.assert_array_equal(mask[0].numpy(), np.array(expected, float))


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=1)


def by_pixel(x, momentum_map, weight, bias, box_q, box_k, gamma=2.0):
    """One image's loss of one direction, pixel by pixel in float64: arXiv 2011.10043, the propagation and the consistency loss.

    x, momentum_map: lists of HW vectors
    """
    g = [F.normalize(weight @ a + bias, dim=0) for a in x]
    height = width = round(len(x) ** 0.5)
    y = []
    for a in x:
        s = [(F.cosine_similarity(a, b, dim=0).clamp(min=0)) ** gamma for b in x]
        y.append(F.normalize(sum(w * v for w, v in zip(s, g, strict=True)), dim=0))

    def centre(box, n):
        i, j = divmod(n, width)
        return np.array(
            [box[0] + (j + 0.5) * (box[2] - box[0]) / width, box[1] + (i + 0.5) * (box[3] - box[1]) / height]
        )

    diagonal = max(np.hypot((box[2] - box[0]) / width, (box[3] - box[1]) / height) for box in (box_q, box_k))
    pairs = [
        (i, j)
        for i in range(len(x))
        for j in range(len(x))
        if np.hypot(*(centre(box_q, i) - centre(box_k, j))) / diagonal < 0.7
    ]
    cosines = [F.cosine_similarity(y[i], momentum_map[j], dim=0) for i, j in pairs]
    return -2 * sum(cosines) / len(cosines) if cosines else torch.zeros((), dtype=torch.float64)


def test_the_loss_and_its_gradients_are_the_papers_pixel_by_pixel_in_float64():
    generator = torch.Generator().manual_seed(0)
    x, k = (torch.randn(3, 5, 4, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    torch.manual_seed(1)
    value = nn.Conv2d(5, 5, 1)
    boxes_q = [(0.0, 0.0, 1.0, 1.0), (0.9, 0.1, 0.2, 0.8), (0.0, 0.0, 0.2, 0.2)]  # overlapping, mirrored, apart
    boxes_k = [(0.25, 0.25, 0.75, 0.75), (0.3, 0.0, 1.0, 0.9), (0.7, 0.7, 1.0, 1.0)]

    exact = [x.clone().requires_grad_(), value.weight[:, :, 0, 0].detach().double().requires_grad_()]
    exact.append(value.bias.detach().double().requires_grad_())
    losses = [
        by_pixel(list(exact[0][n].flatten(1).T), list(k[n].flatten(1).T), *exact[1:], boxes_q[n], boxes_k[n])
        for n in range(3)
    ]
    assert losses[2] == 0
    expected = sum(losses) / 3  # the image without a positive counts in the mean
    expected.backward()

    given = x.float().requires_grad_()
    loss = pixpro.regression_loss(
        pixpro.propagated(given, value, 2.0),
        F.normalize(k.float(), dim=1),
        torch.tensor(boxes_q),
        torch.tensor(boxes_k),
    )
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    for found, true in zip((given, value.weight, value.bias), exact, strict=True):
        torch.testing.assert_close(found.grad.squeeze().double(), true.grad.squeeze(), atol=1e-5, rtol=0)


def test_the_instance_loss_and_its_gradient_are_byols_on_the_averaged_maps_in_float64():
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(3, 5, 7, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    exact = q.clone().requires_grad_()
    pairs = [(exact[n].flatten(1).mean(dim=1), k[n].flatten(1).mean(dim=1)) for n in range(3)]
    expected = sum(-2 * (a @ b) / ((a @ a).sqrt() * (b @ b).sqrt()) for a, b in pairs) / 3
    expected.backward()
    given = q.float().requires_grad_()
    loss = pixpro.instance_loss(given, k.float())
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(given.grad.double(), exact.grad, atol=1e-5, rtol=0)
    assert pixpro.instance_loss(q, q).item() == pytest.approx(-2)
    assert pixpro.instance_loss(q, -q).item() == pytest.approx(2)


def test_equal_views_of_equal_features_reach_the_lower_end():
    x, box = unit(3, 8, 7, 7), torch.tensor([[0.0, 0, 1, 1]]).repeat(3, 1)
    assert pixpro.regression_loss(x, x, box, box).item() == pytest.approx(-2, abs=1e-5)
    assert pixpro.regression_loss(-x, x, box, box).item() == pytest.approx(2, abs=1e-5)


def test_propagation_below_a_square_has_a_finite_gradient():
    x = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    pixpro.propagated(x, nn.Identity(), 0.5).sum().backward()
    assert x.grad.isfinite().all()


def model(variant=None, **changes) -> pixpro.PixPro:
    torch.manual_seed(0)
    return pixpro.PixPro("resnet18", {**pixpro.recipe(variant), "hidden": 32, "dim": 16, **changes})


def example(side=64):
    x = [torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    return x, torch.tensor([[[0, 0, 1, 1], [0.2, 0, 0.8, 1]], [[1, 0, 0, 1], [0, 0, 1, 1]]])


def maps(net, x):
    """C2 to C5, by torchvision's own order of layers."""
    children = list(net.children())
    c2 = nn.Sequential(*children[:5])(x)
    c3 = children[5](c2)
    c4 = children[6](c3)
    return [c2, c3, c4, children[7](c4)]


@pytest.mark.parametrize("variant", pixpro.VARIANTS)
def test_only_the_online_branch_is_propagated_and_learns(variant):
    net, twin = model(variant), model(variant)
    (x, boxes) = example()
    loss = net(x, boxes, progress=0.0)
    loss.backward()
    assert all(p.grad is None for name, p in net.named_parameters() if name.startswith("key_"))
    assert all(p.grad is not None for name, p in net.named_parameters() if not name.startswith("key_"))
    assert set(net.followed) == {n.removeprefix("key_") for n, _ in net.named_children() if n.startswith("key_")}

    c, key_c = ([maps(b, v) for v in x] for b in (twin.backbone, twin.key_backbone))
    levels, key_levels = [m[-1:] for m in c], [m[-1:] for m in key_c]
    if variant == "fpn":
        levels, key_levels = [twin.pyramid(m) for m in c], [twin.key_pyramid(m) for m in key_c]
    y = [[pixpro.propagated(twin.projector(p), twin.value, 2.0) for p in view] for view in levels]
    k = [[F.normalize(twin.key_projector(p), dim=1) for p in view] for view in key_levels]
    expected = sum(
        pixpro.regression_loss(y[0][i], k[1][i], *boxes) + pixpro.regression_loss(y[1][i], k[0][i], *boxes.flip(0))
        for i in range(len(y[0]))
    ) / len(y[0])
    if variant == "instance":
        q = [twin.predictor(twin.instance_projector(m[-1])) for m in c]
        k = [twin.key_instance_projector(m[-1]) for m in key_c]
        expected = expected + pixpro.instance_loss(q[0], k[1]) + pixpro.instance_loss(q[1], k[0])
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_instance_branch_adds_its_loss_times_its_weight():
    alone, half, whole = (model("instance", instance_weight=w) for w in (1e-9, 0.5, 1.0))
    losses = [net(*example()).item() for net in (alone, half, whole)]
    assert losses[1] - losses[0] == pytest.approx(whole.statistics["instance_loss"].item() / 2, abs=1e-5)
    assert losses[2] - losses[0] == pytest.approx(whole.statistics["instance_loss"].item(), abs=1e-5)


def test_two_processes_with_half_the_batch_each_equal_one(two_processes):
    one, *two = two_processes("pixpro", "fpn", sides=(64, 64), hidden=16, dim=8, instance_weight=0.5)
    for found in two:
        torch.testing.assert_close(found["loss"], one["loss"], rtol=1e-5, atol=1e-6)
        assert found["gradients"].keys() == one["gradients"].keys()
        for name, gradient in one["gradients"].items():
            scale = gradient.abs().max().item()
            torch.testing.assert_close(found["gradients"][name], gradient, rtol=0, atol=1e-4 * scale + 1e-7, msg=name)
    assert one["gradients"]["pyramid.fpn.fpn_lateral3.weight"].abs().max() > 1e-4
    assert one["gradients"]["instance_projector.0.weight"].abs().max() > 1e-4


def test_every_part_of_the_momentum_branch_follows():
    net = model("instance", ema=0.9)
    before = {name: p.clone() for name, p in net.named_parameters()}
    with torch.no_grad():
        for name, p in net.named_parameters():
            if not name.startswith("key_"):
                p.add_(1)
    net(*example(), progress=0.5)
    m = momentum.cosine(0.9, 0.5)
    for part in ("backbone", "projector", "instance_projector"):
        for name, _ in net.get_submodule(part).named_parameters():
            key = dict(net.named_parameters())[f"key_{part}.{name}"]
            torch.testing.assert_close(key, before[f"{part}.{name}"] + (1 - m))


def test_the_instance_branch_has_the_shapes_of_the_official_code():
    net = pixpro.PixPro("resnet50", pixpro.recipe("instance"))
    assert [tuple(p.shape) for p in net.instance_projector.parameters() if p.ndim > 1] == [
        (4096, 2048, 1, 1),
        (256, 4096, 1, 1),
    ]
    assert [tuple(p.shape) for p in net.predictor.parameters() if p.ndim > 1] == [(4096, 256, 1, 1), (256, 4096, 1, 1)]
    assert all(not name.startswith("key_predictor") for name, _ in net.named_modules())


def test_the_pyramid_and_the_head_are_detectron2s():
    from detectron2.layers import ShapeSpec
    from detectron2.modeling.backbone import FPN, Backbone
    from detectron2.modeling.roi_heads import FastRCNNConvFCHead

    class Given(Backbone):
        def forward(self, x):
            return x

        def output_shape(self):
            return {f"res{i}": ShapeSpec(channels=32 * 2 ** (i - 2), stride=2**i) for i in (3, 4, 5)}

    torch.manual_seed(0)
    pyramid = pixels.Pyramid(256, 3)
    fpn = FPN(Given(), ["res3", "res4", "res5"], 256, norm="BN")
    head = FastRCNNConvFCHead(
        ShapeSpec(channels=256, height=1, width=1), conv_dims=[256] * 4, fc_dims=[], conv_norm="BN"
    )
    tensors = pyramid.detector()
    for prefix, network in (("backbone.", fpn), ("roi_heads.box_head.", head)):
        own = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
        network.load_state_dict(own, strict=True)
    for i in range(1, 5):
        assert torch.equal(
            tensors[f"roi_heads.mask_head.mask_fcn{i}.norm.weight"], tensors[f"roi_heads.box_head.conv{i}.norm.weight"]
        )
    maps = [torch.randn(2, 32 * 2**i, 16 // 2**i, 16 // 2**i) for i in range(4)]
    expected = fpn({f"res{i + 2}": x for i, x in enumerate(maps)})
    found = pyramid(maps)
    assert len(found) == 3
    for x, level in zip(found, ("p3", "p4", "p5"), strict=True):
        torch.testing.assert_close(x, head(expected[level]), atol=1e-4, rtol=1e-4)


def test_the_detectors_tensors_are_the_trained_ones_and_only_the_fpn_variant_has_them():
    assert model().detector() == model("instance").detector() == {}
    net = model("fpn")
    tensors = net.detector()
    assert torch.equal(tensors["backbone.fpn_lateral3.weight"], net.pyramid.fpn["fpn_lateral3"].weight)
    assert {name.split(".")[1] for name in tensors if name.startswith("backbone.")} == {
        f"fpn_{kind}{level}" for kind in ("lateral", "output") for level in (3, 4, 5)
    }
    with pytest.raises(ValueError, match="finest=3"):
        model("fpn", finest=6)


def test_the_variants_differ_in_what_they_add():
    base, instance, fpn = (pixpro.recipe(variant) for variant in pixpro.VARIANTS)
    assert {key for key in base if base[key] != instance[key]} == {"variant", "unverified", "instance_weight"}
    assert {key for key in base if base[key] != fpn[key]} == {"variant", "unverified", "finest"}
    with pytest.raises(ValueError, match="instance or fpn"):
        pixpro.recipe("400ep")


def test_the_recipe_is_the_scripts_and_not_the_options_defaults():
    net = pixpro.PixPro("resnet50", pixpro.recipe())
    assert tuple(net.projector[0].weight.shape) == (4096, 2048, 1, 1)
    assert tuple(net.projector[3].weight.shape) == (256, 4096, 1, 1)
    assert isinstance(net.value, nn.Conv2d)
    assert net.value.bias is not None
    assert (net.backbone.layer3[2].bn3.weight == 0).all()
    assert (net.key_backbone.layer3[2].bn3.weight == 0).all()
    recipe = pixpro.recipe()
    assert recipe["base_lr"] * recipe["batch_size"] / 256 == 4.0
    assert int(1_281_167 / recipe["batch_size"] * 100) == 125_113  # the horizon of the momentum's cosine
