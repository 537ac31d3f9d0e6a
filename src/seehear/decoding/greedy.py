"""Greedy attention decoding of a batch: one token at a time, with a key-value cache."""

from typing import NamedTuple

import torch
from torch import Tensor

from seehear.modality import Modality
from seehear.model.usr import USR


class GreedyAttention(NamedTuple):
    """The decoder's own choice at every position, for B clips."""

    tokens: Tensor
    """(B, U) int64, eos included where it was reached, padded with eos."""
    lengths: Tensor
    """(B,) int64, eos counted."""
    log_probs: Tensor
    """(B, U) float32, of the chosen tokens; 0 at padding."""

    def to_lists(self, eos: int) -> list[list[int]]:
        """The tokens of each clip without eos."""
        rows = zip(self.tokens.tolist(), self.lengths.tolist(), strict=True)
        return [[token for token in row[:length] if token != eos] for row, length in rows]


@torch.no_grad()
def attention_greedy(
    model: USR, features: Tensor, mask: Tensor, modality: Modality, max_tokens: int | Tensor
) -> GreedyAttention:
    """Decode encoder features (B, T, D) with mask (B, T), at most `max_tokens` tokens each, eos counted.

    `max_tokens` may differ by clip, (B,). A clip leaves the batch as it reaches eos or its limit.
    """
    clips = len(features)
    lengths = torch.as_tensor(max_tokens, device=features.device).expand(clips).clone()
    longest = int(lengths.max()) if clips else 0
    tokens = torch.full((clips, longest), model.eos, device=features.device)
    log_probs = torch.zeros(clips, longest, device=features.device)
    rows = torch.arange(clips, device=features.device)
    new = torch.full((clips, 1), model.sos, device=features.device)
    cache = model.new_cache()
    for position in range(longest):
        states = model.decode(new, features, mask, cache)
        scores, chosen = model.logits(states[:, -1], modality).float().log_softmax(-1).max(-1)
        tokens[rows, position], log_probs[rows, position] = chosen, scores
        running = (chosen != model.eos) & (position + 1 < lengths[rows])
        if not running.all():
            lengths[rows[~running]] = position + 1
            left = running.nonzero().squeeze(1)
            if not len(left):
                break
            rows, chosen = rows[left], chosen[left]
            cache.select(left, left)
        new = chosen[:, None]
    longest = int(lengths.max()) if clips else 0
    return GreedyAttention(tokens[:, :longest], lengths, log_probs[:, :longest])
