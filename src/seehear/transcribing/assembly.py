"""What was heard in the windows of a recording, put together into its transcript."""

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from seehear.decoding.join import PlacedWord, in_order, join
from seehear.decoding.shortage import AS_ASKED
from seehear.listening.lips import Mouth
from seehear.listening.stream import Opened, Piece
from seehear.listening.windows import Window
from seehear.modality import FRAME_RATE, Modality
from seehear.tokenizer import Tokenizer
from seehear.transcribing.batches import Heard
from seehear.transcript import Segment, Transcript, Word

RECENT = 50
"""Parts of windows, as many as one or two windows of many faces may have."""


class _Part(NamedTuple):
    """A window as it was heard; without its sound and pictures, since hours of them come together here."""

    window: Window
    modality: Modality
    reason: str
    face: int | None
    avg_logprob: float
    no_speech_prob: float
    words: list[PlacedWord]
    """Those that are left after joining, placed in the recording."""


class Assembly:
    """The transcript of a recording, as it comes into being."""

    def __init__(
        self, source: str, path: Path, tokenizer: Tokenizer, word_times: bool, *, by_face: bool = False
    ) -> None:
        """`by_face`: what each face says is a text of its own."""
        self.source, self.path, self.tokenizer, self.word_times = source, path, tokenizer, word_times
        self.by_face = by_face
        self.opened: Opened | None = None
        self.frames = 0
        self._parts: list[_Part] = []
        self._last: dict[int | None, _Part] = {}  # of each face
        self._notes: dict[str, tuple[str, int]] = {}

    def note(self, text: str) -> None:
        """Something to be told; of notes that differ in their numbers, the first stands for all."""
        key = re.sub(r"[\d.]+", "#", text)
        first, times = self._notes.get(key, (text, 0))
        self._notes[key] = (first, times + 1)

    def add(self, piece: Piece, modality: Modality, mouth: Mouth | None, heard: Heard) -> None:
        """What was heard in the next window; its frames are those of the recording from here on."""
        start = piece.window.start
        face = None if mouth is None else mouth.face
        if self.by_face and face is None and any(_same(part.window, piece.window) for part in self._sound()):
            return  # the same sound, taken in place of another face's lips
        words = [word.moved(start) for word in heard.words]
        part = _Part(piece.window, modality, piece.reason, face, heard.avg_logprob, heard.no_speech_prob, words)
        if mouth is not None:
            self._note_mouth(piece, mouth)
        if heard.reduction != AS_ASKED:
            self.note(f"memory did not suffice at {start / FRAME_RATE:.1f} s: recognized {heard.reduction}")
        if heard.looped:
            self.note(f"the decoder repeated itself at {start / FRAME_RATE:.1f} s: the text there is CTC's")
        if heard.doubtful:
            self.note(f"there seems to be no speech at {start / FRAME_RATE:.1f} s: nothing is written")
        elif not heard.words:
            self.note(f"no words are recognised at {start / FRAME_RATE:.1f} s")
        before = self._before(part)
        if before is not None:
            kept, dropped = join(before.words, part.words, (start, before.window.end))
            del before.words[kept:]
            part.words[:] = in_order(part.words[dropped:], before.words[-1].end if before.words else 0.0)
        self._parts.append(part)
        self._last[face] = part

    def _note_mouth(self, piece: Piece, mouth: Mouth) -> None:
        when = f" (at {piece.window.start / FRAME_RATE:.1f} s)" if piece.window.start else ""
        for note in mouth.notes:
            self.note(note + when)
        if len(piece.mouths) > 1 or not mouth.where.startswith(("the only face", "ready crops")):
            which = mouth.where if mouth.where.startswith("face ") else f"face {mouth.face}, {mouth.where}"
            self.note(f"lips are read from {which}{when}")

    def _before(self, part: _Part) -> _Part | None:
        """The window that this one overlaps with: of the same face, or else of any that makes one text with it."""
        if not part.window.continues:
            return None
        start = part.window.start
        earlier = [self._last[part.face]] if part.face in self._last else []
        one_text = (other for other in self._parts[-1:] if not self.by_face or None in (part.face, other.face))
        earlier = [*one_text, *earlier]
        return next((other for other in reversed(earlier) if other.window.start < start < other.window.end), None)

    def transcript(self) -> Transcript:
        """All that was heard."""
        segments: list[Segment] = []
        parts = sorted(self._told(), key=_times)
        for number, part in enumerate(parts):
            start, end = (frame / FRAME_RATE for frame in _times(part))
            words = tuple(
                Word(word.text, word.start / FRAME_RATE, word.end / FRAME_RATE, word.probability) for word in part.words
            )
            if self.word_times:
                start, end = words[0].start, words[-1].end
            tokens = tuple(token for word in part.words for token in word.tokens)
            segments.append(
                Segment(
                    number,
                    start,
                    end,
                    self.tokenizer.decode(tokens),
                    tokens,
                    part.avg_logprob,
                    part.no_speech_prob,
                    words if self.word_times else (),
                    part.modality,
                    part.face,
                )
            )
        modality, reason = self._modality()
        prefix = f"{self.path}: "
        return Transcript(
            source=self.source,
            duration=self.frames / FRAME_RATE,
            modality=modality,
            reason=reason,
            segments=tuple(segments),
            warnings=tuple(
                text.removeprefix(prefix) + (f", and {times - 1} times more" if times > 1 else "")
                for text, times in self._notes.values()
            ),
        )

    def _told(self) -> list[_Part]:
        """The parts in which something is said; of texts by face, the sound alone only where no face has one."""
        parts = [part for part in self._parts if part.words]
        if not self.by_face:
            return parts
        of_faces = np.zeros(max((part.window.end for part in parts), default=0), bool)
        for part in parts:
            if part.face is not None:
                of_faces[part.window.start : part.window.end] = True
        return [
            part
            for part in parts
            if part.face is not None or of_faces[part.window.start : part.window.end].mean() <= 0.5
        ]

    def _sound(self) -> list[_Part]:
        """The last parts that are of no face."""
        return [part for part in self._parts[-RECENT:] if part.face is None]

    def _modality(self) -> tuple[Modality, str]:
        """What was listened to most of the time, and why, with what else there was."""
        assert self.opened is not None
        frames: Counter[Modality] = Counter()
        reasons: dict[Modality, str] = {}
        windows: defaultdict[Modality, int] = defaultdict(int)
        for part in self._parts:
            frames[part.modality] += part.window.end - part.window.start
            windows[part.modality] += 1
            reasons.setdefault(part.modality, part.reason)
        if not frames:
            return self.opened.modality, self.opened.reason
        main = frames.most_common(1)[0][0]
        others = "; ".join(
            f"in {windows[other]} of {len(self._parts)} windows {other.value.upper()}: {reasons[other]}"
            for other in frames
            if other is not main
        )
        return main, f"{reasons[main]}; {others}" if others else reasons[main]


def _same(one: Window, other: Window) -> bool:
    """Whether two windows hold the same speech for the most part."""
    common = min(one.speech_end, other.speech_end) - max(one.speech_start, other.speech_start)
    return 2 * common > min(window.speech_end - window.speech_start for window in (one, other))


def _times(part: _Part) -> tuple[int, int]:
    """When speech begins and ends in a window, in frames, one at least."""
    return part.window.speech_start, max(part.window.speech_end, part.window.speech_start + 1)
