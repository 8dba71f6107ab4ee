import io
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from triptych.train.data.art import STYLES, Drawing
from triptych.train.data.clips import write as write_clips
from triptych.train.data.concepts import Concept
from triptych.train.data.sprites import write

NOUNS = """
ant bat cat cow dog eel elk fox hen owl pig ram rat yak ape bee carp crab crow deer dove duck emu frog gnu
goat hare hawk ibis jay kiwi lamb lark lion lynx mink mole moth mule newt orca oryx puma quail raven seal
shark skunk sloth snail snake squid stork swan tiger toad trout tuna viper wasp whale wolf wren zebra urchin
egret otter
"""


def drawing(code: str, style: str, hue: int) -> Drawing:
    """A disc with a dark rim that is smaller than its frame, a different one of each concept and style."""
    fill, radius = f"hsl({hue},80%,60%)", 43 + STYLES.index(style)
    body = f'<circle cx="60" cy="66" r="{radius}" fill="{fill}" stroke="black" stroke-width="4"/>'
    return Drawing(code, style, f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 128 128">{body}</svg>')


def animated(n: int, milliseconds: int = 100, frames: int = 10) -> bytes:
    """A disc that goes round once."""
    drawn = []
    for frame in range(frames):
        picture = Image.new("RGBA", (64, 64))
        angle = 2 * math.pi * frame / frames
        x, y = 32 + 18 * math.cos(angle), 32 + 18 * math.sin(angle)
        ImageDraw.Draw(picture).ellipse((x - 9, y - 9, x + 9, y + 9), fill=(20 * n, 90, 200, 255))
        drawn.append(picture)
    out = io.BytesIO()
    drawn[0].save(out, "WEBP", save_all=True, append_images=drawn[1:], duration=milliseconds, loop=0, lossless=True)
    return out.getvalue()


@pytest.fixture(scope="session", name="animated")
def _animated() -> Callable[[int, int], bytes]:
    return animated


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `build` writes, for some animals that no network was needed for."""
    path = tmp_path_factory.mktemp("sprites")
    known = {
        f"{n + 0xA000:04x}": Concept(f"{n + 0xA000:04x}", noun, (f"little {noun}",), ("animal", f"{noun} thing"), 3)
        for n, noun in enumerate(NOUNS.split())
    }
    art = [drawing(code, style, 37 * n % 360) for n, code in enumerate(known) for style in STYLES[: 3 + n % 6]]
    write(path, art, known, "a test", processes=1)
    write_clips(path, {code: animated(n) for n, code in enumerate(sorted(known)[:12])}, "a test", processes=1)
    return path
