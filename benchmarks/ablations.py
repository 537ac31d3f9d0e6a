"""Trains the paper's ablations at reduced size, over several seeds, and tabulates their error rates.

    python benchmarks/ablations.py CORPUS RUNS --base usr2-demo --seeds 42 43 44 [--runs usr2 ablations/ar …]

A run is the base recipe with the objective that the shipped ablation changes, or one of `supervised`, `usr2`. All runs
of a seed start from one model, which learns from the labelled clips alone for `--start-steps`; `supervised` goes on
with those. Finished runs are not repeated, interrupted ones go on, so several of these programs may share the work by
`--runs` or `--seeds`.
The tables give the mean over seeds and, in brackets, the lowest and the highest; the tests, and what each run cost.
"""

import argparse
import json
import statistics
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import tomli_w
import torch

from seehear.checkpoint import load_model
from seehear.data.corpus import Corpus
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.evaluate import evaluate
from seehear.files import write_atomically
from seehear.modality import Modality
from seehear.recipe import Recipe, load_recipe, shipped_recipe
from seehear.training.monitor import METRICS_FILE, read_metrics
from seehear.training.run import train_recipe

ABLATIONS = "ablations/"
COMPARED = ("supervised", "usr2", *(ABLATIONS + name for name in (
    "usr", "ctc-driven", "ctc-driven-attention-targets", "ctc-driven-ctc-targets", "ar", "ar-ctc-targets",
)))  # fmt: skip
"""Figure 4 at p = 0, 0.5 and 1 and Table 4, rows 1, 2 and 4 (CTC-driven), 1 and 3 (autoregressive)."""
MODALITIES = (Modality.AUDIO, Modality.VIDEO, Modality.AUDIOVISUAL)
RESULTS = "ablation.json"


def main() -> None:
    """Train what is not trained, evaluate what is not evaluated, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("runs_folder", type=Path, metavar="RUNS")
    parser.add_argument("--base", default="usr2-demo", help="recipe whose objective is varied")
    parser.add_argument("--start-steps", type=int, default=500)
    parser.add_argument("--steps", type=int, default=500, help="of each run, after the start")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--runs", nargs="+", default=COMPARED)
    parser.add_argument("--splits", nargs="+", default=["test", "test-voices", "test-long"])
    parser.add_argument("--decode", nargs="+", default=["ctc", "attention"])
    parser.add_argument("--set", nargs="+", default=[], dest="overrides", help="key=value, for every run")
    parser.add_argument("--train-only", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in options.seeds:
        common = [f"data.corpus='{options.corpus}'", f"run.seed={seed}", *options.overrides]
        start = options.runs_folder / f"start-{seed}"
        if not (start / "model").is_dir():
            train(varied(options.base, "supervised", [*common, f"run.steps={options.start_steps}"]), start)
        for run in options.runs:
            folder = options.runs_folder / f"{run.removeprefix(ABLATIONS)}-{seed}"
            if not (folder / "model").is_dir():
                own = [f"model.init='{start}'", f"run.steps={options.steps}", "objective.supervised_steps=0"]
                train(varied(options.base, run, [*common, *own]), folder)
            if not (folder / RESULTS).is_file():
                measure(options.corpus, folder, options.splits, options.decode)
    if not options.train_only:
        tabulate(options)


def varied(base: str, run: str, overrides: Sequence[str]) -> Recipe:
    """The recipe `base` with the objective of `run` in its place."""
    objective: Mapping[str, object] = {"kind": run}
    if run.startswith(ABLATIONS):
        objective = tomllib.loads(shipped_recipe(run).read_text(encoding="utf-8"))["objective"]
    settings = [f"objective.{key}={tomli_w.dumps({'x': value})[4:].strip()}" for key, value in objective.items()]
    return load_recipe(base, [*settings, *overrides])


def train(recipe: Recipe, folder: Path) -> None:
    """Train, and remember how many seconds it took."""
    started = time.monotonic()
    train_recipe(recipe, folder)
    write_atomically(folder / "seconds.txt", f"{time.monotonic() - started:.0f}\n")


def measure(corpus: Path, folder: Path, splits: Sequence[str], methods: Sequence[str]) -> None:
    """Write the error rates of a trained model by split, decoder and modality."""
    model, tokenizer = load_model(folder / "model")
    loaded = Corpus.load(corpus)
    rates: dict[str, float] = {}
    for split in splits:
        for method in methods:
            options = DecodingOptions(DecodingMethod(method), max_length_ratio=0.4)
            report = evaluate(model, tokenizer, loaded, loaded.split(split), MODALITIES, options)
            rates |= {f"{split}/{method}/{m.value}": report[m].wer or 0.0 for m in MODALITIES}
    write_atomically(folder / RESULTS, json.dumps(rates, indent=2) + "\n")


def tabulate(options: argparse.Namespace) -> None:
    """Print a table for each split and decoder, one of costs, and one of label quality."""
    folders = {
        run: [options.runs_folder / f"{run.removeprefix(ABLATIONS)}-{seed}" for seed in options.seeds]
        for run in options.runs
    }
    rates = {
        run: [json.loads((f / RESULTS).read_text(encoding="utf-8")) for f in of_run] for run, of_run in folders.items()
    }
    for split in options.splits:
        for method in options.decode:
            print(f"\n{split}, greedy {method}, seeds {options.seeds}\n\n| | A | V | AV |\n| --- | --- | --- | --- |")
            for run, of_run in rates.items():
                cells = [spread([100 * r[f"{split}/{method}/{m.value}"] for r in of_run]) for m in MODALITIES]
                print(f"| {run.removeprefix(ABLATIONS)} | {' | '.join(cells)} |")
    print("\n| | seconds | labels, last: CTC | CTC-driven | autoregressive |\n| --- | --- | --- | --- | --- |")
    for run, of_run in folders.items():
        seconds = spread([float((folder / "seconds.txt").read_text()) for folder in of_run], ".0f")
        last = [last_labels(folder) for folder in of_run]
        kinds = ("labels/ctc", "labels/ctc-driven", "labels/autoregressive")
        cells = [spread([100 * labels[kind] for labels in last]) if all(last) else "–" for kind in kinds]
        print(f"| {run.removeprefix(ABLATIONS)} | {seconds} | {' | '.join(cells)} |")


def last_labels(folder: Path) -> dict[str, float]:
    """The last error rates of the teacher's labels that a run recorded."""
    recorded = [record for record in read_metrics(folder / METRICS_FILE) if "labels/ctc" in record]
    return recorded[-1] if recorded else {}


def spread(values: Sequence[float], form: str = ".1f") -> str:
    """Mean, lowest and highest."""
    return f"{statistics.mean(values):{form}} ({min(values):{form}}–{max(values):{form}})"


if __name__ == "__main__":
    main()
