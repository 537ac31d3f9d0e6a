"""`seehear convert`: a published checkpoint to a model folder, and back."""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Published weights; with --back a model folder.")
    ],
    out: Annotated[Path, typer.Argument(help="Model folder to make; with --back a file of weights.")],
    units: Annotated[
        Path | None, typer.Option(help="Published list of units, one a line; with --back it is written, if given.")
    ] = None,
    back: Annotated[bool, typer.Option("--back", help="From a model folder to the published layout.")] = False,
) -> None:
    """Make a model folder of a published USR or USR 2.0 checkpoint (fine-tuned layout), its size read off the shapes.

    Nothing in the checkpoint is executed: a file that holds more than tensors is refused.
    """
    from seehear.errors import ConfigError

    if back:
        _to_published(source, out, units)
    elif units is None:
        raise ConfigError("give the published list of units with --units FILE: it says which text the tokens stand for")
    else:
        _from_published(source, units, out)
    typer.echo(str(out))


def _from_published(checkpoint: Path, units: Path, out: Path) -> None:
    from seehear.card import ModelCard
    from seehear.checkpoint import save_model
    from seehear.convert import read_checkpoint, to_ours
    from seehear.errors import ModelError
    from seehear.model.usr import USR
    from seehear.model.weights import WithoutStartValues
    from seehear.tokenizer import Tokenizer

    tokenizer = Tokenizer.from_units(units)
    published = read_checkpoint(checkpoint)
    try:
        config, weights = to_ours(published)
    except ModelError as error:
        raise ModelError(f"{checkpoint}: {error}") from error
    if tokenizer.vocab_size != config.vocab_size:
        raise ModelError(
            f"{units} makes {tokenizer.vocab_size} tokens, blank and end of sentence included, but {checkpoint} has "
            f"{config.vocab_size}: give the list that belongs to the checkpoint"
        )
    with WithoutStartValues():
        model = USR(config)
    model.load_state_dict(weights)
    method = f"Published weights, converted from `{checkpoint.name}`"
    save_model(out, model, tokenizer, ModelCard(title="USR, converted", method=method))


def _to_published(folder: Path, out: Path, units: Path | None) -> None:
    import torch

    from seehear.checkpoint import load_model
    from seehear.convert import to_published
    from seehear.files import write_atomically

    model, tokenizer = load_model(folder)
    temporary = out.with_name(f"{out.name}.tmp")
    try:
        torch.save(to_published(model), temporary)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)
    if units is not None:
        lines = (f"{piece} {number}\n" for number, piece in enumerate(tokenizer.pieces, start=1))
        write_atomically(units, "".join(lines).encode())
