"""Clips with sound alone or a picture alone: their batches, and training and its plan."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from conftest import STREAMS, only
from seehear.data.batch import TrainingClips, collate
from seehear.data.corpus import Corpus
from seehear.data.sampler import FrameBatchSampler
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
        report = SimpleNamespace(misfit=2.0)
        made = [SimpleNamespace(source=SimpleNamespace(id=u.id), streams=u.streams, report=report) for u in chosen]
        return write_contact_sheet(corpus, made)  # type: ignore[arg-type]

    corpus = Corpus.load(Path(shutil.copytree(mixed_corpus, tmp_path / "corpus")))
    assert sheet((A,)) is None
    sizes = [cv2.imread(str(sheet(kinds))).shape for kinds in ((V, AV), (A, V, AV))]
    assert sizes[0] == sizes[1] == (3 * 110, 6 * 292, 3), "sixteen clips in three rows of six"


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
