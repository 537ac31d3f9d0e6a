"""Weights in half precision: in the file and in memory, with what the same numbers in float32 give."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import seehear
from conftest import random_clip
from seehear.checkpoint import load_folder, load_model, write_weights
from seehear.cli.main import main
from seehear.data.clipfile import write_clip
from seehear.data.corpus import Corpus
from seehear.decoding.decode import decode_batch, precision
from seehear.decoding.options import DecodingMethod, DecodingOptions, DType
from seehear.modality import Modality
from seehear.model.usr import SpeechEncoder
from seehear.tokenizer import Tokenizer


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16])
def test_half_weights_in_memory_give_what_the_same_numbers_give(model_folder: Path, half: torch.dtype) -> None:
    halved, tokenizer = load_model(model_folder, weights_dtype=half)
    rounded, _ = load_model(model_folder)
    rounded.load_state_dict({name: value.float() for name, value in halved.state_dict().items()})
    sizes = [sum(value.numel() * value.itemsize for value in model.parameters()) for model in (halved, rounded)]
    assert sizes[0] < 0.52 * sizes[1]
    assert {value.dtype for value in halved.buffers()} == {torch.float32, torch.int64}
    torch.manual_seed(0)
    video, audio = torch.randn(2, 30, 88, 88), 0.1 * torch.randn(2, 30 * 640)
    mask = torch.arange(30) < torch.tensor([[30], [21]])
    for dtype in ("float32", "bf16"):
        outputs = []
        for model in (halved, rounded):
            with torch.no_grad(), precision(torch.device("cpu"), dtype):
                features = model.encode(video, audio, mask)[Modality.AUDIOVISUAL]
                tokens = [
                    decode_batch(model, features, mask, Modality.AUDIOVISUAL, DecodingOptions(method, 5, 0.3))
                    for method in DecodingMethod
                ]
                outputs.append((features, tokens))
        assert torch.equal(outputs[0][0], outputs[1][0])
        assert outputs[0][1] == outputs[1][1]
        assert any(outputs[0][1][1])
    assert tokenizer.vocab_size == halved.config.vocab_size


@pytest.mark.parametrize(("dtype", "stored"), [("float32", torch.float16), ("bf16", torch.bfloat16)])
def test_half_weights_are_asked_for_in_python(
    model_folder: Path, tmp_path: Path, dtype: DType, stored: torch.dtype
) -> None:
    write_clip(tmp_path / "clip.mp4", random_clip(12))
    with seehear.load(model_folder, dtype=dtype, half=True) as recognizer:
        assert recognizer.model.encoder.layers[0].ffn.expand.weight.dtype is stored
        options = DecodingOptions(DecodingMethod.ATTENTION)
        assert recognizer.transcribe(tmp_path / "clip.mp4", options=options, no_speech_threshold=1.0).segments
    with seehear.load(model_folder, dtype=dtype) as recognizer:
        assert {value.dtype for value in recognizer.model.parameters()} == {torch.float32}


def test_tensors_lie_at_multiples_of_their_size(tmp_path: Path) -> None:
    weights = {
        "a": torch.tensor(3),
        "b": torch.randn(3, 5).t(),
        "c": torch.randn(7),
        "d": torch.full((3, 3), 1e5),
        "e": torch.randn(3, 1, 3),
    }
    write_weights(tmp_path / "weights.safetensors", weights, torch.float16)
    found = load_file(tmp_path / "weights.safetensors")
    assert {name: value.dtype for name, value in found.items()} == {
        "a": torch.int64,
        "b": torch.float16,
        "c": torch.float32,
        "d": torch.float32,
        "e": torch.float16,
    }
    assert all(torch.equal(value, weights[name].to(value.dtype)) for name, value in found.items())
    assert all(value.data_ptr() % value.itemsize == 0 for value in found.values())


def test_half_weights_are_asked_for_on_the_command_line(
    model_folder: Path, random_corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clip(tmp_path / "clip.mp4", random_clip(12))
    loaded: list[torch.dtype | None] = []

    def load_halved(*given: object, weights_dtype: torch.dtype | None = None) -> tuple[SpeechEncoder, Tokenizer | None]:
        loaded.append(weights_dtype)
        return load_folder(*given, weights_dtype=weights_dtype)  # type: ignore[arg-type]

    monkeypatch.setattr("seehear.checkpoint.load_folder", load_halved)
    monkeypatch.setattr("seehear.recognizer.load_folder", load_halved)
    monkeypatch.chdir(tmp_path)
    greedy = ("--decode", "attention", "--half", "-m", str(model_folder))
    for arguments in (
        ("transcribe", "clip.mp4", *greedy),
        ("transcribe", "clip.mp4", *greedy, "--dtype", "bf16"),
        ("evaluate", str(random_corpus.root), *greedy, "-o", "report.jsonl"),
        ("extract", "clip.mp4", "--half", "-m", str(model_folder), "-o", "features"),
    ):
        monkeypatch.setattr(sys, "argv", ["seehear", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == 0
    assert loaded == [torch.float16, torch.bfloat16, torch.float16, torch.float16]
    assert json.loads(Path("report.summary.json").read_text())["weights"] == "half precision"
