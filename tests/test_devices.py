"""`auto`: which device and which numbers it takes, on machines there are and on others; what a run then keeps."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from seehear.checkpoint import RECIPE_FILE
from seehear.devices import (
    WORTHWHILE,
    Hardware,
    Numbers,
    Precision,
    bf16_speed,
    choose_precision,
    describe_choice,
    find_device,
)
from seehear.errors import ConfigError
from seehear.recipe import load_recipe, shipped_recipes
from seehear.recognizer import load
from seehear.training import run
from seehear.training.checkpoints import load_checkpoint
from seehear.training.precision import find_precision
from seehear.training.run import train_recipe
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
    assert load(model_folder, "cpu", dtype="bf16", isolated=False).dtype == "bf16"


# A run


def test_a_run_stores_what_auto_chose(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    monkeypatch.setattr(run, "find_precision", partial(find_precision, hardware=LAPTOP))
    train_recipe(recipe(corpus, precision="auto"), out)
    assert (
        "precision: float32 (this processor multiplies bf16 0.013 times as fast as float32)" in capsys.readouterr().out
    )
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
    with pytest.raises(ConfigError, match=r"began with run\.precision=float32 and cannot go on with bf16"):
        train_recipe(recipe(corpus, precision="bf16"), out)
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
