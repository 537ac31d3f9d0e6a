"""Clips with sound alone or a picture alone: training, its plan, evaluation and transcription."""

import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from conftest import random_clip, with_streams
from seehear.checkpoint import load_model
from seehear.cli.main import main
from seehear.data.batch import TrainingClips, collate, evaluation_batches
from seehear.data.clipfile import MouthClip, write_clip
from seehear.data.corpus import Corpus, Utterance
from seehear.data.faces import MediaPipeDetector
from seehear.data.media import read_audio
from seehear.data.mouth import crop_video
from seehear.data.sampler import FrameBatchSampler
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.errors import CorpusError
from seehear.evaluate import Condition, Noise, evaluate
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.objectives.base import StepBatch
from seehear.objectives.supervised import Supervised
from seehear.objectives.teacher import Teacher
from seehear.preparation.contact_sheet import write_contact_sheet
from seehear.recipe import AugmentConfig, ObjectiveConfig, Recipe
from seehear.tokenizer import Tokenizer
from seehear.training.average import average_checkpoints
from seehear.training.material import learn_tokenizer, load_material, open_streams
from seehear.training.monitor import read_metrics
from seehear.training.parallel import Spread
from seehear.training.plan import activations, operations
from seehear.training.run import plan_recipe, train_recipe
from seehear.training.trainer import Streams
from seehear.training.watch import LabelWatch
from seehear.training.world import World
from training_runs import recipe, weights

A, V, AV = Modality.AUDIO, Modality.VIDEO, Modality.AUDIOVISUAL
HEAVY = AugmentConfig(
    noise_probability=0.7,
    speed=0.1,
    gain_db=6.0,
    contrast=0.2,
    silence_probability=0.2,
    join_probability=0.5,
    join_pause=0.3,
)
STREAMS = (A, V, AV, AV, A, V, AV, A, V)
"""Of the clips of `corpora`."""
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


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    """The same nine clips twice: with both streams, and with those of `STREAMS`."""
    made = {}
    for name, kinds in (("whole", [AV] * len(STREAMS)), ("mixed", STREAMS)):
        root, utterances = tmp_path_factory.mktemp("corpora") / name, []
        for index, streams in enumerate(kinds):
            frames = 12 + 3 * (index % 4)
            write_clip(root / f"{index}.mp4", with_streams(random_clip(frames, index), streams))
            utterances.append(
                Utterance(str(index), f"{index}.mp4", frames, f"red {'blue ' * (index % 3)}", "s", streams=streams)
            )
        made[name] = Corpus.write(root, utterances, {"test": [each.id for each in utterances]})
    return made


def training_clips(corpus: Corpus, ids: Sequence[str], tokenizer: Tokenizer) -> TrainingClips:
    return TrainingClips(corpus, [corpus.utterances[id] for id in ids], HEAVY, tokenizer, max_frames=70)


# Batches


@pytest.mark.parametrize("streams", list(Modality))
def test_a_stream_is_augmented_alike_whether_or_not_the_clip_has_the_other(
    corpora: dict[str, Corpus], tokenizer: Tokenizer, streams: Modality
) -> None:
    """Crop, speed, masks, passages, stillness and, in a batch, babble."""
    ids = [str(index) for index, kind in enumerate(STREAMS) if kind is streams]
    whole, alone = (training_clips(corpora[name], ids, tokenizer) for name in ("whole", "mixed"))
    for seed in range(10):
        indices = [(position, 10 * seed + position) for position in range(3)]
        given, expected = (collate([clips[index] for index in indices]) for clips in (alone, whole))
        assert (given.streams, given.ids, given.texts) == (streams, expected.ids, expected.texts)
        assert torch.equal(given.mask, expected.mask)
        for name, used in (
            ("video", streams.uses_video),
            ("video_keep", streams.uses_video),
            ("audio", streams.uses_audio),
            ("audio_keep", streams.uses_audio),
            ("noise", streams.uses_audio),
        ):
            mine, theirs = getattr(given, name), getattr(expected, name)
            assert (mine is None) == (not used or theirs is None), name
            assert mine is None or torch.equal(mine, theirs), name


def test_clips_of_other_streams_are_no_batch(corpora: dict[str, Corpus], tokenizer: Tokenizer) -> None:
    clips = training_clips(corpora["mixed"], [str(index) for index in range(9)], tokenizer)
    with pytest.raises(AssertionError, match="the clips of a batch have the same streams"):
        collate([clips[0, 0], clips[2, 0]])


def test_batches_of_a_mixed_corpus_cost_what_they_cost_by_themselves(
    corpora: dict[str, Corpus], tokenizer: Tokenizer
) -> None:
    """Those of clips with both streams, with the seeds that the sampler gives them."""
    both = [str(index) for index, kind in enumerate(STREAMS) if kind is AV]
    mixed, alone = (
        training_clips(corpora["mixed"], [str(index) for index in range(9)], tokenizer),
        training_clips(corpora["whole"], both, tokenizer),
    )
    sampler = FrameBatchSampler([u.frames for u in mixed.utterances], 60, 0, length=mixed.length, streams=STREAMS)
    torch.manual_seed(0)
    method = Supervised(tiny(tokenizer), ObjectiveConfig()).train()
    compared = 0
    for batch in sampler.epoch(0):
        if STREAMS[batch[0][0]] is AV:
            same = [(both.index(str(position)), seed) for position, seed in batch]
            losses = [
                method(StepBatch(collate([clips[index] for index in indices])), 0).total
                for clips, indices in ((mixed, batch), (alone, same))
            ]
            assert torch.equal(*losses)
            compared += 1
    assert compared > 0


def tiny(tokenizer: Tokenizer) -> USR:
    settings = recipe(Path()).model.model_copy(update={"dropout": 0.0, "stochastic_depth": 0.0})
    return USR(settings.resolve(tokenizer.vocab_size))


# Training


def plain(run: Path) -> list[dict[str, float]]:
    """The records of a run without what the machine says."""
    return [
        {name: value for name, value in record.items() if name not in ("frames/s", "memory_gib")}
        for record in read_metrics(run / "metrics.jsonl")
    ]


def test_a_resumed_run_on_a_mixed_corpus_equals_an_uninterrupted_one(
    mixed_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, out = recipe(mixed_corpus, accumulate=2), tmp_path / "run"
    model = train_recipe(settings, out)
    said = f"9 labelled and 9 unlabelled clips (sound alone: 6; picture alone: 6) of {mixed_corpus}; 4 steps"
    assert said in capsys.readouterr().out
    whole, lines = weights(model), plain(out)
    (out / "checkpoints" / "step-4.pt").unlink()
    shutil.rmtree(model)
    train_recipe(settings, out)
    assert plain(out) == lines
    assert all(torch.equal(tensor, whole[name]) for name, tensor in weights(model).items())
    steps = [record for record in lines if "loss" in record]
    labelled = [{m for m in Modality if f"{m.value}/ctc/labelled" in step} for step in steps]
    unlabelled = [{m for m in Modality if f"{m.value}/ctc/unlabelled" in step} for step in steps[1:]]
    for kinds in (labelled, unlabelled):
        assert {frozenset(kind) for kind in kinds} == {frozenset({A}), frozenset({V}), frozenset(Modality)}
    validation = {f"valid/{method}/{m.value}" for method in ("ctc", "attention") for m in Modality}
    assert validation | {"valid/teacher/ctc/a", "valid/teacher/ctc/v"} <= lines[4].keys()
    card = (model / "README.md").read_text()
    assert "9 labelled and 9 unlabelled clips (sound alone: 6; picture alone: 6), 0.00 hours" in card
    assert "| valid, 4 clips; A, greedy ctc | " in card
    assert "| valid, 2 clips; AV, greedy ctc | " in card
    average_checkpoints(out, tmp_path / "mean", last=2)


@pytest.mark.parametrize("streams", [A, V])
@pytest.mark.parametrize("kind", ["supervised", "usr2"])
def test_a_corpus_of_one_stream_trains_and_is_validated_in_its_modality(
    mixed_corpus: Path, tmp_path: Path, streams: Modality, kind: str
) -> None:
    root = only(mixed_corpus, streams, tmp_path / "corpus")
    train_recipe(recipe(root, kind), tmp_path / "run")
    lines = plain(tmp_path / "run")
    named = {name for record in lines for name in record if name.startswith("valid/")}
    students = {f"valid/{method}/{streams.value}" for method in ("ctc", "attention")}
    assert named - {name for name in named if "teacher" in name} == students
    assert all(np.isfinite(record["loss"]) for record in lines if "loss" in record)


def test_the_contact_sheet_shows_the_clips_that_have_a_picture(mixed_corpus: Path, tmp_path: Path) -> None:
    def sheet(streams: tuple[Modality, ...]) -> Path | None:
        chosen = [clip for clip in corpus.utterances.values() if clip.streams in streams]
        made = [SimpleNamespace(source=SimpleNamespace(id=u.id), report=SimpleNamespace(misfit=2.0)) for u in chosen]
        return write_contact_sheet(corpus, made)  # type: ignore[arg-type]

    corpus = Corpus.load(Path(shutil.copytree(mixed_corpus, tmp_path / "corpus")))
    assert sheet((A,)) is None
    sizes = [cv2.imread(str(sheet(kinds))).shape for kinds in ((V, AV), (A, V, AV))]
    assert sizes[0] == sizes[1] == (3 * 110, 6 * 292, 3), "sixteen clips in three rows of six"


def only(corpus: Path, streams: Modality, root: Path) -> Path:
    """The clips of `corpus` that have just these streams."""
    loaded = Corpus.load(corpus)
    clips = [clip for clip in loaded.utterances.values() if clip.streams is streams]
    shutil.copytree(corpus / "clips", root / "clips")
    ids = {clip.id for clip in clips}
    splits = {name: [u.id for u in loaded.split(name) if u.id in ids] for name in loaded.split_names()}
    Corpus.write(root, clips, splits)
    return root


def test_the_plan_counts_what_the_clips_have(mixed_corpus: Path) -> None:
    settings = recipe(mixed_corpus, seed=46)
    text = plan_recipe(settings)
    assert "clips: 9 labelled, 9 unlabelled (sound alone: 6; picture alone: 6)" in text
    assert "(for batches of the clips with most streams)" in text
    lines = {line.split(": ")[0]: line for line in text.splitlines()}
    step = open_mixed(settings).next(with_unlabelled=True)
    assert len({batch.streams for batch in step.parts}) == 2, "the seed shows two kinds"
    for name, batch in zip(("labelled", "unlabelled"), step.parts, strict=True):
        shapes = lines[f"first {name} batch"]
        assert ("video (" in shapes, "audio (" in shapes) == (batch.streams.uses_video, batch.streams.uses_audio)


def open_mixed(settings: Recipe) -> Streams:
    material = load_material(settings)
    tokenizer = learn_tokenizer(settings, material.labelled)
    return open_streams(settings, material, tokenizer, World(torch.device("cpu")))[0]


def test_the_arithmetic_of_a_stream_alone_is_that_of_a_real_pass(mixed_corpus: Path) -> None:
    """Without a video frontend and two of three passes of the encoder; the teacher's pass is one more of the same."""
    config = recipe(mixed_corpus).model.resolve(20)
    model, audio, mask = USR(config).train(), torch.randn(2, 6400), torch.ones(2, 10, dtype=torch.bool)
    with FlopCounterMode(display=False) as counter:
        model.encode(None, audio, mask, [A])
        forward = counter.get_total_flops()
        model.encode(None, audio, mask, [A])[A].sum().backward()
    assert operations(config, 2, 10, A, teacher=False) == counter.get_total_flops() - forward
    assert operations(config, 2, 10, A, teacher=True) == counter.get_total_flops()
    assert activations(config, 2, 10, A) < 0.5 * activations(config, 2, 10)


def test_the_watch_labels_clips_from_what_they_have(mixed_corpus: Path, tokenizer: Tokenizer) -> None:
    corpus = Corpus.load(mixed_corpus)
    torch.manual_seed(0)
    teacher = Teacher(tiny(tokenizer), "ema", 0.2)
    with torch.no_grad():
        for number, head in enumerate(teacher.model.ctc_heads.values()):
            head.bias[10 + number] += 1e3  # type: ignore[index, operator]  # each says but one thing
    watched = LabelWatch(corpus, corpus.split("unlabelled"), tokenizer, 100)(teacher)
    said = {
        tuple(teacher.model.ctc_heads).index(corpus.utterances[w.id].streams.value): w.labels["ctc"] for w in watched
    }
    assert len(watched) == 9
    assert said == {n: tokenizer.normaliser(tokenizer.decode([10 + n])) for n in range(3)}


def test_a_frontend_that_saw_nothing_keeps_its_statistics_where_processes_average_theirs(
    corpora: dict[str, Corpus], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(torch.device("cpu"))
    monkeypatch.setattr(world, "average_", lambda tensors: [tensor.add_(1.0) for tensor in tensors])
    spread = Spread(Supervised(tiny(tokenizer), ObjectiveConfig()).eval(), world, "ddp")
    clips = training_clips(corpora["mixed"], [str(index) for index in range(3)], tokenizer)
    moved = {}
    for index, streams in enumerate(Modality):
        before = {name: buffer.clone() for name, buffer in spread.objective.student.named_buffers()}
        spread(StepBatch(collate([clips[index, 0]])), 0)
        spread.average_statistics()
        now = spread.objective.student.named_buffers()
        moved[streams] = {name.split(".")[0] for name, buffer in now if not torch.equal(buffer, before[name])}
    assert moved == {A: {"audio_frontend"}, V: {"video_frontend"}, AV: {"audio_frontend", "video_frontend"}}


def test_a_run_that_goes_on_with_more_batches_a_step_keeps_steps_of_one_kind(mixed_corpus: Path) -> None:
    streams = open_mixed(recipe(mixed_corpus, accumulate=3))
    streams.positions = {"labelled": 4, "unlabelled": 2}
    for _ in range(5):
        step = [streams.next(with_unlabelled=True) for _ in range(3)]
        assert len({batch.labelled.streams for batch in step}) == 1
        assert len({batch.unlabelled.streams for batch in step if batch.unlabelled}) == 1
    assert streams.positions == {"labelled": 19, "unlabelled": 17}


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
    steps = [record for record in plain(tmp_path / "run") if "loss" in record]
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
