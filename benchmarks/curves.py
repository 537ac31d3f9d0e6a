"""Draws the curves of training runs into one picture, and says when each reached an error rate.

    python benchmarks/curves.py PICTURE.png supervised=runs/a "USR 2.0=runs/a,runs/b" [--reach 40 30 20]

Runs with commas between them went on from each other's models: their steps are counted on.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

from seehear.training.curves import Records, draw_curves, joined

VALIDATED = [(decoder, modality) for decoder in ("ctc", "attention") for modality in ("a", "v", "av")]


def main() -> None:
    """Draw, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN[,RUN…]")
    parser.add_argument("--reach", type=float, nargs="+", default=[], metavar="WER", help="in per cent")
    options = parser.parse_args()
    named = (run.partition("=") for run in options.runs)
    runs = {name: [Path(folder) for folder in folders.split(",")] for name, _, folders in named}
    draw_curves(runs, options.picture)
    if options.reach:
        print_reached({name: joined(folders) for name, folders in runs.items()}, options.reach)


def print_reached(runs: Mapping[str, Records], rates: Sequence[float]) -> None:
    """The step of the first validation at which each run errs on no more than each of `rates`."""
    print(f"| first step at | {' | '.join(runs)} |\n| --- |{' --- |' * len(runs)}")
    for decoder, modality in VALIDATED:
        for rate in rates:
            first = (first_step(records, f"valid/{decoder}/{modality}", rate) for records in runs.values())
            cells = " | ".join("–" if step is None else f"{step:.0f}" for step in first)
            print(f"| {modality.upper()}, {decoder}, {rate:g} % | {cells} |")


def first_step(records: Records, name: str, rate: float) -> float | None:
    """The step of the first record of `name` that is at most `rate` per cent."""
    return next((record["step"] for record in records if record.get(name, 1e9) <= rate / 100), None)


if __name__ == "__main__":
    main()
