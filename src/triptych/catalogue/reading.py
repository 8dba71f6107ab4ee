"""What a prompt tells of itself: which medium it wants, its subjects, and what it asks of a model.

By the words of subjects.toml, each looked for as a whole; the prompt is not understood.
"""

import re
import tomllib
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, final

from triptych.types import Medium

__all__ = ["Reading", "read"]

WORDS = Path(__file__).parent / "subjects.toml"
MEDIA: tuple[Medium, ...] = ("image", "video", "audio")
QUOTED = re.compile(r'["“„«”][^"“”„«»]+["“”»]')
WORD = re.compile(r"[^\W_]+")
SUFFIXES = ("", "s", "es")


@final
@dataclass(frozen=True, slots=True)
class Reading:
    """medium, and the sentence why; subjects and abilities: each with the word that names it, "" where none does."""

    medium: Medium
    why: str
    subjects: Mapping[str, str]
    abilities: Mapping[str, str]


def read(prompt: str, kind: Medium | None = None) -> Reading:
    """kind: the medium, where it is said; else the first word that means one decides, and where none does it is an
    image."""
    text, table = _plain(prompt), _table()
    medium, why = (kind, f"{kind} is asked for") if kind else _medium(text, table["medium"])
    subjects = {name: word for name, entry in _of(medium, table["subject"]) if (word := _named(prompt, text, entry))}
    asked = {name: word for name, entry in _of(medium, table["ability"]) if (word := _word(text, entry["words"]))}
    for name, word in subjects.items():
        asked |= {ability: word for ability in table["subject"][name].get("asks", ()) if ability not in asked}
    usual = table["medium"][medium]
    found = subjects or dict.fromkeys(usual.get("otherwise", ()), "")
    return Reading(medium, why, dict.fromkeys(usual.get("always", ()), "") | found, asked)


@cache
def _table() -> Mapping[str, Any]:
    return tomllib.loads(WORDS.read_text(encoding="utf-8"))


def _medium(text: str, table: Mapping[str, Any]) -> tuple[Medium, str]:
    found = [
        (place, -len(word), word, medium) for medium in MEDIA for word, place in _places(text, table[medium]["words"])
    ]
    if not found:
        return "image", "no word tells of another medium"
    *_, word, medium = min(found)
    return medium, f"{word!r} means {medium}"


def _of(medium: Medium, table: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, entry) for name, entry in table.items() if medium in entry["media"]]


def _named(prompt: str, text: str, entry: Mapping[str, Any]) -> str:
    """The word of the prompt by which it names a subject; "" where it does not."""
    quoted = QUOTED.search(prompt) if entry.get("quoted") else None
    return quoted[0] if quoted else _word(text, entry["words"])


def _word(text: str, words: Iterable[str]) -> str:
    """The first of these words in the text."""
    found = [(place, word) for word, place in _places(text, words)]
    return min(found)[1] if found else ""


def _places(text: str, words: Iterable[str]) -> list[tuple[str, int]]:
    places = ((word, min(_every(text, word), default=-1)) for word in words)
    return [(word, place) for word, place in places if place >= 0]


def _every(text: str, word: str) -> list[int]:
    places = (text.find(f" {word}{suffix} ") for suffix in SUFFIXES)
    return [place for place in places if place >= 0]


def _plain(prompt: str) -> str:
    """Its words in small letters without accents, a blank around each."""
    folded = unicodedata.normalize("NFKD", prompt).casefold()
    bare = "".join(letter for letter in folded if not unicodedata.combining(letter))
    return f" {' '.join(WORD.findall(bare))} "
