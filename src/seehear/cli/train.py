"""`seehear train`: a run from its recipe."""

from pathlib import Path
from typing import Annotated

import typer

from seehear.cli.options import DeviceOption, ThreadsOption


def train(
    recipe: Annotated[str, typer.Argument(help="A TOML file, or the name of a recipe that ships with seehear.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the run: checkpoints, metrics, model.")
    ] = None,
    corpus: Annotated[Path | None, typer.Option(help="Prepared corpus; overrides data.corpus.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="Override a setting: --set optimiser.peak_lr=1e-3 (repeatable).")
    ] = None,
    init: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Model, encoder or run to start from; see model.init."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only say what would be done: recipe, sizes, steps, memory, the first batch."),
    ] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Train a model; a run that was interrupted goes on from its last checkpoint."""
    from seehear.errors import ConfigError
    from seehear.recipe import load_recipe

    if out is None and not dry_run:
        raise ConfigError("say where the run goes: --out RUN")
    paths = {"data.corpus": corpus, "model.init": init}
    assignments = [*(overrides or []), *(f"{key}={str(path)!r}" for key, path in paths.items() if path)]
    settings = load_recipe(recipe, assignments)

    import torch

    from seehear.training.run import plan_recipe, train_recipe

    if threads:
        torch.set_num_threads(threads)
    if dry_run:
        typer.echo(plan_recipe(settings, device, out))
    elif out is not None:
        train_recipe(settings, out, device)
