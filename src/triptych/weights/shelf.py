"""Layers that were brought into few bits once, kept on disk for the next start: mapped there, not made again.

One safetensors file a network, by a key of what it was made of, with `LAYER.values` (bytes of rows) and `LAYER.scale`.
A file is written beside its place and moved there whole; one that is broken or of another version is as none; what was
used longest ago goes when all of them are more than they may be.
"""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import torch
from torch import Tensor

from triptych.errors import WeightsError
from triptych.weights.blocks import Rows
from triptych.weights.digest import sampled
from triptych.weights.fewbits import fits
from triptych.weights.files import Tensors, open_tensors
from triptych.weights.layouts import Source
from triptych.weights.quantize import Packed

__all__ = ["Shelf", "key_of"]

VERSION: Final = "1"  # of what a file holds and of how it is made
OLD: Final = 86_400  # seconds after which what was not written to its end is in nobody's hands
KINDS: Mapping[torch.dtype, str] = {torch.uint8: "U8", torch.float32: "F32"}


def key_of(tensors: Tensors, sources: Mapping[str, Source], kind: str) -> str:
    """What layers in few bits are known by: the files that they are made of, how, and into what.

    Files are told by place, time and a sample of what they hold. Raises WeightsError.
    """
    files = sorted({tensors.places[part][0] for source in sources.values() for part in source.names})
    told = [(str(file.resolve()), file.stat().st_mtime_ns, sampled(file)) for file in files]
    made = sorted((name, [tensors.places[part][1].start for part in source.names]) for name, source in sources.items())
    return hashlib.sha256(json.dumps([VERSION, kind, told, made]).encode()).hexdigest()


@final
@dataclass(frozen=True, slots=True)
class Shelf:
    """A folder of such files. limit: bytes that they may take together."""

    folder: Path
    limit: int

    def load(self, key: str, layers: Mapping[str, Packed]) -> dict[str, Rows]:
        """What was saved for these layers under this key, as views of the file; nothing where that is not whole."""
        path = self._path(key)
        if not path.is_file():
            return {}
        try:
            tensors = open_tensors(path)
            if tensors.metadata.get("key") != key:
                raise WeightsError(f"{path} is of another key.")
            found = {name: _rows(tensors, name, layer) for name, layer in layers.items()}
            os.utime(path)
        except (WeightsError, OSError):
            with contextlib.suppress(OSError):
                path.unlink()
            return {}
        return found

    def save(self, key: str, layers: Mapping[str, Rows]) -> None:
        """Keeps these, if the folder may hold and takes them; that it does not is no reason to stop."""
        tensors = dict(
            sorted(_named(layers), key=lambda pair: pair[1].dtype != torch.float32)
        )  # numbers of 4 bytes first
        if sum(tensor.nbytes for tensor in tensors.values()) > self.limit:
            return
        path = self._path(key)
        beside = path.with_suffix(f".{os.getpid()}.part")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            _write(beside, tensors, {"format": "triptych packed", "version": VERSION, "key": key})
            beside.replace(path)
            self._make_room(path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()

    def _path(self, key: str) -> Path:
        return self.folder / f"{key[:32]}.safetensors"

    def _make_room(self, newest: Path) -> None:
        kept = sorted(self.folder.glob("*.safetensors"), key=lambda path: (path == newest, path.stat().st_mtime_ns))
        left = sum(path.stat().st_size for path in kept)
        for path in kept[:-1]:
            if left <= self.limit:
                break
            left -= path.stat().st_size
            path.unlink()
        for part in self.folder.glob("*.part"):
            if part.stat().st_mtime < time.time() - OLD:
                part.unlink()


def _rows(tensors: Tensors, name: str, layer: Packed) -> Rows:
    rows = Rows(layer.form, tensors.read(f"{name}.values"), tensors.read(f"{name}.scale"))
    if (
        rows.values.dtype != torch.uint8
        or not fits(layer, rows)
        or tensors.shape(f"{name}.scale") != (len(rows.values), 1)
    ):
        raise WeightsError(f"{tensors.where}: {name} is of another shape.")
    return rows


def _named(layers: Mapping[str, Rows]) -> Iterator[tuple[str, Tensor]]:
    for name, rows in layers.items():
        assert rows.scale is not None
        yield f"{name}.values", rows.values
        yield f"{name}.scale", rows.scale


def _write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file, one tensor after the other, so that none is copied but the one that is written."""
    table: dict[str, object] = {"__metadata__": metadata}
    at = 0
    for name, tensor in tensors.items():
        offsets = [at, at := at + tensor.nbytes]
        table[name] = {"dtype": KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": offsets}
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in tensors.values():
            file.write(tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().data)
        file.flush()
        os.fsync(file.fileno())
