"""AdamW and its learning rate as a function of the step (METHOD §6)."""

import difflib
import math

import torch
from torch import nn

from seehear.errors import ConfigError
from seehear.objectives.base import Objective
from seehear.recipe import OptimiserConfig

FACTOR = "rate_factor"


def learning_rate(config: OptimiserConfig, step: int, steps: int) -> float:
    """The rate of step `step` (from 0) of `steps`: linear warm-up to the peak, then a half cosine to the floor."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return config.peak_lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.final_lr + (config.peak_lr - config.final_lr) * (1.0 + math.cos(math.pi * progress)) / 2.0


def part_of(model: nn.Module, name: str) -> nn.Module:
    """The module `name` of a model. Raises `ConfigError` that suggests one if there is none."""
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if name not in modules or not name:
        close = difflib.get_close_matches(name, modules, n=1)
        hint = f"did you mean '{close[0]}'?" if close else f"there are {', '.join(dict(model.named_children()))}"
        raise ConfigError(f"the model has no part '{name}'; {hint}")
    return modules[name]


def build_optimiser(objective: Objective, config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW over every parameter that learns, decayed alike (as USR's code does); a group for each factor of the rate.

    The longest name counts where parts lie inside each other.
    """
    factors: dict[int, float] = {}
    for name, factor in sorted(config.rates.items(), key=lambda item: len(item[0])):
        factors |= {id(parameter): factor for parameter in part_of(objective.student, name).parameters()}
    groups: dict[float, list[nn.Parameter]] = {}
    for parameter in objective.parameters():
        if parameter.requires_grad:
            groups.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": parameters, FACTOR: factor} for factor, parameters in groups.items()],
        lr=config.peak_lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=True,
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Use `rate`, times the factor of each group, from now on."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group.get(FACTOR, 1.0)
