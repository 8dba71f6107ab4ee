"""What else a concept may be called in a caption: everyday names, short codes, and tags that say enough alone."""

import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import numpy as np

from triptych.train.data.concepts import Concept

__all__ = ["Lexicon", "everyday"]

NAMES = Path(__file__).with_name("everyday.toml")
MOST_SHARED = 4  # concepts: a tag of more says too little alone
SYNONYM_SHARE = 0.4  # of captions of concepts with good other names; half of that where there are only tags
TAG_SHARE = 0.3  # of the synonyms of concepts that have both
FACES, PEOPLE, SYMBOLS = 0, 1, 8
NO_NOUN: Final = re.compile(r"(ing|ed|ly|est|ous|ful|able|ish|less)$|-")  # words that seldom name a thing
STILTED: Final = re.compile(  # typed, but not said
    r"-.*-| (small|large|big|with .* face)$|^(man|woman|person|male|female)-|^family "
)
DROPPED: Final = frozenset({
    "clippy", "mag", "data", "tidy", "pray", "witness", "creativity", "dig", "receive", "transport", "extinct",
    "shit", "shitty",  "hankey", "fu", "fuck", "damn", "hell", "sexy", "horny", "sex", "ass", "dick", "bitch",
    "crap", "pee", "drunk", "drugs", "weed", "gay", "lesbian", "nude", "naked", "emoji", "bestest", "bts",
    "yas", "omg", "lol", "rofl", "wtf", "haha", "lmao", "btw", "brb", "smh", "ftw", "slay", "cool", "nice",
    "good", "best", "great", "bad", "big", "small", "large", "little", "long", "short", "old", "new", "high",
    "low", "hot", "cold", "red", "blue", "green", "yellow", "white", "black", "pink", "purple", "orange",
    "brown", "gray", "grey", "vs", "canada", "usa", "japan", "china", "india", "australia", "france", "germany",
    "today", "next", "again", "later", "away", "out", "off", "just", "let", "its", "put", "life", "save",
    "saver", "keep", "take", "pass", "load", "talk", "listen", "please", "why", "blame", "sad", "true", "truth",
    "yup", "perfect", "mutual", "aww", "burn", "ouch", "flutter", "remove", "force", "wifi", "nasa", "oreo",
    "mcdonalds", "titanic", "snapchat", "staffmode", "york", "nyc", "wtv", "tbt", "rip", "cheers", "vote",
    "electronic", "energy", "favorite", "deploy", "bare", "gadgets", "pub", "bottoms", "price", "close",
    "cabbage", "clap", "shy", "group", "beat", "spotify", "netflix", "instagram", "twitter", "facebook",
    "google", "apple", "starbucks", "lego", "pokemon", "mario", "nintendo", "disney", "covid", "coronavirus",
    "corona", "sven", "bible", "jesus", "sent", "experiment", "investigate", "magnify", "zoomin", "compose",
    "feeling", "feelings", "relieved", "stinger", "soar", "slice", "leave", "left", "right", "back", "front",
    "hand", "hold", "eat", "ate", "run", "drink", "sleep", "play", "buy", "sell", "pay", "win", "lose", "push",
    "pull", "throw", "catch", "cut", "open", "shut", "send", "read", "write", "draw", "look", "see", "hear",
    "say", "think", "know", "want", "need", "make", "give", "come", "getting", "work", "help", "love", "like",
    "hate", "kiss", "hug", "wish", "hope", "fast", "slow", "loud", "quiet",
})  # fmt: skip


def everyday() -> dict[str, tuple[str, ...]]:
    """Code -> what people call it; also the codes that are never held out."""
    names: dict[str, list[str]] = tomllib.loads(NAMES.read_text())["names"]
    return {code: tuple(given) for code, given in names.items()}


@final
@dataclass(frozen=True, slots=True)
class Lexicon:
    """By code: `common` names that are always trained, `names` that mostly name a thing, and looser `tags`."""

    common: Mapping[str, tuple[str, ...]]
    names: Mapping[str, tuple[str, ...]]
    tags: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, concepts: Mapping[str, Concept], common: Mapping[str, tuple[str, ...]]) -> "Lexicon":
        """What is a label or an everyday name already is nobody's synonym."""
        taken = {concept.label.lower() for concept in concepts.values()}
        taken |= {name for given in common.values() for name in given}
        known = {code: given for code, given in common.items() if code in concepts}
        return cls(known, _names(concepts.values(), taken), _tags(concepts.values(), taken))

    def synonyms(self, code: str) -> tuple[str, ...]:
        """The best of the names that can be withheld."""
        return self.names[code] or self.tags[code]

    def name(self, rng: np.random.Generator, concept: Concept, reach: int) -> str:
        """The label mostly, else an everyday name; from reach 1 on also a short code, from 2 on a tag."""
        common = self.common.get(concept.code, ())
        good = (*common, *common, *self.names[concept.code]) if reach else common  # everyday ones more often
        tags = self.tags[concept.code] if reach > 1 else ()
        if rng.random() >= (SYNONYM_SHARE if good else SYNONYM_SHARE / 2):
            return concept.label
        pool = tags if tags and (not good or rng.random() < TAG_SHARE) else good
        return pool[int(rng.integers(len(pool)))] if pool else concept.label


def _spoken(phrase: str) -> list[str]:
    return re.findall(r"[a-z']+", phrase.lower())


def _names(concepts: Iterable[Concept], taken: set[str]) -> dict[str, tuple[str, ...]]:
    known = list(concepts)
    shared = Counter(name for concept in known for name in concept.names)

    def telling(concept: Concept, name: str) -> bool:
        new = name not in taken and sorted(_spoken(name)) != sorted(_spoken(concept.label))
        return new and shared[name] == 1 and name not in DROPPED and len(name) > 2 and not STILTED.search(name)

    return {each.code: tuple(_of_face(each, name) for name in each.names if telling(each, name)) for each in known}


def _of_face(concept: Concept, word: str) -> str:
    """Words for faces are adjectives mostly: "grumpy face"."""
    return f"{word} face" if concept.group == FACES and "face" in concept.label and " " not in word else word


def _tags(concepts: Iterable[Concept], taken: set[str]) -> dict[str, tuple[str, ...]]:
    known = list(concepts)
    shared = Counter(tag for concept in known for tag in concept.tags)
    spoken = Counter(word for concept in known for word in set(_spoken(concept.label)))

    def telling(concept: Concept, tag: str) -> bool:
        own = tag in _spoken(concept.label)
        few = shared[tag] <= MOST_SHARED and spoken[tag] == 0 and not own
        plain = len(tag) > 2 and tag not in DROPPED and not NO_NOUN.search(tag)
        return few and plain and tag not in taken and tag not in concept.names

    return {
        each.code: tuple(_of_face(each, tag) for tag in each.tags if telling(each, tag))
        if each.group not in (PEOPLE, SYMBOLS)
        else ()
        for each in known
    }
