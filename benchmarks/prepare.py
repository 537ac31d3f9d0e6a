"""How fast videos become mouth crops, how well the crops lie, and what looking for faces in fewer frames costs.

    python benchmarks/prepare.py VIDEOS [--face-model FILE] [--clips 40] [--every 1 2 3 5] [--workers 2]
    python benchmarks/prepare.py --ready CROPS [--clips 2000] [--workers 2]
    python benchmarks/prepare.py --corpus OUT

The first form takes clips evenly from the folder VIDEOS. For each number of frames from one detection to the next it
prints the cost on one core; how far the crop strays from where detection in every frame puts it; how much it shakes;
and where mouth and eyes come to lie. Then it runs `seehear prepare` for the speed and memory of the whole. The second
form does that with as many ready crops as it is told, taking those in the folder CROPS over and over. The third form
reads what `seehear prepare` noted about a corpus. Lengths are in pixels of the crop.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from itertools import cycle, islice
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from seehear.data.face_model import face_model
from seehear.data.faces import MediaPipeDetector
from seehear.data.media import iter_frames
from seehear.data.mouth import MEAN_EYE_DISTANCE, Placement, apply, place_crop
from seehear.errors import FaceError
from seehear.modality import CROP_SIZE, FRAME_RATE
from seehear.preparation.prepare import JOURNAL

GRID = np.stack(np.meshgrid(*[np.linspace(0.0, CROP_SIZE, 9)] * 2), axis=-1).reshape(1, -1, 2)
"""(1, 81, 2) places in a crop."""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="?")
    parser.add_argument("--ready", type=Path, help="a folder of ready crops, such as the clips of a corpus")
    parser.add_argument("--corpus", type=Path, help="a corpus that `seehear prepare` made")
    parser.add_argument("--face-model", type=Path)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--every", type=int, nargs="+", default=[1, 2, 3, 5])
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.corpus:
        print_quality(options.corpus)
    if options.ready:
        crops = sorted(path for path in options.ready.rglob("*") if path.is_file())
        print(f"{options.clips} ready crops, {min(len(crops), options.clips)} of them different")
        measure_command(list(islice(cycle(crops), options.clips)), ["--detector", "cropped"], options.workers)
    if options.videos:
        everything = sorted(path for path in options.videos.iterdir() if path.is_file())
        chosen = np.unique(np.linspace(0, len(everything) - 1, options.clips).astype(int))
        clips = [everything[index] for index in chosen]
        model = face_model(options.face_model)
        compare_detection(clips, model, options.every)
        measure_command(clips, ["--face-model", str(model)], options.workers)


def print_quality(corpus: Path) -> None:
    """Where mouths and eyes lie over a whole corpus, against the mean face."""
    lines = [json.loads(line) for line in (corpus / JOURNAL).read_text(encoding="utf-8").splitlines()]
    clips = [line for line in lines if "misfit" in line]  # those with a picture
    offsets = np.array([clip["mouth_offset"] for clip in clips])
    eyes = np.array([clip["eye_distance"] for clip in clips]) - MEAN_EYE_DISTANCE
    misfit = np.array([clip["misfit"] for clip in clips])
    print(f"{corpus}: {len(clips)} clips, {sum(bool(clip['warnings']) for clip in clips)} with warnings")
    for name, values in {
        "distance of the mouth's centre": np.linalg.norm(offsets, axis=1),
        "distance between the eyes, difference": abs(eyes),
        "distance of the stable points": misfit,
    }.items():
        print(
            f"  {name:38} mean {values.mean():.2f} px, "
            f"95 % below {np.quantile(values, 0.95):.2f}, most {values.max():.2f}"
        )


def compare_detection(clips: list[Path], model: Path, every: list[int]) -> None:
    """One line for each number of frames between detections."""
    reference = place_all(clips, model, 1)[0]
    print(f"{len(reference)} clips; against detection in every frame")
    print("every  CPU ms/frame  strays px (95 %)  shakes px  mouth off px  eyes off px")
    for step in every:
        placements, cost = place_all(clips, model, step)
        strays = np.concatenate([distance(placements[path], reference[path]) for path in reference])
        shakes = np.concatenate([shaking(placement) for placement in placements.values()])
        mouth = np.mean([np.linalg.norm(placement.report.mouth_offset) for placement in placements.values()])
        eyes = np.mean([abs(placement.report.eye_distance - MEAN_EYE_DISTANCE) for placement in placements.values()])
        print(
            f"{step:5}  {cost * 1000:12.1f}  {strays.mean():5.2f} ({np.quantile(strays, 0.95):.2f})       "
            f"{shakes.mean():9.2f}  {mouth:12.2f}  {eyes:11.2f}"
        )


def place_all(clips: list[Path], model: Path, every: int) -> tuple[dict[Path, Placement], float]:
    """The placement of each clip's crop, and CPU seconds per frame, decoding included."""
    detector = MediaPipeDetector(model, every)
    placements = {}
    started = time.process_time()
    for path in clips:
        try:
            placements[path] = place_crop(iter_frames(path), detector)
        except FaceError as error:
            print(f"left out {path.name}: {error}")
    frames = sum(len(placement.to_crop) for placement in placements.values())
    return placements, (time.process_time() - started) / frames


def distance(one: Placement, other: Placement) -> NDArray[np.float64]:
    """(T,) mean distance between where two placements put the same part of the picture."""
    places = apply(np.stack([cv2.invertAffineTransform(transform) for transform in other.to_crop]), GRID)
    return np.asarray(np.linalg.norm(apply(one.to_crop, places) - GRID, axis=2).mean(1))


def shaking(placement: Placement) -> NDArray[np.float64]:
    """(T − 2,) acceleration of the crop over the picture, px per frame²: steady head movement has none."""
    centre = np.full((1, 1, 2), CROP_SIZE / 2)
    places = apply(np.stack([cv2.invertAffineTransform(transform) for transform in placement.to_crop]), centre)[:, 0]
    return np.asarray(np.linalg.norm(np.diff(places, n=2, axis=0), axis=1)) * placement.report.enlargement


def measure_command(clips: list[Path], arguments: list[str], workers: int) -> None:
    """Run `seehear prepare` on the clips and print its speed, and the memory of its largest process over time."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "videos"
        source.mkdir()
        for number, path in enumerate(clips):
            (source / f"{number:06}-{path.name}").symlink_to(path.resolve())
        command = [sys.executable, "-m", "seehear", "prepare", source, Path(folder) / "out", *arguments]
        command += ["--workers", str(workers)]
        started = time.monotonic()
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        samples: list[float] = []
        watcher = threading.Thread(target=watch_memory, args=(run, samples), daemon=True)
        watcher.start()
        run.wait()
        seconds = time.monotonic() - started
        lines = (Path(folder) / "out" / JOURNAL).read_text(encoding="utf-8").splitlines()
    length = sum(json.loads(line)["frames"] for line in lines) / FRAME_RATE
    print(
        f"seehear prepare --workers {workers}: {length:.0f} s of video in {seconds:.1f} s, "
        f"{length / seconds:.1f} × real time, {len(lines) / seconds:.1f} clips/s"
    )
    middle = len(samples) // 2
    print(
        f"largest worker: {max(samples[:middle]):.0f} MiB in the first half, {max(samples[middle:]):.0f} in the second"
    )


def watch_memory(run: "subprocess.Popen[bytes]", samples: list[float]) -> None:
    """Note the resident MiB of the largest child of `run` twice a second while it runs (Linux)."""
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    while run.poll() is None:
        try:
            sizes = [Path(f"/proc/{child}/statm").read_text().split()[1] for child in children.read_text().split()]
        except OSError:
            sizes = []
        if sizes:
            samples.append(max(map(int, sizes)) * 4096 / 2**20)
        time.sleep(0.5)


if __name__ == "__main__":
    main()
