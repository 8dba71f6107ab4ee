"""What training never sees, fixed by hash, so that every machine has the same split; docs/ has it as a list.

Five ways to be new: a style of a known concept, a colour of it, an ordered pair of known objects, a whole concept, and
a synonym. The two Fluent styles render one design and are withheld together; so are concepts that differ by "face" or
by who does it ("cat" and "cat face"), or the split would leak. Everyday concepts (everyday.toml) are never withheld
whole, and never lose their Fluent look, as the model is also for use: the list is a little kinder than chance.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from triptych.train.data.art import FLUENT
from triptych.train.data.concepts import Concept

__all__ = ["Split", "family", "publish", "split"]

CONCEPTS, STYLES, COLOURS, PAIRS, SYNONYMS, MOTIONS = 0.03, 0.10, 0.15, 0.10, 0.10, 0.15  # shares that are withheld
EXAMPLES = 300  # pairs that are listed
FEWEST_STYLES = 4  # a concept with fewer keeps them all
SALT: Final = "triptych mini-image 1"
WHO: Final = frozenset({"man", "woman", "men", "women", "person", "people", "face", "boy", "girl", "boys", "girls"})


@final
@dataclass(frozen=True, slots=True)
class Split:
    """`concepts`: codes never drawn; `styles`: code -> family never drawn; `synonyms`: codes said by label only."""

    concepts: frozenset[str]
    styles: Mapping[str, str]
    synonyms: frozenset[str]

    def draws(self, code: str, style: str) -> bool:
        """Whether training may show this concept in this style."""
        return code not in self.concepts and self.styles.get(code) != family(style)

    def colours(self, code: str, colour: str) -> bool:
        """Whether training may tint this concept so."""
        return share("colour", code, colour) >= COLOURS

    def pairs(self, first: str, second: str) -> bool:
        """Whether training may show `first` to the left of, or above, `second`."""
        return share("pair", first, second) >= PAIRS

    def moves(self, code: str, motion: str) -> bool:
        """Whether training may move this concept so."""
        return share("motion", code, motion) >= MOTIONS


def split(concepts: Mapping[str, Concept], styles: Mapping[str, Collection[str]], kept: Collection[str]) -> Split:
    """styles: what each code is drawn in; kept: codes that are not to be withheld whole, nor in Fluent."""
    protected = {_stem(concepts[code].label) for code in kept if code in concepts}
    whole = frozenset(
        code
        for code, concept in concepts.items()
        if _stem(concept.label) not in protected and share("concept", _stem(concept.label)) < CONCEPTS
    )
    chosen = {
        code: _chosen(code, drawn, spared="fluent" if code in kept else "")
        for code, drawn in styles.items()
        if code not in whole and len(drawn) >= FEWEST_STYLES and share("style", code) < STYLES
    }
    synonyms = frozenset(code for code in concepts if share("synonym", code) < SYNONYMS)
    return Split(whole, chosen, synonyms - whole)


def family(style: str) -> str:
    """The design that a style renders: the Fluent styles are one."""
    return "fluent" if style in FLUENT else style


def share(*parts: str) -> float:
    """A number in [0, 1) that depends on the parts alone."""
    digest = hashlib.sha256("|".join((SALT, *parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def publish(
    found: Split, concepts: Mapping[str, Concept], kept: Collection[str], colours: Collection[str], path: Path
) -> None:
    """Writes the list. Pairs are far too many: it states their rule, and names some hundred of everyday things."""
    label = {code: concept.label for code, concept in concepts.items()}
    known = [code for code in concepts if code not in found.concepts]
    tints = {code: [colour for colour in colours if not found.colours(code, colour)] for code in known}
    content = {
        "salt": SALT,
        "share": "first 8 bytes, big-endian, of the sha256 of the salt and the parts, joined by '|', over 2^64",
        "concepts": {code: label[code] for code in sorted(found.concepts)},
        "styles": {code: [label[code], found.styles[code]] for code in sorted(found.styles)},
        "synonyms": {code: label[code] for code in sorted(found.synonyms)},
        "colours": {code: " ".join(tints[code]) for code in sorted(tints) if tints[code]},
        "pairs": f"share('pair', code of the left or upper, code of the right or lower) < {PAIRS}",
        "pair_examples": [[label[first], label[second]] for first, second in _examples(found, sorted(kept))],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_text(_lines(content), encoding="utf-8")
    partial.replace(path)


def _examples(found: Split, codes: list[str]) -> list[tuple[str, str]]:
    """Withheld pairs of these, the same few of them always."""
    pairs = [(a, b) for a in codes for b in codes if a != b and not found.pairs(a, b)]
    return sorted(pairs, key=lambda pair: share("example", *pair))[:EXAMPLES]


def _chosen(code: str, drawn: Collection[str], spared: str) -> str:
    families = sorted({family(style) for style in drawn} - {spared})
    return families[int(share("which style", code) * len(families))]


def _stem(label: str) -> str:
    """What a concept is beyond who does it: "man astronaut" -> "astronaut", "cat face" -> "cat"."""
    words = [word for word in label.lower().split() if word not in WHO]
    return " ".join(words) or label.lower()


def _lines(content: Mapping[str, object]) -> str:
    """JSON with one line a section, which keeps a list of hundreds both small and readable in a diff."""
    rows = (f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items())
    return "{\n" + ",\n".join(rows) + "\n}\n"
