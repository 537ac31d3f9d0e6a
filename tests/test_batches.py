"""Windows through a model, many at once: how sure it is, a decoder that loops, halves joined, words timed."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from conftest import random_clip
from seehear.checkpoint import load_model
from seehear.decoding.ctc import ctc_greedy
from seehear.decoding.join import PlacedWord
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.tokenizer import Tokenizer
from seehear.transcribing.batches import Heard, Input, Transcriber
from seehear.transcribing.choice import silence_doubtful

A, AV = Modality.AUDIO, Modality.AUDIOVISUAL
ATTENTION = DecodingOptions(DecodingMethod.ATTENTION, max_length_ratio=0.4)
BEAM = DecodingOptions(DecodingMethod.BEAM, beam_size=3, max_length_ratio=0.4)


@pytest.fixture(scope="module")
def model(model_folder: Path) -> USR:
    """Random weights that say much, and not for ever the same."""
    model, _ = load_model(model_folder)
    torch.manual_seed(2)
    with torch.no_grad():
        for head in model.ctc_heads.values():
            head.weight.mul_(3.0)
            head.bias[0] = -5.0
        for head in model.output_heads.values():
            torch.nn.init.normal_(head.weight, std=0.5)  # type: ignore[arg-type]
    return model


def given(frames: int, modality: Modality = A) -> Input:
    clip = random_clip(frames, frames)
    return Input(modality, frames, clip.audio, clip.video if modality.uses_video else None)


@torch.no_grad()
def by_hand(transcriber: Transcriber, one: Input, tokens: tuple[int, ...]) -> list[float]:
    """The decoder's log-probability of each token, and of the end, in one window."""
    model = transcriber.model
    streams, mask = transcriber.streams([one], (one.modality,))
    features = model.contextualise(streams, mask)[one.modality]
    states = model.decode(torch.tensor([[model.sos, *tokens]]), features, mask)
    log_probs = model.logits(states, one.modality)[0].log_softmax(-1)
    return [float(log_probs[place, token]) for place, token in enumerate((*tokens, model.eos))]


@pytest.mark.parametrize("options", [ATTENTION, BEAM], ids=lambda options: options.method.value)
def test_how_sure_the_decoder_is_does_not_depend_on_the_batch(
    model: USR, tokenizer: Tokenizer, options: DecodingOptions
) -> None:
    transcriber = Transcriber(model, tokenizer, options)
    inputs = [given(frames) for frames in (31, 7, 20)]
    together = transcriber(inputs)
    assert len({len(heard.tokens) for heard in together}) == 3
    for one, heard in zip(inputs, together, strict=True):
        (alone,) = transcriber([one])
        assert alone.tokens == heard.tokens
        assert alone.avg_logprob == pytest.approx(heard.avg_logprob, abs=1e-4)
        values = by_hand(transcriber, one, heard.tokens)
        assert heard.avg_logprob == pytest.approx(sum(values) / len(values), abs=1e-4)
        assert not heard.looped


def test_timed_words_are_as_probable_as_their_tokens(model: USR, tokenizer: Tokenizer) -> None:
    transcriber = Transcriber(model, tokenizer, ATTENTION, word_times=True)
    one = given(31, AV)
    (heard,) = transcriber([one])
    words = tokenizer.words(heard.tokens)
    assert [list(word.tokens) for word in heard.words] == words
    assert max(map(len, words)) > 1
    values = torch.tensor(by_hand(transcriber, one, heard.tokens)[:-1]).split(list(map(len, words)))
    expected = [float(part.mean().exp()) for part in values]
    assert [word.probability for word in heard.words] == pytest.approx(expected, rel=1e-3)


def test_a_decoder_that_loops_is_replaced_by_ctc_without_its_specials(model: USR, tokenizer: Tokenizer) -> None:
    """Also where CTC says the end of a sentence, which is no piece of text."""
    looping = copy.deepcopy(model)
    with torch.no_grad():
        for head in looping.output_heads.values():
            head.weight.zero_()
            head.bias.zero_()
            head.bias[5] = 20.0
        for head in looping.ctc_heads.values():
            head.bias[looping.eos] += 10.0
    transcriber = Transcriber(looping, tokenizer, replace(ATTENTION, max_length_ratio=0.8))
    inputs = [given(40), given(31)]
    with torch.no_grad():
        streams, mask = transcriber.streams(inputs, (A,))
        logits = looping.ctc_logits(looping.contextualise(streams, mask)[A], A)
    for heard, raw in zip(transcriber(inputs), ctc_greedy(logits, mask).to_lists(), strict=True):
        assert looping.eos in raw
        assert heard.looped
        assert list(heard.tokens) == [token for token in raw if token != looping.eos]
        assert heard.text == tokenizer.decode(heard.tokens) != ""
    still = Transcriber(model, tokenizer, ATTENTION)([given(40)])[0]
    assert not still.looped


# Halves of a window that does not fit in memory


def half(tokenizer: Tokenizer, text: str, start: int, score: float, evidence: float, *pauses: int) -> Heard:
    """A hundred frames that say `text`, a word every 20 frames from `start` on."""
    words = tuple(
        PlacedWord(tuple(tokenizer.encode(word)), word, start + 20 * n, start + 20 * n + 10, 0.9)
        for n, word in enumerate(text.split())
    )
    tokens = tuple(token for word in words for token in word.tokens)
    return Heard(100, tokens, text, words, score, evidence, looped=False, pauses=pauses)


def test_halves_joined_are_worth_what_is_left_of_them(model: USR, tokenizer: Tokenizer) -> None:
    """Both have heard "at", which counts once; so do its evidence and the pause at frame 78."""
    transcriber = Transcriber(model, tokenizer, ATTENTION)
    left = half(tokenizer, "bin blue at", 22, -0.5, 30.0, 35, 78)
    right = half(tokenizer, "at f two now", 2, -1.0, 80.0, 18, 60)._replace(looped=True)
    found = transcriber._joined(left, right, 60, 40)
    assert found.text == "bin blue at f two now"
    assert found.frames == 160
    assert found.looped
    count = {word: len(tokenizer.encode(word)) for word in found.text.split()}
    first, second = count["bin"] + count["blue"] + count["at"], count["f"] + count["two"] + count["now"]
    evidence = 30.0 * first / len(left.tokens) + 80.0 * second / len(right.tokens)
    assert found.evidence == pytest.approx(evidence)
    assert found.evidence < 110.0
    score = (-0.5 * (first + 1) - 1.0 * (second + 1)) / (first + second + 2)
    assert found.avg_logprob == pytest.approx(score)
    assert found.pauses == (35, 78, 120)


def test_halves_of_which_one_is_silent(model: USR, tokenizer: Tokenizer) -> None:
    transcriber = Transcriber(model, tokenizer, ATTENTION)
    silent = half(tokenizer, "", 0, -0.2, 0.0)
    said = half(tokenizer, "bin blue", 22, -0.5, 30.0)
    assert transcriber._joined(said, silent, 60, 40).evidence == pytest.approx(30.0)
    assert transcriber._joined(silent, said, 60, 40).text == "bin blue"
    assert transcriber._joined(silent, silent, 60, 40).evidence == 0.0


# The gate


@pytest.mark.parametrize(("score", "text"), [(-0.5, "bin blue"), (-0.6, "")])
def test_a_threshold_of_nothing_leaves_what_the_decoder_is_sure_of(
    tokenizer: Tokenizer, score: float, text: str
) -> None:
    heard = half(tokenizer, "bin blue", 0, score, 100.0)
    assert silence_doubtful(heard, 0.0).text == text
