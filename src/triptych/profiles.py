"""Whose rules hold: programs disagree on what the same settings mean, and a picture is made again by its own program's.

They differ in where noise comes from, in what the walk starts with, in how many steps a strength walks, and in how
prompts are read. Each rule was read in the program's published code: diffusers 0.42, AUTOMATIC1111's web UI 1.10
(modules/sd_samplers_common.py, modules/rng.py), ComfyUI 0.3 (comfy/sample.py, comfy/model_sampling.py).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Protocol, final

import torch
from torch import Tensor

from triptych.engine.noise import SeededNoise
from triptych.engine.path import Path

__all__ = ["PROFILES", "Drawn", "Profile", "profile"]


class Drawn(Protocol):
    """Noise for all samples of a batch."""

    def draw(self, shape: Sequence[int]) -> Tensor:
        """(B, *shape) on the CPU in float32."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Noise like x (B, C, *S)."""
        ...


@final
class Together:
    """One generator for the whole batch, as ComfyUI draws it: only the first sample is what its seed makes alone."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._count, self._generator = len(seeds), torch.Generator("cpu").manual_seed(seeds[0])

    def draw(self, shape: Sequence[int]) -> Tensor:
        return torch.randn((self._count, *shape), generator=self._generator)

    def __call__(self, x: Tensor) -> Tensor:
        return self.draw(x.shape[1:]).to(x.device, x.dtype)


def unit(path: Path, t: Tensor, sampler: str | None, spacing: str | None) -> Tensor:
    """The spread of x_t for data of unit variance: one on a variance-preserving path."""
    return torch.hypot(path.alpha(t), path.sigma(t))


def noise_alone(path: Path, t: Tensor, sampler: str | None, spacing: str | None) -> Tensor:
    """sigma: x_t of data that are nothing."""
    return path.sigma(t)


def either(path: Path, t: Tensor, sampler: str | None, spacing: str | None) -> Tensor:
    """As diffusers' `init_noise_sigma`: sigma in classes that walk sigma / alpha, on spacings that reach its end."""
    at_the_end = sampler in RATIO_WALKERS and spacing in ("linspace", "trailing")
    return (noise_alone if at_the_end else unit)(path, t, sampler, spacing)


RATIO_WALKERS = ("euler", "euler_ancestral", "heun", "dpm2", "dpm2_ancestral", "lms")


def whole_steps(steps: int, strength: float) -> int:
    """The whole steps within this share of the path."""
    return min(int(steps * strength), steps)


def one_more(steps: int, strength: float) -> int:
    """One more than the whole steps within this share, which is never all."""
    return int(min(strength, 0.999) * steps) + 1


@final
@dataclass(frozen=True, slots=True)
class Profile:
    """The rules of one program.

    noise: seeds to noise; spread: what the first noise is multiplied by, from (path, t (), sampler, spacing); walked:
    (steps, strength) to steps; reading: the name of its rules for prompts; sampled: whether the latents of an init are
    a sample of the posterior, drawn before all other noise, or else its mean; held: whether what is kept of a picture
    is kept for a network, too, that sees it.
    """

    reading: str
    noise: Callable[[Sequence[int]], Drawn] = SeededNoise
    spread: Callable[[Path, Tensor, str | None, str | None], Tensor] = unit
    walked: Callable[[int, float], int] = whole_steps
    sampled: bool = False
    held: bool = True


PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        "native": Profile("a1111"),
        "diffusers": Profile("none", spread=either, sampled=True, held=False),
        "a1111": Profile("a1111", spread=noise_alone, walked=one_more),
        "comfy": Profile("comfy", noise=Together),
    }
)


def profile(name: str | None) -> Profile:
    """The rules of this name; ours without one."""
    return PROFILES[name or "native"]
