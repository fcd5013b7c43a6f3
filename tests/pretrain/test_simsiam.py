import numpy as np
import pytest
import torch
from torch import nn

from pretrain.methods import simsiam


def test_the_loss_is_the_formula_in_numpy_and_gradient_stops_at_the_projections():
    torch.manual_seed(0)
    net = simsiam.SimSiam("resnet18", {**simsiam.recipe(), "dim": 32, "predictor_hidden": 8})
    x = [torch.randn(4, 3, 64, 64) for _ in range(2)]
    loss = net(x)
    with torch.no_grad():
        z = [net.projector(net.backbone(v)) for v in x]
        p = [net.predictor(v) for v in z]

    def cosine(a, b):
        a, b = a.numpy(), b.numpy()
        return (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)

    assert loss.item() == pytest.approx(-0.5 * (cosine(p[0], z[1]).mean() + cosine(p[1], z[0]).mean()), abs=1e-5)
    # with the predictor's last layer at zero no gradient can pass through p, and none may pass through z
    nn.init.zeros_(net.predictor[3].weight)
    net(x).backward()
    assert all(p.grad is None or not p.grad.any() for p in net.projector.parameters())


def test_the_architecture_is_builder_pys():
    net = simsiam.SimSiam("resnet50", simsiam.recipe())
    assert [tuple(m.weight.shape) for m in net.projector if isinstance(m, nn.Linear)] == [(2048, 2048)] * 3
    assert all(m.bias is None for m in net.projector if isinstance(m, nn.Linear))
    assert not net.projector[-1].affine
    assert [tuple(m.weight.shape) for m in net.predictor if isinstance(m, nn.Linear)] == [(512, 2048), (2048, 512)]
    assert net.predictor[0].bias is None
    assert net.predictor[3].bias is not None
    assert (net.backbone.layer1[0].bn3.weight == 0).all()
