"""Noise at a chosen signal-to-noise ratio, as in the noise tables of the paper (§5, babble)."""

import numpy as np
from numpy.typing import NDArray


def mix(
    speech: NDArray[np.float32], noise: NDArray[np.float32], snr_db: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Add `noise` (N,) to `speech` (S,), both at 16 kHz, so that their mean powers differ by `snr_db` decibels.

    The stretch of noise starts at a random place; noise shorter than the speech is repeated. Where speech or noise is
    silent the ratio is not defined and the speech is returned as it is. The sum is scaled down if it would clip.
    """
    if not len(speech) or not len(noise):
        return speech
    start = int(rng.integers(len(noise)))
    stretch = np.take(noise, np.arange(start, start + len(speech)), mode="wrap")
    speech_power, noise_power = (float(np.mean(np.square(x, dtype=np.float64))) for x in (speech, stretch))
    if speech_power == 0.0 or noise_power == 0.0:
        return speech
    gain = np.sqrt(speech_power / noise_power / 10.0 ** (snr_db / 10.0))
    mixed = speech + np.float32(gain) * stretch
    return np.asarray(mixed / max(1.0, float(np.abs(mixed).max())), dtype=np.float32)
