"""The geometry of the mouth crop, with faces whose place is known and with filmed ones."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import MEAN_POINTS, ScriptedDetector, face_at
from media_files import write_video
from seehear.data.clipfile import MouthClip, write_clip
from seehear.data.faces import STABLE, MediaPipeDetector
from seehear.data.media import iter_frames
from seehear.data.mouth import (
    FACE_FRAME,
    MEAN_EYE_DISTANCE,
    MEAN_FACE,
    MEAN_MOUTH,
    Array,
    align,
    apply,
    crop_video,
    cut,
    place_crop,
    read_cropped,
    smooth,
    window_corners,
)
from seehear.data.tracks import face_size
from seehear.errors import FaceError, MediaError


def blank(frames: int, height: int = 288, width: int = 360) -> "list[NDArray[np.uint8]]":
    return [np.full((height, width, 3), 90, np.uint8)] * frames


# Smoothing


def test_smoothing_keeps_each_centre_of_gravity() -> None:
    points = np.random.default_rng(0).normal(size=(40, 28, 2))
    np.testing.assert_allclose(smooth(points).mean(1), points.mean(1), atol=1e-12)


def test_smoothing_averages_the_shape() -> None:
    noise = np.random.default_rng(0).normal(size=(200, 28, 2))
    noise -= noise.mean(1, keepdims=True)
    inner = smooth(MEAN_POINTS + noise)[6:-6]
    reach = noise[94:107].mean(0)  # six frames on either side of frame 100
    np.testing.assert_allclose(inner[94], MEAN_POINTS + reach, atol=1e-9)
    assert (inner - MEAN_POINTS).std() == pytest.approx(noise.std() / np.sqrt(13), rel=0.1)


@pytest.mark.parametrize("frames", [1, 2, 5, 12, 13, 60])
def test_smoothing_leaves_steady_movement_alone(frames: int) -> None:
    steps = np.arange(frames)[:, None, None]
    points = MEAN_POINTS * (1 + 0.01 * steps) + 3 * steps
    np.testing.assert_allclose(smooth(points), points, atol=1e-9)


# Alignment


@pytest.mark.parametrize(("scale", "degrees"), [(1, 0), (0.2, 10), (5, -45), (1, 180)])
def test_alignment_undoes_a_similarity(scale: float, degrees: float) -> None:
    points = face_at(400, -30, scale, degrees).astype(np.float64)[None]
    transforms = align(points[:, STABLE], MEAN_FACE)
    np.testing.assert_allclose(apply(transforms, points)[0], MEAN_POINTS, atol=1e-3)
    assert np.linalg.norm(transforms[0, :, 0]) == pytest.approx(1 / scale, rel=1e-5)


def test_one_wrong_point_hardly_turns_the_face() -> None:
    points = np.repeat(MEAN_FACE[None], 8, axis=0)
    points[range(8), range(8)] += (60, -45)
    places = apply(align(points, MEAN_FACE), np.repeat(MEAN_MOUTH[None, None], 8, axis=0))
    assert np.linalg.norm(places[:, 0] - MEAN_MOUTH, axis=1).max() < 2.5
    plain = apply(align(points, MEAN_FACE, iterations=1), np.repeat(MEAN_MOUTH[None, None], 8, axis=0))
    assert np.linalg.norm(plain[:, 0] - MEAN_MOUTH, axis=1).max() > 8, "least squares alone would be far off"


def test_points_in_one_place_do_not_break_the_alignment() -> None:
    assert np.isfinite(align(np.zeros((3, 8, 2)), MEAN_FACE)).all()


def test_the_window_stays_in_the_face_frame() -> None:
    corners = window_corners(np.array([(129.3, 157.8), (10, 250), (250, 10)]))
    np.testing.assert_allclose(corners, [(81.3, 109.8), (0, FACE_FRAME - 96), (FACE_FRAME - 96, 0)])


# Cutting


def with_dots(points: Array, height: int, width: int, radius: float) -> NDArray[np.uint8]:
    """(H, W, 3) round bright dots at `points`, whose centres need not be those of pixels."""
    y, x = np.mgrid[:height, :width] + 0.5
    distance = (x[..., None] - points[:, 0]) ** 2 + (y[..., None] - points[:, 1]) ** 2
    grey = 40 + 200 * np.exp(-distance / (2 * radius**2)).sum(-1)
    return np.repeat(grey.round().astype(np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize(("scale", "degrees"), [(1.0, 0.0), (0.6, 8.0), (1.7, -25.0), (4.3, 5.0)])
def test_the_crop_shows_the_mouth_where_the_mean_face_has_it(scale: float, degrees: float) -> None:
    face = face_at(700.3, 500.8, scale, degrees)
    corners_of_the_mouth = face[[6, 7]].astype(np.float64)
    frame = with_dots(corners_of_the_mouth, 1000, 1400, radius=2.5 * scale)
    placement = place_crop(iter([frame]), ScriptedDetector([[face]]))
    (crop,) = cut(iter([frame]), placement.to_crop)
    expected = MEAN_FACE[[6, 7]] - (MEAN_MOUTH - 48)
    for side, place in ((slice(0, 48), expected[0]), (slice(48, 96), expected[1])):
        light = np.where(crop > 60, crop - 40.0, 0.0)
        light[:, [i for i in range(96) if i not in range(96)[side]]] = 0
        y, x = np.mgrid[:96, :96] + 0.5
        found = np.array([(light * x).sum(), (light * y).sum()]) / light.sum()
        np.testing.assert_allclose(found, place, atol=0.1)


def test_shrinking_does_not_alias() -> None:
    stripes = np.zeros((1000, 1000, 3), np.uint8)
    stripes[:, ::2] = 200
    placement = place_crop(iter([stripes]), ScriptedDetector([[face_at(500, 500, scale=4.0)]]))
    (crop,) = cut(iter([stripes]), placement.to_crop)
    assert crop.std() < 5
    assert crop.mean() == pytest.approx(100, abs=3)


def test_outside_the_picture_its_border_goes_on() -> None:
    frames = blank(3, height=120, width=120)
    placement = place_crop(iter(frames), ScriptedDetector([[face_at(115, 100)]] * 3))
    crops = cut(iter(frames), placement.to_crop)
    np.testing.assert_array_equal(crops, np.full_like(crops, 90))
    assert any("lie outside the picture" in warning for warning in placement.report.warnings)


def test_a_video_that_changes_between_two_readings_is_noticed() -> None:
    placement = place_crop(iter(blank(3)), ScriptedDetector([[face_at(180, 150)]] * 3))
    with pytest.raises(ValueError, match="zip"):
        cut(iter(blank(2)), placement.to_crop)


# Which frames are looked at


@pytest.mark.parametrize(("frames", "every", "expected"), [(7, 3, [0, 3, 6]), (9, 3, [0, 3, 6, 8]), (1, 5, [0])])
def test_detection_in_each_nth_frame_and_the_last(frames: int, every: int, expected: list[int]) -> None:
    detector = ScriptedDetector([[face_at(100 + n, 150)] for n in range(frames)], every)
    placement = place_crop(iter(blank(frames)), detector)
    assert detector.looked_at == expected
    everywhere = place_crop(iter(blank(frames)), ScriptedDetector(detector.script))
    np.testing.assert_allclose(placement.to_crop, everywhere.to_crop, atol=1e-3)
    assert placement.report.detected == 1.0
    assert not placement.report.warnings
    strict = place_crop(iter(blank(frames)), ScriptedDetector(detector.script, every), max_gap=0)
    np.testing.assert_array_equal(strict.to_crop, placement.to_crop)  # frames that nobody looks at are no gap


def test_the_report_says_which_face_it_was() -> None:
    script = [[face_at(100, 150, 0.5), face_at(250, 160, 1.0)]] * 5
    report = place_crop(iter(blank(5)), ScriptedDetector(script)).report
    size = face_size(script[0][1])
    assert report.faces == 2
    assert report.chosen.startswith(f"the largest of 2 that stays in the picture, {size:.0f} px at (")
    assert report.chosen.endswith(f"others {face_size(script[0][0]):.0f} px")
    assert report.warnings == ("2 faces, of which the largest is cropped",)
    assert report.misfit == pytest.approx(0, abs=1e-3)
    assert report.mouth_offset == pytest.approx((0, 0), abs=1e-3)
    assert report.eye_distance == pytest.approx(MEAN_EYE_DISTANCE, abs=1e-3)


def test_a_small_face_is_warned_of() -> None:
    report = place_crop(iter(blank(2)), ScriptedDetector([[face_at(180, 150, 0.25)]] * 2)).report
    assert report.enlargement == pytest.approx(4, rel=1e-3)
    assert report.warnings == ("the face is enlarged 4.0 times",)


# Files


def test_a_video_file_is_cropped(tmp_path: Path) -> None:
    face = face_at(180, 160)
    frame = with_dots(face[[6, 7]].astype(np.float64), 288, 360, radius=3)
    path = write_video(tmp_path / "video.mp4", [frame] * 10)
    track = crop_video(path, ScriptedDetector([[face]] * 10, every=3))
    assert track.frames.shape == (10, 96, 96)
    assert track.frames.dtype == np.uint8
    assert track.frames[:, 47, 25].min() > 180, "a mouth corner"
    assert track.frames[:, 10, 10].max() < 60, "none"


def test_ready_crops(tmp_path: Path) -> None:
    video = np.random.default_rng(0).integers(40, 200, (8, 12, 12)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    write_clip(tmp_path / "clip.mp4", MouthClip(video, np.zeros(8 * 640, np.float32)))
    track = read_cropped(tmp_path / "clip.mp4")
    assert abs(track.frames.astype(int) - video).mean() < 2.5
    larger = [cv2.resize(frame, (160, 160))[..., None].repeat(3, 2) for frame in video]
    assert read_cropped(write_video(tmp_path / "larger.mp4", larger)).frames.shape == (8, 96, 96)
    small = read_cropped(write_video(tmp_path / "small.mp4", [frame[:32, :32] for frame in larger]))
    assert small.report.warnings == ("the crop is enlarged 3.0 times",)


def test_ready_crops_are_square(tmp_path: Path) -> None:
    with pytest.raises(FaceError, match="must be square, not 120×96"):
        read_cropped(write_video(tmp_path / "wide.mp4", [np.zeros((96, 120, 3), np.uint8)]))
    for name, grey in (("black.mp4", 0), ("grey.mp4", 120)):
        with pytest.raises(FaceError, match="shows nothing"):
            read_cropped(write_video(tmp_path / name, [np.full((96, 96, 3), grey, np.uint8)] * 8))


def test_an_unreadable_video_is_a_media_error(tmp_path: Path) -> None:
    (tmp_path / "video.mp4").write_bytes(b"no video")
    with pytest.raises(MediaError, match=r"video\.mp4"):
        crop_video(tmp_path / "video.mp4", ScriptedDetector([]))


# Filmed faces


@pytest.fixture(scope="module")
def mediapipe(shared: Path) -> MediaPipeDetector:
    return MediaPipeDetector(shared / "models" / "face_landmarker.task", every=3)


@pytest.fixture(scope="module")
def filmed(shared: Path) -> list[NDArray[np.uint8]]:
    """31 frames (288, 360, 3) of GRID."""
    return list(iter_frames(shared / "data" / "grid-s1" / "clips" / "bbaf4p.mp4"))[20:51]


def shrunk(frames: Sequence[NDArray[np.uint8]], factor: float) -> list[NDArray[np.uint8]]:
    """Smaller pictures, in the middle of grey ones of the old size."""
    height, width = frames[0].shape[:2]
    size = (round(width * factor), round(height * factor))
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    canvas = [np.full_like(frame, 128) for frame in frames]
    for target, frame in zip(canvas, frames, strict=True):
        target[top : top + size[1], left : left + size[0]] = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return canvas


def beside(*videos: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    return [np.hstack(frames) for frames in zip(*videos, strict=True)]


def test_grid_faces_lie_on_the_mean_face(shared: Path, mediapipe: MediaPipeDetector) -> None:
    clips = sorted((shared / "data" / "grid-s1" / "clips").glob("*.mp4"))[::283]
    reports = [crop_video(clip, mediapipe).report for clip in clips]
    assert np.mean([np.linalg.norm(report.mouth_offset) for report in reports]) < 3
    assert np.mean([abs(report.eye_distance - MEAN_EYE_DISTANCE) for report in reports]) < 3
    assert all(report.detected == 1 and report.faces == 1 for report in reports)


def test_the_larger_of_two_people_is_cropped(
    tmp_path: Path, mediapipe: MediaPipeDetector, filmed: list[NDArray[np.uint8]]
) -> None:
    alone = crop_video(write_video(tmp_path / "alone.mp4", filmed), mediapipe)
    path = write_video(tmp_path / "two.mp4", beside(shrunk(filmed, 0.7), filmed))
    both = crop_video(path, mediapipe)
    assert both.report.faces == 2
    assert abs(both.frames.astype(int) - alone.frames).mean() < 4


def test_who_stays_is_cropped_and_who_leaves_is_not(
    tmp_path: Path, mediapipe: MediaPipeDetector, filmed: list[NDArray[np.uint8]]
) -> None:
    leaves = [*filmed[:16], *blank(15)]
    track = crop_video(write_video(tmp_path / "video.mp4", beside(shrunk(filmed, 0.7), leaves)), mediapipe, max_gap=10)
    assert track.report.faces == 2
    assert track.report.enlargement > 1.4, "the smaller face"
    with pytest.raises(FaceError, match="no face stays in the picture"):
        crop_video(write_video(tmp_path / "left.mp4", leaves), mediapipe, max_gap=10)


def test_a_face_covered_for_a_while(
    tmp_path: Path, mediapipe: MediaPipeDetector, filmed: list[NDArray[np.uint8]]
) -> None:
    covered = [*filmed[:10], *blank(9), *filmed[19:]]
    track = crop_video(write_video(tmp_path / "video.mp4", covered), mediapipe)
    assert track.report.longest_gap == 11
    assert any("was not found in 3 of 11 frames" in warning for warning in track.report.warnings)
    assert track.frames[:9].std((1, 2)).min() > 10


@pytest.mark.parametrize("seen", [range(9, 31), range(22), range(15, 16)], ids=["not at first", "not at last", "once"])
def test_a_face_that_is_there_for_a_part(
    tmp_path: Path, shared: Path, mediapipe: MediaPipeDetector, filmed: list[NDArray[np.uint8]], seen: range
) -> None:
    grey = blank(1)[0]
    path = write_video(tmp_path / "video.mp4", [frame if t in seen else grey for t, frame in enumerate(filmed)])
    each = MediaPipeDetector(shared / "models" / "face_landmarker.task", every=1)
    detector = each if len(seen) == 1 else mediapipe
    track = crop_video(path, detector)
    assert track.frames.shape == (31, 96, 96)
    assert track.frames.min() > 8, "nothing is black"
    assert track.report.longest_gap >= max(seen[0], 30 - seen[-1])
    with pytest.raises(FaceError, match="missing for"):
        crop_video(path, detector, max_gap=5)


def test_who_was_there_first_is_cropped_when_a_larger_face_enters_and_when_both_cross(
    tmp_path: Path, mediapipe: MediaPipeDetector, filmed: list[NDArray[np.uint8]]
) -> None:
    small = shrunk(filmed, 0.7)
    alone = crop_video(write_video(tmp_path / "alone.mp4", small), mediapipe)
    enters = beside(small, [*blank(16), *filmed[16:]])
    track = crop_video(write_video(tmp_path / "enters.mp4", enters), mediapipe, max_gap=10)
    assert abs(track.frames.astype(int) - alone.frames).mean() < 4


def test_two_people_who_change_places(
    tmp_path: Path, mediapipe: MediaPipeDetector, filmed: list[NDArray[np.uint8]]
) -> None:
    crossing = [np.full((288, 600, 3), 128, np.uint8) for _ in filmed]
    for t, (picture, behind, front) in enumerate(zip(crossing, shrunk(filmed, 0.7), filmed, strict=True)):
        picture[:, 240 - 8 * t : 600 - 8 * t] = behind
        picture[:, 8 * t : 360 + 8 * t] = front
    alone = crop_video(write_video(tmp_path / "alone.mp4", filmed), mediapipe)
    track = crop_video(write_video(tmp_path / "crossing.mp4", crossing), mediapipe)
    assert abs(track.frames.astype(int) - alone.frames).mean() < 4
    assert "the largest of" in track.report.chosen


def test_a_tiny_face_is_not_taken_for_one(
    tmp_path: Path, mediapipe: MediaPipeDetector, filmed: list[NDArray[np.uint8]]
) -> None:
    with pytest.raises(FaceError, match="no face was found"):
        crop_video(write_video(tmp_path / "video.mp4", shrunk(filmed, 0.06)), mediapipe)


def test_a_face_at_the_border_gives_no_black_crop(
    tmp_path: Path, mediapipe: MediaPipeDetector, filmed: list[NDArray[np.uint8]]
) -> None:
    (points,) = mediapipe.detect(0, filmed[0])
    edge = int(points[7, 0] + 6) // 2 * 2  # just beyond the corner of the mouth
    track = crop_video(write_video(tmp_path / "video.mp4", [frame[:, :edge] for frame in filmed]), mediapipe)
    assert any("outside the picture" in warning for warning in track.report.warnings)
    assert track.frames.min() > 8


def test_clips_shorter_than_the_smoothing_window(
    tmp_path: Path, mediapipe: MediaPipeDetector, filmed: list[NDArray[np.uint8]]
) -> None:
    for frames in (1, 2, 5):
        track = crop_video(write_video(tmp_path / f"{frames}.mp4", filmed[:frames]), mediapipe)
        assert track.frames.shape == (frames, 96, 96)


def test_a_hard_cut_to_somebody_in_the_same_place_is_told(
    tmp_path: Path, mediapipe: MediaPipeDetector, filmed: list[NDArray[np.uint8]]
) -> None:
    another = [np.ascontiguousarray(frame[:, ::-1] // 2) for frame in filmed[12:24]]
    cut = [*filmed[:12], *another, *filmed[24:]]
    report = crop_video(write_video(tmp_path / "cut.mp4", cut), mediapipe).report
    assert any("the picture cuts at 0.5, 1.0 s" in warning for warning in report.warnings)
    whole = crop_video(write_video(tmp_path / "whole.mp4", filmed), mediapipe).report
    assert not any("cuts" in warning for warning in whole.warnings)
