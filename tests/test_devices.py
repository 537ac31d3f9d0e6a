"""`auto`: which device and which numbers it takes, on machines there are and on others; what a run then keeps."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import seehear.devices
import seehear.recognizer
import seehear.training.world
from seehear.checkpoint import RECIPE_FILE, load_model
from seehear.devices import (
    WORTHWHILE,
    EmulationWarning,
    Hardware,
    Numbers,
    Precision,
    bf16_speed,
    choose_precision,
    describe_choice,
    describe_search,
    find_device,
)
from seehear.errors import ConfigError
from seehear.recipe import load_recipe, shipped_recipes
from seehear.recognizer import Recognizer, load
from seehear.training import run
from seehear.training.checkpoints import load_checkpoint
from seehear.training.precision import find_precision
from seehear.training.run import plan_recipe, train_recipe
from seehear.training.world import World
from training_runs import recipe

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
OLD_KERNELS = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}


def machine(*, cuda: bool = False, mps: bool = False, capability: tuple[int, int] = (0, 0), speed: float) -> Hardware:
    """A machine with these devices, whose processor multiplies half precision at this multiple of float32's speed."""
    return Hardware(lambda: cuda, lambda: mps, lambda _: capability, lambda: speed, lambda: speed)


LAPTOP, SERVER = machine(speed=0.0134), machine(speed=3.0)


def with_gpu(*capability: int) -> Hardware:
    major, minor = capability
    return machine(cuda=True, capability=(major, minor), speed=0.01)


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [
        (machine(cuda=True, mps=True, speed=1), "cuda"),
        (machine(mps=True, speed=1), "mps"),
        (machine(speed=1), "cpu"),
    ],
)
def test_auto_is_cuda_else_mps_else_the_cpu(hardware: Hardware, expected: str) -> None:
    assert find_device("auto", hardware).type == expected


@pytest.mark.parametrize(
    ("device", "hardware", "training", "inference"),
    [
        (CUDA, with_gpu(9, 0), "bf16", "bf16"),
        (CUDA, with_gpu(8, 0), "bf16", "bf16"),
        (CUDA, with_gpu(7, 5), "float32", "fp16"),
        (MPS, machine(mps=True, speed=9), "float32", "float32"),
        (CPU, SERVER, "bf16", "float32"),
        (CPU, machine(speed=WORTHWHILE), "bf16", "float32"),
        (CPU, machine(speed=WORTHWHILE - 0.01), "float32", "float32"),
        (CPU, LAPTOP, "float32", "float32"),
    ],
)
def test_auto_takes_bf16_where_the_device_multiplies_it(
    device: torch.device, hardware: Hardware, training: Numbers, inference: Numbers
) -> None:
    assert choose_precision(device, "auto", training=True, hardware=hardware).numbers == training
    assert choose_precision(device, "auto", training=False, hardware=hardware).numbers == inference


def test_what_was_chosen_and_why() -> None:
    chosen = choose_precision(CPU, "auto", training=True, hardware=LAPTOP)
    assert describe_choice("auto", CPU, chosen, "--dtype auto") == [
        "device: cpu (PyTorch finds no GPU here); "
        "precision: float32 (this processor multiplies bf16 0.013 times as fast as float32)"
    ]
    chosen = choose_precision(CUDA, "auto", training=False, hardware=with_gpu(7, 5))
    assert describe_choice("cuda", CUDA, chosen, "--dtype auto") == [
        "device: cuda (as asked); precision: fp16 (a GPU of compute capability 7.5 lacks bf16)"
    ]


@pytest.mark.parametrize("training", [True, False])
def test_what_is_asked_for_is_taken_with_a_warning_where_it_is_emulated(training: bool) -> None:
    asked = partial(choose_precision, training=training)
    for numbers in ("bf16", "fp16"):
        chosen = asked(CPU, numbers, hardware=LAPTOP)
        told = f"this processor emulates {numbers}: it multiplies {numbers} 0.013 times as fast as float32"
        assert (chosen.numbers, chosen.warning) == (numbers, told)
        assert asked(CPU, numbers, hardware=SERVER).warning is None
    assert asked(CUDA, "bf16", hardware=with_gpu(7, 5)).warning == "this GPU has no bf16 and emulates it"
    assert asked(CUDA, "bf16", hardware=with_gpu(8, 6)).warning is None
    assert asked(CPU, "float32", hardware=LAPTOP) == Precision("float32", "as asked")


def test_the_measurement_leaves_no_trace() -> None:
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    assert bf16_speed.__wrapped__() > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_the_measurement_sees_that_kernels_are_switched_off() -> None:
    """With those of AVX2 alone bf16 is emulated, whatever the processor has; the measurement costs little there."""
    code = "import time, seehear.devices as d; s = time.time(); print(d.bf16_speed(), time.time() - s)"
    done = subprocess.run([sys.executable, "-c", code], env=OLD_KERNELS, check=True, capture_output=True, text=True)
    speed, seconds = map(float, done.stdout.split())
    assert speed < 0.7
    assert seconds < 2.0


def test_recognition_on_a_cpu_is_in_float32_unless_asked(model_folder: Path) -> None:
    assert load(model_folder, "cpu", isolated=False).dtype == "float32"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", EmulationWarning)
        assert load(model_folder, "cpu", dtype="bf16", isolated=False).dtype == "bf16"


def test_a_recognizer_says_what_it_computes_with_and_warns_where_that_is_emulated(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seehear.recognizer, "choose_precision", partial(choose_precision, hardware=LAPTOP))
    left_open = load(model_folder, "cpu", isolated=False)
    assert (left_open.device, left_open.precision) == (CPU, Precision("float32", "the default on a CPU"))
    with pytest.warns(EmulationWarning, match=r"multiplies bf16 0\.013 times as fast as float32") as found:
        asked = load(model_folder, "cpu", dtype="bf16", isolated=False)
    assert found[0].filename == __file__
    assert asked.precision.numbers == asked.dtype == "bf16"


@pytest.mark.parametrize("dtype", ["float16", torch.float16, "fp32", None])
def test_numbers_that_there_are_not(model_folder: Path, dtype: Any) -> None:
    with pytest.raises(ConfigError, match=r"no dtype .*: give 'auto', 'float32', 'bf16', 'fp16'"):
        load(model_folder, "cpu", dtype=dtype)
    model, tokenizer = load_model(model_folder)
    with pytest.raises(ConfigError, match="no dtype"):
        Recognizer(model, tokenizer, dtype=dtype)


@pytest.mark.parametrize("name", ["bogus", "meta", "hpu", "privateuseone", "xla", "cpu:7", "cuda:99", "", None])
def test_devices_that_there_are_not(model_folder: Path, name: Any) -> None:
    with pytest.raises(ConfigError, match=f"no device '{name}' here; there is cpu"):
        find_device(name)
    if name is not None:
        with pytest.raises(ConfigError, match=f"no device '{name}' here"):
            load(model_folder, "cpu", search_device=name)


def test_where_the_search_runs_and_why() -> None:
    assert describe_search(CPU, None) == describe_search(CUDA, None) == ""
    assert describe_search(MPS, None) == "; search: cpu (beside mps)"
    assert describe_search(MPS, "cpu") == "; search: cpu (as asked)"
    (line,) = describe_choice("mps", MPS, Precision("float32", "as asked"), "", search=describe_search(MPS, None))
    assert line == "device: mps (as asked); search: cpu (beside mps); precision: float32 (as asked)"


@pytest.mark.parametrize(("small", "large", "expected"), [(0.3, 2.0, 2.0), (0.1, 2.0, 0.1)])
def test_large_matrices_are_multiplied_unless_small_ones_are_hopeless(
    monkeypatch: pytest.MonkeyPatch, small: float, large: float, expected: float
) -> None:
    monkeypatch.setattr(seehear.devices, "_ratio", lambda dtype, side: large if side > 100 else small)
    assert bf16_speed.__wrapped__() == expected


# Processes that torchrun starts


@pytest.fixture
def torchrun(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def started(size: int) -> None:
        variables = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 1}
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    monkeypatch.setattr(seehear.training.world.dist, "is_initialized", lambda: True)
    return started


@pytest.mark.parametrize(
    ("device", "size", "message"),
    [
        ("bogus", 2, "no device 'bogus' here"),
        ("meta", 1, "no device 'meta' here"),
        ("mps", 1, "no device 'mps' here"),
        ("cuda:1", 2, "several processes cannot share cuda:1: with --device cuda each"),
        ("mps", 2, "several processes cannot share the GPU of a Mac"),
    ],
)
def test_processes_refuse_devices_that_cannot_be(
    torchrun: Callable[[int], None], device: str, size: int, message: str
) -> None:
    torchrun(size)
    with pytest.raises(ConfigError, match=message):
        World.start(device)


def test_one_process_of_torchrun_takes_what_a_process_alone_takes(
    torchrun: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(seehear.training.world, "find_device", lambda name: asked.append(name) or CPU)
    torchrun(1)
    assert World.start("auto").device == CPU
    torchrun(2)
    World.start("auto")
    assert asked == ["auto", "cpu", "cpu"]


# A run


def test_a_run_stores_what_auto_chose(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr(run, "find_precision", partial(find_precision, hardware=LAPTOP))
    train_recipe(recipe(corpus, precision="auto"), out)
    told = capsys.readouterr().out
    assert "precision: float32 (this processor multiplies bf16 0.013 times as fast as float32)" in told
    assert told.splitlines()[-1] == f"model: {out / 'model'}"
    state = load_checkpoint(out / "checkpoints" / "step-4.pt")
    assert state is not None
    assert state["recipe"]["run"]["precision"] == "float32"
    for folder in (out, out / "model"):
        assert load_recipe(folder / RECIPE_FILE).run.precision == "float32"

    (out / "checkpoints" / "step-4.pt").unlink()
    monkeypatch.setattr(run, "find_precision", partial(find_precision, hardware=SERVER))
    train_recipe(recipe(corpus, precision="auto"), out)  # where a new run would take bf16
    assert "precision: float32 (as this run began)" in capsys.readouterr().out
    assert load_recipe(out / RECIPE_FILE).run.precision == "float32"
    for start in (train_recipe, lambda settings, out: plan_recipe(settings, out=out)):
        with pytest.raises(ConfigError, match=r"began with run\.precision=float32 and cannot go on with bf16"):
            start(recipe(corpus, precision="bf16"), out)
        with pytest.raises(ConfigError, match="holds a run of another recipe"):
            start(recipe(corpus, precision="auto", seed=9), out)
    before = sorted(out.rglob("*"))
    told = plan_recipe(recipe(corpus, precision="auto"), out=out)
    assert f"precision: float32 (as this run began)\ngoes on from step 4 of the run in {out}\n" in told
    assert sorted(out.rglob("*")) == before
    with pytest.raises(ConfigError, match="holds something else"):
        plan_recipe(recipe(corpus, precision="auto"), out=out / "model")
    assert load_recipe(out / RECIPE_FILE).run.precision == "float32"


def test_a_run_in_bf16_goes_on_where_bf16_is_fast_or_is_asked_for(corpus: Path) -> None:
    begun = recipe(corpus, precision="bf16")
    left_open, asked = recipe(corpus, precision="auto"), recipe(corpus, precision="bf16")
    assert find_precision(left_open, begun, CPU, SERVER).numbers == "bf16"
    message = (
        r"began with run\.precision=bf16, and this processor emulates bf16: .* 0\.013 times as fast as float32: "
        r"go on elsewhere, or set run\.precision=bf16"
    )
    with pytest.raises(ConfigError, match=message):
        find_precision(left_open, begun, CPU, LAPTOP)
    with pytest.raises(ConfigError, match=r"run\.precision=bf16, and this GPU has no bf16"):
        find_precision(left_open, begun, CUDA, with_gpu(7, 0))
    here = find_precision(asked, begun, CPU, LAPTOP)
    assert here.numbers == "bf16"
    assert here.warning


def test_bf16_where_it_is_emulated_trains_with_a_warning(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "find_precision", partial(find_precision, hardware=LAPTOP))
    train_recipe(recipe(corpus, precision="bf16", steps=3), tmp_path / "run")
    told = capsys.readouterr().out
    assert "precision: bf16 (as asked)\nwarning: this processor emulates bf16: it multiplies bf16 0.013 times" in told
    assert "as fast as float32; a new run with run.precision=auto avoids that\n" in told


def test_every_shipped_recipe_leaves_the_precision_to_the_device() -> None:
    assert {load_recipe(name).run.precision for name in shipped_recipes()} == {"auto"}
