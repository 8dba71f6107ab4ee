"""Which networks a set of tensors holds, told by the names and shapes of a few: the table lies in signatures.toml."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, final

from triptych.weights.header import Entry

__all__ = ["PREFIXES", "Family", "Part", "Signature", "families", "grouped", "lacks", "nearest", "part"]

# What files put before the names of one network's tensors; a name belongs to the first that fits.
PREFIXES = (
    "model.diffusion_model.",
    "first_stage_model.",
    "cond_stage_model.transformer.",
    "cond_stage_model.model.",
    "conditioner.embedders.0.transformer.",
    "conditioner.embedders.0.model.",
    "conditioner.embedders.1.model.",
    "control_model.",
    "model_ema.",
    "text_encoders.clip_l.transformer.",
    "text_encoders.clip_g.transformer.",
    "text_encoders.t5xxl.transformer.",
    "diffusion_model.",
    "pretransform.model.",
    "model.model.",
    "unet.",
    "vae.",
    "text_encoder.",
    "text_encoder_2.",
    "text_encoder_3.",
)


@final
@dataclass(frozen=True, slots=True)
class Family:
    """A kind of model. options: fields of a request that name its parts; spare: parts that it can do without.

    refusal: why it cannot be made with here, "" where it can.
    """

    name: str
    title: str
    needs: tuple[str, ...]  # parts, by the names that diffusers gives them
    refusal: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    spare: tuple[str, ...] = ()


@final
@dataclass(frozen=True, slots=True)
class Signature:
    """A network by its marks: names with shapes, of which () is any and 0 any length."""

    part: str
    families: tuple[str, ...]
    naming: str  # original, diffusers, transformers, open_clip
    marks: Mapping[str, tuple[int, ...]]
    tensors: int = 0  # how many a whole one has at least; 0: not known


@final
@dataclass(frozen=True, slots=True)
class Part:
    """A network that is there: which, and the set (of a folder, "" else) and prefix under which its tensors lie."""

    signature: Signature
    folder: str
    prefix: str
    entries: Mapping[str, Entry]  # without the prefix

    @property
    def name(self) -> str:
        """unet, vae, text_encoder, ..."""
        return self.signature.part

    @property
    def parameters(self) -> int:
        """How many numbers it has."""
        return sum(entry.count for entry in self.entries.values())

    @property
    def lacking(self) -> int:
        """How many tensors are missing at least."""
        return max(self.signature.tensors - len(self.entries), 0)


def families() -> Mapping[str, Family]:
    """Every family that is known, by its name."""
    return _table()[0]


def grouped(entries: Mapping[str, Entry]) -> dict[str, dict[str, Entry]]:
    """Tensors by their prefix, without it; "" holds those that have none."""
    groups: dict[str, dict[str, Entry]] = {}
    for name, entry in entries.items():
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
        groups.setdefault(prefix, {})[name.removeprefix(prefix)] = entry
    return groups


def part(entries: Mapping[str, Entry], prefix: str = "", folder: str = "") -> Part | None:
    """The network that these tensors are, if it is a known one."""
    found = (signature for signature in _table()[1] if not lacks(signature, entries))
    signature = next(found, None)
    return signature and Part(signature, folder, prefix, entries)


def lacks(signature: Signature, entries: Mapping[str, Entry]) -> list[str]:
    """The marks that are not there, each said with what is there instead."""
    missing: list[str] = []
    for name, shape in signature.marks.items():
        if name not in entries:
            missing.append(name)
        elif not _fits(entries[name].shape, shape):
            missing.append(f"{name} of shape {_told(shape)} (it is {_told(entries[name].shape)})")
    return missing


def nearest(groups: Iterable[Mapping[str, Entry]]) -> tuple[Signature, list[str]] | None:
    """Of what is no known network: the one of which the largest share of marks is there by name, and what it lacks."""
    best: tuple[float, Signature, list[str]] | None = None
    for entries in groups:
        for signature in _table()[1]:
            share = sum(name in entries for name in signature.marks) / len(signature.marks)
            if share > (best[0] if best else 0):
                best = (share, signature, lacks(signature, entries))
    return best and best[1:]


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    if not wanted:
        return True
    return len(shape) == len(wanted) and all(ours in (0, theirs) for ours, theirs in zip(wanted, shape, strict=True))


def _told(shape: tuple[int, ...]) -> str:
    return f"({', '.join(str(length or 'any') for length in shape)})"


@cache
def _table() -> tuple[Mapping[str, Family], tuple[Signature, ...]]:
    table = tomllib.loads(Path(__file__).with_name("signatures.toml").read_text(encoding="utf-8"))
    known = {name: _family(name, **told) for name, told in table["families"].items()}
    return MappingProxyType(known), tuple(_signature(**told) for told in table["networks"])


def _family(name: str, needs: list[str], spare: Iterable[str] = (), **told: Any) -> Family:
    return Family(name, needs=tuple(needs), spare=tuple(spare), **told)


def _signature(marks: Mapping[str, list[int]], families: list[str], **rest: Any) -> Signature:
    shapes = {name: tuple(shape) for name, shape in marks.items()}
    return Signature(families=tuple(families), marks=MappingProxyType(shapes), **rest)
