"""The header of a safetensors file, from its first bytes alone and safe against hostile files.

A file is 8 bytes N (little-endian), N bytes of JSON (name -> dtype, shape, data_offsets), then the data, which the
tensors cover without gap or overlap (https://github.com/huggingface/safetensors#format). Nothing that a header says
is believed before it is checked, and what is allocated is bounded by the longest header that is allowed.
"""

import io
import json
import math
import os
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from shlex import quote
from types import MappingProxyType
from typing import Any, BinaryIO, final

from triptych.errors import WeightsError

__all__ = ["BITS", "INFINITE", "LONGEST", "Entry", "Header", "begun", "parsed", "read"]

LONGEST = 25_000_000  # bytes of JSON; the hub reads no longer ones either, and SDXL's has 0.3 million
PEEK = 4096  # bytes that tell what a file is
RANK = 64  # axes that a tensor may have, as in torch
LARGEST = 2**63  # numbers of a tensor, and bytes of a file
NONE: Mapping[str, float] = MappingProxyType({})
INFINITE: Mapping[str, float] = MappingProxyType({"Infinity": math.inf, "-Infinity": -math.inf})  # as Python writes it

# Bits of a number of each dtype that the format names.
BITS: Mapping[str, int] = MappingProxyType(
    {"F4": 4, "F6_E2M3": 6, "F6_E3M2": 6}
    | dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8)
    | dict.fromkeys(("U16", "I16", "F16", "BF16"), 16)
    | dict.fromkeys(("U32", "I32", "F32"), 32)
    | dict.fromkeys(("U64", "I64", "F64", "C64"), 64)
)

AGAIN = "Download or export it again."
CONVERT = (
    "python -c \"import sys, torch, safetensors.torch as s; d = torch.load(sys.argv[1], 'cpu', weights_only=True); "
    "d = d.get('state_dict', d); s.save_file({k: v.clone() for k, v in d.items() if torch.is_tensor(v)}, sys.argv[2])\""
)


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor: its dtype as the format names it, its shape, and which bytes of the file hold it."""

    dtype: str
    shape: tuple[int, ...]
    start: int  # from the beginning of the file
    stop: int

    @property
    def count(self) -> int:
        """How many numbers."""
        return math.prod(self.shape)


@final
@dataclass(frozen=True, slots=True)
class Header:
    """Every tensor by its name, in the order of the file, and the texts under `__metadata__`; LONGEST bounds both."""

    tensors: Mapping[str, Entry]
    metadata: Mapping[str, str]


def read(path: Path) -> Header:
    """The checked header of a file. Raises WeightsError that says what is wrong with it and what to do."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise WeightsError(f"{path} is no file; name a .safetensors file.")
        with path.open("rb") as file:
            return _read(file, path, os.fstat(file.fileno()).st_size)
    except (OSError, ValueError) as problem:
        reason = getattr(problem, "strerror", None) or str(problem)
        raise WeightsError(f"cannot read {str(path)!r}: {reason}. Is the name right?") from problem


def begun(data: bytes, path: Path, size: int) -> Header:
    """The checked header of a file whose first bytes alone are at hand. path: its name; size: bytes of it all."""
    return _read(io.BytesIO(data), path, size)


def parsed(text: bytes, constants: Mapping[str, float] = NONE) -> Any:
    """JSON of a stranger: in UTF-8, no name twice, no NaN, no nesting that exhausts the stack. Raises ValueError.

    constants: words that stand for numbers nevertheless.
    """
    try:
        return json.loads(text.decode("utf-8"), object_pairs_hook=_once, parse_constant=partial(_number, constants))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _read(file: BinaryIO, path: Path, size: int) -> Header:
    first = file.read(PEEK)
    length = int.from_bytes(first[:8], "little")
    if len(first) < 9 or first[8:9] != b"{" or length > LONGEST:
        raise WeightsError(f"{path} {_foreign(first, size, path)}")
    if 8 + length > size:
        raise _cut(path, 8 + length - size, "or more")
    file.seek(8)
    try:
        table = parsed(file.read(length))
    except ValueError as problem:
        raise WeightsError(f"{path}: its header is broken: {problem}. {AGAIN}") from problem
    return _checked(table, path, 8 + length, size)


def _checked(table: dict[str, Any], path: Path, begin: int, size: int) -> Header:
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise WeightsError(f"{path}: its header is broken: __metadata__ holds something else than texts. {AGAIN}")
    entries = [(name, _entry(name, told, begin, path)) for name, told in table.items()]
    entries.sort(key=lambda pair: (pair[1].start, pair[1].stop))
    _check_cover(entries, path, begin, size)
    return Header(MappingProxyType(dict(entries)), MappingProxyType(metadata))


def _entry(name: str, told: Any, begin: int, path: Path) -> Entry:
    def broken(reason: str) -> WeightsError:
        return WeightsError(f"{path}: its header is broken: the tensor {name[:100]!r} {reason}. {AGAIN}")

    if not name.isprintable() or not name:
        raise broken("has a name that is no printable text")
    if not isinstance(told, dict) or set(told) != {"dtype", "shape", "data_offsets"}:
        raise broken("is not told by dtype, shape and data_offsets")
    dtype, shape, offsets = told["dtype"], told["shape"], told["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise broken(f"has no known dtype; known: {', '.join(BITS)}")
    if not _are_lengths(shape) or len(shape) > RANK or math.prod(shape) >= LARGEST:
        raise broken("has no possible shape")
    if not _are_lengths(offsets) or len(offsets) != 2:
        raise broken("has no possible offsets")
    if (offsets[1] - offsets[0]) * 8 != math.prod(shape) * BITS[dtype]:
        raise broken(f"has {offsets[1] - offsets[0]} bytes, which do not hold {dtype} of shape {tuple(shape)}")
    return Entry(dtype, tuple(shape), begin + offsets[0], begin + offsets[1])


def _are_lengths(values: Any) -> bool:
    """Whether it is a list of whole numbers that a file can hold; True and 1.0 are none."""
    return isinstance(values, list) and all(type(value) is int and 0 <= value < LARGEST for value in values)


def _check_cover(entries: list[tuple[str, Entry]], path: Path, begin: int, size: int) -> None:
    """The tensors, sorted, must lie end to end from the header's end to the end of the file."""
    edges = [("", Entry("U8", (), begin, begin)), *entries]
    for (_, before), (name, entry) in pairwise(edges):
        if entry.start != before.stop:
            what = "overlaps the one before it" if entry.start < before.stop else "leaves a gap before it"
            raise WeightsError(f"{path}: its header is broken: the tensor {name[:100]!r} {what}. {AGAIN}")
    end = edges[-1][1].stop
    if end > size:
        raise _cut(path, end - size, f"of {end}")
    if end < size:
        raise WeightsError(f"{path}: {size - end} bytes after the last tensor belong to none. {AGAIN}")


def _cut(path: Path, missing: int, rest: str) -> WeightsError:
    return WeightsError(f"{path} is cut off: {missing} bytes {rest} are missing. Download it again.")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        (twice, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"the name {twice[:100]!r} is there twice")
    return table


def _number(constants: Mapping[str, float], text: str) -> float:
    if text not in constants:
        raise ValueError(f"{text} is no number")
    return constants[text]


def _foreign(first: bytes, size: int, path: Path) -> str:
    """What a file is that is no safetensors file, and what to do: the end of a sentence."""
    text = first.lstrip(b"\xef\xbb\xbf \t\r\n")
    if size == 0:
        return "is empty: its download never began. Download it again."
    if text.startswith(b"version https://git-lfs"):
        return "is a Git-LFS pointer, not the weights. Fetch them: git lfs pull"
    if text.startswith(b"<"):
        return "is a web page, not weights: the site wanted a login or a click. Download the file itself."
    if text and all(character in b"\t\r\n" or 32 <= character < 127 for character in text):
        return f"is a text, not weights: {text[:80].decode()!r}. Download the file itself."
    if _is_pickle(first, path):
        return (
            "is a pickle: opening it would run whatever code a stranger put in. Take the model's .safetensors file, or "
            f"convert it once: {CONVERT} {quote(str(path))} {quote(str(path.with_suffix('.safetensors')))}"
        )
    if first.startswith(b"PK\x03\x04"):
        return "is a zip archive, not weights. Unpack it first."
    told = int.from_bytes(first[:8], "little")
    return f"is no safetensors file: its first bytes stand for a header of {told} bytes. {AGAIN}"


def _is_pickle(first: bytes, path: Path) -> bool:
    """torch.save's zip, the bare pickle before it, or a name that only pickles have."""
    zipped = first.startswith(b"PK\x03\x04") and b"data.pkl" in first
    bare = len(first) > 1 and first[0] == 0x80 and 2 <= first[1] <= 5
    return zipped or bare or path.suffix.lower() in {".ckpt", ".pt", ".pth", ".bin", ".pkl"}
