"""Pixels of a scene: the ground, the tint, and sprites laid over it in premultiplied alpha."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from triptych.train.data.captions import Ground

__all__ = ["GROUNDS", "TINTS", "Box", "Pixels", "fitted", "luma", "paint", "paste", "tinted"]

Pixels = NDArray[np.uint8]
Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels
Colour = tuple[int, int, int]
Shares = NDArray[np.float32]

GROUNDS: Final[Mapping[str, Colour]] = {
    "white": (255, 255, 255),
    "red": (220, 48, 56),
    "orange": (255, 150, 60),
    "yellow": (252, 214, 68),
    "green": (62, 174, 102),
    "teal": (32, 150, 150),
    "blue": (40, 112, 240),
    "sky blue": (146, 204, 252),
    "purple": (132, 84, 204),
    "pink": (255, 174, 204),
    "beige": (240, 228, 204),
    "gray": (156, 160, 168),
    "black": (20, 20, 24),
}
TINTS: Final[Mapping[str, Colour]] = {
    "red": (222, 36, 44),
    "orange": (248, 132, 28),
    "yellow": (250, 208, 36),
    "green": (46, 160, 80),
    "blue": (36, 104, 232),
    "purple": (128, 68, 204),
    "pink": (250, 120, 176),
    "gray": (142, 146, 152),
    "golden": (214, 158, 32),
}
LUMA: Final = np.array([77, 150, 29], np.uint32)  # of 256: ITU-R BT.601


def luma(pixels: Pixels) -> Pixels:
    """(..., 3 or 4) -> (...) brightness as the eye weighs it."""
    return ((pixels[..., :3] @ LUMA) >> 8).astype(np.uint8)


def tinted(sprite: Pixels, colour: Colour, pull: float = 0.6) -> Pixels:
    """The sprite (H, W, 4) in shades of one colour: black, the colour at its own luma, white.

    pull: how far the sprite's middle brightness moves to the colour's first. With 0 every pixel keeps its luma, but a
    bright thing cannot turn blue, only pale; with any pull black, white and the order of brightness stay.
    """
    values = luma(sprite)
    solid = values[sprite[..., 3] > 127]
    middle = float(np.clip(solid.mean() / 255 if len(solid) else 0.5, 0.05, 0.95))
    own = float(luma(np.array(colour, np.uint8))) / 255
    wanted = middle * (own / middle) ** pull
    gamma = float(np.clip(np.log(wanted) / np.log(middle), 0.4, 2.5))
    return np.concatenate([_ramp(colour, gamma)[values], sprite[..., 3:]], axis=-1)


def fitted(sprite: Pixels, box: Box, longest: int) -> Pixels:
    """What is inside the box, resized so that its longer side has `longest` pixels: (h, w, 4) premultiplied."""
    left, top, right, bottom = box
    image = Image.fromarray(np.ascontiguousarray(sprite[top:bottom, left:right])).convert("RGBa")
    scale = longest / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


def paste(canvas: Pixels, drawn: Pixels, centre: tuple[float, float]) -> Box:
    """Lays a premultiplied picture over the canvas, moved inwards where it would be cut; the box that it takes."""
    height, width = drawn.shape[:2]
    left = int(np.clip(round(centre[0] - width / 2), 0, canvas.shape[1] - width))
    top = int(np.clip(round(centre[1] - height / 2), 0, canvas.shape[0] - height))
    place = canvas[top : top + height, left : left + width]
    clear = 255 - drawn[..., 3:].astype(np.uint16)
    place[:] = np.minimum(drawn[..., :3] + (place * clear + 127) // 255, 255).astype(np.uint8)
    return left, top, left + width, top + height


def paint(ground: Ground, size: int) -> Pixels:
    """The background alone, (size, size, 3)."""
    first = np.array(GROUNDS[ground.first], np.float32)
    if ground.pattern == "plain":
        return np.broadcast_to(first.astype(np.uint8), (size, size, 3)).copy()
    second = np.array(GROUNDS[ground.second], np.float32)
    mixed = first + (second - first) * _shares(ground.pattern, size)
    return (mixed + 0.5).astype(np.uint8)


@lru_cache(maxsize=16)
def _shares(pattern: str, size: int) -> Shares:
    """(size, size, 1): how much of the second colour; edges are one pixel soft."""
    down, across = np.mgrid[:size, :size].astype(np.float32) + 0.5
    match pattern:
        case "gradient":
            share = down / size
        case "stripes":
            period = size / 5
            share = 0.5 + period / 2 * (0.5 - 2 * np.abs((down + across) / 1.41421 / period % 1 - 0.5))
        case _:
            period = size / 5
            far = np.hypot(down % period - period / 2, across % period - period / 2)
            share = 0.24 * period - far + 0.5
    return np.asarray(share.clip(0, 1)[..., None], np.float32)


@lru_cache(maxsize=256)
def _levels(colour: Colour) -> Shares:
    """(256, 3): each level of luma as a shade of the colour that has it."""
    target = np.array(colour, np.float32) / 255
    own = float(target @ (LUMA / 256))
    level = np.linspace(0, 1, 256, dtype=np.float32)[:, None]
    return np.where(level < own, target * level / own, target + (1 - target) * (level - own) / (1 - own))


def _ramp(colour: Colour, gamma: float) -> Pixels:
    levels = np.rint(np.linspace(0, 1, 256) ** gamma * 255).astype(np.intp)
    return np.rint(_levels(colour)[levels] * 255).clip(0, 255).astype(np.uint8)
