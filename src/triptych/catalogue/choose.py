"""Which model for what: out of the catalogue alone, by rules that can be read and foretold (docs/choose.md).

A rule that a model breaks rules it out, with a sentence (rules.py). Those that are left are ranked by a sum of named
terms, each of which is shown (points.py).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import final

from triptych.catalogue import reading
from triptych.catalogue.entries import Entry
from triptych.catalogue.known import entries
from triptych.catalogue.points import Term, terms
from triptych.catalogue.reading import Reading
from triptych.catalogue.rules import FINAL, RULES, Case, Usable, broken
from triptych.catalogue.wish import Wish
from triptych.errors import PriceUnknown, RequestError
from triptych.types import Price, dollars

__all__ = ["Line", "Ranking", "Ruled", "Usable", "Wish", "advice", "auto", "ranked"]


@final
@dataclass(frozen=True, slots=True)
class Line:
    """A model that can make it. price: None where it is not known; missing: what it lacks to be asked now."""

    entry: Entry
    terms: tuple[Term, ...]
    price: Price | None
    missing: str = ""

    @property
    def score(self) -> float:
        return round(sum(term.points for term in self.terms), 2)

    @property
    def reasons(self) -> tuple[str, ...]:
        """One a term, with its points; first what is missing."""
        told = [f"{term.why} ({term.points:+.3g})" if term.points else term.why for term in self.terms]
        return (self.missing, *told) if self.missing else tuple(told)


@final
@dataclass(frozen=True, slots=True)
class Ruled:
    """A model that is out. broken: by every rule that it breaks, in the order of RULES, the sentence why."""

    entry: Entry
    broken: Mapping[str, str]
    line: Line  # as it would be, were it in

    @property
    def rule(self) -> str:
        return next(iter(self.broken))

    @property
    def why(self) -> str:
        return self.broken[self.rule]


@final
@dataclass(frozen=True, slots=True)
class Ranking:
    """lines: the best first; ruled: as the catalogue has them; reading: what the prompt was taken for."""

    wish: Wish
    reading: Reading
    lines: tuple[Line, ...]
    ruled: tuple[Ruled, ...]


def ranked(wish: Wish, usable: Usable, known: Mapping[str, Entry] | None = None, today: date | None = None) -> Ranking:
    """Every model of the catalogue, ranked or ruled out. known: by name; today: else the day that it is.

    Raises InvalidField where the wish says of its medium what that does not have.
    """
    told = reading.read(wish.prompt, wish.kind)
    wish.fit(told.medium)
    day = today or date.today()
    lines: list[Line] = []
    ruled: list[Ruled] = []
    for entry in (entries() if known is None else known).values():
        case = Case(entry, wish, told, day, usable)
        found = dict(broken(case))
        if found:
            ruled.append(Ruled(entry, found, _line(case, "")))
        else:
            lines.append(_line(case, usable(entry)))
    return Ranking(wish, told, tuple(sorted(lines, key=_order)), tuple(ruled))


def auto(wish: Wish, usable: Usable, known: Mapping[str, Entry] | None = None, today: date | None = None) -> Line:
    """The first of those that can be asked now and whose price is known. Raises RequestError where there is none,
    InvalidField."""
    ranking = ranked(replace(wish, usable_only=True), usable, known, today)
    priced = [line for line in ranking.lines if line.price is not None]
    if priced:
        return priced[0]
    told = f"no model that makes {ranking.reading.medium} can be asked for this now."
    raise RequestError(" ".join([told, *_nearest(_able(ranking)), "See: triptych choose; triptych doctor"]))


def advice(ranking: Ranking) -> str:
    """Which rule ruled out the most, and what would be left without each alone. "" while something is left."""
    if ranking.lines:
        return ""
    able = _able(ranking)
    if not able:
        return f"The catalogue knows of nothing alive that makes {ranking.reading.medium} of words alone."
    counts = {name: sum(name in one.broken for one in able) for name in RULES}
    most = max(counts, key=lambda name: counts[name])
    alone = {name: [one for one in able if [*one.broken] == [name]] for name in RULES}
    ways = [_without(name, found) for name, found in alone.items() if found]
    return " ".join([f"--{most} ruled out the most, {counts[most]} of {len(able)}.", *(ways or _nearest(able))])


def _able(ranking: Ranking) -> list[Ruled]:
    """Those that would do with another wish."""
    return [one for one in ranking.ruled if one.rule not in FINAL]


def _nearest(able: Sequence[Ruled]) -> list[str]:
    """The one that breaks the fewest rules, and which."""
    if not able:
        return []
    near = min(able, key=lambda one: (len(one.broken), *_order(one.line)))
    return [f"The nearest is {near.entry.name}: {'; '.join(near.broken.values())}."]


def _without(rule: str, found: Sequence[Ruled]) -> str:
    """What would be left without a rule: the cheapest, the fastest or the best."""
    match rule:
        case "budget":
            priced = [(one.line.price.most, one.entry.name) for one in found if one.line.price is not None]
            best = f"the cheapest {min(priced)[1]} at {dollars(min(priced)[0])}" if priced else ""
        case "max-seconds":
            takes = [(one.entry.seconds[1], one.entry.name) for one in found if one.entry.seconds is not None]
            best = f"the fastest {min(takes)[1]} in up to {min(takes)[0]:g} s" if takes else ""
        case _:
            first = min(found, key=lambda one: _order(one.line))
            best = f"the best {first.entry.name} ({first.why})"
    return f"Without --{rule} there would be {len(found)}{f', {best}' if best else ''}."


def _line(case: Case, missing: str) -> Line:
    cost = case.price()
    return Line(case.entry, terms(case, cost, missing), None if isinstance(cost, PriceUnknown) else cost, missing)


def _order(line: Line) -> tuple[float, int, list[tuple[bool, float, str]]]:
    """By score; of equal ones the one that can do more, then by name, the higher number first: 2.6 before 2.5."""
    parts = re.findall(r"\d+(?:\.\d+)?|\D+", line.entry.name)
    named = [(False, -float(part), "") if part[0].isdigit() else (True, 0.0, part) for part in parts]
    return -line.score, -len(line.entry.abilities), named
