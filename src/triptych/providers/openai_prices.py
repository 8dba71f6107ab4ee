"""What a picture of OpenAI's costs: before, by how many tokens its size and quality take; after, by the usage told.

GPT Image 2 and later bill tokens of the picture that is made,

    ceil(f g (2,000,000 + width height) / 4,000,000),    g = the nearest whole number to f short / long,

where f is 16 to 96 by quality: OpenAI's own calculator, as community.openai.com/t/1382699 has read it out of that page.
"""

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

from triptych.catalogue.pricing import applies, counted
from triptych.errors import PriceUnknown
from triptych.providers.wire import tables
from triptych.types import Card, Price, Request

__all__ = ["cost", "price", "tokens"]

PREVIEW = 100  # tokens of each
EXTREMES = ((1408, 480), (2880, 2880))  # the sizes that take the fewest and the most
BESIDE = ("thousand_characters", "input_image")
KINDS = (("text", "text_in", "text_cached"), ("image", "image_in", "image_cached"))
MILLION = 1e6
LEFT_OPEN = "billed by tokens: what is left to the model, and previews that may not come"
OFTEN_MORE = "billed by tokens, of which it was seen to take up to 4.2 times what OpenAI's calculator says of 2.5"
REMIXED = (4.0, 12.0)  # seconds that a clip may have


def price(card: Card, request: Request) -> Price:
    """Of a resolved request. Raises PriceUnknown."""
    if "remix" in request.options:
        return _remixed(card) * request.count
    if request.options.get("size") == "auto":
        request = replace(request, width=None, height=None)
    out = _rates(card).get("image_out")
    if "tokens" not in card.settings or out is None:
        return tables.list_price(card, request)
    least, most = _range(card, request)
    most += PREVIEW * request.options.get("partial_images", 0)  # which need not all come
    why = "" if least == most else OFTEN_MORE if "spread" in card.settings else LEFT_OPEN
    made = Price(most * out / MILLION, least * out / MILLION, why)
    return made * request.count + _beside(card, request)


def cost(card: Card, usage: Any) -> float | None:
    """US dollars of what an answer says that it took; None where it does not say, or the price of it is not known."""
    rates = _rates(card)
    if not isinstance(usage, dict) or not {"text_in", "image_in", "image_out"} <= rates.keys():
        return None
    told, made = usage.get("input_tokens_details"), usage.get("output_tokens_details")
    if not isinstance(told, dict):
        return None
    total = _out(rates, usage, made if isinstance(made, dict) else {})
    cached = told.get("cached_tokens_details")
    again = cached if isinstance(cached, dict) else {"text_tokens": _count(told, "cached_tokens")}
    for word, fresh, kept in KINDS:
        number = _count(told, f"{word}_tokens")
        known = min(_count(again, f"{word}_tokens"), number)
        total += (number - known) * rates[fresh] + known * rates.get(kept, rates[fresh])
    return total / MILLION if total else None


def tokens(fineness: int, width: int, height: int) -> int:
    """Of a picture of this size in pixels. fineness: 16 to 96."""
    long, short = max(width, height), min(width, height)
    other = (2 * fineness * short + long) // (2 * long)
    return -(-fineness * other * (2_000_000 + width * height) // 4_000_000)


def _range(card: Card, request: Request) -> tuple[float, float]:
    """The fewest and the most tokens of one picture, over all that is left to the model."""
    levels: Mapping[str, int] = card.settings["tokens"]
    spread: Mapping[str, float] = card.settings.get("spread", {})
    quality = request.options.get("quality", "auto")
    chosen = levels if quality == "auto" else {quality: levels[quality]}
    given = (request.width, request.height)
    sizes = EXTREMES if None in given else (given,)
    found = [(tokens(levels[name], *size), spread.get(name, 1.0)) for name, size in product(chosen, sizes)]  # type: ignore[arg-type]  # no None in it
    return min(count / min(times, 1.05) for count, times in found), max(count * times for count, times in found)


def _beside(card: Card, request: Request) -> Price:
    """Of the prompt and the pictures that come along."""
    known, total = tables.entry(card), Price()
    for row in known.prices if known else ():
        times = counted(row.per, request) if row.per in BESIDE and applies(row, request) else 0
        if times:
            most = row.most if row.dollars is None else row.dollars
            total += Price(most or 0.0, row.least, row.why) * times
    return total


def _remixed(card: Card) -> Price:
    """A clip that is made anew is as long and large as the one it was, which only OpenAI knows."""
    known = tables.entry(card)
    rates = [row.dollars for row in known.prices if row.per == "second" and row.dollars] if known else []
    if not rates:
        raise PriceUnknown(card.name, "no source for its price was found")
    least, most = REMIXED
    return Price(most * max(rates), least * min(rates), "as long and large as the clip that is made anew")


def _rates(card: Card) -> Mapping[str, float]:
    """US dollars a million tokens, by kind."""
    known = tables.entry(card)
    rows = known.prices if known else ()
    return {str(row.when.get("kind")): row.dollars for row in rows if row.per == "million_tokens" and row.dollars}


def _out(rates: Mapping[str, float], usage: Mapping[str, Any], made: Mapping[str, Any]) -> float:
    """Dollars times a million of what was made; words among it by their own price, or the picture's."""
    words = min(_count(made, "text_tokens"), _count(usage, "output_tokens"))
    return (_count(usage, "output_tokens") - words) * rates["image_out"] + words * rates.get(
        "text_out", rates["image_out"]
    )


def _count(told: Mapping[str, Any], name: str) -> int:
    found = told.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) and found > 0 else 0
