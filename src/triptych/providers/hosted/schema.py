"""JSON Schema as hosts write it: references put in their place, and a value held against it.

As much of it as hosts use: $ref, allOf, anyOf, oneOf, null, enum, const, types, ranges, lengths, patterns, items,
properties, required. Of anything else nothing is asked.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import ge, gt, le, lt
from typing import Any, final

__all__ = ["Misfit", "inlined", "misfit", "options"]

DEEPEST = 12  # references within references; a schema that holds itself is cut there
KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}
WORDS = {
    "string": "a text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "an object",
}


@final
@dataclass(frozen=True, slots=True)
class Misfit:
    """What is wrong with a value. path: keys and places that lead to it; allowed: for people."""

    path: tuple[str | int, ...]
    given: Any
    allowed: str


def inlined(schema: Any, root: Mapping[str, Any], depth: int = 0) -> dict[str, Any]:
    """The schema without references into its root, without null, and with anyOf only where there is a choice."""
    if not isinstance(schema, Mapping) or depth > DEEPEST:
        return {}
    told = {name: value for name, value in schema.items() if name not in ("$ref", "allOf", "anyOf", "oneOf")}
    parts = [_target(schema["$ref"], root)] if isinstance(schema.get("$ref"), str) else []
    for part in [*parts, *_listed(schema.get("allOf"))]:
        told = _merged(inlined(part, root, depth + 1), told)
    choices = [*_listed(schema.get("anyOf")), *_listed(schema.get("oneOf"))]
    if isinstance(told.get("type"), list):
        choices += [{"type": kind} for kind in told.pop("type")]
    left = [one for one in (inlined(choice, root, depth + 1) for choice in choices) if one.get("type") != "null"]
    if len(left) == 1:
        told = _merged(left[0], told)
    elif left:
        told["anyOf"] = left
    told |= _typed(told)
    if isinstance(told.get("properties"), Mapping):
        told["properties"] = {name: inlined(one, root, depth + 1) for name, one in told["properties"].items()}
    if isinstance(told.get("items"), Mapping):
        told["items"] = inlined(told["items"], root, depth + 1)
    return told


def options(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The schemas that a value may fit: those of anyOf, or the one."""
    return list(schema.get("anyOf", ())) or [schema]


def misfit(value: Any, schema: Mapping[str, Any], path: tuple[str | int, ...] = ()) -> Misfit | None:
    """The first thing in which a value is not as an inlined schema says."""
    if "anyOf" in schema:
        found = [misfit(value, one, path) for one in schema["anyOf"]]
        if None not in found:
            allowed = dict.fromkeys(one.allowed for one in found if one is not None)
            return Misfit(path, value, ", or ".join(allowed))
    choices = schema.get("enum", [schema["const"]] if "const" in schema else [value])
    if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in choices):
        return Misfit(path, value, "one of " + ", ".join(str(one) for one in choices))
    kind = schema.get("type")
    if kind in KINDS and not _is(value, str(kind)):
        return Misfit(path, value, WORDS[str(kind)])
    match value:
        case bool():
            return None
        case int() | float():
            return _number(value, schema, path)
        case str():
            return _text(value, schema, path)
        case list():
            return _list(value, schema, path)
        case dict():
            return _object(value, schema, path)
    return None


def _number(value: float, schema: Mapping[str, Any], path: tuple[str | int, ...]) -> Misfit | None:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    above, low = (low, None) if above is True else (above, low)  # as OpenAPI 3.0 has it
    below, high = (high, None) if below is True else (below, high)
    limits: tuple[tuple[Any, Callable[[float, float], bool], str], ...] = (
        (low, ge, "at least"),
        (high, le, "at most"),
        (above, gt, "more than"),
        (below, lt, "less than"),
        (schema.get("multipleOf"), _divides, "a multiple of"),
    )
    for limit, holds, words in limits:
        if isinstance(limit, int | float) and not isinstance(limit, bool) and not holds(value, limit):
            return Misfit(path, value, f"{words} {limit:g}")
    return None


def _divides(value: float, step: float) -> bool:
    return step == 0 or abs(value / step - round(value / step)) < 1e-9


def _text(value: str, schema: Mapping[str, Any], path: tuple[str | int, ...]) -> Misfit | None:
    sized = _sized(len(value), schema.get("minLength"), schema.get("maxLength"), "characters")
    if sized:
        return Misfit(path, value, sized)
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        try:
            fits = re.search(pattern, value) is not None
        except re.error:  # of another dialect
            return None
        return None if fits else Misfit(path, value, f"what matches {pattern}")
    return None


def _list(value: list[Any], schema: Mapping[str, Any], path: tuple[str | int, ...]) -> Misfit | None:
    sized = _sized(len(value), schema.get("minItems"), schema.get("maxItems"), "entries")
    if sized:
        return Misfit(path, value, sized)
    items = schema.get("items")
    if not isinstance(items, Mapping):
        return None
    return next(filter(None, (misfit(one, items, (*path, place)) for place, one in enumerate(value))), None)


def _object(value: dict[str, Any], schema: Mapping[str, Any], path: tuple[str | int, ...]) -> Misfit | None:
    properties = schema.get("properties", {})
    for name in schema.get("required", ()):
        if name not in value:
            return Misfit((*path, name), None, "something: it is required")
    if schema.get("additionalProperties") is False:
        for name in value.keys() - properties.keys():
            return Misfit((*path, name), value[name], f"of {', '.join(properties)}")
    found = (misfit(value[name], one, (*path, name)) for name, one in properties.items() if name in value)
    return next(filter(None, found), None)


def _sized(size: int, least: Any, most: Any, what: str) -> str:
    if isinstance(least, int) and size < least:
        return f"at least {least} {what}"
    return f"at most {most} {what}" if isinstance(most, int) and size > most else ""


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, KINDS[kind]) or (kind == "integer" and isinstance(value, float) and value.is_integer())


def _merged(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """Both together; where they differ, `over` says it."""
    merged = {**under, **over}
    if "properties" in under and "properties" in over:
        merged["properties"] = {**under["properties"], **over["properties"]}
    if "required" in under and "required" in over:
        merged["required"] = list(dict.fromkeys([*under["required"], *over["required"]]))
    return merged


def _typed(told: Mapping[str, Any]) -> dict[str, str]:
    """The type of what says it only by its choices."""
    if "type" in told:
        return {}
    kinds = {one.get("type") for one in told.get("anyOf", ())}
    if kinds == {"string"} or (told.get("enum") and all(isinstance(one, str) for one in told["enum"])):
        return {"type": "string"}
    return {"type": "number"} if kinds and kinds <= {"integer", "number"} else {}


def _listed(found: Any) -> Sequence[Any]:
    return found if isinstance(found, list) else ()


def _target(reference: str, root: Mapping[str, Any]) -> Any:
    found: Any = root
    for key in reference.removeprefix("#/").split("/"):
        found = found.get(key.replace("~1", "/").replace("~0", "~"), {}) if isinstance(found, Mapping) else {}
    return found
