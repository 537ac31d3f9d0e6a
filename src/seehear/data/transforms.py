"""What happens to a mouth clip on its way to the model: crop, flip, normalise, mask (METHOD §1 and §6)."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from seehear.data.clipfile import MouthClip
from seehear.modality import CROP_SIZE, FRAME_RATE, INPUT_SIZE, SAMPLES_PER_FRAME
from seehear.recipe import AugmentConfig

VIDEO_MEAN, VIDEO_STD = 0.421, 0.165
"""Normalisation of grey values in [0, 1] (METHOD §1)."""
STILL_FRAMES = 3
"""Frames after the first that a mouth which keeps still goes through."""
FAINTER_DB = (20.0, 60.0)
"""How far below the speech the noise lies where nobody speaks."""


def normalise_video(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey values (T, H, W) in 0…255 to the model's scale."""
    scale, shift = np.float32(1.0 / (255.0 * VIDEO_STD)), np.float32(VIDEO_MEAN / VIDEO_STD)
    return frames.astype(np.float32) * scale - shift


def central_crop(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle 88×88 of (T, 96, 96) frames, as in evaluation."""
    offset = (CROP_SIZE - INPUT_SIZE) // 2
    return frames[:, offset : offset + INPUT_SIZE, offset : offset + INPUT_SIZE]


def random_crop(flip_probability: float, rng: np.random.Generator) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """What takes an 88×88 crop of frames (T, 96, 96), at a random place that all share, and perhaps flips it."""
    top, left = rng.integers(CROP_SIZE - INPUT_SIZE + 1, size=2)
    columns = -1 if rng.random() < flip_probability else 1
    return lambda frames: frames[:, top : top + INPUT_SIZE, left : left + INPUT_SIZE][:, :, ::columns]


def span_mask(length: int, rate: int, every: float, longest: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Which of `length` positions stay visible (True) under one masked span per `every` seconds (METHOD §6).

    Each span has a uniform length of up to `longest` seconds and a uniform place; `rate` is positions per second.
    """
    keep = np.ones(length, dtype=bool)
    for _ in range(max(1, int(length / rate / every))):
        span = int(rng.integers(int(longest * rate) + 1))
        start = int(rng.integers(max(1, length - span + 1)))
        keep[start : start + span] = False
    return keep


def visible(
    num_frames: int, augment: AugmentConfig, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """What the student sees of a clip: video frames (T,) and audio samples (640·T,) that are not masked."""
    video = span_mask(num_frames, FRAME_RATE, augment.video_mask_every, augment.video_mask_longest, rng)
    samples = num_frames * SAMPLES_PER_FRAME
    audio = span_mask(
        samples, FRAME_RATE * SAMPLES_PER_FRAME, augment.audio_mask_every, augment.audio_mask_longest, rng
    )
    return video, audio


def change_speed(clip: MouthClip, factor: float) -> MouthClip:
    """The clip played `factor` times as fast: nearest frames, interpolated samples."""
    frames = max(1, round(clip.frames / factor))
    nearest = ((np.arange(frames) + 0.5) * factor).astype(np.int64).clip(max=clip.frames - 1)
    times = np.arange(frames * SAMPLES_PER_FRAME) * factor
    return clip.change(
        lambda video: video[nearest],
        lambda audio: np.interp(times, np.arange(len(audio)), audio, right=0.0).astype(np.float32),
    )


def stillness(clip: MouthClip, frames: int, rng: np.random.Generator) -> MouthClip:
    """So many `frames` in which nothing is said: a mouth that keeps still, and faint noise.

    The mouth is that of the first frames of `clip`, to and fro at random, so that a camera's noise stays what it is.
    The noise is white, of a random level far below the clip's own; sometimes there is none.
    """
    steps = rng.integers(-1, 2, size=frames).cumsum()
    still = np.abs((steps + STILL_FRAMES) % (2 * STILL_FRAMES) - STILL_FRAMES).clip(max=clip.frames - 1)
    share = 10.0 ** (-rng.uniform(*FAINTER_DB) / 20.0) if rng.random() < 0.8 else 0.0
    noise = rng.standard_normal(frames * SAMPLES_PER_FRAME, dtype=np.float32)
    return clip.change(lambda video: video[still], lambda audio: noise * np.float32(np.sqrt(np.mean(audio**2)) * share))


def augment_clip(clip: MouthClip, augment: AugmentConfig, rng: np.random.Generator) -> MouthClip:
    """Crop and flip the video at random; vary speed, contrast and loudness if asked.

    What is drawn for one stream does not depend on whether the clip has the other.
    """
    if augment.speed:
        clip = change_speed(clip, 1.0 + augment.speed * rng.uniform(-1, 1))
    crop = random_crop(augment.flip_probability, rng)
    scale, shift = 1.0, 0.0
    if augment.contrast:
        scale, shift = 1.0 + augment.contrast * rng.uniform(-1, 1), 64.0 * augment.contrast * rng.uniform(-1, 1)
    gain = 10.0 ** (rng.uniform(-augment.gain_db, augment.gain_db) / 20.0) if augment.gain_db else 1.0
    return clip.change(
        lambda video: np.ascontiguousarray(_recolor(crop(video), scale, shift)),
        lambda audio: audio * np.float32(gain),
    )


def _recolor(video: NDArray[np.uint8], scale: float, shift: float) -> NDArray[np.uint8]:
    """Grey values with another contrast (1.0: the same) and brightness (0.0)."""
    if (scale, shift) == (1.0, 0.0):
        return video
    changed = np.clip((video.astype(np.float32) - 127.5) * scale + 127.5 + shift, 0, 255)
    return np.asarray(changed, dtype=np.uint8)
