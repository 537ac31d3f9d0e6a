"""Faces followed through a video: detections linked into tracks, and the one track that is cropped."""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from seehear.data.faces import FacePoints
from seehear.errors import FaceError

FARTHEST_LINK = 0.6
"""Two detections are one face if they lie closer than this, in face sizes and with their sizes compared."""


class Sighting(NamedTuple):
    """What a detector saw in one frame."""

    frame: int
    faces: list[FacePoints]


@dataclass
class Track:
    """One face through the video: the frames it was found in, and its points there."""

    number: int = 0
    """Faces are counted from 0 as they appear, and from the left where several do at once."""
    frames: list[int] = field(default_factory=list)
    points: list[FacePoints] = field(default_factory=list)

    def add(self, frame: int, points: FacePoints) -> None:
        """Continue the track."""
        self.frames.append(frame)
        self.points.append(points)

    @property
    def size(self) -> float:
        """Typical size of the face, in pixels."""
        return float(np.median([face_size(points) for points in self.points]))

    def between(self, start: int, end: int) -> "Track":
        """The part of the track from frame `start` until `end`, whose first frame is then 0."""
        first, last = bisect_left(self.frames, start), bisect_left(self.frames, end)
        return Track(self.number, [frame - start for frame in self.frames[first:last]], self.points[first:last])

    def longest_gap(self, num_frames: int) -> int:
        """Most frames in a row without the face, in a video of `num_frames`."""
        edges = np.array([-1, *self.frames, num_frames])
        return int(np.diff(edges).max()) - 1


def face_size(points: FacePoints) -> float:
    """Diagonal of the box around `points`, in pixels."""
    return float(np.linalg.norm(np.ptp(points, axis=0)))


class FaceTracker:
    """Joins detections that are one face, frame by frame: nearest first, in place and size.

    A face unseen for more than `max_gap` frames in a row is another when it comes back.
    """

    def __init__(self, max_gap: int) -> None:
        self.max_gap = max_gap
        self.tracks: list[Track] = []
        """In the order of their numbers."""
        self._count = 0

    def see(self, sighting: Sighting) -> list[Track]:
        """Take in the next frame looked at; the tracks of its faces, from the left."""
        frame, faces = sighting.frame, sorted(sighting.faces, key=lambda points: float(points[:, 0].mean()))
        live = [track for track in self.tracks if frame - track.frames[-1] <= self.max_gap + 1]
        distances = {
            (i, j): _distance(track.points[-1], points)
            for i, track in enumerate(live)
            for j, points in enumerate(faces)
        }
        partners: dict[int, Track] = {}  # by face
        taken: set[int] = set()
        for i, j in sorted(distances, key=distances.__getitem__):
            if distances[i, j] < FARTHEST_LINK and j not in partners and i not in taken:
                partners[j] = live[i]
                taken.add(i)
        for j, points in enumerate(faces):
            if j not in partners:
                partners[j] = Track(self._count)
                self.tracks.append(partners[j])
                self._count += 1
            partners[j].add(frame, points)
        return [partners[j] for j in range(len(faces))]

    def forget(self, before: int) -> None:
        """Drop what was seen before this frame, but for the last place of each face that may come back."""
        kept = []
        for track in self.tracks:
            first = min(bisect_left(track.frames, before), len(track.frames) - 1)
            del track.frames[:first], track.points[:first]
            if track.frames[-1] >= before - self.max_gap - 1:
                kept.append(track)
        self.tracks = kept


def link_faces(sightings: Iterable[Sighting], max_gap: int) -> list[Track]:
    """The tracks of all `sightings`, by `FaceTracker`."""
    tracker = FaceTracker(max_gap)
    for sighting in sightings:
        tracker.see(sighting)
    return tracker.tracks


def _distance(points: FacePoints, others: FacePoints) -> float:
    """How unlike two detections are in place and size: 0 is equal, 1 is a face's diagonal apart."""
    size, other_size = face_size(points), face_size(others)
    apart = np.linalg.norm(points.mean(0) - others.mean(0)) / max(1e-6, (size + other_size) / 2)
    return float(apart + 0.5 * abs(np.log(max(size, 1e-6) / max(other_size, 1e-6))))


def choose_track(tracks: list[Track], num_frames: int, max_gap: int) -> Track:
    """The largest face that can be followed through the whole video. Raises `FaceError` if there is none."""
    return max(followed_tracks(tracks, num_frames, max_gap), key=lambda track: track.size)


def followed_tracks(tracks: list[Track], num_frames: int, max_gap: int) -> list[Track]:
    """The faces that can be followed through the whole video. Raises `FaceError` with the reason if there is none."""
    if not tracks:
        raise FaceError("no face was found in any frame")
    followed = [track for track in tracks if track.longest_gap(num_frames) <= max_gap]
    if followed:
        return followed
    longest = max(tracks, key=lambda track: len(track.frames))
    raise FaceError(
        f"no face stays in the picture: the best of {len(tracks)} is missing for {longest.longest_gap(num_frames)} of "
        f"{num_frames} frames in a row; at most {max_gap} are interpolated"
    )


def fill_gaps(track: Track, num_frames: int) -> NDArray[np.float64]:
    """Points (T, 28, 2) in every frame: linear between detections, copied at both ends."""
    found = np.stack(track.points).astype(np.float64)
    flat = found.reshape(len(found), -1)
    times = np.arange(num_frames)
    columns = [np.interp(times, track.frames, column) for column in flat.T]
    return np.stack(columns, axis=1).reshape(num_frames, *found.shape[1:])
