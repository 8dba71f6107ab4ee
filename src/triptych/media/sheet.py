"""Contact sheets: pictures side by side, each with a line under it. PIL alone, no tensors."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

__all__ = ["grid", "sheet"]

INK, PAPER, FAINT = (32, 32, 36), (255, 255, 255), (120, 120, 128)
GAP = 6  # pixels


def grid(rows: Sequence[tuple[str, Sequence[tuple[str, Image.Image]]]], note: str = "") -> Image.Image:
    """Rows of (title, [(caption, picture), ...]) under one another; the pictures all of one size. note: at the foot."""
    cell_width, cell_height = rows[0][1][0][1].size
    size = max(10, min(18, cell_height // 9))
    font, line = ImageFont.load_default(size), round(size * 1.5)
    columns = max(len(cells) for _, cells in rows)
    height = GAP + sum((line if title else 0) + cell_height + line + GAP for title, _ in rows) + (line if note else 0)
    image = Image.new("RGB", (GAP + columns * (cell_width + GAP), height), PAPER)
    draw = ImageDraw.Draw(image)
    y = GAP
    for title, cells in rows:
        if title:
            _text(draw, (GAP, y), title, font, INK, image.width - 2 * GAP)
            y += line
        for column, (caption, picture) in enumerate(cells):
            x = GAP + column * (cell_width + GAP)
            image.paste(picture, (x, y))
            _text(draw, (x, y + cell_height), caption, font, FAINT, cell_width)
        y += cell_height + line + GAP
    _text(draw, (GAP, y), note, font, FAINT, image.width - 2 * GAP)
    return image


def sheet(cells: Sequence[tuple[str, Image.Image]], columns: int) -> Image.Image:
    """Captioned pictures of one size, row by row."""
    starts = range(0, len(cells), columns)
    return grid([("", cells[start : start + columns]) for start in starts])


def _text(
    draw: ImageDraw.ImageDraw,
    at: tuple[float, float],
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    colour: tuple[int, int, int],
    room: int,
) -> None:
    """One line, cut with an ellipsis where it is wider than `room` pixels."""
    line = " ".join(text.split())
    if draw.textlength(line, font) > room:
        while line and draw.textlength(f"{line}…", font) > room:
            line = line[:-1]
        line = f"{line}…"
    draw.text(at, line, colour, font)
