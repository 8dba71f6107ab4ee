"""A convolutional U-Net of any rank with attention at its coarse levels (arXiv:1505.04597, arXiv:2006.11239).

Small on purpose: skips are merged by 1x1 convolutions, and one attention serves as self- and cross-attention, its
keys being the positions and the conditioning's tokens side by side (as in arXiv:2403.03206, without its two streams).

A sequence of latents may be taken as such: each member goes through the layers by itself, and layers of their own
mix the members place by place (arXiv:2204.03458, section 3). They start as nothing, so a network keeps what it knew of
single latents when it learns sequences (arXiv:2307.04725).
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.engine.conditioning import Conditioning
from triptych.engine.nets.attention import attention
from triptych.engine.nets.layers import CONV, ResidualBlock, TimeEmbedding, normalised, zeroed

__all__ = ["UNet"]


class JointAttention(nn.Module):
    """Every position attends to all positions and to the tokens."""

    def __init__(self, width: int, tokens: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = normalised(width)
        self.qkv, self.token_kv = nn.Linear(width, 3 * width), nn.Linear(tokens, 2 * width)
        self.out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, cond: Conditioning) -> Tensor:
        """x (B, width, *S), cond.tokens (B, L, tokens) -> (B, width, *S)."""
        q, k, v = self.qkv(self.norm(x).flatten(2).transpose(1, 2)).chunk(3, dim=-1)
        mask = None
        if cond.tokens is not None:
            token_k, token_v = self.token_kv(cond.tokens.to(self.token_kv.weight.dtype)).chunk(2, dim=-1)
            if cond.mask is not None:
                mask = F.pad(cond.mask.bool(), (k.shape[1], 0), value=True)
            k, v = torch.cat([k, token_k], dim=1), torch.cat([v, token_v], dim=1)
        out: Tensor = self.out(attention(q, k, v, self.heads, mask))
        return x + out.transpose(1, 2).reshape(x.shape)


class Along(nn.Module):
    """Mixes the members of sequences, place by place: two convolutions of three members, then attention if heads."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_1, self.conv_1 = normalised(width), nn.Conv2d(width, width, (3, 1), padding=(1, 0))
        self.norm_2, self.conv_2 = normalised(width), zeroed(nn.Conv2d(width, width, (3, 1), padding=(1, 0)))
        if heads:
            self.norm_3, self.qkv = normalised(width), nn.Linear(width, 3 * width)
            self.out = zeroed(nn.Linear(width, width))

    def forward(self, x: Tensor, length: int) -> Tensor:
        """x (B * length, width, *S) -> the same shape."""
        h = (
            x.reshape(-1, length, *x.shape[1:]).transpose(1, 2).flatten(3)
        )  # (B, width, length, places), channels last as x is
        h = h + self.conv_2(F.silu(self.norm_2(self.conv_1(F.silu(self.norm_1(h))))))
        if self.heads:
            places = self.norm_3(h).permute(0, 3, 2, 1)
            q, k, v = self.qkv(places).flatten(0, 1).chunk(3, dim=-1)
            out = self.out(attention(q, k, v, self.heads, None))
            h = h + out.reshape(places.shape).permute(0, 3, 2, 1)
        mixed: Tensor = h.transpose(1, 2).reshape(x.shape)
        return mixed


class Level(nn.Module):
    """The blocks of one resolution on one side of the U."""

    def __init__(
        self, rank: int, width: int, blocks: int, embedding: int, tokens: int | None, heads: int, along: bool
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(rank, width, embedding) for _ in range(blocks))
        self.attention = JointAttention(width, tokens, heads) if tokens else None
        self.along = Along(width, heads if tokens else 0) if along else None

    def forward(self, x: Tensor, embedding: Tensor, cond: Conditioning, length: int) -> Tensor:
        for block in self.blocks:
            x = block(x, embedding)
        if self.attention is not None:
            x = self.attention(x, cond)
        return x if self.along is None else self.along(x, length)


class UNet(nn.Module):
    """Latents (B, channels, *S) to the same shape; each axis of S a multiple of 2^(levels - 1).

    widths: channels per level, finest first; attend: which levels attend; tokens, vector: the widths of the
    conditioning's tokens and vector; concat: how many channels are stacked under x_t; along: S has one more axis, first
    and of any length, along which lie the members of a sequence; the conditioning's scalars say how many there are a
    second (`rate`), and when the first of them is (`start`, in seconds; 0 unless told). scalars: which others of them
    join the time embedding, all in seconds. rows: latents (B, channels, *S) have one more axis, folded into their
    channels: rank counts it, and so do channels and concat; each of these rows has a learned place of its own.
    """

    def __init__(
        self,
        rank: int,
        channels: int,
        widths: Sequence[int] = (128, 256, 256),
        attend: Sequence[bool] = (False, True, True),
        *,
        blocks: int = 2,
        embedding: int = 256,
        tokens: int = 256,
        vector: int = 256,
        heads: int = 4,
        concat: int = 0,
        along: bool = False,
        scalars: Sequence[str] = (),
        rows: int = 1,
    ) -> None:
        super().__init__()
        conv, self.rows = CONV[rank], rows
        channels, concat = channels // rows, concat // rows
        self.time = TimeEmbedding(embedding)
        self.scalars = nn.ModuleDict({name: TimeEmbedding(embedding) for name in scalars})
        self.place = TimeEmbedding(embedding) if along else None
        if self.place is not None:
            zeroed(self.place.layers[2])
        self.vector = nn.Linear(vector, embedding)
        self.enter = conv(channels + concat, widths[0], 3, padding=1)
        self.row = nn.Parameter(torch.zeros(widths[0], rows, *[1] * (rank - 1))) if rows > 1 else None

        def level(index: int) -> Level:
            return Level(rank, widths[index], blocks, embedding, tokens if attend[index] else None, heads, along)

        coarser = list(pairwise(widths))
        self.down = nn.ModuleList(level(i) for i in range(len(widths)))
        self.shrink = nn.ModuleList(conv(a, b, 3, stride=2, padding=1) for a, b in coarser)
        self.grow = nn.ModuleList(conv(b, a, 3, padding=1) for a, b in coarser)
        self.merge = nn.ModuleList(conv(2 * width, width, 1) for width in widths)
        self.up = nn.ModuleList(level(i) for i in range(len(widths)))
        self.norm, self.leave = normalised(widths[0]), zeroed(conv(widths[0], channels, 3, padding=1))

    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        """x (B, channels, *S), timestep (B,) in [0, 1000] -> (B, channels, *S) in the network's dtype."""
        dtype = self.enter.weight.dtype
        if cond.concat is not None:
            x = torch.cat([x, _resized(cond.concat, x).to(x.dtype)], dim=1)
        embedding = self.time(timestep)
        if cond.vector is not None:
            embedding = embedding + self.vector(cond.vector.to(dtype))
        for name, embed in self.scalars.items():
            embedding = embedding + embed(HUNDREDTHS * cond.scalars[name].expand(len(x)))
        batch, length = len(x), 1
        if self.rows > 1:
            x = x.reshape(len(x), -1, self.rows, *x.shape[2:])
        if self.place is not None:
            length = x.shape[2]
            x, cond = x.transpose(1, 2).flatten(0, 1), _repeated(cond, length)
            embedding = embedding.repeat_interleave(length, 0) + self.place(_places(cond, batch, length))
        out = self._walk(x.to(dtype), F.silu(embedding), cond, length)
        if self.rows > 1:
            return out.flatten(1, 2)
        return out if self.place is None else out.reshape(batch, length, *out.shape[1:]).transpose(1, 2)

    def _walk(self, x: Tensor, embedding: Tensor, cond: Conditioning, length: int) -> Tensor:
        """Down the U and up again; x (B * length, channels + concat, *S)."""
        h = self.enter(x)
        if self.row is not None:
            h = h + self.row
        skips = []
        for index, level in enumerate(self.down):
            h = level(h, embedding, cond, length)
            skips.append(h)
            if index < len(self.shrink):
                h = self.shrink[index](h)
        for index in reversed(range(len(self.up))):
            h = self.up[index](self.merge[index](torch.cat([h, skips[index]], dim=1)), embedding, cond, length)
            if index > 0:
                h = self.grow[index - 1](F.interpolate(h, size=skips[index - 1].shape[2:]))
        out: Tensor = self.leave(F.silu(self.norm(h)))
        return out


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """x at the resolution of `like`."""
    mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[like.ndim]
    return x if x.shape[2:] == like.shape[2:] else F.interpolate(x, size=like.shape[2:], mode=mode)


def _repeated(cond: Conditioning, length: int) -> Conditioning:
    """What is attended to, once for every member of a sequence."""
    tokens, mask = (None if x is None else x.repeat_interleave(length, 0) for x in (cond.tokens, cond.mask))
    return replace(cond, tokens=tokens, mask=mask)


HUNDREDTHS = 100  # of a second: the clock of a sequence, whose embedding reaches ten seconds


def _places(cond: Conditioning, batch: int, length: int) -> Tensor:
    """(B * length,) when each member is."""
    rate = cond.scalars["rate"]
    seconds = torch.arange(length, device=rate.device) / rate[:, None]
    if "start" in cond.scalars:
        seconds = seconds + cond.scalars["start"][:, None]
    return (HUNDREDTHS * seconds).expand(batch, length).flatten()
