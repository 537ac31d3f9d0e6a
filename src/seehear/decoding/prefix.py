"""CTC prefix scores: how probable it is that the frames begin with a given token sequence (METHOD §7).

For a prefix h, rⁿ_t(h) and rᵇ_t(h) are the log-probabilities of all labellings of the frames up to t that collapse to h
and end in a token or in blank; ψ(h) is the log-probability of all sequences that begin with h.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from seehear.decoding.ctc import BLANK


class PrefixState(NamedTuple):
    """The forward variables of N prefixes over T frames, and their scores."""

    token: Tensor
    """(N, T) rⁿ"""
    blank: Tensor
    """(N, T) rᵇ"""
    score: Tensor
    """(N,) ψ"""


class Extensions(NamedTuple):
    """What N prefixes become when each is extended by C candidate tokens."""

    token: Tensor
    """(N, C, T) rⁿ"""
    blank: Tensor
    """(N, C, T) rᵇ"""
    score: Tensor
    """(N, C) ψ; for eos, the probability of the prefix as the whole sequence."""

    def select(self, rows: Tensor, columns: Tensor) -> PrefixState:
        """The state of the chosen (prefix, candidate) pairs."""
        return PrefixState(self.token[rows, columns], self.blank[rows, columns], self.score[rows, columns])


def first_prefix(log_probs: Tensor) -> PrefixState:
    """The state of the empty prefix, from CTC log-probabilities (T, V)."""
    blank = log_probs[:, BLANK].cumsum(0)[None]
    return PrefixState(torch.full_like(blank, -torch.inf), blank, blank.new_zeros(1))


def extend(log_probs: Tensor, state: PrefixState, last: Tensor, candidates: Tensor, eos: int) -> Extensions:
    """Extend N prefixes that end in `last` (N,) (eos for the empty one) by `candidates` (N, C).

    A token equal to the last one continues only labellings that end in blank between the two.
    """
    frames = log_probs.shape[0]
    emissions = log_probs.T[candidates]  # (N, C, T)
    either = torch.logaddexp(state.token, state.blank)[:, None]  # (N, 1, T)
    repeats = (candidates == last[:, None])[..., None]
    before = torch.where(repeats, state.blank[:, None], either)  # (N, C, T): what a new token may follow
    empty = (last == eos)[:, None]
    minus_infinity = torch.full_like(emissions[..., 0], -torch.inf)
    token = [torch.where(empty, emissions[..., 0], minus_infinity)]
    blank = [minus_infinity]
    score = token[0]
    for t in range(1, frames):
        entering = before[..., t - 1] + emissions[..., t]
        score = torch.logaddexp(score, entering)
        blank.append(torch.logaddexp(token[-1], blank[-1]) + log_probs[t, BLANK])
        token.append(torch.logaddexp(token[-1] + emissions[..., t], entering))
    score = torch.where(candidates == eos, either[:, :, -1], score)
    score = score.masked_fill(candidates == BLANK, -torch.inf)
    return Extensions(torch.stack(token, -1), torch.stack(blank, -1), score)
