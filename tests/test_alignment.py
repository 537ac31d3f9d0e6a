"""Forced alignment against all labellings."""

import itertools
import math

import pytest
import torch

from seehear.decoding.alignment import TokenTime, align
from seehear.decoding.ctc import BLANK

V = 4


def best_labelling(log_probs: torch.Tensor, tokens: tuple[int, ...]) -> float:
    """The highest log-probability of a labelling that collapses to `tokens`."""
    return max(
        (
            sum(float(log_probs[t, token]) for t, token in enumerate(labelling))
            for labelling in itertools.product(range(V), repeat=len(log_probs))
            if tuple(token for token, _ in itertools.groupby(labelling) if token != BLANK) == tokens
        ),
        default=-math.inf,
    )


def labelling_of(times: list[TokenTime], tokens: tuple[int, ...], frames: int) -> list[int]:
    """What each frame says."""
    labels = [BLANK] * frames
    for token, time in zip(tokens, times, strict=True):
        labels[time.start : time.end] = [token] * (time.end - time.start)
    return labels


@pytest.mark.parametrize("seed", range(4))
def test_the_labelling_found_is_the_most_probable_of_all(seed: int) -> None:
    """Clips of other lengths beside it do not matter, nor what stands at their padding."""
    lengths, tokens = (6, 1, 4, 5), ((1, 2, 2), (3,), (), (2, 1))
    generator = torch.Generator().manual_seed(seed)
    log_probs = torch.randn(4, 6, V, generator=generator).log_softmax(-1)
    mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    for clip, times in enumerate(align(log_probs, mask, tokens)):
        own = log_probs[clip, : lengths[clip]]
        labels = labelling_of(times, tokens[clip], lengths[clip])
        assert tuple(token for token, _ in itertools.groupby(labels) if token != BLANK) == tokens[clip]
        score = sum(float(own[t, token]) for t, token in enumerate(labels))
        assert score == pytest.approx(best_labelling(own, tokens[clip]), abs=1e-5)
        for token, time in zip(tokens[clip], times, strict=True):
            assert time.log_prob == pytest.approx(float(own[time.start : time.end, token].mean()), abs=1e-5)


def test_more_tokens_than_frames_share_them() -> None:
    log_probs = torch.zeros(2, 3, V).log_softmax(-1)
    mask = torch.tensor([[True, True, True], [True, True, False]])
    impossible, repeated = align(log_probs, mask, [[1, 2, 1, 2], [1, 1]])
    assert [(time.start, time.end) for time in impossible] == [(0, 0), (0, 1), (1, 2), (2, 3)]
    assert [(time.start, time.end) for time in repeated] == [(0, 1), (1, 2)]  # a blank between them has no frame
    assert {time.log_prob for time in (*impossible, *repeated)} == {-math.inf}


def test_nothing_takes_no_time() -> None:
    assert align(torch.zeros(2, 3, V), torch.ones(2, 3, dtype=torch.bool), [[], []]) == [[], []]
    assert align(torch.zeros(0, 3, V), torch.ones(0, 3, dtype=torch.bool), []) == []


def test_of_equally_probable_labellings_the_one_that_says_things_earliest() -> None:
    same = torch.zeros(2, 5, V).log_softmax(-1)
    mask = torch.arange(5) < torch.tensor([[5], [3]])
    found = align(same, mask, [[1, 2, 2], [1]])
    assert [(time.start, time.end) for time in found[0]] == [(0, 1), (1, 2), (3, 4)]
    assert [(time.start, time.end) for time in found[1]] == [(0, 1)]
