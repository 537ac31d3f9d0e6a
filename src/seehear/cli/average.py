"""`seehear average`: a run's last checkpoints as one model."""

from pathlib import Path
from typing import Annotated, Literal

import typer


def average(
    run: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of a run.")],
    out: Annotated[Path, typer.Argument(help="Model folder to write.")],
    last: Annotated[int, typer.Option(min=1, help="How many checkpoints; run.keep says how many are kept.")] = 10,
    part: Annotated[Literal["student", "teacher"], typer.Option(help="Whose weights.")] = "student",
) -> None:
    """Write the mean of the last checkpoints of RUN as a model."""
    from seehear.training.average import average_checkpoints

    typer.echo(f"model: {average_checkpoints(run, out, last, part)}")
