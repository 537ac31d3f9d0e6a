"""A folder of recordings becomes a corpus: every clip cropped, written, and accounted for.

Beside the parts of every corpus lie `prepare.json` (the settings) and `crops.jsonl`: a line per finished clip with the
quality of its crop. A line is written when its clip is complete, so a run that was killed goes on where it stopped.
"""

import fcntl
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from seehear.data.clipfile import write_clip
from seehear.data.corpus import MANIFEST, Corpus, Utterance
from seehear.data.mouth import TrackReport
from seehear.data.workers import Died, spread
from seehear.errors import CorpusError, DependencyError, FaceError, MediaError, SeehearError
from seehear.files import whole_records, write_atomically
from seehear.modality import Modality
from seehear.preparation.reading import NO_PICTURES, CropSettings, SourceReader
from seehear.preparation.sources import Contents, Rejected, Source, count
from seehear.preparation.transcripts import Transcription

JOURNAL = "crops.jsonl"
SETTINGS = "prepare.json"
REJECTED = "rejected.jsonl"


@dataclass(frozen=True)
class Prepared:
    """A clip that was written."""

    source: Source
    frames: int
    report: TrackReport | None
    """How its crop turned out, without warnings; None for sound alone."""
    streams: Modality = Modality.AUDIOVISUAL
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A line of `crops.jsonl`."""
        streams = {} if self.streams is Modality.AUDIOVISUAL else {"streams": self.streams.value}
        return {
            "id": self.source.id,
            "source": self.source.name,
            "fingerprint": self.source.fingerprint,
            "frames": self.frames,
            **streams,
            **(asdict(self.report) if self.report else {}),
            "warnings": self.warnings,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Prepared":
        """The clip of such a line; its source without the path of its files."""
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        source = Source(fields.pop("id"), fields.pop("source"), Path(), fields.pop("fingerprint"))
        streams = Modality(fields.pop("streams", Modality.AUDIOVISUAL))
        frames, warnings = fields.pop("frames"), fields.pop("warnings")
        return cls(source, frames, TrackReport(**fields) if streams.uses_video else None, streams, warnings)


@dataclass
class Plan:
    """What there is to do."""

    todo: list[Source]
    done: list[Prepared]
    """Finished by an earlier run."""
    rejected: list[Rejected] = field(default_factory=list)
    """Known to be unusable before any work."""
    notes: list[str] = field(default_factory=list)
    """What does not fit the layout, and where the sound comes from another file."""


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    corpus: Corpus
    prepared: list[Prepared]
    rejected: list[Rejected]
    notes: list[str]
    """What did not fit together: transcripts without clips, clips without transcripts, splits that lost clips."""


def make_plan(contents: Contents, out: Path, settings: CropSettings) -> Plan:
    """Compare the recordings of a folder with what an earlier run left in `out`.

    Raises `CorpusError` if `out` was made with other settings.
    """
    _claim_settings(out, settings.record(contents.sources))
    for unfinished in (out / "clips").rglob("*.tmp"):
        unfinished.unlink()
    finished = {(clip.source.id, clip.source.fingerprint): clip for clip in read_journal(out)}
    finished = {key: clip for key, clip in finished.items() if clip_path(out, clip.source.id).is_file()}
    plan = Plan([], [], [*contents.rejected], [*contents.notes])
    for source in contents.sources:
        clip = finished.get((source.id, source.fingerprint))
        if clip is None:
            plan.todo.append(source)
        else:
            plan.done.append(replace(clip, source=source))
    pairs = [source.id for source in contents.sources if source.sound]
    plan.notes += [count("clips with the sound of a separate file", pairs)] if pairs else []
    return plan


def _claim_settings(out: Path, record: dict[str, Any]) -> None:
    """Note the settings in `out`. Raises `CorpusError` if it has others, or is no corpus of `seehear prepare`."""
    path = out / SETTINGS
    if path.is_file():
        try:
            earlier = dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise CorpusError(f"{path} is damaged: choose another folder") from error
        differ = [key for key in {**earlier, **record} if earlier.get(key) != record.get(key)]
        if record["faces"] == NO_PICTURES:
            return
        if differ and earlier.get("faces") != NO_PICTURES:
            both = ", ".join(f"{key} {earlier.get(key, 'none')}, now {record.get(key, 'none')}" for key in differ)
            raise CorpusError(f"{out} was prepared with other settings ({both}): choose another folder")
    elif any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise CorpusError(f"{out} is neither empty nor left by `seehear prepare`: choose another folder")
    write_atomically(path, json.dumps(record, indent=2) + "\n")


def clip_path(out: Path, id: str) -> Path:
    """Where the clip `id` lies in the corpus `out`."""
    return out / "clips" / f"{id}.mp4"


def read_journal(out: Path) -> Iterator[Prepared]:
    """The finished clips that `crops.jsonl` lists; a line that a kill cut off is left out."""
    for record in whole_records(out / JOURNAL):
        with suppress(ValueError, KeyError, TypeError):
            yield Prepared.from_json(record)


class Preparer:
    """What a worker process does, clip after clip."""

    def __init__(self, out: Path, settings: CropSettings) -> None:
        import cv2

        cv2.setNumThreads(1)  # the processes share the cores already
        self.out = out
        self.reader = SourceReader(settings)

    def __call__(self, source: Source) -> Prepared | Rejected:
        """Prepare one clip. Raises `CorpusError` if the corpus cannot be written."""
        try:
            clip, report, warnings = self.reader.read(source)
        except (FaceError, MediaError) as error:
            return Rejected(source.name, str(error).removeprefix(f"{source.path}: "))
        except DependencyError:  # concerns every clip
            raise
        except Exception as error:  # a fault of ours, or of a library: the others go on
            return Rejected(source.name, f"unexpected {type(error).__name__}: {error}")
        try:
            write_clip(clip_path(self.out, source.id), clip)
        except OSError as error:
            raise CorpusError(f"{self.out} cannot be written: {error.strerror or error}") from error
        return Prepared(source, clip.frames, report, clip.streams, warnings)


def carry_out(
    plan: Plan,
    out: Path,
    settings: CropSettings,
    *,
    transcripts: Mapping[str, Transcription] | None = None,
    splits: Mapping[str, Sequence[str]] | None = None,
    workers: int = 1,
    on_clip: Callable[[Prepared | Rejected], None] = lambda clip: None,
) -> Outcome:
    """Prepare what is to do, then write the corpus: manifest, splits, quality of the crops, rejected clips."""
    prepared = list(plan.done)
    rejected = list(plan.rejected)
    _write_lines(out / JOURNAL, [clip.to_json() for clip in prepared])
    with (out / JOURNAL).open("a", encoding="utf-8") as journal:
        for source, result in spread(partial(Preparer, out, settings), plan.todo, workers):
            clip = Rejected(source.name, result.reason) if isinstance(result, Died) else result
            if isinstance(clip, Prepared):
                prepared.append(clip)
                journal.write(json.dumps(clip.to_json(), ensure_ascii=False) + "\n")
                journal.flush()
            else:
                rejected.append(clip)
            on_clip(clip)
    prepared.sort(key=lambda clip: clip.source.id)
    rejected.sort(key=lambda clip: clip.source)
    _write_lines(out / JOURNAL, [clip.to_json() for clip in prepared])
    _write_lines(out / REJECTED, [asdict(clip) for clip in rejected])
    utterances, notes = _utterances(prepared, rejected, _earlier_texts(out) if transcripts is None else transcripts)
    spoken = [id for id, transcription in (transcripts or {}).items() if transcription.text]
    if spoken and prepared and not any(utterance.text for utterance in utterances):
        raise CorpusError(
            f"none of the {len(spoken)} transcripts is of a clip here: transcripts begin with an id such as "
            f"'{prepared[0].source.id}', not '{spoken[0]}'"
        )
    kept, lost = _splits(splits or {}, {utterance.id for utterance in utterances})
    return Outcome(Corpus.write(out, utterances, kept), prepared, rejected, plan.notes + notes + lost)


def _write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, whole or not at all."""
    write_atomically(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _utterances(
    prepared: Sequence[Prepared], rejected: Sequence[Rejected], transcripts: Mapping[str, Transcription]
) -> tuple[list[Utterance], list[str]]:
    """The manifest, and notes where transcripts and clips do not fit. A transcript may name a clip with its suffix."""
    utterances = []
    for clip in prepared:
        id, name = clip.source.id, clip.source.name
        spoken = transcripts.get(id) or transcripts.get(name) or Transcription("")
        text, path = spoken.text or None, f"clips/{id}.mp4"
        utterances.append(Utterance(id, path, clip.frames, text, spoken.speaker, name, clip.streams))
    names = [clip.source.name for clip in prepared] + [clip.source for clip in rejected]
    known = {*names, *(name.removesuffix(Path(name).suffix) for name in names)}
    unknown = [id for id in transcripts if id not in known]
    silent = [utterance.id for utterance in utterances if transcripts and utterance.text is None]
    notes = [count("transcripts without a recording", unknown), count("clips without a transcript", silent)]
    return utterances, [note for note in notes if note]


def _earlier_texts(out: Path) -> dict[str, Transcription]:
    """The transcripts that the corpus has from a run before."""
    earlier = Corpus.load(out).utterances.values() if (out / MANIFEST).is_file() else ()
    return {clip.id: Transcription(clip.text, clip.speaker) for clip in earlier if clip.text is not None}


def _splits(splits: Mapping[str, Sequence[str]], known: set[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The splits, each id once and only those in the corpus, and notes of what they lost."""
    kept = {name: list(dict.fromkeys(id for id in ids if id in known)) for name, ids in splits.items()}
    notes = [
        count(f"clips of the split '{name}' that are not in the corpus", [id for id in ids if id not in known])
        for name, ids in splits.items()
    ]
    return {name: ids for name, ids in kept.items() if ids}, [note for note in notes if note]


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Hold the folder `out` for this run; the system lets go of it however the run ends.

    Raises `CorpusError` if another run holds it or it cannot be written.
    """
    path = out / ".lock"
    new = not path.exists()
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = path.open("w")
    except OSError as error:
        raise CorpusError(f"{out} cannot be written: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CorpusError(f"another `seehear prepare` is at work in {out}") from error
        try:
            yield
        except SeehearError:
            if new:  # refused: as if nobody had come
                path.unlink()
                with suppress(OSError):
                    out.rmdir()
            raise
