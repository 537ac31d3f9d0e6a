"""Crop, flip, mask and noise."""

import numpy as np
import pytest

from seehear.data.batch import TrainingClips
from seehear.data.clipfile import MouthClip
from seehear.data.corpus import Corpus
from seehear.data.noise import mix
from seehear.data.transforms import (
    central_crop,
    change_speed,
    normalise_video,
    random_crop,
    span_mask,
    stillness,
)
from seehear.recipe import AugmentConfig
from seehear.tokenizer import Tokenizer

RNG = np.random.default_rng(0)
FRAMES = RNG.integers(0, 256, (5, 96, 96)).astype(np.uint8)


def test_normalise_is_the_published_one() -> None:
    expected = (FRAMES / 255.0 - 0.421) / 0.165
    np.testing.assert_allclose(normalise_video(FRAMES), expected, atol=1e-5)


def test_central_crop() -> None:
    np.testing.assert_array_equal(central_crop(FRAMES), FRAMES[:, 4:92, 4:92])


def test_random_crop_is_one_place_for_all_frames_and_reaches_every_place() -> None:
    still = np.broadcast_to(FRAMES[:1], FRAMES.shape)
    places = set()
    for seed in range(600):
        crop = random_crop(0.0, np.random.default_rng(seed))(still)
        assert crop.shape == (5, 88, 88)
        assert (crop == crop[:1]).all()
        places.add(crop[0].tobytes())
    assert len(places) > 75  # of 81


def test_flip_mirrors() -> None:
    plain = random_crop(0.0, np.random.default_rng(3))(FRAMES)
    flipped = random_crop(1.0, np.random.default_rng(3))(FRAMES)
    np.testing.assert_array_equal(flipped, plain[:, :, ::-1])


@pytest.mark.parametrize("length", [1, 7, 25, 75, 400])
def test_span_mask_hides_at_most_a_span_per_interval(length: int) -> None:
    hidden = []
    for seed in range(300):
        keep = span_mask(length, 25, 1.0, 0.4, np.random.default_rng(seed))
        assert keep.shape == (length,)
        spans = max(1, length // 25)
        assert (~keep).sum() <= 10 * spans
        hidden.append((~keep).mean())
    if length >= 25:
        assert 0.15 < np.mean(hidden) < 0.21  # spans of 0…10 frames in 25, overlapping now and then


@pytest.mark.parametrize("snr", [-5.0, 0.0, 20.0])
@pytest.mark.parametrize("noise_length", [100, 3999, 50_000])
def test_noise_has_the_asked_ratio(snr: float, noise_length: int) -> None:
    rng = np.random.default_rng(1)
    speech = (0.01 * rng.standard_normal(16_000)).astype(np.float32)
    noise = rng.standard_normal(noise_length).astype(np.float32)
    mixed = mix(speech, noise, snr, rng)
    added = mixed - speech
    measured = 10 * np.log10(np.mean(speech.astype(float) ** 2) / np.mean(added.astype(float) ** 2))
    assert measured == pytest.approx(snr, abs=0.01)


@pytest.mark.parametrize(("speech", "noise"), [(0, 5), (5, 0)])
def test_silence_stays_finite(speech: int, noise: int) -> None:
    mixed = mix(np.zeros(100, np.float32) + speech, np.zeros(30, np.float32) + noise, 0.0, RNG)
    assert np.isfinite(mixed).all()
    np.testing.assert_array_equal(mixed, np.zeros(100, np.float32) + speech)


def test_loud_mixtures_do_not_clip() -> None:
    speech, noise = np.full(1000, 0.9, np.float32), np.full(500, 0.9, np.float32)
    assert np.abs(mix(speech, noise, 0.0, RNG)).max() <= 1.0


@pytest.mark.parametrize("frames", [1, 2, 75])
def test_a_clip_without_speech_is_still_and_faint(frames: int) -> None:
    rng = np.random.default_rng(3)
    video = np.broadcast_to(np.arange(frames, dtype=np.uint8)[:, None, None], (frames, 96, 96))
    speech = MouthClip(video=video, audio=rng.uniform(-0.5, 0.5, frames * 640).astype(np.float32))
    loudness = np.sqrt(np.mean(speech.audio**2))
    quiet = [stillness(speech, frames, rng) for _ in range(20)]
    for clip in quiet:
        assert clip.video.shape == video.shape
        assert clip.video.max() <= 3
        assert clip.audio.shape == speech.audio.shape
        assert np.sqrt(np.mean(clip.audio**2)) < 0.15 * loudness
    assert any(clip.audio.any() for clip in quiet)
    assert not all(clip.audio.any() for clip in quiet)


def test_some_labelled_clips_say_nothing(random_corpus: Corpus, tokenizer: Tokenizer) -> None:
    augment = AugmentConfig(silence_probability=0.5)
    clips = TrainingClips(random_corpus, random_corpus.split("test"), augment, tokenizer)
    said = [clips[0, seed] for seed in range(40)]
    silent = [example for example in said if not example.text]
    assert 5 < len(silent) < 35
    assert all(example.tokens == [] for example in silent)
    assert all(np.abs(example.audio).max() < 0.1 for example in silent)
    unlabelled = TrainingClips(random_corpus, random_corpus.split("test"), augment, None)
    assert all(np.abs(unlabelled[0, seed].audio).max() > 0.1 for seed in range(40))


@pytest.mark.parametrize("factor", [0.85, 1.0, 1.15])
def test_speed_changes_both_streams_alike(factor: float) -> None:
    frames = 50
    video = np.broadcast_to(np.arange(frames, dtype=np.uint8)[:, None, None], (frames, 96, 96))
    audio = np.zeros(frames * 640, np.float32)
    audio[25 * 640 : 26 * 640] = 1.0  # sounds while frame 25 is shown
    clip = change_speed(MouthClip(video=video, audio=audio), factor)
    assert len(clip.video) == round(frames / factor)
    assert clip.audio.shape == (len(clip.video) * 640,)
    centre = np.flatnonzero(clip.audio > 0.5).mean() / 640
    shown = np.flatnonzero(clip.video[:, 0, 0] == 25)
    assert shown[0] - 0.6 <= centre <= shown[-1] + 1.6
    if factor == 1.0:
        np.testing.assert_array_equal(clip.video, video)
        np.testing.assert_array_equal(clip.audio, audio)
