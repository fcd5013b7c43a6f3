import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pretrain import contrast
from pretrain.methods import instdisc, pirl

IMAGES, WIDTH = 40, 8


def nce(logits, z, images):
    """lib/NCECriterion.py, one sample and one draw at a time."""
    noise, total = (logits.shape[1] - 1) / images, 0.0
    for row in logits:
        for column, logit in enumerate(row):
            p = np.exp(logit) / z
            total -= np.log(p / (p + noise + 1e-7) if column == 0 else noise / (p + noise + 1e-7))
    return total / len(logits)


def softmax(logits, target):
    return np.mean([np.log(np.exp(row).sum()) - row[i] for row, i in zip(logits, target, strict=True)])


def instances(variant, **changes):
    torch.manual_seed(0)
    recipe = {**instdisc.recipe(variant), "images": IMAGES, "dim": WIDTH, **changes}
    return contrast.Instances({**recipe, "negatives": min(recipe["negatives"], 12)}).double()


def embeddings(n=5, seed=1):
    v = np.random.default_rng(seed).normal(size=(n, WIDTH))
    return v / np.linalg.norm(v, axis=1, keepdims=True)


def seen(of, v, indices, seed=3):
    """Loss and gradient of Instances for embeddings v, and the rows of the bank that it drew."""
    torch.manual_seed(seed)
    columns = of.columns(indices).numpy()
    torch.manual_seed(seed)
    x = torch.tensor(v, requires_grad=True)
    loss, _ = of(x, indices)
    loss.backward()
    return loss.item(), x.grad.numpy(), columns


def test_z_is_the_first_batchs_mean_of_exp_times_the_images_and_then_a_constant(slope):
    of, indices = instances("nce"), torch.tensor([3, 0, 39, 7, 7])
    bank = of.bank.bank.numpy()
    assert of.z == 0
    v = embeddings()
    loss, gradient, columns = seen(of, v, indices)
    logits = lambda a: np.einsum("nc,nkc->nk", a, bank[columns]) / 0.07  # noqa: E731
    z = np.exp(logits(v)).mean() * IMAGES
    assert of.z.item() == pytest.approx(z, rel=1e-10)
    assert loss == pytest.approx(nce(logits(v), z, IMAGES), rel=1e-10)
    # no gradient through z: the slope of the formula in which z stands still
    np.testing.assert_allclose(gradient, slope(lambda a: nce(logits(a), z, IMAGES), v), atol=1e-5)
    again, _, columns = seen(of, embeddings(seed=2), indices, seed=4)
    assert of.z.item() == pytest.approx(z, rel=1e-10)
    assert again == pytest.approx(nce(logits(embeddings(seed=2)), z, IMAGES), rel=1e-10)


def test_the_softmax_over_drawn_negatives_and_its_gradient_are_the_formula(slope):
    of, indices, v = instances("softmax"), torch.tensor([3, 0, 39, 7, 1]), embeddings()
    loss, gradient, columns = seen(of, v, indices)
    formula = lambda a: softmax(np.einsum("nc,nkc->nk", a, of.bank.bank.numpy()[columns]) / 0.07, [0] * 5)  # noqa: E731
    assert columns.shape == (5, 13)
    assert loss == pytest.approx(formula(v), rel=1e-10)
    np.testing.assert_allclose(gradient, slope(formula, v), atol=1e-5)
    assert of.z == 0


def test_the_full_softmax_is_cross_entropy_over_every_image():
    of, indices, v = instances("full"), torch.tensor([3, 0, 39, 7, 1]), embeddings()
    loss, gradient, columns = seen(of, v, indices)
    bank = of.bank.bank.numpy()
    logits = v @ bank.T / 0.07
    assert loss == pytest.approx(softmax(logits, indices.tolist()), rel=1e-10)
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    p[np.arange(5), indices.numpy()] -= 1
    np.testing.assert_allclose(gradient, p @ bank / 0.07 / 5, atol=1e-10)
    assert (np.sort(columns, axis=1) == np.arange(IMAGES)).all()


def test_the_positive_stands_first_and_the_negatives_are_uniform():
    of = instances("nce", negatives=12)
    indices = torch.arange(IMAGES).repeat(100)
    columns = of.columns(indices)
    assert torch.equal(columns[:, 0], indices)
    counts = torch.bincount(columns[:, 1:].flatten(), minlength=IMAGES)
    expected = 100 * 12.0  # a multinomial's standard deviation is its root
    assert (counts - expected).abs().max() < 5 * math.sqrt(expected)
    assert (columns[:, 1:] == indices[:, None]).any()  # a draw may hit the positive again, as in the code


@pytest.mark.parametrize("variant", ["nce", "softmax"])
def test_a_draw_of_the_image_itself_does_not_count_against_the_accuracy(variant):
    of, indices = instances(variant), torch.tensor([3, 0, 39, 7])
    of.bank.bank.copy_(F.normalize(of.bank.bank, dim=1))
    of.columns = lambda indices: torch.stack([indices, indices, (indices + 1) % IMAGES, indices], dim=1)
    v = of.bank.bank[indices].clone()
    assert of(v, indices)[1] == 100
    v[0] = of.bank.bank[4]  # the first image's other negative, which does count
    assert of(v, indices)[1] == 75


def test_the_bank_moves_half_way_and_every_row_is_brought_to_unit_length():
    of, indices, v = instances("nce"), torch.tensor([3, 0, 39, 7, 1]), embeddings()
    before = of.bank.bank.numpy().copy()
    assert np.abs(before).max() <= math.sqrt(3 / WIDTH)
    of.update(indices, torch.tensor(v))
    expected = before.copy()
    for row, i in enumerate(indices.tolist()):
        mixed = 0.5 * before[i] + 0.5 * v[row]
        expected[i] = mixed / np.sqrt((mixed**2).sum())
    np.testing.assert_allclose(of.bank.bank.numpy(), expected, atol=1e-12)


def test_the_embeddings_of_a_fresh_bank_are_about_unit_length():
    torch.manual_seed(0)
    bank = contrast.Instances({**instdisc.recipe(), "images": 2000}).bank.bank
    assert bank.norm(dim=1).mean().item() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("variant", ["nce", "softmax", "full"])
def test_the_method_is_head_loss_and_an_update_after_the_step(variant):
    def model():
        torch.manual_seed(0)
        return instdisc.InstDisc(
            "resnet18",
            {**instdisc.recipe(variant), "images": 20, "bn_group": 2, "negatives": 0 if variant == "full" else 6},
        )

    # in double: batch norm of two 1 x 1 maps makes much of the last bits
    net, twin = model().double(), model().double()
    x, indices = torch.randn(4, 3, 32, 32).double(), torch.tensor([1, 5, 19, 0])
    torch.manual_seed(2)
    loss = net([x], indices=indices)
    loss.backward()
    with torch.no_grad():
        v = F.normalize(twin.head(torch.cat([twin.backbone(part) for part in x.split(2)])), dim=1)
        torch.manual_seed(2)
        expected, _ = twin.instances(v, indices)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert all(p.grad is not None for p in net.parameters())
    assert torch.equal(net.instances.bank.bank, twin.instances.bank.bank)  # not before the optimiser's step
    net.after_update(0.0)
    mixed = F.normalize(0.5 * twin.instances.bank.bank[indices] + 0.5 * v, dim=1)
    torch.testing.assert_close(net.instances.bank.bank[indices], mixed, atol=1e-4, rtol=0)
    torch.testing.assert_close(net.instances.bank.bank[2:5], twin.instances.bank.bank[2:5], atol=0, rtol=0)


@pytest.mark.parametrize("method", [instdisc, pirl])
def test_a_bank_that_begins_with_the_images_holds_their_embeddings_before_the_first_step_alone(method):
    recipe = {**method.recipe(), "images": 8, "bn_group": 2, "negatives": 6}
    torch.manual_seed(0)
    net = method.METHOD("resnet18", {**recipe, "bank_start": "images"})
    x, indices = torch.randn(8, 3, 32, 32), torch.tensor([5, 1, 0, 2, 7, 3, 6, 4])
    net.survey(0, [([x[:4]], indices[:4]), ([x[4:]], indices[4:])])
    with torch.no_grad():
        v = F.normalize(net.head(torch.cat([net.backbone(part) for part in x.split(2)])), dim=1)
    torch.testing.assert_close(net.instances.bank.bank[indices], v, atol=1e-3, rtol=0)
    net.survey(1, iter(lambda: 1 / 0, None))  # nothing is looked at again
    torch.manual_seed(0)
    published = method.METHOD("resnet18", recipe)
    bank = published.instances.bank.bank.clone()
    published.survey(0, iter(lambda: 1 / 0, None))
    assert torch.equal(published.instances.bank.bank, bank)


def test_the_variants_differ_in_form_and_number_of_negatives():
    recipes = [instdisc.recipe(variant) for variant in ("softmax", "nce", "full")]
    assert [(r["form"], r["negatives"]) for r in recipes] == [("softmax", 65536), ("nce", 4096), ("softmax", 0)]
    assert {key for key in recipes[0] if recipes[0][key] != recipes[1][key]} == {"variant", "form", "negatives"}
    assert instdisc.recipe() == recipes[0]
    with pytest.raises(ValueError, match="softmax, nce, full"):
        instdisc.recipe("crop")
