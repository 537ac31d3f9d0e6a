"""What keeps a run whole: it stops when it is asked to, with a checkpoint, and refuses steps that would poison it."""

import math
import signal
import threading
from collections.abc import Iterable, Mapping, Sequence
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from seehear.errors import TrainingError

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What schedulers send before they take a machine away."""
MOST_REFUSED = 20
"""Steps in a row that may be refused; then the run gives up."""
NAMED = 16
"""Clips of a refused step that a message names."""


class StopRequest:
    """While this is entered, a signal of `SIGNALS` ends nothing; it is remembered in `signal`."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python allows handlers there alone
            self._before = {number: signal.signal(number, self._remember) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class FiniteSteps:
    """Refuses a step whose loss or gradient is not finite, before it changes a weight, and gives up after many."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.refused_in_a_row = 0
        self._statistics: Sequence[Tensor] = ()

    def begin(self) -> None:
        """Remember what a forward pass changes: the running statistics of normalisation, teacher's included."""
        self._statistics = [buffer.clone() for buffer in self.module.buffers()]

    @torch.no_grad()
    def accepts(self, numbers: Mapping[str, float]) -> bool:
        """Whether the step may be made; if not, the statistics are as before. Raises `TrainingError` after many."""
        if math.isfinite(numbers["loss"]) and math.isfinite(numbers["gradient_norm"]):
            self.refused_in_a_row = 0
            return True
        for buffer, before in zip(self.module.buffers(), self._statistics, strict=True):
            buffer.copy_(before)
        self.refused_in_a_row += 1
        if self.refused_in_a_row == MOST_REFUSED:
            raise TrainingError(
                f"loss or gradient were not finite in {MOST_REFUSED} steps in a row: lower optimiser.peak_lr and go "
                "on from the last checkpoint, or train anew with run.precision=float32"
            )
        return False


def refusal(clips: Iterable[str]) -> str:
    """What there is to say of a refused step."""
    names = sorted(set(clips))
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"loss or gradient not finite, the step changes nothing; its clips: {', '.join(names[:NAMED])}{more}"
