"""Bars and columns: lengths are as the amounts, parts have their colours, nothing lies over anything else."""

import numpy
import pytest
from PIL import Image

from triptych.media.bars import COLOURS, HEIGHT, MOST, Bar, _scale, bars, columns
from triptych.types import dollars

PARTS = ("usage", "list price", "estimate", "electricity", "reserved", "in doubt")


def drawn(picture, part):
    """Which pixels below the legend have the colour of a part: (H, W)."""
    pixels = numpy.asarray(picture)
    assert (pixels[:58] == COLOURS[PARTS.index(part)]).all(-1).any() == (pixels[58:] == COLOURS[PARTS.index(part)]).all(
        -1
    ).any()
    found = (pixels == COLOURS[PARTS.index(part)]).all(-1)
    found[:58] = False
    return found


def lengths(mask):
    """Of each horizontal bar, top to bottom: its length in pixels."""
    rows = mask.sum(1)
    starts = [y for y in range(1, len(rows)) if rows[y] and not rows[y - 1]]
    return [int(rows[y + 3]) for y in starts]


def heights(mask):
    """Of each column, left to right: its height in pixels."""
    return lengths(mask.T)


def test_bars_are_as_long_as_what_they_stand_for():
    given = [
        Bar("sora", {"list price": 4.0}),
        Bar("fox", {"list price": 1.0, "usage": 2.0}),
        Bar("owl", {"list price": 0.5}),
    ]
    picture = bars(given, PARTS, "Costs", dollars)
    listed, used = lengths(drawn(picture, "list price")), lengths(drawn(picture, "usage"))
    assert numpy.allclose(numpy.array(listed) / listed[0], [1, 0.25, 0.125], atol=0.004)
    assert used[0] / listed[0] == pytest.approx(0.5, abs=0.004)
    assert not drawn(picture, "reserved").any()


def test_columns_are_as_high_as_what_they_stand_for():
    given = [
        Bar("2026-11-24", {"usage": 1.0}),
        Bar("2026-11-25", {}),
        Bar("2026-11-26", {"usage": 0.5, "in doubt": 1.5}),
    ]
    picture = columns(given, PARTS, "Costs by day", dollars)
    assert heights(drawn(picture, "usage")) == [HEIGHT // 2, HEIGHT // 4]
    assert heights(drawn(picture, "in doubt")) == [HEIGHT * 3 // 4]
    first, last = (numpy.nonzero(drawn(picture, part))[1] for part in ("usage", "in doubt"))
    step = (last.min() - first.min()) / 2  # the day between has its place
    assert step == pytest.approx(48, abs=1)


def test_what_is_small_is_still_seen():
    given = [Bar("sora", {"list price": 1000.0}), Bar("run", {"electricity": 0.0004})]
    assert drawn(bars(given, PARTS, "", dollars), "electricity").any()
    assert drawn(columns(given, PARTS, "", dollars), "electricity").any()


@pytest.mark.parametrize("largest", [1e-6, 0.003, 0.99, 1.0, 1.01, 2.0, 2.01, 2.5, 5.0, 5.01, 7.3, 9.99, 12345.0])
def test_the_axis_is_round_and_holds_every_bar(largest):
    end, ticks = _scale([Bar("a", {"usage": largest / 2, "list price": largest / 2})])
    steps = numpy.diff(ticks)
    assert ticks[0] == 0
    assert ticks[-1] == end >= largest * (1 - 1e-9)
    assert end <= largest + steps[0]
    assert 3 <= len(steps) + 1 <= 6
    assert numpy.allclose(steps, steps[0])
    assert f"{steps[0]:.0e}"[0] in "125"
    assert float(f"{steps[0]:.0e}") == pytest.approx(steps[0])


def test_names_of_any_length_and_number_fit():
    given = [
        Bar(f"vendor/{number}-" + "long" * 40, {"usage": 100.0 - number}, "1 of unknown cost") for number in range(95)
    ]
    picture = bars(given, PARTS, "A title " * 40, dollars)
    assert picture.size == (800, 12 + 48 + 20 + 24 * MOST + 12)
    edges = numpy.concatenate([numpy.asarray(picture)[:, :10], numpy.asarray(picture)[:, -10:]], 1)
    assert (edges == 255).all()
    together = lengths(drawn(picture, "usage"))
    assert len(together) == MOST
    assert together[-1] / together[0] == pytest.approx(sum(100 - n for n in range(39, 95)) / 100, rel=0.05)


def test_a_year_of_days_and_ten():
    year = columns([Bar(f"2026-{n:03}", {"usage": 1.0 + n % 7}) for n in range(365)], PARTS, "", dollars)
    assert year.width == 800 or 365 * 2 <= year.width <= 1200
    assert columns([Bar("2026-11-26", {"usage": 1.0})] * 3650, PARTS, "", dollars).width < 16384  # what WebP can hold


@pytest.mark.parametrize("draw", [bars, columns])
def test_nothing_is_said(draw):
    picture = draw([], PARTS, "Costs", dollars)
    assert isinstance(picture, Image.Image)
    middle = numpy.asarray(picture)[picture.height // 2 - 8 : picture.height // 2 + 8]
    assert (middle < 200).any()
