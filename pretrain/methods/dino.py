"""DINO: a student predicts from one crop which outputs its own moving average, the teacher, chooses for another, as if classes.

Paper: arXiv 2104.14294; code: facebookresearch/dino, main_dino.py. The teacher sees the two large crops alone. Against a collapse its
outputs are centred, by a running mean over the batches, and sharpened, by a low temperature. The recipe is the README's command for
ResNet-50 on 8 GPUs, 100 epochs.
Expected, ResNet-50, ImageNet: linear top-1 75.3, nearest neighbours 67.5 (README), but of the released weights, whose recipe (80 GPUs,
LARS) is not in the code and therefore not here. Of this command a user's run is known by its loss alone: 11.02, 10.48 and 9.88 in
the first three epochs (the repository's issue 145). A loss that stays at ln 65536 = 11.09 has collapsed: an even teacher has that
entropy, one with a single choice has 0.

    bench pretrain dino --data imagenet/train

backbone.pth is the teacher's, which the code's evaluations take. The paper's vision transformers are not here.
Differences: the outputs and their softmaxes are computed in single precision; the code's warm-up ends a step earlier, at most 0.004 %
of the peak.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, dist, heads, momentum
from pretrain.methods import swav

PARTS = ("backbone", "head", "prototypes")  # of the student; the teacher has the same
LARGE, SMALL = 2, 8  # crops: DataAugmentationDINO and --local_crops_number
CROPS = {
    **augmentations.BYOL,
    "views": LARGE + SMALL,
    "size": (224,) * LARGE + (96,) * SMALL,
    "crop_area": ((0.14, 1.0),) * LARGE + ((0.05, 0.14),) * SMALL,
    "blur_p": (1.0, 0.1) + (0.5,) * SMALL,
    "solarize_p": (0.0, 0.2) + (0.0,) * SMALL,
}


def recipe(variant: str | None = None) -> dict:
    """The README's recipe of 100 epochs; there are no variants."""
    if variant is not None:
        raise ValueError(f"expected no variant of dino, found {variant!r}")
    return {
        "variant": None,
        # architecture and loss: get_args_parser, DINOHead and DINOLoss
        "hidden": 2048,
        "dim": 256,
        "prototypes": 65536,
        "temperature": 0.1,  # the student's
        "teacher_temperature": 0.04,
        "center_momentum": 0.9,
        "ema": 0.996,
        "ema_schedule": "cosine",  # to 1
        "freeze_epochs": 1.0,  # --freeze_last_layer
        "clip": 3.0,  # the largest norm of a parameter's gradient
        **CROPS,
        # optimisation: README, "ResNet-50 and other convnets trainings", and get_args_parser
        "epochs": 100,
        "batch_size": 512,
        "optimiser": "sgd",
        "base_lr": 0.03,  # a 256 images
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "flat_decay": 0.0,  # get_params_groups
        "schedule": "cosine",
        "schedule_unit": "step",
        "milestones": (),
        "warmup_epochs": 10.0,
        "warmup_start": 0.0,
        "end_lr": 1e-6,
        "constant_lr": "",
        "sync_bn": True,
        "precision": "fp16",
    }


def head(width: int, hidden: int, dim: int) -> nn.Sequential:
    """[N, width] -> [N, dim]: three linear layers without batch norm, drawn as DINOHead draws them."""
    net = nn.Sequential(
        nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, dim)
    )
    for layer in net[::2]:
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)
    return net


class DINO(nn.Module):
    kept = "teacher_"  # how the names of the parts begin that are looked at and written
    whole_epochs = True  # the momentum reaches 1 after the steps that are taken: momentum_schedule

    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.m, self.clip, self.frozen_epochs = recipe["ema"], recipe["clip"], recipe["freeze_epochs"]
        self.temperature, self.teacher_temperature = recipe["temperature"], recipe["teacher_temperature"]
        self.center_momentum = recipe["center_momentum"]
        self.backbone, width = heads.backbone(arch)
        self.head = head(width, recipe["hidden"], recipe["dim"])
        self.prototypes = nn.Linear(recipe["dim"], recipe["prototypes"], bias=False)
        for part in PARTS:
            setattr(self, f"teacher_{part}", momentum.follower(getattr(self, part)))
        self.register_buffer("center", torch.zeros(recipe["prototypes"]))
        self.statistics: dict[str, torch.Tensor | float] = {}

    def scores(self, views: list[torch.Tensor], branch: str = "") -> torch.Tensor:
        """V tensors [N, 3, S_v, S_v] -> [V, N, K], cosines with a branch's prototypes, whose length does not count."""
        backbone, mlp, prototypes = (getattr(self, branch + part) for part in PARTS)
        z = mlp(heads.multi_crop(backbone, views))
        with heads.full_precision(z):
            z = F.normalize(z.to(prototypes.weight.dtype), dim=1)
            return F.linear(z, F.normalize(prototypes.weight, dim=1)).unflatten(0, (len(views), -1))

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The cross-entropy of every crop with the teacher's choice for each other large crop, a scalar of 0 or more.

        views: V tensors [N, 3, S_v, S_v], of which the first two are the teacher's
        """
        scores = self.scores(views)
        with torch.no_grad():
            taught = self.scores(views[:LARGE], "teacher_")
            chosen = F.softmax((taught - self.center) / self.teacher_temperature, dim=2)
            self.center.lerp_(dist.mean(taught.mean(dim=(0, 1))), 1 - self.center_momentum)
        with heads.full_precision(scores):
            loss = swav.swapped_loss(scores, dict(enumerate(chosen)), self.temperature)
        self.statistics = {**self.statistics, "entropy": torch.special.entr(chosen).sum(dim=2).mean()}
        return loss

    def before_update(self, step: int, per_epoch: int) -> None:
        """Every gradient is clipped by itself; in the first epoch the prototypes stay as they were drawn."""
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_((self.clip / (parameter.grad.norm() + 1e-6)).clamp(max=1))
        if step < self.frozen_epochs * per_epoch:
            self.prototypes.weight.grad = None

    def after_update(self, progress: float) -> None:
        """The teacher follows, after the optimiser's step."""
        m = momentum.cosine(self.m, progress)
        for part in PARTS:
            momentum.follow(getattr(self, f"teacher_{part}"), getattr(self, part), m)
        self.statistics["ema"] = m


METHOD = DINO
