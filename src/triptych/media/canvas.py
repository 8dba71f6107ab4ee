"""A picture on a larger canvas: what fills the rest until it is drawn, and how soft the seam between the two is.

The fill repeats the picture's edge, blurred by a Gaussian whose radius is half the distance: colours go on across the
seam and lose their detail, so that a walk that begins there is led by them and by no streaks. Weights fall from 1 at
the seam to 0 at `feather` pixels inside, along 3 s^2 - 2 s^3. PIL and numpy, no tensors.
"""

from typing import Any

import numpy
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from triptych.media.margins import Margins

__all__ = ["filled", "seam"]

RADII = (0, 1, 2, 4, 8, 16, 32, 64, 128)  # pixels, of the blurs between which the fill is interpolated


def filled(picture: Image.Image, margins: Margins) -> Image.Image:
    """The RGB picture, every pixel of it as it is, on its canvas."""
    sides = ((margins.top, margins.bottom), (margins.left, margins.right), (0, 0))
    repeated = Image.fromarray(numpy.pad(numpy.asarray(picture), sides, mode="edge"))
    radius = _outside(picture.size, margins) / 2
    levels = numpy.interp(radius, RADII, numpy.arange(len(RADII)))
    canvas = numpy.zeros((*levels.shape, 3), dtype=numpy.float32)
    for number, each in enumerate(RADII):
        share = numpy.clip(1 - abs(levels - number), 0, 1).astype(numpy.float32)
        if share.any():
            canvas += share[..., None] * numpy.asarray(repeated.filter(ImageFilter.GaussianBlur(each)))
    return Image.fromarray(canvas.round().astype(numpy.uint8))


def seam(size: tuple[int, int], margins: Margins, feather: int) -> NDArray[numpy.float32]:
    """(H, W) in [0, 1] of the canvas around a picture of this (width, height): 1 in what is new, 0 deep in the old.

    feather: pixels, of which at most half the picture is taken.
    """
    x, y = _pixels(size, margins)
    inside = numpy.full((len(y), len(x)), numpy.inf)
    for extended, distance in (
        (margins.left, x[None]),
        (margins.right, size[0] - 1 - x[None]),
        (margins.top, y[:, None]),
        (margins.bottom, size[1] - 1 - y[:, None]),
    ):
        if extended:
            inside = numpy.minimum(inside, distance)
    reach = min(feather, min(size) // 2)
    share = numpy.clip(1 - (inside + 1) / (reach + 1), 0, 1)
    return (3 * share**2 - 2 * share**3).astype(numpy.float32)


def _outside(size: tuple[int, int], margins: Margins) -> NDArray[Any]:
    """(H, W): how many pixels it is to the picture; 0 within."""
    x, y = _pixels(size, margins)
    across = numpy.maximum(0, numpy.maximum(-x, x - size[0] + 1))
    down = numpy.maximum(0, numpy.maximum(-y, y - size[1] + 1))
    distance: NDArray[Any] = numpy.hypot(across[None], down[:, None])
    return distance


def _pixels(size: tuple[int, int], margins: Margins) -> tuple[NDArray[Any], NDArray[Any]]:
    """The canvas's columns and rows, counted from the picture's first."""
    width, height = margins.around(size)
    return numpy.arange(width) - margins.left, numpy.arange(height) - margins.top
