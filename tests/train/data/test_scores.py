"""Scores stay in their key and range, keep their time, and moods follow their rule."""

import numpy as np
import pytest

from triptych.train.data.scores import GROOVES, MODES, PATTERNS, TONICS, groove, mood, pattern
from triptych.train.data.sounds import MIX, instruments, trains


@pytest.mark.parametrize("kind", PATTERNS)
@pytest.mark.parametrize("mode", MODES)
def test_every_note_is_in_the_key_and_within_reach(kind, mode):
    for tonic in range(12):
        notes = pattern(np.random.default_rng(tonic), kind, tonic, mode, (55, 84), 8)
        assert notes
        assert all(55 <= note.key <= 84 for note in notes)
        assert all((note.key - tonic) % 12 in MODES[mode] for note in notes)
        assert all(0 <= note.start < 8 for note in notes)


@pytest.mark.parametrize("kind", ["arpeggio", "melody", "scale", "bass line"])
def test_notes_come_as_often_as_they_are_asked_for(kind):
    notes = pattern(np.random.default_rng(1), kind, 0, "major", (40, 84), 8, every=0.5)
    assert [note.start for note in notes] == [n / 2 for n in range(16)]


def test_chords_are_triads_on_every_other_beat():
    notes = pattern(np.random.default_rng(1), "chords", 0, "major", (40, 84), 8)
    assert sorted({note.start for note in notes}) == [0, 2, 4, 6]
    assert len(notes) == 12


def test_a_melody_begins_and_ends_on_its_tonic():
    for seed in range(20):
        notes = pattern(np.random.default_rng(seed), "melody", 9, "minor", (50, 90), 8)
        assert notes[0].key % 12 == notes[-1].key % 12 == 9


@pytest.mark.parametrize("kind", GROOVES)
def test_grooves_have_sixteen_steps_a_bar(kind):
    assert all(len(row) == 16 and set(row) <= set("xo.") for row in GROOVES[kind].values())
    notes = groove(np.random.default_rng(0), kind, 8)
    assert all(note.start * 4 == int(note.start * 4) and note.start < 8 for note in notes)


def test_moods_follow_their_rule():
    assert "happy" in mood("major", 150)
    assert "sad" in mood("minor", 70)
    assert "calm" in mood("major", 70)
    assert "tense" in mood("minor", 150)
    assert not mood("minor", 110)


def test_the_table_has_what_the_recipe_promises():
    table = instruments()
    assert len(table["instruments"]) >= 60
    assert all(high - low >= 16 for *_, low, high in table["instruments"].values())
    assert {"rain", "thunder", "a dog barking", "a siren"} <= set(table["effects"])


def test_a_tenth_of_the_cells_is_withheld():
    cells = [(i, t, m, k) for i in instruments()["instruments"] for t in TONICS for m in MODES for k in MIX]
    assert np.mean([not trains(*cell) for cell in cells]) == pytest.approx(0.1, abs=0.01)
