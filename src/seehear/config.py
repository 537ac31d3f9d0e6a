"""What describes a model: its sizes as a table of data, checked by pydantic. (The settings of a run: `recipe.py`.)"""

from typing import Self

from pydantic import BaseModel, ConfigDict, model_validator

from seehear.modality import SAMPLES_PER_FRAME

MIN_VIDEO_CHANNELS = 8
"""Fewest channels of the visual frontend. On processors with AVX2 and no AVX-512, oneDNN's kernel for the weight
gradient of a 1×1 convolution of stride 2, which every later stage begins with, writes beyond its memory if it is given
fewer (oneDNN 3.12, channels last; 8 and more are right, multiples of 8 or not)."""


class FrozenModel(BaseModel):
    """A validated, immutable record that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class VideoFrontendConfig(FrozenModel):
    """The visual frontend: a 3-D stem and a 2-D ResNet trunk on each frame (METHOD §1)."""

    stem_channels: int = 64
    stem_stride: int = 2
    """Spatial stride of the stem (its kernel is 5×7×7, its time stride 1)."""
    stem_pool: bool = True
    """Whether a 3×3 max pooling of stride 2 follows the stem."""
    channels: tuple[int, ...] = (64, 128, 256, 512)
    """Width of each stage; the first has stride 1, the others stride 2."""
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    """Residual blocks of each stage."""

    @model_validator(mode="after")
    def _no_kernel_that_destroys_memory(self) -> "VideoFrontendConfig":
        widths = (self.stem_channels, *self.channels)
        if min(widths) < MIN_VIDEO_CHANNELS:
            raise ValueError(
                f"the visual frontend needs at least {MIN_VIDEO_CHANNELS} channels in its stem and in each stage, not "
                f"{min(widths)}: with fewer, the CPU kernel for their gradient writes beyond its memory on AVX2"
            )
        return self


class AudioFrontendConfig(FrozenModel):
    """The acoustic frontend: a 1-D stem on the waveform and a 1-D ResNet trunk (METHOD §1)."""

    stem_channels: int = 64
    stem_kernel: int = 80
    stem_stride: int = 4
    """Samples per step of the stem; its product with the trunk's strides must divide 640."""
    channels: tuple[int, ...] = (64, 128, 256, 512)
    blocks: tuple[int, ...] = (2, 2, 2, 2)

    @property
    def steps_per_frame(self) -> int:
        """Trunk outputs in a video frame; they are averaged."""
        return SAMPLES_PER_FRAME // self.stride

    @property
    def stride(self) -> int:
        """Samples per trunk output."""
        return self.stem_stride << (len(self.channels) - 1)

    @model_validator(mode="after")
    def _whole_steps(self) -> "AudioFrontendConfig":
        if SAMPLES_PER_FRAME % self.stride:
            raise ValueError("the strides of the audio frontend must divide the 640 samples of a frame")
        return self


class EncoderConfig(FrozenModel):
    """Everything that fixes the parameters and features of an encoder with its frontends; saved beside its weights."""

    dim: int = 512
    num_heads: int = 8
    ffn_dim: int = 2048
    num_encoder_layers: int = 12
    video: VideoFrontendConfig = VideoFrontendConfig()
    audio: AudioFrontendConfig = AudioFrontendConfig()
    dropout: float = 0.1
    stochastic_depth: float = 0.1
    """Largest probability of skipping an encoder sub-layer in training; see `model/transformer.py`."""
    layer_scale: float = 0.1
    """Start of the γ vectors that scale each encoder sub-layer."""

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.dim % self.num_heads:
            raise ValueError("the number of heads must divide the width")
        return self


class ModelConfig(EncoderConfig):
    """The same of a whole model: encoder, heads and decoder."""

    decoder_dim: int = 512
    decoder_num_heads: int = 8
    decoder_ffn_dim: int = 2048
    num_decoder_layers: int = 6
    vocab_size: int = 1049
    """Tokens with blank (id 0) and end of sentence (the last id)."""

    @model_validator(mode="after")
    def _decoder_heads_divide_the_width(self) -> Self:
        if self.decoder_dim % self.decoder_num_heads:
            raise ValueError("the number of heads must divide the width")
        return self


def _published(dim: int, heads: int, ffn: int, encoder: int, decoder: int, stochastic_depth: float) -> ModelConfig:
    return ModelConfig(
        dim=dim,
        num_heads=heads,
        ffn_dim=ffn,
        num_encoder_layers=encoder,
        decoder_dim=dim,
        decoder_num_heads=heads,
        decoder_ffn_dim=ffn,
        num_decoder_layers=decoder,
        stochastic_depth=stochastic_depth,
    )


SIZES: dict[str, ModelConfig] = {
    # Ours: for the demo and the tests, and for one real speaker; narrow, coarse frontends.
    "tiny": ModelConfig(
        dim=96,
        num_heads=4,
        ffn_dim=256,
        num_encoder_layers=3,
        decoder_dim=96,
        decoder_num_heads=4,
        decoder_ffn_dim=256,
        num_decoder_layers=1,
        vocab_size=48,
        video=VideoFrontendConfig(
            stem_channels=16, stem_stride=4, stem_pool=True, channels=(16, 32, 64), blocks=(1, 1, 1)
        ),
        audio=AudioFrontendConfig(stem_channels=32, stem_stride=16, channels=(32, 32, 64, 96), blocks=(1, 1, 1, 1)),
        stochastic_depth=0.0,
        layer_scale=1.0,
    ),
    "small": ModelConfig(
        dim=192,
        num_heads=4,
        ffn_dim=512,
        num_encoder_layers=4,
        decoder_dim=192,
        decoder_num_heads=4,
        decoder_ffn_dim=512,
        num_decoder_layers=2,
        vocab_size=50,
        video=VideoFrontendConfig(
            stem_channels=16, stem_stride=4, stem_pool=False, channels=(16, 32, 64, 128), blocks=(1, 1, 1, 1)
        ),
        audio=AudioFrontendConfig(stem_channels=32, stem_stride=8, channels=(32, 48, 64, 128), blocks=(1, 1, 1, 1)),
        stochastic_depth=0.05,
        layer_scale=1.0,
    ),
    # The paper's (METHOD §1); width, heads, feed-forward, encoder layers, decoder layers, stochastic depth.
    "base": _published(512, 8, 2048, 12, 6, 0.1),
    "base-plus": _published(768, 12, 3072, 12, 6, 0.1),
    "large": _published(1024, 16, 4096, 24, 9, 0.2),
    "huge": _published(1280, 16, 5120, 32, 9, 0.3),
}
