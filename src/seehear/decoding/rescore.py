"""Decoding in which the decoder reads whole sequences at once, instead of making them token by token."""

import math

import torch
from torch import Tensor

from seehear.decoding.ctc import ctc_beam, ctc_greedy
from seehear.decoding.hypothesis import Hypothesis, best_first
from seehear.decoding.language_model import LanguageModel
from seehear.decoding.options import DecodingOptions
from seehear.decoding.token_scores import decoder_log_probs, language_log_probs
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

    One pass of the decoder over all candidates of all clips; `max_length_ratio` has no say. What the language model
    holds to be impossible is left out.
    """
    log_probs = model.ctc_logits(features, modality).float().log_softmax(-1).cpu()
    lengths = mask.sum(1).tolist()
    candidates = [
        [h for h in ctc_beam(clip[:length], options.beam_size) if model.eos not in h.tokens] or [Hypothesis((), 0.0)]
        for clip, length in zip(log_probs, lengths, strict=True)
    ]
    width = max(map(len, candidates), default=0)
    rows = [h.tokens for found in candidates for h in [*found, *[Hypothesis((), 0.0)] * (width - len(found))]]
    decoder = decoder_log_probs(model, rows, features, mask, modality).sum(1).tolist()
    language = [0.0] * len(rows)
    if language_model is not None and options.language_weight > 0:
        language = language_log_probs(language_model, rows, model.eos, features.device).sum(1).tolist()
    alpha = options.ctc_weight
    results = []
    for clip, found in enumerate(candidates):
        scored = []
        for place, hypothesis in enumerate(found):
            by_decoder, by_language = decoder[clip * width + place], language[clip * width + place]
            score = alpha * hypothesis.ctc_score + (1 - alpha) * by_decoder + options.language_weight * by_language
            score += options.length_bonus * (len(hypothesis.tokens) + 1)
            scored.append(Hypothesis(hypothesis.tokens, score, by_decoder, hypothesis.ctc_score, by_language))
        results.append(best_first([hypothesis for hypothesis in scored if hypothesis.score > -math.inf]))
    return results


@torch.no_grad()
def ctc_driven(model: USR, features: Tensor, mask: Tensor, modality: Modality) -> list[list[int]]:
    """The decoder's choice at each position of [sos, greedy CTC], as the teacher labels (METHOD §3; Table 12)."""
    ctc = ctc_greedy(model.ctc_logits(features, modality), mask)
    prefix = torch.nn.functional.pad(ctc.tokens, (1, 0), value=model.sos)
    chosen = model.logits(model.decode(prefix, features, mask), modality).argmax(-1)
    rows = zip(chosen.tolist(), (ctc.lengths + 1).tolist(), strict=True)
    return [row[:length] for row, length in rows]
