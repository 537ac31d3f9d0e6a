"""Runs that start from another model, and parts that learn slowly or not at all."""

from pathlib import Path
from typing import Any

import pytest
import torch

from seehear.checkpoint import save_model
from seehear.config import SIZES
from seehear.errors import ConfigError, ModelError
from seehear.model.usr import USR
from seehear.recipe import ModelSettings, parse_recipe
from seehear.tokenizer import Tokenizer
from seehear.training.initialise import find_start, initialise
from seehear.training.material import learn_tokenizer, load_material
from seehear.training.run import train_recipe
from training_runs import recipe, weights


def test_letters_that_a_brought_vocabulary_lacks_are_told(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = Tokenizer.train(["sea"], 20)
    save_model(
        tmp_path / "other", USR(SIZES["tiny"].model_copy(update={"vocab_size": tokenizer.vocab_size})), tokenizer
    )
    values = recipe(corpus, steps=1).model_dump()
    values["model"]["init"] = str(tmp_path / "other")
    train_recipe(parse_recipe(values), tmp_path / "run")
    assert "lacks characters of 6 labelled clips" in capsys.readouterr().out


def test_a_run_starts_from_another(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = tmp_path / "first"
    source = weights(train_recipe(recipe(corpus, "supervised"), first))
    settings = recipe(corpus, steps=1)
    settings = settings.model_copy(
        update={
            "model": settings.model.model_copy(update={"init": str(first)}),
            "optimiser": settings.optimiser.model_copy(update={"peak_lr": 1e-12}),
        }
    )
    model = train_recipe(settings, tmp_path / "second")
    started = weights(model)
    assert f"; started from the model of {first}" in (model / "README.md").read_text(encoding="utf-8")
    assert "; nothing is new" in capsys.readouterr().out
    for name, tensor in started.items():
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(tensor, source[name], rtol=0, atol=1e-6)
    for file in ("tokenizer.json", "tokenizer.model"):
        assert (tmp_path / "second" / "model" / file).read_bytes() == (first / "model" / file).read_bytes()


@pytest.mark.parametrize(
    ("settings", "copied", "new"),
    [
        ({"init_part": "encoder"}, {"encoder", "projections"}, {"decoder", "ctc_heads"}),
        ({"init_vocabulary": False}, {"encoder", "decoder"}, {"ctc_heads", "output_heads"}),
    ],
)
def test_what_is_copied_and_what_is_new(
    model_folder: Path, settings: dict[str, Any], copied: set[str], new: set[str]
) -> None:
    model = ModelSettings(size="tiny", init=str(model_folder), **settings)
    start = find_start(model)
    assert start is not None
    assert not start.brings_vocabulary
    torch.manual_seed(5)
    student = USR(model.resolve(30))
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    words = initialise(student, start, model)
    source = start.model.state_dict()
    for name, tensor in student.state_dict().items():
        part = name.split(".")[0]
        if part in copied and not name.startswith("decoder.embedding"):
            assert torch.equal(tensor, source[name]), name
        if part in new:
            assert torch.equal(tensor, before[name]), name
    assert all(f" {part}" in words.split("; new: ")[1] or words.split("; new: ")[1].startswith(part) for part in new)


def test_a_model_of_another_size_is_no_start(model_folder: Path) -> None:
    model = ModelSettings(size="small", init=str(model_folder), init_part="encoder")
    start = find_start(model)
    assert start is not None
    with pytest.raises(ModelError, match="does not fit: video_frontend"):
        initialise(USR(model.resolve(30)), start, model)


def test_what_is_frozen_stays_and_what_is_slow_moves_less(corpus: Path, tmp_path: Path) -> None:
    settings = recipe(corpus, "supervised", steps=2).model_dump()
    settings["optimiser"] |= {"frozen": ["video_frontend", "encoder.layers.0"], "rates": {"decoder": 0.1}}
    settings["optimiser"] |= {"weight_decay": 0.0}
    torch.manual_seed(42)
    fresh = USR(parse_recipe(settings).model.resolve(vocabulary_size(corpus))).state_dict()
    trained = weights(train_recipe(parse_recipe(settings), tmp_path / "run"))
    moved = {
        name: float((trained[name] - fresh[name]).abs().max()) for name in fresh if fresh[name].is_floating_point()
    }
    assert all(moved[name] == 0 for name in moved if name.startswith(("video_frontend.", "encoder.layers.0.")))
    assert max(moved[name] for name in moved if name.startswith("decoder.")) < 0.25 * moved["ctc_heads.av.weight"]
    assert min(moved[name] for name in moved if name.startswith("encoder.layers.1.")) > 0


def vocabulary_size(corpus: Path) -> int:
    settings = recipe(corpus)
    return learn_tokenizer(settings, load_material(settings).labelled).vocab_size


@pytest.mark.parametrize("setting", [{"frozen": ["encodr"]}, {"rates": {"encodr": 0.1}}])
def test_a_part_that_does_not_exist_is_refused(corpus: Path, tmp_path: Path, setting: dict[str, Any]) -> None:
    settings = recipe(corpus).model_dump()
    settings["optimiser"] |= setting
    with pytest.raises(ConfigError, match=r"no part 'encodr'; did you mean 'encoder'\?"):
        train_recipe(parse_recipe(settings), tmp_path / "run")
