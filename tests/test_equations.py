"""Every equation of METHOD §2–§5: the objectives on small batches against `loop_reference`."""

import copy
import math
import random
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import loop_reference as loop
from loop_reference import Labels, Parts, Settings
from seehear.config import SIZES, AudioFrontendConfig, VideoFrontendConfig
from seehear.data.batch import Batch, Example, collate
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.objectives.base import Losses, StepBatch
from seehear.objectives.supervised import Supervised
from seehear.objectives.usr2 import USR2
from seehear.recipe import ObjectiveConfig
from speaker import Speaker

VOCAB = 7
EOS = VOCAB - 1
STEPS = 40
QUIET = SIZES["tiny"].model_copy(
    update={
        "dim": 24,
        "ffn_dim": 24,
        "num_encoder_layers": 1,
        "decoder_dim": 20,
        "decoder_ffn_dim": 24,
        "vocab_size": VOCAB,
        "video": VideoFrontendConfig(stem_channels=8, stem_stride=4, channels=(8, 8), blocks=(1, 1)),
        "audio": AudioFrontendConfig(stem_channels=8, stem_stride=16, channels=(8, 8), blocks=(1, 1)),
        "dropout": 0.0,
        "stochastic_depth": 0.0,
    }
)
NOISY = QUIET.model_copy(update={"dropout": 0.3, "stochastic_depth": 0.3})
TRANSCRIPTS = [[3, 3, 1], [], [4, 2, 5, 1], [2, 2, 2]]
"""The second has nothing to say; the last, with blanks between its tokens, does not fit its four frames."""
MODALITIES = [m.value for m in Modality]
LABELLED, UNLABELLED = [9, 5, 7, 4], [12, 7, 15, 9, 10, 3]
"""Frames of each clip."""

close_to = partial(pytest.approx, rel=1e-4, abs=1e-5)


def clips(lengths: list[int], transcripts: list[list[int]] | None, rng: np.random.Generator) -> Batch:
    """Noise, of which the student misses a fifth."""
    return collate(
        [
            Example(
                id=f"clip{index}",
                video=rng.standard_normal((length, 88, 88)).astype(np.float32),
                audio=(0.1 * rng.standard_normal(length * 640)).astype(np.float32),
                tokens=transcripts[index] if transcripts is not None else None,
                video_keep=rng.random(length) < 0.8,
                audio_keep=rng.random(length * 640) < 0.8,
            )
            for index, length in enumerate(lengths)
        ]
    )


BATCH = StepBatch(
    clips(LABELLED, TRANSCRIPTS, np.random.default_rng(0)), clips(UNLABELLED, None, np.random.default_rng(1))
)


def strip(batch: Batch, streams: str) -> Batch:
    """The same clips with sound "a" or a picture "v" alone, or with both."""
    if "v" not in streams:
        batch = replace(batch, video=None, video_keep=None)
    if "a" not in streams:
        batch = replace(batch, audio=None, audio_keep=None)
    return batch


def stripped(labelled: str, unlabelled: str) -> StepBatch:
    """`BATCH`, of which the labelled and the unlabelled clips have such streams."""
    assert BATCH.unlabelled is not None
    return StepBatch(strip(BATCH.labelled, labelled), strip(BATCH.unlabelled, unlabelled))


def make(seed: int, streams: str = "av", **settings: object) -> USR2:
    """A student, a teacher that says much and is not always sure, and heads for pseudo-labels that differ from both."""
    torch.manual_seed(seed)
    config = ObjectiveConfig.model_validate(settings)
    method = USR2(USR(NOISY), config, STEPS, seed=0)  # the teacher's dropout is to be ignored
    method.student = USR(QUIET)
    for heads in (method.ctc_heads, method.output_heads):
        for parameter in heads.parameters() if heads is not None else ():
            nn.init.normal_(parameter, std=0.3)
    teacher, batch, richest = method.teacher.model, BATCH.unlabelled, loop.richest(streams)
    assert batch is not None
    features = teacher.encode(batch.video, batch.audio, batch.mask)[Modality(richest)]
    states = teacher.decode(torch.randint(VOCAB, (len(features), 6)), features, batch.mask)
    spread(teacher.ctc_heads[richest], features[batch.mask], blank=1.0)
    spread(teacher.output_heads[richest], states, blank=0.0)
    return method.train()


@torch.no_grad()
def spread(head: nn.Module, inputs: Tensor, blank: float) -> None:
    """Logits of mean 0 and deviation 2 for each token, so that there are labels of every kind; blank has a bonus."""
    assert isinstance(head, nn.Linear)
    head.weight.mul_(2.0 / head(inputs).flatten(0, -2).std(0)[:, None])
    head.bias.zero_()
    head.bias.sub_(head(inputs).flatten(0, -2).mean(0))
    head.bias[loop.BLANK] += blank


def twin(model: USR, config: ObjectiveConfig) -> USR:
    """A copy without dropout that normalises as the teacher is asked to."""
    copied = copy.deepcopy(model).eval()
    for module in copied.modules():
        if isinstance(module, _BatchNorm) and config.teacher_batchnorm == "batch":
            module.running_mean = module.running_var = None  # without them there is only the batch
    return copied


def plain(config: ObjectiveConfig) -> Settings:
    return Settings.among(config.model_dump())


def labelled_parts(method: USR2 | Supervised, batch: StepBatch = BATCH) -> dict[str, Parts]:
    students = Speaker(method.student, batch.labelled, masked=True).students([[EOS, *words] for words in TRANSCRIPTS])
    return {m: loop.labelled_parts(students[m], TRANSCRIPTS, EOS, plain(method.config)) for m in students}


@torch.no_grad()
def teacher_labels(method: USR2, autoregressive: bool, batch: StepBatch = BATCH) -> list[Labels]:
    assert batch.unlabelled is not None
    speaker = Speaker(twin(method.teacher.model, method.config), batch.unlabelled, masked=False)
    modality = loop.richest(speaker.streams)
    longest = loop.longest_label(plain(method.config), max(UNLABELLED))
    penalty = method.config.blank_penalty
    return [
        loop.label(
            [loop.without_blank(row, penalty) for row in speaker.ctc(i, modality)],
            partial(speaker.decoder, i, modality),
            EOS,
            autoregressive,
            longest,
        )
        for i in range(len(UNLABELLED))
    ]


def unlabelled_parts(
    method: USR2, labels: list[Labels], autoregressive: bool, batch: StepBatch = BATCH
) -> dict[str, Parts]:
    assert batch.unlabelled is not None
    heads = {"ctc_heads": method.ctc_heads, "output_heads": method.output_heads}
    students = Speaker(method.student, batch.unlabelled, masked=True, **heads).students([x.prefix for x in labels])
    settings = plain(method.config)
    return {m: loop.unlabelled_parts(students[m], labels, m, autoregressive, EOS, settings) for m in students}


def named(parts: Mapping[str, Parts], stream: str) -> dict[str, float]:
    both = {f"{m}/ctc/{stream}": part.ctc for m, part in parts.items()}
    return both | {f"{m}/attention/{stream}": part.attention for m, part in parts.items()}


@torch.no_grad()
def expected(
    method: USR2, labels: list[Labels], step: int, autoregressive: bool, batch: StepBatch = BATCH
) -> dict[str, float]:
    """All that a step with labelled and unlabelled clips gives, by the reference."""
    settings = plain(method.config)
    assert batch.unlabelled is not None
    labelled, unlabelled = labelled_parts(method, batch), unlabelled_parts(method, labels, autoregressive, batch)
    numbers = {"total": loop.total(labelled, unlabelled, settings, step)}
    numbers |= named(labelled, "labelled") | named(unlabelled, "unlabelled")
    return numbers | loop.watched(labels, autoregressive, settings, loop.richest(batch.unlabelled.streams.value))


def measured(losses: Losses) -> dict[str, float]:
    return {"total": losses.total.item(), **{name: value.item() for name, value in losses.parts.items()}}


def check(method: USR2, labels: list[Labels], step: int, autoregressive: bool, batch: StepBatch = BATCH) -> None:
    """A step of the objective gives what the reference says."""
    assert measured(method(batch, step)) == close_to(expected(method, labels, step, autoregressive, batch))


def between(confidences: list[float], rng: random.Random) -> float:
    """A threshold that some of the confidences pass and others do not, well away from all."""
    gaps = [(high - low, (low + high) / 2) for low, high in pairwise(sorted(confidences))]
    widest, middle_of_widest = max(gaps)
    assert widest > 1e-5
    return rng.choice([middle for width, middle in gaps if width > 1e-3] or [middle_of_widest])


def drawn_settings(rng: random.Random) -> dict[str, object]:
    """Any settings at all, thresholds apart."""

    def weight() -> float:
        return rng.choice([0.0, 1.0, rng.random(), rng.random()])

    return {
        "ctc_weight": weight(),
        "label_smoothing": rng.choice([0.0, 0.1, 0.4]),
        "modality_weights": {m: rng.random() for m in MODALITIES},
        "gamma": {m: rng.random() for m in MODALITIES},
        "supervised_steps": rng.choice([0, 3]),
        "gamma_rise_steps": rng.choice([0, 4]),
        "ctc_targets": rng.choice(["collapsed", "collapsed", "frames"]),
        "attention_target_weight": weight(),
        "ctc_driven_ctc_attention_weight": weight(),
        "ctc_attention_weight": weight(),
        "attention_filter": rng.choice(["token", "sequence"]),
        "pseudo_label_heads": rng.choice(["separate", "shared"]),
        "teacher_batchnorm": rng.choice(["batch", "ema"]),
        "max_label_ratio": rng.choice([0.1, 0.2, 0.4, 0.6]),
        "blank_penalty": rng.choice([0.0, 0.0, 0.5, 2.0]),
    }


def assert_divided(labels: list[Labels], config: ObjectiveConfig) -> None:
    """No threshold is idle: some labels pass it and others do not."""
    for m in MODALITIES:
        trust = [loop.trusted(label, plain(config), m) for label in labels]
        collapsed = config.ctc_targets == "collapsed"
        divided = [[t.ctc for t in trust] if collapsed else [kept for t in trust for kept in t.frames]]
        divided.append([kept for t in trust for kept in t.tokens])
        if config.decoder_ctc_threshold is not None:
            divided.append([t.decoder_ctc for t in trust])
        if config.ctc_attention_threshold is not None:
            divided.append([t.ctc_attention for t in trust])
        assert all(0 < sum(kept) < len(kept) for kept in divided)


def draw_thresholds(method: USR2, labels: list[Labels], rng: random.Random) -> None:
    """Thresholds for each target and modality that keep some of what the teacher says and leave the rest."""
    config = method.config
    said = [label for label in labels if label.ctc]
    ctc = [label.ctc_confidence for label in said]
    frames = [confidence for label in said for confidence in label.frame_confidence]
    sequences = [label.attention_confidence for label in said]
    tokens = [confidence for label in said for confidence in label.token_confidence]

    def table(confidences: list[float]) -> dict[str, float]:
        return {m: between(confidences, rng) for m in MODALITIES}

    thresholds = {
        "ctc_threshold": table(ctc if config.ctc_targets == "collapsed" else frames),
        "attention_threshold": table(tokens if config.attention_filter == "token" else sequences),
        "decoder_ctc_threshold": rng.choice([None, table(ctc)]),
        "ctc_attention_threshold": rng.choice([None, table(sequences)]),
    }
    method.config = ObjectiveConfig.model_validate(config.model_dump() | thresholds)
    assert_divided(said, method.config)


BOTH_MODES = pytest.mark.parametrize("autoregressive", [False, True], ids=["ctc-driven", "autoregressive"])


@BOTH_MODES
@pytest.mark.parametrize("seed", range(20))
def test_a_step_with_any_settings_costs_what_the_method_says(seed: int, autoregressive: bool) -> None:
    rng = random.Random(seed)
    settings = drawn_settings(rng) | {"ar_probability": float(autoregressive)}
    method = make(seed, **settings)
    labels = teacher_labels(method, autoregressive)
    draw_thresholds(method, labels, rng)
    check(method, labels, method.config.supervised_steps + rng.randrange(6), autoregressive)


@BOTH_MODES
@pytest.mark.parametrize(
    ("labelled", "unlabelled"), [("a", "a"), ("v", "v"), ("a", "av"), ("av", "a"), ("av", "v"), ("v", "a")]
)
def test_a_step_costs_what_its_clips_streams_allow(labelled: str, unlabelled: str, autoregressive: bool) -> None:
    """The teacher labels a clip from all that it has; a modality that one part of the step lacks keeps its weight."""
    seed = ord(labelled[-1]) + ord(unlabelled[-1])
    rng, batch = random.Random(seed), stripped(labelled, unlabelled)
    method = make(seed, unlabelled, **drawn_settings(rng), ar_probability=float(autoregressive))
    labels = teacher_labels(method, autoregressive, batch)
    draw_thresholds(method, labels, rng)
    step = method.config.supervised_steps + rng.randrange(6)
    check(method, labels, step, autoregressive, batch)
    names = {f"{m}/ctc/labelled" for m in loop.readable(labelled)}
    names |= {f"{m}/ctc/unlabelled" for m in loop.readable(unlabelled)}
    assert {name for name in method(batch, step).parts if "/ctc/" in name} == names


@pytest.mark.parametrize("kind", ["usr", "usr2"])
def test_the_settings_are_the_papers_unless_a_recipe_says_otherwise(kind: Literal["usr", "usr2"]) -> None:
    assert plain(ObjectiveConfig(kind=kind)) == {"usr": loop.USR, "usr2": loop.USR2}[kind]


@pytest.mark.parametrize("ctc_targets", ["frames", "collapsed"])
def test_usr_teaches_each_head_its_own_branch_alone(ctc_targets: str) -> None:
    method = make(30, kind="usr", ctc_targets=ctc_targets)
    labels = teacher_labels(method, autoregressive=True)
    draw_thresholds(method, labels, random.Random(30))
    check(method, labels, 5, autoregressive=True)


@BOTH_MODES
@pytest.mark.parametrize(
    "settings",
    [{}, {"ctc_targets": "frames"}, {"ctc_driven_ctc_attention_weight": 0.5}],
    ids=["usual", "frames", "table 4"],
)
@pytest.mark.parametrize("silent", [1, len(UNLABELLED)])
def test_a_clip_of_which_ctc_says_nothing_costs_nothing(
    settings: dict[str, object], autoregressive: bool, silent: int
) -> None:
    sure = {"ctc_threshold": 0.0, "attention_threshold": 0.0, "ar_probability": float(autoregressive)}
    method = make(34, **settings, **sure)
    hush(method, silent)
    labels = teacher_labels(method, autoregressive)
    assert sum(not label.ctc for label in labels) == silent
    check(method, labels, 5, autoregressive)
    method(BATCH, 5).total.backward()
    assert all(p.grad.isfinite().all() for p in method.parameters() if p.grad is not None)


@torch.no_grad()
def hush(method: USR2, silent: int) -> None:
    """Make the teacher's blank so likely that its CTC says nothing of so many clips."""
    assert BATCH.unlabelled is not None
    speaker = Speaker(twin(method.teacher.model, method.config), BATCH.unlabelled, masked=False)
    leads = [max(max(row[1:]) - row[0] for row in speaker.ctc(clip, "av")) for clip in range(len(UNLABELLED))]
    ends = [*sorted(leads), max(leads) + 2.0]
    bias = method.teacher.model.ctc_heads["av"].bias
    assert isinstance(bias, Tensor)
    bias[loop.BLANK] += (ends[silent - 1] + ends[silent]) / 2


def test_the_supervised_start_and_supervised_training_cost_the_labelled_clips_alone() -> None:
    method = make(31, supervised_steps=3, label_smoothing=0.2, modality_weights={"v": 0.2, "a": 0.5, "av": 0.9})
    alone = StepBatch(BATCH.labelled)
    with torch.no_grad():
        labelled = labelled_parts(method)
    numbers = {"total": loop.supervised_total(labelled, plain(method.config)), **named(labelled, "labelled")}
    assert measured(method(alone, step=2)) == close_to(numbers)
    assert measured(Supervised(method.student, method.config)(alone, step=2)) == close_to(numbers)
    assert "v/ctc/unlabelled" in measured(method(BATCH, step=3))


def test_an_infinite_ctc_loss_is_zeroed() -> None:
    """That of the last transcript: it needs five frames."""
    rows = [[0.0] * VOCAB] * LABELLED[3]
    assert loop.ctc_loss(rows, TRANSCRIPTS[3]) == 0.0
    assert loop.ctc_loss([*rows, rows[0]], TRANSCRIPTS[3]) == pytest.approx(5 * math.log(VOCAB))


@pytest.mark.parametrize("step", [0, 7, STEPS // 2, STEPS - 1])
def test_the_teacher_moves_towards_the_student(step: int) -> None:
    """Parameters as METHOD says; running statistics likewise, for when the teacher is evaluated."""
    method = make(32, teacher_momentum=0.7)
    method(BATCH, 0)  # the student's statistics move, the teacher's do not
    before, counted = averaged(method.teacher.model), method.student.state_dict()
    tau = loop.momentum(plain(method.config), step, STEPS)
    method.after_step(step)
    assert 0.7 <= tau < 1.0
    student, after = averaged(method.student), averaged(method.teacher.model)
    assert before.keys() == student.keys() == after.keys()
    for name, values in after.items():
        assert values == pytest.approx(loop.moving_average(before[name], student[name], tau), rel=1e-5, abs=1e-6), name
    for name, tensor in method.teacher.model.state_dict().items():
        assert tensor.is_floating_point() or torch.equal(tensor, counted[name]), name


def averaged(model: USR) -> dict[str, list[float]]:
    """All that is no count."""
    return {name: x.flatten().tolist() for name, x in model.state_dict().items() if x.is_floating_point()}


def test_a_step_is_of_the_mode_that_its_schedule_draws() -> None:
    method = make(33, ar_schedule="linear")
    modes = [measured(method(BATCH, step))["teacher/autoregressive"] for step in (0, STEPS)]
    assert modes == [0.0, 1.0]
