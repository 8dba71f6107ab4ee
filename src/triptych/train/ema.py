"""The moving average of what is trained: what is shown, exported and used (arXiv:2006.11239, section 4).

    average <- decay(step) average + (1 - decay(step)) now

A decay is a function of the step number, from 0: `Warmed` for the exponential average, `Power` for one whose width is
a share of the run so far.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor, nn

__all__ = ["Average", "Decay", "Power", "Warmed"]

Decay = Callable[[int], float]


@final
@dataclass(frozen=True, slots=True)
class Warmed:
    """A constant decay, smaller at the start: min(decay, (1 + step) / (10 + step))."""

    decay: float

    def __call__(self, step: int) -> float:
        return min(self.decay, (1 + step) / (10 + step))


@final
@dataclass(frozen=True)
class Power:
    """Weights that grow as a power of time: decay = (1 - 1 / (step + 1))^(gamma + 1), arXiv:2312.02696, equation 2.

    width: the standard deviation of those weights over the length of the run so far, in (0, 0.28): 0.05 to 0.1 there.
    """

    width: float

    @cached_property
    def gamma(self) -> float:
        """The positive root of width^2 = (gamma + 1) / ((gamma + 2)^2 (gamma + 3)): arXiv:2312.02696, equation 3."""
        inverse = self.width**-2
        low, high = -0.999, inverse
        while high - low > 1e-9 * high:  # the right side falls in gamma where gamma > 0
            gamma = 0.5 * (low + high)
            low, high = (low, gamma) if (gamma + 2) ** 2 * (gamma + 3) > inverse * (gamma + 1) else (gamma, high)
        return low

    def __call__(self, step: int) -> float:
        return float((1 - 1 / (step + 1)) ** (self.gamma + 1))


@final
class Average:
    """The average of every trained parameter, in the parameter's dtype and on its device."""

    def __init__(self, modules: nn.Module, decay: float | Decay) -> None:
        """decay: a number for `Warmed` of it."""
        self.decay: Decay = decay if callable(decay) else Warmed(decay)
        self._values = {name: value.detach().clone() for name, value in _trained(modules)}

    @torch.no_grad()
    def update(self, modules: nn.Module, step: int) -> None:
        """Moves the average after step number `step` (from 0)."""
        weight = 1 - self.decay(step)
        pairs = [(self._values[name], value.detach()) for name, value in _trained(modules)]
        torch._foreach_lerp_([average for average, _ in pairs], [value for _, value in pairs], weight)

    @contextmanager
    def swapped(self, modules: nn.Module) -> Iterator[None]:
        """Inside: the modules hold the average; after: what they held before."""
        held = {name: value.detach().clone() for name, value in _trained(modules)}
        self.copy_to(modules)
        try:
            yield
        finally:
            _copy(held, modules)

    def copy_to(self, modules: nn.Module) -> None:
        """Puts the average into the modules for good."""
        _copy(self._values, modules)

    def state_dict(self) -> dict[str, Tensor]:
        """The average by parameter name."""
        return dict(self._values)

    def load_state_dict(self, values: Mapping[str, Tensor]) -> None:
        """Takes the average from a checkpoint; the names must be those of the modules."""
        if values.keys() != self._values.keys():
            raise ValueError(f"the checkpoint averages other parameters: {values.keys() ^ self._values.keys()}")
        self._values = {name: values[name].to(own.device) for name, own in self._values.items()}


def _trained(modules: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    return ((name, parameter) for name, parameter in modules.named_parameters() if parameter.requires_grad)


@torch.no_grad()
def _copy(values: Mapping[str, Tensor], modules: nn.Module) -> None:
    for name, parameter in _trained(modules):
        parameter.copy_(values[name])
