"""Any media file on one clock: real files with every oddity, a flash and a beep that must stay together."""

from pathlib import Path

import av
import numpy as np
import pytest

from media_files import FLASH_END, FLASH_START, beep_seconds, flash_seconds, make_media, rotate_header
from seehear.data.media import iter_audio, iter_frames, probe, read_audio
from seehear.data.timestamps import timed
from seehear.errors import MediaError

HALF_FRAME = 0.5 / 25


def check_together(
    path: Path, *, start: float = FLASH_START, end: float = FLASH_END, tolerance: float = HALF_FRAME
) -> int:
    """Flash and beep where they belong, both within half a frame; the number of frames."""
    frames = list(iter_frames(path))
    audio = read_audio(path, num_frames=len(frames))
    assert len(audio) == 640 * len(frames)
    for shown, heard, true in zip(flash_seconds(frames), beep_seconds(audio), (start, end), strict=True):
        assert abs(shown - true) <= tolerance + 1e-6, (shown, true)
        assert abs(heard - true) <= 0.005, (heard, true)
    return len(frames)


@pytest.mark.parametrize("fps", [10.0, 15.0, 24.0, 25.0, 30_000 / 1001, 50.0, 60.0])
def test_any_frame_rate(tmp_path: Path, fps: float) -> None:
    path = make_media(tmp_path / "clip.mkv", fps=fps)
    tolerance = max(HALF_FRAME, 0.5 / fps)  # a flash is known no better than the file shows it
    assert abs(check_together(path, tolerance=tolerance) - 60) <= 1


def test_variable_frame_rate(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    times = np.unique(np.round(np.cumsum(rng.uniform(0.008, 0.06, 60)), 3))
    times = np.sort(np.concatenate([[0.0], times[times < 2.4], [FLASH_START, FLASH_END]]))
    check_together(make_media(tmp_path / "clip.mkv", times=times), tolerance=0.04)


def test_a_header_that_lies_about_the_rate(tmp_path: Path) -> None:
    assert check_together(make_media(tmp_path / "clip.mkv", fps=25, nominal_fps=100)) == 60


def test_no_drift_over_a_minute(tmp_path: Path) -> None:
    path = make_media(tmp_path / "clip.mkv", duration=60.0, fps=30_000 / 1001, size=(16, 16), rate=8000)
    assert abs(sum(1 for _ in iter_frames(path)) - 1500) <= 1
    assert abs(len(read_audio(path)) - 60 * 16_000) <= 16


@pytest.mark.parametrize("rate", [8000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_any_sample_rate(tmp_path: Path, rate: int) -> None:
    check_together(make_media(tmp_path / "clip.mkv", rate=rate))


@pytest.mark.parametrize(
    ("codec", "suffix", "rate"),
    [("aac", "mp4", 44_100), ("libopus", "webm", 48_000), ("flac", "mkv", 16_000), ("libmp3lame", "mp4", 44_100)],
)
def test_codecs_and_their_delays(tmp_path: Path, codec: str, suffix: str, rate: int) -> None:
    video = "libvpx" if suffix == "webm" else "libx264"
    path = make_media(tmp_path / f"clip.{suffix}", audio_codec=codec, rate=rate, video_codec=video)
    frames = list(iter_frames(path))
    heard = beep_seconds(read_audio(path), threshold=0.2)
    assert abs(flash_seconds(frames)[0] - FLASH_START) <= HALF_FRAME
    assert abs(heard[0] - FLASH_START) <= 0.01
    assert abs(heard[1] - FLASH_END) <= 0.01


@pytest.mark.parametrize("start", [0.3, 0.77])
def test_sound_that_starts_late(tmp_path: Path, start: float) -> None:
    path = make_media(tmp_path / "clip.mkv", audio_start=start)
    check_together(path)
    assert np.abs(read_audio(path)[: int(0.29 * 16_000)]).max() == 0.0


def test_sound_that_starts_before_the_picture(tmp_path: Path) -> None:
    path = make_media(tmp_path / "clip.mkv", times=np.arange(15, 60) / 25)  # the first frame is shown at 0.6 s
    check_together(path, start=FLASH_START - 0.6, end=FLASH_END - 0.6)


@pytest.mark.parametrize(
    ("suffix", "codec", "begins"), [("mkv", "pcm_s16le", -0.4), ("mov", "pcm_s16le", 0.0), ("mp4", "flac", 0.0)]
)
def test_negative_timestamps(tmp_path: Path, suffix: str, codec: str, begins: float) -> None:
    """Matroska moves all to 0; MP4 says by an edit list that what lies before 0 is not shown."""
    times = np.arange(-10, 60) / 25
    path = make_media(tmp_path / f"clip.{suffix}", times=times, audio_start=-0.4, audio_codec=codec)
    check_together(path, start=FLASH_START - begins, end=FLASH_END - begins)
    assert len(list(iter_frames(path))) == 60 - round(25 * begins)


def test_sound_shorter_and_longer_than_the_picture(tmp_path: Path) -> None:
    check_together(make_media(tmp_path / "short.mkv", audio_end=1.6))
    check_together(make_media(tmp_path / "long.mkv", duration=2.0, audio_end=4.0))


@pytest.mark.parametrize(
    ("layout", "loud", "level"), [("stereo", (0, 1), 0.5), ("stereo", (1,), 0.25), ("5.1", tuple(range(6)), 0.5)]
)
def test_mono_is_the_mean_and_does_not_clip(tmp_path: Path, layout: str, loud: tuple[int, ...], level: float) -> None:
    path = make_media(tmp_path / "clip.mkv", layout=layout, loud_channels=loud)
    assert np.abs(read_audio(path)).max() == pytest.approx(level, abs=0.02)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotation_is_undone(tmp_path: Path, turns: int) -> None:
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        upright = np.zeros((48, 64, 3), np.uint8)
        upright[:24, :32] = 255  # bright top left corner
        for _ in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(upright, format="rgb24")))
        container.mux(stream.encode(None))
    rotate_header(path, turns)
    frame = next(iter_frames(path))
    expected = np.rot90(upright, -turns)
    assert frame.shape == expected.shape
    assert np.abs(frame.astype(int) - expected).mean() < 20
    assert (probe(path).height, probe(path).width) == frame.shape[:2]


@pytest.mark.parametrize(
    ("pix_fmt", "codec", "size"),
    [
        ("yuv420p10le", "libx264", (64, 48)),
        ("gray", "ffv1", (64, 48)),
        ("bgra", "ffv1", (64, 48)),
        ("yuv444p", "libx264", (63, 47)),
    ],
)
def test_pixel_formats_and_odd_sizes(tmp_path: Path, pix_fmt: str, codec: str, size: tuple[int, int]) -> None:
    path = make_media(tmp_path / "clip.mkv", pix_fmt=pix_fmt, video_codec=codec, size=size)
    assert check_together(path) == 60
    frame = next(iter_frames(path))
    assert frame.shape == (size[1], size[0], 3)
    assert frame.flags["C_CONTIGUOUS"]


def test_what_a_file_lacks(tmp_path: Path) -> None:
    silent = make_media(tmp_path / "silent.mp4", audio_codec=None)
    assert (probe(silent).has_video, probe(silent).has_audio) == (True, False)
    with pytest.raises(MediaError, match=r"silent\.mp4: no audio track"):
        read_audio(silent)
    blind = make_media(tmp_path / "blind.wav", video_codec=None)
    assert (probe(blind).has_video, probe(blind).has_audio) == (False, True)
    with pytest.raises(MediaError, match="no video track"):
        next(iter_frames(blind))
    assert beep_seconds(read_audio(blind)) == pytest.approx((FLASH_START, FLASH_END), abs=0.002)


def test_cover_art_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        art = container.add_stream("mjpeg", rate=25)
        art.width, art.height, art.pix_fmt = 32, 32, "yuvj420p"
        art.disposition = av.stream.Disposition.attached_pic
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        container.mux(
            art.encode(
                av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24").reformat(format="yuvj420p")
            )
        )
        container.mux(art.encode(None))
        for first in range(0, 16_384, 1024):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 16_000, first
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    assert not probe(path).has_video
    with pytest.raises(MediaError, match="no video track"):
        next(iter_frames(path))


def test_holes_are_filled_and_told(tmp_path: Path) -> None:
    path = make_media(tmp_path / "clip.mkv", duration=5.0, holes=((2.0, 4.0),))
    told: list[str] = []
    frames = list(iter_frames(path, on_warning=told.append))
    audio = read_audio(path, on_warning=told.append)
    assert len(frames) == 125
    assert len(audio) == pytest.approx(5 * 16_000, abs=16)
    assert len(told) == 2
    assert all("a hole of 2.0 s" in message for message in told)
    check_together(path)


def test_a_hole_beyond_the_limit_is_damage(tmp_path: Path) -> None:
    path = make_media(tmp_path / "clip.mkv", duration=100.0, fps=5, size=(16, 16), holes=((2.0, 99.0),))
    with pytest.raises(MediaError, match=r"clip\.mkv: a hole of 97 s in the picture"):
        list(iter_frames(path))
    with pytest.raises(MediaError, match="a hole of 97 s in the sound"):
        read_audio(path)


def test_damage_in_the_middle_gives_what_can_be_read(tmp_path: Path) -> None:
    path = make_media(tmp_path / "clip.mkv", duration=6.0, size=(320, 240))
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    third = len(content) // 3
    content[third : third + 40_000] = rng.bytes(40_000)  # about a second
    path.write_bytes(content)
    told: list[str] = []
    frames = list(iter_frames(path, on_warning=told.append))
    assert 25 <= len(frames) <= 155
    assert len(read_audio(path, num_frames=len(frames), on_warning=told.append)) == 640 * len(frames)
    assert told


def bad_files(folder: Path) -> dict[str, Path]:
    """Files that are no media, each with its name."""
    whole = make_media(folder / "whole.mp4", audio_codec="aac", rate=16_000).read_bytes()
    contents = {
        "empty.mp4": b"",
        "random.mp4": np.random.default_rng(0).bytes(5000),
        "truncated.mp4": whole[: len(whole) // 2],  # its index stands at the end
        "text.mp4": b"this is a shopping list\n" * 50,
        "playlist.mp4": b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n",
        "script.mp4": b"ffconcat version 1.0\nfile /etc/passwd\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {name: folder / name for name in contents}


@pytest.mark.parametrize("name", ["empty.mp4", "random.mp4", "truncated.mp4", "text.mp4", "playlist.mp4", "script.mp4"])
def test_what_is_no_media_file_is_one_clear_line(tmp_path: Path, name: str) -> None:
    path = bad_files(tmp_path)[name]
    for read in (probe, read_audio, lambda p: list(iter_frames(p))):
        with pytest.raises(MediaError) as caught:
            read(path)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["http://127.0.0.1:9/video.mp4", "concat:a.mp4|b.mp4", "nowhere.mp4", "nul\0.mp4", "."]
)
def test_only_local_files_are_opened(name: str) -> None:
    with pytest.raises(MediaError, match=r"no such file|not a file"):
        probe(Path(name))


@pytest.mark.parametrize("frames", [1, 2])
def test_very_short_files(tmp_path: Path, frames: int) -> None:
    path = make_media(tmp_path / "clip.mkv", duration=frames / 25)
    assert len(list(iter_frames(path))) == frames
    assert len(read_audio(path, num_frames=frames)) == 640 * frames
    twenty_milliseconds = make_media(tmp_path / "short.wav", video_codec=None, duration=0.02)
    assert len(read_audio(twenty_milliseconds)) == pytest.approx(320, abs=2)


def test_frames_are_streamed_not_gathered(tmp_path: Path) -> None:
    frames = iter_frames(make_media(tmp_path / "clip.mkv", duration=10))
    next(frames)
    frames.close()  # type: ignore[attr-defined]  # the rest is never decoded


def test_pictures_too_large_to_be_real_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "huge.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16_384, 8192, "gray"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((8192, 16_384), np.uint8), format="gray")))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="megapixels are refused"):
        probe(path)


@pytest.mark.parametrize("modality", ["sound first", "picture first"])
def test_a_clock_that_starts_with_the_file(tmp_path: Path, modality: str) -> None:
    """Nothing that is heard before the first picture is lost, and times are those of a player."""
    if modality == "sound first":
        path = make_media(tmp_path / "clip.mkv", times=np.arange(15, 60) / 25)
    else:
        path = make_media(tmp_path / "clip.mkv", audio_start=0.3)
    info = probe(path)
    assert info.start == pytest.approx(0.0, abs=1e-3)
    assert info.picture_delay == pytest.approx(0.6 if modality == "sound first" else 0.0, abs=1e-3)
    frames = list(iter_frames(path, start=info.start))
    assert len(frames) == 60
    heard = beep_seconds(np.concatenate(list(iter_audio(path, start=info.start))))
    assert flash_seconds(frames) == pytest.approx((FLASH_START, FLASH_END), abs=HALF_FRAME)
    assert heard == pytest.approx((FLASH_START, FLASH_END), abs=0.005)


def test_sound_that_is_cut_is_warned_of(tmp_path: Path) -> None:
    path = make_media(tmp_path / "clip.mkv", times=np.arange(15, 60) / 25)
    warnings: list[str] = []
    read_audio(path, on_warning=warnings.append)
    assert warnings == [f"{path}: 0.6 s of sound before the first picture are left out"]
    warnings.clear()
    list(iter_frames(path, on_warning=warnings.append))
    assert warnings == []


def test_files_put_one_behind_the_other_go_on(tmp_path: Path) -> None:
    part = make_media(tmp_path / "part.ts", audio_codec="mp2", rate=48_000)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 3)
    warnings: list[str] = []
    frames = list(iter_frames(joined, on_warning=warnings.append))
    audio = read_audio(joined, on_warning=warnings.append)
    once = len(list(iter_frames(part)))
    assert abs(len(frames) - 3 * once) <= 2
    assert len(audio) / 16_000 == pytest.approx(3 * 2.4, abs=0.15)
    white = np.array([frame.mean() > 128 for frame in frames])
    assert np.diff(white.astype(int)).clip(0).sum() == 3, "three flashes"
    assert [warning.split(": ")[1].split(" at ")[0] for warning in warnings] == [
        f"the timestamps of the {what} begin anew" for what in ("picture", "picture", "sound", "sound")
    ]


@pytest.mark.parametrize("sound", [2.3, 2.5])
def test_parts_whose_sound_is_shorter_or_longer_do_not_drift(tmp_path: Path, sound: float) -> None:
    part = make_media(tmp_path / "part.ts", audio_codec="mp2", rate=48_000, audio_end=sound)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(part.read_bytes() * 12)
    start = probe(joined).start
    white = np.array([frame.mean() > 128 for frame in iter_frames(joined, start=start)])
    flashes = (np.flatnonzero(np.diff(white.astype(int)) > 0) + 1) / 25
    loud = np.abs(np.concatenate(list(iter_audio(joined, start=start)))) > 0.2
    heard = np.convolve(loud, np.ones(1600), "full")[: len(loud)] > 0
    beeps = np.flatnonzero(np.diff(heard.astype(int)) > 0) / 16_000
    assert len(flashes) == len(beeps) == 12
    assert np.abs(flashes - beeps).max() < 0.06


def placed(stamps: list[int | None]) -> tuple[list[float], list[str]]:
    """When frames with these stamps, 25 a second, are shown, and what is said of them."""
    notes: list[str] = []
    seconds = [None if stamp is None else stamp / 25 for stamp in stamps]
    times = [time for time, _ in timed(iter(seconds), lambda found: found, lambda _: 0.04, lambda: 0.0, notes.append)]
    return [round(25 * time) for time in times], notes


def test_single_frames_whose_timestamps_are_wrong_are_left_out() -> None:
    assert placed([*range(40), 2, 3, *range(42, 60), None, *range(61, 70)]) == ([*range(40), *range(42, 70)], [])
    assert placed([*range(40), 600, *range(41, 70)]) == ([*range(40), *range(41, 70)], [])
    assert placed([*range(40), *range(600, 640)]) == ([*range(40), *range(600, 640)], []), "a hole"
    assert placed([0, 50, 100, 150]) == ([0, 50, 100, 150], []), "slides"
    times, (note,) = placed([*range(40), *range(8)])
    assert times == [*range(40)]
    assert "the last 8 frames lie behind" in note


@pytest.mark.parametrize("rates", [(48_000, 24_000), (24_000, 48_000), (22_050, 44_100)])
def test_a_rate_that_changes_on_the_way_keeps_all_seconds(tmp_path: Path, rates: tuple[int, int]) -> None:
    parts = [
        make_media(tmp_path / f"{rate}.mp3", video_codec=None, audio_codec="libmp3lame", rate=rate) for rate in rates
    ]
    both = tmp_path / "both.mp3"
    both.write_bytes(b"".join(part.read_bytes() for part in parts))
    alone = sum(len(read_audio(part)) for part in parts)
    warnings: list[str] = []
    audio = read_audio(both, on_warning=warnings.append)
    assert len(audio) / 16_000 == pytest.approx(alone / 16_000, abs=0.2)
    loud = np.abs(audio) > 0.2
    assert loud[: len(loud) // 2].any()
    assert loud[len(loud) // 2 :].any()
    assert not any("hole" in warning for warning in warnings)
