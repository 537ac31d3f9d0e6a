"""The unified model of USR 2.0: one network for sound, lips, and both (arXiv 2602.19316, after 2411.02256; METHOD §1).

    video (B, T, 88, 88) ── 3-D stem, ResNet-18 ──┬───────────────── Linear ─┐
                                                  ├── concatenated ─ Linear ─┼─ encoder ─┬─ CTC heads
    audio (B, 640·T) ────── 1-D stem, ResNet-18 ──┴───────────────── Linear ─┘ (3B, T, D)└─ decoder ─ output heads

What is unusual about it:

- One encoder and one decoder serve all three modalities, which are stacked on the batch axis. Only the projections into
  the encoder and the output layers belong to a modality.
- Sound is heard as the raw waveform. Its trunk, like the video's, gives one vector per video frame, so that the two are
  aligned by construction and fused by concatenation, without attention between them.
- The encoder knows positions only relative to each other, and scales its residual branches by learned vectors γ.
- The CTC heads are no mere auxiliary: in training they write the prefix that the decoder of the teacher continues
  (`objectives/teacher.py`), in the joint search they veto what the sound or the lips do not support.

B clips, T video frames (25 a second), S = 640·T samples (16 kHz), U tokens, V vocabulary, D width. Token 0 is the blank
of CTC; token V−1 begins and ends a sentence. Masks are True on what is real, False on padding.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from seehear.config import EncoderConfig, ModelConfig
from seehear.modality import Modality
from seehear.model.attention import RelativeAttention
from seehear.model.frontends import AudioFrontend, VideoFrontend, gabor_filters
from seehear.model.transformer import Decoder, DecoderCache, Encoder
from seehear.model.weights import Linear

SEARCH_PARTS = ("ctc_heads", "decoder", "output_heads")
"""The parts of a model that a search runs; the others make features."""


class SpeechEncoder(nn.Module):
    """Frontends, projections and encoder: from clips to features. Its weights come from a file or from `USR`."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.video_frontend = VideoFrontend(config.video)
        self.audio_frontend = AudioFrontend(config.audio)
        self.projections = nn.ModuleDict({m.value: Linear(self._input_dim(m), config.dim) for m in Modality})
        self.encoder = Encoder(config)

    def num_parameters(self) -> int:
        """Learned numbers; running statistics are not counted."""
        return sum(parameter.numel() for parameter in self.parameters())

    def encode(
        self,
        video: Tensor | None,
        audio: Tensor | None,
        mask: Tensor,
        modalities: Sequence[Modality] = tuple(Modality),
        *,
        mask_padding: bool = False,
    ) -> dict[Modality, Tensor]:
        """Features (B, T, D) of each of `modalities`: one pass of each frontend, one of the encoder.

        Args:
            video: (B, T, 88, 88), normalised, zero at padding; None if no modality needs it.
            audio: (B, 640·T), zero at padding; None if no modality needs it.
            mask: (B, T). Attention never sees padding.
            modalities: Which streams to encode.
            mask_padding: False: the frontends see the zeros of padding, as published, which changes the last
                `AudioFrontend.border` real frames that enter the encoder. True: a clip gives what it gives alone.
        """
        streams = self.streams(video, audio, mask, modalities, mask_padding=mask_padding)
        return self.contextualise(streams, mask)

    def streams(
        self,
        video: Tensor | None,
        audio: Tensor | None,
        mask: Tensor,
        modalities: Sequence[Modality],
        *,
        mask_padding: bool = False,
    ) -> dict[Modality, Tensor]:
        """What enters the encoder, (B, T, D) of each of `modalities`; the arguments are those of `encode`."""
        assert mask.shape[1] > 0, "a clip has at least one frame"
        seen: dict[Modality, Tensor] = {}
        if any(modality.uses_video for modality in modalities):
            assert video is not None, "these modalities need video"
            seen[Modality.VIDEO] = self.video_frontend(video)
        if any(modality.uses_audio for modality in modalities):
            assert audio is not None, "these modalities need audio"
            seen[Modality.AUDIO] = self.audio_frontend(audio, mask if mask_padding else None)
        return {modality: self._project(seen, modality) for modality in modalities}

    def contextualise(self, streams: Mapping[Modality, Tensor], mask: Tensor) -> dict[Modality, Tensor]:
        """Features (B, T, D) of `streams`, by one pass of the encoder over all of them."""
        stacked = torch.cat(list(streams.values()))  # (modalities · B, T, D)
        encoded: Tensor = self.encoder(stacked, mask.repeat(len(streams), 1))
        return dict(zip(streams, encoded.chunk(len(streams)), strict=True))

    def _input_dim(self, modality: Modality) -> int:
        """Width of a modality's stream before its projection."""
        return modality.uses_video * self.video_frontend.dim + modality.uses_audio * self.audio_frontend.dim

    def _project(self, streams: Mapping[Modality, Tensor], modality: Modality) -> Tensor:
        """The encoder's input (B, T, D) for a modality: its streams, video first, side by side, projected."""
        used = [Modality.VIDEO] * modality.uses_video + [Modality.AUDIO] * modality.uses_audio
        return self.projections[modality.value](torch.cat([streams[m] for m in used], dim=-1))  # type: ignore[no-any-return]


class USR(SpeechEncoder):
    """The whole model: encoder, CTC heads, decoder and its output heads."""

    config: ModelConfig

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.ctc_heads = nn.ModuleDict({m.value: Linear(config.dim, config.vocab_size) for m in Modality})
        self.decoder = Decoder(config)
        self.output_heads = nn.ModuleDict({m.value: Linear(config.decoder_dim, config.vocab_size) for m in Modality})
        self.apply(_initialise)
        for projection in self.projections.values():  # √D times smaller: the encoder multiplies its input by √D
            nn.init.xavier_uniform_(projection.weight, gain=config.dim**-0.5)  # type: ignore[arg-type]
        stem = self.audio_frontend.stem
        stem.weight.data.copy_(gabor_filters(config.audio.stem_channels, config.audio.stem_kernel))

    @property
    def eos(self) -> int:
        """The token that ends a sentence."""
        return self.config.vocab_size - 1

    @property
    def sos(self) -> int:
        """The token that begins a sentence: the same as ends it."""
        return self.eos

    @property
    def search_device(self) -> torch.device:
        """The device of the decoder and all heads; that of the encoder but for `with_search_on`."""
        return self.decoder.embedding.weight.device

    def with_search_on(self, device: torch.device | str) -> "USR":
        """This model with its decoder and heads on `device`, where they compute in float32; itself if they are there.

        The encoder is shared, and this model stays as it is. Features and masks go there by `to_search`.
        """
        device = torch.empty(0, device=device).device  # with its number
        if device == self.search_device:
            return self
        split = copy.copy(self)
        split._modules = dict(self._modules)
        for name in SEARCH_PARTS:
            split._modules[name] = copy.deepcopy(self.get_submodule(name)).to(device, torch.float32)
        return split

    def to_search(self, features: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, T, D) and their mask (B, T) where decoder and heads are; gradients pass."""
        return features.to(self.search_device), mask.to(self.search_device)

    def ctc_logits(self, features: Tensor, modality: Modality) -> Tensor:
        """Encoder features (B, T, D) to (B, T, V)."""
        return self.ctc_heads[modality.value](features)  # type: ignore[no-any-return]

    def decode(self, tokens: Tensor, features: Tensor, mask: Tensor, cache: DecoderCache | None = None) -> Tensor:
        """Decoder states (N, U, Ddec) after each of `tokens` (N, U), which begin with `sos`.

        `features` (N, T, D) and `mask` (N, T) are the encoded clips; several rows of tokens may share one, see
        `DecoderCache`. With a cache, `tokens` are the new ones only, and the clips are read in its first call.
        """
        return self.decoder(tokens, features, mask, cache)  # type: ignore[no-any-return]

    def new_cache(self) -> DecoderCache:
        """An empty key-value cache for `decode`."""
        return DecoderCache()

    def logits(self, states: Tensor, modality: Modality) -> Tensor:
        """Decoder states (N, U, Ddec) to those of the next token (N, U, V)."""
        return self.output_heads[modality.value](states)  # type: ignore[no-any-return]


def _initialise(module: nn.Module) -> None:
    """Start values for training from scratch.

    Convolutions: Kaiming normal by their outputs, as ResNets start. Linear layers and the biases u and v of relative
    attention: Xavier uniform; other biases 0. (The projections into the encoder smaller, see above: at full size they
    would drown what its layers add. On the 100 labelled clips of GRID, audiovisual validation WER after 500 steps was
    73 % with them so and 89 % without.) Embeddings: deviation 1/√D, so that times √D they are of order 1, as the
    sinusoids added to them. Normalisations start as the identity, γ at `ModelConfig.layer_scale`.
    """
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=module.embedding_dim**-0.5)
    elif isinstance(module, RelativeAttention):
        nn.init.xavier_uniform_(module.content_bias)
        nn.init.xavier_uniform_(module.position_bias)
