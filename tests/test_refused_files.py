"""Published files that are damaged, are of another kind, or cannot be read or written; the advice given for each."""

import argparse
import os
import resource
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from published_files import NARROW, layout, random_tensors
from seehear.checkpoint import load_model
from seehear.convert import KEEP_TENSORS, check_values, read_checkpoint, to_ours, to_published
from seehear.errors import ModelError
from test_cli import Run, run  # noqa: F401 -- a fixture

UNITS = "<unk> 1\n" + "".join(f"▁W{number} {number + 2}\n" for number in range(1046))


@pytest.fixture(scope="module")
def student() -> dict[str, Tensor]:
    """Of a fine-tuned file, alone."""
    tensors = random_tensors(layout("fine-tuned", NARROW))
    return {name: value for name, value in tensors.items() if name.startswith("model.backbone.")}


@pytest.fixture
def checkpoint(student: dict[str, Tensor], run: Run) -> Path:  # noqa: F811 -- changes the folder
    """In the current folder, with its units."""
    Path("units.txt").write_text(UNITS, encoding="utf-8")
    torch.save(student, "ft.pth")
    return Path("ft.pth")


# What lies at the place of the new model


def test_an_existing_model_is_replaced_only_if_asked(run: Run, checkpoint: Path) -> None:  # noqa: F811
    assert run("convert", checkpoint, "model", "--units", "units.txt")[0] == 0
    Path("model/evaluation").mkdir()
    Path("model/notes.txt").write_text("mine", encoding="utf-8")
    status, out, err = run("convert", checkpoint, "model", "--units", "units.txt")
    assert (status, out) == (2, "")
    assert err == "error: model exists: choose another place to save the model, or replace it with --overwrite\n"
    assert Path("model/evaluation").is_dir()
    assert run("convert", checkpoint, "model", "--units", "units.txt", "--overwrite")[0] == 0
    assert not Path("model/evaluation").exists()  # it was of other weights
    assert Path("model/notes.txt").is_file()


def test_the_place_is_checked_before_the_file_is_read(run: Run, checkpoint: Path) -> None:  # noqa: F811
    Path("thesis").mkdir()
    Path("thesis/thesis.tex").touch()
    status, _, err = run("convert", checkpoint, "thesis", "--units", "units.txt")
    assert status == 2
    assert err == "error: thesis exists and is no model folder: choose another place to save the model\n"


def test_back_makes_its_folder_and_writes_no_folder(run: Run, checkpoint: Path, student: dict[str, Tensor]) -> None:  # noqa: F811
    assert run("convert", checkpoint, "model", "--units", "units.txt")[0] == 0
    Path("new").mkdir()
    Path("new/back.pth.tmp").write_text("mine", encoding="utf-8")
    assert run("convert", "--back", "model", "new/deeper/back.pth")[0] == 0
    assert run("convert", "--back", "model", "new/back.pth")[0] == 0
    assert {path.name for path in Path("new").iterdir()} == {"deeper", "back.pth", "back.pth.tmp"}
    assert len(torch.load("new/back.pth", weights_only=True)) == len(student)
    status, _, err = run("convert", "--back", "model", "new")
    assert status == 2
    assert err == "error: new is a folder: with --back, give the file to write\n"
    status, _, err = run("convert", "--back", "model", "back.pth", "--licence", "mit")
    assert status == 2
    assert "leave them out with --back" in err


@pytest.mark.parametrize("back", [False, True])
def test_a_file_that_cannot_be_written_is_one_line(run: Run, checkpoint: Path, back: bool) -> None:  # noqa: F811
    assert run("convert", checkpoint, "model", "--units", "units.txt")[0] == 0
    before = set(Path().iterdir())
    arguments = ("--back", "model", "out") if back else (checkpoint, "out", "--units", "units.txt")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
    try:
        status, _, err = run("convert", *arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert status == 2
    assert err.splitlines()[-1].startswith("error: out cannot be written: ")
    assert "File too large" in err
    assert ("need 0.06 GB" in err) is not back
    assert set(Path().iterdir()) == before


# What is wrong with a file


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_are_not_finite_are_refused_by_name(
    run: Run,  # noqa: F811
    student: dict[str, Tensor],
    checkpoint: Path,
    value: float,
) -> None:
    name = "model.backbone.encoder.encoders.0.feed_forward.w_1.weight"
    damaged = student[name].clone()
    damaged[3, 5] = value
    torch.save(student | {name: damaged}, checkpoint)
    status, _, err = run("convert", checkpoint, "model", "--units", "units.txt")
    assert status == 2
    assert (
        "ft.pth: the checkpoint has numbers that are not finite in encoder.encoders.0.feed_forward.w_1.weight:" in err
    )
    assert not Path("model").exists()


def test_damaged_bytes_in_the_middle_are_seen(run: Run, checkpoint: Path) -> None:  # noqa: F811
    content = bytearray(checkpoint.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4096] = b"\xff" * 4096
    checkpoint.write_bytes(content)
    with pytest.raises(ModelError, match="not finite"):
        check_values(to_ours(read_checkpoint(checkpoint).parameters))


def test_the_teacher_is_checked_under_its_own_names() -> None:
    tensors = random_tensors(layout("self-supervised", NARROW))
    tensors["model.target_backbone.after_norm.bias"][0] = float("nan")
    check_values(to_ours(tensors))
    with pytest.raises(ModelError, match=r"in target_backbone\.after_norm\.bias"):
        check_values(to_ours(tensors, teacher=True))


class Command:
    """What a malicious checkpoint holds."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def test_a_file_that_would_run_a_command_is_named(run: Run, checkpoint: Path) -> None:  # noqa: F811
    torch.save({"state_dict": Command()}, checkpoint)
    status, _, err = run("convert", checkpoint, "model")
    assert status == 2
    assert err == "error: ft.pth is refused: it would run posix.system on this machine; do not use it\n"


def test_a_script_is_no_checkpoint(run: Run, recwarn: pytest.WarningsRecorder) -> None:  # noqa: F811
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.zeros(1, 2)), "script.pth")
    recwarn.clear()
    status, _, err = run("convert", "script.pth", "model")
    assert status == 2
    assert err == "error: script.pth is refused: it is a TorchScript archive, a program; get the weights alone\n"
    assert not recwarn.list


@pytest.mark.parametrize("kind", ["state_dict", "model", "module", "module in it", "object", "plain"])
def test_the_advice_keeps_the_tensors(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever holds them, and however the file is named."""
    module = nn.Linear(2, 2)
    state, note = module.state_dict(), argparse.Namespace(lr=0.1)
    content = {
        "state_dict": {"state_dict": state, "notes": note},
        "model": {"model": state, "notes": note},
        "module": module,
        "module in it": {"model": module},
        "object": argparse.Namespace(state_dict=state),
        "plain": {**state, "notes": note},
    }[kind]
    path = tmp_path / 'it\'s $HOME "here".pth'
    torch.save(content, path)
    with pytest.raises(ModelError, match="code beside its tensors") as refused:
        read_checkpoint(path)
    _, _, command = str(refused.value).partition("weights.pth: ")
    program, option, code, *arguments = shlex.split(command)
    assert (program, option, code) == ("python", "-c", KEEP_TENSORS)
    monkeypatch.setattr(sys, "argv", ["-c", *arguments])
    exec(code, {})
    kept = read_checkpoint(path.with_name(f"{path.stem}-weights.pth")).parameters
    assert all(torch.equal(kept[name], value) for name, value in state.items())
    assert kept.keys() == state.keys()


# Where files are as they should be


def test_a_safetensors_file_is_mapped(run: Run, student: dict[str, Tensor], checkpoint: Path) -> None:  # noqa: F811
    save_file(student, "ft.safetensors")
    checkpoint.unlink()
    status, _, err = run("convert", "ft.safetensors", "model", "--units", "units.txt")
    assert status == 0
    assert "cannot be mapped" not in err
    found = to_published(load_model(Path("model"))[0])
    assert all(torch.equal(found[name.removeprefix("model.backbone.")], value) for name, value in student.items())
    assert read_checkpoint(Path("ft.safetensors")).mapped
    Path("cut.safetensors").write_bytes(Path("ft.safetensors").read_bytes()[:-1000])
    status, _, err = run("convert", "cut.safetensors", "other", "--units", "units.txt")
    assert status == 2
    assert "cut.safetensors is refused: it is damaged" in err


def test_parameters_under_model(student: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": student}, tmp_path / "file.pth")
    found = read_checkpoint(tmp_path / "file.pth")
    assert found.parameters.keys() == student.keys()
    assert set(found.others) == {"epoch"}


def test_a_folder_and_a_file_without_permission(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is a folder"):
        read_checkpoint(tmp_path)
    path = tmp_path / "secret.pth"
    torch.save({}, path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(ModelError, match=r"secret\.pth cannot be read: Permission denied"):
        read_checkpoint(path)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), MemoryError()])
def test_what_the_machine_lacks_is_no_damage(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(ModelError, match="cannot be read: Permission" if isinstance(error, OSError) else "memory does"):
        read_checkpoint(checkpoint)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_lack_of_memory_is_told(tmp_path: Path) -> None:
    """In a process whose address space hardly grows, with mapping and without."""
    paths = [tmp_path / "zip.pth", tmp_path / "old.pth"]
    for path in paths:
        torch.save({"x": torch.zeros(25_000_000)}, path, _use_new_zipfile_serialization=path.stem == "zip")
    program = """
        import resource, sys
        from pathlib import Path
        from seehear.convert import read_checkpoint
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000,) * 2)
        for path in sys.argv[1:]:
            try:
                read_checkpoint(Path(path))
            except ValueError as error:
                print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(program), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"memory does not suffice to read {path}" for path in paths]


def test_a_lack_of_memory_for_the_skeleton_is_told(student: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr("seehear.convert.USR", fail)
    with pytest.raises(ModelError, match="memory does not suffice for a model"):
        to_ours(student)
