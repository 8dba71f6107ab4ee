"""Weights from the Hugging Face hub: only the files that are needed, at one commit, from the cache where it has them.

They are listed, looked at, for which the first bytes of each will do, and fetched, which tells how far it is. Where the
cache lies, which token and which endpoint are used, and whether the network may be, is huggingface_hub's own affair
(HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE).
"""

import errno
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

from triptych.errors import InvalidField, WeightsError
from triptych.weights import gguf, header
from triptych.weights.download import Share, begin, download
from triptych.weights.files import CONFIGS, SHARDED, UNNEEDED, WHOLE, Bundle, joined, read_header
from triptych.weights.header import INFINITE, Header

__all__ = ["Listing", "Reference", "Unreachable", "complete", "fetch", "listed", "look", "parse", "place"]

FORM = "owner/name, owner/name@revision, owner/name/file.safetensors, owner/name/file.gguf or owner/name/folder"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
WEIGHTS = (".safetensors", ".gguf")
INDEX = "model_index.json"
FIRST = 256 * 1024  # bytes of a file of weights that are asked for at first; the headers of most are shorter


@final
@dataclass(frozen=True, slots=True)
class Reference:
    """A repository of the hub, or a file or folder in it. revision: a branch, tag or commit; None is the main one."""

    repository: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        path = f"{self.repository}/{self.file}" if self.file else self.repository
        return f"{path}@{self.revision}" if self.revision else path


@final
@dataclass(frozen=True, slots=True)
class Listing:
    """What a name stands for. pinned: the reference at its commit, for the recipe; files: that make the model."""

    reference: Reference
    pinned: Reference
    files: tuple[str, ...]


def parse(text: str) -> Reference:
    """Raises InvalidField where it is no name of the hub."""
    path, sign, revision = text.partition("@")
    owner, *rest = path.split("/")
    parts = [owner, *rest]
    plain = len(parts) >= 2 and all(NAME.fullmatch(part) for part in parts[:2])
    whole = all(part not in ("", ".", "..") and part.isprintable() and "\\" not in part for part in parts[2:])
    if not plain or not whole or bool(sign) != bool(revision) or not (revision or "x").isprintable():
        raise InvalidField("model", text, FORM)
    return Reference("/".join(parts[:2]), revision or None, "/".join(parts[2:]) or None)


def listed(reference: Reference, variant: str | None = None) -> Listing:
    """The files that are needed. variant: like "fp16", taken for each part that comes in it. Fetches tables alone.

    Raises WeightsError that says what to do: gated, not found, no network, no such variant.
    """
    commit, names, offline = _names(reference)
    pinned = replace(reference, revision=commit)
    try:
        if reference.file and not any(f"{name}/".startswith(f"{reference.file}/") for name in names):
            raise _nothing(reference)
        files = _named(pinned, names, variant) if reference.file else _wanted(pinned, names, variant)
        if offline is not None:
            _check_whole(files)
    except WeightsError as problem:
        if offline is None:
            raise
        raise Unreachable(f"{offline} Only a part of {reference.repository} is in the cache.") from problem
    return Listing(reference, pinned, files)


def look(listing: Listing) -> Bundle:
    """What it is, told by the headers of its weights and the small files beside them. Fetches no weight.

    Its tensors can be named and measured, not read. Raises WeightsError, as `listed` does and of broken files.
    """
    pinned, root = listing.pinned, Path(listing.pinned.repository)
    headers, configs = dict[str, dict[Path, Header]](), dict[str, Mapping[str, Any]]()
    for name in listing.files:
        folder, _, file = name.rpartition("/")
        place = "" if pinned.file else folder
        if name == pinned.file or name.endswith(WEIGHTS):
            headers.setdefault(place, {})[root / name] = _header(pinned, root / name, name)
        elif file in (*CONFIGS, INDEX):
            configs.setdefault(place, _table(pinned, name))
    sets = {folder: joined(root / folder, found) for folder, found in headers.items()}
    return Bundle(root / (pinned.file or ""), sets, {"": {}, **configs})


def held(reference: Reference) -> bool:
    """Whether weights of it lie in the cache, told without the network; whether all do, only a listing tells."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = Path(HF_HUB_CACHE) / f"models--{reference.repository.replace('/', '--')}" / "snapshots"
    wanted = [reference.file] if reference.file else [f"**/*{suffix}" for suffix in WEIGHTS]
    return any(True for pattern in wanted for _ in folder.glob(f"*/{pattern}"))


def complete(listing: Listing) -> bool:
    """Whether all of it lies in the cache."""
    return all(_cached(listing.pinned, name) is not None for name in listing.files)


def fetch(listing: Listing) -> Iterator[Share]:
    """Downloads what is not in the cache yet, and tells how far it is. Left early it stops, to go on the next time.

    Raises WeightsError that says what to do: as `listed`, and where the disk is full or a file came damaged.
    """
    from huggingface_hub import hf_hub_url

    pinned, files = listing.pinned, listing.files
    missing = [name for name in files if _cached(pinned, name) is None]
    large = [name for name in missing if not name.endswith(".json")]
    for name in missing:
        if name not in large:
            _downloaded(pinned, name)
    with _explained(pinned):
        urls = {name: hf_hub_url(pinned.repository, name, revision=pinned.revision) for name in large}
        yield from download(pinned.repository, urls, lambda name: _downloaded(pinned, name))
    if _cached(listing.reference, files[0]) != _cached(pinned, files[0]):
        _downloaded(listing.reference, files[0])  # so that the cache knows without a network what the name stands for


def place(listing: Listing) -> Path:
    """The file, or the folder, where it lies; what is not in the cache yet is fetched. Raises WeightsError."""
    for _ in fetch(listing):
        pass
    pinned, files = listing.pinned, listing.files
    several = INDEX in files or any(SHARDED.fullmatch(name.rpartition("/")[2]) for name in files)
    whole = several and pinned.file not in files
    return _downloaded(pinned, files[0]).parent if whole else _downloaded(pinned, files[-1])


def _named(pinned: Reference, names: Sequence[str], variant: str | None) -> tuple[str, ...]:
    """The file that is named, or the weights of the folder."""
    assert pinned.file is not None, "a file is named"
    if pinned.file in names:
        return (pinned.file,)
    start = f"{pinned.file}/"
    inside = [name.removeprefix(start) for name in names if name.startswith(start)]
    top = [name for name in inside if "/" not in name]
    config = [f"{start}config.json"] if "config.json" in top else []
    return (*config, *(f"{start}{name}" for name in _weights(pinned, top, variant, pinned.file)))


def _wanted(pinned: Reference, names: Sequence[str], variant: str | None) -> tuple[str, ...]:
    """The files that make the model: of a diffusers folder its parts, else the one set of weights at the top."""
    if INDEX not in names:
        top = [name for name in names if "/" not in name]
        config = [name for name in ("config.json",) if name in top]
        return (*config, *_weights(pinned, top, variant))
    index = _table(pinned, INDEX)
    folders = [name for name, told in index.items() if isinstance(told, list) and told and told[0] is not None]
    chosen = [INDEX]
    found = False
    for folder in (name for name in folders if name not in UNNEEDED):
        inside = [name.removeprefix(f"{folder}/") for name in names if name.startswith(f"{folder}/")]
        top = [name for name in inside if "/" not in name]
        chosen += [f"{folder}/{name}" for name in top if name.endswith(".json") and not SHARDED.fullmatch(name)]
        if any(name.endswith((".safetensors", ".bin")) for name in top):
            has = variant in _variants(top)
            found |= has
            chosen += [f"{folder}/{name}" for name in _weights(pinned, top, variant if has else None, folder)]
    if variant is not None and not found:
        raise WeightsError(f"{pinned.repository} has no part in the variant {variant!r}. Leave the variant out.")
    return tuple(chosen)


def _check_whole(files: Sequence[str]) -> None:
    """Of what lies in the cache: a part that has a configuration there and no weights was not fetched to the end."""
    folders = {name.rpartition("/")[0] for name in files if name.endswith("/config.json")}
    if lacking := folders - {name.rpartition("/")[0] for name in files if name.endswith(WEIGHTS)}:
        raise WeightsError(f"the weights are missing of {_some(sorted(lacking))}.")


def _weights(pinned: Reference, names: Sequence[str], variant: str | None, folder: str = "") -> tuple[str, ...]:
    """One set of weights of a folder's files."""
    where = f"{pinned.repository}/{folder}".rstrip("/")
    variants = _variants(names)
    named = variants.get(variant or "") or (
        next(iter(variants.values())) if variant is None and len(variants) == 1 else None
    )
    if named is not None and SHARDED.fullmatch(named):
        return (named, *_shards(pinned, f"{folder}/{named}".lstrip("/"), names))
    if named is not None:
        return (named,)
    files = [name for name in names if name.endswith(WEIGHTS)]
    if len(files) == 1 and variant is None:
        return (files[0],)
    if files:
        raise WeightsError(f"{where} has no {variant or 'plain'} set of weights but {_some(files)}. Name one of them.")
    pickles = [name for name in names if name.endswith((".bin", ".ckpt", ".pt", ".pth"))]
    reason = f"only pickles ({_some(pickles)}), which run code when they are opened" if pickles else "no weights"
    raise WeightsError(f"{where} holds {reason}. Look for a repository or a revision with .safetensors files.")


def _shards(pinned: Reference, index: str, names: Sequence[str]) -> list[str]:
    """The files that an index names, all of which must lie beside it."""
    table = _table(pinned, index).get("weight_map")
    files = sorted({str(name) for name in table.values()}) if isinstance(table, dict) else []
    missing = [name for name in files if name not in names]
    if missing or not files:
        raise WeightsError(
            f"{pinned.repository}/{index} names shards that are not beside it: {_some(missing) or 'none'}."
        )
    return files


def _variants(names: Iterable[str]) -> dict[str, str]:
    matches = [(WHOLE.fullmatch(name) or SHARDED.fullmatch(name), name) for name in sorted(names)]
    return {found[1] or "": name for found, name in reversed(matches) if found is not None}


def _table(pinned: Reference, name: str) -> dict[str, object]:
    try:
        table = header.parsed(_downloaded(pinned, name).read_bytes(), INFINITE)
    except (OSError, ValueError) as problem:
        raise WeightsError(f"{pinned.repository}/{name} cannot be read: {problem}.") from problem
    return table if isinstance(table, dict) else {}


def _header(pinned: Reference, path: Path, name: str) -> Header:
    """The header of a file in the cache, or of the hub's own. path: what it is called in messages."""
    from huggingface_hub import hf_hub_url

    if here := _cached(pinned, name):
        return read_header(here)
    with _explained(replace(pinned, file=name)):
        url = hf_hub_url(pinned.repository, name, revision=pinned.revision)
        data, size = begin(url, FIRST)
        if data.startswith(gguf.MAGIC):
            return _blocks(url, data, path, size)
        length = 8 + int.from_bytes(data[:8], "little")
        if len(data) < length <= 8 + header.LONGEST:
            data, size = begin(url, length)
    return header.begun(data, path, size)


def _blocks(url: str, data: bytes, path: Path, size: int) -> Header:
    """The header of a GGUF file, which does not say how long it is: twice as much is asked for until it is whole."""
    found = gguf.begun(data, path, size)
    while found is None:
        data, size = begin(url, 2 * len(data))
        found = gguf.begun(data, path, size)
    return found


def _names(reference: Reference) -> "tuple[str, list[str], Unreachable | None]":
    """The commit that the revision stands for, and the files there; of the cache where there is no network, and why."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        with _explained(reference):
            told = HfApi().model_info(reference.repository, revision=reference.revision)
            return str(told.sha), [file.rfilename for file in told.siblings or ()], None
    except Unreachable as problem:
        offline = problem
    try:
        place = Path(snapshot_download(reference.repository, revision=reference.revision, local_files_only=True))
    except OSError:
        raise Unreachable(f"{offline} Nothing of {reference.repository} is in the cache.") from offline
    return place.name, sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file()), offline


def _cached(pinned: Reference, name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(pinned.repository, name, revision=pinned.revision)
    return Path(found) if isinstance(found, str) else None


def _downloaded(pinned: Reference, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    with _explained(replace(pinned, file=name)), _quietly():
        return Path(hf_hub_download(pinned.repository, name, revision=pinned.revision))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the library's own bars on the terminal, unless somebody has said whether they want them."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # told to import, not to mypy
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@final
class Unreachable(WeightsError):
    """The hub cannot be reached, or may not be."""


@contextmanager
def _explained(reference: Reference) -> Iterator[None]:
    """Turns what huggingface_hub raises into what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as problem:
        raise WeightsError(
            f"{reference.repository} is gated: accept its terms at https://huggingface.co/{reference.repository} and "
            "say who you are: hf auth login, or set HF_TOKEN."
        ) from problem
    except errors.RevisionNotFoundError as problem:
        raise WeightsError(f"{reference.repository} has no revision {reference.revision!r}.") from problem
    except errors.RepositoryNotFoundError as problem:
        raise WeightsError(
            f"the hub has no model {reference.repository}, or it is private. Check the name; for a private one: "
            "hf auth login, or set HF_TOKEN."
        ) from problem
    except errors.RemoteEntryNotFoundError as problem:
        raise _nothing(reference) from problem
    except errors.HfHubHTTPError as problem:
        raise Unreachable(f"the hub answers {problem.response.status_code} for {reference}. Try later.") from problem
    except errors.HFValidationError as problem:
        raise InvalidField("model", str(reference), FORM) from problem
    except (errors.EntryNotFoundError, OSError, errors.HTTPError) as problem:  # type: ignore[attr-defined]  # of its client
        raise _system(problem, reference) from problem


def _nothing(reference: Reference) -> WeightsError:
    where = f"https://huggingface.co/{reference.repository}/tree/{reference.revision or 'main'}"
    return WeightsError(f"the hub has no {reference}. What there is: {where}")


def _system(problem: Exception, reference: Reference) -> WeightsError:
    """What is wrong on this side of the hub: the disk, or the way to it."""
    number = problem.errno if isinstance(problem, OSError) else None
    if number in (errno.ENOSPC, errno.EDQUOT):
        return WeightsError(f"the disk is full while fetching {reference}; make room, or set HF_HOME to another place.")
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return WeightsError(f"the cache cannot be written: {problem}; set HF_HOME to another place.")
    return Unreachable(f"no network to fetch {reference} ({type(problem).__name__}). Go online, or name a local file.")


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", ... {len(names) - most} more" if len(names) > most else "")
