"""The KL autoencoder in strips of rows: what it gives as a whole, in the memory of little more than one map.

A convolution of a strip needs a row beyond either end. A norm needs mean and variance of the whole map: one pass over
all strips gathers them, the next makes use of them. No strip has statistics or edges of its own, so there are no seams
to blend. Of a block only the result is stored, over its input where that has as many channels; the rest, and the map
between two levels, is computed anew in every pass. Levels that fit into one strip, and the middle with its attention,
run whole.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import cast, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from triptych.engine.codecs.kl import KL, Downsample, Level, Residual, Upsample, activated

__all__ = ["Strips"]

REACH = 2  # how many rows away a block looks, which no strip may be lower than


@final
@dataclass(frozen=True)
class Strips:
    """A KL codec that takes one sample at a time, in strips. It has no gradients.

    pixels: how many of a map a strip may have, at any resolution.
    """

    codec: KL
    pixels: int = 2**16

    @property
    def channels(self) -> int:
        return self.codec.channels

    @property
    def scale_factor(self) -> tuple[int, ...]:
        return self.codec.scale_factor

    def encode(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] -> (B, channels, H / 8, W / 8) float32: the posterior's mean."""
        return self.moments(x)[0]

    @torch.no_grad()
    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [-1, 1] -> mean and standard deviation of the posterior, (B, channels, H / 8, W / 8) each."""
        features = torch.cat([self._encoded(one) for one in torch.split(self.codec.entering(x), 1)])
        return self.codec.posterior(features)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """(B, channels, h, w) -> (B, 3, 8 h, 8 w) float32."""
        return torch.cat([self._decoded(one) for one in torch.split(self.codec.unscaled(z), 1)]).float()

    def _encoded(self, x: Tensor) -> Tensor:
        encoder = self.codec.encoder
        source = _convolved(encoder.conv_in, _stored(x))
        for level in cast("Sequence[Level]", encoder.down):
            source = self._level(level, source)
        out: Tensor = encoder.conv_out(activated(encoder.norm_out, encoder.mid(source.whole())))
        return out

    def _decoded(self, z: Tensor) -> Tensor:
        decoder = self.codec.decoder
        source = _stored(decoder.mid(decoder.conv_in(z)))
        for level in reversed(cast("Sequence[Level]", decoder.up)):
            source = self._level(level, source)
        return _written(_convolved(decoder.conv_out, _activated(decoder.norm_out, source, self.pixels)), self.pixels)

    def _level(self, level: Level, source: "Map") -> "Map":
        x: Tensor | None = None
        for block in cast("Sequence[Residual]", level.block):
            if source.height * source.width <= self.pixels:
                x = block(source.whole())
            else:
                x = _written(_residual(block, source, self.pixels), self.pixels, x)
            source = _stored(x)
        if level.downsample is not None:
            return _remembered(_downsampled(level.downsample, source))
        return source if level.upsample is None else _remembered(_upsampled(level.upsample, source))


@final
@dataclass(frozen=True, slots=True)
class Map:
    """What a layer gives for one sample, (1, C, height, width), computed when some of its rows are asked for.

    rows: (first, one after the last) -> (1, C, last - first + 1, width).
    """

    height: int
    width: int
    rows: Callable[[int, int], Tensor]

    def whole(self) -> Tensor:
        return self.rows(0, self.height)

    def padded(self, start: int, stop: int) -> Tensor:
        """Rows some of which may lie beyond the map, where it is zero."""
        inside = self.rows(max(start, 0), min(stop, self.height))
        above, below = max(-start, 0), max(stop - self.height, 0)
        return F.pad(inside, (0, 0, above, below)) if above or below else inside

    def strips(self, pixels: int) -> list[tuple[int, int]]:
        """The first row and the one after the last of each strip of at most so many pixels, or of two rows."""
        return list(pairwise([*range(0, self.height, max(REACH, pixels // self.width)), self.height]))


def _stored(x: Tensor) -> Map:
    return Map(x.shape[2], x.shape[3], lambda start, stop: x[:, :, start:stop])


def _remembered(source: Map) -> Map:
    """The same, but the rows last computed are kept: who asks for some of them again waits for nothing."""
    first, kept = 0, torch.empty(1, 0, 0, 0)

    def rows(start: int, stop: int) -> Tensor:
        nonlocal first, kept
        if not first <= start < stop <= first + kept.shape[2]:
            first, kept = start, source.rows(start, stop)
        return kept[:, :, start - first : stop - first]

    return Map(source.height, source.width, rows)


def _convolved(layer: nn.Conv2d, source: Map) -> Map:
    """layer: 3x3, padded."""

    def rows(start: int, stop: int) -> Tensor:
        return F.conv2d(source.padded(start - 1, stop + 1), layer.weight, layer.bias, padding=(0, 1))

    return Map(source.height, source.width, rows)


def _activated(norm: nn.GroupNorm, source: Map, pixels: int) -> Map:
    """SiLU of the normalised: once its statistics are known, a norm of groups is that of a batch in evaluation."""
    mean, variance = _statistics(source, norm.num_groups, pixels)
    weight, bias = norm.weight.float(), norm.bias.float()

    def rows(start: int, stop: int) -> Tensor:
        normal = F.batch_norm(source.rows(start, stop), mean, variance, weight, bias, eps=norm.eps)
        return F.silu(normal, inplace=True)

    return Map(source.height, source.width, rows)


def _statistics(source: Map, groups: int, pixels: int) -> tuple[Tensor, Tensor]:
    """Mean and variance of all that is in a channel's group, (C,) each."""
    sums = []
    for strip in source.strips(pixels):
        values = source.rows(*strip).float().movedim(1, -1).flatten(0, 2)  # (rows width, C)
        sums.append(torch.stack([values.sum(0), values.square().sum(0)]).double())
    total = torch.stack(sums).sum(0) / (source.height * source.width)
    mean, square = total.reshape(2, groups, -1).mean(2)
    variance, size = square - mean.square(), total.shape[1] // groups
    return mean.float().repeat_interleave(size), variance.float().repeat_interleave(size)


def _residual(block: Residual, source: Map, pixels: int) -> Map:
    h = _convolved(block.conv1, _activated(block.norm1, source, pixels))
    h = _convolved(block.conv2, _activated(block.norm2, h, pixels))

    def rows(start: int, stop: int) -> Tensor:
        change = h.rows(start, stop)
        return change.add_(block.skip(source.rows(start, stop)))

    return Map(source.height, source.width, rows)


def _downsampled(layer: Downsample, source: Map) -> Map:
    def rows(start: int, stop: int) -> Tensor:
        out: Tensor = layer.conv(F.pad(source.padded(2 * start, 2 * stop + 1), (0, 1)))
        return out

    return Map(source.height // 2, source.width // 2, rows)


def _upsampled(layer: Upsample, source: Map) -> Map:
    def rows(start: int, stop: int) -> Tensor:
        first, last = start // 2, (stop + 1) // 2
        doubled: Tensor = layer(source.padded(first - 1, last + 1), padding=0)
        return doubled[:, :, start - 2 * first : stop - 2 * first]

    return Map(2 * source.height, 2 * source.width, rows)


def _written(source: Map, pixels: int, place: Tensor | None = None) -> Tensor:
    """All of a map, (1, C, height, width). place: where to, which may be what the map is computed from.

    A strip is written after the next was computed, which looks at rows that the strip takes the place of.
    """
    strips = source.strips(pixels)
    done = source.rows(*strips[0])
    if place is None:
        shape = (1, done.shape[1], source.height, source.width)
        place = torch.empty(shape, dtype=done.dtype, device=done.device, memory_format=torch.channels_last)
    for before, strip in pairwise(strips):
        following = source.rows(*strip)
        place[:, :, slice(*before)] = done
        done = following
    place[:, :, slice(*strips[-1])] = done
    return place
