"""What is known to be said in the recordings of a folder: from a table, and from files that lie beside them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from seehear.errors import CorpusError
from seehear.preparation.cues import Cue
from seehear.preparation.sources import Source
from seehear.preparation.times import SUBTITLE_SUFFIXES, find_times, read_cues
from seehear.preparation.transcripts import Transcription, of_cues

LANGUAGE = re.compile(r"\.[A-Za-z]{2,3}([-_][A-Za-z0-9]{1,8})*")
"""What stands between the name of a recording and the suffix of subtitles: `.en`, `.pt-BR`."""


class Label(NamedTuple):
    """What is known of a recording."""

    transcription: Transcription
    origin: str | None = None
    """Where its cues come from: a file's name, `TABLE` or `WORD_TIMES`."""
    whole: bool = False
    """There is one text for all of it, and no times."""
    fault: str | None = None
    """What is wrong with the file beside it."""

    @property
    def cues(self) -> tuple[Cue, ...]:
        """Its parts, where their times are known."""
        return self.transcription.cues


NOTHING = Label(Transcription(""))


@dataclass
class Labels:
    """What is known of recordings and parts."""

    by_id: dict[str, Label]
    several_languages: list[str] = field(default_factory=list)
    """Subtitles in several languages beside a recording, none of which is used: their names."""

    def of(self, id: str) -> Label:
        """What is known of the recording or part `id`."""
        return self.by_id.get(id, NOTHING)


def collect_labels(
    sources: Sequence[Source], transcripts: Mapping[str, Transcription], *, from_earlier_run: bool = False
) -> Labels:
    """The labels of `sources` by `transcripts` and the files beside them; those of parts by `transcripts` alone.

    A transcript may name a recording with its suffix. Its times come before those of a file, its text before theirs,
    unless the transcripts are `from_earlier_run`.
    """
    ids = {source.name: source.id for source in sources}
    given = {ids.get(key, key): text for key, text in reversed([*transcripts.items()])}
    labels = Labels({id: _of_table(text) for id, text in given.items()})
    for source, paths in _beside(sources):
        label, path = labels.of(source.id), paths[0]
        if label.cues:
            continue
        if len(paths) > 1:
            labels.several_languages.append(f"{source.name}: {', '.join(path.name for path in paths)}")
            continue
        try:
            found = of_cues(read_cues(path))
        except CorpusError as error:
            labels.by_id[source.id] = label._replace(fault=str(error).replace(f"{path}", path.name, 1))
            continue
        first, second = (found, label.transcription) if from_earlier_run else (label.transcription, found)
        merged = Transcription(first.text or second.text, first.speaker or second.speaker, found.cues)
        labels.by_id[source.id] = Label(merged, path.name) if found.cues else label
    return labels


def _of_table(text: Transcription) -> Label:
    return Label(text, text.origin if text.cues else None, bool(text.text and not text.cues))


def _beside(sources: Iterable[Source]) -> Iterable[tuple[Source, list[Path]]]:
    """Each of `sources` that has a file with times, and that: ID.srt and the like, else those named ID.LANGUAGE.srt."""
    found = find_times({source.path.parent for source in sources})
    stems = {source.path.with_suffix("") for source in sources}
    languages: dict[Path, list[Path]] = {}
    for stem, path in found.items():
        if stem not in stems and LANGUAGE.fullmatch(stem.suffix) and path.suffix.lower() in SUBTITLE_SUFFIXES:
            languages.setdefault(stem.with_suffix(""), []).append(path)
    for source in sources:
        stem = source.path.with_suffix("")
        if paths := [found[stem]] if stem in found else languages.get(stem):
            yield source, paths
