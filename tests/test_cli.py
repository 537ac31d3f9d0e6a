"""The command line: what succeeds exits with 0; each mistake is one line that says what to do, and another status."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from safetensors import safe_open

from conftest import random_clip
from media_files import make_media
from seehear.checkpoint import load_model
from seehear.cli.main import main
from seehear.cli.options import without_truth
from seehear.data.clipfile import write_clip
from seehear.data.corpus import Corpus

DEVICE = "device: cpu (PyTorch finds no GPU here); precision: float32 (the default on a CPU)\n"
"""What recognition says of itself on standard error."""
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `seehear ARGUMENTS…` in an empty folder: exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["seehear", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        assert isinstance(end.value.code, int)
        captured = capsys.readouterr()
        return end.value.code, captured.out, captured.err

    return run


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_clip(tmp_path / "clip.mp4", random_clip(12))
    return tmp_path / "clip.mp4"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("a.mp4 --word_timestamps True -f srt", "a.mp4 --word_timestamps -f srt"),
        ("--highlight-words True a.mp4", "--highlight-words a.mp4"),
        ("a.mp4 --word_timestamps False --highlight_words False b.mp4", "a.mp4 b.mp4"),
        ("--word_timestamps True True", "--word_timestamps True"),
        ("--word_timestamps=True --highlight_words=False a.mp4", "--word_timestamps a.mp4"),
        ("--word_timestamps True.mp4 False", "--word_timestamps True.mp4 False"),
    ],
)
def test_flags_may_be_written_as_for_whisper(given: str, meant: str) -> None:
    assert without_truth(given.split()) == meant.split()


@pytest.mark.parametrize("arguments", [(), ("--help",), ("evaluate", "--help"), ("transcribe", "--help")])
def test_help(run: Run, arguments: tuple[str, ...]) -> None:
    status, out, err = run(*arguments)
    assert (status, err) == (0, "")
    assert "Usage: seehear" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trnascribe"], "No such command 'trnascribe'. Did you mean 'transcribe'? See `seehear --help`."),
        (["transcribe", "x.mp4"], "Missing option '--model' / '-m'. See `seehear transcribe --help`."),
        (["transcribe", "-m", "MODEL"], "Missing argument 'files'"),
        (["transcribe", "x.mp4", "-m", "MODEL", "--modality", "smell"], "'--modality'"),
        (["transcribe", "x.mp4", "-m", "MODEL", "-f", "doc"], "no output format 'doc': there are txt, vtt"),
        (["transcribe", "x.mp4", "-m", "MODEL", "--device", "gpu"], "no device 'gpu' here; there is cpu"),
        (["transcribe", "x.mp4", "-m", "./nothing"], "no model folder nothing"),
        (["transcribe", "x.mp4", "-m", "CORPUS"], "is no model folder: it has no config.json"),
        (["transcribe", "x.mp4", "-m", "MODEL", "--beam_size", "0"], "'--beam_size'"),
        (["evaluate", "CORPUS", "-m", "MODEL", "--splitt", "test"], "No such option: --splitt"),
        (["evaluate", "CORPUS", "-m", "MODEL", "--split", "train"], "no split 'train'; there are: mute, test"),
        (["evaluate", "CORPUS", "-m", "MODEL", "--split", "mute"], "1 of 1 utterances have no transcript"),
        (["evaluate", "CORPUS", "-m", "MODEL", "--modality", "a,x"], "no modality 'x'"),
        (["evaluate", "CORPUS", "-m", "MODEL", "--snr", "0"], "give a recording of it with --noise"),
        (["evaluate", "CORPUS", "-m", "MODEL", "--noise", "x.wav"], "--noise needs --snr"),
        (["evaluate", "CORPUS", "-m", "MODEL", "--noise", "x.wav", "--snr", "0"], "x.wav: no such file"),
        (["evaluate", "CORPUS", "-m", "MODEL", "--compare", "x.jsonl"], "x.jsonl cannot be read"),
        (["evaluate", "nowhere", "-m", "MODEL"], "nowhere is no prepared corpus"),
    ],
)
def test_a_mistake_is_one_line(
    run: Run, model_folder: Path, random_corpus: Corpus, arguments: list[str], message: str
) -> None:
    places = {"MODEL": model_folder, "CORPUS": random_corpus.root}
    status, out, err = run(*(places.get(argument, argument) for argument in arguments))
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "usr2-demo"], "say where the run goes: --out RUN"),
        (["train", "usr3", "-o", "run"], "no recipe 'usr3'"),
        (["train", "LATIN", "-o", "run"], "latin.toml is not valid TOML"),
        (["train", "usr2-demo", "-o", "run", "--corpus", "nowhere"], "nowhere is no prepared corpus"),
        (["train", "usr2-demo", "-o", "run", "--device", "gpu", "--corpus", "CORPUS"], "no device 'gpu' here"),
        (["train", "usr2-demo", "-o", "run", "--threads", "0"], "'--threads'"),
        (["train", "usr2-demo", "-o", "run", "--init", "nowhere"], "'--init'"),
        (["train", "usr2-demo", "-o", "run", "--set", "run.stepz=3"], "run.stepz"),
        (["train", "START", "-o", "run", "--corpus", "CORPUS"], "no runs/first to start from: train it first"),
        (["train", "usr2-demo", "-o", "CORPUS", "--corpus", "CORPUS"], "holds something else (clips)"),
        (["convert", "nothing.pth", "--units", "units.txt", "out"], "there is no checkpoint nothing.pth"),
        (["average", "nowhere", "out"], "'run'"),
        (["lm", "latin.toml", "-m", "MODEL", "-o", "lm.json"], "latin.toml is not text in UTF-8"),
        (["lm", "empty.txt", "-m", "MODEL", "-o", "lm.json"], "a language model needs text to learn from"),
        (["average", "CORPUS", "out"], "holds 0 checkpoints"),
        (["demo", "--out", "MODEL"], "holds something else (a model)"),
        (["demo", "--out", "CORPUS"], "holds something else (clips)"),
    ],
)
def test_a_mistake_in_training_is_one_line_and_writes_nothing(
    run: Run, model_folder: Path, random_corpus: Corpus, arguments: list[str], message: str
) -> None:
    Path("latin.toml").write_bytes("about = 'déjà vu'".encode("latin-1"))
    Path("start.toml").write_text(
        'extends = "supervised-demo"\nmodel.init = "runs/first"\ndata.labelled = ["test"]\ndata.valid = "test"\n'
    )
    Path("empty.txt").write_text("\n")
    places = {"MODEL": model_folder, "CORPUS": random_corpus.root, "LATIN": "latin.toml", "START": "start.toml"}
    before = {path: sorted(path.rglob("*")) for path in (Path(), model_folder, random_corpus.root)}
    status, out, err = run(*(places.get(argument, argument) for argument in arguments))
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert before == {path: sorted(path.rglob("*")) for path in before}


def test_a_dry_run_says_what_a_run_would_do_and_writes_nothing(
    run: Run, random_corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    splits = ("--set", 'data.labelled=["test"]', "--set", 'data.unlabelled=["mute"]', "--set", "data.valid=test")
    arguments = ("train", "usr2-demo", "--dry-run", "--corpus", random_corpus.root, *splits, "--set", "run.steps=7")
    status, out, err = run(*arguments)
    assert (status, err) == (0, "")
    for line in (
        'kind = "usr2"',
        "clips: 5 labelled, 1 unlabelled",
        "steps: 7 (",
        "first unlabelled batch: video (1, ",
    ):
        assert line in out
    assert "memory of a process, about: " in out
    assert "arithmetic of a step of a process, about: " in out
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert "4 processes" in run(*arguments, "--set", "run.batchnorm=synced")[1]
    assert list(Path().iterdir()) == []


def test_a_language_model_is_learnt_and_asked(run: Run, model_folder: Path, random_corpus: Corpus) -> None:
    Path("texts.txt").write_text("bin blue at f two now\n\nset red by a one soon\n")
    status, out, err = run("lm", "texts.txt", "-m", model_folder, "-o", "lm.json", "--order", 3)
    assert (status, err) == (0, "")
    assert out.startswith("lm.json: 2 sentences, ")
    decoding = ("--decode", "rescore", "--beam_size", 4, "--lm", "lm.json", "--lm_weight", 2, "--modality", "a")
    status, out, err = run(
        "evaluate", random_corpus.root, "-m", model_folder, *decoding, "-o", "with.jsonl", "--dtype", "bf16"
    )
    assert (status, err.splitlines()[0]) == (0, "device: cpu (PyTorch finds no GPU here); precision: bf16 (as asked)")
    assert all("this processor emulates bf16" in line for line in err.splitlines()[1:])
    assert "language model 2" in out
    summary = json.loads(Path("with.summary.json").read_text())
    assert (summary["language_model"], summary["dtype"]) == ("lm.json", "bf16")
    assert summary["decoding"]["language_weight"] == 2
    Path("lm.json").write_text("{}")
    status, _, err = run("transcribe", random_corpus.root / "clips" / "x.mp4", "-m", model_folder, "--lm", "lm.json")
    assert (status, err.count("\n")) == (2, 1)
    assert "lm.json is not a language model" in err


def test_extract_writes_features(run: Run, model_folder: Path, clip: Path) -> None:
    model, _ = load_model(model_folder)
    status, out, err = run("extract", clip, clip, "-m", model_folder, "-o", "npy", "--layer", 1, "--layer", 3)
    assert (status, err) == (0, DEVICE)
    names = {"clip.mp4", "clip.mp4-2"}
    expected = {f"{name}{layer}.npy" for name in names for layer in ("", "-layer1", "-layer3")}
    assert {path.name for path in Path("npy").iterdir()} == expected
    output = np.load("npy/clip.mp4.npy")
    assert f"AV, {len(output)} × {model.config.dim}" in out
    last = model.encoder.norm(torch.from_numpy(np.load("npy/clip.mp4-layer3.npy")))
    torch.testing.assert_close(last.detach(), torch.from_numpy(output))
    assert run("extract", clip, "-m", model_folder, "-o", "st", "-f", "safetensors", "--modality", "a")[0] == 0
    with safe_open(Path("st/clip.safetensors"), "np") as file:
        assert file.metadata() == {"modality": "a", "frames_per_second": "25"}
        assert file.get_tensor("output").shape == output.shape
        assert not np.allclose(file.get_tensor("output"), output)
    status, _, err = run("extract", clip, "-m", model_folder, "-o", "npy", "--layer", 4)
    assert (status, err) == (1, DEVICE + "error: the encoder has the layers 1 to 3, and no layer 4\n")


def test_average_writes_the_mean_of_a_run(run: Run, random_corpus: Corpus) -> None:
    splits = ("--set", 'data.labelled=["test"]', "--set", "data.valid=test", "--set", "run.checkpoint_every=1")
    start = ("train", "supervised-demo", "-o", "run", "--corpus", random_corpus.root, *splits)
    assert run(*start, "--set", "run.steps=2", "--set", "run.validate_every=0")[0] == 0
    status, out, err = run("average", "run", "mean", "--last", 2)
    assert (status, out, err) == (0, "model: mean\n", "")
    assert load_model(Path("mean"))[1].pieces == load_model(Path("run/model"))[1].pieces


def test_transcribe_prints_the_text(run: Run, model_folder: Path, clip: Path) -> None:
    status, out, err = run("transcribe", clip, "--model", model_folder, "--decode", "ctc", "--threads", 1)
    assert status == 0
    assert out.count("\n") == 1
    assert err == f"{DEVICE}{clip}: AV: the file has sound and video\n"


def test_transcribe_writes_files_that_do_not_overwrite_each_other(run: Run, model_folder: Path, clip: Path) -> None:
    (clip.parent / "other").mkdir()
    twin = shutil.copy(clip, clip.parent / "other" / clip.name)
    arguments = (
        clip,
        twin,
        "-m",
        model_folder,
        "--decode",
        "ctc",
        "--output-dir",
        "out",
        "--output_format",
        "txt,json",
    )
    status, out, _ = run("transcribe", *arguments)
    assert status == 0
    written = sorted(path.name for path in Path("out").iterdir())
    assert written == ["clip.mp4-2.json", "clip.mp4-2.txt", "clip.mp4.json", "clip.mp4.txt"]
    assert json.loads(Path("out/clip.mp4-2.json").read_text(encoding="utf-8"))["source"] == str(twin)
    assert out.count("\n") == 2


def test_a_bad_file_does_not_keep_others_from_being_transcribed(run: Run, model_folder: Path, clip: Path) -> None:
    bad = {"empty.mp4": b"", "random.mp4": bytes(range(256)) * 40, "text.mp4": b"this is no video\n" * 100}
    bad["truncated.mp4"] = clip.read_bytes()[:200]
    for name, content in bad.items():
        Path(name).write_bytes(content)
    soundfile.write("sound.wav", np.full(8000, 0.1, np.float32), 16_000)
    make_media(Path("mute.mp4"), size=(96, 96), audio_codec=None)
    files = (*bad, "missing.mp4", "mute.mp4", clip, "sound.wav", ".")
    status, out, err = run(
        "transcribe", *files, "-m", model_folder, "--modality", "a", "--decode", "ctc", "-o", "out", "-f", "txt,json"
    )
    assert status == 1
    assert [line.partition(":")[0] for line in out.splitlines()] == [str(clip), "sound.wav"]
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    for name, line in zip((*bad, "missing.mp4", "mute.mp4", "."), errors, strict=True):
        assert name in line
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "clip.json",
        "clip.txt",
        "sound.json",
        "sound.txt",
    ]


def test_an_unwritable_folder(run: Run, model_folder: Path, clip: Path) -> None:
    Path("out").write_text("a file", encoding="utf-8")
    status, _, err = run("transcribe", clip, "-m", model_folder, "--decode", "ctc", "-o", "out")
    assert (status, err) == (2, "error: out cannot be written: File exists\n")


def test_a_format_without_a_folder_writes_here(run: Run, model_folder: Path, clip: Path) -> None:
    (clip.parent / "videos").mkdir()
    moved = clip.rename(clip.parent / "videos" / clip.name)
    assert run("transcribe", moved, "-m", model_folder, "--decode", "ctc", "-f", "json")[0] == 0
    assert [path.name for path in Path().iterdir() if path.is_file()] == ["clip.json"]


def test_transcribe_shows_what_the_model_saw(run: Run, model_folder: Path, clip: Path) -> None:
    status, _, _ = run(
        "transcribe", clip, "-m", model_folder, "--decode", "ctc", "--save_crops", "-o", "out", "-f", "srt"
    )
    assert status == 0
    assert sorted(path.name for path in Path("out").iterdir()) == ["clip-crops.mp4", "clip.srt"]
    assert run("transcribe", clip, "-m", model_folder, "--decode", "ctc", "--save_crops", "--face", "all")[0] == 0
    assert Path("clip-face0-crops.mp4").stat().st_size > 1000


def test_long_recordings_in_windows_or_whole(run: Run, model_folder: Path) -> None:
    loud = np.random.default_rng(0).normal(0, 0.1, 64_000).astype(np.float32)
    soundfile.write("talk.wav", np.concatenate([loud, np.zeros(32_000, np.float32), loud]), 16_000)
    arguments = ("transcribe", "talk.wav", "-m", model_folder, "--decode", "ctc", "--no_speech_threshold", 1)
    for options, segments in (((), 2), (("--whole",), 1), (("--pause", 3), 1), (("--longest", 5.2), 4)):
        assert run(*arguments, *options, "-o", "out", "-f", "json")[0] == 0
        found = json.loads(Path("out/talk.json").read_text(encoding="utf-8"))["segments"]
        assert len(found) == segments, options
        times = [time for segment in found for time in (segment["start"], segment["end"])]
        assert times == sorted(times)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--face", "mine"), "no face 'mine': give speaking, largest, all, or the number of a face"),
        (("--longest", 2), "--longest must be at least 5.2 s, not 2: a window may hold 1 s of silence"),
        (("--pause", 0), "a pause must be longer than 0 s"),
        (("--no_speech_threshold", 3), "'--no_speech_threshold'"),
    ],
)
def test_options_of_windows_that_cannot_be(
    run: Run, model_folder: Path, clip: Path, arguments: tuple[object, ...], message: str
) -> None:
    status, _, err = run("transcribe", clip, "-m", model_folder, *arguments)
    assert status == 2
    assert message in err


def test_a_library_that_cannot_be_loaded_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where `ulimit -v` leaves no room for it."""
    monkeypatch.setitem(sys.modules, "seehear.recognizer", None)
    status, out, err = run("transcribe", "clip.mp4", "-m", "model")
    assert (status, out) == (2, "")
    assert err.startswith("error: a library cannot be loaded (import of seehear.recognizer halted")
    assert err.endswith("raise the bound on memory (ulimit -v), if there is one; else install seehear again\n")


def test_evaluate(run: Run, model_folder: Path, random_corpus: Corpus, tmp_path: Path) -> None:
    model = shutil.copytree(model_folder, tmp_path / "model")
    arguments = ("evaluate", random_corpus.root, "--model", model, "--decode", "ctc")
    status, out, err = run(*arguments)
    assert (status, err) == (0, DEVICE)
    for words in ("greedy CTC", "normaliser lower-words-1", "WER", "CER", "95 % interval", "5 utterances"):
        assert words in out
    results = Path(model) / "evaluation" / "random-test-ctc.jsonl"
    assert len(results.read_text(encoding="utf-8").splitlines()) == 15
    summary = json.loads(results.with_suffix(".summary.json").read_text(encoding="utf-8"))
    assert (summary["split"], summary["device"], summary["search_device"]) == ("test", "cpu", "cpu")

    joint = ("evaluate", random_corpus.root, "-m", model, "--modality", "a", "--ctc_weight", 0.5, "--beam_size", 2)
    assert run(*joint, "--max_length_ratio", 0.2)[0] == 0
    name = "random-test-beam-beam_size=2-ctc_weight=0.5-max_length_ratio=0.2-a.jsonl"
    assert (Path(model) / "evaluation" / name).is_file()

    soundfile.write(tmp_path / "hiss.wav", np.random.default_rng(0).normal(0, 0.1, 16_000), 16_000)
    condition = ("--blank-video", "--noise", tmp_path / "hiss.wav", "--snr", 5, "--modality", "av")
    status, out, err = run(*arguments, *condition, "--compare", results)
    assert (status, err) == (0, DEVICE)
    assert "hiss.wav at 5 dB, blank video" in out
    assert f"this model minus {results}" in out
    assert (results.parent / "random-test-ctc-av-hiss.wav-at-5-dB-blank-video.jsonl").is_file()

    run(*arguments, "--modality", "v", "--output", "v.jsonl")
    status, _, err = run(*arguments, "--modality", "a", "--compare", "v.jsonl", "-o", "a.jsonl")
    assert status == 2
    assert "v.jsonl holds none of the modalities a" in err
