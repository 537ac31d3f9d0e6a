"""Windows of many recordings on their way through a model, a batch at a time.

batch ─► heard ─► long pauses by CTC? its parts anew ─► little evidence? one stream alone ─► none? nothing ─► Assembly
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from seehear.decoding.shortage import ran_out
from seehear.errors import MediaError, SeehearError
from seehear.listening.lips import Mouth
from seehear.listening.stream import Piece
from seehear.transcribing.assembly import Assembly
from seehear.transcribing.batches import Heard, Input, Transcriber, part
from seehear.transcribing.choice import Believed, choose_streams, silence_doubtful
from seehear.transcript import Transcript

OnWindow = Callable[[Path, Piece, int | None, Input, Heard], None]
"""Is told what a model was given of a window, with the number of the face, and what it made of it."""
SHORTEST_SPLIT = 100
"""Frames of a window that is worth splitting: four seconds."""


@dataclass
class Recording:
    """A recording on its way."""

    path: Path
    assembly: Assembly
    waiting: int = 0
    """Windows that have been read and not yet been recognised."""
    read: bool = False
    error: SeehearError | OSError | None = None

    @property
    def done(self) -> bool:
        """Whether nothing more will come of it."""
        return self.read and not self.waiting

    def fail(self, error: Exception) -> None:
        """It cannot be recognised. Only for want of memory: other errors are raised again."""
        if not ran_out(error):
            raise error
        advice = "take another device or a smaller model"  # what else helps has been tried
        self.error = self.error or MediaError(f"{self.path}: the memory does not suffice to recognise it: {advice}")

    def result(self) -> Transcript | SeehearError | OSError:
        """The transcript, or what is wrong."""
        return self.error or self.assembly.transcript()


class _Waiting(NamedTuple):
    """A window that is to be recognised."""

    recording: Recording
    piece: Piece
    mouth: Mouth | None
    given: Input


class Recognition:
    """Collects windows and recognises them, `batch_size` at once."""

    def __init__(
        self,
        transcriber: Transcriber,
        *,
        choose: bool,
        no_speech_threshold: float,
        batch_size: int,
        on_window: OnWindow | None = None,
    ) -> None:
        """`choose` allows that one of two streams is taken where both say little."""
        self.transcriber = transcriber
        self.choose = choose
        self.no_speech_threshold = no_speech_threshold
        self.batch_size = batch_size
        self.on_window = on_window
        self._waiting: list[_Waiting] = []

    def add(self, recording: Recording, piece: Piece, mouth: Mouth | None, given: Input) -> None:
        """A window, which may wait for others. What `on_window` raises comes out here or from `finish`."""
        recording.waiting += 1
        self._waiting.append(_Waiting(recording, piece, mouth, given))
        if len(self._waiting) >= self.batch_size:
            self.finish()

    def finish(self) -> None:
        """Recognise what is waiting."""
        waiting, self._waiting = self._waiting, []
        for item in waiting:
            item.recording.waiting -= 1
        told: list[tuple[Path, Piece, int | None, Input, Heard]] = []
        for item, (given, text, other) in self._try(waiting):
            heard = silence_doubtful(text, self.no_speech_threshold)
            mouth = item.mouth if given.video is not None else None
            piece = item.piece._replace(reason=other or item.piece.reason)
            item.recording.assembly.add(piece, given.modality, mouth, heard)
            told.append((item.recording.path, piece, None if mouth is None else mouth.face, given, heard))
        if self.on_window:
            for window in told:  # when all are kept: what this raises costs none of them
                self.on_window(*window)

    def _try(self, waiting: list[_Waiting]) -> list[tuple[_Waiting, Believed]]:
        """What is believed; if memory does not suffice for all, one by one, and of none for which it does not."""
        try:
            return self._believe([item for item in waiting if item.recording.error is None])
        except (MemoryError, RuntimeError) as error:
            if not ran_out(error):
                raise
            if len(waiting) == 1:
                waiting[0].recording.fail(error)
                return []
        return [found for item in waiting for found in self._try([item])]

    def _believe(self, waiting: list[_Waiting]) -> list[tuple[_Waiting, Believed]]:
        """What is believed of each window, or of its parts."""
        whole = zip(waiting, self.transcriber([item.given for item in waiting]), strict=True)
        split = [(part, text) for item, text in whole for part in _at_pauses(item, text)]
        items, heard = [item for item, _ in split], [text for _, text in split]
        new = [place for place, (item, text) in enumerate(split) if text.pauses and item.given.frames < text.frames]
        for place, text in zip(new, self.transcriber([items[place].given for place in new]), strict=True):
            heard[place] = text
        believed = [Believed(item.given, text, None) for item, text in zip(items, heard, strict=True)]
        if self.choose:
            believed = choose_streams(believed, [item.piece.moving for item in items], self.transcriber)
        return list(zip(items, believed, strict=True))


def _at_pauses(item: _Waiting, heard: Heard) -> list[_Waiting]:
    """The window, or its parts between the pauses that CTC finds in it: noise may hide them from the sound's level.

    Not where it overlaps with another window, to which it is joined there.
    """
    window = item.piece.window
    pauses = [pause for pause in heard.pauses if window.own[0] < window.start + pause < window.own[1]]
    if not pauses or item.given.frames < SHORTEST_SPLIT:
        return [item]
    bounds = [0, *pauses, item.given.frames]
    parts = []
    for number, (first, end) in enumerate(itertools.pairwise(bounds)):
        start, stop = window.start + first, window.start + end
        smaller = window._replace(
            start=start,
            end=stop,
            speech_start=min(max(window.speech_start, start), stop - 1),
            speech_end=max(min(window.speech_end, stop), start + 1),
            continues=window.continues and number == 0,
            goes_on=window.goes_on and end == item.given.frames,
        )
        given = part(item.given, first, end)
        mouths = tuple(mouth._replace(frames=mouth.frames[first:end]) for mouth in item.piece.mouths)
        piece = item.piece._replace(window=smaller, audio=given.audio, mouths=mouths)
        parts.append(item._replace(piece=piece, given=given))
    return parts
