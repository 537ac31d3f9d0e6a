"""The training loop: batches, loss, gradient, step; now and then a checkpoint and a validation."""

import contextlib
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
from seehear.training.monitor import Monitor, peak_memory
from seehear.training.optim import build_optimiser, learning_rate, part_of, set_learning_rate
from seehear.training.parallel import Spread
from seehear.training.watch import WatchedLabels
from seehear.training.world import World


class Streams:
    """The labelled and the unlabelled stream; the position of each is how many batches all processes have taken."""

    def __init__(
        self,
        labelled: Callable[[int], Iterator[Batch]],
        unlabelled: Callable[[int], Iterator[Batch]] | None,
        processes: int = 1,
    ) -> None:
        self._processes = processes
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
        self.positions[name] += self._processes
        return next(self._iterators[name])


class Trainer:
    """Optimises `objective(batch, step)` on all processes of `world`; knows nothing of the method.

    `validate(objective)` returns error rates by name and `watch(objective)` the teacher's labels of a few clips, both
    to be recorded; every process calls them every `run.validate_every` steps and at the end.
    """

    def __init__(
        self,
        objective: Objective,
        recipe: Recipe,
        steps: int,
        streams: Streams,
        checkpoints: Checkpoints,
        validate: Callable[[Objective], Mapping[str, float]] | None = None,
        watch: Callable[[Objective], Sequence[WatchedLabels]] | None = None,
        world: World | None = None,
    ) -> None:
        self.world = world or World(torch.device("cpu"))
        self.objective = objective
        self.spread = Spread(objective, self.world, recipe.run.parallel)
        assert recipe.run.precision != "auto", "`find_precision` decides, before"
        self.recipe = recipe
        self.steps = steps
        self.streams = streams
        self.checkpoints = checkpoints
        self.validate = validate
        self.watch = watch
        self.optimiser = build_optimiser(objective, recipe.optimiser)
        self.finite = FiniteSteps(self.objective)
        self.done = 0
        """Steps made."""
        self.best = math.inf
        """Lowest error rate of a validation: the mean over the student's modalities and ways of decoding."""

    def fit(self, monitor: Monitor) -> None:
        """Train to the last step.

        Raises `PreemptionError`, after a checkpoint, if a signal to any process asks for it (`guards.SIGNALS`), and
        `TrainingError` if too many steps in a row have to be refused, or another process fails.
        """
        self.learn()
        with StopRequest() as stop, self.world.failures_told():
            try:
                while self.done < self.steps:
                    self._advance(monitor, stop)
            finally:
                self.streams.close()

    def learn(self) -> None:
        """From evaluation back to training; what is frozen keeps its running statistics."""
        self.objective.train()
        for name in self.recipe.optimiser.frozen:
            part_of(self.objective.student, name).eval()

    def _advance(self, monitor: Monitor, stop: StopRequest) -> None:
        """A step, and what is due after it."""
        run = self.recipe.run
        numbers, clips = self.step()
        monitor.step(self.done, numbers)
        for message in [refusal(clips)] if "refused" in numbers else self.objective.warnings(numbers):
            monitor.warn(self.done, message)
        last = self.done == self.steps
        stopped = self.world.mean({"signal": float(stop.signal or 0)})["signal"] > 0
        if stopped and not last:
            self._save(lambda state: self.checkpoints.save(self.done, state))
            by = stop.signal.name if stop.signal else "a signal to another process"
            raise PreemptionError(f"stopped by {by} after step {self.done}; the same command goes on")
        if last or (run.validate_every and self.done % run.validate_every == 0):
            with torch.compiler.set_stance("force_eager"):  # decoding meets a new shape with each token
                if self.validate:
                    self._validate(self.validate, monitor)
                if self.watch:
                    monitor.labels(self.done, self.watch(self.spread.whole()))
            self.spread.release()
        if last or self.done % run.checkpoint_every == 0:
            self._save(lambda state: self.checkpoints.save(self.done, state))

    def _save(self, write: Callable[[dict[str, Any]], object]) -> None:
        """Write the state; the first process does, the others wait for it."""
        state = self.state()
        if self.world.leads:
            write(state)
        self.world.barrier()

    def _validate(self, validate: Callable[[Objective], Mapping[str, float]], monitor: Monitor) -> None:
        """Record a validation; if the student was never better, keep this state."""
        numbers = validate(self.spread.whole())
        monitor.validation(self.done, numbers)
        students = [rate for name, rate in numbers.items() if not name.startswith("teacher/")]
        score = sum(students) / len(students)
        if score < self.best:
            self.best = score
            self._save(self.checkpoints.save_best)
        self.learn()

    def step(self) -> tuple[dict[str, float], list[str]]:
        """One optimiser step; its numbers by name (means over processes), and the clips that all of them used.

        "refused" among the numbers: loss or gradient are not finite, and neither student nor teacher have changed.
        """
        started, step, accumulate = time.perf_counter(), self.done, self.recipe.run.accumulate
        rate = learning_rate(self.recipe.optimiser, step, self.steps)
        set_learning_rate(self.optimiser, rate)
        self.optimiser.zero_grad(set_to_none=True)
        self.finite.begin()
        sums: dict[str, float] = {}
        clips: list[str] = []
        frames = 0.0
        for part in range(accumulate):
            batch = self.streams.next(self.objective.needs_unlabelled(step))
            frames += batch.num_frames
            clips += batch.ids
            with self.spread.gradients_stay_here() if part < accumulate - 1 else contextlib.nullcontext():
                losses = self._losses(batch.to(self.world.device), step)
                (losses.total / accumulate).backward()  # type: ignore[no-untyped-call]
            for name, value in _numbers(losses, self.world.device).items():
                sums[name] = sums.get(name, 0.0) + value / accumulate
        norm = nn.utils.clip_grad_norm_(self.objective.parameters(), self.recipe.optimiser.clip_norm)
        sums = self.world.mean({**sums, "frames": frames})
        frames = self.world.size * sums.pop("frames")
        numbers = {**sums, "lr": rate, "gradient_norm": float(norm)}
        if self.finite.accepts(numbers):
            self.optimiser.step()
            self.spread.average_statistics()
            self.objective.after_step(step)
        else:
            numbers = {"refused": 1.0, "lr": rate}
            self.objective.after_refusal(step)
        self.done += 1
        numbers["frames/s"] = frames / (time.perf_counter() - started)
        numbers["memory_gib"] = peak_memory(self.world.device) / 2**30
        return numbers, self.world.gather(clips) if "refused" in numbers else clips

    def _losses(self, batch: StepBatch, step: int) -> Losses:
        bf16 = self.recipe.run.precision == "bf16"
        with torch.autocast(self.world.device.type, torch.bfloat16, enabled=bf16):
            return self.spread(batch, step)

    def state(self) -> dict[str, Any]:
        """Everything a resumed run needs; every process has to ask."""
        cuda = self.world.device.type == "cuda"
        random = {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state(self.world.device) if cuda else None}
        return {
            "step": self.done,
            "steps": self.steps,
            "best": self.best,
            "recipe": self.recipe.model_dump(mode="json"),
            **self.spread.state(self.optimiser),
            "streams": dict(self.streams.positions),
            "random": self.world.gather([random]),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned, on as many processes or on more or fewer.

        Dropout goes on as it would have on as many; else each process draws anew, from the seed and the step.
        """
        self.spread.restore(state, self.optimiser)
        self.streams.positions = dict(state["streams"])
        self.done = state["step"]
        self.best = state["best"]
        random = state["random"]
        if len(random) == self.world.size:
            torch.set_rng_state(random[self.world.rank]["cpu"])
            if self.world.device.type == "cuda" and random[self.world.rank]["cuda"] is not None:
                torch.cuda.set_rng_state(random[self.world.rank]["cuda"], self.world.device)
        else:
            torch.manual_seed(hash((self.recipe.run.seed, self.done, self.world.rank)))


def _numbers(losses: Losses, device: torch.device) -> dict[str, float]:
    """The loss and its parts, fetched from the device at once."""
    named = {"loss": losses.total.detach(), **losses.parts}
    values = torch.stack([value.to(device, torch.float32) for value in named.values()])
    return dict(zip(named, values.tolist(), strict=True))
