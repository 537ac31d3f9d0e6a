"""Any media file to frames at 25 a second and mono sound at 16 kHz, both placed by their timestamps on one clock.

The clock starts at the first video frame (at the first sample where there is no video), or where the caller says.
Frame k of the result is the frame of the file nearest to k/25 s; sound that starts late, early or with gaps is padded,
cut and filled. Timestamps that begin anew, as in files that were put one behind the other, go on from where they were.

Files are opened as local regular files and by a list of formats: no playlist, script or address inside a file is
followed. What is too large to be real is refused while decoding, before it fills the memory.
"""

import math
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.format import Flags
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from seehear.data.samples import Resampler, mono
from seehear.data.timestamps import NOTICED_GAP, Restarts, timed
from seehear.errors import MediaError
from seehear.modality import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME

MAX_PIXELS = 8192 * 4320
"""Largest picture."""
MAX_SECONDS = 12 * 3600.0
"""Longest recording."""
MAX_SAMPLE_RATE = 384_000
MAX_CHANNELS = 64
MAX_GAP = 60.0
"""Longest hole in the timestamps that is filled, in seconds; beyond, the file counts as damaged."""
MAX_DELAY = 600.0
"""Longest time by which the picture may begin after the sound, in seconds."""
AUDIO_JITTER = 0.04
"""Timestamps of sound may be off by this much before it is taken for a hole or an overlap, in seconds."""
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,wav,w64,flac,mp3,aac,ac3,eac3,aiff,au,caf"
    ",amr,nistsphere,dv,gif,h264,hevc,m4v,ivf,mxf,rm,wv,ape,nut,tta,dts,swf,ea,obu,av1,vc1"
)
"""Containers that are opened: those that hold the media themselves."""

Warn = Callable[[str], None]


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds."""

    path: Path
    duration: float
    """Seconds, as the file states it; 0 where it does not."""
    has_video: bool
    """Moving pictures; cover art does not count."""
    has_audio: bool
    width: int
    """Of the upright picture, with square pixels; 0 without video."""
    height: int
    frame_rate: float | None
    """Average, as the file states it; nothing relies on it."""
    sample_rate: int | None
    channels: int | None
    start: float
    """When the earlier of picture and sound begins, in seconds of the file's timestamps: where players start; less than
    a frame earlier where the picture begins later."""
    picture_delay: float
    """Seconds from then until the first picture, in whole frames."""


def probe(path: Path) -> MediaInfo:
    """Look into a file. Raises `MediaError` if it is no readable media file."""
    heard_from = _start(path, _audio_stream)
    with _open(path) as container:
        video, audio = _video_stream(container), _audio_stream(container)
        width = height = 0
        seen_from = None
        if video is not None:
            frame = next(_decoded(container, video, path, None), None)
            if frame is None:
                video = None
            else:
                height, width = _upright(frame, video, path, VideoReformatter()).shape[:2]
                seen_from = _seconds(frame) or 0.0
        if video is None and audio is None:
            raise MediaError(f"{path}: no video and no sound can be read from it")
        delay = (
            0 if seen_from is None or heard_from is None else math.ceil((seen_from - heard_from) * FRAME_RATE - 0.01)
        )
        picture_delay = max(0, delay) / FRAME_RATE  # whole frames: each picture stays the nearest to its time
        start = (heard_from or 0.0) if seen_from is None else seen_from - picture_delay
        return MediaInfo(
            path=Path(path),
            duration=container.duration / 1_000_000 if container.duration else 0.0,
            has_video=video is not None,
            has_audio=audio is not None,
            width=width,
            height=height,
            frame_rate=float(video.average_rate) if video is not None and video.average_rate else None,
            sample_rate=audio.codec_context.sample_rate if audio is not None else None,
            channels=audio.codec_context.channels if audio is not None else None,
            start=start,
            picture_delay=picture_delay,
        )


@dataclass(frozen=True)
class Header:
    """What a file announces, before anything is decoded."""

    has_video: bool
    """A track of moving pictures; cover art does not count."""
    has_audio: bool
    size: tuple[int, int]
    """Width and height of the pictures as they are stored; (0, 0) where the file does not state them."""
    duration: float = 0.0
    """Seconds; 0 where the file does not state them."""


def read_header(path: Path) -> Header:
    """Which tracks a file announces; whether they can be decoded shows when they are. Raises `MediaError` if it cannot
    be opened."""
    with _open(path) as container:
        pictures = [track for track in container.streams.video if not track.disposition & Disposition.attached_pic]
        context = pictures[0].codec_context if pictures else None
        size = (context.width, context.height) if context is not None else (0, 0)
        seconds = container.duration / 1_000_000 if container.duration else 0.0
        return Header(bool(pictures), bool(container.streams.audio), size, seconds)


def iter_frames(
    path: Path, *, start: float | None = None, on_warning: Warn | None = None
) -> Iterator[NDArray[np.uint8]]:
    """The frames of a video at 25 a second: (H, W, 3) RGB, upright, contiguous; one at a time.

    They begin at `start`, in seconds of the file's timestamps; by default at the first one, which is shown until it is
    due. Holes in the timestamps are filled with the frame before them. Raises `MediaError` if there is no video.
    """
    with _open(path) as container:
        stream = _video_stream(container)
        if stream is None:
            raise MediaError(f"{path}: no video track")
        number = 0
        reformatter = VideoReformatter()
        shown: tuple[float, Any] | None = None
        interval = 1.0 / FRAME_RATE
        step = min(1.0 / float(stream.average_rate), NOTICED_GAP) if stream.average_rate else interval
        for stamp, frame in _timed(container, stream, lambda _: step, path, "picture", on_warning):
            start = stamp if start is None else start
            time = stamp - start
            if shown is None:
                _check_delay(path, time, on_warning)
                shown = (0.0, frame) if time > 0 else (time, frame)
            if time > shown[0]:
                gap = time - shown[0]
                if shown[1] is not frame:
                    _note_gap(path, "picture", shown[0], gap, on_warning)
                    interval = gap if gap < NOTICED_GAP else interval
                picture = None
                while number / FRAME_RATE <= (shown[0] + time) / 2:
                    picture = _upright(shown[1], stream, path, reformatter) if picture is None else picture
                    yield picture
                    number += 1
                _check_length(path, time)
                shown = (time, frame)
        if shown is None or start is None:
            raise MediaError(f"{path}: no frame of the video can be decoded")
        _note_early_end(container, path, "picture", shown[0] + start, on_warning)
        picture = _upright(shown[1], stream, path, reformatter)
        yield picture
        number += 1
        while (number + 0.5) / FRAME_RATE < shown[0] + interval:
            yield picture
            number += 1


def iter_audio(
    path: Path, *, start: float | None = None, on_warning: Warn | None = None
) -> Iterator[NDArray[np.float32]]:
    """The sound, mono at 16 kHz, in pieces of any length.

    The first sample sounds at `start`, in seconds of the file's timestamps; by default as the first video frame is
    shown. Raises `MediaError` if there is no sound.
    """
    with _open(path) as container:
        if _audio_stream(container) is None:
            undecodable = " that can be decoded" if container.streams.audio else ""
            raise MediaError(f"{path}: no audio track{undecodable}")
    start = _start(path, _video_stream) if start is None else start
    with _open(path) as container:
        yield from _placed_sound(container, path, start, on_warning)


def read_audio(
    path: Path, *, start: float | None = None, num_frames: int | None = None, on_warning: Warn | None = None
) -> NDArray[np.float32]:
    """The sound of `iter_audio` in one piece (S,), from `start` on as there.

    With `num_frames` it is cut or padded with silence to 640 samples for each of so many video frames.
    """
    wanted = None if num_frames is None else num_frames * SAMPLES_PER_FRAME
    chunks, length = [np.zeros(0, np.float32)], 0
    for chunk in iter_audio(path, start=start, on_warning=on_warning):
        if wanted is None or length < wanted:  # the rest is read for what there is to warn of
            chunks.append(chunk)
            length += len(chunk)
    audio = np.concatenate(chunks)
    return audio if wanted is None else np.pad(audio[:wanted], (0, max(0, wanted - length)))


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """An open container; every failure to read it is a `MediaError`."""
    path = Path(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise MediaError(f"{path}: no such file") from error
    if not stat.S_ISREG(status.st_mode):
        raise MediaError(f"{path}: not a file")
    if status.st_size == 0:
        raise MediaError(f"{path}: the file is empty")
    try:
        with path.open("rb") as file:
            container = av.open(file, options={"format_whitelist": FORMATS, "protocol_whitelist": "none"})
            with container:
                yield container
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, MediaError):
            raise
        raise MediaError(f"{path}: not a media file that can be read ({_reason(error)})") from error


def _reason(error: Exception) -> str:
    """What FFmpeg says, without numbers and file names."""
    return str(getattr(error, "strerror", None) or error).strip().rstrip(".").lower()


def _video_stream(container: Any) -> Any | None:
    """The first stream of moving pictures; cover art is none."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
            size = stream.codec_context.width * stream.codec_context.height
            if size > MAX_PIXELS:
                raise MediaError(f"{container.name}: pictures of {size / 1e6:.0f} megapixels are refused")
            return stream
    return None


def _audio_stream(container: Any) -> Any | None:
    """The first stream of sound that can be decoded."""
    for stream in container.streams.audio:
        context = stream.codec_context
        if context is not None and 0 < context.sample_rate <= MAX_SAMPLE_RATE and context.channels <= MAX_CHANNELS:
            return stream
    return None


def _decoded(
    container: Any, stream: Any, path: Path, on_warning: Warn | None, restarts: Restarts | None = None
) -> Iterator[Any]:
    """Frames of a stream in the order of display; damaged packets are passed over with a warning. `restarts` is shown
    the packets of sound and picture, in formats whose timestamps may begin anew."""
    stream.thread_type = "AUTO"
    damaged = 0
    shown = [stream]
    if restarts is not None and Flags(container.format.flags) & Flags.ts_discont:
        shown = [other for other in (_video_stream(container), _audio_stream(container)) if other is not None]
    try:
        for packet in container.demux(shown):
            if restarts is not None and packet.dts is not None:
                seconds = float(packet.dts * packet.time_base), float((packet.duration or 0) * packet.time_base)
                restarts.see(packet.stream.index, *seconds)
            if packet.stream.index != stream.index:
                continue
            try:
                yield from packet.decode()
            except av.FFmpegError:
                damaged += 1
    except av.FFmpegError as error:  # the container breaks off: what came before it counts
        _warn(on_warning, f"{path}: breaks off ({_reason(error)})")
    except IndexError:  # PyAV, when all is read, if a stream turned up on the way that the header did not announce
        pass
    if damaged:
        _warn(on_warning, f"{path}: {damaged} damaged packets were left out")


def _timed(
    container: Any, stream: Any, length: Callable[[Any], float], path: Path, what: str, on_warning: Warn | None
) -> Iterator[tuple[float, Any]]:
    """(seconds of the file's clock, frame) of a stream, see `timed`."""
    restarts = Restarts()
    frames = _decoded(container, stream, path, on_warning, restarts)

    def shift() -> float:
        return restarts.shift(stream.index) if Flags(container.format.flags) & Flags.ts_discont else 0.0

    def note(text: str) -> None:
        _warn(on_warning, f"{path}: the timestamps of the {what} {text}")

    return timed(frames, _seconds, length, shift, note)


def _upright(frame: Any, stream: Any, path: Path, reformatter: VideoReformatter) -> NDArray[np.uint8]:
    """RGB (H, W, 3), rotated as the file asks, with square pixels.

    One `reformatter` for all frames of a file: setting it up takes longer than the conversion of a small picture.
    """
    if frame.width * frame.height > MAX_PIXELS:
        raise MediaError(f"{path}: pictures of {frame.width}×{frame.height} are refused")
    ratio = stream.sample_aspect_ratio
    width = round(frame.width * float(ratio)) if ratio else frame.width
    if not 0 < width * frame.height <= MAX_PIXELS:
        width = frame.width
    picture = reformatter.reformat(frame, width, frame.height, "rgb24").to_ndarray()
    quarter_turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, quarter_turns))


def _start(path: Path, find: Callable[[Any], Any | None]) -> float | None:
    """The timestamp in seconds of the first frame of the stream that is found; None without one."""
    with _open(path) as container:
        stream = find(container)
        frame = next(_decoded(container, stream, path, None), None) if stream is not None else None
        return _seconds(frame) if frame is not None else None


def _placed_sound(
    container: Any, path: Path, start: float | None, on_warning: Warn | None
) -> Iterator[NDArray[np.float32]]:
    """Mono 16 kHz samples on a clock that starts at `start`; holes are silent, overlaps are cut."""
    stream = _audio_stream(container)
    resampler = Resampler()
    position = 0.0  # seconds since the first sample
    first: float | None = None
    early = given = 0  # samples at 16 kHz: before `start`, and given out or cut since the first
    for time, frame in _timed(container, stream, _duration, path, "sound", on_warning):
        samples, rate = mono(frame), frame.sample_rate
        if not 0 < rate <= MAX_SAMPLE_RATE:
            raise MediaError(f"{path}: sound of {rate} samples a second is refused")
        if first is None:
            first = time
            offset = round((first - start) * SAMPLE_RATE) if start is not None else 0
            _note_gap(path, "sound", 0.0, offset / SAMPLE_RATE, None)
            if offset > 0:
                yield np.zeros(offset, np.float32)
            early = max(0, -offset)
            if early > NOTICED_GAP * SAMPLE_RATE:
                seconds = early / SAMPLE_RATE
                _warn(on_warning, f"{path}: {seconds:.1f} s of sound before the first picture are left out")
        late = time - first - position
        if late > AUDIO_JITTER:
            _note_gap(path, "sound", position, late, on_warning)
            samples = np.concatenate([np.zeros(round(late * rate), np.float32), samples])
        elif late < -AUDIO_JITTER:
            samples = samples[min(len(samples), round(-late * rate)) :]
        position += len(samples) / rate
        _check_length(path, position)
        for chunk in resampler(samples, rate):
            yield chunk[max(0, early - given) :]
            given += len(chunk)
    if first is None:
        raise MediaError(f"{path}: no sound can be decoded")
    for chunk in resampler.flush():
        chunk = chunk[: max(0, round(position * SAMPLE_RATE) - given)]
        yield chunk[max(0, early - given) :]
        given += len(chunk)
    _note_early_end(container, path, "sound", position + first, on_warning)


def _seconds(frame: Any) -> float | None:
    """The timestamp of a frame."""
    return float(frame.pts * frame.time_base) if frame.pts is not None and frame.time_base else None


def _duration(sound: Any) -> float:
    """Seconds of a frame of sound."""
    return float(sound.samples / sound.sample_rate) if sound.sample_rate else 0.0


def _check_delay(path: Path, delay: float, on_warning: Warn | None) -> None:
    """Warn of a picture that begins late; refuse one so late that the clocks have nothing to do with each other."""
    if delay > MAX_DELAY:
        raise MediaError(f"{path}: the picture begins {delay:.0f} s after the sound; the file is damaged")
    if delay > NOTICED_GAP:
        _warn(on_warning, f"{path}: the picture begins at {delay:.1f} s")


def _note_gap(path: Path, what: str, at: float, gap: float, on_warning: Warn | None) -> None:
    """Warn of a hole in the timestamps; refuse one that is too long to be filled."""
    if gap > MAX_GAP:
        raise MediaError(f"{path}: a hole of {gap:.0f} s in the {what} at {at:.1f} s; the file is damaged")
    if gap > NOTICED_GAP:
        _warn(on_warning, f"{path}: a hole of {gap:.1f} s in the {what} at {at:.1f} s was filled")


def _note_early_end(container: Any, path: Path, what: str, at: float, on_warning: Warn | None) -> None:
    """Warn if a stream stops, `at` a timestamp in seconds, well before the file's stated end: it is short, or the rest
    is damaged."""
    stated = (container.duration or 0) / 1_000_000
    at -= (container.start_time or 0) / 1_000_000
    if stated - at > NOTICED_GAP:
        _warn(on_warning, f"{path}: the {what} ends at {at:.1f} s of the stated {stated:.1f} s")


def _check_length(path: Path, seconds: float) -> None:
    if seconds > MAX_SECONDS:
        raise MediaError(f"{path}: longer than {MAX_SECONDS / 3600:.0f} hours")


def _warn(on_warning: Warn | None, message: str) -> None:
    if on_warning is not None:
        on_warning(message)
