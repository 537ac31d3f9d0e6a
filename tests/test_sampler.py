"""Batches filled by frames, in an order that the seed alone decides."""

import itertools
import json
from hashlib import sha256

import numpy as np
import pytest

from seehear.data.batch import fill
from seehear.data.sampler import FrameBatchSampler
from seehear.modality import Modality

FRAMES = [int(x) for x in np.random.default_rng(0).integers(10, 200, size=97)]


def take(sampler: FrameBatchSampler, count: int) -> list[list[tuple[int, int]]]:
    return list(itertools.islice(iter(sampler), count))


def test_fill_respects_the_padded_budget_in_any_order() -> None:
    groups = fill(FRAMES, 600)
    assert [position for group in groups for position in group] == list(range(len(FRAMES)))
    for group in groups:
        assert len(group) * max(FRAMES[i] for i in group) <= 600
    assert fill([], 600) == []


def test_a_clip_over_the_budget_stands_alone() -> None:
    assert fill([900, 10, 10], 600) == [[0], [1, 2]]


def test_an_epoch_holds_every_clip_once_and_epochs_differ() -> None:
    sampler = FrameBatchSampler(FRAMES, 600, seed=1)
    first, second = sampler.epoch(0), sampler.epoch(1)
    for epoch in (first, second):
        assert sorted(position for batch in epoch for position, _ in batch) == list(range(len(FRAMES)))
        for batch in epoch:
            assert len(batch) * max(FRAMES[position] for position, _ in batch) <= 600
    assert first != second
    assert {seed for batch in first for _, seed in batch}.isdisjoint(seed for batch in second for _, seed in batch)


def test_little_padding() -> None:
    epoch = FrameBatchSampler(FRAMES, 600, seed=1).epoch(0)
    padded = sum(len(batch) * max(FRAMES[position] for position, _ in batch) for batch in epoch)
    assert sum(FRAMES) / padded > 0.85


def test_same_seed_same_order_and_start_resumes() -> None:
    count = 3 * FrameBatchSampler(FRAMES, 600, seed=5).batches_per_epoch()
    everything = take(FrameBatchSampler(FRAMES, 600, seed=5), count)
    assert everything == take(FrameBatchSampler(FRAMES, 600, seed=5), count)
    assert everything != take(FrameBatchSampler(FRAMES, 600, seed=6), count)
    for start in (1, count // 3, count // 3 + 1, count - 2):
        assert take(FrameBatchSampler(FRAMES, 600, seed=5, start=start), count - start) == everything[start:]


STREAMS = [list(Modality)[int(x)] for x in np.random.default_rng(1).integers(3, size=97)]


def kinds(batch: list[tuple[int, int]]) -> set[Modality]:
    return {STREAMS[position] for position, _ in batch}


@pytest.mark.parametrize("group", [1, 4])
def test_clips_of_other_streams_never_share_a_batch_nor_a_step(group: int) -> None:
    sampler = FrameBatchSampler(FRAMES, 600, seed=1, group=group, streams=STREAMS)
    for number in range(3):
        epoch = sampler.epoch(number)
        assert len(epoch) % group == 0
        steps = [epoch[start : start + group] for start in range(0, len(epoch), group)]
        assert all(len(set().union(*map(kinds, step))) == 1 for step in steps)
        order = [kinds(step[0]).pop() for step in steps]
        assert set(order) == set(Modality)
        assert len(list(itertools.groupby(order))) > 3, "the kinds alternate"
        positions = [position for batch in epoch for position, _ in batch]
        assert set(positions) == set(range(len(FRAMES)))
        if group == 1:
            assert len(positions) == len(FRAMES)
        for batch in epoch:
            assert len(batch) * max(FRAMES[position] for position, _ in batch) <= 600


def test_two_processes_have_batches_of_one_kind_in_each_step_and_resume_so() -> None:
    def of_rank(rank: int, start: int = 0) -> list[list[tuple[int, int]]]:
        return take(FrameBatchSampler(FRAMES, 600, 5, start=start + rank, stride=2, group=2, streams=STREAMS), 90)

    first, second = of_rank(0), of_rank(1)
    assert [kinds(batch) for batch in first] == [kinds(batch) for batch in second]
    assert of_rank(1, start=60)[:60] == second[30:]


def test_clips_that_are_all_alike_come_in_the_order_in_which_they_always_have() -> None:
    """Positions and seeds of three epochs, as they were before clips could lack a stream."""
    before = "3b8652fab5adba85819ff9ef8ba3b44ff321186b00fa584792f6f6c938d7900a"
    for streams in (None, [Modality.VIDEO] * len(FRAMES)):
        sampler = FrameBatchSampler(FRAMES, 600, seed=3, group=4, streams=streams)
        epochs = json.dumps([sampler.epoch(number) for number in range(3)])
        assert sha256(epochs.encode()).hexdigest() == before
