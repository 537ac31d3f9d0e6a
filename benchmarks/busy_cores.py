"""What a busy program on one core does to training, encoding and search, by how OpenMP's threads wait.

    python benchmarks/busy_cores.py [--rounds 5 --seconds 10 --threads 2 --output busy_cores.json]

Every figure is the median over rounds; in a round all ways of waiting take turns, without and with an endless loop on
the first core, each in a process of its own, since OpenMP reads its settings once. Training: steps of the demo's USR
2.0 recipe in float32 (the tiny model). Encoding: the base model on sound and lips of one clip. Search: the joint search
of the base model with 10 hypotheses. All in video frames a second, on random weights and clips.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

WAITING: Mapping[str, Mapping[str, str]] = {
    "as it is": {},
    "GOMP_SPINCOUNT=10000": {"GOMP_SPINCOUNT": "10000"},
    "GOMP_SPINCOUNT=1000": {"GOMP_SPINCOUNT": "1000"},
    "GOMP_SPINCOUNT=100": {"GOMP_SPINCOUNT": "100"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
KINDS = ("training", "encoding", "search")
LOADS = ("quiet", "busy")
CLIP_FRAMES = 50
"""Frames of a clip in training, two seconds."""
LONG_FRAMES = 150
"""Frames of the clip that is encoded and searched, six seconds."""


def main() -> None:
    """Measure, print a table, and write every figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement, without its start")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of the arithmetic")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--output", type=Path, help="JSON file for every figure")
    parser.add_argument("--work", choices=KINDS, help=argparse.SUPPRESS)  # what the processes are started with
    options = parser.parse_args()
    if options.work:
        print(json.dumps(frames_per_second(options.work, options.seconds)))
        return
    speeds = measure(options)
    if options.output:
        options.output.write_text(json.dumps(speeds, indent=2) + "\n")
    print(f"{options.threads} threads of {os.cpu_count()} cores, median of {options.rounds}, frames/s\n")
    columns = [f"{kind}, {load}" for kind in options.kinds for load in LOADS]
    print(f"| | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}")
    for name, by_column in speeds.items():
        cells = [
            f"{statistics.median(by_column[c]):.0f} ({min(by_column[c]):.0f}–{max(by_column[c]):.0f})" for c in columns
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def measure(options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Frames a second of each round, by way of waiting and by `kind, load`."""
    speeds: dict[str, dict[str, list[float]]] = {name: {} for name in WAITING}
    command = [sys.executable, __file__, "--seconds", str(options.seconds), "--work"]
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    for _ in range(options.rounds):
        for kind in options.kinds:
            for load in LOADS:
                for name, variables in WAITING.items():
                    environment = {**clean, "OMP_NUM_THREADS": str(options.threads), **variables}
                    with busy_core(load == "busy"):
                        run = subprocess.run([*command, kind], env=environment, check=True, capture_output=True)
                    speeds[name].setdefault(f"{kind}, {load}", []).append(json.loads(run.stdout))
    return speeds


@contextmanager
def busy_core(wanted: bool) -> Iterator[None]:
    """An endless loop on the first core, if it is wanted."""
    code = "import os\nos.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\nwhile True: pass"
    loop = subprocess.Popen([sys.executable, "-c", code]) if wanted else None
    try:
        yield
    finally:
        if loop:
            loop.kill()
            loop.wait()


def frames_per_second(kind: str, seconds: float) -> float:
    """The speed of one kind of work in this process, over so many seconds after two runs to warm up."""
    frames, work = {"training": training, "encoding": encoding, "search": search}[kind]()
    work()
    work()
    started, runs = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        work()
        runs += 1
    return frames * runs / (time.perf_counter() - started)


def training() -> tuple[int, Callable[[], object]]:
    """Frames of a step of the demo's recipe, and the step."""
    import torch

    from seehear.model.usr import USR
    from seehear.objectives.base import StepBatch
    from seehear.recipe import load_recipe
    from seehear.training.optim import build_optimiser
    from seehear.training.run import build_objective
    from training_step import never_ends, random_batch

    recipe = load_recipe("usr2-demo")
    torch.manual_seed(0)
    settings = argparse.Namespace(size=recipe.model.size, tokens=8)
    sizes = (recipe.data.labelled_frames, recipe.data.unlabelled_frames)
    batch = StepBatch(*(random_batch(frames // CLIP_FRAMES, CLIP_FRAMES, settings) for frames in sizes))
    student = never_ends(USR(recipe.model.resolve(48)))
    objective = build_objective(recipe, student, steps=1000).train()
    optimiser = build_optimiser(objective, recipe.optimiser)
    step = recipe.objective.supervised_steps + recipe.objective.gamma_rise_steps

    def work() -> None:
        optimiser.zero_grad(set_to_none=True)
        objective(batch, step).total.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        objective.after_step(step)

    return batch.num_frames, work


def encoding() -> tuple[int, Callable[[], object]]:
    """Frames of a clip, and its encoding."""
    import torch

    from seehear.config import SIZES
    from seehear.modality import INPUT_SIZE, SAMPLES_PER_FRAME, Modality
    from seehear.model.usr import USR

    torch.manual_seed(0)
    model = USR(SIZES["base"]).eval()
    video, audio = torch.randn(1, LONG_FRAMES, INPUT_SIZE, INPUT_SIZE), torch.randn(1, LONG_FRAMES * SAMPLES_PER_FRAME)
    mask = torch.ones(1, LONG_FRAMES, dtype=torch.bool)

    @torch.no_grad()
    def work() -> object:
        return model.encode(video, audio, mask, [Modality.AUDIOVISUAL])

    return LONG_FRAMES, work


def search() -> tuple[int, Callable[[], object]]:
    """Frames of a clip, and the joint search on its features."""
    import torch

    from seehear.config import SIZES
    from seehear.decoding.beam_search import beam_search
    from seehear.decoding.options import DecodingOptions
    from seehear.modality import Modality
    from seehear.model.usr import USR
    from training_step import never_ends

    torch.manual_seed(0)
    model = never_ends(USR(SIZES["base"]).eval())
    features, mask = torch.randn(1, LONG_FRAMES, model.config.dim), torch.ones(1, LONG_FRAMES, dtype=torch.bool)
    options = DecodingOptions(beam_size=10, max_length_ratio=0.2)

    @torch.no_grad()
    def work() -> object:
        return beam_search(model, features, mask, Modality.AUDIOVISUAL, options, n_best=1)

    return LONG_FRAMES, work


if __name__ == "__main__":
    main()
