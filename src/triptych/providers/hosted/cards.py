"""A model that only its host knows: its card out of the host's own schema, and the host's words for a request.

What the host says of types, ranges, choices and what it requires is held against the whole body before it is sent.
Nothing is cut to fit, and a value that is the host's own default is left out.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, final

from triptych.catalogue import entries
from triptych.errors import InvalidField, UnknownName
from triptych.providers.hosted.meanings import meanings
from triptych.providers.hosted.schema import inlined, misfit
from triptych.providers.hosted.ways import Way, parts, said
from triptych.providers.wire import tables
from triptych.types import Axis, Card, Field, Medium, Price, Request

__all__ = ["Name", "Shelf", "body", "card", "check", "medium", "named", "price", "unknown"]

MOST = 16  # samples of one request here; as many requests as that takes go to the host
HIDDEN = ("sync_mode", "webhook_url", "webhook")  # how the answer comes, which is not the user's to say
PLACED = "https://example.com/file"  # stands for a file until it is sent
NAME = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*(?:/[A-Za-z0-9_][\w.-]*)+)(?::(?P<version>\w+))?(?:#(?P<told>[\w-]+))?")
MEDIA: Mapping[str, Medium] = {"image": "image", "video": "video", "audio": "audio"}
COUNT = "how many; what is more than the host makes at once is asked for in turn"


@final
@dataclass(frozen=True, slots=True)
class Name:
    """What stands behind the vendor's prefix: owner/name, :version, and after # what the host does not tell."""

    id: str
    version: str = ""
    told: str = ""


def named(name: str, vendor: str) -> Name | None:
    """A name that begins with the vendor's, in parts; None where it is none."""
    found = NAME.fullmatch(name.removeprefix(f"{vendor}:")) if name.startswith(f"{vendor}:") else None
    return None if found is None else Name(found["id"], found["version"] or "", found["told"] or "")


@final
class Shelf:
    """The cards of one host, each asked for once a process."""

    def __init__(self, vendor: str, page: str, fits: Callable[[Name], bool], ask: Callable[[str, Name], Card]) -> None:
        """page: where its models are listed; fits: whether a name can be one of its; ask: what asks the host."""
        self._vendor, self._page, self._fits, self._ask = vendor, page, fits, ask
        self.known: dict[str, Card] = {}

    def card(self, name: str) -> Card | None:
        """None where it is no name of this host. Raises UnknownName, and what asking raises."""
        parts = named(name, self._vendor)
        if parts is None or not self._fits(parts):
            if name.startswith(f"{self._vendor}:"):
                raise unknown(name, self._vendor, self._page)
            return None
        if name not in self.known:
            self.known[name] = self._ask(name, parts)
        return self.known[name]


def unknown(name: str, vendor: str, page: str) -> UnknownName:
    """Of a name that the host does not have. page: where its models are listed."""
    known = (entry.name for entry in entries().values() if entry.provider == vendor)
    return UnknownName("model", name, [*known, f"{vendor}:OWNER/NAME of any model at {page}"])


def medium(name: str, parts: Name, guessed: Medium | None) -> Medium:
    """What the model makes: as the name says after #, else as guessed. Raises InvalidField where neither does."""
    found = MEDIA.get(parts.told) if parts.told else guessed
    if found is None:
        plain = name.partition("#")[0]
        names = f"{plain}#image, {plain}#video or {plain}#audio"
        raise InvalidField("model", name, names, "What it makes is not told by its host.")
    return found


def card(
    name: str, inputs: Mapping[str, Any], root: Mapping[str, Any], media: Medium, about: Mapping[str, str], **own: Any
) -> Card:
    """inputs: the schema of the host's body, in root; about: family, license, summary; own: the vendor's settings."""
    told = inlined(inputs, root)
    properties = {host: one for host, one in told.get("properties", {}).items() if host not in HIDDEN}
    names, needed = meanings(properties, media), told.get("required", ())
    found = [
        part
        for host in sorted(properties, key=lambda one: properties[one].get("x-order", len(properties)))
        for part in parts(host, names[host], properties, media, host in needed)
    ]
    fields = {part.name: part.what for part in found if isinstance(part.what, Field)}
    fields["count"] = Field("int", 1, 1, MOST, help=COUNT)
    ways = {part.name: part.way for part in found if part.way is not None}
    settings = {"ways": ways, "schema": {**told, "properties": properties}, "batch": _batch(ways, properties), **own}
    axes = tuple(part.what for part in found if isinstance(part.what, Axis))
    return Card(name=name, media=media, axes=axes, fields=fields, settings=settings, **about)


def check(card: Card, request: Request) -> None:
    """Raises InvalidField where the body that would be sent is not as the host's schema says."""
    one = replace(request, count=min(request.count, card.settings["batch"]))  # as many as are asked for at once
    found = misfit(body(card, one, dict.fromkeys(request.inputs, PLACED)), card.settings["schema"])
    if found is None:
        return
    host, deeper = found.path[:1], found.path[1:]
    ours = next((name for name, way in _ways(card).items() if host == (way.host,)), str((*host, "request")[0]))
    where = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in deeper)
    raise InvalidField(f"{ours}{where}", found.given, found.allowed)


def body(card: Card, request: Request, urls: Mapping[str, str]) -> dict[str, Any]:
    """The host's words for a resolved request. urls: where its inputs lie. Raises InvalidField."""
    told: dict[str, Any] = {}
    needed = card.settings["schema"].get("required", ())
    for ours, way in _ways(card).items():
        value = said(ours, way, request, urls)
        if value is None or (value == way.default and way.host not in needed):
            continue
        if way.kind == "files":
            told.setdefault(way.host, []).append(value)
        else:
            told[way.host] = value
    return told


def price(card: Card, request: Request, listed: str) -> Price:
    """By the price list of a name. Raises PriceUnknown, also where the host decides how much of it there is."""
    return tables.list_price(replace(card, name=listed), request)


def _ways(card: Card) -> Mapping[str, Way]:
    found: Mapping[str, Way] = card.settings["ways"]
    return found


def _batch(ways: Mapping[str, Way], properties: Mapping[str, Mapping[str, Any]]) -> int:
    """How many samples the host makes at once."""
    if "count" not in ways:
        return 1
    return min(max(int(properties[ways["count"].host].get("maximum", 1)), 1), MOST)
