"""CTC prefix scores: how probable it is that the frames begin with a given token sequence (METHOD §7).

For a prefix h, rⁿ_t(h) and rᵇ_t(h) are the log-probabilities of all labellings of the frames up to t that collapse to h
and end in a token or in blank; ψ(h) is the log-probability of all sequences that begin with h. With e the emissions of
a token c, b those of blank, and r_t = rᵇ_t if c repeats the last token of h, else rⁿ_t ⊕ rᵇ_t (⊕ adds in log space):

    ψ(hc) = ⊕_t r_{t−1}(h) + e_t
    rⁿ_t(hc) = (rⁿ_{t−1}(hc) ⊕ r_{t−1}(h)) + e_t
    rᵇ_t(hc) = (rⁿ_{t−1}(hc) ⊕ rᵇ_{t−1}(hc)) + b_t

So ψ of every candidate comes from what is known of h, in one sum; and the variables of those that are kept are
recurrences of the first order, solved for all frames at once: with E_t = e_1 + … + e_t,
rⁿ_t = E_t + ⊕_{s≤t} (r_{s−1} − E_{s−1}).

B clips, K prefixes of each, C candidates of each, T frames; there is a frame 0 before the first, where only the empty
prefix is possible.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seehear.decoding.ctc import BLANK

NEVER = -1e30
"""Log-probability of a token at padding; −∞ would leave differences undefined. No clip has a real one so low."""
TOO_SMALL = -80.0
"""Natural logarithm of a share that no sum of float32 is changed by, which is still one itself."""
CANDIDATES_AT_ONCE = 64
"""How many candidates of each prefix are scored at a time: what has a value for each frame needs memory."""


class PrefixState(NamedTuple):
    """The forward variables of prefixes, and their scores."""

    token: Tensor
    """(B, K, T + 1) rⁿ"""
    blank: Tensor
    """(B, K, T + 1) rᵇ"""
    score: Tensor
    """(B, K) ψ"""


class PrefixScorer:
    """Scores prefixes on the frames of B clips."""

    def __init__(self, log_probs: Tensor, mask: Tensor) -> None:
        """`log_probs` (B, T, V) of CTC, of which the frames of `mask` (B, T) are real."""
        certain_blank = log_probs.new_full(log_probs.shape[2:], NEVER)
        certain_blank[BLANK] = 0.0  # at padding, so that what is said by the last real frame stays as it is
        self.emissions = log_probs.where(mask[..., None], certain_blank).transpose(1, 2).contiguous()  # (B, V, T)

    def first(self) -> PrefixState:
        """The empty prefix of each clip."""
        silence = self.emissions[:, BLANK]
        sums = _cumulative(silence) if silence.device.type == "cpu" else _cumulative_by_doubling(silence)
        blank = sums[:, None].to(silence.dtype)
        return PrefixState(torch.full_like(blank, -torch.inf), blank, blank.new_zeros(blank.shape[:2]))

    def scores(self, state: PrefixState, last: Tensor, candidates: Tensor, eos: int) -> Tensor:
        """ψ (B, K, C) of prefixes that end in `last` (B, K), each extended by its `candidates` (B, K, C).

        For eos it is the probability of the prefix as the whole sequence; blank is impossible. What needs more frames
        than there are has −∞, whatever the padding.
        """
        either = torch.logaddexp(state.token, state.blank)
        some = torch.split(candidates, CANDIDATES_AT_ONCE, dim=2)
        scores = torch.cat([self._entering(either, tokens) for tokens in some], dim=2)
        clips = torch.arange(len(last), device=last.device)[:, None]
        repeated = state.blank[..., :-1] + self.emissions[clips, last]
        scores = torch.where(candidates == last[..., None], _logsumexp(repeated)[..., None], scores)
        scores = torch.where(candidates == eos, either[..., -1:], scores)
        return scores.masked_fill((candidates == BLANK) | (scores < NEVER / 2), -torch.inf)

    def _entering(self, either: Tensor, candidates: Tensor) -> Tensor:
        """(B, K, C): ⊕_t of r_{t−1}, `either` (B, K, T + 1), and the emissions of `candidates` (B, K, C)."""
        clips = torch.arange(len(candidates), device=candidates.device)[:, None, None]
        paths = self.emissions[clips, candidates]  # (B, K, C, T)
        paths += either[:, :, None, :-1]
        return _logsumexp(paths)

    def extend(self, state: PrefixState, last: Tensor, tokens: Tensor, scores: Tensor) -> PrefixState:
        """Prefixes that end in `last` (B, K), each extended by one of `tokens` (B, K), which gives it its score."""
        before = torch.where((tokens == last)[..., None], state.blank, torch.logaddexp(state.token, state.blank))
        clips = torch.arange(len(last), device=last.device)[:, None]
        token = _recurrence(before, self.emissions[clips, tokens])
        blank = _recurrence(token, self.emissions[:, BLANK][:, None])
        return PrefixState(token, blank, scores)

    def keep(self, clips: Tensor) -> None:
        """Go on with these clips."""
        self.emissions = self.emissions[clips]


def _logsumexp(x: Tensor) -> Tensor:
    """⊕ over the last dimension of x, which is overwritten. The same number as `torch.logsumexp`, and twenty times as
    fast on a CPU: where an exponential is too small for a float, MKL takes fifty times as long."""
    most = x.amax(-1, keepdim=True)
    x -= most.masked_fill(most.isneginf(), 0.0)
    return x.clamp_(min=TOO_SMALL).exp_().sum(-1).log_() + most.squeeze(-1)


def _recurrence(entering: Tensor, emissions: Tensor) -> Tensor:
    """x (…, T + 1) with x_0 = −∞ and x_t = (x_{t−1} ⊕ entering_{t−1}) + emissions_t; emissions (…, T)."""
    solve = _by_differences if entering.device.type == "cpu" else _by_doubling
    return F.pad(solve(entering[..., :-1], emissions), (1, 0), value=-torch.inf)


def _by_differences(entering: Tensor, emissions: Tensor) -> Tensor:
    """x_1 … x_T of `_recurrence`, for all frames at once: E_t + ⊕_{s≤t} (entering_{s−1} − E_{s−1}).

    In double precision: E may be a thousand times larger than what is left of it.
    """
    sums = _cumulative(emissions)
    total = torch.logcumsumexp(entering.double() - sums[..., :-1], -1) + sums[..., 1:]
    return total.to(entering.dtype)


def _by_doubling(entering: Tensor, emissions: Tensor) -> Tensor:
    """The same, by ⌈log₂ T⌉ steps over the frames, each of which reaches twice as far back as the one before.

    Nothing is subtracted, so float32 is enough: an error is some units in the last place of the result. For devices
    other than the CPU, of which some have no double precision (MPS).
    """
    total, sums, reach = entering + emissions, emissions.expand_as(entering), 1  # over the last `reach` frames
    while reach < total.shape[-1]:
        total = torch.logaddexp(total, _later(total, reach, -torch.inf) + sums)
        sums = sums + _later(sums, reach, 0.0)
        reach *= 2
    return total


def _cumulative(emissions: Tensor) -> Tensor:
    """E (…, T + 1) with E_0 = 0, in double precision."""
    return F.pad(emissions.double().cumsum(-1), (1, 0))


def _cumulative_by_doubling(emissions: Tensor) -> Tensor:
    """The same in float32, by sums as in `_by_doubling`: one after another, T roundings would add up."""
    sums, reach = emissions, 1
    while reach < sums.shape[-1]:
        sums = sums + _later(sums, reach, 0.0)
        reach *= 2
    return F.pad(sums, (1, 0))


def _later(x: Tensor, frames: int, before: float) -> Tensor:
    """`x` (…, T) delayed by so many frames; `before` its start."""
    return F.pad(x, (frames, 0), value=before)[..., :-frames]
