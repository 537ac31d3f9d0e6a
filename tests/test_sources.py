"""Which recordings `seehear prepare` takes: sound alone, picture alone, and sound in a file of its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from conftest import Prepare
from media_files import FLASH_END, FLASH_START, beep_seconds, flash_seconds, make_media
from seehear.data.corpus import Corpus
from seehear.data.media import read_audio
from seehear.modality import Modality
from seehear.preparation.reading import joined_record
from seehear.preparation.sources import find_sources, sounds_below

READY = {"size": (96, 96), "stripe": True}
"""A video that `prepare` takes for a ready crop."""
SOUNDS = {
    "a.wav": ("pcm_s16le", 16_000),
    "b.flac": ("flac", 44_100),
    "c.mp3": ("libmp3lame", 44_100),
    "d.m4a": ("aac", 48_000),
    "e.ogg": ("libopus", 48_000),
    "f.opus": ("libopus", 24_000),
    "g.mp4": ("aac", 16_000),
    "h.AIFF": ("pcm_s16be", 44_100),
}


def write_sphere(path: Path, samples: "np.ndarray[tuple[int], np.dtype[np.int16]]") -> None:
    """A file of NIST's SPHERE format, as TIMIT has them."""
    fields = f"sample_count -i {len(samples)}\nsample_rate -i 16000\nchannel_count -i 1\nsample_n_bytes -i 2\n"
    header = f"NIST_1A\n   1024\n{fields}sample_byte_format -s2 01\nsample_coding -s3 pcm\nend_head\n"
    path.write_bytes(header.encode().ljust(1024) + samples.astype("<i2").tobytes())


def lines_of(path: Path) -> "list[dict[str, object]]":
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def times_of(corpus: Corpus, id: str) -> "dict[str, tuple[float, float]]":
    """When the flash is seen and when the beep is heard in a clip, where it has them."""
    clip = corpus.read(corpus.utterances[id])
    times = {}
    if clip.video is not None:
        times["flash"] = flash_seconds([frame[:, 16:] for frame in clip.video])
    if clip.audio is not None:
        times["beep"] = beep_seconds(clip.audio)
    return times


def test_sound_files_become_clips_without_a_picture(
    tmp_path: Path, prepare: Prepare, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "sounds", tmp_path / "out"
    source.mkdir()
    for name, (codec, rate) in SOUNDS.items():
        make_media(source / name, duration=2.41, video_codec=None, audio_codec=codec, rate=rate)
    write_sphere(source / "i.sph", np.round(read_audio(source / "a.wav") * 32767).astype(np.int16))
    shutil.copy(source / "i.sph", source / "j.WAV")  # as TIMIT calls them
    monkeypatch.setenv("SEEHEAR_FACE_MODEL", str(tmp_path / "none.task"))  # it is not looked for

    run = prepare(source, out)

    assert run.returncode == 0, run.stdout
    assert "note: clips with sound alone: 10" in run.stdout
    corpus = Corpus.load(out)
    assert sorted(corpus.utterances) == list("abcdefghij")
    for id, utterance in corpus.utterances.items():
        assert (utterance.streams, utterance.frames in (60, 61)) == (Modality.AUDIO, True)
        assert times_of(corpus, id)["beep"] == pytest.approx((FLASH_START, FLASH_END), abs=0.03), id
    assert {corpus.utterances[id].frames for id in "abij"} == {60}, "cut to whole frames"
    whole = read_audio(source / "b.flac")[: 60 * 640]
    np.testing.assert_allclose(corpus.read(corpus.utterances["b"]).audio, whole, atol=1e-4)
    assert all(line["streams"] == "a" and "misfit" not in line for line in lines_of(out / "crops.jsonl"))
    assert not (out / "contact-sheet.png").exists()
    again = prepare(source, out)
    assert "ready from an earlier run: 10 clips; to do: 0" in again.stderr


def test_silent_videos_become_clips_without_sound(tmp_path: Path, prepare: Prepare) -> None:
    source, out = tmp_path / "videos", tmp_path / "out"
    source.mkdir()
    make_media(source / "v.mp4", audio_codec=None, **READY)
    run = prepare(source, out)
    assert run.returncode == 0
    assert "note: clips with a picture alone: 1" in run.stdout
    corpus = Corpus.load(out)
    assert corpus.utterances["v"].streams is Modality.VIDEO
    assert corpus.read(corpus.utterances["v"]).audio is None
    assert times_of(corpus, "v") == {"flash": (FLASH_START, FLASH_END)}
    assert json.loads((out / "prepare.json").read_text())["faces"] == "cropped", "seen by their size"
    assert (out / "contact-sheet.png").is_file()


def test_crops_may_follow_sounds(tmp_path: Path, prepare: Prepare) -> None:
    source, out = tmp_path / "recordings", tmp_path / "out"
    source.mkdir()
    make_media(source / "a.wav", video_codec=None)
    assert prepare(source, out).returncode == 0
    make_media(source / "b.mp4", audio_codec="aac", **READY)
    assert prepare(source, out).returncode == 0
    streams = {id: utterance.streams for id, utterance in Corpus.load(out).utterances.items()}
    assert streams == {"a": Modality.AUDIO, "b": Modality.AUDIOVISUAL}
    (source / "b.mp4").unlink()
    assert prepare(source, out).returncode == 0, "and sounds follow crops"
    assert json.loads((out / "prepare.json").read_text())["faces"] == "cropped"


def test_a_face_may_follow_crops_if_both_were_told_by_size(shared: Path, tmp_path: Path, prepare: Prepare) -> None:
    source, model = tmp_path / "videos", shared / "models" / "face_landmarker.task"
    source.mkdir()
    make_media(source / "crop.mp4", audio_codec=None, **READY)
    for name, detector in (("by_size", "auto"), ("as_told", "cropped")):
        assert prepare(source, tmp_path / name, "--detector", detector, "--face-model", model).returncode == 0
    face = source / "face.mp4"
    shutil.copy(next((shared / "data" / "grid-s1" / "clips").glob("*.mp4")), face)
    told = prepare(source, tmp_path / "as_told", "--face-model", model)
    assert (told.returncode, "other settings (faces cropped, now mediapipe" in told.stderr) == (2, True)
    run = prepare(source, tmp_path / "by_size", "--face-model", model)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "ready from an earlier run: 1 clips; to do: 1" in run.stderr
    at_once = tmp_path / "at_once"
    assert prepare(source, at_once, "--face-model", model).returncode == 0
    for name in ("prepare.json", "manifest.jsonl"):
        assert (tmp_path / "by_size" / name).read_text() == (at_once / name).read_text()
    face.unlink()
    make_media(source / "another.mp4", audio_codec=None, **READY)
    assert "to do: 1" in prepare(source, at_once, "--face-model", model).stderr, "and crops may follow faces"
    assert json.loads((at_once / "prepare.json").read_text())["faces"] == "mediapipe"


def test_records_that_go_together() -> None:
    none, crops, faces = {"faces": "none"}, {"faces": "cropped"}, {"faces": "mediapipe", "max_gap": 25}
    crops_by_size, faces_by_size = crops | {"by_size": True}, faces | {"by_size": True}
    every = (crops, faces, crops_by_size, faces_by_size)
    assert [joined_record(none, now) for now in every] == [joined_record(now, none) for now in every] == [*every]
    assert joined_record(crops_by_size, faces_by_size) == joined_record(faces_by_size, crops_by_size) == faces_by_size
    for told, by_size in ((crops, crops_by_size), (faces, faces_by_size)):
        assert joined_record(told, told) == joined_record(told, by_size) == joined_record(by_size, told) == told
        assert joined_record(by_size, by_size) == by_size
    for excluded in ((crops, faces), (crops_by_size, faces), (crops, faces_by_size), (faces, {**faces, "max_gap": 3})):
        assert joined_record(*excluded) is joined_record(*reversed(excluded)) is None


def test_splits_may_name_recordings_with_their_suffix(tmp_path: Path, prepare: Prepare) -> None:
    source, lists = tmp_path / "sounds", tmp_path / "lists"
    source.mkdir()
    lists.mkdir()
    for name, seconds in (("a.wav", 0.5), ("b.wav", 0.5), ("film.wav", 12.0)):
        make_media(source / name, duration=seconds, video_codec=None)
    (source / "film.srt").write_text("1\n00:00:01,000 --> 00:00:03,000\none\n\n2\n00:00:05,000 --> 00:00:07,000\ntwo\n")
    (lists / "test.txt").write_text("film.wav\na.wav\na\nb.mp4\n")
    run = prepare(source, tmp_path / "out", "--splits", lists, "--longest", "10")
    assert "note: clips of the split 'test' that are not in the corpus: 1 (b.mp4)" in run.stdout
    corpus = Corpus.load(tmp_path / "out")
    assert [utterance.id for utterance in corpus.split("test")] == ["film-0001", "film-0002", "a"]


def test_a_first_line_with_other_names_of_columns_is_told(tmp_path: Path, prepare: Prepare) -> None:
    source, table = tmp_path / "sounds", tmp_path / "texts.tsv"
    source.mkdir()
    for name in ("a.wav", "b.wav"):
        make_media(source / name, duration=0.5, video_codec=None)
    told = "note: texts.tsv: 'file' in the first line was taken for an id; columns are called id, text, speaker, start"
    for header, expected in (("file\tsentence", True), ("id\ttext", False), ("b\tred", False)):
        table.write_text(f"{header}\na.wav\tgreen\n")
        run = prepare(source, tmp_path / "out", "--transcripts", table)
        assert (run.returncode, told in run.stdout) == (0, expected)
    table = tmp_path / "texts.json"
    table.write_text('[{"id": "file", "text": "x"}, {"id": "a", "text": "green"}]')
    assert "taken for an id" not in prepare(source, tmp_path / "out", "--transcripts", table).stdout


@pytest.mark.parametrize(("below", "message"), [(".", "OUT is SOURCE"), ("sounds", "OUT holds SOURCE")])
def test_the_corpus_is_not_made_where_its_recordings_are(
    tmp_path: Path, prepare: Prepare, below: str, message: str
) -> None:
    (tmp_path / below).mkdir(exist_ok=True)
    make_media(tmp_path / below / "a.wav", video_codec=None)
    run = prepare(tmp_path / below, tmp_path)
    assert (run.returncode, len(run.stderr.splitlines())) == (2, 1)
    assert f"{message}, {(tmp_path / below).resolve()}: choose another folder for OUT" in run.stderr


def test_a_sound_file_replaces_the_sound_of_its_video(tmp_path: Path, prepare: Prepare) -> None:
    source, out = tmp_path / "videos", tmp_path / "out"
    source.mkdir()
    make_media(source / "a.mp4", audio_codec="aac", audio_end=0.5, **READY)  # its own sound has no beep
    make_media(source / "a.wav", video_codec=None)
    make_media(source / "b.mp4", audio_codec=None, **READY)
    make_media(source / "b.flac", duration=3.6, video_codec=None, audio_codec="flac")
    make_media(source / "c.mp4", audio_codec=None, **READY)
    make_media(source / "c.wav", duration=1.3, video_codec=None)

    run = prepare(source, out)

    assert run.returncode == 0
    assert "note: clips with the sound of a separate file: 3 (a, b, c)" in run.stdout
    corpus = Corpus.load(out)
    for id in "ab":
        assert times_of(corpus, id)["flash"] == (FLASH_START, FLASH_END)
        assert times_of(corpus, id)["beep"] == pytest.approx((FLASH_START, FLASH_END), abs=0.001)
    assert [(u.frames, u.streams, u.source) for u in corpus.utterances.values()] == [
        (60, Modality.AUDIOVISUAL, f"{id}.mp4") for id in "abc"
    ]
    padded = corpus.read(corpus.utterances["c"]).audio
    assert padded is not None
    assert not padded[round(1.3 * 16_000) :].any(), "silence after its end"
    warnings = {str(line["id"]): line["warnings"] for line in lines_of(out / "crops.jsonl")}
    assert warnings["b"] == ["the sound of b.flac is 3.6 s long, the picture 2.4 s"]
    assert warnings["c"] == ["the sound of c.wav is 1.3 s long, the picture 2.4 s"]

    make_media(source / "a.wav", duration=2.0, video_codec=None)
    again = prepare(source, out)
    assert "ready from an earlier run: 2 clips; to do: 1" in again.stderr, "the sound file changed"


def test_a_sound_file_begins_with_the_earlier_stream_of_its_video(tmp_path: Path, prepare: Prepare) -> None:
    source, out = tmp_path / "videos", tmp_path / "out"
    source.mkdir()
    make_media(source / "a.mkv", times=np.arange(0.4, 2.4, 0.04), **READY)  # its sound begins at 0
    make_media(source / "a.wav", video_codec=None)
    assert prepare(source, out).returncode == 0
    times = times_of(Corpus.load(out), "a")
    assert times["flash"] == pytest.approx((FLASH_START - 0.4, FLASH_END - 0.4))
    assert times["beep"] == pytest.approx(times["flash"], abs=0.01)


def test_sound_in_a_folder_of_its_own(tmp_path: Path, prepare: Prepare) -> None:
    videos, sounds, out = (tmp_path / name for name in ("videos", "sounds", "out"))
    for folder in (videos / "s1", sounds / "s1"):
        folder.mkdir(parents=True)
    make_media(videos / "s1" / "a.mp4", audio_codec=None, **READY)
    make_media(sounds / "s1" / "a.wav", video_codec=None)
    run = prepare(videos, out, "--audio", sounds)
    assert (run.returncode, "sound file in" in run.stdout, "belong to no video" in run.stdout) == (0, False, False)
    assert Corpus.load(out).utterances["s1/a"].streams is Modality.AUDIOVISUAL
    (sounds / "s1" / "a.wav").rename(sounds / "a.wav")
    make_media(videos / "a.mp4", audio_codec=None, **READY)
    (sounds / "b.wav").symlink_to(sounds / "a.wav")
    partly = prepare(videos, tmp_path / "partly", "--audio", sounds)
    assert partly.returncode == 0
    assert f"note: sound files in {sounds} that belong to no video: 1 (b.wav)" in partly.stdout
    assert f"note: videos that have no sound file in {sounds}: 1 (s1/a.mp4)" in partly.stdout
    (videos / "a.mp4").unlink()
    wrong = prepare(videos, tmp_path / "other", "--audio", sounds)
    assert wrong.returncode == 2
    assert "holds no sound file with the name of a video, such as s1/a.wav" in wrong.stderr


def test_what_cannot_become_a_clip_is_told(tmp_path: Path, prepare: Prepare) -> None:
    source, out = tmp_path / "recordings", tmp_path / "out"
    source.mkdir()
    make_media(source / "good.wav", video_codec=None)
    shutil.copy(source / "good.wav", source / "twice.wav")
    make_media(source / "twice.flac", video_codec=None, audio_codec="flac")
    make_media(source / "short.wav", duration=0.03, video_codec=None)
    (source / "noise.mp3").write_bytes(bytes(range(256)) * 9)
    make_media(source / "pair.mp4", audio_codec="aac", **READY)
    (source / "pair.wav").write_bytes(b"no sound")
    make_media(source / "odd.mp4", audio_codec="aac", size=(96, 64), stripe=True)

    run = prepare(source, out, "--detector", "cropped")

    assert run.returncode == 1
    assert sorted(Corpus.load(out).utterances) == ["good", "twice"]
    reasons = {str(line["source"]): str(line["reason"]) for line in lines_of(out / "rejected.jsonl")}
    assert sorted(reasons) == ["noise.mp3", "odd.mp4", "pair.mp4", "short.wav", "twice.wav"]
    assert reasons["twice.wav"] == "only its suffix tells it from twice.flac: rename one of them"
    assert reasons["short.wav"] == "the sound is shorter than a video frame (40 ms)"
    assert reasons["pair.mp4"].startswith("pair.wav: not a media file")
    assert reasons["odd.mp4"] == "a video of ready crops must be square, not 96×64", "it has sound, which is not enough"


def test_a_video_without_a_face_is_told_that_it_may_be_a_crop(shared: Path, tmp_path: Path, prepare: Prepare) -> None:
    source, model = tmp_path / "videos", shared / "models" / "face_landmarker.task"
    source.mkdir()
    make_media(source / "v.mp4", size=(88, 88), duration=0.4, audio_codec=None, stripe=True)
    run = prepare(source, tmp_path / "out", "--face-model", model)
    assert run.returncode == 1
    assert "if it is a crop of a mouth already, use --detector cropped" in run.stdout
    assert prepare(source, tmp_path / "other", "--detector", "cropped").returncode == 0


def test_cover_art_is_no_picture(tmp_path: Path, prepare: Prepare) -> None:
    source, out = tmp_path / "recordings", tmp_path / "out"
    source.mkdir()
    with av.open(str(source / "song.mp4"), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 99, np.uint8), format="rgb24")
        container.mux(cover.encode(picture.reformat(format="yuvj420p")))
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(np.full((1, 16_000), 0.1, np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert prepare(source, out).returncode == 0
    assert Corpus.load(out).utterances["song"].streams is Modality.AUDIO


def test_ready_crops_do_not_load_mediapipe(tmp_path: Path) -> None:
    make_media(tmp_path / "v.mp4", audio_codec="aac", **READY)
    program = (
        "import sys; from pathlib import Path; from seehear.preparation.preparer import *\n"
        "from seehear.preparation.labels import NOTHING\n"
        f"source = Source('v', 'v.mp4', Path({str(tmp_path / 'v.mp4')!r}), (0, 0))\n"
        f"preparer = Preparer(Path({str(tmp_path)!r}), CropSettings(), WindowOptions())\n"
        "print(preparer(Job(source, NOTHING)).frames, 'mediapipe' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["60", "False"]


def test_lombard_voices(shared: Path, tmp_path: Path, prepare: Prepare) -> None:
    """Real recordings without a picture, with their texts and speakers."""
    voices = shared / "data" / "lombard-voices"
    source = tmp_path / "voices"
    source.mkdir()
    chosen = sorted(voices.glob("*.flac"))[::40]
    for path in chosen:
        (source / path.name).symlink_to(path)
    assert prepare(source, tmp_path / "out", "--transcripts", voices / "transcripts.tsv").returncode == 0
    corpus = Corpus.load(tmp_path / "out")
    for path in chosen:
        utterance = corpus.utterances[path.stem]
        whole = read_audio(path)
        assert (utterance.speaker, utterance.frames) == (path.stem[:3], len(whole) // 640)
        assert utterance.text is not None
        assert [word[0] for word in utterance.text.split()[:3]] == list(path.stem.split("-")[1][:3]), (
            "named by its text"
        )
        audio = corpus.read(utterance).audio
        assert audio is not None
        np.testing.assert_allclose(audio, whole[: len(audio)], atol=1e-4)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    source, elsewhere = tmp_path / "recordings", tmp_path / "elsewhere"
    for folder in (source / "b", source / ".hidden", source / "out", elsewhere / "deep"):
        folder.mkdir(parents=True)
    for path in (source / "b" / "1.wav", source / ".hidden" / "2.wav", source / "out" / "3.wav"):
        path.write_bytes(b"")
    (elsewhere / "deep" / "4.wav").write_bytes(b"")
    for link, target in {
        source / "a": source / "b",  # the folder itself counts, whatever the names
        source / "c": elsewhere,
        source / "d": source / "out",
        source / "gone": tmp_path / "nowhere",
        elsewhere / "deep" / "circle": elsewhere,
        elsewhere / "back": source,
    }.items():
        link.symlink_to(target, target_is_directory=True)
    sources, rejected = find_sources(source, source / "out")
    assert [recording.id for recording in sources] == ["b/1", "c/deep/4"]
    assert rejected == []
    assert sorted(sounds_below(source)) == ["b/1", "c/deep/4", "out/3"]
