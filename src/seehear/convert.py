"""Published USR and USR 2.0 checkpoints to models of ours and back: one table of names, strict in both directions.

A published file holds more than one model, by name (behind `WRAPPERS`; as it is, or under the key "state_dict"):

- fine-tuned: the student (`backbone.`), its moving average (`target_backbone.`), output layers for pseudo-labels and a
  layer normalization; for inference alone, only the student;
- self-supervised: an encoder (`backbone.encoder.`), heads and decoder that only watch it (probes), a predictor, and the
  moving average of the encoder (`target_backbone.`, without `encoder.`).

Student or moving average becomes a model, or an encoder alone; the others are named and left out. A file is refused if
it has a name that is none of these, or lacks one that belongs to what is taken; the error names it.
"""

import errno
import math
import re
import shlex
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor

from seehear.config import AudioFrontendConfig, EncoderConfig, ModelConfig, VideoFrontendConfig
from seehear.errors import ModelError
from seehear.memory_errors import ran_out
from seehear.modality import Modality
from seehear.model.usr import USR, SpeechEncoder
from seehear.model.weights import WithoutStartValues

WRAPPERS = ("model", "backbone", "module", "_orig_mod")
"""Parts that training code puts into names; they are dropped, in any order and number."""
AVERAGE = "target_backbone."
"""How the names of the moving average begin."""
KEYS = ("state_dict", "model")
"""Under which of them training code stores parameters."""
KEEP_TENSORS = (
    'import sys, torch; c = torch.load(sys.argv[1], "cpu", weights_only=False); '
    'c = c.get("state_dict", c.get("model", c)) if isinstance(c, dict) else c; '
    'c = getattr(c, "state_dict", c); c = c() if callable(c) else c; '
    "torch.save({k: v for k, v in c.items() if torch.is_tensor(v)}, sys.argv[2])"
)
"""A program that keeps the parameters of a checkpoint: of a dictionary, a module, or an object with either."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
"""Last parts of names that are no parameters."""


class Group(StrEnum):
    """What parameters of a published file are."""

    STUDENT = "student"
    TEACHER = "moving average of the student (teacher)"
    ENCODER = "encoder"
    ENCODER_AVERAGE = "moving average of the encoder (teacher)"
    PROBES = "heads and decoder that watched the pre-training (probes)"
    PREDICTOR = "predictor of the pre-training"
    PSEUDO_LABELS = "output layers for pseudo-labels"
    LAYER_NORM = "layer normalization of the training"


class Size(NamedTuple):
    """How large some tensors are together."""

    parameters: int
    """Running statistics are not counted."""
    bytes: int

    def __str__(self) -> str:
        return f"{self.parameters:,} parameters, {shown_bytes(self.bytes)}" if self.bytes else "no tensors"


def shown_bytes(count: int) -> str:
    """Megabytes; kilobytes where it is less than a tenth of one."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


class Checkpoint(NamedTuple):
    """The contents of a published file."""

    parameters: dict[str, Tensor]
    """By name, prefixes included."""
    others: dict[str, Size]
    """What lies beside them, as the states of an optimizer."""
    mapped: bool
    """Whether tensors are mapped from the file: memory is needed only where they are read, and is not private."""


class Conversion(NamedTuple):
    """A model of ours, made of a published file."""

    model: SpeechEncoder
    """A `USR`, or an encoder alone; its weights are the tensors of the file, in their type, not copies."""
    taken: tuple[Group, Size]
    left_out: dict[Group, Size]


_FRONTENDS = {"frontend_v": "video_frontend", "frontend_a": "audio_frontend"}
_BLOCK = {"conv#.*": "conv#.*", "bn#.*": "norm#.*", "downsample.#.*": "shortcut.#.*"}
_ATTENTION = {"linear_q.*": "query.*", "linear_k.*": "key.*", "linear_v.*": "value.*", "linear_out.*": "output.*"}
_FEED_FORWARD = {"feed_forward.w_1.*": "ffn.expand.*", "feed_forward.w_2.*": "ffn.contract.*"}
_ENCODER_LAYER = {
    "norm_mha.*": "attention_norm.*",
    **{f"self_attn.{theirs}": f"attention.{ours}" for theirs, ours in _ATTENTION.items()},
    "self_attn.linear_pos.*": "attention.position.*",
    "self_attn.pos_bias_u": "attention.content_bias",
    "self_attn.pos_bias_v": "attention.position_bias",
    "gamma_mha": "attention_scale",
    "norm_ff.*": "ffn_norm.*",
    **_FEED_FORWARD,
    "gamma_ff": "ffn_scale",
}
_DECODER_LAYER = {
    "norm1.*": "self_norm.*",
    **{f"self_attn.{theirs}": f"self_attention.{ours}" for theirs, ours in _ATTENTION.items()},
    "norm2.*": "cross_norm.*",
    **{f"src_attn.{theirs}": f"cross_attention.{ours}" for theirs, ours in _ATTENTION.items()},
    "norm3.*": "ffn_norm.*",
    **_FEED_FORWARD,
}

TABLE: dict[str, str] = {
    "encoder.frontend_v.frontend3D.0.*": "video_frontend.stem.*",
    "encoder.frontend_v.frontend3D.1.*": "video_frontend.stem_norm.*",
    "encoder.frontend_a.trunk.conv1.*": "audio_frontend.stem.*",
    "encoder.frontend_a.trunk.bn1.*": "audio_frontend.stem_norm.*",
    **{
        f"encoder.{frontend}.trunk.layer{stage + 1}.#.{theirs}": f"{ours}.trunk.stages.{stage}.#.{block}"
        for frontend, ours in _FRONTENDS.items()
        for stage in range(4)
        for theirs, block in _BLOCK.items()
    },
    **{f"encoder.linear_{m.value}.*": f"projections.{m.value}.*" for m in Modality},
    **{f"encoder.encoders.#.{theirs}": f"encoder.layers.#.{ours}" for theirs, ours in _ENCODER_LAYER.items()},
    "encoder.after_norm.*": "encoder.norm.*",
    **{f"ctc_{m.value}.ctc_lo.*": f"ctc_heads.{m.value}.*" for m in Modality},
    "decoder.embed.0.*": "decoder.embedding.*",
    "decoder.proj_decoder.*": "decoder.source.*",
    **{f"decoder.decoders.#.{theirs}": f"decoder.layers.#.{ours}" for theirs, ours in _DECODER_LAYER.items()},
    "decoder.after_norm.*": "decoder.norm.*",
    **{f"decoder.out_layer_{m.value}.*": f"output_heads.{m.value}.*" for m in Modality},
}
"""Published name to ours; # stands for a number, * for the last part of the name."""

LEFT_OUT: dict[str, Group] = {
    **{f"out_layer_unlabelled_{kind}{m.value}.*": Group.PSEUDO_LABELS for kind in ("", "ctc_") for m in Modality},
    "layer_norm.*": Group.LAYER_NORM,
    "predictor.embed.mask_emb": Group.PREDICTOR,
    **{f"predictor.{part}.*": Group.PREDICTOR for part in ("embed.proj", "after_norm", "last_linear")},
    **{f"predictor.encoders.#.{name}": Group.PREDICTOR for name in _ENCODER_LAYER if not name.startswith("gamma")},
}
"""Published names that no model of ours has, in the same form."""


def our_name(published: str) -> str | None:
    """Our name of a published parameter (its prefixes dropped), or None if the layout has no such name."""
    return _rename(published, TABLE.items())


def published_name(ours: str) -> str | None:
    """The published name of a parameter of ours, or None if the published layout has none."""
    return _rename(ours, ((ours, theirs) for theirs, ours in TABLE.items()))


def to_ours(published: Mapping[str, Tensor], config: ModelConfig | None = None, *, teacher: bool = False) -> Conversion:
    """The student of a published checkpoint as a model of ours, or with `teacher` its moving average.

    The configuration of a whole model is read off the shapes unless it is given.
    Raises `ModelError` that names missing, unknown and misshapen parameters.
    """
    plain = _without_wrappers(published)
    encoder_alone = _is_pre_training(plain)
    groups, unknown = _sort(plain, encoder_alone)
    student, average = _trained(encoder_alone)
    wanted, other = (average, student) if teacher else (student, average)
    if wanted not in groups and other in groups:
        raise ModelError(
            f"the checkpoint does not hold the {wanted}, but the {other}: {'leave out' if teacher else 'add'} --teacher"
        )
    state = groups.pop(wanted, {})
    model = _skeleton({name: tuple(value.shape) for name, value in state.items()}, encoder_alone, config)
    expected = model.state_dict()
    renamed = {str(our_name(name)): value for name, value in state.items()}
    _check(renamed, expected, unknown, partial(_shown, teacher=teacher, encoder_alone=encoder_alone))
    counters = {name for name, value in expected.items() if not value.is_floating_point()}  # means of files have parts
    weights = {name: renamed[name].to(torch.int64) if name in counters else renamed[name] for name in expected}
    model.load_state_dict(weights, assign=True)
    return Conversion(model, (wanted, _size(state)), {group: _size(tensors) for group, tensors in groups.items()})


def check_values(conversion: Conversion) -> None:
    """Raise `ModelError` that names the parameters of a model that are not finite, in the names of its file."""
    group, alone = conversion.taken[0], not isinstance(conversion.model, USR)
    teacher = group in (Group.TEACHER, Group.ENCODER_AVERAGE)
    faulty = [
        _shown(name, teacher, alone) for name, value in conversion.model.state_dict().items() if not _is_finite(value)
    ]
    if faulty:
        raise ModelError(
            f"the checkpoint has numbers that are not finite in {_listed(faulty)}: it is damaged, get it again from "
            "where it comes from"
        )


def to_published(model: USR) -> dict[str, Tensor]:
    """The state dict of a model under the published names; raises `ModelError` if its frontends are not published."""
    if model.config.video != VideoFrontendConfig() or model.config.audio != AudioFrontendConfig():
        raise ModelError("this model has frontends of its own; only models with the published ones can be turned back")
    return {str(published_name(name)): value for name, value in model.state_dict().items()}


def encoder_from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> EncoderConfig:
    """Width, heads and number of layers of an encoder, from the shapes of a published one without prefixes."""
    heads, head_dim = _shape(shapes, "encoder.encoders.0.self_attn.pos_bias_u")
    return EncoderConfig(
        dim=heads * head_dim,
        num_heads=heads,
        ffn_dim=_shape(shapes, "encoder.encoders.0.feed_forward.w_1.weight")[0],
        num_encoder_layers=_count_layers(shapes, "encoder.encoders."),
    )


def config_from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> ModelConfig:
    """Widths, heads and numbers of layers, from the shapes of a published checkpoint without prefixes.

    The decoder's number of heads leaves no trace in the shapes: it is taken to have heads as wide as the encoder's, as
    in every published model.
    """
    encoder = encoder_from_shapes(shapes)
    head_dim = encoder.dim // encoder.num_heads
    vocab_size, decoder_dim = _shape(shapes, "decoder.embed.0.weight")
    if decoder_dim % head_dim:
        raise ModelError(f"a decoder of width {decoder_dim} has no heads of width {head_dim}, as the encoder has")
    return ModelConfig(
        **encoder.model_dump(),
        decoder_dim=decoder_dim,
        decoder_num_heads=decoder_dim // head_dim,
        decoder_ffn_dim=_shape(shapes, "decoder.decoders.0.feed_forward.w_1.weight")[0],
        num_decoder_layers=_count_layers(shapes, "decoder.decoders."),
        vocab_size=vocab_size,
    )


def read_checkpoint(path: Path) -> Checkpoint:
    """The tensors of a published checkpoint file. Nothing in the file is executed.

    Raises `ModelError` for a file that is missing, damaged, anything but names and tensors, or cannot be read.
    """
    if path.is_dir():
        raise ModelError(f"{path} is a folder: give the checkpoint file")
    if not path.is_file():
        raise ModelError(f"there is no checkpoint {path}")
    others: dict[str, Size] = {}
    try:
        content, mapped = _load(path)
        key = _key_of_parameters(content)
        if key is not None:
            others = {str(name): _size(dict(_tensors(part))) for name, part in content.items() if name != key}
            content = content[key]
    except ModelError:
        raise
    except Exception as error:  # torch raises many kinds; others may be nested without end
        if ran_out(error):
            raise ModelError(f"memory does not suffice to read {path}") from error
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # of a seek in a file that was cut short
            raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
        raise ModelError(f"{path} is refused: {_why_refused(path, error)}") from error
    if not _holds_tensors(content):
        raise ModelError(f"{path} does not hold parameters by name, alone or under {' or '.join(map(repr, KEYS))}")
    return Checkpoint({str(name): value for name, value in content.items()}, others, mapped)


def _load(path: Path) -> tuple[Any, bool]:
    """What a file holds, and whether it is mapped."""
    if path.suffix == ".safetensors":
        return load_file(path), True
    records = _zip_records(path)
    if any(Path(record.filename).name == "constants.pkl" for record in records):
        raise ModelError(f"{path} is refused: it is a TorchScript archive, a program; get the weights alone")
    # Tensors lie in the file as they are in memory if it is a zip archive, uncompressed.
    mapped = bool(records) and all(record.compress_type == zipfile.ZIP_STORED for record in records)
    return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped), mapped


def _zip_records(path: Path) -> list[zipfile.ZipInfo]:
    """The records of a zip archive; none if it is no such file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except zipfile.BadZipFile:
        return []


def _key_of_parameters(content: object) -> str | None:
    """Under which of `KEYS` the parameters are; None if they are not behind a key."""
    if not isinstance(content, Mapping) or _holds_tensors(content):
        return None
    return next((key for key in KEYS if isinstance(content.get(key), Mapping)), None)


def _holds_tensors(content: object) -> bool:
    """Whether it holds tensors by name and nothing else."""
    return isinstance(content, Mapping) and all(map(_is_plain, content.values()))


def _why_refused(path: Path, error: Exception) -> str:
    """What is wrong with a file that `torch.load` does not read, and what to do."""
    if blocked := re.search(r"unsupported GLOBAL (\S+) whose module \S+ is blocked", str(error)):
        return f"it would run {blocked[1]} on this machine; do not use it"
    code = re.search(r"Unsupported (?:global|class)\S* (?:GLOBAL )?([\w.]+)", str(error))
    if code is None:
        return f"it is damaged, or no checkpoint ({type(error).__name__}); get it again from where it comes from"
    kept = path.with_name(f"{path.stem}-weights.pth")
    return (
        f"it holds code beside its tensors ({code[1]}), which could do anything on this machine; if you trust it, keep "
        f"the tensors alone, in an environment that may run it, and convert {kept.name}: "
        f"{shlex.join(('python', '-c', KEEP_TENSORS, str(path), str(kept)))}"
    )


def _is_plain(value: object) -> bool:
    """Whether it is a tensor of numbers in a row."""
    return isinstance(value, Tensor) and value.device.type == "cpu" and value.layout == torch.strided


def _is_finite(value: Tensor) -> bool:
    """Whether no number is NaN or infinite; nothing as large as the tensor is held in memory for it."""
    if not value.is_floating_point() or not value.numel():
        return True
    return all(math.isfinite(extreme.item()) for extreme in torch.aminmax(value))  # NaN is an extreme, if there is one


def _tensors(content: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested mappings and sequences, each under a name of its own."""
    if isinstance(content, Tensor):
        yield name, content
    elif isinstance(content, Mapping | list | tuple):
        for key, part in content.items() if isinstance(content, Mapping) else enumerate(content):
            yield from _tensors(part, f"{name}.{key}")


def _size(tensors: Mapping[str, Tensor]) -> Size:
    counted = (value.numel() for name, value in tensors.items() if name.rpartition(".")[2] not in STATISTICS)
    return Size(sum(counted), sum(value.numel() * value.itemsize for value in tensors.values()))


def _without_wrappers(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters by their names without `WRAPPERS`; raises `ModelError` if two have the same one."""
    plain: dict[str, Tensor] = {}
    for name, value in published.items():
        short = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if short in plain:
            raise ModelError(f"the checkpoint holds {short} twice, behind different prefixes; keep one of the two")
        plain[short] = value
    return plain


def _is_pre_training(names: Iterable[str]) -> bool:
    """Whether a checkpoint is of self-supervised pre-training, or has nothing that could write text."""
    writes = tuple(f"{prefix}{part}" for prefix in ("", AVERAGE) for part in ("ctc_", "decoder."))
    return any(name.startswith(("predictor.", f"{AVERAGE}encoders.")) for name in names) or not any(
        name.startswith(writes) for name in names
    )


def _sort(plain: Mapping[str, Tensor], pre_training: bool) -> tuple[dict[Group, dict[str, Tensor]], list[str]]:
    """Parameters by what they are, under the names that a student has; and names that no published checkpoint has."""
    groups: dict[Group, dict[str, Tensor]] = {}
    unknown = []
    for name, value in plain.items():
        group, own = _place(name, pre_training)
        if group is None:
            unknown.append(name)
        else:
            groups.setdefault(group, {})[own] = value
    return groups, unknown


def _trained(pre_training: bool) -> tuple[Group, Group]:
    """What a checkpoint is of, and its moving average."""
    return (Group.ENCODER, Group.ENCODER_AVERAGE) if pre_training else (Group.STUDENT, Group.TEACHER)


def _place(name: str, pre_training: bool) -> tuple[Group | None, str]:
    """What a parameter is, None if unknown, and its name in a student."""
    student, average = _trained(pre_training)
    group, own = student, name
    if name.startswith(AVERAGE):
        group, own = average, ("encoder." if pre_training else "") + name.removeprefix(AVERAGE)
    elif pre_training and not name.startswith("encoder."):
        group = Group.PROBES
    if our_name(own):
        return group, own
    other = next((left_out for pattern, left_out in LEFT_OUT.items() if _compiled(pattern).fullmatch(name)), None)
    return (Group.PROBES if pre_training and other is Group.PSEUDO_LABELS else other), name


def _skeleton(shapes: Mapping[str, tuple[int, ...]], encoder_alone: bool, config: ModelConfig | None) -> SpeechEncoder:
    """A network of these shapes, without values."""
    try:
        with WithoutStartValues():
            if encoder_alone:
                return SpeechEncoder(encoder_from_shapes(shapes))
            return USR(config or config_from_shapes(shapes))
    except (RuntimeError, MemoryError, ZeroDivisionError) as error:
        if ran_out(error):
            raise ModelError("memory does not suffice for a model with the shapes of the checkpoint") from error
        raise ModelError(f"no model can have the shapes of the checkpoint ({type(error).__name__})") from error


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str) -> tuple[int, int]:
    """The shape of a matrix."""
    if name not in shapes:
        raise ModelError(f"this is no published USR checkpoint: it has no '{name}'")
    if len(shapes[name]) != 2:
        raise ModelError(f"this is no published USR checkpoint: its '{name}' is no matrix")
    rows, columns = shapes[name]
    return rows, columns


def _count_layers(names: Iterable[str], beginning: str) -> int:
    return len({name.removeprefix(beginning).split(".")[0] for name in names if name.startswith(beginning)})


def _rename(name: str, table: Iterable[tuple[str, str]]) -> str | None:
    """The name by the first row of `table` that fits it."""
    for pattern, replacement in table:
        if match := _compiled(pattern).fullmatch(name):
            groups = iter(match.groups())
            return re.sub(r"[#*]", lambda _: next(groups), replacement)  # noqa: B023 -- used before the next turn
    return None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(re.escape(pattern).replace(r"\#", r"(\d+)").replace(r"\*", r"(\w+)"))


def _shown(ours: str, teacher: bool, encoder_alone: bool) -> str:
    """The name that a parameter of ours has in a published checkpoint."""
    name = published_name(ours) or ours
    if not teacher:
        return name
    return AVERAGE + (name.removeprefix("encoder.") if encoder_alone else name)


def _check(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], unknown: list[str], shown: Callable[[str], str]
) -> None:
    """Raise unless `state` has exactly the names and shapes of `expected`, numbers in them, and nothing is unknown.

    Errors speak the published names, which `shown` makes of ours.
    """
    faults: list[str] = []
    if missing := [shown(name) for name in expected if name not in state]:
        faults.append(f"misses {_listed(missing)}")
    if extra := unknown + [shown(name) for name in state if name not in expected]:
        faults.append(f"has {_listed(extra)}, which belongs to no published model of this size")
    for name in expected:
        if name not in state:
            continue
        is_, should = state[name], expected[name]
        if is_.shape != should.shape:
            faults.append(f"has {shown(name)} of shape {list(is_.shape)} instead of {list(should.shape)}")
        elif should.is_floating_point() and not is_.is_floating_point():
            faults.append(f"has {shown(name)} of type {is_.dtype} instead of {should.dtype}")
    if faults:
        raise ModelError(f"the checkpoint {_listed(faults, '; it ')}")


def _listed(names: list[str], separator: str = ", ") -> str:
    """Up to six names, and how many more there are."""
    more = f"{separator}{len(names) - 6} more" if len(names) > 6 else ""
    return separator.join(names[:6]) + more
