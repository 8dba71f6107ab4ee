"""The plan of a grid: one field along x, one along y, one over several sheets (z), and a request for each combination.

An axis is written NAME=VALUE,VALUE,...; texts, which may hold commas, are parted by |. Of a prompt the first value is a
part of the prompt that was given, and every other one replaces it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, final

from triptych.errors import InvalidField, UnknownName
from triptych.types import AXES as LENGTHS
from triptych.types import PLAIN, Card, Field, Request

__all__ = ["AXES", "Cell", "Plan", "Sweep", "sweep"]

AXES = ("x", "y", "z")
MOST = 1000  # cells
SAID = {"negative": "negative_prompt", "guidance": "guidance_scale"}  # what commands call otherwise
NEVER = ("count", "batch_size", "trace", "preview_every")  # what changes nothing about the one picture of a cell
SIZE = Field("str", help="WxH in pixels")


@final
@dataclass(frozen=True, slots=True)
class Sweep:
    """A field and the values that it takes along one axis."""

    name: str  # as it was said
    field: str  # of the request, or an option; "size" is width and height
    values: tuple[Any, ...]

    def labels(self) -> tuple[str, ...]:
        """The values, for people."""
        return tuple(f"{value:g}" if isinstance(value, float) else str(value) for value in self.values)

    def change(self, request: Request, value: Any) -> Request:
        """The request with this value."""
        if self.field == "size":
            width, height = value.split("x")
            return replace(request, width=int(width), height=int(height))
        if self.field == "prompt":
            return replace(request, prompt=request.prompt.replace(self.values[0], value))
        if self.field == "extend":  # which decides the size
            request = replace(request, width=None, height=None)
        if self.field in (*PLAIN, *LENGTHS):
            return replace(request, **{self.field: value})
        return replace(request, options={**request.options, self.field: value})


def sweep(said: str | Sequence[Any], card: Card, prompt: str) -> Sweep:
    """The axis that a text says, like "steps=10,20", or a name and its values. Raises InvalidField, UnknownName."""
    name, *values = _read(said, card) if isinstance(said, str) else list(said)
    word = name == "guidance" and any(isinstance(value, str) and not _is_number(value) for value in values)
    field = name if word else SAID.get(name, name)  # of guidance: not how much, but which way
    entry = _entry(card, name, field)
    checked = tuple(_checked(name, field, value, entry, card) for value in values)
    if not checked or len(set(checked)) < len(checked):
        raise InvalidField(name, ", ".join(map(str, values)) or None, "at least one value, and each once")
    if field == "prompt" and checked[0] not in prompt:
        advice = "The first value is searched for, the others replace it."
        raise InvalidField(name, checked[0], "a part of the prompt as the first value", advice)
    return Sweep(name, field, checked)


@final
@dataclass(frozen=True, slots=True)
class Cell:
    """One picture of a grid: its place along x, y and z, counted from 0, and the values there in the order of axes."""

    at: tuple[int, int, int]
    values: tuple[Any, ...]
    request: Request


@final
@dataclass(frozen=True, slots=True)
class Plan:
    """What is the same in all cells, and what is not: sweeps by x, y, z."""

    request: Request
    sweeps: Mapping[str, Sweep]

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many cells there are along x, y and z."""
        across, down, sheets = (len(self.sweeps[axis].values) if axis in self.sweeps else 1 for axis in AXES)
        return across, down, sheets

    def cells(self) -> list[Cell]:
        """Row by row, sheet by sheet. Raises InvalidField where they are too many, or one field varies twice."""
        fields = [one.field for one in self.sweeps.values()]
        if len(set(fields)) < len(fields):
            raise InvalidField("grid", ", ".join(fields), "a field along one axis alone")
        if math.prod(self.shape) > MOST:
            raise InvalidField("grid", f"{math.prod(self.shape)} cells", f"at most {MOST}")
        across, down, sheets = self.shape
        return [self._cell((x, y, z)) for z, y, x in product(range(sheets), range(down), range(across))]

    def told(self) -> dict[str, list[Any]]:
        """The axes as a recipe has them, which `sweep` reads: name, then values."""
        return {axis: [one.name, *one.values] for axis, one in self.sweeps.items()}

    def _cell(self, at: tuple[int, int, int]) -> Cell:
        request, values = self.request, []
        for axis, number in zip(AXES, at, strict=True):
            if axis in self.sweeps:
                values.append(self.sweeps[axis].values[number])
                request = self.sweeps[axis].change(request, values[-1])
        return Cell(at, tuple(values), request)


def _read(said: str, card: Card) -> list[str]:
    """The name, then the values."""
    name, sign, text = (part.strip() for part in said.partition("="))
    if not sign or not name:
        raise InvalidField("axis", said, "NAME=VALUE,VALUE,..., like steps=10,20")
    entry = card.fields.get(SAID.get(name, name))
    free = entry is not None and entry.kind == "str" and not entry.choices
    return [name, *(part.strip() for part in text.split("|" if free or "|" in text else ","))]


def _entry(card: Card, name: str, field: str) -> Field:
    """What the card says of a field. Raises UnknownName."""
    found = {key: entry for key, entry in card.fields.items() if entry.kind != "artifact" and key not in NEVER}
    lengths = {axis.name: Field("float" if axis.name == "duration" else "int") for axis in card.axes}
    found |= lengths | ({"size": SIZE} if {"height", "width"} <= lengths.keys() else {})
    if field not in found:
        short = {key for key, value in SAID.items() if value in found}
        raise UnknownName(f"axis of a grid by {card.name}", name, {*found, *short})
    return found[field]


def _checked(name: str, field: str, value: Any, entry: Field, card: Card) -> Any:
    """The value as the field has it, a text read as what the field wants. Raises InvalidField."""
    if field == "size":
        return _size(value)
    allowed = next((axis.allowed() for axis in card.axes if axis.name == field), entry.allowed())
    try:
        typed = {"int": int, "float": float}.get(entry.kind, str)(value) if isinstance(value, str) else value
    except ValueError:
        raise InvalidField(name, value, allowed) from None
    return entry.check(name, typed)


def _size(value: Any) -> str:
    width, _, height = str(value).lower().replace(" ", "").partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise InvalidField("size", value, "WIDTHxHEIGHT in pixels, like 128x128")
    return f"{int(width)}x{int(height)}"


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
