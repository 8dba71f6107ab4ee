"""What lists that others keep say of our models, and what in it is new: reading and comparing, no network.

OpenAI's and Google's own lists of models say what there is (OpenAI's also when it ends); the public price map of
LiteLLM says what much of it costs. Of the map Stability's edits are left out: they are ten times too low in it.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, final

from triptych.catalogue.entries import Entry
from triptych.catalogue.kept import Found, figures
from triptych.catalogue.names import key
from triptych.types import dollars

__all__ = ["VENDORS", "Change", "joined", "listed", "models", "priced"]

VENDORS: Mapping[str, str] = {  # whose own list is asked, and which of its models make what we make
    "openai": r"image|dall-e|sora|video",
    "google": r"image|imagen|veo|lyria|omni|banana",
}
SNAPSHOT = re.compile(r"-\d{4}-\d{2}-\d{2}$")
MILLION = 1_000_000
NOISE = 0.01  # a figure that differs by less was rounded
UNITS = (  # of the map, by what stands in an entry's price list
    (re.compile(r"output_cost_per_image(?:_(\d[\w.]*K))?"), "image", 1),
    (re.compile(r"output_cost_per_second(?:_(\d+[pk]))?"), "second", 1),
    (re.compile(r"output_cost_per_video_per_second()"), "second", 1),
    (re.compile(r"output_cost_per_pixel()"), "megapixel", 2**20),
    (re.compile(r"input_cost_per_token()"), "million_tokens@text_in", MILLION),
    (re.compile(r"input_cost_per_image_token()"), "million_tokens@image_in", MILLION),
    (re.compile(r"output_cost_per_image_token()"), "million_tokens@image_out", MILLION),
    (re.compile(r"output_cost_per_video_token()"), "million_tokens@video_out", MILLION),
)


@final
@dataclass(frozen=True, slots=True)
class Change:
    """What differs from what was known. what: "new", "missing", "ends", "alive" or a figure of the price list."""

    model: str
    what: str
    before: str
    now: str

    def __str__(self) -> str:
        match self.what:
            case "new":
                return f"{self.model}: new in the list of {self.now}; nothing else is known of it yet"
            case "missing":
                return f"{self.model}: not in the list of {self.now}, which shows what your key may use"
            case "alive":
                return f"{self.model}: {self.before} before, and in the list of {self.now} again"
            case "ends":
                return f"{self.model}: shut down on {self.now} ({self.before or 'no date'} before)"
            case _:
                figure = self.what.replace("_", " ").replace("@", ", ")
                return f"{self.model}: {figure} {self.now} ({self.before} before)"


def models(vendor: str, answers: Sequence[Mapping[str, Any]]) -> dict[str, date | None]:
    """The media models in a vendor's own list, by id, with the day on which each ends where that is told.

    answers: JSON objects, one a page. Raises KeyError, TypeError, ValueError where they are no such list.
    """
    wanted = re.compile(VENDORS[vendor])
    found: dict[str, date | None] = {}
    for answer in answers:
        for entry in answer["data" if vendor == "openai" else "models"]:
            name = str(entry["id"] if vendor == "openai" else entry["name"]).removeprefix("models/")
            if wanted.search(name):
                found[name] = _day(entry.get("shutdown_date"))
    if not found:
        raise ValueError("a list without a single model that makes pictures, clips or sounds")
    return found


def listed(
    vendor: str, seen: Mapping[str, date | None], known: Mapping[str, Entry], today: date
) -> tuple[dict[str, Found], list[Change]]:
    """What a vendor's list says of what is known, by model; and what is new in it."""
    mine = {key(entry.id or entry.name): entry for entry in known.values() if entry.provider == vendor}
    found: dict[str, Found] = {}
    changes: list[Change] = []
    for name, ends in seen.items():
        entry = mine.pop(key(name), None)
        if entry is not None:
            found[entry.name] = Found(listed=today, ends=ends, list_source=f"{vendor}'s own list of models")
            changes += _lived(entry, ends, vendor, today)
        elif not SNAPSHOT.search(name):
            changes.append(Change(name, "new", "", vendor))
    gone = [entry for entry in mine.values() if entry.lifecycle.state_on(today) in ("active", "deprecated")]
    return found, changes + [Change(entry.name, "missing", "", vendor) for entry in gone]


def priced(
    prices: Mapping[str, Any], known: Mapping[str, Entry], today: date, source: str
) -> tuple[dict[str, Found], list[Change]]:
    """What the price map says of what is known, by model; and which figures differ. Raises ValueError."""
    found: dict[str, Found] = {}
    changes: list[Change] = []
    for entry in known.values():
        told = _figures(prices, entry)
        mine = figures(entry.prices)
        same = {name: amount for name, amount in told.items() if name in mine}
        if not same:
            continue
        for name, amount in same.items():
            before = entry.prices[mine[name]].dollars or 0.0
            if abs(amount - before) > NOISE * max(amount, before):
                changes.append(Change(entry.name, name, dollars(before), dollars(amount)))
            else:
                same[name] = before
        found[entry.name] = Found(priced=today, prices=same, price_source=source)
    if not found:
        raise ValueError("a price map without a single model that is known here")
    return found, changes


def joined(earlier: Mapping[str, Found], later: Mapping[str, Found]) -> dict[str, Found]:
    """What both say, by model."""
    return {name: earlier.get(name, Found()) | later.get(name, Found()) for name in [*earlier, *later]}


def _lived(entry: Entry, ends: date | None, vendor: str, today: date) -> Iterator[Change]:
    life = entry.lifecycle
    if ends is not None:
        if ends != life.ends:
            yield Change(entry.name, "ends", str(life.ends or ""), str(ends))
    elif life.state_on(today) not in ("active", "deprecated"):
        yield Change(entry.name, "alive", life.state_on(today).replace("_", " "), vendor)


def _figures(prices: Mapping[str, Any], entry: Entry) -> dict[str, float]:
    """What the map has of an entry, in the units of its price list."""
    line: Mapping[str, Any] = next((prices[name] for name in _keys(entry) if isinstance(prices.get(name), dict)), {})
    if line.get("mode") == "image_edit" and entry.provider == "stability":
        return {}
    made = next((row.per for row in entry.prices if row.per in ("song", "clip")), "image")
    found: dict[str, float] = {}
    for field, amount in line.items():
        for pattern, unit, times in UNITS:
            match = pattern.fullmatch(field)
            if match is not None and isinstance(amount, int | float) and amount > 0:
                name = made if unit == "image" else unit
                found[f"{name}@{match[1]}" if match[1] else name] = round(float(amount) * times, 6)
    return found


def _keys(entry: Entry) -> Iterator[str]:
    """What the map calls it: of Google first what Vertex AI asks, whose lines name one size."""
    path = entry.id or entry.name
    match entry.provider:
        case "openai":
            yield path
        case "google" | "vertex":
            yield from (f"vertex_ai/{path}", f"gemini/{path}", path)
        case "bfl":
            yield f"black_forest_labs/{path}"
        case "stability":
            yield f"stability/{path}"
        case "fal":
            yield f"fal_ai/{path}"
        case "replicate":
            yield f"replicate/{path}"


def _day(told: Any) -> date | None:
    """A day as ISO text or as seconds since 1970. Raises ValueError."""
    if told in (None, ""):
        return None
    if isinstance(told, int | float):
        return datetime.fromtimestamp(told, UTC).date()
    return date.fromisoformat(str(told)[:10])
