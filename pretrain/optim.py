"""SGD, LARS and the learning rate of every step.

SGD decays every parameter, batch norm and biases included (MoCo main_moco.py, SimSiam main_simsiam.py). LARS follows PixPro
contrast/lars.py: parameters with one dimension get neither weight decay nor the trust ratio.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step is, layer by layer, a fixed fraction of the weights' norm.

    g <- g + weight_decay * w;  g <- trust * |w| / |g| * g (factor 1 where a norm is 0);  v <- momentum * v + g;  w <- w - lr * v
    In a group with adapt=False the second step is left out.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        adapt: bool = True,
    ) -> None:
        super().__init__(
            params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust, "adapt": adapt}
        )

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for w in group["params"]:
                if w.grad is None:
                    continue
                g = w.grad.add(w, alpha=group["weight_decay"])
                if group["adapt"]:
                    w_norm, g_norm = w.norm(), g.norm()
                    # 1e-8 as in contrast/lars.py
                    ratio = group["trust"] * w_norm / (g_norm + 1e-8)
                    g.mul_(torch.where((w_norm > 0) & (g_norm > 0), ratio, torch.ones_like(ratio)))
                state = self.state[w]
                if "momentum_buffer" not in state:
                    state["momentum_buffer"] = g.clone()
                else:
                    state["momentum_buffer"].mul_(group["momentum"]).add_(g)
                w.add_(state["momentum_buffer"], alpha=-group["lr"])


def optimiser(model: nn.Module, recipe: Mapping[str, Any]) -> torch.optim.Optimizer:
    """The recipe's optimiser over the parameters that learn; a group with constant=True keeps the peak learning rate.

    recipe["constant_lr"] is the name of a part of the model, or "" for none.
    """
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        constant = bool(recipe["constant_lr"]) and name.startswith(recipe["constant_lr"] + ".")
        decayed = recipe["optimiser"] == "sgd" or parameter.ndim > 1
        groups.setdefault((constant, decayed), {"params": [], "constant": constant, "decayed": decayed})[
            "params"
        ].append(parameter)
    listed = list(groups.values())
    for group in listed:
        group["weight_decay"] = recipe["weight_decay"] if group["decayed"] else 0.0
    if recipe["optimiser"] == "sgd":
        return torch.optim.SGD(listed, lr=recipe["lr"], momentum=recipe["momentum"])
    if recipe["optimiser"] == "lars":
        for group in listed:
            group["adapt"] = group["decayed"]
        return LARS(listed, lr=recipe["lr"], momentum=recipe["momentum"])
    raise ValueError(f"expected optimiser=sgd or optimiser=lars, found {recipe['optimiser']!r}")


def learning_rate(step: int, steps_per_epoch: int, recipe: Mapping[str, Any]) -> float:
    """The learning rate of a step counted from 0: linear warm-up, then a cosine to end_lr, or x 0.1 at every milestone.

    schedule_unit "epoch" holds it constant within an epoch (MoCo, SimSiam), "step" moves it every step (PixPro).
    """
    peak, end, warmup, epochs = (recipe[key] for key in ("lr", "end_lr", "warmup_epochs", "epochs"))
    t = step / steps_per_epoch if recipe["schedule_unit"] == "step" else step // steps_per_epoch
    if t < warmup:
        start = recipe["warmup_start"]
        return peak * (start + (1 - start) * t / warmup)
    if recipe["schedule"] == "cosine":
        return end + (peak - end) * (1 + math.cos(math.pi * (t - warmup) / (epochs - warmup))) / 2
    if recipe["schedule"] == "step":
        return peak * 0.1 ** sum(t >= milestone for milestone in recipe["milestones"])
    raise ValueError(f"expected schedule=cosine or schedule=step, found {recipe['schedule']!r}")
