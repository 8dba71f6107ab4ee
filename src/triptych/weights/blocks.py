"""Numbers in few bits, and what they stand for: the blocks of GGUF files, eight-bit floats and integers.

A block holds 32 or 256 numbers of a row as small integers q with a scale d of its own, most of them d q or d q - m; the
256 have scales within, of 16 or 32 numbers each, that are themselves small integers times one scale. What each byte
means is what ggml's ggml-quants.c writes. Everything here is vectorised over blocks and runs on any device.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from types import MappingProxyType
from typing import Final, final

import torch
from torch import Tensor

__all__ = ["FORMS", "Form", "Rows", "unpacked"]

AT_ONCE: Final = 2**16  # numbers that are unpacked at once: what is in between stays in a core's own cache
CODES: Final = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)  # that IQ4 chooses from


@final
@dataclass(frozen=True, slots=True)
class Form:
    """One kind of block: how many numbers it holds in how many bytes, and (n, size) bytes to (n, count) float32."""

    count: int
    size: int
    unpack: Callable[[Tensor], Tensor]


@final
@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A matrix in few bits: its rows' bytes (rows, bytes of a row), and what each row is multiplied by: (rows, 1)."""

    form: str  # of FORMS
    values: Tensor
    scale: Tensor | None = None

    def to(self, device: torch.device | str) -> "Rows":
        """The same there."""
        scale = None if self.scale is None else self.scale.to(device)
        return replace(self, values=self.values.to(device), scale=scale)

    def part(self, start: int, stop: int) -> "Rows":
        """Some of the rows."""
        return replace(
            self, values=self.values[start:stop], scale=None if self.scale is None else self.scale[start:stop]
        )

    def whole(self, dtype: torch.dtype) -> Tensor:
        """The matrix (rows, columns) in this dtype, rounded once from float32."""
        form = FORMS[self.form]
        out = self.values.new_empty((len(self.values), self.values.shape[1] // form.size * form.count), dtype=dtype)
        step = max(1, AT_ONCE // max(out.shape[1], 1)) if out.is_cpu else max(len(out), 1)
        for start in range(0, len(out), step):
            found = self.part(start, start + step)
            numbers = form.unpack(found.values.reshape(-1, form.size)).reshape(len(found.values), -1)
            out[start : start + step] = numbers if found.scale is None else numbers.mul_(found.scale)
        return out


def unpacked(form: str, values: Tensor, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    """The bytes of a tensor of any shape, which lie as those of one row after another, as numbers."""
    if not prod(shape):
        return values.new_empty(shape, dtype=dtype)
    columns = shape[-1] if shape and shape[-1] % FORMS[form].count == 0 else FORMS[form].count
    rows = values.reshape(prod(shape) // columns, -1)
    return Rows(form, rows).whole(dtype).reshape(shape)


def _half(blocks: Tensor, start: int) -> Tensor:
    """The float16 that begins there, of every block: (n, 1) float32."""
    return blocks[:, start : start + 2].contiguous().view(torch.float16).float()


def _nibbles(blocks: Tensor, start: int, stop: int, width: int) -> Tensor:
    """Runs of `width` bytes, each first by its lower then by its upper four bits: (n, 2 (stop - start))."""
    found = blocks[:, start:stop].reshape(len(blocks), -1, width)
    return torch.stack([found & 15, found >> 4], dim=2).flatten(1)


def _spread(found: Tensor, bits: int) -> Tensor:
    """Bytes (..., width) by their pieces of 1 or 2 bits, the lowest first: (..., 8 / bits, width)."""
    mask = (1 << bits) - 1
    return torch.stack([found >> shift & mask for shift in range(0, 8, bits)], dim=-2)


def _fifths(blocks: Tensor, start: int) -> Tensor:
    """The fifth bit of 32 numbers, which lie in four bytes, as the sixteen that it stands for: (n, 32).

    By a table that says for each byte what eight numbers get of it.
    """
    every = torch.arange(256, dtype=torch.uint8, device=blocks.device)
    table = (_spread(every[:, None], 1).flatten(1) << 4).contiguous().view(torch.int64).flatten()
    return table.index_select(0, blocks[:, start : start + 4].int().flatten()).view(torch.uint8).reshape(-1, 32)


def _q4_0(blocks: Tensor) -> Tensor:
    return _nibbles(blocks, 2, 18, 16).float().sub_(8).mul_(_half(blocks, 0))


def _q4_1(blocks: Tensor) -> Tensor:
    return _nibbles(blocks, 4, 20, 16).float().mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q5_0(blocks: Tensor) -> Tensor:
    return (_nibbles(blocks, 6, 22, 16) | _fifths(blocks, 2)).float().sub_(16).mul_(_half(blocks, 0))


def _q5_1(blocks: Tensor) -> Tensor:
    numbers = (_nibbles(blocks, 8, 24, 16) | _fifths(blocks, 4)).float()
    return numbers.mul_(_half(blocks, 0)).add_(_half(blocks, 2))


def _q8_0(blocks: Tensor) -> Tensor:
    return blocks[:, 2:].view(torch.int8).float().mul_(_half(blocks, 0))


def _q2_k(blocks: Tensor) -> Tensor:
    scales, quarters = blocks[:, :16], blocks[:, 16:80].reshape(-1, 2, 32)
    d, least = (scales & 15) * _half(blocks, 80), (scales >> 4) * _half(blocks, 82)
    numbers = _spread(quarters, 2).float().reshape(-1, 16, 16)
    return numbers.mul_(d[..., None]).sub_(least[..., None]).flatten(1)


def _q3_k(blocks: Tensor) -> Tensor:
    third = _spread(blocks[:, :32], 1) << 2  # where this bit is not set, four are taken away
    numbers = (_spread(blocks[:, 32:96].reshape(-1, 2, 32), 2).flatten(1) | third.flatten(1)).float().sub_(4)
    low, high = blocks[:, 96:104], _spread(blocks[:, 104:108], 2).flatten(1)
    scales = torch.cat([low & 15, low >> 4], dim=1) | high << 4
    d = scales.float().sub_(32).mul_(_half(blocks, 108))
    return numbers.reshape(-1, 16, 16).mul_(d[..., None]).flatten(1)


def _eighths(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """What each 32 of 256 numbers are multiplied by, and what is then taken away: (n, 8, 1) each.

    Both are of six bits: of the first four the upper two bits of a byte belong to the last four.
    """
    first, second, third = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = torch.cat([first & 63, third & 15 | first >> 2 & 48], dim=1)
    least = torch.cat([second & 63, third >> 4 | second >> 2 & 48], dim=1)
    return (scales * _half(blocks, 0))[..., None], (least * _half(blocks, 2))[..., None]


def _q4_k(blocks: Tensor) -> Tensor:
    d, least = _eighths(blocks)
    return _nibbles(blocks, 16, 144, 32).float().reshape(-1, 8, 32).mul_(d).sub_(least).flatten(1)


def _q5_k(blocks: Tensor) -> Tensor:
    d, least = _eighths(blocks)
    numbers = _nibbles(blocks, 48, 176, 32) | (_spread(blocks[:, 16:48], 1) << 4).flatten(1)
    return numbers.float().reshape(-1, 8, 32).mul_(d).sub_(least).flatten(1)


def _q6_k(blocks: Tensor) -> Tensor:
    low, high = _nibbles(blocks, 0, 128, 64), _spread(blocks[:, 128:192].reshape(-1, 2, 32), 2).flatten(1)
    d = blocks[:, 192:208].view(torch.int8) * _half(blocks, 208)
    return (low | high << 4).float().sub_(32).reshape(-1, 16, 16).mul_(d[..., None]).flatten(1)


def _chosen(found: Tensor) -> Tensor:
    codes = torch.tensor(CODES, dtype=torch.float32, device=found.device)
    return codes.index_select(0, found.flatten().int()).reshape(found.shape)


def _iq4_nl(blocks: Tensor) -> Tensor:
    return _chosen(_nibbles(blocks, 2, 18, 16)).mul_(_half(blocks, 0))


def _iq4_xs(blocks: Tensor) -> Tensor:
    low = torch.stack([blocks[:, 4:8] & 15, blocks[:, 4:8] >> 4], dim=-1).flatten(1)
    high = _spread(blocks[:, 2:4, None], 2).flatten(1)
    d = (low | high << 4).float().sub_(32).mul_(_half(blocks, 0))
    return _chosen(_nibbles(blocks, 8, 136, 16)).reshape(-1, 8, 32).mul_(d[..., None]).flatten(1)


def _i8(blocks: Tensor) -> Tensor:
    return blocks.view(torch.int8).float()


def _e5m2(blocks: Tensor) -> Tensor:
    """The upper half of a float16."""
    return (blocks.to(torch.int16) << 8).view(torch.float16).float()


def _e4m3(blocks: Tensor) -> Tensor:
    """By a table of all 256, which is faster than torch's own conversion."""
    every = torch.arange(256, dtype=torch.uint8, device=blocks.device).view(torch.float8_e4m3fn).float()
    return every.index_select(0, blocks.flatten().int())[:, None]


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "Q4_0": Form(32, 18, _q4_0),
        "Q4_1": Form(32, 20, _q4_1),
        "Q5_0": Form(32, 22, _q5_0),
        "Q5_1": Form(32, 24, _q5_1),
        "Q8_0": Form(32, 34, _q8_0),
        "Q2_K": Form(256, 84, _q2_k),
        "Q3_K": Form(256, 110, _q3_k),
        "Q4_K": Form(256, 144, _q4_k),
        "Q5_K": Form(256, 176, _q5_k),
        "Q6_K": Form(256, 210, _q6_k),
        "IQ4_NL": Form(32, 18, _iq4_nl),
        "IQ4_XS": Form(256, 136, _iq4_xs),
        "I8": Form(1, 1, _i8),
        "F8_E4M3": Form(1, 1, _e4m3),
        "F8_E5M2": Form(1, 1, _e5m2),
    }
)
"""By the names that files have for them."""
