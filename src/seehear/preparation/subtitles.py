"""Subtitles, SubRip (.srt) and WebVTT (.vtt), as they are found: their cues without markup."""

import html
import re
from collections.abc import Iterator
from pathlib import Path

from seehear.errors import CorpusError
from seehear.preparation.cues import Cue, parse_clock

TIMES = re.compile(r"\s*(\S+?)\s*-->\s*(\S+)(?:\s.*)?")
"""A line of times; behind them there may be settings."""
VOICE = re.compile(r"<v(?:\.[^\s>]*)*\s+([^>]*)>")
TAG = re.compile(r"</?[A-Za-z][^<>]*>|<[\d:.]+>|\{\\[^{}]*\}")
"""HTML, WebVTT's classes and times, and {\\an8} and the like."""
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
    return [_cue(start, end, text) for start, end, text in _blocks(lines, path, web=web)]


def _blocks(lines: list[str], path: Path, *, web: bool) -> Iterator[tuple[float, float, list[str]]]:
    """Start, end and lines of each cue. In SubRip a text may have empty lines, in WebVTT one ends the cue."""
    times: tuple[float, float] | None = None
    text: list[str] = []
    for number, line in enumerate(lines, start=1):
        if "-->" in line:
            if times:
                yield *times, _without_number(text)
            times, text = _times(line, f"{path}, line {number}"), []
        elif times and web and not line.strip():
            yield *times, text
            times = None
        else:
            text.append(line)
    if times:
        yield *times, text


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


def _cue(start: float, end: float, lines: list[str]) -> Cue:
    """The cue without markup; its speaker if one voice is marked in it."""
    voices = {html.unescape(voice).strip() for voice in VOICE.findall(" ".join(lines))}
    speaker = voices.pop() if len(voices) == 1 else None
    return Cue(start, end, " ".join(filter(None, map(_plain, lines))), speaker or None)


def _plain(line: str) -> str:
    """A line's text."""
    text = INVISIBLE.sub("", html.unescape(TAG.sub("", line))).replace("\\N", " ").replace("\\h", " ")
    return " ".join(DASH.sub("", text.strip()).split())
