"""The largest memory of a process while something runs in it (Linux); used by `convert.py` and `huge.py`."""

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EVERY = 0.002
"""Seconds between two looks."""


def memory() -> dict[str, int]:
    """Bytes that are resident: private ones, and those with the pages of mapped files."""
    status = Path("/proc/self/status").read_text()
    found = {key: re.search(rf"{key}:\s+(\d+) kB", status) for key in ("RssAnon", "VmRSS")}
    return {key: 1024 * int(match[1]) for key, match in found.items() if match}


class Peak:
    """Seconds, and the largest memory while it is open, by kind."""

    def __enter__(self) -> "Peak":
        self.largest = memory()
        self.seconds = -time.perf_counter()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.perf_counter()
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(EVERY):
            self.largest = {key: max(value, self.largest[key]) for key, value in memory().items()}

    def result(self) -> dict[str, float]:
        """What was measured, for `in_its_own_process`."""
        return {"seconds": self.seconds, "private": self.largest["RssAnon"], "resident": self.largest["VmRSS"]}


def in_its_own_process(arguments: Sequence[str]) -> dict[str, Any]:
    """Run this script again with `arguments`; the JSON that it prints last. Raises if it fails."""
    command = [sys.executable, sys.argv[0], *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
