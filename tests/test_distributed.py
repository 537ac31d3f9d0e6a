"""Runs of two processes (gloo): they equal runs of one, move between layouts, and end together when one fails."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import with_streams
from seehear.checkpoint import load_model
from seehear.data.clipfile import MouthClip, write_clip
from seehear.data.corpus import Corpus, Utterance
from seehear.errors import ConfigError
from seehear.modality import Modality
from seehear.recipe import Recipe, parse_recipe
from seehear.training.run import train_recipe
from seehear.training.world import World

SCRIPT = Path(__file__).with_name("distributed_runs.py")
FRAMES = 12
STEPS = 4


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen random clips of equal length, half of them labelled, and three to validate."""
    return make_corpus(tmp_path_factory.mktemp("corpus"), 8, (Modality.AUDIOVISUAL,))


@pytest.fixture(scope="module")
def mixed_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips that have by turns sound alone, a picture alone and both, half of them labelled, and three to validate:
    in an epoch a step of each kind, for two processes."""
    return make_corpus(tmp_path_factory.mktemp("mixed"), 12, tuple(Modality))


def make_corpus(root: Path, labelled: int, streams: Sequence[Modality]) -> Path:
    """As many labelled as unlabelled clips, and three to validate, with these streams by turns."""
    rng = np.random.default_rng(0)
    utterances = []
    for index in range(2 * labelled + 3):
        clip = MouthClip(
            video=rng.integers(0, 256, (FRAMES, 96, 96)).astype(np.uint8),
            audio=(0.1 * rng.standard_normal(640 * FRAMES)).astype(np.float32),
        )
        kind = streams[index % len(streams)]
        write_clip(root / f"clips/{index}.mp4", with_streams(clip, kind))
        secret = labelled <= index < 2 * labelled
        text = None if secret else " ".join(rng.choice(("red", "blue", "green", "at"), size=2))
        utterances.append(Utterance(str(index), f"clips/{index}.mp4", FRAMES, text, streams=kind))
    ids = [utterance.id for utterance in utterances]
    splits = {"labelled": ids[:labelled], "unlabelled": ids[labelled : 2 * labelled], "valid": ids[2 * labelled :]}
    Corpus.write(root, utterances, splits)
    return root


def recipe(corpus: Path, clips: int = 2, heads: str = "separate", supervised_steps: int = 1, **run: Any) -> Recipe:
    """Steps of `clips` labelled and as many unlabelled clips on each process; no dropout."""
    frames = clips * FRAMES
    return parse_recipe(
        {
            "model": {"size": "tiny", "dropout": 0.0},
            "data": {"corpus": str(corpus), "labelled_frames": frames, "unlabelled_frames": frames, "workers": 0},
            "objective": {
                "supervised_steps": supervised_steps,
                "ctc_threshold": 0.0,
                "attention_threshold": 0.0,
                "gamma": 0.5,
                "pseudo_label_heads": heads,
            },
            "optimiser": {"peak_lr": 1e-3, "warmup": 0.5},
            "run": {"steps": STEPS, "checkpoint_every": 2, "precision": "float32", "time_limit": 60, **run},
        }
    )


def of_two(corpus: Path, **run: Any) -> Recipe:
    """Steps of several batches of one clip. Three, one of each kind: statistics of single clips make the gradients
    jump, and the noise of sums in another order grows tenfold with each step, from 5e-7 in the second."""
    return recipe(corpus, clips=1, steps=3, **run)


def start(runs: Sequence[tuple[Recipe, Path]], processes: int = 2) -> list[subprocess.Popen[str]]:
    """Start the processes that train `runs` together."""
    arguments: list[str] = []
    for settings, out in runs:
        out.mkdir(parents=True, exist_ok=True)
        written = out / "asked.toml"
        written.write_text(settings.to_toml())
        arguments += [str(written), str(out)]
    return start_processes([str(SCRIPT), *arguments], processes)


def start_processes(arguments: Sequence[str], processes: int = 2) -> list[subprocess.Popen[str]]:
    """Start Python with these arguments as the processes of a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, *arguments]
    common = {**os.environ, "WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            command,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]


def train_together(*runs: tuple[Recipe, Path]) -> str:
    """Train on two processes; what they printed."""
    started = start(runs)
    printed = [process.communicate(timeout=400)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(printed)
    return printed[0]


def records(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("frames/s", "memory_gib")} for line in lines if "loss" in line]


def forget_the_end(run: Path, copy: Path) -> Path:
    """A copy of a run as if it had been killed after step 2."""
    shutil.copytree(run, copy)
    (copy / "checkpoints" / f"step-{STEPS}.pt").unlink()
    shutil.rmtree(copy / "model")
    return copy


def assert_same_training(run: Path, other: Path) -> None:
    """Every number of every step to 1e-4 (sums in another order), and the weights to a few steps of Adam's noise.

    Where a gradient is nearly 0, Adam divides it by itself: its noise becomes a step of up to the learning rate. That
    of the keys' biases is nothing but noise, since a softmax does not see what all its logits have in common. Running
    statistics follow two batches one after the other in the one case and their mean in the other.
    """
    for mine, theirs in zip(records(run), records(other), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    for part in ("model", "teacher"):
        weights, others = (load_model(folder / part)[0].state_dict() for folder in (run, other))
        for name, tensor in weights.items():
            if tensor.is_floating_point() and "running" not in name and not name.endswith("key.bias"):
                difference = (tensor - others[name]).abs()
                assert difference.max() < 5e-3, name
                assert difference.mean() < 2e-5, name


@pytest.fixture(scope="module")
def runs(corpus: Path, mixed_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run by one process with two batches a step (`one`), and by two (`ddp`, `fsdp`)."""
    root = tmp_path_factory.mktemp("runs")
    train_recipe(recipe(corpus, accumulate=2), root / "one")
    mixed = partial(recipe, mixed_corpus, supervised_steps=0)
    train_recipe(mixed(accumulate=2), root / "mixed-one")
    train_together(
        (recipe(corpus), root / "ddp"),
        (recipe(corpus, parallel="fsdp", recompute=True), root / "fsdp"),
        (recipe(corpus), forget_the_end(root / "one", root / "one-ddp")),
        (recipe(corpus, heads="shared", batchnorm="synced"), root / "synced"),
        *((mixed(parallel=kind), root / f"mixed-{kind}") for kind in ("ddp", "fsdp")),
        *((of_two(corpus, accumulate=2, parallel=kind), root / f"{kind}-of-two") for kind in ("ddp", "fsdp")),
    )
    return root


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_equal_one_with_two_batches_a_step(runs: Path, kind: str) -> None:
    assert_same_training(runs / kind, runs / "one")


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_equal_one_where_clips_lack_streams(runs: Path, kind: str) -> None:
    """DDP would refuse parameters without a gradient here: none rest at first."""
    assert_same_training(runs / f"mixed-{kind}", runs / "mixed-one")
    steps = records(runs / f"mixed-{kind}")
    for stream in ("labelled", "unlabelled"):
        used = {frozenset(m for m in Modality if f"{m.value}/ctc/{stream}" in step) for step in steps}
        assert used == {frozenset(m.readable) for m in Modality}


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_with_two_batches_a_step_equal_one_with_four(
    corpus: Path, runs: Path, tmp_path: Path, kind: str
) -> None:
    train_recipe(of_two(corpus, accumulate=4), tmp_path / "one")
    assert_same_training(runs / f"{kind}-of-two", tmp_path / "one")


def test_a_run_of_one_process_goes_on_with_two(runs: Path) -> None:
    assert_same_training(runs / "one-ddp", runs / "one")


def test_synced_batch_normalisation_equals_one_process_with_one_large_batch(
    corpus: Path, runs: Path, tmp_path: Path
) -> None:
    train_recipe(recipe(corpus, clips=4, heads="shared"), tmp_path / "large")
    assert_same_training(runs / "synced", tmp_path / "large")
    assert records(runs / "synced")[0] != pytest.approx(records(runs / "ddp")[0], rel=1e-4), "statistics matter"
    statistics = [
        load_model(run / "model")[0].video_frontend.stem_norm for run in (runs / "synced", tmp_path / "large")
    ]
    torch.testing.assert_close(statistics[0].running_var, statistics[1].running_var, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(statistics[0].running_mean, statistics[1].running_mean, rtol=1e-3, atol=1e-4)


def test_runs_of_two_go_on_exactly_in_another_form_or_alone(corpus: Path, runs: Path, tmp_path: Path) -> None:
    train_together(
        (recipe(corpus), forget_the_end(runs / "ddp", tmp_path / "again")),
        (recipe(corpus, parallel="fsdp"), forget_the_end(runs / "ddp", tmp_path / "ddp-fsdp")),
    )
    assert records(tmp_path / "again") == records(runs / "ddp")
    first, second = (load_model(run / "model")[0].state_dict() for run in (tmp_path / "again", runs / "ddp"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert_same_training(tmp_path / "ddp-fsdp", runs / "one")
    train_recipe(recipe(corpus, accumulate=2), forget_the_end(runs / "fsdp", tmp_path / "fsdp-one"))
    assert_same_training(tmp_path / "fsdp-one", runs / "one")


DECISIONS = """
from seehear.devices import Hardware
from seehear.errors import ConfigError
from seehear.recipe import parse_recipe
from seehear.training.precision import find_precision
from seehear.training.world import World, end_process

def recipe(precision):
    return parse_recipe({"data": {"corpus": "any"}, "run": {"steps": 1, "precision": precision}})

with World.start("auto", time_limit=60) as world:
    for speeds in ((3.0, 0.01), (0.01, 3.0)):
        hardware = Hardware(bf16_speed=lambda: speeds[world.rank])
        print(world.decide(lambda: find_precision(recipe("auto"), None, world.device, hardware)).numbers)
    try:
        world.decide(lambda: find_precision(recipe("auto"), recipe("bf16"), world.device, hardware))
    except ConfigError as error:
        print(error)
end_process(0)
"""


def test_the_first_process_decides_with_what_all_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the processors differ; where the first may not go on, all of them stop for the same reason."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    started = start_processes(["-c", DECISIONS])
    printed = [process.communicate(timeout=60)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], printed
    first, second = ([line for line in text.splitlines() if line] for text in printed)
    assert first[:2] == second[:2] == ["bf16", "float32"]
    assert first[2] == second[2]
    assert "run.precision=bf16" in first[2]


def wait_for(path: Path, seconds: float = 120) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} was not written"
        time.sleep(0.05)


def test_a_signal_to_one_process_stops_all_with_a_checkpoint(corpus: Path, tmp_path: Path) -> None:
    processes = start([(recipe(corpus, steps=500, checkpoint_every=1), tmp_path / "run")])
    wait_for(tmp_path / "run" / "checkpoints" / "step-2.pt")
    processes[1].send_signal(signal.SIGTERM)
    printed = [process.communicate(timeout=60)[0] for process in processes]
    assert all(process.returncode != 0 for process in processes)
    assert "stopped by a signal to another process" in printed[0]
    assert "stopped by SIGTERM" in printed[1]


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP], ids=["dies", "stalls"])
def test_a_process_that_fails_ends_the_other(corpus: Path, tmp_path: Path, fault: signal.Signals) -> None:
    settings = recipe(corpus, steps=500, checkpoint_every=1, time_limit=5)
    processes = start([(settings, tmp_path / "run")])
    wait_for(tmp_path / "run" / "checkpoints" / "step-2.pt")
    processes[1].send_signal(fault)
    printed, _ = processes[0].communicate(timeout=60)
    processes[1].kill()
    processes[1].communicate()
    assert processes[0].returncode != 0
    assert "TrainingError: another process of this run ended or does not answer" in printed


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc for the processes of torchrun")
def test_torchrun_starts_all_again_when_one_dies(corpus: Path, tmp_path: Path) -> None:
    written = tmp_path / "recipe.toml"
    written.write_text(recipe(corpus, steps=12, checkpoint_every=1).to_toml())
    elastic = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    command = [sys.executable, *elastic, str(SCRIPT), str(written), str(tmp_path / "run")]
    torchrun = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    wait_for(tmp_path / "run" / "checkpoints" / "step-2.pt")
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    printed, _ = torchrun.communicate(timeout=120)
    assert torchrun.returncode == 0, printed
    assert "resuming at step" in printed
    assert [line["step"] for line in records(tmp_path / "run")] == list(range(1, 13))


def test_several_processes_do_not_share_the_gpu_of_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="cannot share the GPU of a Mac"):
        World.start("mps")


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "0", "WORLD_SIZE": "2"}, "RANK is set but LOCAL_RANK, MASTER_ADDR, MASTER_PORT not"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK is 2 of WORLD_SIZE 2"),
        ({"RANK": "first", "WORLD_SIZE": "2"}, "must be numbers"),
    ],
)
def test_wrong_variables_are_explained(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], message: str
) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
        if "MASTER" not in message:
            monkeypatch.setenv(name, "0")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        World.start()
