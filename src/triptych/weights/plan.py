"""What comes into memory when, and how: whole, or block by block, as sizes and a budget tell before anything is read.

A part whose blocks run one after the other may come in passing: each block just before it runs, while the next is read.
Blocks that have room stay. They are spread evenly, so that between any two that pass there is time to read.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import final

__all__ = ["Here", "Moment", "Part", "Plan", "Share", "planned", "turned"]


@final
@dataclass(frozen=True, slots=True)
class Part:
    """A network. size: bytes of its weights; blocks: of those of each block, in the order that they run.

    reading: bytes beside the weights that reading one of them takes.
    """

    name: str
    size: int
    blocks: tuple[int, ...] = ()
    reading: int = 0


@final
@dataclass(frozen=True, slots=True)
class Share:
    """How a part comes in passing: numbers of the blocks that stay, of so many.

    room: bytes for blocks that pass, the one that runs and those that are read ahead; peak: bytes altogether.
    """

    stay: tuple[int, ...]
    count: int
    room: int
    peak: int


@final
@dataclass(frozen=True, slots=True)
class Moment:
    """Parts that are used together, and bytes that their work takes beside them."""

    names: tuple[str, ...]
    work: int = 0


Here = Mapping[str, Share | None]
"""Who is in memory and how, None being whole; what was used last comes last."""


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What is going to happen. turns: parts that come one after the other, in one turn where all fit at once.

    passing: those that come block by block; budget and peak in bytes.
    """

    budget: float
    turns: tuple[tuple[str, ...], ...]
    sizes: Mapping[str, int]
    passing: Mapping[str, Share]
    peak: int

    @property
    def fits(self) -> bool:
        return self.peak <= self.budget

    def __str__(self) -> str:
        """One sentence, and a second where it does not fit."""
        bound = "no bound" if self.budget == math.inf else _bytes(self.budget)
        if len(self.turns) == 1 and not self.passing:
            return f"{bound}: everything stays in memory ({self._listed(self.turns[0])}); peak {_bytes(self.peak)}."
        told = "; then ".join(map(self._listed, self.turns))
        more = "" if self.fits else f" That is {_bytes(self.peak - self.budget)} too much: ask for a smaller size."
        return f"{bound}: {told}; peak {_bytes(self.peak)}.{more}"

    def _listed(self, names: Iterable[str]) -> str:
        return ", ".join(map(self._said, names))

    def _said(self, name: str) -> str:
        share = self.passing.get(name)
        way = "" if share is None else f" block by block, {len(share.stay)} of {share.count} blocks stay"
        return f"{name} ({_bytes(self.sizes[name])}){way}"


def planned(parts: Sequence[Part], moments: Sequence[Moment], budget: float) -> Plan:
    """What happens to these parts at these moments, over and over, within so many bytes."""
    by_name = {part.name: part for part in parts}
    sizes = MappingProxyType({part.name: part.size for part in parts})
    peak = sum(sizes.values()) + max(moment.work for moment in moments)
    if peak <= budget:
        return Plan(budget, (tuple(sizes),), sizes, MappingProxyType({}), peak)
    here: Here = {}
    passing: dict[str, Share] = {}
    peaks: list[int] = []
    for moment in [*moments, *moments]:  # the second time others are there at first
        here = turned(by_name, here, moment.names, moment.work, budget)
        passing |= {name: share for name in moment.names if (share := here[name]) is not None}
        peaks.append(sum(_taken(by_name[name], share) for name, share in here.items()) + moment.work)
    return Plan(budget, tuple(moment.names for moment in moments), sizes, MappingProxyType(passing), max(peaks))


def turned(
    parts: Mapping[str, Part], here: Here, names: Sequence[str], work: int, budget: float
) -> dict[str, Share | None]:
    """Who is here once these are used: all of them, whole if they fit; of others, those used last that have room.

    Those that come in passing already do so as they do, as long as that fits.
    """
    room = budget - work
    wanted = {name: here[name] for name in names if name in here}
    if sum(parts[name].size for name in names) <= room:
        wanted = dict.fromkeys(names)
    elif len(wanted) < len(names) or _all(parts, wanted) > room:
        wanted = _passing([parts[name] for name in names], room)
    others = {name: share for name, share in here.items() if name not in names}
    while others and _all(parts, others) + _all(parts, wanted) > room:
        del others[next(iter(others))]
    return others | wanted


def _passing(parts: Sequence[Part], room: float) -> dict[str, Share | None]:
    """Parts that do not all fit: the largest come in passing, as few as have to."""
    found: dict[str, Share | None] = {part.name: None for part in parts}
    left = room - sum(part.size for part in parts)
    for part in sorted(parts, key=lambda part: part.size, reverse=True):
        if left < 0 and part.blocks:
            share = found[part.name] = _share(part, left + part.size)
            left += part.size - share.peak
    return found


def _share(part: Part, room: float) -> Share:
    """As many blocks stay as there is room for beside two that pass; where that is too much, beside one."""
    count = len(part.blocks)
    tries = [_shared(part, stay, ahead=1) for stay in range(count - 1, -1, -1)] + [_shared(part, 0, ahead=0)]
    return next((share for share in tries if share.peak <= room), tries[-1])


def _shared(part: Part, stay: int, ahead: int) -> Share:
    count = len(part.blocks)
    staying = tuple(number * count // stay for number in range(stay))
    passing = [size for number, size in enumerate(part.blocks) if number not in staying]
    window = min(1 + ahead, len(passing))
    room = max(sum((passing * 2)[start : start + window]) for start in range(len(passing)))
    return Share(staying, count, room, part.size - sum(passing) + room + part.reading)


def _all(parts: Mapping[str, Part], here: Here) -> int:
    return sum(_taken(parts[name], share) for name, share in here.items())


def _taken(part: Part, share: Share | None) -> int:
    return part.size if share is None else share.peak


def _bytes(number: float) -> str:
    return f"{number / 2**30:.1f} GB"
