"""DPM-Solver++ (arXiv:2211.01095): exponential integrators in lambda = log(alpha / sigma) on x_0.

    x_s = (sigma_s / sigma_t) x_t + alpha_s (1 - exp(-h)) D,   h = lambda_s - lambda_t,

with D = x_0 at first order and an extrapolation of x_0 over former or inner steps at second and third. An infinite h
(from pure noise, or to pure data) leaves D = x_0, which is then exact; former steps of infinite h are forgotten.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Denoiser, Prediction
from triptych.engine.frame import Frame
from triptych.engine.path import Path
from triptych.engine.samplers.onestep import descend, rise
from triptych.engine.samplers.step import Noise, Step, intervals, predict

__all__ = ["Dpmpp2SAncestral", "DpmppMultistep", "dpmpp_2s"]


def advance(path: Path, p: Prediction, t: Tensor, s: Tensor, data: Tensor, eta: float = 0.0) -> Tensor:
    """One step from t to s with D = data; eta > 0 shrinks for the noise that an SDE step adds afterwards."""
    fall = torch.exp(path.half_log_snr(t) - path.half_log_snr(s)) if path.sigma(s) > 0 else path.sigma(s)
    state = path.perturb(p.x_0, p.eps, t)
    return path.sigma(s) / path.sigma(t) * fall**eta * state + path.alpha(s) * (1 - fall ** (1 + eta)) * data


def dpmpp_2s(denoiser: Denoiser, x_t: Tensor, times: Tensor, cond: Conditioning, noise: Noise) -> Iterator[Step]:
    """Single-step, second order (arXiv:2211.01095, algorithm 1): every second time is an inner node.

    One call a step; a last odd step, and one that ends at pure data, is of first order.
    """
    path = denoiser.path
    before: tuple[Tensor, Prediction] | None = None
    for t, s in intervals(times):
        p = predict(denoiser, x_t, t, cond)
        yield Step(float(t), x_t, p)
        if before is None or path.sigma(s) == 0:
            x_t, before = advance(path, p, t, s, p.x_0), (t, p)
            continue
        start, first = before
        r = (path.half_log_snr(t) - path.half_log_snr(start)) / (path.half_log_snr(s) - path.half_log_snr(start))
        data = first.x_0 + (p.x_0 - first.x_0) / (2 * r) if r.isfinite() else p.x_0
        x_t, before = advance(path, first, start, s, data), None
    yield Step(float(s), x_t, p)


@final
@dataclass(frozen=True, slots=True)
class Dpmpp2SAncestral:
    """Second order by an inner node halfway in lambda, then fresh noise: k-diffusion's DPM++ 2S ancestral, whose
    deterministic half is arXiv:2211.01095, algorithm 1 with r = 1/2. Two calls a step."""

    eta: float = 1.0

    def __call__(
        self, denoiser: Denoiser, x_t: Tensor, times: Tensor, cond: Conditioning, noise: Noise
    ) -> Iterator[Step]:
        path, frame = denoiser.path, Frame(denoiser.path)
        for t, s in intervals(times):
            p = predict(denoiser, x_t, t, cond)
            yield Step(float(t), x_t, p)
            down, up = descend(frame, t, s, self.eta)
            data = p.x_0
            middle = path.time((path.half_log_snr(t) + path.half_log_snr(down)) / 2)
            if down > 0 and path.alpha(t) > 0:
                data = predict(denoiser, advance(path, p, t, middle, p.x_0), middle, cond).x_0
            x_t = rise(path, advance(path, p, t, down, data), down, s, up, noise)
        yield Step(float(s), x_t, p)


@final
@dataclass(frozen=True, slots=True)
class DpmppMultistep:
    """Second or third order from former steps, one call a step; eta = 1 solves the SDE instead of the ODE.

    order 2: arXiv:2211.01095, algorithm 2 ("2M"), for eta > 0 its SDE form (section 6, "2M SDE" by the midpoint rule);
    order 3: k-diffusion's "3M SDE", whose last term is half of what the expansion asks for and leaves order 2; here it
    is whole unless `last` is one half. The last step to pure data is of first order.
    """

    order: int = 2
    eta: float = 0.0
    last: float = 1.0  # how much of the last term of order 3 is taken

    def __call__(
        self, denoiser: Denoiser, x_t: Tensor, times: Tensor, cond: Conditioning, noise: Noise
    ) -> Iterator[Step]:
        path = denoiser.path
        former: list[tuple[Tensor, Tensor]] = []  # (h, x_0) of the steps before, the last one first
        for t, s in intervals(times):
            p = predict(denoiser, x_t, t, cond)
            yield Step(float(t), x_t, p)
            h = path.half_log_snr(s) - path.half_log_snr(t)
            x_t = advance(path, p, t, s, self._data(p.x_0, h, former), self.eta)
            if self.eta > 0 and s > 0:
                x_t = x_t + path.sigma(s) * (1 - torch.exp(-2 * self.eta * h)).sqrt() * noise(x_t)
            former = [(h, p.x_0), *former][: self.order - 1] if h.isfinite() else []
        yield Step(float(s), x_t, p)

    def _data(self, x_0: Tensor, h: Tensor, former: list[tuple[Tensor, Tensor]]) -> Tensor:
        """x_0 extrapolated over the step; as it is over an infinite one."""
        if not former or not h.isfinite():
            return x_0
        r, slope = former[0][0] / h, (x_0 - former[0][1]) * (h / former[0][0])
        if self.order == 2:
            return x_0 + slope / 2
        # phi_2 and -2 phi_3 of the exponential integrator, over 1 - exp(-h'), with h' = h (1 + eta)
        step = h * (1 + self.eta)
        whole = -torch.expm1(-step)
        second = (1 - whole / step) / whole
        if len(former) == 1:
            return x_0 + second * slope
        r_2, older = former[1][0] / h, (former[0][1] - former[1][1]) * (h / former[1][0])
        third = self.last * (2 * (1 - whole / step) / step - 1) / whole
        curve = (slope - older) / (r + r_2)
        return x_0 + second * (slope + curve * r) - third * curve
