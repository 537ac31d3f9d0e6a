"""The objectives against slow loops; who gets a gradient and who does not."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from seehear.config import SIZES
from seehear.data.batch import Batch, Example, collate
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.objectives.base import StepBatch
from seehear.objectives.collapse import CollapseAlarm
from seehear.objectives.supervised import Supervised
from seehear.objectives.teacher import PseudoLabels, Teacher
from seehear.objectives.usr2 import USR2
from seehear.recipe import ObjectiveConfig

VOCAB = 12
EOS = VOCAB - 1
TINY = SIZES["tiny"].model_copy(update={"vocab_size": VOCAB, "dropout": 0.0, "stochastic_depth": 0.0})


def make_batch(lengths: list[int], labelled: bool, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    examples = [
        Example(
            id=f"clip{index}",
            video=rng.standard_normal((length, 88, 88)).astype(np.float32),
            audio=(0.1 * rng.standard_normal(length * 640)).astype(np.float32),
            tokens=[int(x) for x in rng.integers(1, EOS, size=3)] if labelled else None,
            video_keep=rng.random(length) < 0.8,
            audio_keep=rng.random(length * 640) < 0.8,
        )
        for index, length in enumerate(lengths)
    ]
    return collate(examples)


STEP = StepBatch(make_batch([14, 11], labelled=True), make_batch([15, 9, 12], labelled=False, seed=1))


def scripted(autoregressive: bool) -> PseudoLabels:
    """Labels as a teacher might give them: a clip of two tokens, one in doubt, one of which its CTC says nothing."""
    if autoregressive:
        attention = torch.tensor([[3, 4, EOS], [5, 6, 7], [8, EOS, EOS]])
        lengths = torch.tensor([3, 3, 2])  # the second was cut before its eos
        prefix = torch.tensor([[EOS, 3, 4], [EOS, 5, 6], [EOS, 8, EOS]])
    else:
        attention = torch.tensor([[3, 9, EOS], [5, 6, EOS], [8, EOS, EOS]])
        lengths = torch.tensor([3, 2, 1])
        prefix = torch.tensor([[EOS, 3, 4], [EOS, 5, 0], [EOS, 0, 0]])
    return PseudoLabels(
        autoregressive=autoregressive,
        ctc_tokens=torch.tensor([[3, 4], [5, 0], [0, 0]]),
        ctc_lengths=torch.tensor([2, 1, 0]),
        ctc_confidence=torch.tensor([0.9, 0.5, 1.0]),
        frame_tokens=torch.tensor([[0, 3, 3, 0, 4, 0, 0, 0], [5, 5, 0, 0, 0, 0, 0, 0], [0] * 8]),
        frame_confidence=torch.tensor([[0.9, 0.9, 0.7, 0.95, 0.9, 0.9, 0.9, 0.9], [0.9, 0.3] + [0.9] * 6, [1.0] * 8]),
        attention_tokens=attention,
        attention_lengths=lengths,
        attention_confidence=torch.tensor([[0.9, 0.7, 0.85], [0.95, 0.9, 0.81], [0.99, 0.99, 0.99]]),
        prefix=prefix,
    )


LENGTHS = torch.tensor([8, 7, 6])
FRAMES = torch.arange(8) < LENGTHS[:, None]


def objective(**settings: object) -> USR2:
    torch.manual_seed(0)
    return USR2(USR(TINY), ObjectiveConfig.model_validate(settings), steps=100, seed=0)


def smoothed(logits: Tensor, target: int, smoothing: float) -> float:
    log_probs = logits.log_softmax(-1)
    return -(1 - smoothing) * float(log_probs[target]) - smoothing * float(log_probs.mean())


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0])
def test_ctc_driven_attention_loss_against_a_loop(w: float) -> None:
    method, labels = objective(attention_target_weight=w), scripted(False)
    logits = torch.randn(3, 3, VOCAB)
    expected = 0.0
    for clip in range(2):  # the third has no CTC labels: no loss at all
        length = int(labels.ctc_lengths[clip])
        ctc_targets = [*labels.ctc_tokens[clip, :length].tolist(), EOS]
        for position, ctc_target in enumerate(ctc_targets):
            if labels.attention_confidence[clip, position] >= 0.8:
                expected += w * smoothed(logits[clip, position], int(labels.attention_tokens[clip, position]), 0.1)
            if labels.ctc_confidence[clip] >= 0.8:
                expected += (1 - w) * smoothed(logits[clip, position], ctc_target, 0.1)
    measured = method.attention_part(logits, labels, method.trusted(labels, FRAMES, Modality.VIDEO))
    assert float(measured) == pytest.approx(expected / 3, rel=1e-5)


def test_autoregressive_attention_loss_against_a_loop() -> None:
    method, labels = objective(), scripted(True)
    logits = torch.randn(3, 3, VOCAB)
    expected = 0.0
    for clip in range(2):
        for position in range(int(labels.attention_lengths[clip])):
            if labels.attention_confidence[clip, position] >= 0.8:
                expected += smoothed(logits[clip, position], int(labels.attention_tokens[clip, position]), 0.1)
    assert float(
        method.attention_part(logits, labels, method.trusted(labels, FRAMES, Modality.VIDEO))
    ) == pytest.approx(expected / 3, rel=1e-5)


def one_ctc(logits: Tensor, target: list[int]) -> float:
    return float(
        torch.nn.functional.ctc_loss(
            logits.log_softmax(-1)[:, None], torch.tensor([target]), (len(logits),), (len(target),), reduction="sum"
        )
    )


@pytest.mark.parametrize("v", [0.0, 0.5, 1.0])
def test_autoregressive_ctc_loss_takes_both_labels(v: float) -> None:
    method, labels = objective(ctc_attention_weight=v), scripted(True)
    logits = torch.randn(3, 8, VOCAB)
    # Clip 0: CTC label sure; attention sequence (0.9·0.7·0.85)^⅓ ≈ 0.81: sure, eos removed. Clip 1: CTC label in
    # doubt; attention sequence (0.95·0.9·0.81)^⅓ ≈ 0.88: sure, three tokens, no eos to remove. Clip 2: nothing.
    expected = (1 - v) * one_ctc(logits[0], [3, 4]) + v * one_ctc(logits[0], [3, 4])
    expected += v * one_ctc(logits[1, :7], [5, 6, 7])
    measured = method.ctc_part(logits, LENGTHS, labels, method.trusted(labels, FRAMES, Modality.VIDEO))
    assert float(measured) == pytest.approx(expected / 3, rel=1e-5)


def test_ctc_driven_ctc_loss_takes_ctc_labels_alone() -> None:
    method, labels = objective(), scripted(False)
    logits = torch.randn(3, 8, VOCAB)
    measured = method.ctc_part(logits, LENGTHS, labels, method.trusted(labels, FRAMES, Modality.VIDEO))
    assert float(measured) == pytest.approx(one_ctc(logits[0], [3, 4]) / 3, rel=1e-5)


@pytest.mark.parametrize("autoregressive", [False, True])
def test_usr_teaches_the_ctc_head_frame_by_frame(autoregressive: bool) -> None:
    method, labels = objective(kind="usr"), scripted(autoregressive)
    assert method.config.ar_probability == 1.0
    logits, expected = torch.randn(3, 8, VOCAB), 0.0
    for clip in range(2):  # the third has no CTC labels: no loss at all
        for frame in range(int(LENGTHS[clip])):
            if labels.frame_confidence[clip, frame] >= 0.8:
                expected += smoothed(logits[clip, frame], int(labels.frame_tokens[clip, frame]), 0.0)
    measured = method.ctc_part(logits, LENGTHS, labels, method.trusted(labels, FRAMES, Modality.VIDEO))
    assert float(measured) == pytest.approx(expected / 3, rel=1e-5)


def test_the_ctc_head_may_take_attention_labels_in_ctc_driven_steps() -> None:
    method, labels = objective(ctc_driven_ctc_attention_weight=0.3), scripted(False)
    logits = torch.randn(3, 8, VOCAB)
    expected = 0.7 * one_ctc(logits[0], [3, 4]) + 0.3 * (one_ctc(logits[0], [3, 9]) + one_ctc(logits[1, :7], [5, 6]))
    measured = method.ctc_part(logits, LENGTHS, labels, method.trusted(labels, FRAMES, Modality.VIDEO))
    assert float(measured) == pytest.approx(expected / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"ctc_threshold": 0.4}, {"ctc": [1, 1, 0], "decoder_ctc": [3, 2, 0], "frame": [8, 6, 0]}),
        ({"decoder_ctc_threshold": 0.4}, {"decoder_ctc": [3, 2, 0]}),
        ({"ctc_threshold.v": 0.95}, {"ctc": [0, 0, 0], "decoder_ctc": [0, 0, 0], "frame": [1, 0, 0]}),
        ({"attention_threshold": 0.86}, {"attention_token": [1, 2, 0], "attention_sequence": [0, 1, 0]}),
        ({"ctc_attention_threshold": 0.86}, {"attention_sequence": [0, 1, 0]}),
        ({"attention_filter": "sequence"}, {"attention_token": [3, 2, 0]}),
        ({"ctc_threshold.a": 0.4, "attention_threshold.a": 0.0}, {}),
    ],
)
def test_each_target_has_a_threshold_of_its_own(settings: dict[str, float], changed: dict[str, list[int]]) -> None:
    """How much of each clip is trusted, on lips."""
    usual = {"ctc": [1, 0, 0], "frame": [7, 6, 0], "attention_sequence": [1, 1, 0]}
    usual |= {"decoder_ctc": [3, 0, 0], "attention_token": [2, 2, 0], "position": [3, 2, 0]}
    nested: dict[str, object] = {}
    for key, value in settings.items():
        name, _, modality = key.partition(".")
        nested[name] = {**nested.get(name, {}), modality: value} if modality else value  # type: ignore[dict-item]
    method = objective(**nested)
    trusted = method.trusted(scripted(False), FRAMES, Modality.VIDEO)._asdict()
    assert {name: weights.view(3, -1).sum(1).tolist() for name, weights in trusted.items()} == usual | changed


def test_total_loss_weights_modalities_and_streams() -> None:
    method = objective(ar_probability=0.0, ctc_weight=0.3).eval()
    losses = method(STEP, step=5)
    parts, total = losses.parts, 0.0
    for name, weight, gamma in (("v", 0.3, 0.97), ("a", 0.7, 0.75), ("av", 0.7, 0.75)):
        labelled = 0.3 * parts[f"{name}/ctc/labelled"] + 0.7 * parts[f"{name}/attention/labelled"]
        unlabelled = 0.3 * parts[f"{name}/ctc/unlabelled"] + 0.7 * parts[f"{name}/attention/unlabelled"]
        total += weight * (gamma * float(unlabelled) + (1 - gamma) * float(labelled))
    assert losses.total.item() == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("autoregressive", [False, True])
def test_teacher_labels_are_aligned_and_come_from_the_clean_audiovisual_clip(autoregressive: bool) -> None:
    torch.manual_seed(3)
    teacher = Teacher(USR(TINY), "ema", max_label_ratio=0.4)
    with torch.no_grad():
        for head in (*teacher.model.ctc_heads.values(), *teacher.model.output_heads.values()):
            head.weight.mul_(20.0)  # type: ignore[operator, union-attr]  # labels of some length
    batch = STEP.unlabelled
    assert batch is not None
    labels = teacher.label(batch, autoregressive)
    model, modality = teacher.model, Modality.AUDIOVISUAL
    features = model.encode(batch.video, batch.audio, batch.mask, [modality])[modality]
    for row, frames in enumerate(batch.lengths.tolist()):
        log_probs = model.ctc_logits(features, modality)[row, :frames].log_softmax(-1)
        best = log_probs.argmax(-1).tolist()
        collapsed = [t for i, t in enumerate(best) if t != 0 and (i == 0 or best[i - 1] != t)]
        size = int(labels.ctc_lengths[row])
        assert labels.ctc_tokens[row, :size].tolist() == collapsed
        assert float(labels.ctc_confidence[row]) == pytest.approx(
            math.exp(float(log_probs.max(-1).values.mean())), rel=1e-3
        )
        count = int(labels.attention_lengths[row])
        prefix = [model.sos, *collapsed] if not autoregressive else [model.sos]
        for position in range(count):
            hidden = model.decode(
                torch.tensor([prefix[: position + 1]]),
                features[row : row + 1, :frames],
                batch.mask[row : row + 1, :frames],
            )
            token = int(model.logits(hidden, modality)[0, -1].argmax())
            assert int(labels.attention_tokens[row, position]) == token
            prefix += [token] if autoregressive else []
        assert count == (len(collapsed) + 1 if not autoregressive else count)
    assert int(labels.ctc_lengths.max()) > 0


def test_an_empty_teacher_gives_no_loss() -> None:
    method = objective(ar_probability=0.0)
    labels = scripted(False)
    empty = replace(labels, ctc_lengths=torch.zeros(3, dtype=torch.long))
    frames = torch.zeros(3, 15)
    empty = replace(empty, frame_tokens=frames.long(), frame_confidence=frames + 1)
    losses, _ = method.unlabelled_losses(STEP.unlabelled, empty)  # type: ignore[arg-type]
    assert all(float(loss) == 0.0 for loss in losses.values())


@pytest.mark.parametrize("kind", ["supervised", "ctc-driven", "autoregressive"])
@pytest.mark.parametrize("heads", ["separate", "shared"])
def test_every_parameter_gets_a_gradient_and_the_teacher_none(kind: str, heads: str) -> None:
    settings = {
        "ar_probability": float(kind == "autoregressive"),
        "pseudo_label_heads": heads,
        "ctc_threshold": 0.0,
        "attention_threshold": 0.0,
    }
    method = objective(**settings) if kind != "supervised" else Supervised(USR(TINY), ObjectiveConfig())
    if isinstance(method, USR2):
        with torch.no_grad():
            for head in method.teacher.model.ctc_heads.values():
                head.bias[0] = -10.0  # type: ignore[index, union-attr]  # a teacher that speaks
    method(STEP, step=50).total.backward()
    for name, parameter in method.named_parameters():
        if name.startswith("teacher."):
            assert parameter.grad is None, name
            assert not parameter.requires_grad, name
        else:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
            assert (parameter.grad != 0).any(), name


def test_the_supervised_start_needs_no_unlabelled_clips() -> None:
    method = objective(supervised_steps=3)
    assert not method.needs_unlabelled(2)
    assert method.needs_unlabelled(3)
    start = method(StepBatch(STEP.labelled), step=2)
    torch.manual_seed(0)
    alone = Supervised(USR(TINY), ObjectiveConfig())(StepBatch(STEP.labelled), step=2)
    assert float(start.total) == pytest.approx(float(alone.total), rel=1e-5)


def test_the_teacher_is_a_moving_average_and_keeps_its_running_statistics_out_of_its_own_batches() -> None:
    method = objective(teacher_momentum=0.9)
    before = [parameter.clone() for parameter in method.teacher.parameters()]
    statistics = {name: buffer.clone() for name, buffer in method.teacher.named_buffers()}
    method(STEP, step=0)
    for name, buffer in method.teacher.named_buffers():
        assert torch.equal(buffer, statistics[name]), name
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1.0)
    method.after_step(0)
    for old, new in zip(before, method.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.1)


@pytest.mark.parametrize(
    "tokens", [[[], [1, 2]], [[], []], [[1] * 40, [2]]], ids=["one empty", "all empty", "too long"]
)
def test_odd_transcripts_keep_the_loss_finite(tokens: list[list[int]]) -> None:
    """An empty transcript asks CTC for blanks alone, one of more tokens than frames costs it nothing."""
    labelled = make_batch([14, 11], labelled=True)
    examples = [
        Example(id=str(row), video=labelled.video[row].numpy(), audio=labelled.audio[row].numpy(), tokens=tokens[row])
        for row in range(2)
    ]
    method = Supervised(USR(TINY), ObjectiveConfig())
    losses = method(StepBatch(collate(examples)), step=0)
    losses.total.backward()
    assert torch.isfinite(losses.total)
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)
    assert losses.parts["av/attention/labelled"] > 0


def test_the_collapse_alarm_speaks_once_for_each_time_it_lasts() -> None:
    alarm = CollapseAlarm()
    fine = {"teacher/ctc_length": 5.0, "teacher/ctc_kept": 0.5, "teacher/attention_kept": 0.5}
    silent = {**fine, "teacher/ctc_length": 0.1}
    unsure = {**fine, "teacher/ctc_kept": 0.0, "teacher/attention_kept": 0.0}
    assert [alarm({}) for _ in range(60)] == [[]] * 60  # a supervised run
    said = [message for numbers in 49 * [silent] + [fine] + 60 * [silent] for message in alarm(numbers)]
    assert len(said) == 1
    assert "emits almost no tokens" in said[0]
    assert any("almost no pseudo-label is kept" in m for numbers in 50 * [unsure] for m in alarm(numbers))
