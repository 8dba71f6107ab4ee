"""ComfyUI's graph as it is run: nodes by number, whose inputs are values or links to other nodes' outputs."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final, TypeVar, final

from triptych.errors import FileProblem, NoRecipe

__all__ = ["Graph", "Node", "graph"]

V = TypeVar("V", int, float, str)

MOST: Final = 10_000  # nodes that are read from one file
HOLDERS: Final = ("value", "text", "string", "seed", "noise_seed", "int", "float", "number", "prompt", "Value", "Text")
REROUTES: Final = ("Reroute", "PrimitiveNode", "ShowText", "PreviewAny")


@final
@dataclass(frozen=True, slots=True)
class Node:
    """One node: its number, its class and what goes into it."""

    id: str
    kind: str
    inputs: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.kind[:60]} (node {self.id[:20]})"


@final
class Graph:
    """Nodes, and how to follow links against the flow. Links that lead nowhere and cycles end a way, and no more."""

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self.nodes = nodes

    def at(self, node: Node, name: str) -> Node | None:
        """The node that an input comes from, behind those that only hand on."""
        found, seen = self._linked(node.inputs.get(name)), set[str]()
        while found is not None and found.id not in seen and found.kind.startswith(REROUTES):
            seen.add(found.id)
            found = next(self.sources(found), None)
        return found

    def value(self, node: Node, name: str, kind: type[V]) -> V | None:
        """The value of an input, found at its origin where it is linked; None where there is none of this kind."""
        given, seen = node.inputs.get(name), set[str]()
        while (source := self._linked(given)) is not None:
            if source.id in seen:
                return None
            seen.add(source.id)
            given = self._held(source, kind)
        return _as(given, kind)

    def sources(self, node: Node, without: Iterable[str] = ()) -> Iterator[Node]:
        """The nodes that a node's inputs come from."""
        for name, given in node.inputs.items():
            source = self._linked(given)
            if source is not None and name not in without:
                yield source

    def behind(self, starts: Iterable[Node], without: Iterable[str] = ()) -> Iterator[Node]:
        """All that these and what lies behind them come from, the nearest first, these among them."""
        left, seen = list(starts), set[str]()
        for node in left:
            if node.id not in seen:
                seen.add(node.id)
                yield node
                left += self.sources(node, without)

    def _held(self, node: Node, kind: type[V]) -> object:
        """What a node that holds a value holds, or the link that it has it from."""
        values = [node.inputs[name] for name in HOLDERS if name in node.inputs]
        if node.kind.startswith(REROUTES):
            values += node.inputs.values()
        literal = next((value for value in values if _as(value, kind) is not None), None)
        return literal if literal is not None else next((one for one in values if self._linked(one)), None)

    def _linked(self, given: object) -> Node | None:
        match given:
            case [str() | int() as number, int()]:
                return self.nodes.get(str(number))
            case _:
                return None


def graph(text: str, where: str) -> Graph:
    """The graph of a `prompt` in ComfyUI's words. Raises NoRecipe where it is none, FileProblem if too large."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as problem:
        raise NoRecipe(f"{where}: the workflow inside is no JSON that can be read ({problem}).") from problem
    if not isinstance(found, dict):
        raise NoRecipe(f"{where}: the workflow inside is no graph of nodes.")
    if len(found) > MOST:
        raise FileProblem(f"{where}: the workflow inside has {len(found)} nodes; at most {MOST} are read.")
    nodes = {}
    for name, entry in found.items():
        match entry:
            case {"class_type": str(kind), "inputs": dict(inputs)}:
                nodes[name] = Node(name, kind, inputs)
    if not nodes:
        raise NoRecipe(f"{where}: the workflow inside is no graph as ComfyUI runs it.")
    return Graph(nodes)


def _as(given: object, kind: type[V]) -> V | None:
    """The value if it is of this kind, or a whole number written the other way."""
    if isinstance(given, bool) or not isinstance(given, (str,) if kind is str else (int, float)):
        return None
    if isinstance(given, str):
        return kind(given)
    whole = isinstance(given, int) or (isfinite(given) and given == int(given))
    fits = whole if kind is int else abs(given) < 1e300
    return kind(given) if fits else None
