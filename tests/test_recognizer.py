"""From a file to its transcript: which streams are used and why, and what is no recording of speech."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray

import seehear
from conftest import random_clip
from media_files import make_media
from seehear.checkpoint import load_model
from seehear.data.batch import single
from seehear.data.clipfile import MouthClip, read_clip, write_clip
from seehear.data.corpus import Corpus
from seehear.data.faces import FacePoints
from seehear.decoding.decode import decode_batch
from seehear.decoding.options import DecodingMethod, DecodingOptions, DType
from seehear.errors import FaceError, MediaError, ModelError
from seehear.evaluate import evaluate
from seehear.listening.options import WindowOptions
from seehear.modality import Modality
from seehear.recognizer import Recognizer, load

CTC = DecodingOptions(method=DecodingMethod.CTC)
METHODS = [
    CTC,
    DecodingOptions(method=DecodingMethod.ATTENTION, max_length_ratio=0.4),
    DecodingOptions(method=DecodingMethod.BEAM, beam_size=3, max_length_ratio=0.4),
]


@pytest.fixture(scope="module")
def recognizer(model_folder: Path) -> Recognizer:
    """Random weights that speak: blanks are made rare."""
    recognizer = seehear.load(model_folder)
    with torch.no_grad():
        for head in recognizer.model.ctc_heads.values():
            head.weight.mul_(3.0)
            head.bias[0] = -5.0
    return recognizer


class NoFaces:
    """A detector that looks at every frame and finds nothing."""

    every = 1

    def detect(self, number: int, frame: NDArray[np.uint8]) -> list[FacePoints]:
        return []


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files with sound and picture, and with one of them only; `crop` and `mute crop` have the size of a crop."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "clip").mkdir()
    crop = random_clip(20)
    write_clip(folder / "clip" / "crop.mp4", crop)
    write_clip(folder / "clip" / "silent.mp4", MouthClip(crop.video, np.zeros_like(crop.audio)))
    return {
        "crop": folder / "clip" / "crop.mp4",
        "mute crop": make_media(folder / "mute.mp4", size=(96, 96), audio_codec=None, stripe=True),
        "scene": make_media(folder / "scene.mp4", audio_codec="aac"),
        "mute scene": make_media(folder / "mute-scene.mp4", audio_codec=None),
        "sound": make_media(folder / "sound.wav", video_codec=None),
        "silent crop": folder / "clip" / "silent.mp4",
    }


@pytest.mark.parametrize("options", METHODS, ids=lambda options: options.method.value)
@pytest.mark.parametrize("modality", list(Modality))
def test_a_file_gives_what_its_clip_gives_in_evaluation(
    recognizer: Recognizer, random_corpus: Corpus, modality: Modality, options: DecodingOptions
) -> None:
    utterances = random_corpus.split("test")
    report = evaluate(recognizer.model, recognizer.tokenizer, random_corpus, utterances, [modality], options)
    for utterance, record in zip(utterances, report[modality].records, strict=True):
        transcript = recognizer.transcribe(
            random_corpus.root / utterance.clip, modality, options, no_speech_threshold=1.0
        )
        assert recognizer.tokenizer.normaliser(transcript.text) == record.hypothesis
        assert transcript.modality is modality
        assert transcript.duration == utterance.frames / 25
    assert any(record.hypothesis for record in report.records)


@pytest.mark.parametrize("half", ["bf16", "fp16"])
def test_half_precision_computes_nearly_the_same(model_folder: Path, recordings: dict[str, Path], half: DType) -> None:
    exact, fast = load(model_folder, dtype="float32"), load(model_folder, dtype=half)
    one, other = (recognizer.extract(recordings["crop"], "av").output for recognizer in (exact, fast))
    assert other.dtype == np.float32
    assert 0 < np.abs(one - other).max() < 0.1 * np.abs(one).max()
    scores = [r.transcribe(recordings["crop"], "av", CTC).segments[0].avg_logprob for r in (exact, fast)]
    assert scores[0] == pytest.approx(scores[1], rel=0.1)


def test_a_black_picture_leaves_the_sound_alone(recognizer: Recognizer, tmp_path: Path) -> None:
    audio = random_clip(20, seed=0).audio
    write_clip(tmp_path / "black.mp4", MouthClip(np.zeros((20, 96, 96), np.uint8), audio))
    transcript = recognizer.transcribe(tmp_path / "black.mp4", options=CTC)
    assert transcript.modality is Modality.AUDIO
    assert "shows nothing" in transcript.reason
    with pytest.raises(FaceError, match="shows nothing"):
        recognizer.transcribe(tmp_path / "black.mp4", "v", CTC)


@pytest.mark.parametrize("modality", list(Modality))
def test_words_have_times_in_order(recognizer: Recognizer, recordings: dict[str, Path], modality: Modality) -> None:
    with_times = recognizer.transcribe(recordings["crop"], modality, CTC, word_times=True)
    without = recognizer.transcribe(recordings["crop"], modality, CTC)
    (segment,) = with_times.segments
    assert with_times.text == without.text
    assert not without.segments[0].words
    assert [word.word for word in segment.words] == segment.text.split()
    times = [time for word in segment.words for time in (word.start, word.end)]
    assert times == sorted(times)
    assert (segment.start, segment.end) == (times[0], times[-1])
    assert 0 <= segment.start < segment.end <= with_times.duration
    assert all(0 < word.probability <= 1 for word in segment.words)


@pytest.mark.parametrize(
    ("recording", "modality", "reason"),
    [
        ("crop", "av", "the file has sound and video"),
        ("mute crop", "v", "the file has no sound"),
        ("silent crop", "v", "no sound rises above the noise, so lips alone"),
        ("sound", "a", "the file has no video"),
        ("scene", "a", "no usable face"),
    ],
)
def test_auto_takes_what_there_is_and_says_so(
    recognizer: Recognizer, recordings: dict[str, Path], recording: str, modality: str, reason: str
) -> None:
    detector = NoFaces() if "scene" in recording else "auto"
    transcript = recognizer.transcribe(recordings[recording], "auto", CTC, detector=detector)
    assert transcript.modality.value == modality
    assert reason in transcript.reason
    assert transcript.text
    assert transcript.source == str(recordings[recording])


@pytest.mark.parametrize(
    ("recording", "modality", "error", "message"),
    [
        ("sound", "v", MediaError, "has no video"),
        ("sound", "av", MediaError, "has no video"),
        ("mute crop", "a", MediaError, "has no sound"),
        ("mute crop", "av", MediaError, "has no sound"),
        ("scene", "v", FaceError, "no face"),
        ("scene", "av", FaceError, "no face"),
        ("mute scene", "auto", FaceError, "no face"),
    ],
)
def test_what_is_asked_for_and_missing_is_an_error(
    recognizer: Recognizer, recordings: dict[str, Path], recording: str, modality, error, message: str
) -> None:
    detector = NoFaces() if "scene" in recording else "auto"
    with pytest.raises(error, match=message) as caught:
        recognizer.transcribe(recordings[recording], modality, CTC, detector=detector)
    assert str(recordings[recording]) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sound_that_is_asked_for_needs_no_face(recognizer: Recognizer, recordings: dict[str, Path]) -> None:
    transcript = recognizer.transcribe(recordings["scene"], "a", CTC, detector=NoFaces())
    assert transcript.modality is Modality.AUDIO
    assert transcript.reason == "as asked for"


@pytest.mark.parametrize("samples", [1, 320, 640, 641, 1000])
@pytest.mark.parametrize("options", METHODS, ids=lambda options: options.method.value)
def test_sound_shorter_than_anything(
    recognizer: Recognizer, tmp_path: Path, samples: int, options: DecodingOptions
) -> None:
    path = tmp_path / "short.wav"
    soundfile.write(path, np.full(samples, 0.1, np.float32), 16_000)
    transcript = recognizer.transcribe(path, options=options)
    assert transcript.duration == math.ceil(samples / 640) / 25


@pytest.mark.parametrize("frames", [600, 700])
def test_a_long_utterance_in_one_piece(recognizer: Recognizer, tmp_path: Path, frames: int) -> None:
    clip = random_clip(frames)
    write_clip(tmp_path / "long.mp4", clip)
    whole = recognizer.transcribe(
        tmp_path / "long.mp4", "av", CTC, windows=WindowOptions(whole=True), no_speech_threshold=1.0
    )
    (segment,) = whole.segments
    assert (segment.start, segment.end) == (0.0, frames / 25)
    batch = single(read_clip(tmp_path / "long.mp4"))
    with torch.no_grad():
        features = recognizer.model.encode(batch.video, batch.audio, batch.mask, [Modality.AUDIOVISUAL])
        (tokens,) = decode_batch(
            recognizer.model, features[Modality.AUDIOVISUAL], batch.mask, Modality.AUDIOVISUAL, CTC
        )
    assert list(segment.tokens) == tokens


def test_what_is_too_long_for_one_piece_is_refused(recognizer: Recognizer, tmp_path: Path) -> None:
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(8000 * 601, np.float32), 8000)
    with pytest.raises(MediaError, match=r"long\.wav is 601 s long; at most 600 s"):
        recognizer.transcribe(path, windows=WindowOptions(whole=True))


def test_one_frame(recognizer: Recognizer, tmp_path: Path) -> None:
    path = tmp_path / "frame.mp4"
    write_clip(path, random_clip(1))
    for options in METHODS:
        assert recognizer.transcribe(path, options=options).duration == 1 / 25


@pytest.mark.parametrize("samples", [0, 10, 16_000])
def test_silence_says_nothing(recognizer: Recognizer, tmp_path: Path, samples: int) -> None:
    path = tmp_path / "silence.wav"
    soundfile.write(path, np.zeros(samples, np.float32), 16_000)
    try:
        transcript = recognizer.transcribe(path, options=CTC)
    except MediaError:
        assert samples == 0  # a file without a sample may be refused
    else:
        assert transcript.text == ""
        assert transcript.segments == ()
        assert "silence" in transcript.warnings[0]
        assert json.loads(transcript.to_json())["text"] == ""


def test_warnings_reach_the_transcript_without_the_path(recognizer: Recognizer, tmp_path: Path) -> None:
    path = make_media(tmp_path / "hole.mkv", size=(96, 96), holes=((0.4, 1.3),), stripe=True)
    for modality in Modality:
        transcript = recognizer.transcribe(path, modality, CTC)
        assert any(warning.startswith("a hole of") for warning in transcript.warnings)


def test_scores_are_mean_log_probabilities(recognizer: Recognizer, recordings: dict[str, Path]) -> None:
    greedy = recognizer.transcribe(recordings["crop"], options=METHODS[1])
    other = recognizer.transcribe(recordings["crop"], options=CTC)
    for transcript in (greedy, other):
        (segment,) = transcript.segments
        assert segment.avg_logprob < 0
        assert 0 <= segment.no_speech_prob < 1
        assert recognizer.tokenizer.decode(segment.tokens) == segment.text == transcript.text
    assert greedy.segments[0].avg_logprob > other.segments[0].avg_logprob


def test_a_folder_that_is_no_model(tmp_path: Path, recordings: dict[str, Path]) -> None:
    for path in (tmp_path, tmp_path / "nowhere", recordings["sound"]):
        with pytest.raises(ModelError, match=r"no model folder|is a file"):
            seehear.load(path)


def test_a_real_face(model_folder: Path, shared: Path) -> None:
    clip = shared / "data" / "grid-s1" / "clips" / "bbaf3s.mp4"
    recognizer = seehear.load(model_folder, face_model=shared / "models" / "face_landmarker.task")
    transcript = recognizer.transcribe(clip, "auto", CTC)
    assert transcript.modality is Modality.AUDIOVISUAL
    assert transcript.duration == pytest.approx(3.0, abs=0.05)
    assert recognizer.transcribe(shared / "noise" / "babble.flac", "auto", CTC).modality is Modality.AUDIO


def test_no_face_for_mediapipe(model_folder: Path, recordings: dict[str, Path], shared: Path) -> None:
    recognizer = seehear.load(model_folder, face_model=shared / "models" / "face_landmarker.task")
    transcript = recognizer.transcribe(recordings["scene"], "auto", CTC)
    assert transcript.modality is Modality.AUDIO
    assert transcript.reason.startswith("no usable face")


def test_the_loaded_model_is_the_saved_one(model_folder: Path) -> None:
    recognizer, (model, _) = seehear.load(model_folder), load_model(model_folder)
    assert recognizer.model.config == model.config
