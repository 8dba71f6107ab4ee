"""Codecs: samples in [-1, 1] to latents of unit variance and back, over any number of axes.

The codec owns shift and scale; samplers only ever see latents whose variance is about one (arXiv:2112.10752).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, final

from torch import Tensor

__all__ = ["Codec", "Identity", "latent_shape"]


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


def latent_shape(codec: Codec, samples: Sequence[int]) -> tuple[int, ...]:
    """(C, *latents) of one sample of these lengths (pixels, frames or audio samples), rounded up."""
    if len(samples) != len(codec.scale_factor):
        raise ValueError(f"{len(samples)} axes given, the codec has {len(codec.scale_factor)}")
    return (codec.channels, *(math.ceil(n / f) for n, f in zip(samples, codec.scale_factor, strict=True)))
