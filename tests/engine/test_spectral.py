"""Magnitudes against analytic ones, phases that agree with them, and the codec's shapes."""

import math

import numpy as np
import pytest
import scipy.signal
import torch

from triptych.engine.codec import latent_shape
from triptych.engine.codecs.phase import magnitudes, waves
from triptych.engine.codecs.spectral import Spectral

RATE = 16_000


def sine(hertz, seconds=1.024, amplitude=0.5):
    return amplitude * torch.sin(2 * math.pi * hertz * torch.arange(round(seconds * RATE)) / RATE)[None]


def distance(x, y):
    """How far magnitudes are apart, as a share of the first."""
    a, b = magnitudes(x, 1024, 256), magnitudes(y, 1024, 256)
    return float((a - b).norm() / a.norm())


def test_a_sine_on_a_bin_has_its_amplitude_there():
    found = magnitudes(sine(1000), 1024, 256)
    assert found.shape == (1, 513, 64)
    assert found[0, :, 30].argmax() == 1000 * 1024 / RATE
    assert found[0, 64, 30] == pytest.approx(0.5, rel=1e-3)


def test_magnitudes_are_scipys():
    x = torch.randn(1, 8192)
    theirs = scipy.signal.stft(
        x[0].numpy(), window=scipy.signal.get_window("hann", 1024), nperseg=1024, noverlap=768, boundary="zeros"
    )[2]
    np.testing.assert_allclose(magnitudes(x, 1024, 256)[0].numpy(), 2 * np.abs(theirs)[:, :32], atol=1e-5)


@pytest.mark.parametrize("hertz", [440, 1003.7, 3150])
def test_one_pass_finds_the_phases_of_a_sine(hertz):
    x = sine(hertz)
    y = waves(magnitudes(x, 1024, 256), 1024, 256, 0)
    assert y.shape == x.shape
    assert distance(x[:, 2048:-2048], y[:, 2048:-2048]) < 0.02


def test_rounds_bring_phases_together():
    torch.manual_seed(0)
    x = sine(300) + sine(450) * torch.exp(-torch.arange(16384) / 4000) + 0.02 * torch.randn(1, 16384)
    apart = [distance(x, waves(magnitudes(x, 1024, 256), 1024, 256, rounds)) for rounds in (0, 8, 32)]
    assert apart[0] > apart[1] > apart[2]
    assert apart[2] < 0.1


def test_shapes_and_padding():
    codec = Spectral(4, window=512, hop=128, fold=(2, 2), widths=(16,) * 4, blocks=(1,) * 4, finish=2, rounds=2)
    assert codec.bands == 80
    assert codec.scale_factor == (512,)
    x = torch.randn(2, 1, 3000)  # not a multiple
    z = codec.encode(x)
    assert z.shape[1:] == latent_shape(codec, [3000]) == (4 * 20, 6)
    assert codec.decode(z).shape == (2, 1, 3072)


def test_the_scale_keeps_low_bins_and_joins_high_ones():
    codec = Spectral(4, window=1024, hop=256, fold=(2, 2), widths=(16,) * 4, blocks=(1,) * 4, finish=2)
    low, high = (int(codec.spectrum(sine(hertz)[:, None])[0, 0, :, 32].argmax()) for hertz in (500, 6000))
    assert low == 500 * 1024 // RATE
    assert high == 4 * 32 + (6000 * 1024 // RATE - 256) // 8  # after two octaves' bands, joined by eights


def test_what_the_scale_keeps_sounds_alike():
    codec = Spectral(4, window=1024, hop=256, fold=(2, 2), widths=(16,) * 4, blocks=(1,) * 4, finish=2)
    x = sine(300, 2.048) + sine(620, 2.048, 0.2)
    y = codec.sounding(codec.spectrum(x[:, None]))[:, 0]
    assert distance(x, y) < 0.1


def test_silence_stays_silent():
    codec = Spectral(4, window=512, hop=128, fold=(2, 2), widths=(16,) * 4, blocks=(1,) * 4, finish=2, rounds=4)
    silent = codec.sounding(codec.spectrum(torch.zeros(1, 1, 4096)))
    assert silent.abs().max() < 1e-4
