"""How long the command line makes a person wait before anything happens, and which packages cost the time.

    python benchmarks/startup.py [--runs 9] [--limit 0.5]

Each figure is the median over fresh processes. With `--limit SECONDS` the exit status is 1 if a median is above it.
"""

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

SEEHEAR = str(Path(sys.executable).with_name("seehear"))
COMMANDS: dict[str, list[str]] = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import seehear": [sys.executable, "-c", "import seehear"],
    "seehear --help": [SEEHEAR, "--help"],
}
HEAVY = ("torch", "mediapipe", "cv2", "av", "matplotlib", "sentencepiece")
"""Packages that neither an import nor a help text may load."""


def seconds(command: Sequence[str]) -> float:
    """Wall-clock seconds of one run of `command`."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def import_costs(command: Sequence[str]) -> Counter[str]:
    """Microseconds that each top-level package spends in its own modules while `command` (a Python program) starts."""
    run = subprocess.run(
        [sys.executable, "-X", "importtime", *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    costs: Counter[str] = Counter()
    for line in run.stderr.decode().splitlines():
        if match := re.fullmatch(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)", line):
            costs[match[2].split(".")[0]] += int(match[1])
    return costs


def main() -> int:
    """Print the table; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="processes per figure")
    parser.add_argument("--limit", type=float, help="largest median allowed, in seconds")
    options = parser.parse_args()

    medians = {}
    for name, command in COMMANDS.items():
        seconds(command)  # the first run fills the file cache
        times = [seconds(command) for _ in range(options.runs)]
        medians[name] = statistics.median(times)
        print(f"{name:16} {medians[name]:.3f} s  ({min(times):.3f}–{max(times):.3f}, {options.runs} runs)")

    costs = import_costs([SEEHEAR, "--help"])
    dearest = ", ".join(f"{package} {cost / 1000:.0f} ms" for package, cost in costs.most_common(8))
    print(f"imports of seehear --help: {dearest}")
    loaded = [package for package in HEAVY if package in costs]
    if loaded:
        print(f"loads what it should not: {', '.join(loaded)}")
    slow = [name for name, median in medians.items() if options.limit and median > options.limit]
    if slow:
        print(f"slower than {options.limit} s: {', '.join(slow)}")
    return 1 if loaded or slow else 0


if __name__ == "__main__":
    sys.exit(main())
