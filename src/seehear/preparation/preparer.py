"""What a worker process does with one recording after the other: a clip, or if it is long, its parts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from seehear.data.clipfile import MouthClip, write_clip
from seehear.data.media import Header, read_header
from seehear.data.workers import tell
from seehear.errors import CorpusError, DependencyError, FaceError, MediaError
from seehear.listening.options import WindowOptions
from seehear.modality import FRAME_RATE
from seehear.preparation.cues import Cue, LeftOut
from seehear.preparation.journal import Cut, Cutting, Place, Prepared
from seehear.preparation.labels import Label
from seehear.preparation.parts import NOTICED_DIFFERENCE, Cutter
from seehear.preparation.reading import CropSettings, SourceReader
from seehear.preparation.sources import Rejected, Source

SURELY_LONG = 1.0
"""Seconds beyond the longest clip from which on a stated duration is believed: streams may end at different times."""


class HowFar(NamedTuple):
    """How much of a long recording has been read, in seconds; a worker tells that."""

    read: float
    duration: float


@dataclass(frozen=True)
class Job:
    """A recording to prepare."""

    source: Source
    label: Label
    clashes: Mapping[str, str] = field(default_factory=dict)
    """Other recordings whose ids parts of this one would have: their ids and names."""


class Preparer:
    """Prepares recordings."""

    def __init__(self, out: Path, settings: CropSettings, windows: WindowOptions) -> None:
        import cv2

        cv2.setNumThreads(1)  # the processes share the cores already
        self.out, self.settings, self.windows = out, settings, windows
        self.reader = SourceReader(settings)
        self._most = round(windows.longest * FRAME_RATE)

    def __call__(self, job: Job) -> Prepared | Cut | Rejected:
        """Write the clips of one recording. Raises `CorpusError` if the corpus cannot be written."""
        source = job.source
        try:
            return self._prepare(job)
        except (FaceError, MediaError) as error:
            return Rejected(source.name, str(error).removeprefix(f"{source.path}: "))
        except (CorpusError, DependencyError):  # concern every clip
            raise
        except Exception as error:  # a fault of ours, or of a library: the others go on
            return Rejected(source.name, f"unexpected {type(error).__name__}: {error}")

    def _prepare(self, job: Job) -> Prepared | Cut:
        """A clip or parts, by the length that the file states; the other, if it turns out to be wrong. Where parts are
        out of the question, the file is read for its length."""
        header = read_header(job.source.path)
        cannot_be_cut = job.label.fault or job.label.whole
        seconds = header.duration
        if not seconds or (cannot_be_cut and seconds > self.windows.longest + SURELY_LONG):
            seconds = self.reader.open(job.source, header).seconds
        if seconds > self.windows.longest + SURELY_LONG:
            cut = self._cut(job, header, seconds)
            if cut.frames > self._most:
                return cut
        clip, report, warnings = self.reader.read(job.source)
        if clip.frames > self._most:
            return self._cut(job, header, clip.frames / FRAME_RATE)
        self._write(job.source.id, clip)
        return Prepared(job.source, clip.frames, report, clip.streams, warnings)

    def _cut(self, job: Job, header: Header, seconds: float) -> Cut:
        """The parts of a long recording. Raises `MediaError` with the reason if it cannot be cut or has none."""
        source, label = job.source, job.label
        if label.fault:
            raise MediaError(label.fault)
        if label.whole:
            remedy = "give times, as subtitles beside it or as columns start and end, or a larger --longest"
            raise MediaError(f"it is {seconds:.0f} s long and has one transcript for the whole: {remedy}")
        recording, detector = self.reader.open(source, header), None
        if recording.modality.uses_video:
            detector = self.reader.detector_of(source, header)
        options = self.reader.listening(recording.modality, self.windows, ready=detector is None)
        cutter = Cutter(recording, options, detector, label.cues or None)
        warnings: list[str] = []
        parts = tuple(self._parts(job, cutter, seconds, warnings))
        if not parts and cutter.frames > self._most:
            raise MediaError(_why_none(cutter))
        seen = cutter.frames / FRAME_RATE
        heard = recording.sound_seconds(seen)
        if abs(heard - seen) > NOTICED_DIFFERENCE:
            name = f" of {source.sound.name}" if source.sound else ""
            warnings.append(f"the sound{name} is {heard:.1f} s long, the picture {seen:.1f} s")
        cutting = Cutting.at(self.windows, label.cues, label.origin)
        skipped, unused, beyond = tuple(cutter.skipped), tuple(cutter.unused), max(0.0, heard - seen)
        return Cut(source, cutter.frames, parts, cutting, cutter.between, beyond, skipped, unused, tuple(warnings))

    def _parts(self, job: Job, cutter: Cutter, seconds: float, warnings: list[str]) -> Iterator[Prepared]:
        """Write each part of a recording that lasts so many seconds, as it comes. Raises `MediaError` if another
        recording has the id of one."""
        source = job.source
        parts = cutter.parts(warnings.append, lambda frames: tell(HowFar(frames / FRAME_RATE, seconds)))
        for number, part in enumerate(parts, start=1):
            own = source.part(number)
            if own.id in job.clashes:
                raise MediaError(f"a part of it would be called as {job.clashes[own.id]} is: rename one of them")
            self._write(own.id, part.clip)
            cue = part.cue or Cue(part.start, part.end, "")
            place = Place(source.id, part.start, part.end, cue.text or None, cue.speaker)
            yield Prepared(own, part.clip.frames, part.report, part.clip.streams, part.warnings, place)

    def _write(self, id: str, clip: MouthClip) -> None:
        try:
            write_clip(clip_path(self.out, id), clip)
        except OSError as error:
            raise CorpusError(f"{self.out} cannot be written: {error.strerror or error}") from error


def clip_path(out: Path, id: str) -> Path:
    """Where the clip `id` lies in the corpus `out`."""
    return out / "clips" / f"{id}.mp4"


def _why_none(cutter: Cutter) -> str:
    """Why a recording has no parts."""
    for gaps, what in ((cutter.skipped, "parts shows a usable face"), (cutter.unused, "given times can be used")):
        if gaps:
            return f"none of its {len(gaps)} {what}: {_first(gaps)}"
    return "nobody is heard in it" if cutter.recording.modality.uses_audio else "there are no lips that move"


def _first(gaps: list[LeftOut]) -> str:
    return f"from {gaps[0].start:.1f} to {gaps[0].end:.1f} s, {gaps[0].reason}"
