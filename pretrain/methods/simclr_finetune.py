"""SimCLR v2's second stage: train the pretrained network on few labels, from the first layer of its head on.

Paper: arXiv 2006.10029, section 2 and Appendix; code: google-research/simclr, README, "Semi-supervised learning and fine-tuning the
whole network" (--ft_proj_selector=1), which is the variant 1pct. The folder holds the labelled images in class folders.
Expected, ResNet-50, ImageNet: top-1 57.9 with 1 % of the labels, 68.4 with 10 % (README's table; x2 66.3 and 73.9).

    bench pretrain simclr_finetune --data imagenet_1pct/train checkpoint=runs/simclr/last.pth

The classifier starts at zero; LARS scales its step no more than that of a bias. Of the variant 10pct the number of epochs is the
paper's text, unverified. The head's first layer is trained, as in tf2/run.py, where run.py leaves it out of the variables it trains.
Difference: an epoch's incomplete batch is dropped (720 steps on 1 % of the labels), where the code's batches run over the ends of
epochs (751). The classifier stays in last.pth; nothing here tests it, bench transfer takes the backbone alone.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, heads, optim
from pretrain.methods import simclr


def recipe(variant: str | None = None) -> dict:
    """The published recipe for "1pct" (default) or "10pct" of ImageNet's labels."""
    if variant not in (None, "1pct", "10pct"):
        raise ValueError(f"expected variant 1pct or 10pct of simclr_finetune, found {variant!r}")
    ten = variant == "10pct"
    return {
        "variant": "10pct" if ten else "1pct",
        "unverified": ("epochs",) if ten else (),
        "checkpoint": "",  # last.pth of a run of simclr
        "classes": 1000,  # becomes the number of class folders
        **augmentations.SIMCLR_PLAIN,
        # optimisation: the README's command
        **optim.SIMCLR,
        "epochs": 30 if ten else 60,
        "batch_size": 1024,
        "unadapted": "classifier",  # model_util.py, get_optimizer: neither decay nor adaptation for head_supervised
        "base_lr": 0.005,  # times the root of the batch; the paper has 0.002 for networks wider than ResNet-50
        "weight_decay": 0.0,
        "warmup_epochs": 0.0,
    }


def loaded(path: str, method: str) -> dict[str, Any]:
    """What a finished run of `method` left in last.pth: "run", "model", and as "origin" which run that was.

    ValueError or FileNotFoundError says the way out.
    """
    if not path:
        raise ValueError(f"expected the weights to go on from, found none: checkpoint=runs/{method}/last.pth")
    if not Path(path).is_file():
        raise FileNotFoundError(f"expected last.pth of a run of {method}, found no file {path}: check checkpoint=")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        run, step, steps = content["run"], content["step"], content["steps"]
        found, recipe = run["method"], run["recipe"]
        origin = {"method": found, "variant": recipe["variant"], "arch": run["arch"], "epochs": recipe["epochs"]}
    except Exception as error:
        raise ValueError(
            f"expected last.pth of a run of {method}, found {path} ({error}): check checkpoint="
        ) from error
    if found != method:
        raise ValueError(f"expected last.pth of a run of {method}, found one of {found} in {path}: check checkpoint=")
    if step < steps:
        raise ValueError(
            f"expected last.pth of a finished run of {method}, found {path} after step {step} of {steps}: the call that began it "
            "goes on with --resume"
        )
    with Path(path).open("rb") as file:
        origin["sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return content | {"origin": origin}


class Classifier(nn.Module):
    """A backbone, the first layer of SimCLR's head and a classifier: [N, 3, S, S] -> [N, classes]."""

    def __init__(self, arch: str, classes: int) -> None:
        super().__init__()
        self.backbone, width = heads.backbone(arch)
        self.head = simclr.head(width, width, 2)[:3]  # linear, batch norm, ReLU
        self.classifier = nn.Linear(width, classes)
        nn.init.zeros_(self.classifier.weight)  # --zero_init_logits_layer
        nn.init.zeros_(self.classifier.bias)

    def logits(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.head(self.backbone(x)))


class SimCLRFinetune(Classifier):
    mean_over_images = True  # of the loss, so that a step can be taken in parts (--accumulate)

    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__(arch, recipe["classes"])
        pretrained = loaded(recipe["checkpoint"], "simclr")
        self.origin, was = pretrained["origin"], pretrained["run"]["arch"]
        if was != arch:
            raise ValueError(f"expected a pretrained {arch}, found {was}: --arch {was}")
        if pretrained["run"]["recipe"].get("layers") == 1:
            raise ValueError(
                f"expected a run of simclr whose head has at least 2 layers, the first to go on with, found 1 in {recipe['checkpoint']}: "
                "pretrain one with layers=2 or 3"
            )
        ours = {key: value for key, value in pretrained["model"].items() if key in self.state_dict()}
        missing = self.load_state_dict(ours, strict=False).missing_keys
        assert missing == ["classifier.weight", "classifier.bias"], missing
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """Cross-entropy, a scalar; ln(classes) at the start.

        views:  one tensor [N, 3, S, S]
        labels: [N], the number of each image's class folder
        """
        logits = self.logits(views[0])  # [N, classes]
        with heads.full_precision(logits):
            loss = F.cross_entropy(logits.float(), labels)
        self.statistics = {"accuracy": (logits.argmax(dim=1) == labels).float().mean() * 100}
        return loss


METHOD = SimCLRFinetune
