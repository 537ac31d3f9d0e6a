"""The command `seehear`: a Typer application whose commands import what they need when they run.

Nothing heavy is imported here, so that `seehear --help` is instant. What a user can mend, a mistyped option as much as
a damaged file, is one line on standard error and exit status 2.
"""

import io
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from seehear import __version__
from seehear.cli import (
    average,
    convert,
    corpus,
    demo,
    evaluate,
    extract,
    lm,
    prepare,
    sizes,
    synthesize,
    train,
    transcribe,
)
from seehear.cli.openmp import limit_spinning
from seehear.cli.options import without_truth
from seehear.errors import PreemptionError, SeehearError

INTERRUPTED = 130
"""Exit status after Ctrl-C, as of a shell."""
REQUEUE = 75
"""Exit status of a run that was asked to stop and can go on: the EX_TEMPFAIL of sysexits.h."""

app = typer.Typer(
    name="seehear",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"token_normalize_func": lambda name: name.replace("_", "-")},  # --beam_size is --beam-size
)

app.command("average")(average.average)
app.command("convert")(convert.convert)
app.add_typer(corpus.app, name="corpus")
app.command("demo")(demo.demo)
app.command("evaluate")(evaluate.evaluate)
app.command("extract")(extract.extract)
app.command("lm")(lm.lm)
app.command("prepare")(prepare.prepare)
app.command("sizes")(sizes.sizes)
app.command("synthesize")(synthesize.synthesize)
app.command("train")(train.train)
app.command("transcribe")(transcribe.transcribe)


@app.callback(invoke_without_command=True)
def seehear(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Speech recognition from sound, from lips, or from both."""
    if version:
        typer.echo(f"seehear {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line and exit with its status: 0 only if everything succeeded."""
    limit_spinning()
    _open_streams()
    try:
        status = app(without_truth(sys.argv[1:]), prog_name="seehear", standalone_mode=False)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        _fail(f"{error.format_message()} See `{context.command_path if context else 'seehear'} --help`.")
    except (SeehearError, OSError) as error:
        _fail(str(error))
    except ImportError as error:
        advice = "raise the bound on memory (ulimit -v), if there is one; else install seehear again"
        _fail(f"a library cannot be loaded ({_first_cause(error)}): {advice}")
    except PreemptionError as stop:
        _fail(str(stop), REQUEUE)
    except (KeyboardInterrupt, typer.Abort):
        status = INTERRUPTED
    if status == INTERRUPTED:  # what Typer makes of Ctrl-C
        _fail("interrupted", INTERRUPTED)
    _exit(status or 0)


def _open_streams() -> None:
    """Open standard input, output and error where they are closed; what they cannot encode is printed as numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number that is free
    sys.stdout, sys.stderr = (stream or Path(os.devnull).open("w") for stream in (sys.stdout, sys.stderr))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(message: str, status: int = 2) -> NoReturn:
    """One line on standard error, and the end."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    _exit(status)


def _first_cause(error: BaseException) -> BaseException:
    """The error that others were raised for, as NumPy does with a page of advice."""
    return error if error.__cause__ is None else _first_cause(error.__cause__)


def _exit(status: int) -> NoReturn:
    """The end, for a process of several too."""
    if "RANK" in os.environ and "torch" in sys.modules:
        from seehear.training.world import end_process

        end_process(status)
    sys.exit(status)
