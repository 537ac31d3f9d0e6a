"""What is written where nothing is said, and what is lost of speech that is faint or noisy, by `seehear transcribe`.

    python benchmarks/no_speech.py corpora/grid NAME=MODEL … [--word-times word_times.tsv --noise FOLDER]
        [--split test --clips 30 --decode attention beam]

Clips of the split as they are, faint, and in noise (white; with --noise also every recording in that folder) as loud as
they are; and sound in which nobody speaks with lips that rest (the frames before the first word, back and forth, or,
without --word-times, the first frame). All as files through the same path as any recording. For each modality, and for
`auto`: the WER or the words written per clip, in brackets without the threshold on `no_speech_prob`.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import seehear
from seehear.data.clipfile import MouthClip, write_clip
from seehear.data.corpus import Corpus, Utterance
from seehear.data.media import read_audio
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.metrics import count_words, total
from seehear.recognizer import Recognizer

Sound = NDArray[np.float32]
MODALITIES = ("a", "v", "av", "auto")


def level(audio: Sound) -> float:
    """Root mean square."""
    return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)))) + 1e-12


def make_noise(kind: Sound | None, length: int, amplitude: float) -> Sound:
    """A random part of a recording, or white noise, of a root mean square; the same for equal lengths."""
    rng = np.random.default_rng(length)
    noise = rng.normal(size=length)
    if kind is not None:
        first = int(rng.integers(0, len(kind) - length))
        noise = kind[first : first + length].astype(np.float64)
    return (noise * amplitude / level(noise)).astype(np.float32)


def resting(clip: MouthClip, first_word: float | None) -> NDArray[np.uint8]:
    """Lips that do not speak: the frames before the first word, back and forth."""
    count = 1 if first_word is None else max(2, int(first_word * 25) - 3)
    mouth = clip.require_video()
    cycle = np.concatenate([mouth[:count], mouth[:count][::-1]])
    return np.tile(cycle, (-(-len(mouth) // len(cycle)), 1, 1))[: len(mouth)]


def conditions(recorded: dict[str, Sound]) -> dict[str, tuple[bool, Callable[[Sound], Sound]]]:
    """By name: whether there is speech, and what becomes of a clip's sound."""
    kinds: dict[str, Sound | None] = {"white noise": None, **recorded}
    found: dict[str, tuple[bool, Callable[[Sound], Sound]]] = {
        "speech": (True, lambda audio: audio),
        "speech, −30 dB": (True, lambda audio: audio * np.float32(10**-1.5)),
        "speech, −40 dB": (True, lambda audio: audio * np.float32(1e-2)),
    }
    for name, kind in kinds.items():
        found[f"speech in {name}, 0 dB"] = (True, lambda a, kind=kind: a + make_noise(kind, len(a), level(a)))  # type: ignore[misc]
    found["silence"] = (False, lambda audio: 0 * audio)
    found["room, −60 dB"] = (False, lambda audio: make_noise(None, len(audio), 1e-3))
    for name, kind in kinds.items():
        found[f"{name} alone, −20 dB"] = (False, lambda a, kind=kind: make_noise(kind, len(a), 0.1))  # type: ignore[misc]
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--word-times", type=Path)
    parser.add_argument("--noise", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=30)
    parser.add_argument("--decode", nargs="+", default=["attention", "beam"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    corpus = Corpus.load(options.corpus)
    utterances = corpus.split(options.split)[: options.clips]
    starts: dict[str, float] = {}
    for line in options.word_times.read_text().splitlines() if options.word_times else ():
        id, start, *_ = line.split("\t")
        starts.setdefault(id, float(start) if start[0].isdigit() else 0.0)
    recorded = {path.stem: read_audio(path) for path in sorted(options.noise.glob("*.flac"))} if options.noise else {}
    for named in options.models:
        name, _, folder = named.partition("=")
        recognizer = seehear.load(folder)
        print(f"{name}, {len(utterances)} clips of '{options.split}'\n")
        print(f"| | decoding | {' | '.join(modality.upper() for modality in MODALITIES)} |")
        print(f"| --- | --- |{' --- |' * len(MODALITIES)}")
        for condition, (speech, change) in conditions(recorded).items():
            with tempfile.TemporaryDirectory() as temporary:
                files = []
                for utterance in utterances:
                    clip = corpus.read(utterance)
                    lips = clip.require_video() if speech else resting(clip, starts.get(utterance.id))
                    files.append(Path(temporary) / f"{utterance.id}.mp4")
                    write_clip(files[-1], MouthClip(lips, change(clip.require_audio())))
                for method in options.decode:
                    decoding = DecodingOptions(DecodingMethod(method), 10, 0.5, max_length_ratio=0.4)
                    cells = [measure(recognizer, files, utterances, m, decoding, speech) for m in MODALITIES]
                    print(f"| {condition} | {method} | {' | '.join(cells)} |", flush=True)
        print()


def measure(
    recognizer: Recognizer,
    files: list[Path],
    utterances: list[Utterance],
    modality: str,
    options: DecodingOptions,
    speech: bool,
) -> str:
    """WER, or words per clip; in brackets without the threshold."""
    cells = []
    normal = recognizer.tokenizer.normaliser
    for threshold in ({}, {"no_speech_threshold": 1.0}):
        texts = []
        for _, result in recognizer.transcribe_all(files, modality, options, **threshold):  # type: ignore[arg-type]
            if isinstance(result, Exception):
                raise result
            texts.append(normal(result.text))
        if speech:
            counts = [count_words(normal(u.text or ""), text) for u, text in zip(utterances, texts, strict=True)]
            cells.append(f"{100 * (total(counts).rate or 0.0):.1f} %")
        else:
            cells.append(f"{sum(len(text.split()) for text in texts) / len(texts):.2f}")
    return cells[0] if cells[0] == cells[1] else f"{cells[0]} ({cells[1]})"


if __name__ == "__main__":
    main()
