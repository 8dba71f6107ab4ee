"""Parts of a model that lie in other files than its network: named by a request, or found beside it, told by headers.

Programs keep all parts of all models in one tree: `diffusion_models` or `unet` for networks, `text_encoders` or `clip`
for towers, `vae` for codecs. Where exactly one file there is a part that is missing, it is taken, and that is said.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Final, final

from triptych import families
from triptych.errors import WeightsError
from triptych.types import Card, Request
from triptych.weights import networks
from triptych.weights.files import Bundle, open_bundle
from triptych.weights.networks import Family, Part
from triptych.weights.recognise import parts, recognise

__all__ = ["NONE", "completed", "part_in"]

NONE: Final = "none"  # in place of a file: do without that part
FOLDERS: Final[Mapping[str, tuple[str, ...]]] = {"vae": ("vae",)}
TOWERS: Final = ("text_encoders", "clip")  # folders of every other part
TREE: Final = ("diffusion_models", "unet", "checkpoints")  # folders that a network lies in, at some depth
DEEPEST: Final = 3
MOST: Final = 500  # files that are looked at in a folder
SHARD: Final = re.compile(r"-\d{5}-of-\d{5}$")


def completed(card: Card, request: Request) -> tuple[Request, list[str]]:
    """The request with the parts that lie beside the model's network named in it, and what has to be said of that.

    Raises WeightsError where a part is not there, may be one of several, or is named and something else, and as
    `families.look`.
    """
    family = _family(card)
    if family is None:
        return request, []
    for part, option in family.options.items():
        source = request.options.get(option)
        if source not in (None, NONE):
            part_in(families.look(source), part, option, [family.name])
    missing = [] if card.name in families.cards() else _missing(card.settings["source"])
    wanted = {part: family.options[part] for part in missing if part in family.options}
    wanted = {part: option for part, option in wanted.items() if request.options.get(option) is None}
    return _found(card.settings["source"], request, family, wanted) if wanted else (request, [])


def part_in(bundle: Bundle, part: str, option: str, kinds: Collection[str]) -> Part | None:
    """The part of this name, of one of these families, that lies there; None where nothing there is known.

    option: the field that names it. Raises WeightsError where what is known there is something else.
    """
    known = parts(bundle)
    fitting = [one for one in known if one.name == part and not set(kinds).isdisjoint(one.signature.families)]
    if fitting or not known:
        return next(iter(fitting), None)
    told = ", ".join(f"{one.name} of {_titles(one)}" for one in known)
    advice = f"Name a file or folder that has it: {_flag(option)}."
    raise WeightsError(f"{bundle.where} has no {option} but {told}. {advice}")


@final
@dataclass(frozen=True, slots=True)
class Search:
    """What was looked for: the files that are it, and the folders that were looked in."""

    option: str
    files: tuple[Path, ...]
    folders: tuple[Path, ...]


def _found(source: str, request: Request, family: Family, wanted: Mapping[str, str]) -> tuple[Request, list[str]]:
    searches = [_search(source, part, option, family.name) for part, option in wanted.items()]
    lacking = [search for search in searches if len(search.files) != 1]
    if lacking:
        raise WeightsError(_told(source, lacking, [family.options[part] for part in family.spare]))
    options = {search.option: str(search.files[0]) for search in searches}
    warnings = [f"{option}: taken from {path}, which lies beside the network" for option, path in options.items()]
    return replace(request, options={**request.options, **options}), warnings


def _told(source: str, lacking: list[Search], spare: list[str]) -> str:
    """What is missing, what was found instead, and what to do."""
    names = [search.option for search in lacking]
    several = [f"{search.option} may be {' or '.join(map(str, search.files))}" for search in lacking if search.files]
    folders = dict.fromkeys(folder for search in lacking if not search.files for folder in search.folders)
    looked = f" None lies in {', '.join(map(str, folders))}." if folders else ""
    more = f" {'; '.join(several)}." if several else ""
    without = "".join(f" Or do without: --option {name}={NONE}." for name in names if name in spare)
    return f"{source} lacks {', '.join(names)}.{more}{looked} Name what has it: {' '.join(map(_flag, names))}.{without}"


def _search(source: str, part: str, option: str, family: str) -> Search:
    path = Path(source).expanduser().absolute()
    if not path.exists():  # of a hub, where what lies beside is not one's own
        return Search(option, (), ())
    folders = [folder for folder in _folders(path, part) if folder.is_dir()]
    files = {file.resolve(): file for folder in folders for file in _files(folder, deep=folder != path.parent)}
    fitting = [file for whole, file in files.items() if _is(whole, part, family)]
    return Search(option, tuple(fitting), tuple(folders))


def _folders(path: Path, part: str) -> Iterator[Path]:
    """Where a part may lie: with the network, in folders beside it, in those of the tree that it is in."""
    names = FOLDERS.get(part, TOWERS)
    yield path.parent
    tree = next((folder.parent for folder in list(path.parents)[:DEEPEST] if folder.name in TREE), path.parent.parent)
    yield from (root / name for root in dict.fromkeys([path.parent, tree]) for name in names)


def _files(folder: Path, deep: bool) -> list[Path]:
    """Files of weights there, without shards."""
    found = (folder.rglob if deep else folder.glob)("*")
    whole = (path for path in found if path.suffix in (".safetensors", ".gguf") and not SHARD.search(path.stem))
    return sorted(islice(whole, MOST))


def _is(file: Path, part: str, family: str) -> bool:
    """Whether a file is this part of such a model, and nothing else."""
    try:
        return (part, family) in _roles(file, file.stat().st_mtime_ns)
    except (OSError, WeightsError):  # a file that is broken is no part of anything
        return False


@cache
def _roles(file: Path, changed: int) -> frozenset[tuple[str, str]]:
    """What a file with one network may be, and of which families. changed: when, so that each is read once."""
    known = parts(open_bundle(file))
    return frozenset((one.name, name) for one in known for name in one.signature.families if len(known) == 1)


def _missing(source: str) -> tuple[str, ...]:
    try:
        return recognise(families.look(source)).missing
    except WeightsError:
        return ()  # of what is told by its own word alone, which its family opens


def _family(card: Card) -> Family | None:
    """The family that a card is a kind of: sd3.5 of sd3.5-large."""
    kind = str(card.settings.get("kind", ""))
    fitting = [name for name in networks.families() if kind == name or kind.startswith(f"{name}-")]
    return networks.families()[max(fitting, key=len)] if fitting else None


def _titles(part: Part) -> str:
    return ", ".join(networks.families()[name].title for name in part.signature.families)


def _flag(option: str) -> str:
    return f"--option {option}=PATH"
