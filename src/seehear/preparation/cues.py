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
CHARACTERS_PER_FRAME = 1
"""Letters and digits of a text at most: people say less than that, and a clip needs a frame for each token."""
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
    """The text of all `cues` in the order of their times, and their speaker if there is one only. Cues of one text that
    overlap count as one."""
    spoken = _merged(cue for cue in cues if has_speech(cue.text))
    speakers = {cue.speaker for cue in spoken}
    return " ".join(cue.text for cue in spoken), speakers.pop() if len(speakers) == 1 else None


def has_speech(text: str) -> bool:
    """Whether there are words in `text`, and not only the description of a sound."""
    return any(char.isalnum() for char in DESCRIPTION.sub("", text))


def place_cues(cues: Sequence[Cue], longest: float) -> tuple[list[PlacedCue], list[LeftOut]]:
    """The frames of each cue that can become a clip of at most `longest` seconds, in order; and the others.

    A clip holds one cue and a margin that does not reach into another. Cues of one text that overlap count as one.
    Not used are cues without words or duration, those that are longer or too short for their text, and those that
    overlap with another text.
    """
    rejected: dict[str, list[Cue]] = {}
    spoken = _merged(cue for cue in cues if has_speech(cue.text) and cue.end > cue.start)
    rejected["it has no words"] = [cue for cue in cues if not has_speech(cue.text)]
    rejected["it ends when it begins, or before"] = [c for c in cues if has_speech(c.text) and c.end <= c.start]
    rejected["it is too short for its text"] = [cue for cue in spoken if _too_short(cue)]
    spoken = [cue for cue in spoken if not _too_short(cue)]
    most = round(longest * FRAME_RATE)
    frames = [_frames(cue) for cue in spoken]
    overlapping = _overlapping(frames)
    long = {number for number, (first, last) in enumerate(frames) if last - first > most}
    rejected["it overlaps with another text"] = [spoken[number] for number in sorted(overlapping)]
    rejected[f"it is longer than {longest:g} s"] = [spoken[number] for number in sorted(long - overlapping)]
    ends = accumulate((last for _, last in frames), max)
    bounds = [None, *ends], [*(first for first, _ in frames[1:]), None]
    placed = [
        PlacedCue(cue, _window(first, last, before, after, most))
        for number, (cue, (first, last), before, after) in enumerate(zip(spoken, frames, *bounds, strict=False))
        if number not in overlapping | long
    ]
    left_out = [LeftOut(cue.start, cue.end, why, cue.text) for why, unused in rejected.items() for cue in unused]
    return placed, sorted(left_out, key=lambda cue: cue.start)


def _frames(cue: Cue) -> tuple[int, int]:
    """Its first frame, and the one after its last."""
    return round(cue.start * FRAME_RATE), round(cue.end * FRAME_RATE)


def _too_short(cue: Cue) -> bool:
    """Whether nobody can say its text in its time."""
    first, last = _frames(cue)
    return sum(char.isalnum() for char in cue.text) > CHARACTERS_PER_FRAME * (last - first)


def _merged(cues: Iterable[Cue]) -> list[Cue]:
    """`cues` in order; those of one text that overlap are one, while a text that is said again is another."""
    merged: list[Cue] = []
    for cue in sorted(cues, key=lambda cue: (cue.start, cue.end, cue.text)):
        last = merged[-1] if merged else None
        if last and last.text == cue.text and _overlap(_frames(last), _frames(cue)):
            merged[-1] = last._replace(end=max(last.end, cue.end))
        else:
            merged.append(cue)
    return merged


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> bool:
    """Whether two stretches share more frames than rounding explains, or half of the shorter one."""
    shared = min(one[1], other[1]) - max(one[0], other[0])
    shorter = min(one[1] - one[0], other[1] - other[0])
    return shared > max(0, min(MAX_OVERLAP_FRAMES, (shorter - 1) // 2))


def _overlapping(frames: Sequence[tuple[int, int]]) -> set[int]:
    """Which of the stretches (first, last), in the order of their beginnings, overlap with another."""
    found: set[int] = set()
    latest = None  # the one that ends last so far
    for number, (first, last) in enumerate(frames):
        if latest is not None and _overlap(frames[latest], (first, last)):
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
