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
    KeyRefused,
    NeedsAction,
    PriceUnknown,
    ProviderError,
    RateLimited,
    RequestError,
    UnknownName,
    Unreachable,
)
from triptych.providers import Resolved, tables
from triptych.providers.account import Account
from triptych.providers.book import Book, Leaf, Sent, recovered
from triptych.providers.checks import Finding, lacking, reached, ready
from triptych.providers.framing import framed
from triptych.providers.vendor import Answer, Vendor
from triptych.types import Card, Event, Price, Progress, Request, Ticket

if TYPE_CHECKING:
    from triptych.providers.http import Pace, Wire

__all__ = ["Remote"]

LATER = (KeyRefused, NeedsAction, RateLimited, Unreachable)  # what may be otherwise when it is asked for again


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
        session = _Session(self._wire(account), book)
        try:
            await self._send_all(session, card, request, book)
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
        id = str(ticket.handle["id"])
        from triptych.providers.outcome import result

        stop = self._stops.setdefault(id, asyncio.Event())
        session = self._sessions.pop(id, None) or _Session(self._wire(self._account()), self._book(ticket))
        book = session.book
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

    def _wire(self, account: Account) -> "Wire":
        from triptych.providers.http import Wire

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

    async def _send_all(self, session: "_Session", card: Card, request: Request, book: Book) -> None:
        """Raises ProviderError where the first one fails; a later one ends the sending."""
        for number in range(len(book.leaves)):
            try:
                await self._send(session, card, request, book, number)
            except (ProviderError, RequestError) as problem:
                doubtful = isinstance(problem, InDoubt | BadAnswer)
                if number == 0 and not doubtful:
                    book.remove()
                    raise
                sent: Sent = "doubt" if doubtful else "yes"
                book.note(number, sent=sent, state="failed", reason=str(problem), kind=type(problem).__name__)
                for later in range(number + 1, len(book.leaves)):
                    book.note(later, state="failed", reason="it was not asked for after that", kind="ProviderError")
                if number == 0:
                    raise
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
        _take(session, number, answer)

    def _unreadable(self, problem: BadAnswer) -> BadAnswer:
        title = tables.spec(self.name).title
        return BadAnswer(f"{title} took the request in, and it may be charged, but {problem}")

    async def _followed(self, session: "_Session", book: Book, stop: asyncio.Event) -> AsyncIterator[Progress]:
        """Until every leaf is over. Raises Cancelled, and what ends all of them."""
        deadline, pace = asyncio.get_running_loop().time() + self._account().deadline, session.wire.pace
        delay, stuck = pace.poll, dict[int, ProviderError]()
        for number, live in session.live.items():
            async for progress in self._streamed(live, session, number):
                yield progress
        while True:
            asked: list[float] = []
            for number, leaf in enumerate(book.leaves):
                if leaf.over or number in stuck:
                    continue
                if stop.is_set():
                    await self._stopped(session, book)
                try:
                    asked += await self._look(session, book, number)
                except ProviderError as problem:  # the others are looked at first
                    stuck[number] = problem
            yield book.progress
            if all(leaf.over or number in stuck for number, leaf in enumerate(book.leaves)):
                self._give_up(book, stuck)
                return
            left = deadline - asyncio.get_running_loop().time()
            if left < 0:
                title = tables.spec(self.name).title
                raise ProviderError(f"{title} is not done after {self._account().deadline:.0f} s; the ticket is kept.")
            await pace.wait(min(max(asked, default=delay) or delay, left), stop)
            delay = min(delay * 1.5, pace.most)

    def _give_up(self, book: Book, stuck: Mapping[int, ProviderError]) -> None:
        """Of those that cannot be looked at: raises where it may be otherwise later, or nothing else came."""
        for number, problem in stuck.items():
            if isinstance(problem, LATER) or not any(leaf.made for leaf in book.leaves):
                raise problem
            book.note(number, sent="doubt", state="failed", kind=type(problem).__name__, reason=str(problem))

    async def _streamed(
        self, live: AsyncIterator[Progress | Answer], session: "_Session", number: int
    ) -> AsyncIterator[Progress]:
        """A request that is answered piece by piece; it is sent by now, and is heard to its end: it is paid for."""
        try:
            async for piece in live:
                if isinstance(piece, Progress):
                    yield piece
                else:
                    _take(session, number, piece)
        except (BadAnswer, InDoubt) as problem:
            told = self._unreadable(problem) if isinstance(problem, BadAnswer) else problem
            session.book.note(number, sent="doubt", state="failed", kind=type(problem).__name__, reason=str(told))

    async def _look(self, session: "_Session", book: Book, number: int) -> list[float]:
        """Asks how one stands and fetches what it made; the seconds that the vendor asks to wait, if any."""
        leaf = book.leaves[number]
        if leaf.sent == "no":
            book.note(number, state="failed", kind="ProviderError", reason="the process ended before it was sent")
            return []
        if leaf.sent != "yes":
            reason = "it was being sent when the process ended; see your account there before you ask again"
            book.note(number, sent="doubt", state="failed", kind="InDoubt", reason=reason)
            return []
        after: float | None = None
        if leaf.state in ("queued", "running", "needs_action"):
            answer = await self._vendor.poll(session.wire, leaf.handle)
            leaf, after = _take(session, number, answer), answer.after
            if leaf.state == "needs_action":
                raise NeedsAction(f"{tables.spec(self.name).title} waits for you: {leaf.reason or leaf.status}.")
        if leaf.state == "succeeded" and leaf.links:
            await self._fetch(session, book, number)
        return [] if after is None else [after]

    async def _fetch(self, session: "_Session", book: Book, number: int) -> None:
        """Brings every result here. A URL that has expired, or is none, is asked for once more."""
        try:
            await self._bring(session, book, number)
        except (BadAnswer, Expired) as problem:
            if await self._renewed(session, number):
                with suppress(Expired):
                    await self._bring(session, book, number)
                    return
            if isinstance(problem, BadAnswer):
                raise
            some = bool(book.leaves[number].files)  # then these are what it made
            book.note(number, state="succeeded" if some else "expired", reason=str(problem), kind="Expired", links=())

    async def _renewed(self, session: "_Session", number: int) -> bool:
        """Whether the vendor has told anew where the results lie. Raises ProviderError where it may do so later."""
        handle = session.book.leaves[number].handle
        if not handle:
            return False
        try:
            answer = await self._vendor.poll(session.wire, handle)
        except ProviderError as problem:
            if isinstance(problem, LATER):
                raise
            return False
        if answer.state != "succeeded" or not answer.assets:
            return False
        _take(session, number, answer)
        return True

    async def _bring(self, session: "_Session", book: Book, number: int) -> None:
        leaf = book.leaves[number]
        for place in range(len(leaf.links) + len(leaf.files)):
            name = book.name(leaf, place)
            if name in leaf.files:
                continue
            url, keyed = leaf.links[0]
            await session.wire.fetch(url, book.folder / name, keyed=keyed)
            files = (*leaf.files[:place], name, *leaf.files[place:])  # in the order of the results
            leaf = book.note(number, files=files, links=leaf.links[1:])

    async def _stopped(self, session: "_Session", book: Book) -> None:
        """Asks the vendor to stop what it is at. Raises Cancelled."""
        told, title = "", tables.spec(self.name).title
        for number, leaf in enumerate(book.leaves):
            if leaf.over or leaf.sent != "yes":
                continue
            if leaf.state == "succeeded":
                told = told or f" What {title} has made waits there."
                continue
            try:
                asked = await self._vendor.cancel(session.wire, leaf.handle)
            except ProviderError as problem:
                asked, told = False, f" {problem}"
            if asked:
                book.note(number, state="cancelled", kind="Cancelled", reason="stopped on request", links=())
            else:
                told = told or f" {title} has no way to stop it: it goes on there, and is charged."
        raise Cancelled(f"stopped on request.{told}")


@final
@dataclass(slots=True)
class _Session:
    """A wire, the book of what goes through it, and what is streamed, by leaf."""

    wire: "Wire"
    book: Book
    live: dict[int, AsyncIterator[Progress | Answer]] = field(default_factory=dict)


def _take(session: _Session, number: int, answer: Answer) -> Leaf:
    """Writes an answer down, without the key, should the vendor have said it back."""
    hide = session.wire.account.hide
    told = {name: _hidden(one, hide) for name, one in answer.told.items()}
    clean = replace(answer, reason=hide(answer.reason), status=hide(answer.status), told=told)
    return session.book.take(number, clean)


def _hidden(told: Any, hide: Callable[[str], str]) -> Any:
    match told:
        case str():
            return hide(told)
        case Mapping():
            return {name: _hidden(one, hide) for name, one in told.items()}
        case list() | tuple():
            return [_hidden(one, hide) for one in told]
    return told
