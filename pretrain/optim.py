"""SGD, LARS, LARC and the learning rate of every step.

SGD decays every parameter, batch norm and biases included (MoCo main_moco.py, SimSiam main_simsiam.py), but for DINO's. LARS follows
PixPro contrast/lars.py: parameters with one dimension get neither weight decay nor the trust ratio. LARC follows NVIDIA/apex
apex/parallel/LARC.py with clip=False, as SwAV calls it: every parameter gets both.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

# What the instance-discrimination methods share.
INSTANCES: dict[str, Any] = {
    "epochs": 200,
    "batch_size": 256,
    "optimiser": "sgd",
    "base_lr": 0.03,  # a 256 images
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "schedule": "cosine",
    "schedule_unit": "epoch",
    "milestones": (),
    "warmup_epochs": 0.0,
    "warmup_start": 0.0,
    "constant_lr": "",
    "sync_bn": False,
    "precision": "fp32",
}
MOCO = {**INSTANCES, "end_lr": 0.0}  # facebookresearch/moco main_moco.py's defaults with --cos
PYCONTRAST = {**INSTANCES, "end_factor": 1e-3}  # HobbitLong/PyContrast options/base_options.py, lr_decay_rate ** 3

# facebookresearch/barlowtwins main.py's defaults and adjust_learning_rate, which VICReg's main_vicreg.py took over.
BARLOW: dict[str, Any] = {
    "epochs": 1000,
    "batch_size": 2048,
    "optimiser": "lars",
    "base_lr": 0.2,  # a 256 images
    "momentum": 0.9,
    "weight_decay": 1e-6,
    "schedule": "cosine",
    "schedule_unit": "step",
    "milestones": (),
    "warmup_epochs": 10.0,
    "warmup_start": 0.0,
    "end_factor": 0.001,
    "constant_lr": "",
    "sync_bn": True,
    "precision": "fp16",
}

# google-research/simclr README and run.py, with the numbers of v2's paper.
SIMCLR: dict[str, Any] = {
    "epochs": 800,
    "batch_size": 4096,
    "optimiser": "lars",
    "lr_in_momentum": True,  # lars_optimizer.py, classic_momentum
    "lr_rule": "sqrt",
    "base_lr": 0.1,  # times the root of the batch
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "schedule": "cosine",
    "schedule_unit": "step",
    "milestones": (),
    "warmup_epochs": 40.0,
    "warmup_start": 0.0,
    "end_lr": 0.0,
    "constant_lr": "",
    "sync_bn": True,  # --global_bn
    "precision": "fp32",
}


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step is, layer by layer, a fixed fraction of the weights' norm.

    g <- g + weight_decay * w;  g <- trust * |w| / (|g| + epsilon) * g (factor 1 where a norm is 0);  v <- momentum * v + g;
    w <- w - lr * v
    In a group with adapt=False the second step is left out. With lr_in_momentum the last two are those of google-research/simclr
    lars_optimizer.py:  v <- momentum * v + lr * g;  w <- w - v
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        adapt: bool = True,
        lr_in_momentum: bool = False,
        epsilon: float = 0.0,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": adapt}
        super().__init__(params, defaults | {"lr_in_momentum": lr_in_momentum, "epsilon": epsilon})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            # a checkpoint of before there was a choice
            group.setdefault("lr_in_momentum", False)
            group.setdefault("epsilon", 1e-8)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            inner, outer = (group["lr"], 1.0) if group["lr_in_momentum"] else (1.0, group["lr"])
            for w in group["params"]:
                if w.grad is None:
                    continue
                g = self.adapted(w, group)
                state = self.state[w]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = torch.zeros_like(w)
                state["momentum_buffer"].mul_(group["momentum"]).add_(g, alpha=inner)
                w.add_(state["momentum_buffer"], alpha=-outer)

    def adapted(self, w: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        """The gradient with weight decay, scaled, a new tensor."""
        g = w.grad.add(w, alpha=group["weight_decay"])
        if group["adapt"]:
            w_norm, g_norm = w.norm(), g.norm()
            ratio = group["trust"] * w_norm / (g_norm + group["epsilon"])
            g.mul_(torch.where((w_norm > 0) & (g_norm > 0), ratio, torch.ones_like(ratio)))
        return g


class LARC(LARS):
    """LARS as apex has it: g <- trust * |w| / (|g| + weight_decay * |w|) * (g + weight_decay * w), unchanged where |w| or |g| is 0."""

    def adapted(self, w: torch.Tensor, group: dict[str, Any]) -> torch.Tensor:
        decay = group["weight_decay"]
        w_norm, g_norm = w.norm(), w.grad.norm()
        ratio = group["trust"] * w_norm / (g_norm + decay * w_norm + 1e-8)
        return torch.where((w_norm > 0) & (g_norm > 0), ratio * w.grad.add(w, alpha=decay), w.grad)


def optimiser(model: nn.Module, recipe: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters that learn; a group with constant=True keeps the peak learning rate.

    recipe["constant_lr"] is the name of a part of the model, or "" for none. recipe["bias_lr"], where it is there, takes the place
    of base_lr for parameters with one dimension: their group's `scale` is the ratio of the two; recipe["flat_decay"], where it is
    there, takes the place of their weight decay, recipe["head_decay"] of that of the part `head`. recipe["unadapted"] names a part
    whose matrices LARS treats as it does biases (SimCLR's classifier), recipe["no_momentum"] one without momentum (DeepCluster's).
    recipe["lr_in_momentum"] says that the learning rate enters the momentum, and not the step (SimCLR's LARS); model.trust_epsilon,
    where it is there, what LARS adds to the gradient's norm (PixPro's).
    """
    parts = {name for name, _ in model.named_modules()}
    for key in ("constant_lr", "unadapted", "no_momentum"):
        if recipe.get(key) and recipe[key] not in parts:
            known = ", ".join(name for name, _ in model.named_children())
            raise ValueError(f"expected {key} to name a part of the network ({known}), found {recipe[key]!r}")
    lars = recipe["optimiser"] == "lars"
    decay = recipe["weight_decay"]
    apart = lars or "bias_lr" in recipe or "flat_decay" in recipe
    groups: dict[tuple[bool, ...], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        constant, unadapted, still = (
            bool(recipe.get(key)) and name.startswith(recipe[key] + ".")
            for key in ("constant_lr", "unadapted", "no_momentum")
        )
        flat = (apart and parameter.ndim == 1) or unadapted
        heavy = "head_decay" in recipe and name.startswith("head.")
        group = {
            "params": [],
            "constant": constant,
            "momentum": 0.0 if still else recipe["momentum"],
            "scale": recipe["bias_lr"] / recipe["base_lr"] if flat and "bias_lr" in recipe else 1.0,
            "weight_decay": recipe.get("flat_decay", 0.0 if lars else decay) if flat else decay,
        }
        if heavy:
            group["weight_decay"] = recipe["head_decay"]
        groups.setdefault((flat, constant, still, heavy), group)["params"].append(parameter)
    if recipe["optimiser"] == "sgd":
        return torch.optim.SGD(list(groups.values()), lr=recipe["lr"], momentum=recipe["momentum"])
    for (flat, *_), group in groups.items():
        group["adapt"] = not flat
    kind = LARS if lars else LARC
    inside, epsilon = bool(recipe.get("lr_in_momentum")), getattr(model, "trust_epsilon", 0.0)
    return kind(
        list(groups.values()), lr=recipe["lr"], momentum=recipe["momentum"], lr_in_momentum=inside, epsilon=epsilon
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float, peak: float) -> None:
    """lr for every group, times its scale; `peak` for those that are constant."""
    for group in optimiser.param_groups:
        group["lr"] = (peak if group["constant"] else lr) * group["scale"]


def learning_rate(step: int, steps_per_epoch: int, recipe: Mapping[str, Any]) -> float:
    """The learning rate of a step counted from 0: linear warm-up, then a cosine to the end, or x 0.1 at every milestone.

    The end is recipe["end_lr"], or recipe["end_factor"] of the peak.

    schedule_unit "epoch" holds it constant within an epoch (MoCo, SimSiam), "step" moves it every step (PixPro).
    """
    peak, warmup, epochs = (recipe[key] for key in ("lr", "warmup_epochs", "epochs"))
    end = recipe["end_lr"] if "end_lr" in recipe else peak * recipe["end_factor"]
    t = step / steps_per_epoch if recipe["schedule_unit"] == "step" else step // steps_per_epoch
    if t < warmup:
        start = recipe["warmup_start"]
        return peak * (start + (1 - start) * t / warmup)
    if recipe["schedule"] == "cosine":
        return end + (peak - end) * (1 + math.cos(math.pi * (t - warmup) / (epochs - warmup))) / 2
    return peak * 0.1 ** sum(t >= milestone for milestone in recipe["milestones"])
