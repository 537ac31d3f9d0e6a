"""Decoding against brute force: every labelling, every sentence, one token at a time without a cache."""

import copy
import itertools
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seehear.config import SIZES
from seehear.decoding.beam_search import beam_search
from seehear.decoding.ctc import BLANK, ctc_greedy
from seehear.decoding.decode import decode_batch
from seehear.decoding.greedy import attention_greedy
from seehear.decoding.hypothesis import Hypothesis, has_ended
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.decoding.plain_search import plain_search
from seehear.decoding.prefix import PrefixScorer, PrefixState
from seehear.modality import Modality
from seehear.model.usr import USR

V = 4
EOS = V - 1
AV = Modality.AUDIOVISUAL


@pytest.fixture(scope="module")
def model() -> USR:
    """A model of few tokens (blank, two pieces, eos) that is neither sure nor indifferent."""
    torch.manual_seed(0)
    model = USR(SIZES["tiny"].model_copy(update={"vocab_size": V})).eval()
    for head in (*model.ctc_heads.values(), *model.output_heads.values()):
        nn.init.normal_(head.weight, std=0.15)  # type: ignore[arg-type]
    return model


def clip(frames: int, seed: int = 0) -> Tensor:
    return torch.randn(frames, SIZES["tiny"].dim, generator=torch.Generator().manual_seed(seed))


def padded(lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Features (B, T, D) and mask (B, T) of random clips; what stands at padding is large and must not matter."""
    features = torch.full((len(lengths), max(lengths), SIZES["tiny"].dim), 9.0)
    for row, length in enumerate(lengths):
        features[row, :length] = clip(length, seed=row)
    return features, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


def collapse(labelling: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(token for token, _ in itertools.groupby(labelling) if token != BLANK)


# --- Greedy CTC ---


@pytest.mark.parametrize("seed", range(5))
def test_ctc_greedy_collapses_as_groupby_does(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    lengths = [1, 7, 30, 12, 30]
    logits = torch.randn(len(lengths), 30, V, generator=generator)
    mask = torch.arange(30) < torch.tensor(lengths)[:, None]
    found = ctc_greedy(logits, mask)
    log_probs = logits.log_softmax(-1)
    for row, length in enumerate(lengths):
        best = logits[row, :length].argmax(-1).tolist()
        assert found.frame_ids[row].tolist() == best + [BLANK] * (30 - length)
        assert found.to_lists()[row] == list(collapse(tuple(best)))
        assert not found.tokens[row, found.lengths[row] :].any()
        torch.testing.assert_close(found.frame_log_probs[row, :length], log_probs[row, :length].amax(-1))
        assert not found.frame_log_probs[row, length:].any()


def test_ctc_greedy_where_there_is_nothing_to_say() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    silent = ctc_greedy(F.one_hot(torch.zeros(2, 3, dtype=torch.long), V).float() * 10, mask)
    assert silent.tokens.shape == (2, 0)
    assert silent.to_lists() == [[], []]
    one_frame = ctc_greedy(torch.tensor([[[0.0, 0, 5, 0]], [[5.0, 0, 0, 0]]]), torch.ones(2, 1, dtype=torch.bool))
    assert one_frame.to_lists() == [[2], []]
    nobody = ctc_greedy(torch.zeros(0, 3, V), torch.zeros(0, 3, dtype=torch.bool))
    assert nobody.to_lists() == []


def test_ctc_greedy_keeps_a_token_repeated_after_blank_or_at_the_padding() -> None:
    ids = torch.tensor([[1, 1, 0, 1, 2, 2], [1, 0, 0, 1, 1, 1]])
    mask = torch.tensor([[True] * 6, [True, True, True, False, False, False]])
    assert ctc_greedy(F.one_hot(ids, V).float() * 10, mask).to_lists() == [[1, 1, 2], [1]]


# --- Greedy attention ---


@torch.no_grad()
@pytest.mark.parametrize("check_every", [None, 3, 100])
@pytest.mark.parametrize("modality", list(Modality))
def test_attention_greedy_equals_one_clip_at_a_time_without_cache(
    model: USR, modality: Modality, check_every: int | None
) -> None:
    lengths, limits = (12, 5, 1, 9, 12), torch.tensor([12, 5, 1, 2, 7])
    features, mask = padded(lengths)
    found = attention_greedy(model, features, mask, modality, limits, check_every)
    ends = 0
    for row, length in enumerate(lengths):
        tokens, log_probs = [model.sos], []
        while len(log_probs) < limits[row] and (not log_probs or tokens[-1] != model.eos):
            states = model.decode(
                torch.tensor([tokens]), features[row : row + 1, :length], mask[row : row + 1, :length]
            )
            best = model.logits(states[:, -1], modality).log_softmax(-1).max(-1)
            tokens.append(int(best.indices))
            log_probs.append(float(best.values))
        ends += tokens[-1] == model.eos
        count = int(found.lengths[row])
        assert found.tokens[row, :count].tolist() == tokens[1:]
        assert (found.tokens[row, count:] == model.eos).all()
        torch.testing.assert_close(found.log_probs[row, :count], torch.tensor(log_probs), rtol=0, atol=1e-5)
        assert not found.log_probs[row, count:].any()
    assert found.tokens.shape[1] == found.lengths.max()
    assert 0 < ends < len(lengths)  # some clips left at eos, some at their limit


def test_attention_greedy_of_nobody_and_of_no_tokens(model: USR) -> None:
    features, mask = padded((3, 2))
    assert attention_greedy(model, features[:0], mask[:0], AV, 5).tokens.shape == (0, 0)
    none = attention_greedy(model, features, mask, AV, 0)
    assert none.tokens.shape == (2, 0)
    assert none.to_lists(model.eos) == [[], []]


# --- CTC prefix scores ---


def prefix_log_probability(log_probs: Tensor, prefix: tuple[int, ...]) -> float:
    """Log-probability that a labelling collapses to something that begins with `prefix`: the sum over all of them."""
    total = 0.0
    for labelling in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        if collapse(labelling)[: len(prefix)] == prefix:
            total += math.exp(sum(log_probs[t, token] for t, token in enumerate(labelling)))
    return math.log(total) if total else -math.inf


def ctc_log_probability(log_probs: Tensor, tokens: tuple[int, ...]) -> float:
    """Log-probability of `tokens` as the whole sequence: the sum over all labellings."""
    total = 0.0
    for labelling in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        if collapse(labelling) == tokens:
            total += math.exp(sum(log_probs[t, token] for t, token in enumerate(labelling)))
    return math.log(total) if total else -math.inf


def walk(log_probs: Tensor, tokens: tuple[int, ...]) -> tuple[PrefixScorer, PrefixState]:
    """The state of a prefix of one clip, extended token by token."""
    scorer = PrefixScorer(log_probs[None], torch.ones(1, len(log_probs), dtype=torch.bool))
    state, last = scorer.first(), torch.tensor([[EOS]])
    for token in torch.tensor(tokens, dtype=torch.long).view(-1, 1, 1):
        score = scorer.scores(state, last, token[None], EOS)[..., 0]
        state, last = scorer.extend(state, last, token, score), token
    return scorer, state


@pytest.mark.parametrize("frames", [1, 2, 5])
@pytest.mark.parametrize("prefix", [(), (1,), (1, 2), (1, 1), (2, 1, 1)])
def test_prefix_scores_are_sums_over_all_labellings(frames: int, prefix: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(frames)
    log_probs = torch.randn(frames, V, generator=generator, dtype=torch.double).log_softmax(-1)
    (scorer, state), last = walk(log_probs, prefix), prefix[-1] if prefix else EOS
    assert float(state.score) == pytest.approx(prefix_log_probability(log_probs, prefix), abs=1e-9)
    scores = scorer.scores(state, torch.tensor([[last]]), torch.arange(V)[None, None], EOS)[0, 0].tolist()
    assert scores[BLANK] == -math.inf
    assert scores[EOS] == pytest.approx(ctc_log_probability(log_probs, prefix), abs=1e-9)
    for token in (1, 2):
        assert scores[token] == pytest.approx(prefix_log_probability(log_probs, (*prefix, token)), abs=1e-9)


def test_prefix_score_at_eos_is_the_ctc_loss() -> None:
    torch.manual_seed(0)
    log_probs, tokens = torch.randn(40, 30).log_softmax(-1), tuple(torch.randint(1, 29, (12,)).tolist())
    _, state = walk(log_probs, tokens)
    total = torch.logaddexp(state.token[0, 0, -1], state.blank[0, 0, -1])
    loss = F.ctc_loss(
        log_probs[:, None], torch.tensor([tokens]), torch.tensor([40]), torch.tensor([12]), reduction="sum"
    )
    torch.testing.assert_close(total, -loss, rtol=1e-5, atol=1e-3)


# --- Beam search ---


@torch.no_grad()
def every_sentence(model: USR, features: Tensor, options: DecodingOptions) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Each sequence up to the limit with its score: ended by eos, or cut at the limit and ended for free."""
    limit = options.max_tokens(len(features))
    ctc = model.ctc_logits(features, AV).log_softmax(-1)
    alpha = options.ctc_weight
    for length in range(limit + 1):
        for tokens in itertools.product(range(1, EOS), repeat=length):
            ended = length < limit
            scored = (*tokens, EOS) if ended else tokens
            states = model.decode(
                torch.tensor([[model.sos, *tokens]]), features[None], torch.ones(1, len(features)) > 0
            )
            log_probs = model.logits(states, AV).log_softmax(-1)[0]
            decoder = sum(float(log_probs[position, token]) for position, token in enumerate(scored))
            by_ctc = ctc_log_probability(ctc, tokens) if ended else prefix_log_probability(ctc, tokens)
            score = (1 - alpha) * decoder + (alpha * by_ctc if alpha else 0.0) + options.length_bonus * len(scored)
            if score > -math.inf:
                yield score, tokens


def search(model: USR, features: Tensor, options: DecodingOptions, n_best: int | None = None) -> list[Hypothesis]:
    """One clip's."""
    mask = torch.ones(1, len(features), dtype=torch.bool)
    return beam_search(model, features[None], mask, AV, options, n_best=n_best)[0]


@pytest.mark.parametrize("ctc_weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize(("frames", "ratio", "bonus"), [(4, 1.0, 0.0), (5, 0.61, 0.7), (1, 1.0, 0.0), (1, 0.3, 0.0)])
def test_a_beam_as_wide_as_the_tree_finds_every_sentence(
    model: USR, ctc_weight: float, frames: int, ratio: float, bonus: float
) -> None:
    options = DecodingOptions(beam_size=100, ctc_weight=ctc_weight, length_bonus=bonus, max_length_ratio=ratio)
    features = clip(frames, seed=frames)
    found = search(model, features, options)
    expected = sorted(every_sentence(model, features, options), reverse=True)
    scores = {hypothesis.tokens: hypothesis.score for hypothesis in found}
    assert len(scores) == len(found)
    limit = options.max_tokens(frames)
    assert all(hypothesis.num_ends == 1 + (len(hypothesis.tokens) == limit - 1) for hypothesis in found)
    assert [hypothesis.score for hypothesis in found] == sorted((h.score for h in found), reverse=True)
    for score, tokens in expected:
        assert scores.pop(tokens) == pytest.approx(score, abs=1e-4)
    assert not scores


@torch.no_grad()
def test_narrow_beams_end_best_first_and_never_hold_blank(model: USR) -> None:
    features = clip(10)
    for beam_size, ratio in itertools.product((1, 2, 5), (0.0, 0.5, 1.0)):
        options = DecodingOptions(beam_size=beam_size, ctc_weight=0.3, max_length_ratio=ratio)
        found = search(model, features, options)
        assert found
        assert all(BLANK not in hypothesis.tokens and EOS not in hypothesis.tokens for hypothesis in found)
        assert all(len(hypothesis.tokens) <= options.max_tokens(10) for hypothesis in found)
        for hypothesis in found:
            joint = 0.7 * hypothesis.decoder_score + 0.3 * hypothesis.ctc_score
            assert hypothesis.score == pytest.approx(joint, abs=1e-3)


@torch.no_grad()
def test_beam_of_one_without_ctc_is_greedy(model: USR) -> None:
    options = DecodingOptions(beam_size=1, ctc_weight=0.0)
    for seed in range(4):
        features = clip(8, seed)
        greedy = attention_greedy(model, features[None], torch.ones(1, 8, dtype=torch.bool), AV, 8).to_lists(model.eos)[
            0
        ]
        if BLANK not in greedy:  # which a search never takes
            assert list(search(model, features, options)[0].tokens) == greedy


def of_length(length: int, score: float) -> Hypothesis:
    """Counted with start and end."""
    return Hypothesis((1,) * (length - 2), score)


@pytest.mark.parametrize(
    ("others", "ends"),
    [
        ({6: -10.5, 7: -11.0, 8: -10.1}, True),
        ({6: -9.5, 7: -11.0, 8: -11.0}, False),  # each of the last three lengths must be much worse …
        ({6: -11.0, 7: -9.5, 8: -11.0}, False),
        ({6: -11.0, 7: -11.0, 8: -9.5}, False),
        ({6: -11.0, 8: -11.0}, False),  # … and there
        ({5: -11.0, 6: -11.0, 7: -11.0}, False),
        ({}, False),
    ],
)
def test_a_search_has_ended_when_recent_lengths_are_much_worse(others: dict[int, float], ends: bool) -> None:
    ended = [of_length(3, 0.0), of_length(4, -30.0), *(of_length(*item) for item in others.items())]
    assert has_ended(ended, 8) is ends
    assert not has_ended([], 8)


@torch.no_grad()
def test_end_detection_finds_the_same_best(model: USR) -> None:
    """Of a decoder that is almost sure of the end, so that each token makes a hypothesis much worse."""
    ending = copy.deepcopy(model)
    for head in ending.output_heads.values():
        head.bias[ending.eos] = 12.0  # type: ignore[index, operator]
    for seed in range(4):
        whole, stopped = (
            search(ending, clip(12, seed), DecodingOptions(beam_size=4, max_length_ratio=ratio)) for ratio in (1.0, 0.0)
        )
        assert stopped[0].tokens == whole[0].tokens
        assert len(stopped) < len(whole)
        longest = max(len(h.tokens) for h in stopped)
        assert longest < max(len(h.tokens) for h in whole)
        assert [h.tokens for h in stopped] == [h.tokens for h in whole if len(h.tokens) <= longest]


@pytest.fixture(scope="module")
def larger() -> USR:
    """A model of so many tokens that a beam holds few of them, which likes to end."""
    torch.manual_seed(1)
    model = USR(SIZES["tiny"].model_copy(update={"vocab_size": 40})).eval()
    for head in (*model.ctc_heads.values(), *model.output_heads.values()):
        nn.init.normal_(head.weight, std=0.3)  # type: ignore[arg-type]
    for head in model.output_heads.values():
        head.bias.data[model.eos] = 1.0  # type: ignore[index, operator, union-attr]
    return model


@pytest.mark.parametrize("ctc_weight", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize(("ratio", "bonus"), [(1.0, 0.0), (0.4, 0.5), (0.0, -0.5), (1.0, 1.5)])
def test_the_search_of_a_batch_equals_the_plain_one_of_each_clip(
    larger: USR, ctc_weight: float, ratio: float, bonus: float
) -> None:
    lengths = (14, 1, 9, 20)
    features, mask = padded(lengths)
    options = DecodingOptions(beam_size=6, ctc_weight=ctc_weight, length_bonus=bonus, max_length_ratio=ratio)
    together = beam_search(larger, features, mask, AV, options)
    best = beam_search(larger, features, mask, AV, options, n_best=3)
    for row, length in enumerate(lengths):
        plain = plain_search(larger, features[row, :length], AV, options)
        assert [h.tokens for h in together[row]] == [h.tokens for h in plain]
        assert [h.num_ends for h in together[row]] == [h.num_ends for h in plain]
        for name in ("score", "decoder_score", "ctc_score"):
            mine, theirs = ([getattr(h, name) for h in found] for found in (together[row], plain))
            assert mine == pytest.approx(theirs, abs=1e-3), name
        assert [h.tokens for h in best[row]] == [h.tokens for h in plain[:3]]


@pytest.mark.parametrize("ctc_weight", [1e-5, 0.5, 1.0])
def test_what_does_not_fit_a_clip_is_found_in_no_batch(model: USR, ctc_weight: float) -> None:
    """Three frames do not say "1 1 2"; the padding of a batch does not make it a matter of bad luck."""
    options = DecodingOptions(beam_size=100, ctc_weight=ctc_weight)
    features, mask = padded((3, 12))
    together = beam_search(model, features, mask, AV, options)[0]
    alone = search(model, features[0, :3], options)
    assert [h.tokens for h in together] == [h.tokens for h in alone]
    assert (1, 1, 2) not in {h.tokens for h in alone}
    assert [h.score for h in together] == pytest.approx([h.score for h in alone], abs=1e-4)


# --- Any method, in a batch ---


@torch.no_grad()
@pytest.mark.parametrize("method", list(DecodingMethod))
@pytest.mark.parametrize("ratio", [1.0, 0.4, 0.0])
def test_a_batch_decodes_as_its_clips_do(model: USR, method: DecodingMethod, ratio: float) -> None:
    options = DecodingOptions(method=method, beam_size=3, max_length_ratio=ratio)
    lengths = (11, 1, 6)
    features, mask = padded(lengths)
    together = decode_batch(model, features, mask, AV, options)
    assert any(together)
    for row, length in enumerate(lengths):
        one = decode_batch(model, features[row : row + 1, :length], mask[row : row + 1, :length], AV, options)
        assert one == [together[row]]
        assert all(BLANK < token < EOS for token in together[row])


@torch.no_grad()
@pytest.mark.parametrize(("ratio", "limits"), [(1.0, [11, 1, 6]), (0.4, [4, 1, 2]), (0.0, [11, 1, 6])])
def test_a_decoder_that_never_ends_says_what_each_clip_allows(model: USR, ratio: float, limits: list[int]) -> None:
    endless = copy.deepcopy(model)
    for head in endless.output_heads.values():
        head.bias[[BLANK, EOS]] = -1e4  # type: ignore[index, operator]
    features, mask = padded((11, 1, 6))
    found = decode_batch(endless, features, mask, AV, DecodingOptions(DecodingMethod.ATTENTION, max_length_ratio=ratio))
    assert [len(row) for row in found] == limits


def test_token_limits() -> None:
    assert [DecodingOptions(max_length_ratio=0.4).max_tokens(frames) for frames in (1, 2, 5, 9)] == [1, 1, 2, 3]
    assert DecodingOptions(max_length_ratio=0.0).max_tokens(7) == 7
