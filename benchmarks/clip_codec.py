"""What a prepared clip costs and keeps: size, quality, reading time, and the errors of a model that reads it.

    python benchmarks/clip_codec.py CORPUS RECORDINGS --face-model face_landmarker.task [--model DIR] [--clips 100]

The mouths are cut out of the test RECORDINGS anew and held in memory, which is lossless; then they are written and
read at several qualities. With --model, the model's word errors on the lossless clips stand beside those on each
quality. CORPUS is the prepared one that the recordings belong to: it says what is spoken.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from seehear.checkpoint import load_model
from seehear.data import clipfile
from seehear.data.clipfile import MouthClip
from seehear.data.corpus import Corpus, Utterance
from seehear.data.faces import MediaPipeDetector
from seehear.data.media import read_audio
from seehear.data.mouth import crop_video
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.evaluate import Report, compare, evaluate
from seehear.modality import FRAME_RATE, Modality

QUALITIES = (14, 22, 26)
MODALITIES = (Modality.VIDEO, Modality.AUDIOVISUAL)
Clips = Mapping[str, MouthClip]


class Held(Corpus):
    """A corpus whose clips are in memory."""

    def __init__(self, corpus: Corpus, clips: Clips) -> None:
        super().__init__(corpus.root, corpus.utterances)
        self.clips = clips

    def read(self, utterance: Utterance) -> MouthClip:
        """The clip as it is."""
        return self.clips[utterance.id]


def main() -> None:
    """Print a line for each quality."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("--face-model", type=Path, required=True)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--clips", type=int, default=100)
    options = parser.parse_args()
    corpus = Corpus.load(options.corpus)
    utterances = corpus.split(options.split)[: options.clips]
    detector = MediaPipeDetector(options.face_model)
    lossless = {u.id: cut(options.recordings / str(u.source), detector) for u in utterances}
    errors = reader(options.model, corpus, utterances) if options.model else None
    reference = errors(lossless) if errors else None
    if reference:
        print("lossless:", ", ".join(f"{r.modality.value.upper()} WER {r.wer:.2%}" for r in reference.results))
    for crf in sorted({clipfile.CRF, *QUALITIES}):
        again, line = encode(lossless, crf)
        print(line)
        for result in errors(again).results if errors and reference else ():
            before = reference[result.modality].records
            difference = compare(before, result.records)
            same = sum(a.hypothesis == b.hypothesis for a, b in zip(before, result.records, strict=True))
            low, high = difference.interval
            print(
                f"    {result.modality.value.upper()} WER {result.wer:.2%}, {difference.difference:+.2%} "
                f"({low:+.2%} to {high:+.2%}) against lossless; {same} of {len(result.records)} texts the same"
            )


def cut(path: Path, detector: MediaPipeDetector) -> MouthClip:
    """The mouth and the sound of a recording, as `seehear prepare` cuts them."""
    video = crop_video(path, detector, max_gap=40).frames
    return MouthClip(video=video, audio=read_audio(path, num_frames=len(video)))


def reader(folder: Path, corpus: Corpus, utterances: list[Utterance]) -> Callable[[Clips], Report]:
    """What evaluates the model in `folder` on clips, by greedy attention decoding."""
    model, tokenizer = load_model(folder)
    decoding = DecodingOptions(method=DecodingMethod.ATTENTION)

    def errors(clips: Clips) -> Report:
        return evaluate(model, tokenizer, Held(corpus, clips), utterances, MODALITIES, decoding)

    return errors


def turned_down(audio: NDArray[np.float32]) -> NDArray[np.float32]:
    """Sound within full scale, as prepared clips hold it."""
    return audio / max(1.0, float(np.abs(audio).max()))


def encode(clips: Clips, crf: int) -> tuple[Clips, str]:
    """Write and read `clips` at quality `crf`; what comes back, and what is to be said of it."""
    kept, clipfile.CRF = clipfile.CRF, crf
    again, size, reading = {}, 0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        for id, clip in clips.items():
            path = Path(folder) / "clip.mp4"
            clipfile.write_clip(path, clip)
            size += path.stat().st_size
            started = time.perf_counter()
            again[id] = clipfile.read_clip(path)
            reading += time.perf_counter() - started
    clipfile.CRF = kept
    seconds = sum(clip.frames for clip in clips.values()) / FRAME_RATE
    squares = np.mean(
        [np.mean((again[id].require_video().astype(float) - clip.require_video()) ** 2) for id, clip in clips.items()]
    )
    sound = max(
        float(np.abs(again[id].require_audio() - turned_down(clip.require_audio())).max()) for id, clip in clips.items()
    )
    return again, (
        f"CRF {crf}{' (used)' if crf == kept else '':7}  {size / seconds * 3 / 1000:5.1f} kB for 3 s  "
        f"{size / seconds * 3600 / 1e6:4.0f} MB an hour  PSNR {10 * np.log10(255**2 / squares):.1f} dB  "
        f"sound off by at most {sound:.1e}  read in {1000 * reading / len(clips):.1f} ms a clip"
    )


if __name__ == "__main__":
    main()
