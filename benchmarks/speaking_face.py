"""Two people side by side, one of them heard: whose lips does `seehear transcribe` read?

    python benchmarks/speaking_face.py VIDEOS corpora/grid NAME=MODEL … [--split test --films 50]

Films are made of two clips of the split with different words, side by side, with the sound of one of them; which one,
and which side it is on, is drawn. Counted: films in which the face of the one who is heard is chosen, and the word
error rate of the transcripts (auto).
"""

import argparse
import random
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

import seehear
from seehear.data.corpus import Corpus
from seehear.data.media import iter_frames, read_audio
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.metrics import count_words, total
from seehear.modality import FRAME_RATE, SAMPLE_RATE


def make_film(left: Path, right: Path, heard: Path, path: Path) -> Path:
    """The first two side by side, with the sound of the third."""
    pictures = [np.hstack(pair) for pair in zip(iter_frames(left), iter_frames(right), strict=False)]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options={"crf": "18", "preset": "ultrafast"})
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        video.height, video.width = pictures[0].shape[:2]
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(video.encode(None))
        samples = read_audio(heard, num_frames=len(pictures))[None]
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = SAMPLE_RATE, Fraction(1, SAMPLE_RATE), 0
        container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("models", nargs="+", metavar="NAME=MODEL")
    parser.add_argument("--split", default="test")
    parser.add_argument("--films", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    clips = Corpus.load(options.corpus).split(options.split)
    decoding = DecodingOptions(DecodingMethod.BEAM, 10, 0.5, max_length_ratio=0.4)
    with tempfile.TemporaryDirectory() as folder:
        films = []
        while len(films) < options.films:
            heard, other = rng.sample(clips, 2)
            if heard.text == other.text:
                continue
            side = rng.randrange(2)
            paths = [next(options.videos.glob(f"{clip.id}.*")) for clip in (heard, other)]
            left, right = paths if side == 0 else paths[::-1]
            films.append((make_film(left, right, paths[0], Path(folder) / f"{len(films)}.mp4"), side, heard.text or ""))
        for named in options.models:
            name, _, model = named.partition("=")
            recognizer = seehear.load(model)
            chosen, counts = 0, []
            results = recognizer.transcribe_all([film for film, _, _ in films], "auto", decoding)
            for (_, result), (_, side, text) in zip(results, films, strict=True):
                if isinstance(result, Exception):
                    raise result
                chosen += [segment.face for segment in result.segments[:1]] == [side]
                normal = recognizer.tokenizer.normaliser
                counts.append(count_words(normal(text), normal(result.text)))
            rate = 100 * (total(counts).rate or 0.0)
            print(f"{name}: the right face in {chosen} of {len(films)} films; WER {rate:.1f} %", flush=True)


if __name__ == "__main__":
    main()
