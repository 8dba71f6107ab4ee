"""Peak signal-to-noise ratio: closed forms for every medium."""

import math

import numpy
import pytest
from PIL import Image

from triptych import media
from triptych.media import image
from triptych.media.audio import Sound
from triptych.media.likeness import SAME, psnr
from triptych.media.video import Clip
from triptych.types import Artifact


def grey(level):
    return media.keep(Image.new("RGB", (8, 6), (level, level, level)), {})


@pytest.mark.parametrize("apart", [1, 3, 100, 255])
def test_pictures(apart):
    assert psnr(grey(0), grey(apart)) == pytest.approx(20 * math.log10(255 / apart))


def test_what_is_the_same_has_a_number_too():
    assert psnr(grey(7), grey(7)) == SAME


def test_one_pixel_of_many():
    other = Image.new("RGB", (8, 6))
    other.putpixel((0, 0), (255, 255, 255))
    other = Artifact("image/png", image.encode(other, "image/png", {}))
    assert psnr(grey(0), other) == pytest.approx(10 * math.log10(48))


def test_clips():
    dark, bright = (
        media.keep(Clip(numpy.full((4, 16, 16, 3), level, numpy.uint8), 12), {"prompt": ""}) for level in (10, 20)
    )
    assert psnr(dark, bright) == pytest.approx(20 * math.log10(255 / 10))


def test_sounds():
    low, high = (
        media.keep(Sound(numpy.full((3200, 1), level, numpy.float32), 32000), {"prompt": ""}) for level in (0.25, 0.5)
    )
    assert psnr(low, high) == pytest.approx(20 * math.log10(2 / 0.25))
