from pathlib import Path

import pytest

from triptych.train.data.art import STYLES, Drawing
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
    return path
