"""The recordings of a folder, and the lists that come with them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from seehear.data.corpus import read_lines
from seehear.errors import CorpusError
from seehear.preparation.transcripts import Transcription

VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in "3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv".split()  # noqa: SIM905
)
SOUND_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in "aac ac3 aif aiff amr au caf flac m4a mka mp3 oga ogg opus sph w64 wav weba wma wv".split()  # noqa: SIM905
)
"""Of files from which only sound is taken, whatever else they hold."""
MEDIA_SUFFIXES = VIDEO_SUFFIXES | SOUND_SUFFIXES


@dataclass(frozen=True)
class Source:
    """A recording to prepare: a video, a sound file, or a video and the sound file that goes with it."""

    id: str
    """Its path below the folder of recordings, without the suffix."""
    name: str
    """Its path below that folder, with forward slashes."""
    path: Path
    fingerprint: tuple[int, ...]
    """Size in bytes and time of the last change of each of its files: a recording that changed is prepared again."""
    sound: Path | None = None
    """The separate sound file of a video."""
    frames: int | None = None
    """Length that a list of the corpus states, in video frames."""

    def part(self, number: int) -> "Source":
        """The recording with the id of its part `number`, counted from 1."""
        return replace(self, id=f"{self.id}-{number:04d}", frames=None)

    @property
    def is_sound(self) -> bool:
        """Whether it is a sound file."""
        return self.path.suffix.lower() in SOUND_SUFFIXES


@dataclass(frozen=True)
class Rejected:
    """A recording that is not in the corpus, and why."""

    source: str
    """Its path below the folder of recordings."""
    reason: str


class Contents(NamedTuple):
    """What a folder holds, and what its layout says of it."""

    sources: Sequence[Source]
    rejected: Sequence[Rejected]
    transcripts: Mapping[str, Transcription] | None = None
    """By id; None if the layout has none."""
    splits: Mapping[str, Sequence[str]] | None = None
    cropped: bool = False
    """Whether its videos are ready crops."""
    notes: Sequence[str] = ()
    """What does not fit the layout."""

    @property
    def names(self) -> frozenset[str]:
        """What its recordings may be called: ids, and names with suffixes."""
        return frozenset(name for source in self.sources for name in (source.id, source.name))


def with_speakers(texts: Mapping[str, Transcription], contents: Contents) -> dict[str, Transcription]:
    """The `texts` by id or name, with the speakers that the layout knows where they name none."""
    known = contents.transcripts or {}
    ids = {source.name: source.id for source in contents.sources}
    unknown = Transcription("")
    return {
        key: text._replace(speaker=text.speaker or known.get(ids.get(key, key), unknown).speaker)
        for key, text in texts.items()
    }


def make_source(id: str, name: str, path: Path, sound: Path | None = None, frames: int | None = None) -> Source:
    """The source of these files, with their fingerprint."""
    statuses = [file.stat() for file in (path, sound) if file is not None]
    fingerprint = tuple(number for status in statuses for number in (status.st_size, status.st_mtime_ns))
    return Source(id, name, path, fingerprint, sound, frames)


def find_sources(folder: Path, leave_out: Path) -> tuple[list[Source], list[Rejected]]:
    """Every recording below `folder` but not below `leave_out`, by name; and those that cannot have an id of their own.

    A video and a sound file with the same id are one recording. Hidden files and folders are passed over.
    """
    videos: dict[str, Path] = {}
    sounds: dict[str, Path] = {}
    rejected = []
    for path in _media_files(folder, leave_out):
        relative = path.relative_to(folder)
        name, id = relative.as_posix(), relative.with_suffix("").as_posix()
        alike = videos if path.suffix.lower() in VIDEO_SUFFIXES else sounds
        if not id.isprintable() or id != id.strip():
            readable = name.encode(errors="replace").decode()
            rejected.append(Rejected(readable, "its name holds characters that cannot stand in a list: rename it"))
        elif id in alike:
            other = alike[id].relative_to(folder).as_posix()
            rejected.append(Rejected(name, f"only its suffix tells it from {other}: rename one of them"))
        else:
            alike[id] = path
    sources = [
        make_source(id, path.relative_to(folder).as_posix(), path, sounds.get(id) if id in videos else None)
        for id, path in {**sounds, **videos}.items()
    ]
    return sorted(sources, key=lambda source: source.path), rejected


def _media_files(folder: Path, leave_out: Path | None = None) -> Iterator[Path]:
    """Videos and sound files below `folder` but not below `leave_out`, by name."""
    for path in files_below(folder, leave_out):
        if path.suffix.lower() in MEDIA_SUFFIXES and path.is_file():
            yield path


def files_below(folder: Path, leave_out: Path | None = None) -> list[Path]:
    """The files below `folder` but not below `leave_out`, by name; neither hidden files nor those in hidden folders.

    Links to folders are followed. A folder that several links lead to counts once, so that a circle has an end; the
    place of the folder itself comes before those of links.
    """
    files: list[Path] = []
    pending, seen = [folder], set[tuple[int, int]]()
    for top in pending:
        for place, folders, names in os.walk(top):
            path = Path(place)
            status = path.stat()
            if (status.st_dev, status.st_ino) in seen or (leave_out and path.resolve().is_relative_to(leave_out)):
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            pending += [path / name for name in folders if (path / name).is_symlink()]
            files += [path / name for name in names if not name.startswith(".")]
    return sorted(files)


def sounds_below(folder: Path) -> dict[str, Path]:
    """The sound files below `folder` by their path there without the suffix; of several alike the first by name."""
    sounds: dict[str, Path] = {}
    for path in _media_files(folder):
        if path.suffix.lower() in SOUND_SUFFIXES:
            sounds.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return sounds


def read_splits(folder: Path) -> dict[str, list[str]]:
    """The lists NAME.txt in `folder`, with one id per line. Raises `CorpusError` if there are none."""
    lists = sorted(folder.glob("*.txt"))
    if not lists:
        raise CorpusError(f"{folder} holds no splits: lists NAME.txt with one id per line")
    return {path.stem: [line.strip() for line in read_lines(path) if line.strip()] for path in lists}


def count(what: str, ids: Sequence[str]) -> str:
    """`WHAT: 3 (a, b, c)`, or nothing if there are none."""
    shown = ", ".join(ids[:5]) + (", …" if len(ids) > 5 else "")
    return f"{what}: {len(ids)} ({shown})" if ids else ""
