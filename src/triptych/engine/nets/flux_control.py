"""ControlNet (arXiv:2302.05543) for FLUX.1: a few blocks like its own that see a hint, and what they add to its blocks.

Two kinds are published. One (InstantX, Shakker) takes hints as latents and spreads its changes over the network in
order, each for as many blocks in a row as it has to last; a union is told besides which of several kinds a hint is of,
by a token of its own. The other (XLabs) takes hints as samples, through a few convolutions, and its changes go round.
Parts that the network has too bear the same names.
"""

from collections.abc import Callable, Iterator
from itertools import islice, repeat
from typing import Final, final

import torch
from torch import Tensor, nn

from triptych.engine.conditioning import Conditioning
from triptych.engine.nets.controlnet import Watching
from triptych.engine.nets.flux import (
    DEV,
    DoubleBlock,
    Heard,
    Shape,
    SingleBlock,
    entrances,
    patches,
    positions,
    widened,
)
from triptych.engine.nets.layers import zeroed

__all__ = ["FluxControl", "OfKind"]

STEM_WIDTH = 16
STEM_STRIDES: Final = (1, 1, 2, 1, 2, 1, 2, 1)

Spread = Callable[[Iterator[Tensor], int, int], Iterator[Tensor]]
"""(changes, how many they are, blocks of the network) -> what is changed after each of these, as it is asked for."""


@final
class FluxControl(Watching):
    """shape: of its own blocks; shape.in_channels are those of x_t alone. beside: the network whose blocks it changes.

    kinds: how many kinds of hints a union tells apart; stem: channels of hints that are samples, not latents.
    """

    def __init__(self, shape: Shape, beside: Shape = DEV, *, kinds: int | None = None, stem: int | None = None) -> None:
        super().__init__()
        self.axes, self.beside = tuple(shape.axes), beside
        self.spread: Spread = in_order if stem is None else in_turn
        self.img_in = nn.Linear(shape.in_channels, shape.width)
        self.time_in, self.vector_in, self.guidance_in, self.txt_in = entrances(shape)
        self.controlnet_mode_embedder = None if kinds is None else nn.Embedding(kinds, shape.width)
        self.input_hint_block = None if stem is None else _stem(stem)
        self.controlnet_x_embedder = zeroed(nn.Linear(shape.in_channels, shape.width))
        self.double_blocks = nn.ModuleList(DoubleBlock(shape) for _ in range(shape.doubles))
        self.single_blocks = nn.ModuleList(SingleBlock(shape) for _ in range(shape.singles))
        self.controlnet_blocks = _exits(shape.doubles, shape.width)
        self.controlnet_single_blocks = _exits(shape.singles, shape.width)
        self._heard = Heard(self.time_in, self.vector_in, self.guidance_in)

    def embed(self, hint: Tensor) -> Tensor:
        """Latents (B, C, H, W), or where there is a stem samples (B, stem, 8 H, 8 W) in [-1, 1] -> (B, N, width)."""
        hint = hint.to(self.img_in.bias.dtype)
        seen = hint if self.input_hint_block is None else self.input_hint_block(hint)
        embedded: Tensor = self.controlnet_x_embedder(patches(seen))
        return embedded

    def forward(
        self, x: Tensor, timestep: Tensor, cond: Conditioning, hint: Tensor, kind: int | None = None
    ) -> Iterator[Tensor]:
        """x (B, C, H, W), timestep (B,) in [0, 1000], an embedded hint, its kind for a union -> `control` of `Flux`."""
        changes, own, other = self._changes(x, timestep, cond, hint, kind), len(self.double_blocks), self.beside
        yield from self.spread(islice(changes, own), own, other.doubles)
        yield from self.spread(changes, len(self.single_blocks), other.singles)

    def _changes(
        self, x: Tensor, timestep: Tensor, cond: Conditioning, hint: Tensor, kind: int | None
    ) -> Iterator[Tensor]:
        """What each of its own blocks says, (B, N, width)."""
        told, embedding = self._heard(self.txt_in, timestep, cond, self.img_in.bias.dtype)
        if self.controlnet_mode_embedder is not None:
            assert kind is not None, "a union is told the kind of its hint"
            told = torch.cat([self.controlnet_mode_embedder.weight[kind].expand(len(told), 1, -1), told], dim=1)
        h = self.img_in(patches(x.to(told.dtype))) + hint
        turns = positions(((x.shape[2], x.shape[3]),), self.axes, x.device)
        setting = embedding, turns, widened(cond.mask, told, h)
        for block, leave in zip(self.double_blocks, self.controlnet_blocks, strict=True):
            h, told = block(h, told, *setting)
            yield leave(h)
        length, h = told.shape[1], torch.cat([told, h], dim=1)
        for block, leave in zip(self.single_blocks, self.controlnet_single_blocks, strict=True):
            h = block(h, *setting)
            yield leave(h[:, length:])


@final
class OfKind(Watching):
    """A union where hints are of one kind: its number in the order that its authors give."""

    def __init__(self, net: FluxControl, kind: int) -> None:
        super().__init__()
        self.net, self.kind = net, kind

    def embed(self, hint: Tensor) -> Tensor:
        return self.net.embed(hint)

    def forward(self, x: Tensor, timestep: Tensor, cond: Conditioning, hint: Tensor) -> Iterator[Tensor]:
        """As the union itself."""
        changes: Iterator[Tensor] = self.net(x, timestep, cond, hint, self.kind)
        return changes


def in_order(changes: Iterator[Tensor], count: int, blocks: int) -> Iterator[Tensor]:
    """Each for as many blocks in a row as makes them last, ceil(blocks / count); all are computed."""
    span, left = -(-blocks // max(count, 1)), blocks
    for change in changes:
        yield from repeat(change, min(span, left))
        left -= min(span, left)


def in_turn(changes: Iterator[Tensor], count: int, blocks: int) -> Iterator[Tensor]:
    """All of them, and again, until there are no more blocks."""
    known = list[Tensor]()
    for block in range(blocks if count else 0):
        if block < count:
            known.append(next(changes))
        yield known[block % count]
    for _ in changes:
        pass


def _exits(number: int, width: int) -> nn.ModuleList:
    return nn.ModuleList(zeroed(nn.Linear(width, width)) for _ in range(number))


def _stem(channels: int) -> nn.Sequential:
    """An eighth of the resolution, as latents have."""
    layers, width = list[nn.Module](), channels
    for stride in STEM_STRIDES:
        layers += [nn.Conv2d(width, STEM_WIDTH, 3, padding=1, stride=stride), nn.SiLU(inplace=True)]
        width = STEM_WIDTH
    return nn.Sequential(*layers[:-1])
