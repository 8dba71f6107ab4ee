"""What a card says and what the catalogue knows of a model, as one line, as plain data, and as all of it."""

import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, final

from triptych.catalogue import Entry, alive, entries, stale, successors, warning
from triptych.catalogue.entries import PACKAGE
from triptych.catalogue.lifecycle import priced
from triptych.catalogue.pricing import shown
from triptych.types import Card, Field, dollars

__all__ = ["Line", "details", "lines", "plain", "table"]

HEAD = ("name", "makes", "where", "state", "price", "licence", "what")
NAME = 30  # characters of the first column; a longer name has a line of its own
LEAST = 24  # characters of the last column, below which others give way
YIELDING = (5, 4, 2)  # columns that go first where the screen is narrow
SHORT = {"shut_down": "gone", "no_public_api": "no public API", "unknown": "not certain"}


@final
@dataclass(frozen=True, slots=True)
class Line:
    """One model. card: where it can be asked for; entry: where the catalogue knows it."""

    name: str
    card: Card | None
    entry: Entry | None

    @property
    def media(self) -> tuple[str, ...]:
        return (self.card.media,) if self.card else self.entry.makes if self.entry else ()

    @property
    def licence(self) -> str:
        return self.card.license if self.card else self.entry.weights_licence if self.entry else ""

    @property
    def summary(self) -> str:
        return self.card.summary if self.card else self.entry.summary if self.entry else ""

    @property
    def family(self) -> str:
        return self.card.family if self.card else self.entry.family if self.entry else ""

    @property
    def provider(self) -> str:
        """Of a card that the catalogue does not know, too: a vendor's has the vendor for its family."""
        if self.entry is not None:
            return self.entry.provider
        return self.family if (PACKAGE / "providers" / f"{self.family}.toml").exists() else "local"

    def alive(self, today: date) -> bool:
        return self.entry is None or alive(self.entry, today)

    def old(self, today: date) -> bool:
        """Whether what is known of it was checked long ago."""
        return self.entry is not None and stale(self.entry, today) != ""

    def state(self, today: date) -> str:
        """In a word or two."""
        if self.entry is None:
            return "active"
        life = self.entry.lifecycle
        state = life.state_on(today)
        if state == "deprecated":
            return f"ends {life.ends}" if life.ends else "will end"
        if state == "active" and not self.entry.provider:
            return "not here yet"
        return (
            f"{SHORT.get(state, state)} {life.ends or ''}".strip() if state == "shut_down" else SHORT.get(state, state)
        )


def lines(cards: Mapping[str, Card]) -> list[Line]:
    """Every model that has a card or an entry: those that run here first, as the files have them."""
    known = entries()
    found = [Line(name, cards.get(name), entry) for name, entry in known.items() if entry.local]
    found += [Line(name, card, None) for name, card in cards.items() if name not in known]
    return [*found, *(Line(name, cards.get(name), entry) for name, entry in known.items() if not entry.local)]


def table(shown_lines: Sequence[Line], today: date) -> str:
    """A row a model, as wide as the screen; all of it where no screen is."""
    rows = [HEAD, *(_row(line, today) for line in shown_lines)]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    widths = [max(len(row[place]) for row in rows) for place in range(len(HEAD) - 1)]
    widths[0] = min(widths[0], NAME)
    kept = list(range(len(HEAD)))
    for place in YIELDING:
        if width and _taken(widths, kept) + LEAST > width:
            kept.remove(place)
    room = max(width - _taken(widths, kept), LEAST) if width else 0
    return "\n".join(text for row in rows for text in _laid(row, widths, kept, room))


def plain(line: Line, today: date) -> dict[str, Any]:
    """For --json."""
    card, entry = line.card, line.entry
    axes = {axis.name: {"default": axis.default, "allowed": axis.allowed()} for axis in card.axes} if card else {}
    told = {
        "name": line.name,
        "family": line.family,
        "medium": line.media[0] if line.media else "",
        "license": line.licence,
        "summary": line.summary,
        "axes": axes,
        "fields": {name: _field(field) for name, field in card.fields.items()} if card else {},
        "card": card is not None,
        "alive": line.alive(today),
    }
    return told | (_known(entry, today) if entry else {"provider": line.provider})


def details(line: Line, today: date) -> Iterator[tuple[str, str]]:
    """What the catalogue knows, a line a fact; nothing where it knows nothing."""
    entry = line.entry
    if entry is None:
        return
    yield "is", f"{entry.title}, of {entry.vendor}" + (f"; there it is called {entry.id}" if entry.id else "")
    yield "runs", _runs(entry)
    yield "state", _state(line, entry, today)
    for name, sentence in (("note", warning(entry, today) or entry.lifecycle.note), ("old", stale(entry, today))):
        if sentence:
            yield name, sentence
    if not alive(entry, today):
        yield "instead", ", ".join(f"{one.name} ({priced(one)})" for one in successors(entry, today)) or "nothing known"
    yield from _costs(entry)
    yield "licence", f"weights {entry.weights_licence}; outputs: {entry.outputs_licence}"
    yield "takes", f"{', '.join(entry.takes)}; makes {', '.join(entry.makes)}"
    yield from _nature(entry)


def _runs(entry: Entry) -> str:
    if entry.local:
        return "on this machine"
    return f"by {entry.provider}" if entry.provider else "nowhere that can be asked here"


def _state(line: Line, entry: Entry, today: date) -> str:
    life = entry.lifecycle
    since = f", since {life.since}" if life.since else ""
    return f"{line.state(today)}{since} (source: {life.source}, checked {life.checked})"


def _costs(entry: Entry) -> Iterator[tuple[str, str]]:
    if entry.local:
        yield "costs", "electricity"
        return
    if not entry.prices:
        yield "costs", "no source for its price was found"
    for row in entry.prices:
        amount = (
            dollars(row.dollars)
            if row.dollars is not None
            else f"{dollars(row.least or 0)} to {dollars(row.most or 0)}"
        )
        where = "; ".join(f"{name} {_values(value)}" for name, value in row.when.items())
        told = f"{amount} per {row.per.replace('_', ' ')}{f', {where}' if where else ''}"
        yield "costs", f"{told}{f': {row.why}' if row.why else ''} (source: {row.source}, checked {row.checked})"


def _values(value: Any) -> str:
    several = value if isinstance(value, list) else [value]
    return " or ".join("not said" if one == "" else str(one) for one in several)


def _nature(entry: Entry) -> Iterator[tuple[str, str]]:
    numbers = f"{entry.parameters:g} billion numbers" if entry.parameters and entry.parameters >= 0.1 else ""
    if entry.parameters and not numbers:
        numbers = f"{entry.parameters * 1000:g} million numbers"
    told = {
        "text encoder": entry.text_encoder,
        "network": ", ".join(filter(None, (entry.network, numbers))),
        "path": ", ".join(filter(None, (entry.path, f"foretells {entry.target}" if entry.target else ""))),
        "can": ", ".join(one.replace("_", " ") for one in entry.abilities),
        "good at": ", ".join(f"{name.replace('_', ' ')} {grade}/5" for name, grade in entry.good_at.items()),
        "strong": "; ".join(entry.strengths),
        "weak": "; ".join(entry.weaknesses),
        "up to": ", ".join(filter(None, (_pixels(entry), f"{entry.longest:g} s" if entry.longest else ""))),
        "also called": ", ".join(entry.aliases),
        "source": entry.source,
    }
    yield from ((name, text) for name, text in told.items() if text)


def _pixels(entry: Entry) -> str:
    return "{} x {} pixels".format(*entry.largest) if entry.largest else ""


def _row(line: Line, today: date) -> tuple[str, ...]:
    price = "electricity" if line.provider == "local" else shown(line.entry.prices) if line.entry else ""
    where = {"local": "here", "": "nowhere"}.get(line.provider, line.provider)
    return (
        line.name,
        ", ".join(line.media),
        where,
        line.state(today),
        price or "not known",
        line.licence,
        line.summary,
    )


def _taken(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[place] + 2 for place in kept[:-1])


def _laid(row: Sequence[str], widths: Sequence[int], kept: Sequence[int], room: int) -> Iterator[str]:
    """One line, or two where the name is long. room: characters of the last column; 0: as many as there are."""
    first, last = row[0], row[-1]
    if len(first) > widths[0]:
        yield first
        first = ""
    cut = f"{last[: room - 3]}..." if room and len(last) > room else last
    cells = [first.ljust(widths[0]), *(row[place].ljust(widths[place]) for place in kept[1:-1]), cut]
    yield "  ".join(cells).rstrip()


def _known(entry: Entry, today: date) -> dict[str, Any]:
    """All that the catalogue knows, days as text."""
    told = asdict(entry)
    life = told.pop("lifecycle")
    state = {"state": entry.lifecycle.state_on(today), "closest": [one.name for one in successors(entry, today)]}
    for name in ("name", "family", "summary"):
        told.pop(name)
    prices = [
        {name: _text(value) for name, value in row.items() if value not in (None, "")} for row in told.pop("prices")
    ]
    lifecycle = {name: _text(value) for name, value in life.items()} | state
    return {
        **told,
        "lifecycle": lifecycle,
        "prices": prices,
        "price": shown(entry.prices),
        "stale": stale(entry, today),
    }


def _text(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value


def _field(field: Field) -> dict[str, Any]:
    return {"kind": field.kind, "default": field.default, "allowed": field.allowed(), "help": field.help}
