"""Tints keep light and dark; pasting neither clips nor leaves fringes."""

import numpy as np
import pytest

from triptych.train.data.captions import Ground
from triptych.train.data.composition import GROUNDS, TINTS, fitted, luma, paint, paste, tinted


@pytest.fixture
def sprite():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 4), dtype=np.uint8)
    pixels[0, 0], pixels[0, 1] = (0, 0, 0, 255), (255, 255, 255, 255)
    return pixels


@pytest.mark.parametrize("colour", TINTS)
def test_a_tint_without_pull_keeps_luma(sprite, colour):
    after = tinted(sprite, TINTS[colour], pull=0)
    assert np.abs(luma(after).astype(int) - luma(sprite).astype(int)).max() <= 2
    assert (after[..., 3] == sprite[..., 3]).all()


@pytest.mark.parametrize("colour", TINTS)
def test_a_tint_keeps_black_white_and_the_order_of_light(sprite, colour):
    after = tinted(sprite, TINTS[colour])
    assert after[0, 0, :3].tolist() == [0, 0, 0]
    assert after[0, 1, :3].tolist() == [255, 255, 255]
    order = np.argsort(luma(sprite), axis=None)
    assert np.diff(luma(after).reshape(-1)[order].astype(int)).min() >= -2  # of 255: rounding


def test_a_bright_thing_turns_blue_not_pale():
    yellow = np.full((8, 8, 4), (250, 210, 40, 255), np.uint8)
    red, _, blue = tinted(yellow, TINTS["blue"])[0, 0, :3].astype(int)
    assert blue - red > 80


def test_transparent_pixels_leave_no_fringe():
    picture = np.zeros((64, 64, 4), np.uint8)  # black where it is transparent
    picture[16:48, 16:48] = 255
    canvas = np.full((64, 64, 3), 255, np.uint8)
    paste(canvas, fitted(picture, (0, 0, 64, 64), 41), (32, 32))
    assert canvas.min() >= 254


def test_pasting_moves_inwards_what_would_be_cut():
    canvas = np.zeros((40, 40, 3), np.uint8)
    drawn = np.full((20, 30, 4), 255, np.uint8)
    assert paste(canvas, drawn, (39, 1)) == (10, 0, 40, 20)
    assert (canvas == 255).all(-1).sum() == 600


def test_fitted_keeps_the_shape_of_the_box():
    assert fitted(np.zeros((128, 128, 4), np.uint8), (10, 0, 60, 100), 80).shape == (80, 40, 4)


@pytest.mark.parametrize("pattern", ["gradient", "stripes", "dots"])
def test_patterns_show_both_colours(pattern):
    pixels = paint(Ground(pattern, "white", "black"), 64)
    assert pixels.max() >= 250
    assert pixels.min() <= 25
    assert pixels.shape == (64, 64, 3)


def test_thirteen_plain_grounds():
    assert len(GROUNDS) == 13
    assert len(TINTS) == 9
    assert all((paint(Ground("plain", name), 4) == colour).all() for name, colour in GROUNDS.items())
