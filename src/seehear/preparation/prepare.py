"""A folder of recordings becomes a corpus: every clip cropped, written, and accounted for.

Beside the parts of every corpus lie `prepare.json` (the settings), `crops.jsonl` and `recordings.jsonl` (see
`seehear.preparation.journal`), and `rejected.jsonl`.
"""

import fcntl
import itertools
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from seehear.data.corpus import MANIFEST, SPLITS, Corpus, Utterance
from seehear.data.workers import Died, spread
from seehear.errors import CorpusError, SeehearError
from seehear.files import write_atomically
from seehear.listening.options import WindowOptions
from seehear.modality import FRAME_RATE
from seehear.preparation.journal import Cut, Cutting, Journal, Prepared, read_clips, read_cuts, write_lines
from seehear.preparation.labels import Labels, collect_labels
from seehear.preparation.preparer import HowFar, Job, Preparer, clip_path
from seehear.preparation.reading import BY_SIZE, CropSettings, joined_record
from seehear.preparation.sources import Contents, Rejected, Source, count, read_splits
from seehear.preparation.transcripts import TABLE, WORD_TIMES, Transcription

SETTINGS = "prepare.json"
REJECTED = "rejected.jsonl"
CUTTING = ("longest", "pause")
"""Keys of `prepare.json` that may change from run to run: what they concern is then done anew."""
PART = re.compile(r"(.+)-\d{4,}")
"""The id of a part; the group is that of its recording."""


@dataclass
class Plan:
    """What there is to do."""

    labels: Labels
    transcripts: Mapping[str, Transcription]
    """Those that are given for this run."""
    ids: frozenset[str]
    """Of all recordings."""
    todo: list[Job] = field(default_factory=list)
    done: list[Prepared] = field(default_factory=list)
    """Finished by an earlier run, parts included."""
    cuts: list[Cut] = field(default_factory=list)
    """Long recordings finished by an earlier run."""
    rejected: list[Rejected] = field(default_factory=list)
    """Known to be unusable before any work."""
    notes: list[str] = field(default_factory=list)
    """What does not fit the layout, and where the sound comes from another file."""


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    corpus: Corpus
    prepared: list[Prepared]
    cuts: list[Cut]
    rejected: list[Rejected]
    notes: list[str]
    """What did not fit together: transcripts without clips, clips without transcripts, splits that lost clips."""


def make_plan(
    contents: Contents,
    out: Path,
    settings: CropSettings,
    windows: WindowOptions,
    transcripts: Mapping[str, Transcription] | None = None,
) -> Plan:
    """Compare the recordings of a folder with what an earlier run left in `out`.

    Without `transcripts` those of the earlier run stay. Raises `CorpusError` if `out` was made with other settings.
    """
    cut_before = _claim_settings(out, settings.record(contents.sources)).get("longest")
    _remove_unfinished(out)
    if transcripts is None:
        labels = collect_labels(contents.sources, _earlier_texts(out), from_earlier_run=True)
    else:
        labels = collect_labels(contents.sources, transcripts)
    ids = frozenset(source.id for source in contents.sources)
    plan = Plan(labels, transcripts or {}, ids, rejected=[*contents.rejected], notes=[*contents.notes])
    finished = _Finished(out, windows, cut_before, table_is_known=transcripts is not None)
    clashes = _clashes(contents.sources)
    for source in contents.sources:
        job = Job(source, labels.of(source.id), clashes.get(source.id))
        if cut := finished.cut(job):
            plan.cuts.append(replace(cut, source=source))
            plan.done += cut.parts
        elif clip := finished.clip(job):
            plan.done.append(replace(clip, source=source))
        else:
            plan.todo.append(job)
    if transcripts is None:
        _forget_parts(plan)
    plan.notes += _notes_on_plan(plan, contents.sources, round(windows.longest * FRAME_RATE))
    return plan


def _notes_on_plan(plan: Plan, sources: Sequence[Source], most: int) -> list[str]:
    """What is worth knowing before the work. Clips have at most so many frames now."""
    notes = {
        "clips with the sound of a separate file": [source.id for source in sources if source.sound],
        "clips of an earlier run that are longer and stay": [c.source.id for c in plan.done if c.frames > most],
        "files with times that cannot be read": [f for s in sources if (f := plan.labels.of(s.id).fault)],
    }
    return [count(what, ids) for what, ids in notes.items() if ids]


def _forget_parts(plan: Plan) -> None:
    """Drop the texts that parts had in an earlier run where recordings are cut anew: other parts get their ids."""
    anew = {job.source.id for job in plan.todo}
    matches = {id: PART.fullmatch(id) for id in plan.labels.by_id if id not in plan.ids}
    for id in [id for id, match in matches.items() if match and match[1] in anew]:
        del plan.labels.by_id[id]


class _Finished:
    """What an earlier run finished and is as it would be made now."""

    def __init__(self, out: Path, windows: WindowOptions, cut_before: float | None, *, table_is_known: bool) -> None:
        """`cut_before` is the longest clip of that run."""
        clips = [clip for clip in read_clips(out) if clip_path(out, clip.source.id).is_file()]
        self._clips = {(clip.source.id, clip.source.fingerprint): clip for clip in clips if clip.place is None}
        self._cuts = {(cut.source.id, cut.source.fingerprint): cut for cut in read_cuts(out, clips)}
        self._windows, self._table_is_known = windows, table_is_known
        changed = cut_before is not None and cut_before != windows.longest
        self._most = round(windows.longest * FRAME_RATE) if changed else None

    def clip(self, job: Job) -> Prepared | None:
        """The clip of a whole recording, unless it is longer than a limit that was another before."""
        clip = self._clips.get((job.source.id, job.source.fingerprint))
        if clip is None or (job.label.fault and not job.label.whole):
            return None
        return None if self._most is not None and clip.frames > self._most else clip

    def cut(self, job: Job) -> Cut | None:
        """A long recording that would be cut at the same places. Times of a table or layout stay if none is given."""
        cut, label = self._cuts.get((job.source.id, job.source.fingerprint)), job.label
        if cut is None or label.whole or label.fault or job.clash:
            return None
        now = Cutting.at(self._windows, label.cues, label.origin)
        if not label.cues and not self._table_is_known and cut.cutting.times in (TABLE, WORD_TIMES):
            now = replace(cut.cutting, longest=self._windows.longest)
        return cut if now == cut.cutting else None


def _clashes(sources: Sequence[Source]) -> dict[str, str]:
    """Recordings, by id, of whose parts one would have the id of another recording, and the name of that."""
    ids = {source.id for source in sources}
    matches = [(source, PART.fullmatch(source.id)) for source in sources]
    return {match[1]: source.name for source, match in matches if match and match[1] in ids}


def _claim_settings(out: Path, record: dict[str, Any]) -> dict[str, Any]:
    """Note the settings in `out`; the earlier ones, or none.

    Raises `CorpusError` if it has others, or is no corpus of `seehear prepare`.
    """
    path = out / SETTINGS
    earlier: dict[str, Any] = {}
    if path.is_file():
        try:
            earlier = dict(json.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise CorpusError(f"{path} is damaged: choose another folder") from error
        cutting = {key: earlier[key] for key in CUTTING if key in earlier}
        joined = joined_record({key: value for key, value in earlier.items() if key not in CUTTING}, record)
        if joined is None:
            keys = (key for key in {**earlier, **record} if key not in (*CUTTING, BY_SIZE))
            differ = [key for key in keys if earlier.get(key) != record.get(key)]
            both = ", ".join(f"{key} {earlier.get(key, 'none')}, now {record.get(key, 'none')}" for key in differ)
            raise CorpusError(f"{out} was prepared with other settings ({both}): choose another folder")
        record = {**joined, **cutting}
    elif any(not entry.name.startswith(".") for entry in out.iterdir()):
        raise CorpusError(f"{out} is neither empty nor left by `seehear prepare`: choose another folder")
    write_atomically(path, json.dumps(record, indent=2) + "\n")
    return earlier


def _note_cutting(out: Path, windows: WindowOptions) -> None:
    """Note how recordings are cut, once nothing is listed as finished that was cut otherwise."""
    record = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
    record |= {"longest": windows.longest, "pause": windows.pause}
    write_atomically(out / SETTINGS, json.dumps(record, indent=2) + "\n")


def carry_out(
    plan: Plan,
    out: Path,
    settings: CropSettings,
    windows: WindowOptions,
    *,
    splits: Mapping[str, Sequence[str]] | None = None,
    workers: int = 1,
    on_clip: Callable[[Prepared | Cut | Rejected], None] = lambda clip: None,
    on_news: Callable[[Job, HowFar], None] = lambda job, news: None,
) -> Outcome:
    """Prepare what is to do, then write the corpus: manifest, splits, quality of the crops, rejected recordings."""
    journal = Journal(out, plan.done, plan.cuts)
    rejected = list(plan.rejected)
    _note_cutting(out, windows)
    for job in plan.todo:
        _remove_parts(out, job.source, plan.ids)
    for job, result in spread(partial(Preparer, out, settings, windows), plan.todo, workers, on_news):
        done = Rejected(job.source.name, result.reason) if isinstance(result, Died) else result
        _remove_parts(out, job.source, plan.ids, from_number=len(done.parts) + 1 if isinstance(done, Cut) else 1)
        if not isinstance(done, Prepared):
            clip_path(out, job.source.id).unlink(missing_ok=True)
        if isinstance(done, Rejected):
            rejected.append(done)
        else:
            journal.add(done)
        on_clip(done)
    _remove_unfinished(out)
    rejected.sort(key=lambda clip: clip.source)
    journal.rewrite()
    write_lines(out / REJECTED, [asdict(clip) for clip in rejected])
    utterances = {clip.source.id: _utterance(clip, plan.labels) for clip in journal.clips}
    notes = _notes([*utterances.values()], rejected, plan.transcripts)
    parts = {cut.source.id: [part.source.id for part in cut.parts] for cut in journal.cuts}
    lists = _earlier_splits(out, {*utterances, *parts}) if splits is None else splits
    kept, lost = _splits(lists, {**_by_name(journal), **{id: [id] for id in utterances}, **parts})
    corpus = Corpus.write(out, utterances.values(), kept)
    return Outcome(corpus, journal.clips, journal.cuts, rejected, plan.notes + notes + lost)


def _remove_unfinished(out: Path) -> None:
    """Remove what processes that died were writing."""
    for unfinished in (out / "clips").rglob("*.tmp"):
        unfinished.unlink()


def _remove_parts(out: Path, source: Source, ids: frozenset[str], from_number: int = 1) -> None:
    """Remove the parts of `source` that an earlier run or a process that died left, but no clip of `ids`; the last one
    first, so that none is overlooked later if this is interrupted."""
    stale = []
    for number in itertools.count(from_number):
        id = source.part(number).id
        if id in ids or not clip_path(out, id).exists():
            break
        stale.append(clip_path(out, id))
    for path in reversed(stale):
        path.unlink()


def _utterance(clip: Prepared, labels: Labels) -> Utterance:
    """The line of the manifest; a part has the speaker of its recording unless another is named."""
    id, known, place = clip.source.id, labels.of(clip.source.id).transcription, clip.place
    text = (place and place.text) or known.text or None
    speaker = (place and place.speaker) or known.speaker
    if place and not speaker:
        speaker = labels.of(place.recording).transcription.speaker
    return Utterance(id, f"clips/{id}.mp4", clip.frames, text, speaker, clip.source.name, clip.streams)


def _notes(
    utterances: Sequence[Utterance], rejected: Sequence[Rejected], transcripts: Mapping[str, Transcription]
) -> list[str]:
    """Where transcripts and clips do not fit. Raises `CorpusError` if no transcript is of a recording here."""
    names = [*(utterance.source or "" for utterance in utterances), *(clip.source for clip in rejected)]
    stems = (name.removesuffix(Path(name).suffix) for name in names)
    known = {*names, *stems, *(utterance.id for utterance in utterances)}
    unknown = [id for id in transcripts if id not in known]
    spoken = [id for id, transcription in transcripts.items() if transcription.text]
    if spoken and utterances and set(spoken) <= set(unknown):
        raise CorpusError(
            f"none of the {len(spoken)} transcripts is of a clip here: transcripts begin with an id such as "
            f"'{utterances[0].id}', not '{spoken[0]}'"
        )
    silent = [utterance.id for utterance in utterances if utterance.text is None]
    notes = [count("transcripts without a recording", unknown)]
    notes += [count("clips without a transcript", silent)] if transcripts or len(silent) < len(utterances) else []
    return [note for note in notes if note]


def _earlier_texts(out: Path) -> dict[str, Transcription]:
    """The transcripts that the corpus has from a run before."""
    earlier = Corpus.load(out).utterances.values() if (out / MANIFEST).is_file() else ()
    return {clip.id: Transcription(clip.text or "", clip.speaker) for clip in earlier if clip.text or clip.speaker}


def _earlier_splits(out: Path, known: Collection[str]) -> dict[str, list[str]]:
    """The splits of a run before. A part that is not `known` any more stands for its recording."""
    lists = read_splits(out / SPLITS) if any((out / SPLITS).glob("*.txt")) else {}
    matches = {id: PART.fullmatch(id) for ids in lists.values() for id in ids if id not in known}
    renamed = {id: match[1] for id, match in matches.items() if match and match[1] in known}
    return {name: [renamed.get(id, id) for id in ids] for name, ids in lists.items()}


def _by_name(journal: Journal) -> dict[str, list[str]]:
    """The ids of the clips of each recording by its name, which has its suffix."""
    clips: dict[str, list[str]] = {}
    for clip in journal.clips:
        clips.setdefault(clip.source.name, []).append(clip.source.id)
    return clips


def _splits(
    splits: Mapping[str, Sequence[str]], clips: Mapping[str, Sequence[str]]
) -> tuple[dict[str, list[str]], list[str]]:
    """The splits, each id once and only those in the corpus, and notes of what they lost. `clips` are the ids of the
    clips that a name stands for: a clip for itself, a long recording for its parts."""
    kept = {name: list(dict.fromkeys(clip for id in ids for clip in clips.get(id, ()))) for name, ids in splits.items()}
    notes = [
        count(f"clips of the split '{name}' that are not in the corpus", [id for id in ids if id not in clips])
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
