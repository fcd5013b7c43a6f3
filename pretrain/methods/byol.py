"""BYOL: an online network predicts what its own moving average makes of another view of the image; there are no negatives.

Paper: arXiv 2006.07733; code: google-deepmind/deepmind-research, byol/. The variants are the code's presets of learning rate,
weight decay and momentum for 40, 100, 300 and 1000 epochs (configs/byol.py).
Expected, ResNet-50, ImageNet, 1000 epochs: linear top-1 74.3 (paper, Table 1), 74.4 (README, the released weights); VOC07+12 C4
AP 55.3 (SimSiam, Table 5, 200 epochs, its authors' own reproduction).

    bench pretrain byol --data imagenet/train [--variant 300ep]

Differences: the target starts as a copy of the online network, where the code draws it anew and says that it makes no difference
(byol_experiment.py, _make_initial_state). The classifier that the code trains beside it to watch the run is not here. The colours
are PIL's: brightness is multiplied where the code adds to it, contrast turns about the mean of the grey image where the code's turns
about each channel's, saturation blends with grey where the code scales S of HSV; the blur mirrors the border, which is black there.
Crops are torchvision's (methods.md, 0.2), resized with antialiasing; the code draws once and cuts off what does not fit
(utils/dataset.py), on average 0.52 of a photograph of 500 x 375 where torchvision takes 0.43. Layers start as torchvision's and
torch's do, but for the last batch norm of a block, which starts at 0: a bottleneck's in the code, a basic block's too here, and none
for the paper's figures (README). Strided convolutions and pooling pad both sides, where the code's "SAME" pads the far one more
(methods.md, trap 11). An epoch's incomplete batch is dropped, where the code's batches run over the ends of epochs.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, heads, momentum

# byol/configs/byol.py: learning rate a 256 images, weight decay, momentum of the target at the start
PRESETS = {
    "40ep": (0.45, 1e-6, 0.97),
    "100ep": (0.45, 1e-6, 0.99),
    "300ep": (0.3, 1e-6, 0.99),
    "1000ep": (0.2, 1.5e-6, 0.996),
}


def recipe(variant: str | None = None) -> dict:
    """The preset of 40ep, 100ep, 300ep or 1000ep (default)."""
    variant = variant or "1000ep"
    if variant not in PRESETS:
        raise ValueError(f"expected one of the variants {', '.join(PRESETS)} of byol, found {variant!r}")
    lr, weight_decay, ema = PRESETS[variant]
    return {
        "variant": variant,
        # architecture: byol/configs/byol.py and utils/networks.py
        "hidden": 4096,
        "dim": 256,
        "ema": ema,
        "ema_schedule": "cosine",  # to 1
        **augmentations.BYOL,
        "blur_kernel": 23,  # a tenth of the side, made odd
        # optimisation: byol/configs/byol.py and utils/schedules.py
        "epochs": int(variant.removesuffix("ep")),
        "batch_size": 4096,
        "optimiser": "lars",
        "base_lr": lr,  # a 256 images
        "momentum": 0.9,
        "weight_decay": weight_decay,
        "schedule": "cosine",
        "schedule_unit": "step",
        "milestones": (),
        "warmup_epochs": 10.0,
        "warmup_start": 0.0,
        "end_lr": 0.0,
        "constant_lr": "",
        "sync_bn": True,
        "precision": "fp32",
    }


def regression_loss(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The mean squared distance of the two after each is brought to unit length, 2 - 2 cos, a scalar in [0, 4].

    prediction, target: [N, C]; no gradient flows through target
    """
    return (2 - 2 * F.cosine_similarity(prediction, target.detach(), eps=1e-12)).mean()


class BYOL(nn.Module):
    mean_over_images = True  # of the loss, so that a step can be taken in parts (--accumulate)

    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.m = recipe["ema"]
        hidden, dim = recipe["hidden"], recipe["dim"]
        # hk.nets.ResNet: the scale of a bottleneck's last batch norm starts at 0
        self.backbone, width = heads.backbone(arch, zero_init_residual=True)
        self.projector = heads.mlp([width, hidden, dim], bias=(True, False))
        self.predictor = heads.mlp([dim, hidden, dim], bias=(True, False))
        self.target_backbone = momentum.follower(self.backbone)
        self.target_projector = momentum.follower(self.projector)
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The sum of both directions' losses, a scalar in [0, 8].

        views: two tensors [N, 3, S, S]
        """
        p1, p2 = (self.predictor(self.projector(self.backbone(x))) for x in views)  # [N, C] each
        with torch.no_grad():
            z1, z2 = (self.target_projector(self.target_backbone(x)) for x in views)
        with heads.full_precision(p1):
            loss = regression_loss(p1.float(), z2.float()) + regression_loss(p2.float(), z1.float())
            # 1 / sqrt(C) while the targets scatter, 0 when they have collapsed
            self.statistics = {**self.statistics, "std": F.normalize(z1.float(), dim=1).std(dim=0).mean()}
        return loss

    def after_update(self, progress: float) -> None:
        """The target follows, after the optimiser's step (byol_experiment.py, _update_fn)."""
        m = momentum.cosine(self.m, progress)
        momentum.follow(self.target_backbone, self.backbone, m)
        momentum.follow(self.target_projector, self.projector, m)
        self.statistics["ema"] = m


METHOD = BYOL
