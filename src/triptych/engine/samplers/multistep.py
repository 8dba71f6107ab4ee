"""Adams-Bashforth methods in a frame of the path: the slope is extrapolated over former steps, integrated exactly."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import final

import numpy.polynomial
import torch
from torch import Tensor

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Denoiser, Prediction
from triptych.engine.frame import Frame
from triptych.engine.path import Path
from triptych.engine.samplers.step import Noise, Step, intervals, predict

__all__ = ["AdamsBashforth", "deis_weights", "ipndm_weights", "lms_weights", "pndm"]

Weights = Callable[[Sequence[Tensor], Tensor], list[Tensor]]
"""(clocks of this and former steps, the latest first, clock of the next) -> what each slope is multiplied by."""

NODES, MASSES = (torch.from_numpy(part) for part in numpy.polynomial.legendre.leggauss(24))
UNIFORM = ((1.0,), (3 / 2, -1 / 2), (23 / 12, -16 / 12, 5 / 12), (55 / 24, -59 / 24, 37 / 24, -9 / 24))


def lms_weights(clocks: Sequence[Tensor], end: Tensor) -> list[Tensor]:
    """Polynomials in the clock, on whatever spacing: k-diffusion's linear multistep method."""
    return _integrate(clocks, end, torch.as_tensor)


def deis_weights(clocks: Sequence[Tensor], end: Tensor) -> list[Tensor]:
    """Polynomials in the logarithm of the clock (arXiv:2204.13902, section 3.2, log rho); order 1 to data."""
    return [end - clocks[0]] if end <= 0 else _integrate(clocks, end, torch.log)


def ipndm_weights(clocks: Sequence[Tensor], end: Tensor) -> list[Tensor]:
    """The weights of equal steps whatever the spacing: improved PNDM (arXiv:2202.09778; 2204.13902, appendix B)."""
    return [(end - clocks[0]) * weight for weight in UNIFORM[len(clocks) - 1]]


def _integrate(clocks: Sequence[Tensor], end: Tensor, scale: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """Integrals of the Lagrange polynomials in scale(clock) from the latest clock to the end, by Gauss' rule."""
    # The rule runs in the polynomials' own variable, in which the integrand is smooth.
    start, stop = scale(clocks[0]), scale(end)
    nodes = start + (stop - start) * (NODES + 1) / 2
    jacobian = torch.exp(nodes) if scale is torch.log else torch.ones_like(nodes)
    masses = MASSES * jacobian * (stop - start) / 2
    weights = []
    for i, own in enumerate(clocks):
        value = torch.ones_like(nodes)
        for j, other in enumerate(clocks):
            if i != j:
                value = value * (nodes - scale(other)) / (scale(own) - scale(other))
        weights.append((masses * value).sum())
    return weights


@final
@dataclass(frozen=True, slots=True)
class AdamsBashforth:
    """x_s / gauge_s = x_t / gauge_t + sum of weights times slopes; fewer slopes at the start, so order 2 overall."""

    weights: Weights
    order: int
    frame: Callable[[Path], Frame] = Frame

    def __call__(
        self, denoiser: Denoiser, x_t: Tensor, times: Tensor, cond: Conditioning, noise: Noise
    ) -> Iterator[Step]:
        frame = self.frame(denoiser.path)
        former: list[tuple[Tensor, Prediction]] = []  # (clock, split) of this and the steps before, the latest first
        for t, s in intervals(times):
            p = predict(denoiser, x_t, t, cond)
            yield Step(float(t), x_t, p)
            if not frame.clock(t).isfinite():
                x_t = denoiser.path.perturb(p.x_0, p.eps, s)
                continue
            former = [(frame.clock(t), p), *former][: self.order]
            weights = self.weights([clock for clock, _ in former], frame.clock(s))
            slopes = [frame.slope(each) for _, each in former]
            moved = sum((w * slope for w, slope in zip(weights, slopes, strict=False)), start=frame.place(p, t))
            x_t = frame.gauge(s) * moved
        yield Step(float(s), x_t, p)


def pndm(denoiser: Denoiser, x_t: Tensor, times: Tensor, cond: Conditioning, noise: Noise) -> Iterator[Step]:
    """Improved PNDM but for its first step, of both ends' mean slope: PLMS (arXiv:2202.09778, equations 12 and 13).

    Where others follow that step costs a second call, since nothing is known before it; all others cost one.
    """
    frame = Frame(denoiser.path)
    former: list[Prediction] = []  # of this and the steps before, the latest first
    for t, s in intervals(times):
        p = predict(denoiser, x_t, t, cond)
        yield Step(float(t), x_t, p)
        if not frame.clock(t).isfinite():
            x_t = denoiser.path.perturb(p.x_0, p.eps, s)
            continue
        former = [p, *former][: len(UNIFORM)]
        slopes, weights = [frame.slope(each) for each in former], UNIFORM[len(former) - 1]
        if len(former) == 1 and s > times[-1]:
            ahead = predict(denoiser, denoiser.path.perturb(p.x_0, p.eps, s), s, cond)
            slopes, weights = [*slopes, frame.slope(ahead)], (1 / 2, 1 / 2)
        slope = sum((w * each for w, each in zip(weights, slopes, strict=True)), start=torch.zeros_like(x_t))
        x_t = frame.gauge(s) * (frame.place(p, t) + (frame.clock(s) - frame.clock(t)) * slope)
    yield Step(float(s), x_t, p)
