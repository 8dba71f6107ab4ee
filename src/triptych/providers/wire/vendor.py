"""What one vendor is: how a request becomes its words, and its words an answer. What all share is in remote.py."""

import base64
import binascii
import json
import logging
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, final

from triptych.errors import (
    BadAnswer,
    KeyRefused,
    OutOfCredit,
    ProviderError,
    RateLimited,
    Refused,
)
from triptych.types import Artifact, Card, Price, Progress, Request, TicketState

if TYPE_CHECKING:
    from triptych.providers.wire.http import Wire

__all__ = [
    "Answer",
    "Data",
    "Link",
    "Part",
    "Reply",
    "Vendor",
    "complaint",
    "check_medium",
    "decoded",
    "encoded",
    "explained",
    "parsed",
    "state_of",
]

NOTHING: Mapping[str, Any] = MappingProxyType({})
LOG = logging.getLogger("triptych.providers")
LONGEST = 500  # characters of a vendor's words in an error
LONGEST_NUMBER = 30  # digits of a whole number


@final
@dataclass(frozen=True, slots=True)
class Data:
    """A result that came with the answer."""

    data: bytes


@final
@dataclass(frozen=True, slots=True)
class Link:
    """A result that is to be fetched. keyed: whether the vendor wants its key there too."""

    url: str
    keyed: bool = False


@final
@dataclass(frozen=True, slots=True)
class Answer:
    """What a vendor said of one request.

    handle: what poll and cancel need, JSON. assets: of a success, in order. fraction: in [0, 1], where it is told.
    reason: in the vendor's words, why not. cost: US dollars, where it is told or follows from usage. after: seconds
    that the vendor asks to wait. told: what the recipe shall keep. live: of an answer that is streamed, its progress
    and at its end the answer; it lives as long as this process.
    """

    state: TicketState
    handle: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    assets: tuple[Data | Link, ...] = ()
    fraction: float | None = None
    status: str = ""
    reason: str = ""
    cost: float | None = None
    after: float | None = None
    told: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    live: "AsyncIterator[Progress | Answer] | None" = None


@final
@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer. headers: names in small letters; after: seconds that it asks to wait."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    after: float | None = None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> dict[str, Any]:
        """The object in the body. Raises BadAnswer."""
        try:
            found = parsed(self.body)
        except ValueError:
            kind = self.headers.get("content-type", "no type")
            raise BadAnswer(f"an answer of {len(self.body)} bytes ({kind}) is not whole JSON.") from None
        if not isinstance(found, dict):
            raise BadAnswer(f"an answer is a JSON {type(found).__name__}, where an object is due.")
        return found


@final
@dataclass(frozen=True, slots=True)
class Part:
    """One part of a multipart body: a text, or a file with its name and type."""

    name: str
    value: str | bytes
    file: str = ""
    mime: str = ""

    def told(self) -> tuple[str, tuple[str | None, str | bytes] | tuple[str, str | bytes, str]]:
        """As httpx wants it; a text without a file name is sent as a plain field."""
        return (self.name, (self.file, self.value, self.mime) if self.file else (None, self.value))


class Vendor(Protocol):
    """A vendor's words. Everything that waits, retries, saves, counts or hides keys is done for it."""

    @property
    def name(self) -> str: ...

    def cards(self) -> Mapping[str, Card]:
        """What it lists, by name."""
        ...

    def card(self, name: str) -> Card | None:
        """The card of a name; None where it has none such. A host may ask what it has of that name."""
        ...

    def batch(self, card: Card) -> int:
        """How many samples one request can make; more are asked for one request after the other."""
        ...

    def check(self, card: Card, request: Request) -> None:
        """Raises InvalidField where parts of a resolved request do not fit together."""
        ...

    def price(self, card: Card, request: Request) -> Price:
        """Of a resolved request. Raises PriceUnknown."""
        ...

    async def submit(self, wire: "Wire", card: Card, request: Request) -> Answer:
        """Sends it: the one call that costs, through `wire.pay` or `wire.events`. Raises ProviderError."""
        ...

    async def poll(self, wire: "Wire", handle: Mapping[str, Any]) -> Answer:
        """How it stands, through `wire.ask`. Raises ProviderError."""
        ...

    async def cancel(self, wire: "Wire", handle: Mapping[str, Any]) -> bool:
        """Asks it to stop; whether there is a way to ask. Raises ProviderError."""
        ...

    def explain(self, reply: Reply) -> ProviderError:
        """What an answer that is no success means."""
        ...


def parsed(text: str | bytes) -> Any:
    """JSON as others write it, less what nobody can count with: NaN, Infinity and endless numbers are null.

    Raises ValueError, also where it is nested deeper than anybody means.
    """

    def finite(number: str) -> float | None:
        found = float(number)
        return found if math.isfinite(found) else None

    def whole(number: str) -> int | None:
        return int(number) if len(number) <= LONGEST_NUMBER else None

    try:
        return json.loads(text, parse_float=finite, parse_int=whole, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def check_medium(reply: Reply) -> None:
    """Raises BadAnswer where a page or a text came in place of a medium."""
    kind = reply.headers.get("content-type", "")
    if kind.startswith(("text/", "application/xhtml")):
        raise BadAnswer(f"an answer of {len(reply.body)} bytes is {kind}, where a medium is due.")


def explained(
    title: str, reply: Reply, words: str, *, refused: bool = False, credit: bool = False, key: str = ""
) -> ProviderError:
    """The error of a status, with the vendor's own words; refused, credit: where those say more than the status.

    key: where a key is made.
    """
    told = " ".join(words.split())[:LONGEST] or f"no words, {len(reply.body)} bytes"
    said = f"{title} answered {reply.status}: {told}"
    if refused:
        return Refused(f"{title} refuses it by its rules: {told}")
    if credit or reply.status == 402:
        return OutOfCredit(f"{said}. The account there has no credit or quota left.")
    match reply.status:
        case 401:
            return KeyRefused(f"{said}. The key is not taken: see triptych doctor." + (f" Keys: {key}" if key else ""))
        case 403:
            return KeyRefused(f"{said}. The key may not do this, or the account may not.")
        case 404 | 410:
            return ProviderError(f"{said}. The model or the job is no longer there.")
        case 429:
            return RateLimited(f"{said}. Wait a little, or ask for less at once.")
        case _:
            return ProviderError(f"{said}.")


def complaint(one: Any) -> str:
    """One of the {loc, msg} by which an interface says what is wrong with a body: where, and what."""
    if not isinstance(one, dict):
        return str(one)
    where = one.get("loc")
    names = [str(name) for name in where if name != "body"] if isinstance(where, list) else []
    return f"{'.'.join(names)}: {one.get('msg', one)}".removeprefix(": ")


def state_of(vendor: str, word: str, known: Mapping[str, TicketState]) -> TicketState:
    """The state that a vendor's word stands for; a word that nobody knows yet means: still at it."""
    found = known.get(word)
    if found is None:
        LOG.warning("%s: unknown status %r, taken for running", vendor, word)
        return "running"
    return found


def decoded(text: str) -> Data:
    """Base64, with or without `data:...;base64,` before it. Raises BadAnswer where it is cut or is none."""
    plain = text.partition(",")[2] if text.startswith("data:") else text
    try:
        return Data(base64.b64decode(plain, validate=True))
    except (binascii.Error, ValueError):
        raise BadAnswer(f"a result of {len(text)} characters is not whole base64.") from None


def encoded(artifact: Artifact, *, url: bool = False) -> str:
    """Base64 of a file; url: as a data URL."""
    plain = base64.b64encode(artifact.data).decode()
    return f"data:{artifact.mime};base64,{plain}" if url else plain
