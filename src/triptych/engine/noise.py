"""Noise that belongs to its sample: one CPU generator a seed, so that a batch is exactly its samples side by side."""

from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor

__all__ = ["SeededNoise"]


@final
class SeededNoise:
    """Standard normal noise, drawn on the CPU in float32 whatever the device and dtype of the samples.

    A sample of seed s begins with what `torch.randn(shape, generator=torch.Generator("cpu").manual_seed(s))` draws,
    and every later draw goes on with the same generator.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        """seeds: one a sample of the batch."""
        self._generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]

    def draw(self, shape: Sequence[int]) -> Tensor:
        """(B, *shape) on the CPU in float32; shape: of one sample, (C, *S)."""
        return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in self._generators])

    def __call__(self, x: Tensor) -> Tensor:
        """Noise like x (B, C, *S): its shape, device and dtype."""
        if x.shape[0] != len(self._generators):
            raise ValueError(f"a batch of {x.shape[0]} samples given, noise was seeded for {len(self._generators)}")
        return self.draw(x.shape[1:]).to(x.device, x.dtype)
