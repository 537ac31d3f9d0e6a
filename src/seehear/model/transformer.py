"""The encoder and decoder stacks: pre-norm blocks, LayerNorm in float32 (METHOD §1)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seehear.model.attention import (
    Attention,
    DecoderCache,
    LayerCache,
    RelativeSelfAttention,
    relative_table,
    sinusoids,
)


class LayerNorm(nn.LayerNorm):
    """Layer normalisation, always in float32: its epsilon of 1e-12 is nothing to bfloat16."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) → (…, D) float32."""
        return super().forward(x.float())


class FeedForward(nn.Module):
    """Linear, ReLU, dropout, Linear."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden_dim)
        self.contract = nn.Linear(hidden_dim, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) → (…, D)."""
        return self.contract(self.dropout(F.relu(self.expand(x))))


class StochasticDepth(nn.Module):
    """Drops a residual branch of whole sequences in training, and scales up those that stay."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        if not self.training or self.probability == 0.0:
            return branch
        keep = 1.0 - self.probability
        drawn = torch.rand(len(branch), 1, 1, device=branch.device) < keep
        return branch * (drawn.to(branch.dtype) / keep)


class EncoderBlock(nn.Module):
    """x + γ₁·drop(attention(LN x)), then x + γ₂·drop(feed-forward(LN x))."""

    def __init__(
        self, dim: int, num_heads: int, ffn_dim: int, dropout: float, stochastic_depth: float, layer_scale: float
    ) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(dim)
        self.attention = RelativeSelfAttention(dim, num_heads, dropout)
        self.attention_scale = nn.Parameter(torch.full((dim,), layer_scale))
        self.ffn_norm = LayerNorm(dim)
        self.ffn = FeedForward(dim, ffn_dim, dropout)
        self.ffn_scale = nn.Parameter(torch.full((dim,), layer_scale))
        self.dropout = nn.Dropout(dropout)
        self.stochastic_depth = StochasticDepth(stochastic_depth)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) → (B, T, D)."""
        attended = self.dropout(self.attention(self.attention_norm(x), positions, mask))
        x = x + self.stochastic_depth(self.attention_scale * attended)
        return x + self.stochastic_depth(self.ffn_scale * self.dropout(self.ffn(self.ffn_norm(x))))


class Encoder(nn.Module):
    """Blocks over frames; the input is scaled by √D, positions are relative."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        ffn_dim: int,
        num_layers: int,
        dropout: float,
        stochastic_depth: float,
        layer_scale: float,
    ) -> None:
        super().__init__()
        self.dim = dim
        # The sources give one rate; that it rises linearly with depth, as usual with this technique, is our choice.
        rates = [stochastic_depth * (layer + 1) / num_layers for layer in range(num_layers)]
        self.blocks = nn.ModuleList(EncoderBlock(dim, num_heads, ffn_dim, dropout, rate, layer_scale) for rate in rates)
        self.norm = LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D) and the mask (B, T) of real frames → (B, T, D)."""
        positions = self.dropout(relative_table(x.shape[1], self.dim, x.device))
        x = self.dropout(x.float() * math.sqrt(self.dim))
        for block in self.blocks:
            x = block(x, positions, mask)
        return self.norm(x)


class DecoderBlock(nn.Module):
    """Causal self-attention, attention over the encoder's features, feed-forward; each added to its input."""

    def __init__(self, dim: int, num_heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.self_norm = LayerNorm(dim)
        self.self_attention = Attention(dim, num_heads, dropout)
        self.cross_norm = LayerNorm(dim)
        self.cross_attention = Attention(dim, num_heads, dropout)
        self.ffn_norm = LayerNorm(dim)
        self.ffn = FeedForward(dim, ffn_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, features: Tensor, mask: Tensor, cache: LayerCache | None) -> Tensor:
        """Tokens (B, U, D) over features (B, T, D) with mask (B, T) → (B, U, D)."""
        x = x + self.dropout(self.self_attention.causal(self.self_norm(x), cache))
        x = x + self.dropout(self.cross_attention.cross(self.cross_norm(x), features, mask, cache))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


class Decoder(nn.Module):
    """Token embedding, absolute positions, blocks; narrower features pass one shared Linear first."""

    def __init__(
        self, vocab_size: int, feature_dim: int, dim: int, num_heads: int, ffn_dim: int, num_layers: int, dropout: float
    ) -> None:
        super().__init__()
        self.dim = dim
        self.embedding = nn.Embedding(vocab_size, dim)
        self.features = nn.Linear(feature_dim, dim) if feature_dim != dim else nn.Identity()
        self.blocks = nn.ModuleList(DecoderBlock(dim, num_heads, ffn_dim, dropout) for _ in range(num_layers))
        self.norm = LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, features: Tensor, mask: Tensor, cache: DecoderCache | None) -> Tensor:
        """Tokens (B, U), only the new ones if there is a cache, over features (B, T, ·) → (B, U, D)."""
        start = cache.length if cache is not None else 0
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        x = self.dropout(self.embedding(tokens) * math.sqrt(self.dim) + sinusoids(positions, self.dim))
        if cache is None or cache.length == 0:
            features = self.features(features)
        layers = cache.layers if cache is not None else [None] * len(self.blocks)
        for block, layer_cache in zip(self.blocks, layers, strict=True):
            x = block(x, features, mask, layer_cache)
        if cache is not None:
            cache.length += tokens.shape[1]
        return self.norm(x)
