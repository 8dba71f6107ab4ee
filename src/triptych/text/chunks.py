"""Texts of any length for towers that read 75 tokens at a time: cut into chunks, and nothing is lost.

A chunk that is full ends at its last comma, if that is near; what follows the comma begins the next one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

from torch import Tensor, tensor

from triptych.text.clip_tokens import COMMA, LENGTH, padded
from triptych.text.prompts import Piece, Sections

__all__ = ["Chunk", "Items", "chunked", "framed", "level"]

Items = Callable[[str], Sequence[tuple[int, ...]]]
"""A text to ids; those of one tuple are never cut apart."""


@final
@dataclass(frozen=True, slots=True)
class Chunk:
    """At most LENGTH ids, and the weight of each."""

    ids: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()


def chunked(sections: Sections, items: Items, *, backtrack: int = 0, whole: int = 0) -> tuple[Chunk, ...]:
    """What sections say, each in chunks of its own; one empty chunk if they say nothing.

    backtrack: how many tokens after a comma move on with what no longer fits; whole: pieces with fewer tokens than
    that are moved on rather than cut.
    """
    filling = _Filling(backtrack)
    for number, section in enumerate(sections):
        if number:
            filling.close()
        for piece in section:
            filling.take(piece, items(piece.text), whole)
    return filling.finish()


def level(rows: Sequence[tuple[Chunk, ...]]) -> list[tuple[Chunk, ...]]:
    """All of them with empty chunks up to the count of the longest."""
    most = max(len(row) for row in rows)
    return [row + (Chunk(),) * (most - len(row)) for row in rows]


def framed(chunks: Sequence[Chunk], pad: int) -> tuple[Tensor, Tensor]:
    """Chunks as a tower reads them: ids (N, LENGTH + 2) and weights of the same shape, 1 for what was added."""
    ids = [padded(chunk.ids, pad) for chunk in chunks]
    weights = [[1.0, *chunk.weights] + [1.0] * (LENGTH + 1 - len(chunk.weights)) for chunk in chunks]
    return tensor(ids), tensor(weights)


class _Filling:
    """The chunks that are full, and the one that is being filled."""

    def __init__(self, backtrack: int) -> None:
        self.backtrack = backtrack
        self.chunks: list[Chunk] = []
        self.ids: list[int] = []
        self.weights: list[float] = []
        self.comma: int | None = None  # where the last comma of this chunk is

    def take(self, piece: Piece, items: Sequence[tuple[int, ...]], whole: int) -> None:
        length = sum(len(item) for item in items)
        if length < whole and len(self.ids) + length > LENGTH:
            self.close()
        for item in items:
            self._add(item, piece.weight)

    def close(self, count: int | None = None) -> None:
        """Ends the chunk, after `count` of its tokens unless after all; the next one begins with the others."""
        count = len(self.ids) if count is None else count
        self.chunks.append(Chunk(tuple(self.ids[:count]), tuple(self.weights[:count])))
        self.ids, self.weights, self.comma = self.ids[count:], self.weights[count:], None

    def finish(self) -> tuple[Chunk, ...]:
        if self.ids or not self.chunks:
            self.close()
        return tuple(self.chunks)

    def _add(self, item: tuple[int, ...], weight: float) -> None:
        full = len(self.ids) == LENGTH
        if item == (COMMA,):
            self.comma = len(self.ids)
        elif full and self.comma is not None and LENGTH - self.comma <= self.backtrack:
            self.close(self.comma + 1)
        if len(self.ids) + len(item) > LENGTH:
            self.close()
        self.ids += item
        self.weights += [weight] * len(item)
