"""What a model saw and heard of a recording, as a video to look at, with what it made of it below the picture."""

from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from textwrap import wrap
from typing import Any

import av
import numpy as np
from matplotlib import get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from seehear.errors import MediaError
from seehear.listening.stream import Piece
from seehear.modality import CROP_SIZE, FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME
from seehear.transcribing.batches import Heard, Input

ENLARGED = 4
"""Pixels of the video per pixel of the crop, each way."""
SIDE = ENLARGED * CROP_SIZE
LINES, COLUMNS, LINE = 4, 36, 24
"""Lines of text below the picture, characters in them, and their height in pixels."""
CHUNK = 16_000
"""Samples that are encoded at once."""


class CropsVideo:
    """The windows of one face, one after the other, at the times they have in the recording.

    It has its name when it is closed, until then a temporary one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._temporary = path.with_name(path.name + ".tmp")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container: Any = av.open(str(self._temporary), "w", format="mp4", options={"movflags": "faststart"})
        self._video = self._container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "22"})
        self._video.width, self._video.height, self._video.pix_fmt = SIDE, SIDE + LINES * LINE, "yuv420p"
        self._sound = self._container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        self._font = ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), LINE * 2 // 3)
        self._frames = 0  # written so far, gaps counted

    def add(self, piece: Piece, given: Input, heard: Heard) -> None:
        """A window; what overlaps with the one before is left out."""
        if given.video is None or piece.window.end <= self._frames:
            return
        start = max(piece.window.start, self._frames)
        caption = self._caption(piece, given, heard)
        silence = np.zeros((start - self._frames) * SAMPLES_PER_FRAME, np.float32)
        audio = given.audio if given.audio is not None else np.zeros(given.frames * SAMPLES_PER_FRAME, np.float32)
        skipped = start - piece.window.start
        self._write_sound(np.concatenate([silence, audio[skipped * SAMPLES_PER_FRAME :]]))
        for number, crop in enumerate(given.video[skipped:], start=start):
            enlarged = crop.repeat(ENLARGED, 0).repeat(ENLARGED, 1)
            frame = av.VideoFrame.from_ndarray(np.vstack([enlarged, caption]), format="gray")
            frame.pts, frame.time_base = number, Fraction(1, FRAME_RATE)
            self._container.mux(self._video.encode(frame))
        self._frames = max(self._frames, piece.window.end)

    def _caption(self, piece: Piece, given: Input, heard: Heard) -> NDArray[np.uint8]:
        """When, from what, and the text: white on black."""
        start, end = (frame / FRAME_RATE for frame in (piece.window.start, piece.window.end))
        lines = wrap(heard.text, COLUMNS, max_lines=LINES - 1) or ["(nothing)"]
        picture = Image.new("L", (SIDE, LINES * LINE))
        draw = ImageDraw.Draw(picture)
        for row, line in enumerate([f"{start:.1f}–{end:.1f} s, {given.modality.value.upper()}", *lines]):
            draw.text((6, row * LINE + 3), line, fill=150 if row == 0 else 255, font=self._font)
        return np.asarray(picture)

    def _write_sound(self, samples: NDArray[np.float32]) -> None:
        """Samples that follow those written before."""
        first = self._frames * SAMPLES_PER_FRAME
        for start in range(0, len(samples), CHUNK):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + CHUNK], format="fltp", layout="mono")
            frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), first + start
            self._container.mux(self._sound.encode(frame))

    def close(self) -> None:
        """Write what is left, and the file's end."""
        for stream in (self._video, self._sound):
            self._container.mux(stream.encode(None))
        self._container.close()
        self._temporary.replace(self.path)

    def discard(self) -> None:
        """Leave nothing."""
        with suppress(OSError):
            self._container.close()
        self._temporary.unlink(missing_ok=True)


class CropsVideos:
    """NAME-crops.mp4 for each of many recordings, or with `by_face` NAME-faceN-crops.mp4 for each face in them.

    What cannot be written of a recording is said when it is closed, and costs nothing else.
    """

    def __init__(self, folder: Path, names: Mapping[Path, str], *, by_face: bool = False) -> None:
        self._folder, self._names, self._by_face = folder, names, by_face
        self._inputs = {path.resolve() for path in names}
        self._open: dict[tuple[Path, str], CropsVideo] = {}
        self._failed: dict[Path, Exception] = {}

    def __enter__(self) -> "CropsVideos":
        return self

    def __exit__(self, *_: object) -> None:
        for video in self._open.values():  # what was not closed is not whole
            video.discard()

    def add(self, recording: Path, piece: Piece, face: int | None, given: Input, heard: Heard) -> None:
        """A window of a recording; it is nothing to look at without a face."""
        if face is None or recording in self._failed:
            return
        suffix = f"-face{face}-crops.mp4" if self._by_face else "-crops.mp4"
        try:
            if (recording, suffix) not in self._open:
                self._open[recording, suffix] = self._new(self._folder / f"{self._names[recording]}{suffix}")
            self._open[recording, suffix].add(piece, given, heard)
        except (OSError, av.FFmpegError, MediaError) as error:
            self._failed[recording] = error

    def _new(self, path: Path) -> CropsVideo:
        if path.resolve() in self._inputs:
            raise MediaError(f"{path} is to be transcribed itself: its crops are not written over it")
        if path.is_dir():
            raise MediaError(f"{path} is a folder: crops cannot be written there")
        return CropsVideo(path)

    def close(self, recording: Path) -> None:
        """Complete the videos of a recording. Raises `MediaError` if they could not be written."""
        for key in [key for key in self._open if key[0] == recording]:
            video = self._open.pop(key)
            try:
                if recording not in self._failed:
                    video.close()
            except (OSError, av.FFmpegError) as error:
                self._failed[recording] = error
            finally:
                video.discard()
        if (reason := self._failed.pop(recording, None)) is not None:
            raise MediaError(f"{recording}: its crops cannot be written: {reason}")
