"""Files of small changes to weights, read and applied: W + strength ΔW, summed over files, in float32.

ΔW is up down α/r (LoRA, arXiv:2106.09685), a Hadamard product of two such (LoHa, arXiv:2108.06098), a Kronecker product
(LoKr, arXiv:2309.14859), or the whole difference; and DoRA (arXiv:2402.09353) gives W + ΔW lengths of its own.
What is whose is told by `lora_names`.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Protocol, final

import torch
import torch.nn.functional as F
from einops import einsum
from torch import Tensor, nn
from torch.nn.utils import parametrize

from triptych.errors import InvalidField, UnknownName, WeightsError
from triptych.weights.layouts import Source, same
from triptych.weights.lora_names import Matched, Shape, Target, matched

__all__ = ["MODES", "Applied", "Change", "Live", "Lora", "Merged", "Use", "read", "target"]

EMPTY: Mapping[str, Any] = MappingProxyType({})
DECLARED = "lora_adapter_metadata"
LENGTHS = frozenset({"magnitude", "dora_scale"})
RANKED = ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b")
Key = tuple[str, str]  # a target and a weight of its network


@final
@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What a file adds to one weight at strength 1.

    factors: of the file, by the part that they play. make: their product, with as many elements as the weight.
    scale: of the product.
    """

    factors: Mapping[str, Tensor]
    make: Callable[[Mapping[str, Tensor]], Tensor]
    scale: float = 1.0

    def add(self, total: Tensor, weight: Tensor, strength: float) -> None:
        """Adds the change of a weight to the total, which is of its shape, in float32 and written to."""
        factors = {role: factor.to(total) for role, factor in self.factors.items()}
        change = self.make(factors).reshape(total.shape)
        lengths = LENGTHS & factors.keys()
        for role in lengths:
            change = _lengthened(weight.float(), self.scale * change, factors[role], by_rows=role == "magnitude")
        total.add_(change, alpha=strength if lengths else strength * self.scale)

    def to(self, device: torch.device) -> "Change":
        """The same with its factors there."""
        return replace(self, factors={role: factor.to(device) for role, factor in self.factors.items()})


Weighed = Sequence[tuple[Change, float]]


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


class Applied(Protocol):
    """Networks by target, changed by files, and as they were once none is used."""

    def use(self, *uses: Use) -> None:
        """From here on these files, and no others."""
        ...


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
                changes[part][f"{module}.weight"] = _change(of, entry.called, config)
    return Lora(changes, found)


@final
class Merged:
    """The files are in the weights. What they were is kept in main memory, and comes back bit by bit."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self._networks = networks
        self._kept: dict[Key, Tensor] = {}
        self._used: dict[Key, Weighed] = {}

    @torch.no_grad()
    def use(self, *uses: Use) -> None:
        wanted = _together(uses)
        for key in self._kept.keys() - wanted.keys():
            self._weight(key).copy_(self._kept[key])
            del self._kept[key], self._used[key]
        for key, weighed in wanted.items():
            if self._used.get(key) == weighed:
                continue
            weight = self._weight(key)
            if key not in self._kept:
                self._kept[key] = weight.to("cpu", copy=True)
            self._used[key] = []
            weight.copy_(_summed(self._kept[key].to(weight.device), weighed))
            self._used[key] = weighed

    def _weight(self, key: Key) -> nn.Parameter:
        part, name = key
        return self._networks[part].get_parameter(name)


@final
class Live:
    """The weights stay as they are; the files act in every forward pass, and their strengths can change between two."""

    def __init__(self, networks: Mapping[str, nn.Module]) -> None:
        self._networks = networks
        self._seats: dict[Key, Beside | Within] = {}

    @torch.no_grad()
    def use(self, *uses: Use) -> None:
        wanted = _together(uses)
        for key in self._seats.keys() - wanted.keys():
            self._seats.pop(key).leave()
        for (part, name), weighed in wanted.items():
            module, _, kind = name.rpartition(".")
            layer, seat = self._networks[part].get_submodule(module), self._seats.get((part, name))
            fitting = Beside if kind == "weight" and _runs_beside(layer, weighed) else Within
            if not isinstance(seat, fitting):
                if seat is not None:
                    seat.leave()
                seat = self._seats[part, name] = fitting(layer, kind)
            seat.weigh(weighed)


MODES: Mapping[str, Callable[[Mapping[str, nn.Module]], Applied]] = MappingProxyType({"merged": Merged, "live": Live})


@final
class Beside:
    """Changes of low rank of a linear layer or a convolution, as two small layers beside it for all files together."""

    def __init__(self, layer: nn.Module, kind: str) -> None:
        self._weight: nn.Parameter = layer.get_parameter(kind)
        self._handle = layer.register_forward_hook(self._add)

    def weigh(self, weighed: Weighed) -> None:
        """These changes from here on, with their strengths."""
        pairs = [_pair(change, self._weight.shape[1:]) for change, _ in weighed]
        self._down = torch.cat([down for _, down in pairs])
        scales = [strength * change.scale for change, strength in weighed]
        self._up = torch.cat([scale * up for scale, (up, _) in zip(scales, pairs, strict=True)], dim=1)
        _tell(self._weight)

    def leave(self) -> None:
        """The layer as it was."""
        self._handle.remove()
        _tell(self._weight)

    def _add(self, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        (x,) = inputs
        if self._down.dtype != x.dtype or self._down.device != x.device:
            self._down, self._up = self._down.to(x), self._up.to(x)
        if isinstance(layer, nn.Conv2d):
            h = F.conv2d(x, self._down, None, layer.stride, layer.padding, layer.dilation)
            return output + F.conv2d(h, self._up[..., None, None])
        return output + F.linear(F.linear(x, self._down), self._up)


@final
class Within:
    """Changes of any kind, added to a layer's weight whenever it is asked for."""

    def __init__(self, layer: nn.Module, kind: str) -> None:
        self._layer, self._kind, self._sum = layer, kind, Sum()
        self._weight: nn.Parameter = layer.get_parameter(kind)
        parametrize.register_parametrization(layer, kind, self._sum, unsafe=True)

    def weigh(self, weighed: Weighed) -> None:
        """These changes from here on, with their strengths."""
        self._sum.weighed = weighed
        _tell(self._weight)

    def leave(self) -> None:
        """The layer as it was."""
        parametrize.remove_parametrizations(self._layer, self._kind, leave_parametrized=False)
        parameters = self._layer._parameters
        for name in [name for name in ("weight", "bias") if name in parameters]:  # in the order that they were in
            parameters[name] = parameters.pop(name)
        _tell(self._weight)


@final
class Sum(nn.Module):
    """A weight and its changes."""

    weighed: Weighed = ()

    def forward(self, weight: Tensor) -> Tensor:
        self.weighed = [(change.to(weight.device), strength) for change, strength in self.weighed]
        return _summed(weight, self.weighed).to(weight.dtype)


def low_rank(of: Mapping[str, Tensor]) -> Tensor:
    """up down, or up mid down for kernels: up (rows, r), down (r, *columns) or (r, channels) and mid (r, r, *S)."""
    up, down = of["up"].flatten(1), _wide(of)
    product: Tensor = einsum(up, down, "row r, r ... -> row ...")
    return product


def hadamard(of: Mapping[str, Tensor]) -> Tensor:
    """(A B) * (C D), elementwise (arXiv:2108.06098); for kernels each of the two may go through a core."""
    return _factored(of, "hada_w1", "hada_t1") * _factored(of, "hada_w2", "hada_t2")


def kronecker(of: Mapping[str, Tensor]) -> Tensor:
    """A ⊗ B (arXiv:2309.14859): (a, b) and (c, d, *S) to (a c, b d, *S)."""
    first, second = _factored(of, "lokr_w1"), _factored(of, "lokr_w2", "lokr_t2")
    return einsum(first.flatten(1), second, "a b, c d ... -> a c b d ...")


def whole(of: Mapping[str, Tensor]) -> Tensor:
    """The difference itself."""
    return of["diff"]


KINDS: Mapping[str, Callable[[Mapping[str, Tensor]], Tensor]] = MappingProxyType(
    {"down": low_rank, "hada_w1_a": hadamard, "lokr_w1": kronecker, "lokr_w1_a": kronecker, "diff": whole}
)
"""Which product the factors make, by a part that one of them plays."""


def _change(of: Mapping[str, Tensor], called: str, config: Mapping[str, Any]) -> Change:
    make = next(KINDS[role] for role in KINDS if role in of)
    rank = next((of[role].shape[0] for role in RANKED if role in of), None)
    if rank is None:
        scale = 1.0
    elif "alpha" in of:
        scale = float(of["alpha"]) / rank
    else:
        scale = _declared_scale(config, called, rank)
    return Change({role: factor for role, factor in of.items() if role not in ("alpha", "bias")}, make, scale)


def _factored(of: Mapping[str, Tensor], name: str, core: str = "") -> Tensor:
    """A matrix or kernel as it is, as a product of two matrices, or of two and a core."""
    if name in of:
        return of[name]
    first, second = of[f"{name}_a"].flatten(1), of[f"{name}_b"].flatten(1)
    if core in of:
        return einsum(of[core], first, second, "i j ..., i row, j column -> row column ...")
    return first @ second


def _wide(of: Mapping[str, Tensor]) -> Tensor:
    """down (r, *columns), with the kernel's mid in it where there is one."""
    if "mid" in of:
        return einsum(of["mid"], of["down"].flatten(1), "r s ..., s column -> r column ...")
    return of["down"]


def _pair(change: Change, columns: Shape) -> tuple[Tensor, Tensor]:
    """up (rows, r) and down (r, *columns) in float32."""
    of = {role: factor.float() for role, factor in change.factors.items()}
    return of["up"].flatten(1), _wide(of).reshape(-1, *columns)


def _lengthened(weight: Tensor, change: Tensor, length: Tensor, by_rows: bool) -> Tensor:
    """What is added where rows, or columns, of the sum get lengths of their own: arXiv:2402.09353, equation 5."""
    total = weight + change
    columns = length.ndim > 1 and length.shape[:2] == (1, weight.shape[1])
    axis = 1 if columns and not by_rows else 0
    norm: Tensor = torch.linalg.vector_norm(total, dim=[n for n in range(total.ndim) if n != axis], keepdim=True)
    return length.reshape(norm.shape) / (norm + torch.finfo(norm.dtype).eps) * total - weight


def _together(uses: Sequence[Use]) -> dict[Key, Weighed]:
    found: dict[Key, list[tuple[Change, float]]] = {}
    for use in uses:
        for key, weighed in use.weighed().items():
            found.setdefault(key, []).append(weighed)
    return dict(found)


def _summed(weight: Tensor, weighed: Weighed) -> Tensor:
    """The weight with its changes, in float32."""
    total = weight.to(torch.float32, copy=True)
    for change, strength in weighed:
        change.add(total, weight, strength)
    return total


def _runs_beside(layer: nn.Module, weighed: Weighed) -> bool:
    plain = all(change.make is low_rank and LENGTHS.isdisjoint(change.factors) for change, _ in weighed)
    if isinstance(layer, nn.Conv2d):
        return plain and layer.groups == 1 and layer.padding_mode == "zeros"
    return plain and isinstance(layer, nn.Linear)


def _tell(weight: Tensor) -> None:
    """Raises the weight's version, so that whoever keeps what was computed with it computes it anew."""
    if not weight.is_inference():
        weight.detach()[:0].zero_()


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


def _declared_scale(config: Mapping[str, Any], called: str, rank: int) -> float:
    """alpha / rank, or alpha / sqrt(rank) (arXiv:2312.03732), as the configuration has it for this module; else 1."""
    part = called.partition(".")[0] + "."
    at = part if f"{part}lora_alpha" in config else ""
    alpha = config.get(f"{at}lora_alpha", rank)
    for name, value in config.get(f"{at}alpha_pattern", {}).items():
        if f".{called}".endswith(f".{name.lstrip('^')}"):
            alpha = value
    return float(alpha) / (math.sqrt(rank) if config.get(f"{at}use_rslora") else rank)
