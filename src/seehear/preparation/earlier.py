"""What an earlier run left in a corpus, and what of it still holds for recordings that are cut at other places."""

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from seehear.data.corpus import MANIFEST, SPLITS, Corpus, Utterance
from seehear.preparation.journal import Place, Prepared, read_clips
from seehear.preparation.sources import count, read_splits
from seehear.preparation.transcripts import Transcription

PART = re.compile(r"(.+)-\d{4,}")
"""The id of a part; the group is that of its recording."""


class Earlier:
    """The corpus that the last complete run wrote, and what the last run had finished."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self.utterances: Mapping[str, Utterance] = {}
        if (out / MANIFEST).is_file():
            self.utterances = Corpus.load(out).utterances
        self.clips = [*read_clips(out)]
        """May begin anew after a run that was interrupted, unlike the corpus."""
        self.places: dict[str, Place] = {clip.source.id: clip.place for clip in self.clips if clip.place}
        """Where the parts lie in their recordings, by id."""

    @cached_property
    def parts(self) -> dict[str, list[Utterance]]:
        """The parts in the corpus, by the ids of their recordings."""
        parts: dict[str, list[Utterance]] = {}
        for utterance in self.utterances.values():
            if recording := _recording_of(utterance):
                parts.setdefault(recording, []).append(utterance)
        return parts

    def texts(self) -> dict[str, Transcription]:
        """What is known of clips, and of long recordings whose parts have one speaker."""
        known = {u.id: Transcription(u.text or "", u.speaker) for u in self.utterances.values() if u.text or u.speaker}
        speakers = {recording: {part.speaker for part in parts} for recording, parts in self.parts.items()}
        return known | {id: Transcription("", names.pop()) for id, names in speakers.items() if len(names) == 1}

    def recut(self, clips: Iterable[Prepared], ids: Iterable[str]) -> set[str]:
        """Which of the recordings `ids` had other parts than they have among `clips`."""
        now: dict[str, dict[str, Prepared]] = {}
        for clip in clips:
            if clip.place:
                now.setdefault(clip.place.recording, {})[clip.source.id] = clip
        return {id for id in ids if id in self.parts and not self._same(self.parts[id], now.get(id, {}))}

    def _same(self, before: Sequence[Utterance], now: Mapping[str, Prepared]) -> bool:
        if {part.id: part.frames for part in before} != {id: clip.frames for id, clip in now.items()}:
            return False
        places = [(self.places.get(id), clip.place) for id, clip in now.items()]
        return all(old is None or new is None or old.start == new.start for old, new in places)

    def splits(self, recut: Iterable[str], given: Container[str]) -> tuple[dict[str, list[str]], list[str]]:
        """The lists of the corpus, but for those that are `given` now, and notes.

        In place of all parts of a recording that was `recut` stands its id. If a list has some of them only, they are
        left out: nobody knows which of the new parts belong there.
        """
        lists = read_splits(self._out / SPLITS) if any((self._out / SPLITS).glob("*.txt")) else {}
        lists = {name: ids for name, ids in lists.items() if name not in given}
        owners = {part.id: recording for recording in recut for part in self.parts[recording]}
        notes = []
        for name, ids in lists.items():
            named = {owners[id] for id in ids if id in owners}
            whole = {recording for recording in named if {part.id for part in self.parts[recording]} <= set(ids)}
            renamed = [owners.get(id, id) for id in ids]
            lists[name] = [id for id in renamed if id in whole or id not in named]
            what = f"recordings that were cut anew and of which the split '{name}' had some parts only, now none"
            notes.append(count(what, sorted(named - whole)))
        return lists, [note for note in notes if note]


def _recording_of(utterance: Utterance) -> str | None:
    """The id of the recording that `utterance` is a part of; None if it is a whole one."""
    match, source = PART.fullmatch(utterance.id), utterance.source or ""
    return match[1] if match and source.removesuffix(Path(source).suffix) == match[1] else None
