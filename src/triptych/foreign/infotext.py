"""The text that AUTOMATIC1111's web UI writes, taken apart: the prompt, `Negative prompt: ...`, one line of pairs.

A value with a comma, a colon or a line break in it is quoted as JSON; some programs write bare JSON instead.
"""

import json
import re
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Final, TypeVar, final

from triptych.foreign.told import short

__all__ = ["Pairs", "parsed", "parsed_pairs"]

N = TypeVar("N", int, float)

KNOWN: Final = frozenset(("Steps", "Sampler", "CFG scale", "Seed", "Size", "Model", "Model hash", "Version"))
LEAST = 3  # pairs that make a line the last, as the web UI itself counts
NEGATIVE = "Negative prompt:"


def parsed(text: str) -> tuple[str, str, dict[str, str]]:
    """(prompt, negative prompt, pairs); no pairs where the text is something else."""
    lines = text.replace("\r\n", "\n").strip().split("\n")
    pairs: list[dict[str, str]] = []
    for line in reversed(lines):
        pairs.append(parsed_pairs(line))
        if len(pairs[-1].keys() & KNOWN) >= LEAST:
            prompt, negative = _prompts(lines[: -len(pairs)])
            return prompt, negative, {key: value for part in reversed(pairs) for key, value in part.items()}
    return "", "", {}


def _prompts(lines: list[str]) -> tuple[str, str]:
    """As the web UI: from the first line that begins so, all is negative."""
    stripped = [line.strip() for line in lines]
    start = next((n for n, line in enumerate(stripped) if line.startswith(NEGATIVE)), len(stripped))
    negative = "\n".join(stripped[start:]).removeprefix(NEGATIVE)
    return "\n".join(stripped[:start]).strip(), negative.strip()


_PAIR: Final = re.compile(
    r'\s*(?P<key>[^:,"\n]{1,80}?)\s*:\s*(?P<value>"(?:\\.|[^"\\])*"|\{[^}]{0,4999}\}|\[[^\]]{0,4999}\]|[^,]*)[^,]*(?:,|$)'
)
_REST: Final = re.compile(r"[^,]*(?:,|$)")


def parsed_pairs(line: str) -> dict[str, str]:
    """Every `key: value` of a line; what is no pair is left out."""
    found: dict[str, str] = {}
    place = 0
    while place < len(line):
        match = _PAIR.match(line, place)
        if match is not None:
            found.setdefault(match["key"], _unquoted(match["value"].strip()))
        place = (match or _REST.match(line, place)).end()  # type: ignore[union-attr]  # the latter always matches
    return found


def _unquoted(value: str) -> str:
    if value[:1] != '"':
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value


@final
class Pairs:
    """The pairs, each taken once by whoever understands it; `lost` is what could not be understood."""

    def __init__(self, pairs: Mapping[str, str]) -> None:
        self.left = dict(pairs)
        self.lost: list[str] = []

    def take(self, name: str) -> str:
        """The value, empty where there is none."""
        return self.left.pop(name, "").strip()

    def number(self, name: str, kind: Callable[[str], N]) -> N | None:
        """The value as a number; one that is none is lost."""
        text = self.take(name)
        try:
            number = kind(text) if text else None
        except ValueError:
            number = None
        if number is not None and isfinite(number):
            return number
        self.lost += [f"{name}: {short(text)} is not a number that is understood here."] if text else []
        return None

    def has(self, pattern: str) -> bool:
        """Whether there is a pair whose name begins so."""
        return any(re.match(pattern, name) for name in self.left)

    def matching(self, pattern: str) -> str:
        """All pairs whose names begin so, taken, as one text; empty where there are none."""
        names = [name for name in self.left if re.match(pattern, name)]
        return short(", ".join(f"{name}: {short(self.left.pop(name))}" for name in names), 400)
