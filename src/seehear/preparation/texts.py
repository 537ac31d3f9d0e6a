"""What published corpora say of a recording: the texts of LRS2 and LRS3, the alignments of GRID."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from seehear.data.corpus import read_lines
from seehear.errors import CorpusError
from seehear.modality import FRAME_RATE
from seehear.preparation.cues import MARGIN_FRAMES, Cue

GRID_UNITS = 25_000
"""Units of GRID's alignments in a second: a thousandth of a frame at 25 frames a second."""
GRID_SILENCE = ("sil", "sp")
FEW_WORDS = 3
"""Words that a part has at least, where there are enough."""


class TimedWord(NamedTuple):
    """A word and when it is said, in seconds."""

    word: str
    start: float
    end: float


class TimedText(NamedTuple):
    """What is said in a recording."""

    text: str
    words: list[TimedWord]
    """Where their times are known, as in `pretrain` of LRS2 and LRS3."""


def joined(words: Sequence[TimedWord]) -> str:
    """The words as a text."""
    return " ".join(word.word for word in words)


def group_words(words: Sequence[TimedWord], longest: float) -> tuple[Cue, ...]:
    """The words in cues that fit with their margins into clips of `longest` seconds; none if their times go back.

    Words that last longer are cut in two at the longest pause between two of them, and so on, but not within the first
    or last quarter of the words nor the first or last `FEW_WORDS`. A single word that lasts longer is a cue.
    """
    times = [0.0, *(time for word in words for time in (word.start, word.end))]
    if not words or times[-1] == math.inf or not all(earlier <= later for earlier, later in pairwise(times)):
        return ()
    parts = _cut(words, longest - 2 * MARGIN_FRAMES / FRAME_RATE)
    return tuple(Cue(part[0].start, part[-1].end, joined(part)) for part in parts)


def _cut(words: Sequence[TimedWord], most: float) -> Iterator[Sequence[TimedWord]]:
    """The words in parts of at most `most` seconds; of pauses of one length the one nearest to the middle is taken."""
    if len(words) == 1 or words[-1].end - words[0].start <= most:
        yield words
        return
    least = max(len(words) // 4, min(FEW_WORDS, len(words) // 2))
    places = range(least, len(words) - least + 1)
    place = max(places, key=lambda n: (words[n].start - words[n - 1].end, min(n, len(words) - n)))
    yield from _cut(words[:place], most)
    yield from _cut(words[place:], most)


def read_lrs_text(path: Path) -> TimedText:
    """The line `Text:  WORDS` and, after a line `WORD START END …`, a word of the table per line.

    Raises `CorpusError` for a file of another form.
    """
    lines = [line.strip() for line in read_lines(path)]
    if not lines[0].startswith("Text:"):
        raise CorpusError(f"{path}: the first line must be 'Text:  WORDS'")
    table = next((number for number, line in enumerate(lines) if line.startswith("WORD START END")), len(lines))
    words = [
        _timed_word(path, number, lines[number].split()) for number in range(table + 1, len(lines)) if lines[number]
    ]
    return TimedText(lines[0].removeprefix("Text:").strip(), words)


def _timed_word(path: Path, number: int, columns: list[str]) -> TimedWord:
    """The line WORD START END SCORE."""
    try:
        return TimedWord(columns[0], float(columns[1]), float(columns[2]))
    except (IndexError, ValueError) as error:
        raise CorpusError(f"{path}, line {number + 1}: must be WORD START END SCORE, with seconds") from error


def read_align(path: Path) -> list[TimedWord]:
    """The words of an alignment of GRID, without its silences. Raises `CorpusError` for a file of another form."""
    words = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            start, end, word = line.split()
            timed = TimedWord(word, int(start) / GRID_UNITS, int(end) / GRID_UNITS)
        except ValueError as error:
            raise CorpusError(f"{path}, line {number}: must be START END WORD") from error
        if word not in GRID_SILENCE:
            words.append(timed)
    return words
