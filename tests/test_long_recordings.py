"""`seehear prepare` with recordings that are longer than a clip may be, run as users run it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from conftest import Prepare
from media_files import add_sound, write_video
from seehear.data.clipfile import MouthClip, read_clip, write_clip
from seehear.data.corpus import Corpus
from seehear.data.media import iter_frames, read_audio, read_header
from seehear.data.validation import validate
from seehear.modality import Modality
from seehear.preparation.transcripts import read_transcripts
from seehear.transcript import Segment, Transcript, write_transcript
from test_listening import babble, silence
from test_prepare import SEEHEAR, alive, children, linux, wait_until

Sound = NDArray[np.float32]
FILM = ((2.0, 4.0), (8.0, 14.0), (20.0, 23.0), (30.0, 34.0))
"""When somebody speaks in a film of 36 s."""


def speech(times: tuple[tuple[float, float], ...], seconds: float) -> Sound:
    """Speech from when until when, and the noise of a quiet room."""
    sound = silence(seconds)
    for start, end in times:
        sound[round(start * 16_000) : round(end * 16_000)] = babble(end - start)
    return sound


def crops(path: Path, sound: Sound) -> Path:
    """A ready crop, each second with other squares, that has this sound."""
    frames = len(sound) // 640
    squares = np.random.default_rng(0).integers(40, 200, (frames // 25 + 1, 12, 12), dtype=np.uint8)
    video = squares.repeat(25, axis=0)[:frames].repeat(8, axis=1).repeat(8, axis=2)
    write_clip(path, MouthClip(video, sound))
    return path


def lines_of(path: Path) -> "list[dict[str, object]]":
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def texts(out: Path) -> "dict[str, str | None]":
    return {id: utterance.text for id, utterance in Corpus.load(out).utterances.items()}


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A film of 36 s in which four things are said."""
    return crops(tmp_path_factory.mktemp("film") / "film.mp4", speech(FILM, 36.0))


@pytest.fixture
def source(tmp_path: Path, film: Path) -> Path:
    """A folder with the film and a short clip."""
    folder = tmp_path / "videos"
    folder.mkdir()
    (folder / "film.mp4").symlink_to(film)
    crops(folder / "short.mp4", speech(((1.0, 2.0),), 3.0))
    return folder


SRT = """1
00:00:01,900 --> 00:00:04,100
bin blue

2
00:00:08,000 --> 00:00:14,000
<i>lay red</i>

3
00:00:09,000 --> 00:00:10,000
over it

4
00:00:20,000 --> 00:00:23,000
{\\an8}set white

5
00:00:35,000 --> 00:01:40,000
credits

6
00:01:50,000 --> 00:01:51,000
beyond
"""


# At pauses


def test_a_long_recording_is_cut_at_pauses(source: Path, film: Path, tmp_path: Path, prepare: Prepare) -> None:
    soundfile.write(source / "talk.flac", speech(((1.0, 3.0), (20.0, 25.0)), 40.0), 16_000)
    (tmp_path / "t.tsv").write_text("film.mp4\t\tanna\nshort\tgreen\tbert\ntalk-0002\tset white\n", encoding="utf-8")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text("film\nshort\n")
    (tmp_path / "lists" / "test.txt").write_text("talk-0002\ntalk-0009\n")
    out = tmp_path / "out"

    run = prepare(source, out, "--transcripts", tmp_path / "t.tsv", "--splits", tmp_path / "lists")

    assert run.returncode == 0, run.stdout
    corpus = Corpus.load(out)
    parts = [f"film-000{number}" for number in (1, 2, 3, 4)]
    assert list(corpus.utterances) == [*parts, "short", "talk-0001", "talk-0002"]
    assert [u.id for u in corpus.split("train")] == [*parts, "short"], "parts are where their recording is"
    assert [u.id for u in corpus.split("test")] == ["talk-0002"]
    assert {u.id: (u.text, u.speaker, u.source, u.streams.value) for u in corpus.utterances.values()} == {
        **dict.fromkeys(parts, (None, "anna", "film.mp4", "av")),
        "short": ("green", "bert", "short.mp4", "av"),
        "talk-0001": (None, None, "talk.flac", "a"),
        "talk-0002": ("set white", None, "talk.flac", "a"),
    }

    pictures, sound = np.stack([frame[..., 0] for frame in iter_frames(film)]), read_audio(film)
    journal = {line["id"]: line for line in lines_of(out / "crops.jsonl")}
    for id, (start, end) in zip(parts, FILM, strict=True):
        place = journal[id]["part"]
        assert isinstance(place, dict)
        assert place["recording"] == "film"
        assert place["start"] <= start < end <= place["end"]
        first, last = round(place["start"] * 25), round(place["end"] * 25)
        clip = corpus.read(corpus.utterances[id])
        assert clip.video is not None
        assert np.abs(clip.video.astype(int) - pictures[first:last]).mean() < 2
        np.testing.assert_allclose(clip.audio, sound[first * 640 : last * 640], atol=1 / 32767)

    assert "part" not in journal["short"]
    recordings = {line["id"]: line for line in lines_of(out / "recordings.jsonl")}
    for id, seconds in {"film": 36.0, "talk": 40.0}.items():
        own = [line for key, line in journal.items() if key.startswith(f"{id}-")]
        kept = sum(int(str(line["frames"])) for line in own) / 25
        assert recordings[id]["parts"] == len(own)
        assert recordings[id]["between"] == pytest.approx(seconds - kept)
    for expected in (
        "long recordings: 2 of 1.3 minutes, cut into 6 clips, 1 with a text",
        "0.0 minutes without a usable face",
        "note: clips of the split 'test' that are not in the corpus: 1 (talk-0009)",
        "7 clips",
    ):
        assert expected in run.stdout
    assert "transcripts without" not in run.stdout


def test_pause_and_longest_are_options(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    assert prepare(source, tmp_path / "a", "--pause", "5").returncode == 0
    assert list(Corpus.load(tmp_path / "a").utterances) == ["film-0001", "film-0002", "film-0003", "short"]
    assert prepare(source, tmp_path / "b", "--longest", "36").returncode == 0
    assert list(Corpus.load(tmp_path / "b").utterances) == ["film", "short"]
    assert not (tmp_path / "b" / "recordings.jsonl").exists()
    wrong = prepare(source, tmp_path / "c", "--longest", "2")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)
    assert "error: --longest must be at least 5.2 s, not 2: a window may hold 1 s of silence" in wrong.stderr


# At given times


def test_subtitles_give_labelled_clips(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    (source / "film.srt").write_text(SRT, encoding="utf-8")
    vtt = "WEBVTT\n\n00:01.000 --> 00:01.500\n<v Anna>place green</v>\n\n00:01.500 --> 00:02.000\n<v Anna>now</v>\n"
    (source / "short.vtt").write_text(vtt, encoding="utf-8")
    out = tmp_path / "out"
    run = prepare(source, out)
    assert run.returncode == 0, run.stdout
    utterances = Corpus.load(out).utterances
    assert {id: (u.text, u.speaker, u.frames) for id, u in utterances.items()} == {
        "film-0001": ("bin blue", None, 64),
        "film-0002": ("set white", None, 85),
        "short": ("place green now", "Anna", 75),
    }
    (recording,) = lines_of(out / "recordings.jsonl")
    assert (recording["times"], recording["parts"]) == ("film.srt", 2)
    assert recording["unused_times"] == [
        {"start": 8.0, "end": 14.0, "reason": "it overlaps with another text", "text": "lay red"},
        {"start": 9.0, "end": 10.0, "reason": "it overlaps with another text", "text": "over it"},
        {"start": 35.0, "end": 100.0, "reason": "it is longer than 24 s", "text": "credits"},
        {"start": 110.0, "end": 111.0, "reason": "it lies outside the recording", "text": "beyond"},
    ]
    (source / "short.vtt").write_text(vtt.replace("green", "red"), encoding="utf-8")
    prepare(source, out)
    assert texts(out)["short"] == "place red now", "what lies beside a recording comes before what it was"
    assert "given times that are not used: 4 (it overlaps with another text: 2, it is longer than 24 s: 1" in run.stdout


def test_a_table_gives_times_and_stays_when_it_is_not_given_again(
    source: Path, tmp_path: Path, prepare: Prepare
) -> None:
    (source / "film.srt").write_text(SRT, encoding="utf-8")
    table = "id\tspeaker\tstart\tend\ttext\nfilm\tanna\t2\t4\tone\nfilm\tbert\t0:08\t0:14.0\ttwo\nshort\t\t\t\tgreen\n"
    (tmp_path / "t.tsv").write_text(table, encoding="utf-8")
    out = tmp_path / "out"
    assert prepare(source, out, "--transcripts", tmp_path / "t.tsv").returncode == 0
    utterances = Corpus.load(out).utterances
    assert {id: (u.text, u.speaker) for id, u in utterances.items()} == {
        "film-0001": ("one", "anna"),
        "film-0002": ("two", "bert"),
        "short": ("green", None),
    }
    (source / "film.srt").unlink()
    again = prepare(source, out)
    assert "ready from an earlier run: 3 clips; to do: 0" in again.stderr
    assert Corpus.load(out).utterances == utterances


def test_one_transcript_for_a_long_recording_is_refused(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    (tmp_path / "t.tsv").write_text("film\tbin blue and so on\nshort\tgreen\n", encoding="utf-8")
    out = tmp_path / "out"
    assert prepare(source, out).returncode == 0
    assert len(list((out / "clips").glob("film-*.mp4"))) == 4
    run = prepare(source, out, "--transcripts", tmp_path / "t.tsv")
    assert run.returncode == 1
    reason = "it is 36 s long and has one transcript for the whole: give times, as subtitles beside it"
    assert f"rejected film.mp4: {reason}" in run.stdout
    assert texts(out) == {"short": "green"}
    assert [path.name for path in (out / "clips").iterdir()] == ["short.mp4"], "no part of the run before is left"
    assert lines_of(out / "recordings.jsonl") == []
    (source / "film.SRT").write_text(SRT, encoding="utf-8")
    assert prepare(source, out, "--transcripts", tmp_path / "t.tsv").returncode == 0
    assert texts(out) == {"film-0001": "bin blue", "film-0002": "set white", "short": "green"}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("film.srt", "1\n00:00:01 --> later\nx\n", "film.srt, line 2: '00:00:01 --> later' are no times such as"),
        ("film.json", '[{"start": 1, "text": "x"}, 2]', "film.json: line 1: 'end' is '', not seconds"),
        (
            "film.vtt",
            "WEBVTT\n\n01:00.000 --> 01:02.000\nbin blue\n",
            "none of its 1 given times can be used: from 60.0 to 62.0 s, it lies outside the recording",
        ),
    ],
)
def test_times_that_cannot_be_used_cost_their_recording(
    source: Path, tmp_path: Path, prepare: Prepare, name: str, content: str, reason: str
) -> None:
    (source / name).write_text(content)
    run = prepare(source, tmp_path / "out")
    assert run.returncode == 1
    assert f"rejected film.mp4: {reason}" in run.stdout
    assert texts(tmp_path / "out") == {"short": None}


def test_a_file_that_cannot_be_read_is_only_noted_where_it_is_not_needed(
    source: Path, tmp_path: Path, prepare: Prepare
) -> None:
    (source / "film.srt").write_text(SRT, encoding="utf-8")
    (source / "short.vtt").write_text("no WebVTT")
    (tmp_path / "t.tsv").write_text("short\tgreen\n")
    run = prepare(source, tmp_path / "out", "--transcripts", tmp_path / "t.tsv")
    assert run.returncode == 0
    assert "note: files with times that cannot be read: 1 (short.vtt is no WebVTT: its first line" in run.stdout
    assert texts(tmp_path / "out") == {"film-0001": "bin blue", "film-0002": "set white", "short": "green"}
    (source / "film.srt").write_bytes(b"\xff")
    run = prepare(source, tmp_path / "out")
    assert "rejected film.mp4: film.srt is not UTF-8 (byte 0); save it as UTF-8" in run.stdout
    assert [path.name for path in (tmp_path / "out" / "clips").iterdir()] == ["short.mp4"]


# What cannot be cut


def test_nothing_but_silence_and_names_that_clash(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    soundfile.write(source / "silent.wav", np.zeros(30 * 16_000, np.float32), 16_000)
    crops(source / "film-0002.mp4", speech(((1.0, 2.0),), 3.0))
    run = prepare(source, tmp_path / "out")
    assert "rejected silent.wav: nobody is heard in it" in run.stdout
    assert "rejected film.mp4: a part of it would be called as film-0002.mp4 is: rename one of them" in run.stdout
    assert sorted(texts(tmp_path / "out")) == ["film-0002", "short"]


def test_the_stated_duration_may_be_wrong(tmp_path: Path, prepare: Prepare) -> None:
    source = tmp_path / "videos"
    source.mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (12, 12, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    whole = write_video(tmp_path / "whole.mkv", [np.roll(picture, n, axis=0) for n in range(1000)]).read_bytes()
    (source / "broken-off.mkv").write_bytes(whole[: len(whole) // 3])
    run = prepare(source, tmp_path / "out")
    assert run.returncode == 0, run.stdout
    ((id, utterance),) = Corpus.load(tmp_path / "out").utterances.items()
    assert id == "broken-off"
    assert 150 < utterance.frames < 600, "it is short enough for a clip, whatever its header says"
    assert [path.name for path in (tmp_path / "out" / "clips").iterdir()] == ["broken-off.mp4"]


def test_a_recording_that_does_not_state_its_duration(film: Path, tmp_path: Path, prepare: Prepare) -> None:
    source = tmp_path / "videos"
    source.mkdir()
    with av.open(str(film)) as given, av.open(str(source / "live.mkv"), "w", options={"live": "1"}) as container:
        tracks = {track.index: container.add_stream_from_template(track) for track in given.streams}
        for packet in given.demux():
            if packet.dts is not None:
                packet.stream = tracks[packet.stream.index]
                container.mux(packet)
    assert read_header(source / "live.mkv").duration == 0
    run = prepare(source, tmp_path / "out")
    assert run.returncode == 0, run.stdout
    assert list(texts(tmp_path / "out")) == [f"live-000{number}" for number in (1, 2, 3, 4)]


def test_the_length_is_that_of_the_picture(tmp_path: Path, prepare: Prepare) -> None:
    """A short picture with long sound has one clip; where both are long, the rest of the sound is counted."""
    source = tmp_path / "videos"
    source.mkdir()
    for name, seconds in (("a.mp4", 10), ("b.mp4", 30), ("c.mp4", 30)):
        crops(tmp_path / name, silence(seconds))
        add_sound(tmp_path / name, source / name, speech(FILM, 40.0) if name < "c" else speech(FILM[:3], 30.0))
    soundfile.write(source / "c.wav", speech(FILM[:2], 15.0), 16_000)
    (tmp_path / "t.tsv").write_text("a\tbin blue\n")
    run = prepare(source, tmp_path / "out", "--transcripts", tmp_path / "t.tsv")
    assert run.returncode == 0, run.stdout
    assert {id: u.frames for id, u in Corpus.load(tmp_path / "out").utterances.items() if id == "a"} == {"a": 250}
    recordings = {line["id"]: line for line in lines_of(tmp_path / "out" / "recordings.jsonl")}
    assert recordings["b"]["sound_after_picture"] == pytest.approx(10, abs=0.1)
    assert "the sound is 40.0 s long, the picture 30.0 s" in recordings["b"]["warnings"]  # type: ignore[operator]
    assert recordings["c"]["warnings"] == ["the sound of c.wav is 15.0 s long, the picture 30.0 s"]
    assert "0.2 minutes of sound after the end of the picture are in no clip" in run.stdout


def test_a_file_of_times_that_cannot_be_read_costs_no_short_recording(
    source: Path, tmp_path: Path, prepare: Prepare
) -> None:
    (source / "short.srt").write_text("1\n00:00:01 --> later\nx\n")
    (source / "film.srt").write_text("1\n00:00:01 --> later\nx\n")
    run = prepare(source, tmp_path / "out")
    assert list(texts(tmp_path / "out")) == ["short"]
    assert "note: files with times that cannot be read: 1 (short.srt, line 2: " in run.stdout
    assert run.stdout.count("film.srt, line 2") == 1
    assert "to do: 1" in prepare(source, tmp_path / "out").stderr


# From run to run


def test_what_changes_is_cut_again_and_nothing_else(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    (source / "film.srt").write_text(SRT, encoding="utf-8")
    crops(source / "other.mp4", speech(((1.0, 3.0), (25.0, 27.0)), 30.0))
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "train.txt").write_text("film-0002\nother\n")
    out = tmp_path / "out"

    def clips() -> "dict[str, int]":
        return {path.name: path.stat().st_ino for path in (out / "clips").iterdir()}

    def split() -> "list[str]":
        return [utterance.id for utterance in Corpus.load(out).split("train")]

    assert prepare(source, out, "--splits", tmp_path / "lists").returncode == 0
    first = clips()
    assert sorted(first) == ["film-0001.mp4", "film-0002.mp4", "other-0001.mp4", "other-0002.mp4", "short.mp4"]
    assert split() == ["film-0002", "other-0001", "other-0002"]
    again = prepare(source, out)
    assert "ready from an earlier run: 5 clips; to do: 0" in again.stderr
    assert clips() == first

    (source / "film.srt").write_text(SRT.replace("00:00:20,000", "00:00:21,000"), encoding="utf-8")
    assert "to do: 1" in prepare(source, out).stderr
    assert {name: inode for name, inode in clips().items() if "film" not in name} == {
        name: inode for name, inode in first.items() if "film" not in name
    }
    assert Corpus.load(out).utterances["film-0002"].frames == 60

    (source / "film.srt").unlink()
    assert "to do: 1" in prepare(source, out).stderr
    assert not any(texts(out).values()), "the texts of parts that are no more do not go to others"
    assert sorted(clips()) == [f"film-000{n}.mp4" for n in (1, 2, 3, 4)] + sorted(first)[2:]
    assert validate(out) == []

    assert split() == ["other-0001", "other-0002"], "nobody knows which of the new parts belongs there"
    (out / "splits" / "train.txt").write_text("film-0003\nfilm-0001\nother-0001\nfilm-0002\nfilm-0004\n")
    again = prepare(source, out, "--longest", "40")
    assert "to do: 2" in again.stderr
    assert "of which the split 'train' had some parts only, now none: 1 (other)" in again.stdout
    assert sorted(clips()) == ["film.mp4", "other.mp4", "short.mp4"]
    assert split() == ["film"], "a split keeps a recording all of whose parts it had"
    assert lines_of(out / "recordings.jsonl") == []
    assert json.loads((out / "prepare.json").read_text()) == {
        "faces": "cropped", "by_size": True, "longest": 40.0, "pause": 0.8,
    }  # fmt: skip

    assert "to do: 2" in prepare(source, out).stderr
    assert sorted(clips()) == [f"film-000{n}.mp4" for n in (1, 2, 3, 4)] + sorted(first)[2:]
    assert split() == [f"film-000{n}" for n in (1, 2, 3, 4)]
    assert validate(out) == []


def test_a_corpus_of_an_earlier_version_is_continued(source: Path, tmp_path: Path, prepare: Prepare) -> None:
    out = tmp_path / "out"
    assert prepare(source, out, "--longest", "100").returncode == 0
    (out / "prepare.json").write_text('{"faces": "cropped"}')  # as it was before recordings were cut
    crops(source / "new.mp4", speech(((1.0, 3.0), (25.0, 27.0)), 30.0))
    run = prepare(source, out)
    assert "ready from an earlier run: 2 clips; to do: 1" in run.stderr
    what = "clips of an earlier run that are longer and stay, unless you delete them from its folder clips"
    assert f"note: {what}: 1 (film)" in run.stdout
    assert sorted(texts(out)) == ["film", "new-0001", "new-0002", "short"]
    assert "to do: 0" in prepare(source, out).stderr
    (source / "film.srt").write_text(SRT, encoding="utf-8")
    assert "to do: 1" in prepare(source, out).stderr
    assert {"film-0001": "bin blue", "film-0002": "set white"}.items() <= texts(out).items()


@pytest.fixture(scope="module")
def long_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three minutes in which somebody speaks every four seconds, and a short clip."""
    folder = tmp_path_factory.mktemp("long")
    crops(folder / "film.mp4", speech(tuple((t + 0.5, t + 2.0) for t in np.arange(0, 180, 4.0)), 180.0))
    crops(folder / "short.mp4", speech(((1.0, 2.0),), 3.0))
    return folder


@pytest.fixture
def start(long_film: Path, tmp_path: Path) -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    """Starts `seehear prepare` on the long film, and ends it."""
    runs: list[subprocess.Popen[bytes]] = []

    def run() -> "subprocess.Popen[bytes]":
        command = [SEEHEAR, "prepare", long_film, tmp_path / "out", "--workers", "1"]
        runs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        return runs[-1]

    yield run
    for process in runs:
        process.kill()


@linux
def test_a_killed_run_leaves_no_part_twice(
    long_film: Path, tmp_path: Path, prepare: Prepare, start: "Callable[[], subprocess.Popen[bytes]]"
) -> None:
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert prepare(long_film, whole).returncode == 0
    run = start()
    wait_until(lambda: (out / "clips" / "film-0003.mp4").exists())
    workers = children(run)
    run.send_signal(signal.SIGKILL)
    run.wait()
    wait_until(lambda: not any(alive(pid) for pid in workers), seconds=10)
    assert 3 <= len(list((out / "clips").glob("film-*.mp4"))) < 45
    assert not lines_of(out / "crops.jsonl")
    assert prepare(long_film, out).returncode == 0
    for name in ("manifest.jsonl", "crops.jsonl", "recordings.jsonl", "rejected.jsonl", "prepare.json"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert {path.name for path in (out / "clips").iterdir()} == {path.name for path in (whole / "clips").iterdir()}
    one, other = (read_clip(folder / "clips" / "film-0040.mp4") for folder in (out, whole))
    np.testing.assert_array_equal(one.audio, other.audio)


@linux
def test_a_recording_that_kills_its_process_costs_that_recording(
    tmp_path: Path, start: "Callable[[], subprocess.Popen[bytes]]"
) -> None:
    run, out = start(), tmp_path / "out"
    part = out / "clips" / "film-0002.mp4"
    for _ in range(2):
        before = time.time_ns()
        wait_until(lambda since=before: part.exists() and part.stat().st_mtime_ns > since)  # type: ignore[misc]
        os.kill(children(run)[-1], signal.SIGKILL)
    output = run.communicate(timeout=60)[0].decode()
    assert run.returncode == 1
    assert "rejected film.mp4: the process that worked on it died of SIGKILL" in output
    assert [path.name for path in (out / "clips").iterdir()] == ["short.mp4"]
    assert sorted(texts(out)) == ["short"]


def test_progress_of_a_long_recording_is_told(
    long_film: Path, tmp_path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["seehear.cli.progress"], "LINE_EVERY", 0.0)
    run = prepare(long_film, tmp_path / "out")
    assert "film.mp4: 0:01:40 of 0:03:00" in run.stderr


# Real faces


def test_the_parts_of_a_film_of_grid_are_its_clips(shared: Path, tmp_path: Path, prepare: Prepare) -> None:
    grid, source = shared / "data" / "grid-s1", tmp_path / "videos"
    known = read_transcripts(grid / "transcripts.tsv")
    paths = [grid / "clips" / f"{id}.mp4" for id in sorted(known)[200:203]]
    (source / "clips").mkdir(parents=True)
    for path in paths:
        (source / "clips" / path.name).symlink_to(path)
    pictures = [frame for path in paths for frame in iter_frames(path)]
    sound = np.concatenate([read_audio(path, num_frames=75) for path in paths])
    add_sound(write_video(tmp_path / "v.mp4", pictures), source / "film.mp4", sound)
    segments = [
        Segment(number, 3.0 * number, 3.0 * number + 3, known[path.stem].text, (), 0.0)
        for number, path in enumerate(paths)
    ]
    said = Transcript("film.mp4", 9.0, Modality.AUDIOVISUAL, "", tuple(segments))
    write_transcript(said, source, "film", ["vtt"])
    out = tmp_path / "out"

    run = prepare(source, out, "--face-model", shared / "models" / "face_landmarker.task", "--longest", "6")

    assert run.returncode == 0, run.stdout
    corpus = Corpus.load(out)
    assert len(corpus.utterances) == 6
    for number, path in enumerate(paths, start=1):
        part, clip = (corpus.utterances[id] for id in (f"film-{number:04d}", f"clips/{path.stem}"))
        assert (part.text, part.frames) == (known[path.stem].text, clip.frames)
        one, other = corpus.read(part), corpus.read(clip)
        assert one.video is not None
        assert other.video is not None
        assert np.abs(one.video.astype(int) - other.video).mean() < 3
        loudest = max(1.0, float(np.abs(read_audio(path)).max()))  # of a clip; the film was cut off at full scale
        np.testing.assert_allclose(one.audio, np.clip(other.audio * loudest, -1, 1), atol=3 / 32767)
