"""What a run tells: a line per step on the terminal, every number in metrics.jsonl and TensorBoard."""

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

import torch
from torch.utils.tensorboard import SummaryWriter

from seehear.files import whole_records, write_atomically
from seehear.training.watch import WatchedLabels, label_error_rates

METRICS_FILE = "metrics.jsonl"
LABELS_FILE = "labels.jsonl"
SHOWN = 8
"""Clips whose labels TensorBoard shows."""

OnStep = Callable[[int, Mapping[str, float]], None]
"""Is told the number of a training step, counted from 1, and its numbers by name."""


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The records of a run in the order written: each has `step` and numbers by name."""
    return list(whole_records(path))


def peak_memory(device: torch.device) -> int:
    """Most bytes that this process has had on `device` so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Monitor:
    """Writes numbers by name and step; `metrics.jsonl` grows by a line each time, also across resumed runs."""

    def __init__(
        self, folder: Path, log_every: int, steps: int, resumed_at: int = 0, on_step: OnStep | None = None
    ) -> None:
        self.log_every = log_every
        self.steps = steps
        self.path = folder / METRICS_FILE
        self.labels_path = folder / LABELS_FILE
        for path in (self.path, self.labels_path):
            _drop_after(path, resumed_at)
        self.file = self.path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_at or None)
        self.started = time.monotonic()
        self.resumed_at = resumed_at
        self.on_step = on_step

    def step(self, step: int, numbers: Mapping[str, float]) -> None:
        """Record a training step (its number counted from 1); print every `log_every`-th."""
        self._write(step, numbers)
        if step % self.log_every == 0 or step == self.steps:
            elapsed = time.monotonic() - self.started
            remaining = elapsed / max(1, step - self.resumed_at) * (self.steps - step)
            values = "  ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            print(f"step {step}/{self.steps}  {values}  left {_clock(remaining)}", flush=True)
        if self.on_step:
            self.on_step(step, numbers)

    def validation(self, step: int, numbers: Mapping[str, float]) -> None:
        """Record and print a validation."""
        self._write(step, {f"valid/{name}": value for name, value in numbers.items()})
        values = "  ".join(f"{name} {value:.1%}" for name, value in numbers.items())
        print(f"step {step}/{self.steps}  validation  {values}", flush=True)

    def labels(self, step: int, watched: Sequence[WatchedLabels]) -> None:
        """Record labels of the teacher: as text in labels.jsonl and TensorBoard, and their error rates by kind."""
        with self.labels_path.open("a", encoding="utf-8") as file:
            for clip in watched:
                file.write(json.dumps({"step": step, "id": clip.id, "truth": clip.truth, **clip.labels}) + "\n")
        for clip in watched[:SHOWN]:
            lines = [f"said: {clip.truth or 'unknown'}", *(f"{kind}: {text}" for kind, text in clip.labels.items())]
            self.board.add_text(f"labels/{clip.id}", "  \n".join(lines), step)
        rates = label_error_rates(watched)
        if rates:
            self._write(step, {f"labels/{kind}": rate for kind, rate in rates.items()})
            values = "  ".join(f"{kind} {rate:.1%}" for kind, rate in rates.items())
            print(f"step {step}/{self.steps}  labels  {values}", flush=True)

    def warn(self, step: int, message: str) -> None:
        """Print a warning."""
        print(f"step {step}/{self.steps}  warning: {message}", flush=True)

    def _write(self, step: int, numbers: Mapping[str, float]) -> None:
        self.file.write(json.dumps({"step": step, **numbers}) + "\n")
        self.file.flush()
        for name, value in numbers.items():
            self.board.add_scalar(name, value, step)

    def __enter__(self) -> "Monitor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.file.close()
        self.board.close()


class Silence(Monitor):
    """The monitor of a process that another one speaks for."""

    def __init__(self) -> None:
        pass

    def step(self, step: int, numbers: Mapping[str, float]) -> None:
        """Nothing."""

    def validation(self, step: int, numbers: Mapping[str, float]) -> None:
        """Nothing."""

    def labels(self, step: int, watched: Sequence[WatchedLabels]) -> None:
        """Nothing."""

    def warn(self, step: int, message: str) -> None:
        """Nothing."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass


def _drop_after(path: Path, step: int) -> None:
    """Forget the lines of steps that a resumed run makes again."""
    if path.exists():
        kept = (record for record in whole_records(path) if record["step"] <= step)
        write_atomically(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in kept))


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
