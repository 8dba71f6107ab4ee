"""One ticket at its vendor: sent once, looked at until it is over, fetched; each step is written before the next."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, final

from triptych.errors import (
    BadAnswer,
    Cancelled,
    Expired,
    InDoubt,
    KeyRefused,
    NeedsAction,
    ProviderError,
    RateLimited,
    RequestError,
    Unreachable,
)
from triptych.providers.wire.book import Book, Leaf, Sent
from triptych.providers.wire.vendor import Answer, Vendor
from triptych.types import Card, Progress, Request

if TYPE_CHECKING:
    from triptych.providers.wire.http import Wire

__all__ = ["Session"]

LATER = (KeyRefused, NeedsAction, RateLimited, Unreachable)  # what may be otherwise when it is asked for again


@final
@dataclass(slots=True)
class Session:
    """A vendor, the wire to it, the book of what goes through it, and what is streamed, by leaf."""

    vendor: Vendor
    wire: "Wire"
    book: Book
    live: dict[int, AsyncIterator[Progress | Answer]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return self.wire.account.spec.title

    async def send(self, card: Card, request: Request) -> None:
        """Raises ProviderError where the first one fails; a later one ends the sending."""
        for number in range(len(self.book.leaves)):
            try:
                await self._send_one(card, request, number)
            except (ProviderError, RequestError) as problem:
                doubtful = isinstance(problem, InDoubt | BadAnswer)
                if number == 0 and not doubtful:
                    self.book.remove()
                    raise
                sent: Sent = "doubt" if doubtful else "yes"
                self.book.note(number, sent=sent, state="failed", reason=str(problem), kind=type(problem).__name__)
                for later in range(number + 1, len(self.book.leaves)):
                    self.book.note(
                        later, state="failed", reason="it was not asked for after that", kind="ProviderError"
                    )
                if number == 0:
                    raise
                return

    async def _send_one(self, card: Card, request: Request, number: int) -> None:
        leaf = self.book.put(number, sent="sending")
        seed = None if request.seed is None else request.seed + leaf.first
        try:
            answer = await self.vendor.submit(self.wire, card, replace(request, count=leaf.count, seed=seed))
        except BadAnswer as problem:  # it was taken in, and what came of it cannot be read
            raise self._unreadable(problem) from None
        if answer.live is not None:
            self.live[number] = answer.live
        self._take(number, answer)

    def _unreadable(self, problem: BadAnswer) -> BadAnswer:
        title = self.title
        return BadAnswer(f"{title} took the request in, and it may be charged, but {problem}")

    async def followed(self, stop: asyncio.Event) -> AsyncIterator[Progress]:
        """Until every leaf is over. Raises Cancelled, and what ends all of them."""
        deadline, pace = asyncio.get_running_loop().time() + self.wire.account.deadline, self.wire.pace
        delay, stuck = pace.poll, dict[int, ProviderError]()
        for number, live in self.live.items():
            async for progress in self._streamed(live, number):
                yield progress
        while True:
            asked: list[float] = []
            for number, leaf in enumerate(self.book.leaves):
                if leaf.over or number in stuck:
                    continue
                if stop.is_set():
                    await self._stopped()
                try:
                    asked += await self._look(number)
                except ProviderError as problem:  # the others are looked at first
                    stuck[number] = problem
            yield self.book.progress
            if all(leaf.over or number in stuck for number, leaf in enumerate(self.book.leaves)):
                self._give_up(stuck)
                return
            left = deadline - asyncio.get_running_loop().time()
            if left < 0:
                title = self.title
                raise ProviderError(
                    f"{title} is not done after {self.wire.account.deadline:.0f} s; the ticket is kept."
                )
            await pace.wait(min(max(asked, default=delay) or delay, left), stop)
            delay = min(delay * 1.5, pace.most)

    def _give_up(self, stuck: Mapping[int, ProviderError]) -> None:
        """Of those that cannot be looked at: raises where it may be otherwise later, or nothing else came."""
        for number, problem in stuck.items():
            if isinstance(problem, LATER) or not any(leaf.made for leaf in self.book.leaves):
                raise problem
            self.book.note(number, sent="doubt", state="failed", kind=type(problem).__name__, reason=str(problem))

    async def _streamed(self, live: AsyncIterator[Progress | Answer], number: int) -> AsyncIterator[Progress]:
        """A request that is answered piece by piece; it is sent by now, and is heard to its end: it is paid for."""
        try:
            async for piece in live:
                if isinstance(piece, Progress):
                    yield piece
                else:
                    self._take(number, piece)
        except (BadAnswer, InDoubt) as problem:
            told = self._unreadable(problem) if isinstance(problem, BadAnswer) else problem
            self.book.note(number, sent="doubt", state="failed", kind=type(problem).__name__, reason=str(told))

    async def _look(self, number: int) -> list[float]:
        """Asks how one stands and fetches what it made; the seconds that the vendor asks to wait, if any."""
        leaf = self.book.leaves[number]
        if leaf.sent == "no":
            self.book.note(number, state="failed", kind="ProviderError", reason="the process ended before it was sent")
            return []
        if leaf.sent != "yes":
            reason = "it was being sent when the process ended; see your account there before you ask again"
            self.book.note(number, sent="doubt", state="failed", kind="InDoubt", reason=reason)
            return []
        after: float | None = None
        if leaf.state in ("queued", "running", "needs_action"):
            answer = await self.vendor.poll(self.wire, leaf.handle)
            leaf, after = self._take(number, answer), answer.after
            if leaf.state == "needs_action":
                raise NeedsAction(f"{self.title} waits for you: {leaf.reason or leaf.status}.")
        if leaf.state == "succeeded" and leaf.links:
            await self._fetch(number)
        return [] if after is None else [after]

    async def _fetch(self, number: int) -> None:
        """Brings every result here. A URL that has expired, or is none, is asked for once more."""
        try:
            await self._bring(number)
        except (BadAnswer, Expired) as problem:
            if await self._renewed(number):
                with suppress(Expired):
                    await self._bring(number)
                    return
            if isinstance(problem, BadAnswer):
                raise
            some = bool(self.book.leaves[number].files)  # then these are what it made
            self.book.note(
                number, state="succeeded" if some else "expired", reason=str(problem), kind="Expired", links=()
            )

    async def _renewed(self, number: int) -> bool:
        """Whether the vendor has told anew where the results lie. Raises ProviderError where it may do so later."""
        handle = self.book.leaves[number].handle
        if not handle:
            return False
        try:
            answer = await self.vendor.poll(self.wire, handle)
        except ProviderError as problem:
            if isinstance(problem, LATER):
                raise
            return False
        if answer.state != "succeeded" or not answer.assets:
            return False
        self._take(number, answer)
        return True

    async def _bring(self, number: int) -> None:
        leaf = self.book.leaves[number]
        for place in range(len(leaf.links) + len(leaf.files)):
            name = self.book.name(leaf, place)
            if name in leaf.files:
                continue
            url, keyed = leaf.links[0]
            await self.wire.fetch(url, self.book.folder / name, keyed=keyed)
            files = (*leaf.files[:place], name, *leaf.files[place:])  # in the order of the results
            leaf = self.book.note(number, files=files, links=leaf.links[1:])

    async def _stopped(self) -> None:
        """Asks the vendor to stop what it is at. Raises Cancelled."""
        told, title = "", self.title
        for number, leaf in enumerate(self.book.leaves):
            if leaf.over or leaf.sent != "yes":
                continue
            if leaf.state == "succeeded":
                told = told or f" What {title} has made waits there."
                continue
            try:
                asked = await self.vendor.cancel(self.wire, leaf.handle)
            except ProviderError as problem:
                asked, told = False, f" {problem}"
            if asked:
                self.book.note(number, state="cancelled", kind="Cancelled", reason="stopped on request", links=())
            else:
                told = told or f" {title} has no way to stop it: it goes on there, and is charged."
        raise Cancelled(f"stopped on request.{told}")

    def _take(self, number: int, answer: Answer) -> Leaf:
        """Writes an answer down, without the key, should the vendor have said it back."""
        hide = self.wire.account.hide
        told = {name: _hidden(one, hide) for name, one in answer.told.items()}
        clean = replace(answer, reason=hide(answer.reason), status=hide(answer.status), told=told)
        return self.book.take(number, clean)


def _hidden(told: Any, hide: Callable[[str], str]) -> Any:
    match told:
        case str():
            return hide(told)
        case Mapping():
            return {name: _hidden(one, hide) for name, one in told.items()}
        case list() | tuple():
            return [_hidden(one, hide) for one in told]
    return told
