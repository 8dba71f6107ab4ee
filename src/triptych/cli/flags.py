"""The flags that say what is asked for, once for all commands that ask: each with what it means in a request.

A command names those it has; they join its own in `--help`, and what they say comes to it as one table, by field.
"""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, final

import typer

from triptych.errors import InvalidField

__all__ = ["FLAGS", "PICTURE", "WALK", "flagged"]

FAST = 3  # every how manieth step is computed in full: see docs/fast.md


@final
@dataclass(frozen=True, slots=True)
class Flag:
    """kind: of its value; option: as typer takes it; said: what it means, by the fields of a request."""

    kind: Any
    option: Any
    said: Callable[[Any], Mapping[str, Any]]


def flagged(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command that has these flags of FLAGS, after its own; it takes what they say as `said`."""

    def dress(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def run(**given: Any) -> None:
            said: dict[str, Any] = {}
            for name in names:
                said |= FLAGS[name].said(given.pop(name))
            command(**given, said=said)

        own = [one for one in inspect.signature(command, eval_str=True).parameters.values() if one.name != "said"]
        shared = [_parameter(name, FLAGS[name]) for name in names]
        parameters = [*own, *shared]
        run.__signature__ = inspect.Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return dress


def _parameter(name: str, flag: Flag) -> inspect.Parameter:
    kind, default = (bool, False) if flag.kind is bool else (flag.kind | None, None)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, flag.option]
    )


def size(text: str | None) -> dict[str, int]:
    """Width and height in pixels of "WxH". Raises InvalidField."""
    if text is None:
        return {}
    found = re.fullmatch(r"\s*(\d{1,6})\s*[xX×*]\s*(\d{1,6})\s*", text)
    if found is None:
        raise InvalidField("size", text, "WIDTHxHEIGHT in pixels, like 128x128")
    return {"width": int(found[1]), "height": int(found[2])}


def plain(field: str) -> Callable[[Any], Mapping[str, Any]]:
    """The value is the field's."""
    return lambda value: {field: value}


def files(texts: list[str] | None) -> dict[str, str | None]:
    """Several files of small changes as one field."""
    return {"loras": ", ".join(texts or []) or None}


def references(paths: list[Path] | None) -> dict[str, Path]:
    """Several pictures, the later ones numbered."""
    return {"reference" if n == 1 else f"reference_{n}": path for n, path in enumerate(paths or [], 1)}


def _flag(kind: Any, field: str, said: Callable[[Any], Mapping[str, Any]] | None = None, **told: Any) -> Flag:
    """declare: names of the flag, where they are not the parameter's own."""
    declare = told.pop("declare", ())
    return Flag(kind, typer.Option(*declare, **told), said or plain(field))


FLAGS: Mapping[str, Flag] = MappingProxyType(
    {
        "seed": _flag(int, "seed", help="Same seed, same result; random if not given"),
        "steps": _flag(int, "steps", help="More are slower and finer"),
        "guidance": _flag(float, "guidance_scale", help="How closely to follow the prompt; 1 means no guidance"),
        "sampler": _flag(str, "sampler", help="How the path is walked"),
        "spacing": _flag(str, "spacing", help="How the steps are spread over the path"),
        "negative": _flag(str, "negative_prompt", metavar="TEXT", help="What to lead away from"),
        "size": _flag(str, "", size, metavar="WxH", help="Pixels"),
        "duration": _flag(float, "duration", metavar="SECONDS", help="How long a clip or a sound is"),
        "fps": _flag(int, "fps", help="Frames a second of a clip"),
        "count": _flag(int, "count", help="How many; seeds count up"),
        "init": _flag(Path, "init", metavar="FILE", help="What to start from; of a clip the first frame"),
        "strength": _flag(float, "strength", help="How much of the init may change, up to 1"),
        "reference": _flag(
            list[Path], "", references, metavar="FILE", help="What shall be in it; may be repeated, in order"
        ),
        "last_frame": _flag(Path, "last_frame", metavar="FILE", help="What a clip ends with"),
        "mask": _flag(Path, "mask", metavar="FILE", help="White where the init may change"),
        "extend": _flag(str, "extend", metavar="SIDE=PIXELS,...", help="Draw on around the init: left=128,top=64"),
        "hires": _flag(float, "hires", metavar="FACTOR", help="Once more at so many times the size, 1.1 to 4"),
        "hires_strength": _flag(float, "hires_strength", help="How much of it may change then; 0.5 unless told"),
        "hires_steps": _flag(int, "hires_steps", help="Steps of a whole path then; as many as --steps unless told"),
        "lora": _flag(list[str], "", files, metavar="FILE:STRENGTH", help="A file of small changes; may be repeated"),
        "profile": _flag(str, "profile", help="Whose rules hold: native, diffusers, a1111, comfy"),
        "fast": _flag(
            bool,
            "",
            lambda wanted: {"fast": FAST if wanted else None},
            declare=("--fast",),
            help="About twice as fast, and nearly the same",
        ),
        "memory": _flag(str, "memory", metavar="SIZE", help="How much may be taken, like 8GB; else what is free"),
        "device": _flag(str, "device", metavar="NAME", help="cpu, cuda, cuda:1, mps; else the first GPU there is"),
        "dtype": _flag(str, "dtype", metavar="NAME", help="float32, bfloat16 or float16, of the networks"),
    }
)

WALK = ("seed", "steps", "guidance", "sampler", "spacing", "negative", "size")
PICTURE = (
    *WALK,
    "init",
    "strength",
    "reference",
    "mask",
    "extend",
    "hires",
    "hires_strength",
    "hires_steps",
    "lora",
    "profile",
    "fast",
    "memory",
    "device",
    "dtype",
)
