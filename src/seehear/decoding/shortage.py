"""What is done where memory does not suffice: fewer clips at once, then each clip in two halves, then a smaller beam.

Where there is no smaller beam left, or the method has none, halves are halved again.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch

from seehear.decoding.options import DecodingOptions
from seehear.memory_errors import ran_out as ran_out

Item = TypeVar("Item")
Found = TypeVar("Found")

MIN_SPLIT_FRAMES = 100
"""Frames of the shortest clip that is halved."""
OVERLAP_FRAMES = 40
"""Frames that both halves have."""


class Reduction(NamedTuple):
    """How a clip was recognized, other than asked for, because memory did not suffice."""

    parts: int = 1
    """Parts that it was cut in; their texts are joined."""
    beam_size: int | None = None
    """Hypotheses of the search; None: as asked for."""

    def __str__(self) -> str:
        parts = {1: "", 2: "in halves"}.get(self.parts, f"in {self.parts} parts")
        beam = f"with beam {self.beam_size}" if self.beam_size is not None else ""
        return " ".join(filter(None, (parts, beam)))

    def with_beam(self, beam_size: int) -> "Reduction":
        """The same with a beam of `beam_size`, unless it is smaller already."""
        return self._replace(beam_size=min(beam_size, self.beam_size or beam_size))

    def joined(self, other: "Reduction") -> "Reduction":
        """That of two parts together: the smaller beam counts."""
        beams = [beam for beam in (self.beam_size, other.beam_size) if beam is not None]
        return Reduction(self.parts + other.parts, min(beams, default=None))


AS_ASKED = Reduction()


class Work(Protocol[Item, Found]):
    """Something that is done to clips and needs memory for it."""

    def decode(self, items: Sequence[Item], options: DecodingOptions) -> list[Found]:
        """What is found in each of `items`, all at once."""

    def halves(self, item: Item) -> tuple[Item, Item] | None:
        """The two parts of an item, see `halves`; None if it is too short."""

    def join(self, item: Item, left: Found, right: Found) -> Found:
        """What is found in `item`, of which the halves gave `left` and `right`."""


def within_memory(
    work: Work[Item, Found], items: Sequence[Item], options: DecodingOptions, *, halved: bool = False
) -> list[tuple[Found, Reduction]]:
    """What is found in each of `items`, and what was done to it for want of memory; `halved`: they are parts already.

    Raises what `work` raises, once nothing is left to be tried: a single short clip and a beam of 1.
    """
    try:
        return [(found, AS_ASKED) for found in work.decode(items, options)]
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error) or not _can_do_with_less(work, items, options):
            raise
    release()  # here, when the error and what its frames hold are gone
    if len(items) > 1:
        middle = len(items) // 2
        parts = (items[:middle], items[middle:])
        return [result for part in parts for result in within_memory(work, part, options, halved=halved)]
    smaller, two = options.with_smaller_beam(), work.halves(items[0])
    if two is not None and (smaller is None or not halved):
        ((left, before),), ((right, after),) = (within_memory(work, [half], options, halved=True) for half in two)
        return [(work.join(items[0], left, right), before.joined(after))]
    assert smaller is not None, "something is left to be tried"
    ((found, reduction),) = within_memory(work, items, smaller, halved=halved)
    return [(found, reduction.with_beam(smaller.beam_size))]


def _can_do_with_less(work: Work[Item, Found], items: Sequence[Item], options: DecodingOptions) -> bool:
    """Whether there are several clips, or one that can be halved, or a smaller beam."""
    return len(items) > 1 or options.with_smaller_beam() is not None or work.halves(items[0]) is not None


def halves(frames: int) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """The first frame and the one after the last of two parts of so many frames, which overlap; None if too few."""
    if frames < MIN_SPLIT_FRAMES:
        return None
    middle = frames // 2
    return (0, middle + OVERLAP_FRAMES // 2), (middle - OVERLAP_FRAMES // 2, frames)


def release() -> None:
    """Have PyTorch return memory of GPUs that it holds and does not use: blocks of other sizes may find room then."""
    torch.cuda.empty_cache()  # nothing where CUDA is not in use
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
