"""The model families: cards read from NAME.toml without the tensor library, models loaded by NAME.py when needed.

A family of another package joins by an entry point of the group `triptych.families` that names its module; its cards
lie beside that module in a file of the same name that ends in .toml. Nothing of it is imported to read them.
"""

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from triptych.cards import read
from triptych.errors import FileProblem, UnknownName, WeightsError
from triptych.types import Card, Request

if TYPE_CHECKING:
    from triptych.model import Model
    from triptych.weights.download import Share
    from triptych.weights.files import Bundle
    from triptych.weights.hub import Listing

__all__ = [
    "CACHE",
    "GROUP",
    "SAMPLERS",
    "SPACINGS",
    "card",
    "cards",
    "fetch",
    "fetched",
    "fingerprint",
    "here",
    "load",
    "planned",
    "look",
    "place",
    "sources",
]

GROUP = "triptych.families"
WEIGHTS = (".safetensors", ".ckpt", ".pt", ".bin", ".gguf")  # what is meant as a file, whether or not it is there
CACHE = "cache"  # the setting of a folder for what can be made again: it decides nothing about what is made
HERE = Path(__file__).parent

# The names in the engine's two dictionaries, again, since importing the engine takes seconds; a test holds them equal.
SAMPLERS = (
    "ddim",
    "ddpm",
    "deis",
    "dpm2",
    "dpm2_ancestral",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_2s",
    "dpmpp_2s_ancestral",
    "dpmpp_3m_sde",
    "euler",
    "euler_ancestral",
    "heun",
    "ipndm",
    "lcm",
    "lms",
    "pndm",
    "unipc",
)
SPACINGS = (
    "align_your_steps",
    "align_your_steps_xl",
    "beta",
    "ddim_uniform",
    "exponential",
    "karras",
    "kl_optimal",
    "lcm",
    "lcm_first",
    "leading",
    "leading_first",
    "leading_spare",
    "leading_spare_first",
    "linear_quadratic",
    "linspace",
    "linspace_spare",
    "linspace_spare_first",
    "sgm_uniform",
    "simple",
    "trailing",
    "trailing_first",
    "uniform",
)
NAMES = {"sampler": SAMPLERS, "spacing": SPACINGS}


@cache
def cards() -> Mapping[str, Card]:
    """Every card by its name: those of this package, then those of others. Raises FileProblem where one is broken."""
    found: dict[str, Card] = {}
    for name, path in _tables():
        for card in read(name, path, NAMES):
            if card.name in found:
                raise FileProblem(f"{path}: there is a model {card.name!r} already; rename one of the two.")
            found[card.name] = card
    return MappingProxyType(found)


def card(name: str) -> Card:
    """The card of this name, or that of the weights at this place: a file, a folder, or a hub's OWNER/NAME.

    The second is the card of the model that they are recognised as, under this name, with the place as its `source`. Of
    a folder that says a scheduler, it walks by default as that does.
    Of what lies on a hub the beginnings are read; no weights are fetched.

    Raises UnknownName, FileProblem, and WeightsError where something else lies there.
    """
    if name in cards():
        return cards()[name]
    path = Path(name).expanduser()
    if not path.exists() and "/" not in name and path.suffix not in WEIGHTS:
        raise UnknownName("model", name, cards())
    where = _here(name)
    one = _kind_there(name) if where is None else _kind(where, where.stat().st_mtime_ns)
    return replace(one, name=name, settings={**one.settings, "source": str(path.absolute()) if path.exists() else name})


@cache
def _kind(path: Path, changed: int) -> Card:
    """The card whose networks lie there, as names and shapes tell, or else a folder's own word, as its scheduler walks.

    changed: when, so that a job, which asks often, looks once.
    """
    from triptych.weights.files import open_bundle

    return _suited(open_bundle(path))


@cache
def _kind_there(source: str) -> Card:
    """The same of what a hub's name stands for."""
    return _suited(_seen(source))


def _suited(bundle: "Bundle") -> Card:
    from triptych.weights.schedulers import suited

    return suited(cards()[_told(bundle)], bundle.configs.get("scheduler", {}))


def _told(bundle: "Bundle") -> str:
    from triptych.weights.networks import families
    from triptych.weights.recognise import recognise

    try:
        found = recognise(bundle)
    except WeightsError:
        written = bundle.configs[""].get("_class_name")
        for one in cards().values():
            if written in one.settings.get("pipelines", ()):
                return one.name
        raise
    if found.refusal:
        raise WeightsError(found.refusal)
    kind = "-".join(filter(None, (found.family, found.variant)))
    fitting = [one.name for one in cards().values() if one.settings.get("kind") == kind]
    named = families()[found.family].options if fitting else {}
    lacking = [part for part in found.missing if part not in named]  # what no request can name
    if lacking:
        advice = "Name a file or a folder that holds all of a model."
        raise WeightsError(f"{bundle.where} lacks {', '.join(lacking)}. {advice}")
    if fitting:
        return fitting[0]
    here = ", ".join(sorted({one.settings["kind"] for one in cards().values() if "kind" in one.settings}))
    raise WeightsError(f"{bundle.where} is {kind or found.kind}, which does not run here; what does: {here}.")


def load(card: Card, device: str, dtype: str) -> "Model":
    """The model of a card with its weights on the device. Raises WeightsError.

    A setting CACHE of the card is a folder for what a family would not like to make again.
    """
    module = import_module(_modules()[card.family])
    loaded: Model = module.load(card, device, dtype)
    return loaded


def planned(card: Card, device: str, dtype: str, request: Request) -> str:
    """What a resolved request brings into memory when, told by headers; "" of models that do not come in parts.

    Raises InvalidField, WeightsError.
    """
    model = load(card, device, dtype)
    return "" if model.plan is None else model.plan(request)


def sources(card: Card, request: Request) -> list[str]:
    """Where the weights lie that the request needs: the card's own, and those that its family finds named in it.

    Raises InvalidField.
    """
    named: Callable[[Request], Sequence[str]] = getattr(import_module(_modules()[card.family]), "sources", _none)
    return [*filter(None, [card.settings.get("source")]), *named(request)]


def _none(request: Request) -> Sequence[str]:
    """Of a family whose requests name no files."""
    return ()


def fingerprint(card: Card, more: Sequence[Path] = ()) -> dict[str, Any]:
    """What a recipe says of a model: its name, the hash of its card, the hash of each weights file.

    more: files and folders that a request adds to it.

    Raises WeightsError where a file is missing.
    """
    told = {name: value for name, value in card.settings.items() if name != CACHE}
    settings = json.dumps(told, sort_keys=True, default=str)
    weights = dict(_given(place(card.settings["source"])) if "source" in card.settings else _shipped(card))
    for path in more:
        for name, digest in _given(path).items():
            weights[_free(weights, path, name, digest)] = digest
    return {
        "name": card.name,
        "family": card.family,
        "license": card.license,
        "card": hashlib.sha256(settings.encode()).hexdigest(),
        "weights": weights,
    }


def _free(taken: Mapping[str, str], path: Path, name: str, digest: str) -> str:
    """What a file that a request adds is called: by so much of its path that no other is called the same."""
    root, called = path.parent, f"{path.name}/{name}" if path.is_dir() else name
    while taken.get(called, digest) != digest and root.name:
        called = f"{root.name}/{called}"
        root = root.parent
    return called


def place(source: str) -> Path:
    """Where weights lie: a path, or what a hub's OWNER/NAME or OWNER/NAME/FILE was, or now is, fetched to.

    Raises FileProblem where a file is meant that is not there, InvalidField, WeightsError.
    """
    return _here(source) or _fetched(source)


def look(source: str) -> "Bundle":
    """What lies at a place, told by the beginnings of its files; no weights are fetched. Raises as `place`."""
    from triptych.weights.files import open_bundle

    where = _here(source)
    return _seen(source) if where is None else open_bundle(where)


def here(card: Card) -> bool:
    """Whether the card's own weights lie on this machine. Raises as `place`."""
    source = card.settings.get("source")
    if source is None or _here(source) is not None:
        return True
    from triptych.weights import hub

    try:
        return hub.complete(_listed(source))
    except hub.Unreachable:  # and not all of it is in the cache
        return False


def fetched(source: str) -> bool:
    """Whether weights of a place are on this machine, as far as can be told without the network."""
    from triptych.weights import hub

    return Path(source).expanduser().exists() or hub.held(hub.parse(source))


def fetch(source: str) -> "Generator[Share, None, None]":
    """Fetches what of a place lies on a hub only, and tells how far it is. Left early it stops. Raises as `place`."""
    if _here(source) is None:
        from triptych.weights import hub

        yield from hub.fetch(_listed(source))


def _here(source: str) -> Path | None:
    """The path that is meant; None is a name of the hub. Raises FileProblem where a file is meant and not there."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    if path.suffix in WEIGHTS and (path.is_absolute() or source.count("/") < 2 or Path(path.parts[0]).is_dir()):
        raise FileProblem(f"there is no file {path.absolute()}. Name one that is there, or a model: triptych models.")
    return None


@cache
def _fetched(source: str) -> Path:
    from triptych.weights import hub

    return hub.place(_listed(source))


@cache
def _seen(source: str) -> "Bundle":
    from triptych.weights import hub

    return hub.look(_listed(source))


@cache
def _listed(source: str) -> "Listing":
    """What a hub's name stands for, the same as long as this process lives."""
    from triptych.weights import hub

    return hub.listed(hub.parse(source))


def _shipped(card: Card) -> dict[str, str]:
    """The hashes of the files of a model that ships with its family."""
    folder = _place(card.family).parent / "weights"
    base = cards()[card.settings["base"]].settings if "base" in card.settings else {}
    values = [*base.values(), *card.settings.values()]
    names = {value for value in values if isinstance(value, str) and value.endswith(".safetensors")}
    return {name: _digest(folder / name) for name in sorted(names)}


@cache
def _given(path: Path) -> dict[str, str]:
    """What tells the files at a place from others, by their names there."""
    from triptych.weights.digest import sampled
    from triptych.weights.files import open_bundle

    files = {file for tensors in open_bundle(path).sets.values() for file, _ in tensors.places.values()}
    root = path if path.is_dir() else path.parent
    return {file.relative_to(root).as_posix(): sampled(file) for file in sorted(files)}


@cache
def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        reason = f"cannot read the weights {path}: {problem.strerror}. Install the package again"
        raise WeightsError(f"{reason}, or train them: triptych train --help") from problem


@cache
def _modules() -> Mapping[str, str]:
    """The module of each family."""
    own = {path.stem: f"{__name__}.{path.stem}" for path in sorted(HERE.glob("*.toml"))}
    return own | {entry.name: entry.value for entry in entry_points(group=GROUP) if entry.name not in own}


def _place(family: str) -> Path:
    """Where the family's cards lie; nothing but the packages around its module is imported."""
    module = _modules().get(family)
    if module is None:
        raise UnknownName("family", family, _modules())
    if module.startswith(f"{__name__}."):
        return HERE / f"{family}.toml"
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        raise FileProblem(f"the family {family!r} names the module {module!r}, which is not installed.")
    return Path(spec.origin).with_suffix(".toml")


def _tables() -> Iterator[tuple[str, Path]]:
    return ((family, _place(family)) for family in _modules())
