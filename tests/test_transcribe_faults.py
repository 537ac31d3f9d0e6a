"""`seehear transcribe` on what the field brings: damage, odd files, names and addresses, another locale."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

import seehear
from conftest import random_clip
from media_files import beep_seconds, make_media
from seed_files import make_seeds
from seehear.data.clipfile import write_clip
from seehear.data.media import read_audio
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.errors import MediaError, SeehearError
from seehear.modality import Modality
from seehear.recognizer import Recognizer
from seehear.transcript import Transcript

CTC = DecodingOptions(DecodingMethod.CTC)


@pytest.fixture(scope="module")
def recognizer(model_folder: Path) -> Recognizer:
    return seehear.load(model_folder)


@pytest.fixture
def listener():
    """An address of this machine, and how often somebody has come to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        visits: list[object] = []
        stop = threading.Event()

        def wait() -> None:
            while not stop.is_set():
                try:
                    visits.append(server.accept()[1])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=wait)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/secret.mp4", visits
        stop.set()
        thread.join()


def test_no_file_makes_a_request(recognizer: Recognizer, tmp_path: Path, listener) -> None:
    url, visits = listener
    contents = {
        "playlist.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
        "playlist.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{url}\n#EXT-X-ENDLIST\n",
        "script.mp4": f"ffconcat version 1.0\nfile {url}\n",
        "script.txt": f"ffconcat version 1.0\nfile {tmp_path / 'real.mp4'}\n",
        "stream.sdp": "v=0\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n",
        "stream.mpd": f'<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL><Period/></MPD>',
        "image.svg": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}"/></svg>',
    }
    write_clip(tmp_path / "real.mp4", random_clip(5))
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    files = [
        *(tmp_path / name for name in contents),
        url,
        f"concat:{tmp_path / 'real.mp4'}",
        "data:audio/wav;base64,",
        "-",
    ]
    for _, result in recognizer.transcribe_all(files, "auto", CTC):
        assert isinstance(result, MediaError)
    assert not visits


def test_damage_in_the_middle_is_told_and_the_rest_is_heard(recognizer: Recognizer, tmp_path: Path) -> None:
    path = make_media(tmp_path / "clip.mkv", duration=6.0, size=(96, 96), stripe=True, audio_codec="pcm_s16le")
    content = bytearray(path.read_bytes())
    third = len(content) // 3
    content[third : third + 20_000] = np.random.default_rng(0).bytes(20_000)
    path.write_bytes(content)
    transcript = recognizer.transcribe(path, "a", CTC)
    assert transcript.warnings
    assert 1.9 < transcript.duration <= 6.1


def test_cover_art_is_sound_alone(recognizer: Recognizer, tmp_path: Path) -> None:
    plain = make_media(tmp_path / "song.flac", video_codec=None, audio_codec="flac")
    content = bytearray(plain.read_bytes())
    picture = b"\x00\x00\x00\x03\x00\x00\x00\x09image/png\x00\x00\x00\x00" + b"\x00" * 16 + b"\x00\x00\x00\x00"
    block = bytes([6]) + len(picture).to_bytes(3, "big") + picture
    end_of_info = 4 + 4 + 34
    content[4] &= 0x7F  # the stream's description is not the last block
    (tmp_path / "art.flac").write_bytes(bytes(content[:end_of_info]) + block + bytes(content[end_of_info:]))
    found = recognizer.transcribe(tmp_path / "art.flac", "auto", CTC)
    assert (found.modality, found.reason) == (Modality.AUDIO, "the file has no video")


def test_every_container_is_transcribed(recognizer: Recognizer, tmp_path: Path) -> None:
    (tmp_path / "seeds").mkdir()
    files = []
    for name, content in make_seeds(tmp_path / "seeds").items():
        files.append(tmp_path / f"{len(files)} {name.replace(' ', '.')}")
        files[-1].write_bytes(content)
    assert len(files) > 10
    for path, found in recognizer.transcribe_all(files, "a", CTC):
        assert isinstance(found, Transcript), path
        assert 0.1 < found.duration < 2.0


@pytest.mark.parametrize("fps", [15.0, 29.97, 60.0])
def test_pictures_of_any_rate_are_windows_of_25(recognizer: Recognizer, tmp_path: Path, fps: float) -> None:
    path = make_media(tmp_path / "clip.mkv", fps=fps, size=(96, 96), stripe=True, nominal_fps=30)
    found = recognizer.transcribe(path, "av", CTC, no_speech_threshold=1.0)
    assert found.duration == pytest.approx(2.4, abs=0.05)
    start, end = beep_seconds(read_audio(path))
    assert (start, end) == pytest.approx((1.0, 1.4), abs=0.01)


@pytest.mark.parametrize(
    "name", ["../up.mp4", "ünïcödé 脸.mp4", "a --> b.mp4", "<script>alert(1)</script>.mp4", "-.mp4"]
)
def test_odd_names_stay_in_the_folder(
    recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    from seehear.transcript import output_names, write_transcript

    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    path = Path(name.replace("/", "|") if "<" in name else name)
    write_clip(path, random_clip(12))
    before = {item for item in tmp_path.rglob("*") if item.is_file()}
    transcript = recognizer.transcribe(path, "a", CTC, no_speech_threshold=1.0)
    (output,) = output_names([path])
    written = write_transcript(transcript, Path("out"), output, ("txt", "vtt", "srt", "tsv", "json"))
    new = {item for item in tmp_path.rglob("*") if item.is_file()} - before
    assert new == {item.resolve() for item in written}
    assert all(item.parent == work / "out" for item in new)
    assert json.loads(written[-1].read_text(encoding="utf-8"))["source"] == str(path)


def test_bombs_are_refused_and_cost_themselves_alone(recognizer: Recognizer, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "rate.wav", np.zeros(1000, np.float32), 16_000)
    forged = bytearray((tmp_path / "rate.wav").read_bytes())
    forged[24:28] = (2_000_000_000).to_bytes(4, "little")
    (tmp_path / "rate.wav").write_bytes(forged)
    huge = make_media(tmp_path / "huge.mkv", size=(16_384, 8192), duration=0.04, video_codec="ffv1", pix_fmt="gray")
    write_clip(tmp_path / "good.mp4", random_clip(10))
    files = [tmp_path / "rate.wav", huge, tmp_path / "good.mp4"]
    results = [result for _, result in recognizer.transcribe_all(files, "auto", CTC)]
    assert [isinstance(result, SeehearError) for result in results] == [True, True, False]
    for path, result in zip(files[:2], results[:2], strict=True):
        assert str(path) in str(result)
        assert "\n" not in str(result)


def test_hours_of_nothing_take_no_time_and_no_memory(recognizer: Recognizer, tmp_path: Path) -> None:
    hours = tmp_path / "long.opus"
    soundfile.write(hours, np.zeros(8000 * 600, np.float32), 8000, format="OGG", subtype="OPUS")
    assert hours.stat().st_size < 300_000
    found = recognizer.transcribe(hours, "auto", CTC)
    assert found.duration == pytest.approx(600, abs=1)
    assert found.segments == ()


def test_another_locale(model_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "Grüße.mp4"
    write_clip(path, random_clip(20))
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("LC_", "LANG", "PYTHON"))}
    environment |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "seehear", "transcribe", path.name, "-m", str(model_folder), "--decode", "ctc"]
    command += ["-o", "out", "-f", "all", "--no_speech_threshold", "1", "--threads", "1"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert {item.suffix for item in (tmp_path / "out").iterdir()} == {".txt", ".vtt", ".srt", ".tsv", ".json"}
    source = json.loads((tmp_path / "out" / "Grüße.json").read_text(encoding="utf-8"))["source"]
    assert source == "Grüße.mp4"


def test_one_name_for_two_files_and_one_file_twice(recognizer: Recognizer, tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", random_clip(12))
    (tmp_path / "other").mkdir()
    twin = Path(shutil.copy(tmp_path / "clip.mp4", tmp_path / "other" / "clip.mp4"))
    results = list(recognizer.transcribe_all([tmp_path / "clip.mp4", twin, twin], "a", CTC, no_speech_threshold=1.0))
    texts = [result.text for _, result in results if isinstance(result, Transcript)]
    assert len(texts) == 3
    assert len(set(texts)) == 1


def command(model_folder: Path, *arguments: object) -> list[str]:
    """The command line of `seehear transcribe`, as a shell runs it."""
    return [sys.executable, "-m", "seehear", "transcribe", *map(str, arguments), "-m", str(model_folder)]


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{name}.mp4" for name in "abc"]
    for number, path in enumerate(paths):
        write_clip(path, random_clip(20, number))
    return paths


def test_files_are_written_though_nobody_reads_what_is_printed(
    model_folder: Path, clips: list[Path], tmp_path: Path
) -> None:
    arguments = command(model_folder, *clips, "--decode", "ctc", "-f", "txt", "-o", tmp_path / "texts")
    read, write = os.pipe()
    os.close(read)
    run = subprocess.run(arguments, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert run.returncode == 0, run.stderr
    assert sorted(path.name for path in (tmp_path / "texts").iterdir()) == ["a.txt", "b.txt", "c.txt"]
    with Path("/dev/full").open("w") as full:
        arguments[-3] = str(tmp_path / "more")
        run = subprocess.run(arguments, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert run.returncode == 1
    assert "No space left" in run.stderr
    assert len(list((tmp_path / "more").iterdir())) == 3


def test_closed_standard_streams_are_no_obstacle(model_folder: Path, shared: Path, tmp_path: Path) -> None:
    clips = [shared / "data" / "grid-s1" / "clips" / f"{id}.mp4" for id in ("bbaf3s", "bbaf4p")]
    line = shlex.join(command(model_folder, *clips, "--decode", "ctc", "-f", "txt", "-o", tmp_path / "texts"))
    face_model = {"SEEHEAR_FACE_MODEL": str(shared / "models" / "face_landmarker.task")}
    subprocess.run(f"exec {line} <&- >&- 2>&-", shell=True, check=True, env={**os.environ, **face_model})
    assert len(list((tmp_path / "texts").iterdir())) == 2


def test_the_text_is_printed_though_nobody_reads_what_goes_beside_it(model_folder: Path, clips: list[Path]) -> None:
    read, write = os.pipe()
    os.close(read)
    arguments = command(model_folder, *clips, "--decode", "ctc")
    run = subprocess.run(arguments, stdout=subprocess.PIPE, stderr=write, text=True, check=False)
    os.close(write)
    assert run.returncode == 0
    assert len(run.stdout.splitlines()) == 3


def test_ctrl_c_ends_all_with_one_line(model_folder: Path, tmp_path: Path) -> None:
    long = make_media(tmp_path / "long.mkv", duration=120, size=(96, 96), stripe=True)
    arguments = command(model_folder, *[long] * 40, "--decode", "ctc", "--save_crops", "-o", tmp_path / "texts")
    program = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "texts").is_dir() or not list((tmp_path / "texts").iterdir()):
        assert program.poll() is None
        time.sleep(0.05)
    program.send_signal(signal.SIGINT)
    _, told = program.communicate(timeout=60)
    assert program.returncode == 130
    assert told.splitlines()[-1] == "error: interrupted"
    assert not list((tmp_path / "texts").glob("*.tmp"))
