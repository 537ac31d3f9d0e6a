"""The weights and the input of a reference case, made from names alone: no case needs a weight file.

Each tensor is drawn from a generator that its own name seeds, at a scale at which leaving out any part of the model
moves the outputs by far more than the tolerance. Names and shapes are those of the published checkpoints.
"""

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]

FRAME_SAMPLES = 640
HOLD_FRAMES = 3
"""Picture and pitch change every third frame."""
HEAD_BIAS = 2.6
"""Raises blank in the CTC heads and eos in the output layers (times the gain), so that both occur."""
LINEAR_SCALES = (
    ("src_attn.linear_q", 3.0),
    ("src_attn", 1.5),
    ("linear_pos", 5.0),
    ("encoders.", 2.0),
    ("encoder.linear_", 0.5),
)
"""Deviation of a linear layer's outputs for inputs of deviation 1, by the first part that its name contains."""
NORMAL_BY_LEAF = {
    # mean and deviation by the last part of the name
    "running_mean": (0.0, 0.1),
    "gamma_mha": (1.0, 0.1),
    "gamma_ff": (1.0, 0.1),
    "pos_bias_u": (0.0, 0.5),
    "pos_bias_v": (0.0, 0.5),
    "bias": (0.0, 0.1),
}


def generator(name: str) -> np.random.Generator:
    """Random numbers that belong to `name`."""
    return np.random.Generator(np.random.Philox(key=zlib.crc32(name.encode())))


def is_head(name: str) -> bool:
    """Whether a parameter belongs to an output layer."""
    return "ctc_lo" in name or "out_layer" in name


def weight_scale(name: str, shape: Sequence[int], gain: float) -> float:
    """Deviation of a weight of two dimensions or more, times the square root of its fan-in."""
    if "frontend" in name:
        return 1.7 if "frontend_a" in name else 1.2
    if is_head(name):
        return gain
    return next((scale for part, scale in LINEAR_SCALES if part in name), 1.0)


def tensor(name: str, shape: Sequence[int], gain: float = 1.0) -> NDArray[np.generic]:
    """The parameter or buffer `name`: float32, or int64 for the counter of a BatchNorm."""
    leaf = name.rpartition(".")[2]
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    rng = generator(name)
    if leaf == "running_var":
        return (1.0 + 0.2 * rng.random(shape)).astype(np.float32)
    numbers = rng.standard_normal(shape)
    if leaf in NORMAL_BY_LEAF:
        mean, deviation = NORMAL_BY_LEAF[leaf]
        numbers = mean + deviation * numbers
        if leaf == "bias" and is_head(name):
            numbers[0 if "ctc_lo" in name else -1] += HEAD_BIAS * gain
    elif len(shape) == 1:  # the weight of a normalisation
        numbers = 1.0 + 0.1 * numbers
    elif "embed" in name:
        numbers = 0.5 * numbers
    else:
        numbers = weight_scale(name, shape, gain) * numbers / math.sqrt(math.prod(shape[1:]))
    return numbers.astype(np.float32)


def state(shapes: Mapping[str, Sequence[int]], gain: float = 1.0) -> dict[str, NDArray[np.generic]]:
    """The state dict with these names and shapes."""
    return {name: tensor(name, shape, gain) for name, shape in shapes.items()}


def inputs(case: str, lengths: Sequence[int], size: int = 88) -> dict[str, NDArray[np.generic]]:
    """Video (B, T, size, size), audio (B, 640·T, 1), both float32 and zero beyond each clip, and the `lengths` (B,).

    The video is a coarse pattern that holds for three frames, a constant one of the clip, and noise; the sound is a
    tone whose pitch and loudness hold as long, and noise.
    """
    rng = generator(f"inputs.{case}")
    clips, frames = len(lengths), max(lengths)
    samples = frames * FRAME_SAMPLES
    changes = math.ceil(frames / HOLD_FRAMES)

    def held(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values.repeat(HOLD_FRAMES * FRAME_SAMPLES, axis=1)[:, :samples]

    pattern = rng.standard_normal((clips, changes, 11, 11)).repeat(HOLD_FRAMES, axis=1)[:, :frames]
    pattern = pattern + 2.0 * rng.standard_normal((clips, 1, 11, 11))
    video = np.kron(pattern, np.ones((8, 8)))[:, :, :size, :size]
    video = video + 0.1 * rng.standard_normal((clips, frames, size, size))
    pitch = rng.uniform(100.0, 4000.0, (clips, 1)) * held(rng.uniform(0.5, 1.5, (clips, changes)))
    loudness = held(rng.uniform(0.02, 0.5, (clips, changes)))
    audio = loudness * np.sin(2 * np.pi * np.cumsum(pitch, axis=1) / 16_000.0)
    audio = audio + 0.01 * rng.standard_normal((clips, samples))
    video, audio = video.astype(np.float32), audio.astype(np.float32)
    for clip, length in enumerate(lengths):
        video[clip, length:] = 0.0
        audio[clip, length * FRAME_SAMPLES :] = 0.0
    return {"video": video, "audio": audio[..., None], "lengths": np.asarray(lengths, np.int64)}
