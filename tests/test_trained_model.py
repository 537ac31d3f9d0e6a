"""What a trained model writes, through the same path as any recording: real speech, however faint or noisy, and nothing
where nobody speaks. The model, `models/grid-small`, knows one speaker of GRID; its card says how it was trained."""

import itertools
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import seehear
from media_files import add_sound, write_video
from seehear.data.clipfile import MouthClip, write_clip
from seehear.data.faces import MediaPipeDetector
from seehear.data.media import iter_frames, read_audio
from seehear.data.mouth import crop_video
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.metrics import count_words, total
from seehear.recognizer import Recognizer

GREEDY = DecodingOptions(DecodingMethod.ATTENTION, max_length_ratio=0.4)
IDS = ("bbbf7s", "bbil5a", "bgaa9a", "bgah2p", "bgbo1a", "bgit5s", "bras7s", "brbg3s")
"""The first of the test split."""
Sound = NDArray[np.float32]


@pytest.fixture(scope="module")
def recordings(shared: Path) -> Path:
    return shared / "data" / "grid-s1"


@pytest.fixture(scope="module")
def recognizer(shared: Path) -> Recognizer:
    model = Path(__file__).parent / "models" / "grid-small"
    return seehear.load(model, face_model=shared / "models" / "face_landmarker.task")


@pytest.fixture(scope="module")
def clips(shared: Path, recordings: Path) -> dict[str, MouthClip]:
    """Mouth and sound of a few recordings."""
    detector = MediaPipeDetector(shared / "models" / "face_landmarker.task")
    found = {}
    for id in IDS:
        path = recordings / "clips" / f"{id}.mp4"
        mouth = crop_video(path, detector).frames
        found[id] = MouthClip(mouth, read_audio(path, num_frames=len(mouth)))
    return found


@pytest.fixture(scope="module")
def texts(recordings: Path) -> dict[str, str]:
    rows = (line.split("\t") for line in (recordings / "transcripts.tsv").read_text().splitlines())
    return {row[0]: row[1] for row in rows if row[0] in IDS}


@pytest.fixture(scope="module")
def noise(shared: Path) -> dict[str, Sound]:
    """Noises of a root mean square of 0.1, and none."""
    found = {"white": np.random.default_rng(0).normal(size=960_000).astype(np.float32)}
    found |= {name: read_audio(shared / "noise" / f"{name}.flac") for name in ("babble", "kitchen")}
    loud = {name: 0.1 * sound / np.sqrt(np.mean(np.square(sound))) for name, sound in found.items()}
    return {"silence": np.zeros(96_000, np.float32), **loud}


def transcribe(recognizer: Recognizer, folder: Path, clips: dict[str, MouthClip], modality: str) -> dict[str, str]:
    """What is written of each clip."""
    files = []
    for id, clip in clips.items():
        files.append(folder / f"{id}.mp4")
        write_clip(files[-1], clip)
    found = {}
    for path, result in recognizer.transcribe_all(files, modality, GREEDY):  # type: ignore[arg-type]
        assert not isinstance(result, Exception)
        found[path.stem] = result.text
    return found


def error_rate(texts: dict[str, str], found: dict[str, str]) -> float:
    """WER in %."""
    return 100 * (total([count_words(text, found[id]) for id, text in texts.items()]).rate or 0.0)


def changed(clips: dict[str, MouthClip], change: Callable[[Sound], Sound]) -> dict[str, MouthClip]:
    """The same mouths with other sound."""
    return {id: MouthClip(clip.video, change(clip.audio)) for id, clip in clips.items()}


def with_noise(noise: Sound) -> Callable[[Sound], Sound]:
    """Noise as loud as the speech."""
    return lambda audio: audio + 10 * np.sqrt(np.mean(np.square(audio))) * noise[: len(audio)]


@pytest.mark.parametrize("modality", ["a", "v", "av", "auto"])
def test_speech_is_recognised_and_loses_nothing_when_faint(
    recognizer: Recognizer, clips: dict[str, MouthClip], texts: dict[str, str], tmp_path: Path, modality: str
) -> None:
    rate = error_rate(texts, transcribe(recognizer, tmp_path, clips, modality))
    assert rate < (15 if modality == "v" else 8)
    if modality != "v":
        faint = changed(clips, lambda audio: audio * np.float32(10**-1.5))
        assert error_rate(texts, transcribe(recognizer, tmp_path, faint, modality)) <= rate + 4


@pytest.mark.parametrize("kind", ["babble", "kitchen"])
def test_speech_as_loud_as_noise_is_recognised_with_the_lips(
    recognizer: Recognizer,
    clips: dict[str, MouthClip],
    texts: dict[str, str],
    noise: dict[str, Sound],
    tmp_path: Path,
    kind: str,
) -> None:
    noisy = changed(clips, with_noise(noise[kind]))
    assert error_rate(texts, transcribe(recognizer, tmp_path, noisy, "auto")) < 20


@pytest.mark.parametrize("modality", ["a", "v", "av", "auto"])
@pytest.mark.parametrize("kind", ["silence", "white", "babble", "kitchen"])
def test_nothing_is_written_where_nobody_speaks(
    recognizer: Recognizer,
    clips: dict[str, MouthClip],
    noise: dict[str, Sound],
    tmp_path: Path,
    kind: str,
    modality: str,
) -> None:
    silent = {}
    for id, clip in clips.items():
        rest = np.concatenate([clip.video[:8], clip.video[:8][::-1]])  # before the first word, back and forth
        lips = np.tile(rest, (5, 1, 1))[: len(clip.video)]
        silent[id] = MouthClip(lips, noise[kind][: len(clip.audio)])
    assert set(transcribe(recognizer, tmp_path, silent, modality).values()) == {""}


@pytest.mark.parametrize("kind", ["silence", "white", "kitchen"])
def test_a_still_face_and_a_black_picture_say_nothing(
    recognizer: Recognizer, recordings: Path, noise: dict[str, Sound], tmp_path: Path, kind: str
) -> None:
    picture = next(iter_frames(recordings / "clips" / f"{IDS[0]}.mp4"))
    for name, shown in {"still": picture, "black": 0 * picture}.items():
        video = write_video(tmp_path / f"{name}-mute.mp4", [shown] * 75)
        path = add_sound(video, tmp_path / f"{name}.mp4", noise[kind][:48_000])
        assert recognizer.transcribe(path, "auto", GREEDY).text == "", name


def test_the_lips_that_go_with_the_sound_are_read(
    recognizer: Recognizer, recordings: Path, texts: dict[str, str], tmp_path: Path
) -> None:
    right = 0
    for number, (one, other) in enumerate(itertools.pairwise(IDS[:5])):
        names = (one, other) if number % 2 else (other, one)
        sides = [iter_frames(recordings / "clips" / f"{id}.mp4") for id in names]
        video = write_video(tmp_path / "mute.mp4", [np.hstack(pair) for pair in zip(*sides, strict=False)])
        film = add_sound(video, tmp_path / "film.mp4", read_audio(recordings / "clips" / f"{one}.mp4"))
        found = recognizer.transcribe(film, "auto", GREEDY)
        right += [segment.face for segment in found.segments] == [names.index(one)]
        if not number:
            both = recognizer.transcribe(film, "v", GREEDY, face="all")
            by_face = {segment.face: segment.text for segment in both.segments}
            assert sum(count_words(texts[id], by_face.get(face, "")).errors for face, id in enumerate(names)) <= 4
    assert right == 4


def test_a_long_recording_says_what_its_parts_say(
    recognizer: Recognizer, recordings: Path, texts: dict[str, str], tmp_path: Path
) -> None:
    pictures: list[NDArray[np.uint8]] = []
    sounds = []
    for id in IDS[:5]:
        path = recordings / "clips" / f"{id}.mp4"
        shown = list(iter_frames(path))
        pictures += [*shown, *[shown[-1]] * 25]
        sounds += [read_audio(path, num_frames=len(shown)), np.zeros(16_000, np.float32)]
    film = add_sound(write_video(tmp_path / "mute.mp4", pictures), tmp_path / "film.mp4", np.concatenate(sounds))
    found = recognizer.transcribe(film, "auto", GREEDY, word_times=True)
    assert len(found.segments) == 5
    errors = [count_words(texts[id], s.text).errors for id, s in zip(IDS, found.segments, strict=False)]
    assert sum(errors) <= 2
    times = [time for segment in found.segments for word in segment.words for time in (word.start, word.end)]
    assert times == sorted(times)
    for number, segment in enumerate(found.segments):
        assert 4 * number < segment.start < segment.end < 4 * number + 3


def test_a_picture_of_another_size_says_the_same(recognizer: Recognizer, recordings: Path, tmp_path: Path) -> None:
    path = recordings / "clips" / f"{IDS[0]}.mp4"
    larger = [cv2.resize(frame, (540, 432)) for frame in iter_frames(path)]
    film = add_sound(write_video(tmp_path / "mute.mp4", larger), tmp_path / "film.mp4", read_audio(path))
    assert recognizer.transcribe(film, "av", GREEDY).text == recognizer.transcribe(path, "av", GREEDY).text
