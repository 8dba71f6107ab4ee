"""Any vendor behind the verbs of every provider: sends once, writes down, looks again, fetches, saves."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from triptych.errors import (
    BadAnswer,
    Cancelled,
    Expired,
    FileProblem,
    InDoubt,
    NeedsAction,
    PriceUnknown,
    ProviderError,
    RequestError,
    UnknownName,
)
from triptych.providers import Resolved, tables
from triptych.providers.account import Account
from triptych.providers.book import Book, Leaf, Sent
from triptych.providers.checks import Finding, lacking, reached, ready
from triptych.providers.framing import framed
from triptych.providers.vendor import Answer, Vendor
from triptych.types import Card, Event, Price, Progress, Request, Ticket, TicketState

if TYPE_CHECKING:
    from triptych.providers.http import Pace, Wire

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
        self._sessions: dict[str, _Session] = {}  # of tickets whose answer is streamed

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

    def account(self) -> Account:
        """As the user has set it up."""
        return self._account()

    async def resolve(self, request: Request) -> Resolved:
        card = await asyncio.to_thread(self.card, request.model)
        sized, told = framed(card, request)
        resolved = card.resolve(sized)
        if "seed" in card.fields and resolved.seed is None and card.settings.get("seed") != "given":
            least, most = int(card.fields["seed"].minimum or 0), int(card.fields["seed"].maximum or 2**31 - 1)
            resolved = replace(resolved, seed=least + secrets.randbelow(most - least + 2 - resolved.count))
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
        account = self._account()
        ready(account)
        card = await asyncio.to_thread(self.card, request.model)
        id = key or secrets.token_hex(8)
        about = {"family": card.family, "media": card.media, "license": card.license}
        book = Book.begun(self._folder / id, request, self._vendor.batch(card), about)
        session = _Session(self._wire(account))
        try:
            await self._send_all(session, card, request, book)
        finally:
            if session.live:
                self._sessions[id] = session
            else:
                await session.wire.close()
        return Ticket(self.name, request, _handle(id, book), _state(book))

    def find(self, key: str, request: Request) -> Ticket | None:
        book = Book.opened(self._folder / key)
        if book is None or not any(leaf.sent == "yes" for leaf in book.leaves):
            return None
        return Ticket(self.name, request, _handle(key, book), _state(book))

    async def watch(self, ticket: Ticket) -> AsyncIterator[Event]:
        """Looks until all is over, fetches, and gives what there is. Raises ProviderError, Cancelled."""
        id = str(ticket.handle["id"])
        from triptych.providers.outcome import result

        book, stop = self._book(ticket), self._stops.setdefault(id, asyncio.Event())
        session = self._sessions.pop(id, None) or _Session(self._wire(self._account()))
        try:
            async for progress in self._followed(session, book, stop):
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
        """What must be set; where all is, whether the vendor answers."""
        account = self._account()
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
        with suppress(FileProblem):
            book = Book.opened(self._folder / str(ticket.handle["id"]))
            if book is None:
                return ""
            here = sum(len(leaf.files) for leaf in book.leaves)
            waiting = sum(not leaf.over for leaf in book.leaves if leaf.sent == "yes")
            told = [f"{here} fetched"] if here else []
            told += [f"{waiting} at {tables.spec(self.name).title}"] if waiting else []
            return " and ".join(told)
        return ""

    async def forget(self, ticket: Ticket) -> None:
        Book(self._folder / str(ticket.handle["id"]), "").remove()

    def _wire(self, account: Account) -> "Wire":
        from triptych.providers.http import Wire

        return Wire(account, self._vendor.explain, self._pace)

    def _book(self, ticket: Ticket) -> Book:
        """The ticket's book; where its folder is gone, what the ticket itself says of it."""
        folder = self._folder / str(ticket.handle["id"])
        found = Book.opened(folder)
        if found is not None:
            return found
        told = ticket.handle["leaves"]
        leaves = tuple(Leaf(one["first"], one["count"], "yes", "running", one["handle"]) for one in told)
        return Book(folder, ticket.request.model, leaves, ticket.handle["about"])

    def _known(self, book: Book) -> Card:
        """The card of what was sent; of a model that only its host knows, as much as was written down."""
        listed, told = self.cards().get(book.model), book.about
        return listed or Card(book.model, told["family"], told["media"], (), {}, told["license"])  # type: ignore[arg-type]

    async def _send_all(self, session: "_Session", card: Card, request: Request, book: Book) -> None:
        """Raises ProviderError where the first one fails; a later one ends the sending."""
        for number in range(len(book.leaves)):
            try:
                await self._send(session, card, request, book, number)
            except (ProviderError, RequestError) as problem:
                doubtful = isinstance(problem, InDoubt | BadAnswer)
                if number == 0:
                    if not doubtful:
                        book.remove()
                    raise
                sent: Sent = "doubt" if doubtful else "yes"
                book.put(number, sent=sent, state="failed", reason=str(problem), kind=type(problem).__name__)
                for later in range(number + 1, len(book.leaves)):
                    book.put(later, state="failed", reason="it was not asked for after that", kind="ProviderError")
                return

    async def _send(self, session: "_Session", card: Card, request: Request, book: Book, number: int) -> None:
        leaf = book.put(number, sent="sending")
        seed = None if request.seed is None else request.seed + leaf.first
        try:
            answer = await self._vendor.submit(session.wire, card, replace(request, count=leaf.count, seed=seed))
        except BadAnswer as problem:  # it was taken in, and what came of it cannot be read
            raise self._unreadable(problem) from None
        if answer.live is not None:
            session.live[number] = answer.live
        book.take(number, answer)

    def _unreadable(self, problem: BadAnswer) -> BadAnswer:
        title = tables.spec(self.name).title
        return BadAnswer(f"{title} took the request in, and it may be charged, but {problem}")

    async def _followed(self, session: "_Session", book: Book, stop: asyncio.Event) -> AsyncIterator[Progress]:
        """Until every leaf is over. Raises Cancelled, and what ends all of them."""
        deadline, pace = asyncio.get_running_loop().time() + self._account().deadline, session.wire.pace
        delay = pace.poll
        for number, live in session.live.items():
            async for progress in self._streamed(live, book, number, stop):
                yield progress
        while True:
            asked: list[float] = []
            for number, leaf in enumerate(book.leaves):
                if stop.is_set():
                    await self._stopped(session, book)
                if not leaf.over:
                    asked += await self._look(session, book, number)
            yield _progress(book)
            if all(leaf.over for leaf in book.leaves):
                return
            if asyncio.get_running_loop().time() > deadline:
                title = tables.spec(self.name).title
                raise ProviderError(f"{title} is not done after {self._account().deadline:.0f} s; the ticket is kept.")
            await pace.wait(max(asked, default=delay), stop)
            delay = min(delay * 1.5, pace.most)

    async def _streamed(
        self, live: AsyncIterator[Progress | Answer], book: Book, number: int, stop: asyncio.Event
    ) -> AsyncIterator[Progress]:
        """A request that is answered piece by piece; it is sent by now, and is heard to its end: it is paid for."""
        try:
            async for piece in live:
                if isinstance(piece, Progress):
                    yield piece
                else:
                    book.take(number, piece)
        except BadAnswer as problem:
            raise self._unreadable(problem) from None
        except InDoubt:
            book.put(number, sent="doubt", state="failed", kind="InDoubt", reason="the answer was cut")
            raise

    async def _look(self, session: "_Session", book: Book, number: int) -> list[float]:
        """Asks how one stands and fetches what it made; the seconds that the vendor asks to wait, if any."""
        leaf = book.leaves[number]
        if leaf.sent != "yes":
            reason = "it was being sent when the process ended; see your account there before you ask again"
            book.put(number, sent="doubt", state="failed", kind="InDoubt", reason=reason)
            return []
        after: float | None = None
        if leaf.state in ("queued", "running", "needs_action"):
            answer = await self._vendor.poll(session.wire, leaf.handle)
            leaf, after = book.take(number, answer), answer.after
            if leaf.state == "needs_action":
                raise NeedsAction(f"{tables.spec(self.name).title} waits for you: {leaf.reason or leaf.status}.")
        if leaf.state == "succeeded" and leaf.links:
            await self._fetch(session, book, number)
        return [] if after is None else [after]

    async def _fetch(self, session: "_Session", book: Book, number: int) -> None:
        """Brings every result here. A URL that has expired is asked for once more."""
        leaf = book.leaves[number]
        try:
            await self._bring(session, book, number)
        except Expired as problem:
            with suppress(ProviderError):
                answer = await self._vendor.poll(session.wire, leaf.handle)
                if answer.state == "succeeded" and answer.assets:
                    book.take(number, answer)
                    await self._bring(session, book, number)
                    return
            book.put(number, state="expired", reason=str(problem), kind="Expired", links=())

    async def _bring(self, session: "_Session", book: Book, number: int) -> None:
        leaf = book.leaves[number]
        for place in range(len(leaf.links) + len(leaf.files)):
            name = book.name(leaf, place)
            if name in leaf.files:
                continue
            url, keyed = leaf.links[0]
            await session.wire.fetch(url, book.folder / name, keyed=keyed)
            files = (*leaf.files[:place], name, *leaf.files[place:])  # in the order of the results
            leaf = book.put(number, files=files, links=leaf.links[1:])

    async def _stopped(self, session: "_Session", book: Book) -> None:
        """Asks the vendor to stop what it is at. Raises Cancelled."""
        told, title = "", tables.spec(self.name).title
        for number, leaf in enumerate(book.leaves):
            if leaf.over:
                continue
            try:
                asked = await self._vendor.cancel(session.wire, leaf.handle)
            except ProviderError as problem:
                asked, told = False, f" {problem}"
            if asked:
                book.put(number, state="cancelled", kind="Cancelled", reason="stopped on request", links=())
            else:
                told = told or f" {title} has no way to stop it: it goes on there, and is charged."
        raise Cancelled(f"stopped on request.{told}")


@final
@dataclass(slots=True)
class _Session:
    """A wire, and what is streamed through it, by leaf."""

    wire: "Wire"
    live: dict[int, AsyncIterator[Progress | Answer]] = field(default_factory=dict)


def _handle(id: str, book: Book) -> dict[str, Any]:
    leaves = [{"first": leaf.first, "count": leaf.count, "handle": dict(leaf.handle)} for leaf in book.leaves]
    return {"id": id, "about": dict(book.about), "leaves": leaves}


def _state(book: Book) -> TicketState:
    """Of all leaves together: over only when all are."""
    states = [leaf.state for leaf in book.leaves]
    for state in ("running", "queued", "needs_action", "succeeded"):
        if state in states:
            return state
    return states[0]


def _progress(book: Book) -> Progress:
    """The mean of what the leaves tell; of one that tells nothing, whether it is done."""
    shares = [1.0 if leaf.over else leaf.fraction or 0.0 for leaf in book.leaves]
    words = [leaf.status or leaf.state for leaf in book.leaves if not leaf.over]
    return Progress(sum(shares) / len(shares), words[0].lower() if words else "fetched")
