"""Schedules as functions of the step; CTC as the sum over alignments; the ends of a sentence."""

import itertools
import math
from typing import Literal

import numpy as np
import pytest
import torch

import loop_reference as loop
from seehear.modality import Modality
from seehear.objectives.losses import ctc_loss, with_eos, with_sos
from seehear.objectives.schedules import (
    ar_probability,
    draws_autoregressive,
    teacher_momentum,
    unlabelled_share,
)
from seehear.recipe import ObjectiveConfig, OptimiserConfig
from seehear.training.optim import learning_rate

STEPS = 40


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_what_changes_over_a_run_is_as_the_method_says(schedule: Literal["constant", "linear", "cosine"]) -> None:
    config = ObjectiveConfig(
        ar_probability=0.3, ar_schedule=schedule, supervised_steps=10, gamma_rise_steps=4, teacher_momentum=0.9
    )
    settings = loop.Settings.among(config.model_dump())
    for step in range(STEPS + 1):
        assert ar_probability(config, step, STEPS) == pytest.approx(loop.ar_probability(settings, step, STEPS))
        assert teacher_momentum(0.9, step, STEPS) == pytest.approx(loop.momentum(settings, step, STEPS))
        for modality in Modality:
            share = loop.gamma(settings, modality.value, step)
            assert unlabelled_share(config, modality, step) == pytest.approx(share)


def test_schedules_begin_and_end_where_they_should() -> None:
    config = ObjectiveConfig(supervised_steps=10, gamma_rise_steps=4, ar_schedule="cosine")
    assert [teacher_momentum(0.998, step, STEPS) for step in (0, 20, 40)] == pytest.approx([0.998, 0.999, 1.0])
    assert [ar_probability(config, step, STEPS) for step in (0, 20, 40)] == pytest.approx([0.0, 0.5, 1.0])
    shares = [unlabelled_share(config, Modality.VIDEO, step) for step in (0, 9, 10, 11, 13, 50)]
    assert shares == pytest.approx([0, 0, 0.97 / 4, 0.97 / 2, 0.97, 0.97])


def test_modes_are_mixed_as_asked_and_drawn_alike_everywhere() -> None:
    for probability, schedule in ((0.0, "constant"), (0.3, "constant"), (1.0, "constant"), (0.5, "linear")):
        config = ObjectiveConfig.model_validate({"ar_probability": probability, "ar_schedule": schedule})
        drawn = [draws_autoregressive(config, step, 2000, seed=7) for step in range(2000)]
        assert drawn == [draws_autoregressive(config, step, 2000, seed=7) for step in range(2000)]
        assert np.mean(drawn) == pytest.approx(probability, abs=0.04)
    assert np.mean(drawn[:500]) == pytest.approx(0.125, abs=0.04)


def test_unlabelled_share_waits_then_rises() -> None:
    config = ObjectiveConfig(supervised_steps=10, gamma_rise_steps=4)
    shares = [unlabelled_share(config, Modality.VIDEO, step) for step in (0, 9, 10, 11, 13, 50)]
    assert shares == pytest.approx([0, 0, 0.97 / 4, 0.97 / 2, 0.97, 0.97])


def test_learning_rate_warms_up_and_decays() -> None:
    config = OptimiserConfig(peak_lr=1.0, final_lr=0.1, warmup=0.2)
    rates = [learning_rate(config, step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[19] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.55)
    assert rates[100] == pytest.approx(0.1)


def brute_force_ctc(log_probs: torch.Tensor, target: list[int]) -> float:
    """−log of the summed probability of every frame labelling that collapses to `target`; log_probs (T, V)."""
    total = 0.0
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        collapsed = [token for token, _ in itertools.groupby(path) if token != 0]
        if collapsed == target:
            total += math.exp(sum(float(log_probs[t, token]) for t, token in enumerate(path)))
    return -math.log(total) if total else math.inf


def test_ctc_loss_equals_the_sum_over_alignments() -> None:
    torch.manual_seed(0)
    logits = torch.randn(4, 5, 3)
    lengths = torch.tensor([5, 4, 3, 5])
    targets, target_lengths = torch.tensor([[1, 2], [1, 1], [2, 2], [0, 0]]), torch.tensor([2, 2, 2, 0])
    weights = torch.tensor([1.0, 0.5, 1.0, 1.0])
    expected = 0.0
    for row in range(4):  # the last target is empty: nothing but blanks
        own = logits[row, : lengths[row]].log_softmax(-1)
        expected += float(weights[row]) * brute_force_ctc(own, targets[row, : target_lengths[row]].tolist())
    measured = ctc_loss(logits, lengths, targets, target_lengths, weights)
    assert float(measured) == pytest.approx(expected / 4, rel=1e-5)


def test_a_target_that_does_not_fit_costs_nothing_and_has_a_finite_gradient() -> None:
    logits = torch.randn(2, 2, 4, requires_grad=True)
    loss = ctc_loss(logits, torch.tensor([2, 2]), torch.tensor([[1, 1], [1, 2]]), torch.tensor([2, 2]), torch.ones(2))
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[0] == 0).all()
    assert (logits.grad[1] != 0).any()


def test_sos_and_eos_frame_the_tokens() -> None:
    tokens, lengths = torch.tensor([[5, 6, 7], [5, 0, 0], [0, 0, 0]]), torch.tensor([3, 1, 0])
    assert with_sos(tokens, 9).tolist() == [[9, 5, 6, 7], [9, 5, 0, 0], [9, 0, 0, 0]]
    assert with_eos(tokens, lengths, 9).tolist() == [[5, 6, 7, 9], [5, 9, 9, 9], [9, 9, 9, 9]]
