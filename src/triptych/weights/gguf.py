"""The header of a GGUF file, versions 2 and 3 (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).

A file is `GGUF`, counts, named values, named tensors (lengths of the axes with the last one first, a type, an offset),
then the data. As of safetensors nothing that it says is believed before it is checked, what is read of it is bounded,
and tensors that overlap or lie outside are refused. The `gguf` package's own reader maps the whole file and trusts the
lengths in it, and makes an array of every field; it is what the tests write with and compare to.
"""

import io
import math
import os
import struct
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, Final, final

from triptych.errors import WeightsError
from triptych.weights.header import LARGEST, LONGEST, Entry, Header

__all__ = ["BLOCKS", "MAGIC", "begun", "read"]

MAGIC: Final = b"GGUF"
VERSIONS: Final = (2, 3)
ALIGNMENT: Final = 32  # bytes, where a file says nothing else
AXES: Final = 8
DEEPEST: Final = 2  # arrays within arrays
FEW: Final = 16  # numbers of an array that is kept: a shape; a vocabulary is not
AGAIN: Final = "Download or export it again."

# How many numbers a block holds, in how many bytes, by the type's name; `weights.blocks` unpacks the same.
BLOCKS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "Q4_0": (32, 18),
        "Q4_1": (32, 20),
        "Q5_0": (32, 22),
        "Q5_1": (32, 24),
        "Q8_0": (32, 34),
        "Q2_K": (256, 84),
        "Q3_K": (256, 110),
        "Q4_K": (256, 144),
        "Q5_K": (256, 176),
        "Q6_K": (256, 210),
        "IQ4_NL": (32, 18),
        "IQ4_XS": (256, 136),
    }
)
PLAIN: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "F64": (1, 8), "I8": (1, 1), "I16": (1, 2), "I32": (1, 4)}
    | {"I64": (1, 8)}
)
TYPES: Mapping[int, str] = MappingProxyType(
    {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K"}
    | {13: "Q5_K", 14: "Q6_K", 20: "IQ4_NL", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64"}
    | {30: "BF16"}
)
OTHERS: Mapping[int, str] = MappingProxyType(
    {9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S"}
    | {29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0"}
)

# Named values by their type: how struct has them.
NUMBERS: Mapping[int, str] = MappingProxyType(
    {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
)
TEXT, ARRAY = 8, 9

SHAPE: Final = "comfy.gguf.orig_shape."
"""Before a tensor's name: its true shape, where it was written as rows of 256 so that blocks fit."""


def read(path: Path) -> Header:
    """The checked header of a file. Raises WeightsError that says what is wrong with it and what to do."""
    try:
        with path.open("rb") as file:
            return _checked(file, path, os.fstat(file.fileno()).st_size)
    except OSError as problem:
        raise WeightsError(f"cannot read {str(path)!r}: {problem.strerror}. Is the name right?") from problem
    except _Short as problem:
        raise WeightsError(f"{path} has become shorter while it was read. Open it again.") from problem


def begun(data: bytes, path: Path, size: int) -> Header | None:
    """The checked header of a file whose first bytes alone are at hand; None where it goes on after them.

    path: its name; size: bytes of it all. Raises WeightsError as `read` does.
    """
    try:
        return _checked(io.BytesIO(data), path, size)
    except _Short:
        return None


def _checked(file: BinaryIO, path: Path, size: int) -> Header:
    try:
        return _read(_Bytes(file, size))
    except _Broken as problem:
        raise WeightsError(f"{path}: its header is broken: {problem}. {AGAIN}") from problem


@final
class _Broken(Exception):
    """What is wrong: the middle of a sentence."""


@final
class _Short(Exception):
    """The file goes on after what is at hand of it."""


@final
class _Bytes:
    """What is read one after the other, never more than the file has or a header may take."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self.size, self.at = file, size, 0

    def take(self, count: int) -> bytes:
        if count > LONGEST - self.at:
            raise _Broken(f"it is longer than {LONGEST} bytes")
        if count > self.size - self.at:
            raise _Broken(f"it wants {count} bytes at {self.at}, and the file has {self.size}: it is cut off")
        found = self._file.read(count)
        if len(found) < count:
            raise _Short
        self.at += count
        return found

    def number(self, form: str) -> int | float | bool:
        form = f"<{form}"
        value: int | float | bool = struct.unpack(form, self.take(struct.calcsize(form)))[0]
        return value

    def whole(self, form: str) -> int:
        return int(self.number(form))

    def text(self) -> str:
        try:
            return self.take(self.whole("Q")).decode("utf-8")
        except UnicodeDecodeError as problem:
            raise _Broken("a text in it is not in UTF-8") from problem


def _read(data: _Bytes) -> Header:
    if data.take(4) != MAGIC:
        raise _Broken("it does not begin with GGUF")
    version = data.whole("I")
    if version not in VERSIONS:
        raise _Broken(f"it is of version {version}, and {' and '.join(map(str, VERSIONS))} are read")
    tensors, values = data.whole("Q"), data.whole("Q")
    told: dict[str, str | list[int]] = {}
    for _ in range(values):
        name = data.text()
        if name in told:
            raise _Broken(f"the name {name[:100]!r} is there twice")
        told[name] = _value(data, data.whole("I"), 0)
    alignment = _alignment(told.get("general.alignment", str(ALIGNMENT)))
    found: dict[str, tuple[str, tuple[int, ...], int]] = {}
    for _ in range(tensors):
        name, rest = _tensor(data)
        if name in found:
            raise _Broken(f"the tensor {name[:100]!r} is there twice")
        found[name] = rest
    begin = -(-data.at // alignment) * alignment
    entries = {name: _entry(name, *rest, told.get(SHAPE + name), begin, alignment) for name, rest in found.items()}
    placed = _placed(entries, data.size)
    texts = {name: value for name, value in told.items() if isinstance(value, str)}
    return Header(MappingProxyType(placed), MappingProxyType(texts))


def _value(data: _Bytes, kind: int, depth: int) -> str | list[int]:
    """A named value as text; an array is passed over, and told where it is a few whole numbers."""
    if kind == TEXT:
        return data.text()
    if kind in NUMBERS:
        return str(data.number(NUMBERS[kind]))
    if kind != ARRAY or depth >= DEEPEST:
        raise _Broken(f"it holds a value of type {kind}{' too deep in arrays' if kind == ARRAY else ''}")
    within, count = data.whole("I"), data.whole("Q")
    if within in NUMBERS:
        width = struct.calcsize(f"<{NUMBERS[within]}")
        found = data.take(count * width)
        whole = count <= FEW and NUMBERS[within] in "BbHhIiQq"
        return list(struct.unpack(f"<{count}{NUMBERS[within]}", found)) if whole else []
    for _ in range(count):  # each takes eight bytes or more, of which there is an end
        _value(data, within, depth + 1)
    return []


def _alignment(told: str | list[int]) -> int:
    value = int(told) if isinstance(told, str) and told.isdecimal() else 0
    if value < 1 or value & value - 1 or value > 2**20:
        raise _Broken(f"its alignment is {str(told)[:20]!r}, no power of two up to a million")
    return value


def _tensor(data: _Bytes) -> tuple[str, tuple[str, tuple[int, ...], int]]:
    """Name, type, shape and offset of one."""
    name = data.text()
    if not name or not name.isprintable():
        raise _Broken(f"the tensor {name[:100]!r} has a name that is no printable text")
    axes = data.whole("I")
    if axes > AXES:
        raise _Broken(f"the tensor {name[:100]!r} has {axes} axes")
    lengths = [data.whole("Q") for _ in range(axes)]
    number, offset = data.whole("I"), data.whole("Q")
    if number not in TYPES:
        kind = f"{OTHERS[number]} (type {number})" if number in OTHERS else f"type {number}"
        raise _Broken(f"the tensor {name[:100]!r} is {kind}, which is not read; read are {', '.join(TYPES.values())}")
    return name, (TYPES[number], tuple(reversed(lengths)), offset)


def _entry(
    name: str,
    kind: str,
    shape: tuple[int, ...],
    offset: int,
    told: str | list[int] | None,
    begin: int,
    alignment: int,
) -> Entry:
    count, size = BLOCKS.get(kind) or PLAIN[kind]
    numbers = math.prod(shape)
    if max(shape, default=1) >= LARGEST or numbers >= LARGEST or (shape[-1] if shape else 1) % count:
        raise _Broken(f"the tensor {name[:100]!r} of {kind} has no possible shape: {shape}")
    if offset % alignment or offset >= LARGEST:
        raise _Broken(f"the tensor {name[:100]!r} is not at a multiple of {alignment} bytes")
    if told is not None:
        if not isinstance(told, list) or min(told, default=1) < 0 or math.prod(told) != numbers:
            raise _Broken(f"the tensor {name[:100]!r} of shape {shape} is said to be of shape {str(told)[:100]}")
        shape = tuple(told)
    start = begin + offset
    return Entry(kind, shape, start, start + numbers // count * size)


def _placed(entries: Mapping[str, Entry], size: int) -> dict[str, Entry]:
    """In the order of the file, in which none may overlap and none may go on after the end."""
    placed = sorted(entries.items(), key=lambda pair: (pair[1].start, pair[1].stop))
    for (_, before), (name, entry) in pairwise(placed):
        if entry.start < before.stop:
            raise _Broken(f"the tensor {name[:100]!r} overlaps the one before it")
    if placed and placed[-1][1].stop > size:
        raise _Broken(f"the last tensor ends at {placed[-1][1].stop} and the file at {size}: it is cut off")
    return dict(placed)
