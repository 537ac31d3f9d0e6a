"""Where a model computes, and with which numbers, where the user leaves that to seehear (`auto`).

bf16 is fast where the device multiplies it and slow where it is emulated: on a processor without AVX512-BF16 or AMX a
product in bf16 takes tens of times as long as in float32, the larger the matrices the more. No list of processors says
which is which, and environment variables such as ONEDNN_MAX_CPU_ISA change it; so a matrix product is timed.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

import torch

from seehear.errors import ConfigError

Numbers = Literal["float32", "bf16", "fp16"]
"""What a model computes with; weights stay float32, as do sums and probabilities."""
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

TYPES = ("cpu", "cuda", "mps")
"""Of devices that are supported; a CPU has no number."""
WORTHWHILE = 1.2
"""How many times as fast as float32 bf16 must be on a CPU for `auto` to take it."""
FIRST_WITH_BF16 = (8, 0)
"""Compute capability of the first NVIDIA GPUs that multiply bf16 (Ampere)."""
SIDES = (96, 384)
"""Rows and columns of the matrices that are multiplied; of the larger ones only where the smaller are no disaster."""
HOPELESS = 0.2
"""The speed of bf16 below which larger matrices are not tried. Small ones hide some of what a processor can: oneDNN
takes a moment to start each product."""
TURNS = 4
"""Products that are timed of each kind, the first to warm up."""


@cache
def bf16_speed() -> float:
    """How many times as fast as float32 this processor multiplies matrices in bf16: a few milliseconds, once."""
    return _speed(torch.bfloat16)


@cache
def fp16_speed() -> float:
    """The same for fp16."""
    return _speed(torch.float16)


@dataclass(frozen=True)
class Hardware:
    """What this machine has; the tests put other machines in its place."""

    has_cuda: Callable[[], bool] = torch.cuda.is_available
    has_mps: Callable[[], bool] = torch.backends.mps.is_available
    capability: Callable[[torch.device], tuple[int, int]] = torch.cuda.get_device_capability
    """Compute capability of a CUDA device."""
    bf16_speed: Callable[[], float] = bf16_speed
    """Speed of bf16 on the CPU, as a multiple of float32's."""
    fp16_speed: Callable[[], float] = fp16_speed


HERE = Hardware()


class EmulationWarning(UserWarning):
    """A model computes with numbers that are emulated here, and slow."""


class Precision(NamedTuple):
    """What is computed with, and why."""

    numbers: Numbers
    why: str
    warning: str | None = None
    """What speaks against it, where a user asked for it."""


def find_device(device: torch.device | str, hardware: Hardware = HERE) -> torch.device:
    """The device of that name, of those that are supported; `auto` is CUDA, else MPS, else the CPU.

    Raises `ConfigError` if this machine lacks it.
    """
    if device == "auto":
        return torch.device("cuda" if hardware.has_cuda() else "mps" if hardware.has_mps() else "cpu")
    try:
        found = torch.device(device)
        if found.type in TYPES and not (found.type == "cpu" and found.index is not None):
            torch.empty(0, device=found)
            return found
        reason = None
    except (RuntimeError, AssertionError, NotImplementedError, ImportError, TypeError) as error:
        reason = error
    there = {"cuda": hardware.has_cuda(), "mps": hardware.has_mps()}
    available = " and ".join(["cpu", *(name for name, is_there in there.items() if is_there)])
    raise ConfigError(f"no device '{device}' here; there is {available}") from reason


def find_search_device(encoder: torch.device, asked: torch.device | str | None = None) -> torch.device:
    """Where decoder and heads run beside an encoder on `encoder`: on the device that is `asked` for.

    None: on that of the encoder, or on the CPU beside MPS: each step of a search is small, and a kernel there starts
    slowly. Raises `ConfigError` as `find_device`.
    """
    if asked is not None:
        return find_device(asked)
    return torch.device("cpu") if encoder.type == "mps" else encoder


def same_device(one: torch.device, other: torch.device) -> bool:
    """Whether both are one device; without a number it is the first of its kind."""
    return (one.type, one.index or 0) == (other.type, other.index or 0)


def describe_choice(
    asked: str, found: torch.device, precision: Precision, setting: str, *, search: str = ""
) -> list[str]:
    """What was chosen and why, in a line; and in another what speaks against it, and the `setting` to leave at auto.

    `found` is the device that was found for the name `asked`; `search` is what `describe_search` returns.
    """
    chosen = f"device: {found} ({_reason(asked, found)}){search}; precision: {precision.numbers} ({precision.why})"
    return [chosen] + ([f"warning: {precision.warning}; {setting} avoids that"] if precision.warning else [])


def describe_search(encoder: torch.device, asked: str | None) -> str:
    """The device of the search and why, `; search: cpu (as asked)`; nothing if it is left open and the encoder's."""
    place = find_search_device(encoder, asked)
    if asked is None and place == encoder:
        return ""
    return f"; search: {place} ({'as asked' if asked is not None else f'beside {encoder.type}'})"


def _reason(asked: str, found: torch.device) -> str:
    """Why it is this device."""
    if asked != "auto":
        return "as asked"
    if found.type == "cuda":
        return torch.cuda.get_device_name(found)
    return "the GPU of this Mac" if found.type == "mps" else "PyTorch finds no GPU here"


def choose_precision(
    device: torch.device, asked: Literal["auto"] | Numbers, *, training: bool, hardware: Hardware = HERE
) -> Precision:
    """What to compute with on `device`: what is `asked` for, or for `auto` what is best there.

    Training takes bf16 where the device multiplies it, else float32: fp16 would need its loss scaled. Inference takes
    bf16 on GPUs that multiply it, fp16 on earlier ones of NVIDIA, and float32 on a CPU, where results are then the
    same on every processor. MPS has float32 for both: half precision is not measured there.
    Raises `ConfigError` if there are no numbers of that name.
    """
    if asked not in ("auto", *DTYPES):
        raise ConfigError(f"no dtype {asked!r}: give {', '.join(map(repr, ('auto', *DTYPES)))}")
    if asked != "auto":
        return Precision(asked, "as asked", _objection(device, asked, hardware))
    if device.type == "cuda":
        capability = hardware.capability(device)
        has_bf16 = capability >= FIRST_WITH_BF16
        why = f"a GPU of compute capability {capability[0]}.{capability[1]} {'has' if has_bf16 else 'lacks'} bf16"
        return Precision("bf16" if has_bf16 else "float32" if training else "fp16", why)
    if device.type == "cpu" and training:
        speed = hardware.bf16_speed()
        why = f"this processor multiplies bf16 {_times(speed)} as fast as float32"
        return Precision("bf16" if speed >= WORTHWHILE else "float32", why)
    return Precision("float32", "the default on a CPU" if device.type == "cpu" else f"the default on {device.type}")


def _objection(device: torch.device, asked: Numbers, hardware: Hardware) -> str | None:
    """Why not to compute with the numbers that a user asks for: they are emulated."""
    if asked == "bf16" and device.type == "cuda" and hardware.capability(device) < FIRST_WITH_BF16:
        return "this GPU has no bf16 and emulates it"
    if asked == "float32" or device.type != "cpu":
        return None
    speed = hardware.bf16_speed() if asked == "bf16" else hardware.fp16_speed()
    if speed >= 1.0:
        return None
    return f"this processor emulates {asked}: it multiplies {asked} {_times(speed)} as fast as float32"


def _times(ratio: float) -> str:
    """A ratio in two digits, `0.013 times`."""
    digits = max(0, 1 - math.floor(math.log10(ratio)))
    return f"{ratio:.{digits}f} times"


def _speed(dtype: torch.dtype) -> float:
    """How many times as fast as in float32 one thread of the CPU multiplies matrices in `dtype`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several would wait for each other where other programs run
    ratio = 0.0
    for side in SIDES:
        ratio = _ratio(dtype, side)
        if ratio < HOPELESS:
            break
    torch.set_num_threads(threads)
    return ratio


def _ratio(dtype: torch.dtype, side: int) -> float:
    """The same for matrices of one size; in turns, the best of each, so that other programs do not decide."""
    matrices = {kind: torch.ones(side, side, dtype=kind) for kind in (torch.float32, dtype)}
    best = dict.fromkeys(matrices, math.inf)
    for turn in range(TURNS):
        for kind, matrix in matrices.items():
            started = time.perf_counter()
            torch.mm(matrix, matrix)
            seconds = time.perf_counter() - started
            best[kind] = min(best[kind], seconds) if turn else math.inf
    return best[torch.float32] / best[dtype]
