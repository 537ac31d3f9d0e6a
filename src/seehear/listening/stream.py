"""A recording as a stream of pieces: what a model is to hear and see of each window, and why.

sound ─► levels ──┐                        ┌─► which streams are there? ─► Piece
video ─► faces ───┴─► active? ─► windows ──┴─► crops of the mouths
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seehear.data.faces import FaceDetector, MediaPipeDetector
from seehear.data.media import MediaInfo, Warn, iter_audio, probe
from seehear.errors import FaceError, MediaError
from seehear.listening.activity import SoundActivity, even, sound_levels, widen
from seehear.listening.lips import FollowedFaces, Lips, Mouth, ReadyCrops
from seehear.listening.options import ListeningOptions
from seehear.listening.windows import Window, Windower, Windows
from seehear.modality import CROP_SIZE, FRAME_RATE, SAMPLES_PER_FRAME, Modality

BLOCK = 10 * FRAME_RATE
"""Frames that are read at once."""
SOUND_AFTER_VIDEO = FRAME_RATE
"""Frames of sound after the last picture that are cut off; if there are more, they are heard."""
NEAR = FRAME_RATE
"""Frames around sound in which moving lips are taken for the same speech, and make no window longer."""
TIGHT = 5
"""Frames around speech in which a face must be seen at least."""
TOO_LONG_AS_A_WHOLE = 600.0
"""Seconds that a recording taken in one piece may last: attention takes memory by the square of its length."""


class Piece(NamedTuple):
    """A window, and what there is of it."""

    window: Window
    modality: Modality
    reason: str
    """Why this modality."""
    audio: NDArray[np.float32] | None
    """(640·T,) sound; `listen` makes it louder where it is faint."""
    mouths: tuple[Mouth, ...] = ()
    moving: bool = False
    """Whether lips move in it."""


class Opened(NamedTuple):
    """What a recording is said to hold; the first that is given."""

    duration: float
    """Seconds, as the file states it; 0 where it does not."""
    modality: Modality
    """Of the streams that are listened to."""
    reason: str


class Read(NamedTuple):
    """How far a recording has been read."""

    frames: int


class Skipped(NamedTuple):
    """A window that cannot be used, because lips are asked for."""

    window: Window
    reason: str


Event = Opened | Piece | Read


def listen(
    path: Path, options: ListeningOptions, on_warning: Warn, detector: FaceDetector | None = None
) -> Iterator[Event]:
    """The pieces of a recording in which there may be speech, in order; before them `Opened`, between and after `Read`.

    `detector` is used in place of the one that the options name. Raises `MediaError` if the file cannot be read or
    lacks what is asked for, `FaceError` if lips are asked for, or there is nothing else, and no face can be followed
    in any window.
    """
    info = probe(path)
    check_streams(info, options.modality)
    if options.windows.whole:
        check_length(path, info.duration)
    listener = _Listener(info, options, on_warning, detector, info, Windower(options.windows))
    for event in listener.events():
        if isinstance(event, Skipped):
            first, last = event.window.start / FRAME_RATE, event.window.end / FRAME_RATE
            on_warning(f"nothing is read from {first:.1f} to {last:.1f} s: {event.reason}")
        elif isinstance(event, Piece):
            yield event._replace(audio=None if event.audio is None else even(event.audio))
        else:
            yield event
    listener.conclude()


def segment(
    info: MediaInfo,
    options: ListeningOptions,
    on_warning: Warn,
    detector: FaceDetector | None = None,
    *,
    sound: MediaInfo | None = None,
    windows: Windows | None = None,
) -> Iterator[Event | Skipped]:
    """The windows of a recording with its sound as it is, and those that are skipped: for material to learn from.

    Pauses are those of the sound; where there is none, of the lips. `info` is what `probe` found. The sound comes from
    the file `sound` if there is one. `windows` are taken in place of those that `options` ask for. Raises `MediaError`
    if a file cannot be read.
    """
    windower = Windower(options.windows) if windows is None else windows
    listener = _Listener(info, options, on_warning, detector, sound or info, windower, sound_decides=True)
    yield from listener.events()


def check_streams(info: MediaInfo, wanted: Modality | None) -> None:
    """Raise `MediaError` if the file lacks what is wanted."""
    if wanted is None:
        return
    if wanted.uses_video and not info.has_video:
        raise MediaError(f"{info.path} has no video to read lips from; --modality a transcribes its sound")
    if wanted.uses_audio and not info.has_audio:
        raise MediaError(f"{info.path} has no sound; --modality v reads the lips")


def check_length(path: Path, seconds: float) -> None:
    """Raise `MediaError` if a recording is too long to be taken in one piece."""
    if seconds > TOO_LONG_AS_A_WHOLE:
        most = f"at most {TOO_LONG_AS_A_WHOLE:.0f} s can be taken in one piece"
        raise MediaError(f"{path} is {seconds:.0f} s long; {most}")


class _Sound:
    """The sound of a recording, read in order and kept as long as it is needed."""

    def __init__(self, info: MediaInfo, on_warning: Warn) -> None:
        self._chunks = iter_audio(info.path, start=info.start, on_warning=on_warning)
        self._samples = next(self._chunks, np.zeros(0, np.float32))
        self._origin = 0  # the frame of the first sample
        self.activity = SoundActivity()
        self.ended = False

    @property
    def frames(self) -> int:
        """Frames read so far; at the end, one that is begun counts."""
        count = len(self._samples) + (SAMPLES_PER_FRAME - 1 if self.ended else 0)
        return self._origin + count // SAMPLES_PER_FRAME

    def read(self, until: int) -> None:
        """Read at least until this frame, or to the end."""
        parts = [self._samples]
        wanted = (until - self._origin) * SAMPLES_PER_FRAME - len(self._samples)
        while wanted > 0 and not self.ended:
            chunk = next(self._chunks, None)
            self.ended = chunk is None
            if chunk is not None:
                parts.append(chunk)
                wanted -= len(chunk)
        self._samples = np.concatenate(parts)

    def between(self, start: int, end: int) -> NDArray[np.float32]:
        """Samples of these frames, with silence where there are none."""
        first, last = ((frame - self._origin) * SAMPLES_PER_FRAME for frame in (start, end))
        part = self._samples[first:last]
        return np.pad(part, (0, last - first - len(part)))

    def forget(self, before: int) -> None:
        """Nothing will be asked about frames before this one."""
        self._samples = self._samples[max(0, before - self._origin) * SAMPLES_PER_FRAME :]
        self._origin = max(before, self._origin)


class _Listener:
    """The state of `listen`."""

    def __init__(
        self,
        info: MediaInfo,
        options: ListeningOptions,
        on_warning: Warn,
        detector: FaceDetector | None,
        sound: MediaInfo,
        windower: Windows,
        *,
        sound_decides: bool = False,
    ) -> None:
        """With `sound_decides`, lips that move without sound are no speech, if there is sound at all."""
        self.info, self.options, self.wanted, self.warn = info, options, options.modality, on_warning
        self.sound = self._open_sound(sound) if sound.has_audio and self.wanted is not Modality.VIDEO else None
        self.lips = self._open_lips(detector) if info.has_video and self.wanted is not Modality.AUDIO else None
        self.windower = windower
        self.sound_decides = sound_decides and self.sound is not None
        self.given = 0
        self.seen = 0  # frames whose lips are known
        self.video_ended = self.lips is None
        self.moving = np.zeros(0, bool)  # of the frames from `windower.known` on
        self.activity = np.zeros((0, 2), bool)  # heard, moving: of the frames from `windower.needed` on
        self.no_face: FaceError | None = None
        self.followed = False

    def _open_sound(self, info: MediaInfo) -> _Sound | None:
        try:
            return _Sound(info, self.warn)
        except MediaError as error:
            if self.wanted is not None or not self.info.has_video:
                raise
            self.warn(str(error))
            return None

    def _open_lips(self, detector: FaceDetector | None) -> Lips:
        name = self.options.detector
        if name == "auto" and detector is None:
            name = "cropped" if (self.info.width, self.info.height) == (CROP_SIZE, CROP_SIZE) else "mediapipe"
        if name == "cropped":
            return ReadyCrops(self.info, self.options, self.warn)
        finder = detector or mediapipe_detector(self.options.face_model)
        return FollowedFaces(self.info, finder, self.options, self.warn)

    def events(self) -> Iterator[Event | Skipped]:
        """What `segment` gives."""
        streams = {Modality.AUDIO: self.sound, Modality.VIDEO: self.lips}
        there = [modality for modality, stream in streams.items() if stream is not None]
        modality = there[0] if len(there) == 1 else Modality.AUDIOVISUAL
        yield Opened(self.info.duration, modality, self._reason(self.sound is not None, ""))
        final = False
        while not final:
            final = self._advance()
            for window in self.windower.take(final=final):
                if (piece := self._piece(window)) is not None:
                    self.given += isinstance(piece, Piece)
                    yield piece
            self._forget()
            yield Read(self.windower.known)

    def conclude(self) -> None:
        """Raise `FaceError` if lips are needed and were read nowhere; warn if there was no window."""
        number = self.options.face
        if isinstance(number, int) and not self.followed and self.lips is not None and self.no_face is not None:
            raise FaceError(f"{self.info.path}: {self.no_face}; faces are counted from 0, as they appear")
        if self.given:
            return
        absent = self.lips.absent if self.lips is not None else None
        error = self.no_face or (FaceError(absent) if absent else None)
        if error is not None and (self.sound is None or (self.wanted is not None and self.wanted.uses_video)):
            raise FaceError(f"{self.info.path}: {error}")
        self.warn("there is nothing but silence" if self.sound is not None else "there are no lips that move")

    def _advance(self) -> bool:
        """Read a block; whether it was the last."""
        known = self.windower.known
        if self.lips is not None and not self.video_ended:
            moving = self._advance_lips(self.lips)
            self.video_ended = moving is None
            if moving is not None:
                self.moving = np.concatenate([self.moving, moving])
                self.seen += len(moving)
        end, ended = self.seen, True
        if self.sound is not None:
            self.sound.read(max(self.seen, known) + BLOCK)
            sound_alone = self.lips is None
            if self.video_ended and self.wanted is None and self.sound.frames > self.seen + SOUND_AFTER_VIDEO:
                sound_alone = True
            end = max(known, self.sound.frames) if sound_alone else self.seen
            ended = self.sound.ended or not sound_alone
        self._know(known, end)
        return self.video_ended and ended

    def _advance_lips(self, lips: Lips) -> NDArray[np.bool_] | None:
        """Look at a block; what cannot be seen any more ends the video, if the sound may go on alone."""
        try:
            return lips.advance(BLOCK)
        except (MediaError, FaceError) as error:
            if self.wanted is not None or self.sound is None:
                raise
            self.warn(f"{error}: from there on sound alone")
            return None

    def _know(self, start: int, end: int) -> None:
        """Tell the windower what goes on from frame `start` until `end`."""
        if self.options.windows.whole:
            check_length(self.info.path, end / FRAME_RATE)  # what the header says may be wrong
        frames = end - start
        moving = np.pad(self.moving[:frames], (0, max(0, frames - len(self.moving))))
        self.moving = self.moving[frames:]
        heard, loudness = np.zeros(frames, bool), moving.astype(np.float64)
        if self.sound is not None:
            loudness = sound_levels(self.sound.between(start, end))
            heard = self.sound.activity(loudness)
        self.activity = np.concatenate([self.activity, np.stack([heard, moving], axis=1)])
        unheard = moving & ~widen(heard, NEAR) & (not self.sound_decides)
        self.windower.add(heard | unheard, loudness)

    def _forget(self) -> None:
        """Drop what no window to come can hold."""
        needed = self.windower.needed
        self.activity = self.activity[len(self.activity) - (self.windower.known - needed) :]
        if self.sound is not None:
            self.sound.forget(needed)
        if self.lips is not None:
            self.lips.forget(needed)

    def _piece(self, window: Window) -> Piece | Skipped | None:
        """What there is of a window; None if nothing is."""
        window, mouths, missing = self._look(window)
        self.followed |= bool(mouths)
        origin = self.windower.known - len(self.activity)
        active = self.activity[window.speech_start - origin : window.speech_end - origin]
        heard, moving = bool(active[:, 0].any()), bool(active[:, 1].any())
        asked = self.wanted is not None or (self.options.windows.whole and not mouths)
        listened = self.sound is not None and (heard or asked)
        if self.wanted is not None and self.wanted.uses_video and not mouths:
            return Skipped(window, missing)
        if not mouths and not listened:
            return None
        modality = Modality.AUDIOVISUAL if listened else Modality.VIDEO
        audio = self.sound.between(window.start, window.end) if self.sound is not None and listened else None
        reason = self._reason(listened, missing)
        return Piece(window, modality if mouths else Modality.AUDIO, reason, audio, tuple(mouths), moving)

    def _look(self, window: Window) -> tuple[Window, list[Mouth], str]:
        """The window, its mouths, and why there are none. If no face is there all the time, one that is there as long
        as somebody speaks will do, and the window is no longer than that."""
        if self.lips is None:
            return window, [], ""
        try:
            return window, self.lips.mouths(window.start, window.end), ""
        except FaceError as error:
            self.no_face = error
        tight = window.without_margins(TIGHT)
        if tight != window:
            with suppress(FaceError):
                return tight, self.lips.mouths(tight.start, tight.end), ""
        return window, [], str(self.no_face)

    def _reason(self, listened: bool, missing: str) -> str:
        """Why these streams are used."""
        if self.wanted is not None:
            return "as asked for"
        if self.lips is None:
            return "the file has no video"
        if missing:
            return f"no usable face ({missing}), so sound alone"
        if listened:
            return "the file has sound and video"
        return "no sound rises above the noise, so lips alone" if self.sound is not None else "the file has no sound"


def mediapipe_detector(model: Path | None) -> MediaPipeDetector:
    """MediaPipe with this `.task` file, or that of the cache; opened once for all recordings."""
    if model not in _DETECTORS:
        from seehear.data.face_model import face_model

        _DETECTORS[model] = MediaPipeDetector(face_model(model))
    return _DETECTORS[model]


_DETECTORS: dict[Path | None, MediaPipeDetector] = {}
