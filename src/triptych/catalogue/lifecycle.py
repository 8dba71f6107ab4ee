"""Whether a model can still be asked, what there is in place of one that cannot, and how old that knowledge is."""

from collections.abc import Callable, Iterator, Mapping
from datetime import date

from triptych.cards import table
from triptych.catalogue.entries import PACKAGE, Entry
from triptych.catalogue.known import entries
from triptych.catalogue.pricing import shown
from triptych.errors import Gone

__all__ = ["alive", "refuse", "stale", "successors", "warning", "why"]

MOST = 3  # successors in a sentence
DAYS = 60  # after which facts are old


def priced(entry: Entry) -> str:
    """What it costs by its list, for a sentence."""
    return "free, on this machine" if entry.local else shown(entry.prices) or "price not known"


def alive(entry: Entry, today: date) -> bool:
    """Whether somebody runs it and it is not known to be over."""
    return entry.provider != "" and entry.lifecycle.state_on(today) in ("active", "deprecated", "unknown")


def refuse(entry: Entry, today: date, price: Callable[[Entry], str] = priced) -> None:
    """Raises Gone where nobody can be asked for it, with what there is in its place; price: what a successor costs."""
    if alive(entry, today):
        return
    told = [f"{entry.title} {why(entry, today)}."]
    if entry.lifecycle.note:
        told.append(entry.lifecycle.note)
    closest = [f"{one.name} ({price(one)})" for one in successors(entry, today)[:MOST]]
    if closest:
        told.append(f"Closest today: {', '.join(closest)}.")
    ways = ["run it with --successor"] if closest else []
    if entry.provider:
        ways.append(f"set a base URL of a gateway that still serves it ({_places(entry.provider)})")
    if ways:
        way = ", or ".join(ways)
        told.append(f"{way[0].upper()}{way[1:]}.")
    raise Gone(" ".join(told))


def successors(entry: Entry, today: date, known: Mapping[str, Entry] | None = None) -> tuple[Entry, ...]:
    """Those that can be asked today, the closest first; of one that is itself gone, its own."""
    found = _following(entry, today, entries() if known is None else known, {entry.name})
    certain = sorted(found, key=lambda one: one.lifecycle.state_on(today) != "active")
    return tuple(certain)


def warning(entry: Entry, today: date) -> str:
    """A sentence where it will end, or where that is in doubt; else ""."""
    life = entry.lifecycle
    state = life.state_on(today)
    if state == "unknown" and entry.provider:
        return f"whether {entry.title} can still be asked is not certain. {life.note}".strip()
    if state != "deprecated":
        return ""
    when = f" on {life.ends} (in {(life.ends - today).days} days)" if life.ends else ""
    closest = [one.name for one in successors(entry, today)[:MOST]]
    instead = f" Closest that stays: {', '.join(closest)}." if closest else ""
    return " ".join(filter(None, [f"{entry.title} will be shut down{when}.{instead}", life.note]))


def stale(entry: Entry, today: date, days: int = DAYS) -> str:
    """A sentence where what is known of it was checked longer ago than that; else ""."""
    if entry.local:  # what lies here does not change
        return ""
    checked = min([entry.lifecycle.checked, *(row.checked for row in entry.prices)])
    age = (today - checked).days
    if age <= days:
        return ""
    return (
        f"last checked on {checked}, {age} days ago: prices and dates may have changed. See: triptych models --refresh"
    )


def why(entry: Entry, today: date) -> str:
    """Why it is not alive, as the rest of a sentence about it."""
    match entry.lifecycle.state_on(today):
        case "shut_down":
            return f"was shut down on {entry.lifecycle.ends}" if entry.lifecycle.ends else "was shut down"
        case "no_public_api":
            return f"has no public API (checked on {entry.lifecycle.checked})"
        case _:
            return "is run by nobody that can be asked here"


def _following(entry: Entry, today: date, known: Mapping[str, Entry], seen: set[str]) -> Iterator[Entry]:
    for name in entry.lifecycle.successors:
        if name in seen or name not in known:
            continue
        seen.add(name)
        if alive(known[name], today):
            yield known[name]
        else:
            yield from _following(known[name], today, known, seen)


def _places(provider: str) -> str:
    """Where a base URL is said, for people."""
    return ", or ".join([*_variables(provider), f"[{provider}] base_url in config.toml"])


def _variables(provider: str) -> tuple[str, ...]:
    """Environment names of another base URL, out of the vendor's table."""
    path = PACKAGE / "providers" / f"{provider}.toml"
    return tuple(table(path).get("vendor", {}).get("base_urls", ()))
