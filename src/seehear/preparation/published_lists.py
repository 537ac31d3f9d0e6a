"""The lists of the published code as a source of clips: crops and sound in folders, texts as token ids.

A row is `corpus,path,frames,token ids parted by spaces`, without a header; the ids may be missing. The name of a list
is that of a split.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from seehear.data.corpus import read_lines
from seehear.errors import ConfigError, CorpusError
from seehear.preparation.sources import (
    MEDIA_SUFFIXES,
    SOUND_SUFFIXES,
    Contents,
    Rejected,
    Source,
    count,
    make_source,
)
from seehear.preparation.transcripts import Transcription
from seehear.tokenizer import Tokenizer

FAULTS_SHOWN = 5
CROP_SUFFIXES = (".mp4", ".avi")
"""Of crops, where there is no file with the suffix that the list names."""
SEPARATE_SUFFIXES = (".wav", ".flac")
"""Of the sound files that go with the crops."""


class Row(NamedTuple):
    """A line of a list."""

    corpus: str
    path: PurePosixPath
    """Below the folder of crops, or below the folder of the corpus there."""
    frames: int
    tokens: tuple[int, ...]

    @property
    def id(self) -> str:
        """The corpus and the path without the suffix."""
        return (PurePosixPath(self.corpus) / self.path.with_suffix("")).as_posix()

    @property
    def name(self) -> str:
        """The corpus and the path."""
        return (PurePosixPath(self.corpus) / self.path).as_posix()


def read_published_lists(folder: Path, lists: Path, units: Path | None, audio: Path) -> Contents:
    """The clips of the CSV file `lists`, or of those in this folder, with crops below `folder` and sound below `audio`.

    Raises one `CorpusError` that names the faulty lines of a list, or what is missing; `ConfigError` without `units`.
    """
    splits = {path.stem: _read_rows(path) for path in _list_files(lists)}
    rows = _by_id(splits, lists)
    if units is None and any(row.tokens for row in rows.values()):
        raise ConfigError("give the published list of units with --units FILE: it says which text the tokens stand for")
    tokenizer = Tokenizer.from_units(units) if units else None
    transcripts = {id: Transcription(_text(row, tokenizer, lists)) for id, row in rows.items()}
    found = {id: _source(row, folder, audio) for id, row in rows.items()}
    sources = [source for source in found.values() if source is not None]
    if not sources:
        first = next(iter(rows.values()))
        raise CorpusError(
            f"{folder} holds none of the {len(rows)} files of {lists}, such as {first.name} or {first.path}"
        )
    missing = [Rejected(rows[id].name, "a list names it, but it is missing") for id in rows if found[id] is None]
    ids = {name: [row.id for row in split] for name, split in splits.items()}
    return Contents(sources, missing, transcripts, ids, cropped=True)


def _by_id(splits: Mapping[str, Sequence[Row]], lists: Path) -> dict[str, Row]:
    """The rows by id; of several with one id the last that has tokens, or the last.

    Raises `CorpusError` if the tokens differ: it is not known which ones are said.
    """
    rows: dict[str, Row] = {}
    differ = []
    for row in (row for split in splits.values() for row in split):
        known = rows.get(row.id)
        if known and known.tokens and row.tokens and known.tokens != row.tokens:
            differ.append(row.name)
        if row.tokens or not (known and known.tokens):
            rows[row.id] = row
    if differ:
        raise CorpusError(f"{lists}: {count('rows whose clip has other tokens in an earlier row', differ)}")
    return rows


def _list_files(lists: Path) -> list[Path]:
    """The file `lists`, or the CSV files in this folder."""
    if lists.is_file():
        return [lists]
    found = sorted(lists.glob("*.csv")) if lists.is_dir() else []
    if not found:
        raise CorpusError(f"{lists} is no CSV list and no folder of them: name one with --lists")
    return found


def _read_rows(path: Path) -> list[Row]:
    """The rows of a list."""
    rows, faults = [], []
    for number, values in enumerate(csv.reader(read_lines(path)), start=1):
        if values:
            row = _row([value.strip() for value in values], is_first=number == 1)
            if isinstance(row, Row):
                rows.append(row)
            else:
                faults.append(f"line {number}: {row}")
    if faults:
        more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise CorpusError(f"{path}: {'; '.join(faults[:FAULTS_SHOWN])}{more}")
    if not rows:
        raise CorpusError(f"{path} lists no clips")
    return rows


def _row(values: Sequence[str], *, is_first: bool) -> Row | str:
    """The row of these values, the first of a list or another; or what is wrong with them."""
    if len(values) not in (3, 4):
        return f"{len(values)} columns, not corpus, path, frames, token ids"
    corpus, path, frames, *tokens = values
    place = PurePosixPath(path)
    if is_first and not place.suffix and not frames.isdecimal():
        return f"'{','.join(values)}' names columns, but a list has no header: remove this line"
    if not corpus:
        return "the corpus, the first column, is missing"
    if not path or place.is_absolute() or ".." in place.parts or "/" in corpus or corpus in (".", ".."):
        return f"the path '{path}' of the corpus '{corpus}' leads outside its folder"
    if not (frames.isdecimal() and int(frames) > 0):
        return f"'{frames}' is no number of frames"
    ids = tokens[0].split() if tokens else []
    if not all(id.isdecimal() for id in ids):
        return "the token ids must be numbers parted by spaces"
    row = Row(corpus, place, int(frames), tuple(map(int, ids)))
    return row if row.id.isprintable() else "its path holds characters that cannot stand in a list"


def _text(row: Row, tokenizer: Tokenizer | None, lists: Path) -> str:
    """What the tokens of a row stand for."""
    if tokenizer is None or not row.tokens:
        return ""
    largest = len(tokenizer.pieces)
    if unknown := [token for token in row.tokens if not 0 < token <= largest]:
        raise CorpusError(f"{lists}: {row.name} has the token {unknown[0]}, but the units are numbered 1 to {largest}")
    return tokenizer.decode(row.tokens)


def _source(row: Row, folder: Path, audio: Path) -> Source | None:
    """The files of a row; None if the one that it names is missing."""
    is_sound = row.path.suffix.lower() in SOUND_SUFFIXES
    named = (row.path.suffix,) if row.path.suffix.lower() in MEDIA_SUFFIXES else ()
    path = _find(row, audio, named) if is_sound else _find(row, folder, (*named, *CROP_SUFFIXES))
    if path is None:
        return None
    sound = None if is_sound else _find(row, audio, SEPARATE_SUFFIXES)
    return make_source(row.id, row.name, path, sound, row.frames)


def _find(row: Row, folder: Path, suffixes: Sequence[str]) -> Path | None:
    """The file of a row with one of `suffixes`, in the folder of its corpus below `folder` or in `folder` itself."""
    return next((path for path in _candidates(row, folder, suffixes) if path.is_file()), None)


def _candidates(row: Row, folder: Path, suffixes: Sequence[str]) -> Iterator[Path]:
    for suffix in suffixes:
        yield folder / row.corpus / row.path.with_suffix(suffix)
        yield folder / row.path.with_suffix(suffix)
