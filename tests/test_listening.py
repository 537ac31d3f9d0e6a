"""Recordings as windows: what is heard and seen in each, and why; in memory that does not grow with them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from conftest import ScriptedDetector, face_at
from media_files import add_sound, make_media, write_video
from seehear.data.faces import FaceDetector, FacePoints
from seehear.data.media import iter_audio, read_audio
from seehear.data.mouth import crop_video
from seehear.errors import FaceError, MediaError
from seehear.listening import stream
from seehear.listening.activity import SoundActivity, picture_motion, sound_levels
from seehear.listening.options import FaceChoice, ListeningOptions, WindowOptions
from seehear.listening.stream import Opened, Piece, Read, listen
from seehear.modality import Modality

RNG = np.random.default_rng(0)


def babble(seconds: float, amplitude: float = 0.1) -> NDArray[np.float32]:
    """Noise whose loudness goes up and down four times a second, as that of speech does."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    loudness = amplitude * (0.05 + np.square(np.sin(np.pi * 4 * time)))
    return (RNG.normal(size=len(time)) * loudness).astype(np.float32)


def silence(seconds: float, amplitude: float = 1e-3) -> NDArray[np.float32]:
    """The noise of a quiet room."""
    return RNG.normal(0, amplitude, round(seconds * 16_000)).astype(np.float32)


def pieces(
    path: Path, modality: Modality | None = None, detector: FaceDetector | None = None, **options: object
) -> tuple[list[Piece], list[str]]:
    """The pieces of a recording, and the warnings."""
    warnings: list[str] = []
    chosen = ListeningOptions(modality, **options)  # type: ignore[arg-type]
    events = list(listen(path, chosen, warnings.append, detector))
    assert isinstance(events[0], Opened)
    assert isinstance(events[-1], Read)
    return [event for event in events if isinstance(event, Piece)], warnings


def talking(frames: int, x: float = 180, scale: float = 1.0, *, still: bool = False) -> list[FacePoints]:
    """A face whose lips open and close, frame by frame."""
    faces = []
    for number in range(frames):
        face = face_at(x, 160, scale)
        if not still:
            middle = face[8:].mean(0)
            face[8:] = middle + (face[8:] - middle) * (1.0, 1.0 + 0.5 * np.sin(number))
        faces.append(face)
    return faces


def film(path: Path, frames: int, sound: NDArray[np.float32] | None = None) -> Path:
    """Grey pictures of noise, with sound if there is any."""
    pictures = list(RNG.integers(60, 200, (frames, 36, 45, 3), np.uint8).repeat(8, 1).repeat(8, 2))
    if sound is None:
        return write_video(path, pictures)
    write_video(path.with_suffix(".silent.mp4"), pictures)
    return add_sound(path.with_suffix(".silent.mp4"), path, sound)


# Sound


def test_a_level_is_that_of_the_band_of_speech() -> None:
    time = np.arange(16_000) / 16_000
    loud = sound_levels(0.5 * np.sin(2 * np.pi * 1000 * time).astype(np.float32))
    np.testing.assert_allclose(loud, 10 * np.log10(0.125), atol=0.05)
    hum = sound_levels(0.5 * np.sin(2 * np.pi * 50 * time).astype(np.float32))
    assert hum.max() < -40
    assert sound_levels(np.zeros(640, np.float32)) == pytest.approx(-120)


@pytest.mark.parametrize("amplitude", [0.3, 0.01, 0.002, 0.0005])
def test_speech_is_told_from_the_noise_of_a_room_however_faint(amplitude: float) -> None:
    audio = np.concatenate([silence(2, 1e-4), babble(3, amplitude), silence(2, 1e-4)])
    active = SoundActivity()(sound_levels(audio))
    assert active[52:123].mean() > 0.95
    assert not active[:45].any()
    assert not active[130:].any()


def test_steady_noise_cannot_be_told_from_speech_and_passes() -> None:
    assert SoundActivity()(sound_levels(silence(3, 0.1))).all()
    assert not SoundActivity()(sound_levels(np.zeros(16_000, np.float32))).any()


def test_each_stretch_of_speech_is_a_piece(tmp_path: Path) -> None:
    audio = np.concatenate([silence(1), babble(2), silence(6), babble(3), silence(40), babble(1), silence(1)])
    soundfile.write(tmp_path / "long.wav", audio, 16_000)
    found, warnings = pieces(tmp_path / "long.wav")
    assert [round(piece.window.speech_start / 25) for piece in found] == [1, 9, 52]
    assert [round(piece.window.speech_end / 25) for piece in found] == [3, 12, 53]
    whole = read_audio(tmp_path / "long.wav")
    for piece in found:
        assert piece.modality is Modality.AUDIO
        assert piece.audio is not None
        np.testing.assert_array_equal(piece.audio, whole[piece.window.start * 640 : piece.window.end * 640])
    assert not warnings


def test_sound_in_pieces_is_the_sound(tmp_path: Path) -> None:
    path = make_media(tmp_path / "late.mkv", rate=44_100, audio_start=0.3)
    np.testing.assert_array_equal(np.concatenate(list(iter_audio(path))), read_audio(path))


def test_what_is_kept_of_a_long_recording_does_not_grow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = []
    forget = stream._Sound.forget

    def watched(self: stream._Sound, before: int) -> None:
        forget(self, before)
        kept.append(len(self._samples) / 16_000)

    monkeypatch.setattr(stream._Sound, "forget", watched)
    audio = np.concatenate([np.tile(np.concatenate([babble(4), silence(3)]), 60), babble(120)])
    soundfile.write(tmp_path / "long.wav", audio, 16_000)
    found, _ = pieces(tmp_path / "long.wav")
    assert len(found) > 60
    assert sum(piece.window.continues for piece in found) >= 4
    assert max(kept) < 45


def test_nothing_but_silence_is_said(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(48_000, np.float32), 16_000)
    assert pieces(tmp_path / "silence.wav") == ([], ["there is nothing but silence"])
    soundfile.write(tmp_path / "nothing.wav", np.zeros(0, np.float32), 16_000)
    with pytest.raises(MediaError):
        pieces(tmp_path / "nothing.wav")


# Lips


def test_a_window_has_the_crops_that_preparation_makes(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 60)
    (piece,), _ = pieces(path, None, ScriptedDetector([[face] for face in talking(60)]))
    (mouth,) = piece.mouths
    expected = crop_video(path, ScriptedDetector([[face] for face in talking(60)])).frames
    np.testing.assert_array_equal(mouth.frames, expected)
    assert piece.modality is Modality.VIDEO
    assert piece.reason == "the file has no sound"


def test_windows_of_a_silent_video_follow_the_lips(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 300)
    still = talking(300, still=True)
    faces = [*still[:60], *talking(60), *still[:100], *talking(50), *still[:30]]
    found, _ = pieces(path, Modality.VIDEO, ScriptedDetector([[face] for face in faces], every=3))
    assert [piece.window.speech_start for piece in found] == pytest.approx([60, 220], abs=8)
    assert [piece.window.speech_end for piece in found] == pytest.approx([120, 270], abs=10)
    for piece in found:
        assert piece.mouths[0].frames.shape == (piece.window.end - piece.window.start, 96, 96)
    assert pieces(path, Modality.VIDEO, ScriptedDetector([[face] for face in still])) == (
        [],
        ["there are no lips that move"],
    )


def test_crops_of_overlapping_windows_are_those_of_the_whole(tmp_path: Path) -> None:
    frames = 400
    path = film(tmp_path / "film.mp4", frames)
    faces = [[face] for face in talking(frames)]
    windows = WindowOptions(longest=6.0)
    found, _ = pieces(path, Modality.VIDEO, ScriptedDetector(faces), windows=windows)
    assert sum(piece.window.continues for piece in found) >= 2
    whole = crop_video(path, ScriptedDetector(faces)).frames.astype(int)
    for piece in found:
        crops = piece.mouths[0].frames
        assert len(crops) == piece.window.end - piece.window.start
        inner = slice(8, -8)  # near the ends of a window fewer frames are averaged
        expected = whole[piece.window.start : piece.window.end]
        assert np.abs(crops[inner] - expected[inner]).mean() < 3.0


def test_motion_of_pictures() -> None:
    still = np.full((5, 96, 96), 100, np.uint8)
    assert not picture_motion(still).any()
    moving = still.copy()
    moving[2:] += 4
    np.testing.assert_allclose(picture_motion(moving), [0, 0, 4, 0, 0])


TWO = [[left, right] for left, right in zip(talking(60, 90, 0.6), talking(60, 260, 0.9), strict=True)]


@pytest.mark.parametrize(
    ("choice", "numbers"), [("speaking", [0, 1]), ("all", [0, 1]), ("largest", [1]), (0, [0]), (1, [1])]
)
def test_which_faces_are_given(tmp_path: Path, choice: FaceChoice, numbers: Sequence[int]) -> None:
    path = film(tmp_path / "film.mp4", 60)
    (piece,), _ = pieces(path, None, ScriptedDetector([faces[::-1] for faces in TWO]), face=choice)
    assert [mouth.face for mouth in piece.mouths] == numbers
    assert len({mouth.frames.tobytes() for mouth in piece.mouths}) == len(numbers)


def test_a_face_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 60)
    with pytest.raises(FaceError, match="face 7 does not stay"):
        pieces(path, None, ScriptedDetector(TWO), face=7)
    with pytest.raises(FaceError, match="no face was found in any frame"):
        pieces(path, None, ScriptedDetector([[]] * 60))


def test_faces_keep_their_numbers(tmp_path: Path) -> None:
    frames = 300
    path = film(tmp_path / "film.mp4", frames)
    right, left = talking(frames, 260, 0.9), talking(frames, 90, 0.6)
    script = [[right[n], *([left[n]] if n > 40 else [])] for n in range(frames)]
    found, _ = pieces(path, Modality.VIDEO, ScriptedDetector(script), face=1, windows=WindowOptions(longest=6.0))
    assert len(found) >= 2
    assert all("px at (9" in mouth.where for piece in found for mouth in piece.mouths)


# Both


@pytest.mark.parametrize(
    ("sound", "face", "modality", "reason"),
    [
        (babble(4), True, "av", "the file has sound and video"),
        (babble(4), False, "a", "no usable face (no face was found in any frame), so sound alone"),
        (silence(4, 0.0), True, "v", "no sound rises above the noise, so lips alone"),
    ],
)
def test_a_window_is_taken_by_what_there_is(
    tmp_path: Path, sound: NDArray[np.float32], face: bool, modality: str, reason: str
) -> None:
    path = film(tmp_path / "film.mp4", 100, sound)
    (piece,), _ = pieces(path, None, ScriptedDetector([[points] if face else [] for points in talking(100)]))
    assert (piece.modality.value, piece.reason) == (modality, reason)
    assert (piece.audio is not None) == piece.modality.uses_audio
    assert bool(piece.mouths) == piece.modality.uses_video


def test_modalities_change_within_a_recording(tmp_path: Path) -> None:
    quiet, loud = silence(4), babble(4)
    sound = np.concatenate([loud, quiet, loud, quiet, quiet, quiet])
    path = film(tmp_path / "film.mp4", 600, sound)
    still, moving = talking(100, still=True), talking(100)
    script = [[f] for f in moving] + [[f] for f in still] + [[]] * 100 + [[f] for f in still + moving + still]
    found, _ = pieces(path, None, ScriptedDetector(script))
    assert [piece.modality.value for piece in found] == ["av", "a", "v"]
    found, warnings = pieces(path, Modality.AUDIOVISUAL, ScriptedDetector(script))
    assert [piece.modality.value for piece in found] == ["av", "av"]
    assert warnings[0].startswith("nothing is read from 6.9 to 13.1 s: no face stays in the picture")


def test_sound_that_goes_on_after_the_picture_is_heard(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mkv", 75, np.concatenate([babble(3), silence(3), babble(3), silence(1)]))
    found, _ = pieces(path, None, ScriptedDetector([[face] for face in talking(75)]))
    assert [piece.modality.value for piece in found] == ["av", "a"]
    assert round(found[1].window.speech_start / 25) == 6
    found, _ = pieces(path, Modality.AUDIOVISUAL, ScriptedDetector([[face] for face in talking(75)]))
    assert found[-1].window.end == 75


def test_a_face_that_leaves_after_speech_is_enough(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 150, np.concatenate([babble(3), silence(3)]))
    script = [[face] for face in talking(82)] + [[]] * 68
    (piece,), _ = pieces(path, None, ScriptedDetector(script))
    assert piece.modality is Modality.AUDIOVISUAL


def test_a_face_that_is_new_in_a_window_is_cropped_in_its_overlap(tmp_path: Path) -> None:
    right, left = talking(400, 260, 0.9), talking(400, 90, 0.6)
    script = [[right[number], *([left[number]] if number >= 80 else [])] for number in range(400)]
    path = film(tmp_path / "film.mp4", 400)
    windows = WindowOptions(longest=6.0)
    found, _ = pieces(path, Modality.VIDEO, ScriptedDetector(script), face="all", windows=windows)
    new = next(piece for piece in found if len(piece.mouths) == 2)
    assert new.window.continues
    for mouth in new.mouths:
        changes = np.abs(np.diff(mouth.frames.astype(int), axis=0)).max((1, 2))
        assert changes.min() > 0, "no frame is repeated"


def test_a_picture_that_begins_late_leaves_the_sound_before_it(tmp_path: Path) -> None:
    path = make_media(tmp_path / "late.mkv", duration=9, times=np.arange(5, 9, 0.04), size=(96, 96), stripe=True)
    faces = ScriptedDetector([[face_at(48, 48, 0.3)]] * 300)
    for modality in (None, Modality.AUDIO):
        (piece,), _ = pieces(path, modality, faces)
        assert piece.modality is Modality.AUDIO, "no frozen lips"
        assert (piece.window.speech_start, piece.window.speech_end) == (25 - 3, 35 + 3)
    assert "the picture begins at 5.0 s" in pieces(path, None, faces)[0][0].reason


def test_a_picture_that_fails_leaves_the_sound(tmp_path: Path) -> None:
    slides = make_media(tmp_path / "slides.mkv", duration=80, times=np.array([0.0, 70.0]), size=(96, 96), stripe=True)
    found, warnings = pieces(slides)
    assert [piece.modality for piece in found] == [Modality.AUDIO]
    assert any("a hole of 70 s in the picture" in warning and "sound alone" in warning for warning in warnings)
    with pytest.raises(MediaError, match="a hole of 70 s"):
        pieces(slides, Modality.VIDEO)


@pytest.mark.parametrize("first", [246, 247, 248, 249, 250])
def test_a_short_word_is_heard_wherever_blocks_end(first: int) -> None:
    levels = np.full(500, -80.0)
    levels[100:140] = levels[300:340] = levels[first : first + 4] = -20
    activity = SoundActivity()
    active = np.concatenate([activity(levels[:250]), activity(levels[250:])])
    assert active[first : first + 4].all()


def test_clicks_where_blocks_begin_are_no_speech() -> None:
    levels = np.full(500, -80.0)
    levels[100:140] = levels[300:340] = levels[250] = -20
    activity = SoundActivity()
    active = np.concatenate([activity(levels[:250]), activity(levels[250:])])
    assert not active[240:270].any()
    assert not len(activity(np.zeros(0)))


def test_in_one_piece_the_first_picture_stands_until_it_is_due(tmp_path: Path) -> None:
    path = make_media(tmp_path / "late.mkv", duration=4, times=np.arange(1.6, 3.99, 0.04), size=(96, 96), stripe=True)
    (piece,), _ = pieces(
        path, None, ScriptedDetector([[face_at(48, 48, 0.3)]] * 200), windows=WindowOptions(whole=True)
    )
    assert piece.modality is Modality.AUDIOVISUAL
    assert len(piece.mouths[0].frames) == 100


def test_a_face_that_never_appears_is_an_error_with_sound_too(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", 75, babble(3.0))
    with pytest.raises(FaceError, match=r"film\.mp4: face 3 does not stay in the picture; faces are counted from 0"):
        pieces(path, None, ScriptedDetector([[face] for face in talking(75)]), face=3)
