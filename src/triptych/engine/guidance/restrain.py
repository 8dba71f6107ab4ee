"""Guidance held back: in its spread, in the times where it acts, in the places where it may draw."""

import math
from dataclasses import dataclass
from typing import Self, final

import torch
from torch import Tensor

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Denoiser, Prediction, Target, data_target, solve, v_target
from triptych.engine.guidance.extrapolate import Guided
from triptych.engine.path import Path

__all__ = ["Interval", "Keep", "Rescaled"]


@final
@dataclass(frozen=True, slots=True)
class Rescaled:
    """A guided network output F brought back to the spread of the unguided one: arXiv:2305.08891, equations 14 to 16.

        F = phi F_guided std(F_plain) / std(F_guided) + (1 - phi) F_guided,  std over a sample.

    target: what F is; the paper's is v, and elsewhere it is whatever the network outputs.
    """

    guided: Guided
    phi: float
    target: Target = v_target

    @property
    def path(self) -> Path:
        return self.guided.path

    def with_plain(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> tuple[Prediction, Prediction]:
        guided, plain = self.guided.with_plain(x_t, t, cond)
        a, b = self.target(self.path, t)
        output = a * guided.x_0 + b * guided.eps
        spread = _std(a * plain.x_0 + b * plain.eps) / _std(output)
        return solve(self.path, self.target, x_t, t, output * (1 + self.phi * (spread - 1))), plain

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        return self.with_plain(x_t, t, cond)[0]


@final
@dataclass(frozen=True, slots=True)
class Interval:
    """Guided for start < t <= stop, plain elsewhere, at the plain one's cost: arXiv:2404.07724, section 3."""

    guided: Denoiser
    plain: Denoiser
    start: float = 0.0
    stop: float = 1.0

    @classmethod
    def of_noise(cls, guided: Denoiser, plain: Denoiser, low: float, high: float) -> Self:
        """Given as the paper does: low < sigma / alpha <= high, on any path."""
        start, stop = (_time(guided.path, level) for level in (low, high))
        return cls(guided, plain, start, stop)

    @property
    def path(self) -> Path:
        return self.guided.path

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        inside = (t > self.start) & (t <= self.stop)
        if bool(inside.all()):
            return self.guided(x_t, t, cond)
        plain = self.plain(x_t, t, cond)
        if not bool(inside.any()):
            return plain
        guided = self.guided(x_t, t, cond)
        return Prediction(torch.where(inside, guided.x_0, plain.x_0), torch.where(inside, guided.eps, plain.eps))


@final
@dataclass(frozen=True, slots=True)
class Keep:
    """Inpainting: x_0 = mask x_0 + (1 - mask) known, and where it is known eps = (x_t - alpha known) / sigma.

    On a deterministic sampler that starts at `perturb(known, eps, t)` the kept part runs along its own line, as the
    replacement of arXiv:2201.09865 (equation 8) makes it. known (B, C, *S); mask broadcasts against it: 1 is made anew,
    0 is kept, between the two is a blend.
    """

    denoiser: Denoiser
    known: Tensor
    mask: Tensor

    @property
    def path(self) -> Path:
        return self.denoiser.path

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        made = self.denoiser(x_t, t, cond)
        kept = solve(self.path, data_target, x_t, t, self.known.expand_as(x_t))
        share = self.mask.to(x_t.dtype).expand_as(x_t)
        return Prediction(torch.lerp(kept.x_0, made.x_0, share), torch.lerp(kept.eps, made.eps, share))


def _time(path: Path, level: float) -> float:
    """t where sigma / alpha is this; the ends of the path beyond it."""
    if level <= 0:
        return 0.0
    if math.isinf(level):
        return 1.0
    return float(path.time(torch.tensor(-math.log(level), dtype=torch.float64)).clamp(0, 1))


def _std(x: Tensor) -> Tensor:
    """(B, 1, ..., 1): the standard deviation within each sample."""
    return x.std(tuple(range(1, x.ndim)), keepdim=True)
