"""Tensors of a file, of shards, or of a diffusers folder: found by name, mapped into memory, read one by one.

Opening reads headers only. A tensor that is read is a view of the file's pages (copied only where one is written to),
so that nothing is held twice: what is converted is the first copy. What lies there in few bits is had by `rows` as it
is; `read` multiplies it out. The tensor library is imported with the first read.
"""

import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

from triptych.errors import WeightsError
from triptych.weights import gguf, header, scaled
from triptych.weights.gguf import BLOCKS
from triptych.weights.header import BITS, INFINITE, Entry, Header
from triptych.weights.scaled import Scale

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from triptych.weights.blocks import Rows

__all__ = ["Bundle", "Tensors", "find", "joined", "open_bundle", "open_tensors", "read_header"]

# Weights in folders as the libraries name them, with the variant: model.fp16.safetensors, model.safetensors.index.json
STEM = "(?:diffusion_pytorch_model|model|pytorch_lora_weights|adapter_model)"
WHOLE = re.compile(rf"{STEM}(?:\.(\w+))?\.safetensors")
SHARDED = re.compile(rf"{STEM}\.safetensors\.index(?:\.(\w+))?\.json")
UNNEEDED = ("safety_checker",)  # of a diffusers folder
PICKLES = (".bin", ".ckpt", ".pt", ".pth")
CONFIGS = ("config.json", "scheduler_config.json")
LONGEST = 25_000_000  # bytes of an index or a configuration
NOWHERE: Mapping[str, Any] = MappingProxyType({})
RELEASE: int | None = getattr(mmap, "MADV_DONTNEED", None)  # what systems have that can let go of pages

# What torch calls the dtypes that it can hold.
TORCH = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "U16": "uint16",
    "I16": "int16",
    "F16": "float16",
    "BF16": "bfloat16",
    "U32": "uint32",
    "I32": "int32",
    "F32": "float32",
    "U64": "uint64",
    "I64": "int64",
    "F64": "float64",
    "C64": "complex64",
}


@final
@dataclass(frozen=True, slots=True)
class Tensors:
    """One set of tensors by name, wherever each of them lies."""

    where: str  # for messages
    places: Mapping[str, tuple[Path, Entry]]
    metadata: Mapping[str, str]
    scales: Mapping[str, Scale] = field(default_factory=dict)  # of weights of eight bits that have one
    _mapped: "dict[Path, tuple[mmap.mmap, Tensor]]" = field(default_factory=dict, repr=False, compare=False)

    def names(self) -> tuple[str, ...]:
        """Every name, in the order of the files."""
        return tuple(self.places)

    def entries(self) -> Mapping[str, Entry]:
        """What the headers tell of each tensor."""
        return {name: entry for name, (_, entry) in self.places.items()}

    def shape(self, name: str) -> tuple[int, ...]:
        """Raises WeightsError where there is no such tensor."""
        return self._place(name)[1].shape

    def dtype(self, name: str) -> str:
        """As the format names it: F32, BF16, F8_E4M3, Q4_0, ... Raises WeightsError where there is no such tensor."""
        return self._place(name)[1].dtype

    def form(self, name: str) -> str | None:
        """What `rows` gives it in, where it is a matrix in few bits; None where `rows` cannot. Raises WeightsError."""
        entry = self._place(name)[1]
        count, _ = BLOCKS.get(entry.dtype, (1, 1))
        few = entry.dtype in BLOCKS or entry.dtype.startswith(("F8_E4M3", "F8_E5M2")) or name in self.scales
        whole = len(entry.shape) > 1 and entry.count > 0 and entry.count // entry.shape[0] % count == 0
        return entry.dtype if few and whole and not entry.dtype.endswith("FNUZ") else None

    def rows(self, name: str) -> "Rows":
        """A matrix in few bits as it is, its numbers and blocks a view of the file. Raises WeightsError."""
        import torch

        from triptych.weights.blocks import Rows

        path, entry = self._place(name)
        values = self._raw(path, entry).reshape(entry.shape[0] if len(entry.shape) > 1 else 1, -1)
        if name not in self.scales:
            return Rows(entry.dtype, values)
        scale = self.scales[name]
        if scale.said:
            scaled.check(name, bytes(self._raw(*scale.said).numpy()), path)
        numbers = self._plain(name, *scale.place).to(torch.float32).reshape(-1, 1)
        return Rows(entry.dtype, values, numbers.expand(len(values), 1).contiguous())

    def read(self, name: str, dtype: "torch.dtype | None" = None) -> "Tensor":
        """A view of the file, on the CPU and of the dtype that it has there. Raises WeightsError.

        What lies there in blocks or with scales is multiplied out: in float32, or rounded once to `dtype`.
        """
        import torch

        from triptych.weights.blocks import unpacked

        path, entry = self._place(name)
        if name in self.scales:
            return self.rows(name).whole(dtype or torch.float32).reshape(entry.shape)
        if entry.dtype in BLOCKS:
            return unpacked(entry.dtype, self._raw(path, entry), entry.shape, dtype or torch.float32)
        return self._plain(name, path, entry)

    def under(self, prefix: str) -> "Tensors":
        """Those whose names begin with `prefix`, without it; the files stay mapped once."""
        chosen = {name.removeprefix(prefix): at for name, at in self.places.items() if name.startswith(prefix)}
        scales = {name.removeprefix(prefix): at for name, at in self.scales.items() if name.startswith(prefix)}
        return Tensors(self.where, chosen, self.metadata, scales, self._mapped)

    def release(self, name: str) -> None:
        """A tensor's pages may leave the memory: whoever still looks at it reads them again."""
        path, entry = self._place(name)
        if path not in self._mapped or RELEASE is None:
            return
        pages = self._mapped[path][0]
        start = -(-entry.start // mmap.PAGESIZE) * mmap.PAGESIZE  # whole pages that are this tensor's alone
        stop = min(entry.stop, len(pages)) // mmap.PAGESIZE * mmap.PAGESIZE
        if stop > start:
            pages.madvise(RELEASE, start, stop - start)

    def _plain(self, name: str, path: Path, entry: Entry) -> "Tensor":
        import torch

        kind = getattr(torch, TORCH.get(entry.dtype, ""), None)
        if kind is None:
            raise WeightsError(f"{path}: {name} is {entry.dtype}, which torch {torch.__version__} does not hold.")
        raw = self._raw(path, entry)
        if entry.start % max(BITS[entry.dtype] // 8, 1):  # some writers do not align
            raw = raw.clone()
        return raw.view(kind).reshape(entry.shape)

    def _raw(self, path: Path, entry: Entry) -> "Tensor":
        found = self._bytes(path)[entry.start : entry.stop]
        if len(found) < entry.stop - entry.start:
            raise WeightsError(f"{path} has become shorter since it was opened. Open it again.")
        return found

    def _bytes(self, path: Path) -> "Tensor":
        import torch

        if path not in self._mapped:
            with path.open("rb") as file:
                pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
            self._mapped[path] = pages, torch.frombuffer(pages, dtype=torch.uint8)
        return self._mapped[path][1]

    def _place(self, name: str) -> tuple[Path, Entry]:
        if name not in self.places:
            near = get_close_matches(name, self.places, n=1)
            raise WeightsError(f"{self.where} has no tensor {name!r}.{f' The nearest: {near[0]!r}.' if near else ''}")
        return self.places[name]


@final
@dataclass(frozen=True, slots=True)
class Bundle:
    """What lies at a place: one set of tensors, or one a subfolder, and the small JSON files beside them.

    Both are by subfolder, "" for the place itself; configs[""] of a diffusers folder is its model_index.json.
    """

    where: Path
    sets: Mapping[str, Tensors]
    configs: Mapping[str, Mapping[str, Any]]


def open_bundle(path: Path, variant: str | None = None) -> Bundle:
    """A file, a folder with one network, or a diffusers folder with model_index.json. Raises WeightsError.

    variant: like "fp16", of a folder that has several; None is the one without a name, or else the only one.
    """
    if not (path / "model_index.json").is_file():
        named = WHOLE.fullmatch(path.name) or SHARDED.fullmatch(path.name)
        beside = path if path.is_dir() else path.parent
        config = _config(beside) if path.is_dir() or named else NOWHERE
        return Bundle(path, {"": open_tensors(path, variant)}, {"": config})
    index = _json(path / "model_index.json")
    parts = [name for name, told in index.items() if isinstance(told, list) and _is_plain(name)]
    folders = [path / name for name in parts if name not in UNNEEDED and (path / name).is_dir()]
    holders = [folder for folder in folders if _holds_weights(folder)]
    if variant is not None and not any(variant in _variants(folder) for folder in holders):
        raise WeightsError(f"no part of {path} has the variant {variant!r}. Leave it out, or fetch it first.")
    sets = {folder.name: open_tensors(folder, _nearest(folder, variant)) for folder in holders}
    return Bundle(path, sets, {"": index, **{folder.name: _config(folder) for folder in folders}})


def open_tensors(path: Path, variant: str | None = None) -> Tensors:
    """The tensors of a file, an index of shards, or a folder with one set. Raises WeightsError."""
    return joined(path, {part: read_header(part) for part in find(path, variant)})


def joined(where: Path, headers: Mapping[Path, Header]) -> Tensors:
    """The tensors of files by their headers. Raises WeightsError where a name is in two of them."""
    places: dict[str, tuple[Path, Entry]] = {}
    for part, found in headers.items():
        for name, entry in found.tensors.items():
            if name in places:
                raise WeightsError(
                    f"{where}: {name!r} is in {places[name][0].name} and in {part.name}; keep one of them."
                )
            places[name] = (part, entry)
    metadata = {name: value for found in headers.values() for name, value in found.metadata.items()}
    chosen, scales = scaled.apart(places, metadata)
    return Tensors(str(where), MappingProxyType(chosen), MappingProxyType(metadata), MappingProxyType(scales))


def find(path: Path, variant: str | None = None) -> tuple[Path, ...]:
    """The files that together hold one set of tensors. Raises WeightsError where it is none or several."""
    if path.is_dir():
        path = _chosen(path, variant)
    if not path.name.endswith(".json"):
        return (path,)
    table = _json(path).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(name, str) for name in table.values()):
        raise WeightsError(f"{path} is no index of shards: it has no weight_map from tensors to files.")
    files = sorted(set(table.values()))
    for name in files:
        if not _is_plain(name) or not name.endswith(".safetensors"):
            raise WeightsError(
                f"{path} names {name[:200]!r}; an index may name .safetensors files beside it, no others."
            )
    missing = [name for name in files if not (path.parent / name).is_file()]
    if missing:
        raise WeightsError(f"{path}: {len(missing)} of {len(files)} shards are missing: {', '.join(missing[:8])}.")
    return tuple(path.parent / name for name in files)


def read_header(path: Path) -> Header:
    """The checked header of a file of either format, as its first bytes tell. Raises WeightsError."""
    return gguf.read(path) if path.is_file() and _begins(path) == gguf.MAGIC else header.read(path)


def _begins(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(len(gguf.MAGIC))
    except OSError:
        return b""  # which the reader of headers has words for


def _chosen(folder: Path, variant: str | None) -> Path:
    """The file or index in a folder that is of this variant."""
    found = _variants(folder)
    if variant is None and len(found) == 1:
        return next(iter(found.values()))
    if (variant or "") in found:
        return found[variant or ""]
    if found:
        names = ", ".join(name or "one without a name" for name in sorted(found))
        raise WeightsError(f"{folder} has no variant {variant or 'without a name'}; it has: {names}. Name one of them.")
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".gguf"))
    if len(files) == 1 and variant is None:
        return files[0]
    if files:
        raise WeightsError(f"{folder} holds several files: {', '.join(file.name for file in files[:8])}. Name one.")
    pickles = [file for file in sorted(folder.iterdir()) if file.suffix in PICKLES]
    if pickles:
        return pickles[0]  # whose header is read next, which says why not, and the way out
    raise WeightsError(f"{folder} holds no .safetensors file and no model_index.json. Name the file or its folder.")


def _variants(folder: Path) -> dict[str, Path]:
    """The sets of weights in a folder by their variant; "" is the one without a name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        named = WHOLE.fullmatch(path.name) or SHARDED.fullmatch(path.name)
        if named is not None:
            found.setdefault(named[1] or "", path)
    return found


def _nearest(folder: Path, variant: str | None) -> str | None:
    """The variant where the folder has it: often only the largest parts of a model come in several."""
    return variant if variant in _variants(folder) else None


def _holds_weights(folder: Path) -> bool:
    return any(path.suffix in (".safetensors", *PICKLES) for path in folder.iterdir())


def _is_plain(name: str) -> bool:
    """Whether it names something in a folder, and nothing outside it."""
    return Path(name).name == name and name != ".." and "\\" not in name and ":" not in name


def _config(folder: Path) -> Mapping[str, Any]:
    return next((_json(folder / name) for name in CONFIGS if (folder / name).is_file()), NOWHERE)


def _json(path: Path) -> dict[str, Any]:
    """A small JSON object from a file. Raises WeightsError."""
    try:
        with path.open("rb") as file:
            text = file.read(LONGEST + 1)
        if len(text) > LONGEST:
            raise ValueError(f"it is longer than {LONGEST} bytes")
        table = header.parsed(text, INFINITE)  # which schedulers of diffusers say
        if not isinstance(table, dict):
            raise ValueError("it is no JSON object")
    except (OSError, ValueError) as problem:
        raise WeightsError(f"cannot read {path}: {problem}. Download it again.") from problem
    return table
