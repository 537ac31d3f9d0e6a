"""The videos of a folder, and the lists that come with them."""

from dataclasses import dataclass
from pathlib import Path

from seehear.data.corpus import read_lines
from seehear.errors import CorpusError

VIDEO_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in "3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv".split()  # noqa: SIM905
)


@dataclass(frozen=True)
class Source:
    """A video to prepare."""

    id: str
    """Its path below the folder of videos, without the suffix."""
    name: str
    """Its path below that folder, with forward slashes."""
    path: Path
    fingerprint: tuple[int, int]
    """Size in bytes and time of the last change: a video that changed is prepared again."""


@dataclass(frozen=True)
class Rejected:
    """A video that is not in the corpus, and why."""

    source: str
    """Its path below the folder of videos."""
    reason: str


def find_sources(folder: Path, leave_out: Path) -> tuple[list[Source], list[Rejected]]:
    """Every video below `folder` but not below `leave_out`, by name; and those that cannot have an id of their own.

    Hidden files and folders are passed over.
    """
    sources: dict[str, Source] = {}
    rejected = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or path.suffix.lower() not in VIDEO_SUFFIXES or not path.is_file() or path.is_relative_to(leave_out):
            continue
        name, id = relative.as_posix(), relative.with_suffix("").as_posix()
        if not id.isprintable() or id != id.strip():
            readable = name.encode(errors="replace").decode()
            rejected.append(Rejected(readable, "its name holds characters that cannot stand in a list: rename it"))
        elif id in sources:
            rejected.append(Rejected(name, f"only its suffix tells it from {sources[id].name}: rename one of them"))
        else:
            status = path.stat()
            sources[id] = Source(id, name, path, (status.st_size, status.st_mtime_ns))
    return list(sources.values()), rejected


def read_splits(folder: Path) -> dict[str, list[str]]:
    """The lists NAME.txt in `folder`, with one id per line. Raises `CorpusError` if there are none."""
    lists = sorted(folder.glob("*.txt"))
    if not lists:
        raise CorpusError(f"{folder} holds no splits: lists NAME.txt with one id per line")
    return {path.stem: [line.strip() for line in read_lines(path) if line.strip()] for path in lists}
