"""Noise that belongs to its sample: one generator a seed, so that a batch is exactly its samples side by side."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, final

import torch
from torch import Tensor

from triptych.engine.philox import Philox

__all__ = ["SOURCES", "Draw", "SeededNoise", "Source", "cpu", "gpu", "slerp"]

Draw = Callable[[Sequence[int]], Tensor]
"""A shape to standard normal numbers, float32 on the CPU, which differ from call to call."""

Source = Callable[[int], Draw]
"""A seed to what draws."""


def cpu(seed: int) -> Draw:
    """As `torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))`, call after call."""
    generator = torch.Generator("cpu").manual_seed(seed & 2**64 - 1)
    return lambda shape: torch.randn(tuple(shape), generator=generator)


def gpu(seed: int) -> Draw:
    """As the same on a GPU of NVIDIA's."""
    return Philox(seed)


SOURCES: Final[Mapping[str, Source]] = MappingProxyType({"cpu": cpu, "gpu": gpu})


@final
class SeededNoise:
    """Standard normal noise, drawn on the CPU in float32 whatever the device and dtype of the samples.

    A sample of seed s begins with what `source(s)` draws first, and every later draw goes on with the same generator.
    """

    def __init__(self, seeds: Sequence[int], source: Source = cpu) -> None:
        """seeds: one a sample of the batch."""
        self._draws = [source(seed) for seed in seeds]

    def draw(self, shape: Sequence[int]) -> Tensor:
        """(B, *shape) on the CPU in float32; shape: of one sample, (C, *S)."""
        return torch.stack([draw(shape) for draw in self._draws])

    def __call__(self, x: Tensor) -> Tensor:
        """Noise like x (B, C, *S): its shape, device and dtype."""
        if x.shape[0] != len(self._draws):
            raise ValueError(f"a batch of {x.shape[0]} samples given, noise was seeded for {len(self._draws)}")
        return self.draw(x.shape[1:]).to(x.device, x.dtype)


ALIKE = 0.9995  # the mean cosine from which on two noises are mixed evenly


def slerp(low: Tensor, high: Tensor, share: float) -> Tensor:
    """From low to high, each (C, *S), along the arc between their columns, which run along the first axis of S.

    So AUTOMATIC1111's web UI mixes the noise of two seeds (modules/rng.py), down to what it does where they are alike.
    """
    cosine = torch.nn.functional.normalize(low, dim=1, eps=0) * torch.nn.functional.normalize(high, dim=1, eps=0)
    cosine = cosine.sum(1, keepdim=True)
    if cosine.mean() > ALIKE:
        return low * share + high * (1 - share)
    angle = torch.acos(cosine)
    return (torch.sin((1 - share) * angle) * low + torch.sin(share * angle) * high) / torch.sin(angle)
