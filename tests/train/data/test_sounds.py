"""What a score gives: the notes that are said to be heard, in the key and at the heights that they are said to have."""

import numpy as np
import pytest

from triptych.train.batches import heard
from triptych.train.data import soundfonts
from triptych.train.data.scores import MODES, TONICS
from triptych.train.data.sounds import Sounds, instruments


class Silent:
    """A player that plays nothing, in no time."""

    def program_select(self, *where):
        pass

    noteon = noteoff = program_select

    def sounds_off(self):
        pass

    def generate(self, count):
        return np.zeros(2 * count, np.float32).tobytes()


@pytest.fixture
def scored(monkeypatch, tmp_path):
    monkeypatch.setattr(soundfonts, "synth", lambda folder, rate: (Silent(), {"gm": 0, "gs": 1}))
    return Sounds(tmp_path)


def test_notes_are_those_of_the_key_and_of_the_instrument(scored):
    table = instruments()["instruments"]
    found = [scored.sound(seed) for seed in range(60)]
    played = [one for one in found if one.mode]
    assert len(played) > 30
    for one in played:
        *_, low, high = table[one.player]
        assert one.notes == tuple(sorted(set(one.notes)))
        assert low <= one.notes[0] <= one.notes[-1] <= high
        assert {(note - TONICS.index(one.tonic)) % 12 for note in one.notes} <= set(MODES[one.mode])
    assert all(one.notes == () for one in found if not one.mode)


def test_a_batch_says_which_notes_each_has(scored):
    found = [scored.sound(seed) for seed in range(20)]
    batch = heard(found)
    assert batch.notes.shape == (20, 84)
    for row, one in zip(batch.notes, found, strict=True):
        assert tuple(24 + n for n in row.nonzero()[:, 0].tolist()) == one.notes
