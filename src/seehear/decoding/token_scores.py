"""How probable given tokens are, each after those before it; the last is the end of sentence.

N rows of U tokens at most; row n is on clip n // k, where there are k rows for each clip.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from seehear.decoding.language_model import LanguageModel
from seehear.modality import Modality
from seehear.model.usr import USR


def decoder_log_probs(
    model: USR, rows: Sequence[Sequence[int]], features: Tensor, mask: Tensor, modality: Modality
) -> Tensor:
    """(N, U + 1) of `rows` of tokens and their ends under the decoder, on `features` (B, T, D); 0 beyond an end."""
    tokens = _with_ends(rows, model.eos, features.device)
    logits = model.logits(model.decode(tokens[:, :-1], features, mask), modality)
    return _of_targets(logits.float().log_softmax(-1), tokens, rows)


def language_log_probs(
    language_model: LanguageModel, rows: Sequence[Sequence[int]], eos: int, device: torch.device
) -> Tensor:
    """(N, U + 1) of `rows` of tokens and their ends under a language model; 0 beyond an end."""
    tokens = _with_ends(rows, eos, device)
    log_probs = [language_model.log_probs(tokens[:, : end + 1]) for end in range(tokens.shape[1] - 1)]
    return _of_targets(torch.stack(log_probs, dim=1), tokens, rows)


def _with_ends(rows: Sequence[Sequence[int]], eos: int, device: torch.device) -> Tensor:
    """(N, U + 2): sos, which is eos, before each row, and eos after it, as often as it takes."""
    longest = max(map(len, rows), default=0)
    filled = [[eos, *row, *[eos] * (longest - len(row) + 1)] for row in rows]
    return torch.tensor(filled, device=device).view(len(rows), longest + 2)


def _of_targets(log_probs: Tensor, tokens: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """Of log-probabilities (N, U + 1, V) of what comes next, those of what does come, up to the end of each row."""
    following = log_probs.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    ends = torch.tensor([len(row) for row in rows], device=tokens.device)
    return following.masked_fill(torch.arange(following.shape[1], device=tokens.device) > ends[:, None], 0.0)
