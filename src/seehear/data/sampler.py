"""Which clips make up which step: batches of about equal length filled by total frames, the same for the same seed."""

import signal
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from seehear.data.batch import Batch, TrainingClips, collate, fill
from seehear.modality import Modality

LENGTH_JITTER = 0.1
"""Clips are sorted by length times a random factor of up to 1 ± this, so that batches differ between epochs."""


class FrameBatchSampler(Sampler[list[tuple[int, int]]]):
    """An endless sequence of batches of (position, seed), a function of `seed` and `group`.

    Each epoch shuffles the clips, sorts them roughly by length, fills batches up to `max_frames` (padding counted) and
    shuffles groups of `group` of them: the batches of one optimiser step, on all processes, are of about equal length.
    Where clips differ in their `streams` (one for each of `frames`), the batches of a group have the same ones. Some
    batches come more than once in an epoch where the number of their kind is no multiple of `group`. `length` tells how
    long the clip of a position and seed is, where that differs from `frames`.

    `start` skips that many batches, which is how a run resumes; of the rest, every `stride`-th is given: with the rank
    of a process added to `start`, each process has its own, and all have equally many.
    """

    def __init__(
        self,
        frames: Sequence[int],
        max_frames: int,
        seed: int,
        *,
        start: int = 0,
        stride: int = 1,
        group: int = 1,
        length: Callable[[int, int], int] | None = None,
        streams: Sequence[Modality] | None = None,
    ) -> None:
        self.frames = np.asarray(frames)
        self.max_frames = max_frames
        self.seed = seed
        self.start = start
        self.stride = stride
        self.group = group
        self.streams = list(streams) if streams is not None else [Modality.AUDIOVISUAL] * len(frames)
        self.length = length or (lambda position, _: int(self.frames[position]))

    def epoch(self, number: int) -> list[list[tuple[int, int]]]:
        """The batches of one epoch."""
        rng = np.random.default_rng([self.seed, number])
        jitter = rng.uniform(1 - LENGTH_JITTER, 1 + LENGTH_JITTER, len(self.frames))
        order = np.argsort(self.frames * jitter, kind="stable")
        clips = [
            (int(position), int(seed))
            for position, seed in zip(order, rng.integers(2**62, size=len(order)), strict=True)
        ]
        lengths = {clip: self.length(*clip) for clip in clips}
        clips.sort(key=lambda clip: lengths[clip] * jitter[clip[0]])
        groups: list[list[list[tuple[int, int]]]] = []
        for streams in Modality:
            of_kind = [clip for clip in clips if self.streams[clip[0]] is streams]
            filled = fill([lengths[clip] for clip in of_kind], self.max_frames)
            batches = [[of_kind[i] for i in batch] for batch in filled]
            missing = -len(batches) % self.group
            batches += (batches * self.group)[-missing:] if missing else []
            groups += [batches[i : i + self.group] for i in range(0, len(batches), self.group)]
        rng.shuffle(groups)
        return [batch for group in groups for batch in group]

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        skip, number = self.start, 0
        while True:
            batches = self.epoch(number)
            yield from batches[skip :: self.stride]
            skip = skip + max(0, -(-(len(batches) - skip) // self.stride)) * self.stride - len(batches)
            number += 1

    def batches_per_epoch(self) -> int:
        """Batches of the first epoch (later ones may differ a little)."""
        return len(self.epoch(0))


def _leave_signals_to_the_run(worker: int) -> None:
    """A signal to the whole group of processes asks the run to stop; it still needs its readers for that."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def stream(clips: TrainingClips, sampler: FrameBatchSampler, workers: int, pin_memory: bool = False) -> Iterator[Batch]:
    """Batches without end, read ahead by `workers` processes."""
    loader: DataLoader[Batch] = DataLoader(
        clips,  # type: ignore[arg-type]
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=pin_memory,
        worker_init_fn=_leave_signals_to_the_run,
        generator=torch.Generator(),  # its own: opening a stream must not move the random state of the model
    )
    return iter(loader)
