"""Decoded sound of any format and rate to mono at 16 kHz."""

from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from seehear.modality import SAMPLE_RATE


class Resampler:
    """Mono samples of any rate to 16 kHz, in pieces; the rate may change on the way."""

    def __init__(self) -> None:
        self._resampler: Any = None
        self._rate = 0

    def __call__(self, samples: NDArray[np.float32], rate: int) -> list[NDArray[np.float32]]:
        """What can be given out after `samples` more."""
        chunks = self.flush() if rate != self._rate else []
        if self._resampler is None:
            self._resampler, self._rate = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE), rate
        if len(samples):
            frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
            frame.sample_rate = rate
            chunks += [out.to_ndarray()[0] for out in self._resampler.resample(frame)]
        return chunks

    def flush(self) -> list[NDArray[np.float32]]:
        """What is still inside."""
        if self._resampler is None:
            return []
        chunks = [out.to_ndarray()[0] for out in self._resampler.resample(None)]
        self._resampler = None
        return chunks


DTYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
"""NumPy's names of FFmpeg's formats of samples; planar ones end in p."""
LOUDEST = 100.0
"""Decoded samples beyond this many times full scale are damage and are cut to it."""


def mono(frame: Any) -> NDArray[np.float32]:
    """The mean of a frame's channels (S,): it cannot clip, and a silent channel costs loudness alone."""
    samples = _samples(frame)
    if samples.dtype.kind in "iu":
        zero, scale = (128.0, 128.0) if samples.dtype == np.uint8 else (0.0, float(np.iinfo(samples.dtype).max) + 1.0)
        samples = (samples.astype(np.float32) - np.float32(zero)) / np.float32(scale)
    samples = np.clip(np.nan_to_num(samples), -LOUDEST, LOUDEST)
    average: NDArray[np.float32] = samples.mean(axis=0, dtype=np.float32)
    return average


def _samples(frame: Any) -> NDArray[Any]:
    """(C, S). Not by PyAV's `to_ndarray`, which reads memory that is not the frame's from eight planes on."""
    dtype = DTYPES.get(frame.format.name.removesuffix("p"))
    if dtype is None:
        raise ValueError(f"samples of format {frame.format.name}")
    channels = frame.layout.nb_channels
    if frame.format.is_planar:
        return np.stack([np.frombuffer(plane, dtype, frame.samples) for plane in frame.planes[:channels]])
    return np.frombuffer(frame.planes[0], dtype, frame.samples * channels).reshape(-1, channels).T
