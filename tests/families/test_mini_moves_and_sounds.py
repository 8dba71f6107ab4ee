"""The models of clips and sounds that ship: things go where words send them, and keys and beats are those asked for."""

import numpy as np
import pytest
import torch

from triptych.families import cards, load
from triptych.model import decode, generate
from triptych.train.data.scores import MODES, TONICS
from triptych.types import Request


@pytest.fixture(scope="module")
def video():
    return load(cards()["mini-video"], "cpu", "float32")


@pytest.fixture(scope="module")
def audio():
    return load(cards()["mini-audio"], "cpu", "float32")


def made(model, prompt, init=None, **fields):
    request = Request(model.card.name, prompt, **{"seed": 1, "steps": 8, **fields})
    *_, last = generate(model, model.card.resolve(request), init=init)
    return decode(model, last.x_t).clamp(-1, 1)


def centres(x):
    """(T, 2) where what is drawn on white is, (x, y) as shares of the frame."""
    drawn = (x[0] < 0.6).any(0)
    places = [one.nonzero().float().mean(0).flip(0) / one.shape[0] for one in drawn]
    return torch.stack(places).numpy()


@pytest.mark.parametrize(
    ("prompt", "way"),
    [("a soccer ball rolling", (1, 0)), ("a cat sliding to the left", (-1, 0)), ("a rocket flying up", (0, -1))],
)
def test_things_go_where_words_send_them(video, prompt, way):
    track = centres(made(video, prompt, duration=0.75))
    gone = track[4] - track[0]
    assert gone @ np.array(way) > 0.08
    assert abs(gone @ np.array(way)[::-1]) < 0.08


def test_what_moves_by_itself_moves_and_does_not_flicker(video):
    x = made(video, "a heart beating")
    change = x.diff(dim=2)
    undone = torch.minimum(change[:, :, 1:].abs(), change[:, :, :-1].abs()) * (change[:, :, 1:] * change[:, :, :-1] < 0)
    assert 0.004 < change.abs().mean() < 0.2
    assert undone.mean() < 0.35 * change.abs().mean()


def test_a_clip_begins_with_the_picture_that_it_is_shown(video):
    frame = made(video, "a cat", duration=0.5)[:, :, 0]
    x = made(video, "a cat spinning", init=frame, duration=0.5)
    assert (x[:, :, 0] - frame).abs().mean() < 0.12
    assert (x[:, :, -1] - frame).abs().mean() > 0.02


def test_what_moves_is_what_the_first_picture_shows(video):
    blue = made(video, "a cat", duration=0.5)[:, :, 0].flip(1)  # orange, with red and blue changed for each other
    last = made(video, "a cat bouncing", init=blue, duration=0.5)[0, :, -1]
    drawn = last[:, (last < 0.6).any(0)]
    assert drawn[2].mean() > drawn[0].mean() + 0.1


def test_beats_come_as_often_as_words_say(audio):
    tower = audio.encoder.single.tower
    for prompt, beats in (("techno drum loop, 140 bpm", 140), ("piano scale, 75 bpm", 75), ("thunder", 0)):
        ids, mask = audio.encoder.single.words([prompt])
        cond = tower(ids, mask)
        assert 60 * tower.pulse.rate(cond.tokens, cond.mask).item() == pytest.approx(beats, rel=0.05)


@pytest.mark.parametrize(("key", "mode"), [("c", "major"), ("a", "minor"), ("e flat", "major"), ("f sharp", "minor")])
def test_notes_that_words_make_likely_are_those_of_their_key(audio, key, mode):
    tower = audio.encoder.single.tower
    ids, mask = audio.encoder.single.words([f"piano scale in {key} {mode}"])
    cond = tower(ids, mask)
    odds = tower.pitch(cond.tokens, cond.mask).sigmoid()[0]
    shares = odds.unflatten(0, (-1, 12)).sum(0)
    within = [(TONICS.index(key) + step) % 12 for step in MODES[mode]]
    assert set(shares.topk(7).indices.tolist()) == set(within)


def test_a_sound_is_as_long_as_is_asked_for_whole_latents(audio):
    x = made(audio, "violin melody", duration=2.0, steps=3)
    assert x.shape == (1, 1, 16 * 4096)
    assert x.abs().max() > 0.01


def test_sounds_made_together_are_those_made_alone(audio):
    together = made(audio, "flute melody", duration=1.0, steps=3, count=2, seed=5)
    alone = torch.cat([made(audio, "flute melody", duration=1.0, steps=3, seed=seed) for seed in (5, 6)])
    spectra = [audio.codec.spectrum(x) for x in (together, alone)]
    assert (spectra[0] - spectra[1]).abs().mean() < 0.05
