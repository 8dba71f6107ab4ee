"""What `triptych models --refresh` found, as it lies in the user's folder: over the facts that came with the package.

One JSON object: version, day, and by model what has changed since: when it ends, what it costs, that it was seen alive.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

from triptych.catalogue.entries import Entry, Lifecycle, PriceRow
from triptych.errors import FileProblem

__all__ = ["Found", "figures", "over", "plain", "read", "told"]

VERSION = 1


@final
@dataclass(frozen=True, slots=True)
class Found:
    """What lists said of one model. listed: the day on which the vendor's own list had it; ends: when it says it ends.

    priced: the day of `prices`, US dollars by figure, as `figures` names them.
    """

    listed: date | None = None
    ends: date | None = None
    list_source: str = ""
    priced: date | None = None
    prices: Mapping[str, float] = field(default_factory=dict)
    price_source: str = ""

    def __or__(self, later: "Found") -> "Found":
        """What the later one says, and of what it does not say, what this one did."""
        life = later if later.listed else self
        cost = later if later.priced else self
        return Found(life.listed, life.ends, life.list_source, cost.priced, cost.prices, cost.price_source)


def read(place: Path) -> Mapping[str, Found]:
    """By model; empty where nothing was ever found. Raises FileProblem."""
    if not place.exists():
        return {}
    try:
        return plain(json.loads(place.read_text(encoding="utf-8")))
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as problem:
        advice = "Delete it, or make it anew: triptych models --refresh"
        raise FileProblem(f"{place}: what was found of models cannot be read: {problem!r}. {advice}") from problem


def plain(kept: Mapping[str, Any]) -> dict[str, Found]:
    """Out of the JSON object. Raises KeyError, TypeError, ValueError where it is another."""
    if kept["version"] != VERSION:
        raise ValueError(f"version {kept['version']!r}, {VERSION} is read here")
    return {name: _found(entry) for name, entry in kept["models"].items()}


def told(day: date, found: Mapping[str, Found]) -> dict[str, Any]:
    """The JSON object."""
    return {"version": VERSION, "day": day.isoformat(), "models": {name: _told(one) for name, one in found.items()}}


def over(known: Mapping[str, Entry], found: Mapping[str, Found]) -> Mapping[str, Entry]:
    """The entries with what was found since; a fact that was checked later than it was found stays."""
    return MappingProxyType({name: _over(entry, found.get(name)) for name, entry in known.items()})


def figures(rows: tuple[PriceRow, ...]) -> dict[str, int]:
    """Which row stands for one plain figure of a price map: image, image@1K, second@1080p, million_tokens@image_out.

    The place of a row by its figure; a row that takes more than one field to tell, or that is a range, has none.
    """
    named: dict[str, int] = {}
    for place, row in enumerate(rows):
        if row.dollars is not None and len(row.when) < 2:
            named.setdefault(_figure(row), place)
    return named


def _figure(row: PriceRow) -> str:
    wanted = next(iter(row.when.values()), "")
    first = wanted[0] if isinstance(wanted, list) else wanted
    return f"{row.per}@{first}" if first != "" else row.per


def _over(entry: Entry, found: Found | None) -> Entry:
    if found is None:
        return entry
    rows = list(entry.prices)
    for name, place in figures(entry.prices).items():
        row = rows[place]
        if name in found.prices and found.priced is not None and found.priced >= row.checked:
            rows[place] = replace(row, dollars=found.prices[name], checked=found.priced, source=found.price_source)
    return replace(entry, lifecycle=_life(entry.lifecycle, found), prices=tuple(rows))


def _life(life: Lifecycle, found: Found) -> Lifecycle:
    """A list that has it says that it lives, and perhaps until when; an end that was told elsewhere still holds."""
    if found.listed is None or found.listed < life.checked:
        return life
    fresh = replace(life, checked=found.listed, source=found.list_source)
    if found.ends is not None:
        return replace(fresh, state="deprecated", ends=found.ends)
    if life.state_on(found.listed) == "deprecated":
        return fresh
    return fresh if life.state == "active" else replace(fresh, state="active", ends=None, note="")


DAYS = ("listed", "ends", "priced")
TEXTS = ("list_source", "price_source")


def _found(entry: Mapping[str, Any]) -> Found:
    told: dict[str, Any] = {name: date.fromisoformat(entry[name]) for name in DAYS if name in entry}
    told |= {name: str(entry[name]) for name in TEXTS if name in entry}
    return Found(**told, prices={str(name): float(amount) for name, amount in entry.get("prices", {}).items()})


def _told(one: Found) -> dict[str, Any]:
    days = {name: getattr(one, name).isoformat() for name in DAYS if getattr(one, name)}
    texts = {name: getattr(one, name) for name in TEXTS if getattr(one, name)}
    return {**days, **texts, **({"prices": dict(one.prices)} if one.prices else {})}
