"""The command `seehear`: a Typer application whose commands import what they need when they run.

Nothing heavy is imported here, so that `seehear --help` is instant; a `SeehearError` becomes one line and exit status
2.
"""

import sys

import typer

from seehear.cli import demo, synthesize, train
from seehear.errors import SeehearError

app = typer.Typer(
    name="seehear",
    help="Speech recognition from sound, from lips, or from both.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

app.command("demo")(demo.demo)
app.command("synthesize")(synthesize.synthesize)
app.command("train")(train.train)


def main() -> None:
    """Run the command line; errors that a user can mend are one line on standard error."""
    try:
        app()
    except SeehearError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
