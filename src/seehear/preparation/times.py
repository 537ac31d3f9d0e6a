"""Files beside a recording that say what is said when: its name with another suffix."""

import json
from collections.abc import Iterable
from pathlib import Path

from seehear.preparation.cues import Cue
from seehear.preparation.subtitles import parse_subtitles
from seehear.preparation.transcripts import TIMED, read_text, read_times

SUBTITLE_SUFFIXES = (".srt", ".vtt")
SUFFIXES = (*SUBTITLE_SUFFIXES, ".tsv", ".json")
"""In the order in which they are looked for."""


def find_times(folders: Iterable[Path]) -> dict[Path, Path]:
    """The files with times in `folders`, by their paths without the suffix: of several, the first by `SUFFIXES`.

    A `.tsv` without the columns start, end and text, and a `.json` without a list of objects with start and text, are
    something else, such as metadata or alignments.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
        for path in sorted(files, key=lambda path: (SUFFIXES.index(path.suffix.lower()), path)):
            if path.with_suffix("") not in found and _may_have_times(path):
                found[path.with_suffix("")] = path
    return found


def _may_have_times(path: Path) -> bool:
    """Whether a file is one of times, or may be: it is damaged."""
    suffix = path.suffix.lower()
    try:
        return _is_table(path) if suffix == ".tsv" else suffix != ".json" or _is_list(path)
    except (ValueError, OSError):
        return True


def _is_table(path: Path) -> bool:
    """Whether a TSV has the columns start, end and text. Raises `ValueError` if it is not UTF-8."""
    with path.open(encoding="utf-8-sig") as file:
        first = next((line for line in file if line.strip()), "")
    return set(TIMED) <= {column.strip().lower() for column in first.split("\t")}


def _is_list(path: Path) -> bool:
    """Whether a JSON file holds a list of objects with start and text, itself or as `segments`. Raises `ValueError` if
    it is no JSON."""
    values = json.loads(path.read_bytes())
    listed = values.get("segments") if isinstance(values, dict) else values
    first = listed[:1] if isinstance(listed, list) else [None]
    return all(isinstance(entry, dict) and {"start", "text"} <= entry.keys() for entry in first)


def read_cues(path: Path) -> list[Cue]:
    """The cues of such a file. Raises `CorpusError` in one line if it cannot be read."""
    if path.suffix.lower() in SUBTITLE_SUFFIXES:
        return parse_subtitles(read_text(path), path)
    return read_times(path)
