"""A small whole media file of each of many kinds, always the same bytes: what `mutations.py` damages."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


@dataclass(frozen=True)
class Kind:
    """What a file is and holds."""

    suffix: str
    video: str | None
    audio: str | None
    layout: str = "stereo"
    seconds: float = 1.2
    """Length of the sound."""


KINDS = {
    "mp4": Kind("mp4", "libx264", "aac"),
    "m4a 7.1": Kind("m4a", None, "aac", "7.1", seconds=0.5),
    "webm vp8": Kind("webm", "libvpx", "libopus"),
    "webm vp9": Kind("webm", "libvpx-vp9", "libopus"),
    "mkv": Kind("mkv", "libx264", "flac"),
    "avi": Kind("avi", "mpeg4", "libmp3lame"),
    "ts": Kind("ts", "mpeg2video", "ac3"),
    "wmv": Kind("wmv", "wmv2", "libmp3lame"),
    "flv": Kind("flv", "libx264", "aac"),
    "wav": Kind("wav", None, "pcm_s16le", seconds=0.3),
    "wav float": Kind("wav", None, "pcm_f32le", seconds=0.15),
    "flac": Kind("flac", None, "flac"),
    "ogg": Kind("ogg", None, "libopus"),
}
"""By the name in the table."""


def make_seeds(folder: Path) -> dict[str, bytes]:
    """The content of a file of each kind, made in `folder`: a moving pattern and tones."""
    return {name: _make_seed(folder / f"{name}.{kind.suffix}", kind) for name, kind in KINDS.items()}


def _make_seed(path: Path, kind: Kind) -> bytes:
    """One thread and no random identifiers, so that nothing changes from run to run."""
    options = {"fflags": "+bitexact"} | ({"movflags": "+faststart"} if kind.suffix == "mp4" else {})
    with av.open(str(path), "w", container_options=options) as file:
        video = file.add_stream(kind.video, rate=25) if kind.video else None
        audio = file.add_stream(kind.audio, rate=48_000, layout=kind.layout) if kind.audio else None
        for stream in (video, audio):
            if stream is not None:
                stream.codec_context.thread_count = 1
        if isinstance(video, av.VideoStream):
            _write_pattern(file, video)
        if isinstance(audio, av.AudioStream):
            _write_tones(file, audio, kind)
    return path.read_bytes()


def _write_pattern(file: av.container.OutputContainer, video: av.VideoStream) -> None:
    """Thirty frames in which every block moves."""
    video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
    video.codec_context.gop_size = 10
    if video.codec_context.name == "libx264":  # its choice of quantisers by rate would vary from run to run
        video.codec_context.options = {"x264-params": "mbtree=0"}
    rows, columns = np.mgrid[:48, :64]
    for number in range(30):
        plane = (128 + 100 * np.sin((rows + 3 * columns) / 9 + number / 3)).astype(np.uint8)
        picture = np.stack([plane, np.roll(plane, number, 1), plane.T.reshape(48, 64)], axis=-1)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = number, Fraction(1, 25)
        file.mux(video.encode(frame))
    file.mux(video.encode(None))


def _write_tones(file: av.container.OutputContainer, audio: av.AudioStream, kind: Kind) -> None:
    """A tone on each channel, the higher the later the channel comes."""
    context = audio.codec_context
    pitches = 200 * 1.6 ** np.arange(len(av.AudioLayout(kind.layout).channels))
    seconds = np.arange(round(kind.seconds * 48_000)) / 48_000
    tones = (np.sin(2 * np.pi * seconds[:, None] * pitches) / 2).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(tones.reshape(1, -1), format="flt", layout=kind.layout)
    frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
    pieces = av.AudioResampler(context.format, kind.layout, 48_000, frame_size=context.frame_size or 960)
    for piece in [*pieces.resample(frame), *pieces.resample(None)]:
        file.mux(audio.encode(piece))
    file.mux(audio.encode(None))
