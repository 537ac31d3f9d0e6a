"""`seehear convert`: a published checkpoint to a model folder, and back."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from seehear.convert import Checkpoint, Conversion
    from seehear.model.usr import USR
    from seehear.tokenizer import Tokenizer

PUBLISHED_LICENCE = "cc-by-nc-4.0"
"""Of the weights that the authors publish."""


def convert(
    source: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Published weights; with --back a model folder.")
    ],
    out: Annotated[Path, typer.Argument(help="Model folder to make; with --back a file of weights.")],
    units: Annotated[
        Path | None,
        typer.Option(
            help="Published list of units, one a line; a self-supervised file needs none. With --back it is written, "
            "if given."
        ),
    ] = None,
    teacher: Annotated[
        bool, typer.Option("--teacher", help="Take the moving average instead of the student, if the file has it.")
    ] = False,
    half: Annotated[
        bool, typer.Option("--half", help="Store matrices as float16: half the size; loaded as float32 unless asked.")
    ] = False,
    licence: Annotated[
        str | None,
        typer.Option(
            help=f"Of the weights, for the model card. By default that of the published files, {PUBLISHED_LICENCE}."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model folder OUT, and delete the evaluations in it.")
    ] = False,
    back: Annotated[bool, typer.Option("--back", help="From a model folder to the published layout.")] = False,
) -> None:
    """Make a model folder of a published USR or USR 2.0 checkpoint, its size read off the shapes.

    A fine-tuned file becomes a model: its student, or its moving average. A self-supervised file becomes the folder of
    an encoder, for `seehear extract` and `seehear train --init`; it needs no units. What is taken and what is left out
    is printed. Nothing in the checkpoint is executed: a file with objects of Python code in it is refused.
    """
    from seehear.errors import ConfigError

    if back:
        if teacher or half or overwrite or licence is not None:
            raise ConfigError(
                "--teacher, --half, --overwrite and --licence say what to make of a published file: leave them out "
                "with --back"
            )
        _to_published(source, out, units)
    else:
        licence = licence or PUBLISHED_LICENCE
        _from_published(source, units, out, teacher=teacher, half=half, licence=licence, overwrite=overwrite)
    typer.echo(str(out))


def _from_published(
    checkpoint: Path, units: Path | None, out: Path, *, teacher: bool, half: bool, licence: str, overwrite: bool
) -> None:
    import torch

    from seehear.card import ModelCard
    from seehear.checkpoint import WEIGHTS_FILE, require_place, save_encoder, save_model
    from seehear.convert import check_values, read_checkpoint, shown_bytes, to_ours
    from seehear.errors import ModelError
    from seehear.model.usr import USR

    require_place(out, overwrite=overwrite)
    read = read_checkpoint(checkpoint)
    try:
        conversion = to_ours(read.parameters, teacher=teacher)
        check_values(conversion)
    except ModelError as error:
        raise ModelError(f"{checkpoint}: {error}") from error
    model, (group, _) = conversion.model, conversion.taken
    method = f"Published weights: the {group} of `{checkpoint.name}`"
    dtype = torch.float16 if half else None
    if isinstance(model, USR):
        tokenizer = _fitting(units, checkpoint, model)
        _tell(checkpoint, read, conversion)
        card = ModelCard(title="USR, converted", method=method, licence=licence)
        save_model(out, model, tokenizer, card, half=dtype, keep_evaluation=False)
    else:
        _tell(checkpoint, read, conversion)
        if units is not None:
            _note(f"{checkpoint} has an encoder alone, which needs no vocabulary: {units} is not used")
        card = ModelCard(title="Encoder of USR, self-supervised, converted", method=method, licence=licence)
        save_encoder(out, model, card, half=dtype, keep_evaluation=False)
    _note(f"written: {out / WEIGHTS_FILE}, {shown_bytes((out / WEIGHTS_FILE).stat().st_size)}")


def _fitting(units: Path | None, checkpoint: Path, model: "USR") -> "Tokenizer":
    """The vocabulary of a model. Raises `ConfigError` if there is none, `ModelError` if it is another's."""
    from seehear.errors import ConfigError, ModelError
    from seehear.tokenizer import Tokenizer

    if units is None:
        raise ConfigError("give the published list of units with --units FILE: it says which text the tokens stand for")
    tokenizer = Tokenizer.from_units(units)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise ModelError(
            f"{units} makes {tokenizer.vocab_size} tokens, blank and end of sentence included, but {checkpoint} has "
            f"{model.config.vocab_size}: give the list that belongs to the checkpoint"
        )
    return tokenizer


def _tell(path: Path, checkpoint: "Checkpoint", conversion: "Conversion") -> None:
    """Print what is taken from a file and what is left out."""
    if not checkpoint.mapped:
        _note(f"{path} cannot be mapped (an old format, or compressed): it is read into memory as a whole")
    group, size = conversion.taken
    _note(f"taken: {group}, {size}")
    for name, size in (*conversion.left_out.items(), *checkpoint.others.items()):
        _note(f"left out: {name}, {size}")


def _note(text: str) -> None:
    """On standard error: standard output has the folder alone."""
    typer.echo(text, err=True)


def _to_published(folder: Path, out: Path, units: Path | None) -> None:
    import torch

    from seehear.checkpoint import load_model
    from seehear.convert import to_published
    from seehear.errors import ModelError
    from seehear.files import write_atomically

    if out.is_dir():
        raise ModelError(f"{out} is a folder: with --back, give the file to write")
    model, tokenizer = load_model(folder)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as workplace:
            temporary = Path(workplace, out.name)
            with temporary.open("wb") as file:
                torch.save(to_published(model), file)
            temporary.replace(out)
    except (OSError, RuntimeError) as error:  # torch makes a RuntimeError of a full disk
        raise ModelError(f"{out} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    if units is not None:
        lines = (f"{piece} {number}\n" for number, piece in enumerate(tokenizer.pieces, start=1))
        write_atomically(units, "".join(lines).encode())
