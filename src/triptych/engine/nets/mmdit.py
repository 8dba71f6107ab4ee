"""The transformer of Stable Diffusion 3 (arXiv:2403.03206) and 3.5: two streams of tokens that attend to each other.

One stream holds patches of the latent, the other what the conditioning's tokens say. Each has layers of its own, scaled
and shifted by the time and the conditioning's vector (arXiv:2212.09748, adaLN-Zero), and they meet in attention alone.
In the first blocks of some, places attend among themselves once more.

Modules bear the names of the published checkpoints, so that those load as they are.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from triptych.engine.conditioning import Conditioning
from triptych.engine.nets.attention import attention
from triptych.engine.nets.fast import Inner
from triptych.engine.nets.kept import Kept
from triptych.engine.nets.layers import rms_normed, sines
from triptych.errors import InvalidField

__all__ = [
    "PATCH",
    "SD3_MEDIUM",
    "SD35_LARGE",
    "SD35_MEDIUM",
    "Block",
    "Embedder",
    "FREQUENCIES",
    "MMDiT",
    "Patches",
    "Shape",
    "cropped",
    "positions",
    "waves",
]

PATCH = 2  # latents a side
FREQUENCIES = 128  # of the time
LATTICE = 64  # the table of positions, of whatever side, is spread over as many units: 1024 pixels


@final
@dataclass(frozen=True, slots=True)
class Shape:
    """All numbers of one network."""

    depth: int  # blocks, two at least
    width: int
    heads: int
    side: int = 192  # of the table of positions, in patches
    normed: bool = False  # whether queries and keys are, head by head
    dual: int = 0  # the first blocks, in which places attend among themselves once more
    channels: int = 16  # of the latent
    context: int = 4096  # channels of the tokens
    vector: int = 2048  # channels of the conditioning's vector


SD3_MEDIUM = Shape(depth=24, width=1536, heads=24)
SD35_MEDIUM = Shape(depth=24, width=1536, heads=24, side=384, normed=True, dual=13)
SD35_LARGE = Shape(depth=38, width=2432, heads=38, normed=True)


class MMDiT(nn.Module):
    """Latents of any even size that its table of positions covers."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.x_embedder = Patches(shape.channels, shape.width)
        self.t_embedder = Embedder(2 * FREQUENCIES, shape.width)
        self.y_embedder = Embedder(shape.vector, shape.width)
        self.context_embedder = nn.Linear(shape.context, shape.width)
        self.pos_embed: Tensor
        self.register_buffer("pos_embed", positions(shape.side, shape.width))
        self.joint_blocks = nn.ModuleList(
            Block(shape, joint=True, dual=index < shape.dual, last=index == shape.depth - 1)
            for index in range(shape.depth)
        )
        self.final_layer = Last(shape.width, shape.channels)
        self._words, self._vector = Kept(), Kept()

    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning, control: Iterable[Tensor] = ()) -> Tensor:
        """x (B, C, H, W), timestep (B,) in [0, 1000] -> (B, C, H, W) in the network's dtype.

        cond.tokens (B, L, context), cond.vector (B, vector); control: what is added to the stream of places after each
        block, (B, H W / 4, width) each, as long as there is any.
        """
        embedding = self._embedding(timestep, cond)
        h = last_of(self._left(x, embedding, cond, control))
        out: Tensor = self.final_layer(h, embedding, x.shape[2:])
        return out

    def around(
        self, inner: Inner, x: Tensor, timestep: Tensor, cond: Conditioning, control: Iterable[Tensor] = ()
    ) -> Tensor:
        """forward, where what all blocks but the first add to the stream goes through `inner`, in float32; of
        `control`, no more is taken than what is computed needs."""
        embedding = self._embedding(timestep, cond)
        left = self._left(x, embedding, cond, control)
        first = next(left)
        h = first + inner(lambda: last_of(left).float() - first)
        out: Tensor = self.final_layer(h.to(first.dtype), embedding, x.shape[2:])
        return out

    def entered(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, H W / 4, width): patches at their positions. Raises InvalidField."""
        table = cropped(self.pos_embed, x.shape[2:])
        h: Tensor = self.x_embedder(x.to(table.dtype)) + table
        return h

    def _embedding(self, timestep: Tensor, cond: Conditioning) -> Tensor:
        """(B, width) what time and cond.vector say to the blocks, activated."""
        assert cond.vector is not None, "this network takes a vector"
        dtype = self.pos_embed.dtype
        said = self._vector(self.y_embedder, cond.vector, dtype)
        return F.silu(self.t_embedder(waves(timestep, dtype)) + said)

    def _left(self, x: Tensor, embedding: Tensor, cond: Conditioning, control: Iterable[Tensor]) -> Iterator[Tensor]:
        """The stream of places as each of the blocks leaves it."""
        assert cond.tokens is not None, "this network attends to tokens"
        words: Tensor | None = self._words(self.context_embedder, cond.tokens, self.pos_embed.dtype)
        h, changes = self.entered(x), iter(control)
        for block in self.joint_blocks:
            h, words = block(h, words, embedding, cond.mask)
            change = next(changes, None)
            h = h if change is None else h + change
            yield h


class Patches(nn.Module):
    """Every patch as one token."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, PATCH, stride=PATCH)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, C, H, W) -> (B, H W / 4, width)."""
        h: Tensor = self.proj(x.contiguous(memory_format=torch.channels_last))
        return rearrange(h, "b c h w -> b (h w) c")


class Embedder(nn.Module):
    """Two layers."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width_in, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, width_in) -> (B, width)."""
        out: Tensor = self.mlp(x)
        return out


class Ports(nn.Module):
    """What one stream brings to attention, and what it makes of what it gets. last: it gets nothing."""

    def __init__(self, shape: Shape, last: bool = False) -> None:
        super().__init__()
        self.heads = shape.heads
        head = shape.width // shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.ln_q = nn.RMSNorm(head) if shape.normed else None
        self.ln_k = nn.RMSNorm(head) if shape.normed else None
        self.proj = nn.Identity() if last else nn.Linear(shape.width, shape.width)

    def brought(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x (B, N, width) -> queries, keys, values, of the same shape."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.ln_q is None or self.ln_k is None:
            return q, k, v
        return self._normed(q, self.ln_q.weight), self._normed(k, self.ln_k.weight), v

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return rearrange(rms_normed(rearrange(x, "b n (h d) -> b n h d", h=self.heads), weight), "b n h d -> b n (h d)")


class FeedForward(nn.Module):
    """Four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return out


class Stream(nn.Module):
    """One stream's own layers within a block. last: nothing comes after it, so that it but brings keys and values."""

    def __init__(self, shape: Shape, dual: bool = False, last: bool = False) -> None:
        super().__init__()
        self.last, self.changes = last, 2 if last else 9 if dual else 6
        self.adaLN_modulation = nn.Sequential(nn.Identity(), nn.Linear(shape.width, self.changes * shape.width))
        self.attn = Ports(shape, last)
        self.attn2 = Ports(shape) if dual else None
        self.mlp = nn.Identity() if last else FeedForward(shape.width)

    def changed(self, embedding: Tensor) -> Sequence[Tensor]:
        """Shift, scale and gate of attention, of the layers after it and of the second attention, (B, 1, width) each.

        SiLU is done once for all blocks.
        """
        changes: Tensor = self.adaLN_modulation(embedding)[:, None]
        return changes.chunk(self.changes, dim=-1)

    def leave(self, x: Tensor, inside: Tensor, heard: Tensor, changes: Sequence[Tensor]) -> Tensor:
        """x as it came, normalised, and what it heard, (B, N, width) each -> x as it leaves."""
        x = torch.addcmul(x, changes[2], self.attn.proj(heard))
        if self.attn2 is not None:
            parts = self.attn2.brought(modulated(inside, *changes[6:8]))
            x = torch.addcmul(x, changes[8], self.attn2.proj(attention(*parts, heads=self.attn2.heads)))
        return torch.addcmul(x, changes[5], self.mlp(modulated(layer_normed(x), *changes[3:5])))


class Block(nn.Module):
    """Both streams. joint: whether there are words at all; last: whether none are left after it."""

    def __init__(self, shape: Shape, joint: bool, dual: bool = False, last: bool = False) -> None:
        super().__init__()
        self.heads = shape.heads
        self.context_block = Stream(shape, last=last) if joint else None
        self.x_block = Stream(shape, dual)

    def forward(
        self, x: Tensor, words: Tensor | None, embedding: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """x (B, N, width), words (B, L, width), embedding (B, width), mask (B, L) True where words may be attended to
        -> x and words of the same shapes."""
        inside, changes = layer_normed(x), self.x_block.changed(embedding)
        parts = self.x_block.attn.brought(modulated(inside, *changes[:2]))
        if self.context_block is None or words is None:
            return self.x_block.leave(x, inside, attention(*parts, heads=self.heads), changes), None
        telling, told = layer_normed(words), self.context_block.changed(embedding)
        spoken = self.context_block.attn.brought(modulated(telling, *told[:2]))
        q, k, v = (torch.cat(pair, dim=1) for pair in zip(spoken, parts, strict=True))
        heard = attention(q, k, v, self.heads, _extended(mask, x.shape[1]))
        for_words, for_x = torch.split(heard, [words.shape[1], x.shape[1]], dim=1)
        x = self.x_block.leave(x, inside, for_x, changes)
        return x, None if self.context_block.last else self.context_block.leave(words, telling, for_words, told)


class Last(nn.Module):
    """From tokens to latents."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.adaLN_modulation = nn.Sequential(nn.Identity(), nn.Linear(width, 2 * width))
        self.linear = nn.Linear(width, PATCH**2 * channels)

    def forward(self, x: Tensor, embedding: Tensor, size: Sequence[int]) -> Tensor:
        """x (B, H W / 4, width), embedding (B, width), size (H, W) -> (B, C, H, W)."""
        changes = self.adaLN_modulation(embedding)[:, None].chunk(2, dim=-1)
        patches: Tensor = self.linear(modulated(layer_normed(x), *changes))
        return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=size[0] // PATCH, p=PATCH, q=PATCH)


def last_of(tensors: Iterable[Tensor]) -> Tensor:
    """The last of them, no other being held."""
    return deque(tensors, maxlen=1).pop()


def waves(timestep: Tensor, dtype: torch.dtype) -> Tensor:
    """(B,) in [0, 1000] -> (B, 256) as the time's embedder takes it."""
    return sines(timestep, FREQUENCIES).to(dtype)


def positions(side: int, width: int) -> Tensor:
    """(1, side^2, width): sines and cosines of the column, then of the row; the grid spans 64 units (section 5.3.2)."""
    frequencies = 10_000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * (LATTICE / side) * frequencies
    axis = torch.cat([angles.sin(), angles.cos()], dim=1).float()
    columns, rows = axis[None].expand(side, -1, -1), axis[:, None].expand(-1, side, -1)
    return rearrange(torch.cat([columns, rows], dim=-1), "h w c -> 1 (h w) c")


def cropped(table: Tensor, size: Sequence[int]) -> Tensor:
    """The middle of a table of positions (1, side^2, width) for latents of a size -> (1, H W / 4, width).

    Raises InvalidField where the size is odd or larger than the table.
    """
    side = round(table.shape[1] ** 0.5)
    lengths = [length // PATCH for length in size]
    if any(length % PATCH for length in size) or max(lengths) > side:
        allowed = f"even numbers up to {PATCH * side}"
        raise InvalidField("size of the latents", tuple(size), allowed, "Ask for a size that comes to such numbers.")
    top, left = ((side - length) // 2 for length in lengths)
    grid = rearrange(table, "1 (h w) c -> 1 h w c", h=side)
    return rearrange(grid[:, top : top + lengths[0], left : left + lengths[1]], "1 h w c -> 1 (h w) c")


def layer_normed(x: Tensor) -> Tensor:
    """Layer normalisation without weights of its own."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (B, N, width) scaled by 1 + scale and shifted, (B, 1, width) each."""
    return torch.addcmul(shift, x, 1 + scale)


def _extended(mask: Tensor | None, places: int) -> Tensor | None:
    """A mask of words (B, L) as one of words and places, all of which may be attended to."""
    return None if mask is None else F.pad(mask, (0, places), value=True)
