"""Encoder features of a batch to token ids, by the method that the options name."""

import torch
from torch import Tensor

from seehear.decoding.beam_search import beam_search
from seehear.decoding.ctc import ctc_greedy
from seehear.decoding.greedy import attention_greedy
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.modality import Modality
from seehear.model.usr import USR


def decode_batch(
    model: USR, features: Tensor, mask: Tensor, modality: Modality, options: DecodingOptions
) -> list[list[int]]:
    """Token ids without specials of each clip, from features (B, T, D) with mask (B, T)."""
    if options.method is DecodingMethod.CTC:
        return ctc_greedy(model.ctc_logits(features, modality), mask).to_lists()
    if options.method is DecodingMethod.ATTENTION:
        max_tokens = torch.tensor([options.max_tokens(length) for length in mask.sum(1).tolist()])
        return attention_greedy(model, features, mask, modality, max_tokens).to_lists(model.eos)
    lengths = mask.sum(1).tolist()
    return [
        list(beam_search(model, clip[:length], modality, options)[0].tokens)
        for clip, length in zip(features, lengths, strict=True)
    ]
