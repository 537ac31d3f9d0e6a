"""Schedules as functions of the step, and the losses against slow loops."""

import itertools
import math

import numpy as np
import pytest
import torch

from seehear.modality import Modality
from seehear.objectives.losses import ctc_loss, token_cross_entropy, with_eos, with_sos
from seehear.objectives.schedules import (
    ar_probability,
    draws_autoregressive,
    teacher_momentum,
    unlabelled_share,
)
from seehear.recipe import ObjectiveConfig, OptimiserConfig
from seehear.training.optim import learning_rate


def test_teacher_momentum_rises_on_a_cosine() -> None:
    values = [teacher_momentum(0.998, step, 100) for step in range(101)]
    assert values[0] == pytest.approx(0.998)
    assert values[50] == pytest.approx(0.999)
    assert values[100] == pytest.approx(1.0)
    assert values == sorted(values)


@pytest.mark.parametrize(("schedule", "expected"), [("constant", [0.3, 0.3, 0.3]), ("linear", [0, 0.5, 1])])
def test_ar_probability(schedule: str, expected: list[float]) -> None:
    config = ObjectiveConfig(ar_probability=0.3, ar_schedule=schedule)  # type: ignore[arg-type]
    assert [ar_probability(config, step, 10) for step in (0, 5, 10)] == pytest.approx(expected)


def test_cosine_ar_probability_is_slow_at_both_ends() -> None:
    config = ObjectiveConfig(ar_schedule="cosine")
    values = [ar_probability(config, step, 10) for step in (0, 1, 5, 10)]
    assert values == pytest.approx([0.0, (1 - math.cos(math.pi / 10)) / 2, 0.5, 1.0])


def test_modes_are_mixed_as_asked_and_drawn_alike_everywhere() -> None:
    for probability in (0.0, 0.5, 1.0):
        config = ObjectiveConfig(ar_probability=probability)
        drawn = [draws_autoregressive(config, step, 2000, seed=7) for step in range(2000)]
        assert drawn == [draws_autoregressive(config, step, 2000, seed=7) for step in range(2000)]
        assert np.mean(drawn) == pytest.approx(probability, abs=0.04)


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


def test_token_cross_entropy_against_a_loop() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(3, 4, 6), torch.randint(6, (3, 4))
    weights = torch.tensor([[1.0, 1, 0, 0], [1, 0, 1, 1], [0, 0, 0, 0]])
    expected = 0.0
    for b, u in itertools.product(range(3), range(4)):
        log_probs = logits[b, u].log_softmax(-1)
        loss = -0.9 * float(log_probs[targets[b, u]]) - 0.1 * float(log_probs.mean())
        expected += float(weights[b, u]) * loss
    assert float(token_cross_entropy(logits, targets, weights, 0.1)) == pytest.approx(expected / 3, rel=1e-5)


def test_sos_and_eos_frame_the_tokens() -> None:
    tokens, lengths = torch.tensor([[5, 6, 7], [5, 0, 0], [0, 0, 0]]), torch.tensor([3, 1, 0])
    assert with_sos(tokens, 9).tolist() == [[9, 5, 6, 7], [9, 5, 0, 0], [9, 0, 0, 0]]
    assert with_eos(tokens, lengths, 9).tolist() == [[5, 6, 7, 9], [5, 9, 9, 9], [9, 9, 9, 9]]
