"""From phonemes to the movement of a mouth: what each sound looks like, and how neighbouring sounds blend.

Each phoneme has a target shape and a dominance that is full while it sounds and falls off before and after; the mouth
takes the mean of the targets weighted by dominance (Cohen and Massaro's model of co-articulation, 1993). Sounds that
need the lips dominate, the others yield; lips move ahead of the sound.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seehear.data.espeak import TimedUnit
from seehear.modality import FRAME_RATE


class MouthShape(NamedTuple):
    """The shape of a mouth, or with arrays of (T,) its movement."""

    opening: np.ndarray | float
    """Gap between the lips: 0 closed (below: pressed together), 1 wide open."""
    width: np.ndarray | float
    """−1 rounded, 0 at rest, 1 spread."""
    protrusion: np.ndarray | float
    """0 to 1, pushed forward."""
    tuck: np.ndarray | float
    """0 to 1, lower lip under the upper teeth."""
    teeth: np.ndarray | float
    """0 to 1, closed teeth shown."""
    tongue: np.ndarray | float
    """0 to 1, tip of the tongue up and in front."""


class Viseme(NamedTuple):
    """What a group of phonemes looks like."""

    target: MouthShape
    closing: float
    """Dominance over the opening."""
    shaping: float
    """Dominance over everything else."""


REST = Viseme(MouthShape(0.02, 0.0, 0.0, 0.0, 0.0, 0.0), closing=0.5, shaping=0.5)

#                            opening  width  protr.  tuck  teeth tongue closing shaping
VISEMES: dict[str, Viseme] = {
    symbol: Viseme(MouthShape(*numbers[:6]), numbers[6], numbers[7])
    for symbols, numbers in {
        "pbm":              (-0.25,   0.00,  0.10,  0.0,  0.0,  0.0,   5.0,  0.3),  # the same to the eye
        "fv":               ( 0.12,   0.10,  0.00,  1.0,  0.5,  0.0,   5.0,  1.5),
        "θð":               ( 0.25,   0.10,  0.00,  0.0,  0.4,  1.0,   2.0,  1.0),
        "tdnɾʔ":            ( 0.22,   0.10,  0.00,  0.0,  0.5,  0.4,   1.0,  0.4),
        "lɫ":               ( 0.32,   0.05,  0.00,  0.0,  0.1,  0.8,   1.0,  0.5),
        "sz":               ( 0.14,   0.45,  0.00,  0.0,  1.0,  0.0,   1.5,  1.0),
        "ʃʒ":               ( 0.24,  -0.50,  0.80,  0.0,  0.9,  0.0,   1.5,  1.5),
        "ɹr":               ( 0.20,  -0.45,  0.60,  0.0,  0.1,  0.0,   1.0,  1.0),
        "wʍ":               ( 0.08,  -1.00,  1.00,  0.0,  0.0,  0.0,   2.0,  2.5),
        "kɡgŋx":            ( 0.28,   0.00,  0.00,  0.0,  0.2,  0.0,   0.4,  0.2),
        "h":                ( 0.35,   0.00,  0.00,  0.0,  0.0,  0.0,   0.2,  0.1),
        "ij":               ( 0.25,   0.90,  0.00,  0.0,  0.6,  0.0,   1.0,  1.2),
        "ɪᵻ":               ( 0.32,   0.50,  0.00,  0.0,  0.3,  0.0,   0.8,  0.8),
        "eɛ":               ( 0.48,   0.50,  0.00,  0.0,  0.1,  0.0,   1.0,  1.0),
        "æ":                ( 0.80,   0.50,  0.00,  0.0,  0.0,  0.0,   1.2,  1.0),
        "aɑʌɐ":             ( 0.95,   0.05,  0.00,  0.0,  0.0,  0.0,   1.2,  1.0),
        "ɒɔo":              ( 0.60,  -0.55,  0.60,  0.0,  0.0,  0.0,   1.2,  1.2),
        "ʊ":                ( 0.26,  -0.75,  0.80,  0.0,  0.0,  0.0,   1.0,  1.2),
        "uʉ":               ( 0.16,  -1.00,  1.00,  0.0,  0.0,  0.0,   1.2,  1.5),
        "ə":                ( 0.35,   0.00,  0.00,  0.0,  0.1,  0.0,   0.6,  0.5),
        "ɜɚ":               ( 0.36,  -0.25,  0.35,  0.0,  0.1,  0.0,   0.8,  0.8),
    }.items()
    for symbol in symbols
}  # fmt: skip
"""What each IPA symbol looks like; other marks (stress, length) have no shape of their own."""

PLOSIVES = frozenset("pbtdkɡg")
LONGEST_CLOSURE = 0.08
"""Seconds that a plosive at the start of a word may stay closed before its release."""
SETTLING = 0.08
"""Seconds that the mouth takes to come to rest in a pause."""
LEAD = 0.02
"""Seconds by which the lips are ahead of the sound."""
JAW_RISE, JAW_FALL = 0.035, 0.025
"""Seconds in which the dominance over the opening grows by e before a phoneme, and falls by e after it."""
LIP_RISE, LIP_FALL = 0.07, 0.035
"""The same for the lips: they anticipate more than they linger."""


def mouth_movement(phonemes: Sequence[TimedUnit], num_frames: int, start: float) -> MouthShape:
    """The mouth, arrays of (T,), at the middle of each frame of a clip whose speech starts after `start` seconds."""
    segments = _segments(phonemes)
    times = (np.arange(num_frames)[:, None] + 0.5) / FRAME_RATE - start + LEAD  # (T, 1)
    begins = np.array([segment.start for segment in segments])  # (N,)
    ends = np.array([segment.end for segment in segments])
    before, after = np.maximum(begins - times, 0), np.maximum(times - ends, 0)  # (T, N), seconds away from each
    jaw = np.exp(-before / JAW_RISE - after / JAW_FALL)
    lips = np.exp(-before / LIP_RISE - after / LIP_FALL)

    visemes = [VISEMES.get(segment.label, REST) for segment in segments]
    targets = np.array([viseme.target for viseme in visemes])  # (N, 6)
    closing = jaw * np.array([viseme.closing for viseme in visemes])  # (T, N)
    shaping = lips * np.array([viseme.shaping for viseme in visemes])
    opening = closing @ targets[:, 0] / closing.sum(1)
    others = shaping @ targets[:, 1:] / shaping.sum(1, keepdims=True)
    return MouthShape(opening, *others.T)


def _segments(phonemes: Sequence[TimedUnit]) -> list[TimedUnit]:
    """One IPA symbol each (a diphthong is two), plosives with their closures; rests before, after and in pauses."""
    segments = [TimedUnit("", phonemes[0].start - 10, phonemes[0].start - 2 * SETTLING)]
    previous_end = phonemes[0].start - LONGEST_CLOSURE
    for phoneme in phonemes:
        symbols = [symbol for symbol in phoneme.label if symbol in VISEMES]
        start = phoneme.start
        if symbols and symbols[0] in PLOSIVES:
            start = max(previous_end, start - LONGEST_CLOSURE)
        if start - previous_end > 2 * SETTLING:
            segments.append(TimedUnit("", previous_end + SETTLING, start - SETTLING))
        bounds = np.linspace(start, phoneme.end, len(symbols) + 1)
        segments += [TimedUnit(*unit) for unit in zip(symbols, bounds, bounds[1:], strict=False)]
        previous_end = phoneme.end
    segments.append(TimedUnit("", previous_end + SETTLING, previous_end + 10))
    return segments
