"""What a training step costs, by method and by part, and how fast the teacher labels.

    python benchmarks/training_step.py labels [--size base --clips 8 --frames 150 --tokens 30]
    python benchmarks/training_step.py steps [--size small --labelled 4 --unlabelled 4 --frames 75 150 300 600]

`labels` compares three ways to label given features: a plain loop that puts the whole prefix through the decoder for
each token, ours with a key-value cache, and the one pass of CTC-driven teacher forcing. `steps` compares whole steps:
supervised, USR, USR 2.0 (CTC-driven, autoregressive; mixed is their mean), and USR written plainly: the plain loop, and
a student pass for each modality; with `--compile` also compiled blocks. All run in turns, so that what else the machine
does falls on all alike; medians, and ratios of medians. Random weights and clips; what ends a sentence is switched off,
so that labels have the length asked for.
"""

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seehear.config import SIZES
from seehear.data.batch import Batch
from seehear.decoding.ctc import ctc_greedy
from seehear.decoding.greedy import GreedyAttention, attention_greedy
from seehear.modality import INPUT_SIZE, SAMPLES_PER_FRAME, Modality
from seehear.model.usr import USR
from seehear.objectives import supervised, teacher, usr2
from seehear.objectives.base import Objective, StepBatch
from seehear.objectives.losses import with_sos
from seehear.objectives.supervised import Supervised
from seehear.objectives.usr2 import USR2
from seehear.recipe import ObjectiveConfig, OptimiserConfig
from seehear.training.optim import build_optimiser
from seehear.training.run import compile_blocks

AV = Modality.AUDIOVISUAL
COMPILED = "USR 2.0, CTC-driven, compiled"
PARTS = ("teacher encode", "labels", "student forward", "backward", "optimiser")
KINDS: Mapping[str, Mapping[str, Any]] = {
    "supervised": {"kind": "supervised"},
    "USR, plain": {"kind": "usr"},
    "USR": {"kind": "usr"},
    "USR 2.0, CTC-driven": {"ar_probability": 0.0},
    "USR 2.0, autoregressive": {"ar_probability": 1.0},
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    labels, steps = commands.add_parser("labels"), commands.add_parser("steps")
    for command in (labels, steps):
        command.add_argument("--device", default="cpu")
        command.add_argument("--threads", type=int, default=torch.get_num_threads())
        command.add_argument("--bf16", action="store_true")
        command.add_argument("--repeats", type=int, default=5)
        command.add_argument("--tokens", type=int, default=30, help="of a label, on average")
    labels.add_argument("--size", default="base")
    labels.add_argument("--clips", type=int, nargs="+", default=[8])
    labels.add_argument("--frames", type=int, nargs="+", default=[150])
    labels.set_defaults(run=compare_labels)
    steps.add_argument("--size", default="small")
    steps.add_argument("--labelled", type=int, default=4, help="clips")
    steps.add_argument("--unlabelled", type=int, nargs="+", default=[4], help="clips")
    steps.add_argument("--frames", type=int, nargs="+", default=[75])
    steps.add_argument("--compile", action="store_true", help="compare with blocks that torch.compile compiled too")
    steps.add_argument("--peak-tflops", type=float, default=989.0, help="of the GPU, for the utilisation")
    steps.set_defaults(run=compare_steps)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    where = torch.cuda.get_device_name() if options.device == "cuda" else f"CPU, {options.threads} threads"
    print(f"{options.size} on {where}, {'bf16' if options.bf16 else 'float32'}, median of {options.repeats}\n")
    options.run(options)


def wait(device: str) -> None:
    """Let the device finish."""
    if device == "cuda":
        torch.cuda.synchronize()


def in_turns(runs: Mapping[str, Callable[[], object]], repeats: int, device: str) -> dict[str, float]:
    """Median seconds of each, after one run to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            wait(device)
            started = time.perf_counter()
            run()
            wait(device)
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


# Labels


@torch.no_grad()
def plain_greedy(
    model: USR, features: Tensor, mask: Tensor, modality: Modality, max_tokens: int | Tensor
) -> GreedyAttention:
    """Greedy decoding as it is first written: every token puts the whole prefix through the decoder again."""
    limits = torch.as_tensor(max_tokens, device=features.device).expand(len(features))
    tokens = [[model.sos] for _ in range(len(features))]
    scores: list[list[float]] = [[] for _ in range(len(features))]
    running = list(range(len(features)))
    while running:
        prefix = torch.tensor([tokens[clip] for clip in running], device=features.device)
        states = model.decode(prefix, features[running], mask[running])
        best, chosen = model.logits(states, modality)[:, -1].float().log_softmax(-1).max(-1)
        for clip, score, token in zip(running, best.tolist(), chosen.tolist(), strict=True):
            tokens[clip].append(token)
            scores[clip].append(score)
        running = [c for c in running if tokens[c][-1] != model.eos and len(tokens[c]) <= limits[c]]
    longest = max(len(row) for row in scores)
    padded = torch.tensor([row[1:] + [model.eos] * (longest + 1 - len(row)) for row in tokens], device=features.device)
    log_probs = torch.tensor([row + [0.0] * (longest - len(row)) for row in scores], device=features.device)
    return GreedyAttention(padded, torch.tensor([len(row) for row in scores], device=features.device), log_probs)


def never_ends(model: USR) -> USR:
    """Switch off what ends a sentence."""
    for head in model.output_heads.values():
        head.bias.data[model.eos] = -1e4  # type: ignore[index, operator, union-attr]
    return model


def compare_labels(options: argparse.Namespace) -> None:
    """A line for each number of clips and frames."""
    model = never_ends(USR(SIZES[options.size]).eval().to(options.device))
    print("| clips × frames | plain loop, s | cached | CTC-driven | cached is faster by | CTC-driven is faster by |")
    print("| --- | --- | --- | --- | --- | --- |")
    for clips in options.clips:
        for frames in options.frames:
            features = torch.randn(clips, frames, model.config.dim, device=options.device)
            mask = torch.ones(clips, frames, dtype=torch.bool, device=options.device)
            spread = torch.linspace(-options.tokens // 3, options.tokens // 3, clips).round().long()
            limits = (options.tokens + spread).clamp_min(1).to(options.device)
            prefix = torch.randint(1, model.eos, (clips, int(limits.max())), device=options.device)
            given = (model, features, mask)
            runs = {
                "plain": partial(plain_greedy, *given, AV, limits),
                "cached": partial(attention_greedy, *given, AV, limits),
                "driven": partial(one_pass, *given, prefix),
            }
            with torch.autocast(options.device, torch.bfloat16, enabled=options.bf16):
                if not options.bf16:
                    assert torch.equal(runs["plain"]().tokens, runs["cached"]().tokens), "the same labels"
                s = in_turns(runs, options.repeats, options.device)
            ratios = f"{s['plain'] / s['cached']:.1f} | {s['plain'] / s['driven']:.1f}"
            print(
                f"| {clips} × {frames} | {s['plain']:.3f} | {s['cached']:.3f} | {s['driven']:.3f} | {ratios} |",
                flush=True,
            )


@torch.no_grad()
def one_pass(model: USR, features: Tensor, mask: Tensor, prefix: Tensor) -> Tensor:
    """CTC-driven labels: greedy CTC, and one decoder pass (on a prefix of known length in its place)."""
    ctc_greedy(model.ctc_logits(features, AV), mask)
    states = model.decode(with_sos(prefix, model.sos), features, mask)
    return model.logits(states, AV).float().softmax(-1).max(-1).indices


# Steps


def compare_steps(options: argparse.Namespace) -> None:
    """A table for each number of unlabelled clips and frames."""
    for unlabelled in options.unlabelled:
        for frames in options.frames:
            batch = StepBatch(
                random_batch(options.labelled, frames, options), random_batch(unlabelled, frames, options)
            )
            print(f"{options.labelled} + {unlabelled} clips of {frames} frames\n")
            kinds = [*KINDS, *([COMPILED] if options.compile else [])]
            measured = {name: Step(name, batch.to(options.device), options) for name in kinds}
            for turn in range(options.repeats + 1):
                for step in measured.values():
                    step.run(keep=turn > 0)
            print_steps(measured, batch.num_frames, options)


def random_batch(clips: int, frames: int, options: argparse.Namespace) -> Batch:
    """Clips of noise, with transcripts of random tokens."""
    return Batch(
        ids=tuple(map(str, range(clips))),
        video=torch.randn(clips, frames, INPUT_SIZE, INPUT_SIZE),
        audio=0.1 * torch.randn(clips, frames * SAMPLES_PER_FRAME),
        lengths=torch.full((clips,), frames),
        tokens=torch.randint(1, SIZES[options.size].vocab_size - 1, (clips, options.tokens)),
        token_lengths=torch.full((clips,), options.tokens),
    )


class Step:
    """A whole training step of one kind, taken apart by time."""

    def __init__(self, name: str, batch: StepBatch, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.batch = batch
        self.options = options
        self.plain = name.endswith("plain")
        self.objective = self._objective(KINDS[name.removesuffix(", compiled")]).to(options.device).train()
        if name == COMPILED:
            compile_blocks(self.objective)
        self.optimiser = build_optimiser(self.objective, OptimiserConfig())
        self.seconds: dict[str, list[float]] = {part: [] for part in PARTS}
        self.peak_memory = 0
        self._now: dict[str, float] = {}

    def _objective(self, settings: Mapping[str, Any]) -> Objective:
        student = never_ends(USR(SIZES[self.options.size]))
        config = ObjectiveConfig.model_validate({**settings, "ctc_threshold": 0.0, "attention_threshold": 0.0})
        if config.kind == "supervised":
            return Supervised(student, config)
        # noise has no words: labels of the length asked for, in place of ⌊T/5⌋
        longest = max(1, self.batch.labelled.padded_length)
        ratio = min(1.0, (self.options.tokens + 0.5) / longest)
        return USR2(student, config.model_copy(update={"max_label_ratio": ratio}), steps=1, seed=0)

    def run(self, keep: bool) -> None:
        """Make a step; `keep` its times."""
        self._now = dict.fromkeys(PARTS, 0.0)
        if self.options.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        with torch.autocast(self.options.device, torch.bfloat16, enabled=self.options.bf16), self._timed():
            losses = self._measure("student forward", lambda: self.objective(self.batch, 0))
        self._now["student forward"] -= self._now["labels"]
        self._now["labels"] -= self._now["teacher encode"]
        self._measure("backward", losses.total.backward)
        self._measure("optimiser", self._update)
        if self.options.device == "cuda":
            self.peak_memory = torch.cuda.max_memory_allocated()
        for part, seconds in self._now.items() if keep else ():
            self.seconds[part].append(seconds)

    def _update(self) -> None:
        nn.utils.clip_grad_norm_(self.objective.parameters(), OptimiserConfig().clip_norm)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        self.objective.after_step(0)

    def _measure(self, part: str, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        wait(self.options.device)
        started = time.perf_counter()
        result = work(*args, **kwargs)
        wait(self.options.device)
        self._now[part] += time.perf_counter() - started
        return result

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        """Time the teacher; and, for the plain form, put plain functions in the place of ours."""
        with contextlib.ExitStack() as stack:
            if isinstance(self.objective, USR2):
                tutor = self.objective.teacher
                for owner, name, part in ((tutor, "label", "labels"), (tutor.model, "encode", "teacher encode")):
                    timed = partial(self._measure, part, getattr(owner, name))
                    stack.enter_context(mock.patch.object(owner, name, timed))
            if self.plain:
                student = self.objective.student
                stack.enter_context(mock.patch.object(student, "encode", partial(encode_one_by_one, student)))
                stack.enter_context(mock.patch.object(teacher, "attention_greedy", plain_greedy))
                for module in (supervised, usr2):
                    stack.enter_context(mock.patch.object(module, "decode_all", decode_one_by_one))
            yield

    def flops(self) -> float:
        """Floating-point operations of the models in a step, forward and backward."""
        autocast = torch.autocast(self.options.device, torch.bfloat16, enabled=self.options.bf16)
        with FlopCounterMode(display=False) as counter, autocast:
            self.objective(self.batch, 0).total.backward()  # type: ignore[no-untyped-call]
        self.optimiser.zero_grad(set_to_none=True)
        return float(counter.get_total_flops())


def encode_one_by_one(
    student: USR, video: Tensor, audio: Tensor, mask: Tensor, modalities: Sequence[Modality] = tuple(Modality)
) -> dict[Modality, Tensor]:
    """A pass of the encoder for each modality, after one of each frontend."""
    streams = {Modality.VIDEO: student.video_frontend(video), Modality.AUDIO: student.audio_frontend(audio)}
    return {modality: student.encoder(student._project(streams, modality), mask) for modality in modalities}


def decode_one_by_one(
    student: USR, features: Mapping[Modality, Tensor], mask: Tensor, tokens: Tensor
) -> dict[Modality, Tensor]:
    """A decoder pass for each modality."""
    return {modality: student.decode(tokens, of_modality, mask) for modality, of_modality in features.items()}


def print_steps(measured: Mapping[str, Step], frames: int, options: argparse.Namespace) -> None:
    """Milliseconds by part, frames a second, and the ratios that the paper speaks of."""
    gpu = options.device == "cuda"
    print(f"| ms | {' | '.join(PARTS)} | step | frames/s |{' GiB | utilisation |' if gpu else ''}")
    print(f"| --- |{' --- |' * (len(PARTS) + 2 + 2 * gpu)}")
    totals: dict[str, float] = {}
    for name, step in measured.items():
        medians = [statistics.median(step.seconds[part]) for part in PARTS]
        totals[name] = statistics.median(map(sum, zip(*step.seconds.values(), strict=True)))
        cells = [f"{1000 * seconds:.0f}" for seconds in [*medians, totals[name]]] + [f"{frames / totals[name]:.0f}"]
        if gpu:
            used = step.flops() / totals[name] / (options.peak_tflops * 1e12)
            cells += [f"{step.peak_memory / 2**30:.1f}", f"{used:.0%}"]
        print(f"| {name} | {' | '.join(cells)} |")
    mixed = (totals["USR 2.0, CTC-driven"] + totals["USR 2.0, autoregressive"]) / 2
    print(f"\nUSR 2.0, mixed: {1000 * mixed:.0f} ms; of a USR step {mixed / totals['USR']:.2f}, ", end="")
    print(f"of a plain USR step {mixed / totals['USR, plain']:.2f}; ", end="")
    autoregressive = measured["USR 2.0, autoregressive"]
    share = statistics.median(autoregressive.seconds["labels"]) / totals["USR 2.0, autoregressive"]
    print(f"autoregressive labels take {share:.0%} of their step\n", flush=True)


if __name__ == "__main__":
    main()
