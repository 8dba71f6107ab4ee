"""What is known today: the facts that came with the package, and over them what the user's refreshes found since."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from triptych.catalogue import kept
from triptych.catalogue.entries import Entry, shipped

__all__ = ["entries", "use"]

USED: list[Path] = []  # one a process, like the service over it


def use(place: Path | None) -> None:
    """From now on `entries` are overlaid by what lies at this place, once it is there; None: as they came."""
    USED[:] = [] if place is None else [place]
    _overlaid.cache_clear()


def entries() -> Mapping[str, Entry]:
    """Every entry by its name. Raises FileProblem where a file is broken."""
    return _overlaid(USED[0]) if USED else shipped()


@cache
def _overlaid(place: Path) -> Mapping[str, Entry]:
    return kept.over(shipped(), kept.read(place))
