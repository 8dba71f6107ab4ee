"""The frame in which a path is a straight line: x_t / gauge(t) is linear in clock(t) while x_0 and eps stay put.

On the straight path that is x_t against t, the frame of flow matching. On every other path it is x_t / alpha against
sigma / alpha, the frame of arXiv:2206.00364 and of the samplers that follow it. Euler's method is the same in both.
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from triptych.engine.denoiser import Prediction
from triptych.engine.path import Path, Straight

__all__ = ["Frame", "ratio_frame"]


@final
@dataclass(frozen=True, slots=True)
class Frame:
    """Gauge, clock and slope of one path."""

    path: Path
    ratio: bool = False  # whether the clock is sigma / alpha on the straight path too

    @property
    def straight(self) -> bool:
        """Whether the path itself is the line."""
        return isinstance(self.path, Straight) and not self.ratio

    def gauge(self, t: Tensor) -> Tensor:
        """What x_t is divided by."""
        return torch.ones_like(t) if self.straight else self.path.alpha(t)

    def clock(self, t: Tensor) -> Tensor:
        """t, or sigma / alpha; infinite where alpha = 0."""
        return t if self.straight else self.path.sigma(t) / self.path.alpha(t)

    def time(self, clock: Tensor) -> Tensor:
        """The t at which the clock shows this: the inverse of `clock`."""
        return clock if self.straight else self.path.time(-clock.log())

    def slope(self, prediction: Prediction) -> Tensor:
        """d (x_t / gauge) / d clock: eps - x_0, or eps."""
        return prediction.eps - prediction.x_0 if self.straight else prediction.eps

    def place(self, prediction: Prediction, t: Tensor) -> Tensor:
        """x_t / gauge from both halves. Under guidance whose halves come from different calls it is not x_t / gauge."""
        return self.path.perturb(prediction.x_0, prediction.eps, t) / self.gauge(t)


def ratio_frame(path: Path) -> Frame:
    """x_t / alpha against sigma / alpha whatever the path: for methods in log-SNR."""
    return Frame(path, ratio=True)
