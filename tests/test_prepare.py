"""`seehear prepare`, run as users run it: resumed after a kill, with clips that fail and processes that die."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from conftest import Prepare
from seehear.data.clipfile import MouthClip, read_clip, write_clip
from seehear.data.corpus import Corpus
from seehear.data.validation import validate
from seehear.preparation.contact_sheet import CONTACT_SHEET
from seehear.preparation.sources import find_sources

SEEHEAR = str(Path(sys.executable).with_name("seehear"))


def make_videos(folder: Path, names: "list[str]", frames: int = 5) -> Path:
    """Videos of 96×96 with sound, each of other light and dark squares."""
    for number, name in enumerate(names):
        squares = np.random.default_rng(number).integers(40, 200, (frames, 12, 12), dtype=np.uint8)
        audio = np.full(frames * 640, 0.1, np.float32)
        write_clip(folder / name, MouthClip(squares.repeat(8, axis=1).repeat(8, axis=2), audio))
    return folder


def lines_of(path: Path) -> "list[dict[str, object]]":
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# Which videos there are


def test_videos_are_found_and_ids_are_their_own(tmp_path: Path) -> None:
    for name in (
        "b.mp4",
        "a/x.y.MOV",
        "a/x.avi",
        "a/x.mp4",
        "notes.txt",
        ".hidden.mp4",
        ".git/z.mp4",
        "out/q.mp4",
        "l\nf.mp4",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    sources, rejected = find_sources(tmp_path, tmp_path / "out")
    assert [(source.id, source.name) for source in sources] == [
        ("a/x", "a/x.avi"),
        ("a/x.y", "a/x.y.MOV"),
        ("b", "b.mp4"),
    ]
    assert [clip.source for clip in rejected] == ["a/x.mp4", "l\nf.mp4"]
    assert "tells it from a/x.avi" in rejected[0].reason


# The command


def test_a_folder_becomes_a_corpus(tmp_path: Path, prepare: Prepare) -> None:
    source = make_videos(tmp_path / "videos", ["a.mp4", "b/c d.mp4", "b/e.mp4"])
    (source / "broken.mp4").write_bytes(b"no video")
    (tmp_path / "t.tsv").write_text("a\tgreen\ts1\nb/c d.mp4\tblue\nnobody\tred\nbroken\tred\n", encoding="utf-8")
    splits = tmp_path / "lists"
    splits.mkdir()
    (splits / "train.txt").write_text("b/c d\na\na\n", encoding="utf-8")
    (splits / "test.txt").write_text("b/e\nbroken\n", encoding="utf-8")
    out = tmp_path / "corpus"

    run = prepare(source, out, "--cropped", "--transcripts", tmp_path / "t.tsv", "--splits", splits)

    assert run.returncode == 1, "a clip failed"
    corpus = Corpus.load(out)
    assert [(u.id, u.clip, u.frames, u.text, u.speaker, u.source) for u in corpus.utterances.values()] == [
        ("a", "clips/a.mp4", 5, "green", "s1", "a.mp4"),
        ("b/c d", "clips/b/c d.mp4", 5, "blue", None, "b/c d.mp4"),
        ("b/e", "clips/b/e.mp4", 5, None, None, "b/e.mp4"),
    ]
    assert [u.id for u in corpus.split("train")] == ["b/c d", "a"]
    assert [u.id for u in corpus.split("test")] == ["b/e"]
    assert [len(corpus.read(u).video) for u in corpus.utterances.values()] == [5, 5, 5]
    same = corpus.read(corpus.utterances["b/e"]).video.astype(int) - read_clip(source / "b" / "e.mp4").video
    assert abs(same).mean() < 3
    assert validate(out) == []

    (rejected,) = lines_of(out / "rejected.jsonl")
    assert rejected["source"] == "broken.mp4"
    assert "not a media file" in str(rejected["reason"])
    for expected in (
        "rejected broken.mp4: ",
        "note: transcripts without a recording: 1 (nobody)",
        "note: clips without a transcript: 1 (b/e)",
        "note: clips of the split 'test' that are not in the corpus: 1 (broken)",
        "3 clips, 0.0 minutes; rejected: 1",
        "train: 2 clips",
    ):
        assert expected in run.stdout
    assert "4/4 clips, 1 rejected" in run.stderr, "plain lines where there is no terminal"
    assert cv2.imread(str(out / CONTACT_SHEET)).shape[0] == 96 + 14


def test_a_clip_that_was_prepared_is_not_done_again(tmp_path: Path, prepare: Prepare) -> None:
    source = make_videos(tmp_path / "videos", ["a.mp4", "b.mp4"])
    out = tmp_path / "corpus"
    assert prepare(source, out, "--cropped").returncode == 0
    before = {path.name: path.stat().st_ino for path in (out / "clips").iterdir()}
    crops = (out / "crops.jsonl").read_bytes()

    again = prepare(source, out, "--cropped")
    assert (again.returncode, "ready from an earlier run: 2 clips; to do: 0" in again.stderr) == (0, True)
    assert {path.name: path.stat().st_ino for path in (out / "clips").iterdir()} == before
    assert (out / "crops.jsonl").read_bytes() == crops

    make_videos(source, ["b.mp4", "c.mp4"], frames=7)  # one changed, one new
    assert prepare(source, out, "--cropped").returncode == 0
    after = {path.name: path.stat().st_ino for path in (out / "clips").iterdir()}
    assert after["a.mp4"] == before["a.mp4"]
    assert {u.id: u.frames for u in Corpus.load(out).utterances.values()} == {"a": 5, "b": 7, "c": 7}

    (tmp_path / "landmarks").mkdir()
    otherwise = prepare(source, out, "--landmarks", tmp_path / "landmarks")
    assert otherwise.returncode == 2
    assert "prepared with other settings (faces cropped, now landmarks" in otherwise.stderr


def test_transcripts_stay_where_none_are_given_and_must_be_of_these_clips(tmp_path: Path, prepare: Prepare) -> None:
    source, out = make_videos(tmp_path / "videos", ["a.mp4", "b.mp4"]), tmp_path / "corpus"
    texts = tmp_path / "t.tsv"
    texts.write_text("a\tgreen\ts1\n", encoding="utf-8")
    assert prepare(source, out, "--cropped", "--transcripts", texts).returncode == 0
    first = Corpus.load(out).utterances

    make_videos(source, ["c.mp4"])
    assert prepare(source, out, "--cropped").returncode == 0
    second = Corpus.load(out).utterances
    assert {id: second[id] for id in first} == first
    assert (first["a"].text, first["a"].speaker, second["c"].text) == ("green", "s1", None)

    texts.write_text("videos/a\tblue\n", encoding="utf-8")
    wrong = prepare(source, out, "--cropped", "--transcripts", texts)
    assert wrong.returncode == 2
    assert "none of the 1 transcripts is of a recording here" in wrong.stderr
    assert "such as 'a', not 'videos/a'" in wrong.stderr
    assert Corpus.load(out).utterances == second


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def children(run: "subprocess.Popen[bytes]") -> "list[int]":
    return [int(pid) for pid in Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()]


def start(source: Path, out: Path, workers: int = 2) -> "subprocess.Popen[bytes]":
    command = [SEEHEAR, "prepare", source, out, "--cropped", "--workers", str(workers)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finished(out: Path) -> int:
    journal = out / "crops.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@pytest.fixture(scope="module")
def many_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty videos of two seconds."""
    folder = make_videos(tmp_path_factory.mktemp("many"), ["first.mp4"], frames=50)
    for number in range(29):
        shutil.copy(folder / "first.mp4", folder / f"{number:02}.mp4")
    return folder


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@linux
def test_a_killed_run_is_taken_up_where_it_stopped(many_videos: Path, tmp_path: Path, prepare: Prepare) -> None:
    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert prepare(many_videos, whole, "--cropped", "--workers", 2).returncode == 0

    run = start(many_videos, out)
    wait_until(lambda: finished(out) >= 5)
    workers = children(run)
    run.send_signal(signal.SIGKILL)
    run.wait()
    wait_until(lambda: not any(alive(pid) for pid in workers), seconds=10)
    done = finished(out)
    assert 5 <= done < 30, "killed in the middle"
    assert not (out / "manifest.jsonl").exists()
    with (out / "crops.jsonl").open("a") as journal:
        journal.write('{"id": "28", "sou')  # as if killed in the middle of a line, too
    before = {path: path.stat().st_ino for path in (out / "clips").glob("*.mp4")}
    kept = {out / "clips" / f"{line['id']}.mp4" for line in lines_of_whole(out / "crops.jsonl")}

    again = prepare(many_videos, out, "--cropped", "--workers", 2)
    assert again.returncode == 0
    assert f"ready from an earlier run: {done} clips; to do: {30 - done}" in again.stderr
    assert all(path.stat().st_ino == before[path] for path in kept), "finished clips are not done again"
    for name in ("manifest.jsonl", "crops.jsonl", "rejected.jsonl"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    for path in (whole / "clips").iterdir():
        np.testing.assert_array_equal(read_clip(out / "clips" / path.name).video, read_clip(path).video)
    assert not list(out.rglob("*.tmp"))


def lines_of_whole(path: Path) -> "list[dict[str, object]]":
    """The lines of a journal whose last one is cut off."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


@linux
def test_a_killed_worker_costs_nothing(many_videos: Path, tmp_path: Path) -> None:
    run = start(many_videos, tmp_path / "out")
    wait_until(lambda: finished(tmp_path / "out") >= 3)
    os.kill(children(run)[-1], signal.SIGKILL)
    assert run.wait() == 0
    assert len(Corpus.load(tmp_path / "out").utterances) == 30


@linux
def test_two_runs_do_not_share_a_folder(many_videos: Path, tmp_path: Path, prepare: Prepare) -> None:
    out = tmp_path / "out"
    run = start(many_videos, out)
    try:
        wait_until(lambda: finished(out) >= 1)
        run.send_signal(signal.SIGSTOP)  # or it may be done before the second one has started
        second = prepare(many_videos, out, "--cropped")
        assert second.returncode == 2
        assert second.stderr == f"error: another `seehear prepare` is at work in {out}\n"
    finally:
        run.send_signal(signal.SIGINT)
        run.send_signal(signal.SIGCONT)
    ended = run.wait()
    done = finished(out)
    assert done >= 1, "what was done is kept"
    assert ended == 130 or (ended, done) == (0, 30), "interrupted, unless that came too late"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{videos}/missing", "{out}"], "Invalid value for 'source'"),
        (["{empty}", "{out}", "--cropped"], "empty holds no videos"),
        (["{videos}", "{file}", "--cropped"], "cannot be written"),
        (["{videos}", "{elsewhere}", "--cropped"], "is neither empty nor left by `seehear prepare`"),
        (["{videos}", "{out}", "--cropped", "--landmarks", "{empty}"], "exclude each other"),
        (
            ["{videos}", "{out}", "--detector", "mediapipe", "--face-model", "/nowhere.task"],
            "there is no face model /nowhere.task",
        ),
        (
            ["{videos}", "{out}", "--detector", "mediapipe", "--face-model", "{file}"],
            "MediaPipe cannot use the face model",
        ),
        (["{videos}", "{out}", "--cropped", "--splits", "{empty}"], "holds no splits"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, prepare: Prepare, arguments: "list[str]", message: str) -> None:
    places = {name: tmp_path / name for name in ("videos", "elsewhere", "empty", "file", "out")}
    make_videos(places["videos"], ["a.mp4"])
    make_videos(places["elsewhere"], ["a.mp4"])
    places["empty"].mkdir()
    places["file"].write_bytes(b"")
    run = prepare(*[argument.format(**places) for argument in arguments])
    assert run.returncode == 2
    assert message in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert sorted(path.name for path in places["elsewhere"].iterdir()) == ["a.mp4"]
    assert not (places["out"] / ".lock").exists()


def test_ready_landmarks(tmp_path: Path, prepare: Prepare) -> None:
    source = make_videos(tmp_path / "videos", ["a.mp4", "b.mp4"], frames=30)
    folder = tmp_path / "landmarks"
    folder.mkdir()
    shape = np.random.default_rng(0).uniform(20, 76, (68, 2))
    landmarks = np.repeat(shape[None], 30, axis=0)
    landmarks[10:20] = np.nan
    np.savez(folder / "a.npz", landmarks=landmarks)
    run = prepare(source, tmp_path / "out", "--landmarks", folder, "--max-gap", 10)
    assert run.returncode == 1
    assert "rejected b.mp4: there is no file of landmarks" in run.stdout
    (crop,) = lines_of(tmp_path / "out" / "crops.jsonl")
    assert (crop["id"], crop["longest_gap"]) == ("a", 10)
    assert "the face was not found in 10 of 30 frames" in crop["warnings"]  # type: ignore[operator]


def test_grid_is_prepared_with_mediapipe(shared: Path, tmp_path: Path, prepare: Prepare) -> None:
    grid = shared / "data" / "grid-s1"
    source = tmp_path / "videos"
    source.mkdir()
    for name in ("bbaf4p", "pbio7a"):  # the second is damaged: nearly half of it shows no face
        (source / f"{name}.mp4").symlink_to(grid / "clips" / f"{name}.mp4")
    model = shared / "models" / "face_landmarker.task"
    out = tmp_path / "out"
    run = prepare(source, out, "--face-model", model, "--transcripts", grid / "transcripts.tsv")
    assert run.returncode == 1
    assert (
        "rejected pbio7a.mp4: no face stays in the picture: the best of 1 is missing for 36 of 75 frames" in run.stdout
    )
    (utterance,) = Corpus.load(out).utterances.values()
    assert (utterance.id, utterance.frames, utterance.text) == ("bbaf4p", 75, "bin blue at f four please")
    clip = Corpus.load(out).read(utterance)
    assert (clip.video.shape, clip.audio.shape) == ((75, 96, 96), (48000,))
    assert (out / "clips" / "bbaf4p.mp4").stat().st_size < 75_000
    lines = run.stderr.splitlines()
    assert [line.split(":")[0].split(",")[0] for line in lines if "clips" not in line] == ["rejected pbio7a.mp4"]
