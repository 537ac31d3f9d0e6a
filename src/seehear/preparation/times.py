"""Files beside a recording that say what is said when: its name with another suffix."""

import json
from collections.abc import Iterable
from pathlib import Path

from seehear.preparation.cues import Cue
from seehear.preparation.subtitles import parse_subtitles
from seehear.preparation.transcripts import read_text, read_times

SUBTITLE_SUFFIXES = (".srt", ".vtt")
SUFFIXES = (*SUBTITLE_SUFFIXES, ".tsv", ".json")
"""In the order in which they are looked for."""


def find_times(folders: Iterable[Path]) -> dict[Path, Path]:
    """The files with times in `folders`, by their paths without the suffix: of several, the first by `SUFFIXES`.

    A `.json` in which no list of objects with a start is found is something else, such as metadata.
    """
    found: dict[Path, Path] = {}
    for folder in folders:
        files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
        for path in sorted(files, key=lambda path: (SUFFIXES.index(path.suffix.lower()), path)):
            if path.with_suffix("") not in found and (path.suffix.lower() != ".json" or _may_have_times(path)):
                found[path.with_suffix("")] = path
    return found


def _may_have_times(path: Path) -> bool:
    """Whether a JSON file holds a list of objects with a start, itself or as `segments`; or is damaged."""
    try:
        values = json.loads(path.read_bytes())
    except (ValueError, OSError):
        return True
    listed = values.get("segments") if isinstance(values, dict) else values
    return isinstance(listed, list) and all(isinstance(entry, dict) and "start" in entry for entry in listed[:1])


def read_cues(path: Path) -> list[Cue]:
    """The cues of such a file. Raises `CorpusError` in one line if it cannot be read."""
    if path.suffix.lower() in SUBTITLE_SUFFIXES:
        return parse_subtitles(read_text(path), path)
    return read_times(path)
