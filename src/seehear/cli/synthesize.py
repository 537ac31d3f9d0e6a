"""`seehear synthesize`: make the synthetic corpus."""

from pathlib import Path
from typing import Annotated

import typer


def synthesize(
    out: Annotated[Path, typer.Argument(help="Folder to make the corpus in; it must be empty or not exist.")],
    seed: Annotated[int, typer.Option(min=0, help="The same seed makes the same corpus.")] = 0,
    labelled: Annotated[int, typer.Option(min=1, help="Training clips with their text.")] = 150,
    unlabelled: Annotated[int, typer.Option(min=0, help="Training clips without.")] = 450,
    valid: Annotated[int, typer.Option(min=0, help="Clips to watch training with.")] = 40,
    test: Annotated[int, typer.Option(min=0, help="Clips to report on.")] = 100,
    test_voices: Annotated[int, typer.Option(min=0, help="Out of domain: voices and faces not trained on.")] = 40,
    test_long: Annotated[int, typer.Option(min=0, help="Out of domain: three or four sentences in a clip.")] = 40,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one per CPU core.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a synthetic corpus in OUT.")] = False,
) -> None:
    """Make a small [bold]synthetic[/bold] corpus: espeak-ng speaks, a drawn mouth moves with it. Needs no download.

    20 words in commands such as "take blue bat nine now", in ten voices; the lips cannot tell bat from mat, and noise
    hides what they show. OUT/truth.jsonl says what is spoken in every clip, unlabelled ones included.
    """
    import time

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from seehear.data.synthetic import default_splits, synthesize_corpus
    from seehear.modality import FRAME_RATE

    splits = default_splits(
        labelled=labelled,
        unlabelled=unlabelled,
        valid=valid,
        test=test,
        test_voices=test_voices,
        test_long=test_long,
    )
    started = time.monotonic()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("synthetic clips", total=sum(split.clips for split in splits.values()))
        corpus = synthesize_corpus(
            out, splits, seed=seed, workers=workers, overwrite=overwrite, on_clip=lambda _: progress.advance(task)
        )
    table = Table("split", "clips", "minutes", "voices", "text", title=f"Synthetic corpus {out}", title_justify="left")
    for name in corpus.split_names():
        members = corpus.split(name)
        minutes = sum(utterance.frames for utterance in members) / FRAME_RATE / 60
        voices = len({utterance.speaker for utterance in members})
        text = "yes" if splits[name].labelled else "no"
        table.add_row(name, str(len(members)), f"{minutes:.1f}", str(voices), text)
    console = Console()
    console.print(table)
    console.print(f"{len(corpus.utterances)} clips in {time.monotonic() - started:.0f} s, all synthetic (seed {seed}).")
