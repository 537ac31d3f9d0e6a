"""Batches filled by frames, in an order that the seed alone decides."""

import itertools

import numpy as np

from seehear.data.batch import fill
from seehear.data.sampler import FrameBatchSampler

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
