"""Linear layers whose weights are held in few bits, and matrices brought into eight.

Rows get a scale each, their largest number over the largest that the eight bits have: an int8 is then off by half the
scale at most, a float8 (e4m3) by a sixteenth of itself. What is computed is F.linear with the weight that the bits
stand for, which exists while it is used and no longer.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from triptych.weights.blocks import AT_ONCE, FORMS, Rows
from triptych.weights.edges import is_worth

__all__ = ["KINDS", "Packed", "bytes_of", "linear", "quantized", "worthwhile"]

KINDS: Mapping[str, str] = MappingProxyType({"int8": "I8", "fp8": "F8_E4M3"})
"""What layers can be brought into, and how files call the numbers."""

FEW: Final = 32  # tokens up to which torch's own product with int8 is faster than a bfloat16 weight made first
MULTIPLE: Final = 64  # inputs that it takes: 16 with AVX-512
LARGEST: Final = 2**24  # numbers of a weight that exist at once


@final
class Packed(nn.Linear):
    """A linear layer with its weight in few bits. x (..., in) -> (..., out), in the dtype of x.

    Its `weight` is on the meta device and never more: it stands for what changes of weights ask for, a name, a shape
    and a dtype. What `parametrize` puts on it is done to what the bits stand for.
    """

    def __init__(self, like: nn.Linear, form: str, dtype: torch.dtype) -> None:
        """form: of blocks.FORMS."""
        with torch.device("meta"):
            super().__init__(like.in_features, like.out_features, like.bias is not None, dtype=dtype)
        self.requires_grad_(False)
        self.form = form
        self.register_buffer("values", torch.empty(0, device="meta"), persistent=False)
        self.register_buffer("scale", None, persistent=False)

    def hold(self, rows: Rows) -> None:
        """These from here on: (out, bytes of a row)."""
        self.values, self.scale = rows.values, rows.scale

    @property
    def rows(self) -> Rows:
        """What it holds."""
        return Rows(self.form, self.values, self.scale)

    def forward(self, x: Tensor) -> Tensor:
        if not parametrize.is_parametrized(self, "weight"):
            return linear(x, self.rows, self.bias)
        weight = self.rows.whole(x.dtype)
        for change in self.parametrizations["weight"]:  # type: ignore[index]
            weight = change(weight)
        return F.linear(x, weight, self.bias)


def linear(x: Tensor, rows: Rows, bias: Tensor | None = None) -> Tensor:
    """F.linear(x, rows.whole(x.dtype), bias), so many rows at a time that what is in between stays small.

    A few tokens in bfloat16 on a CPU meet int8 as it is, the scale rounded to bfloat16: 12 times as fast for one.
    """
    if rows.scale is not None and _meets_int8(x, rows):
        scale = rows.scale.flatten().to(x.dtype)
        few = torch._weight_int8pack_mm(x.reshape(-1, x.shape[-1]), rows.values.view(torch.int8), scale)
        few = few.reshape(*x.shape[:-1], -1)
        return few if bias is None else few + bias
    step = max(1, LARGEST // max(x.shape[-1], 1))
    if len(rows.values) <= step:
        return F.linear(x, rows.whole(x.dtype), bias)
    out = x.new_empty((*x.shape[:-1], len(rows.values)))
    for start in range(0, len(rows.values), step):
        part = slice(start, start + step)
        out[..., part] = F.linear(
            x, rows.part(start, start + step).whole(x.dtype), None if bias is None else bias[part]
        )
    return out


def quantized(weight: Tensor, kind: str) -> Rows:
    """A matrix (rows, columns) in eight bits. kind: of KINDS."""
    form, (most, narrow) = KINDS[kind], NARROW[kind]
    values = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    scale = torch.empty((len(weight), 1), dtype=torch.float32, device=weight.device)
    step = max(1, AT_ONCE // max(weight.shape[1], 1))
    for start in range(0, len(weight), step):
        found = weight[start : start + step].float()
        largest = found.abs().amax(1, keepdim=True)
        scale[start : start + step] = torch.where(largest > 0, largest / most, 1.0)
        values[start : start + step] = narrow(found / scale[start : start + step]).view(torch.uint8)
    return Rows(form, values, scale)


def worthwhile(name: str, layer: nn.Linear) -> bool:
    """Whether a layer of this name is large, and not at an edge of the network."""
    return is_worth(name, layer.out_features, layer.in_features)


def bytes_of(layer: Packed, scaled: bool) -> int:
    """How much memory what it holds takes. scaled: whether its rows have scales."""
    form = FORMS[layer.form]
    return layer.out_features * (layer.in_features // form.count * form.size + (4 if scaled else 0))


def _meets_int8(x: Tensor, rows: Rows) -> bool:
    """Whether torch has the product, and it is the faster one; it reads beyond rows that do not end at a multiple."""
    return (
        rows.form == "I8"
        and x.is_cpu
        and x.dtype == torch.bfloat16
        and 0 < x.numel() <= FEW * x.shape[-1]
        and x.shape[-1] % MULTIPLE == 0
    )


def _int8(scaled: Tensor) -> Tensor:
    return scaled.round_().clamp_(-127, 127).to(torch.int8)


def _fp8(scaled: Tensor) -> Tensor:
    return scaled.clamp_(-448, 448).to(torch.float8_e4m3fn)


NARROW: Mapping[str, tuple[float, Callable[[Tensor], Tensor]]] = MappingProxyType(
    {"int8": (127.0, _int8), "fp8": (448.0, _fp8)}
)
"""The largest number of each kind, and what rounds to its numbers."""
