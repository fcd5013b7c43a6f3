import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretrain import heads
from pretrain.methods import pixcontrast, pixpro


def by_pixel(q, k, box_q, box_k, temperature):
    """One image's loss of one direction in float64: arXiv 2011.10043, the contrast of pixels.

    q, k: lists of HW vectors
    """
    side = round(len(q) ** 0.5)

    def centre(box, n):
        i, j = divmod(n, side)
        return np.array([box[0] + (j + 0.5) * (box[2] - box[0]) / side, box[1] + (i + 0.5) * (box[3] - box[1]) / side])

    diagonal = max(np.hypot(box[2] - box[0], box[3] - box[1]) / side for box in (box_q, box_k))
    losses = []
    for i, a in enumerate(q):
        e = [torch.exp((a @ b) / temperature) for b in k]
        near = [np.hypot(*(centre(box_q, i) - centre(box_k, j))) / diagonal < 0.7 for j in range(len(k))]
        if any(near):
            positive = sum(value for value, is_near in zip(e, near, strict=True) if is_near)
            negative = sum(value for value, is_near in zip(e, near, strict=True) if not is_near)
            losses.append(-torch.log(positive / (positive + negative)))
    return sum(losses) / len(losses) if losses else torch.zeros((), dtype=torch.float64)


def test_the_loss_and_its_gradient_are_the_papers_pixel_by_pixel_in_float64():
    generator = torch.Generator().manual_seed(0)
    q, k = (F.normalize(torch.randn(4, 5, 7, 7, generator=generator, dtype=torch.float64), dim=1) for _ in range(2))
    # partly overlapping with several positives a pixel, mirrored, apart, touching
    boxes_q = [(0.0, 0.0, 1.0, 0.5), (0.9, 0.1, 0.2, 0.8), (0.0, 0.0, 0.2, 0.2), (0.0, 0.0, 0.5, 1.0)]
    boxes_k = [(0.0, 0.0, 1.0, 0.5), (0.3, 0.0, 1.0, 0.9), (0.7, 0.7, 1.0, 1.0), (0.5, 0.0, 1.0, 1.0)]
    exact = q.clone().requires_grad_()
    losses = [
        by_pixel(list(exact[n].flatten(1).T), list(k[n].flatten(1).T), boxes_q[n], boxes_k[n], 0.3) for n in range(4)
    ]
    assert losses[2] == 0
    expected = sum(losses) / 4
    expected.backward()
    given = q.float().requires_grad_()
    loss = pixcontrast.contrast_loss(given, k.float(), torch.tensor(boxes_q), torch.tensor(boxes_k))
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    assert (given.grad[2] == 0).all()
    torch.testing.assert_close(given.grad.double(), exact.grad, atol=1e-5, rtol=0)


def test_a_perfect_match_of_orthogonal_pixels_and_equal_pixels_have_their_closed_forms():
    box = torch.tensor([[0.0, 0, 1, 1]])
    eye = torch.eye(49).view(1, 49, 7, 7)
    expected = math.log(1 + 48 * math.exp(-1 / 0.3))  # one positive of cosine 1, 48 negatives of cosine 0
    assert pixcontrast.contrast_loss(eye, eye, box, box).item() == pytest.approx(expected, abs=1e-5)
    same = torch.ones(1, 4, 7, 7) / 2
    assert pixcontrast.contrast_loss(same, same, box, box).item() == pytest.approx(math.log(49), abs=1e-5)


def test_the_loss_is_the_mean_of_both_directions_against_the_momentum_encoder():
    changes = {"hidden": 32, "dim": 16}
    torch.manual_seed(0)
    net = pixcontrast.PixContrast("resnet18", {**pixcontrast.recipe(), **changes})
    twin = pixcontrast.PixContrast("resnet18", {**pixcontrast.recipe(), **changes})
    twin.load_state_dict(net.state_dict())
    x = [torch.randn(2, 3, 64, 64) for _ in range(2)]
    boxes = torch.tensor([[[0, 0, 1, 1], [0.2, 0, 0.8, 1]], [[1, 0, 0, 1], [0, 0, 1, 1]]])
    loss = net(x, boxes)
    loss.backward()
    assert all((p.grad is None) == name.startswith("key_") for name, p in net.named_parameters())
    q = [F.normalize(twin.projector(heads.last_map(twin.backbone, v)), dim=1) for v in x]
    k = [F.normalize(twin.key_projector(heads.last_map(twin.key_backbone, v)), dim=1) for v in x]
    expected = pixcontrast.contrast_loss(q[0], k[1], *boxes) + pixcontrast.contrast_loss(q[1], k[0], *boxes.flip(0))
    assert loss.item() == pytest.approx(expected.item() / 2, abs=1e-5)


def test_two_processes_with_half_the_batch_each_equal_one(two_processes):
    one, *two = two_processes("pixcontrast", sides=(96, 96), hidden=16, dim=8)
    for found in two:
        torch.testing.assert_close(found["loss"], one["loss"], rtol=1e-5, atol=1e-6)
        assert found["gradients"].keys() == one["gradients"].keys()
        for name, gradient in one["gradients"].items():
            scale = gradient.abs().max().item()
            torch.testing.assert_close(found["gradients"][name], gradient, rtol=0, atol=1e-4 * scale + 1e-7, msg=name)
    assert one["gradients"]["projector.0.weight"].abs().max() > 1e-3  # a map of one pixel would have no loss


def test_the_recipe_is_pixpros_but_for_the_temperature():
    recipe, other = pixcontrast.recipe(), pixpro.recipe()
    assert {key for key in recipe if key not in other} == {"temperature"}
    assert {key for key in other if key in recipe and recipe[key] != other[key]} == {"unverified"}
    assert recipe["temperature"] == 0.3
    with pytest.raises(ValueError, match="no variant of pixcontrast"):
        pixcontrast.recipe("v2")
