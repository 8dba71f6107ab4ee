"""Step caching: the deep part of a network is computed at every n-th step of a walk, and guessed between.

From one step to the next what lies deep in a U-Net changes little (arXiv:2312.00858, section 3.2) and almost evenly, so
that between full steps it goes on along the line through the last two of them, by the number of the step
(arXiv:2503.06923, the expansion of order 1). What is near the input and the output is computed at every step.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from typing import final

import torch
from torch import Tensor

from triptych.engine.conditioning import Conditioning

__all__ = ["Around", "Fast", "Inner", "computed", "whole"]

Inner = Callable[[Callable[[], Tensor]], Tensor]
"""What the deep part of a network says, (B, C, *S), from the function that computes it, which need not be called."""

Around = Callable[[Inner, Tensor, Tensor, Conditioning], Tensor]
"""(inner, x, timestep, cond) -> what a network says, its deep part going through `inner`."""

MOST = 4  # conditionings at once: one by one, no guidance has more than three


def computed(deep: Callable[[], Tensor]) -> Tensor:
    """The deep part as it is."""
    return deep()


def whole(network: Callable[[Tensor, Tensor, Conditioning], Tensor]) -> Around:
    """A network all of which is deep."""

    def around(inner: Inner, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        return inner(lambda: network(x, timestep, cond))

    return around


@final
class Fast:
    """A network whose deep part is computed at steps 0, n, 2n, ..., and at the step after its first; n = 1: at all.

    It remembers, by conditioning: build one a generation. A step is a change of the timestep, so that methods which
    call twice a step are served; one that is told something new begins anew, and so does one whose time goes up.
    """

    def __init__(self, around: Around, every: int) -> None:
        self._around, self._every = around, every
        self._courses: dict[Conditioning, _Course] = {}

    def __call__(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        """As the network itself: x (B, C, *S), timestep (B,), falling from call to call."""
        course = self._courses.pop(cond, None)
        if course is None or bool((timestep > course.timestep).any()):
            course = _Course(timestep)
        self._courses = {cond: course, **dict(islice(self._courses.items(), MOST - 1))}
        course.advance(timestep, self._every)
        return self._around(course, x, timestep, cond)


@final
@dataclass(slots=True)
class _Course:
    """How the deep part runs under one conditioning."""

    timestep: Tensor
    step: int = 0
    full: bool = True
    known: list[tuple[int, Tensor]] = field(default_factory=list)  # (step, deep part), the latest first, two at most

    def advance(self, timestep: Tensor, every: int) -> None:
        """Comes to a timestep; calls at the same one belong to one step."""
        if not torch.equal(timestep, self.timestep):
            self.timestep, self.step = timestep, self.step + 1
            self.full = self.step % every == 0 or len(self.known) < 2

    def __call__(self, deep: Callable[[], Tensor]) -> Tensor:
        """The deep part at this step."""
        if self.full:
            before = [one for one in self.known if one[0] != self.step]
            self.known = [(self.step, deep()), *before][:2]
            return self.known[0][1]
        (last, new), (first, old) = self.known
        return torch.lerp(old, new, (self.step - first) / (last - first))
