"""Damaged media files are read or refused, whatever the damage: no crash, no hang, no other exception, little memory.

`benchmarks/fuzz.py` does the same with as many files as wanted.
"""

from pathlib import Path

from guarded_reading import GuardedReader
from mutations import make_mutants
from seed_files import KINDS, make_seeds

COUNT = 200
LARGEST = 500
"""Resident memory that no small file may take, in MiB."""


def test_the_whole_files_are_read(tmp_path: Path) -> None:
    with GuardedReader() as reader:
        for name, content in make_seeds(tmp_path).items():
            assert len(content) < 60_000
            reading = reader.read(tmp_path / f"{name}.{KINDS[name].suffix}")
            assert reading.outcome == "read", (name, reading)


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    first, again = (list(make_mutants(make_seeds(tmp_path), count, seed=1)) for count in (30, 40))
    assert first == again[:30]
    assert first != list(make_mutants(make_seeds(tmp_path), 30, seed=2))


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    outcomes = set()
    with GuardedReader() as reader:
        for mutant in make_mutants(make_seeds(tmp_path), COUNT, seed=0):
            path = tmp_path / mutant.name
            path.write_bytes(mutant.content)
            reading = reader.read(path)
            path.unlink()
            assert not reading.is_defect, (mutant.name, mutant.changes, reading)
            assert reading.memory < LARGEST, (mutant.name, mutant.changes, reading)
            outcomes.add(reading.outcome)
    assert outcomes == {"read", "refused"}
