"""Runs from a recipe on a few made clips: what is written, resumed, refused."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from functools import partialmethod
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from seehear.checkpoint import load_model
from seehear.errors import ConfigError, CorpusError, ModelError, TrainingError
from seehear.model.usr import USR
from seehear.objectives.base import StepBatch
from seehear.recipe import parse_recipe
from seehear.tokenizer import Tokenizer
from seehear.training.average import average_checkpoints
from seehear.training.checkpoints import Checkpoints, load_checkpoint, weights_of
from seehear.training.material import learn_tokenizer, load_material, open_streams
from seehear.training.monitor import Monitor, read_metrics
from seehear.training.run import build_objective, train_recipe
from seehear.training.trainer import Streams, Trainer
from seehear.training.world import World
from training_runs import recipe, weights

MACHINE = ("frames/s", "memory_gib")
"""What a run records of the machine, which differs each time."""


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
        [{k: v for k, v in json.loads(x).items() if k not in MACHINE} for x in t.splitlines()] for t in (lines, again)
    ]
    assert strip[0] == strip[1]
    assert [line["step"] for line in strip[0]] == [1, 2, 3, 4, 4]
    assert "v/ctc/unlabelled" not in strip[0][0]  # the supervised start
    assert {"v/ctc/unlabelled", "teacher/ctc_confidence", "a/attention/labelled", "lr"} <= strip[0][1].keys()
    assert "| valid, 2 clips; AV, greedy ctc | " in (model / "README.md").read_text()
    assert "; V, greedy attention | " in (model / "README.md").read_text()
    assert "; V, " not in (out / "teacher" / "README.md").read_text()  # the teacher is validated audiovisually alone
    assert {"valid/ctc/a", "valid/attention/v", "valid/ctc/av", "valid/teacher/ctc/av"} <= strip[0][4].keys()


def test_compiled_blocks_train_alike(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced whole, without a break; the kernels are PyTorch's own, since making others takes minutes."""
    traced = partialmethod(torch.nn.Module.compile, backend="aot_eager", fullgraph=True)
    with monkeypatch.context() as patch:
        patch.setattr(torch.nn.Module, "compile", traced)
        train_recipe(recipe(corpus, compile=True, recompute=True, steps=2), tmp_path / "compiled")
    train_recipe(recipe(corpus, steps=2), tmp_path / "run")
    assert losses(tmp_path / "compiled") == pytest.approx(losses(tmp_path / "run"), rel=1e-4)


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(run / "metrics.jsonl") if "loss" in line]


@pytest.mark.parametrize(("kind", "precision"), [("supervised", "bf16"), ("usr2", "float32")])
def test_the_loss_falls(corpus: Path, tmp_path: Path, kind: str, precision: str) -> None:
    train_recipe(recipe(corpus, kind, steps=30, checkpoint_every=30, precision=precision), tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    labelled = [line["av/attention/labelled"] for line in lines if "loss" in line]
    assert np.median(labelled[-5:]) < 0.7 * labelled[0]


def test_a_folder_of_another_recipe_is_refused_and_left_alone(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_recipe(recipe(corpus), out)
    before = weights(out / "model")
    with pytest.raises(ConfigError, match="another recipe"):
        train_recipe(recipe(corpus, steps=6), out)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(out / "model").items())


def test_a_folder_of_something_else_is_refused(corpus: Path, tmp_path: Path, model_folder: Path) -> None:
    (tmp_path / "photos").mkdir()
    for folder in (tmp_path, corpus, model_folder):
        with pytest.raises(ConfigError, match="holds something else"):
            train_recipe(recipe(corpus), folder)
    assert not (tmp_path / "recipe.toml").exists()


def test_what_a_user_keeps_in_a_run_does_not_stop_it_from_going_on(corpus: Path, tmp_path: Path) -> None:
    train_recipe(recipe(corpus, steps=1), tmp_path)
    (tmp_path / "plots").mkdir()
    train_recipe(recipe(corpus, steps=1), tmp_path)


def test_a_run_goes_on_with_another_rate_but_not_with_another_seed(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_recipe(recipe(corpus), out)
    (out / "checkpoints" / "step-4.pt").unlink()
    values = recipe(corpus, log_every=3).model_dump()
    values["optimiser"]["peak_lr"] = 1e-4
    train_recipe(parse_recipe(values), out)
    assert read_metrics(out / "metrics.jsonl")[-2]["lr"] < 1e-4
    with pytest.raises(ConfigError, match="another recipe"):
        train_recipe(recipe(corpus, seed=9), out)


def test_a_run_that_never_reached_a_checkpoint_learns_its_vocabulary_again(corpus: Path, tmp_path: Path) -> None:
    other = Tokenizer.train(["white"], 20)
    other.save(tmp_path / "run" / "tokenizer")
    (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"st', encoding="utf-8")
    model = train_recipe(recipe(corpus, steps=1), tmp_path / "run")
    assert load_model(model)[1].pieces != other.pieces
    assert [line["step"] for line in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [1, 1]


def test_fewer_steps_on_more_processes_are_those_of_the_start(corpus: Path, tmp_path: Path) -> None:
    settings = recipe(corpus, steps=None, epochs=2.0)
    train_recipe(settings, tmp_path / "run")
    state = Checkpoints(tmp_path / "run" / "checkpoints", 1).load_last()
    assert state is not None
    assert state["steps"] == state["step"] == 4


def test_validation_needs_transcripts(corpus: Path) -> None:
    values = recipe(corpus).model_dump()
    values["data"]["valid"] = "unlabelled"
    with pytest.raises(CorpusError, match=r"'unlabelled' .* without transcript"):
        load_material(parse_recipe(values))


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


SEEHEAR = Path(sys.executable).with_name("seehear")


def losses_of(run: Path) -> list[dict[str, float]]:
    """The records of a run without what the clock says."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in MACHINE} for record in records]


@pytest.fixture(scope="module")
def train(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str | Path]:
    """The command that trains for 25 steps, but for the folder of the run."""
    settings = recipe(corpus, steps=25, checkpoint_every=4)
    settings = settings.model_copy(update={"data": settings.data.model_copy(update={"workers": 1})})
    file = tmp_path_factory.mktemp("recipes") / "recipe.toml"
    file.write_text(settings.to_toml())
    return [SEEHEAR, "train", file, "--threads", "1", "--out"]


@pytest.fixture(scope="module")
def whole(train: list[str | Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    subprocess.run([*train, out], check=True, timeout=120, capture_output=True)
    return out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(
    train: list[str | Path], whole: Path, tmp_path: Path, number: int
) -> None:
    """All of its processes get the signal; the same command again gives the same losses, bit for bit."""
    out = tmp_path / "stopped"
    process = subprocess.Popen([*train, out], start_new_session=True, stderr=subprocess.PIPE, text=True)
    while not (out / "checkpoints").is_dir():
        time.sleep(0.02)
        assert process.poll() is None
    os.killpg(process.pid, number)
    _, said = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode == 75
        assert said.startswith(f"error: stopped by {signal.Signals(number).name} after step ")
    assert not (out / "model").exists()
    subprocess.run([*train, out], check=True, timeout=120, capture_output=True)
    assert losses_of(out) == losses_of(whole)
    for name, tensor in weights(out / "teacher").items():
        assert torch.equal(tensor, weights(whole / "teacher")[name]), name


def test_a_run_on_a_disk_that_is_full_goes_on_when_there_is_room(
    train: list[str | Path], whole: Path, tmp_path: Path
) -> None:
    """The disk is a file system in memory, of a size for one checkpoint and a half."""
    disk = tmp_path / "disk"
    disk.mkdir()
    own = ["unshare", "--user", "--map-root-user", "--mount"]
    mount = f"mount -t tmpfs -o size={int(1.5 * (whole / 'checkpoints' / 'step-24.pt').stat().st_size)} none {disk}"
    if shutil.which("unshare") is None or subprocess.run([*own, "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("this machine lets nobody mount a file system of their own")
    script = f'{mount} && {{ "$@"; echo "status $?"; ls {disk}/run/checkpoints; }} && ' + (
        f'mount -o remount,size=1g {disk} && "$@" && cp -r {disk}/run {tmp_path}/run'
    )
    command = [*own, "sh", "-c", script, "sh", *map(str, train), str(disk / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "status 2\nstep-4.pt\n" in done.stdout, "the last whole checkpoint, and nothing else"
    assert (
        "step-8.pt cannot be written ([Errno 28] No space left on device); older checkpoints are whole" in done.stderr
    )
    assert "resuming at step 4 of 25" in done.stdout
    assert losses_of(tmp_path / "run") == losses_of(whole)


class Poisoned(Streams):
    """A stream that now and then holds a clip of which the sound is no number."""

    def __init__(self, streams: Streams, steps: set[int]) -> None:
        self.__dict__.update(streams.__dict__)
        self.steps = steps

    def next(self, with_unlabelled: bool) -> StepBatch:
        batch = super().next(with_unlabelled)
        if self.positions["labelled"] - 1 in self.steps:
            batch.labelled.audio[0, 100] = float("nan")
        return batch


def poisoned_trainer(corpus: Path, folder: Path, steps: int, poisoned: set[int]) -> Trainer:
    settings = recipe(corpus, steps=steps)
    material = load_material(settings)
    tokenizer = learn_tokenizer(settings, material.labelled)
    torch.manual_seed(1)
    student = USR(settings.model.resolve(tokenizer.vocab_size))
    streams, _ = open_streams(settings, material, tokenizer, World(torch.device("cpu")))
    objective = build_objective(settings, student, steps)
    return Trainer(objective, settings, steps, Poisoned(streams, poisoned), Checkpoints(folder / "checkpoints", 1))


def test_a_step_that_is_not_finite_changes_nothing(corpus: Path, tmp_path: Path) -> None:
    trainer = poisoned_trainer(corpus, tmp_path, steps=4, poisoned={2})
    trainer.objective.train()
    for _ in range(2):
        trainer.step()
    before = {name: tensor.clone() for name, tensor in trainer.objective.state_dict().items()}
    numbers, clips = trainer.step()
    assert numbers["refused"] == 1.0
    assert clips
    for name, tensor in trainer.objective.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    numbers, _ = trainer.step()
    assert "refused" not in numbers
    assert all(torch.isfinite(tensor).all() for tensor in trainer.objective.state_dict().values())


def test_a_refused_step_is_told_with_its_clips(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trainer = poisoned_trainer(corpus, tmp_path, steps=3, poisoned={1})
    with Monitor(tmp_path, log_every=1, steps=3) as monitor:
        trainer.fit(monitor)
    assert "step 2/3  warning: loss or gradient not finite, the step changes nothing; its clips: " in (
        capsys.readouterr().out
    )
    assert [record.get("refused") for record in losses_of(tmp_path)] == [None, 1.0, None]


def test_a_run_of_refused_steps_gives_up(corpus: Path, tmp_path: Path) -> None:
    trainer = poisoned_trainer(corpus, tmp_path, steps=40, poisoned=set(range(5, 40)))
    with Monitor(tmp_path, log_every=100, steps=40) as monitor, pytest.raises(TrainingError, match="20 steps in a row"):
        trainer.fit(monitor)
    assert trainer.done == 24


def test_the_best_validation_is_kept(corpus: Path, tmp_path: Path) -> None:
    rates = iter([0.7, 0.4, 0.4, 0.6])
    trainer = poisoned_trainer(corpus, tmp_path, steps=4, poisoned=set())
    trainer.recipe = recipe(corpus, validate_every=1)
    trainer.validate = lambda objective: {"ctc/a": next(rates), "teacher/ctc/av": 0.0}
    with Monitor(tmp_path, log_every=1, steps=4) as monitor:
        trainer.fit(monitor)
    best = trainer.checkpoints.load_best()
    assert best is not None
    assert (best["step"], best["best"]) == (2, 0.4)


@pytest.mark.parametrize("part", ["student", "teacher"])
def test_the_mean_of_checkpoints(corpus: Path, tmp_path: Path, part: Literal["student", "teacher"]) -> None:
    out = tmp_path / "run"
    train_recipe(recipe(corpus, checkpoint_every=1, keep=3), out)
    states = [load_checkpoint(path) for path in Checkpoints(out / "checkpoints", 3).paths()]
    expected = [weights_of(state, part) for state in states if state]
    assert len(expected) == 3
    averaged = weights(average_checkpoints(out, tmp_path / "mean", last=3, part=part))
    for name, tensor in averaged.items():
        torch.testing.assert_close(
            tensor.double(), sum(each[name].double() for each in expected) / 3, rtol=0, atol=1e-6
        )
    assert f"mean of the {part} after steps 2, 3, 4" in (tmp_path / "mean" / "README.md").read_text()
    with pytest.raises(ModelError, match="holds 3 checkpoints, not 4"):
        average_checkpoints(out, tmp_path / "more", last=4)


def test_a_supervised_run_has_no_teacher_to_average(corpus: Path, tmp_path: Path) -> None:
    train_recipe(recipe(corpus, "supervised"), tmp_path / "run")
    with pytest.raises(ModelError, match="has no teacher"):
        average_checkpoints(tmp_path / "run", tmp_path / "mean", last=1, part="teacher")


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path: Path) -> None:
    """The limit on a file's size stands in for the disk: the operating system refuses to write more."""
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, {"step": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(TrainingError, match=r"step-2\.pt cannot be written \(.*File too large\); older"):
            checkpoints.save(2, {"step": 2, "weights": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1.pt"]
    assert checkpoints.load_last() == {"step": 1}
