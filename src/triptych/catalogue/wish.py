"""What somebody wants made, whoever may make it, and what it would cost by a price list."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, final

from triptych.catalogue.entries import ABILITIES, Entry, PriceRow
from triptych.catalogue.pricing import applies, listed, several
from triptych.errors import InvalidField, PriceUnknown, UnknownName
from triptych.types import Artifact, Medium, Price, Request

__all__ = ["Wish", "price", "within"]

SIZE = (1024, 1024)  # pixels of a picture whose size is not said
SECONDS: Mapping[Medium, float] = {"video": 5.0, "audio": 30.0}  # of a clip or a sound whose length is not said
BROUGHT = {"reference": "reference", "edit": "init", "first_frame": "init", "control": "control"}  # ability: input
SIZED = ("image_size", "resolution")  # fields whose words stand for a size
HEIGHTS = {"hd": "720p", "fhd": "1080p"}
PLACEHOLDER = Artifact("image/png", b"")  # for a picture that a request would bring along: prices count them


@final
@dataclass(frozen=True, slots=True)
class Wish:
    """None and "": not said.

    budget: US dollars, of all `count`; max_seconds: to wait for one; size: pixels, width and height; duration: seconds
    of a clip or a sound; needs: of ABILITIES; inputs: what is brought along (init, reference, ...); commercial: whether
    what is made is to be sold; usable_only: whether it must be possible now, with the keys and weights there are.

    Raises UnknownName, InvalidField.
    """

    prompt: str = ""
    kind: Medium | None = None
    budget: float | None = None
    local_only: bool = False
    commercial: bool = False
    max_seconds: float | None = None
    size: tuple[int, int] | None = None
    duration: float | None = None
    count: int = 1
    needs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    usable_only: bool = False

    def __post_init__(self) -> None:
        for need in self.needs:
            if need not in ABILITIES:
                raise UnknownName("need", need, ABILITIES)
        bounds = {"budget": self.budget, "max_seconds": self.max_seconds, "duration": self.duration}
        for name, value in bounds.items():
            if value is not None and not 0 <= value < float("inf"):
                raise InvalidField(name, value, "a number that is not below 0")
        if self.size is not None and min(self.size) < 1:
            raise InvalidField("size", "{}x{}".format(*self.size), "WxH of at least one pixel each")
        if self.count < 1:
            raise InvalidField("count", self.count, "a whole number, at least 1")

    def fit(self, medium: Medium) -> None:
        """Raises InvalidField where it says of a medium what that does not have."""
        if medium == "audio" and self.size is not None:
            raise InvalidField("size", "{}x{}".format(*self.size), "none of a sound", "Say --kind image or video.")
        if medium == "image" and self.duration is not None:
            raise InvalidField("duration", self.duration, "none of an image", "Say --kind video or audio.")


def price(entry: Entry, wish: Wish, medium: Medium) -> Price:
    """By the list in the catalogue; from least to most where the wish leaves open what decides. Raises PriceUnknown."""
    if entry.local:
        return Price()
    if not entry.prices:
        raise PriceUnknown(entry.name, "no source for its price was found")
    request = _request(entry, wish, medium)
    try:
        return listed(entry.prices, request)
    except PriceUnknown:
        return listed(_open(entry.prices, request), request)


def within(entry: Entry, wish: Wish, medium: Medium) -> tuple[str, Price] | None:
    """An option by which it stays within the budget, as NAME=VALUE: the dearest such; None where no single one does."""
    request, found = _request(entry, wish, medium), []
    for name, word in dict.fromkeys(_words(entry, request)):
        with suppress(PriceUnknown):
            cost = listed(entry.prices, replace(request, options={**request.options, name: word}))
            found += [(cost.most, f"{name}={word}", cost)] if wish.budget is None or cost.most <= wish.budget else []
    return max(found)[1:] if found else None


def _words(entry: Entry, request: Request) -> Iterator[tuple[str, str]]:
    """Options that its price list goes by, and that the wish leaves open, each with a word that it names."""
    for row in entry.prices:
        for name, wanted in row.when.items():
            if name not in ("kind", "width", "height", "duration", *request.options):
                yield from ((name, word) for word in several(wanted) if word)


def _request(entry: Entry, wish: Wish, medium: Medium) -> Request:
    """The wish as a request to this model."""
    width, height = wish.size or (SIZE if medium == "image" else (None, None))
    duration = wish.duration
    if duration is None and medium in SECONDS:
        duration = min(SECONDS[medium], entry.longest or SECONDS[medium])
    brought = {BROUGHT[need] for need in wish.needs if need in BROUGHT} | {*entry.requires, *wish.inputs}
    mode = "i2v" if brought else "t2v"  # as lists call it
    return Request(
        model=entry.name,
        prompt=wish.prompt,
        inputs=dict.fromkeys(sorted(brought), PLACEHOLDER),
        width=width,
        height=height,
        duration=duration,
        count=wish.count,
        options={"mode": mode, **_sized(entry, wish.size)},
    )


def _sized(entry: Entry, size: tuple[int, int] | None) -> dict[str, str]:
    """The words of the price list for a size: the smallest that is large enough. Raises PriceUnknown where none is."""
    if size is None:
        return {}
    said: dict[str, str] = {}
    for name in SIZED:
        words = {word for row in entry.prices for word in several(row.when.get(name, "")) if word}
        if not words:
            continue
        enough = [(pixels, word) for word in words if (pixels := _pixels(word)) >= size[0] * size[1]]
        if not enough:
            raise PriceUnknown(entry.name, "no line of its price list is for {} x {}".format(*size))
        said[name] = min(enough)[1]
    return said


def _pixels(word: str) -> int:
    """Of a size by name: 1K is 1024 x 1024, 720p 1280 x 720, 768sq 768 x 768; 0 where it is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)(k|p|sq|)", HEIGHTS.get(word.casefold(), word.casefold()))
    if found is None:
        return 0
    number = float(found[1])
    return round({"k": (1024 * number) ** 2, "p": number**2 * 16 / 9}.get(found[2], number**2))


def _open(rows: Sequence[PriceRow], request: Request) -> list[PriceRow]:
    """One line a unit: from the least to the most of those that the request does not speak against."""
    fitting = [row for row in rows if applies(replace(row, when=_said(row, request)), request)]
    return [_spread([row for row in fitting if row.per == per]) for per in dict.fromkeys(row.per for row in fitting)]


def _said(row: PriceRow, request: Request) -> dict[str, Any]:
    """The part of a row's conditions of which the request says something."""
    told = {"width", "height", "duration", *request.options}
    return {name: wanted for name, wanted in row.when.items() if name in told}


def _spread(rows: Sequence[PriceRow]) -> PriceRow:
    least = min(_ends(row)[0] for row in rows)
    most = max(_ends(row)[1] for row in rows)
    open = ", ".join(dict.fromkeys(name for row in rows for name in row.when))
    return replace(rows[0], when={}, dollars=None, least=least, most=most, why=f"by {open}" if open else rows[0].why)


def _ends(row: PriceRow) -> tuple[float, float]:
    if row.dollars is not None:
        return row.dollars, row.dollars
    return row.least or 0.0, row.most or 0.0
