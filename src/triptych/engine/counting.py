"""Noise levels and timesteps as k-diffusion counts them: log(sigma / alpha) runs straight between a table's entries.

The path here runs straight in its angle there, which differs by less than 1e-5 from the tenth entry on and by up to 2 %
below the second. The web UI's and ComfyUI's spacings are counted so, and one more or less than so many steps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from triptych.engine.path import Path
from triptych.engine.spacing import Spacing, at_clocks, at_timesteps, beta_quantiles, clocks, entries, log_levels

__all__ = [
    "HIGHEST",
    "Counted",
    "Skipping",
    "between_entries",
    "every",
    "every_but_the_first",
    "nearest_entries",
    "optimal_to_the_first",
    "quantiles",
    "tabled",
]

HIGHEST = 8.416  # log(sigma / alpha) of a table that ends in noise alone: its last alpha^2 is 4.9e-8 in both programs


def _logs(path: Path) -> Tensor:
    """(N,) log(sigma / alpha) of the entries, rising."""
    count = entries(path)
    return -path.half_log_snr((torch.arange(count, dtype=torch.float64) + 1) / count).clamp(min=-HIGHEST)


def nearest_entries(path: Path) -> Callable[[Tensor], Tensor]:
    """Times t to those of the entries whose log(sigma / alpha) is nearest: a network is told whole timesteps."""
    logs = _logs(path)
    middles = (logs[1:] + logs[:-1]) / 2

    def told(t: Tensor) -> Tensor:
        place = torch.searchsorted(middles.to(t.device), -path.half_log_snr(t.double()).contiguous())
        return ((place.double() + 1) / len(logs)).to(t.dtype)

    return told


def between_entries(path: Path) -> Callable[[Tensor], Tensor]:
    """Times t to those where the same log(sigma / alpha) lies on the straight lines between entries."""
    logs = _logs(path)

    def told(t: Tensor) -> Tensor:
        level, known = -path.half_log_snr(t.double()).contiguous(), logs.to(t.device)
        left = (torch.searchsorted(known, level, right=True) - 1).clamp(0, len(known) - 2)
        share = ((level - known[left]) / (known[left + 1] - known[left])).clamp(0, 1)
        return ((left + share + 1) / len(known)).to(t.dtype)

    return told


@final
@dataclass(frozen=True, slots=True)
class Counted:
    """Equal steps over the table, levels in between on straight lines; spare: steps counted and not taken."""

    spare: int = 0

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        logs = _logs(path)
        places = torch.linspace(len(logs) - 1, 0, steps + self.spare, dtype=torch.float64)[:steps]
        left = places.floor().clamp(max=len(logs) - 2).long()
        return at_clocks(path, torch.lerp(logs[left], logs[left + 1], places - left).exp())


def every(path: Path, steps: int, latents: int) -> Tensor:
    """The entries 1, 1 + m, 1 + 2 m, ... with m = N // steps, then data: at times more steps than asked for."""
    count = entries(path)
    return at_timesteps(path, torch.arange(1, count, max(count // steps, 1)).flip(0), 0.0)


def every_but_the_first(path: Path, steps: int, latents: int) -> Tensor:
    """The same without data at its end: the last step leads to entry 1."""
    count = entries(path)
    counted = torch.arange(0, count, max(count // steps, 1)).flip(0) + 1
    return (counted.double().clamp(max=count - 1) + 1) / count


def optimal_to_the_first(path: Path, steps: int, latents: int) -> Tensor:
    """Equal steps of the arcus tangens of the clock, the last of which leads to the table's first entry."""
    high, low = (value.atan() for value in clocks(path))
    shares = torch.linspace(0, 1, steps + 1, dtype=torch.float64)
    return at_clocks(path, torch.lerp(high, low, shares).tan())[:-1]


def quantiles(path: Path, steps: int, latents: int) -> Tensor:
    """Whole timesteps at quantiles of a beta distribution, each once: fewer than so many steps where two are one."""
    count = entries(path)
    shares = 1 - torch.arange(steps, dtype=torch.float64) / steps
    counted = (beta_quantiles(shares, 0.6, 0.6) * (count - 1)).round()
    return at_timesteps(path, counted[counted.diff(prepend=counted[:1] + 1) < 0], 0.0)


def tabled(*levels: float) -> Spacing:
    """Listed levels of sigma / alpha, the last of them kept as the last before data."""

    def spaced(path: Path, steps: int, latents: int) -> Tensor:
        return at_clocks(path, log_levels(levels, steps).exp())

    return spaced


@final
@dataclass(frozen=True, slots=True)
class Skipping:
    """One step more, without the last time but one: DPM-Solver-2 takes its middle from there."""

    base: Spacing

    def __call__(self, path: Path, steps: int, latents: int) -> Tensor:
        whole = self.base(path, steps + 1, latents)
        return torch.cat([whole[:-2], whole[-1:]])
