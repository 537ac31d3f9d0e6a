"""Model folders: `config.json`, `model.safetensors`, the tokenizer and a model card, written and read as one thing.

The folder of an encoder alone (`"kind": "encoder"` in its `config.json`) has no tokenizer: it gives features, and
a model may start from it.

A folder describes its model completely, in the layout of the Hugging Face hub: nobody types an architecture again, and
nothing in it is executed. (Training checkpoints, which also hold optimiser and teacher: `training/checkpoints.py`.)
"""

import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from seehear.card import ModelCard
from seehear.config import EncoderConfig, FrozenModel, ModelConfig
from seehear.data.transforms import VIDEO_MEAN, VIDEO_STD
from seehear.devices import find_device
from seehear.errors import ModelError
from seehear.memory_errors import ran_out
from seehear.modality import FRAME_RATE, INPUT_SIZE, SAMPLE_RATE
from seehear.model.usr import USR, SpeechEncoder
from seehear.model.weights import WithoutStartValues, stored_type
from seehear.recipe import Recipe
from seehear.tokenizer import DESCRIPTION_FILE, PIECES_FILE, Tokenizer

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
CARD_FILE = "README.md"
RECIPE_FILE = "recipe.toml"
OWN_FILES = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, RECIPE_FILE, DESCRIPTION_FILE, PIECES_FILE)
"""What a model folder is made of."""
EVALUATION_FOLDER = "evaluation"
"""Where `seehear evaluate` writes reports on a model, inside its folder."""
SAFETENSORS_TYPES = {torch.int64: "I64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
"""The names of types in a safetensors file."""
ENCODER_ALONE = (
    "an encoder alone, without the heads, decoder and vocabulary that make text of features: train a model from it "
    "with `seehear train RECIPE --init {folder}`; `seehear extract` takes it as it is"
)
"""Why the folder of an encoder cannot be used as a model, and what to do."""
CHECKPOINTS = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".safetensors")
"""File names of checkpoints that are not model folders."""


class InputFormat(FrozenModel):
    """What the weights expect as input; a model made for other input is refused."""

    frame_rate: int = FRAME_RATE
    sample_rate: int = SAMPLE_RATE
    video_size: int = INPUT_SIZE
    video_mean: float = VIDEO_MEAN
    video_std: float = VIDEO_STD


class FolderConfig(FrozenModel):
    """What every `config.json` holds."""

    model_type: Literal["seehear"] = "seehear"
    format_version: Literal[1] = 1
    input: InputFormat = InputFormat()


class ModelFolderConfig(FolderConfig):
    """The contents of `config.json` of a model."""

    model: ModelConfig


class EncoderFolderConfig(FolderConfig):
    """The contents of `config.json` of an encoder alone."""

    kind: Literal["encoder"] = "encoder"
    model: EncoderConfig


def save_model(
    folder: Path,
    model: USR,
    tokenizer: Tokenizer,
    card: ModelCard | None = None,
    recipe: Recipe | None = None,
    *,
    half: torch.dtype | None = None,
    keep_evaluation: bool = True,
) -> Path:
    """Write a model folder: under a temporary name first, renamed when complete; an older model there is replaced.

    `half` stores matrices in that half precision (`seehear.model.weights.stored_type`). Reports on an older model
    (`EVALUATION_FOLDER`) stay there with `keep_evaluation`, as does whatever else lies beside it.
    Raises `ModelError` if `folder` holds something else or cannot be written, or the vocabulary is not the model's.
    """
    folder = Path(folder)
    _check_vocabulary(folder, model.config, tokenizer)
    with _replacing(folder, keep_evaluation=keep_evaluation) as temporary:
        _write_config(temporary, ModelFolderConfig(model=model.config))
        write_weights(temporary / WEIGHTS_FILE, model.state_dict(), half)
        tokenizer.save(temporary)
        text = (card or ModelCard()).to_markdown(
            model.num_parameters(),
            tokenizer.vocab_size,
            tokenizer.normaliser.name,
            recipe.to_toml() if recipe else None,
        )
        (temporary / CARD_FILE).write_text(text, encoding="utf-8")
        if recipe is not None:
            (temporary / RECIPE_FILE).write_text(recipe.to_toml(), encoding="utf-8")
    return folder


def save_encoder(
    folder: Path,
    encoder: SpeechEncoder,
    card: ModelCard | None = None,
    *,
    half: torch.dtype | None = None,
    keep_evaluation: bool = True,
) -> Path:
    """Write the folder of an encoder alone, without heads, decoder and tokenizer; else as `save_model`."""
    folder = Path(folder)
    with _replacing(folder, keep_evaluation=keep_evaluation) as temporary:
        _write_config(temporary, EncoderFolderConfig(model=encoder.config))
        write_weights(temporary / WEIGHTS_FILE, encoder.state_dict(), half)
        text = (card or ModelCard()).to_encoder_markdown(encoder.num_parameters())
        (temporary / CARD_FILE).write_text(text, encoding="utf-8")
    return folder


def load_model(
    folder: Path, device: torch.device | str = "cpu", *, weights_dtype: torch.dtype | None = None
) -> tuple[USR, Tokenizer]:
    """The model of a folder, ready for inference on `device`, and its tokenizer.

    Weights are float32 in memory, or of the half precision `weights_dtype`: then they need half the memory, and are
    converted whenever a layer uses them, unless autocast computes in their type.
    Raises `ModelError` that says what is wrong with the folder; a model is loaded completely or not at all.
    """
    network, tokenizer = load_folder(folder, device, weights_dtype=weights_dtype)
    if not isinstance(network, USR) or tokenizer is None:
        raise ModelError(f"{folder} is {ENCODER_ALONE.format(folder=folder)}")
    return network, tokenizer


def load_folder(
    folder: Path, device: torch.device | str = "cpu", *, weights_dtype: torch.dtype | None = None
) -> tuple[SpeechEncoder, Tokenizer | None]:
    """As `load_model`, and of the folder of an encoder alone: that encoder, and no tokenizer."""
    folder = Path(folder)
    config = _read_config(folder)
    try:
        with WithoutStartValues():
            network = USR(config) if isinstance(config, ModelConfig) else SpeechEncoder(config)
    except (RuntimeError, MemoryError, ValueError, ZeroDivisionError, TypeError) as error:
        if ran_out(error):
            raise ModelError(f"memory does not suffice for the model that {folder / CONFIG_FILE} describes") from error
        raise ModelError(f"{folder / CONFIG_FILE} describes no possible model: {_first_line(error)}") from error
    weights = _read_weights(folder / WEIGHTS_FILE)
    _check_weights(folder / WEIGHTS_FILE, weights, network.state_dict())
    tokenizer = None
    if isinstance(config, ModelConfig):
        tokenizer = Tokenizer.load(folder)
        _check_vocabulary(folder, config, tokenizer)
    stored = {name: value.to(stored_type(value, weights_dtype)) for name, value in weights.items()}
    network.load_state_dict(stored, assign=True)
    return network.to(find_device(device)).eval(), tokenizer


def write_weights(path: Path, weights: Mapping[str, Tensor], half: torch.dtype | None = None) -> None:
    """Write a safetensors file, tensor by tensor: more than one is never held in memory beside `weights`.

    An `OSError` of writing tells how large the file is.
    """
    types = {name: stored_type(value, half) for name, value in weights.items()}
    # The widest types first, so that each tensor begins at a multiple of its type's size.
    names = sorted(weights, key=lambda name: (-types[name].itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        start, end = end, end + weights[name].numel() * types[name].itemsize
        shape = list(weights[name].shape)
        header[name] = {"dtype": SAFETENSORS_TYPES[types[name]], "shape": shape, "data_offsets": [start, end]}
    description = json.dumps(header).encode()
    description += b" " * (-len(description) % 8)
    try:
        with path.open("wb") as file:
            file.write(len(description).to_bytes(8, "little") + description)
            for name in names:
                value = weights[name].detach().to("cpu", types[name]).contiguous()
                file.write(value.flatten().view(torch.uint8).numpy().data)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; its weights need {end / 1e9:.2f} GB") from error


def require_place(folder: Path, *, overwrite: bool = True) -> None:
    """Raise `ModelError` if `folder` is something else than a model, or, without `overwrite`, if it is a model."""
    if folder.is_dir() and not any(folder.iterdir()):
        return
    if (folder / CONFIG_FILE).is_file():
        if not overwrite:
            raise ModelError(f"{folder} exists: choose another place to save the model, or replace it with --overwrite")
    elif folder.exists():
        raise ModelError(f"{folder} exists and is no model folder: choose another place to save the model")


@contextmanager
def _replacing(folder: Path, *, keep_evaluation: bool) -> Iterator[Path]:
    """A new folder to fill, which takes the place of `folder` at the end; what else lies in `folder` is kept.

    Evaluations are of the older model: they are kept only with `keep_evaluation`. Where `folder` is a link, the folder
    that it leads to is replaced.
    Raises `ModelError` if `folder` is no model folder, or cannot be written.
    """
    require_place(folder)
    place = folder.resolve()
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        workplace = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        try:
            new = workplace / "new"  # with the permissions of any new folder, which `workplace` has not
            new.mkdir()
            yield new
            _exchange(new, place, workplace / "old", () if keep_evaluation else (EVALUATION_FOLDER,))
        finally:
            shutil.rmtree(workplace / "new", ignore_errors=True)
            with suppress(OSError):
                workplace.rmdir()
    except OSError as error:
        raise ModelError(f"{folder} cannot be written: {error.strerror or error}") from error


def _exchange(new: Path, place: Path, old: Path, dropped: Collection[str]) -> None:
    """Move `new` to `place`, by way of `old`; what lies there beside a model is kept, except `dropped`.

    Raises `OSError`; then nothing is lost.
    """
    if place.is_dir() and not any(place.iterdir()):  # it may be the current folder: it is filled, not replaced
        for file in sorted(new.iterdir(), key=lambda file: file.name == CONFIG_FILE):
            file.replace(place / file.name)
        return
    if place.exists():
        place.replace(old)
    try:
        new.replace(place)
    except OSError:
        if old.exists():
            old.replace(place)
        raise
    if old.exists():
        for other in old.iterdir():  # evaluations, and whatever else lies there
            if other.name not in (*OWN_FILES, *dropped):
                other.replace(place / other.name)
        shutil.rmtree(old, ignore_errors=True)


def _write_config(folder: Path, config: FolderConfig) -> None:
    content = json.dumps(config.model_dump(mode="json"), indent=2) + "\n"
    (folder / CONFIG_FILE).write_text(content, encoding="utf-8")


def _read_config(folder: Path) -> EncoderConfig:
    """The sizes of a folder's network: a `ModelConfig` unless it is an encoder alone."""
    if folder.is_file():
        advice = "turn a published checkpoint into one with `seehear convert`" if folder.suffix in CHECKPOINTS else ""
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
        is_encoder = isinstance(values, dict) and values.get("kind") == "encoder"
        kind: type[ModelFolderConfig | EncoderFolderConfig] = EncoderFolderConfig if is_encoder else ModelFolderConfig
        config = kind.model_validate(values)
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
