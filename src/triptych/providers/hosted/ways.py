"""From one property of a host's schema to axes and fields of a card, and back from what is asked to its value."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import gcd
from types import MappingProxyType
from typing import Any, Literal, final

from triptych.errors import InvalidField
from triptych.providers.hosted.meanings import Schema, files_of, is_file, seconds
from triptych.providers.hosted.schema import options
from triptych.types import AXES, PLAIN, Axis, Field, Medium, Request

__all__ = ["Part", "Way", "parts", "said"]

UNBOUNDED = 10  # files of a list whose end the host does not tell
LONGEST = 3600.0  # seconds, where the host tells no end
LARGEST = 16384.0  # pixels, likewise
HELP = 200  # characters
FORMATS = {"png": "png", "webp": "webp", "jpeg": "jpeg", "jpg": "jpeg"}  # of pictures, as the project writes them
PRESETS: Mapping[str, tuple[int, int]] = {  # width and height in pixels of fal's names
    "square_hd": (1024, 1024),
    "square": (512, 512),
    "portrait_4_3": (768, 1024),
    "portrait_16_9": (576, 1024),
    "landscape_4_3": (1024, 768),
    "landscape_16_9": (1024, 576),
}
SIZE = re.compile(r"(\d+)x(\d+)")
NO_VALUES: Mapping[Any, Any] = MappingProxyType({})


@final
@dataclass(frozen=True, slots=True)
class Way:
    """How a field of ours becomes a property of the host's. values: of what is said here, what is sent; default: the
    host's own."""

    host: str
    kind: Literal["plain", "choice", "json", "file", "files", "area", "size"] = "plain"
    values: Mapping[Any, Any] = field(default_factory=lambda: NO_VALUES)
    default: Any = None


@final
@dataclass(frozen=True, slots=True)
class Part:
    """One axis or field of a card. way: None of what another part says too."""

    name: str
    what: Axis | Field
    way: Way | None = None


def parts(host: str, ours: str, properties: Mapping[str, Schema], media: Medium, needed: bool) -> Iterator[Part]:
    """What one property becomes. needed: whether the host requires it."""
    schema = properties[host]
    areas = [one["properties"] for one in options(schema) if {"width", "height"} <= one.get("properties", {}).keys()]
    sides = [properties.get(name, {}) for name in ("width", "height")]
    if areas:
        yield from _area(host, schema, areas[0])
    elif host in ("width", "height") and all(type(side.get("default")) is int for side in sides):
        yield Part(host, _side(host, schema["default"], schema), Way(host, default=schema["default"]))
    elif ours == "duration":
        yield _duration(host, schema)
    elif is_file(host, schema):
        yield Part(ours, Field("artifact", help=_help(schema)), Way(host, "file"))
    elif files_of(host, schema):
        for number in range(1, min(int(schema.get("maxItems", UNBOUNDED)), UNBOUNDED * 2) + 1):
            name = ours if number == 1 else f"{ours}_{number}"
            yield Part(name, Field("artifact", help=_help(schema)), Way(host, "files"))
    else:
        yield _field(host, ours, schema, media, needed)


def said(ours: str, way: Way, request: Request, urls: Mapping[str, str]) -> Any:
    """The host's value for one field of a resolved request; None where nothing is said. Raises InvalidField.

    urls: where the inputs lie, by name.
    """
    if way.kind in ("file", "files"):
        return urls.get(ours)
    if way.kind == "area":
        size = (request.width, request.height)
        return way.default if size == _pixels(way.default) else {"width": size[0], "height": size[1]}
    value = getattr(request, ours) if ours in (*PLAIN, *AXES, "prompt") else request.options.get(ours)
    if value is None or value == "":
        return None
    match way.kind:
        case "choice":
            return way.values.get(value, value)
        case "json":
            return _parsed(ours, value)
        case "size":
            return _typed(ours, value, way)
    return value


def _area(host: str, schema: Schema, area: Mapping[str, Schema]) -> Iterator[Part]:
    """A size as two axes where its default is known in pixels, else as a text."""
    default = schema.get("default")
    values = {one: one for choice in options(schema) for one in choice.get("enum", ())}
    pixels = _pixels(default)
    if pixels is None:
        forms = ", ".join([*values, "WIDTHxHEIGHT in pixels"])
        told = default if isinstance(default, str) else None
        yield Part(host, Field("str", told, help=_help(schema, forms)), Way(host, "size", values, default))
        return
    yield Part("width", _side("width", pixels[0], area["width"]), Way(host, "area", default=default))
    yield Part("height", _side("height", pixels[1], area["height"]))


def _pixels(told: Any) -> tuple[int, int] | None:
    match told:
        case str():
            return PRESETS.get(told)
        case {"width": int(width), "height": int(height)}:
            return width, height
    return None


def _side(name: str, default: int, schema: Schema) -> Axis:
    step = schema.get("multipleOf", 1)
    multiple = int(step) if step >= 1 and default % step == 0 else 1
    least, most = max(_least(schema), 1.0), float(schema.get("maximum", LARGEST))
    return Axis(name, default, least, most, multiple=multiple)  # type: ignore[arg-type]  # width or height


def _duration(host: str, schema: Schema) -> Part:
    """Seconds as an axis: of a list of them, the grid on which all lie; which of it are offered, the schema says."""
    values = seconds(schema)
    if not values:
        rate = 1 if schema["type"] == "integer" else 1000
        axis = Axis("duration", schema["default"], _least(schema), float(schema.get("maximum", LONGEST)), rate)
        return Part("duration", axis, Way(host, default=schema["default"]))
    default = next(second for second, one in values.items() if one == schema["default"])
    grid: dict[str, int] = {"rate": 1000}
    if all(second.is_integer() for second in values):
        step = gcd(*(int(second - default) for second in values)) or 1
        grid = {"multiple": step, "offset": int(default) % step}
    axis = Axis("duration", default, min(values), max(values), **grid)
    return Part("duration", axis, Way(host, "choice", values, schema["default"]))


def _least(schema: Schema) -> float:
    found = schema.get("minimum", schema.get("exclusiveMinimum", 0))
    return float(found) if isinstance(found, int | float) else 0.0


def _field(host: str, ours: str, schema: Schema, media: Medium, needed: bool) -> Part:
    default, told = schema.get("default"), _help(schema)
    low, high = schema.get("minimum"), schema.get("maximum")
    match schema.get("type"):
        case "boolean":
            values: dict[Any, Any] = {"on": True, "off": False} if ours == "audio" else {"true": True, "false": False}
        case "string" if "enum" in schema:
            values = {one: one for one in schema["enum"]}
        case "integer" | "number" if "enum" in schema and ours not in PLAIN:
            values = {str(one): one for one in schema["enum"]}
        case "integer":
            start = default if type(default) is int else None
            return Part(ours, Field("int", start, low, high, help=told), Way(host, default=default))
        case "number":
            share = float(default) if isinstance(default, int | float) else None
            return Part(ours, Field("float", share, low, high, help=told), Way(host, default=default))
        case "string":
            least = schema.get("minLength", 1 if needed else None)
            field = Field("str", default or None, least, schema.get("maxLength"), help=told)
            return Part(ours, field, Way(host, default=default))
        case _:
            return Part(ours, Field("str", help=_help(schema, "as JSON")), Way(host, "json", default=default))
    if host == "output_format" and media == "image":
        values = {FORMATS[text]: one for text, one in values.items() if text in FORMATS} or values
    chosen = next((text for text, one in values.items() if one == default), None)
    return Part(ours, Field("str", chosen, choices=tuple(values), help=told), Way(host, "choice", values, default))


def _help(schema: Schema, forms: str = "") -> str:
    text = " ".join(str(schema.get("description", "")).split())
    cut = text if len(text) <= HELP else f"{text[: HELP - 3].rsplit(' ', 1)[0]}..."
    return f"{cut} ({forms})".strip() if forms else cut


def _typed(ours: str, value: str, way: Way) -> Any:
    if value in way.values:
        return way.values[value]
    found = SIZE.fullmatch(value)
    if found is None:
        raise InvalidField(ours, value, ", ".join([*way.values, "WIDTHxHEIGHT in pixels"]))
    return {"width": int(found[1]), "height": int(found[2])}


def _parsed(ours: str, value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as problem:
        raise InvalidField(ours, value, f"JSON ({problem})") from None
