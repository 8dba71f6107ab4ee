"""Any vendor behind the verbs of every provider: sends once, writes down, looks again, fetches, saves."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, final

from triptych.errors import FileProblem, InvalidField, PriceUnknown, RequestError, UnknownName
from triptych.providers import Resolved
from triptych.providers.wire import tables
from triptych.providers.wire.account import Account
from triptych.providers.wire.book import Book, recovered
from triptych.providers.wire.checks import Finding, lacking, reached, ready
from triptych.providers.wire.framing import framed
from triptych.providers.wire.session import Session
from triptych.providers.wire.vendor import Vendor
from triptych.types import Card, Event, Price, Request, Ticket

if TYPE_CHECKING:
    from triptych.providers.wire.http import Pace, Wire

__all__ = ["Remote"]


@final
class Remote:
    """One vendor, with the account of this user."""

    def __init__(
        self, vendor: Vendor, account: Callable[[], Account], folder: Path, pace: "Pace | None" = None
    ) -> None:
        """account: read when it is needed; folder: where tickets and what they made wait until the result is safe."""
        self._vendor, self._account, self._folder, self._pace = vendor, account, folder, pace
        self._stops: dict[str, asyncio.Event] = {}
        self._sessions: dict[str, Session] = {}  # of tickets whose answer is streamed

    @property
    def name(self) -> str:
        return self._vendor.name

    def cards(self) -> Mapping[str, Card]:
        return self._vendor.cards()

    def card(self, name: str) -> Card:
        found = self._vendor.card(name)
        if found is None:
            raise UnknownName("model", name, self.cards())
        return found

    async def resolve(self, request: Request) -> Resolved:
        card = await asyncio.to_thread(self.card, request.model)
        sized, told = framed(card, request)
        resolved = _seeded(card, card.resolve(sized), self._vendor.batch(card))
        self._vendor.check(card, resolved)
        return Resolved(resolved, tuple(told))

    def price(self, request: Request) -> Price:
        """By the vendor's list; at a gateway, which has its own, only where the settings say that the list holds."""
        card = self.card(request.model)
        resolved = card.resolve(framed(card, request)[0])
        self._vendor.check(card, resolved)
        return self._listed(card, resolved)

    def _listed(self, card: Card, request: Request) -> Price:
        """Of a resolved request."""
        account = self._account()
        match account.settings.get("prices", "list" if account.own else "unknown"):
            case "free":
                return Price()
            case "list":
                return self._vendor.price(card, request)
        why = f'{account.base_url} sets its own prices (prices = "list" or "free" in [{self.name}] of config.toml)'
        raise PriceUnknown(request.model, why)

    def plan(self, request: Request) -> str:
        """Nothing: it takes nothing of this machine."""
        return ""

    async def submit(self, request: Request, key: str | None = None) -> Ticket:
        """Sends a resolved request, in as many as the vendor wants for its samples.

        Where a later one fails, what the earlier ones make still comes. Raises ProviderError, NotSetUp.
        """
        account = await asyncio.to_thread(self._ready)
        card = await asyncio.to_thread(self.card, request.model)
        id = key or secrets.token_hex(8)
        about = {"family": card.family, "media": card.media, "license": card.license}
        book = Book.begun(self._folder / id, request, self._vendor.batch(card), about)
        session = Session(self._vendor, self._wire(account), book)
        try:
            await session.send(card, request)
        finally:
            if session.live or book.loose or not book.written:
                self._sessions[id] = session
            else:
                await session.wire.close()
        return Ticket(self.name, request, book.handle(id), book.state)

    def find(self, key: str, request: Request) -> Ticket | None:
        book = None
        with suppress(FileProblem):  # one that cannot be read tells nothing
            book = Book.opened(self._folder / key)
        if book is None or not any(leaf.sent == "yes" for leaf in book.leaves):
            return None
        return Ticket(self.name, request, book.handle(key), book.state)

    async def watch(self, ticket: Ticket) -> AsyncIterator[Event]:
        """Looks until all is over, fetches, and gives what there is. Raises ProviderError, Cancelled."""
        from triptych.providers.wire.outcome import result

        id = str(ticket.handle["id"])
        stop = self._stops.setdefault(id, asyncio.Event())
        session = self._sessions.pop(id, None) or await self._session(ticket)
        book = session.book
        try:
            async for progress in session.followed(stop):
                yield progress
            card = self._known(book)
            price = partial(self._listed, card)
            yield await asyncio.to_thread(result, self.name, card, ticket.request, book, price)
        finally:
            await session.wire.close()
            self._stops.pop(id, None)

    def lacks(self, name: str) -> str:
        return ", ".join(f"needs {lack.what}" for lack in lacking(self._account()))

    async def check(self) -> Sequence[Finding]:
        """What must be set; where all is, whether the vendor answers. A setting that cannot be is a finding too."""
        try:
            account = await asyncio.to_thread(self._account)
        except RequestError as problem:
            return [Finding("setting", False, str(problem))]
        missing = [Finding("setting", False, f"needs {lack.what}", lack.way) for lack in lacking(account)]
        told = "none is wanted" if account.key is None else "found"
        return missing or [Finding("key", True, told), await reached(account)]

    def gateway(self) -> bool:
        return not self._account().own

    async def cancel(self, ticket: Ticket) -> None:
        """The watcher asks the vendor to stop."""
        self._stops.setdefault(str(ticket.handle["id"]), asyncio.Event()).set()

    def kept(self, ticket: Ticket) -> str:
        """What is still to come, or to be saved."""
        try:
            book = Book.opened(self._folder / str(ticket.handle["id"]))
        except FileProblem:
            book = self._book(ticket)
        if book is None:
            return ""
        here = sum(len(leaf.files) for leaf in book.leaves)
        waiting = sum(not leaf.over for leaf in book.leaves if leaf.sent == "yes")
        told = [f"{here} fetched"] if here else []
        told += [f"{waiting} at {tables.spec(self.name).title}"] if waiting else []
        return " and ".join(told)

    async def forget(self, ticket: Ticket) -> None:
        Book(self._folder / str(ticket.handle["id"]), "").remove()

    def _ready(self) -> Account:
        """As the user has set it up; a keyring or a program may be asked for the key. Raises NotSetUp."""
        account = self._account()
        ready(account)
        return account

    async def _session(self, ticket: Ticket) -> Session:
        """To go on with a ticket."""
        account = await asyncio.to_thread(self._account)
        return Session(self._vendor, self._wire(account), self._book(ticket))

    def _wire(self, account: Account) -> "Wire":
        from triptych.providers.wire.http import Wire

        return Wire(account, self._vendor.explain, self._pace)

    def _book(self, ticket: Ticket) -> Book:
        """The ticket's book; where it is gone or cannot be read, what the ticket itself says of it."""
        folder = self._folder / str(ticket.handle["id"])
        with suppress(FileProblem):
            found = Book.opened(folder)
            if found is not None:
                return found
        leaves = tuple(recovered(folder, told) for told in ticket.handle["leaves"])
        return Book(folder, ticket.request.model, leaves, ticket.handle["about"])

    def _known(self, book: Book) -> Card:
        """The card of what was sent; of a model that only its host knows, as much as was written down."""
        listed, told = self.cards().get(book.model), book.about
        return listed or Card(book.model, told["family"], told["media"], (), {}, told["license"])  # type: ignore[arg-type]


def _seeded(card: Card, request: Request, batch: int) -> Request:
    """A resolved request with a seed, where the card takes one and is not to be left without. Raises InvalidField where
    the last request of `batch` samples would have one beyond what the card takes."""
    field = card.fields.get("seed")
    if field is None:
        return request
    least, most = int(field.minimum or 0), int(field.maximum or 2**31 - 1)
    if request.seed is None and card.settings.get("seed") == "given":
        return request
    if request.seed is None:
        return replace(request, seed=least + secrets.randbelow(most - least + 2 - request.count))
    last = most - (request.count - 1) // batch * batch
    if field.maximum is not None and request.seed > last:
        raise InvalidField("seed", request.seed, f"{least} to {last} with count {request.count}")
    return request
