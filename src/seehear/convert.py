"""Published USR and USR 2.0 checkpoints to models of ours and back: one table of names, strict in both directions.

What is accepted is the fine-tuned layout, which the authors publish for inference: frontends, encoder, three CTC heads,
decoder with three output layers; as it is, behind any of `PREFIXES`, or under the key "state_dict". A checkpoint with
anything more (layers for pseudo-labels, predictors, a teacher) or less is refused, and the error names it.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from seehear.config import AudioFrontendConfig, ModelConfig, VideoFrontendConfig
from seehear.errors import ModelError
from seehear.modality import Modality
from seehear.model.usr import USR

PREFIXES = ("model.", "backbone.", "_orig_mod.")
"""What training code puts before or between the parts of every name; any of these are dropped, in any order."""

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


def our_name(published: str) -> str | None:
    """Our name of a published parameter (its prefixes dropped), or None if the layout has no such name."""
    return _rename(published, TABLE.items())


def published_name(ours: str) -> str | None:
    """The published name of a parameter of ours, or None if the published layout has none."""
    return _rename(ours, ((ours, theirs) for theirs, ours in TABLE.items()))


def to_ours(
    published: Mapping[str, Tensor], config: ModelConfig | None = None
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The configuration (read off the shapes unless given) and the state dict of a published one.

    Raises `ModelError` that names missing, extra and misshapen parameters.
    """
    plain = {_without_prefixes(name): value for name, value in published.items()}
    if len(plain) < len(published):
        raise ModelError("the checkpoint holds a parameter twice, with and without a prefix; keep one of the two")
    config = config or config_from_shapes({name: tuple(value.shape) for name, value in plain.items()})
    with torch.device("meta"):
        expected = USR(config).state_dict()
    renamed = {our_name(name) or name: value for name, value in plain.items()}
    _check(renamed, expected)
    return config, {name: renamed[name] for name in expected}


def to_published(model: USR) -> dict[str, Tensor]:
    """The state dict of a model under the published names; raises `ModelError` if its frontends are not published."""
    if model.config.video != VideoFrontendConfig() or model.config.audio != AudioFrontendConfig():
        raise ModelError("this model has frontends of its own; only models with the published ones can be turned back")
    return {str(published_name(name)): value for name, value in model.state_dict().items()}


def config_from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> ModelConfig:
    """Widths, heads and numbers of layers, from the shapes of a published checkpoint without prefixes.

    The decoder's number of heads leaves no trace in the shapes: it is taken to have heads as wide as the encoder's, as
    in every published model.
    """

    def shape(name: str) -> tuple[int, ...]:
        if name not in shapes:
            raise ModelError(f"this is no published USR checkpoint: it has no '{name}'")
        return shapes[name]

    def layers(beginning: str) -> int:
        return len({name.removeprefix(beginning).split(".")[0] for name in shapes if name.startswith(beginning)})

    heads, head_dim = shape("encoder.encoders.0.self_attn.pos_bias_u")
    vocab_size, decoder_dim = shape("decoder.embed.0.weight")
    if decoder_dim % head_dim:
        raise ModelError(f"a decoder of width {decoder_dim} has no heads of width {head_dim}, as the encoder has")
    return ModelConfig(
        dim=heads * head_dim,
        num_heads=heads,
        ffn_dim=shape("encoder.encoders.0.feed_forward.w_1.weight")[0],
        num_encoder_layers=layers("encoder.encoders."),
        decoder_dim=decoder_dim,
        decoder_num_heads=decoder_dim // head_dim,
        decoder_ffn_dim=shape("decoder.decoders.0.feed_forward.w_1.weight")[0],
        num_decoder_layers=layers("decoder.decoders."),
        vocab_size=vocab_size,
    )


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The tensors of a published checkpoint file. Nothing in the file is executed.

    Raises `ModelError` for a file that is missing, damaged, or anything but names and tensors.
    """
    if not path.is_file():
        raise ModelError(f"there is no checkpoint {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        raise ModelError(
            f"{path} is refused: it is damaged, or holds code beside its tensors, which could do anything on this "
            f"machine ({type(error).__name__}); ask whoever made it for a file of tensors alone"
        ) from error
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{path} does not hold parameters by name, alone or under 'state_dict'")
    return dict(content)


def _rename(name: str, table: Iterable[tuple[str, str]]) -> str | None:
    """The name by the first row of `table` that fits it."""
    for pattern, replacement in table:
        expression = re.escape(pattern).replace(r"\#", r"(\d+)").replace(r"\*", r"(\w+)")
        if match := re.fullmatch(expression, name):
            groups = iter(match.groups())
            return re.sub(r"[#*]", lambda _: next(groups), replacement)  # noqa: B023 -- used before the next turn
    return None


def _without_prefixes(name: str) -> str:
    while prefix := next(filter(name.startswith, PREFIXES), None):
        name = name.removeprefix(prefix)
    return name


def _check(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raise unless `state` has exactly the names and shapes of `expected`; errors speak the published names."""
    faults: list[str] = []
    if missing := [published_name(name) or name for name in expected if name not in state]:
        faults.append(f"misses {_listed(missing)}")
    if extra := [published_name(name) or name for name in state if name not in expected]:
        faults.append(f"has {_listed(extra)}, which a model for inference has not")
    for name in expected:
        if name in state and state[name].shape != expected[name].shape:
            is_, should = list(state[name].shape), list(expected[name].shape)
            faults.append(f"has {published_name(name)} of shape {is_} instead of {should}")
    if faults:
        raise ModelError(f"the checkpoint {_listed(faults, '; it ')}")


def _listed(names: list[str], separator: str = ", ") -> str:
    """Up to six names, and how many more there are."""
    more = f"{separator}{len(names) - 6} more" if len(names) > 6 else ""
    return separator.join(names[:6]) + more
