"""The model that somebody means: by its name, its vendor's id, or what people call it."""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from difflib import get_close_matches

from triptych.catalogue.entries import Entry
from triptych.catalogue.known import entries
from triptych.errors import UnknownName

__all__ = ["found", "key", "meant"]

NEAREST = 8  # names in an error


def key(name: str) -> str:
    """The name without what people write in different ways: case, accents, blanks, hyphens, dots.

    "DALL·E 3" and "dall-e-3" are the same; so are "SD 3.5 large" and "sd3.5-large".
    """
    plain = unicodedata.normalize("NFKD", name).casefold()
    return re.sub(r"[^\w/:+]|_", "", plain)


def found(name: str, known: Mapping[str, Entry] | None = None) -> Entry:
    """The entry that a name means: as it is written, else however it is: a name, an alias, a title, a vendor's id.

    known: by name; the whole catalogue unless given. Raises UnknownName with the nearest names.
    """
    known = entries() if known is None else known
    if name in known:
        return known[name]
    wanted = key(name)
    spoken = _spoken(known)
    if wanted in spoken:
        return spoken[wanted]
    near = get_close_matches(wanted, spoken, n=2 * NEAREST, cutoff=0.0)
    problem = UnknownName("model", name, list(dict.fromkeys(spoken[one].name for one in near))[:NEAREST])
    problem.add_note("Those are the nearest; all of them: triptych models")
    raise problem


def meant(name: str) -> Entry | None:
    """As `found`; None where nothing is meant."""
    return entries().get(name) or _spoken(entries()).get(key(name))


def _spoken(known: Mapping[str, Entry]) -> dict[str, Entry]:
    """Every key that means something; what comes later does not take a key away."""
    told: dict[str, Entry] = {}
    for said in (_names, _aliases, _titles, _ids):
        for entry in known.values():
            for text in said(entry):
                told.setdefault(key(text), entry)
    return told


def _names(entry: Entry) -> Iterator[str]:
    yield entry.name


def _ids(entry: Entry) -> Iterator[str]:
    if entry.id:
        yield entry.id


def _aliases(entry: Entry) -> Iterator[str]:
    yield from entry.aliases


def _titles(entry: Entry) -> Iterator[str]:
    yield entry.title
