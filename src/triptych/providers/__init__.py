"""Who makes things: the local machine and every vendor, behind the same few verbs."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol, final

from triptych.types import Card, Event, Request, Ticket

__all__ = ["Price", "Provider"]


@final
@dataclass(frozen=True, slots=True)
class Price:
    """What a request costs in US dollars, before anything is sent; exact or the most that it can be."""

    dollars: float = 0.0
    exact: bool = True


class Provider(Protocol):
    """Submit, watch, cancel; a ticket survives a restart, and watching it again goes on where it stopped."""

    @property
    def name(self) -> str: ...

    def cards(self) -> Mapping[str, Card]:
        """What can be asked for, by name; quick, and without the tensor library."""
        ...

    def card(self, name: str) -> Card:
        """The one that this name means: one of `cards`, or of a model that lies where the name says.

        Raises UnknownName, and WeightsError where something else lies there.
        """
        ...

    def price(self, request: Request) -> Price:
        """Raises RequestError where the request cannot be."""
        ...

    def plan(self, request: Request) -> str:
        """What it takes of this machine, where that can be told beforehand; "" elsewhere."""
        ...

    async def submit(self, request: Request) -> Ticket:
        """Checks everything that can be checked early, and takes the request in. Raises RequestError."""
        ...

    def watch(self, ticket: Ticket) -> AsyncIterator[Event]:
        """Progress, then one Result. Raises TriptychError; Cancelled after `cancel`."""
        ...

    async def cancel(self, ticket: Ticket) -> None:
        """Asks a running ticket to stop; its watcher sees Cancelled. One that is over stays as it is."""
        ...

    def kept(self, ticket: Ticket) -> str:
        """What a ticket that stopped has left to go on from, in words; empty where there is nothing."""
        ...

    async def forget(self, ticket: Ticket) -> None:
        """The result is safe, or nobody wants it: what was kept may go."""
        ...
