"""What one weight is changed by, and the sum: W + strength ΔW, over files, in float32, rounded once.

ΔW is up down α/r (LoRA, arXiv:2106.09685), a Hadamard product of two such (LoHa, arXiv:2108.06098), a Kronecker product
(LoKr, arXiv:2309.14859), or the whole difference; and DoRA (arXiv:2402.09353) gives W + ΔW lengths of its own.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple, final

import torch
from einops import einsum, rearrange
from torch import Tensor

from triptych.weights.lora_names import Runs

__all__ = ["Change", "Rise", "Weighed", "beside", "change_of", "is_low", "put", "summed", "whole"]

LENGTHS = frozenset({"magnitude", "dora_scale"})
RANKED = ("down", "hada_w1_b", "lokr_w2_b", "lokr_w1_b")
AT_ONCE = 2**20  # numbers that are summed at once: 4 MiB in float32, that caches hold and allocators keep for the next


@final
@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """What a file adds to one weight at strength 1.

    factors: of the file, by the part that they play. make: their product, with as many elements as the weight.
    scale: of the product. runs: the rows of the weight that it is of, all else being as it was.
    """

    factors: Mapping[str, Tensor]
    make: Callable[[Mapping[str, Tensor]], Tensor]
    scale: float = 1.0
    runs: Runs = ()

    def add(self, total: Tensor, weight: Tensor, strength: float) -> None:
        """Adds the change of a weight to the total, which is of its shape, in float32 and written to."""
        factors = {role: factor.to(total) for role, factor in self.factors.items()}
        runs = self.runs or ((0, len(weight)),)
        before = torch.cat([weight[start:stop] for start, stop in runs]) if self.runs else weight
        change = self.make(factors).reshape(before.shape)
        lengths = LENGTHS & factors.keys()
        for role in lengths:
            change = _lengthened(before.float(), self.scale * change, factors[role], by_rows=role == "magnitude")
        alpha = strength if lengths else strength * self.scale
        for (start, _), part in zip(runs, _in_runs(change, runs), strict=True):
            total[start : start + len(part)].add_(part, alpha=alpha)

    def to(self, device: torch.device) -> "Change":
        """The same with its factors there."""
        return replace(self, factors={role: factor.to(device) for role, factor in self.factors.items()})


Weighed = Sequence[tuple[Change, float]]
"""The changes of one weight, with their strengths."""


def summed(weight: Tensor, weighed: Weighed) -> Tensor:
    """The weight with its changes, in float32."""
    total = weight.to(torch.float32, copy=True)
    for change, strength in weighed:
        change.add(total, weight, strength)
    return total


def put(out: Tensor, weight: Tensor, weighed: Weighed) -> None:
    """The weight with its changes into `out`, which lies in memory as the weight does.

    A product of low rank never exists as a whole: it is added to a few rows at a time.
    """
    rows, found = _in_rows(weight), _in_rows(out)
    if rows is None or found is None or not is_low(weighed):
        out.copy_(summed(weight, weighed))
        return
    low, rises = beside(weighed, weight.shape[1:])
    down = _flat(low, weight).to(weight.device)
    rises = [rise._replace(up=rise.up.to(weight.device)) for rise in rises]
    count = max(1, AT_ONCE // rows.shape[1])
    for start in range(0, len(rows), count):
        total = rows[start : start + count].to(torch.float32, copy=True)
        for row, rank, up in rises:
            first, end = max(row, start), min(row + len(up), start + len(total))
            if first < end:
                ranks = down[rank : rank + up.shape[1]]
                total[first - start : end - start].addmm_(up[first - row : end - row], ranks)
        found[start : start + count].copy_(total)


def is_low(weighed: Weighed) -> bool:
    """Whether all of it is products of low rank, and lengths stay what they become."""
    return all(change.make is low_rank and LENGTHS.isdisjoint(change.factors) for change, _ in weighed)


class Rise(NamedTuple):
    """What low-rank changes give to rows from `row` on: up (rows, r) times r rows of down, from `rank` on."""

    row: int
    rank: int
    up: Tensor


def beside(weighed: Weighed, columns: Sequence[int]) -> tuple[Tensor, list[Rise]]:
    """Low-rank changes together, in float32: down (r, *columns) of all, and what rises of it, strengths in that."""
    groups: dict[Runs, list[tuple[Change, float]]] = {}
    for change, strength in weighed:
        groups.setdefault(change.runs, []).append((change, strength))
    downs: list[Tensor] = []
    rises: list[Rise] = []
    rank = 0
    for runs, group in groups.items():
        pairs = [_pair(change, columns) for change, _ in group]
        scales = [strength * change.scale for change, strength in group]
        up = torch.cat([scale * up for scale, (up, _) in zip(scales, pairs, strict=True)], dim=1)
        starts = [start for start, _ in runs] or [0]
        rises += [Rise(start, rank, part) for start, part in zip(starts, _in_runs(up, runs), strict=True)]
        downs += [down for _, down in pairs]
        rank += up.shape[1]
    return torch.cat(downs), rises


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


def change_of(of: Mapping[str, Tensor], called: str, config: Mapping[str, Any]) -> Change:
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


def _pair(change: Change, columns: Sequence[int]) -> tuple[Tensor, Tensor]:
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


def _in_runs(rows: Tensor, runs: Runs) -> Sequence[Tensor]:
    """Rows one after the other, cut where their runs end."""
    return rows.split([stop - start for start, stop in runs]) if runs else (rows,)  # type: ignore[no-untyped-call]


def _in_rows(weight: Tensor) -> Tensor | None:
    """The weight as rows in the order that it has in memory, without a copy; None where it has no such order."""
    if weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last):
        return rearrange(weight, "o i h w -> o (h w i)")
    return weight.flatten(1) if weight.ndim > 1 and weight.is_contiguous() else None


def _flat(down: Tensor, weight: Tensor) -> Tensor:
    """down (r, *columns) with its columns in the order of the weight's rows."""
    if weight.ndim == 4 and weight.is_contiguous(memory_format=torch.channels_last):
        return rearrange(down, "r i h w -> r (h w i)")
    return down.flatten(1)


def _declared_scale(config: Mapping[str, Any], called: str, rank: int) -> float:
    """alpha / rank, or alpha / sqrt(rank) (arXiv:2312.03732), as the configuration has it for this module; else 1."""
    part = called.partition(".")[0] + "."
    at = part if f"{part}lora_alpha" in config else ""
    alpha = config.get(f"{at}lora_alpha", rank)
    for name, value in config.get(f"{at}alpha_pattern", {}).items():
        if f".{called}".endswith(f".{name.lstrip('^')}"):
            alpha = value
    return float(alpha) / (math.sqrt(rank) if config.get(f"{at}use_rslora") else rank)
