"""Sums over lines of the ledger: by model, day, project or provider, each with who says so."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from math import fsum
from typing import Final, Literal, final

from triptych.service.budgets import SMALLEST
from triptych.service.ledger import Line

__all__ = ["BY", "PARTS", "By", "Sum", "filled", "sums", "total"]

By = Literal["model", "day", "project", "provider"]
BY: Final[tuple[By, ...]] = ("model", "day", "project", "provider")
PARTS: Final = ("usage", "list", "estimate", "electricity", "reserved", "in_doubt")  # the first four are spent
SPENT: Final = PARTS[:4]


@final
@dataclass(frozen=True, slots=True)
class Sum:
    """US dollars of some calls. parts: by PARTS, those that there are. unknown: how many of the calls have no bound."""

    name: str
    calls: int = 0
    parts: dict[str, float] = field(default_factory=dict)
    unknown: int = 0

    @property
    def spent(self) -> float:
        return _exact(self.parts.get(part, 0.0) for part in SPENT)

    @property
    def total(self) -> float:
        """What is spent, and the most that what is reserved or in doubt may come to."""
        return _exact(self.parts.values())


def sums(lines: Iterable[Line], by: By) -> list[Sum]:
    """Days in their order, everything else by what it comes to, the dearest first. What was released is in none."""
    grouped: dict[str, list[Line]] = {}
    for line in lines:
        if line.state != "released":
            grouped.setdefault(_name(line, by), []).append(line)
    found = [total(group, name) for name, group in grouped.items()]
    return sorted(found, key=lambda one: (one.name,) if by == "day" else (-one.total, one.name))


def total(lines: Iterable[Line], name: str = "all") -> Sum:
    """Of all of them but those that were released."""
    parts: dict[str, list[float]] = {}
    counted = [line for line in lines if line.state != "released"]
    for line in counted:
        if line.most is not None:
            parts.setdefault(_part(line), []).append(line.most)
    known: dict[str, float] = {part: _exact(parts[part]) for part in PARTS if part in parts}
    return Sum(name, len(counted), known, sum(line.most is None for line in counted))


def filled(days: Sequence[Sum]) -> list[Sum]:
    """Sums by day with the days between that have none, for a picture in which time runs evenly."""
    if not days:
        return []
    first, last = date.fromisoformat(days[0].name), date.fromisoformat(days[-1].name)
    known = {one.name: one for one in days}
    names = ((first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1))
    return [known.get(name, Sum(name)) for name in names]


def _name(line: Line, by: By) -> str:
    match by:
        case "day":
            return line.began.astimezone().date().isoformat()
        case "model":
            return line.call.model
        case "project":
            return line.call.project or "(none)"
        case _:
            return line.call.provider


def _exact(amounts: Iterable[float]) -> float:
    """The sum of what are whole billionths, as near as a float comes to it."""
    return round(fsum(amounts), SMALLEST)


def _part(line: Line) -> str:
    if line.cost is not None and line.source is not None:
        return line.source
    return "reserved" if line.state == "reserved" else "in_doubt"
