"""Converting a published file: private memory, and time against reading the file and writing the model.

    python benchmarks/convert.py WORK [--size huge] [--half] [--teacher] [--runs 3]

Makes a file of the fine-tuned layout in WORK (at size Huge 7.6 GB, kept for the next time), with random numbers in the
student. Each run converts it, reads it in blocks, and writes a file as large as the model in blocks, each in a process
of its own; times are medians. Exits with 1 if private memory exceeds 1.2 times the model that is kept, or conversion
takes more than 1.5 times as long as reading and writing. Imports are not timed; their memory counts.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import torch

from peak_memory import Peak, in_its_own_process
from seehear.checkpoint import WEIGHTS_FILE
from seehear.cli.convert import convert
from seehear.config import SIZES
from seehear.convert import LEFT_OUT, to_published
from seehear.model.usr import USR
from seehear.model.weights import WithoutStartValues

MEMORY_LIMIT = 1.2
TIME_LIMIT = 1.5
BLOCK = 16 * 2**20
"""Bytes that are read and written at once."""


def make_file(path: Path, size: str) -> None:
    """Write a fine-tuned file; all but the student is zeros, which take no memory until they are written."""
    torch.manual_seed(0)
    config = SIZES[size]
    with WithoutStartValues():
        student = to_published(USR(config))
    for value in student.values():
        value.normal_(0, 0.02).abs_() if value.is_floating_point() else value.zero_()
    average = {f"model.target_backbone.{name}": torch.zeros_like(value) for name, value in student.items()}
    layers = [name.removesuffix("*") for name in LEFT_OUT if name.startswith("out_layer_unlabelled")]
    others = {f"model.{name}weight": torch.zeros(config.vocab_size, config.dim) for name in layers}
    others |= {f"model.{name}bias": torch.zeros(config.vocab_size) for name in layers}
    others |= {f"model.layer_norm.{name}": torch.zeros(config.dim) for name in ("weight", "bias")}
    temporary = path.with_suffix(".tmp")
    torch.save({f"model.backbone.{name}": value for name, value in student.items()} | average | others, temporary)
    temporary.replace(path)


def make_units(path: Path) -> None:
    """Write a list of units of the published length."""
    path.write_text("<unk> 1\n" + "".join(f"▁W{number} {number + 2}\n" for number in range(1046)), encoding="utf-8")


def measure_conversion(file: Path, units: Path, out: Path, half: bool, teacher: bool) -> None:
    """Convert, and print memory and time."""
    os.sync()
    with Peak() as peak:
        convert(file, out, units, teacher=teacher, half=half)
    print(json.dumps(peak.result()))


def measure_copying(file: Path, out: Path, model_bytes: int) -> None:
    """Read a file, write as many bytes as the model has, and print the seconds of both."""
    os.sync()
    block = bytearray(os.urandom(BLOCK))
    start = time.perf_counter()
    with file.open("rb", buffering=0) as source:
        while source.readinto(block):
            pass
    read = time.perf_counter()
    with out.open("wb", buffering=0) as target:
        for first in range(0, model_bytes, BLOCK):
            target.write(memoryview(block)[: min(BLOCK, model_bytes - first)])
    written = time.perf_counter()
    out.unlink()
    print(json.dumps({"read": read - start, "write": written - read}))


def main() -> int:
    """Measure and print; 1 if a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--size", default="base", choices=[size for size in SIZES if SIZES[size].vocab_size == 1049])
    parser.add_argument("--half", action="store_true")
    parser.add_argument("--teacher", action="store_true")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--step", choices=["make", "convert", "copy"], help=argparse.SUPPRESS)
    parser.add_argument("--bytes", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    file, units, out = (options.work / name for name in (f"{options.size}.pth", "units.txt", f"{options.size}-model"))
    if options.step == "make":
        make_file(file, options.size)
        print("{}")
        return 0
    if options.step == "convert":
        measure_conversion(file, units, out, options.half, options.teacher)
        return 0
    if options.step == "copy":
        measure_copying(file, options.work / "copy.tmp", options.bytes)
        return 0
    make_units(units)
    given = [str(options.work), "--size", options.size]
    if not file.is_file():
        in_its_own_process([*given, "--step", "make"])
    how = ["--half"] * options.half + ["--teacher"] * options.teacher
    conversions, copies = [], []
    for _ in range(options.runs):
        conversions.append(in_its_own_process([*given, "--step", "convert", *how]))
        model_bytes = (out / WEIGHTS_FILE).stat().st_size
        copies.append(in_its_own_process([*given, "--step", "copy", "--bytes", str(model_bytes)]))
    return report(options.size, file.stat().st_size, model_bytes, conversions, copies)


def report(
    size: str, file_bytes: int, model_bytes: int, conversions: list[dict[str, float]], copies: list[dict[str, float]]
) -> int:
    """Print the figures; 1 if a limit is exceeded."""
    private = max(run["private"] for run in conversions)
    seconds = statistics.median(run["seconds"] for run in conversions)
    read, write = (statistics.median(run[key] for run in copies) for key in ("read", "write"))
    memory_ratio, time_ratio = private / model_bytes, seconds / (read + write)
    print(f"{size}: file {file_bytes:,} bytes, model {model_bytes:,} bytes, {len(conversions)} runs")
    print(f"private memory: {private / 1e6:,.0f} MB, {memory_ratio:.2f} times the model (limit {MEMORY_LIMIT})")
    print(
        f"time: {seconds:.2f} s, {time_ratio:.2f} times reading the file ({read:.2f} s) and writing the model "
        f"({write:.2f} s) (limit {TIME_LIMIT})"
    )
    return int(memory_ratio > MEMORY_LIMIT or time_ratio > TIME_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
