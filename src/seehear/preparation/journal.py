"""What has been prepared, as it is written to files of JSON lines and read back by the next run.

A line of `crops.jsonl` is written when its clip is complete, one of `recordings.jsonl` when all parts of a long
recording are; so a run that was killed goes on where it stopped.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from seehear.data.mouth import TrackReport
from seehear.files import whole_records, write_atomically
from seehear.listening.options import WindowOptions
from seehear.modality import FRAME_RATE, Modality
from seehear.preparation.cues import Cue, LeftOut, PlacedCue, place_cues
from seehear.preparation.sources import Source

JOURNAL = "crops.jsonl"
RECORDINGS = "recordings.jsonl"


@dataclass(frozen=True)
class Place:
    """Where a part lies in its recording, and what is known of it."""

    recording: str
    """The recording's id."""
    start: float
    """In seconds, as is `end`."""
    end: float
    text: str | None = None
    speaker: str | None = None


@dataclass(frozen=True)
class Prepared:
    """A clip that was written."""

    source: Source
    """Of a part, its recording with the id of the part."""
    frames: int
    report: TrackReport | None
    """How its crop turned out, without warnings; None for sound alone."""
    streams: Modality = Modality.AUDIOVISUAL
    warnings: tuple[str, ...] = ()
    place: Place | None = None
    """None if the clip is a whole recording."""

    def to_json(self) -> dict[str, Any]:
        """A line of `crops.jsonl`."""
        streams = {} if self.streams is Modality.AUDIOVISUAL else {"streams": self.streams.value}
        place = {} if self.place is None else {"part": _known(asdict(self.place))}
        return {
            "id": self.source.id,
            "source": self.source.name,
            "fingerprint": self.source.fingerprint,
            "frames": self.frames,
            **place,
            **streams,
            **(asdict(self.report) if self.report else {}),
            "warnings": self.warnings,
        }

    @property
    def recording(self) -> str:
        """The id of the recording that it is, or is a part of."""
        return self.place.recording if self.place else self.source.id

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Prepared":
        """The clip of such a line; its source without the path of its files."""
        fields = _tuples(values)
        source, frames = _pop_source(fields), fields.pop("frames")
        streams = Modality(fields.pop("streams", Modality.AUDIOVISUAL))
        place = Place(**fields.pop("part")) if "part" in fields else None
        warnings = fields.pop("warnings")
        report = TrackReport.from_json(fields) if streams.uses_video else None
        return cls(source, frames, report, streams, warnings, place)


@dataclass(frozen=True)
class Cutting:
    """How a long recording is cut: what decides where its parts begin and end."""

    longest: float
    """Of a part, in seconds."""
    pause: float | None = None
    """In seconds; None where times are given."""
    times: str | None = None
    """Where these times come from: a file, or the table of transcripts."""
    times_sha256: str | None = None
    """Of the frames that these times take: their texts may change."""

    @classmethod
    def at(cls, windows: WindowOptions, cues: Sequence[Cue], origin: str | None) -> "Cutting":
        """At the times of `cues`, which come from `origin`; without any, at pauses."""
        if not cues:
            return cls(windows.longest, windows.pause)
        placed, _ = place_cues(cues, windows.longest)
        digest = hashlib.sha256(json.dumps([window for _, window in placed]).encode()).hexdigest()
        return cls(windows.longest, None, origin, digest)


@dataclass(frozen=True)
class Cut:
    """A long recording whose parts were written, and what is in none of them."""

    source: Source
    frames: int
    """Length of the recording."""
    parts: tuple[Prepared, ...]
    cutting: Cutting
    between: float
    """Seconds between parts: silence, or what no cue covers."""
    beyond: float = 0.0
    """Seconds of sound after the end of the picture, which no part has."""
    skipped: tuple[LeftOut, ...] = ()
    """Where no face can be followed."""
    unused: tuple[LeftOut, ...] = ()
    """Cues that cannot be clips."""
    warnings: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """Of its parts."""
        return tuple(part.source.id for part in self.parts)

    def with_texts(self, placed: Sequence[PlacedCue]) -> "Cut":
        """The same, with the texts and speakers of the cues `placed` now, which take the frames that they took."""
        cues = {window.start: cue for cue, window in placed}
        parts = tuple(_with_text(part, cues) for part in self.parts)
        return replace(self, parts=parts)

    def to_json(self) -> dict[str, Any]:
        """A line of `recordings.jsonl`."""
        return {
            "id": self.source.id,
            "source": self.source.name,
            "fingerprint": self.source.fingerprint,
            "frames": self.frames,
            "parts": len(self.parts),
            **_known(asdict(self.cutting)),
            "between": round(self.between, 2),
            **({"sound_after_picture": round(self.beyond, 2)} if self.beyond else {}),
            "without_face": [_known(asdict(gap)) for gap in self.skipped],
            "unused_times": [_known(asdict(gap)) for gap in self.unused],
            "warnings": self.warnings,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], parts: Iterable[Prepared]) -> "Cut | None":
        """The recording of such a line with those of `parts` that are its own; None if some are missing."""
        source = _pop_source(fields := _tuples(values))
        own = tuple(part for part in parts if part.source.fingerprint == source.fingerprint)
        if len(own) != fields["parts"]:
            return None
        cutting = Cutting(fields["longest"], *(fields.get(key) for key in ("pause", "times", "times_sha256")))
        skipped, unused = (tuple(LeftOut(**gap) for gap in fields[key]) for key in ("without_face", "unused_times"))
        left_out = fields["between"], fields.get("sound_after_picture", 0.0), skipped, unused
        return cls(source, fields["frames"], own, cutting, *left_out, fields["warnings"])


def _with_text(part: Prepared, cues: Mapping[int, Cue]) -> Prepared:
    """The part with the text and speaker of its cue, which is found by its first frame."""
    cue = part.place and cues.get(round(part.place.start * FRAME_RATE))
    if part.place is None or cue is None:
        return part
    return replace(part, place=replace(part.place, text=cue.text, speaker=cue.speaker))


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def _pop_source(fields: dict[str, Any]) -> Source:
    return Source(fields.pop("id"), fields.pop("source"), Path(), fields.pop("fingerprint"))


def read_clips(out: Path) -> Iterator[Prepared]:
    """The finished clips that `crops.jsonl` lists; a line that a kill cut off is left out."""
    for record in whole_records(out / JOURNAL):
        with suppress(ValueError, KeyError, TypeError):
            yield Prepared.from_json(record)


def read_cuts(out: Path, clips: Iterable[Prepared]) -> Iterator[Cut]:
    """The long recordings that `recordings.jsonl` lists and whose parts are all among `clips`."""
    parts: dict[str, list[Prepared]] = {}
    for clip in clips:
        if clip.place:
            parts.setdefault(clip.place.recording, []).append(clip)
    for record in whole_records(out / RECORDINGS):
        with suppress(ValueError, KeyError, TypeError):
            if cut := Cut.from_json(record, parts.get(record["id"], ())):
                yield cut


class Journal:
    """The two files, while a run adds to them."""

    def __init__(self, out: Path, clips: Sequence[Prepared], cuts: Sequence[Cut]) -> None:
        """`clips`, parts included, and `cuts` stay from an earlier run."""
        self.clips, self.cuts = [*clips], [*cuts]
        self._out = out
        self.rewrite()

    def add(self, done: Prepared | Cut) -> None:
        """Note a clip, or a recording after its parts."""
        clips = done.parts if isinstance(done, Cut) else (done,)
        self.clips += clips
        self._append(JOURNAL, clips)
        if isinstance(done, Cut):
            self.cuts.append(done)
            self._append(RECORDINGS, (done,))

    def _append(self, name: str, lines: Iterable[Prepared | Cut]) -> None:
        with (self._out / name).open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line.to_json(), ensure_ascii=False) + "\n" for line in lines))

    def rewrite(self) -> None:
        """Write both files anew, by id. There is none of recordings if no recording is long."""
        self.clips.sort(key=lambda clip: clip.source.id)
        self.cuts.sort(key=lambda cut: cut.source.id)
        write_lines(self._out / JOURNAL, [clip.to_json() for clip in self.clips])
        if self.cuts or (self._out / RECORDINGS).exists():
            write_lines(self._out / RECORDINGS, [cut.to_json() for cut in self.cuts])


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, whole or not at all."""
    write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
