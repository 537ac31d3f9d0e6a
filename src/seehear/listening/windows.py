"""Where to cut a recording: windows around speech, parted at pauses.

Speech comes in as "active" frames. Frames that are less than a pause apart belong together; around them lies a margin
in which nobody speaks. What is longer than a window may be is cut where it is least loud, and the two windows overlap
there, so that each word is whole in one of them.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from seehear.listening.options import WindowOptions
from seehear.modality import FRAME_RATE


class Window(NamedTuple):
    """A part of a recording, in frames from its start."""

    start: int
    end: int
    """The frame after the last."""
    speech_start: int
    """Where speech begins inside the window."""
    speech_end: int
    continues: bool = False
    """Whether speech goes on without a pause from the window before, which reaches as far beyond `speech_start`."""
    goes_on: bool = False
    """Whether it goes on so into the window after, which begins as far before `speech_end`."""

    @property
    def own(self) -> tuple[int, int]:
        """The frames that no other window holds: from where until where."""
        before = 2 * (self.speech_start - self.start) if self.continues else 0
        after = 2 * (self.end - self.speech_end) if self.goes_on else 0
        return self.start + before, self.end - after

    def without_margins(self, kept: int) -> "Window":
        """The window with at most `kept` frames around speech, but for what overlaps with other windows."""
        start = self.start if self.continues else max(self.start, self.speech_start - kept)
        end = self.end if self.goes_on else min(self.end, self.speech_end + kept)
        return self._replace(start=start, end=max(start + 1, end))


class Windows(Protocol):
    """Takes what is known of each frame, in order, and gives windows, in order."""

    @property
    def needed(self) -> int:
        """The first frame that a window to come may hold, at most `known`."""
        ...

    @property
    def known(self) -> int:
        """Frames taken in."""
        ...

    def add(self, active: NDArray[np.bool_], loudness: NDArray[np.float64]) -> None:
        """Take in the next frames: whether there is speech, and how loud it is, on any scale."""
        ...

    def take(self, *, final: bool = False) -> list[Window]:
        """The windows that nothing to come can change; with `final`, nothing more will come."""
        ...


class GivenWindows:
    """Windows that are known from the start; those whose speech ends after the recording are left out."""

    def __init__(self, windows: Sequence[Window], beyond: int = 0) -> None:
        """`windows` are in order. If speech ends up to `beyond` frames after the recording, its end is that of the
        recording."""
        self._beyond = beyond
        self._waiting = deque(windows)
        self._known = 0

    @property
    def needed(self) -> int:
        """See `Windows`."""
        return min(self._known, self._waiting[0].start) if self._waiting else self._known

    @property
    def known(self) -> int:
        """See `Windows`."""
        return self._known

    def add(self, active: NDArray[np.bool_], loudness: NDArray[np.float64]) -> None:
        """See `Windows`."""
        self._known += len(active)

    def take(self, *, final: bool = False) -> list[Window]:
        """See `Windows`."""
        ready = []
        while self._waiting and (final or self._waiting[0].end <= self._known):
            window = self._waiting.popleft()
            if window.speech_start < self._known and window.speech_end <= self._known + self._beyond:
                end, speech_end = min(window.end, self._known), min(window.speech_end, self._known)
                ready.append(window._replace(end=end, speech_end=speech_end))
        return ready


class Windower:
    """Takes what is known of each frame, in order, and gives windows as soon as they are sure."""

    def __init__(self, options: WindowOptions) -> None:
        self.options = options
        self._pause, self._margin, self._half = (
            max(1, round(seconds * FRAME_RATE)) for seconds in (options.pause, options.margin, options.overlap / 2)
        )
        self._most = round(options.longest * FRAME_RATE)
        self._longest = self._most - 2 * max(self._margin, self._half)  # of the speech in a window
        self._active = np.zeros(0, bool)
        self._loudness = np.zeros(0)
        self._origin = 0  # of these two
        self._free = 0  # no window begins before
        self._cut: int | None = None  # where the last window was cut

    @property
    def needed(self) -> int:
        """The first frame that a window to come may hold."""
        return self._free

    @property
    def known(self) -> int:
        """Frames taken in."""
        return self._origin + len(self._active)

    def add(self, active: NDArray[np.bool_], loudness: NDArray[np.float64]) -> None:
        """Take in the next frames: whether there is speech, and how loud it is, on any scale."""
        self._active = np.concatenate([self._active, active])
        self._loudness = np.concatenate([self._loudness, loudness])

    def take(self, *, final: bool = False) -> list[Window]:
        """The windows that nothing to come can change; with `final`, nothing more will come."""
        if self.options.whole:
            return [Window(0, self.known, 0, self.known)] if final and self.known else []
        windows = []
        while (window := self._next(final)) is not None:
            windows.append(window)
        self._forget()
        return windows

    def _next(self, final: bool) -> Window | None:
        """One more window."""
        begin = self._free if self._cut is None else self._cut
        active = np.flatnonzero(self._active[begin - self._origin :]) + begin
        if not len(active):
            self._cut = None
            self._free = max(self._free, self.known - 2 * self._margin)
            return None
        first = int(active[0]) if self._cut is None else self._cut
        pauses = np.flatnonzero(np.diff(active) > self._pause)
        last = int(active[pauses[0]] if len(pauses) else active[-1]) + 1
        following = int(active[pauses[0] + 1]) if len(pauses) else None
        start = first - self._half if self._cut is not None else self._before(first)
        if last - first > self._longest:
            enough = final or self.known >= first + self._longest + self._half
            return self._cut_short(start, first) if enough else None
        if following is None and not final and self.known - last < 2 * self._margin:
            return None
        edge = self.known if following is None else (last + following) // 2
        near_end = final and following is None and edge - last <= 2 * self._margin
        end = edge if near_end else min(last + self._margin, edge)
        if end - start > self._most:  # the margins at the ends of a file are wider
            start = max(start, min(first - self._margin, end - self._most))
            end = min(end, start + self._most)
        window = Window(start, end, first, last, self._cut is not None)
        self._free, self._cut = end, None
        return window

    def _before(self, first: int) -> int:
        """Where a window begins whose speech begins at `first`."""
        return 0 if self._free == 0 and first <= 2 * self._margin else max(self._free, first - self._margin)

    def _cut_short(self, start: int, first: int) -> Window:
        """A window that ends amid speech, where it is least loud."""
        earliest = first + self._longest * 2 // 3
        smooth = np.convolve(self._loudness[earliest - self._origin :][: self._longest // 3 + 1], np.ones(5), "same")
        inner = smooth[2:-2] if len(smooth) > 8 else smooth
        cut = earliest + (len(smooth) - len(inner)) // 2 + int(np.argmin(inner))
        end = min(cut + self._half, self.known)
        window = Window(max(start, end - self._most), end, first, cut, self._cut is not None, goes_on=True)
        self._free, self._cut = cut - self._half, cut
        return window

    def _forget(self) -> None:
        """Drop what is not asked for again."""
        drop = self._free - self._origin
        self._active, self._loudness = self._active[drop:], self._loudness[drop:]
        self._origin = self._free
