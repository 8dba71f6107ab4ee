"""Samplers that remember nothing: DDIM and its kin, Heun, DPM2, LCM."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

from torch import Tensor

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Denoiser, Prediction
from triptych.engine.frame import Frame
from triptych.engine.path import Path
from triptych.engine.samplers.step import Noise, Step, intervals, predict

__all__ = ["Ancestral", "Dpm2", "ancestral", "descend", "euler", "heun", "lcm"]


def euler(denoiser: Denoiser, x_t: Tensor, times: Tensor, cond: Conditioning, noise: Noise) -> Iterator[Step]:
    """x_s = alpha_s x_0 + sigma_s eps: Euler's method in the path's frame, which is deterministic DDIM.

    arXiv:2010.02502, equation 12 with sigma = 0; arXiv:2206.00364, algorithm 1 without its correction. Order 1.
    """
    for t, s in intervals(times):
        p = predict(denoiser, x_t, t, cond)
        yield Step(float(t), x_t, p)
        x_t = denoiser.path.perturb(p.x_0, p.eps, s)
    yield Step(float(s), x_t, p)


def ancestral(path: Path, t: Tensor, s: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """(down, up), both (): what of sigma_s is kept as eps and what is drawn anew, down^2 + up^2 = sigma_s^2.

    up = eta sigma_s sqrt(1 - (sigma_s alpha_t / sigma_t alpha_s)^2), the posterior's standard deviation at eta = 1
    (arXiv:2010.02502, equation 16).
    """
    sigma = path.sigma(s)
    ratio = sigma * path.alpha(t) / (path.sigma(t) * path.alpha(s))
    up = eta * sigma * (1 - ratio.square()).clamp(min=0).sqrt()
    return (sigma.square() - up.square()).clamp(min=0).sqrt(), up


@final
@dataclass(frozen=True, slots=True)
class Ancestral:
    """x_s = alpha_s x_0 + down eps + up z: DDIM from eta = 0 (arXiv:2010.02502) to eta = 1, which is both the ancestral
    sampler of DDPM (arXiv:2006.11239, equation 7, with the smaller variance) and k-diffusion's Euler ancestral."""

    eta: float = 1.0

    def __call__(
        self, denoiser: Denoiser, x_t: Tensor, times: Tensor, cond: Conditioning, noise: Noise
    ) -> Iterator[Step]:
        for t, s in intervals(times):
            p = predict(denoiser, x_t, t, cond)
            yield Step(float(t), x_t, p)
            down, up = ancestral(denoiser.path, t, s, self.eta)
            x_t = denoiser.path.alpha(s) * p.x_0 + down * p.eps
            if up > 0:
                x_t = x_t + up * noise(x_t)
        yield Step(float(s), x_t, p)


def heun(denoiser: Denoiser, x_t: Tensor, times: Tensor, cond: Conditioning, noise: Noise) -> Iterator[Step]:
    """Euler, then the mean of the slopes at both ends (arXiv:2206.00364, algorithm 1). Order 2, two calls a step.

    Euler alone where s = 0 or the frame has no finite slope (alpha_t = 0).
    """
    frame = Frame(denoiser.path)
    for t, s in intervals(times):
        p = predict(denoiser, x_t, t, cond)
        yield Step(float(t), x_t, p)
        x_t = denoiser.path.perturb(p.x_0, p.eps, s)
        if s > 0 and frame.clock(t).isfinite():
            q = predict(denoiser, x_t, s, cond)
            x_t = _move(frame, p, t, s, (frame.slope(p) + frame.slope(q)) / 2)
    yield Step(float(s), x_t, p)


@final
@dataclass(frozen=True, slots=True)
class Dpm2:
    """The slope at the middle of the step, between noise levels in the mean of their logarithms: DPM-Solver-2
    (arXiv:2206.00927, algorithm 1) as k-diffusion has it. eta = 1: its ancestral form. Order 2, two calls a step."""

    eta: float = 0.0

    def __call__(
        self, denoiser: Denoiser, x_t: Tensor, times: Tensor, cond: Conditioning, noise: Noise
    ) -> Iterator[Step]:
        frame = Frame(denoiser.path)
        for t, s in intervals(times):
            p = predict(denoiser, x_t, t, cond)
            yield Step(float(t), x_t, p)
            down, up = descend(frame, t, s, self.eta)
            x_t = denoiser.path.perturb(p.x_0, p.eps, down)
            if down > 0 and frame.clock(t).isfinite():
                middle = frame.time((frame.clock(t) * frame.clock(down)).sqrt())
                q = predict(denoiser, denoiser.path.perturb(p.x_0, p.eps, middle), middle, cond)
                x_t = _move(frame, p, t, down, frame.slope(q))
            x_t = rise(denoiser.path, x_t, down, s, up, noise)
        yield Step(float(s), x_t, p)


def descend(frame: Frame, t: Tensor, s: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """(the time below s to walk to, the noise to add there so that s is reached), both ().

    At the time `down` the ratio sigma / alpha is what `ancestral` keeps of it.
    """
    kept, up = ancestral(frame.path, t, s, eta)
    return (s if up == 0 else frame.path.time((frame.path.alpha(s) / kept).log())), up


def rise(path: Path, x: Tensor, down: Tensor, s: Tensor, up: Tensor, noise: Noise) -> Tensor:
    """From the time `down` back up to s with fresh noise."""
    return x if up == 0 else x * (path.alpha(s) / path.alpha(down)) + up * noise(x)


def lcm(denoiser: Denoiser, x_t: Tensor, times: Tensor, cond: Conditioning, noise: Noise) -> Iterator[Step]:
    """x_s = alpha_s x_0 + sigma_s z: jump to the data, add fresh noise (arXiv:2303.01469, algorithm 1; 2310.04378)."""
    for t, s in intervals(times):
        p = predict(denoiser, x_t, t, cond)
        yield Step(float(t), x_t, p)
        x_t = denoiser.path.perturb(p.x_0, noise(x_t), s) if s > 0 else denoiser.path.alpha(s) * p.x_0
    yield Step(float(s), x_t, p)


def _move(frame: Frame, p: Prediction, t: Tensor, s: Tensor, slope: Tensor) -> Tensor:
    return frame.gauge(s) * (frame.place(p, t) + (frame.clock(s) - frame.clock(t)) * slope)
