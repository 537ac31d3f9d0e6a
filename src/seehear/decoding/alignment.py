"""When each token is said: forced alignment by CTC, the most probable labelling that collapses to given tokens.

B clips, T frames, U tokens, S = 2·U + 1 states: a blank, then for each token itself and a blank.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seehear.decoding.ctc import BLANK


class TokenTime(NamedTuple):
    """The frames that say a token."""

    start: int
    """The first frame."""
    end: int
    """The one after the last."""
    log_prob: float
    """Mean log-probability of the token in these frames."""


@torch.no_grad()
def align(log_probs: Tensor, mask: Tensor, tokens: Sequence[Sequence[int]]) -> list[list[TokenTime]]:
    """The frames of each of `tokens` (of B clips) on CTC log-probabilities (B, T, V) with `mask` (B, T).

    Of labellings that are equally probable, the one that says things earliest. A clip with fewer frames than its tokens
    need has no labelling: its tokens share the frames evenly, with a log-probability of −∞.
    """
    clips = torch.arange(len(mask), device=mask.device)[:, None]
    longest = max(map(len, tokens), default=0)
    states = torch.full((len(mask), 2 * longest + 1), BLANK, device=mask.device)
    for clip, ids in enumerate(tokens):
        states[clip, 1 : 2 * len(ids) : 2] = torch.tensor(ids, dtype=torch.long, device=mask.device)
    last = torch.tensor([2 * len(ids) for ids in tokens], dtype=torch.long, device=mask.device)
    path, possible = _most_probable_path(log_probs, mask, states, last)
    emitted = log_probs.gather(2, states[clips, path][..., None]).squeeze(2).tolist()
    frames = mask.sum(1).tolist()
    times = []
    for clip, ids in enumerate(tokens):
        if possible[clip]:
            times.append(_token_times(path[clip, : frames[clip]].tolist(), emitted[clip]))
        else:
            times.append(_spread(len(ids), frames[clip]))
    return times


def align_words(
    log_probs: Tensor, mask: Tensor, words: Sequence[Sequence[Sequence[int]]]
) -> list[list[tuple[int, int, float]]]:
    """First frame, the one after the last, and probability of each of the `words`, lists of tokens, of B clips.

    `log_probs` and `mask` are those of `align`; the probability is the geometric mean over a word's tokens.
    """
    found = align(log_probs, mask, [[token for word in said for token in word] for said in words])
    return [_by_word(said, times) for said, times in zip(words, found, strict=True)]


def _by_word(words: Sequence[Sequence[int]], times: Sequence[TokenTime]) -> list[tuple[int, int, float]]:
    """Start, end and probability of words whose tokens have these times."""
    spans, first = [], 0
    for word in words:
        of_word = times[first : first + len(word)]
        score = float(np.mean([time.log_prob for time in of_word]))
        spans.append((of_word[0].start, of_word[-1].end, float(np.exp(score))))
        first += len(word)
    return spans


def _most_probable_path(log_probs: Tensor, mask: Tensor, states: Tensor, last: Tensor) -> tuple[Tensor, list[bool]]:
    """The state of each frame (B, T), and whether there is a path at all, by Viterbi; `last` (B,) is the last blank."""
    T = mask.shape[1]
    emissions = log_probs.gather(2, states[:, None].expand(-1, T, -1))  # (B, T, S)
    skips = torch.zeros_like(states, dtype=torch.bool)  # over a blank, between tokens that differ
    skips[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]
    score = torch.full_like(emissions[:, 0], -torch.inf)
    score[:, :2] = emissions[:, 0, :2]
    steps = []  # how many states each state has come on, per frame
    for t in range(1, T):
        one = torch.nn.functional.pad(score, (1, 0), value=-torch.inf)[:, :-1]
        two = torch.nn.functional.pad(score, (2, 0), value=-torch.inf)[:, :-2].masked_fill(~skips, -torch.inf)
        best, step = torch.stack([score, one, two]).max(0)
        real = mask[:, t, None]
        score = torch.where(real, best + emissions[:, t], score)
        steps.append(torch.where(real, step, 0))
    final = torch.stack([score.gather(1, last[:, None]), score.gather(1, (last - 1).clamp_min(0)[:, None])])
    value, before = final.squeeze(2).max(0)
    state = torch.where(last > 0, last - before, last)
    path = [state]
    for step in reversed(steps):
        state = state - step.gather(1, state[:, None]).squeeze(1)
        path.append(state)
    return torch.stack(path[::-1], dim=1), value.isfinite().tolist()


def _token_times(path: Sequence[int], emitted: Sequence[float]) -> list[TokenTime]:
    """The runs of odd states."""
    frames: dict[int, list[int]] = {}
    for t, state in enumerate(path):
        if state % 2:
            frames.setdefault(state, []).append(t)
    return [
        TokenTime(said[0], said[-1] + 1, sum(emitted[t] for t in said) / len(said))
        for _, said in sorted(frames.items())
    ]


def _spread(count: int, frames: int) -> list[TokenTime]:
    """Tokens that share the frames evenly."""
    bounds = [place * frames // max(count, 1) for place in range(count + 1)]
    return [TokenTime(start, end, -torch.inf) for start, end in itertools.pairwise(bounds)]
