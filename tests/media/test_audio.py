"""Sounds as files: every format plays back what went in, at one loudness, with the recipe inside; and what they look
like."""

import io
import math
import wave
from contextlib import suppress

import numpy as np
import pytest
import torch

from triptych.errors import FileProblem, NoRecipe
from triptych.media import EXTENSIONS, artifact, convert, read_recipe
from triptych.media.audio import LEVEL, LOSSLESS, PEAK, Sound, decode, encode, levelled, samples, sounds
from triptych.media.plot import LEFT, plot
from triptych.types import Artifact

RECIPE = {
    "triptych": 1,
    "request": {"prompt": "slow piano; ünïcode {}= " + "long " * 500, "seed": 7},
    "model": {"name": "m", "weights": {}},
    "versions": {"triptych": "0"},
}
MIMES = sorted(set(EXTENSIONS["audio"].values()))


def tone(hertz=440.0, seconds=1.5, rate=32_000, channels=1):
    wave = 0.3 * np.sin(2 * math.pi * hertz * np.arange(round(seconds * rate)) / rate)
    return Sound(np.repeat(wave.astype(np.float32)[:, None], channels, axis=1), rate)


def loudest(sound):
    """(hertz, decibels of everything else below it) of the middle of a sound."""
    middle = sound.samples[len(sound.samples) // 4 : -len(sound.samples) // 4, 0]
    power = np.abs(np.fft.rfft(middle * np.blackman(len(middle)))) ** 2
    top = int(power.argmax())
    near = power[top - 4 : top + 5].sum()
    return top * sound.rate / len(middle), 10 * np.log10(near / (power.sum() - near))


@pytest.mark.parametrize("mime", MIMES)
@pytest.mark.parametrize("channels", [1, 2])
def test_what_is_written_is_read_again(mime, channels):
    given = tone(channels=channels)
    again = decode(encode(given, mime, RECIPE))
    assert again.rate == 32_000
    assert again.samples.shape[1] == channels
    assert len(again.samples) / again.rate == pytest.approx(1.5, abs=0.08)  # MP3 has whole frames
    hertz, clean = loudest(again)
    assert hertz == pytest.approx(440, abs=2)
    assert clean > 30


def test_flac_and_wav_lose_no_more_than_their_bits():
    given = tone()
    for mime, bits in ((LOSSLESS, 24), ("audio/wav", 16)):
        again = decode(encode(given, mime, {}))
        assert np.abs(again.samples - given.samples).max() <= 2.0 ** (1 - bits)


@pytest.mark.parametrize("mime", MIMES)
def test_the_recipe_comes_back_exactly_from_every_format(mime):
    assert read_recipe(encode(tone(), mime, RECIPE), "the file") == RECIPE
    with pytest.raises(NoRecipe):
        read_recipe(encode(tone(), mime, {}), "the file")


def test_the_standard_library_reads_our_wav():
    with wave.open(io.BytesIO(encode(tone(), "audio/wav", RECIPE))) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnframes()) == (32_000, 2, 48_000)


def test_converting_keeps_the_recipe():
    kept = Artifact(LOSSLESS, encode(tone(), LOSSLESS, RECIPE), RECIPE)
    made = convert(kept, "audio/ogg")
    assert made.mime == "audio/ogg"
    assert read_recipe(made.data, "x") == RECIPE


def test_levels_are_even_and_never_clip():
    quiet = tone().samples * 0.01
    assert np.sqrt(np.mean(levelled(quiet) ** 2)) == pytest.approx(LEVEL, rel=1e-3)
    click = np.zeros((32000, 1), np.float32)
    click[100] = 0.3
    assert np.abs(levelled(click)).max() == pytest.approx(PEAK)
    assert not levelled(np.zeros((10, 1), np.float32)).any()


@pytest.mark.parametrize("mime", MIMES)
def test_files_do_not_clip(mime):
    rng = np.random.default_rng(0)
    loud = Sound(levelled((rng.random((32_000, 1)) ** 8 * rng.choice([-1, 1], (32_000, 1))).astype(np.float32)), 32_000)
    assert np.abs(decode(encode(loud, mime, {})).samples).max() < 1


def test_samples_become_sounds_as_long_as_asked_that_end_softly():
    x = torch.ones(2, 1, 4096) * 0.5
    first, second = sounds(x, 1000, 3000)
    assert first.samples.shape == second.samples.shape == (3000, 1)
    assert first.samples[-1] == 0
    assert first.samples[-11] == first.samples[0]


def test_any_sound_becomes_samples_of_the_model():
    data = encode(tone(rate=44_100, channels=2), "audio/wav", {})
    x = samples(data, 32_000, 32_000)
    assert x.shape == (1, 1, 32_000)
    assert loudest(Sound(x[0].T.numpy(), 32_000))[0] == pytest.approx(440, abs=2)
    longer = samples(data, 64_000, 32_000)
    assert not longer[..., 48_100:].any()


@pytest.mark.parametrize("data", [b"", b"RIFF\x00\x00\x00\x00WAVEjunk", b"fLaC" + bytes(50), b"ID3" + bytes(200)])
def test_what_is_no_sound_is_said_so(data):
    with pytest.raises(FileProblem):
        decode(data, "x.wav")


@pytest.mark.parametrize("mime", MIMES)
def test_of_a_truncated_file_what_is_left_is_read_or_it_is_said_to_be_damaged(mime):
    whole = encode(tone(), mime, RECIPE)
    with suppress(FileProblem):
        assert len(decode(whole[: len(whole) // 2]).samples) < 48_100
    with pytest.raises(FileProblem, match="the file"):
        decode(whole[:40])


@pytest.mark.parametrize("mime", MIMES)
def test_inputs_are_told_by_what_is_in_them(mime):
    assert artifact(encode(tone(), mime, {}), "given.bin").mime == mime


def test_a_plot_has_the_note_where_it_belongs():
    picture = np.asarray(plot(tone(2000.0), (400, 300))).astype(int)
    assert picture.shape == (300, 400, 3)
    column = picture[:, LEFT + 150].sum(-1)
    below = slice(12 + (300 - 32) // 4, 300 - 20)
    row = int(column[below].argmax()) + below.start
    top, height = below.start, below.stop - below.start
    expected = top + height * (1 - math.log(2000 / 40) / math.log(16000 / 40))
    assert row == pytest.approx(expected, abs=4)
