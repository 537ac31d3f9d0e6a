"""A folder of recordings becomes a corpus: every clip cropped, written, and accounted for.

Beside the parts of every corpus lie `prepare.json` (the settings), `crops.jsonl` and `recordings.jsonl` (see
`seehear.preparation.journal`), and `rejected.jsonl`.
"""

import fcntl
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from seehear.data.corpus import SPLITS, Corpus, Utterance
from seehear.data.workers import Died, spread
from seehear.errors import CorpusError, SeehearError
from seehear.files import write_atomically
from seehear.listening.options import WindowOptions
from seehear.modality import FRAME_RATE
from seehear.preparation.cues import place_cues
from seehear.preparation.earlier import PART, Earlier
from seehear.preparation.journal import Cut, Cutting, Journal, Prepared, read_cuts, write_lines
from seehear.preparation.labels import Labels, collect_labels
from seehear.preparation.preparer import HowFar, Job, Preparer, clip_path
from seehear.preparation.reading import BY_SIZE, CropSettings, joined_record
from seehear.preparation.sources import Contents, Rejected, Source, count
from seehear.preparation.transcripts import TABLE, WORD_TIMES, Transcription

SETTINGS = "prepare.json"
REJECTED = "rejected.jsonl"
CUTTING = ("longest", "pause")
"""Keys of `prepare.json` that may change from run to run: what they concern is then done anew."""


@dataclass
class Plan:
    """What there is to do."""

    labels: Labels
    transcripts: Mapping[str, Transcription]
    """Those that are given for this run."""
    ids: frozenset[str]
    """Of all recordings."""
    earlier: Earlier
    todo: list[Job] = field(default_factory=list)
    done: list[Prepared] = field(default_factory=list)
    """Finished by an earlier run, parts included."""
    cuts: list[Cut] = field(default_factory=list)
    """Long recordings finished by an earlier run."""
    gone: list[Prepared] = field(default_factory=list)
    """Clips of an earlier run, parts included, whose recordings are there no more."""
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

    Without `transcripts` those of the earlier run stay. Raises `CorpusError` if `out` was made with other settings or
    of other recordings, if no transcript is of a recording here, or if texts would be lost or put on other parts.
    """
    _check_transcripts(transcripts or {}, contents)
    cut_before = _claim_settings(out, settings.record(contents.sources)).get("longest")
    _remove_unfinished(out)
    earlier = Earlier(out)
    if transcripts is None:
        labels = collect_labels(contents.sources, earlier.texts(), from_earlier_run=True)
    else:
        labels = collect_labels(contents.sources, transcripts)
    ids = frozenset(source.id for source in contents.sources)
    plan = Plan(labels, transcripts or {}, ids, earlier, rejected=[*contents.rejected], notes=[*contents.notes])
    plan.gone += _gone(earlier, ids, out)
    finished = _Finished(out, earlier.clips, windows, cut_before, table_is_known=transcripts is not None)
    clashes = _clashes(contents.sources)
    for source in contents.sources:
        job = Job(source, labels.of(source.id), clashes.get(source.id, {}))
        if cut := finished.cut(job):
            plan.cuts.append(replace(cut, source=source))
            plan.done += cut.parts
        elif clip := finished.clip(job):
            plan.done.append(replace(clip, source=source))
        else:
            finished.check_texts(job, plan.transcripts)
            plan.todo.append(job)
    plan.notes += _notes_on_plan(plan, contents.sources, round(windows.longest * FRAME_RATE))
    return plan


def _check_transcripts(transcripts: Mapping[str, Transcription], contents: Contents) -> None:
    """Raise `CorpusError` if no text is of a recording here, or of a part of one."""
    names = [*(source.name for source in contents.sources), *(clip.source for clip in contents.rejected)]
    stems = (name.removesuffix(Path(name).suffix) for name in names)
    known = {*names, *stems, *(source.id for source in contents.sources)}
    spoken = [id for id, transcription in transcripts.items() if transcription.text]
    matches = {id: PART.fullmatch(id) for id in spoken}
    if spoken and contents.sources and not any(id in known or (m and m[1] in known) for id, m in matches.items()):
        raise CorpusError(
            f"none of the {len(spoken)} transcripts is of a recording here: transcripts begin with an id such as "
            f"'{contents.sources[0].id}', not '{spoken[0]}'"
        )


def _gone(earlier: Earlier, ids: frozenset[str], out: Path) -> list[Prepared]:
    """The clips of recordings that are there no more. Raises `CorpusError` if there are no others in `out`."""
    gone = [clip for clip in earlier.clips if clip.recording not in ids]
    if gone and len(gone) == len(earlier.clips):
        raise CorpusError(f"{out} was made of other recordings ({gone[0].source.name}, …): choose another folder")
    return gone


def _notes_on_plan(plan: Plan, sources: Sequence[Source], most: int) -> list[str]:
    """What is worth knowing before the work. Clips have at most so many frames now."""
    long = [clip.source.id for clip in plan.done if clip.frames > most]
    notes = {
        "clips with the sound of a separate file": [source.id for source in sources if source.sound],
        "clips of an earlier run that are longer and stay, unless you delete them from its folder clips": long,
        "recordings of an earlier run that are not in SOURCE any more, their clips removed": sorted(
            {clip.source.name for clip in plan.gone}
        ),
        "recordings with subtitles in several languages, which are not used: name one of them ID.srt": (
            plan.labels.several_languages
        ),
    }
    return [count(what, ids) for what, ids in notes.items() if ids]


class _Finished:
    """What an earlier run finished and is as it would be made now."""

    def __init__(
        self,
        out: Path,
        clips: Iterable[Prepared],
        windows: WindowOptions,
        cut_before: float | None,
        *,
        table_is_known: bool,
    ) -> None:
        """`clips` are those of that run, `cut_before` is its longest one."""
        clips = [clip for clip in clips if clip_path(out, clip.source.id).is_file()]
        self._clips = {(clip.source.id, clip.source.fingerprint): clip for clip in clips if clip.place is None}
        self._cuts = {cut.source.id: cut for cut in read_cuts(out, clips)}
        self._windows, self._table_is_known = windows, table_is_known
        self._limit_changed = cut_before is not None and cut_before != windows.longest

    def clip(self, job: Job) -> Prepared | None:
        """The clip of a whole recording, unless it is too long and the limit was another before or times are given."""
        clip = self._clips.get((job.source.id, job.source.fingerprint))
        if clip is None or clip.frames <= round(self._windows.longest * FRAME_RATE):
            return clip
        return None if self._limit_changed or job.label.cues else clip

    def cut(self, job: Job) -> Cut | None:
        """A long recording that would be cut at the same places, with the texts of today. Times of a table or layout
        stay if none is given."""
        cut, label = self._cuts.get(job.source.id), job.label
        if cut is None or cut.source.fingerprint != job.source.fingerprint or job.clashes.keys() & cut.ids:
            return None
        if self._lacks_times(cut):
            return cut if cut.cutting.longest == self._windows.longest else None
        if label.whole or label.fault or Cutting.at(self._windows, label.cues, label.origin) != cut.cutting:
            return None
        return cut.with_texts(place_cues(label.cues, self._windows.longest)[0])

    def check_texts(self, job: Job, transcripts: Mapping[str, Transcription]) -> None:
        """Raise `CorpusError` if texts would be lost or put on other parts when this recording is cut anew."""
        cut, label = self._cuts.get(job.source.id), job.label
        if cut is None:
            return
        name = cut.source.name
        if self._lacks_times(cut):
            raise CorpusError(f"{name} was cut at times of {cut.cutting.times}: give --transcripts or --layout again")
        named = [id for id in cut.ids if id in transcripts and transcripts[id].text]
        if named and Cutting.at(self._windows, label.cues, label.origin) != cut.cutting:
            raise CorpusError(
                f"{name} would be cut at other places, but the transcripts name parts of it, such as {named[0]}: give "
                f"--longest, --pause and times as before, or transcripts without its parts"
            )

    def _lacks_times(self, cut: Cut) -> bool:
        """Whether a table or layout that is not given now had its times."""
        return not self._table_is_known and cut.cutting.times in (TABLE, WORD_TIMES)


def _clashes(sources: Sequence[Source]) -> dict[str, dict[str, str]]:
    """Of each recording, by id, the other recordings whose ids parts of it would have: their ids and names."""
    ids = {source.id for source in sources}
    clashes: dict[str, dict[str, str]] = {}
    for source in sources:
        if (match := PART.fullmatch(source.id)) and match[1] in ids:
            clashes.setdefault(match[1], {})[source.id] = source.name
    return clashes


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
    for clip in plan.gone:
        if clip.source.id not in plan.ids:
            clip_path(out, clip.source.id).unlink(missing_ok=True)
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
    recut = plan.earlier.recut(journal.clips, plan.ids)
    notes = [*_forget_parts(plan, recut), *_faults(plan.labels, rejected)]
    utterances = {clip.source.id: _utterance(clip, plan.labels) for clip in journal.clips}
    notes += _notes([*utterances.values()], rejected, plan.transcripts)
    parts = {cut.source.id: [part.source.id for part in cut.parts] for cut in journal.cuts}
    carried, dropped = plan.earlier.splits(recut, splits or {})
    clips = {**_by_name(journal), **{id: [id] for id in utterances}, **parts}
    (kept, lost), (named, unknown) = _splits(carried, clips), _splits(splits or {}, clips)
    corpus = Corpus.write(out, utterances.values(), kept | named)
    for name in set(corpus.split_names()) - kept.keys() - named.keys():  # nothing of them is left
        (out / SPLITS / f"{name}.txt").unlink()
    return Outcome(corpus, journal.clips, journal.cuts, rejected, plan.notes + notes + dropped + lost + unknown)


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
        if id in ids:
            continue
        if not clip_path(out, id).exists():
            break
        stale.append(clip_path(out, id))
    for path in reversed(stale):
        path.unlink()


def _forget_parts(plan: Plan, recut: set[str]) -> list[str]:
    """Drop the texts of parts of recordings that were cut anew: others have their ids now. A note of those that were
    known by the id alone."""
    matches = {id: PART.fullmatch(id) for id in plan.labels.by_id if id not in plan.ids}
    parts = [id for id, match in matches.items() if match and match[1] in recut]
    texts = {id: plan.labels.by_id.pop(id).transcription.text for id in parts}
    of_cues = {id: place.text for id, place in plan.earlier.places.items()}
    lost = sorted(id for id, text in texts.items() if text and text != of_cues.get(id))
    return [count("texts dropped of parts of recordings that were cut anew", lost)] if lost else []


def _faults(labels: Labels, rejected: Sequence[Rejected]) -> list[str]:
    """A note of files with times that cannot be read where no recording was rejected for that."""
    faults = [label.fault for label in labels.by_id.values() if label.fault]
    kept = [fault for fault in faults if fault not in {clip.reason for clip in rejected}]
    return [count("files with times that cannot be read", kept)] if kept else []


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
    """Where transcripts and clips do not fit."""
    names = [*(utterance.source or "" for utterance in utterances), *(clip.source for clip in rejected)]
    stems = (name.removesuffix(Path(name).suffix) for name in names)
    known = {*names, *stems, *(utterance.id for utterance in utterances)}
    unknown = [id for id in transcripts if id not in known]
    silent = [utterance.id for utterance in utterances if utterance.text is None]
    notes = [count("transcripts without a recording", unknown)]
    notes += [count("clips without a transcript", silent)] if transcripts or len(silent) < len(utterances) else []
    return [note for note in notes if note]


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
    clips that a name stands for: a clip for itself, a long recording for those of its parts that no list names."""
    named = {id for ids in splits.values() for id in ids}
    stand = {id: [clip for clip in own if clip == id or clip not in named] for id, own in clips.items()}
    kept = {name: list(dict.fromkeys(clip for id in ids for clip in stand.get(id, ()))) for name, ids in splits.items()}
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
