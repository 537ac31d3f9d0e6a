"""What published corpora say of a recording: the texts of LRS2 and LRS3, the alignments of GRID."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from seehear.data.corpus import read_lines
from seehear.errors import CorpusError

GRID_UNITS = 25_000
"""Units of GRID's alignments in a second: a thousandth of a frame at 25 frames a second."""
GRID_SILENCE = ("sil", "sp")


class TimedWord(NamedTuple):
    """A word and when it is said, in seconds."""

    word: str
    start: float
    end: float


class LRSText(NamedTuple):
    """The file beside a video of LRS2 or LRS3."""

    text: str
    words: list[TimedWord]
    """Where the file has a table of them, as those of `pretrain`."""


def joined(words: Sequence[TimedWord]) -> str:
    """The words as a text."""
    return " ".join(word.word for word in words)


def read_lrs_text(path: Path) -> LRSText:
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
    return LRSText(lines[0].removeprefix("Text:").strip(), words)


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
