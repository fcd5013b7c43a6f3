"""The losses against many negatives, and two processes against one for the methods that keep a queue or a bank."""

import numpy as np
import pytest
import torch

from pretrain import contrast


def nce(logits, z, images):
    """zhirongw/lemniscate.pytorch lib/NCECriterion.py, one sample and one draw at a time."""
    noise, total = (logits.shape[1] - 1) / images, 0.0
    for row in logits:
        for column, logit in enumerate(row):
            p = np.exp(logit) / z
            total -= np.log(p / (p + noise + 1e-7) if column == 0 else noise / (p + noise + 1e-7))
    return total / len(logits)


def infonce(q, k, queue, temperature):
    logits = np.concatenate([(q * k).sum(axis=1, keepdims=True), q @ queue], axis=1) / temperature
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[:, 0])


def test_nce_and_its_gradient_are_the_formula(slope):
    logits = np.random.default_rng(0).normal(size=(4, 7))
    x = torch.tensor(logits, requires_grad=True)
    loss = contrast.nce_loss(x, torch.tensor(3.0, requires_grad=True), 50)
    loss.backward()
    assert loss.item() == pytest.approx(nce(logits, 3.0, 50), abs=1e-10)
    np.testing.assert_allclose(x.grad.numpy(), slope(lambda a: nce(a, 3.0, 50), logits), atol=1e-6)


def unit(*shape, seed=0):
    x = np.random.default_rng(seed).normal(size=shape)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_infonce_against_a_queue_and_its_gradient_are_the_formula_and_the_key_gets_none(slope):
    q, k, queue = unit(5, 6), unit(5, 6, seed=1), unit(9, 6, seed=2).T.copy()
    x, key = torch.tensor(q, requires_grad=True), torch.tensor(k, requires_grad=True)
    loss = contrast.softmax_loss(contrast.queue_logits(x, key, torch.tensor(queue), 0.15))
    loss.backward()
    assert loss.item() == pytest.approx(infonce(q, k, queue, 0.15), abs=1e-10)
    np.testing.assert_allclose(x.grad.numpy(), slope(lambda a: infonce(a, k, queue, 0.15), q), atol=1e-6)
    assert key.grad is None


def test_accuracy_counts_the_rows_whose_positive_stands_alone_at_the_top():
    logits = torch.tensor([[2.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 2.0], [3.0, -1.0, 2.0]])
    assert contrast.accuracy(logits) == 50


CASES = {
    "instdisc": ("nce", (32,), {"negatives": 6, "bank_start": "images"}),
    "pirl": ("vissl", (32, 16), {"negatives": 6, "bank_start": "images"}),
    "infomin": (None, (32, 32, 16), {"queue": 16}),
    "pic": ("multi", (48, 32, 32, 32), {"hidden": 16, "recent": 2}),
    "clsa": ("single", (48, 48, 32), {"queue": 16}),
    "densecl": ("imagenet", (64, 64), {"queue": 16}),
}


@pytest.mark.parametrize("method", CASES)
def test_two_processes_with_half_the_batch_each_equal_one_that_normalises_the_same_groups(method, two_processes):
    variant, sides, changes = CASES[method]
    one, *two = two_processes(method, variant, sides=sides, dim=8, bn_group=4, **changes)
    for found in two:
        torch.testing.assert_close(found["loss"], one["loss"], rtol=1e-5, atol=1e-6)
        assert set(found["gradients"]) == set(one["gradients"])
        for name, gradient in one["gradients"].items():
            apart = (found["gradients"][name] - gradient).abs().max()
            assert apart <= 1e-4 * gradient.abs().max() + 1e-7, name
        for name, memory in one["buffers"].items():  # queues, banks, z and the recent images, after the step
            if not any(part in name for part in ("running_", "num_batches")):
                torch.testing.assert_close(found["buffers"][name], memory, rtol=1e-4, atol=1e-5, msg=name)
