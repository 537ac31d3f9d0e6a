"""From pixels and samples to one vector per video frame: a stem and a ResNet trunk each (METHOD §1).

The convolutions see the padding zeros of a batch, as in the published code. Lips are not touched by them: only the stem
looks across frames, and pads with zeros itself. Sound is: its trunk is convolved again and again over what the padding
became, so that the last frames of a padded clip differ from those of the clip alone, see `AUDIO_BORDER`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seehear.config import AudioFrontendConfig, VideoFrontendConfig

AUDIO_BORDER = 2
"""Frames at the end of a padded clip whose audio features depend on the padding, with the published trunk.

A trunk output sees 17 steps (4 + 4·2 + …) to its right at each resolution; summed in samples that is under two frames.
"""


class ResidualBlock(nn.Module):
    """Two convolutions of width 3 with BatchNorm; SiLU after the first norm and after the sum."""

    def __init__(self, in_channels: int, channels: int, stride: int, dims: int) -> None:
        super().__init__()
        conv: type[nn.Conv1d] | type[nn.Conv2d] = nn.Conv1d if dims == 1 else nn.Conv2d
        norm: type[nn.BatchNorm1d] | type[nn.BatchNorm2d] = nn.BatchNorm1d if dims == 1 else nn.BatchNorm2d
        self.conv1 = conv(in_channels, channels, 3, stride, 1, bias=False)
        self.norm1 = norm(channels)
        self.conv2 = conv(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = norm(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(conv(in_channels, channels, 1, stride, bias=False), norm(channels))

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """(N, C, …) → (N, C', …); positions outside `mask` (N, T) are zeroed for the convolutions."""
        inner = F.silu(self.norm1(self.conv1(x)))
        if mask is not None:
            inner = _zero_padding(inner, mask)
        out = F.silu(self.norm2(self.conv2(inner)) + self.shortcut(x))
        return out if mask is None else _zero_padding(out, mask)


def _zero_padding(x: Tensor, mask: Tensor) -> Tensor:
    """Zero what lies past each clip's end: x (B, C, L), mask (B, T) of frames, L a multiple of T."""
    return x * mask.repeat_interleave(x.shape[-1] // mask.shape[-1], dim=-1)[:, None].to(x.dtype)


def _trunk(in_channels: int, channels: tuple[int, ...], blocks: tuple[int, ...], dims: int) -> nn.ModuleList:
    """Stages of residual blocks: the first keeps the resolution, each further one halves it."""
    layers = nn.ModuleList()
    for stage, (width, count) in enumerate(zip(channels, blocks, strict=True)):
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(ResidualBlock(in_channels, width, stride, dims))
            in_channels = width
    return layers


class VideoFrontend(nn.Module):
    """Mouth video (B, T, 88, 88) → (B, T, channels)."""

    def __init__(self, config: VideoFrontendConfig) -> None:
        super().__init__()
        self.stride = config.stem_stride
        self.stem = nn.Conv3d(1, config.stem_channels, (5, 7, 7), (1, self.stride, self.stride), (2, 3, 3), bias=False)
        self.stem_norm = nn.BatchNorm2d(config.stem_channels)
        self.pool: nn.Module = nn.MaxPool2d(3, 2, 1) if config.stem_pool else nn.Identity()
        self.trunk = _trunk(config.stem_channels, config.channels, config.blocks, dims=2)
        self.trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.out_channels = config.channels[-1]

    def forward(self, video: Tensor) -> Tensor:
        """The frames of all clips pass the trunk as one batch."""
        batch, frames = video.shape[:2]
        # The 3-D stem has one input channel, so five neighbouring frames may as well be five channels of a 2-D one.
        padded = F.pad(video, (0, 0, 0, 0, 2, 2))
        neighbours = torch.stack([padded[:, shift : shift + frames] for shift in range(5)], dim=2).flatten(0, 1)
        neighbours = neighbours.contiguous(memory_format=torch.channels_last)
        x = F.conv2d(neighbours, self.stem.weight.squeeze(1), stride=self.stride, padding=3)
        x = self.pool(F.silu(self.stem_norm(x)))
        for block in self.trunk:
            x = block(x)
        return x.mean((-2, -1)).unflatten(0, (batch, frames))


class AudioFrontend(nn.Module):
    """Waveform (B, 640·T) → (B, T, channels)."""

    def __init__(self, config: AudioFrontendConfig) -> None:
        super().__init__()
        padding = (config.stem_kernel - config.stem_stride) // 2  # as many outputs as strides fit
        self.stem = nn.Conv1d(1, config.stem_channels, config.stem_kernel, config.stem_stride, padding, bias=False)
        self.stem_norm = nn.BatchNorm1d(config.stem_channels)
        self.trunk = _trunk(config.stem_channels, config.channels, config.blocks, dims=1)
        self.steps_per_frame = config.steps_per_frame
        self.out_channels = config.channels[-1]

    def forward(self, audio: Tensor, mask: Tensor | None = None) -> Tensor:
        """With `mask` (B, T), padding is zeroed after every layer, so that a padded clip equals the clip alone."""
        x = F.silu(self.stem_norm(self.stem(audio[:, None])))
        if mask is not None:
            x = _zero_padding(x, mask)
        for block in self.trunk:
            x = block(x, mask)
        return F.avg_pool1d(x, self.steps_per_frame).transpose(1, 2)
