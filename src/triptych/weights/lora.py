"""Files of small changes to weights, read: whose weight each changes, and by what.

What is whose is told by `lora_names`, what a change is by `lora_changes`, and `lora_modes` lets files act in networks.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, final

from torch import Tensor, nn

from triptych.errors import InvalidField, UnknownName, WeightsError
from triptych.weights.layouts import Source, same
from triptych.weights.lora_changes import Change, Weighed, change_of, whole
from triptych.weights.lora_names import Matched, Target, matched

__all__ = ["DECLARED", "Key", "Lora", "Use", "read", "target", "together"]

EMPTY: Mapping[str, Any] = MappingProxyType({})
DECLARED = "lora_adapter_metadata"
Key = tuple[str, str]  # a target and a weight of its network


@final
@dataclass(frozen=True, slots=True, eq=False)
class Lora:
    """A file, read: changes by target and by the name of our weight, and what of the file is of no use."""

    changes: Mapping[str, Mapping[str, Change]]
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

    def weighed(self) -> dict[tuple[str, str], tuple[Change, float]]:
        """Changes by target and weight, with their strengths; those of strength 0 are left out."""
        found: dict[tuple[str, str], tuple[Change, float]] = {}
        for part, changes in self.lora.changes.items():
            if strength := self.strengths.get(part, self.strength):
                found |= {(part, name): (change, strength) for name, change in changes.items()}
        return found


def target(network: nn.Module, prefixes: tuple[str, ...], sources: Mapping[str, Source] = EMPTY) -> Target:
    """What files may change of a network. sources: where its weights lie in another layout, whose names files use."""
    shapes = {_own(name): tuple(weight.shape) for name, weight in network.named_parameters()}
    single = {name: source.names[0] for name, source in sources.items() if source.make is same}
    aliases = {theirs.rpartition(".")[0]: ours.rpartition(".")[0] for ours, theirs in single.items()}
    return Target(shapes, prefixes, aliases)


def read(
    tensors: Mapping[str, Tensor], targets: Mapping[str, Target], where: str, metadata: Mapping[str, str] = EMPTY
) -> Lora:
    """The changes in a file. metadata: of its header. Raises WeightsError where it is for another model.

    `matched.warning` of the result says what of the file fits nothing.
    """
    found = matched({name: tuple(tensor.shape) for name, tensor in tensors.items()}, targets, where)
    config = _declared(metadata, where)
    changes: dict[str, dict[str, Change]] = {part: {} for part in targets}
    for part, entries in found.parts.items():
        for module, entry in entries.items():
            of = {role: tensors[name] for role, name in entry.roles.items()}
            if "bias" in of:
                changes[part][f"{module}.bias"] = Change({"diff": of["bias"]}, whole)
            if of.keys() != {"bias"}:
                changes[part][f"{module}.weight"] = change_of(of, entry.called, config)
    return Lora(changes, found)


def together(uses: Sequence[Use]) -> dict[Key, Weighed]:
    """What all files change, by target and weight."""
    found: dict[Key, list[tuple[Change, float]]] = {}
    for use in uses:
        for key, weighed in use.weighed().items():
            found.setdefault(key, []).append(weighed)
    return dict(found)


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
