"""Quantities that change over a run, as functions of the step (METHOD §2, §4, §5)."""

import math

import numpy as np

from seehear.modality import Modality
from seehear.recipe import ObjectiveConfig


def teacher_momentum(start: float, step: int, steps: int) -> float:
    """τ: from `start` to 1 on a half cosine over the run."""
    return 1.0 - (1.0 - start) * (math.cos(math.pi * step / max(1, steps)) + 1.0) / 2.0


def ar_probability(config: ObjectiveConfig, step: int, steps: int) -> float:
    """The probability of an autoregressive step: constant, or 0 → 1 linearly or on a half cosine."""
    progress = step / max(1, steps)
    if config.ar_schedule == "linear":
        return progress
    if config.ar_schedule == "cosine":
        return (1.0 - math.cos(math.pi * progress)) / 2.0
    return config.ar_probability


def draws_autoregressive(config: ObjectiveConfig, step: int, steps: int, seed: int) -> bool:
    """The mode of a step: a function of the seed and the step, so that every worker draws the same."""
    return bool(np.random.default_rng([seed, step]).random() < ar_probability(config, step, steps))


def unlabelled_share(config: ObjectiveConfig, modality: Modality, step: int) -> float:
    """γ_m: 0 in the supervised start, then rising linearly to its value."""
    since = step - config.supervised_steps
    if since < 0:
        return 0.0
    rise = min(1.0, (since + 1) / config.gamma_rise_steps) if config.gamma_rise_steps else 1.0
    return rise * config.gamma[modality]
