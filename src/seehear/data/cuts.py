"""Where a film cuts from one shot to another: who is seen after it may be somebody else in the same place."""

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 32
"""Pictures are compared at this many pixels each way."""
LEAST_CHANGE = 15.0
"""Mean change of a grey value (of 255) from one frame to the next below which nothing is a cut; a talking head
changes by 0.2 to 1.5 (GRID)."""
TIMES_THE_USUAL = 8.0
"""A cut changes the picture so many times more than the median frame does, and so no pan is one."""

USUAL = 1500
"""Frames before the one asked about that tell what is usual, of a recording that is forgotten on the way."""


class CutFinder:
    """Is shown the frames of a video one by one; `cuts()` are those that begin another shot."""

    def __init__(self) -> None:
        self._last: NDArray[np.uint8] | None = None
        self._changes: list[float] = []
        self._forgotten = 0

    def see(self, frame: NDArray[np.uint8]) -> None:
        """The next frame (H, W, 3)."""
        small = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        if self._last is not None:
            self._changes.append(float(cv2.absdiff(small, self._last).mean()))
        self._last = small.astype(np.uint8)

    def cuts(self) -> list[int]:
        """Numbers of the frames that begin another shot."""
        changes = np.array(self._changes)
        if not len(changes):
            return []
        least = max(LEAST_CHANGE, TIMES_THE_USUAL * float(np.median(changes)))
        return [int(position) + 1 + self._forgotten for position in np.flatnonzero(changes >= least)]

    def forget(self, before: int) -> None:
        """Nothing will be asked about frames before this one; of those, the last minute still tells what is usual."""
        drop = max(0, before - USUAL - self._forgotten)
        del self._changes[:drop]
        self._forgotten += drop
