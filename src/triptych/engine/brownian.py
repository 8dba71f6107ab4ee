"""Noise of an SDE: increments of one Brownian motion, which is the same however finely it is looked at.

W is found by halving [low, high] again and again (Levy's construction; arXiv:2001.01328, algorithm 3): given W at both
ends, the middle is their mean plus a normal number of variance (end - start) / 4. Which seed that number is drawn from
depends on the place in the tree alone. Seeds, places and rounding are those of torchsde 0.2's BrownianTree, so that
walks are those of k-diffusion's BrownianTreeNoiseSampler.
"""

from collections.abc import Sequence
from math import sqrt
from typing import Final, final

import numpy
import torch
from torch import Tensor

from triptych.engine.noise import Source

__all__ = ["Brownian"]

DIGITS: Final = 6  # behind the point, to which places are rounded
POOL: Final = 24  # words of entropy that seeds are hashed in


@final
class Brownian:
    """One motion on [low, high]: sigma runs along it as time does."""

    def __init__(self, seed: int, low: float, high: float, shape: Sequence[int], source: Source) -> None:
        """shape: of the noise; source: what draws numbers from the seeds in the tree."""
        self._seed, self._shape, self._source = seed, tuple(shape), source
        self._low, self._high = round(low, DIGITS), round(high, DIGITS)
        self._whole = self._normal(()) * sqrt(high - low)
        self._at: dict[float, Tensor] = {}  # the places that were asked for last

    def __call__(self, start: float, end: float) -> Tensor:
        """(W(start) - W(end)) / sqrt(start - end): standard normal, for low <= end < start <= high."""
        places = (min(max(round(place, DIGITS), self._low), self._high) for place in (start, end))
        known = {place: self._at.get(place) for place in places}
        self._at = {place: self._value(place) if value is None else value for place, value in known.items()}
        before, after = self._at.values()
        return (after - before) / sqrt(start - end)

    def _value(self, place: float) -> Tensor:
        """W at a place, 0 at the low end."""
        start, end, key, depth = self._low, self._high, 0, 0
        value, step = torch.zeros(self._shape), self._whole  # W at the start; its increment to the end
        while place not in (start, end):
            middle = round((start + end) / 2, DIGITS)
            left, right, whole = middle - start, end - middle, end - start
            first = step * (left / whole) + sqrt(left * right / whole) * self._normal((key, depth))
            if place <= middle:
                end, key, step = middle, 2 * key, first
            else:
                start, key, value, step = middle, 2 * key + 1, value + first, step - first
            depth += 1
        return value if place == start else value + step

    def _normal(self, place: tuple[int, ...]) -> Tensor:
        """The numbers of a place in the tree: (which of its level, the level), nothing for the motion as a whole."""
        words = numpy.random.SeedSequence(entropy=self._seed, spawn_key=place, pool_size=POOL).generate_state(1)
        return self._source(int(words[0]))(self._shape)
