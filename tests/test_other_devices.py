"""Training, labelling and decoding on a device that is not the CPU: nothing is on the wrong one, nothing is double.

The device is pretended (`pretend_device.py` says what that covers), and all results equal those of the CPU.
"""

import copy
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import seehear.decoding.prefix
import seehear.objectives.supervised
import seehear.recognizer
import seehear.training.trainer
import seehear.training.world
from conftest import random_clip
from pretend_device import DeviceMismatchError, PretendDevice, Pretended, numbers
from reference_case import compare_searches, load_case
from seehear.cli.main import main
from seehear.data.clipfile import write_clip
from seehear.data.corpus import Corpus
from seehear.decoding.beam_search import beam_search
from seehear.decoding.decode import decode_batch, search_on
from seehear.decoding.ngram import NGram
from seehear.decoding.options import DecodingMethod, DecodingOptions
from seehear.decoding.word_times import time_words
from seehear.evaluate import evaluate
from seehear.modality import Modality
from seehear.model.usr import USR
from seehear.objectives.base import Objective
from seehear.recipe import parse_recipe
from seehear.recognizer import Recognizer, load
from seehear.tokenizer import Tokenizer
from seehear.training.checkpoints import Checkpoints
from seehear.training.run import build_objective
from seehear.training.trainer import Streams, Trainer
from seehear.training.watch import LabelWatch
from seehear.training.world import World
from seehear.transcribing.batches import Input, Transcriber
from test_objectives import STEP, TINY, VOCAB, make_batch
from test_recognition import given

A, AV = Modality.AUDIO, Modality.AUDIOVISUAL
DEVICES = ("cuda:0", "mps:0")
OBJECTIVES = {
    "supervised": {"kind": "supervised"},
    "USR": {"kind": "usr"},
    "USR 2.0, CTC-driven": {"kind": "usr2", "ar_probability": 0.0},
    "USR 2.0, autoregressive": {"kind": "usr2", "ar_probability": 1.0},
}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    with warnings.catch_warnings(), PretendDevice(request.param):
        warnings.filterwarnings("ignore", "User provided device_type of 'cuda'")
        warnings.filterwarnings("ignore", ".*autocast.*mps")
        yield request.param


def speaking_model(vocab_size: int = VOCAB) -> USR:
    """A model that is neither sure nor indifferent."""
    torch.manual_seed(0)
    model = USR(TINY.model_copy(update={"vocab_size": vocab_size})).eval()
    for head in (*model.ctc_heads.values(), *model.output_heads.values()):
        nn.init.normal_(head.weight, std=0.15)  # type: ignore[arg-type]
    return model


def clips(*lengths: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    features = torch.randn(len(lengths), max(lengths), TINY.dim, generator=torch.Generator().manual_seed(seed))
    return features, torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]


# --- Training ---


def trainer(settings: dict[str, object], device: str, folder: Path) -> Trainer:
    """A run that trains on the same clips at each step."""
    objective = {"ctc_threshold": 0.0, "attention_threshold": 0.0, "blank_penalty": 5.0, **settings}
    values = {"data": {"corpus": "none"}, "objective": objective, "run": {"steps": 10, "precision": "float32"}}
    recipe = parse_recipe(values)
    method = build_objective(recipe, speaking_model(), steps=10)
    streams = Streams(lambda _: iter([STEP.labelled] * 9), lambda _: iter([STEP.unlabelled] * 9))  # type: ignore[list-item]
    return Trainer(method, recipe, 10, streams, Checkpoints(folder, 1), world=World(torch.device(device)))


def step(settings: dict[str, object], device: str, folder: Path) -> tuple[dict[str, float], list[Tensor]]:
    """The numbers of two steps of training, and the weights after them."""
    run = trainer(settings, device, folder)
    run.learn()
    run.step()
    found, _ = run.step()
    assert {parameter.device.type for parameter in run.objective.parameters()} == {torch.device(device).type}
    return found, numbers(list(run.objective.parameters()))


@pytest.fixture(autouse=True)
def _no_gpu_to_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seehear.training.trainer, "peak_memory", lambda device: 0)


Trained = tuple[dict[str, object], dict[str, float], list[Tensor]]


@pytest.fixture(scope="module", params=OBJECTIVES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """An objective, and what the CPU makes of it."""
    settings = OBJECTIVES[request.param]
    return settings, *step(settings, "cpu", tmp_path_factory.mktemp("run"))  # type: ignore[arg-type, return-value]


def test_a_training_step(device: str, trained: Trained, tmp_path: Path) -> None:
    settings, here, expected = trained
    there, weights = step(settings, device, tmp_path)
    assert "refused" not in there
    for part in here.keys() - {"frames/s", "memory_gib"}:
        assert there[part] == pytest.approx(here[part], rel=1e-3, abs=1e-5), part
    for ours, theirs in zip(weights, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def objective(settings: dict[str, object]) -> Objective:
    recipe = parse_recipe({"data": {"corpus": "none"}, "objective": settings, "run": {"steps": 10}})
    return build_objective(recipe, speaking_model(), steps=10)


@pytest.mark.parametrize("autoregressive", [False, True])
def test_labels_of_the_teacher(device: str, autoregressive: bool) -> None:
    method = objective({"kind": "usr2", "blank_penalty": 5.0})
    batch = make_batch([15, 9, 12], labelled=False)
    expected = method.teacher.label(batch, autoregressive)  # type: ignore[union-attr, operator]
    method.to(device)
    labels = method.teacher.label(batch.to(device), autoregressive)  # type: ignore[union-attr, operator]
    assert expected.ctc_lengths.sum() > 0
    for name in ("ctc_tokens", "attention_tokens", "attention_lengths", "frame_tokens", "prefix"):
        assert getattr(labels, name).tolist() == getattr(expected, name).tolist(), name
        assert getattr(labels, name).device == torch.device(device)


def test_labels_that_a_run_records(device: str, random_corpus: Corpus, tokenizer: Tokenizer) -> None:
    student = speaking_model(tokenizer.vocab_size)
    settings = {"teacher_batchnorm": "ema"}  # those of a batch are chance for a clip of one frame
    recipe = parse_recipe({"data": {"corpus": "none"}, "objective": settings, "run": {"steps": 1}})
    method = build_objective(recipe, student, steps=1)
    watch = LabelWatch(random_corpus, random_corpus.split("test"), tokenizer, 60)
    expected = watch(method.teacher)  # type: ignore[arg-type]
    method.to(device)
    assert watch(method.teacher) == expected  # type: ignore[arg-type]


def test_means_over_processes_are_not_double(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seehear.training.world.dist, "all_reduce", lambda tensor: tensor.mul_(2))
    world = World(torch.device(device), size=2)
    assert world.mean({"loss": 0.5, "frames": 2.0**23 + 1}) == {"loss": 0.5, "frames": 2.0**23 + 1}


def test_a_training_step_with_dropout_and_stochastic_depth(device: str) -> None:
    """Chance differs by device: it is only held that all is there and finite."""
    student = USR(TINY.model_copy(update={"dropout": 0.1, "stochastic_depth": 0.9}))
    recipe = parse_recipe({"data": {"corpus": "none"}, "run": {"steps": 10}})
    method = build_objective(recipe, student, steps=10).to(device).train()
    losses = method(STEP.to(device), 5)
    losses.total.backward()
    assert bool(losses.total.isfinite())


# --- Decoding ---


@torch.no_grad()
@pytest.mark.parametrize("method", list(DecodingMethod))
def test_decoding(device: str, method: DecodingMethod) -> None:
    model = speaking_model()
    features, mask = clips(14, 3, 9)
    options = DecodingOptions(method, beam_size=4, ctc_weight=0.3)
    learnt = NGram.learn([[1, 2, 3], [4, 5]], VOCAB, order=2)
    expected = decode_batch(model, features, mask, AV, options, learnt)
    there = copy.deepcopy(model).to(device)
    assert any(expected)
    assert decode_batch(there, features.to(device), mask.to(device), AV, options, learnt) == expected


@torch.no_grad()
@pytest.mark.parametrize("ctc_weight", [0.0, 0.1, 1.0])
def test_a_search_scores_as_on_the_cpu(device: str, ctc_weight: float) -> None:
    model, (features, mask) = speaking_model(), clips(30, 7, 15)
    options = DecodingOptions(beam_size=4, ctc_weight=ctc_weight, max_length_ratio=0.3)
    expected = beam_search(model, features, mask, A, options)
    found = beam_search(copy.deepcopy(model).to(device), features.to(device), mask.to(device), A, options)
    for ours, theirs in zip(found, expected, strict=True):
        assert [h.tokens for h in ours] == [h.tokens for h in theirs]
        assert [h.score for h in ours] == pytest.approx([h.score for h in theirs], abs=1e-3)


def test_word_times(device: str) -> None:
    model = speaking_model()
    streams = {m: torch.randn(2, 20, TINY.dim, generator=torch.Generator().manual_seed(1)) for m in (A, AV)}
    mask = torch.arange(20) < torch.tensor([20, 9])[:, None]
    words = [[[1, 2], [3], [4]], [[5]]]
    expected = time_words(model, streams, mask, words, AV)
    there = {m: stream.to(device) for m, stream in streams.items()}
    found = time_words(copy.deepcopy(model).to(device), there, mask.to(device), words, AV)
    for ours, theirs in zip(found, expected, strict=True):
        assert [(time.start, time.end) for time in ours] == [(time.start, time.end) for time in theirs]


def heard(recognizer: Recognizer, *, word_times: bool) -> list[tuple[object, ...]]:
    """Text, words and pauses of a few windows, without the last digits."""
    options = DecodingOptions(beam_size=3, max_length_ratio=0.25)
    transcriber = Transcriber(recognizer.model, recognizer.tokenizer, options, None, "float32", word_times)
    windows: Sequence[Input] = [given(16), given(24, A, seed=1)]
    found = transcriber(windows)
    assert any(window.words for window in found)
    return [
        (window.text, [word[:4] for word in window.words], round(window.evidence, 1), window.pauses) for window in found
    ]


@pytest.fixture(scope="module", params=[False, True], ids=["", "word times"])
def windows(request: pytest.FixtureRequest, model_folder: Path) -> tuple[bool, list[tuple[object, ...]]]:
    """Whether words are timed, and what the CPU hears."""
    return request.param, heard(load(model_folder, "cpu", isolated=False), word_times=request.param)


def test_windows_are_transcribed(
    device: str, model_folder: Path, windows: tuple[bool, list[tuple[object, ...]]]
) -> None:
    word_times, expected = windows
    there = load(model_folder, device, dtype="float32", isolated=False, search_device=device)
    assert there.model.search_device == torch.device(device)
    assert heard(there, word_times=word_times) == expected


@pytest.mark.parametrize("search_device", [None, "cpu"])
def test_a_corpus_is_evaluated(
    device: str, random_corpus: Corpus, tokenizer: Tokenizer, search_device: str | None
) -> None:
    model, options = speaking_model(tokenizer.vocab_size), DecodingOptions(beam_size=2, max_length_ratio=0.3)
    given_to = (tokenizer, random_corpus, random_corpus.split("test")[:2], (A, AV), options)
    expected = evaluate(model, *given_to)
    there = copy.deepcopy(model).to(device)
    assert list(evaluate(there, *given_to, search_device=search_device).records) == list(expected.records)
    assert there.search_device == torch.device(device), "the model is left where it is"


# --- The search on another device ---


def test_the_search_on_the_cpu(device: str, model_folder: Path, windows: tuple[bool, list[tuple[object, ...]]]) -> None:
    word_times, expected = windows
    apart = load(model_folder, device, dtype="float32", isolated=False, search_device="cpu")
    places = {name: part.device.type for name, part in apart.model.named_parameters()}
    assert places["encoder.norm.weight"] == places["projections.a.weight"] == torch.device(device).type
    assert {places[name] for name in places if name.startswith(("decoder", "ctc_heads", "output_heads"))} == {"cpu"}
    assert heard(apart, word_times=word_times) == expected


def test_features_go_to_the_search_once(device: str, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(model_folder, device, dtype="float32", isolated=False, search_device="cpu")
    moved: list[torch.Size] = []
    to_search = USR.to_search

    def watched(self: USR, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        moved.append(features.shape)
        return to_search(self, features, mask)

    monkeypatch.setattr(USR, "to_search", watched)
    Transcriber(model.model, model.tokenizer, DecodingOptions(beam_size=3, max_length_ratio=0.3))([given(20)])
    assert len(moved) == 1


def test_the_search_is_on_the_cpu_beside_mps_alone(device: str) -> None:
    model = speaking_model().to(device)
    by_default = search_on(model)
    assert by_default.search_device.type == ("cpu" if device == "mps:0" else "cuda")
    assert (by_default is model) == (device != "mps:0")
    assert search_on(model, torch.device(device)) is model
    assert model.search_device == torch.device(device)


def test_one_device_for_both_is_the_same_model() -> None:
    model = speaking_model()
    assert search_on(model) is search_on(model, torch.device("cpu")) is model


@pytest.mark.parametrize("search_device", ["cpu", "--device"])
def test_the_command_line_takes_a_search_device(
    device: str,
    model_folder: Path,
    search_device: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_clip(tmp_path / "clip.mp4", random_clip(16))
    split: list[USR] = []
    monkeypatch.setattr(seehear.recognizer, "search_on", lambda *given: split.append(search_on(*given)) or split[-1])
    told = []
    there = ["--device", device, "--search-device", search_device.replace("--device", device)]
    for options in ([], [*there, "--dtype", "float32"]):
        arguments = [str(tmp_path / "clip.mp4"), "-m", str(model_folder), "--beam_size", "2"]
        arguments += ["--max_length_ratio", "0.2", "--no_speech_threshold", "1"]
        monkeypatch.setattr(sys, "argv", ["seehear", "transcribe", *arguments, *options])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
        out, err = capsys.readouterr()
        told.append(out)
    assert f"; search: {there[-1]} (as asked); precision: float32 (as asked)\n" in err
    assert told[0] == told[1] != "\n"
    assert str(split[1].search_device) == (device if search_device == "--device" else "cpu")


def test_a_search_device_that_is_not_there(
    random_corpus: Corpus, model_folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    for command in (("transcribe", "clip.mp4"), ("evaluate", str(random_corpus.root))):
        monkeypatch.setattr(sys, "argv", ["seehear", *command, "-m", str(model_folder), "--search-device", "abacus"])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "no device 'abacus' here" in line


# --- Sums in float32 ---


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have the sums over frames solved as on other devices."""

    def switch() -> None:
        prefix = seehear.decoding.prefix
        monkeypatch.setattr(prefix, "_by_differences", prefix._by_doubling)
        monkeypatch.setattr(prefix, "_cumulative", prefix._cumulative_by_doubling)

    return switch


@pytest.mark.parametrize("name", ["tiny", "heads2", "narrow"])
def test_golden_searches_in_float32(name: str, single: Callable[[], None]) -> None:
    single()
    comparison = compare_searches(load_case(Path(__file__).parent / "golden", name))
    assert not comparison.differences
    assert comparison.errors["search scores"] <= 1e-3


@torch.no_grad()
@pytest.mark.parametrize(("frames", "ctc_weight"), [(375, 0.1), (1500, 0.1), (1500, 1.0)])
def test_long_searches_in_float32(frames: int, ctc_weight: float, single: Callable[[], None]) -> None:
    """Of clips as models hear them: few frames say something, and these and the others are sure of it."""
    model = speaking_model(50)
    generator = torch.Generator().manual_seed(frames)
    features = 0.3 * torch.randn(2, frames, TINY.dim, generator=generator)
    for head in model.ctc_heads.values():
        head.bias[0] = 6.0  # type: ignore[index, operator]
        head.weight.mul_(20.0)  # type: ignore[union-attr, operator]
    mask = torch.arange(frames) < torch.tensor([[frames], [frames // 2]])
    options = DecodingOptions(beam_size=4, ctc_weight=ctc_weight, max_length_ratio=40 / frames)
    expected = beam_search(model, features, mask, A, options)
    single()
    found = beam_search(model, features, mask, A, options)
    for ours, theirs in zip(found, expected, strict=True):
        assert [h.tokens for h in ours] == [h.tokens for h in theirs]
        assert [h.score for h in ours] == pytest.approx([h.score for h in theirs], abs=1e-3)


@pytest.mark.parametrize("frames", [1, 2, 3, 64, 375, 1500])
@pytest.mark.parametrize("scale", [0.5, 8.0])
def test_sums_by_doubling_are_exact_to_some_units_in_the_last_place(frames: int, scale: float) -> None:
    prefix = seehear.decoding.prefix
    generator = torch.Generator().manual_seed(frames)
    emissions = (scale * torch.randn(4, frames, 30, generator=generator)).log_softmax(-1)[..., 3]
    entering = -100 * torch.rand(4, frames, generator=generator)
    entering[1, : frames // 2], entering[2] = -torch.inf, -torch.inf
    exact = prefix._by_differences(entering.double(), emissions.double())
    found = prefix._by_doubling(entering, emissions)
    assert found.dtype == torch.float32
    assert torch.equal(found.isneginf(), exact.isneginf())
    torch.testing.assert_close(found.double(), exact, rtol=4e-7, atol=1e-6)
    sums = prefix._cumulative_by_doubling(emissions)
    torch.testing.assert_close(sums.double(), prefix._cumulative(emissions), rtol=3e-7, atol=1e-6)


# --- What the pretended device notices ---


def test_the_pretended_device_notices_a_tensor_of_the_cpu(
    device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        seehear.objectives.supervised, "position_mask", lambda lengths, size: torch.arange(size) < lengths[:, None]
    )
    with pytest.raises(DeviceMismatchError, match=f"is given tensors of cpu and {device}"):
        step({"kind": "supervised"}, device, tmp_path)


def test_the_pretended_device_notices_double_precision(
    device: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prefix = seehear.decoding.prefix
    monkeypatch.setattr(prefix, "_by_doubling", prefix._by_differences)
    features, mask = (tensor.to(device) for tensor in clips(9, 4))
    with pytest.raises(DeviceMismatchError, match="double precision on"):
        beam_search(speaking_model().to(device), features, mask, AV, DecodingOptions(beam_size=2))


def test_the_pretended_device_notices_features_that_are_not_moved(
    device: str, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(USR, "to_search", lambda self, features, mask: (features, mask))
    with pytest.raises(DeviceMismatchError, match=f"tensors of cpu and {device}"):
        heard(load(model_folder, device, dtype="float32", isolated=False, search_device="cpu"), word_times=False)


def test_the_pretended_device_has_true_values_and_no_numpy(device: str) -> None:
    one = torch.tensor([1, 5, 2], device=device)
    assert isinstance(one, Pretended)
    assert (one.device, one.tolist(), int(one.max())) == (torch.device(device), [1, 5, 2], 5)
    assert (one + 1).cpu().numpy().tolist() == [2, 6, 3]
    assert one[one > 1].shape == (2,)
    one[0] = 7
    assert one.tolist() == [7, 5, 2]
    with pytest.raises(DeviceMismatchError, match="NumPy cannot see"):
        one.numpy()
    with pytest.raises(DeviceMismatchError, match="index"):
        one[torch.tensor([0, 1])]
    assert np.asarray(one.cpu()).shape == (3,)
