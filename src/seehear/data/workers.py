"""Work spread over processes that may die: a job that kills its process costs that job, not the run."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from seehear.errors import SeehearError

Job = TypeVar("Job")
Result = TypeVar("Result")

ATTEMPTS = 2
"""Times that a job is tried before it is held to be what kills its process."""


@dataclass(frozen=True)
class Died:
    """What comes back from a job whose process died."""

    reason: str


@dataclass(frozen=True)
class _Step:
    """News of a job that is at work."""

    news: Any


_parent: Connection | None = None
"""In a worker process, the connection to the one that gives it jobs."""


def tell(news: Any) -> None:
    """From within a job: how far it is, for `on_news` of `spread`. Nothing outside of a worker process."""
    if _parent is not None:
        _parent.send(_Step(news))


def available_cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(
    make_worker: Callable[[], Callable[[Job], Result]],
    jobs: Iterable[Job],
    processes: int,
    on_news: Callable[[Job, Any], None] = lambda job, news: None,
) -> Generator[tuple[Job, Result | Died], None, None]:
    """Each job with its result, as they become ready; before that, `on_news` is called with what it `tell`s.

    Every process calls `make_worker()` once and then the function it returned, once per job; all of them must be
    picklable. A process that dies is replaced and its job tried again. A `SeehearError` ends the run, raised here.
    Processes end with the program, however it ends.
    """
    waiting = deque((job, 1) for job in jobs)
    idle: list[_Process[Job]] = []
    busy: dict[Any, _Process[Job]] = {}
    try:
        while waiting or busy:
            while waiting and (idle or len(busy) < processes):
                process = idle.pop() if idle else _Process(make_worker)
                process.give(*waiting.popleft())
                busy[process.connection] = process
            for connection in wait(list(busy)):
                process = busy[connection]
                result = process.receive()
                if isinstance(result, _Step):
                    on_news(process.job, result.news)
                    continue
                del busy[connection]
                if result is _DEAD:
                    if process.attempt < ATTEMPTS:
                        waiting.appendleft((process.job, process.attempt + 1))
                    else:
                        yield process.job, Died(process.end())
                    continue
                if isinstance(result, SeehearError):
                    raise result
                idle.append(process)
                yield process.job, result
    finally:
        for process in [*busy.values(), *idle]:
            process.process.kill()


_DEAD = object()
"""What comes from a process that died."""


class _Process(Generic[Job]):
    """A process, the connection to it, the job it has and how often that has been tried."""

    job: Job
    attempt: int

    def __init__(self, make_worker: Callable[[], Callable[[Job], Any]]) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make_worker), daemon=True)
        self.process.start()
        theirs.close()

    def give(self, job: Job, attempt: int) -> None:
        """Start a job. If the process is dead, that shows when its result is asked for."""
        self.job, self.attempt = job, attempt
        with suppress(OSError):
            self.connection.send(job)

    def receive(self) -> Any:
        """The next that it sends, or `_DEAD`."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return _DEAD

    def end(self) -> str:
        """How the dead process died."""
        self.process.join()
        code = self.process.exitcode or 0
        if code >= 0:
            return f"the process that worked on it ended with status {code}"
        hint = " (out of memory?)" if -code == signal.SIGKILL else ""
        return f"the process that worked on it died of {signal.Signals(-code).name}{hint}"


def _serve(connection: Connection, make_worker: Callable[[], Callable[[Any], Any]]) -> None:
    """A worker process: jobs in, results out, until the other end is closed."""
    global _parent
    _parent = connection
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work = make_worker()
        while True:
            connection.send(work(connection.recv()))
    except SeehearError as error:
        connection.send(error)
    except EOFError:
        return


def _end_with_parent() -> None:
    """End at once if the parent was killed: another run may be about to write the same files."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
