"""The processes of a run: one, or those that torchrun started on one machine or many."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist

from seehear.devices import find_device
from seehear.errors import ConfigError, SeehearError, TrainingError

Item = TypeVar("Item")

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each process."""
COMMUNICATION = ("gloo", "NCCL", "Connection", "Timed out", "Broken pipe")
"""Words of which one stands in what PyTorch says when processes cannot talk to each other."""


def _store_of_attempt(size: int, time_limit: timedelta) -> Any:
    """Where the processes find each other's addresses; None: as PyTorch does it.

    torchrun that starts them again leaves there what the ones before wrote; so each attempt has a part of its own.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = dist.TCPStore(address, port, size, is_master=False, timeout=time_limit)  # type: ignore[attr-defined]
    return dist.PrefixStore(f"attempt {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)  # type: ignore[attr-defined]


def end_process(status: int) -> NoReturn:
    """End a process of several at once, when all it has to say is written.

    Threads of gloo may outlive the group of processes, and abort a Python that shuts down around them.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


class World:
    """All processes of a run, seen from one of them; what a run does together goes through here.

    A context: leaving it leaves the group, if `start` began it. What fails between processes (one that ended, one that
    does not answer within the time limit) is a `TrainingError` in all the others.
    """

    def __init__(self, device: torch.device, rank: int = 0, size: int = 1) -> None:
        self.device = device
        self.rank = rank
        self.size = size
        self._began = False

    @classmethod
    def start(cls, device: str = "cpu", time_limit: float = 1800.0) -> "World":
        """Join the processes that torchrun started, once; a process that it did not start is alone.

        Args:
            device: "cpu", "cuda" (each process of a machine takes the GPU of its number there), or "auto": "cuda" if
                there is one, else "cpu"; a process that is alone may take "mps" or "cuda:1" too.
            time_limit: Seconds that a process waits for the others.

        Raises `ConfigError` if this machine lacks the device, or several processes cannot share it.
        """
        given = [name for name in VARIABLES if os.environ.get(name)]
        if not {"RANK", "WORLD_SIZE"} & set(given):
            return cls(find_device(device))
        if missing := sorted(set(VARIABLES) - set(given)):
            raise ConfigError(f"{given[0]} is set but {', '.join(missing)} not: start with torchrun, or unset it")
        try:
            rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        except ValueError as error:
            raise ConfigError(f"RANK, WORLD_SIZE and LOCAL_RANK must be numbers ({error}): use torchrun") from error
        if not 0 <= rank < size:
            raise ConfigError(f"RANK is {rank} of WORLD_SIZE {size}: start with torchrun")
        if device == "mps" and size > 1:
            raise ConfigError("several processes cannot share the GPU of a Mac: start one, or take --device cpu")
        if device.startswith("cuda:") and size > 1:
            raise ConfigError(f"several processes cannot share {device}: with --device cuda each takes one of its own")
        if device == "auto":
            device = find_device("auto").type if size == 1 or torch.cuda.is_available() else "cpu"
        if device == "cuda":
            if local >= torch.cuda.device_count():
                raise ConfigError(f"process {local} of this machine has no GPU of its own: lower --nproc-per-node")
            torch.cuda.set_device(local)
            device = f"cuda:{local}"
        world = cls(find_device(device), rank, size)
        if not dist.is_initialized():
            backend = "nccl" if world.device.type == "cuda" else "gloo"
            limit = timedelta(seconds=time_limit)
            try:
                store = _store_of_attempt(size, limit)
                dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=limit)
            except (RuntimeError, ValueError) as error:
                raise TrainingError(f"the processes do not find each other ({str(error).splitlines()[0]})") from error
            world._began = True
        return world

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def tell(self, message: str) -> None:
        """Print `message` once."""
        if self.leads:
            print(message, flush=True)

    def barrier(self) -> None:
        """Wait until all are here."""
        self.gather([])

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """The items of all processes, in their order."""
        if self.size == 1:
            return list(items)
        everyone: list[Any] = [None] * self.size
        with self.failures_told():
            dist.all_gather_object(everyone, list(items))
        return [item for theirs in everyone for item in theirs]

    def decide(self, choose: Callable[[], Item]) -> Item:
        """What `choose` returns in the first process, which alone calls it; a `SeehearError` of it ends all of them."""
        outcome: Item | SeehearError | None = None
        if self.leads:
            try:
                outcome = choose()
            except SeehearError as error:
                outcome = error
        first: Any = self.gather([outcome])[0]
        if isinstance(first, SeehearError):
            raise first
        chosen: Item = first
        return chosen

    def mean(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """The mean over processes of each number; all give the same names."""
        if self.size == 1:
            return dict(numbers)
        exact = torch.float64 if self.device.type == "cpu" else torch.float32  # which not every device doubles
        values = torch.tensor(list(numbers.values()), dtype=exact, device=self.device)
        with self.failures_told():
            dist.all_reduce(values)
        return dict(zip(numbers, (values / self.size).tolist(), strict=True))

    def average_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its mean over processes."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with self.failures_told():
            dist.all_reduce(flat)
        for tensor, mean in zip(tensors, torch.split(flat / self.size, [t.numel() for t in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    @contextlib.contextmanager
    def failures_told(self) -> Iterator[None]:
        """Within it what fails between processes is a `TrainingError` of one line."""
        try:
            yield
        except RuntimeError as error:
            text = str(error)
            if self.size == 1 or not any(word in text for word in COMMUNICATION):
                raise
            reason = text.splitlines()[0]
            raise TrainingError(f"another process of this run ended or does not answer ({reason})") from error

    def __enter__(self) -> "World":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._began:
            dist.destroy_process_group()
