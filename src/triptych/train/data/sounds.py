"""Sounds: one seed, one captioned clip, played by a soundfont from a score that is composed on the fly.

Single notes, chords, arpeggios, scales, melodies and bass lines of some seventy instruments in all keys; drum loops;
sound effects. A caption says as much of it as people do, in several orders.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from triptych.media.audio import levelled
from triptych.train.data import soundfonts
from triptych.train.data.holdout import share
from triptych.train.data.scores import FAST, GROOVES, MODES, SLOW, TONICS, Note, groove, mood, pattern
from triptych.train.data.words import with_article

__all__ = ["RATE", "Sound", "Sounds", "build", "instruments", "trains"]

Rng = np.random.Generator
RATE, SECONDS = 32_000, 8.192
WITHHELD = 0.1  # share of the cells of instrument, key and pattern that training never hears
MIX: Final[Mapping[str, float]] = {
    "note": 0.08, "chords": 0.17, "arpeggio": 0.17, "melody": 0.2, "scale": 0.08, "bass line": 0.06, "drums": 0.13,
    "effect": 0.11,
}  # fmt: skip
BASSES: Final = ("double bass", "bass guitar", "slap bass", "synth bass", "tuba", "cello", "bassoon")
TEMPI = (60, 180)  # beats a minute
DRUMS = 9  # the channel


@final
@dataclass(frozen=True, slots=True)
class Sound:
    """A clip (samples,) in [-1, 1] at RATE, its caption, and what is in it: "" or 0 where something does not apply.
    notes: those of its score, as MIDI numbers them; drums and effects have none."""

    samples: NDArray[np.float32]
    caption: str
    kind: str
    player: str
    tonic: str = ""
    mode: str = ""
    tempo: int = 0
    notes: tuple[int, ...] = ()

    @property
    def codes(self) -> tuple[str, ...]:
        """What it is a sound of."""
        return (self.player,)

    @property
    def pulse(self) -> float:
        """Beats a second, 0 for none: a single note has no beat, whatever its tempo."""
        return 0.0 if self.kind == "note" else self.tempo / 60


def build(folder: Path) -> None:
    """Fetches the soundfonts into `folder` where they are not there yet."""
    soundfonts.build(folder)


@cache
def instruments() -> Mapping[str, Mapping[str, Sequence[Any]]]:
    """[instruments], [kits] and [effects] of the table: by name, where in which font they are, and their keys."""
    table: dict[str, dict[str, list[Any]]] = tomllib.loads(Path(__file__).with_name("instruments.toml").read_text())
    return table


def trains(player: str, tonic: str, mode: str, kind: str) -> bool:
    """Whether training may play this kind of thing on this instrument in this key."""
    return share("sound", player, tonic, mode, kind) >= WITHHELD


@final
class Sounds:
    """The sound of every seed. Small to pickle: another process opens the soundfonts itself."""

    def __init__(self, folder: Path, kind: str | None = None, held_out: bool = False) -> None:
        """folder: where `build` wrote; kind: of MIX, the only one to make; held_out: only what training never hears."""
        self._made_of = (folder, kind, held_out)
        self._kind, self._held_out = kind, held_out
        self._player, self._fonts = soundfonts.synth(folder, RATE)
        self._kinds, self._odds = tuple(MIX), np.cumsum(list(MIX.values())) / sum(MIX.values())

    def __reduce__(self) -> tuple[type["Sounds"], tuple[Path, str | None, bool]]:
        return Sounds, self._made_of

    def sound(self, seed: int) -> Sound:
        """The sound of a seed: always the same."""
        rng = np.random.default_rng(seed)
        kind = self._kind or self._kinds[int(np.searchsorted(self._odds, rng.random(), side="right"))]
        match kind:
            case "drums":
                return self._drums(rng)
            case "effect":
                return self._effect(rng)
            case _:
                return self._music(rng, kind)

    def _music(self, rng: Rng, kind: str) -> Sound:
        table = instruments()["instruments"]
        names = [name for name in table if (name in BASSES) == (kind == "bass line") or kind in ("note", "melody")]
        while True:
            name, tonic = _one(rng, names), _one(rng, TONICS)
            mode = _one(rng, tuple(MODES))
            if trains(name, tonic, mode, kind) != self._held_out:
                break
        font, bank, preset, low, high = table[name]
        tempo = 5 * round(rng.uniform(*TEMPI) / 5)
        every = 0.5 if kind in ("arpeggio", "bass line") and tempo < FAST else 1.0
        beats = SECONDS * tempo / 60
        score = pattern(rng, kind, TONICS.index(tonic), mode, (low, high), beats, every)
        samples = self._played(score, tempo, font, bank, preset)
        notes = tuple(sorted({note.key for note in score}))
        return Sound(samples, _said(rng, name, kind, tonic, mode, tempo), kind, name, tonic, mode, tempo, notes)

    def _drums(self, rng: Rng) -> Sound:
        kits = instruments()["kits"]
        name, kind = _one(rng, tuple(kits)), _one(rng, tuple(GROOVES))
        font, bank, preset = kits[name]
        tempo = 5 * round(rng.uniform(80, 170) / 5)
        samples = self._played(groove(rng, kind, SECONDS * tempo / 60), tempo, font, bank, preset)
        return Sound(samples, _drummed(rng, name, kind, tempo), "drums", name, tempo=tempo)

    def _effect(self, rng: Rng) -> Sound:
        effects = instruments()["effects"]
        name = _one(rng, tuple(effects))
        font, bank, preset = effects[name]
        key = 60 + int(rng.integers(-3, 4))
        length = float(rng.choice([1.0, 2.0, 4.0]))
        notes = [Note(start, 0.95 * length, key, 110) for start in np.arange(0, SECONDS, length)]
        said = _one(rng, (name, name, f"the sound of {name}", f"{name}, sound effect"))
        return Sound(self._played(notes, 60, font, bank, preset), said, "effect", name)

    def _played(self, notes: Sequence[Note], tempo: float, font: str, bank: int, preset: int) -> NDArray[np.float32]:
        """(samples,) mono at one loudness."""
        player, drums = self._player, bank == 128
        channel = DRUMS if drums else 0
        player.program_select(channel, self._fonts[font], bank, preset, drums)
        events = [(note.start, 1, note) for note in notes] + [(note.start + note.length, 0, note) for note in notes]
        parts, place, whole = [], 0, round(SECONDS * RATE)
        for beat, on, note in sorted(events, key=lambda event: event[:2]):
            until = min(round(beat * 60 / tempo * RATE), whole)
            if until > place:
                parts.append(np.frombuffer(player.generate(until - place), np.float32).reshape(-1, 2).mean(1))
                place = until
            if place < whole:
                player.noteon(channel, note.key, note.velocity) if on else player.noteoff(channel, note.key)
        if place < whole:
            parts.append(np.frombuffer(player.generate(whole - place), np.float32).reshape(-1, 2).mean(1))
        player.sounds_off()
        return levelled(np.concatenate(parts))


def _said(rng: Rng, name: str, kind: str, tonic: str, mode: str, tempo: int) -> str:
    """One way to say it, with as much of key, tempo and mood as people say."""
    key = (tonic if kind == "note" else f"{tonic} {mode}") if rng.random() < 0.75 else ""
    pace = "slow" if tempo < SLOW else "fast" if tempo > FAST else ""
    words = [pace] if pace and rng.random() < 0.6 else []
    moods = mood(mode, tempo)
    if moods and rng.random() < 0.4:
        words.append(_one(rng, moods))
    beats = f"{tempo} bpm" if kind != "note" and rng.random() < 0.35 else ""
    thing = {"note": "note", "chords": "chords", "bass line": "bass line"}.get(kind, kind)
    turn = rng.random()
    if turn < 0.3:
        said = " ".join([*words, name, thing]) + (f" in {key}" if key else "")
    elif turn < 0.55:
        what = f"{key} {thing}".strip()
        said = " ".join([*words, name]) + f" playing {what if kind == 'chords' else _lettered(what)}"
    elif turn < 0.8:
        said = " ".join([*words, name]) + (f" in {key}" if key else "")
    else:
        said = f"{thing} on {with_article(name)}" + (f" in {key}" if key else "")
        said = ", ".join([said, *words])
    return f"{said}, {beats}" if beats else said


def _lettered(what: str) -> str:
    """ "an f sharp minor scale", "a c major scale": keys are letters."""
    spoken_with_vowel = what.split()[0] in ("a", "e", "f")
    return f"an {what}" if spoken_with_vowel else with_article(what)


def _drummed(rng: Rng, name: str, kind: str, tempo: int) -> str:
    pace = "slow" if tempo < 100 else "fast" if tempo > FAST else ""
    words = [pace] if pace and rng.random() < 0.6 else []
    words += [kind] if rng.random() < 0.85 else []
    said = " ".join([*words, name, _one(rng, ("loop", "beat", "groove"))])
    said = said.replace("drum beat", "beat") if name == "drum" and words and rng.random() < 0.5 else said
    return f"{said}, {tempo} bpm" if rng.random() < 0.5 else said


def _one(rng: Rng, choices: Sequence[str]) -> str:
    return choices[int(rng.integers(len(choices)))]
