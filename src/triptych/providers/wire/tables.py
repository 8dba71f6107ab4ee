"""What a vendor's table says: how it is reached, its cards, and its prices, read without any library for the net."""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from triptych import cards as cardfiles
from triptych.catalogue import Entry, entries
from triptych.catalogue.pricing import listed
from triptych.errors import FileProblem, PriceUnknown
from triptych.providers.wire.account import Spec
from triptych.types import Card, Price, Request

__all__ = ["cards", "entry", "list_price", "spec", "usage_cost"]

HERE = Path(__file__).parent.parent


@cache
def spec(vendor: str) -> Spec:
    """How the vendor is reached. Raises FileProblem."""
    path = HERE / f"{vendor}.toml"
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))["vendor"]
        settings = {name: tuple(names) for name, names in told.pop("settings", {}).items()}
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in told.items()
        }
        return Spec(name=vendor, settings=settings, **plain)
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise FileProblem(f"{path}: the vendor's table cannot be read: {problem!r}.") from problem


@cache
def cards(vendor: str) -> Mapping[str, Card]:
    """Its cards by name. Raises FileProblem."""
    return MappingProxyType({card.name: card for card in cardfiles.read(vendor, HERE / f"{vendor}.toml")})


def entry(card: Card) -> Entry | None:
    """What the catalogue knows of a card's model."""
    return entries().get(card.name)


def list_price(card: Card, request: Request) -> Price:
    """By the price list in the catalogue. Raises PriceUnknown."""
    known = entry(card)
    if known is None or not known.prices:
        raise PriceUnknown(card.name, "no source for its price was found")
    return listed(known.prices, request)


def usage_cost(card: Card, tokens: Mapping[str, int]) -> float | None:
    """US dollars of tokens by kind (text_in, image_out, ...) as an answer tells them.

    None where nothing that was made is among them, or where a kind has no price.
    """
    known = entry(card)
    rows = {row.when.get("kind"): row.dollars for row in known.prices if row.per == "million_tokens"} if known else {}
    taken = {kind: number for kind, number in tokens.items() if number}
    rates = [rows.get(kind) for kind in taken]
    if None in rates or not any(kind.endswith("_out") for kind in taken):
        return None
    return sum(number * (rate or 0.0) for number, rate in zip(taken.values(), rates, strict=True)) / 1e6
