"""Model folders: complete or refused, and never half written."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from seehear.card import ModelCard
from seehear.checkpoint import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE, load_model, save_model, write_weights
from seehear.config import SIZES
from seehear.devices import find_device
from seehear.errors import ConfigError, ModelError
from seehear.model.usr import USR
from seehear.recipe import load_recipe
from seehear.tokenizer import Tokenizer


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(model_folder, tmp_path / "model"))


def test_what_is_saved_is_what_is_loaded(model_folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model, loaded_tokenizer = load_model(model_folder)
    assert not model.training
    assert loaded_tokenizer.pieces == tokenizer.pieces
    save_model(tmp_path / "again", model, loaded_tokenizer)
    again, _ = load_model(tmp_path / "again")
    assert again.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
        assert value.device.type == "cpu"


def test_saving_replaces_an_older_model_and_leaves_nothing_else(folder: Path, tokenizer: Tokenizer) -> None:
    model, _ = load_model(folder)
    with torch.no_grad():
        model.ctc_heads["a"].bias.fill_(7.0)
    save_model(folder, model, tokenizer)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert load_model(folder)[0].ctc_heads["a"].bias.tolist() == [7.0] * tokenizer.vocab_size


def test_only_the_own_temporary_folders_are_deleted(folder: Path, tokenizer: Tokenizer) -> None:
    for name in ("model.tmp", "model.old", ".model.1"):
        (folder.parent / name).mkdir()
        (folder.parent / name / "notes.txt").write_text("years of work", encoding="utf-8")
    save_model(folder, load_model(folder)[0], tokenizer)
    assert len(list(folder.parent.glob("*/notes.txt"))) == 3
    assert len(list(folder.parent.iterdir())) == 4


def test_saving_through_a_link_and_into_the_current_folder(
    folder: Path, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = load_model(folder)
    with torch.no_grad():
        model.ctc_heads["a"].bias.fill_(7.0)
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    save_model(tmp_path / "link", model, tokenizer)
    assert (tmp_path / "link").is_symlink()
    assert load_model(folder)[0].ctc_heads["a"].bias[0] == 7.0
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    save_model(Path(), model, tokenizer)
    assert Path(CONFIG_FILE).is_file()
    load_model(Path())
    assert {path.name for path in tmp_path.iterdir()} == {"model", "link", "empty"}
    usual = tmp_path / "usual"
    usual.mkdir()
    save_model(tmp_path / "new", model, tokenizer)
    assert (tmp_path / "new").stat().st_mode == usual.stat().st_mode


def test_what_lies_beside_a_model_is_kept(folder: Path, tokenizer: Tokenizer) -> None:
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "test.jsonl").write_text("{}", encoding="utf-8")
    (folder / "notes.txt").write_text("the good one", encoding="utf-8")
    model, _ = load_model(folder)
    save_model(folder, model, tokenizer)
    assert (folder / "evaluation" / "test.jsonl").read_text(encoding="utf-8") == "{}"
    assert (folder / "notes.txt").is_file()
    load_model(folder)
    save_model(folder, model, tokenizer, keep_evaluation=False)
    assert not (folder / "evaluation").exists()
    assert (folder / "notes.txt").is_file()


def test_a_save_that_fails_leaves_the_old_model(
    folder: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = load_model(folder)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    replace = Path.replace
    monkeypatch.setattr("seehear.checkpoint.Tokenizer.save", full)
    with pytest.raises(ModelError, match="model cannot be written: No space left on device"):
        save_model(folder, model, tokenizer)
    monkeypatch.undo()
    monkeypatch.setattr(Path, "replace", lambda path, to: full() if path.name == "new" else replace(path, to))
    with pytest.raises(ModelError, match="No space"):
        save_model(folder, model, tokenizer)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    load_model(folder)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_is_told_with_what_is_needed() -> None:
    with pytest.raises(OSError, match=r"No space left on device; its weights need 0\.01 GB"):
        write_weights(Path("/dev/full"), {"a": torch.zeros(2_000_000)})


def test_a_folder_of_something_else_is_not_replaced(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work", encoding="utf-8")
    model = USR(SIZES["tiny"].model_copy(update={"vocab_size": tokenizer.vocab_size}))
    with pytest.raises(ModelError, match="no model folder"):
        save_model(tmp_path, model, tokenizer)
    assert (tmp_path / "thesis.tex").is_file()


def test_a_vocabulary_of_another_model_is_not_saved(model_folder: Path, tmp_path: Path) -> None:
    model, _ = load_model(model_folder)
    with pytest.raises(ModelError, match="do not belong together"):
        save_model(tmp_path / "model", model, Tokenizer.train(["other words"], 48))
    assert not (tmp_path / "model").exists()


def test_half_precision_weights_are_loaded(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS_FILE)
    halved = {name: value.half() if value.is_floating_point() else value for name, value in weights.items()}
    save_file(halved, folder / WEIGHTS_FILE)
    model, _ = load_model(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def rewrite(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    """A fault in the weights."""

    def damage(folder: Path) -> None:
        weights = load_file(folder / WEIGHTS_FILE)
        change(weights)
        save_file(weights, folder / WEIGHTS_FILE)

    return damage


def reconfigure(**changes: object) -> Callable[[Path], None]:
    """A fault in the configuration; `model__dim` is key dim of table model."""

    def damage(folder: Path) -> None:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        for key, value in changes.items():
            *tables, last = key.split("__")
            target = config
            for table in tables:
                target = target[table]
            target[last] = value
        (folder / CONFIG_FILE).write_text(json.dumps(config), encoding="utf-8")

    return damage


def overwrite(name: str, content: bytes) -> Callable[[Path], None]:
    """A file with other content."""
    return lambda folder: (folder / name).write_bytes(content) and None


def truncate(folder: Path) -> None:
    path = folder / WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-1000])


def other_vocabulary(folder: Path) -> None:
    Tokenizer.train(["quite other words"], 48).save(folder)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / CONFIG_FILE).unlink(), "config.json"),
        (lambda folder: (folder / WEIGHTS_FILE).unlink(), "model.safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
        (overwrite(CONFIG_FILE, b"{"), "not valid JSON"),
        (overwrite(CONFIG_FILE, b"\xff\xfe"), "not valid JSON"),
        (overwrite(CONFIG_FILE, b"[]"), "not a model of this version"),
        (reconfigure(model_type="whisper"), "model_type"),
        (reconfigure(format_version=2), "format_version"),
        (reconfigure(input__video_mean=0.5), "other input"),
        (reconfigure(model__colour="red"), "colour"),
        (reconfigure(model__num_heads=5), "heads"),
        (reconfigure(model__dim=-96), "no possible model"),
        (reconfigure(model__dim=128), "misshapen: projections"),
        (reconfigure(model__num_encoder_layers=4), r"missing: encoder\.\w+\.3"),
        (reconfigure(model__num_encoder_layers=2), r"not part of the model: encoder\.\w+\.2"),
        (overwrite(WEIGHTS_FILE, b""), "no safetensors file"),
        (overwrite(WEIGHTS_FILE, b"\xff" * 64), "no safetensors file"),
        (overwrite(WEIGHTS_FILE, (1 << 60).to_bytes(8, "little") + b"{}"), "no safetensors file"),
        (truncate, "no safetensors file"),
        (rewrite(lambda weights: weights.pop("ctc_heads.v.bias")), r"missing: ctc_heads\.v\.bias"),
        (rewrite(lambda weights: weights.update(spam=torch.zeros(1))), "not part of the model: spam"),
        (
            rewrite(lambda weights: weights.update({"ctc_heads.a.bias": torch.zeros(3)})),
            r"ctc_heads\.a\.bias is \[3\] instead of \[\d+\]",
        ),
        (
            rewrite(lambda weights: weights.update({"ctc_heads.a.bias": weights["ctc_heads.a.bias"].long()})),
            "of integers",
        ),
        (other_vocabulary, "do not belong together"),
    ],
)
def test_a_damaged_folder_is_refused(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


class Exploit:
    """What a malicious checkpoint holds: code that runs when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


def test_a_pickle_is_never_opened(folder: Path, tmp_path: Path) -> None:
    victim, pickle = tmp_path / "victim", tmp_path / "checkpoint.pt"
    torch.save({"weights": Exploit(victim)}, pickle)
    with pytest.raises(ModelError, match="seehear convert"):
        load_model(pickle)
    shutil.copy(pickle, folder / WEIGHTS_FILE)
    with pytest.raises(ModelError, match="no safetensors file"):
        load_model(folder)
    assert not victim.exists()


def test_no_folder_and_no_device(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="is a file"):
        load_model(model_folder / CARD_FILE)
    for device in ("gpu", "cuda:99"):
        with pytest.raises(ConfigError, match=f"no device '{device}'"):
            find_device(device)


def test_the_card_says_what_the_model_is(model_folder: Path, tokenizer: Tokenizer, tmp_path: Path) -> None:
    model, _ = load_model(model_folder)
    card = ModelCard(
        title="Demo",
        training_data="synthetic corpus, 100 labelled clips",
        synthetic=True,
        licence="apache-2.0",
        results={"test, AV, CTC greedy": "WER 12.0 %"},
    )
    recipe = load_recipe("usr2-grid", ["data.corpus=corpora/grid"])
    text = (save_model(tmp_path / "m", model, tokenizer, card, recipe) / CARD_FILE).read_text(encoding="utf-8")
    head, front_matter, body = text.split("---\n", 2)
    assert not head
    assert "license: apache-2.0" in front_matter
    for fact in (f"{model.num_parameters():,}", "lower-words-1", "synthetic speech", "WER 12.0 %", 'kind = "usr2"'):
        assert fact in body
    assert load_recipe(tmp_path / "m" / "recipe.toml") == recipe
