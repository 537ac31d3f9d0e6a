"""Decoding by CTC alone: greedily, the best token of each frame, repeats merged, blanks dropped; or by a prefix search,
which sums over all labellings that collapse to the same."""

import math
from collections import defaultdict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seehear.decoding.hypothesis import Hypothesis, best_first

BLANK = 0
"""The id of CTC's blank."""
IMPROBABLE = -12.0
"""Log-probability below which a prefix search takes no token for a frame."""


class GreedyCTC(NamedTuple):
    """The most probable labelling of B clips of T frames, and what it collapses to."""

    frame_ids: Tensor
    """(B, T) int64, blank at padding."""
    frame_log_probs: Tensor
    """(B, T) float32, of the best token; 0 at padding."""
    tokens: Tensor
    """(B, U) int64, padded with 0."""
    lengths: Tensor
    """(B,) int64, tokens of each clip."""

    def to_lists(self) -> list[list[int]]:
        """The tokens of each clip."""
        return [row[:length] for row, length in zip(self.tokens.tolist(), self.lengths.tolist(), strict=True)]


def ctc_greedy(logits: Tensor, mask: Tensor) -> GreedyCTC:
    """Decode logits (B, T, V) on the real frames of `mask` (B, T)."""
    best_log_probs, best = logits.float().log_softmax(-1).max(-1)
    frame_ids = best.masked_fill(~mask, BLANK)
    previous = torch.cat([frame_ids.new_full((len(frame_ids), 1), BLANK), frame_ids[:, :-1]], dim=1)
    kept = (frame_ids != BLANK) & (frame_ids != previous)
    lengths = kept.sum(1)
    longest = int(lengths.max()) if len(lengths) else 0
    places = torch.where(kept, kept.cumsum(1) - 1, longest)  # a last column takes what is dropped
    tokens = frame_ids.new_zeros(len(frame_ids), longest + 1).scatter_(1, places, frame_ids)[:, :longest]
    return GreedyCTC(frame_ids, best_log_probs.masked_fill(~mask, 0.0), tokens, lengths)


def ctc_negative_log_probs(
    log_probs: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor, *, zero_infinity: bool = False
) -> Tensor:
    """(B,) −log P of `tokens` (B, U), of which `token_lengths` (B,) count, on `lengths` (B,) frames of (B, T, V).

    What is impossible has ∞, or 0 with `zero_infinity`. The CPU computes it where the device is MPS, for which PyTorch
    had no kernel until lately.
    """
    device = log_probs.device
    if device.type == "mps":
        log_probs, lengths, tokens, token_lengths = (x.cpu() for x in (log_probs, lengths, tokens, token_lengths))
    by_frame = log_probs.transpose(0, 1)
    losses = F.ctc_loss(by_frame, tokens, lengths, token_lengths, BLANK, reduction="none", zero_infinity=zero_infinity)
    return losses.to(device)


def ctc_beam(log_probs: Tensor, beam_size: int) -> list[Hypothesis]:
    """Prefix beam search over one clip's log-probabilities (T, V): the most probable sequences, best first.

    Each frame leaves the `beam_size` best prefixes, extended by its `beam_size` best tokens at most.
    """
    best, tokens = log_probs.topk(min(beam_size, log_probs.shape[1]), dim=1)
    never = (-math.inf, -math.inf)
    beam: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, -math.inf)}  # ends in blank, in its last token
    for blank, by_token in zip(log_probs[:, BLANK].tolist(), _pairs(tokens, best), strict=True):
        longer: defaultdict[tuple[int, ...], tuple[float, float]] = defaultdict(lambda: never)
        for prefix, (by_blank, by_last) in beam.items():
            either = _add(by_blank, by_last)
            longer[prefix] = (_add(longer[prefix][0], either + blank), longer[prefix][1])
            for token, log_prob in by_token:
                entering = either
                if prefix and token == prefix[-1]:
                    same = longer[prefix]
                    longer[prefix] = (same[0], _add(same[1], by_last + log_prob))
                    entering = by_blank
                if entering > -math.inf:
                    new = longer[(*prefix, token)]
                    longer[(*prefix, token)] = (new[0], _add(new[1], entering + log_prob))
        kept = sorted(longer.items(), key=lambda item: -_add(*item[1]))[:beam_size]
        beam = dict(kept)
    scored = ((prefix, _add(*both)) for prefix, both in beam.items())
    return best_first([Hypothesis(prefix, score, ctc_score=score) for prefix, score in scored])


def _pairs(tokens: Tensor, log_probs: Tensor) -> list[list[tuple[int, float]]]:
    """For each frame the tokens that are not blank and not improbable."""
    rows = zip(tokens.tolist(), log_probs.tolist(), strict=True)
    return [
        [(token, value) for token, value in zip(*row, strict=True) if token != BLANK and value > IMPROBABLE]
        for row in rows
    ]


def _add(x: float, y: float) -> float:
    """The logarithm of the sum of what x and y are logarithms of."""
    larger, smaller = (x, y) if x > y else (y, x)
    return larger if smaller == -math.inf else larger + math.log1p(math.exp(smaller - larger))
