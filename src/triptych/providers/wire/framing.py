"""A size in pixels for models that take an aspect ratio."""

from dataclasses import replace

from triptych.errors import InvalidField
from triptych.types import Card, Request

__all__ = ["framed"]

RATIO = 0.02  # how far a size may be from an aspect ratio that is named, as a share


def framed(card: Card, request: Request) -> tuple[Request, list[str]]:
    """The request with its size as an aspect ratio, where that is what the card takes. Raises InvalidField."""
    field = card.fields.get("aspect_ratio")
    given = (request.width, request.height)
    if field is None or None in given or {axis.name for axis in card.axes} & {"width", "height"}:
        return request, []
    wanted = given[0] / given[1]  # type: ignore[operator]  # neither is None
    ratios = {choice: _ratio(choice) for choice in field.choices if ":" in choice}
    near = [choice for choice, ratio in ratios.items() if abs(ratio / wanted - 1) <= RATIO]
    if not near or request.options.get("aspect_ratio") not in (None, *near):
        raise InvalidField("size", "{}x{}".format(*given), f"for {card.name} a size of {', '.join(ratios)}")
    best = min(near, key=lambda choice: abs(ratios[choice] - wanted))
    options = {**request.options, "aspect_ratio": best}
    told = f"{card.name} takes an aspect ratio, not a size: {best} was asked for {given[0]} x {given[1]}"
    return replace(request, width=None, height=None, options=options), [told]


def _ratio(text: str) -> float:
    wide, high = text.split(":")
    return float(wide) / float(high)
