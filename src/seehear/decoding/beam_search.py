"""Joint CTC/attention beam search, label-synchronous (METHOD §7): α·log P_CTC-prefix + (1−α)·log P_Att + β·length."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seehear.decoding.ctc import BLANK
from seehear.decoding.options import DecodingOptions
from seehear.decoding.prefix import PrefixState, extend, first_prefix
from seehear.modality import Modality
from seehear.model.usr import USR

PRE_BEAM = 1.5
"""Candidates of a hypothesis, in beam sizes: the decoder's best tokens; only these are scored by CTC."""
END_MARGIN = 10.0
"""End detection: ended hypotheses of recent lengths must all be worse than the best by this."""
END_LENGTHS = 3
"""End detection: how many recent lengths are looked at."""


@dataclass(frozen=True)
class Hypothesis:
    """A finished hypothesis."""

    tokens: tuple[int, ...]
    """Without start and end of sentence."""
    score: float
    """What the search ranks by."""
    decoder_score: float
    """Sum of the decoder's log-probabilities, unweighted."""
    ctc_score: float
    """CTC log-probability, unweighted."""
    num_ends: int = 1
    """End-of-sentence tokens: 2 for one that ended just as the length ran out."""

    @property
    def length(self) -> int:
        """Tokens with start and end of sentence."""
        return 1 + len(self.tokens) + self.num_ends


@dataclass
class Beam:
    """The running hypotheses of a step, N of them."""

    tokens: Tensor
    """(N, U) with sos"""
    score: Tensor
    """(N,)"""
    decoder_score: Tensor
    """(N,)"""
    ctc: PrefixState | None


@torch.no_grad()
def beam_search(model: USR, features: Tensor, modality: Modality, options: DecodingOptions) -> list[Hypothesis]:
    """Decode one clip's encoder features (T, D); the finished hypotheses, best first.

    A `max_length_ratio` r > 0 allows max(1, ⌊r·T⌋) tokens, and what then still runs is ended without a score for it;
    r = 0 allows T and stops by end detection. A CTC weight of 0 leaves CTC out, a weight of 1 the decoder.
    """
    frames = len(features)
    max_tokens = options.max_tokens(frames)
    mask = torch.ones(1, frames, dtype=torch.bool, device=features.device)
    log_probs = model.ctc_logits(features, modality).float().log_softmax(-1)
    start = torch.full((1, 1), model.sos, device=features.device)
    zero = torch.zeros(1, device=features.device)
    beam = Beam(start, zero, zero, first_prefix(log_probs) if options.ctc_weight > 0 else None)
    cache = model.new_cache()
    ended: list[Hypothesis] = []
    for step in range(max_tokens):
        count = len(beam.tokens)
        decoder = torch.zeros(count, model.config.vocab_size, device=features.device)
        if options.ctc_weight < 1:
            states = model.decode(beam.tokens[:, -1:], features[None], mask, cache)
            decoder = model.logits(states[:, -1], modality).float().log_softmax(-1)
        beam, rows = advance(beam, decoder, log_probs, model.eos, options)
        last = step == max_tokens - 1
        done = (beam.tokens[:, -1] == model.eos) | last
        ended += [_finish(beam, int(row), model.eos, last) for row in done.nonzero().squeeze(1)]
        left = (~done).nonzero().squeeze(1)
        if not len(left) or (options.max_length_ratio == 0 and _has_ended(ended, step)):
            break
        beam = _keep(beam, left)
        cache.select(rows[left])
    return sorted(ended, key=lambda hypothesis: -hypothesis.score)


def advance(
    beam: Beam, decoder: Tensor, ctc_log_probs: Tensor, eos: int, options: DecodingOptions
) -> tuple[Beam, Tensor]:
    """Extend every hypothesis by every candidate and keep the best; also the row (N,) that each comes from.

    `decoder` (N, V) holds the decoder's log-probabilities of the next token, `ctc_log_probs` (T, V) the frames'.
    """
    candidates = _candidates(decoder, eos, options)  # (N, C)
    decoder_part = decoder.gather(1, candidates)
    gains = (1 - options.ctc_weight) * decoder_part + options.length_bonus
    extensions = None
    if beam.ctc is not None:
        extensions = extend(ctc_log_probs, beam.ctc, beam.tokens[:, -1], candidates, eos)
        gains = gains + options.ctc_weight * (extensions.score - beam.ctc.score[:, None])
    scores = (beam.score[:, None] + gains).masked_fill(candidates == BLANK, -torch.inf)
    best, places = scores.flatten().topk(min(options.beam_size, int(torch.isfinite(scores).sum())))
    rows, columns = places // scores.shape[1], places % scores.shape[1]
    chosen = Beam(
        tokens=torch.cat([beam.tokens[rows], candidates[rows, columns][:, None]], dim=1),
        score=best,
        decoder_score=beam.decoder_score[rows] + decoder_part[rows, columns],
        ctc=extensions.select(rows, columns) if extensions is not None else None,
    )
    return chosen, rows


def _candidates(decoder: Tensor, eos: int, options: DecodingOptions) -> Tensor:
    """(N, C) tokens that each hypothesis may take: all, or in a joint search the decoder's best and eos."""
    vocab_size = decoder.shape[1]
    pre_beam = int(PRE_BEAM * options.beam_size)
    if not 0 < options.ctc_weight < 1 or pre_beam >= vocab_size:
        return torch.arange(vocab_size, device=decoder.device).expand_as(decoder)
    best = decoder.topk(pre_beam, dim=1).indices
    best = torch.where(best == eos, BLANK, best)  # eos once, in the last column
    return torch.cat([best, best.new_full((len(best), 1), eos)], dim=1)


def _finish(beam: Beam, row: int, eos: int, out_of_length: bool) -> Hypothesis:
    """The hypothesis of a row; one that ran out of length is ended without a score for it."""
    tokens = beam.tokens[row, 1:].tolist()
    ends = int(tokens[-1] == eos)
    return Hypothesis(
        tokens=tuple(tokens[: len(tokens) - ends]),
        score=float(beam.score[row]),
        decoder_score=float(beam.decoder_score[row]),
        ctc_score=float(beam.ctc.score[row]) if beam.ctc is not None else 0.0,
        num_ends=ends + int(out_of_length),
    )


def _keep(beam: Beam, rows: Tensor) -> Beam:
    """The hypotheses `rows`."""
    ctc = PrefixState(*(part[rows] for part in beam.ctc)) if beam.ctc is not None else None
    return Beam(beam.tokens[rows], beam.score[rows], beam.decoder_score[rows], ctc)


def _has_ended(ended: Sequence[Hypothesis], step: int) -> bool:
    """Whether nothing better can be expected: recent lengths ended much worse than the best."""
    if not ended:
        return False
    best = max(hypothesis.score for hypothesis in ended)
    for length in range(step, step - END_LENGTHS, -1):
        scores = [hypothesis.score for hypothesis in ended if hypothesis.length == length]
        if not scores or max(scores) >= best - END_MARGIN:
            return False
    return True
