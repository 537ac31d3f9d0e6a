"""Decoding in which the decoder reads whole sequences at once, instead of making them token by token."""

from collections.abc import Sequence

import torch
from torch import Tensor

from seehear.decoding.ctc import ctc_beam, ctc_greedy
from seehear.decoding.hypothesis import Hypothesis, best_first
from seehear.decoding.language_model import LanguageModel
from seehear.decoding.options import DecodingOptions
from seehear.modality import Modality
from seehear.model.usr import USR


@torch.no_grad()
def rescore(
    model: USR,
    features: Tensor,
    mask: Tensor,
    modality: Modality,
    options: DecodingOptions,
    *,
    language_model: LanguageModel | None = None,
) -> list[list[Hypothesis]]:
    """What a CTC prefix beam search finds in features (B, T, D) with mask (B, T), ranked as a joint search would.

    One pass of the decoder over all candidates of all clips; `max_length_ratio` has no say.
    """
    log_probs = model.ctc_logits(features, modality).float().log_softmax(-1).cpu()
    lengths = mask.sum(1).tolist()
    candidates = [
        [h for h in ctc_beam(clip[:length], options.beam_size) if model.eos not in h.tokens] or [Hypothesis((), 0.0)]
        for clip, length in zip(log_probs, lengths, strict=True)
    ]
    width = max(map(len, candidates), default=0)
    rows = [h.tokens for found in candidates for h in [*found, *[Hypothesis((), 0.0)] * (width - len(found))]]
    decoder = read(model, features, mask, modality, rows).tolist()
    language = _language_scores(model, rows, features.device, language_model)
    alpha = options.ctc_weight
    results = []
    for clip, found in enumerate(candidates):
        scored = []
        for place, hypothesis in enumerate(found):
            by_decoder, by_language = decoder[clip * width + place], language[clip * width + place]
            score = alpha * hypothesis.ctc_score + (1 - alpha) * by_decoder + options.language_weight * by_language
            score += options.length_bonus * (len(hypothesis.tokens) + 1)
            scored.append(Hypothesis(hypothesis.tokens, score, by_decoder, hypothesis.ctc_score, by_language))
        results.append(best_first(scored))
    return results


@torch.no_grad()
def read(model: USR, features: Tensor, mask: Tensor, modality: Modality, rows: Sequence[Sequence[int]]) -> Tensor:
    """(N,) log-probability of each of `rows`, with its end, under the decoder; N = k·B, row n on clip n // k."""
    tokens, lengths = _padded(model, rows, features.device)
    logits = model.logits(model.decode(tokens[:, :-1], features, mask), modality)
    return _sum_of_targets(logits.float().log_softmax(-1), tokens, lengths)


def _language_scores(
    model: USR, rows: Sequence[Sequence[int]], device: torch.device, language_model: LanguageModel | None
) -> list[float]:
    """The log-probability of each row under the language model; zeros without one."""
    if language_model is None:
        return [0.0] * len(rows)
    tokens, lengths = _padded(model, rows, device)
    log_probs = [language_model.log_probs(tokens[:, : end + 1]) for end in range(tokens.shape[1] - 1)]
    return _sum_of_targets(torch.stack(log_probs, dim=1), tokens, lengths).tolist()


def _padded(model: USR, rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """sos, tokens, eos and more eos as padding, (N, U + 2), and how many tokens and eos each row has (N,)."""
    longest = max(map(len, rows), default=0)
    filled = [[model.sos, *row, *[model.eos] * (longest - len(row) + 1)] for row in rows]
    lengths = torch.tensor([len(row) + 1 for row in rows], device=device)
    return torch.tensor(filled, device=device).view(len(rows), longest + 2), lengths


def _sum_of_targets(log_probs: Tensor, tokens: Tensor, lengths: Tensor) -> Tensor:
    """(N,) of log-probabilities (N, U, V) those of what follows, up to `lengths` (N,)."""
    following = log_probs.gather(-1, tokens[:, 1:, None]).squeeze(-1)
    beyond = torch.arange(following.shape[1], device=tokens.device) >= lengths[:, None]
    return following.masked_fill(beyond, 0.0).sum(1)


@torch.no_grad()
def ctc_driven(model: USR, features: Tensor, mask: Tensor, modality: Modality) -> list[list[int]]:
    """The decoder's choice at each position of [sos, greedy CTC], as the teacher labels (METHOD §3; Table 12)."""
    ctc = ctc_greedy(model.ctc_logits(features, modality), mask)
    prefix = torch.nn.functional.pad(ctc.tokens, (1, 0), value=model.sos)
    chosen = model.logits(model.decode(prefix, features, mask), modality).argmax(-1)
    rows = zip(chosen.tolist(), (ctc.lengths + 1).tolist(), strict=True)
    return [row[:length] for row, length in rows]
