"""Loss functions of tensors. Every one is a sum over tokens or frames divided by the number of clips (METHOD §5)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from seehear.decoding.ctc import ctc_negative_log_probs


def ctc_loss(logits: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, weights: Tensor) -> Tensor:
    """Mean over clips of the weighted CTC loss −log P(target | frames).

    Args:
        logits: (B, T, V); blank is id 0.
        lengths: (B,) real frames of each clip.
        targets: (B, U) token ids, padded with anything.
        target_lengths: (B,) tokens of each clip.
        weights: (B,) weight of each clip's loss; 0 leaves it out, but it stays in the mean.

    A target that does not fit its frames (infinite loss) costs nothing; an empty one asks for blanks alone.
    """
    log_probs = logits.float().log_softmax(-1)
    losses = ctc_negative_log_probs(log_probs, lengths, targets, target_lengths, zero_infinity=True)
    return (losses * weights).mean()


def token_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor, label_smoothing: float) -> Tensor:
    """Mean over clips of the summed, weighted cross-entropy of their tokens.

    Args:
        logits: (B, U, V).
        targets: (B, U) token ids.
        weights: (B, U) weight of each token; 0 at padding and where a label is not trusted.
        label_smoothing: share of the target's probability that is spread over the whole vocabulary.
    """
    losses = F.cross_entropy(
        logits.float().transpose(1, 2), targets, reduction="none", label_smoothing=label_smoothing
    )  # (B, U)
    return (losses * weights).sum(1).mean()


def with_eos(tokens: Tensor, lengths: Tensor, eos: int) -> Tensor:
    """Decoder targets (B, U + 1): `tokens` (B, U) cut at `lengths`, then eos to the end."""
    extended = torch.cat([tokens, tokens.new_zeros(len(tokens), 1)], dim=1)
    return extended.masked_fill(~position_mask(lengths, extended.shape[1]), eos)


def with_sos(tokens: Tensor, sos: int) -> Tensor:
    """Decoder input (B, U + 1): sos before `tokens` (B, U)."""
    return torch.cat([tokens.new_full((len(tokens), 1), sos), tokens], dim=1)


def without(specials: Sequence[int], tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """`tokens` (B, U) of `lengths` (B,) with all `specials` taken out, and their new lengths."""
    kept = position_mask(lengths, tokens.shape[1])
    for special in specials:
        kept = kept & (tokens != special)
    order = (~kept).to(torch.uint8).argsort(dim=1, stable=True)  # those that are kept come first
    return tokens.gather(1, order), kept.sum(1)


def position_mask(lengths: Tensor, size: int) -> Tensor:
    """(B, size) bool, True at positions below each of `lengths` (B,)."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]
