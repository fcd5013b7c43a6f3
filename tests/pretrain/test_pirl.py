import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pretrain import jigsaw
from pretrain.methods import pirl


def model(variant=None, **changes) -> pirl.PIRL:
    torch.manual_seed(0)
    small = {"images": 30, "negatives": 6, "dim": 8, "bn_group": 2}
    return pirl.PIRL(
        "resnet18", {**pirl.recipe(variant), **small, **changes}
    ).double()  # batch norm of two images magnifies rounding


def views(n=4):
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(n, 3, 32, 32, generator=generator, dtype=torch.float64),
        torch.randn(n, 9, 3, 16, 16, generator=generator, dtype=torch.float64),
    ]


def test_the_patches_of_an_image_are_permuted_among_themselves_and_all_orders_occur():
    x = torch.arange(9).expand(2000, 9)[..., None] + 100 * torch.arange(2000)[:, None, None]
    torch.manual_seed(0)
    out = jigsaw.shuffled(x)
    assert torch.equal(out.sort(dim=1).values, x)
    counts = F.one_hot(out[:, :, 0] % 100, 9).sum(dim=0)  # how often patch j came to place i: 2000 / 9 each
    assert (counts - 2000 / 9).abs().max() < 5 * np.sqrt(2000 * 1 / 9 * 8 / 9)


def test_the_jigsaw_head_and_its_gradient_are_the_formula_in_numpy(slope):
    torch.manual_seed(0)
    head = jigsaw.Jigsaw(nn.Linear(5, 3), 3)
    features = torch.randn(18, 5, generator=torch.Generator().manual_seed(1))
    patches = torch.zeros(2, 9, 3, 4, 4)
    x = features.clone().requires_grad_()
    torch.manual_seed(2)
    out = head(lambda flat: x[: len(flat)], patches, 2)
    aim = np.random.default_rng(0).normal(size=(2, 3))
    (out * torch.tensor(aim)).sum().backward()
    torch.manual_seed(2)
    order = torch.rand(2, 9).argsort(dim=1).numpy()
    a, b = (p.detach().double().numpy() for p in head.projection.parameters())
    c, d = (p.detach().double().numpy() for p in head.together.parameters())

    def formula(f):
        rows = []
        for i in range(2):
            line = np.concatenate([a @ f[9 * i + j] + b for j in order[i]])
            rows.append((c @ line + d) / np.linalg.norm(c @ line + d))
        return np.array(rows)

    np.testing.assert_allclose(out.detach().numpy(), formula(features.double().numpy()), atol=1e-6)
    expected = slope(lambda f: (formula(f) * aim).sum(), features.double().numpy())
    np.testing.assert_allclose(x.grad.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("variant", ["vissl", "pycontrast"])
def test_the_loss_is_the_weighted_mean_of_both_embeddings_against_the_bank(variant):
    net, twin = model(variant, patch_weight=0.3), model(variant, patch_weight=0.3)
    (image, patches), indices = views(), torch.tensor([3, 29, 0, 11])
    torch.manual_seed(5)
    loss = net([image, patches], indices=indices)
    torch.manual_seed(5)
    with torch.no_grad():
        v_patches = twin.jigsaw(twin.backbone, patches, 2)
        v = F.normalize(twin.head(torch.cat([twin.backbone(part) for part in image.split(2)])), dim=1)
        bank, rows = twin.instances.bank.bank.double().numpy(), []
        for one in (v_patches, v):
            columns = twin.instances.columns(indices).numpy()
            rows.append(np.einsum("nc,nkc->nk", one.double().numpy(), bank[columns]) / 0.07)
    if variant == "vissl":
        z, noise = np.exp(rows[0]).mean() * 30, 6 / 30  # the patches come first and fix z for both
        p = [np.exp(row) / z for row in rows]
        parts = [
            -np.mean(np.log(q[:, 0] / (q[:, 0] + noise)) + np.log(noise / (q[:, 1:] + noise)).sum(axis=1)) for q in p
        ]
    else:
        parts = [np.mean(np.log(np.exp(row).sum(axis=1)) - row[:, 0]) for row in rows]
    assert loss.item() == pytest.approx(0.3 * parts[0] + 0.7 * parts[1], rel=1e-4)


def test_every_trainable_tensor_gets_a_gradient_and_the_bank_takes_the_image_not_its_patches():
    net, indices = model(), torch.tensor([3, 29, 0, 11])
    before = net.instances.bank.bank.clone()
    net(views(), indices=indices).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
    assert torch.equal(net.instances.bank.bank, before)
    twin = model()
    with torch.no_grad():
        v = F.normalize(twin.head(torch.cat([twin.backbone(part) for part in views()[0].split(2)])), dim=1)
    net.after_update(0.0)
    expected = before.clone()
    expected[indices] = F.normalize(0.5 * before[indices] + 0.5 * v, dim=1)
    torch.testing.assert_close(net.instances.bank.bank, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("variant", "sizes"), [("vissl", (36, 4)), ("pycontrast", (4, 36))])
def test_batch_norm_sees_the_patches_of_one_group_of_images_and_what_the_authors_pass_last(variant, sizes):
    net, outs = model(variant), []
    net.backbone.bn1.register_forward_hook(lambda _, __, out: outs.append(out.detach().clone()))
    net(views(), indices=torch.arange(4))
    assert tuple(len(out) for out in outs) == sizes
    for out, size in ((out, len(out) // 2) for out in outs):  # of two images
        for group in out.split(size):
            assert group.mean(dim=(0, 2, 3)).abs().max() < 1e-5
        assert out[: size // 2].mean(dim=(0, 2, 3)).abs().max() > 1e-3


def test_the_recipes_are_the_two_codes():
    vissl, pycontrast = pirl.recipe("vissl"), pirl.recipe()
    assert vissl["base_lr"] * vissl["batch_size"] / 256 == pytest.approx(0.12)
    assert (vissl["form"], vissl["negatives"], vissl["epochs"]) == ("nce", 32000, 800)
    assert (pycontrast["form"], pycontrast["negatives"], pycontrast["epochs"]) == ("softmax", 65536, 200)
    assert pirl.recipe("pycontrast") == pycontrast
    with pytest.raises(ValueError, match="pycontrast or vissl"):
        pirl.recipe("mlp")
