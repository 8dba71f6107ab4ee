"""UniPC (arXiv:2302.04867): a predictor of DPM-Solver++'s kind, corrected once the next x_0 is known, at no extra call.

x_s = (sigma_s / sigma_t) x_t - alpha_s (B_1 x_0 + B sum_i w_i (x_0^(i) - x_0) / r_i),   B_1 = B = exp(-h) - 1 (bh2)
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Denoiser, Prediction
from triptych.engine.path import Path
from triptych.engine.samplers.step import Noise, Step, intervals, predict

__all__ = ["UniPC"]


@final
@dataclass(frozen=True, slots=True)
class Node:
    """A step that has been: its time, lambda and x_0."""

    t: Tensor
    half_log_snr: Tensor
    p: Prediction


@final
@dataclass(frozen=True, slots=True)
class UniPC:
    """order: of the predictor, 1 to 3; the corrector, and so the whole walk, has one more. One call a step.

    A walk to pure data ends with predictors of falling order.
    """

    order: int = 2

    def __call__(
        self, denoiser: Denoiser, x_t: Tensor, times: Tensor, cond: Conditioning, noise: Noise
    ) -> Iterator[Step]:
        path, steps = denoiser.path, len(times) - 1
        to_data = bool(path.sigma(times[-1]) == 0)
        former: list[Node] = []  # the latest first; its state is `state`
        state, order = x_t, 1
        for number, (t, s) in enumerate(intervals(times)):
            p = predict(denoiser, x_t, t, cond)
            # Guidance may take the halves from different calls; the state is then what they say it is.
            apart = path.perturb(p.x_0, p.eps, t) - x_t
            if former:
                x_t = self._step(path, state, former[:order], t, p.x_0)
            yield Step(float(t), x_t, p)
            former = [Node(t, path.half_log_snr(t), p), *former][: self.order]
            usable = 1 + sum(bool(node.half_log_snr.isfinite()) for node in former[1:])
            order = min(self.order, usable, steps - number if to_data else usable)
            state = x_t + apart
            x_t = self._step(path, state, former[:order], s, None)
        yield Step(float(s), x_t, p)

    def _step(self, path: Path, state: Tensor, former: list[Node], s: Tensor, known: Tensor | None) -> Tensor:
        """From the latest node to s; known: x_0 found at s, which turns prediction into correction."""
        latest = former[0]
        x_0, h = latest.p.x_0, path.half_log_snr(s) - latest.half_log_snr
        b = torch.expm1(-h)
        moved = path.sigma(s) / path.sigma(latest.t) * state - path.alpha(s) * b * x_0
        ratios = [(node.half_log_snr - latest.half_log_snr) / h for node in former[1:]]
        slopes = [(node.p.x_0 - x_0) / r for node, r in zip(former[1:], ratios, strict=True)]
        if known is not None:
            ratios, slopes = [*ratios, torch.ones_like(h)], [*slopes, known - x_0]
        if not slopes:
            return moved
        weights = _weights(ratios, h)
        return moved - path.alpha(s) * b * sum((w * d for w, d in zip(weights, slopes, strict=True)), start=0 * x_0)


def _weights(ratios: list[Tensor], h: Tensor) -> list[Tensor]:
    """The w_i that make the step exact for polynomials: sum w_i r_i^(k-1) = k! phi_(k+1)(-h) / B (equation 9).

    A single node takes 1/2, the limit, as the authors' code does.
    """
    if len(ratios) == 1:
        return [torch.full_like(h, 0.5)]
    b, phi, right = torch.expm1(-h), torch.expm1(-h) / -h - 1, []
    for k in range(1, len(ratios) + 1):
        right.append(phi * math.factorial(k) / b)
        phi = phi / -h - 1 / math.factorial(k + 1)
    powers = torch.stack([torch.stack(ratios) ** k for k in range(len(ratios))])
    return list(torch.linalg.solve(powers, torch.stack(right)))
