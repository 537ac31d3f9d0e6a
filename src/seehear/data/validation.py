"""Everything that can be wrong with a prepared corpus, all of it at once, with line numbers."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

from seehear.data.clipfile import read_clip
from seehear.data.corpus import MANIFEST, SPLITS, Utterance, other_streams, parse_utterance
from seehear.data.workers import available_cores
from seehear.errors import CorpusError, MediaError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Fault:
    """Something wrong in a corpus."""

    path: Path
    line: int | None
    message: str
    warning: bool = False
    """Odd, but usable."""

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {'warning: ' if self.warning else ''}{self.message}"


def validate(root: Path) -> list[Fault]:
    """Check the manifest, every clip (each is decoded) and the splits of the corpus in `root`."""
    manifest = root / MANIFEST
    if not manifest.is_file():
        return [Fault(manifest, None, f"there is no {MANIFEST}: no prepared corpus; make one with `seehear prepare`")]
    faults = list(_text_faults(manifest))
    entries: dict[int, Utterance] = {}
    first_line: dict[str, int] = {}
    for number, line in _numbered_lines(manifest, faults):
        try:
            utterance = parse_utterance(line, "")
        except CorpusError as error:
            faults.append(Fault(manifest, number, str(error).removeprefix(": ")))
            continue
        for name, kind in ((utterance.id, "id"), (utterance.clip, "clip")):
            first = first_line.setdefault(f"{kind} {name}", number)
            if first != number:
                faults.append(Fault(manifest, number, f"the {kind} '{name}' stands in line {first} already"))
        entries[number] = utterance
    if not entries:
        faults.append(Fault(manifest, None, "it lists no clips"))
    with ThreadPoolExecutor(available_cores()) as pool:  # decoding leaves Python's lock to others
        messages = pool.map(partial(_clip_fault, root), entries.values())
        faults += [Fault(manifest, n, message) for n, message in zip(entries, messages, strict=True) if message]
    faults += _unlisted(root, {utterance.clip for utterance in entries.values()})
    faults += _split_faults(root, {utterance.id for utterance in entries.values()})
    return sorted(faults, key=lambda fault: (fault.path != manifest, fault.path, fault.line or 0))


def _text_faults(path: Path) -> Iterator[Fault]:
    """What other programs trip over, though ours does not."""
    content = path.read_bytes()
    if content.startswith(BYTE_ORDER_MARK):
        yield Fault(path, 1, "begins with a byte order mark: save it as UTF-8 without one")
    if returns := content.count(b"\r\n"):
        line = content[: content.index(b"\r\n")].count(b"\n") + 1
        yield Fault(path, line, f"ends in CRLF, as do {returns} lines of the file: save it with LF alone")


def _numbered_lines(path: Path, faults: list[Fault]) -> Iterator[tuple[int, str]]:
    """The lines of `path` that are not empty; a fault for each that is not UTF-8."""
    for number, line in enumerate(path.read_bytes().removeprefix(BYTE_ORDER_MARK).split(b"\n"), start=1):
        try:
            text = line.decode().strip()
        except UnicodeDecodeError:
            faults.append(Fault(path, number, "not UTF-8"))
            continue
        if text:
            yield number, text


def _clip_fault(root: Path, utterance: Utterance) -> str | None:
    """What is wrong with the media file of `utterance`."""
    path = root / utterance.clip
    if not path.resolve().is_relative_to(root.resolve()):
        return f"the clip '{utterance.clip}' leads outside the corpus"
    if not path.is_file():
        return f"the clip '{utterance.clip}' is missing"
    try:
        clip = read_clip(path)
    except MediaError as error:
        return str(error)
    if clip.streams is not utterance.streams:
        return f"'{utterance.clip}': {other_streams(clip, utterance)}"
    if clip.frames != utterance.frames:
        return f"{clip.frames} frames in '{utterance.clip}', not {utterance.frames}"
    return None


def _unlisted(root: Path, listed: set[str]) -> list[Fault]:
    """Clips that no line of the manifest names."""
    clips = sorted(path.relative_to(root).as_posix() for path in (root / "clips").rglob("*.mp4"))
    return [Fault(root / clip, None, "is not in the manifest", warning=True) for clip in clips if clip not in listed]


def _split_faults(root: Path, known: set[str]) -> list[Fault]:
    """Faults of the lists of ids, and ids that two of them share."""
    faults: list[Fault] = []
    splits: dict[Path, dict[str, int]] = {}
    for path in sorted((root / SPLITS).glob("*.txt")):
        faults += _text_faults(path)
        lines: dict[str, int] = {}
        for number, id in _numbered_lines(path, faults):
            if id not in known:
                faults.append(Fault(path, number, f"the manifest has no clip '{id}'"))
            if (first := lines.setdefault(id, number)) != number:
                faults.append(Fault(path, number, f"'{id}' stands in line {first} already"))
        if not lines:
            faults.append(Fault(path, None, "the split is empty"))
        splits[path] = lines
    return faults + [fault for pair in combinations(splits, 2) for fault in _overlap(splits, *pair)]


def _overlap(splits: Mapping[Path, Mapping[str, int]], one: Path, other: Path) -> Iterator[Fault]:
    """A warning if two splits share clips."""
    shared = [id for id in splits[one] if id in splits[other]]
    if shared:
        message = f"{len(shared)} clips are in '{other.stem}' too, the first is '{shared[0]}'"
        yield Fault(one, splits[one][shared[0]], message, warning=True)
