"""Clips that become one: sentences with pauses between and around them, as the windows of long recordings hold them."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from seehear.data.clipfile import MouthClip
from seehear.data.corpus import Utterance
from seehear.data.transforms import stillness
from seehear.modality import FRAME_RATE, Modality
from seehear.recipe import AugmentConfig


class Passage(NamedTuple):
    """Which clips, and for how many frames nothing is said before each of them and after the last."""

    positions: tuple[int, ...]
    pauses: tuple[int, ...]


class Passages:
    """Draws passages from some utterances, of one speaker each where speakers are known, and of the same streams."""

    def __init__(self, utterances: Sequence[Utterance], augment: AugmentConfig, max_frames: int) -> None:
        self.frames = [utterance.frames for utterance in utterances]
        self.groups = [(utterance.speaker, utterance.streams) for utterance in utterances]
        self.probability = augment.join_probability
        self.longest_pause = round(augment.join_pause * FRAME_RATE)
        self.max_frames = max_frames
        self._of_group: dict[tuple[str | None, Modality], list[int]] = defaultdict(list)
        for position, group in enumerate(self.groups):
            self._of_group[group].append(position)

    def draw(self, position: int, seed: int) -> Passage:
        """The passage that begins with the clip at `position`, or that clip alone; the same for the same `seed`."""
        rng = np.random.default_rng([seed, 1]) if self.probability else None
        if rng is None or rng.random() >= self.probability:
            return Passage((position,), (0, 0))
        room = max(0, self.max_frames - self.frames[position])
        before, after = (min(int(pause), room // 2) for pause in rng.integers(self.longest_pause + 1, size=2))
        room -= before + after
        positions, pauses = [position], [before]
        candidates = self._of_group[self.groups[position]]
        while rng.random() < self.probability:
            other = candidates[int(rng.integers(len(candidates)))]
            pause = int(rng.integers(self.longest_pause + 1))
            room -= pause + self.frames[other]
            if room < 0:
                break
            positions.append(other)
            pauses.append(pause)
        return Passage(tuple(positions), (*pauses, after))

    def length(self, position: int, seed: int) -> int:
        """Frames of that passage."""
        drawn = self.draw(position, seed)
        return sum(self.frames[clip] for clip in drawn.positions) + sum(drawn.pauses)


def join(clips: Sequence[MouthClip], pauses: Sequence[int], rng: np.random.Generator) -> MouthClip:
    """The clips, all of the same streams, one after the other.

    In a pause the mouth before it keeps still, in the first the mouth after it.
    """
    parts = [stillness(clips[0], pauses[0], rng)]
    for clip, pause in zip(clips, pauses[1:], strict=True):
        backwards = clip.change(lambda video: video[::-1], lambda audio: audio)
        parts += [clip, stillness(backwards, pause, rng)]
    return parts[0].change(
        lambda _: np.concatenate([part.require_video() for part in parts]),
        lambda _: np.concatenate([part.require_audio() for part in parts]),
    )
