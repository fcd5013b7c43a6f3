"""Collectives and synchronised batch norm on gloo against one process; methods with more to share are tested in their own files."""

import pytest
import torch

from pretrain import dist

SMALL = {"hidden": 16, "dim": 8}
CASES = {
    "simsiam": ("simsiam", None, {"predictor_hidden": 8, "dim": 16}),
    "moco": ("moco", None, {"queue": 16, "bn_group": 4}),
    "moco_v3": ("moco_v3", None, SMALL),
    "simclr": ("simclr", "v1", {"dim": 8}),
    "byol": ("byol", None, SMALL),
    "barlowtwins": ("barlowtwins", None, {**SMALL, "single": ("normalised",)}),
    "vicreg": ("vicreg", None, SMALL),
    "dino": ("dino", None, {**SMALL, "prototypes": 6, "sides": (48, 48, 32)}),
    "rotation": ("rotation", None, {"sides": (32,)}),
    "relative_loc": ("relative_loc", None, {"hidden": 16, "sync_bn": True, "sides": (32,)}),
    "jigsaw": ("jigsaw", None, {"dim": 8, "permutations": 12, "sync_bn": True, "sides": (32,)}),
    "supervised": ("supervised", None, {"classes": 3, "sync_bn": True, "sides": (32,)}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_with_half_the_batch_each_equal_one(case, two_processes):
    method, variant, recipe = CASES[case]
    one, *two = two_processes(method, variant, **recipe)
    for found in two:
        torch.testing.assert_close(found["loss"], one["loss"], rtol=1e-5, atol=1e-6)
        assert set(found["gradients"]) == set(one["gradients"])
        for name, gradient in one["gradients"].items():
            scale = gradient.abs().max().item()
            torch.testing.assert_close(
                found["gradients"][name], gradient, rtol=1e-4, atol=1e-4 * scale + 1e-7, msg=name
            )
        if method != "moco":  # synchronised: the running statistics too are those of the whole batch
            for name, buffer in one["buffers"].items():
                torch.testing.assert_close(found["buffers"][name], buffer, rtol=1e-5, atol=1e-6, msg=name)
        else:
            torch.testing.assert_close(found["buffers"]["queue.queue"], one["buffers"]["queue.queue"])


def test_more_processes_than_gpus_are_refused_by_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ValueError, match=r"found 2 for process 3: torchrun --nproc-per-node 2$"):
        dist.process()


def test_what_is_wanted_later_is_copied_now_and_waited_for_then(monkeypatch):
    said = []

    class OnGPU:
        device = torch.device("cuda")

        def to(self, device, non_blocking):
            said.append("copy begun" if non_blocking else "copied")
            return torch.ones((), device=device)

    class Event:
        def record(self):
            said.append("noted")

        def synchronize(self):
            said.append("waited")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    known = dist.later(OnGPU())
    assert said == ["copy begun", "noted"]
    assert known() == 1
    assert said == ["copy begun", "noted", "waited"]
    assert dist.later(torch.ones(()))() == 1
