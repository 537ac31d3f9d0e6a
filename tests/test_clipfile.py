"""Prepared clips come back as they were written."""

from pathlib import Path

import av
import numpy as np
import pytest

from conftest import with_streams
from media_files import make_media
from seehear.data.clipfile import MouthClip, read_clip, write_clip
from seehear.errors import MediaError
from seehear.modality import Modality


def moving_picture(frames: int) -> MouthClip:
    """Smooth moving shapes over the whole range of greys, and noise-like sound with a click at every frame."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96] / 96
    video = np.stack([127.5 + 127.5 * np.sin(6 * x + 4 * y + t / 5) for t in range(frames)])
    audio = 0.1 * rng.standard_normal(frames * 640)
    audio[::640] = 0.9
    return MouthClip(video=video.astype(np.uint8), audio=audio.astype(np.float32))


@pytest.mark.parametrize("frames", [1, 2, 75, 260])
def test_lengths_are_exact_and_nothing_moves(tmp_path: Path, frames: int) -> None:
    clip = moving_picture(frames)
    write_clip(tmp_path / "clip.mp4", clip)
    again = read_clip(tmp_path / "clip.mp4")
    assert again.video.shape == clip.video.shape
    assert again.audio.dtype == np.float32
    np.testing.assert_allclose(again.audio, clip.audio, atol=2e-5)  # 16 bits: no shift, no priming
    error = again.video.astype(float) - clip.video
    assert np.abs(error).mean() < 1.5
    assert abs(error.mean()) < 0.3  # black stays black and white white
    assert again.video.max() > 250
    assert again.video.min() < 5


@pytest.mark.parametrize("streams", list(Modality))
def test_a_clip_comes_back_with_the_streams_that_it_has(tmp_path: Path, streams: Modality) -> None:
    """The same as beside the other stream."""
    whole = moving_picture(40)
    write_clip(tmp_path / "whole.mp4", whole)
    write_clip(tmp_path / "clip.mp4", with_streams(whole, streams))
    expected, again = with_streams(read_clip(tmp_path / "whole.mp4"), streams), read_clip(tmp_path / "clip.mp4")
    assert (again.streams, again.frames) == (streams, 40)
    for stream, same in ((again.video, expected.video), (again.audio, expected.audio)):
        assert (stream is None) == (same is None)
        if stream is not None:
            np.testing.assert_array_equal(stream, same)


def test_sound_over_full_scale_is_turned_down(tmp_path: Path) -> None:
    clip = moving_picture(10)
    write_clip(tmp_path / "clip.mp4", MouthClip(video=clip.video, audio=2 * clip.audio))
    again = read_clip(tmp_path / "clip.mp4")
    np.testing.assert_allclose(again.audio, 2 * clip.audio / np.abs(2 * clip.audio).max(), atol=4e-5)


def test_a_three_second_clip_is_small_and_playable(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, moving_picture(75))
    assert path.stat().st_size < 120_000  # the noise here does not compress; a real clip of 3 s takes 68 kB
    with av.open(str(path)) as container:
        video, audio = container.streams.video[0], container.streams.audio[0]
        assert video.codec_context.name == "h264"
        assert video.codec_context.pix_fmt in ("yuv420p", "yuvj420p")  # what browsers play
        assert audio.codec_context.name == "flac"
        assert float(container.duration) / 1e6 == pytest.approx(3.0, abs=0.01)


def test_a_playlist_under_the_name_of_a_clip_leads_nowhere(tmp_path: Path) -> None:
    make_media(tmp_path / "real.mp4", size=(96, 96))
    for name, text in (
        ("list.mp4", f"#EXTM3U\n#EXTINF:1,\n{tmp_path / 'real.mp4'}\n#EXT-X-ENDLIST\n"),
        ("concat.mp4", f"ffconcat version 1.0\nfile {tmp_path / 'real.mp4'}\n"),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8")
        with pytest.raises(MediaError, match=name):
            read_clip(tmp_path / name)


def test_wrong_shapes_are_refused(tmp_path: Path) -> None:
    clip = moving_picture(5)
    for video, audio in (
        (clip.video[:, :90], clip.audio),
        (clip.video, clip.audio[:-1]),
        (clip.video[:0], clip.audio[:0]),
        (None, clip.audio[:-1]),
        (clip.video[:, :90], None),
        (None, None),
    ):
        with pytest.raises(ValueError, match="a clip has video"):
            write_clip(tmp_path / "clip.mp4", MouthClip(video=video, audio=audio))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated"])
def test_damaged_clips_are_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "clip.mp4"
    write_clip(path, moving_picture(50))
    content = {"empty": b"", "text": b"no clip", "truncated": path.read_bytes()[:9000]}.get(damage)
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(MediaError, match=r"clip\.mp4"):
        read_clip(path)
