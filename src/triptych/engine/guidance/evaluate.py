"""Several conditionings at one x_t and t: in one doubled batch or one call after the other, with the same numbers."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import final

import torch
from torch import Tensor

from triptych.engine.conditioning import Conditioning, concatenate
from triptych.engine.denoiser import Denoiser, Prediction

__all__ = ["Evaluate", "Together", "one_by_one", "rows", "tensors"]

Evaluate = Callable[[Denoiser, Tensor, Tensor, Sequence[Conditioning]], Sequence[Prediction]]
"""(denoiser, x_t, t, conditionings) -> one prediction a conditioning, all at the same x_t and t."""


def one_by_one(denoiser: Denoiser, x_t: Tensor, t: Tensor, conds: Sequence[Conditioning]) -> tuple[Prediction, ...]:
    """One call a conditioning: half the memory of `Together`, and conditionings of any shape."""
    return tuple(denoiser(x_t, t, cond) for cond in conds)


@final
class Together:
    """All conditionings in one call, stacked along the batch; one by one where their routes or shapes differ.

    It keeps the last stack, so that a network which caches what it computes from a `Conditioning` meets the same one
    at every step.
    """

    def __init__(self) -> None:
        self._conds: tuple[Conditioning, ...] = ()
        self._stacked: Conditioning | None = None

    def __call__(
        self, denoiser: Denoiser, x_t: Tensor, t: Tensor, conds: Sequence[Conditioning]
    ) -> tuple[Prediction, ...]:
        conds = [cond.at(t) for cond in conds]
        if len(conds) != len(self._conds) or any(a is not b for a, b in zip(conds, self._conds, strict=True)):
            now = [replace(cond, later=()) if cond.later else cond for cond in conds]  # what comes later is not now
            self._conds, self._stacked = tuple(conds), _stack(now)
        if self._stacked is None:
            return one_by_one(denoiser, x_t, t, conds)
        times = torch.cat([t] * len(conds)) if t.ndim and t.shape[0] == x_t.shape[0] else t
        both = denoiser(torch.cat([x_t] * len(conds)), times, self._stacked)
        halves = zip(both.x_0.chunk(len(conds)), both.eps.chunk(len(conds)), strict=True)
        return tuple(Prediction(x_0, eps) for x_0, eps in halves)


def _stack(conds: Sequence[Conditioning]) -> Conditioning | None:
    stacked: Conditioning | None = conds[0]
    for cond in conds[1:]:
        stacked = None if stacked is None else concatenate(stacked, cond)
    return stacked


def rows(cond: Conditioning, index: Tensor) -> Conditioning:
    """The samples of a conditioning at these positions of its batch, index (B',): to repeat, to pick, to mix."""

    def pick(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[index.to(tensor.device)]

    references = tuple(tensor[index.to(tensor.device)] for tensor in cond.references)
    scalars = {name: tensor[index.to(tensor.device)] for name, tensor in cond.scalars.items()}
    later = tuple((time, rows(instead, index)) for time, instead in cond.later)
    routes = pick(cond.tokens), pick(cond.mask), pick(cond.vector), pick(cond.concat)
    return Conditioning(*routes, references, scalars, later)


def tensors(cond: Conditioning) -> list[Tensor]:
    """All that a conditioning holds; empty where the network is told nothing."""
    routes = (cond.tokens, cond.mask, cond.vector, cond.concat, *cond.references, *cond.scalars.values())
    return [tensor for tensor in routes if tensor is not None]
