"""Texts of overlapping windows into one: joined at words that both have heard."""

from collections.abc import Sequence
from typing import NamedTuple

SLACK = 25
"""Frames by which the two may disagree on when a word is said."""
REPETITIONS, REPEATED = 4, 12
"""Times in a row that the same is said, and tokens in all, from which on it counts as a loop."""


class PlacedWord(NamedTuple):
    """A word in a recording."""

    tokens: Sequence[int]
    text: str
    start: float
    """In frames from the start of the recording, as is `end`."""
    end: float
    probability: float

    @property
    def middle(self) -> float:
        """When it is said."""
        return (self.start + self.end) / 2

    def moved(self, frames: int) -> "PlacedWord":
        """The same word, so many frames later."""
        return self._replace(start=self.start + frames, end=self.end + frames)


def join(left: Sequence[PlacedWord], right: Sequence[PlacedWord], overlap: tuple[int, int]) -> tuple[int, int]:
    """Where to change from the words of one window to those of the next: how many of `left` count, how many of `right`
    do not.

    In the `overlap` (first frame, end) both have heard the same: at the middle of the longest run of words that are
    equal in both, and said at about the same time. Without such a run, by the time of words: in its middle.
    """
    first, end = overlap
    middle = (first + end) / 2
    runs: list[tuple[int, float, int, int]] = []
    lengths: dict[tuple[int, int], int] = {}  # of the run of equal words that ends with this pair
    for i, one in enumerate(left):
        for j, other in enumerate(right):
            near = (
                abs(one.middle - other.middle) <= SLACK and one.middle >= first - SLACK and other.middle < end + SLACK
            )
            if near and one.text == other.text:
                length = lengths[i, j] = lengths.get((i - 1, j - 1), 0) + 1
                runs.append((length, -abs(one.middle - middle), i, j))
    if runs:
        length, _, i, j = max(runs)
        back = length // 2
        return i - back + 1, j - back + 1
    return sum(word.middle < middle for word in left), sum(word.middle < middle for word in right)


def in_order(words: Sequence[PlacedWord], earliest: float = 0.0) -> list[PlacedWord]:
    """The same words, of which none begins before the one before it ends, nor before `earliest`, and each lasts a frame
    at least: where two windows were joined they need not agree on times."""
    placed = []
    for word in words:
        start = max(word.start, earliest)
        placed.append(word._replace(start=start, end=max(word.end, start + 1)))
        earliest = placed[-1].end
    return placed


def repeats(tokens: Sequence[int]) -> bool:
    """Whether tokens are said over and over, as by a decoder that is caught in a loop."""
    for length in range(1, len(tokens) // REPETITIONS + 1):
        needed = max(REPETITIONS * length, REPEATED)
        same = length  # tokens in a row of which each equals the one `length` before
        for before, token in zip(tokens, tokens[length:], strict=False):
            same = same + 1 if token == before else length
            if same >= needed:
                return True
    return False
