"""Parts of a batch in two processes (gloo): the gradients are exchanged once, and are those of the whole batch in one process."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

METHODS = ["supervised", "simsiam", "byol"]


def pretraining(folder, method, parts):
    """The loss and the gradients of a step of eight images, without batch norm."""
    from pretrain import data, loop

    module = importlib.import_module(f"pretrain.methods.{method}")
    photos = data.Folder(folder)
    recipe = loop.resolved(module, photos, "mini", None, 1, 8, {"size": "32", "precision": "fp32"})
    torch.manual_seed(0)
    model = module.METHOD("resnet18", recipe)
    for part in model.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
            part.train = lambda mode=True, part=part: part  # stays as it is:
            part.training = False
    run_of = {"method": method, "arch": "resnet18", "recipe": recipe, "seed": 0, "accumulate": parts}
    training = loop.Training(model, photos, run_of, loop.dist.process())
    loss = float(training.update(*training.source.batch(0))["loss"])
    return loss, {name: p.grad for name, p in training.model.named_parameters() if p.grad is not None}


def linear(folder, out, parts):
    """The linear classifier that is learnt on frozen features, whose batch norm no batch changes."""
    from bench import journey
    from downstream import checkpoint, classification, task

    changes = {"epochs": "1", "steps": "[1]", "batch": "20", "view": "32", "resize": "36", "precision": "fp32"}
    protocol = task.accumulated(journey.resolve("imagenet_linear", "mini", changes), parts)
    classification.run(protocol, None, task.TRAITS, "resnet18", folder, out, 0)
    return checkpoint.load(out, {})["model"]["weight"]


def main(folder, out, parts):
    """Everything, by the processes there are; the first one's stays in out/all.pt."""
    found = {method: pretraining(folder / "photos", method, parts) for method in METHODS}
    found["linear"] = linear(folder / "drawn", out, parts)
    if os.environ.get("RANK", "0") == "0":
        torch.save(found, out / "all.pt")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What one process makes of whole batches, and two of theirs in two parts each."""
    from downstream import synthetic

    folder, chance = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / "photos" / name).mkdir(parents=True)
        for i in range(8):
            cv2.imwrite(str(folder / "photos" / name / f"{i}.png"), chance.integers(0, 256, (40, 40, 3), np.uint8))
    synthetic.synthesize(folder / "drawn", seed=0, voc=0, coco=0, cityscapes=0, imagenet=2)
    answers = []
    for processes, parts in ((1, 1), (2, 2)):
        out = tmp_path_factory.mktemp("out")
        start = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        call = [*start, __file__, json.dumps([str(folder), str(out), parts])]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "Warning" not in done.stderr  # every process would say it
        answers.append(torch.load(out / "all.pt"))
    return answers


@pytest.mark.parametrize("method", METHODS)
def test_a_pretraining_step_in_parts_of_two_processes_is_the_step_of_the_whole_batch(method, found):
    (loss, gradients), (first_share, in_parts) = found[0][method], found[1][method]
    assert gradients.keys() == in_parts.keys()
    assert first_share == pytest.approx(loss, rel=0.5)  # of half the images
    for name, gradient in gradients.items():
        torch.testing.assert_close(in_parts[name], gradient, rtol=1e-3, atol=1e-4 * gradient.abs().max().item() + 1e-9)


def test_a_linear_classifier_learns_the_same_from_parts_in_two_processes(found):
    whole, in_parts = (answer["linear"] for answer in found)
    assert whole.abs().max() > 1
    assert (whole - in_parts).abs().max() < 1e-4 * whole.abs().max()


if __name__ == "__main__":
    import bench  # noqa: F401  what users start

    folder, out, parts = json.loads(sys.argv[1])
    main(Path(folder), Path(out), parts)
