"""Does the memory of `seehear prepare` stay flat on long recordings, and how fast is it?

    python benchmarks/prepare_long.py VIDEOS [--face-model FILE] [--minutes 10 60] [--out long-films]

VIDEOS is a folder of short videos of people who speak, such as those of GRID. They are joined, in shuffled order again
and again and with pauses of 0.5 to 3 s in which the last picture stands, into a film of each length, and each film is
prepared in a folder of its own by one worker: cut at pauses, and at the times of subtitles. For each the script prints
the clips, what was left out, the peaks of resident memory and the speed in times of real time; in the end how the peaks
of the longest film compare with those of the shortest.
"""

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np

from seehear.data.media import iter_frames, read_audio
from seehear.modality import FRAME_RATE, SAMPLE_RATE, SAMPLES_PER_FRAME, Modality
from seehear.preparation.journal import RECORDINGS
from seehear.transcript import Segment, Transcript, write_transcript


def make_film(folder: Path, videos: list[Path], minutes: float) -> Path:
    """A film `film.mp4` in `folder`, and its subtitles beside the folder; made once."""
    path = folder / "film.mp4"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    said: list[Segment] = []
    frames = 0
    temporary = path.with_suffix(".tmp.mkv")
    with av.open(str(temporary), "w") as container:
        video = container.add_stream("libx264", rate=FRAME_RATE, options={"preset": "ultrafast", "crf": "18"})
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        while frames < minutes * 60 * FRAME_RATE:
            source = rng.choice(videos)
            pictures = list(iter_frames(source))
            pause = round(rng.uniform(0.5, 3.0) * FRAME_RATE)
            noise = np.random.default_rng(frames).normal(0, 1e-4, pause * SAMPLES_PER_FRAME)
            samples = np.concatenate([read_audio(source, num_frames=len(pictures)), noise]).astype(np.float32)
            start, end = frames / FRAME_RATE, (frames + len(pictures)) / FRAME_RATE
            said.append(Segment(len(said), start, end, f"clip {source.stem}", (), 0.0))
            if not frames:
                video.height, video.width = pictures[0].shape[:2]
            voice = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
            voice.sample_rate, voice.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
            voice.pts = frames * SAMPLES_PER_FRAME
            for picture in [*pictures, *[pictures[-1]] * pause]:
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = frames, Fraction(1, FRAME_RATE)
                frames += 1
                container.mux(video.encode(frame))
            container.mux(sound.encode(voice))
        container.mux(video.encode(None))
        container.mux(sound.encode(None))
    transcript = Transcript(path.name, frames / FRAME_RATE, Modality.AUDIOVISUAL, "", tuple(said))
    write_transcript(transcript, folder.parent, folder.name, ["srt"])
    temporary.rename(path)
    return path


class Measured(NamedTuple):
    """What a run took."""

    peaks: dict[str, int]
    """Peak of resident memory of the command and of its worker, in KiB."""
    seconds: float


def prepare(folder: Path, out: Path, face_model: Path | None) -> Measured:
    """Run `seehear prepare` with one worker."""
    command = [sys.executable, "-m", "seehear", "prepare", str(folder), str(out), "--workers", "1"]
    command += ["--face-model", str(face_model)] if face_model else []
    shutil.rmtree(out, ignore_errors=True)
    started = time.monotonic()
    program = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peaks: dict[str, int] = {}
    while program.poll() is None:
        for name, pids in {"command": [program.pid], "worker": _children(program.pid)}.items():
            peaks[name] = max([peaks.get(name, 0), *map(_peak, pids)])
        time.sleep(0.2)
    if program.returncode:
        sys.exit(program.returncode)
    return Measured(peaks, time.monotonic() - started)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _peak(pid: int) -> int:
    """The largest resident memory of a process so far, in KiB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def report(name: str, out: Path, measured: Measured) -> None:
    """Print one line."""
    (recording,) = (json.loads(line) for line in (out / RECORDINGS).read_text().splitlines())
    seconds = recording["frames"] / FRAME_RATE
    memory = ", ".join(f"{process} {peak / 2**10:.0f} MiB" for process, peak in measured.peaks.items())
    left_out = f"{recording['between']:.0f} s between clips, {len(recording['without_face'])} clips without a face"
    speed = f"{seconds / measured.seconds:.2f} × real time"
    print(f"{name}: {seconds:.0f} s, {recording['parts']} clips, {left_out}; {memory}; {speed}", flush=True)


def main() -> None:
    """Make the films, prepare them, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--face-model", type=Path)
    parser.add_argument("--minutes", type=float, nargs="+", default=[10.0, 60.0])
    parser.add_argument("--out", type=Path, default=Path("long-films"))
    options = parser.parse_args()
    videos = sorted(path for path in options.videos.iterdir() if path.suffix in (".mp4", ".mpg", ".mov", ".mkv"))
    peaks: dict[str, list[dict[str, int]]] = {"pauses": [], "subtitles": []}
    for minutes in options.minutes:
        folder = options.out / f"{minutes:g}-minutes"
        film = make_film(folder, videos, minutes)
        for way, found in peaks.items():
            film.with_suffix(".srt").unlink(missing_ok=True)
            if way == "subtitles":
                shutil.copy(options.out / f"{folder.name}.srt", film.with_suffix(".srt"))
            measured = prepare(folder, options.out / f"{folder.name}-{way}", options.face_model)
            report(f"{minutes:g} minutes by {way}", options.out / f"{folder.name}-{way}", measured)
            found.append(measured.peaks)
    for way, found in peaks.items():
        ratios = ", ".join(f"{process} {found[-1][process] / found[0][process]:.2f}" for process in found[0])
        print(f"{way}: memory of the longest film by that of the shortest: {ratios}")


if __name__ == "__main__":
    main()
