"""Files beside a recording that say what is said when: its name with another suffix."""

import json
from contextlib import suppress
from pathlib import Path

from seehear.preparation.cues import Cue
from seehear.preparation.subtitles import parse_subtitles
from seehear.preparation.transcripts import read_text, read_times

SUBTITLE_SUFFIXES = (".srt", ".vtt")
SUFFIXES = (*SUBTITLE_SUFFIXES, ".tsv", ".json")
"""In the order in which they are looked for."""


def times_beside(recording: Path) -> Path | None:
    """The file with times that lies beside `recording`: the first by `SUFFIXES` if there are several.

    An object in a `.json` without `segments` is something else, such as metadata.
    """
    for suffix in SUFFIXES:
        for path in (recording.with_suffix(suffix), recording.with_suffix(suffix.upper())):
            if path.is_file() and not (suffix == ".json" and _is_metadata(path)):
                return path
    return None


def _is_metadata(path: Path) -> bool:
    with suppress(ValueError, OSError):
        values = json.loads(path.read_bytes())
        return isinstance(values, dict) and "segments" not in values
    return False


def read_cues(path: Path) -> list[Cue]:
    """The cues of such a file. Raises `CorpusError` in one line if it cannot be read."""
    if path.suffix.lower() in SUBTITLE_SUFFIXES:
        return parse_subtitles(read_text(path), path)
    return read_times(path)
