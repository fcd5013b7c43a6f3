"""Collectives and synchronised batch norm on gloo against one process, for every method that gathers, shuffles or synchronises."""

import pytest
import torch

SMALL = {"hidden": 16, "dim": 8}
CASES = {
    "simsiam": ("simsiam", None, {"predictor_hidden": 8, "dim": 16}),
    "moco": ("moco", None, {"queue": 16, "bn_group": 4}),
    "pixpro": ("pixpro", None, SMALL),
    "pixcontrast": ("pixcontrast", None, SMALL),
    "simclr": ("simclr", "v1", {"dim": 8}),
    "byol": ("byol", None, SMALL),
    "barlowtwins": ("barlowtwins", None, SMALL),
    "vicreg": ("vicreg", None, SMALL),
    "swav": ("swav", "400ep_2x224", {**SMALL, "prototypes": 6}),
    "supervised": ("supervised", None, {"classes": 3, "sync_bn": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_with_half_the_batch_each_equal_one(case, two_processes):
    method, variant, recipe = CASES[case]
    sides = (32,) if method == "supervised" else (32, 32)
    one, *two = two_processes(method, variant, sides=sides, **recipe)
    for found in two:
        torch.testing.assert_close(found["loss"], one["loss"], rtol=1e-5, atol=1e-6)
        assert set(found["gradients"]) == set(one["gradients"])
        for name, gradient in one["gradients"].items():
            scale = gradient.abs().max().item()
            torch.testing.assert_close(
                found["gradients"][name], gradient, rtol=1e-4, atol=1e-4 * scale + 1e-7, msg=name
            )
