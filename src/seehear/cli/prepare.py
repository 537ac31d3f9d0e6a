"""`seehear prepare`: a folder of videos becomes a corpus."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from seehear.preparation.prepare import Outcome

SHOWN = 20
"""Rejected clips that the summary lists; the others stand in rejected.jsonl."""


# Over 60 lines: most are the options of the command and their help.
def prepare(
    source: Annotated[
        Path,
        typer.Argument(exists=True, file_okay=False, help="Folder of videos; those in folders below it count too."),
    ],
    out: Annotated[Path, typer.Argument(help="Folder of the corpus: new, or left by a run that was interrupted.")],
    transcripts: Annotated[
        Path | None,
        typer.Option(
            help="What is said: .tsv or .csv with columns id, text and perhaps speaker, or .jsonl with these."
        ),
    ] = None,
    splits: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of lists NAME.txt with one id per line."),
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
    cropped: Annotated[bool, typer.Option("--cropped", help="The videos show nothing but aligned mouths.")] = False,
    detect_every: Annotated[
        int, typer.Option(min=1, help="Look for faces in each n-th frame; between them points are interpolated.")
    ] = 3,
    max_gap: Annotated[
        int, typer.Option(min=0, help="Most frames in a row over which a face that is not found is interpolated.")
    ] = 25,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per CPU core.")] = None,
) -> None:
    """Find the mouth in every video of SOURCE and write the corpus OUT.

    An id is a video's path below SOURCE without the suffix. A run that was interrupted goes on where it stopped; videos
    that are new or have changed are added. Every video that cannot be used is listed with the reason, and the exit
    status is then 1; OUT holds the others.
    """
    from rich.console import Console

    from seehear.cli.progress import ClipProgress
    from seehear.data.workers import available_cores
    from seehear.errors import ConfigError
    from seehear.preparation import prepare as preparation
    from seehear.preparation.contact_sheet import write_contact_sheet
    from seehear.preparation.sources import read_splits
    from seehear.preparation.transcripts import read_transcripts

    if landmarks and cropped:
        raise ConfigError("--landmarks and --cropped exclude each other")
    settings = preparation.CropSettings(face_model, landmarks, cropped, detect_every, max_gap)
    texts = read_transcripts(transcripts) if transcripts else None
    lists = read_splits(splits) if splits else None

    with preparation.claimed(out):
        plan = preparation.make_plan(source, out, settings)
        with ClipProgress(total=len(plan.todo), done_before=len(plan.done)) as progress:
            outcome = preparation.carry_out(
                plan,
                out,
                settings,
                transcripts=texts,
                splits=lists,
                workers=workers or available_cores(),
                on_clip=progress.advance,
            )
        sheet = write_contact_sheet(outcome.corpus, outcome.prepared)
    console = Console(soft_wrap=True, highlight=False)
    _summarise(console, out, outcome, sheet)
    if outcome.rejected:
        raise typer.Exit(1)


def _summarise(console: "Console", out: Path, outcome: "Outcome", sheet: Path | None) -> None:
    """Print what there is now, what is not, and why."""
    from collections import Counter

    from seehear.modality import FRAME_RATE

    for clip in outcome.rejected[:SHOWN]:
        console.print(f"rejected {clip.source}: {clip.reason}", markup=False)
    if len(outcome.rejected) > SHOWN:
        console.print(f"… and {len(outcome.rejected) - SHOWN} more in {out / 'rejected.jsonl'}", markup=False)
    for note in outcome.notes:
        console.print(f"note: {note}", markup=False)
    warned = Counter(bool(clip.report.warnings) for clip in outcome.prepared)[True]
    if warned:
        console.print(f"note: crops with warnings: {warned}, see {out / 'crops.jsonl'}", markup=False)
    minutes = sum(clip.frames for clip in outcome.prepared) / FRAME_RATE / 60
    console.print(f"{out}: {len(outcome.prepared)} clips, {minutes:.1f} minutes; rejected: {len(outcome.rejected)}")
    for name in outcome.corpus.split_names():
        console.print(f"  {name}: {len(outcome.corpus.split(name))} clips", markup=False)
    if sheet:
        console.print(f"look at {sheet}", markup=False)
