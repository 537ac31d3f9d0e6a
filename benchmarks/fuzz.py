"""Whether damaged media files can do more than be refused: mutated files read in guarded child processes.

    python benchmarks/fuzz.py [--count 2000] [--seed 0] [--jobs 1] [--keep FOLDER] [--only NUMBER]

Prints the outcomes for each kind of file and every defect: an exception other than `MediaError`, a crash, a hang.
The exit status is 1 if there is one. File NUMBER of a seed is always the same, whatever --count says.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from guarded_reading import GuardedReader, Reading
from mutations import Mutant, make_mutants
from seed_files import KINDS, make_seeds

OUTCOMES = ("read", "refused", "raised", "crashed", "hung")


def main() -> int:
    """Print the table and the defects; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="child processes at once")
    parser.add_argument("--keep", type=Path, help="folder for the files that show a defect")
    parser.add_argument("--only", type=int, help="number of the one file to read")
    options = parser.parse_args()
    count = options.count if options.only is None else options.only + 1
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        mutants = list(make_mutants(make_seeds(Path(folder)), count, options.seed))
        if options.only is not None:
            mutants = [mutant for mutant in mutants if mutant.number == options.only]
        readings = read_mutants(mutants, Path(folder), options.jobs, options.keep)
    print_table(mutants, readings)
    print(f"{len(mutants)} files of seed {options.seed} in {time.perf_counter() - started:.0f} s")
    return print_defects(mutants, readings)


def read_mutants(mutants: Sequence[Mutant], folder: Path, jobs: int, keep: Path | None) -> list[Reading]:
    """Read each file with the next free child."""
    free: SimpleQueue[GuardedReader] = SimpleQueue()

    def read(mutant: Mutant) -> Reading:
        path = folder / mutant.name
        path.write_bytes(mutant.content)
        reader = free.get()
        reading = reader.read(path)
        free.put(reader)
        if reading.is_defect and keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, keep)
        path.unlink()
        return reading

    with ExitStack() as stack, ThreadPoolExecutor(jobs) as pool:
        for _ in range(jobs):
            free.put(stack.enter_context(GuardedReader()))
        return list(pool.map(read, mutants))


def print_table(mutants: Sequence[Mutant], readings: Sequence[Reading]) -> None:
    """A line for each kind of file."""
    print(f"{'':10}", *(f"{outcome:>8}" for outcome in OUTCOMES), "  slowest (s)  memory (MiB)")
    for kind in (*KINDS, "all"):
        chosen = [reading for mutant, reading in zip(mutants, readings, strict=True) if kind in (mutant.kind, "all")]
        if not chosen:
            continue
        counts = Counter(reading.outcome for reading in chosen)
        slowest, memory = max(reading.seconds for reading in chosen), max(reading.memory for reading in chosen)
        print(f"{kind:10}", *(f"{counts[outcome]:8}" for outcome in OUTCOMES), f"{slowest:13.2f} {memory:13.0f}")


def print_defects(mutants: Sequence[Mutant], readings: Sequence[Reading]) -> int:
    """A line for each file that did what it must not; 1 if there is one."""
    defects = [pair for pair in zip(mutants, readings, strict=True) if pair[1].is_defect]
    for mutant, reading in defects:
        print(f"{mutant.name} ({', '.join(mutant.changes)}): {reading.outcome}: {reading.detail}")
    return int(bool(defects))


if __name__ == "__main__":
    sys.exit(main())
