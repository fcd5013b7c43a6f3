import numpy as np
import pytest
import torch

from pretrain.methods import supervised


def test_supervised_is_cross_entropy_of_the_class_folders():
    torch.manual_seed(0)
    net = supervised.Supervised("resnet18", {**supervised.recipe(), "classes": 5})
    x, labels = torch.randn(6, 3, 32, 32), torch.tensor([0, 1, 2, 3, 4, 0])
    loss = net([x], labels=labels)
    with torch.no_grad():
        logits = net.head(net.backbone(x)).numpy()
    expected = np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(6), labels])
    assert loss.item() == pytest.approx(expected, rel=1e-4)
