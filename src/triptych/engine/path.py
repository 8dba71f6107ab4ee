"""Paths from data to noise: x_t = alpha(t) x_0 + sigma(t) eps, with t = 0 data and t = 1 noise.

A path is known by alpha, sigma and their derivatives. Everything that samplers, targets and spacings need follows
from them: half_log_snr = log(alpha / sigma) and its inverse. Formulas work in the dtype of `t` and keep its shape.

Variance preserving (alpha^2 + sigma^2 = 1): `Linear`, `Cosine` (continuous) and `Discrete` (a training table of betas).
Variance exploding (alpha = 1): `VarianceExploding`. Flow matching (alpha + sigma = 1): `Straight`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

__all__ = [
    "Cosine",
    "Discrete",
    "Linear",
    "Path",
    "Straight",
    "VarianceExploding",
    "cosine_betas",
    "linear_betas",
    "scaled_linear_betas",
    "zero_terminal_snr",
]


class Path(ABC):
    """How data becomes noise. Every method keeps the shape and dtype of its argument."""

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """The share of the data at time t in [0, 1]."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """The share of the noise at time t in [0, 1]."""

    @abstractmethod
    def velocity(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(d alpha / dt, d sigma / dt)."""

    @abstractmethod
    def time(self, half_log_snr: Tensor) -> Tensor:
        """The t in [0, 1] at which log(alpha / sigma) has this value: the inverse of `half_log_snr`."""

    @final
    def half_log_snr(self, t: Tensor) -> Tensor:
        """log(alpha / sigma): +inf at data, decreasing in t."""
        return self.alpha(t).log() - self.sigma(t).log()

    @final
    def perturb(self, x_0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t of shape (B, C, *S); t broadcasts against it."""
        return self.alpha(t) * x_0 + self.sigma(t) * eps


@final
@dataclass(frozen=True)
class Straight(Path):
    """Flow matching, rectified flow: x_t = (1 - t) x_0 + t eps (arXiv:2210.02747, arXiv:2209.03003)."""

    def alpha(self, t: Tensor) -> Tensor:
        return 1 - t

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def velocity(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -torch.ones_like(t), torch.ones_like(t)

    def time(self, half_log_snr: Tensor) -> Tensor:
        return torch.sigmoid(-half_log_snr)


@final
@dataclass(frozen=True)
class VarianceExploding(Path):
    """x_t = x_0 + sigma_max t eps: EDM's sigma as time, in units of sigma_max (arXiv:2206.00364, table 1)."""

    sigma_max: float = 80.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        return self.sigma_max * t

    def velocity(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(t), torch.full_like(t, self.sigma_max)

    def time(self, half_log_snr: Tensor) -> Tensor:
        return torch.exp(-half_log_snr) / self.sigma_max


@final
@dataclass(frozen=True)
class Linear(Path):
    """The continuous limit of linear betas: log alpha = -beta_0 t / 2 - (beta_1 - beta_0) t^2 / 4.

    arXiv:2011.13456, equation 32; its rates are a thousand times those of a table of 1,000 betas.
    """

    beta_0: float = 0.1
    beta_1: float = 20.0

    def _log_alpha(self, t: Tensor) -> Tensor:
        return -0.5 * self.beta_0 * t - 0.25 * (self.beta_1 - self.beta_0) * t.square()

    def alpha(self, t: Tensor) -> Tensor:
        return self._log_alpha(t).exp()

    def sigma(self, t: Tensor) -> Tensor:
        return (-torch.expm1(2 * self._log_alpha(t))).sqrt()

    def velocity(self, t: Tensor) -> tuple[Tensor, Tensor]:
        rate = -0.5 * (self.beta_0 + (self.beta_1 - self.beta_0) * t)  # d log alpha / dt
        alpha = self.alpha(t)
        return rate * alpha, -rate * alpha.square() / self.sigma(t)

    def time(self, half_log_snr: Tensor) -> Tensor:
        log_alpha = -0.5 * torch.nn.functional.softplus(-2 * half_log_snr)
        slope = self.beta_1 - self.beta_0
        root = (self.beta_0**2 - 4 * slope * log_alpha).sqrt()
        return -4 * log_alpha / (self.beta_0 + root)  # the stable form of (root - beta_0) / slope


@final
@dataclass(frozen=True)
class Cosine(Path):
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2) (arXiv:2102.09672 without its offset, arXiv:2202.00512)."""

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi * (1 - t))  # exactly 0 at t = 1, unlike the cosine

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi * t)

    def velocity(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return -0.5 * math.pi * self.sigma(t), 0.5 * math.pi * self.alpha(t)

    def time(self, half_log_snr: Tensor) -> Tensor:
        return (2 / math.pi) * torch.atan(torch.exp(-half_log_snr))


@final
class Discrete(Path):
    """A variance-preserving path through a training table: entry n of N sits at t = (n + 1) / N, data at t = 0.

    Between entries the angle atan2(sigma, alpha) is interpolated linearly: it is finite at both ends (0 at data,
    pi/2 where the terminal SNR is zero), so the path is invertible everywhere without a special case.
    """

    def __init__(self, betas: Tensor) -> None:
        """betas: (N,), each in [0, 1]; a last beta of 1 means zero terminal SNR (arXiv:2305.08891)."""
        self.betas = betas.double()
        alpha_squared = torch.cumprod(1 - self.betas, 0)
        angle = torch.atan2((1 - alpha_squared).sqrt(), alpha_squared.sqrt())
        self._angles = torch.cat([angle.new_zeros(1), angle])

    @property
    def entries(self) -> int:
        """How many noise levels the table has."""
        return len(self.betas)

    def _segment(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        position = t.double() * self.entries
        left = position.floor().clamp(0, self.entries - 1)
        angles = self._angles.to(t.device)
        start = angles[left.long()]
        return start, angles[left.long() + 1] - start, position - left

    def _angle(self, t: Tensor) -> Tensor:
        start, slope, share = self._segment(t)
        return start + slope * share

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(0.5 * math.pi - self._angle(t)).to(t.dtype)  # exactly 0 at an angle of pi/2, unlike cos

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(self._angle(t)).to(t.dtype)

    def velocity(self, t: Tensor) -> tuple[Tensor, Tensor]:
        start, slope, share = self._segment(t)
        angle, rate = start + slope * share, slope * self.entries
        return (-angle.sin() * rate).to(t.dtype), (angle.cos() * rate).to(t.dtype)

    def time(self, half_log_snr: Tensor) -> Tensor:
        angle = torch.atan(torch.exp(-half_log_snr.double()))
        angles = self._angles.to(angle.device)
        right = torch.searchsorted(angles, angle.contiguous()).clamp(1, self.entries)
        start, end = angles[right - 1], angles[right]
        return ((right - 1 + (angle - start) / (end - start)) / self.entries).clamp(0, 1).to(half_log_snr.dtype)


def linear_betas(start: float = 1e-4, end: float = 0.02, entries: int = 1000) -> Tensor:
    """(entries,) betas of DDPM (arXiv:2006.11239, section 4)."""
    return torch.linspace(start, end, entries, dtype=torch.float64)


def scaled_linear_betas(start: float = 0.00085, end: float = 0.012, entries: int = 1000) -> Tensor:
    """(entries,) betas linear in their square root, as latent diffusion trains (arXiv:2112.10752)."""
    return torch.linspace(start**0.5, end**0.5, entries, dtype=torch.float64).square()


def cosine_betas(entries: int = 1000, offset: float = 0.008, largest: float = 0.999) -> Tensor:
    """(entries,) betas whose alpha^2 follows a squared cosine (arXiv:2102.09672, equation 17)."""
    t = torch.linspace(0, 1, entries + 1, dtype=torch.float64)
    alpha_squared = torch.cos((t + offset) / (1 + offset) * math.pi / 2).square()
    return (1 - alpha_squared[1:] / alpha_squared[:-1]).clamp(max=largest)


def zero_terminal_snr(betas: Tensor) -> Tensor:
    """(entries,) betas shifted and scaled so that the last entry is pure noise (arXiv:2305.08891, algorithm 1)."""
    alpha = torch.cumprod(1 - betas.double(), 0).sqrt()
    alpha = (alpha - alpha[-1]) * alpha[0] / (alpha[0] - alpha[-1])
    alpha_squared = alpha.square()
    return 1 - torch.cat([alpha_squared[:1], alpha_squared[1:] / alpha_squared[:-1]])
