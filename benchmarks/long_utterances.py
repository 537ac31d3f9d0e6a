"""Utterances that are longer than any clip, decoded in one piece: several clips of a split with pauses between them.

    python benchmarks/long_utterances.py corpora/grid NAME=MODEL … [--clips 1 3 6 --utterances 20 --decode beam]

Takes the clips in order, so many to an utterance, joined as `augment.join_probability` joins them (seed 0, pauses of
0.2 to 1 s), and prints the word error rate in each modality with its 95 % interval over utterances.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from seehear.checkpoint import load_model
from seehear.data.clipfile import MouthClip
from seehear.data.corpus import Corpus
from seehear.data.passages import join
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.metrics import bootstrap_interval, count_words, total
from seehear.modality import FRAME_RATE, Modality
from seehear.transcribing.batches import Input, Transcriber

PAUSES = (5, 25)
"""Frames between clips: at least, and below."""


def utterances(corpus: Corpus, split: str, clips: int, count: int) -> list[tuple[MouthClip, str]]:
    """Up to `count` of them, `clips` clips each, and what is said in them."""
    chosen, rng = corpus.split(split), np.random.default_rng(0)
    found = []
    for first in range(0, min(count * clips, len(chosen) - clips + 1), clips):
        group = chosen[first : first + clips]
        pauses = [0, *rng.integers(*PAUSES, size=clips - 1).tolist(), 0]
        joined = join([corpus.read(utterance) for utterance in group], pauses, rng)
        found.append((joined, " ".join(utterance.text or "" for utterance in group)))
    return found


def rate(transcriber: Transcriber, said: list[tuple[MouthClip, str]], modality: Modality) -> str:
    """The word error rate in %, with its interval."""
    normaliser = transcriber.tokenizer.normaliser
    counts = []
    for clip, text in said:
        audio, video = (clip.audio if modality.uses_audio else None, clip.video if modality.uses_video else None)
        (heard,) = transcriber([Input(modality, clip.frames, audio, video)])
        counts.append(count_words(normaliser(text), normaliser(heard.text)))
    low, high = bootstrap_interval(counts)
    return f"{100 * (total(counts).rate or 0):.1f} ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, nargs="+", default=[1, 3, 6])
    parser.add_argument("--utterances", type=int, default=20)
    parser.add_argument("--decode", nargs="+", default=["attention", "beam"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus = Corpus.load(options.corpus)
    for clips in options.clips:
        said = utterances(corpus, options.split, clips, options.utterances)
        seconds = float(np.mean([clip.frames for clip, _ in said])) / FRAME_RATE
        print(f"\n{len(said)} utterances of {clips} clips, {seconds:.1f} s on average\n")
        print(f"| | {' | '.join(modality.value.upper() for modality in Modality)} |\n| --- |{' --- |' * len(Modality)}")
        for named in options.models:
            name, _, folder = named.rpartition("=")
            model, tokenizer = load_model(Path(folder))
            for method in options.decode:
                decoding = DecodingOptions(DecodingMethod(method), 10, 0.5, max_length_ratio=0.4)
                transcriber = Transcriber(model, tokenizer, decoding)
                cells = " | ".join(rate(transcriber, said, modality) for modality in Modality)
                print(f"| {name or folder}, {method} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
