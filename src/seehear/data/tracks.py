"""Faces followed through a video: detections linked into tracks, and the one track that is cropped."""

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

    def longest_gap(self, num_frames: int) -> int:
        """Most frames in a row without the face, in a video of `num_frames`."""
        edges = np.array([-1, *self.frames, num_frames])
        return int(np.diff(edges).max()) - 1


def face_size(points: FacePoints) -> float:
    """Diagonal of the box around `points`, in pixels."""
    return float(np.linalg.norm(np.ptp(points, axis=0)))


def link_faces(sightings: Iterable[Sighting], max_gap: int) -> list[Track]:
    """Join detections that are one face: nearest first, in place and size. A face unseen for more than `max_gap`
    frames in a row is another when it comes back."""
    ended: list[Track] = []
    live: list[Track] = []
    for frame, faces in sightings:
        ended += [track for track in live if frame - track.frames[-1] > max_gap + 1]
        live = [track for track in live if frame - track.frames[-1] <= max_gap + 1]
        distances = {
            (i, j): _distance(track.points[-1], points)
            for i, track in enumerate(live)
            for j, points in enumerate(faces)
        }
        partners: dict[int, int] = {}  # face: track
        for i, j in sorted(distances, key=distances.__getitem__):
            if distances[i, j] < FARTHEST_LINK and j not in partners and i not in partners.values():
                partners[j] = i
        for j, points in enumerate(faces):
            if j not in partners:
                live.append(Track())
                partners[j] = len(live) - 1
            live[partners[j]].add(frame, points)
    return ended + live


def _distance(points: FacePoints, others: FacePoints) -> float:
    """How unlike two detections are in place and size: 0 is equal, 1 is a face's diagonal apart."""
    size, other_size = face_size(points), face_size(others)
    apart = np.linalg.norm(points.mean(0) - others.mean(0)) / max(1e-6, (size + other_size) / 2)
    return float(apart + 0.5 * abs(np.log(max(size, 1e-6) / max(other_size, 1e-6))))


def choose_track(tracks: list[Track], num_frames: int, max_gap: int) -> Track:
    """The largest face that can be followed through the whole video. Raises `FaceError` if there is none."""
    if not tracks:
        raise FaceError("no face was found in any frame")
    followed = [track for track in tracks if track.longest_gap(num_frames) <= max_gap]
    if followed:
        return max(followed, key=lambda track: track.size)
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
