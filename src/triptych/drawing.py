"""The noise of one walk: which generators it comes from, and what the noise that it starts with is mixed of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp
from typing import Protocol, final

import torch
from torch import Tensor

from triptych.engine.brownian import Brownian
from triptych.engine.counting import HIGHEST
from triptych.engine.frame import Frame
from triptych.engine.noise import SOURCES, Draw, SeededNoise, cpu, slerp
from triptych.engine.path import Path
from triptych.engine.samplers import Noise

__all__ = ["Alone", "Drawn", "Drawing", "Motion", "Together", "along", "begin"]

Motion = Callable[[float, float], Tensor]
"""From one sigma / alpha down to another: (B, C, *S) standard normal numbers, of one motion whatever the steps."""


@final
@dataclass(frozen=True, slots=True)
class Drawing:
    """What a request says of noise.

    seeds: one a sample; source: of SOURCES, the program's own if None; delta: what is added to a seed for all noise
    after the first; variation: a second seed, and how far the first noise is turned to that one's; size: of the latents
    (*S) that the first noise is drawn for, their own if None.
    """

    seeds: Sequence[int]
    source: str | None = None
    delta: int = 0
    variation: tuple[int, float] = (0, 0.0)
    size: tuple[int, ...] | None = None


class Drawn(Protocol):
    """Noise for all samples of a batch."""

    def fresh(self, seed: int, shape: Sequence[int]) -> Tensor:
        """The first noise of another generator, for one sample: float32 of this shape on the CPU."""
        ...

    def start(self, shape: Sequence[int]) -> Tensor:
        """The first noise, (B, *shape) on the CPU in float32."""
        ...

    def draw(self, shape: Sequence[int]) -> Tensor:
        """Noise after the first, (B, *shape) on the CPU in float32."""
        ...

    def motion(self, low: float, high: float, shape: Sequence[int]) -> Motion:
        """The noise of SDE solvers between these bounds of sigma / alpha."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """Noise after the first, like x (B, C, *S)."""
        ...


@final
class Alone:
    """One generator a sample, so that it is in a batch what it is alone."""

    def __init__(self, asked: Drawing, source: str = "cpu") -> None:
        """source: the program's own."""
        self._seeds, self._source = asked.seeds, SOURCES[asked.source or source]
        self._first = self._later = SeededNoise(asked.seeds, self._source)
        if asked.delta:
            self._later = SeededNoise([seed + asked.delta for seed in asked.seeds], self._source)

    def fresh(self, seed: int, shape: Sequence[int]) -> Tensor:
        return self._source(seed)(shape)

    def start(self, shape: Sequence[int]) -> Tensor:
        return self._first.draw(shape)

    def draw(self, shape: Sequence[int]) -> Tensor:
        return self._later.draw(shape)

    def motion(self, low: float, high: float, shape: Sequence[int]) -> Motion:
        motions = [Brownian(seed, low, high, shape, self._source) for seed in self._seeds]
        return lambda start, end: torch.stack([each(start, end) for each in motions])

    def __call__(self, x: Tensor) -> Tensor:
        return self._later(x)


@final
class Together:
    """One generator for the whole batch, as ComfyUI draws it: only the first sample is what its seed makes alone.

    The first noise is always the CPU's. A source is that of all after it, for which there is another generator of the
    same seed, or of the next one on the CPU; if none is asked for they are a GPU's, those of SDE solvers the CPU's.
    """

    def __init__(self, asked: Drawing) -> None:
        self._count, self._seed, self._source = len(asked.seeds), asked.seeds[0] + asked.delta, asked.source
        self._first, later = cpu(asked.seeds[0]), asked.source or "gpu"
        self._later: Draw = SOURCES[later](self._seed + (later == "cpu"))

    def fresh(self, seed: int, shape: Sequence[int]) -> Tensor:
        return cpu(seed)(shape)

    def start(self, shape: Sequence[int]) -> Tensor:
        return self._first((self._count, *shape))

    def draw(self, shape: Sequence[int]) -> Tensor:
        return self._later((self._count, *shape))

    def motion(self, low: float, high: float, shape: Sequence[int]) -> Motion:
        return Brownian(self._seed, low, high, (self._count, *shape), SOURCES[self._source or "cpu"])

    def __call__(self, x: Tensor) -> Tensor:
        return self.draw(x.shape[1:]).to(x.device, x.dtype)


def begin(asked: Drawing, drawn: Drawn, shape: Sequence[int]) -> Tensor:
    """(B, *shape) where the walk starts: the first noise, turned to that of a second seed and laid on its own size.

    As AUTOMATIC1111's web UI does it (modules/rng.py): noise of another size lies in the middle, cut to what fits.
    """
    noise = drawn.start(shape)
    if asked.size in (None, tuple(shape[1:])):
        return _varied(asked, drawn, noise)
    inner = torch.stack([drawn.fresh(seed, (shape[0], *asked.size)) for seed in asked.seeds])
    inner = _varied(asked, drawn, inner)
    here, there = zip(*(_middle(*lengths) for lengths in zip(shape[1:], asked.size, strict=True)), strict=True)
    noise[(..., *here)] = inner[(..., *there)]
    return noise


def _varied(asked: Drawing, drawn: Drawn, noise: Tensor) -> Tensor:
    """Noise (B, C, *S), each sample's turned to the same of another seed."""
    seed, share = asked.variation
    if not share:
        return noise
    other = drawn.fresh(seed, noise.shape[1:])
    return torch.stack([slerp(each, other, share) for each in noise])


def _middle(whole: int, part: int) -> tuple[slice, slice]:
    """Where a part lies on the whole, and what of it does; an odd rest is rounded down as // rounds."""
    edge = (whole - part) // 2
    length = part if edge >= 0 else part + 2 * edge
    return slice(max(edge, 0), max(edge, 0) + length), slice(max(-edge, 0), max(-edge, 0) + length)


def along(drawn: Drawn, path: Path, times: Tensor, shape: Sequence[int]) -> Noise:
    """Noise for a solver that draws once a step down times (steps + 1,), as k-diffusion's SDE solvers do."""
    clocks = Frame(path, ratio=True).clock(times.double()).clamp(max=exp(HIGHEST)).float()
    levels = [level for level in clocks.tolist() if level > 0]
    motion, steps = drawn.motion(levels[-1], levels[0], shape), pairwise(levels)
    return lambda x: motion(*next(steps)).to(x.device, x.dtype)
