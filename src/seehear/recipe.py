"""A run is data: one TOML file, read into immutable records that refuse unknown keys.

The text under a field is its documentation. `load_recipe` reads a file or a recipe that ships with seehear, lays it
over the recipe that it `extends`, applies `key=value` overrides, and reports every fault at once.
"""

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import Field, ValidationError, model_validator

from seehear.config import SIZES, FrozenModel, ModelConfig
from seehear.errors import ConfigError
from seehear.modality import Modality


class PerModality(FrozenModel):
    """A number for each modality; a recipe may give one number for all three."""

    v: float
    a: float
    av: float

    @model_validator(mode="before")
    @classmethod
    def _same_for_all(cls, value: Any) -> Any:
        return {"v": value, "a": value, "av": value} if isinstance(value, int | float) else value

    @classmethod
    def same(cls, value: float) -> "PerModality":
        """The same number for each."""
        return cls(v=value, a=value, av=value)

    def __getitem__(self, modality: Modality) -> float:
        """The number of `modality`."""
        value: float = getattr(self, modality.value)
        return value


class ModelSettings(FrozenModel):
    """Which model is trained: a size, and what differs from it."""

    size: str = "base"
    """A name from `seehear sizes`."""
    vocab_size: int | None = None
    """Largest vocabulary, with blank and end of sentence; the labelled text may support fewer pieces."""
    dropout: float | None = None
    stochastic_depth: float | None = None
    layer_scale: float | None = None
    init: str | None = None
    """A model folder, that of an encoder alone, or the folder of a run, whose weights the student starts from."""
    init_part: Literal["model", "encoder"] = "model"
    """Start from all of them, or from those that turn a clip into features."""
    init_vocabulary: bool = True
    """Whether a whole model brings its vocabulary; if not, one is learnt, and what has a row for each token is new."""

    @model_validator(mode="after")
    def _known_size(self) -> "ModelSettings":
        if self.size not in SIZES:
            raise ValueError(f"no size '{self.size}'; there are {', '.join(SIZES)}")
        return self

    def resolve(self, vocab_size: int | None = None) -> ModelConfig:
        """The complete configuration, with the vocabulary that the tokenizer really has."""
        settings = self.model_dump(include={"vocab_size", "dropout", "stochastic_depth", "layer_scale"})
        given = {name: value for name, value in settings.items() if value is not None}
        if vocab_size is not None:
            given["vocab_size"] = vocab_size
        return ModelConfig(**{**SIZES[self.size].model_dump(), **given})


class DataConfig(FrozenModel):
    """Where the clips come from and how they fill a step."""

    corpus: str
    """Folder that `seehear prepare` or `seehear synthesize` made."""
    labelled: tuple[str, ...] = ("labelled",)
    """Splits whose transcripts are used."""
    unlabelled: tuple[str, ...] = ("unlabelled",)
    """Splits whose transcripts are never read."""
    valid: str | None = "valid"
    labelled_frames: int = Field(600, gt=0)
    """Video frames of the labelled part of a step, padding counted."""
    unlabelled_frames: int = Field(4400, gt=0)
    """Video frames of the unlabelled part of a step, padding counted."""
    max_frames: int = Field(600, gt=0)
    """Longer clips are left out of training, and counted."""
    workers: int = Field(2, ge=0)
    """Processes that read and augment clips, for each of the two streams."""
    cache_mb: int = Field(0, ge=0)
    """Decoded clips that each of these processes may keep in memory, in megabytes: for small corpora."""


class AugmentConfig(FrozenModel):
    """What the student sees (METHOD §6); the teacher sees the same clip unmasked."""

    flip_probability: float = Field(0.5, ge=0.0, le=1.0)
    video_mask_every: float = 1.0
    """Seconds per masked span of video."""
    video_mask_longest: float = 0.4
    """Longest masked span of video in seconds."""
    audio_mask_every: float = 2.0
    audio_mask_longest: float = 0.6
    noise_probability: float = Field(0.0, ge=0.0, le=1.0)
    """Share of clips whose sound reaches the student mixed with other clips of the batch (ours, not the paper's)."""
    noise_snr_db: tuple[float, float] = (-5.0, 15.0)
    speed: float = Field(0.0, ge=0.0, lt=0.5)
    """Random change of speed of both streams, as a share; the pitch follows (ours)."""
    gain_db: float = 0.0
    """Random change of loudness, up to so many decibels either way (ours)."""
    contrast: float = 0.0
    """Random change of contrast and brightness, as a share (ours)."""
    silence_probability: float = Field(0.0, ge=0.0, le=1.0)
    """Share of labelled clips in whose place a still mouth, faint noise and no words are shown, so that the model
    learns to say nothing (ours)."""
    join_probability: float = Field(0.0, ge=0.0, lt=1.0)
    """How often a labelled clip stands in a passage, and how often another of its speaker follows it there, and one
    more, as `data.max_frames` allow: windows of long recordings hold pauses and several sentences (ours)."""
    join_pause: float = Field(1.0, ge=0.0)
    """Longest pause in a passage, in seconds: before it, between its clips, after it."""


USR_SETTINGS = {"ar_probability": 1.0, "ctc_targets": "frames", "ctc_attention_weight": 0.0, "teacher_momentum": 0.999}
"""USR among the settings of USR 2.0: labels always decoded token by token, and each head taught by its own branch."""


class ObjectiveConfig(FrozenModel):
    """What is optimised (METHOD §2–§5)."""

    kind: Literal["supervised", "usr", "usr2"] = "usr2"
    """`usr` is the predecessor: `USR_SETTINGS` where the recipe does not say otherwise."""
    ctc_weight: float = Field(0.1, ge=0.0, le=1.0)
    """λ: the share of CTC in the loss; attention has the rest."""
    label_smoothing: float = Field(0.1, ge=0.0, lt=1.0)
    """Of the attention loss only."""
    modality_weights: PerModality = PerModality(v=0.3, a=0.7, av=0.7)
    gamma: PerModality = PerModality(v=0.97, a=0.75, av=0.75)
    """γ: the share of the unlabelled loss in each modality."""
    supervised_steps: int = Field(0, ge=0)
    """Steps at the start that use the labelled part alone (γ = 0); they count in every budget."""
    gamma_rise_steps: int = Field(0, ge=0)
    """Steps over which γ then rises linearly from 0."""
    ar_probability: float = Field(0.5, ge=0.0, le=1.0)
    """Mixed sampling: how often a step uses autoregressive labels in place of CTC-driven ones."""
    ar_schedule: Literal["constant", "linear", "cosine"] = "constant"
    """`linear` and `cosine` raise the probability from 0 to 1 over the run."""
    ctc_targets: Literal["collapsed", "frames"] = "collapsed"
    """What the CTC head learns of the teacher's CTC labels: the collapsed sequence, by the CTC loss, or (USR) each
    frame's token, by cross-entropy."""
    attention_target_weight: float = Field(0.5, ge=0.0, le=1.0)
    """w: in CTC-driven steps, the weight of the attention labels on the decoder; CTC labels have the rest."""
    ctc_driven_ctc_attention_weight: float = Field(0.0, ge=0.0, le=1.0)
    """In CTC-driven steps, the weight of the attention labels on the CTC head (the paper's Table 4 tries it)."""
    ctc_attention_weight: float = Field(0.5, ge=0.0, le=1.0)
    """v: in autoregressive steps, the weight of the attention labels on the CTC head; CTC labels have the rest."""
    ctc_threshold: PerModality = PerModality.same(0.8)
    """Least confidence of the CTC labels on the CTC head: of a sequence, or of a frame."""
    decoder_ctc_threshold: PerModality | None = None
    """Least confidence of the CTC labels (a sequence) on the decoder; by default as on the CTC head."""
    attention_threshold: PerModality = PerModality.same(0.8)
    """Least confidence of the attention labels on the decoder."""
    ctc_attention_threshold: PerModality | None = None
    """Least confidence of the attention labels (a sequence) on the CTC head; by default as on the decoder."""
    attention_filter: Literal["token", "sequence"] = "token"
    """Whether the decoder trusts attention labels one by one or as a sequence."""
    pseudo_label_heads: Literal["separate", "shared"] = "separate"
    """Whether pseudo-labels train output layers of their own, discarded after training."""
    teacher_momentum: float = Field(0.998, ge=0.0, le=1.0)
    """τ₀: the teacher's momentum at the start; it rises to 1 on a cosine."""
    teacher_batchnorm: Literal["batch", "ema"] = "batch"
    """Whether the teacher normalises by the batch or by averages of the student's running statistics."""
    max_label_ratio: float = Field(0.2, gt=0.0, le=1.0)
    """Longest autoregressive label, in tokens per video frame (⌊T/5⌋ in USR's code)."""
    blank_penalty: float = Field(0.0, ge=0.0)
    """Taken off the blank's logit where the teacher labels by CTC (ours, not the paper's). CTC that is unsure between
    many words says none; a student that learns from it leaves out more."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """What makes USR of USR 2.0; a modality that a table leaves out keeps its default."""
        if not isinstance(values, Mapping):
            return values
        if values.get("kind") == "usr":
            values = {**USR_SETTINGS, **values}
        tables = {name: field for name, field in cls.model_fields.items() if field.annotation is PerModality}
        partial = {name: values[name] for name in tables if isinstance(values.get(name), Mapping)}
        return {**values, **{name: {**tables[name].default.model_dump(), **given} for name, given in partial.items()}}


class OptimiserConfig(FrozenModel):
    """AdamW with linear warm-up, cosine decay and clipping (METHOD §6)."""

    peak_lr: float = Field(3e-3, gt=0.0)
    final_lr: float = Field(1e-6, ge=0.0)
    """Floor of the cosine (the sources say only that it is small)."""
    warmup: float = Field(0.3, ge=0.0, le=1.0)
    """Share of the steps in which the rate rises linearly (15 of 50 epochs in the paper)."""
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = Field(0.04, ge=0.0)
    """On every parameter, as in USR's code."""
    clip_norm: float = Field(3.0, gt=0.0)
    frozen: tuple[str, ...] = ()
    """Parts of the model that do not learn, running statistics included: a module such as "video_frontend", "encoder"
    or "encoder.layers.0"."""
    rates: dict[str, float] = Field(default_factory=dict)
    """Factors of the learning rate of such parts: { encoder = 0.1 }."""


class RunConfig(FrozenModel):
    """How long, how precise, and what is written."""

    steps: int | None = Field(None, gt=0)
    """Optimiser steps; give this or `epochs`."""
    epochs: float | None = Field(None, gt=0)
    """Passes over the unlabelled clips, or over the labelled ones where there are no others."""
    accumulate: int = Field(1, gt=0)
    """Batches per optimiser step."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With several processes (torchrun): a whole model on each, or its blocks cut over them (large and huge)."""
    batchnorm: Literal["local", "synced"] = "local"
    """Whether each process normalises by its own batch or all by theirs together."""
    recompute: bool = False
    """Keep only what enters each encoder and decoder block and compute the rest again for the gradient: less memory,
    more time."""
    compile: bool = False
    """Let torch.compile write the kernels of the encoder and decoder blocks; it takes minutes to, and needs a C++
    compiler. For GPUs: on a CPU blocks are slower so (RESULTS.md)."""
    time_limit: float = Field(1800.0, gt=0.0)
    """Seconds that a process waits for the others before it gives up."""
    precision: Literal["auto", "float32", "bf16"] = "auto"
    """Numbers that the models compute with. `auto`: bf16 where the device multiplies it, else float32; the choice is
    stored with the run, which goes on in no other."""
    seed: int = 42
    log_every: int = Field(1, gt=0)
    """Steps per printed line; every step is in metrics.jsonl."""
    checkpoint_every: int = Field(500, gt=0)
    keep: int = Field(2, gt=0)
    """How many checkpoints are kept."""
    validate_every: int = Field(0, ge=0)
    """Steps between validations; 0 for only the last step."""
    validate_with: tuple[Literal["ctc", "attention"], ...] = Field(("ctc", "attention"), min_length=1)
    """Greedy decoders of a validation. CTC learns later, and on few clips it generalises further (RESULTS.md)."""

    watch_labels: int = Field(50, ge=0)
    """Unlabelled clips of which a validation records the teacher's labels, with their error rates where the corpus
    knows what is said in them."""

    @model_validator(mode="after")
    def _one_length(self) -> "RunConfig":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either run.steps or run.epochs")
        return self


class Recipe(FrozenModel):
    """Everything that fixes a run."""

    about: str = ""
    licence: str = "unknown"
    """Of the trained weights, as the Hugging Face hub names licences: it depends on the recordings."""
    model: ModelSettings = ModelSettings()
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    run: RunConfig

    def to_toml(self) -> str:
        """The resolved recipe as TOML, which `load_recipe` reads back."""
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with seehear; those of a folder begin with its name, "ablations/ar"."""
    folder = _folder()
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.toml"))


def shipped_recipe(name: str | Path) -> Path:
    """Where the recipe of that name lies, if it ships with seehear."""
    return _folder() / f"{name}.toml"


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe at path `source`, or the shipped one of that name; `overrides` are `section.key=value`.

    Raises `ConfigError` that names every fault: unknown keys with a suggestion, wrong types, values out of range.
    """
    values = _read(source)
    for override in overrides:
        _override(values, override)
    return parse_recipe(values, name=str(source))


def parse_recipe(values: Mapping[str, Any], name: str = "the recipe") -> Recipe:
    """Check `values` (nested tables) and return the recipe; all faults in one `ConfigError`."""
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        faults = "; ".join(_describe(detail) for detail in error.errors(include_url=False))
        raise ConfigError(f"{name}: {faults}") from error


def _folder() -> Path:
    return Path(str(resources.files("seehear"))) / "recipes"


def _listed() -> str:
    """The shipped recipes in one line, a folder by its name."""
    names = shipped_recipes()
    folders = sorted({name.split("/")[0] + "/…" for name in names if "/" in name})
    return ", ".join([name for name in names if "/" not in name] + folders)


def _read(source: str | Path, beside: Path | None = None, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tables of a recipe, laid over those of the recipe that it `extends`: a shipped name, or a file beside it."""
    path, shipped = (beside or Path()) / source, shipped_recipe(source)
    if str(source) in above:
        raise ConfigError(f"the recipes {' and '.join(above)} extend each other")
    file = path if path.is_file() else shipped
    if not file.is_file():
        raise ConfigError(f"no recipe '{source}': give a TOML file or one of {_listed()}")
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{source} is not valid TOML: {error}") from error
    parent = values.pop("extends", None)
    return values if parent is None else _merged(_read(parent, path.parent, (*above, str(source))), values)


def _merged(values: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`values` with those of `over` in their place; tables key by key."""
    result = dict(values)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = _merged(result[key], value) if both else value
    return result


def _override(values: dict[str, Any], assignment: str) -> None:
    """Set `section.key=value` in `values`; the value is TOML, or plain text where it is not."""
    key, equals, text = assignment.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set takes key=value, such as optimiser.peak_lr=1e-3, not '{assignment}'")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, last = key.strip().split(".")
    for table in tables:
        values = values.setdefault(table, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {assignment}: '{table}' is a value, not a section")
    values[last] = value


def _describe(detail: Any) -> str:
    """One fault that pydantic found, in words."""
    location = [str(part) for part in detail["loc"]]
    key = ".".join(location)
    if detail["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, _keys(Recipe), n=1, cutoff=0.5) or difflib.get_close_matches(
            location[-1], [known.rsplit(".", 1)[-1] for known in _keys(Recipe)], n=1
        )
        return f"no option '{key}'" + (f"; did you mean '{close[0]}'?" if close else "")
    if detail["type"] == "missing":
        return f"'{key}' must be given"
    message = str(detail["msg"]).removeprefix("Value error, ")
    return f"'{key}': {message}" if key else message


def _keys(record: type[FrozenModel], prefix: str = "") -> list[str]:
    """Every dotted key of a record."""
    keys: list[str] = []
    for name, field in record.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, FrozenModel):
            keys += _keys(nested, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys
