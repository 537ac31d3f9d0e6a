"""What a prepared clip costs and keeps: size, quality and reading time of `data/clipfile.py` on real clips.

    python benchmarks/clip_codec.py CORPUS [--clips 50]

CORPUS is prepared; its clips are decoded and written again at several qualities, so that the figures are of what the
codec does to a second generation of real crops (the first one's losses are the same kind, and as large).
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from seehear.data import clipfile
from seehear.data.corpus import Corpus
from seehear.modality import FRAME_RATE


def main() -> None:
    """Print a line for each quality."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--clips", type=int, default=50)
    options = parser.parse_args()
    corpus = Corpus.load(options.corpus)
    clips = [corpus.read(utterance) for utterance in list(corpus.utterances.values())[: options.clips]]
    seconds = sum(len(clip.video) for clip in clips) / FRAME_RATE
    kept = clipfile.CRF
    for crf in sorted({14, kept, 22, 26}):
        clipfile.CRF = crf
        size, squares, sound, reading = 0, [], 0.0, 0.0
        for clip in clips:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "clip.mp4"
                clipfile.write_clip(path, clip)
                size += path.stat().st_size
                started = time.perf_counter()
                again = clipfile.read_clip(path)
                reading += time.perf_counter() - started
            squares.append(np.mean((again.video.astype(np.float64) - clip.video) ** 2))
            sound = max(sound, float(np.abs(again.audio - clip.audio).max()))
        print(
            f"CRF {crf}{' (used)' if crf == kept else '':7}  {size / len(clips) / 1000:6.1f} kB a clip  "
            f"{size / seconds * 3600 / 1e6:5.0f} MB an hour  PSNR {10 * np.log10(255**2 / np.mean(squares)):.1f} dB  "
            f"sound off by at most {sound:.1e}  read in {1000 * reading / len(clips):.1f} ms"
        )


if __name__ == "__main__":
    main()
