import numpy as np
import pytest
import torch
from torch import nn

from pretrain.methods import vicreg


def variance(z):
    """arXiv 2105.04906, equation 1: the mean hinge on the standard deviation of every output."""
    return np.mean([max(0, 1 - np.sqrt(np.var(column, ddof=1) + 1e-4)) for column in z.T])


def covariance(z):
    """arXiv 2105.04906, equations 3 and 4."""
    c = np.cov(z, rowvar=False)
    return sum(c[i, j] ** 2 for i in range(len(c)) for j in range(len(c)) if i != j) / len(c)


@pytest.mark.parametrize("term", [variance, covariance])
def test_the_terms_and_their_gradients_are_the_papers_formulas(term, slope):
    z = np.random.default_rng(0).normal(size=(6, 4)) * (0.2, 0.7, 1.5, 0.9)  # the third output varies enough
    x = torch.tensor(z, requires_grad=True)
    loss = getattr(vicreg, f"{term.__name__}_loss")(x)
    loss.backward()
    assert loss.item() == pytest.approx(term(z), abs=1e-10)
    np.testing.assert_allclose(x.grad.numpy(), slope(term, z), atol=1e-6)
    if term is variance:
        assert not x.grad[:, 2].any()


def test_the_method_weighs_invariance_variance_and_covariance_as_main_vicreg_does():
    torch.manual_seed(0)
    net = vicreg.VICReg("resnet18", {**vicreg.recipe(), "hidden": 16, "dim": 8})
    images = [torch.randn(6, 3, 32, 32) for _ in range(2)]
    loss = net(images)
    loss.backward()
    x, y = (net.projector(net.backbone(v)).detach().double().numpy() for v in images)
    expected = 25 * np.mean((x - y) ** 2) + 25 * (variance(x) + variance(y)) / 2 + covariance(x) + covariance(y)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert all(p.grad is not None for p in net.parameters())
    found = [float(net.statistics[name]) for name in ("invariance", "variance", "covariance")]
    assert np.dot(found, [25, 25, 1]) == pytest.approx(expected, rel=1e-5)


def test_collapsed_outputs_cost_the_whole_variance_term_and_push_apart():
    z = torch.full((4, 3), 0.5, dtype=torch.float64)
    assert vicreg.variance_loss(z).item() == pytest.approx(0.99)  # 1 - sqrt(1e-4)
    assert vicreg.covariance_loss(z).item() == 0
    z[0] += 1e-3
    z.requires_grad_()
    vicreg.variance_loss(z).backward()
    assert (z.grad[0] < 0).all()


def test_the_expander_is_projectors():
    net = vicreg.VICReg("resnet18", {**vicreg.recipe(), "hidden": 32, "dim": 24})
    assert [type(part) for part in net.projector] == [nn.Linear, nn.BatchNorm1d, nn.ReLU] * 2 + [nn.Linear]
    linear = [part for part in net.projector if isinstance(part, nn.Linear)]
    assert [tuple(part.weight.shape) for part in linear] == [(32, 512), (32, 32), (24, 32)]
    assert [part.bias is not None for part in linear] == [True, True, False]
    assert (vicreg.recipe()["hidden"], vicreg.recipe()["dim"]) == (8192, 8192)


def test_the_variants_are_the_readmes_two_commands():
    long, short = vicreg.recipe(), vicreg.recipe("100ep")
    assert [[r[key] for key in ("epochs", "batch_size", "base_lr")] for r in (long, short)] == [
        [1000, 2048, 0.2],
        [100, 512, 0.3],
    ]
    with pytest.raises(ValueError, match="1000ep or 100ep"):
        vicreg.recipe("200ep")
