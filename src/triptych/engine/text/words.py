"""A small text tower: a frozen table of word vectors, then a transformer over it for order (arXiv:1706.03762).

Beside what is attended to it gives a sketch: its guess of the latents' mean, E[x_0 | text], stacked under x_t (as the
encoder's mean in arXiv:2105.06337). A memory learns in minutes what hundreds of names look like, where a denoiser needs
days, and leaves the denoiser with drawing it well.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.engine.conditioning import Conditioning
from triptych.engine.loops import Loops
from triptych.engine.nets.attention import attention
from triptych.engine.pitch import Pitch
from triptych.engine.poses import Course
from triptych.engine.pulse import Pulse

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


class Memory(nn.Module):
    """What things look like at one size: a window of mean latents for each, and where a text puts it.

    A window is kept as `rank` coordinates in a basis that all things share. Every text has one or several `reads`, each
    a mixture of things, laid into the grid with a weight for every place that it fits: three of a kind have three.
    """

    def __init__(
        self, width: int, slots: int, grid: Sequence[int], *, window: Sequence[int], rank: int, reads: int = 1
    ) -> None:
        """grid: (C, *S) of the latents; window: how much of S a thing takes."""
        super().__init__()
        self.window, self.reads, self.channels = tuple(window), reads, grid[0]
        self.steps = tuple(whole - part + 1 for whole, part in zip(grid[1:], window, strict=True))
        self.values = nn.Buffer(torch.zeros(slots, rank))
        self.basis = nn.Buffer(torch.zeros(rank, self.channels * math.prod(window)))
        self.places = nn.Linear(width, reads * math.prod(self.steps))
        nn.init.zeros_(self.places.weight)
        nn.init.constant_(self.places.bias, float(self.window == tuple(grid[1:])))

    def forward(self, vector: Tensor, recalled: Tensor) -> Tensor:
        """vector (B, width), recalled (B, reads or more, slots) shares of each thing, to (B, C, *S)."""
        windows = recalled[:, : self.reads].flatten(0, 1) @ self.values @ self.basis
        places = self.places(vector).reshape(-1, *self.steps)
        lay = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[len(self.window) - 1]
        kernels = windows.reshape(len(places), self.channels, *self.window)
        out = lay(places[None], kernels, groups=len(vector))
        return out.reshape(len(vector), self.channels, *out.shape[2:])

    @torch.no_grad()
    def remember(self, means: Tensor) -> None:
        """Keeps the middle of the mean latents (slots, C, *S) of its things, as near as its rank allows."""
        for axis, part in enumerate(self.window, start=2):
            means = means.narrow(axis, (means.shape[axis] - part) // 2, part)
        flat = means.flatten(1).float()
        basis = torch.linalg.svd(flat, full_matrices=False).Vh[: self.basis.shape[0]]
        self.basis.copy_(basis)
        self.values.copy_(flat @ basis.T)


class Sketch(nn.Module):
    """A vector (B, width) to latents (B, *grid): memories of what things look like, and a dense correction.

    Each slot of the memories is a thing, with a learned key; what a text recalls is a mixture by softmax over the keys
    (arXiv:1503.08895), once for each thing that it may name.
    """

    def __init__(
        self, width: int, hidden: int, slots: int, grid: Sequence[int], memories: Sequence[Mapping[str, Any]]
    ) -> None:
        """hidden: of the dense correction; memories: what `Memory` takes, for each size."""
        super().__init__()
        self.grid = tuple(grid)
        self.memories = nn.ModuleList(Memory(width, slots, grid, **settings) for settings in memories)
        self.reads = max((settings.get("reads", 1) for settings in memories), default=1)
        self.query, self.keys = nn.Linear(width, self.reads * width), nn.Parameter(torch.randn(slots, width) * 0.1)
        self.enter, self.leave = nn.Linear(width, hidden), nn.Linear(hidden, math.prod(grid))

    def scores(self, vector: Tensor) -> Tensor:
        """(B, reads, slots) the logarithm of how much of each slot is recalled, up to a constant."""
        scores: Tensor = self.query(vector).unflatten(-1, (self.reads, -1)) @ self.keys.T
        return scores

    def forward(self, vector: Tensor) -> Tensor:
        recalled = self.scores(vector).softmax(-1)
        out: Tensor = self.leave(F.gelu(self.enter(vector))).reshape(-1, *self.grid)
        return sum((memory(vector, recalled) for memory in self.memories), start=out)

    @torch.no_grad()
    def remember(self, ground: Tensor, means: Sequence[Tensor]) -> None:
        """ground (C, *S): latents of nothing at all; means: for each memory the mean latents (slots, C, *S) of its
        things, in the middle, as large as it holds them."""
        self.leave.bias.copy_(ground.flatten())
        for memory, whole in zip(self.memories, means, strict=True):
            assert isinstance(memory, Memory)
            memory.remember(whole - ground)


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
        sketch: Mapping[str, Any],
        course: Mapping[str, Any] | None = None,
        loops: Mapping[str, Any] | None = None,
        pulse: Mapping[str, Any] | None = None,
        pitch: Mapping[str, Any] | None = None,
    ) -> None:
        """length: the most tokens; sketch, course, loops, pulse, pitch: what `Sketch`, `Course`, `Loops`, `Pulse`
        and `Pitch` take beside the width, of a tower that has them."""
        super().__init__()
        self.table = nn.Buffer(torch.zeros(words, features, dtype=torch.int8))
        self.scale = nn.Buffer(torch.ones(words, 1))
        self.enter = nn.Linear(features, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.02)
        self.layers = nn.ModuleList(TransformerLayer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.sketch = Sketch(width, **sketch)
        self.course = None if course is None else Course(width, **course)
        self.loops = None if loops is None else Loops(width, self.sketch.grid, **loops)
        self.pulse = None if pulse is None else Pulse(width, **pulse)
        self.pitch = None if pitch is None else Pitch(width, **pitch)

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
