"""A long recording becomes parts, each as long as a clip may be: cut at pauses, or at given times.

A recording is read in order and each part is given as soon as it is known, so memory does not grow with its length.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seehear.data.clipfile import MouthClip
from seehear.data.faces import FaceDetector, FacePoints
from seehear.data.media import MediaInfo, Warn, iter_audio, iter_frames
from seehear.data.mouth import TrackReport
from seehear.listening.options import ListeningOptions
from seehear.listening.stream import Piece, Read, Skipped, segment
from seehear.listening.windows import GivenWindows, Window
from seehear.modality import FRAME_RATE, SAMPLE_RATE, Modality
from seehear.preparation.cues import MARGIN_FRAMES, Cue, LeftOut, place_cues

NOTICED_DIFFERENCE = 1.0
"""Seconds by which the sound may be longer or shorter than the picture without a warning."""
OUTSIDE = "it lies outside the recording"


class Part(NamedTuple):
    """A part of a recording."""

    start: float
    """In seconds from the start of the recording, as is `end`."""
    end: float
    clip: MouthClip
    report: TrackReport | None
    """Of the crop, without its warnings; None where there is no picture."""
    warnings: tuple[str, ...]
    """Of the crop."""
    cue: Cue | None
    """Which it is made of, where times are given."""


class Recording(NamedTuple):
    """A recording in one file or two."""

    media: MediaInfo
    modality: Modality
    """Of the streams that are wanted."""
    sound: MediaInfo | None = None
    """A file with its sound; second 0 of it is heard when the other file begins."""

    @property
    def seconds(self) -> float:
        """How long it is, in pictures or samples: the whole file is read for that."""
        if self.modality.uses_video:
            return sum(1 for _ in iter_frames(self.media.path)) / FRAME_RATE
        return _length(self.media)

    def sound_seconds(self, pictures: float) -> float:
        """How long the sound is that goes with so many seconds of `pictures`. It is read where its file states another
        duration than theirs; else that is believed."""
        heard = self.sound or self.media
        differs = abs(heard.duration - pictures) > NOTICED_DIFFERENCE
        return _length(heard) if self.modality is Modality.AUDIOVISUAL and differs else pictures


def _length(media: MediaInfo) -> float:
    """Seconds of sound, which is read."""
    return sum(len(chunk) for chunk in iter_audio(media.path, start=media.start)) / SAMPLE_RATE


class Cutter:
    """Cuts one recording. What is left out is known when all parts were taken."""

    def __init__(
        self,
        recording: Recording,
        options: ListeningOptions,
        detector: FaceDetector | None,
        cues: Sequence[Cue] | None = None,
    ) -> None:
        """`options` say how faces are found and how it is cut, unless there are `cues`."""
        self.recording, self.options = recording, options
        delay = round(recording.media.picture_delay * FRAME_RATE)
        self._detector = None if detector is None else _Delayed(detector, delay)
        placed, self.unused = ([], []) if cues is None else place_cues(cues, options.windows.longest)
        """Cues that are in no part."""
        self._cues = {window.speech_start: cue for cue, window in placed}
        self._windows = None if cues is None else GivenWindows([window for _, window in placed], beyond=MARGIN_FRAMES)
        self.skipped: list[LeftOut] = []
        """Parts in which no face can be followed, where there is a picture."""
        self.frames = 0
        """Length of the recording."""
        self.kept = 0
        """Frames that are in parts."""

    @property
    def between(self) -> float:
        """Seconds in no part and not in `skipped` either: silence, or what no cue covers."""
        return self.frames / FRAME_RATE - self.kept / FRAME_RATE - sum(gap.end - gap.start for gap in self.skipped)

    def parts(self, on_warning: Warn, on_frames: Callable[[int], None] = lambda frames: None) -> Iterator[Part]:
        """The parts in order; `on_frames` is told how many frames have been read.

        Raises `MediaError` if the recording cannot be read.
        """
        media, _, sound = self.recording
        covered = 0
        for event in segment(media, self.options, on_warning, self._detector, sound=sound, windows=self._windows):
            if isinstance(event, Piece):
                self.kept += event.window.end - max(event.window.start, covered)
                covered = event.window.end
                yield self._part(event)
            elif isinstance(event, Skipped):
                self.skipped.append(self._left_out(event, covered))
                covered = event.window.end
            elif isinstance(event, Read):
                self.frames = event.frames
                on_frames(event.frames)
        self.unused += [LeftOut(cue.start, cue.end, OUTSIDE, cue.text) for cue in self._cues.values()]

    def _part(self, piece: Piece) -> Part:
        start, end = piece.window.start / FRAME_RATE, piece.window.end / FRAME_RATE
        mouth = piece.mouths[0] if piece.mouths else None
        clip = MouthClip(None if mouth is None else mouth.frames, piece.audio)
        report = None if mouth is None else replace(mouth.report, warnings=())
        return Part(start, end, clip, report, () if mouth is None else mouth.notes, self._cue(piece.window))

    def _left_out(self, skipped: Skipped, covered: int) -> LeftOut:
        window, cue = skipped.window, self._cue(skipped.window)
        start, end = max(window.start, covered) / FRAME_RATE, window.end / FRAME_RATE
        return LeftOut(start, end, skipped.reason, None if cue is None else cue.text)

    def _cue(self, window: Window) -> Cue | None:
        """The cue of `window`, which is not asked for again."""
        return self._cues.pop(window.speech_start, None)


class _Delayed:
    """A detector whose frames are counted from the first picture, for a clock that begins with earlier sound."""

    def __init__(self, detector: FaceDetector, delay: int) -> None:
        self.every = detector.every
        self._detector, self._delay = detector, delay

    def detect(self, number: int, frame: NDArray[np.uint8]) -> list[FacePoints]:
        """See `FaceDetector`."""
        return self._detector.detect(max(0, number - self._delay), frame)
