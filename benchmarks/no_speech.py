"""What models write where nothing is said, and whether CTC knows: does its probability of no speech tell the two apart?

    python benchmarks/no_speech.py corpora/grid NAME=MODEL … [--split test --clips 30 --decode attention beam]

Clips of the split as they are, faint (−30 dB) and in white noise as loud as they are; and with a still mouth (the first
frame) or a black picture, in silence, faint or loud noise. For each modality: the median of the probability, how many
clips are above 0.6 and 0.9, and the words written per clip, or the WER where something is said, of all clips and (in
brackets) if nothing were written for those above 0.9.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from seehear.checkpoint import load_model
from seehear.data.batch import single
from seehear.data.clipfile import MouthClip
from seehear.data.corpus import Corpus, Utterance
from seehear.decoding.ctc import BLANK
from seehear.decoding.decode import decode_batch
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.metrics import count_words, total
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.tokenizer import Tokenizer

GATE = 0.9


def noise(like: NDArray[np.float32], amplitude: float) -> NDArray[np.float32]:
    """White noise of a root mean square of `amplitude`, the same for equal clips."""
    return np.random.default_rng(len(like)).normal(0.0, amplitude, len(like)).astype(np.float32)


def still(clip: MouthClip, audio: NDArray[np.float32]) -> MouthClip:
    """A mouth that does not move."""
    return MouthClip(np.repeat(clip.video[:1], len(clip.video), 0), audio)


SPEECH: dict[str, Callable[[MouthClip], MouthClip]] = {
    "as it is": lambda clip: clip,
    "faint, −30 dB": lambda clip: MouthClip(clip.video, 0.0316 * clip.audio),
    "in white noise, 0 dB": lambda clip: MouthClip(
        clip.video, clip.audio + noise(clip.audio, float(np.sqrt(np.square(clip.audio).mean())))
    ),
}
NO_SPEECH: dict[str, Callable[[MouthClip], MouthClip]] = {
    "still mouth, silence": lambda clip: still(clip, 0.0 * clip.audio),
    "still mouth, noise at −60 dB": lambda clip: still(clip, noise(clip.audio, 1e-3)),
    "still mouth, noise at −20 dB": lambda clip: still(clip, noise(clip.audio, 1e-1)),
    "black picture, silence": lambda clip: MouthClip(0 * clip.video, 0.0 * clip.audio),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=30)
    parser.add_argument("--decode", nargs="+", default=["attention", "beam"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus = Corpus.load(options.corpus)
    utterances = corpus.split(options.split)[: options.clips]
    methods = {name: DecodingOptions(DecodingMethod(name), 10, 0.5, max_length_ratio=0.4) for name in options.decode}
    for named in options.models:
        name, _, folder = named.partition("=")
        model, tokenizer = load_model(Path(folder))
        print(f"{name}, {len(utterances)} clips of '{options.split}'\n")
        print(f"| | | P(no speech) | > 0.6; > 0.9 | {' | '.join(methods)} |")
        print(f"| --- | --- | --- | --- |{' --- |' * len(methods)}")
        for condition, change in {**SPEECH, **NO_SPEECH}.items():
            clips = [change(corpus.read(utterance)) for utterance in utterances]
            for modality in Modality:
                cells = measure(model, tokenizer, utterances, clips, modality, methods, condition in SPEECH)
                print(f"| {condition} | {modality.value.upper()} | {' | '.join(cells)} |", flush=True)
        print()


@torch.no_grad()
def measure(
    model: USR,
    tokenizer: Tokenizer,
    utterances: list[Utterance],
    clips: list[MouthClip],
    modality: Modality,
    methods: dict[str, DecodingOptions],
    speech: bool,
) -> list[str]:
    """The cells of a line."""
    probabilities: list[float] = []
    texts: dict[str, list[str]] = {name: [] for name in methods}
    for clip in clips:
        batch = single(clip)
        features = model.encode(batch.video, batch.audio, batch.mask, [modality])[modality]
        blanks = model.ctc_logits(features, modality).log_softmax(-1)[..., BLANK]
        probabilities.append(float(blanks.sum().exp()))
        for name, options in methods.items():
            (tokens,) = decode_batch(model, features, batch.mask, modality, options)
            texts[name].append(tokenizer.decode(tokens))
    sure = np.array(probabilities)
    cells = [f"{np.median(sure):.3f}", f"{(sure > 0.6).sum()}; {(sure > GATE).sum()}"]
    for said in texts.values():
        gated = ["" if probability > GATE else text for text, probability in zip(said, sure, strict=True)]
        cells.append(" (".join(written(tokenizer, utterances, rows, speech) for rows in (said, gated)) + ")")
    return cells


def written(tokenizer: Tokenizer, utterances: list[Utterance], texts: list[str], speech: bool) -> str:
    """WER, or words per clip."""
    if not speech:
        return f"{sum(len(text.split()) for text in texts) / len(texts):.1f} words"
    normal = tokenizer.normaliser
    counts = [count_words(normal(u.text or ""), normal(text)) for u, text in zip(utterances, texts, strict=True)]
    return f"{100 * (total(counts).rate or 0.0):.1f} %"


if __name__ == "__main__":
    main()
