"""How far the times of words are from those that GRID's corpus gives, the words being known, or recognised.

    python benchmarks/word_times.py corpora/grid word_times.tsv MODEL [--split test] [--recognise]

WORD_TIMES has lines of clip, start, end (seconds) and word, tabs between. Mean absolute error of starts and ends in ms,
with a 95 % interval over clips: by the frames that CTC's best labelling gives a word's tokens, and by what the decoder
has heard them by (`seehear.decoding.word_times`). With `--recognise` the words are those of greedy attention decoding,
and the ones that are right (in the same order as in the truth) count.
"""

import argparse
import itertools
from collections import defaultdict
from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from seehear.checkpoint import load_model
from seehear.data.batch import evaluation_batches
from seehear.data.corpus import Corpus
from seehear.decoding.alignment import align
from seehear.decoding.greedy import attention_greedy
from seehear.decoding.word_times import time_words
from seehear.modality import FRAME_RATE, Modality

A, V, AV = Modality.AUDIO, Modality.VIDEO, Modality.AUDIOVISUAL
HEARD_BY = {"A": (A,), "V": (V,), "AV, its own stream": (AV,), "AV, all three": (V, A, AV)}
"""The streams whose gradients are asked, for each row."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("word_times", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--recognise", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    truth: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
    for line in options.word_times.read_text(encoding="utf-8").splitlines():
        id, start, end, word = line.split("\t")
        truth[id].append((float(start), float(end), word))
    model, tokenizer = load_model(options.model)
    corpus = Corpus.load(options.corpus)
    errors: dict[tuple[str, str], list[NDArray[np.float64]]] = defaultdict(list)
    for batch in evaluation_batches(corpus, corpus.split(options.split), max_frames=600):
        with torch.no_grad():
            streams = model.streams(batch.video, batch.audio, batch.mask, (V, A, AV), mask_padding=True)
            features = model.contextualise(streams, batch.mask)
        for name, heard_by in HEARD_BY.items():
            modality = heard_by[-1]
            given = features[modality], batch.mask
            if options.recognise:
                rows = attention_greedy(model, *given, modality, 40).to_lists(model.eos)
            else:
                rows = [tokenizer.encode(text or "") for text in batch.texts]
            words = [tokenizer.words(row) for row in rows]
            heard = time_words(model, {m: streams[m] for m in heard_by}, batch.mask, words, modality)
            by_ctc = align(model.ctc_logits(given[0], modality).float().log_softmax(-1).detach(), batch.mask, rows)
            for clip, id in enumerate(batch.ids):
                known, said = truth[id], words[clip]
                matched = same_words([word for *_, word in known], [tokenizer.decode(word) for word in said])
                spans = np.cumsum([0, *map(len, said)])
                labelled = [(by_ctc[clip][i].start, by_ctc[clip][j - 1].end) for i, j in itertools.pairwise(spans)]
                for method, times in (("decoder", [(t.start, t.end) for t in heard[clip]]), ("CTC", labelled)):
                    found = [np.subtract(np.array(times[j]) / FRAME_RATE, known[i][:2]) for i, j in matched]
                    errors[method, name].append(1000 * np.array(found).reshape(-1, 2))
    print("| words | by | starts, ms | ends, ms | words | median of both |\n| --- | --- | --- | --- | --- | --- |")
    for (method, name), by_clip in sorted(errors.items()):
        every = np.abs(np.concatenate(by_clip))
        cells = [f"{every[:, side].mean():.0f} ({interval(by_clip, side)})" for side in (0, 1)]
        print(f"| {name} | {method} | {' | '.join(cells)} | {len(every)} | {np.median(every):.0f} |")


def same_words(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int]]:
    """Places of the words that both have, in order."""
    blocks = SequenceMatcher(
        None, [w.casefold() for w in first], [w.casefold() for w in second], False
    ).get_matching_blocks()
    return [(block.a + k, block.b + k) for block in blocks for k in range(block.size)]


def interval(by_clip: Sequence[NDArray[np.float64]], side: int) -> str:
    """Bootstrap over clips, 95 %, of the mean absolute error."""
    rng = np.random.default_rng(0)
    sums = np.array([np.abs(clip[:, side]).sum() for clip in by_clip])
    counts = np.array([len(clip) for clip in by_clip])
    chosen = rng.integers(len(by_clip), size=(1000, len(by_clip)))
    low, high = np.percentile(sums[chosen].sum(1) / counts[chosen].sum(1), [2.5, 97.5])
    return f"{low:.0f} to {high:.0f}"


if __name__ == "__main__":
    main()
