"""Codecs: samples in [-1, 1] to latents of unit variance and back, over any number of axes.

The codec owns shift and scale; samplers only ever see latents whose variance is about one (arXiv:2112.10752).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol, final

import torch
from torch import Tensor

__all__ = ["Codec", "Each", "Identity", "Tiled", "latent_shape"]


class Codec(Protocol):
    """Samples (B, c, *samples) to latents (B, C, *latents) and back."""

    @property
    def channels(self) -> int: ...

    @property
    def scale_factor(self) -> tuple[int, ...]:
        """Samples per latent along each axis: (8, 8), (4, 8, 8), (2048,)."""
        ...

    def encode(self, x: Tensor) -> Tensor: ...

    def decode(self, z: Tensor) -> Tensor: ...


@final
@dataclass(frozen=True)
class Identity:
    """No compression: the samples are the latents."""

    channels: int
    rank: int

    @property
    def scale_factor(self) -> tuple[int, ...]:
        return (1,) * self.rank

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, z: Tensor) -> Tensor:
        return z


@final
@dataclass(frozen=True)
class Each:
    """A codec for sequences that takes each member by itself: samples (B, c, T, *samples), latents (B, C, T, *latents).

    at_once: how many members it may take together, a bound on memory.
    """

    codec: Codec
    at_once: int = 16

    @property
    def channels(self) -> int:
        return self.codec.channels

    @property
    def scale_factor(self) -> tuple[int, ...]:
        return (1, *self.codec.scale_factor)

    def encode(self, x: Tensor) -> Tensor:
        return self._every(x, self.codec.encode)

    def decode(self, z: Tensor) -> Tensor:
        return self._every(z, self.codec.decode)

    def _every(self, x: Tensor, work: Callable[[Tensor], Tensor]) -> Tensor:
        members = torch.split(x.transpose(1, 2).flatten(0, 1), self.at_once)
        done = torch.cat([work(part) for part in members])
        return done.reshape(len(x), x.shape[2], *done.shape[1:]).transpose(1, 2)


def latent_shape(codec: Codec, samples: Sequence[int]) -> tuple[int, ...]:
    """(C, *latents) of one sample of these lengths (pixels, frames or audio samples), rounded up."""
    if len(samples) != len(codec.scale_factor):
        raise ValueError(f"{len(samples)} axes given, the codec has {len(codec.scale_factor)}")
    return (codec.channels, *(math.ceil(n / f) for n, f in zip(samples, codec.scale_factor, strict=True)))


@final
@dataclass(frozen=True)
class Tiled:
    """A codec that works on overlapping tiles and blends them linearly: the memory of one tile, whatever the size.

    tile, overlap: in latents, along each axis; a tile of 0 leaves that axis whole. A quarter of the overlap at either
    end of a tile is thrown away, since there the codec saw an edge that is none, and the rest is blended: a codec
    whose receptive field reaches no further than that quarter gives exactly what it gives untiled.
    """

    codec: Codec
    tile: tuple[int, ...]
    overlap: tuple[int, ...]

    def __post_init__(self) -> None:
        if not len(self.tile) == len(self.overlap) == len(self.codec.scale_factor):
            raise ValueError(f"tile {self.tile} and overlap {self.overlap}: {len(self.codec.scale_factor)} axes wanted")
        if any(tile and not 0 <= overlap <= tile // 2 for tile, overlap in zip(self.tile, self.overlap, strict=True)):
            raise ValueError(f"overlap {self.overlap}: from 0 to half of the tile {self.tile} allowed")

    @property
    def channels(self) -> int:
        return self.codec.channels

    @property
    def scale_factor(self) -> tuple[int, ...]:
        return self.codec.scale_factor

    def encode(self, x: Tensor) -> Tensor:
        lengths = [math.ceil(n / factor) for n, factor in zip(x.shape[2:], self.scale_factor, strict=True)]
        return self._blend(x, self.codec.encode, lengths, self.scale_factor, [1] * len(lengths))

    def decode(self, z: Tensor) -> Tensor:
        return self._blend(z, self.codec.decode, z.shape[2:], [1] * (z.ndim - 2), self.scale_factor)

    def _blend(
        self,
        x: Tensor,
        work: Callable[[Tensor], Tensor],
        lengths: Sequence[int],
        entering: Sequence[int],
        leaving: Sequence[int],
    ) -> Tensor:
        """lengths: of all latents; entering, leaving: the factors between latents and what goes in, what comes out."""
        axes = [_spans(n, tile, lap) for n, tile, lap in zip(lengths, self.tile, self.overlap, strict=True)]
        if all(len(spans) == 1 for spans in axes):
            return work(x)
        total = weights = x.new_zeros(0)
        for tile in product(*axes):
            part = work(x[_slices(tile, entering)])
            windows = self._windows(part, tile, lengths, leaving)
            if not total.numel():
                whole = [_length(*along) for along in zip(part.shape[2:], tile, lengths, leaving, strict=True)]
                total, weights = part.new_zeros(*part.shape[:2], *whole), part.new_zeros(whole)
            place = _slices(tile, leaving)
            total[place] += part * windows
            weights[place[2:]] += windows
        return total / weights

    def _windows(self, part: Tensor, tile: "Tile", lengths: Sequence[int], factors: Sequence[int]) -> Tensor:
        """The weight of each sample of a part: 1 inside, falling to 0 at the ends that other tiles overlap."""
        windows = part.new_ones(part.shape[2:])
        axes = zip(part.shape[2:], tile, lengths, factors, self.overlap, strict=True)
        for axis, (size, (start, stop), length, factor, overlap) in enumerate(axes):
            if (start, stop) == (0, length):
                continue
            if size != (stop - start) * factor:
                raise ValueError(
                    f"axis {axis}: {stop - start} latents gave {size} samples, {(stop - start) * factor} expected; "
                    "leave this axis whole with a tile of 0"
                )
            if overlap == 0:
                continue
            margin = overlap // 4
            distance = torch.arange(size, device=part.device, dtype=part.dtype) + 0.5
            ramp = ((distance - margin * factor) / ((overlap - 2 * margin) * factor)).clamp(0, 1)
            ones = torch.ones_like(ramp)
            window = (ramp if start > 0 else ones) * (ramp.flip(0) if stop < length else ones)
            windows = windows * window.reshape(-1, *[1] * (windows.ndim - 1 - axis))
        return windows


Tile = tuple[tuple[int, int], ...]  # along each axis the first latent and the one after the last


def _spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Tiles of one length that cover an axis; the last ends where it ends, and so may overlap more."""
    if tile == 0 or length <= tile:
        return [(0, length)]
    starts = [*range(0, length - tile, tile - overlap), length - tile]
    return [(start, start + tile) for start in starts]


def _slices(tile: Tile, factors: Sequence[int]) -> tuple[slice, ...]:
    axes = (slice(start * factor, stop * factor) for (start, stop), factor in zip(tile, factors, strict=True))
    return (slice(None), slice(None), *axes)


def _length(size: int, span: tuple[int, int], latents: int, factor: int) -> int:
    """The whole length along an axis, from one tile's size: a codec decides itself for an axis that is left whole."""
    return size if span == (0, latents) else latents * factor
