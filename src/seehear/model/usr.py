"""The unified model of USR and USR 2.0 (arXiv 2411.02256, arXiv 2602.19316): one network for sound, lips, and both.

What is unusual about it: video and audio each pass a frontend that gives one vector per video frame (25 a second), so
that the two streams are aligned without attention between them. Three linear layers project lips, sound and their
concatenation to the same width; from there on one encoder and one decoder serve all three modalities, whose streams are
stacked on the batch axis. Only the output layers (CTC and attention) are the modality's own.

    video (B, T, 88, 88) ─ VideoFrontend ─┬──────────── Linear ─┐
                                          ├─ concatenate Linear ├─ stacked (3B, T, D) ─ Encoder ─┬─ CTC heads
    audio (B, 640·T) ───── AudioFrontend ─┴──────────── Linear ─┘                                └─ Decoder ─ heads
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seehear.config import ModelConfig
from seehear.modality import Modality
from seehear.model.attention import DecoderCache
from seehear.model.frontends import AudioFrontend, VideoFrontend
from seehear.model.transformer import Decoder, Encoder


class USR(nn.Module):
    """Frontends, projections, encoder, CTC heads, decoder and its output heads.

    B clips, T video frames, U tokens, D encoder width, V vocabulary; blank is id 0, start and end of sentence V−1.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.video_frontend = VideoFrontend(config.video)
        self.audio_frontend = AudioFrontend(config.audio)
        video_dim, audio_dim = self.video_frontend.out_channels, self.audio_frontend.out_channels
        widths = {
            Modality.VIDEO: video_dim,
            Modality.AUDIO: audio_dim,
            Modality.AUDIOVISUAL: video_dim + audio_dim,
        }
        self.projections = nn.ModuleDict({m.value: nn.Linear(width, config.dim) for m, width in widths.items()})
        self.encoder = Encoder(
            config.dim,
            config.num_heads,
            config.ffn_dim,
            config.num_encoder_layers,
            config.dropout,
            config.stochastic_depth,
            config.layer_scale,
        )
        self.ctc_heads = nn.ModuleDict({m.value: nn.Linear(config.dim, config.vocab_size) for m in Modality})
        self.decoder = Decoder(
            config.vocab_size,
            config.dim,
            config.decoder_dim,
            config.decoder_num_heads,
            config.decoder_ffn_dim,
            config.num_decoder_layers,
            config.dropout,
        )
        self.output_heads = nn.ModuleDict({m.value: nn.Linear(config.decoder_dim, config.vocab_size) for m in Modality})
        self.apply(_initialise)

    @property
    def eos(self) -> int:
        """End of sentence, the last id."""
        return self.config.vocab_size - 1

    @property
    def sos(self) -> int:
        """Start of sentence, the same id as its end."""
        return self.eos

    def num_parameters(self) -> int:
        """Learnt numbers, running statistics not counted."""
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
        """Encoder features (B, T, D) of each of `modalities`: one pass of each frontend, one of the encoder.

        Args:
            video: (B, T, 88, 88) normalised, needed by every modality but audio.
            audio: (B, 640·T), needed by every modality but video.
            mask: (B, T) bool, True on real frames.
            modalities: which streams to encode.
            mask_padding: False lets the frontends see the padding zeros, as published; True makes the features of a
                padded clip those of the clip alone.
        """
        inputs: dict[Modality, Tensor] = {}
        if any(modality.uses_video for modality in modalities):
            assert video is not None, "these modalities need video"
            inputs[Modality.VIDEO] = self.video_frontend(video)
        if any(modality.uses_audio for modality in modalities):
            assert audio is not None, "these modalities need audio"
            inputs[Modality.AUDIO] = self.audio_frontend(audio, mask if mask_padding else None)
        if Modality.AUDIOVISUAL in modalities:
            inputs[Modality.AUDIOVISUAL] = torch.cat([inputs[Modality.VIDEO], inputs[Modality.AUDIO]], dim=-1)
        stacked = torch.cat([self.projections[m.value](inputs[m]) for m in modalities])
        encoded: Tensor = self.encoder(stacked, mask.repeat(len(modalities), 1))
        return dict(zip(modalities, encoded.chunk(len(modalities)), strict=True))

    def ctc_logits(self, features: Tensor, modality: Modality) -> Tensor:
        """Encoder features (…, D) → logits (…, V) of the CTC head."""
        logits: Tensor = self.ctc_heads[modality.value](features)
        return logits

    def decode(self, tokens: Tensor, features: Tensor, mask: Tensor, cache: DecoderCache | None = None) -> Tensor:
        """Decoder states (B, U, D') after `tokens` (B, U), which begin with sos, over `features` (B, T, D).

        With a cache, `tokens` are the new ones only.
        """
        states: Tensor = self.decoder(tokens, features, mask, cache)
        return states

    def new_cache(self) -> DecoderCache:
        """An empty key-value cache for `decode`."""
        return DecoderCache(self.config.num_decoder_layers)

    def logits(self, states: Tensor, modality: Modality) -> Tensor:
        """Decoder states (…, D') → logits (…, V) of the next token."""
        logits: Tensor = self.output_heads[modality.value](states)
        return logits


def _initialise(module: nn.Module) -> None:
    """Start values: Xavier for linear layers, He for convolutions, embeddings of length about 1 once scaled by √D."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Embedding):
        nn.init.normal_(module.weight, std=1.0 / math.sqrt(module.embedding_dim))
