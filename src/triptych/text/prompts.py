"""How much each part of a text weighs, in the three notations that people's prompts are written in.

a1111: `(a)` weighs 1.1, `[a]` 1 / 1.1, `(a:1.3)` 1.3; they multiply; `BREAK` parts sections. comfy: `(a)` multiplies
by 1.1, `(a:1.3)` weighs 1.3 wherever it stands, all else is text. literal: all is text. None of them raises.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Final, final

__all__ = ["Piece", "Sections", "a1111", "comfy", "literal"]


@final
@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text, and its weight."""

    text: str
    weight: float = 1.0


Sections = tuple[tuple[Piece, ...], ...]
"""What a text says, cut where it asks for it."""


def literal(text: str) -> Sections:
    """As it is, as diffusers takes it."""
    return ((Piece(text),),)


def a1111(text: str) -> Sections:
    """As AUTOMATIC1111's web UI takes it at one step. What does not close holds up to the end of the text.

    A `BREAK` inside brackets parts sections too; there the web UI reads it as a word of negative weight.
    """
    weighing = _Weighing()
    for match in _A1111.finditer(text):
        weighing.take(match)
    return weighing.finish()


def comfy(text: str) -> Sections:
    """As ComfyUI takes it."""
    hidden = text.replace("\\)", _CLOSE).replace("\\(", _OPEN)
    pieces = tuple(_comfy(hidden, 1.0))
    return (tuple(Piece(p.text.replace(_CLOSE, ")").replace(_OPEN, "("), p.weight) for p in pieces),)


_BREAK: Final = re.compile(r"\s*\bBREAK\b\s*")
_A1111: Final = re.compile(
    r"\\(?P<escaped>[()\[\]\\]?)"
    r"|(?P<open>[(\[])"
    r"|(?P<close>:\s*(?P<weight>[+-]?(?:\d+\.?\d*|\.\d+))\s*\)|[)\]])"
    r"|[^\\()\[\]:]+|:"
)
_FACTORS: Final = {"(": 1.1, "[": 1 / 1.1}
_OPEN, _CLOSE = "\0\2", "\0\1"  # stand for escaped brackets, as in ComfyUI


class _Weighing:
    """Brackets of each kind have a stack of their own: those of one kind may close inside those of the other."""

    def __init__(self) -> None:
        self.texts: list[str | None] = []  # None where a section ends
        self.weights: list[float] = []
        self.open: dict[str, list[int]] = {"(": [], "[": []}

    def take(self, match: re.Match[str]) -> None:
        bracket = "[" if match["close"] == "]" else "("
        if match["escaped"] is not None:
            self._add(match["escaped"])
        elif match["open"]:
            self.open[match["open"]].append(len(self.texts))
        elif match["close"] and self.open[bracket]:
            self._close(bracket, float(match["weight"] or _FACTORS[bracket]))
        else:
            self._sections(match[0])

    def finish(self) -> Sections:
        for bracket, begun in self.open.items():
            while begun:
                self._close(bracket, _FACTORS[bracket])
        return _joined(self.texts, self.weights)

    def _add(self, text: str | None) -> None:
        self.texts.append(text)
        self.weights.append(1.0)

    def _sections(self, text: str) -> None:
        first, *others = _BREAK.split(text)
        self._add(first)
        for other in others:
            self._add(None)
            self._add(other)

    def _close(self, bracket: str, factor: float) -> None:
        for n in range(self.open[bracket].pop(), len(self.weights)):
            self.weights[n] *= factor


def _joined(texts: list[str | None], weights: list[float]) -> Sections:
    """Neighbours of one weight are one piece, since a tokenizer sees them together."""
    sections: list[list[Piece]] = [[]]
    for text, weight in zip(texts, weights, strict=True):
        last = sections[-1]
        if text is None:
            sections.append([])
        elif last and last[-1].weight == weight:
            last[-1] = Piece(last[-1].text + text, weight)
        else:
            last.append(Piece(text, weight))
    return tuple(tuple(section) for section in sections)


def _comfy(text: str, weight: float) -> Iterator[Piece]:
    for part in _outermost(text):
        if part[0] != "(" or part[-1] != ")" or len(part) < 2:
            yield Piece(part, weight)
            continue
        inside, colon, number = part[1:-1].rpartition(":")
        said = _number(number) if colon and inside else None
        if said is None:
            yield from _comfy(part[1:-1], weight * 1.1)
        else:
            yield from _comfy(inside, said)


def _outermost(text: str) -> Iterator[str]:
    """Parts of a text that together are all of it: outermost brackets, and what stands between them."""
    depth, start = 0, 0
    for n, letter in enumerate(text):
        if letter == "(" and depth == 0:
            if n > start:
                yield text[start:n]
            start = n
        depth += (letter == "(") - (letter == ")")
        if letter == ")" and depth == 0:
            yield text[start : n + 1]
            start = n + 1
    if start < len(text):
        yield text[start:]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if isfinite(number) else None
