"""Attention: with relative positions for the encoder, on remembered keys and values for the decoder (METHOD §1).

B rows, H heads, U queries, T keys, D width, C = D / H width of a head. Masks are True on what may be seen.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seehear.model.weights import Linear


def sinusoids(positions: Tensor, dim: int) -> Tensor:
    """Sine and cosine, interleaved, of `positions` (P,) at the frequencies 10000^(−2i/dim): (P, dim)."""
    frequencies = torch.exp(torch.arange(0, dim, 2, device=positions.device) * (-math.log(10_000.0) / dim))
    angles = positions[:, None].float() * frequencies
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


def relative_positions(num_frames: int, dim: int, device: torch.device) -> Tensor:
    """Sinusoids (2T−1, dim) of the relative positions T−1, …, 0, …, −(T−1)."""
    return sinusoids(torch.arange(num_frames - 1, -num_frames, -1, device=device), dim)


def relative_to_keys(scores: Tensor) -> Tensor:
    """From scores of each query with each relative position (…, T, 2T−1) to scores with each key (…, T, T).

    Query i meets key j at the relative position i−j, in column T−1−i+j. So the T scores of a query begin 2T−2 numbers
    after those of the query before: cutting the same memory into rows of 2T−2 lines them up, and nothing is copied.
    """
    T = scores.shape[-2]
    if T == 1:
        return scores
    return scores.flatten(-2)[..., T - 1 : -1].unflatten(-1, (T, 2 * T - 2))[..., :T]  # type: ignore[no-any-return, no-untyped-call]


class KeysValues(NamedTuple):
    """What queries attend to."""

    keys: Tensor
    """(B, H, T, C)."""
    values: Tensor
    """(B, H, T, C)."""

    def select(self, rows: Tensor) -> "KeysValues":
        """Those of `rows` (N,)."""
        return KeysValues(self.keys[rows], self.values[rows])

    def contiguous(self) -> "KeysValues":
        """The same, head by head in memory, to be read often."""
        return KeysValues(self.keys.contiguous(), self.values.contiguous())

    def extend(self, new: "KeysValues") -> "KeysValues":
        """These, followed by `new` ones of the same rows."""
        return KeysValues(torch.cat([self.keys, new.keys], dim=2), torch.cat([self.values, new.values], dim=2))


class Attention(nn.Module):
    """Multi-head attention: softmax(q·k / √C)·v between linear layers."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.query = Linear(dim, dim)
        self.key = Linear(dim, dim)
        self.value = Linear(dim, dim)
        self.output = Linear(dim, dim)

    def keys_values(self, x: Tensor) -> KeysValues:
        """Keys and values of `x` (B, T, D)."""
        return KeysValues(self.split_heads(self.key(x)), self.split_heads(self.value(x)))

    def forward(self, x: Tensor, memory: KeysValues, mask: Tensor | None = None) -> Tensor:
        """What `x` (B, U, D) finds in `memory` under `mask` (broadcast to (B, H, U, T)): (B, U, D)."""
        return self.attend(self.split_heads(self.query(x)), memory, mask)

    def split_heads(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, H, T, C)."""
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # type: ignore[no-any-return, no-untyped-call]

    def attend(self, queries: Tensor, memory: KeysValues, mask: Tensor | None) -> Tensor:
        """`queries` (B, H, U, C) on `memory`; a mask of floats is added to the logits. (B, U, D)."""
        dropout = self.dropout if self.training else 0.0
        learned_bias = mask is not None and mask.requires_grad
        if queries.device.type == "cpu" and (learned_bias or queries.shape[2] == 1):
            heads = _attend_unfused(queries, memory, mask, dropout)
        else:
            heads = F.scaled_dot_product_attention(queries, *memory, attn_mask=mask, dropout_p=dropout)
        return self.output(heads.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def _attend_unfused(queries: Tensor, memory: KeysValues, mask: Tensor | None, dropout: float) -> Tensor:
    """`F.scaled_dot_product_attention` where PyTorch's kernels for the CPU are slow.

    It has none for a bias that learns: this is a third faster than what it falls back to. And for one query, as in
    decoding token by token, this is six times faster in bfloat16.
    """
    keys, values = (part.flatten(0, 1) for part in memory)  # (B·H, T, C)
    scale = 1.0 / math.sqrt(queries.shape[-1])
    logits = torch.baddbmm(_bias(mask, queries), queries.flatten(0, 1), keys.transpose(1, 2), alpha=scale)
    weights = F.dropout(logits.softmax(-1), dropout)
    return (weights @ values).view_as(queries)


def _bias(mask: Tensor | None, queries: Tensor) -> Tensor:
    """What to add to the logits (B·H, U, T) of `queries` (B, H, U, C), or what broadcasts to it."""
    if mask is None:
        return queries.new_zeros(())
    if mask.dtype == torch.bool:
        mask = queries.new_zeros(mask.shape).masked_fill_(~mask, -math.inf)
    return mask.expand(*queries.shape[:3], -1).flatten(0, 1)


class RelativeAttention(Attention):
    """Self-attention whose logits see content and distance: ((q_i + u)·k_j + (q_i + v)·p_{i−j}) / √C.

    p is the projected sinusoid of the relative position, u and v are learned for each head (Transformer-XL).
    """

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__(dim, num_heads, dropout)
        self.position = Linear(dim, dim, bias=False)
        self.content_bias = nn.Parameter(torch.zeros(num_heads, dim // num_heads))
        """u."""
        self.position_bias = nn.Parameter(torch.zeros(num_heads, dim // num_heads))
        """v."""

    def forward(self, x: Tensor, positions: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        """`x` (B, T, D) on itself where `mask` (B, T); `positions` (2T−1, D) from `relative_positions`."""
        queries = self.split_heads(self.query(x))  # (B, H, T, C)
        places = self.split_heads(self.position(positions)[None])  # (1, H, 2T−1, C)
        content_bias, position_bias = (b[:, None].to(queries.dtype) for b in (self.content_bias, self.position_bias))
        to_places = (queries + position_bias) / math.sqrt(queries.shape[-1])
        bias = relative_to_keys(to_places @ places.transpose(2, 3))  # (B, H, T, T)
        bias = bias.masked_fill(~mask[:, None, None], -math.inf)
        return self.attend(queries + content_bias, self.keys_values(x), bias)
