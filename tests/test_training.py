"""Runs from a recipe on a few made clips: what is written, resumed, refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seehear.checkpoint import load_model
from seehear.data.clipfile import MouthClip, write_clip
from seehear.data.corpus import Corpus, Utterance
from seehear.errors import ConfigError, CorpusError, ModelError
from seehear.recipe import Recipe, parse_recipe
from seehear.training.checkpoints import Checkpoints
from seehear.training.run import load_material, train_recipe

WORDS = ("red", "blue", "green", "at", "by")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve random clips of half a second: six labelled, four not, two to validate."""
    root = tmp_path_factory.mktemp("corpus")
    rng = np.random.default_rng(0)
    utterances = []
    for index in range(12):
        frames = int(rng.integers(10, 16))
        clip = MouthClip(
            video=rng.integers(0, 256, (frames, 96, 96)).astype(np.uint8),
            audio=(0.1 * rng.standard_normal(640 * frames)).astype(np.float32),
        )
        path = f"clips/{index}.mp4"
        write_clip(root / path, clip)
        text = " ".join(rng.choice(WORDS, size=2)) if index not in range(6, 10) else None
        utterances.append(Utterance(str(index), path, frames, text))
    ids = [str(index) for index in range(12)]
    Corpus.write(root, utterances, {"labelled": ids[:6], "unlabelled": ids[6:10], "valid": ids[10:]})
    return root


def recipe(corpus: Path, kind: str = "usr2", **run: Any) -> Recipe:
    return parse_recipe(
        {
            "model": {"size": "tiny"},
            "data": {"corpus": str(corpus), "labelled_frames": 40, "unlabelled_frames": 40, "workers": 0},
            "objective": {"kind": kind, "supervised_steps": 1, "ctc_threshold": 0.0, "attention_threshold": 0.0},
            "optimiser": {"peak_lr": 1e-3, "warmup": 0.5},
            "run": {"steps": 4, "checkpoint_every": 2, "precision": "float32", **run},
        }
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model, _ = load_model(folder)
    return model.state_dict()


def test_a_resumed_run_equals_an_uninterrupted_one(corpus: Path, tmp_path: Path) -> None:
    settings, out = recipe(corpus), tmp_path / "run"
    model = train_recipe(settings, out)
    whole, whole_teacher = weights(model), weights(out / "teacher")
    lines = (out / "metrics.jsonl").read_text()
    (out / "checkpoints" / "step-4.pt").unlink()  # as if the run had died after step 2 … 3
    shutil.rmtree(model)
    train_recipe(settings, out)
    for name, tensor in weights(model).items():
        assert torch.equal(tensor, whole[name]), name
    for name, tensor in weights(out / "teacher").items():
        assert torch.equal(tensor, whole_teacher[name]), name
    again = (out / "metrics.jsonl").read_text()
    strip = [
        [{k: v for k, v in json.loads(x).items() if k != "frames/s"} for x in t.splitlines()] for t in (lines, again)
    ]
    assert strip[0] == strip[1]
    assert [line["step"] for line in strip[0]] == [1, 2, 3, 4, 4]
    assert "v/ctc/unlabelled" not in strip[0][0]  # the supervised start
    assert {"v/ctc/unlabelled", "teacher/ctc_confidence", "a/attention/labelled", "lr"} <= strip[0][1].keys()
    assert "| valid, 2 clips; AV, greedy ctc | " in (model / "README.md").read_text()
    assert "; V, greedy attention | " in (model / "README.md").read_text()
    assert "; V, " not in (out / "teacher" / "README.md").read_text()  # the teacher is validated audiovisually alone
    assert {"valid/ctc/a", "valid/attention/v", "valid/ctc/av", "valid/teacher/ctc/av"} <= strip[0][4].keys()


@pytest.mark.parametrize("kind", ["supervised", "usr2"])
def test_the_loss_falls(corpus: Path, tmp_path: Path, kind: str) -> None:
    train_recipe(recipe(corpus, kind, steps=30, checkpoint_every=30, precision="bf16"), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    labelled = [line["av/attention/labelled"] for line in lines if "loss" in line]
    assert np.mean(labelled[-3:]) < 0.7 * labelled[0]


def test_a_folder_of_another_recipe_is_refused_and_left_alone(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_recipe(recipe(corpus), out)
    before = weights(out / "model")
    with pytest.raises(ConfigError, match="another recipe"):
        train_recipe(recipe(corpus, steps=6), out)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(out / "model").items())


def test_unlabelled_transcripts_are_never_asked_for(corpus: Path) -> None:
    material = load_material(recipe(corpus))
    assert [utterance.text for utterance in material.unlabelled] == [None] * 4
    assert load_material(recipe(corpus, "supervised")).unlabelled == []


def test_labelled_clips_without_transcript_are_an_error(corpus: Path) -> None:
    values = recipe(corpus).model_dump()
    values["data"]["labelled"] = ["labelled", "unlabelled"]
    with pytest.raises(CorpusError, match=r"4 labelled clips .* have no transcript, first '6'"):
        load_material(parse_recipe(values))


def test_a_damaged_checkpoint_falls_back_and_a_temporary_one_is_ignored(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, {"step": step, "weights": torch.full((100,), float(step))})
    assert [path.name for path in checkpoints.paths()] == ["step-2.pt", "step-3.pt"]
    (tmp_path / "step-4.tmp").write_bytes(b"half a checkpoint")
    last = checkpoints.paths()[-1]
    last.write_bytes(last.read_bytes()[:500])
    state = checkpoints.load_last()
    assert state is not None
    assert state["step"] == 2
    for path in checkpoints.paths():
        path.write_bytes(b"")
    with pytest.raises(ModelError, match="no checkpoint"):
        checkpoints.load_last()
