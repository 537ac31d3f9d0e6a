"""Draws the curves of training runs into one picture.

    python benchmarks/curves.py PICTURE.png supervised=runs/a "USR 2.0=runs/a,runs/b"

Runs with commas between them went on from each other's models: their steps are counted on.
"""

import argparse
from pathlib import Path

from seehear.training.curves import draw_curves


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN[,RUN…]")
    options = parser.parse_args()
    named = (run.partition("=") for run in options.runs)
    draw_curves({name: [Path(folder) for folder in folders.split(",")] for name, _, folders in named}, options.picture)


if __name__ == "__main__":
    main()
