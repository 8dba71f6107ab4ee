"""What the local machine does for pictures beyond one walk: a canvas that is extended, a second walk that is larger.

Both are options of the request, whatever the model: an extension lays the init on a larger canvas whose new part may
change, and pastes the old pixels back; a second walk starts from the first one's result, enlarged.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from math import floor, log, prod, sqrt

from triptych.errors import InvalidField
from triptych.media.margins import Margins
from triptych.types import Axis, Card, Field, Request

__all__ = [
    "fields",
    "fitting",
    "margins",
    "on_canvas",
    "pastes",
    "rounded",
    "second",
    "settled",
    "usual",
    "widened",
]

STRENGTH = 0.95  # of an extension: the fill says little more than which colours go on
SECOND = 0.5  # the share of the path that a second walk takes

HIRES: Mapping[str, Field] = {
    "hires": Field("float", minimum=1.1, maximum=4, help="a second walk at so many times the size"),
    "hires_strength": Field(
        "float", minimum=0.01, maximum=1, help="the share of the path of that walk; 0.5 unless told"
    ),
    "hires_steps": Field(
        "int", minimum=1, maximum=1000, help="of the whole path of that walk; as many as steps unless told"
    ),
}
MASKED: Mapping[str, Field] = {
    "extend": Field("str", minimum=1, maximum=100, help="pixels to draw around the init: left=128,top=64"),
    "paste": Field(
        "str", choices=("kept", "nothing"), help="whether what a mask keeps is the init's own pixels in the end"
    ),
}


def fields(card: Card) -> Mapping[str, Field]:
    """What can be asked of this card besides what it names itself."""
    if card.media != "image" or not {"init", "strength"} <= card.fields.keys():
        return {}
    return {**HIRES, **(MASKED if "mask" in card.fields else {})}


def on_canvas(card: Card, request: Request, size: tuple[int, int]) -> Request:
    """The request with the size of its extended canvas, and a strength. size: (width, height) of the init.

    Raises InvalidField.
    """
    card.fields["extend"].check("extend", request.options["extend"])
    whole = margins(card, request, size).around(size)
    for name, length, given in zip(("width", "height"), whole, (request.width, request.height), strict=True):
        axis = _axis(card, name)
        if given not in (None, length):
            raise InvalidField(name, given, f"{length} with this extend", "Leave the size out.")
        if not axis.minimum <= length <= axis.maximum:
            allowed = f"a {name} of {axis.allowed()}"
            raise InvalidField("extend", f"{request.options['extend']} ({whole[0]} x {whole[1]} in all)", allowed)
    usual = max(STRENGTH, card.fields["strength"].default)  # a whole walk of a model that is made for this
    strength = usual if request.strength is None else request.strength
    return replace(request, width=whole[0], height=whole[1], strength=strength)


def margins(card: Card, request: Request, size: tuple[int, int]) -> Margins:
    """What the extension adds to an init of this (width, height), rounded up to sizes that the card can make.

    The rounding goes to a side that is extended, else to the right or the bottom. Raises InvalidField.
    """
    asked = _parsed(request.options["extend"])
    width, height = asked.around(size)
    wider, higher = (_missing(_axis(card, name), length) for name, length in (("width", width), ("height", height)))
    first = "left" if asked.left and not asked.right else "right"
    second = "top" if asked.top and not asked.bottom else "bottom"
    return replace(asked, **{first: getattr(asked, first) + wider, second: getattr(asked, second) + higher})


def usual(card: Card, size: tuple[int, int]) -> tuple[int, int]:
    """The (width, height) that a picture of this one is made at: the same, or of a card that says so of its area."""
    area = card.settings.get("area")
    return size if area is None else _of_area(card, size, area)


def fitting(card: Card, request: Request, name: str, size: tuple[int, int]) -> tuple[int, int]:
    """The (width, height) that an input of this one is shown to the model at: that of what is made; of inputs that a
    card lists by "sizes", their "own" or one of the same "area" as what is made."""
    width, height = request.width or 0, request.height or 0
    match card.settings.get("sizes", {}).get(name):
        case "own":
            return size
        case "area":
            return _of_area(card, size, width * height)
        case _:
            return width, height


def settled(card: Card, request: Request) -> Request:
    """A resolved request with what its second walk does unless told. Raises InvalidField where parts do not fit."""
    options = dict(request.options)
    if "hires" in options:
        options = {"hires_strength": SECOND, "hires_steps": request.steps, **options}
    for name, needed in (("hires_strength", "hires"), ("hires_steps", "hires"), ("extend", "init"), ("paste", "mask")):
        there = needed in options or needed in request.inputs or (needed == "mask" and "extend" in options)
        if name in options and not there:
            raise InvalidField(name, options[name], f"only beside {needed}")
    for other in ({"mask"} & request.inputs.keys()) | ({"hires"} & options.keys()):
        if "extend" in options:
            advice = f"Extend first, then give the result as init with {other}."
            raise InvalidField("extend", options["extend"], f"none beside {other}", advice)
    found = replace(request, options=options)
    second(card, found)
    return found


def second(card: Card, request: Request) -> Request | None:
    """The second walk of a settled request, of the nearest size that the card can make; None where there is none.

    Raises InvalidField where that is too large.
    """
    factor = request.options.get("hires")
    if factor is None:
        return None
    width, height = (_times(card, name, getattr(request, name), factor) for name in ("width", "height"))
    strength, steps = request.options["hires_strength"], request.options["hires_steps"]
    return replace(request, width=width, height=height, strength=strength, steps=steps)


def pastes(request: Request) -> bool:
    """Whether the init's own pixels replace what was decoded, where nothing may change."""
    unless_told = "kept" if "extend" in request.options else "nothing"
    return bool(request.options.get("paste", unless_told) == "kept")


def rounded(card: Card, request: Request) -> list[str]:
    """What has to be said of a second walk that is not exactly as large as was asked."""
    larger, factor = second(card, request), request.options.get("hires")
    if larger is None or all(getattr(larger, name) == factor * getattr(request, name) for name in ("width", "height")):
        return []
    return [f"hires {factor:g} was rounded to {larger.width} x {larger.height}, a size that {card.name} can make"]


def widened(card: Card, request: Request, size: tuple[int, int]) -> list[str]:
    """What has to be said of an extension that is larger than was asked. size: (width, height) of the init."""
    given = margins(card, request, size)
    if given == _parsed(request.options["extend"]):
        return []
    whole = "{} x {}".format(*given.around(size))
    return [f"extend was rounded up to {given}: {card.name} makes {whole} in all"]


def _parsed(text: str) -> Margins:
    found: dict[str, int] = {}
    for part in text.split(","):
        said = re.fullmatch(r"\s*(left|top|right|bottom)\s*=\s*(\d{1,5})\s*", part)
        if said is None or said[1] in found:
            allowed = "left, top, right and bottom in pixels, each once, like left=128,top=64"
            raise InvalidField("extend", text, allowed)
        found[said[1]] = int(said[2])
    if not any(found.values()):
        raise InvalidField("extend", text, "a side of at least one pixel")
    return Margins(**found)


def _axis(card: Card, name: str) -> Axis:
    return next(axis for axis in card.axes if axis.name == name)


def _of_area(card: Card, size: tuple[int, int], area: int) -> tuple[int, int]:
    """Of the four (width, height) around so many pixels of the aspect of this one, all of which the card can make, the
    one whose aspect is nearest."""
    factor = sqrt(area / prod(size))
    widths, heights = (
        _around(_axis(card, name), length * factor) for name, length in zip(("width", "height"), size, strict=True)
    )
    return min(product(widths, heights), key=lambda found: abs(log(found[0] * size[1] / (found[1] * size[0]))))


def _around(axis: Axis, length: float) -> tuple[int, int]:
    """The lengths of the form multiple x k + offset next to this one, within the axis."""
    below = floor((length - axis.offset) / axis.multiple) * axis.multiple + axis.offset
    least, most = (min(max(found, axis.minimum), axis.maximum) for found in (below, below + axis.multiple))
    return int(least), int(most)


def _missing(axis: Axis, length: int) -> int:
    """Pixels up to the next length of the form multiple x k + offset."""
    return (axis.offset - length) % axis.multiple


def _times(card: Card, name: str, length: int, factor: float) -> int:
    """The length of the form multiple x k + offset that is nearest to so many times this one. Raises InvalidField."""
    axis = _axis(card, name)
    found = round((length * factor - axis.offset) / axis.multiple) * axis.multiple + axis.offset
    if found > axis.maximum:
        advice = f"{factor:g} times {length} is {found} pixels."
        raise InvalidField("hires", factor, f"a {name} of {axis.allowed()}", advice)
    return found
