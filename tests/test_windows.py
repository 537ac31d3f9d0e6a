"""Where recordings are cut: around speech, at pauses, and with an overlap where there is none."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from seehear.errors import ConfigError
from seehear.listening.options import WindowOptions
from seehear.listening.windows import GivenWindows, Window, Windower

OPTIONS = WindowOptions(longest=10.0, pause=0.8, margin=1.0, overlap=1.6)
"""250 frames at most, 200 of them speech; pauses of 20 frames, margins of 25, overlaps of 40."""


def cut(
    active: NDArray[np.bool_],
    options: WindowOptions = OPTIONS,
    step: int = 100,
    loudness: NDArray[np.float64] | None = None,
) -> list[Window]:
    """The windows of a recording that comes in blocks of `step` frames."""
    windower = Windower(options)
    loud = active.astype(float) if loudness is None else loudness
    windows = []
    for start in range(0, len(active), step):
        windower.add(active[start : start + step], loud[start : start + step])
        windows += windower.take()
    return windows + windower.take(final=True)


def speech(frames: int, *spans: tuple[int, int]) -> NDArray[np.bool_]:
    """Frames of which those in `spans` are active."""
    active = np.zeros(frames, bool)
    for start, end in spans:
        active[start:end] = True
    return active


def test_silence_has_no_window() -> None:
    assert cut(np.zeros(1000, bool)) == []
    assert cut(np.zeros(0, bool)) == []


def test_a_short_recording_is_one_window_with_all_there_is() -> None:
    assert cut(speech(75, (18, 48))) == [Window(0, 75, 18, 48)]
    assert cut(speech(1, (0, 1))) == [Window(0, 1, 0, 1)]


def test_long_silence_around_speech_is_left_out() -> None:
    assert cut(speech(1000, (500, 560))) == [Window(475, 585, 500, 560)]


def test_pauses_part_windows_and_short_ones_do_not() -> None:
    assert cut(speech(300, (100, 130), (145, 180))) == [Window(75, 205, 100, 180)]
    one, other = cut(speech(300, (100, 130), (160, 190)))
    assert (one, other) == (Window(75, 145, 100, 130), Window(145, 215, 160, 190))


@pytest.mark.parametrize("step", [1, 7, 100, 5000])
def test_the_same_windows_however_the_recording_comes(step: int) -> None:
    rng = np.random.default_rng(0)
    active = np.repeat(rng.random(150) < 0.6, rng.integers(5, 60, 150))
    loudness = rng.random(len(active))
    assert cut(active, step=step, loudness=loudness) == cut(active, step=len(active), loudness=loudness)


def test_speech_without_pauses_is_cut_where_it_is_least_loud() -> None:
    active, loudness = np.ones(600, bool), np.ones(600)
    loudness[170:175] = 0.0
    loudness[330:335] = 0.5
    windows = cut(active, loudness=loudness)
    assert [(window.speech_start, window.speech_end) for window in windows[:2]] == [(0, 172), (172, 332)]
    assert not windows[0].continues
    assert all(window.continues for window in windows[1:])
    assert windows[-1].end == 600


def test_every_active_frame_is_in_a_window_and_none_is_too_long() -> None:
    rng = np.random.default_rng(1)
    active = np.repeat(rng.random(400) < 0.8, rng.integers(5, 80, 400))
    windows = cut(active, loudness=rng.random(len(active)))
    covered = np.zeros(len(active), bool)
    for window in windows:
        assert window.start <= window.speech_start < window.speech_end <= window.end
        assert window.end - window.start <= 250
        covered[window.start : window.end] = True
    assert covered[active].all()
    for before, after in itertools.pairwise(windows):
        overlap = before.end - after.start
        assert overlap in ((40,) if after is not windows[-1] else range(20, 41)) if after.continues else overlap <= 0
        assert before.speech_end == after.speech_start if after.continues else before.speech_end < after.speech_start


def test_what_is_done_with_need_not_be_kept() -> None:
    windower = Windower(OPTIONS)
    for _ in range(100):
        windower.add(speech(100, (30, 60)), np.zeros(100))
        windower.take()
        assert windower.known - windower.needed <= 150


def test_the_whole_in_one_piece() -> None:
    active = speech(1000, (100, 130), (400, 900))
    assert cut(active, WindowOptions(whole=True)) == [Window(0, 1000, 0, 1000)]


def test_options_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"at least 5\.2 s, not 2"):
        WindowOptions(longest=2.0)
    with pytest.raises(ConfigError, match="pause"):
        WindowOptions(pause=0.0)


def test_what_a_window_has_for_itself() -> None:
    loudness = np.ones(600)
    loudness[[170, 330]] = 0.0
    windows = cut(np.ones(600, bool), loudness=loudness)
    assert [window.own for window in windows] == [
        (before.end if before else 0, after.start if after else 600)
        for before, after in zip([None, *windows[:-1]], [*windows[1:], None], strict=True)
    ]


@pytest.mark.parametrize("silence", [0, 30, 50])
def test_wide_margins_at_the_ends_make_no_window_too_long(silence: int) -> None:
    (window,) = cut(speech(2 * silence + 199, (silence, silence + 199)))
    assert window.end - window.start <= 250
    assert (window.start, window.end) == (max(0, window.start), min(2 * silence + 199, window.end))
    assert window.start <= max(0, silence - 25)
    assert window.end >= min(2 * silence + 199, silence + 199 + 25)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_options_are_finite(value: float) -> None:
    with pytest.raises(ConfigError):
        WindowOptions(longest=value)
    with pytest.raises(ConfigError):
        WindowOptions(pause=value)


@pytest.mark.parametrize(("margin", "overlap", "longest"), [(0.2, 1.6, 24.0), (0.5, 2.4, 6.0), (0.1, 1.6, 3.5)])
def test_overlaps_are_as_wide_as_asked_for(margin: float, overlap: float, longest: float) -> None:
    options = WindowOptions(longest=longest, margin=margin, overlap=overlap)
    windows = cut(np.ones(3000, bool), options, loudness=np.random.default_rng(0).random(3000))
    for before, after in itertools.pairwise(windows[:-1]):
        assert before.end - after.start == 2 * round(overlap * 25 / 2)
        assert (before.own[1], after.own[0]) == (after.start, before.end)
        assert before.end - before.start <= longest * 25


def test_tight_windows_keep_their_overlaps() -> None:
    tight = Window(0, 420, 25, 400, goes_on=True).without_margins(5)
    assert (tight, tight.own) == (Window(20, 420, 25, 400, goes_on=True), (20, 380))
    tight = Window(380, 420, 400, 410, continues=True).without_margins(5)
    assert (tight, tight.own) == (Window(380, 415, 400, 410, continues=True), (420, 415))


def test_given_windows_come_when_their_last_frame_is_known_and_hold_no_others_back() -> None:
    windows = [Window(10, 60, 12, 58), Window(60, 90, 60, 88), Window(150, 205, 150, 198), Window(230, 260, 235, 255)]
    given = GivenWindows(windows)
    found, needed = [], []
    for block in range(4):
        given.add(np.zeros(50, bool), np.zeros(50))
        needed.append((given.known, given.needed))
        found.append(given.take(final=block == 3))
    assert found == [[], windows[:2], [], [Window(150, 200, 150, 198)]], "what ends later is cut off, or left out"
    assert needed == [(50, 10), (100, 10), (150, 150), (200, 150)]
    assert given.needed == 200


def test_speech_that_ends_a_little_after_the_recording() -> None:
    given = GivenWindows([Window(0, 20, 5, 15), Window(30, 53, 35, 52), Window(40, 56, 41, 53)], beyond=2)
    given.add(np.ones(50, bool), np.ones(50))
    assert given.take(final=True) == [Window(0, 20, 5, 15), Window(30, 50, 35, 50)]
