"""Scores: notes in beats, composed by rule in a key and at a tempo, so that a caption can say what is heard."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import numpy as np

__all__ = ["GROOVES", "MODES", "PATTERNS", "TONICS", "Note", "groove", "mood", "pattern"]

Rng = np.random.Generator
TONICS: Final = ("c", "c sharp", "d", "e flat", "e", "f", "f sharp", "g", "a flat", "a", "b flat", "b")
MODES: Final[Mapping[str, tuple[int, ...]]] = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
PROGRESSIONS: Final = ((0, 3, 4, 0), (0, 5, 3, 4), (0, 4, 5, 3), (0, 3, 0, 4))  # degrees, from 0
ARPEGGIOS: Final = ((0, 2, 4, 7), (0, 2, 4, 7, 4, 2), (7, 4, 2, 0), (0, 4, 2, 4))
PATTERNS: Final = ("note", "chords", "arpeggio", "melody", "scale", "bass line")
SLOW, FAST = 90, 132  # beats a minute

KICK, SNARE, CLAP, HAT, OPEN, RIDE, RIM, TOM, CRASH = 36, 38, 39, 42, 46, 51, 37, 45, 49  # General MIDI
GROOVES: Final[Mapping[str, Mapping[int, str]]] = {  # sixteen steps a bar; x hard, o soft
    "rock": {KICK: "x.......x.x.....", SNARE: "....x.......x...", HAT: "x.o.x.o.x.o.x.o."},
    "pop": {KICK: "x.....x.x.......", SNARE: "....x.......x...", HAT: "x.x.x.x.x.x.x.x."},
    "techno": {KICK: "x...x...x...x...", CLAP: "....x.......x...", OPEN: "..x...x...x...x."},
    "house": {KICK: "x...x...x...x...", SNARE: "....x.......x...", OPEN: "..x...x...x...x.", HAT: "oooooooooooooooo"},
    "hip hop": {KICK: "x..x......xx....", SNARE: "....x.......x...", HAT: "x.x.x.x.x.x.x.xo"},
    "jazz": {RIDE: "x...x..xx...x..x", HAT: "....x.......x...", KICK: "o.......o......."},
    "latin": {KICK: "x..x....x..x....", RIM: "x..x..x...x.x...", HAT: "x.x.x.x.x.x.x.x."},
    "march": {SNARE: "x.oox.oox.oox.xx", KICK: "x.......x......."},
}


@final
@dataclass(frozen=True, slots=True)
class Note:
    """start and length in beats; key and velocity as in MIDI."""

    start: float
    length: float
    key: int
    velocity: int


def pattern(
    rng: Rng, kind: str, tonic: int, mode: str, span: tuple[int, int], beats: float, every: float = 1.0
) -> list[Note]:
    """Notes of one of PATTERNS.

    tonic: 0 to 11; span: the lowest and the highest key; beats: how many; every: beats from note to note.
    """
    ladder = _ladder(tonic, MODES[mode], span)
    home = _home(rng, ladder, tonic, 8 if kind in ("arpeggio", "scale", "melody") else 5)
    count = max(1, int(beats / every))
    match kind:
        case "note":
            return [Note(0, beats, ladder[home], _loud(rng))]
        case "chords":
            chords = PROGRESSIONS[int(rng.integers(len(PROGRESSIONS)))]
            starts = range(0, max(1, int(beats)), 2)
            return [
                Note(start, 1.9, ladder[_near(ladder, home + chords[n % 4] + third)], _loud(rng))
                for n, start in enumerate(starts)
                for third in (0, 2, 4)
            ]
        case "arpeggio":
            shape = ARPEGGIOS[int(rng.integers(len(ARPEGGIOS)))]
            degrees = [shape[n % len(shape)] for n in range(count)]
        case "scale":
            up = bool(rng.random() < 0.5)
            degrees = [(n % 8) if up else 7 - n % 8 for n in range(count)]
        case "bass line":
            degrees = [(0, 0, 4, 2, 0, 0, 3, 4)[n % 8] for n in range(count)]
        case _:
            degrees = _walk(rng, count)
    return [Note(n * every, 0.95 * every, ladder[_near(ladder, home + d)], _loud(rng)) for n, d in enumerate(degrees)]


def groove(rng: Rng, kind: str, beats: float) -> list[Note]:
    """A drum loop of one of GROOVES, with a crash at times."""
    steps = int(beats * 4)
    notes = [
        Note(n / 4, 0.2, key, int(rng.integers(100, 120) if row[n % 16] == "x" else rng.integers(55, 75)))
        for key, row in GROOVES[kind].items()
        for n in range(steps)
        if row[n % 16] != "."
    ]
    return [Note(0, 1, CRASH, 100), *notes] if rng.random() < 0.15 else notes


def mood(mode: str, tempo: float) -> tuple[str, ...]:
    """Words for a mode at a tempo. A rule, not a judgement: major and fast is happy, minor and slow is sad."""
    if tempo < SLOW:
        return ("calm", "peaceful", "gentle") if mode == "major" else ("sad", "melancholic", "mournful")
    if tempo > FAST:
        return ("happy", "cheerful", "energetic") if mode == "major" else ("tense", "dramatic", "dark")
    return ()


def _ladder(tonic: int, steps: tuple[int, ...], span: tuple[int, int]) -> list[int]:
    """Every key of the scale within the span."""
    return [key for key in range(span[0], span[1] + 1) if (key - tonic) % 12 in steps]


def _home(rng: Rng, ladder: list[int], tonic: int, room: int) -> int:
    """The rung of a tonic with room above it, near the middle of what can be played."""
    tonics = [n for n, key in enumerate(ladder) if key % 12 == tonic]
    fitting = [n for n in tonics if n + room < len(ladder)] or tonics[:1]
    middle = sorted(fitting, key=lambda n: abs(n + room / 2 - len(ladder) / 2))
    return middle[int(rng.integers(min(2, len(middle))))]


def _near(ladder: list[int], rung: int) -> int:
    """The rung itself, or one an octave, seven rungs, away that is there."""
    while rung >= len(ladder):
        rung -= 7
    return max(rung, 0)


def _walk(rng: Rng, count: int) -> list[int]:
    """Degrees of a melody: small steps about the tonic, from it and back to it."""
    degrees = [0]
    for _ in range(count - 2):
        step = int(rng.choice([-2, -1, -1, 0, 1, 1, 2, 3]))
        degrees.append(int(np.clip(degrees[-1] + step, -2, 8)))
    return [*degrees, 0][:count]


def _loud(rng: Rng) -> int:
    return int(rng.integers(85, 112))
