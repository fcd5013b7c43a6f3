"""SimCLR v2's third stage: a student learns what the fine-tuned network says of images without labels.

Paper: arXiv 2006.10029, equation 2; code: google-research/simclr, tf2/colabs/distillation_self_training.ipynb, add_kd_loss (the full
training is not released). The variants are the paper's two cases: self (the student is as large as the teacher) and small.
Expected, ResNet-50, ImageNet, taught by a ResNet-152 (x3, with selective kernels): top-1 73.9 with 1 % of the labels, 77.5 with
10 % (paper, abstract).

    bench pretrain simclr_distill --data imagenet/train --arch resnet50 checkpoint=runs/simclr_finetune/last.pth

Unverified, from the paper's text: temperature, epochs, rate and warm-up. The student starts at random. Its classifier starts as torch's
does and is adapted and decayed by LARS like all the rest, where the repository's (tf2/model.py) starts at N(0, 0.01), is not adapted
and decays in the loss. It stays in last.pth; nothing here tests it, bench transfer takes the backbone alone.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, heads, optim
from pretrain.methods.simclr_finetune import Classifier, loaded

WARMUP_FOLLOWS = ("self", "small")  # --epochs: as in pretraining, 5 %


def recipe(variant: str | None = None) -> dict:
    """The recipe of "self" (default) or "small"."""
    if variant not in (None, "self", "small"):
        raise ValueError(f"expected variant self or small of simclr_distill, found {variant!r}")
    return {
        "variant": variant or "self",
        "unverified": ("temperature", "epochs", "base_lr", "warmup_epochs"),
        "checkpoint": "",  # last.pth of a run of simclr_finetune
        "temperature": 1.0 if variant == "small" else 0.1,
        **augmentations.SIMCLR_PLAIN,
        # optimisation: as in pretraining, for 400 epochs
        **optim.SIMCLR,
        "epochs": 400,
        "warmup_epochs": 20.0,
    }


def distillation_loss(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """t^2 times the cross-entropy of the student's softmax with the teacher's, both of logits / t, a scalar of 0 or more.

    student, teacher: [N, classes] logits; no gradient flows through teacher
    """
    said = (teacher.detach() / temperature).softmax(dim=1)
    return temperature**2 * F.cross_entropy(student / temperature, said)


class SimCLRDistill(nn.Module):
    mean_over_images = True  # of the loss, so that a step can be taken in parts (--accumulate)

    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.temperature = recipe["temperature"]
        finetuned = loaded(recipe["checkpoint"], "simclr_finetune")
        self.origin, classes = finetuned["origin"], finetuned["run"]["recipe"]["classes"]
        self.teacher = Classifier(finetuned["run"]["arch"], classes).requires_grad_(False)
        self.teacher.load_state_dict(finetuned["model"])
        self.backbone, width = heads.backbone(arch, zero_init_residual=True)
        self.classifier = nn.Linear(width, classes)
        self.statistics: dict[str, torch.Tensor | float] = {}

    def train(self, mode: bool = True) -> "SimCLRDistill":
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The distillation loss, a scalar of 0 or more.

        views: one tensor [N, 3, S, S]
        """
        student = self.classifier(self.backbone(views[0]))  # [N, classes]
        with torch.no_grad():
            teacher = self.teacher.logits(views[0])
        with heads.full_precision(student):
            loss = distillation_loss(student.float(), teacher.float(), self.temperature)
        self.statistics = {"agreement": (student.argmax(dim=1) == teacher.argmax(dim=1)).float().mean() * 100}
        return loss


METHOD = SimCLRDistill
