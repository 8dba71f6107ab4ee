"""Who is in memory when: components of a model come when they are used, and where not all fit, others make room.

They have their moments one after the other: towers are told the prompt, the network walks, the codec decodes. Each
says how much memory its work takes beside its weights; what was used longest ago leaves first. What does not fit even
alone comes block by block, if it has blocks.
"""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, final

import torch
from torch import Tensor

from triptych.engine.codec import Codec
from triptych.engine.conditioning import Conditioning
from triptych.engine.denoiser import Network
from triptych.weights.loading import Component
from triptych.weights.plan import Moment, Part, Plan, planned, turned

__all__ = ["Posterior", "Rooms", "StagedCodec", "StagedNetwork"]


@final
class Rooms:
    """The components of one model, on one device. budget: bytes that their weights and their work may take there."""

    def __init__(self) -> None:
        self._components: dict[str, Component[Any]] = {}  # what was used last comes last
        self.budget: float = math.inf

    @property
    def held(self) -> int:
        """Bytes of the weights that are here."""
        return sum(one.held for one in self._components.values())

    def add(self, name: str, component: Component[Any]) -> None:
        """One more. Its name is what it is used by."""
        self._components[name] = component

    def remove(self, name: str) -> None:
        """One less, and its memory is free."""
        self._components.pop(name).leave()

    def settle(self, work: int, apart: Collection[str] = ()) -> None:
        """Brings everything, if all fits beside so many bytes of work, but those apart, which come when used."""
        if sum(one.size for one in self._components.values()) + work <= self.budget:
            for name, one in self._components.items():
                if name not in apart:
                    one.come()

    def use(self, names: Sequence[str], work: int = 0) -> None:
        """Brings these, for work that takes so many bytes; others leave where there is no room for both.

        Where there is none even so, the largest come in passing, and if they have no blocks, whole nevertheless.
        """
        for name in names:
            self._components[name] = self._components.pop(name)
        here = {name: one.share for name, one in self._components.items() if one.here}
        then = turned(self._parts(), here, names, work, self.budget)
        for name in here.keys() - then.keys():
            self._components[name].leave()
        for name in names:
            share = then[name]
            if share is None:
                self._components[name].come()
            else:
                self._components[name].pass_by(share)

    def plan(self, moments: Sequence[Moment]) -> Plan:
        """What is going to happen where these are used at these moments, one after the other, over and over."""
        return planned(tuple(self._parts().values()), moments, self.budget)

    def _parts(self) -> dict[str, Part]:
        return {name: one.part(name) for name, one in self._components.items()}


@final
@dataclass(frozen=True, eq=False)
class StagedNetwork:
    """A network whose components come when it is called. work: x to the bytes that a call takes beside them."""

    network: Network
    rooms: Rooms
    names: Sequence[str]
    work: Callable[[Tensor], int]

    def __call__(self, x: Tensor, timestep: Tensor, cond: Conditioning) -> Tensor:
        self.rooms.use(self.names, self.work(x))
        return self.network(x, timestep, cond)


class Posterior(Codec, Protocol):
    """A codec that knows how sure it is."""

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Samples to the mean and the deviation of their latents."""
        ...


@final
@dataclass(frozen=True, eq=False)
class StagedCodec:
    """A codec whose component comes when it is used. work: how many samples there are to the bytes that it takes."""

    codec: Posterior
    dtype: torch.dtype
    rooms: Rooms
    name: str
    work: Callable[[int], int]

    @property
    def channels(self) -> int:
        return self.codec.channels

    @property
    def scale_factor(self) -> tuple[int, ...]:
        return self.codec.scale_factor

    def encode(self, x: Tensor) -> Tensor:
        return self.moments(x)[0]

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.rooms.use([self.name], self.work(x.shape[0] * math.prod(x.shape[2:])))
        return self.codec.moments(x)

    def decode(self, z: Tensor) -> Tensor:
        samples = z.shape[0] * math.prod(z.shape[2:]) * math.prod(self.scale_factor)
        self.rooms.use([self.name], self.work(samples))
        return self.codec.decode(z)
