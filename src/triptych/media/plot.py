"""Sounds to look at: the wave above, the spectrogram below, low notes at the bottom."""

from typing import Final

import numpy
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from triptych.media.audio import Sound

__all__ = ["plot"]

WINDOW = 2048  # samples of the transform
LOWEST = 40.0  # hertz, at the bottom
DECIBELS = 80.0  # from black to white
SHADES: Final = ((0, 0, 4), (59, 15, 112), (140, 41, 129), (222, 73, 104), (254, 159, 109), (252, 253, 191))  # magma
INK, PAPER, WAVE = (60, 60, 60), (255, 255, 255), (89, 62, 168)
LEFT, BOTTOM, GAP = 44, 20, 6  # pixels around and between
TICKS: Final = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)  # hertz


def plot(sound: Sound, size: tuple[int, int] = (800, 420)) -> Image.Image:
    """A picture of this (width, height)."""
    width, height = size[0] - LEFT - GAP, size[1] - BOTTOM - 2 * GAP
    above = height // 4
    below = height - above
    mono, top = sound.samples.mean(1), 2 * GAP + above
    picture = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(11)
    for column, (low, high) in enumerate(_extent(mono, width)):
        middle, half = GAP + above / 2, above / 2
        draw.line([(LEFT + column, middle - half * high), (LEFT + column, middle - half * low)], fill=WAVE)
    picture.paste(Image.fromarray(_spectrogram(mono, sound.rate, width, below)), (LEFT, top))
    highest = sound.rate / 2
    for hertz in (tick for tick in TICKS if LOWEST < tick < highest):
        y = top + below * (1 - numpy.log(hertz / LOWEST) / numpy.log(highest / LOWEST))
        draw.line([(LEFT - 4, y), (LEFT - 1, y)], fill=INK)
        text = f"{hertz // 1000} k" if hertz >= 1000 else f"{hertz}"
        draw.text((LEFT - 7, y), text, INK, font, anchor="rm")
    seconds = len(mono) / sound.rate
    step = next(step for step in (0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 300, 600) if seconds / step <= 12)
    for n in range(int(seconds / step + 1e-6) + 1):
        x = LEFT + width * n * step / seconds
        draw.line([(x, size[1] - BOTTOM), (x, size[1] - BOTTOM + 3)], fill=INK)
        draw.text((min(x, size[0] - 14), size[1] - BOTTOM + 4), f"{n * step:g} s", INK, font, anchor="ma")
    return picture


def _extent(mono: NDArray[numpy.float32], width: int) -> list[tuple[float, float]]:
    """The lowest and the highest sample within each column."""
    parts = numpy.array_split(mono, width)
    return [(float(part.min(initial=0)), float(part.max(initial=0))) for part in parts]


def _spectrogram(mono: NDArray[numpy.float32], rate: int, width: int, height: int) -> NDArray[numpy.uint8]:
    """(height, width, 3): frequencies by their logarithm, loudness in decibels below a sine of amplitude 1."""
    centres = (numpy.arange(width) + 0.5) / width * len(mono)
    padded = numpy.pad(mono, WINDOW)
    starts = (centres + WINDOW / 2).astype(int)
    frames = padded[starts[:, None] + numpy.arange(WINDOW)] * numpy.hanning(WINDOW)
    loud = numpy.abs(numpy.fft.rfft(frames)) * (4 / WINDOW)
    hertz = LOWEST * (rate / 2 / LOWEST) ** ((numpy.arange(height)[::-1] + 0.5) / height)
    edges = hertz / rate * WINDOW
    # Where a row is wider than a bin it shows the loudest within, so that no partial is lost between two rows.
    reach = numpy.maximum(edges * ((rate / 2 / LOWEST) ** (0.5 / height) - 1), 0.5)
    low, high = numpy.floor(edges - reach + 0.5).astype(int), numpy.ceil(edges + reach + 0.5).astype(int)
    rows = [loud[:, max(a, 0) : max(b, a + 1)].max(1) for a, b in zip(low, high, strict=True)]
    decibels = 20 * numpy.log10(numpy.maximum(numpy.stack(rows), 1e-9))
    share = numpy.clip(1 + decibels / DECIBELS, 0, 1) * (len(SHADES) - 1)
    place = numpy.arange(len(SHADES))
    channels = [numpy.interp(share, place, [shade[c] for shade in SHADES]) for c in range(3)]
    return numpy.stack(channels, -1).round().astype(numpy.uint8)
