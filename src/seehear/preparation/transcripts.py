"""Tables that say what is spoken in which recording, perhaps from when until when: TSV, CSV or JSON."""

import csv
import io
import itertools
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from seehear.errors import CorpusError
from seehear.preparation.cues import Cue, joined, parse_clock

COLUMNS = ("id", "text", "speaker")
TIMES = ("start", "end")
TIMED = (*TIMES, "text")
"""Columns of a table of times."""
DELIMITERS = {".tsv": "\t", ".txt": "\t", ".csv": ","}
FAULTS_SHOWN = 10
TABLE = "the table of transcripts"
WORD_TIMES = "the word times of the layout"


class Transcription(NamedTuple):
    """What is known about a recording."""

    text: str
    """All that is said."""
    speaker: str | None = None
    cues: tuple[Cue, ...] = ()
    """Its parts, where their times are known."""
    origin: str = TABLE
    """Where the cues come from: `TABLE` or `WORD_TIMES`."""


def read_transcripts(path: Path) -> dict[str, Transcription]:
    """The table in `path` by id.

    TSV and CSV have the columns id, text and perhaps speaker, in this order unless a first line names them; with the
    columns start and end there may be several lines of an id, all of them with times. JSON (a list of objects, or one
    a line) has these keys. Raises one `CorpusError` that lists the faulty lines.
    """
    transcripts: dict[str, Transcription] = {}
    cues: dict[str, list[Cue]] = {}
    lines: dict[str, int] = {}  # of those without times
    faults = []
    for line, row in _rows(path, ("id", "text")):
        fault = row if isinstance(row, str) else _time_fault(row)
        if fault or isinstance(row, str):
            faults.append(f"line {line}: {fault}")
        elif row.get("start"):
            cues.setdefault(row["id"], []).append(_cue(row))
        elif row["id"] in transcripts:
            faults.append(f"line {line}: the id '{row['id']}' stands twice")
        else:
            transcripts[row["id"]] = Transcription(row["text"], row.get("speaker") or None)
            lines[row["id"]] = line
    both = [id for id in lines if id in cues]
    faults += [f"line {lines[id]}: the id '{id}' has times in other lines and none here" for id in both]
    _raise_faults(path, faults)
    return transcripts | {id: of_cues(parts) for id, parts in cues.items()}


def header_fault(path: Path, transcripts: Collection[str], known: Collection[str]) -> str | None:
    """What is probably wrong with the first line of the table `path` where it was taken for a recording that is not
    `known`, though the second line is of one; `transcripts` are the ids in the order of the table."""
    first, second = [*itertools.islice(transcripts, 2), "", ""][:2]
    if path.suffix.lower() not in DELIMITERS or first in known or second not in known:
        return None
    names = ", ".join((*COLUMNS, *TIMES))
    return f"{path.name}: '{first}' in the first line was taken for an id; columns are called {names}"


def of_cues(cues: Sequence[Cue]) -> Transcription:
    """The transcription of a recording whose `cues` are known."""
    return Transcription(*joined(cues), tuple(cues))


def read_times(path: Path) -> list[Cue]:
    """The cues of a table of one recording: columns or keys start, end, text and perhaps speaker.

    JSON may be what Whisper writes, an object with such `segments`. A TSV of whole numbers with no other columns is
    Whisper's as well, in milliseconds. Raises one `CorpusError` that lists the faulty lines.
    """
    cues, faults, whole = [], [], True
    for line, row in _rows(path, TIMED):
        fault = row if isinstance(row, str) else _time_fault(row) or ("" if row.get("start") else "no start")
        if fault or isinstance(row, str):
            faults.append(f"line {line}: {fault}")
        else:
            cues.append(_cue(row))
            whole &= set(row) == set(TIMED) and row["start"].isdecimal() and row["end"].isdecimal()
    _raise_faults(path, faults)
    if path.suffix.lower() == ".tsv" and whole:
        return [cue._replace(start=cue.start / 1000, end=cue.end / 1000) for cue in cues]
    return cues


def _raise_faults(path: Path, faults: Sequence[str]) -> None:
    if faults:
        more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise CorpusError(f"{path}: {'; '.join(faults[:FAULTS_SHOWN])}{more}")


def read_text(path: Path) -> str:
    """The text file `path`, in UTF-8 with or without a byte order mark. Raises `CorpusError` if it is none."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise CorpusError(f"the transcripts {path} cannot be read: {error.strerror}") from error


Values = dict[str, str]
Row = Values | str
"""The values of a line, or what is wrong with it."""


def _rows(path: Path, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    """The lines of a table with their numbers. Raises `CorpusError` if it is no such file."""
    suffix, content = path.suffix.lower(), read_text(path)
    if suffix in (".jsonl", ".json"):
        return _json_rows(content, needed, lines=suffix == ".jsonl")
    if suffix in DELIMITERS:
        return _table_rows(content, DELIMITERS[suffix], needed)
    raise CorpusError(f"{path}: transcripts are .tsv, .csv, .jsonl or .json")


def _time_fault(row: Values) -> str | None:
    """What is wrong with the times of a line, if it has any."""
    for key in ("start", "end") if row.get("start") or row.get("end") else ():
        if parse_clock(row.get(key, "")) is None:
            return f"'{key}' is '{row.get(key, '')}', not seconds or HH:MM:SS.mmm"
    return None


def _cue(row: Values) -> Cue:
    """The cue of a line whose times are right."""
    start, end = (parse_clock(row[key]) or 0.0 for key in ("start", "end"))
    return Cue(start, end, " ".join(row["text"].split()), row.get("speaker") or None)


def _table_rows(content: str, delimiter: str, needed: Sequence[str]) -> Iterator[tuple[int, Row]]:
    file = io.StringIO(content, newline="")
    if delimiter == ",":
        reader = csv.reader(file, strict=True)
    else:  # in TSV a quotation mark is a character like any other
        reader = csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    columns: Sequence[str] | None = None
    line = 1
    while True:
        try:
            values = [value.strip() for value in next(reader)]
        except StopIteration:
            return
        except csv.Error as error:
            yield line, str(error)
            values = []
        if any(values):
            header = [value.lower() for value in values] if columns is None else []
            columns = columns or (header if set(needed) <= set(header) else COLUMNS)
            if columns is COLUMNS and needed is TIMED:
                yield line, "there must be a first line with the columns start, end and text"
                return
            if columns is not header:
                yield line, _checked(values, columns, needed)
        line = reader.line_num + 1


def _checked(values: Sequence[str], columns: Sequence[str], needed: Sequence[str]) -> Row:
    if len(values) > len(columns):
        return f"{len(values)} columns where there should be at most {len(columns)}; quote a text that has commas"
    row = dict(zip(columns, values, strict=False))
    if "id" in needed and not row.get("id"):
        return "no id"
    return row if "text" in row else "no text"


def _json_rows(content: str, needed: Sequence[str], *, lines: bool) -> Iterator[tuple[int, Row]]:
    """The objects of JSON lines, or of one JSON list, where they are counted; it may be the `segments` of an object."""
    for number, text in enumerate(content.split("\n") if lines else [content], start=1):
        if not text.strip():
            continue
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            yield error.lineno if not lines else number, f"not valid JSON ({error.msg})"
            continue
        if lines:
            yield number, _checked_object(values, needed)
        else:
            listed = values.get("segments") if isinstance(values, dict) else values
            listed = listed if isinstance(listed, list) else [None]
            yield from ((place, _checked_object(entry, needed)) for place, entry in enumerate(listed, start=1))


def _checked_object(values: Any, needed: Sequence[str]) -> Row:
    texts = [key for key in needed if key not in TIMES]
    if not isinstance(values, dict) or not all(isinstance(values.get(key), str) for key in texts):
        return f"must be an object with the texts {' and '.join(repr(key) for key in texts)}"
    if not isinstance(values.get("speaker") or "", str):
        return "'speaker' must be a text"
    times = {key: _as_text(values[key]) for key in TIMES if values.get(key) is not None}
    return {key: values[key].strip() for key in COLUMNS if isinstance(values.get(key), str)} | times


def _as_text(time: Any) -> str:
    """A number of seconds as decimals: JSON may write 1e-05."""
    return f"{time:.6f}" if isinstance(time, float) else str(time)
