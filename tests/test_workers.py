"""Work spread over processes, some of which die."""

import os
import signal
from collections.abc import Callable
from functools import partial

import pytest

from seehear.data.workers import Died, spread, tell
from seehear.errors import CorpusError


def careful(limit: int) -> Callable[[int], int]:
    """A worker that doubles numbers, dies at 13 and, the first time, at those from `limit` on."""

    def work(number: int) -> int:
        if number == 13:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number >= limit:
            raise CorpusError(f"{number} is too much")
        return 2 * number

    return work


def never_ready() -> Callable[[int], int]:
    raise RuntimeError("no")


def test_a_job_that_kills_its_process_costs_that_job_alone() -> None:
    results = dict(spread(partial(careful, 100), range(20), processes=3))
    died = results.pop(13)
    assert died == Died("the process that worked on it died of SIGSEGV")
    assert results == {number: 2 * number for number in range(20) if number != 13}


def test_an_error_that_concerns_all_jobs_ends_the_run() -> None:
    with pytest.raises(CorpusError, match="5 is too much"):
        list(spread(partial(careful, 5), [1, 2, 3, 4, 5], processes=1))


def test_processes_that_never_start_are_not_tried_forever() -> None:
    results = list(spread(never_ready, [1, 2], processes=1))
    assert [type(result) for _, result in results] == [Died, Died]


def test_nothing_to_do_starts_nothing() -> None:
    assert list(spread(never_ready, [], processes=4)) == []


def telling() -> Callable[[int], int]:
    def work(number: int) -> int:
        for step in range(number):
            tell(step)
        return number

    return work


def test_a_job_tells_how_far_it_is() -> None:
    news: list[tuple[int, int]] = []
    results = dict(spread(telling, [0, 1, 3], 2, lambda job, step: news.append((job, step))))
    assert results == {0: 0, 1: 1, 3: 3}
    assert sorted(news) == [(1, 0), (3, 0), (3, 1), (3, 2)]
    tell("nobody")
