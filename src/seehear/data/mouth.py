"""From a video to its mouth: 96×96 grey crops of one face, aligned to a mean face (METHOD §1, "Mouth crop geometry").

The face's shape is smoothed over time while each frame keeps its own centre of gravity; a similarity transform takes
eight stable points onto the mean face; the crop is the window around the lips there. The transform and the window
are applied in one warp, so a pixel is interpolated once and the window need not fall on whole pixels.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from seehear.data.cuts import CutFinder
from seehear.data.faces import LIPS, STABLE, FaceDetector
from seehear.data.media import Warn, iter_frames
from seehear.data.tracks import Sighting, Track, choose_track, fill_gaps, link_faces
from seehear.errors import FaceError
from seehear.modality import CROP_SIZE, FRAME_RATE

Array = NDArray[np.float64]

GEOMETRY_VERSION = 1
"""Raised when the same video would be cropped differently."""
FACE_FRAME = 256
"""Side of the frame in which the mean face lies, in pixels."""
MEAN_FACE = np.array(
    [
        (92.5, 94.4),
        (112.8, 94.9),
        (145.5, 94.5),
        (166.7, 93.6),
        (128.5, 106.9),
        (128.9, 137.3),
        (107.2, 157.2),
        (152.2, 157.0),
    ]
)
"""(8, 2) the stable points of the mean face."""
MEAN_MOUTH = np.array((129.3, 157.8))
"""(2,) mean of its lip points."""
MEAN_EYE_DISTANCE = float(np.linalg.norm(MEAN_FACE[3] - MEAN_FACE[0]))
"""Pixels between the outer corners of its eyes."""

SMOOTHING = 12
"""Frames between the ends of the smoothing window: six on either side, fewer near the ends of a clip."""
MAX_GAP = 25
"""Frames in a row (one second) over which a missing face is interpolated or copied."""
TYPICAL_ERROR = 3.0
"""Pixels in the mean face's frame beyond which a stable point counts less in the alignment."""

FLAT = 2.0
"""Standard deviation of grey, of 256 levels, below which a frame shows nothing."""
LARGEST_ENLARGEMENT = 2.0
"""Faces that must be enlarged more than this are warned of."""
LARGEST_MISFIT = 6.0
"""Mean distance of the stable points from the mean face's, in pixels, beyond which the crop is warned of."""
LARGEST_OUTSIDE = 0.1
"""Share of the crop outside the picture that is warned of."""


@dataclass(frozen=True)
class TrackReport:
    """How good a crop is, and which face it shows. Lengths are in pixels of the mean face's frame unless said."""

    faces: int
    """Faces that were told apart in the video."""
    chosen: str
    """Which one is cropped, and why."""
    detected: float
    """Share of the frames looked at in which it was found."""
    longest_gap: int
    """Most frames in a row without a detection."""
    misfit: float
    """Mean distance of the aligned stable points from the mean face's."""
    mouth_offset: tuple[float, float]
    """Mean position of the mouth, x and y, minus the mean face's."""
    eye_distance: float
    """Mean distance between the outer corners of the eyes (74.2 in the mean face)."""
    enlargement: float
    """Pixels of the crop per pixel of the video."""
    warnings: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TrackReport":
        """The report of a JSON object with these fields. Raises `TypeError` for any other."""
        fields: dict[str, Any] = {k: tuple(value) if isinstance(value, list) else value for k, value in values.items()}
        return cls(**fields)


@dataclass(frozen=True)
class MouthTrack:
    """The mouth in every frame of a video."""

    frames: NDArray[np.uint8]
    """(T, 96, 96) grey, 25 a second."""
    report: TrackReport


@dataclass(frozen=True)
class Placement:
    """Where the crop lies in every frame of a video."""

    to_crop: Array
    """(T, 2, 3) similarity transforms from places in the video to places in the crop."""
    report: TrackReport


def crop_video(
    path: Path, detector: FaceDetector, *, max_gap: int = MAX_GAP, on_warning: Warn | None = None
) -> MouthTrack:
    """The mouth of the largest face that stays in the picture.

    The video is decoded twice, once to find faces and once to crop, so that memory does not grow with its size.
    Raises `FaceError` with the reason if no face can be followed, `MediaError` if the file cannot be read.
    """
    placement = place_crop(iter_frames(path, on_warning=on_warning), detector, max_gap=max_gap)
    return MouthTrack(cut(iter_frames(path), placement.to_crop), placement.report)


def place_crop(frames: Iterator[NDArray[np.uint8]], detector: FaceDetector, *, max_gap: int = MAX_GAP) -> Placement:
    """Find the faces in `frames`, choose one, align it. Raises `FaceError` with the reason if there is none."""
    max_gap = max(max_gap, detector.every - 1)  # frames that nobody looks at are no gap
    seen = find_faces(frames, detector)
    tracks = link_faces(seen.sightings, max_gap)
    return place_track(choose_track(tracks, seen.num_frames, max_gap), tracks, seen)


def place_track(track: Track, tracks: Sequence[Track], seen: "FacesSeen") -> Placement:
    """Align the face of `track`, one of the `tracks` of a video."""
    points = smooth(fill_gaps(track, seen.num_frames))
    transforms = align(points[:, STABLE], MEAN_FACE)
    aligned = apply(transforms, points)
    to_crop = transforms.copy()
    to_crop[:, :, 2] -= window_corners(aligned[:, LIPS].mean(1))
    return Placement(to_crop, _report(seen, tracks, track, aligned, to_crop))


class FacesSeen(NamedTuple):
    """What a detector saw in a video."""

    sightings: Sequence[Sighting]
    num_frames: int
    size: tuple[int, int]
    """Width and height of the picture."""
    cuts: list[int]
    """Frames that begin another shot."""


def find_faces(frames: Iterator[NDArray[np.uint8]], detector: FaceDetector) -> FacesSeen:
    """What `detector` sees in each n-th frame and in the last."""
    sightings: list[Sighting] = []
    finder = CutFinder()
    number, frame = -1, None
    for number, frame in enumerate(frames):
        finder.see(frame)
        if number % detector.every == 0:
            sightings.append(Sighting(number, detector.detect(number, frame)))
    if frame is None:
        raise FaceError("the video has no frames")
    if number % detector.every:
        sightings.append(Sighting(number, detector.detect(number, frame)))
    return FacesSeen(sightings, number + 1, (frame.shape[1], frame.shape[0]), finder.cuts())


def smooth(points: Array, window: int = SMOOTHING) -> Array:
    """Average the shapes (T, N, 2) over time; every frame keeps its own centre of gravity.

    The window reaches `window` / 2 frames to either side, and equally less far near the ends of the clip.
    """
    num_frames = len(points)
    centre = points.mean(axis=1, keepdims=True)
    sums = np.concatenate([np.zeros_like(points[:1]), np.cumsum(points - centre, axis=0)])
    times = np.arange(num_frames)
    half = np.minimum(window // 2, np.minimum(times, num_frames - 1 - times))
    shapes = (sums[times + half + 1] - sums[times - half]) / (2 * half + 1)[:, None, None]
    smoothed: Array = shapes + centre
    return smoothed


def align(points: Array, target: Array, iterations: int = 10) -> Array:
    """Similarity transforms (T, 2, 3) that take `points` (T, N, 2) onto `target` (N, 2), robustly.

    Least squares over scale, rotation and shift in closed form: with points as complex numbers, target ≈ a·point + b.
    Points that stay farther off than `TYPICAL_ERROR` lose weight in inverse proportion (Huber) in the next iteration,
    so a single wrong point cannot turn the face, and the result changes smoothly from frame to frame.
    """
    z = points[..., 0] + 1j * points[..., 1]  # (T, N)
    w = target[:, 0] + 1j * target[:, 1]  # (N,)
    weight = np.ones(z.shape)
    for _ in range(iterations):
        weight /= weight.sum(axis=1, keepdims=True)
        z_mean = (weight * z).sum(axis=1, keepdims=True)
        w_mean = (weight * w).sum(axis=1, keepdims=True)
        spread = (weight * abs(z - z_mean) ** 2).sum(axis=1, keepdims=True)
        a = (weight * (w - w_mean) * (z - z_mean).conj()).sum(axis=1, keepdims=True) / np.maximum(spread, 1e-12)
        b = w_mean - a * z_mean
        weight = TYPICAL_ERROR / np.maximum(abs(a * z + b - w), TYPICAL_ERROR)
    a, b = a[:, 0], b[:, 0]
    return np.stack([np.stack([a.real, -a.imag, b.real], -1), np.stack([a.imag, a.real, b.imag], -1)], axis=1)


def apply(transforms: Array, points: Array) -> Array:
    """`points` (T, N, 2) moved by `transforms` (T, 2, 3)."""
    moved: Array = points @ transforms[:, :, :2].transpose(0, 2, 1) + transforms[:, None, :, 2]
    return moved


def window_corners(centres: Array) -> Array:
    """Upper left corners (T, 2) of the crops around `centres` (T, 2), shifted to stay in the mean face's frame."""
    return np.clip(centres - CROP_SIZE / 2, 0, FACE_FRAME - CROP_SIZE)


def cut(frames: Iterator[NDArray[np.uint8]], to_crop: Array) -> NDArray[np.uint8]:
    """Crops (T, 96, 96) of `frames` (T of (H, W, 3)) through `to_crop` (T, 2, 3); outside, the border is repeated."""
    return cut_all(frames, [to_crop])[0]


def cut_all(frames: Iterator[NDArray[np.uint8]], placements: Sequence[Array]) -> list[NDArray[np.uint8]]:
    """What `cut` makes of `frames`, (H, W, 3) RGB or (H, W) grey, for each of `placements`, at least one."""
    finer = [_fineness(to_crop) for to_crop in placements]
    crops: list[list[NDArray[np.uint8]]] = [[] for _ in placements]
    for frame, *transforms in zip(frames, *placements, strict=True):
        grey = frame if frame.ndim == 2 else cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        for crop, transform, steps in zip(crops, transforms, finer, strict=True):
            crop.append(_warp(grey, cv2.invertAffineTransform(transform), steps))
    return [np.stack(crop) for crop in crops]


def _fineness(to_crop: Array) -> int:
    """Shrinking: the crop is warped to a grid so many times finer, whose cells are then averaged."""
    enlargement = float(np.median(np.linalg.norm(to_crop[:, :, 0], axis=1)))
    return max(1, round(1 / enlargement))


def _warp(grey: NDArray[np.uint8], to_video: Array, finer: int) -> NDArray[np.uint8]:
    """The crop (96, 96) of `grey` (H, W), through `to_video` (2, 3), which takes places of the crop to places there.

    Places are continuous: the centre of the first pixel is (½, ½) in the crop and 0 for OpenCV.
    """
    step = 1 / finer
    fine = to_video.copy()
    fine[:, 2] += to_video[:, :2].sum(axis=1) * step / 2 - 0.5
    fine[:, :2] *= step
    side = CROP_SIZE * finer
    crop: NDArray[np.uint8] = cv2.warpAffine(
        grey, fine, (side, side), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
    if finer > 1:
        crop = cv2.resize(crop, (CROP_SIZE, CROP_SIZE), interpolation=cv2.INTER_AREA)
    return crop


def _report(seen: FacesSeen, tracks: Sequence[Track], track: Track, aligned: Array, to_crop: Array) -> TrackReport:
    """Describe the crop of `track`, one of the `tracks`, with `aligned` points (T, 28, 2)."""
    offset = aligned[:, LIPS].mean((0, 1)) - MEAN_MOUTH
    misfit = float(np.linalg.norm(aligned[:, STABLE] - MEAN_FACE, axis=2).mean())
    enlargement = float(np.median(np.linalg.norm(to_crop[:, :, 0], axis=1)))
    outside = _share_outside(to_crop, seen.size)
    looked = len(seen.sightings)
    missing = looked - len(track.frames)
    others = sorted((other.size for other in tracks if other is not track), reverse=True)
    notes = {
        f"the face is enlarged {enlargement:.1f} times": enlargement > LARGEST_ENLARGEMENT,
        f"{outside:.0%} of the crop lie outside the picture": outside > LARGEST_OUTSIDE,
        f"the face fits badly ({misfit:.1f} px): turned away?": misfit > LARGEST_MISFIT,
        f"the face was not found in {missing} of {looked} frames": missing > 0,
        f"{len(tracks)} faces, of which the largest is cropped": bool(others) and track.size >= others[0],
        f"the picture cuts {_when(seen.cuts)}: who is seen then may be somebody else": bool(seen.cuts),
    }
    return TrackReport(
        faces=len(tracks),
        chosen=_choice(track, others),
        detected=len(track.frames) / looked,
        longest_gap=track.longest_gap(len(aligned)),
        misfit=misfit,
        mouth_offset=(float(offset[0]), float(offset[1])),
        eye_distance=float(np.linalg.norm(aligned[:, 3] - aligned[:, 0], axis=1).mean()),
        enlargement=enlargement,
        warnings=tuple(note for note, applies in notes.items() if applies),
    )


def _when(cuts: list[int]) -> str:
    """The times of the first few frames among `cuts`."""
    times = ", ".join(f"{cut / FRAME_RATE:.1f}" for cut in cuts[:5])
    return f"at {times} s" + (f" and {len(cuts) - 5} times more" if len(cuts) > 5 else "")


def _share_outside(to_crop: Array, size: tuple[int, int]) -> float:
    """Share of the crops that lies outside a picture of `size` (width, height)."""
    grid = np.stack(np.meshgrid(*[np.linspace(0, CROP_SIZE, 9)] * 2), axis=-1).reshape(1, -1, 2)
    places = apply(np.stack([cv2.invertAffineTransform(transform) for transform in to_crop]), grid)
    return float(np.mean(np.any((places < 0) | (places > size), axis=2)))


def _choice(track: Track, others: list[float]) -> str:
    """Which face was chosen: where it is, how large, and the sizes of the others."""
    x, y = np.median([points.mean(0) for points in track.points], axis=0)
    place = f"{track.size:.0f} px at ({x:.0f}, {y:.0f})"
    if not others:
        return f"the only face, {place}"
    sizes = ", ".join(f"{size:.0f}" for size in others[:4])
    which = f"the largest of {len(others) + 1} that stays in the picture"
    if track.size < others[0]:
        which = f"face {track.number} of {len(others) + 1}"
    return f"{which}, {place}; others {sizes} px"


def read_cropped(path: Path, *, on_warning: Warn | None = None) -> MouthTrack:
    """A video that shows nothing but an aligned mouth, as other tools cut it: square, scaled to 96×96, grey.

    Raises `FaceError` if it is not square or shows nothing, `MediaError` if it cannot be read.
    """
    crops, width = [], CROP_SIZE
    for frame in iter_frames(path, on_warning=on_warning):
        crops.append(ready_crop(frame))
        width = frame.shape[1]
    if not crops:
        raise FaceError("the video has no frames")
    frames = np.stack(crops)
    require_picture(frames)
    return MouthTrack(frames, ready_report(width))


def ready_report(width: int) -> TrackReport:
    """The report of ready crops in a video of this width."""
    enlargement = CROP_SIZE / width
    warnings = (f"the crop is enlarged {enlargement:.1f} times",) if enlargement > LARGEST_ENLARGEMENT else ()
    return TrackReport(1, "ready crops", 1.0, 0, 0.0, (0.0, 0.0), MEAN_EYE_DISTANCE, enlargement, warnings)


def ready_crop(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame (H, W, 3) of such a video as a crop (96, 96). Raises `FaceError` if it is not square."""
    height, width = frame.shape[:2]
    if height != width:
        raise FaceError(f"a video of ready crops must be square, not {width}×{height}")
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    how = cv2.INTER_AREA if width > CROP_SIZE else cv2.INTER_CUBIC
    crop: NDArray[np.uint8] = grey
    if width != CROP_SIZE:
        crop = cv2.resize(grey, (CROP_SIZE, CROP_SIZE), interpolation=how)
    return crop


def require_picture(crops: NDArray[np.uint8]) -> None:
    """Raise `FaceError` if each of `crops` (T, 96, 96) is of one grey."""
    if crops[:, ::4, ::4].std(axis=(1, 2)).max() < FLAT:
        raise FaceError("the video shows nothing: each of its frames is of one grey")
