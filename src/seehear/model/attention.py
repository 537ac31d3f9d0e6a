"""Attention: over relative positions in the encoder, with a key-value cache in the decoder.

Legend: B sequences, T frames, U tokens, H heads, C width of a head, D = H·C. Masks are True where a key may be seen.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, D) → (B, H, T, C)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, H, T, C) → (B, T, D)."""
    return x.transpose(1, 2).flatten(-2)


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Interleaved sine and cosine of `positions` (N,) at the frequencies 10000^(−2i/D): (N, D)."""
    exponents = torch.arange(0, dim, 2, device=positions.device, dtype=torch.float32) / dim
    angles = positions[:, None].float() * torch.pow(10_000.0, -exponents)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def relative_table(length: int, dim: int, device: torch.device) -> Tensor:
    """Sinusoids (2T−1, D) of the relative positions T−1, …, 0, …, −(T−1)."""
    return sinusoids(torch.arange(length - 1, -length, -1, device=device), dim)


def relative_shift(scores: Tensor) -> Tensor:
    """(B, H, T, 2T−1) scores by relative position → (B, H, T, T) scores by key.

    Query i and key j meet at relative position i−j, which stands in column T−1−i+j: each row starts a column further
    left than the one above. One column of padding makes the rows slide into place (Transformer-XL, appendix B).
    """
    *leading, length, width = scores.shape
    padded = F.pad(scores, (1, 0)).view(*leading, width + 1, length)
    return padded[..., 1:, :].reshape(*leading, length, width)[..., :length]


class RelativeSelfAttention(nn.Module):
    """Self-attention with logits ((q+u)·k + (q+v)·p) / √C, p the projected sinusoid of i−j (METHOD §1)."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.position = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim)
        self.content_bias = nn.Parameter(torch.zeros(num_heads, dim // num_heads))
        """u"""
        self.position_bias = nn.Parameter(torch.zeros(num_heads, dim // num_heads))
        """v"""

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D), the relative table (2T−1, D) and the mask (B, T) of real frames → (B, T, D)."""
        query, key, value = (split_heads(layer(x), self.num_heads) for layer in (self.query, self.key, self.value))
        by_position = split_heads(self.position(positions)[None], self.num_heads)  # (1, H, 2T−1, C)
        scores = (query + self.position_bias[:, None].to(query.dtype)) @ by_position.transpose(-1, -2)
        bias = relative_shift(scores) * query.shape[-1] ** -0.5  # (B, H, T, T)
        bias = bias.masked_fill(~mask[:, None, None], torch.finfo(bias.dtype).min)
        attended = F.scaled_dot_product_attention(
            query + self.content_bias[:, None].to(query.dtype),
            key,
            value,
            attn_mask=bias,
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.out(merge_heads(attended))


class LayerCache:
    """Keys and values (B, H, ·, C) of one decoder layer: of the tokens so far, and of the encoder features."""

    def __init__(self) -> None:
        self.own: tuple[Tensor, Tensor] | None = None
        self.encoder: tuple[Tensor, Tensor] | None = None

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Append the keys and values of new tokens; return those of all tokens."""
        if self.own is not None:
            key, value = torch.cat([self.own[0], key], dim=2), torch.cat([self.own[1], value], dim=2)
        self.own = (key, value)
        return self.own

    def select(self, rows: Tensor) -> None:
        """Keep the sequences `rows` (N,), in this order."""
        self.own = (self.own[0][rows], self.own[1][rows]) if self.own else None
        self.encoder = (self.encoder[0][rows], self.encoder[1][rows]) if self.encoder else None


class DecoderCache:
    """What the decoder remembers between tokens."""

    def __init__(self, num_layers: int) -> None:
        self.layers = [LayerCache() for _ in range(num_layers)]
        self.length = 0
        """Tokens seen."""

    def select(self, rows: Tensor) -> None:
        """Keep the sequences `rows` (N,), in this order: finished ones leave, beams are reordered."""
        for layer in self.layers:
            layer.select(rows)


class Attention(nn.Module):
    """Attention of a decoder layer, either causal over its own tokens or over the encoder's features."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def causal(self, x: Tensor, cache: LayerCache | None) -> Tensor:
        """Each token (of `x` (B, U, D)) sees itself and those before it, the cached ones too."""
        query, key, value = (split_heads(layer(x), self.num_heads) for layer in (self.query, self.key, self.value))
        if cache is not None:
            key, value = cache.extend(key, value)
        new, total = query.shape[2], key.shape[2]
        mask = torch.ones(new, total, dtype=torch.bool, device=x.device).tril(total - new)
        return self._attend(query, key, value, mask)

    def cross(self, x: Tensor, features: Tensor, mask: Tensor, cache: LayerCache | None) -> Tensor:
        """Each token sees the real frames (mask (B, T)) of `features` (B, T, D)."""
        query = split_heads(self.query(x), self.num_heads)
        keys_values = cache.encoder if cache is not None else None
        if keys_values is None:
            keys_values = (
                split_heads(self.key(features), self.num_heads),
                split_heads(self.value(features), self.num_heads),
            )
            if cache is not None:
                cache.encoder = keys_values
        return self._attend(query, *keys_values, mask[:, None, None])

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        return self.out(
            merge_heads(F.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout))
        )
