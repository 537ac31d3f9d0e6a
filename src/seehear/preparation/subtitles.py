"""Subtitles, SubRip (.srt) and WebVTT (.vtt), as they are found: their cues without markup."""

import html
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from seehear.errors import CorpusError
from seehear.modality import FRAME_RATE
from seehear.preparation.cues import Cue, parse_clock

TIMES = re.compile(r"\s*(\S+?)\s*-->\s*(\S+)(?:\s.*)?")
"""A line of times; behind them there may be settings."""
VOICE = re.compile(r"<v(?:\.[^\s>]*)*\s+([^>]*)>")
TAG = re.compile(r"</?[A-Za-z][^<>]*>|<[\d:.]+>|\{\\[^{}]*\}")
"""HTML, WebVTT's classes and times, and {\\an8} and the like."""
FLASH = 0.05
"""Seconds of the cues with which automatic captions repeat a line before it rolls up."""
DASH = re.compile(r"^[-‐–—]+\s*(?=\D)")
"""Before what one of several persons says."""
INVISIBLE = re.compile("[\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]")
"""Marks of direction and others without width; not the joiners, which change letters."""


def parse_subtitles(content: str, path: Path) -> list[Cue]:
    """The cues of the file `path` with this `content`, in its order. Raises `CorpusError` that names a faulty line."""
    lines = re.split(r"\r\n|\r|\n", content)
    web = path.suffix.lower() == ".vtt"
    if web and not lines[0].startswith("WEBVTT"):
        raise CorpusError(f"{path} is no WebVTT: its first line must begin with WEBVTT")
    return [_cue(block) for block in _without_repeats(_without_highlights(_blocks(lines, path, web=web)))]


def _blocks(lines: list[str], path: Path, *, web: bool) -> Iterator["_Block"]:
    """The cues. In SubRip a text may have empty lines, in WebVTT one ends the cue."""
    times: tuple[float, float] | None = None
    text: list[str] = []
    for number, line in enumerate(lines, start=1):
        if "-->" in line:
            if times:
                yield _Block(*times, _without_number(text))
            times, text = _times(line, f"{path}, line {number}"), []
        elif times and web and (not line or ("".join(text).strip() and not line.strip())):
            yield _Block(*times, text)
            times, text = None, []
        else:
            text.append(line)
    if times:
        yield _Block(*times, text)


def _times(line: str, place: str) -> tuple[float, float]:
    """Start and end in seconds."""
    match = TIMES.fullmatch(line)
    start, end = (parse_clock(time) for time in match.groups()) if match else (None, None)
    if start is None or end is None:
        raise CorpusError(f"{place}: '{line.strip()[:60]}' are no times such as 00:00:01,500 --> 00:00:04,000")
    return start, end


def _without_number(text: list[str]) -> list[str]:
    """The lines of a SubRip cue without the number of the next one."""
    return text[:-1] if text and text[-1].strip().isdecimal() else text


class _Block(NamedTuple):
    """A cue as it stands in a file."""

    start: float
    end: float
    lines: list[str]
    """With markup."""

    @property
    def marked(self) -> list[str]:
        """The lines that are not empty, with markup."""
        return [stripped for line in self.lines if (stripped := line.strip())]

    @property
    def plain(self) -> list[str]:
        """The lines that have a text, without markup."""
        return [plain for line in self.lines if (plain := _plain(line))]

    def follows(self, other: "_Block") -> bool:
        """Whether it begins when `other` ends."""
        return abs(self.start - other.end) < 1 / FRAME_RATE


def _without_highlights(blocks: Iterable[_Block]) -> list[_Block]:
    """The cues; those that follow each other with one text and other markup, which highlights its words, are one."""
    kept: list[_Block] = []
    for block in blocks:
        last = kept[-1] if kept else None
        if last and block.follows(last) and block.plain == last.plain and block.marked != last.marked:
            kept[-1] = block._replace(start=last.start)
        else:
            kept.append(block)
    return kept


def _without_repeats(blocks: list[_Block]) -> list[_Block]:
    """The cues without what the cue before showed already, if lines roll up as in automatic captions: where most cues
    of several lines begin with those with which the cue before ends."""
    rolling = [block for number, block in enumerate(blocks) if not _is_flash(blocks, number)]
    shown = [0, *(_shown_before(*pair) for pair in pairwise(rolling))]
    several = sum(len(block.plain) > 1 and block.follows(before) for before, block in pairwise(rolling))
    if 2 * sum(lines > 0 for lines in shown) <= several:
        return blocks
    return [block._replace(lines=block.plain[lines:]) for block, lines in zip(rolling, shown, strict=True)]


def _is_flash(blocks: Sequence[_Block], number: int) -> bool:
    """Whether a cue is shown for a moment only and repeats lines of the cue before."""
    block, before = blocks[number], blocks[number - 1] if number else None
    return before is not None and block.end - block.start <= FLASH and set(block.plain) <= set(before.plain)


def _shown_before(before: _Block, block: _Block) -> int:
    """Lines at the beginning of a cue with which the cue before it ends, if another follows them."""
    lines = range(len(block.plain) - 1, 0, -1) if block.follows(before) else ()
    return next((count for count in lines if before.plain[-count:] == block.plain[:count]), 0)


def _cue(block: _Block) -> Cue:
    """The cue without markup; its speaker if one voice is marked in it."""
    voices = {html.unescape(voice).strip() for voice in VOICE.findall(" ".join(block.lines))}
    speaker = voices.pop() if len(voices) == 1 else None
    return Cue(block.start, block.end, " ".join(block.plain), speaker or None)


def _plain(line: str) -> str:
    """A line's text."""
    text = INVISIBLE.sub("", html.unescape(TAG.sub("", line))).replace("\\N", " ").replace("\\h", " ")
    return " ".join(DASH.sub("", text.strip()).split())
