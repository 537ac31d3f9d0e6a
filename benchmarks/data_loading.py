"""Whether reading keeps up with training: clips read, augmented and batched, against the steps that use them.

    python benchmarks/data_loading.py CORPUS [--recipe supervised-grid] [--steps 20]

Prints the time of a step's batch in one reading process without and with its memory of decoded clips, the time of the
step itself on the same machine in the same run, and their ratio: below 1 one reading process is enough.
"""

import argparse
import time
from pathlib import Path

import torch

from seehear.data.batch import TrainingClips, collate
from seehear.data.sampler import FrameBatchSampler
from seehear.devices import choose_precision
from seehear.model.usr import USR
from seehear.objectives.base import StepBatch
from seehear.recipe import load_recipe
from seehear.tokenizer import Tokenizer
from seehear.training.material import load_material
from seehear.training.optim import build_optimiser
from seehear.training.run import build_objective


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--recipe", default="supervised-grid")
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()

    recipe = load_recipe(options.recipe, [f"data.corpus={str(options.corpus)!r}", "objective.kind=supervised"])
    material = load_material(recipe)
    texts = [utterance.text or "" for utterance in material.labelled]
    tokenizer = Tokenizer.train(texts, recipe.model.resolve().vocab_size)
    sampler = FrameBatchSampler([u.frames for u in material.labelled], recipe.data.labelled_frames, seed=0)
    indices = [index for epoch in range(100) for index in sampler.epoch(epoch)][: options.steps]

    def read(clips: TrainingClips) -> float:
        started = time.perf_counter()
        for batch in indices:
            collate([clips[index] for index in batch])
        return (time.perf_counter() - started) / len(indices)

    fresh = TrainingClips(material.corpus, material.labelled, recipe.augment, tokenizer)
    kept = TrainingClips(material.corpus, material.labelled, recipe.augment, tokenizer, cache_bytes=10**9)
    decoding = read(fresh)
    read(kept)
    remembering = read(kept)

    student = USR(recipe.model.resolve(tokenizer.vocab_size))
    objective = build_objective(recipe, student, options.steps).train()
    optimiser = build_optimiser(objective, recipe.optimiser)
    batches = [StepBatch(collate([kept[index] for index in batch])) for batch in indices]

    bf16 = choose_precision(torch.device("cpu"), recipe.run.precision, training=True).numbers == "bf16"

    def step(batch: StepBatch) -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses = objective(batch, 0)
        losses.total.backward()
        optimiser.step()

    step(batches[0])
    started = time.perf_counter()
    for batch in batches:
        step(batch)
    training = (time.perf_counter() - started) / len(batches)

    clips = sum(map(len, indices)) / len(indices)
    print(f"{recipe.model.size}, {clips:.1f} clips a step, {torch.get_num_threads()} threads for the arithmetic")
    for name, seconds in (("decoded each time", decoding), ("kept in memory", remembering)):
        print(f"reading, {name:18} {1000 * seconds:7.1f} ms a step, {seconds / training:.2f} of the training step")
    print(f"training step {'':21} {1000 * training:7.1f} ms")


if __name__ == "__main__":
    main()
