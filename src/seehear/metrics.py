"""Word and character error rates as counts (by jiwer), with bootstrap intervals over utterances."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jiwer
import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
"""Bootstrap resamples."""
CONFIDENCE = 0.95
"""Share of the resamples that an interval holds."""
BLOCK = 1 << 22
"""Draws made at once, which bounds the memory of a bootstrap."""


@dataclass(frozen=True)
class ErrorCounts:
    """How a hypothesis differs from its reference, in words or characters; counts of several can be summed."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        """Words or characters of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float | None:
        """Errors per reference word or character, as a fraction (it may exceed 1); None where there is no reference."""
        return self.errors / self.reference_length if self.reference_length else None

    def __add__(self, other: "ErrorCounts") -> "ErrorCounts":
        return ErrorCounts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


class Interval(NamedTuple):
    """A bootstrap percentile interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same utterances; a negative difference says that the second makes fewer errors."""

    difference: float
    """Rate of the second minus rate of the first."""
    interval: Interval
    """95 % interval of the difference."""
    p_value: float
    """Two-sided: how likely so large a difference is if neither system is better."""
    utterances: int


def count_words(reference: str, hypothesis: str) -> ErrorCounts:
    """Count word errors of normalised texts; an empty reference makes every word of the hypothesis an insertion."""
    return _counts(jiwer.process_words(reference, hypothesis))


def count_characters(reference: str, hypothesis: str) -> ErrorCounts:
    """Count character errors of normalised texts, the spaces between words included."""
    return _counts(jiwer.process_characters(reference, hypothesis))


def total(counts: Sequence[ErrorCounts]) -> ErrorCounts:
    """The sum over utterances, whose rate is the corpus's."""
    return sum(counts, start=ErrorCounts())


def bootstrap_interval(counts: Sequence[ErrorCounts], *, resamples: int = RESAMPLES, seed: int = 0) -> Interval | None:
    """The 95 % interval of the rate when utterances are drawn again with replacement; None without reference."""
    errors, length = _resampled(_table([counts]), resamples, seed)
    return _interval(errors[length > 0] / length[length > 0])


def paired_bootstrap(
    first: Sequence[ErrorCounts], second: Sequence[ErrorCounts], *, resamples: int = RESAMPLES, seed: int = 0
) -> Comparison | None:
    """Compare two systems; entry i of both is the same utterance. None where the references hold nothing.

    Raises `ValueError` if the references differ in number or length.
    """
    if [count.reference_length for count in first] != [count.reference_length for count in second]:
        raise ValueError("the two systems were not scored against the same references")
    errors, length, other_errors, _ = _resampled(_table([first, second]), resamples, seed)
    counted = length > 0
    differences = (other_errors[counted] - errors[counted]) / length[counted]
    interval, rates = _interval(differences), (total(first).rate, total(second).rate)
    if interval is None or rates[0] is None or rates[1] is None:
        return None
    # Each tail counts the resamples that contradict its sign, and one more, so that p is never 0.
    tails = (np.count_nonzero(differences <= 0), np.count_nonzero(differences >= 0))
    p_value = min(1.0, 2.0 * (min(tails) + 1) / (len(differences) + 1))
    return Comparison(rates[1] - rates[0], interval, p_value, len(first))


def _counts(alignment: jiwer.WordOutput | jiwer.CharacterOutput) -> ErrorCounts:
    return ErrorCounts(alignment.hits, alignment.substitutions, alignment.deletions, alignment.insertions)


def _table(systems: Sequence[Sequence[ErrorCounts]]) -> NDArray[np.int64]:
    """(N, 2·systems): errors and reference length of each utterance, system by system."""
    columns = [[getattr(c, field) for c in counts] for counts in systems for field in ("errors", "reference_length")]
    return np.asarray(columns, dtype=np.int64).T


def _resampled(table: NDArray[np.int64], resamples: int, seed: int) -> NDArray[np.int64]:
    """(K, resamples): column sums of `table` (N, K) over N rows drawn with replacement."""
    rows = len(table)
    if not rows:
        return np.zeros((table.shape[1], 0), dtype=np.int64)
    rng = np.random.default_rng(seed)
    per_block = max(1, BLOCK // rows)
    sizes = [min(per_block, resamples - start) for start in range(0, resamples, per_block)]
    return np.concatenate([table[rng.integers(rows, size=(size, rows))].sum(1) for size in sizes]).T


def _interval(values: NDArray[np.float64]) -> Interval | None:
    if not len(values):
        return None
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = np.percentile(values, [tail, 100.0 - tail])
    return Interval(float(low), float(high))
