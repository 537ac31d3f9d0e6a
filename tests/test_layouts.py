"""Corpora in their published layouts, in miniature: what `seehear prepare --layout` takes from each."""

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from conftest import Prepare
from media_files import add_sound, make_media, write_video
from seehear.data.corpus import Corpus
from seehear.data.media import iter_frames, read_audio
from seehear.errors import CorpusError
from seehear.modality import Modality
from seehear.preparation.cues import place_cues
from seehear.preparation.layouts import LAYOUTS, read_layout
from seehear.preparation.texts import TimedWord, group_words, joined, read_align, read_lrs_text
from seehear.preparation.transcripts import WORD_TIMES, Transcription

PRETRAIN_TEXT = """Text:  AND SO I'M
Conf:  4

WORD START END ASDSCORE
AND 0.11 0.25 5.6
SO 0.25 0.5 7.0
I'M 0.5 0.72 6.3
"""


def crop(path: Path, *, frames: int = 12, sound: str | None = "aac") -> Path:
    """A short video of 96×96, taken for a ready crop."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return make_media(path, duration=frames / 25, size=(96, 96), stripe=True, audio_codec=sound)


def speech(path: Path, codec: str = "flac", seconds: float = 0.5) -> Path:
    """A short sound file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return make_media(path, duration=seconds, video_codec=None, audio_codec=codec)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def known(corpus: Corpus) -> "dict[str, tuple[str | None, str | None]]":
    """Text and speaker of every clip."""
    return {id: (utterance.text, utterance.speaker) for id, utterance in corpus.utterances.items()}


def splits(corpus: Corpus) -> "dict[str, list[str]]":
    return {name: [utterance.id for utterance in corpus.split(name)] for name in corpus.split_names()}


def test_lrs3(tmp_path: Path, prepare: Prepare) -> None:
    source = tmp_path / "download"
    for id, text in {
        "pretrain/0af00UcTOSc/00001": PRETRAIN_TEXT,
        "trainval/0af00UcTOSc/00002": "Text:  THE REST\nConf:  5\n",
        "test/zzz_-9/00001": "Text:  WHAT I MEAN \nConf:  3\n",
    }.items():
        crop(source / "lrs3" / f"{id}.mp4")
        write(source / "lrs3" / f"{id}.txt", text)
    crop(source / "lrs3" / "test" / "untold" / "00001.mp4")
    run = prepare(source, tmp_path / "out", "--layout", "lrs3")
    assert run.returncode == 0, run.stdout
    corpus = Corpus.load(tmp_path / "out")
    assert known(corpus) == {
        "pretrain/0af00UcTOSc/00001": ("AND SO I'M", "0af00UcTOSc"),
        "trainval/0af00UcTOSc/00002": ("THE REST", "0af00UcTOSc"),
        "test/zzz_-9/00001": ("WHAT I MEAN", "zzz_-9"),
        "test/untold/00001": (None, "untold"),
    }
    assert splits(corpus) == {
        "pretrain": ["pretrain/0af00UcTOSc/00001"],
        "trainval": ["trainval/0af00UcTOSc/00002"],
        "test": ["test/untold/00001", "test/zzz_-9/00001"],
    }
    assert "note: clips without a transcript: 1 (test/untold/00001)" in run.stdout


def test_lrs2(tmp_path: Path, prepare: Prepare) -> None:
    source = tmp_path / "mvlrs_v1"
    for id in ("main/555/00001", "main/555/00002", "main/666/00001", "pretrain/777/00001"):
        crop(source / f"{id}.mp4")
        write(
            source / f"{id}.txt", PRETRAIN_TEXT.replace("SO", id[-1]) if "pre" in id else f"Text:  {id[-1]}\nConf:  4\n"
        )
    write(tmp_path / "train.txt", "555/00001\n555/00002\n")
    write(source / "test.txt", "666/00001 NF\n999/00001 MV\n")
    run = prepare(tmp_path, tmp_path / "out", "--layout", "lrs2")
    assert run.returncode == 0, run.stdout
    corpus = Corpus.load(tmp_path / "out")
    assert known(corpus)["main/555/00002"] == ("2", "555")
    assert known(corpus)["pretrain/777/00001"] == ("AND 1 I'M", "777")
    assert splits(corpus) == {
        "train": ["main/555/00001", "main/555/00002"],
        "test": ["main/666/00001"],
        "pretrain": ["pretrain/777/00001"],
    }
    assert "note: lists of LRS2 that are not beside its folders: 1 (val.txt)" in run.stdout
    assert "note: clips of the split 'test' that are not in the corpus: 1 (main/999/00001)" in run.stdout


# Long recordings whose words have times


def sentences() -> "list[TimedWord]":
    """100 words in 39 s, with the longest pauses after 5, 40, 70 and 97 words."""
    pauses = {5: 1.5, 40: 0.6, 70: 0.5, 97: 2.0}
    starts = np.cumsum([0.0 if n == 0 else 0.35 + pauses.get(n, 0.0) for n in range(100)])
    return [TimedWord(f"W{n}", round(start, 2), round(start + 0.35, 2)) for n, start in enumerate(starts.tolist())]


def lrs_text(words: "list[TimedWord]") -> str:
    table = "".join(f"{word} {start:.2f} {end:.2f} 5.0\n" for word, start, end in words)
    return f"Text:  {joined(words)}\nConf:  4\n\nWORD START END ASDSCORE\n{table}"


def lines_of(path: Path) -> "list[dict[str, Any]]":
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_words_are_cut_at_the_longest_pause_away_from_the_ends() -> None:
    words = sentences()
    cues = group_words(words, 24.0)
    assert [cue.text for cue in cues] == [joined(words[:40]), joined(words[40:])]
    assert [(cue.start, cue.end) for cue in cues] == [(0.0, words[39].end), (words[40].start, words[99].end)]
    assert [cue.text for cue in group_words(words, 20.0)] == [
        joined(words[:40]), joined(words[40:70]), joined(words[70:]),
    ]  # fmt: skip
    assert [cue.text for cue in group_words(words, 100.0)] == [joined(words)]
    even = [TimedWord(str(n), n / 2, (n + 1) / 2) for n in range(96)]
    assert [len(cue.text.split()) for cue in group_words(even, 24.4)] == [48, 48], "without a pause, in the middle"


@pytest.mark.parametrize("seed", range(20))
def test_every_word_is_in_one_clip_and_none_is_cut(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count, longest = int(rng.integers(1, 400)), float(rng.choice((5.2, 12.0, 24.0)))
    steps = np.stack([rng.choice((0.0, 0.0, 0.1, 1.0), count), rng.uniform(0.05, 0.9, count)], axis=1)
    times = np.cumsum(steps).round(2).reshape(-1, 2)
    words = [TimedWord(f"W{n}", start, end) for n, (start, end) in enumerate(times.tolist())]
    cues = group_words(words, longest)
    assert " ".join(cue.text for cue in cues) == joined(words)
    assert {cue.start for cue in cues} <= {word.start for word in words}
    assert {cue.end for cue in cues} <= {word.end for word in words}
    assert min(len(cue.text.split()) for cue in cues) >= (3 if longest > 6 else 1) or len(words) < 3
    placed, left_out = place_cues(cues, longest)
    assert left_out == []
    assert [cue for cue, _ in placed] == [*cues]
    assert max(window.end - window.start for _, window in placed) <= longest * 25


def test_words_that_cannot_be_cut_or_have_no_order() -> None:
    long = TimedWord("L", 1.0, 40.0)
    cues = group_words([TimedWord("a", 0.0, 1.0), long, TimedWord("b", 50.0, 51.0)], 24.0)
    assert [(cue.text, cue.start, cue.end) for cue in cues] == [("a", 0.0, 1.0), ("L", 1.0, 40.0), ("b", 50.0, 51.0)]
    for times in ((0.0, 1.0, 0.9, 2.0), (1.0, 0.0, 2.0, 3.0), (-1.0, 0.0, 1.0, 2.0), (0.0, float("nan"), 1.0, 2.0),
                  (0.0, 1.0, 2.0, float("inf"))):  # fmt: skip
        assert group_words([TimedWord("a", *times[:2]), TimedWord("b", *times[2:])], 24.0) == ()
    assert group_words([], 24.0) == ()


def test_a_long_recording_is_cut_between_words(tmp_path: Path, prepare: Prepare) -> None:
    source, out, words = tmp_path / "lrs3", tmp_path / "out", sentences()
    crop(source / "pretrain" / "anna" / "00001.mp4", frames=1000)
    write(source / "pretrain" / "anna" / "00001.txt", lrs_text(words))
    shutil.copytree(source / "pretrain" / "anna", source / "pretrain" / "bert")
    write(source / "pretrain" / "bert" / "00001.txt", lrs_text([words[1], words[0], *words[2:]]))
    crop(source / "trainval" / "anna" / "00002.mp4")
    write(source / "trainval" / "anna" / "00002.txt", PRETRAIN_TEXT)

    run = prepare(source, out, "--layout", "lrs3")

    assert run.returncode == 1
    assert "rejected pretrain/bert/00001.mp4: it is 40 s long and has one transcript for the whole" in run.stdout
    parts = {"pretrain/anna/00001-0001": words[:40], "pretrain/anna/00001-0002": words[40:]}
    assert known(Corpus.load(out)) == {
        **{id: (joined(own), "anna") for id, own in parts.items()},
        "trainval/anna/00002": ("AND SO I'M", "anna"),
    }
    assert splits(Corpus.load(out)) == {"pretrain": [*parts], "trainval": ["trainval/anna/00002"]}
    (recording,) = lines_of(out / "recordings.jsonl")
    assert (recording["times"], recording["unused_times"], recording["without_face"]) == (WORD_TIMES, [], [])
    places = {line["id"]: line["part"] for line in lines_of(out / "crops.jsonl") if "part" in line}
    for id, own in parts.items():
        assert -0.021 <= own[0].start - places[id]["start"] <= 0.221
        assert -0.021 <= places[id]["end"] - own[-1].end <= 0.221


def test_a_film_of_grid_is_cut_between_its_sentences(shared: Path, tmp_path: Path, prepare: Prepare) -> None:
    """Real speech with the times of its words: the longest pauses are those between clips."""
    grid, folder, out = shared / "data" / "grid-s1", tmp_path / "lrs3" / "pretrain" / "s1", tmp_path / "out"
    folder.mkdir(parents=True)
    rows = [line.split("\t") for line in (grid / "word_times.tsv").read_text().splitlines()]
    ids = sorted({row[0] for row in rows if (grid / "clips" / f"{row[0]}.mp4").is_file()})[:3]
    paths = [grid / "clips" / f"{id}.mp4" for id in ids]
    words = [
        [TimedWord(word, 3 * n + float(start), 3 * n + float(end)) for key, start, end, word in rows if key == id]
        for n, id in enumerate(ids)
    ]
    pictures = [frame for path in paths for frame in iter_frames(path)]
    sound = np.concatenate([read_audio(path, num_frames=75) for path in paths])
    add_sound(write_video(tmp_path / "v.mp4", pictures), folder / "00001.mp4", sound)
    write(folder / "00001.txt", lrs_text([word for clip in words for word in clip]))
    model = shared / "models" / "face_landmarker.task"

    run = prepare(tmp_path / "lrs3", out, "--layout", "lrs3", "--longest", "5.2", "--face-model", model)

    assert run.returncode == 0, run.stdout
    corpus = Corpus.load(out)
    parts = corpus.split("pretrain")
    assert " ".join(str(part.text) for part in parts) == " ".join(joined(clip) for clip in words)
    assert len(parts) == 2
    assert all(len(str(part.text).split()) % 6 == 0 for part in parts), "each sentence of GRID has six words"
    heard = read_audio(folder / "00001.mp4")
    for line in lines_of(out / "crops.jsonl"):
        first, last = (round(line["part"][key] * 25) for key in ("start", "end"))
        clip = corpus.read(corpus.utterances[line["id"]])
        np.testing.assert_allclose(clip.audio, heard[first * 640 : last * 640], atol=1 / 32767)


def test_word_times_from_run_to_run(tmp_path: Path, prepare: Prepare) -> None:
    source, out, words = tmp_path / "lrs3", tmp_path / "out", sentences()
    speech(source / "pretrain" / "anna" / "00001.flac", seconds=40)
    write(source / "pretrain" / "anna" / "00001.txt", lrs_text(words))
    speech(source / "test" / "carl" / "00001.flac")

    def found() -> "tuple[list[tuple[str | None, str | None]], list[str]]":
        corpus = Corpus.load(out)
        pretrain = splits(corpus)["pretrain"]
        return [known(corpus)[id] for id in pretrain], pretrain

    prepare(source, out, "--layout", "lrs3")
    first, clips = found(), [path.stat().st_ino for path in sorted((out / "clips").rglob("*.mp4"))]
    for options in (("--layout", "lrs3"), ()):
        assert "ready from an earlier run: 3 clips; to do: 0" in prepare(source, out, *options).stderr
        assert found() == first
        assert [path.stat().st_ino for path in sorted((out / "clips").rglob("*.mp4"))] == clips
    assert "to do: 1" in prepare(source, out, "--layout", "lrs3", "--longest", "20").stderr
    thirds = words[:40], words[40:70], words[70:]
    ids = [f"pretrain/anna/00001-{number:04d}" for number in (1, 2, 3)]
    assert found() == ([(joined(own), "anna") for own in thirds], ids)
    assert "to do: 1" in prepare(source, out, "--layout", "lrs3", "--longest", "60").stderr
    assert found() == ([(joined(words), "anna")], ["pretrain/anna/00001"])


def test_word_times_of_lrs2_and_grid(tmp_path: Path) -> None:
    words = sentences()
    (tmp_path / "lrs2" / "main").mkdir(parents=True)
    write(tmp_path / "lrs2" / "pretrain" / "5" / "00001.txt", lrs_text(words))
    rows = [f"{round(start * 25_000)} {round(end * 25_000)} {word}\n" for word, start, end in words]
    write(tmp_path / "grid" / "s1" / "00001.align", "".join(rows))
    for layout, id, speaker in (("lrs2", "pretrain/5/00001", "5"), ("grid", "s1/00001", "s1")):
        write(tmp_path / layout / f"{id}.mp4", "is not read here")
        transcripts = read_layout(layout, tmp_path / layout, tmp_path / "out", 24.0).transcripts
        assert transcripts == {id: Transcription(joined(words), speaker, group_words(words, 24.0), WORD_TIMES)}


ALIGNMENT = "0 23750 sil\n23750 29500 bin\n29500 34000 blue\n34000 35500 sp\n35500 41000 at\n41000 74500 sil\n"


@pytest.mark.parametrize(
    ("video", "alignment"),
    [
        ("s1/bbaf2n.mpg", "alignments/s1/bbaf2n.align"),
        ("s1/video/mpg_6000/bbaf2n.mpg", "s1/align/bbaf2n.align"),
        ("s1.mpg_6000.part1/s1/bbaf2n.mpg", "align/bbaf2n.align"),
    ],
)
def test_grid(tmp_path: Path, prepare: Prepare, video: str, alignment: str) -> None:
    source = tmp_path / "grid"
    (source / video).parent.mkdir(parents=True)
    shutil.copy(crop(tmp_path / "video.mp4"), source / video)  # known by what is inside, not by the suffix
    speech(source / "audio_25k" / "s1" / "bbaf2n.wav", "pcm_s16le")  # repeats the sound of the video
    speech(source / "audio_25k" / "s21" / "bbaf3s.wav", "pcm_s16le")  # of whom there are no videos
    write(source / alignment, ALIGNMENT)
    write(source / "align" / "s21" / "bbaf3s.align", ALIGNMENT.replace("blue", "red"))
    run = prepare(source, tmp_path / "out", "--layout", "grid")
    assert run.returncode == 0, run.stdout
    corpus = Corpus.load(tmp_path / "out")
    assert known(corpus) == {
        video.removesuffix(".mpg"): ("bin blue at", "s1"),
        "audio_25k/s21/bbaf3s": ("bin red at", "s21"),
    }
    assert "clips without a transcript" not in run.stdout
    for path in (source / alignment, source / "align" / "s21" / "bbaf3s.align"):
        path.unlink()
    untold = prepare(source, tmp_path / "untold", "--layout", "grid")
    assert "note: clips without a transcript: 2 (" in untold.stdout
    assert splits(corpus) == {}
    assert "note: recordings that have no place in the layout: 1 (audio_25k/s1/bbaf2n.wav)" in run.stdout


def test_grid_as_it_was_recorded(shared: Path, tmp_path: Path, prepare: Prepare) -> None:
    """A real clip in MPEG-1, the format of the original, with its alignment, cropped by MediaPipe."""
    source = tmp_path / "grid"
    to_mpeg(shared / "data" / "grid-s1" / "clips" / "bbaf4p.mp4", source / "s1" / "bbaf4p.mpg")
    times = [line.split("\t") for line in (shared / "data" / "grid-s1" / "word_times.tsv").read_text().splitlines()]
    spoken = [
        (round(float(start) * 25_000), round(float(end) * 25_000), word)
        for id, start, end, word in times
        if id == "bbaf4p"
    ]
    rows = [(0, spoken[0][0], "sil"), *spoken, (spoken[-1][1], 74_500, "sil")]
    write(source / "alignments" / "s1" / "bbaf4p.align", "".join(f"{a} {b} {word}\n" for a, b, word in rows))
    model = shared / "models" / "face_landmarker.task"
    run = prepare(source, tmp_path / "out", "--layout", "grid", "--face-model", model)
    assert run.returncode == 0, run.stdout
    (utterance,) = Corpus.load(tmp_path / "out").utterances.values()
    assert (utterance.text, utterance.speaker, utterance.frames) == ("bin blue at f four please", "s1", 75)
    assert read_align(source / "alignments" / "s1" / "bbaf4p.align")[0] == TimedWord(
        "bin", *[number / 25_000 for number in spoken[0][:2]]
    )


def to_mpeg(video: Path, path: Path) -> None:
    """The same video as MPEG-1 with MP2 sound."""
    path.parent.mkdir(parents=True)
    with av.open(str(video)) as source, av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg1video", rate=25)
        picture.width, picture.height, picture.bit_rate = 360, 288, 6_000_000
        sound = container.add_stream("mp2", rate=44_100, layout="mono")
        for frame in source.decode(video=0):
            container.mux(picture.encode(frame.reformat(format="yuv420p")))
        container.mux(picture.encode(None))
        source.seek(0)
        fifo = av.AudioFifo()
        resampler = av.AudioResampler(format="s16", layout="mono", rate=44_100)
        for frame in source.decode(audio=0):
            for converted in resampler.resample(frame):
                converted.pts = None
                fifo.write(converted)
        while (frame := fifo.read(1152)) is not None:
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))


def test_librispeech(tmp_path: Path, prepare: Prepare) -> None:
    source = tmp_path / "LibriSpeech"
    for id in (
        "dev-clean/84/121123/84-121123-0000",
        "dev-clean/84/121123/84-121123-0001",
        "train-clean-100/19/198/19-198-0000",
    ):
        speech(source / f"{id}.flac")
    write(source / "dev-clean/84/121123/84-121123.trans.txt", "84-121123-0000 GO DO YOU HEAR\n84-121123-0001 BUT IN\n")
    write(source / "train-clean-100/19/198/19-198.trans.txt", "19-198-0000 NORTHANGER ABBEY\n19-198-0001 LOST\n")
    write(source / "SPEAKERS.TXT", "; 84 | F\n")
    run = prepare(tmp_path, tmp_path / "out", "--layout", "librispeech")
    assert run.returncode == 0, run.stdout
    corpus = Corpus.load(tmp_path / "out")
    assert known(corpus) == {
        "dev-clean/84/121123/84-121123-0000": ("GO DO YOU HEAR", "84"),
        "dev-clean/84/121123/84-121123-0001": ("BUT IN", "84"),
        "train-clean-100/19/198/19-198-0000": ("NORTHANGER ABBEY", "19"),
    }
    assert {name: len(ids) for name, ids in splits(corpus).items()} == {"dev-clean": 2, "train-clean-100": 1}
    assert {utterance.streams for utterance in corpus.utterances.values()} == {Modality.AUDIO}
    assert "note: transcripts without a recording: 1 (train-clean-100/19/198/19-198-0001)" in run.stdout


def test_wildvsr(tmp_path: Path, prepare: Prepare) -> None:
    source = tmp_path / "WildVSR"
    for name in ("00001", "00002"):
        crop(source / "videos" / f"{name}.mp4", sound=None)
    write(source / "labels.json", json.dumps({"00001": "it is a test", "00002.mp4": "the second"}))
    assert prepare(source, tmp_path / "out", "--layout", "wildvsr").returncode == 0
    corpus = Corpus.load(tmp_path / "out")
    assert known(corpus) == {"videos/00001": ("it is a test", None), "videos/00002": ("the second", None)}
    assert splits(corpus) == {"test": ["videos/00001", "videos/00002"]}
    assert {utterance.streams for utterance in corpus.utterances.values()} == {Modality.VIDEO}


UNITS = ("<unk>", "▁THE", "▁RE", "ST", "▁A", "'")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Crops in one folder, sound in another, lists and units beside them."""
    crop(tmp_path / "crops" / "lrs3" / "test" / "zz" / "00001.mp4", sound=None)
    crop(tmp_path / "crops" / "lrs3" / "test" / "zz" / "00002.mp4", sound=None, frames=10)
    crop(tmp_path / "crops" / "id0001" / "ab" / "00003.mp4", sound=None, frames=40)
    speech(tmp_path / "sounds" / "lrs3" / "test" / "zz" / "00001.wav", "pcm_s16le")
    speech(tmp_path / "sounds" / "id0001" / "ab" / "00003.wav", "pcm_s16le")
    write(tmp_path / "units.txt", "".join(f"{unit} {number}\n" for number, unit in enumerate(UNITS, start=1)))
    write(
        tmp_path / "lists" / "test.csv",
        "lrs3,test/zz/00001.mp4,12,2 3 4\nlrs3,test/zz/00002.mp4,15,5 3 4\nlrs3,test/zz/00009.mp4,15,5\n",
    )
    write(tmp_path / "lists" / "unlabelled.csv", "vox2,id0001/ab/00003.mp4,100,\n")
    return tmp_path


def prepare_published(prepare: Prepare, folder: Path, *more: object) -> "tuple[int, str]":
    options = ("--layout", "usr", "--lists", folder / "lists", "--audio", folder / "sounds", *more)
    run = prepare(folder / "crops", folder / "out", *options)
    return run.returncode, run.stdout + run.stderr


def test_lists_of_the_published_code(published: Path, prepare: Prepare) -> None:
    code, printed = prepare_published(prepare, published, "--units", published / "units.txt")
    assert code == 1
    corpus = Corpus.load(published / "out")
    assert known(corpus) == {"lrs3/test/zz/00001": ("THE REST", None), "lrs3/test/zz/00002": ("A REST", None)}
    streams = {id: utterance.streams for id, utterance in corpus.utterances.items()}
    assert list(streams.values()) == [Modality.AUDIOVISUAL, Modality.VIDEO]
    assert splits(corpus) == {"test": ["lrs3/test/zz/00001", "lrs3/test/zz/00002"]}
    assert "rejected lrs3/test/zz/00009.mp4: a list names it, but it is missing" in printed
    assert "rejected vox2/id0001/ab/00003.mp4: it has 40 frames, its list says 100: is it cut off?" in printed
    warnings = [json.loads(line)["warnings"] for line in (published / "out" / "crops.jsonl").read_text().splitlines()]
    assert warnings == [[], ["10 frames, where the list says 15"]]
    write(published / "lists" / "unlabelled.csv", "vox2,id0001/ab/00003.mp4,41,\n")
    assert prepare_published(prepare, published, "--units", published / "units.txt")[0] == 1
    assert splits(Corpus.load(published / "out"))["unlabelled"] == ["vox2/id0001/ab/00003"]
    assert known(Corpus.load(published / "out"))["vox2/id0001/ab/00003"] == (None, None)


@pytest.mark.parametrize(
    ("rows", "units", "message"),
    [
        ("lrs3,test/zz/00001.mp4,12,2 3\n", False, "give the published list of units with --units FILE"),
        ("lrs3,test/zz/00001.mp4,12,7\n", True, "has the token 7, but the units are numbered 1 to 6"),
        ("lrs3,test/zz/00001.mp4,x,2\nlrs3,../a.mp4,1,2\nlrs3,a.mp4,1,b\nlrs3\n", True, "line 1: 'x' is no number"),
        ("lrs3,other/00001.mp4,12,2\n", True, "holds none of the 1 files"),
        ("", True, "lists no clips"),
        (",test/zz/00001.mp4,12,2\n", True, "line 1: the corpus, the first column, is missing"),
        ("corpus,path,frames,tokens\n", True, "line 1: 'corpus,path,frames,tokens' names columns, but a list has no"),
        (
            "lrs3,test/zz/00001.mp4,12,2 3\nlrs3,test/zz/00001.mp4,12,2\n",
            True,
            "lists: rows whose clip has other tokens in an earlier row: 1 (lrs3/test/zz/00001.mp4)",
        ),
    ],
)
def test_faulty_lists_are_one_line(published: Path, prepare: Prepare, rows: str, units: bool, message: str) -> None:
    shutil.rmtree(published / "lists")
    write(published / "lists" / "test.csv", rows)
    code, printed = prepare_published(prepare, published, *(("--units", published / "units.txt") if units else ()))
    assert (code, len(printed.splitlines())) == (2, 1)
    assert message in printed
    if "../" in rows:
        assert "line 2: the path '../a.mp4' of the corpus 'lrs3' leads outside" in printed
        assert "line 3: the token ids must be numbers" in printed
        assert "line 4: 1 columns" in printed


def test_a_clip_that_stands_in_a_list_without_tokens_too_keeps_its_text(published: Path) -> None:
    write(published / "lists" / "unlabelled.csv", "lrs3,test/zz/00001.mp4,12,\nlrs3,test/zz/00002.mp4,15,5 3 4\n")
    contents = read_layout(
        "usr", published / "crops", published / "out", 24.0, lists=published / "lists", units=published / "units.txt"
    )
    assert contents.transcripts is not None
    assert contents.transcripts["lrs3/test/zz/00001"].text == "THE REST"
    assert contents.splits is not None
    assert contents.splits["unlabelled"] == ["lrs3/test/zz/00001", "lrs3/test/zz/00002"]


def test_given_transcripts_and_splits_override_those_of_the_layout(tmp_path: Path, prepare: Prepare) -> None:
    source = tmp_path / "lrs3"
    crop(source / "test" / "zz" / "00001.mp4")
    write(source / "test" / "zz" / "00001.txt", "Text:  THE REST\n")
    write(tmp_path / "t.tsv", "test/zz/00001\tanother text\n")
    write(tmp_path / "lists" / "mine.txt", "test/zz/00001\n")
    given = ("--transcripts", tmp_path / "t.tsv", "--splits", tmp_path / "lists")
    assert prepare(source, tmp_path / "out", "--layout", "lrs3", *given).returncode == 0
    corpus = Corpus.load(tmp_path / "out")
    assert known(corpus) == {"test/zz/00001": ("another text", "zz")}
    assert splits(corpus) == {"mine": ["test/zz/00001"]}


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"folder"}))
def test_another_layout_says_what_was_expected_and_what_is_there(tmp_path: Path, prepare: Prepare, layout: str) -> None:
    crop(tmp_path / "videos" / "holiday" / "a.mp4")
    run = prepare(tmp_path / "videos", tmp_path / "out", "--layout", layout)
    assert run.returncode == 2
    assert len(run.stderr.splitlines()) == 1
    assert f"is not in the layout {layout}: expected " in run.stderr
    assert run.stderr.endswith("found holiday\n")
    assert not (tmp_path / "out").exists()


def test_a_layout_without_recordings_is_an_error(tmp_path: Path) -> None:
    crop(tmp_path / "test" / "00001.mp4")
    with pytest.raises(CorpusError, match=r"no place in the layout: 1 \(test/00001.mp4\)"):
        read_layout("lrs3", tmp_path, tmp_path / "out", 24.0)


def test_texts_with_times(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", PRETRAIN_TEXT)
    assert read_lrs_text(tmp_path / "a.txt") == (
        "AND SO I'M",
        [TimedWord("AND", 0.11, 0.25), TimedWord("SO", 0.25, 0.5), TimedWord("I'M", 0.5, 0.72)],
    )
    write(tmp_path / "a.align", ALIGNMENT)
    assert read_align(tmp_path / "a.align") == [
        TimedWord("bin", 0.95, 1.18), TimedWord("blue", 1.18, 1.36), TimedWord("at", 1.42, 1.64),
    ]  # fmt: skip
    write(tmp_path / "b.txt", PRETRAIN_TEXT.replace("0.72", "x"))
    with pytest.raises(CorpusError, match=r"b.txt, line 7: must be WORD START END SCORE"):
        read_lrs_text(tmp_path / "b.txt")


def test_a_text_in_another_form_is_noted_and_the_clip_kept(tmp_path: Path, prepare: Prepare) -> None:
    crop(tmp_path / "test" / "zz" / "00001.mp4")
    crop(tmp_path / "test" / "zz" / "00002.mp4")
    write(tmp_path / "test" / "zz" / "00001.txt", "THE REST\n")
    write(tmp_path / "test" / "zz" / "00002.txt", "Text:  THE REST\n")
    run = prepare(tmp_path, tmp_path / "out", "--layout", "lrs3")
    assert run.returncode == 0
    assert "note: texts that cannot be read: 1 (" in run.stdout
    assert known(Corpus.load(tmp_path / "out"))["test/zz/00001"] == (None, "zz")


def test_a_crop_with_another_suffix_than_its_list_names(published: Path) -> None:
    first = published / "crops" / "lrs3" / "test" / "zz" / "00001.mp4"
    first.rename(first.with_suffix(".avi"))
    contents = read_layout(
        "usr", published / "crops", published / "out", 24.0, lists=published / "lists" / "test.csv",
        audio=published / "sounds", units=published / "units.txt",
    )  # fmt: skip
    assert [(source.id, source.path.suffix, source.frames) for source in contents.sources] == [
        ("lrs3/test/zz/00001", ".avi", 12), ("lrs3/test/zz/00002", ".mp4", 15),
    ]  # fmt: skip
    assert contents.sources[0].sound == published / "sounds" / "lrs3" / "test" / "zz" / "00001.wav"
    assert contents.splits == {"test": ["lrs3/test/zz/00001", "lrs3/test/zz/00002", "lrs3/test/zz/00009"]}


def test_a_linked_folder_of_librispeech_and_of_alignments(tmp_path: Path) -> None:
    source, elsewhere = tmp_path / "LibriSpeech", tmp_path / "disk"
    write(source / "dev-clean/84/1/84-1-0000.flac", "is not read here")
    write(source / "dev-clean/84/1/84-1.trans.txt", "84-1-0000 GO\n")
    write(elsewhere / "19/2/19-2-0000.flac", "is not read here")
    write(elsewhere / "19/2/19-2.trans.txt", "19-2-0000 ON\n")
    (source / "train-clean-100").symlink_to(elsewhere, target_is_directory=True)
    contents = read_layout("librispeech", source, tmp_path / "out", 24.0)
    ids = ["dev-clean/84/1/84-1-0000", "train-clean-100/19/2/19-2-0000"]
    assert [each.id for each in contents.sources] == ids
    assert contents.transcripts == {ids[0]: Transcription("GO", "84"), ids[1]: Transcription("ON", "19")}
    write(tmp_path / "texts" / "s1" / "a.align", ALIGNMENT)
    write(tmp_path / "grid" / "s1" / "a.mpg", "is not read here")
    (tmp_path / "grid" / "align").symlink_to(tmp_path / "texts", target_is_directory=True)
    found = read_layout("grid", tmp_path / "grid", tmp_path / "out", 24.0).transcripts
    assert found is not None
    assert found["s1/a"].text == "bin blue at"


def test_lists_of_lrs2_in_it_or_beside_it_whichever_folder_is_named(tmp_path: Path) -> None:
    root = tmp_path / "lrs2" / "mvlrs_v1"
    for id in ("main/555/00001", "main/666/00001", "pretrain/777/00001"):
        write(root / f"{id}.mp4", "is not read here")
    write(tmp_path / "lrs2" / "train.txt", "555/00001\n")
    write(root / "test.txt", "666/00001\n")
    expected = {"train": ["main/555/00001"], "test": ["main/666/00001"], "pretrain": ["pretrain/777/00001"]}
    for folder in (root, root.parent):
        contents = read_layout("lrs2", folder, tmp_path / "out", 24.0)
        assert contents.splits == expected
        assert "lists of LRS2 that are not beside its folders: 1 (val.txt)" in contents.notes
        with pytest.raises(CorpusError, match=r"mvlrs_v1 has a folder main, .* this looks like --layout lrs2"):
            read_layout("lrs3", folder, tmp_path / "out", 24.0)
