"""What a tower said of a prompt, kept on disk: the next time that tower need not come into memory.

A safetensors file a text, named by a SHA-256 of all that it depends on. The folder is bounded: what was used longest
ago goes. A file that is damaged is as if it were not there, and is written anew.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Final, final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from triptych.errors import FileProblem

__all__ = ["Kept", "key"]

FORMAT: Final = "1"  # of the files; those of another are not looked for
GIBIBYTE: Final = 2**30


def key(tower: str, ids: Sequence[int], masked: bool, dtype: torch.dtype) -> str:
    """What a tower says of ids depends on. tower: a fingerprint of its weights; masked: whether it sees no padding.

    What prompts weigh is applied to what it said, and thus no part of it.
    """
    said = json.dumps([FORMAT, tower, list(ids), masked, str(dtype)])
    return hashlib.sha256(said.encode()).hexdigest()


@final
@dataclass(frozen=True, slots=True)
class Kept:
    """A folder of what towers said. most: bytes that it may take. Several processes may use it."""

    folder: Path
    most: int = GIBIBYTE

    def recall(self, name: str) -> Tensor | None:
        """What was kept by a key, on the CPU; None where nothing was, or it is damaged."""
        path = self._path(name)
        try:
            with safe_open(path, "pt") as file:
                found: Tensor = file.get_tensor("said")
                whole = (file.metadata() or {}).get("sha256") == _digest(found)
        except (OSError, SafetensorError):
            return None
        if not whole:
            return None
        with suppress(OSError):  # another process may have removed it just now
            os.utime(path)
        return found

    def keep(self, name: str, said: Tensor) -> None:
        """Keeps a tensor by a key. Raises FileProblem where the folder cannot be written."""
        tensor = said.detach().cpu().contiguous()
        data = save({"said": tensor}, {"format": FORMAT, "sha256": _digest(tensor)})
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with NamedTemporaryFile(dir=self.folder, suffix=PART, delete=False) as file:
                part = Path(file.name)
                try:
                    file.write(data)
                    file.close()
                    part.replace(self._path(name))
                finally:
                    part.unlink(missing_ok=True)
            self._shrink()
        except OSError as error:
            raise FileProblem(
                f"{self.folder}: encoded prompts cannot be kept there ({error.strerror}). Name another folder, or none."
            ) from error

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"

    def _shrink(self) -> None:
        """The oldest go, and of processes that broke off what they had begun."""
        found: list[tuple[float, int, Path]] = []
        for path in self.folder.iterdir():
            if path.suffix in (SUFFIX, PART):
                with suppress(FileNotFoundError):
                    told = path.stat()
                    found.append((told.st_mtime, told.st_size, path))
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.most:
                return
            path.unlink(missing_ok=True)
            total -= size


SUFFIX: Final = ".safetensors"
PART: Final = ".part"


def _digest(tensor: Tensor) -> str:
    """Of the numbers of a tensor, its shape and its dtype."""
    header = f"{tuple(tensor.shape)} {tensor.dtype} ".encode()
    return hashlib.sha256(header + tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
