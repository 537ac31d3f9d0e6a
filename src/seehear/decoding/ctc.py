"""Greedy CTC decoding: the best token of each frame, repeats merged, blanks dropped."""

from typing import NamedTuple

import torch
from torch import Tensor

BLANK = 0
"""The id of CTC's blank."""


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
