"""Published checkpoints become model folders and come back; what does not fit is refused, and nothing is executed."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from seehear.checkpoint import load_model
from seehear.cli.main import main
from seehear.config import SIZES, ModelConfig
from seehear.convert import (
    Conversion,
    config_from_shapes,
    our_name,
    published_name,
    read_checkpoint,
    to_ours,
    to_published,
)
from seehear.errors import ModelError
from seehear.modality import Modality
from seehear.model.usr import USR

GOLDEN = Path(__file__).parent / "golden"


def golden_shapes(name: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(shape) for key, shape in json.loads((GOLDEN / f"keys_{name}.json").read_text()).items()}


def random_checkpoint(config: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model = USR(config)
    for norm in (model.video_frontend.stem_norm, model.audio_frontend.stem_norm):
        assert norm.running_mean is not None
        norm.running_mean.normal_()
    return to_published(model)


def whole(conversion: Conversion) -> USR:
    """The model of a checkpoint that holds a whole one."""
    assert isinstance(conversion.model, USR)
    return conversion.model


@pytest.fixture(scope="module")
def narrow() -> dict[str, Tensor]:
    """A small checkpoint of published layout, with a decoder narrower than the encoder."""
    return {name: torch.zeros(shape) for name, shape in golden_shapes("narrow").items()}


@pytest.fixture(scope="module")
def units(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of units of the published length."""
    path = tmp_path_factory.mktemp("units") / "units.txt"
    path.write_text(
        "".join(f"{piece} {id}\n" for id, piece in enumerate(["<unk>", *map("▁W{}".format, range(1046))], 1))
    )
    return path


def run(*arguments: object) -> int:
    """`seehear convert` in this process; its exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["seehear", "convert", *map(str, arguments)])
        with pytest.raises(SystemExit) as exited:
            main()
    return int(str(exited.value.code))


@pytest.mark.parametrize("name", ["tiny", "heads2", "narrow"])
def test_every_published_name_is_one_of_ours_and_back(name: str) -> None:
    ours = {key: our_name(key) for key in golden_shapes(name)}
    assert None not in ours.values()
    assert len(set(ours.values())) == len(ours)
    assert {key: published_name(str(value)) for key, value in ours.items()} == {key: key for key in ours}


@pytest.mark.parametrize("size", ["base", "base-plus", "large", "huge"])
def test_size_is_read_off_the_shapes(size: str) -> None:
    with torch.device("meta"):
        published = to_published(USR(SIZES[size]))
    found = config_from_shapes({name: tuple(value.shape) for name, value in published.items()})
    assert found.model_copy(update={"stochastic_depth": SIZES[size].stochastic_depth}) == SIZES[size]


def test_narrow_decoder_and_what_heads_are_assumed(narrow: dict[str, Tensor]) -> None:
    config = whole(to_ours(narrow)).config
    assert (config.dim, config.num_heads, config.decoder_dim, config.decoder_num_heads) == (96, 6, 48, 3)
    with pytest.raises(ModelError, match="heads of width"):
        config_from_shapes(golden_shapes("narrow") | {"decoder.embed.0.weight": (1049, 50)})


@pytest.mark.parametrize(
    "prefix",
    ["", "model.backbone.", "_orig_mod.", "model.backbone._orig_mod.", "_orig_mod.model.", "module.model.module."],
)
def test_prefixes_are_dropped(narrow: dict[str, Tensor], prefix: str) -> None:
    model = whole(to_ours({prefix + name: value for name, value in narrow.items()}))
    plain = whole(to_ours(narrow))
    assert model.config == plain.config
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("prefix", ["model.", "backbone.", "_orig_mod.module."])
def test_a_parameter_with_and_without_prefix_is_refused(narrow: dict[str, Tensor], prefix: str) -> None:
    with pytest.raises(ModelError, match="twice"):
        to_ours(narrow | {f"{prefix}decoder.after_norm.weight": torch.zeros(48)})


@pytest.mark.parametrize(
    ("removed", "added", "message"),
    [
        ("encoder.after_norm.bias", {}, "misses encoder.after_norm.bias"),
        ("ctc_av.ctc_lo.weight", {}, "misses ctc_av.ctc_lo.weight"),
        ("decoder.embed.0.weight", {}, "no published USR checkpoint: it has no 'decoder.embed.0.weight'"),
        (None, {"decoder.out_layer_unlabelled_av.weight": (1049, 48)}, "has decoder.out_layer_unlabelled_av.weight"),
        (None, {"ctc_av_unlabelled.ctc_lo.bias": (1049,)}, "has ctc_av_unlabelled.ctc_lo.bias, which belongs to no"),
        (None, {"teacher.encoder.after_norm.bias": (96,)}, "has teacher.encoder.after_norm.bias"),
        (None, {"encoder.frontend_v.trunk.layer1.2.conv1.weight": (64, 64, 3, 3)}, "layer1.2.conv1"),
        (None, {"encoder.encoders.7.gamma_ff": (96,)}, "misses encoder.encoders.2.gamma_mha"),
        (None, {"encoder.linear_v.weight": (96, 500)}, r"linear_v.weight of shape \[96, 500\] instead of \[96, 512\]"),
        (None, {"encoder.encoders.1.self_attn.pos_bias_v": (3, 32)}, r"v of shape \[3, 32\] instead of \[6, 16\]"),
    ],
)  # fmt: skip
def test_missing_extra_and_misshapen_parameters_are_named(
    narrow: dict[str, Tensor], removed: str | None, added: dict[str, tuple[int, ...]], message: str
) -> None:
    checkpoint = {name: value for name, value in narrow.items() if name != removed}
    checkpoint |= {name: torch.zeros(shape) for name, shape in added.items()}
    with pytest.raises(ModelError, match=message):
        to_ours(checkpoint)


def test_own_frontends_have_no_published_form() -> None:
    with pytest.raises(ModelError, match="frontends of its own"):
        to_published(USR(SIZES["tiny"]))


def test_base_checkpoint_to_folder_and_back(tmp_path: Path, units: Path) -> None:
    published = random_checkpoint(SIZES["base"])
    checkpoint, folder, back = tmp_path / "base.pth", tmp_path / "model", tmp_path / "back.pth"
    torch.save({"state_dict": {f"model.backbone.{name}": value for name, value in published.items()}}, checkpoint)
    assert run(checkpoint, folder, "--units", units) == 0
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "tokenizer.json",
    ]  # fmt: skip

    model, tokenizer = load_model(folder)
    assert model.config == SIZES["base"]
    with torch.no_grad():
        features = model.encode(torch.zeros(1, 3, 88, 88), torch.zeros(1, 1920), torch.ones(1, 3, dtype=torch.bool))
        assert model.ctc_logits(features[Modality.AUDIO], Modality.AUDIO).shape == (1, 3, 1049)
    assert tokenizer.decode([2, 1047, 1048]) == "W0 W1045"

    assert run("--back", folder, back, "--units", tmp_path / "again.txt") == 0
    again = read_checkpoint(back).parameters
    assert again.keys() == published.keys()
    assert all(torch.equal(again[name], value) for name, value in published.items())
    assert (tmp_path / "again.txt").read_text() == units.read_text()


def test_faults_of_the_command_line(
    tmp_path: Path, units: Path, narrow: dict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    good, checkpoint, short = tmp_path / "narrow.pth", tmp_path / "more.pth", tmp_path / "short.txt"
    torch.save(narrow, good)
    torch.save(narrow | {"surplus": torch.zeros(1)}, checkpoint)
    short.write_text("<unk> 1\n▁A 2\n")
    out = tmp_path / "out"
    for arguments, message in (
        ((good, out), "--units"),
        ((checkpoint, out, "--units", units), f"{checkpoint}: the checkpoint has surplus"),
        ((tmp_path / "absent.pth", out, "--units", units), "there is no checkpoint"),
        ((good, out, "--units", short), f"{short} makes 4 tokens"),
        ((good, out, "--units", units, "--teacher"), f"{good}: the checkpoint does not hold the moving average"),
        (("--back", out, tmp_path / "back.pth"), f"no model folder {out}"),
        (("--back", out, tmp_path / "back.pth", "--half"), "leave them out with --back"),
    ):
        assert run(*arguments) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not out.exists()


class Malicious:
    """What a pickle can carry: a call that unpickling makes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_malicious_pickle_is_refused_unexecuted(tmp_path: Path) -> None:
    trace, checkpoint = tmp_path / "trace", tmp_path / "evil.pth"
    torch.save({"state_dict": {"encoder.after_norm.weight": Malicious(trace)}}, checkpoint)
    with pytest.raises(ModelError, match="is refused"):
        read_checkpoint(checkpoint)
    assert not trace.exists()
    torch.load(checkpoint, weights_only=False)  # it would have worked
    assert trace.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is refused"),
        (b"random bytes, no checkpoint", "is refused"),
        ([1, 2], "does not hold parameters by name"),
        ({"state_dict": {"epoch": 3}}, "does not hold parameters by name"),
        ({"epoch": 3, "weight": torch.zeros(1)}, "does not hold parameters by name"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "checkpoint.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ModelError, match=message):
        read_checkpoint(path)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save({"weight": torch.zeros(10_000)}, path)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(ModelError, match="is refused"):
        read_checkpoint(path)
