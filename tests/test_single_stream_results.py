"""Clips with sound alone or a picture alone: their evaluation, and real recordings through the command line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from conftest import STREAMS, only, with_streams
from seehear.checkpoint import load_model
from seehear.cli.main import main
from seehear.data.batch import evaluation_batches
from seehear.data.clipfile import MouthClip, write_clip
from seehear.data.corpus import Corpus, Utterance
from seehear.data.faces import MediaPipeDetector
from seehear.data.media import read_audio
from seehear.data.mouth import crop_video
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.errors import CorpusError
from seehear.evaluate import Condition, Noise, evaluate
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.tokenizer import Tokenizer
from seehear.training.monitor import read_metrics
from training_runs import recipe

A, V, AV = Modality.AUDIO, Modality.VIDEO, Modality.AUDIOVISUAL
CTC = DecodingOptions(method=DecodingMethod.CTC)
Command = Callable[..., tuple[int | str | None, str, str]]
"""A command of `seehear` in this process; its status, what it prints, and its errors."""


@pytest.fixture
def seehear(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*arguments: object) -> tuple[int | str | None, str, str]:
        monkeypatch.setattr(sys, "argv", ["seehear", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def talker(model_folder: Path) -> USR:
    """Random weights, but hardly ever a blank."""
    model, _ = load_model(model_folder)
    for head in model.ctc_heads.values():
        head.bias.data[0] = -5.0  # type: ignore[index, operator, union-attr]
    return model


# Evaluation


def test_each_modality_is_measured_on_the_clips_that_have_it(
    talker: USR,
    tokenizer: Tokenizer,
    corpora: dict[str, Corpus],
) -> None:
    """And on these it gives what it gives where all clips have both."""
    done: list[int] = []
    mixed, whole = (
        evaluate(talker, tokenizer, corpus, corpus.split("test"), tuple(Modality), CTC, on_batch=done.append)
        for corpus in (corpora["mixed"], corpora["whole"])
    )
    assert sum(done) == 18
    for modality, lacking in ((A, 3), (V, 3), (AV, 6)):
        result = mixed[modality]
        assert (len(result.records), result.lacking) == (9 - lacking, lacking)
        ids = {record.id for record in result.records}
        assert ids == {str(i) for i, streams in enumerate(STREAMS) if modality in streams.readable}
        assert list(result.records) == [record for record in whole[modality].records if record.id in ids]
        summary = mixed.summary()["results"][modality.value]
        assert (summary["utterances"], summary["utterances_without_stream"]) == (9 - lacking, lacking)
    assert all(result.lacking == 0 for result in whole.results)


def test_a_condition_leaves_clips_without_its_stream_as_they_are(corpora: dict[str, Corpus]) -> None:
    noise = Noise("hiss", np.random.default_rng(0).normal(0, 0.1, 5000).astype(np.float32), 0.0)
    utterances = corpora["mixed"].split("test")
    for batch in evaluation_batches(corpora["mixed"], utterances, 1000):
        changed = Condition(noise, blank_video=True).apply(batch)
        assert changed.streams is batch.streams
        if batch.video is not None:
            assert changed.video is not None
            assert not changed.video.any()
        if batch.audio is not None:
            assert changed.audio is not None
            assert not torch.equal(changed.audio, batch.audio)


def test_a_modality_that_no_clip_has_is_empty_and_none_at_all_is_an_error(
    talker: USR,
    tokenizer: Tokenizer,
    corpora: dict[str, Corpus],
) -> None:
    corpus = corpora["mixed"]
    silent = [utterance for utterance in corpus.split("test") if utterance.streams is V]
    report = evaluate(talker, tokenizer, corpus, silent, (A, V), CTC)
    assert (report[A].records, report[A].lacking, report[A].wer, report[A].wer_interval) == ((), 3, None, None)
    assert (len(report[V].records), report[V].lacking) == (3, 0)
    message = r"none of the 3 utterances can be evaluated in a, av \(sound alone: 0; picture alone: 3\)"
    with pytest.raises(CorpusError, match=message):
        evaluate(talker, tokenizer, corpus, silent, (A, AV), CTC)


def rows(table: str) -> dict[str, list[str]]:
    """The cells of the lines of word errors, by modality."""
    lines = [[cell.strip() for cell in line.split("│")] for line in table.splitlines() if "│ WER │" in line]
    return {cells[1]: cells[3:-1] for cells in lines}


def test_the_command_counts_clips_by_modality(
    model_folder: Path, mixed_corpus: Path, tmp_path: Path, seehear: Command
) -> None:
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    common = ("--model", model_folder, "--split", "valid", "--decode", "ctc")
    status, said, _ = seehear("evaluate", mixed_corpus, *common, "--output", one)
    assert status == 0
    assert {modality: cells[-1] for modality, cells in rows(said).items()} == {
        "A": "4 of 6",
        "V": "4 of 6",
        "AV": "2 of 6",
    }
    summary = json.loads(one.with_suffix(".summary.json").read_text())
    assert summary["results"]["av"]["utterances"] == 2
    sound = only(mixed_corpus, A, tmp_path / "sound")
    _, said, _ = seehear("evaluate", sound, *common, "--output", other)
    assert {modality: cells[-1] for modality, cells in rows(said).items()} == {"A": "2", "V": "0 of 2", "AV": "0 of 2"}
    assert set(rows(said)["V"][:-1]) == {"–"}
    status, said, _ = seehear("evaluate", sound, *common, "--output", one, "--compare", other)
    assert status == 0
    compared = said[said.index("this model minus") :].splitlines()
    cells = [line.strip("│").replace("│", " ").split() for line in compared if "│" in line]
    assert cells == [["A", "+0.0", "+0.0", "to", "+0.0", "1.000"]]
    status, _, errors = seehear("evaluate", sound, *common, "--modality", "v")
    assert status == 2
    assert errors == "error: none of the 2 utterances can be evaluated in v (sound alone: 2; picture alone: 0)\n"


# Recordings


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real speech: two clips of GRID, two silent ones, four voices without a picture."""
    root, utterances = tmp_path_factory.mktemp("corpora") / "real", []
    detector = MediaPipeDetector(shared / "models" / "face_landmarker.task")

    def add(id: str, clip: MouthClip, text: str, speaker: str) -> None:
        write_clip(root / "clips" / f"{id}.mp4", clip)
        utterances.append(Utterance(id, f"clips/{id}.mp4", clip.frames, text, speaker, streams=clip.streams))

    grid, voices = shared / "data" / "grid-s1", shared / "data" / "lombard-voices"
    texts = dict(line.split("\t")[:2] for line in (grid / "transcripts.tsv").read_text().splitlines())
    for number, id in enumerate((grid / "test.txt").read_text().split()[:4]):
        path = grid / "clips" / f"{id}.mp4"
        mouth = crop_video(path, detector).frames
        add(
            id,
            with_streams(MouthClip(mouth, read_audio(path, num_frames=len(mouth))), AV if number < 2 else V),
            texts[id],
            "s1",
        )
    for line in (voices / "transcripts.tsv").read_text().splitlines()[1:5]:
        id, text, speaker = line.split("\t")
        audio = read_audio(voices / f"{id}.flac")
        add(id, MouthClip(None, audio[: len(audio) // 640 * 640]), text, speaker)
    ids = [utterance.id for utterance in utterances]
    Corpus.write(root, utterances, {"test": ids})
    return root


@pytest.mark.parametrize("kind", ["supervised", "usr2"])
def test_real_clips_of_all_kinds_train_a_model(real: Path, tmp_path: Path, seehear: Command, kind: str) -> None:
    status, said, _ = seehear("corpus", "validate", real)
    assert status == 0
    assert "8 clips, 0.01 hours; sound alone: 4; picture alone: 2; faults: 0, warnings: 0" in said
    settings = recipe(real, kind, steps=4, precision="float32", watch_labels=4)
    data = {"labelled": ("test",), "unlabelled": ("test",), "valid": "test"}
    data |= {"labelled_frames": 160, "unlabelled_frames": 160}
    file = tmp_path / "recipe.toml"
    file.write_text(settings.model_copy(update={"data": settings.data.model_copy(update=data)}).to_toml())
    status, said, _ = seehear("train", file, "--out", tmp_path / "run")
    assert status == 0
    assert "(sound alone: " in said
    steps = [record for record in read_metrics(tmp_path / "run" / "metrics.jsonl") if "loss" in record]
    assert {name for step in steps for name in step if "/ctc/labelled" in name} == {
        f"{m.value}/ctc/labelled" for m in Modality
    }
    status, said, _ = seehear("evaluate", real, "--model", tmp_path / "run" / "model", "--decode", "ctc")
    assert status == 0
    assert {modality: cells[-1] for modality, cells in rows(said).items()} == {
        "A": "6 of 8",
        "V": "4 of 8",
        "AV": "2 of 8",
    }


def test_real_clips_are_recognised_from_what_they_have(real: Path, tmp_path: Path, seehear: Command) -> None:
    model = Path(__file__).parent / "models" / "grid-small"
    decoding = ("--model", model, "--decode", "attention", "--max_length_ratio", "0.4")
    status, said, _ = seehear("evaluate", real, *decoding, "--output", tmp_path / "r.jsonl")
    assert status == 0
    table = rows(said)
    assert table["V"][-1] == "4 of 8"
    assert float(table["V"][0]) < 20
    silent, sound = (real / "clips" / f"{id}.mp4" for id in silent_and_sound(real))
    records = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    evaluated = next(record for record in records if (record["id"], record["modality"]) == (silent.stem, "v"))
    status, said, errors = seehear("transcribe", silent, *decoding)
    assert (status, said.split()) == (0, evaluated["hypothesis"].split())
    assert "V: the file has no sound" in errors
    status, _, errors = seehear("transcribe", sound, *decoding)
    assert status == 0
    assert "A: the file has no video" in errors
    for file, modality, missing in ((silent, "V", "a"), (sound, "A", "v")):
        status, said, _ = seehear("extract", file, "--model", model, "-o", tmp_path)
        frames = Corpus.load(real).utterances[file.stem].frames
        assert (status, said) == (0, f"{file}: {modality}, {frames} × 192\n")
        assert np.load(tmp_path / f"{file.stem}.npy").shape == (frames, 192)
        status, _, errors = seehear("extract", file, "--model", model, "-o", tmp_path, "--modality", missing)
        assert status == 1
        assert f"error: {file} has no " in errors


def silent_and_sound(root: Path) -> list[str]:
    """The ids of the first clip with a picture alone and of the first with sound alone."""
    utterances = Corpus.load(root).utterances.values()
    return [next(clip.id for clip in utterances if clip.streams is streams) for streams in (V, A)]
