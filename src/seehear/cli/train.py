"""`seehear train`: a run from its recipe."""

from pathlib import Path
from typing import Annotated

import typer


def train(
    recipe: Annotated[str, typer.Argument(help="A TOML file, or the name of a recipe that ships with seehear.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run: checkpoints, metrics, model.")],
    corpus: Annotated[Path | None, typer.Option(help="Prepared corpus; overrides data.corpus.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a setting: --set optimiser.peak_lr=1e-3 (repeatable).")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Model or run to start from; see model.init."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int | None, typer.Option(help="CPU threads for the arithmetic.")] = None,
) -> None:
    """Train a model; a run that was interrupted goes on from its last checkpoint."""
    from seehear.recipe import load_recipe

    paths = {"data.corpus": corpus, "model.init": init}
    assignments = [*(overrides or []), *(f"{key}={str(path)!r}" for key, path in paths.items() if path)]
    settings = load_recipe(recipe, assignments)

    import torch

    from seehear.training.run import train_recipe

    if threads:
        torch.set_num_threads(threads)
    model = train_recipe(settings, out, device)
    typer.echo(f"model: {model}")
