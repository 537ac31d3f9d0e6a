"""Files in the layouts that the authors publish, of any size, with random numbers in them.

`golden/layouts.json` has the names of their parts: # stands for the number of a layer; D, F, H and C in a shape for
width, feed-forward width, heads and width of a head. The predictor has the shapes of size Base.
"""

import json
import math
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from seehear.config import EncoderConfig, ModelConfig

Kind = Literal["fine-tuned", "self-supervised"]
Shapes = dict[str, tuple[int, ...]]
LAYOUTS: dict[str, dict[str, list[str | int]]] = json.loads(
    (Path(__file__).parent / "golden" / "layouts.json").read_text()
)
PREDICTOR_LAYERS = 2
NARROW = ModelConfig(
    dim=32,
    num_heads=4,
    ffn_dim=48,
    num_encoder_layers=2,
    decoder_dim=32,
    decoder_num_heads=4,
    decoder_ffn_dim=48,
    num_decoder_layers=1,
)
"""Published frontends and vocabulary, and little else."""


def layout(kind: Kind, config: ModelConfig) -> Shapes:
    """Shapes by name, with the prefix `model.` as published."""
    student = _part("student", config)
    encoder = {name.removeprefix("encoder."): shape for name, shape in student.items() if name.startswith("encoder.")}
    average = student if kind == "fine-tuned" else encoder
    return {
        **{f"model.backbone.{name}": shape for name, shape in student.items()},
        **{f"model.target_backbone.{name}": shape for name, shape in average.items()},
        **{f"model.{name}": shape for name, shape in _part("unlabelled", config).items()},
        **{
            f"model.{name}": shape
            for name, shape in _part("layer_norm" if kind == "fine-tuned" else "predictor", config).items()
        },
    }


def _part(part: str, config: ModelConfig) -> Shapes:
    sizes = {"D": config.dim, "F": config.ffn_dim, "H": config.num_heads, "C": config.dim // config.num_heads}
    shapes: Shapes = {}
    for pattern, symbols in LAYOUTS[part].items():
        for layer in range(_layers(pattern, config)):
            shapes[pattern.replace("#", str(layer))] = tuple(sizes[s] if isinstance(s, str) else s for s in symbols)
    return shapes


def _layers(pattern: str, config: ModelConfig) -> int:
    if "#" not in pattern:
        return 1
    if pattern.startswith("predictor."):
        return PREDICTOR_LAYERS
    return config.num_decoder_layers if pattern.startswith("decoder.") else config.num_encoder_layers


def num_bytes(shapes: Shapes) -> int:
    """What the tensors take: 4 bytes a number, 8 a counter of batches."""
    return sum(math.prod(shape) * (8 if name.endswith("tracked") else 4) for name, shape in shapes.items())


def random_tensors(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Numbers for the names of a layout; variances are positive, and activations neither vanish nor explode."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        if name.endswith("tracked"):
            tensors[name] = torch.tensor(seed)
        elif name.endswith("running_var"):
            tensors[name] = 1 + torch.rand(shape, generator=generator)
        else:
            scale = math.sqrt(math.prod(shape[1:])) if len(shape) > 1 else 1.0
            tensors[name] = torch.randn(shape, generator=generator) / scale
    return tensors


def encoder_config(config: ModelConfig) -> EncoderConfig:
    """Its encoder's."""
    return EncoderConfig(**config.model_dump(include=set(EncoderConfig.model_fields)))
