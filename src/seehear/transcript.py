"""What was said, and how it is written to files (the keys of the JSON are Whisper's, with ours beside them)."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from seehear.files import write_atomically
from seehear.modality import Modality


@dataclass(frozen=True)
class Segment:
    """A stretch of speech."""

    id: int
    start: float
    """In seconds, as is `end`."""
    end: float
    text: str
    tokens: tuple[int, ...]
    """Ids in the model's vocabulary, without specials."""
    avg_logprob: float
    """Mean log-probability of the tokens and the end of sentence under the model's decoder."""


@dataclass(frozen=True)
class Transcript:
    """What a recording says, and from what that was recognised."""

    source: str
    """The recording's path, as it was given."""
    duration: float
    """In seconds."""
    modality: Modality
    """What was listened to: sound, lips, or both."""
    reason: str
    """Why this modality."""
    segments: tuple[Segment, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """All of it in one line."""
        return " ".join(segment.text for segment in self.segments)

    def to_txt(self) -> str:
        """One segment a line."""
        return "".join(segment.text + "\n" for segment in self.segments)

    def to_json(self) -> str:
        """Text, segments, and what else is known."""
        return json.dumps({"text": self.text, **asdict(self)}, ensure_ascii=False, indent=2) + "\n"


WRITERS: Mapping[str, Callable[[Transcript], str]] = {"txt": Transcript.to_txt, "json": Transcript.to_json}
"""The output formats: a function from a transcript to the contents of a file."""


def write_transcript(transcript: Transcript, folder: Path, name: str, formats: Sequence[str]) -> list[Path]:
    """Write `folder/name.FORMAT` in each of `formats`, keys of `WRITERS`; return the paths."""
    paths = {format: folder / f"{name}.{format}" for format in formats}
    for format, path in paths.items():
        write_atomically(path, WRITERS[format](transcript))
    return list(paths.values())


def output_names(inputs: Sequence[Path]) -> list[str]:
    """A name for the output of each input: its stem; where inputs share a stem, the whole name, numbered if need be.

    No two are the same, even where case does not count.
    """
    stems = Counter(path.stem.casefold() for path in inputs)
    names: list[str] = []
    taken: set[str] = set()
    for path in inputs:
        base = path.stem if stems[path.stem.casefold()] == 1 else path.name
        candidates = (base if number == 1 else f"{base}-{number}" for number in range(1, len(inputs) + 2))
        name = next(candidate for candidate in candidates if candidate.casefold() not in taken)
        taken.add(name.casefold())
        names.append(name)
    return names
