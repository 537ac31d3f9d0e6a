"""Hours of speech in one file: does memory stay flat, and are the words those of the clips one by one?

    python benchmarks/long_recording.py make films/ corpora/grid --videos VIDEOS --minutes 10 120
    python benchmarks/long_recording.py transcribe corpora/grid MODEL films/10.mp4 films/120.mp4 [--modality a]

`make` joins the clips of a split, in shuffled order again and again, with pauses of 0.5 to 3 s (the clip's last
picture, and noise as faint as between words) into films, and writes beside each what is said when. `transcribe` runs
`seehear transcribe` on them and tells the peak of its memory (that of the reading process beside it), its speed, and
the word error rate, beside the rate of the clips one by one.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from seehear.checkpoint import load_model
from seehear.data.corpus import Corpus
from seehear.data.media import iter_frames, read_audio
from seehear.metrics import bootstrap_interval, count_words, total
from seehear.modality import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME


def make(options: argparse.Namespace) -> None:
    """Write the films."""
    corpus = Corpus.load(options.corpus)
    utterances = corpus.split(options.split)
    options.films.mkdir(parents=True, exist_ok=True)
    for minutes in options.minutes:
        rng = random.Random(options.seed)
        said = []
        with av.open(str(options.films / f"{minutes:g}.mp4"), "w") as container:
            video = container.add_stream("libx264", rate=FRAME_RATE, options={"preset": "ultrafast", "crf": "18"})
            sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
            frames = 0
            while frames < minutes * 60 * FRAME_RATE:
                for utterance in rng.sample(utterances, len(utterances)):
                    pictures, audio = _clip(options.videos, utterance.id)
                    pause = round(rng.uniform(0.5, 3.0) * FRAME_RATE)
                    noise = np.random.default_rng(frames).normal(0, 1e-4, pause * SAMPLES_PER_FRAME)
                    said.append({"id": utterance.id, "start": frames / FRAME_RATE, "text": utterance.text})
                    if not frames:
                        video.height, video.width = pictures[0].shape[:2]
                    for picture in [*pictures, *[pictures[-1]] * pause]:
                        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                        frame.pts, frame.time_base = frames, Fraction(1, FRAME_RATE)
                        frames += 1
                        container.mux(video.encode(frame))
                    samples = np.concatenate([audio, noise]).astype(np.float32)[None]
                    piece = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                    piece.sample_rate, piece.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
                    piece.pts = (frames - len(pictures) - pause) * SAMPLES_PER_FRAME
                    container.mux(sound.encode(piece))
                    if frames >= minutes * 60 * FRAME_RATE:
                        break
            container.mux(video.encode(None))
            container.mux(sound.encode(None))
        (options.films / f"{minutes:g}.json").write_text(json.dumps(said))
        print(f"{minutes:g}.mp4: {len(said)} clips, {frames / FRAME_RATE:.0f} s", flush=True)


def _clip(folder: Path, id: str) -> tuple[list[Any], Any]:
    """Pictures and sound of a video."""
    path = next(folder.glob(f"{id}.*"))
    pictures = list(iter_frames(path))
    return pictures, read_audio(path, num_frames=len(pictures))


def transcribe(options: argparse.Namespace) -> None:
    """Measure and print."""
    tokenizer = load_model(options.model)[1]
    for film in options.films:
        command = [sys.executable, "-m", "seehear", "transcribe", str(film), "--model", str(options.model)]
        command += ["--modality", options.modality, "--beam_size", str(options.beam_size), "--ctc_weight", "0.5"]
        command += ["--max_length_ratio", "0.4", "--threads", "1", "-o", str(options.out), "-f", "json,srt"]
        started = time.monotonic()
        program = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        peaks: dict[str, int] = {}
        while program.poll() is None:
            for name, pid in {"program": program.pid, "reader": _child(program.pid)}.items():
                peaks[name] = max(peaks.get(name, 0), _peak(pid))
            time.sleep(0.5)
        took = time.monotonic() - started
        if program.returncode:
            sys.exit(program.returncode)
        found = json.loads((options.out / f"{film.stem}.json").read_text())
        said = json.loads(film.with_suffix(".json").read_text())
        counts = [
            count_words(tokenizer.normaliser(s["text"]), heard)
            for s, heard in zip(said, _by_clip(said, found, tokenizer.normaliser), strict=True)
        ]
        low, high = bootstrap_interval(counts)
        memory = ", ".join(f"{name} {peak / 2**10:.0f} MiB" for name, peak in peaks.items())
        rate = f"WER {100 * (total(counts).rate or 0):.2f} % ({100 * low:.2f}–{100 * high:.2f})"
        segments = f"{len(found['segments'])} segments for {len(said)} clips"
        speed = f"{found['duration'] / took:.2f} × real time"
        print(f"{film.name}, {options.modality}: {rate}, {segments}; {memory}; {speed}", flush=True)


def _by_clip(said: list[dict[str, Any]], found: dict[str, Any], normaliser: Any) -> list[str]:
    """What was heard from each clip's start to the next one's: segments go where their middle lies."""
    starts = [clip["start"] for clip in said]
    texts: list[list[str]] = [[] for _ in said]
    for segment in found["segments"]:
        middle = (segment["start"] + segment["end"]) / 2
        texts[max(0, int(np.searchsorted(starts, middle, "right")) - 1)].append(segment["text"])
    return [normaliser(" ".join(parts)) for parts in texts]


def _child(pid: int) -> int | None:
    """The first child of a process."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def _peak(pid: int | None) -> int:
    """The largest resident memory of a process so far, in KiB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def main() -> None:
    """Make films, or transcribe them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    maker = commands.add_parser("make")
    maker.set_defaults(run=make)
    maker.add_argument("films", type=Path)
    maker.add_argument("corpus", type=Path)
    maker.add_argument("--videos", type=Path, required=True)
    maker.add_argument("--split", default="test")
    maker.add_argument("--minutes", type=float, nargs="+", default=[10, 120])
    maker.add_argument("--seed", type=int, default=0)
    runner = commands.add_parser("transcribe")
    runner.set_defaults(run=transcribe)
    runner.add_argument("corpus", type=Path)
    runner.add_argument("model", type=Path)
    runner.add_argument("films", type=Path, nargs="+")
    runner.add_argument("--modality", default="auto")
    runner.add_argument("--beam_size", type=int, default=10)
    runner.add_argument("--out", type=Path, default=Path("long-recordings"))
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
