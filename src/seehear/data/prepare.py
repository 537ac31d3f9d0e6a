"""A folder of videos becomes a corpus: every clip cropped, written, and accounted for.

Beside the parts of every corpus lie `prepare.json` (the settings) and `crops.jsonl`: a line per finished clip with the
quality of its crop. A line is written when its clip is complete, so a run that was killed goes on where it stopped.
"""

import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from seehear.data.clipfile import MouthClip, write_clip
from seehear.data.corpus import Corpus, Utterance
from seehear.data.face_model import face_model, file_sha256
from seehear.data.faces import DETECT_EVERY, LandmarksFile, MediaPipeDetector
from seehear.data.media import read_audio
from seehear.data.mouth import MAX_GAP, MouthTrack, TrackReport, crop_video, read_cropped
from seehear.data.transcripts import Transcription
from seehear.data.workers import Died, spread
from seehear.errors import CorpusError, FaceError, MediaError
from seehear.files import write_atomically

VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in "3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv".split()  # noqa: SIM905
)
JOURNAL = "crops.jsonl"
SETTINGS = "prepare.json"
REJECTED = "rejected.jsonl"
GEOMETRY_VERSION = 1
"""Raised when the same video would be cropped differently."""


class FaceSource(StrEnum):
    """Where the points of the faces come from."""

    MEDIAPIPE = "mediapipe"
    LANDMARKS = "landmarks"
    CROPPED = "cropped"


@dataclass(frozen=True)
class CropSettings:
    """How the mouth is found. All clips of a corpus share these."""

    faces: FaceSource = FaceSource.MEDIAPIPE
    model: Path | None = None
    """The `.task` file of MediaPipe's Face Landmarker; None takes the cached one."""
    landmarks: Path | None = None
    """Folder with an ID.npz for each clip, as `LandmarksFile` reads it."""
    detect_every: int = DETECT_EVERY
    max_gap: int = MAX_GAP

    def record(self) -> dict[str, Any]:
        """What decides how a crop looks, for `prepare.json`."""
        record: dict[str, Any] = {"faces": self.faces.value, "geometry": GEOMETRY_VERSION}
        if self.faces is FaceSource.MEDIAPIPE:
            record |= {"face_model_sha256": file_sha256(face_model(self.model)), "detect_every": self.detect_every}
        return record if self.faces is FaceSource.CROPPED else record | {"max_gap": self.max_gap}


@dataclass(frozen=True)
class Source:
    """A video to prepare."""

    id: str
    """Its path below the source folder, without the suffix."""
    path: Path
    name: str
    """Its path below the source folder."""
    fingerprint: tuple[int, int]
    """Size in bytes and time of its last change: a source that changed is prepared again."""


@dataclass(frozen=True)
class Prepared:
    """A clip that was written."""

    source: Source
    frames: int
    report: TrackReport

    def to_json(self) -> dict[str, Any]:
        """A line of `crops.jsonl`."""
        return {
            "id": self.source.id,
            "source": self.source.name,
            "fingerprint": self.source.fingerprint,
            "frames": self.frames,
            **asdict(self.report),
        }


@dataclass(frozen=True)
class Rejected:
    """A clip that was not, and why."""

    source: str
    reason: str


@dataclass
class Plan:
    """What there is to do."""

    todo: list[Source]
    done: list[Prepared]
    """Finished by an earlier run."""
    rejected: list[Rejected] = field(default_factory=list)
    """Known to be unusable before any work."""


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    corpus: Corpus
    prepared: list[Prepared]
    rejected: list[Rejected]
    notes: list[str]
    """What did not fit together: transcripts without clips, clips without transcripts, splits that lost clips."""


def find_sources(folder: Path, leave_out: Path) -> tuple[list[Source], list[Rejected]]:
    """Every video below `folder` but not below `leave_out`, by id; and those whose id is taken."""
    sources: dict[str, Source] = {}
    rejected = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or path.suffix.lower() not in VIDEO_SUFFIXES or not path.is_file() or path.is_relative_to(leave_out):
            continue
        name = path.relative_to(folder).as_posix()
        id = name[: -len(path.suffix)]
        stat = path.stat()
        if not id.isprintable():
            rejected.append(Rejected(name, "its name has characters that cannot stand in a list"))
        elif id in sources:
            rejected.append(Rejected(name, f"has the same name but for the suffix as {sources[id].name}: rename one"))
        else:
            sources[id] = Source(id, path, name, (stat.st_size, stat.st_mtime_ns))
    return list(sources.values()), rejected


def plan(folder: Path, out: Path, settings: CropSettings) -> Plan:
    """Compare the videos in `folder` with what `out` already holds.

    Raises `CorpusError` if there is nothing to prepare, or `out` was made with other settings.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder} is no folder of videos")
    sources, rejected = find_sources(folder.resolve(), out.resolve())
    if not sources:
        raise CorpusError(f"{folder} holds no videos ({', '.join(sorted(VIDEO_SUFFIXES))})")
    record = settings.record()
    earlier = _read_settings(out)
    if earlier not in (None, record):
        raise CorpusError(
            f"{out} was prepared with other settings ({_difference(earlier, record)}): choose another folder"
        )
    write_atomically(out / SETTINGS, json.dumps(record, indent=2) + "\n")
    finished = {(p.source.id, p.source.fingerprint): p for p in read_journal(out)} if earlier else {}
    done, todo = [], []
    for source in sources:
        known = finished.get((source.id, source.fingerprint))
        if known and clip_path(out, source.id).is_file():
            done.append(known)
        else:
            todo.append(source)
    return Plan(todo, done, rejected)


def _read_settings(out: Path) -> dict[str, Any] | None:
    path = out / SETTINGS
    if path.is_file():
        return dict(json.loads(path.read_text(encoding="utf-8")))
    if out.is_dir() and any(entry for entry in out.iterdir() if not entry.name.startswith(".")):
        raise CorpusError(
            f"{out} holds something else than a corpus that `seehear prepare` made: choose an empty folder"
        )
    return None


def _difference(earlier: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    earlier = earlier or {}
    keys = [key for key in {**earlier, **now} if earlier.get(key) != now.get(key)]
    return ", ".join(f"{key} {earlier.get(key, 'none')}, now {now.get(key, 'none')}" for key in keys)


def clip_path(out: Path, id: str) -> Path:
    """Where the clip `id` lies in the corpus `out`."""
    return out / "clips" / f"{id}.mp4"


def read_journal(out: Path) -> Iterator[Prepared]:
    """The finished clips that `crops.jsonl` lists; a last line that was cut off by a kill is left out."""
    path = out / JOURNAL
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        id, name, fingerprint = values.pop("id"), values.pop("source"), tuple(values.pop("fingerprint"))
        frames = values.pop("frames")
        values |= {key: tuple(values[key]) for key in ("mouth_offset", "warnings")}
        yield Prepared(Source(id, Path(), name, fingerprint), frames, TrackReport(**values))


class Preparer:
    """What a worker process does, clip after clip; it opens the detector once."""

    def __init__(self, out: Path, settings: CropSettings) -> None:
        import cv2

        cv2.setNumThreads(1)  # the processes share the cores already
        self.out = out
        self.settings = settings
        self.detector = (
            MediaPipeDetector(face_model(settings.model), settings.detect_every)
            if settings.faces is FaceSource.MEDIAPIPE
            else None
        )

    def __call__(self, source: Source) -> Prepared | Rejected:
        """Prepare one clip. Raises `CorpusError` if the corpus cannot be written."""
        try:
            track = self._crop(source)
            audio = read_audio(source.path, num_frames=len(track.frames))
        except (FaceError, MediaError) as error:
            return Rejected(source.name, str(error))
        except Exception as error:  # a fault of ours, or of a library: the others go on
            return Rejected(source.name, f"unexpected {type(error).__name__}: {error}")
        try:
            write_clip(clip_path(self.out, source.id), MouthClip(track.frames, audio))
        except OSError as error:
            raise CorpusError(f"{self.out} cannot be written: {error.strerror or error}") from error
        return Prepared(source, len(track.frames), track.report)

    def _crop(self, source: Source) -> MouthTrack:
        if self.settings.faces is FaceSource.CROPPED:
            return read_cropped(source.path)
        if self.detector is not None:
            return crop_video(source.path, self.detector, max_gap=self.settings.max_gap)
        assert self.settings.landmarks is not None
        landmarks = LandmarksFile(self.settings.landmarks / f"{source.id}.npz")
        return crop_video(source.path, landmarks, max_gap=self.settings.max_gap)


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
    with (out / JOURNAL).open("a", encoding="utf-8") as journal:
        for source, result in spread(partial(Preparer, out, settings), plan.todo, workers):
            clip = Rejected(source.name, result.reason) if isinstance(result, Died) else result
            if isinstance(clip, Prepared):
                prepared.append(clip)
                journal.write(_json_line(clip.to_json()))
                journal.flush()
            else:
                rejected.append(clip)
            on_clip(clip)
    prepared.sort(key=lambda clip: clip.source.id)
    rejected.sort(key=lambda clip: clip.source)
    write_atomically(out / JOURNAL, "".join(_json_line(clip.to_json()) for clip in prepared))
    write_atomically(out / REJECTED, "".join(_json_line(asdict(clip)) for clip in rejected))
    utterances, notes = _utterances(prepared, rejected, transcripts)
    kept, lost = _splits(splits or {}, {utterance.id for utterance in utterances})
    return Outcome(Corpus.write(out, utterances, kept), prepared, rejected, notes + lost)


def _json_line(values: Mapping[str, Any]) -> str:
    return json.dumps(values, ensure_ascii=False) + "\n"


def _utterances(
    prepared: Sequence[Prepared], rejected: Sequence[Rejected], transcripts: Mapping[str, Transcription] | None
) -> tuple[list[Utterance], list[str]]:
    """The manifest, and what the transcripts and the clips do not say about each other."""
    used = {}
    utterances = []
    for clip in prepared:
        id, name = clip.source.id, clip.source.name
        key = next((key for key in (id, name) if key in (transcripts or {})), None)
        spoken = transcripts[key] if transcripts and key else None
        used[key] = id
        utterances.append(
            Utterance(
                id=id,
                clip=f"clips/{id}.mp4",
                frames=clip.frames,
                text=spoken.text or None if spoken else None,
                speaker=spoken.speaker if spoken else None,
                source=name,
            )
        )
    if transcripts is None:
        return utterances, []
    names = {name for clip in rejected for name in (clip.source, clip.source.rpartition(".")[0])}
    unknown = [id for id in transcripts if id not in used and id not in names]
    silent = [utterance.id for utterance in utterances if utterance.text is None]
    notes = [_count(unknown, "transcripts have no clip"), _count(silent, "clips have no transcript")]
    return utterances, [note for note in notes if note]


def _splits(splits: Mapping[str, Sequence[str]], known: set[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The splits without the ids that are not in the corpus, and notes of what they lost."""
    kept = {name: [id for id in ids if id in known] for name, ids in splits.items()}
    notes = [
        _count([id for id in ids if id not in known], f"clips of the split '{name}' are not in the corpus")
        for name, ids in splits.items()
    ]
    return {name: ids for name, ids in kept.items() if ids}, [note for note in notes if note]


def _count(ids: Sequence[str], what: str) -> str:
    """ "3 `what`: a, b, c", or nothing if there are none."""
    shown = ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
    return f"{len(ids)} {what}: {shown}" if ids else ""


def read_splits(folder: Path) -> dict[str, list[str]]:
    """The lists of ids NAME.txt in `folder`, one id per line. Raises `CorpusError` if there are none."""
    lists = sorted(folder.glob("*.txt"))
    if not lists:
        raise CorpusError(f"{folder} holds no splits: NAME.txt with an id per line")
    return {
        path.stem: [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        for path in lists
    }


@contextmanager
def claimed(out: Path) -> Iterator[None]:
    """Hold `out` for this run. Raises `CorpusError` if another run holds it, or it cannot be written."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = os.open(out / ".lock", os.O_CREAT | os.O_RDWR)
    except OSError as error:
        raise CorpusError(f"{out} cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise CorpusError(f"another `seehear prepare` is at work in {out}") from error
    finally:
        os.close(lock)
