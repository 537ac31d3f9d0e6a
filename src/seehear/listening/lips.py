"""The lips in a recording: looked for as far ahead as windows need, then cropped window by window.

A video is decoded twice at the same time: one decoder runs ahead and shows its frames to the face detector; the other
follows, when a window is chosen, and cuts the crops. So no more than a frame or two is held at a time.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from seehear.data.cuts import CutFinder
from seehear.data.faces import FaceDetector
from seehear.data.media import MediaInfo, Warn, iter_frames
from seehear.data.mouth import (
    MAX_GAP,
    FacesSeen,
    Placement,
    TrackReport,
    cut_all,
    place_track,
    ready_crop,
    ready_report,
    require_picture,
)
from seehear.data.tracks import FaceTracker, Sighting, Track, followed_tracks
from seehear.errors import FaceError
from seehear.listening.activity import AROUND_MOTION, LIPS_MOVE, PICTURE_MOVES, lip_motion, picture_motion, widen
from seehear.listening.options import ListeningOptions
from seehear.modality import CROP_SIZE, FRAME_RATE

Picture = NDArray[np.uint8]


class Mouth(NamedTuple):
    """A mouth in a window."""

    face: int
    """Number of the face in the recording."""
    frames: Picture
    """(T, 96, 96) grey, 25 a second."""
    motion: float
    """How much its lips move, to be compared with others of the window."""
    report: TrackReport
    """How good the crop is, and which face it shows."""

    @property
    def where(self) -> str:
        """Which face that is: its size and place."""
        return self.report.chosen

    @property
    def notes(self) -> tuple[str, ...]:
        """What is doubtful about the crop."""
        return self.report.warnings


class Lips(Protocol):
    """The lips in a recording, read in order."""

    @property
    def absent(self) -> str | None:
        """Why there is nobody to be seen, if nobody has been so far."""
        ...

    def advance(self, frames: int) -> NDArray[np.bool_] | None:
        """Look at up to so many more frames: whether lips move, in each that this is known of now; None at the end."""
        ...

    def mouths(self, start: int, end: int) -> list[Mouth]:
        """The mouths from frame `start` until `end`; windows come in order and overlap with the one before at most.

        Raises `FaceError` with the reason if no face can be read.
        """
        ...

    def forget(self, before: int) -> None:
        """Nothing will be asked about frames before this one."""
        ...


class FollowedFaces:
    """The faces that a detector finds."""

    def __init__(self, info: MediaInfo, detector: FaceDetector, options: ListeningOptions, on_warning: Warn) -> None:
        self._ahead = _with_last(iter_frames(info.path, start=info.start, on_warning=on_warning))
        self._behind = iter_frames(info.path, start=info.start)
        self._begins = _begins(info, options)
        self._detector = detector
        self._choice = options.face
        self._overlap = round(options.windows.overlap * FRAME_RATE)
        most = MAX_GAP if options.max_gap is None else options.max_gap
        self._max_gap = max(most, detector.every - 1)  # frames that nobody looks at are no gap
        self._tracker = FaceTracker(self._max_gap)
        self._shots = CutFinder()
        self._read = 0  # frames that the first decoder has given
        self._found = False
        self._looked: list[int] = []
        self._size = (0, 0)
        self._cropped = 0  # frames that the second has given
        self._before: tuple[int, dict[int, Picture]] = (0, {})  # the last window: its start, its crops by face
        self._kept: list[Picture] = []  # grey pictures at its end, where they show a face without crops

    def advance(self, frames: int) -> NDArray[np.bool_] | None:
        """See `Lips`."""
        moving: list[bool] = []
        number = self._read
        for number, (frame, last) in enumerate(islice(self._ahead, frames), start=self._read):
            self._shots.see(frame)
            self._size = (frame.shape[1], frame.shape[0])
            if number % self._detector.every == 0 or last:
                since = number - (self._looked[-1] if self._looked else -1)
                moving += [self._look(number, frame)] * since
            self._read = number + 1
        if number == self._read:
            return None
        return widen(np.array(moving, bool), AROUND_MOTION) if moving else np.zeros(0, bool)

    @property
    def absent(self) -> str | None:
        """See `Lips`."""
        return None if self._found else "no face was found in any frame"

    def _look(self, number: int, frame: Picture) -> bool:
        """Show a frame to the detector; whether lips moved since the last one."""
        tracks = self._tracker.see(Sighting(number, self._detector.detect(number, frame)))
        self._looked.append(number)
        self._found |= bool(tracks)
        return any(_motion(track, track.frames[-1]) > LIPS_MOVE for track in tracks)

    def mouths(self, start: int, end: int) -> list[Mouth]:
        """See `Lips`."""
        _require_begun(start, self._begins)
        parts = [track.between(start, end) for track in self._tracker.tracks]
        seen = [part for part in parts if part.frames]
        chosen = self._choose(followed_tracks(seen, end - start, self._max_gap))
        looked = self._looked[bisect_left(self._looked, start) : bisect_left(self._looked, end)]
        cuts = [cut - start for cut in self._shots.cuts() if start < cut < end]
        facts = FacesSeen([Sighting(number - start, []) for number in looked], end - start, self._size, cuts)
        placements = {track.number: place_track(track, seen, facts) for track in chosen}
        others = [track for track in seen if track.number not in placements]
        keep = any(track.frames[-1] >= end - start - self._overlap for track in others)
        crops = self._crop(start, end, placements, self._overlap if keep else 0)
        return [
            Mouth(
                track.number,
                crops[track.number],
                float(np.mean([_motion(track, frame) for frame in track.frames])),
                placements[track.number].report,
            )
            for track in chosen
        ]

    def _choose(self, tracks: list[Track]) -> list[Track]:
        """Those that are asked for."""
        if self._choice == "largest":
            return [max(tracks, key=lambda track: track.size)]
        if isinstance(self._choice, int):
            found = [track for track in tracks if track.number == self._choice]
            if not found:
                raise FaceError(f"face {self._choice} does not stay in the picture")
            return found
        return tracks

    def _crop(self, start: int, end: int, placements: dict[int, Placement], keep: int) -> dict[int, Picture]:
        """Crops of all faces that are placed; after the last frame it is repeated. The last `keep` pictures are kept.

        Frames that were read for the window before are taken from there: the crops, of a face that had none the
        pictures, and of one that was not to be seen then the first crop that it has.
        """
        again, read = max(0, self._cropped - start), min(end, self._read)
        if read <= start + again:
            raise FaceError("the video has ended")
        for _ in islice(self._behind, max(0, start - self._cropped)):
            pass
        kept: deque[Picture] = deque(maxlen=keep)
        frames = _watched(islice(self._behind, read - start - again), kept)
        places = [placement.to_crop for placement in placements.values()]
        new = cut_all(frames, [to_crop[again : read - start] for to_crop in places])
        before, old = self._before
        crops = {}
        for face, to_crop, part in zip(placements, places, new, strict=True):
            known = np.repeat(part[:1], again, 0)
            if again and face in old:
                known = old[face][start - before :][:again]
            elif 0 < again <= len(self._kept):
                (known,) = cut_all(iter(self._kept[-again:]), [to_crop[:again]])
            crops[face] = _lengthened(np.concatenate([known, part]), end - start)
        self._cropped, self._before, self._kept = read, (start, crops), list(kept)
        return crops

    def forget(self, before: int) -> None:
        """See `Lips`."""
        self._tracker.forget(before)
        self._shots.forget(before)
        del self._looked[: max(0, bisect_left(self._looked, before) - 1)]


def _begins(info: MediaInfo, options: ListeningOptions) -> int:
    """The frame with which the picture begins; until then the first one stands. In one piece, that has to do."""
    return 0 if options.windows.whole else round(info.picture_delay * FRAME_RATE)


def _require_begun(start: int, begins: int) -> None:
    """Raise `FaceError` if a window starts so long before the picture that lips would stand still in it."""
    if start < begins - MAX_GAP:
        raise FaceError(f"the picture begins at {begins / FRAME_RATE:.1f} s")


def _motion(track: Track, frame: int) -> float:
    """How far the lips of a face moved up to this frame, one of those it was seen in."""
    position = bisect_left(track.frames, frame)
    return lip_motion(track.points[position - 1], track.points[position]) if position else 0.0


def _lengthened(crops: Picture, frames: int) -> Picture:
    """`crops`, the last of them repeated until there are so many `frames`."""
    return np.concatenate([crops, np.repeat(crops[-1:], frames - len(crops), 0)])


def _watched(frames: Iterator[Picture], kept: deque[Picture]) -> Iterator[Picture]:
    """`frames` in grey; `kept` remembers as many of the last as it can."""
    for frame in frames:
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        kept.append(grey)
        yield grey


def _with_last(frames: Iterator[Picture]) -> Iterator[tuple[Picture, bool]]:
    """Each of `frames`, and whether it is the last."""
    held = next(frames, None)
    while held is not None:
        following = next(frames, None)
        yield held, following is None
        held = following


class ReadyCrops:
    """A video that shows nothing but a mouth."""

    def __init__(self, info: MediaInfo, options: ListeningOptions, on_warning: Warn) -> None:
        self._path = info.path
        self._report = ready_report(info.width)
        self._begins = _begins(info, options)
        self._frames = iter_frames(info.path, start=info.start, on_warning=on_warning)
        self._crops = np.zeros((0, CROP_SIZE, CROP_SIZE), np.uint8)
        self._origin = 0
        self._empty: FaceError | None = None

    @property
    def absent(self) -> str | None:
        """See `Lips`."""
        return str(self._empty) if self._empty else None

    def advance(self, frames: int) -> NDArray[np.bool_] | None:
        """See `Lips`."""
        try:
            new = [ready_crop(frame) for frame in islice(self._frames, frames)]
        except FaceError as error:
            raise FaceError(f"{self._path}: {error}") from None
        if not new:
            return None
        try:
            if self._empty is not None or not self._origin + len(self._crops):
                require_picture(np.stack(new))
            self._empty = None
        except FaceError as error:
            self._empty = error
        with_last = np.concatenate([self._crops[-1:], np.stack(new)])
        self._crops = np.concatenate([self._crops, with_last[-len(new) :]])
        if len(with_last) == 1:
            return np.ones(1, bool)  # a single picture says nothing of motion
        return widen(picture_motion(with_last)[-len(new) :] > PICTURE_MOVES, AROUND_MOTION)

    def mouths(self, start: int, end: int) -> list[Mouth]:
        """See `Lips`."""
        _require_begun(start, self._begins)
        crops = self._crops[start - self._origin : end - self._origin]
        if end - start - len(crops) > MAX_GAP or not len(crops):
            raise FaceError("the video has ended")
        require_picture(crops)
        return [Mouth(0, _lengthened(crops, end - start), 1.0, self._report)]

    def forget(self, before: int) -> None:
        """See `Lips`."""
        self._crops = self._crops[before - self._origin :]
        self._origin = before
