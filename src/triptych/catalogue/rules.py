"""What rules a model out of a choice: each rule looks at one model and gives the sentence why, or ""."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from types import MappingProxyType
from typing import final

from triptych.catalogue import lifecycle
from triptych.catalogue.entries import Entry
from triptych.catalogue.reading import Reading
from triptych.catalogue.wish import Wish, price, within
from triptych.errors import PriceUnknown
from triptych.types import Price, dollars

__all__ = ["FINAL", "RULES", "Case", "Usable", "broken"]

Usable = Callable[[Entry], str]  # what is missing for it to be asked now (a key, weights, memory); "" where nothing is


@final
@dataclass(frozen=True, slots=True)
class Case:
    """One model, as the wish looks at it."""

    entry: Entry
    wish: Wish
    reading: Reading
    today: date
    usable: Usable

    @property
    def wanted(self) -> set[str]:
        """Abilities that are asked for, by --needs or by words."""
        return {*self.wish.needs, *self.reading.abilities}

    def price(self) -> Price | PriceUnknown:
        try:
            return price(self.entry, self.wish, self.reading.medium)
        except PriceUnknown as problem:
            return problem


def broken(case: Case) -> Iterator[tuple[str, str]]:
    """Every rule that the model breaks, with why."""
    for name, rule in RULES.items():
        why = rule(case)
        if why:
            yield name, why
            if name in FINAL:
                return


def _alive(case: Case) -> str:
    return "" if lifecycle.alive(case.entry, case.today) else f"it {lifecycle.why(case.entry, case.today)}"


def _medium(case: Case) -> str:
    medium, makes = case.reading.medium, case.entry.makes
    return "" if medium in makes else f"it makes {' and '.join(makes)}, not {medium}"


def _input(case: Case) -> str:
    enough = {"init": {"edit", "mask", "first_frame"}, "reference": {"reference"}, "control": {"control"}}
    there = {*case.wish.inputs, *(name for name, ways in enough.items() if ways & case.wanted)}
    lacking = [name for name in case.entry.requires if name not in there]
    told = " and ".join({"init": "a picture to change"}.get(name, f"a {name} picture") for name in lacking)
    return f"it works on {told}, and none is spoken of" if lacking else ""


def _place(case: Case) -> str:
    return f"it runs at {case.entry.provider}" if case.wish.local_only and not case.entry.local else ""


def _licence(case: Case) -> str:
    told = case.entry.outputs_licence
    return f"what it makes may not be sold: {told}" if case.wish.commercial and not case.entry.commercial else ""


def _needs(case: Case) -> str:
    lacking = [need.replace("_", " ") for need in case.wish.needs if need not in case.entry.abilities]
    return f"it does not do: {', '.join(lacking)}" if lacking else ""


def _size(case: Case) -> str:
    wanted, largest = case.wish.size, case.entry.largest
    if wanted is None or largest is None or wanted[0] * wanted[1] <= largest[0] * largest[1]:
        return ""
    return "it makes {} x {} at the most, {} x {} is wanted".format(*largest, *wanted)


def _length(case: Case) -> str:
    wanted, longest = case.wish.duration, case.entry.longest
    if wanted is None or longest is None or wanted <= longest:
        return ""
    return f"it makes {longest:g} s at the most, {wanted:g} s are wanted"


def _budget(case: Case) -> str:
    if case.wish.budget is None:
        return ""
    cost = case.price()
    if isinstance(cost, PriceUnknown):
        return f"what it costs is not known: {cost.why}"
    if cost.most <= case.wish.budget:
        return ""
    could = "it costs" if cost.exact else "it may cost up to"
    told = f"{could} {dollars(cost.most)}, the budget is {dollars(case.wish.budget)}"
    less = within(case.entry, case.wish, case.reading.medium)
    return f"{told}; with --option {less[0]} it is at most {dollars(less[1].most)}" if less else told


def _seconds(case: Case) -> str:
    wanted, takes = case.wish.max_seconds, case.entry.seconds
    if wanted is None or takes is None or takes[1] <= wanted:
        return ""
    return f"it takes up to {takes[1]:g} s, {wanted:g} s are to be waited"


def _usable(case: Case) -> str:
    return case.usable(case.entry) if case.wish.usable_only else ""


RULES: Mapping[str, Callable[[Case], str]] = MappingProxyType(
    {
        "alive": _alive,
        "medium": _medium,
        "input": _input,
        "local-only": _place,
        "licence": _licence,
        "needs": _needs,
        "size": _size,
        "duration": _length,
        "budget": _budget,
        "max-seconds": _seconds,
        "usable-only": _usable,
    }
)
FINAL = ("alive", "medium", "input")  # where one of these is broken, no other matters; the others can be loosened
