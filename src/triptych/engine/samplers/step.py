"""What a sampler is: a generator that walks x_t along decreasing times."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol, final

from torch import Tensor

from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Denoiser, Prediction, broadcast

__all__ = ["Noise", "Sampler", "Step", "intervals", "predict"]

Noise = Callable[[Tensor], Tensor]
"""Like torch.randn_like, from the generators of the samples."""


@final
@dataclass(frozen=True, slots=True)
class Step:
    """The state x_t (B, C, *S) at time t and its split; the last step of a walk holds the result and the last split."""

    t: float
    x_t: Tensor
    prediction: Prediction


class Sampler(Protocol):
    """times: (steps + 1,) decreasing, float64; yields one step an interval and one for the result."""

    def __call__(
        self, denoiser: Denoiser, x_t: Tensor, times: Tensor, cond: Conditioning, noise: Noise
    ) -> Iterator[Step]: ...


def predict(denoiser: Denoiser, x_t: Tensor, t: Tensor, cond: Conditioning) -> Prediction:
    """The denoiser at one time, () float64, for the whole batch."""
    return denoiser(x_t, broadcast(t.to(x_t.device, x_t.dtype), x_t), cond)


def intervals(times: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """(t, s) of each step, each ()."""
    return pairwise(times.double())
