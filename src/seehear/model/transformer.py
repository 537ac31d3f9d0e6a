"""The encoder and decoder stacks: pre-norm blocks of attention and feed-forward layers (METHOD §1).

B rows, T frames, U tokens, D width. Masks are True on what is real.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seehear.config import EncoderConfig, ModelConfig
from seehear.model.attention import Attention, KeysValues, RelativeAttention, relative_positions, sinusoids
from seehear.model.weights import Linear

NORM_EPSILON = 1e-12


class LayerNorm(nn.LayerNorm):
    """Layer normalisation, in float32 whatever comes in: half precision knows no ε of 1e-12."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim, eps=NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) to (…, D) float32."""
        return F.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps)


class FeedForward(nn.Module):
    """Linear, ReLU, dropout, Linear."""

    def __init__(self, dim: int, hidden_dim: int, dropout: float) -> None:
        super().__init__()
        self.expand = Linear(dim, hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.contract = Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) to (…, D)."""
        return self.contract(self.dropout(F.relu(self.expand(x))))  # type: ignore[no-any-return]


class StochasticDepth(nn.Module):
    """In training, drops the residual branch of a row with probability `rate`; the others grow by 1 / (1 − rate)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """(B, T, D) to (B, T, D)."""
        if not self.training or self.rate == 0.0:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.rate
        return branch * (kept / (1.0 - self.rate))


class EncoderLayer(nn.Module):
    """x + γ₁·drop(MHA(LN x)), then x + γ₂·drop(FFN(LN x))."""

    def __init__(self, config: EncoderConfig, stochastic_depth: float) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(config.dim)
        self.attention = RelativeAttention(config.dim, config.num_heads, config.dropout)
        self.attention_scale = nn.Parameter(torch.full((config.dim,), config.layer_scale))
        """γ₁."""
        self.ffn_norm = LayerNorm(config.dim)
        self.ffn = FeedForward(config.dim, config.ffn_dim, config.dropout)
        self.ffn_scale = nn.Parameter(torch.full((config.dim,), config.layer_scale))
        """γ₂."""
        self.dropout = nn.Dropout(config.dropout)
        self.stochastic_depth = StochasticDepth(stochastic_depth)

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """`x` (B, T, D), `positions` (2T−1, D), `mask` (B, T)."""
        attended: Tensor = self.attention(self.attention_norm(x), positions, mask)
        x = x + self.stochastic_depth(self.attention_scale * self.dropout(attended))
        fed: Tensor = self.ffn(self.ffn_norm(x))
        x = x + self.stochastic_depth(self.ffn_scale * self.dropout(fed))
        return x


def _run(layer: nn.Module, recompute: bool, *inputs: Any) -> Any:
    """What `layer` makes of `inputs`; with `recompute` nothing in between is kept for the gradient."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)


class Encoder(nn.Module):
    """Blocks with relative positions, and a final normalisation.

    Stochastic depth rises linearly: of n blocks, block i (from 1) drops with probability i/n of the configured one.
    (The paper gives one rate and no more; this is the usual reading.)
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        count = config.num_encoder_layers
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(config, config.stochastic_depth * (layer + 1) / count) for layer in range(count)
        )
        self.norm = LayerNorm(config.dim)
        self.recompute = False
        """Whether training keeps only the input of each block (activation checkpointing)."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """`x` (B, T, D) with `mask` (B, T) to float32 (B, T, D), meaningless at padding."""
        T, D = x.shape[1:]
        positions = relative_positions(T, D, x.device)
        x = self.dropout(x.float() * math.sqrt(D))
        for layer in self.layers:
            x = _run(layer, self.recompute, x, positions, mask)
        return self.norm(x)  # type: ignore[no-any-return]


class DecoderCache:
    """What the decoder remembers between calls, so that each token passes it once. It starts empty.

    Several rows of tokens may share a clip: N rows on B clips, N = k·B, of which row n belongs to clip n // k.
    """

    def __init__(self) -> None:
        self.num_tokens = 0
        """Tokens seen in each row."""
        self.tokens: list[KeysValues] = []
        """Of these tokens, per layer: (N, H, U, C)."""
        self.clips: list[KeysValues] = []
        """Of the encoded clips, per layer: (B, H, T, C)."""
        self.mask: Tensor | None = None
        """(B, T), real frames of the clips."""

    def select(self, rows: Tensor, clips: Tensor | None = None) -> None:
        """Go on with `rows` of tokens (any order, repeated if wanted) on `clips`; None leaves the clips as they are."""
        for place, layer in enumerate(self.tokens):  # one by one: there is never a second copy of all
            self.tokens[place] = layer.select(rows)
        if clips is not None and self.mask is not None:
            self.clips = [layer.select(clips) for layer in self.clips]
            self.mask = self.mask[clips]


class DecoderLayer(nn.Module):
    """Causal self-attention, attention on the encoded clip, feed-forward: each x + drop(f(LN x))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim, heads, dropout = config.decoder_dim, config.decoder_num_heads, config.dropout
        self.self_norm = LayerNorm(dim)
        self.self_attention = Attention(dim, heads, dropout)
        self.cross_norm = LayerNorm(dim)
        self.cross_attention = Attention(dim, heads, dropout)
        self.ffn_norm = LayerNorm(dim)
        self.ffn = FeedForward(dim, config.decoder_ffn_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, past: KeysValues | None, clips: KeysValues, mask: Tensor) -> tuple[Tensor, KeysValues]:
        """`x` (N, U, D) after the tokens `past`, on `clips` with `mask` (B, T); also keys and values of all tokens."""
        N, U, D = x.shape
        normed = self.self_norm(x)
        tokens = self.self_attention.keys_values(normed)
        if past is not None:
            tokens = past.extend(tokens)
        x = x + self.dropout(self.self_attention(normed, tokens, _causal(U, tokens.keys.shape[2], x.device)))
        queries = self.cross_norm(x).view(len(mask), -1, D)  # rows that share a clip are so many more queries on it
        x = x + self.dropout(self.cross_attention(queries, clips, mask[:, None, None]).view(N, U, D))
        return x + self.dropout(self.ffn(self.ffn_norm(x))), tokens


def _causal(queries: int, keys: int, device: torch.device) -> Tensor | None:
    """(U, T) which of all tokens each of the last sees; None where the last is the only one, and sees them all."""
    if queries == 1:
        return None
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


class Decoder(nn.Module):
    """Token embedding·√D with absolute sinusoids, blocks, a final normalisation.

    If it is narrower or wider than the encoder, the features pass one Linear first.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.embedding = nn.Embedding(config.vocab_size, dim)
        self.source: nn.Module = Linear(config.dim, dim) if config.dim != dim else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_decoder_layers))
        self.norm = LayerNorm(dim)
        self.recompute = False
        """As the encoder's."""

    def forward(self, tokens: Tensor, features: Tensor, mask: Tensor, cache: DecoderCache | None = None) -> Tensor:
        """States (N, U, Ddec) of `tokens` (N, U) on `features` (B, T, D) with `mask` (B, T).

        With a cache, `tokens` are the new ones only, and `features` and `mask` are read in its first call.
        """
        once = cache is None
        cache = DecoderCache() if cache is None else cache
        if cache.mask is None:
            source = self.source(features)
            for layer in self.layers:
                clips: KeysValues = layer.cross_attention.keys_values(source)  # type: ignore[union-attr, operator]
                cache.clips.append(clips if once else clips.contiguous())
            cache.mask = mask
        x = self._embed(tokens, cache.num_tokens)
        for place, (layer, encoded) in enumerate(zip(self.layers, cache.clips, strict=True)):
            past = cache.tokens[place] if cache.num_tokens else None
            x, seen = _run(layer, self.recompute, x, past, encoded, cache.mask)
            cache.tokens[place : place + 1] = [seen]
        cache.num_tokens += tokens.shape[1]
        return self.norm(x)  # type: ignore[no-any-return]

    def _embed(self, tokens: Tensor, start: int) -> Tensor:
        """(N, U, Ddec) of `tokens` (N, U), the first of which stands at position `start`."""
        D = self.embedding.embedding_dim
        positions = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        return self.dropout(self.embedding(tokens).float() * math.sqrt(D) + sinusoids(positions, D))  # type: ignore[no-any-return]
