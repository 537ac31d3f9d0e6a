"""Files read through `seehear.data.media` in a child process, so that a crash, a hang or hunger for memory is caught.

Run as a program it is the child: a path on each line of its input, a `Reading` as JSON on each line of its output.
"""

import faulthandler
import json
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from seehear.data.media import iter_frames, probe, read_audio
from seehear.errors import MediaError

MEMORY_LIMIT = 4 << 30
"""Address space of the child, in bytes."""
TIME_LIMIT = 30.0
"""Seconds for one file."""


@dataclass(frozen=True)
class Reading:
    """How reading one file came out."""

    outcome: str
    """read, refused (`MediaError`), raised (another exception), crashed or hung."""
    detail: str = ""
    seconds: float = 0.0
    memory: float = 0.0
    """Peak of the resident memory, in MiB; 0 where the child died."""

    @property
    def is_defect(self) -> bool:
        """Whether the caller got something else than media or a `MediaError`."""
        return self.outcome not in ("read", "refused")


class GuardedReader:
    """A child that reads one file after the other; a new one takes its place when it dies or hangs."""

    def __init__(self, time_limit: float = TIME_LIMIT) -> None:
        self.time_limit = time_limit
        self._child: subprocess.Popen[str] | None = None
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed with the reader)

    def read(self, path: Path) -> Reading:
        """Read all of a file."""
        child = self._child = self._child or self._start()
        assert child.stdin is not None
        assert child.stdout is not None
        started = time.perf_counter()
        child.stdin.write(f"{path}\n")
        child.stdin.flush()
        ready, _, _ = select.select([child.stdout], [], [], self.time_limit + 5)  # the child ends itself before
        if answer := child.stdout.readline() if ready else "":
            reading = Reading(**json.loads(answer))
        else:
            reading = self._death(child, time.perf_counter() - started)
        if reading.is_defect:
            self._end()
        return reading

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()
        self._errors.close()

    def _end(self) -> None:
        """End the child; the next file gets a new one."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _start(self) -> subprocess.Popen[str]:
        self._errors.seek(0)
        self._errors.truncate()
        command = [sys.executable, __file__, str(self.time_limit)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True)

    def _death(self, child: subprocess.Popen[str], seconds: float) -> Reading:
        """Why there was no answer; the place is where Python was."""
        if seconds >= self.time_limit:
            child.kill()
        status = child.wait()
        self._errors.seek(0)
        places = [line.strip() for line in self._errors if "media.py" in line]
        place = places[0] if places else "no place known"
        if seconds >= self.time_limit:
            return Reading("hung", place, seconds)
        cause = signal.Signals(-status).name if status < 0 else f"exit status {status}"
        return Reading("crashed", f"{cause}: {place}", seconds)


def read_all(path: Path) -> Reading:
    """Probe a file, go through its frames, read its sound."""
    started = time.perf_counter()
    _forget_peak()
    answers: list[str | None] = []
    try:
        answers = [_refusal(path, part) for part in (_read_probe, _read_frames, _read_sound)]
        refused = answers[1] is not None and answers[2] is not None
        outcome, detail = ("refused", str(answers[1] or answers[2])) if refused else ("read", "")
    except Exception as error:
        places = [
            f"{step.name}:{step.lineno}"
            for step in traceback.extract_tb(error.__traceback__)
            if "media.py" in step.filename
        ]
        outcome, detail = "raised", f"{type(error).__name__}: {error} ({' > '.join(places)})"
    return Reading(outcome, detail, time.perf_counter() - started, _peak())


def _refusal(path: Path, read: Callable[[Path], None]) -> str | None:
    """The message of the `MediaError` that `read` raises: one line that names the file."""
    try:
        read(path)
    except MediaError as error:
        message = str(error)
        assert path.name in message, f"the message does not name the file: {message}"
        assert "\n" not in message, f"the message is not one line: {message}"
        return message
    return None


def _read_probe(path: Path) -> None:
    info = probe(path)
    assert info.has_video or info.has_audio
    assert info.duration >= 0, f"a duration of {info.duration} s"


def _read_frames(path: Path) -> None:
    for frame in iter_frames(path, on_warning=_ignore):
        assert frame.dtype.name == "uint8"
        assert frame.shape[2:] == (3,)
        assert frame.flags["C_CONTIGUOUS"]


def _read_sound(path: Path) -> None:
    sound = read_audio(path, on_warning=_ignore)
    assert sound.dtype.name == "float32"
    assert sound.ndim == 1
    assert np.isfinite(sound).all(), "samples that are not finite"


def _ignore(message: str) -> None:
    """Warnings are no outcome."""


def _forget_peak() -> None:
    """Start to measure the peak of the resident memory anew (Linux; else it is the largest so far)."""
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """Peak of the resident memory in MiB."""
    if Path("/proc/self/status").exists():
        line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Serve files until the input ends."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable()
    for line in sys.stdin:
        faulthandler.dump_traceback_later(float(sys.argv[1]), exit=True)
        reading = read_all(Path(line.rstrip("\n")))
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(asdict(reading)), flush=True)


if __name__ == "__main__":
    main()
