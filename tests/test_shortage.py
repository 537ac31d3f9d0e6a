"""Where memory does not suffice: fewer clips at once, then halves, then a smaller beam; and it is said."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import Tensor

import seehear
import seehear.cli.evaluate as command
from conftest import SENTENCES, random_clip
from seehear.checkpoint import load_model
from seehear.cli.main import main
from seehear.data.clipfile import MouthClip, write_clip
from seehear.data.corpus import Corpus, Utterance
from seehear.data.media import read_audio
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.decoding.shortage import Reduction, halves, within_memory
from seehear.errors import CorpusError, MediaError
from seehear.evaluate import evaluate
from seehear.listening.lips import Mouth
from seehear.listening.options import WindowOptions
from seehear.listening.stream import Piece
from seehear.listening.windows import Window
from seehear.metrics import count_words
from seehear.modality import Modality
from seehear.model.transformer import DecoderCache
from seehear.model.usr import USR
from seehear.recognizer import Recognizer
from seehear.tokenizer import Tokenizer
from seehear.transcribing.assembly import Assembly
from seehear.transcribing.batches import Heard, Input, Transcriber
from seehear.transcribing.recognition import Recording

A, V, AV = Modality.AUDIO, Modality.VIDEO, Modality.AUDIOVISUAL
Limit = Callable[[int], None]


@dataclass
class Numbers:
    """Clips that are lists of frames; what is found in one is the same list. Memory is frames × beam."""

    memory: int
    tried: list[tuple[list[int], int]] = field(default_factory=list)
    """Lengths of the clips and the beam, of each attempt."""

    def decode(self, items: Sequence[list[int]], options: DecodingOptions) -> list[list[int]]:
        self.tried.append(([len(item) for item in items], options.beam_size))
        if sum(map(len, items)) * options.beam_size > self.memory:
            raise torch.OutOfMemoryError("no room")
        return list(items)

    def halves(self, item: list[int]) -> tuple[list[int], list[int]] | None:
        bounds = halves(len(item))
        return None if bounds is None else (item[slice(*bounds[0])], item[slice(*bounds[1])])

    def join(self, item: list[int], left: list[int], right: list[int]) -> list[int]:
        return left + right[len(left) + len(right) - len(item) :]


def test_the_batch_then_the_clip_once_then_the_beam_then_smaller_parts() -> None:
    clips = [list(range(frames)) for frames in (20, 30, 200)]
    work = Numbers(memory=80)
    found = within_memory(work, clips, DecodingOptions(beam_size=5))
    assert [list(item) for item, _ in found] == clips
    assert [reduction for _, reduction in found] == [Reduction(1, 2), Reduction(1, 2), Reduction(4, 1)]
    first = [([20, 30, 200], 5), ([20], 5), ([20], 2), ([30, 200], 5), ([30], 5), ([30], 2), ([200], 5)]
    half = [([120], 5), ([120], 2), ([120], 1), ([80], 1), ([80], 1)]  # halved again where no beam is left
    assert work.tried == [*first, *half, *half]


def test_where_all_is_tried_the_error_comes_out() -> None:
    work = Numbers(memory=10)
    with pytest.raises(torch.OutOfMemoryError):
        within_memory(work, [list(range(120))], DecodingOptions(beam_size=3))
    assert work.tried == [([120], 3), ([80], 3), ([80], 1)]


def test_other_errors_are_not_taken_for_want_of_memory() -> None:
    class Broken(Numbers):
        def decode(self, items: Sequence[list[int]], options: DecodingOptions) -> list[list[int]]:
            self.tried.append(([], 0))
            raise RuntimeError("shapes differ")

    work = Broken(1)
    with pytest.raises(RuntimeError, match="shapes differ"):
        within_memory(work, [[1], [2]], DecodingOptions())
    assert len(work.tried) == 1


def test_methods_without_a_beam_have_none_to_halve() -> None:
    assert DecodingOptions(DecodingMethod.ATTENTION).with_smaller_beam() is None
    sizes, options = [], DecodingOptions(beam_size=40, ctc_weight=0.3)
    while options is not None:
        sizes.append(options.beam_size)
        assert options.ctc_weight == 0.3
        options = options.with_smaller_beam()  # type: ignore[assignment]
    assert sizes == [40, 20, 10, 5, 2, 1]


def test_what_was_done_in_words() -> None:
    assert str(Reduction(2)) == "in halves"
    assert str(Reduction(1, 10)) == "with beam 10"
    assert str(Reduction(1, 20).joined(Reduction(2, 5))) == "in 3 parts with beam 5"
    assert Reduction(1, 5).with_beam(10) == Reduction(1, 5)


def test_memory_of_gpus_is_given_back_before_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    given_back: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given_back.append("cuda"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: given_back.append("mps"))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    within_memory(Numbers(memory=60), [[1] * 30, [1] * 30], DecodingOptions(beam_size=1))
    assert given_back == []
    within_memory(Numbers(memory=60), [[1] * 30, [1] * 31], DecodingOptions(beam_size=1))
    assert given_back == ["cuda", "mps"]


# --- Recordings ---


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    """Give the decoder memory for so many hypotheses × frames at once."""
    decode = USR.decode

    def switch(memory: int) -> None:
        def limited(
            self: USR, tokens: Tensor, features: Tensor, mask: Tensor, cache: DecoderCache | None = None
        ) -> Tensor:
            if len(tokens) * mask.shape[1] > memory:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            return decode(self, tokens, features, mask, cache)

        monkeypatch.setattr(USR, "decode", limited)

    return switch


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return seehear.load(Path(__file__).parent / "models" / "grid-small", isolated=False)


@pytest.fixture(scope="module")
def speech(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two commands of GRID in a row, six seconds."""
    clips = shared / "data" / "grid-s1" / "clips"
    sounds = [read_audio(clips / f"{id}.mp4", num_frames=75) for id in ("bbbf7s", "bgaa9a")]
    path = tmp_path_factory.mktemp("speech") / "two.wav"
    soundfile.write(path, np.concatenate(sounds), 16_000)
    return path


@pytest.mark.parametrize(
    ("memory", "note", "most_errors"),
    [
        (1200, (), 0),
        (1199, ("memory did not suffice at 0.0 s: recognized in halves",), 0),
        (500, ("memory did not suffice at 0.0 s: recognized in halves with beam 4",), 0),
        (100, ("memory did not suffice at 0.0 s: recognized in halves with beam 1",), 1),
    ],
)
def test_a_recording_says_the_same_with_less(
    recognizer: Recognizer, speech: Path, limit: Limit, memory: int, note: tuple[str, ...], most_errors: int
) -> None:
    options, whole = DecodingOptions(beam_size=8, max_length_ratio=0.4), WindowOptions(whole=True)
    expected = recognizer.transcribe(speech, "a", options, windows=whole)
    assert len(expected.text.split()) == 12
    limit(memory)
    found = recognizer.transcribe(speech, "a", options, windows=whole)
    assert count_words(expected.text, found.text).errors <= most_errors
    assert tuple(set(found.warnings) - set(expected.warnings)) == note


def test_a_recording_that_does_not_fit_costs_itself(recognizer: Recognizer, speech: Path, limit: Limit) -> None:
    limit(50)
    with pytest.raises(MediaError, match=r"two.wav: the memory does not suffice to recognise it: take another device"):
        recognizer.transcribe(speech, "a", DecodingOptions(beam_size=8))


def test_windows_of_several_recordings_are_decoded_one_by_one(
    recognizer: Recognizer, speech: Path, limit: Limit
) -> None:
    options = DecodingOptions(beam_size=4, max_length_ratio=0.4)
    expected = [result.text for _, result in recognizer.transcribe_all([speech] * 3, "a", options)]  # type: ignore[union-attr]
    limit(4 * 160)
    found = [result for _, result in recognizer.transcribe_all([speech] * 3, "a", options)]
    assert [result.text for result in found] == expected  # type: ignore[union-attr]
    assert not any("memory" in warning for result in found for warning in result.warnings)  # type: ignore[union-attr]


def test_a_batch_that_did_not_fit_is_not_tried_again(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def limited(self: Transcriber, inputs: list[Input], modality: Modality) -> list[Heard]:
        tried.append(len(inputs))
        if len(inputs) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [Heard(given.frames, (), "", (), 0.0, 0.0, looped=False) for given in inputs]

    monkeypatch.setattr(Transcriber, "_transcribe", limited)
    transcriber = Transcriber(recognizer.model, recognizer.tokenizer, DecodingOptions())
    inputs = [Input(A, 100, None, None)] * 5
    assert transcriber(inputs) == transcriber(inputs)
    assert tried == [5, 2, 3, 1, 2, *(2, 2, 1)]


def test_without_memory_to_find_who_speaks_it_is_who_moves(
    recognizer: Recognizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object) -> None:
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(Transcriber, "greedily", no_room)
    mouths = tuple(Mouth(n, random_clip(5, n).video, motion, "") for n, motion in enumerate((1.0, 3.0, 2.0)))
    piece = Piece(Window(50, 55, 50, 55), AV, "", random_clip(5).audio, mouths)
    recording = Recording(Path("x.mp4"), Assembly("x.mp4", Path("x.mp4"), recognizer.tokenizer, word_times=False))
    transcriber = Transcriber(recognizer.model, recognizer.tokenizer, DecodingOptions())
    ((mouth, _),) = recognizer._inputs(piece, "speaking", transcriber, recording)
    assert mouth is not None
    assert mouth.face == 1
    assert [note for note, _ in recording.assembly._notes.values()] == [
        "memory did not suffice at 2.0 s to find who speaks: it is whose lips move most"
    ]


def test_features_of_a_recording_that_does_not_fit(
    speech: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_room(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(USR, "contextualise", no_room)
    model = Path(__file__).parent / "models" / "grid-small"
    monkeypatch.setattr(sys, "argv", ["seehear", "extract", str(speech), "-m", str(model), "-o", str(tmp_path / "out")])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 1
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {speech}: the memory does not suffice to encode it in one piece: cut it, or take ")
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only there does RLIMIT_AS bound what is allocated")
def test_memory_that_really_ends() -> None:
    """A minute of sound in one piece needs 150 MB and more for attention alone; half of it a quarter of that."""
    code = """if True:
        import resource
        import numpy as np, torch
        torch.set_num_threads(1)
        import seehear
        from seehear.decoding.options import DecodingOptions
        from seehear.modality import Modality
        from seehear.transcribing.batches import Input, Transcriber

        recognizer = seehear.load(MODEL, isolated=False)
        options = DecodingOptions(beam_size=4, max_length_ratio=0.02)
        transcriber = Transcriber(recognizer.model, recognizer.tokenizer, options)
        audio = 0.1 * np.random.default_rng(0).normal(size=1500 * 640).astype(np.float32)
        transcriber([Input(Modality.AUDIO, 75, audio[: 75 * 640], None)])
        size = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmSize"))
        resource.setrlimit(resource.RLIMIT_AS, (size * 1024 + 90 * 2**20, -1))
        (heard,) = transcriber([Input(Modality.AUDIO, 1500, audio, None)])
        print(heard.frames, "frames", heard.reduction)
    """
    code = code.replace("MODEL", repr(str(Path(__file__).parent / "models" / "grid-small")))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1500 frames in ")


# --- Corpora ---


@pytest.fixture(scope="module")
def long_corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A short clip and a long one."""
    root = tmp_path_factory.mktemp("corpora") / "long"
    utterances = [Utterance(f"clip-{n}", f"clips/{n}.mp4", frames, SENTENCES[0]) for n, frames in enumerate((30, 130))]
    for number, utterance in enumerate(utterances):
        write_clip(root / utterance.clip, random_clip(utterance.frames, seed=number))
    return Corpus.write(root, utterances, {"test": [utterance.id for utterance in utterances]})


def test_a_corpus_is_evaluated_with_less(
    model_folder: Path, tokenizer: Tokenizer, long_corpus: Corpus, limit: Limit
) -> None:
    model, _ = load_model(model_folder)
    options = DecodingOptions(beam_size=4, max_length_ratio=0.1)
    expected = evaluate(model, tokenizer, long_corpus, long_corpus.split("test"), (A, V), options)
    assert expected.reduced == {}
    limit(4 * 130)  # together they do not fit
    alone = evaluate(model, tokenizer, long_corpus, long_corpus.split("test"), (A, V), options)
    assert (list(alone.records), alone.reduced) == (list(expected.records), {})
    limit(300)
    found = evaluate(model, tokenizer, long_corpus, long_corpus.split("test"), (A, V), options)
    assert found.reduced == {"clip-1": "in halves with beam 2"}
    assert found.summary()["reduced"] == found.reduced
    assert [r for r in found.records if r.id == "clip-0"] == [r for r in expected.records if r.id == "clip-0"]
    assert len(list(found.records)) == 4
    limit(20)
    with pytest.raises(CorpusError, match=r"memory does not suffice to decode 'clip-1' \(130 frames\)"):
        evaluate(model, tokenizer, long_corpus, long_corpus.split("test"), (A, V), options)


def test_halves_of_a_clip_are_joined_at_its_words(
    recognizer: Recognizer, speech: Path, tmp_path: Path, limit: Limit
) -> None:
    """An evaluated clip says in halves what it says in one piece, but perhaps for a word."""
    clip = MouthClip(random_clip(150).video, read_audio(speech, num_frames=150))
    write_clip(tmp_path / "corpus" / "clips" / "two.mp4", clip)
    corpus = Corpus.write(tmp_path / "corpus", [Utterance("two", "clips/two.mp4", 150, "bin")], {"test": ["two"]})
    options = DecodingOptions(beam_size=4, max_length_ratio=0.4)
    given = (recognizer.model, recognizer.tokenizer, corpus, corpus.split("test"), (A,), options)
    (expected,) = evaluate(*given).records
    assert len(expected.hypothesis.split()) >= 12
    limit(500)
    report = evaluate(*given)
    assert report.reduced == {"two": "in halves"}
    assert count_words(expected.hypothesis, next(report.records).hypothesis).errors <= 1


def test_the_command_says_how_many_clips_were_decoded_otherwise(
    model_folder: Path, long_corpus: Corpus, limit: Limit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limit(300)
    output = tmp_path / "results.jsonl"
    command.evaluate(
        long_corpus.root, str(model_folder), modality="a,v", beam_size=4, max_length_ratio=0.1, output=output
    )
    told = " ".join(capsys.readouterr().out.split())
    assert "memory did not suffice for 1 of 2 clips, which these figures hold: 1 in halves with beam 2" in told
    summary = json.loads((tmp_path / "results.summary.json").read_text())
    assert summary["reduced"] == {"clip-1": "in halves with beam 2"}
