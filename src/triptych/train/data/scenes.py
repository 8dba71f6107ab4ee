"""Scenes: one seed, one captioned picture, composed of sprites on the fly.

Single objects as they are, tinted, tiny or upside down, pairs in a stated relation, three of a kind; on white mostly,
which the caption then need not say, else on thirteen colours, gradients, stripes and dots, which it says.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np

from triptych.errors import UnknownName
from triptych.train.data import sprites
from triptych.train.data.captions import Ground, Subject, caption, one, posed, related, several
from triptych.train.data.casting import KINDS, Cast, HeldOut, Repertoire, Role, Trained, usual
from triptych.train.data.composition import GROUNDS, TINTS, Box, Pixels, fitted, paint, paste, tinted
from triptych.train.data.traits import can
from triptych.train.data.words import head_noun

__all__ = ["MIX", "Scene", "Scenes", "Thing", "build", "choose_ground"]

Rng = np.random.Generator
MIX: Final[Mapping[str, float]] = {
    "single": 0.63, "tint": 0.12, "beside": 0.07, "stacked": 0.05, "three": 0.05, "tiny": 0.04, "upside down": 0.04
}  # fmt: skip
WHITE, WHITE_SAID = 0.55, 0.06  # share of white grounds, and of those whose caption says so
PATTERNS: Final = (
    ("plain", 0.7),
    ("gradient", 0.8),
    ("stripes", 0.9),
    ("dots", 1.0),
)  # cumulative, of the others
MIRRORED = 0.25  # share of the sprites that may be mirrored; most pictures of a thing should agree
LENGTHS: Final = {  # kind -> the longer side of each object, as a share of the frame
    "beside": (0.42, 0.46), "stacked": (0.42, 0.46), "three": (0.27, 0.3), "tiny": (0.24, 0.32)
}  # fmt: skip
LENGTH = (0.80, 0.92)
CENTRES: Final = {
    "beside": ((0.26, 0.5), (0.74, 0.5)),
    "stacked": ((0.5, 0.26), (0.5, 0.74)),
    "three": ((0.18, 0.5), (0.5, 0.5), (0.82, 0.5)),
}
CENTRE: Final = ((0.5, 0.5),)


@final
@dataclass(frozen=True, slots=True)
class Scene:
    """A picture (size, size, 3), its caption, and what is in it.

    sprites, codes and boxes go from left to right, or from top to bottom; three of a kind have one sprite and three
    boxes. relation: of the object that the caption names first to the other. Fields are "" where nothing applies.
    """

    pixels: Pixels
    caption: str
    kind: str
    sprites: tuple[int, ...]
    codes: tuple[str, ...]
    names: tuple[str, ...]
    colour: str
    style: str
    style_said: bool
    ground: Ground
    relation: str
    boxes: tuple[Box, ...]
    withheld: str


@final
@dataclass(frozen=True, slots=True)
class Thing:
    """A concept as a single object: index of its sprite by style; trained: the styles that training shows."""

    label: str
    head: str
    names: tuple[str, ...]
    tags: tuple[str, ...]
    group: int
    sprites: Mapping[str, int]
    trained: tuple[str, ...]


def build(folder: Path) -> None:
    """Fetches and rasterises the sprites into `folder` where they are not there yet: two minutes, 0.65 GB."""
    sprites.build(folder)


@final
class Scenes:
    """The scene of every seed. Small to pickle: another process opens the files itself."""

    def __init__(
        self, folder: Path, size: int = 128, mix: Mapping[str, float] | None = None, held_out: bool = False
    ) -> None:
        """folder: where `build` wrote; size: pixels a side; mix: share of each kind, MIX unless told.

        held_out: draw only what training never sees, and nothing of it otherwise.
        """
        self._made_of = (folder, size, mix, held_out)
        self.size, shares = size, MIX if mix is None else mix
        for kind in shares:
            if kind not in KINDS:
                raise UnknownName("kind of scene", kind, KINDS)
        self.repertoire = Repertoire.of(sprites.Sprites.open(folder))
        self._casting = HeldOut(self.repertoire) if held_out else Trained(self.repertoire)
        self._kinds, self._odds = tuple(shares), np.cumsum(list(shares.values())) / sum(shares.values())

    def __reduce__(self) -> tuple[type["Scenes"], tuple[Path, int, Mapping[str, float] | None, bool]]:
        return Scenes, self._made_of

    def scene(self, seed: int) -> Scene:
        """The scene of a seed: always the same."""
        rng = np.random.default_rng(seed)
        kind = self._kinds[int(np.searchsorted(self._odds, rng.random(), side="right"))]
        cast = self._casting.cast(rng, kind)
        ground, said = choose_ground(rng)
        return self._compose(rng, kind, cast, ground, said, LENGTHS.get(kind, LENGTH), MIRRORED)

    def portrait(self, code: str, seed: int, length: tuple[float, float] = LENGTH) -> Scene:
        """A trained concept as its bare name asks for it: alone, in its usual style, in the middle, on white, and never
        mirrored, as a mean over both sides shows neither.

        length: the least and the most of its longer side, as a share of the frame.
        """
        rng, concept = np.random.default_rng(seed), self.repertoire.art.concepts[code]
        role = self.repertoire.role(rng, concept, usual(tuple(self.repertoire.trained[code])), "single")
        cast, ground = Cast((role,), style_said=False), Ground("plain", "white")
        return self._compose(rng, "single", cast, ground, said=False, length=length, mirrored=0.0)

    def _compose(
        self, rng: Rng, kind: str, cast: Cast, ground: Ground, said: bool, length: tuple[float, float], mirrored: float
    ) -> Scene:
        canvas = paint(ground, self.size)
        boxes = self._draw(rng, canvas, cast, kind, length, mirrored)
        relation = _relation(rng, kind)
        subject = _subject(rng, cast, kind, relation)
        style = cast.roles[0].sprite.style
        return Scene(
            canvas,
            caption(rng, subject, style if cast.style_said else None, ground if said else None),
            kind,
            tuple(role.sprite.index for role in cast.roles),
            tuple(role.concept.code for role in cast.roles),
            tuple(role.name for role in cast.roles),
            cast.tint,
            style,
            cast.style_said,
            ground,
            relation,
            boxes,
            cast.withheld,
        )

    def things(self) -> dict[str, Thing]:
        """Every concept by code, for single-object evaluation; those never trained have an empty `trained`."""
        shown, lexicon = self.repertoire, self.repertoire.lexicon
        return {
            code: Thing(
                concept.label,
                head_noun(concept.label),
                (*lexicon.common.get(code, ()), *lexicon.names[code]),
                lexicon.tags[code],
                concept.group,
                shown.drawn[code],
                tuple(shown.trained.get(code, ())),
            )
            for code, concept in shown.art.concepts.items()
        }

    def _draw(
        self, rng: Rng, canvas: Pixels, cast: Cast, kind: str, length: tuple[float, float], mirrored: float
    ) -> tuple[Box, ...]:
        longest = round(self.size * rng.uniform(*length))
        drawn = [self._picture(rng, role, cast.tint, kind, longest, mirrored) for role in cast.roles]
        centres = CENTRES.get(kind, CENTRE)
        if kind == "tiny":
            centres = ((rng.uniform(0.3, 0.7), rng.uniform(0.3, 0.7)),)
        shift = rng.uniform(-0.02, 0.02, 2)
        places = [((x + shift[0]) * self.size, (y + shift[1]) * self.size) for x, y in centres]
        return tuple(paste(canvas, drawn[n % len(drawn)], place) for n, place in enumerate(places))

    def _picture(self, rng: Rng, role: Role, tint: str, kind: str, longest: int, mirrored: float) -> Pixels:
        pixels = self.repertoire.art.pixels[role.sprite.index]
        if tint:
            pixels = tinted(pixels, TINTS[tint])
        whole = role.concept.group == sprites.SYMBOLS  # a small square stays small in its frame
        picture = fitted(pixels, (0, 0, sprites.SIDE, sprites.SIDE) if whole else role.sprite.box, longest)
        if kind == "upside down":
            return picture[::-1, ::-1]
        if rng.random() < mirrored and can(role.concept, "mirrored"):
            return picture[:, ::-1]
        return picture


def choose_ground(rng: Rng) -> tuple[Ground, bool]:
    """(background, whether the caption says it)."""
    if rng.random() < WHITE:
        return Ground("plain", "white"), bool(rng.random() < WHITE_SAID)
    colours, turn = tuple(GROUNDS), rng.random()
    first, step = int(rng.integers(len(colours))), int(rng.integers(1, len(colours)))
    pattern = next(name for name, until in PATTERNS if turn < until)
    second = "" if pattern == "plain" else colours[(first + step) % len(colours)]
    return Ground(pattern, colours[first], second), True


def _relation(rng: Rng, kind: str) -> str:
    """Of the first that the caption names to the other."""
    turn = int(rng.integers(6))
    match kind:
        case "beside":
            return ("left of", "left of", "right of", "right of", "next to", "next to")[turn]
        case "stacked":
            return "above" if turn < 4 else "below"
        case _:
            return ""


def _subject(rng: Rng, cast: Cast, kind: str, relation: str) -> Subject:
    names = [role.name for role in cast.roles]
    match kind:
        case "beside" | "stacked":
            first, second = reversed(names) if relation in ("right of", "below") else names
            return related(rng, first, second, relation)
        case "three":
            return several(rng, names[0])
        case "tiny" | "upside down":
            return posed(rng, names[0], kind)
        case _:
            return one(names[0], cast.tint)
