"""When each word is said, from what the decoder has heard it by.

A CTC head tells the order of tokens; a model with attention over the whole clip need not tell the time: ours, on GRID,
emits a token half a second from where it is said, and is sure of it (RESULTS.md). So the time of a word is where a
change of what enters the encoder would change the decoder's log-probability of the word: |gradient · input|, summed
over the channels of a frame, in the mean of two fainter copies of the clip (as in integrated gradients) and of all
streams there are. These weights of all words, and a constant for "no word", share each frame, and the most probable
path through the words in their order, by `alignment.align`, gives each its frames.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from seehear.decoding.alignment import TokenTime, align
from seehear.decoding.token_scores import decoder_log_probs
from seehear.modality import Modality
from seehear.model.usr import USR

SMOOTHING = 7
"""Frames that a Hann window smooths the weights over."""
NO_WORD = 0.15
"""The weight of "no word", where the squares of each word's weights add up to 1."""
STRENGTHS = (0.4, 0.8)
"""How strong the copies are. All three numbers were chosen on validation clips of GRID."""


class WordTime(NamedTuple):
    """Frames of a word, and how sure the decoder is of it."""

    start: int
    end: int
    """The frame after the last."""
    probability: float
    """The mean, over its tokens, of their log-probabilities in the decoded modality, as a probability."""


def time_words(
    model: USR,
    streams: Mapping[Modality, Tensor],
    mask: Tensor,
    words: Sequence[Sequence[Sequence[int]]],
    modality: Modality,
) -> list[list[WordTime]]:
    """The times of the `words`, lists of tokens, of B clips, of which `streams` (B, T, D) enter the encoder.

    All streams tell when a word is said; how sure the decoder is of it, that of `modality`, which was decoded. Where
    decoder and encoder are on different devices, gradients pass from the one to the other; streams and mask lie with
    the encoder.
    """
    if not any(words):
        return [[] for _ in words]
    rows = [[token for word in said for token in word] for said in words]
    with torch.no_grad():
        features = model.contextualise({modality: streams[modality]}, mask)[modality]
        log_probs = decoder_log_probs(model, rows, *model.to_search(features, mask), modality).cpu()
    weights = torch.stack([_weights(model, streams, mask, words, strength) for strength in STRENGTHS]).mean(0)
    placed = _place(weights.cpu(), mask.cpu(), [len(said) for said in words])
    return [
        [
            WordTime(time.start, time.end, float(log_probs[clip, first:last].mean().exp()))
            for time, (first, last) in zip(times, _spans(words[clip]), strict=True)
        ]
        for clip, times in enumerate(placed)
    ]


def _place(weights: Tensor, mask: Tensor, counts: Sequence[int]) -> list[list[TokenTime]]:
    """The frames of the words, `counts` of each clip, where `weights` (B, W, T) say how each frame speaks for each."""
    missing = torch.arange(weights.shape[1]) >= torch.tensor(counts)[:, None]
    no_word = torch.full_like(weights[:, :1], NO_WORD)
    shares = torch.cat([no_word, weights.masked_fill(missing[..., None], 0.0)], dim=1)
    by_frame = (shares / shares.sum(1, keepdim=True)).log().transpose(1, 2)  # (B, T, 1 + W)
    return align(by_frame, mask, [range(1, count + 1) for count in counts])


@torch.enable_grad()
def _weights(
    model: USR,
    streams: Mapping[Modality, Tensor],
    mask: Tensor,
    words: Sequence[Sequence[Sequence[int]]],
    strength: float,
) -> Tensor:
    """(B, W, T): by how much each frame speaks for each word; a gradient for all clips' first word, second word, …"""
    inputs = {modality: (strength * stream.detach()).requires_grad_(True) for modality, stream in streams.items()}
    rows = [[token for word in said for token in word] for said in words]
    features = model.contextualise(inputs, mask)
    by_modality = [decoder_log_probs(model, rows, *model.to_search(features[m], mask), m) for m in inputs]
    log_probs = torch.stack(by_modality)  # (M, B, U + 1)
    most = max(map(len, words), default=0)
    weights = torch.zeros(len(mask), most, mask.shape[1], device=mask.device)
    spans = [_spans(said) for said in words]
    for word in range(most):
        chosen = [(clip, *of_clip[word]) for clip, of_clip in enumerate(spans) if word < len(of_clip)]
        score = torch.stack([log_probs[:, clip, first:last].sum() for clip, first, last in chosen]).sum()
        gradients = torch.autograd.grad(score, list(inputs.values()), retain_graph=True)
        for gradient, stream in zip(gradients, inputs.values(), strict=True):
            weight = _smooth((gradient * stream.detach()).sum(-1).abs().masked_fill(~mask, 0.0))
            weights[:, word] += weight / weight.norm(dim=1, keepdim=True).clamp_min(1e-20) / len(inputs)
    return weights.clamp_min(1e-9)


def _spans(words: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Where the tokens of each word begin and end among those of the clip."""
    spans, first = [], 0
    for word in words:
        spans.append((first, first + len(word)))
        first += len(word)
    return spans


def _smooth(weights: Tensor) -> Tensor:
    """(B, T) averaged over neighbours."""
    window = torch.hann_window(SMOOTHING + 2, periodic=False, device=weights.device)[1:-1]
    padded = F.pad(weights[:, None], (SMOOTHING // 2, SMOOTHING // 2), mode="replicate")
    return F.conv1d(padded, (window / window.sum())[None, None])[:, 0]
