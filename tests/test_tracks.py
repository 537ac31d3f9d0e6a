"""Faces followed through a video: gaps, and several people."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from conftest import face_at
from seehear.data.faces import LIPS, FacePoints
from seehear.data.mouth import Array
from seehear.data.tracks import Sighting, choose_track, fill_gaps, link_faces
from seehear.errors import FaceError


def track_of(seen: Sequence[int], frames: int, max_gap: int) -> Array:
    """Points (T, 28, 2) of a face that moves 2 px a frame and is seen in the frames `seen`."""
    sightings = [Sighting(n, [face_at(100 + 2 * n, 150)] if n in seen else []) for n in range(frames)]
    return fill_gaps(choose_track(link_faces(sightings, max_gap), frames, max_gap), frames)


@pytest.mark.parametrize(
    "missing", [range(0, 10), range(20, 30), range(40, 50)], ids=["at the start", "in the middle", "at the end"]
)
def test_a_gap_within_the_limit_is_filled_and_beyond_it_rejected(missing: range) -> None:
    seen = [n for n in range(50) if n not in missing]
    points = track_of(seen, 50, max_gap=10)
    expected = np.interp(np.arange(50), seen, 100.0 + 2 * np.array(seen))  # linear between, copied at the ends
    np.testing.assert_allclose(points[:, LIPS, 0].mean(1), expected, atol=1e-3)
    with pytest.raises(FaceError, match=r"missing for \d+ of 50 frames in a row; at most 9 are interpolated"):
        track_of(seen, 50, max_gap=9)


def test_a_face_in_one_frame_only() -> None:
    assert len(track_of([4], 10, max_gap=5)) == 10
    with pytest.raises(FaceError, match="missing for 45 of 50 frames"):
        track_of([4], 50, max_gap=25)


def test_no_face_at_all() -> None:
    with pytest.raises(FaceError, match="no face was found in any frame"):
        track_of([], 10, max_gap=25)


# Several faces

Script = Callable[[int], list[FacePoints]]


def chosen_place(script: Script, frames: int = 60, max_gap: int = 10) -> Array:
    """(T, 2) where the mouth of the chosen face is."""
    sightings = [Sighting(n, script(n)) for n in range(frames)]
    track = choose_track(link_faces(sightings, max_gap), frames, max_gap)
    return fill_gaps(track, frames)[:, LIPS].mean(1)


def test_the_largest_face_is_chosen_in_whatever_order_they_are_found() -> None:
    order = np.random.default_rng(0)

    def script(n: int) -> list[FacePoints]:
        faces = [face_at(100, 150, 0.5), face_at(300, 150, 0.8), face_at(500, 150, 0.7)]
        return [faces[i] for i in order.permutation(3)]

    np.testing.assert_allclose(chosen_place(script), [(300, 150)] * 60, atol=1e-3)


def test_a_larger_face_that_leaves_is_not_chosen() -> None:
    def script(n: int) -> list[FacePoints]:
        return [face_at(100, 150, 0.5)] + ([face_at(300, 150, 1.5)] if n < 40 else [])

    np.testing.assert_allclose(chosen_place(script), [(100, 150)] * 60, atol=1e-3)


def test_a_larger_face_that_enters_is_not_chosen() -> None:
    def script(n: int) -> list[FacePoints]:
        return ([face_at(300, 150, 1.5)] if n >= 20 else []) + [face_at(100, 150, 0.5)]

    np.testing.assert_allclose(chosen_place(script), [(100, 150)] * 60, atol=1e-3)


def test_one_face_goes_and_another_comes() -> None:
    with pytest.raises(FaceError, match="the best of 2 is missing for 30 of 60 frames"):
        chosen_place(lambda n: [face_at(100 if n < 30 else 400, 150)])


def test_a_face_that_passes_behind_a_larger_one_is_not_followed_into_it() -> None:
    def script(n: int) -> list[FacePoints]:
        front, behind = face_at(300, 150, 1.0), face_at(60 + 8 * n, 150, 0.45)
        return [front] if abs(60 + 8 * n - 300) < 60 else [behind, front]

    np.testing.assert_allclose(chosen_place(script), [(300, 150)] * 60, atol=1e-3)


def test_a_face_that_is_missed_now_and_then_stays_itself() -> None:
    def script(n: int) -> list[FacePoints]:
        return [face_at(400, 150, 0.6)] + ([face_at(150 + n, 150, 1.0)] if n % 7 else [])

    np.testing.assert_allclose(chosen_place(script)[1:, 0], 150 + np.arange(1, 60), atol=1e-3)
