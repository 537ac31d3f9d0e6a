"""`seehear prepare`: a folder of recordings becomes a corpus."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seehear.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from seehear.data.corpus import Corpus
    from seehear.preparation.journal import Cut
    from seehear.preparation.prepare import Outcome

SHOWN = 20
"""Rejected clips that the summary lists; the others stand in rejected.jsonl."""


# Over 60 lines: most are the options of the command and their help.
def prepare(
    source: Annotated[
        Path,
        typer.Argument(
            exists=True, file_okay=False, help="Folder of videos and sound files; those in folders below it count too."
        ),
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the corpus: new, or left by a run that was interrupted.")],
    layout: Annotated[
        Literal["folder", "grid", "librispeech", "lrs2", "lrs3", "usr", "wildvsr"],
        typer.Option(help="What SOURCE is: any folder, or a corpus as it is published, with its texts and splits."),
    ] = "folder",
    transcripts: Annotated[
        Path | None,
        typer.Option(
            help="What is said: .tsv or .csv with columns id, text, perhaps speaker, start and end, or .jsonl, .json."
        ),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of lists NAME.txt with one id per line."),
    ] = None,
    audio: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of separate sound files, named as the videos."),
    ] = None,
    lists: Annotated[
        Path | None,
        typer.Option(exists=True, help="For --layout usr: a CSV list, or a folder of them; each is a split."),
    ] = None,
    units: Annotated[
        Path | None, typer.Option(help="For --layout usr: the published list of units, for the texts of the lists.")
    ] = None,
    face_model: Annotated[
        Path | None,
        typer.Option(help="MediaPipe's face_landmarker.task; by default SEEHEAR_FACE_MODEL or a download, made once."),
    ] = None,
    landmarks: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="Folder with ID.npz for each video: ready 'landmarks' (frames, 68 or 478, 2), NaN if missing.",
        ),
    ] = None,
    detector: Annotated[
        Literal["auto", "mediapipe", "cropped"],
        typer.Option(help="How mouths are found; cropped: the videos are aligned mouths; auto: those of 96×96 are."),
    ] = "auto",
    cropped: Annotated[bool, typer.Option("--cropped", help="The same as --detector cropped.")] = False,
    detect_every: Annotated[
        int, typer.Option(min=1, help="Look for faces in each n-th frame; between them points are interpolated.")
    ] = 3,
    max_gap: Annotated[
        int, typer.Option(min=0, help="Most frames in a row over which a face that is not found is interpolated.")
    ] = 25,
    longest: Annotated[
        float, typer.Option(help="Seconds of the longest clip; longer recordings are cut, at given times or pauses.")
    ] = options.DEFAULT_WINDOWS.longest,
    pause: Annotated[
        float, typer.Option(help="Seconds of silence at which a long recording is cut.")
    ] = options.DEFAULT_WINDOWS.pause,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per CPU core.")] = None,
) -> None:
    """Find the mouth in every video of SOURCE and write the corpus OUT.

    Sound files become clips with sound alone, silent videos clips with a picture alone; ID.mp4 and ID.wav are one clip.
    An id is a recording's path below SOURCE without the suffix. Long recordings become parts ID-0001, ID-0002, …: at
    the times of subtitles or of a table, beside them as ID.srt, ID.vtt, ID.tsv or ID.json, else at pauses. A run that
    was interrupted goes on where it stopped; recordings that are new or have changed are added. Every one that cannot
    be used is listed with the reason, and the exit status is then 1; OUT holds the others.
    """
    from rich.console import Console

    from seehear.cli.progress import ClipProgress
    from seehear.data.workers import available_cores
    from seehear.errors import ConfigError
    from seehear.listening.options import WindowOptions
    from seehear.preparation import prepare as preparation
    from seehear.preparation.contact_sheet import write_contact_sheet
    from seehear.preparation.layouts import read_layout
    from seehear.preparation.reading import CropSettings
    from seehear.preparation.sources import read_splits, with_speakers
    from seehear.preparation.transcripts import header_fault, read_transcripts

    if cropped and detector == "mediapipe":
        raise ConfigError("--cropped and --detector mediapipe exclude each other")
    detector = "cropped" if cropped else detector
    if landmarks and detector != "auto":
        raise ConfigError(f"--landmarks and --{'cropped' if cropped else 'detector'} exclude each other")
    texts = read_transcripts(transcripts) if transcripts else None
    named = read_splits(splits) if splits else None
    windows = WindowOptions(longest, pause)

    with preparation.claimed(out):
        contents = read_layout(layout, source, out, longest, audio=audio, lists=lists, units=units)
        if contents.cropped and detector == "auto" and not landmarks:
            detector = "cropped"
        settings = CropSettings(face_model, landmarks, detector, detect_every, max_gap)
        known = contents.transcripts if texts is None else with_speakers(texts, contents)
        if transcripts and texts and (note := header_fault(transcripts, texts, contents.names)):
            contents = contents._replace(notes=[*contents.notes, note])
        plan = preparation.make_plan(contents, out, settings, windows, known)
        with ClipProgress(total=len(plan.todo), done_before=len(plan.done)) as progress:
            outcome = preparation.carry_out(
                plan,
                out,
                settings,
                windows,
                splits=contents.splits if named is None else named,
                workers=workers or available_cores(),
                on_clip=progress.advance,
                on_news=progress.read,
            )
        sheet = write_contact_sheet(outcome.corpus, outcome.prepared)
    console = Console(soft_wrap=True, highlight=False)
    _summarise(console, out, outcome, sheet)
    if outcome.rejected:
        raise typer.Exit(1)


def _summarise(console: "Console", out: Path, outcome: "Outcome", sheet: Path | None) -> None:
    """Print what there is now, what is not, and why."""
    from seehear.modality import FRAME_RATE, Modality

    for clip in outcome.rejected[:SHOWN]:
        console.print(f"rejected {clip.source}: {clip.reason}", markup=False)
    if len(outcome.rejected) > SHOWN:
        console.print(f"… and {len(outcome.rejected) - SHOWN} more in {out / 'rejected.jsonl'}", markup=False)
    for note in outcome.notes:
        console.print(f"note: {note}", markup=False)
    warned = sum(bool(clip.warnings) for clip in outcome.prepared)
    if warned:
        console.print(f"note: clips with warnings: {warned}, see {out / 'crops.jsonl'}", markup=False)
    for line in _cuts(outcome.cuts, outcome.corpus):
        console.print(line, markup=False)
    streams = Counter(clip.streams for clip in outcome.prepared)
    for modality, what in {Modality.AUDIO: "sound", Modality.VIDEO: "a picture"}.items():
        if streams[modality]:
            console.print(f"note: clips with {what} alone: {streams[modality]}")
    minutes = sum(clip.frames for clip in outcome.prepared) / FRAME_RATE / 60
    console.print(f"{out}: {len(outcome.prepared)} clips, {minutes:.1f} minutes; rejected: {len(outcome.rejected)}")
    for name in outcome.corpus.split_names():
        console.print(f"  {name}: {len(outcome.corpus.split(name))} clips", markup=False)
    if sheet:
        console.print(f"look at {sheet}", markup=False)


def _cuts(cuts: "Sequence[Cut]", corpus: "Corpus") -> Iterator[str]:
    """What became of the long recordings."""
    from seehear.modality import FRAME_RATE
    from seehear.preparation.journal import RECORDINGS

    if not cuts:
        return
    parts = [corpus.utterances[id] for cut in cuts for id in cut.ids]
    labeled = sum(part.text is not None for part in parts)
    minutes = sum(cut.frames for cut in cuts) / FRAME_RATE / 60
    yield f"long recordings: {len(cuts)} of {minutes:.1f} minutes, cut into {len(parts)} clips, {labeled} with a text"
    between = sum(cut.between for cut in cuts) / 60
    skipped = [gap for cut in cuts for gap in cut.skipped]
    faceless = sum(gap.end - gap.start for gap in skipped) / 60
    yield f"  left out: {between:.1f} minutes between clips, {faceless:.1f} minutes without a usable face"
    if beyond := sum(cut.beyond for cut in cuts) / 60:
        yield f"  {beyond:.1f} minutes of sound after the end of the picture are in no clip"
    reasons = Counter(gap.reason for cut in cuts for gap in cut.unused)
    if reasons:
        which = ", ".join(f"{reason}: {number}" for reason, number in reasons.most_common())
        yield f"  given times that are not used: {reasons.total()} ({which})"
    warned = sum(bool(cut.warnings) for cut in cuts)
    yield f"  of each recording: {RECORDINGS}" + (f"; with warnings: {warned}" if warned else "")
