"""Parameter names of the published USR and USR 2.0 checkpoints ↔ ours: one table, strict in both directions.

The layout is that of the fine-tuned models, which the authors publish for inference: encoder with frontends, three CTC
heads, decoder. Heads and predictors that exist only in training are not part of it and are refused by name.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from seehear.config import ModelConfig
from seehear.errors import ModelError
from seehear.model.usr import USR

PREFIXES = ("model.", "backbone.", "_orig_mod.")
"""What training code may have put before every name: `model.backbone.`, `_orig_mod.`, or both."""

TABLE: tuple[tuple[str, str], ...] = (
    # published                            ours; {n} is a number, {m} a modality, {rest} what follows
    ("encoder.frontend_v.frontend3D.0.", "video_frontend.stem."),
    ("encoder.frontend_v.frontend3D.1.", "video_frontend.stem_norm."),
    ("encoder.frontend_v.trunk.layer", "video_frontend.trunk."),
    ("encoder.frontend_a.trunk.conv1.", "audio_frontend.stem."),
    ("encoder.frontend_a.trunk.bn1.", "audio_frontend.stem_norm."),
    ("encoder.frontend_a.trunk.layer", "audio_frontend.trunk."),
    ("encoder.linear_v.", "projections.v."),
    ("encoder.linear_a.", "projections.a."),
    ("encoder.linear_av.", "projections.av."),
    ("encoder.encoders.", "encoder.blocks."),
    ("encoder.after_norm.", "encoder.norm."),
    ("ctc_v.ctc_lo.", "ctc_heads.v."),
    ("ctc_a.ctc_lo.", "ctc_heads.a."),
    ("ctc_av.ctc_lo.", "ctc_heads.av."),
    ("decoder.embed.0.", "decoder.embedding."),
    ("decoder.proj_decoder.", "decoder.features."),
    ("decoder.decoders.", "decoder.blocks."),
    ("decoder.after_norm.", "decoder.norm."),
    ("decoder.out_layer_v.", "output_heads.v."),
    ("decoder.out_layer_a.", "output_heads.a."),
    ("decoder.out_layer_av.", "output_heads.av."),
)
"""Beginnings of names."""

BLOCK_TABLE: dict[str, tuple[tuple[str, str], ...]] = {
    "encoder.blocks.": (
        ("gamma_mha", "attention_scale"),
        ("gamma_ff", "ffn_scale"),
        ("norm_mha.", "attention_norm."),
        ("norm_ff.", "ffn_norm."),
        ("self_attn.pos_bias_u", "attention.content_bias"),
        ("self_attn.pos_bias_v", "attention.position_bias"),
        ("self_attn.linear_q.", "attention.query."),
        ("self_attn.linear_k.", "attention.key."),
        ("self_attn.linear_v.", "attention.value."),
        ("self_attn.linear_pos.", "attention.position."),
        ("self_attn.linear_out.", "attention.out."),
        ("feed_forward.w_1.", "ffn.expand."),
        ("feed_forward.w_2.", "ffn.contract."),
    ),
    "decoder.blocks.": (
        ("norm1.", "self_norm."),
        ("norm2.", "cross_norm."),
        ("norm3.", "ffn_norm."),
        ("self_attn.linear_q.", "self_attention.query."),
        ("self_attn.linear_k.", "self_attention.key."),
        ("self_attn.linear_v.", "self_attention.value."),
        ("self_attn.linear_out.", "self_attention.out."),
        ("src_attn.linear_q.", "cross_attention.query."),
        ("src_attn.linear_k.", "cross_attention.key."),
        ("src_attn.linear_v.", "cross_attention.value."),
        ("src_attn.linear_out.", "cross_attention.out."),
        ("feed_forward.w_1.", "ffn.expand."),
        ("feed_forward.w_2.", "ffn.contract."),
    ),
    "video_frontend.trunk.": (
        ("bn1.", "norm1."),
        ("bn2.", "norm2."),
        ("downsample.", "shortcut."),
        ("conv1.", "conv1."),
        ("conv2.", "conv2."),
    ),
}
"""What follows the block's number, by what our name begins with."""
BLOCK_TABLE["audio_frontend.trunk."] = BLOCK_TABLE["video_frontend.trunk."]

BLOCKS_PER_STAGE = 2
"""Residual blocks of a stage in the published trunks; theirs are numbered stage.block, ours through."""


def our_name(published: str) -> str | None:
    """Our name of a published parameter (prefixes stripped), or None if the layout has no such name."""
    for theirs, ours in TABLE:
        if published.startswith(theirs):
            rest = published.removeprefix(theirs)
            if ours not in BLOCK_TABLE:
                return ours + rest
            return _our_block_name(ours, rest)
    return None


def published_name(ours: str) -> str:
    """The published name of a parameter of ours; raises `KeyError` for what the published layout lacks."""
    for theirs, beginning in TABLE:
        if ours.startswith(beginning):
            rest = ours.removeprefix(beginning)
            if beginning not in BLOCK_TABLE:
                return theirs + rest
            number, _, inner = rest.partition(".")
            for their_part, our_part in BLOCK_TABLE[beginning]:
                if inner.startswith(our_part):
                    block = int(number)
                    stage = f"{block // BLOCKS_PER_STAGE + 1}.{block % BLOCKS_PER_STAGE}"
                    place = stage if "trunk" in beginning else number
                    return f"{theirs}{place}.{their_part}{inner.removeprefix(our_part)}"
    raise KeyError(ours)


def _our_block_name(beginning: str, rest: str) -> str | None:
    """Our name of `rest`, a parameter inside a numbered block."""
    pattern = r"(\d+)\.(\d+)\.(.*)" if "trunk" in beginning else r"(\d+)()\.(.*)"
    match = re.fullmatch(pattern, rest)
    if match is None:
        return None
    number = (int(match[1]) - 1) * BLOCKS_PER_STAGE + int(match[2]) if match[2] else int(match[1])
    for their_part, our_part in BLOCK_TABLE[beginning]:
        if match[3].startswith(their_part):
            return f"{beginning}{number}.{our_part}{match[3].removeprefix(their_part)}"
    return None


def strip_prefixes(name: str) -> str:
    """The name without what training code put before it."""
    while prefix := next((prefix for prefix in PREFIXES if name.startswith(prefix)), None):
        name = name.removeprefix(prefix)
    return name


def to_ours(published: Mapping[str, Tensor]) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The configuration, read off the shapes, and the parameters under our names.

    Raises `ModelError` that names every missing, extra or misshapen key.
    """
    stripped = {strip_prefixes(name): value for name, value in published.items()}
    if len(stripped) < len(published):
        raise ModelError("the checkpoint holds the same parameter twice, with and without a prefix")
    config = infer_config(stripped)
    named = {our_name(name): (name, value) for name, value in stripped.items()}
    extra = [name for name in stripped if our_name(name) is None]
    with torch.device("meta"):
        expected = USR(config).state_dict()
    extra += [named[name][0] for name in named if name is not None and name not in expected]
    missing = [published_name(name) for name in expected if name not in named]
    misshapen = [
        f"{named[name][0]} is {list(named[name][1].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in named and named[name][1].shape != tensor.shape
    ]
    faults = [*_fault("missing", missing), *_fault("not part of the model", extra), *_fault("misshapen", misshapen)]
    if faults:
        raise ModelError(f"the checkpoint does not fit the published layout: {'; '.join(faults)}")
    return config, {name: named[name][1] for name in expected}


def to_published(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Parameters of a model of published shape under the published names."""
    return {published_name(name): value for name, value in parameters.items()}


def infer_config(published: Mapping[str, Tensor]) -> ModelConfig:
    """Widths, heads and layer counts from the shapes of a published checkpoint (its prefixes stripped)."""

    def shape(name: str) -> tuple[int, ...]:
        if name not in published:
            raise ModelError(f"not a published USR checkpoint: '{name}' is missing")
        return tuple(published[name].shape)

    vocab_size, decoder_dim = shape("decoder.embed.0.weight")
    heads, head_dim = shape("encoder.encoders.0.self_attn.pos_bias_u")
    ffn_dim, dim = shape("encoder.encoders.0.feed_forward.w_1.weight")
    # The decoder's heads leave no trace in the shapes; in every published model they are as wide as the encoder's.
    return ModelConfig(
        dim=dim,
        num_heads=heads,
        ffn_dim=ffn_dim,
        num_encoder_layers=_count(published, "encoder.encoders."),
        decoder_dim=decoder_dim,
        decoder_num_heads=max(1, decoder_dim // head_dim),
        decoder_ffn_dim=shape("decoder.decoders.0.feed_forward.w_1.weight")[0],
        num_decoder_layers=_count(published, "decoder.decoders."),
        vocab_size=vocab_size,
    )


def load_published(path: Path) -> dict[str, Tensor]:
    """Read a published checkpoint file; nothing in it is executed.

    Raises `ModelError` for a file that is missing, damaged, or no plain mapping of names to tensors.
    """
    if not path.is_file():
        raise ModelError(f"no checkpoint file {path}")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{path} is refused: it is damaged, or holds more than tensors ({reason})") from error
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(f"{path} holds no mapping of parameter names to tensors")
    return dict(content)


def _count(names: Iterable[str], beginning: str) -> int:
    """How many numbered blocks there are."""
    numbers = {name.removeprefix(beginning).partition(".")[0] for name in names if name.startswith(beginning)}
    return len(numbers)


def _fault(what: str, names: list[str]) -> list[str]:
    """A phrase that names up to five keys."""
    if not names:
        return []
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return [f"{what}: {', '.join(names[:5])}{more}"]
