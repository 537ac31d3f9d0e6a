"""Model folders: `config.json`, `model.safetensors`, the tokenizer and a model card, written and read as one thing.

A folder describes its model completely, in the layout of the Hugging Face hub: nobody types an architecture again, and
nothing in it is executed. (Training checkpoints, which also hold optimiser and teacher: `training/checkpoints.py`.)
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from seehear.card import ModelCard
from seehear.config import FrozenModel, ModelConfig
from seehear.data.transforms import VIDEO_MEAN, VIDEO_STD
from seehear.devices import find_device
from seehear.errors import ModelError
from seehear.modality import FRAME_RATE, INPUT_SIZE, SAMPLE_RATE
from seehear.model.usr import USR
from seehear.recipe import Recipe
from seehear.tokenizer import DESCRIPTION_FILE, PIECES_FILE, Tokenizer

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
RECIPE_FILE = "recipe.toml"
OWN_FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, RECIPE_FILE, DESCRIPTION_FILE, PIECES_FILE)
"""What a model folder is made of."""
PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl")
"""File names of checkpoints that are not model folders."""


class InputFormat(FrozenModel):
    """What the weights expect as input; a model made for other input is refused."""

    frame_rate: int = FRAME_RATE
    sample_rate: int = SAMPLE_RATE
    video_size: int = INPUT_SIZE
    video_mean: float = VIDEO_MEAN
    video_std: float = VIDEO_STD


class FolderConfig(FrozenModel):
    """The contents of `config.json`."""

    model_type: Literal["seehear"] = "seehear"
    format_version: Literal[1] = 1
    input: InputFormat = InputFormat()
    model: ModelConfig


def save_model(
    folder: Path, model: USR, tokenizer: Tokenizer, card: ModelCard | None = None, recipe: Recipe | None = None
) -> Path:
    """Write a model folder: under a temporary name first, renamed when complete; an older model there is replaced.

    Raises `ModelError` if `folder` holds something else, or the vocabulary is not the model's.
    """
    folder = Path(folder)
    _check_vocabulary(folder, model.config, tokenizer)
    if folder.exists() and not (folder / CONFIG_FILE).is_file() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ModelError(f"{folder} exists and is no model folder: choose another place to save the model")
    temporary, old = (folder.with_name(f"{folder.name}.{suffix}") for suffix in ("tmp", "old"))
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        config = FolderConfig(model=model.config).model_dump(mode="json")
        (temporary / CONFIG_FILE).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
        save_file(weights, temporary / WEIGHTS_FILE, metadata={"format": "pt"})
        tokenizer.save(temporary)
        card = card or ModelCard()
        text = card.to_markdown(
            model.num_parameters(),
            tokenizer.vocab_size,
            tokenizer.normaliser.name,
            recipe.to_toml() if recipe else None,
        )
        (temporary / CARD_FILE).write_text(text, encoding="utf-8")
        if recipe is not None:
            (temporary / RECIPE_FILE).write_text(recipe.to_toml(), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.replace(old)
            for other in old.iterdir():  # evaluations, and whatever else lies there
                if other.name not in OWN_FILES:
                    other.replace(temporary / other.name)
        temporary.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load_model(folder: Path, device: torch.device | str = "cpu") -> tuple[USR, Tokenizer]:
    """The model of a folder, ready for inference on `device`, and its tokenizer.

    Raises `ModelError` that says what is wrong with the folder; a model is loaded completely or not at all.
    """
    folder = Path(folder)
    config = _read_config(folder)
    try:
        with WithoutStartValues():
            model = USR(config)
    except (RuntimeError, ValueError, ZeroDivisionError, TypeError) as error:
        raise ModelError(f"{folder / CONFIG_FILE} describes no possible model: {_first_line(error)}") from error
    weights = _read_weights(folder / WEIGHTS_FILE)
    _check_weights(folder / WEIGHTS_FILE, weights, model.state_dict())
    tokenizer = Tokenizer.load(folder)
    _check_vocabulary(folder, config, tokenizer)
    model.load_state_dict(
        {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}, assign=True
    )
    return model.to(find_device(device)).eval(), tokenizer


class WithoutStartValues(TorchFunctionMode):
    """Build a module whose weights are about to be replaced: memory is not touched, no random numbers are drawn.

    (The `meta` device does the same, and imports PyTorch's compiler, which takes longer than loading a small model.)
    """

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Leave out what fills a tensor at random."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init" or func in (Tensor.normal_, Tensor.uniform_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _read_config(folder: Path) -> ModelConfig:
    if folder.is_file():
        advice = "turn a published checkpoint into one with `seehear convert`" if folder.suffix in PICKLES else ""
        raise ModelError(
            f"{folder} is a file; a model is a folder with {CONFIG_FILE}" + (f": {advice}" if advice else "")
        )
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise ModelError(
            f"{folder} is no model folder: it has no {CONFIG_FILE}" if folder.is_dir() else f"no model folder {folder}"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        config = FolderConfig.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ModelError(f"{path} is not a model of this version of seehear: {faults}") from error
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON: {_first_line(error)}") from error
    if config.input != InputFormat():
        raise ModelError(f"{path}: the model expects other input: {config.input} instead of {InputFormat()}")
    return config.model


def _read_weights(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ModelError(f"{path.parent} is incomplete: it has no {WEIGHTS_FILE}")
    try:
        weights: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged or no safetensors file: {_first_line(error)}") from error
    return weights


def _check_weights(path: Path, weights: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise `ModelError` that names the parameters that are missing, not the model's, or of another kind."""
    misshapen = [
        f"{name} is {_kind(weights[name])} instead of {_kind(value)}"
        for name, value in expected.items()
        if name in weights and _kind(weights[name]) != _kind(value)
    ]
    faults = {
        "missing": [name for name in expected if name not in weights],
        "not part of the model": [name for name in weights if name not in expected],
        "misshapen": misshapen,
    }
    found = [f"{what}: {_some(names)}" for what, names in faults.items() if names]
    if found:
        raise ModelError(f"{path} does not fit {CONFIG_FILE}: {'; '.join(found)}")


def _check_vocabulary(folder: Path, config: ModelConfig, tokenizer: Tokenizer) -> None:
    if tokenizer.vocab_size != config.vocab_size:
        raise ModelError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {config.vocab_size}: "
            "they do not belong together"
        )


def _kind(tensor: Tensor) -> str:
    """Shape, and whether it holds integers."""
    return f"{list(tensor.shape)}{'' if tensor.is_floating_point() else ' of integers'}"


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
