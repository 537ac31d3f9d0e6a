"""`seehear prepare` on a corpus that it made before, with other settings, tables and recordings than then."""

from pathlib import Path

import pytest
import soundfile

from conftest import Prepare
from seehear.data.corpus import Corpus
from test_long_recordings import lines_of, speech, texts

TALK = ((1.0, 3.0), (8.0, 10.0), (11.0, 13.0), (20.0, 22.0), (30.0, 33.0))
"""When somebody speaks in a recording of 36 s: five parts, or four without pauses of a second."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "sounds"
    folder.mkdir()
    soundfile.write(folder / "talk.wav", speech(TALK, 36.0), 16_000)
    soundfile.write(folder / "short.wav", speech(((0.5, 1.5),), 2.0), 16_000)
    return folder


def table(folder: Path, content: str) -> Path:
    path = folder / "t.tsv"
    path.write_text(content, encoding="utf-8")
    return path


def lists(folder: Path, **splits: str) -> Path:
    path = folder / "lists"
    path.mkdir(exist_ok=True)
    for name, ids in splits.items():
        (path / f"{name}.txt").write_text("\n".join(ids.split()) + "\n")
    return path


def split(out: Path, name: str) -> "list[str]":
    return [utterance.id for utterance in Corpus.load(out).split(name)]


def parts(*numbers: int) -> "list[str]":
    return [f"talk-{number:04d}" for number in numbers]


def test_a_recut_never_puts_a_part_in_two_splits(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    out = tmp_path / "out"
    prepare(source, out)
    assert [id for id in texts(out) if id != "short"] == parts(1, 2, 3, 4, 5)
    named = lists(tmp_path, train="talk-0001 talk-0002 talk-0003 short", test="talk-0004 talk-0005", all="talk short")
    prepare(source, out, "--splits", named)
    again = prepare(source, out, "--pause", "1.5")
    assert [id for id in texts(out) if id != "short"] == parts(1, 2, 3, 4)
    assert split(out, "train") == ["short"]
    assert not (out / "splits" / "test.txt").exists()
    for name in ("train", "test"):
        assert f"of which the split '{name}' had some parts only, now none: 1 (talk)" in again.stdout


def test_new_parts_get_the_split_of_all_old_ones(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    out = tmp_path / "out"
    prepare(source, out, "--pause", "1.5", "--splits", lists(tmp_path, train="talk", some="short"))
    assert split(out, "train") == parts(1, 2, 3, 4)
    assert "now none" not in prepare(source, out).stdout
    assert split(out, "train") == parts(1, 2, 3, 4, 5)


def test_a_part_that_a_list_names_is_in_no_split_of_its_recording(
    source: Path, tmp_path: Path, prepare: Prepare
) -> None:
    out = tmp_path / "out"
    prepare(source, out, "--splits", lists(tmp_path, train="talk", test="talk-0002"))
    assert (split(out, "train"), split(out, "test")) == (parts(1, 3, 4, 5), parts(2))


def test_times_of_a_table_are_not_lost(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    out = tmp_path / "out"
    content = "id\tspeaker\tstart\tend\ttext\ntalk\tanna\t1\t3\tone\ntalk\tanna\t8\t10\ttwo\n"
    assert prepare(source, out, "--transcripts", table(tmp_path, content)).returncode == 0
    before = Corpus.load(out).utterances
    (source / "talk.srt").write_text("1\n00:00:20,000 --> 00:00:22,000\nbeside it\n")
    assert "to do: 0" in prepare(source, out, "--pause", "3").stderr
    refused = prepare(source, out, "--longest", "12")
    assert refused.returncode == 2
    assert refused.stderr == (
        "error: talk.wav was cut at times of the table of transcripts: give --transcripts or --layout again\n"
    )
    assert Corpus.load(out).utterances == before
    assert (out / "clips" / "talk-0002.mp4").exists()
    assert prepare(source, out, "--longest", "12", "--transcripts", tmp_path / "t.tsv").returncode == 0
    assert texts(out) == {"short": None, "talk-0001": "one", "talk-0002": "two"}


def test_texts_of_parts_are_not_put_on_others(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    out, named = tmp_path / "out", table(tmp_path, "talk-0003\tthree\n")
    prepare(source, out, "--pause", "1.5")
    assert prepare(source, out, "--pause", "1.5", "--transcripts", named).returncode == 0
    refused = prepare(source, out, "--transcripts", named)
    assert refused.returncode == 2
    assert "talk.wav would be cut at other places, but the transcripts name parts of it, such as talk-0003" in (
        refused.stderr
    )
    assert texts(out)["talk-0003"] == "three"
    again = prepare(source, out)
    assert "note: texts dropped of parts of recordings that were cut anew: 1 (talk-0003)" in again.stdout
    assert not any(texts(out).values())


def test_recordings_that_are_gone(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    prepare(source, out)
    other.mkdir()
    soundfile.write(other / "b.wav", speech(((0.5, 1.5),), 2.0), 16_000)
    refused = prepare(other, out)
    assert refused.returncode == 2
    assert "was made of other recordings (short.wav, …): choose another folder" in refused.stderr
    (source / "talk.wav").unlink()
    note = "note: recordings of an earlier run that are not in SOURCE any more, their clips removed: 1 (talk.wav)"
    assert note in prepare(source, out).stdout
    assert [path.name for path in (out / "clips").iterdir()] == ["short.mp4"]
    assert list(texts(out)) == ["short"]
    assert "not in SOURCE" not in prepare(source, out).stdout


def test_a_corrected_text_cuts_nothing_anew(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    out, subtitles = tmp_path / "out", source / "talk.srt"
    said = "1\n00:00:01,000 --> 00:00:03,000\nbin bleu\n\n2\n00:00:08,000 --> 00:00:10,000\nset white\n"
    subtitles.write_text(said)
    prepare(source, out)
    written = (out / "clips" / "talk-0001.mp4").stat().st_ino
    subtitles.write_text(said.replace("bleu", "blue"))
    assert "to do: 0" in prepare(source, out).stderr
    assert texts(out) == {"short": None, "talk-0001": "bin blue", "talk-0002": "set white"}
    assert (out / "clips" / "talk-0001.mp4").stat().st_ino == written
    (first, *_) = (line["part"] for line in lines_of(out / "crops.jsonl") if line["id"] == "talk-0001")
    assert isinstance(first, dict)
    assert first["text"] == "bin blue"


def test_the_wrong_table_is_refused_before_any_work(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    wrong = prepare(source, tmp_path / "out", "--transcripts", table(tmp_path, "nobody\tone\nnobody-0001\ttwo\n"))
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "none of the 2 transcripts is of a recording here: transcripts begin with an id such as 'short'" in (
        wrong.stderr
    )
    assert not (tmp_path / "out").exists()


def test_a_name_that_no_part_has_is_no_clash(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    out = tmp_path / "out"
    soundfile.write(source / "talk-2024.wav", speech(((0.5, 1.5),), 2.0), 16_000)
    assert prepare(source, out).returncode == 0
    assert list(texts(out)) == ["short", *parts(1, 2, 3, 4, 5), "talk-2024"]
    soundfile.write(source / "talk-0002.wav", speech(((0.5, 1.5),), 2.0), 16_000)
    run = prepare(source, out)
    assert "rejected talk.wav: a part of it would be called as talk-0002.wav is: rename one of them" in run.stdout
    assert sorted(path.stem for path in (out / "clips").iterdir()) == ["short", "talk-0002", "talk-2024"]


def test_lists_of_the_run_before_stay_true(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    out = tmp_path / "out"
    prepare(source, out, "--splits", lists(tmp_path, train="talk", test="short"))
    (tmp_path / "lists" / "train.txt").unlink()
    prepare(source, out, "--pause", "1.5", "--splits", lists(tmp_path, test="talk", valid="short"))
    assert {name: split(out, name) for name in Corpus.load(out).split_names()} == {
        "train": parts(1, 2, 3, 4),
        "test": parts(1, 2, 3, 4),
        "valid": ["short"],
    }
