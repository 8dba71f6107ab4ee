"""What there is to draw: one concept a base emoji (no skin tone, no flag), with its label and its other names.

Labels and tags come from emojibase, further keywords from emojilib. Colloquial names ("car" for "automobile") are
taken from the short codes that chat programs use: people chose those to be typed, so they are nouns more often.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

__all__ = ["Concept", "code_of", "concepts", "squash"]

COMPONENTS, FLAGS = 2, 9  # groups of emojibase that are left out


@final
@dataclass(frozen=True, slots=True)
class Concept:
    """`code`: lower-case code points joined by "-"; `names`: short codes; `tags`: looser words; `group`: 0 to 8."""

    code: str
    label: str
    names: tuple[str, ...]
    tags: tuple[str, ...]
    group: int


def concepts(
    data: list[dict[str, Any]],
    keywords: Mapping[str, list[str]],
    shortcodes: list[Mapping[str, str | list[str]]],
) -> dict[str, Concept]:
    """By code, in emojibase's order. data, keywords and shortcodes are the files of the packages, as parsed."""
    names: dict[str, list[str]] = {}
    for table in shortcodes:
        for code, given in table.items():
            names.setdefault(code_of(code), []).extend([given] if isinstance(given, str) else given)
    found: dict[str, Concept] = {}
    for entry in data:
        if entry.get("group", FLAGS) in (COMPONENTS, FLAGS):
            continue
        code, label = code_of(entry["hexcode"]), clean_label(entry["label"])
        tags = [*entry.get("tags", []), *keywords.get(entry["emoji"], [])]
        found[code] = Concept(code, label, _words(names.get(code, []), label), _words(tags, label), entry["group"])
    return found


def code_of(hexcode: str) -> str:
    """One spelling of a sequence: "2764-FE0F" and "2764" are the same picture."""
    points = [int(part, 16) for part in hexcode.split("-")]
    return "-".join(f"{point:04x}" for point in points if point != 0xFE0F)


def squash(name: str) -> str:
    """A name by which packages agree: "Smiling Face with Halo" -> "smilingfacewithhalo"."""
    return re.sub(r"[^a-z0-9]", "", name.lower())


def clean_label(label: str) -> str:
    """A label as one would say it: "man: blond hair" -> "man with blond hair"."""
    label = re.sub(r"[“”\"()]|⊛ ?", "", label).replace("’", "'")
    label = re.sub(r"^(family|keycap): ", r"\1 ", label)
    label = re.sub(r"^(\w+): bald", r"bald \1", label)
    return re.sub(r"^(\w+): ", r"\1 with ", label)


def _words(given: list[str], label: str) -> tuple[str, ...]:
    """Plain lower-case words in their first order, each once, without the label."""
    words = [re.sub(r"[_\s]+", " ", word).replace("’", "'").strip().lower() for word in given]
    plain = [word for word in words if re.fullmatch(r"[a-z][a-z' -]+[a-z]", word)]
    return tuple(word for word in dict.fromkeys(plain) if word != label.lower())
