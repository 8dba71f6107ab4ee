"""Files of small changes to weights, read: whose weight each changes, and by what.

What is whose is told by `lora_names`, what a change is by `lora_changes`, and `lora_modes` lets files act in networks.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any, final

import torch
from torch import Tensor, nn

from triptych.errors import InvalidField, UnknownName, WeightsError
from triptych.weights.layouts import Source, same
from triptych.weights.lora_changes import Change, Weighed, change_of, whole
from triptych.weights.lora_names import Matched, Place, Runs, Target, matched

__all__ = ["DECLARED", "Key", "Lora", "Use", "read", "target", "together"]

EMPTY: Mapping[str, Any] = MappingProxyType({})
DECLARED = "lora_adapter_metadata"
Key = tuple[str, str]  # a target and a weight of its network


@final
@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """A file, read: changes by target and by the name of our weight, and what of the file is of no use."""

    changes: Mapping[str, Mapping[str, Sequence[Change]]]
    matched: Matched


@final
@dataclass(frozen=True, slots=True, eq=False)
class Use:
    """A file at a strength. strengths: of single targets, where they differ from the rest."""

    lora: Lora
    strength: float = 1.0
    strengths: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part, strength in {"": self.strength, **self.strengths}.items():
            if part and part not in self.lora.changes:
                raise UnknownName("part of the model", part, self.lora.changes)
            if not math.isfinite(strength):
                raise InvalidField("strength", strength, "a finite number")

    def weighed(self) -> dict[Key, Weighed]:
        """Changes by target and weight, with their strengths; those of strength 0 are left out."""
        found: dict[Key, Weighed] = {}
        for part, weights in self.lora.changes.items():
            if strength := self.strengths.get(part, self.strength):
                found |= {(part, name): [(one, strength) for one in changes] for name, changes in weights.items()}
        return found


def target(network: nn.Module, prefixes: tuple[str, ...], sources: Mapping[str, Source] = EMPTY) -> Target:
    """What files may change of a network. sources: where its weights lie in another layout, whose names files use."""
    shapes = {_own(name): tuple(weight.shape) for name, weight in network.named_parameters()}
    aliases: dict[str, Place] = {}
    for name, source in sources.items():
        if name in shapes:
            aliases |= _places(name, shapes[name], source)
    return Target(shapes, prefixes, aliases)


def read(
    tensors: Mapping[str, Tensor], targets: Mapping[str, Target], where: str, metadata: Mapping[str, str] = EMPTY
) -> Lora:
    """The changes in a file. metadata: of its header. Raises WeightsError where it is for another model.

    `matched.warning` of the result says what of the file fits nothing.
    """
    found = matched({name: tuple(tensor.shape) for name, tensor in tensors.items()}, targets, where)
    config = _declared(metadata, where)
    changes: dict[str, dict[str, list[Change]]] = {part: {} for part in targets}
    for part, entries in found.parts.items():
        for place, entry in entries.items():
            of = {role: tensors[name] for role, name in entry.roles.items()}
            made = {}
            if "bias" in of:
                made["bias"] = Change({"diff": of["bias"]}, whole)
            if of.keys() != {"bias"}:
                made["weight"] = change_of(of, entry.called, config)
            for kind, change in made.items():
                changes[part].setdefault(f"{place.module}.{kind}", []).append(replace(change, runs=place.runs))
    return Lora(changes, found)


def together(uses: Sequence[Use]) -> dict[Key, Weighed]:
    """What all files change, by target and weight."""
    found: dict[Key, list[tuple[Change, float]]] = {}
    for use in uses:
        for key, weighed in use.weighed().items():
            found.setdefault(key, []).extend(weighed)
    return dict(found)


def _places(name: str, shape: tuple[int, ...], source: Source) -> dict[str, Place]:
    """Modules of another layout, to what they are of the one whose weight this is, told by numbering their rows.

    Of several that are joined all but the last are square: queries, keys and values, then what lies beside them.
    """
    module, _, kind = name.rpartition(".")
    if source.make is same:
        return {source.names[0].rpartition(".")[0]: Place(module)}
    if kind != "weight" or not (sizes := _sizes(shape, len(source.names))):
        return {}
    # the numbers of their rows, in the order that ours have
    theirs = source.make(*torch.arange(shape[0], device="cpu")[:, None].split(sizes))  # type: ignore[no-untyped-call]
    if sorted(theirs.flatten().tolist()) != list(range(shape[0])) or len(theirs) != shape[0]:
        return {}
    parts = theirs.flatten().argsort().split(sizes)  # type: ignore[no-untyped-call]
    runs = [_runs(part) for part in parts]
    found = {one.rpartition(".")[0]: Place(module, run) for one, run in zip(source.names, runs, strict=True)}
    if len(runs) > len("qkv"):  # XLabs changes those as one, and not what is beside them
        found[module.replace("linear1", "processor.qkv")] = Place(module, _runs(torch.cat(parts[:3])))
    return found


def _sizes(shape: tuple[int, ...], count: int) -> list[int]:
    """Rows of each of so many parts; none where they cannot be told."""
    if len(shape) < 2:
        return []
    sizes = [shape[1]] * (count - 1)
    last = shape[0] - sum(sizes)
    return [*sizes, last] if last > 0 else []


def _runs(rows: Tensor) -> Runs:
    """Numbers of rows (N,) as runs of them."""
    edges = [0, *((rows.diff() != 1).nonzero().flatten() + 1).tolist(), len(rows)]
    return tuple((int(rows[start]), int(rows[stop - 1]) + 1) for start, stop in pairwise(edges))


def _own(name: str) -> str:
    """A weight's name where it has changes within, too."""
    module, _, rest = name.partition(".parametrizations.")
    return f"{module}.{rest.removesuffix('.original')}" if rest else name


def _declared(metadata: Mapping[str, str], where: str) -> Mapping[str, Any]:
    """peft's configuration, which diffusers writes into the header; nothing where there is none."""
    try:
        found = json.loads(metadata.get(DECLARED, "{}"))
    except json.JSONDecodeError as error:
        raise WeightsError(f"{where}: the header's {DECLARED} is not JSON: {error}") from error
    if not isinstance(found, dict) or not all(_is_sound(*item) for item in found.items()):
        raise WeightsError(f"{where}: the header's {DECLARED} is not what peft writes.")
    return found


def _is_sound(key: str, value: object) -> bool:
    """Whether what scales are computed from are numbers."""
    match key.rpartition(".")[2]:
        case "lora_alpha":
            return isinstance(value, int | float)
        case "alpha_pattern":
            return isinstance(value, dict) and all(isinstance(alpha, int | float) for alpha in value.values())
        case _:
            return True
