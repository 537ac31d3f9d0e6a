"""Searches beyond the joint one: CTC prefixes, rescoring, language models; and what options there are."""

import itertools
import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seehear
from seehear.config import SIZES
from seehear.decoding.beam_search import beam_search
from seehear.decoding.ctc import BLANK, ctc_beam, ctc_greedy
from seehear.decoding.decode import decode_batch
from seehear.decoding.ngram import NGram
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.decoding.plain_search import plain_search
from seehear.decoding.prefix import NEVER, PrefixScorer, _logsumexp
from seehear.decoding.rescore import ctc_driven, rescore
from seehear.errors import ConfigError
from seehear.modality import Modality
from seehear.model.usr import USR
from test_ngram import EOS, TEXTS, V, probability_of

AV = Modality.AUDIOVISUAL


@pytest.fixture(scope="module")
def model() -> USR:
    torch.manual_seed(0)
    model = USR(SIZES["tiny"].model_copy(update={"vocab_size": V})).eval()
    for head in (*model.ctc_heads.values(), *model.output_heads.values()):
        nn.init.normal_(head.weight, std=0.15)  # type: ignore[arg-type]
    return model


def clips(*lengths: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(sum(lengths))
    features = torch.randn(len(lengths), max(lengths), SIZES["tiny"].dim, generator=generator)
    return features, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def all_labellings(log_probs: Tensor) -> dict[tuple[int, ...], float]:
    """Log-probability of every sequence: the sum over all labellings of the frames that collapse to it."""
    sums: dict[tuple[int, ...], float] = {}
    for labelling in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        tokens = tuple(token for token, _ in itertools.groupby(labelling) if token != BLANK)
        value = math.exp(sum(float(log_probs[t, token]) for t, token in enumerate(labelling)))
        sums[tokens] = sums.get(tokens, 0.0) + value
    return {tokens: math.log(value) for tokens, value in sums.items()}


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_wide_prefix_search_sums_over_all_labellings(frames: int) -> None:
    log_probs = torch.randn(frames, V, generator=torch.Generator().manual_seed(frames)).log_softmax(-1)
    expected = all_labellings(log_probs)
    found = ctc_beam(log_probs, beam_size=10_000)
    assert {hypothesis.tokens: hypothesis.score for hypothesis in found} == pytest.approx(expected, abs=1e-4)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    assert ctc_beam(log_probs, beam_size=3)[0].score <= found[0].score + 1e-6


def test_a_prefix_search_finds_what_greedy_decoding_misses() -> None:
    """Two labellings of "1" weigh more together than the most probable one, silence."""
    log_probs = torch.tensor([[0.6, 0.4, 0, 0], [0.6, 0.4, 0, 0]]).clamp_min(1e-30).log()
    assert ctc_greedy(log_probs[None], torch.ones(1, 2, dtype=torch.bool)).to_lists() == [[]]
    assert ctc_beam(log_probs, beam_size=2)[0].tokens == (1,)


@torch.no_grad()
def test_rescoring_ranks_by_the_score_of_a_joint_search(model: USR) -> None:
    features, mask = clips(5, 2)
    options = DecodingOptions(beam_size=1000, ctc_weight=0.3, length_bonus=0.2, max_length_ratio=0.0)
    rescored = rescore(model, features, mask, AV, options)
    for row, length in enumerate((5, 2)):
        log_probs = model.ctc_logits(features[row, :length], AV).log_softmax(-1)
        by_ctc = {tokens: score for tokens, score in all_labellings(log_probs).items() if EOS not in tokens}
        assert {h.tokens for h in rescored[row]} == by_ctc.keys()
        for hypothesis in rescored[row]:
            states = model.decode(
                torch.tensor([[model.sos, *hypothesis.tokens]]), features[row : row + 1], mask[row : row + 1]
            )
            log_decoder = model.logits(states, AV)[0].log_softmax(-1)
            decoder = sum(float(log_decoder[u, token]) for u, token in enumerate((*hypothesis.tokens, EOS)))
            assert hypothesis.decoder_score == pytest.approx(decoder, abs=1e-4)
            assert hypothesis.ctc_score == pytest.approx(by_ctc[hypothesis.tokens], abs=1e-4)
            joint = 0.3 * hypothesis.ctc_score + 0.7 * decoder + 0.2 * (len(hypothesis.tokens) + 1)
            assert hypothesis.score == pytest.approx(joint, abs=1e-4)
        assert rescored[row][0].score == max(h.score for h in rescored[row])


@torch.no_grad()
def test_ctc_driven_decoding_is_the_decoders_choice_after_each_ctc_token(model: USR) -> None:
    features, mask = clips(12, 7)
    said = ctc_greedy(model.ctc_logits(features, AV), mask).to_lists()
    assert any(said)
    for row, (tokens, chosen) in enumerate(zip(said, ctc_driven(model, features, mask, AV), strict=True)):
        states = model.decode(torch.tensor([[model.sos, *tokens]]), features[row : row + 1], mask[row : row + 1])
        assert chosen == model.logits(states, AV)[0].argmax(-1).tolist()


# --- CTC prefix scores ---


def test_a_whole_vocabulary_is_scored_some_tokens_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has a value for each candidate and frame does not grow with the vocabulary."""
    torch.manual_seed(0)
    scorer = PrefixScorer(torch.randn(2, 9, 300).log_softmax(-1), torch.arange(9) < torch.tensor([[9], [5]]))
    state, last, every = scorer.first(), torch.full((2, 1), 299), torch.arange(300).expand(2, 1, 300)
    entering, widths = scorer._entering, []

    def watched(either: Tensor, candidates: Tensor) -> Tensor:
        widths.append(candidates.shape[2])
        return entering(either, candidates)

    monkeypatch.setattr(scorer, "_entering", watched)
    found = scorer.scores(state, last, every, 299)
    assert max(widths) <= 64
    one_by_one = [scorer.scores(state, last, every[..., token, None], 299) for token in range(300)]
    assert torch.equal(found, torch.cat(one_by_one, dim=2))


def test_what_is_very_improbable_is_not_impossible() -> None:
    log_probs = torch.full((1, 100, V), -1000.0)
    log_probs[..., BLANK] = 0.0
    scorer = PrefixScorer(log_probs, torch.arange(100)[None] < 60)
    state, last = scorer.first(), torch.tensor([[EOS]])
    for token in [1, 2] * 20:
        tokens = torch.tensor([[token]])
        score = scorer.scores(state, last, tokens[..., None], EOS)[..., 0]
        state, last = scorer.extend(state, last, tokens, score), tokens
    assert -41_000 < float(state.score) < -39_000


# --- A language model ---

SEARCHES = (DecodingMethod.BEAM, DecodingMethod.RESCORE)


class Opinion:
    """A language model that says the same of the next token after anything."""

    def __init__(self, *log_probs: float) -> None:
        self.log_prob = torch.tensor(log_probs)
        self.asked = 0

    def log_probs(self, tokens: Tensor) -> Tensor:
        self.asked += 1
        return self.log_prob.expand(len(tokens), -1).clone()


@torch.no_grad()
@pytest.mark.parametrize("search", ["beam", "rescore"])
def test_a_language_model_adds_its_share(model: USR, search: str) -> None:
    features, mask = clips(6, 4)
    learnt = NGram.learn(TEXTS, V, order=3)
    options = DecodingOptions(beam_size=200, ctc_weight=0.3, language_weight=0.5, max_length_ratio=1.0)
    if search == "beam":
        found = beam_search(model, features, mask, AV, options, language_model=learnt)
    else:
        found = rescore(model, features, mask, AV, options, language_model=learnt)
    for hypotheses in found:
        assert len(hypotheses) > 5
        for hypothesis in hypotheses:
            parts = (0.7, hypothesis.decoder_score), (0.3, hypothesis.ctc_score), (0.5, hypothesis.language_score)
            assert hypothesis.score == pytest.approx(sum(weight * score for weight, score in parts), abs=1e-3)
            if hypothesis.num_ends == 1 and len(hypothesis.tokens) < 3:
                assert hypothesis.language_score == pytest.approx(
                    probability_of(learnt, list(hypothesis.tokens)), abs=1e-4
                )


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_a_search_with_a_language_model_equals_the_plain_one(model: USR, ctc_weight: float, weight: float) -> None:
    lengths = (9, 1, 6)
    features, mask = clips(*lengths)
    learnt = NGram.learn(TEXTS, V, order=3)
    options = DecodingOptions(beam_size=3, ctc_weight=ctc_weight, language_weight=weight)
    together = beam_search(model, features, mask, AV, options, language_model=learnt)
    best = beam_search(model, features, mask, AV, options, n_best=2, language_model=learnt)
    for row, length in enumerate(lengths):
        plain = plain_search(model, features[row, :length], AV, options, language_model=learnt)
        assert [h.tokens for h in together[row]] == [h.tokens for h in plain]
        assert [h.tokens for h in best[row]] == [h.tokens for h in plain[:2]]
        for name in ("score", "decoder_score", "ctc_score", "language_score"):
            mine, theirs = ([getattr(h, name) for h in found] for found in (together[row], plain))
            assert mine == pytest.approx(theirs, abs=1e-3), name


@torch.no_grad()
@pytest.mark.parametrize("method", SEARCHES)
def test_a_language_model_without_weight_is_not_asked(model: USR, method: DecodingMethod) -> None:
    features, mask = clips(5, 3)
    alone, impossible = DecodingOptions(method, beam_size=3, language_weight=0.0), Opinion(*[-math.inf] * V)
    assert decode_batch(model, features, mask, AV, alone, impossible) == decode_batch(model, features, mask, AV, alone)
    assert impossible.asked == 0
    never_1 = Opinion(-math.inf, -math.inf, -0.7, -0.7)
    by_default = decode_batch(model, features, mask, AV, DecodingOptions(method, beam_size=20), never_1)
    assert never_1.asked > 0
    assert any(2 in row for row in by_default)
    assert not any(1 in row for row in by_default)


@torch.no_grad()
@pytest.mark.parametrize("method", SEARCHES)
def test_nothing_is_said_where_nothing_can_end(model: USR, method: DecodingMethod) -> None:
    features, mask = clips(5, 3)
    options = DecodingOptions(method, beam_size=3, language_weight=0.5)
    assert decode_batch(model, features, mask, AV, options, Opinion(*[-math.inf] * V)) == [[], []]
    endless = Opinion(-math.inf, -0.7, -0.7, -math.inf)
    assert len(decode_batch(model, features, mask, AV, options, endless)) == 2


# --- Options ---


@torch.no_grad()
def test_a_method_may_be_named(model: USR) -> None:
    features, mask = clips(12, 7)
    found = {}
    for method in DecodingMethod:
        named = DecodingOptions(method.value, beam_size=3)  # type: ignore[arg-type]
        assert named.method is method
        found[method] = decode_batch(model, features, mask, AV, named)
    by_ctc = ctc_greedy(model.ctc_logits(features, AV), mask).to_lists()
    assert found[DecodingMethod.CTC] == [[token for token in row if token != EOS] for row in by_ctc]
    assert found[DecodingMethod.CTC] != found[DecodingMethod.BEAM]
    assert seehear.DecodingMethod is DecodingMethod


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (
            {"method": "speech"},
            "method must be one of ctc, attention, beam, ctc-beam, rescore, ctc-driven, not 'speech'",
        ),
        ({"beam_size": 0}, "beam_size must be a whole number from 1 on, not 0"),
        ({"beam_size": 2.5}, "beam_size must be a whole number from 1 on, not 2.5"),
        ({"ctc_weight": -0.1}, "ctc_weight must lie between 0 and 1, not be -0.1"),
        ({"ctc_weight": 1.1}, "ctc_weight must lie between 0 and 1, not be 1.1"),
        ({"ctc_weight": math.nan}, "ctc_weight must lie between 0 and 1, not be nan"),
        ({"length_bonus": math.nan}, "length_bonus must be a finite number, not nan"),
        ({"length_bonus": -math.inf}, "length_bonus must be a finite number, not -inf"),
        ({"max_length_ratio": -0.1}, "max_length_ratio must be a finite number from 0 on, not -0.1"),
        ({"max_length_ratio": math.inf}, "max_length_ratio must be a finite number from 0 on, not inf"),
        ({"max_length_ratio": math.nan}, "max_length_ratio must be a finite number from 0 on, not nan"),
        ({"language_weight": -0.3}, "language_weight must be a finite number from 0 on, not -0.3"),
        ({"language_weight": math.nan}, "language_weight must be a finite number from 0 on, not nan"),
    ],
)
def test_options_that_cannot_be(settings: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(fault)):
        DecodingOptions(**settings)


def test_all_faults_of_options_are_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"^method .*; beam_size .*; ctc_weight .*; length_bonus .*; max_.*; lang.*$"):
        DecodingOptions("speech", -1, 3.0, math.inf, -2.0, -1.0)  # type: ignore[arg-type]
    edges = (DecodingOptions(beam_size=1, ctc_weight=0), DecodingOptions(ctc_weight=1, max_length_ratio=0))
    assert all(option.method is DecodingMethod.BEAM for option in edges)


def test_a_language_model_that_would_not_be_asked_is_refused() -> None:
    for method in SEARCHES:
        DecodingOptions(method, language_weight=0.1).require_language_model_asked()
        with pytest.raises(ConfigError, match=r"^a language weight of 0 asks no language model: beam and rescore do"):
            DecodingOptions(method, language_weight=0.0).require_language_model_asked()
    for method in set(DecodingMethod) - set(SEARCHES):
        with pytest.raises(ConfigError, match=rf"^decoding by {method} asks no language model: beam and rescore do"):
            DecodingOptions(method, language_weight=0.1).require_language_model_asked()


@torch.no_grad()
@pytest.mark.parametrize("method", list(DecodingMethod))
def test_nobody_says_nothing(model: USR, method: DecodingMethod) -> None:
    features, mask = clips(3)
    assert decode_batch(model, features[:0], mask[:0], AV, DecodingOptions(method=method)) == []


def test_sums_in_log_space_are_those_of_torch() -> None:
    x = torch.randn(3, 40, 150, generator=torch.Generator().manual_seed(0)) * 60 - 300
    x[0, 0], x[1, 1, 5:], x[2, 2, 7] = -torch.inf, -torch.inf, NEVER
    expected = x.logsumexp(-1)
    assert torch.equal(_logsumexp(x.clone()).isneginf(), expected.isneginf())
    torch.testing.assert_close(_logsumexp(x.clone()), expected, rtol=1e-6, atol=0)
