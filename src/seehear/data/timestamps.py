"""Timestamps that are not what they seem: strays, and those that begin anew in files made of several parts."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

NOTICED_GAP = 0.5
"""Seconds from which on timestamps that leap are a hole, a stray or a new beginning."""
STRAYS = 10
"""Frames in a row whose timestamps lie behind from which on they may have begun anew; fewer are damage."""


class Restarts:
    """Where the timestamps of a file begin anew, as in recordings that were put one behind the other.

    It is fed with the packets of sound and picture in the order of the file, so that both, each read by itself, go on
    at the same time: where the longer of the two has ended.
    """

    def __init__(self) -> None:
        self._shifts = [0.0]  # of each part of the file
        self._part: defaultdict[int, int] = defaultdict(int)  # of each stream, where its packets are
        self._ends: dict[int, float] = {}
        self._behind: defaultdict[int, list[float]] = defaultdict(list)
        self._ahead: dict[int, float] = {}

    def shift(self, stream: int) -> float:
        """Seconds to be added to the timestamps of a stream, in the part where its packets are."""
        return self._shifts[self._part[stream]]

    def see(self, stream: int, time: float, length: float) -> None:
        """A packet of a stream, `length` seconds long."""
        time += self.shift(stream)
        end = self._ends.setdefault(stream, time)
        if time < end - NOTICED_GAP:
            self._behind[stream].append(time)
            if len(self._behind[stream]) == STRAYS:
                self._begin_anew(stream)
            return
        self._behind[stream].clear()
        if time > end + NOTICED_GAP and self._ahead.get(stream, math.inf) > time:
            self._ahead[stream] = time  # until the next one confirms it
            return
        self._ahead.pop(stream, None)
        self._ends[stream] = max(end, time + length)

    def _begin_anew(self, stream: int) -> None:
        """The first stream to do so begins a part; the others follow it there."""
        behind, old = self._behind.pop(stream), self.shift(stream)
        if self._part[stream] == len(self._shifts) - 1:
            self._shifts.append(old + max(self._ends.values()) - behind[0])
        self._part[stream] = len(self._shifts) - 1
        self._ends[stream] = behind[-1] + self.shift(stream) - old


def timed(
    frames: Iterator[Any],
    stamp: Callable[[Any], float | None],
    length: Callable[[Any], float],
    shift: Callable[[], float],
    note: Callable[[str], None],
) -> Iterator[tuple[float, Any]]:
    """(seconds of the file's clock, frame), for frames with a `stamp` and a `length` in seconds.

    A frame without a stamp follows the one before. Frames that lie behind are left out, unless they are many and
    `shift` has changed meanwhile, which is then added to their stamps. So is one far ahead of those around it.
    """
    applied, last, following = 0.0, -math.inf, 0.0
    behind: list[tuple[float, Any]] = []
    ahead: list[tuple[float, Any]] = []
    for frame in frames:
        found = stamp(frame)
        time = following if found is None else found + applied
        if time < last - NOTICED_GAP:
            behind = [*behind[1 - 3 * STRAYS :], (time, frame)]
            if len(behind) < STRAYS or shift() == applied:
                continue
            note(f"begin anew at {last:.1f} s: they go on from there")
            ready = [(earlier - applied + shift(), held) for earlier, held in behind]
            applied = shift()
        elif time > following + NOTICED_GAP and last > -math.inf and not (ahead and ahead[0][0] <= time):
            ahead = [(time, frame)]
            continue
        else:
            ready = [*(held for held in ahead if held[0] <= time), (time, frame)]
        behind, ahead = [], []
        for last, held in ready:
            yield last, held
            following = last + length(held)
    yield from ahead
    if behind:
        note(f"of the last {len(behind)} frames lie behind: they are left out")
