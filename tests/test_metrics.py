"""Error counts, intervals and the comparison of two systems."""

import numpy as np
import pytest

from seehear.metrics import (
    ErrorCounts,
    Interval,
    bootstrap_interval,
    count_characters,
    count_words,
    paired_bootstrap,
    total,
)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "counts", "rate"),
    [
        ("a b c", "a b c", ErrorCounts(hits=3), 0.0),
        ("a b c", "a x c", ErrorCounts(hits=2, substitutions=1), 1 / 3),
        ("a b c", "a c", ErrorCounts(hits=2, deletions=1), 1 / 3),
        ("a b", "a x b", ErrorCounts(hits=2, insertions=1), 1 / 2),
        ("a", "x y z", ErrorCounts(substitutions=1, insertions=2), 3.0),
        ("a b", "", ErrorCounts(deletions=2), 1.0),
        ("", "a b", ErrorCounts(insertions=2), None),
        ("", "", ErrorCounts(), None),
    ],
)
def test_word_errors(reference: str, hypothesis: str, counts: ErrorCounts, rate: float | None) -> None:
    found = count_words(reference, hypothesis)
    assert (found.errors, found.reference_length) == (counts.errors, counts.reference_length)
    assert found == counts
    assert found.rate == rate


def test_character_errors_count_spaces() -> None:
    assert count_characters("ab c", "abc") == ErrorCounts(hits=3, deletions=1)
    assert count_characters("", "ab") == ErrorCounts(insertions=2)


def test_a_corpus_rate_weighs_utterances_by_length() -> None:
    counts = [count_words("a b c d e f g h i j", "a b c d e f g h i j"), count_words("a", "x"), count_words("", "x")]
    assert total(counts) == ErrorCounts(hits=10, substitutions=1, insertions=1)
    assert total(counts).rate == 2 / 11
    assert total([]).rate is None


def draw(rate: float, utterances: int, rng: np.random.Generator, words: int = 6) -> list[ErrorCounts]:
    """Systems that get each of `words` words wrong with probability `rate`."""
    wrong = rng.binomial(words, rate, size=utterances)
    return [ErrorCounts(hits=words - int(k), substitutions=int(k)) for k in wrong]


def test_the_interval_is_that_of_the_mean() -> None:
    counts = draw(0.3, 400, np.random.default_rng(0))
    rates = np.array([count.rate for count in counts], dtype=float)
    interval, mean, error = bootstrap_interval(counts), rates.mean(), rates.std() / np.sqrt(len(rates))
    assert interval is not None
    assert interval.low == pytest.approx(mean - 1.96 * error, abs=0.003)
    assert interval.high == pytest.approx(mean + 1.96 * error, abs=0.003)
    assert bootstrap_interval(counts) == interval  # the seed is fixed
    assert bootstrap_interval(counts, seed=1) != interval


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(draw(0.2, 100, rng), resamples=500) for _ in range(200)]
    covered = sum(interval.low <= 0.2 <= interval.high for interval in intervals if interval)
    assert 180 <= covered <= 199


def test_intervals_of_nothing() -> None:
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([ErrorCounts(insertions=2)]) is None
    assert bootstrap_interval([ErrorCounts(hits=2)]) == Interval(0.0, 0.0)
    assert bootstrap_interval([ErrorCounts(hits=2), ErrorCounts(insertions=1)]) is not None


def test_blocks_change_nothing_but_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = draw(0.3, 50, np.random.default_rng(0))
    at_once = bootstrap_interval(counts)
    monkeypatch.setattr("seehear.metrics.BLOCK", 1000)
    assert bootstrap_interval(counts) == at_once


def test_paired_comparison_sees_a_small_consistent_gain() -> None:
    rng = np.random.default_rng(0)
    first = draw(0.4, 300, rng)
    better = [
        ErrorCounts(count.hits + 1, count.substitutions - 1) if count.substitutions and rng.random() < 0.1 else count
        for count in first
    ]
    gain = paired_bootstrap(first, better)
    assert gain is not None
    assert gain.difference < 0
    assert gain.interval.low <= gain.difference <= gain.interval.high < 0
    assert gain.p_value < 0.01
    assert gain.utterances == 300
    back = paired_bootstrap(better, first)
    assert back is not None
    assert (back.difference, back.p_value) == (-gain.difference, gain.p_value)


def test_p_values_of_equal_systems_are_spread_out() -> None:
    rng = np.random.default_rng(0)
    comparisons = [paired_bootstrap(draw(0.3, 80, rng), draw(0.3, 80, rng), resamples=500) for _ in range(100)]
    p_values = np.array([comparison.p_value for comparison in comparisons if comparison])
    assert 0.3 < p_values.mean() < 0.7
    assert np.mean(p_values < 0.05) <= 0.13


def test_a_system_is_no_better_than_itself() -> None:
    counts = draw(0.3, 50, np.random.default_rng(0))
    comparison = paired_bootstrap(counts, counts)
    assert comparison is not None
    assert (comparison.difference, comparison.p_value) == (0.0, 1.0)


def test_what_cannot_be_compared() -> None:
    assert paired_bootstrap([], []) is None
    assert paired_bootstrap([ErrorCounts(insertions=1)], [ErrorCounts()]) is None
    for other in ([ErrorCounts(hits=2)], []):
        with pytest.raises(ValueError, match="same references"):
            paired_bootstrap([ErrorCounts(hits=1)], other)
