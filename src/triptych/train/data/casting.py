"""Who plays in a scene: which concepts, in which style, by which name. Training and evaluation cast differently.

A caption that names no style means the 3D picture wherever there is one: a short prompt must have one answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, final

import numpy as np
from numpy.typing import NDArray

from triptych.train.data.art import STYLES
from triptych.train.data.composition import TINTS
from triptych.train.data.concepts import Concept
from triptych.train.data.holdout import Split, family, split
from triptych.train.data.lexicon import Lexicon, everyday
from triptych.train.data.sprites import Sprite, Sprites
from triptych.train.data.traits import can, weight

__all__ = ["Cast", "Casting", "HeldOut", "Repertoire", "Role", "Trained", "usual"]

Rng = np.random.Generator
PREFERRED: Final = ("3d", "noto", *(style for style in STYLES if style not in ("3d", "noto")))
NAMED = 0.45  # share of captions that say the style
REACH: Final = {"single": 2, "three": 0}  # how loosely a kind of scene may name things; 0 also has a sure plural
KINDS: Final = ("single", "tint", "beside", "stacked", "three", "tiny", "upside down")


@final
@dataclass(frozen=True, slots=True)
class Role:
    """One object: its picture, and what the caption calls it."""

    sprite: Sprite
    concept: Concept
    name: str


@final
@dataclass(frozen=True, slots=True)
class Cast:
    """All objects of a scene, in one style; `tint` and `withheld` are "" where there is none.

    withheld: what of it training never sees: style, colour, pair, concept or synonym.
    """

    roles: tuple[Role, ...]
    style_said: bool
    tint: str = ""
    withheld: str = ""


class Casting(Protocol):
    """Chooses for a scene of some kind."""

    def cast(self, rng: Rng, kind: str) -> Cast:
        """kind: one of KINDS."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Repertoire:
    """What there is to cast from; `drawn` has every style of every concept, `trained` only what training may show."""

    art: Sprites
    split: Split
    lexicon: Lexicon
    drawn: Mapping[str, Mapping[str, int]]
    trained: Mapping[str, Mapping[str, int]]
    odds: Mapping[str, tuple[list[str], NDArray[np.float64]]] = field(repr=False)

    @classmethod
    def of(cls, art: Sprites) -> "Repertoire":
        common, drawn = everyday(), art.styles()
        parts = split(art.concepts, drawn, common)
        shown = {code: {s: n for s, n in styles.items() if parts.draws(code, s)} for code, styles in drawn.items()}
        trained = {code: styles for code, styles in shown.items() if styles}
        seen = [art.concepts[code] for code in trained]
        odds = {kind: _odds([concept for concept in seen if can(concept, kind)]) for kind in KINDS}
        return cls(art, parts, Lexicon.of(art.concepts, common), drawn, trained, odds)

    def concept(self, rng: Rng, kind: str) -> Concept:
        codes, cumulative = self.odds[kind]
        return self.art.concepts[codes[int(np.searchsorted(cumulative, rng.random(), side="right"))]]

    def role(self, rng: Rng, concept: Concept, style: str, kind: str) -> Role:
        """Loose words only where the thing is alone, and so unmistakable."""
        reach = 0 if concept.code in self.split.synonyms else REACH.get(kind, 1)
        name = self.lexicon.name(rng, concept, reach)
        return Role(self.art.sprites[self.drawn[concept.code][style]], concept, name)


@final
class Trained:
    """Never casts what is withheld."""

    def __init__(self, repertoire: Repertoire) -> None:
        self.repertoire = repertoire

    def cast(self, rng: Rng, kind: str) -> Cast:
        return self._two(rng, kind) if kind in ("beside", "stacked") else self._one(rng, kind)

    def _one(self, rng: Rng, kind: str) -> Cast:
        concept = self.repertoire.concept(rng, kind)
        style, said = choose_style(rng, tuple(self.repertoire.trained[concept.code]))
        free = [tint for tint in TINTS if self.repertoire.split.colours(concept.code, tint)] if kind == "tint" else []
        tint = free[int(rng.integers(len(free)))] if free else ""
        return Cast((self.repertoire.role(rng, concept, style, kind),), said, tint)

    def _two(self, rng: Rng, kind: str) -> Cast:
        first, second, common = two(rng, self.repertoire, kind, withheld=False)
        style, said = choose_style(rng, common)
        return Cast(
            (self.repertoire.role(rng, first, style, kind), self.repertoire.role(rng, second, style, kind)), said
        )


@final
class HeldOut:
    """Casts only what is withheld, each way of being new as often as the others that fit the kind."""

    def __init__(self, repertoire: Repertoire) -> None:
        self.repertoire = repertoire
        self._candidates = {kind: self._ways(kind) for kind in KINDS if kind not in ("beside", "stacked")}

    def cast(self, rng: Rng, kind: str) -> Cast:
        if kind in ("beside", "stacked"):
            return self._two(rng, kind)
        ways = self._candidates[kind]
        way = sorted(ways)[int(rng.integers(len(ways)))]
        concept = self.repertoire.art.concepts[ways[way][int(rng.integers(len(ways[way])))]]
        drawn = self.repertoire.drawn[concept.code]
        styles = tuple(drawn) if way == "concept" else tuple(self.repertoire.trained[concept.code])
        style, said = choose_style(rng, styles)
        if way == "style":  # said, or else it would be the usual look that is asked for
            missing = [style for style in drawn if family(style) == self.repertoire.split.styles[concept.code]]
            style, said = missing[int(rng.integers(len(missing)))], True
        role, tint = self.repertoire.role(rng, concept, style, kind), ""
        if way == "colour":
            held = [tint for tint in TINTS if not self.repertoire.split.colours(concept.code, tint)]
            tint = held[int(rng.integers(len(held)))]
        if way == "synonym":
            names = self.repertoire.lexicon.synonyms(concept.code)
            role = Role(role.sprite, concept, names[int(rng.integers(len(names)))])
        return Cast((role,), said, tint, way)

    def _ways(self, kind: str) -> dict[str, list[str]]:
        parts, lexicon = self.repertoire.split, self.repertoire.lexicon
        fitting = [code for code in self.repertoire.drawn if can(self.repertoire.art.concepts[code], kind)]
        known = [code for code in fitting if code in self.repertoire.trained]
        if kind == "tint":
            ways = {"colour": [code for code in known if not all(parts.colours(code, tint) for tint in TINTS)]}
        else:
            ways = {
                "style": [code for code in known if code in parts.styles],
                "concept": [code for code in fitting if code in parts.concepts],
                "synonym": [code for code in known if code in parts.synonyms and lexicon.synonyms(code)],
            }
        return {way: codes for way, codes in ways.items() if codes}

    def _two(self, rng: Rng, kind: str) -> Cast:
        first, second, common = two(rng, self.repertoire, kind, withheld=True)
        style, said = choose_style(rng, common)
        roles = (self.repertoire.role(rng, first, style, kind), self.repertoire.role(rng, second, style, kind))
        return Cast(roles, said, withheld="pair")


def two(rng: Rng, repertoire: Repertoire, kind: str, *, withheld: bool) -> tuple[Concept, Concept, tuple[str, ...]]:
    """Two different trained concepts, left or upper first, whose order is withheld or not, and the styles of both."""
    while True:
        first, second = repertoire.concept(rng, kind), repertoire.concept(rng, kind)
        common = tuple(style for style in repertoire.trained[first.code] if style in repertoire.trained[second.code])
        if first.code != second.code and common and repertoire.split.pairs(first.code, second.code) != withheld:
            return first, second, common


def choose_style(rng: Rng, styles: tuple[str, ...]) -> tuple[str, bool]:
    """(style, whether the caption says it)."""
    if rng.random() < NAMED:
        return styles[int(rng.integers(len(styles)))], True
    return usual(styles), False


def usual(styles: tuple[str, ...]) -> str:
    """The style that a caption means which says none."""
    return next(style for style in PREFERRED if style in styles)


def _odds(concepts: list[Concept]) -> tuple[list[str], NDArray[np.float64]]:
    weights = np.array([weight(concept) for concept in concepts])
    return [concept.code for concept in concepts], np.cumsum(weights / weights.sum())
