"""Amounts as a picture: horizontal bars of what has names, columns of what has days; PIL alone.

A bar is made of parts, one colour each, and every bar of a picture is drawn to one scale that begins at 0.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

from PIL import Image, ImageDraw, ImageFont

__all__ = ["Bar", "bars", "columns"]

INK, PAPER, FAINT, RULE = (32, 32, 36), (255, 255, 255), (120, 120, 128), (224, 224, 228)
COLOURS: Final = ((59, 15, 112), (222, 73, 104), (254, 159, 109), (86, 153, 198), (170, 170, 178), (60, 60, 60))
WIDTH, EDGE, LINE, HEIGHT = 800, 12, 20, 260  # pixels: of the picture, around it, of a line of text, of columns
NAMES = 220  # pixels for names beside bars, at most
WIDEST, THINNEST = 48, 2  # pixels a column may take
MOST = 40  # bars; what is beyond is drawn together as the last
Words = Callable[[float], str]
Box = tuple[float, float, float, float]


@final
@dataclass(frozen=True, slots=True)
class Bar:
    """parts: amounts of 0 or more, by name; those of one name have one colour. note: what no length can show."""

    name: str
    parts: Mapping[str, float]
    note: str = ""

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def bars(given: Sequence[Bar], parts: Sequence[str], title: str, words: Words) -> Image.Image:
    """One bar a line, its name on the left and what it comes to on the right. words: an amount, for people."""
    shown = _few(given)
    font = ImageFont.load_default(12)
    names = [_cut(bar.name, font, NAMES) for bar in shown]
    amounts = [
        bar.note if bar.note and not bar.total else f"{words(bar.total)}{bar.note and ', '}{bar.note}" for bar in shown
    ]
    left = EDGE + _widest(names, font) + 8
    right = WIDTH - EDGE - _widest(amounts, font) - 8
    top = EDGE + 2 * LINE + 8
    image, draw = _page(WIDTH, top + LINE + (LINE + 4) * max(len(shown), 1) + EDGE, title, _there(shown, parts))
    scale, ticks = _scale(shown)
    for tick in ticks:
        x = left + (right - left) * tick / scale
        draw.line([(x, top + LINE), (x, image.height - EDGE)], fill=RULE)
        draw.text((x, top + LINE - 4), words(tick), FAINT, font, anchor="ms")
    for number, (bar, name, amount) in enumerate(zip(shown, names, amounts, strict=True)):
        y = top + LINE + number * (LINE + 4) + 2
        draw.text((left - 8, y + LINE / 2), name, INK, font, anchor="rm")
        end = float(left)
        for begin, share, colour in _pieces(bar, parts, scale):
            end = left + (right - left) * (begin + share)
            _fill(draw, (left + (right - left) * begin, y, end, y + LINE), colour)
        draw.text((end + 8, y + LINE / 2), amount, INK, font, anchor="lm")
    return _empty(image, draw) if not shown else image


def columns(given: Sequence[Bar], parts: Sequence[str], title: str, words: Words) -> Image.Image:
    """One column a bar, side by side in their order; as many names below as there is room for. words: as of `bars`."""
    font = ImageFont.load_default(12)
    scale, ticks = _scale(given)
    left = EDGE + _widest([words(tick) for tick in ticks], font) + 8
    step = min(max((WIDTH - left - EDGE) // max(len(given), 1), THINNEST), WIDEST)
    width = max(WIDTH, left + step * len(given) + EDGE)
    top = EDGE + 2 * LINE + 16
    bottom = top + HEIGHT
    image, draw = _page(width, bottom + LINE + EDGE, title, _there(given, parts))
    for tick in ticks:
        y = bottom - HEIGHT * tick / scale
        draw.line([(left, y), (width - EDGE, y)], fill=RULE)
        draw.text((left - 8, y), words(tick), FAINT, font, anchor="rm")
    gap = step // 6
    for number, bar in enumerate(given):
        x = left + number * step
        for begin, share, colour in _pieces(bar, parts, scale):
            low, high = bottom - HEIGHT * begin, bottom - HEIGHT * (begin + share)
            _fill(draw, (x + gap, high, x + step - gap, low), colour)
    every = math.ceil((_widest([bar.name for bar in given], font) + 12) / step)
    for number in range(0, len(given), every):
        _below(draw, (left + (number + 0.5) * step, bottom), given[number].name, font)
    return _empty(image, draw) if not given else image


def _few(given: Sequence[Bar]) -> list[Bar]:
    """All of them, or the first and one for the rest, with all that is noted of these."""
    if len(given) <= MOST:
        return list(given)
    rest = given[MOST - 1 :]
    names = {name for bar in rest for name in bar.parts}
    together = {name: math.fsum(bar.parts.get(name, 0.0) for bar in rest) for name in names}
    notes = dict.fromkeys(filter(None, (bar.note for bar in rest)))
    return [*given[: MOST - 1], Bar(f"{len(rest)} others", together, "; ".join(notes))]


def _scale(given: Sequence[Bar]) -> tuple[float, list[float]]:
    """The end of the axis, at a round number beyond the largest, and where lines are drawn: three to six of them."""
    largest = max((bar.total for bar in given), default=0.0) or 1.0
    unit = 10.0 ** math.floor(math.log10(largest))
    step = next(unit * times for times in (0.2, 0.5, 1, 2) if largest / (unit * times) <= 5)
    count = math.ceil(largest / step - 1e-9)
    return step * count, [step * n for n in range(count + 1)]


def _pieces(bar: Bar, parts: Sequence[str], scale: float) -> list[tuple[float, float, tuple[int, int, int]]]:
    """Where each part begins and how long it is, both as shares of the axis, and its colour."""
    found, begin = [], 0.0
    for part, colour in zip(parts, COLOURS, strict=False):
        share = bar.parts.get(part, 0.0) / scale
        if share > 0:
            found.append((begin, share, colour))
        begin += share
    return found


def _fill(draw: ImageDraw.ImageDraw, box: Box, colour: tuple[int, int, int]) -> None:
    """The pixels from left and top up to but not with right and bottom; one at least, that something may be seen."""
    left, top, right, bottom = (round(edge) for edge in box)
    draw.rectangle((left, min(top, bottom - 1), max(left, right - 1), bottom - 1), fill=colour)


def _there(given: Sequence[Bar], parts: Sequence[str]) -> list[tuple[str, tuple[int, int, int]]]:
    """The parts that some bar has, with their colours."""
    coloured = zip(parts, COLOURS, strict=False)
    return [(part, colour) for part, colour in coloured if any(bar.parts.get(part) for bar in given)]


def _page(
    width: int, height: int, title: str, legend: Sequence[tuple[str, tuple[int, int, int]]]
) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (width, height), PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    draw.text((EDGE, EDGE), _cut(title, ImageFont.load_default(15), width - 2 * EDGE), INK, ImageFont.load_default(15))
    x, y = float(EDGE), EDGE + LINE + 6
    for part, colour in legend:
        draw.rectangle((x, y, x + 10, y + 10), fill=colour)
        draw.text((x + 16, y + 5), part, INK, font, anchor="lm")
        x += 16 + draw.textlength(part, font) + 16
    return image, draw


def _below(
    draw: ImageDraw.ImageDraw, at: tuple[float, float], name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> None:
    draw.line([at, (at[0], at[1] + 3)], fill=FAINT)
    draw.text((at[0], at[1] + 6), name, FAINT, font, anchor="ma")


def _empty(image: Image.Image, draw: ImageDraw.ImageDraw) -> Image.Image:
    draw.text((image.width / 2, image.height / 2), "nothing", FAINT, ImageFont.load_default(15), anchor="mm")
    return image


def _widest(texts: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    return math.ceil(max((font.getlength(text) for text in texts), default=0.0))


def _cut(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, room: int) -> str:
    """One line, cut with an ellipsis where it is wider than `room` pixels."""
    line = " ".join(text.split())
    if font.getlength(line) <= room:
        return line
    return next((f"{line[:n]}…" for n in range(len(line), 0, -1) if font.getlength(f"{line[:n]}…") <= room), "…")
