"""Labelled sheets of a grid of pictures: axis titles and values at the edges, sheets beside or below each other.

PIL alone, no tensors.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

from PIL import Image, ImageDraw, ImageFont

__all__ = ["draw"]

INK, PAPER, FAINT, EMPTY = (32, 32, 36), (255, 255, 255), (120, 120, 128), (236, 236, 240)
MOST = 64_000_000  # pixels of all cells together; beyond, they are drawn smaller
LINES = 3  # of a label or a caption, at most
SHAPE = 1.5  # width over height that several sheets come near to
Place = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def draw(
    cells: Mapping[Place, Image.Image],
    shape: Place,
    axes: Mapping[str, tuple[str, Sequence[str]]],
    caption: tuple[str, str],
) -> Image.Image:
    """cells: pictures by their place along x, y and z, one at least; shape: how many places there are along each;
    axes: title and values of x, y and z, those that there are; caption: the prompt, and a fainter line.

    Pictures smaller than the largest lie in the middle of their cell; what is not there yet is said.
    """
    frame = _frame(cells, shape, axes)
    sheets = [_sheet(frame, cells, shape, axes, number) for number in range(shape[2])]
    width, height = sheets[0].size
    columns = _columns(len(sheets), width / height)
    foot = math.ceil(len(sheets) / columns) * height
    room = columns * width - 2 * frame.gap
    lines = [(line, ink) for text, ink in zip(caption, (INK, FAINT), strict=True) for line in frame.wrapped(text, room)]
    whole = Image.new("RGB", (columns * width, foot + frame.line * len(lines) + frame.gap), PAPER)
    for number, one in enumerate(sheets):
        whole.paste(one, (number % columns * width, number // columns * height))
    for number, (line, ink) in enumerate(lines):
        ImageDraw.Draw(whole).text((frame.gap, foot + number * frame.line), line, ink, frame.font)
    return whole


def _columns(sheets: int, shape: float) -> int:
    """How many sheets of this width over height lie side by side, so that all together come near to SHAPE."""
    shapes = {n: n * shape / math.ceil(sheets / n) for n in range(1, sheets + 1)}
    return min(shapes, key=lambda n: (abs(math.log(shapes[n] / SHAPE)), n))


@final
@dataclass(frozen=True, slots=True)
class _Frame:
    """Measures of a sheet, in pixels."""

    cell: tuple[int, int]
    font: Font
    line: int
    gap: int
    left: int = 0  # for the title and the values of y
    top: int = 0  # for the titles of z and x, and the values of x

    def wrapped(self, text: str, room: int) -> list[str]:
        """At most LINES lines of this width, the last cut with an ellipsis where there is more."""
        lines, rest = [""], text.split()
        while rest:
            longer = f"{lines[-1]} {rest[0]}".strip()
            if self._fits(longer, room):
                lines[-1] = longer
                rest.pop(0)
            elif lines[-1] and len(lines) < LINES:
                lines.append("")
            else:
                cut = next((n for n in range(len(longer), 0, -1) if self._fits(f"{longer[:n]}…", room)), 0)
                return [*lines[:-1], f"{longer[:cut]}…"]
        return lines if lines[0] else []

    def place(self, x: int, y: int) -> tuple[int, int]:
        """The upper left corner of a cell."""
        return self.left + x * (self.cell[0] + self.gap), self.top + y * (self.cell[1] + self.gap)

    def _fits(self, text: str, room: int) -> bool:
        return self.font.getlength(text) <= room


def _frame(cells: Mapping[Place, Image.Image], shape: Place, axes: Mapping[str, tuple[str, Sequence[str]]]) -> _Frame:
    width, height = (max(picture.size[side] for picture in cells.values()) for side in (0, 1))
    factor = min(1.0, math.sqrt(MOST / (math.prod(shape) * width * height)))
    width, height = max(1, round(width * factor)), max(1, round(height * factor))
    size = max(13, min(40, height // 14))
    line, gap = round(size * 1.4), max(4, size // 3)
    frame = _Frame((width, height), ImageFont.load_default(size), line, gap)
    left, top = gap, gap
    if "z" in axes:
        top += line + gap
    if "x" in axes:
        top += line * (1 + max(len(frame.wrapped(value, width)) for value in axes["x"][1])) + gap
    if "y" in axes:
        lines = (each for value in axes["y"][1] for each in frame.wrapped(value, width))
        left += line + gap + math.ceil(max(frame.font.getlength(each) for each in lines)) + gap
    return _Frame(frame.cell, frame.font, line, gap, left, top)


def _sheet(
    frame: _Frame,
    cells: Mapping[Place, Image.Image],
    shape: Place,
    axes: Mapping[str, tuple[str, Sequence[str]]],
    number: int,
) -> Image.Image:
    across, down, _ = shape
    width, height = frame.place(across, down)
    image = Image.new("RGB", (width, height + (frame.line if "z" in axes else 0)), PAPER)
    for y in range(down):
        for x in range(across):
            image.paste(_cell(frame, cells.get((x, y, number))), frame.place(x, y))
    if "z" in axes:
        title, values = axes["z"]
        [line, *_] = frame.wrapped(f"{title} {values[number]}", image.width - frame.left)
        ImageDraw.Draw(image).text((frame.left, frame.gap), line, INK, frame.font)
    if "x" in axes:
        _top(image, frame, axes["x"])
    if "y" in axes:
        _side(image, frame, axes["y"])
    return image


def _top(image: Image.Image, frame: _Frame, axis: tuple[str, Sequence[str]]) -> None:
    """The title of x, and its values, each at the foot of the room above its column."""
    pen, foot = ImageDraw.Draw(image), frame.top - frame.gap // 2
    columns = [frame.wrapped(value, frame.cell[0]) for value in axis[1]]
    middle = (frame.left + image.width - frame.gap) // 2
    highest = foot - (1 + max(map(len, columns))) * frame.line
    pen.text((middle, highest), axis[0], FAINT, frame.font, anchor="ma")
    for x, lines in enumerate(columns):
        at = frame.place(x, 0)[0] + frame.cell[0] // 2, foot - len(lines) * frame.line
        _stack(pen, frame, lines, at, "ma")


def _side(image: Image.Image, frame: _Frame, axis: tuple[str, Sequence[str]]) -> None:
    """The title of y, upwards, and its values, each at the middle of its row."""
    pen = ImageDraw.Draw(image)
    title = Image.new("RGB", (frame.place(0, len(axis[1]))[1] - frame.top - frame.gap, frame.line), PAPER)
    ImageDraw.Draw(title).text((title.width // 2, 0), axis[0], FAINT, frame.font, anchor="ma")
    image.paste(title.transpose(Image.Transpose.ROTATE_90), (frame.gap, frame.top))
    for y, value in enumerate(axis[1]):
        lines = frame.wrapped(value, frame.cell[0])
        upper = frame.place(0, y)[1] + (frame.cell[1] - len(lines) * frame.line) // 2
        _stack(pen, frame, lines, (frame.left - frame.gap, upper), "ra")


def _stack(pen: ImageDraw.ImageDraw, frame: _Frame, lines: Sequence[str], at: tuple[int, int], anchor: str) -> None:
    """Lines below one another from this point on."""
    for number, line in enumerate(lines):
        pen.text((at[0], at[1] + number * frame.line), line, INK, frame.font, anchor=anchor)


def _cell(frame: _Frame, picture: Image.Image | None) -> Image.Image:
    cell = Image.new("RGB", frame.cell, PAPER if picture else EMPTY)
    if picture is None:
        middle = frame.cell[0] // 2, frame.cell[1] // 2
        ImageDraw.Draw(cell).text(middle, "not made", FAINT, frame.font, anchor="mm")
        return cell
    fitting = picture.convert("RGB")
    fitting.thumbnail(frame.cell, Image.Resampling.LANCZOS)
    cell.paste(fitting, ((cell.width - fitting.width) // 2, (cell.height - fitting.height) // 2))
    return cell
