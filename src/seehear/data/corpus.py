"""A prepared corpus on disk: `manifest.jsonl`, one media file per clip, splits as lists of ids.

OUT/
├── manifest.jsonl      one Utterance per line
├── clips/ID.mp4        mouth video (96×96 grey, 25 frames/s), mono 16 kHz sound, or both; plays anywhere
├── splits/NAME.txt     ids, one per line
└── …                   what else is known about it: see `seehear.preparation.prepare` and `seehear.data.synthetic`
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from seehear.data.clipfile import MouthClip, read_clip
from seehear.errors import CorpusError
from seehear.files import write_atomically
from seehear.modality import FRAME_RATE, Modality

MANIFEST = "manifest.jsonl"
SPLITS = "splits"
TRUTH_FILE = "truth.jsonl"
OPTIONAL = ("text", "speaker", "source")
"""Keys of the manifest that may be left out."""


@dataclass(frozen=True)
class Utterance:
    """One clip of a corpus; a line of its manifest."""

    id: str
    clip: str
    """Path of the media file, relative to the corpus, with forward slashes."""
    frames: int
    text: str | None = None
    speaker: str | None = None
    source: str | None = None
    """Where the clip comes from: a file name, or "synthetic"."""
    streams: Modality = Modality.AUDIOVISUAL
    """What the clip has: sound, picture or both."""

    def to_json(self) -> dict[str, Any]:
        """The manifest's keys; what is not known is left out, and so is `streams` of a clip that has both."""
        values = {
            "id": self.id,
            "clip": self.clip,
            "frames": self.frames,
            "duration": self.frames / FRAME_RATE,
            "text": self.text,
            "speaker": self.speaker,
            "source": self.source,
            "streams": None if self.streams is Modality.AUDIOVISUAL else self.streams.value,
        }
        return {key: value for key, value in values.items() if value is not None}


class Corpus:
    """The utterances of a prepared corpus and its splits."""

    def __init__(self, root: Path, utterances: Mapping[str, Utterance]) -> None:
        self.root = root
        self.utterances = dict(utterances)

    @classmethod
    def load(cls, root: Path) -> "Corpus":
        """Read the manifest in `root`. Raises `CorpusError` that names the file and line of the first fault."""
        path = Path(root) / MANIFEST
        if not path.is_file():
            raise CorpusError(f"{root} is no prepared corpus: it has no {MANIFEST}; make one with `seehear prepare`")
        utterances: dict[str, Utterance] = {}
        for number, line in enumerate(read_lines(path), start=1):
            if not line.strip():
                continue
            utterance = parse_utterance(line, f"{path}, line {number}")
            if utterance.id in utterances:
                raise CorpusError(f"{path}, line {number}: the id '{utterance.id}' stands twice")
            utterances[utterance.id] = utterance
        return cls(Path(root), utterances)

    def split_names(self) -> list[str]:
        """Names of the splits."""
        return sorted(path.stem for path in (self.root / SPLITS).glob("*.txt"))

    def split(self, name: str) -> list[Utterance]:
        """The utterances of a split, in its order. Raises `CorpusError` for an unknown split or id."""
        path = self.root / SPLITS / f"{name}.txt"
        if name not in self.split_names():
            raise CorpusError(
                f"{self.root} has no split '{name}'; there are: {', '.join(self.split_names()) or 'none'}"
            )
        ids = [line.strip() for line in read_lines(path) if line.strip()]
        unknown = [id for id in ids if id not in self.utterances]
        if unknown:
            raise CorpusError(f"{path} names {len(unknown)} clips that the manifest lacks, first '{unknown[0]}'")
        return [self.utterances[id] for id in ids]

    def truths(self) -> dict[str, str]:
        """What is said in the clips of which it is known, unlabelled ones included; for measuring, not for learning.

        From the manifest and, where a synthetic corpus has hidden it, from its truth file.
        """
        known = {id: utterance.text for id, utterance in self.utterances.items() if utterance.text is not None}
        path = self.root / TRUTH_FILE
        hidden = [json.loads(line) for line in read_lines(path) if line] if path.is_file() else []
        return {**{line["id"]: line["text"] for line in hidden}, **known}

    def read(self, utterance: Utterance) -> MouthClip:
        """The clip of `utterance`. Raises `CorpusError` if it has other streams than the manifest says."""
        clip = read_clip(self.root / utterance.clip)
        if clip.streams is not utterance.streams:
            raise CorpusError(f"{self.root / utterance.clip}: {other_streams(clip, utterance)}")
        return clip

    @classmethod
    def write(cls, root: Path, utterances: Iterable[Utterance], splits: Mapping[str, Sequence[str]]) -> "Corpus":
        """Write the manifest and the splits, each whole or not at all; the clips are written before."""
        listed = list(utterances)
        corpus = cls(root, {utterance.id: utterance for utterance in listed})
        if len(corpus.utterances) < len(listed):
            raise CorpusError(f"{root}: {len(listed) - len(corpus.utterances)} ids of its clips stand twice")
        for name, ids in splits.items():
            write_atomically(root / SPLITS / f"{name}.txt", "".join(f"{id}\n" for id in ids))
        lines = [json.dumps(utterance.to_json(), ensure_ascii=False) + "\n" for utterance in listed]
        write_atomically(root / MANIFEST, "".join(lines))
        return corpus


def other_streams(clip: MouthClip, utterance: Utterance) -> str:
    """How the streams of `clip` differ from those of its line in the manifest, in words."""
    return f"{clip.streams.contents} in the file, {utterance.streams.contents} in the manifest ('streams')"


def count_streams(utterances: Iterable[Utterance]) -> str:
    """How many of the clips have a single stream, in words: "sound alone: 97; picture alone: 0"."""
    counts = Counter(utterance.streams for utterance in utterances)
    return "; ".join(f"{kind.contents}: {counts[kind]}" for kind in (Modality.AUDIO, Modality.VIDEO))


def parse_utterance(line: str, place: str) -> Utterance:
    """The utterance of a manifest line. Raises `CorpusError` that begins with `place` and names every fault."""
    try:
        values = json.loads(line)
    except json.JSONDecodeError as error:
        raise CorpusError(f"{place}: not valid JSON ({error.msg}, column {error.colno})") from error
    if faults := _faults(values):
        raise CorpusError(f"{place}: {'; '.join(faults)}")
    streams = Modality(values.get("streams", Modality.AUDIOVISUAL))
    return Utterance(
        **{key: values[key] for key in ("id", "clip", "frames", *OPTIONAL) if key in values}, streams=streams
    )


def _faults(values: Any) -> list[str]:
    """What is wrong with the values of a manifest line."""
    if not isinstance(values, dict):
        return ["a line must be a JSON object"]
    id, clip, frames, duration = (values.get(key) for key in ("id", "clip", "frames", "duration"))
    faults = [f"'{key}' must be a text" for key in OPTIONAL if not isinstance(values.get(key), str | None)]
    if not isinstance(id, str) or not id.isprintable() or id != id.strip() or not id:
        faults.append("'id' must be a text of printable characters, without spaces around it")
    if not isinstance(clip, str) or not clip or "\0" in clip:
        faults.append("'clip' must be a path")
    elif PurePosixPath(clip).is_absolute() or ".." in PurePosixPath(clip).parts:
        faults.append(f"the clip '{clip}' lies outside the corpus")
    if not isinstance(frames, int) or isinstance(frames, bool) or frames < 1:
        faults.append("'frames' must be an integer above 0")
    elif duration is not None and not (isinstance(duration, int | float) and abs(duration * FRAME_RATE - frames) < 1):
        faults.append(f"'duration' {duration} is not that of {frames} frames")
    if values.get("streams", Modality.AUDIOVISUAL) not in list(Modality):
        faults.append('\'streams\' must be "a", "v" or "av"')
    return faults


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without a byte order mark and carriage returns. Raises `CorpusError` if it is no UTF-8.

    Not `str.splitlines`, which also splits at characters that may stand in a text, such as U+2028.
    """
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise CorpusError(f"{path}, line {line}: not UTF-8") from error
    except OSError as error:
        raise CorpusError(f"{path} cannot be read: {error.strerror}") from error
    return [line.removesuffix("\r") for line in content.split("\n")]
