"""SimCLR: among all views of a large batch, each must find the other view of its own image.

Papers: arXiv 2002.05709 (v1), arXiv 2006.10029 (v2); code: google-research/simclr. v2 has a head of three layers, a larger weight
decay and, in the paper, wider and deeper networks (--arch resnet50x2, resnet101, resnet152).
Expected, ImageNet: linear top-1 69.1 (v1, ResNet-50, released weights; x2 74.2, x4 76.6), 71.7 (v2, ResNet-50; x2 75.6, ResNet-101
73.6, ResNet-152 74.5, without selective kernels), from the README's tables.

    bench pretrain simclr --data imagenet/train [--variant v1] [--arch resnet50x2]

The later stages of v2 are methods of their own: simclr_finetune goes on from the head's first layer, simclr_distill teaches a
student. Differences: v1's brightness is multiplied, as v2's is, where its code adds; the selective kernels and the memory of keys
of v2's paper (the latter is not in its code) are not here. Contrast, saturation and the blur's border are PIL's, as byol.py says,
and crops are torchvision's (methods.md, 0.2), resized with antialiasing; TensorFlow's sampler draws the aspect and the height
evenly, a tenth of the image at least, and takes all of it after 100 failures (data_util.py), on average 0.39 of a photograph of
500 x 375 where torchvision takes 0.43. Convolutions start as torchvision's; pooling pads both sides, where the code's "SAME" pads
the far one (methods.md, trap 11). Every image has a sigma of the blur for itself, where a view's images on one device share it. An
epoch's incomplete batch is dropped, where the code's batches run over the ends of epochs: the learning rates of the two are at most
0.3 % of the peak apart.
"""

import torch
import torch.nn.functional as F
from torch import nn

from pretrain import augmentations, dist, heads, optim

WARMUP_FOLLOWS = ("v2",)  # --epochs: the paper's 5 %, unconfirmed; v1 has the README's 10


def recipe(variant: str | None = None) -> dict:
    """The published recipe of "v1" or "v2" (default)."""
    if variant not in (None, "v1", "v2"):
        raise ValueError(f"expected variant v1 or v2 of simclr, found {variant!r}")
    v1 = variant == "v1"
    return {
        "variant": "v1" if v1 else "v2",
        # unconfirmed: of v2 the paper's text gives these, the README's command has 0.075, 10 and 100
        "unverified": () if v1 else ("base_lr", "warmup_epochs", "epochs"),
        # architecture and loss: model_util.py, projection_head; run.py, --temperature
        "layers": 2 if v1 else 3,
        "dim": 128,
        "temperature": 0.1,
        **augmentations.SIMCLR,
        # optimisation: README and run.py; v1: paper, section 2.2
        **optim.SIMCLR,
        "epochs": 1000 if v1 else 800,
        "lr_rule": "linear" if v1 else "sqrt",
        "base_lr": 0.3 if v1 else 0.1,  # a 256 images (linear); times the root of the batch (sqrt)
        "weight_decay": 1e-6 if v1 else 1e-4,
        "warmup_epochs": 10.0 if v1 else 40.0,
    }


def nt_xent(z1: torch.Tensor, z2: torch.Tensor, temperature: float) -> torch.Tensor:
    """Cross-entropy of each view's partner among the views of all images but itself, a scalar, the mean of all 2N views.

    z1, z2: [N, C], unit length along C, of this process; the other processes' views are candidates too
    """
    all1, all2 = dist.gathered_with_gradient(z1), dist.gathered_with_gradient(z2)  # [world_size * N, C]
    everyone = torch.arange(len(all1), device=z1.device)
    partner = dist.own(everyone)  # [N]
    itself = partner[:, None] == everyone  # [N, world_size * N]
    one = torch.cat([z1 @ all2.T, (z1 @ all1.T).masked_fill(itself, -torch.inf)], dim=1)  # [N, 2 * world_size * N]
    two = torch.cat([z2 @ all1.T, (z2 @ all2.T).masked_fill(itself, -torch.inf)], dim=1)
    return (F.cross_entropy(one / temperature, partner) + F.cross_entropy(two / temperature, partner)) / 2


def head(width: int, dim: int, layers: int) -> nn.Sequential:
    """linear, batch norm, ReLU but for the last layer: linear, batch norm without an offset; [N, width] -> [N, dim]."""
    net = heads.mlp([width] * layers + [dim], bias=False)
    net.append(nn.BatchNorm1d(dim))
    net[-1].bias.requires_grad_(False)  # stays 0: model_util.py, linear_layer, center=False
    for part in net:
        if isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.01)
    return net


class SimCLR(nn.Module):
    def __init__(self, arch: str, recipe: dict) -> None:
        super().__init__()
        self.temperature = recipe["temperature"]
        self.backbone, width = heads.backbone(arch, zero_init_residual=True)
        self.head = head(width, recipe["dim"], recipe["layers"])
        self.statistics: dict[str, torch.Tensor | float] = {}

    def forward(self, views, boxes=None, labels=None, progress=0.0, indices=None) -> torch.Tensor:
        """The sum of both directions (objective.py), which is twice the paper's mean; about 2 ln(2N - 1) at the start.

        views: two tensors [N, 3, S, S]
        """
        z = self.head(self.backbone(torch.cat(views)))  # [2N, C]: one batch norm for both views
        with heads.full_precision(z):
            z1, z2 = F.normalize(z.float(), dim=1).chunk(2)
            loss = 2 * nt_xent(z1, z2, self.temperature)
            found = (z1 @ z2.T).argmax(dim=1)
        self.statistics = {"accuracy": (found == torch.arange(len(z1), device=z.device)).float().mean() * 100}
        return loss


METHOD = SimCLR
