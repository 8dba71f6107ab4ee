"""The sprite file: deterministic, cut to what is drawn, resized without fringes."""

import json

import numpy as np
import pytest

from triptych.errors import FileProblem
from triptych.train.data.art import Drawing
from triptych.train.data.concepts import Concept
from triptych.train.data.fetch import packages
from triptych.train.data.sprites import SIDE, Sprites, manifest, rasterise, write

DISC = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><circle cx="{0}" cy="32" r="{1}" fill="red"/></svg>'


def test_a_drawing_is_centred_and_fills_the_frame():
    pixels = rasterise((DISC.format(24, 20), True))
    drawn = np.argwhere(pixels[..., 3] > 127)
    assert pixels.shape == (SIDE, SIDE, 4)
    assert drawn.min() <= 1
    assert drawn.max() >= SIDE - 2


def test_what_is_tiny_in_its_own_frame_stays_small_and_symbols_keep_their_margins():
    tiny = np.argwhere(rasterise((DISC.format(32, 8), True))[..., 3] > 127)
    assert np.ptp(tiny[:, 0]) == pytest.approx(0.25 * 1.6 * SIDE, abs=3)
    kept = np.argwhere(rasterise((DISC.format(32, 16), False))[..., 3] > 127)
    assert np.ptp(kept[:, 0]) == pytest.approx(SIDE / 2, abs=2)


def test_edges_keep_the_colour_of_the_drawing():
    pixels = rasterise((DISC.format(32, 20), True))
    edge = pixels[(pixels[..., 3] > 30) & (pixels[..., 3] < 255)].astype(int)
    assert len(edge)
    assert (edge[:, 0] > 225).all()  # red, and not red mixed with black
    assert (edge[:, 1:3] < 30).all()


def test_writing_twice_gives_the_same_bytes(tmp_path):
    known = {"a": Concept("a", "ant", (), (), 3), "b": Concept("b", "bee", (), (), 3)}
    art = [Drawing("a", "flat", DISC.format(32, 20)), Drawing("a", "noto", DISC.format(32, 30))]
    for name in ("one", "two"):
        write(tmp_path / name, art, known, "x", processes=1)
    for file in ("sprites-128.npy", "sprites.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    assert not list((tmp_path / "one").glob("*.part"))
    opened = Sprites.open(tmp_path / "one")
    assert opened.styles() == {"a": {"flat": 0, "noto": 1}}
    assert list(opened.concepts) == ["a"]
    assert opened.sprites[0].fluent
    assert not opened.sprites[1].fluent
    assert len(json.loads((tmp_path / "one/sprites.json").read_text())["sha256"]) == 64


def test_a_folder_that_was_not_built_says_what_to_call(tmp_path):
    with pytest.raises(FileProblem, match=r"scenes\.build"):
        Sprites.open(tmp_path)


def test_the_manifest_depends_on_every_pin():
    pinned = packages()
    assert len({manifest(pinned[:n]) for n in range(len(pinned) + 1)}) == len(pinned) + 1
