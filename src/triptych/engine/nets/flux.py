"""The transformer of FLUX.1 (Black Forest Labs, 2024): a rectified flow (arXiv:2403.03206) of latents in 2x2 patches.

Text and patches are two streams of tokens with weights of their own that attend to each other (the double blocks),
then one stream whose blocks attend and compute side by side (arXiv:2302.05442, section 2.1). Time, a vector and the
scale of guidance that it was distilled with scale, shift and gate within every block (arXiv:2212.09748, section 3.2).
Places are told by rotary positions: number of the grid, row, column. Modules bear the names of published checkpoints.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import final

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from triptych.engine.conditioning import Conditioning
from triptych.engine.nets import rope
from triptych.engine.nets.attention import attention
from triptych.engine.nets.fast import Inner, computed
from triptych.engine.nets.kept import Kept
from triptych.engine.nets.layers import sines, zeroed

__all__ = [
    "DEV",
    "FILL",
    "PATCH",
    "SCHNELL",
    "STRUCTURE",
    "DoubleBlock",
    "Flux",
    "Heard",
    "Shape",
    "SingleBlock",
    "entrances",
    "parted",
    "patches",
    "positions",
    "widened",
]

PATCH = 2  # latents along each side of a patch
FREQUENCIES = 128
EPS = 1e-6
MOST = 65504.0  # the largest number of float16


@final
@dataclass(frozen=True, slots=True)
class Shape:
    """All numbers of one network. Its channels are those of patches: four times those of latents."""

    doubles: int = 19
    singles: int = 38
    width: int = 3072
    heads: int = 24
    axes: Sequence[int] = (16, 56, 56)  # of a head's channels, by axis: number of the grid, row, column
    multiple: int = 4  # how many times as wide what computes within a block is
    context: int = 4096  # channels of the tokens
    vector: int = 768  # channels of the conditioning's vector
    guided: bool = True  # whether it is told a scale of guidance
    in_channels: int = 64
    out_channels: int = 64


DEV = Shape()
SCHNELL = Shape(guided=False)
FILL = Shape(in_channels=384)  # under x_t: latents of what is kept (16), the `parted` mask (64)
STRUCTURE = Shape(in_channels=128)  # under x_t: latents of edges or of depths (16)


class Flux(nn.Module):
    """Latents of any even size. Blocks are called one after the other, so that their weights may come one by one."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.axes = tuple(shape.axes)
        self.img_in = nn.Linear(shape.in_channels, shape.width)
        self.time_in, self.vector_in, self.guidance_in, self.txt_in = entrances(shape)
        self.double_blocks = nn.ModuleList(DoubleBlock(shape) for _ in range(shape.doubles))
        self.single_blocks = nn.ModuleList(SingleBlock(shape) for _ in range(shape.singles))
        self.final_layer = LastLayer(shape)
        self._heard = Heard(self.time_in, self.vector_in, self.guidance_in)

    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning, control: Iterable[Tensor] = ()) -> Tensor:
        """x (B, C, H, W), timestep (B,) in [0, 1000] -> (B, out_channels / 4, H, W) in the network's dtype.

        cond: tokens (B, L, context); vector (B, V); concat (B, in_channels / 4 - C, H, W); references (B, C, H', W')
        each, which are seen beside x; scalars["guidance"] (B,) where the network is guided. control: for each block in
        turn what is added to the tokens of x that it leaves, (B, H W / 4, width), as long as there is any.
        """
        return self.around(computed, x, timestep, cond, control)

    def around(
        self, inner: Inner, x: Tensor, timestep: Tensor, cond: Conditioning, control: Iterable[Tensor] = ()
    ) -> Tensor:
        """forward, where what all blocks but the first change of the patches goes through `inner`, as float32; of
        `control`, no more is taken than what is computed needs."""
        dtype, changes = self.img_in.bias.dtype, iter(control)
        stacked = x.to(dtype) if cond.concat is None else torch.cat([x.to(dtype), cond.concat.to(dtype)], dim=1)
        grids = [stacked, *(reference.to(dtype) for reference in cond.references)]
        told, embedding = self._heard(self.txt_in, timestep, cond, dtype)
        h = self.img_in(torch.cat([patches(one) for one in grids], dim=1))
        turns = positions(tuple((one.shape[2], one.shape[3]) for one in grids), self.axes, x.device)
        setting = embedding, turns, widened(cond.mask, told, h)
        h, told = self.double_blocks[0](h, told, *setting)
        own = slice(0, x.shape[2] * x.shape[3] // PATCH**2)
        first = _changed(h, own, changes)[:, own]

        def deep() -> Tensor:
            x, text = h, told
            for block in islice(self.double_blocks, 1, None):
                x, text = block(x, text, *setting)
                _changed(x, own, changes)
            x, length = torch.cat([text, x], dim=1), text.shape[1]
            within = slice(length, length + own.stop)
            for block in self.single_blocks:
                x = _changed(block(x, *setting), within, changes)
            return x[:, within].float() - first

        out: Tensor = self.final_layer((first + inner(deep)).to(dtype), embedding)
        return rearrange(out, "b (h w) (c p q) -> b c (h p) (w q)", p=PATCH, q=PATCH, h=x.shape[2] // PATCH)


class DoubleBlock(nn.Module):
    """Two streams that attend to each other, and a layer of its own for each token."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.img_mod, self.txt_mod = Modulation(shape.width, 6), Modulation(shape.width, 6)
        self.img_attn, self.txt_attn = SelfAttention(shape), SelfAttention(shape)
        self.img_mlp, self.txt_mlp = _layers(shape), _layers(shape)
        self.heads = shape.heads

    def forward(
        self, x: Tensor, told: Tensor, embedding: Tensor, turns: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """x (B, N, width), told (B, L, width), embedding (B, width), turns (N, D / 2), mask (B, L + N) -> x, told."""
        length, still = told.shape[1], turns[:0]
        shift, scale, gate, *mine = self.img_mod(embedding)
        their_shift, their_scale, their_gate, *theirs = self.txt_mod(embedding)
        joint = x.new_empty(3, len(x), length + x.shape[1], x.shape[2])
        self.txt_attn.tell(joint[:, :, :length], _modulated(told, their_shift, their_scale), still)
        self.img_attn.tell(joint[:, :, length:], _modulated(x, shift, scale), turns)
        out = attention(joint[0], joint[1], joint[2], self.heads, mask)
        told = torch.addcmul(told, self.txt_attn.proj(out[:, :length]), their_gate)
        x = torch.addcmul(x, self.img_attn.proj(out[:, length:]), gate)
        return _computed(x, self.img_mlp, *mine), _finite(_computed(told, self.txt_mlp, *theirs))


class SingleBlock(nn.Module):
    """One stream that attends to itself while a layer of its own runs for each token."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.width, self.hidden = shape.heads, shape.width, shape.multiple * shape.width
        self.linear1 = nn.Linear(shape.width, 3 * shape.width + self.hidden)
        self.linear2 = nn.Linear(shape.width + self.hidden, shape.width)
        self.norm = QKNorm(shape.width // shape.heads)
        self.modulation = Modulation(shape.width, 3)

    def forward(self, x: Tensor, embedding: Tensor, turns: Tensor, mask: Tensor | None) -> Tensor:
        """x (B, L + N, width), embedding (B, width), turns (N, D / 2) of its last tokens, mask (B, L + N) -> as x."""
        shift, scale, gate = self.modulation(embedding)
        h = self.linear1(_modulated(x, shift, scale))
        told, wide = h.split([3 * self.width, self.hidden], dim=2)
        pair = x.new_empty(2, *x.shape)
        self.norm.tell(pair, told[..., : 2 * self.width], turns)
        out = attention(pair[0], pair[1], told[..., 2 * self.width :], self.heads, mask)
        return _finite(torch.addcmul(x, self.linear2(self._beside(out, wide)), gate))

    def _beside(self, out: Tensor, wide: Tensor) -> Tensor:
        """(B, L, width + hidden): what was attended to, and what is activated, without a copy where none is needed."""
        if torch.is_grad_enabled():
            return torch.cat([out, F.gelu(wide, approximate="tanh")], dim=2)
        both = out.new_empty(*out.shape[:2], self.width + self.hidden)
        both[..., : self.width] = out
        torch.ops.aten.gelu.out(wide, approximate="tanh", out=both[..., self.width :])
        return both


class SelfAttention(nn.Module):
    """What one stream brings to joint attention, and what it makes of what comes of it."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(shape.width, 3 * shape.width), nn.Linear(shape.width, shape.width)
        self.norm = QKNorm(shape.width // shape.heads)

    def tell(self, joint: Tensor, x: Tensor, turns: Tensor) -> None:
        """Writes queries, keys and values of x (B, L, width) to joint (3, B, L, width)."""
        qkv = self.qkv(x)
        self.norm.tell(joint[:2], qkv[..., : 2 * x.shape[2]], turns)
        joint[2] = qkv[..., 2 * x.shape[2] :]


class QKNorm(nn.Module):
    """Queries and keys of size one before they meet (arXiv:2010.04245), turned by their places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query_norm, self.key_norm = Norm(width), Norm(width)

    def tell(self, out: Tensor, x: Tensor, turns: Tensor) -> None:
        """Writes queries and keys x (B, L, 2 width) to out (2, B, L, width)."""
        width = len(self.query_norm.scale)
        q, k = rearrange(x, "b l (two h d) -> two b l h d", two=2, d=width)
        for to, x in zip((out[0], out[1]), (self.query_norm(q), self.key_norm(k)), strict=True):
            rope.turn(rearrange(to, "b l (h d) -> b l h d", d=width), x, turns)  # a view: no axis moves


class Norm(nn.Module):
    """Root mean square one (arXiv:1910.07467), each channel scaled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape in float32: what follows is computed so before it is rounded."""
        h = x.float()
        mean = torch.linalg.vector_norm(h, dim=-1, keepdim=True).square() / h.shape[-1]
        out: Tensor = h * (mean + EPS).rsqrt() * self.scale
        return out


class Modulation(nn.Module):
    """Shift, scale and gate, once or twice, of what is told."""

    def __init__(self, width: int, number: int) -> None:
        super().__init__()
        self.lin = nn.Linear(width, number * width)
        self.number = number

    def forward(self, embedding: Tensor) -> tuple[Tensor, ...]:
        """(B, width) -> as many (B, 1, width)."""
        out: Tensor = self.lin(embedding)[:, None]
        return out.chunk(self.number, dim=2)


class LastLayer(nn.Module):
    """From tokens to patches."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.linear = zeroed(nn.Linear(shape.width, shape.out_channels))
        self.adaLN_modulation = nn.Sequential(nn.Identity(), nn.Linear(shape.width, 2 * shape.width))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x (B, N, width), embedding (B, width) -> (B, N, out_channels)."""
        out: Tensor = self.linear(_modulated(x, *self.adaLN_modulation(embedding)[:, None].chunk(2, dim=2)))
        return out


class Embedder(nn.Module):
    """A vector, or a number as sines of geometric frequencies, through two layers. unit: what numbers are told in."""

    def __init__(self, width_in: int, width: int, unit: float = 1.0) -> None:
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(width_in, width), nn.Linear(width, width)
        self.unit = unit

    def forward(self, x: Tensor) -> Tensor:
        """(B,) or (B, width_in) -> (B, width)."""
        h = sines(self.unit * x.float(), FREQUENCIES) if x.ndim == 1 else x
        out: Tensor = self.out_layer(F.silu(self.in_layer(h.to(self.in_layer.bias.dtype))))
        return out


def entrances(shape: Shape) -> tuple[Embedder, Embedder, Embedder | None, nn.Linear]:
    """What embeds time, vector, the scale of guidance if it is told, and tokens."""
    waves = 2 * FREQUENCIES
    guidance = Embedder(waves, shape.width, unit=1000.0) if shape.guided else None
    vector, tokens = Embedder(shape.vector, shape.width), nn.Linear(shape.context, shape.width)
    return Embedder(waves, shape.width), vector, guidance, tokens


@final
class Heard:
    """What a network hears of time and of a conditioning; all but time is the same at every step, and kept."""

    def __init__(self, time: Embedder, vector: Embedder, guidance: Embedder | None) -> None:
        self._time, self._vector, self._guidance = time, vector, guidance
        self._vectors, self._scales, self._texts = Kept(), Kept(), Kept()

    def __call__(
        self, entrance: nn.Module, timestep: Tensor, cond: Conditioning, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Tokens (B, L, width), and the embedding (B, width) of all else, activated.

        entrance: what embeds tokens, as it is now: a layer may be replaced by one in few bits.
        """
        assert cond.tokens is not None, "this network attends to tokens"
        assert cond.vector is not None, "this network takes a vector"
        embedding: Tensor = self._time(timestep)
        if self._guidance is not None:
            assert "guidance" in cond.scalars, "this network takes a scale of guidance"
            embedding = embedding + self._scales(self._guidance, cond.scalars["guidance"], torch.float32)
        embedding = embedding + self._vectors(self._vector, cond.vector, dtype)
        return self._texts(entrance, cond.tokens, dtype), F.silu(embedding)


@lru_cache(maxsize=16)
def positions(sizes: tuple[tuple[int, int], ...], axes: tuple[int, ...], device: torch.device) -> Tensor:
    """(N, D / 2) what the patches of grids of these sizes (H, W) are turned by; x_t comes first, references after."""
    with torch.inference_mode(False):
        places = [rope.grid(number, height // PATCH, width // PATCH) for number, (height, width) in enumerate(sizes)]
        return rope.turns(torch.cat(places), axes).to(device)


def patches(x: Tensor) -> Tensor:
    """Latents (B, C, H, W) to tokens (B, H W / 4, 4 C). H and W are even."""
    return rearrange(x, "b c (h p) (w q) -> b (h w) (c p q)", p=PATCH, q=PATCH)


def parted(mask: Tensor, scale_factor: Sequence[int] = (8, 8)) -> Tensor:
    """A mask of samples (B, 1, p H, q W), 1 where they are made anew, as channels of latents (B, p q, H, W)."""
    p, q = scale_factor
    return rearrange(mask, "b 1 (h p) (w q) -> b (p q) h w", p=p, q=q)


def widened(mask: Tensor | None, told: Tensor, x: Tensor) -> Tensor | None:
    """mask (B, L) of the last L tokens that are told, and of all others: (B, told + N)."""
    return None if mask is None else F.pad(mask, (told.shape[1] - mask.shape[1], x.shape[1]), value=True)


def _layers(shape: Shape) -> nn.Sequential:
    hidden = shape.multiple * shape.width
    return nn.Sequential(nn.Linear(shape.width, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, shape.width))


def _modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (B, L, width) of mean zero and variance one; shift and scale (B, 1, width)."""
    return torch.addcmul(shift, F.layer_norm(x, x.shape[2:], eps=EPS), 1 + scale)


def _computed(x: Tensor, layers: nn.Module, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
    return torch.addcmul(x, layers(_modulated(x, shift, scale)), gate)


def _changed(x: Tensor, where: slice, changes: Iterator[Tensor]) -> Tensor:
    """x (B, L, width), which a block has just left, with the next change in it, if there is one more."""
    if (change := next(changes, None)) is not None:
        x[:, where] += change
    return x


def _finite(x: Tensor) -> Tensor:
    """Within what float16 holds: a few channels grow large there."""
    return x.clamp(-MOST, MOST) if x.dtype == torch.float16 else x
