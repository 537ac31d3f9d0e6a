"""Every file that the authors publish becomes what it holds: a model or an encoder; what is left out is said."""

import argparse
import collections
import dataclasses
import json
import shlex
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from private_memory import PrivateMemory
from published_files import NARROW, Kind, layout, num_bytes, random_tensors
from reference_case import compare_outputs, load_case, load_weights_module
from seehear.checkpoint import WEIGHTS_FILE, load_model
from seehear.cli.main import main
from seehear.config import SIZES
from seehear.convert import to_ours, to_published

GOLDEN = Path(__file__).parent / "golden"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Run `seehear convert ARGUMENTS…`: exit status, standard output, standard error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["seehear", "convert", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return int(str(end.value.code)), captured.out, captured.err

    return run


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of units of the published length."""
    path = tmp_path_factory.mktemp("units") / "units.txt"
    path.write_text("<unk> 1\n" + "".join(f"▁W{number} {number + 2}\n" for number in range(1046)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def fine_tuned() -> dict[str, Tensor]:
    return random_tensors(layout("fine-tuned", NARROW))


@pytest.fixture(scope="module")
def self_supervised() -> dict[str, Tensor]:
    return random_tensors(layout("self-supervised", NARROW))


@pytest.fixture(scope="module")
def files(
    tmp_path_factory: pytest.TempPathFactory, fine_tuned: dict[str, Tensor], self_supervised: dict[str, Tensor]
) -> dict[Kind, Path]:
    """A file of each kind."""
    folder = tmp_path_factory.mktemp("published")
    torch.save(fine_tuned, folder / "fine-tuned.pth")
    torch.save(self_supervised, folder / "self-supervised.pth")
    return {"fine-tuned": folder / "fine-tuned.pth", "self-supervised": folder / "self-supervised.pth"}


def part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """What begins with a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def assert_equal(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        assert torch.equal(value, wanted[name]), name


def mixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same behind prefixes that change from name to name."""
    wrappers = ("", "_orig_mod.", "module._orig_mod.", "model._orig_mod.", "_orig_mod.model.module.")
    return {f"{wrappers[number % len(wrappers)]}{name}": value for number, (name, value) in enumerate(tensors.items())}


# Fine-tuned files


@pytest.mark.parametrize(
    ("options", "prefix"),
    [([], "model.backbone."), (["--teacher"], "model.target_backbone.")],
    ids=["student", "teacher"],
)
def test_a_fine_tuned_file_becomes_a_model(
    run: Run, files: dict[Kind, Path], fine_tuned: dict[str, Tensor], units: Path, options: list[str], prefix: str
) -> None:
    status, out, err = run(files["fine-tuned"], "model", "--units", units, *options)
    assert (status, out) == (0, "model\n")
    model, tokenizer = load_model(Path("model"))
    assert_equal(to_published(model), part(fine_tuned, prefix))
    assert model.config.model_copy(update={"stochastic_depth": 0.1}) == NARROW
    assert tokenizer.vocab_size == 1049
    card = Path("model/README.md").read_text(encoding="utf-8")
    assert "license: cc-by-nc-4.0" in card
    assert "fine-tuned.pth" in card

    parameters, size = model.num_parameters(), num_bytes(layout_of(part(fine_tuned, prefix)))
    other = f"{parameters:,} parameters, {size / 1e6:,.1f} MB"
    taken, *left_out, written = err.splitlines()
    assert written == f"written: model/{WEIGHTS_FILE}, {Path('model', WEIGHTS_FILE).stat().st_size / 1e6:,.1f} MB"
    names = ("student", "moving average of the student (teacher)")
    assert taken == f"taken: {names[bool(options)]}, {other}"
    assert left_out == [
        f"left out: {names[not options]}, {other}",
        f"left out: output layers for pseudo-labels, {6 * 1049 * 33:,} parameters, {6 * 1049 * 33 * 4 / 1e6:.1f} MB",
        "left out: layer normalization of the training, 64 parameters, 0.3 kB",
    ]


@pytest.mark.slow
def test_a_fine_tuned_file_of_size_base_goes_to_a_folder_and_back(run: Run, units: Path) -> None:
    published = random_tensors(layout("fine-tuned", SIZES["base"]))
    torch.save(mixed(published), "base.pth")
    assert Path("base.pth").stat().st_size == pytest.approx(702_024_725, rel=1e-3)  # the prefixes are longer
    started = time.perf_counter()
    Path("copy").write_bytes(Path("base.pth").read_bytes()[:345_000_000])  # as much as a model has
    copied = time.perf_counter() - started
    Path("copy").unlink()
    started = time.perf_counter()
    with PrivateMemory() as memory:
        assert run("base.pth", "model", "--units", units, "--teacher")[0] == 0
    assert time.perf_counter() - started < 1.5 * copied + 10  # for machines that do something else, too
    assert memory.growth < 1.2 * Path("model", WEIGHTS_FILE).stat().st_size
    assert run("--back", "model", "back.pth")[0] == 0
    assert_equal(torch.load("back.pth", weights_only=True), part(published, "model.target_backbone."))


def layout_of(tensors: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def test_prefixes_come_in_any_order(fine_tuned: dict[str, Tensor], self_supervised: dict[str, Tensor]) -> None:
    assert len({name.split(".")[0] for name in mixed(fine_tuned)}) == 3
    for tensors in (fine_tuned, self_supervised):
        for teacher in (False, True):
            plain, wrapped = (to_ours(given, teacher=teacher) for given in (tensors, mixed(tensors)))
            assert plain.left_out == wrapped.left_out
            assert_equal(plain.model.state_dict(), wrapped.model.state_dict())


def test_a_golden_case_in_a_fine_tuned_file_gives_the_golden_outputs(run: Run, units: Path) -> None:
    case = load_case(GOLDEN, "narrow")
    shapes = json.loads((GOLDEN / "keys_narrow.json").read_text())
    student = {
        name: torch.from_numpy(value)
        for name, value in load_weights_module(GOLDEN).state(shapes, case.description["gain"]).items()
    }
    unlabelled = layout("fine-tuned", NARROW.model_copy(update={"dim": 96, "decoder_dim": 48}))
    others = {name: torch.ones(shape) for name, shape in unlabelled.items() if "backbone" not in name}
    teacher = {f"model.target_backbone.{name}": 1 - value for name, value in student.items()}
    torch.save(
        mixed({f"model.backbone.{name}": value for name, value in student.items()} | teacher | others), "case.pth"
    )
    assert run("case.pth", "model", "--units", units)[0] == 0
    model, _ = load_model(Path("model"))
    comparison = compare_outputs(dataclasses.replace(case, model=model))  # greedy labels among them
    assert not comparison.differences
    assert max(comparison.errors.values()) <= 1e-4, comparison.errors
    assert run("case.pth", "teacher", "--units", units, "--teacher")[0] == 0
    assert_equal(to_published(load_model(Path("teacher"))[0]), part(teacher, "model.target_backbone."))


@pytest.mark.parametrize(
    ("kind", "options", "removed", "added", "message"),
    [
        ("fine-tuned", [], "model.backbone.ctc_a.ctc_lo.bias", {}, "misses ctc_a.ctc_lo.bias"),
        ("fine-tuned", [], None, {"model.scheduler.bias": 1}, "has scheduler.bias, which belongs to no published"),
        ("fine-tuned", [], None, {"model.out_layer_unlabelled_b.bias": 1}, "has out_layer_unlabelled_b.bias, which"),
        (
            "fine-tuned",
            [],
            None,
            {"model.target_backbone.ctc_b.ctc_lo.bias": 1},
            "has target_backbone.ctc_b.ctc_lo.bias",
        ),
        ("fine-tuned", [], None, {"model.backbone.encoder.linear_v.bias": 1}, "linear_v.bias of shape [1] instead of"),
        ("fine-tuned", [], None, {"backbone.encoder.linear_v.bias": 32}, "holds encoder.linear_v.bias twice"),
        ("fine-tuned", [], None, {"encoder.linear_v.bias": 32}, "twice"),
        ("fine-tuned", [], None, {"module.target_backbone.encoder.linear_v.bias": 32}, "twice"),
        (
            "fine-tuned",
            ["--teacher"],
            "model.target_backbone.decoder.after_norm.bias",
            {},
            "misses target_backbone.decoder.after_norm.bias",
        ),
        (
            "fine-tuned",
            ["--teacher"],
            "model.target_backbone.decoder.embed.0.weight",
            {},
            "no 'decoder.embed.0.weight'",
        ),
        ("self-supervised", [], "model.backbone.encoder.after_norm.bias", {}, "misses encoder.after_norm.bias"),
        ("self-supervised", [], None, {"model.predictor.gamma": 1}, "has predictor.gamma"),
        ("self-supervised", [], None, {"model.target_backbone.ctc_a.ctc_lo.bias": 1}, "has target_backbone.ctc_a"),
        (
            "self-supervised",
            ["--teacher"],
            "model.target_backbone.encoders.1.gamma_ff",
            {"model.target_backbone.linear_a.bias": 1},
            "misses target_backbone.encoders.1.gamma_ff; it has target_backbone.linear_a.bias of shape [1] instead of",
        ),
    ],
)
def test_what_does_not_fit_is_named(
    run: Run,
    fine_tuned: dict[str, Tensor],
    self_supervised: dict[str, Tensor],
    units: Path,
    kind: Kind,
    options: list[str],
    removed: str | None,
    added: dict[str, int],
    message: str,
) -> None:
    tensors = dict(fine_tuned if kind == "fine-tuned" else self_supervised)
    if removed:
        del tensors[removed]
    torch.save(tensors | {name: torch.zeros(size) for name, size in added.items()}, "file.pth")
    status, out, err = run("file.pth", "model", "--units", units, *options)
    assert (status, out) == (2, "")
    assert err.startswith("error: file.pth: ")
    assert message in err
    assert err.count("\n") == 1
    assert not Path("model").exists()


def test_a_file_without_the_part_that_is_asked_for(run: Run, fine_tuned: dict[str, Tensor], units: Path) -> None:
    torch.save(part(fine_tuned, "model.backbone."), "student.pth")
    torch.save({name: value for name, value in fine_tuned.items() if "model.backbone" not in name}, "teacher.pth")
    assert (
        "does not hold the moving average of the student (teacher), but the student: leave out --teacher"
        in run("student.pth", "model", "--units", units, "--teacher")[2]
    )
    assert (
        "does not hold the student, but the moving average of the student (teacher): add --teacher"
        in run("teacher.pth", "model", "--units", units)[2]
    )
    assert run("student.pth", "model", "--units", units)[0] == 0
    assert run("teacher.pth", "average", "--units", units, "--teacher")[0] == 0


def test_units_of_another_model_are_refused(run: Run, files: dict[Kind, Path]) -> None:
    Path("short.txt").write_text("<unk> 1\n▁A 2\n", encoding="utf-8")
    status, _, err = run(files["fine-tuned"], "model", "--units", "short.txt")
    assert status == 2
    assert err.startswith("error: short.txt makes 4 tokens, blank and end of sentence included, but ")
    assert err.count("\n") == 1


# How files are written


def test_states_of_an_optimizer_are_left_out(run: Run, fine_tuned: dict[str, Tensor], units: Path) -> None:
    state = {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(500, 500)}}
    content = {
        "epoch": 7,
        "state_dict": collections.OrderedDict(fine_tuned),
        "optimizer_states": [{"state": state, "param_groups": [{"lr": 1e-3, "params": [0]}]}],
        "hyper_parameters": {"optimizer": {"base_lr": 1e-3}},
    }
    torch.save(content, "last.ckpt")
    status, _, err = run("last.ckpt", "model", "--units", units)
    assert status == 0
    assert_equal(to_published(load_model(Path("model"))[0]), part(fine_tuned, "model.backbone."))
    assert err.splitlines()[-4:-1] == [
        "left out: epoch, no tensors",
        "left out: optimizer_states, 250,001 parameters, 1.0 MB",
        "left out: hyper_parameters, no tensors",
    ]


def test_code_beside_the_weights_is_refused_with_what_to_do(
    run: Run, fine_tuned: dict[str, Tensor], units: Path
) -> None:
    torch.save({"state_dict": fine_tuned, "hyper_parameters": argparse.Namespace(lr=1e-3)}, "last.ckpt")
    status, _, err = run("last.ckpt", "model", "--units", units)
    assert status == 2
    assert err.count("\n") == 1
    assert "code beside its tensors (argparse.Namespace)" in err
    command = shlex.split(err.partition("convert last-weights.pth: ")[2])
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert run("last-weights.pth", "model", "--units", units)[0] == 0
    assert_equal(to_published(load_model(Path("model"))[0]), part(fine_tuned, "model.backbone."))


@pytest.mark.parametrize("how", ["old format", "compressed"])
def test_files_that_cannot_be_mapped_are_read_with_a_note(
    run: Run, fine_tuned: dict[str, Tensor], units: Path, how: str
) -> None:
    fine_tuned = {name: torch.full_like(value, number) for number, (name, value) in enumerate(fine_tuned.items())}
    torch.save(fine_tuned, "file.pth", _use_new_zipfile_serialization=how == "compressed")
    if how == "compressed":
        Path("file.pth").rename("plain.pth")
        with (
            zipfile.ZipFile("plain.pth") as plain,
            zipfile.ZipFile("file.pth", "w", zipfile.ZIP_DEFLATED, True, 1) as new,
        ):
            for record in plain.infolist():
                new.writestr(record.filename, plain.read(record), zipfile.ZIP_DEFLATED)
    status, _, err = run("file.pth", "model", "--units", units)
    assert status == 0, err
    assert err.startswith("file.pth cannot be mapped")
    assert_equal(to_published(load_model(Path("model"))[0]), part(fine_tuned, "model.backbone."))


@pytest.mark.parametrize("share", [0.0001, 0.5, 0.999])
def test_a_truncated_file_is_refused(run: Run, files: dict[Kind, Path], units: Path, share: float) -> None:
    content = files["fine-tuned"].read_bytes()
    Path("cut.pth").write_bytes(content[: int(share * len(content))])
    status, _, err = run("cut.pth", "model", "--units", units)
    assert status == 2
    assert "error: cut.pth is refused: it is damaged, or no checkpoint" in err
    assert err.count("\n") == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("options", [[], ["--half"]])
def test_weights_are_never_copied_to_memory_as_a_whole(
    run: Run, files: dict[Kind, Path], units: Path, options: list[str]
) -> None:
    run(files["fine-tuned"], "first", "--units", units, *options)  # imports
    with PrivateMemory() as memory:
        assert run(files["fine-tuned"], "model", "--units", units, *options)[0] == 0
    kept = Path("model", WEIGHTS_FILE).stat().st_size
    assert memory.growth < 0.5 * kept
    with PrivateMemory() as memory:
        load_model(Path("model"))
    assert memory.growth < (2.4 if options else 0.2) * kept  # without --half mapped, with it twice as large in memory


def test_half_precision_is_for_matrices_that_can_have_it(run: Run, fine_tuned: dict[str, Tensor], units: Path) -> None:
    tensors = {name: value.clone() for name, value in fine_tuned.items()}
    wide = "model.backbone.encoder.encoders.0.feed_forward.w_1.weight"
    variances = "model.backbone.encoder.frontend_v.frontend3D.1.running_var"
    tensors[wide][0, 0] = -70_000.0
    tensors[variances] *= 1e6
    torch.save(tensors, "file.pth")
    assert run("file.pth", "model", "--units", units, "--half")[0] == 0
    types = collections.Counter()
    with safe_open(Path("model", WEIGHTS_FILE), "pt") as file:
        for name in file.keys():  # noqa: SIM118 -- no mapping
            value = file.get_tensor(name)
            types[str(value.dtype), value.dim() >= 2] += 1
    assert set(types) == {
        ("torch.float16", True),
        ("torch.float32", True),
        ("torch.float32", False),
        ("torch.int64", False),
    }
    assert types["torch.float32", True] == 1
    matrices = sum(value.numel() for name, value in part(tensors, "model.backbone.").items() if value.dim() >= 2)
    whole = sum(value.numel() for name, value in part(tensors, "model.backbone.").items())
    assert Path("model", WEIGHTS_FILE).stat().st_size == pytest.approx(2 * matrices + 4 * (whole - matrices), rel=0.01)

    published = to_published(load_model(Path("model"))[0])
    for name, value in part(tensors, "model.backbone.").items():
        exact = value.dim() < 2 or f"model.backbone.{name}" == wide
        assert torch.equal(published[name], value if exact else value.half().float()), name
        assert published[name].isfinite().all()
