"""Long recordings in parts: each is what the recording shows and sounds like at that place; memory stays flat."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from conftest import ScriptedDetector, face_at
from media_files import add_sound, make_media, write_video
from seehear.data.faces import FaceDetector, MediaPipeDetector
from seehear.data.media import iter_frames, probe, read_audio
from seehear.data.mouth import crop_video
from seehear.listening.lips import FollowedFaces
from seehear.listening.options import ListeningOptions
from seehear.modality import Modality
from seehear.preparation.cues import Cue
from seehear.preparation.parts import Cutter, Part, Recording
from test_listening import babble, film, silence, talking

A, V, AV = Modality.AUDIO, Modality.VIDEO, Modality.AUDIOVISUAL


def cut(
    path: Path,
    modality: Modality,
    finder: FaceDetector | None = None,
    cues: list[Cue] | None = None,
    sound: Path | None = None,
    **options: object,
) -> tuple[list[Part], Cutter]:
    """The parts of a recording, and what else the cutter knows."""
    chosen = ListeningOptions(modality, face="largest", **options)  # type: ignore[arg-type]
    recording = Recording(probe(path), modality, replace(probe(sound), start=0.0) if sound else None)
    cutter = Cutter(recording, chosen, finder, cues)
    return list(cutter.parts(lambda warning: None)), cutter


def talking_in_turns(frames: int, x: float = 180, scale: float = 1.0) -> list[NDArray[np.float32]]:
    """A face that talks for four seconds and is silent for the next four."""
    moving, still = talking(frames, x, scale), talking(frames, x, scale, still=True)
    return [still[number] if number // 100 % 2 else moving[number] for number in range(frames)]


def times(parts: list[Part]) -> list[tuple[float, float]]:
    return [(part.start, part.end) for part in parts]


# At pauses


def test_sound_is_cut_at_pauses(tmp_path: Path) -> None:
    faint = [silence(1), babble(3, 0.01), silence(6), babble(30, 0.01), silence(20)]
    soundfile.write(tmp_path / "a.wav", np.concatenate(faint), 16_000)
    parts, cutter = cut(tmp_path / "a.wav", A)
    assert len(parts) == 3
    assert times(parts)[0] == pytest.approx((0.0, 5.0), abs=0.3)
    assert (parts[1].start, parts[2].end) == pytest.approx((9.0, 41.0), abs=0.3)
    assert parts[2].start == pytest.approx(parts[1].end - 1.6), "no pause: the two overlap"
    whole = read_audio(tmp_path / "a.wav")
    for part in parts:
        assert part.end - part.start <= 24.0
        assert (part.clip.streams, part.report, part.cue) == (A, None, None)
        np.testing.assert_array_equal(part.clip.audio, whole[round(part.start * 16e3) : round(part.end * 16e3)])
    assert cutter.frames == 60 * 25
    assert cutter.kept == round(25 * (parts[0].end + parts[2].end - parts[1].start))
    assert cutter.between == pytest.approx(60 - cutter.kept / 25)
    assert cutter.skipped == cutter.unused == []


def test_parts_without_a_usable_face_are_left_out(tmp_path: Path) -> None:
    sound = np.concatenate([babble(4), silence(4), babble(4), silence(4), babble(4), silence(2)])
    path = film(tmp_path / "film.mp4", 550, sound)
    faces = talking_in_turns(550)
    script = [[faces[number]] if not 200 <= number < 300 else [] for number in range(550)]
    parts, cutter = cut(path, AV, ScriptedDetector(script))
    assert len(parts) == 2
    assert all(part.clip.streams is AV for part in parts)
    (gap,) = cutter.skipped
    assert (gap.start, gap.end) == pytest.approx((7.0, 13.0), abs=0.3)
    assert gap.reason.startswith("no face stays in the picture")
    kept = sum(part.end - part.start for part in parts)
    assert kept + gap.end - gap.start + cutter.between == pytest.approx(22.0)


def test_each_part_shows_its_largest_face(tmp_path: Path) -> None:
    sound = np.concatenate([babble(4), silence(4), babble(4)])
    path = film(tmp_path / "film.mp4", 300, sound)
    small, large = talking_in_turns(300, 90, 0.6), talking_in_turns(300, 260, 0.9)
    script = [[small[number], *([large[number]] if number > 140 else [])] for number in range(300)]
    parts, _ = cut(path, AV, ScriptedDetector(script))
    assert [part.report.faces for part in parts if part.report] == [1, 2]
    where = [part.report.chosen for part in parts if part.report]
    assert where[0].startswith("the only face")
    assert "px at (9" in where[0]
    assert where[1].startswith("the largest of 2")
    assert "px at (26" in where[1]


def test_a_silent_video_is_cut_where_lips_rest(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 350)
    faces = [[face] for face in [*talking_in_turns(300), *talking(50, still=True)]]
    parts, cutter = cut(path, V, ScriptedDetector(faces, every=3))
    assert [part.clip.streams for part in parts] == [V, V]
    assert [edge for part in times(parts) for edge in part] == pytest.approx([0, 5, 7, 14], abs=0.5)
    assert cutter.between == pytest.approx(14 - sum(part.end - part.start for part in parts))


# At given times


def test_given_times_are_frame_exact(tmp_path: Path) -> None:
    """A part is what a recording would be that begins and ends there."""
    path = film(tmp_path / "film.mp4", 300, np.concatenate([babble(12)]))
    faces = talking(300)
    cues = [Cue(1.0, 3.0, "one", "s1"), Cue(3.0, 5.04, "two"), Cue(11.0, 11.98, "last"), Cue(11.9, 13.0, "beyond")]
    parts, cutter = cut(path, AV, ScriptedDetector([[face] for face in faces]), cues)
    assert [part.cue for part in parts] == cues[:3]
    assert times(parts) == [(0.8, 3.0), (3.0, 5.24), (10.8, 11.96 + 0.04)]
    sound, frames = read_audio(path), list(iter_frames(path))
    for part in parts:
        first, last = round(part.start * 25), round(part.end * 25)
        assert part.clip.frames == last - first
        np.testing.assert_array_equal(part.clip.audio, sound[first * 640 : last * 640])
        alone = write_video(tmp_path / "alone.mp4", frames[first:last])
        expected = crop_video(alone, ScriptedDetector([[face] for face in faces[first:last]]))
        assert part.clip.video is not None
        assert np.abs(part.clip.video.astype(int) - expected.frames).mean() < 2.5, "it was encoded twice"
        assert part.report is not None
        assert replace(part.report, warnings=part.warnings) == expected.report
    assert [(gap.text, gap.reason) for gap in cutter.unused] == [("beyond", "it lies outside the recording")]


def test_sound_of_a_separate_file(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 200, babble(8))
    other = babble(8)
    soundfile.write(tmp_path / "film.wav", other, 16_000)
    script = ScriptedDetector([[face] for face in talking(200)])
    parts, _ = cut(path, AV, script, [Cue(2.0, 4.0, "x")], tmp_path / "film.wav")
    assert parts[0].clip.audio is not None
    np.testing.assert_allclose(parts[0].clip.audio, other[round(1.8 * 16e3) : round(4.2 * 16e3)], atol=1e-4)


def test_silent_videos_and_ready_crops_are_cut_too(tmp_path: Path) -> None:
    path = make_media(tmp_path / "crops.mp4", duration=8, size=(96, 96), audio_codec=None, stripe=True)
    parts, _ = cut(path, V, None, [Cue(0.0, 2.0, "a"), Cue(4.0, 6.0, "b")], detector="cropped")
    assert [(part.clip.streams, part.clip.frames) for part in parts] == [(V, 55), (V, 60)]
    assert parts[0].report is not None
    assert parts[0].report.chosen == "ready crops"


def test_frames_are_counted_from_the_first_picture_for_ready_landmarks(tmp_path: Path) -> None:
    path = make_media(tmp_path / "late.mkv", duration=6, times=np.arange(1, 6, 0.04), size=(96, 96), stripe=True)
    detector = ScriptedDetector([[face_at(48, 48, 0.3)]] * 125)
    parts, _ = cut(path, AV, detector, [Cue(2.0, 4.0, "x")])
    assert times(parts) == [(1.8, 4.2)], "the times are those that players show"
    assert max(detector.looked_at) == 124


@pytest.mark.parametrize("codec", ["libx264", None])
def test_how_long_a_recording_is_that_does_not_say_so(tmp_path: Path, codec: str | None) -> None:
    path = make_media(tmp_path / "a.mkv", duration=5, video_codec=codec)
    recording = Recording(probe(path), AV if codec else A)
    assert recording.seconds == pytest.approx(5, abs=0.05)


def test_what_is_held_does_not_grow_with_the_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = []
    forget = FollowedFaces.forget

    def watched(self: FollowedFaces, before: int) -> None:
        forget(self, before)
        sightings = sum(len(track.frames) for track in self._tracker.tracks)
        crops = sum(len(part) for part in self._before[1].values())
        held.append((sightings, len(self._shots._changes), crops, len(self._kept), len(self._looked)))

    monkeypatch.setattr(FollowedFaces, "forget", watched)
    path = make_media(tmp_path / "a.mp4", duration=150, size=(48, 48))
    detector = ScriptedDetector([[face_at(24, 24, 0.15)]] * 3750, every=3)
    cues = [Cue(start, start + 3.0, f"at {start}") for start in range(5, 145, 7)]
    parts, _ = cut(path, AV, detector, cues)
    assert len(parts) == len(cues)
    assert all(part.clip.frames == 85 for part in parts)
    first, second = np.max(held[: len(held) // 2], axis=0), np.max(held[len(held) // 2 :], axis=0)
    assert (second <= first + 50).all(), (first, second)


# Real faces


def test_a_film_of_grid_is_cut_into_its_clips(shared: Path, tmp_path: Path) -> None:
    clips = shared / "data" / "grid-s1" / "clips"
    paths = sorted(clips.glob("*.mp4"))[100:103]
    frames = [list(iter_frames(path)) for path in paths]
    write_video(tmp_path / "silent.mp4", [frame for part in frames for frame in part])
    sound = np.concatenate([read_audio(path, num_frames=75) for path in paths])
    path = add_sound(tmp_path / "silent.mp4", tmp_path / "film.mp4", sound)
    detector = MediaPipeDetector(shared / "models" / "face_landmarker.task", every=3)
    cues = [Cue(3.0 * number, 3.0 * number + 3, path.stem) for number, path in enumerate(paths)]
    parts, _ = cut(path, AV, detector, cues)
    for part in parts:
        assert part.cue is not None
        original = clips / f"{part.cue.text}.mp4"
        expected = crop_video(original, detector)
        assert part.clip.video is not None
        assert np.abs(part.clip.video.astype(int) - expected.frames).mean() < 3.0
        voice = np.clip(read_audio(original, num_frames=75), -1, 1)
        np.testing.assert_allclose(part.clip.audio, voice, atol=2 / 32767)
