"""How a scene is said: the subject, then its style and its background where they are said at all, in several orders."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, final

import numpy as np

from triptych.train.data.words import plural, with_article

__all__ = ["RELATIONS", "STYLE_WORDS", "Ground", "Subject", "caption", "one", "posed", "related", "several"]

T = TypeVar("T")


@final
@dataclass(frozen=True, slots=True)
class StyleWords:
    """`adjectives` stand before a noun or after a comma; `phrases` also after "in"."""

    adjectives: tuple[str, ...]
    phrases: tuple[str, ...]


STYLE_WORDS: Final = {
    "3d": StyleWords(("3d", "fluent 3d", "glossy 3d"), ("3d style", "fluent 3d style", "3d")),
    "flat": StyleWords(("flat", "flat design"), ("flat style", "flat design", "flat vector style")),
    "noto": StyleWords(("noto", "noto emoji"), ("noto style", "noto emoji style")),
    "noto-v1": StyleWords(("soft cartoon", "blob style"), ("soft cartoon style", "blob style")),
    "twemoji": StyleWords(("twemoji",), ("twemoji style", "twitter emoji style")),
    "emojione": StyleWords(("emojione",), ("emojione style", "emoji one style")),
    "fxemoji": StyleWords(("fxemoji", "firefox style"), ("fxemoji style", "firefox style")),
    "streamline": StyleWords(("line art", "outlined"), ("line art style", "outlined style", "line art")),
}
RELATIONS: Final = {  # relation -> how to say it of the first and the second
    "left of": ("{0} left of {1}", "{0} to the left of {1}", "{0} on the left and {1} on the right"),
    "right of": ("{0} right of {1}", "{0} to the right of {1}", "{0} on the right and {1} on the left"),
    "next to": ("{0} next to {1}", "{0} and {1}", "{0} beside {1}", "{0} and {1} side by side"),
    "above": ("{0} above {1}", "{0} on top of {1}", "{0} over {1}"),
    "below": ("{0} below {1}", "{0} under {1}", "{0} beneath {1}"),
}
POSES: Final = {
    "tiny": ("tiny", "tiny", "small", "very small"),
    "upside down": ("upside down", "upside down", "upside-down"),
}
OPENINGS: Final = (
    "a picture of {0}",
    "an illustration of {0}",
    "a drawing of {0}",
    "an emoji of {0}",
    "{0} emoji",
)


@final
@dataclass(frozen=True, slots=True)
class Subject:
    """`full` has its articles ("a blue cat"), `bare` has none; `single`: whether "flat blue cat" reads well."""

    full: str
    bare: str
    single: bool = True


@final
@dataclass(frozen=True, slots=True)
class Ground:
    """A background: `pattern` is plain, gradient, stripes or dots; colours by name, the second "" where plain."""

    pattern: str
    first: str
    second: str = ""


def one(name: str, adjective: str = "") -> Subject:
    """ "a cat", "a blue cat"."""
    bare = f"{adjective} {name}".strip()
    return Subject(with_article(bare), bare)


def posed(rng: np.random.Generator, name: str, pose: str) -> Subject:
    """ "a tiny cat", "a cat upside down"."""
    if pose == "upside down" and rng.random() < 0.25:
        return Subject(f"{with_article(name)} {pose}", f"{name} {pose}", single=False)
    return one(name, _choose(rng, POSES[pose]))


def several(rng: np.random.Generator, name: str, count: str = "three") -> Subject:
    """ "three cats"."""
    said = f"{_choose(rng, (count, count, count, 'a row of ' + count))} {plural(name)}"
    return Subject(said, said, single=False)


def related(rng: np.random.Generator, first: str, second: str, relation: str) -> Subject:
    """ "a cat left of a dog": the first stands so to the second."""
    form = _choose(rng, RELATIONS[relation])
    return Subject(form.format(with_article(first), with_article(second)), form.format(first, second), single=False)


def caption(rng: np.random.Generator, subject: Subject, style: str | None, ground: Ground | None) -> str:
    """One way to say it; style and ground are None where the caption is silent about them."""
    said, style_said = _opening(rng, subject, style)
    tail = [] if style is None or style_said else [_style(rng, style)]
    if ground is not None:
        if rng.random() < 0.06:
            return ", ".join([_noun(rng, ground), said, *(text for _, text in tail)])
        tail.append(_ground(rng, ground))
        if rng.random() < 0.3:
            tail.reverse()
    for position, (joins, text) in enumerate(tail):
        said += f" {text}" if joins and position == 0 else f", {text}"
    return said


def _opening(rng: np.random.Generator, subject: Subject, style: str | None) -> tuple[str, bool]:
    """(the subject, whether the style was said in it)."""
    if style is not None and subject.single and rng.random() < 0.25:
        bare = f"{_choose(rng, STYLE_WORDS[style].adjectives)} {subject.bare}"
        return (with_article(bare) if subject.full != subject.bare and rng.random() < 0.6 else bare), True
    turn = rng.random()
    if turn < 0.07:
        form = _choose(rng, OPENINGS[:-1] if not subject.single else OPENINGS)
        return form.format(subject.bare if form.startswith("{0}") else subject.full), False
    return (subject.full if turn < 0.65 else subject.bare), False


def _style(rng: np.random.Generator, style: str) -> tuple[bool, str]:
    """(whether it may follow without a comma, the words)."""
    words = STYLE_WORDS[style]
    if rng.random() < 0.25:
        return True, f"in {_choose(rng, words.phrases)}"
    return False, _choose(rng, (*words.phrases, *words.adjectives))


def _ground(rng: np.random.Generator, ground: Ground) -> tuple[bool, str]:
    noun, turn = _noun(rng, ground), rng.random()
    if turn < 0.2 and ground.pattern == "plain":
        return True, f"on {ground.first}"
    if turn < 0.75:
        return rng.random() < 0.7, f"on {with_article(noun)}"
    return (True, f"with {with_article(noun)}") if turn < 0.85 else (False, noun)


def _noun(rng: np.random.Generator, ground: Ground) -> str:
    first, second = ground.first, ground.second
    forms = {
        "plain": (f"{first} background",),
        "gradient": (f"{first} to {second} gradient background", f"{first} to {second} gradient"),
        "stripes": (
            f"{first} and {second} striped background",
            f"background with {first} and {second} stripes",
        ),
        "dots": (f"{first} background with {second} dots", f"{first} background with {second} polka dots"),
    }
    return _choose(rng, forms[ground.pattern])


def _choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]
