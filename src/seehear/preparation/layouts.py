"""The layouts of known corpora: which recordings there are, what is said in them, by whom, and the official splits.

Ids are paths below the corpus without the suffix, as in any other folder. The corpus is the given folder or one in it,
such as `mvlrs_v1` or `LibriSpeech`.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Protocol

from seehear.data.corpus import read_lines
from seehear.errors import ConfigError, CorpusError
from seehear.preparation.published_lists import read_published_lists
from seehear.preparation.sources import Contents, Source, count, files_below, find_sources, make_source, sounds_below
from seehear.preparation.texts import TimedText, group_words, joined, read_align, read_lrs_text
from seehear.preparation.transcripts import WORD_TIMES, Transcription

SHOWN = 8
"""Entries of a folder that an error lists."""
GRID_SPEAKER = re.compile(r"(s\d{1,2})(?:[._].*)?")
"""Folders of a speaker: `s1`, also as archives are called, `s1.mpg_6000.part1`."""
LIBRISPEECH_SPLITS = ("dev-", "test-", "train-")
"""Beginnings of the names of its folders."""
LRS2_LISTS = {"pretrain": "pretrain", "train": "main", "val": "main", "test": "main"}
"""The lists of LRS2 and the folder that each is of."""


class Layout(Protocol):
    """Reads a folder. Raises one `CorpusError` that says what was expected and what is there."""

    def __call__(self, folder: Path, out: Path, longest: float) -> Contents:
        """What `folder` holds, leaving out what lies below `out`; cues are for clips of `longest` seconds."""
        ...


def read_layout(
    name: str,
    folder: Path,
    out: Path,
    longest: float,
    *,
    audio: Path | None = None,
    lists: Path | None = None,
    units: Path | None = None,
) -> Contents:
    """What `folder` holds in the layout `name`, one of `LAYOUTS` or `usr`, leaving out what lies below `out`.

    Words that have times become cues for clips of `longest` seconds. `audio` is a folder with the sound files of the
    videos; `lists` and `units` are those of the layout `usr`. Raises `CorpusError` if something else is there,
    `ConfigError` if the arguments do not fit the layout.
    """
    if not folder.is_dir():
        raise CorpusError(f"{folder} is no folder of recordings")
    folder, out, audio = folder.resolve(), out.resolve(), audio.resolve() if audio else None
    if folder.is_relative_to(out):
        raise ConfigError(f"OUT {'is' if folder == out else 'holds'} SOURCE, {folder}: choose another folder for OUT")
    if name == "usr":
        contents = read_published_lists(folder, lists or folder, units, audio or folder)
        return _noting_silence(contents, audio) if audio else contents
    if lists or units:
        raise ConfigError("--lists and --units belong to --layout usr")
    contents = LAYOUTS[name](folder, out, longest)
    if not contents.sources:
        there = "; ".join(contents.notes) or "none at all"
        raise CorpusError(f"{folder} holds no recordings where the layout {name} has them: {there}")
    return _with_sound(contents, audio) if audio else contents


def _with_sound(contents: Contents, audio: Path) -> Contents:
    """The same videos with the sound files below `audio` that have their ids."""
    sounds = sounds_below(audio)
    videos = {source.id: source for source in contents.sources if not source.is_sound}
    paired = {id: make_source(id, video.name, video.path, sounds[id]) for id, video in videos.items() if id in sounds}
    if not paired:
        first = next(iter(videos), "ID")
        raise CorpusError(f"{audio} holds no sound file with the name of a video, such as {first}.wav")
    sources = [paired.get(source.id, source) for source in contents.sources]
    used = {file for source in sources for file in (source.path, source.sound)}
    strays = [sounds[id].relative_to(audio).as_posix() for id in sorted(sounds) if sounds[id] not in used]
    notes = [count(f"sound files in {audio} that belong to no video", strays)] if strays else []
    return _noting_silence(contents._replace(sources=sources, notes=[*contents.notes, *notes]), audio)


def _noting_silence(contents: Contents, audio: Path) -> Contents:
    """The same with a note of the videos that have no sound file, in `audio` or beside them."""
    without = [source.name for source in contents.sources if not (source.is_sound or source.sound)]
    notes = [count(f"videos that have no sound file in {audio}", without)] if without else []
    return contents._replace(notes=[*contents.notes, *notes])


def plain_folder(folder: Path, out: Path, longest: float) -> Contents:
    """Any recordings, at any depth; neither transcripts nor splits."""
    sources, rejected = find_sources(folder, out)
    if not sources:
        raise CorpusError(f"{folder} holds no videos or sound files, such as .mp4, .mov, .wav, .flac")
    return Contents(sources, rejected)


def lrs3(folder: Path, out: Path, longest: float) -> Contents:
    """LRS3: SPLIT/SPEAKER/NAME.mp4 and .txt; the splits are folders."""
    splits = ("pretrain", "trainval", "test")
    expected = "folders pretrain, trainval, test with SPEAKER/NAME.mp4 and SPEAKER/NAME.txt"
    root = _root(folder, "lrs3", expected, lambda place: _has_folders(place, splits))
    if _has_folders(root, ("main",)) and not _has_folders(root, ("trainval", "test")):
        raise CorpusError(f"{root} has a folder main, but neither trainval nor test: this looks like --layout lrs2")
    found = _sentences(root, out, splits, longest)
    return found._replace(splits=_by_folder(found.sources))


def lrs2(folder: Path, out: Path, longest: float) -> Contents:
    """LRS2: main/SPEAKER/NAME.mp4 and .txt, the same in pretrain; the splits are lists beside these folders."""
    expected = "mvlrs_v1 with folders main, pretrain with SPEAKER/NAME.mp4 and SPEAKER/NAME.txt"
    root = _root(folder, "lrs2", expected, lambda place: _has_folders(place, ("main",)))
    found = _sentences(root, out, ("main", "pretrain"), longest)
    splits = {name: _lrs2_list(root, name) for name in LRS2_LISTS}
    known = {name: ids for name, ids in splits.items() if ids}
    missing = [f"{name}.txt" for name in LRS2_LISTS if name not in known and name != "pretrain"]
    known.setdefault("pretrain", [source.id for source in found.sources if source.id.startswith("pretrain/")])
    note = [count("lists of LRS2 that are not beside its folders", missing)] if missing else []
    return found._replace(splits=known, notes=[*found.notes, *note])


def _lrs2_list(root: Path, name: str) -> list[str]:
    """The ids in NAME.txt, in `root` or beside it; none if there is no list.

    Its lines are SPEAKER/NAME, sometimes with a mark after it.
    """
    path = next((place / f"{name}.txt" for place in (root, root.parent) if (place / f"{name}.txt").is_file()), None)
    lines = read_lines(path) if path else []
    return [f"{LRS2_LISTS[name]}/{line.split()[0].removesuffix('.mp4')}" for line in lines if line.strip()]


def _sentences(root: Path, out: Path, folders: Sequence[str], longest: float) -> Contents:
    """FOLDER/SPEAKER/NAME.mp4 with NAME.txt beside it, as LRS2 and LRS3 are laid out."""
    everything, rejected = find_sources(root, out)
    sources = [source for source in everything if _depth(source) == 3 and source.id.split("/")[0] in folders]
    speakers = {source.id: source.id.split("/")[1] for source in sources}
    beside = {source.id: source.path.with_suffix(".txt") for source in sources}
    paths = {id: path for id, path in beside.items() if path.is_file()}
    transcripts, notes = _read_texts(speakers, paths, read_lrs_text, longest)
    return Contents(sources, rejected, transcripts, notes=_left_out(everything, sources) + notes)


def grid(folder: Path, out: Path, longest: float) -> Contents:
    """GRID: NAME.mpg in a folder of each speaker, NAME.align anywhere; sound alone for NAME.wav without a video.

    It has no official splits. Alignments that lie in no folder of a speaker are those of all speakers.
    """
    everything, rejected = find_sources(folder, out)
    keys = {source.id: (_grid_speaker(source.id), source.id.rsplit("/", 1)[-1]) for source in everything}
    seen = {keys[source.id] for source in everything if not source.is_sound}
    of_speakers = [source for source in everything if keys[source.id][0]]
    sources = [source for source in of_speakers if not source.is_sound or keys[source.id] not in seen]
    if not sources:
        raise _mismatch(folder, "grid", "folders s1, s2, … with videos, and NAME.align for each")
    files = [path for path in files_below(folder) if path.suffix == ".align"]
    found = {(_grid_speaker(path.relative_to(folder).as_posix()), path.stem): path for path in files}
    paths = {source.id: found.get(keys[source.id]) or found.get((None, keys[source.id][1])) for source in sources}
    there = {id: path for id, path in paths.items() if path}
    speakers = {source.id: keys[source.id][0] for source in sources}
    transcripts, notes = _read_texts(speakers, there, _aligned_text, longest)
    return Contents(sources, rejected, transcripts, notes=_left_out(everything, sources) + notes)


def _read_texts(
    speakers: Mapping[str, str | None], paths: Mapping[str, Path], read: Callable[[Path], TimedText], longest: float
) -> tuple[dict[str, Transcription], list[str]]:
    """Transcripts of recordings with these `speakers`, from the files in `paths`, and a note of those in another form.

    Where there are word times, the words are in cues for clips of `longest` seconds.
    """
    transcripts, faulty = {id: Transcription("", speaker) for id, speaker in speakers.items()}, []
    for id, path in paths.items():
        try:
            text, words = read(path)
        except CorpusError as error:
            faulty.append(str(error))
        else:
            transcripts[id] = Transcription(text, speakers[id], group_words(words, longest), WORD_TIMES)
    return transcripts, [count("texts that cannot be read", faulty)] if faulty else []


def _aligned_text(path: Path) -> TimedText:
    """The words of an alignment of GRID."""
    words = read_align(path)
    return TimedText(joined(words), words)


def _grid_speaker(path: str) -> str | None:
    """The innermost folder around the file `path` that is one of a speaker."""
    matches = [GRID_SPEAKER.fullmatch(part) for part in path.split("/")[:-1]]
    return next((match[1] for match in reversed(matches) if match), None)


def librispeech(folder: Path, out: Path, longest: float) -> Contents:
    """LibriSpeech: SPLIT/SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac and SPEAKER-CHAPTER.trans.txt; sound alone."""
    expected = "folders such as dev-clean with SPEAKER/CHAPTER/SPEAKER-CHAPTER-NUMBER.flac and .trans.txt"
    root = _root(folder, "librispeech", expected, lambda place: any(place.glob("*-*/*/*/*.trans.txt")))
    everything, rejected = find_sources(root, out)
    sources = [source for source in everything if _depth(source) == 4 and source.id.startswith(LIBRISPEECH_SPLITS)]
    transcripts = {}
    for path in sorted(root.glob("*-*/*/*/*.trans.txt")):
        place = path.parent.relative_to(root).as_posix()
        for line in read_lines(path):
            id, _, text = line.partition(" ")
            if id:
                transcripts[f"{place}/{id}"] = Transcription(text.strip(), path.parent.parent.name)
    return Contents(sources, rejected, transcripts, _by_folder(sources), notes=_left_out(everything, sources))


def wildvsr(folder: Path, out: Path, longest: float) -> Contents:
    """WildVSR: videos/NAME.mp4, ready crops without sound, and labels.json with a text for each; one split, test."""
    expected = "a folder videos and labels.json"
    root = _root(folder, "wildvsr", expected, lambda place: (place / "labels.json").is_file())
    path = root / "labels.json"
    try:
        labels = json.loads("\n".join(read_lines(path)))
    except ValueError as error:
        raise CorpusError(f"{path} is not valid JSON ({error})") from error
    if not isinstance(labels, dict) or not all(isinstance(text, str) for text in labels.values()):
        raise CorpusError(f"{path} must be an object with a text for each video")
    everything, rejected = find_sources(root, out)
    sources = [source for source in everything if source.id.startswith("videos/")]
    texts = {f"videos/{name.removesuffix('.mp4')}": Transcription(text.strip()) for name, text in labels.items()}
    splits = {"test": [source.id for source in sources]}
    return Contents(sources, rejected, texts, splits, cropped=True, notes=_left_out(everything, sources))


LAYOUTS: Mapping[str, Layout] = {
    "folder": plain_folder,
    "grid": grid,
    "librispeech": librispeech,
    "lrs2": lrs2,
    "lrs3": lrs3,
    "wildvsr": wildvsr,
}


def _root(folder: Path, layout: str, expected: str, fits: Callable[[Path], bool]) -> Path:
    """`folder`, or the one folder in it that `fits`."""
    if fits(folder):
        return folder
    inside = [place for place in sorted(folder.iterdir()) if place.is_dir() and fits(place)]
    if len(inside) == 1:
        return inside[0]
    if inside:
        raise CorpusError(f"{folder} holds {len(inside)} folders in the layout {layout}: name one, such as {inside[0]}")
    raise _mismatch(folder, layout, expected)


def _mismatch(folder: Path, layout: str, expected: str) -> CorpusError:
    """What was expected, and what is there."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    there = ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "") or "nothing"
    return CorpusError(f"{folder} is not in the layout {layout}: expected {expected}; found {there}")


def _has_folders(place: Path, names: Sequence[str]) -> bool:
    """Whether any of these folders is in `place`."""
    return any((place / name).is_dir() for name in names)


def _depth(source: Source) -> int:
    return source.id.count("/") + 1


def _by_folder(sources: Sequence[Source]) -> dict[str, list[str]]:
    """The ids by their first folder."""
    ids = sorted(source.id for source in sources)
    return {name: list(group) for name, group in groupby(ids, key=lambda id: id.split("/")[0])}


def _left_out(everything: Sequence[Source], sources: Sequence[Source]) -> list[str]:
    """A note on recordings that have no place in the layout."""
    kept = {source.id for source in sources}
    others = [source.name for source in everything if source.id not in kept]
    return [count("recordings that have no place in the layout", others)] if others else []
