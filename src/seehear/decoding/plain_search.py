"""The search of `beam_search.py` as one would write it first: a clip, a hypothesis, a candidate at a time. To be read,
to test against, and to measure against; not to be used.

The decoder sees the whole prefix anew for every token, and CTC's forward variables are lists of numbers.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seehear.decoding.beam_search import PRE_BEAM
from seehear.decoding.ctc import BLANK
from seehear.decoding.hypothesis import Hypothesis, best_first, has_ended
from seehear.decoding.language_model import LanguageModel
from seehear.decoding.options import DecodingOptions
from seehear.modality import Modality
from seehear.model.usr import USR

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Path:
    """A running hypothesis."""

    tokens: tuple[int, ...]
    """With sos."""
    score: float
    decoder_score: float
    language_score: float
    prefix: "Prefix"


@dataclass(frozen=True)
class Prefix:
    """What CTC knows of it (METHOD §7)."""

    token: Array
    """(T,) log-probability of the frames so far, the last of which says the last token."""
    blank: Array
    """(T,) … says nothing."""
    score: float
    """Log-probability of all that begins so."""


@torch.no_grad()
def plain_search(
    model: USR,
    features: Tensor,
    modality: Modality,
    options: DecodingOptions,
    *,
    language_model: LanguageModel | None = None,
) -> list[Hypothesis]:
    """Decode one clip's features (T, D); the finished hypotheses, best first. See `beam_search` for the options."""
    frames, alpha, eos = len(features), options.ctc_weight, model.eos
    mask = torch.ones(1, frames, dtype=torch.bool, device=features.device)
    by_ctc = model.ctc_logits(features, modality).float().log_softmax(-1).double().cpu().numpy()
    silence = Prefix(np.full(frames, -math.inf), by_ctc[:, BLANK].cumsum(), 0.0)
    paths = [Path((model.sos,), 0.0, 0.0, 0.0, silence)]
    ended: list[Hypothesis] = []
    max_tokens = options.max_tokens(frames)
    for step in range(max_tokens):
        prefixes = torch.tensor([path.tokens for path in paths], device=features.device)
        states = model.decode(prefixes, features[None], mask)
        log_probs = model.logits(states[:, -1], modality).float().log_softmax(-1).cpu().numpy()
        language = _language_log_probs(language_model, options, prefixes, log_probs.shape[1])
        longer: list[Path] = []
        for path, by_decoder, by_language in zip(paths, log_probs, language, strict=True):
            candidates = _candidates(by_decoder, eos, options)
            extended = extend(path.prefix, path.tokens[-1], candidates, by_ctc, eos, first=step == 0) if alpha else []
            for place, token in enumerate(candidates):
                gain = options.length_bonus + ((1 - alpha) * by_decoder[token] if alpha < 1 else 0.0)
                gain += options.language_weight * by_language[token]
                prefix = extended[place] if alpha else path.prefix
                gain += alpha * (prefix.score - path.prefix.score)
                decoder_score = path.decoder_score + (by_decoder[token] if alpha < 1 else 0.0)
                language_score = path.language_score + by_language[token]
                longer.append(Path((*path.tokens, token), path.score + gain, decoder_score, language_score, prefix))
        longer = sorted((path for path in longer if path.score > -math.inf), key=lambda path: -path.score)
        paths = []
        last = step == max_tokens - 1
        for path in longer[: options.beam_size]:
            ends = int(path.tokens[-1] == eos)
            if ends or last:
                said = path.tokens[1 : len(path.tokens) - ends]
                scores = (path.score, path.decoder_score, path.prefix.score, path.language_score)
                ended.append(Hypothesis(said, *scores, num_ends=ends + last))
            else:
                paths.append(path)
        if not paths or (options.max_length_ratio == 0 and has_ended(ended, step)):
            break
    return best_first(ended)


def _language_log_probs(
    language_model: LanguageModel | None, options: DecodingOptions, prefixes: Tensor, vocab_size: int
) -> NDArray[np.float32]:
    """(K, V) of the next token after `prefixes` (K, U); zeros if no language model has a say."""
    if language_model is None or options.language_weight == 0:
        return np.zeros((len(prefixes), vocab_size), np.float32)
    log_probs: NDArray[np.float32] = language_model.log_probs(prefixes).cpu().numpy()
    return log_probs


def extend(prefix: Prefix, last: int, candidates: list[int], by_ctc: Array, eos: int, *, first: bool) -> list[Prefix]:
    """The prefix, which ends in `last`, with each of `candidates` after it; `first`: it is empty. `by_ctc` (T, V)."""
    tokens = np.array(candidates)
    before = np.where(  # (T, C): what the new token may follow
        tokens == last,
        prefix.blank[:, None],
        np.logaddexp(prefix.token, prefix.blank)[:, None],
    )
    token = [by_ctc[0, tokens] if first else np.full(len(tokens), -math.inf)]
    blank = [np.full(len(tokens), -math.inf)]
    score = token[0]
    for t in range(1, len(by_ctc)):
        entering = before[t - 1] + by_ctc[t, tokens]
        score = np.logaddexp(score, entering)
        blank.append(np.logaddexp(token[-1], blank[-1]) + by_ctc[t, BLANK])
        token.append(np.logaddexp(token[-1] + by_ctc[t, tokens], entering))
    score = np.where(tokens == eos, np.logaddexp(prefix.token[-1], prefix.blank[-1]), score)
    by_token, by_blank = np.stack(token, 1), np.stack(blank, 1)
    return [Prefix(by_token[c], by_blank[c], float(score[c])) for c in range(len(tokens))]


def _candidates(by_decoder: NDArray[np.float32], eos: int, options: DecodingOptions) -> list[int]:
    """Tokens that may come next: all, or in a joint search the decoder's best and eos; never blank."""
    tokens = range(1, len(by_decoder))
    pre_beam = int(PRE_BEAM * options.beam_size)
    if not 0 < options.ctc_weight < 1 or pre_beam >= len(by_decoder):
        return list(tokens)
    best = np.argsort(-by_decoder)[:pre_beam].tolist()
    return [*(token for token in best if token not in (BLANK, eos)), eos]
