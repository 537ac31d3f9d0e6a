"""Recordings read in another process: the same comes back, and what kills that process costs one file."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

import seehear
from conftest import random_clip
from media_files import make_media
from seehear.data.clipfile import write_clip
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.errors import FaceError, MediaError, SeehearError
from seehear.listening import reader as module
from seehear.listening.options import ListeningOptions, WindowOptions
from seehear.listening.reader import Reader, pack, unpack
from seehear.listening.stream import Event, Opened, Piece, Read, listen
from seehear.modality import Modality
from seehear.transcript import Transcript

CTC = DecodingOptions(DecodingMethod.CTC)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.mp4"
    write_clip(path, random_clip(40))
    return path


@pytest.fixture
def reader():
    reader = Reader()
    yield reader
    reader.close()


def same(one: Event, other: Event) -> bool:
    """Whether two events hold the same."""
    (facts, arrays), (others, other_arrays) = pack(one), pack(other)
    return facts == others and all(map(np.array_equal, arrays, other_arrays))


@pytest.mark.parametrize("modality", [None, *Modality])
def test_the_same_comes_back(reader: Reader, clip: Path, modality: Modality | None) -> None:
    options = ListeningOptions(modality, windows=WindowOptions(longest=30.0))
    here, there = [], []
    expected = list(listen(clip, options, here.append))
    given = list(reader.listen(clip, options, there.append))
    assert len(given) == len(expected)
    assert all(map(same, given, expected))
    assert all(map(same, map(unpack, map(pack, expected)), expected))
    assert isinstance(given[0], Opened)
    assert {type(event) for event in given[1:]} == {Piece, Read}
    assert here == there


def test_errors_and_warnings_come_back(reader: Reader, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "none.mp4").write_bytes(b"nothing")
    with pytest.raises(MediaError, match=r"none\.mp4: not a media file"):
        list(reader.listen(tmp_path / "none.mp4", ListeningOptions(), print))
    scene = make_media(tmp_path / "scene.mp4", audio_codec=None)
    with pytest.raises(FaceError, match=r"scene\.mp4: a video of ready crops must be square"):
        list(reader.listen(scene, ListeningOptions(detector="cropped"), print))
    hole = make_media(tmp_path / "hole.mkv", size=(96, 96), holes=((0.4, 1.3),), stripe=True)
    warnings: list[str] = []
    assert list(reader.listen(hole, ListeningOptions(), warnings.append))
    assert "a hole of" in warnings[0]
    assert len(list(reader.listen(clip, ListeningOptions(), print))) == 4, "the process goes on"


def test_a_process_that_is_killed_is_started_again(
    reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_media(tmp_path / "long.mkv", duration=60, size=(96, 96), stripe=True)
    monkeypatch.setattr(module, "AHEAD", 1)
    expected = list(listen(path, ListeningOptions(), print))
    given = []
    for event in reader.listen(path, ListeningOptions(), print):
        if not given:
            assert reader._process is not None
            os.kill(reader._process.pid, signal.SIGKILL)
        given.append(event)
    assert len(given) == len(expected) > 4
    assert all(map(same, given, expected))


def test_a_recording_that_always_kills_costs_itself_alone(
    reader: Reader, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = module._start

    def started(memory):
        process = start(memory)
        process.kill()
        return process

    monkeypatch.setattr(module, "_start", started)
    with pytest.raises(MediaError, match=r"clip\.mp4: it cannot be read; the process that reads it died of SIGKILL"):
        list(reader.listen(clip, ListeningOptions(), print))
    monkeypatch.undo()
    assert len(list(reader.listen(clip, ListeningOptions(), print))) == 4


def test_a_process_that_hangs_is_given_up(reader: Reader, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = module._start

    def stopped(memory):
        process = start(memory)
        os.kill(process.pid, signal.SIGSTOP)
        return process

    monkeypatch.setattr(module, "_start", stopped)
    monkeypatch.setattr(module, "PATIENCE", 0.3)
    began = time.monotonic()
    with pytest.raises(MediaError, match="did nothing"):
        list(reader.listen(clip, ListeningOptions(), print))
    assert time.monotonic() - began < 20


def test_a_program_that_loses_interest_ends_the_process(reader: Reader, tmp_path: Path) -> None:
    path = make_media(tmp_path / "long.mkv", duration=60, size=(96, 96), stripe=True)
    events = reader.listen(path, ListeningOptions(), print)
    next(events)
    assert reader._process is not None
    process = reader._process
    events.close()
    assert process.poll() is not None
    assert len(list(reader.listen(path, ListeningOptions(), print))) > 4


def test_memory_is_limited(clip: Path, tmp_path: Path) -> None:
    huge = make_media(tmp_path / "huge.mkv", size=(8192, 4320), duration=0.2, video_codec="ffv1", audio_codec=None)
    reader = Reader(memory=300 * 2**20)
    with pytest.raises(MediaError, match="memory") as caught:
        list(reader.listen(huge, ListeningOptions(detector="cropped"), print))
    assert str(huge) in str(caught.value)
    assert len(list(reader.listen(clip, ListeningOptions(), print))) == 4
    reader.close()


def test_files_go_on_after_one_that_kills(model_folder: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = seehear.load(model_folder)
    alone = recognizer.transcribe(clip, "v", CTC)
    asked = Reader._ask

    def fatal(self, path, options):
        messages = asked(self, path, options)
        if path.name == "bad.mp4":
            assert self._process is not None or next(messages)
            self._process.kill()
        return messages

    bad = clip.with_name("bad.mp4")
    bad.write_bytes(clip.read_bytes())
    monkeypatch.setattr(Reader, "_ask", fatal)
    results = [result for _, result in recognizer.transcribe_all([clip, bad, clip], "v", CTC)]
    assert [type(result) for result in results] == [Transcript, MediaError, Transcript]
    assert isinstance(results[1], SeehearError)
    assert "died of SIGKILL" in str(results[1])
    assert [results[0].text, results[2].text] == [alone.text] * 2  # type: ignore[union-attr]


def test_no_module_comes_from_the_folder_one_is_in(
    reader: Reader, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("queue", "resource", "seehear"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('executed')")
    monkeypatch.chdir(tmp_path)
    assert len(list(reader.listen(clip, ListeningOptions(), print))) == 4


def test_a_folder_that_is_gone_matters_to_relative_paths_alone(
    reader: Reader, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert len(list(reader.listen(clip, ListeningOptions(), print))) == 4


def test_one_recording_at_a_time(reader: Reader, clip: Path) -> None:
    events = reader.listen(clip, ListeningOptions(), print)
    next(events)
    with pytest.raises(RuntimeError, match="a recording is being read"):
        next(reader.listen(clip, ListeningOptions(), print))
    assert len(list(events)) == 3
    assert len(list(reader.listen(clip, ListeningOptions(), print))) == 4


@pytest.mark.parametrize("error", [MemoryError(), TypeError("no pair")])
def test_what_befalls_the_thread_that_takes_answers_is_no_hang(
    reader: Reader, clip: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def failing(pipe):
        raise error

    monkeypatch.setattr(module, "_receive", failing)
    began = time.monotonic()
    with pytest.raises(MediaError, match="cannot be read"):
        list(reader.listen(clip, ListeningOptions(), print))
    assert time.monotonic() - began < 60


def test_answers_that_make_no_sense_cost_the_recording(
    reader: Reader, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    received = module._receive
    monkeypatch.setattr(module, "_receive", lambda pipe: ({"window": 3}, received(pipe)[1]))
    with pytest.raises(MediaError, match="makes no sense"):
        list(reader.listen(clip, ListeningOptions(), print))
