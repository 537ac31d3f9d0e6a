"""How much private memory this process takes at most."""

import re
import threading
from pathlib import Path


class PrivateMemory:
    """The largest private memory of this process while it is open, in bytes beyond that at its start."""

    def __enter__(self) -> "PrivateMemory":
        self._start = self.largest = self._now()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        return self.largest - self._start

    def _watch(self) -> None:
        while not self._over.wait(0.001):
            self.largest = max(self.largest, self._now())

    @staticmethod
    def _now() -> int:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None
        return 1024 * int(found[1])
