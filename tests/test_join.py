"""Texts of overlapping windows become one: no word twice, none lost; and loops are noticed."""

import pytest

from seehear.decoding.join import PlacedWord, in_order, join, repeats


def place(text: str, start: float, step: float = 10.0) -> list[PlacedWord]:
    """Words one after the other, each 8 frames long."""
    return [PlacedWord((), word, start + step * n, start + step * n + 8, 1.0) for n, word in enumerate(text.split())]


def joined(left: list[PlacedWord], right: list[PlacedWord], overlap: tuple[int, int]) -> str:
    """What comes out."""
    kept, dropped = join(left, right, overlap)
    return " ".join(word.text for word in [*left[:kept], *right[dropped:]])


def test_words_that_both_have_heard_are_there_once() -> None:
    left, right = place("a b c d e", 0), place("c d e f g", 20)
    assert joined(left, right, (20, 50)) == "a b c d e f g"


def test_what_is_wrong_at_the_edges_is_taken_from_the_other() -> None:
    left, right = place("a b c d x", 0), place("y c d e f", 10)
    assert joined(left, right, (10, 50)) == "a b c d e f"


@pytest.mark.parametrize("shift", [-12, 0, 12])
def test_times_may_differ_by_half_a_second(shift: int) -> None:
    left, right = place("a b c d e", 0), place("c d e f g", 20 + shift)
    assert joined(left, right, (20, 50)) == "a b c d e f g"


def test_the_same_word_elsewhere_is_another() -> None:
    left, right = place("the cat the dog", 0, 40), place("the dog the end", 80, 40)
    assert joined(left, right, (80, 160)) == "the cat the dog the end"


def test_without_a_common_word_time_decides() -> None:
    left, right = place("a b c d", 0), place("w x y z", 20)
    assert joined(left, right, (20, 40)) == "a b c x y z"


def test_words_begin_when_those_before_them_have_ended() -> None:
    words = in_order([*place("a b", 10), *place("c d e", 12)], earliest=15)
    times = [time for word in words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert times[0] == 15
    assert in_order(place("a b c", 3)) == place("a b c", 3)


def test_nothing_to_join() -> None:
    assert joined([], place("a b", 30), (20, 40)) == "a b"
    assert joined(place("a b", 0), [], (20, 40)) == "a b"


@pytest.mark.parametrize(
    ("tokens", "loop"),
    [
        ([], False),
        ([1] * 11, False),
        ([1] * 12, True),
        ([5, 6, *[1, 2] * 6, 7], True),
        ([1, 2, 3] * 4, True),
        ([1, 2, 3, 4] * 3, False),
        ([1, 2, 3, 4] * 4, True),
        (list(range(40)), False),
        ([*range(20), *range(20), *range(20)], False),
    ],
)
def test_loops(tokens: list[int], loop: bool) -> None:
    assert repeats(tokens) is loop


def test_words_that_are_squeezed_last_a_frame() -> None:
    words = [PlacedWord([1], "a", 0, 10, 1.0), PlacedWord([2], "b", 2, 8, 1.0), PlacedWord([3], "c", 9, 30, 1.0)]
    placed = in_order(words, earliest=4.0)
    assert [(word.start, word.end) for word in placed] == [(4, 10), (10, 11), (11, 30)]
