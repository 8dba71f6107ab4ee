"""Spacings: where along the path a sampler stops. A spacing gives (steps + 1,) decreasing times, float64.

"Timestep" spacings count on the training table, entry n of N at t = (n + 1) / N (N = 1000 for continuous paths);
"clock" spacings place the frame's clock (sigma / alpha, or t on the straight path) and end at data.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import numpy.polynomial
import torch
from torch import Tensor

from triptych.engine.frame import Frame
from triptych.engine.path import Discrete, Path
from triptych.errors import InvalidField

__all__ = [
    "SPACINGS",
    "AlignYourSteps",
    "Beta",
    "Exponential",
    "Karras",
    "Leading",
    "Linspace",
    "Listed",
    "ResolutionShifted",
    "Shifted",
    "Spacing",
    "Taught",
    "ToFirst",
    "at_clocks",
    "at_timesteps",
    "beta_quantiles",
    "clocks",
    "entries",
    "kl_optimal",
    "linear_quadratic",
    "log_levels",
    "simple",
    "trailing",
    "uniform",
]

Spacing = Callable[[Path, int, int], Tensor]
"""(path, steps, latents per sample: the product of their axes) -> (steps + 1,)."""


def uniform(path: Path, steps: int, latents: int) -> Tensor:
    """Equal steps of t from noise to data."""
    return torch.linspace(1, 0, steps + 1, dtype=torch.float64)


def entries(path: Path) -> int:
    """How many timesteps the path was trained on; 1000 for continuous ones."""
    return path.entries if isinstance(path, Discrete) else 1000


def countable(path: Path, steps: int, spare: int = 0) -> int:
    """The entries, of which every step needs its own, and every spare one."""
    count = entries(path)
    if steps + spare > count:
        allowed = f"1 to {count - spare}"
        raise InvalidField("steps", steps, allowed, "This spacing stops at whole timesteps; try uniform.")
    return count


def at_timesteps(path: Path, timesteps: Tensor, end: float) -> Tensor:
    """The times of (steps,) timesteps, then the end."""
    times = (timesteps.double() + 1) / entries(path)
    return torch.cat([times, times.new_tensor([end])])


@final
@dataclass(frozen=True, slots=True)
class Linspace:
    """Both ends of the table, and equal steps between (arXiv:2305.08891, table 2).

    end: the time after the last step, 0 for data; last: the last time before it, the table's first entry if None.
    spare: equal steps that are counted at the clean end and not taken. snap: to whole timesteps by torch.round.
    """

    end: float = 0.0
    last: float | None = None
    spare: int = 0
    snap: Callable[[Tensor], Tensor] = torch.as_tensor

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        count = entries(path)
        final_step = 0.0 if self.last is None else self.last * count - 1
        timesteps = self.snap(torch.linspace(count - 1, final_step, steps + self.spare, dtype=torch.float64)[:steps])
        if not bool((timesteps.diff() < 0).all()):  # snapped to one and the same
            countable(path, steps, self.spare)
        return at_timesteps(path, timesteps, self.end)


@final
@dataclass(frozen=True, slots=True)
class Leading:
    """Multiples of N // steps plus an offset: never the noisiest entry (arXiv:2305.08891, table 2).

    end: the time after the last step: 0, or 1 / N for models sampled with `set_alpha_to_one = False`.
    spare: the smallest multiples, counted and not taken.
    """

    offset: int = 1
    end: float = 0.0
    spare: int = 0

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        count = countable(path, steps, self.spare)
        multiples = (torch.arange(steps).flip(0) + self.spare) * (count // (steps + self.spare))
        return at_timesteps(path, multiples + min(self.offset, count - 1 - int(multiples[0])), self.end)


def trailing(path: Path, steps: int, latents: int) -> Tensor:
    """From the noisiest entry down by N / steps (arXiv:2305.08891, table 2)."""
    count = countable(path, steps)
    timesteps = (count - torch.arange(steps, dtype=torch.float64) * count / steps).round() - 1
    return at_timesteps(path, timesteps, 0.0)


def simple(path: Path, steps: int, latents: int) -> Tensor:
    """As `trailing`, but what is counted down is rounded down: ComfyUI's "simple"."""
    count = countable(path, steps)
    counted = torch.arange(steps, dtype=torch.float64).mul(count / steps).floor()
    return at_timesteps(path, count - 1 - counted, 0.0)


@final
@dataclass(frozen=True, slots=True)
class Taught:
    """Of the timesteps that a consistency model was taught on, so many, from the noisiest down (arXiv:2310.04378).

    taught: how many there are, N // taught apart; for more steps than that, as many as there are steps.
    """

    taught: int = 50

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        count, taught = countable(path, steps), max(self.taught, steps)
        places = torch.arange(steps, dtype=torch.float64).mul(taught / steps).floor()
        return at_timesteps(path, (taught - places) * (count // taught) - 1, 0.0)


@final
@dataclass(frozen=True, slots=True)
class ToFirst:
    """A spacing that is walked to the first entry of the table instead of data: `set_alpha_to_one = False`."""

    base: Spacing

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        times, first = self.base(path, steps, latents), 1 / entries(path)
        if not bool(times[-2] > first):
            raise InvalidField(
                "steps", steps, f"less than {steps}", "This spacing stops above the table's first entry."
            )
        return torch.cat([times[:-1], times.new_tensor([first])])


def clocks(path: Path) -> tuple[Tensor, Tensor]:
    """The clock at the noisiest finite time and at the table's first entry."""
    frame, count = Frame(path), entries(path)
    ends = torch.tensor([1.0, 1 - 1 / count, 1 / count], dtype=torch.float64)
    noisy, below, clean = frame.clock(ends)
    return (noisy if noisy.isfinite() else below), clean


def at_clocks(path: Path, values: Tensor) -> Tensor:
    return torch.cat([Frame(path).time(values), values.new_zeros(1)]).clamp(0, 1)


@final
@dataclass(frozen=True, slots=True)
class Karras:
    """Equal steps of clock^(1 / rho) (arXiv:2206.00364, equation 5); the path's own ends if None."""

    rho: float = 7.0
    largest: float | None = None
    smallest: float | None = None

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        high, low = (value ** (1 / self.rho) for value in _ends(path, self.largest, self.smallest))
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        return at_clocks(path, (high + ramp * (low - high)) ** self.rho)


@final
@dataclass(frozen=True, slots=True)
class Exponential:
    """Equal steps of log clock: of log-SNR / 2 where the clock is sigma / alpha (arXiv:2206.00927, section 3.4)."""

    largest: float | None = None
    smallest: float | None = None

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        high, low = (value.log() for value in _ends(path, self.largest, self.smallest))
        ramp = torch.linspace(0, 1, steps, dtype=torch.float64)
        return at_clocks(path, (high + ramp * (low - high)).exp())


@final
@dataclass(frozen=True, slots=True)
class Beta:
    """Quantiles of a beta distribution between the ends of the clock: dense at both (arXiv:2407.12173, equation 7)."""

    alpha: float = 0.6
    beta: float = 0.6

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        high, low = clocks(path)
        shares = torch.linspace(1, 0, steps, dtype=torch.float64)
        return at_clocks(path, low + beta_quantiles(shares, self.alpha, self.beta) * (high - low))


def kl_optimal(path: Path, steps: int, latents: int) -> Tensor:
    """Equal steps of the arcus tangens of the clock, best for Gaussian data (arXiv:2404.14507, theorem 3.1)."""
    high, low = (value.atan() for value in clocks(path))
    return at_clocks(path, torch.lerp(high, low, torch.linspace(0, 1, steps, dtype=torch.float64)).tan())


def linear_quadratic(path: Path, steps: int, latents: int) -> Tensor:
    """The clock falls by a fortieth in half of the steps, then along a parabola of that slope (arXiv:2410.13720)."""
    high, _ = clocks(path)
    slow, fall = steps // 2, 0.025
    ramp = torch.arange(steps, dtype=torch.float64)
    if not slow:
        return at_clocks(path, high * (1 - ramp))
    slope, rest = fall / slow, steps - slow
    past = (ramp - slow).clamp(min=0)
    return at_clocks(path, high * (1 - slope * ramp - (1 - fall - slope * rest) * (past / rest).square()))


@final
@dataclass(frozen=True, slots=True)
class AlignYourSteps:
    """Levels of the clock that were optimised for a model, straight lines between their logarithms (arXiv:2404.14507),
    and both ends those of the path."""

    levels: tuple[float, ...]

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        high, low = (value.log() for value in clocks(path))
        shares = log_levels(self.levels, steps + 1)[:-1]
        shares = (shares - math.log(self.levels[-1])) / math.log(self.levels[0] / self.levels[-1])
        return at_clocks(path, torch.lerp(low, high, shares).exp())


def log_levels(levels: Sequence[float], count: int) -> Tensor:
    """(count,) logarithms along the straight lines between those of the levels, evenly from the first to the last."""
    logs = torch.tensor(levels, dtype=torch.float64).log()
    places = torch.linspace(0, len(levels) - 1, count, dtype=torch.float64)
    left = places.floor().clamp(max=len(levels) - 2).long()
    return torch.lerp(logs[left], logs[left + 1], places - left)


def beta_quantiles(shares: Tensor, alpha: float, beta: float) -> Tensor:
    """The inverse of the regularised incomplete beta function at (n,) shares in [0, 1], to 1e-9 or better.

    Both halves are integrated in a variable that makes their end regular, and each share is then found by bisection.
    """
    total = math.exp(math.lgamma(alpha) + math.lgamma(beta) - math.lgamma(alpha + beta))
    nodes, masses = (torch.from_numpy(part) for part in numpy.polynomial.legendre.leggauss(64))
    nodes, masses = (nodes + 1) / 2, masses / 2

    def left(x: Tensor, a: float, b: float) -> Tensor:
        """The integral of z^(a - 1) (1 - z)^(b - 1) from 0 to x <= 1/2, by z = x u^k with k a >= 4."""
        k = max(4 / a, 1)
        z = x[:, None] * nodes**k
        return x**a * ((1 - z) ** (b - 1) @ (masses * k * nodes ** (k * a - 1)))

    def cumulative(x: Tensor) -> Tensor:
        low, high = left(x.clamp(max=0.5), alpha, beta), left((1 - x).clamp(max=0.5), beta, alpha)
        return torch.where(x <= 0.5, low / total, 1 - high / total)

    low, high = torch.zeros_like(shares), torch.ones_like(shares)
    for _ in range(60):
        middle = (low + high) / 2
        below = cumulative(middle) < shares
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return torch.where(shares < 1, low, torch.ones_like(low))  # exact at both ends


def _ends(path: Path, largest: float | None, smallest: float | None) -> tuple[Tensor, Tensor]:
    high, low = clocks(path)
    return (
        high if largest is None else high.new_tensor(largest),
        low if smallest is None else low.new_tensor(smallest),
    )


@final
@dataclass(frozen=True, slots=True)
class Listed:
    """A family's own times, of one number of steps."""

    times: tuple[float, ...]

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        if steps != len(self.times) - 1:
            raise InvalidField("steps", steps, f"{len(self.times) - 1}", "The model's times are listed.")
        return torch.tensor(self.times, dtype=torch.float64)


@final
@dataclass(frozen=True, slots=True)
class Shifted:
    """t -> shift t / (1 + (shift - 1) t): more steps in the noise (arXiv:2403.03206, equation 23)."""

    shift: float
    base: Spacing = uniform

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        return shift_by(self.base(path, steps, latents), self.shift)


@final
@dataclass(frozen=True, slots=True)
class ResolutionShifted:
    """A shift that grows with the latents, Flux.1's rule: mu is linear in their tokens, and the shift is scale(mu).

    tokens: latents / per_token; few and many: two points (tokens, mu) of the line.
    """

    base: Spacing = uniform
    few: tuple[float, float] = (256, 0.5)
    many: tuple[float, float] = (4096, 1.15)
    per_token: int = 4
    scale: Callable[[float], float] = math.exp

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        rise = (self.many[1] - self.few[1]) / (self.many[0] - self.few[0])
        mu = self.few[1] + rise * (latents / self.per_token - self.few[0])
        return shift_by(self.base(path, steps, latents), self.scale(mu))


def shift_by(times: Tensor, shift: float) -> Tensor:
    """Times of any shape in [0, 1], their odds t / (1 - t) multiplied by `shift`."""
    return shift * times / (shift * times + (1 - times))  # exactly 1 at 1


# As the authors of arXiv:2404.14507 publish them for Stable Diffusion 1.5 and XL.
STABLE = (
    *(14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092),
    *(0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582),
)
STABLE_XL = (
    *(14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141),
    *(0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582),
)

SPACINGS: dict[str, Spacing] = {
    "uniform": uniform,
    "linspace": Linspace(),
    "leading": Leading(),
    "trailing": trailing,
    "karras": Karras(),
    "exponential": Exponential(),
    "sgm_uniform": Linspace(spare=1),
    "beta": Beta(),
    "lcm": Taught(),
    "simple": simple,
    "ddim_uniform": Leading(),
    "linear_quadratic": linear_quadratic,
    "kl_optimal": kl_optimal,
    "align_your_steps": AlignYourSteps(STABLE),
    "align_your_steps_xl": AlignYourSteps(STABLE_XL),
    "linspace_spare": Linspace(spare=1, snap=torch.round),
    "leading_spare": Leading(spare=1),
    "leading_first": ToFirst(Leading()),
    "trailing_first": ToFirst(trailing),
    "linspace_spare_first": ToFirst(Linspace(spare=1, snap=torch.round)),
    "leading_spare_first": ToFirst(Leading(spare=1)),
    "lcm_first": ToFirst(Taught()),
}
