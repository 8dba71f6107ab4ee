"""Every path and sampler once, and data whose denoisers have closed forms: a new member is tested by being listed."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from hypothesis import settings
from torch import Tensor

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Denoiser, Prediction
from triptych.engine.frame import ratio_frame
from triptych.engine.path import (
    Cosine,
    Discrete,
    Linear,
    Path,
    Straight,
    VarianceExploding,
    linear_betas,
    scaled_linear_betas,
    zero_terminal_snr,
)
from triptych.engine.samplers import SAMPLERS, Noise, Sampler, Step
from triptych.engine.samplers.dpmpp import Dpmpp2SAncestral, DpmppMultistep
from triptych.engine.samplers.multistep import AdamsBashforth, deis_weights
from triptych.engine.samplers.onestep import Ancestral, Dpm2
from triptych.engine.samplers.unipc import UniPC

PATHS: dict[str, Path] = {
    "straight": Straight(),
    "linear": Linear(),
    "cosine": Cosine(),
    "discrete": Discrete(scaled_linear_betas()),
    "exploding": VarianceExploding(80.0),
}
FROM_PURE_NOISE: dict[str, Path] = {  # alpha = 0 at t = 1
    "straight": Straight(),
    "cosine": Cosine(),
    "discrete": Discrete(zero_terminal_snr(linear_betas())),
}

DETERMINISTIC: dict[str, tuple[Sampler, float]] = {  # with the order of a walk that stops short of data
    "euler": (SAMPLERS["euler"], 1),
    "ddim": (SAMPLERS["ddim"], 1),
    "heun": (SAMPLERS["heun"], 2),
    "dpm2": (SAMPLERS["dpm2"], 2),
    "dpmpp_2s": (SAMPLERS["dpmpp_2s"], 2),
    "dpmpp_2m": (SAMPLERS["dpmpp_2m"], 2),
    "unipc": (SAMPLERS["unipc"], 3),
    "lms": (SAMPLERS["lms"], 4),
    "deis": (SAMPLERS["deis"], 2),
    "ipndm": (SAMPLERS["ipndm"], 2),
    "pndm": (SAMPLERS["pndm"], 2),
    # Other knobs: the deterministic halves of the stochastic ones, and further orders.
    "ancestral, eta 0": (Ancestral(eta=0.0), 1),
    "dpm2_ancestral, eta 0": (Dpm2(eta=0.0), 2),
    "dpmpp_2s_ancestral, eta 0": (Dpmpp2SAncestral(eta=0.0), 2),
    "dpmpp_3m": (DpmppMultistep(order=3), 3),
    "unipc 1": (UniPC(order=1), 2),
    "unipc 3": (UniPC(order=3), 4),
    "deis 3": (AdamsBashforth(deis_weights, 3, ratio_frame), 3),
}
STOCHASTIC: dict[str, tuple[Sampler, float]] = {  # with the order of the variance that it reaches on Gaussian data
    "ddpm": (SAMPLERS["ddpm"], 1),
    "euler_ancestral": (SAMPLERS["euler_ancestral"], 1),
    "dpm2_ancestral": (SAMPLERS["dpm2_ancestral"], 2),
    "dpmpp_2s_ancestral": (SAMPLERS["dpmpp_2s_ancestral"], 2),
    "dpmpp_2m_sde": (SAMPLERS["dpmpp_2m_sde"], 2),
    "dpmpp_3m_sde": (SAMPLERS["dpmpp_3m_sde"], 2),
    "ddim, eta 1/2": (Ancestral(eta=0.5), 1),
    "dpmpp_2m_sde, eta 1/2": (replace(SAMPLERS["dpmpp_2m_sde"], eta=0.5), 2),
}
CONSISTENCY = {"lcm": SAMPLERS["lcm"]}  # right for a network that jumps to the data, not for the posterior mean

NOTHING = Conditioning()
REPEATABLE = settings(derandomize=True, deadline=None)  # of hypothesis: the same examples in every run


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def silence(x: Tensor) -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


def drawn(seed: int) -> Noise:
    """Noise like x from a generator of its own."""
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def walk(sampler: Sampler, denoiser: Denoiser, x_t: Tensor, times: Tensor, noise: Noise = silence) -> list[Step]:
    return list(sampler(denoiser, x_t, times, NOTHING, noise))


@dataclass(frozen=True)
class Mixture:
    """The exact denoiser of a mixture of three Gaussians in the plane; x of shape (B, 2)."""

    path: Path
    std: float = 0.4
    means = torch.tensor([[1.0, 0.5], [-1.0, 0.2], [0.3, -1.2]], dtype=torch.float64)
    shares = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        variance = (alpha * self.std).square() + sigma.square()
        apart = x_t[:, None] - alpha[..., None] * self.means  # (B, 3, 2)
        posterior = torch.softmax(self.shares.log() - apart.square().sum(-1) / (2 * variance), 1)
        x_0 = (posterior[..., None] * (self.means + (alpha * self.std**2 / variance)[..., None] * apart)).sum(1)
        return Prediction(x_0, (x_t - alpha * x_0) / sigma)

    def draw(self, count: int, seed: int = 0) -> Tensor:
        """(count, 2) of the data."""
        generator = torch.Generator().manual_seed(seed)
        which = torch.multinomial(self.shares, count, replacement=True, generator=generator)
        return self.means[which] + self.std * torch.randn(count, 2, generator=generator, dtype=torch.float64)

    def cumulative(self, direction: Tensor, t: Tensor) -> Callable[[object], object]:
        """The distribution function of x_t along a unit direction, as scipy wants it."""
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        centres, width = alpha * self.means @ direction, ((alpha * self.std).square() + sigma.square()).sqrt()
        normals = torch.distributions.Normal(centres, width)
        return lambda values: (normals.cdf(torch.as_tensor(values)[..., None]) @ self.shares).numpy()

    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean (2,) and covariance (2, 2) of the data."""
        mean = self.shares @ self.means
        apart = self.means - mean
        return mean, (apart.T * self.shares) @ apart + self.std**2 * torch.eye(2, dtype=torch.float64)


@dataclass(frozen=True)
class Gaussian:
    """The exact denoiser of N(mean, std^2) in every dimension; x of any shape."""

    path: Path
    std: float = 0.5
    mean: float = 0.0

    def spread(self, t: Tensor) -> Tensor:
        """The standard deviation of x_t."""
        return ((self.path.alpha(t) * self.std).square() + self.path.sigma(t).square()).sqrt()

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        apart, variance = x_t - alpha * self.mean, self.spread(t).square()
        return Prediction(self.mean + alpha * self.std**2 / variance * apart, sigma / variance * apart)


@dataclass(frozen=True)
class Consistency:
    """Gaussian data again, but x_0 is where the flow from x_t ends: what a consistency model learns."""

    data: Gaussian

    @property
    def path(self) -> Path:
        return self.data.path

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        alpha, sigma = self.path.alpha(t), self.path.sigma(t)
        apart = (x_t - alpha * self.data.mean) / self.data.spread(t)
        x_0 = self.data.mean + self.data.std * apart
        return Prediction(x_0, (x_t - alpha * x_0) / sigma)


def between(path: Path, half_log_snrs: tuple[float, float], steps: int, power: float = 1.0) -> Tensor:
    """(steps + 1,) times, half_log_snr growing as a power of the step: above 1, the first steps are short."""
    first, last = half_log_snrs
    return path.time(first + (last - first) * torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** power)


def slope(errors: dict[int, float]) -> float:
    """The order: minus the slope of log error over log steps, by least squares."""
    points = [(math.log(steps), math.log(error)) for steps, error in errors.items()]
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return -sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
