"""In which frames there may be speech: by the sound's level, by the motion of lips.

Both are generous: what they take for speech wrongly costs time and goes to a model that may find nothing in it; what
they miss is lost.
"""

import numpy as np
from numpy.typing import NDArray

from seehear.data.faces import LIPS, FacePoints
from seehear.modality import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME

SPEECH_BAND = (300.0, 3400.0)
"""Where the sound's level is measured, in Hz: hum and rumble lie below."""
QUIETEST = -90.0
"""Level in that band, in dB of full scale, below which there is no sound: a little above the noise of 16 bits."""
HISTORY = 60 * FRAME_RATE
"""Frames over which the levels of noise and speech are judged."""
NOISE, SPEECH = 10, 95
"""Percentiles of the levels that stand for noise and for speech."""
STEADY = 10.0
"""dB between the two below which they cannot be told apart, and all counts as speech."""
ABOVE_NOISE = 0.4
"""Share of the way from noise to speech from which on a frame counts as speech."""
SHORTEST = 3
"""Frames in a row that are loud, at least: a click is none, nor is a breath."""
AROUND = 3
"""Frames before and after such a frame that count with it: faint ends of words."""

FAINT, USUAL = -28.0, -18.0
"""Level of speech below which sound is made louder, and the one it is made to have. GRID has −16; models that were
trained on it hear 10 dB less as well as ever, and 15 dB less badly (RESULTS.md)."""
LIPS_MOVE = 1.0
"""`lip_motion` in three frames from which on somebody may speak: GRID's median is 1.9 in speech and 0.2 beside it."""
PICTURE_MOVES = 1.0
"""The same for `picture_motion` in one frame (1.5 and 0.5)."""
AROUND_MOTION = 6
"""Frames before and after a moving one that count with it: lips may rest within a word."""
PATCH = 4
"""Pixels, each way, that are averaged before pictures are compared: grain is no motion."""


def sound_levels(audio: NDArray[np.float32]) -> NDArray[np.float64]:
    """Level (T,) of sound (640·T,) in the band of speech, in dB of full scale, frame by frame."""
    frames = audio.reshape(-1, SAMPLES_PER_FRAME) * np.hanning(SAMPLES_PER_FRAME)
    spectrum = np.fft.rfft(frames.astype(np.float64), axis=1)
    frequencies = np.fft.rfftfreq(SAMPLES_PER_FRAME, 1 / SAMPLE_RATE)
    band = (frequencies >= SPEECH_BAND[0]) & (frequencies <= SPEECH_BAND[1])
    power = 2 * np.square(np.abs(spectrum[:, band])).sum(1) / SAMPLES_PER_FRAME / np.square(np.hanning(640)).sum()
    levels: NDArray[np.float64] = 10 * np.log10(power + 1e-12)
    return levels


class SoundActivity:
    """Which frames of a recording rise above its noise, judged by the minute before them and by what came with them."""

    def __init__(self) -> None:
        self._levels = np.zeros(0)

    def __call__(self, levels: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether there is speech in each of the next frames, by their `levels` (T,)."""
        self._levels = np.concatenate([self._levels, levels])[-max(HISTORY, len(levels)) :]
        audible = self._levels[self._levels > QUIETEST]
        if not len(audible):
            return np.zeros(len(levels), bool)
        noise, speech = np.percentile(audible, (NOISE, SPEECH))
        threshold = noise + ABOVE_NOISE * (speech - noise) if speech - noise > STEADY else QUIETEST
        before = max(0, len(self._levels) - len(levels) - SHORTEST)  # a few frames with which the first may belong
        loud = _runs(self._levels[before:] > threshold, SHORTEST)
        return widen(loud[len(loud) - len(levels) :], AROUND)


def _runs(active: NDArray[np.bool_], shortest: int) -> NDArray[np.bool_]:
    """The frames of `active` (T,) that belong to at least so many in a row, or may do so beyond the end."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]])))
    runs = np.zeros_like(active)
    for start, end in edges.reshape(-1, 2):
        runs[start:end] = end - start >= shortest or end == len(active)
    return runs


def even(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Faint sound (640·T,) made as loud as speech usually is; what is loud enough stays as it is."""
    if not len(audio):
        return audio
    loudest = float(np.percentile(sound_levels(audio), SPEECH))
    if not QUIETEST < loudest < FAINT:
        return audio
    return (audio * 10 ** ((USUAL - loudest) / 20)).astype(np.float32)


def widen(active: NDArray[np.bool_], frames: int) -> NDArray[np.bool_]:
    """`active` (T,), and `frames` more before and after each active one."""
    if not len(active):
        return active
    wide: NDArray[np.bool_] = np.convolve(active, np.ones(2 * frames + 1))[frames:-frames] > 0.5
    return wide


def lip_motion(points: FacePoints, later: FacePoints) -> float:
    """How far the lips moved within the face, on average, in hundredths of the distance between the eyes."""
    placed = [_in_face(shape) for shape in (points, later)]
    return 100 * float(np.linalg.norm(placed[1] - placed[0], axis=1).mean())


def _in_face(points: FacePoints) -> NDArray[np.float64]:
    """The lips (20, 2) around their middle, turned and scaled so that the outer corners of the eyes are 1 apart."""
    z = points[:, 0].astype(np.float64) + 1j * points[:, 1]
    lips = (z[LIPS] - z[LIPS].mean()) / (z[3] - z[0])
    return np.stack([lips.real, lips.imag], axis=1)


def picture_motion(crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Mean change of a grey value of `crops` (T, 96, 96) from the frame before; the first is like the second."""
    rows, columns = (side // PATCH for side in crops.shape[1:])
    small = crops.reshape(len(crops), rows, PATCH, columns, PATCH).mean((2, 4))
    changes = np.abs(np.diff(small, axis=0)).mean((1, 2))
    return np.concatenate([changes[:1], changes])
