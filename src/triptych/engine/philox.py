"""The normal numbers that torch draws on NVIDIA's cards, computed on the CPU: Philox 4x32-10, then Box and Muller.

A block of four words is a function of a counter and a key of the seed's two halves (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", SC 2011). Number n of draw k takes the first two words of the block (k, 0, n, 0):

    sqrt(-2 log u) sin(2 pi v),   u and v the words over 2^32, in the middle of their steps.

Cards compute that in single precision, to within 1e-6 of what is here. It is what they do while each of their threads
makes one number: up to 22,528 of them on a GTX 1660, 43,008 on an RTX 3060, 196,608 on an RTX 4090. Of more than that a
card gives its threads several each, and the rest in another order, which is not emulated.
"""

from collections.abc import Sequence
from math import pi, prod
from typing import Final, final

import numpy
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Philox", "philox"]

Words = NDArray[numpy.uint64]  # of 32 bits each, in 64 so that their products fit

MULTIPLIERS: Final = (0xD2511F53, 0xCD9E8D57)
WEYL: Final = (0x9E3779B9, 0xBB67AE85)  # the golden ratio and sqrt(3) - 1, which the key is bumped by
ROUNDS: Final = 10
HALF: Final = numpy.uint64(32)
LOW: Final = numpy.uint64(0xFFFFFFFF)
STEP: Final = 2.0**-32
TURN: Final = 2 * pi * STEP


def philox(counter: tuple[Words, Words, Words, Words], seed: int) -> tuple[Words, Words, Words, Words]:
    """Blocks of four words for counters of four words, each (n,); seed: 64 bits of it are heeded."""
    c_0, c_1, c_2, c_3 = counter
    for number in range(ROUNDS):
        k_0, k_1 = (numpy.uint64((seed >> 32 * n) + number * WEYL[n] & int(LOW)) for n in range(2))
        first, second = c_0 * numpy.uint64(MULTIPLIERS[0]), c_2 * numpy.uint64(MULTIPLIERS[1])
        c_0, c_2 = (second >> HALF) ^ c_1 ^ k_0, (first >> HALF) ^ c_3 ^ k_1
        c_1, c_3 = second & LOW, first & LOW
    return c_0, c_1, c_2, c_3


@final
class Philox:
    """One generator: every draw is a counter further, whatever its shape."""

    def __init__(self, seed: int) -> None:
        """seed: 64 bits of it are heeded, of a negative one too."""
        self._seed, self._draws = seed & 2**64 - 1, 0

    def __call__(self, shape: Sequence[int]) -> Tensor:
        """The next numbers, float32 of this shape, on the CPU."""
        numbers = numpy.arange(prod(shape), dtype=numpy.uint64)
        nothing = numpy.zeros_like(numbers)
        x, y, _, _ = philox((nothing + numpy.uint64(self._draws), nothing, numbers, nothing), self._seed)
        self._draws += 1
        radius = numpy.sqrt(-2 * numpy.log(x * STEP + STEP / 2))
        normal = radius * numpy.sin(y * TURN + TURN / 2)
        return torch.from_numpy(normal.astype(numpy.float32)).reshape(tuple(shape))
