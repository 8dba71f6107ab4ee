"""What is known of every model: what it is, where it runs, whether it still lives, what it costs, what it is good at.

The facts lie in TOML beside the cards: `[[facts]]` in families/NAME.toml of what runs here, in providers/NAME.toml of
what a vendor runs, and in catalogue/nowhere.toml of systems that nobody can call. Each carries its source and the day
on which it was checked. What `triptych models --refresh` found later lies in the user's folder: see known.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, final

from triptych.cards import table
from triptych.errors import FileProblem
from triptych.types import Medium

__all__ = [
    "ABILITIES",
    "SUBJECTS",
    "UNITS",
    "Entry",
    "Lifecycle",
    "PriceRow",
    "State",
    "files",
    "shipped",
]

State = Literal["active", "deprecated", "shut_down", "no_public_api", "unknown"]
ABILITIES = (  # what a request may need of a model, beside its prompt
    "text",  # legible words in the picture
    "reference",  # pictures of what shall be in it
    "edit",  # a picture that is changed as told
    "mask",
    "negative",
    "seed",
    "transparent",
    "first_frame",
    "last_frame",
    "audio",  # a clip with sound
    "lyrics",  # a song with words
    "loras",
    "control",  # depth, edges, poses
)
SUBJECTS = (  # what a model may be good at
    "photo",
    "product",
    "illustration",
    "typography",
    "people",
    "edit",
    "video",
    "motion",
    "music",
    "song",
    "sound_effects",
    "speed",
    "fidelity",  # to the prompt
)
UNITS = (
    "image",
    "input_image",  # every picture that the request brings along, but for its mask
    "megapixel",
    "further_megapixel",
    "second",
    "song",
    "clip",
    "request",
    "thousand_characters",  # of the prompt
    "million_tokens",  # told by the answer alone; when.kind: text_in, image_in, image_out, ...
)
PACKAGE = Path(__file__).parent.parent
FOLDERS = ("families", "providers", "catalogue")


@final
@dataclass(frozen=True, slots=True)
class Lifecycle:
    """state: on the day `checked`; ends: when it was or will be shut down; successors: names, the closest first."""

    state: State
    source: str
    checked: date
    since: date | None = None  # available
    ends: date | None = None
    successors: tuple[str, ...] = ()
    note: str = ""

    def state_on(self, day: date) -> State:
        """A model whose end has come is shut down, whatever it was when this was written."""
        return "shut_down" if self.state == "deprecated" and self.ends is not None and self.ends <= day else self.state


@final
@dataclass(frozen=True, slots=True)
class PriceRow:
    """One line of a vendor's price list: US dollars a unit, where the request is as `when` says.

    dollars: exactly; else from least to most, and why. Of the rows of one unit that apply, the one that says most in
    `when` does; those of different units are added up. In `when`, "" is a field that is not given.
    """

    per: str
    source: str
    checked: date
    when: Mapping[str, Any] = field(default_factory=dict)  # field of the request: a value, or a list of values
    dollars: float | None = None
    least: float | None = None
    most: float | None = None
    why: str = ""


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """A model as the catalogue knows it. "" and None: not published, or it does not apply."""

    name: str  # of its card, where it has one
    provider: str  # local, a vendor's, or "" where nobody runs it
    title: str  # what its makers call it
    vendor: str
    takes: tuple[str, ...]  # text, image, video, audio
    makes: tuple[Medium, ...]
    family: str
    summary: str
    weights_licence: str  # SPDX, a name, or "closed"
    outputs_licence: str
    commercial: bool  # whether outputs may be sold
    lifecycle: Lifecycle
    id: str = ""  # the vendor's, where it is not the name
    aliases: tuple[str, ...] = ()  # what people type
    text_encoder: str = ""
    network: str = ""
    parameters: float | None = None  # thousand millions, of the network
    path: str = ""  # what is noised, and how
    target: str = ""  # what the network foretells: eps, v, flow, tokens
    strengths: tuple[str, ...] = ()  # in words
    weaknesses: tuple[str, ...] = ()
    abilities: tuple[str, ...] = ()  # of ABILITIES
    requires: tuple[str, ...] = ()  # inputs without which it makes nothing of use: init, reference, control
    good_at: Mapping[str, int] = field(default_factory=dict)  # subject: 1 (can) to 5 (one of the best)
    seconds: tuple[float, float] | None = None  # that one takes, as a rule
    largest: tuple[int, int] | None = None  # pixels, width and height of its area
    longest: float | None = None  # seconds, of a clip or a sound
    prices: tuple[PriceRow, ...] = ()
    source: str = ""  # of what is said of its networks and what it is good at

    @property
    def local(self) -> bool:
        return self.provider == "local"


@cache
def shipped() -> Mapping[str, Entry]:
    """The entries as they came with the package, by name. Raises FileProblem where a file is broken."""
    found: dict[str, Entry] = {}
    for path in files():
        for entry in _read(path):
            if entry.name in found:
                raise FileProblem(f"{path}: the catalogue has {entry.name!r} already; rename one of the two.")
            found[entry.name] = entry
    return MappingProxyType(found)


def files() -> Iterator[Path]:
    """The files that hold facts."""
    return (path for folder in FOLDERS for path in sorted((PACKAGE / folder).glob("*.toml")))


def _read(path: Path) -> list[Entry]:
    try:
        return [_entry(facts) for facts in table(path).get("facts", [])]
    except (OSError, KeyError, TypeError, ValueError) as problem:
        raise FileProblem(f"{path}: its facts cannot be read: {problem!r}.") from problem


def _entry(facts: dict[str, Any]) -> Entry:
    facts = dict(facts)
    told = facts.pop("lifecycle")
    lifecycle = Lifecycle(**{**told, "successors": tuple(told.get("successors", ()))})
    prices = tuple(PriceRow(**row) for row in facts.pop("prices", ()))
    plain: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in facts.items()}
    return Entry(**plain, lifecycle=lifecycle, prices=prices)
