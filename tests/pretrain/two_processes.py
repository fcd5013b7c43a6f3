"""One step of a method with the whole batch, in one process or shared out to several: `torchrun`'s environment, then this file.

    python two_processes.py

Standard input has a line of JSON for every step: method, variant, recipe (changes), batch, sides (of every view; a jigsaw's is that of
its patches), steps, single (the parts that the method gives single precision) and out, one path a process, which gets the mean loss,
the gradients and the buffers after the step. A line of output follows every step.
"""

import importlib
import json
import sys

import torch
from torch.nn.parallel import DistributedDataParallel

from pretrain import dist


def built(spec):
    """The model and its recipe, the same in every process."""
    module = importlib.import_module(f"pretrain.methods.{spec['method']}")
    recipe = {
        **module.recipe(spec["variant"]),
        "batch_size": spec["batch"],
        "images": 2 * spec["batch"],
        **spec["recipe"],
    }
    torch.manual_seed(0)
    net = module.METHOD("resnet18", recipe).double().train()
    for name in spec["single"]:
        net.get_submodule(name).float()
    return net, recipe


def whole_batch(spec, recipe):
    """The views, boxes, labels and numbers of all images."""
    generator = torch.Generator().manual_seed(1)
    n, views = spec["batch"], []
    for v, side in enumerate(spec["sides"]):
        shape = (n, 9, 3, side, side) if recipe.get("jigsaw") == v else (n, 3, side, side)
        views.append(torch.randn(shape, generator=generator, dtype=torch.double))
    corners = torch.rand(len(views), n, 4, generator=generator, dtype=torch.double)
    corners[..., 2:] = corners[..., :2] / 2 + 0.5
    corners[..., :2] /= 4
    labels = torch.randint(recipe.get("classes", 2), (n,), generator=generator)
    return views, corners, labels, torch.arange(n)


def step(spec, process=None):
    """loss, gradients and buffers by name; with `process`, this process's share of the work, summed up over all."""
    net, recipe = built(spec)
    views, boxes, labels, indices = whole_batch(spec, recipe)
    wrapped = net
    if process is not None:
        net = dist.synchronised(net, process.device) if recipe["sync_bn"] else net
        wrapped = DistributedDataParallel(net, broadcast_buffers=False)
        views, labels, indices = [dist.own(x) for x in views], dist.own(labels), dist.own(indices)
        boxes = torch.stack([dist.own(x) for x in boxes])
    torch.manual_seed(5)  # alike in every process, as in the loop
    if hasattr(net, "before_epoch"):
        net.before_epoch(0)
    if hasattr(net, "survey"):
        number = getattr(net, "survey_views", 1)
        net.survey(0, [([x + half for x in views[:number]], indices + half * spec["batch"]) for half in (0, 1)])
    for _ in range(spec.get("steps", 1)):
        net.zero_grad()
        loss = wrapped(views, boxes, labels, 0.25, indices)
        loss.backward()
    if hasattr(net, "after_update"):
        net.after_update(0.25)
    return {
        "loss": dist.gathered(loss.detach()[None]).mean(),
        "gradients": {name: p.grad for name, p in net.named_parameters() if p.grad is not None},
        "buffers": dict(net.named_buffers()),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    process = dist.process()
    for line in sys.stdin:
        spec = json.loads(line)
        torch.save(step(spec, process), spec["out"][process.rank])
        print("done", flush=True)
    dist.leave()
