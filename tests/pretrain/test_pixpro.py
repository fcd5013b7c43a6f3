import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

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
    mask = pixpro.positives(q, k, 7, 7, 0.7)
    assert mask.shape == (1, 49, 49)
    assert mask.sum() == count
    assert torch.equal(pixpro.positives(k, q, 7, 7, 0.7), mask.transpose(1, 2))  # the other direction is the transpose


def test_a_mirrored_view_pairs_each_pixel_with_its_mirror_image():
    mask = pixpro.positives(torch.tensor([[0.0, 0, 1, 1]]), torch.tensor([[1.0, 0, 0, 1]]), 7, 7, 0.7)[0]
    for pixel in range(49):
        row, column = divmod(pixel, 7)
        assert mask[pixel].nonzero().flatten().tolist() == [row * 7 + 6 - column]


def test_the_mask_of_a_map_that_is_not_square_is_the_formula_in_numpy():
    q, k = np.array([0.1, 0.2, 0.9, 0.8]), np.array([0.7, 0.1, 0.2, 0.9])
    height, width = 3, 5

    def centre(box, i, j):
        return box[0] + (j + 0.5) * (box[2] - box[0]) / width, box[1] + (i + 0.5) * (box[3] - box[1]) / height

    diagonal = max(np.hypot((box[2] - box[0]) / width, (box[3] - box[1]) / height) for box in (q, k))
    cells = [(i, j) for i in range(height) for j in range(width)]
    expected = [[np.hypot(*np.subtract(centre(q, *a), centre(k, *b))) / diagonal < 0.7 for b in cells] for a in cells]
    mask = pixpro.positives(torch.tensor(q[None]).float(), torch.tensor(k[None]).float(), height, width, 0.7)
    np.testing.assert_array_equal(mask[0].numpy(), np.array(expected, float))


def unit(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_the_loss_is_the_formula_in_numpy_and_an_image_without_positives_counts_as_0():
    q, k = unit(2, 8, 7, 7), unit(2, 8, 7, 7, seed=1)
    boxes_q = torch.tensor([[0, 0, 1, 1], [0, 0, 0.25, 0.25]])
    boxes_k = torch.tensor([[0.25, 0.25, 0.75, 0.75], [0.75, 0.75, 1, 1]])
    mask = pixpro.positives(boxes_q, boxes_k, 7, 7, 0.7)[0].numpy()
    cosine = q[0].flatten(1).numpy().T @ k[0].flatten(1).numpy()
    expected = -2 * ((cosine * mask).sum() / mask.sum() + 0) / 2
    assert pixpro.regression_loss(q, k, boxes_q, boxes_k).item() == pytest.approx(expected, abs=1e-6)


def test_equal_views_of_equal_features_reach_the_lower_end():
    x, box = unit(3, 8, 7, 7), torch.tensor([[0.0, 0, 1, 1]]).repeat(3, 1)
    assert pixpro.regression_loss(x, x, box, box).item() == pytest.approx(-2, abs=1e-5)
    assert pixpro.regression_loss(-x, x, box, box).item() == pytest.approx(2, abs=1e-5)


def test_propagation_is_the_formula_in_numpy():
    x = torch.randn(1, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    value = nn.Conv2d(4, 4, 1)
    flat = x[0].flatten(1).numpy()  # [C, HW]
    g = value.weight.detach().numpy()[..., 0, 0] @ flat + value.bias.detach().numpy()[:, None]
    g /= np.linalg.norm(g, axis=0)
    u = flat / np.linalg.norm(flat, axis=0)
    expected = np.zeros_like(flat)
    for i in range(6):
        for j in range(6):
            expected[:, i] += max(u[:, i] @ u[:, j], 0) ** 2 * g[:, j]
    expected /= np.linalg.norm(expected, axis=0)
    out = pixpro.propagated(x, value, 2.0)
    np.testing.assert_allclose(out[0].flatten(1).detach().numpy(), expected, atol=1e-5)


def test_propagation_below_a_square_has_a_finite_gradient():
    x = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    pixpro.propagated(x, nn.Identity(), 0.5).sum().backward()
    assert x.grad.isfinite().all()


def test_only_the_online_branch_is_propagated_and_learns():
    torch.manual_seed(0)
    net = pixpro.PixPro("resnet18", {**pixpro.recipe(), "hidden": 32})
    x = [torch.randn(2, 3, 64, 64) for _ in range(2)]
    boxes = torch.tensor([[[0, 0, 1, 1], [0.2, 0, 0.8, 1]], [[1, 0, 0, 1], [0, 0, 1, 1]]])
    twin = pixpro.PixPro("resnet18", {**pixpro.recipe(), "hidden": 32})
    twin.load_state_dict(net.state_dict())
    loss = net(x, boxes, progress=0.0)
    assert -4 <= loss.item() <= 4
    loss.backward()
    assert all(p.grad is None for name, p in net.named_parameters() if name.startswith("key_"))
    assert all(p.grad is not None for name, p in net.named_parameters() if not name.startswith("key_"))
    maps = [nn.Sequential(*list(twin.backbone.children())[:-2])(v) for v in x]  # torchvision's own order of layers
    y = [pixpro.propagated(twin.projector(m), twin.value, 2.0) for m in maps]
    k = [F.normalize(twin.key_projector(nn.Sequential(*list(twin.key_backbone.children())[:-2])(v)), dim=1) for v in x]
    expected = pixpro.regression_loss(y[0], k[1], *boxes) + pixpro.regression_loss(y[1], k[0], *boxes.flip(0))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)


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
