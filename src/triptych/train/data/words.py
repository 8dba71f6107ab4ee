"""English for captions: head nouns, articles and plurals, by rule and by short lists of exceptions."""

import re
from typing import Final

__all__ = ["head_noun", "is_plural", "plural", "with_article"]

PREPOSITIONS: Final = frozenset({
    "with", "without", "of", "in", "on", "over", "at", "behind", "and", "holding", "from", "to", "for", "under",
    "wearing", "between", "blowing", "not",
})  # fmt: skip
NUMBERS: Final = re.compile(
    r"^(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|hundred)\b(?!-[a-su-z])|o'clock|-thirty"
)
PROPER: Final = re.compile(r"^(Mount|Mrs|Mx|Santa|Tokyo Tower|St\b|Statue|Aries|Taurus|Gemini|Cancer|Leo|Virgo|Libra)")
SILENT: Final = frozenset({"hour", "hourglass", "honest", "heir", "herb"})  # an hour
CONSONANT: Final = re.compile(r"^(uni(?!m)|use|ufo|eu|ewe|one\b|once|ukulele\b)", re.IGNORECASE)
SPELT: Final = re.compile(r"^([AEFHILMNORSX][A-Z]+|[AEFHILMNORSX])\b(?!-?[a-z])")  # an ATM, an SOS
UNCOUNTED: Final = frozenset({
    "rice", "bread", "bacon", "money", "fire", "water", "sake", "butter", "salt", "honey", "milk", "tofu",
    "tempura", "garlic", "fog", "hail", "tea", "coffee", "sushi", "ginger", "bento", "fondue", "oden", "dango",
    "curry", "spaghetti", "ice", "mate", "wind", "electricity", "music", "art", "lightning", "thread", "yarn",
    "foggy", "snow", "rain", "soap", "broccoli", "cash", "golf", "luggage", "poo", "zzz", "dizzy", "fries",
    "chess", "ballet", "tennis", "skating", "fishing", "surfing", "judo", "karate",
})  # fmt: skip
SINGULAR_S: Final = frozenset({
    "bus", "cactus", "lens", "compass", "octopus", "walrus", "canvas", "gas", "christmas", "atlas", "iris",
    "lotus", "abacus",
})  # fmt: skip
UNCHANGED: Final = frozenset({
    "sheep", "fish", "deer", "bison", "squid", "shrimp", "salmon", "aircraft", "dice", "moose", "blowfish",
    "swine",
})  # fmt: skip
IRREGULAR: Final = {
    "mouse": "mice", "man": "men", "woman": "women", "person": "people", "child": "children", "goose": "geese",
    "tooth": "teeth", "foot": "feet", "leaf": "leaves", "knife": "knives", "wolf": "wolves", "ox": "oxen",
    "elf": "elves", "loaf": "loaves", "scarf": "scarves", "cactus": "cacti",
}  # fmt: skip


def head_noun(phrase: str) -> str:
    """The noun that a phrase is about: "smiling face with sunglasses" -> "face"."""
    words: list[str] = re.findall(r"[A-Za-z][A-Za-z'’ñâ-]*", phrase)
    for index, word in enumerate(words):
        if word in PREPOSITIONS and index > 0:
            return words[index - 1]
    return words[-1] if words else phrase


def is_plural(phrase: str) -> bool:
    """Whether it takes no "a": plurals, masses, numbers of things, names."""
    noun = head_noun(phrase).lower()
    return (
        noun in UNCOUNTED
        or noun in IRREGULAR.values()
        or phrase.startswith(("people ", "men ", "women "))
        or bool(NUMBERS.search(phrase) or PROPER.match(phrase))
        or (noun.endswith("s") and noun not in SINGULAR_S and not noun.endswith(("ss", "is", "'s")))
    )


def with_article(phrase: str) -> str:
    """ "a cat", "an apple", "a unicorn"; plurals and masses go without."""
    if phrase.startswith("Statue"):
        return f"the {phrase}"
    return phrase if is_plural(phrase) else f"{'an' if _vowel(phrase) else 'a'} {phrase}"


def plural(phrase: str) -> str:
    """The phrase with its head noun in the plural: "slice of pizza" -> "slices of pizza"."""
    noun = head_noun(phrase)
    return phrase if is_plural(phrase) else re.sub(rf"\b{re.escape(noun)}(?![\w'-])", _plural(noun), phrase, count=1)


def _vowel(phrase: str) -> bool:
    word = re.split(r"[ -]", phrase)[0]
    if SPELT.match(phrase) or word.lower() in SILENT:
        return True
    return word[:1].lower() in "aeiou" and not CONSONANT.match(word) and word != "UP"


def _plural(noun: str) -> str:
    if noun.lower() in UNCHANGED:
        return noun
    for single, many in IRREGULAR.items():
        if noun == single or (single in ("man", "woman") and noun.endswith(single) and noun != "human"):
            return noun.removesuffix(single) + many
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh", "ato", "ango")) else "s")
