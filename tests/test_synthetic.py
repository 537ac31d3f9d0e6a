"""The synthetic corpus: speech with known times, a mouth that follows it, and the corpus on disk."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from seehear.cli.main import app
from seehear.data.corpus import Corpus
from seehear.data.espeak import SpeakingStyle, TimedUnit, resample, speak
from seehear.data.face_render import Face, Filming, render
from seehear.data.sentences import command, vocabulary
from seehear.data.synthetic import SPEAKERS, UNSEEN_SPEAKERS, Split, default_splits, synthesize_clip, synthesize_corpus
from seehear.data.visemes import REST, VISEMES, MouthShape, mouth_movement
from seehear.errors import CorpusError, DependencyError, SeehearError
from seehear.modality import FRAME_RATE, SAMPLE_RATE

FEW = {
    "labelled": Split(2),
    "unlabelled": Split(2, labelled=False),
    "test-voices": Split(1, speakers=UNSEEN_SPEAKERS),
    "test-long": Split(1, commands=(3, 4)),
}


# Speech


def test_the_same_text_is_the_same_sound_whatever_was_spoken_before() -> None:
    style = SpeakingStyle("en-us+f3", pitch=60)  # a breathy voice: it draws random numbers
    before = speak("put blue bat nine", style)
    speak("move now", SpeakingStyle("en-gb-scotland+m5", words_per_minute=180))
    after = speak("put blue bat nine", style)
    np.testing.assert_array_equal(before.audio, after.audio)
    assert before.phonemes == after.phonemes
    assert before.words == after.words


def test_words_and_phonemes_lie_where_the_sound_is() -> None:
    text = "show the white van, put goat four please"
    speech = speak(text, SpeakingStyle("en-us"))
    assert [word.label for word in speech.words] == text.replace(",", "").split()
    for units in (speech.words, speech.phonemes):
        assert all(unit.start < unit.end for unit in units)
        assert all(one.end <= other.start for one, other in pairwise(units))
        assert units[-1].end <= len(speech.audio) / SAMPLE_RATE

    def loudness(start: float, end: float) -> float:
        return float(np.abs(speech.audio[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]).mean())

    van, put = speech.words[3], speech.words[4]
    assert put.start - van.end > 0.1  # the comma
    assert loudness(van.end + 0.03, put.start) < 0.02 * loudness(van.start, van.end)
    vowels = [unit for unit in speech.phonemes if set(unit.label) & set("æaoiʊ")]
    assert min(loudness(*unit[1:]) for unit in vowels) > 0.01


@pytest.mark.parametrize(("source", "target"), [(22050, 16000), (16000, 22050), (16000, 16000)])
def test_resampling_keeps_tones_below_both_nyquist_frequencies(source: int, target: int) -> None:
    def tone(rate: int, frequency: float) -> np.ndarray:
        times = np.arange(rate) / rate
        return np.exp(-(((times - 0.5) / 0.1) ** 2)) * np.sin(2 * np.pi * frequency * times)

    resampled = resample(tone(source, 1000), source, target)
    assert resampled.dtype == np.float32
    np.testing.assert_allclose(resampled, tone(target, 1000), atol=1e-5)
    if source > target:
        assert np.abs(resample(tone(source, 10_000), source, target)).max() < 1e-5


def test_an_unknown_voice_is_named() -> None:
    with pytest.raises(DependencyError, match="no voice xx-martian"):
        speak("put", SpeakingStyle("xx-martian"))


def test_without_espeak_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(DependencyError, match="pip install espeakng-loader"):
        synthesize_corpus(tmp_path / "out", FEW, workers=1)
    assert not (tmp_path / "out").exists()


# The mouth


def test_every_sound_of_every_voice_has_a_shape() -> None:
    text = " ".join(sorted(vocabulary()))
    for voice in SPEAKERS + UNSEEN_SPEAKERS:
        for phoneme in speak(text, SpeakingStyle(voice)).phonemes:
            assert set(phoneme.label) - set("ˈˌː̩͡-") <= set(VISEMES), (voice, phoneme.label)
            assert set(phoneme.label) & set(VISEMES), (voice, phoneme.label)


def test_lips_close_for_bilabials_open_for_vowels_and_rest_before_and_after() -> None:
    speech = speak("mat bat pat", SpeakingStyle("en-us"))
    frames = int(len(speech.audio) / SAMPLE_RATE * FRAME_RATE) + 20
    opening = np.asarray(mouth_movement(speech.phonemes, frames, start=0.4).opening)
    assert opening.shape == (frames,)
    for phoneme in speech.phonemes:
        first, last = (int((0.4 + time) * FRAME_RATE) for time in phoneme[1:])
        if "æ" in phoneme.label:
            assert opening[first : last + 1].max() > 0.4
        if phoneme.label in {"m", "b", "p"}:
            assert opening[first - 2 : last + 1].min() < 0
    np.testing.assert_allclose(opening[[0, -1]], REST.target.opening, atol=0.02)


def test_words_that_differ_in_a_hidden_sound_look_the_same() -> None:
    def movement(consonant: str) -> MouthShape:
        phonemes = [TimedUnit(consonant, 0.1, 0.2), TimedUnit("ˈæ", 0.2, 0.4), TimedUnit("t", 0.4, 0.5)]
        return mouth_movement(phonemes, 20, start=0.1)

    np.testing.assert_array_equal(movement("p"), movement("b"))
    assert np.abs(np.subtract(movement("b"), movement("v"))).max() > 0.3


def test_lips_round_before_a_rounded_vowel_sounds() -> None:
    def rounding_before(vowel: str) -> float:
        phonemes = [TimedUnit("t", 0.1, 0.2), TimedUnit(vowel, 0.2, 0.4)]
        return float(np.asarray(mouth_movement(phonemes, 15, start=0.0).width)[3])  # 40 ms before it starts

    assert rounding_before("u") < rounding_before("i") - 0.5


def test_the_picture_shows_the_mouth_where_a_crop_has_it() -> None:
    rng = np.random.default_rng(0)
    still = Filming(motion=0.0, noise=0.0)
    dark = np.zeros((96, 96), bool)
    for number in range(5):
        face = Face.draw(np.random.default_rng(number))
        shape = MouthShape(*np.array([VISEMES["a"].target, VISEMES["p"].target], np.float32).T)
        opened, closed = render(shape, face, still, rng).astype(int)
        dark |= opened < closed - 40
    rows, columns = np.nonzero(dark)
    assert abs(rows.mean() - 52) < 5
    assert abs(columns.mean() - 47.5) < 2
    assert 30 < np.ptp(columns) < 50  # mouths are about 44 pixels wide


def test_heads_and_lights_move_and_clips_differ() -> None:
    shape = MouthShape(*np.zeros((6, 10), np.float32))
    face = Face.draw(np.random.default_rng(0))
    video = render(shape, face, Filming(), np.random.default_rng(1))
    other = render(shape, face, Filming(), np.random.default_rng(2))
    assert video.shape == (10, 96, 96)
    assert video.dtype == np.uint8
    assert np.abs(video[0].astype(int) - video[9]).mean() > 1
    assert np.abs(video.astype(int) - other).mean() > 3


# The corpus


def test_commands_have_three_to_five_words_of_the_vocabulary() -> None:
    rng = np.random.default_rng(0)
    commands = [command(rng).split() for _ in range(500)]
    assert {len(words) for words in commands} == {3, 4, 5}
    assert {word for words in commands for word in words} == vocabulary()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return synthesize_corpus(tmp_path_factory.mktemp("synthetic") / "corpus", FEW, seed=3, workers=1)


def test_a_corpus_has_its_splits_texts_and_truth(corpus: Corpus) -> None:
    assert corpus.split_names() == sorted(FEW)
    assert [len(corpus.split(name)) for name in FEW] == [2, 2, 1, 1]
    truth = {line["id"]: line for line in map(json.loads, (corpus.root / "truth.jsonl").read_text().splitlines())}
    assert set(truth) == set(corpus.utterances)
    for utterance in corpus.utterances.values():
        known = truth[utterance.id]
        assert utterance.source == "synthetic"
        assert utterance.speaker == known["speaker"]
        assert utterance.text == (None if utterance.id.startswith("unlabelled") else known["text"])
        assert known["text"].split() == [word["word"] for word in known["words"]]
        assert set(known["text"].split()) <= vocabulary()
        assert 0 < known["words"][0]["start"] < known["words"][-1]["end"] < utterance.frames / FRAME_RATE
        assert (utterance.speaker in UNSEEN_SPEAKERS) == utterance.id.startswith("test-voices")
        clip = corpus.read(utterance)
        assert clip.video.shape == (utterance.frames, 96, 96)
        assert clip.audio.shape == (utterance.frames * 640,)
        assert 0.005 < np.sqrt(np.mean(clip.audio**2)) < 0.2
    assert len(corpus.split("test-long")[0].text or "") > 40


def test_a_seed_makes_the_same_corpus_with_any_number_of_workers(corpus: Corpus, tmp_path: Path) -> None:
    again = synthesize_corpus(tmp_path / "again", FEW, seed=3, workers=2)
    for name in ("manifest.jsonl", "truth.jsonl", "synthetic.json"):
        assert (again.root / name).read_bytes() == (corpus.root / name).read_bytes()
    for utterance in corpus.utterances.values():
        one, other = corpus.read(utterance), again.read(again.utterances[utterance.id])
        np.testing.assert_array_equal(one.video, other.video)
        np.testing.assert_array_equal(one.audio, other.audio)


def test_another_seed_makes_other_clips() -> None:
    split = Split(1)
    one, other = (synthesize_clip("test-0000", split, seed) for seed in (0, 1))
    assert one.clip.video.shape != other.clip.video.shape or (one.clip.video != other.clip.video).any()


def test_sizes_of_splits_can_be_chosen() -> None:
    splits = default_splits(labelled=7, test_long=0)
    assert splits["labelled"].clips == 7
    assert splits["unlabelled"].labelled is False
    assert not set(SPEAKERS) & set(UNSEEN_SPEAKERS)
    assert splits["test-long"].clips == 0


def test_only_a_synthetic_corpus_is_overwritten_and_only_when_asked(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="--overwrite"):
        synthesize_corpus(corpus.root, FEW, workers=1)
    (tmp_path / "thesis.txt").write_text("irreplaceable")
    with pytest.raises(CorpusError, match="not empty"):
        synthesize_corpus(tmp_path, FEW, workers=1, overwrite=True)
    with pytest.raises(CorpusError, match=r"thesis\.txt"):
        synthesize_corpus(tmp_path / "thesis.txt", FEW, workers=1)
    assert (tmp_path / "thesis.txt").read_text() == "irreplaceable"

    root = tmp_path / "corpus"
    synthesize_corpus(root, {"test": Split(2)}, workers=1)
    synthesize_corpus(root, {"valid": Split(1)}, workers=1, overwrite=True)
    assert Corpus.load(root).split_names() == ["valid"]
    assert [path.name for path in (root / "clips").iterdir()] == ["valid-0000.mp4"]


def test_the_command_makes_a_corpus_and_calls_it_synthetic(tmp_path: Path) -> None:
    sizes = ["--labelled", "1", "--unlabelled", "1", "--valid", "0", "--test", "1", "--test-voices", "0"]
    arguments = ["synthesize", str(tmp_path / "out"), *sizes, "--test-long", "0", "--workers", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "ynthetic" in result.output
    assert Corpus.load(tmp_path / "out").split_names() == ["labelled", "test", "unlabelled"]
    again = CliRunner().invoke(app, arguments)
    assert isinstance(again.exception, SeehearError)


@pytest.mark.parametrize("wrong", [["--labelled", "0"], ["--seed", "-1"], ["--workers", "0"], ["--test", "many"]])
def test_wrong_options_are_refused_before_any_work(wrong: list[str], tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["synthesize", str(tmp_path / "out"), *wrong])
    assert result.exit_code == 2
    assert not (tmp_path / "out").exists()
