"""The training loop: batches, loss, gradient, step; now and then a checkpoint and a validation."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from seehear.data.batch import Batch
from seehear.errors import PreemptionError
from seehear.objectives.base import Losses, Objective, StepBatch
from seehear.recipe import Recipe
from seehear.training.checkpoints import Checkpoints
from seehear.training.guards import FiniteSteps, StopRequest, refusal
from seehear.training.monitor import Monitor
from seehear.training.optim import build_optimiser, learning_rate, set_learning_rate
from seehear.training.watch import WatchedLabels


class Streams:
    """The labelled and the unlabelled stream; the position of each is how many batches it has given."""

    def __init__(
        self, labelled: Callable[[int], Iterator[Batch]], unlabelled: Callable[[int], Iterator[Batch]] | None
    ) -> None:
        self._open = {"labelled": labelled, "unlabelled": unlabelled}
        self._iterators: dict[str, Iterator[Batch]] = {}
        self.positions = {"labelled": 0, "unlabelled": 0}

    def next(self, with_unlabelled: bool) -> StepBatch:
        """The clips of a step."""
        return StepBatch(self._take("labelled"), self._take("unlabelled") if with_unlabelled else None)

    def close(self) -> None:
        """Let the processes that read end; the next clip opens the streams again where they were."""
        self._iterators.clear()

    def _take(self, name: str) -> Batch:
        if name not in self._iterators:
            opener = self._open[name]
            assert opener is not None, f"this run has no {name} stream"
            self._iterators[name] = opener(self.positions[name])
        self.positions[name] += 1
        return next(self._iterators[name])


class Trainer:
    """Optimises `objective(batch, step)`; knows nothing of the method.

    `validate()` returns error rates by name and `watch()` the teacher's labels of a few clips, both to be recorded;
    they are called every `run.validate_every` steps and at the end.
    """

    def __init__(
        self,
        objective: Objective,
        recipe: Recipe,
        steps: int,
        streams: Streams,
        checkpoints: Checkpoints,
        validate: Callable[[], Mapping[str, float]] | None = None,
        watch: Callable[[], Sequence[WatchedLabels]] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.objective = objective.to(device)
        self.recipe = recipe
        self.steps = steps
        self.streams = streams
        self.checkpoints = checkpoints
        self.validate = validate
        self.watch = watch
        self.device = torch.device(device)
        self.optimiser = build_optimiser(objective, recipe.optimiser)
        self.finite = FiniteSteps(self.objective)
        self.done = 0
        """Steps made."""
        self.best = math.inf
        """Lowest error rate of a validation: the mean over the student's modalities and ways of decoding."""

    def fit(self, monitor: Monitor) -> None:
        """Train to the last step.

        Raises `PreemptionError`, after a checkpoint, if a signal asks for it (`guards.SIGNALS`), and `TrainingError` if
        too many steps in a row have to be refused.
        """
        self.objective.train()
        with StopRequest() as stop:
            try:
                while self.done < self.steps:
                    self._advance(monitor, stop)
            finally:
                self.streams.close()

    def _advance(self, monitor: Monitor, stop: StopRequest) -> None:
        """A step, and what is due after it."""
        run = self.recipe.run
        numbers, clips = self.step()
        monitor.step(self.done, numbers)
        for message in [refusal(clips)] if "refused" in numbers else self.objective.warnings(numbers):
            monitor.warn(self.done, message)
        last = self.done == self.steps
        if last or (run.validate_every and self.done % run.validate_every == 0):
            if self.validate:
                self._validate(self.validate, monitor)
            if self.watch:
                monitor.labels(self.done, self.watch())
        if last or stop.signal or self.done % run.checkpoint_every == 0:
            self.checkpoints.save(self.done, self.state())
        if stop.signal and not last:
            raise PreemptionError(f"stopped by {stop.signal.name} after step {self.done}; the same command goes on")

    def _validate(self, validate: Callable[[], Mapping[str, float]], monitor: Monitor) -> None:
        """Record a validation; if the student was never better, keep this state."""
        numbers = validate()
        monitor.validation(self.done, numbers)
        students = [rate for name, rate in numbers.items() if not name.startswith("teacher/")]
        score = sum(students) / len(students)
        if score < self.best:
            self.best = score
            self.checkpoints.save_best(self.state())
        self.objective.train()

    def step(self) -> tuple[dict[str, float], list[str]]:
        """One optimiser step; its numbers by name, and the clips it used.

        "refused" among the numbers: loss or gradient are not finite, and neither student nor teacher have changed.
        """
        started, step, accumulate = time.perf_counter(), self.done, self.recipe.run.accumulate
        rate = learning_rate(self.recipe.optimiser, step, self.steps)
        set_learning_rate(self.optimiser, rate)
        self.optimiser.zero_grad(set_to_none=True)
        self.finite.begin()
        sums: dict[str, float] = {}
        clips: list[str] = []
        frames = 0
        for _ in range(accumulate):
            batch = self.streams.next(self.objective.needs_unlabelled(step))
            frames += batch.num_frames
            clips += batch.ids
            losses = self._losses(batch.to(self.device), step)
            (losses.total / accumulate).backward()  # type: ignore[no-untyped-call]
            for name, value in {"loss": losses.total.detach(), **losses.parts}.items():
                sums[name] = sums.get(name, 0.0) + float(value) / accumulate
        norm = nn.utils.clip_grad_norm_(self.objective.parameters(), self.recipe.optimiser.clip_norm)
        numbers = {**sums, "lr": rate, "gradient_norm": float(norm)}
        if self.finite.accepts(numbers):
            self.optimiser.step()
            self.objective.after_step(step)
        else:
            numbers = {"refused": 1.0, "lr": rate}
        self.done += 1
        numbers["frames/s"] = frames / (time.perf_counter() - started)
        return numbers, clips

    def _losses(self, batch: StepBatch, step: int) -> Losses:
        bf16 = self.recipe.run.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            losses: Losses = self.objective(batch, step)
        return losses

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs."""
        return {
            "step": self.done,
            "best": self.best,
            "recipe": self.recipe.model_dump(mode="json"),
            "objective": self.objective.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "streams": dict(self.streams.positions),
            "random": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.objective.load_state_dict(state["objective"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.streams.positions = dict(state["streams"])
        self.done = state["step"]
        self.best = state["best"]
        torch.set_rng_state(state["random"]["cpu"])
        if self.device.type == "cuda":
            torch.cuda.set_rng_state_all(state["random"]["cuda"])
