"""The manifest and the splits of a corpus: written, read, validated."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from seehear.data.clipfile import MouthClip, read_clip, write_clip
from seehear.data.corpus import Corpus, Utterance
from seehear.data.validation import validate
from seehear.errors import CorpusError
from seehear.modality import Modality

SEEHEAR = str(Path(sys.executable).with_name("seehear"))
TEXTS = (
    'she said "no, never", twice',
    "tab\tand line\nbreak",
    "שלום عليكم",  # right to left
    "a\u2028b\x85c",  # what other programs take for line ends
    "naïve Å 語 🙂",
    None,
)


def utterance(number: int, text: str | None = None) -> Utterance:
    return Utterance(f"clip {number}", f"clips/clip {number}.mp4", frames=3 + number, text=text, speaker="s1")


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    """Six clips with awkward texts, in two splits."""
    utterances = [utterance(number, text) for number, text in enumerate(TEXTS)]
    for each in utterances:
        video = np.full((each.frames, 96, 96), 100, np.uint8)
        write_clip(tmp_path / each.clip, MouthClip(video, np.zeros(each.frames * 640, np.float32)))
    ids = [each.id for each in utterances]
    return Corpus.write(tmp_path, utterances, {"train": ids[:4], "test": ids[4:]})


def test_what_is_written_is_read(corpus: Corpus) -> None:
    read = Corpus.load(corpus.root)
    assert read.utterances == corpus.utterances
    assert list(read.utterances) == list(corpus.utterances)
    assert read.split_names() == ["test", "train"]
    assert [each.id for each in read.split("test")] == ["clip 4", "clip 5"]
    assert read.read(read.utterances["clip 2"]).video.shape == (5, 96, 96)


def test_the_manifest_says_what_is_known(corpus: Corpus) -> None:
    lines = (corpus.root / "manifest.jsonl").read_text(encoding="utf-8").split("\n")
    assert json.loads(lines[0]) == {
        "id": "clip 0",
        "clip": "clips/clip 0.mp4",
        "frames": 3,
        "duration": 0.12,
        "text": TEXTS[0],
        "speaker": "s1",
    }
    assert "text" not in json.loads(lines[5])
    assert not list(corpus.root.rglob("*.tmp"))


def test_the_manifest_says_which_streams_a_clip_has(tmp_path: Path) -> None:
    clips = [replace(utterance(number), streams=streams) for number, streams in enumerate(Modality)]
    Corpus.write(tmp_path, clips, {})
    lines = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line.get("streams") for line in lines] == ["a", "v", None]
    assert list(Corpus.load(tmp_path).utterances.values()) == clips


def test_a_clip_with_other_streams_than_the_manifest_says_is_not_read(corpus: Corpus) -> None:
    edit(corpus, 1, streams="a")
    read = Corpus.load(corpus.root)
    with pytest.raises(CorpusError, match=r"clip 0\.mp4: sound and picture in the file, sound alone in the manifest"):
        read.read(read.utterances["clip 0"])


def test_a_corpus_can_be_moved(corpus: Corpus, tmp_path: Path) -> None:
    moved = tmp_path.with_name("moved elsewhere")
    shutil.copytree(corpus.root, moved)
    assert validate(moved) == []
    read = Corpus.load(moved)
    assert len(read.read(read.utterances["clip 1"]).video) == 4


def test_windows_editors_are_forgiven(corpus: Corpus) -> None:
    for path in (corpus.root / "manifest.jsonl", corpus.root / "splits" / "train.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    read = Corpus.load(corpus.root)
    assert read.utterances == corpus.utterances
    assert [each.id for each in read.split("train")] == ["clip 0", "clip 1", "clip 2", "clip 3"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: not valid JSON"),
        ("[1]", "line 2: a line must be a JSON object"),
        ('{"id": "x", "clip": "x.mp4"}', "line 2: 'frames' must be an integer above 0"),
        ('{"id": "x", "clip": "x.mp4", "frames": true}', "'frames' must be"),
        ('{"id": "x", "clip": "x.mp4", "frames": 0}', "'frames' must be"),
        ('{"id": "x", "clip": "x.mp4", "frames": 50, "duration": 3}', "'duration' 3 is not that of 50 frames"),
        ('{"id": "x", "clip": "../x.mp4", "frames": 5}', "the clip '../x.mp4' lies outside the corpus"),
        ('{"id": "x", "clip": "/x.mp4", "frames": 5}', "the clip '/x.mp4' lies outside the corpus"),
        ('{"id": "x", "clip": "a\\u0000b", "frames": 5}', "'clip' must be a path"),
        ('{"id": "x\\n", "clip": "x.mp4", "frames": 5}', "'id' must be a text of printable characters"),
        ('{"id": "x", "clip": "x.mp4", "frames": 5, "text": 7}', "'text' must be a text"),
        ('{"id": "x", "clip": "x.mp4", "frames": 5, "streams": "smell"}', '\'streams\' must be "a", "v" or "av"'),
        ('{"id": 1, "clip": 2, "frames": "5"}', "'id' must .*; 'clip' must .*; 'frames' must"),
        ('{"id": "a", "clip": "x.mp4", "frames": 5}', "line 2: the id 'a' stands twice"),
        ('{"id": "\udcff"}', "line 2: not UTF-8"),
    ],
)
def test_a_faulty_manifest_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(
        f'{{"id": "a", "clip": "a.mp4", "frames": 5}}\n{line}\n', encoding="utf-8", errors="surrogateescape"
    )
    with pytest.raises(CorpusError, match=message) as failure:
        Corpus.load(tmp_path)
    assert str(manifest) in str(failure.value)


def test_a_missing_corpus_or_split_says_what_there_is(corpus: Corpus, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="no prepared corpus"):
        Corpus.load(tmp_path / "clips")
    with pytest.raises(CorpusError, match="no split 'dev'; there are: test, train"):
        corpus.split("dev")
    with pytest.raises(CorpusError, match="no split"):
        corpus.split("../splits/test")
    (corpus.root / "splits" / "test.txt").write_text("clip 4\nclip 44\n")
    with pytest.raises(CorpusError, match="first 'clip 44'"):
        corpus.split("test")


def test_an_id_is_written_once(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="1 ids of its clips stand twice"):
        Corpus.write(tmp_path, [utterance(1), utterance(2), utterance(1)], {})


# Validation


def test_a_good_corpus_has_no_faults(corpus: Corpus) -> None:
    assert validate(corpus.root) == []


def edit(corpus: Corpus, line: int, **values: object) -> None:
    """Change values in a line of the manifest."""
    path = corpus.root / "manifest.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")
    lines[line - 1] = json.dumps(json.loads(lines[line - 1]) | values)
    path.write_text("\n".join(lines), encoding="utf-8")


def replace_by_link(corpus: Corpus) -> None:
    outside = corpus.root.with_name("outside.mp4")
    clip = corpus.root / "clips" / "clip 1.mp4"
    clip.replace(outside)
    clip.symlink_to(outside)


def drop_sound(corpus: Corpus) -> None:
    """Clip 1 has a picture alone."""
    path = corpus.root / "clips" / "clip 1.mp4"
    write_clip(path, MouthClip(read_clip(path).video, None))


def append(corpus: Corpus, name: str, text: str) -> None:
    with (corpus.root / name).open("a", encoding="utf-8") as file:
        file.write(text)


def crlf(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))


def mark(path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())


FAULTS: list[tuple[Callable[[Corpus], object], str]] = [
    (lambda c: (c.root / "clips" / "clip 1.mp4").unlink(), "manifest.jsonl:2: the clip 'clips/clip 1.mp4' is missing"),
    (lambda c: edit(c, 3, frames=7, duration=0.28), "manifest.jsonl:3: 5 frames in 'clips/clip 2.mp4', not 7"),
    (drop_sound, "manifest.jsonl:2: 'clips/clip 1.mp4': picture alone in the file, sound and picture in the manifest"),
    (lambda c: edit(c, 3, id="clip 1"), "manifest.jsonl:3: the id 'clip 1' stands in line 2 already"),
    (lambda c: edit(c, 2, clip="clips/clip 0.mp4"), "manifest.jsonl:2: the clip 'clips/clip 0.mp4' stands in line 1"),
    (lambda c: edit(c, 4, clip="../clip.mp4"), "manifest.jsonl:4: the clip '../clip.mp4' lies outside the corpus"),
    (replace_by_link, "manifest.jsonl:2: the clip 'clips/clip 1.mp4' leads outside the corpus"),
    (lambda c: (c.root / "clips" / "clip 5.mp4").write_bytes(b"no clip"), "manifest.jsonl:6: "),
    (lambda c: append(c, "manifest.jsonl", "{half\n"), "manifest.jsonl:7: not valid JSON"),
    (lambda c: append(c, "splits/test.txt", "clip 9\n"), "test.txt:3: the manifest has no clip 'clip 9'"),
    (lambda c: append(c, "splits/test.txt", "clip 4\n"), "test.txt:3: 'clip 4' stands in line 1 already"),
    (lambda c: (c.root / "splits" / "test.txt").write_text("\n"), "test.txt: the split is empty"),
    (lambda c: (c.root / "splits" / "test.txt").write_bytes(b"clip 4\n\xff\n"), "test.txt:2: not UTF-8"),
    (lambda c: crlf(c.root / "manifest.jsonl"), "manifest.jsonl:1: ends in CRLF, as do 6 lines"),
    (lambda c: mark(c.root / "splits" / "train.txt"), "train.txt:1: begins with a byte order mark"),
    (lambda c: (c.root / "manifest.jsonl").unlink(), "manifest.jsonl: there is no manifest.jsonl"),
    (lambda c: (c.root / "manifest.jsonl").write_text(""), "manifest.jsonl: it lists no clips"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "message"), FAULTS, ids=[message.split(": ")[0] for _, message in FAULTS])
def test_every_fault_is_found_with_its_line(corpus: Corpus, damage: Callable[[Corpus], object], message: str) -> None:
    damage(corpus)
    serious = [str(fault) for fault in validate(corpus.root) if not fault.warning]
    assert any(message in fault for fault in serious), serious


def test_all_faults_are_reported_at_once(corpus: Corpus) -> None:
    (corpus.root / "clips" / "clip 0.mp4").unlink()
    edit(corpus, 2, frames=99, duration=3.96)
    append(corpus, "manifest.jsonl", "[]\n")
    append(corpus, "splits/test.txt", "x\ny\n")
    places = [(fault.path.name, fault.line) for fault in validate(corpus.root)]
    assert places == [
        ("manifest.jsonl", 1),
        ("manifest.jsonl", 2),
        ("manifest.jsonl", 7),
        ("test.txt", 3),
        ("test.txt", 4),
    ]


def test_overlapping_splits_and_stray_clips_are_warnings(corpus: Corpus) -> None:
    append(corpus, "splits/test.txt", "clip 2\nclip 3\n")
    shutil.copy(corpus.root / "clips" / "clip 0.mp4", corpus.root / "clips" / "stray.mp4")
    found = validate(corpus.root)
    assert all(fault.warning for fault in found)
    assert [str(fault).removeprefix(f"{corpus.root}/") for fault in found] == [
        "clips/stray.mp4: warning: is not in the manifest",
        "splits/test.txt:3: warning: 2 clips are in 'train' too, the first is 'clip 2'",
    ]


def test_the_command_lists_faults_and_fails(corpus: Corpus) -> None:
    command = [SEEHEAR, "corpus", "validate", str(corpus.root)]
    good = subprocess.run(command, capture_output=True, text=True)
    assert (good.returncode, good.stderr) == (0, "")
    assert "6 clips, 0.00 hours; sound alone: 0; picture alone: 0; faults: 0, warnings: 0" in good.stdout
    drop_sound(corpus)
    edit(corpus, 2, streams="v")
    mixed = subprocess.run(command, capture_output=True, text=True)
    assert (mixed.returncode, mixed.stderr) == (0, "")
    assert "6 clips, 0.00 hours; sound alone: 0; picture alone: 1; faults: 0" in mixed.stdout
    (corpus.root / "clips" / "clip 0.mp4").unlink()
    bad = subprocess.run(command, capture_output=True, text=True)
    assert (bad.returncode, bad.stderr) == (1, "")
    assert bad.stdout.splitlines() == [
        f"{corpus.root}/manifest.jsonl:1: the clip 'clips/clip 0.mp4' is missing",
        f"{corpus.root}: faults: 1, warnings: 0",
    ]
