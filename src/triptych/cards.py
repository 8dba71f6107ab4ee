"""Cards out of TOML: what a family's or a vendor's table says of its models, as objects.

A table may have [shared.fields], of every card in it; a card says what differs, and kind = "none" of what it lacks. A
field with `times = 3` stands for three, the later ones numbered: reference, reference_2, reference_3.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from triptych.errors import FileProblem
from triptych.types import Axis, Card, Field

__all__ = ["read", "table"]

NO_NAMES: Mapping[str, tuple[str, ...]] = {}


def read(family: str, path: Path, names: Mapping[str, tuple[str, ...]] = NO_NAMES) -> list[Card]:
    """The cards of a file. names: kinds of fields that are texts with these choices unless a card says fewer.

    Raises FileProblem.
    """
    try:
        told = table(path)
        shared = told.get("shared", {}).get("fields", {})
        return [_card(family, entry, shared, names) for entry in told["cards"]]
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as problem:
        raise FileProblem(f"{path}: the cards of the family {family!r} cannot be read: {problem!r}.") from problem


def table(path: Path) -> Mapping[str, Any]:
    """What a file says, read once as long as it stays as it is; not to be changed. Raises OSError, ValueError."""
    return _parsed(path, path.stat().st_mtime_ns)


@cache
def _parsed(path: Path, _: int) -> Mapping[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _card(family: str, entry: dict[str, Any], shared: Mapping[str, Any], names: Mapping[str, tuple[str, ...]]) -> Card:
    """shared: fields of every card of the file; a card says what differs, or a field of its own."""
    if entry["family"] != family:
        raise ValueError(f"{entry['name']}: family = {entry['family']!r}, the file is of {family!r}")
    axes = tuple(Axis(**axis) for axis in entry.get("axes", ()))
    own = entry.get("fields", {})
    told = {name: shared.get(name, {}) | own.get(name, {}) for name in [*shared, *(n for n in own if n not in shared)]}
    fields = {}
    for name, field in told.items():
        if field.get("kind") == "none":  # shared by the others, not by this one
            continue
        times = field.pop("times", 1) if "times" in (field := dict(field)) else 1
        for number in range(1, times + 1):
            fields[name if number == 1 else f"{name}_{number}"] = _field(names, **field)
    return Card(**{**entry, "axes": axes, "fields": fields})


def _field(
    names: Mapping[str, tuple[str, ...]], *, kind: str, choices: list[str] | tuple[str, ...] = (), **rest: Any
) -> Field:
    if kind in names:
        return Field("str", choices=tuple(choices) or names[kind], **rest)
    return Field(kind, choices=tuple(choices), **rest)  # type: ignore[arg-type]  # checked where it is used
