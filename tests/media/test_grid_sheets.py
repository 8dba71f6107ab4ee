"""Sheets of grids: every picture where its place says, room for every label, what is not there is said."""

import numpy
import pytest
from PIL import Image

from triptych.media import grid
from triptych.media.grid import EMPTY, MOST, PAPER, draw


def cells(shape, size=(64, 48)):
    """One colour a place."""
    across, down, sheets = shape
    return {
        (x, y, z): Image.new("RGB", size, (40 + 60 * x, 40 + 60 * y, 200 - 60 * z))
        for z in range(sheets)
        for y in range(down)
        for x in range(across)
    }


def box(sheet, colour):
    """left, top, right, bottom of what has this colour."""
    rows, columns = numpy.nonzero((numpy.asarray(sheet) == colour).all(-1))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


AXES = {"x": ("steps", ["4", "8", "16"]), "y": ("guidance", ["1", "4.5"]), "z": ("seed", ["1", "2", "3"])}


def test_every_picture_lies_whole_at_its_place():
    shape, given = (3, 2, 3), cells((3, 2, 3))
    sheet = draw(given, shape, AXES, ("a fox", "toy, 8 steps"))
    boxes = {at: box(sheet, picture.getpixel((0, 0))) for at, picture in given.items()}
    for (x, y, _), (left, top, right, bottom) in boxes.items():
        assert (right - left, bottom - top) == (64, 48)
        assert x == 0 or left > 64
        assert y == 0 or top > 48
    for z in range(3):
        assert len({boxes[x, 0, z][1] for x in range(3)}) == 1
        assert boxes[0, 0, z][0] < boxes[1, 0, z][0] < boxes[2, 0, z][0]
        assert boxes[0, 0, z][1] < boxes[0, 1, z][1]


def test_labels_are_beside_and_above_and_never_over_a_picture():
    given = cells((3, 2, 1))
    axes = {"x": ("prompt", ["cat", "a very long prompt about a dog that sleeps", "x" * 80]), "y": AXES["y"]}
    sheet = draw(given, (3, 2, 1), axes, ("a fox", ""))
    left, top, _, _ = box(sheet, given[0, 0, 0].getpixel((0, 0)))
    pixels = numpy.asarray(sheet)
    ink = (pixels != PAPER).any(-1)
    assert ink[:top].any()
    assert ink[:, :left].any()
    assert not ink[top:, left + 64 : left + 64 + 2][:48].any()  # the gap between two columns


def test_smaller_pictures_lie_in_the_middle():
    given = {(0, 0, 0): Image.new("RGB", (32, 16), "red"), (1, 0, 0): Image.new("RGB", (64, 48), "blue")}
    sheet = draw(given, (2, 1, 1), {"x": ("size", ["32x16", "64x48"])}, ("a fox", ""))
    small, large = box(sheet, (255, 0, 0)), box(sheet, (0, 0, 255))
    assert (small[2] - small[0], small[3] - small[1]) == (32, 16)
    assert small[1] - large[1] == large[3] - small[3] == 16


def test_what_is_not_there_is_said():
    given = cells((2, 1, 1))
    del given[1, 0, 0]
    sheet = draw(given, (2, 1, 1), {"x": AXES["x"]}, ("a fox", ""))
    assert (numpy.asarray(sheet) == EMPTY).all(-1).sum() > 64 * 48 / 2


def test_grids_beyond_all_measure_are_drawn_smaller(monkeypatch):
    monkeypatch.setattr(grid, "MOST", 6 * 64 * 48 // 4)
    sheet = draw(cells((3, 2, 1)), (3, 2, 1), {axis: AXES[axis] for axis in "xy"}, ("a fox", ""))
    left, _, right, _ = box(sheet, (40, 40, 200))
    assert right - left == 32
    assert MOST < 100_000_000  # what is read from one file


@pytest.mark.parametrize("text", ["", "a", "two words", "word " * 200, "x" * 900, "ünïcödé 🦊"])
def test_captions_of_every_kind_fit(text):
    sheet = draw(cells((1, 1, 1)), (1, 1, 1), {}, (text, text))
    assert sheet.height < 48 + 8 * 20
    assert (numpy.asarray(sheet)[:, -1] == PAPER).all()
