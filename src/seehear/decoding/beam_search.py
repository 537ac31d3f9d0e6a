"""Joint CTC/attention beam search, label-synchronous (METHOD §7): α·log P_CTC-prefix + (1−α)·log P_Att + β·length.

All hypotheses of all clips take a token at once. B clips, K hypotheses of each, C candidates for each next token;
`plain_search.py` does the same one hypothesis at a time, to be read; tests hold the two equal.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from seehear.decoding.ctc import BLANK
from seehear.decoding.hypothesis import Hypothesis, best_first, has_ended
from seehear.decoding.language_model import LanguageModel
from seehear.decoding.options import DecodingOptions
from seehear.decoding.prefix import PrefixScorer, PrefixState
from seehear.modality import Modality
from seehear.model.usr import USR

PRE_BEAM = 1.5
"""Candidates of a hypothesis, in beam sizes: the decoder's best tokens; only these are scored by CTC."""


@dataclass
class Beam:
    """The running hypotheses; a place that holds none has the score −∞."""

    tokens: Tensor
    """(B, K, U) with sos."""
    score: Tensor
    """(B, K)."""
    decoder_score: Tensor
    """(B, K)."""
    language_score: Tensor
    """(B, K)."""
    ctc: PrefixState | None

    @property
    def last(self) -> Tensor:
        """(B, K)."""
        return self.tokens[..., -1]

    def select(self, clips: Tensor) -> "Beam":
        """The hypotheses of some clips."""
        ctc = PrefixState(*(part[clips] for part in self.ctc)) if self.ctc is not None else None
        return Beam(self.tokens[clips], self.score[clips], self.decoder_score[clips], self.language_score[clips], ctc)


@torch.no_grad()
def beam_search(
    model: USR,
    features: Tensor,
    mask: Tensor,
    modality: Modality,
    options: DecodingOptions,
    *,
    n_best: int | None = None,
    language_model: LanguageModel | None = None,
) -> list[list[Hypothesis]]:
    """Decode encoder features (B, T, D) with mask (B, T): the finished hypotheses of each clip, best first.

    A `max_length_ratio` r > 0 allows a clip of T frames max(1, ⌊r·T⌋) tokens, and what then still runs is ended without
    a score for it; r = 0 allows T and stops by end detection. A CTC weight of 0 leaves CTC out, of 1 the decoder, a
    language weight of 0 the language model. A clip of which everything is impossible has no hypotheses.

    With `n_best` the search of a clip stops as soon as no running hypothesis can come among so many best ones any more:
    each token lowers a score, but for the length bonus. What it returns of these is the same.
    """
    search = _Search(model, features, mask, modality, options, language_model)
    limits = [options.max_tokens(frames) for frames in mask.sum(1).tolist()]
    ended: list[list[Hypothesis]] = [[] for _ in limits]
    running = list(range(len(limits)))  # clips
    for step in range(max(limits, default=0)):
        search.advance()
        out_of_length = [limits[clip] == step + 1 for clip in running]
        for place, hypothesis in search.finish(out_of_length):
            ended[running[place]].append(hypothesis)
        best = search.beam.score.amax(1).tolist()
        left = []
        for place, clip in enumerate(running):
            hope = best[place] + max(0.0, options.length_bonus) * (limits[clip] - step - 1)
            stops = options.max_length_ratio == 0 and has_ended(ended[clip], step)
            if hope > _to_beat(ended[clip], n_best) and not stops:
                left.append(place)
        if not left:
            break
        if len(left) < len(running):
            search.keep(torch.tensor(left, device=features.device))
            running = [running[place] for place in left]
    return [best_first(hypotheses)[:n_best] for hypotheses in ended]


def _to_beat(ended: Sequence[Hypothesis], n_best: int | None) -> float:
    """The score of the last of the `n_best`; −∞ while there are fewer."""
    if n_best is None or len(ended) < n_best:
        return -torch.inf
    return best_first(ended)[n_best - 1].score


class _Search:
    """The state of a search over a batch, and what one step does to it."""

    def __init__(
        self,
        model: USR,
        features: Tensor,
        mask: Tensor,
        modality: Modality,
        options: DecodingOptions,
        language_model: LanguageModel | None,
    ) -> None:
        self.model, self.modality, self.options = model, modality, options
        self.language_model = language_model if options.language_weight > 0 else None
        self.features, self.mask = features, mask
        self.cache = model.new_cache()
        self.prefixes: PrefixScorer | None = None
        if options.ctc_weight > 0:
            self.prefixes = PrefixScorer(model.ctc_logits(features, modality).float().log_softmax(-1), mask)
        zero = torch.zeros(len(features), 1, device=features.device)
        start = torch.full((len(features), 1, 1), model.sos, device=features.device)
        self.beam = Beam(start, zero, zero, zero, self.prefixes.first() if self.prefixes else None)

    def advance(self) -> None:
        """Extend every hypothesis by every candidate and keep the best of each clip."""
        beam, options = self.beam, self.options
        decoder = self._decoder_log_probs()
        candidates = _candidates(decoder, self.model.eos, options)
        decoder_part = decoder.gather(2, candidates)
        language_part = self._language_log_probs(candidates)
        gains = (1 - options.ctc_weight) * decoder_part + options.length_bonus + options.language_weight * language_part
        by_ctc = None
        if self.prefixes is not None and beam.ctc is not None:
            by_ctc = self.prefixes.scores(beam.ctc, beam.last, candidates, self.model.eos)
            gains = gains + options.ctc_weight * (by_ctc - beam.ctc.score[..., None])
        scores = beam.score[..., None] + gains
        impossible = beam.score.isneginf()[..., None] | (candidates == BLANK)
        scores = scores.masked_fill(impossible, -torch.inf).flatten(1)
        best, places = scores.topk(min(options.beam_size, scores.shape[1]), dim=1)  # (B, K')
        rows = places // candidates.shape[2]
        tokens = candidates.flatten(1).gather(1, places)
        self.beam = Beam(
            tokens=torch.cat([_rows(beam.tokens, rows), tokens[..., None]], dim=2),
            score=best,
            decoder_score=beam.decoder_score.gather(1, rows) + decoder_part.flatten(1).gather(1, places),
            language_score=beam.language_score.gather(1, rows) + language_part.flatten(1).gather(1, places),
            ctc=None,
        )
        if self.prefixes is not None and beam.ctc is not None and by_ctc is not None:
            before = PrefixState(*(_rows(part, rows) for part in beam.ctc))
            chosen = by_ctc.flatten(1).gather(1, places)
            self.beam.ctc = self.prefixes.extend(before, beam.last.gather(1, rows), tokens, chosen)
        first = torch.arange(len(rows), device=rows.device)[:, None] * beam.tokens.shape[1]
        self.cache.select((first + rows).flatten())

    def _decoder_log_probs(self) -> Tensor:
        """(B, K, V) of the next token; zeros if the decoder has no say."""
        B, K = self.beam.score.shape
        if self.options.ctc_weight == 1:
            return torch.zeros(B, K, self.model.config.vocab_size, device=self.features.device)
        states = self.model.decode(self.beam.last.reshape(B * K, 1), self.features, self.mask, self.cache)
        return self.model.logits(states[:, -1], self.modality).float().log_softmax(-1).view(B, K, -1)

    def _language_log_probs(self, candidates: Tensor) -> Tensor:
        """(B, K, C) of candidates for the next token; zeros if no language model has a say."""
        if self.language_model is None:
            return torch.zeros_like(candidates, dtype=self.beam.score.dtype)
        B, K, _ = candidates.shape
        log_probs = self.language_model.log_probs(self.beam.tokens.flatten(0, 1))
        return log_probs.view(B, K, -1).gather(2, candidates)

    def finish(self, out_of_length: Sequence[bool]) -> list[tuple[int, Hypothesis]]:
        """Take out the hypotheses that have ended, and all of the clips whose length runs out; each with its clip."""
        beam, eos = self.beam, self.model.eos
        out = torch.tensor(out_of_length, device=beam.score.device)[:, None]
        done = beam.score.isfinite() & ((beam.last == eos) | out)
        by_ctc = beam.ctc.score if beam.ctc is not None else torch.zeros_like(beam.score)
        numbers = torch.stack([beam.score, beam.decoder_score, by_ctc, beam.language_score], dim=-1)[done].tolist()
        clips = done.nonzero()[:, 0].tolist()
        found = []
        for clip, tokens, scores in zip(clips, beam.tokens[done].tolist(), numbers, strict=True):
            ends = int(tokens[-1] == eos)
            said = tuple(tokens[1 : len(tokens) - ends])
            score, decoder, ctc, language = scores
            found.append((clip, Hypothesis(said, score, decoder, ctc, language, ends + int(out_of_length[clip]))))
        beam.score = beam.score.masked_fill(done, -torch.inf)
        return found

    def keep(self, clips: Tensor) -> None:
        """Go on with these clips, by their places in the batch."""
        width = self.beam.score.shape[1]
        rows = (clips[:, None] * width + torch.arange(width, device=clips.device)).flatten()
        self.cache.select(rows, clips)
        self.features, self.mask, self.beam = self.features[clips], self.mask[clips], self.beam.select(clips)
        if self.prefixes is not None:
            self.prefixes.keep(clips)


def _candidates(decoder: Tensor, eos: int, options: DecodingOptions) -> Tensor:
    """(B, K, C) tokens that each hypothesis may take: all, or in a joint search the decoder's best and eos."""
    vocab_size = decoder.shape[-1]
    pre_beam = int(PRE_BEAM * options.beam_size)
    if not 0 < options.ctc_weight < 1 or pre_beam >= vocab_size:
        return torch.arange(vocab_size, device=decoder.device).expand_as(decoder)
    best = decoder.topk(pre_beam, dim=-1).indices
    best = torch.where(best == eos, BLANK, best)  # eos once, in the last column
    return torch.cat([best, best.new_full((*best.shape[:2], 1), eos)], dim=-1)


def _rows(tensor: Tensor, rows: Tensor) -> Tensor:
    """Of a tensor (B, K, …) the hypotheses `rows` (B, K') of each clip."""
    return tensor[torch.arange(len(rows), device=rows.device)[:, None], rows]
