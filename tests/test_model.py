"""The network computed two ways: batched and alone, cached and uncached, one modality and three, fast and slow."""

import itertools
import math
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seehear.config import SIZES, AudioFrontendConfig, ModelConfig, VideoFrontendConfig
from seehear.modality import Modality
from seehear.model.attention import RelativeAttention, relative_positions, relative_to_keys, sinusoids
from seehear.model.frontends import FRAMES_AT_ONCE, AudioFrontend, FlatConv, VideoFrontend
from seehear.model.transformer import Encoder, LayerNorm, StochasticDepth
from seehear.model.usr import USR

LENGTHS = (9, 5, 1)
PUBLISHED_FRONTENDS = ModelConfig(
    dim=32, num_heads=4, ffn_dim=48, num_encoder_layers=2,
    decoder_dim=24, decoder_num_heads=2, decoder_ffn_dim=48, num_decoder_layers=2, vocab_size=20,
)  # fmt: skip
"""Frontends of published size, the rest small, and a decoder narrower than the encoder."""


def build(config: ModelConfig, seed: int = 0) -> USR:
    """A model for inference whose normalisations have statistics and biases that matter."""
    torch.manual_seed(seed)
    model = USR(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model


@pytest.fixture(scope="module", params=["tiny", "small", "published frontends"])
def model(request: pytest.FixtureRequest) -> USR:
    return build(SIZES.get(request.param, PUBLISHED_FRONTENDS))


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Video, audio and mask of clips of `LENGTHS`, zero at padding."""
    generator = torch.Generator().manual_seed(1)
    longest = max(LENGTHS)
    mask = torch.arange(longest) < torch.tensor(LENGTHS)[:, None]
    video = torch.randn(len(LENGTHS), longest, 88, 88, generator=generator) * mask[:, :, None, None]
    audio = 0.3 * torch.randn(len(LENGTHS), longest, 640, generator=generator) * mask[:, :, None]
    return video, audio.flatten(1), mask


def alone(batch: tuple[Tensor, Tensor, Tensor], clip: int) -> tuple[Tensor, Tensor, Tensor]:
    length = LENGTHS[clip]
    video, audio, mask = (part[clip : clip + 1] for part in batch)
    return video[:, :length], audio[:, : 640 * length], mask[:, :length]


# --- The model as a whole ---


@torch.no_grad()
def test_batched_equals_alone_with_masked_padding(model: USR, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    together = model.encode(*batch, mask_padding=True)
    for clip, length in enumerate(LENGTHS):
        for mask_padding in (True, False):
            for modality, features in model.encode(*alone(batch, clip), mask_padding=mask_padding).items():
                torch.testing.assert_close(together[modality][clip, :length], features[0], rtol=0, atol=1e-5)


@torch.no_grad()
def test_unmasked_padding_changes_the_stated_border_only(model: USR, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    video, audio, _ = batch
    border = model.audio_frontend.border
    assert border == 1
    heard, seen = model.audio_frontend(audio), model.video_frontend(video)
    for clip, length in enumerate(LENGTHS):
        own_video, own_audio, _ = alone(batch, clip)
        torch.testing.assert_close(seen[clip, :length], model.video_frontend(own_video)[0], rtol=0, atol=1e-5)
        difference = (heard[clip, :length] - model.audio_frontend(own_audio)[0]).abs().amax(1)
        assert (difference[: length - border] <= 1e-5).all()
        if length < max(LENGTHS):
            assert difference[-1] > 1e-3  # there is a border


def test_border_grows_with_the_trunk() -> None:
    for config, border in (
        (AudioFrontendConfig(), 1),
        (AudioFrontendConfig(stem_stride=20), 2),
        (AudioFrontendConfig(stem_channels=8, stem_stride=80, channels=(8, 8), blocks=(6, 1)), 2),
        (AudioFrontendConfig(stem_channels=8, stem_kernel=320, stem_stride=320, channels=(8,), blocks=(3,)), 3),
    ):
        torch.manual_seed(0)
        frontend = AudioFrontend(config).double().eval()
        assert frontend.border == border
        nn.init.constant_(frontend.stem_norm.bias, 0.5)
        audio = torch.randn(1, 640 * 8, dtype=torch.double)
        with torch.no_grad():
            difference = (frontend(F.pad(audio, (0, 1280)))[:, :8] - frontend(audio)).abs().amax((0, 2))
        assert (difference[: 8 - border] < 1e-14).all()
        assert (difference[8 - border :] > 1e-12).all()


@torch.no_grad()
def test_one_modality_at_a_time_equals_three_at_once(model: USR, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    video, audio, mask = batch
    together = model.encode(video, audio, mask)
    assert list(together) == list(Modality)
    for modality in Modality:
        one = model.encode(
            video if modality.uses_video else None, audio if modality.uses_audio else None, mask, [modality]
        )
        assert list(one) == [modality]
        torch.testing.assert_close(one[modality][mask], together[modality][mask], rtol=0, atol=1e-5)
    reversed_order = model.encode(video, audio, mask, [Modality.AUDIOVISUAL, Modality.VIDEO])
    torch.testing.assert_close(reversed_order[Modality.VIDEO][mask], together[Modality.VIDEO][mask], rtol=0, atol=1e-5)


def test_missing_input_and_no_frames_are_noticed() -> None:
    model = build(SIZES["tiny"])
    with pytest.raises(AssertionError, match="need video"):
        model.encode(None, torch.zeros(1, 640), torch.ones(1, 1, dtype=torch.bool), [Modality.AUDIOVISUAL])
    with pytest.raises(AssertionError, match="need audio"):
        model.encode(torch.zeros(1, 1, 88, 88), None, torch.ones(1, 1, dtype=torch.bool), [Modality.AUDIO])
    with pytest.raises(AssertionError, match="at least one frame"):
        model.encode(torch.zeros(1, 0, 88, 88), torch.zeros(1, 0), torch.ones(1, 0, dtype=torch.bool))


@pytest.mark.parametrize("widths", [{"stem_channels": 4}, {"channels": (8, 7)}, {"channels": (4, 16, 32, 64)}])
def test_widths_whose_gradient_destroys_memory_are_refused(widths: dict[str, Any]) -> None:
    narrow = {"stem_channels": 8, "channels": (8, 8), "blocks": (1, 1), **widths}
    with pytest.raises(ValueError, match=r"at least 8 channels .* not [47]: .* writes beyond its memory on AVX2"):
        VideoFrontendConfig(**narrow)


NARROWEST = """
import torch
from seehear.config import VideoFrontendConfig
from seehear.model.frontends import VideoFrontend
for channels in ((8, 8), (9, 8), (12, 12), (16, 20)):
    config = VideoFrontendConfig(stem_channels=8, stem_stride=4, channels=channels, blocks=(1, 1))
    for frames in (1, 2, 9, 25):
        VideoFrontend(config)(torch.randn(1, frames, 88, 88)).sum().backward()
"""


def test_the_gradient_of_the_narrowest_frontends_stays_in_its_memory() -> None:
    """With the kernels of AVX2; glibc looks at every block of memory that is freed."""
    kernels = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "OMP_NUM_THREADS": "1"}
    checks = {"LD_PRELOAD": "libc_malloc_debug.so.0", "GLIBC_TUNABLES": "glibc.malloc.check=3"}
    done = subprocess.run([sys.executable, "-c", NARROWEST], env={**os.environ, **kernels, **checks})
    assert done.returncode == 0


@torch.no_grad()
def test_one_silent_frame(model: USR) -> None:
    features = model.encode(torch.zeros(1, 1, 88, 88), torch.zeros(1, 640), torch.ones(1, 1, dtype=torch.bool))
    for modality, feature in features.items():
        assert feature.shape == (1, 1, model.config.dim)
        assert model.ctc_logits(feature, modality).isfinite().all()


@pytest.mark.parametrize(
    ("size", "millions"),
    [("tiny", 0.65), ("small", 3.1), ("base", 86), ("base-plus", 171), ("large", 503), ("huge", 945)],
)
def test_sizes_have_the_parameters_they_claim(size: str, millions: float) -> None:
    with torch.device("meta"):
        count = USR(SIZES[size]).num_parameters()
    assert count / 1e6 == pytest.approx(millions, rel=0.03)


def test_start_values(model: USR) -> None:
    embedding = model.decoder.embedding
    assert embedding.weight.std().item() * math.sqrt(embedding.embedding_dim) == pytest.approx(1, rel=0.15)
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    assert not any(head.bias.any() for head in (*model.ctc_heads.values(), *model.output_heads.values()))
    for layer in model.encoder.layers:
        assert (layer.attention_scale == model.config.layer_scale).all()
        assert (layer.ffn_scale == model.config.layer_scale).all()


def test_bfloat16_is_close_and_features_stay_float32(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    model = build(SIZES["tiny"])
    exact = model.encode(*batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model.encode(*batch)
    mask = batch[2]
    for modality in Modality:
        assert rounded[modality].dtype == torch.float32
        difference = (rounded[modality] - exact[modality])[mask]
        assert difference.square().mean().sqrt() < 0.05  # features have deviation 1


# --- Decoder ---


@pytest.fixture(scope="module")
def decoded() -> tuple[USR, Tensor, Tensor, Tensor]:
    """A model, tokens (3, 7), features (3, 9, D) and mask (3, 9)."""
    torch.manual_seed(3)
    model = build(PUBLISHED_FRONTENDS)
    tokens = torch.randint(1, 19, (3, 7))
    tokens[:, 0] = model.sos
    return model, tokens, torch.randn(3, 9, 32), torch.arange(9) < torch.tensor([9, 4, 1])[:, None]


@torch.no_grad()
@pytest.mark.parametrize("pieces", [[1] * 7, [7], [2, 3, 1, 1], [6, 1]])
def test_cached_equals_uncached(decoded: tuple[USR, Tensor, Tensor, Tensor], pieces: list[int]) -> None:
    model, tokens, features, mask = decoded
    cache = model.new_cache()
    states = [model.decode(new, features, mask, cache) for new in tokens.split(pieces, dim=1)]
    torch.testing.assert_close(torch.cat(states, 1), model.decode(tokens, features, mask), rtol=0, atol=1e-5)


@torch.no_grad()
def test_cache_selects_rows_and_clips(decoded: tuple[USR, Tensor, Tensor, Tensor]) -> None:
    model, tokens, features, mask = decoded
    cache = model.new_cache()
    model.decode(tokens[:, :4], features, mask, cache)
    rows = torch.tensor([2, 0])
    cache.select(rows, rows)
    states = model.decode(tokens[rows, 4:], features, mask, cache)
    torch.testing.assert_close(states, model.decode(tokens, features, mask)[rows, 4:], rtol=0, atol=1e-5)


@torch.no_grad()
def test_rows_share_a_clip(decoded: tuple[USR, Tensor, Tensor, Tensor]) -> None:
    model, tokens, features, mask = decoded
    tokens = torch.cat([tokens, tokens.flip(0)])  # rows 0, 1 on clip 0; 2, 3 on clip 1; 4, 5 on clip 2
    expected = model.decode(tokens, features.repeat_interleave(2, 0), mask.repeat_interleave(2, 0))
    torch.testing.assert_close(model.decode(tokens, features, mask), expected, rtol=0, atol=1e-5)
    # Hypotheses of one clip, reordered and repeated, as in a beam search.
    cache = model.new_cache()
    model.decode(tokens[:1, :3], features[:1], mask[:1], cache)
    cache.select(torch.tensor([0, 0, 0]))
    model.decode(tokens[[0, 3, 5], 3:5], features[:1], mask[:1], cache)
    cache.select(torch.tensor([2, 0]))
    states = model.decode(tokens[[1, 4], 5:], features[:1], mask[:1], cache)
    whole = torch.cat([tokens[[0, 0], :3], tokens[[5, 0], 3:5], tokens[[1, 4], 5:]], 1)
    expected = model.decode(whole, features[[0, 0]], mask[[0, 0]])[:, 5:]
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_decoder_sees_neither_the_future_nor_padding(decoded: tuple[USR, Tensor, Tensor, Tensor]) -> None:
    model, tokens, features, mask = decoded
    states = model.decode(tokens, features, mask)
    other = tokens.clone()
    other[:, 4:] = 7
    changed = model.decode(other, features.masked_fill(~mask[..., None], 50.0), mask)
    torch.testing.assert_close(changed[:, :4], states[:, :4], rtol=0, atol=1e-5)
    assert not torch.allclose(changed[:, 4:], states[:, 4:], atol=1e-2)


# --- Encoder ---


@torch.no_grad()
def test_encoder_does_not_see_padding() -> None:
    torch.manual_seed(0)
    encoder = Encoder(PUBLISHED_FRONTENDS).eval()
    x, mask = torch.randn(2, 6, 32), torch.arange(6) < torch.tensor([[6], [3]])
    changed = encoder(x.masked_fill(~mask[..., None], 100.0), mask)
    torch.testing.assert_close(changed[mask], encoder(x, mask)[mask], rtol=0, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_relative_attention_equals_the_formula(num_frames: int) -> None:
    """((q_i + u)·k_j + (q_i + v)·p_{i−j}) / √C, one query and key at a time, in double precision."""
    torch.manual_seed(num_frames)
    dim, heads = 12, 3
    attention = RelativeAttention(dim, heads, dropout=0.0).double()
    for parameter in attention.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, num_frames, dim, dtype=torch.double)
    mask = torch.ones(2, num_frames, dtype=torch.bool)
    mask[1, num_frames // 2 + 1 :] = False
    expected = torch.zeros_like(x)
    for row, head in itertools.product(range(2), range(heads)):
        part = slice(head * dim // heads, (head + 1) * dim // heads)
        q, k, v = (layer(x[row])[:, part] for layer in (attention.query, attention.key, attention.value))
        for i in range(num_frames):
            logits = torch.full((num_frames,), -torch.inf, dtype=torch.double)
            for j in range(num_frames):
                if mask[row, j]:
                    sinusoid = sinusoids(torch.tensor([i - j]), dim).double()
                    p = attention.position(sinusoid)[0, part]
                    content = (q[i] + attention.content_bias[head]) @ k[j]
                    logits[j] = (content + (q[i] + attention.position_bias[head]) @ p) / math.sqrt(dim / heads)
            expected[row, i, part] = logits.softmax(0) @ v
    expected = attention.output(expected)
    positions = relative_positions(num_frames, dim, x.device).double()
    torch.testing.assert_close(attention(x, positions, mask)[mask], expected[mask])
    with torch.enable_grad():  # another way through the same sums
        torch.testing.assert_close(attention(x, positions, mask)[mask], expected[mask])


def test_relative_scores_are_lined_up_without_a_copy() -> None:
    scores = torch.arange(2 * 5 * 9.0).view(2, 5, 9)
    by_key = relative_to_keys(scores)
    for i, j in itertools.product(range(5), range(5)):
        assert (by_key[:, i, j] == scores[:, i, 5 - 1 - i + j]).all()
    assert by_key.untyped_storage().data_ptr() == scores.untyped_storage().data_ptr()


def test_sinusoids() -> None:
    table = sinusoids(torch.tensor([0, 3, -3]), 6)
    torch.testing.assert_close(table[0], torch.tensor([0.0, 1, 0, 1, 0, 1]))
    angle = 3 * 10_000 ** (-2 / 6)
    torch.testing.assert_close(table[1, 2:4], torch.tensor([math.sin(angle), math.cos(angle)]))
    torch.testing.assert_close(table[2], table[1] * torch.tensor([-1.0, 1, -1, 1, -1, 1]))


def test_layer_norm_stays_in_float32() -> None:
    norm = LayerNorm(8)
    with torch.autocast("cpu", torch.bfloat16):
        out = norm(torch.full((2, 8), 3.0, dtype=torch.bfloat16))
    assert out.dtype == torch.float32
    assert (out == 0).all()


def test_stochastic_depth_drops_whole_rows() -> None:
    torch.manual_seed(0)
    branch = torch.ones(4000, 2, 3)
    dropped = StochasticDepth(0.25).train()(branch)
    torch.testing.assert_close(dropped.unique(), torch.tensor([0, 1 / 0.75]))
    assert (dropped.flatten(1) == dropped[:, :1, 0]).all()
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.03)
    assert StochasticDepth(0.25).eval()(branch) is branch
    rates = [layer.stochastic_depth.rate for layer in Encoder(SIZES["small"]).layers]
    assert rates == pytest.approx([0.05 * i / 4 for i in (1, 2, 3, 4)])


# --- Frontends ---


@torch.no_grad()
@pytest.mark.parametrize("size", ["tiny", "small", "base"])
def test_video_stem_equals_the_convolution_in_three_dimensions(size: str) -> None:
    torch.manual_seed(0)
    frontend = VideoFrontend(SIZES[size].video)
    stride, video = SIZES[size].video.stem_stride, torch.randn(2, 3, 88, 88)
    expected = F.conv3d(video[:, None], frontend.stem.weight, None, (1, stride, stride), (2, 3, 3))
    found = frontend._stem(F.pad(video, (0, 0, 0, 0, 2, 2))).unflatten(0, (2, 3))
    torch.testing.assert_close(found, expected.transpose(1, 2), rtol=0, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize(("width", "stride", "padding"), [(80, 4, 38), (3, 2, 1), (3, 1, 1), (1, 2, 0)])
def test_flat_convolution_equals_one_dimension(width: int, stride: int, padding: int) -> None:
    torch.manual_seed(0)
    flat = FlatConv(4, 6, width, stride, padding)
    x = torch.randn(2, 4, 160)
    torch.testing.assert_close(flat(x[:, :, None]).squeeze(2), nn.Conv1d.forward(flat, x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("clips", [1, 2])
def test_images_lie_channels_last_whatever_the_batch(clips: int) -> None:
    """One clip too, which a view of its frames would leave as it was: bfloat16 is half as fast then."""
    model = USR(SIZES["tiny"]).eval()
    layouts = []
    for frontend in (model.video_frontend, model.audio_frontend):
        for block in (stage[0] for stage in frontend.trunk.stages):
            block.register_forward_pre_hook(
                lambda _, given: layouts.append(given[0].is_contiguous(memory_format=torch.channels_last))
            )
    with torch.no_grad():
        model.encode(torch.randn(clips, 4, 88, 88), torch.randn(clips, 4 * 640), torch.ones(clips, 4).bool())
    assert len(layouts) == sum(len(f.trunk.stages) for f in (model.video_frontend, model.audio_frontend))
    assert all(layouts)


def test_long_videos_go_through_the_frontend_in_parts() -> None:
    torch.manual_seed(0)
    frontend = USR(SIZES["tiny"]).video_frontend.eval()
    video = torch.randn(2, FRAMES_AT_ONCE + 30, 88, 88)
    with torch.no_grad():
        parts = frontend(video)
    torch.testing.assert_close(parts, frontend(video).detach(), atol=1e-5, rtol=1e-4)
