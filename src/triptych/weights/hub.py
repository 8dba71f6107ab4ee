"""Weights from the Hugging Face hub: only the files that are needed, at one commit, from the cache where it has them.

Where the cache lies, which token and which endpoint are used, and whether the network may be, is huggingface_hub's own
affair (HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE).
"""

import errno
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import final

from triptych.errors import InvalidField, WeightsError
from triptych.weights import header
from triptych.weights.files import SHARDED, UNNEEDED, WHOLE

__all__ = ["Fetched", "Reference", "Unreachable", "fetch", "parse"]

FORM = "owner/name, owner/name@revision or owner/name/file.safetensors"
NAME = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


@final
@dataclass(frozen=True, slots=True)
class Reference:
    """A repository of the hub, or a file in it. revision: a branch, tag or commit; None is the main branch."""

    repository: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        path = f"{self.repository}/{self.file}" if self.file else self.repository
        return f"{path}@{self.revision}" if self.revision else path


@final
@dataclass(frozen=True, slots=True)
class Fetched:
    """What lies here now. path: the file or folder; pinned: the reference at its commit, for the recipe."""

    path: Path
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


def fetch(reference: Reference, variant: str | None = None) -> Fetched:
    """Downloads what is not in the cache yet. variant: like "fp16", taken for each part that comes in it.

    Raises WeightsError that says what to do: gated, not found, no network, disk full, no such variant.
    """
    if reference.file is not None:
        path = _downloaded(reference, reference.file)
        commit = path.parents[reference.file.count("/")].name
        return Fetched(path, replace(reference, revision=commit), (reference.file,))
    commit, names = _listed(reference)
    pinned = replace(reference, revision=commit)
    wanted = _wanted(pinned, names, variant)
    places = [_downloaded(pinned, name) for name in wanted]
    _downloaded(reference, wanted[0])  # by its own name too, so that the cache knows without a network what that is
    whole = "model_index.json" in wanted or any(SHARDED.fullmatch(name) for name in wanted)
    return Fetched(places[0].parent if whole else places[-1], pinned, wanted)


def _wanted(pinned: Reference, names: Sequence[str], variant: str | None) -> tuple[str, ...]:
    """The files that make the model: of a diffusers folder its parts, else the one set of weights at the top."""
    if "model_index.json" not in names:
        top = [name for name in names if "/" not in name]
        config = [name for name in ("config.json",) if name in top]
        return (*config, *_weights(pinned, top, variant))
    index = _table(pinned, "model_index.json")
    folders = [name for name, told in index.items() if isinstance(told, list) and told and told[0] is not None]
    chosen = ["model_index.json"]
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
    files = [name for name in names if name.endswith(".safetensors")]
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
        table = header.parsed(_downloaded(pinned, name).read_bytes())
    except (OSError, ValueError) as problem:
        raise WeightsError(f"{pinned.repository}/{name} cannot be read: {problem}.") from problem
    return table if isinstance(table, dict) else {}


def _listed(reference: Reference) -> tuple[str, list[str]]:
    """The commit that the revision stands for, and the files there; of the cache where there is no network."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        with _explained(reference):
            told = HfApi().model_info(reference.repository, revision=reference.revision)
            return str(told.sha), [file.rfilename for file in told.siblings or ()]
    except Unreachable as problem:
        try:
            folder = snapshot_download(reference.repository, revision=reference.revision, local_files_only=True)
        except OSError:
            raise Unreachable(f"{problem} Nothing of {reference.repository} is in the cache.") from problem
    place = Path(folder)
    return place.name, sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())


def _downloaded(pinned: Reference, name: str) -> Path:
    from huggingface_hub import hf_hub_download

    with _explained(pinned):
        return Path(hf_hub_download(pinned.repository, name, revision=pinned.revision))


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
        where = f"https://huggingface.co/{reference.repository}/tree/{reference.revision or 'main'}"
        raise WeightsError(f"the hub has no {reference}. What there is: {where}") from problem
    except errors.HfHubHTTPError as problem:
        raise Unreachable(f"the hub answers {problem.response.status_code} for {reference}. Try later.") from problem
    except errors.HFValidationError as problem:
        raise InvalidField("model", str(reference), FORM) from problem
    except (errors.EntryNotFoundError, OSError, errors.HTTPError) as problem:  # type: ignore[attr-defined]  # of its client
        raise _system(problem, reference) from problem


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
