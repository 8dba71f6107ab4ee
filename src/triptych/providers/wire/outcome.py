"""What came of a ticket: its files as artifacts with the recipe inside, what it cost, or why there is nothing."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

from triptych.errors import (
    BadAnswer,
    Cancelled,
    Expired,
    FileProblem,
    InDoubt,
    PriceUnknown,
    ProviderError,
    Refused,
    TriptychError,
    Unreachable,
)
from triptych.media import tagged
from triptych.providers.recipe import recipe
from triptych.providers.wire import tables
from triptych.providers.wire.book import Book, Leaf
from triptych.types import Artifact, Card, Price, Request, Result

__all__ = ["result"]

NOTHING = ("failed", "moderated", "cancelled")  # how a leaf ends that made nothing


def result(vendor: str, card: Card, request: Request, book: Book, price: Callable[[Request], Price]) -> Result:
    """What all leaves made. Raises what ended them where there is nothing, with what it cost all the same, if that is
    told; BadAnswer where it is no such medium."""
    made = [leaf for leaf in book.leaves if leaf.made]
    if not made:
        doubtful = (leaf for leaf in book.leaves if leaf.sent == "doubt")
        problem = _ended(next(doubtful, book.leaves[0]), tables.spec(vendor).title)
        if isinstance(problem, ProviderError):
            problem.cost = sum(leaf.cost or 0.0 for leaf in book.leaves if leaf.sent == "yes" and leaf.state in NOTHING)
        raise problem
    warnings = [f"{leaf.count} of {request.count} failed: {leaf.reason}" for leaf in book.leaves if not leaf.made]
    fewer = [leaf for leaf in made if len(leaf.files) < leaf.count]
    warnings += [f"{len(leaf.files)} of {leaf.count} came{f': {leaf.reason}' if leaf.reason else ''}" for leaf in fewer]
    told = _recipe(vendor, card, request, made)
    artifacts, broken = list[Artifact](), list[BadAnswer]()
    for leaf in made:
        for place, name in enumerate(leaf.files):
            one = {**told, "index": leaf.first + place} if request.count > 1 else told
            try:
                artifacts.append(_artifact(book, name, card, one))
            except BadAnswer as problem:
                broken.append(problem)
    if not artifacts:
        raise broken[0]
    warnings += [f"1 of {request.count} is lost: {problem}" for problem in broken]
    cost, source = _cost(book, request, price)
    return Result(tuple(artifacts), told, cost, tuple(warnings), source)


def _recipe(vendor: str, card: Card, request: Request, made: list[Leaf]) -> dict[str, Any]:
    known = tables.entry(card)
    model = {"name": card.name, "provider": vendor, "license": card.license}
    model |= {"id": known.id or known.name} if known else {}
    said = [dict(leaf.told) for leaf in made if leaf.told]
    return recipe(request, model, {"told": said} if said else {})


def _cost(
    book: Book, request: Request, price: Callable[[Request], Price]
) -> tuple[float | None, Literal["usage", "list", ""]]:
    """What the answers say it cost, and what the list says of the rest that was made, or may have been; None where
    nobody knows."""
    made = [leaf for leaf in book.leaves if leaf.made]
    told = sum(leaf.cost for leaf in book.leaves if leaf.cost is not None)
    lost = [leaf for leaf in book.leaves if leaf.sent == "doubt" or leaf.state == "expired"]
    untold = sum(min(leaf.count, len(leaf.files)) for leaf in made if leaf.cost is None)
    untold += sum(leaf.count for leaf in lost if leaf.cost is None)
    if not untold:
        return told, "usage"
    try:
        return told + price(replace(request, count=untold)).most, "list"
    except PriceUnknown:
        return None, ""


def _ended(leaf: Leaf, title: str) -> TriptychError:
    """The error of a leaf that made nothing."""
    reason = leaf.reason or leaf.status
    match leaf.state:
        case "moderated":
            return Refused(f"{title} refuses it by its rules: {reason or 'it gives no reason'}.")
        case "cancelled":
            return Cancelled(f"{title} stopped it: {reason or 'it gives no reason'}.")
        case "expired" if not leaf.kind:
            return Expired(f"{title} no longer has it: {reason or 'it gives no reason'}.")
        case "succeeded":
            return BadAnswer(f"{title} says that it is done, and gave nothing.")
    kinds = {kind.__name__: kind for kind in (BadAnswer, Expired, InDoubt, Unreachable)}
    kind = kinds.get(leaf.kind, ProviderError)
    return kind(reason if leaf.kind else f"{title} failed: {reason or 'it gives no reason'}.")


def _artifact(book: Book, name: str, card: Card, told: Mapping[str, Any]) -> Artifact:
    """A result with the recipe inside. Raises BadAnswer where it is no such medium; the file stays."""
    try:
        return tagged.tagged(tagged.checked(book.data(name), "the result", card.media), told)
    except FileProblem as problem:
        raise BadAnswer(f"{problem} It is kept as {book.folder / name}.") from None
