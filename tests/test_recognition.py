"""What is believed of what a model makes of windows: gate, choice of stream, pauses, loops, too little memory."""

from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest

import seehear
from conftest import random_clip
from seehear.data.clipfile import write_clip
from seehear.data.mouth import ready_report
from seehear.decoding.join import PlacedWord
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.errors import MediaError
from seehear.listening.lips import Mouth
from seehear.listening.stream import Opened, Piece
from seehear.listening.windows import Window
from seehear.modality import Modality
from seehear.recognizer import Recognizer
from seehear.tokenizer import Tokenizer
from seehear.transcribing.assembly import Assembly
from seehear.transcribing.batches import Heard, Input, Transcriber, _evidence, _pauses, part
from seehear.transcribing.choice import Believed, choose_streams, silence_doubtful
from seehear.transcribing.crops_video import CropsVideos
from seehear.transcribing.recognition import Recognition, Recording
from seehear.transcribing.speaker import speaking
from seehear.transcript import Transcript

CTC = DecodingOptions(DecodingMethod.CTC)
A, V, AV = Modality.AUDIO, Modality.VIDEO, Modality.AUDIOVISUAL


@pytest.fixture(scope="module")
def recognizer(model_folder: Path) -> Recognizer:
    import torch

    recognizer = seehear.load(model_folder, isolated=False)
    with torch.no_grad():
        for head in recognizer.model.ctc_heads.values():
            head.weight.mul_(3.0)
            head.bias[0] = -5.0
    return recognizer


def given(frames: int, modality: Modality = AV, seed: int = 0) -> Input:
    """A window of noise."""
    clip = random_clip(frames, seed)
    audio = clip.audio if modality.uses_audio else None
    return Input(modality, frames, audio, clip.video if modality.uses_video else None)


def said(text: str, tokenizer: Tokenizer, evidence: float = 100.0, frames: int = 75, **facts: object) -> Heard:
    """A window that says `text`, a word every 10 frames."""
    words = tuple(
        PlacedWord(tokenizer.encode(word), word, 10 * number, 10 * number + 8, 0.9)
        for number, word in enumerate(text.split())
    )
    tokens = tuple(token for word in words for token in word.tokens)
    return Heard(frames, tokens, text, words, -0.1, evidence, looped=False, **facts)  # type: ignore[arg-type]


class Scripted(Transcriber):
    """Hears what a function says, and remembers what it was given."""

    def __init__(self, hear: Callable[[Input], Heard]) -> None:
        self.hear = hear
        self.asked: list[Input] = []

    def __call__(self, inputs: Sequence[Input]) -> list[Heard]:
        self.asked += inputs
        return [self.hear(item) for item in inputs]


# A real model


@pytest.mark.parametrize("modality", list(Modality))
def test_a_batch_says_what_its_windows_say(recognizer: Recognizer, modality: Modality) -> None:
    transcriber = Transcriber(recognizer.model, recognizer.tokenizer, CTC)
    inputs = [given(frames, modality, frames) for frames in (20, 7, 31, 1, 40)]
    together = transcriber(inputs)
    for one, heard in zip(inputs, together, strict=True):
        (alone,) = transcriber([one])
        assert alone.tokens == heard.tokens
        assert alone.evidence == pytest.approx(heard.evidence, abs=1e-2)
        assert [word.start for word in alone.words] == [word.start for word in heard.words]


def test_evidence_is_the_probability_of_a_text_against_silence(recognizer: Recognizer) -> None:
    import torch

    probabilities = torch.tensor([[[0.6, 0.4], [0.5, 0.5], [0.9, 0.1]]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    silent = 0.6 * 0.5 * 0.9
    once = 0.4 * 0.5 * 0.9 + 0.6 * 0.5 * 0.9 + 0.6 * 0.5 * 0.1 + 0.4 * 0.5 * 0.9 + 0.6 * 0.5 * 0.1 + 0.4 * 0.5 * 0.1
    assert _evidence(probabilities.log(), mask, [[1]])[0] == pytest.approx(np.log(once / silent), abs=1e-5)
    assert _evidence(probabilities.log(), mask, [[]]) == [0.0]
    assert _evidence(probabilities.log(), mask, [[1, 1, 1, 1]])[0] <= -1e5, "it does not fit"


def test_pauses_lie_between_what_is_said() -> None:
    import torch

    blank = torch.zeros(1, 200)
    blank[0, [30, 40, 110, 120]] = -3.0
    assert _pauses(blank, 40) == [(75,)]
    assert _pauses(blank, 70) == [()]


@pytest.mark.parametrize("text", ["not enough memory: you tried to allocate 5 bytes", "CUDA out of memory. Tried"])
def test_what_does_not_fit_is_halved(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    transcriber = Transcriber(recognizer.model, recognizer.tokenizer, CTC)
    inputs = [given(frames, A, frames) for frames in (20, 30, 40, 160)]
    expected = transcriber(inputs[:3])
    whole, sizes = transcriber._transcribe, []

    def small(self: Transcriber, batch: list[Input], modality: Modality) -> list[Heard]:
        sizes.append([item.frames for item in batch])
        if sum(item.frames for item in batch) > 110:
            raise RuntimeError(text)
        return whole(batch, modality)

    monkeypatch.setattr(Transcriber, "_transcribe", small)
    found = transcriber(inputs)
    assert [heard.text for heard in found[:3]] == [heard.text for heard in expected]
    assert [100] in sizes, "the long window in two parts"
    places = [word.start for word in found[3].words]
    assert places == sorted(places)
    assert places[-1] > 100


def test_other_errors_are_not_taken_for_want_of_memory(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Transcriber, batch: list[Input], modality: Modality) -> list[Heard]:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Transcriber, "_transcribe", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        Transcriber(recognizer.model, recognizer.tokenizer, CTC)([given(200, A)])


def test_an_error_of_a_batch_is_not_hidden(
    recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Transcriber._transcribe

    def broken(self: Transcriber, batch: list[Input], modality: Modality) -> list[Heard]:
        if len(batch) > 1:
            raise RuntimeError("shapes differ")
        return whole(self, batch, modality)

    monkeypatch.setattr(Transcriber, "_transcribe", broken)
    files = [tmp_path / f"{number}.mp4" for number in range(2)]
    for path in files:
        write_clip(path, random_clip(20))
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(recognizer.transcribe_all(files, "v", CTC))


@pytest.mark.parametrize("batch_size", [1, 8])
def test_a_file_for_which_memory_never_suffices_costs_itself_alone(
    recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    whole = Transcriber._transcribe

    def small(self: Transcriber, batch: list[Input], modality: Modality) -> list[Heard]:
        if max(item.frames for item in batch) > 30:
            raise MemoryError
        return whole(self, batch, modality)

    monkeypatch.setattr(Transcriber, "_transcribe", small)
    files = []
    for number, frames in enumerate((20, 80, 30)):
        files.append(tmp_path / f"{number}.mp4")
        write_clip(files[-1], random_clip(frames, number))
    results = [result for _, result in recognizer.transcribe_all(files, "v", CTC, batch_size=batch_size)]
    assert [type(result) for result in results] == [Transcript, MediaError, Transcript]
    assert "1.mp4: the memory does not suffice" in str(results[1])


def test_files_share_batches_and_keep_their_order(recognizer: Recognizer, tmp_path: Path) -> None:
    files = []
    for number, frames in enumerate((31, 12, 20, 25, 9)):
        files.append(tmp_path / f"{number}.mp4")
        write_clip(files[-1], random_clip(frames, number))
    files.insert(2, tmp_path / "none.mp4")
    alone = {path: recognizer.transcribe(path, "av", CTC, no_speech_threshold=1.0) for path in files if path.exists()}
    for batch_size in (1, 2, 4, 100):
        results = dict(recognizer.transcribe_all(files, "av", CTC, no_speech_threshold=1.0, batch_size=batch_size))
        assert list(results) == files
        assert isinstance(results.pop(files[2]), MediaError)
        for path, transcript in results.items():
            assert isinstance(transcript, Transcript)
            assert transcript.text == alone[path].text != ""


# What is believed


@pytest.mark.parametrize(
    ("evidence", "score", "kept"),
    [
        (100.0, -3.0, True),
        (11.0, -3.0, True),
        (8.0, -0.6, False),
        (8.0, -0.5, True),
        (-19, -0.5, True),
        (-21, -0.1, False),
    ],
)
def test_a_text_without_evidence_is_not_written(
    tokenizer: Tokenizer, evidence: float, score: float, kept: bool
) -> None:
    heard = said("bin blue", tokenizer)
    heard = heard._replace(evidence=evidence, avg_logprob=score, tokens=(1, 2, 3, 4, 5))
    gated = silence_doubtful(heard, 0.12)
    assert gated.text == ("bin blue" if kept else "")
    assert gated.doubtful == ("" if kept else "bin blue")
    assert silence_doubtful(heard, 1.0).text == "bin blue"


@pytest.mark.parametrize(
    ("evidence", "moving", "chosen"),
    [
        ({AV: 100, A: 500, V: 500}, True, AV),  # enough: nobody else is asked
        ({AV: 5, A: 2, V: 60}, True, V),
        ({AV: 5, A: 60, V: 20}, True, A),
        ({AV: 5, A: 2, V: 60}, False, AV),  # lips at rest say nothing
        ({AV: -5, A: -8, V: -9}, True, AV),
    ],
)
def test_the_stream_with_most_evidence(
    tokenizer: Tokenizer, evidence: dict[Modality, float], moving: bool, chosen: Modality
) -> None:
    transcriber = Scripted(lambda item: said("bin", tokenizer, evidence[item.modality]))
    both = given(75)
    (found,) = choose_streams([Believed(both, transcriber.hear(both), None)], [moving], transcriber)
    assert found.given.modality is chosen
    assert (found.reason is None) == (chosen is AV)
    assert (found.given.audio is None, found.given.video is None) == (chosen is V, chosen is A)
    asked = {item.modality for item in transcriber.asked}
    assert asked == (set() if evidence[AV] == 100 else {A, V} if moving else {A})


def recognise(transcriber: Transcriber, tokenizer: Tokenizer, *windows: Window, modality: Modality = A) -> Transcript:
    """The transcript of a recording of these windows."""
    recording = Recording(Path("x.wav"), Assembly("x.wav", Path("x.wav"), tokenizer, word_times=True))
    recording.assembly.opened = Opened(60.0, modality, "as asked for")
    recording.assembly.frames = 1500
    recognition = Recognition(transcriber, choose=False, no_speech_threshold=0.12, batch_size=3)
    for window in windows:
        one = given(window.end - window.start, modality)
        recognition.add(recording, Piece(window, modality, "as asked for", one.audio), None, one)
    recognition.finish()
    recording.read = True
    assert recording.done
    result = recording.result()
    assert isinstance(result, Transcript)
    return result


def test_a_window_is_parted_where_ctc_hears_a_pause(tokenizer: Tokenizer) -> None:
    texts = {300: "lay bin lay", 120: "bin blue", 180: "lay red"}
    pauses = {300: (120,), 180: (90,)}
    transcriber = Scripted(
        lambda item: said(texts[item.frames], tokenizer, frames=item.frames, pauses=pauses.get(item.frames, ()))
    )
    found = recognise(transcriber, tokenizer, Window(500, 800, 520, 780))
    assert found.text == "bin blue lay red"
    assert [(segment.words[0].start, segment.words[-1].start) for segment in found.segments] == [
        (20.0, 20.4),
        (24.8, 25.2),
    ]
    assert [item.frames for item in transcriber.asked] == [300, 120, 180], "parts are not parted again"


def test_a_window_is_not_parted_where_it_overlaps_with_another(tokenizer: Tokenizer) -> None:
    transcriber = Scripted(lambda item: said("bin", tokenizer, frames=item.frames, pauses=(20, 150, 280)))
    windows = (Window(500, 800, 520, 780, continues=True, goes_on=True),)
    recognise(transcriber, tokenizer, *windows)
    assert [item.frames for item in transcriber.asked] == [300, 150, 150]


def told(tokenizer: Tokenizer, *parts: tuple[Window, int | None, str], by_face: bool = True) -> Transcript:
    """The transcript of windows with a face and a text each."""
    assembly = Assembly("x.mp4", Path("x.mp4"), tokenizer, word_times=False, by_face=by_face)
    assembly.opened = Opened(60.0, AV, "")
    for window, face, text in parts:
        mouth = None if face is None else Mouth(face, np.zeros((1, 96, 96), np.uint8), 1.0, ready_report(96))
        heard = said(text, tokenizer, frames=window.end - window.start)
        assembly.add(Piece(window, AV, "", None), A if face is None else AV, mouth, heard)
    return assembly.transcript()


FIRST, SECOND = Window(0, 60, 0, 40, goes_on=True), Window(30, 90, 40, 90, continues=True)


def test_each_face_is_joined_with_itself(tokenizer: Tokenizer) -> None:
    parts = [(FIRST, face, "bin blue at f two") for face in range(9)]
    parts += [(SECOND, face, "f two now please") for face in range(9)]
    found = told(tokenizer, *parts)
    for face in range(9):
        text = " ".join(segment.text for segment in found.segments if segment.face == face)
        assert text == "bin blue at f two now please"
    new = told(tokenizer, (FIRST, 0, "bin blue at f two"), (SECOND, 0, "f two now"), (SECOND, 1, "red green white"))
    assert [segment.text for segment in new.segments if segment.face == 1] == ["red green white"]
    one = told(tokenizer, (FIRST, 0, "bin blue at f two"), (SECOND, 1, "f two now"), by_face=False)
    assert one.text == "bin blue at f two now"


def test_sound_alone_is_joined_with_any_face(tokenizer: Tokenizer) -> None:
    for faces in ((0, None), (None, 0), (None, None)):
        found = told(tokenizer, (FIRST, faces[0], "bin blue at f two"), (SECOND, faces[1], "f two now please"))
        assert found.text == "bin blue at f two now please", faces


def test_sound_in_place_of_several_faces_is_told_once(tokenizer: Tokenizer) -> None:
    halves = [(Window(start, start + 60, start, start + 40), text) for start, text in ((0, "bin"), (60, "blue"))]
    assert told(tokenizer, *[(window, None, text) for _ in range(2) for window, text in halves]).text == "bin blue"
    parted = [(Window(0, 50, 0, 40), 1, "bin"), (Window(50, 120, 50, 110), 1, "blue")]
    assert told(tokenizer, *parted, *[(window, None, text) for window, text in halves]).text == "bin blue"
    assert told(tokenizer, (FIRST, None, "bin blue"), (FIRST, None, "bin blue")).text == "bin blue"
    assert told(tokenizer, (FIRST, None, "bin blue"), (FIRST, 1, "bin red")).text == "bin red"


def test_overlapping_windows_say_each_word_once(tokenizer: Tokenizer) -> None:
    texts = iter(("bin blue at f two", "f two now please lay"))
    transcriber = Scripted(lambda item: said(next(texts), tokenizer, frames=item.frames))
    found = recognise(transcriber, tokenizer, Window(0, 60, 0, 40), Window(30, 90, 40, 90, continues=True))
    assert found.text == "bin blue at f two now please lay"
    starts = [word.start for segment in found.segments for word in segment.words]
    assert starts == sorted(starts)


def test_what_is_not_believed_is_told(tokenizer: Tokenizer) -> None:
    transcriber = Scripted(lambda item: said("bin blue", tokenizer, evidence=-90.0))
    found = recognise(transcriber, tokenizer, Window(0, 75, 0, 75), Window(100, 175, 100, 175))
    assert found.text == ""
    assert found.segments == ()
    assert found.warnings == ("there seems to be no speech at 0.0 s: nothing is written, and 1 times more",)


# Faces


def test_without_sound_who_moves_most_speaks(tokenizer: Tokenizer) -> None:
    mouths = tuple(
        Mouth(n, np.zeros((5, 96, 96), np.uint8), motion, ready_report(96)) for n, motion in enumerate((1.0, 3.0, 2.0))
    )
    piece = Piece(Window(0, 5, 0, 5), V, "", None, mouths)
    assert speaking(piece, Scripted(lambda item: said("", tokenizer))).face == 1


def test_who_makes_what_is_heard_most_probable_speaks(recognizer: Recognizer) -> None:
    transcriber = Transcriber(recognizer.model, recognizer.tokenizer, CTC)
    mouths = tuple(Mouth(n, random_clip(20, n).video, 0.0, ready_report(96)) for n in range(3))
    piece = Piece(Window(0, 20, 0, 20), AV, "", random_clip(20).audio, mouths)
    heard = transcriber.greedily([Input(A, 20, piece.audio, None)])
    scores = transcriber.score(heard * 3, [Input(V, 20, None, mouth.frames) for mouth in mouths])
    assert len(set(scores)) == 3
    assert speaking(piece, transcriber).face == int(np.argmax(scores))


# What the model saw


def test_crops_as_video_with_their_text(tmp_path: Path, tokenizer: Tokenizer) -> None:
    videos = CropsVideos(tmp_path, {Path("a.mp4"): "a", Path("b.mp4"): "b"})
    one, other = given(30), given(40, seed=1)
    heard = said("bin blue <ß>", tokenizer)
    videos.add(Path("a.mp4"), Piece(Window(50, 80, 50, 80), AV, "", one.audio), 0, one, heard)
    videos.add(Path("a.mp4"), Piece(Window(70, 110, 80, 110, True), AV, "", other.audio), 0, other, heard)
    videos.add(Path("a.mp4"), Piece(Window(120, 150, 120, 150), A, "", one.audio), None, one, heard)
    videos.close(Path("a.mp4"))
    with av.open(str(tmp_path / "a-crops.mp4")) as container:
        frames = list(container.decode(video=0))
        times = [round(float(frame.pts * frame.time_base) * 25) for frame in frames]
        pictures = [frame.to_ndarray(format="gray") for frame in frames]
    assert times == list(range(50, 110))
    assert np.abs(pictures[5][2:384:4, 2:384:4].astype(int) - one.video[5]).mean() < 12  # type: ignore[index]
    assert np.abs(pictures[35][2:384:4, 2:384:4].astype(int) - other.video[15]).mean() < 12  # type: ignore[index]
    assert pictures[0][384:].max() > 200, "the text"
    assert not (tmp_path / "b-crops.mp4").exists()


@pytest.mark.parametrize("names", [("clip.mp4", "clip-crops.mp4"), ("folder/a.mp4",)])
def test_crops_are_written_over_nothing(tmp_path: Path, tokenizer: Tokenizer, names: tuple[str, ...]) -> None:
    (tmp_path / "a-crops.mp4").mkdir()
    inputs = {tmp_path / name: Path(name).stem for name in names}
    heard, one = said("bin", tokenizer), given(30)
    first = next(iter(inputs))
    with CropsVideos(tmp_path, inputs) as videos:
        videos.add(first, Piece(Window(0, 30, 0, 30), AV, "", one.audio), 0, one, heard)
        with pytest.raises(MediaError, match=r"its crops cannot be written: .*(is to be transcribed|is a folder)"):
            videos.close(first)
    assert [path.name for path in tmp_path.iterdir()] == ["a-crops.mp4"]


def test_crops_that_are_not_complete_are_not_kept(tmp_path: Path, tokenizer: Tokenizer) -> None:
    one = given(30)
    with CropsVideos(tmp_path, {Path("a.mp4"): "a"}) as videos:
        videos.add(Path("a.mp4"), Piece(Window(0, 30, 0, 30), AV, "", one.audio), 0, one, said("bin", tokenizer))
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())


def test_what_a_listener_raises_costs_no_window(recognizer: Recognizer, tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.mp4" for number in range(3)]
    for number, path in enumerate(files):
        write_clip(path, random_clip(20, number))
    expected = [result.text for _, result in recognizer.transcribe_all(files, "v", CTC)]  # type: ignore[union-attr]
    seen: list[Path] = []

    def once(path: Path, *_: object) -> None:
        seen.append(path)
        if len(seen) == 1:
            raise OSError("no room")

    results = recognizer.transcribe_all(files, "v", CTC, on_window=once, batch_size=1)
    with pytest.raises(OSError, match="no room"):
        next(results)
    assert expected == [recognizer.transcribe(path, "v", CTC).text for path in files]


def test_a_part_of_a_window_is_that_of_both_streams() -> None:
    whole = given(50)
    some = part(whole, 10, 30)
    assert some.frames == 20
    np.testing.assert_array_equal(some.audio, whole.audio[6400:19200])  # type: ignore[index]
    np.testing.assert_array_equal(some.video, whole.video[10:30])  # type: ignore[index]
