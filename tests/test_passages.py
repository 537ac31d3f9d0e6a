"""Clips that are joined in training: lengths, texts, pauses, and what does not change without them."""

from dataclasses import replace

import numpy as np
import pytest

from seehear.data.batch import TrainingClips
from seehear.data.clipfile import MouthClip
from seehear.data.corpus import Corpus, Utterance
from seehear.data.passages import Passages, join
from seehear.data.sampler import FrameBatchSampler
from seehear.modality import Modality
from seehear.recipe import AugmentConfig
from seehear.tokenizer import Tokenizer

OFTEN = AugmentConfig(join_probability=0.6, join_pause=0.4)
UTTERANCES = [Utterance(f"{number}", f"{number}.mp4", 20 + number, speaker="ab"[number % 2]) for number in range(10)]


def test_passages_stay_within_the_limit_and_with_one_speaker() -> None:
    passages = Passages(UTTERANCES, OFTEN, max_frames=100)
    drawn = [passages.draw(position, seed) for position in range(10) for seed in range(50)]
    assert {len(passage.positions) for passage in drawn} >= {1, 2, 3}
    assert {pause for passage in drawn for pause in passage.pauses} == set(range(11))
    for passage in drawn:
        assert len(passage.pauses) == len(passage.positions) + 1
        assert len({position % 2 for position in passage.positions}) == 1
    lengths = [passages.length(position, seed) for position in range(10) for seed in range(50)]
    assert max(lengths) <= 100
    assert lengths == [passages.length(position, seed) for position in range(10) for seed in range(50)]


def test_passages_keep_to_clips_of_the_same_streams() -> None:
    mixed = [replace(clip, speaker="a", streams=list(Modality)[number % 3]) for number, clip in enumerate(UTTERANCES)]
    passages = Passages(mixed, OFTEN, max_frames=200)
    drawn = [passages.draw(position, seed) for position in range(10) for seed in range(50)]
    assert {len(passage.positions) for passage in drawn} >= {1, 2, 3}
    assert all(len({position % 3 for position in passage.positions}) == 1 for passage in drawn)


def test_a_clip_that_fills_the_limit_stays_alone() -> None:
    passages = Passages(UTTERANCES, OFTEN, max_frames=25)
    assert {passages.length(9, seed) for seed in range(50)} == {29}
    assert {passages.length(4, seed) for seed in range(50)} == {24}


def test_joined_clips_follow_each_other_with_stillness_between() -> None:
    clips = [
        MouthClip(np.full((frames, 96, 96), grey, np.uint8), np.full(frames * 640, 0.5, np.float32))
        for frames, grey in ((5, 10), (7, 20))
    ]
    joined = join(clips, (2, 3, 4), np.random.default_rng(0))
    greys = joined.video[:, 0, 0].tolist()
    assert greys == [10] * 2 + [10] * 5 + [10] * 3 + [20] * 7 + [20] * 4
    loud = np.abs(joined.audio.reshape(-1, 640)).max(1) > 0.4
    assert loud.tolist() == [False] * 2 + [True] * 5 + [False] * 3 + [True] * 7 + [False] * 4


def test_an_example_is_as_long_as_was_told_and_says_all(random_corpus: Corpus, tokenizer: Tokenizer) -> None:
    utterances = [replace(utterance, speaker="one") for utterance in random_corpus.split("test")]
    clips = TrainingClips(random_corpus, utterances, OFTEN, tokenizer, max_frames=80)
    by_id = {utterance.id: utterance for utterance in utterances}
    joined = 0
    for seed in range(30):
        example = clips[1, seed]
        ids = example.id.split("+")
        joined += len(ids) > 1
        assert len(example.video) == clips.length(1, seed) == len(example.audio) // 640
        assert example.text == " ".join(by_id[id].text or "" for id in ids)
        assert example.tokens == tokenizer.encode(example.text)
    assert joined > 5
    unlabelled = TrainingClips(random_corpus, utterances, OFTEN, None, max_frames=80)
    assert {(unlabelled.length(1, seed), len(unlabelled[1, seed].video)) for seed in range(10)} == {(7, 7)}


def test_silence_is_as_long_as_the_passage(random_corpus: Corpus, tokenizer: Tokenizer) -> None:
    augment = OFTEN.model_copy(update={"silence_probability": 1.0})
    clips = TrainingClips(random_corpus, random_corpus.split("test"), augment, tokenizer, max_frames=80)
    for seed in range(10):
        example = clips[0, seed]
        assert example.text == ""
        assert len(example.video) == clips.length(0, seed)


@pytest.mark.parametrize("seed", range(3))
def test_batches_keep_to_the_budget_by_the_length_of_passages(seed: int) -> None:
    passages = Passages(UTTERANCES, OFTEN, max_frames=100)
    frames = [utterance.frames for utterance in UTTERANCES]
    for batch in FrameBatchSampler(frames, 200, seed, length=passages.length).epoch(0):
        assert len(batch) * max(passages.length(*clip) for clip in batch) <= 200


def test_without_passages_the_batches_are_what_they_have_always_been() -> None:
    passages = Passages(UTTERANCES, AugmentConfig(), max_frames=100)
    frames = [utterance.frames for utterance in UTTERANCES]
    batches = FrameBatchSampler(frames, 60, 7, group=2, length=passages.length).epoch(3)
    assert [[position for position, _ in batch] for batch in batches] == [
        [3, 5],
        [7, 6],
        [2, 0],
        [1, 4],
        [8, 9],
        [8, 9],
    ]
    assert batches == FrameBatchSampler(frames, 60, 7, group=2).epoch(3)
