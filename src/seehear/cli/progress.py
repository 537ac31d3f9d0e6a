"""How far a preparation or a transcription is: a bar on a terminal, now and then a line elsewhere."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from seehear.modality import FRAME_RATE
from seehear.preparation.journal import Cut, Prepared
from seehear.preparation.preparer import HowFar, Job
from seehear.preparation.sources import Rejected

LINE_EVERY = 10.0
"""Seconds between lines where there is no terminal."""


class ClipProgress:
    """Progress over `total` recordings on standard error; rejected ones are named as they come, and of a long one is
    shown how far it has been read."""

    def __init__(self, total: int, done_before: int = 0) -> None:
        self.total = total
        self.done_before = done_before
        self.clips = self.rejected = self.frames = 0
        self.started = self.last_line = time.monotonic()
        console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.console = console

    def __enter__(self) -> "ClipProgress":
        if self.done_before:
            self.console.print(f"ready from an earlier run: {self.done_before} clips; to do: {self.total}")
        self.bar.start()
        self.task = self.bar.add_task("clips", total=self.total, speed="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.stop()

    def advance(self, clip: Prepared | Cut | Rejected) -> None:
        """Another recording is through."""
        self.clips += 1
        if isinstance(clip, Rejected):
            self.rejected += 1
            self.console.print(f"rejected {clip.source}: {clip.reason}", markup=False)
        else:
            self.frames += clip.frames
        self.bar.update(self.task, description="clips", advance=1, speed=self._speed())
        now = time.monotonic()
        if not self.console.is_terminal and (now - self.last_line > LINE_EVERY or self.clips == self.total):
            self.last_line = now
            self.console.print(f"{self.clips}/{self.total} clips, {self.rejected} rejected, {self._speed()}")

    def read(self, job: Job, far: HowFar) -> None:
        """So much of a long recording has been read."""
        place = f"{job.source.name}: {_clock(far.read)} of {_clock(far.duration)}"
        self.bar.update(self.task, description=escape(place))
        now = time.monotonic()
        if not self.console.is_terminal and now - self.last_line > LINE_EVERY:
            self.last_line = now
            self.console.print(place, markup=False)

    def _speed(self) -> str:
        return f"{self.frames / FRAME_RATE / (time.monotonic() - self.started):.1f} × real time"


class RecordingProgress:
    """Progress through recordings on standard error, with the speed in times of real time."""

    def __init__(self) -> None:
        self.console = Console(file=sys.stderr, highlight=False, soft_wrap=True)
        self.bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[place]}"),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.console.is_terminal,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self.started = self.last_line = time.monotonic()
        self.seconds = 0.0  # of all recordings
        self._of_file: dict[Path, float] = {}

    def __enter__(self) -> "RecordingProgress":
        self.task = self.bar.add_task("", total=None, place="")
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.bar.stop()

    def advance(self, path: Path, seconds: float, duration: float) -> None:
        """So many seconds of a recording have been read."""
        self.seconds += seconds - self._of_file.get(path, 0.0)
        self._of_file = {path: seconds}
        now = time.monotonic()
        speed = self.seconds / max(now - self.started, 1e-3)
        place = f"{_clock(seconds)} of {_clock(duration)}, {speed:.1f} × real time"
        self.bar.update(self.task, description=path.name, completed=seconds, total=duration, place=place)
        if not self.console.is_terminal and now - self.last_line > LINE_EVERY:
            self.last_line = now
            self.console.print(f"{path}: {place}", markup=False)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """The bar is taken away while something is printed."""
        self.bar.stop()
        try:
            yield
        finally:
            self.bar.start()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
