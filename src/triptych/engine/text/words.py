"""A small text tower: a frozen table of word vectors, then a transformer over it for order (arXiv:1706.03762)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.engine.conditioning import Conditioning
from triptych.engine.nets.attention import attention

__all__ = ["WordTower"]


class TransformerLayer(nn.Module):
    """Attention and a feed-forward layer, each behind a norm and beside a skip (arXiv:2002.04745)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.norm_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.rise, self.fall = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, L, width), mask (B, L) True where tokens are real."""
        q, k, v = self.qkv(self.norm_1(x)).chunk(3, dim=-1)
        x = x + self.out(attention(q, k, v, self.heads, mask))
        return x + self.fall(F.gelu(self.rise(self.norm_2(x))))


class WordTower(nn.Module):
    """Token ids (B, L) to attended tokens (B, L, width) and a vector (B, width), the mean over real tokens.

    The table is int8 with one scale a row, and never trained: words that the captions lack keep the place that the
    language model they were distilled from gave them.
    """

    def __init__(
        self, words: int, features: int = 128, width: int = 256, *, layers: int = 2, heads: int = 4, length: int = 32
    ) -> None:
        super().__init__()
        self.table = nn.Buffer(torch.zeros(words, features, dtype=torch.int8))
        self.scale = nn.Buffer(torch.ones(words, 1))
        self.enter = nn.Linear(features, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        self.layers = nn.ModuleList(TransformerLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    @property
    def length(self) -> int:
        """The most tokens that a text may have."""
        return self.position.shape[0]

    def forward(self, ids: Tensor, mask: Tensor) -> Conditioning:
        """ids (B, L) indices of the table, mask (B, L) True where tokens are real."""
        vectors = self.table[ids].to(self.enter.weight.dtype) * self.scale[ids].to(self.enter.weight.dtype)
        x = self.enter(vectors) + self.position[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x, mask)
        x = self.norm(x)
        real = mask[..., None].to(x.dtype)
        return Conditioning(tokens=x, mask=mask, vector=(x * real).sum(1) / real.sum(1).clamp(min=1))
