"""Notes that words make likely: where their partials lie is where a codec of spectra finds sines of those notes."""

import math

import pytest
import torch

from triptych.engine.codecs.spectral import Spectral
from triptych.engine.pitch import LOWEST, NOTES, SEMITONES, Pitch, partials

RATE = 32_000


@pytest.fixture(scope="module")
def codec():
    return Spectral(4, widths=(8,) * 4, blocks=(1,) * 4, finish=2, rounds=1)


def loudest(codec, hertz):
    """The band in which a sine is loudest."""
    wave = 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(32_768) / RATE)
    return int(codec.spectrum(wave[None, None])[0, 0, :, 30].argmax())


@pytest.mark.parametrize("note", [48, 57, 69, 81, 93, 100])
def test_partials_lie_where_sines_are_loudest(codec, note):
    row = partials(*codec.hertz(RATE))[note - LOWEST]
    for n in (1, 2, 3, 5):
        band = loudest(codec, n * 440 * 2 ** ((note - 69) / 12))
        near = row[max(0, band - 1) : band + 2]
        assert near.max() > 0.6 / n
    assert not row[: loudest(codec, 440 * 2 ** ((note - 69) / 12)) - 2].any()


def test_middles_of_bands_are_where_sines_are_loudest(codec):
    middles, widths = codec.hertz(RATE)
    assert len(middles) == len(widths) == codec.bands
    for hertz in (110, 500, 1234, 2500, 5000, 11_000, 15_000):
        band = loudest(codec, hertz)
        assert abs(middles[band] - hertz) <= widths[band] / 2 + 1e-3


def test_the_odds_of_notes_are_those_of_place_and_of_height():
    torch.manual_seed(0)
    pitch, tokens = Pitch(8, 2, 16), torch.randn(3, 6, 8)
    mask = torch.ones(3, 6, dtype=torch.bool)
    octaves = pitch(tokens, mask).unflatten(1, (NOTES // SEMITONES, SEMITONES))
    last = pitch.layers[-1]
    with torch.no_grad():
        last.weight[SEMITONES:].zero_()
        last.bias[SEMITONES:].zero_()
    places = pitch(tokens, mask).unflatten(1, (NOTES // SEMITONES, SEMITONES))
    torch.testing.assert_close(places, places[:, :1].expand_as(places))
    assert (octaves - places).std() > 0.01


def test_what_pads_a_text_has_no_say():
    torch.manual_seed(0)
    pitch, tokens = Pitch(8, 2, 16), torch.randn(1, 6, 8)
    mask = torch.tensor([[True] * 4 + [False] * 2])
    other = torch.where(mask[..., None], tokens, 100.0)
    torch.testing.assert_close(pitch(tokens, mask), pitch(other, mask))


def test_what_is_likely_lies_in_the_bands_of_its_partials():
    pitch, where = Pitch(8, 2, 16), torch.rand(NOTES, 40)
    with torch.no_grad():
        pitch.layers[-1].weight.zero_()
        pitch.layers[-1].bias.fill_(-20)
        pitch.layers[-1].bias[SEMITONES + 9] = 60
    found = pitch.lie(torch.randn(2, 3, 8), torch.ones(2, 3, dtype=torch.bool), where)
    torch.testing.assert_close(found, where[9].expand(2, -1), atol=1e-4, rtol=0)
