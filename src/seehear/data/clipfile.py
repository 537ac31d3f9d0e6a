"""A prepared clip as one compact file that any player opens: mouth video and sound in an MP4, or one of the two.

Video is H.264 (CRF 19, full-range luma, neutral chroma, so that browsers play it); sound is FLAC of 16 bits: lossless,
no priming samples, no shift. A 3 s GRID clip takes about 70 kB (84 MB an hour), its grey values come back at 45 dB, and
it is read in about 7 ms on one core. AAC at 48 kbit/s would save a third of it and cost the exact sound.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from seehear.errors import MediaError
from seehear.modality import CROP_SIZE, FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME, Modality

CRF = 19
"""Quality of the video: constant rate factor of H.264, lower is better."""
X264_OPTIONS = "mbtree=0"
"""Without x264's macroblock tree: in so small a picture its vector code reads beyond its tables, so that the same clip
gives other bits now and then; and it would save on what moves, which is the lips."""
KEYFRAME_EVERY = 125
"""Frames between keyframes."""
FULL_RANGE = 2
"""FFmpeg's number for luma that uses 0…255."""
AUDIO_CHUNK = 4096
"""Samples of an audio frame handed to the encoder."""


@dataclass(frozen=True)
class MouthClip:
    """The mouth and the voice of one clip, on one clock; one of them may be missing."""

    video: NDArray[np.uint8] | None
    """(T, 96, 96) grey."""
    audio: NDArray[np.float32] | None
    """(640·T,) mono 16 kHz in [−1, 1]."""

    @property
    def frames(self) -> int:
        """Its length T in video frames, also where there is no video."""
        if self.video is not None:
            return len(self.video)
        return 0 if self.audio is None else len(self.audio) // SAMPLES_PER_FRAME

    @property
    def streams(self) -> Modality:
        """What it has: sound, picture or both."""
        return Modality.of(audio=self.audio is not None, video=self.video is not None)

    @property
    def nbytes(self) -> int:
        """Bytes of memory that its streams take."""
        return sum(stream.nbytes for stream in (self.video, self.audio) if stream is not None)

    def require_video(self) -> NDArray[np.uint8]:
        """The video, for what needs one."""
        assert self.video is not None, "this needs a clip with a picture"
        return self.video

    def require_audio(self) -> NDArray[np.float32]:
        """The sound, for what needs it."""
        assert self.audio is not None, "this needs a clip with sound"
        return self.audio

    def change(
        self,
        video: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
        audio: Callable[[NDArray[np.float32]], NDArray[np.float32]],
    ) -> "MouthClip":
        """The clip that these functions make of its streams; a stream that is missing stays so."""
        return MouthClip(
            video=None if self.video is None else video(self.video),
            audio=None if self.audio is None else audio(self.audio),
        )


def write_clip(path: Path, clip: MouthClip) -> None:
    """Write `clip` as MP4: under a temporary name first, renamed when complete.

    Raises `ValueError` if its shapes do not belong together.
    """
    shapes = [None if stream is None else stream.shape for stream in (clip.video, clip.audio)]
    expected = [(clip.frames, CROP_SIZE, CROP_SIZE), (clip.frames * SAMPLES_PER_FRAME,)]
    if not clip.frames or any(shape not in (None, right) for shape, right in zip(shapes, expected, strict=True)):
        raise ValueError(f"a clip has video (T, 96, 96), audio (640·T,) or both, not {shapes[0]}, {shapes[1]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    try:
        with av.open(str(temporary), "w", format="mp4", options={"movflags": "faststart"}) as container:
            _write_streams(container, clip)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_streams(container: Any, clip: MouthClip) -> None:
    """Encode what the clip has into an open container."""
    video: Any = _video_stream(container) if clip.video is not None else None
    audio: Any = container.add_stream("flac", rate=SAMPLE_RATE, layout="mono") if clip.audio is not None else None
    if clip.video is not None:
        for number, grey in enumerate(clip.video):
            frame = _grey_frame(grey)
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
    if clip.audio is not None:
        for samples in _sound_frames(clip.audio):
            container.mux(audio.encode(samples))
        container.mux(audio.encode(None))


def _video_stream(container: Any) -> Any:
    """A new stream of H.264 in an open container."""
    options = {"crf": str(CRF), "g": str(KEYFRAME_EVERY), "x264-params": X264_OPTIONS}
    video = container.add_stream("libx264", rate=FRAME_RATE, options=options)
    video.width = video.height = CROP_SIZE
    video.pix_fmt = "yuv420p"
    video.codec_context.color_range = FULL_RANGE
    video.codec_context.max_b_frames = 0  # decoded in the order of display
    return video


def _sound_frames(audio: NDArray[np.float32]) -> Iterator[av.AudioFrame]:
    """Sound as frames of 16-bit samples; what is over full scale is turned down, not clipped."""
    loudest = max(1.0, float(np.abs(audio).max()))
    samples = np.round(audio * (32767.0 / loudest)).astype(np.int16)
    for start in range(0, len(samples), AUDIO_CHUNK):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + AUDIO_CHUNK], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = start
        yield frame


def _grey_frame(grey: NDArray[np.uint8]) -> av.VideoFrame:
    """A yuv420p frame of full range whose luma is `grey` (96, 96)."""
    frame = av.VideoFrame(CROP_SIZE, CROP_SIZE, "yuv420p")
    luma = np.zeros((CROP_SIZE, frame.planes[0].line_size), dtype=np.uint8)
    luma[:, :CROP_SIZE] = grey
    frame.planes[0].update(luma.tobytes())
    for plane in frame.planes[1:]:
        plane.update(bytes([128]) * plane.buffer_size)
    frame.color_range = FULL_RANGE
    return frame


def read_clip(path: Path) -> MouthClip:
    """Read a prepared clip. Raises `MediaError` if it is missing, damaged or not such a clip."""
    frames: list[NDArray[np.uint8]] = []
    chunks: list[NDArray[np.int16]] = []
    try:
        with av.open(str(path), format="mp4", options={"protocol_whitelist": "file"}) as container:
            for packet in container.demux():
                for frame in packet.decode():
                    if isinstance(frame, av.VideoFrame):
                        plane = frame.planes[0]
                        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
                        frames.append(rows[: frame.height, : frame.width].copy())
                    elif isinstance(frame, av.AudioFrame):
                        chunks.append(frame.to_ndarray().reshape(-1).astype(np.int16))
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"{path} cannot be read as a prepared clip: {error}") from error
    if not (frames or chunks) or (frames and frames[0].shape != (CROP_SIZE, CROP_SIZE)):
        raise MediaError(f"{path} is no prepared clip: it needs a 96×96 video, sound, or both")
    video = np.stack(frames) if frames else None
    audio = np.concatenate(chunks).astype(np.float32) / np.float32(32767.0) if chunks else None
    clip = MouthClip(video, audio)
    if audio is not None and (not clip.frames or len(audio) != clip.frames * SAMPLES_PER_FRAME):
        raise MediaError(f"{path} is no prepared clip: {clip.frames} frames go with {len(audio)} samples")
    return clip
