"""Training steps against the plain loop, and a whole pretraining against the plain loop behind the plain loader.

step      a step on a batch that is there already, bfloat16 and channels-last as `bench pretrain ... precision=bf16` trains, against
          the step as the published repositories have it, in float32 and contiguous: MoCo v2 with ResNet-50 at 224 pixels, batch 16
          (3.2 times) and with ResNet-18 at 64 pixels, batch 128 (2.1 times); SimCLR, BYOL, SwAV and PixPro with ResNet-18 at 64
          pixels, batch 128 (2 times each). Ours take uint8 views and normalise them, log the loss and look whether it is finite.
          And a matrix product in bfloat16 against one in float32: what the machine has to give, without a target
pretrain  images a second from JPEG files to weights, MoCo v2 with ResNet-18 at 64 pixels, batch 128: torchvision's transforms on
          PIL in a DataLoader with as many workers as there are cores, and the plain step: at least 2.5 times. And the seconds that
          our step waits for its loader, as a share of the step: at most 0.05.

torch.compile is not used: on the AVX-512 CPU this was written on, a step of torchvision's ResNet-18 at 64 pixels, batch 128, took 1.1
times as long with it and one of ResNet-50 at 224 pixels, batch 16, as long as without, after a minute of compilation. Most of a
step are oneDNN's convolutions (two thirds with ResNet-18), which it leaves as they are; bfloat16 doubles their peak there (AVX-512 BF16, no AMX) and no more.

The plain loops run in a process of their own, because this one keeps the memory that a step frees, as `bench pretrain` does
(bench/allocator.py), and theirs would profit.

The plain steps follow facebookresearch/moco main_moco.py and moco/builder.py; for the other methods the same loop around the
published loss.
"""

import copy
import multiprocessing
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import allocator, bfloat16
from bench.speed import Row, apart, cost, faster, loading

IMAGES = 1280  # of the folder of `pretrain`; the ten batches of an epoch


def step(folder: Path) -> list[Row]:
    """MoCo v2 at the two sizes, the other methods at the smaller one, and the machine's own ratio."""
    allocator.keep()
    bfloat16.make_fast()
    rows = [_compared("moco", "resnet50", 224, 16, 3.2), _compared("moco", "resnet18", 64, 128, 2.1)]
    return [*rows, *(_compared(method, "resnet18", 64, 128, 2.0) for method in PLAIN), _product()]


def _compared(method: str, arch: str, side: int, batch: int, target: float) -> Row:
    training, pixels = _ours(method, arch, side, batch)
    name = "moco v2" if method == "moco" else method
    against = f"the plain fp32 step: {name}, {arch.replace('resnet', 'ResNet-')}, {side} px, batch {batch}"
    with apart(_plain_step, method, arch, side, batch) as theirs:
        return faster("step", against, target, lambda: _step(training, pixels), theirs)


def _plain_step(method: str, arch: str, side: int, batch: int) -> Callable[[], float]:
    training, pixels = _ours(method, arch, side, batch)
    if method in PLAIN:
        return PLAIN[method](training, pixels)
    loop, views = plain_moco(arch, training.recipe["queue"]), _floats(training, pixels)
    return lambda: loop(views)


def _product() -> Row:
    """How many times as fast as float32 bfloat16 multiplies matrices here."""
    import torch

    side = 2048
    a, b = torch.randn(2, side, side)
    half = (a.bfloat16(), b.bfloat16())
    against = f"float32's product of {side:,} x {side:,} matrices: bfloat16's, no more than which a step can gain by it"
    return faster("step", against, None, lambda: torch.mm(*half), lambda: torch.mm(a, b))


def _ours(method: str, arch: str, side: int, batch: int) -> tuple[Any, Any]:
    """A training of the method in bfloat16, by its recipe at the mini scale (64 pixels) or the published one, and a batch."""
    import numpy
    import torch

    from bench import catalog
    from pretrain import dist, loop, recipes
    from pretrain.data import Folder, Paths

    class Blank(Folder):
        """Images of which only the number is asked."""

        def __init__(self) -> None:
            self.root, self.paths = Path("blank"), Paths(Path("blank"))
            for _ in range(20_000):
                self.paths.append("0.png")
            self.labels, self.classes = numpy.zeros(len(self.paths), numpy.int64), ["0", "1"]

    folder, module = Blank(), catalog.load("method", method)
    scale = "mini" if side == 64 else "paper"
    recipe = recipes.resolved(module, folder, scale, batch_size=batch, overrides={"precision": "bf16"})
    torch.manual_seed(0)
    model = module.METHOD(arch, recipe).to(memory_format=torch.channels_last)
    training = loop.Training(model, folder, {"recipe": recipe, "seed": 0}, dist.process())
    sides = recipe["size"] if isinstance(recipe["size"], tuple) else (recipe["size"],) * recipe["views"]
    pixels = [torch.randint(0, 256, (batch, s, s, 3), dtype=torch.uint8) for s in sides]
    corners = torch.rand(len(sides), batch, 4)
    corners[..., 2:] = corners[..., :2] / 2 + 0.5
    corners[..., :2] /= 4
    return training, (pixels, corners, torch.zeros(batch, dtype=torch.long), torch.arange(batch))


def _step(training: Any, batch: Any) -> None:
    training.update(*batch)
    training.check()


def _floats(training: Any, batch: Any) -> list[Any]:
    """The batch's views as a loader behind ToTensor and Normalize gives them: float32 [N, 3, S, S], contiguous."""
    return [training.normalised(pixels).contiguous() for pixels in batch[0]]


def plain_moco(arch: str, keys: int) -> Callable[[list[Any]], float]:
    """A step of facebookresearch/moco with --mlp --moco-t 0.2 --cos on one device: the loss after views [q, k]."""
    import torch
    import torchvision
    from torch import nn

    torch.manual_seed(0)
    encoder_q = torchvision.models.get_model(arch, num_classes=128)
    width = encoder_q.fc.weight.shape[1]
    encoder_q.fc = nn.Sequential(nn.Linear(width, width), nn.ReLU(), encoder_q.fc)
    encoder_k = copy.deepcopy(encoder_q)
    for parameter in encoder_k.parameters():
        parameter.requires_grad = False
    queue, pointer = nn.functional.normalize(torch.randn(128, keys), dim=0), torch.zeros(1, dtype=torch.long)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(encoder_q.parameters(), 0.03, momentum=0.9, weight_decay=1e-4)

    def step(views: list[Any]) -> float:
        q = nn.functional.normalize(encoder_q(views[0]), dim=1)
        with torch.no_grad():
            _plain_follow(encoder_k, encoder_q, 0.999)
            shuffle = torch.randperm(len(views[1]))
            k = nn.functional.normalize(encoder_k(views[1][shuffle]), dim=1)[torch.argsort(shuffle)]
        positive = torch.einsum("nc,nc->n", q, k).unsqueeze(-1)
        negative = torch.einsum("nc,ck->nk", q, queue.clone().detach())
        logits = torch.cat([positive, negative], dim=1) / 0.2
        start = int(pointer)
        queue[:, start : start + len(k)] = k.T
        pointer[0] = (start + len(k)) % keys
        return _plain_update(optimizer, criterion(logits, torch.zeros(len(logits), dtype=torch.long)))

    return step


def _plain_follow(key: Any, query: Any, m: float) -> None:
    for k, q in zip(key.parameters(), query.parameters(), strict=True):
        k.data = k.data * m + q.data * (1.0 - m)


def _plain_update(optimizer: Any, loss: Any) -> float:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def _plain(training: Any, batch: Any) -> tuple[Any, Any, list[Any]]:
    """The method's network in float32 and contiguous, torch's SGD over it, and float views: what a plain loop begins with."""
    import torch

    model = copy.deepcopy(training.model).to(memory_format=torch.contiguous_format)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return model, torch.optim.SGD(learning, 0.03, momentum=0.9, weight_decay=1e-4), _floats(training, batch)


def _plain_simclr(training: Any, batch: Any) -> Callable[[], float]:
    import torch
    from torch import nn

    model, optimizer, views = _plain(training, batch)
    criterion, images = nn.CrossEntropyLoss(), len(views[0])

    def step() -> float:
        z = nn.functional.normalize(model.head(model.backbone(torch.cat(views))), dim=1)
        similarity = (z @ z.T / 0.1).masked_fill(torch.eye(2 * images, dtype=torch.bool), -1e9)
        partner = torch.cat([torch.arange(images) + images, torch.arange(images)])
        return _plain_update(optimizer, criterion(similarity, partner))

    return step


def _plain_byol(training: Any, batch: Any) -> Callable[[], float]:
    import torch
    from torch import nn

    model, optimizer, views = _plain(training, batch)
    online, target = (
        nn.Sequential(model.backbone, model.projector),
        nn.Sequential(model.target_backbone, model.target_projector),
    )

    def step() -> float:
        predictions = [model.predictor(online(x)) for x in views]
        with torch.no_grad():
            targets = [target(x) for x in views]
        similarity = nn.functional.cosine_similarity
        losses = [2 - 2 * similarity(p, z).mean() for p, z in zip(predictions, targets[::-1], strict=True)]
        loss = _plain_update(optimizer, losses[0] + losses[1])
        with torch.no_grad():
            _plain_follow(target, online, 0.99)
        return loss

    return step


def _plain_swav(training: Any, batch: Any) -> Callable[[], float]:
    import torch
    from torch import nn

    model, optimizer, views = _plain(training, batch)
    sizes = [2, len(views) - 2]

    @torch.no_grad()
    def sinkhorn(scores: Any) -> Any:
        q = torch.exp(scores / 0.03).t()
        q /= torch.sum(q)
        for _ in range(3):
            q /= torch.sum(q, dim=1, keepdim=True) * q.shape[0]
            q /= torch.sum(q, dim=0, keepdim=True) * q.shape[1]
        return (q * q.shape[1]).t()

    def step() -> float:
        with torch.no_grad():
            model.prototypes.weight.copy_(nn.functional.normalize(model.prototypes.weight.data.clone(), dim=1, p=2))
        crops = [torch.cat(part) for part in (views[: sizes[0]], views[sizes[0] :]) if part]
        embedding = nn.functional.normalize(model.head(torch.cat([model.backbone(x) for x in crops])), dim=1)
        scores = model.prototypes(embedding).chunk(len(views))
        loss = torch.zeros(())
        for crop in (0, 1):
            q = sinkhorn(scores[crop].detach())
            others = [v for v in range(len(views)) if v != crop]
            swapped = [-(q * nn.functional.log_softmax(scores[v] / 0.1, dim=1)).sum(dim=1).mean() for v in others]
            loss = loss + sum(swapped) / len(others) / 2
        return _plain_update(optimizer, loss)

    return step


def _plain_pixpro(training: Any, batch: Any) -> Callable[[], float]:
    model, optimizer, views = _plain(training, batch)
    # the loss and the key network as PixPro.py has them
    return lambda: _plain_update(optimizer, model(views, *batch[1:3]))


PLAIN: dict[str, Callable[[Any, Any], Callable[[], float]]] = {
    "simclr": _plain_simclr,
    "byol": _plain_byol,
    "swav": _plain_swav,
    "pixpro": _plain_pixpro,
}


def pretrain(folder: Path) -> list[Row]:
    """From JPEG files to weights."""
    import torch

    from pretrain import dist, loop, recipes
    from pretrain.data import Folder, batches
    from pretrain.methods import moco

    allocator.keep()
    bfloat16.make_fast()
    loading.photographs(folder, IMAGES)
    source = Folder(folder)
    recipe = recipes.resolved(moco, source, "mini", batch_size=128)
    model = moco.METHOD("resnet18", recipe).to(memory_format=torch.channels_last)
    training = loop.Training(model, source, {"recipe": recipe, "seed": 0}, dist.process())
    steps, waited, spent = IMAGES // 128, [0.0], [0.0]

    def ours() -> None:
        began = ended = time.perf_counter()
        first, workers = training.step, loop.workers(training.device)
        for number, batch in enumerate(batches(training.source, first, first + steps, workers, False)):
            now = time.perf_counter()
            if number:  # the first batch is the worker's beginning
                waited[0] += now - ended
            training.update(*batch)
            ended = time.perf_counter()
        training.check()
        spent[0] += ended - began

    against = "torchvision on PIL and the plain fp32 step: moco v2, ResNet-18, 64 px"
    with apart(_plain_epoch, folder, recipe) as theirs:
        row = faster("pretrain", against, 2.5, ours, theirs)
    waiting = "the time of training: waiting for the loader"
    return [row, cost("pretrain", waiting, waited[0], spent[0], 0.05, row.memory)]


def _plain_epoch(folder: Path, recipe: dict[str, Any]) -> Callable[[], None]:
    from torch.utils.data import DataLoader

    files: Any = loading.Plain(sorted(folder.iterdir()), recipe)
    cores, fork = len(os.sched_getaffinity(0)), multiprocessing.get_context("fork")  # as in a script on Linux
    loader = DataLoader(files, 128, shuffle=True, num_workers=cores, drop_last=True, multiprocessing_context=fork)
    plain = plain_moco("resnet18", recipe["queue"])

    def epoch() -> None:
        for views in loader:
            plain(views)

    return epoch
