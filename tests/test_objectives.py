"""How the objectives behave; who gets a gradient and who does not. (What they compute: `test_equations.py`.)"""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seehear.config import SIZES
from seehear.data.batch import Batch, Example, collate
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.objectives.base import StepBatch
from seehear.objectives.collapse import CollapseAlarm
from seehear.objectives.supervised import Supervised
from seehear.objectives.usr2 import USR2
from seehear.recipe import ObjectiveConfig

VOCAB = 12
EOS = VOCAB - 1
A, V = Modality.AUDIO, Modality.VIDEO
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


def objective(**settings: object) -> USR2:
    torch.manual_seed(0)
    return USR2(USR(TINY), ObjectiveConfig.model_validate(settings), steps=100, seed=0)


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


def strip(batch: Batch, streams: Modality) -> Batch:
    """The same clips with sound or a picture alone, or with both."""
    if not streams.uses_video:
        batch = replace(batch, video=None, video_keep=None)
    if not streams.uses_audio:
        batch = replace(batch, audio=None, audio_keep=None)
    return batch


@pytest.mark.parametrize("streams", [A, V])
def test_a_stream_alone_costs_what_it_costs_beside_the_other(streams: Modality) -> None:
    method = Supervised(USR(TINY), ObjectiveConfig()).train()
    both = method(STEP, step=0).parts
    alone = method(StepBatch(strip(STEP.labelled, streams)), step=0)
    assert set(alone.parts) == {f"{streams.value}/ctc/labelled", f"{streams.value}/attention/labelled"}
    for name, loss in alone.parts.items():
        torch.testing.assert_close(loss, both[name], rtol=1e-6, atol=0)
    ctc, attention = (alone.parts[f"{streams.value}/{branch}/labelled"] for branch in ("ctc", "attention"))
    weight = ObjectiveConfig().modality_weights[streams]
    assert alone.total.item() == pytest.approx(weight * (0.1 * ctc.item() + 0.9 * attention.item()), rel=1e-6)


@pytest.mark.parametrize("kind", ["supervised", "usr2"])
@pytest.mark.parametrize("streams", [A, V])
def test_what_a_step_does_not_use_gets_a_gradient_of_zero_and_keeps_its_statistics(
    kind: str, streams: Modality
) -> None:
    method = objective(ctc_threshold=0.0, attention_threshold=0.0) if kind == "usr2" else None
    trained = method or Supervised(USR(TINY), ObjectiveConfig())
    trained.train()
    assert STEP.unlabelled is not None
    before = {name: buffer.clone() for name, buffer in trained.student.named_buffers()}
    unlabelled = strip(STEP.unlabelled, streams) if method else None
    trained(StepBatch(strip(STEP.labelled, streams), unlabelled), step=50).total.backward()
    used, idle = ("audio", "video") if streams is A else ("video", "audio")
    for name, parameter in trained.named_parameters():
        if not name.startswith("teacher."):
            assert parameter.grad is not None, name
            own = f"{idle}_frontend" in name or any(f"s.{m.value}." in name for m in Modality if m is not streams)
            assert bool((parameter.grad == 0).all()) == own, name
    for name, buffer in trained.student.named_buffers():
        assert torch.equal(buffer, before[name]) == (not name.startswith(f"{used}_frontend")), name


def test_the_supervised_start_needs_no_unlabelled_clips() -> None:
    method = objective(supervised_steps=3)
    assert not method.needs_unlabelled(2)
    assert method.needs_unlabelled(3)
    assert torch.isfinite(method(StepBatch(STEP.labelled), step=2).total)


def test_heads_for_pseudo_labels_start_from_the_labelled_ones_as_the_supervised_start_ends() -> None:
    method = objective(supervised_steps=3)
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1.0)
    for step, same in ((1, False), (2, True)):
        method.after_step(step)
        for own, labelled in (
            (method.ctc_heads, method.student.ctc_heads),
            (method.output_heads, method.student.output_heads),
        ):
            assert own is not None
            pairs = zip(own.parameters(), labelled.parameters(), strict=True)
            assert all(torch.equal(mine, theirs) == same for mine, theirs in pairs)


def test_the_teacher_keeps_its_running_statistics_out_of_its_own_batches() -> None:
    method = objective()
    statistics = {name: buffer.clone() for name, buffer in method.teacher.named_buffers()}
    method(STEP, step=0)
    for name, buffer in method.teacher.named_buffers():
        assert torch.equal(buffer, statistics[name]), name


class Casts(TorchDispatchMode):
    """How often what lies at an address was cast."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default:
            self.counts[args[0].data_ptr()] += 1
        return func(*args, **(kwargs or {}))


def test_under_autocast_token_by_token_labelling_casts_each_weight_once() -> None:
    method = objective(ar_probability=1.0, max_label_ratio=1.0)
    for head in method.teacher.model.output_heads.values():
        head.bias.data[EOS] = -1e4  # type: ignore[index, operator, union-attr]  # to the longest label allowed
    linear = [m for m in method.teacher.model.decoder.modules() if isinstance(m, torch.nn.Linear)]
    with torch.autocast("cpu", torch.bfloat16), Casts() as casts:
        labels = method.teacher.label(make_batch([12, 12], labelled=False), autoregressive=True)
    assert labels.attention_lengths.tolist() == [12, 12]
    assert {casts.counts[layer.weight.data_ptr()] for layer in linear} == {1}
    assert not any(parameter.requires_grad for parameter in method.teacher.parameters())


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
    fine["teacher/ctc_confidence"] = 0.9
    silent = {**fine, "teacher/ctc_length": 0.1}
    unsure = {**fine, "teacher/ctc_kept": 0.0, "teacher/attention_kept": 0.0}
    assert [alarm({}) for _ in range(60)] == [[]] * 60  # a supervised run
    said = [message for numbers in 49 * [silent] + [fine] + 60 * [silent] for message in alarm(numbers)]
    assert len(said) == 1
    assert "emits almost no tokens" in said[0]
    assert any("almost no pseudo-label is kept" in m for numbers in 50 * [unsure] for m in alarm(numbers))


@pytest.mark.parametrize(("confidence", "warned"), [(1.0, True), (0.8, False)])
def test_a_sure_teacher_whose_labels_shrink_is_warned_of(confidence: float, warned: bool) -> None:
    alarm = CollapseAlarm()
    labels = {"teacher/ctc_confidence": confidence, "teacher/ctc_kept": 1.0, "teacher/attention_kept": 0.9}
    lengths = [10.0] * 50 + [10.0 - 0.05 * step for step in range(120)] + [4.0] * 100
    said = [message for length in lengths for message in alarm({**labels, "teacher/ctc_length": length})]
    assert [("half as long as they were" in message) for message in said] == ([True] if warned else [])
