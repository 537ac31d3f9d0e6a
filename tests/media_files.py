"""Media files made for tests: a white flash and a beep at the same instant of the file's own clock."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

FLASH_START, FLASH_END = 1.0, 1.4
"""When the picture is white and the beep sounds, in seconds of the timeline."""


def make_media(
    path: Path,
    *,
    duration: float = 2.4,
    times: NDArray[np.float64] | None = None,
    fps: float = 25.0,
    size: tuple[int, int] = (64, 48),
    pix_fmt: str = "yuv420p",
    video_codec: str | None = "libx264",
    audio_codec: str | None = "pcm_s16le",
    rate: int = 16_000,
    layout: str = "mono",
    loud_channels: tuple[int, ...] | None = None,
    audio_start: float = 0.0,
    audio_end: float | None = None,
    holes: tuple[tuple[float, float], ...] = (),
    nominal_fps: int = 25,
    stripe: bool = False,
) -> Path:
    """Write a file with frames shown at `times` (or `fps` a second) and sound from `audio_start` to `audio_end`.

    `holes` are stretches that neither stream covers; `nominal_fps` is what the header claims. With a
    `stripe` a frame is not of one grey.
    """
    if times is None:
        times = np.arange(round(duration * fps)) / fps
    times = np.array([time for time in times if not any(start <= time < end for start, end in holes)])
    with av.open(str(path), "w") as container:
        clock = Fraction(1, 90_000)
        video = container.add_stream(video_codec, rate=nominal_fps) if video_codec else None
        audio = container.add_stream(audio_codec, rate=rate, layout=layout) if audio_codec else None
        if video is not None:
            video.width, video.height, video.pix_fmt = *size, pix_fmt
            video.codec_context.time_base = clock
            video.codec_context.options = {"bf": "0"} if video_codec == "libx264" else {}
            for time in times:
                grey = 235 if FLASH_START - 1e-6 <= time < FLASH_END - 1e-6 else 20
                picture = np.full((size[1], size[0], 3), grey, np.uint8)
                if stripe:
                    picture[:, : size[0] // 8] = 255 - grey
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
                frame.pts, frame.time_base = round(time * 90_000), clock
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if audio is not None:
            _write_sound(container, audio, rate, layout, loud_channels, audio_start, audio_end or duration, holes)
    return path


def _write_sound(container, audio, rate, layout, loud_channels, start, end, holes) -> None:  # type: ignore[no-untyped-def]
    """A 1 kHz beep during the flash, silence else."""
    format = audio.codec_context.format
    channels = len(av.AudioLayout(layout).channels)
    chunk = audio.codec_context.frame_size or 480
    for first in range(round(start * rate), round(end * rate), chunk):
        index = np.arange(first, min(first + chunk, round(end * rate)))
        if any(begin <= index[0] / rate < stop for begin, stop in holes):
            continue
        beep = (
            0.5 * np.sin(2 * np.pi * 1000 * index / rate) * ((index >= FLASH_START * rate) & (index < FLASH_END * rate))
        )
        samples = np.zeros((channels, len(index)), np.float32)
        for channel in loud_channels if loud_channels is not None else range(channels):
            samples[channel] = beep
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), first
        for converted in av.AudioResampler(format=format, layout=layout, rate=rate).resample(frame):
            converted.pts, converted.time_base = first, Fraction(1, rate)
            container.mux(audio.encode(converted))
    container.mux(audio.encode(None))


def flash_seconds(frames: list[NDArray[np.uint8]]) -> tuple[float, float]:
    """When the flash starts and ends in frames at 25 a second."""
    white = np.flatnonzero([frame.mean() > 128 for frame in frames])
    return white[0] / 25, (white[-1] + 1) / 25


def beep_seconds(audio: NDArray[np.float32], threshold: float = 0.05) -> tuple[float, float]:
    """When the beep starts and ends in sound at 16 kHz."""
    loud = np.flatnonzero(np.abs(audio) > threshold)
    return loud[0] / 16_000, (loud[-1] + 1) / 16_000


def rotate_header(path: Path, quarter_turns: int) -> None:
    """Set the display matrix of the first video track of an MP4: so many quarter turns clockwise."""
    content = bytearray(path.read_bytes())
    matrices = {
        1: (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000),
        2: (-0x10000, 0, 0, 0, -0x10000, 0, 0, 0, 0x40000000),
        3: (0, -0x10000, 0, 0x10000, 0, 0, 0, 0, 0x40000000),
    }
    header = content.index(b"tkhd")
    struct.pack_into(">9i", content, header + 4 + 40, *matrices[quarter_turns])
    path.write_bytes(content)


def write_video(path: Path, frames: Sequence[NDArray[np.uint8]]) -> Path:
    """An H.264 video of (H, W, 3) RGB frames at 25 a second, visually lossless."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "8", "preset": "ultrafast"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def add_sound(video: Path, path: Path, sound: NDArray[np.float32]) -> Path:
    """The same video with sound at 16 kHz."""
    with av.open(str(video)) as source, av.open(str(path), "w") as container:
        copied = container.add_stream_from_template(source.streams.video[0])
        voice = container.add_stream("pcm_s16le" if path.suffix == ".mkv" else "flac", rate=16_000, layout="mono")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = copied
                container.mux(packet)
        samples = np.round(np.clip(sound, -1, 1) * 32767).astype(np.int16)
        for start in range(0, len(samples), 4096):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + 4096], format="s16", layout="mono")
            frame.sample_rate, frame.pts = 16_000, start
            container.mux(voice.encode(frame))
        container.mux(voice.encode(None))
    return path
