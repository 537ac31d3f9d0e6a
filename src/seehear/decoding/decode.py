"""Encoder features of a batch to token ids, by the method that the options name."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from seehear.decoding.beam_search import beam_search
from seehear.decoding.ctc import BLANK, ctc_greedy
from seehear.decoding.greedy import attention_greedy
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.modality import Modality
from seehear.model.usr import USR


def decode_batch(
    model: USR, features: Tensor, mask: Tensor, modality: Modality, options: DecodingOptions
) -> list[list[int]]:
    """Token ids without specials of each clip, from features (B, T, D) with mask (B, T)."""
    specials = (BLANK, model.eos)
    decoded = _decode(model, features, mask, modality, options)
    return [[token for token in tokens if token not in specials] for tokens in decoded]


def _decode(
    model: USR, features: Tensor, mask: Tensor, modality: Modality, options: DecodingOptions
) -> Iterable[Sequence[int]]:
    """Token ids of each clip; among them what the heads could not be kept from: an eos of CTC, a decoder's blank."""
    if options.method is DecodingMethod.CTC:
        return ctc_greedy(model.ctc_logits(features, modality), mask).to_lists()
    if options.method is DecodingMethod.ATTENTION:
        max_tokens = torch.tensor([options.max_tokens(length) for length in mask.sum(1).tolist()])
        return attention_greedy(model, features, mask, modality, max_tokens).to_lists(model.eos)
    found = beam_search(model, features, mask, modality, options, n_best=1)
    return [hypotheses[0].tokens for hypotheses in found]
