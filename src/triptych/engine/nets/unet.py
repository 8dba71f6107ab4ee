"""A convolutional U-Net of any rank with attention at its coarse levels (arXiv:1505.04597, arXiv:2006.11239).

Small on purpose: skips are merged by 1x1 convolutions, and one attention serves as self- and cross-attention, its
keys being the positions and the conditioning's tokens side by side (as in arXiv:2403.03206, without its two streams).
"""

from collections.abc import Sequence
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


class Level(nn.Module):
    """The blocks of one resolution on one side of the U."""

    def __init__(self, rank: int, width: int, blocks: int, embedding: int, tokens: int | None, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(ResidualBlock(rank, width, embedding) for _ in range(blocks))
        self.attention = JointAttention(width, tokens, heads) if tokens else None

    def forward(self, x: Tensor, embedding: Tensor, cond: Conditioning) -> Tensor:
        for block in self.blocks:
            x = block(x, embedding)
        return x if self.attention is None else self.attention(x, cond)


class UNet(nn.Module):
    """Latents (B, channels, *S) to the same shape; each axis of S a multiple of 2^(levels - 1).

    widths: channels per level, finest first; attend: which levels attend; tokens, vector: the widths of the
    conditioning's tokens and vector; concat: how many channels are stacked under x_t.
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
    ) -> None:
        super().__init__()
        conv = CONV[rank]
        self.time = TimeEmbedding(embedding)
        self.vector = nn.Linear(vector, embedding)
        self.enter = conv(channels + concat, widths[0], 3, padding=1)

        def level(index: int) -> Level:
            return Level(rank, widths[index], blocks, embedding, tokens if attend[index] else None, heads)

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
        embedding = self.time(timestep)
        if cond.vector is not None:
            embedding = embedding + self.vector(cond.vector.to(dtype))
        embedding = F.silu(embedding)
        if cond.concat is not None:
            x = torch.cat([x, _resized(cond.concat, x).to(x.dtype)], dim=1)
        h = self.enter(x.to(dtype))
        skips = []
        for index, level in enumerate(self.down):
            h = level(h, embedding, cond)
            skips.append(h)
            if index < len(self.shrink):
                h = self.shrink[index](h)
        for index in reversed(range(len(self.up))):
            h = self.up[index](self.merge[index](torch.cat([h, skips[index]], dim=1)), embedding, cond)
            if index > 0:
                h = self.grow[index - 1](F.interpolate(h, size=skips[index - 1].shape[2:]))
        out: Tensor = self.leave(F.silu(self.norm(h)))
        return out


def _resized(x: Tensor, like: Tensor) -> Tensor:
    """x at the resolution of `like`."""
    mode = {3: "linear", 4: "bilinear", 5: "trilinear"}[like.ndim]
    return x if x.shape[2:] == like.shape[2:] else F.interpolate(x, size=like.shape[2:], mode=mode)
