"""What counts for a model in a choice: a sum of named terms, each with its points and why."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import log10
from types import MappingProxyType
from typing import final

from triptych.catalogue.rules import Case
from triptych.errors import PriceUnknown
from triptych.types import Price

__all__ = ["CHEAP", "POINTS", "Term", "terms"]

POINTS: Mapping[str, float] = MappingProxyType(
    {
        "fit": 2.0,  # each grade, 1 to 5, in the middle of the subjects that the words name; one that it lacks is 0
        "fidelity": 0.5,  # each grade of keeping to the prompt
        "asked": 1.0,  # each ability that the words ask for and it has
        "speed": 0.2,  # each grade
        "price": -0.5,  # each tenfold above CHEAP, of the middle of what it costs
        "no price": -2.0,  # where nobody knows what it costs
        "usable": 0.5,  # now, with the keys and weights there are
        "licence": 0.5,  # outputs may be sold
        "doubt": -2.0,  # it will be shut down, or may have been
        "unchecked": -1.0,  # each limit of the wish of which nothing is known here
    }
)
CHEAP = 0.001  # US dollars


@final
@dataclass(frozen=True, slots=True)
class Term:
    """One summand of a score: its name in POINTS, the points, and why, for people."""

    name: str
    points: float
    why: str


def terms(case: Case, cost: Price | PriceUnknown, missing: str) -> tuple[Term, ...]:
    """missing: what it lacks to be asked now."""
    return (*_good(case), *_cost(cost), *_here(case, missing), *_unchecked(case))


def _good(case: Case) -> Iterator[Term]:
    grades = {name: case.entry.good_at.get(name, 0) for name in case.reading.subjects}
    middle = sum(grades.values()) / len(grades)
    yield _term("fit", middle, ", ".join(f"{name.replace('_', ' ')} {grade}" for name, grade in grades.items()))
    if "fidelity" in case.entry.good_at:
        yield _term("fidelity", case.entry.good_at["fidelity"], f"fidelity {case.entry.good_at['fidelity']}")
    had = [name for name in case.reading.abilities if name in case.entry.abilities]
    lacking = [name for name in case.reading.abilities if name not in had]
    if had:
        yield _term("asked", len(had), f"takes {_listed(had)}")
    if lacking:
        yield Term("asked", 0.0, f"no {_listed(lacking)}")
    if "speed" in case.entry.good_at:
        yield _term("speed", case.entry.good_at["speed"], f"speed {case.entry.good_at['speed']}")


def _cost(cost: Price | PriceUnknown) -> Iterator[Term]:
    if isinstance(cost, PriceUnknown):
        yield _term("no price", 1, "price not known")
        return
    middle = (cost.most + (cost.most if cost.least is None else cost.least)) / 2
    if middle > CHEAP:
        yield _term("price", log10(middle / CHEAP), str(replace(cost, why="")))


def _here(case: Case, missing: str) -> Iterator[Term]:
    if not missing:
        yield _term("usable", 1, "can be used now")
    if case.entry.commercial:
        yield _term("licence", 1, "outputs may be sold")
    state = case.entry.lifecycle.state_on(case.today)
    if state == "deprecated":
        ends = case.entry.lifecycle.ends
        yield _term("doubt", 1, f"ends on {ends}" if ends else "will be shut down")
    elif state == "unknown":
        yield _term("doubt", 1, "not certain to be there")


def _unchecked(case: Case) -> Iterator[Term]:
    wish, entry = case.wish, case.entry
    limits = {
        "how large it can be": (wish.size, entry.largest),
        "how long it can be": (wish.duration, entry.longest),
        "how long it takes": (wish.max_seconds, entry.seconds),
    }
    unknown = [name for name, (wanted, found) in limits.items() if wanted is not None and found is None]
    if unknown:
        yield _term("unchecked", len(unknown), f"{' and '.join(unknown)} is not known")


def _term(name: str, times: float, why: str) -> Term:
    return Term(name, round(POINTS[name] * times, 2), why)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(name.replace("_", " ") for name in names)
