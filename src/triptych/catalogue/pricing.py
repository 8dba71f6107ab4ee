"""What a request costs by a price list: rows that apply, times what is counted. And what a list says, in words."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any

from triptych.catalogue.entries import PriceRow
from triptych.errors import PriceUnknown
from triptych.types import Price, Request, dollars

__all__ = ["applies", "counted", "listed", "several", "shown"]

MEGAPIXEL = 2**20  # pixels: 1024 x 1024 is one
MEASURED = "million_tokens"  # which only the answer tells
BESIDE = ("input_image", "thousand_characters", "further_megapixel")  # what comes on top of what is made


def listed(rows: Sequence[PriceRow], request: Request) -> Price:
    """The price of a resolved request by these rows. Raises PriceUnknown where none says what the thing costs."""
    fitting = [row for row in rows if row.per != MEASURED and applies(row, request)]
    if all(row.per in BESIDE for row in fitting):
        raise PriceUnknown(request.model, "no line of the price list in the catalogue fits this request")
    total = Price()
    for row in _closest(fitting):
        total += _of(row) * counted(row.per, request)
    return total


def applies(row: PriceRow, request: Request) -> bool:
    """Whether the request is as the row says: every field that it names has its value, or one of them."""
    return all(_value(name, request) in several(wanted) for name, wanted in row.when.items())


def counted(per: str, request: Request) -> float:
    """How many of a unit a resolved request asks for. Raises PriceUnknown where it does not say how large or long."""
    match per:
        case "second":
            if request.duration is None:
                raise PriceUnknown(request.model, "it is billed by the second, and how long it will be is not said")
            return request.count * request.duration
        case "megapixel":
            return request.count * _megapixels(request)
        case "further_megapixel":
            return request.count * (_megapixels(request) - 1)
        case "input_image":
            return request.count * len(request.inputs.keys() - {"mask"})
        case "thousand_characters":
            return request.count * len(request.prompt) / 1000
        case _:
            return request.count


def shown(rows: Sequence[PriceRow]) -> str:
    """What a list says at a glance: from the least to the most of each unit; "" where nothing is known."""
    parts = [_glance(per, [row for row in rows if row.per == per]) for per in dict.fromkeys(row.per for row in rows)]
    return " + ".join(filter(None, parts)) or _tokens(rows)


def _glance(per: str, rows: Sequence[PriceRow]) -> str:
    if per in (MEASURED, "input_image", "thousand_characters"):
        return ""
    prices = [_of(row) for row in rows]
    least = min(price.most if price.least is None else price.least for price in prices)
    most = max(price.most for price in prices)
    return f"{dollars(least)}{f' to {dollars(most)}' if most > least else ''} {_article(per)} {per.replace('_', ' ')}"


def _tokens(rows: Sequence[PriceRow]) -> str:
    """Of what is billed by tokens alone: the dearest kind."""
    most = max((row.dollars or 0.0 for row in rows if row.per == MEASURED), default=0.0)
    return f"up to {dollars(most)} a million tokens" if most else ""


def _megapixels(request: Request) -> int:
    if request.width is None or request.height is None:
        raise PriceUnknown(request.model, "it is billed by the megapixel, and how large it will be is not said")
    return ceil(request.width * request.height / MEGAPIXEL)


def _article(per: str) -> str:
    return "an" if per[0] in "aeio" else "a"


def _closest(rows: Sequence[PriceRow]) -> list[PriceRow]:
    """Of each unit the row that says most of the request."""
    found: dict[str, PriceRow] = {}
    for row in rows:
        if row.per not in found or len(row.when) > len(found[row.per].when):
            found[row.per] = row
    return list(found.values())


def _of(row: PriceRow) -> Price:
    if row.dollars is not None:
        return Price(row.dollars, why=row.why)
    return Price(row.most or 0.0, row.least, row.why)


def several(wanted: Any) -> list[Any]:
    """A condition of a row as the values that it allows."""
    return wanted if isinstance(wanted, list) else [wanted]


def _value(name: str, request: Request) -> Any:
    plain: Mapping[str, Any] = {"width": request.width, "height": request.height, "duration": request.duration}
    told = plain[name] if name in plain else request.options.get(name)
    return "" if told is None else told
