"""`seehear demo`: the whole pipeline on the synthetic corpus, in minutes."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seehear.cli.options import DeviceOption

if TYPE_CHECKING:
    from rich.table import Table

    from seehear.demo import Demo
    from seehear.evaluate import Result


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the corpus, the runs and the results.")] = Path(
        "demo"
    ),
    device: DeviceOption = "auto",
) -> None:
    """Run everything on a small [bold]synthetic[/bold] corpus: make it, train twice, evaluate, transcribe.

    The tiny model learns from labelled clips alone, and by USR 2.0 from those
    and unlabelled ones. What OUT holds of an earlier run is not done again.
    The exit status is 1 if a claim is refuted, and not if the test clips are too few to tell.
    """
    from rich.console import Console

    from seehear.demo import Verdict, run_demo

    console = Console()
    result = run_demo(out, lambda phase: console.rule(phase, align="left"), device=device)
    console.rule("results", align="left")
    console.print(error_rates(result), claims(result), "", sep="\n")
    console.print(f'A test clip says "{result.reference}"; USR 2.0 recognises "{result.transcript}".')
    seconds = ", ".join(f"{phase} {time:.0f} s" for phase, time in result.seconds.items())
    console.print(f"Wall-clock time: {seconds}; {sum(result.seconds.values()) / 60:.1f} minutes in all.")
    console.print(f"Curves: {result.picture}")
    if any(claim.verdict is Verdict.REFUTED for claim in result.claims):
        raise typer.Exit(1)


def error_rates(result: "Demo") -> "Table":
    """Word error rates of both runs, a row for each trial and modality."""
    from rich.table import Table

    table = Table(title="Word error rate on synthetic clips in %, with its 95 % interval", title_justify="left")
    for heading in ("synthetic test", "input", "clips", *result.scores):
        table.add_column(heading, justify="left" if heading in ("synthetic test", "input") else "right")
    first = next(iter(result.scores.values()))
    for trial, by_modality in first.items():
        for modality, scored in by_modality.items():
            rates = [percent(by_trial[trial][modality]) for by_trial in result.scores.values()]
            table.add_row(trial, modality.value.upper(), str(len(scored.records)), *rates)
        table.add_section()
    return table


def claims(result: "Demo") -> "Table":
    """What was to be shown, and whether it was."""
    from rich.table import Table

    from seehear.demo import Verdict

    styles = {Verdict.SHOWN: "green", Verdict.WITHIN_CHANCE: "yellow", Verdict.REFUTED: "bold red"}
    table = Table("claim", "measured", "", title="What this run shows, on synthetic clips", title_justify="left")
    for statement, measured, verdict in result.claims:
        table.add_row(statement, measured, f"[{styles[verdict]}]{verdict}[/]")
    return table


def percent(scored: "Result") -> str:
    """A word error rate and its interval, in percent."""
    wer, interval = scored.wer, scored.wer_interval
    assert wer is not None, "the test clips have words"
    assert interval is not None, "the test clips have words"
    return f"{100 * wer:.1f} ({100 * interval.low:.1f}–{100 * interval.high:.1f})"
