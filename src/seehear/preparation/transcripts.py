"""Tables that say what is spoken in which recording: TSV, CSV or JSON lines."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from seehear.errors import CorpusError

COLUMNS = ("id", "text", "speaker")
DELIMITERS = {".tsv": "\t", ".txt": "\t", ".csv": ","}
FAULTS_SHOWN = 10


class Transcription(NamedTuple):
    """What is known about a recording."""

    text: str
    speaker: str | None = None


def read_transcripts(path: Path) -> dict[str, Transcription]:
    """The table in `path` by id.

    TSV and CSV have the columns id, text and perhaps speaker, in this order unless a first line names them; JSON lines
    have these keys. Raises one `CorpusError` that lists the faulty lines.
    """
    suffix = path.suffix.lower()
    try:
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise CorpusError(f"the transcripts {path} cannot be read: {error.strerror}") from error
    if suffix == ".jsonl":
        rows = _json_rows(content)
    elif suffix in DELIMITERS:
        rows = _table_rows(content, DELIMITERS[suffix])
    else:
        raise CorpusError(f"{path}: transcripts are .tsv, .csv or .jsonl")
    transcripts: dict[str, Transcription] = {}
    faults = []
    for line, row in rows:
        if isinstance(row, str):
            faults.append(f"line {line}: {row}")
        elif row["id"] in transcripts:
            faults.append(f"line {line}: the id '{row['id']}' stands twice")
        else:
            transcripts[row["id"]] = Transcription(row["text"], row.get("speaker") or None)
    if faults:
        more = f"; and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise CorpusError(f"{path}: {'; '.join(faults[:FAULTS_SHOWN])}{more}")
    return transcripts


Row = dict[str, str] | str
"""The values of a line, or what is wrong with it."""


def _table_rows(content: str, delimiter: str) -> Iterator[tuple[int, Row]]:
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
            columns = columns or (header if {"id", "text"} <= set(header) else COLUMNS)
            if columns is not header:
                yield line, _checked(values, columns)
        line = reader.line_num + 1


def _checked(values: Sequence[str], columns: Sequence[str]) -> Row:
    if len(values) > len(columns):
        return f"{len(values)} columns where there should be at most {len(columns)}; quote a text that has commas"
    row = dict(zip(columns, values, strict=False))
    if not row.get("id"):
        return "no id"
    return row if "text" in row else "no text"


def _json_rows(content: str) -> Iterator[tuple[int, Row]]:
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, f"not valid JSON ({error.msg})"
            continue
        if not isinstance(values, dict) or not all(isinstance(values.get(key), str) for key in ("id", "text")):
            yield number, "must be an object with the texts 'id' and 'text'"
        elif not isinstance(values.get("speaker", ""), str):
            yield number, "'speaker' must be a text"
        else:
            yield number, {key: values[key].strip() for key in COLUMNS if key in values}
