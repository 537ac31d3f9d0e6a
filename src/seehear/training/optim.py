"""AdamW and its learning rate as a function of the step (METHOD §6)."""

import math

import torch
from torch import nn

from seehear.recipe import OptimiserConfig


def learning_rate(config: OptimiserConfig, step: int, steps: int) -> float:
    """The rate of step `step` (from 0) of `steps`: linear warm-up to the peak, then a half cosine to the floor."""
    warmup = round(config.warmup * steps)
    if step < warmup:
        return config.peak_lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return config.final_lr + (config.peak_lr - config.final_lr) * (1.0 + math.cos(math.pi * progress)) / 2.0


def build_optimiser(module: nn.Module, config: OptimiserConfig) -> torch.optim.AdamW:
    """AdamW over every parameter that learns, decayed alike (as USR's code does)."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        parameters, lr=config.peak_lr, betas=config.betas, weight_decay=config.weight_decay, fused=True
    )


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Use `rate` from now on."""
    for group in optimiser.param_groups:
        group["lr"] = rate
