"""Where on the path to train, and how much each place counts.

A density draws times: (count, generator) -> (count,), each in [0, 1]; its knobs are keyword arguments, for `partial`.
A weighting multiplies `NetworkDenoiser.loss`, the squared error of the network's own output F = a x_0 + b eps. Papers
state weights for the error of x_0; since alpha dx_0 + sigma deps = 0 where x_t is given,

    |dF|^2 = ((a sigma - b alpha) / sigma)^2 |dx_0|^2,

so one formula turns a weight for x_0 into that of any target on any path.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from triptych.engine.conditioning import Conditioning, concatenate
from triptych.engine.denoiser import NetworkDenoiser, Target, broadcast
from triptych.engine.guidance import rows, tensors
from triptych.engine.path import Path

__all__ = [
    "Density",
    "EdmWeight",
    "MinSnr",
    "Objective",
    "SigmoidWeight",
    "Weighting",
    "constant",
    "cosine_map",
    "drop",
    "log_normal",
    "logit_normal",
    "mode",
    "shifted",
    "stratified",
    "uniform",
]

Density = Callable[[int, torch.Generator], Tensor]
Weighting = Callable[[Path, Target, Tensor], Tensor]  # (path, target, t) -> weights of t's shape


def uniform(count: int, generator: torch.Generator) -> Tensor:
    """t uniform on (0, 1)."""
    return torch.rand(count, generator=generator).clamp(min=2.0**-25)  # never 0, where some weights are infinite


def stratified(count: int, generator: torch.Generator) -> Tensor:
    """Uniform on (0, 1) each, and evenly spread together: arXiv:2107.00630, appendix I.1. Less noise in the loss."""
    start = torch.rand(1, generator=generator)
    return ((start + torch.arange(count) / count) % 1).clamp(min=2.0**-25)


def logit_normal(
    count: int, generator: torch.Generator, *, mean: float = 0.0, std: float = 1.0, base: Density = uniform
) -> Tensor:
    """log(t / (1 - t)) is normal: arXiv:2403.03206, equation 19. A higher mean trains nearer to noise."""
    return torch.sigmoid(mean + std * torch.special.ndtri(base(count, generator)))


def mode(count: int, generator: torch.Generator, *, scale: float = 1.29, base: Density = uniform) -> Tensor:
    """t = 1 - u - scale (cos^2(pi u / 2) - 1 + u): arXiv:2403.03206, equation 20; more in the middle for scale > 0."""
    u = base(count, generator)
    return 1 - u - scale * (torch.cos(0.5 * math.pi * u).square() - 1 + u)


def cosine_map(count: int, generator: torch.Generator, *, base: Density = uniform) -> Tensor:
    """t = 1 - 1 / (tan(pi u / 2) + 1): on the straight path the log SNR of the cosine one, arXiv:2403.03206, eq. 21."""
    return 1 - 1 / (torch.tan(0.5 * math.pi * base(count, generator)) + 1)


def log_normal(
    count: int,
    generator: torch.Generator,
    *,
    path: Path,
    mean: float = -1.2,
    std: float = 1.2,
    base: Density = uniform,
) -> Tensor:
    """log(sigma / alpha) is normal: arXiv:2206.00364, table 1."""
    return path.time(-(mean + std * torch.special.ndtri(base(count, generator)))).clamp(0, 1)


def shifted(count: int, generator: torch.Generator, *, shift: float, base: Density = uniform) -> Tensor:
    """t = shift u / (1 + (shift - 1) u): the same noise for more samples, arXiv:2403.03206, equation 23."""
    u = base(count, generator)
    return shift * u / (1 + (shift - 1) * u)


def constant(path: Path, target: Target, t: Tensor) -> Tensor:
    """Every time counts the same in the error of the network's own output."""
    return torch.ones_like(t)


@final
@dataclass(frozen=True, slots=True)
class MinSnr:
    """min(SNR, gamma) |dx_0|^2, SNR = alpha^2 / sigma^2: arXiv:2303.09556, section 3.4.

    It is min(SNR, gamma) / SNR for eps and min(SNR, gamma) / (SNR + 1) for v on a variance-preserving path.
    """

    gamma: float = 5.0

    def __call__(self, path: Path, target: Target, t: Tensor) -> Tensor:
        return _noise_to_signal(path, t).square().reciprocal().clamp(max=self.gamma) * _data_error(path, target, t)


@final
@dataclass(frozen=True, slots=True)
class EdmWeight:
    """(s^2 + sigma_data^2) / (s sigma_data)^2 |dx_0|^2, s = sigma / alpha: arXiv:2206.00364, table 1.

    One for the Karras target.
    """

    sigma_data: float = 0.5

    def __call__(self, path: Path, target: Target, t: Tensor) -> Tensor:
        weight = (self.sigma_data**-2) + _noise_to_signal(path, t).square().reciprocal()
        return weight * _data_error(path, target, t)


@final
@dataclass(frozen=True, slots=True)
class SigmoidWeight:
    """sigmoid(bias - log SNR) |deps|^2, which is exp(bias) sigmoid(log SNR - bias) |dx_0|^2: arXiv:2303.00848.

    A lower bias leaves out finer detail; arXiv:2410.19324 lowers it as pictures grow.
    """

    bias: float = 2.0

    def __call__(self, path: Path, target: Target, t: Tensor) -> Tensor:
        log_snr = 2 * path.half_log_snr(t)
        return math.exp(self.bias) * torch.sigmoid(log_snr - self.bias) * _data_error(path, target, t)


def drop(cond: Conditioning, uncond: Conditioning, share: float, generator: torch.Generator) -> Conditioning:
    """This share of a batch's conditionings replaced by the unconditional ones: arXiv:2207.12598, algorithm 1.

    Both (B, ...), of the same routes and shapes. Raises ValueError.
    """
    stacked = concatenate(cond, uncond)
    if stacked is None:
        raise ValueError("the conditional and the unconditional conditioning differ in their routes or shapes")
    count = tensors(cond)[0].shape[0]
    dropped = torch.rand(count, generator=generator) < share
    return rows(stacked, torch.arange(count) + count * dropped)


@final
@dataclass(frozen=True, slots=True)
class Objective:
    """What one batch costs: times, noise, dropped conditionings and the weighted error of the network's output."""

    density: Density = uniform
    weighting: Weighting = constant
    drop: float = 0.1  # share of conditionings

    def __call__(
        self, denoiser: NetworkDenoiser, x_0: Tensor, cond: Conditioning, uncond: Conditioning, *, seed: int
    ) -> Tensor:
        """(B,) of x_0 (B, C, *S); every draw is made on the CPU from this seed."""
        generator = torch.Generator("cpu").manual_seed(seed)
        told = drop(cond, uncond, self.drop, generator) if self.drop else cond
        t = broadcast(self.density(x_0.shape[0], generator).to(x_0.device), x_0)
        eps = torch.randn(x_0.shape, generator=generator).to(x_0)
        weight = self.weighting(denoiser.path, denoiser.target, t)
        return weight.flatten() * denoiser.loss(x_0, eps, t, told)


def _noise_to_signal(path: Path, t: Tensor) -> Tensor:
    return path.sigma(t) / path.alpha(t)


def _data_error(path: Path, target: Target, t: Tensor) -> Tensor:
    """|dx_0|^2 / |dF|^2."""
    a, b = target(path, t)
    sigma = path.sigma(t)
    return (sigma / (a * sigma - b * path.alpha(t))).square()
