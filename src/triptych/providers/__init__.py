"""Who makes things: the local machine and every vendor, behind the same few verbs."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, final

from triptych.providers.wire.checks import Finding
from triptych.types import Card, Event, Price, Request, Ticket

__all__ = ["Finding", "Price", "Provider", "Resolved"]


@final
@dataclass(frozen=True, slots=True)
class Resolved:
    """A request with every default filled in, and what has to be said of that."""

    request: Request
    warnings: tuple[str, ...] = ()


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

    async def resolve(self, request: Request) -> Resolved:
        """Checks all that can be checked before anything is computed or paid for. Raises RequestError."""
        ...

    def price(self, request: Request) -> Price:
        """Before anything is sent. Raises RequestError where the request cannot be, PriceUnknown."""
        ...

    def lacks(self, name: str) -> str:
        """What is missing for this model of it to be asked now, in few words; "" where nothing is. Asks no network."""
        ...

    async def check(self) -> Sequence[Finding]:
        """What it needs in all, whether it is there, and what to do where it is not. May take seconds."""
        ...

    def gateway(self) -> bool:
        """Whether it asks another place than the vendor's own, which may serve what the vendor no longer does."""
        ...

    def plan(self, request: Request) -> str:
        """What it takes of this machine, where that can be told beforehand; "" elsewhere."""
        ...

    async def submit(self, request: Request, key: str | None = None) -> Ticket:
        """Takes a resolved request in: of a vendor, sends it, which may cost. key: what it is kept under, if told.

        Raises RequestError, ProviderError; InDoubt where it may have been taken in all the same.
        """
        ...

    def find(self, key: str, request: Request) -> Ticket | None:
        """The ticket of a `submit` under this key whose end nobody has seen, where it is known that it was taken in."""
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
