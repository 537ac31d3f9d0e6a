"""Encoder features of a batch to token ids, by the method that the options name."""

from collections.abc import Iterable, Sequence
from typing import assert_never

import torch
from torch import Tensor

from seehear.decoding.beam_search import beam_search
from seehear.decoding.ctc import BLANK, ctc_beam, ctc_greedy
from seehear.decoding.greedy import attention_greedy
from seehear.decoding.language_model import LanguageModel
from seehear.decoding.options import DecodingMethod, DecodingOptions, DType
from seehear.decoding.rescore import ctc_driven, rescore
from seehear.devices import DTYPES, Numbers, choose_precision, find_search_device
from seehear.modality import Modality
from seehear.model.usr import USR


def precision(device: torch.device, dtype: DType) -> torch.autocast:
    """A context in which models compute with numbers of `dtype`. Raises `ConfigError` if there is no such `dtype`."""
    numbers = choose_precision(device, dtype, training=False).numbers
    half = DTYPES["bf16" if numbers == "float32" else numbers]
    return torch.autocast(device.type, half, enabled=numbers != "float32")


def weights_type(numbers: Numbers, *, half: bool) -> torch.dtype | None:
    """The half precision of weights in memory where the model computes with `numbers`; None if they stay float32.

    They are fp16 wherever the model computes with it: GPUs that lack bf16 lack memory too.
    """
    if numbers == "fp16" or half:
        return torch.bfloat16 if numbers == "bf16" else torch.float16
    return None


def search_on(model: USR, device: torch.device | str | None = None) -> USR:
    """The model as searches want it: its decoder and heads on `device`, or where `find_search_device` puts them."""
    return model.with_search_on(find_search_device(next(model.parameters()).device, device))


def decode_batch(
    model: USR,
    features: Tensor,
    mask: Tensor,
    modality: Modality,
    options: DecodingOptions,
    language_model: LanguageModel | None = None,
) -> list[list[int]]:
    """Token ids without specials of each clip, from features (B, T, D) with mask (B, T), see `USR.to_search`."""
    if not len(features):
        return []
    return without_specials(_decode(model, features, mask, modality, options, language_model), model.eos)


def without_specials(rows: Iterable[Sequence[int]], eos: int) -> list[list[int]]:
    """Rows of tokens without what heads cannot be kept from: an eos of CTC, a decoder's blank."""
    return [[token for token in row if token not in (BLANK, eos)] for row in rows]


def _decode(
    model: USR,
    features: Tensor,
    mask: Tensor,
    modality: Modality,
    options: DecodingOptions,
    language_model: LanguageModel | None,
) -> Iterable[Sequence[int]]:
    """Token ids of each clip, specials among them; none where a search ended nothing, as all is impossible."""
    method, given = options.method, (model, features, mask, modality)
    if method is DecodingMethod.CTC:
        return ctc_greedy(model.ctc_logits(features, modality), mask).to_lists()
    if method is DecodingMethod.CTC_DRIVEN:
        return ctc_driven(*given)
    if method is DecodingMethod.ATTENTION:
        max_tokens = torch.tensor([options.max_tokens(length) for length in mask.sum(1).tolist()])
        return attention_greedy(*given, max_tokens).to_lists(model.eos)
    if method is DecodingMethod.CTC_BEAM:
        log_probs = model.ctc_logits(features, modality).float().log_softmax(-1).cpu()
        lengths = mask.sum(1).tolist()
        pairs = zip(log_probs, lengths, strict=True)
        return [ctc_beam(clip[:length], options.beam_size)[0].tokens for clip, length in pairs]
    if method is DecodingMethod.RESCORE:
        found = rescore(*given, options, language_model=language_model)
    elif method is DecodingMethod.BEAM:
        found = beam_search(*given, options, n_best=1, language_model=language_model)
    else:
        assert_never(method)
    return [hypotheses[0].tokens if hypotheses else () for hypotheses in found]
