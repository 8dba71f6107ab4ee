"""The U-Net of latent diffusion (arXiv:2112.10752) as Stable Diffusion and SDXL (arXiv:2307.01952) shaped it.

Residual blocks and transformers go down a pyramid of latents and up again, the way up seeing what the way down left at
each place. The time, and the conditioning's vector where there is one, are added within every residual block; its
tokens are attended to by every transformer block, and what is stacked under x_t comes in with it.

Modules bear the names of the published checkpoints, so that those load as they are; only 1x1 convolutions beside a
transformer are linear layers here. All is channels last: a latent is a list of tokens without being copied.
"""

from collections.abc import Iterable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import final

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from triptych.engine.conditioning import Conditioning
from triptych.engine.nets.attention import attention
from triptych.engine.nets.fast import Inner, computed
from triptych.engine.nets.layers import sines, zeroed
from triptych.engine.nets.merge import Merging

__all__ = [
    "REFINER",
    "SD15",
    "SDXL",
    "LatentUNet",
    "Shape",
    "channels_last",
    "descend",
    "descent",
    "embedded",
    "embedders",
    "middle",
]

HEAD_WIDTH = 64
GROUPS = 32


@final
@dataclass(frozen=True, slots=True)
class Shape:
    """All numbers of one network. Levels are listed from the finest to the coarsest."""

    context: int  # channels of the tokens
    depths: Sequence[int]  # transformer blocks after each residual block, by level
    middle: int  # transformer blocks at the bottom; with 0 there is but one residual block
    in_channels: int = 4
    out_channels: int = 4
    width: int = 320
    multiples: Sequence[int] = (1, 2, 4, 4)  # of the width, by level
    blocks: int = 2  # residual blocks a level
    heads: int | None = None  # None: as many as there are 64 channels
    vector: int | None = None  # channels of the conditioning's vector


SD15 = Shape(context=768, depths=(1, 1, 1, 0), middle=1, heads=8)
SDXL = Shape(context=2048, depths=(0, 2, 10), middle=10, multiples=(1, 2, 4), vector=2816)
REFINER = Shape(context=1280, depths=(0, 4, 4, 0), middle=4, width=384, vector=2560)


class LatentUNet(nn.Module):
    """Latents of any size. Weights are best channels last, too: a loader's `network.to(memory_format=...)`."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.time_embed, self.label_emb = embedders(shape)
        self.input_blocks, widths = descent(shape)
        self.middle_block = middle(shape)
        self.output_blocks = _ascent(shape, widths)
        self.out = nn.Sequential(
            nn.GroupNorm(GROUPS, shape.width),
            nn.SiLU(inplace=True),
            zeroed(nn.Conv2d(shape.width, shape.out_channels, 3, padding=1)),
        )

    def merge(self, share: float) -> None:
        """From now on this share of the places of the finest transformers is merged for attention among places."""
        for way in (self.input_blocks, reversed(self.output_blocks)):
            for transformer in _finest(way):
                transformer.share = share

    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning, control: Iterable[Tensor] = ()) -> Tensor:
        """x (B, C, H, W), timestep (B,) in [0, 1000] -> (B, out_channels, H, W) in the network's dtype.

        cond.concat (B, in_channels - C, H, W); control: what is added to the output of each input block and, last, of
        the middle one, each of its shape.
        """
        return self.around(computed, x, timestep, cond, control)

    def around(
        self, inner: Inner, x: Tensor, timestep: Tensor, cond: Conditioning, control: Iterable[Tensor] = ()
    ) -> Tensor:
        """forward, where all but the first input block and the last output block goes through `inner`; of `control`,
        no more is taken than what is computed needs."""
        if cond.concat is not None:
            x = torch.cat([x, cond.concat.to(x.dtype)], dim=1)
        x = channels_last(x, self.input_blocks)
        embedding = embedded(self.time_embed, self.label_emb, timestep, cond, x.dtype)
        left, changes = descend(self.input_blocks, self.input_blocks[0](x), embedding, cond), iter(control)
        outer = _added([next(left)], changes)

        def deep() -> Tensor:
            inside = list(left)
            h: Tensor = self.middle_block(inside[-1], embedding, cond)
            skips = outer + _added(inside, changes)
            [h] = _added([h], changes)
            for block in islice(self.output_blocks, len(inside)):
                h = torch.cat([h, skips.pop()], dim=1)
                h = block(h, embedding, cond, skips[-1].shape[2:])
            return h

        h = self.output_blocks[-1](torch.cat([inner(deep), *outer], dim=1), embedding, cond)
        out: Tensor = self.out(h)
        return out


class ResBlock(nn.Module):
    """Two convolutions beside a skip; the embedding is added between them. The second is learned from nothing."""

    def __init__(self, width_in: int, width_out: int, embedding: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, width_in), nn.SiLU(inplace=True), nn.Conv2d(width_in, width_out, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.Identity(), nn.Linear(embedding, width_out))  # SiLU is done once, for all
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, width_out),
            nn.SiLU(inplace=True),
            nn.Identity(),
            zeroed(nn.Conv2d(width_out, width_out, 3, padding=1)),
        )
        self.skip_connection = nn.Identity() if width_in == width_out else nn.Conv2d(width_in, width_out, 1)

    def forward(self, x: Tensor, embedding: Tensor, cond: Conditioning) -> Tensor:
        """x (B, width_in, H, W), embedding (B, E) -> (B, width_out, H, W)."""
        h: Tensor = self.in_layers(x)
        h += self.emb_layers(embedding)[..., None, None]
        out: Tensor = self.out_layers(h)
        out += self.skip_connection(x)
        return out


class Attention(nn.Module):
    """Queries from one place, keys and values from the same or from another."""

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k, self.to_v = nn.Linear(context, width, bias=False), nn.Linear(context, width, bias=False)
        self.to_out = nn.Sequential(nn.Linear(width, width))

    def told(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, L, width) of what is attended to (B, L, context)."""
        return self.to_k(context), self.to_v(context)

    def forward(self, x: Tensor, told: tuple[Tensor, Tensor], mask: Tensor | None = None) -> Tensor:
        """x (B, N, width), mask (B, L) True where keys may be attended to -> (B, N, width)."""
        out: Tensor = self.to_out(attention(self.to_q(x), *told, self.heads, mask))
        return out


class GEGLU(nn.Module):
    """One half of the channels, gated by the other (arXiv:2002.05202)."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width_in, 2 * width_out)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.proj(x).chunk(2, dim=-1)
        return F.gelu(gate).mul_(value)


class FeedForward(nn.Module):
    """Four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.Sequential(GEGLU(width, 4 * width), nn.Identity(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class TransformerBlock(nn.Module):
    """Attention among places, attention to the conditioning's tokens, and a layer of its own for each place.

    Keys and values of tokens are the same at every step. They are kept as long as the tensor of tokens lives and the
    weights stay what they were, unless gradients are wanted.
    """

    def __init__(self, width: int, context: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn1, self.attn2 = Attention(width, width, heads), Attention(width, context, heads)
        self.ff = FeedForward(width)
        self._kept: MutableMapping[Tensor, tuple[int, tuple[Tensor, Tensor]]] = WeakTensorKeyDictionary()
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor, cond: Conditioning, size: Sequence[int], share: float = 0) -> Tensor:
        """x (B, H W, width), size (H, W), share: of the places that are merged where they are attended to -> as x."""
        x = self._among(self.norm1(x), size, share).add_(x)
        x = self.attn2(self.norm2(x), self._told(cond, x.dtype), cond.mask).add_(x)
        out: Tensor = self.ff(self.norm3(x)).add_(x)
        return out

    def _among(self, h: Tensor, size: Sequence[int], share: float) -> Tensor:
        if share:
            merging = Merging.of(h, size, share)
            h = merging.merged(h)
        out: Tensor = self.attn1(h, self.attn1.told(h))
        return merging.parted(out) if share else out

    def _told(self, cond: Conditioning, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        assert cond.tokens is not None, "this network attends to tokens"
        if torch.is_grad_enabled():
            return self.attn2.told(cond.tokens.to(dtype))
        version = sum(weight._version for weight in self.attn2.parameters() if not weight.is_inference())
        kept = self._kept.get(cond.tokens)
        if kept is None or kept[0] != version or kept[1][0].dtype != dtype:
            kept = self._kept[cond.tokens] = version, self.attn2.told(cond.tokens.to(dtype))
        return kept[1]


def _forget(block: TransformerBlock, keys: object) -> None:
    """Other weights may have been loaded in place of those that made keys and values."""
    block._kept.clear()


class SpatialTransformer(nn.Module):
    """Transformer blocks over the places of a latent, beside a skip. share: of the places, see `LatentUNet.merge`."""

    def __init__(self, width: int, depth: int, shape: Shape) -> None:
        super().__init__()
        self.share = 0.0
        heads = width // HEAD_WIDTH if shape.heads is None else shape.heads
        self.norm = nn.GroupNorm(GROUPS, width, eps=1e-6)
        self.proj_in, self.proj_out = nn.Linear(width, width), zeroed(nn.Linear(width, width))
        self.transformer_blocks = nn.ModuleList(TransformerBlock(width, shape.context, heads) for _ in range(depth))

    def forward(self, x: Tensor, embedding: Tensor, cond: Conditioning) -> Tensor:
        """x (B, width, H, W) -> the same shape."""
        h = self.proj_in(rearrange(self.norm(x), "b c h w -> b (h w) c"))
        for block in self.transformer_blocks:
            h = block(h, cond, x.shape[2:], self.share)
        out: Tensor = rearrange(self.proj_out(h), "b (h w) c -> b c h w", h=x.shape[2])
        out += x
        return out


class Downsample(nn.Module):
    """Half the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor, embedding: Tensor, cond: Conditioning) -> Tensor:
        out: Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    """Twice the resolution, or one less where the way down had rounded up."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """x (B, width, H, W) -> (B, width, *size)."""
        out: Tensor = self.conv(F.interpolate(x, size=tuple(size)))
        return out


class Stage(nn.ModuleList):
    """Layers one after the other."""

    def forward(self, x: Tensor, embedding: Tensor, cond: Conditioning, size: Sequence[int] = ()) -> Tensor:
        """x (B, C, H, W), embedding (B, E); size: what an upsampling layer grows it to."""
        for layer in self:
            x = layer(x, size) if isinstance(layer, Upsample) else layer(x, embedding, cond)
        return x


class Clock(nn.ModuleList):
    """Timesteps as sines of geometric frequencies (arXiv:1706.03762, section 3.5), then two layers."""

    def __init__(self, frequencies: int, width: int) -> None:
        super().__init__([nn.Linear(2 * frequencies, width), nn.SiLU(), nn.Linear(width, width)])
        self.frequencies = frequencies

    def forward(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        """(B,) -> (B, width)."""
        h = sines(timestep, self.frequencies).to(dtype)
        for layer in self:
            h = layer(h)
        return h


def embedders(shape: Shape) -> tuple[Clock, nn.Sequential | None]:
    """What embeds the time, and the vector if there is one, in four times the width."""
    width = 4 * shape.width
    clock = Clock(shape.width // 2, width)
    if shape.vector is None:
        return clock, None
    return clock, nn.Sequential(nn.Sequential(nn.Linear(shape.vector, width), nn.SiLU(), nn.Linear(width, width)))


def embedded(
    time_embed: Clock, label_emb: nn.Sequential | None, timestep: Tensor, cond: Conditioning, dtype: torch.dtype
) -> Tensor:
    """(B, E) what time (B,) and cond.vector say to the residual blocks, activated."""
    embedding: Tensor = time_embed(timestep, dtype)
    if label_emb is not None:
        assert cond.vector is not None, "this network takes a vector"
        embedding = embedding + label_emb(cond.vector.to(dtype))
    return F.silu(embedding)


def descent(shape: Shape) -> tuple[nn.ModuleList, list[int]]:
    """The way down, and the channels of what each of its members leaves."""
    entrance: nn.Module = nn.Sequential(nn.Conv2d(shape.in_channels, shape.width, 3, padding=1))
    stages, widths = [entrance], [shape.width]
    for level, (multiple, depth) in enumerate(zip(shape.multiples, shape.depths, strict=True)):
        if level > 0:
            stages.append(Stage([Downsample(widths[-1])]))
            widths.append(widths[-1])
        for _ in range(shape.blocks):
            stages.append(Stage(_pair(shape, widths[-1], multiple * shape.width, depth)))
            widths.append(multiple * shape.width)
    return nn.ModuleList(stages), widths


def descend(blocks: nn.ModuleList, h: Tensor, embedding: Tensor, cond: Conditioning) -> Iterator[Tensor]:
    """What each of the input blocks leaves, from what the first one left; computed as it is asked for."""
    yield h
    for block in islice(blocks, 1, None):
        h = block(h, embedding, cond)
        yield h


def _finest(way: Iterable[nn.Module]) -> list[SpatialTransformer]:
    """The transformers where there are the most places; way: stages from the finest level on."""
    found = list[SpatialTransformer]()
    for stage in way:
        if found and any(isinstance(layer, Downsample | Upsample) for layer in stage.children()):
            break
        found += [layer for layer in stage.children() if isinstance(layer, SpatialTransformer)]
    return found


def _added(left: Sequence[Tensor], changes: Iterator[Tensor]) -> list[Tensor]:
    """What was left at each place, and what is changed there, as long as there are changes."""
    return [h if (change := next(changes, None)) is None else h + change for h in left]


def middle(shape: Shape) -> Stage:
    """The bottom of the U."""
    width = shape.multiples[-1] * shape.width
    after = [ResBlock(width, width, 4 * shape.width)] if shape.middle else []
    return Stage([*_pair(shape, width, width, shape.middle), *after])


def channels_last(x: Tensor, blocks: nn.ModuleList) -> Tensor:
    """x (B, C, H, W) as the first of the input blocks wants it."""
    dtype = next(blocks.parameters()).dtype
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


def _ascent(shape: Shape, widths: list[int]) -> nn.ModuleList:
    """The way up: one member for each of the way down, which takes what that one left beside what came to itself."""
    skips, stages = list(widths), []
    width = skips[-1]
    for level in reversed(range(len(shape.multiples))):
        for index in range(shape.blocks + 1):
            layers = _pair(shape, width + skips.pop(), shape.multiples[level] * shape.width, shape.depths[level])
            width = shape.multiples[level] * shape.width
            if level > 0 and index == shape.blocks:
                layers.append(Upsample(width))
            stages.append(Stage(layers))
    return nn.ModuleList(stages)


def _pair(shape: Shape, width_in: int, width_out: int, depth: int) -> list[nn.Module]:
    """A residual block, and a transformer where there is one."""
    block = ResBlock(width_in, width_out, 4 * shape.width)
    return [block, SpatialTransformer(width_out, depth, shape)] if depth else [block]
