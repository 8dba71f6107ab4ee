"""Prompts that change as the walk goes on, as AUTOMATIC1111's web UI reads them.

`[from:to:when]` becomes `to` after step `when`, `[to:when]` appears and `[from::when]` goes then; a `when` with a point
in it is a share of the steps. `[a|b|c]` takes turns, step by step. They nest. What does not read so is text.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, final

__all__ = ["Alternate", "Nodes", "Prompt", "Switch", "read"]

Nodes = tuple["str | Switch | Alternate", ...]


@final
@dataclass(frozen=True, slots=True)
class Switch:
    """One thing up to and including a step, another after it."""

    before: Nodes
    after: Nodes
    when: float
    share: bool  # whether `when` is a share of the steps, or else a number of steps

    def last(self, steps: int) -> int:
        """The last step, counted from 1, that `before` holds for."""
        return int(min(steps, self.when * steps if self.share else self.when))

    def at(self, step: int, steps: int) -> Nodes:
        """What holds at a step, counted from 1."""
        return self.before if step <= self.last(steps) else self.after


@final
@dataclass(frozen=True, slots=True)
class Alternate:
    """Each in its turn, a step each."""

    options: tuple[Nodes, ...]

    def at(self, step: int, steps: int) -> Nodes:
        """What holds at a step, counted from 1."""
        return self.options[(step - 1) % len(self.options)]


@final
@dataclass(frozen=True, slots=True)
class Prompt:
    """Text, and what changes in it."""

    nodes: Nodes

    def at(self, step: int, steps: int) -> str:
        """The text at a step, counted from 1, of so many."""
        return "".join(_texts(self.nodes, step, steps))

    def schedule(self, steps: int) -> tuple[tuple[int, str], ...]:
        """Every text in its order, with the last step, counted from 1, that it holds for."""
        texts = [self.at(step, steps) for step in range(1, steps + 1)]
        ends = [step for step in range(1, steps) if texts[step - 1] != texts[step]] + [steps]
        return tuple((step, texts[step - 1]) for step in ends)


def read(text: str) -> Prompt:
    """What a prompt says. Never raises: brackets that do not close, or close what they did not open, are text.

    A bar or a backslash that stands outside all brackets makes all of it text.
    """
    reader = _Reader()
    for match in _TOKEN.finditer(text):
        reader.take(match.group())
    nodes = reader.finish()
    return Prompt((text,) if nodes is None else nodes)


_TOKEN: Final = re.compile(r"(?:[^\\\[\]():|]|\\.)+|[\\\[\]():|]")
_WHEN: Final = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*")
_PAIRS: Final = {")": "(", "]": "["}


def _texts(nodes: Nodes, step: int, steps: int) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, str):
            yield node
        else:
            yield from _texts(node.at(step, steps), step, steps)


@dataclass(slots=True)
class _Open:
    """A bracket that has not closed yet, and what stands in it, in parts between its separators."""

    bracket: str
    parts: list[list["str | Switch | Alternate"]] = field(default_factory=lambda: [[]])
    separator: str = ""

    def text(self) -> Nodes:
        """All of it as it was written."""
        inside = self.parts[0] + [node for part in self.parts[1:] for node in (self.separator, *part)]
        return self.bracket, *inside


class _Reader:
    """Shifts tokens onto a stack of open brackets, and reduces those that close: any nesting, in linear time."""

    def __init__(self) -> None:
        self.done: list[str | Switch | Alternate] = []
        self.open: list[_Open] = []
        self.plain = False  # whether all of it is text

    def take(self, token: str) -> None:
        if token in "([":
            self.open.append(_Open(token))
        elif token in ")]":
            self._close(token)
        elif token in ":|":
            self._separate(token)
        else:
            self._add(token)
            self.plain = self.plain or token == "\\"

    def finish(self) -> Nodes | None:
        """What was read, or None if all of it is text."""
        self._spill()
        return None if self.plain else tuple(self.done)

    def _add(self, *nodes: "str | Switch | Alternate") -> None:
        (self.open[-1].parts[-1] if self.open else self.done).extend(nodes)

    def _spill(self) -> None:
        """Open brackets that can no longer mean anything are text, and so are all around them."""
        for opened in self.open:
            self.done.extend(opened.text())
            self.plain = self.plain or opened.separator == "|"
        self.open.clear()

    def _separate(self, token: str) -> None:
        top = self.open[-1] if self.open else None
        if top is not None and _separable(top, token):
            top.separator = token
            top.parts.append([])
            return
        self._spill()
        self._add(token)
        self.plain = self.plain or token == "|"

    def _close(self, token: str) -> None:
        closed = _reduced(self.open[-1], token) if self.open else None
        if closed is None:
            self._spill()
            self._add(token)
        else:
            self.open.pop()
            self._add(*closed)


def _separable(opened: _Open, token: str) -> bool:
    if opened.bracket == "(":
        return token == ":" and len(opened.parts) == 1
    return opened.separator in ("", token)


def _reduced(opened: _Open, token: str) -> Nodes | None:
    """What brackets and what is in them mean; None if they mean nothing."""
    if opened.bracket != _PAIRS[token]:
        return None
    if opened.bracket == "(" or not opened.separator:
        return *opened.text(), token
    if opened.separator == "|":
        return (Alternate(tuple(tuple(part) for part in opened.parts)),)
    *parts, last = opened.parts
    when = _WHEN.fullmatch(last[0]) if len(last) == 1 and isinstance(last[0], str) else None
    if when is None or len(parts) > 2:
        return None
    before = tuple(parts[0]) if len(parts) == 2 else ()
    return (Switch(before, tuple(parts[-1]), float(when[1]), "." in when[1]),)
