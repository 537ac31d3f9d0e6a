"""Where a student starts from: the weights of another model, all of them or its encoder's."""

from pathlib import Path
from typing import NamedTuple

import torch

from seehear.checkpoint import CONFIG_FILE, load_folder
from seehear.errors import ConfigError, ModelError
from seehear.model.usr import USR, SpeechEncoder
from seehear.recipe import ModelSettings
from seehear.tokenizer import Tokenizer

ENCODER = ("video_frontend", "audio_frontend", "projections", "encoder")
"""What turns a clip into features; the rest turns features into tokens."""
VOCABULARY = ("ctc_heads", "output_heads", "decoder.embedding")
"""What has a row for each token."""
FINAL_NORM = "encoder.norm"
"""What a model does not take of an encoder alone: its pre-training uses the features before it (METHOD §8)."""


class Start(NamedTuple):
    """The model to start from."""

    source: Path
    model: SpeechEncoder
    tokenizer: Tokenizer | None
    """None of an encoder alone."""
    brings_vocabulary: bool
    """Whether the student takes its tokens too."""


def find_start(settings: ModelSettings) -> Start | None:
    """The model that a recipe names as `init`; None if it names none.

    Raises `ModelError` if it cannot be loaded, `ConfigError` if it is missing or its vocabulary, to be kept, can only
    decode.
    """
    if settings.init is None:
        return None
    folder = Path(settings.init)
    if not folder.is_dir():
        raise ConfigError(f"there is no {folder} to start from: train it first, or name another model with --init")
    if not (folder / CONFIG_FILE).is_file() and (folder / "model" / CONFIG_FILE).is_file():
        folder = folder / "model"  # of a run
    model, tokenizer = load_folder(folder)
    keeps = tokenizer is not None and settings.init_part == "model" and settings.init_vocabulary
    if tokenizer is not None and keeps and tokenizer.sentencepiece_model is None:
        raise ConfigError(f"{folder} has a list of units, which can only decode: set model.init_vocabulary=false")
    return Start(folder, model, tokenizer, keeps)


@torch.no_grad()
def initialise(student: USR, start: Start, settings: ModelSettings) -> str:
    """Copy the weights; return in words what was copied and what is new.

    Raises `ModelError` that names the first weight whose shape is another.
    """
    given, wanted = start.model.state_dict(), student.state_dict()
    encoder_alone = not isinstance(start.model, USR)
    whole = settings.init_part == "model" and not encoder_alone
    left = (FINAL_NORM,) if encoder_alone else ()
    copied: dict[str, None] = {}
    new: dict[str, None] = {}
    for name, tensor in wanted.items():
        part = next((p for p in (*left, *VOCABULARY, *ENCODER) if name.startswith(f"{p}.")), name.split(".")[0])
        takes = part in ENCODER or (whole and (start.brings_vocabulary or part not in VOCABULARY))
        if not takes:
            new[part] = None
            continue
        if name not in given or given[name].shape != tensor.shape:
            other = tuple(given[name].shape) if name in given else "absent"
            raise ModelError(f"{start.source} does not fit: {name} is {other} there and {tuple(tensor.shape)} here")
        tensor.copy_(given[name])
        copied[part] = None
    unused = sorted(set(given) - set(wanted))
    if unused and (whole or encoder_alone):
        raise ModelError(f"{start.source} does not fit: it has {unused[0]}, which this size does not have")
    return f"from {start.source}: {', '.join(copied)}" + (f"; new: {', '.join(new)}" if new else "; nothing is new")
