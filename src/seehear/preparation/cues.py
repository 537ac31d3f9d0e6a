"""Cues: what is said from when until when in a recording, and which of them can become clips."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from seehear.listening.windows import Window
from seehear.modality import FRAME_RATE

MARGIN_FRAMES = 5
"""Frames that a clip may have before and after its cue: subtitles are often cut close. At most half of the gap to the
cue beside it."""
MAX_OVERLAP_FRAMES = 3
"""Frames by which two cues may overlap: times are often rounded."""
CLOCK = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:[.,]\d*)?)")
"""HH:MM:SS.mmm, MM:SS.mmm or seconds, with a point or a comma."""
DESCRIPTION = re.compile(r"\[[^\[\]]*\]|\([^()]*\)|[♪♫][^♪♫]*[♪♫]?")
"""What describes a sound, such as [door slams], (laughs) and ♪ la la ♪."""


class Cue(NamedTuple):
    """What is said from `start` until `end`, in seconds from the start of a recording."""

    start: float
    end: float
    text: str
    speaker: str | None = None


@dataclass(frozen=True)
class LeftOut:
    """A part of a recording that is in no clip."""

    start: float
    """In seconds, as is `end`."""
    end: float
    reason: str
    text: str | None = None
    """Of a cue."""


class PlacedCue(NamedTuple):
    """A cue and the frames that its clip takes."""

    cue: Cue
    window: Window


def parse_clock(text: str) -> float | None:
    """Seconds of a time such as 75.5, 1:15.5 and 00:01:15,500; None if it is no time."""
    match = CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return 3600 * int(hours or 0) + 60 * int(minutes or 0) + float(seconds.replace(",", "."))


def joined(cues: Iterable[Cue]) -> tuple[str, str | None]:
    """The text of all `cues` in the order of their times, and their speaker if there is one only."""
    spoken = _merged(cue for cue in cues if has_speech(cue.text))
    speakers = {cue.speaker for cue in spoken}
    return " ".join(cue.text for cue in spoken), speakers.pop() if len(speakers) == 1 else None


def has_speech(text: str) -> bool:
    """Whether there are words in `text`, and not only the description of a sound."""
    return any(char.isalnum() for char in DESCRIPTION.sub("", text))


def place_cues(cues: Sequence[Cue], longest: float) -> tuple[list[PlacedCue], list[LeftOut]]:
    """The frames of each cue that can become a clip of at most `longest` seconds, in order; and the others.

    A clip holds one cue and a margin that does not reach into another. Cues of one text that touch or overlap count as
    one. Not used are cues without words or duration, longer ones, and those that overlap with another text.
    """
    rejected = {
        "it has no words": [cue for cue in cues if not has_speech(cue.text)],
        "it ends when it begins, or before": [cue for cue in cues if has_speech(cue.text) and cue.end <= cue.start],
    }
    spoken = _merged(cue for cue in cues if has_speech(cue.text) and cue.end > cue.start)
    most = round(longest * FRAME_RATE)
    frames = [(round(cue.start * FRAME_RATE), round(cue.end * FRAME_RATE)) for cue in spoken]
    overlapping = _overlapping(frames)
    long = {number for number, (first, last) in enumerate(frames) if last - first > most}
    rejected["it overlaps with another text"] = [spoken[number] for number in sorted(overlapping)]
    rejected[f"it is longer than {longest:g} s"] = [spoken[number] for number in sorted(long - overlapping)]
    ends = accumulate((last for _, last in frames), max)
    bounds = [None, *ends], [*(first for first, _ in frames[1:]), None]
    placed = [
        PlacedCue(cue, _window(first, max(first + 1, last), before, after, most))
        for number, (cue, (first, last), before, after) in enumerate(zip(spoken, frames, *bounds, strict=False))
        if number not in overlapping | long
    ]
    left_out = [LeftOut(cue.start, cue.end, why, cue.text) for why, unused in rejected.items() for cue in unused]
    return placed, sorted(left_out, key=lambda cue: cue.start)


def _merged(cues: Iterable[Cue]) -> list[Cue]:
    """`cues` in order; those of one text that touch or overlap, as in subtitles that highlight words, are one."""
    merged: list[Cue] = []
    for cue in sorted(cues):
        last = merged[-1] if merged else None
        if last and last.text == cue.text and cue.start - last.end < 1 / FRAME_RATE:
            merged[-1] = last._replace(end=max(last.end, cue.end))
        else:
            merged.append(cue)
    return merged


def _overlapping(frames: Sequence[tuple[int, int]]) -> set[int]:
    """Which of the stretches (first, last), in the order of their beginnings, overlap with another."""
    found: set[int] = set()
    latest = None  # the one that ends last so far
    for number, (first, last) in enumerate(frames):
        if latest is not None and min(last, frames[latest][1]) - first > MAX_OVERLAP_FRAMES:
            found |= {latest, number}
        if latest is None or last > frames[latest][1]:
            latest = number
    return found


def _window(first: int, last: int, before: int | None, after: int | None, most: int) -> Window:
    """A window of at most `most` frames around `first` until `last`, between the cues `before` and `after`."""
    margin = min(MARGIN_FRAMES, (most - (last - first)) // 2)
    start = first - max(0, min(margin, first if before is None else (first - before) // 2))
    end = last + max(0, margin if after is None else min(margin, (after - last) // 2))
    return Window(start, end, first, last)
