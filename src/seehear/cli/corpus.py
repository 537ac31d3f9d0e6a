"""`seehear corpus …`: look after prepared corpora."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Look after prepared corpora.", no_args_is_help=True)


@app.callback()
def corpus() -> None:
    """Look after prepared corpora."""


@app.command()
def validate(root: Annotated[Path, typer.Argument(help="Folder of a prepared corpus.")]) -> None:
    """Check manifest, clips and splits, and list every fault with its line. The exit status is 1 if there is one."""
    from seehear.data.corpus import Corpus, count_streams
    from seehear.data.validation import validate as find_faults
    from seehear.modality import FRAME_RATE

    found = find_faults(root)
    for fault in found:
        typer.echo(str(fault))
    faults = sum(not fault.warning for fault in found)
    count = f"faults: {faults}, warnings: {len(found) - faults}"
    if faults:
        typer.echo(f"{root}: {count}")
        raise typer.Exit(1)
    utterances = Corpus.load(root).utterances.values()
    hours = sum(utterance.frames for utterance in utterances) / FRAME_RATE / 3600
    typer.echo(f"{root}: {len(utterances)} clips, {hours:.2f} hours; {count_streams(utterances)}; {count}")
