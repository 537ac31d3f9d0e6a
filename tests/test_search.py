"""Searches beyond the joint one: CTC prefixes, rescoring, language models."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from seehear.config import SIZES
from seehear.decoding.beam_search import beam_search
from seehear.decoding.ctc import BLANK, ctc_beam, ctc_greedy
from seehear.decoding.decode import decode_batch
from seehear.decoding.ngram import NGram
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.decoding.rescore import ctc_driven, rescore
from seehear.errors import ModelError
from seehear.modality import Modality
from seehear.model.usr import USR

V, EOS, AV = 4, 3, Modality.AUDIOVISUAL


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


# --- A language model ---

TEXTS = [[1, 2, 1], [1, 2], [2, 2, 1], []]


def test_an_n_gram_interpolates_discounted_counts() -> None:
    """By hand: alone, each token was seen 4 times of 12; at the start 1 twice, 2 and the end once each, of 4."""
    alone = (4 - 0.75) / 12 + 0.75 * 3 / 12 / 3
    start = [0, (2 - 0.75) / 4, (1 - 0.75) / 4, (1 - 0.75) / 4]
    expected = torch.tensor([0.0, *(p + 0.75 * 3 / 4 * alone for p in start[1:])])
    learnt = NGram.learn(TEXTS, V, order=2)
    torch.testing.assert_close(learnt.log_probs(torch.tensor([[EOS]])).exp()[0], expected)


@pytest.mark.parametrize("order", [1, 2, 4])
def test_an_n_gram_is_a_distribution_after_anything(order: int) -> None:
    learnt = NGram.learn(TEXTS, V, order=order)
    for context in itertools.product((1, 2, EOS), repeat=3):
        found = learnt.log_probs(torch.tensor([[EOS, *context]]))
        assert float(found.exp().sum()) == pytest.approx(1.0)
        assert found[0, BLANK] == -math.inf
        assert found[0, 1:].isfinite().all()
    seen, unseen = (probability_of(learnt, text) for text in ([1, 2, 1], [1, 1, 1]))
    assert seen > unseen or order == 1


def probability_of(language_model: NGram, tokens: list[int]) -> float:
    """Log-probability of a sequence and its end."""
    total, prefix = 0.0, [EOS]
    for token in (*tokens, EOS):
        total += float(language_model.log_probs(torch.tensor([prefix]))[0, token])
        prefix.append(token)
    return total


def test_an_n_gram_is_saved_and_one_of_another_vocabulary_refused(tmp_path: Path) -> None:
    learnt, file = NGram.learn(TEXTS, V, order=3), tmp_path / "lm.json"
    learnt.save(file)
    context = torch.tensor([[EOS, 1, 2], [EOS, 2, 2]])
    assert torch.equal(NGram.load(file, V).log_probs(context), learnt.log_probs(context))
    with pytest.raises(ModelError, match="for 4 tokens, and the model has 5"):
        NGram.load(file, 5)
    file.write_text("[]")
    with pytest.raises(ModelError, match="not a language model"):
        NGram.load(file, V)
    with pytest.raises(ModelError, match="needs text"):
        NGram.learn([], V)


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


@torch.no_grad()
@pytest.mark.parametrize("method", list(DecodingMethod))
def test_nobody_says_nothing(model: USR, method: DecodingMethod) -> None:
    features, mask = clips(3)
    assert decode_batch(model, features[:0], mask[:0], AV, DecodingOptions(method=method)) == []
