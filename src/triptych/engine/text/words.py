"""A small text tower: a frozen table of word vectors, then a transformer over it for order (arXiv:1706.03762).

Beside what is attended to it gives a sketch: its guess of the latents' mean, E[x_0 | text], learned by regression and
stacked under x_t (as the encoder's mean in arXiv:2105.06337). A few dense layers memorise what hundreds of names look
like far faster than a denoiser does, which is then left with drawing it well.
"""

import math
from collections.abc import Sequence

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
        out: Tensor = x + self.fall(F.gelu(self.rise(self.norm_2(x))))
        return out


class Sketch(nn.Module):
    """A vector (B, width) to latents (B, *grid)."""

    def __init__(self, width: int, hidden: int, grid: Sequence[int]) -> None:
        super().__init__()
        self.grid = tuple(grid)
        self.enter, self.between = nn.Linear(width, hidden), nn.Linear(hidden, hidden)
        self.leave = nn.Linear(hidden, math.prod(grid))

    def forward(self, vector: Tensor) -> Tensor:
        h = F.gelu(self.enter(vector))
        h = h + F.gelu(self.between(h))
        out: Tensor = self.leave(h)
        return out.reshape(-1, *self.grid)


class WordTower(nn.Module):
    """Token ids (B, L) to attended tokens (B, L, width), a vector (B, width), the mean over real tokens, and a sketch.

    The table is int8 with one scale a row, and never trained: words that the captions lack keep the place that the
    language model they were distilled from gave them.
    """

    def __init__(
        self,
        words: int,
        features: int,
        width: int,
        *,
        layers: int,
        heads: int,
        length: int,
        hidden: int,
        grid: Sequence[int],
    ) -> None:
        """length: the most tokens; hidden: the sketch's inner width; grid: (C, *latents) of the sketch."""
        super().__init__()
        self.table = nn.Buffer(torch.zeros(words, features, dtype=torch.int8))
        self.scale = nn.Buffer(torch.ones(words, 1))
        self.enter = nn.Linear(features, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        self.layers = nn.ModuleList(TransformerLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.sketch = Sketch(width, hidden, grid)

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
        vector = (x * real).sum(1) / real.sum(1).clamp(min=1)
        return Conditioning(tokens=x, mask=mask, vector=vector, concat=self.sketch(vector))
