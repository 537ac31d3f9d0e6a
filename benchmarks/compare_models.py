"""Error rates of several models on one split, as a Markdown table, with differences from the first and a floor.

    python benchmarks/compare_models.py CORPUS supervised=runs/a/model "USR 2.0=runs/b/model" [--decode ctc attention …]

Intervals are at 95 %, by bootstrap over utterances; differences are paired, on the same utterances. The floor always
says the most frequent word of each position in the labelled split, and as many words as most of its sentences have.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import torch

from seehear.checkpoint import load_model
from seehear.data.corpus import Corpus, Utterance
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.evaluate import Report, compare, evaluate
from seehear.metrics import bootstrap_interval, count_words, total
from seehear.modality import Modality

MODALITIES = (Modality.AUDIO, Modality.VIDEO, Modality.AUDIOVISUAL)


def main() -> None:
    """Print a table for each way of decoding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("models", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--split", default="test")
    parser.add_argument("--decode", nargs="+", default=["ctc", "attention", "beam"])
    parser.add_argument("--beam-size", type=int, default=10)
    parser.add_argument("--ctc-weight", type=float, default=0.1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus = Corpus.load(options.corpus)
    utterances = corpus.split(options.split)
    models = {name: load_model(Path(folder)) for name, _, folder in (model.partition("=") for model in options.models)}
    print(floor(corpus.split("labelled"), utterances), f"on {len(utterances)} clips of '{options.split}'")
    for method in options.decode:
        decoding = DecodingOptions(DecodingMethod(method), options.beam_size, options.ctc_weight, max_length_ratio=0.4)
        reports = {
            name: evaluate(model, tokenizer, corpus, utterances, MODALITIES, decoding)
            for name, (model, tokenizer) in models.items()
        }
        beam = f", {decoding.beam_size} hypotheses, CTC weight {decoding.ctc_weight}" if method == "beam" else ""
        print(f"\n{method}{beam}\n\n| | A | V | AV |\n| --- | --- | --- | --- |")
        for name, report in reports.items():
            print(row(name, [rate(report, modality) for modality in MODALITIES]))
        first = next(iter(reports))
        for name in list(reports)[1:]:
            cells = [difference(reports[first], reports[name], modality) for modality in MODALITIES]
            print(row(f"{name} − {first}", cells), flush=True)


def floor(labelled: Sequence[Utterance], utterances: Sequence[Utterance]) -> str:
    """The error rate of always saying what is most frequent."""
    sentences = [(utterance.text or "").split() for utterance in labelled]
    (length, _), *_ = Counter(map(len, sentences)).most_common(1)
    columns = list(zip_longest(*sentences))[:length]
    guess = " ".join(Counter(filter(None, column)).most_common(1)[0][0] for column in columns)
    counts = [count_words(utterance.text or "", guess) for utterance in utterances]
    interval = bootstrap_interval(counts)
    assert interval is not None, "the utterances have words"
    return f"floor, always '{guess}': {100 * (total(counts).rate or 0):.1f} ({spell(*interval)})"


def rate(report: Report, modality: Modality) -> str:
    """A word error rate with its interval."""
    result = report[modality]
    assert result.wer is not None
    assert result.wer_interval is not None
    return f"{100 * result.wer:.1f} ({spell(*result.wer_interval)})"


def difference(first: Report, second: Report, modality: Modality) -> str:
    """How many points more the second errs, with interval and p."""
    compared = compare(first[modality].records, second[modality].records)
    assert compared is not None, "the utterances have words"
    return f"{100 * compared.difference:+.1f} ({spell(*compared.interval, '+')}), p = {compared.p_value:.3f}"


def spell(low: float, high: float, sign: str = "") -> str:
    """The ends of an interval in per cent."""
    return f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"


def row(name: str, cells: Sequence[str]) -> str:
    """A line of a Markdown table."""
    return f"| {name} | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
