"""What was said, and how it is written to files (formats and the keys of the JSON are Whisper's, with ours beside)."""

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from seehear.files import write_atomically
from seehear.modality import Modality


@dataclass(frozen=True)
class Word:
    """A word and when it is said."""

    word: str
    start: float
    """In seconds, as is `end`."""
    end: float
    probability: float
    """How sure the decoder is of it, given the words before."""


@dataclass(frozen=True)
class Segment:
    """A stretch of speech."""

    id: int
    start: float
    """In seconds, as is `end`."""
    end: float
    text: str
    tokens: tuple[int, ...]
    """Ids in the model's vocabulary, without specials."""
    avg_logprob: float
    """Mean log-probability of the tokens and the end of sentence under the model's decoder."""
    no_speech_prob: float = 0.0
    """How likely the model's CTC head holds it that nothing is said, and not the text, per token of it."""
    words: tuple[Word, ...] = ()
    """Empty where nobody asked for them."""
    modality: Modality | None = None
    """What it was recognised from."""
    face: int | None = None
    """Number of the face whose lips were read; faces are counted as they appear, and from the left."""


@dataclass(frozen=True)
class Transcript:
    """What a recording says, and from what that was recognised."""

    source: str
    """The recording's path, as it was given."""
    duration: float
    """In seconds."""
    modality: Modality
    """What was listened to: sound, lips, or both; where that changes, most of the time."""
    reason: str
    """Why this modality."""
    segments: tuple[Segment, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All of it in one line."""
        return " ".join(segment.text for segment in self.segments)

    @cached_property
    def one_voice(self) -> bool:
        """Whether segments follow each other; else several faces have texts at the same time, and each is named."""
        pairs = itertools.pairwise(self.segments)
        return all(one.face == other.face or one.end <= other.start for one, other in pairs)

    def label(self, segment: Segment) -> str:
        """What stands before a segment's text: which face says it, where that is not plain."""
        return f"face {segment.face}: " if not self.one_voice and segment.face is not None else ""

    def to_txt(self) -> str:
        """One segment a line."""
        return "".join(f"{self.label(segment)}{segment.text}\n" for segment in self.segments)

    def to_json(self) -> str:
        """Text, segments, and what else is known."""
        return json.dumps({"text": self.text, **asdict(self)}, ensure_ascii=False, indent=2) + "\n"

    def to_tsv(self) -> str:
        """Start and end in whole milliseconds, and the text, by segment."""
        return "start\tend\ttext\n" + "".join(
            f"{round(1000 * s.start)}\t{round(1000 * s.end)}\t{self.label(s)}{' '.join(s.text.split())}\n"
            for s in self.segments
        )


@dataclass(frozen=True)
class SubtitleOptions:
    """How subtitles are cut. Without a width and a number of lines each segment is a subtitle."""

    max_line_width: int | None = None
    """Characters of a line; needs the times of words, as do the others."""
    max_line_count: int | None = None
    """Lines of a subtitle."""
    highlight_words: bool = False
    """A subtitle for each word, in which it is underlined."""


LINE_WIDTH = 42
"""Of a line, where only the number of lines is given."""
PAUSE = 3.0
"""Seconds without a word after which another subtitle begins."""


class Subtitle(NamedTuple):
    """What stands under the picture for a while."""

    start: float
    end: float
    lines: Sequence[Sequence[str]]
    """Words, line by line."""
    highlighted: int = -1
    """Which of the words is underlined."""
    label: str = ""
    """What stands before them."""

    def text(self, escape: Callable[[str], str]) -> str:
        """Its lines."""
        count, lines = 0, []
        for line in self.lines:
            words = []
            for word in map(escape, line):
                words.append(f"<u>{word}</u>" if count == self.highlighted else word)
                count += 1
            lines.append(" ".join(words))
        return self.label + "\n".join(lines)


def subtitles(transcript: Transcript, options: SubtitleOptions) -> Iterator[Subtitle]:
    """The subtitles of a transcript, in order."""
    cut = options.max_line_width is not None or options.max_line_count is not None
    for segment in transcript.segments:
        label = transcript.label(segment)
        if not segment.words:
            yield Subtitle(segment.start, segment.end, [segment.text.split()], label=label)
            continue
        for lines in _cut(segment.words, options) if cut else [[segment.words]]:
            words = [word for line in lines for word in line]
            texts = [[word.word for word in line] for line in lines]
            if not options.highlight_words:
                yield Subtitle(words[0].start, words[-1].end, texts, label=label)
                continue
            ends = [word.start for word in words[1:]] + [words[-1].end]
            for place, (word, end) in enumerate(zip(words, ends, strict=True)):
                yield Subtitle(word.start, end, texts, place, label)


def _cut(words: Sequence[Word], options: SubtitleOptions) -> Iterator[list[list[Word]]]:
    """Words by subtitle and line: lines filled to their width, subtitles to their number of lines or to a pause."""
    width, most = options.max_line_width or LINE_WIDTH, options.max_line_count or 1
    lines: list[list[Word]] = []
    for word in words:
        line = lines[-1] if lines else []
        used = sum(len(other.word) + 1 for other in line)
        if line and word.start - line[-1].end > PAUSE:
            yield lines
            lines = [[word]]
        elif line and used + len(word.word) <= width:
            line.append(word)
        elif len(lines) < most:
            lines.append([word])
        else:
            yield lines
            lines = [[word]]
    if lines:
        yield lines


def to_srt(transcript: Transcript, options: SubtitleOptions = SubtitleOptions()) -> str:
    """Subtitles as SubRip."""
    return "\n".join(
        f"{number}\n{_clock(cue.start, ',')} --> {_clock(cue.end, ',')}\n{cue.text(_no_arrow)}\n"
        for number, cue in enumerate(subtitles(transcript, options), start=1)
    )


def to_vtt(transcript: Transcript, options: SubtitleOptions = SubtitleOptions()) -> str:
    """Subtitles as WebVTT."""
    cues = (
        f"{_clock(cue.start, '.')} --> {_clock(cue.end, '.')}\n{cue.text(_for_web)}\n"
        for cue in subtitles(transcript, options)
    )
    return "\n".join(["WEBVTT\n", *cues])


def _clock(seconds: float, point: str) -> str:
    """HH:MM:SS,mmm."""
    milliseconds = round(1000 * seconds)
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"


def _no_arrow(word: str) -> str:
    """What would be read as a line of times."""
    return word.replace("-->", "->")


def _for_web(word: str) -> str:
    """Marks of WebVTT as text."""
    return word.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


WRITERS: Mapping[str, Callable[[Transcript, SubtitleOptions], str]] = {
    "txt": lambda transcript, _: transcript.to_txt(),
    "vtt": to_vtt,
    "srt": to_srt,
    "tsv": lambda transcript, _: transcript.to_tsv(),
    "json": lambda transcript, _: transcript.to_json(),
}
"""The output formats: a function from a transcript to the contents of a file."""


def write_transcript(
    transcript: Transcript,
    folder: Path,
    name: str,
    formats: Sequence[str],
    options: SubtitleOptions = SubtitleOptions(),
) -> list[Path]:
    """Write `folder/name.FORMAT` in each of `formats`, keys of `WRITERS`; return the paths."""
    paths = {format: folder / f"{name}.{format}" for format in formats}
    for format, path in paths.items():
        write_atomically(path, WRITERS[format](transcript, options))
    return list(paths.values())


def output_names(inputs: Sequence[Path]) -> list[str]:
    """A name for the output of each input: its stem; where inputs share a stem, the whole name, numbered if need be.

    No two are the same, even where case does not count.
    """
    stems = Counter(path.stem.casefold() for path in inputs)
    names: list[str] = []
    taken: set[str] = set()
    for path in inputs:
        base = path.stem if stems[path.stem.casefold()] == 1 else path.name
        candidates = (base if number == 1 else f"{base}-{number}" for number in range(1, len(inputs) + 2))
        name = next(candidate for candidate in candidates if candidate.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return names
