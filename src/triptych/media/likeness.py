"""How near one result is to another, as a number that people know."""

import math
from typing import Any

import numpy
from numpy.typing import NDArray

from triptych.media import audio, image, medium, video
from triptych.types import Artifact

__all__ = ["SAME", "psnr"]

SAME = 100.0  # decibels that are told of what is the same, and the most that are told at all


def psnr(one: Artifact, other: Artifact) -> float:
    """Peak signal-to-noise ratio in decibels of two pictures, clips or sounds of one size. Raises FileProblem."""
    (x, reach), (y, _) = _samples(one), _samples(other)
    error = float(numpy.mean((x - y) ** 2)) / reach**2
    return min(SAME, -10 * math.log10(error)) if error else SAME


def _samples(one: Artifact) -> tuple[NDArray[Any], float]:
    """What there is to compare, and how far apart two samples can be."""
    match medium(one):
        case "video":
            return video.decode(one.data).frames.astype(numpy.float64), 255
        case "audio":
            return audio.decode(one.data).samples.astype(numpy.float64), 2
        case _:
            return numpy.asarray(image.picture(one.data), numpy.float64), 255
