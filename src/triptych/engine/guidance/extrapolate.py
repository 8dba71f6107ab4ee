"""Guidance away from a worse prediction: the empty or negative prompt's, or a worse network's.

All but one move both halves of x_t along the same line, so that x_t = alpha x_0 + sigma eps still holds;
`ClassifierFreePlusPlus` takes its halves from different calls on purpose. A scale of 1 means none, and then the worse
prediction is not computed; for `ClassifierFreePlusPlus` the scale is the paper's lambda, and 0 means none.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, final

import torch
from torch import Tensor

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Denoiser, Prediction, data_target, solve
from triptych.engine.guidance.evaluate import Evaluate, Together
from triptych.engine.path import Path

__all__ = [
    "GUIDANCES",
    "Autoguidance",
    "ClassifierFree",
    "ClassifierFreePlusPlus",
    "Guided",
    "NamedGuidance",
    "PerpendicularNegative",
    "Projected",
    "unguided",
]


class Guided(Denoiser, Protocol):
    """A denoiser that also tells what it would have said unguided, at no further call of the network."""

    def with_plain(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> tuple[Prediction, Prediction]:
        """(guided, unguided) at the same x_t, t and conditioning."""
        ...


def unguided(denoiser: Denoiser, scale: float, uncond: Conditioning) -> Denoiser:
    """The guide of distilled models, which learnt guidance: the denoiser itself (arXiv:2210.03142)."""
    return denoiser


@final
@dataclass(frozen=True, slots=True)
class ClassifierFree:
    """D = D(uncond) + scale (D(cond) - D(uncond)): arXiv:2207.12598, equation 6 with w = scale - 1.

    uncond: what to move away from, the empty or the negative prompt.
    """

    denoiser: Denoiser
    scale: float
    uncond: Conditioning
    evaluate: Evaluate = field(default_factory=Together)

    @property
    def path(self) -> Path:
        return self.denoiser.path

    def with_plain(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> tuple[Prediction, Prediction]:
        if self.scale == 1:
            plain = self.denoiser(x_t, t, cond)
            return plain, plain
        plain, uncond = self.evaluate(self.denoiser, x_t, t, (cond, self.uncond))
        return uncond.lerp(plain, self.scale), plain

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        return self.with_plain(x_t, t, cond)[0]


@final
@dataclass(frozen=True, slots=True)
class ClassifierFreePlusPlus:
    """x_0 = x_0(uncond) + scale (x_0(cond) - x_0(uncond)), eps = eps(uncond): arXiv:2406.08070, algorithm 2.

    scale: the paper's lambda in [0, 1], where 0 is the unconditional model and 1 puts all of the prompt into x_0. Its
    authors hold lambda up to 1 for about as strong as scales of `ClassifierFree` up to 12.5.
    """

    denoiser: Denoiser
    scale: float
    uncond: Conditioning
    evaluate: Evaluate = field(default_factory=Together)

    @property
    def path(self) -> Path:
        return self.denoiser.path

    def with_plain(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> tuple[Prediction, Prediction]:
        plain, uncond = self.evaluate(self.denoiser, x_t, t, (cond, self.uncond))
        return Prediction(uncond.lerp(plain, self.scale).x_0, uncond.eps), plain

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        return self.with_plain(x_t, t, cond)[0]


@final
@dataclass(frozen=True, slots=True)
class Autoguidance:
    """D = D_worse + scale (D - D_worse), both with the same conditioning: arXiv:2406.02507, equation 3.

    worse: a smaller or less trained denoiser of the same data, on the same path.
    """

    denoiser: Denoiser
    worse: Denoiser
    scale: float

    @property
    def path(self) -> Path:
        return self.denoiser.path

    def with_plain(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> tuple[Prediction, Prediction]:
        plain = self.denoiser(x_t, t, cond)
        if self.scale == 1:
            return plain, plain
        return self.worse(x_t, t, cond).lerp(plain, self.scale), plain

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        return self.with_plain(x_t, t, cond)[0]


@final
class Projected:
    """APG: classifier-free guidance without what oversaturates, arXiv:2410.02416, algorithm 1, on x_0.

        delta = x_0(cond) - x_0(uncond) + momentum x last delta,  shortened to norm `threshold`,
        split into the part parallel to x_0(cond), weighted by eta, and the part orthogonal to it;
        x_0 = x_0(cond) + (scale - 1) (orthogonal + eta parallel).

    It remembers the last delta: build one a generation, and never share it. threshold: 0 means none; it bounds the
    norm over a whole sample, so it grows with the square root of the latents' number (the paper: 15 for 4 x 128 x 128).
    """

    def __init__(
        self,
        denoiser: Denoiser,
        scale: float,
        uncond: Conditioning,
        *,
        eta: float = 0.0,
        momentum: float = -0.5,
        threshold: float = 15.0,
        evaluate: Evaluate | None = None,
    ) -> None:
        self.denoiser, self.scale, self.uncond = denoiser, scale, uncond
        self.eta, self.momentum, self.threshold = eta, momentum, threshold
        self.evaluate = evaluate or Together()
        self._delta: Tensor | None = None

    @property
    def path(self) -> Path:
        return self.denoiser.path

    def with_plain(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> tuple[Prediction, Prediction]:
        if self.scale == 1:
            plain = self.denoiser(x_t, t, cond)
            return plain, plain
        plain, uncond = self.evaluate(self.denoiser, x_t, t, (cond, self.uncond))
        delta = plain.x_0 - uncond.x_0
        if self._delta is not None:
            delta = delta + self.momentum * self._delta
        self._delta = delta
        if self.threshold > 0:
            delta = delta * (self.threshold / _norm(delta)).clamp(max=1)
        parallel = _along(delta, plain.x_0) * plain.x_0
        x_0 = plain.x_0 + (self.scale - 1) * (delta - parallel + self.eta * parallel)
        return solve(self.path, data_target, x_t, t, x_0), plain

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        return self.with_plain(x_t, t, cond)[0]


@final
@dataclass(frozen=True, slots=True)
class PerpendicularNegative:
    """Perp-Neg: the negative prompt takes away only what the prompt does not say, arXiv:2304.04968, section 4.

        main = D(cond) - D(empty),  away = D(negative) - D(empty),  away minus its projection on main = across,
        D = D(empty) + scale (main - weight across).

    empty: the conditioning of the empty prompt.
    """

    denoiser: Denoiser
    scale: float
    negative: Conditioning
    empty: Conditioning
    weight: float = 1.0
    evaluate: Evaluate = field(default_factory=Together)

    @property
    def path(self) -> Path:
        return self.denoiser.path

    def with_plain(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> tuple[Prediction, Prediction]:
        if self.scale == 1:
            plain = self.denoiser(x_t, t, cond)
            return plain, plain
        plain, negative, empty = self.evaluate(self.denoiser, x_t, t, (cond, self.negative, self.empty))
        share = _along(negative.x_0 - empty.x_0, plain.x_0 - empty.x_0)  # the same share for both halves: a sum of
        x_0 = self._move(plain.x_0, negative.x_0, empty.x_0, share)  # predictions whose weights add up to one
        return Prediction(x_0, self._move(plain.eps, negative.eps, empty.eps, share)), plain

    def _move(self, plain: Tensor, negative: Tensor, empty: Tensor, share: Tensor) -> Tensor:
        main = plain - empty
        across = negative - empty - share * main
        return empty + self.scale * (main - self.weight * across)

    def __call__(self, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
        return self.with_plain(x_t, t, cond)[0]


@final
@dataclass(frozen=True, slots=True)
class NamedGuidance:
    """A guidance under the name that a request gives it, on the common scale: build(denoiser, scale, uncond, **knobs).

    knobs: the arguments that a request may set; empty: it is also given the empty prompt's conditioning by that name.
    """

    build: Callable[..., Guided]
    knobs: tuple[str, ...] = ()
    empty: bool = False
    rescalable: bool = True


def _plus_plus(denoiser: Denoiser, scale: float, uncond: Conditioning) -> ClassifierFreePlusPlus:
    return ClassifierFreePlusPlus(denoiser, scale / 12.5, uncond)  # where the paper's two scales end


GUIDANCES: dict[str, NamedGuidance] = {
    "cfg": NamedGuidance(ClassifierFree),
    "cfg++": NamedGuidance(_plus_plus, rescalable=False),  # rescaling would tie its two halves together again
    "apg": NamedGuidance(Projected, ("eta", "momentum", "threshold")),
    "perp-neg": NamedGuidance(PerpendicularNegative, ("weight",), empty=True),
}


def _norm(x: Tensor) -> Tensor:
    """(B, 1, ..., 1): the Euclidean norm of each sample."""
    return x.square().sum(tuple(range(1, x.ndim)), keepdim=True).sqrt()


def _along(x: Tensor, direction: Tensor) -> Tensor:
    """(B, 1, ..., 1): how many times the direction is contained in each sample of x; 0 where it is zero."""
    axes = tuple(range(1, x.ndim))
    length = direction.square().sum(axes, keepdim=True)
    share = (x * direction).sum(axes, keepdim=True) / length
    return torch.where(length > 0, share, 0.0)
