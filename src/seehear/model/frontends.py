"""From pixels and samples to one vector per video frame: ResNet-18 trunks behind a 3-D and a 1-D stem (METHOD §1).

Both run as 2-D convolutions in the memory layout "channels last", which is what makes them fast on a CPU: the video
stem on five stacked frames, the audio on images of height 1. Parameters keep the shapes of the 3-D and 1-D layers.

B clips, T video frames, S = 640·T audio samples, N images, C channels.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seehear.config import AudioFrontendConfig, VideoFrontendConfig
from seehear.modality import SAMPLE_RATE, SAMPLES_PER_FRAME
from seehear.model.weights import Conv2d, in_type_of

STEM_FRAMES = 5
"""Video frames that the video stem looks at: the frame itself and two on either side."""
STEM_SIZE = 7
"""Side of the video stem's kernel, in pixels."""
FRAMES_AT_ONCE = 50
"""Video frames that go through the frontend at once on a CPU where no gradient is wanted: its first layers make half a
megabyte and more of each, which is most of what recognition needs."""


class FlatConv(nn.Conv1d):
    """A 1-D convolution on images of height 1: (B, C, 1, L) to (B, C', 1, L')."""

    def forward(self, x: Tensor) -> Tensor:
        """The same sums as on (B, C, L)."""
        return F.conv2d(
            x, in_type_of(x, self.weight).unsqueeze(2), self.bias, (1, self.stride[0]), (0, int(self.padding[0]))
        )


class ResidualBlock(nn.Module):
    """x plus two convolutions of width 3; a convolution of width 1 on x where stride or number of channels change.

    `conv` is `Conv2d` for images and `FlatConv` for sound.
    """

    def __init__(self, conv: type[Conv2d | FlatConv], in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv(in_channels, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = conv(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(conv(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to (N, C', H', W'); both layers give 0 where `keep`, broadcast over the output, is False."""
        hidden = _masked(F.silu(self.norm1(self.conv1(x))), keep)
        return _masked(F.silu(self.norm2(self.conv2(hidden)) + self.shortcut(x)), keep)


class ResidualTrunk(nn.Module):
    """Stages of residual blocks; each stage but the first halves the resolution."""

    def __init__(
        self, conv: type[Conv2d | FlatConv], in_channels: int, channels: Sequence[int], blocks: Sequence[int]
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        for stage, (width, count) in enumerate(zip(channels, blocks, strict=True)):
            inputs = [in_channels] + [width] * (count - 1)
            strides = [2 if stage > 0 else 1] + [1] * (count - 1)
            self.stages.append(
                nn.ModuleList(
                    ResidualBlock(conv, *shape) for shape in zip(inputs, [width] * count, strides, strict=True)
                )
            )
            in_channels = width

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """(N, C, H, W) to (N, C', H', W'); `keep` (N, 1, 1, W) says where to give 0, see `ResidualBlock`."""
        for index, stage in enumerate(self.stages):
            if index > 0 and keep is not None:
                keep = keep[..., ::2]  # the resolution of this stage
            for block in stage:  # type: ignore[attr-defined]
                x = block(x, keep)
        return x


class VideoFrontend(nn.Module):
    """Grey mouth crops to one vector per frame: a 5×7×7 stem, then a 2-D trunk on each frame by itself."""

    def __init__(self, config: VideoFrontendConfig) -> None:
        super().__init__()
        self.stem = nn.Conv3d(1, config.stem_channels, (STEM_FRAMES, STEM_SIZE, STEM_SIZE), bias=False)
        self.stem_stride = config.stem_stride
        self.stem_norm = nn.BatchNorm2d(config.stem_channels)
        self.pool = nn.MaxPool2d(3, 2, padding=1) if config.stem_pool else nn.Identity()
        self.trunk = ResidualTrunk(Conv2d, config.stem_channels, config.channels, config.blocks)
        self.dim = config.channels[-1]

    def forward(self, video: Tensor) -> Tensor:
        """(B, T, 88, 88) to (B, T, dim)."""
        B, T = video.shape[:2]
        padded = F.pad(video, (0, 0, 0, 0, STEM_FRAMES // 2, STEM_FRAMES // 2))
        if video.device.type != "cpu" or torch.is_grad_enabled() or self.training or B * T <= FRAMES_AT_ONCE:
            return self._see(padded).view(B, T, self.dim)
        parts = (
            self._see(clip[None, start : start + FRAMES_AT_ONCE + STEM_FRAMES - 1])
            for clip in padded
            for start in range(0, T, FRAMES_AT_ONCE)
        )
        return torch.cat(list(parts)).view(B, T, self.dim)

    def _see(self, padded: Tensor) -> Tensor:
        """(B, T + 4, 88, 88) to (B·T, dim)."""
        x = self.pool(F.silu(self.stem_norm(self._stem(padded))))
        return self.trunk(x).mean((2, 3))  # type: ignore[no-any-return]

    def _stem(self, padded: Tensor) -> Tensor:
        """The 3-D convolution as a 2-D one whose channels are five neighbouring frames."""
        if torch.is_autocast_enabled(padded.device.type):
            padded = padded.to(torch.get_autocast_dtype(padded.device.type))  # before it is copied five times
        neighbours = padded.unfold(1, STEM_FRAMES, 1).flatten(0, 1).contiguous()  # (B·T, 88, 88, 5), in memory too
        weight = in_type_of(neighbours, self.stem.weight).squeeze(1)  # (C, 5, 7, 7)
        return F.conv2d(neighbours.permute(0, 3, 1, 2), weight, None, self.stem_stride, STEM_SIZE // 2)


def gabor_filters(channels: int, kernel: int) -> Tensor:
    """Start values of the audio stem (channels, 1, kernel): windowed cosines and sines, spaced as on the mel scale.

    The sources start their training from a pre-trained encoder; from scratch and on little speech, a bank of band-pass
    filters is most of what this layer would have to learn.
    """
    mel = torch.linspace(math.log1p(80 / 700), math.log1p(7200 / 700), (channels + 1) // 2)
    radians = 2 * math.pi / SAMPLE_RATE * 700 * torch.expm1(mel)[:, None]  # per sample
    time = torch.arange(kernel) - (kernel - 1) / 2
    waves = torch.stack([torch.cos(radians * time), torch.sin(radians * time)], dim=1).flatten(0, 1)[:channels]
    filters = waves * torch.hann_window(kernel + 2)[1:-1]
    normalised: Tensor = filters / filters.norm(dim=1, keepdim=True)
    return normalised[:, None]


class AudioFrontend(nn.Module):
    """A waveform to one vector per video frame: a 1-D stem and trunk, averaged over the 640 samples of a frame."""

    def __init__(self, config: AudioFrontendConfig) -> None:
        super().__init__()
        self.config = config
        padding = (config.stem_kernel - config.stem_stride + 1) // 2  # so that exactly S / stride steps come out
        self.stem = FlatConv(
            1, config.stem_channels, config.stem_kernel, config.stem_stride, padding=padding, bias=False
        )
        self.stem_norm = nn.BatchNorm2d(config.stem_channels)
        self.trunk = ResidualTrunk(FlatConv, config.stem_channels, config.channels, config.blocks)
        self.dim = config.channels[-1]

    def forward(self, audio: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, 640·T), zero at padding, to (B, T, dim).

        With `mask` (B, T) the output of every layer is 0 at padding, as it is beyond the end of a clip that is alone.
        """
        keep: Tensor | None = None
        if mask is not None:
            keep = mask.repeat_interleave(SAMPLES_PER_FRAME // self.config.stem_stride, dim=1)[:, None, None]
        waves = self.stem(audio[:, None, None]).contiguous(memory_format=torch.channels_last)
        x = self.trunk(_masked(F.silu(self.stem_norm(waves)), keep), keep)  # (B, C, 1, steps)
        return x.squeeze(2).transpose(1, 2).unflatten(1, (-1, self.config.steps_per_frame)).mean(2)  # type: ignore[no-any-return]

    @property
    def border(self) -> int:
        """How many real frames before padding come out other than if the clip were alone, without `mask`.

        The stem sees zeros beyond the clip either way. But its normalisation turns the padding's zeros into other
        numbers, and each of the trunk's convolutions, two in a block, draws these in by a step. One of stride 2, which
        sees the steps 2i−1 to 2i+1, makes ⌈r/2⌉ longer steps of r. Published: 4 steps of 4 samples, then 2 + 3 of 8,
        3 + 3 of 16, 3 + 3 of 32, which is within a frame. (Lips have no such border: only their stem looks across
        frames.)
        """
        reach = 2 * self.config.blocks[0]
        for blocks in self.config.blocks[1:]:
            reach = (reach + 1) // 2 + 2 * blocks - 1
        return math.ceil(reach / self.config.steps_per_frame)


def _masked(x: Tensor, keep: Tensor | None) -> Tensor:
    return x if keep is None else x * keep
