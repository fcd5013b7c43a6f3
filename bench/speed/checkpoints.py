"""Reading and writing checkpoints.

convert   reading, checking, hashing and writing a checkpoint against torch.load and torch.save of the same file: at most 1.5
          times. Neither side asks the disk to have it all (fsync). The two SHA-256, of the file and of what is written, take as
          long as the reference; they are computed on a second core, and on a machine with one free core the ratio is about 2.2.
          The proof by forward passes, whose cost depends on the network and not on the file, is a row without a target.
inspect   a file of 1 GB: peak memory against the backbone's size, at most 1.3 times; bytes read against the file's, at most
          0.01 times (the index, no values)
"""

from functools import partial
from pathlib import Path
from typing import Any

from bench.speed import Row, apart, cost, costlier, peak_memory


def convert(folder: Path) -> list[Row]:
    """A plain ResNet-50 and MoCo v2's file, each converted to torchvision's names."""
    import torch

    from bench import sources
    from downstream import weights

    file = folder / "checkpoint.pth"

    def theirs() -> None:
        torch.save(torch.load(file, weights_only=True), folder / "copy.pth")

    def ours() -> None:
        found = sources.backbone(file)
        weights.write(found.tensors, {"arch": found.arch, "traits": found.traits}, folder / "out.pth", "torchvision")
        assert found.sha256  # the command waits for it before it writes, but has made the proof by then

    def proof() -> None:
        found = sources.backbone(file)
        sources.prove(found)
        weights.prove(found.tensors, found.arch, found.traits)

    rows = []
    for what, content in (("a plain ResNet-50", _plain()), ("MoCo v2's ResNet-50", _moco(65_536))):
        torch.save(content, file)
        against = f"torch.load and torch.save, {what}"
        rows.append(costlier("convert", against, 1.5, ours, theirs))
        rows.append(costlier("convert", f"{against}: reading and the proof alone", None, proof, theirs))
    return rows


def inspect(folder: Path) -> list[Row]:
    """MoCo v2's file with a queue that makes it 1 GB, as torch's zip and as safetensors."""
    import torch
    from safetensors.torch import save_file

    content = _moco(1_400_000)
    size = sum(
        t.nbytes
        for name, t in content["state_dict"].items()
        if name.startswith("module.encoder_q.") and ".fc." not in name
    )
    zipped, safe = folder / "zip.pth", folder / "flat.safetensors"
    torch.save(content, zipped)
    save_file(content["state_dict"], safe)
    del content
    rows = []
    for file in (zipped, safe):
        with apart(partial, _inspected, file) as inspected:
            memory, read = inspected()
        whole = file.stat().st_size
        what = f"{whole / 1e9:.1f} GB of {file.suffix}"
        rows.append(cost("inspect", f"the backbone's size, {what}: peak memory", memory, size, 1.3, memory))
        rows.append(cost("inspect", f"the file's size, {what}: bytes read", read, whole, 0.01, memory))
    return rows


def _inspected(file: Path) -> tuple[int, int]:
    """Peak memory of inspecting a file, beyond what imports take, and the bytes that it read (proc(5))."""
    import torch  # noqa: F401

    from bench import sources
    from downstream import resnets

    resnets.shapes(resnets.arch("resnet50"))
    memory, read = _counters()
    sources.inspect(file)
    now = _counters()
    return now[0] - memory, now[1] - read


def _counters() -> tuple[int, int]:
    return peak_memory() or 0, int(Path("/proc/self/io").read_text().partition("rchar:")[2].split()[0])


def _plain() -> dict[str, Any]:
    import torchvision

    return dict(torchvision.models.resnet50().state_dict())


def _moco(negatives: int) -> dict[str, Any]:
    """What moco/main_moco.py saves: both encoders, the queue, the optimizer."""
    import torch

    state = {name: tensor for name, tensor in _plain().items() if not name.startswith("fc.")}
    heads = {"fc.0.weight": (2048, 2048), "fc.0.bias": (2048,), "fc.2.weight": (128, 2048), "fc.2.bias": (128,)}
    state |= {name: torch.randn(shape) for name, shape in heads.items()}
    both = {f"module.{net}.{name}": t.clone() for net in ("encoder_q", "encoder_k") for name, t in state.items()}
    both |= {"module.queue": torch.randn(128, negatives), "module.queue_ptr": torch.zeros(1, dtype=torch.long)}
    momentum = {i: {"momentum_buffer": t.clone()} for i, t in enumerate(state.values()) if t.is_floating_point()}
    return {"epoch": 200, "arch": "resnet50", "state_dict": both, "optimizer": {"state": momentum}}
