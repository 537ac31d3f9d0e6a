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


CHECK_EVERY = {"cpu": 1, "cuda": 8}
"""Tokens from one look at which clips have ended to the next; each look makes the CPU wait for the device."""


@torch.no_grad()
def attention_greedy(
    model: USR,
    features: Tensor,
    mask: Tensor,
    modality: Modality,
    max_tokens: int | Tensor,
    check_every: int | None = None,
) -> GreedyAttention:
    """Decode encoder features (B, T, D) with mask (B, T), at most `max_tokens` tokens each, eos counted.

    `max_tokens` may differ by clip, (B,). A clip that has reached eos or its limit leaves the batch, or says what does
    not count until `check_every` tokens have passed (by default as the device likes it; the result is the same).
    """
    clips, device = len(features), features.device
    check_every = check_every or CHECK_EVERY.get(device.type, 8)
    limits = torch.as_tensor(max_tokens, device=device).expand(clips)
    longest = int(limits.max()) if clips else 0
    tokens = torch.full((clips, longest), model.eos, device=device)
    log_probs = torch.zeros(clips, longest, device=device)
    rows = torch.arange(clips, device=device)
    new = torch.full((clips, 1), model.sos, device=device)
    cache = model.new_cache()
    for position in range(longest):
        states = model.decode(new, features, mask, cache)
        scores, chosen = model.logits(states[:, -1], modality).float().log_softmax(-1).max(-1)
        tokens[rows, position], log_probs[rows, position] = chosen, scores
        new = chosen[:, None]
        if (position + 1) % check_every == 0:
            running = (tokens[rows, : position + 1] != model.eos).all(1) & (position + 1 < limits[rows])
            left = running.nonzero().squeeze(1)
            if not len(left):
                break
            if len(left) < len(rows):
                rows, new = rows[left], new[left]
                cache.select(left, left)
    return _until_end(tokens, log_probs, limits, model.eos)


def _until_end(tokens: Tensor, log_probs: Tensor, limits: Tensor, eos: int) -> GreedyAttention:
    """What counts of `tokens` (B, U): up to the first eos, and no more than `limits` (B,)."""
    before_eos = (tokens != eos).cumprod(1).sum(1)
    lengths = torch.minimum(before_eos + 1, limits)
    longest = int(lengths.max()) if len(lengths) else 0
    over = torch.arange(longest, device=tokens.device) >= lengths[:, None]
    return GreedyAttention(
        tokens[:, :longest].masked_fill(over, eos), lengths, log_probs[:, :longest].masked_fill(over, 0.0)
    )
